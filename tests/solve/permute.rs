use crate::common::*;
use lacuna::criteria::{Ria, Saliency};
use lacuna::mask::{Pattern, Scope, select};
use lacuna::solve::channel_order;
use ndarray::{Array2, array};

fn retained(scores: &Array2<f32>, order: &[usize], n: usize, m: usize) -> f64 {
    let ordered = Array2::from_shape_fn(scores.dim(), |(r, c)| scores[[r, order[c]]]);
    let pattern = Pattern::Nm { n, m };
    let budget = pattern.budget(ordered.nrows(), ordered.ncols(), 0.0).unwrap();
    let mask = select(&ordered, pattern, Scope::Layer, budget).unwrap();
    mask.iter_kept().map(|at| f64::from(ordered[at])).sum()
}

#[test]
fn of_eight_columns_the_order_is_nearly_the_best_and_never_below_the_natural_one() {
    let natural: Vec<usize> = (0..8).collect();
    for seed in 0..10 {
        let layer = Layer::random(6, 8, 30, seed);
        let scores = Ria::default().score(&layer.evidence()).unwrap();
        let order = channel_order(&scores, 2, 4).unwrap();
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted, natural, "a permutation");
        let found = retained(&scores, &order, 2, 4);
        // Every way to halve the columns.
        let halves = (0..256u32).filter(|h| h.count_ones() == 4);
        let split = |h: u32| (0..8).filter(|c| h >> c & 1 == 1).chain((0..8).filter(|c| h >> c & 1 == 0)).collect::<Vec<_>>();
        let best = halves.map(|h| retained(&scores, &split(h), 2, 4)).fold(0.0, f64::max);
        assert!(found >= retained(&scores, &natural, 2, 4), "seed {seed}");
        assert!(found >= 0.97 * best, "seed {seed}: {found} of {best}");
    }
}

#[test]
fn columns_that_crowd_each_other_out_are_dealt_to_different_groups() {
    // Large columns side by side: 2:4 loses half of them until they are spread.
    let scores = Array2::from_shape_fn((16, 32), |(r, c)| if c < 16 { 10.0 + ((r * 7 + c) % 5) as f32 } else { 1.0 });
    let order = channel_order(&scores, 2, 4).unwrap();
    let natural: Vec<usize> = (0..32).collect();
    let (before, after) = (retained(&scores, &natural, 2, 4), retained(&scores, &order, 2, 4));
    let all_large: f64 = scores.iter().filter(|s| **s >= 10.0).map(|s| f64::from(*s)).sum();
    assert!((after - all_large).abs() < 1e-6 && before < 0.6 * after, "{before}, {after} of {all_large}");
    assert_eq!(on_threads(1, || channel_order(&scores, 2, 4).unwrap()), order);
}

#[test]
fn where_there_is_nothing_to_choose_the_order_is_natural_and_bad_scores_are_refused() {
    assert_eq!(channel_order(&array![[3., 1., 2., 4.]], 2, 4).unwrap(), [0, 1, 2, 3]);
    assert_eq!(channel_order(&array![[3., 1., 2., 4.]], 2, 2).unwrap(), [0, 1, 2, 3]);
    let text = channel_order(&array![[1., -1.]], 1, 2).unwrap_err().to_string();
    assert!(text.starts_with("scores of channels: -1 at row 0, column 1"), "{text}");
    assert!(channel_order(&array![[1., 1., 1.]], 1, 2).unwrap_err().to_string().contains("2 does not divide the 3 inputs"));
}
