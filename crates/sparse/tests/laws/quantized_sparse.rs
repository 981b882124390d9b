//! Codes at masks of no pattern: exact round trips, the mask that was given, and products within the error of what activations are rounded to.

use crate::common::normal;
use lacuna_sparse::mask::{Mask, Pattern, Scope, select};
use lacuna_sparse::storage::{
    ActivationBits, CodeLayout, Epilogue, Format, Hint, LinearOp, Offsets, Parts, Plan, Precision, Quantized, QuantizedSparse,
    QuantizedSparseParts, Slots, Stored, apply, apply_transpose,
};
use ndarray::{Array2, ArrayRef2, s};

fn kinds(group: usize) -> [Precision; 4] {
    [Precision::I4Grouped(group), Precision::U4Grouped(group), Precision::I8Grouped(group), Precision::U8Grouped(group)]
}

/// Shapes with groups: one block and several of either size, and rows that are no whole blocks.
const SHAPES: [(usize, usize, usize); 6] = [(1, 32, 32), (9, 96, 32), (33, 128, 64), (70, 320, 64), (20, 80, 80), (17, 224, 32)];

fn bits(a: &ArrayRef2<f32>) -> Vec<u32> {
    a.iter().map(|v| v.to_bits()).collect()
}

/// Masks of several densities: none and all, a random one, one whose rows differ much, and blocks of rows.
fn masks(rows: usize, cols: usize) -> Vec<Mask> {
    let random = |sparsity: f64| {
        let w = normal(17, rows, cols).mapv(f32::abs);
        select(&w, Pattern::Unstructured, Scope::Layer, Pattern::Unstructured.budget(rows, cols, sparsity).unwrap()).unwrap()
    };
    vec![
        Mask::empty(rows, cols),
        Mask::full(rows, cols),
        random(0.5),
        random(0.8),
        random(0.95),
        Mask::from_fn(rows, cols, |r, c| (c * 7 + r) % (2 + 5 * (r % 4)) == 0),
        Mask::from_fn(rows, cols, |_, c| c % 5 == 2 || c + 1 == cols),
    ]
}

/// All kinds of numbers in both layouts where they have them.
fn all(seed: u64, (rows, cols, group): (usize, usize, usize), mask: &Mask) -> Vec<QuantizedSparse> {
    let w = normal(seed, rows, cols);
    let mut all: Vec<QuantizedSparse> =
        kinds(group).map(|kind| QuantizedSparse::round_to_nearest(&w, mask, kind).unwrap()).into();
    let parts = all[1].parts();
    let least = parts.scales.iter().map(|s| half::f16::from_f32(-7.3 * s).to_f32()).collect();
    all.push(QuantizedSparse::new(QuantizedSparseParts { offsets: Offsets::Minimums(least), ..parts }).unwrap());
    all.into_iter()
        .flat_map(|op| [CodeLayout::Windows, CodeLayout::Masked].map(|layout| op.clone().with_layout(layout)))
        .collect()
}

#[test]
fn parts_files_and_masks_come_back() {
    for shape in SHAPES {
        let (rows, cols, group) = shape;
        for mask in masks(rows, cols) {
            let all = all(1, shape, &mask);
            assert_eq!(all.len(), 10, "two layouts of five kinds");
            for op in all {
                let parts = op.parts();
                assert_eq!(QuantizedSparse::in_layout(parts.clone(), op.layout()).unwrap(), op, "{op:?}");
                assert_eq!((op.mask(), op.nnz()), (mask.clone(), mask.kept()), "{op:?}");
                let stored: Parts = Stored::to_parts(&op);
                assert_eq!(<QuantizedSparse as Stored>::from_parts(stored.clone()).unwrap().parts(), parts);
                let dense = op.to_dense();
                assert_eq!(bits(&stored.into_storage().unwrap().to_dense()), bits(&dense), "{op:?}");
                let mut begin = 0;
                for r in 0..rows {
                    let of: Vec<usize> = (0..cols).filter(|&c| mask.get(r, c)).collect();
                    for (at, &c) in of.iter().enumerate() {
                        let factor = r * (cols / group) + c / group;
                        let code = match parts.bits {
                            4 => f32::from(parts.codes[begin + at / 2] >> (4 * (at % 2)) & 15),
                            _ => f32::from(parts.codes[begin + at] as i8),
                        };
                        let right = match &parts.offsets {
                            Offsets::Symmetric => parts.scales[factor] * (code - if parts.bits == 4 { 8.0 } else { 0.0 }),
                            Offsets::ZeroPoints(zeros) => parts.scales[factor] * (code - f32::from(zeros[factor])),
                            Offsets::Minimums(least) => parts.scales[factor] * code + least[factor],
                        };
                        assert_eq!(dense[[r, c]].abs().to_bits(), right.abs().to_bits(), "{op:?}, row {r}, column {c}");
                        assert_eq!(dense[[r, c]], right, "{op:?}, row {r}, column {c}");
                    }
                    begin += if parts.bits == 4 { of.len().div_ceil(2) } else { of.len() };
                    assert!(
                        (0..cols).all(|c| mask.get(r, c) || dense[[r, c]].to_bits() == 0),
                        "{op:?}, row {r}: what is dropped"
                    );
                }
                assert_eq!(op.to_csr().to_dense(), dense);
                let mut row = vec![0.0; cols];
                op.row_into(rows - 1, &mut row);
                assert_eq!(row, dense.row(rows - 1).to_vec());
            }
        }
    }
}

