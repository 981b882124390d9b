//! HQQ: half-quadratic quantisation, zero points without data.
//!
//! Badri, Shaji. *Half-quadratic quantization of large machine learning models.* Mobius Labs, November 2023, and the authors' code
//! (`optimize_weights_proximal`).
//!
//! ```text
//! min over z, e of  φ(e) + β/2 ‖e − (W − s (C − z))‖²,   φ = ‖·‖ₚ^p,   C = clamp(round(W / s + z), 0, 2^b − 1)
//! by turns:   e ← shrink(W − s (C − z)),   shrink(x) = sign x · max(0, |x| − |x|^(p−1) / β)
//!             z ← mean over the group of  C − (W − e) / s,     β ← κ β
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | p, β, κ | [`Hqq::norm`], [`Hqq::beta`], [`Hqq::growth`] |
//! | s | `(max − min) / (2^b − 1)` of a group, which stays |
//!
//! It ends after [`Hqq::iterations`] turns, or as soon as the mean of |W − Ŵ| over the whole weight grows; the best z is taken.
//!
//! Departures: 0 lies within the range of a group; and unless [`Hqq::whole_zeros`] is false, zero points are rounded in the end, codes found anew, and the
//! result compared with round to nearest, group by group: files and kernels hold whole zero points, and 0 has a code then.
//!
//! Cost: some twenty passes over the weight.

use super::quantizer::{Quantizer, Rounded, checked, finish};
use crate::criteria::{Evidence, Needs};
use crate::mask::Mask;
use crate::quantize::{CodeGrid, Step};
use crate::{Error, Result};
use ndarray::{Array2, Axis};
use rayon::prelude::*;

/// HQQ; see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hqq {
    /// p, in (0, 1].
    pub norm: f64,
    /// β, above 0.
    pub beta: f64,
    /// κ, at least 1.
    pub growth: f64,
    /// The most turns.
    pub iterations: usize,
    /// Whether zero points become whole numbers.
    pub whole_zeros: bool,
}

impl Default for Hqq {
    /// The authors' settings, with whole zero points.
    fn default() -> Self {
        Hqq { norm: 0.7, beta: 10.0, growth: 1.01, iterations: 20, whole_zeros: true }
    }
}

impl Hqq {
    /// The code of a weight by a zero point that need not be whole: W / s + z is rounded as one.
    fn code(grid: CodeGrid, step: Step, w: f32) -> u8 {
        (w / step.scale + step.zero).round_ties_even().clamp(0.0, grid.top()) as u8
    }

    /// One group's next zero point, and Σ |W − Ŵ| with the one before.
    fn turn(&self, grid: CodeGrid, step: Step, weights: &[f32], beta: f64) -> (f32, f64) {
        let (mut sum, mut lost) = (0.0f64, 0.0f64);
        for &w in weights {
            let code = Hqq::code(grid, step, w);
            let x = f64::from(w) - f64::from(step.value(code));
            lost += x.abs();
            let kept = if x == 0.0 { 0.0 } else { (x.abs() - x.abs().powf(self.norm - 1.0) / beta).max(0.0) };
            sum += f64::from(code) - (f64::from(w) - kept.copysign(x)) / f64::from(step.scale);
        }
        ((sum / weights.len().max(1) as f64) as f32, lost)
    }
}

impl Quantizer for Hqq {
    fn name(&self) -> &str {
        "hqq"
    }

    fn needs(&self) -> Needs {
        Needs::none()
    }

    fn quantize(&self, layer: &Evidence<'_>, grid: CodeGrid) -> Result<Rounded> {
        if grid.symmetric {
            return Err(Error::invalid_option("scheme", "hqq finds zero points, of which a symmetric grid has none"));
        }
        if !(self.norm > 0.0 && self.norm <= 1.0 && self.beta > 0.0 && self.growth >= 1.0) {
            let reason = format!(
                "norm {}, beta {} and growth {} are not in (0, 1], above 0 and at least 1",
                self.norm, self.beta, self.growth
            );
            return Err(Error::invalid_option("hqq", reason));
        }
        let (weight, group) = checked(layer, grid)?;
        let mask: Option<&Mask> = layer.mask;
        if mask.is_some() && !self.whole_zeros {
            return Err(Error::invalid_option("mask", "0 has a code where zero points are whole; hqq was asked for others"));
        }
        let plain = grid.fit_all(&weight)?;
        let (rows, groups) = plain.dim();
        let part = |r: usize, g: usize| &weight.as_slice().expect("made row by row")[(r * groups + g) * group..][..group];
        let (mut steps, mut best, mut least, mut beta) = (plain.clone(), plain.clone(), f64::INFINITY, self.beta);
        let share = grid.granularity == crate::quantize::Granularity::Tensor;
        for _ in 0..self.iterations {
            let turned: Vec<(f32, f64)> = (0..rows * groups)
                .into_par_iter()
                .with_min_len(64)
                .map(|at| self.turn(grid, steps[[at / groups, at % groups]], part(at / groups, at % groups), beta))
                .collect();
            let lost: f64 = turned.iter().map(|(_, lost)| lost).sum();
            if lost >= least {
                break;
            }
            (best, least) = (steps.clone(), lost);
            let mean = turned.iter().map(|(z, _)| f64::from(*z)).sum::<f64>() / turned.len().max(1) as f64;
            for (step, (zero, _)) in steps.iter_mut().zip(&turned) {
                step.zero = if share { mean as f32 } else { *zero }.clamp(0.0, grid.top());
            }
            beta *= self.growth;
        }
        let mut codes = Array2::zeros(weight.dim());
        let work = best.axis_iter_mut(Axis(0)).into_par_iter().zip(codes.axis_iter_mut(Axis(0))).enumerate();
        work.with_min_len(16).for_each(|(r, (mut steps, mut codes))| {
            for g in 0..groups {
                let weights = part(r, g);
                if self.whole_zeros {
                    steps[g].zero = steps[g].zero.round_ties_even();
                    let lost = |step: Step| -> f64 {
                        weights.iter().map(|&w| f64::from(w - step.value(grid.code(step, w))).abs().powf(self.norm)).sum()
                    };
                    if !share && lost(plain[[r, g]]) <= lost(steps[g]) {
                        steps[g] = plain[[r, g]];
                    }
                }
                let step = steps[g];
                weights.iter().enumerate().for_each(|(i, &w)| codes[g * group + i] = Hqq::code(grid, step, w));
            }
        });
        finish(layer, grid, codes, &best, mask.cloned())
    }
}
