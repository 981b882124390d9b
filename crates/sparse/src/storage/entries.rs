//! The kept weights of a storage, row by row: what one storage is turned into another by.

use super::csr::Csr;
use super::precision::Precision;
use crate::kernels::{Value, Values};
use crate::mask::Mask;
use half::{bf16, f16};
use ndarray::Array2;

/// The kept weights of a storage row by row, in the numbers that it keeps: [`LinearOp::entries`](super::LinearOp::entries). A kept weight that
/// is 0 is one of them, so there are `mask.kept()`.
///
/// # Invariants
/// - `offsets`, `indices` and values are those of a [`Csr`].
/// - If values have scales, there is one a row, or with a `group` one for each row's part of so many inputs; else none, and no group.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{Bitmask, Compress, LinearOp}};
/// use half::bf16;
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let entries = Bitmask::<bf16>::compress(&w, &Mask::from_fn(2, 3, |r, c| r != c))?.entries();
/// assert_eq!((entries.offsets(), entries.indices()), (&[0, 2, 4][..], &[1, 2, 0, 2][..]));
/// assert_eq!(entries.precision().to_string(), "bf16");
/// # Ok::<(), lacuna_sparse::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Entries {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) offsets: Vec<u32>,
    pub(super) indices: Vec<u32>,
    pub(super) values: Values,
    pub(super) group: Option<usize>,
    /// `(rows, groups)`.
    pub(super) scales: Vec<f32>,
}

impl Entries {
    /// `(out, in)`.
    pub fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// First entry of each row, and one past the last.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The input of each entry; within a row they increase.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The numbers as the storage keeps them, without scales.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// What the numbers are, and which of them share a scale.
    pub fn precision(&self) -> Precision {
        match (&self.values, self.group) {
            (Values::F32(_), _) => Precision::F32,
            (Values::Bf16(_), _) => Precision::Bf16,
            (Values::F16(_), _) => Precision::F16,
            (Values::I8(_), None) => Precision::I8,
            (Values::I8(_), Some(inputs)) => Precision::I8Grouped(inputs),
        }
    }

    /// Which weights are stored.
    pub fn mask(&self) -> Mask {
        let mut mask = Mask::empty(self.rows, self.cols);
        let stride = self.cols.div_ceil(64);
        let words = mask.words_mut();
        for (r, of) in self.offsets.windows(2).enumerate() {
            for &c in &self.indices[of[0] as usize..of[1] as usize] {
                words[r * stride + c as usize / 64] |= 1 << (c % 64);
            }
        }
        mask
    }

    /// The numbers in f32, which holds them all as they are, times their scales.
    fn wide(values: Values, scale: impl Fn(usize) -> f32) -> Vec<f32> {
        match values {
            Values::F32(v) => v,
            Values::Bf16(v) => v.into_iter().map(bf16::decode).collect(),
            Values::F16(v) => v.into_iter().map(f16::decode).collect(),
            Values::I8(v) => v.into_iter().enumerate().map(|(i, v)| scale(i) * v.decode()).collect(),
        }
    }

    /// The factor of each entry.
    fn factors(&self) -> Vec<f32> {
        if self.scales.is_empty() {
            return Vec::new();
        }
        let groups = groups(self.cols, self.group);
        let of_row = |(r, of): (usize, &[u32])| {
            let place = move |&c: &u32| r * groups + self.group.map_or(0, |inputs| c as usize / inputs);
            self.indices[of[0] as usize..of[1] as usize].iter().map(move |c| self.scales[place(c)])
        };
        self.offsets.windows(2).enumerate().flat_map(of_row).collect()
    }

    /// The same weights in f32 as compressed rows, to the bit as [`LinearOp::to_dense`](super::LinearOp::to_dense) has them.
    pub fn into_csr(self) -> Csr {
        let factors = self.factors();
        let values = Entries::wide(self.values, |i| factors[i]);
        Csr { rows: self.rows, cols: self.cols, offsets: self.offsets, indices: self.indices, values }
    }

    /// The weights of compressed rows.
    pub(super) fn of_csr(csr: Csr) -> Entries {
        let Csr { rows, cols, offsets, indices, values } = csr;
        Entries { rows, cols, offsets, indices, values: Values::F32(values), group: None, scales: Vec::new() }
    }

    /// Every weight of a dense storage, whose rows `row` writes.
    ///
    /// # Panics
    /// If there are 2³² weights or more.
    pub(super) fn of_all((rows, cols): (usize, usize), row: impl Fn(usize, &mut [f32])) -> Entries {
        let mut values = vec![0.0f32; rows * cols];
        values.chunks_exact_mut(cols.max(1)).enumerate().for_each(|(r, to)| row(r, to));
        Entries::whole((rows, cols), Values::F32(values))
    }

    /// Every weight of a dense storage, row by row.
    ///
    /// # Panics
    /// If there are 2³² weights or more.
    pub(super) fn whole((rows, cols): (usize, usize), values: Values) -> Entries {
        let fits = rows.checked_mul(cols).is_some_and(|n| u32::try_from(n).is_ok());
        assert!(fits, "{rows} x {cols} weights, which are all kept, do not fit 32-bit indices");
        let offsets = (0..=rows).map(|r| (r * cols) as u32).collect();
        let indices = (0..rows).flat_map(|_| 0..cols as u32).collect();
        Entries { rows, cols, offsets, indices, values, group: None, scales: Vec::new() }
    }
}

/// Groups of a row that share a scale.
fn groups(cols: usize, group: Option<usize>) -> usize {
    group.map_or(1, |inputs| cols.div_ceil(inputs))
}

