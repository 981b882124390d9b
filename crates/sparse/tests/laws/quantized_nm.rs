//! N:M in four and eight bits: exact round trips, the mask that was given, and products within the error of what activations are rounded to.

use crate::common::normal;
use lacuna_sparse::mask::{Mask, Pattern, Scope, select};
use lacuna_sparse::storage::{
    ActivationBits, Epilogue, Format, Hint, LinearOp, Offsets, Parts, Plan, Precision, Quantized, QuantizedNm, QuantizedNmParts,
    Stored, apply, apply_transpose,
};
use ndarray::{Array2, ArrayRef2, s};

const PATTERNS: [(usize, usize); 6] = [(1, 2), (2, 4), (4, 8), (1, 4), (2, 8), (4, 16)];

fn kinds(group: usize) -> [Precision; 4] {
    [Precision::I4Grouped(group), Precision::U4Grouped(group), Precision::I8Grouped(group), Precision::U8Grouped(group)]
}

/// Shapes with groups: whole blocks, several, and rows that are no whole blocks.
const SHAPES: [(usize, usize, usize); 5] = [(1, 32, 32), (9, 96, 32), (33, 128, 64), (70, 320, 32), (20, 80, 80)];

fn bits(a: &ArrayRef2<f32>) -> Vec<u32> {
    a.iter().map(|v| v.to_bits()).collect()
}

fn pruned((rows, cols): (usize, usize), (n, m): (usize, usize)) -> (Array2<f32>, Mask) {
    let w = normal((n * 17 + m) as u64, rows, cols);
    let pattern = Pattern::Nm { n, m };
    let mask = select(&w.mapv(f32::abs), pattern, Scope::Layer, pattern.budget(rows, cols, 0.0).unwrap()).unwrap();
    (w, mask)
}

fn all(seed: u64, (rows, cols, group): (usize, usize, usize), (n, m): (usize, usize)) -> (Mask, Vec<QuantizedNm>) {
    let (w, mask) = pruned((rows, cols), (n, m));
    let w = w + seed as f32 * 1e-3;
    let mut all: Vec<QuantizedNm> =
        kinds(group).map(|kind| QuantizedNm::round_to_nearest(&w, &mask, (n, m), kind).unwrap()).into();
    let parts = all[1].parts();
    let least = parts.scales.iter().map(|s| half::f16::from_f32(-7.3 * s).to_f32()).collect();
    all.push(QuantizedNm::new(QuantizedNmParts { offsets: Offsets::Minimums(least), ..parts }).unwrap());
    (mask, all)
}

#[test]
fn parts_files_and_masks_come_back() {
    for (shape, pattern) in SHAPES.into_iter().flat_map(|s| PATTERNS.map(|p| (s, p))) {
        let (rows, cols, group) = shape;
        let (mask, all) = all(1, shape, pattern);
        for op in all {
            let parts = op.parts();
            assert_eq!(QuantizedNm::new(parts.clone()).unwrap(), op, "{op:?}");
            assert_eq!((op.mask(), op.nnz(), op.format(), op.pattern()), (mask.clone(), mask.kept(), "nm", pattern), "{op:?}");
            let stored: Parts = Stored::to_parts(&op);
            assert_eq!(<QuantizedNm as Stored>::from_parts(stored.clone()).unwrap(), op);
            let dense = op.to_dense();
            assert_eq!(bits(&stored.into_storage().unwrap().to_dense()), bits(&dense), "{op:?}");
            let each = cols / pattern.1 * pattern.0;
            let mut next = 0;
            for ((r, c), w) in dense.indexed_iter() {
                if !mask.get(r, c) {
                    assert_eq!(w.to_bits(), 0, "{op:?}, row {r}, column {c} is dropped");
                    continue;
                }
                let at = r * (cols / group) + c / group;
                let within = next % each;
                let code = match parts.bits {
                    4 => f32::from(parts.codes[r * each.div_ceil(2) + within / 2] >> (4 * (within % 2)) & 15),
                    _ => f32::from(parts.codes[r * each + within] as i8),
                };
                next += 1;
                let right = match &parts.offsets {
                    Offsets::Symmetric => parts.scales[at] * (code - if parts.bits == 4 { 8.0 } else { 0.0 }),
                    Offsets::ZeroPoints(zeros) => parts.scales[at] * (code - f32::from(zeros[at])),
                    Offsets::Minimums(least) => parts.scales[at] * code + least[at],
                };
                assert_eq!(w.to_bits(), right.to_bits(), "{op:?}, row {r}, column {c}");
            }
            assert_eq!(op.to_csr().to_dense(), dense);
            let mut row = vec![0.0; cols];
            op.row_into(rows - 1, &mut row);
            assert_eq!(row, dense.row(rows - 1).to_vec());
        }
    }
}

