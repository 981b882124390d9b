//! AWQ: inputs that matter are scaled up before rounding, and ranges are cut off where that pays.
//!
//! Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han. *AWQ: activation-aware weight quantization for LLM compression and acceleration.* MLSys 2024,
//! arXiv:2306.00978, equations 4 and 5, and the authors' code (`auto_scale`, `auto_clip`).
//!
//! ```text
//! s_j = (mean |x_j|)^a / √(max s · min s),   a ∈ {0, 1/20, … 19/20}:   min over a of  Σ_layers ‖X (Q(W diag s) diag s⁻¹ − W)ᵀ‖²
//! clip: of each group of each row the range ±p max |w|, p ∈ {1, 19/20, … 11/20}, that is best:   min over p of  e G eᵀ,  e = Q(clamp(w, ±p max |w|)) − w
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | a | [`InputScales::exponent`]; one for all layers that share an input, whose producer is divided by s so that the model computes the same |
//! | G | the part of the Gram matrix that the group's inputs have |
//!
//! [`Awq::input_scales`] searches; whoever drives folds 1/s into the norm or the rows before ([`quantize_language`](crate::prune::quantize_language)).
//! [`Awq`] as a [`Quantizer`] cuts off ranges and rounds to the nearest. Queries and keys keep their whole range, as in the authors' code.
//!
//! Departures: the error of the scales is that of the layers' own outputs, which the Gram matrix of all tokens gives exactly, where the authors run
//! the attention or the feed-forward part around them on a few sequences; the error of the ranges is that of all tokens, where they take 512. A
//! group's range always holds 0.
//!
//! Cost: of the scales, a product of `2 out · in²` for each a; of the ranges, `10 out · in · group`.

use super::quantizer::{Quantizer, Rounded, checked, finish, nearest};
use crate::criteria::{Evidence, Need, Needs};
use crate::linalg::{Threads, gemm};
use crate::quantize::{CodeGrid, Granularity, Step};
use crate::{Error, Result};
use ndarray::{Array1, Array2, Axis, s};
use rayon::prelude::*;

/// AWQ; see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Awq {
    /// Exponents that are tried: 0, 1/n, … (n − 1)/n.
    pub exponents: usize,
    /// Whether ranges are cut off.
    pub clip: bool,
    /// Steps of ranges: of 1/steps, down to [`Awq::least`].
    pub steps: usize,
    /// The least fraction of a range that is tried.
    pub least: f64,
}

impl Default for Awq {
    /// The authors' settings: 20 exponents, ranges down to a half in steps of a twentieth.
    fn default() -> Self {
        Awq { exponents: 20, clip: true, steps: 20, least: 0.5 }
    }
}

/// What inputs are multiplied by, weights' columns that is, while their producer is divided.
#[derive(Debug, Clone, PartialEq)]
pub struct InputScales {
    /// s `(in)`, above 0.
    pub scales: Array1<f32>,
    /// a, in [0, 1).
    pub exponent: f64,
    /// Σ ‖X (Ŵ − W)ᵀ‖² with s.
    pub loss: f64,
    /// The same without (a = 0).
    pub plain: f64,
}

/// Parts of names of layers whose range is not cut off.
const WHOLE: [&str; 5] = ["q_", "k_", "query", "key", "Wqkv"];

