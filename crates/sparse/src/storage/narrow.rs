//! The weight whole, in 4, 8 or 16 bits.

use crate::kernels::{Epilogue, Float, GROUP, Grouped, HalfBytes, Numbers, Threads, Value, Values, gemm, linear};
use crate::storage::{Entries, LinearOp, Precision};
use half::{bf16, f16};
use ndarray::{Array2, ArrayRef2, ArrayView2, s};
use rayon::prelude::*;

/// Numbers of few bits that stand for `f32` exactly.
pub(crate) trait Code: Sized + Send + Sync + std::fmt::Debug {
    /// Their kind, for tables.
    const NAME: &'static str;

    /// The codes of a row-major weight of so many columns, if every number of it has one, to the bit.
    fn exactly(numbers: &[f32], cols: usize) -> Option<Self>;

    /// As kernels read them.
    fn numbers(&self) -> impl Numbers;

    /// The numbers as storages keep them, if these have no scales of other groups or offsets.
    fn values(&self) -> Option<Values> {
        None
    }

    /// Bytes of all.
    fn bytes(&self) -> usize;
}

impl<T: Float> Code for Vec<T> {
    const NAME: &'static str = T::NAME;

    fn exactly(numbers: &[f32], _: usize) -> Option<Self> {
        let part = |part: &[f32]| -> Option<Vec<T>> {
            let narrow = |&w: &f32| Some(T::encode(w)).filter(|t| t.decode().to_bits() == w.to_bits());
            part.iter().map(narrow).collect()
        };
        let parts: Vec<Vec<T>> = numbers.par_chunks(1 << 16).map(part).collect::<Option<_>>()?;
        Some(parts.concat())
    }

    fn numbers(&self) -> impl Numbers {
        &self[..]
    }

    fn values(&self) -> Option<Values> {
        Some(T::list(self.clone()))
    }

    fn bytes(&self) -> usize {
        size_of_val(self.as_slice())
    }
}

/// What `code` makes of each [`GROUP`] along the rows of a weight of so many columns; none if rows are no whole groups, or one has no code.
fn groups<G: Send>(numbers: &[f32], cols: usize, code: impl Fn(&[f32]) -> Option<G> + Send + Sync) -> Option<Vec<G>> {
    let whole = cols % GROUP == 0;
    whole.then(|| numbers.par_chunks(GROUP).with_min_len(1 << 10).map(code).collect()).flatten()
}

/// Bytes with a scale for each group of [`GROUP`] along a row, as quantised checkpoints (Q8_0) have them: the scale is the largest number
/// of the group divided by 127.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bytes {
    values: Vec<i8>,
    scales: Vec<f32>,
}

impl Code for Bytes {
    const NAME: &'static str = i8::NAME;

    fn exactly(numbers: &[f32], cols: usize) -> Option<Self> {
        let group = |group: &[f32]| -> Option<(f32, [i8; GROUP])> {
            let scale = group.iter().fold(0.0f32, |most, w| most.max(w.abs())) / 127.0;
            let mut values = [0; GROUP];
            for (value, w) in values.iter_mut().zip(group) {
                *value = if scale > 0.0 { i8::encode(w / scale) } else { 0 };
                if (f32::from(*value) * scale).to_bits() != w.to_bits() {
                    return None;
                }
            }
            Some((scale, values))
        };
        let groups = groups(numbers, cols, group)?;
        let scales = groups.iter().map(|g| g.0).collect();
        Some(Bytes { values: groups.iter().flat_map(|g| g.1).collect(), scales })
    }

    fn numbers(&self) -> impl Numbers {
        Grouped::new(&self.values, &self.scales)
    }

    fn bytes(&self) -> usize {
        self.values.len() + size_of_val(self.scales.as_slice())
    }
}

/// Half bytes with a scale and an offset for each [`GROUP`] along a row, as quantised checkpoints (Q4_1, Q4_0) have them: `scale · q + offset`,
/// of which the scale is a number of 16 bits and the offset the smallest number of the group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Nibbles {
    values: Vec<u8>,
    /// Scale and offset of each group.
    lines: Vec<[f32; 2]>,
}

impl Nibbles {
    /// Scale, offset and half bytes of a group, if there are any.
    fn group(group: &[f32]) -> Option<([f32; 2], [u8; GROUP / 2])> {
        let (least, most) = group.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, m), &w| (l.min(w), m.max(w)));
        // The largest number is 15 scales above the smallest, or fewer where the checkpoint's grid ends beyond it.
        (1..=15).rev().find_map(|steps| {
            let scale = f16::from_f64((f64::from(most) - f64::from(least)) / f64::from(steps)).to_f32();
            let mut values = [0; GROUP / 2];
            for (i, w) in group.iter().enumerate() {
                let q = if scale > 0.0 { ((w - least) / scale).round().clamp(0.0, 15.0) } else { 0.0 };
                if (scale * q + least).to_bits() != w.to_bits() {
                    return None;
                }
                values[i / 2] |= (q as u8) << (4 * (i % 2));
            }
            Some(([scale, least], values))
        })
    }
}

