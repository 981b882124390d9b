//! Tensors that look like weights and are none: what a module keeps beside its parameters.
//!
//! A weight must never be taken for one of these. So a name alone decides only where no weight has it (`inv_freq`,
//! `running_mean`), numbers alone never do where the name is that of a weight (`NAME.weight`, `weight_orig`), and a mask or a
//! table must have both: a place where such things stand, and the numbers of one to the last.
//!
//! ```text
//! causal mask       (…1, n, n)  a where 0 <= i - j < w, else b;  {a, b} = {1, 0}, or 0 and -∞ or less than -10⁴
//! table of angles   (n, d)      pairs of columns sin(p ω), cos(p ω), side by side or in two halves
//! ```

use ndarray::{ArrayD, ArrayView2};

/// Angles that pairs of columns turn by may be off by the rounding of what made them.
const ANGLE: f32 = 2e-3;

/// Queries of a causal mask, at least: a square of four numbers may be anything.
const SMALLEST: usize = 3;

/// Names that only buffers have, and what those are.
const KNOWN: [(&str, &str); 15] = [
    ("inv_freq", "frequencies of rotary positions"),
    ("original_inv_freq", "frequencies of rotary positions"),
    ("masked_bias", "score of what is not seen"),
    ("position_ids", "numbers of positions"),
    ("token_type_ids", "numbers of parts"),
    ("cache_position", "numbers of positions"),
    ("running_mean", "running statistic"),
    ("running_var", "running statistic"),
    ("num_batches_tracked", "running statistic"),
    ("relative_position_index", "numbers of distances"),
    ("relative_coords_table", "table of distances"),
    ("positional_encoding_gaussian_matrix", "drawn directions of positions"),
    ("freqs_cis", "table of rotary positions"),
    ("freqs_cos", "table of rotary positions"),
    ("freqs_sin", "table of rotary positions"),
];

/// The last part of a name.
fn last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

/// Whether the name is that of a weight, whatever its numbers are.
fn is_weight(name: &str) -> bool {
    let last = last(name);
    ["weight", "weight_orig", "original", "kernel"].contains(&last) || last.ends_with("_weight")
}

/// What a tensor is if it is a buffer; `None` for everything else. Without its numbers it is one only where name and shape leave
/// nothing else.
pub(crate) fn buffer(name: &str, shape: &[usize], numbers: Option<&ArrayD<f32>>) -> Option<&'static str> {
    if is_weight(name) {
        return None;
    }
    let last = last(name);
    if let Some((_, what)) = KNOWN.iter().find(|(known, _)| *known == last) {
        return Some(what);
    }
    if ["cos_cached", "sin_cached"].contains(&last) && numbers.is_none_or(|n| n.iter().all(|v| v.abs() <= 1.0 + 1e-5)) {
        return Some("table of rotary positions");
    }
    let masking = ["mask", "bias", "tril", "triu", "causal"].iter().any(|part| last.contains(part));
    let (n, square) = match shape {
        [ones @ .., a, b] if a == b && *a >= SMALLEST => (*a, ones.iter().all(|d| *d == 1)),
        _ => (0, false),
    };
    match numbers {
        // Of two dimensions it may be a matrix of any kind; with ones before them it is laid for heads and sequences.
        Some(numbers) if square && (masking || shape.len() > 2) && is_causal(numbers, n) => Some("causal mask"),
        Some(numbers) if shape.len() >= 2 && last.contains("attn_mask") | last.contains("attention_mask") => {
            is_additive(numbers).then_some("mask of attention")
        }
        Some(numbers) if shape.len() >= 2 && is_table_of_angles(numbers) => Some("table of sines and cosines"),
        None if square && shape.len() == 4 && (name.ends_with("attn.bias") || name.ends_with("attention.bias")) => {
            Some("causal mask")
        }
        _ => None,
    }
}

/// Whether a number stands for "not seen" where 0 stands for "seen".
fn shuts(value: f32) -> bool {
    value <= -1e4
}

