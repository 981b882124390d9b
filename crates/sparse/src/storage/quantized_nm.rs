//! N of every M consecutive inputs in four or eight bits.

use super::codes::{ActivationBits, Coded, Offsets, check_factors, code_at, put_code, row_bytes, width_of};
use super::csr::Csr;
use super::entries::{Entries, check_row};
use super::precision::Precision;
use crate::kernels::{CODE_BLOCK, CodePattern, Epilogue, all_finite, code_column, code_place_of_step, side_by_side};
use crate::mask::{Mask, Pattern};
use crate::storage::LinearOp;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use std::fmt;

/// What a [`QuantizedNm`] is made of, row by row.
///
/// # Invariants
/// - `n:m` is 1:2, 2:4 or 4:8, or 1:4, 2:8 or 4:16, and `m` divides `cols`. `words` are those of a [`Mask`] with exactly `n` of every `m`: 64 columns each,
///   `(out, ceil(in / 64))`.
/// - `bits` is 4 or 8; `group` is a multiple of 32 that divides `cols`, or `cols`.
/// - `codes` are those of the kept weights, row by row, as in [`QuantizedParts`](super::QuantizedParts).
/// - Scales and offsets are as there.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedNmParts {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// How many of a group of `m` stay.
    pub n: usize,
    /// Inputs of which `n` stay.
    pub m: usize,
    /// Bits of a code.
    pub bits: u8,
    /// Inputs of a row that share a scale, dropped ones among them.
    pub group: usize,
    /// A bit a weight, the lowest column first.
    pub words: Vec<u64>,
    /// Codes of what is kept, row by row.
    pub codes: Vec<u8>,
    /// Scales, `(out, groups)`.
    pub scales: Vec<f32>,
    /// Zero points or offsets.
    pub offsets: Offsets,
}

/// A weight `(out, in)` that keeps exactly N of every M inputs, in codes of four or eight bits with a scale for each group of inputs: 2:4 and 4:8 in four bits take
/// 3 bits a weight of the whole, 4:16 takes 2, beside the scales.
///
/// With few tokens, products are of integers, as those of [`Quantized`](super::Quantized): rows lie side by side, each with four codes a step, and
/// the places of the codes pick bytes of x out of a window that all rows share. An infinity or a NaN in x at an input that a row drops does not reach it.
///
/// ```
/// use lacuna_sparse::mask::Mask;
/// use lacuna_sparse::storage::{LinearOp, Precision, QuantizedNm, apply};
/// use ndarray::array;
/// let (w, mask) = (array![[0.5, 0., -0.25, 0.], [0., 1., 0., 0.5]], Mask::from_fn(2, 4, |r, c| c % 2 == r));
/// let op = QuantizedNm::round_to_nearest(&w, &mask, (2, 4), Precision::I8)?;
/// assert_eq!((op.nnz(), op.mask()), (4, mask));
/// assert!((apply(&op, &array![[1., 2., 4., 8.]])[[0, 0]] + 0.5).abs() < 0.01);
/// # Ok::<(), lacuna_sparse::Error>(())
/// ```
#[derive(Clone)]
pub struct QuantizedNm {
    coded: Coded,
    pattern: (usize, usize),
    activations: ActivationBits,
}

impl PartialEq for QuantizedNm {
    fn eq(&self, other: &Self) -> bool {
        self.activations == other.activations && self.parts() == other.parts()
    }
}

impl fmt::Debug for QuantizedNm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((rows, cols), (n, m)) = (self.shape(), self.pattern);
        write!(f, "QuantizedNm({rows} x {cols}, {n}:{m}, {}, activations in {} bits)", self.precision(), self.activations)
    }
}

const FORMAT: &str = "quantized-nm";

/// The pattern of kernels, if there is one.
pub(super) fn pattern_of((n, m): (usize, usize), cols: usize) -> Result<CodePattern> {
    let refuse = |reason: String| Error::invalid_option(FORMAT, reason);
    let pattern =
        CodePattern::of(n, m).ok_or_else(|| refuse(format!("{n}:{m}, where 1:2, 2:4, 4:8, 1:4, 2:8 and 4:16 are possible")))?;
    if cols % m != 0 {
        return Err(refuse(format!("{n}:{m} of rows of {cols}")));
    }
    Ok(pattern)
}

