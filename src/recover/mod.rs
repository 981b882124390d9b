//! Training, with the masks held: from the beginning, or to recover after pruning.

use crate::nn::{Loss, Method, Mode, Network, Optimizer};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::{ArrayRef2, Axis};
use serde::{Deserialize, Serialize};

/// How the learning rate falls over the steps of a run, from 1 at the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It does not.
    #[default]
    Constant,
    /// By a straight line to 0.
    Linear,
    /// By half a cosine to 0.
    Cosine,
}

impl Decay {
    /// The factor at `step` of `steps`.
    pub fn factor(self, step: usize, steps: usize) -> f32 {
        let share = step as f32 / steps.max(1) as f32;
        match self {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - share,
            Decay::Cosine => 0.5 * (1.0 + (std::f32::consts::PI * share).cos()),
        }
    }
}

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// What is made small.
    pub loss: Loss,
    /// The optimiser.
    pub method: Method,
    /// At the first step.
    pub learning_rate: f32,
    /// How it falls.
    pub decay: Decay,
    /// Passes over the data.
    pub epochs: usize,
    /// Samples a step; the last step of an epoch may have fewer.
    pub batch: usize,
    /// Orders the samples.
    pub seed: Seed,
}

/// Trains on `x (samples, inputs)` and `target (samples, outputs)`, samples in a new random order each epoch, and returns the
/// mean training loss of each epoch. Masks are held: masked parameters are 0 after every step, and so is their momentum.
///
/// The same network, data and recipe give the same bits for any number of threads.
///
/// # Errors
/// If there is no data, its shapes do not fit the network, the batch is 0, or the loss is no longer finite.
pub fn fit(network: &mut Network, x: &ArrayRef2<f32>, target: &ArrayRef2<f32>, recipe: &Recipe) -> Result<Vec<f64>> {
    fit_with(network, x, target, recipe, &mut |_, _| {})
}

/// As [`fit`], calling `seen(epoch, mean loss)` after each epoch.
///
/// # Errors
/// As [`fit`].
pub fn fit_with(
    network: &mut Network,
    x: &ArrayRef2<f32>,
    target: &ArrayRef2<f32>,
    recipe: &Recipe,
    seen: &mut dyn FnMut(usize, f64),
) -> Result<Vec<f64>> {
    let samples = x.nrows();
    if samples == 0 || recipe.batch == 0 {
        return Err(Error::setting("training", format!("{samples} samples in batches of {}", recipe.batch)));
    }
    if x.ncols() != network.inputs() || target.nrows() != samples {
        let found = [samples, x.ncols(), target.nrows()];
        return Err(Error::shape("training samples, inputs and targets", &[samples, network.inputs(), samples], &found));
    }
    let outputs = network.layers().iter().fold(network.inputs(), |f, (_, l)| l.outputs(f));
    if target.ncols() != outputs {
        return Err(Error::shape("training targets", &[samples, outputs], &[samples, target.ncols()]));
    }
    let mut optimizer = Optimizer::new(recipe.method);
    let mut order = recipe.seed.stream("order of samples");
    let steps = recipe.epochs * samples.div_ceil(recipe.batch);
    let (mut step, mut losses) = (0, Vec::with_capacity(recipe.epochs));
    for epoch in 0..recipe.epochs {
        let mut sum = 0.0;
        for part in order.permutation(samples).chunks(recipe.batch) {
            let (x, target) = (x.select(Axis(0), part), target.select(Axis(0), part));
            let tape = network.run(x, Mode::Train);
            sum += recipe.loss.values(tape.output(), &target).sum();
            let mut d = recipe.loss.gradient(tape.output(), &target);
            d *= 1.0 / part.len() as f32;
            let gradients = network.backward(&tape, d);
            network.absorb_statistics(&tape);
            optimizer.step(network, &gradients, recipe.learning_rate * recipe.decay.factor(step, steps));
            step += 1;
        }
        let loss = sum / samples as f64;
        if !loss.is_finite() {
            let reason =
                format!("the loss is {loss} in epoch {epoch} at learning rate {}; a lower rate would help", recipe.learning_rate);
            return Err(Error::Numerical { what: "training".into(), reason });
        }
        seen(epoch, loss);
        losses.push(loss);
    }
    Ok(losses)
}
