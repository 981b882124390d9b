//! The trait, and what all quantisers do first and last.

use super::super::squared_error;
use crate::criteria::{Evidence, Needs};
use crate::mask::{Mask, check_finite};
use crate::quantize::{CodeGrid, Codes, Step};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};
use rayon::prelude::*;

/// A layer in codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounded {
    /// Codes, scales and zero points.
    pub codes: Codes,
    /// `(out, in)`: [`Codes::to_dense`] of them.
    pub weight: Array2<f32>,
    /// Which weights are kept, where the layer had a mask or was pruned on the way; the others have the code of 0.
    pub mask: Option<Mask>,
    /// ‖X (Ŵ − W)ᵀ‖², summed over tokens and outputs, without damping; `None` where no Gram matrix was measured.
    pub loss: Option<f64>,
}

/// Chooses the codes of one layer.
///
/// ```
/// use lacuna::criteria::{Evidence, Measured};
/// use lacuna::quantize::{CodeGrid, Granularity};
/// use lacuna::solve::{Gptq, Quantizer, Rtn};
/// use ndarray::{Array2, array};
/// // Three inputs that are always equal: what rounding gives to one the others take back.
/// let measured = Measured { tokens: 4, gram: Some(Array2::from_elem((3, 3), 4.)), ..Measured::default() };
/// let w = array![[1.2, 0.73, 3.3]];
/// let (layer, grid) = (Evidence::new("fc1", &w, &measured), CodeGrid::new(3, Granularity::Row).asymmetric());
/// let (rtn, gptq) = (Rtn.quantize(&layer, grid)?, Gptq::default().quantize(&layer, grid)?);
/// assert!(gptq.loss < rtn.loss);
/// assert_eq!(rtn.weight, rtn.codes.to_dense());
/// # Ok::<(), lacuna::Error>(())
/// ```
#[auto_impl::auto_impl(&, Box)]
pub trait Quantizer: Send + Sync + std::fmt::Debug {
    /// The name users know, lower case: `gptq`.
    fn name(&self) -> &str;

    /// What must be measured before a layer can be quantised.
    fn needs(&self) -> Needs;

    /// The layer in codes of `grid`. What the layer's mask dropped has the code of 0.
    ///
    /// # Errors
    /// If something that [`Quantizer::needs`] names was not measured or does not fit, weights or measures are not finite, groups do not divide a
    /// row, a step is beyond what its type holds, or the grid is not one of the method.
    fn quantize(&self, layer: &Evidence<'_>, grid: CodeGrid) -> Result<Rounded>;
}

/// Refuses what does not fit together; the weight in standard layout, what was dropped before set to 0, and the inputs of a group.
pub(super) fn checked(layer: &Evidence<'_>, grid: CodeGrid) -> Result<(Array2<f32>, usize)> {
    let group = grid.check(layer.weight.ncols()).map_err(|e| e.in_layer(layer.layer))?;
    if let Some(mask) = layer.mask
        && mask.dim() != layer.weight.dim()
    {
        let ((rows, cols), found) = (layer.weight.dim(), [mask.rows(), mask.cols()]);
        return Err(Error::shape("mask", &[rows, cols], &found).in_layer(layer.layer));
    }
    check_finite(&layer.weight, "weights").map_err(|e| e.in_layer(layer.layer))?;
    let mut weight = layer.weight.as_standard_layout().into_owned();
    if let Some(mask) = layer.mask {
        mask.apply(&mut weight);
    }
    Ok((weight, group))
}

/// The nearest codes of a weight by these steps `(out, groups)`.
pub(super) fn nearest(weight: &ArrayRef2<f32>, grid: CodeGrid, group: usize, steps: &ArrayRef2<Step>) -> Array2<u8> {
    let mut codes = Array2::zeros(weight.dim());
    codes.axis_iter_mut(Axis(0)).into_par_iter().enumerate().with_min_len(16).for_each(|(r, mut row)| {
        let (weight, steps) = (weight.row(r), steps.row(r));
        row.indexed_iter_mut().for_each(|(c, code)| *code = grid.code(steps[c / group], weight[c]));
    });
    codes
}

/// The result of a quantiser: what a mask drops has the code of 0, and the error is measured.
pub(super) fn finish(
    layer: &Evidence<'_>,
    grid: CodeGrid,
    codes: Array2<u8>,
    steps: &ArrayRef2<Step>,
    mask: Option<Mask>,
) -> Result<Rounded> {
    let mut codes = Codes::new(grid, codes, steps).map_err(|e| e.in_layer(layer.layer))?;
    mask.iter().for_each(|mask| codes.drop_by(mask));
    let weight = codes.to_dense();
    let loss = layer.measured.gram.as_ref().map(|g| squared_error(&weight, &layer.weight, g));
    Ok(Rounded { codes, weight, mask, loss })
}
