//! Synaptic flow: conserved from layer to layer, finite at any depth, and the derivative it says it is.

use crate::nets::{Net, largest};
use lacuna::nn::Pooling::{Average, Max};
use lacuna::nn::{Activation, Affine, BatchNorm, Layer, Map, Network, Param};
use ndarray::{Array2, array};

/// Σ |w| ∂R/∂|w| of every layer, in f64.
fn flows(net: &Network) -> Vec<f64> {
    let flow = net.synaptic_flow();
    let weights: Vec<&Array2<f32>> = net.affines().map(|(_, _, a)| a.weight.value()).collect();
    assert_eq!(flow.len(), weights.len());
    let sum = |(w, f): (&Array2<f32>, &Array2<f32>)| -> f64 {
        assert_eq!(w.dim(), f.dim());
        w.iter().zip(f).map(|(&w, &f)| f64::from(w).abs() * f64::from(f)).sum()
    };
    weights.into_iter().zip(&flow).map(sum).collect()
}

/// All layers carry the same flow, to a few hundred roundings of f32.
fn assert_conserved(net: &Network) {
    let flows = flows(net);
    assert!(flows[0].is_finite() && flows[0] > 0.0, "{flows:?}");
    assert!(flows.iter().all(|f| (f / flows[0] - 1.0).abs() < 1e-4), "{flows:?}");
}

#[test]
fn the_flow_through_every_layer_is_the_same() {
    let tanh = Activation::Tanh;
    assert_conserved(&Net::new(1, 7).linear(20).act(tanh).linear_without_bias(13).act(tanh).linear(3).build());
    for pooling in [Max, Average] {
        assert_conserved(
            &Net::new(1, 72)
                .conv((2, 6, 6), 5, (3, 3), 1, 1)
                .act(tanh)
                .pool(pooling, (5, 6, 6), 2, 2)
                .conv((5, 3, 3), 4, (3, 2), 2, 2)
                .act(tanh)
                .pool(pooling, (4, 3, 3), 2, 1)
                .linear(9)
                .linear(3)
                .build(),
        );
    }
}

#[test]
fn thirty_layers_stay_finite_however_large_or_small_their_weights() {
    for scale in [1e-3, 1.0, 1e3] {
        let mut net = (0..30).fold(Net::new(4, 64), |net, _| net.linear(64).act(Activation::Relu)).build();
        for (_, p) in net.params_mut() {
            p.set_value(p.value() * scale).unwrap();
        }
        // Unscaled, R is about (64 · 0.1 · scale)³⁰, beyond f32 on either side for the outer two.
        let flow = net.synaptic_flow();
        assert!(flow.iter().flatten().all(|f| f.is_finite()), "{scale}");
        assert_conserved(&net);
    }
}

#[test]
fn a_layer_without_weights_lets_nothing_through_and_the_scores_are_zero() {
    let mut net = (0..6).fold(Net::new(4, 8), |net, _| net.linear(8).act(Activation::Relu)).build();
    net.param_mut("layer4.weight").unwrap().set_value(Array2::zeros((8, 8))).unwrap();
    assert!(net.synaptic_flow().iter().flatten().all(|f| f.is_finite()));
    assert_eq!(flows(&net), [0.0; 6]);
}

#[test]
fn two_layers_by_hand() {
    let layer = |w: Array2<f32>| {
        let (outputs, inputs) = w.dim();
        Layer::Affine(Affine::new(Map::Linear { inputs, outputs }, w, Some(Array2::from_elem((outputs, 1), 9.0))))
    };
    let net = Network::new(
        2,
        vec![
            ("a".into(), layer(array![[1., -2.], [-3., 1.]])),
            ("f".into(), Layer::Activation(Activation::Tanh)),
            ("b".into(), layer(array![[-1., 2.]])),
        ],
    )
    .unwrap();
    // |W₁| 1 = (3, 4), R = 3 + 8 = 11; ∂R/∂|W₁| = (1, 2) down the rows, ∂R/∂|W₂| = (3, 4).
    let (flow, sums) = (net.synaptic_flow(), flows(&net));
    let factor = (sums[0] / 11.0) as f32;
    let near = |found: &Array2<f32>, expected: Array2<f32>| largest(&(found - &(expected * factor))) < 1e-6 * f64::from(factor);
    assert!(near(&flow[0], array![[1., 1.], [2., 2.]]), "{:?}", flow[0]);
    assert!(near(&flow[1], array![[3., 4.]]), "{:?}", flow[1]);
}

#[test]
fn the_flow_is_the_derivative_of_the_output_of_the_absolute_network_for_ones() {
    let net = Net::new(1, 32)
        .conv((2, 4, 4), 3, (3, 2), 1, 1)
        .norm(3)
        .act(Activation::Gelu)
        .pool(Average, (3, 4, 5), 2, 1)
        .conv((3, 3, 4), 2, (2, 2), 2, 1)
        .act(Activation::Gelu)
        .linear(3)
        .build();
    // |W|, no biases, no activations; batch norm as multiplication by |γ| / √(σ² + ε).
    let absolute = |layer: &Layer| match layer {
        Layer::Affine(a) => Some(Layer::Affine(Affine::new(a.map.clone(), a.weight.value().mapv(f32::abs), None))),
        Layer::BatchNorm(b) => {
            let column = |f: &dyn Fn(f32) -> f32, p: &Param| Param::new(p.value().mapv(f), p.shape().to_vec());
            let mean = vec![0.0; b.channels()];
            Some(Layer::BatchNorm(BatchNorm {
                gamma: column(&f32::abs, &b.gamma),
                beta: column(&|_| 0.0, &b.beta),
                mean,
                ..b.clone()
            }))
        }
        Layer::Activation(_) | Layer::Pact(_) => None,
        Layer::Pool(p) => Some(Layer::Pool(*p)),
    };
    let layers = net.layers().iter().filter_map(|(name, layer)| Some((name.clone(), absolute(layer)?)));
    let linear = Network::new(32, layers.collect()).unwrap();
    let r = |net: &Network| net.forward(&Array2::ones((1, 32))).iter().map(|&y| f64::from(y)).sum::<f64>();
    let factor = flows(&net)[0] / r(&linear);
    for (flow, (_, name, a)) in net.synaptic_flow().iter().zip(net.affines()) {
        let derivative = Array2::from_shape_fn(flow.dim(), |k| {
            // R is linear in each weight: any step gives the derivative, and a large one gives it precisely.
            let mut moved = linear.clone();
            let mut value = a.weight.value().mapv(f32::abs);
            value[k] += 4.0;
            moved.param_mut(&format!("{name}.weight")).unwrap().set_value(value).unwrap();
            ((r(&moved) - r(&linear)) / 4.0 * factor) as f32
        });
        // R ≈ 10 to 100 rounded to f32 and divided by 4: about 1e-6 relative each.
        assert!(largest(&(flow - &derivative)) <= 1e-5 * largest(&derivative), "{name}");
    }
}
