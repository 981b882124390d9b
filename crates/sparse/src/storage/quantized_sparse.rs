//! What a mask of no pattern keeps, in four or eight bits.

use super::code_layouts::{CodeLayout, Codes, Masked, QuantizedSparseParts, Rows, Windows, block_of};
use super::codes::{ActivationBits, PackedFactors, factor_of_run, name_of, place_in_runs, precision_of, put_code, row_bytes};
use super::csr::Csr;
use super::entries::{Entries, check_row};
use super::precision::Precision;
use crate::Result;
use crate::kernels::{
    CodeAt, CodeWidth, Epilogue, MaskedSlices, SparseCodeSlices, WindowSlices, all_finite, side_by_side, sparse_codes_product,
    step_size,
};
use crate::storage::LinearOp;
use ndarray::{Array2, ArrayRef2};
use std::fmt;

/// What a mask of no pattern keeps of a weight `(out, in)`, in codes of four or eight bits with a scale for each group of inputs.
///
/// With few tokens, products are of integers, as those of [`Quantized`](super::Quantized). A kept weight whose code stands for 0 is kept. An infinity or a NaN in x at
/// an input that a row drops does not reach it.
///
/// ```
/// use lacuna_sparse::mask::Mask;
/// use lacuna_sparse::storage::{LinearOp, Precision, QuantizedSparse, apply};
/// use ndarray::array;
/// let (w, mask) = (array![[0.5, 0., -0.25, 0.], [0., 1., 0., 0.]], Mask::from_fn(2, 4, |r, c| r == 0 && c != 1 || c == 1 && r == 1));
/// let op = QuantizedSparse::round_to_nearest(&w, &mask, Precision::I8)?;
/// assert_eq!((op.nnz(), op.mask()), (4, mask));
/// assert!((apply(&op, &array![[1., 2., 4., 8.]])[[0, 0]] + 0.5).abs() < 0.01);
/// # Ok::<(), lacuna_sparse::Error>(())
/// ```
#[derive(Clone)]
pub struct QuantizedSparse {
    rows: usize,
    cols: usize,
    width: CodeWidth,
    group: usize,
    nnz: usize,
    codes: Codes,
    factors: PackedFactors,
    activations: ActivationBits,
}

impl PartialEq for QuantizedSparse {
    fn eq(&self, other: &Self) -> bool {
        (self.layout(), self.activations) == (other.layout(), other.activations) && self.parts() == other.parts()
    }
}

impl fmt::Debug for QuantizedSparse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((rows, cols), kept, layout) = (self.shape(), self.nnz, self.layout());
        let bits = self.activations;
        write!(f, "QuantizedSparse({rows} x {cols}, {kept} kept, {}, {layout:?}, activations in {bits} bits)", self.precision())
    }
}

/// Weights of a thousand below which windows are taken.
const FEW: usize = 350;

impl QuantizedSparse {
    /// The weight of its parts, checked, in the layout that suits how many weights are kept.
    ///
    /// # Errors
    /// If an invariant of [`QuantizedSparseParts`] does not hold, or there are 2³² weights.
    pub fn new(parts: QuantizedSparseParts) -> Result<Self> {
        let kept: usize = parts.words.iter().map(|w| w.count_ones() as usize).sum();
        let few = kept * 1000 < parts.rows.saturating_mul(parts.cols).saturating_mul(FEW);
        QuantizedSparse::in_layout(parts, if few { CodeLayout::Windows } else { CodeLayout::Masked })
    }

    /// As [`QuantizedSparse::new`], in a layout.
    ///
    /// # Errors
    /// As there.
    pub fn in_layout(parts: QuantizedSparseParts, layout: CodeLayout) -> Result<Self> {
        let checked = Rows::of(&parts)?;
        let (rows, cols, width, group) = (parts.rows, parts.cols, checked.width, parts.group);
        let groups = if cols == 0 { 0 } else { cols / group };
        let (codes, factors) = match layout {
            CodeLayout::Windows => {
                let many = rows.next_multiple_of(side_by_side()) * groups;
                let factors = PackedFactors::new(&parts.scales, &parts.offsets, many, |at| factor_of_run(at, rows, groups));
                (Codes::Windows(Windows::of(&checked)), factors)
            }
            CodeLayout::Masked => {
                // As many more as a vector has lanes.
                let (many, there) = (rows * groups + side_by_side(), |at: usize| Some(at).filter(|at| *at < rows * groups));
                (Codes::Masked(Masked::of(&checked)), PackedFactors::new(&parts.scales, &parts.offsets, many, there))
            }
        };
        let nnz = parts.words.iter().map(|w| w.count_ones() as usize).sum();
        Ok(QuantizedSparse { rows, cols, width, group, nnz, codes, factors, activations: ActivationBits::Full })
    }

