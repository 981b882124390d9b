//! Masks as sets of weights, held against boolean arrays.

mod random;

use lacuna_sparse::mask::Mask;
use ndarray::{Array2, s};
use proptest::prelude::*;
use random::Seed;

/// Shapes on both sides of a word of 64 bits and a byte of 8, and shapes without weights.
const SHAPES: [(usize, usize); 12] =
    [(1, 1), (1, 7), (9, 1), (4, 8), (3, 63), (2, 64), (3, 65), (2, 127), (2, 128), (3, 129), (0, 5), (5, 0)];

fn random(rows: usize, cols: usize, density: f32, seed: u64) -> Array2<bool> {
    let mut stream = Seed(seed).stream("mask");
    Array2::from_shape_simple_fn((rows, cols), || stream.uniform() < density)
}

fn shape() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![(1..12usize, 1..20usize), prop::sample::select(SHAPES.to_vec())]
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn masks_obey_the_laws_of_sets(shape in shape(), seeds: [u64; 3], density in 0.0..=1.0f32) {
        let (rows, cols) = shape;
        let [x, y, z] = seeds.map(|seed| random(rows, cols, density, seed));
        let [a, b, c] = [&x, &y, &z].map(|m| Mask::from_array(m));
        let naive = |f: &dyn Fn(bool, bool) -> bool| Mask::from_fn(rows, cols, |i, j| f(x[[i, j]], y[[i, j]]));
        prop_assert_eq!(a.and(&b), naive(&|a, b| a && b));
        prop_assert_eq!(a.or(&b), naive(&|a, b| a || b));
        prop_assert_eq!(a.xor(&b), naive(&|a, b| a != b));
        prop_assert_eq!(a.minus(&b), naive(&|a, b| a && !b));
        prop_assert_eq!(a.not(), naive(&|a, _| !a));
        prop_assert_eq!(a.and(&b).not(), a.not().or(&b.not()));
        prop_assert_eq!(a.or(&b).not(), a.not().and(&b.not()));
        prop_assert_eq!(a.and(&b.or(&c)), a.and(&b).or(&a.and(&c)));
        prop_assert_eq!(a.not().not(), a.clone());
        prop_assert_eq!(a.or(&a.not()), Mask::full(rows, cols));
        prop_assert_eq!(a.and(&a.not()), Mask::empty(rows, cols));
        prop_assert_eq!(a.kept() + b.kept(), a.and(&b).kept() + a.or(&b).kept());
        prop_assert_eq!(a.is_subset_of(&b), x.iter().zip(&y).all(|(a, b)| !a || *b));
        prop_assert!(a.and(&b).is_subset_of(&a) && a.is_subset_of(&a.or(&b)) && a.is_subset_of(&a));
    }

    #[test]
    fn counts_equal_naive_counts(shape in shape(), seed: u64, density in 0.0..=1.0f32, block in (1..6usize, 1..80usize)) {
        let (rows, cols) = shape;
        let keep = random(rows, cols, density, seed);
        let mask = Mask::from_array(&keep);
        let count = |rows: std::ops::Range<usize>, cols: std::ops::Range<usize>| keep.slice(s![rows, cols]).iter().filter(|k| **k).count();
        prop_assert_eq!(mask.dim(), (rows, cols));
        prop_assert_eq!((mask.rows(), mask.cols(), mask.len(), mask.is_empty()), (rows, cols, rows * cols, rows * cols == 0));
        prop_assert_eq!(mask.kept(), count(0..rows, 0..cols));
        prop_assert_eq!(mask.row_counts(), (0..rows).map(|r| count(r..r + 1, 0..cols)).collect::<Vec<_>>());
        prop_assert_eq!(mask.col_counts(), (0..cols).map(|c| count(0..rows, c..c + 1)).collect::<Vec<_>>());
        let (br, bc) = block;
        let blocks = Array2::from_shape_fn((rows.div_ceil(br), cols.div_ceil(bc)), |(i, j)| {
            count(i * br..((i + 1) * br).min(rows), j * bc..((j + 1) * bc).min(cols))
        });
        prop_assert_eq!(mask.block_counts(br, bc), blocks);
        let kept: Vec<_> = keep.indexed_iter().filter(|(_, k)| **k).map(|(at, _)| at).collect();
        prop_assert_eq!(mask.iter_kept().collect::<Vec<_>>(), kept);
        prop_assert_eq!(mask.to_array(), keep);
        let density = if rows * cols == 0 { 1.0 } else { mask.kept() as f64 / (rows * cols) as f64 };
        prop_assert_eq!((mask.density(), mask.sparsity()), (density, 1.0 - density));
    }

    #[test]
    fn bytes_and_json_come_back_as_the_same_mask(shape in shape(), seed: u64, density in 0.0..=1.0f32) {
        let (rows, cols) = shape;
        let mask = Mask::from_array(&random(rows, cols, density, seed));
        let bytes = mask.to_bytes();
        prop_assert_eq!(bytes.len(), rows * cols.div_ceil(8));
        for (r, c) in (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))) {
            prop_assert_eq!(bytes[r * cols.div_ceil(8) + c / 8] >> (c % 8) & 1 == 1, mask.get(r, c));
        }
        prop_assert_eq!(Mask::from_bytes(rows, cols, &bytes).unwrap(), mask.clone());
        let json = serde_json::to_string(&mask).unwrap();
        prop_assert_eq!(serde_json::from_str::<Mask>(&json).unwrap(), mask);
    }

    #[test]
    fn applying_writes_zero_where_it_drops_and_leaves_every_other_bit(shape in shape(), seed: u64, density in 0.0..=1.0f32) {
        let (rows, cols) = shape;
        let mask = Mask::from_array(&random(rows, cols, density, seed));
        let mut stream = Seed(seed).stream("weight");
        let values = [1.5, -2.0, 0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-42];
        let mut number = || values[stream.below(values.len())];
        let before = Array2::from_shape_simple_fn((2 * rows, 3 * cols), &mut number);
        let bits = |w: &Array2<f32>| w.mapv(f32::to_bits);
        let window = |w: &Array2<f32>, layout: usize| match layout {
            0 => w.slice(s![..rows, ..cols]).to_owned(),
            1 => w.slice(s![..;2, ..;3]).to_owned(),
            _ => w.slice(s![..rows;-1, ..cols;-1]).to_owned(),
        };
        for layout in 0..3 {
            let mut after = before.clone();
            match layout {
                0 => mask.apply(&mut after.slice_mut(s![..rows, ..cols])),
                1 => mask.apply(&mut after.slice_mut(s![..;2, ..;3])),
                _ => mask.apply(&mut after.slice_mut(s![..rows;-1, ..cols;-1])),
            }
            let old = window(&before, layout);
            let expected = Array2::from_shape_fn((rows, cols), |(r, c)| if mask.get(r, c) { old[[r, c]].to_bits() } else { 0 });
            prop_assert_eq!(bits(&window(&after, layout)), &expected, "layout {}", layout);
            prop_assert_eq!(bits(&mask.applied(&old)), expected, "layout {}", layout);
            // What lies outside the window is as it was.
            let changed = before.iter().zip(&after).filter(|(b, a)| b.to_bits() != a.to_bits()).count();
            let inside = old.iter().zip(&window(&after, layout)).filter(|(b, a)| b.to_bits() != a.to_bits()).count();
            prop_assert_eq!(changed, inside);
        }
        let mut transposed = before.slice(s![..rows, ..cols]).t().to_owned();
        mask.apply(&mut transposed.view_mut().reversed_axes());
        prop_assert_eq!(bits(&transposed.t().to_owned()), bits(&mask.applied(&before.slice(s![..rows, ..cols]))));
    }
}