#[test]
fn products_are_those_of_what_is_kept_within_what_activations_are_rounded_to() {
    for shape in SHAPES {
        let (rows, cols, group) = shape;
        let block = if group == cols || group % 64 == 0 { 64 } else { 32 };
        for mask in masks(rows, cols) {
            let all = all(2, shape, &mask);
            for (op, activations) in all.iter().flat_map(|op| [ActivationBits::Full, ActivationBits::Eight].map(|a| (op, a))) {
                let op = op.clone().with_activation_bits(activations);
                let (wide, QuantizedSparseParts { scales, bits: width, .. }) = (op.to_dense().mapv(f64::from), op.parts());
                for tokens in [0, 1, 2, 3, 7] {
                    let x = normal(3, tokens, cols);
                    let y = apply(&op, &x);
                    let right = x.mapv(f64::from).dot(&wide.t());
                    let share = if activations == ActivationBits::Eight { 0.5 / 127.0 } else { 3e-7 };
                    let largest = Array2::from_shape_fn((tokens, cols.div_ceil(block)), |(t, b)| {
                        let x = x.slice(s![t, b * block..(b * block + block).min(cols)]);
                        f64::from(x.iter().fold(0.0f32, |m, v| m.max(v.abs())))
                    });
                    for ((t, r), y) in y.indexed_iter() {
                        let term = |c: usize| {
                            let scale = f64::from(scales[r * (cols / group) + c / group].abs());
                            let steps = if width == 4 { 16.0 } else { 256.0 };
                            // What activations are rounded by meets weights; what sums are rounded by, codes and zeros too.
                            largest[[t, c / block]] * (share * wide[[r, c]].abs() + 1e-6 * steps * scale)
                        };
                        let bound: f64 = (0..cols).filter(|&c| mask.get(r, c)).map(term).sum();
                        let error = (f64::from(*y) - right[[t, r]]).abs();
                        assert!(
                            error <= bound + 1e-6,
                            "{op:?}, {tokens} tokens, token {t}, output {r}: {error:e} above {bound:e}"
                        );
                    }
                    let mut turned = Array2::from_elem((rows, tokens), f32::NAN).reversed_axes();
                    op.apply_into(&x, &mut turned);
                    assert_eq!(bits(&turned), bits(&y), "{op:?}, {tokens} tokens, strides");
                    let mut sum = normal(4, tokens, rows);
                    let before = sum.clone();
                    op.apply_with(&x, &mut sum, &Epilogue { accumulate: true, ..Epilogue::default() });
                    assert_eq!(bits(&sum), bits(&(&before + &y)), "{op:?}, {tokens} tokens, accumulated");
                }
                let dy = normal(5, 3, rows);
                crate::close::assert_close(&apply_transpose(&op, &dy), &dy.dot(&op.to_dense()), 1e-4, format!("{op:?}, back"));
            }
        }
    }
}