    /// What it is made of, row by row.
    pub fn parts(&self) -> QuantizedSparseParts {
        let (rows, cols, stride) = (self.rows, self.cols, self.cols.div_ceil(64));
        let (mut words, mut codes) = (vec![0u64; rows * stride], Vec::new());
        self.each_row(|row, kept| {
            let first = codes.len();
            codes.resize(first + row_bytes(self.width, kept.len()), 0);
            for (at, (CodeAt { column, code }, _)) in kept.iter().enumerate() {
                words[row * stride + column / 64] |= 1 << (column % 64);
                put_code(self.width, &mut codes[first..], at, *code);
            }
        });
        let groups = if cols == 0 { 0 } else { cols / self.group };
        let (scales, offsets) = match self.codes {
            Codes::Windows(_) => self.factors.lists(rows * groups, |at| place_in_runs(at, groups)),
            Codes::Masked(_) => self.factors.lists(rows * groups, |at| at),
        };
        let bits = if self.width == CodeWidth::Four { 4 } else { 8 };
        QuantizedSparseParts { rows, cols, bits, group: self.group, words, codes, scales, offsets }
    }

    /// The same weight in a layout.
    pub fn with_layout(self, layout: CodeLayout) -> Self {
        if self.layout() == layout {
            return self;
        }
        let turned = QuantizedSparse::in_layout(self.parts(), layout).expect("parts of a weight that was checked");
        turned.with_activation_bits(self.activations)
    }

    /// The layout.
    pub fn layout(&self) -> CodeLayout {
        match self.codes {
            Codes::Windows(_) => CodeLayout::Windows,
            Codes::Masked(_) => CodeLayout::Masked,
        }
    }

    /// The same weight, multiplied with activations of so many bits.
    pub fn with_activation_bits(mut self, bits: ActivationBits) -> Self {
        self.activations = bits;
        self
    }

    /// What its numbers are.
    pub fn precision(&self) -> Precision {
        precision_of(self.width, self.factors.is_even(), self.group, self.cols)
    }

    /// The name of its numbers: `i4`, `u4`, `i8`, `u8`.
    pub(super) fn numbers(&self) -> &'static str {
        name_of(self.width, self.factors.is_even())
    }

    fn slices(&self) -> SparseCodeSlices<'_> {
        let QuantizedSparse { rows, cols, width, group, .. } = *self;
        let (block, (scales, offsets)) = (block_of(group, cols), self.factors.slices());
        match &self.codes {
            Codes::Windows(w) => SparseCodeSlices::Windows(WindowSlices {
                rows,
                cols,
                width,
                block,
                group: group.div_ceil(block).max(1),
                base: w.base,
                begins: &w.begins,
                counts: &w.counts,
                starts: &w.starts,
                steps: &w.steps.bytes()[..w.starts.len() * step_size(width, side_by_side())],
                scales,
                offsets,
            }),
            Codes::Masked(m) => SparseCodeSlices::Masked(MaskedSlices {
                rows,
                cols,
                width,
                group: group.max(1),
                block,
                masks: &m.masks,
                begins: &m.begins,
                codes: &m.codes,
                scales,
                offsets,
            }),
        }
    }

    /// Calls `f` with some rows and what they keep, in the order of columns, with what codes stand for.
    fn rows_of_run(&self, run: usize, mut f: impl FnMut(usize, &[(CodeAt, f32)])) {
        let (side, slices) = (side_by_side(), self.slices());
        let mut kept = vec![Vec::new(); side.min(self.rows - run * side)];
        slices.each_code(run, 0..self.cols, |row, at, number| kept[row].push((at, number)));
        for (lane, mut kept) in kept.into_iter().enumerate() {
            let row = run * side + lane;
            if let Codes::Windows(w) = &self.codes {
                let zeros = &w.zeros[w.zero_begins[row] as usize..w.zero_begins[row + 1] as usize];
                kept.extend(zeros.iter().map(|&column| (self.zero_at(row, column as usize), 0.0)));
                kept.sort_by_key(|(at, _)| at.column);
            }
            f(row, &kept);
        }
    }

    /// The code that stands for 0, at a column of a row.
    fn zero_at(&self, row: usize, column: usize) -> CodeAt {
        let code = match self.factors.slices().1 {
            crate::kernels::CodeOffsets::ZeroPoints(zeros) => {
                let groups = self.cols / self.group;
                zeros[place_in_runs(row * groups + column / self.group, groups)].cast_unsigned()
            }
            _ => self.width.zero() as u8,
        };
        CodeAt { column, code }
    }

    fn each_row(&self, mut f: impl FnMut(usize, &[(CodeAt, f32)])) {
        (0..self.rows.div_ceil(side_by_side())).for_each(|run| self.rows_of_run(run, &mut f));
    }
}

