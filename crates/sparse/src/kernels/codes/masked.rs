//! Codes at a mask of no pattern, where many are kept: row by row, a bit for each column and the codes of those that have one.
//!
//! A vector holds the columns of a part of a mask: codes are spread over it, four a lane, and meet the numbers of x as they lie. Nothing is added across
//! lanes before the end of a row.

use super::input::{Rounding, Tile};
use super::slices::{Factors, Offsets, Width, side_by_side};
use super::windows::CodeAt;
use crate::kernels::frame::ask_codes;
use crate::kernels::simd::SparseCodes;
use std::ops::Range;

/// A weight in masks and codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskedSlices<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) width: Width,
    /// Columns of a group: a multiple of 32, or all.
    pub(crate) group: usize,
    /// Columns of which x has a step in common: 32 or 64.
    pub(crate) block: usize,
    /// `(out, parts)`: a bit a column, those of a part in so many bytes as lanes have half of.
    pub(crate) masks: &'a [u8],
    /// The first byte of the codes of each row, and the end of the last.
    pub(crate) begins: &'a [u32],
    /// Of each row part by part, in whole bytes each; [`CODE_SLACK`] bytes more.
    pub(crate) codes: &'a [u8],
    /// `(out, groups)`, and as many more as a vector has lanes.
    pub(crate) scales: Factors<'a>,
    /// As scales.
    pub(crate) offsets: Offsets<'a>,
}

/// Bytes that may be read behind the last code.
pub(crate) const CODE_SLACK: usize = 80;

/// Columns of a part of a mask.
pub(crate) fn part_of_mask() -> usize {
    4 * side_by_side()
}

/// The bits of a part.
fn bits(masks: &[u8], at: usize, side: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..side / 2].copy_from_slice(&masks[at * (side / 2)..(at + 1) * (side / 2)]);
    u64::from_le_bytes(bytes)
}

/// Bytes of so many codes.
pub(crate) fn bytes_of(width: Width, codes: usize) -> usize {
    if width == Width::Four { codes.div_ceil(2) } else { codes }
}

impl MaskedSlices<'_> {
    /// Parts of a row.
    pub(crate) fn parts(&self) -> usize {
        self.cols.div_ceil(part_of_mask())
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.cols / self.group.max(1)
    }

    /// Blocks of rows.
    pub(crate) fn runs(&self) -> usize {
        self.rows.div_ceil(side_by_side())
    }

    /// # Panics
    /// If a list has not the length that the others need.
    pub(crate) fn check(&self) {
        let side = side_by_side();
        let (factors, codes) = (self.rows * self.groups() + side, self.begins.last().map_or(0, |end| *end as usize));
        assert_eq!((self.begins.len(), self.masks.len()), (self.rows + 1, self.rows * self.parts() * side / 2));
        assert_eq!(self.codes.len(), codes + CODE_SLACK, "codes of {} x {}", self.rows, self.cols);
        assert_eq!(self.scales.len(), factors, "scales of {} x {}", self.rows, self.cols);
        assert!(self.offsets.len().is_none_or(|len| len == factors), "offsets of {} x {}", self.rows, self.cols);
    }

    /// Calls `f` with each code of a row, in some parts of the mask.
    pub(crate) fn each_code(&self, row: usize, parts: Range<usize>, mut f: impl FnMut(CodeAt)) {
        let (side, all) = (side_by_side(), self.parts());
        let mut next = self.begins[row] as usize;
        for part in 0..parts.end {
            let mut mask = bits(self.masks, row * all + part, side);
            let bytes = bytes_of(self.width, mask.count_ones() as usize);
            if parts.contains(&part) {
                let codes = &self.codes[next..next + bytes];
                for at in 0..mask.count_ones() as usize {
                    let code = if self.width == Width::Four { codes[at / 2] >> (4 * (at % 2)) & 15 } else { codes[at] };
                    f(CodeAt { column: part * 4 * side + mask.trailing_zeros() as usize, code });
                    mask &= mask - 1;
                }
            }
            next += bytes;
        }
    }
}