impl Code for Nibbles {
    const NAME: &'static str = "u4";

    fn exactly(numbers: &[f32], cols: usize) -> Option<Self> {
        let groups = groups(numbers, cols, Nibbles::group)?;
        let lines = groups.iter().map(|g| g.0).collect();
        Some(Nibbles { values: groups.iter().flat_map(|g| g.1).collect(), lines })
    }

    fn numbers(&self) -> impl Numbers {
        HalfBytes::new(&self.values, &self.lines)
    }

    fn bytes(&self) -> usize {
        self.values.len() + size_of_val(self.lines.as_slice())
    }
}

/// A whole weight `(out, in)` in numbers of 4, 8 or 16 bits, multiplied in `f32`: fewer bytes than [`Dense`](super::Dense), and with few tokens
/// as much less time where the weight comes from memory. Holds only what these numbers hold exactly, so that products are those of the
/// `f32` weight.
///
/// Invariants: `out · in` numbers, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Narrowed<C> {
    code: C,
    shape: (usize, usize),
}

/// What `as_standard_layout` gives.
const STANDARD: &str = "an array in standard layout is a slice";

/// Rows that are widened at once: their numbers stay in the second cache.
const WIDE: usize = 1 << 18;
/// Numbers that a task widens, whole groups.
const TASK: usize = 1 << 14;

impl<C: Code> Narrowed<C> {
    /// The weight, if there is a code for every number of it.
    pub fn exactly(weight: &ArrayRef2<f32>) -> Option<Self> {
        let weight = weight.as_standard_layout();
        let numbers = weight.as_slice().expect(STANDARD);
        Some(Narrowed { code: C::exactly(numbers, weight.ncols())?, shape: weight.dim() })
    }

    /// Calls `f` with the first row and the numbers of one run of rows after another.
    fn widened(&self, mut f: impl FnMut(usize, ArrayView2<'_, f32>)) {
        let (rows, cols) = self.shape;
        let height = (WIDE / cols.max(1)).max(16).min(rows.max(1));
        let mut wide = vec![0.0f32; height * cols];
        let numbers = self.code.numbers();
        for first in (0..rows).step_by(height) {
            let count = height.min(rows - first);
            let wide = &mut wide[..count * cols];
            wide.par_chunks_mut(TASK).enumerate().for_each(|(i, to)| {
                let from = first * cols + i * TASK;
                numbers.part(from..from + to.len()).widen(to);
            });
            if let Ok(wide) = ArrayView2::from_shape((count, cols), wide) {
                f(first, wide);
            }
        }
    }
}

/// The weight in 4, 8 or 16 bits, if a kind of them holds it exactly.
pub fn narrow(weight: &ArrayRef2<f32>) -> Option<Box<dyn LinearOp>> {
    fn by<C: Code + 'static>(weight: &ArrayRef2<f32>) -> Option<Box<dyn LinearOp>> {
        Narrowed::<C>::exactly(weight).map(|h| Box::new(h) as Box<dyn LinearOp>)
    }
    by::<Nibbles>(weight).or_else(|| by::<Bytes>(weight)).or_else(|| by::<Vec<bf16>>(weight)).or_else(|| by::<Vec<f16>>(weight))
}

/// The fewest bits that hold every number of the weight exactly.
pub fn exact(weight: &ArrayRef2<f32>) -> Precision {
    let numbers = weight.as_standard_layout();
    let numbers = numbers.as_slice().expect(STANDARD);
    fn all<T: Float>(numbers: &[f32]) -> bool {
        numbers.par_chunks(1 << 16).all(|part| part.iter().all(|w| T::encode(*w).decode().to_bits() == w.to_bits()))
    }
    match () {
        () if all::<bf16>(numbers) => Precision::Bf16,
        () if all::<f16>(numbers) => Precision::F16,
        () => Precision::F32,
    }
}

impl<C: Code> LinearOp for Narrowed<C> {
    fn format(&self) -> &str {
        C::NAME
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        super::op::check_shapes(self, x, y, epilogue);
        linear(self.code.numbers(), x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        super::op::check_transpose(self, dy, dx);
        dx.fill(0.0);
        self.widened(|first, w| gemm(1.0, &dy.slice(s![.., first..first + w.nrows()]), &w, 1.0, dx, Threads::Pool));
    }

    fn to_dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros(self.shape);
        self.widened(|first, w| dense.slice_mut(s![first..first + w.nrows(), ..]).assign(&w));
        dense
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        super::entries::check_row(self.shape, row, to);
        self.code.numbers().part(row * to.len()..(row + 1) * to.len()).widen(to);
    }

    fn entries(&self) -> Entries {
        match self.code.values() {
            Some(values) => Entries::whole(self.shape, values),
            None => Entries::of_all(self.shape, |row, to| self.row_into(row, to)),
        }
    }

    fn nnz(&self) -> usize {
        self.shape.0 * self.shape.1
    }

    fn bytes(&self) -> usize {
        self.code.bytes()
    }
}
