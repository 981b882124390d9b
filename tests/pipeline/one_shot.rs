//! Pruning at once: exact budgets in every shape, whatever the criterion, the allocation and the number of threads.

use crate::common::{Data, allocations, criteria, on_threads, pruning, small_convnet, small_mlp, split_digits};
use lacuna::Error;
use lacuna::allocate::{Allocate, Global, LayerView, Overrides, Target, Uniform};
use lacuna::calibrate::{Calibration, LayerWeights, measure};
use lacuna::criteria::{Fisher, Magnitude, MagnitudeNorm, Obd, Random, Saliency, Snip};
use lacuna::eval::{ChoiceScore, LastWordScore, Size, Sum, agreement, score, sparsity};
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::nn::{Loss, Network};
use lacuna::prune::{Outcome, Pruning, choose, one_shot};
use lacuna::rng::Seed;
use ndarray::Array2;

const MAGNITUDE: Magnitude = Magnitude { norm: MagnitudeNorm::L1 };

fn data() -> Data {
    split_digits(7, 150, 1).0
}

fn prune(network: &Network, (x, t): &Data, pruning: &Pruning<'_>) -> Result<Outcome, Error> {
    one_shot(network, &Calibration::new(x, t, Loss::CrossEntropy), pruning)
}

fn weights(network: &Network) -> usize {
    network.affines().map(|(_, _, a)| a.weight.value().len()).sum()
}

fn kept(masks: &[(String, Mask)]) -> usize {
    masks.iter().map(|(_, m)| m.kept()).sum()
}

#[test]
fn every_criterion_gives_the_same_masks_with_one_thread_and_two() {
    let data = data();
    for network in [small_mlp(1), small_convnet(1)] {
        let mut distinct: Vec<Vec<(String, Mask)>> = Vec::new();
        for saliency in criteria() {
            let run =
                |threads| on_threads(threads, || prune(&network, &data, &pruning(saliency.as_ref(), &Global, 0.6)).unwrap());
            let (one, two) = (run(1), run(2));
            assert_eq!(one.masks, two.masks, "{}", saliency.name());
            let bits = |o: &Outcome| o.predicted_increase.map(f64::to_bits);
            assert_eq!(bits(&one), bits(&two), "{}", saliency.name());
            if !distinct.contains(&one.masks) {
                distinct.push(one.masks);
            }
        }
        // Unstructured, w² and |w| agree: eight kinds of masks from nine criteria; Taylor's square keeps Snip's order.
        assert_eq!(distinct.len(), 7);
    }
}

#[test]
fn every_allocation_keeps_exactly_the_budget() {
    let data = data();
    for network in [small_mlp(2), small_convnet(2)] {
        let of = weights(&network);
        for allocate in allocations() {
            for sparsity in [0.0, 0.1, 0.37, 0.5, 0.83, 0.99] {
                let outcome = prune(&network, &data, &pruning(&Snip, allocate.as_ref(), sparsity)).unwrap();
                let keep = Budget::from_sparsity(of, sparsity).unwrap().keep();
                assert_eq!(kept(&outcome.masks), keep, "{} at {sparsity}", allocate.name());
                assert_eq!(outcome.masks, outcome.model.masks());
                for (name, mask) in &outcome.masks {
                    let name = format!("{name}.weight");
                    let (new, old) = (outcome.model.param(&name).unwrap(), network.param(&name).unwrap());
                    assert_eq!(*new.value(), mask.applied(old.value()), "{name}");
                }
            }
            let exact = Pruning { target: Target::Parameters(101), ..pruning(&Snip, allocate.as_ref(), 0.0) };
            assert_eq!(kept(&prune(&network, &data, &exact).unwrap().masks), 101, "{}", allocate.name());
        }
    }
}

#[test]
fn every_pattern_is_the_masks_own() {
    let (data, network) = (data(), small_mlp(3));
    let patterns = ["unstructured", "2:4", "1:4", "block4x2", "block5x7", "rows", "cols"];
    for pattern in patterns.map(|p| p.parse::<Pattern>().unwrap()) {
        let saliency = Random { seed: Seed(3) };
        let outcome = prune(&network, &data, &Pruning { pattern, ..pruning(&saliency, &Uniform, 0.5) }).unwrap();
        for (name, mask) in &outcome.masks {
            pattern.check(mask).unwrap_or_else(|e| panic!("{name}: {e}"));
            let (rows, cols) = mask.dim();
            let units = match pattern {
                Pattern::Nm { n, m } => {
                    assert_eq!(mask.kept(), rows * cols / m * n, "{pattern}, {name}");
                    continue;
                }
                Pattern::Block { rows: r, cols: c } => mask.block_counts(r, c),
                Pattern::Rows => mask.block_counts(1, cols),
                Pattern::Cols => mask.block_counts(rows, 1),
                Pattern::Unstructured => mask.block_counts(1, 1),
            };
            let (left, of) = (units.iter().filter(|k| **k > 0).count(), units.len() as f64);
            // The allocation is in weights, to within one of each layer, and rounded once to units.
            assert!((left as f64 - 0.5 * of).abs() <= 1.0, "{pattern}, {name}: {left} of {of}");
        }
    }
}