/// A tile of tokens and a weight.
pub(super) struct MaskedPart<'a> {
    pub w: &'a MaskedSlices<'a>,
    pub rounding: Rounding,
    pub tile: &'a Tile,
}

impl MaskedPart<'_> {
    /// Writes the sums of some blocks of rows, `(blocks of rows, tokens, rows side by side)`.
    #[inline(always)]
    pub fn meet<S: SparseCodes>(&self, s: S, runs: Range<usize>, sums: &mut [f32]) {
        let MaskedPart { w, rounding, tile } = self;
        let (tokens, planes, bytes) = (tile.tokens, rounding.planes, rounding.stride(w.cols));
        assert!(S::LANES == side_by_side() && runs.end <= w.runs() && sums.len() == runs.len() * tokens * S::LANES);
        assert!(tile.codes.len() == tokens * planes * bytes && tile.starts.len() * 4 == tile.codes.len());
        assert!(bytes >= w.parts() * 4 * S::LANES && tile.steps.len() == w.cols.div_ceil(w.block) * tokens);
        w.check();
        sums.fill(0.0);
        if w.cols == 0 {
            return;
        }
        let mut times = Times::new(s, w, tile);
        let (even, two) = (matches!(w.offsets, Offsets::Symmetric), 4 * S::LANES > w.block);
        for (run, to) in runs.zip(sums.chunks_exact_mut(tokens * S::LANES)) {
            for row in run * S::LANES..w.rows.min((run + 1) * S::LANES) {
                let to = &mut to[row % S::LANES..];
                times.of_row(s, w, row);
                // SAFETY: the lists of the weight have what `check` asserts and its constructor, the tile and the sums what was asserted above.
                unsafe {
                    match (w.width, planes, tokens) {
                        (Width::Four, 1, 1) => self.row::<S, 1, 1, false>(s, row, (even, two), &times, to),
                        (Width::Four, 1, 2) => self.row::<S, 1, 2, false>(s, row, (even, two), &times, to),
                        (Width::Four, 3, 1) => self.row::<S, 3, 1, false>(s, row, (even, two), &times, to),
                        (Width::Eight, 1, 1) => self.row::<S, 1, 1, true>(s, row, (even, two), &times, to),
                        (Width::Eight, 1, 2) => self.row::<S, 1, 2, true>(s, row, (even, two), &times, to),
                        (Width::Eight, 3, 1) => self.row::<S, 3, 1, true>(s, row, (even, two), &times, to),
                        (width, planes, tokens) => unreachable!("{tokens} tokens in {planes} planes meet {width:?} bits"),
                    }
                }
            }
        }
    }

    /// A row meets `T` tokens in `P` planes, codes being bytes if `BYTES`; symmetric or not, a part being two blocks of x or not. Sums go to every lane-th place.
    ///
    /// # Safety
    /// The weight has that row, and the tile `T` tokens in `P` planes.
    #[inline(always)]
    unsafe fn row<S: SparseCodes, const P: usize, const T: usize, const BYTES: bool>(
        &self,
        s: S,
        row: usize,
        (even, two): (bool, bool),
        times: &Times,
        to: &mut [f32],
    ) {
        // SAFETY: as promised by the caller.
        unsafe {
            match (even, two) {
                (true, false) => self.row_by::<S, P, T, BYTES, true, false>(s, row, times, to),
                (true, true) => self.row_by::<S, P, T, BYTES, true, true>(s, row, times, to),
                (false, false) => self.row_by::<S, P, T, BYTES, false, false>(s, row, times, to),
                (false, true) => self.row_by::<S, P, T, BYTES, false, true>(s, row, times, to),
            }
        }
    }

    /// As [`MaskedPart::row`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn row_by<S: SparseCodes, const P: usize, const T: usize, const BYTES: bool, const EVEN: bool, const TWO: bool>(
        &self,
        s: S,
        row: usize,
        times: &Times,
        to: &mut [f32],
    ) {
        let (w, tile) = (self.w, self.tile);
        let parts = w.parts();
        let plane = self.rounding.stride(w.cols);
        let finer = s.splat(self.rounding.finer());
        let mut sums = [[s.splat(0.0); T]; 2];
        // SAFETY: the row has so many parts, whose codes follow one another from that of `begins` on, with slack behind the last; `Times` has the factors of
        // whole parts.
        unsafe {
            let mut walk = Walk {
                mask: w.masks.as_ptr().add(row * parts * (S::LANES / 2)),
                codes: w.codes.as_ptr().add(*w.begins.get_unchecked(row) as usize),
                x: tile.codes.as_ptr(),
                starts: tile.starts.as_ptr().cast(),
                scales: times.scales.as_ptr(),
                offsets: times.offsets.as_ptr(),
                plane,
                blocks: times.blocks,
                finer,
            };
            for _ in 0..parts / 2 {
                ask_codes::<S>(walk.codes);
                walk.part::<S, P, T, BYTES, EVEN, TWO>(s, &mut sums[0]);
                walk.part::<S, P, T, BYTES, EVEN, TWO>(s, &mut sums[1]);
            }
            if parts % 2 == 1 {
                walk.part::<S, P, T, BYTES, EVEN, TWO>(s, &mut sums[0]);
            }
        }
        for (t, to) in to.chunks_mut(S::LANES).take(T).enumerate() {
            to[0] = s.sum(s.add(sums[0][t], sums[1][t]));
        }
    }
}

