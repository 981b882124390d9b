//! Every backward pass against central differences of the loss.

use crate::nets::{ACTIVATIONS, LOSSES, Net, assert_near, clear_of_kinks, data, largest};
use lacuna::nn::Mode::{Eval, Train};
use lacuna::nn::Pooling::{Average, Max};
use lacuna::nn::{Activation, Affine, Layer, Loss, Map, Mode, Network};
use ndarray::{Array2, array};

/// Half the distance of two points of a central difference: its error is ε² f‴ / 6 ≈ 4e-6 f‴ by Taylor and, as outputs of order
/// one are rounded to f32, a few 6e-8 / ε ≈ 1e-5 by rounding.
const EPSILON: f32 = 5e-3;
/// Moving one weight by ε moves a pre-activation by ε times an input (at most about 3), and batch statistics scale that by at
/// most 2: within this margin no kink is crossed.
const MARGIN: f32 = 0.04;
/// Rounding: the worst of the cases below, gradients that vanish before batch norm, measure 3e-5.
const ABSOLUTE: f64 = 6e-5;
/// Taylor: with the statistics of eight samples f‴ comes to 70 times the gradient; the worst case measures 2.6e-4.
const RELATIVE: f64 = 1e-3;

/// Central differences of the mean loss by every parameter.
fn differences(net: &Network, x: &Array2<f32>, target: &Array2<f32>, loss: Loss, mode: Mode) -> Vec<Array2<f32>> {
    let mut net = net.clone();
    let values: Vec<Array2<f32>> = net.params().iter().map(|(_, p)| p.value().clone()).collect();
    let mut at = |i: usize, value: Array2<f32>| {
        net.params_mut()[i].1.set_value(value).unwrap();
        loss.value(net.run(x.clone(), mode).output(), target)
    };
    let mut out = Vec::new();
    for (i, value) in values.iter().enumerate() {
        out.push(Array2::from_shape_fn(value.dim(), |k| {
            let (mut up, mut down) = (value.clone(), value.clone());
            up[k] += EPSILON;
            down[k] -= EPSILON;
            let distance = f64::from(up[k]) - f64::from(down[k]);
            ((at(i, up) - at(i, down)) / distance) as f32
        }));
        at(i, value.clone());
    }
    out
}

fn check(what: &str, net: &Network, x: &Array2<f32>, target: &Array2<f32>, loss: Loss, mode: Mode) {
    let (value, gradient) = net.gradient(x, target, loss, mode);
    assert_eq!(value, loss.value(net.run(x.clone(), mode).output(), target), "{what}: the loss");
    let expected = differences(net, x, target, loss, mode);
    // The tolerance means nothing for gradients that vanish.
    assert!(expected.iter().any(|g| largest(g) > 0.02), "{what}: no gradient to speak of");
    assert_near(what, net, &gradient, &expected, ABSOLUTE, RELATIVE);
}

type Build = fn(Net) -> Net;

/// Name, mode, features of its input, and the layer.
const LAYERS: [(&str, Mode, usize, Build); 14] = [
    ("linear", Eval, 6, |n| n.linear(5)),
    ("linear without bias", Eval, 6, |n| n.linear_without_bias(5)),
    ("conv", Eval, 32, |n| n.conv((2, 4, 4), 3, (3, 3), 1, 0)),
    ("conv, stride 2, padding 2", Eval, 24, |n| n.conv((2, 3, 4), 2, (3, 3), 2, 2)),
    ("conv 3 x 2 over a 5 x 3 image", Eval, 30, |n| n.conv((2, 5, 3), 3, (3, 2), 1, 0)),
    ("conv 3 x 2 over a 3 x 5 image, padding 1", Eval, 15, |n| n.conv((1, 3, 5), 2, (3, 2), 2, 1)),
    ("max pool", Eval, 32, |n| n.pool(Max, (2, 4, 4), 2, 2)),
    ("overlapping max pool of a 3 x 5 image", Eval, 15, |n| n.pool(Max, (1, 3, 5), 3, 1)),
    ("average pool, stride below size", Eval, 30, |n| n.pool(Average, (2, 3, 5), 2, 1)),
    ("average pool, stride above size", Eval, 30, |n| n.pool(Average, (2, 5, 3), 1, 2)),
    ("linear, batch norm of the batch", Train, 6, |n| n.linear(5).norm(5)),
    ("linear, running batch norm", Eval, 6, |n| n.linear(5).norm(5)),
    ("conv, batch norm of the batch", Train, 18, |n| n.conv((2, 3, 3), 3, (2, 2), 1, 0).norm(3)),
    ("conv, running batch norm", Eval, 18, |n| n.conv((2, 3, 3), 3, (2, 2), 1, 0).norm(3)),
];

