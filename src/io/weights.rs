//! [`Weights`]: tensors by name, wherever they are kept; [`WeightsMut`]: where tensors go by name.
//!
//! Models load through [`Weights`] one tensor at a time, so a model larger than memory can be read block by block.

use super::{Checkpoint, Dtype, quoted};
use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayD, ArrayViewD, Ix1, Ix2};

/// Named tensors that can be read one at a time.
pub trait Weights {
    /// All names, in the order of the file or files.
    fn names(&self) -> Vec<String>;

    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool {
        self.names().iter().any(|n| n == name)
    }

    /// The shape of a tensor, without reading it.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such tensor.
    fn shape(&self, name: &str) -> Result<Vec<usize>>;

    /// A tensor as `f32`, in standard layout, in its own shape.
    ///
    /// # Errors
    /// As [`Weights::shape`]; [`Error::Malformed`] if it does not hold numbers of dtype F32, F16 or BF16;
    /// [`Error::Io`] if reading fails.
    fn read(&self, name: &str) -> Result<ArrayD<f32>>;

    /// The mask of a weight, in the weight's own layout; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is one that is none, or of another shape.
    fn mask(&self, _name: &str) -> Result<Option<Mask>> {
        Ok(None)
    }

    /// Whether two tensors have one shape and the same numbers.
    ///
    /// # Errors
    /// As [`Weights::read`].
    fn same(&self, a: &str, b: &str) -> Result<bool> {
        Ok(self.shape(a)? == self.shape(b)? && self.read(a)? == self.read(b)?)
    }
}

/// Where a model's tensors go.
pub trait WeightsMut {
    /// Takes a tensor under its checkpoint name, in its checkpoint layout. One that is there already is replaced and keeps its
    /// dtype.
    ///
    /// # Errors
    /// If it cannot be stored: for example a shape that this place does not expect, or a number too large for its dtype.
    fn write(&mut self, name: &str, values: ArrayViewD<'_, f32>) -> Result<()>;

    /// Takes the mask of a weight that was written, in the weight's own layout.
    ///
    /// # Errors
    /// If it cannot be stored: masks are never left out in silence.
    fn write_mask(&mut self, name: &str, mask: &Mask) -> Result<()>;
}

/// A matrix of exactly this shape.
///
/// # Errors
/// As [`Weights::read`]; [`Error::Shape`] naming the tensor and both shapes.
pub fn read_matrix(weights: &(impl Weights + ?Sized), name: &str, dim: (usize, usize)) -> Result<Array2<f32>> {
    check(weights, name, &[dim.0, dim.1])?;
    let found = weights.read(name)?;
    let shape = found.shape().to_vec();
    found.into_dimensionality::<Ix2>().map_err(|_| misfit(name, &[dim.0, dim.1], &shape))
}

/// A vector of exactly this length.
///
/// # Errors
/// As [`read_matrix`].
pub fn read_vector(weights: &(impl Weights + ?Sized), name: &str, len: usize) -> Result<Array1<f32>> {
    check(weights, name, &[len])?;
    let found = weights.read(name)?;
    let shape = found.shape().to_vec();
    found.into_dimensionality::<Ix1>().map_err(|_| misfit(name, &[len], &shape))
}

/// The shape is asked for first: a tensor that does not fit is not read.
fn check(weights: &(impl Weights + ?Sized), name: &str, expected: &[usize]) -> Result<()> {
    let found = weights.shape(name)?;
    if found == expected { Ok(()) } else { Err(misfit(name, expected, &found)) }
}

fn misfit(name: &str, expected: &[usize], found: &[usize]) -> Error {
    Error::shape(format!("tensor {}", quoted(name)), expected, found)
}

impl Weights for Checkpoint {
    fn names(&self) -> Vec<String> {
        Checkpoint::names(self).map(String::from).collect()
    }

    fn contains(&self, name: &str) -> bool {
        Checkpoint::contains(self, name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.info(name)?.shape)
    }

    fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        self.get(name).cloned()
    }

    fn mask(&self, name: &str) -> Result<Option<Mask>> {
        Checkpoint::mask(self, name)
    }
}

impl WeightsMut for Checkpoint {
    fn write(&mut self, name: &str, values: ArrayViewD<'_, f32>) -> Result<()> {
        let dtype = if self.contains(name) { self.dtype(name)? } else { Dtype::F32 };
        self.insert(name, values.to_owned(), dtype)
    }

    fn write_mask(&mut self, name: &str, mask: &Mask) -> Result<()> {
        self.insert_mask(name, mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_tensor_of_another_shape_is_refused_with_its_name_and_both_shapes() {
        let mut file = Checkpoint::new();
        WeightsMut::write(&mut file, "a.weight", array![[1.0, 2.0, 3.0]].view().into_dyn()).unwrap();
        assert_eq!(read_matrix(&file, "a.weight", (1, 3)).unwrap(), array![[1.0, 2.0, 3.0]]);
        let e = read_matrix(&file, "a.weight", (3, 1)).unwrap_err().to_string();
        assert_eq!(e, "tensor 'a.weight': expected shape [3, 1], found [1, 3]");
        let e = read_vector(&file, "a.weight", 3).unwrap_err().to_string();
        assert_eq!(e, "tensor 'a.weight': expected shape [3], found [1, 3]");
        let e = read_vector(&file, "a.wieght", 3).unwrap_err().to_string();
        assert!(e.contains("did you mean 'a.weight'?"), "{e}");
    }
}