#[test]
fn products_are_those_of_what_is_kept_within_what_activations_are_rounded_to() {
    for (shape, pattern) in SHAPES.into_iter().flat_map(|s| PATTERNS.map(|p| (s, p))) {
        let (rows, cols, group) = shape;
        let (mask, all) = all(2, shape, pattern);
        for (op, activations) in all.iter().flat_map(|op| [ActivationBits::Full, ActivationBits::Eight].map(|a| (op, a))) {
            let op = op.clone().with_activation_bits(activations);
            let (wide, QuantizedNmParts { scales, bits: width, .. }) = (op.to_dense().mapv(f64::from), op.parts());
            for tokens in [0, 1, 2, 3, 4, 7] {
                let x = normal(3, tokens, cols);
                let y = apply(&op, &x);
                let right = x.mapv(f64::from).dot(&wide.t());
                let share = if activations == ActivationBits::Eight { 0.5 / 127.0 } else { 3e-7 };
                let largest = Array2::from_shape_fn((tokens, cols.div_ceil(32)), |(t, b)| {
                    f64::from(x.slice(s![t, b * 32..(b * 32 + 32).min(cols)]).iter().fold(0.0f32, |m, v| m.max(v.abs())))
                });
                for ((t, r), y) in y.indexed_iter() {
                    let term = |c: usize| {
                        let scale = f64::from(scales[r * (cols / group) + c / group].abs());
                        let steps = if width == 4 { 16.0 } else { 256.0 };
                        // What activations are rounded by meets weights; what sums are rounded by, codes and zeros too.
                        largest[[t, c / 32]] * (share * wide[[r, c]].abs() + 1e-6 * steps * scale)
                    };
                    let bound: f64 = (0..cols).filter(|&c| mask.get(r, c)).map(term).sum();
                    let error = (f64::from(*y) - right[[t, r]]).abs();
                    assert!(error <= bound + 1e-6, "{op:?}, {tokens} tokens, token {t}, output {r}: {error:e} above {bound:e}");
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

#[test]
fn dropped_inputs_reach_nothing_whatever_they_are() {
    let (mask, all) = all(3, (9, 96, 32), (2, 4));
    for (op, odd) in all.iter().flat_map(|op| [f32::NAN, f32::INFINITY].map(|odd| (op, odd))) {
        for tokens in [1, 6] {
            let mut x = Array2::ones((tokens, 96));
            x[[0, 33]] = odd;
            let y = apply(op, &x);
            for r in 0..9 {
                assert_eq!(y[[0, r]].is_finite(), !mask.get(r, 33), "{op:?}, output {r}");
            }
        }
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (_, all) = all(4, (200, 640, 32), (4, 8));
    for op in all {
        for tokens in [1, 2, 9] {
            let x = normal(6, tokens, 640);
            assert_eq!(bits(&apply(&op, &x)), bits(&one.install(|| apply(&op, &x))), "{op:?}, {tokens} tokens");
        }
    }
}

#[test]
fn grids_are_recognised_under_a_mask_and_plans_take_the_pattern() {
    let whole = Quantized::round_to_nearest(&normal(7, 40, 128), Precision::U4Grouped(32)).unwrap().to_dense();
    let (_, mask) = pruned((40, 128), (2, 4));
    let w = mask.applied(&whole);
    let op = QuantizedNm::exactly(&w, &mask, (2, 4)).unwrap();
    assert_eq!((bits(&op.to_dense()), op.mask()), (bits(&w), mask.clone()));
    assert!(QuantizedNm::exactly(&normal(7, 40, 128), &mask, (2, 4)).is_none());
    assert!(QuantizedNm::exactly(&w, &mask, (1, 2)).is_none(), "another pattern");
    for kind in [Precision::I4Grouped(32), Precision::U8Grouped(64)] {
        let op = Format::Nm(2, 4).build(&w, &mask, kind).unwrap();
        assert_eq!((op.format(), op.nnz()), ("nm", mask.kept()));
        let hint = Hint::tokens(1).from_memory().with_values(kind).with_activation_bits(ActivationBits::Eight);
        assert_eq!(Plan::candidates(&mask, hint), [Format::Nm(2, 4)]);
        let mut plan = Plan::new(&w, &mask, hint).unwrap();
        plan.tune().unwrap();
        assert!([Format::Nm(2, 4), Format::Dense].contains(&plan.chosen(1)), "{}", plan.explain());
    }
}

#[test]
fn what_breaks_an_invariant_is_refused() {
    let (w, mask) = pruned((3, 64), (2, 4));
    let right = QuantizedNm::round_to_nearest(&w, &mask, (2, 4), Precision::U4Grouped(32)).unwrap().parts();
    let odd = |change: &dyn Fn(&mut QuantizedNmParts)| {
        let mut parts = right.clone();
        change(&mut parts);
        QuantizedNm::new(parts).unwrap_err().to_string()
    };
    assert_eq!(odd(&|p| (p.n, p.m) = (3, 4)), "quantized-nm: 3:4, where 1:2, 2:4, 4:8, 1:4, 2:8 and 4:16 are possible");
    assert_eq!(odd(&|p| p.words.truncate(2)), "quantized-nm: 2 words for 3 rows of 64 bits");
    assert_eq!(odd(&|p| p.codes.truncate(2)), "quantized-nm: 2 bytes of codes for 3 rows of 32 of 4 bits");
    assert_eq!(odd(&|p| p.rows = 1 << 26), "quantized-nm: 67108864 x 64 weights, where 32 bits count them");
    assert_eq!(odd(&|p| p.bits = 5), "quantized-nm: codes of 5 bits, where 4 and 8 are possible");
    assert_eq!(odd(&|p| p.scales[0] = f32::NAN), "quantized-nm: a scale is NaN");
    assert!(odd(&|p| p.words[1] ^= 1).starts_with("quantized-nm: mask is not 2:4: row"), "{}", odd(&|p| p.words[1] ^= 1));
    let said = |pattern: (usize, usize), mask: &Mask| {
        QuantizedNm::round_to_nearest(&w, mask, pattern, Precision::I4Grouped(32)).unwrap_err().to_string()
    };
    assert!(said((2, 4), &Mask::full(3, 64)).starts_with("mask is not 2:4: row"));
    assert!(said((2, 4), &Mask::full(3, 60)).contains("[3, 64]"));
    let wide = normal(1, 2, 40);
    let refused = QuantizedNm::round_to_nearest(&wide, &Mask::full(2, 40), (4, 16), Precision::I8).unwrap_err().to_string();
    assert_eq!(refused, "quantized-nm: 4:16 of rows of 40");
}