/// A stored number times its scale.
pub(super) fn number<T: Value>(value: T, scale: f32) -> f32 {
    if T::SCALED { scale * value.decode() } else { value.decode() }
}

/// A storage that can walk its weights.
pub(super) trait Weights {
    /// What it keeps.
    type Number: Value;

    /// `(out, in)`.
    fn dim(&self) -> (usize, usize);

    /// Inputs of a row that share a scale, if not all do.
    fn group(&self) -> Option<usize> {
        None
    }

    /// Calls `f(row, column, value, scale)` for each weight, in whatever order they are stored.
    fn for_each(&self, f: impl FnMut(usize, usize, Self::Number, f32));

    /// Calls `f(column, value, scale)` for each weight of a row that there is, in whatever order they are stored.
    fn for_each_of(&self, row: usize, f: impl FnMut(usize, Self::Number, f32));

    /// One row with zeros where nothing is stored.
    fn row(&self, row: usize, to: &mut [f32]) {
        check_row(self.dim(), row, to);
        to.fill(0.0);
        self.for_each_of(row, |c, value, scale| to[c] = number(value, scale));
    }

    /// The weight with zeros where nothing is stored.
    fn dense(&self) -> Array2<f32> {
        let mut dense = Array2::zeros(self.dim());
        self.for_each(|r, c, value, scale| dense[[r, c]] = number(value, scale));
        dense
    }

    /// The mask of what is stored.
    fn stored(&self) -> Mask {
        let (rows, cols) = self.dim();
        let mut mask = Mask::empty(rows, cols);
        self.for_each(|r, c, _, _| mask.set(r, c, true));
        mask
    }

    /// What is stored, row by row.
    ///
    /// # Panics
    /// If there are 2³² weights or more.
    fn entries(&self) -> Entries {
        let (rows, cols) = self.dim();
        let mut offsets = vec![0usize; rows + 1];
        self.for_each(|r, _, _, _| offsets[r + 1] += 1);
        (0..rows).for_each(|r| offsets[r + 1] += offsets[r]);
        let kept = offsets[rows];
        assert!(u32::try_from(kept).is_ok(), "{kept} weights do not fit 32-bit indices");
        let offsets: Vec<u32> = offsets.into_iter().map(|at| at as u32).collect();
        let (mut indices, mut values) = (vec![0u32; kept], vec![Self::Number::default(); kept]);
        let (mut next, scaled) = (offsets.clone(), Self::Number::SCALED);
        let (group, across) = (self.group(), groups(cols, self.group()));
        let mut scales = vec![1.0; if scaled { rows * across } else { 0 }];
        self.for_each(|r, c, value, scale| {
            let at = next[r] as usize;
            (indices[at], values[at], next[r]) = (c as u32, value, next[r] + 1);
            if scaled {
                scales[r * across + group.map_or(0, |inputs| c / inputs)] = scale;
            }
        });
        let mut pairs = Vec::new();
        for of in offsets.windows(2) {
            let of = of[0] as usize..of[1] as usize;
            if !indices[of.clone()].is_sorted() {
                pairs.clear();
                pairs.extend(indices[of.clone()].iter().copied().zip(values[of.clone()].iter().copied()));
                pairs.sort_unstable_by_key(|(c, _)| *c);
                of.zip(&pairs).for_each(|(at, pair)| (indices[at], values[at]) = *pair);
            }
        }
        let entries = Entries { rows, cols, offsets, indices, values: Self::Number::list(values), group, scales };
        if scaled { entries.with_scales_of_rows() } else { Entries { group: None, ..entries } }
    }
}

impl Entries {
    /// Those of them that a mask of the same shape keeps.
    pub(super) fn only(self, mask: &Mask) -> Entries {
        let mut kept = Vec::with_capacity(self.indices.len());
        let (mut offsets, mut left) = (vec![0u32], 0);
        for (r, of) in self.offsets.windows(2).enumerate() {
            for &c in &self.indices[of[0] as usize..of[1] as usize] {
                kept.push(mask.get(r, c as usize));
                left += u32::from(mask.get(r, c as usize));
            }
            offsets.push(left);
        }
        fn of<T>(numbers: Vec<T>, kept: &[bool]) -> Vec<T> {
            numbers.into_iter().zip(kept).filter_map(|(number, &kept)| kept.then_some(number)).collect()
        }
        let values = match self.values {
            Values::F32(v) => Values::F32(of(v, &kept)),
            Values::Bf16(v) => Values::Bf16(of(v, &kept)),
            Values::F16(v) => Values::F16(of(v, &kept)),
            Values::I8(v) => Values::I8(of(v, &kept)),
        };
        Entries { offsets, indices: of(self.indices, &kept), values, ..self }
    }

    /// The same with a scale a row, if no row has two: tiles may repeat those of their rows.
    fn with_scales_of_rows(mut self) -> Entries {
        let factors = self.factors();
        let mut of_rows = vec![1.0; self.rows];
        for (scale, of) in of_rows.iter_mut().zip(self.offsets.windows(2)) {
            let of = &factors[of[0] as usize..of[1] as usize];
            *scale = of.first().copied().unwrap_or(1.0);
            if of.iter().any(|s| s != scale) {
                return self;
            }
        }
        (self.group, self.scales) = (None, of_rows);
        self
    }
}

/// Panics if a weight has no such row, or `to` has not room for it alone.
pub(super) fn check_row((out, inputs): (usize, usize), row: usize, to: &[f32]) {
    assert!(row < out && to.len() == inputs, "row {row} of {out} x {inputs} into {} numbers", to.len());
}
