//! What storages are built from: the weights that a mask keeps, of a dense weight or row by row of another storage.

use super::csr::{Csr, CsrView};
use super::entries::Entries;
use super::scale::scale_of;
use crate::kernels::Value;
use crate::mask::Mask;
use crate::storage::{ActivationBits, LinearOp};
use crate::{Error, Result};
use ndarray::{ArrayRef2, CowArray, Ix2};
use std::ops::Range;

/// The weights that a mask keeps, to be stored as `T`.
pub(super) struct Kept<'a, T> {
    pub mask: &'a Mask,
    numbers: Numbers<'a, T>,
}

/// Where the numbers come from.
enum Numbers<'a, T> {
    /// A dense weight, of which `T` is the nearest.
    Dense(&'a ArrayRef2<f32>),
    /// Kept weights row by row, of which `T` is the nearest.
    Rows(CsrView<'a>),
    /// Kept weights row by row, stored as they are with the scales that they have.
    Same { entries: &'a Entries, values: &'a [T], groups: usize },
}

/// What a storage is built from, before its numbers have a type.
pub(super) struct Source<'a> {
    pub mask: &'a Mask,
    pub from: Origin<'a>,
    /// What storages of codes meet.
    pub activations: ActivationBits,
}

/// As [`Numbers`], of any type.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// A dense weight.
    Dense(&'a ArrayRef2<f32>),
    /// The rows of a storage, whose numbers are rounded.
    Rows(&'a Csr),
    /// Those of a storage, whose numbers are taken as they are.
    Same(&'a Entries),
}

impl Origin<'_> {
    /// All numbers, with zeros where nothing is kept.
    pub fn dense(&self) -> CowArray<'_, f32, Ix2> {
        match self {
            Origin::Dense(weight) => weight.view().into(),
            Origin::Rows(csr) => csr.to_dense().into(),
            Origin::Same(entries) => (*entries).clone().into_csr().to_dense().into(),
        }
    }
}

impl<'a> Source<'a> {
    pub fn new(mask: &'a Mask, from: Origin<'a>) -> Self {
        Source { mask, from, activations: ActivationBits::Full }
    }

    /// The weights to be stored as `T`.
    ///
    /// # Errors
    /// If numbers are to be taken as they are and are no `T`.
    pub fn kept<T: Value>(&self) -> Result<Kept<'a, T>> {
        match self.from {
            Origin::Dense(weight) => Ok(Kept::of(weight, self.mask)),
            Origin::Rows(csr) => Ok(Kept { mask: self.mask, numbers: Numbers::Rows(csr.view()) }),
            Origin::Same(entries) => Kept::same(entries, self.mask)
                .ok_or_else(|| Error::invalid_option("values", format!("are {}, not {}", entries.precision(), T::NAME))),
        }
    }
}

impl<'a, T: Value> Kept<'a, T> {
    /// Of a dense weight.
    pub fn of(weight: &'a ArrayRef2<f32>, mask: &'a Mask) -> Self {
        Kept { mask, numbers: Numbers::Dense(weight) }
    }

    /// The numbers of a storage as they are, if they are of this kind; the mask is theirs.
    fn same(entries: &'a Entries, mask: &'a Mask) -> Option<Self> {
        let groups = entries.group.map_or(1, |inputs| entries.cols.div_ceil(inputs));
        Some(Kept { mask, numbers: Numbers::Same { entries, values: T::slice_of(&entries.values)?, groups } })
    }

    /// `(out, in)`.
    pub fn dim(&self) -> (usize, usize) {
        match &self.numbers {
            Numbers::Dense(weight) => weight.dim(),
            Numbers::Rows(_) | Numbers::Same { .. } => self.mask.dim(),
        }
    }

