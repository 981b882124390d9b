//! A chain of layers, and the passes that pruning measures on it.
//!
//! ```text
//! gradient    ∂L/∂W                          backward pass
//! fisher      mean over samples of (∂L/∂w)²  backward pass, squared sample by sample
//! curvature   ∂²L/∂w², the diagonal          LeCun, Denker, Solla 1989: second derivatives back-propagated
//! hessian     H v, exact                     Pearlmutter 1994: a tangent forward, then backward
//! ```
//!
//! **The recursion of Optimal Brain Damage.** With `a` a layer's pre-activations, `f` its activation and `x` its inputs,
//!
//! ```text
//! ∂²E/∂w_ij² = ∂²E/∂a_i² x_j²                       (summed over the positions that share w_ij)
//! ∂²E/∂x_j²  = Σ_i w_ij² ∂²E/∂a_i²
//! ∂²E/∂a_i²  = f'(a_i)² ∂²E/∂x_i² + f''(a_i) ∂E/∂x_i
//! ```
//!
//! for each sample, averaged over samples. [`Curvature::GaussNewton`] (Levenberg and Marquardt's approximation) drops the
//! term with `f''`, so it is never negative. The recursion drops the Hessian's off-diagonal entries at every layer. It gives
//! the exact diagonal where those are zero: for networks of one hidden layer under the squared error with elementwise
//! outputs, for a last layer under any loss, and for chains of layers one unit wide. It is not exact where two hidden layers
//! follow each other, before a softmax (its Hessian is not diagonal), for weights shared over several positions, and through
//! max pooling only as far as the choice of the maximum stands still.
//!
//! The printed paper has a minus sign before `f''`; the chain rule gives plus, and central differences agree with plus.

use crate::mask::Mask;
use crate::nn::affine::{plus, square};
use crate::nn::{Affine, Layer, Loss, Mode, Param, Saved};
use crate::{Error, Result};
use ndarray::{Array2, Zip};

/// A chain of named layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    layers: Vec<(String, Layer)>,
    inputs: usize,
}

/// What a forward pass keeps for the passes back: the input, and the output of every layer.
#[derive(Debug, Clone)]
pub struct Tape {
    values: Vec<Array2<f32>>,
    saved: Vec<Saved>,
}

impl Tape {
    /// The network's output, `(batch, outputs)`.
    pub fn output(&self) -> &Array2<f32> {
        &self.values[self.values.len() - 1]
    }

    /// The input of the layer of this index, `(batch, features)`.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn input(&self, layer: usize) -> &Array2<f32> {
        &self.values[..self.saved.len()][layer]
    }
}

/// Which second derivatives are back-propagated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curvature {
    /// With the activations' second derivatives: may be negative.
    Exact,
    /// Without them: never negative.
    #[default]
    GaussNewton,
}

/// Units that go together: one output unit (or channel) of `producer` with its batch normalisation and with the inputs of
/// `consumer` that read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Index of the layer whose rows are the units.
    pub producer: usize,
    /// Indices of the batch-norm layers between.
    pub norms: Vec<usize>,
    /// Index of the layer whose columns read the units.
    pub consumer: usize,
    /// Number of units.
    pub units: usize,
    /// Columns of the consumer that read one unit; unit `u` is read by columns `u * width .. (u + 1) * width`.
    pub width: usize,
}

impl Network {
    /// A chain of named layers over `inputs` features.
    ///
    /// # Errors
    /// If two layers that have parameters share a name, or a layer's input does not fit the output before it.
    pub fn new(inputs: usize, layers: Vec<(String, Layer)>) -> Result<Self> {
        let mut features = inputs;
        for (i, (name, layer)) in layers.iter().enumerate() {
            if layers[..i].iter().any(|(n, l)| n == name && !l.params().is_empty()) && !layer.params().is_empty() {
                return Err(Error::setting("layer name", format!("'{name}' is given twice")));
            }
            if let Some(expected) = layer.inputs().filter(|&e| e != features) {
                return Err(Error::shape(format!("input of layer {name}"), &[expected], &[features]));
            }
            features = layer.outputs(features);
            if features == 0 {
                return Err(Error::shape(format!("output of layer {name}"), &[1], &[0]));
            }
        }
        Ok(Network { layers, inputs })
    }

    /// Features of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The layers in order, with their names.
    pub fn layers(&self) -> &[(String, Layer)] {
        &self.layers
    }

