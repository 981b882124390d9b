//! Optimisers. Masks are held: after every step the masked weights are 0 and so is their momentum.

use super::parameters::{Gradients, Parameters, hold};
use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::ArrayD;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How a gradient moves a weight. The formulas, with `g` the gradient and `η` the learning rate, are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Stochastic gradient descent: `v ← μ v + g + λ w`, `w ← w − η v`.
    Sgd {
        /// μ
        momentum: f32,
        /// λ
        weight_decay: f32,
    },
    /// Adam (Kingma and Ba 2015, arXiv:1412.6980), with [`AdamConstants`]; `g + λ w` in place of `g`.
    Adam {
        /// λ
        weight_decay: f32,
    },
    /// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101): as Adam, with `w ← w − η λ w` apart from the gradient.
    AdamW {
        /// λ
        weight_decay: f32,
    },
}

/// The constants of Adam and AdamW.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `beta1` | 0.9 | [0, 1) | how much of the mean of gradients stays in a step |
/// | `beta2` | 0.999 | [0, 1) | the same of the mean of their squares |
/// | `epsilon` | 1e-8 | above 0 | added to the root of that |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamConstants {
    /// β₁
    pub beta1: f32,
    /// β₂
    pub beta2: f32,
    /// ε
    pub epsilon: f32,
}

impl Default for AdamConstants {
    fn default() -> Self {
        AdamConstants { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// Numbers of a parallel task.
const CHUNK: usize = 1 << 14;

/// What an optimiser remembers of a parameter: SGD its velocity, Adam the means of gradients and of their squares.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// v of SGD, m of Adam.
    pub first: Vec<f32>,
    /// v of Adam; empty for SGD.
    pub second: Vec<f32>,
}

/// A method and what it remembers of each parameter.
///
/// [`train::save_optimizer`](crate::train::save_optimizer) writes it to a file, from which training goes on with the same bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimizer {
    method: Method,
    constants: AdamConstants,
    /// Parameters that no weight decay shrinks.
    undecayed: BTreeSet<String>,
    step: u32,
    moments: BTreeMap<String, Moments>,
}

impl Optimizer {
    /// An optimiser that has not taken a step.
    pub fn new(method: Method) -> Self {
        Optimizer::resumed(method, 0, BTreeMap::new())
    }

    /// An optimiser that has taken so many steps, and remembers this of each parameter, by its name.
    pub fn resumed(method: Method, step: u32, moments: BTreeMap<String, Moments>) -> Self {
        Optimizer { method, constants: AdamConstants::default(), undecayed: BTreeSet::new(), step, moments }
    }

    /// The same with other constants of Adam and AdamW; SGD has no use for them.
    #[must_use]
    pub fn with_constants(mut self, constants: AdamConstants) -> Self {
        self.constants = constants;
        self
    }

    /// The same, with no weight decay on these parameters: by habit norms, biases and embeddings.
    #[must_use]
    pub fn without_decay(mut self, parameters: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.undecayed = parameters.into_iter().map(Into::into).collect();
        self
    }

    /// The constants of Adam and AdamW.
    pub fn constants(&self) -> AdamConstants {
        self.constants
    }

    /// The parameters that no weight decay shrinks.
    pub fn undecayed(&self) -> &BTreeSet<String> {
        &self.undecayed
    }

    /// How it moves weights.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Steps that it has taken.
    pub fn steps(&self) -> u32 {
        self.step
    }

    /// What it remembers, by the parameters' names.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Forgets what it remembers of the numbers of a parameter that a mask drops, as a step does of the mask that is held: for masks that
    /// change twice between two steps.
    ///
    /// # Panics
    /// If the mask has another size than the parameter.
    pub fn forget(&mut self, name: &str, mask: &Mask) {
        if let Some(Moments { first, second }) = self.moments.get_mut(name) {
            [first, second].into_iter().filter(|state| !state.is_empty()).for_each(|state| hold(mask, state));
        }
    }

    /// Forgets what it remembers of all parameters; the steps taken still count.
    pub fn forget_all(&mut self) {
        self.moments.clear();
    }

