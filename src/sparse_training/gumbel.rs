//! MaskLLM: N:M masks that are learnt, each group's among all candidates.
//!
//! Fang, Yin, Muralidharan, Heinrich, Pool, Kautz, Molchanov, Wang. *MaskLLM: learnable semi-structured sparsity for large language models.* NeurIPS 2024,
//! arXiv:2409.17481, equations 4 to 9.
//!
//! ```text
//! S: the C = M!/(N!(M − N)!) masks that keep N of M       logits π, C a group
//! y = softmax((κ π + g) / τ),  g ~ Gumbel(0, 1)           run with W ⊙ (y S)
//! loss − λ Σ ‖W ⊙ (y S)‖²                                 keeps what stays large, and with it the gradients
//! in the end the candidate of largest π
//! ```
//!
//! κ grows and τ falls by straight lines over the run: the choice is soft and random at first, hard in the end. The weights stay as they are, and so does everything else. π begins at
//! noise of standard deviation 0.01, plus 0.01 α (overlap − N/2) where a prior mask is given: the overlap is the number of weights that a candidate keeps of it.
//! Masks that are held on the model when it begins can be that prior.
//!
//! Departures: groups are consecutive inputs, as everywhere here. λ is over the number of weights of all layers, the paper's constant of 1e-5 is of single weights.
//!
//! Cost: C numbers a group, and C random numbers a group and step: 1.5 a weight for 2:4; a dense gradient.

use super::method::{Prunable, UsedWeights};
use super::reparametrized::{Effective, Reparametrization};
use super::soft_threshold::unskipped;
use crate::mask::{Mask, Pattern};
use crate::nn::LayerInfo;
use crate::rng::Stream;
use crate::solve::Pruned;
use crate::train::TrainStep;
use crate::{Error, Result};
use ndarray::Array2;

/// N:M masks by Gumbel softmax; see the module. [`Reparametrized`](super::Reparametrized) makes a method of it.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `n`, `m` | given | 1 to m, up to 1000 candidates | how many of how many stay |
/// | `scale` | 100 to 500 | above 0 | κ, first and last |
/// | `temperature` | 4 to 0.05 | above 0 | τ, first and last |
/// | `penalty` | 0 | at least 0 | λ |
/// | `prior` | 3 | at least 0 | α, how much a mask that is given counts |
/// | `skip` | none | layers' names | layers that stay dense |
#[derive(Debug, Clone)]
pub struct GumbelPattern {
    /// N
    pub n: usize,
    /// M
    pub m: usize,
    /// κ
    pub scale: (f32, f32),
    /// τ
    pub temperature: (f32, f32),
    /// λ
    pub penalty: f32,
    /// α
    pub prior: f32,
    /// Masks to begin from, by the layers' names.
    pub masks: Vec<(String, Mask)>,
    /// Layers that stay dense.
    pub skip: Vec<String>,
    candidates: Vec<Vec<bool>>,
    weights: usize,
    /// κ / τ of this step.
    slope: f32,
    /// y of this step, `(groups, C)` of each layer.
    drawn: Vec<Array2<f32>>,
}

impl GumbelPattern {
    /// Keeps `n` of every `m` inputs, with the defaults.
    pub fn new(n: usize, m: usize) -> Self {
        GumbelPattern {
            n,
            m,
            scale: (100.0, 500.0),
            temperature: (4.0, 0.05),
            penalty: 0.0,
            prior: 3.0,
            masks: Vec::new(),
            skip: Vec::new(),
            candidates: Vec::new(),
            weights: 0,
            slope: 1.0,
            drawn: Vec::new(),
        }
    }

    /// All masks that keep n of m, in lexical order from the one that keeps the first.
    fn all(&self) -> Vec<Vec<bool>> {
        fn add(left: usize, of: usize, so_far: &mut Vec<bool>, found: &mut Vec<Vec<bool>>) {
            if of == 0 {
                found.push(so_far.clone());
                return;
            }
            for keep in [true, false] {
                if (keep && left > 0) || (!keep && left < of) {
                    so_far.push(keep);
                    add(left - usize::from(keep), of - 1, so_far, found);
                    so_far.pop();
                }
            }
        }
        let mut found = Vec::new();
        add(self.n, self.m, &mut Vec::new(), &mut found);
        found
    }

    /// y S of a layer, `(out, in)`.
    fn soft(&self, y: &Array2<f32>, (rows, cols): (usize, usize)) -> Array2<f32> {
        let groups = cols / self.m;
        Array2::from_shape_fn((rows, cols), |(row, col)| {
            let y = y.row(row * groups + col / self.m);
            y.iter().zip(&self.candidates).filter(|(_, kept)| kept[col % self.m]).map(|(y, _)| y).sum()
        })
    }
}

