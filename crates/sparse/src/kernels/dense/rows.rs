//! `y = x · Wᵀ` of a dense weight and any number of tokens.
//!
//! Up to [`FEW`] tokens go to `gemv`. More are turned into strips, as in `strip`, a block of tokens at a time; of each the part that meets a
//! tile of columns stays in the second cache. Rows of W are read where they lie, a few side by side, and keep their sums of one strip in
//! registers while they walk a tile; so W comes from memory once for each block of tokens.
//!
//! ```text
//! for each block of tokens, for each run of rows:            (in parallel)
//!     for each tile of columns, for a few rows at a time, for each strip of the block:
//!         sums[rows, strip] += W[rows, tile] · strip[tile]
//!     y[block, rows] = turned back
//! ```
//!
//! Each sum of a strip adds its products in the order of the columns, tile by tile. So the bits do not depend on the number of threads, and
//! those of a token that stands in a strip not on the tokens beside it. What is left of the tokens, up to six, or twelve where there are 32
//! registers and the weight lies in a cache, are dot products of rows and tokens, sums of lanes.
//!
//! Tried, and no faster on a core with AVX2: copying the rows of a tile side by side first; twelve rows and eight tokens (eight streams
//! are what the caches take of rows that lie a power of two apart); three vectors of tokens, for which registers do not suffice.

use super::gemm::Threads;
use super::gemv::{FEW, dense_few, dots};
use super::numbers::Numbers;
use crate::kernels::frame::{Epilogue, Out, Scratch, Strip, Use, large_tasks, turn_in, turn_out};
use crate::kernels::simd::{Isa, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Ymm, Zmm};
use ndarray::ArrayRef2;
use rayon::prelude::*;
use std::ops::Range;

/// Columns of a tile, in whole groups of numbers.
const TILE: usize = 512;
/// Tokens of a block.
const BLOCK: usize = 96;
/// Numbers of a weight that surely comes from memory: strips then take what it takes to come.
const FROM_MEMORY: usize = 1 << 23;
/// Tokens up to which dot products of rows and tokens take less time than a strip of sixteen, where there are 32 registers and the weight
/// lies in a cache.
const MOST: usize = 12;
/// Rows that are walked a tile at a time: their part of it stays in the second cache, and what walks side by side divides them.
const GROUP: usize = 24;
/// Rows of a task, at most.
const RUN: usize = 4 * GROUP;
/// Multiplications from which on the pool is worth waking.
pub const PARALLEL: usize = 1 << 19;

/// `y (tokens, out) = x · Wᵀ` with the epilogue, for a row-major `W (out, in)` and x and y of any strides. The bits do not depend on the number
/// of threads.
///
/// # Panics
/// If the lengths do not fit.
pub(crate) fn dense_product<N: Numbers>(
    w: N,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
    threads: Threads,
) {
    let ((tokens, cols), rows) = (x.dim(), y.ncols());
    assert!(y.nrows() == tokens && w.len() == rows * cols, "{} weights, x {:?}, y {:?}", w.len(), x.dim(), y.dim());
    if tokens == 0 || rows == 0 {
        return;
    }
    if tokens <= FEW {
        let x = x.as_standard_layout();
        let x = x.as_slice().expect("an array in standard layout is a slice");
        return dense_few(w, x, y, epilogue, threads);
    }
    let threads = threads.count();
    let parallel = threads > 1 && tokens.saturating_mul(w.len()) >= PARALLEL;
    let height = if parallel { rows.div_ceil(4 * threads).next_multiple_of(GROUP).min(RUN) } else { RUN };
    let runs: Vec<Range<usize>> = (0..rows).step_by(height).map(|r| r..(r + height).min(rows)).collect();
    let blocks = blocks(tokens, w.len() < FROM_MEMORY);
    let out = Out::new(y);
    // Blocks are turned and used a few at a time, so that their memory does not grow with the number of tokens.
    for blocks in blocks.chunks(if parallel { threads } else { 1 }) {
        let starts: Vec<usize> = std::iter::once(0)
            .chain(blocks.iter().scan(0, |at, block| {
                *at += cols * block.width();
                Some(*at)
            }))
            .collect();
        let mut turned = Scratch::take(starts[blocks.len()], Use::Strips);
        let pieces = pieces(blocks, cols, &mut turned);
        fill(pieces, x, parallel);
        let turned = &turned[..];
        let task = |i: usize, rows: &Range<usize>| {
            let block = &blocks[i];
            let mut sums = Scratch::take(rows.len() * block.width(), Use::Sums);
            let w = w.part(rows.start * cols..rows.end * cols);
            let widen = |at: usize, to: &mut [f32]| widen(w, at, to);
            let w = w.plain().map_or(Weights::Wider(&widen), Weights::Plain);
            let part = Part { w, rows: rows.len(), cols, block };
            part.add_here(&turned[starts[i]..starts[i + 1]], &mut sums);
            let mut rest = &sums[..];
            for strip in &block.strips {
                let (sums, after) = rest.split_at(rows.len() * strip.width);
                rest = after;
                // SAFETY: each task has its own tokens and rows, so no two write the same entries of y, and these lie within it.
                unsafe { turn_out(sums, strip, rows.clone(), out, epilogue) };
            }
            for (t, sums) in block.few.clone().zip(rest.chunks_exact(rows.len())) {
                // SAFETY: as above.
                unsafe { epilogue.put(out, t, rows.start, sums) };
            }
        };
        large_tasks(blocks.len() * runs.len(), parallel, &|i| task(i / runs.len(), &runs[i % runs.len()]));
    }
}

