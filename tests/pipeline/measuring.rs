//! Calibration: exactly what is asked for, the same for any batch size, and nothing that is not finite.

use crate::close::{assert_close, assert_within};
use crate::common::{Data, small_convnet, small_mlp, split_digits};
use lacuna::Error;
use lacuna::calibrate::{Calibration, measure};
use lacuna::criteria::{Measured, Need, Needs};
use lacuna::nn::{Layer, Loss, Network};
use ndarray::{Array2, Axis, s};

const NEEDS: [Need; 9] = [
    Need::InputSquares,
    Need::Gram,
    Need::InputSums,
    Need::Gradient,
    Need::SquaredGradients,
    Need::SecondDerivatives,
    Need::HessianGradient,
    Need::SynapticFlow,
    Need::SampleGradients,
];

fn all() -> Needs {
    NEEDS.into_iter().fold(Needs::none(), Needs::and)
}

fn found(m: &Measured) -> [bool; 9] {
    [
        m.input_squares.is_some(),
        m.gram.is_some(),
        m.input_sums.is_some(),
        m.gradient.is_some(),
        m.squared_gradients.is_some(),
        m.second_derivatives.is_some(),
        m.hessian_gradient.is_some(),
        m.synaptic_flow.is_some(),
        m.sample_gradients.is_some(),
    ]
}

/// Everything measured of a layer as arrays of one kind.
fn arrays(m: &Measured) -> Vec<Array2<f64>> {
    let wide = |a: &Array2<f32>| a.mapv(f64::from);
    let mut out: Vec<Array2<f64>> =
        [&m.gradient, &m.squared_gradients, &m.second_derivatives, &m.hessian_gradient, &m.synaptic_flow]
            .into_iter()
            .map(|a| wide(a.as_ref().unwrap()))
            .collect();
    out.push(m.gram.clone().unwrap());
    out.push(m.input_squares.clone().unwrap().insert_axis(Axis(0)));
    out.push(m.input_sums.clone().unwrap().insert_axis(Axis(0)));
    out
}

fn data() -> Data {
    split_digits(11, 53, 1).0
}

#[test]
fn exactly_what_is_asked_for_is_measured() {
    let (x, t) = data();
    let calibration = Calibration::new(&x, &t, Loss::CrossEntropy);
    for network in [small_mlp(1), small_convnet(1)] {
        for subset in 0..1usize << NEEDS.len() {
            // One, all but one, and all: 2⁹ passes would say no more.
            if ![0, 1, 8, 9].contains(&subset.count_ones()) {
                continue;
            }
            let asked: [bool; 9] = std::array::from_fn(|i| subset >> i & 1 == 1);
            let needs = NEEDS.into_iter().zip(asked).filter(|(_, a)| *a).fold(Needs::none(), |n, (need, _)| n.and(need));
            let measured = measure(&network, &calibration, needs).unwrap();
            assert_eq!(measured.len(), network.affines().count());
            for (m, (_, name, a)) in measured.iter().zip(network.affines()) {
                assert_eq!(found(m), asked, "{name}");
                let tokens = if asked[0] || asked[1] || asked[2] { x.nrows() * a.map.positions() } else { 0 };
                assert_eq!(m.tokens, tokens, "{name}");
            }
        }
    }
}

