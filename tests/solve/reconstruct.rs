use crate::close::assert_close;
use crate::common::*;
use lacuna::criteria::{Magnitude, Need, Wanda};
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::solve::{Pruner, Reconstruct, Reconstructed, Scored, Solver, SparseGpt, squared_error};
use ndarray::{Array2, aview1};

const EXACT: Reconstruct = Reconstruct { damping: 0.0, solver: Solver::Exact };

fn gradients(steps: usize, tolerance: f64) -> Reconstruct {
    Reconstruct { damping: 0.0, solver: Solver::Gradients { steps, tolerance } }
}

fn half(layer: &Layer) -> Mask {
    layer.prune_in(&Scored(&Wanda), Pattern::Unstructured, Scope::Row, 0.5).unwrap().mask
}

#[test]
fn every_row_is_the_least_squares_solution_on_its_support() {
    let layer = Layer::random(6, 30, 100, 31);
    // Rows of every number of weights, nothing and all among them.
    let mask = Mask::from_fn(6, 30, |r, c| c % 5 < r || r == 5);
    let solved = EXACT.run(&layer.evidence(), &mask, &layer.weight).unwrap();
    for (r, row) in solved.rows().into_iter().enumerate() {
        let support: Vec<usize> = mask.row_indices(r).collect();
        let expected = least_squares(&wide(layer.weight.row(r)), &support, layer.gram());
        assert_close(&row.mapv(f64::from), &aview1(&expected), 1e-6f64.next_down(), format!("row {r}"));
    }
    assert_eq!(solved.row(0).sum(), 0.0);
    assert!(distance(&solved, &layer.weight) > 0.1);
}

#[test]
fn conjugate_gradients_come_to_the_exact_solution_and_every_step_is_no_worse() {
    let layer = Layer::random(9, 60, 200, 33);
    let mask = half(&layer);
    let exact = EXACT.run(&layer.evidence(), &mask, &layer.weight).unwrap();
    let close = gradients(200, 1e-7).run(&layer.evidence(), &mask, &layer.weight).unwrap();
    assert!(distance(&close, &exact) < 1e-4, "{}", distance(&close, &exact));
    let mut last = squared_error(&mask.applied(&layer.weight), &layer.weight, layer.gram());
    for steps in [1, 2, 4, 8, 16, 32] {
        let now = gradients(steps, 0.0).run(&layer.evidence(), &mask, &layer.weight).unwrap();
        let now = squared_error(&now, &layer.weight, layer.gram());
        assert!(now <= last * (1.0 + 1e-6), "{steps} steps: {now} after {last}");
        last = now;
    }
    let least = squared_error(&exact, &layer.weight, layer.gram());
    assert!(last < least * 1.001 && last >= least * (1.0 - 1e-5), "{last} and {least}");
}

#[test]
fn no_steps_leave_the_start_under_the_mask() {
    let layer = Layer::random(4, 20, 50, 35);
    let mask = half(&layer);
    let start = layer.weight.mapv(|w| w + 1.0);
    let same = gradients(0, 0.0).run(&layer.evidence(), &mask, &start).unwrap();
    assert!(distance(&same, &mask.applied(&start)) < 1e-6);
}

#[test]
fn after_any_pruner_the_mask_stays_and_the_error_falls() {
    let layer = Layer::random(12, 80, 300, 37);
    let magnitude = Magnitude::default();
    let (magnitude, wanda, sparse) = (Scored(&magnitude), Scored(&Wanda), SparseGpt::default());
    for pruner in [&magnitude as &dyn Pruner, &wanda, &sparse] {
        for pattern in [Pattern::Unstructured, Pattern::Nm { n: 2, m: 4 }] {
            for reconstruct in [EXACT, gradients(50, 1e-6)] {
                let both = Reconstructed::new(pruner, reconstruct);
                let (before, after) = (layer.prune(pruner, pattern, 0.5).unwrap(), layer.prune(&both, pattern, 0.5).unwrap());
                assert_eq!(before.mask, after.mask);
                assert!(after.loss.unwrap() < before.loss.unwrap(), "{}", both.name());
                assert!(both.needs().contains(Need::Gram));
            }
        }
    }
}