/// Where a row is.
struct Walk<V> {
    mask: *const u8,
    codes: *const u8,
    /// Codes of the first plane of the first token, and the others so many bytes behind.
    x: *const u8,
    starts: *const u8,
    plane: usize,
    /// Factors of the first token's blocks, and the others so many behind; one a part, or two.
    scales: *const f32,
    offsets: *const f32,
    blocks: usize,
    finer: V,
}

impl<V: Copy> Walk<V> {
    /// A part of a row.
    ///
    /// # Safety
    /// There is one more.
    #[inline(always)]
    unsafe fn part<
        S: SparseCodes<V = V>,
        const P: usize,
        const T: usize,
        const BYTES: bool,
        const EVEN: bool,
        const TWO: bool,
    >(
        &mut self,
        s: S,
        sums: &mut [S::V; T],
    ) {
        // SAFETY: as promised by the caller.
        unsafe {
            let mask = match S::LANES {
                16 => self.mask.cast::<u64>().read_unaligned(),
                _ => u64::from(self.mask.cast::<u32>().read_unaligned()),
            };
            let fill = if BYTES || !EVEN { 0 } else { 8 };
            let codes = s.expand::<BYTES>(self.codes, mask, fill);
            let many = mask.count_ones() as usize;
            self.codes = self.codes.add(if BYTES { many } else { many.div_ceil(2) });
            self.mask = self.mask.add(S::LANES / 2);
            let ones = if EVEN { s.none() } else { s.at_mask(mask, s.bytes(1)) };
            for t in 0..T {
                let mut code = [s.splat(0.0); P];
                let mut met = [s.splat(0.0); P];
                for p in 0..P {
                    let at = (t * P + p) * self.plane;
                    let x = s.line(self.x.add(at));
                    // What bytes of 0 and codes of 8 met is taken away.
                    let start = if EVEN || BYTES { s.line(self.starts.add(at)) } else { s.none() };
                    code[p] = s.float(match (BYTES, S::OFTEN) {
                        (true, _) => s.meet_signed(start, codes, x),
                        (false, usize::MAX) => s.add_bytes(start, codes, x),
                        (false, _) => s.plus(s.closed(s.add_bytes(s.none(), codes, x), 0), start),
                    });
                    if !EVEN {
                        met[p] = s.float(s.closed(s.add_bytes(s.none(), ones, x), 0));
                    }
                }
                for p in (0..P - 1).rev() {
                    code[p] = s.fma(code[p + 1], self.finer, code[p]);
                    met[p] = s.fma(met[p + 1], self.finer, met[p]);
                }
                sums[t] = s.fma(code[0], factor(s, TWO, self.scales.add(t * self.blocks)), sums[t]);
                if !EVEN {
                    sums[t] = s.fma(met[0], factor(s, TWO, self.offsets.add(t * self.blocks)), sums[t]);
                }
            }
            self.x = self.x.add(4 * S::LANES);
            self.starts = self.starts.add(4 * S::LANES);
            self.scales = self.scales.add(if TWO { 2 } else { 1 });
            if !EVEN {
                self.offsets = self.offsets.add(if TWO { 2 } else { 1 });
            }
        }
    }
}

