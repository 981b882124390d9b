//! `y = x · Wᵀ` of codes at a mask of no pattern.

use super::input::{Order, Rounding, Tile};
use super::masked::{MaskedPart, MaskedSlices, part_of_mask};
use super::product::Frame;
use super::slices::{Factors, Offsets, Width, side_by_side};
use super::windows::{CodeAt, PAD, WindowPart, WindowSlices};
use crate::kernels::dense::{PanelNumbers, Panels, Threads, panels_product};
use crate::kernels::frame::Epilogue;
use crate::kernels::simd::{Isa, Portable, SparseCodes};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Vbmi, Vnni, Ymm, Zmm};
use ndarray::ArrayRef2;
use std::ops::Range;

/// A weight of codes at a mask of no pattern.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SparseCodeSlices<'a> {
    Windows(WindowSlices<'a>),
    Masked(MaskedSlices<'a>),
}

/// What a code stands for beside its scale, in the terms of [`Offsets`].
#[derive(Clone, Copy)]
struct Grid<'a> {
    scales: Factors<'a>,
    offsets: Offsets<'a>,
    width: Width,
}

impl Grid<'_> {
    /// The number that a code stands for, by the place of its factors.
    fn number(&self, code: u8, at: usize) -> f32 {
        let code = match self.width {
            Width::Four => f32::from(code),
            Width::Eight => f32::from(code.cast_signed()),
        };
        let scale = self.scales.at(at);
        match self.offsets {
            Offsets::Symmetric => scale * (code - self.width.zero() as f32),
            Offsets::ZeroPoints(zeros) => scale * (code - f32::from(zeros[at])),
            Offsets::Minimums(least) => scale * code + least.at(at),
        }
    }
}

impl SparseCodeSlices<'_> {
    pub(crate) fn dim(&self) -> (usize, usize) {
        match self {
            SparseCodeSlices::Windows(w) => (w.rows, w.cols),
            SparseCodeSlices::Masked(w) => (w.rows, w.cols),
        }
    }

    fn grid(&self) -> Grid<'_> {
        match self {
            SparseCodeSlices::Windows(w) => Grid { scales: w.scales, offsets: w.offsets, width: w.width },
            SparseCodeSlices::Masked(w) => Grid { scales: w.scales, offsets: w.offsets, width: w.width },
        }
    }

    /// Calls `f` with each row of a block of rows, the codes of it that it holds in some columns, and what these stand for. Windows do not hold those that stand for 0.
    pub(crate) fn each_code(&self, run: usize, columns: Range<usize>, mut f: impl FnMut(usize, CodeAt, f32)) {
        let (side, (rows, _)) = (side_by_side(), self.dim());
        let grid = self.grid();
        match self {
            SparseCodeSlices::Windows(w) => {
                // Those of the block before the first reach into it.
                let blocks = (columns.start / w.block).saturating_sub(1)..columns.end.div_ceil(w.block);
                w.each_code(run, blocks, |row, at| {
                    if columns.contains(&at.column) {
                        let factor = (run * w.groups() + at.column / w.block / w.group) * side + row;
                        f(row, at, grid.number(at.code, factor));
                    }
                });
            }
            SparseCodeSlices::Masked(w) => {
                let part = part_of_mask();
                let parts = columns.start / part..columns.end.div_ceil(part);
                for row in 0..side.min(rows - run * side) {
                    w.each_code(run * side + row, parts.clone(), |at| {
                        if columns.contains(&at.column) {
                            let factor = (run * side + row) * w.groups() + at.column / w.group;
                            f(row, at, grid.number(at.code, factor));
                        }
                    });
                }
            }
        }
    }

    /// Some columns of whole blocks of rows, `(columns, rows)`.
    fn unpack(&self, rows: Range<usize>, columns: Range<usize>, to: &mut [f32]) {
        let (side, stride, (all, _)) = (side_by_side(), rows.len(), self.dim());
        assert!(rows.start % side == 0 && rows.len() % side == 0 && to.len() == rows.len() * columns.len());
        to.fill(0.0);
        for (i, run) in (rows.start / side..rows.end.div_ceil(side).min(all.div_ceil(side))).enumerate() {
            self.each_code(run, columns.clone(), |row, at, number| {
                to[(at.column - columns.start) * stride + i * side + row] = number;
            });
        }
    }

    /// How x is rounded for it, by a set with that [`SparseCodes::SIGNED_ZERO`].
    fn rounding(&self, planes: usize, signed_zero: i32) -> Rounding {
        let (zero, block, order) = match self {
            SparseCodeSlices::Windows(w) => (0, w.block, Order::Blocks { pad: PAD }),
            SparseCodeSlices::Masked(w) => match (w.width, w.offsets) {
                (Width::Four, _) => (8, w.block, Order::Rows { multiple: part_of_mask().max(w.block) }),
                (Width::Eight, _) => (signed_zero, w.block, Order::Rows { multiple: part_of_mask().max(w.block) }),
            },
        };
        Rounding { words: false, planes, zero, block, order }
    }

    /// # Panics
    /// If a list has not the length that the others need.
    fn check(&self) {
        match self {
            SparseCodeSlices::Windows(w) => w.check(),
            SparseCodeSlices::Masked(w) => w.check(),
        }
    }
}

