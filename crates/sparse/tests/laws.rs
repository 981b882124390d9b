//! Laws of sparse products, over every format, mask, shape and number of tokens, held against a naive oracle: exactly on
//! small whole numbers, where every order of summation agrees, and within a stated bound on real ones.
//!
//! The kernels are chosen once a process: run this with `LACUNA_ISA=portable` too.

#[path = "laws/bad_input.rs"]
mod bad_input;
mod close;
#[path = "laws/common.rs"]
mod common;
#[path = "laws/conversions.rs"]
mod conversions;
#[cfg(unix)]
#[path = "laws/environment.rs"]
mod environment;
#[path = "laws/groups.rs"]
mod groups;
#[path = "laws/interchange.rs"]
mod interchange;
#[path = "laws/patterned.rs"]
mod patterned;
#[path = "laws/plans.rs"]
mod plans;
#[path = "laws/quantized.rs"]
mod quantized;
#[path = "laws/quantized_sparse.rs"]
mod quantized_sparse;
#[path = "laws/quantized_nm.rs"]
mod quantized_nm;
mod random;
#[path = "laws/rows.rs"]
mod rows;
#[path = "laws/slices.rs"]
mod slices;
#[path = "laws/storages.rs"]
mod storages;
#[path = "laws/transposed.rs"]
mod transposed;

use close::assert_within;
use common::{into_layouts, layouts, oracle, whole};
use lacuna_sparse::storage::{
    Bitmask, Bsr, Compress, Csr, CsrView, Dense, LinearOp, PackedDense, Scaling, Sell, Slots, TileCsr, TilePairs, apply,
};
use lacuna_sparse::{mask, storage as sparse};
use mask::Mask;
use ndarray::{Array2, ArrayRef2};
use random::Seed;
use sprs::CsMatI;

const SHAPES: [(usize, usize); 7] = [(1, 1), (3, 5), (16, 16), (17, 33), (64, 130), (4, 0), (0, 4)];
const TOKENS: [usize; 14] = [0, 1, 2, 3, 4, 5, 15, 16, 17, 40, 64, 100, 128, 150];

const SELL: [(usize, Slots); 4] = [(8, Slots::Padded), (8, Slots::Packed), (16, Slots::Padded), (16, Slots::Packed)];

fn random_mask(rows: usize, cols: usize, density: f32) -> Mask {
    let mut stream = Seed(rows as u64 * 1000 + cols as u64).stream("mask");
    Mask::from_fn(rows, cols, |_, _| stream.uniform() < density)
}

fn masks(rows: usize, cols: usize) -> Vec<(String, Mask)> {
    let mut masks = vec![
        ("empty".to_string(), Mask::empty(rows, cols)),
        ("full".to_string(), Mask::full(rows, cols)),
        ("empty rows".to_string(), Mask::from_fn(rows, cols, |r, c| r % 3 == 1 && (r + c) % 2 == 0)),
        ("one dense row".to_string(), Mask::from_fn(rows, cols, |r, _| r == rows / 2)),
        ("one dense column".to_string(), Mask::from_fn(rows, cols, |_, c| c + 1 == cols)),
    ];
    masks.extend([0.1, 0.5, 0.9].map(|d| (format!("random at {d}"), random_mask(rows, cols, d))));
    masks
}

/// Calls `law` with the weight in every format.
fn in_every_format(w: &ArrayRef2<f32>, mask: &Mask, mut law: impl FnMut(&str, &dyn LinearOp)) {
    let csr = Csr::compress(w, mask).unwrap();
    law("dense", &Dense::compress(w, mask).unwrap());
    law("dense in panels", &PackedDense::compress(w, mask).unwrap());
    law("csr", &csr);
    law("tile-csr", &TileCsr::<f32>::compress(w, mask).unwrap());
    law("bitmask", &Bitmask::<f32>::compress(w, mask).unwrap());
    for columns in [1, 7, 300] {
        law(&format!("tile-csr of {columns}"), &TileCsr::<f32>::with_tile(w, mask, columns, Scaling::Row).unwrap());
    }
    for columns in [64, 128, 512] {
        law(&format!("tile-pairs of {columns}"), &TilePairs::<f32>::with_tile(w, mask, columns, Scaling::Row).unwrap());
    }
    for words in [1, 64] {
        law(&format!("bitmask of {words}"), &Bitmask::<f32>::with_tile(w, mask, words, Scaling::Row).unwrap());
    }
    for (lanes, slots) in SELL {
        law(&format!("sell of {lanes}, {slots}"), &Sell::<f32>::with_lanes(w, mask, lanes, slots).unwrap());
    }
    law("bsr of 1x1", &Bsr::<f32>::with_blocks(w, mask, 1, 1).unwrap());
    let view = csr.view();
    law("csr view", &CsrView::new(w.nrows(), w.ncols(), view.offsets(), view.indices(), view.values()).unwrap());
}

