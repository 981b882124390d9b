//! Criteria: numbers that can be checked by hand, what they say when evidence is missing, and what their scores predict.

use lacuna::Error;
use lacuna::criteria::{
    Evidence, Fisher, Grasp, InputSums, Magnitude, MagnitudeNorm, Measured, Need, Needs, Obd, Random, Ria, Saliency, Snip,
    SynFlow, Taylor, TextGram, Wanda,
};
use lacuna::nn::{Activation, Affine, Curvature, Layer, Loss, Map, Mode, Network};
use lacuna::rng::{Seed, Stream};
use ndarray::{Array2, array};

const RANDOM: Random = Random { seed: Seed(7) };
const L1: Magnitude = Magnitude { norm: MagnitudeNorm::L1 };
const L2: Magnitude = Magnitude { norm: MagnitudeNorm::L2 };
const RIA: Ria = Ria { power: 0.5 };

/// A criterion, what it needs, and how its error calls that.
type Case = (&'static dyn Saliency, Option<(Need, &'static str)>);

/// Every criterion.
const CRITERIA: [Case; 11] = [
    (&RANDOM, None),
    (&L1, None),
    (&L2, None),
    (&Taylor, Some((Need::Gradient, "the gradient"))),
    (&Snip, Some((Need::Gradient, "the gradient"))),
    (&Grasp, Some((Need::HessianGradient, "the Hessian times the gradient"))),
    (&SynFlow, Some((Need::SynapticFlow, "the synaptic flow"))),
    (&Fisher, Some((Need::SquaredGradients, "the squared gradients"))),
    (&Obd, Some((Need::SecondDerivatives, "the second derivatives"))),
    (&Wanda, Some((Need::InputSquares, "the input norms"))),
    (&RIA, Some((Need::InputSquares, "the input norms"))),
];

fn weight() -> Array2<f32> {
    array![[1., -2., 0.], [-0.5, 3., 4.]]
}

/// Everything a criterion may ask for, all different.
fn everything() -> Measured {
    Measured {
        tokens: 1,
        input_squares: Some(array![1., 2., 3.]),
        gram: Some(Array2::eye(3)),
        input_sums: Some(array![1., -1., 0.]),
        gradient: Some(array![[2., 1., 5.], [4., -1., 0.5]]),
        squared_gradients: Some(array![[2., 3., 7.], [8., 2., 1.]]),
        second_derivatives: Some(array![[4., -1., 9.], [16., 2., 0.]]),
        hessian_gradient: Some(array![[3., 1., 2.], [2., -2., 0.25]]),
        synaptic_flow: Some(array![[1., 2., 3.], [4., 5., 6.]]),
        sample_gradients: Some(array![[1., 2., 3., 4., 5., 6.], [0., 1., 0., -1., 0., 2.]]),
        input_magnitudes: Some(array![1., 1., 1.]),
        input_maxima: Some(array![1., 2., 1.]),
        texts: vec![TextGram { tokens: 1, gram: Array2::eye(3), held_out: false }],
    }
}

fn without(need: Need) -> Measured {
    let mut measured = everything();
    match need {
        Need::Gradient => measured.gradient = None,
        Need::SquaredGradients => measured.squared_gradients = None,
        Need::SecondDerivatives => measured.second_derivatives = None,
        Need::HessianGradient => measured.hessian_gradient = None,
        Need::SynapticFlow => measured.synaptic_flow = None,
        // The Gram matrix has them on its diagonal.
        Need::InputSquares => (measured.input_squares, measured.gram) = (None, None),
        Need::Gram => measured.gram = None,
        Need::SampleGradients => measured.sample_gradients = None,
        Need::InputSums => measured.input_sums = None,
        Need::InputMagnitudes => measured.input_magnitudes = None,
        Need::InputMaxima => measured.input_maxima = None,
        Need::TextGrams => measured.texts.clear(),
    }
    measured
}

fn score(criterion: &dyn Saliency, weight: &Array2<f32>, measured: &Measured) -> lacuna::Result<Array2<f32>> {
    criterion.score(&Evidence { measured, ..Evidence::weight_only("fc1", weight) })
}

