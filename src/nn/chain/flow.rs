//! Synaptic flow (Tanaka, Kunin, Yamins, Ganguli 2020, arXiv:2006.05467).

use super::{Layer, Network, Saved};
use ndarray::Array2;

impl Network {
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
                Layer::Activation(_) | Layer::Pact(_) => value.clone(),
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
                    reversed.push(a.map.weight_gradient(&inputs[i], &d));
                    d = a.map.input_gradient(&a.weight.value().mapv(f32::abs), &d);
                }
                Layer::BatchNorm(b) => d = b.map(&d, |c, d| gain(b, c) * d),
                Layer::Activation(_) | Layer::Pact(_) => {}
                Layer::Pool(p) => d = p.input_gradient(&saveds[i], &d, false),
            }
        }
        reversed.reverse();
        reversed
    }
}
