//! A whole weight in four or eight bits.

use super::entries::{Entries, check_row};
use super::precision::Precision;
use crate::kernels::{
    Aligned, CODE_BLOCK, CodeOffsets, CodeSlices, CodeWidth, Epilogue, Factors, Threads, Values, code_place, codes_product, gemm,
    side_by_side, unpack_rows,
};
use crate::storage::LinearOp;
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
    Even,
    /// `scale · (code − zero)`, one zero point a group, which is a code: as in GPTQ and AWQ.
    Zeros(Vec<i8>),
    /// `scale · code + least`, one number a group: as in Q4_1.
    Least(Vec<f32>),
}

/// What a [`Quantized`] weight is made of, row by row.
///
/// # Invariants
/// - `bits` is 4 or 8; `group` is a multiple of 32 that divides `cols`, or `cols`.
/// - `codes` are `(out, in)`: a byte each, or in four bits half a byte, the lower one of each first, in whole bytes a row. In four bits they are 0 to 15, in eight
///   −128 to 127, as two's complement.
/// - There is a scale for each group of each row, `(out, in / group)`, which is finite and not 0; and with [`Offsets::Zeros`] or [`Offsets::Least`] as many of those:
///   a zero is a code, and what is added is finite.
/// - With [`Offsets::Least`], scales have so few bits that their products with codes are exact (17 of 24): all of GGUF have.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedParts {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Bits of a code.
    pub bits: u8,
    /// Inputs of a row that share a scale.
    pub group: usize,
    /// Codes, row by row.
    pub codes: Vec<u8>,
    /// Scales, `(out, groups)`.
    pub scales: Vec<f32>,
    /// Zero points or offsets.
    pub offsets: Offsets,
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

/// A whole weight `(out, in)` in codes of four or eight bits, with a scale, and a zero point or an offset or none, for each group of inputs of a row: dense few-bit
/// weights as quantisers make them and as GGUF files (Q4_0, Q4_1, Q8_0) hold them.
///
/// With few tokens, products are of integers: four to seven times fewer bytes come from memory than of `f32`. Rows lie side by side, as many as a vector has
/// lanes of 32 bits. The bits of a token depend neither on threads nor on other tokens, if all of x is finite, within products of up to four tokens and within those of more; with
/// [`ActivationBits::Eight`], within all.
///
/// All weights are kept, whatever they are.
///
/// ```
/// use lacuna_sparse::storage::{LinearOp, Offsets, Quantized, QuantizedParts, apply};
/// use ndarray::{Array2, array};
/// // One row of two weights: scale · (code − 8) = 0.5 · (10 − 8) and 0.5 · (5 − 8).
/// let parts = QuantizedParts {
///     rows: 1, cols: 2, bits: 4, group: 2, codes: vec![10 | 5 << 4], scales: vec![0.5], offsets: Offsets::Even,
/// };
/// let w = Quantized::new(parts)?;
/// assert_eq!(w.to_dense(), array![[1., -1.5]]);
/// assert_eq!(apply(&w, &array![[127., 0.]]), array![[127.]]);
/// # Ok::<(), lacuna_sparse::Error>(())
/// ```
#[derive(Clone)]
pub struct Quantized {
    rows: usize,
    cols: usize,
    width: Width,
    group: usize,
    /// Rows side by side, which the set that runs decides.
    codes: Aligned,
    /// `(blocks of rows, groups, rows side by side)`, in 16 bits where these hold them all.
    scales: Values,
    offsets: Packed,
    nnz: usize,
    activations: ActivationBits,
}

type Width = CodeWidth;

/// Offsets in the order of scales.
#[derive(Debug, Clone, PartialEq)]
enum Packed {
    Even,
    Zeros(Vec<i8>),
    Least(Values),
}

impl PartialEq for Quantized {
    fn eq(&self, other: &Self) -> bool {
        (self.nnz, self.activations) == (other.nnz, other.activations) && self.parts() == other.parts()
    }
}

impl fmt::Debug for Quantized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantized({} x {}, {}, activations in {} bits)", self.rows, self.cols, self.precision(), self.activations)
    }
}