#[test]
fn every_gradient_agrees_with_central_differences() {
    for (name, mode, features, build) in LAYERS {
        for f in ACTIVATIONS {
            for loss in LOSSES {
                // The layer in front receives the gradient of the tested layer's input.
                let make = |seed| build(Net::new(seed, 3).linear(features)).act(f).linear(3).build();
                // Few samples have a small variance now and then, and then a large third derivative.
                let batch = if mode == Train { 8 } else { 3 };
                let (net, x, target) = clear_of_kinks(MARGIN, mode, loss, batch, make);
                check(&format!("{name}, {f:?}, {loss:?}"), &net, &x, &target, loss, mode);
            }
        }
    }
}

#[test]
fn gradients_agree_when_the_first_layer_has_no_weights_or_is_batch_norm() {
    let builds: [(&str, usize, Build); 4] = [
        ("batch norm first", 8, |n| n.norm(2).conv((2, 2, 2), 2, (2, 1), 1, 0)),
        ("activation first", 6, |n| n.act(Activation::Tanh).linear(4)),
        ("pool first", 18, |n| n.pool(Average, (2, 3, 3), 2, 1).conv((2, 2, 2), 3, (2, 2), 1, 1)),
        ("conv first", 18, |n| n.conv((2, 3, 3), 2, (2, 2), 1, 1).norm(2)),
    ];
    for (name, inputs, build) in builds {
        for mode in [Train, Eval] {
            for loss in LOSSES {
                let net = build(Net::new(3, inputs)).act(Activation::Silu).linear(3).build();
                let (x, target) = data(&net, 4, 5, loss);
                check(&format!("{name}, {mode:?}, {loss:?}"), &net, &x, &target, loss, mode);
            }
        }
    }
}

#[test]
fn gradients_agree_where_activations_are_cut_off_at_a_height_that_is_learnt() {
    for mode in [Train, Eval] {
        for loss in LOSSES {
            let plain = |seed| Net::new(seed, 5).linear(8).pact(0.6).linear(3).build();
            let conv = |seed| {
                Net::new(seed, 18).conv((2, 3, 3), 3, (2, 2), 1, 0).pact(0.5).pool(Average, (3, 2, 2), 2, 1).linear(3).build()
            };
            for (name, make) in [("linear", &plain as &dyn Fn(u64) -> Network), ("conv", &conv)] {
                let (net, x, target) = clear_of_kinks(0.02, mode, loss, 4, make);
                check(&format!("{name}, cut off, {mode:?}, {loss:?}"), &net, &x, &target, loss, mode);
            }
        }
    }
}

#[test]
fn gradients_agree_through_a_deep_chain_of_every_layer() {
    for mode in [Train, Eval] {
        for loss in LOSSES {
            let make = |seed| {
                Net::new(seed, 18)
                    .conv((2, 3, 3), 3, (3, 3), 1, 1)
                    .norm(3)
                    .act(Activation::Gelu)
                    .pool(Max, (3, 3, 3), 2, 1)
                    .conv((3, 2, 2), 2, (2, 2), 1, 1)
                    .act(Activation::ScaledTanh)
                    .pool(Average, (2, 3, 3), 2, 1)
                    .linear(6)
                    .norm(6)
                    .act(Activation::Sigmoid)
                    .linear(3)
                    .build()
            };
            let (net, x, target) = clear_of_kinks(0.02, mode, loss, 4, make);
            check(&format!("deep chain, {mode:?}, {loss:?}"), &net, &x, &target, loss, mode);
        }
    }
}