/// As [`codes_product`](super::codes_product).
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn sparse_codes_product(
    w: &SparseCodeSlices<'_>,
    rounded: bool,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
) {
    let ((rows, cols), tokens) = (w.dim(), x.nrows());
    assert!(x.ncols() == cols && y.dim() == (tokens, rows), "{rows} x {cols}: x {:?}, y {:?}", x.dim(), y.dim());
    w.check();
    if tokens == 0 || rows == 0 {
        return;
    }
    // Tokens beside one another are worth less than those of whole weights: what costs most is to find the codes' columns.
    let planes = if rounded { 1 } else { 3 };
    let rounding = w.rounding(planes, if Isa::multiplies_bytes() { 128 } else { 0 });
    let frame = Frame { rows, cols, rounded, rounding, most: if rounded { 2 } else { 1 } };
    if !frame.product(x, y, epilogue, &|tile, runs, sums| meet(Part { w, rounding, tile }, runs, sums)) {
        let numbers = |rows: Range<usize>, columns: Range<usize>, to: &mut [f32]| w.unpack(rows, columns, to);
        panels_product(Panels { rows, cols, numbers: PanelNumbers::Made(&numbers) }, x, y, epilogue, Threads::Pool);
    }
}

/// A tile of tokens and a weight.
#[derive(Clone, Copy)]
struct Part<'a> {
    w: &'a SparseCodeSlices<'a>,
    rounding: Rounding,
    tile: &'a Tile,
}

fn meet(part: Part<'_>, runs: Range<usize>, sums: &mut [f32]) {
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if Isa::expands_bytes() => {
            // SAFETY: this set is only ever current on a machine that has it, and the others were found just now; so in all that follow.
            unsafe { part.meet_vbmi(runs, sums) }
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 if Isa::multiplies_bytes() => unsafe { part.meet_vnni(runs, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => unsafe { part.meet_avx512(runs, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { part.meet_avx2(runs, sums) },
        _ => part.meet_by(Portable::<8>, runs, sums),
    }
}

impl Part<'_> {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(
        enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx512vbmi,avx512vbmi2,avx2,fma,bmi1,bmi2,popcnt,f16c"
    )]
    fn meet_vbmi(self, runs: Range<usize>, sums: &mut [f32]) {
        self.meet_by(Vbmi::new(), runs, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn meet_vnni(self, runs: Range<usize>, sums: &mut [f32]) {
        self.meet_by(Vnni::new(), runs, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn meet_avx512(self, runs: Range<usize>, sums: &mut [f32]) {
        self.meet_by(Zmm::new(), runs, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn meet_avx2(self, runs: Range<usize>, sums: &mut [f32]) {
        self.meet_by(Ymm::new(), runs, sums);
    }

    #[inline(always)]
    fn meet_by<S: SparseCodes>(self, s: S, runs: Range<usize>, sums: &mut [f32]) {
        let Part { w, rounding, tile } = self;
        match w {
            SparseCodeSlices::Windows(w) => WindowPart { w, rounding, tile }.meet(s, runs, sums),
            SparseCodeSlices::Masked(w) => MaskedPart { w, rounding, tile }.meet(s, runs, sums),
        }
    }
}

/// The sums of two tokens by each set of sixteen lanes, of which a machine that expands bytes has all.
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) fn by_each_set(w: &SparseCodeSlices<'_>, planes: usize, x: &ArrayRef2<f32>) -> Vec<Vec<f32>> {
    if !Isa::expands_bytes() {
        return Vec::new();
    }
    let runs = w.dim().0.div_ceil(side_by_side());
    let most = if planes == 1 { 2 } else { 1 };
    let by = |signed_zero: i32, run: &dyn Fn(Part<'_>, &mut [f32])| {
        let rounding = w.rounding(planes, signed_zero);
        let tiles = rounding.tiles(x, most, false).unwrap();
        let mut sums = Vec::new();
        for tile in &tiles {
            let mut of = vec![f32::NAN; runs * tile.tokens * side_by_side()];
            run(Part { w, rounding, tile }, &mut of);
            sums.extend(of);
        }
        sums
    };
    // SAFETY: the machine has all of them.
    unsafe {
        vec![
            by(0, &|part, sums| part.meet_avx512(0..runs, sums)),
            by(128, &|part, sums| part.meet_vnni(0..runs, sums)),
            by(128, &|part, sums| part.meet_vbmi(0..runs, sums)),
        ]
    }
}
