//! L0 regularisation by hard concrete gates.
//!
//! Louizos, Welling, Kingma. *Learning sparse neural networks through L0 regularization.* ICLR 2018, arXiv:1712.01312, equations 9 to 13.
//!
//! ```text
//! u ~ U(0, 1)        q = σ((log u − log(1 − u) + log α) / β)        z = min(1, max(0, q (ζ − γ) + γ))
//! run with W ⊙ z     + λ/n Σ σ(log α − β log(−γ/ζ))                 the expected number of gates that are not 0
//! in the end         ẑ = min(1, max(0, σ(log α) (ζ − γ) + γ))
//! ```
//!
//! with β = 2/3, γ = −0.1, ζ = 1.1; log α is learnt, one a gate. A gate is for each weight, or with a pattern for each row, column or block: then whole units go. n is the number
//! of gates of all layers. There is no budget: λ says how sparse.
//!
//! Departures: gates are drawn once a step for all its samples, as in the authors' code. log α begins at the value at which a gate's expected value is `open`, with a little noise (0.01).
//!
//! Cost: a random number a gate and step; gates as many as weights.

use super::method::{Prunable, UsedWeights};
use super::movement::sigmoid;
use super::reparametrized::{Effective, Reparametrization};
use super::soft_threshold::unskipped;
use crate::mask::{Mask, Pattern};
use crate::nn::LayerInfo;
use crate::rng::Stream;
use crate::solve::Pruned;
use crate::train::TrainStep;
use crate::{Error, Result};
use ndarray::Array2;

/// β
const TEMPERATURE: f32 = 2.0 / 3.0;
/// γ
const LOW: f32 = -0.1;
/// ζ
const HIGH: f32 = 1.1;

/// Gates that are learnt; see the module. [`Reparametrized`](super::Reparametrized) makes a method of it.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `penalty` | 1 | at least 0 | λ: what it costs, in loss, if all gates are open |
/// | `open` | 0.9 | (0, 1) | how far gates are open at first: σ(log α) |
/// | `pattern` | unstructured | no N:M | what a gate is for |
/// | `skip` | none | layers' names | layers that stay dense |
#[derive(Debug, Clone)]
pub struct HardConcrete {
    /// λ
    pub penalty: f32,
    /// σ(log α) at first.
    pub open: f32,
    /// What a gate is for.
    pub pattern: Pattern,
    /// Layers that stay dense.
    pub skip: Vec<String>,
    gates: usize,
    /// Of each layer q and z, as drawn at this step.
    drawn: Vec<(Array2<f32>, Array2<f32>)>,
}

impl HardConcrete {
    /// Gates of weights, at this price.
    pub fn new(penalty: f32) -> Self {
        HardConcrete { penalty, open: 0.9, pattern: Pattern::Unstructured, skip: Vec::new(), gates: 0, drawn: Vec::new() }
    }

    /// The probability that a gate is not 0, of its log α.
    ///
    /// ```
    /// use lacuna::sparse_training::HardConcrete;
    /// let even = 2. / 3. * (0.1f32 / 1.1).ln(); // where the logistic function is at 1/2
    /// assert!((HardConcrete::probability(even) - 0.5).abs() < 1e-6);
    /// ```
    pub fn probability(log_alpha: f32) -> f32 {
        sigmoid(log_alpha - TEMPERATURE * (-LOW / HIGH).ln())
    }

    /// z of a gate, from its log α and a number u in (0, 1).
    pub fn gate(log_alpha: f32, u: f32) -> f32 {
        clamp(stretched(log_alpha, u))
    }

    /// ẑ of a gate, without chance.
    pub fn settled(log_alpha: f32) -> f32 {
        clamp(sigmoid(log_alpha))
    }

    /// The gate of the unit that a weight is in.
    fn spread(&self, gates: &Array2<f32>, (rows, cols): (usize, usize)) -> Array2<f32> {
        let (r, c) = self.pattern.unit(rows, cols);
        Array2::from_shape_fn((rows, cols), |(row, col)| gates[[row / r, col / c]])
    }
}

/// q
fn stretched(log_alpha: f32, u: f32) -> f32 {
    sigmoid((u.ln() - (1.0 - u).ln() + log_alpha) / TEMPERATURE)
}

/// q as a gate.
fn clamp(q: f32) -> f32 {
    (q * (HIGH - LOW) + LOW).clamp(0.0, 1.0)
}