    /// Refuses a mask of another shape, and sizes that 32 bits do not count; else the number of weights to store.
    pub fn check_sizes(&self, format: &'static str) -> Result<usize> {
        let (rows, cols) = self.dim();
        if self.mask.dim() != (rows, cols) {
            return Err(Error::shape("mask", &[rows, cols], &[self.mask.rows(), self.mask.cols()]));
        }
        let kept = self.mask.kept();
        if u32::try_from(kept.max(rows).max(cols)).is_err() {
            return Err(Error::invalid_option(format, format!("{kept} weights in {rows} x {cols} do not fit 32-bit indices")));
        }
        Ok(kept)
    }

    /// Refuses kept weights that no scale can hold.
    pub fn check_scalable(&self) -> Result<()> {
        if !T::SCALED || matches!(self.numbers, Numbers::Same { .. }) {
            return Ok(());
        }
        let infinite = |&(r, c): &(usize, usize)| !self.weight(r, c).is_finite();
        match self.mask.iter_kept().find(infinite) {
            Some((row, col)) => {
                Err(Error::NotFinite { what: format!("weight for {}", T::NAME), row, col, value: self.weight(row, col).into() })
            }
            None => Ok(()),
        }
    }

    /// A kept weight before it is rounded; its scale is not in it where numbers are stored as they are.
    fn weight(&self, row: usize, col: usize) -> f32 {
        match &self.numbers {
            Numbers::Dense(weight) => weight[[row, col]],
            Numbers::Rows(csr) => csr.values()[place(csr.offsets(), csr.indices(), row, col)],
            Numbers::Same { entries, values, .. } => values[place(&entries.offsets, &entries.indices, row, col)].decode(),
        }
    }

    /// The scale of some kept columns of a row: the one that brings the largest to 127, or the one that they have.
    pub fn scale(&self, row: usize, mut columns: impl Iterator<Item = usize>) -> f32 {
        match &self.numbers {
            _ if !T::SCALED => 1.0,
            Numbers::Same { entries, groups, .. } => {
                let group = |c: usize| row * groups + entries.group.map_or(0, |inputs| c / inputs);
                columns.next().map_or(1.0, |c| entries.scales[group(c)])
            }
            Numbers::Dense(_) | Numbers::Rows(_) => scale_of::<T>(columns.map(|c| self.weight(row, c))),
        }
    }

    /// The scale of a whole row.
    pub fn scale_of_row(&self, row: usize) -> f32 {
        self.scale(row, self.mask.row_indices(row))
    }

    /// Scales `(rows, groups)` of some rows; none where values have none.
    pub fn scales(&self, rows: Range<usize>, group: Option<usize>) -> Vec<f32> {
        if !T::SCALED {
            return Vec::new();
        }
        let Some(inputs) = group else { return rows.map(|r| self.scale_of_row(r)).collect() };
        let mut scales = Vec::with_capacity(rows.len() * self.mask.cols().div_ceil(inputs));
        for r in rows {
            let mut columns = self.mask.row_indices(r).peekable();
            for first in (0..self.mask.cols()).step_by(inputs) {
                scales.push(self.scale(r, std::iter::from_fn(|| columns.next_if(|&c| c < first + inputs))));
                while columns.next_if(|&c| c < first + inputs).is_some() {}
            }
        }
        scales
    }

    /// A kept weight as it is stored beside its scale.
    #[inline]
    pub fn value(&self, row: usize, col: usize, scale: f32) -> T {
        match &self.numbers {
            Numbers::Same { entries, values, .. } => values[place(&entries.offsets, &entries.indices, row, col)],
            Numbers::Dense(_) | Numbers::Rows(_) if T::SCALED => T::encode(self.weight(row, col) / scale),
            Numbers::Dense(_) | Numbers::Rows(_) => T::encode(self.weight(row, col)),
        }
    }
}

/// Where a kept weight stands among the entries.
fn place(offsets: &[u32], indices: &[u32], row: usize, col: usize) -> usize {
    let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
    // All rows of a dense weight are full.
    if indices.get(first + col).is_some_and(|&c| c as usize == col && first + col < end) {
        return first + col;
    }
    first + indices[first..end].partition_point(|&c| (c as usize) < col)
}