#[test]
fn scores_are_the_formulas_by_hand() {
    let expected: [(&dyn Saliency, Array2<f32>); 8] = [
        (&L1, array![[1., 2., 0.], [0.5, 3., 4.]]),
        (&L2, array![[1., 4., 0.], [0.25, 9., 16.]]),
        // w g = 2, −2, 0, −2, −3, 2
        (&Taylor, array![[4., 4., 0.], [4., 9., 4.]]),
        (&Snip, array![[2., 2., 0.], [2., 3., 2.]]),
        // w (H g), with its sign: what carries the flow of gradients stays
        (&Grasp, array![[3., -2., 0.], [-1., -6., 1.]]),
        (&SynFlow, array![[1., 4., 0.], [2., 15., 24.]]),
        // ½ F w²
        (&Fisher, array![[1., 6., 0.], [1., 9., 8.]]),
        // ½ h w², negative where h is
        (&Obd, array![[2., -2., 0.], [2., 9., 0.]]),
    ];
    for (criterion, expected) in expected {
        // Numbers that f32 holds exactly.
        assert_eq!(score(criterion, &weight(), &everything()).unwrap(), expected, "{}", criterion.name());
    }
}

#[test]
fn wanda_is_magnitude_times_the_norm_measured_or_from_the_gram_matrix() {
    let measured = Measured { input_squares: Some(array![4., 0., 9.]), ..Measured::default() };
    let expected = array![[2., 0., 0.], [1., 0., 12.]];
    assert_eq!(score(&Wanda, &weight(), &measured).unwrap(), expected);
    let gram = Some(array![[4., 7., 7.], [7., 0., 7.], [7., 7., 9.]]);
    assert_eq!(score(&Wanda, &weight(), &Measured { gram, ..Measured::default() }).unwrap(), expected);
    let error = score(&Wanda, &weight(), &Measured { input_squares: Some(array![4., -1., 9.]), ..Measured::default() });
    assert!(error.unwrap_err().to_string().starts_with("the input norms: -1 at row 0, column 1"));
}

#[test]
fn ria_shares_are_of_rows_and_columns_and_those_of_nothing_are_nothing() {
    let w = array![[1., 0., -3.], [0., 0., 0.], [1., 0., 1.]];
    let measured = Measured { input_squares: Some(array![16., 81., 1.]), ..Measured::default() };
    // (|w| / column + |w| / row) · ‖x‖^½, by hand: columns sum to 2, 0, 4 and rows to 4, 0, 2.
    let expected = array![[(0.5 + 0.25) * 2., 0., 0.75 + 0.75], [0., 0., 0.], [(0.5 + 0.5) * 2., 0., 0.25 + 0.5]];
    assert_eq!(score(&RIA, &w, &measured).unwrap(), expected);
}

#[test]
fn ria_refuses_an_exponent_that_is_none() {
    for power in [f64::NAN, f64::INFINITY, -0.5] {
        let error = score(&Ria { power }, &weight(), &everything()).unwrap_err().to_string();
        assert_eq!(error, format!("power: {power} is not a finite number of at least 0; 0.5 is usual"));
    }
}

#[test]
fn missing_evidence_is_an_error_that_names_criterion_need_and_layer() {
    for (criterion, need) in CRITERIA {
        let Some((need, called)) = need else {
            assert_eq!(criterion.needs(), Needs::none());
            assert!(score(criterion, &weight(), &Measured::default()).is_ok(), "{} needs only the weight", criterion.name());
            continue;
        };
        let error = score(criterion, &weight(), &without(need)).unwrap_err();
        assert!(matches!(&error, Error::MissingEvidence { layer, .. } if layer == "fc1"), "{error:?}");
        assert_eq!(error.to_string(), format!("{} needs {called} of layer fc1, which was not measured", criterion.name()));
        assert_eq!(
            criterion.needs().iter().collect::<Vec<_>>(),
            [need],
            "{}: needs() names what score() reads",
            criterion.name()
        );
    }
}

#[test]
fn evidence_of_another_shape_is_an_error_that_names_the_layer_and_both_shapes() {
    for (criterion, need) in CRITERIA {
        let Some((_, called)) = need else { continue };
        // Evidence is (2, 3); a weight (3, 2) has as many numbers.
        let error = score(criterion, &Array2::ones((3, 2)), &everything()).unwrap_err();
        let shapes = if criterion.needs().contains(Need::InputSquares) { ("[2]", "[3]") } else { ("[3, 2]", "[2, 3]") };
        assert_eq!(error.to_string(), format!("layer fc1: {called}: expected shape {}, found {}", shapes.0, shapes.1));
    }
}

#[test]
fn measures_of_the_inputs_are_not_one_number_a_weight() {
    let (weight, measured) = (weight(), everything());
    let layer = Evidence { measured: &measured, ..Evidence::weight_only("fc1", &weight) };
    let of_inputs = [
        Need::InputSquares,
        Need::Gram,
        Need::InputSums,
        Need::SampleGradients,
        Need::InputMagnitudes,
        Need::InputMaxima,
        Need::TextGrams,
    ];
    for need in of_inputs {
        let error = layer.elementwise("wanda", need).unwrap_err();
        assert_eq!(error.to_string(), format!("wanda: {need} is not one number a weight"));
    }
}