#[test]
fn every_product_is_exact_on_small_whole_numbers() {
    for (rows, cols) in SHAPES {
        let w = whole(rows, cols, 4, "weight");
        for (name, mask) in masks(rows, cols) {
            in_every_format(&w, &mask, |format, op| {
                for tokens in TOKENS {
                    let x = whole(tokens, cols, 8, "input");
                    let expected = oracle(&w, &mask, &x).mapv(|y| y as f32);
                    assert_eq!(apply(op, &x), expected, "{format}, {rows} x {cols}, {name}, {tokens} tokens");
                }
            });
        }
    }
}

#[test]
fn products_large_enough_for_the_pool_are_exact_too() {
    // 600 x 250 at 0.9 is more than 2^17 multiplications for one token already.
    let (rows, cols) = (600, 250);
    let w = whole(rows, cols, 4, "weight");
    let mask = random_mask(rows, cols, 0.9);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        in_every_format(&w, &mask, |format, op| {
            for tokens in [1, 3, 4, 33] {
                let x = whole(tokens, cols, 8, "input");
                let y = pool.install(|| into_layouts(op, &x));
                let expected = oracle(&w, &mask, &x).mapv(|y| y as f32);
                y.into_iter().for_each(|(layout, y)| assert_eq!(y, expected, "{format}, {tokens} tokens, y {layout}"));
            }
        });
    }
}

#[test]
fn one_thread_and_two_make_the_same_bits() {
    let mut stream = Seed(2).stream("product");
    let w = stream.normal_array(600, 250, 1.0);
    let mask = random_mask(600, 250, 0.9);
    let pools = [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    in_every_format(&w, &mask, |format, op| {
        for tokens in [1, 2, 3, 4, 16, 17, 40] {
            let x = stream.normal_array(tokens, 250, 1.0);
            let [one, two] = [0, 1].map(|i| pools[i].install(|| apply(op, &x)).mapv(f32::to_bits));
            assert_eq!(one, two, "{format}, {tokens} tokens");
        }
    });
}

#[test]
fn strides_of_x_and_y_do_not_matter() {
    for (rows, cols) in SHAPES {
        let w = whole(rows, cols, 4, "weight");
        let mask = random_mask(rows, cols, 0.5);
        in_every_format(&w, &mask, |format, op| {
            for tokens in TOKENS {
                let x = whole(tokens, cols, 8, "input");
                let expected = oracle(&w, &mask, &x).mapv(|y| y as f32);
                for (from, array, view) in layouts(&x) {
                    assert_eq!(view(&array), x);
                    for (to, y) in into_layouts(op, &view(&array)) {
                        assert_eq!(y, expected, "{format}, {rows} x {cols}, {tokens} tokens, x {from}, y {to}");
                    }
                }
            }
        });
    }
}

/// The strides of the weight too: what is stored is the same.
#[test]
fn compressing_a_view_stores_what_compressing_its_copy_stores() {
    for (rows, cols) in SHAPES {
        let w = whole(rows, cols, 4, "weight");
        let mask = random_mask(rows, cols, 0.5);
        for (layout, array, view) in layouts(&w) {
            let view = view(&array);
            assert_eq!(Csr::compress(&view, &mask).unwrap(), Csr::compress(&w, &mask).unwrap(), "{layout}");
            let dense = Dense::compress(&view, &mask).unwrap();
            assert_eq!(dense, Dense::compress(&w, &mask).unwrap(), "{layout}");
            assert_eq!(dense.bytes(), 4 * rows * cols, "{layout}");
            let packed = PackedDense::compress(&view, &mask).unwrap();
            assert_eq!(packed, PackedDense::compress(&w, &mask).unwrap(), "{layout}");
            // The last panel is whole, of 48 outputs at most.
            assert!((4 * rows * cols..=4 * (rows + 47) * cols).contains(&packed.bytes()), "{layout}: {} bytes", packed.bytes());
            let new = Dense::new(view.to_owned());
            assert_eq!((new.bytes(), new.nnz(), new.to_dense()), (4 * rows * cols, rows * cols, w.clone()), "{layout}");
        }
    }
}

#[test]
fn the_bits_of_a_packed_product_depend_neither_on_other_tokens_nor_on_threads() {
    let (rows, cols) = (300, 1300);
    let op = PackedDense::new(&Seed(11).stream("w").normal_array(rows, cols, 1.0));
    let x = Seed(11).stream("x").normal_array(230, cols, 1.0);
    let all = apply(&op, &x);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for (first, tokens) in [(0, 1), (7, 2), (3, 3), (90, 8), (95, 13), (1, 97), (30, 200)] {
            let part = ndarray::s![first..first + tokens, ..];
            let y = pool.install(|| apply(&op, &x.slice(part)));
            assert_eq!(y, all.slice(part), "tokens {first} to {}, {threads} threads", first + tokens);
        }
    }
}