    /// The linear and convolutional layers: index, name, layer.
    pub fn affines(&self) -> impl Iterator<Item = (usize, &str, &Affine)> {
        self.layers.iter().enumerate().filter_map(|(i, (name, layer))| match layer {
            Layer::Affine(a) => Some((i, name.as_str(), a)),
            _ => None,
        })
    }

    /// All parameters in order, named `layer.weight`, `layer.bias`.
    pub fn params(&self) -> Vec<(String, &Param)> {
        self.layers.iter().flat_map(|(n, l)| l.params().into_iter().map(move |(p, v)| (format!("{n}.{p}"), v))).collect()
    }

    /// As [`Network::params`].
    pub fn params_mut(&mut self) -> Vec<(String, &mut Param)> {
        self.layers
            .iter_mut()
            .flat_map(|(n, l)| l.params_mut().into_iter().map(|(p, v)| (format!("{n}.{p}"), v)).collect::<Vec<_>>())
            .collect()
    }

    /// The parameter of this name, for example `fc1.weight`.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] with the nearest name.
    pub fn param(&self, name: &str) -> Result<&Param> {
        let params = self.params();
        match params.iter().find(|(n, _)| n == name) {
            Some((_, p)) => Ok(p),
            None => Err(Error::unknown_layer(name, params.iter().map(|(n, _)| n.as_str()))),
        }
    }

