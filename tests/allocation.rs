//! Allocations: exact sums, and each against a naive version of its formula.

use lacuna::allocate::{Allocate, Er, Erk, Global, Lamp, LayerView, Overrides, Target, Uniform};
use lacuna::mask::{Budget, Pattern, Scope, select};
use lacuna::rng::Seed;
use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;

/// The shape of one layer.
#[derive(Debug, Clone, Copy)]
struct Shape {
    out: usize,
    channels: usize,
    kernel: Option<(usize, usize)>,
    positions: usize,
}

fn linear(out: usize, inputs: usize) -> Shape {
    Shape { out, channels: inputs, kernel: None, positions: 1 }
}

fn conv(out: usize, channels: usize, kernel: (usize, usize), positions: usize) -> Shape {
    Shape { out, channels, kernel: Some(kernel), positions }
}

/// Layers with weights and scores.
struct Net {
    shapes: Vec<Shape>,
    names: Vec<String>,
    weights: Vec<Array2<f32>>,
    scores: Vec<Array2<f32>>,
}

impl Net {
    /// Whole weights from -9 to 9, so that sums are exact and many tie; scores are drawn apart.
    fn new(shapes: &[Shape], seed: u64) -> Self {
        let mut stream = Seed(seed).stream("net");
        let mut arrays = || -> Vec<Array2<f32>> {
            let mut number = || stream.below(19) as f32 - 9.0;
            shapes
                .iter()
                .map(|s| Array2::from_shape_simple_fn((s.out, s.channels * s.kernel.map_or(1, |(h, w)| h * w)), &mut number))
                .collect()
        };
        let names = (0..shapes.len()).map(|i| format!("layer{i}.weight")).collect();
        Net { shapes: shapes.to_vec(), names, weights: arrays(), scores: arrays() }
    }

    fn layers(&self) -> Vec<LayerView<'_>> {
        let layer = |i: usize| LayerView {
            name: &self.names[i],
            weight: self.weights[i].view(),
            kernel: self.shapes[i].kernel,
            positions: self.shapes[i].positions,
            scores: Some(self.scores[i].view()),
        };
        (0..self.shapes.len()).map(layer).collect()
    }

    fn len(&self) -> usize {
        self.weights.iter().map(Array2::len).sum()
    }

    /// A budget of about this share of the weights.
    fn budget(&self, share: f64) -> Budget {
        Budget::new((self.len() as f64 * share).round() as usize, self.len()).unwrap()
    }

    fn keep(&self, allocation: &dyn Allocate, keep: usize) -> Vec<usize> {
        keeps(&allocation.allocate(&self.layers(), Budget::new(keep, self.len()).unwrap()).unwrap())
    }
}

fn keeps(parts: &[Budget]) -> Vec<usize> {
    parts.iter().map(|p| p.keep()).collect()
}

fn all() -> [&'static dyn Allocate; 5] {
    [&Uniform, &Er, &Erk, &Global, &Lamp]
}

fn shape() -> impl Strategy<Value = Shape> {
    let kernel = prop_oneof![Just(None), (1..4usize, 1..4usize).prop_map(Some)];
    (1..14usize, 1..14usize, kernel, 1..40usize).prop_map(|(out, channels, kernel, positions)| Shape {
        out,
        channels,
        kernel,
        positions,
    })
}

fn net() -> impl Strategy<Value = Net> {
    (prop::collection::vec(shape(), 1..6), any::<u64>()).prop_map(|(shapes, seed)| Net::new(&shapes, seed))
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with weights {:?} and scores {:?}", self.shapes, self.weights, self.scores)
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) }
}

