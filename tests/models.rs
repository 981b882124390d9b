//! Networks of the literature, networks in files, and networks whose weights are stored sparse.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;

use close::assert_close;
use lacuna::Error;
use lacuna::calibrate::Calibration;
use lacuna::criteria::Obd;
use lacuna::io::{Checkpoint, Dtype};
use lacuna::mask::Mask;
use lacuna::models::{
    Builder, Compressed, Init, digits_convnet, digits_shared, from_checkpoint, lecun_1989, lenet_5, lenet_300_100, load, mlp,
    save, to_checkpoint,
};
use lacuna::nn::{Activation, Layer, Loss, Method, Network, Pooling};
use lacuna::prune::prune_units;
use lacuna::rng::Seed;
use lacuna::sparse::{Compress, Csr, Dense, LinearOp};
use lacuna::train::{Decay, TrainConfig, fit};
use ndarray::{Array1, Array2, ArrayD, IxDyn};

const KEY: &str = "lacuna.network";

fn weights(network: &Network) -> usize {
    network.affines().map(|(_, _, a)| a.weight.value().len()).sum()
}

#[test]
fn networks_of_the_literature_have_the_parameters_that_their_papers_count() {
    let seed = Seed(0);
    let counts = |n: Network| (n.inputs(), n.parameters(), weights(&n));
    assert_eq!(counts(lenet_300_100(seed).unwrap()), (784, 266_610, 266_200));
    assert_eq!(counts(lenet_5(seed).unwrap()), (784, 431_080, 430_500));
    // 8·9 + 12·72 + 20·48 + 10·20 weights, 8 + 12 + 20 + 10 biases.
    assert_eq!(counts(digits_shared(seed).unwrap()), (64, 2146, 2096));
    // 12·25 + 12·300 + 30·192 + 10·30 weights, 12 + 12 + 30 + 10 biases.
    assert_eq!(counts(lecun_1989(seed).unwrap()), (256, 10_024, 9960));
    // 4·9 + 6·36 + 5·24 + 10·5 weights, 4 + 6 + 5 + 10 biases, twice 4 and 6 of the norms.
    assert_eq!(counts(digits_convnet([4, 6], 5, seed).unwrap()), (64, 422 + 25 + 20, 422));
}

#[test]
fn multiplications_are_counted_once_a_position() {
    // 2·(20·25·24² + 50·500·8² + 800·500 + 500·10).
    assert_eq!(lenet_5(Seed(0)).unwrap().flops(), 2 * (288_000 + 1_600_000 + 400_000 + 5000));
    let mut network = lenet_5(Seed(0)).unwrap();
    network.param_mut("conv1.weight").unwrap().set_mask(Mask::from_fn(20, 25, |r, _| r < 5)).unwrap();
    assert_eq!(network.flops(), 2 * (72_000 + 1_600_000 + 400_000 + 5000));
}

#[test]
fn initial_weights_depend_on_the_seed_and_the_name_of_the_layer_alone() {
    let value = |n: &Network, name: &str| n.param(name).unwrap().value().clone();
    let build = |seed: u64, f: Activation, more: bool| {
        let b = Builder::vector(6, Init::He, Seed(seed)).linear(5).activation(f).linear(4);
        if more { b.batch_norm().linear(3).build().unwrap() } else { b.build().unwrap() }
    };
    let a = build(1, Activation::Relu, false);
    let b = build(1, Activation::Tanh, true);
    for name in ["fc1.weight", "fc2.weight"] {
        assert_eq!(value(&a, name), value(&b, name), "{name}");
        assert_ne!(value(&a, name), value(&build(2, Activation::Relu, false), name), "{name}");
    }
    let square = Builder::vector(5, Init::He, Seed(1)).linear(5).linear(5).build().unwrap();
    assert_ne!(value(&square, "fc1.weight"), value(&square, "fc2.weight"));
    assert!(a.params().iter().filter(|(n, _)| n.ends_with("bias")).all(|(_, p)| p.as_slice().iter().all(|b| *b == 0.0)));
}

