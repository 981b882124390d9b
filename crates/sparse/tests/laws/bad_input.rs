//! Input that is no usual number, or of no usual shape: what must not spread does not, in any storage of any numbers, and what does not fit
//! panics with both shapes.

use crate::patterned::{in_every_pattern, masked};
use crate::storages::in_every_tiling;
use crate::{in_every_format, masks, oracle, random_mask, whole};
use half::{bf16, f16};
use lacuna_sparse::mask::{Mask, Pattern};
use lacuna_sparse::storage::{
    Bitmask, Bsr, Compress, Csr, Dense, Epilogue, Expand, Hint, LinearOp, Nm, Plan, Scaling, TileCsr, TilePairs,
};
use lacuna_sparse::storage::{apply, apply_transpose};
use ndarray::{Array2, ArrayRef2};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bad numbers at every third input of every second token reach the outputs whose rows keep such an input, and no others.
fn bad_inputs_stay_where_they_are_kept(name: &str, w: &ArrayRef2<f32>, mask: &Mask, op: &dyn LinearOp) {
    let stored = op.to_dense();
    assert_eq!(w.dim(), stored.dim());
    for (bad, tokens) in [(f32::NAN, 1), (f32::INFINITY, 2), (f32::NEG_INFINITY, 4), (f32::NAN, 20)] {
        let poisoned = |t: usize, i: usize| t % 2 == 0 && i % 3 == 0;
        let clean = whole(tokens, mask.cols(), 8, "input");
        let x = Array2::from_shape_fn(clean.dim(), |at| if poisoned(at.0, at.1) { bad } else { clean[at] });
        let (expected, size) = (oracle(&stored, mask, &clean), oracle(&stored.mapv(f32::abs), mask, &clean.mapv(f32::abs)));
        for ((t, o), &y) in apply(op, &x).indexed_iter() {
            let case = format!("{name}, {bad} in token {t} of {tokens}, output {o}");
            if mask.row_indices(o).any(|i| poisoned(t, i)) {
                assert!(!y.is_finite(), "{case}: {y} hides what it was made of");
            } else {
                // Sums of a row's numbers, each at most 2^-20 of their size off.
                let off = (f64::from(y) - expected[[t, o]]).abs();
                assert!(off <= size[[t, o]] * 2f64.powi(-20), "{case}: {y} for {}", expected[[t, o]]);
            }
        }
    }
}

fn in_numbers_of<T: Expand>() {
    let never_zero = |rows: usize, cols: usize| whole(rows, cols, 4, "weight").mapv(|w| if w == 0.0 { 1.0 } else { w });
    for (rows, cols) in [(3, 5), (17, 33), (40, 200)] {
        let w = never_zero(rows, cols);
        for (name, mask) in masks(rows, cols) {
            in_every_tiling::<T>(&w, &mask, |format, op, _| {
                bad_inputs_stay_where_they_are_kept(&format!("{format}, {rows} x {cols}, {name}"), &w, &mask, op);
            });
        }
    }
    in_every_pattern::<T>(never_zero, bad_inputs_stay_where_they_are_kept);
}

#[test]
fn no_kind_of_numbers_lets_infinities_and_nans_through_where_it_drops() {
    in_numbers_of::<bf16>();
    in_numbers_of::<f16>();
    in_numbers_of::<i8>();
}

#[test]
fn a_kept_weight_that_is_no_number_reaches_the_outputs_of_its_row_and_a_dropped_one_none() {
    for bad in [f32::NAN, f32::INFINITY] {
        for (rows, cols) in [(3, 5), (17, 33), (64, 130)] {
            let mask = random_mask(rows, cols, 0.5);
            let (kept, dropped) = (mask.iter_kept().nth(3).unwrap(), mask.not().iter_kept().nth(2).unwrap());
            let clean = whole(rows, cols, 4, "weight");
            let mut w = clean.clone();
            (w[kept], w[dropped]) = (bad, bad);
            in_every_format(&w, &mask, |format, op| {
                for tokens in [1, 2, 4, 20] {
                    let x = whole(tokens, cols, 8, "input").mapv(|x| if x == 0.0 { 1.0 } else { x });
                    let expected = oracle(&clean, &mask, &x);
                    for ((t, o), &y) in apply(op, &x).indexed_iter() {
                        let case = format!("{format}, {rows} x {cols}, {bad}, token {t} of {tokens}, output {o}");
                        if o == kept.0 {
                            assert!(!y.is_finite(), "{case}: {y}");
                        } else {
                            assert_eq!(f64::from(y), expected[[t, o]], "{case}");
                        }
                    }
                }
            });
        }
    }
}

