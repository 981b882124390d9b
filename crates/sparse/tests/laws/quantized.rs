//! Whole weights in four and eight bits: exact round trips, and products within the error of what activations are rounded to.

use crate::close::assert_close;
use crate::common::{normal, oracle, whole};
use lacuna_sparse::mask::Mask;
use lacuna_sparse::storage::{
    ActivationBits, Epilogue, Format, LinearOp, Offsets, PackedDense, Parts, Precision, Quantized, QuantizedNm, QuantizedParts,
    Stored, apply, apply_transpose, narrow,
};
use ndarray::{Array2, ArrayRef2, s};

/// All kinds with groups of so many inputs.
fn kinds(group: usize) -> [Precision; 4] {
    [Precision::I4Grouped(group), Precision::U4Grouped(group), Precision::I8Grouped(group), Precision::U8Grouped(group)]
}

/// Shapes with groups that they allow: whole blocks, several blocks, rows that are no whole blocks.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 32, 32), (7, 64, 32), (33, 96, 96), (131, 640, 128), (48, 1056, 32), (20, 70, 70), (3, 1, 1)];

fn bits(a: &ArrayRef2<f32>) -> Vec<u32> {
    a.iter().map(|v| v.to_bits()).collect()
}

/// The offsets of Q4_1: not 0 in units of the scale.
fn with_least(seed: u64, (rows, cols, group): (usize, usize, usize)) -> Quantized {
    let parts = Quantized::round_to_nearest(&normal(seed, rows, cols), Precision::U4Grouped(group)).unwrap().parts();
    let least = parts.scales.iter().enumerate().map(|(i, s)| half::f16::from_f32(-s * (7.3 + (i % 3) as f32)).to_f32()).collect();
    Quantized::new(QuantizedParts { offsets: Offsets::Minimums(least), ..parts }).unwrap()
}

#[test]
fn parts_and_files_give_back_the_same_weight() {
    for (rows, cols, group) in SHAPES {
        let all = kinds(group).map(|kind| Quantized::round_to_nearest(&normal(1, rows, cols), kind).unwrap());
        for op in all.into_iter().chain([with_least(2, (rows, cols, group))]) {
            let parts = op.parts();
            assert_eq!(Quantized::new(parts.clone()).unwrap(), op, "{op:?}");
            let stored: Parts = Stored::to_parts(&op);
            assert_eq!(<Quantized as Stored>::from_parts(stored.clone()).unwrap(), op);
            let opened = stored.into_storage().unwrap();
            assert_eq!(bits(&opened.to_dense()), bits(&op.to_dense()), "{op:?}");
            let dense = op.to_dense();
            let code = |r: usize, c: usize| match parts.bits {
                4 => f32::from(parts.codes[r * cols.div_ceil(2) + c / 2] >> (4 * (c % 2)) & 15),
                _ => f32::from(parts.codes[r * cols + c] as i8),
            };
            let mut row = vec![0.0; cols];
            for ((r, c), w) in dense.indexed_iter() {
                let at = r * (cols / group) + c / group;
                let scale = parts.scales[at];
                let right = match &parts.offsets {
                    Offsets::Symmetric => scale * (code(r, c) - if parts.bits == 4 { 8.0 } else { 0.0 }),
                    Offsets::ZeroPoints(zeros) => scale * (code(r, c) - f32::from(zeros[at])),
                    Offsets::Minimums(least) => scale * code(r, c) + least[at],
                };
                assert_eq!(w.to_bits(), right.to_bits(), "{op:?}, row {r}, column {c}");
            }
            op.row_into(rows - 1, &mut row);
            assert_eq!(row, dense.row(rows - 1).to_vec());
            let side = if cfg!(target_arch = "x86_64") { 16 } else { 8 };
            let cells = rows.next_multiple_of(side) * cols.next_multiple_of(32);
            let groups = rows.next_multiple_of(side) * (cols / group);
            assert!(op.bytes() <= cells * usize::from(parts.bits) / 8 + 8 * groups, "{op:?}: {} bytes", op.bytes());
        }
    }
}