#[test]
fn initial_weights_have_the_spread_that_their_rule_says() {
    for (init, variance) in [(Init::Glorot, 2.0 / 500.0), (Init::He, 2.0 / 300.0), (Init::LeCun, (2.4 / 300.0f64).powi(2) / 3.0)]
    {
        let network = Builder::vector(300, init, Seed(3)).linear(200).build().unwrap();
        let w = network.param("fc1.weight").unwrap().value().mapv(f64::from);
        let (mean, found) = (w.mean().unwrap(), w.var(0.0));
        assert!(mean.abs() < 4.0 * (variance / 60_000.0).sqrt() && (found / variance - 1.0).abs() < 0.03, "{init:?}: {found}");
        let most = w.fold(0.0f64, |m, v| m.max(v.abs()));
        assert_eq!(init == Init::LeCun, most <= 2.4 / 300.0 * 1.000_001, "{init:?}: {most}");
    }
    // A convolution's inputs are those of its patch, 5·5·4 = 100.
    let conv = Builder::image((4, 9, 9), Init::He, Seed(3)).conv(200, 5, 1, 0).build().unwrap();
    let found = conv.param("conv1.weight").unwrap().value().mapv(f64::from).var(0.0);
    assert!((found / 0.02 - 1.0).abs() < 0.05, "{found}");
}

/// A trained convnet with masks on weights, biases and norms.
fn pruned() -> Network {
    let digits = lacuna::data::digits().select(&(0..100).collect::<Vec<_>>());
    let (x, t) = (digits.x().clone(), digits.one_hot(1.0, 0.0));
    let mut network = digits_convnet([4, 6], 8, Seed(4)).unwrap();
    let method = Method::Adam { weight_decay: 0.0 };
    let (loss, decay) = (Loss::CrossEntropy, Decay::Linear);
    fit(&mut network, &x, &t, &TrainConfig { loss, method, learning_rate: 1e-2, decay, epochs: 2, batch: 16, seed: Seed(0) })
        .unwrap();
    let mut network = prune_units(&network, &Calibration::new(&x, &t, loss), &Obd, 0.4).unwrap();
    let fc2 = network.param_mut("fc2.weight").unwrap();
    let mask = fc2.mask().unwrap().and(&Mask::from_fn(10, 8, |r, c| (r + 2 * c) % 3 != 0));
    fc2.set_mask(mask).unwrap();
    network
}

#[test]
fn a_network_comes_back_from_its_file_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let x = Seed(5).stream("x").normal_array(7, 64, 1.0);
    let average = Builder::image((1, 8, 8), Init::LeCun, Seed(1))
        .conv(3, 2, 2, 1)
        .activation(Activation::Silu)
        .pool(Pooling::Average, 2)
        .linear(4)
        .activation(Activation::Gelu)
        .batch_norm()
        .activation(Activation::Sigmoid)
        .build()
        .unwrap();
    for network in [pruned(), average, digits_shared(Seed(2)).unwrap()] {
        save(&network, &path).unwrap();
        let back = load(&path).unwrap();
        assert_eq!(back, network);
        let bits = |n: &Network| n.forward(&x).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&network));
    }
    let back = from_checkpoint(&to_checkpoint(&pruned()).unwrap()).unwrap();
    for name in ["conv1.weight", "conv1.bias", "bn1.weight", "bn2.bias", "fc1.bias", "fc2.weight"] {
        let mask = back.param(name).unwrap().mask();
        assert!(mask.is_some_and(|m| m.kept() < m.len()), "{name}");
    }
    let Layer::BatchNorm(norm) = &back.layers()[1].1 else { panic!("the second layer is a norm") };
    assert!(norm.mean.iter().all(|m| *m != 0.0), "running statistics are of training");
}

