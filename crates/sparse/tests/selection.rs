//! Selection against a naive oracle: a stable sort by score, highest first, so that of equal scores the first stays.

mod random;

use lacuna_sparse::Error;
use lacuna_sparse::mask::{Budget, Mask, Pattern, Scope, select, unit_scores};
use ndarray::{Array2, ArrayView2, s};
use proptest::prelude::*;
use random::Seed;

const SCOPES: [Scope; 2] = [Scope::Layer, Scope::Row];
/// A single weight, one row, one column, and widths on both sides of a word of 64 bits.
const SHAPES: [(usize, usize); 9] = [(1, 1), (1, 7), (9, 1), (5, 12), (3, 63), (2, 64), (3, 65), (2, 128), (2, 129)];

/// Every kind of pattern that fits the shape, with blocks that end raggedly and blocks larger than the matrix.
fn patterns(rows: usize, cols: usize) -> Vec<Pattern> {
    let mut patterns = vec![Pattern::Unstructured, Pattern::Rows, Pattern::Cols];
    for (r, c) in [(1, 1), (1, 4), (2, 3), (4, 1), (3, 64), (rows + 1, 2), (2, cols + 1)] {
        patterns.push(Pattern::Block { rows: r, cols: c });
    }
    for m in (1..=cols).filter(|m| cols % m == 0) {
        patterns.extend([1, m.div_ceil(2), m - m / 4, m].map(|n| Pattern::Nm { n, m }));
    }
    patterns
}

/// The pattern with each scope it can be chosen in.
fn cases(rows: usize, cols: usize) -> Vec<(Pattern, Scope)> {
    let row_scope_fits = |p: Pattern, s: Scope| s == Scope::Layer || !matches!(p, Pattern::Rows | Pattern::Cols);
    let all = patterns(rows, cols).into_iter().flat_map(|p| SCOPES.map(|s| (p, s)));
    all.filter(|&(p, s)| row_scope_fits(p, s)).collect()
}

/// Budgets of a pattern: the one that N:M has, else nothing, one, some, all but one and all.
fn budgets(pattern: Pattern, rows: usize, cols: usize) -> Vec<Budget> {
    let units = pattern.units(rows, cols).unwrap();
    let keeps = match pattern {
        Pattern::Nm { n, m } => vec![units / m * n],
        _ => vec![0, 1, units / 3, units / 2, units - 1, units],
    };
    keeps.into_iter().map(|keep| Budget::new(keep, units).unwrap()).collect()
}

/// Indices of the `keep` best, of equals the first.
fn best(scores: &[f64], keep: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap());
    order.truncate(keep);
    order
}

/// Which unit of which competition each weight belongs to, by the words of the documentation.
fn unit_of(pattern: Pattern, scope: Scope, (r, c): (usize, usize), cols: usize) -> (usize, usize) {
    let (i, j, width) = match pattern {
        Pattern::Unstructured => (r, c, cols),
        Pattern::Nm { m, .. } => return (r * cols / m + c / m, c % m),
        Pattern::Block { rows: br, cols: bc } => (r / br, c / bc, cols.div_ceil(bc)),
        Pattern::Rows => (r, 0, 1),
        Pattern::Cols => (0, c, cols),
    };
    if scope == Scope::Layer { (0, i * width + j) } else { (i, j) }
}

