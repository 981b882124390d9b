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

use super::isa::Isa;
use super::simd::{Portable, Simd};
#[cfg(target_arch = "x86_64")]
use super::simd::{Xmm, Ymm, Zmm};
use super::turn::{turn_in, turn_out};
use ndarray::ArrayRef2;
use rayon::prelude::*;

/// What is done to a product on its way into y.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to each token, one number an output.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Option<fn(f32) -> f32>,
    /// Whether the result is added to what y holds, after the activation.
    pub accumulate: bool,
}

impl Epilogue<'_> {
    /// Writes neighbouring outputs of one token, the first of which is `row`.
    ///
    /// # Safety
    /// The entries lie within y, and nobody else uses them now.
    #[inline(always)]
    pub(super) unsafe fn put(&self, y: Out, token: usize, row: usize, products: &[f32]) {
        for (i, &product) in products.iter().enumerate() {
            // SAFETY: the caller vouches for these entries.
            let y = unsafe { y.at(token, row + i) };
            *y = if self.is_plain() { product } else { self.apply(*y, row + i, product) };
        }
    }

    /// Lets `product` write a plain product, then does the rest: for storages whose kernel has no epilogue of its own.
    pub(crate) fn after(&self, y: &mut ArrayRef2<f32>, product: impl FnOnce(&mut ArrayRef2<f32>)) {
        if self.is_plain() {
            return product(y);
        }
        let before = self.accumulate.then(|| y.to_owned());
        product(y);
        for ((t, r), y) in y.indexed_iter_mut() {
            *y = self.apply(before.as_ref().map_or(0.0, |b| b[[t, r]]), r, *y);
        }
    }

    fn apply(&self, y: f32, row: usize, product: f32) -> f32 {
        let biased = self.bias.map_or(product, |bias| product + bias[row]);
        let value = self.activation.map_or(biased, |activation| activation(biased));
        if self.accumulate { y + value } else { value }
    }

    /// Whether anything but a plain store is asked for.
    fn is_plain(&self) -> bool {
        self.bias.is_none() && self.activation.is_none() && !self.accumulate
    }
}

/// A weight in blocks of rows, each of which walks its tiles of columns.
///
/// # Safety
/// Implementations promise that the columns they give out are below `cols`, and the rows below the number of rows of the block.
pub(super) unsafe trait Rows: Sync {
    /// `(out, in)`.
    fn dim(&self) -> (usize, usize);
    /// First row of each block, and one past the last row.
    fn blocks(&self) -> &[u32];
    /// Number of weights.
    fn len(&self) -> usize;
    /// Number of tiles of columns.
    fn tiles(&self) -> usize;
    /// First column of a tile.
    fn tile_start(&self, tile: usize) -> usize;
    /// Row within the block that the `slot`-th list of a tile belongs to.
    fn row(&self, block: usize, tile: usize, slot: usize) -> usize;
    /// Factor of all values of one list, 1 where values are floats.
    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32;
    /// Calls `f(u, column within the tile, value)` for each weight of a list, where `u` runs through `0..U` in turn.
    fn each<const U: usize>(&self, block: usize, tile: usize, slot: usize, f: impl FnMut(usize, usize, f32));
}

/// Floats that a product of one block makes before the pool is worth waking.
const PARALLEL: usize = 1 << 17;
/// The widest strip.
const WIDEST: usize = 64;

