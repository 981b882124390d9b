//! `y = x · Wᵀ` of a dense weight in panels.
//!
//! A panel is some outputs side by side, column by column: `(in, width)`. Tokens come in tiles of a few, column by column as well: so a tile and a panel
//! walk down the columns together, and each column is an outer product of a few numbers of x, which are broadcast, with a few vectors of
//! weights. All sums of a tile stay in registers.
//!
//! ```text
//! for each block of tokens, for each run of panels:                (in parallel)
//!     for each tile of columns, for each panel, for each tile of tokens:
//!         sums[tokens, panel] += x[tokens, columns] · panel[columns]
//!     y[block, panels] = sums, with the epilogue
//! ```
//!
//! A weight is packed once and multiplied many times. While the tiles of tokens walk a panel's columns, they ask for those that come next, each for its
//! part of them. Up to three tokens walk several panels side by side: with fewer sums, each product would wait for the one before it, and with fewer
//! streams memory for the processor, which looks ahead in each by itself.
//!
//! Each sum adds its products in the order of the columns, tile by tile. So its bits depend neither on the number of threads nor on the tokens that stand
//! beside its own, and they are those of the same weight in strips of [`rows`](super::rows).
//!
//! Tried, and no faster on a core with AVX2: panels of 48 outputs (a tenth less from eight tokens on), tiles of 4 tokens and 24 outputs, 256 columns of a tile,
//! blocks of 192 tokens (an eighth less at 512 tokens), one token with four panels side by side, or asking ahead in six (a tenth to a seventh less from
//! memory), and panels made on the way, for each block of tokens, from a weight as it lies (with 512 tokens a
//! tenth slower than reading rows where they lie, and for `dy · W` and `dyᵀ · x` a tenth to a third slower than the crate `gemm`).

use super::gemm::Threads;
use crate::kernels::frame::{Epilogue, Out, Scratch, Strip, Use, ask, large_tasks, tasks, turn_in};
use crate::kernels::simd::{Isa, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Ymm, Zmm};
use ndarray::ArrayRef2;
use rayon::prelude::*;
use std::ops::Range;

/// Columns of a tile.
pub(crate) const TILE: usize = 512;
/// Tokens of a block: the part of x that meets a tile of columns stays in the second cache, which is the smaller where there is no AVX-512.
fn block() -> usize {
    if Isa::current() == Isa::Avx512 { 192 } else { 96 }
}
/// Multiplications from which on the pool is worth waking.
const PARALLEL: usize = 1 << 19;

/// Outputs of a panel for the current set.
pub(crate) fn width() -> usize {
    match Isa::current() {
        Isa::Avx512 => 48,
        Isa::Avx2 | Isa::Neon => 16,
        Isa::Portable => 8,
    }
}

/// The most tokens of a tile.
fn most() -> usize {
    match Isa::current() {
        Isa::Avx512 => 8,
        Isa::Avx2 | Isa::Neon => 6,
        Isa::Portable => 4,
    }
}

/// Bytes of x that stay in the second cache.
const NEAR: usize = 256 << 10;
/// Outputs of a task, at most.
const RUN: usize = 192;

/// A weight `(out, in)` in panels of [`width`] outputs one behind the other, each `(in, width)`, with zeros for outputs that are none.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) numbers: PanelNumbers<'a>,
}

/// The numbers of panels.
#[derive(Clone, Copy)]
pub(crate) enum PanelNumbers<'a> {
    /// All of them.
    Packed(&'a [f32]),
    /// What writes those of the rows of a panel and some columns, `(columns, width)`; the columns begin with a tile of [`TILE`].
    Made(&'a Make<'a>),
}

/// Writes the numbers of some rows and columns.
pub(crate) type Make<'a> = dyn Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync + 'a;

/// Writes a panel of a weight `(out, in)` of any strides.
///
/// # Panics
/// If there is no such panel, or `to` has not the numbers of one.
pub(crate) fn panel_of(w: &ArrayRef2<f32>, panel: usize, to: &mut [f32]) {
    let (width, first) = (width(), panel * width());
    turn_in(w, &Strip { first, tokens: width.min(w.nrows() - first), width }, 0..w.ncols(), to);
}