impl Awq {
    /// The scales of an input that all these layers read. Of equal losses the smaller exponent.
    ///
    /// # Errors
    /// [`Error::MissingEvidence`] if Gram matrix or magnitudes were not measured; as [`Quantizer::quantize`]; if there are no layers, or layers of
    /// different inputs.
    pub fn input_scales(&self, layers: &[Evidence<'_>], grid: CodeGrid) -> Result<InputScales> {
        let Some(first) = layers.first() else { return Err(Error::invalid_option("layers", "none has inputs to scale")) };
        let cols = first.weight.ncols();
        if let Some(other) = layers.iter().find(|l| l.weight.ncols() != cols) {
            return Err(Error::shape("layers of one input", &[cols], &[other.weight.ncols()]).in_layer(other.layer));
        }
        let tokens = first.measured.tokens.max(1) as f64;
        let magnitudes = first.input_magnitudes("awq")?.mapv(|sum| sum / tokens);
        let gram = first.gram("awq")?.mapv(|g| (g / tokens) as f32);
        let weights = layers.iter().map(|l| checked(l, grid)).collect::<Result<Vec<_>>>()?;
        let loss = |scales: &Array1<f32>| -> Result<f64> {
            let mut sum = 0.0;
            for (layer, (weight, group)) in layers.iter().zip(&weights) {
                let scaled = weight * scales;
                let steps = grid.fit_all(&scaled)?;
                let codes = nearest(&scaled, grid, *group, &steps);
                let rounded = finish(&Evidence::weight_only(layer.layer, &scaled), grid, codes, &steps, layer.mask.cloned())?;
                let error = rounded.weight / scales - weight;
                let mut product = Array2::zeros(error.dim());
                gemm(1.0, &error, &gram, 0.0, &mut product, Threads::Pool);
                sum += error.iter().zip(&product).map(|(e, p)| f64::from(*e) * f64::from(*p)).sum::<f64>();
            }
            Ok(sum * tokens)
        };
        let mut best: Option<InputScales> = None;
        for i in 0..self.exponents.max(1) {
            let exponent = i as f64 / self.exponents.max(1) as f64;
            let raw = magnitudes.mapv(|m| m.powf(exponent).max(1e-4));
            let (least, most) = raw.iter().fold((f64::INFINITY, 0.0f64), |(l, m), s| (l.min(*s), m.max(*s)));
            let scales = raw.mapv(|s| (s / (least * most).sqrt()) as f32);
            let loss = loss(&scales)?;
            if best.as_ref().is_none_or(|b| loss < b.loss) {
                let plain = best.as_ref().map_or(loss, |b| b.plain);
                best = Some(InputScales { scales, exponent, loss, plain });
            }
        }
        best.ok_or_else(|| Error::Numerical { what: "input scales".into(), reason: "no loss is a number".into() })
    }

    /// The steps of all groups, of the ranges that lose least.
    fn clipped(&self, layer: &Evidence<'_>, weight: &Array2<f32>, grid: CodeGrid, group: usize) -> Result<Array2<Step>> {
        let gram = layer.gram("awq")?;
        let (rows, cols) = weight.dim();
        let groups = cols / group.max(1);
        let blocks: Vec<Array2<f32>> = (0..groups)
            .map(|g| gram.slice(s![g * group..(g + 1) * group, g * group..(g + 1) * group]).mapv(|v| v as f32))
            .collect();
        let tried = (self.steps as f64 * (1.0 - self.least)).round().max(1.0) as usize;
        let mut steps = Array2::from_elem((rows, groups), Step { scale: 1.0, zero: 0.0 });
        steps.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(r, mut row)| {
            let weight = weight.row(r);
            let weight = weight.as_slice().expect("made row by row");
            let (mut error, mut best_error) = (vec![0.0f32; group], f64::INFINITY);
            for (g, block) in blocks.iter().enumerate() {
                let part = &weight[g * group..(g + 1) * group];
                let most = part.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                for i in 0..tried {
                    let range = most * (1.0 - i as f64 / self.steps as f64) as f32;
                    let step = grid.fit(part.iter().map(|w| w.clamp(-range, range)));
                    error.iter_mut().zip(part).for_each(|(e, w)| *e = step.value(grid.code(step, *w)) - w);
                    let lost = quadratic(block, &error);
                    if i == 0 || lost < best_error {
                        (best_error, row[g]) = (lost, step);
                    }
                }
            }
        });
        Ok(steps)
    }
}

/// e G eᵀ.
fn quadratic(gram: &Array2<f32>, e: &[f32]) -> f64 {
    let of_row = |(row, own): (ndarray::ArrayView1<'_, f32>, &f32)| {
        let dot = row.as_slice().map_or(0.0, |row| crate::kernels::vector::dot(row, e));
        f64::from(*own) * dot
    };
    gram.rows().into_iter().zip(e).map(of_row).sum()
}

impl Quantizer for Awq {
    fn name(&self) -> &str {
        "awq"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gram).and(Need::InputMagnitudes)
    }

    fn quantize(&self, layer: &Evidence<'_>, grid: CodeGrid) -> Result<Rounded> {
        let (weight, group) = checked(layer, grid)?;
        let clips = self.clip && grid.granularity != Granularity::Tensor && !WHOLE.iter().any(|part| layer.layer.contains(part));
        let steps = if clips { self.clipped(layer, &weight, grid, group)? } else { grid.fit_all(&weight)? };
        let codes = nearest(&weight, grid, group, &steps);
        finish(layer, grid, codes, &steps, layer.mask.cloned())
    }
}
