//! Laws of the Gram matrix and the factorisations, for each back end that is compiled in.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;

use close::{assert_close, assert_within};
use lacuna::Error;
use lacuna::linalg::{Backend, Gram};
use lacuna::rng::Seed;
use ndarray::{Array2, ArrayRef2, Axis, array, concatenate, s};

const ORDERS: [usize; 5] = [1, 2, 7, 64, 130];

fn backends() -> Vec<Backend> {
    vec![
        Backend::Faer,
        #[cfg(feature = "lapack")]
        Backend::Lapack,
    ]
}

/// Every order with every back end.
fn cases() -> impl Iterator<Item = (usize, Backend)> {
    ORDERS.into_iter().flat_map(|n| backends().into_iter().map(move |b| (n, b)))
}

fn normal(rows: usize, cols: usize) -> Array2<f64> {
    Seed(7).stream(&format!("{rows} x {cols}")).normal_array(rows, cols, 1.0).mapv(f64::from)
}

/// XᵀX of 2n + 3 tokens, over their number: eigenvalues between about 0.08 and 3.
fn spd(n: usize) -> Array2<f64> {
    let x = normal(2 * n + 3, n);
    x.t().dot(&x) / (2 * n + 3) as f64
}

/// The same with NaN above the diagonal.
fn lower_only(a: &Array2<f64>) -> Array2<f64> {
    Array2::from_shape_fn(a.dim(), |(i, j)| if i >= j { a[[i, j]] } else { f64::NAN })
}

fn far(a: &ArrayRef2<f64>, b: &ArrayRef2<f64>) -> f64 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}

fn is_lower(a: &ArrayRef2<f64>) -> bool {
    a.indexed_iter().all(|((i, j), &v)| i >= j || v == 0.0)
}

#[test]
fn cholesky_is_lower_and_its_square_is_the_matrix() {
    for (n, b) in cases() {
        let a = spd(n);
        let l = b.cholesky(&lower_only(&a)).unwrap();
        assert!(is_lower(&l) && l.diag().iter().all(|&d| d > 0.0) && l.is_standard_layout(), "{b:?} {n}");
        assert_close(&l.dot(&l.t()), &a, 1e-13, &format!("{b:?} {n}"));
    }
}

#[test]
fn inverse_times_matrix_is_the_identity_and_the_inverse_is_symmetric() {
    for (n, b) in cases() {
        let a = spd(n);
        let inverse = b.spd_inverse(&lower_only(&a)).unwrap();
        assert_eq!(inverse, inverse.t(), "{b:?} {n}");
        assert_close(&a.dot(&inverse), &Array2::eye(n), 1e-12, &format!("{b:?} {n}"));
    }
}

#[test]
fn cholesky_of_the_inverse_is_upper_and_its_square_is_the_inverse() {
    for (n, b) in cases() {
        let a = spd(n);
        let u = b.cholesky_of_inverse(&lower_only(&a)).unwrap();
        assert!(is_lower(&u.t()) && u.diag().iter().all(|&d| d > 0.0) && u.is_standard_layout(), "{b:?} {n}");
        assert_close(&u.dot(&a).dot(&u.t()), &Array2::eye(n), 1e-12, &format!("U A Uᵀ, {b:?} {n}"));
        assert_close(&u.t().dot(&u), &b.spd_inverse(&a).unwrap(), 1e-11, &format!("UᵀU, {b:?} {n}"));
    }
}

#[test]
fn the_rounded_cholesky_of_the_inverse_is_the_other_with_another_diagonal() {
    for (n, b) in cases().chain(backends().into_iter().map(|b| (1100, b))) {
        let a = spd(n);
        let mut other = a.clone();
        other.diag_mut().iter_mut().enumerate().for_each(|(i, d)| *d += 1.0 + 0.01 * i as f64);
        let u = b.cholesky_of_inverse_f32(&lower_only(&a), &other.diag().to_vec()).unwrap();
        let right = b.cholesky_of_inverse(&other).unwrap();
        let largest = right.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let case = format!("{b:?} {n}");
        assert_within(&u.mapv(f64::from), &right, |_, right: f64| 6e-8 * right.abs() + 1e-12 * largest, case);
        for (at, &u) in u.indexed_iter() {
            assert!(at.0 <= at.1 || u == 0.0, "{b:?} {n}: {u} below the diagonal");
        }
    }
    for b in backends() {
        let mut diagonal = vec![1.0; 3];
        assert_eq!(b.cholesky_of_inverse_f32(&Array2::zeros((3, 3)), &diagonal).unwrap(), Array2::<f32>::eye(3));
        diagonal[1] = -1.0;
        let error = b.cholesky_of_inverse_f32(&Array2::zeros((3, 3)), &diagonal).unwrap_err();
        assert!(matches!(error, Error::NotPositiveDefinite { column: 1, .. }), "{b:?}: {error}");
    }
}