#[test]
fn rounding_is_within_half_a_step_and_keeps_zeros() {
    for (rows, cols, group) in SHAPES {
        let mut w = normal(3, rows, cols);
        w.slice_mut(s![.., ..;3]).fill(0.0);
        for kind in kinds(group) {
            let op = Quantized::round_to_nearest(&w, kind).unwrap();
            assert_eq!(op.precision().to_string().split(':').next(), Some(op.format()));
            let (dense, QuantizedParts { scales, bits, .. }) = (op.to_dense(), op.parts());
            for ((r, c), w) in w.indexed_iter() {
                let scale = scales[r * (cols / group) + c / group];
                // Scales of 16 bits are off by 2⁻¹¹ of themselves, which the last codes have as often as they are steps.
                let bound = scale * (0.5 + if bits == 4 { 0.01 } else { 0.13 });
                assert!((dense[[r, c]] - w).abs() <= bound, "{op:?}, row {r}, column {c}: {} for {w}", dense[[r, c]]);
                assert!(*w != 0.0 || dense[[r, c]] == 0.0, "{op:?}: 0 became {}", dense[[r, c]]);
            }
        }
    }
}

#[test]
fn products_are_those_of_the_dense_weight_within_what_activations_are_rounded_to() {
    for (rows, cols, group) in SHAPES {
        let all = kinds(group).map(|kind| Quantized::round_to_nearest(&normal(4, rows, cols), kind).unwrap());
        for op in all.into_iter().chain([with_least(5, (rows, cols, group))]) {
            let wide = op.to_dense().mapv(f64::from);
            for activations in [ActivationBits::Full, ActivationBits::Eight] {
                let op = op.clone().with_activation_bits(activations);
                for tokens in [0, 1, 2, 3, 4, 5, 8, 67] {
                    let x = normal(6, tokens, cols);
                    let y = apply(&op, &x);
                    let right = x.mapv(f64::from).dot(&wide.t());
                    // Of each product: half a code of x, which is a share of the largest of 32.
                    let eight = activations == ActivationBits::Eight;
                    let share = if !eight {
                        3e-7
                    } else if op.parts().bits == 4 {
                        0.5 / 127.0
                    } else {
                        0.5 / 32767.0
                    };
                    let largest = Array2::from_shape_fn((tokens, cols.div_ceil(32)), |(t, b)| {
                        f64::from(x.slice(s![t, b * 32..(b * 32 + 32).min(cols)]).iter().fold(0.0f32, |m, v| m.max(v.abs())))
                    });
                    let steps = op.parts();
                    for ((t, r), y) in y.indexed_iter() {
                        // Sums of codes are sums of weights and of as many scales as their zeros.
                        let bound: f64 = (0..cols)
                            .map(|c| {
                                let scale = f64::from(steps.scales[r * (cols / group) + c / group].abs());
                                (share + 1e-6) * largest[[t, c / 32]] * (wide[[r, c]].abs() + 16.0 * scale)
                            })
                            .sum();
                        let error = (f64::from(*y) - right[[t, r]]).abs();
                        assert!(error <= bound, "{op:?}, {tokens} tokens, token {t}, output {r}: {error:e} above {bound:e}");
                    }
                    let mut apart = Array2::zeros((tokens, 2 * cols));
                    apart.slice_mut(s![.., ..;2]).assign(&x);
                    let mut turned = Array2::from_elem((rows, tokens), f32::NAN).reversed_axes();
                    op.apply_into(&apart.slice(s![.., ..;2]), &mut turned);
                    assert_eq!(bits(&turned), bits(&y), "{op:?}, {tokens} tokens, strides");
                    let mut sum = normal(7, tokens, rows);
                    let before = sum.clone();
                    let bias: Vec<f32> = (0..rows).map(|r| r as f32).collect();
                    op.apply_with(&x, &mut sum, &Epilogue { bias: Some(&bias), accumulate: true, ..Epilogue::default() });
                    let right = Array2::from_shape_fn((tokens, rows), |(t, r)| before[[t, r]] + (y[[t, r]] + bias[r]));
                    assert_eq!(bits(&sum), bits(&right), "{op:?}, {tokens} tokens, accumulated");
                }
                let dy = normal(8, 5, rows);
                assert_close(&apply_transpose(&op, &dy), &dy.dot(&op.to_dense()), 1e-4, format!("{op:?}, back"));
            }
        }
    }
}

/// Whole numbers up to `most`, which is among those of each 32 and of each that a mask below keeps: rounding leaves them as they are.
fn whole_in_blocks(rows: usize, cols: usize, most: usize, name: &str) -> Array2<f32> {
    let mut x = whole(rows, cols, most, name);
    x.indexed_iter_mut().filter(|((r, c), _)| (c + r) % 4 == 0 || (c + 3 * r) % 16 == 0).for_each(|(_, x)| *x = most as f32);
    x
}