/// ER or ERK by bisection for ε in Σ min(1, ε raw) n = keep, which needs no rule of what to do with full layers.
fn ideal_densities(shapes: &[Shape], keep: usize, kernels: bool) -> Vec<f64> {
    let raw = |s: &Shape| {
        let (i, o) = (s.channels as f64, s.out as f64);
        match s.kernel.filter(|_| kernels) {
            Some((h, w)) => (i + o + h as f64 + w as f64) / (i * o * h as f64 * w as f64),
            None => (i + o) / (i * o),
        }
    };
    let len = |s: &Shape| (s.out * s.channels * s.kernel.map_or(1, |(h, w)| h * w)) as f64;
    let total = |epsilon: f64| -> f64 { shapes.iter().map(|s| (epsilon * raw(s)).min(1.0) * len(s)).sum() };
    let (mut low, mut high) = (0.0, 1e9);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if total(middle) < keep as f64 { low = middle } else { high = middle }
    }
    shapes.iter().map(|s| (high * raw(s)).min(1.0) * len(s)).collect()
}

/// How many of each layer are among the `keep` best of all, by a stable sort of everything.
fn naive_ranks(scores: &[ArrayView2<'_, f32>], keep: usize) -> Vec<usize> {
    let mut all: Vec<(f32, usize)> = scores.iter().enumerate().flat_map(|(l, s)| s.iter().map(move |&s| (s, l))).collect();
    all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap());
    (0..scores.len()).map(|l| all[..keep].iter().filter(|(_, of)| *of == l).count()).collect()
}

/// Equation 4 of the paper as it stands, for every weight apart.
fn naive_lamp(weight: ArrayView2<'_, f32>) -> Array2<f32> {
    let square = |w: f32| f64::from(w) * f64::from(w);
    weight.mapv(|u| {
        let sum: f64 = weight.iter().map(|&v| square(v)).filter(|v| *v >= square(u)).sum();
        if u == 0.0 { 0.0 } else { (square(u) / sum) as f32 }
    })
}

