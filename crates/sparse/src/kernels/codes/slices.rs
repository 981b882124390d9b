//! A weight of codes as kernels read it.

use crate::kernels::simd::{Isa, Simd};
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
    /// Lines of a block.
    pub(crate) const fn lines(self) -> usize {
        match self {
            Width::Four => 4,
            Width::Eight => 8,
        }
    }

    /// Bytes of a row in a block.
    pub(crate) const fn bytes(self) -> usize {
        4 * self.lines()
    }

    /// What stands for 0 where there are no offsets.
    pub(crate) const fn zero(self) -> i32 {
        match self {
            Width::Four => 8,
            Width::Eight => 0,
        }
    }

    /// Bytes of x that a block of columns meets, for each plane: a byte or a word a column.
    pub(crate) const fn input(self) -> usize {
        match self {
            Width::Four => BLOCK,
            Width::Eight => 2 * BLOCK,
        }
    }

    /// The largest code of x in a plane.
    pub(crate) const fn most(self) -> f32 {
        match self {
            Width::Four => 127.0,
            Width::Eight => 32767.0,
        }
    }
}

/// Where the code of a column lies within the block of its row: the byte, counted from that of the row in the first line, and by how much it is shifted.
/// Lines have four bytes for each of `side` rows.
pub(crate) fn place(width: Width, side: usize, column: usize) -> (usize, u32) {
    match width {
        Width::Four => (column / 8 * 4 * side + column % 4, 4 * (column % 8 / 4) as u32),
        Width::Eight => (column / 4 * 4 * side + [0, 2, 1, 3][column % 4], 0),
    }
}

/// Scales or offsets, in 16 bits where these hold them all.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Factors<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
}

impl Factors<'_> {
    fn len(self) -> usize {
        match self {
            Factors::F16(f) => f.len(),
            Factors::F32(f) => f.len(),
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
    Even,
    /// `scale · (code − zero)`, with these zeros.
    Zeros(&'a [i8]),
    /// `scale · code + least`.
    Least(Factors<'a>),
}

impl Offsets<'_> {
    fn len(self) -> Option<usize> {
        match self {
            Offsets::Even => None,
            Offsets::Zeros(zeros) => Some(zeros.len()),
            Offsets::Least(least) => Some(least.len()),
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
        side_by_side() * self.width.bytes()
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
