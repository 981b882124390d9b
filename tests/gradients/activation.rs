//! Activations and their two derivatives against the formulas in f64.

use crate::nets::ACTIVATIONS;
use lacuna::nn::Activation;

/// The formula, written again, in f64.
fn formula(f: Activation, a: f64) -> f64 {
    let sigmoid = |a: f64| 1.0 / (1.0 + (-a).exp());
    match f {
        Activation::Tanh => a.tanh(),
        Activation::ScaledTanh => 1.7159 * (2.0 * a / 3.0).tanh(),
        Activation::Relu => a.max(0.0),
        Activation::Sigmoid => sigmoid(a),
        Activation::Gelu => a * 0.5 * (1.0 + libm::erf(a / 2f64.sqrt())),
        Activation::Silu => a * sigmoid(a),
        Activation::GeluTanh => 0.5 * a * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (a + 0.044715 * a.powi(3))).tanh()),
        Activation::SquaredRelu => a.max(0.0).powi(2),
    }
}

/// Those of networks, and those that only transformers have.
fn all() -> impl Iterator<Item = Activation> {
    ACTIVATIONS.into_iter().chain([Activation::GeluTanh, Activation::SquaredRelu])
}

/// −8 to 8 in steps that miss 0, where ReLU has its kink.
fn points() -> impl Iterator<Item = f32> {
    (-400..400).map(|i| (i as f32 + 0.5) / 50.0)
}

#[test]
fn values_slopes_and_bends_agree_with_central_differences_of_the_formula() {
    for f in all() {
        for a in points() {
            let (at, y) = (f64::from(a), f.value(a));
            let value = formula(f, at);
            let h = 1e-5;
            let slope = (formula(f, at + h) - formula(f, at - h)) / (2.0 * h);
            let h = 1e-3;
            let bend = (formula(f, at + h) - 2.0 * value + formula(f, at - h)) / (h * h);
            // A few roundings of f32; Taylor's errors are below 1e-10 for the slope and 1e-6 for the bend.
            assert!((f64::from(y) - value).abs() <= 5e-7 * value.abs().max(1.0), "{f:?}({a}) = {y}, not {value}");
            let found = f64::from(f.slope(a, y));
            assert!((found - slope).abs() <= 1e-6, "{f:?}'({a}) = {found}, not {slope}");
            let found = f64::from(f.bend(a, y));
            assert!((found - bend).abs() <= 3e-6, "{f:?}''({a}) = {found}, not {bend}");
        }
    }
}

#[test]
fn relu_is_flat_at_zero() {
    assert_eq!(Activation::Relu.slope(0.0, 0.0), 0.0);
    assert_eq!(Activation::Relu.bend(0.0, 0.0), 0.0);
}

#[test]
fn no_activation_hides_a_nan() {
    for f in all() {
        assert!(f.value(f32::NAN).is_nan(), "{f:?}");
        let net = crate::nets::Net::new(1, 2).act(f).build();
        let y = net.forward(&ndarray::array![[f32::NAN, 1.0]]);
        assert!(y[[0, 0]].is_nan() && y[[0, 1]].is_finite(), "{f:?}: {y}");
    }
}

#[test]
fn far_out_everything_is_finite_and_at_its_limit() {
    for f in all() {
        for a in [-1e4f32, 1e4] {
            let y = f.value(a);
            let limit = match f {
                Activation::Tanh => a.signum(),
                Activation::ScaledTanh => 1.7159 * a.signum(),
                Activation::Sigmoid => f32::from(a > 0.0),
                Activation::SquaredRelu => {
                    let right = if a > 0.0 { (1e8, 2e4, 2.0) } else { (0.0, 0.0, 0.0) };
                    assert_eq!((y, f.slope(a, y), f.bend(a, y)), right, "{f:?}({a})");
                    continue;
                }
                Activation::Relu | Activation::Gelu | Activation::GeluTanh | Activation::Silu => a.max(0.0),
            };
            assert_eq!(y, limit, "{f:?}({a})");
            let flat = matches!(f, Activation::Tanh | Activation::ScaledTanh | Activation::Sigmoid);
            let slope = if flat { 0.0 } else { f32::from(a > 0.0) };
            // 1.7159 · ⅔ · (1 − (y / 1.7159)²) is 0 to a rounding.
            assert!((f.slope(a, y) - slope).abs() <= 2e-7, "{f:?}'({a}) = {}", f.slope(a, y));
            assert!(f.bend(a, y).abs() <= 2e-7, "{f:?}''({a}) = {}", f.bend(a, y));
        }
    }
}