#[test]
fn a_solution_times_the_matrix_is_the_right_hand_side_in_any_layout() {
    for (n, b) in cases() {
        let (a, wide) = (spd(n), normal(n, 9));
        // Columns 1, 4 and 7 of a wider array, and the transpose of their transpose's copy.
        let gaps = wide.slice(s![.., 1..;3]);
        let columns = gaps.t().as_standard_layout().to_owned().reversed_axes();
        let x = b.solve_spd(&lower_only(&a), &gaps).unwrap();
        assert_close(&a.dot(&x), &gaps, 1e-12, &format!("{b:?} {n}"));
        assert_eq!(x, b.solve_spd(&a.t(), &columns).unwrap(), "{b:?} {n}");
        assert_eq!(b.solve_spd(&a, &wide.slice(s![.., ..0])).unwrap().dim(), (n, 0));
    }
}

#[test]
fn eigenvectors_are_orthogonal_and_rebuild_the_matrix_from_ascending_values() {
    for (n, b) in cases() {
        let a = spd(n) - 0.5 * Array2::<f64>::eye(n);
        let e = b.eigh(&lower_only(&a)).unwrap();
        let v = &e.vectors;
        assert!(e.values.windows(2).into_iter().all(|w| w[0] <= w[1]) && v.is_standard_layout(), "{b:?} {n}");
        assert_close(&v.t().dot(v), &Array2::eye(n), 1e-12, &format!("VᵀV, {b:?} {n}"));
        assert_close(&(v * &e.values).dot(&v.t()), &a, 1e-12, &format!("V D Vᵀ, {b:?} {n}"));
    }
}

#[test]
fn singular_vectors_are_orthonormal_and_rebuild_the_matrix_from_descending_values() {
    for (n, b) in cases() {
        for (rows, cols) in [(n, n), (n + 5, n), (n, n + 5), (3 * n + 1, n)] {
            let a = normal(rows, cols);
            let d = b.svd(&a).unwrap();
            let (r, what) = (rows.min(cols), format!("{b:?} {rows} x {cols}"));
            assert_eq!((d.u.dim(), d.s.len(), d.vt.dim()), ((rows, r), r, (r, cols)), "{what}");
            assert!(d.s.windows(2).into_iter().all(|w| w[0] >= w[1]) && d.s[r - 1] >= 0.0, "{what}");
            assert_close(&d.u.t().dot(&d.u), &Array2::eye(r), 1e-12, &what);
            assert_close(&d.vt.dot(&d.vt.t()), &Array2::eye(r), 1e-12, &what);
            assert_close(&(&d.u * &d.s).dot(&d.vt), &a, 1e-11, &what);
            assert_eq!(b.svd(&a.t().as_standard_layout().t()).unwrap().u, d.u, "{what}: column-major");
        }
    }
}

#[test]
fn the_residual_of_least_squares_is_orthogonal_to_every_column() {
    for (n, b) in cases() {
        for rows in [n, n + 1, 2 * n + 3] {
            let (mut a, rhs) = (normal(rows, n), normal(rows, 5));
            for i in 0..n {
                a[[i, i]] += 3.0 * (n as f64).sqrt();
            }
            let x = b.lstsq(&a, &rhs.slice(s![.., ..;2])).unwrap();
            let residual = a.dot(&x) - rhs.slice(s![.., ..;2]);
            assert_close(&a.t().dot(&residual), &Array2::zeros((n, 3)), 1e-10, &format!("{b:?} {rows} x {n}"));
            if rows == n {
                assert_close(&residual, &Array2::zeros((n, 3)), 1e-11, &format!("{b:?} {n} square"));
            }
        }
    }
}

#[test]
fn least_squares_does_not_mind_columns_of_very_different_scale() {
    for b in backends() {
        let a = array![[1e-9, 1e6], [1e-9, 2e6], [1e-9, 4e6]];
        let x = b.lstsq(&a, &a.dot(&array![[2e9], [3e-6]])).unwrap();
        assert!((x[[0, 0]] / 2e9 - 1.0).abs() < 1e-12 && (x[[1, 0]] / 3e-6 - 1.0).abs() < 1e-12, "{b:?} {x}");
    }
}