fn refuse(reason: String) -> Error {
    Error::invalid_option("quantized", reason)
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

/// The code of a column of a row of codes.
fn code_at(width: Width, row: &[u8], column: usize) -> u8 {
    match width {
        Width::Four => row[column / 2] >> (4 * (column % 2)) & 15,
        Width::Eight => row[column],
    }
}

/// Bytes of a row of codes.
fn row_bytes(width: Width, cols: usize) -> usize {
    if width == Width::Four { cols.div_ceil(2) } else { cols }
}

/// Bits of scales that products with codes do not round, and which others have to be 0.
pub(super) const SPARE: u32 = 0x7f;

impl QuantizedParts {
    fn check(&self) -> Result<Width> {
        let QuantizedParts { rows, cols, bits, group, .. } = *self;
        let width = match bits {
            4 => Width::Four,
            8 => Width::Eight,
            _ => return Err(refuse(format!("codes of {bits} bits, where 4 and 8 are possible"))),
        };
        let whole = group == cols || (group > 0 && group % CODE_BLOCK == 0 && cols % group == 0);
        if !whole {
            return Err(refuse(format!(
                "groups of {group} inputs in rows of {cols}, where multiples of {CODE_BLOCK} that divide a row are possible, or all of it"
            )));
        }
        let groups = if cols == 0 { 0 } else { cols / group };
        let wanted = rows.checked_mul(row_bytes(width, cols));
        if wanted != Some(self.codes.len()) {
            return Err(refuse(format!("{} bytes of codes for {rows} x {cols} of {bits} bits", self.codes.len())));
        }
        let wanted = rows * groups;
        if self.scales.len() != wanted {
            return Err(refuse(format!("{} scales for {rows} rows of {groups} groups", self.scales.len())));
        }
        if let Some(scale) = self.scales.iter().find(|s| !s.is_finite() || **s == 0.0) {
            return Err(refuse(format!("a scale is {scale}")));
        }
        match &self.offsets {
            Offsets::Even => {}
            Offsets::Zeros(zeros) if zeros.len() != wanted => {
                return Err(refuse(format!("{} zero points for {rows} rows of {groups} groups", zeros.len())));
            }
            Offsets::Zeros(zeros) => {
                if let Some(zero) = zeros.iter().find(|z| width == Width::Four && !(0..16).contains(*z)) {
                    return Err(refuse(format!("a zero point is {zero}, where 0 to 15 are possible")));
                }
            }
            Offsets::Least(least) if least.len() != wanted => {
                return Err(refuse(format!("{} offsets for {rows} rows of {groups} groups", least.len())));
            }
            Offsets::Least(least) => {
                if let Some(least) = least.iter().find(|l| !l.is_finite()) {
                    return Err(refuse(format!("an offset is {least}")));
                }
                if let Some(scale) = self.scales.iter().find(|s| s.to_bits() & SPARE != 0) {
                    return Err(refuse(format!("a scale is {scale}, which has more than 17 bits beside an offset")));
                }
            }
        }
        Ok(width)
    }
}

impl Quantized {
    /// The weight of its parts, checked.
    ///
    /// # Errors
    /// If an invariant of [`QuantizedParts`] does not hold.
    pub fn new(parts: QuantizedParts) -> Result<Self> {
        let width = parts.check()?;
        let QuantizedParts { rows, cols, group, codes, scales, offsets, .. } = parts;
        let (side, blocks, bytes) = (side_by_side(), cols.div_ceil(CODE_BLOCK), row_bytes(width, cols));
        let (runs, size) = (rows.div_ceil(side), side * width.bytes());
        let mut packed = Aligned::zeros((runs * blocks * size).div_ceil(4));
        let pack_run = |(run, to): (usize, &mut [u8])| {
            for row in run * side..rows.min((run + 1) * side) {
                let from = &codes[row * bytes..(row + 1) * bytes];
                let to = &mut to[4 * (row - run * side)..];
                for column in 0..cols {
                    let (byte, shift) = code_place(width, side, column % CODE_BLOCK);
                    to[column / CODE_BLOCK * size + byte] |= code_at(width, from, column) << shift;
                }
            }
        };
        if cols > 0 {
            packed.bytes_mut().par_chunks_exact_mut(blocks * size).enumerate().for_each(pack_run);
        }
        let groups = if cols == 0 { 0 } else { cols / group };
        let turn = |at: usize| {
            let (run, group, row) = (at / (groups * side), at / side % groups, at % side);
            Some(run * side + row).filter(|row| *row < rows).map(|row| row * groups + group)
        };
        let many = runs * groups * side;
        let turned = |from: &[f32]| in_few_bits((0..many).map(|at| turn(at).map_or(0.0, |at| from[at])).collect());
        let offsets = match &offsets {
            Offsets::Even => Packed::Even,
            Offsets::Zeros(zeros) => Packed::Zeros((0..many).map(|at| turn(at).map_or(0, |at| zeros[at])).collect()),
            Offsets::Least(least) => Packed::Least(turned(least)),
        };
        Ok(Quantized {
            rows,
            cols,
            width,
            group,
            codes: packed,
            scales: turned(&scales),
            offsets,
            nnz: rows * cols,
            activations: ActivationBits::Full,
        })
    }

    /// What it is made of, row by row.
    pub fn parts(&self) -> QuantizedParts {
        let Quantized { rows, cols, width, group, .. } = *self;
        let (side, blocks, bytes) = (side_by_side(), cols.div_ceil(CODE_BLOCK), row_bytes(width, cols));
        let size = side * width.bytes();
        let mut codes = vec![0; rows * bytes];
        let all = self.codes.bytes();
        let unpack_row = |(row, to): (usize, &mut [u8])| {
            let from = &all[row / side * blocks * size + 4 * (row % side)..];
            for column in 0..cols {
                let (byte, shift) = code_place(width, side, column % CODE_BLOCK);
                let code = from[column / CODE_BLOCK * size + byte] >> shift;
                match width {
                    Width::Four => to[column / 2] |= (code & 15) << (4 * (column % 2)),
                    Width::Eight => to[column] = code,
                }
            }
        };
        if cols > 0 {
            codes.par_chunks_exact_mut(bytes).enumerate().for_each(unpack_row);
        }
        let groups = self.groups();
        let place = move |at: usize| ((at / groups / side * groups) + at % groups) * side + at / groups % side;
        let turned = |values: &Values| (0..rows * groups).map(|at| wide(values, place(at))).collect();
        let offsets = match &self.offsets {
            Packed::Even => Offsets::Even,
            Packed::Zeros(zeros) => Offsets::Zeros((0..rows * groups).map(|at| zeros[place(at)]).collect()),
            Packed::Least(least) => Offsets::Least(turned(least)),
        };
        let bits = if width == Width::Four { 4 } else { 8 };
        QuantizedParts { rows, cols, bits, group, codes, scales: turned(&self.scales), offsets }
    }

    /// The same weight, multiplied with activations of so many bits.
    pub fn with_activation_bits(mut self, bits: ActivationBits) -> Self {
        self.activations = bits;
        self
    }

    /// The same weight, of which so many are said to be kept.
    pub(super) fn with_kept(self, nnz: usize) -> Self {
        Quantized { nnz, ..self }
    }

    /// Bits of activations in its products.
    pub fn activation_bits(&self) -> ActivationBits {
        self.activations
    }

    /// What its numbers are.
    pub fn precision(&self) -> Precision {
        match (self.width, matches!(self.offsets, Packed::Even)) {
            (Width::Four, true) => Precision::I4Grouped(self.group),
            (Width::Four, false) => Precision::U4Grouped(self.group),
            (Width::Eight, true) if self.group == self.cols => Precision::I8,
            (Width::Eight, true) => Precision::I8Grouped(self.group),
            (Width::Eight, false) => Precision::U8Grouped(self.group),
        }
    }

    fn groups(&self) -> usize {
        if self.cols == 0 { 0 } else { self.cols / self.group }
    }

    fn slices(&self) -> CodeSlices<'_> {
        let blocks = if self.group == self.cols { self.cols.div_ceil(CODE_BLOCK) } else { self.group / CODE_BLOCK };
        let offsets = match &self.offsets {
            Packed::Even => CodeOffsets::Even,
            Packed::Zeros(zeros) => CodeOffsets::Zeros(zeros),
            Packed::Least(least) => CodeOffsets::Least(shown(least)),
        };
        let Quantized { rows, cols, width, .. } = *self;
        CodeSlices { rows, cols, width, group: blocks.max(1), codes: self.codes.bytes(), scales: shown(&self.scales), offsets }
    }
}

