//! Training of chains of layers, whatever is learnt, with dropout, max-norm and jitter.

use super::steps::{Hooks, check_settings, plain_step, run};
use crate::nn::{Dropout, Layer, Mode, Model, Network, Objective, Samples};
use crate::rng::Stream;
use crate::train::TrainConfig;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};
use serde::{Deserialize, Serialize};

/// Images moved at random while training, by whole pixels both ways; what comes in at the border is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jitter {
    /// `(channels, height, width)`.
    pub shape: (usize, usize, usize),
    /// The largest move, in pixels.
    pub pixels: usize,
}

impl Jitter {
    /// Moves each image of `x (images, channels * height * width)` by its own two numbers.
    ///
    /// # Panics
    /// If the images are not of this shape.
    pub fn apply(&self, x: &mut Array2<f32>, random: &mut Stream) {
        let (c, h, w) = self.shape;
        assert_eq!(x.ncols(), c * h * w, "images of {:?}", self.shape);
        let mut moved = vec![0.0; c * h * w];
        let most = self.pixels as isize;
        for mut image in x.rows_mut() {
            let mut draw = || random.below(2 * self.pixels + 1) as isize - most;
            let (down, right) = (draw(), draw());
            for ((at, out), (i, j)) in moved.iter_mut().enumerate().zip((0..c * h).flat_map(|i| (0..w).map(move |j| (i, j)))) {
                let (i, j) = ((i % h) as isize - down, j as isize - right);
                let inside = (0..h as isize).contains(&i) && (0..w as isize).contains(&j);
                *out = if inside { image[at / (h * w) * h * w + i as usize * w + j as usize] } else { 0.0 };
            }
            image.iter_mut().zip(&moved).for_each(|(x, m)| *x = *m);
        }
    }
}

/// What keeps training from learning the samples by heart. The default is none of it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Regularization {
    /// Units left out at random.
    pub dropout: Option<Dropout>,
    /// The largest norm of the weights into one unit; a longer row is shortened to it after each step.
    pub max_norm: Option<f32>,
    /// Images moved at random.
    pub jitter: Option<Jitter>,
}

/// Trains on `x (samples, inputs)`, samples in a new random order each epoch, calling `seen(epoch, mean loss)` after each, and
/// returns these losses. Masks are held as by [`fit`](crate::train::fit); the config's loss is not used, the objective's is.
///
/// The same network, data, config and regularization give the same bits for any number of threads.
///
/// # Errors
/// If there is no data, its shapes do not fit the network, a sample or a setting is not a number that it can be (the batch is 0, the
/// rate is NaN, a share of dropout is not in [0, 1)), or the loss or a parameter is no longer finite.
pub fn train(
    network: &mut Network,
    x: &ArrayRef2<f32>,
    objective: &dyn Objective,
    config: &TrainConfig,
    regularization: &Regularization,
    seen: &mut dyn FnMut(usize, f64),
) -> Result<Vec<f64>> {
    let mut seen = |_: &Network, epoch: usize, loss: f64| {
        seen(epoch, loss);
        Ok(())
    };
    train_through(network, x, objective, config, regularization, &|_| Ok(None), &mut seen)
}

/// As [`train`], but losses and gradients are those of the network that `through` makes of the one that is trained, if it makes one.
pub(super) fn train_through(
    network: &mut Network,
    x: &ArrayRef2<f32>,
    objective: &dyn Objective,
    config: &TrainConfig,
    regularization: &Regularization,
    through: &dyn Fn(&Network) -> Result<Option<Network>>,
    seen: &mut dyn FnMut(&Network, usize, f64) -> Result<()>,
) -> Result<Vec<f64>> {
    check(network, x, objective, config, regularization)?;
    let mut dropped = config.seed.stream("dropout");
    let mut moved = config.seed.stream("jitter");
    let forward = &mut |network: &Network, mut x: Array2<f32>| {
        if let Some(jitter) = regularization.jitter {
            jitter.apply(&mut x, &mut moved);
        }
        Ok(match regularization.dropout {
            Some(dropout) => network.run_dropped(x, dropout, &mut dropped),
            None => network.run(x, Mode::Train),
        })
    };
    let after = &mut |network: &mut Network| {
        if let Some(most) = regularization.max_norm {
            shorten(network, most);
        }
    };
    let seen = &mut |network: &mut Network, epoch: usize, loss: f64| seen(network, epoch, loss);
    let hooks = Hooks { before: &mut |_, _| Ok(()), step: &mut plain_step, forward, through, after, seen };
    run(network, &Learnt { x, objective }, config, hooks)
}