/// The softmax of a row, in place.
fn softmax(row: &mut [f32]) {
    let most = row.iter().fold(f32::MIN, |m, &v| m.max(v));
    row.iter_mut().for_each(|v| *v = (*v - most).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

impl Reparametrization for GumbelPattern {
    fn name(&self) -> &str {
        "gumbel"
    }

    fn layers(&self, model: &dyn Prunable) -> Result<Vec<LayerInfo>> {
        let layers = unskipped(model, &self.skip)?;
        let pattern = Pattern::Nm { n: self.n, m: self.m };
        layers.iter().try_for_each(|l| pattern.units(l.shape.0, l.shape.1).map_err(|e| e.in_layer(&l.name)).map(drop))?;
        let candidates = (0..self.n).fold(1.0, |c, i| c * (self.m - i) as f64 / (i + 1) as f64);
        if candidates > 1000.5 {
            let reason = format!("{candidates:.0} masks keep {} of {}; up to 1000 are learnt among", self.n, self.m);
            return Err(Error::invalid_option("pattern", reason));
        }
        let above = [self.scale.0, self.scale.1, self.temperature.0, self.temperature.1];
        if let Some(wrong) = above.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
            return Err(Error::invalid_option("scale and temperature", format!("{wrong} is not above 0")));
        }
        if let Some(wrong) = [self.penalty, self.prior].iter().find(|v| !(v.is_finite() && **v >= 0.0)) {
            return Err(Error::invalid_option("penalty and prior", format!("{wrong} is not at least 0")));
        }
        Ok(layers)
    }

    fn begin(&mut self, layers: &[LayerInfo], weights: &mut [Array2<f32>], random: &mut Stream) -> Result<Vec<Array2<f32>>> {
        self.candidates = self.all();
        self.weights = weights.iter().map(|w| w.len()).sum();
        let mut own = Vec::with_capacity(layers.len());
        for layer in layers {
            let (rows, cols) = layer.shape;
            let groups = cols / self.m;
            let mut logits = random.normal_array(rows * groups, self.candidates.len(), 0.01);
            if let Some((_, mask)) = self.masks.iter().find(|(name, _)| layer.is_called(name)) {
                crate::nn::check_mask(&layer.name, layer.shape, mask)?;
                for ((group, candidate), logit) in logits.indexed_iter_mut() {
                    let (row, first) = (group / groups, group % groups * self.m);
                    let kept = self.candidates[candidate].iter().enumerate().filter(|(_, kept)| **kept);
                    let overlap = kept.filter(|(i, _)| mask.get(row, first + i)).count();
                    *logit += 0.01 * self.prior * (overlap as f32 - self.n as f32 / 2.0);
                }
            }
            own.push(logits);
        }
        Ok(own)
    }

    fn effective(
        &mut self,
        layers: &[LayerInfo],
        weights: &[Array2<f32>],
        own: &[Array2<f32>],
        at: TrainStep,
        random: &mut Stream,
    ) -> Result<Effective> {
        let share = at.step as f32 / at.steps.saturating_sub(1).max(1) as f32;
        let between = |(first, last): (f32, f32)| first + (last - first) * share;
        let (scale, temperature) = (between(self.scale), between(self.temperature));
        self.slope = scale / temperature;
        let mut draw = |logits: &Array2<f32>| {
            let mut y = logits.mapv(|logit| {
                let gumbel = -(-random.uniform().clamp(1e-7, 1.0 - 1e-7).ln()).ln();
                (scale * logit + gumbel) / temperature
            });
            y.rows_mut().into_iter().for_each(|mut row| softmax(row.as_slice_mut().unwrap_or_default()));
            y
        };
        self.drawn = own.iter().map(&mut draw).collect();
        let run = layers.iter().zip(weights).zip(&self.drawn).map(|((l, w), y)| w * &self.soft(y, l.shape)).collect();
        let used = layers.iter().map(|l| UsedWeights { run: l.len(), gradient: l.len() }).collect();
        Ok(Effective { weights: run, used })
    }

    fn back(&self, layer: usize, weight: &Array2<f32>, own: &Array2<f32>, gradient: Array2<f32>) -> (Array2<f32>, Array2<f32>) {
        let y = &self.drawn[layer];
        let soft = self.soft(y, weight.dim());
        let each = self.penalty / self.weights.max(1) as f32;
        // ∂/∂(y S), of the loss and of what it is lessened by.
        let of_masks =
            Array2::from_shape_fn(weight.dim(), |at| gradient[at] * weight[at] - 2.0 * each * weight[at] * weight[at] * soft[at]);
        let groups = weight.ncols() / self.m;
        let mut of_own = Array2::zeros(own.dim());
        for (group, mut out) in of_own.rows_mut().into_iter().enumerate() {
            let (row, first) = (group / groups, group % groups * self.m);
            let of = |kept: &Vec<bool>| -> f32 {
                kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(i, _)| of_masks[[row, first + i]]).sum()
            };
            let of_y: Vec<f32> = self.candidates.iter().map(of).collect();
            let mean: f32 = y.row(group).iter().zip(&of_y).map(|(y, d)| y * d).sum();
            out.iter_mut().zip(y.row(group)).zip(&of_y).for_each(|((o, y), d)| *o = self.slope * y * (d - mean));
        }
        (Array2::zeros(weight.dim()), of_own)
    }

    fn finish(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>], own: &[Array2<f32>]) -> Result<Vec<Pruned>> {
        let one = |((layer, weight), own): ((&LayerInfo, &Array2<f32>), &Array2<f32>)| {
            let groups = layer.shape.1 / self.m;
            let best = |row: ndarray::ArrayView1<'_, f32>| {
                row.iter().enumerate().fold(0, |best, (at, v)| if *v > row[best] { at } else { best })
            };
            let chosen: Vec<usize> = own.rows().into_iter().map(best).collect();
            let kept = |row: usize, col: usize| self.candidates[chosen[row * groups + col / self.m]][col % self.m];
            let mask = Mask::from_fn(layer.shape.0, layer.shape.1, kept);
            Pruned { weight: mask.applied(weight), mask, loss: None }
        };
        Ok(layers.iter().zip(weights).zip(own).map(one).collect())
    }

    fn trains_model(&self) -> bool {
        false
    }
}
