//! A trainable parameter and the mask that is held on it.

use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::Array2;

/// What every constructor sees to.
const STANDARD: &str = "a parameter is in standard layout";

/// A matrix of trainable numbers, with the mask that training holds on it.
///
/// Every parameter is a matrix: a bias of `n` units is `(n, 1)`. `shape` is how files show it, for example
/// `[out, in, height, width]` for a convolution whose matrix is `(out, in * height * width)`.
///
/// # Invariants
/// - `shape` has as many entries as `value`, and its first is the number of rows.
/// - `value` is in standard layout, whatever order it was given in.
/// - Where a mask is set, it has the shape of `value`, and `value` is 0 wherever the mask drops.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    value: Array2<f32>,
    mask: Option<Mask>,
    shape: Vec<usize>,
}

impl Param {
    /// A parameter without a mask.
    ///
    /// # Panics
    /// If `shape` does not describe `value`.
    pub fn new(value: Array2<f32>, shape: Vec<usize>) -> Self {
        assert!(
            shape.iter().product::<usize>() == value.len() && shape.first() == Some(&value.nrows()),
            "shape {shape:?} does not describe a {:?} matrix",
            value.dim()
        );
        let value = if value.is_standard_layout() { value } else { value.as_standard_layout().into_owned() };
        Param { value, mask: None, shape }
    }

    /// `n` numbers, a matrix of `(n, 1)`.
    pub fn vector(n: usize, value: f32) -> Self {
        Param::new(Array2::from_elem((n, 1), value), vec![n])
    }

    /// The numbers; 0 wherever the mask drops.
    pub fn value(&self) -> &Array2<f32> {
        &self.value
    }

    /// The numbers as one row-major slice.
    pub fn as_slice(&self) -> &[f32] {
        self.value.as_slice().expect(STANDARD)
    }

    /// The shape that files show.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The mask that is held, if any.
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// Numbers that are not masked.
    pub fn kept(&self) -> usize {
        self.mask.as_ref().map_or(self.value.len(), Mask::kept)
    }

    /// Replaces the numbers; the mask is applied to them.
    ///
    /// # Errors
    /// If the shape differs.
    pub fn set_value(&mut self, value: Array2<f32>) -> Result<()> {
        if value.dim() != self.value.dim() {
            let (found, expected) = (value.dim(), self.value.dim());
            return Err(Error::shape("parameter", &[expected.0, expected.1], &[found.0, found.1]));
        }
        self.value = value.as_standard_layout().into_owned();
        self.hold();
        Ok(())
    }

    /// Holds a mask from now on: what it drops becomes 0 and stays 0 through training.
    ///
    /// # Errors
    /// If the mask's shape is not the parameter's.
    pub fn set_mask(&mut self, mask: Mask) -> Result<()> {
        if mask.dim() != self.value.dim() {
            let (found, expected) = (mask.dim(), self.value.dim());
            return Err(Error::shape("mask", &[expected.0, expected.1], &[found.0, found.1]));
        }
        self.mask = Some(mask);
        self.hold();
        Ok(())
    }

    /// Lets all numbers move again; what was 0 stays 0 until it is trained.
    pub fn clear_mask(&mut self) {
        self.mask = None;
    }

    /// Changes the numbers in place and applies the mask after: `change` gets them as one row-major slice, and the mask.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut [f32], Option<&Mask>)) {
        change(self.value.as_slice_mut().expect(STANDARD), self.mask.as_ref());
        self.hold();
    }

    fn hold(&mut self) {
        if let Some(mask) = &self.mask {
            mask.apply(&mut self.value);
        }
    }
}