/// The mask by stable sorting.
fn oracle(scores: ArrayView2<'_, f32>, pattern: Pattern, scope: Scope, budget: Budget) -> Array2<bool> {
    let (rows, cols) = scores.dim();
    let place = |at| unit_of(pattern, scope, at, cols);
    let mut contests: Vec<Vec<f64>> = Vec::new();
    for (at, &score) in scores.indexed_iter() {
        let (contest, unit) = place(at);
        contests.resize(contests.len().max(contest + 1), Vec::new());
        let units = &mut contests[contest];
        units.resize(units.len().max(unit + 1), 0.0);
        units[unit] += f64::from(score);
    }
    let n = contests.len();
    let keep = |i: usize| match pattern {
        Pattern::Nm { n, .. } => n,
        _ => budget.keep() / n + usize::from(i < budget.keep() % n),
    };
    let winners: Vec<Vec<usize>> = contests.iter().enumerate().map(|(i, units)| best(units, keep(i))).collect();
    let stays: Vec<Vec<bool>> =
        winners.iter().zip(&contests).map(|(w, c)| (0..c.len()).map(|u| w.contains(&u)).collect()).collect();
    Array2::from_shape_fn((rows, cols), |at| {
        let (contest, unit) = place(at);
        stays[contest][unit]
    })
}

/// Units of which every weight is kept. With [`Pattern::check`] this is the number of units kept.
fn kept_units(mask: &Mask, pattern: Pattern) -> usize {
    let kept = Array2::from_shape_fn(mask.dim(), |(r, c)| if mask.get(r, c) { 1.0 } else { 0.0f32 });
    let all = unit_scores(&Array2::ones(mask.dim()), pattern).unwrap();
    unit_scores(&kept, pattern).unwrap().iter().zip(&all).filter(|(k, a)| k == a).count()
}

