//! Reconstruction of a pruned block: its kept weights and its norms move so that it gives again what the dense model's block gives.
//!
//! After Guo et al. *EBFT: effective and block-wise fine-tuning for sparse LLMs.* 2024, arXiv:2402.12419, and, attention and feed-forward layers apart,
//! *A free lunch in LLM compression: revisiting retraining after pruning.* 2025, arXiv:2510.14444.
//!
//! ```text
//! min over kept weights, norms   Σ_t ‖B_θ(h_t) − T_t‖² / ‖T_t‖²
//! ```
//!
//! B is attention, and then the feed-forward layers, each once its layers are pruned and before anything behind it is measured; both together where
//! they run side by side or where a block is measured at once. h are the hidden states that the pruned model gives before it, T those that the dense
//! model gives behind it. AdamW without decay, a sequence a step, warm-up over a twentieth of the steps and half a cosine to a fifth of the rate. What
//! the masks drop stays 0 through every step. Weights that are in codes stay in codes: what trains are the weights behind them and their scales
//! ([`FakeQuantized`], after Chen et al. *EfficientQAT.* ACL 2025, arXiv:2407.11062, whose zero points train too). One of eight parts of the calibration is kept aside, or a text that is held out; after each pass the error
//! there is measured, and the least stays.
//!
//! Departure: errors are relative to each token. What follows reads hidden states through a norm, and those of a few tokens are a thousand times as
//! large as others: their squares would be most of the sum.
//!
//! Cost: a pass runs each block forward once and back once over all tokens.

use super::activations::Activations;
use crate::data::SequenceOrder;
use crate::mask::Mask;
use crate::nn::attention::Carry;
use crate::nn::{AdamConstants, Block, Change, Gradients, Linear, Method, Norm, Optimizer, Parameters, Positions, See, Sink};
use crate::rng::Seed;
use crate::train::{Cooldown, FakeQuantized, LearningRate, Trainable};
use crate::{Error, Result};
use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How blocks are reconstructed.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `passes` | | from 1 | over the calibration |
/// | `learning_rate` | 3e-5 | above 0 | the largest of AdamW |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BlockReconstruction {
    /// Over the calibration.
    pub passes: usize,
    /// The largest of AdamW.
    pub learning_rate: f64,
}

impl BlockReconstruction {
    /// So many passes.
    pub fn new(passes: usize) -> BlockReconstruction {
        BlockReconstruction { passes, learning_rate: 3e-5 }
    }

    /// The same with another learning rate.
    #[must_use]
    pub fn learning_rate(self, rate: f64) -> BlockReconstruction {
        BlockReconstruction { learning_rate: rate, ..self }
    }
}

/// A block as parameters.
struct Numbers<'b>(&'b mut Block);

impl Parameters for Numbers<'_> {
    fn visit(&self, f: &mut See<'_>) {
        self.0.visit(f);
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.0.visit_mut(f)
    }

    fn set_mask(&mut self, name: &str, _: Option<Mask>) -> Result<()> {
        Err(Error::invalid_option("mask", format!("{name}: masks of a block are held on its layers")))
    }
}

/// What of a block moves: these of its parameters, of which some may run on levels.
fn moving<'b>(block: &'b mut Block, names: &BTreeSet<String>, levels: Option<FakeQuantized>) -> Result<Trainable<Numbers<'b>>> {
    let mut frozen = BTreeSet::new();
    block.visit(&mut |name, _, _| {
        if !names.contains(name) {
            frozen.insert(name.to_string());
        }
    });
    match levels {
        None => Trainable::without(Numbers(block), frozen),
        Some(levels) => Trainable::on_levels(Numbers(block), levels, frozen),
    }
}

/// What of a block is trained at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::prune) enum Trained {
    /// Attention and the norms about it.
    Attention,
    /// The feed-forward layers and the norms about them.
    Feed,
    /// Both, where they run side by side or were measured at once.
    Block,
}

impl Trained {
    fn linears(self, block: &Block) -> Vec<&Linear> {
        match self {
            Trained::Attention => block.attention().linears(),
            Trained::Feed => block.feed_forward().map_or_else(Vec::new, |feed| feed.linears()),
            Trained::Block => block.linears(),
        }
    }