#[test]
fn real_products_are_within_the_bound_of_a_sum_in_any_order() {
    // |y - ŷ| <= γ_n Σ |w| |x| with γ_n = n u / (1 - n u), u = 2^-24 and n products, whatever the order (Higham, 3.1).
    let u = 2f64.powi(-24);
    for (rows, cols) in SHAPES {
        let mut stream = Seed(11).stream(&format!("real {rows} x {cols}"));
        let w = stream.normal_array(rows, cols, 1.0);
        for (name, mask) in masks(rows, cols) {
            let counts = mask.row_counts();
            in_every_format(&w, &mask, |format, op| {
                for tokens in TOKENS {
                    let x = stream.normal_array(tokens, cols, 1.0);
                    let (exact, size) = (oracle(&w, &mask, &x), oracle(&w.mapv(f32::abs), &mask, &x.mapv(f32::abs)));
                    // A dense product adds the zeros too, which rounds nothing.
                    let n = |out: usize| counts[out] as f64;
                    let bound = |at: (usize, usize), _| n(at.1) * u / (1.0 - n(at.1) * u) * size[at];
                    let y = apply(op, &x).mapv(f64::from);
                    assert_within(&y, &exact, bound, format!("{format}, {rows} x {cols}, {name}, {tokens} tokens"));
                }
            });
        }
    }
}

#[test]
fn infinities_and_nans_at_dropped_inputs_do_not_reach_the_outputs() {
    for (rows, cols) in SHAPES {
        let w = whole(rows, cols, 4, "weight").mapv(|w| if w == 0.0 { 1.0 } else { w });
        for (name, mask) in masks(rows, cols) {
            for (bad, tokens) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().flat_map(|b| TOKENS.map(|t| (b, t))) {
                // Every third input of every second token.
                let poisoned = |t: usize, i: usize| t % 2 == 0 && i % 3 == 0;
                let clean = whole(tokens, cols, 8, "input");
                let x = Array2::from_shape_fn((tokens, cols), |(t, i)| if poisoned(t, i) { bad } else { clean[[t, i]] });
                let expected = oracle(&w, &mask, &clean);
                in_every_format(&w, &mask, |format, op| {
                    if op.format() == "dense" {
                        return; // it multiplies what was dropped, and says so
                    }
                    for ((t, o), &y) in apply(op, &x).indexed_iter() {
                        let case = format!("{format}, {rows} x {cols}, {name}, {bad} in token {t} of {tokens}, output {o}");
                        if mask.row_indices(o).any(|i| poisoned(t, i)) {
                            assert!(!y.is_finite(), "{case}: {y} hides what it was made of");
                        } else {
                            assert_eq!(f64::from(y), expected[[t, o]], "{case}");
                        }
                    }
                });
            }
        }
    }
}

#[test]
fn what_is_stored_is_what_the_mask_keeps_zeros_and_all() {
    for (rows, cols) in SHAPES {
        let mut w = whole(rows, cols, 2, "weight");
        for (name, mask) in masks(rows, cols) {
            in_every_format(&w, &mask, |format, op| {
                let case = format!("{format}, {rows} x {cols}, {name}");
                assert_eq!((op.shape(), op.nnz()), ((rows, cols), mask.kept()), "{case}");
                assert_eq!(op.to_dense(), mask.applied(&w), "{case}");
                let kind = format.split(' ').next().unwrap_or_default();
                assert_eq!(op.format(), kind, "{case}");
                match kind {
                    "dense" if format == "dense" => assert_eq!(op.bytes(), 4 * rows * cols, "{case}"),
                    // The last panel is whole, of 48 outputs at most.
                    "dense" => assert!((4 * rows * cols..=4 * (rows + 47) * cols).contains(&op.bytes()), "{case}"),
                    "csr" => assert_eq!(op.bytes(), 8 * mask.kept() + 4 * (rows + 1), "{case}"),
                    _ => {} // held to their parts in `storages`
                }
            });
            let csr = Csr::compress(&w, &mask).unwrap();
            assert_eq!(csr.mask(), mask, "{rows} x {cols}, {name}");
            let zeros = Csr::compress(&Array2::zeros((rows, cols)), &mask).unwrap();
            assert_eq!((zeros.nnz(), zeros.mask()), (mask.kept(), mask.clone()), "{rows} x {cols}, {name}, all weights 0");
            // What goes is not read, whatever it is.
            let kept = csr.clone();
            mask.not().iter_kept().for_each(|at| w[at] = f32::NAN);
            assert_eq!(Csr::compress(&w, &mask).unwrap(), kept);
            assert_eq!(Dense::compress(&w, &mask).unwrap().to_dense(), kept.to_dense());
            assert_eq!(PackedDense::compress(&w, &mask).unwrap().to_dense(), kept.to_dense());
            w = whole(rows, cols, 2, "weight");
        }
    }
}