#[test]
fn rows_and_columns_that_keep_nothing_give_zeros_and_what_is_added_to_them() {
    let mask = Mask::from_fn(70, 200, |r, c| r % 7 == 3 && c % 5 == 1);
    let w = whole(70, 200, 4, "weight");
    let bias: Vec<f32> = (0..70).map(|r| r as f32).collect();
    in_every_format(&w, &mask, |format, op| {
        for tokens in [1, 4, 33] {
            let x = whole(tokens, 200, 8, "input");
            let expected = oracle(&w, &mask, &x);
            let mut y = Array2::from_elem((tokens, 70), f32::NAN);
            op.apply_with(&x, &mut y, &Epilogue { bias: Some(&bias), ..Epilogue::default() });
            for ((t, o), &y) in y.indexed_iter() {
                assert_eq!(f64::from(y), expected[[t, o]] + o as f64, "{format}, token {t} of {tokens}, output {o}");
            }
            let dx = apply_transpose(op, &whole(tokens, 70, 8, "gradient"));
            assert!(dx.indexed_iter().all(|((_, c), &d)| c % 5 == 1 || d == 0.0), "{format}, {tokens} tokens back");
        }
    });
}

/// 6 x 8 in every storage, and the plan.
fn every_storage() -> Vec<Box<dyn LinearOp>> {
    let (w, mask) = (whole(6, 8, 4, "weight"), masked(Pattern::Nm { n: 2, m: 4 }, 6, 8, 0.0));
    let blocks = Mask::from_fn(6, 8, |r, c| (r / 2 + c / 2) % 2 == 0);
    vec![
        Box::new(Dense::compress(&w, &mask).unwrap()),
        Box::new(Csr::compress(&w, &mask).unwrap()),
        Box::new(TileCsr::<bf16>::compress(&w, &mask).unwrap()),
        Box::new(TilePairs::<f32>::with_tile(&w, &mask, 64, Scaling::Row).unwrap()),
        Box::new(Bitmask::<i8>::compress(&w, &mask).unwrap()),
        Box::new(Nm::<f16>::with_pattern(&w, &mask, 2, 4).unwrap()),
        Box::new(Nm::<i8>::with_groups(&w, &mask, (2, 4), 64).unwrap()),
        Box::new(Bsr::<i8>::with_groups(&w, &blocks, (2, 2), 4).unwrap()),
        Box::new(Plan::new(&w, &mask, Hint::tokens(16)).unwrap()),
    ]
}

/// What a call panics with.
fn panics(call: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("nothing panicked");
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap_or(&"?").to_string())
}

#[test]
fn shapes_that_do_not_fit_panic_with_both_in_every_storage() {
    for op in every_storage() {
        let op = op.as_ref();
        let name = op.format();
        let product = |x: (usize, usize), y: (usize, usize)| panics(|| op.apply_into(&Array2::zeros(x), &mut Array2::zeros(y)));
        for (x, y) in
            [((2, 7), (2, 6)), ((2, 9), (2, 6)), ((1, 8), (1, 5)), ((1, 8), (2, 6)), ((40, 8), (39, 6)), ((0, 7), (0, 6))]
        {
            assert_eq!(product(x, y), format!("{name} 6 x 8: x {x:?}, y {y:?}"));
        }
        let back = |dy: (usize, usize), dx: (usize, usize)| {
            panics(|| op.apply_transpose_into(&Array2::zeros(dy), &mut Array2::zeros(dx)))
        };
        for (dy, dx) in [((2, 7), (2, 8)), ((2, 6), (2, 9)), ((2, 6), (3, 8)), ((0, 6), (0, 7))] {
            assert_eq!(back(dy, dx), format!("{name} 6 x 8: dy {dy:?}, dx {dx:?}"));
        }
        let biased = |bias: &[f32]| {
            let epilogue = Epilogue { bias: Some(bias), ..Epilogue::default() };
            panics(|| op.apply_with(&Array2::zeros((2, 8)), &mut Array2::zeros((2, 6)), &epilogue))
        };
        assert_eq!(biased(&[0.0; 5]), format!("{name} 6 x 8: a bias of 5"));
        assert_eq!(biased(&[0.0; 8]), format!("{name} 6 x 8: a bias of 8"));
    }
}