#[test]
fn what_is_measured_has_the_shape_of_its_layer_and_is_what_the_network_says() {
    let (x, t) = data();
    let network = small_convnet(2);
    let measured = measure(&network, &Calibration::new(&x, &t, Loss::CrossEntropy), all()).unwrap();
    let gradients = network.gradient(&x, &t, Loss::CrossEntropy, lacuna::nn::Mode::Eval).1;
    let names = network.params();
    for (m, (_, name, a)) in measured.iter().zip(network.affines()) {
        let (out, inputs) = a.weight.value().dim();
        let shapes: Vec<(usize, usize)> = arrays(m).iter().map(|a| a.dim()).collect();
        assert_eq!(
            shapes,
            [
                (out, inputs),
                (out, inputs),
                (out, inputs),
                (out, inputs),
                (out, inputs),
                (inputs, inputs),
                (1, inputs),
                (1, inputs)
            ]
        );
        let at = names.iter().position(|(n, _)| *n == format!("{name}.weight")).unwrap();
        assert_close(m.gradient.as_ref().unwrap(), &gradients[at], 1e-7f32.next_down(), name);
        let (gram, squares) = (m.gram.as_ref().unwrap(), m.input_squares.as_ref().unwrap());
        assert_within(&gram.diag(), squares, |_, square: f64| 1e-5 * square.max(1e-9), name);
    }
    // The first layer reads the samples themselves.
    let mlp = small_mlp(2);
    let m = &measure(&mlp, &Calibration::new(&x, &t, Loss::CrossEntropy), all()).unwrap()[0];
    let wide = x.mapv(f64::from);
    assert_close(m.gram.as_ref().unwrap(), &wide.t().dot(&wide), 1e-4f64.next_down(), "the Gram matrix");
    assert_close(m.input_sums.as_ref().unwrap(), &wide.sum_axis(Axis(0)), 1e-9f64.next_down(), "the sums of inputs");
}

#[test]
fn the_size_of_a_batch_changes_nothing_but_rounding() {
    let (x, t) = data();
    for network in [small_mlp(3), small_convnet(3)] {
        for loss in [Loss::CrossEntropy, Loss::SquaredError] {
            let run = |batch: usize| measure(&network, &Calibration { batch, ..Calibration::new(&x, &t, loss) }, all()).unwrap();
            let whole = run(x.nrows());
            for batch in [1, 7, 52, 1000] {
                for ((one, many), (_, name, _)) in whole.iter().zip(run(batch)).zip(network.affines()) {
                    for (k, (a, b)) in arrays(one).iter().zip(arrays(&many)).enumerate() {
                        let scale = a.fold(0.0f64, |m, v| m.max(v.abs()));
                        assert!(scale > 0.0, "batch {batch}, {name}, {k}: all are 0");
                        assert_close(&b, a, 2e-5 * scale, format!("batch {batch}, {name}, {k}"));
                    }
                    assert_eq!(one.tokens, many.tokens);
                }
            }
        }
    }
}

fn poison(network: &Network, param: &str, value: f32) -> Network {
    let mut network = network.clone();
    let p = network.param_mut(param).unwrap();
    let mut values = p.value().clone();
    values[[1, 0]] = value;
    p.set_value(values).unwrap();
    network
}

#[test]
fn numbers_that_are_not_finite_are_refused_naming_the_layer() {
    let (x, t) = data();
    let calibration = Calibration::new(&x, &t, Loss::CrossEntropy);
    // Behind a ReLU, which makes 0 of NaN.
    for (param, layer) in [("conv1.weight", "conv1"), ("bn1.bias", "bn1"), ("conv2.bias", "conv2"), ("fc2.weight", "fc2")] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let network = poison(&small_convnet(4), param, value);
            for needs in [Needs::none(), all(), Needs::none().and(Need::SynapticFlow)] {
                let e = measure(&network, &calibration, needs).unwrap_err();
                assert!(matches!(&e, Error::Layer { layer: l, .. } if l == layer), "{param} = {value}: {e}");
            }
        }
    }
    let line = measure(&poison(&small_mlp(4), "fc2.weight", f32::NAN), &calibration, all()).unwrap_err().to_string();
    assert_eq!(line, "layer fc2: weight: NaN at row 1, column 0; only finite numbers can be ranked or stored");
}

