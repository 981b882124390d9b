//! Optimal Brain Damage's recursion against the diagonal of the Hessian: equal where the module's text says so, different where
//! it says it is not exact.

use crate::nets::{ACTIVATIONS, LOSSES, Net, assert_near, data, largest};
use lacuna::nn::Pooling::{Average, Max};
use lacuna::nn::{Activation, Curvature, Loss, Network};
use ndarray::Array2;

/// Both sides are sums of f32 products in different orders, a few dozen roundings of 6e-8 each.
const ABSOLUTE: f64 = 1e-5;
const RELATIVE: f64 = 2e-5;

/// e_kᵀ H e_k for every parameter.
fn hessian_diagonal(net: &Network, x: &Array2<f32>, target: &Array2<f32>, loss: Loss) -> Vec<Array2<f32>> {
    let zeros: Vec<Array2<f32>> = net.params().iter().map(|(_, p)| Array2::zeros(p.value().dim())).collect();
    let entry = |i: usize, k: (usize, usize)| {
        let mut e = zeros.clone();
        e[i][k] = 1.0;
        net.hessian_times(x, target, loss, &e)[i][k]
    };
    (0..zeros.len()).map(|i| Array2::from_shape_fn(zeros[i].dim(), |k| entry(i, k))).collect()
}

fn assert_exact(what: &str, net: &Network, x: &Array2<f32>, target: &Array2<f32>, loss: Loss) -> Vec<Array2<f32>> {
    let expected = hessian_diagonal(net, x, target, loss);
    assert!(expected.iter().all(|h| largest(h) > 1e-3), "{what}: a diagonal vanishes");
    let found = net.curvature(x, target, loss, Curvature::Exact);
    assert_near(what, net, &found, &expected, ABSOLUTE, RELATIVE);
    expected
}

/// max |curvature − diagonal| / max |diagonal| of one parameter.
fn departure(net: &Network, x: &Array2<f32>, target: &Array2<f32>, loss: Loss, name: &str) -> f64 {
    let at = net.params().iter().position(|(n, _)| n == name).unwrap();
    let exact = &hessian_diagonal(net, x, target, loss)[at];
    largest(&(&net.curvature(x, target, loss, Curvature::Exact)[at] - exact)) / largest(exact)
}

#[test]
fn one_hidden_layer_under_the_squared_error_is_exact() {
    for f in ACTIVATIONS {
        let net = Net::new(5, 4).linear(6).act(f).linear(3).act(Activation::Tanh).build();
        let (x, target) = data(&net, 5, 8, Loss::SquaredError);
        assert_exact(&format!("{f:?}, tanh outputs"), &net, &x, &target, Loss::SquaredError);
        let net = Net::new(6, 4).linear_without_bias(6).act(f).linear(3).build();
        assert_exact(&format!("{f:?}, linear outputs"), &net, &x, &target, Loss::SquaredError);
    }
}

#[test]
fn running_batch_norm_after_a_hidden_layer_leaves_it_exact() {
    for f in ACTIVATIONS {
        let net = Net::new(5, 4).linear(6).norm(6).act(f).linear(3).norm(3).act(Activation::ScaledTanh).build();
        let (x, target) = data(&net, 7, 8, Loss::SquaredError);
        assert_exact(&format!("{f:?}"), &net, &x, &target, Loss::SquaredError);
    }
}

#[test]
fn a_last_layer_is_exact_under_either_loss_whatever_lies_before() {
    for loss in LOSSES {
        let net = Net::new(5, 16)
            .conv((1, 4, 4), 2, (3, 3), 1, 1)
            .norm(2)
            .act(Activation::Gelu)
            .pool(Average, (2, 4, 4), 2, 2)
            .linear(5)
            .act(Activation::Tanh)
            .linear(3)
            .build();
        let (x, target) = data(&net, 5, 6, loss);
        for name in ["layer6.weight", "layer6.bias"] {
            let off = departure(&net, &x, &target, loss, name);
            assert!(off <= RELATIVE, "{loss:?}, {name}: off by {off:.1e} of the largest");
        }
        let net = Net::new(8, 4).linear(3).build();
        let (x, target) = data(&net, 8, 8, loss);
        assert_exact(&format!("a lone layer, {loss:?}"), &net, &x, &target, loss);
    }
}

#[test]
fn chains_one_unit_wide_are_exact_at_any_depth() {
    for f in ACTIVATIONS {
        // A rectifier that never fires has no curvature to compare.
        let alive = |net: &Network| net.forward(&Array2::from_elem((1, 1), 1.0)) != net.forward(&Array2::zeros((1, 1)));
        let make = |seed| Net::new(seed, 1).linear(1).act(f).linear(1).norm(1).act(f).linear(1).act(f).linear(1).build();
        let net = (0..).map(make).find(alive).unwrap();
        let (x, target) = data(&net, 3, 12, Loss::SquaredError);
        let expected = hessian_diagonal(&net, &x, &target, Loss::SquaredError);
        assert!(expected.iter().map(largest).fold(0.0, f64::max) > 1e-2, "{f:?}: no curvature");
        let found = net.curvature(&x, &target, Loss::SquaredError, Curvature::Exact);
        assert_near(&format!("{f:?}"), &net, &found, &expected, ABSOLUTE, RELATIVE);
    }
}

