//! A masked network and the smaller one without its dead units compute the same.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;

use close::{apart, assert_close};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Magnitude, Obd, Random, Saliency};
use lacuna::mask::Mask;
use lacuna::models::{Builder, Init, digits_convnet, mlp};
use lacuna::nn::{Activation, Affine, BatchNorm, Conv2d, Layer, Loss, Map, Method, Network, Pool, Pooling};
use lacuna::prune::{prune_units, shrink};
use lacuna::rng::Seed;
use lacuna::train::{Decay, TrainConfig, fit};
use ndarray::Array2;
use proptest::prelude::*;

const ACTIVATIONS: [Activation; 6] =
    [Activation::Tanh, Activation::ScaledTanh, Activation::Relu, Activation::Sigmoid, Activation::Gelu, Activation::Silu];

/// Every number that is not a weight is random too: biases, norms, running statistics.
fn stirred(network: Network, seed: u64) -> Network {
    let mut random = Seed(seed).stream("stir");
    let mut layers = network.layers().to_vec();
    for (_, layer) in &mut layers {
        if let Layer::BatchNorm(b) = layer {
            b.mean.iter_mut().for_each(|m| *m = 0.5 * random.normal());
            b.variance.iter_mut().for_each(|v| *v = 0.5 + random.uniform());
        }
        for (name, param) in layer.params_mut() {
            let (rows, cols) = param.value().dim();
            if cols == 1 {
                let middle = if name == "weight" { 1.0 } else { 0.0 };
                param.set_value(random.normal_array(rows, cols, 0.4) + middle).unwrap();
            }
        }
    }
    Network::new(network.inputs(), layers).unwrap()
}

fn inputs(network: &Network) -> Array2<f32> {
    Seed(99).stream("inputs").normal_array(9, network.inputs(), 1.0)
}

/// Asserts that shrinking leaves the outputs as they are, that nothing is left to shrink, and returns the smaller network.
fn shrunk(network: &Network) -> Network {
    let small = shrink(network).unwrap();
    let x = inputs(network);
    let (a, b) = (network.forward(&x), small.forward(&x));
    let scale = a.fold(1.0f32, |m, v| m.max(v.abs()));
    assert_close(&b, &a, 1e-5 * scale, "the smaller network");
    assert!(a.iter().any(|v| *v != a[[0, 0]]), "the outputs depend on the inputs");
    assert_eq!(shrink(&small).unwrap(), small, "shrinking again");
    assert!(small.parameters() <= network.parameters() && small.kept_parameters() <= network.kept_parameters());
    assert!(small.flops() <= network.flops());
    small
}

fn mask(network: &mut Network, param: &str, keep: impl Fn(usize, usize) -> bool) {
    let p = network.param_mut(param).unwrap();
    let (rows, cols) = p.value().dim();
    p.set_mask(Mask::from_fn(rows, cols, keep)).unwrap();
}

fn dims(network: &Network) -> Vec<(usize, usize)> {
    network.affines().map(|(_, _, a)| a.weight.value().dim()).collect()
}

/// Biases and norms that are not 0, padding, stride, both poolings, a convolution before linear layers.
fn convnet(f: Activation, padding: usize, seed: u64) -> Network {
    let net = Builder::image((2, 13, 13), Init::He, Seed(seed))
        .conv(5, 3, 1, padding)
        .batch_norm()
        .activation(f)
        .pool(Pooling::Max, 2)
        .conv(6, 2, 2, padding)
        .activation(f)
        .batch_norm()
        .pool(Pooling::Average, 2)
        .linear(7)
        .batch_norm()
        .activation(f)
        .linear(3);
    stirred(net.build().unwrap(), seed)
}

#[test]
fn without_masks_it_is_the_same_network() {
    for network in [convnet(Activation::Gelu, 1, 0), mlp(&[4, 5, 3], Activation::Tanh, Init::Glorot, Seed(0)).unwrap()] {
        assert_eq!(shrink(&network).unwrap(), network);
    }
    // Nor are masks that leave every unit alive a reason to change anything.
    let mut network = convnet(Activation::Relu, 1, 1);
    mask(&mut network, "conv2.weight", |r, c| (r + c) % 2 == 0);
    mask(&mut network, "fc1.bias", |r, _| r != 2);
    assert_eq!(shrink(&network).unwrap(), network);
}

