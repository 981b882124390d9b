//! What is minimised, from rows of outputs.

use super::{Gradients, Loss};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};

/// What is minimised: a loss of each row of outputs, and its slope there.
///
/// A row is a sample of a network, a token of a language model. Outputs come a few rows at a time: logits of a large vocabulary are never
/// held all at once. A model calls this on the way back ([`Model::backward`](super::Model::backward)); [`Targets`] are the plain case,
/// [`Distil`](crate::train::Distil) learns from a teacher, [`NextToken`](crate::lm::NextToken) from a text.
///
/// ```
/// use lacuna::nn::{Loss, Objective, Targets};
/// use ndarray::{Array2, array};
///
/// /// The largest output is to be small.
/// struct Largest;
///
/// impl Objective for Largest {
///     fn dim(&self) -> (usize, usize) {
///         (2, 2)
///     }
///     fn loss(&self, _: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
///         let mut sum = 0.;
///         for mut row in outputs.rows_mut() {
///             let most = row.iter().fold(f32::MIN, |m, &z| m.max(z));
///             sum += f64::from(most);
///             row.mapv_inplace(|z| if z == most { 1. / count as f32 } else { 0. });
///         }
///         sum
///     }
/// }
/// let mut outputs = array![[1., 3.], [2., 0.]];
/// assert_eq!(Largest.loss(&[0, 1], &mut outputs, 2), 5.);
/// assert_eq!(outputs, array![[0., 0.5], [0.5, 0.]]);
/// ```
#[auto_impl::auto_impl(&)]
pub trait Objective: Sync {
    /// `(rows, outputs)` of what is learnt.
    fn dim(&self) -> (usize, usize);

    /// How many of these rows have something to learn: what a mean loss is divided by.
    fn count(&self, rows: &[usize]) -> usize {
        rows.len()
    }

    /// The sum of the losses of rows number `rows`, whose outputs are `outputs (rows, outputs)`. These become the slope of the sum
    /// divided by `count`: ∂/∂outputs of the mean, where `count` is [`Objective::count`] of all rows of a step.
    ///
    /// # Panics
    /// If there is no such row, or the outputs are not as many.
    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64;

    /// The targets `(rows, outputs)`, if this is a [`Loss`] on some: second derivatives are asked of it.
    fn targets(&self) -> Option<(Loss, &ArrayRef2<f32>)> {
        None
    }

    /// The layers whose hidden states are learnt too: of a language model the blocks, of a chain its layers, by their numbers from 0.
    fn taps(&self) -> &[usize] {
        &[]
    }

    /// The sum of the losses of the hidden states that layer number `layer` gives, `(rows, features)`; the slope of the sum divided by
    /// `count` is added to `slope`. Called for the [`taps`](Objective::taps) alone, from the last to the first.
    fn hidden_loss(
        &self,
        _layer: usize,
        _rows: &[usize],
        _hidden: &ArrayRef2<f32>,
        _slope: &mut ArrayRef2<f32>,
        _count: usize,
    ) -> f64 {
        0.0
    }

    /// The gradients of numbers of the objective's own that are trained too, once a way back has met it; none where it has none.
    fn own_gradients(&self) -> Gradients {
        Gradients::default()
    }
}

/// Refuses rows of an objective that are not those of the outputs `(rows, outputs)`, and gives the count that a mean loss is divided by.
///
/// # Errors
/// [`Error::Shape`].
pub(crate) fn check_rows(objective: &dyn Objective, rows: &[usize], outputs: (usize, usize)) -> Result<usize> {
    let (all, width) = objective.dim();
    if (rows.len(), width) != outputs {
        let what = "rows of an objective and their outputs";
        return Err(Error::shape(what, &[outputs.0, outputs.1], &[rows.len(), width]));
    }
    match rows.iter().find(|row| **row >= all) {
        Some(row) => Err(Error::invalid_option("objective", format!("has no row {row}, but {all} in all"))),
        None => Ok(objective.count(rows)),
    }
}

/// Refuses hidden states that a model with so many layers or blocks has not.
pub(crate) fn check_taps(objective: &dyn Objective, layers: usize) -> Result<()> {
    match objective.taps().iter().find(|tap| **tap >= layers) {
        Some(tap) => {
            Err(Error::invalid_option("objective", format!("asks for the hidden states of layer {tap}; there are {layers}")))
        }
        None => Ok(()),
    }
}

/// The plain objective: a target for each row.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// `(rows, outputs)`.
    pub target: &'a ArrayRef2<f32>,
    /// What is made small.
    pub loss: Loss,
}

impl Objective for Targets<'_> {
    fn dim(&self) -> (usize, usize) {
        self.target.dim()
    }

    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
        let target = self.target.select(Axis(0), rows);
        let sum = self.loss.values(outputs, &target).sum();
        *outputs = self.loss.gradient(outputs, &target);
        *outputs *= 1.0 / count as f32;
        sum
    }

    fn targets(&self) -> Option<(Loss, &ArrayRef2<f32>)> {
        Some((self.loss, self.target))
    }
}