#[test]
fn what_is_kept_whole_does_not_move_and_damping_draws_to_the_dense_weight() {
    let layer = Layer::random(5, 16, 60, 39);
    let full = Mask::full(5, 16);
    for damping in [0.0, 0.01, 10.0] {
        let solved = Reconstruct { damping, ..EXACT }.run(&layer.evidence(), &full, &layer.weight).unwrap();
        assert!(distance(&solved, &layer.weight) < 1e-4, "damping {damping}");
    }
    let mask = half(&layer);
    let stiff = Reconstruct { damping: 1e6, ..EXACT }.run(&layer.evidence(), &mask, &layer.weight).unwrap();
    assert!(distance(&stiff, &mask.applied(&layer.weight)) < 1e-3);
}

#[test]
fn dead_inputs_get_no_weight_from_either_solver() {
    let mut layer = Layer::random(3, 10, 50, 41);
    let gram = layer.measured.gram.as_mut().unwrap();
    gram.row_mut(2).fill(0.0);
    gram.column_mut(2).fill(0.0);
    let full = Mask::full(3, 10);
    for solver in [EXACT, gradients(30, 1e-6)] {
        let solved = solver.run(&layer.evidence(), &full, &layer.weight).unwrap();
        assert!(solved.column(2).iter().all(|w| *w == 0.0), "{solver:?}");
    }
}

#[test]
fn an_error_that_cannot_be_measured_is_nan_and_not_none() {
    let mut layer = Layer::random(3, 10, 50, 47);
    let gram = layer.measured.gram.as_mut().unwrap();
    (gram[[2, 3]], gram[[3, 2]]) = (f64::NAN, f64::NAN);
    let pruned = layer.prune(&Scored(&Magnitude::default()), Pattern::Unstructured, 0.5).unwrap();
    assert!(pruned.loss.unwrap().is_nan(), "{:?}", pruned.loss);
    assert_eq!(squared_error(&layer.weight, &layer.weight, &Array2::eye(10)), 0.0);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let layer = Layer::random(40, 90, 200, 43);
    let mask = half(&layer);
    for solver in [EXACT, gradients(20, 1e-6)] {
        let run = || solver.run(&layer.evidence(), &mask, &layer.weight).unwrap();
        assert_eq!(on_threads(1, run), on_threads(2, run));
    }
}

#[test]
fn singular_blocks_and_shapes_that_do_not_fit_are_errors_with_the_numbers() {
    let layer = Layer::random(3, 40, 10, 45);
    let error = EXACT.run(&layer.evidence(), &half(&layer), &layer.weight).unwrap_err().to_string();
    assert!(error.starts_with("layer blocks.3.o: Gram matrix: the 20 x 20 matrix is not positive definite"), "{error}");
    assert!(error.contains("10 tokens, damping 0 of the mean diagonal"), "{error}");
    let error = EXACT.run(&layer.evidence(), &Mask::full(3, 41), &layer.weight).unwrap_err().to_string();
    assert_eq!(error, "layer blocks.3.o: mask and weights to reconstruct: expected shape [3, 40], found [3, 41]");
    let error = EXACT.run(&layer.evidence(), &Mask::full(3, 40), &Array2::zeros((2, 40))).unwrap_err().to_string();
    assert!(error.ends_with("expected shape [3, 40], found [2, 40]"), "{error}");
    let error = gradients(3, f64::NAN).run(&layer.evidence(), &half(&layer), &layer.weight).unwrap_err().to_string();
    assert_eq!(error, "tolerance: NaN is not a finite number of at least 0; 1e-5 is usual");
}