#[test]
fn a_unit_that_reads_nothing_goes_and_its_constant_moves_into_the_next_bias() {
    for f in ACTIVATIONS {
        let mut network = stirred(mlp(&[4, 6, 5, 3], f, Init::Glorot, Seed(1)).unwrap(), 1);
        mask(&mut network, "fc1.weight", |r, _| r != 2 && r != 5);
        let small = shrunk(&network);
        assert_eq!(dims(&small), [(4, 4), (5, 4), (3, 5)], "{f:?}");
        let moved = small.param("fc2.bias").unwrap().value() != network.param("fc2.bias").unwrap().value();
        let constants = [2, 5].map(|u| f.value(network.param("fc1.bias").unwrap().value()[[u, 0]]));
        assert_eq!(moved, constants.iter().any(|c| *c != 0.0), "{f:?}: {constants:?}");
        // The bias of the sigmoid's units may be masked: they say ½ all the same.
        mask(&mut network, "fc1.bias", |r, _| r != 2 && r != 5);
        let small = shrunk(&network);
        assert_eq!(dims(&small), [(4, 4), (5, 4), (3, 5)], "{f:?}");
        let moved = small.param("fc2.bias").unwrap().value() != network.param("fc2.bias").unwrap().value();
        assert_eq!(moved, f == Activation::Sigmoid);
    }
}

#[test]
fn a_constant_worked_out_by_hand_arrives_in_the_next_bias() {
    // relu(3) · 2 through a unit that reads nothing.
    let affine = |w: Array2<f32>, b: Array2<f32>| {
        let (outputs, inputs) = w.dim();
        Layer::Affine(Affine::new(Map::Linear { inputs, outputs }, w, Some(b)))
    };
    let layers = vec![
        ("a".to_string(), affine(ndarray::array![[1.0, 1.0], [9.0, 9.0]], ndarray::array![[0.0], [3.0]])),
        ("f".to_string(), Layer::Activation(Activation::Relu)),
        ("b".to_string(), affine(ndarray::array![[1.0, 2.0]], ndarray::array![[0.5]])),
    ];
    let mut network = Network::new(2, layers).unwrap();
    mask(&mut network, "a.weight", |r, _| r == 0);
    let small = shrunk(&network);
    assert_eq!(*small.param("b.bias").unwrap().value(), ndarray::array![[6.5]]);
    assert_eq!(*small.param("b.weight").unwrap().value(), ndarray::array![[1.0]]);
}

#[test]
fn a_layer_without_a_bias_gets_one_for_the_constants() {
    let linear = |inputs: usize, outputs: usize, bias: bool| {
        let mut random = Seed(3).stream("w");
        let bias = bias.then(|| random.normal_array(outputs, 1, 1.0));
        Layer::Affine(Affine::new(Map::Linear { inputs, outputs }, random.normal_array(outputs, inputs, 1.0), bias))
    };
    let layers = vec![
        ("a".to_string(), linear(3, 4, false)),
        ("s".to_string(), Layer::Activation(Activation::Sigmoid)),
        ("b".to_string(), linear(4, 2, false)),
    ];
    let mut network = Network::new(3, layers).unwrap();
    mask(&mut network, "a.weight", |r, _| r != 1);
    let small = shrunk(&network);
    assert!(small.param("b.bias").is_ok() && small.param("a.bias").is_err());
}

#[test]
fn a_unit_that_nobody_reads_goes() {
    let mut network = convnet(Activation::Silu, 1, 2);
    mask(&mut network, "conv2.weight", |_, c| c / 4 != 3); // 2 x 2 kernels
    mask(&mut network, "fc1.weight", |_, c| !(4..12).contains(&c)); // 2 x 2 positions a channel: channels 1 and 2
    mask(&mut network, "fc2.weight", |_, c| c != 6);
    let small = shrunk(&network);
    assert_eq!(dims(&small), [(4, 18), (4, 4 * 4), (6, 4 * 4), (3, 6)]);
    assert!(small.params().iter().all(|(_, p)| p.mask().is_none()), "nothing is left that is masked");
    assert_eq!(small.kept_parameters(), small.parameters());
}

