//! Weights that take a few levels only: discretised for the way forward, continuous where they are trained.
//!
//! Fiesler, Choudry, Caulfield. *A weight discretization paradigm for optical neural networks.* SPIE 1281, The Hague 1990, pages
//! 164 to 173. What is now called straight-through training: Bengio, Léonard, Courville 2013, arXiv:1308.3432; with two levels
//! Courbariaux, Bengio, David 2015, *BinaryConnect*, arXiv:1511.00363; with three Li, Zhang, Liu 2016, arXiv:1605.04711.
//!
//! ```text
//! forward   y = x · D(W)ᵀ           D: every weight at its nearest level
//! backward  g = ∂L/∂D(W)
//! update    W ← W − η g             as if D were the identity
//! ```
//!
//! [`train::train_discretised`](crate::train::train_discretised) is that loop; this file is D.
//!
//! Departure: Fiesler's levels are those of an optical device and fixed before; here each matrix has one scale, fitted to its
//! continuous weights, so that the same grid serves layers of any size.

use crate::Result;
use crate::mask::Mask;
use crate::quantize::Grid;
use ndarray::{Array2, ArrayRef2};

/// D(W): the weight at the nearest levels of `grid` times the scale that fits best, and that scale. What `mask` drops takes no part
/// and is 0, also where the grid has no level 0.
///
/// ```
/// use lacuna::quantize::{Grid, discretise};
/// use ndarray::array;
/// let (w, scale) = discretise(&array![[0.9, -0.1], [-1.1, 1.0]], None, Grid::Ternary)?;
/// assert!((scale - 1.0).abs() < 1e-6);
/// assert_eq!(w, array![[1., 0.], [-1., 1.]] * scale);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// If the grid has no levels, or a weight is not finite.
///
/// # Panics
/// If the mask has another shape.
pub fn discretise(weight: &ArrayRef2<f32>, mask: Option<&Mask>, grid: Grid) -> Result<(Array2<f32>, f32)> {
    assert!(mask.is_none_or(|m| m.dim() == weight.dim()), "a mask and its weight differ in shape");
    let weight = mask.map_or_else(|| weight.to_owned(), |mask| mask.applied(weight));
    crate::mask::check_finite(&weight, "weights")?;
    let kept = weight.indexed_iter().filter(|((r, c), _)| mask.is_none_or(|m| m.get(*r, *c))).map(|(_, &w)| w);
    let scale = grid.scale(kept)?;
    let mut rounded = grid.round(&weight, scale)?;
    if let Some(mask) = mask {
        mask.apply(&mut rounded);
    }
    Ok((rounded, scale))
}