fn flops(net: &Net, keep: &[usize]) -> usize {
    keep.iter().zip(&net.shapes).map(|(k, s)| 2 * k * s.positions).sum()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn parts_sum_to_the_whole_and_none_is_above_its_layer(net in net(), share in 0.0..=1.0f64) {
        let total = net.budget(share);
        for allocation in all() {
            let parts = allocation.allocate(&net.layers(), total).unwrap();
            prop_assert_eq!(parts.iter().map(|p| p.keep()).sum::<usize>(), total.keep(), "{}", allocation.name());
            let of: Vec<usize> = parts.iter().map(|p| p.of()).collect();
            let len: Vec<usize> = net.weights.iter().map(Array2::len).collect();
            prop_assert_eq!(of, len, "{}", allocation.name());
            prop_assert!(parts.iter().all(|p| p.keep() <= p.of()), "{}: {:?}", allocation.name(), parts);
        }
    }

    #[test]
    fn uniform_is_within_one_weight_of_the_share(net in net(), share in 0.0..=1.0f64) {
        let total = net.budget(share);
        for part in Uniform.allocate(&net.layers(), total).unwrap() {
            // |keep - of * total.keep / total.of| < 1, in whole numbers.
            prop_assert!((part.keep() * total.of()).abs_diff(part.of() * total.keep()) < total.of(), "{:?} of {:?}", part, total);
        }
    }

    #[test]
    fn er_and_erk_are_within_one_weight_of_the_formula(net in net(), share in 0.0..=1.0f64) {
        let keep = net.budget(share).keep();
        for (allocation, kernels) in [(&Er as &dyn Allocate, false), (&Erk, true)] {
            let ideal = ideal_densities(&net.shapes, keep, kernels);
            for (keep, ideal) in net.keep(allocation, keep).into_iter().zip(&ideal) {
                prop_assert!((keep as f64 - ideal).abs() < 1.0 + 1e-6, "{}: {} for {}", allocation.name(), keep, ideal);
            }
        }
    }

    #[test]
    fn global_is_one_ranking_of_all_scores(net in net(), share in 0.0..=1.0f64) {
        let keep = net.budget(share).keep();
        let scores: Vec<_> = net.scores.iter().map(|s| s.view()).collect();
        let parts = net.keep(&Global, keep);
        prop_assert_eq!(&parts, &naive_ranks(&scores, keep));
        // Selecting that many in each layer keeps the same weights as selecting in all layers laid end to end.
        let flat: Vec<f32> = scores.iter().flat_map(|s| s.iter().copied()).collect();
        let flat = Array2::from_shape_vec((1, flat.len()), flat).unwrap();
        let whole = select(&flat, Pattern::Unstructured, Scope::Layer, net.budget(share)).unwrap();
        let apart: Vec<bool> = scores
            .iter()
            .zip(&parts)
            .flat_map(|(s, &keep)| {
                let mask = select(s, Pattern::Unstructured, Scope::Layer, Budget::new(keep, s.len()).unwrap()).unwrap();
                mask.to_array().into_iter().collect::<Vec<_>>()
            })
            .collect();
        prop_assert_eq!(whole.to_array().into_iter().collect::<Vec<_>>(), apart);
    }

    #[test]
    fn lamp_is_its_formula_and_ranks_by_it(net in net(), share in 0.0..=1.0f64) {
        let naive: Vec<Array2<f32>> = net.weights.iter().map(|w| naive_lamp(w.view())).collect();
        for (weight, naive) in net.weights.iter().zip(&naive) {
            prop_assert_eq!(&Lamp::scores(weight), naive);
            prop_assert_eq!(Lamp::scores(&weight.t()), naive.t());
        }
        let views: Vec<_> = naive.iter().map(|s| s.view()).collect();
        let keep = net.budget(share).keep();
        prop_assert_eq!(net.keep(&Lamp, keep), naive_ranks(&views, keep));
    }

    #[test]
    fn lamp_scores_of_real_weights_are_near_the_formula_and_scale_with_nothing(rows in 1..9usize, cols in 1..9usize, seed: u64, power in -30..30i32) {
        let weight = Seed(seed).stream("weight").normal_array(rows, cols, 1.0);
        let scores = Lamp::scores(&weight);
        for (score, naive) in scores.iter().zip(&naive_lamp(weight.view())) {
            prop_assert!((score - naive).abs() <= 1e-6 * naive, "{} for {}", score, naive);
        }
        prop_assert_eq!(Lamp::scores(&(&weight * 2f32.powi(power))), scores);
    }

    #[test]
    fn lamp_leaves_no_layer_empty_while_there_is_a_weight_for_each(shapes in prop::collection::vec(shape(), 1..7), seed: u64, share in 0.0..=1.0f64) {
        let mut net = Net::new(&shapes, seed);
        // Distinct magnitudes, with scales that differ by orders from layer to layer.
        let mut stream = Seed(seed).stream("distinct");
        for weight in &mut net.weights {
            let order = stream.permutation(weight.len());
            let scale = 10f32.powi(stream.below(7) as i32 - 3);
            weight.iter_mut().zip(order).for_each(|(w, i)| *w = scale * (i + 1) as f32 * if i % 2 == 0 { 1.0 } else { -1.0 });
        }
        for weight in &net.weights {
            let scores = Lamp::scores(weight);
            prop_assert_eq!(scores.iter().filter(|s| **s == 1.0).count(), 1);
            let largest = weight.indexed_iter().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap().0;
            prop_assert_eq!(scores[largest], 1.0);
        }
        let keep = shapes.len() + ((net.len() - shapes.len()) as f64 * share) as usize;
        prop_assert!(net.keep(&Lamp, keep).iter().all(|&k| k >= 1));
        prop_assert_eq!(net.keep(&Lamp, shapes.len()), vec![1; shapes.len()]);
    }

    #[test]
    fn overrides_keep_what_they_say_and_the_parts_still_sum_to_the_whole(net in net(), given in 0.0..1.0f64, share in 0.0..=1.0f64) {
        let rest: usize = net.weights[1..].iter().map(Array2::len).sum();
        let first = Budget::from_sparsity(net.weights[0].len(), given).unwrap();
        let keep = first.keep() + (rest as f64 * share).round() as usize;
        for (i, inner) in all().into_iter().enumerate() {
            let sparsity = [(net.names[0].clone(), given)].into();
            let parts = match i {
                0 => net.keep(&Overrides { sparsity, rest: Uniform }, keep),
                1 => net.keep(&Overrides { sparsity, rest: Er }, keep),
                2 => net.keep(&Overrides { sparsity, rest: Erk }, keep),
                3 => net.keep(&Overrides { sparsity, rest: Global }, keep),
                _ => net.keep(&Overrides { sparsity, rest: Lamp }, keep),
            };
            prop_assert_eq!(parts[0], first.keep());
            prop_assert_eq!(parts.iter().sum::<usize>(), keep);
            if rest > 0 {
                // The others are as if the first did not exist.
                let others = inner.allocate(&net.layers()[1..], Budget::new(keep - parts[0], rest).unwrap()).unwrap();
                prop_assert_eq!(&parts[1..], &keeps(&others)[..], "{}", inner.name());
            }
        }
    }

    #[test]
    fn a_target_of_flops_is_never_passed(net in net(), share in 0.0..=1.0f64) {
        let dense = flops(&net, &net.weights.iter().map(Array2::len).collect::<Vec<_>>());
        let limit = (dense as f64 * share) as usize;
        for allocation in all() {
            let parts = keeps(&Target::Flops(limit).allocate(allocation, &net.layers()).unwrap());
            prop_assert!(flops(&net, &parts) <= limit, "{}: {:?}", allocation.name(), parts);
            let kept: usize = parts.iter().sum();
            prop_assert_eq!(&parts, &net.keep(allocation, kept), "{} does not allocate this", allocation.name());
            // One weight more would pass it.
            if kept < net.len() {
                prop_assert!(flops(&net, &net.keep(allocation, kept + 1)) > limit, "{} stops at {}", allocation.name(), kept);
            }
        }
    }

    #[test]
    fn a_target_of_flops_on_one_layer_keeps_as_many_weights_as_it_pays_for(shape in shape(), limit in 0..100_000usize) {
        let net = Net::new(&[shape], 0);
        let part = Target::Flops(limit).allocate(&Uniform, &net.layers());
        match limit {
            _ if limit > 2 * shape.positions * net.len() => prop_assert!(part.is_err()),
            _ => prop_assert_eq!(keeps(&part.unwrap()), [limit / (2 * shape.positions)]),
        }
    }

    #[test]
    fn targets_of_parameters_and_sparsity_are_the_allocation_of_that_budget(net in net(), sparsity in 0.0..1.0f64) {
        let total = Budget::from_sparsity(net.len(), sparsity).unwrap();
        for allocation in all() {
            let expected = allocation.allocate(&net.layers(), total).unwrap();
            prop_assert_eq!(&Target::Parameters(total.keep()).allocate(allocation, &net.layers()).unwrap(), &expected);
            prop_assert_eq!(&Target::Sparsity(sparsity).allocate(allocation, &net.layers()).unwrap(), &expected);
        }
    }
}

