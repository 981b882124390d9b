//! Codes with scales of groups, in the order of kernels: what whole weights and those of a pattern share.

use super::precision::Precision;
use crate::kernels::{
    Aligned, CODE_BLOCK, CodeOffsets, CodePattern, CodeSlices, CodeWidth, Epilogue, Factors, Threads, Values, codes_product,
    gemm, side_by_side, unpack_rows,
};
use crate::{Error, Result};
use half::f16;
use ndarray::{Array2, ArrayRef2, s};
use rayon::prelude::*;
use std::fmt;
use std::str::FromStr;

/// What the numbers of a group stand for beside their scale.
#[derive(Debug, Clone, PartialEq)]
pub enum Offsets {
    /// `scale · (code − 8)` in four bits, `scale · code` in eight: evenly about 0, as in Q4_0 and Q8_0.
    Symmetric,
    /// `scale · (code − zero)`, one zero point a group, which is a code: as in GPTQ and AWQ.
    ZeroPoints(Vec<i8>),
    /// `scale · code + minimum`, one number a group: as in Q4_1.
    Minimums(Vec<f32>),
}

/// Bits of activations in products with weights of four and eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationBits {
    /// As they are. With up to four tokens each is taken as the sum of two or three codes, whose error is that of `f32`.
    #[default]
    Full,
    /// Rounded to 8 bits, with a scale for each 32 (16 bits where weights have eight, which costs no more).
    Eight,
}

impl FromStr for ActivationBits {
    type Err = Error;

    /// # Errors
    /// If the text is neither `32` nor `8`.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "32" => Ok(ActivationBits::Full),
            "8" => Ok(ActivationBits::Eight),
            _ => Err(Error::invalid_option("activation-bits", format!("'{s}' is neither 32 nor 8"))),
        }
    }
}

impl fmt::Display for ActivationBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == ActivationBits::Eight { "8" } else { "32" })
    }
}

/// Offsets in the order of scales.
#[derive(Debug, Clone, PartialEq)]
enum Packed {
    Symmetric,
    ZeroPoints(Vec<i8>),
    Minimums(Values),
}

/// Scales and offsets in the order of a kernel, in 16 bits where these hold them all.
#[derive(Debug, Clone)]
pub(super) struct PackedFactors {
    scales: Values,
    offsets: Packed,
}

impl PackedFactors {
    /// So many, each that of which `from` gives the place in the lists; 0 where it gives none.
    pub fn new(scales: &[f32], offsets: &Offsets, many: usize, from: impl Fn(usize) -> Option<usize>) -> Self {
        let turned = |list: &[f32]| in_few_bits((0..many).map(|at| from(at).map_or(0.0, |at| list[at])).collect());
        let offsets = match offsets {
            Offsets::Symmetric => Packed::Symmetric,
            Offsets::ZeroPoints(zeros) => Packed::ZeroPoints((0..many).map(|at| from(at).map_or(0, |at| zeros[at])).collect()),
            Offsets::Minimums(least) => Packed::Minimums(turned(least)),
        };
        PackedFactors { scales: turned(scales), offsets }
    }

    /// The lists again, of which `place` says where each is.
    pub fn lists(&self, many: usize, place: impl Fn(usize) -> usize) -> (Vec<f32>, Offsets) {
        let turned = |values: &Values| (0..many).map(|at| wide(values, place(at))).collect();
        let offsets = match &self.offsets {
            Packed::Symmetric => Offsets::Symmetric,
            Packed::ZeroPoints(zeros) => Offsets::ZeroPoints((0..many).map(|at| zeros[place(at)]).collect()),
            Packed::Minimums(least) => Offsets::Minimums(turned(least)),
        };
        (turned(&self.scales), offsets)
    }

    /// As kernels read them.
    pub fn slices(&self) -> (Factors<'_>, CodeOffsets<'_>) {
        let offsets = match &self.offsets {
            Packed::Symmetric => CodeOffsets::Symmetric,
            Packed::ZeroPoints(zeros) => CodeOffsets::ZeroPoints(zeros),
            Packed::Minimums(least) => CodeOffsets::Minimums(shown(least)),
        };
        (shown(&self.scales), offsets)
    }

