//! Pruning in steps, with recovery between them.

use crate::Result;
use crate::allocate::Target;
use crate::calibrate::measure;
use crate::mask::{Budget, Pattern};
use crate::nn::{Layers, Model, Samples};
use crate::prune::oneshot::{check_pruning, prune_layers};
use crate::prune::{Outcome, Pruning};
use serde::{Deserialize, Serialize};

/// How sparsity grows from `s₀` to `s₁` over `T` steps; `t` counts from 1 to `T`.
///
/// | schedule | sparsity after step t |
/// |---|---|
/// | `OneShot` | s₁ |
/// | `Linear` | s₀ + (s₁ − s₀) t/T |
/// | `Cubic` | s₁ + (s₀ − s₁)(1 − t/T)³ (Zhu and Gupta 2017, arXiv:1710.01878, equation 1) |
/// | `Exponential` | 1 − (1 − s₀) ((1 − s₁)/(1 − s₀))^{t/T} (Tanaka et al. 2020; Frankle and Carbin 2019) |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// All at once.
    OneShot,
    /// The same number of weights each step.
    Linear {
        /// T
        steps: usize,
    },
    /// Fast at first, slow towards the end.
    Cubic {
        /// T
        steps: usize,
    },
    /// The same share of what is left each step.
    Exponential {
        /// T
        steps: usize,
    },
}

impl Schedule {
    /// The sparsities after each step; the last is exactly `last`.
    ///
    /// ```
    /// use lacuna::prune::Schedule;
    /// assert_eq!(Schedule::Linear { steps: 4 }.sparsities(0.0, 0.8).unwrap(), [0.2, 0.4, 0.6000000000000001, 0.8]);
    /// assert_eq!(Schedule::Cubic { steps: 2 }.sparsities(0.0, 0.8).unwrap(), [0.7000000000000001, 0.8]);
    /// ```
    ///
    /// # Errors
    /// If a sparsity is not in [0, 1), the first is above the last, or there are no steps.
    pub fn sparsities(self, first: f64, last: f64) -> Result<Vec<f64>> {
        Budget::from_sparsity(1, first)?;
        Budget::from_sparsity(1, last)?;
        if first > last {
            return Err(crate::Error::invalid_option(
                "sparsity",
                format!("a schedule grows: it cannot go from {first} to {last}"),
            ));
        }
        let steps = match self {
            Schedule::OneShot => return Ok(vec![last]),
            Schedule::Linear { steps } | Schedule::Cubic { steps } | Schedule::Exponential { steps } => steps,
        };
        let at = |t: usize| {
            let share = t as f64 / steps as f64;
            match self {
                _ if t == steps => last,
                Schedule::OneShot => last,
                Schedule::Linear { .. } => first + (last - first) * share,
                Schedule::Cubic { .. } => last + (first - last) * (1.0 - share).powi(3),
                Schedule::Exponential { .. } => 1.0 - (1.0 - first) * ((1.0 - last) / (1.0 - first)).powf(share),
            }
        };
        if steps == 0 {
            return Err(crate::Error::invalid_option("steps", "a schedule has at least one step"));
        }
        Ok((1..=steps).map(at).collect())
    }
}

/// Prunes step by step from the sparsity that the model has to `sparsity` (in place of the pruning's own target),
/// measuring anew before each step and calling `recover(model, step)` after each, `step` counting from 0, for example to
/// train. Masks only ever drop more: a weight that went stays away.
///
/// The outcome's predicted increase is the last step's.
///
/// # Errors
/// Those of [`one_shot`](crate::prune::one_shot), of the schedule (a model that is sparser already), and of `recover`; an N:M pattern, which has
/// one sparsity, with a schedule of several steps.
pub fn iterative<M, S>(
    model: &M,
    data: &S,
    pruning: &Pruning<'_>,
    schedule: Schedule,
    sparsity: f64,
    mut recover: impl FnMut(&mut M, usize) -> Result<()>,
) -> Result<Outcome<M>>
where
    M: Model + Clone,
    S: Samples<Batch = M::Batch>,
{
    let mut outcome = Outcome { model: model.clone(), masks: Vec::new(), predicted_increase: None };
    for (step, sparsity) in steps(model, pruning, schedule, sparsity)?.into_iter().enumerate() {
        let pruning = Pruning { target: Target::Sparsity(sparsity), ..*pruning };
        check_pruning(&outcome.model, &pruning)?;
        let measured = measure(&outcome.model, data, pruning.saliency.needs())?;
        (outcome.masks, outcome.predicted_increase) = prune_layers(&mut outcome.model, &measured, &pruning)?;
        recover(&mut outcome.model, step)?;
    }
    Ok(outcome)
}

/// The sparsities after each step, from the one that the layers have.
fn steps(model: &dyn Layers, pruning: &Pruning<'_>, schedule: Schedule, sparsity: f64) -> Result<Vec<f64>> {
    if matches!(pruning.pattern, Pattern::Nm { .. }) && schedule != Schedule::OneShot {
        let reason = format!("pattern {} has one sparsity, which cannot be reached in steps", pruning.pattern);
        return Err(crate::Error::invalid_option("schedule", reason));
    }
    let (mut kept, mut of) = (0, 0);
    for layer in model.layers().iter().filter(|l| !pruning.skip.iter().any(|s| l.is_called(s))) {
        kept += model.mask(&layer.name)?.map_or(layer.len(), |mask| mask.kept());
        of += layer.len();
    }
    let now = if of == 0 { 0.0 } else { 1.0 - kept as f64 / of as f64 };
    // Whole weights do not hit every share: a model that has what is asked for is not sparser than that.
    let now = if Budget::from_sparsity(of, sparsity)?.keep() == kept { now.min(sparsity) } else { now };
    schedule.sparsities(now, sparsity)
}