#[test]
fn a_mask_reads_boolean_arrays_of_any_strides() {
    let keep = random(6, 140, 0.4, 3);
    let mirrored = keep.slice(s![..;-2, ..;-1]);
    assert_eq!(Mask::from_array(&mirrored).to_array(), mirrored);
    assert_eq!(Mask::from_array(&keep.t()).to_array(), keep.t());
}

#[test]
fn set_changes_one_weight_alone() {
    for (rows, cols) in SHAPES.into_iter().filter(|(r, c)| r * c > 0) {
        let (empty, full) = (Mask::empty(rows, cols), Mask::full(rows, cols));
        assert_eq!((empty.kept(), full.kept()), (0, rows * cols));
        for (r, c) in full.iter_kept() {
            let (mut one, mut others) = (empty.clone(), full.clone());
            one.set(r, c, true);
            others.set(r, c, false);
            assert_eq!(one.iter_kept().collect::<Vec<_>>(), [(r, c)]);
            assert_eq!(others, one.not());
        }
    }
}

#[test]
fn bytes_of_another_length_are_refused_with_both_lengths() {
    for (rows, cols, len) in [(2, 9, 3), (2, 9, 5), (2, 9, 0), (1, 8, 2), (0, 5, 1), (5, 0, 1), (usize::MAX, 64, 8)] {
        let error = Mask::from_bytes(rows, cols, &vec![0; len]).unwrap_err().to_string();
        let expected = format!("bytes of a mask: expected shape [{rows}, {}], found [{len}]", cols.div_ceil(8));
        assert_eq!(error, expected);
    }
}

#[test]
fn a_bit_past_the_last_column_is_refused_and_its_row_named() {
    for cols in [1usize, 7, 9, 60, 63, 65, 127, 129] {
        let width = cols.div_ceil(8);
        for bit in cols..8 * width {
            let mut bytes = Mask::full(3, cols).to_bytes();
            bytes[width + bit / 8] |= 1 << (bit % 8);
            let error = Mask::from_bytes(3, cols, &bytes).unwrap_err().to_string();
            assert_eq!(error, format!("mask is not a mask of {cols} columns: row 1 has a bit set past its last column"));
            let json = serde_json::json!({ "rows": 3, "cols": cols, "bits": bytes });
            assert!(serde_json::from_value::<Mask>(json).is_err());
        }
    }
    assert!(serde_json::from_str::<Mask>(r#"{"rows":2,"cols":9,"bits":[1,0,1]}"#).is_err());
}

#[test]
#[should_panic(expected = "(1, 64) lies outside (2, 64)")]
fn reading_past_the_last_column_panics() {
    Mask::full(2, 64).get(1, 64);
}

#[test]
#[should_panic(expected = "(2, 0) lies outside (2, 64)")]
fn writing_past_the_last_row_panics() {
    Mask::full(2, 64).set(2, 0, true);
}

#[test]
#[should_panic(expected = "two masks of one operation differ in shape")]
fn masks_of_different_shapes_do_not_combine() {
    Mask::full(2, 65).and(&Mask::full(2, 66));
}

#[test]
#[should_panic(expected = "a mask and its weight differ in shape")]
fn a_mask_does_not_apply_to_a_weight_of_another_shape() {
    Mask::full(2, 3).applied(&Array2::zeros((3, 2)));
}