#[test]
fn uniform_gives_the_odd_weight_to_the_largest_fraction_and_of_equals_to_the_first() {
    let net = Net::new(&[linear(3, 3), linear(2, 3), linear(3, 3)], 0);
    assert_eq!(net.keep(&Uniform, 8), [3, 2, 3]);
    assert_eq!(net.keep(&Uniform, 13), [5, 3, 5]); // 4.875, 3.25, 4.875
    let equal = Net::new(&[linear(3, 3), linear(3, 3), linear(3, 3)], 0);
    assert_eq!(equal.keep(&Uniform, 10), [4, 3, 3]);
    assert_eq!(equal.keep(&Uniform, 11), [4, 4, 3]);
}

#[test]
fn erk_keeps_full_layers_whole_and_solves_anew_for_the_rest() {
    // (in + out) / (in · out) is 1 for 2 x 2, 0.5 for 4 x 4, 0.2 for 10 x 10 and 0.1 for 20 x 20.
    let net = Net::new(&[linear(2, 2), linear(10, 10), linear(10, 10)], 0);
    assert_eq!(net.keep(&Erk, 44), [4, 20, 20]); // ε = 44 / (4 + 20 + 20) = 1: nothing is beyond full
    assert_eq!(net.keep(&Erk, 84), [4, 40, 40]); // 84 / 44 > 1, so ε = (84 - 4) / 40 = 2
    // ε = 104 / 52 = 2 overfills the first alone; the second is full only after ε = 100 / 48; at last 84 / 40.
    let net = Net::new(&[linear(2, 2), linear(4, 4), linear(20, 20)], 0);
    assert_eq!(net.keep(&Erk, 104), [4, 16, 84]);
    assert_eq!(net.keep(&Erk, 420), [4, 16, 400]);
    assert_eq!(net.keep(&Er, 104), [4, 16, 84]);
}