/// Whether `n x n` numbers say of each query which keys it sees: itself and those before it, all or the last few.
fn is_causal(numbers: &ArrayD<f32>, n: usize) -> bool {
    let Ok(square) = numbers.to_shape((n, n)) else { return false };
    let (seen, unseen) = (square[[0, 0]], square[[0, n - 1]]);
    let pair = (seen == 1.0 && unseen == 0.0) || (seen == 0.0 && (unseen == 1.0 || shuts(unseen)));
    // A query sees this many: the width of the first column.
    let width = square.column(0).iter().take_while(|v| **v == seen).count();
    let expected = |i: usize, j: usize| if j <= i && i - j < width { seen } else { unseen };
    pair && width >= 2 && square.indexed_iter().all(|((i, j), v)| *v == expected(i, j))
}

/// Whether numbers are 0 and 1, or 0 and one far below.
fn is_additive(numbers: &ArrayD<f32>) -> bool {
    let low = numbers.iter().copied().fold(0.0f32, f32::min);
    let binary = numbers.iter().all(|v| *v == 0.0 || *v == 1.0);
    binary || (low <= -100.0 && numbers.iter().all(|v| *v == 0.0 || *v == low))
}

/// Whether `(positions, features)`, beside dimensions of 1, are sines and cosines of angles that grow evenly.
fn is_table_of_angles(numbers: &ArrayD<f32>) -> bool {
    let wide: Vec<usize> = numbers.shape().iter().copied().filter(|d| *d != 1).collect();
    let [n, d] = wide[..] else { return false };
    if n < 4 || d % 2 != 0 || numbers.iter().any(|v| v.abs() > 1.0 + 1e-5) {
        return false;
    }
    let Ok(table) = numbers.to_shape((n, d)) else { return false };
    let table = table.view();
    (0..d / 2).all(|i| turns(&table, 2 * i, 2 * i + 1)) || (0..d / 2).all(|i| turns(&table, i, i + d / 2))
}

