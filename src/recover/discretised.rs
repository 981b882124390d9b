//! Training through discretised weights.

use crate::Result;
use crate::nn::{Layer, Network};
use crate::quantize::{Grid, discretise};
use crate::recover::train::train_through;
use crate::recover::{Care, Lesson, Recipe};
use ndarray::ArrayRef2;

/// The network with the weights of its linear and convolutional layers, and with `biases` their biases too, at the levels of
/// `grid`, one scale a matrix. Masks stay.
///
/// # Errors
/// If the grid has no levels, or a weight is not finite.
pub fn discretised(network: &Network, grid: Grid, biases: bool) -> Result<Network> {
    let mut rounded = network.clone();
    let affine: Vec<bool> = network
        .layers()
        .iter()
        .flat_map(|(_, l)| l.params().iter().map(|_| matches!(l, Layer::Affine(_))).collect::<Vec<_>>())
        .collect();
    for ((name, param), affine) in rounded.params_mut().into_iter().zip(affine) {
        if affine && (biases || name.ends_with(".weight")) {
            let (value, _) = discretise(param.value(), param.mask(), grid).map_err(|e| e.in_layer(&name))?;
            param.set_value(value)?;
        }
    }
    Ok(rounded)
}

/// Trains `network`, whose weights stay continuous, by the losses and gradients of its [`discretised`] form (see
/// [`quantize`](crate::quantize)), and returns that form at the end with the mean loss of each epoch.
///
/// # Errors
/// As [`train`](crate::recover::train) and [`discretised`].
#[allow(clippy::too_many_arguments)]
pub fn train_discretised(
    network: &mut Network,
    x: &ArrayRef2<f32>,
    lesson: &dyn Lesson,
    recipe: &Recipe,
    care: &Care,
    grid: Grid,
    biases: bool,
) -> Result<(Network, Vec<f64>)> {
    let through = |n: &Network| discretised(n, grid, biases).map(Some);
    let losses = train_through(network, x, lesson, recipe, care, &through, &mut |_, _| {})?;
    Ok((discretised(network, grid, biases)?, losses))
}