    /// Whether codes stand evenly about 0.
    pub fn is_even(&self) -> bool {
        matches!(self.offsets, Packed::Symmetric)
    }

    pub fn bytes(&self) -> usize {
        let offsets = match &self.offsets {
            Packed::Symmetric => 0,
            Packed::ZeroPoints(zeros) => zeros.len(),
            Packed::Minimums(least) => size(least),
        };
        size(&self.scales) + offsets
    }
}

/// The name of numbers in codes: `i4`, `u4`, `i8`, `u8`.
pub(super) fn name_of(width: CodeWidth, even: bool) -> &'static str {
    match (width, even) {
        (CodeWidth::Four, true) => "i4",
        (CodeWidth::Four, false) => "u4",
        (CodeWidth::Eight, true) => "i8",
        (CodeWidth::Eight, false) => "u8",
    }
}

/// What numbers in codes are, in groups of rows of so many inputs.
pub(super) fn precision_of(width: CodeWidth, even: bool, group: usize, cols: usize) -> Precision {
    match (width, even) {
        (CodeWidth::Four, true) => Precision::I4Grouped(group),
        (CodeWidth::Four, false) => Precision::U4Grouped(group),
        (CodeWidth::Eight, true) if group == cols => Precision::I8,
        (CodeWidth::Eight, true) => Precision::I8Grouped(group),
        (CodeWidth::Eight, false) => Precision::U8Grouped(group),
    }
}

/// Numbers in 16 bits if these hold them, else in 32.
pub(super) fn in_few_bits(numbers: Vec<f32>) -> Values {
    let halves: Option<Vec<f16>> =
        numbers.iter().map(|&n| Some(f16::from_f32(n)).filter(|h| h.to_f32().to_bits() == n.to_bits())).collect();
    halves.map_or(Values::F32(numbers), Values::F16)
}

fn shown(values: &Values) -> Factors<'_> {
    match values {
        Values::F16(v) => Factors::F16(v),
        Values::F32(v) => Factors::F32(v),
        _ => unreachable!("scales and offsets are f16 or f32"),
    }
}

fn wide(values: &Values, at: usize) -> f32 {
    match shown(values) {
        Factors::F16(v) => v[at].to_f32(),
        Factors::F32(v) => v[at],
    }
}

fn size(values: &Values) -> usize {
    match shown(values) {
        Factors::F16(v) => size_of_val(v),
        Factors::F32(v) => size_of_val(v),
    }
}

/// Bits of scales that products with codes do not round, and which others have to be 0.
pub(super) const SPARE: u32 = 0x7f;

/// Refuses bits that codes have not.
pub(super) fn width_of(format: &'static str, bits: u8) -> Result<CodeWidth> {
    match bits {
        4 => Ok(CodeWidth::Four),
        8 => Ok(CodeWidth::Eight),
        _ => Err(Error::invalid_option(format, format!("codes of {bits} bits, where 4 and 8 are possible"))),
    }
}