#[test]
fn a_convolution_with_one_position_is_exact_as_a_linear_layer_is() {
    let net = Net::new(5, 18).conv((2, 3, 3), 4, (3, 3), 1, 0).norm(4).act(Activation::Silu).linear(2).build();
    let (x, target) = data(&net, 5, 6, Loss::SquaredError);
    assert_exact("conv", &net, &x, &target, Loss::SquaredError);
}

#[test]
fn pooling_after_one_hidden_layer_leaves_it_exact_and_squares_its_coefficients() {
    for pooling in [Average, Max] {
        for stride in [1, 2] {
            // Each unit meets several outputs, each with its own coefficient, and each output's loss is apart.
            let net = Net::new(5, 4).linear(24).act(Activation::Tanh).pool(pooling, (2, 3, 4), 2, stride).build();
            let (x, target) = data(&net, 5, 8, Loss::SquaredError);
            assert_exact(&format!("{pooling:?}, stride {stride}"), &net, &x, &target, Loss::SquaredError);
        }
    }
}

#[test]
fn the_second_derivative_of_the_activation_enters_with_a_plus() {
    for f in ACTIVATIONS.into_iter().filter(|f| *f != Activation::Relu) {
        let net = Net::new(5, 4).linear(6).act(f).linear(3).build();
        let (x, target) = data(&net, 5, 8, Loss::SquaredError);
        let plus = net.curvature(&x, &target, Loss::SquaredError, Curvature::Exact);
        let without = net.curvature(&x, &target, Loss::SquaredError, Curvature::GaussNewton);
        // The recursion is linear in f'' where only one activation lies behind a weight.
        let minus: Vec<Array2<f32>> = plus.iter().zip(&without).map(|(p, w)| w * 2.0 - p).collect();
        let exact = assert_exact(&format!("{f:?}"), &net, &x, &target, Loss::SquaredError);
        for (name, at) in [("weight", 0), ("bias", 1)] {
            let off = largest(&(&minus[at] - &exact[at])) / largest(&exact[at]);
            assert!(off > 0.1, "{f:?}, hidden {name}: a minus would be off by {off:.1e} only, and not be noticed");
        }
    }
}

#[test]
fn the_gauss_newton_form_is_the_exact_one_for_relu_and_never_negative_for_any() {
    for loss in LOSSES {
        for f in ACTIVATIONS {
            let net = Net::new(5, 18)
                .conv((2, 3, 3), 3, (2, 2), 1, 1)
                .norm(3)
                .act(f)
                .pool(Average, (3, 4, 4), 2, 1)
                .linear(5)
                .act(f)
                .linear(3)
                .build();
            let (x, target) = data(&net, 5, 6, loss);
            let gauss_newton = net.curvature(&x, &target, loss, Curvature::GaussNewton);
            let exact = net.curvature(&x, &target, loss, Curvature::Exact);
            assert!(gauss_newton.iter().flatten().all(|&h| h >= 0.0), "{f:?}, {loss:?}: negative");
            if f == Activation::Relu {
                assert_eq!(gauss_newton, exact, "{loss:?}");
            } else {
                assert!(exact.iter().flatten().any(|&h| h < 0.0), "{f:?}, {loss:?}: the exact form can be negative");
            }
        }
    }
}

#[test]
fn the_recursion_is_not_the_diagonal_where_the_text_says_so() {
    let two_hidden = Net::new(5, 4).linear(6).act(Activation::Tanh).linear(6).act(Activation::Tanh).linear(3).build();
    let softmax = Net::new(5, 4).linear(6).act(Activation::Tanh).linear(3).build();
    let positions = Net::new(5, 16).conv((1, 4, 4), 2, (3, 3), 1, 0).act(Activation::Tanh).linear(3).build();
    let cases = [
        ("two hidden layers", &two_hidden, Loss::SquaredError),
        ("a hidden layer before a softmax", &softmax, Loss::CrossEntropy),
        ("weights shared over positions", &positions, Loss::SquaredError),
    ];
    for (what, net, loss) in cases {
        let (x, target) = data(net, 5, 8, loss);
        let off = departure(net, &x, &target, loss, "layer0.weight");
        assert!(off > 0.05, "{what}: off by {off:.1e} of the largest only");
        // And only there: the last layer of each is exact.
        let last = format!("layer{}.weight", net.layers().len() - 1);
        let off = departure(net, &x, &target, loss, &last);
        assert!(off <= RELATIVE, "{what}, {last}: off by {off:.1e}");
    }
}

#[test]
fn curvature_is_the_mean_over_samples() {
    for kind in [Curvature::Exact, Curvature::GaussNewton] {
        for loss in LOSSES {
            let net = Net::new(5, 18).conv((2, 3, 3), 3, (2, 2), 2, 1).norm(3).act(Activation::Silu).linear(3).build();
            let (x, target) = data(&net, 5, 7, loss);
            let mut mean: Vec<Array2<f32>> = net.params().iter().map(|(_, p)| Array2::zeros(p.value().dim())).collect();
            for n in 0..7 {
                let row = |a: &Array2<f32>| a.slice(ndarray::s![n..n + 1, ..]).to_owned();
                let one = net.curvature(&row(&x), &row(&target), loss, kind);
                mean.iter_mut().zip(&one).for_each(|(m, o)| m.scaled_add(1.0 / 7.0, o));
            }
            let found = net.curvature(&x, &target, loss, kind);
            // The same sums in another order.
            assert_near(&format!("{kind:?}, {loss:?}"), &net, &found, &mean, 1e-6, 1e-5);
        }
    }
}
