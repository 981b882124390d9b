//! Allocation by rank from layers that are read one at a time: the counts of one ranking of everything in memory, to the last weight.

use lacuna::Result;
use lacuna::allocate::{
    Allocate, Global, Lamp, LayerView, Overrides, RankCounter, RankSample, ReadLayers, by_rank, sampled_rows,
};
use lacuna::mask::Budget;
use lacuna::rng::{Seed, Stream};
use ndarray::{Array2, ArrayView2, Axis};
use proptest::prelude::*;

/// What a reader shows as a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sample {
    /// The rows that are asked for.
    Rows,
    /// These rows times a thousand.
    Misleading,
    /// It cannot be read.
    Failing,
}

/// Layers that are shown one at a time, each as a copy that is gone afterwards.
struct Reader<'a> {
    weights: &'a [Array2<f32>],
    names: &'a [String],
    sample: Sample,
    passes: usize,
}

impl ReadLayers for Reader<'_> {
    fn sample(&mut self, layers: &[usize], see: &mut dyn FnMut(usize, &LayerView<'_>) -> Result<()>) -> Result<()> {
        if self.sample == Sample::Failing {
            return Err(lacuna::Error::invalid_option("sample", "cannot be read"));
        }
        for &i in layers {
            let mut rows = self.weights[i].select(Axis(0), &sampled_rows(&self.names[i], self.weights[i].nrows()));
            if self.sample == Sample::Misleading {
                // Magnitudes for the ranking of magnitudes, and another distribution for that of LAMP.
                rows.indexed_iter_mut().for_each(|((r, c), w)| *w = (1.0 + (r * 31 + c * 17 % 97) as f32).powi(9) * 1e-3);
            }
            let scores = rows.mapv(f32::abs);
            see(i, &LayerView { scores: Some(scores.view()), ..LayerView::linear(&self.names[i], &rows) })?;
        }
        Ok(())
    }

    fn pass(&mut self, layers: &[usize], pass: usize, see: &mut dyn FnMut(&LayerView<'_>) -> Result<()>) -> Result<()> {
        assert_eq!(pass, self.passes + 1);
        self.passes = pass;
        for &i in layers {
            let (weight, scores) = (self.weights[i].clone(), self.weights[i].mapv(f32::abs));
            see(&LayerView { scores: Some(scores.view()), ..LayerView::linear(&self.names[i], &weight) })?;
        }
        Ok(())
    }
}

fn names(weights: &[Array2<f32>]) -> Vec<String> {
    (0..weights.len()).map(|i| format!("layer{i}")).collect()
}

/// Budgets by an allocation that is shown one layer at a time, and how many passes that took.
fn streamed(allocation: &dyn Allocate, weights: &[Array2<f32>], keep: usize, sample: Sample) -> (Vec<usize>, usize) {
    let names = names(weights);
    let zero = Array2::zeros((1, 1));
    // Shapes alone.
    let shape = |(w, name): (&Array2<f32>, &'_ String)| (name.clone(), zero.broadcast(w.dim()).unwrap().dim());
    let shapes: Vec<(String, (usize, usize))> = weights.iter().zip(&names).map(shape).collect();
    let layers: Vec<LayerView<'_>> = shapes
        .iter()
        .map(|(n, dim)| LayerView { weight: zero.broadcast(*dim).unwrap(), ..LayerView::linear(n, &zero) })
        .collect();
    let total = Budget::new(keep, weights.iter().map(Array2::len).sum()).unwrap();
    let mut reader = Reader { weights, names: &names, sample, passes: 0 };
    let parts = by_rank(allocation, &layers, total, &mut reader).unwrap();
    (parts.iter().map(|p| p.keep()).collect(), reader.passes)
}

/// Budgets by an allocation that has all layers in memory, ranked by magnitude.
fn in_memory(allocation: &dyn Allocate, weights: &[Array2<f32>], keep: usize) -> Vec<usize> {
    let names = names(weights);
    let scores: Vec<Array2<f32>> = weights.iter().map(|w| w.mapv(f32::abs)).collect();
    let layer = |i: usize| LayerView { scores: Some(scores[i].view()), ..LayerView::linear(&names[i], &weights[i]) };
    let layers: Vec<LayerView<'_>> = (0..weights.len()).map(layer).collect();
    let total = Budget::new(keep, weights.iter().map(Array2::len).sum()).unwrap();
    allocation.allocate(&layers, total).unwrap().iter().map(|p| p.keep()).collect()
}

/// How many of each layer are among the `keep` best of all, by a stable sort of everything.
fn naive(scores: &[Array2<f32>], keep: usize) -> Vec<usize> {
    let mut all: Vec<(f32, usize)> = scores.iter().enumerate().flat_map(|(l, s)| s.iter().map(move |&s| (s, l))).collect();
    all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap());
    (0..scores.len()).map(|l| all[..keep].iter().filter(|(_, of)| *of == l).count()).collect()
}

/// LAMP scores from a sort of the squares, in the order of addition that their bits follow from: from the largest down, ties at once.
fn naive_lamp(weight: ArrayView2<'_, f32>) -> Array2<f32> {
    let squares: Vec<f64> = weight.iter().map(|&w| f64::from(w) * f64::from(w)).collect();
    let mut order: Vec<usize> = (0..squares.len()).collect();
    order.sort_by(|&a, &b| squares[b].total_cmp(&squares[a]));
    let (mut sum, mut at) = (0.0, 0);
    let mut scores = vec![0.0f32; squares.len()];
    while at < order.len() {
        let value = squares[order[at]];
        let ties = order[at..].iter().take_while(|&&i| squares[i] == value).count();
        sum += value * ties as f64;
        if value > 0.0 {
            order[at..at + ties].iter().for_each(|&i| scores[i] = (value / sum) as f32);
        }
        at += ties;
    }
    Array2::from_shape_vec(weight.dim(), scores).unwrap()
}

/// Weights of one kind.
fn layer(kind: usize, (rows, cols): (usize, usize), stream: &mut Stream) -> Array2<f32> {
    let equal = stream.normal();
    Array2::from_shape_simple_fn((rows, cols), || match kind {
        0 => stream.normal(),
        // Few values, many ties, both zeros.
        1 => [-1.0, -0.0, 0.0, 0.5, 1.0, 2.0][stream.below(6)],
        // Tiny and huge, to the last bit of the exponent.
        2 => [f32::from_bits(1), -f32::MIN_POSITIVE, 1e-40, f32::MAX, -f32::MAX, 1e38, 1e-20, 1.0][stream.below(8)],
        3 => equal,
        4 => 0.0,
        // Numbers of bfloat16, and of 16 bits with 11 of precision.
        5 => f32::from_bits(stream.normal().to_bits() & 0xffff_0000),
        _ => f32::from_bits((1e-3 * stream.normal()).to_bits() & 0xffff_e000),
    })
}

const KINDS: usize = 7;

fn layers() -> impl Strategy<Value = Vec<Array2<f32>>> {
    let one = (0..KINDS, 0..40usize, 0..40usize);
    (prop::collection::vec(one, 1..7), any::<u64>()).prop_map(|(shapes, seed)| {
        let mut stream = Seed(seed).stream("layers");
        let mut all: Vec<Array2<f32>> = shapes.iter().map(|&(kind, r, c)| layer(kind, (r, c), &mut stream)).collect();
        all.push(layer(0, (3, 2), &mut stream));
        all
    })
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn layers_one_at_a_time_get_the_budgets_of_one_ranking_of_all(weights in layers(), share in 0.0..=1.0f64) {
        let all: usize = weights.iter().map(Array2::len).sum();
        let magnitudes: Vec<Array2<f32>> = weights.iter().map(|w| w.mapv(f32::abs)).collect();
        let lamp: Vec<Array2<f32>> = weights.iter().map(|w| naive_lamp(w.view())).collect();
        for keep in [0, 1, (share * all as f64) as usize, all - 1, all] {
            for (allocation, scores) in [(&Global as &dyn Allocate, &magnitudes), (&Lamp, &lamp)] {
                let expected = naive(scores, keep);
                prop_assert_eq!(&in_memory(allocation, &weights, keep), &expected, "{} in memory", allocation.name());
                for sample in [Sample::Rows, Sample::Misleading, Sample::Failing] {
                    let (found, passes) = streamed(allocation, &weights, keep, sample);
                    prop_assert_eq!(&found, &expected, "{} by {:?} in {} passes", allocation.name(), sample, passes);
                    prop_assert!(passes <= 2, "{} passes", passes);
                    let unknown = sample == Sample::Failing && keep > 0 && keep < all;
                    prop_assert!(!unknown || passes == 2, "without a sample nothing is known before the first pass");
                }
            }
        }
    }

    #[test]
    fn lamp_scores_have_the_bits_of_a_sort_of_the_squares(kind in 0..KINDS, rows in 0..50usize, cols in 0..50usize, seed: u64) {
        let weight = layer(kind, (rows, cols), &mut Seed(seed).stream("layer"));
        let bits = |scores: Array2<f32>| scores.mapv(f32::to_bits);
        prop_assert_eq!(bits(Lamp::scores(&weight)), bits(naive_lamp(weight.view())));
        let turned = weight.t();
        prop_assert_eq!(bits(Lamp::scores(&turned)), bits(naive_lamp(turned)));
    }

    #[test]
    fn layers_that_are_given_take_no_part_in_the_ranking(weights in layers(), given in 0.0..1.0f64, share in 0.0..=1.0f64) {
        let sparsity = [("layer0".to_string(), given)];
        let first = Budget::from_sparsity(weights[0].len(), given).unwrap().keep();
        let rest: usize = weights[1..].iter().map(Array2::len).sum();
        let keep = first + (share * rest as f64) as usize;
        for inner in [&Global as &dyn Allocate, &Lamp] {
            let found = match inner.name() {
                "global" => streamed(&Overrides { sparsity: sparsity.clone().into(), rest: Global }, &weights, keep, Sample::Rows).0,
                _ => streamed(&Overrides { sparsity: sparsity.clone().into(), rest: Lamp }, &weights, keep, Sample::Rows).0,
            };
            prop_assert_eq!(found[0], first);
            prop_assert_eq!(&found[1..], &in_memory(inner, &weights[1..], keep - first)[..], "{}", inner.name());
        }
    }
}

/// Layers of more weights than a task has, so that counts are made in parts and those of 16 bits by value.
fn large() -> Vec<Array2<f32>> {
    let mut stream = Seed(7).stream("large");
    let mut all: Vec<Array2<f32>> = [(0, (900, 700)), (5, (700, 800)), (6, (1900, 256)), (1, (512, 160))]
        .into_iter()
        .map(|(kind, shape)| layer(kind, shape, &mut stream))
        .collect();
    // Another scale for every layer, exact in bits.
    all.iter_mut().zip([0.25, 1.0, 512.0, 0.5]).for_each(|(w, scale)| w.mapv_inplace(|w| w * scale));
    all
}

#[test]
fn large_layers_take_one_pass_by_a_good_sample_and_two_by_a_misleading_one() {
    let weights = large();
    let all: usize = weights.iter().map(Array2::len).sum();
    let magnitudes: Vec<Array2<f32>> = weights.iter().map(|w| w.mapv(f32::abs)).collect();
    let lamp: Vec<Array2<f32>> = weights.iter().map(|w| naive_lamp(w.view())).collect();
    for (weight, scores) in weights.iter().zip(&lamp) {
        assert_eq!(Lamp::scores(weight).mapv(f32::to_bits), scores.mapv(f32::to_bits));
    }
    for share in [0.2, 0.3, 0.5, 0.8] {
        let keep = (share * all as f64) as usize;
        for (allocation, scores) in [(&Global as &dyn Allocate, &magnitudes), (&Lamp, &lamp)] {
            let expected = naive(scores, keep);
            let name = allocation.name();
            assert_eq!(in_memory(allocation, &weights, keep), expected, "{name}");
            assert_eq!(streamed(allocation, &weights, keep, Sample::Rows), (expected.clone(), 1), "{name} at {share}");
            assert_eq!(streamed(allocation, &weights, keep, Sample::Misleading), (expected, 2), "{name} at {share}");
        }
    }
}

#[test]
fn scores_of_any_strides_are_counted_alike() {
    let scores = large()[1].clone();
    let keep = 12_345;
    let count = |views: &[ArrayView2<'_, f32>]| {
        let mut counter = RankCounter::new(keep);
        loop {
            views.iter().for_each(|v| counter.add(*v).unwrap());
            if let Some(counts) = counter.finish_pass() {
                return counts;
            }
        }
    };
    let whole = count(&[scores.view(), scores.slice(ndarray::s![..;2, ..;-3])]);
    assert_eq!(whole, count(&[scores.t(), scores.slice(ndarray::s![..;2, ..;-3]).to_owned().view()]));
    assert_eq!(whole, naive(&[scores.clone(), scores.slice(ndarray::s![..;2, ..;-3]).to_owned()], keep));
}

#[test]
fn scores_that_change_between_two_passes_are_refused() {
    let (a, b) = (ndarray::array![[1.0, 2.0, 3.0]], ndarray::array![[1.0, 2.0, 300.0]]);
    let mut counter = RankCounter::predicted(1, &RankSample::default());
    counter.add(a.view()).unwrap();
    assert_eq!(counter.finish_pass(), None);
    let line = counter.add(b.view()).unwrap_err().to_string();
    assert_eq!(line, "scores: are not those of the pass before: did the weights change meanwhile?");
}

#[test]
fn a_score_that_is_not_finite_is_refused_with_its_place_whatever_its_sign() {
    for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut scores = large()[0].clone();
        scores[[411, 17]] = value;
        let line = RankCounter::new(5).add(scores.view()).unwrap_err().to_string();
        assert!(line.starts_with("scores: ") && line.contains("at row 411, column 17; only finite"), "{line}");
    }
    let mut extreme = RankCounter::new(1);
    extreme.add(ndarray::array![[f32::MAX, f32::MIN]].view()).unwrap();
}

#[test]
fn a_sample_is_a_small_part_of_large_layers_and_all_of_small_ones() {
    for (rows, count) in [(0, 0), (1, 1), (16, 16), (17, 16), (4096, 16), (4097, 17), (14336, 56), (100_000, 391)] {
        let sampled = sampled_rows("layer", rows);
        assert_eq!(sampled.len(), count, "of {rows}");
        assert!(sampled.windows(2).all(|w| w[0] < w[1]) && sampled.iter().all(|&r| r < rows), "{sampled:?} of {rows}");
        assert_eq!(sampled, sampled_rows("layer", rows));
    }
}