/// `y = x · Wᵀ` with the epilogue, for any number of tokens from 2 on (1 works, slowly).
///
/// The result does not depend on the number of threads.
pub(super) fn product<R: Rows>(w: &R, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
    let (tokens, (rows, cols)) = (x.nrows(), w.dim());
    if tokens == 0 || rows == 0 {
        return;
    }
    let strips = strips(tokens);
    let threads = rayon::current_num_threads();
    let parallel = threads > 1 && tokens * w.len() >= PARALLEL;
    let out = Out::new(y);
    // Strips are made and used a few at a time, so that their memory does not grow with the number of tokens.
    let at_once = (2 * threads).max(1);
    for group in strips.chunks(at_once) {
        let place: Vec<usize> = group.iter().scan(0, |at, s| Some(std::mem::replace(at, *at + s.width * cols))).collect();
        let total: usize = group.iter().map(|s| s.width * cols).sum();
        let mut packed = Aligned::zeros(total);
        let mut parts: Vec<(&Strip, &mut [f32])> = Vec::with_capacity(group.len());
        let mut rest = packed.as_mut();
        for strip in group {
            let (part, tail) = rest.split_at_mut(strip.width * cols);
            parts.push((strip, part));
            rest = tail;
        }
        let turn = |(strip, part): (&Strip, &mut [f32])| turn_in(x, strip, part);
        if parallel {
            parts.into_par_iter().for_each(turn);
        } else {
            parts.into_iter().for_each(turn);
        }
        let packed = packed.as_ref();
        let blocks = w.blocks().len() - 1;
        let task = |i: usize| {
            let (s, block) = (i / blocks, i % blocks);
            let strip = &group[s];
            let x = &packed[place[s]..place[s] + strip.width * cols];
            let mut sums = Aligned::zeros(0);
            run_block(w, block, x, strip.width, &mut sums);
            let first = w.blocks()[block] as usize;
            // SAFETY: each task has its own strip and block, so no two write the same entries of y.
            unsafe { turn_out(sums.as_ref(), strip, first..w.blocks()[block + 1] as usize, out, epilogue) };
        };
        if parallel {
            (0..group.len() * blocks).into_par_iter().with_max_len(1).for_each(task);
        } else {
            (0..group.len() * blocks).for_each(task);
        }
    }
}

/// Some tokens that share a strip.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Strip {
    pub(super) first: usize,
    pub(super) tokens: usize,
    pub(super) width: usize,
}

/// Cuts tokens into strips of 64, 32, 16, 8 or 4; the last may be padded, where that is cheaper than another strip.
fn strips(tokens: usize) -> Vec<Strip> {
    let (mut strips, mut first) = (Vec::new(), 0);
    while first < tokens {
        let rest = tokens - first;
        let above = [4, 8, 16, 32].into_iter().find(|&w| w >= rest).unwrap_or(WIDEST);
        let width = if rest >= above || 4 * rest > 3 * above || above == 4 { above } else { above / 2 };
        strips.push(Strip { first, tokens: rest.min(width), width });
        first += width;
    }
    strips
}

/// Memory whose first number starts a cache line.
pub(super) struct Aligned {
    memory: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(super) fn zeros(len: usize) -> Self {
        let memory = vec![0.0f32; len + 16];
        let start = memory.as_ptr().align_offset(64).min(16);
        Aligned { memory, start, len }
    }

    pub(super) fn as_ref(&self) -> &[f32] {
        &self.memory[self.start..self.start + self.len]
    }

    pub(super) fn as_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// The entries of y, which tasks write apart from one another.
#[derive(Clone, Copy)]
pub(super) struct Out {
    y: *mut f32,
    strides: (isize, isize),
}

// SAFETY: a pointer with strides; whoever writes through it promises to keep apart.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    pub(super) fn new(y: &mut ArrayRef2<f32>) -> Self {
        let strides = (y.strides()[0], y.strides()[1]);
        Out { y: y.as_mut_ptr(), strides }
    }

    /// The entry of a token and an output.
    ///
    /// # Safety
    /// Both lie within y, and nobody else uses this entry now.
    #[inline(always)]
    pub(super) unsafe fn at<'a>(self, token: usize, row: usize) -> &'a mut f32 {
        // SAFETY: the strides are those of y, and the caller keeps within it.
        unsafe { &mut *self.y.offset(token as isize * self.strides.0 + row as isize * self.strides.1) }
    }
}