#[test]
fn the_death_of_a_unit_kills_those_that_only_it_read_or_fed() {
    let mut network = stirred(mlp(&[4, 5, 5, 5, 2], Activation::Tanh, Init::Glorot, Seed(4)).unwrap(), 4);
    // fc3's unit 0 is read by nobody; it alone reads fc2's unit 1, which alone reads fc1's unit 2.
    mask(&mut network, "fc4.weight", |_, c| c != 0);
    mask(&mut network, "fc3.weight", |r, c| c != 1 || r == 0);
    mask(&mut network, "fc2.weight", |r, c| c != 2 || r == 1);
    assert_eq!(dims(&shrunk(&network)), [(4, 4), (4, 4), (4, 4), (2, 4)]);
    // And forwards: fc1's unit 2 reads nothing, fc2's unit 1 reads only it, fc3's unit 0 only that.
    let mut network = stirred(mlp(&[4, 5, 5, 5, 2], Activation::Tanh, Init::Glorot, Seed(4)).unwrap(), 4);
    mask(&mut network, "fc1.weight", |r, _| r != 2);
    mask(&mut network, "fc2.weight", |r, c| r != 1 || c == 2);
    mask(&mut network, "fc3.weight", |r, c| r != 0 || c == 1);
    assert_eq!(shrunk(&network).affines().next().unwrap().2.weight.value().dim(), (4, 4));
}

#[test]
fn before_padding_only_a_constant_of_zero_can_go() {
    // A channel whose constant is not 0 is 0 at the border that padding adds: no bias can stand for it.
    for (padding, bias, goes) in [(1, 0.7, false), (1, 0.0, true), (0, 0.7, true), (0, 0.0, true)] {
        let net =
            Builder::image((1, 6, 6), Init::He, Seed(5)).conv(4, 3, 1, 1).activation(Activation::Tanh).conv(3, 3, 1, padding);
        let mut network = net.activation(Activation::Tanh).linear(2).build().unwrap();
        network.param_mut("conv1.bias").unwrap().set_value(Array2::from_elem((4, 1), bias)).unwrap();
        mask(&mut network, "conv1.weight", |r, _| r != 1);
        let small = shrunk(&network);
        assert_eq!(dims(&small)[0].0, if goes { 3 } else { 4 }, "padding {padding}, bias {bias}");
        assert_eq!(small == network, !goes);
        // What nobody reads goes whatever it says.
        mask(&mut network, "conv2.weight", |_, c| c / 9 != 1);
        assert_eq!(dims(&shrunk(&network))[0].0, 3);
    }
}

#[test]
fn of_a_group_that_is_all_dead_one_unit_stays() {
    for (param, weight) in [("fc1.weight", "inputs"), ("fc2.weight", "outputs")] {
        let mut network = stirred(mlp(&[4, 5, 6, 3], Activation::Sigmoid, Init::Glorot, Seed(6)).unwrap(), 6);
        mask(&mut network, param, |_, _| false);
        let small = shrink(&network).unwrap();
        assert_eq!(dims(&small)[0], (1, 4), "dead by {weight}");
        let x = inputs(&network);
        assert_close(&small.forward(&x), &network.forward(&x), 1e-5, param);
        assert_eq!(shrink(&small).unwrap(), small);
    }
}

#[test]
fn masks_of_what_is_left_are_kept() {
    let mut network = convnet(Activation::Relu, 0, 7);
    mask(&mut network, "conv1.weight", |r, c| r != 3 && (r + c) % 3 != 0);
    mask(&mut network, "conv2.weight", |r, c| (r * 5 + c) % 4 != 1);
    mask(&mut network, "fc2.bias", |r, _| r != 1);
    let small = shrunk(&network);
    assert_eq!(dims(&small)[..2], [(4, 18), (6, 16)]);
    let left = [0, 1, 2, 4];
    let conv1 = Mask::from_fn(4, 18, |r, c| (left[r] + c) % 3 != 0);
    let conv2 = Mask::from_fn(6, 16, |r, c| (r * 5 + left[c / 4] * 4 + c % 4) % 4 != 1);
    assert_eq!(small.param("conv1.weight").unwrap().mask(), Some(&conv1));
    assert_eq!(small.param("conv2.weight").unwrap().mask(), Some(&conv2));
    assert_eq!(small.param("fc2.bias").unwrap().mask().unwrap().kept(), 2);
    assert!(small.param("fc1.weight").unwrap().mask().is_none());
}