#[test]
fn criteria_have_different_names_and_only_obd_and_fisher_predict_the_loss() {
    let names: Vec<&str> = CRITERIA.iter().map(|(c, _)| c.name()).collect();
    assert_eq!(
        names,
        ["random", "magnitude", "magnitude-l2", "taylor", "snip", "grasp", "synflow", "fisher", "obd", "wanda", "ria"]
    );
    let predicts: Vec<&str> = CRITERIA.iter().filter(|(c, _)| c.predicts_loss()).map(|(c, _)| c.name()).collect();
    assert_eq!(predicts, ["fisher", "obd"]);
}

#[test]
fn sets_of_needs_hold_what_was_put_in() {
    let all = [
        Need::InputSquares,
        Need::Gram,
        Need::InputSums,
        Need::Gradient,
        Need::SquaredGradients,
        Need::SecondDerivatives,
        Need::HessianGradient,
        Need::SynapticFlow,
        Need::SampleGradients,
        Need::InputMagnitudes,
        Need::InputMaxima,
        Need::TextGrams,
    ];
    for need in all {
        let alone = Needs::none().and(need);
        assert_eq!(alone.iter().collect::<Vec<_>>(), [need]);
        assert_eq!(all.iter().filter(|n| alone.contains(**n)).count(), 1);
        assert_eq!(alone.union(alone), alone);
    }
    let union = all.iter().fold(Needs::none(), |set, &need| set.union(Needs::none().and(need)));
    assert_eq!(union.iter().collect::<Vec<_>>(), all);
    assert_eq!(Needs::none().iter().count(), 0);
}

#[test]
fn random_scores_follow_from_seed_and_layer_alone() {
    let of = |seed: u64, layer: &str, weight: &Array2<f32>| {
        Random { seed: Seed(seed) }.score(&Evidence::weight_only(layer, weight)).unwrap()
    };
    let weight = Array2::zeros((40, 50));
    let scores = of(7, "fc1", &weight);
    assert_eq!(scores, of(7, "fc1", &Array2::ones((40, 50))), "the weight has no part in it");
    assert_ne!(scores, of(8, "fc1", &weight));
    assert_ne!(scores, of(7, "fc2", &weight));
    assert!(scores.iter().all(|s| (0.0..1.0).contains(s)));
    // 2000 uniform numbers: the mean's standard deviation is 0.289 / √2000 = 0.0065; five of them.
    assert!((scores.mean().unwrap() - 0.5).abs() < 0.033, "{:?}", scores.mean());
}

/// A network of one linear layer without bias.
fn linear(weight: Array2<f32>) -> Network {
    let (outputs, inputs) = weight.dim();
    Network::new(inputs, vec![("fc1".into(), Layer::Affine(Affine::new(Map::Linear { inputs, outputs }, weight, None)))]).unwrap()
}

/// Inputs, targets `x Wᵀ + noise`, and the network of the least-squares weights.
fn regression(samples: usize, noise: f32) -> (Network, Array2<f32>, Array2<f32>) {
    let mut random = Seed(5).stream("regression");
    // Columns of different scale, so that curvatures differ.
    let x = random.normal_array(samples, 4, 1.0) * array![[0.5, 1.0, 1.5, 2.0]];
    let truth = random.normal_array(3, 4, 1.0).mapv(|w| w + 0.5 * w.signum());
    let target = x.dot(&truth.t()) + random.normal_array(samples, 3, noise);
    let (wide, t) = (x.mapv(f64::from), target.mapv(f64::from));
    let weight = solve(wide.t().dot(&wide), wide.t().dot(&t)).reversed_axes().mapv(|w| w as f32);
    (linear(weight.as_standard_layout().into_owned()), x, target)
}

/// `a⁻¹ b` by Gauss and Jordan, for `a` well conditioned and positive definite.
fn solve(mut a: Array2<f64>, mut b: Array2<f64>) -> Array2<f64> {
    for k in 0..a.nrows() {
        let pivot = a[[k, k]];
        a.row_mut(k).mapv_inplace(|v| v / pivot);
        b.row_mut(k).mapv_inplace(|v| v / pivot);
        for i in (0..a.nrows()).filter(|&i| i != k) {
            let (factor, from_a, from_b) = (a[[i, k]], a.row(k).to_owned(), b.row(k).to_owned());
            a.row_mut(i).scaled_add(-factor, &from_a);
            b.row_mut(i).scaled_add(-factor, &from_b);
        }
    }
    b
}

