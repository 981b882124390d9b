use crate::common::*;
use lacuna::criteria::{Evidence, Magnitude, Measured, Need, Needs, Wanda};
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::quantize::AffineGrid;
use lacuna::solve::{Order, Pruner, Reconstruct, Scored, Solver, SparseGpt, squared_error};
use ndarray::{Array2, Axis, array, s};

const NM: Pattern = Pattern::Nm { n: 2, m: 4 };

fn narrow(block: usize) -> SparseGpt {
    SparseGpt { block, ..SparseGpt::default() }
}

#[test]
fn masks_and_weights_are_those_of_the_published_steps() {
    let golden = Golden::read();
    let layer = golden.layer();
    let ordered = SparseGpt { order: Order::Activation, ..narrow(32) };
    let rounded = SparseGpt { grid: Some(AffineGrid::new(4)), ..narrow(32) };
    for (case, pruner, pattern, sparsity) in [
        ("sparsegpt 50", narrow(32), Pattern::Unstructured, 0.5),
        ("sparsegpt 70", narrow(32), Pattern::Unstructured, 0.7),
        ("sparsegpt 2:4", narrow(32), NM, 0.5),
        ("sparsegpt 50 actorder", ordered, Pattern::Unstructured, 0.5),
        ("sparsegpt 50 4 bits", rounded, Pattern::Unstructured, 0.5),
    ] {
        let pruned = layer.prune(&pruner, pattern, sparsity).unwrap();
        assert_eq!(pruned.mask.xor(&golden.mask(case)).kept(), 0, "{case}: masks differ");
        let off = distance(&pruned.weight, &golden.weight(case));
        assert!(off < 2e-5, "{case}: weights differ by {off}");
    }
}

#[test]
fn wanda_masks_are_those_of_the_published_steps() {
    let golden = Golden::read();
    let layer = golden.layer();
    let pruned = layer.prune_in(&Scored(&Wanda), Pattern::Unstructured, Scope::Row, 0.5).unwrap();
    assert_eq!(pruned.mask.xor(&golden.mask("wanda 50")).kept(), 0);
    assert_eq!(pruned.weight, pruned.mask.applied(&layer.weight));
}

#[test]
fn of_eight_weights_it_loses_no_less_than_the_best_mask_and_far_less_than_magnitude() {
    let (mut best, mut found, mut magnitude) = (0.0, 0.0, 0.0);
    for seed in 0..30 {
        let layer = Layer::random(2, 8, 40, seed);
        let pruner = SparseGpt { damping: 0.0, ..SparseGpt::default() };
        let pruned = layer.prune_in(&pruner, Pattern::Unstructured, Scope::Row, 0.5).unwrap();
        let least: f64 = layer.weight.rows().into_iter().map(|w| best_row(&wide(w), 4, layer.gram(), |_| true)).sum();
        let loss = pruned.loss.unwrap();
        assert!(loss >= least * (1.0 - 1e-5), "seed {seed}: {loss} is less than the least, {least}");
        best += least;
        found += loss;
        magnitude +=
            layer.prune_in(&Scored(&Magnitude::default()), Pattern::Unstructured, Scope::Row, 0.5).unwrap().loss.unwrap();
    }
    assert!(found < 2.0 * best && 1.5 * found < magnitude, "best {best}, sparsegpt {found}, magnitude {magnitude}");
}

#[test]
fn where_all_that_goes_stands_left_of_what_stays_the_update_is_exact_least_squares() {
    let mut layer = Layer::random(5, 24, 100, 3);
    layer.weight.slice_mut(s![.., ..9]).mapv_inplace(|w| w * 1e-3);
    let budget = keep(5 * 15, 5 * 24);
    let pruner = SparseGpt { damping: 1e-3, ..SparseGpt::default() };
    let pruned = pruner.prune(&layer.evidence(), Pattern::Unstructured, Scope::Row, budget).unwrap();
    assert_eq!(pruned.mask, Mask::from_fn(5, 24, |_, c| c >= 9));
    let exact = Reconstruct { damping: 1e-3, solver: Solver::Exact }.run(&layer.evidence(), &pruned.mask, &layer.weight).unwrap();
    assert!(distance(&pruned.weight, &exact) < 1e-5, "{}", distance(&pruned.weight, &exact));
}