/// Whether two columns are the sine and the cosine, or the cosine and the sine, of one angle that grows evenly from 0.
fn turns(table: &ArrayView2<'_, f32>, a: usize, b: usize) -> bool {
    let (sin, cos) = match (table[[0, a]], table[[0, b]]) {
        (0.0, 1.0) => (a, b),
        (1.0, 0.0) => (b, a),
        _ => return false,
    };
    let at = |p: usize| (table[[p, sin]], table[[p, cos]]);
    let (s, c) = at(1);
    (0..table.nrows() - 1).all(|p| {
        let ((sp, cp), (sn, cn)) = (at(p), at(p + 1));
        (sp * c + cp * s - sn).abs() < ANGLE && (cp * c - sp * s - cn).abs() < ANGLE && (sn * sn + cn * cn - 1.0).abs() < ANGLE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;
    use ndarray::{Array2, IxDyn};

    fn of(name: &str, shape: &[usize], at: impl Fn(usize, usize) -> f32) -> Option<&'static str> {
        let n = shape[shape.len() - 1];
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|i: usize| at(i / n % shape[shape.len() - 2], i % n)).collect();
        buffer(name, shape, Some(&ArrayD::from_shape_vec(IxDyn(shape), numbers).unwrap()))
    }

    #[test]
    fn causal_masks_in_every_notation_are_found_and_one_number_off_is_none() {
        let (inf, low) = (f32::NEG_INFINITY, -1e4);
        for (seen, unseen) in [(1.0, 0.0), (0.0, 1.0), (0.0, inf), (0.0, low), (0.0, f32::MIN)] {
            for name in ["h.0.attn.bias", "mask", "head.tril", "attn_mask", "transformer.causal_mask"] {
                for shape in [&[8, 8][..], &[1, 8, 8], &[1, 1, 8, 8]] {
                    let causal = |i, j| if j <= i { seen } else { unseen };
                    assert_eq!(of(name, shape, causal), Some("causal mask"), "{name} {shape:?} {seen} {unseen}");
                    let window = |i: usize, j: usize| if j <= i && i - j < 3 { seen } else { unseen };
                    assert_eq!(of(name, shape, window), Some("causal mask"), "{name} {shape:?} {seen} {unseen}");
                    let off = |i, j| if (i, j) == (5, 2) { unseen } else { causal(i, j) };
                    let found = of(name, shape, off);
                    assert!(found.is_none() || found == Some("mask of attention"), "{name} {shape:?} {seen} {unseen}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn weights_are_never_taken_for_buffers() {
        let causal = |i: usize, j: usize| f32::from(u8::from(j <= i));
        let identity = |i: usize, j: usize| f32::from(u8::from(j == i));
        for name in ["fc.weight", "fc.weight_orig", "attn.in_proj_weight", "a.parametrizations.weight.original", "conv.kernel"] {
            for shape in [&[8, 8][..], &[1, 1, 8, 8]] {
                assert_eq!(of(name, shape, causal), None, "{name}");
            }
        }
        // A matrix of two dimensions under a name of its own, others than causal, and what is not square.
        assert_eq!(of("transition", &[8, 8], causal), None);
        for name in ["bias", "attn.bias", "w"] {
            assert_eq!(of(name, &[1, 1, 8, 8], identity), None, "{name}");
            assert_eq!(of(name, &[1, 1, 8, 8], |_, _| 1.0), None, "{name}");
            assert_eq!(of(name, &[1, 1, 8, 6], causal), None, "{name}");
            assert_eq!(of(name, &[6, 1, 3, 3], causal), None, "{name}");
            assert_eq!(of(name, &[1, 1, 1, 1], causal), None, "{name}");
            assert_eq!(of(name, &[2, 2], causal), None, "{name}");
            assert_eq!(of(name, &[8, 8], |i, j| if j <= i { 0.5 } else { 0.0 }), None, "{name}");
        }
        let normal = Seed(1).stream("w").normal_array(64, 16, 1.0).into_dyn();
        for name in ["pe", "pos_embed", "relative_position_bias_table", "attn_mask", "cos_cached"] {
            assert_eq!(buffer(name, &[64, 16], Some(&normal)), None, "{name}");
        }
    }

    #[test]
    fn tables_of_sines_and_cosines_are_found_in_both_layouts() {
        let angle = |p: usize, i: usize, d: usize| p as f32 / 10000f32.powf(2.0 * i as f32 / d as f32);
        for (n, d) in [(50, 2), (300, 16), (2000, 64)] {
            let pairs = Array2::from_shape_fn((n, d), |(p, i)| {
                let a = angle(p, i / 2, d);
                if i % 2 == 0 { a.sin() } else { a.cos() }
            });
            let halves = Array2::from_shape_fn((n, d), |(p, i)| {
                let a = angle(p, i % (d / 2), d);
                if i < d / 2 { a.sin() } else { a.cos() }
            });
            for (table, layout) in [(pairs, "pairs"), (halves, "halves")] {
                for shape in [vec![n, d], vec![1, n, d], vec![n, 1, d]] {
                    let table = table.clone().into_shape_with_order(IxDyn(&shape)).unwrap();
                    let found = buffer("pos_encoder.pe", &shape, Some(&table));
                    assert_eq!(found, Some("table of sines and cosines"), "{layout} of {shape:?}");
                    assert_eq!(buffer("position.weight", &shape, Some(&table)), None);
                    let mut trained = table;
                    trained[IxDyn(&if shape.len() == 2 { vec![3, 1] } else { vec![shape[0] / 2, shape[1] / 2, 1] })] += 0.01;
                    assert_eq!(buffer("pos_encoder.pe", &shape, Some(&trained)), None, "{layout} of {shape:?}, one number moved");
                }
            }
        }
    }

    #[test]
    fn without_numbers_only_names_and_shapes_that_leave_nothing_else_decide() {
        assert_eq!(buffer("h.0.attn.bias", &[1, 1, 64, 64], None), Some("causal mask"));
        assert_eq!(buffer("h.0.attn.bias", &[64], None), None);
        assert_eq!(buffer("rotary_emb.inv_freq", &[4], None), Some("frequencies of rotary positions"));
        assert_eq!(buffer("bn.running_var", &[4], None), Some("running statistic"));
        assert_eq!(buffer("mask", &[8, 8], None), None);
        assert_eq!(buffer("pe", &[50, 8], None), None);
    }
}