#[test]
fn dependent_columns_are_an_error_of_least_squares_that_names_the_first() {
    for b in backends() {
        let x = normal(12, 3);
        let sum = (&x.column(0) + &x.column(2)).insert_axis(Axis(1));
        let a = concatenate![Axis(1), x, sum, normal(12, 2)];
        let e = b.lstsq(&a, &normal(12, 1)).unwrap_err();
        assert!(matches!(&e, Error::Numerical { reason, .. } if reason.starts_with("column 3 ")), "{b:?}: {e}");
        assert!(matches!(b.lstsq(&normal(3, 4), &normal(3, 1)), Err(Error::Numerical { .. })), "{b:?}");
        assert!(matches!(b.lstsq(&Array2::zeros((3, 2)), &normal(3, 1)), Err(Error::Numerical { .. })), "{b:?}");
    }
}

/// The column that an error of positive definiteness names.
#[track_caller]
fn failed(result: lacuna::Result<Array2<f64>>) -> (usize, String) {
    match result {
        Err(Error::NotPositiveDefinite { column, hint, order: 130, .. }) => (column, hint),
        other => panic!("expected an error, got {other:?}"),
    }
}

#[test]
fn an_indefinite_matrix_is_an_error_that_names_the_column_and_says_what_helps() {
    for b in backends() {
        for bad in [0, 1, 63, 100, 129] {
            let mut a = spd(130);
            a[[bad, bad]] = -1.0;
            for result in [b.cholesky(&a), b.spd_inverse(&a), b.solve_spd(&a, &normal(130, 1)), b.cholesky_of_inverse(&a)] {
                let (column, hint) = failed(result);
                assert_eq!(column, bad, "{b:?}");
                assert!(hint.contains("damping") && hint.contains("tokens"), "{hint}");
            }
        }
    }
}

#[test]
fn a_gram_matrix_of_too_few_tokens_is_not_positive_definite_whatever_rounding_says() {
    for b in backends() {
        for tokens in [1, 20, 129] {
            let x = normal(tokens, 130);
            let a = x.t().dot(&x);
            assert_eq!(failed(b.cholesky(&a)).0, tokens, "{b:?}");
            assert_eq!(failed(b.cholesky_of_inverse(&a)).0, 129 - tokens, "{b:?}");
            // Damping by a millionth of the mean is enough, and changes of scale do not matter.
            let damped = (a + 1e-6 * tokens as f64 * Array2::<f64>::eye(130)) * 1e-200;
            assert!(b.cholesky(&damped).is_ok() && b.cholesky_of_inverse(&damped).is_ok(), "{b:?} {tokens}");
        }
    }
}

#[test]
fn a_diagonal_of_any_scale_is_positive_definite() {
    for b in backends() {
        let a = Array2::from_diag(&array![1e-250, 1.0, 1e250]);
        assert_eq!(b.cholesky(&a).unwrap().diag()[1], 1.0);
        assert!((b.cholesky_of_inverse(&a).unwrap()[[0, 0]] / 1e125 - 1.0).abs() < 1e-14);
    }
}