/// Samples of a network, and an objective.
struct Learnt<'a> {
    x: &'a ArrayRef2<f32>,
    objective: &'a dyn Objective,
}

impl Samples for Learnt<'_> {
    type Batch = Array2<f32>;

    fn len(&self) -> usize {
        self.x.nrows()
    }

    fn batch(&self, samples: &[usize]) -> Array2<f32> {
        self.x.select(Axis(0), samples)
    }

    fn objective(&self) -> &dyn Objective {
        self.objective
    }
}

pub(super) fn check(
    network: &Network,
    x: &ArrayRef2<f32>,
    objective: &dyn Objective,
    config: &TrainConfig,
    regularization: &Regularization,
) -> Result<()> {
    let (samples, (rows, outputs)) = (x.nrows(), objective.dim());
    if samples == 0 || config.batch == 0 {
        return Err(Error::invalid_option("training", format!("{samples} samples in batches of {}", config.batch)));
    }
    if x.ncols() != network.inputs() || rows != samples {
        let found = [samples, x.ncols(), rows];
        return Err(Error::shape("training samples, inputs and targets", &[samples, network.inputs(), samples], &found));
    }
    let (_, expected) = network.widths().unwrap_or((network.inputs(), outputs));
    if outputs != expected {
        return Err(Error::shape("training targets", &[samples, expected], &[samples, outputs]));
    }
    crate::io::check_finite("training samples", x)?;
    check_settings(config)?;
    if let Some(most) = regularization.max_norm.filter(|n| !(n.is_finite() && *n > 0.0)) {
        return Err(Error::invalid_option(
            "max-norm",
            format!("{most}; the largest norm of a unit's weights must be a finite number above 0"),
        ));
    }
    if let Some(d) = regularization.dropout.filter(|d| ![d.inputs, d.hidden].iter().all(|s| (0.0..1.0).contains(s))) {
        return Err(Error::invalid_option(
            "dropout",
            format!("{} of the inputs, {} of the units: not in [0, 1)", d.inputs, d.hidden),
        ));
    }
    let Some(Jitter { shape: (c, h, w), pixels }) = regularization.jitter else { return Ok(()) };
    if c.checked_mul(h).and_then(|n| n.checked_mul(w)) != Some(x.ncols()) {
        return Err(Error::shape("images to jitter", &[c, h, w], &[x.ncols()]));
    }
    if pixels >= h.min(w) {
        return Err(Error::invalid_option(
            "jitter",
            format!("images of {h} x {w} moved by up to {pixels} pixels may lose all that is in them"),
        ));
    }
    Ok(())
}

/// Shortens every row of a weight that is longer than `most`.
fn shorten(network: &mut Network, most: f32) {
    let names: Vec<String> =
        network.layers().iter().filter(|(_, l)| matches!(l, Layer::Affine(_))).map(|(n, _)| n.clone()).collect();
    for (name, param) in network.params_mut() {
        if names.iter().any(|n| name.strip_prefix(n.as_str()) == Some(".weight")) {
            let cols = param.value().ncols().max(1);
            param.update(|weights, _| {
                for row in weights.chunks_mut(cols) {
                    let norm = row.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt() as f32;
                    if norm > most {
                        row.iter_mut().for_each(|w| *w *= most / norm);
                    }
                }
            });
        }
    }
}