/// Normal numbers, or whole numbers from -2 to 2 with both zeros among them.
fn scores(rows: usize, cols: usize, whole: bool, seed: u64) -> Array2<f32> {
    let mut stream = Seed(seed).stream("scores");
    let mut number = || if whole { [-2., -1., -0.0, 0.0, 1., 2.][stream.below(6)] } else { stream.normal() };
    Array2::from_shape_simple_fn((rows, cols), &mut number)
}

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![1..24usize, prop::sample::select(vec![60, 63, 64, 65, 120, 127, 128, 129])]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn equals_the_stable_sort_keeps_the_budget_and_conforms_for_every_pattern_and_scope(
        rows in 1..14usize, cols in width(), whole: bool, seed: u64, share in 0.0..=1.0f64,
    ) {
        let scores = scores(rows, cols, whole, seed);
        for (pattern, scope) in cases(rows, cols) {
            let units = pattern.units(rows, cols).unwrap();
            let budget = match pattern {
                Pattern::Nm { .. } => pattern.budget(rows, cols, 0.5).unwrap(),
                _ => Budget::new((units as f64 * share).round() as usize, units).unwrap(),
            };
            let mask = select(&scores, pattern, scope, budget).unwrap();
            prop_assert_eq!(mask.to_array(), oracle(scores.view(), pattern, scope, budget), "{} {:?} {:?}", pattern, scope, budget);
            prop_assert_eq!(kept_units(&mask, pattern), budget.keep(), "{} {:?}", pattern, scope);
            prop_assert!(pattern.check(&mask).is_ok(), "{} {:?}", pattern, scope);
        }
    }

    #[test]
    fn a_smaller_budget_keeps_a_subset(rows in 1..7usize, cols in 1..20usize, whole: bool, seed: u64) {
        let scores = scores(rows, cols, whole, seed);
        for (pattern, scope) in cases(rows, cols).into_iter().filter(|(p, _)| !matches!(p, Pattern::Nm { .. })) {
            let units = pattern.units(rows, cols).unwrap();
            let mut smaller = Mask::empty(rows, cols);
            for keep in 0..=units {
                let mask = select(&scores, pattern, scope, Budget::new(keep, units).unwrap()).unwrap();
                prop_assert!(smaller.is_subset_of(&mask), "{} {:?} from {} to {} of {}", pattern, scope, keep.max(1) - 1, keep, units);
                smaller = mask;
            }
            prop_assert_eq!(smaller, Mask::full(rows, cols));
        }
    }

    #[test]
    fn scaling_by_a_power_of_two_changes_no_mask(rows in 1..9usize, cols in width(), whole: bool, seed: u64, power in -20..20i32) {
        let scores = scores(rows, cols, whole, seed);
        let scaled = &scores * 2f32.powi(power);
        for (pattern, scope) in cases(rows, cols) {
            for budget in budgets(pattern, rows, cols) {
                let of = |s: &Array2<f32>| select(s, pattern, scope, budget).unwrap();
                prop_assert_eq!(of(&scores), of(&scaled), "{} {:?} {:?}", pattern, scope, budget);
            }
        }
    }

    #[test]
    fn an_increasing_map_changes_no_mask_of_single_weights(rows in 1..9usize, cols in width(), seed: u64, factor in 0.01..100f32) {
        // Whole numbers, so that the maps keep distinct scores distinct in f32 too.
        let scores = scores(rows, cols, true, seed);
        for (pattern, scope) in cases(rows, cols).into_iter().filter(|(p, _)| matches!(p, Pattern::Unstructured | Pattern::Nm { .. })) {
            for budget in budgets(pattern, rows, cols) {
                let of = |map: &dyn Fn(f32) -> f32| select(&scores.mapv(map), pattern, scope, budget).unwrap();
                let mask = of(&|s| s);
                prop_assert_eq!(&mask, &of(&|s| s * factor));
                prop_assert_eq!(&mask, &of(&|s| s.exp()));
                prop_assert_eq!(&mask, &of(&|s| s - 1e4));
                prop_assert_eq!(&mask, &of(&|s| s * s * s - 1e-30));
            }
        }
    }

    #[test]
    fn strides_do_not_matter(rows in 1..9usize, cols in width(), whole: bool, seed: u64) {
        let large = scores(2 * rows, 3 * cols, whole, seed);
        let transposed = scores(cols, rows, whole, seed);
        let row = scores(1, cols, whole, seed);
        let views = [
            ("transposed", transposed.t()),
            ("every second row, every third column", large.slice(s![..;2, ..;3])),
            ("reversed rows", large.slice(s![..rows;-1, ..cols])),
            ("reversed columns", large.slice(s![..rows, ..cols;-1])),
            ("reversed both, every third column", large.slice(s![..;-2, ..;-3])),
            ("a window", large.slice(s![rows / 2..rows / 2 + rows, cols / 2..cols / 2 + cols])),
            ("one row many times", row.broadcast((rows, cols)).unwrap()),
        ];
        for (name, view) in views {
            prop_assert_eq!(view.dim(), (rows, cols));
            let owned = Array2::from_shape_fn((rows, cols), |at| view[at]);
            for (pattern, scope) in cases(rows, cols) {
                for budget in budgets(pattern, rows, cols) {
                    let (a, b) = (select(&view, pattern, scope, budget).unwrap(), select(&owned, pattern, scope, budget).unwrap());
                    prop_assert_eq!(a, b, "{}: {} {:?} {:?}", name, pattern, scope, budget);
                }
            }
        }
    }
}

