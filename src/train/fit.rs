//! The training loop, whatever is learnt and with whatever care.

use crate::nn::{Dropout, Layer, Loss, Method, Mode, Network, Optimizer};
use crate::rng::Stream;
use crate::train::TrainConfig;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};
use serde::{Deserialize, Serialize};

/// What is learnt: a loss of each sample and its derivative in the network's outputs.
pub trait Lesson {
    /// `(samples, outputs)` of what is learnt.
    fn dim(&self) -> (usize, usize);

    /// The sum of the losses of samples `rows`, whose outputs are `output (rows, outputs)`, and the derivative of each
    /// sample's loss in its outputs, not averaged.
    fn judge(&self, rows: &[usize], output: &Array2<f32>) -> (f64, Array2<f32>);
}

/// The plain lesson: a target for each sample.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// `(samples, outputs)`.
    pub target: &'a ArrayRef2<f32>,
    /// What is made small.
    pub loss: Loss,
}

impl Lesson for Targets<'_> {
    fn dim(&self) -> (usize, usize) {
        self.target.dim()
    }

    fn judge(&self, rows: &[usize], output: &Array2<f32>) -> (f64, Array2<f32>) {
        let target = self.target.select(Axis(0), rows);
        (self.loss.values(output, &target).sum(), self.loss.gradient(output, &target))
    }
}

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
/// returns these losses. Masks are held as by [`fit`](crate::train::fit); the recipe's loss is not used, the lesson's is.
///
/// The same network, data, recipe and care give the same bits for any number of threads.
///
/// # Errors
/// If there is no data, its shapes do not fit the network, a sample or a setting is not a number that it can be (the batch is 0, the
/// rate is NaN, a share of dropout is not in [0, 1)), or the loss or a parameter is no longer finite.
pub fn train(
    network: &mut Network,
    x: &ArrayRef2<f32>,
    lesson: &dyn Lesson,
    recipe: &TrainConfig,
    care: &Regularization,
    seen: &mut dyn FnMut(usize, f64),
) -> Result<Vec<f64>> {
    let mut seen = |_: &Network, epoch: usize, loss: f64| {
        seen(epoch, loss);
        Ok(())
    };
    train_through(network, x, lesson, recipe, care, &|_| Ok(None), &mut seen)
}

/// As [`train`], but losses and gradients are those of the network that `through` makes of the one that is trained, if it makes one.
pub(super) fn train_through(
    network: &mut Network,
    x: &ArrayRef2<f32>,
    lesson: &dyn Lesson,
    recipe: &TrainConfig,
    care: &Regularization,
    through: &dyn Fn(&Network) -> Result<Option<Network>>,
    seen: &mut dyn FnMut(&Network, usize, f64) -> Result<()>,
) -> Result<Vec<f64>> {
    let samples = x.nrows();
    check(network, x, lesson, recipe, care)?;
    let mut optimizer = Optimizer::new(recipe.method);
    let mut order = recipe.seed.stream("order of samples");
    let (mut dropped, mut moved) = (recipe.seed.stream("dropout"), recipe.seed.stream("jitter"));
    let steps = recipe.epochs.saturating_mul(samples.div_ceil(recipe.batch));
    let (mut step, mut losses) = (0, Vec::new());
    for epoch in 0..recipe.epochs {
        let mut sum = 0.0;
        for part in order.permutation(samples).chunks(recipe.batch) {
            let mut x = x.select(Axis(0), part);
            if let Some(jitter) = care.jitter {
                jitter.apply(&mut x, &mut moved);
            }
            let made = through(network)?;
            let forward = made.as_ref().unwrap_or(network);
            let tape = match care.dropout {
                Some(dropout) => forward.run_dropped(x, dropout, &mut dropped),
                None => forward.run(x, Mode::Train),
            };
            let (loss, mut d) = lesson.judge(part, tape.output());
            sum += loss;
            d *= 1.0 / part.len() as f32;
            let gradients = forward.backward(&tape, d);
            network.absorb_statistics(&tape);
            let gradients = network.named(gradients);
            optimizer.step(network, &gradients, recipe.learning_rate * recipe.decay.factor(step, steps))?;
            if let Some(most) = care.max_norm {
                shorten(network, most);
            }
            step += 1;
        }
        let loss = sum / samples as f64;
        // The last step of an epoch is in no loss yet, and a rectifier would hide a NaN.
        let broken = || network.params().into_iter().find(|(_, p)| p.as_slice().iter().any(|w| !w.is_finite()));
        let met = if loss.is_finite() {
            broken().map(|(name, _)| format!("{name} is no longer finite"))
        } else {
            Some(format!("the loss is {loss}"))
        };
        if let Some(met) = met {
            let reason = format!("{met} in epoch {epoch} at learning rate {}; a lower rate would help", recipe.learning_rate);
            return Err(Error::Numerical { what: "training".into(), reason });
        }
        seen(network, epoch, loss)?;
        losses.push(loss);
    }
    Ok(losses)
}

pub(super) fn check(
    network: &Network,
    x: &ArrayRef2<f32>,
    lesson: &dyn Lesson,
    recipe: &TrainConfig,
    care: &Regularization,
) -> Result<()> {
    let (samples, (lessons, outputs)) = (x.nrows(), lesson.dim());
    if samples == 0 || recipe.batch == 0 {
        return Err(Error::setting("training", format!("{samples} samples in batches of {}", recipe.batch)));
    }
    if x.ncols() != network.inputs() || lessons != samples {
        let found = [samples, x.ncols(), lessons];
        return Err(Error::shape("training samples, inputs and targets", &[samples, network.inputs(), samples], &found));
    }
    let expected = network.layers().iter().fold(network.inputs(), |f, (_, l)| l.outputs(f));
    if outputs != expected {
        return Err(Error::shape("training targets", &[samples, expected], &[samples, outputs]));
    }
    crate::io::check_finite("training samples", x)?;
    let at_least_0 = |option: &str, value: f32| {
        let reason = || format!("{value}; it must be a finite number of at least 0");
        if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(Error::setting(option, reason())) }
    };
    at_least_0("learning rate", recipe.learning_rate)?;
    let (Method::Sgd { weight_decay, .. } | Method::Adam { weight_decay } | Method::AdamW { weight_decay }) = recipe.method;
    at_least_0("weight decay", weight_decay)?;
    if let Method::Sgd { momentum, .. } = recipe.method
        && !(0.0..1.0).contains(&momentum)
    {
        return Err(Error::setting("momentum", format!("{momentum} is not in [0, 1)")));
    }
    if let Some(most) = care.max_norm.filter(|n| !(n.is_finite() && *n > 0.0)) {
        return Err(Error::setting(
            "max-norm",
            format!("{most}; the largest norm of a unit's weights must be a finite number above 0"),
        ));
    }
    if let Some(d) = care.dropout.filter(|d| ![d.inputs, d.hidden].iter().all(|s| (0.0..1.0).contains(s))) {
        return Err(Error::setting("dropout", format!("{} of the inputs, {} of the units: not in [0, 1)", d.inputs, d.hidden)));
    }
    let Some(Jitter { shape: (c, h, w), pixels }) = care.jitter else { return Ok(()) };
    if c.checked_mul(h).and_then(|n| n.checked_mul(w)) != Some(x.ncols()) {
        return Err(Error::shape("images to jitter", &[c, h, w], &[x.ncols()]));
    }
    if pixels >= h.min(w) {
        return Err(Error::setting(
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