/// Tokens that walk together.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tile {
    first: usize,
    tokens: usize,
}

/// Cuts some tokens into as few tiles as can be, as even as can be.
fn tiles(tokens: Range<usize>) -> Vec<Tile> {
    let many = tokens.len().div_ceil(most());
    let (even, wider) = (tokens.len() / many, tokens.len() % many);
    let mut first = tokens.start;
    let mut next = |i: usize| {
        let tile = Tile { first, tokens: even + usize::from(i < wider) };
        first += tile.tokens;
        tile
    };
    (0..many).map(&mut next).collect()
}

/// `y (tokens, out) = x · Wᵀ` with the epilogue, for x and y of any strides. The bits depend neither on the number of threads nor, for each token,
/// on the others.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn panels_product(
    w: Panels<'_>,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
    threads: Threads,
) {
    let (tokens, Panels { rows, cols, .. }) = (x.nrows(), w);
    assert!(x.ncols() == cols && y.dim() == (tokens, rows), "{rows} x {cols}: x {:?}, y {:?}", x.dim(), y.dim());
    if tokens == 0 || rows == 0 {
        return;
    }
    let width = width();
    let panels = rows.div_ceil(width);
    if let PanelNumbers::Packed(numbers) = w.numbers {
        assert_eq!(numbers.len(), panels * cols * width, "{rows} x {cols} in panels of {width}");
    }
    let threads = threads.count();
    let parallel = threads > 1 && tokens.saturating_mul(rows * cols) >= PARALLEL;
    let longest = (RUN / width).max(1);
    // Whole groups of panels that walk side by side.
    let run = if parallel { panels.div_ceil(4 * threads).next_multiple_of(6).min(longest) } else { longest };
    let runs: Vec<Range<usize>> = (0..panels).step_by(run).map(|p| p..(p + run).min(panels)).collect();
    let blocks: Vec<Range<usize>> = (0..tokens).step_by(block()).map(|t| t..(t + block()).min(tokens)).collect();
    let out = Out::new(y);
    // Blocks are turned and used a few at a time, so that their memory does not grow with the number of tokens.
    for blocks in blocks.chunks(if parallel { threads } else { 1 }) {
        let begin = blocks[0].start;
        let mut turned = Scratch::take((blocks[blocks.len() - 1].end - begin) * cols, Use::Strips);
        let tiles: Vec<Vec<Tile>> = blocks.iter().cloned().map(tiles).collect();
        turn_tiles(x, &tiles, &mut turned, parallel);
        let turned = &turned[..];
        let task = |i: usize, panels: &Range<usize>| {
            let block = &blocks[i];
            let x = &turned[(block.start - begin) * cols..(block.end - begin) * cols];
            let mut sums = Scratch::take(panels.len() * block.len() * width, Use::Sums);
            Part { w, tiles: &tiles[i], x, tokens: block.len() }.add(panels.clone(), &mut sums);
            for (panel, sums) in panels.clone().zip(sums.chunks_exact(block.len() * width)) {
                let row = panel * width;
                for (token, sums) in block.clone().zip(sums.chunks_exact(width)) {
                    // SAFETY: each task has its own tokens and outputs, so no two write the same entries of y, and these lie within it.
                    unsafe { epilogue.put(out, token, row, &sums[..width.min(rows - row)]) };
                }
            }
        };
        let share = if tokens > 1 { large_tasks } else { tasks };
        share(blocks.len() * runs.len(), parallel, &|i| task(i / runs.len(), &runs[i % runs.len()]));
    }
}

