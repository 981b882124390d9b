//! Dense products, whichever runs: exact for every number of tokens up to 70 and some beyond, forwards, back to the inputs and to the weight, for every
//! strides that occur; and the same bits for any number of threads.

use crate::{into_layouts, layouts, oracle, whole};
use lacuna::linalg::{Product, Threads, gemm, matmul, matmul_nt, matmul_tn};
use lacuna::mask::Mask;
use lacuna::nn::Linear;
use lacuna::rng::Seed;
use lacuna::sparse::{Dense, Epilogue, Format, LinearOp, Precision, apply};
use ndarray::{Array1, Array2, ArrayRef2, s};

/// Rows and columns below and above what a strip, a run of rows, a tile of columns and the rules of choice have.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 5), (10, 300), (33, 17), (40, 520), (130, 64), (97, 129), (26, 1030), (130, 530)];

/// All up to 70, and around the blocks of tokens.
fn tokens() -> impl Iterator<Item = usize> {
    (0..=70).chain([95, 96, 97, 102, 103, 192, 200])
}

/// a · b in f64, as f32.
fn product(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> Array2<f32> {
    a.mapv(f64::from).dot(&b.mapv(f64::from)).mapv(|v| v as f32)
}

#[test]
fn a_linear_layer_is_exact_for_every_number_of_tokens() {
    for (rows, cols) in SHAPES {
        let (w, full) = (whole(rows, cols, 4, "weight"), Mask::full(rows, cols));
        let dense = Dense::new(w.clone());
        let bias: Vec<f32> = (0..rows).map(|r| r as f32 - 3.0).collect();
        let narrow = Format::Dense.build(&w, &full, Precision::Bf16).unwrap();
        for tokens in tokens() {
            let x = whole(tokens, cols, 8, "input");
            let y = oracle(&w, &full, &x).mapv(|y| y as f32);
            let case = format!("{rows} x {cols}, {tokens} tokens");
            assert_eq!(apply(&dense, &x), y, "Dense, {case}");
            assert_eq!(matmul_nt(&x, &w), y, "matmul_nt, {case}");
            assert_eq!(matmul_nt(&w, &x), y.t(), "matmul_nt of the weight, {case}");
            assert_eq!(apply(narrow.as_ref(), &x), y, "{}, {case}", narrow.format());
            let before = whole(tokens, rows, 9, "before");
            let epilogue = Epilogue { bias: Some(&bias), activation: Some(|y| y.max(0.0)), accumulate: true };
            let mut found = before.clone();
            dense.apply_with(&x, &mut found, &epilogue);
            let expected = Array2::from_shape_fn(y.dim(), |at| before[at] + (y[at] + bias[at.1]).max(0.0));
            assert_eq!(found, expected, "with an epilogue, {case}");
            let mut added = before.clone();
            gemm(1.0, &x, &w.t(), 1.0, &mut added, Threads::One);
            assert_eq!(added, &before + &y, "added, {case}");
            // Where the rules of choice take another, this library's own is held to the same.
            for made in Product::ALL {
                added.assign(&before);
                made.run(1.0, &x, &w.t(), 1.0, &mut added, Threads::Pool);
                assert_eq!(added, &before + &y, "{}, {case}", made.name());
            }
        }
    }
}

#[test]
fn the_way_back_and_the_gradient_are_exact_for_every_number_of_tokens() {
    for (rows, cols) in SHAPES {
        let w = whole(rows, cols, 4, "weight");
        let layer = Linear::new("layer", w.clone(), Some(Array1::zeros(rows)));
        for tokens in tokens() {
            let (x, dy) = (whole(tokens, cols, 8, "input"), whole(tokens, rows, 8, "gradient"));
            let case = format!("{rows} x {cols}, {tokens} tokens");
            let (dx, dw) = (product(&dy, &w), product(&dy.t(), &x));
            assert_eq!(matmul(&dy, &w), dx, "matmul, {case}");
            assert_eq!(matmul_tn(&dy, &x), dw, "matmul_tn, {case}");
            let before = whole(tokens, cols, 9, "before");
            let mut back = before.clone();
            layer.input_gradient(&dy, &mut back);
            assert_eq!(back, &before + &dx, "Linear::apply_transpose, {case}");
            let mut op = Array2::from_elem((tokens, cols), f32::NAN);
            layer.op().apply_transpose_into(&dy, &mut op);
            assert_eq!(op, dx, "apply_transpose_into, {case}");
            let mut found = Vec::new();
            layer.weight_gradient(&dy, &x, &mut |name, gradient| found.push((name.to_string(), gradient)));
            assert_eq!(found[0], ("layer.weight".to_string(), dw.into_dyn()), "Linear::weight_gradient, {case}");
            assert_eq!(found[1].1, dy.sum_axis(ndarray::Axis(0)).into_dyn(), "the bias, {case}");
        }
    }
}

#[test]
fn strides_of_all_three_operands_do_not_matter() {
    for (rows, cols) in [(1, 1), (5, 7), (40, 70), (33, 600)] {
        let w = whole(rows, cols, 4, "weight");
        for tokens in [1, 2, 6, 7, 8, 9, 16, 17, 24, 40, 100] {
            let (x, dy) = (whole(tokens, cols, 8, "input"), whole(tokens, rows, 8, "gradient"));
            let expected = oracle(&w, &Mask::full(rows, cols), &x).mapv(|y| y as f32);
            let (dx, dw) = (product(&dy, &w), product(&dy.t(), &x));
            let dense = Dense::new(w.clone());
            for (of_x, array, view) in layouts(&x) {
                let x = view(&array);
                for (of_y, y) in into_layouts(&dense, &x) {
                    assert_eq!(y, expected, "Dense {rows} x {cols}, {tokens} tokens, x {of_x}, y {of_y}");
                }
                for (of_w, array, view) in layouts(&w) {
                    let case = format!("{rows} x {cols} {of_w}, {tokens} tokens, x {of_x}");
                    assert_eq!(matmul_nt(&x, &view(&array)), expected, "{case}");
                }
                for (of_dy, array, view) in layouts(&dy) {
                    let case = format!("{rows} x {cols}, {tokens} tokens, x {of_x}, dy {of_dy}");
                    assert_eq!(matmul_tn(&view(&array), &x), dw, "{case}");
                    // The gradient may be asked for the other way round.
                    assert_eq!(matmul_tn(&x, &view(&array)), dw.t(), "{case}");
                }
            }
            for (of_dy, array, view) in layouts(&dy) {
                let dy = view(&array);
                for (of_w, array, view) in layouts(&w) {
                    assert_eq!(matmul(&dy, &view(&array)), dx, "{rows} x {cols} {of_w}, {tokens} tokens, dy {of_dy}");
                }
            }
        }
    }
}

#[test]
fn every_product_that_is_linked_is_exact_with_factors_and_strides() {
    for (m, k, n) in [(1, 1, 1), (3, 4, 5), (8, 40, 33), (40, 8, 600), (17, 300, 12), (2, 0, 3), (0, 3, 2), (3, 2, 0)] {
        let (a, b, c) = (whole(m, k, 4, "a"), whole(k, n, 4, "b"), whole(m, n, 4, "c"));
        for (alpha, beta) in [(0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (-0.5, 1.0), (2.0, -0.5)] {
            let expected = &c * alpha + product(&a, &b) * beta;
            for (of_a, a, view_a) in layouts(&a) {
                for (of_b, b, view_b) in layouts(&b) {
                    for made in Product::ALL {
                        let case = format!("{}, {m} x {k} {of_a}, {k} x {n} {of_b}, {alpha} and {beta}", made.name());
                        let mut found = if alpha == 0.0 { Array2::from_elem((m, n), f32::NAN) } else { c.clone() };
                        made.run(beta, &view_a(&a), &view_b(&b), alpha, &mut found, Threads::Pool);
                        assert_eq!(found, expected, "{case}");
                        let mut wide = Array2::from_elem((2 * n, 3 * m), f32::NAN);
                        let mut turned = wide.slice_mut(s![..;2, ..;3]).reversed_axes();
                        turned.assign(&c);
                        made.run(beta, &view_a(&a), &view_b(&b), alpha, &mut turned, Threads::One);
                        assert_eq!(turned, expected, "{case}, c turned with gaps");
                    }
                }
            }
        }
    }
}

#[test]
fn one_thread_two_and_three_make_the_same_bits_by_every_product() {
    let pools = [1, 2, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    let mut stream = Seed(12).stream("threads");
    for (rows, cols) in [(600, 1100), (1200, 300), (40, 700)] {
        let w = stream.normal_array(rows, cols, 1.0);
        for tokens in [1, 2, 5, 6, 7, 8, 9, 12, 16, 20, 33, 64, 70, 130] {
            let (x, dy) = (stream.normal_array(tokens, cols, 1.0), stream.normal_array(tokens, rows, 1.0));
            let wt = w.t();
            let dyt = dy.t();
            let operands: [(&str, &ArrayRef2<f32>, &ArrayRef2<f32>); 3] = [("y", &x, &wt), ("dx", &dy, &w), ("dw", &dyt, &x)];
            for (name, a, b) in operands {
                let mut makers: Vec<Option<Product>> = Product::ALL.map(Some).to_vec();
                makers.push(None);
                for made in makers {
                    let bits = |pool: &rayon::ThreadPool| {
                        let mut c = Array2::zeros((a.nrows(), b.ncols()));
                        pool.install(|| match made {
                            Some(made) => made.run(1.0, a, b, 0.0, &mut c, Threads::Pool),
                            None => gemm(1.0, a, b, 0.0, &mut c, Threads::Pool),
                        });
                        c.mapv(f32::to_bits)
                    };
                    let one = bits(&pools[0]);
                    let who = made.map_or("the chosen one", Product::name);
                    for pool in &pools[1..] {
                        let threads = pool.current_num_threads();
                        assert_eq!(one, bits(pool), "{who}, {name} of {rows} x {cols}, {tokens} tokens, {threads} threads");
                    }
                }
            }
        }
    }
}

/// A token that stands in a strip has the same bits whoever its neighbours are.
#[test]
fn tokens_do_not_depend_on_how_many_they_are() {
    let mut stream = Seed(13).stream("alone");
    let (w, x) = (stream.normal_array(300, 600, 1.0), stream.normal_array(208, 600, 1.0));
    let dense = Dense::new(w);
    let bits = |tokens: usize| apply(&dense, &x.slice(s![..tokens, ..])).mapv(f32::to_bits);
    let all = bits(208);
    // Multiples of sixteen, of which none is left for dot products.
    for tokens in [16, 32, 48, 64, 96, 112, 192] {
        assert_eq!(bits(tokens), all.slice(s![..tokens, ..]), "{tokens} of 208 tokens");
    }
}

#[test]
fn without_inputs_all_outputs_are_zero_and_what_is_added_to_stays() {
    for tokens in [1, 6, 7, 8, 16, 100] {
        for rows in [1, 40] {
            let (a, b) = (Array2::zeros((tokens, 0)), Array2::zeros((0, rows)));
            for made in Product::ALL {
                let mut c = Array2::from_elem((tokens, rows), f32::NAN);
                // What a thread keeps at hand is no zeros any more.
                let (w, x) = (whole(40, 70, 4, "weight"), whole(100, 70, 8, "input"));
                Product::Lacuna.run(1.0, &x, &w.t(), 0.0, &mut Array2::zeros((100, 40)), Threads::Pool);
                made.run(1.0, &a, &b, 0.0, &mut c, Threads::Pool);
                assert_eq!(c, Array2::<f32>::zeros((tokens, rows)), "{}, {tokens} tokens, {rows} outputs", made.name());
                c.fill(3.0);
                made.run(1.0, &a, &b, 1.0, &mut c, Threads::Pool);
                assert_eq!(c, Array2::from_elem((tokens, rows), 3.0f32), "{}, {tokens} tokens, {rows} outputs", made.name());
            }
        }
    }
}

/// A view that runs backwards is as gapless as its copy, which keeps its strides: both ways of `faer` to look at it fail.
#[test]
fn results_may_run_backwards() {
    for (tokens, rows, cols) in [(2, 40, 70), (4, 33, 600), (8, 3, 5), (8, 600, 40)] {
        let (w, dy) = (whole(rows, cols, 4, "weight"), whole(tokens, rows, 8, "gradient"));
        let dx = product(&dy, &w);
        for made in Product::ALL.map(Some).into_iter().chain([None]) {
            for alpha in [0.0, 1.0] {
                let mut back = Array2::from_elem(dx.dim(), 3.0f32);
                let mut view = back.slice_mut(s![..;-1, ..;-1]);
                match made {
                    Some(made) => made.run(1.0, &dy, &w, alpha, &mut view, Threads::Pool),
                    None => gemm(1.0, &dy, &w, alpha, &mut view, Threads::Pool),
                }
                let who = made.map_or("the chosen one", Product::name);
                assert_eq!(view, &dx + 3.0 * alpha, "{who}, {tokens} tokens, {rows} x {cols}, {alpha}");
            }
        }
    }
}