#[test]
fn nan_and_infinity_are_errors_that_name_their_place() {
    for b in backends() {
        for v in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut a = spd(130);
            a[[90, 17]] = v;
            for result in [b.cholesky(&a), b.spd_inverse(&a), b.cholesky_of_inverse(&a), b.solve_spd(&a, &normal(130, 2))] {
                let (column, hint) = failed(result);
                assert!(column == 17 && hint.contains("row 90"), "{b:?}: {column}, {hint}");
            }
            let here = |e: Error| matches!(e, Error::NotFinite { row: 90, col: 17, .. });
            assert!(here(b.eigh(&a).unwrap_err()) && here(b.svd(&a).unwrap_err()));
            assert!(here(b.lstsq(&a, &normal(130, 1)).unwrap_err()) && here(b.lstsq(&spd(130), &a).unwrap_err()));
            assert!(here(b.solve_spd(&spd(130), &a).unwrap_err()));
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let wrong = |e: Error| matches!(e, Error::Shape { .. });
    for b in backends() {
        let a = normal(4, 3);
        assert!(wrong(b.cholesky(&a).unwrap_err()) && wrong(b.spd_inverse(&a.t()).unwrap_err()), "{b:?}");
        assert!(wrong(b.cholesky_of_inverse(&a).unwrap_err()) && wrong(b.eigh(&a).unwrap_err()), "{b:?}");
        assert!(wrong(b.solve_spd(&spd(3), &a).unwrap_err()) && wrong(b.lstsq(&a, &normal(3, 1)).unwrap_err()), "{b:?}");
    }
    assert!(wrong(Gram::new(4).update(&Array2::zeros((7, 3))).unwrap_err()));
}

#[test]
fn matrices_without_entries_have_factors_without_entries() {
    for b in backends() {
        let none = Array2::zeros((0, 0));
        for result in [b.cholesky(&none), b.spd_inverse(&none), b.cholesky_of_inverse(&none), b.solve_spd(&none, &none)] {
            assert_eq!(result.unwrap().dim(), (0, 0));
        }
        assert_eq!(b.eigh(&none).unwrap().values.len(), 0);
        assert_eq!(b.svd(&Array2::zeros((3, 0))).unwrap().u.dim(), (3, 0));
        assert_eq!(b.lstsq(&Array2::zeros((3, 0)), &normal(3, 2)).unwrap().dim(), (0, 2));
    }
}

/// f in a rayon pool of so many threads.
fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[test]
fn faer_gives_the_same_bits_for_any_number_of_threads() {
    for n in [5, 64, 300, 700] {
        let (a, x) = (spd(n), normal(n + 40, n));
        let all = || {
            let b = Backend::Faer;
            let (e, d) = (b.eigh(&a).unwrap(), b.svd(&x).unwrap());
            let ways = [
                b.cholesky(&a).unwrap(),
                b.spd_inverse(&a).unwrap(),
                b.cholesky_of_inverse(&a).unwrap(),
                b.solve_spd(&a, &x.t()).unwrap(),
                b.lstsq(&x, &x.slice(s![.., ..;3])).unwrap(),
                e.vectors,
                d.u,
                d.vt,
            ];
            (ways, [e.values, d.s])
        };
        let (one, one_values) = with_threads(1, all);
        for threads in [2, 3, 8] {
            let (many, many_values) = with_threads(threads, all);
            for (i, (one, many)) in one.iter().zip(&many).enumerate() {
                let off = far(one, many);
                assert!(one == many, "matrix {i} of order {n} with {threads} threads: off by {off:e}");
            }
            assert_eq!(one_values, many_values, "values of order {n} with {threads} threads");
        }
    }
}

#[test]
#[cfg(feature = "lapack")]
fn both_back_ends_agree_up_to_rounding_and_the_signs_of_vectors() {
    let (f, l) = (Backend::Faer, Backend::Lapack);
    assert_eq!(Backend::default(), l);
    /// Each column times the sign of its largest entry.
    fn signed(v: &ArrayRef2<f64>) -> Array2<f64> {
        let mut v = v.to_owned();
        for mut column in v.columns_mut() {
            let sign = column.iter().fold(0.0, |m: f64, &x| if x.abs() > m.abs() + 1e-6 { x } else { m }).signum();
            column *= sign;
        }
        v
    }
    for n in ORDERS {
        let (a, x) = (spd(n), normal(2 * n + 3, n));
        assert_close(&f.cholesky(&a).unwrap(), &l.cholesky(&a).unwrap(), 1e-13, "cholesky");
        assert_close(&f.spd_inverse(&a).unwrap(), &l.spd_inverse(&a).unwrap(), 1e-11, "spd_inverse");
        assert_close(&f.cholesky_of_inverse(&a).unwrap(), &l.cholesky_of_inverse(&a).unwrap(), 1e-12, "cholesky_of_inverse");
        assert_close(&f.solve_spd(&a, &x.t()).unwrap(), &l.solve_spd(&a, &x.t()).unwrap(), 1e-11, "solve_spd");
        let rhs = normal(2 * n + 3, 4);
        assert_close(&f.lstsq(&x, &rhs).unwrap(), &l.lstsq(&x, &rhs).unwrap(), 1e-12, "lstsq");
        let (ef, el) = (f.eigh(&a).unwrap(), l.eigh(&a).unwrap());
        assert_close(&ef.values, &el.values, 1e-13, format!("eigenvalues of order {n}"));
        assert_close(&signed(&ef.vectors), &signed(&el.vectors), 1e-10, "eigenvectors");
        let (df, dl) = (f.svd(&x).unwrap(), l.svd(&x).unwrap());
        assert_close(&df.s, &dl.s, 1e-12, format!("singular values of order {n}"));
        assert_close(&signed(&df.u), &signed(&dl.u), 1e-10, "left singular vectors");
        assert_close(&signed(&df.vt.t()), &signed(&dl.vt.t()), 1e-10, "right singular vectors");
    }
}

/// XᵀX and |X|ᵀ|X| in f64.
fn naive_gram(x: &ArrayRef2<f32>) -> (Array2<f64>, Array2<f64>) {
    let (x, size) = (x.mapv(f64::from), x.mapv(|v| f64::from(v.abs())));
    (x.t().dot(&x), size.t().dot(&size))
}

#[test]
fn gram_is_the_f64_product_within_the_stated_bound() {
    for (tokens, dim) in [(1, 1), (5, 3), (255, 130), (257, 128), (1000, 129), (700, 300)] {
        let x = Seed(3).stream("gram").normal_array(tokens, dim, 1.0);
        let (exact, size) = naive_gram(&x);
        let mut gram = Gram::new(dim);
        gram.update(&x).unwrap();
        let found = gram.matrix();
        assert_eq!(found, found.t(), "{tokens} x {dim}");
        let bound = |at: (usize, usize), _| 256.0 * f64::from(f32::EPSILON) / 2.0 * size[at];
        assert_within(&found, &exact, bound, format!("{tokens} x {dim}"));
        assert_eq!((gram.tokens(), gram.dim()), (tokens, dim));
    }
}

#[test]
fn gram_of_small_integers_is_exact_for_any_batches_and_any_strides() {
    let dim = 300;
    let big = Seed(5).stream("integers").uniform_array(2 * 700, 2 * dim, 8.0).mapv(f32::round);
    let x = big.slice(s![..;2, ..;-2]);
    let (exact, _) = naive_gram(&x);
    for batch in [1, 100, 256, 257, 700] {
        let (mut gram, mut other) = (Gram::new(dim), Gram::new(dim));
        for (i, part) in x.axis_chunks_iter(Axis(0), batch).enumerate() {
            if i % 3 == 1 { other.update(&part).unwrap() } else { gram.update(&part).unwrap() }
        }
        gram.merge(&other);
        assert_eq!(gram.matrix(), exact, "batches of {batch}");
        assert_eq!(gram.tokens(), 700);
    }
    let (rows, columns) = (x.as_standard_layout().to_owned(), x.t().as_standard_layout().to_owned().reversed_axes());
    for layout in [rows, columns] {
        let mut gram = Gram::new(dim);
        gram.update(&layout).unwrap();
        assert_eq!(gram.matrix(), exact, "strides {:?}", layout.strides());
    }
}

#[test]
fn gram_does_not_lose_late_tokens_among_many_early_ones() {
    // 2^24 + 1 is not a float: a sum in f32 would stay at 2^24.
    let mut gram = Gram::new(1);
    gram.update(&array![[4096.0]]).unwrap();
    for _ in 0..40 {
        gram.update(&Array2::ones((25, 1))).unwrap();
    }
    assert_eq!(gram.matrix()[[0, 0]], f64::from(1 << 24) + 1000.0);
}

#[test]
fn gram_gives_the_same_bits_for_any_number_of_threads() {
    for dim in [5, 64, 300, 700] {
        let x = Seed(9).stream("threads").normal_array(600, dim, 1.0);
        let gram = || {
            let mut gram = Gram::new(dim);
            gram.update(&x).unwrap();
            gram.matrix()
        };
        let one = with_threads(1, gram);
        for threads in [2, 3, 8] {
            assert_eq!(one, with_threads(threads, gram), "{dim} columns, {threads} threads");
        }
    }
}

#[test]
fn gram_refuses_what_is_not_finite_or_would_overflow_and_stays_as_it_was() {
    let mut gram = Gram::new(200);
    gram.update(&Array2::ones((3, 200))).unwrap();
    for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e19, -1e19] {
        let mut x = Array2::ones((300, 200));
        x[[270, 150]] = v;
        let e = gram.update(&x).unwrap_err();
        match &e {
            Error::NotFinite { row: 270, col: 150, .. } => assert!(!v.is_finite()),
            Error::Numerical { .. } => assert!(v.is_finite() && e.to_string().contains("row 270, column 150"), "{e}"),
            _ => panic!("{e}"),
        }
        assert_eq!((gram.matrix(), gram.tokens()), (Array2::from_elem((200, 200), 3.0), 3));
    }
    gram.update(&Array2::from_elem((256, 200), 1e18)).unwrap();
    assert!(gram.matrix().iter().all(|v| v.is_finite()));
}

#[test]
#[should_panic(expected = "merge: Gram matrices of order 2 and 3")]
fn gram_matrices_of_different_order_do_not_merge() {
    Gram::new(2).merge(&Gram::new(3));
}