/// Factors of a row: scales and offsets by what a code of each token's blocks stands for, `(tokens, blocks)`; where blocks have several parts, one a part.
struct Times {
    tokens: usize,
    /// Parts of a block, 1 or 2.
    twice: usize,
    /// Blocks or parts, those that vectors have, which are whole.
    blocks: usize,
    steps: Vec<f32>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
    /// Of a row alone, by block.
    row: Vec<f32>,
}

impl Times {
    #[inline(always)]
    fn new<S: SparseCodes>(_: S, w: &MaskedSlices<'_>, tile: &Tile) -> Times {
        let (tokens, there, twice) = (tile.tokens, w.cols.div_ceil(w.block), (w.block / (4 * S::LANES)).max(1));
        let blocks = (there * twice + 2).next_multiple_of(S::LANES);
        let mut steps = vec![0.0; tokens * blocks];
        for (block, of) in tile.steps.chunks(tokens).enumerate() {
            for (t, step) in of.iter().enumerate() {
                steps[t * blocks + block * twice..][..twice].fill(step.step);
            }
        }
        let offsets = if matches!(w.offsets, Offsets::Symmetric) { Vec::new() } else { vec![0.0; tokens * blocks] };
        Times { tokens, twice, blocks, scales: vec![0.0; tokens * blocks], offsets, steps, row: vec![0.0; blocks] }
    }

    /// Those of a row.
    #[inline(always)]
    fn of_row<S: SparseCodes>(&mut self, s: S, w: &MaskedSlices<'_>, row: usize) {
        let (groups, each) = (w.groups(), w.group.div_ceil(w.block).max(1) * self.twice);
        let there = w.cols.div_ceil(w.block) * self.twice;
        let first = row * groups;
        if each == 1 {
            for block in (0..groups).step_by(S::LANES) {
                // SAFETY: there are as many scales more as a vector has lanes.
                s.write(&mut self.row[block..], unsafe { w.scales.load(s, first + block) });
            }
        } else {
            self.row[..there].chunks_mut(each).enumerate().for_each(|(group, to)| to.fill(w.scales.at(first + group)));
        }
        self.put(s, false);
        if self.offsets.is_empty() {
            return;
        }
        for (block, to) in self.row[..there].iter_mut().enumerate() {
            let group = first + block / each;
            *to = match w.offsets {
                Offsets::ZeroPoints(zeros) => -*to * f32::from(zeros[group]),
                Offsets::Minimums(least) => least.at(group),
                Offsets::Symmetric => 0.0,
            };
        }
        self.put(s, true);
    }

    /// Multiplies those of the row by the steps of each token.
    #[inline(always)]
    fn put<S: SparseCodes>(&mut self, s: S, offsets: bool) {
        let to = if offsets { &mut self.offsets } else { &mut self.scales };
        for at in (0..self.tokens * self.blocks).step_by(S::LANES) {
            s.write(&mut to[at..], s.mul(s.read(&self.steps[at..]), s.read(&self.row[at % self.blocks..])));
        }
    }
}

/// A factor of all lanes, or two of half of them each.
///
/// # Safety
/// There are so many.
#[inline(always)]
unsafe fn factor<S: SparseCodes>(s: S, two: bool, at: *const f32) -> S::V {
    // SAFETY: as promised by the caller.
    unsafe { if two { s.halves(s.splat(*at), s.splat(*at.add(1))) } else { s.splat(*at) } }
}
