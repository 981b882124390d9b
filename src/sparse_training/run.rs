//! A run of sparse training.

use super::flops::TrainingFlops;
use super::method::{Prunable, SparseMethod};
use crate::Result;
use crate::nn::{Mode, Model, Samples};
use crate::train::{Hooks, TrainConfig, check_training, run_steps};

/// What a run found.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseTraining {
    /// The mean loss of each epoch, of the weights that were run.
    pub losses: Vec<f64>,
    /// What it cost.
    pub flops: TrainingFlops,
}

/// Trains any model by a method: as [`train_model`](crate::train::train_model), with the method between steps. In the end the model has its last weights, and
/// masks on its layers that are held in whatever comes after. The random numbers of the method are streams of the config's seed.
///
/// `seen(model, epoch, mean loss)` is called after each epoch. A method that trains other weights than those that are run
/// ([`Reparametrized`](super::Reparametrized)) shows those that it trains.
///
/// The same model, data, config and method give the same bits for any number of threads.
///
/// ```
/// use lacuna::calibrate::Calibration;
/// use lacuna::data::digits;
/// use lacuna::models::{Init, mlp};
/// use lacuna::nn::{Activation, Layers, Loss, Method};
/// use lacuna::rng::Seed;
/// use lacuna::sparse_training::{MaskChoice, Rigl, train_sparse};
/// use lacuna::train::{Decay, TrainConfig};
///
/// let (all, seed) = (digits(), Seed(0));
/// let mut net = mlp(&[64, 32, 10], Activation::Relu, Init::He, seed)?;
/// let (x, target) = (all.x().clone(), all.one_hot(1.0, 0.0));
/// let (loss, method, decay) = (Loss::CrossEntropy, Method::Adam { weight_decay: 0.0 }, Decay::Constant);
/// let config = TrainConfig { loss, method, learning_rate: 1e-3, decay, epochs: 2, batch: 64, seed };
/// let found = train_sparse(&mut net, &Calibration::new(&x, &target, loss), &config, &mut Rigl::new(MaskChoice::uniform(0.75)), &mut |_, _, _| Ok(()))?;
/// assert_eq!(net.mask("fc1")?.map(|m| m.kept()), Some(64 * 32 / 4));
/// assert!(found.losses[1] < found.losses[0] && found.flops.fraction() < 0.3);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// As [`train_model`](crate::train::train_model), and those of the method.
pub fn train_sparse<M, S>(
    model: &mut M,
    data: &S,
    config: &TrainConfig,
    method: &mut dyn SparseMethod,
    seen: &mut dyn FnMut(&mut M, usize, f64) -> Result<()>,
) -> Result<SparseTraining>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    check_training(model, data, config)?;
    let steps = config.epochs.saturating_mul(data.len().div_ceil(config.batch));
    method.begin(model, config.seed, steps)?;
    let layers = model.layers();
    let mut flops = TrainingFlops::default();
    let method = std::cell::RefCell::new(method);
    let before = &mut |model: &mut M, at| {
        let mut method = method.borrow_mut();
        method.before_step(model, at)?;
        flops.add(&layers, &method.used(model, at)?, at.rows);
        Ok(())
    };
    let step = &mut |model: &mut M, gradients, optimizer: &mut _, at| {
        method.borrow_mut().step(model as &mut dyn Prunable, gradients, optimizer, at)
    };
    let forward = &mut |model: &M, batch: M::Batch| model.forward(&batch, Mode::Train, &mut ());
    let hooks = Hooks { before, step, forward, through: &|_| Ok(None), after: &mut |_| (), seen };
    let losses = run_steps(model, data, config, hooks)?;
    method.into_inner().finish(model)?;
    Ok(SparseTraining { losses, flops })
}