/// Widths of strips, the widest first.
fn widths() -> &'static [usize] {
    match Isa::current() {
        Isa::Avx512 => &[32, 16, 8],
        Isa::Avx2 | Isa::Neon => &[16, 8],
        Isa::Portable => &[8],
    }
}

/// Tokens that share what is read of W.
struct Block {
    /// The first of them, turned.
    strips: Vec<Strip>,
    /// The last of them, whose padded strip would take longer than dot products of rows and tokens.
    few: Range<usize>,
}

impl Block {
    /// Numbers of a column of all.
    fn width(&self) -> usize {
        self.strips.iter().map(|s| s.width).sum::<usize>() + self.few.len()
    }
}

/// Cuts tokens into blocks, and these into strips of the widest width that they fill; the last strip may be padded.
fn blocks(tokens: usize, in_cache: bool) -> Vec<Block> {
    // A strip of this width takes as long as any narrower one.
    let (widths, (whole, most)) =
        (widths(), if Isa::current() == Isa::Avx512 { (16, if in_cache { MOST } else { FEW }) } else { (8, FEW) });
    let few = if tokens % whole <= most { tokens % whole } else { 0 };
    let strips = |from: usize, end: usize| {
        let (mut strips, mut first) = (Vec::new(), from);
        while first < end {
            let padded = (end - first).next_multiple_of(8);
            let width = widths.iter().copied().find(|w| *w <= padded).unwrap_or(8);
            strips.push(Strip { first, tokens: (end - first).min(width), width });
            first += width;
        }
        strips
    };
    let end = tokens - few;
    let mut blocks: Vec<Block> =
        (0..end).step_by(BLOCK).map(|t| Block { strips: strips(t, (t + BLOCK).min(end)), few: 0..0 }).collect();
    match blocks.last_mut() {
        Some(last) => last.few = end..tokens,
        None => blocks.push(Block { strips: Vec::new(), few: 0..tokens }),
    }
    blocks
}

