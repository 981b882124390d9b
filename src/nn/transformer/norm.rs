//! Normalisation of each token's features.
//!
//! ```text
//! rms    y = x / √(mean(x²) + ε) · w                      Zhang and Sennrich 2019, arXiv:1910.07467
//! layer  y = (x - mean x) / √(var x + ε) · w + b          Ba, Kiros and Hinton 2016, arXiv:1607.06450
//! ```
//!
//! Where a checkpoint holds `w - 1` (Gemma, Nemotron), [`Norm::plus_one`] says so.

use crate::kernels::vector;
use crate::nn::activation::PARALLEL;
use crate::nn::observer::Sink;
use crate::nn::parameters::{Change, See};
use ndarray::{Array1, Array2, ArrayRef2, Axis};
use rayon::prelude::*;

/// What is taken out of a token's features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Their root mean square.
    Rms,
    /// Their mean and their standard deviation.
    Layer,
}

/// A normalisation with its weight and, for some, a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    name: String,
    kind: NormKind,
    plus_one: bool,
    /// Weight and bias stand side by side in memory, however they were given.
    weight: Array1<f32>,
    bias: Option<Array1<f32>>,
    epsilon: f32,
}

/// Tokens of a parallel task, and of a sum whose parts are added in their order.
const TOKENS: usize = 32;

impl Norm {
    /// A normalisation over `weight.len()` features; weight and bias may have any strides.
    ///
    /// # Panics
    /// If the bias has another length than the weight.
    pub fn new(name: impl Into<String>, kind: NormKind, weight: Array1<f32>, bias: Option<Array1<f32>>, epsilon: f32) -> Self {
        let name = name.into();
        assert!(bias.as_ref().is_none_or(|b| b.len() == weight.len()), "{name}: weight and bias differ in length");
        let (weight, bias) = (side_by_side(weight), bias.map(side_by_side));
        Norm { name, kind, plus_one: false, weight, bias, epsilon }
    }

    /// Whether features are multiplied by `1 + w`.
    pub fn plus_one(mut self, plus_one: bool) -> Self {
        self.plus_one = plus_one;
        self
    }

    /// The name in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The weight as the checkpoint holds it.
    pub fn weight(&self) -> &Array1<f32> {
        &self.weight
    }

    /// The bias, if there is one.
    pub fn bias(&self) -> Option<&Array1<f32>> {
        self.bias.as_ref()
    }

    /// Whether features are multiplied by `1 + w`.
    pub(crate) fn is_plus_one(&self) -> bool {
        self.plus_one
    }

    /// What features are multiplied by.
    pub(crate) fn gain(&self) -> Array1<f32> {
        if self.plus_one { &self.weight + 1.0 } else { self.weight.clone() }
    }

    /// `x (tokens, features)` normalised.
    ///
    /// # Panics
    /// If x has another number of features.
    pub fn apply(&self, x: &ArrayRef2<f32>) -> Array2<f32> {
        let mut y = Array2::zeros(x.dim());
        y.assign(x);
        let gain = self.gain();
        let (gain, bias) = (slice(&gain), self.bias.as_ref().map(slice));
        let each = |y: &mut [f32]| {
            let (mean, rate) = self.moments(y);
            if mean != 0.0 {
                y.iter_mut().for_each(|y| *y -= mean);
            }
            y.iter_mut().zip(gain).for_each(|(y, g)| *y = *y * rate * g);
            if let Some(bias) = bias {
                vector::add_scaled(y, 1.0, bias);
            }
        };
        let width = self.weight.len();
        assert_eq!(x.ncols(), width, "{}: features", self.name);
        let y_slice = y.as_slice_mut().expect("a new array is in standard layout");
        if y_slice.len() < PARALLEL {
            y_slice.chunks_mut(width).for_each(each);
        } else {
            y_slice.par_chunks_mut(TOKENS * width).for_each(|y| y.chunks_mut(width).for_each(each));
        }
        y
    }

    /// What is taken off the features of a token, and what they are multiplied by then.
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let n = x.len() as f64;
        let mean = if self.kind == NormKind::Layer { vector::sum(x) / n } else { 0.0 };
        let variance = if mean == 0.0 {
            vector::dot(x, x) / n
        } else {
            let centred: Vec<f32> = x.iter().map(|x| x - mean as f32).collect();
            vector::dot(&centred, &centred) / n
        };
        (mean as f32, (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32)
    }

