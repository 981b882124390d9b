//! Hessian-vector products against central differences of the gradient, and against their own symmetry.

use crate::nets::{ACTIVATIONS, LOSSES, Net, assert_near, clear_of_kinks, direction, dot, largest};
use lacuna::nn::Pooling::{Average, Max};
use lacuna::nn::{Activation, Loss, Mode, Network};
use ndarray::Array2;

/// Gradients of order one in f32 carry about 1e-7, so the quotient about 1e-7 / ε = 1e-5; Taylor's error is ε² / 6 times a
/// third derivative along a direction of unit length.
const EPSILON: f32 = 1e-2;
const ABSOLUTE: f64 = 1e-4;
const RELATIVE: f64 = 1e-3;

fn mlp(seed: u64, f: Activation) -> Network {
    Net::new(seed, 5).linear(6).norm(6).act(f).linear_without_bias(4).act(f).linear(3).build()
}

fn convnet(seed: u64, f: Activation) -> Network {
    Net::new(seed, 18)
        .conv((2, 3, 3), 3, (3, 2), 1, 1)
        .norm(3)
        .act(f)
        .pool(Max, (3, 3, 4), 2, 1)
        .conv((3, 2, 3), 2, (3, 3), 2, 2)
        .act(f)
        .pool(Average, (2, 2, 3), 2, 1)
        .norm(2)
        .linear(3)
        .build()
}

fn clipped(seed: u64, f: Activation) -> Network {
    Net::new(seed, 5).linear(7).act(f).linear(6).pact(0.3).linear(3).build()
}

/// Every activation, loss and network, with data that keep clear of kinks.
fn cases(mut run: impl FnMut(&str, &Network, &Array2<f32>, &Array2<f32>, Loss)) {
    type Make = fn(u64, Activation) -> Network;
    for (name, make) in [("mlp", mlp as Make), ("convnet", convnet), ("clipped", clipped)] {
        for f in ACTIVATIONS {
            for loss in LOSSES {
                // A step of 0.01 along a direction of unit length moves a pre-activation by about 0.01.
                let (net, x, target) = clear_of_kinks(0.015, Mode::Eval, loss, 3, |seed| make(seed, f));
                run(&format!("{name}, {f:?}, {loss:?}"), &net, &x, &target, loss);
            }
        }
    }
}

/// (g(θ + ε v) − g(θ − ε v)) / 2ε
fn differences(net: &Network, x: &Array2<f32>, target: &Array2<f32>, loss: Loss, v: &[Array2<f32>]) -> Vec<Array2<f32>> {
    let at = |step: f32| {
        let mut moved = net.clone();
        for ((_, p), v) in moved.params_mut().into_iter().zip(v) {
            p.set_value(p.value() + &(v * step)).unwrap();
        }
        moved.gradient(x, target, loss, Mode::Eval).1
    };
    at(EPSILON).iter().zip(&at(-EPSILON)).map(|(up, down)| (up - down) / (2.0 * EPSILON)).collect()
}

#[test]
fn a_hessian_times_a_direction_agrees_with_differences_of_the_gradient() {
    cases(|what, net, x, target, loss| {
        for seed in 0..3 {
            let v = direction(net, seed);
            let found = net.hessian_times(x, target, loss, &v);
            // A rectifier may be dead for three samples.
            let vanishing = found.iter().filter(|h| largest(*h) <= 10.0 * ABSOLUTE).count();
            assert!(vanishing == 0 || what.contains("Relu") && vanishing <= 4, "{what}: {vanishing} parts of Hv vanish");
            assert_near(what, net, &found, &differences(net, x, target, loss, &v), ABSOLUTE, RELATIVE);
        }
    });
}

#[test]
fn the_hessian_is_symmetric() {
    cases(|what, net, x, target, loss| {
        let (u, v) = (direction(net, 10), direction(net, 11));
        let (hu, hv) = (net.hessian_times(x, target, loss, &u), net.hessian_times(x, target, loss, &v));
        let (uhv, vhu, scale) = (dot(&u, &hv), dot(&v, &hu), dot(&hv, &hv).sqrt());
        assert!(scale > 0.01, "{what}: Hv vanishes");
        // Both are sums of f32 products of order `scale`, each to about 1e-6 of it.
        assert!((uhv - vhu).abs() <= 1e-5 * scale, "{what}: {uhv} and {vhu}, |Hv| = {scale}");
    });
}

#[test]
fn the_hessian_is_linear_in_its_direction() {
    cases(|what, net, x, target, loss| {
        let (u, v) = (direction(net, 20), direction(net, 21));
        let sum: Vec<Array2<f32>> = u.iter().zip(&v).map(|(u, v)| u * 2.0 - v).collect();
        let (hu, hv) = (net.hessian_times(x, target, loss, &u), net.hessian_times(x, target, loss, &v));
        let expected: Vec<Array2<f32>> = hu.iter().zip(&hv).map(|(u, v)| u * 2.0 - v).collect();
        // Roundings of f32 only.
        assert_near(what, net, &net.hessian_times(x, target, loss, &sum), &expected, 1e-5, 1e-5);
    });
}
