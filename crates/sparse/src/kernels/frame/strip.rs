//! Products with many tokens at once: strips.
//!
//! A strip is `width` tokens of x, transposed: `(in, width)`, so that one weight meets `width` numbers side by side. A row of W
//! keeps the sums of a strip in registers while it walks over its weights of one tile of columns, whose part of the strip
//! stays in the first cache; between tiles the sums rest in a scratch `(rows of the block, width)`, which is at last turned back into
//! y, with bias, activation and accumulation on the way.
//!
//! ```text
//! for each strip of x, for each block of rows:            (in parallel)
//!     for each tile of columns: for each row: sums[row] += weights[row, tile] · strip[tile]
//!     y[strip, block] = turned back
//! ```
//!
//! Tried, and no faster on a core with AVX2: two or four rows that share what is loaded of x, their columns sorted by which rows
//! have them (better at half the weights and 16 tokens, worse elsewhere: the loops are too short); whole rows against a strip in
//! the second cache (a third slower; asking for lines ahead wins back a tenth).

use super::epilogue::{Epilogue, Out};
use super::rows::Rows;
use super::scratch::{Scratch, Use};
use super::tasks::large_tasks;
use super::turn::{turn_in, turn_out};
use super::width::{Strip, strips};
use crate::kernels::simd::{Isa, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};
use ndarray::ArrayRef2;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// A weight that can multiply a strip, block by block.
pub(crate) trait Sums: Sync {
    /// `(out, in)`.
    fn dim(&self) -> (usize, usize);
    /// First row of each block, and one past the last row.
    fn blocks(&self) -> &[u32];
    /// Number of weights.
    fn len(&self) -> usize;
    /// The widest strip that it multiplies well: a power of two from 4 on, or 48.
    fn widest(&self) -> usize;
    /// Adds the products of a block with a strip `(in, width)` to sums `(rows of the block + 1, width)`, of which the last line is
    /// for whatever.
    fn add(&self, block: usize, x: &[f32], width: usize, sums: &mut [f32]);
}

impl<R: Rows> Sums for R {
    fn dim(&self) -> (usize, usize) {
        Rows::dim(self)
    }

    fn blocks(&self) -> &[u32] {
        Rows::blocks(self)
    }

    fn len(&self) -> usize {
        Rows::len(self)
    }

    fn widest(&self) -> usize {
        64
    }

