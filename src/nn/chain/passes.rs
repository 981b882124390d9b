//! The passes back that pruning measures by.
//!
//! ```text
//! backward          ∂L/∂W                          summed over the batch
//! sample_gradients  ∂L/∂W of each sample           a row a sample (in `samples`)
//! fisher            mean over samples of (∂L/∂w)²  squared sample by sample
//! curvature         ∂²L/∂w², the diagonal          LeCun, Denker, Solla 1989: second derivatives back-propagated
//! hessian_times     H v, exact                     Pearlmutter 1994: a tangent forward, then backward
//! ```
//!
//! All of them walk from the last layer to the first with the same derivative `d`; `walk_back` does the walking, a
//! `Pass` what is particular.
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

use super::arrays::{plus, square};
use super::{Affine, BatchNorm, Layer, Network, Pact, Pool, Saved, Tape};
use crate::linalg::for_entries;
use crate::nn::{Activation, Curvature, Loss, Mode};
use ndarray::Array2;

/// One layer on the way back: its index, its input and output, and what its forward pass saved.
pub(super) struct At<'a> {
    pub index: usize,
    pub x: &'a Array2<f32>,
    pub y: &'a Array2<f32>,
    pub saved: &'a Saved,
}

/// What one pass does at each layer, given `d = ∂L/∂y` there.
pub(super) trait Pass {
    fn affine(&mut self, at: &At<'_>, a: &Affine, d: &Array2<f32>);
    /// `gradient` is that of γ and β, which going back has to work out anyway.
    fn norm(&mut self, at: &At<'_>, b: &BatchNorm, d: &Array2<f32>, gradient: [Array2<f32>; 2]);
    /// Called with what each layer gave, and `d` there, before the layer itself.
    fn hidden(&mut self, _layer: usize, _y: &Array2<f32>, _d: &mut Array2<f32>) {}
    fn activation(&mut self, _at: &At<'_>, _f: Activation, _d: &Array2<f32>) {}
    fn pool(&mut self, _at: &At<'_>, _p: &Pool) {}
    fn pact(&mut self, at: &At<'_>, p: &Pact, d: &Array2<f32>);
}

impl Network {
    /// The first layer that has parameters.
    pub(super) fn first(&self) -> usize {
        self.layers.iter().position(|(_, l)| !l.params().is_empty()).unwrap_or(self.layers.len())
    }

    /// Walks from the last layer to the first that has parameters, calling `pass` at each with `d = ∂L/∂y`.
    ///
    /// # Panics
    /// If `d` has not the output's shape.
    pub(super) fn walk_back(&self, tape: &Tape, d: Array2<f32>, pass: &mut impl Pass) {
        assert_eq!(d.dim(), tape.output().dim(), "the derivative has not the output's shape");
        let mut d = if d.is_standard_layout() { d } else { d.as_standard_layout().into_owned() };
        let first = self.first();
        for (index, (_, layer)) in self.layers.iter().enumerate().skip(first).rev() {
            let (x, mut y, mut whole) = (&tape.values[index], &tape.values[index + 1], None);
            pass.hidden(index, y, &mut d);
            if let Some(Some(factors)) = tape.drops.get(index + 1) {
                d *= factors;
                // A slope is read from what the activation gave, before units were left out.
                if let Layer::Activation(f) = layer {
                    y = whole.insert(f.forward(x));
                }
            }
            let at = At { index, x, y, saved: &tape.saved[index] };
            match layer {
                Layer::Affine(a) => {
                    pass.affine(&at, a, &d);
                    if index == first {
                        break;
                    }
                    d = a.map.input_gradient(a.weight.value(), &d);
                }
                Layer::BatchNorm(b) => {
                    let (dx, gradient) = b.backward(at.x, at.saved, &d);
                    pass.norm(&at, b, &d, gradient);
                    d = dx;
                }
                Layer::Activation(f) => {
                    pass.activation(&at, *f, &d);
                    d = f.times_slope(at.x, at.y, &d);
                }
                Layer::Pool(p) => {
                    pass.pool(&at, p);
                    d = p.input_gradient(at.saved, &d, false);
                }
                Layer::Pact(p) => {
                    pass.pact(&at, p, &d);
                    d = p.times_slope(at.x, &d);
                }
            }
        }
    }

    /// Gradients of all parameters, in the order of [`Network::params`], from `d = ∂L/∂output (batch, outputs)`.
    ///
    /// # Panics
    /// If `d` has not the output's shape.
    pub fn backward(&self, tape: &Tape, d: Array2<f32>) -> Vec<Array2<f32>> {
        let mut pass = Gradient::default();
        self.walk_back(tape, d, &mut pass);
        pass.in_order()
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
        self.squares(&tape, loss.gradient(tape.output(), target))
    }

    /// The mean over samples of the squared gradients, from the derivative of each sample's loss.
    pub(super) fn squares(&self, tape: &Tape, d: Array2<f32>) -> Vec<Array2<f32>> {
        let (mut pass, samples) = (Squares(Vec::new()), d.nrows());
        self.walk_back(tape, d, &mut pass);
        mean_reversed(pass.0, samples)
    }

    /// The back-propagated diagonal of the Hessian of the mean loss, for all parameters; see the module's text for what the
    /// recursion is and where it is exact.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn curvature(&self, x: &Array2<f32>, target: &Array2<f32>, loss: Loss, kind: Curvature) -> Vec<Array2<f32>> {
        let tape = self.run(x.clone(), Mode::Eval);
        let mut pass = Second { kind, h: loss.curvature(tape.output(), target), reversed: Vec::new() };
        self.walk_back(&tape, loss.gradient(tape.output(), target), &mut pass);
        mean_reversed(pass.reversed, x.nrows())
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
                // Where it is cut off, α moves it alone.
                Layer::Pact(p) => {
                    let moved = x.mapv(|x| if x >= p.height() { vs[0][[0, 0]] } else { 0.0 });
                    plus(p.times_slope(x, rx), &moved)
                }
            };
            along.push(vs);
            tangents.push(ry);
        }
        let scale = 1.0 / x.nrows() as f32;
        let d = loss.gradient(tape.output(), target) * scale;
        let rd = loss.hessian_times(tape.output(), target, &tangents[self.layers.len()]) * scale;
        let mut pass = Tangent { along, tangents, rd, reversed: Vec::new() };
        self.walk_back(&tape, d, &mut pass);
        pass.reversed.reverse();
        pass.reversed
    }
}

/// Sums over the batch, from the last parameter to the first.
#[derive(Default)]
pub(super) struct Gradient(Vec<Array2<f32>>);

impl Gradient {
    /// From the first parameter to the last.
    pub fn in_order(mut self) -> Vec<Array2<f32>> {
        self.0.reverse();
        self.0
    }
}

impl Pass for Gradient {
    fn affine(&mut self, at: &At<'_>, a: &Affine, d: &Array2<f32>) {
        self.0.extend(a.bias.is_some().then(|| a.bias_gradient(d)));
        self.0.push(a.map.weight_gradient(at.x, d));
    }

    fn norm(&mut self, _: &At<'_>, _: &BatchNorm, _: &Array2<f32>, [gamma, beta]: [Array2<f32>; 2]) {
        self.0.extend([beta, gamma]);
    }

    fn pact(&mut self, at: &At<'_>, p: &Pact, d: &Array2<f32>) {
        self.0.push(p.gradient(at.x, d));
    }
}

/// As [`Gradient`], each sample's squared.
struct Squares(Vec<Array2<f32>>);

impl Pass for Squares {
    fn affine(&mut self, at: &At<'_>, a: &Affine, d: &Array2<f32>) {
        self.0.extend(a.bias.is_some().then(|| a.bias_gradient_squares(d)));
        self.0.push(a.map.squared_weight_gradient(at.x, d));
    }

    fn norm(&mut self, at: &At<'_>, b: &BatchNorm, d: &Array2<f32>, _: [Array2<f32>; 2]) {
        let [gamma, beta] = b.gradient_squares(at.x, at.saved, d);
        self.0.extend([beta, gamma]);
    }

    fn pact(&mut self, at: &At<'_>, p: &Pact, d: &Array2<f32>) {
        self.0.push(p.gradient_squares(at.x, d));
    }
}

/// Second derivatives `h` beside the first.
struct Second {
    kind: Curvature,
    h: Array2<f32>,
    reversed: Vec<Array2<f32>>,
}

impl Pass for Second {
    fn affine(&mut self, at: &At<'_>, a: &Affine, _: &Array2<f32>) {
        self.reversed.extend(a.bias.is_some().then(|| a.bias_gradient(&self.h)));
        self.reversed.push(a.map.weight_gradient(&square(at.x), &self.h));
        self.h = a.map.input_gradient(&square(a.weight.value()), &self.h);
    }

    fn norm(&mut self, at: &At<'_>, b: &BatchNorm, _: &Array2<f32>, _: [Array2<f32>; 2]) {
        let (hx, [gamma, beta]) = b.curvature(at.x, at.saved, &self.h);
        self.reversed.extend([beta, gamma]);
        self.h = hx;
    }

    fn activation(&mut self, at: &At<'_>, f: Activation, d: &Array2<f32>) {
        let exact = self.kind == Curvature::Exact;
        for_entries(&mut self.h, [at.x, at.y, d], |h, [a, y, d]| {
            let slope = f.slope(a, y);
            slope * slope * h + if exact { f.bend(a, y) * d } else { 0.0 }
        });
    }

    fn pool(&mut self, at: &At<'_>, p: &Pool) {
        self.h = p.input_gradient(at.saved, &self.h, true);
    }

    /// Piecewise linear in x and α.
    fn pact(&mut self, at: &At<'_>, p: &Pact, _: &Array2<f32>) {
        self.reversed.push(p.gradient(at.x, &self.h));
        self.h = p.times_slope(at.x, &self.h);
    }
}

/// The derivative's own tangent `rd` beside it.
struct Tangent<'a> {
    along: Vec<Vec<&'a Array2<f32>>>,
    tangents: Vec<Array2<f32>>,
    rd: Array2<f32>,
    reversed: Vec<Array2<f32>>,
}

impl Pass for Tangent<'_> {
    fn affine(&mut self, at: &At<'_>, a: &Affine, d: &Array2<f32>) {
        let (rx, v) = (&self.tangents[at.index], self.along[at.index][0]);
        self.reversed.extend(a.bias.is_some().then(|| a.bias_gradient(&self.rd)));
        self.reversed.push(plus(a.map.weight_gradient(at.x, &self.rd), &a.map.weight_gradient(rx, d)));
        self.rd = plus(a.map.input_gradient(a.weight.value(), &self.rd), &a.map.input_gradient(v, d));
    }

