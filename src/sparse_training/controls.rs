//! What a ticket is compared with: the same numbers of weights without what is said to make it win.
//!
//! | control | keeps | changes | source |
//! |---|---|---|---|
//! | [`Control::Reinitialised`] | mask | all values, drawn anew | Frankle, Carbin 2019 |
//! | [`Control::ShuffledMask`] | values, number kept in each layer | which are kept | Frankle, Carbin 2019 (appendix); Frankle et al. 2021 |
//! | [`Control::SignConstant`] | mask, signs | all magnitudes, to one a layer | Zhou et al. 2019 |
//! | [`Control::SignRedrawn`] | mask, signs | magnitudes, drawn anew | Zhou et al. 2019 |
//!
//! Zhou, Lan, Liu, Yosinski. *Deconstructing lottery tickets: zeros, signs, and the supermask.* NeurIPS 2019, arXiv:1905.01067, section 4: the constant is the standard
//! deviation of the layer's initial values.

use super::method::Prunable;
use crate::mask::Mask;
use crate::nn::{LayerInfo, find_layer};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// A control; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Values of another initialisation.
    Reinitialised,
    /// As many weights of each layer, others.
    ShuffledMask,
    /// The sign of each value, times one magnitude a layer.
    SignConstant,
    /// The sign of each value, times magnitudes of another initialisation.
    SignRedrawn,
}

/// A model of `start`'s values under these masks, changed as a control says. `fresh` is another initialisation of the same model: values that are drawn anew are
/// its. Parameters that are no weights of masked layers are those of `start`, or of `fresh` where all is drawn anew.
///
/// # Errors
/// [`Error::UnknownName`] for a mask of no layer; [`Error::Shape`] if the models differ.
pub fn controlled<M: Prunable + Clone>(
    start: &M,
    fresh: &M,
    masks: &[(String, Mask)],
    control: Control,
    seed: Seed,
) -> Result<M> {
    let mut model = if control == Control::Reinitialised { fresh.clone() } else { start.clone() };
    let layers = model.layers();
    for (name, mask) in masks {
        let layer: &LayerInfo = find_layer(&layers, name)?;
        let (own, other) = (start.read(name)?, fresh.read(name)?);
        if own.dim() != other.dim() {
            return Err(Error::shape(
                format!("fresh weight of {name}"),
                &[own.nrows(), own.ncols()],
                &[other.nrows(), other.ncols()],
            ));
        }
        let sd = own.std(0.0);
        let sign = |at: (usize, usize), magnitude: f32| if own[at] == 0.0 { 0.0 } else { magnitude.copysign(own[at]) };
        let values: Option<Array2<f32>> = match control {
            Control::Reinitialised | Control::ShuffledMask => None,
            Control::SignConstant => Some(Array2::from_shape_fn(own.dim(), |at| sign(at, sd))),
            Control::SignRedrawn => Some(Array2::from_shape_fn(own.dim(), |at| sign(at, other[at].abs()))),
        };
        if let Some(values) = values {
            model.set_mask(&layer.parameter, None)?;
            write_values(&mut model, &layer.parameter, &values)?;
        }
        let mask = if control == Control::ShuffledMask { shuffled(mask, seed, name) } else { mask.clone() };
        model.set_mask(&layer.parameter, Some(mask))?;
    }
    Ok(model)
}

/// As many weights, drawn at random.
fn shuffled(mask: &Mask, seed: Seed, layer: &str) -> Mask {
    let (rows, cols) = mask.dim();
    let order = seed.stream(&format!("shuffled mask/{layer}")).permutation(rows * cols);
    let mut new = Mask::empty(rows, cols);
    order[..mask.kept()].iter().for_each(|at| new.set(at / cols, at % cols, true));
    new
}

/// Gives a parameter these values, row by row.
pub(super) fn write_values(model: &mut dyn Prunable, parameter: &str, values: &Array2<f32>) -> Result<()> {
    let mut found = None;
    model.visit_mut(&mut |name, numbers, _| {
        if name == parameter {
            found = Some(numbers.len());
            if numbers.len() == values.len() {
                numbers.iter_mut().zip(values).for_each(|(n, v)| *n = *v);
            }
        }
    })?;
    match found {
        Some(n) if n == values.len() => Ok(()),
        Some(n) => Err(Error::shape(parameter, &[n], &[values.len()])),
        None => Err(Error::unknown_layer(parameter, std::iter::empty())),
    }
}
