//! Training through discretised weights.

use super::fit::{check, train_through};
use crate::nn::{Layer, Network, Objective};
use crate::quantize::{Grid, discretise};
use crate::train::{Regularization, TrainConfig};
use crate::{Error, Result};
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
/// [`quantize`](crate::quantize)). Returns the discretised form of least loss over all samples among those at the beginning and
/// at the end of every epoch, since a weight near the middle of two levels jumps to and fro; and the losses of the epochs.
///
/// Fiesler begins with a network that was trained with continuous weights; any may be given.
///
/// # Errors
/// As [`train`](crate::train::train) and [`discretised`]; if the loss of a discretised form is not finite.
pub fn train_discretised(
    network: &mut Network,
    x: &ArrayRef2<f32>,
    objective: &dyn Objective,
    config: &TrainConfig,
    regularization: &Regularization,
    grid: Grid,
    biases: bool,
) -> Result<(Network, Vec<f64>)> {
    let rows: Vec<usize> = (0..x.nrows()).collect();
    let samples = x.to_owned();
    let judged = |n: &Network| -> Result<(f64, Network)> {
        let rounded = discretised(n, grid, biases)?;
        let loss = objective.loss(&rows, &mut rounded.forward(&samples), rows.len());
        if !loss.is_finite() {
            let reason = format!("the loss of the discretised network is {loss}");
            return Err(Error::Numerical { what: "training".into(), reason });
        }
        Ok((loss, rounded))
    };
    check(network, x, objective, config, regularization)?;
    let mut best = judged(network)?;
    let mut seen = |n: &Network, _: usize, _: f64| {
        let now = judged(n)?;
        if now.0 < best.0 {
            best = now;
        }
        Ok(())
    };
    let through = |n: &Network| discretised(n, grid, biases).map(Some);
    let losses = train_through(network, x, objective, config, regularization, &through, &mut seen)?;
    Ok((best.1, losses))
}
