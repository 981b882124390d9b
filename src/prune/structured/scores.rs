//! Scores of units, larger = keep.

use super::method::UnitMethod;
use crate::criteria::{Evidence, Measured, Saliency};
use crate::io::Folder;
use crate::lm::Outline;
use crate::prune::SequenceGradients;
use crate::structure::{Coupling, Extent, Side};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2, Axis, Slice};

/// The score of each unit by the layer that reads them: of `weight (out, in)`, whose inputs a unit has `width` of. `None` where the method does not
/// score so.
pub(super) fn by_inputs(
    method: &UnitMethod<'_>,
    weight: ArrayView2<'_, f32>,
    measured: &Measured,
    means: Option<&Array1<f64>>,
    width: usize,
) -> Result<Option<Vec<f64>>> {
    let missing = |what: &str| Error::invalid_option("calibration", format!("{what} were not measured"));
    let sums = |of: &dyn Fn(usize) -> f64| -> Vec<f64> {
        (0..weight.ncols() / width).map(|u| (u * width..(u + 1) * width).map(of).sum()).collect()
    };
    Ok(match method {
        UnitMethod::Minitron | UnitMethod::Activations(_) => {
            let means = means.ok_or_else(|| missing("mean activations"))?;
            Some(sums(&|c| means[c]).into_iter().map(f64::sqrt).collect())
        }
        UnitMethod::Flap => {
            let (squares, tokens) = (measured.input_squares.as_ref(), measured.tokens as f64);
            let (squares, first) = squares.zip(measured.input_sums.as_ref()).ok_or_else(|| missing("fluctuations"))?;
            let variance = |c: usize| (squares[c] / tokens - (first[c] / tokens).powi(2)).max(0.0);
            let norms: Vec<f64> =
                weight.columns().into_iter().map(|w| w.iter().map(|&w| f64::from(w) * f64::from(w)).sum()).collect();
            Some(sums(&|c| variance(c) * norms[c]))
        }
        _ => None,
    })
}

/// The sum of a criterion over all weights of each unit of a coupling.
pub(super) fn by_weights(
    folder: &Folder,
    outline: &Outline,
    coupling: &Coupling,
    saliency: &dyn Saliency,
    gradients: Option<&SequenceGradients>,
) -> Result<Vec<f64>> {
    let mut scores = vec![0.0; coupling.units];
    for member in &coupling.members {
        let layer = outline.layers.iter().find(|l| l.tensor() == member.tensor);
        let (Some(layer), Extent::Slice { axis, offset, width }, Side::Makes | Side::Reads) = (layer, member.part, member.side)
        else {
            continue;
        };
        let [rows, cols] = layer.stored_shape();
        let stored = folder.matrix(&member.tensor, (rows, cols))?;
        let weight: Array2<f32> =
            if layer.transposed { stored.reversed_axes().as_standard_layout().into_owned() } else { stored };
        let measured = gradients.map(|g| g.measured(&layer.name)).transpose()?.unwrap_or_default();
        let evidence = Evidence { measured: &measured, ..Evidence::weight_only(&layer.name, &weight) };
        let each = saliency.score(&evidence).map_err(|e| e.in_layer(&layer.name))?;
        let axis = Axis(if layer.transposed { 1 - axis } else { axis });
        for (unit, score) in scores.iter_mut().enumerate() {
            let (from, to) = ((offset + unit * width) as isize, (offset + (unit + 1) * width) as isize);
            *score += each.slice_axis(axis, Slice::new(from, Some(to), 1)).iter().map(|&s| f64::from(s)).sum::<f64>();
        }
    }
    Ok(scores)
}