/// Rows that are unpacked at once on the way back.
const SOME: usize = 256;

impl LinearOp for Quantized {
    fn format(&self) -> &str {
        match (self.width, matches!(self.offsets, Packed::Even)) {
            (Width::Four, true) => "i4",
            (Width::Four, false) => "u4",
            (Width::Eight, true) => "i8",
            (Width::Eight, false) => "u8",
        }
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        codes_product(&self.slices(), self.activations == ActivationBits::Eight, x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_transpose(self, dy, dx);
        dx.fill(0.0);
        for first in (0..self.rows).step_by(SOME) {
            let rows = first..(first + SOME).min(self.rows);
            let mut w = Array2::zeros((rows.len(), self.cols));
            unpack_rows(&self.slices(), rows.clone(), w.as_slice_mut().expect("a new array is in standard layout"));
            gemm(1.0, &dy.slice(s![.., rows]), &w, 1.0, dx, Threads::Pool);
        }
    }

    fn to_dense(&self) -> Array2<f32> {
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

    fn row_into(&self, row: usize, to: &mut [f32]) {
        check_row(self.shape(), row, to);
        unpack_rows(&self.slices(), row..row + 1, to);
    }

    fn entries(&self) -> Entries {
        Entries::of_all(self.shape(), |row, to| self.row_into(row, to))
    }

    fn nnz(&self) -> usize {
        self.nnz
    }

    fn bytes(&self) -> usize {
        let offsets = match &self.offsets {
            Packed::Even => 0,
            Packed::Zeros(zeros) => zeros.len(),
            Packed::Least(least) => size(least),
        };
        self.codes.bytes().len() + size(&self.scales) + offsets
    }
}
