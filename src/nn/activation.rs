//! Activations, with their first and second derivatives.

use crate::kernels::vector;
use crate::linalg::for_entries;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// A function of one number, applied to every feature.
///
/// | name | f(a) |
/// |---|---|
/// | `Tanh` | tanh a |
/// | `ScaledTanh` | 1.7159 tanh(2a/3), LeCun's |
/// | `Relu` | max(0, a), of NaN NaN; f'(0) = 0 |
/// | `Sigmoid` | 1 / (1 + e⁻ᵃ) |
/// | `Gelu` | a Φ(a), Φ the normal distribution, by its error function |
/// | `Silu` | a sigmoid(a) |
/// | `GeluTanh` | gelu by its approximation a σ(2 √(2/π) (a + 0.044715 a³)) |
/// | `SquaredRelu` | max(0, a)² |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// tanh a
    Tanh,
    /// 1.7159 tanh(2a/3)
    ScaledTanh,
    /// max(0, a)
    Relu,
    /// 1 / (1 + e⁻ᵃ)
    Sigmoid,
    /// a Φ(a)
    Gelu,
    /// a sigmoid(a)
    Silu,
    /// a Φ(a) by an approximation with tanh
    GeluTanh,
    /// max(0, a)²
    SquaredRelu,
}

const SCALE: f32 = 1.7159;
const SLOPE: f32 = 2.0 / 3.0;

impl Activation {
    /// f(a)
    pub fn value(self, a: f32) -> f32 {
        match self {
            Activation::Tanh => a.tanh(),
            Activation::ScaledTanh => SCALE * (SLOPE * a).tanh(),
            Activation::Relu => rectified(a),
            Activation::Sigmoid => sigmoid(a),
            Activation::Gelu => a * normal_cdf(a),
            Activation::Silu => a * sigmoid(a),
            Activation::GeluTanh => a * sigmoid(gelu_inner(a)[0]),
            Activation::SquaredRelu => rectified(a) * rectified(a),
        }
    }

    /// f'(a), given a and f(a).
    pub fn slope(self, a: f32, y: f32) -> f32 {
        match self {
            Activation::Tanh => 1.0 - y * y,
            Activation::ScaledTanh => SCALE * SLOPE * (1.0 - (y / SCALE) * (y / SCALE)),
            Activation::Relu => f32::from(a > 0.0),
            Activation::Sigmoid => y * (1.0 - y),
            Activation::Gelu => normal_cdf(a) + a * normal_pdf(a),
            Activation::Silu => {
                let s = sigmoid(a);
                s * (1.0 + a * (1.0 - s))
            }
            Activation::GeluTanh => {
                let [u, du, _] = gelu_inner(a);
                let (s, rest) = (sigmoid(u), sigmoid(-u));
                s + a * s * rest * du
            }
            Activation::SquaredRelu => 2.0 * a.max(0.0),
        }
    }

    /// f''(a), given a and f(a).
    pub fn bend(self, a: f32, y: f32) -> f32 {
        match self {
            Activation::Tanh => -2.0 * y * (1.0 - y * y),
            Activation::ScaledTanh => {
                let t = y / SCALE;
                -2.0 * SCALE * SLOPE * SLOPE * t * (1.0 - t * t)
            }
            Activation::Relu => 0.0,
            Activation::Sigmoid => y * (1.0 - y) * (1.0 - 2.0 * y),
            Activation::Gelu => normal_pdf(a) * (2.0 - a * a),
            Activation::Silu => {
                let s = sigmoid(a);
                s * (1.0 - s) * (2.0 + a * (1.0 - 2.0 * s))
            }
            Activation::GeluTanh => {
                let [u, du, bend] = gelu_inner(a);
                let (s, rest) = (sigmoid(u), sigmoid(-u));
                s * rest * (2.0 * du + a * bend + a * (rest - s) * du * du)
            }
            Activation::SquaredRelu => 2.0 * f32::from(a > 0.0),
        }
    }

    /// f of every number, in place.
    pub(crate) fn of_slice(self, a: &mut [f32]) {
        match self {
            Activation::Silu => vector::silu(a),
            Activation::GeluTanh => vector::gelu_tanh(a),
            _ => a.iter_mut().for_each(|a| *a = self.value(*a)),
        }
    }

    /// f' of every number of `a`.
    pub(crate) fn slope_of_slice(self, a: &[f32], slope: &mut [f32]) {
        match self {
            Activation::Silu => vector::silu_slope(a, slope),
            Activation::GeluTanh => vector::gelu_tanh_slope(a, slope),
            _ => a.iter().zip(slope).for_each(|(&a, s)| *s = self.slope(a, self.value(a))),
        }
    }

    /// f of every entry.
    pub(crate) fn forward(self, a: &Array2<f32>) -> Array2<f32> {
        let mut y = Array2::zeros(a.dim());
        match self {
            // One short loop that the compiler turns into vector code.
            Activation::Relu => for_entries(&mut y, [a], |_, [a]| rectified(a)),
            _ => for_entries(&mut y, [a], |_, [a]| self.value(a)),
        }
        y
    }

    /// `f'(a) · d` for every entry.
    pub(crate) fn times_slope(self, a: &Array2<f32>, y: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        let mut out = d.clone();
        match self {
            Activation::Relu => for_entries(&mut out, [a], |out, [a]| if a > 0.0 { out } else { 0.0 }),
            _ => for_entries(&mut out, [a, y], |out, [a, y]| out * self.slope(a, y)),
        }
        out
    }
}

/// Entries from which on an elementwise loop is worth waking the pool for.
pub(crate) const PARALLEL: usize = 1 << 16;

/// `u = 2 √(2/π) (a + 0.044715 a³)` and its two derivatives.
fn gelu_inner(a: f32) -> [f32; 3] {
    const TWICE: f32 = 1.595_769_2;
    const CUBE: f32 = 0.044_715;
    [TWICE * (a + CUBE * a * a * a), TWICE * (1.0 + 3.0 * CUBE * a * a), TWICE * 6.0 * CUBE * a]
}

/// max(0, a), but NaN of NaN: `f32::max` would hide it.
fn rectified(a: f32) -> f32 {
    if a <= 0.0 { 0.0 } else { a }
}

fn sigmoid(a: f32) -> f32 {
    1.0 / (1.0 + (-a).exp())
}

/// The normal density.
fn normal_pdf(a: f32) -> f32 {
    0.398_942_3 * (-0.5 * a * a).exp()
}

/// The normal distribution function, `erfc(-a / √2) / 2`.
fn normal_cdf(a: f32) -> f32 {
    0.5 * libm::erfcf(-a * std::f32::consts::FRAC_1_SQRT_2)
}