/// A strip of a tile of columns, or all columns of a token that is in none, and where they go.
enum Piece<'a, 'b> {
    Strip(&'a Strip, Range<usize>, &'b mut [f32]),
    Token(usize, &'b mut [f32]),
}

impl Piece<'_, '_> {
    fn fill(self, x: &ArrayRef2<f32>) {
        match self {
            Piece::Strip(strip, columns, to) => turn_in(x, strip, columns, to),
            Piece::Token(t, to) => to.iter_mut().zip(x.row(t)).for_each(|(to, x)| *to = *x),
        }
    }
}

fn fill(pieces: Vec<Piece<'_, '_>>, x: &ArrayRef2<f32>, parallel: bool) {
    if parallel {
        pieces.into_par_iter().for_each(|piece| piece.fill(x));
    } else {
        pieces.into_iter().for_each(|piece| piece.fill(x));
    }
}

/// All pieces of some blocks: of each block its tiles one after the other, then its tokens that are in no strip.
fn pieces<'a, 'b>(blocks: &'a [Block], cols: usize, turned: &'b mut [f32]) -> Vec<Piece<'a, 'b>> {
    let (mut pieces, mut rest) = (Vec::new(), turned);
    let mut next = |len: usize| {
        let (to, after) = std::mem::take(&mut rest).split_at_mut(len);
        rest = after;
        to
    };
    for block in blocks {
        for first in (0..cols).step_by(TILE) {
            let columns = first..(first + TILE).min(cols);
            pieces.extend(block.strips.iter().map(|s| Piece::Strip(s, columns.clone(), next(columns.len() * s.width))));
        }
        pieces.extend(block.few.clone().map(|t| Piece::Token(t, next(cols))));
    }
    pieces
}

/// Writes the numbers from `at` on, which begins a group where there are groups.
fn widen<N: Numbers>(w: N, at: usize, to: &mut [f32]) {
    #[inline(always)]
    fn by<S: Simd, N: Numbers>(s: S, w: N, at: usize, to: &mut [f32]) {
        let vectors = to.len() / S::LANES * S::LANES;
        assert!(at + vectors <= w.len());
        let (whole, last) = to.split_at_mut(vectors);
        for (i, to) in whole.chunks_exact_mut(S::LANES).enumerate() {
            // SAFETY: this chunk ends within `vectors`, and so many numbers are there: asserted just now.
            s.write(to, unsafe { w.load(s, at + i * S::LANES) });
        }
        last.iter_mut().enumerate().for_each(|(i, to)| *to = w.get(at + vectors + i));
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
    fn avx512<N: Numbers>(w: N, at: usize, to: &mut [f32]) {
        by(Zmm::new(), w, at, to);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2<N: Numbers>(w: N, at: usize, to: &mut [f32]) {
        by(Ymm::new(), w, at, to);
    }
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this set is only ever current on a machine that has it.
        Isa::Avx512 => unsafe { avx512(w, at, to) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2(w, at, to) },
        _ => by(Portable::<8>, w, at, to),
    }
}

/// Numbers of whole rows as they are multiplied, or what writes those from some place on.
#[derive(Clone, Copy)]
enum Weights<'a> {
    Plain(&'a [f32]),
    Wider(&'a dyn Fn(usize, &mut [f32])),
}

/// Some whole rows of a weight, and the tokens that they meet.
struct Part<'a> {
    w: Weights<'a>,
    rows: usize,
    cols: usize,
    block: &'a Block,
}

impl Part<'_> {
    /// Writes sums `(rows, width)` of each strip and then `(rows)` of each other token.
    ///
    /// # Panics
    /// If the lengths do not fit.
    fn add_here(&self, x: &[f32], sums: &mut [f32]) {
        let Part { w, rows, cols, block } = *self;
        let width = block.width();
        let enough = match w {
            Weights::Plain(w) => w.len() == rows * cols,
            Weights::Wider(_) => true,
        };
        assert!(enough && x.len() == cols * width && sums.len() == rows * width, "{rows} x {cols} and {width}");
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is only ever current on a machine that has it.
            Isa::Avx512 => unsafe { self.add_avx512(x, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { self.add_avx2(x, sums) },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => self.add::<Portable<8>, Portable<8>, 2, 6, 8>(Portable, Portable, x, sums),
            _ => self.add::<Portable<8>, Portable<8>, 1, 4, 4>(Portable, Portable, x, sums),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn add_avx512(&self, x: &[f32], sums: &mut [f32]) {
        self.add::<Zmm, Ymm, 2, 8, 8>(Zmm::new(), Ymm::new(), x, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn add_avx2(&self, x: &[f32], sums: &mut [f32]) {
        self.add::<Ymm, Ymm, 2, 6, 8>(Ymm::new(), Ymm::new(), x, sums);
    }

    /// [`GROUP`] rows at a time, `RV` of which meet a strip of `V` vectors side by side, and `R` one of a single vector. Strips are `V` vectors of
    /// `S` wide, or one of `S` or `H`: [`blocks`] makes those of the widths of the current set alone.
    #[inline(always)]
    fn add<S: Simd, H: Simd, const V: usize, const RV: usize, const R: usize>(&self, s: S, h: H, x: &[f32], sums: &mut [f32]) {
        let (cols, rows) = (self.cols, self.rows);
        let wide = self.block.width() - self.block.few.len();
        let (strips, few) = x.split_at(cols * wide);
        let (sums, few_sums) = sums.split_at_mut(rows * wide);
        few_sums.fill(0.0);
        if cols == 0 {
            // No tile writes them.
            sums.fill(0.0);
        }
        // What is not plain numbers is widened, a tile of a group of rows at a time.
        let mut widened = Scratch::take(if matches!(self.w, Weights::Plain(_)) { 0 } else { GROUP * TILE }, Use::Wide);
        for first in (0..cols).step_by(TILE) {
            let n = TILE.min(cols - first);
            let x = &strips[first * wide..][..n * wide];
            for row in (0..rows).step_by(GROUP) {
                let here = GROUP.min(rows - row);
                let (w, at, stride) = match self.w {
                    Weights::Plain(w) => (w, row * cols + first, cols),
                    Weights::Wider(widen) => {
                        for r in 0..here {
                            widen((row + r) * cols + first, &mut widened[r * TILE..][..n]);
                        }
                        (&widened[..], 0, TILE)
                    }
                };
                let (mut x, mut sums) = (x, &mut sums[..]);
                let from = (&w[at..], stride, n);
                for strip in &self.block.strips {
                    let (strip_x, after) = x.split_at(n * strip.width);
                    let (all, others) = sums.split_at_mut(rows * strip.width);
                    let to = &mut all[row * strip.width..][..here * strip.width];
                    match strip.width {
                        width if width == V * S::LANES => rows_of::<S, V, RV>(s, from, strip_x, here, to, first > 0),
                        width if width == S::LANES => rows_of::<S, 1, R>(s, from, strip_x, here, to, first > 0),
                        _ => rows_of::<H, 1, R>(h, from, strip_x, here, to, first > 0),
                    }
                    (x, sums) = (after, others);
                }
                if !self.block.few.is_empty() {
                    let x = &few[first..];
                    self.few(s, (w, at, stride), x, n, here, &mut few_sums[row..]);
                }
            }
        }
    }

    /// Some rows and `n` columns with the tokens that are in no strip.
    #[inline(always)]
    fn few<S: Simd>(&self, s: S, (w, at, stride): (&[f32], usize, usize), x: &[f32], n: usize, rows: usize, sums: &mut [f32]) {
        macro_rules! with {
            ($rows:literal, $tokens:literal) => {
                for r in (0..rows).step_by($rows) {
                    let (w_from, x_from) = ((at + r * stride, stride), (0, self.cols));
                    let sums = &mut sums[r..];
                    if r + $rows <= rows {
                        dots::<S, &[f32], $rows, $tokens>(s, w, w_from, x, x_from, n, (sums, self.rows));
                    } else {
                        for r in 0..rows - r {
                            let w_from = (w_from.0 + r * stride, stride);
                            dots::<S, &[f32], 1, $tokens>(s, w, w_from, x, x_from, n, (&mut sums[r..], self.rows));
                        }
                    }
                }
            };
        }
        // As many sums as there are registers, of which vectors of sixteen have 32.
        match (S::LANES == 16, self.block.few.len()) {
            (_, 1) => with!(8, 1),
            (true, 2) => with!(8, 2),
            (true, 3) => with!(8, 3),
            (true, 4) => with!(6, 4),
            (true, 5) => with!(4, 5),
            (true, 6) => with!(4, 6),
            (true, 7) => with!(3, 7),
            (true, 8) => with!(3, 8),
            (true, 9) => with!(3, 9),
            (true, 10) => with!(2, 10),
            (true, 11) => with!(2, 11),
            (true, _) => with!(2, 12),
            (_, 2) => with!(4, 2),
            (_, 3) => with!(2, 3),
            (_, 4) => with!(2, 4),
            (_, 5) => with!(2, 5),
            (_, _) => with!(2, 6),
        }
    }
}

/// Sums `(rows, V vectors)` of `rows` rows of `n` weights, `stride` apart, times a strip `(n, V vectors)`, `R` rows at a time; if there are `more`
/// there, they are added to those.
///
/// # Panics
/// If there are not so many numbers.
#[inline(always)]
fn rows_of<S: Simd, const V: usize, const R: usize>(
    s: S,
    (w, stride, n): (&[f32], usize, usize),
    x: &[f32],
    rows: usize,
    sums: &mut [f32],
    more: bool,
) {
    let width = V * S::LANES;
    assert!(rows > 0 && w.len() >= (rows - 1) * stride + n && x.len() == n * width && sums.len() == rows * width);
    let (w, x, sums) = (w.as_ptr(), x.as_ptr(), sums.as_mut_ptr());
    let mut r = 0;
    // SAFETY: the rows from `r` on are below `rows`, of which w has `n` numbers each, and sums `width`: asserted just now, as is that x has `width`
    // for each of the `n`.
    unsafe {
        while r + R <= rows {
            sum::<S, V, R>(s, w.add(r * stride), stride, x, n, sums.add(r * width), more);
            r += R;
        }
        while r + 2 <= rows {
            sum::<S, V, 2>(s, w.add(r * stride), stride, x, n, sums.add(r * width), more);
            r += 2;
        }
        if r < rows {
            sum::<S, V, 1>(s, w.add(r * stride), stride, x, n, sums.add(r * width), more);
        }
    }
}

/// The same of `R` rows.
///
/// # Safety
/// `n` numbers can be read of each of `R` rows of w, and `n` times `V` vectors of x; `R` times `V` vectors can be read and written of the sums.
#[inline(always)]
unsafe fn sum<S: Simd, const V: usize, const R: usize>(
    s: S,
    w: *const f32,
    stride: usize,
    x: *const f32,
    n: usize,
    sums: *mut f32,
    more: bool,
) {
    // SAFETY: column `c` is below `n`, row `r` below `R` and vector `v` below `V`, which is what the caller says is there.
    unsafe {
        let mut acc = [[s.splat(0.0); V]; R];
        for c in 0..n {
            let mut xs = [s.splat(0.0); V];
            for v in 0..V {
                xs[v] = s.load(x.add((c * V + v) * S::LANES));
            }
            for r in 0..R {
                let w = s.splat(*w.add(r * stride + c));
                for v in 0..V {
                    acc[r][v] = s.fma(w, xs[v], acc[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                let to = sums.add((r * V + v) * S::LANES);
                s.store(to, if more { s.add(s.load(to), acc[r][v]) } else { acc[r][v] });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_in_one_strip_or_among_the_few() {
        for (tokens, in_cache) in (1..=3 * BLOCK).flat_map(|t| [(t, false), (t, true)]) {
            let most = if in_cache && Isa::current() == Isa::Avx512 { MOST } else { FEW };
            let (mut first, blocks) = (0, blocks(tokens, in_cache));
            for block in &blocks {
                for strip in &block.strips {
                    assert!(
                        strip.first == first && (1..=strip.width).contains(&strip.tokens),
                        "{strip:?} at {first} of {tokens}"
                    );
                    assert!(widths().contains(&strip.width), "{strip:?}");
                    first += strip.tokens;
                }
                assert!(block.strips.is_sorted_by(|a, b| a.width >= b.width), "{:?}", block.strips);
                assert!(
                    block.few.len() <= most && (block.few.is_empty() || block.few.start == first),
                    "{:?} at {first}",
                    block.few
                );
                first += block.few.len();
                assert!(block.width() <= BLOCK + most, "{tokens} tokens in {}", block.width());
            }
            assert_eq!(first, tokens);
            let width: usize = blocks.iter().map(Block::width).sum();
            assert!(width < tokens + 16 - FEW, "{tokens} tokens in {width}");
        }
    }
}
