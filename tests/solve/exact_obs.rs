use crate::close::assert_close;
use crate::common::*;
use lacuna::criteria::Evidence;
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::solve::{ExactObs, Pruner, SparseGpt, squared_error};
use ndarray::{Array2, aview1};

const PLAIN: ExactObs = ExactObs { damping: 0.0 };
const NM: Pattern = Pattern::Nm { n: 2, m: 4 };

#[test]
fn after_each_removal_the_row_is_the_exact_least_squares_solution_and_losses_sum_to_the_error() {
    let layer = Layer::random(3, 40, 100, 51);
    for row in 0..3 {
        let w = wide(layer.weight.row(row));
        let trace = PLAIN.trace(&layer.evidence(), row, 40).unwrap();
        let mut support: Vec<usize> = (0..40).collect();
        let mut sum = 0.0;
        for ((gone, loss), found) in trace.removed.iter().zip(&trace.losses).zip(&trace.weights) {
            support.retain(|c| c != gone);
            let exact = least_squares(&w, &support, layer.gram());
            let case = format!("row {row}, {} left", support.len());
            assert_close(&aview1(found), &aview1(&exact), 1e-8f64.next_down(), case);
            sum += loss;
            let error = row_error(found, &w, layer.gram());
            assert!((sum - error).abs() < 1e-8 * error.max(1.0), "row {row}, {} left: {sum} and {error}", support.len());
        }
        assert!(support.is_empty());
    }
}

#[test]
fn each_removal_is_the_cheapest_of_all_that_are_left() {
    let layer = Layer::random(1, 12, 40, 53);
    let w = wide(layer.weight.row(0));
    let trace = PLAIN.trace(&layer.evidence(), 0, 11).unwrap();
    let mut support: Vec<usize> = (0..12).collect();
    for gone in trace.removed {
        let without = |c: usize| -> Vec<usize> { support.iter().copied().filter(|s| *s != c).collect() };
        let error = |c: usize| row_error(&least_squares(&w, &without(c), layer.gram()), &w, layer.gram());
        let cheapest = support.iter().copied().min_by(|&a, &b| error(a).total_cmp(&error(b))).unwrap();
        assert_eq!(gone, cheapest);
        support = without(gone);
    }
}

#[test]
fn of_twelve_weights_it_loses_no_less_than_the_best_of_all_masks_and_little_more() {
    for (pattern, allowed) in
        [(Pattern::Unstructured, (|_| true) as fn(u32) -> bool), (NM, |m| (0..3).all(|g| (m >> (4 * g) & 15).count_ones() == 2))]
    {
        let (mut best, mut found) = (0.0, 0.0);
        for seed in 0..8 {
            let layer = Layer::random(1, 12, 40, seed);
            let least = best_row(&wide(layer.weight.row(0)), 6, layer.gram(), allowed);
            let loss = layer.prune(&PLAIN, pattern, 0.5).unwrap().loss.unwrap();
            assert!(loss >= least * (1.0 - 1e-5), "{pattern}, seed {seed}: {loss} is less than the least, {least}");
            best += least;
            found += loss;
        }
        assert!(found < 1.3 * best, "{pattern}: {found} where {best} is possible");
    }
}

#[test]
fn masks_and_weights_are_those_of_the_published_steps() {
    let golden = Golden::read();
    let layer = golden.layer();
    for (case, pattern) in [("obc 50", Pattern::Unstructured), ("obc 2:4", NM)] {
        let pruned = layer.prune(&ExactObs::default(), pattern, 0.5).unwrap();
        let off = distance(&pruned.weight, &golden.weight(case));
        assert!(off < 1e-5, "{case}: weights differ by {off}");
        // The dead input's weights are 0 either way.
        let differ = pruned.mask.xor(&golden.mask(case));
        assert!(differ.iter_kept().all(|(_, c)| c == 11), "{case}: masks differ");
    }
}

#[test]
fn over_the_layer_rows_keep_what_they_need_and_lose_less_than_equal_rows() {
    let mut layer = Layer::random(6, 30, 90, 55);
    layer.weight.row_mut(0).mapv_inplace(|w| 5.0 * w);
    let whole = layer.prune_in(&PLAIN, Pattern::Unstructured, Scope::Layer, 0.5).unwrap();
    let equal = layer.prune_in(&PLAIN, Pattern::Unstructured, Scope::Row, 0.5).unwrap();
    assert_eq!((whole.mask.kept(), equal.mask.row_counts()), (90, vec![15; 6]));
    assert!(whole.mask.row_counts()[0] > 20, "{:?}", whole.mask.row_counts());
    assert!(whole.loss.unwrap() < equal.loss.unwrap());
}