#[test]
fn nm_names_the_layer_that_it_does_not_divide() {
    let (data, network) = (data(), small_convnet(3)); // conv1 reads 1 * 3 * 3 inputs
    let nm = Pruning { pattern: Pattern::Nm { n: 2, m: 4 }, ..pruning(&MAGNITUDE, &Uniform, 0.0) };
    let e = prune(&network, &data, &nm).unwrap_err();
    assert!(matches!(&e, Error::Layer { layer, .. } if layer == "conv1"), "{e:?}");
    assert!(e.to_string().contains("4 does not divide the 9 inputs"), "{e}");
    let skip = ["conv1".to_string()];
    let outcome = prune(&network, &data, &Pruning { skip: &skip, ..nm }).unwrap();
    assert_eq!(outcome.masks.len(), 3);
    assert!(outcome.masks.iter().all(|(_, m)| 2 * m.kept() == m.len()));
}

#[test]
fn layers_that_are_skipped_stay_as_they_are() {
    let (data, network) = (data(), small_convnet(4));
    let skip = ["conv1".to_string(), "fc2".to_string()];
    let outcome = prune(&network, &data, &Pruning { skip: &skip, ..pruning(&Obd, &Global, 0.8) }).unwrap();
    let names: Vec<&str> = outcome.masks.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["conv2", "fc1"]);
    for name in ["conv1.weight", "fc2.weight"] {
        assert_eq!(outcome.model.param(name).unwrap(), network.param(name).unwrap());
    }
    let of: usize = outcome.masks.iter().map(|(_, m)| m.len()).sum();
    assert_eq!(kept(&outcome.masks), Budget::from_sparsity(of, 0.8).unwrap().keep());

    let unknown = ["conv3".to_string()];
    let e = prune(&network, &data, &Pruning { skip: &unknown, ..pruning(&Obd, &Global, 0.8) }).unwrap_err();
    assert!(e.to_string().starts_with("no layer is named 'conv3' among 4; did you mean 'conv"), "{e}");
    let all = ["conv1", "conv2", "fc1", "fc2"].map(String::from);
    assert!(prune(&network, &data, &Pruning { skip: &all, ..pruning(&Obd, &Global, 0.8) }).is_err());
}

#[test]
fn the_prediction_is_the_sum_of_the_scores_of_what_went() {
    let (data, network) = (data(), small_convnet(5));
    for saliency in [&Obd as &dyn Saliency, &Fisher] {
        let calibration = Calibration::new(&data.0, &data.1, Loss::CrossEntropy);
        let outcome = one_shot(&network, &calibration, &pruning(saliency, &Global, 0.5)).unwrap();
        let measured = measure(&network, &calibration, saliency.needs()).unwrap();
        let mut sum = 0.0;
        for (layer, (name, mask)) in LayerWeights::of(&network).unwrap().evidence(&measured).iter().zip(&outcome.masks) {
            assert_eq!(layer.layer, name);
            let scores = saliency.score(layer).unwrap();
            sum += mask.not().iter_kept().map(|(r, c)| f64::from(scores[[r, c]])).sum::<f64>();
        }
        let predicted = outcome.predicted_increase.unwrap();
        assert!(sum > 0.0 && (predicted - sum).abs() <= 1e-12 * sum, "{}: {predicted} and {sum}", saliency.name());
        // What went before counts no more.
        let again = one_shot(&outcome.model, &calibration, &pruning(saliency, &Global, 0.5)).unwrap();
        assert_eq!((again.predicted_increase, again.masks), (Some(0.0), outcome.masks));
    }
    for saliency in criteria().iter().filter(|s| !s.predicts_loss()) {
        let outcome = prune(&network, &data, &pruning(saliency.as_ref(), &Global, 0.5)).unwrap();
        assert_eq!(outcome.predicted_increase, None, "{}", saliency.name());
    }
}

#[test]
fn what_went_stays_away_even_if_less_is_asked() {
    let (data, network) = (data(), small_mlp(6));
    let random = Random { seed: Seed(1) };
    let first = prune(&network, &data, &pruning(&random, &Uniform, 0.7)).unwrap();
    for pattern in ["unstructured", "2:4", "block4x2", "rows", "cols"].map(|p| p.parse::<Pattern>().unwrap()) {
        for (saliency, sparsity) in [(&MAGNITUDE as &dyn Saliency, 0.2), (&random, 0.5), (&Obd, 0.75)] {
            let pruning = Pruning { pattern, ..pruning(saliency, &Uniform, sparsity) };
            let second = prune(&first.model, &data, &pruning).unwrap();
            for ((name, new), (_, old)) in second.masks.iter().zip(&first.masks) {
                assert!(new.is_subset_of(old), "{pattern} at {sparsity}: {name} got weights back");
            }
        }
    }
}

