//! Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167).

use super::{Param, Saved};
use crate::nn::Mode;
use ndarray::{Array2, Axis};
use rayon::prelude::*;

/// `y = γ (x − μ) / √(σ² + ε) + β` for each channel over batch and positions.
///
/// In training μ and σ² are the batch's; otherwise the running averages, and the layer is an affine map of each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNorm {
    /// γ, `(channels, 1)`.
    pub gamma: Param,
    /// β, `(channels, 1)`.
    pub beta: Param,
    /// Running mean, one a channel.
    pub mean: Vec<f32>,
    /// Running variance (unbiased), one a channel.
    pub variance: Vec<f32>,
    /// Numbers of a channel in one sample: height times width, 1 after a linear layer.
    pub positions: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Share of the batch's statistics in a new running average.
    pub momentum: f32,
}

impl BatchNorm {
    /// γ = 1, β = 0, running mean 0 and variance 1, ε = 1e-5, momentum 0.1.
    pub fn new(channels: usize, positions: usize) -> Self {
        BatchNorm {
            gamma: Param::vector(channels, 1.0),
            beta: Param::vector(channels, 0.0),
            mean: vec![0.0; channels],
            variance: vec![1.0; channels],
            positions,
            epsilon: 1e-5,
            momentum: 0.1,
        }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// Σ over batch and positions of `f(channel, index)` for each channel, in f64.
    fn sums(&self, x: &Array2<f32>, f: impl Fn(usize, usize, usize) -> f64 + Sync) -> Vec<f64> {
        let p = self.positions;
        (0..self.channels())
            .into_par_iter()
            .map(|c| (0..x.nrows()).map(|n| (c * p..(c + 1) * p).map(|i| f(c, n, i)).sum::<f64>()).sum())
            .collect()
    }

    pub(crate) fn forward(&self, x: &Array2<f32>, mode: Mode) -> (Array2<f32>, Saved) {
        let (mean, variance, count) = match mode {
            Mode::Eval => (self.mean.clone(), self.variance.clone(), 0),
            Mode::Train => {
                let count = x.nrows() * self.positions;
                let mean: Vec<f64> = self.sums(x, |_, n, i| f64::from(x[[n, i]])).iter().map(|s| s / count as f64).collect();
                let squares = self.sums(x, |c, n, i| (f64::from(x[[n, i]]) - mean[c]).powi(2));
                let to_f32 = |v: &[f64], scale: f64| v.iter().map(|v| (v * scale) as f32).collect::<Vec<_>>();
                (to_f32(&mean, 1.0), to_f32(&squares, 1.0 / count as f64), count)
            }
        };
        let inverse: Vec<f32> = variance.iter().map(|v| 1.0 / (v + self.epsilon).sqrt()).collect();
        let (gamma, beta) = (self.gamma.as_slice(), self.beta.as_slice());
        let y = self.map(x, |c, x| gamma[c] * (x - mean[c]) * inverse[c] + beta[c]);
        (y, Saved::Norm { mean, variance, inverse, count })
    }

    /// `f(channel, x)` for every entry.
    pub(crate) fn map(&self, x: &Array2<f32>, f: impl Fn(usize, f32) -> f32 + Sync) -> Array2<f32> {
        let mut y = x.clone();
        y.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
            row.exact_chunks_mut(self.positions).into_iter().enumerate().for_each(|(c, mut part)| part.mapv_inplace(|x| f(c, x)));
        });
        y
    }

    /// Gradients of x, γ and β from d = ∂/∂y. For statistics of the batch:
    ///
    /// ```text
    /// ∂x = γ/√(σ² + ε) · (d − mean(d) − x̂ mean(d x̂))
    /// ```
    pub(crate) fn backward(&self, x: &Array2<f32>, saved: &Saved, d: &Array2<f32>) -> (Array2<f32>, [Array2<f32>; 2]) {
        let (mean, inverse, count) = self.statistics(saved);
        let hat = self.map(x, |c, x| (x - mean[c]) * inverse[c]);
        let d_beta = self.sums(d, |_, n, i| f64::from(d[[n, i]]));
        let d_gamma = self.sums(d, |_, n, i| f64::from(d[[n, i]]) * f64::from(hat[[n, i]]));
        let gamma = self.gamma.as_slice();
        let mut dx = self.map(d, |c, d| d * gamma[c] * inverse[c]);
        if count > 0 {
            let m = count as f64;
            let back = self.map(&hat, |c, hat| gamma[c] * inverse[c] * ((d_beta[c] + f64::from(hat) * d_gamma[c]) / m) as f32);
            dx -= &back;
        }
        (dx, [column(&d_gamma), column(&d_beta)])
    }

    /// `∂²/∂x²`, `∂²/∂γ²` and `∂²/∂β²` from `∂²/∂y²`, for running statistics, where the layer is affine.
    pub(crate) fn curvature(&self, x: &Array2<f32>, saved: &Saved, h: &Array2<f32>) -> (Array2<f32>, [Array2<f32>; 2]) {
        let (mean, inverse, _) = self.statistics(saved);
        let gamma = self.gamma.as_slice();
        let h_gamma = self.sums(h, |c, n, i| f64::from(h[[n, i]]) * f64::from((x[[n, i]] - mean[c]) * inverse[c]).powi(2));
        let h_beta = self.sums(h, |_, n, i| f64::from(h[[n, i]]));
        (self.map(h, |c, h| h * (gamma[c] * inverse[c]).powi(2)), [column(&h_gamma), column(&h_beta)])
    }

    /// The sums over the batch of the squares of each sample's gradients of γ and β, for running statistics.
    pub(crate) fn gradient_squares(&self, x: &Array2<f32>, saved: &Saved, d: &Array2<f32>) -> [Array2<f32>; 2] {
        let (mean, inverse, _) = self.statistics(saved);
        let mut sums = [vec![0.0; self.channels()], vec![0.0; self.channels()]];
        for (x, d) in x.rows().into_iter().zip(d.rows()) {
            for c in 0..self.channels() {
                let at = c * self.positions..(c + 1) * self.positions;
                let gamma: f64 = at.clone().map(|i| f64::from(d[i]) * f64::from((x[i] - mean[c]) * inverse[c])).sum();
                let beta: f64 = at.map(|i| f64::from(d[i])).sum();
                sums[0][c] += gamma * gamma;
                sums[1][c] += beta * beta;
            }
        }
        sums.map(|s| column(&s))
    }

    pub(crate) fn statistics<'a>(&self, saved: &'a Saved) -> (&'a [f32], &'a [f32], usize) {
        match saved {
            Saved::Norm { mean, inverse, count, .. } => (mean, inverse, *count),
            _ => panic!("what a batch-norm layer saved is its statistics"),
        }
    }

    /// Moves the running averages towards what a training pass saw.
    pub(crate) fn absorb(&mut self, saved: &Saved) {
        let Saved::Norm { mean, variance, count, .. } = saved else { return };
        if *count < 2 {
            return;
        }
        let unbiased = *count as f32 / (*count - 1) as f32;
        let m = self.momentum;
        self.mean.iter_mut().zip(mean).for_each(|(old, new)| *old += m * (new - *old));
        self.variance.iter_mut().zip(variance).for_each(|(old, new)| *old += m * (new * unbiased - *old));
    }
}

/// `(n, 1)` of `n` sums.
fn column(sums: &[f64]) -> Array2<f32> {
    Array2::from_shape_fn((sums.len(), 1), |(i, _)| sums[i] as f32)
}