#[test]
fn every_pattern_is_met_exactly_and_loses_less_than_sparsegpt() {
    let layer = Layer::random(8, 48, 150, 57);
    let block = |rows, cols| Pattern::Block { rows, cols };
    for pattern in [Pattern::Unstructured, NM, Pattern::Nm { n: 1, m: 4 }, block(1, 4), block(4, 1), block(2, 6), Pattern::Cols] {
        let budget = pattern.budget(8, 48, 0.5).unwrap();
        let pruned = layer.prune(&ExactObs::default(), pattern, 0.5).unwrap();
        pattern.check(&pruned.mask).unwrap();
        let size = match pattern {
            Pattern::Block { rows, cols } => rows * cols,
            Pattern::Cols => 8,
            _ => 1,
        };
        assert_eq!(pruned.mask.kept(), budget.keep() * size, "{pattern}");
        assert_eq!(pruned.loss, Some(squared_error(&pruned.weight, &layer.weight, layer.gram())));
        let other = layer.prune(&SparseGpt::default(), pattern, 0.5).unwrap().loss.unwrap();
        assert!(pruned.loss.unwrap() < other, "{pattern}: {} and {other}", pruned.loss.unwrap());
    }
}

#[test]
fn a_block_goes_by_its_exact_increase() {
    // Of four blocks of 3 columns one goes: the one whose removal by least squares costs least.
    let layer = Layer::random(2, 12, 50, 59);
    let pattern = Pattern::Block { rows: 2, cols: 3 };
    let pruned = PLAIN.prune(&layer.evidence(), pattern, Scope::Layer, keep(3, 4)).unwrap();
    let error = |block: usize| -> f64 {
        let support: Vec<usize> = (0..12).filter(|c| c / 3 != block).collect();
        let rows = layer.weight.rows().into_iter().map(wide);
        rows.map(|w| row_error(&least_squares(&w, &support, layer.gram()), &w, layer.gram())).sum()
    };
    let cheapest = (0..4).min_by(|&a, &b| error(a).total_cmp(&error(b))).unwrap();
    assert_eq!(pruned.mask, Mask::from_fn(2, 12, |_, c| c / 3 != cheapest));
    assert!((pruned.loss.unwrap() / error(cheapest) - 1.0).abs() < 1e-5);
}

#[test]
fn what_an_older_mask_dropped_goes_first_and_the_rest_makes_up_for_what_goes_now() {
    let mut layer = Layer::random(4, 24, 80, 61);
    let old = Mask::from_fn(4, 24, |r, c| (r + c) % 4 != 0);
    old.apply(&mut layer.weight);
    for scope in [Scope::Layer, Scope::Row] {
        let evidence = Evidence { mask: Some(&old), ..layer.evidence() };
        let pruned = PLAIN.prune(&evidence, Pattern::Unstructured, scope, keep(48, 96)).unwrap();
        assert!(pruned.mask.is_subset_of(&old) && pruned.mask.kept() == 48);
    }
    let evidence = Evidence { mask: Some(&old), ..layer.evidence() };
    let error = PLAIN.prune(&evidence, Pattern::Block { rows: 1, cols: 2 }, Scope::Layer, keep(24, 48)).unwrap_err();
    assert_eq!(error.to_string(), "mask is not of whole blocks: rows 0..1, columns 0..2 keep 1 of 2");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let layer = Layer::random(9, 40, 100, 63);
    for pattern in [Pattern::Unstructured, NM, Pattern::Block { rows: 2, cols: 4 }] {
        let run = || layer.prune(&ExactObs::default(), pattern, 0.5).unwrap();
        assert_eq!(on_threads(1, run), on_threads(2, run));
    }
}

#[test]
fn what_cannot_be_done_is_said_with_the_numbers() {
    let layer = Layer::random(4, 40, 12, 65);
    let text = layer.prune(&PLAIN, Pattern::Unstructured, 0.5).unwrap_err().to_string();
    assert!(text.starts_with("layer blocks.3.o: Gram matrix: the 40 x 40 matrix is not positive definite"), "{text}");
    let text = layer.prune(&ExactObs::default(), Pattern::Rows, 0.5).unwrap_err().to_string();
    assert!(text.starts_with("pattern: obc makes up for a weight within its row"), "{text}");
    let text = layer.prune(&ExactObs::default(), Pattern::Block { rows: 1, cols: 3 }, 0.5).unwrap_err().to_string();
    assert!(text.ends_with("3 does not divide the 40 inputs"), "{text}");
    let other = Layer { weight: Array2::zeros((4, 39)), measured: layer.measured.clone() };
    assert!(
        other
            .prune(&PLAIN, Pattern::Unstructured, 0.5)
            .unwrap_err()
            .to_string()
            .contains("expected shape [39, 39], found [40, 40]")
    );
}