impl LinearOp for QuantizedSparse {
    fn format(&self) -> &str {
        match self.codes {
            Codes::Windows(_) => "sell",
            Codes::Masked(_) => "bitmask",
        }
    }

    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        // What is unpacked meets x at dropped weights too.
        let finite = x.as_slice().map_or_else(|| x.iter().all(|x| x.is_finite()), all_finite);
        match finite {
            true => sparse_codes_product(&self.slices(), self.activations == ActivationBits::Eight, x, y, epilogue),
            false => self.to_csr().apply_with(x, y, epilogue),
        }
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_transpose(self, dy, dx);
        self.to_csr().apply_transpose_into(dy, dx);
    }

    fn to_dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros((self.rows, self.cols));
        self.each_row(|row, kept| kept.iter().for_each(|(at, number)| dense[[row, at.column]] = *number));
        dense
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        check_row(self.shape(), row, to);
        to.fill(0.0);
        self.rows_of_run(row / side_by_side(), |of, kept| {
            if of == row {
                kept.iter().for_each(|(at, number)| to[at.column] = *number);
            }
        });
    }

    fn entries(&self) -> Entries {
        let (rows, cols) = self.shape();
        let (mut offsets, mut indices, mut values) = (vec![0], Vec::with_capacity(self.nnz), Vec::with_capacity(self.nnz));
        self.each_row(|_, kept| {
            for (at, number) in kept {
                indices.push(at.column as u32);
                values.push(*number);
            }
            offsets.push(indices.len() as u32);
        });
        Entries::of_csr(Csr { rows, cols, offsets, indices, values })
    }

    fn nnz(&self) -> usize {
        self.nnz
    }

    fn bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::Windows(w) => {
                let words = 4 * (w.begins.len() + w.zero_begins.len() + w.zeros.len());
                words + 2 * w.counts.len() + w.starts.len() + w.steps.bytes().len()
            }
            Codes::Masked(m) => m.masks.len() + 4 * m.begins.len() + m.codes.len(),
        };
        codes + self.factors.bytes()
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::kernels::by_each_set;
    use crate::mask::Mask;

    #[test]
    fn all_sets_of_sixteen_lanes_give_the_same_bits() {
        let number = |i: usize| (i.wrapping_mul(2_654_435_761) % 1009) as f32 / 504.0 - 1.0;
        let w = Array2::from_shape_fn((40, 224), |(r, c)| number(r * 224 + c));
        let x = Array2::from_shape_fn((2, 224), |(t, c)| number(t * 224 + c + 77));
        for (mask, group) in
            [(3, 32), (7, 32), (2, 224)].map(|(every, group)| (Mask::from_fn(40, 224, |r, c| (r + c) % every == 0), group))
        {
            for values in [
                Precision::I4Grouped(group),
                Precision::U4Grouped(group),
                Precision::I8Grouped(group),
                Precision::U8Grouped(group),
            ] {
                let op = QuantizedSparse::round_to_nearest(&w, &mask, values).unwrap();
                for layout in [CodeLayout::Windows, CodeLayout::Masked] {
                    let op = op.clone().with_layout(layout);
                    for planes in [1, 3] {
                        for (i, sums) in by_each_set(&op.slices(), planes, &x).windows(2).enumerate() {
                            let bits = |sums: &[f32]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
                            assert_eq!(bits(&sums[0]), bits(&sums[1]), "{op:?}, {planes} planes, sets {i} and {}", i + 1);
                        }
                    }
                }
            }
        }
    }
}