#[test]
fn er_leaves_out_the_kernel_that_erk_counts() {
    let net = Net::new(&[conv(8, 4, (3, 3), 1), linear(6, 12)], 0);
    // ER: the convolution has 12 / 32 of its 288, the linear layer 18 / 72 of its 72: 108 and 18 by ε = 0.5.
    assert_eq!(net.keep(&Er, 63), [54, 9]);
    // ERK: the convolution has 18 / 288 of its 288: 18 and 18 by ε = 1.
    assert_eq!(net.keep(&Erk, 36), [18, 18]);
    // A kernel of 1 x 1 still has two terms in ERK: (2 + 3 + 1 + 1) / 6 of its 6 against (1 + 7) / 7 of its 7.
    let net = Net::new(&[conv(3, 2, (1, 1), 1), linear(7, 1)], 0);
    assert_eq!(net.keep(&Erk, 3), [1, 2]); // 1.4 and 1.6
    assert_eq!(net.keep(&Er, 3), [1, 2]); // 1.15 and 1.85
    assert_eq!(net.keep(&Erk, 5), [2, 3]); // 2.33 and 2.67
    assert_eq!(net.keep(&Erk, 7), [3, 4]); // 3.27 and 3.73
}

#[test]
fn global_gives_ties_to_the_first_layer() {
    let mut net = Net::new(&[linear(2, 3), linear(1, 4), linear(2, 2)], 0);
    net.scores.iter_mut().for_each(|s| s.fill(1.0));
    assert_eq!(net.keep(&Global, 5), [5, 0, 0]);
    assert_eq!(net.keep(&Global, 8), [6, 2, 0]);
    net.scores[2].fill(2.0);
    net.scores[1].fill(-0.0);
    net.scores[0].fill(0.0);
    assert_eq!(net.keep(&Global, 5), [1, 0, 4]);
    assert_eq!(net.keep(&Global, 11), [6, 1, 4]);
    net.scores[0].fill(-1.0);
    assert_eq!(net.keep(&Global, 9), [1, 4, 4]);
}