    /// As [`Network::param`].
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] with the nearest name.
    pub fn param_mut(&mut self, name: &str) -> Result<&mut Param> {
        self.param(name)?;
        self.params_mut()
            .into_iter()
            .find(|(n, _)| n == name)
            .map(|(_, p)| p)
            .ok_or_else(|| Error::unknown_layer(name, std::iter::empty()))
    }

    /// Number of parameters that are not masked.
    pub fn kept_parameters(&self) -> usize {
        self.params().iter().map(|(_, p)| p.kept()).sum()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.params().iter().map(|(_, p)| p.value().len()).sum()
    }

    /// Multiplications and additions of one sample with the kept weights: twice the products of the linear and
    /// convolutional layers.
    pub fn flops(&self) -> usize {
        self.affines().map(|(_, _, a)| 2 * a.weight.kept() * a.map.positions()).sum()
    }

    /// The masks of the linear and convolutional layers' weights: name of the layer, mask (full where none is held).
    pub fn masks(&self) -> Vec<(String, Mask)> {
        let mask = |a: &Affine| {
            a.weight.mask().cloned().unwrap_or_else(|| Mask::full(a.weight.value().nrows(), a.weight.value().ncols()))
        };
        self.affines().map(|(_, name, a)| (name.to_string(), mask(a))).collect()
    }

    /// Units that may be removed together, declared along the chain: each linear or convolutional layer with the next one.
    /// The last layer's outputs are nobody's to remove, nor are units that a layer between cuts up or takes together (an image
    /// made of a linear layer's outputs).
    pub fn groups(&self) -> Vec<Group> {
        let affines: Vec<(usize, &Affine)> = self.affines().map(|(i, _, a)| (i, a)).collect();
        let pair = |w: &[(usize, &Affine)]| {
            let ((producer, p), (consumer, c)) = (w[0], w[1]);
            let units = p.map.weight_dim().0;
            let alike = self.layers[producer + 1..=consumer].iter().all(|(_, layer)| layer.reads_units(units));
            let norms = (producer..consumer).filter(|&i| matches!(self.layers[i].1, Layer::BatchNorm(_))).collect();
            alike.then(|| Group { producer, norms, consumer, units, width: c.map.weight_dim().1 / units })
        };
        affines.windows(2).filter_map(pair).collect()
    }

    /// The output `(batch, outputs)` of `x (batch, inputs)`, with running statistics.
    ///
    /// # Panics
    /// If `x` has not [`Network::inputs`] features.
    pub fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        assert_eq!(x.ncols(), self.inputs, "the network has another number of inputs");
        let mut layers = self.layers.iter();
        let Some((_, first)) = layers.next() else { return x.clone() };
        if !x.is_standard_layout() {
            return self.forward(&x.as_standard_layout().into_owned());
        }
        layers.fold(first.forward(x, Mode::Eval).0, |y, (_, layer)| layer.forward(&y, Mode::Eval).0)
    }

    /// A forward pass that keeps what the passes back need.
    ///
    /// # Panics
    /// If `x` has not [`Network::inputs`] features.
    pub fn run(&self, x: Array2<f32>, mode: Mode) -> Tape {
        assert_eq!(x.ncols(), self.inputs, "the network has another number of inputs");
        let mut tape = Tape { values: vec![x.as_standard_layout().into_owned()], saved: Vec::new() };
        for (_, layer) in &self.layers {
            let (y, saved) = layer.forward(tape.output(), mode);
            tape.values.push(y);
            tape.saved.push(saved);
        }
        tape
    }

    /// Moves batch-norm's running averages towards what a pass in [`Mode::Train`] saw.
    pub fn absorb_statistics(&mut self, tape: &Tape) {
        for ((_, layer), saved) in self.layers.iter_mut().zip(&tape.saved) {
            if let Layer::BatchNorm(b) = layer {
                b.absorb(saved);
            }
        }
    }

    /// Gradients of all parameters, in the order of [`Network::params`], from `d = ∂L/∂output (batch, outputs)`.
    ///
    /// # Panics
    /// If `d` has not the output's shape.
    pub fn backward(&self, tape: &Tape, d: Array2<f32>) -> Vec<Array2<f32>> {
        assert_eq!(d.dim(), tape.output().dim(), "the derivative has not the output's shape");
        let mut reversed = Vec::new();
        let mut d = if d.is_standard_layout() { d } else { d.as_standard_layout().into_owned() };
        for (i, (_, layer)) in self.layers.iter().enumerate().rev() {
            let (x, y) = (&tape.values[i], &tape.values[i + 1]);
            match layer {
                Layer::Affine(a) => {
                    if a.bias.is_some() {
                        reversed.push(a.bias_gradient(&d));
                    }
                    reversed.push(a.map.correlate(x, &d));
                    if self.layers[..i].iter().all(|(_, l)| l.params().is_empty()) {
                        break;
                    }
                    d = a.map.pull(a.weight.value(), &d);
                }
                Layer::BatchNorm(b) => {
                    let (dx, [gamma, beta]) = b.backward(x, &tape.saved[i], &d);
                    reversed.extend([beta, gamma]);
                    d = dx;
                }
                Layer::Activation(f) => d = f.times_slope(x, y, &d),
                Layer::Pool(p) => d = p.pull(&tape.saved[i], &d, false),
            }
        }
        reversed.reverse();
        reversed
    }

    /// The mean loss over the batch and the gradients of all parameters, in the order of [`Network::params`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn gradient(&self, x: &Array2<f32>, target: &Array2<f32>, loss: Loss, mode: Mode) -> (f64, Vec<Array2<f32>>) {
        let tape = self.run(x.clone(), mode);
        let value = loss.value(tape.output(), target);
        let d = loss.gradient(tape.output(), target) / x.nrows() as f32;
        (value, self.backward(&tape, d))
    }

    /// The mean over samples of the squared gradients of each sample, for all parameters: the diagonal of the empirical
    /// Fisher matrix.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn fisher(&self, x: &Array2<f32>, target: &Array2<f32>, loss: Loss) -> Vec<Array2<f32>> {
        let tape = self.run(x.clone(), Mode::Eval);
        let mut d = loss.gradient(tape.output(), target);
        let mut reversed = Vec::new();
        for (i, (_, layer)) in self.layers.iter().enumerate().rev() {
            let (x, y) = (&tape.values[i], &tape.values[i + 1]);
            match layer {
                Layer::Affine(a) => {
                    if a.bias.is_some() {
                        reversed.push(a.bias_gradient_squares(&d));
                    }
                    reversed.push(a.map.correlate_squares(x, &d));
                    d = a.map.pull(a.weight.value(), &d);
                }
                Layer::BatchNorm(b) => {
                    let [gamma, beta] = b.gradient_squares(x, &tape.saved[i], &d);
                    reversed.extend([beta, gamma]);
                    d = b.backward(x, &tape.saved[i], &d).0;
                }
                Layer::Activation(f) => d = f.times_slope(x, y, &d),
                Layer::Pool(p) => d = p.pull(&tape.saved[i], &d, false),
            }
        }
        mean_reversed(reversed, x.nrows())
    }

    /// The back-propagated diagonal of the Hessian of the mean loss, for all parameters; see the module's text for what the
    /// recursion is and where it is exact.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn curvature(&self, x: &Array2<f32>, target: &Array2<f32>, loss: Loss, kind: Curvature) -> Vec<Array2<f32>> {
        let tape = self.run(x.clone(), Mode::Eval);
        let mut d = loss.gradient(tape.output(), target);
        let mut h = loss.curvature(tape.output(), target);
        let mut reversed = Vec::new();
        for (i, (_, layer)) in self.layers.iter().enumerate().rev() {
            let (x, y) = (&tape.values[i], &tape.values[i + 1]);
            match layer {
                Layer::Affine(a) => {
                    if a.bias.is_some() {
                        reversed.push(a.bias_gradient(&h));
                    }
                    reversed.push(a.map.correlate(&square(x), &h));
                    h = a.map.pull(&square(a.weight.value()), &h);
                    d = a.map.pull(a.weight.value(), &d);
                }
                Layer::BatchNorm(b) => {
                    let (hx, [gamma, beta]) = b.curvature(x, &tape.saved[i], &h);
                    reversed.extend([beta, gamma]);
                    h = hx;
                    d = b.backward(x, &tape.saved[i], &d).0;
                }
                Layer::Activation(f) => {
                    Zip::from(&mut h).and(x).and(y).and(&d).for_each(|h, &a, &y, &d| {
                        let slope = f.slope(a, y);
                        let bend = if kind == Curvature::Exact { f.bend(a, y) * d } else { 0.0 };
                        *h = slope * slope * *h + bend;
                    });
                    d = f.times_slope(x, y, &d);
                }
                Layer::Pool(p) => {
                    h = p.pull(&tape.saved[i], &h, true);
                    d = p.pull(&tape.saved[i], &d, false);
                }
            }
        }
        mean_reversed(reversed, x.nrows())
    }

    /// The Hessian of the mean loss times a direction, exactly (Pearlmutter 1994, *Fast exact multiplication by the
    /// Hessian*): `direction` and result in the order of [`Network::params`]. Batch normalisation uses running statistics.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn hessian_times(
        &self,
        x: &Array2<f32>,
        target: &Array2<f32>,
        loss: Loss,
        direction: &[Array2<f32>],
    ) -> Vec<Array2<f32>> {
        let tape = self.run(x.clone(), Mode::Eval);
        let mut v = direction.iter();
        let mut next = || v.next().unwrap_or_else(|| panic!("the direction has {} parameters, too few", direction.len()));
        // Forward: tangents of all values; the input does not move.
        let mut along: Vec<Vec<&Array2<f32>>> = Vec::new();
        let mut tangents = vec![Array2::zeros(tape.values[0].dim())];
        for (i, (_, layer)) in self.layers.iter().enumerate() {
            let (x, y, rx) = (&tape.values[i], &tape.values[i + 1], &tangents[i]);
            let vs: Vec<&Array2<f32>> = layer.params().iter().map(|_| next()).collect();
            let ry = match layer {
                Layer::Affine(a) => {
                    let mut ry = plus(a.map.apply(a.weight.value(), rx), &a.map.apply(vs[0], x));
                    if a.bias.is_some() {
                        a.add_bias(vs[1], &mut ry);
                    }
                    ry
                }
                Layer::BatchNorm(b) => {
                    let (mean, inverse, _) = b.statistics(&tape.saved[i]);
                    let gamma = b.gamma.as_slice();
                    let moved = b.map(x, |c, x| vs[0][[c, 0]] * (x - mean[c]) * inverse[c] + vs[1][[c, 0]]);
                    plus(b.map(rx, |c, rx| gamma[c] * inverse[c] * rx), &moved)
                }
                Layer::Activation(f) => f.times_slope(x, y, rx),
                Layer::Pool(p) => p.apply(&tape.saved[i], rx),
            };
            along.push(vs);
            tangents.push(ry);
        }
        // Backward: the derivative d and its own tangent rd.
        let scale = 1.0 / x.nrows() as f32;
        let mut d = loss.gradient(tape.output(), target) * scale;
        let mut rd = loss.hessian_times(tape.output(), target, &tangents[self.layers.len()]) * scale;
        let mut reversed = Vec::new();
        for (i, (_, layer)) in self.layers.iter().enumerate().rev() {
            let (x, y, rx) = (&tape.values[i], &tape.values[i + 1], &tangents[i]);
            match layer {
                Layer::Affine(a) => {
                    if a.bias.is_some() {
                        reversed.push(a.bias_gradient(&rd));
                    }
                    reversed.push(plus(a.map.correlate(x, &rd), &a.map.correlate(rx, &d)));
                    rd = plus(a.map.pull(a.weight.value(), &rd), &a.map.pull(along[i][0], &d));
                    d = a.map.pull(a.weight.value(), &d);
                }
                Layer::BatchNorm(b) => {
                    let (_, inverse, _) = b.statistics(&tape.saved[i]);
                    let (rdx, [gamma, beta]) = b.backward(x, &tape.saved[i], &rd);
                    // γ's gradient Σ d (x − μ)/σ moves with x as well.
                    let mut moved = Array2::zeros(gamma.dim());
                    let (by_x, p) = (b.map(rx, |c, rx| rx * inverse[c]) * &d, b.positions);
                    by_x.rows().into_iter().for_each(|row| row.iter().enumerate().for_each(|(j, m)| moved[[j / p, 0]] += m));
                    reversed.extend([beta, plus(gamma, &moved)]);
                    rd = plus(rdx, &b.map(&d, |c, d| along[i][0][[c, 0]] * inverse[c] * d));
                    d = b.backward(x, &tape.saved[i], &d).0;
                }
                Layer::Activation(f) => {
                    rd = f.times_slope(x, y, &rd);
                    Zip::from(&mut rd).and(x).and(y).and(rx).and(&d).for_each(|rd, &a, &y, &rx, &d| *rd += f.bend(a, y) * rx * d);
                    d = f.times_slope(x, y, &d);
                }
                Layer::Pool(p) => {
                    rd = p.pull(&tape.saved[i], &rd, false);
                    d = p.pull(&tape.saved[i], &d, false);
                }
            }
        }
        reversed.reverse();
        reversed
    }

    /// Synaptic flow: ∂R/∂|W| of every linear and convolutional layer, where R is the sum of the outputs of the linear
    /// network that has |W| for weights (no biases, no activations), for an input of ones.
    ///
    /// Each layer's output is scaled to a largest entry of 1, which multiplies R, and so every derivative, by one common
    /// factor: R itself overflows in deep networks.
    pub fn synaptic_flow(&self) -> Vec<Array2<f32>> {
        let mut value = Array2::ones((1, self.inputs));
        let (mut inputs, mut scales, mut saveds) = (Vec::new(), Vec::new(), Vec::new());
        let gain = |b: &crate::nn::BatchNorm, c: usize| b.gamma.as_slice()[c].abs() / (b.variance[c] + b.epsilon).sqrt();
        for (_, layer) in &self.layers {
            let mut saved = Saved::Nothing;
            let y = match layer {
                Layer::Affine(a) => a.map.apply(&a.weight.value().mapv(f32::abs), &value),
                Layer::BatchNorm(b) => b.map(&value, |c, x| gain(b, c) * x),
                Layer::Activation(_) => value.clone(),
                Layer::Pool(p) => {
                    let (y, s) = p.forward(&value);
                    saved = s;
                    y
                }
            };
            let largest = y.fold(0.0f32, |m, &y| m.max(y));
            // Behind a layer without weights there is nothing to scale.
            let scale = if largest > 0.0 { largest.max(f32::MIN_POSITIVE).recip() } else { 1.0 };
            inputs.push(std::mem::replace(&mut value, y * scale));
            scales.push(scale);
            saveds.push(saved);
        }
        let mut d = Array2::ones(value.dim());
        let mut reversed = Vec::new();
        for (i, (_, layer)) in self.layers.iter().enumerate().rev() {
            d *= scales[i];
            match layer {
                Layer::Affine(a) => {
                    reversed.push(a.map.correlate(&inputs[i], &d));
                    d = a.map.pull(&a.weight.value().mapv(f32::abs), &d);
                }
                Layer::BatchNorm(b) => d = b.map(&d, |c, d| gain(b, c) * d),
                Layer::Activation(_) => {}
                Layer::Pool(p) => d = p.pull(&saveds[i], &d, false),
            }
        }
        reversed.reverse();
        reversed
    }
}

/// Sums over a batch, gathered from the last parameter to the first, as means in order.
fn mean_reversed(mut sums: Vec<Array2<f32>>, batch: usize) -> Vec<Array2<f32>> {
    sums.reverse();
    sums.iter_mut().for_each(|s| *s /= batch as f32);
    sums
}
