//! Transposed products and gradients of masked weights: those of the dense matrices, where the mask keeps.

use crate::close::{assert_close, assert_within};
use crate::patterned::in_every_pattern;
use crate::random::Seed;
use crate::{in_every_format, layouts, masks, oracle, random_mask, whole};
use half::bf16;
use lacuna_sparse::mask::Mask;
use lacuna_sparse::storage::{
    Bitmask, Compress, Csr, Hint, LinearOp, Plan, Scaling, Sell, Slots, TileCsr, TilePairs, apply, apply_transpose,
    weight_gradient,
};
use ndarray::{Array2, ArrayRef2, s};

const TOKENS: [usize; 9] = [0, 1, 3, 4, 15, 17, 40, 64, 150];

/// dX = dY · W over what the mask keeps.
fn transposed(w: &ArrayRef2<f32>, mask: &Mask, dy: &ArrayRef2<f32>) -> Array2<f64> {
    mask.applied(w).mapv(f64::from).t().dot(&dy.mapv(f64::from).t()).reversed_axes()
}

#[test]
fn transposed_products_are_exact_on_small_whole_numbers() {
    for (rows, cols) in [(1, 1), (3, 5), (17, 33), (64, 130), (4, 0), (0, 4)] {
        let w = whole(rows, cols, 4, "weight");
        for (name, mask) in masks(rows, cols) {
            in_every_format(&w, &mask, |format, op| {
                for tokens in TOKENS {
                    let dy = whole(tokens, rows, 8, "gradient");
                    let expected = transposed(&w, &mask, &dy).mapv(|y| y as f32);
                    assert_eq!(apply_transpose(op, &dy), expected, "{format}, {rows} x {cols}, {name}, {tokens} tokens");
                }
            });
        }
    }
    in_every_pattern::<f32>(
        |rows, cols| whole(rows, cols, 4, "weight"),
        |name, w, mask, op| {
            for tokens in [1, 5, 70] {
                let dy = whole(tokens, mask.rows(), 8, "gradient");
                assert_eq!(apply_transpose(op, &dy), transposed(w, mask, &dy).mapv(|y| y as f32), "{name}, {tokens} tokens");
            }
        },
    );
}

#[test]
fn a_plan_pulls_by_what_it_chose() {
    let w = whole(64, 130, 4, "weight");
    for density in [0.02, 1.0] {
        let mask = random_mask(64, 130, density);
        let plan = Plan::new(&w, &mask, Hint::tokens_and_single(64)).unwrap();
        for tokens in [1, 20] {
            let dy = whole(tokens, 64, 8, "gradient");
            assert_eq!(apply_transpose(&plan, &dy), transposed(&w, &mask, &dy).mapv(|y| y as f32));
        }
    }
}

#[test]
fn transposed_products_of_other_numbers_are_those_of_what_is_stored() {
    let u = 2f64.powi(-24);
    let w = Seed(1).stream("w").normal_array(40, 200, 1.0);
    let mask = random_mask(40, 200, 0.4);
    let ops: Vec<Box<dyn LinearOp>> = vec![
        Box::new(TileCsr::<i8>::with_tile(&w, &mask, 64, Scaling::Tile).unwrap()),
        Box::new(TilePairs::<i8>::with_tile(&w, &mask, 64, Scaling::Tile).unwrap()),
        Box::new(Bitmask::<i8>::with_tile(&w, &mask, 1, Scaling::Row).unwrap()),
        Box::new(Sell::<i8>::with_lanes(&w, &mask, 8, Slots::Packed).unwrap()),
        Box::new(TilePairs::<bf16>::with_tile(&w, &mask, 128, Scaling::Row).unwrap()),
    ];
    for op in &ops {
        for tokens in [1, 33] {
            let dy = Seed(2).stream("dy").normal_array(tokens, 40, 1.0);
            let stored = op.to_dense();
            let (exact, size) = (transposed(&stored, &mask, &dy), transposed(&stored.mapv(f32::abs), &mask, &dy.mapv(f32::abs)));
            let dx = apply_transpose(op.as_ref(), &dy).mapv(f64::from);
            let bound = |at: (usize, usize), _| 44.0 * u / (1.0 - 44.0 * u) * size[at];
            assert_within(&dx, &exact, bound, format!("{}, {tokens} tokens", op.format()));
        }
    }
}

#[test]
fn strides_of_the_gradients_do_not_matter_and_nothing_else_is_written() {
    let w = whole(17, 33, 4, "weight");
    let mask = random_mask(17, 33, 0.5);
    in_every_format(&w, &mask, |format, op| {
        let dy = whole(21, 17, 8, "gradient");
        let expected = transposed(&w, &mask, &dy).mapv(|y| y as f32);
        for (from, array, view) in layouts(&dy) {
            let mut wide = Array2::from_elem((43, 100), f32::NAN);
            op.apply_transpose_into(&view(&array), &mut wide.slice_mut(s![1..;2, ..99;3]));
            assert_eq!(wide.slice(s![1..;2, ..99;3]), expected, "{format}, dy {from}");
            wide.slice_mut(s![1..;2, ..99;3]).fill(f32::NAN);
            assert!(wide.iter().all(|x| x.is_nan()), "{format}, dy {from}");
        }
    });
}