#[test]
fn keeps_exactly_the_first_units_when_all_scores_tie() {
    for (rows, cols) in SHAPES {
        for value in [0.0, -3.5, 1e30] {
            let scores = Array2::from_elem((rows, cols), value);
            let units = rows * cols;
            for keep in 0..=units {
                let budget = Budget::new(keep, units).unwrap();
                let mask = select(&scores, Pattern::Unstructured, Scope::Layer, budget).unwrap();
                assert_eq!(mask, Mask::from_fn(rows, cols, |r, c| r * cols + c < keep), "{rows} x {cols}, {keep}");
                let mask = select(&scores, Pattern::Unstructured, Scope::Row, budget).unwrap();
                let of_row = |r| keep / rows + usize::from(r < keep % rows);
                assert_eq!(mask, Mask::from_fn(rows, cols, |r, c| c < of_row(r)), "{rows} x {cols}, {keep} in row scope");
            }
            for keep in 0..=rows {
                let mask = select(&scores, Pattern::Rows, Scope::Layer, Budget::new(keep, rows).unwrap());
                assert_eq!(mask.unwrap(), Mask::from_fn(rows, cols, |r, _| r < keep));
            }
            for keep in 0..=cols {
                let mask = select(&scores, Pattern::Cols, Scope::Layer, Budget::new(keep, cols).unwrap());
                assert_eq!(mask.unwrap(), Mask::from_fn(rows, cols, |_, c| c < keep));
            }
            for m in (1..=cols).filter(|m| cols % m == 0) {
                for n in 1..=m {
                    let budget = Budget::new(units / m * n, units).unwrap();
                    let mask = select(&scores, Pattern::Nm { n, m }, Scope::Layer, budget).unwrap();
                    assert_eq!(mask, Mask::from_fn(rows, cols, |_, c| c % m < n), "{n}:{m} of {rows} x {cols}");
                }
            }
        }
    }
    // Zeros, so that the smaller blocks at the edges tie with the others.
    let (rows, cols) = (5, 7);
    let blocks = Pattern::Block { rows: 2, cols: 3 };
    for keep in 0..=9 {
        let mask = select(&Array2::zeros((rows, cols)), blocks, Scope::Layer, Budget::new(keep, 9).unwrap()).unwrap();
        assert_eq!(mask, Mask::from_fn(rows, cols, |r, c| r / 2 * 3 + c / 3 < keep), "{keep} blocks");
    }
}

#[test]
fn minus_zero_and_zero_tie() {
    // 40 columns as one group of N:M, so that both ways of ranking a group are taken; 4 as ten groups.
    let scores = Array2::from_shape_fn((2, 40), |(_, c)| if c % 2 == 0 { -0.0f32 } else { 0.0 });
    let cases = [
        (Pattern::Unstructured, Scope::Layer, 60),
        (Pattern::Unstructured, Scope::Row, 60),
        (Pattern::Nm { n: 30, m: 40 }, Scope::Layer, 60),
        (Pattern::Nm { n: 3, m: 4 }, Scope::Layer, 60),
        (Pattern::Cols, Scope::Layer, 30),
        (Pattern::Block { rows: 1, cols: 1 }, Scope::Layer, 60),
    ];
    for (pattern, scope, keep) in cases {
        let budget = Budget::new(keep, pattern.units(2, 40).unwrap()).unwrap();
        let mask = select(&scores, pattern, scope, budget).unwrap();
        assert_eq!(mask, select(&Array2::zeros((2, 40)), pattern, scope, budget).unwrap(), "{pattern} {scope:?}");
    }
    // And neither lies above the smallest positive number, or below the largest negative one.
    let tiny = f32::from_bits(1);
    let scores = ndarray::array![[-tiny, -0.0, tiny, 0.0]];
    let kept = |n| select(&scores, Pattern::Unstructured, Scope::Layer, Budget::new(n, 4).unwrap()).unwrap().to_array();
    assert_eq!(kept(1), ndarray::array![[false, false, true, false]]);
    assert_eq!(kept(2), ndarray::array![[false, true, true, false]]);
    assert_eq!(kept(3), ndarray::array![[false, true, true, true]]);
}

#[test]
fn negative_scores_and_the_largest_floats_are_ranked_by_value() {
    let scores = ndarray::array![[-1.0, f32::MIN, -f32::MIN_POSITIVE, f32::MAX, -1e-40, 1e-40, -2.0]];
    let order = [3, 5, 4, 2, 0, 6, 1];
    for keep in 0..=7 {
        let mask = select(&scores, Pattern::Unstructured, Scope::Layer, Budget::new(keep, 7).unwrap()).unwrap();
        assert_eq!(mask, Mask::from_fn(1, 7, |_, c| order[..keep].contains(&c)), "{keep}");
    }
}

