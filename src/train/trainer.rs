//! One step after another of any model: passes whose gradients are added up, clipping, the learning rate, the optimiser.

use super::rate::LearningRate;
use super::trainable::{Together, Trainable};
use crate::nn::{Gradients, Loss, Mode, Model, Objective, Optimizer, Parameters, Sink};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What one pass forward and back learns from.
pub struct Pass<'a, B> {
    /// What the model is run on.
    pub batch: B,
    /// The rows of the objective that it makes outputs for, in order.
    pub rows: Vec<usize>,
    /// What is learnt.
    pub objective: Box<dyn Objective + 'a>,
}

impl<B: fmt::Debug> fmt::Debug for Pass<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("batch", &self.batch).field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

/// Gives the passes of each step. A step is found by its number alone, so that a run can be taken up anywhere.
pub trait Feed {
    /// What a model of this kind is run on.
    type Batch;

    /// Passes of a step, whose gradients are added up.
    fn passes(&self) -> usize;

    /// How many rows with something to learn all passes of a step have: what the mean loss is divided by.
    fn count(&mut self, step: usize) -> usize;

    /// One pass of a step.
    ///
    /// # Errors
    /// If it cannot be read or made.
    fn pass(&mut self, step: usize, pass: usize) -> Result<Pass<'_, Self::Batch>>;

    /// Numbers of its own that are trained with the model: those of which [`Objective::own_gradients`] are gradients.
    fn own(&mut self) -> Option<&mut dyn Parameters> {
        None
    }

    /// What a step is on, in words, for messages.
    fn describe(&mut self, step: usize) -> String;
}

/// What became of one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its number, from 1.
    pub step: usize,
    /// The mean loss before it.
    pub loss: f64,
    /// The rate by which it went.
    pub learning_rate: f32,
    /// The Euclidean norm of the gradient, before clipping.
    pub gradient_norm: f64,
}

/// Takes steps: an optimiser, its learning rate over the run, and the largest norm of a gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Trainer {
    optimizer: Optimizer,
    rate: LearningRate,
    steps: usize,
    clip: Option<f64>,
}

impl Trainer {
    /// A run of `steps` steps, as far as the optimiser has come. A gradient whose norm is above `clip` is shortened to it.
    pub fn new(optimizer: Optimizer, rate: LearningRate, steps: usize, clip: Option<f64>) -> Trainer {
        Trainer { optimizer, rate, steps, clip }
    }

    /// The optimiser, which says how many steps were taken.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// Takes one step. Masks are held through it. The mean loss is over all rows of all passes that have something to learn, so that a step
    /// of several passes is that of one larger one, up to rounding.
    ///
    /// # Errors
    /// Those of the model and the feed; [`Error::Numerical`] with step, batch and learning rate if the loss or the gradient is not finite:
    /// nothing is changed then.
    pub fn step<M, F>(&mut self, model: &mut Trainable<M>, feed: &mut F) -> Result<StepRecord>
    where
        M: Model,
        F: Feed<Batch = M::Batch>,
    {
        let step = self.optimizer.steps() as usize;
        let learning_rate = self.rate.at(step, self.steps);
        let count = feed.count(step);
        let (mut gradients, mut sum) = (Gradients::default(), 0.0);
        for number in 0..feed.passes() {
            let Pass { batch, rows, objective } = feed.pass(step, number)?;
            let whole = Whole { objective: objective.as_ref(), count };
            let tape = model.model().forward(&batch, Mode::Train, &mut ())?;
            model.model_mut().absorb(&tape);
            let mut added = Ok(());
            let sink: &mut Sink<'_> = &mut |name, gradient| {
                if added.is_ok() {
                    added = model.add_gradient(&mut gradients, name, gradient);
                }
            };
            sum += model.model().backward_wanted(tape, &whole, &rows, &|name| model.wants_gradient(name), sink)?;
            added?;
            gradients.add(whole.own_gradients())?;
        }
        let (loss, gradient_norm) = (sum / count as f64, gradients.norm());
        for (what, value) in [("loss", loss), ("norm of the gradient", gradient_norm)] {
            if !value.is_finite() {
                let (step, on) = (step + 1, feed.describe(step));
                let reason = format!(
                    "the {what} is {value} at step {step}, on {on}, at learning rate {learning_rate}; a lower rate would help"
                );
                return Err(Error::Numerical { what: "training".into(), reason });
            }
        }
        if let Some(most) = self.clip.filter(|most| gradient_norm > *most) {
            gradients.scale((most / gradient_norm) as f32);
        }
        let mut moving: Vec<&mut dyn Parameters> = vec![&mut *model];
        moving.extend(feed.own());
        self.optimizer.step(&mut Together(moving), &gradients, learning_rate)?;
        model.settle()?;
        Ok(StepRecord { step: step + 1, loss, learning_rate, gradient_norm })
    }
}

/// An objective of one pass among several: its mean is over the rows of all.
struct Whole<'a> {
    objective: &'a dyn Objective,
    count: usize,
}

impl Objective for Whole<'_> {
    fn dim(&self) -> (usize, usize) {
        self.objective.dim()
    }

    fn count(&self, _: &[usize]) -> usize {
        self.count
    }

    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
        self.objective.loss(rows, outputs, count)
    }

    fn targets(&self) -> Option<(Loss, &ArrayRef2<f32>)> {
        self.objective.targets()
    }

    fn taps(&self) -> &[usize] {
        self.objective.taps()
    }

    fn hidden_loss(
        &self,
        layer: usize,
        rows: &[usize],
        hidden: &ArrayRef2<f32>,
        slope: &mut ArrayRef2<f32>,
        count: usize,
    ) -> f64 {
        self.objective.hidden_loss(layer, rows, hidden, slope, count)
    }

    fn own_gradients(&self) -> Gradients {
        self.objective.own_gradients()
    }
}
