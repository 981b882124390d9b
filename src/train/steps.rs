//! The training loop, of any model on anything.

use crate::nn::{Gradients, Method, Mode, Model, Optimizer, Parameters, Samples, Sink};
use crate::train::TrainConfig;
use crate::{Error, Result};

/// Where a run of training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainStep {
    /// This step, from 0.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// Of this step.
    pub learning_rate: f32,
    /// Rows of outputs of this step: samples of a network, tokens of a language model.
    pub rows: usize,
}

/// Runs a model on a batch.
type Forward<'f, M> = dyn FnMut(&M, <M as Model>::Batch) -> Result<<M as Model>::Tape> + 'f;

/// Moves a model by its gradients.
type Step<'f, M> = dyn FnMut(&mut M, Gradients, &mut Optimizer, TrainStep) -> Result<()> + 'f;

/// The plain step: along the gradients.
pub(crate) fn plain_step<M: Model>(model: &mut M, gradients: Gradients, optimizer: &mut Optimizer, at: TrainStep) -> Result<()> {
    optimizer.step(model, &gradients, at.learning_rate)
}

/// What a loop does beside its steps.
pub(crate) struct Hooks<'h, M: Model> {
    /// Called before each step.
    pub before: &'h mut dyn FnMut(&mut M, TrainStep) -> Result<()>,
    /// Moves the model by its gradients.
    pub step: &'h mut Step<'h, M>,
    /// The run forward of a step.
    pub forward: &'h mut Forward<'h, M>,
    /// The model whose losses and gradients move the one that is trained, if it is another.
    pub through: &'h dyn Fn(&M) -> Result<Option<M>>,
    /// Called after each step.
    pub after: &'h mut dyn FnMut(&mut M),
    /// Called after each epoch with its mean loss.
    pub seen: &'h mut dyn FnMut(&mut M, usize, f64) -> Result<()>,
}

/// Trains any model: a language model as a chain of layers. Samples come in a new random order each epoch, `config.batch` of them a step;
/// masks are held: what they drop is 0 after every step, and so is its momentum. `seen(model, epoch, mean loss)` is called after each
/// epoch. Returns these losses, means over the rows that have something to learn. The config's loss is not used, the objective of the
/// samples is.
///
/// The same model, data and config give the same bits for any number of threads.
///
/// ```
/// use lacuna::{calibrate::Calibration, models::{Init, mlp}, nn::{Activation, Loss, Method}, rng::Seed};
/// use lacuna::train::{Decay, TrainConfig, train_model};
/// use ndarray::array;
/// let mut net = mlp(&[1, 1], Activation::Tanh, Init::LeCun, Seed(0))?;
/// let (x, t) = (array![[1.], [2.]], array![[2.], [4.]]);
/// let method = Method::Sgd { momentum: 0., weight_decay: 0. };
/// let (loss, decay, seed) = (Loss::SquaredError, Decay::Constant, Seed(0));
/// let config = TrainConfig { loss, method, learning_rate: 0.1, decay, epochs: 200, batch: 2, seed };
/// let losses = train_model(&mut net, &Calibration::new(&x, &t, loss), &config, &mut |_, _, _| Ok(()))?;
/// assert!(losses[199] < losses[0] / 10.);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// If there are no samples or they do not fit the model, a setting is not a number that it can be, or the loss or a parameter is no longer
/// finite; what `seen` returns.
pub fn train_model<M, S>(
    model: &mut M,
    data: &S,
    config: &TrainConfig,
    seen: &mut dyn FnMut(&mut M, usize, f64) -> Result<()>,
) -> Result<Vec<f64>>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    check_training(model, data, config)?;
    let forward = &mut |model: &M, batch: M::Batch| model.forward(&batch, Mode::Train, &mut ());
    let hooks =
        Hooks { before: &mut |_, _| Ok(()), step: &mut plain_step, forward, through: &|_| Ok(None), after: &mut |_| (), seen };
    run(model, data, config, hooks)
}

/// Refuses what cannot be trained so.
pub(crate) fn check_training<M, S>(model: &M, data: &S, config: &TrainConfig) -> Result<()>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    let samples = data.len();
    if samples == 0 || config.batch == 0 {
        return Err(Error::invalid_option("training", format!("{samples} samples in batches of {}", config.batch)));
    }
    data.check(model.widths())?;
    model.check_finite()?;
    check_settings(config)
}

/// The loop.
pub(crate) fn run<M, S>(model: &mut M, data: &S, config: &TrainConfig, hooks: Hooks<'_, M>) -> Result<Vec<f64>>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    let (samples, objective) = (data.len(), data.objective());
    let mut optimizer = Optimizer::new(config.method);
    let mut order = config.seed.stream("order of samples");
    let steps = config.epochs.saturating_mul(samples.div_ceil(config.batch));
    let (mut step, mut losses) = (0, Vec::new());
    for epoch in 0..config.epochs {
        let (mut sum, mut count) = (0.0, 0);
        for part in order.permutation(samples).chunks(config.batch) {
            let rows = data.rows(part);
            let learning_rate = config.learning_rate * config.decay.factor(step, steps);
            let at = TrainStep { step, steps, learning_rate, rows: rows.len() };
            (hooks.before)(model, at)?;
            let made = (hooks.through)(model)?;
            let tape = (hooks.forward)(made.as_ref().unwrap_or(model), data.batch(part))?;
            model.absorb(&tape);
            let back = |sink: &mut Sink<'_>| made.as_ref().unwrap_or(model).backward(tape, objective, &rows, sink);
            let (loss, gradients) = Gradients::of(back)?;
            sum += loss;
            count += objective.count(&rows);
            if !loss.is_finite() {
                return Err(failed(&format!("the loss is {loss}"), epoch, config));
            }
            (hooks.step)(model, gradients, &mut optimizer, at)?;
            (hooks.after)(model);
            step += 1;
        }
        let loss = sum / count as f64;
        if let Some(met) = broken(model, loss) {
            return Err(failed(&met, epoch, config));
        }
        (hooks.seen)(model, epoch, loss)?;
        losses.push(loss);
    }
    Ok(losses)
}

fn failed(met: &str, epoch: usize, config: &TrainConfig) -> Error {
    let reason = format!("{met} in epoch {epoch} at learning rate {}; a lower rate would help", config.learning_rate);
    Error::Numerical { what: "training".into(), reason }
}

/// What went wrong in an epoch, if anything.
fn broken(model: &dyn Parameters, loss: f64) -> Option<String> {
    if !loss.is_finite() {
        return Some(format!("the loss is {loss}"));
    }
    // The last step of an epoch is in no loss yet, and a rectifier would hide a NaN.
    let mut found = None;
    model.visit(&mut |name, values, _| {
        if found.is_none() && values.iter().any(|w| !w.is_finite()) {
            found = Some(format!("{name} is no longer finite"));
        }
    });
    found
}

/// Refuses numbers that a config cannot have.
pub(super) fn check_settings(config: &TrainConfig) -> Result<()> {
    let at_least_0 = |option: &str, value: f32| {
        let reason = || format!("{value}; it must be a finite number of at least 0");
        if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(Error::invalid_option(option, reason())) }
    };
    at_least_0("learning rate", config.learning_rate)?;
    let (Method::Sgd { weight_decay, .. } | Method::Adam { weight_decay } | Method::AdamW { weight_decay }) = config.method;
    at_least_0("weight decay", weight_decay)?;
    if let Method::Sgd { momentum, .. } = config.method
        && !(0.0..1.0).contains(&momentum)
    {
        return Err(Error::invalid_option("momentum", format!("{momentum} is not in [0, 1)")));
    }
    Ok(())
}
