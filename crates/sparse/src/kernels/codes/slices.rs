//! A weight of codes as kernels read it.

use crate::kernels::simd::{Codes, Isa, Simd};
use half::f16;

/// Columns of a block.
pub(crate) const BLOCK: usize = 32;

/// Rows that lie side by side for the current set.
pub(crate) fn side_by_side() -> usize {
    if Isa::current() == Isa::Avx512 { 16 } else { 8 }
}

/// Bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// 0 to 15.
    Four,
    /// −128 to 127.
    Eight,
}

impl Width {
    /// What stands for 0 where there are no offsets.
    pub(crate) const fn zero(self) -> i32 {
        match self {
            Width::Four => 8,
            Width::Eight => 0,
        }
    }
}

/// Which columns of a block of [`BLOCK`] have codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// All.
    Whole,
    /// Four of each eight, whose first is none before these bytes' numbers and at most three beyond them: 2:4 and 1:2.
    Near(u32),
    /// Any four of each eight: 4:8.
    Eight,
    /// Any four of each sixteen: 1:4, 2:8 and 4:16.
    Sixteen,
}

impl Pattern {
    /// What places are counted from.
    pub(super) fn nearest(self) -> u32 {
        if let Pattern::Near(nearest) = self { nearest } else { 0 }
    }

    /// Of N:M, if four of eight or of sixteen columns make whole groups of it.
    pub(crate) fn of(n: usize, m: usize) -> Option<Pattern> {
        match (n, m) {
            (1, 2) => Some(Pattern::Near(u32::from_le_bytes([0, 2, 4, 6]))),
            (2, 4) => Some(Pattern::Near(u32::from_le_bytes([0, 0, 4, 4]))),
            (4, 8) => Some(Pattern::Eight),
            (1, 4) | (2, 8) | (4, 16) => Some(Pattern::Sixteen),
            _ => None,
        }
    }

    /// Steps of a block, each of four codes a row.
    pub(crate) const fn steps(self) -> usize {
        match self {
            Pattern::Whole => 8,
            Pattern::Near(_) | Pattern::Eight => 4,
            Pattern::Sixteen => 2,
        }
    }

    /// Columns of a step.
    pub(crate) const fn columns(self) -> usize {
        BLOCK / self.steps()
    }

    /// Lines of a block: one of places before those of codes, of which a line of half bytes is two steps and a line of bytes one.
    pub(crate) const fn lines(self, width: Width) -> usize {
        let codes = match width {
            Width::Four => self.steps() / 2,
            Width::Eight => self.steps(),
        };
        if let Pattern::Whole = self { codes } else { 1 + codes }
    }
}

/// Where the code of a column lies within a whole block of its row: the byte, counted from that of the row in the first line, and by how much it is shifted.
/// Lines have four bytes for each of `side` rows.
pub(crate) fn place(width: Width, side: usize, column: usize) -> (usize, u32) {
    match width {
        Width::Four => (column / 8 * 4 * side + column % 4, 4 * (column % 8 / 4) as u32),
        Width::Eight => (column / 4 * 4 * side + [0, 2, 1, 3][column % 4], 0),
    }
}

/// Where code `at` of a step and its place lie in a block of its row with a pattern: bytes from that of the row in the first line, and by how much
/// they are shifted. What a place is counted from is said by [`Pattern::Near`]; of [`Pattern::Eight`] the place is a bit of a byte, the step's.
pub(crate) fn place_of_step(width: Width, pattern: Pattern, side: usize, step: usize, at: usize) -> [(usize, u32); 2] {
    let line = 4 * side;
    let code = match width {
        Width::Four => ((1 + step / 2) * line + at, 4 * (step % 2) as u32),
        Width::Eight => ((1 + step) * line + at, 0),
    };
    let place = match pattern {
        Pattern::Near(_) => (at, 2 * step as u32),
        Pattern::Eight => (step, 0),
        Pattern::Whole | Pattern::Sixteen => (at, 4 * step as u32),
    };
    [code, place]
}

/// Where the four codes of a step lie in the window of sixteen columns that holds it, a byte each: by the first line of a block, which has masks
/// or places; those of [`Pattern::Near`] are counted from `nearest`.
#[inline(always)]
pub(super) fn named<S: Codes, const STEPS: usize, const MASKS: bool>(s: S, line: S::I, nearest: u32, step: usize) -> S::I {
    match (STEPS, MASKS) {
        (4, true) => s.or(s.places(s.right(line, 8 * step as u32)), s.bytes(8 * (step as u8 % 2))),
        (4, false) => {
            let beyond = s.and(s.right(line, 2 * step as u32), s.bytes(3));
            s.or(beyond, s.lanes(nearest + 0x0808_0808 * (step as u32 % 2)))
        }
        _ if step == 0 => s.low(line),
        _ => s.high(line),
    }
}