    fn add(&self, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is only ever current on a machine that has it.
            Isa::Avx512 => unsafe { block_avx512(self, block, x, width, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { block_avx2(self, block, x, width, sums) },
            _ if cfg!(target_arch = "aarch64") => by_eights(Portable::<8>, Portable::<4>, self, block, x, width, sums),
            _ => {
                let written = Written { storage: self, list: Mutex::default() };
                by_eights(Portable::<8>, Portable::<4>, &written, block, x, width, sums);
            }
        }
    }
}

/// Multiplications from which on the pool is worth waking.
const PARALLEL: usize = 1 << 20;
/// Columns that one task turns.
const TURNED: usize = 256;

/// `y = x · Wᵀ` with the epilogue. The result does not depend on the number of threads.
pub(crate) fn product(w: &dyn Sums, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
    let (tokens, (rows, cols)) = (x.nrows(), w.dim());
    if tokens == 0 || rows == 0 {
        return;
    }
    let threads = rayon::current_num_threads();
    let parallel = threads > 1 && tokens.saturating_mul(w.len()) >= PARALLEL;
    let (out, blocks) = (Out::new(y), w.blocks());
    // Strips are made and used a few at a time, so that their memory does not grow with the number of tokens.
    let at_once = if parallel { threads } else { 1 };
    for group in strips(tokens, w.widest()).chunks(at_once) {
        let starts: Vec<usize> = std::iter::once(0)
            .chain(group.iter().scan(0, |at, strip| {
                *at += strip.width * cols;
                Some(*at)
            }))
            .collect();
        let mut turned = Scratch::take(starts[group.len()], Use::Strips);
        let task = |x: &[f32], strip: &Strip, block: usize| {
            let rows = blocks[block] as usize..blocks[block + 1] as usize;
            let mut sums = Scratch::take((rows.len() + 1) * strip.width, Use::Sums);
            sums.fill(0.0);
            w.add(block, x, strip.width, &mut sums);
            // SAFETY: each task has its own strip and block, so no two write the same entries of y.
            unsafe { turn_out(&sums, strip, rows, out, epilogue) };
        };
        let blocks = blocks.len() - 1;
        let part = |i: usize| starts[i]..starts[i + 1];
        if parallel && cols > 0 {
            let mut pieces = Vec::new();
            let mut rest = &mut turned[..];
            for strip in group {
                let (mut to, after) = rest.split_at_mut(strip.width * cols);
                rest = after;
                for first in (0..cols).step_by(TURNED) {
                    let end = (first + TURNED).min(cols);
                    let (piece, after) = to.split_at_mut((end - first) * strip.width);
                    to = after;
                    pieces.push((strip, first..end, piece));
                }
            }
            pieces.into_par_iter().for_each(|(strip, columns, to)| turn_in(x, strip, columns, to));
            let turned = &turned[..];
            large_tasks(group.len() * blocks, true, &|i| task(&turned[part(i / blocks)], &group[i / blocks], i % blocks));
        } else {
            for (i, strip) in group.iter().enumerate() {
                turn_in(x, strip, 0..cols, &mut turned[part(i)]);
                (0..blocks).for_each(|block| task(&turned[part(i)], strip, block));
            }
        }
    }
}

/// What kernels of strips ask for before they go through pointers: a strip of all columns, and sums for so many rows.
///
/// # Panics
/// If there are not as many numbers.
#[inline(never)]
pub(crate) fn check(x: &[f32], cols: usize, sums: &[f32], rows: usize, width: usize) {
    assert!(x.len() == cols * width, "a strip of {} numbers for {cols} columns of {width}", x.len());
    assert!(sums.len() >= rows * width, "{} sums for {rows} rows of {width}", sums.len());
}

/// With eight lanes, or four for the narrowest strip.
#[inline(always)]
fn by_eights<Eight: Simd, Four: Simd, R: Rows>(
    eight: Eight,
    four: Four,
    w: &R,
    block: usize,
    x: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    match width {
        64 => tiles::<Eight, R, 8, 1>(eight, w, block, x, sums),
        32 => tiles::<Eight, R, 4, 2>(eight, w, block, x, sums),
        16 => tiles::<Eight, R, 2, 4>(eight, w, block, x, sums),
        8 => tiles::<Eight, R, 1, 4>(eight, w, block, x, sums),
        _ => tiles::<Four, R, 1, 4>(four, w, block, x, sums),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn block_avx2<R: Rows>(w: &R, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    by_eights(Ymm::new(), Xmm::new(), w, block, x, width, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn block_avx512<R: Rows>(w: &R, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    let s = Zmm::new();
    match width {
        64 => tiles::<Zmm, R, 4, 2>(s, w, block, x, sums),
        32 => tiles::<Zmm, R, 2, 4>(s, w, block, x, sums),
        16 => tiles::<Zmm, R, 1, 4>(s, w, block, x, sums),
        _ => block_avx2(w, block, x, width, sums),
    }
}

/// What a storage shows, list by list, to a kernel that is compiled once for all storages: where there are no vectors worth the name, that takes
/// little longer.
trait Shown: Sync {
    fn dim(&self) -> (usize, usize);
    fn blocks(&self) -> &[u32];
    fn len(&self) -> usize;
    fn tiles(&self) -> usize;
    fn tile_start(&self, tile: usize) -> usize;
    fn row(&self, block: usize, tile: usize, slot: usize) -> usize;
    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32;
    /// Adds the weights of a list.
    fn list(&self, block: usize, tile: usize, slot: usize, to: &mut Vec<Weight>);
}

/// The run out of [`RUNS`] that it belongs to, its column within the tile, its value.
type Weight = (usize, usize, f32);

/// Runs that weights take turns in: those of every width divide it.
const RUNS: usize = 4;

impl<R: Rows> Shown for R {
    fn dim(&self) -> (usize, usize) {
        Rows::dim(self)
    }

    fn blocks(&self) -> &[u32] {
        Rows::blocks(self)
    }

    fn len(&self) -> usize {
        Rows::len(self)
    }

    fn tiles(&self) -> usize {
        Rows::tiles(self)
    }

    fn tile_start(&self, tile: usize) -> usize {
        Rows::tile_start(self, tile)
    }

    fn row(&self, block: usize, tile: usize, slot: usize) -> usize {
        Rows::row(self, block, tile, slot)
    }

    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32 {
        Rows::scale(self, block, tile, slot)
    }

    fn list(&self, block: usize, tile: usize, slot: usize, to: &mut Vec<Weight>) {
        self.each::<RUNS>(block, tile, slot, |u, column, value| to.push((u, column, value)));
    }
}

/// A storage whose lists are written down before they are multiplied.
struct Written<'a> {
    storage: &'a dyn Shown,
    /// The list at hand; one thread alone asks for it.
    list: Mutex<Vec<Weight>>,
}

// SAFETY: the storage has promised it.
unsafe impl Rows for Written<'_> {
    fn dim(&self) -> (usize, usize) {
        self.storage.dim()
    }

    fn blocks(&self) -> &[u32] {
        self.storage.blocks()
    }

    fn len(&self) -> usize {
        self.storage.len()
    }

    fn tiles(&self) -> usize {
        self.storage.tiles()
    }

    fn tile_start(&self, tile: usize) -> usize {
        self.storage.tile_start(tile)
    }

    fn row(&self, block: usize, tile: usize, slot: usize) -> usize {
        self.storage.row(block, tile, slot)
    }

    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32 {
        self.storage.scale(block, tile, slot)
    }

    #[inline(always)]
    fn each<const U: usize>(&self, block: usize, tile: usize, slot: usize, mut f: impl FnMut(usize, usize, f32)) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.clear();
        self.storage.list(block, tile, slot, &mut list);
        list.iter().for_each(|&(run, column, value)| f(run % U, column, value));
    }
}

/// The heart: `V` vectors of sums for each of `U` interleaved runs of a row's weights. `x` is `(in, V * LANES)`, `sums` is `(rows of the
/// block, V * LANES)` at least.
#[inline(always)]
fn tiles<S: Simd, R: Rows, const V: usize, const U: usize>(s: S, w: &R, block: usize, x: &[f32], sums: &mut [f32]) {
    let width = V * S::LANES;
    let rows = (w.blocks()[block + 1] - w.blocks()[block]) as usize;
    check(x, w.dim().1, sums, rows, width);
    for tile in 0..w.tiles() {
        let x = x[w.tile_start(tile) * width..].as_ptr();
        for slot in 0..rows {
            let row = w.row(block, tile, slot);
            // SAFETY: x has `width` numbers for each column and `sums` for each row of the block, says `check`; a column of a tile is one of all,
            // and `row` one of the block: `Rows` promises it.
            unsafe {
                let to = sums.as_mut_ptr().add(row * width);
                let mut acc = [[s.splat(0.0); V]; U];
                w.each::<U>(block, tile, slot, |u, column, value| {
                    let x = x.add(column * width);
                    let value = s.splat(value);
                    for (v, sum) in acc[u].iter_mut().enumerate() {
                        *sum = s.fma(value, s.load(x.add(v * S::LANES)), *sum);
                    }
                });
                let mut sums = acc[0];
                for other in &acc[1..] {
                    for (sum, &other) in sums.iter_mut().zip(other) {
                        *sum = s.add(*sum, other);
                    }
                }
                let scale = s.splat(w.scale(block, tile, slot));
                for (v, &sum) in sums.iter().enumerate() {
                    let at = to.add(v * S::LANES);
                    s.store(at, s.fma(scale, sum, s.load(at)));
                }
            }
        }
    }
}