    fn norms(self, block: &Block) -> Vec<&Norm> {
        match self {
            Trained::Attention => [block.norm.as_ref(), block.attention_after.as_ref()].into_iter().flatten().collect(),
            Trained::Feed => [block.feed_norm.as_ref(), block.feed_after.as_ref()].into_iter().flatten().collect(),
            Trained::Block => block.norms(),
        }
    }

    /// The parameters that move where these layers of the block were pruned: their weights and biases, and the norms; none where no layer was.
    pub fn moving(self, block: &Block, pruned: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for layer in self.linears(block).into_iter().filter(|l| pruned(l.name())) {
            names.insert(layer.tensor());
            names.insert(layer.bias_tensor());
        }
        if !names.is_empty() {
            for norm in self.norms(block) {
                names.extend([format!("{}.weight", norm.name()), format!("{}.bias", norm.name())]);
            }
        }
        names
    }

    fn forward(self, block: &Block, h: &mut Array2<f32>, at: &Positions) {
        match self {
            Trained::Attention => block.add_attention(h, &block.mixed(&block.attention_x(h), at)),
            Trained::Feed => block.add_feed(h, &block.inner(&block.feed_x(h))),
            Trained::Block => block.forward(h, at, &mut ()),
        }
    }

    fn learn(
        self,
        block: &Block,
        h: &Array2<f32>,
        at: &Positions,
        slope: &mut dyn FnMut(&mut Array2<f32>) -> f64,
        carry: &mut Carry<'_, '_>,
    ) -> f64 {
        match self {
            Trained::Attention => block.learn_attention(h, at, slope, carry),
            Trained::Feed => block.learn_feed(h, slope, carry),
            Trained::Block => {
                let mut d = h.clone();
                block.forward(&mut d, at, &mut ());
                let loss = slope(&mut d);
                block.back((h, None), at, &mut d, None, carry);
                loss
            }
        }
    }
}

/// The parts of the hidden states: where their tokens stand, and those of a text that is held out, which are only looked at.
pub(in crate::prune) struct Parts<'a> {
    pub positions: &'a [Positions],
    pub judged: Vec<usize>,
}

impl Parts<'_> {
    /// The parts that are only looked at, and those that are learnt from. Without a text that is held out every eighth is looked at; where there are too
    /// few parts to keep some aside, all are trained on and looked at.
    fn split(&self) -> (Vec<usize>, Vec<usize>) {
        let count = self.positions.len();
        if !self.judged.is_empty() {
            return (0..count).partition(|part| self.judged.contains(part));
        }
        match count {
            0..ASIDE => ((0..count).collect(), (0..count).collect()),
            _ => (0..count).partition(|part| part % ASIDE == ASIDE - 1),
        }
    }
}

/// What became of a block.
pub(in crate::prune) struct Reconstructed {
    /// The relative squared error before and after, means over tokens.
    pub errors: (f64, f64),
    /// The levels of weights in codes, as they are now.
    pub levels: Option<FakeQuantized>,
}