#[test]
fn obd_scores_are_the_increase_of_the_loss_at_a_quadratic_minimum() {
    let (net, x, target) = regression(60, 0.3);
    let loss = |net: &Network| Loss::SquaredError.value(&net.forward(&x), &target);
    let (_, gradient) = net.gradient(&x, &target, Loss::SquaredError, Mode::Eval);
    assert!(gradient[0].iter().all(|g| g.abs() < 1e-5), "not at the minimum: {gradient:?}");
    for kind in [Curvature::Exact, Curvature::GaussNewton] {
        let second_derivatives = Some(net.curvature(&x, &target, Loss::SquaredError, kind).remove(0));
        let w = net.params()[0].1.value();
        let scores = score(&Obd, w, &Measured { second_derivatives, ..Measured::default() }).unwrap();
        for ((r, c), &score) in scores.indexed_iter() {
            let mut removed = w.clone();
            removed[[r, c]] = 0.0;
            let increase = loss(&linear(removed)) - loss(&net);
            // The losses are sums of f32 outputs, about 1e-6 of an increase of order one.
            assert!((f64::from(score) / increase - 1.0).abs() < 1e-4, "[{r}, {c}]: predicted {score}, measured {increase}");
        }
    }
}

#[test]
fn fisher_scores_agree_with_obd_where_the_loss_is_a_likelihood() {
    // (z − t)² is −log of a normal density of variance ½, up to a constant: with noise of that variance the mean of squared
    // gradients, E[(2 r x)²] = 2 E[x²], is the second derivative.
    let (net, x, target) = regression(20_000, 0.5f32.sqrt());
    let w = net.params()[0].1.value();
    let measured = Measured {
        squared_gradients: Some(net.fisher(&x, &target, Loss::SquaredError).remove(0)),
        second_derivatives: Some(net.curvature(&x, &target, Loss::SquaredError, Curvature::GaussNewton).remove(0)),
        ..Measured::default()
    };
    let (fisher, obd) = (score(&Fisher, w, &measured).unwrap(), score(&Obd, w, &measured).unwrap());
    // r² x² of normal numbers has a standard deviation of √8 of its mean: √(8 / 20000) = 0.02; four of them.
    assert!(fisher.iter().zip(&obd).all(|(f, o)| (f / o - 1.0).abs() < 0.08), "{fisher} and {obd}");
}

/// A network of two hidden layers with random numbers, and data.
fn hidden(random: &mut Stream) -> (Network, Array2<f32>, Array2<f32>) {
    let mut affine = |inputs: usize, outputs: usize| {
        let weight = random.normal_array(outputs, inputs, (inputs as f32).sqrt().recip());
        let bias = random.normal_array(outputs, 1, 0.3);
        Layer::Affine(Affine::new(Map::Linear { inputs, outputs }, weight, Some(bias)))
    };
    let layers = vec![
        ("fc1".into(), affine(5, 6)),
        ("f1".into(), Layer::Activation(Activation::Tanh)),
        ("fc2".into(), affine(6, 6)),
        ("f2".into(), Layer::Activation(Activation::Tanh)),
        ("fc3".into(), affine(6, 3)),
    ];
    let x = random.normal_array(16, 5, 1.0);
    let target = Array2::from_shape_fn((16, 3), |(n, k)| if n % 3 == k { 1.0 } else { 0.0 });
    (Network::new(5, layers).unwrap(), x, target)
}

/// gᵀg over all parameters.
fn gradient_squares(net: &Network, x: &Array2<f32>, target: &Array2<f32>) -> f64 {
    let (_, gradient) = net.gradient(x, target, Loss::CrossEntropy, Mode::Eval);
    gradient.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum()
}

/// The network with one weight times `factor`.
fn scaled(net: &Network, name: &str, at: (usize, usize), factor: f32) -> Network {
    let mut net = net.clone();
    let param = net.param_mut(name).unwrap();
    let mut value = param.value().clone();
    value[at] *= factor;
    param.set_value(value).unwrap();
    net
}