#[test]
fn ties_across_parallel_tasks_stay_in_row_major_order() {
    let (rows, cols) = (700, 300);
    let total = rows * cols;
    let few = scores(rows, cols, true, 5);
    let equal = Array2::from_elem((rows, cols), 2.5f32);
    let transposed = scores(cols, rows, true, 6);
    let keeps = [0, 1, 299, 65_536, 65_700, 65_701, 105_000, 131_400, 209_999, total];
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for keep in keeps {
            let budget = Budget::new(keep, total).unwrap();
            let of = |s: ArrayView2<'_, f32>| pool.install(|| select(&s, Pattern::Unstructured, Scope::Layer, budget).unwrap());
            let mask = of(equal.view());
            assert_eq!(mask, Mask::from_fn(rows, cols, |r, c| r * cols + c < keep), "{keep} of equals, {threads} threads");
            for view in [few.view(), transposed.t()] {
                let flat: Vec<f64> = view.iter().map(|&s| f64::from(s)).collect();
                let mut expected = Mask::empty(rows, cols);
                best(&flat, keep).into_iter().for_each(|i| expected.set(i / cols, i % cols, true));
                assert_eq!(of(view), expected, "{keep} of few values, {threads} threads");
            }
        }
    }
}

#[test]
fn one_thread_and_two_make_the_same_mask() {
    let (rows, cols) = (640, 256);
    let scores = scores(rows, cols, false, 9);
    let pools = [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    let patterns = ["unstructured", "2:4", "block16x16", "block3x5", "rows", "cols"].map(|p| p.parse::<Pattern>().unwrap());
    for pattern in patterns {
        for scope in SCOPES.into_iter().filter(|&s| cases(rows, cols).contains(&(pattern, s)) || s == Scope::Layer) {
            let budget = pattern.budget(rows, cols, 0.7).unwrap();
            let [one, two] = [0, 1].map(|i| pools[i].install(|| select(&scores, pattern, scope, budget).unwrap()));
            assert_eq!(one, two, "{pattern} {scope:?}");
            assert_eq!(kept_units(&one, pattern), budget.keep());
        }
    }
}

#[test]
fn the_first_score_that_is_not_finite_is_named() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut scores = scores(700, 128, false, 1);
        scores[[340, 126]] = bad;
        // None of these is the first: a later column, and later rows, which a second thread meets earlier.
        scores[[340, 127]] = if bad.is_nan() { f32::INFINITY } else { f32::NAN };
        scores.slice_mut(s![345.., 5]).fill(f32::INFINITY);
        for (pattern, scope) in cases(700, 128) {
            let budget = budgets(pattern, 700, 128)[0];
            let error = pool.install(|| select(&scores, pattern, scope, budget)).unwrap_err();
            let text = error.to_string();
            let Error::NotFinite { row, col, value, .. } = error else { panic!("{pattern}: {text}") };
            assert_eq!((row, col, value.to_bits()), (340, 126, f64::from(bad).to_bits()), "{pattern} {scope:?}");
            assert!(text.starts_with("scores: ") && text.contains("at row 340, column 126"), "{text}");
        }
        let mirrored = scores.slice(s![.., ..;-1]);
        let half = Pattern::Unstructured.budget(700, 128, 0.5).unwrap();
        let error = select(&mirrored, Pattern::Unstructured, Scope::Layer, half).unwrap_err();
        assert!(matches!(error, Error::NotFinite { row: 340, col: 0, .. }), "{error}");
    }
}