/// Trains a block whose masks are held, some of its weights on `levels`; the levels as they are then. `inputs` and `targets` are the parts of hidden
/// states before what is trained and behind the dense model's, of tokens `parts`; they are put back as they were. What had the least error on the parts
/// that are only looked at stays, which may be what the block was before.
///
/// # Errors
/// If nothing is to move, or the disk refuses; [`Error::Numerical`] if an error is not finite.
pub(in crate::prune) fn reconstruct(
    block: &mut Block,
    (names, trained, levels): (&BTreeSet<String>, Trained, Option<FakeQuantized>),
    (inputs, targets): (&mut Activations, &mut Activations),
    parts: &Parts<'_>,
    how: BlockReconstruction,
) -> Result<Reconstructed> {
    let (positions, (judged, learnt)) = (parts.positions, parts.split());
    let of_a_pass: usize = learnt.iter().map(|part| positions[*part].sequences).sum();
    let steps = how.passes * of_a_pass;
    let rate = LearningRate::new(how.learning_rate).warmup(steps.div_ceil(20)).cooldown(Cooldown::Cosine).floor(0.2);
    let constants = AdamConstants { beta2: 0.99, ..AdamConstants::default() };
    let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.0 }).with_constants(constants);
    let mut order = SequenceOrder::new(learnt.len(), Seed(0));
    let mut moving = moving(block, names, levels)?;
    let before = error(moving.model().0, trained, (inputs, targets), (positions, &judged))?;
    let (mut best, mut least) = (taken(&moving), before);
    let (mut step, mut part) = (0, 0);
    while step < steps {
        // A part is read once for all of its sequences.
        let number = learnt[order.at(part)];
        part += 1;
        let (h, target) = (inputs.take(number)?, targets.take(number)?);
        let at = &positions[number];
        let one = Positions { sequences: 1, ..at.clone() };
        for first in (0..at.tokens()).step_by(one.tokens()) {
            let rows = s![first..first + one.tokens(), ..];
            let (h, target) = (h.slice(rows).to_owned(), target.slice(rows));
            let scale = 2.0 / one.tokens() as f32;
            let (mut gradients, mut added) = (Gradients::default(), Ok(()));
            let sink: &mut Sink<'_> = &mut |name, gradient| {
                if added.is_ok() {
                    added = moving.add_gradient(&mut gradients, name, gradient);
                }
            };
            let slope = &mut |out: &mut Array2<f32>| relative(out, target, scale);
            let loss = trained.learn(moving.model().0, &h, &one, slope, &mut Carry::new(sink));
            added?;
            if !loss.is_finite() {
                let reason =
                    format!("the error is {loss} at step {step} of {steps}; a lower rate than {} would help", how.learning_rate);
                return Err(Error::Numerical { what: "reconstruction of a block".into(), reason });
            }
            let norm = gradients.norm();
            if norm > 1.0 {
                gradients.scale((1.0 / norm) as f32);
            }
            optimizer.step(&mut moving, &gradients, rate.at(step, steps))?;
            moving.settle()?;
            step += 1;
        }
        inputs.put(number, h)?;
        targets.put(number, target)?;
        if step.is_multiple_of(of_a_pass) {
            let now = error(moving.model().0, trained, (inputs, targets), (positions, &judged))?;
            if now < least {
                (best, least) = (taken(&moving), now);
            }
        }
    }
    let mut values = best.into_iter();
    moving.visit_mut(&mut |_, to, _| {
        if let Some(from) = values.next() {
            to.copy_from_slice(&from);
        }
    })?;
    moving.settle()?;
    Ok(Reconstructed { errors: (before, least), levels: moving.into_levels() })
}

/// Of so many parts of the calibration one is kept aside.
const ASIDE: usize = 8;

/// What moves, in the order of [`Parameters::visit_mut`].
fn taken(moving: &Trainable<Numbers<'_>>) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    moving.visit(&mut |_, values, _| all.push(values.iter().copied().collect()));
    all
}

/// Σ ‖y − t‖² / ‖t‖² over tokens; `out` becomes `scale · (y − t) / ‖t‖²`.
fn relative(out: &mut Array2<f32>, target: ndarray::ArrayView2<'_, f32>, scale: f32) -> f64 {
    let mut sum = 0.0;
    for (mut y, t) in out.rows_mut().into_iter().zip(target.rows()) {
        let whole = t.iter().map(|&t| f64::from(t) * f64::from(t)).sum::<f64>().max(f64::MIN_POSITIVE);
        y -= &t;
        sum += y.iter().map(|&d| f64::from(d) * f64::from(d)).sum::<f64>() / whole;
        y *= (f64::from(scale) / whole) as f32;
    }
    sum
}

fn error(
    block: &Block,
    trained: Trained,
    (inputs, targets): (&mut Activations, &mut Activations),
    (positions, judged): (&[Positions], &[usize]),
) -> Result<f64> {
    let (mut sum, mut tokens) = (0.0, 0);
    for &i in judged {
        let (h, target) = (inputs.take(i)?, targets.take(i)?);
        let mut out = h.clone();
        trained.forward(block, &mut out, &positions[i]);
        sum += relative(&mut out, target.view(), 0.0);
        tokens += positions[i].tokens();
        inputs.put(i, h)?;
        targets.put(i, target)?;
    }
    Ok(sum / tokens.max(1) as f64)
}