/// Refuses groups that rows of so many inputs have not, and scales and offsets that are too many, too few, or no factors.
pub(super) fn check_factors(
    format: &'static str,
    (rows, cols): (usize, usize),
    (width, group): (CodeWidth, usize),
    scales: &[f32],
    offsets: &Offsets,
) -> Result<()> {
    let refuse = |reason: String| Err(Error::invalid_option(format, reason));
    // As places of kept weights are.
    if u32::try_from(rows.saturating_mul(cols)).is_err() {
        return refuse(format!("{rows} x {cols} weights, where 32 bits count them"));
    }
    if group != cols && (group == 0 || group % CODE_BLOCK != 0 || cols % group != 0) {
        return refuse(format!(
            "groups of {group} inputs in rows of {cols}, where multiples of {CODE_BLOCK} that divide a row are possible, or all of it"
        ));
    }
    let groups = if cols == 0 { 0 } else { cols / group };
    let wanted = rows.checked_mul(groups);
    if wanted != Some(scales.len()) {
        return refuse(format!("{} scales for {rows} rows of {groups} groups", scales.len()));
    }
    if let Some(scale) = scales.iter().find(|s| !s.is_finite() || **s == 0.0) {
        return refuse(format!("a scale is {scale}"));
    }
    match offsets {
        Offsets::Symmetric => Ok(()),
        Offsets::ZeroPoints(zeros) if Some(zeros.len()) != wanted => {
            refuse(format!("{} zero points for {rows} rows of {groups} groups", zeros.len()))
        }
        Offsets::ZeroPoints(zeros) => match zeros.iter().find(|z| width == CodeWidth::Four && !(0..16).contains(*z)) {
            Some(zero) => refuse(format!("a zero point is {zero}, where 0 to 15 are possible")),
            None => Ok(()),
        },
        Offsets::Minimums(least) if Some(least.len()) != wanted => {
            refuse(format!("{} offsets for {rows} rows of {groups} groups", least.len()))
        }
        Offsets::Minimums(least) => {
            match (least.iter().find(|l| !l.is_finite()), scales.iter().find(|s| s.to_bits() & SPARE != 0)) {
                (Some(least), _) => refuse(format!("an offset is {least}")),
                (None, Some(scale)) => refuse(format!("a scale is {scale}, which has more than 17 bits beside an offset")),
                (None, None) => Ok(()),
            }
        }
    }
}

/// Codes and their factors.
#[derive(Debug, Clone)]
pub(super) struct Coded {
    pub rows: usize,
    pub cols: usize,
    pub width: CodeWidth,
    pub pattern: CodePattern,
    /// Inputs of a group.
    pub group: usize,
    /// Rows side by side, which the set that runs decides.
    codes: Aligned,
    /// `(blocks of rows, groups, rows side by side)`.
    factors: PackedFactors,
}

/// The place, row by row, of factor `at` of blocks of rows side by side, of which each row has so many groups; none where the row is none.
pub(super) fn factor_of_run(at: usize, rows: usize, groups: usize) -> Option<usize> {
    let side = side_by_side();
    let (run, group, row) = (at / (groups * side), at / side % groups, at % side);
    Some(run * side + row).filter(|row| *row < rows).map(|row| row * groups + group)
}

/// Where factor `at`, counted row by row, lies in blocks of rows side by side.
pub(super) fn place_in_runs(at: usize, groups: usize) -> usize {
    let side = side_by_side();
    ((at / groups / side * groups) + at % groups) * side + at / groups % side
}

/// Rows that are unpacked at once on the way back.
const SOME: usize = 256;

impl Coded {
    /// What was checked: `write` puts the codes of a row into its blocks, given from its first byte on, and the bytes of a block.
    pub fn new(
        (rows, cols): (usize, usize),
        (width, pattern, group): (CodeWidth, CodePattern, usize),
        (scales, offsets): (&[f32], &Offsets),
        write: impl Fn(usize, &mut [u8], usize) + Sync,
    ) -> Coded {
        let (side, blocks) = (side_by_side(), cols.div_ceil(CODE_BLOCK));
        let (runs, size) = (rows.div_ceil(side), 4 * side * pattern.lines(width));
        let mut codes = Aligned::zeros((runs * blocks * size).div_ceil(4));
        if cols > 0 {
            codes.bytes_mut().par_chunks_exact_mut(blocks * size).enumerate().for_each(|(run, to)| {
                for row in run * side..rows.min((run + 1) * side) {
                    write(row, &mut to[4 * (row - run * side)..], size);
                }
            });
        }
        let groups = if cols == 0 { 0 } else { cols / group };
        let factors = PackedFactors::new(scales, offsets, runs * groups * side, |at| factor_of_run(at, rows, groups));
        Coded { rows, cols, width, pattern, group, codes, factors }
    }