#[test]
fn trained_networks_pruned_by_units_shrink_and_compute_the_same() {
    let digits = lacuna::data::digits().select(&(0..300).collect::<Vec<_>>());
    let (x, t) = (digits.x().clone(), digits.one_hot(1.0, 0.0));
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let method = Method::AdamW { weight_decay: 0.01 };
    let decay = Decay::Constant;
    let recipe =
        TrainConfig { loss: Loss::CrossEntropy, method, learning_rate: 3e-3, decay, epochs: 2, batch: 32, seed: Seed(0) };
    let mut network = digits_convnet([8, 12], 16, Seed(8)).unwrap();
    fit(&mut network, &x, &t, &recipe).unwrap();
    for (saliency, sparsity) in [(&Obd as &dyn Saliency, 0.25), (&Magnitude::default(), 0.5), (&Random { seed: Seed(0) }, 0.99)] {
        let mut masked = prune_units(&network, &data, saliency, sparsity).unwrap();
        fit(&mut masked, &x, &t, &recipe).unwrap();
        let small = shrink(&masked).unwrap();
        assert_close(&small.forward(&x), &masked.forward(&x), 1e-5, saliency.name());
        let left = |units: usize| (units - (units as f64 * sparsity).round() as usize).max(1);
        let (a, b, c) = (left(8), left(12), left(16));
        assert_eq!(dims(&small), [(a, 9), (b, 9 * a), (c, 4 * b), (10, c)], "{} at {sparsity}", saliency.name());
        assert_eq!(small.parameters(), masked.kept_parameters(), "{}", saliency.name());
        assert_eq!(small.flops(), masked.flops());
        assert!(small.flops() < network.flops());
    }
}

#[test]
fn prune_units_masks_whole_units_and_keeps_the_best() {
    let mut network = stirred(mlp(&[3, 4, 2], Activation::Relu, Init::Glorot, Seed(9)).unwrap(), 9);
    // |row| + |column|: 0.9 + 2 · 0.1, 0.3 + 2 · 1.0, 1.5 + 0.2, 0.6 + 0.2.
    let rows = [0.3, 0.1, 0.5, 0.2];
    network.param_mut("fc1.weight").unwrap().set_value(Array2::from_shape_fn((4, 3), |(r, _)| rows[r])).unwrap();
    let fc2 = Array2::from_shape_fn((2, 4), |(_, c)| if c == 1 { -1.0 } else { 0.1 });
    network.param_mut("fc2.weight").unwrap().set_value(fc2).unwrap();
    let (x, t) = (Array2::ones((2, 3)), Array2::ones((2, 2)));
    let data = Calibration::new(&x, &t, Loss::SquaredError);
    let masked = prune_units(&network, &data, &Magnitude::default(), 0.5).unwrap();
    let keeps = |name: &str| masked.param(name).unwrap().mask().unwrap().clone();
    assert_eq!(keeps("fc1.weight"), Mask::from_fn(4, 3, |r, _| r == 1 || r == 2));
    assert_eq!(keeps("fc1.bias"), Mask::from_fn(4, 1, |r, _| r == 1 || r == 2));
    assert_eq!(keeps("fc2.weight"), Mask::from_fn(2, 4, |_, c| c == 1 || c == 2));
    assert!(masked.param("fc2.bias").unwrap().mask().is_none());
    assert!(prune_units(&network, &data, &Magnitude::default(), 1.0).is_err());
}

#[test]
fn units_that_are_dead_already_go_first_whatever_the_criterion_says_of_them() {
    let network = stirred(mlp(&[3, 8, 2], Activation::Relu, Init::Glorot, Seed(11)).unwrap(), 11);
    let (x, t) = (Array2::ones((2, 3)), Array2::ones((2, 2)));
    let data = Calibration::new(&x, &t, Loss::SquaredError);
    for seed in 0..20 {
        // Scores by chance: those of dead units are as large as others.
        let half = prune_units(&network, &data, &Random { seed: Seed(seed) }, 0.5).unwrap();
        let again = prune_units(&half, &data, &Random { seed: Seed(seed + 100) }, 0.5).unwrap();
        assert_eq!(again, half, "seed {seed}: as many units as before");
        let fewer = prune_units(&half, &data, &Random { seed: Seed(seed + 100) }, 0.75).unwrap();
        let left = |n: &Network| n.param("fc1.weight").unwrap().mask().unwrap().clone();
        assert_eq!(left(&fewer).row_counts().iter().filter(|n| **n > 0).count(), 2, "seed {seed}");
        assert!(left(&fewer).is_subset_of(&left(&half)));
    }
}

