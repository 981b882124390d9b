//! Optimisers. Masks are held: after every step the masked weights are 0 and so is their momentum.

use crate::mask::Mask;
use crate::nn::Network;
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

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
    /// Adam (Kingma and Ba 2015, arXiv:1412.6980), β = (0.9, 0.999), ε = 1e-8; `g + λ w` in place of `g`.
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

const BETA: (f32, f32) = (0.9, 0.999);
const EPSILON: f32 = 1e-8;
/// Numbers of a parallel task.
const CHUNK: usize = 1 << 14;

/// A method and what it remembers of each parameter.
#[derive(Debug, Clone)]
pub struct Optimizer {
    method: Method,
    step: i32,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
}

impl Optimizer {
    /// An optimiser that has not taken a step.
    pub fn new(method: Method) -> Self {
        Optimizer { method, step: 0, first: Vec::new(), second: Vec::new() }
    }

    /// Takes one step along `gradients` (in the order of [`Network::params`]) at `learning_rate`, then holds the masks.
    ///
    /// # Panics
    /// If the gradients are not those of this network's parameters, or the network is not the one of the steps before.
    pub fn step(&mut self, network: &mut Network, gradients: &[Array2<f32>], learning_rate: f32) {
        let mut params = network.params_mut();
        assert_eq!(params.len(), gradients.len(), "one gradient a parameter");
        assert!(self.step == 0 || params.len() == self.first.len(), "the network of the steps before had other parameters");
        self.advance();
        for (i, (name, param)) in params.iter_mut().enumerate() {
            let gradient = gradients[i].as_standard_layout();
            let gradient = gradient.as_slice().expect("made standard in the line above");
            assert_eq!(gradient.len(), param.value().len(), "the gradient of {name} has another size");
            let mask = param.mask().cloned();
            param.update(|weights| self.apply(i, weights, gradient, mask.as_ref(), learning_rate));
        }
    }

    /// Begins a step that [`Optimizer::apply`] takes parameter by parameter.
    pub fn advance(&mut self) {
        self.step += 1;
    }

    /// Moves one parameter along its gradient, and holds its mask. `slot` is the parameter's number, the same in every step.
    ///
    /// # Panics
    /// If the sizes differ, or those of the steps before did; before the first [`Optimizer::advance`].
    pub fn apply(&mut self, slot: usize, weights: &mut [f32], gradient: &[f32], mask: Option<&Mask>, learning_rate: f32) {
        assert!(self.step > 0, "a step begins with `advance`");
        assert_eq!(weights.len(), gradient.len(), "parameter {slot}: the gradient has another size");
        while self.first.len() <= slot {
            self.first.push(Vec::new());
            self.second.push(Vec::new());
        }
        let (first, second) = (&mut self.first[slot], &mut self.second[slot]);
        if first.is_empty() {
            first.resize(weights.len(), 0.0);
            second.resize(if matches!(self.method, Method::Sgd { .. }) { 0 } else { weights.len() }, 0.0);
        }
        assert_eq!(weights.len(), first.len(), "parameter {slot} had another size in the steps before");
        match self.method {
            Method::Sgd { momentum, weight_decay } => {
                zip_chunks(weights, gradient, first, None, |w, g, v, _| {
                    for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
                        *v = momentum * *v + g + weight_decay * *w;
                        *w -= learning_rate * *v;
                    }
                });
            }
            Method::Adam { weight_decay } | Method::AdamW { weight_decay } => {
                let decoupled = matches!(self.method, Method::AdamW { .. });
                let (l2, shrink) = if decoupled { (0.0, 1.0 - learning_rate * weight_decay) } else { (weight_decay, 1.0) };
                let bias = (1.0 - BETA.0.powi(self.step), (1.0 - BETA.1.powi(self.step)).sqrt().recip());
                let rate = learning_rate / bias.0;
                zip_chunks(weights, gradient, first, Some(second), |w, g, m, v| {
                    for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                        let g = g + l2 * *w;
                        *m = BETA.0 * *m + (1.0 - BETA.0) * g;
                        *v = BETA.1 * *v + (1.0 - BETA.1) * g * g;
                        *w = shrink * *w - rate * *m / (v.sqrt() * bias.1 + EPSILON);
                    }
                });
            }
        }
        if let Some(mask) = mask {
            for state in [weights, first, second] {
                for (r, row) in state.chunks_mut(mask.cols().max(1)).enumerate() {
                    row.iter_mut().enumerate().filter(|(c, _)| !mask.get(r, *c)).for_each(|(_, s)| *s = 0.0);
                }
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