#[test]
fn whole_numbers_are_multiplied_exactly_in_both_layouts() {
    // Scales are 1, and a number of x in each block is 127, so that nothing is rounded.
    for (rows, cols, group) in SHAPES {
        for (mask, width) in masks(rows, cols).into_iter().flat_map(|mask| [4, 8].map(|width| (mask.clone(), width))) {
            let (least, most) = if width == 4 { (-8i64, 7) } else { (-128, 127) };
            let number =
                |r: usize, c: usize, (least, most): (i64, i64)| least + ((r * 31 + c * 17) as i64 * 7) % (most - least + 1);
            let mut codes = Vec::new();
            for r in 0..rows {
                let of: Vec<u8> = (0..cols)
                    .filter(|&c| mask.get(r, c))
                    .map(|c| (number(r, c, (least, most)) + if width == 4 { 8 } else { 0 }) as u8)
                    .collect();
                match width {
                    4 => codes.extend(of.chunks(2).map(|two| two[0] & 15 | two.get(1).map_or(0, |high| high << 4))),
                    _ => codes.extend(of),
                }
            }
            let bit = |r: usize, c: usize| u64::from(c < cols && mask.get(r, c)) << (c % 64);
            let word = |r: usize, i: usize| (64 * i..64 * i + 64).map(|c| bit(r, c)).sum::<u64>();
            let words = (0..rows).flat_map(|r| (0..cols.div_ceil(64)).map(move |i| (r, i))).map(|(r, i)| word(r, i)).collect();
            let (scales, offsets) = (vec![1.0; rows * (cols / group)], Offsets::Symmetric);
            let parts = QuantizedSparseParts { rows, cols, bits: width, group, words, codes, scales, offsets };
            for layout in [CodeLayout::Windows, CodeLayout::Masked] {
                let op = QuantizedSparse::in_layout(parts.clone(), layout).unwrap().with_activation_bits(ActivationBits::Eight);
                for tokens in 1..=3 {
                    let x = Array2::from_shape_fn((tokens, cols), |(t, c)| {
                        if c % 32 == 5 { 127.0 } else { number(c, t + 3, (-127, 127)) as f32 }
                    });
                    let y = apply(&op, &x);
                    for ((t, r), y) in y.indexed_iter() {
                        let right: i64 =
                            (0..cols).filter(|&c| mask.get(r, c)).map(|c| number(r, c, (least, most)) * x[[t, c]] as i64).sum();
                        assert_eq!(*y, right as f32, "{op:?}, {tokens} tokens, token {t}, output {r}");
                    }
                }
            }
        }
    }
}

#[test]
fn numbers_that_are_none_reach_only_what_keeps_them() {
    let mask = Mask::from_fn(40, 96, |r, c| (r + c) % 3 == 0);
    for op in all(3, (40, 96, 32), &mask) {
        for odd in [f32::NAN, f32::INFINITY] {
            let mut x = normal(6, 2, 96);
            x[[0, 7]] = odd;
            let y = apply(&op, &x);
            let dense = op.to_dense();
            for r in 0..40 {
                assert_eq!(
                    y[[0, r]].is_finite(),
                    !(mask.get(r, 7) && (odd.is_nan() || dense[[r, 7]] != 0.0 || !y[[0, r]].is_finite())),
                    "{op:?}, row {r}"
                );
                assert!(y[[1, r]].is_finite());
            }
        }
    }
}

#[test]
fn numbers_that_were_codes_are_found_again() {
    let mask = Mask::from_fn(24, 128, |r, c| (r * 5 + c * 3) % 7 < 2);
    // Codes of eight bits are found where they reach as far as they can.
    for op in all(4, (24, 128, 32), &mask).into_iter().filter(|op| op.precision() != Precision::U8Grouped(32)) {
        let dense = op.to_dense();
        let again = QuantizedSparse::exactly(&dense, &mask).unwrap_or_else(|| panic!("{op:?} has codes"));
        assert_eq!((bits(&again.to_dense()), again.mask()), (bits(&dense), mask.clone()), "{op:?}: {again:?}");
    }
    let w = normal(9, 24, 128);
    assert!(QuantizedSparse::exactly(&w, &mask).is_none(), "numbers of no grid");
    assert!(QuantizedSparse::exactly(&w.slice(s![.., ..100]), &Mask::full(24, 100)).is_none());
}

#[test]
fn the_same_numbers_as_whole_weights_with_zeros() {
    let (w, mask) = (normal(8, 33, 128), Mask::from_fn(33, 128, |r, c| (r + c * c) % 5 == 0));
    for kind in kinds(64) {
        let whole = Quantized::round_to_nearest(&mask.applied(&w), kind).unwrap();
        let kept = QuantizedSparse::round_to_nearest(&w, &mask, kind).unwrap();
        assert_eq!(whole.to_dense(), kept.to_dense(), "{kind}");
        for format in [Format::Sell(Slots::Padded), Format::Bitmask(64)] {
            if kind == Precision::I8Grouped(64) && format == Format::Bitmask(64) {
                continue; // A storage of numbers with scales of tiles.
            }
            let op = format.build(&w, &mask, kind).unwrap();
            assert_eq!((bits(&op.to_dense()), op.mask()), (bits(&kept.to_dense()), mask.clone()), "{format}, {kind}");
            let parts = format.parts(&w, &mask, kind).unwrap();
            assert_eq!(bits(&parts.into_storage().unwrap().to_dense()), bits(&kept.to_dense()));
        }
    }
    let blocks = Mask::from_fn(32, 128, |r, c| (r / 16 + c) % 4 == 0);
    let op = Format::Bsr(16, 1).build(&w.slice(s![..32, ..]), &blocks, Precision::I4Grouped(32)).unwrap();
    assert_eq!(op.mask(), blocks);
    let refused = Format::Bsr(16, 1).build(&w, &mask, Precision::I4Grouped(32)).err().unwrap().to_string();
    assert!(refused.contains("block16x1"), "{refused}");
}