#[test]
fn inputs_that_know_nothing_of_each_other_leave_wanda_s_mask_and_unmoved_weights() {
    let weight = Layer::random(6, 40, 1, 5).weight;
    let gram = Array2::from_diag(&ndarray::Array1::from_shape_fn(40, |i| 1.0 + i as f64));
    let layer = Layer { weight, measured: Measured { tokens: 64, gram: Some(gram), ..Measured::default() } };
    let sparse = layer.prune(&SparseGpt { damping: 0.0, ..SparseGpt::default() }, Pattern::Unstructured, 0.6).unwrap();
    let wanda = layer.prune(&Scored(&Wanda), Pattern::Unstructured, 0.6).unwrap();
    assert_eq!(sparse, wanda);
}

#[test]
fn every_pattern_is_met_exactly_with_a_short_last_block() {
    // 3 · 128 + 48 columns.
    let layer = Layer::random(8, 432, 500, 7);
    let blocks = |rows, cols| Pattern::Block { rows, cols };
    let nm = |n, m| Pattern::Nm { n, m };
    for pattern in [Pattern::Unstructured, NM, nm(4, 8), nm(1, 4), blocks(4, 1), blocks(1, 8), blocks(8, 6), Pattern::Cols] {
        for sparsity in [0.0, 0.31, 0.5, 0.9] {
            let budget = pattern.budget(8, 432, sparsity).unwrap();
            let pruned = layer.prune(&SparseGpt::default(), pattern, sparsity).unwrap();
            pattern.check(&pruned.mask).unwrap();
            let (r, c) = if let Pattern::Block { rows, cols } = pattern { (rows, cols) } else { (1, 1) };
            let (r, c) = if pattern == Pattern::Cols { (8, 1) } else { (r, c) };
            assert_eq!(pruned.mask.kept(), budget.keep() * r * c, "{pattern} at {sparsity}");
            assert!(pruned.mask.not().iter_kept().all(|at| pruned.weight[at] == 0.0));
            let error = squared_error(&pruned.weight, &layer.weight, layer.gram());
            assert_eq!(pruned.loss, Some(error));
            if sparsity == 0.0 && !matches!(pattern, Pattern::Nm { .. }) {
                assert_eq!(pruned.weight, layer.weight, "nothing goes, nothing moves");
            } else {
                let unmoved = squared_error(&pruned.mask.applied(&layer.weight), &layer.weight, layer.gram());
                assert!(error < unmoved, "{pattern} at {sparsity}: {error} is not below {unmoved}");
            }
        }
    }
}

#[test]
fn rows_of_row_scope_keep_the_same_number() {
    let layer = Layer::random(7, 300, 400, 9);
    let pruned = layer.prune_in(&SparseGpt::default(), Pattern::Unstructured, Scope::Row, 0.5).unwrap();
    assert_eq!(pruned.mask.row_counts(), [150; 7]);
}

#[test]
fn by_activation_is_the_same_as_permuting_the_inputs_first() {
    let layer = Layer::random(6, 50, 90, 11);
    let mut order: Vec<usize> = (0..50).collect();
    order.sort_by(|&a, &b| layer.gram()[[b, b]].total_cmp(&layer.gram()[[a, a]]));
    let permuted = Layer {
        weight: layer.weight.select(Axis(1), &order),
        measured: Measured { gram: Some(layer.gram().select(Axis(0), &order).select(Axis(1), &order)), ..layer.measured.clone() },
    };
    let ordered = layer.prune(&SparseGpt { order: Order::Activation, ..narrow(16) }, Pattern::Unstructured, 0.5).unwrap();
    let natural = permuted.prune(&narrow(16), Pattern::Unstructured, 0.5).unwrap();
    assert_eq!(ordered.weight.select(Axis(1), &order), natural.weight);
    assert_eq!(ordered.mask.kept(), 150);
    let error = Layer::random(6, 52, 90, 11).prune(&SparseGpt { order: Order::Activation, ..narrow(16) }, NM, 0.5).unwrap_err();
    assert_eq!(error.to_string(), "order: by activation it would tear apart the groups of 4 columns of pattern 2:4");
}