#[test]
fn grasp_removes_first_what_raises_the_norm_of_the_gradient_when_removed() {
    let (net, x, target) = hidden(&mut Seed(11).stream("grasp"));
    let (_, gradient) = net.gradient(&x, &target, Loss::CrossEntropy, Mode::Eval);
    let product = net.hessian_times(&x, &target, Loss::CrossEntropy, &gradient);
    let mut all = Vec::new();
    for (i, (name, param)) in net.params().iter().enumerate().filter(|(_, (name, _))| name.ends_with("weight")) {
        let measured = Measured { hessian_gradient: Some(product[i].clone()), ..Measured::default() };
        let scores = score(&Grasp, param.value(), &measured).unwrap();
        all.extend(scores.indexed_iter().map(|(at, &score)| (score, name.clone(), at)));
    }
    let largest = all.iter().fold(0.0f32, |m, (s, _, _)| m.max(s.abs()));
    for (score, name, at) in &all {
        // d(gᵀg)/dα where w → (1 − α) w is −2 w (H g): the paper's S twice, minus our score twice.
        let alpha = 0.05;
        let at_factor = |factor: f32| gradient_squares(&scaled(&net, name, *at, factor), &x, &target);
        let slope = (at_factor(1.0 - alpha) - at_factor(1.0 + alpha)) / (2.0 * f64::from(alpha));
        let expected = -2.0 * f64::from(*score);
        // α² / 6 of a third derivative, and roundings of 1e-7 / α.
        assert!((slope - expected).abs() < 0.01 * f64::from(largest), "{name}{at:?}: {slope}, not {expected}");
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (first, last) = (&all[0], &all[all.len() - 1]);
    assert!(first.0 < 0.0 && last.0 > 0.0);
    let before = gradient_squares(&net, &x, &target);
    let shrunk = |(_, name, at): &(f32, String, (usize, usize))| gradient_squares(&scaled(&net, name, *at, 0.99), &x, &target);
    assert!(shrunk(first) > before, "the lowest score, the largest S, goes first: gradients grow");
    assert!(shrunk(last) < before, "the highest score stays: without it gradients would shrink");
}

#[test]
fn synflow_scores_of_every_layer_have_the_same_sum() {
    let (net, _, _) = hidden(&mut Seed(12).stream("synflow"));
    let flow = net.synaptic_flow();
    let sums = net.affines().zip(flow).map(|((_, name, a), flow)| {
        let measured = Measured { synaptic_flow: Some(flow), ..Measured::default() };
        let layer = Evidence { measured: &measured, ..Evidence::weight_only(name, a.weight.value()) };
        SynFlow.score(&layer).unwrap().iter().map(|&s| f64::from(s)).sum::<f64>()
    });
    let sums: Vec<f64> = sums.collect();
    // Roundings of f32.
    assert!(sums.len() == 3 && sums[0] > 0.0 && sums.iter().all(|s| (s / sums[0] - 1.0).abs() < 1e-5), "{sums:?}");
}

#[test]
fn snip_scores_are_the_slope_of_the_loss_along_the_weight() {
    let (net, x, target) = hidden(&mut Seed(13).stream("snip"));
    let (_, gradient) = net.gradient(&x, &target, Loss::CrossEntropy, Mode::Eval);
    let w = net.param("fc1.weight").unwrap().value();
    let measured = Measured { gradient: Some(gradient[0].clone()), ..Measured::default() };
    let (snip, taylor) = (score(&Snip, w, &measured).unwrap(), score(&Taylor, w, &measured).unwrap());
    for (at, &score) in snip.indexed_iter() {
        let loss = |c: f32| Loss::CrossEntropy.value(&scaled(&net, "fc1.weight", at, c).forward(&x), &target);
        let slope = (loss(1.02) - loss(0.98)) / 0.04;
        // Outputs rounded to f32 (1e-7) over 0.04, and Taylor's 0.02² / 6 of a third derivative of about 0.3.
        assert!((slope.abs() - f64::from(score)).abs() < 5e-5, "{at:?}: {slope}, not ±{score}");
        assert!((f64::from(taylor[at]).sqrt() - f64::from(score)).abs() < 1e-6);
    }
    assert!(snip.iter().any(|&s| s > 0.01), "no slope to speak of");
}

#[test]
fn sums_of_parts_are_the_sums_of_the_whole() {
    let needs = [Need::Gram, Need::InputSquares, Need::InputSums, Need::InputMagnitudes, Need::InputMaxima];
    let of = |x: &Array2<f32>| {
        let mut sums = InputSums::new(needs.into_iter().fold(Needs::none(), Needs::and));
        sums.add(x).unwrap();
        sums
    };
    let (first, last) = (array![[1f32, -3., 0.5], [2., 0., 0.]], array![[-4f32, 1., 0.]]);
    let mut both = of(&first);
    both.merge(&of(&last));
    let whole = of(&ndarray::concatenate![ndarray::Axis(0), first, last]);
    assert_eq!(both.tokens(), whole.tokens());
    assert_eq!(both.into_measured(), whole.into_measured());
}