/// Scales or offsets, in 16 bits where these hold them all.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Factors<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
}

/// A scale in 32 bits, which is finite.
#[inline(always)]
fn wide(scale: f16) -> f32 {
    // 2¹¹² is by how much the exponents of the two differ.
    (f32::from_bits(u32::from(scale.to_bits() & 0x7fff) << 13) * f32::from_bits(0x7780_0000))
        .copysign(f32::from_bits(u32::from(scale.to_bits()) << 16))
}

impl Factors<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Factors::F16(f) => f.len(),
            Factors::F32(f) => f.len(),
        }
    }

    /// One of them.
    #[inline(always)]
    pub(super) fn at(self, at: usize) -> f32 {
        match self {
            Factors::F16(f) => wide(f[at]),
            Factors::F32(f) => f[at],
        }
    }

    /// `LANES` of them from `at` on.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    pub(super) unsafe fn load<S: Simd>(self, s: S, at: usize) -> S::V {
        // SAFETY: the caller vouches for them.
        unsafe {
            match self {
                Factors::F16(f) => s.load_f16(f.as_ptr().add(at)),
                Factors::F32(f) => s.load(f.as_ptr().add(at)),
            }
        }
    }
}

/// A weight `(out, in)`: blocks of rows [`side_by_side`], each all blocks of columns; what is beyond the last row or column is multiplied with 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeSlices<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) width: Width,
    pub(crate) pattern: Pattern,
    /// Blocks of columns that share a scale.
    pub(crate) group: usize,
    pub(crate) codes: &'a [u8],
    /// `(blocks of rows, groups, rows side by side)`.
    pub(crate) scales: Factors<'a>,
    /// As scales.
    pub(crate) offsets: Offsets<'a>,
}

/// What a code stands for beside its scale.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Offsets<'a> {
    /// `scale · (code − zero)`, with [`Width::zero`].
    Symmetric,
    /// `scale · (code − zero)`, with these zeros.
    ZeroPoints(&'a [i8]),
    /// `scale · code + least`.
    Minimums(Factors<'a>),
}

impl Offsets<'_> {
    pub(super) fn len(self) -> Option<usize> {
        match self {
            Offsets::Symmetric => None,
            Offsets::ZeroPoints(zeros) => Some(zeros.len()),
            Offsets::Minimums(least) => Some(least.len()),
        }
    }
}

impl CodeSlices<'_> {
    /// Blocks of columns.
    pub(crate) fn blocks(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.blocks().div_ceil(self.group.max(1))
    }

    /// Blocks of rows.
    pub(crate) fn runs(&self) -> usize {
        self.rows.div_ceil(side_by_side())
    }

    /// Bytes of a block.
    pub(crate) fn size(&self) -> usize {
        side_by_side() * 4 * self.pattern.lines(self.width)
    }

    /// The scales of rows side by side from factor `at` on, and what is to be added for each 1 of x that they meet.
    ///
    /// # Safety
    /// There are so many factors.
    #[inline(always)]
    pub(super) unsafe fn factors<S: Simd>(&self, s: S, at: usize) -> (S::V, S::V) {
        // SAFETY: the caller vouches for them.
        unsafe {
            let scale = self.scales.load(s, at);
            let offset = match self.offsets {
                Offsets::Symmetric => s.mul(scale, s.splat(-self.width.zero() as f32)),
                Offsets::ZeroPoints(zeros) => s.mul(s.mul(scale, s.splat(-1.0)), s.load_i8(zeros.as_ptr().add(at))),
                Offsets::Minimums(least) => least.load(s, at),
            };
            (scale, offset)
        }
    }

    /// # Panics
    /// If a list has not the length that the others need.
    pub(crate) fn check(&self) {
        let (runs, side) = (self.runs(), side_by_side());
        let factors = runs * self.groups() * side;
        assert_eq!(self.codes.len(), runs * self.blocks() * self.size(), "codes of {} x {}", self.rows, self.cols);
        assert_eq!(self.scales.len(), factors, "scales of {} x {}", self.rows, self.cols);
        assert!(self.offsets.len().is_none_or(|len| len == factors), "offsets of {} x {}", self.rows, self.cols);
    }
}
