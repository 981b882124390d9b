//! Codes at a mask of no pattern, where few are kept: rows side by side in steps of up to four codes a row.
//!
//! ```text
//! step = for each row side by side up to four codes and the places of their columns, half a byte each, in windows of 16 columns
//! 4 bits: a byte a code:  place | code << 4
//! 8 bits: two bytes of places a row, the first in the lower half of each, then the bytes of codes
//! ```
//!
//! Window `i` of a step begins `base[i]` columns behind the step's own, which is where the row that is furthest behind goes on; rows that are
//! ahead have slots without a code, which hold the code that stands for 0; where none does for certain (minimums), windows have 15 columns, and place 15 is none. Steps belong to a block of columns, whose numbers of x lie between zeros:
//! a step that reaches over the end of its block is taken again in the next, and counts its own part in each.

use super::input::{Rounding, Step, Tile};
use super::slices::{Factors, Offsets, Width, side_by_side};
use crate::kernels::frame::ask_codes;
use crate::kernels::simd::SparseCodes;

/// Zeros on both sides of a block of x: more than a step reaches beyond it.
pub(super) const PAD: usize = 32;
/// Columns of a window, and the place of slots without a code where there is one.
pub(crate) const WINDOW: usize = 16;
pub(crate) const NONE: u8 = 15;

/// Bytes of a step of so many rows.
pub(crate) fn step_size(width: Width, side: usize) -> usize {
    match width {
        Width::Four => 4 * side,
        Width::Eight => 6 * side,
    }
}

/// Where windows begin behind their step, if so many of a thousand weights are kept: in bytes of vectors of eight lanes, two have one window.
pub(crate) fn bases(kept: usize) -> [u8; 4] {
    match (side_by_side(), kept) {
        (16, ..200) => [0, 1, 3, 4],
        (16, _) => [0, 1, 2, 3],
        (_, ..200) => [0, 0, 3, 3],
        _ => [0, 0, 2, 2],
    }
}

/// A weight in steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowSlices<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) width: Width,
    /// Columns of a block: 32 or 64.
    pub(crate) block: usize,
    /// Blocks that share a scale.
    pub(crate) group: usize,
    pub(crate) base: [u8; 4],
    /// The first step of each of the blocks of rows, and the end of the last.
    pub(crate) begins: &'a [u32],
    /// Of each block of each block of rows, how many steps it has, and how many of the one before it reach into it.
    pub(crate) counts: &'a [[u8; 2]],
    /// The column within its block that each step begins with.
    pub(crate) starts: &'a [u8],
    pub(crate) steps: &'a [u8],
    /// `(blocks of rows, groups, rows side by side)`.
    pub(crate) scales: Factors<'a>,
    /// As scales. With minimums, slots without a code have the place [`NONE`].
    pub(crate) offsets: Offsets<'a>,
}

/// A code that is kept, and its column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CodeAt {
    pub(crate) column: usize,
    pub(crate) code: u8,
}

