use crate::common::*;
use lacuna::criteria::Measured;
use lacuna::linalg::cholesky_of_inverse;
use lacuna::mask::{Mask, Pattern, Scope, select};
use lacuna::solve::{D2Prune, Order, Pruner, SparseGpt};
use ndarray::{Array1, Array2, Axis, s};

const NM: Pattern = Pattern::Nm { n: 2, m: 4 };

fn with(first: f64, second: f64) -> D2Prune {
    D2Prune { first, second, ..D2Prune::default() }
}

#[test]
fn without_deviating_activations_it_is_sparsegpt() {
    let layer = Layer::random(6, 160, 300, 1);
    for pattern in [Pattern::Unstructured, NM, Pattern::Block { rows: 1, cols: 4 }, Pattern::Cols] {
        let (own, other) = (layer.prune(&with(0.0, 0.0), pattern, 0.5), layer.prune(&SparseGpt::default(), pattern, 0.5));
        assert_eq!(own.unwrap(), other.unwrap(), "{pattern}");
    }
}

#[test]
fn of_inputs_that_know_nothing_of_each_other_the_score_is_the_formula() {
    let weight = Layer::random(6, 40, 1, 5).weight;
    let squares = Array1::from_shape_fn(40, |i| 1.0 + i as f64);
    let gram = Array2::from_diag(&squares);
    let layer = Layer { weight, measured: Measured { tokens: 64, gram: Some(gram), ..Measured::default() } };
    for (first, second) in [(0.3, 0.0), (2.0, 0.0), (0.0, 0.4), (0.7, 1.5)] {
        let score = Array2::from_shape_fn((6, 40), |(i, j)| {
            let w = |c: usize| f64::from(layer.weight[[i, c]]);
            let output: f64 = (0..40).map(|c| w(c) * w(c) * squares[c]).sum::<f64>().sqrt();
            let (error, moved) = (w(j) * w(j) * squares[j], w(j).abs() * squares[j].sqrt());
            (error + first * output * moved - second * moved * moved) as f32
        });
        let sparsegpt = SparseGpt { damping: 0.0, ..SparseGpt::default() };
        let pruner = D2Prune { sparsegpt, first, second };
        for pattern in [Pattern::Unstructured, NM] {
            let pruned = layer.prune(&pruner, pattern, 0.5).unwrap();
            let budget = pattern.budget(6, 40, 0.5).unwrap();
            assert_eq!(pruned.mask, select(&score, pattern, Scope::Layer, budget).unwrap(), "{first}, {second}, {pattern}");
            assert_eq!(pruned.weight, pruned.mask.applied(&layer.weight), "nothing can make up for anything");
        }
    }
}

/// The published steps on f64, one block of all columns: mask by score, then column after column.
fn plain(layer: &Layer, first: f64, keep: usize) -> (Array2<bool>, Array2<f64>) {
    let mut gram = layer.gram().clone();
    let damping = 0.01 * gram.diag().mean().unwrap();
    let mut w = layer.weight.mapv(f64::from);
    let outputs = (w.dot(&gram) * &w).sum_axis(Axis(1)).mapv(f64::sqrt);
    let inputs = gram.diag().mapv(f64::sqrt);
    gram.diag_mut().mapv_inplace(|d| d + damping);
    let u = cholesky_of_inverse(&gram).unwrap();
    let mut all: Vec<(f64, usize, usize)> = Vec::new();
    for ((i, j), &v) in w.indexed_iter() {
        all.push(((v / u[[j, j]]).powi(2) + first * outputs[i] * v.abs() * inputs[j], i, j));
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut kept = Array2::from_elem(w.dim(), false);
    all[..keep].iter().for_each(|&(_, i, j)| kept[[i, j]] = true);
    for j in 0..w.ncols() {
        for i in 0..w.nrows() {
            let error = if kept[[i, j]] { 0.0 } else { w[[i, j]] / u[[j, j]] };
            w.slice_mut(s![i, j + 1..]).zip_mut_with(&u.slice(s![j, j + 1..]), |w, u| *w -= error * u);
            if !kept[[i, j]] {
                w[[i, j]] = 0.0;
            }
        }
    }
    (kept, w)
}

#[test]
fn masks_and_weights_are_those_of_plain_loops() {
    let layer = Layer::random(7, 60, 200, 3);
    let before = layer.prune(&SparseGpt::default(), Pattern::Unstructured, 0.6).unwrap().mask;
    for first in [1e-3, 0.05, 1.0] {
        let pruned = layer.prune(&with(first, 0.0), Pattern::Unstructured, 0.6).unwrap();
        let (kept, weight) = plain(&layer, first, 168);
        assert_eq!(pruned.mask.xor(&Mask::from_array(&kept)).kept(), 0, "{first}");
        let off = (pruned.weight.mapv(f64::from) - &weight).iter().fold(0.0f64, |a, d| a.max(d.abs()));
        assert!(off < 1e-4, "{first}: weights differ by {off}");
        assert!(first < 0.05 || pruned.mask != before, "{first}: the mask is SparseGPT's");
    }
}

#[test]
fn by_activation_is_the_same_as_permuting_the_inputs_first() {
    let layer = Layer::random(6, 50, 90, 11);
    let mut order: Vec<usize> = (0..50).collect();
    order.sort_by(|&a, &b| layer.gram()[[b, b]].total_cmp(&layer.gram()[[a, a]]));
    let gram = layer.gram().select(Axis(0), &order).select(Axis(1), &order);
    let measured = Measured { gram: Some(gram), ..layer.measured.clone() };
    let permuted = Layer { weight: layer.weight.select(Axis(1), &order), measured };
    let narrow = |order| D2Prune { sparsegpt: SparseGpt { block: 16, order, ..SparseGpt::default() }, ..with(0.3, 0.1) };
    let ordered = layer.prune(&narrow(Order::Activation), Pattern::Unstructured, 0.5).unwrap();
    let natural = permuted.prune(&narrow(Order::Natural), Pattern::Unstructured, 0.5).unwrap();
    // Norms of outputs are summed in another order.
    assert!(distance(&ordered.weight.select(Axis(1), &order), &natural.weight) < 1e-5);
}

#[test]
fn an_older_mask_is_kept_to_and_bad_settings_are_refused() {
    let layer = Layer::random(4, 16, 60, 2);
    let old = Mask::from_fn(4, 16, |r, c| (r + c) % 4 != 0);
    let evidence = lacuna::criteria::Evidence { mask: Some(&old), ..layer.evidence() };
    for pattern in [Pattern::Unstructured, NM] {
        let budget = pattern.budget(4, 16, 0.5).unwrap();
        let pruned = with(0.5, 2.0).prune(&evidence, pattern, Scope::Layer, budget).unwrap();
        assert!(pruned.mask.is_subset_of(&old), "{pattern}");
        assert_eq!(pruned.mask.kept(), 32, "{pattern}");
    }
    for (pruner, says) in [
        (with(-1.0, 0.0), "first: -1 is not a finite number of at least 0"),
        (with(0.0, f64::NAN), "second: NaN is not a finite number of at least 0"),
    ] {
        assert_eq!(layer.prune(&pruner, Pattern::Unstructured, 0.5).unwrap_err().to_string(), says);
    }
}
