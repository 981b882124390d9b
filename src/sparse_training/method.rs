//! What a method of sparse training does at each step.

use crate::Result;
use crate::nn::{Gradients, Layers, Optimizer, Parameters};
use crate::rng::Seed;
use crate::train::TrainStep;

/// Parameters by name, masks, and linear layers: what a method sees of a model. Every [`Model`](crate::nn::Model) is one.
pub trait Prunable: Parameters + Layers {}

impl<T: Parameters + Layers + ?Sized> Prunable for T {}

/// How many weights of a layer a step uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedWeights {
    /// Forward, and back to the inputs.
    pub run: usize,
    /// Those whose gradient is asked for.
    pub gradient: usize,
}

/// A method of sparse training: [`train_sparse`](super::train_sparse) calls `begin`, then for each step `before_step`, a run forward and back, and
/// `step`; at last `finish`, which leaves the masks held on the model. A value is for one run at a time; `begin` starts it anew.
///
/// A method that only changes masks between steps changes `step` alone. What it needs to know of a model are its layers and parameters by name, so that it
/// fits any model.
///
/// ```
/// use lacuna::mask::Mask;
/// use lacuna::nn::{Gradients, Optimizer};
/// use lacuna::rng::Seed;
/// use lacuna::sparse_training::{Prunable, SparseMethod};
/// use lacuna::train::TrainStep;
///
/// /// Half way all even columns go.
/// #[derive(Debug)]
/// struct Odd;
///
/// impl SparseMethod for Odd {
///     fn name(&self) -> &str {
///         "odd"
///     }
///     fn step(&mut self, model: &mut dyn Prunable, g: Gradients, o: &mut Optimizer, at: TrainStep) -> lacuna::Result<()> {
///         o.step(model, &g, at.learning_rate)?;
///         if at.step == at.steps / 2 {
///             for layer in model.layers() {
///                 let mask = Mask::from_fn(layer.shape.0, layer.shape.1, |_, col| col % 2 == 1);
///                 model.set_mask(&layer.parameter, Some(mask))?;
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait SparseMethod: std::fmt::Debug {
    /// The name users know, lower case: `rigl`.
    fn name(&self) -> &str;

    /// Before the first step: chooses the first masks.
    ///
    /// # Errors
    /// If the settings do not fit the model.
    fn begin(&mut self, _model: &mut dyn Prunable, _seed: Seed, _steps: usize) -> Result<()> {
        Ok(())
    }

    /// Before the run of a step.
    ///
    /// # Errors
    /// Those of the method.
    fn before_step(&mut self, _model: &mut dyn Prunable, _at: TrainStep) -> Result<()> {
        Ok(())
    }

    /// What this step uses of each layer, asked for after `before_step`; if nothing else is said what the masks keep.
    ///
    /// # Errors
    /// If a mask cannot be read.
    fn used(&self, model: &dyn Prunable, _at: TrainStep) -> Result<Vec<UsedWeights>> {
        let kept = |layer: crate::nn::LayerInfo| {
            let kept = model.mask(&layer.name)?.map_or(layer.len(), |mask| mask.kept());
            Ok(UsedWeights { run: kept, gradient: kept })
        };
        model.layers().into_iter().map(kept).collect()
    }

    /// Moves the model by the gradients of all its parameters, which are dense: no mask is applied to them.
    ///
    /// # Errors
    /// Those of the optimiser and of the method.
    fn step(&mut self, model: &mut dyn Prunable, gradients: Gradients, optimizer: &mut Optimizer, at: TrainStep) -> Result<()> {
        optimizer.step(model, &gradients, at.learning_rate)
    }

    /// After the last step: leaves the last weights and masks on the model.
    ///
    /// # Errors
    /// Those of the method.
    fn finish(&mut self, _model: &mut dyn Prunable) -> Result<()> {
        Ok(())
    }
}