#[test]
fn a_convolution_is_stored_in_four_dimensions() {
    let file = to_checkpoint(&lenet_5(Seed(0)).unwrap()).unwrap();
    assert_eq!(file.get("conv2.weight").unwrap().shape(), [50, 20, 5, 5]);
    assert_eq!(file.get("fc1.bias").unwrap().shape(), [500]);
    assert!(file.metadata()[KEY].starts_with(r#"{"inputs":784,"layers":[["conv1",{"conv2d":{"#), "{}", file.metadata()[KEY]);
}

fn refusal(file: &Checkpoint) -> String {
    let line = from_checkpoint(file).unwrap_err().to_string();
    assert!(!line.chars().any(char::is_control) && line.len() < 900, "{line}");
    line
}

#[test]
fn a_file_that_lacks_something_or_holds_something_else_is_refused_by_name() {
    let whole = to_checkpoint(&pruned()).unwrap();
    for name in ["conv1.weight", "conv2.bias", "bn1.weight", "bn2.running_var", "fc2.weight"] {
        let mut file = whole.clone();
        file.remove(name).unwrap();
        let line = refusal(&file);
        assert!(line.contains(&format!("'{name}'")), "{line}");

        let mut file = whole.clone();
        file.remove_mask(name);
        file.insert(name, ArrayD::<f32>::ones(IxDyn(&[3, 7])), Dtype::F32).unwrap();
        let line = refusal(&file);
        assert!(line.contains(&format!("tensor '{name}' is (3, 7), the network needs (")), "{line}");

        let mut file = whole.clone();
        let mut values = whole.get(name).unwrap().clone();
        values.iter_mut().nth(1).into_iter().for_each(|v| *v = f32::NAN);
        file.insert(name, values, Dtype::F32).unwrap();
        let line = refusal(&file);
        assert!(line.contains(&format!("tensor '{name}': NaN at row ")), "{line}");
    }
    let mut file = whole.clone();
    file.insert("bn1.running_var", Array1::from(vec![1.0, -0.5, 1.0, 1.0]), Dtype::F32).unwrap();
    assert!(refusal(&file).contains("layer 'bn1': a variance of -0.5"), "{}", refusal(&file));

    let mut plain = Checkpoint::new();
    plain.insert("w", Array2::<f32>::zeros((2, 2)), Dtype::F32).unwrap();
    assert!(refusal(&plain).contains("has no 'lacuna.network' in its metadata"));
    let mut masked = whole.clone();
    masked.insert("other", Array2::<f32>::zeros((2, 2)), Dtype::F32).unwrap();
    masked.insert_mask("other", &Mask::empty(2, 2)).unwrap();
    assert!(refusal(&masked).contains("'other'"));
}

#[test]
fn metadata_that_lies_is_refused_without_a_panic_or_a_large_allocation() {
    let max = usize::MAX;
    let big = 1usize << 40;
    let conv = |input: [usize; 3], out: usize, kernel: [usize; 2], stride: usize, padding: usize| {
        let conv =
            serde_json::json!({ "input": input, "out_channels": out, "kernel": kernel, "stride": stride, "padding": padding });
        serde_json::json!({ "conv2d": { "conv": conv, "bias": true } })
    };
    let pool = |input: [usize; 3], size: usize, stride: usize| serde_json::json!({ "pool": { "pooling": "max", "input": input, "size": size, "stride": stride } });
    let norm = |channels: usize, positions: usize, epsilon: f64| {
        let norm = serde_json::json!({ "channels": channels, "positions": positions, "epsilon": epsilon, "momentum": 0.1 });
        serde_json::json!({ "batch_norm": norm })
    };
    let linear = |i: usize, o: usize| serde_json::json!({ "linear": { "inputs": i, "outputs": o, "bias": true } });
    let mut kinds = vec![
        conv([1, 4, 4], 2, [0, 2], 1, 0),
        conv([1, 4, 4], 2, [2, 2], 0, 0),
        conv([1, 4, 4], 2, [5, 2], 1, 0),
        conv([0, 4, 4], 2, [2, 2], 1, 0),
        conv([1, 4, 4], 0, [2, 2], 1, 0),
        pool([1, 4, 4], 0, 1),
        pool([1, 4, 4], 2, 0),
        pool([1, 4, 4], 5, 1),
        norm(2, 8, -1.0),
        norm(2, 8, 1e300),
        norm(0, 0, 1e-5),
        norm(3, 8, 1e-5),
        linear(0, 2),
        linear(16, 0),
        linear(16, 3),
    ];
    for huge in [big, 1 << 33, max / 2 + 1, max] {
        kinds.extend([linear(huge, huge), linear(16, huge), norm(huge, huge, 1e-5), norm(2, huge, 1e-5)]);
        kinds.extend([pool([huge, 4, 4], 2, 2), pool([huge, huge, huge], 2, 2), pool([1, 4, 4], huge, 2)]);
        kinds.extend([
            conv([huge, 4, 4], 2, [2, 2], 1, 0),
            conv([1, huge, 4], 2, [2, 2], 1, 0),
            conv([1, huge, huge], 2, [2, 2], 1, 0),
            conv([1, 4, 4], huge, [2, 2], 1, 0),
            conv([1, 4, 4], 2, [huge, huge], 1, huge),
            conv([1, 4, 4], 2, [2, 2], 1, huge),
            conv([1, 4, 4], 2, [2, 2], huge, huge),
        ]);
    }
    let mut file = Checkpoint::new();
    for what in ["weight", "bias", "running_mean", "running_var"] {
        file.insert(&format!("a.{what}"), Array1::<f32>::ones(2), Dtype::F32).unwrap();
    }
    // Weights of the size that the small geometries ask for, so that only the geometry can be what is wrong.
    let mut square = file.clone();
    square.insert("a.weight", ArrayD::<f32>::ones(IxDyn(&[2, 1, 2, 2])), Dtype::F32).unwrap();
    for kind in kinds {
        for file in [&file, &square] {
            for inputs in [16, big, max] {
                let mut file = file.clone();
                file.insert_metadata(KEY, serde_json::json!({ "inputs": inputs, "layers": [["a", kind]] }).to_string());
                let line = refusal(&file);
                assert!(line.starts_with("(new checkpoint): "), "{line}");
            }
        }
    }
    // The control: the same file with true metadata is a network.
    square.insert_metadata(
        KEY,
        serde_json::json!({ "inputs": 16, "layers": [["a", conv([1, 4, 4], 2, [2, 2], 1, 0)]] }).to_string(),
    );
    assert_eq!(from_checkpoint(&square).unwrap().parameters(), 10);
    let act = serde_json::json!({ "activation": "tanh" });
    for text in [
        "",
        "{",
        "[]",
        "null",
        r#"{"inputs":-1,"layers":[]}"#,
        r#"{"inputs":1e3,"layers":[]}"#,
        r#"{"inputs":99999999999999999999999,"layers":[]}"#,
        r#"{"inputs":4}"#,
        r#"{"inputs":4,"layers":[["a",{"activation":"ta\nnh"}]]}"#,
        r#"{"inputs":4,"layers":[["a",{"transformer":{}}]]}"#,
        r#"{"inputs":4,"layers":[["b\n\u001b[31m",{"linear":{"inputs":4,"outputs":2,"bias":true}}]]}"#,
        &format!(r#"{{"inputs":4,"layers":[["a{}",{{"linear":{{"inputs":4,"outputs":2,"bias":true}}}}]]}}"#, "x".repeat(5000)),
        &format!("{}1{}", "[".repeat(5000), "]".repeat(5000)),
    ] {
        let mut file = square.clone();
        file.insert_metadata(KEY, text);
        refusal(&file);
    }
    let twice = conv([1, 4, 4], 2, [2, 2], 1, 0);
    square.insert_metadata(
        KEY,
        serde_json::json!({ "inputs": 16, "layers": [["a", twice], ["f", act], ["a", twice]] }).to_string(),
    );
    assert!(refusal(&square).contains("'a' is given twice"), "{}", refusal(&square));
}

#[test]
fn stored_sparse_a_network_gives_the_same_outputs() {
    let x = Seed(6).stream("x").normal_array(5, 64, 1.0);
    let dense = |_: &str, w: &ndarray::ArrayRef2<f32>, m: &Mask| Ok(Box::new(Dense::compress(w, m)?) as Box<dyn LinearOp>);
    let csr = |_: &str, w: &ndarray::ArrayRef2<f32>, m: &Mask| Ok(Box::new(Csr::compress(w, m)?) as Box<dyn LinearOp>);
    let mut linear = mlp(&[64, 30, 20, 10], Activation::Gelu, Init::He, Seed(7)).unwrap();
    linear.param_mut("fc2.weight").unwrap().set_mask(Mask::from_fn(20, 30, |r, c| (r * c) % 3 == 1)).unwrap();
    for network in [linear, pruned(), digits_shared(Seed(3)).unwrap()] {
        let kept: usize = network.affines().map(|(_, _, a)| a.weight.kept()).sum();
        let expected = network.forward(&x);
        for (format, compressed) in [("dense", Compressed::new(&network, dense)), ("csr", Compressed::new(&network, csr))] {
            let compressed = compressed.unwrap();
            assert_close(&compressed.forward(&x), &expected, 1e-5, format);
            assert_eq!(compressed.nnz(), kept, "{format}");
            let rows: usize = network.affines().map(|(_, _, a)| a.weight.value().nrows() + 1).sum();
            let bytes = if format == "dense" { 4 * weights(&network) } else { 8 * kept + 4 * rows };
            assert_eq!(compressed.bytes(), bytes, "{format}");
            // Any strides of the input.
            let turned = x.t().as_standard_layout().into_owned().reversed_axes();
            assert_eq!(compressed.forward(&turned), compressed.forward(&x), "{format}");
        }
    }
}

#[test]
fn an_error_of_compressing_names_the_layer() {
    let network = mlp(&[4, 3, 2], Activation::Relu, Init::He, Seed(0)).unwrap();
    let e = Compressed::new(&network, |name, w, m| {
        if name == "fc2" { Err(Error::invalid_option("format", "none")) } else { Ok(Box::new(Csr::compress(w, m)?)) }
    });
    assert_eq!(e.err().unwrap().to_string(), "layer fc2: format: none");
    let wrong = Compressed::new(&network, |_, w, _| Ok(Box::new(Dense::new(w.t().to_owned()))));
    assert_eq!(wrong.err().unwrap().to_string(), "compressed weight of fc1: expected shape [3, 4], found [4, 3]");
}

#[test]
fn a_builder_reports_the_first_layer_that_cannot_be() {
    let error = |b: Builder| b.build().unwrap_err().to_string();
    let image = || Builder::image((2, 6, 5), Init::He, Seed(0));
    assert_eq!(error(image().linear(0)), "linear layer: 60 inputs and 0 outputs: neither may be 0");
    assert!(error(Builder::vector(0, Init::He, Seed(0)).linear(3)).starts_with("linear layer: 0 inputs"));
    for (channels, kernel, stride, padding) in [(0, 3, 1, 0), (3, 0, 1, 0), (3, 3, 0, 0), (3, 6, 1, 0), (3, 8, 1, 1)] {
        let line = error(image().conv(channels, kernel, stride, padding));
        assert!(line.starts_with(&format!("convolution: {channels} kernels of {kernel} x {kernel}, stride {stride}")), "{line}");
    }
    assert!(image().conv(3, 5, 1, 0).build().is_ok() && image().conv(3, 7, 1, 1).build().is_ok());
    for size in [0, 6] {
        assert_eq!(error(image().pool(Pooling::Max, size)), format!("pooling: windows of {size} x {size} over 2 x 6 x 5"));
    }
    assert!(error(image().pool(Pooling::Max, 9).linear(0).conv(0, 0, 0, 0)).starts_with("pooling"));
    for widths in [&[][..], &[4], &[4, 0, 2], &[0, 2]] {
        assert!(mlp(widths, Activation::Relu, Init::He, Seed(0)).is_err(), "{widths:?}");
    }
    assert!(digits_convnet([0, 3], 4, Seed(0)).is_err() && digits_convnet([2, 3], 0, Seed(0)).is_err());
}