impl QuantizedNm {
    /// The weight of its parts, checked.
    ///
    /// # Errors
    /// If an invariant of [`QuantizedNmParts`] does not hold; of a mask with the place.
    pub fn new(parts: QuantizedNmParts) -> Result<Self> {
        let QuantizedNmParts { rows, cols, n, m, bits, group, words, codes, scales, offsets } = parts;
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, reason));
        let (width, pattern) = (width_of(FORMAT, bits)?, pattern_of((n, m), cols)?);
        check_factors(FORMAT, (rows, cols), (width, group), &scales, &offsets)?;
        let (kept, stride) = (cols / m * n, cols.div_ceil(64));
        let bytes = row_bytes(width, kept);
        if rows.checked_mul(stride) != Some(words.len()) {
            return refuse(format!("{} words for {rows} rows of {cols} bits", words.len()));
        }
        if rows.checked_mul(bytes) != Some(codes.len()) {
            return refuse(format!("{} bytes of codes for {rows} rows of {kept} of {bits} bits", codes.len()));
        }
        if cols % 64 != 0 && words.chunks(stride.max(1)).any(|row| row[stride - 1] >> (cols % 64) != 0) {
            return refuse(format!("a bit stands beyond the last of {cols} columns"));
        }
        let bit = |row: usize, column: usize| words[row * stride + column / 64] >> (column % 64) & 1 == 1;
        let of_pattern = (Pattern::Nm { n, m }).check(&Mask::from_fn(rows, cols, bit));
        of_pattern.map_err(|e| Error::invalid_option(FORMAT, e.to_string()))?;
        let (side, span, steps) = (side_by_side(), pattern.columns(), pattern.steps());
        let write = |row: usize, to: &mut [u8], size: usize| {
            let from = &codes[row * bytes..(row + 1) * bytes];
            let mut next = 0;
            for step in 0..cols.div_ceil(CODE_BLOCK) * steps {
                let first = step * span;
                // Beyond the last column, where x is 0, the first of each group.
                let columns = (first..first + span).filter(|&c| if c < cols { bit(row, c) } else { c % m < n });
                for (at, column) in columns.enumerate() {
                    let [(code, shift), (place, by)] = code_place_of_step(width, pattern, side, step % steps, at);
                    let to = &mut to[step / steps * size..];
                    if column < cols {
                        to[code] |= code_at(width, from, next) << shift;
                        next += 1;
                    }
                    to[place] |= match pattern {
                        CodePattern::Eight => 1 << (column - first),
                        CodePattern::Near(firsts) => ((column - first) as u8 - firsts.to_le_bytes()[at]) << by,
                        CodePattern::Sixteen | CodePattern::Whole => ((column - first) as u8) << by,
                    };
                }
            }
        };
        let coded = Coded::new((rows, cols), (width, pattern, group), (&scales, &offsets), write);
        Ok(QuantizedNm { coded, pattern: (n, m), activations: ActivationBits::Full })
    }

    /// What it is made of, row by row.
    pub fn parts(&self) -> QuantizedNmParts {
        let (Coded { rows, cols, width, pattern, group, .. }, (n, m)) = (&self.coded, self.pattern);
        let (rows, cols, width, pattern, group) = (*rows, *cols, *width, *pattern, *group);
        let (kept, stride, side, steps) = (cols / m * n, cols.div_ceil(64), side_by_side(), pattern.steps());
        let bytes = row_bytes(width, kept);
        let (mut words, mut codes) = (vec![0u64; rows * stride], vec![0; rows * bytes]);
        self.coded.each_row(|row, from, size| {
            let (words, codes) = (&mut words[row * stride..(row + 1) * stride], &mut codes[row * bytes..(row + 1) * bytes]);
            let mut next = 0;
            for step in 0..cols.div_ceil(CODE_BLOCK) * steps {
                let from = &from[step / steps * size..];
                for at in 0..4 {
                    let [(code, shift), (place, by)] = code_place_of_step(width, pattern, side, step % steps, at);
                    let column = step * pattern.columns() + code_column(pattern, from[place] >> by, at);
                    if column < cols {
                        words[column / 64] |= 1 << (column % 64);
                        put_code(width, codes, next, from[code] >> shift);
                        next += 1;
                    }
                }
            }
        });
        let (scales, offsets) = self.coded.factors();
        QuantizedNmParts { rows, cols, n, m, bits: self.coded.bits(), group, words, codes, scales, offsets }
    }

    /// The same weight, multiplied with activations of so many bits.
    pub fn with_activation_bits(mut self, bits: ActivationBits) -> Self {
        self.activations = bits;
        self
    }

    /// N and M.
    pub fn pattern(&self) -> (usize, usize) {
        self.pattern
    }

    /// What its numbers are.
    pub fn precision(&self) -> Precision {
        self.coded.precision()
    }

    /// The name of its numbers: `i4`, `u4`, `i8`, `u8`.
    pub(super) fn numbers(&self) -> &'static str {
        self.coded.name()
    }
}

impl LinearOp for QuantizedNm {
    fn format(&self) -> &str {
        "nm"
    }

    fn shape(&self) -> (usize, usize) {
        (self.coded.rows, self.coded.cols)
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        // What is unpacked meets x at dropped weights too.
        let finite = x.as_slice().map_or_else(|| x.iter().all(|x| x.is_finite()), all_finite);
        match finite {
            true => self.coded.apply_with(self.activations, x, y, epilogue),
            false => self.to_csr().apply_with(x, y, epilogue),
        }
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_transpose(self, dy, dx);
        match dy.iter().all(|dy| dy.is_finite()) {
            true => self.coded.apply_transpose_into(dy, dx),
            false => self.to_csr().apply_transpose_into(dy, dx),
        }
    }

    fn to_dense(&self) -> Array2<f32> {
        self.coded.to_dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        check_row(self.shape(), row, to);
        self.coded.row_into(row, to);
    }

    fn entries(&self) -> Entries {
        let QuantizedNmParts { rows, cols, n, m, words, .. } = self.parts();
        let (kept, stride) = (cols / m * n, cols.div_ceil(64));
        let offsets = (0..=rows).map(|r| u32::try_from(r * kept).expect("fewer than 2^32 weights are kept")).collect();
        let (mut indices, mut values, mut row) =
            (Vec::with_capacity(rows * kept), Vec::with_capacity(rows * kept), vec![0.0; cols]);
        for r in 0..rows {
            self.row_into(r, &mut row);
            for c in (0..cols).filter(|c| words[r * stride + c / 64] >> (c % 64) & 1 == 1) {
                indices.push(c as u32);
                values.push(row[c]);
            }
        }
        Entries::of_csr(Csr { rows, cols, offsets, indices, values })
    }

    fn nnz(&self) -> usize {
        let (n, m) = self.pattern;
        self.coded.rows * (self.coded.cols / m * n)
    }

    fn bytes(&self) -> usize {
        self.coded.bytes()
    }
}