impl Reparametrization for HardConcrete {
    fn name(&self) -> &str {
        "hard-concrete"
    }

    fn layers(&self, model: &dyn Prunable) -> Result<Vec<LayerInfo>> {
        if !(self.penalty.is_finite() && self.penalty >= 0.0) {
            return Err(Error::invalid_option("penalty", format!("{} is no finite number of at least 0", self.penalty)));
        }
        if !(self.open > 0.0 && self.open < 1.0) {
            return Err(Error::invalid_option("open", format!("{} is not above 0 and below 1", self.open)));
        }
        if matches!(self.pattern, Pattern::Nm { .. }) {
            let reason = format!("gates keep no counts, as {} would have it; gumbel learns such masks", self.pattern);
            return Err(Error::invalid_option("pattern", reason));
        }
        let layers = unskipped(model, &self.skip)?;
        let fits = |l: &LayerInfo| self.pattern.units(l.shape.0, l.shape.1).map_err(|e| e.in_layer(&l.name)).map(drop);
        layers.iter().try_for_each(fits)?;
        Ok(layers)
    }

    fn begin(&mut self, layers: &[LayerInfo], _: &mut [Array2<f32>], random: &mut Stream) -> Result<Vec<Array2<f32>>> {
        let at = (self.open / (1.0 - self.open)).ln();
        let draw = |l: &LayerInfo| {
            let (rows, cols) = self.pattern.grid(l.shape.0, l.shape.1);
            random.normal_array(rows, cols, 0.01) + at
        };
        let own: Vec<Array2<f32>> = layers.iter().map(draw).collect();
        self.gates = own.iter().map(|gates| gates.len()).sum();
        Ok(own)
    }

    fn effective(
        &mut self,
        layers: &[LayerInfo],
        weights: &[Array2<f32>],
        own: &[Array2<f32>],
        _: TrainStep,
        random: &mut Stream,
    ) -> Result<Effective> {
        let mut draw = |log_alpha: &Array2<f32>| {
            let q = log_alpha.mapv(|a| stretched(a, random.uniform().clamp(1e-6, 1.0 - 1e-6)));
            let z = q.mapv(clamp);
            (q, z)
        };
        self.drawn = own.iter().map(&mut draw).collect();
        let (mut run, mut used) = (Vec::new(), Vec::new());
        for ((layer, weight), (_, z)) in layers.iter().zip(weights).zip(&self.drawn) {
            let z = self.spread(z, layer.shape);
            let open = z.iter().filter(|z| **z > 0.0).count();
            used.push(UsedWeights { run: open, gradient: open });
            run.push(weight * &z);
        }
        Ok(Effective { weights: run, used })
    }

    fn back(&self, layer: usize, weight: &Array2<f32>, own: &Array2<f32>, gradient: Array2<f32>) -> (Array2<f32>, Array2<f32>) {
        let (q, z) = &self.drawn[layer];
        let (r, c) = self.pattern.unit(weight.nrows(), weight.ncols());
        // ∂L/∂z of each gate: a sum over its unit.
        let mut of_gates = Array2::<f64>::zeros(own.dim());
        for ((row, col), g) in gradient.indexed_iter() {
            of_gates[[row / r, col / c]] += f64::from(g * weight[[row, col]]);
        }
        let each = self.penalty / self.gates.max(1) as f32;
        let at = |at: (usize, usize)| {
            let (q, z, open) = (q[at], z[at], HardConcrete::probability(own[at]));
            let slope = if z > 0.0 && z < 1.0 { (HIGH - LOW) * q * (1.0 - q) / TEMPERATURE } else { 0.0 };
            of_gates[at] as f32 * slope + each * open * (1.0 - open)
        };
        let of_own = Array2::from_shape_fn(own.dim(), at);
        (gradient * &self.spread(z, weight.dim()), of_own)
    }

    fn finish(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>], own: &[Array2<f32>]) -> Result<Vec<Pruned>> {
        let one = |((layer, weight), own): ((&LayerInfo, &Array2<f32>), &Array2<f32>)| {
            let gates = self.spread(&own.mapv(HardConcrete::settled), layer.shape);
            let mask = Mask::from_array(&gates.mapv(|z| z > 0.0));
            Pruned { weight: mask.applied(&(weight * &gates)), mask, loss: None }
        };
        Ok(layers.iter().zip(weights).zip(own).map(one).collect())
    }
}