#[test]
fn infinities_of_outputs_reach_only_the_inputs_that_are_kept() {
    let w = whole(17, 70, 4, "weight").mapv(|w| if w == 0.0 { 1.0 } else { w });
    let mask = random_mask(17, 70, 0.3);
    in_every_format(&w, &mask, |format, op| {
        if op.format() == "dense" {
            return; // it multiplies what was dropped, and says so
        }
        for tokens in [1, 20] {
            let clean = whole(tokens, 17, 8, "gradient");
            let mut dy = clean.clone();
            dy.column_mut(5).fill(f32::INFINITY);
            let expected = transposed(&w, &mask, &clean);
            for ((t, c), &dx) in apply_transpose(op, &dy).indexed_iter() {
                if mask.get(5, c) {
                    assert!(!dx.is_finite(), "{format}: {dx} hides what it was made of");
                } else {
                    assert_eq!(f64::from(dx), expected[[t, c]], "{format}, input {c}");
                }
            }
        }
    });
}

#[test]
fn gradients_of_a_masked_weight_are_the_dense_ones_where_it_keeps() {
    for (rows, cols) in [(1, 1), (3, 5), (17, 33), (70, 130), (4, 0), (0, 4)] {
        for (name, mask) in masks(rows, cols) {
            for tokens in TOKENS {
                let (dy, x) = (whole(tokens, rows, 8, "gradient"), whole(tokens, cols, 8, "input"));
                let dw = weight_gradient(&mask, &dy, &x).unwrap();
                let dense = mask.applied(&dy.t().dot(&x));
                assert_eq!(dw.to_dense(), dense, "{rows} x {cols}, {name}, {tokens} tokens");
                assert_eq!(dw.mask(), mask);
                for (from, array, view) in layouts(&x) {
                    assert_eq!(weight_gradient(&mask, &dy, &view(&array)).unwrap(), dw, "x {from}");
                }
            }
        }
    }
}

#[test]
fn one_thread_and_two_make_the_same_bits_of_gradients() {
    let mut stream = Seed(2).stream("gradients");
    let (w, mask) = (stream.normal_array(600, 250, 1.0), random_mask(600, 250, 0.5));
    let pools = [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    for tokens in [1, 17, 200] {
        let (dy, x) = (stream.normal_array(tokens, 600, 1.0), stream.normal_array(tokens, 250, 1.0));
        in_every_format(&w, &mask, |format, op| {
            let [one, two] = [0, 1].map(|i| pools[i].install(|| apply_transpose(op, &dy)).mapv(f32::to_bits));
            assert_eq!(one, two, "{format}, {tokens} tokens");
        });
        let [one, two] =
            [0, 1].map(|i| pools[i].install(|| weight_gradient(&mask, &dy, &x)).unwrap().to_dense().mapv(f32::to_bits));
        assert_eq!(one, two, "{tokens} tokens");
    }
}

#[test]
fn training_by_sparse_products_alone_finds_the_weight_that_made_the_outputs() {
    // y = x · Wᵀ for a masked W: gradient descent on the kept weights finds them.
    let mut stream = Seed(6).stream("training");
    let mask = random_mask(12, 20, 0.4);
    let truth = mask.applied(&stream.normal_array(12, 20, 1.0));
    let x = stream.normal_array(200, 20, 1.0);
    let y = oracle(&truth, &mask, &x).mapv(|y| y as f32);
    let mut op = Csr::compress(&Array2::zeros((12, 20)), &mask).unwrap();
    for _ in 0..150 {
        let dy = apply(&op, &x) - &y;
        let dw = weight_gradient(&mask, &dy, &x).unwrap();
        op.values_mut().iter_mut().zip(dw.view().values()).for_each(|(w, d)| *w -= 0.003 * d);
    }
    assert_close(&op.to_dense(), &truth, 1e-3f32.next_down(), "after 150 steps");
}

#[test]
#[should_panic(expected = "csr 3 x 5: dy (2, 5), dx (2, 5)")]
fn a_transposed_product_with_too_many_outputs_panics_with_the_shapes() {
    let op = Csr::compress(&Array2::ones((3, 5)), &Mask::full(3, 5)).unwrap();
    op.apply_transpose_into(&Array2::zeros((2, 5)), &mut Array2::zeros((2, 5)));
}

#[test]
#[should_panic(expected = "mask 3 x 5: dy (2, 3), x (3, 5)")]
fn a_gradient_of_other_tokens_panics_with_the_shapes() {
    let _ = weight_gradient(&Mask::full(3, 5), &Array2::zeros((2, 3)), &Array2::zeros((3, 5)));
}