#[test]
fn global_refuses_scores_that_are_missing_of_another_shape_or_not_finite_and_names_the_layer() {
    let net = Net::new(&[linear(2, 3), linear(1, 4)], 0);
    let total = Budget::new(5, 10).unwrap();
    let message = |layers: &[LayerView<'_>]| Global.allocate(layers, total).unwrap_err().to_string();
    let mut layers = net.layers();
    layers[1].scores = None;
    assert_eq!(message(&layers), "global needs the scores of layer layer1.weight, which was not measured");
    layers[1].scores = Some(net.scores[0].view());
    assert_eq!(message(&layers), "layer layer1.weight: scores: expected shape [1, 4], found [2, 3]");
    let scores = ndarray::array![[1.0, 2.0, f32::NAN, f32::INFINITY]];
    layers[1].scores = Some(scores.view());
    assert_eq!(
        message(&layers),
        "layer layer1.weight: scores: NaN at row 0, column 2; only finite numbers can be ranked or stored"
    );
}

#[test]
fn lamp_refuses_weights_that_are_not_finite_and_names_the_layer() {
    let mut net = Net::new(&[linear(2, 3), linear(2, 2)], 0);
    net.weights[1][[1, 0]] = f32::NEG_INFINITY;
    let error = Lamp.allocate(&net.layers(), Budget::new(5, 10).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "layer layer1.weight: weights: -inf at row 1, column 0; only finite numbers can be ranked or stored");
}

#[test]
fn layers_without_weights_get_nothing_and_change_nothing_for_the_others() {
    let shapes = [linear(6, 5), conv(4, 3, (3, 3), 7), linear(2, 2)];
    let net = Net::new(&shapes, 3);
    let (no_rows, no_cols) = (Array2::zeros((0, 5)), Array2::zeros((5, 0)));
    for allocation in all() {
        for keep in [0, 1, 40, 100, net.len()] {
            let total = Budget::new(keep, net.len()).unwrap();
            let expected = net.keep(allocation, keep);
            for empty in [&no_rows, &no_cols] {
                let mut layers = net.layers();
                layers.insert(1, LayerView { scores: Some(empty.view()), ..LayerView::linear("empty", empty) });
                let mut parts = keeps(&allocation.allocate(&layers, total).unwrap());
                assert_eq!(parts.remove(1), 0);
                assert_eq!(parts, expected, "{} with a layer of {:?}", allocation.name(), empty.dim());
            }
        }
    }
}

#[test]
fn a_total_of_other_layers_is_refused_with_both_counts() {
    let net = Net::new(&[linear(2, 3), linear(1, 4)], 0);
    for allocation in all() {
        let error = allocation.allocate(&net.layers(), Budget::new(4, 11).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "budget: cannot keep 4 of 11: the 2 layers have 10 weights together", "{}", allocation.name());
        let error = allocation.allocate(&[], Budget::new(0, 0).unwrap()).unwrap_err().to_string();
        assert_eq!(error, "layers: there are no weights to allocate a budget to", "{}", allocation.name());
    }
}

#[test]
fn an_override_of_an_unknown_layer_suggests_the_nearest_name() {
    let net = Net::new(&[linear(2, 3), linear(1, 4)], 0);
    let message = |name: &str| {
        let overrides = Overrides { sparsity: [(name.to_string(), 0.5)].into(), rest: Uniform };
        overrides.allocate(&net.layers(), Budget::new(5, 10).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(message("layer1.wieght"), "no layer is named 'layer1.wieght' among 2; did you mean 'layer1.weight'?");
    assert_eq!(message("xyz"), "no layer is named 'xyz' among 2");
}

#[test]
fn overrides_that_leave_the_rest_an_impossible_part_are_refused_with_the_numbers() {
    let net = Net::new(&[linear(2, 3), linear(1, 4)], 0);
    let message = |sparsity: &[(usize, f64)], keep: usize| {
        let sparsity = sparsity.iter().map(|&(i, s)| (net.names[i].clone(), s)).collect();
        let parts = Overrides { sparsity, rest: Uniform }.allocate(&net.layers(), Budget::new(keep, 10).unwrap());
        parts.map(|p| keeps(&p)).map_err(|e| e.to_string())
    };
    let refused = |keep: usize, given: usize, room: usize| {
        Err(format!(
            "budget: cannot keep {keep} of 10: the given layers keep {given}, which leaves the other {room} weights a part they cannot have"
        ))
    };
    assert_eq!(message(&[(0, 0.0)], 5), refused(5, 6, 4)); // more than there is
    assert_eq!(message(&[(0, 0.0)], 6), Ok(vec![6, 0]));
    assert_eq!(message(&[(0, 0.5)], 8), refused(8, 3, 4)); // more left than the rest can hold
    assert_eq!(message(&[(0, 0.5)], 7), Ok(vec![3, 4]));
    assert_eq!(message(&[(0, 0.5), (1, 0.5)], 6), refused(6, 5, 0)); // all are given, and not this many
    assert_eq!(message(&[(0, 0.5), (1, 0.5)], 5), Ok(vec![3, 2]));
    let error = message(&[(1, 1.0)], 5).unwrap_err();
    assert_eq!(error, "layer layer1.weight: sparsity: 1 is not in [0, 1): 0 keeps all, 0.9 drops nine of ten");
}

#[test]
fn a_sparsity_out_of_range_is_refused_everywhere() {
    let net = Net::new(&[linear(2, 3), linear(1, 4)], 0);
    for sparsity in [1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
        let expected = format!("sparsity: {sparsity} is not in [0, 1): 0 keeps all, 0.9 drops nine of ten");
        assert_eq!(Budget::from_sparsity(10, sparsity).unwrap_err().to_string(), expected);
        assert_eq!(Pattern::Rows.budget(4, 4, sparsity).unwrap_err().to_string(), expected);
        assert_eq!(Target::Sparsity(sparsity).allocate(&Uniform, &net.layers()).unwrap_err().to_string(), expected);
    }
    assert_eq!(Target::Sparsity(0.0).allocate(&Uniform, &net.layers()).map(|p| keeps(&p)).unwrap(), [6, 4]);
}

#[test]
fn a_budget_drops_the_nearest_number_and_of_a_half_the_larger() {
    let table = [(10, 0.3, 7), (10, 0.0, 10), (10, 0.25, 7), (10, 0.24, 8), (3, 0.5, 1), (1, 0.49, 1), (1, 0.5, 0), (0, 0.5, 0)];
    for (of, sparsity, keep) in table {
        let budget = Budget::from_sparsity(of, sparsity).unwrap();
        assert_eq!((budget.keep(), budget.of(), budget.drop()), (keep, of, of - keep), "{sparsity} of {of}");
    }
    assert_eq!(Budget::new(3, 4).unwrap().sparsity(), 0.25);
    assert_eq!(Budget::all(0).sparsity(), 0.0);
}

#[test]
fn targets_beyond_the_dense_layers_are_refused_with_both_counts() {
    let net = Net::new(&[linear(2, 3), conv(1, 4, (1, 1), 9)], 0);
    let message = |target: Target| target.allocate(&Uniform, &net.layers()).map(|p| keeps(&p)).map_err(|e| e.to_string());
    assert_eq!(message(Target::Flops(85)), Err("flops: 85 is more than the 84 of the dense layers".into()));
    assert_eq!(message(Target::Flops(84)), Ok(vec![6, 4]));
    assert_eq!(message(Target::Flops(0)), Ok(vec![0, 0]));
    assert_eq!(message(Target::Parameters(11)), Err("budget: cannot keep 11 of 10: more are to stay than there are".into()));
    assert_eq!(message(Target::Parameters(10)), Ok(vec![6, 4]));
}

#[test]
fn a_target_of_flops_works_with_layers_that_are_given() {
    let net = Net::new(&[linear(2, 3), conv(1, 4, (1, 1), 9)], 0);
    let whole = Overrides { sparsity: [(net.names[0].clone(), 0.0)].into(), rest: Uniform };
    let message = |limit| Target::Flops(limit).allocate(&whole, &net.layers()).map(|p| keeps(&p)).map_err(|e| e.to_string());
    assert_eq!(message(84), Ok(vec![6, 4]));
    assert_eq!(message(83), Ok(vec![6, 3])); // 12 for the first, 18 for each of the others
    assert_eq!(message(29), Ok(vec![6, 0]));
    assert_eq!(message(12), Ok(vec![6, 0]));
    assert_eq!(message(11), Err("flops: 11 is less than the 12 of what must stay".into()));
}

#[test]
fn lamp_s_scores_of_a_matrix_with_a_nan_are_nan_and_come_to_an_end() {
    let w = Array2::from_shape_fn((3, 4), |(r, c)| if (r, c) == (1, 2) { f32::NAN } else { (r * 4 + c) as f32 });
    assert!(Lamp::scores(&w).iter().all(|s| s.is_nan()));
}