impl WindowSlices<'_> {
    /// Blocks of columns.
    pub(crate) fn blocks(&self) -> usize {
        self.cols.div_ceil(self.block)
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.blocks().div_ceil(self.group.max(1))
    }

    /// Blocks of rows.
    pub(crate) fn runs(&self) -> usize {
        self.rows.div_ceil(side_by_side())
    }

    /// # Panics
    /// If a list has not the length that the others need.
    pub(crate) fn check(&self) {
        let (runs, side) = (self.runs(), side_by_side());
        let factors = runs * self.groups() * side;
        let steps = self.begins.last().map_or(0, |end| *end as usize);
        assert_eq!((self.begins.len(), self.counts.len()), (runs + 1, runs * self.blocks()), "{} x {}", self.rows, self.cols);
        assert_eq!((self.starts.len(), self.steps.len()), (steps, steps * step_size(self.width, side)), "{steps} steps");
        assert_eq!(self.scales.len(), factors, "scales of {} x {}", self.rows, self.cols);
        assert!(self.offsets.len().is_none_or(|len| len == factors), "offsets of {} x {}", self.rows, self.cols);
    }

    /// The code that stands for 0 in a row of a block of rows and a group.
    fn zero(&self, factor: usize) -> u8 {
        match self.offsets {
            Offsets::ZeroPoints(zeros) => zeros[factor] as u8,
            Offsets::Symmetric | Offsets::Minimums(_) => self.width.zero() as u8,
        }
    }

    /// Calls `f` with a row of a block of rows and each of its codes that do not stand for 0, in some blocks of columns.
    pub(crate) fn each_code(&self, run: usize, blocks: std::ops::Range<usize>, mut f: impl FnMut(usize, CodeAt)) {
        let (side, all, groups) = (side_by_side(), self.blocks(), self.groups());
        let size = step_size(self.width, side);
        let counts = &self.counts[run * all..(run + 1) * all];
        let mut next = self.begins[run] as usize + counts[..blocks.start].iter().map(|c| usize::from(c[0])).sum::<usize>();
        for block in blocks {
            for at in next..next + usize::from(counts[block][0]) {
                let (step, first) = (&self.steps[at * size..(at + 1) * size], block * self.block + usize::from(self.starts[at]));
                for slot in 0..4 * side {
                    let (row, base) = (slot / 4, usize::from(self.base[slot % 4]));
                    let (place, code) = match self.width {
                        Width::Four => (step[slot] & 15, step[slot] >> 4),
                        Width::Eight => (step[slot / 2] >> (4 * (slot % 2)) & 15, step[2 * side + slot]),
                    };
                    let minimums = matches!(self.offsets, Offsets::Minimums(_));
                    if minimums && place == NONE {
                        continue;
                    }
                    let column = first + base + usize::from(place);
                    // Of a slot without a code the place is 0, which lies within the step's block.
                    let group = column.min(self.cols.saturating_sub(1)) / self.block / self.group;
                    if minimums || code != self.zero((run * groups + group) * side + row) {
                        f(row, CodeAt { column, code });
                    }
                }
            }
            next += usize::from(counts[block][0]);
        }
    }
}

/// A tile of tokens and a weight.
pub(super) struct WindowPart<'a> {
    pub w: &'a WindowSlices<'a>,
    pub rounding: Rounding,
    pub tile: &'a Tile,
}