#[test]
fn what_cannot_be_chosen_is_refused_with_the_numbers() {
    let nm = |n, m| Pattern::Nm { n, m };
    let block = |rows, cols| Pattern::Block { rows, cols };
    let layer = Scope::Layer;
    let table = [
        (
            (2, 8),
            nm(5, 4),
            layer,
            (0, 16),
            "pattern 5:4 does not fit a 2 x 8 matrix: N:M keeps N of every M, and 5 of 4 is impossible",
        ),
        (
            (2, 8),
            nm(0, 0),
            layer,
            (0, 16),
            "pattern 0:0 does not fit a 2 x 8 matrix: N:M keeps N of every M, and 0 of 0 is impossible",
        ),
        (
            (2, 8),
            nm(0, 4),
            layer,
            (0, 16),
            "pattern 0:4 does not fit a 2 x 8 matrix: N:M keeps N of every M, and 0 of 4 is impossible",
        ),
        (
            (2, 10),
            nm(2, 4),
            layer,
            (10, 20),
            "pattern 2:4 does not fit a 2 x 10 matrix: 4 does not divide the 10 inputs of a row",
        ),
        ((2, 8), block(0, 4), layer, (0, 4), "pattern block0x4 does not fit a 2 x 8 matrix: a block has rows and columns"),
        ((2, 8), block(4, 0), layer, (0, 4), "pattern block4x0 does not fit a 2 x 8 matrix: a block has rows and columns"),
        ((0, 8), Pattern::Unstructured, layer, (0, 0), "pattern unstructured does not fit a 0 x 8 matrix: it has no weights"),
        ((8, 0), Pattern::Cols, layer, (0, 0), "pattern cols does not fit a 8 x 0 matrix: it has no weights"),
        ((0, 0), Pattern::Rows, layer, (0, 0), "pattern rows does not fit a 0 x 0 matrix: it has no weights"),
        (
            (2, 8),
            Pattern::Unstructured,
            layer,
            (4, 15),
            "budget: cannot keep 4 of 15: a 2 x 8 matrix has 16 units of pattern unstructured",
        ),
        ((2, 8), Pattern::Rows, layer, (4, 16), "budget: cannot keep 4 of 16: a 2 x 8 matrix has 2 units of pattern rows"),
        ((3, 8), block(2, 5), layer, (1, 3), "budget: cannot keep 1 of 3: a 3 x 8 matrix has 4 units of pattern block2x5"),
        ((2, 8), nm(2, 4), layer, (7, 16), "budget: cannot keep 7 of 16: pattern 2:4 keeps exactly 8"),
        ((2, 8), nm(2, 4), Scope::Row, (16, 16), "budget: cannot keep 16 of 16: pattern 2:4 keeps exactly 8"),
        ((2, 8), Pattern::Rows, Scope::Row, (1, 2), "scope: pattern rows cannot be chosen row by row; use the layer scope"),
        ((2, 8), Pattern::Cols, Scope::Row, (1, 8), "scope: pattern cols cannot be chosen row by row; use the layer scope"),
    ];
    for (shape, pattern, scope, (keep, of), message) in table {
        let error = select(&Array2::zeros(shape), pattern, scope, Budget::new(keep, of).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(Budget::new(5, 3).unwrap_err().to_string(), "budget: cannot keep 5 of 3: more are to stay than there are");
    assert!(serde_json::from_str::<Budget>(r#"{"keep":2,"of":3}"#).is_ok_and(|b| b == Budget::new(2, 3).unwrap()));
    let error = serde_json::from_str::<Budget>(r#"{"keep":5,"of":3}"#).unwrap_err();
    assert!(error.to_string().contains("cannot keep 5 of 3"), "{error}");
}

#[test]
fn a_pattern_reads_what_it_writes() {
    for pattern in patterns(6, 24).into_iter().chain([Pattern::Nm { n: 16, m: 32 }, Pattern::Block { rows: 128, cols: 1 }]) {
        let text = pattern.to_string();
        assert_eq!(text.parse::<Pattern>().unwrap(), pattern, "{text}");
        assert_eq!(serde_json::to_string(&pattern).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Pattern>(&format!("\"{text}\"")).unwrap(), pattern);
    }
    assert_eq!("2:4".parse::<Pattern>().unwrap(), Pattern::Nm { n: 2, m: 4 });
    assert_eq!("block16x1".parse::<Pattern>().unwrap(), Pattern::Block { rows: 16, cols: 1 });
    assert_eq!(Pattern::default().to_string(), "unstructured");
    for (n, m) in [(1, 1), (4, 4)] {
        assert_eq!(format!("{n}:{m}").parse::<Pattern>().unwrap(), Pattern::Nm { n, m });
    }
}

#[test]
fn a_text_that_is_no_pattern_is_refused_with_the_text() {
    let texts = [
        "",
        "5:4",
        "0:4",
        "0:0",
        "2:",
        ":4",
        "2:4:8",
        "2:-4",
        "2 : 4",
        "2.0:4",
        "2:4x",
        "block",
        "block4",
        "block4x",
        "blockx4",
        "block0x4",
        "block4x0",
        "block4x4x4",
        "Block4x4",
        "Rows",
        "row",
        "columns",
        "unstructured ",
        "2-4",
        "99999999999999999999999:4",
    ];
    for text in texts {
        let error = text.parse::<Pattern>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("pattern: '{text}'")), "{text:?}: {error}");
        assert!(serde_json::from_str::<Pattern>(&format!("\"{text}\"")).is_err(), "{text:?}");
    }
}

#[test]
fn the_check_names_the_first_place_that_breaks_the_pattern() {
    let full = |r, c| Mask::full(r, c);
    let without = |mut mask: Mask, at: &[(usize, usize)]| {
        at.iter().for_each(|&(r, c)| mask.set(r, c, false));
        mask
    };
    let two_of_four = Mask::from_fn(3, 8, |_, c| c % 4 < 2);
    let with = |mut mask: Mask, at: &[(usize, usize)]| {
        at.iter().for_each(|&(r, c)| mask.set(r, c, true));
        mask
    };
    let table = [
        ("2:4", with(two_of_four.clone(), &[(1, 7), (2, 3)]), "mask is not 2:4: row 1, columns 4..8 keep 3, not 2"),
        ("2:4", without(two_of_four, &[(2, 0), (1, 4), (1, 5)]), "mask is not 2:4: row 1, columns 4..8 keep 0, not 2"),
        ("block2x3", without(full(5, 7), &[(4, 6), (3, 6)]), "mask is not block2x3: rows 2..4, columns 6..7 keep 1 of 2"),
        ("block2x3", with(Mask::empty(5, 7), &[(4, 4)]), "mask is not block2x3: rows 4..5, columns 3..6 keep 1 of 3"),
        ("rows", without(full(3, 70), &[(2, 0), (1, 69)]), "mask is not rows: rows 1..2, columns 0..70 keep 69 of 70"),
        ("cols", without(full(3, 70), &[(0, 68), (2, 66)]), "mask is not cols: rows 0..3, columns 66..67 keep 2 of 3"),
        ("2:4", full(2, 6), "pattern 2:4 does not fit a 2 x 6 matrix: 4 does not divide the 6 inputs of a row"),
    ];
    for (pattern, mask, message) in table {
        assert_eq!(pattern.parse::<Pattern>().unwrap().check(&mask).unwrap_err().to_string(), message);
    }
    assert!(Pattern::Unstructured.check(&Mask::from_fn(3, 5, |r, c| (r + c) % 2 == 0)).is_ok());
}

#[test]
fn weights_that_are_zero_are_kept_when_the_budget_reaches_them() {
    let weight = ndarray::array![[0.0f32, 3.0, 0.0], [0.0, -1.0, 0.0]];
    let mask = select(&weight.mapv(f32::abs), Pattern::Unstructured, Scope::Layer, Budget::new(4, 6).unwrap()).unwrap();
    assert_eq!(mask.iter_kept().collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2), (1, 1)]);
    assert_eq!(mask.applied(&weight), weight);
    assert_eq!(mask.kept(), 4);
}