#[test]
fn training_statistics_move_the_running_averages_by_the_momentum_towards_the_unbiased_variance() {
    let mut net = Network::new(1, vec![("bn".into(), Layer::BatchNorm(lacuna::nn::BatchNorm::new(1, 1)))]).unwrap();
    // Mean 3, squares of deviations 4 + 0 + 4: unbiased variance 4.
    let tape = net.run(array![[1.], [3.], [5.]], Train);
    net.absorb_statistics(&tape);
    let Layer::BatchNorm(norm) = &net.layers()[0].1 else { unreachable!() };
    // 0.9 · 0 + 0.1 · 3 and 0.9 · 1 + 0.1 · 4, to a rounding of f32.
    assert!((norm.mean[0] - 0.3).abs() < 1e-6, "{}", norm.mean[0]);
    assert!((norm.variance[0] - 1.3).abs() < 1e-6, "{}", norm.variance[0]);
    let before = net.clone();
    let tape = net.run(array![[7.], [9.]], Eval);
    net.absorb_statistics(&tape);
    assert_eq!(before, net, "a pass with running statistics moves nothing");
}

#[test]
fn column_major_weights_inputs_and_targets_mean_the_same_as_row_major_ones() {
    let row_major = Net::new(1, 16).conv((1, 4, 4), 2, (3, 3), 1, 1).act(Activation::Tanh).linear(3).build();
    let turned = |a: &Array2<f32>| a.t().as_standard_layout().into_owned().reversed_axes();
    let layers = row_major.layers().iter().map(|(name, layer)| match layer {
        Layer::Affine(a) => {
            let bias = a.bias.as_ref().map(|b| turned(b.value()));
            (name.clone(), Layer::Affine(Affine::new(a.map.clone(), turned(a.weight.value()), bias)))
        }
        other => (name.clone(), other.clone()),
    });
    let column_major = Network::new(16, layers.collect()).unwrap();
    let (x, target) = data(&row_major, 1, 5, Loss::SquaredError);
    let (xt, tt) = (turned(&x), turned(&target));
    assert!(!xt.is_standard_layout() && xt == x);
    // The same sums in the same order: equal to the bit.
    assert_eq!(row_major.forward(&x), column_major.forward(&xt));
    let expected = row_major.gradient(&x, &target, Loss::SquaredError, Eval);
    assert_eq!(expected, column_major.gradient(&xt, &tt, Loss::SquaredError, Eval));
    let tape = column_major.run(xt, Eval);
    let d = turned(&Loss::SquaredError.gradient(tape.output(), &target));
    assert_eq!(row_major.backward(&row_major.run(x, Eval), d.as_standard_layout().into_owned()), column_major.backward(&tape, d));
    // What an optimiser walks over is there, in row-major order.
    for ((name, a), (_, b)) in row_major.params().iter().zip(column_major.params()) {
        assert_eq!(a.as_slice(), b.as_slice(), "{name}");
    }
}

#[test]
fn a_last_convolution_takes_column_major_derivatives() {
    let net = Net::new(1, 16).conv((1, 4, 4), 2, (3, 3), 1, 1).build();
    let Layer::Affine(Affine { map: Map::Conv2d(conv), .. }) = &net.layers()[0].1 else { unreachable!() };
    let (x, _) = data(&net, 1, 3, Loss::SquaredError);
    let d = Array2::from_shape_fn((3, 2 * conv.positions()), |(i, j)| (i as f32 + 1.0) * (j as f32 - 7.0));
    let turned = d.t().as_standard_layout().into_owned().reversed_axes();
    let tape = net.run(x, Eval);
    assert_eq!(net.backward(&tape, d), net.backward(&tape, turned));
}