impl WindowPart<'_> {
    /// Writes the sums of some blocks of rows, `(blocks of rows, tokens, rows side by side)`.
    #[inline(always)]
    pub fn meet<S: SparseCodes>(&self, s: S, runs: std::ops::Range<usize>, sums: &mut [f32]) {
        let WindowPart { w, rounding, tile } = self;
        let (blocks, tokens, planes) = (w.blocks(), tile.tokens, rounding.planes);
        assert!(S::LANES == side_by_side() && runs.end <= w.runs() && sums.len() == runs.len() * tokens * S::LANES);
        assert!(tile.codes.len() >= blocks * tokens * planes * rounding.stride(w.cols) && tile.steps.len() == blocks * tokens);
        w.check();
        if blocks == 0 {
            return sums.fill(0.0);
        }
        for (run, to) in runs.zip(sums.chunks_exact_mut(tokens * S::LANES)) {
            // SAFETY: the lists of the weight have what `check` asserts and its constructor, the tile and the sums what was asserted above.
            unsafe {
                match (w.width, planes, tokens) {
                    (Width::Four, 1, 1) => self.run::<S, 1, 1, false>(s, run, to),
                    (Width::Four, 1, 2) => self.run::<S, 1, 2, false>(s, run, to),
                    (Width::Four, 3, 1) => self.run::<S, 3, 1, false>(s, run, to),
                    (Width::Eight, 1, 1) => self.run::<S, 1, 1, true>(s, run, to),
                    (Width::Eight, 1, 2) => self.run::<S, 1, 2, true>(s, run, to),
                    (Width::Eight, 3, 1) => self.run::<S, 3, 1, true>(s, run, to),
                    (width, planes, tokens) => unreachable!("{tokens} tokens in {planes} planes meet {width:?} bits"),
                }
            }
        }
    }

    /// A block of rows meets `T` tokens in `P` planes, codes being bytes if `BYTES`.
    ///
    /// # Safety
    /// The weight has that block of rows, and the tile `T` tokens in `P` planes.
    #[inline(always)]
    unsafe fn run<S: SparseCodes, const P: usize, const T: usize, const BYTES: bool>(&self, s: S, run: usize, to: &mut [f32]) {
        // SAFETY: as promised by the caller.
        unsafe {
            match self.w.offsets {
                Offsets::Minimums(_) => self.run_by::<S, P, T, BYTES, true>(s, run, to),
                _ => self.run_by::<S, P, T, BYTES, false>(s, run, to),
            }
        }
    }

    /// As [`WindowPart::run`]; with minimums if `LEAST`.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn run_by<S: SparseCodes, const P: usize, const T: usize, const BYTES: bool, const LEAST: bool>(
        &self,
        s: S,
        run: usize,
        to: &mut [f32],
    ) {
        let w = self.w;
        let (blocks, groups) = (w.blocks(), w.groups());
        let size = if BYTES { 6 * S::LANES } else { 4 * S::LANES };
        let finer = s.splat(self.rounding.finer());
        let even = matches!(w.offsets, Offsets::Symmetric);
        let plane = self.rounding.stride(w.cols);
        let kernel = Steps { base: w.base, bases: s.lanes(u32::from_le_bytes(w.base)), ones: s.bytes(1), plane };
        let mut sums = [s.splat(0.0); T];
        // SAFETY: the steps of the blocks follow one another from that of `begins` on; each plane of each token has its numbers of a block between `PAD` zeros.
        unsafe {
            let first = *w.begins.get_unchecked(run) as usize;
            let mut at = w.steps.as_ptr().add(first * size);
            let mut start = w.starts.as_ptr().add(first);
            let mut count = w.counts.as_ptr().add(run * blocks);
            let mut x = self.tile.codes.as_ptr().add(PAD);
            let mut steps = self.tile.steps.as_ptr();
            let mut factor = run * groups * S::LANES;
            let mut left = 0;
            let (mut scale, mut zero, mut least) = (s.splat(0.0), s.none(), s.splat(0.0));
            for _ in 0..blocks {
                if left == 0 {
                    left = w.group;
                    scale = w.scales.load(s, factor);
                    match w.offsets {
                        Offsets::ZeroPoints(zeros) => {
                            let more = if BYTES { S::SIGNED_ZERO } else { 0 };
                            zero = s.plus(s.signed(zeros.as_ptr().add(factor)), s.lanes(more.cast_unsigned()));
                        }
                        Offsets::Minimums(all) => least = all.load(s, factor),
                        Offsets::Symmetric => {}
                    }
                    factor += S::LANES;
                }
                left -= 1;
                let [many, again] = (*count).map(usize::from);
                let mut met = Met::<S, P, T>::new(s);
                for i in 0..again {
                    let x = x.sub(w.block).add(usize::from(*start.sub(again).add(i)));
                    kernel.step::<S, P, T, BYTES, LEAST>(s, at.sub((again - i) * size), x, &mut met);
                }
                for i in 0..many {
                    let codes = at.add(i * size);
                    ask_codes::<S>(codes);
                    kernel.step::<S, P, T, BYTES, LEAST>(s, codes, x.add(usize::from(*start.add(i))), &mut met);
                }
                let [codes, ones] = met.close(s);
                for t in 0..T {
                    let step: &Step = &*steps.add(t);
                    // In integers, since slots without a code meet x too.
                    let code = |p: usize| {
                        let (codes, ones) = (codes[t][p], ones[t][p]);
                        s.float(match (even, BYTES) {
                            (_, false) if LEAST => codes,
                            (_, true) if LEAST => s.minus(codes, S::SIGNED_ZERO, ones),
                            (true, false) => s.minus(codes, 8, ones),
                            (true, true) => s.minus(codes, S::SIGNED_ZERO, ones),
                            (false, _) => s.minus_product(codes, zero, ones),
                        })
                    };
                    let mut all = code(P - 1);
                    for p in (0..P - 1).rev() {
                        all = s.fma(all, finer, code(p));
                    }
                    sums[t] = s.fma(all, s.mul(scale, s.splat(step.step)), sums[t]);
                    if LEAST {
                        let mut sum = s.float(ones[t][P - 1]);
                        for p in (0..P - 1).rev() {
                            sum = s.fma(sum, finer, s.float(ones[t][p]));
                        }
                        sums[t] = s.fma(sum, s.mul(least, s.splat(step.step)), sums[t]);
                    }
                }
                at = at.add(many * size);
                start = start.add(many);
                count = count.add(1);
                x = x.add(T * P * plane);
                steps = steps.add(T);
            }
        }
        for (to, sums) in to.chunks_exact_mut(S::LANES).zip(sums) {
            s.write(to, sums);
        }
    }
}