#[test]
fn on_a_grid_every_weight_is_one_of_its_values_and_the_error_of_rounding_is_made_up_for() {
    let layer = Layer::random(6, 64, 200, 13);
    for bits in [2, 3, 4] {
        let grid = AffineGrid::new(bits);
        let joint = layer.prune(&SparseGpt { grid: Some(grid), ..SparseGpt::default() }, Pattern::Unstructured, 0.5).unwrap();
        let grids = grid.fit(&layer.weight).unwrap();
        assert_eq!(grids.rounded(&joint.weight), joint.weight, "{bits} bits");
        let after = grids.rounded(&layer.prune(&SparseGpt::default(), Pattern::Unstructured, 0.5).unwrap().weight);
        let after = squared_error(&after, &layer.weight, layer.gram());
        assert!(joint.loss.unwrap() < after, "{bits} bits: {} is not below {after}", joint.loss.unwrap());
    }
}

#[test]
fn a_grid_about_zero_is_as_wide_on_both_sides_whatever_the_signs_of_a_row() {
    // 4 bits: steps of 2 · 3.75 / 15 = 0.5, values from −4 to 3.5.
    let weight = array![[3.75, 1.2, 0.0, 0.1], [-3.75, 1.2, 0.0, 0.1], [3.75, -1.2, 0.0, 3.3]];
    let grids = AffineGrid { bits: 4, symmetric: true }.fit(&weight).unwrap();
    assert_eq!(grids.rounded(&weight), array![[3.5, 1.0, 0.0, 0.0], [-4.0, 1.0, 0.0, 0.0], [3.5, -1.0, 0.0, 3.5]]);
    let wide = array![[3e38, -3e38]];
    let off = AffineGrid::new(2).fit(&wide).unwrap().rounded(&wide) - &wide;
    assert!(off.iter().all(|d| d.abs() < 1.1e38), "{off}");
}

#[test]
fn what_an_older_mask_dropped_stays_dropped_and_counts_as_dropped() {
    let layer = Layer::random(4, 32, 100, 15);
    let old = Mask::from_fn(4, 32, |r, c| (r + c) % 3 != 0);
    for pattern in [Pattern::Unstructured, NM, Pattern::Block { rows: 2, cols: 1 }] {
        let evidence = Evidence { mask: Some(&old), ..layer.evidence() };
        let budget = pattern.budget(4, 32, 0.5).unwrap();
        let pruned = SparseGpt::default().prune(&evidence, pattern, Scope::Layer, budget).unwrap();
        assert!(pruned.mask.is_subset_of(&old), "{pattern}");
        if pattern == Pattern::Unstructured {
            assert_eq!(pruned.mask.kept(), 64);
        }
    }
}

#[test]
fn dead_inputs_go_to_nothing_and_change_nothing_else() {
    let mut x = Layer::random(3, 20, 1, 17).weight;
    x = ndarray::concatenate![Axis(0), x, Layer::random(57, 20, 1, 18).weight];
    x.column_mut(4).fill(0.0);
    x.column_mut(19).fill(0.0);
    let layer = Layer::new(Layer::random(5, 20, 1, 19).weight, &x);
    let pruned = layer.prune(&SparseGpt::default(), Pattern::Unstructured, 0.5).unwrap();
    assert!(pruned.weight.column(4).iter().chain(pruned.weight.column(19)).all(|w| *w == 0.0));
    let mut other = Layer::new(layer.weight.clone(), &x);
    other.weight.column_mut(4).fill(100.0);
    assert_eq!(other.prune(&SparseGpt::default(), Pattern::Unstructured, 0.5).unwrap().weight, pruned.weight);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let layer = Layer::random(70, 300, 400, 21);
    for pattern in [Pattern::Unstructured, NM] {
        let run = || layer.prune(&SparseGpt::default(), pattern, 0.5).unwrap();
        assert_eq!(on_threads(1, run), on_threads(2, run));
    }
}