    /// Takes one step of the whole model along `gradients` at `learning_rate`, then holds the masks: what they drop is 0 in the weights and
    /// in what is remembered.
    ///
    /// # Errors
    /// If a weight cannot be changed where it is stored, a parameter has no gradient of its size, had another size in the steps before, or
    /// a mask has another size. Nothing is changed then.
    pub fn step(&mut self, model: &mut dyn Parameters, gradients: &Gradients, learning_rate: f32) -> Result<()> {
        let mut wrong = None;
        model.visit_mut(&mut |name, values, mask| {
            if wrong.is_some() {
                return;
            }
            let (len, before) = (values.len(), self.moments.get(name).map(|m| m.first.len()));
            wrong = match gradients.get(name).map(ArrayD::len) {
                None => Some(format!("{name} has no gradient")),
                Some(n) if n != len => Some(format!("{name} has {len} numbers, and a gradient of {n}")),
                _ if before.is_some_and(|n| n != len) => {
                    Some(format!("{name} has {len} numbers; it had {} in the steps before", before.unwrap_or(0)))
                }
                _ if mask.is_some_and(|m| m.rows() * m.cols() != len) => {
                    Some(format!("{name} has {len} numbers, its mask others"))
                }
                _ => None,
            };
        })?;
        if let Some(reason) = wrong {
            return Err(Error::invalid_option("training", reason));
        }
        self.step += 1;
        model.visit_mut(&mut |name, values, mask| {
            let Some(gradient) = gradients.get(name) else { return };
            let gradient = gradient.as_standard_layout();
            let gradient = gradient.as_slice().expect("an array in standard layout is a slice");
            self.apply(name, values, gradient, mask, learning_rate);
        })
    }

    /// Moves one parameter along its gradient, and holds its mask.
    fn apply(&mut self, name: &str, weights: &mut [f32], gradient: &[f32], mask: Option<&Mask>, learning_rate: f32) {
        if !self.moments.contains_key(name) {
            let second = if matches!(self.method, Method::Sgd { .. }) { 0 } else { weights.len() };
            let new = Moments { first: vec![0.0; weights.len()], second: vec![0.0; second] };
            self.moments.insert(name.to_string(), new);
        }
        let Some(Moments { first, second }) = self.moments.get_mut(name) else { return };
        let decays = if self.undecayed.contains(name) { 0.0 } else { 1.0 };
        match self.method {
            Method::Sgd { momentum, weight_decay } => {
                let weight_decay = decays * weight_decay;
                zip_chunks(weights, gradient, first, None, |w, g, v, _| {
                    for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
                        *v = momentum * *v + g + weight_decay * *w;
                        *w -= learning_rate * *v;
                    }
                });
            }
            Method::Adam { weight_decay } | Method::AdamW { weight_decay } => {
                let (weight_decay, AdamConstants { beta1, beta2, epsilon }) = (decays * weight_decay, self.constants);
                let decoupled = matches!(self.method, Method::AdamW { .. });
                let (l2, shrink) = if decoupled { (0.0, 1.0 - learning_rate * weight_decay) } else { (weight_decay, 1.0) };
                let bias = (1.0 - beta1.powi(self.step as i32), (1.0 - beta2.powi(self.step as i32)).sqrt().recip());
                let rate = learning_rate / bias.0;
                zip_chunks(weights, gradient, first, Some(second), |w, g, m, v| {
                    for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                        let g = g + l2 * *w;
                        *m = beta1 * *m + (1.0 - beta1) * g;
                        *v = beta2 * *v + (1.0 - beta2) * g * g;
                        *w = shrink * *w - rate * *m / (v.sqrt() * bias.1 + epsilon);
                    }
                });
            }
        }
        if let Some(mask) = mask {
            for state in [weights, first, second].into_iter().filter(|state| !state.is_empty()) {
                hold(mask, state);
            }
        }
    }
}

/// `f(weights, gradients, first, second)` over matching chunks, in parallel when there are many.
fn zip_chunks(
    weights: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: Option<&mut Vec<f32>>,
    f: impl Fn(&mut [f32], &[f32], &mut [f32], &mut [f32]) + Sync + Send,
) {
    match second {
        _ if weights.len() <= CHUNK => f(weights, gradient, first, second.map_or(&mut [], |s| s)),
        None => weights
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .for_each(|((w, g), v)| f(w, g, v, &mut [])),
        Some(second) => weights
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK))
            .for_each(|(((w, g), m), v)| f(w, g, m, v)),
    }
}
