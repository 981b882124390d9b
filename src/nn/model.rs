//! What runs: forward with an observer of every layer's input, backward into a sink of gradients.

use super::{Gradients, Layers, Objective, Observer, Parameters, Sink, Wanted};
use crate::{Error, Result};
use ndarray::{Array2, ArrayViewD};

/// Whether batch normalisation uses the batch's statistics or the running ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The batch's.
    Train,
    /// The running ones.
    Eval,
}

/// Which second derivatives are back-propagated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curvature {
    /// With the activations' second derivatives: may be negative.
    Exact,
    /// Without them: never negative.
    #[default]
    GaussNewton,
}

/// How many samples go through a model at a time, and what is measured of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Passes {
    /// Samples of one pass; at least 1. What is measured is a mean over all samples whatever this is, up to rounding.
    pub batch: usize,
    /// Samples whose gradients are averaged into one row of [`Need::SampleGradients`](crate::criteria::Need); at least 1.
    pub minibatch: usize,
    /// Which second derivatives.
    pub curvature: Curvature,
}

impl Default for Passes {
    /// 256 samples a pass, gradients of single samples, the Gauss-Newton curvature.
    fn default() -> Self {
        Passes { batch: 256, minibatch: 1, curvature: Curvature::default() }
    }
}

/// Samples that a model is run on, by their numbers, and what is learnt from them.
///
/// [`Calibration`](crate::calibrate::Calibration) is one for chains of layers, [`NextToken`](crate::lm::NextToken) for language models.
pub trait Samples {
    /// What a model of this kind is run on.
    type Batch;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// These samples together, in this order.
    ///
    /// # Panics
    /// If one is not there.
    fn batch(&self, samples: &[usize]) -> Self::Batch;

    /// The rows of the objective that these samples give, in order: one each, if nothing else is said.
    fn rows(&self, samples: &[usize]) -> Vec<usize> {
        samples.to_vec()
    }

    /// What is learnt.
    fn objective(&self) -> &dyn Objective;

    /// How they are measured.
    fn passes(&self) -> Passes {
        Passes::default()
    }

    /// Refuses samples that are not finite, or do not fit a model of so many inputs and outputs, where the model has some.
    ///
    /// # Errors
    /// With the numbers.
    fn check(&self, _widths: Option<(usize, usize)>) -> Result<()> {
        Ok(())
    }
}

/// What runs. With it pruning, schedules, evidence from gradients and from inputs, and training work on any model: a
/// [`Network`](super::Network), a [`LanguageModel`](crate::lm::LanguageModel), a [`Seq2Seq`](crate::lm::Seq2Seq), or one of your own
/// (`examples/own_model.rs`).
pub trait Model: Parameters + Layers {
    /// What it is run on.
    type Batch;
    /// What a run keeps for the way back.
    type Tape;

    /// Runs. `observer` sees the input of every layer of [`Layers::layers`].
    ///
    /// # Errors
    /// If the batch does not fit.
    fn forward(&self, batch: &Self::Batch, mode: Mode, observer: &mut dyn Observer) -> Result<Self::Tape>;

    /// Runs only to show the inputs of layers, and keeps nothing.
    ///
    /// # Errors
    /// As [`Model::forward`].
    fn observe(&self, batch: &Self::Batch, observer: &mut dyn Observer) -> Result<()> {
        self.forward(batch, Mode::Eval, observer).map(drop)
    }

    /// Goes back. Gives the sum of the losses over `rows`, those that the run made outputs for, in order; the gradient of their mean (the
    /// sum divided by [`Objective::count`]) of every parameter goes to `sink`, once.
    ///
    /// # Errors
    /// If the objective does not fit the outputs, or has nothing to learn there.
    fn backward(&self, tape: Self::Tape, objective: &dyn Objective, rows: &[usize], sink: &mut Sink<'_>) -> Result<f64>;

    /// As [`Model::backward`], where only gradients of the parameters that `wanted` names go to `sink`. A model that can leaves the others out of
    /// the computation; if nothing else is said, they are computed and dropped.
    ///
    /// # Errors
    /// As [`Model::backward`].
    fn backward_wanted(
        &self,
        tape: Self::Tape,
        objective: &dyn Objective,
        rows: &[usize],
        wanted: &Wanted<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<f64> {
        self.backward(tape, objective, rows, &mut |name, gradient| {
            if wanted(name) {
                sink(name, gradient);
            }
        })
    }

    /// Takes over what a run in [`Mode::Train`] has measured for later runs, as batch normalisation does.
    fn absorb(&mut self, _tape: &Self::Tape) {}

    /// Inputs and outputs of a sample, where these are fixed numbers of features.
    fn widths(&self) -> Option<(usize, usize)> {
        None
    }

    /// Refuses parameters, and what else it computes with, that are not finite.
    ///
    /// # Errors
    /// [`Error::NotFinite`] at the first, in its layer.
    fn check_finite(&self) -> Result<()> {
        let mut found = Ok(());
        self.visit(&mut |name, values, _| {
            if found.is_ok() {
                found = finite(name, &values);
            }
        });
        found
    }

    /// The gradients of each sample alone, `(samples, parameters)`: all parameters one after another as [`Parameters::visit`] gives them.
    /// None if it has no pass that makes them together; they are then made sample by sample.
    ///
    /// # Errors
    /// As [`Model::backward`].
    fn sample_gradients(&self, _: &Self::Batch, _: &dyn Objective, _rows: &[usize]) -> Result<Option<Array2<f32>>> {
        Ok(None)
    }

    /// The mean over samples of the squares of each sample's gradient; as [`Model::sample_gradients`].
    ///
    /// # Errors
    /// As [`Model::backward`].
    fn squared_gradients(&self, _: &Self::Batch, _: &dyn Objective, _rows: &[usize]) -> Result<Option<Gradients>> {
        Ok(None)
    }

    /// The diagonal of the Hessian of the mean loss, back-propagated; None if it has no such pass.
    ///
    /// # Errors
    /// As [`Model::backward`].
    fn second_derivatives(&self, _: &Self::Batch, _: &dyn Objective, _rows: &[usize], _: Curvature) -> Result<Option<Gradients>> {
        Ok(None)
    }

    /// The Hessian of the mean loss times a direction; None if it has no such pass.
    ///
    /// # Errors
    /// As [`Model::backward`].
    fn hessian_times(
        &self,
        _: &Self::Batch,
        _: &dyn Objective,
        _rows: &[usize],
        _direction: &Gradients,
    ) -> Result<Option<Gradients>> {
        Ok(None)
    }

    /// Synaptic flow ∂R/∂|W| of each layer's weight, in the order of [`Layers::layers`]; None if it has no such pass.
    fn synaptic_flow(&self) -> Option<Vec<Array2<f32>>> {
        None
    }
}

/// Refuses the first number of a parameter that is not finite.
fn finite(name: &str, values: &ArrayViewD<'_, f32>) -> Result<()> {
    if values.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    let cols = values.shape().get(1).copied().unwrap_or(1).max(1);
    match values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((at, &value)) => {
            let (layer, what) = name.rsplit_once('.').unwrap_or((name, "parameter"));
            let (row, col) = (at / cols, at % cols);
            Err(Error::NotFinite { what: what.into(), row, col, value: f64::from(value) }.in_layer(layer))
        }
    }
}