#[test]
fn a_singular_gram_matrix_is_an_error_that_says_which_layer_how_many_tokens_and_what_would_help() {
    let layer = Layer::random(4, 40, 12, 23);
    let error = layer.prune(&SparseGpt { damping: 0.0, ..SparseGpt::default() }, Pattern::Unstructured, 0.5).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("layer blocks.3.o: Gram matrix: the 40 x 40 matrix is not positive definite (at column "), "{text}");
    let help = "12 tokens, damping 0 of the mean diagonal: give at least 40 tokens, or a damping above 0.001";
    assert!(text.ends_with(help), "{text}");
    layer.prune(&SparseGpt::default(), Pattern::Unstructured, 0.5).unwrap();
}

#[test]
fn what_cannot_be_done_is_said_with_the_numbers() {
    let layer = Layer::random(4, 40, 60, 25);
    let fail = |pruner: SparseGpt, pattern: Pattern| layer.prune(&pruner, pattern, 0.5).unwrap_err().to_string();
    let default = SparseGpt::default();
    assert!(fail(SparseGpt { damping: -0.1, ..default }, NM).starts_with("damping: -0.1 is not a finite number"));
    assert!(fail(SparseGpt { damping: f64::NAN, ..default }, NM).starts_with("damping: NaN"));
    assert!(fail(SparseGpt { block: 0, ..default }, NM).starts_with("block: 0 columns"));
    assert!(fail(default, Pattern::Rows).starts_with("pattern: sparsegpt moves weights along a row"));
    assert!(fail(SparseGpt { grid: Some(AffineGrid::new(17)), ..default }, NM).starts_with("bits: 17 is not 1 to 16"));

    let over = default.prune(&layer.evidence(), Pattern::Unstructured, Scope::Layer, keep(3, 9)).unwrap_err();
    assert!(over.to_string().ends_with("a 4 x 40 matrix has 160 units of pattern unstructured"), "{over}");
    let nm = default.prune(&layer.evidence(), NM, Scope::Layer, keep(81, 160)).unwrap_err();
    assert!(nm.to_string().ends_with("pattern 2:4 keeps exactly 80"), "{nm}");

    let missing = default.prune(&Evidence::weight_only("fc1", &layer.weight), NM, Scope::Layer, keep(80, 160)).unwrap_err();
    assert_eq!(missing.to_string(), "sparsegpt needs the Gram matrix of the inputs of layer fc1, which was not measured");
    assert_eq!(default.needs(), Needs::none().and(Need::Gram));

    let with = |gram: Array2<f64>| Layer {
        weight: array![[1., 2.]],
        measured: Measured { tokens: 3, gram: Some(gram), ..Measured::default() },
    };
    let fail = |gram| with(gram).prune(&default, Pattern::Unstructured, 0.5).unwrap_err().to_string();
    assert!(fail(array![[1., f64::NAN], [0., 1.]]).starts_with("the Gram matrix of the inputs: NaN at row 0, column 1"));
    assert!(fail(array![[0., 0.], [0., 0.]]).ends_with("all 2 inputs are 0 in all 3 tokens; calibrate with other data"));
    assert!(fail(array![[1., 0.], [0., -1.]]).contains("sums of squares are not negative"));
    assert!(
        fail(Array2::eye(3)).starts_with("layer blocks.3.o: the Gram matrix of the inputs: expected shape [2, 2], found [3, 3]")
    );
    let infinite = Layer { weight: array![[1., f32::INFINITY]], measured: with(Array2::eye(2)).measured };
    let text = infinite.prune(&default, Pattern::Unstructured, 0.5).unwrap_err().to_string();
    assert!(text.starts_with("weights: inf at row 0, column 1"), "{text}");
}