    fn norm(&mut self, at: &At<'_>, b: &BatchNorm, d: &Array2<f32>, _: [Array2<f32>; 2]) {
        let (rx, v) = (&self.tangents[at.index], self.along[at.index][0]);
        let (_, inverse, _) = b.statistics(at.saved);
        let (rdx, [gamma, beta]) = b.backward(at.x, at.saved, &self.rd);
        // γ's gradient Σ d (x − μ)/σ moves with x as well.
        let mut moved = Array2::zeros(gamma.dim());
        let (by_x, p) = (b.map(rx, |c, rx| rx * inverse[c]) * d, b.positions);
        by_x.rows().into_iter().for_each(|row| row.iter().enumerate().for_each(|(j, m)| moved[[j / p, 0]] += m));
        self.reversed.extend([beta, plus(gamma, &moved)]);
        self.rd = plus(rdx, &b.map(d, |c, d| v[[c, 0]] * inverse[c] * d));
    }

    fn activation(&mut self, at: &At<'_>, f: Activation, d: &Array2<f32>) {
        let rx = &self.tangents[at.index];
        self.rd = f.times_slope(at.x, at.y, &self.rd);
        for_entries(&mut self.rd, [at.x, at.y, rx, d], |rd, [a, y, rx, d]| rd + f.bend(a, y) * rx * d);
    }

    fn pool(&mut self, at: &At<'_>, p: &Pool) {
        self.rd = p.input_gradient(at.saved, &self.rd, false);
    }

    fn pact(&mut self, at: &At<'_>, p: &Pact, _: &Array2<f32>) {
        self.reversed.push(p.gradient(at.x, &self.rd));
        self.rd = p.times_slope(at.x, &self.rd);
    }
}

/// Sums over a batch, gathered from the last parameter to the first, as means in order.
fn mean_reversed(mut sums: Vec<Array2<f32>>, batch: usize) -> Vec<Array2<f32>> {
    sums.reverse();
    sums.iter_mut().for_each(|s| *s /= batch as f32);
    sums
}