#[test]
fn sprs_takes_and_gives_the_same_memory() {
    let (rows, cols) = (17, 33);
    let w = whole(rows, cols, 4, "weight");
    for (name, mask) in masks(rows, cols).into_iter().filter(|(_, m)| m.kept() > 0) {
        let csr = Csr::compress(&w, &mask).unwrap();
        let copy = csr.clone();
        let pointers = |v: CsrView<'_>| (v.offsets().as_ptr(), v.indices().as_ptr(), v.values().as_ptr());
        let sprs_pointers =
            |m: sprs::CsMatViewI<'_, f32, u32>| (m.indptr().raw_storage().as_ptr(), m.indices().as_ptr(), m.data().as_ptr());
        let memory = pointers(csr.view());

        let view = csr.view();
        let borrowed = view.to_sprs().unwrap();
        assert_eq!(sprs_pointers(borrowed), memory, "{name}: CsrView::to_sprs copies");
        assert!(borrowed.is_csr() && borrowed.shape() == (rows, cols) && borrowed.nnz() == mask.kept());
        for at in mask.iter_kept() {
            assert_eq!(borrowed.get(at.0, at.1), Some(&w[at]));
        }

        let matrix = csr.into_sprs().unwrap();
        assert_eq!(sprs_pointers(matrix.view()), memory, "{name}: Csr::into_sprs copies");
        let back = CsrView::from_sprs(&matrix).unwrap();
        assert_eq!(pointers(back), memory, "{name}: CsrView::from_sprs copies");
        assert_eq!(back, copy.view());
        let csr = Csr::from_sprs(matrix).unwrap();
        assert_eq!(pointers(csr.view()), memory, "{name}: Csr::from_sprs copies");
        assert_eq!(csr, copy);
    }
}

#[test]
fn products_agree_with_those_of_sprs() {
    for (rows, cols) in SHAPES.into_iter().filter(|(r, c)| r * c > 0) {
        let w = whole(rows, cols, 4, "weight");
        for (name, mask) in masks(rows, cols) {
            let csr = Csr::compress(&w, &mask).unwrap();
            let x = whole(5, cols, 8, "input");
            let y = apply(&csr, &x);
            let matrix = csr.into_sprs().unwrap();
            for (x, y) in x.rows().into_iter().zip(y.rows()) {
                let mut expected = vec![0.0f32; rows];
                sprs::prod::mul_acc_mat_vec_csr(matrix.view(), x.to_vec(), &mut expected[..]);
                assert_eq!(y.to_vec(), expected, "{rows} x {cols}, {name}");
            }
        }
    }
}

#[test]
fn a_view_of_a_matrix_by_columns_is_refused_where_one_that_is_given_away_is_turned() {
    let csr = Csr::compress(&whole(3, 5, 4, "weight"), &random_mask(3, 5, 0.5)).unwrap();
    let columns: CsMatI<f32, u32> = csr.clone().into_sprs().unwrap().to_csc();
    let message = CsrView::from_sprs(&columns).unwrap_err().to_string();
    assert_eq!(message, "csr: the sprs matrix is stored by columns or is a slice of another");
    let by_rows = Csr::from_sprs(columns.to_csr()).unwrap();
    assert_eq!(by_rows, csr);
    assert_eq!(Csr::from_sprs(columns).unwrap(), csr);
}