    /// Bits of a code.
    pub fn bits(&self) -> u8 {
        if self.width == CodeWidth::Four { 4 } else { 8 }
    }

    /// The name of its numbers: `i4`, `u4`, `i8`, `u8`.
    pub fn name(&self) -> &'static str {
        name_of(self.width, self.factors.is_even())
    }

    /// What its numbers are.
    pub fn precision(&self) -> Precision {
        precision_of(self.width, self.factors.is_even(), self.group, self.cols)
    }

    fn groups(&self) -> usize {
        if self.cols == 0 { 0 } else { self.cols / self.group }
    }

    /// Calls `read` with each row, the bytes of its blocks from its own first on, and the bytes of a block.
    pub fn each_row(&self, mut read: impl FnMut(usize, &[u8], usize)) {
        let (side, blocks) = (side_by_side(), self.cols.div_ceil(CODE_BLOCK));
        let size = 4 * side * self.pattern.lines(self.width);
        if self.cols > 0 {
            (0..self.rows).for_each(|row| read(row, &self.codes.bytes()[row / side * blocks * size + 4 * (row % side)..], size));
        }
    }

    /// Scales and offsets row by row.
    pub fn factors(&self) -> (Vec<f32>, Offsets) {
        let groups = self.groups();
        self.factors.lists(self.rows * groups, |at| place_in_runs(at, groups))
    }

    fn slices(&self) -> CodeSlices<'_> {
        let blocks = if self.group == self.cols { self.cols.div_ceil(CODE_BLOCK) } else { self.group / CODE_BLOCK };
        let Coded { rows, cols, width, pattern, .. } = *self;
        let (codes, (scales, offsets)) = (self.codes.bytes(), self.factors.slices());
        CodeSlices { rows, cols, width, pattern, group: blocks.max(1), codes, scales, offsets }
    }

    pub fn apply_with(&self, bits: ActivationBits, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        codes_product(&self.slices(), bits == ActivationBits::Eight, x, y, epilogue);
    }

    pub fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        dx.fill(0.0);
        for first in (0..self.rows).step_by(SOME) {
            let rows = first..(first + SOME).min(self.rows);
            let mut w = Array2::zeros((rows.len(), self.cols));
            unpack_rows(&self.slices(), rows.clone(), w.as_slice_mut().expect("a new array is in standard layout"));
            gemm(1.0, &dy.slice(s![.., rows]), &w, 1.0, dx, Threads::Pool);
        }
    }

    pub fn to_dense(&self) -> Array2<f32> {
        let mut dense = vec![0.0; self.rows * self.cols];
        let (slices, side) = (self.slices(), side_by_side());
        if self.cols > 0 {
            dense.par_chunks_mut(side * self.cols).enumerate().for_each(|(run, to)| {
                let first = run * side;
                unpack_rows(&slices, first..first + to.len() / self.cols, to);
            });
        }
        Array2::from_shape_vec((self.rows, self.cols), dense).expect("as many numbers as were made")
    }

    pub fn row_into(&self, row: usize, to: &mut [f32]) {
        unpack_rows(&self.slices(), row..row + 1, to);
    }

    pub fn bytes(&self) -> usize {
        self.codes.bytes().len() + self.factors.bytes()
    }
}

/// Code `at` of a row of codes in few bytes.
pub(super) fn code_at(width: CodeWidth, row: &[u8], at: usize) -> u8 {
    match width {
        CodeWidth::Four => row[at / 2] >> (4 * (at % 2)) & 15,
        CodeWidth::Eight => row[at],
    }
}

/// Puts code `at` of a row, where 0 was.
pub(super) fn put_code(width: CodeWidth, row: &mut [u8], at: usize, code: u8) {
    match width {
        CodeWidth::Four => row[at / 2] |= (code & 15) << (4 * (at % 2)),
        CodeWidth::Eight => row[at] = code,
    }
}

/// Bytes of a row of so many codes.
pub(super) fn row_bytes(width: CodeWidth, many: usize) -> usize {
    if width == CodeWidth::Four { many.div_ceil(2) } else { many }
}
