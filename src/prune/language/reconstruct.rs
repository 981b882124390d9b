//! Reconstruction of a pruned block: its kept weights and its norms move so that it gives again what the dense model's block gives.
//!
//! After Guo et al. *EBFT: effective and block-wise fine-tuning for sparse LLMs.* 2024, arXiv:2402.12419.
//!
//! ```text
//! min over kept weights, norms   Σ_t ‖B_θ(h_t) − T_t‖² / ‖T_t‖²
//! ```
//!
//! h are the hidden states that the pruned blocks before it give, T those behind the dense model's block, B the block with its attention and feed-forward
//! layers. AdamW without decay, a sequence a step, warm-up over a twentieth of the steps and half a cosine to a fifth of the rate. What the masks drop
//! stays 0 through every step.
//!
//! Departure: errors are relative to each token. What follows reads hidden states through a norm, and those of a few tokens are a thousand times as
//! large as others: their squares would be most of the sum.
//!
//! Cost: a pass runs each block forward twice and back once over all tokens, and keeps one copy of the hidden states more.

use super::activations::Activations;
use crate::data::SequenceOrder;
use crate::mask::Mask;
use crate::nn::attention::Carry;
use crate::nn::{AdamConstants, Block, Change, Gradients, Method, Optimizer, Parameters, Positions, See};
use crate::rng::Seed;
use crate::train::{Cooldown, LearningRate};
use crate::{Error, Result};
use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How blocks are reconstructed.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `passes` | | from 1 | over the calibration |
/// | `learning_rate` | 3e-4 | above 0 | the largest of AdamW |
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
        BlockReconstruction { passes, learning_rate: 3e-4 }
    }

    /// The same with another learning rate.
    #[must_use]
    pub fn learning_rate(self, rate: f64) -> BlockReconstruction {
        BlockReconstruction { learning_rate: rate, ..self }
    }
}

/// What of a block moves.
struct Moving<'b> {
    block: &'b mut Block,
    names: &'b BTreeSet<String>,
}

impl Parameters for Moving<'_> {
    fn visit(&self, f: &mut See<'_>) {
        self.block.visit(&mut |name, values, mask| {
            if self.names.contains(name) {
                f(name, values, mask);
            }
        });
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.block.visit_mut(&mut |name, values, mask| {
            if self.names.contains(name) {
                f(name, values, mask);
            }
        })
    }

    fn set_mask(&mut self, name: &str, _: Option<Mask>) -> Result<()> {
        Err(Error::invalid_option("mask", format!("{name}: masks of a block are held on its layers")))
    }
}

/// The parameters of a block that move where these layers of it were pruned: their weights and biases, and all norms.
pub(super) fn moving(block: &Block, pruned: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for layer in block.linears().into_iter().filter(|l| pruned(l.name())) {
        names.insert(layer.tensor());
        names.insert(layer.bias_tensor());
    }
    for norm in block.norms() {
        names.extend([format!("{}.weight", norm.name()), format!("{}.bias", norm.name())]);
    }
    names
}

/// The relative squared error of a block before and after its reconstruction, means over tokens.
pub(super) type Errors = (f64, f64);

/// Trains a block whose masks are held. `inputs` and `targets` are the parts of hidden states before the block and behind the dense one, of tokens
/// `positions`; they are put back as they were.
///
/// # Errors
/// If the disk refuses; [`Error::Numerical`] if an error is not finite.
pub(super) fn reconstruct(
    block: &mut Block,
    names: &BTreeSet<String>,
    (inputs, targets): (&mut Activations, &mut Activations),
    positions: &[Positions],
    how: BlockReconstruction,
) -> Result<Errors> {
    let sequences: usize = positions.iter().map(|at| at.sequences).sum();
    let steps = how.passes * sequences;
    let rate = LearningRate::new(how.learning_rate).warmup(steps.div_ceil(20)).cooldown(Cooldown::Cosine).floor(0.2);
    let constants = AdamConstants { beta2: 0.99, ..AdamConstants::default() };
    let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.0 }).with_constants(constants);
    let mut order = SequenceOrder::new(positions.len(), Seed(0));
    let before = error(block, (inputs, targets), positions)?;
    let (mut step, mut part) = (0, 0);
    while step < steps {
        // A part is read once for all of its sequences.
        let number = order.at(part);
        part += 1;
        let (h, target) = (inputs.take(number)?, targets.take(number)?);
        let at = &positions[number];
        let one = Positions { sequences: 1, ..at.clone() };
        for first in (0..at.tokens()).step_by(one.tokens()) {
            let rows = s![first..first + one.tokens(), ..];
            let (h, target) = (h.slice(rows).to_owned(), target.slice(rows));
            let mut out = h.clone();
            block.forward(&mut out, &one, &mut ());
            let loss = relative(&mut out, target, 2.0 / one.tokens() as f32);
            if !loss.is_finite() {
                let reason =
                    format!("the error is {loss} at step {step} of {steps}; a lower rate than {} would help", how.learning_rate);
                return Err(Error::Numerical { what: "reconstruction of a block".into(), reason });
            }
            let ((), mut gradients) = Gradients::of(|sink| {
                block.back((&h, None), &one, &mut out, None, &mut Carry::new(sink));
                Ok(())
            })?;
            let norm = gradients.norm();
            if norm > 1.0 {
                gradients.scale((1.0 / norm) as f32);
            }
            optimizer.step(&mut Moving { block, names }, &gradients, rate.at(step, steps))?;
            step += 1;
        }
        inputs.put(number, h)?;
        targets.put(number, target)?;
    }
    Ok((before, error(block, (inputs, targets), positions)?))
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

fn error(block: &Block, (inputs, targets): (&mut Activations, &mut Activations), positions: &[Positions]) -> Result<f64> {
    let (mut sum, mut tokens) = (0.0, 0);
    for (i, at) in positions.iter().enumerate() {
        let (h, target) = (inputs.take(i)?, targets.take(i)?);
        let mut out = h.clone();
        block.forward(&mut out, at, &mut ());
        sum += relative(&mut out, target.view(), 0.0);
        tokens += at.tokens();
        inputs.put(i, h)?;
        targets.put(i, target)?;
    }
    Ok(sum / tokens.max(1) as f64)
}