/// Sums of products of codes, and of the numbers of x that they met.
struct Met<S: SparseCodes, const P: usize, const T: usize> {
    codes: [[S::I; P]; T],
    ones: [[S::I; P]; T],
    /// What was closed of both.
    closed: [[[S::I; P]; T]; 2],
    steps: usize,
}

impl<S: SparseCodes, const P: usize, const T: usize> Met<S, P, T> {
    #[inline(always)]
    fn new(s: S) -> Self {
        let none = [[s.none(); P]; T];
        Met { codes: none, ones: none, closed: [none; 2], steps: 0 }
    }

    /// All of both.
    #[inline(always)]
    fn close(mut self, s: S) -> [[[S::I; P]; T]; 2] {
        self.some(s);
        self.closed
    }

    #[inline(always)]
    fn some(&mut self, s: S) {
        for t in 0..T {
            for p in 0..P {
                self.closed[0][t][p] = s.plus(self.closed[0][t][p], s.closed(self.codes[t][p], 0));
                self.closed[1][t][p] = s.plus(self.closed[1][t][p], s.closed(self.ones[t][p], 0));
                (self.codes[t][p], self.ones[t][p]) = (s.none(), s.none());
            }
        }
    }
}

/// What all steps have in common.
struct Steps<I> {
    base: [u8; 4],
    bases: I,
    ones: I,
    /// Bytes from a plane to the next.
    plane: usize,
}

impl<I: Copy> Steps<I> {
    /// Adds a step.
    ///
    /// # Safety
    /// It has the bytes of one, and each plane of each token 64 from `x` on.
    #[inline(always)]
    unsafe fn step<S: SparseCodes<I = I>, const P: usize, const T: usize, const BYTES: bool, const LEAST: bool>(
        &self,
        s: S,
        step: *const u8,
        x: *const u8,
        met: &mut Met<S, P, T>,
    ) {
        // SAFETY: as promised by the caller.
        unsafe {
            let (places, codes) = match BYTES {
                true => (s.spread(step), s.line(step.add(2 * S::LANES))),
                false => {
                    let both = s.line(step);
                    (s.low(both), s.high(both))
                }
            };
            for t in 0..T {
                for p in 0..P {
                    let x = s.near(x.add((t * P + p) * self.plane), self.base, self.bases, places);
                    let x = if LEAST { s.but_none(places, x) } else { x };
                    met.ones[t][p] = s.add_bytes(met.ones[t][p], self.ones, x);
                    match BYTES {
                        // Sums of 32 bits.
                        true => met.closed[0][t][p] = s.meet_signed(met.closed[0][t][p], codes, x),
                        false => met.codes[t][p] = s.add_bytes(met.codes[t][p], codes, x),
                    }
                }
            }
        }
        if S::OFTEN < usize::MAX {
            met.steps += 1;
            if met.steps == S::OFTEN {
                met.steps = 0;
                met.some(s);
            }
        }
    }
}