/// Sums of one block over one strip, with the instructions of this machine.
fn run_block<R: Rows>(w: &R, block: usize, x: &[f32], width: usize, sums: &mut Aligned) {
    let rows = (w.blocks()[block + 1] - w.blocks()[block]) as usize;
    assert!(x.len() == w.dim().1 * width, "a strip of {} numbers for {} columns of {width}", x.len(), w.dim().1);
    *sums = Aligned::zeros(rows * width);
    let sums = sums.as_mut();
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this set is only ever current on a machine that has it; lengths were checked above.
        Isa::Avx512 => unsafe { block_avx512(w, block, x, width, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { block_avx2(w, block, x, width, sums) },
        // SAFETY: every machine runs these.
        _ => unsafe {
            match width {
                64 => tiles::<Portable<8>, R, 8, 1>(w, block, x, sums),
                32 => tiles::<Portable<8>, R, 4, 2>(w, block, x, sums),
                16 => tiles::<Portable<8>, R, 2, 4>(w, block, x, sums),
                8 => tiles::<Portable<8>, R, 1, 4>(w, block, x, sums),
                _ => tiles::<Portable<4>, R, 1, 4>(w, block, x, sums),
            }
        },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
unsafe fn block_avx2<R: Rows>(w: &R, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    // SAFETY: the caller vouches for the instructions and the lengths.
    unsafe {
        match width {
            64 => tiles::<Ymm, R, 8, 1>(w, block, x, sums),
            32 => tiles::<Ymm, R, 4, 2>(w, block, x, sums),
            16 => tiles::<Ymm, R, 2, 4>(w, block, x, sums),
            8 => tiles::<Ymm, R, 1, 4>(w, block, x, sums),
            _ => tiles::<Xmm, R, 1, 4>(w, block, x, sums),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
unsafe fn block_avx512<R: Rows>(w: &R, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    // SAFETY: the caller vouches for the instructions and the lengths.
    unsafe {
        match width {
            64 => tiles::<Zmm, R, 4, 2>(w, block, x, sums),
            32 => tiles::<Zmm, R, 2, 4>(w, block, x, sums),
            16 => tiles::<Zmm, R, 1, 4>(w, block, x, sums),
            8 => tiles::<Ymm, R, 1, 4>(w, block, x, sums),
            _ => tiles::<Xmm, R, 1, 4>(w, block, x, sums),
        }
    }
}

/// The heart: `V` vectors of sums for each of `U` interleaved runs of a row's weights.
///
/// # Safety
/// The machine has the instructions of `S`; `x` is `(in, V * LANES)`, `sums` is `(rows of the block, V * LANES)`.
#[inline(always)]
unsafe fn tiles<S: Simd, R: Rows, const V: usize, const U: usize>(w: &R, block: usize, x: &[f32], sums: &mut [f32]) {
    let width = V * S::LANES;
    let rows = (w.blocks()[block + 1] - w.blocks()[block]) as usize;
    for tile in 0..w.tiles() {
        let x = x[w.tile_start(tile) * width..].as_ptr();
        for slot in 0..rows {
            let row = w.row(block, tile, slot);
            // SAFETY: `Rows` promises columns of x and rows of the block, and the caller vouches for the rest.
            unsafe {
                let to = sums.as_mut_ptr().add(row * width);
                let mut acc = [[S::splat(0.0); V]; U];
                w.each::<U>(block, tile, slot, |u, column, value| {
                    let x = x.add(column * width);
                    let value = S::splat(value);
                    for (v, sum) in acc[u].iter_mut().enumerate() {
                        *sum = S::fma(value, S::load(x.add(v * S::LANES)), *sum);
                    }
                });
                let mut sums = acc[0];
                for other in &acc[1..] {
                    for (sum, &other) in sums.iter_mut().zip(other) {
                        *sum = S::add(*sum, other);
                    }
                }
                let scale = S::splat(w.scale(block, tile, slot));
                for (v, &sum) in sums.iter().enumerate() {
                    let at = to.add(v * S::LANES);
                    S::store(at, S::fma(scale, sum, S::load(at)));
                }
            }
        }
    }
}