    /// Adds to `dx` the gradient at the input `x` of what has the gradient `dy` at the output, and gives those of weight and
    /// bias to `sink`.
    ///
    /// ```text
    /// x̂ = (x - mean) r    g = w dy    dx += r (g - mean(g) - x̂ mean(g x̂))      (rms: without mean(g))
    /// ```
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn back(&self, x: &ArrayRef2<f32>, dy: &ArrayRef2<f32>, dx: &mut Array2<f32>, sink: &mut Sink<'_>) {
        assert!(x.dim() == dy.dim() && x.dim() == dx.dim(), "{}: x {:?}, dy {:?}", self.name, x.dim(), dy.dim());
        let (gain, width) = (self.gain(), self.weight.len());
        let gain = slice(&gain);
        let part = |((x, dy), mut dx): (
            (ndarray::ArrayView2<'_, f32>, ndarray::ArrayView2<'_, f32>),
            ndarray::ArrayViewMut2<'_, f32>,
        )| {
            let mut sums = [vec![0.0f32; width], vec![0.0f32; width]];
            let (mut hat, mut g) = (vec![0.0f32; width], vec![0.0f32; width]);
            for ((x, dy), mut dx) in x.rows().into_iter().zip(dy.rows()).zip(dx.rows_mut()) {
                hat.iter_mut().zip(x).for_each(|(h, x)| *h = *x);
                let (mean, rate) = self.moments(&hat);
                hat.iter_mut().for_each(|h| *h = (*h - mean) * rate);
                g.iter_mut().zip(dy).for_each(|(g, d)| *g = *d);
                for i in 0..width {
                    sums[0][i] += g[i] * hat[i];
                    sums[1][i] += g[i];
                }
                vector::times(&mut g, gain);
                let along = (vector::dot(&g, &hat) / width as f64) as f32;
                let level = if self.kind == NormKind::Layer { (vector::sum(&g) / width as f64) as f32 } else { 0.0 };
                for (i, dx) in dx.iter_mut().enumerate() {
                    *dx += rate * (g[i] - level - hat[i] * along);
                }
            }
            sums
        };
        let parts = x.axis_chunks_iter(Axis(0), TOKENS).into_par_iter();
        let parts = parts.zip(dy.axis_chunks_iter(Axis(0), TOKENS)).zip(dx.axis_chunks_iter_mut(Axis(0), TOKENS));
        let sums: Vec<[Vec<f32>; 2]> = parts.map(part).collect();
        let total = |of: usize| Array1::from_shape_fn(width, |i| sums.iter().map(|s| f64::from(s[of][i])).sum::<f64>() as f32);
        sink(&format!("{}.weight", self.name), total(0).into_dyn());
        if self.bias.is_some() {
            sink(&format!("{}.bias", self.name), total(1).into_dyn());
        }
    }

    /// Calls `f` with each parameter's tensor name and numbers.
    pub(crate) fn visit(&self, f: &mut See<'_>) {
        f(&format!("{}.weight", self.name), self.weight.view().into_dyn(), None);
        if let Some(bias) = &self.bias {
            f(&format!("{}.bias", self.name), bias.view().into_dyn(), None);
        }
    }

    /// Calls `f` with each parameter's tensor name and numbers, to be changed.
    pub(crate) fn visit_mut(&mut self, f: &mut Change<'_>) {
        f(&format!("{}.weight", self.name), self.weight.as_slice_mut().expect(SIDE_BY_SIDE), None);
        if let Some(bias) = &mut self.bias {
            f(&format!("{}.bias", self.name), bias.as_slice_mut().expect(SIDE_BY_SIDE), None);
        }
    }
}

fn slice(values: &Array1<f32>) -> &[f32] {
    values.as_slice().expect(SIDE_BY_SIDE)
}

/// What [`side_by_side`] sees to.
pub(crate) const SIDE_BY_SIDE: &str = "parameters stand side by side";

/// The same numbers one behind the other in memory, copied where they are not.
pub(crate) fn side_by_side(values: Array1<f32>) -> Array1<f32> {
    if values.is_standard_layout() { values } else { values.iter().copied().collect() }
}