#[test]
fn dropped_weights_do_not_decide_between_the_rows_that_have_some() {
    // Row 0 lost one weight of a hundred and holds large ones; row 1 lost nothing and holds small ones.
    let mut network = lacuna::models::mlp(&[100, 2], lacuna::nn::Activation::Relu, lacuna::models::Init::He, Seed(0)).unwrap();
    let fc = network.param_mut("fc1.weight").unwrap();
    fc.set_value(ndarray::Array2::from_shape_fn((2, 100), |(r, _)| if r == 0 { 5.0 } else { 0.1 })).unwrap();
    fc.set_mask(Mask::from_fn(2, 100, |r, c| (r, c) != (0, 0))).unwrap();
    let data = (ndarray::Array2::ones((3, 100)), ndarray::Array2::ones((3, 2)));
    let rows = Pruning { pattern: Pattern::Rows, ..pruning(&MAGNITUDE, &Uniform, 0.5) };
    let outcome = prune(&network, &data, &rows).unwrap();
    assert_eq!(outcome.masks[0].1.row_counts(), [99, 0]);
}

#[test]
fn row_scope_keeps_as_many_of_every_row() {
    let (data, network) = (data(), small_mlp(8));
    let rows = Pruning { scope: Scope::Row, ..pruning(&Snip, &Uniform, 0.5) };
    for (name, mask) in prune(&network, &data, &rows).unwrap().masks {
        let counts = mask.row_counts();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 1, "{name}: {counts:?}");
    }
}

#[test]
fn a_sparsity_outside_its_domain_is_refused() {
    let (data, network) = (data(), small_mlp(9));
    for sparsity in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        let e = prune(&network, &data, &pruning(&MAGNITUDE, &Uniform, sparsity)).unwrap_err();
        assert!(e.to_string().starts_with("sparsity: ") && e.to_string().contains("[0, 1)"), "{e}");
    }
}

#[test]
fn a_layer_without_weights_has_a_mask_without_bits_in_every_pattern_and_allocation() {
    let scores = Seed(8).stream("scores").normal_array(8, 16, 1.0).mapv(f32::abs);
    let (no_rows, no_cols) = (Array2::<f32>::zeros((0, 16)), Array2::<f32>::zeros((8, 0)));
    for pattern in ["unstructured", "2:4", "block4x4", "rows", "cols"] {
        let pattern: Pattern = pattern.parse().unwrap();
        for allocation in allocations() {
            let with = |layers: &[(&'static str, &Array2<f32>)]| {
                let layers: Vec<LayerView<'_>> =
                    layers.iter().map(|(n, s)| LayerView { scores: Some(s.view()), ..LayerView::linear(n, s) }).collect();
                choose(&layers, allocation.as_ref(), Target::Sparsity(0.5), pattern, Scope::Layer).unwrap()
            };
            let alone = with(&[("full", &scores)]);
            let among = with(&[("no rows", &no_rows), ("full", &scores), ("no columns", &no_cols)]);
            assert_eq!(among[1], alone[0], "{pattern}, {}", allocation.name());
            assert_eq!((among[0].dim(), among[2].dim()), ((0, 16), (8, 0)), "{pattern}, {}", allocation.name());
        }
    }
    // Given sparsities may leave only such layers to the rest.
    let given = Overrides { sparsity: [("full".to_string(), 0.5)].into(), rest: Uniform };
    let layers = [LayerView::linear("full", &scores), LayerView::linear("none", &no_rows)];
    let parts = given.allocate(&layers, Budget::new(64, 128).unwrap()).unwrap();
    assert_eq!(parts.iter().map(|p| (p.keep(), p.of())).collect::<Vec<_>>(), [(64, 128), (0, 0)]);
    assert_eq!(given.range(&layers).unwrap(), (64, 64));
}

#[test]
fn of_nothing_there_is_no_share() {
    let (none, labels) = (Array2::<f32>::zeros((0, 10)), Array2::<f32>::zeros((0, 10)));
    let score = score(&small_mlp(1), &Array2::zeros((0, 64)), &labels, Loss::CrossEntropy);
    assert!(score.accuracy.is_nan() && score.loss.is_nan(), "{score:?}");
    assert!(agreement(&none, &[]).is_nan());
    assert_eq!((sparsity(0, 0), sparsity(1, 4), sparsity(0, 3)), (None, Some(0.75), Some(1.0)));
    let size = Size { parameters: 0, kept: 0, weights: 0, kept_weights: 0, flops: 0, bytes: 0, layers: vec![] };
    assert!(size.sparsity().is_nan() && size.whole_sparsity().is_nan());
    assert_eq!(Size { parameters: 8, kept: 6, ..size }.whole_sparsity(), 0.25);
    assert_eq!(Sum { numbers: 0, kept: Some(0), bytes: 0 }.sparsity(), None);
    assert_eq!(Sum { numbers: 4, kept: Some(1), bytes: 0 }.sparsity(), Some(0.75));
    let (choices, words) = (ChoiceScore::of(&[], &[], &[]), LastWordScore::of(&[], &[]));
    assert!(choices.accuracy.is_nan() && words.accuracy.is_nan() && words.perplexity.is_nan());
}