#[test]
fn whole_numbers_are_multiplied_exactly_with_activations_of_eight_bits() {
    let eight = ActivationBits::Eight;
    for (rows, cols) in [(3, 32), (17, 96), (40, 352)] {
        let full = Mask::full(rows, cols);
        let half = Mask::from_fn(rows, cols, |r, c| (c + r) % 4 < 2);
        let quarter = Mask::from_fn(rows, cols, |r, c| (c + 3 * r) % 16 < 4);
        for (most, kind) in [(7, Precision::I4Grouped(32)), (127, Precision::I8Grouped(32))] {
            let w = whole_in_blocks(rows, cols, most, "weight");
            let dense = Quantized::round_to_nearest(&w, kind).unwrap().with_activation_bits(eight);
            let mut ops: Vec<(Box<dyn LinearOp>, &Mask)> = vec![(Box::new(dense), &full)];
            for (mask, pattern) in [(&half, (2, 4)), (&half, (4, 8)), (&quarter, (4, 16))] {
                let op = QuantizedNm::round_to_nearest(&w, mask, pattern, kind).unwrap();
                ops.push((Box::new(op.with_activation_bits(eight)), mask));
            }
            for (op, mask) in ops {
                for tokens in [1, 2, 3, 4, 9] {
                    let x = whole_in_blocks(tokens, cols, 127, "input");
                    let (y, right) = (apply(op.as_ref(), &x), oracle(&w, mask, &x).mapv(|y| y as f32));
                    if op.format() == "i8" {
                        // Whole weights of eight bits meet words, whose steps are no whole numbers: each is off by half a step.
                        assert_close(&y, &right, cols as f32 * 127.0 * 0.5 * 127.0 / 32767.0, format!("{op:?}, {tokens} tokens"));
                    } else {
                        assert_eq!(y, right, "{op:?}, {tokens} tokens");
                    }
                }
            }
        }
    }
}

#[test]
fn activations_of_32_bits_have_the_accuracy_of_f32() {
    // A row has one number that is not 0, so its output is one number of x, as it is multiplied.
    let (rows, cols) = (96, 96);
    let half = Mask::from_fn(rows, cols, |r, c| (c + 3 * r) % 4 < 2);
    let quarter = Mask::from_fn(rows, cols, |r, c| (c + 15 * r) % 16 < 4);
    for (size, kind) in [(7.0, Precision::I4Grouped(32)), (127.0, Precision::I8Grouped(32))] {
        let w = Array2::from_shape_fn((rows, cols), |(r, c)| if r == c { size } else { 0.0 });
        let mut ops: Vec<Box<dyn LinearOp>> = vec![Box::new(Quantized::round_to_nearest(&w, kind).unwrap())];
        for (mask, pattern) in [(&half, (2, 4)), (&half, (4, 8)), (&quarter, (4, 16))] {
            ops.push(Box::new(QuantizedNm::round_to_nearest(&w, mask, pattern, kind).unwrap()));
        }
        for op in ops {
            assert_eq!(op.to_dense(), w, "{op:?}");
            for tokens in [1, 2, 4, 5] {
                let x = normal(20, tokens, cols);
                let y = apply(op.as_ref(), &x);
                for ((t, r), y) in y.indexed_iter() {
                    let block = x.slice(s![t, r / 32 * 32..r / 32 * 32 + 32]);
                    let largest = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let error = (f64::from(*y) / f64::from(size) - f64::from(x[[t, r]])).abs() / f64::from(largest);
                    // Half a code of the last plane is 6e-8, and step and scaling round by as much each. In a pattern codes up to 15 and zeros of 8 are summed
                    // apart, of which 7 are left: 23 / 7 as large roundings of a factor, a product and, where none is fused, a sum. Without the last plane it would be 1.5e-5.
                    let bound = if op.format() == "nm" { 8e-7 } else { 3e-7 };
                    assert!(error <= bound, "{op:?}, {tokens} tokens, token {t}, output {r}: {error:.1e} of the largest");
                }
            }
        }
    }
}