#[test]
fn parts_that_break_an_invariant_are_refused_by_its_name() {
    type Parts<'a> = (&'a [u32], &'a [u32], &'a [f32]);
    // 2 rows of 4 columns.
    let table: [(&str, Parts<'_>, &str); 12] = [
        ("a value too many", (&[0, 1, 2], &[0, 1], &[1., 2., 3.]), "csr: 2 indices for 3 values"),
        ("an index too many", (&[0, 1, 3], &[0, 1, 2], &[1., 2.]), "csr: 3 indices for 2 values"),
        ("no offsets", (&[], &[], &[]), "csr: 0 offsets for 2 rows, where each row has one and the end another"),
        (
            "an offset too few",
            (&[0, 2], &[0, 1], &[1., 2.]),
            "csr: 2 offsets for 2 rows, where each row has one and the end another",
        ),
        (
            "an offset too many",
            (&[0, 1, 2, 2], &[0, 1], &[1., 2.]),
            "csr: 4 offsets for 2 rows, where each row has one and the end another",
        ),
        ("a first offset that is not 0", (&[1, 1, 2], &[0, 1], &[1., 2.]), "csr: offsets run from 1 to 2 over 2 values"),
        ("a last offset too small", (&[0, 1, 1], &[0, 1], &[1., 2.]), "csr: offsets run from 0 to 1 over 2 values"),
        ("a last offset too large", (&[0, 1, 3], &[0, 1], &[1., 2.]), "csr: offsets run from 0 to 3 over 2 values"),
        ("an offset past the end", (&[0, 9, 2], &[0, 1], &[1., 2.]), "csr: offsets of row 1 decrease from 9 to 2"),
        ("an index twice", (&[0, 0, 2], &[1, 1], &[1., 2.]), "csr: indices of row 1 do not increase: 1 before 1"),
        ("indices that fall", (&[0, 2, 2], &[3, 1], &[1., 2.]), "csr: indices of row 0 do not increase: 3 before 1"),
        ("an index past the last column", (&[0, 1, 2], &[0, 4], &[1., 2.]), "csr: row 1 has index 4 in 4 columns"),
    ];
    for (name, (offsets, indices, values), message) in table {
        assert_eq!(CsrView::new(2, 4, offsets, indices, values).unwrap_err().to_string(), message, "{name}");
        let owned = Csr::new(2, 4, offsets.to_vec(), indices.to_vec(), values.to_vec());
        assert_eq!(owned.unwrap_err().to_string(), message, "{name}");
    }
    assert!(CsrView::new(usize::MAX, 4, &[0], &[], &[]).is_err());
    let fits = Csr::new(2, 4, vec![0, 0, 2], vec![1, 3], vec![5., 6.]).unwrap();
    assert_eq!(fits.to_dense(), ndarray::array![[0., 0., 0., 0.], [0., 5., 0., 6.]]);
    assert_eq!(Csr::new(0, 0, vec![0], vec![], vec![]).unwrap().shape(), (0, 0));
}

#[test]
fn a_mask_of_another_shape_is_refused_with_both_shapes() {
    let (w, mask) = (Array2::zeros((3, 5)), Mask::full(5, 3));
    let errors = [
        Csr::compress(&w, &mask).unwrap_err(),
        Dense::compress(&w, &mask).unwrap_err(),
        PackedDense::compress(&w, &mask).unwrap_err(),
        TileCsr::<f32>::compress(&w, &mask).unwrap_err(),
        Bitmask::<f32>::compress(&w, &mask).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.to_string(), "mask: expected shape [3, 5], found [5, 3]");
    }
}

fn product(format: &str, x: (usize, usize), y: (usize, usize)) {
    in_every_format(&Array2::ones((3, 5)), &Mask::full(3, 5), |name, op| {
        if name == format {
            op.apply_into(&Array2::zeros(x), &mut Array2::zeros(y));
        }
    });
}

#[test]
#[should_panic(expected = "csr 3 x 5: x (2, 4), y (2, 3)")]
fn a_csr_product_with_too_few_inputs_panics_with_the_shapes() {
    product("csr", (2, 4), (2, 3));
}

#[test]
#[should_panic(expected = "csr 3 x 5: x (7, 5), y (6, 3)")]
fn a_csr_product_into_too_few_tokens_panics_with_the_shapes() {
    product("csr", (7, 5), (6, 3));
}

#[test]
#[should_panic(expected = "csr 3 x 5: x (0, 5), y (0, 4)")]
fn a_csr_product_of_no_tokens_still_checks_its_shapes() {
    product("csr view", (0, 5), (0, 4));
}

#[test]
#[should_panic(expected = "dense 3 x 5: x (2, 4), y (2, 3)")]
fn a_dense_product_with_too_few_inputs_panics_with_the_shapes() {
    product("dense", (2, 4), (2, 3));
}

#[test]
#[should_panic(expected = "dense 3 x 5: x (2, 5), y (2, 4)")]
fn a_dense_product_into_too_many_outputs_panics_with_the_shapes() {
    product("dense", (2, 5), (2, 4));
}