/// Writes tiles of x one behind the other, each `(in, tokens)`.
fn turn_tiles(x: &ArrayRef2<f32>, tiles: &[Vec<Tile>], to: &mut [f32], parallel: bool) {
    let (cols, mut pieces, mut rest) = (x.ncols(), Vec::new(), to);
    for &Tile { first, tokens } in tiles.iter().flatten() {
        let (to, after) = std::mem::take(&mut rest).split_at_mut(tokens * cols);
        rest = after;
        pieces.push((Strip { first, tokens, width: tokens }, to));
    }
    // A single token is copied sooner than the pool is awake.
    if parallel && x.nrows() > 1 {
        pieces.into_par_iter().for_each(|(strip, to)| turn_in(x, &strip, 0..cols, to));
    } else {
        pieces.into_iter().for_each(|(strip, to)| turn_in(x, &strip, 0..cols, to));
    }
}

/// A block of tokens that meets panels.
struct Part<'a> {
    w: Panels<'a>,
    tiles: &'a [Tile],
    /// Tile by tile, `(in, tokens of the tile)`.
    x: &'a [f32],
    tokens: usize,
}

impl Part<'_> {
    /// Writes sums, `(tokens, width)` of each panel.
    fn add(&self, panels: Range<usize>, sums: &mut [f32]) {
        let (width, cols) = (width(), self.w.cols);
        if cols == 0 {
            return sums.fill(0.0);
        }
        let (all, mut made) = match self.w.numbers {
            PanelNumbers::Packed(numbers) => (numbers, None),
            PanelNumbers::Made(make) => (&[][..], Some((make, Scratch::take(TILE.min(cols) * width, Use::Wide)))),
        };
        // Panels that walk side by side, so that few tokens have enough sums that need not wait for one another, and memory enough streams.
        let together: &[usize] = match self.tokens {
            _ if made.is_some() => &[],
            1 => &[6, 2],
            2 => &[3],
            3 => &[2],
            _ => &[],
        };
        let size = self.tokens * width;
        // As many columns as the second cache has room for, of all tokens.
        let near = (NEAR / (4 * self.tokens * TILE)).max(1) * TILE;
        for start in (0..cols).step_by(near) {
            let end = (start + near).min(cols);
            let mut panel = panels.start;
            while panel < panels.end {
                let side = together.iter().copied().find(|side| panel + side <= panels.end).unwrap_or(1);
                let sums = &mut sums[(panel - panels.start) * size..][..side * size];
                let place = |panel: usize, column: usize| all.get((panel * cols + column) * width..).unwrap_or(&[]);
                for first in (start..end).step_by(TILE) {
                    let columns = first..(first + TILE).min(end);
                    if let Some((make, numbers)) = &mut made {
                        let numbers = &mut numbers[..columns.len() * width];
                        make(panel * width..(panel + 1) * width, columns.clone(), numbers);
                        self.walk(Walk { w: numbers, side, columns, ahead: numbers }, sums);
                        continue;
                    }
                    let ahead = if columns.end == end { place(panel + side, start) } else { place(panel, columns.end) };
                    self.walk(Walk { w: place(panel, first), side, columns, ahead }, sums);
                }
                panel += side;
            }
        }
    }

    /// All tiles of tokens meet some columns of a panel, or of a few.
    ///
    /// # Panics
    /// If the lengths do not fit.
    fn walk(&self, walk: Walk<'_>, sums: &mut [f32]) {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is only ever current on a machine that has it.
            Isa::Avx512 => unsafe { self.walk_avx512(walk, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { self.walk_avx2(walk, sums) },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => self.walk_by::<Portable<8>, 2, 6>(Portable, walk, sums),
            _ => self.walk_by::<Portable<8>, 1, 4>(Portable, walk, sums),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn walk_avx512(&self, walk: Walk<'_>, sums: &mut [f32]) {
        self.walk_by::<Zmm, 3, 8>(Zmm::new(), walk, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn walk_avx2(&self, walk: Walk<'_>, sums: &mut [f32]) {
        self.walk_by::<Ymm, 2, 6>(Ymm::new(), walk, sums);
    }

    /// Panels of `V` vectors, tiles of up to `MOST` tokens.
    #[inline(always)]
    fn walk_by<S: Simd, const V: usize, const MOST: usize>(&self, s: S, walk: Walk<'_>, sums: &mut [f32]) {
        let (width, cols, Walk { w, side, columns, ahead }) = (V * S::LANES, self.w.cols, walk);
        let (n, stride) = (columns.len(), cols * width);
        assert!(w.len() >= (side - 1) * stride + n * width && columns.end <= cols, "{} weights for {columns:?}", w.len());
        assert!(self.x.len() == self.tokens * cols && sums.len() == side * self.tokens * width, "{} tokens", self.tokens);
        let count = self.tiles.len();
        let begin = self.tiles[0].first;
        for (i, tile) in self.tiles.iter().enumerate() {
            let at = tile.first - begin;
            assert!(at + tile.tokens <= self.tokens);
            // SAFETY: w has `n` columns of each of the panels, x all columns of each tile, and the sums as many numbers for each token and panel:
            // asserted above and just now. What is asked for need not be there.
            unsafe {
                let task = Meeting {
                    w: w.as_ptr(),
                    panel: stride,
                    x: self.x.as_ptr().add(at * cols + columns.start * tile.tokens),
                    n,
                    sums: sums.as_mut_ptr().add(at * width),
                    block: self.tokens * width,
                    more: columns.start > 0,
                    ahead: ahead.as_ptr().cast::<u8>().wrapping_add(i * (4 * width * n / count)),
                    step: 4 * width / count,
                };
                match (tile.tokens, side) {
                    (1, 6) => meet::<S, 1, V, 6>(s, &task),
                    (1, 2) => meet::<S, 1, V, 2>(s, &task),
                    (2, 3) => meet::<S, 2, V, 3>(s, &task),
                    (3, 2) => meet::<S, 3, V, 2>(s, &task),
                    (1, _) => meet::<S, 1, V, 1>(s, &task),
                    (2, _) => meet::<S, 2, V, 1>(s, &task),
                    (3, _) => meet::<S, 3, V, 1>(s, &task),
                    (4, _) => meet::<S, 4, V, 1>(s, &task),
                    (5, _) if MOST > 4 => meet::<S, 5, V, 1>(s, &task),
                    (6, _) if MOST > 4 => meet::<S, 6, V, 1>(s, &task),
                    (7, _) if MOST > 6 => meet::<S, 7, V, 1>(s, &task),
                    (8, _) if MOST > 6 => meet::<S, 8, V, 1>(s, &task),
                    (tokens, _) => unreachable!("no tile has {tokens} tokens"),
                }
            }
        }
    }
}

/// Some columns of a panel, or of `side` of them, and what comes after them.
struct Walk<'a> {
    w: &'a [f32],
    side: usize,
    columns: Range<usize>,
    ahead: &'a [f32],
}

/// A tile of tokens that meets some columns of panels.
struct Meeting {
    w: *const f32,
    /// From panel to panel.
    panel: usize,
    x: *const f32,
    n: usize,
    sums: *mut f32,
    /// From the sums of a panel to those of the next.
    block: usize,
    /// Whether sums are there to be added to.
    more: bool,
    /// What is asked for: so many bytes a column from here on.
    ahead: *const u8,
    step: usize,
}

/// `T` tokens meet `P` panels of `V` vectors.
///
/// # Safety
/// There are `n` columns of each panel and of x, and sums for as many tokens and panels.
#[inline(always)]
unsafe fn meet<S: Simd, const T: usize, const V: usize, const P: usize>(s: S, m: &Meeting) {
    let width = V * S::LANES;
    // SAFETY: column `k` is below `n`, token `t` below `T`, panel `p` below `P`, vector `v` below `V`: the caller says that they are there.
    unsafe {
        let mut acc = [[[s.splat(0.0); V]; T]; P];
        let (mut w, mut x, mut ahead) = (m.w, m.x, m.ahead);
        for _ in 0..m.n {
            let mut xs = [s.splat(0.0); T];
            if P > 1 {
                for t in 0..T {
                    xs[t] = s.splat(*x.add(t));
                }
                for p in 0..P {
                    for v in 0..V {
                        let w = s.load(w.add(p * m.panel + v * S::LANES));
                        for t in 0..T {
                            acc[p][t][v] = s.fma(xs[t], w, acc[p][t][v]);
                        }
                    }
                }
            } else {
                let mut ws = [s.splat(0.0); V];
                for v in 0..V {
                    ws[v] = s.load(w.add(v * S::LANES));
                }
                ask(ahead);
                // Where few tiles ask, each has more lines than one a column.
                let mut line = 64;
                while V * S::LANES > 16 && line < m.step {
                    ask(ahead.wrapping_add(line));
                    line += 64;
                }
                ahead = ahead.wrapping_add(m.step);
                for t in 0..T {
                    let x = s.splat(*x.add(t));
                    for v in 0..V {
                        acc[0][t][v] = s.fma(x, ws[v], acc[0][t][v]);
                    }
                }
            }
            (w, x) = (w.add(width), x.add(T));
        }
        for p in 0..P {
            for t in 0..T {
                for v in 0..V {
                    let to = m.sums.add(p * m.block + t * width + v * S::LANES);
                    s.store(to, if m.more { s.add(s.load(to), acc[p][t][v]) } else { acc[p][t][v] });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    /// A weight, packed.
    fn packed(w: &Array2<f32>) -> Vec<f32> {
        let (rows, cols) = w.dim();
        let size = cols * width();
        let mut all = vec![0.0; rows.div_ceil(width()) * size];
        all.chunks_exact_mut(size.max(1)).enumerate().for_each(|(p, to)| panel_of(w, p, to));
        all
    }

    #[test]
    fn whole_numbers_are_multiplied_exactly_whatever_the_shape() {
        for (rows, cols) in [(1, 1), (3, 0), (7, 5), (16, 512), (49, 513), (131, 1100), (200, 64)] {
            let w = Array2::from_shape_fn((rows, cols), |(r, c)| ((r * 7 + c * 3) % 11) as f32 - 5.0);
            let all = packed(&w);
            for tokens in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 31, 190, 200] {
                let x = Array2::from_shape_fn((tokens, cols), |(t, c)| ((t * 5 + c) % 7) as f32 - 3.0);
                let mut y = Array2::from_elem((tokens, rows), f32::NAN);
                panels_product(
                    Panels { rows, cols, numbers: PanelNumbers::Packed(&all) },
                    &x,
                    &mut y,
                    &Epilogue::default(),
                    Threads::Pool,
                );
                for ((t, r), y) in y.indexed_iter() {
                    let right: f32 = (0..cols).map(|c| w[[r, c]] * x[[t, c]]).sum();
                    assert_eq!(*y, right, "token {t} of {tokens}, output {r} of {rows} x {cols}");
                }
            }
        }
    }

    #[test]
    fn the_bits_of_a_token_do_not_depend_on_others_or_on_threads() {
        let (rows, cols) = (100, 1300);
        let number = |i: usize| (i.wrapping_mul(2_654_435_761) % 1009) as f32 / 1009.0 - 0.5;
        let w = Array2::from_shape_fn((rows, cols), |(r, c)| number(r * cols + c));
        let x = Array2::from_shape_fn((203, cols), |(t, c)| number(7 * t * cols + c));
        let all = packed(&w);
        let product = |tokens: usize, threads: Threads| {
            let mut y = Array2::zeros((tokens, rows));
            let x = x.slice(ndarray::s![..tokens, ..]);
            panels_product(Panels { rows, cols, numbers: PanelNumbers::Packed(&all) }, &x, &mut y, &Epilogue::default(), threads);
            y
        };
        let right = product(203, Threads::Pool);
        for tokens in [1, 2, 3, 5, 8, 11, 64, 193, 203] {
            for threads in [Threads::One, Threads::Pool] {
                assert_eq!(product(tokens, threads), right.slice(ndarray::s![..tokens, ..]), "{tokens} tokens");
            }
        }
    }
}