#[test]
fn bits_depend_neither_on_threads_nor_on_other_tokens() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let op = Quantized::round_to_nearest(&normal(9, 300, 640), Precision::I4Grouped(64)).unwrap();
    let x = normal(10, 150, 640);
    for (activations, parts) in [
        (ActivationBits::Full, vec![1, 2, 3, 4]),
        (ActivationBits::Full, vec![5, 9, 150]),
        (ActivationBits::Eight, vec![1, 2, 3, 4, 5, 64, 66, 150]),
    ] {
        let op = op.clone().with_activation_bits(activations);
        let whole = apply(&op, &x.slice(s![..*parts.last().unwrap(), ..]));
        for tokens in parts {
            let some = x.slice(s![..tokens, ..]);
            assert_eq!(
                bits(&apply(&op, &some)),
                bits(&whole.slice(s![..tokens, ..]).to_owned()),
                "{activations}, {tokens} tokens"
            );
            assert_eq!(
                bits(&one.install(|| apply(&op, &some))),
                bits(&whole.slice(s![..tokens, ..]).to_owned()),
                "{tokens} tokens, one thread"
            );
        }
    }
    // More than four tokens are multiplied as the packed dense weight.
    let packed = PackedDense::new(&op.to_dense());
    assert_eq!(bits(&apply(&op, &x)), bits(&apply(&packed, &x)));
}

#[test]
fn what_has_no_codes_is_multiplied_as_it_is() {
    let op = Quantized::round_to_nearest(&normal(11, 9, 64), Precision::I4Grouped(32)).unwrap();
    for (activations, odd) in [ActivationBits::Full, ActivationBits::Eight]
        .into_iter()
        .flat_map(|a| [f32::NAN, f32::INFINITY, 1e32, -1e-32].map(|odd| (a, odd)))
    {
        let op = op.clone().with_activation_bits(activations);
        for tokens in [1, 3, 7] {
            let mut x = Array2::zeros((tokens, 64));
            x[[tokens - 1, 40]] = odd;
            let (y, right) = (apply(&op, &x), apply(&PackedDense::new(&op.to_dense()), &x));
            assert!(
                y.iter().zip(&right).all(|(y, r)| y.to_bits() == r.to_bits() || y.is_nan() && r.is_nan()),
                "{odd}: {y}, {right}"
            );
        }
    }
}

#[test]
fn grids_of_files_are_recognised_to_the_bit() {
    let f16 = |w: f32| half::f16::from_f32(w).to_f32();
    let codes = |r: usize, c: usize| ((r * 31 + c * 17 + c / 32) % 16) as f32;
    // Q4_0, whose scale may be negative, so that some zeros have a sign; Q4_1; Q4_K, whose scales are products; Q8_0.
    let q4_0 = Array2::from_shape_fn((5, 128), |(r, c)| {
        f16(if (r + c / 32) % 2 == 0 { -0.0317 } else { 0.021 } * (r + 1) as f32) * (codes(r, c) - 8.0)
    });
    let q4_1 = Array2::from_shape_fn((5, 128), |(r, c)| f16(0.013 * (r + c / 32 + 1) as f32) * codes(r, c) + f16(-0.07));
    let q4_k = Array2::from_shape_fn((5, 128), |(r, c)| {
        f16(0.00123) * (r + c / 32 + 7) as f32 * codes(r, c) - f16(0.00211) * (40 + c / 32) as f32
    });
    let q8_0 = Array2::from_shape_fn((5, 128), |(r, c)| {
        f16(0.0071 * (r + c / 32 + 1) as f32) * if c % 32 == 3 { 127.0 } else { ((r * 31 + c * 57) % 255) as f32 - 127.0 }
    });
    for (name, w, kind) in [("q4_0", q4_0, "i4:32"), ("q4_1", q4_1, "u4:32"), ("q4_k", q4_k, "u4:32"), ("q8_0", q8_0, "i8:32")] {
        let op = Quantized::exactly(&w).unwrap_or_else(|| panic!("{name} is not recognised"));
        assert_eq!((op.precision().to_string().as_str(), bits(&op.to_dense())), (kind, bits(&w)), "{name}");
        assert_eq!(narrow(&w).unwrap().format(), op.format());
        let mut odd = w.clone();
        odd[[4, 100]] = f32::from_bits(odd[[4, 100]].to_bits() ^ 1);
        assert!(Quantized::exactly(&odd).is_none(), "{name}: one number off its grid");
    }
    // One scale for 128 inputs is found again.
    let wide = Quantized::round_to_nearest(&normal(12, 6, 256), Precision::I4Grouped(128)).unwrap();
    assert_eq!(Quantized::exactly(&wide.to_dense()).unwrap().precision(), Precision::I4Grouped(128));
    let zeros = Quantized::exactly(&Array2::zeros((3, 64))).unwrap();
    assert_eq!((zeros.precision(), zeros.to_dense()), (Precision::I4Grouped(64), Array2::zeros((3, 64))));
}

