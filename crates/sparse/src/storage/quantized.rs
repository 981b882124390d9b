//! A whole weight in four or eight bits.

use super::codes::{ActivationBits, Coded, Offsets, check_factors, code_at, put_code, row_bytes, width_of};
use super::entries::{Entries, check_row};
use super::precision::Precision;
use crate::kernels::{CODE_BLOCK, CodePattern, Epilogue, code_place, side_by_side};
use crate::storage::LinearOp;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use std::fmt;

/// What a [`Quantized`] weight is made of, row by row.
///
/// # Invariants
/// - `bits` is 4 or 8; `group` is a multiple of 32 that divides `cols`, or `cols`.
/// - `codes` are `(out, in)`: a byte each, or in four bits half a byte, the lower one of each first, in whole bytes a row. In four bits they are 0 to 15, in eight
///   −128 to 127, as two's complement.
/// - There is a scale for each group of each row, `(out, in / group)`, which is finite and not 0; and with [`Offsets::ZeroPoints`] or [`Offsets::Minimums`] as many of those:
///   a zero is a code, and what is added is finite.
/// - With [`Offsets::Minimums`], scales have so few bits that their products with codes are exact (17 of 24): all of GGUF have.
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
///     rows: 1, cols: 2, bits: 4, group: 2, codes: vec![10 | 5 << 4], scales: vec![0.5], offsets: Offsets::Symmetric,
/// };
/// let w = Quantized::new(parts)?;
/// assert_eq!(w.to_dense(), array![[1., -1.5]]);
/// assert_eq!(apply(&w, &array![[127., 0.]]), array![[127.]]);
/// # Ok::<(), lacuna_sparse::Error>(())
/// ```
#[derive(Clone)]
pub struct Quantized {
    coded: Coded,
    nnz: usize,
    activations: ActivationBits,
}

impl PartialEq for Quantized {
    fn eq(&self, other: &Self) -> bool {
        (self.nnz, self.activations) == (other.nnz, other.activations) && self.parts() == other.parts()
    }
}

impl fmt::Debug for Quantized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, cols) = self.shape();
        write!(f, "Quantized({rows} x {cols}, {}, activations in {} bits)", self.precision(), self.activations)
    }
}

const FORMAT: &str = "quantized";

impl Quantized {
    /// The weight of its parts, checked.
    ///
    /// # Errors
    /// If an invariant of [`QuantizedParts`] does not hold.
    pub fn new(parts: QuantizedParts) -> Result<Self> {
        let QuantizedParts { rows, cols, bits, group, codes, scales, offsets } = parts;
        let width = width_of(FORMAT, bits)?;
        check_factors(FORMAT, (rows, cols), (width, group), &scales, &offsets)?;
        let bytes = row_bytes(width, cols);
        if rows.checked_mul(bytes) != Some(codes.len()) {
            return Err(Error::invalid_option(
                FORMAT,
                format!("{} bytes of codes for {rows} x {cols} of {bits} bits", codes.len()),
            ));
        }
        let side = side_by_side();
        let write = |row: usize, to: &mut [u8], size: usize| {
            let from = &codes[row * bytes..(row + 1) * bytes];
            for column in 0..cols {
                let (byte, shift) = code_place(width, side, column % CODE_BLOCK);
                to[column / CODE_BLOCK * size + byte] |= code_at(width, from, column) << shift;
            }
        };
        let coded = Coded::new((rows, cols), (width, CodePattern::Whole, group), (&scales, &offsets), write);
        Ok(Quantized { coded, nnz: rows * cols, activations: ActivationBits::Full })
    }

    /// What it is made of, row by row.
    pub fn parts(&self) -> QuantizedParts {
        let Coded { rows, cols, width, group, .. } = self.coded;
        let (side, bytes) = (side_by_side(), row_bytes(width, cols));
        let mut codes = vec![0; rows * bytes];
        self.coded.each_row(|row, from, size| {
            let to = &mut codes[row * bytes..(row + 1) * bytes];
            for column in 0..cols {
                let (byte, shift) = code_place(width, side, column % CODE_BLOCK);
                put_code(width, to, column, from[column / CODE_BLOCK * size + byte] >> shift);
            }
        });
        let (scales, offsets) = self.coded.factors();
        QuantizedParts { rows, cols, bits: self.coded.bits(), group, codes, scales, offsets }
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
        self.coded.precision()
    }
}

impl LinearOp for Quantized {
    fn format(&self) -> &str {
        self.coded.name()
    }

    fn shape(&self) -> (usize, usize) {
        (self.coded.rows, self.coded.cols)
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        self.coded.apply_with(self.activations, x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_transpose(self, dy, dx);
        self.coded.apply_transpose_into(dy, dx);
    }

    fn to_dense(&self) -> Array2<f32> {
        self.coded.to_dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        check_row(self.shape(), row, to);
        self.coded.row_into(row, to);
    }

    fn entries(&self) -> Entries {
        Entries::of_all(self.shape(), |row, to| self.row_into(row, to))
    }

    fn nnz(&self) -> usize {
        self.nnz
    }

    fn bytes(&self) -> usize {
        self.coded.bytes()
    }
}