#[test]
fn plans_keep_what_the_mask_keeps() {
    let (w, mask) = (normal(8, 64, 256), Mask::from_fn(64, 256, |r, c| (r * 3 + c) % 10 == 0));
    for values in [Precision::I4Grouped(32), Precision::U4Grouped(64), Precision::U8Grouped(32)] {
        let hint = Hint::tokens(1).with_values(values).with_activation_bits(ActivationBits::Eight);
        let candidates = Plan::candidates(&mask, hint);
        assert!(candidates.contains(&Format::Sell(Slots::Padded)) && candidates.contains(&Format::Bitmask(64)), "{candidates:?}");
        let mut plan = Plan::new(&w, &mask, hint).unwrap();
        let right = QuantizedSparse::round_to_nearest(&w, &mask, values).unwrap().to_dense();
        assert_eq!((plan.mask(), plan.to_dense()), (&mask, right.clone()));
        plan.tune().unwrap();
        assert_eq!((plan.mask(), plan.nnz()), (&mask, mask.kept()), "{}", plan.explain());
        if values == Precision::I4Grouped(32) {
            assert_eq!(plan.to_dense(), right, "rounded numbers stay as they are");
        }
    }
}

#[test]
fn what_is_wrong_is_refused_with_the_numbers() {
    let mask = Mask::from_fn(8, 64, |r, c| (r + c) % 4 == 0);
    let right = QuantizedSparse::round_to_nearest(&normal(1, 8, 64), &mask, Precision::U4Grouped(32)).unwrap().parts();
    let refused = |parts: QuantizedSparseParts| QuantizedSparse::new(parts).unwrap_err().to_string();
    let cases = [
        (QuantizedSparseParts { bits: 3, ..right.clone() }, "codes of 3 bits"),
        (QuantizedSparseParts { group: 48, ..right.clone() }, "groups of 48 inputs in rows of 64"),
        (QuantizedSparseParts { words: vec![0; 7], ..right.clone() }, "7 words for 8 rows of 64 bits"),
        (QuantizedSparseParts { codes: vec![0; 63], ..right.clone() }, "63 bytes of codes for 128 weights of 4 bits"),
        (QuantizedSparseParts { scales: vec![f32::NAN; 16], ..right.clone() }, "a scale is NaN"),
        (QuantizedSparseParts { scales: vec![1.0; 15], ..right.clone() }, "15 scales for 8 rows of 2 groups"),
        (QuantizedSparseParts { offsets: Offsets::ZeroPoints(vec![16; 16]), ..right.clone() }, "a zero point is 16"),
        (
            QuantizedSparseParts { cols: 60, group: 60, scales: vec![1.0; 8], offsets: Offsets::Symmetric, ..right.clone() },
            "a bit stands beyond the last of 60 columns",
        ),
    ];
    for (parts, says) in cases {
        let said = refused(parts);
        assert!(said.contains(says), "{said} instead of {says}");
    }
    let least = QuantizedSparseParts { offsets: Offsets::Minimums(vec![f32::NAN; 16]), scales: vec![0.5; 16], ..right.clone() };
    assert!(refused(least).contains("an offset is NaN"));
    let mut w = normal(1, 8, 64);
    w[[3, 1]] = f32::INFINITY;
    let said = QuantizedSparse::round_to_nearest(&w, &mask, Precision::I4Grouped(32)).unwrap_err().to_string();
    assert!(said.contains("row 3") && said.contains("inf"), "{said}");
    w[[3, 2]] = f32::INFINITY;
    w[[3, 1]] = 0.0;
    assert!(QuantizedSparse::round_to_nearest(&w, &mask, Precision::I4Grouped(32)).is_ok(), "what is dropped does not matter");
}