#[test]
fn what_overflows_on_the_way_is_refused_naming_the_layer() {
    let (x, t) = data();
    let calibration = Calibration::new(&x, &t, Loss::SquaredError);
    let network = poison(&small_mlp(4), "fc3.weight", 3e38);
    let e = measure(&network, &calibration, Needs::none().and(Need::SecondDerivatives)).unwrap_err();
    assert!(matches!(&e, Error::Layer { layer, .. } if layer == "fc1"), "{e}");
    assert!(e.to_string().starts_with("layer fc1: the second derivatives: "), "{e}");
}

#[test]
fn batch_averages_that_are_not_finite_are_refused_naming_the_layer() {
    let (x, t) = data();
    let mut layers = small_convnet(4).layers().to_vec();
    let Layer::BatchNorm(norm) = &mut layers[1].1 else { panic!("the second layer is a norm") };
    norm.mean[2] = f32::NAN;
    let network = Network::new(64, layers).unwrap();
    let e = measure(&network, &Calibration::new(&x, &t, Loss::CrossEntropy), Needs::none()).unwrap_err();
    assert!(matches!(&e, Error::Layer { layer, .. } if layer == "bn1"), "{e}");
}

#[test]
fn data_that_are_not_finite_do_not_fit_or_are_none_are_refused() {
    let (x, t) = data();
    let network = small_mlp(5);
    let error = |x: &Array2<f32>, t: &Array2<f32>, batch: usize| {
        measure(&network, &Calibration { batch, ..Calibration::new(x, t, Loss::CrossEntropy) }, all()).unwrap_err()
    };
    for value in [f32::NAN, f32::INFINITY] {
        let (mut bad_x, mut bad_t) = (x.clone(), t.clone());
        bad_x[[4, 7]] = value;
        bad_t[[50, 3]] = value;
        assert!(error(&bad_x, &t, 8).to_string().starts_with(&format!("calibration samples: {value} at row 4, column 7")));
        assert!(error(&x, &bad_t, 8).to_string().starts_with(&format!("calibration targets: {value} at row 50, column 3")));
    }
    let none = x.slice(s![..0, ..]).to_owned();
    assert!(error(&none, &t.slice(s![..0, ..]).to_owned(), 8).to_string().starts_with("calibration: 0 samples"));
    assert!(error(&x, &t, 0).to_string().contains("in batches of 0"));
    assert!(matches!(error(&x.slice(s![.., 1..]).to_owned(), &t, 8), Error::Shape { .. }));
    assert!(matches!(error(&x, &t.slice(s![1.., ..]).to_owned(), 8), Error::Shape { .. }));
    assert!(matches!(error(&x, &t.slice(s![.., 1..]).to_owned(), 8), Error::Shape { .. }));
}

#[test]
fn inputs_that_overflow_on_their_way_are_refused_with_layer_and_sample() {
    use lacuna::models::{Init, mlp};
    use lacuna::nn::Activation;
    let mut network = mlp(&[1, 2, 1], Activation::Relu, Init::He, lacuna::rng::Seed(3)).unwrap();
    network.param_mut("fc1.weight").unwrap().set_value(ndarray::array![[1.0], [3e38]]).unwrap();
    let mut x = Array2::from_elem((9, 1), 0.5);
    x[[7, 0]] = 2.0;
    let data = Calibration { batch: 3, ..Calibration::new(&x, &x, Loss::SquaredError) };
    for need in [Need::InputSquares, Need::Gram, Need::InputSums] {
        let line = measure(&network, &data, Needs::none().and(need)).unwrap_err().to_string();
        // The Gram matrix refuses what its squares cannot hold before that.
        let (place, end) =
            if need == Need::Gram { ("row 0", "its square overflows") } else { ("inf at row 7", "ranked or stored") };
        assert!(
            line.starts_with("layer fc2: inputs") && line.contains(&format!("{place}, column 1")) && line.contains(end),
            "{line}"
        );
    }
    let line = measure(&network, &data, Needs::none().and(Need::SampleGradients)).unwrap_err().to_string();
    assert!(line.starts_with("layer fc") && line.contains("gradients (mini-batches, out * in)"), "{line}");
}