#[test]
fn formats_build_and_convert_them() {
    let w = normal(13, 40, 128);
    let mask = Mask::from_fn(40, 128, |r, c| (r + c) % 2 == 0);
    for kind in kinds(32) {
        let op = Format::Dense.build(&w, &mask, kind).unwrap();
        assert_eq!((op.nnz(), op.bytes() < 40 * 128 * 2), (mask.kept(), true));
        assert!(op.to_dense().indexed_iter().all(|((r, c), w)| mask.get(r, c) || *w == 0.0), "{kind}: what is dropped is 0");
        assert_eq!(Format::Dense.parts(&w, &mask, kind).unwrap().into_storage().unwrap().to_dense(), op.to_dense());
        let refused = Format::Csr.build(&w, &mask, kind).err().map(|e| e.to_string());
        assert_eq!(refused, Some(format!("values: csr keeps f32 only, not {kind}")));
    }
    // Numbers of eight bits stay as they are.
    let sparse = Format::TileCsr(32).build(&w, &mask, Precision::I8Grouped(32)).unwrap();
    let whole = Format::Dense.convert_to(sparse.as_ref(), Precision::I8Grouped(32)).unwrap();
    assert_eq!((whole.format(), bits(&whole.to_dense())), ("i8", bits(&sparse.to_dense())));
    let refused = Format::TileCsr(64).build(&w, &mask, Precision::I4Grouped(64)).err().map(|e| e.to_string());
    let says = "values: tile-csr:64 keeps f32, bf16, f16 and i8, not i4:64: dense, sell, bitmask, nm and bsr do";
    assert_eq!(refused.as_deref(), Some(says));
}

#[test]
fn what_breaks_an_invariant_is_refused() {
    let right = Quantized::round_to_nearest(&normal(14, 3, 64), Precision::U4Grouped(32)).unwrap().parts();
    let least = || Offsets::Minimums(vec![0.0; 6]);
    let odd = |change: &dyn Fn(&mut QuantizedParts), said: &str| {
        let mut parts = right.clone();
        change(&mut parts);
        assert_eq!(Quantized::new(parts).unwrap_err().to_string(), format!("quantized: {said}"));
    };
    odd(&|p| p.bits = 3, "codes of 3 bits, where 4 and 8 are possible");
    odd(
        &|p| p.group = 48,
        "groups of 48 inputs in rows of 64, where multiples of 32 that divide a row are possible, or all of it",
    );
    odd(&|p| p.group = 0, "groups of 0 inputs in rows of 64, where multiples of 32 that divide a row are possible, or all of it");
    odd(&|p| p.codes.truncate(95), "95 bytes of codes for 3 x 64 of 4 bits");
    odd(&|p| p.rows = usize::MAX, "18446744073709551615 x 64 weights, where 32 bits count them");
    odd(&|p| p.scales.truncate(5), "5 scales for 3 rows of 2 groups");
    odd(&|p| p.scales[1] = f32::NAN, "a scale is NaN");
    odd(&|p| p.scales[1] = f32::INFINITY, "a scale is inf");
    odd(&|p| p.scales[1] = 0.0, "a scale is 0");
    odd(&|p| p.offsets = Offsets::ZeroPoints(vec![0; 5]), "5 zero points for 3 rows of 2 groups");
    odd(&|p| p.offsets = Offsets::ZeroPoints(vec![16; 6]), "a zero point is 16, where 0 to 15 are possible");
    odd(&|p| p.offsets = Offsets::Minimums(vec![0.0; 7]), "7 offsets for 3 rows of 2 groups");
    odd(&|p| p.offsets = Offsets::Minimums(vec![f32::NAN; 6]), "an offset is NaN");
    odd(
        &|p| (p.offsets, p.scales[0]) = (least(), f32::from_bits(0x3dcc_cccd)),
        "a scale is 0.1, which has more than 17 bits beside an offset",
    );
    let w = normal(15, 3, 64);
    let said = |kind: Precision, w: &Array2<f32>| Quantized::round_to_nearest(w, kind).unwrap_err().to_string();
    assert_eq!(said(Precision::F32, &w), "values: f32 has no codes");
    assert_eq!(said(Precision::I4Grouped(48), &w), "values: i4:48: groups of 48 inputs in rows of 64");
    assert_eq!(said(Precision::I4Grouped(0), &w), "values: i4:0: groups of 0 inputs in rows of 64");
    let mut odd = w;
    odd[[2, 3]] = f32::NAN;
    assert!(said(Precision::I8, &odd).contains("NaN"), "{}", said(Precision::I8, &odd));
}
