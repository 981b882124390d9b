//! Training, with the masks held: from the beginning, or to recover after pruning.
//!
//! | | |
//! |---|---|
//! | [`train_model`] | any model, on anything |
//! | [`fit`] | a chain of layers, on targets |
//! | [`train`] | on any [`Objective`] ([`Distil`], for one), with dropout, max-norm or jitter ([`Regularization`]) |
//! | [`train_discretised`] | through weights of a few levels |
//! | [`bfgs`] | to a minimum, for small networks |
//! | [`munge`] | makes samples for a student out of few |
//! | [`side_by_side`] | several networks at once, a thread for each |
//! | [`Trainer`] | step by step, whatever a [`Feed`] gives: passes added up, warm-up, clipping |
//! | [`Trainable`] | which numbers of a model move: all, some by name, factors of [`LowRank`], weights behind the levels of [`FakeQuantized`] |
//! | [`SampleFeed`], [`train_moving`] | samples in epochs, for a [`Trainer`] of any model |
//! | [`LanguageFeed`] | what language models train on: packed documents, with a teacher or without |
//! | [`HiddenStates`] | blocks whose hidden states are learnt from a teacher's too |
//! | [`WeightAverage`] | a running average of what moves |
//! | [`TeacherCache`] | what a teacher says of a text, in a file |
//! | [`save_optimizer`], [`load_optimizer`] | what an optimiser remembers, in a file |
//! | [`save_state`], [`load_state`] | that, and the parameters that it moves |

mod bfgs;
mod munge;
mod side;
mod state;
mod rate;
mod low_rank;
mod fake_quantized;
mod trainable;
mod trainer;
mod average;
mod hidden;
mod divergence;
mod teacher_cache;
mod language;
mod steps;
mod sample_feed;
mod fit;
mod discretised;
mod distil;

pub use crate::nn::{Objective, Targets};
pub use average::WeightAverage;
pub use bfgs::{Bfgs, bfgs};
pub use discretised::{discretised, train_discretised};
pub use distil::{Distil, distillation};
pub use divergence::{Divergence, TeacherLoss};
pub use fake_quantized::{FakeQuantized, StepRule};
pub use fit::{Jitter, Regularization, train};
pub use hidden::{HiddenLoss, HiddenPair, HiddenProjections, HiddenStates};
pub use language::{LanguageFeed, LanguageGoal, TokenDistillation};
pub use low_rank::{LowRank, LowRankConfig};
pub use munge::{Munge, munge};
pub use rate::{Cooldown, LearningRate};
pub use sample_feed::{SampleFeed, train_moving};
pub use side::side_by_side;
pub use state::{load_optimizer, load_state, save_optimizer, save_state};
pub(crate) use steps::{Hooks, check_training, run as run_steps};
pub use steps::{TrainStep, train_model};
pub use teacher_cache::{CacheEntries, CachedDistillation, CachedRows, TeacherCache};
pub use trainable::{Together, Trainable};
pub use trainer::{Feed, Pass, StepRecord, Trainer};

use crate::Result;
use crate::nn::{Loss, Method, Network};
use crate::rng::Seed;
use ndarray::ArrayRef2;
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
pub struct TrainConfig {
    /// What is made small.
    pub loss: Loss,
    /// The optimiser.
    pub method: Method,
    /// At the first step; at least 0.
    pub learning_rate: f32,
    /// How it falls.
    pub decay: Decay,
    /// Passes over the data; after none the network is as it was.
    pub epochs: usize,
    /// Samples a step; the last step of an epoch may have fewer.
    pub batch: usize,
    /// Orders the samples.
    pub seed: Seed,
}

/// Trains on `x (samples, inputs)` and `target (samples, outputs)`, samples in a new random order each epoch, and returns the
/// mean training loss of each epoch. Masks are held: masked parameters are 0 after every step, and so is their momentum.
///
/// The same network, data and config give the same bits for any number of threads.
///
/// # Errors
/// If there is no data, its shapes do not fit the network, a sample or a setting is not a number that it can be, or the loss or a
/// parameter is no longer finite.
pub fn fit(network: &mut Network, x: &ArrayRef2<f32>, target: &ArrayRef2<f32>, config: &TrainConfig) -> Result<Vec<f64>> {
    fit_with(network, x, target, config, &mut |_, _| {})
}

/// As [`fit`], calling `seen(epoch, mean loss)` after each epoch.
///
/// # Errors
/// As [`fit`].
pub fn fit_with(
    network: &mut Network,
    x: &ArrayRef2<f32>,
    target: &ArrayRef2<f32>,
    config: &TrainConfig,
    seen: &mut dyn FnMut(usize, f64),
) -> Result<Vec<f64>> {
    train(network, x, &Targets { target, loss: config.loss }, config, &Regularization::default(), seen)
}