#[test]
fn units_that_a_layer_behind_cuts_up_or_takes_together_are_left_alone() {
    // An image of one channel made of a linear layer's 36 outputs; a norm over 3 channels of 12 of them.
    let mut random = Seed(10).stream("w");
    let fc = Affine::new(Map::Linear { inputs: 5, outputs: 36 }, random.normal_array(36, 5, 1.0), None);
    let conv = Affine::new(Map::Conv2d(Conv2d::valid((1, 6, 6), 2, 3)), random.normal_array(2, 9, 1.0), None);
    let out = Affine::new(Map::Linear { inputs: 2, outputs: 2 }, random.normal_array(2, 2, 1.0), None);
    let pool = Pool { pooling: Pooling::Max, input: (2, 4, 4), size: 4, stride: 4 };
    let mut layers = vec![
        ("fc1".to_string(), Layer::Affine(fc)),
        ("conv1".to_string(), Layer::Affine(conv)),
        ("pool1".to_string(), Layer::Pool(pool)),
        ("fc2".to_string(), Layer::Affine(out)),
    ];
    let image = Network::new(5, layers.clone()).unwrap();
    layers.insert(1, ("bn1".to_string(), Layer::BatchNorm(BatchNorm::new(3, 12))));
    let normed = Network::new(5, layers).unwrap();
    let (x, t) = (Array2::ones((2, 5)), Array2::ones((2, 2)));
    for mut network in [image, normed] {
        assert_eq!(network.groups().iter().map(|g| g.units).collect::<Vec<_>>(), [2]);
        let data = Calibration::new(&x, &t, Loss::SquaredError);
        let masked = prune_units(&network, &data, &Magnitude::default(), 0.5).unwrap();
        assert!(masked.param("fc1.weight").unwrap().mask().is_none());
        assert_eq!(dims(&shrunk(&masked)), [(36, 5), (1, 9), (2, 1)]);
        mask(&mut network, "fc1.weight", |r, _| r % 2 == 0);
        assert_eq!(shrunk(&network), network);
    }
}

/// How an architecture is drawn: conv or not, activation, padding, stride, pooling, norm.
fn architecture() -> impl Strategy<Value = Network> {
    let act = (0..ACTIVATIONS.len()).prop_map(|i| ACTIVATIONS[i]);
    (any::<bool>(), act, 0usize..2, 1usize..3, 0usize..3, any::<[bool; 2]>(), any::<u64>()).prop_map(
        |(image, f, padding, stride, pool, [norm, late], seed)| {
            if !image {
                return stirred(mlp(&[5, 6, 4, 3], f, Init::Glorot, Seed(seed)).unwrap(), seed);
            }
            let mut b = Builder::image((2, 7, 7), Init::He, Seed(seed)).conv(4, 3, 1, padding);
            b = if norm { b.batch_norm().activation(f) } else { b.activation(f) };
            b = match pool {
                0 => b,
                1 => b.pool(Pooling::Max, 2),
                _ => b.pool(Pooling::Average, 2),
            };
            b = b.conv(3, 2, stride, padding);
            b = if late { b.activation(f).batch_norm() } else { b.activation(f) };
            stirred(b.linear(5).activation(f).linear(3).build().unwrap(), seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_masks_on_any_network_leave_the_outputs_as_they_are(network in architecture(), seed in any::<u64>(), keep in 0.0..1.0f32) {
        let mut network = network;
        let mut random = Seed(seed).stream("masks");
        let units = random.clone().uniform() < 0.8;
        for (_, param) in network.params_mut() {
            let (rows, cols) = param.value().dim();
            if random.uniform() < 0.3 {
                continue;
            }
            // Whole rows, whole columns, single weights.
            let row: Vec<bool> = (0..rows).map(|_| !units || random.uniform() < 0.6).collect();
            let col: Vec<bool> = (0..cols).map(|_| !units || random.uniform() < 0.7).collect();
            let mask = Mask::from_fn(rows, cols, |r, c| row[r] && col[c] && (units || random.uniform() < keep));
            param.set_mask(mask).unwrap();
        }
        let small = shrink(&network).unwrap();
        let x = inputs(&network);
        let (a, b) = (network.forward(&x), small.forward(&x));
        let scale = a.fold(1.0f32, |m, v| m.max(v.abs()));
        apart(&b, &a, |_, _| 1e-5 * scale).map_err(TestCaseError::fail)?;
        prop_assert!(small.parameters() <= network.parameters() && small.flops() <= network.flops());
        prop_assert_eq!(&shrink(&small).unwrap(), &small);
        // What can be removed is: of a unit that nobody reads nothing is left, unless its group is all dead.
        for group in small.groups() {
            let Layer::Affine(consumer) = &small.layers()[group.consumer].1 else { continue };
            let Some(mask) = consumer.weight.mask() else { continue };
            let read = mask.block_counts(mask.rows(), group.width);
            prop_assert!(group.units == 1 || read.iter().all(|n| *n > 0), "{:?}", read);
        }
    }
}
