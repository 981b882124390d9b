//! Tiled CSR and bitmasks: their numbers, their invariants, and what is done on the way into y.

use crate::close::{apart, assert_within};
use crate::common::largest_of_rows;
use crate::random::Seed;
use crate::{SELL, TOKENS, in_every_format, masks, oracle, random_mask, whole};
use half::{bf16, f16};
use lacuna_sparse::mask::Mask;
use lacuna_sparse::storage::{
    Bitmask, BitmaskParts, Columns, Compress, Epilogue, Expand, LinearOp, Scaling, Sell, TileCsr, TileCsrParts, TilePairs, apply,
};
use ndarray::{Array2, ArrayRef2};
use proptest::prelude::*;

/// Calls `law` with a weight in every tiled storage of one kind of numbers.
pub fn in_every_tiling<T: Expand>(w: &ArrayRef2<f32>, mask: &Mask, mut law: impl FnMut(&str, &dyn LinearOp, Scaling)) {
    for scaling in [Scaling::Row, Scaling::Tile] {
        for columns in [7, 128, 300] {
            let op = TileCsr::<T>::with_tile(w, mask, columns, scaling).unwrap();
            law(&format!("tile-csr of {columns} {}, {scaling:?}", T::NAME), &op, scaling);
        }
        for columns in [64, 192, 320] {
            let op = TilePairs::<T>::with_tile(w, mask, columns, scaling).unwrap();
            law(&format!("tile-pairs of {columns} {}, {scaling:?}", T::NAME), &op, scaling);
        }
        for words in [1, 2, 64] {
            let op = Bitmask::<T>::with_tile(w, mask, words, scaling).unwrap();
            law(&format!("bitmask of {words} {}, {scaling:?}", T::NAME), &op, scaling);
        }
        for (lanes, slots) in SELL.into_iter().filter(|_| scaling == Scaling::Row) {
            let op = Sell::<T>::with_lanes(w, mask, lanes, slots).unwrap();
            law(&format!("sell of {lanes}, {slots} {}", T::NAME), &op, scaling);
        }
    }
}

/// Each stored number is within `rounding(w, largest of its row)` of the weight, and products are those of the stored numbers.
fn holds_for<T: Expand>(rounding: impl Fn(f32, f32) -> f32) {
    let u = 2f64.powi(-24);
    for (rows, cols) in [(3, 5), (17, 33), (40, 200)] {
        let mut stream = Seed(3).stream(&format!("{} {rows} x {cols}", T::NAME));
        let w = stream.normal_array(rows, cols, 1.0);
        for (name, mask) in masks(rows, cols) {
            in_every_tiling::<T>(&w, &mask, |format, op, _| {
                let stored = op.to_dense();
                let kept = mask.applied(&w);
                let largest = largest_of_rows(&kept);
                assert_within(&stored, &kept, |(r, _), w| rounding(w, largest[r]), format!("{format}, {name}"));
                for tokens in [1, 2, 7, 16, 33, 64] {
                    let x = stream.normal_array(tokens, cols, 1.0);
                    let exact = oracle(&stored, &mask, &x);
                    let size = oracle(&stored.mapv(f32::abs), &mask, &x.mapv(f32::abs));
                    // One rounding for each product and sum, one for the scale of each stored number, and one for the scale of each tile.
                    let n = (cols + 2 + cols.div_ceil(7)) as f64;
                    let bound = |at: (usize, usize), _| n * u / (1.0 - n * u) * size[at];
                    let y = apply(op, &x).mapv(f64::from);
                    assert_within(&y, &exact, bound, format!("{format}, {name}, {tokens} tokens"));
                }
            });
        }
    }
}

#[test]
fn numbers_of_32_bits_are_kept_as_they_are() {
    holds_for::<f32>(|_, _| 0.0);
}

#[test]
fn brain_floats_are_rounded_to_8_bits() {
    holds_for::<bf16>(|w, _| w.abs() * 2f32.powi(-8));
}

#[test]
fn halves_are_rounded_to_11_bits() {
    holds_for::<f16>(|w, _| (w.abs() * 2f32.powi(-11)).max(2f32.powi(-25)));
}

#[test]
fn bytes_are_within_half_a_step_of_their_scale() {
    // Half a step, and the rounding of the scale and of the product with it.
    holds_for::<i8>(|_, largest| largest / 127.0 * 0.5 * (1.0 + 1e-5));
}

#[test]
fn scales_of_tiles_are_never_coarser_than_those_of_rows() {
    let w = Seed(5).stream("scales").normal_array(20, 300, 1.0);
    let mask = random_mask(20, 300, 0.4);
    let off = |scaling| {
        let op = TileCsr::<i8>::with_tile(&w, &mask, 32, scaling).unwrap();
        let difference = op.to_dense() - mask.applied(&w);
        difference.iter().map(|d| f64::from(d * d)).sum::<f64>()
    };
    assert!(off(Scaling::Tile) < off(Scaling::Row));
}

#[test]
fn scales_are_above_0_for_the_smallest_weights_too() {
    let w = Array2::from_elem((2, 3), f32::from_bits(1));
    let op = TileCsr::<i8>::compress(&w, &Mask::full(2, 3)).unwrap();
    assert_eq!(TileCsr::new(op.parts().clone()).unwrap(), op);
    assert!(apply(&op, &Array2::ones((1, 3))).iter().all(|y| y.is_finite()));
    assert!(TileCsr::<i8>::compress(&Array2::zeros((2, 3)), &Mask::full(2, 3)).unwrap().to_dense().iter().all(|&w| w == 0.0));
}

#[test]
fn a_weight_that_no_scale_can_hold_is_refused_where_it_stays() {
    let mut w = Array2::ones((3, 4));
    w[[1, 2]] = f32::INFINITY;
    let says = "weight for i8: inf at row 1, column 2; only finite numbers can be ranked or stored";
    assert_eq!(TileCsr::<i8>::compress(&w, &Mask::full(3, 4)).unwrap_err().to_string(), says);
    assert_eq!(Bitmask::<i8>::compress(&w, &Mask::full(3, 4)).unwrap_err().to_string(), says);
    let without = Mask::from_fn(3, 4, |r, c| (r, c) != (1, 2));
    assert_eq!(TileCsr::<i8>::compress(&w, &without).unwrap().nnz(), 11);
}

#[test]
fn bias_activation_and_accumulation_are_those_of_separate_steps() {
    let relu: fn(f32) -> f32 = |y| y.max(0.0);
    for (rows, cols) in [(1, 1), (17, 33), (64, 130)] {
        let w = whole(rows, cols, 4, "weight");
        let bias = whole(1, rows, 50, "bias").into_raw_vec_and_offset().0;
        let mask = random_mask(rows, cols, 0.5);
        in_every_format(&w, &mask, |format, op| {
            for tokens in TOKENS {
                let (x, before) = (whole(tokens, cols, 8, "input"), whole(tokens, rows, 9, "before"));
                let product = oracle(&w, &mask, &x).mapv(|y| y as f32);
                for choice in 0..8 {
                    let epilogue = Epilogue {
                        bias: (choice & 1 > 0).then_some(&bias[..]),
                        activation: (choice & 2 > 0).then_some(relu),
                        accumulate: choice & 4 > 0,
                    };
                    let mut y = before.clone();
                    op.apply_with(&x, &mut y, &epilogue);
                    let expected = Array2::from_shape_fn((tokens, rows), |(t, r)| {
                        let biased = product[[t, r]] + epilogue.bias.map_or(0.0, |b| b[r]);
                        let value = epilogue.activation.map_or(biased, |a| a(biased));
                        if epilogue.accumulate { before[[t, r]] + value } else { value }
                    });
                    assert_eq!(y, expected, "{format}, {rows} x {cols}, {tokens} tokens, choice {choice}");
                }
            }
        });
    }
}

#[test]
#[should_panic(expected = "tile-csr 3 x 5: a bias of 4")]
fn a_bias_of_another_length_panics_with_the_lengths() {
    let op = TileCsr::<f32>::compress(&Array2::ones((3, 5)), &Mask::full(3, 5)).unwrap();
    let epilogue = Epilogue { bias: Some(&[0.0; 4]), ..Epilogue::default() };
    op.apply_with(&Array2::zeros((2, 5)), &mut Array2::zeros((2, 3)), &epilogue);
}

#[test]
fn storages_come_back_from_their_parts_and_count_all_of_them() {
    for (rows, cols) in [(0, 4), (4, 0), (1, 1), (17, 33), (300, 130)] {
        let w = whole(rows, cols, 4, "weight");
        for (name, mask) in masks(rows, cols) {
            for tile in [1, 64, 256, 257] {
                let op = TileCsr::<bf16>::with_tile(&w, &mask, tile, Scaling::Row).unwrap();
                let p = op.parts();
                assert_eq!((op.mask(), op.nnz()), (mask.clone(), mask.kept()), "{rows} x {cols}, {name}");
                let wide = if tile > 256 { 2 } else { 1 };
                let lists = 4 * (p.blocks.len() + p.starts.len()) + 2 * p.order.len();
                assert_eq!(op.bytes(), lists + (2 + wide) * mask.kept(), "{rows} x {cols}, {name}");
                assert_eq!(TileCsr::new(p.clone()).unwrap(), op, "{rows} x {cols}, {name}");
            }
            for tile in [1, 2, 9] {
                let op = Bitmask::<i8>::with_tile(&w, &mask, tile, Scaling::Tile).unwrap();
                assert_eq!((op.mask(), op.nnz()), (mask.clone(), mask.kept()), "{rows} x {cols}, {name}");
                let (p, bytes) = (op.clone().into_parts(), op.bytes());
                let runs = 4 * (p.blocks.len() + p.starts.len() + p.scales.len());
                // 16 values more, which kernels may read.
                assert_eq!(bytes, runs + 8 * rows * cols.div_ceil(64) + mask.kept() + 16, "{rows} x {cols}, {name}");
                assert_eq!(Bitmask::new(p).unwrap(), op, "{rows} x {cols}, {name}");
            }
        }
    }
}

/// 3 rows of 5 columns in tiles of 4, one block.
fn lists() -> TileCsrParts<f32> {
    let mask = Mask::from_fn(3, 5, |r, c| (r + c) % 2 == 0);
    TileCsr::<f32>::with_tile(&Array2::ones((3, 5)), &mask, 4, Scaling::Row).unwrap().parts().clone()
}

/// 2 rows of 70 columns in tiles of 64, one block.
fn runs() -> BitmaskParts<i8> {
    let mask = Mask::from_fn(2, 70, |r, c| (r + c) % 3 == 0);
    Bitmask::<i8>::with_tile(&Array2::ones((2, 70)), &mask, 1, Scaling::Row).unwrap().into_parts()
}

#[test]
fn lists_that_break_an_invariant_are_refused_by_its_name() {
    type Break = fn(&mut TileCsrParts<f32>);
    let table: [(Break, &str); 13] = [
        (|p| p.tile = 0, "tiles of 0 columns with indices for 256"),
        (|p| p.tile = 257, "tiles of 257 columns with indices for 256"),
        (|p| p.blocks[1] = 2, "blocks run from Some(0) to Some(2) over 3 rows"),
        (|p| p.blocks = vec![0, 0, 3], "a block runs from row 0 to 0, where 1 to 65536 rows are possible"),
        (|p| p.starts.push(8), "8 starts for 6 lists, where each has one and the end another"),
        (|p| p.starts[0] = 1, "starts run from 1 to 8 over 8 values"),
        (|p| p.starts[1] = 7, "starts of list 1 decrease from 7 to 4"),
        (|p| p.order[1] = 9, "list 1 is row 9 of a block of 3, or that row comes twice"),
        (|p| p.order[1] = p.order[0], "list 1 is row 0 of a block of 3, or that row comes twice"),
        (|p| p.columns = Columns::Narrow(vec![3; 8]), "columns of list 0 do not increase: 3 before 3"),
        (|p| p.columns = Columns::Wide((0..8).collect()), "list 2 has column 5 in a tile of 4"),
        (|p| p.values.truncate(7), "starts run from 0 to 8 over 7 values"),
        (|p| p.scales = vec![1.0], "8 columns for 8 values, 6 rows and 1 scales for 6 lists"),
    ];
    for (i, (breaks, says)) in table.into_iter().enumerate() {
        let mut parts = lists();
        breaks(&mut parts);
        assert_eq!(TileCsr::new(parts).unwrap_err().to_string(), format!("tile-csr: {says}"), "case {i}");
    }
}

#[test]
fn runs_that_break_an_invariant_are_refused_by_its_name() {
    type Break = fn(&mut BitmaskParts<i8>);
    let table: [(Break, &str); 8] = [
        (|p| p.tile = 3, "tiles of 3 words in rows of 2"),
        (|p| p.rows = 3, "blocks run from Some(0) to Some(2) over 3 rows"),
        (|p| p.starts[1] = 0, "run 0 has 22 bits and 0 values"),
        (|p| p.words[0] ^= 1, "run 0 has 21 bits and 22 values"),
        (|p| p.words.truncate(3), "3 words for 2 rows of 2, 4 scales for 4 runs"),
        (|p| p.words[2] = 0x40 | p.words[2] & (p.words[2] - 1), "row 0 has a bit beyond column 70"),
        (|p| p.scales[1] = f32::NAN, "a scale is NaN"),
        (|p| p.scales[1] = 0.0, "a scale is 0"),
    ];
    for (i, (breaks, says)) in table.into_iter().enumerate() {
        let mut parts = runs();
        breaks(&mut parts);
        assert_eq!(Bitmask::new(parts).unwrap_err().to_string(), format!("bitmask: {says}"), "case {i}");
    }
    let mut huge = runs();
    (huge.rows, huge.cols, huge.blocks) = (usize::MAX, usize::MAX, vec![0, u32::MAX]);
    assert!(Bitmask::new(huge).is_err());
}

/// What is accepted multiplies as what it says that it stores.
pub fn is_sound(op: &dyn LinearOp) -> Result<(), TestCaseError> {
    let (dense, cols) = (op.to_dense(), op.shape().1);
    for tokens in [1, 3] {
        let x = Array2::<f32>::ones((tokens, cols));
        let y = apply(op, &x);
        let expected = x.dot(&dense.t());
        apart(&y, &expected, |_, e| 1e-4 * (1.0 + e.abs())).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn changed_lists_are_refused_or_sound(which in 0..4usize, at in 0..9usize, to in 0..300u32) {
        let mut parts = lists();
        match (which, &mut parts.columns) {
            (0, Columns::Narrow(c)) => c[at % 8] = to as u8,
            (1, _) => parts.starts[at % 7] = to % 10,
            (2, _) => parts.order[at % 6] = (to % 5) as u16,
            _ => parts.tile = to as usize % 7,
        }
        if let Ok(op) = TileCsr::new(parts) {
            is_sound(&op)?;
        }
    }

    #[test]
    fn changed_runs_are_refused_or_sound(which in 0..4usize, at in 0..5usize, to in any::<u64>()) {
        let mut parts = runs();
        match which {
            0 => parts.words[at % 4] = to,
            1 => parts.words[at % 4] = parts.words[at % 4].rotate_left(to as u32 % 64),
            2 => parts.starts[at] = to as u32 % 50,
            _ => parts.tile = to as usize % 4,
        }
        if let Ok(op) = Bitmask::new(parts) {
            is_sound(&op)?;
        }
    }

    #[test]
    fn random_shapes_masks_and_tiles_are_exact(
        rows in 0..70usize, cols in 0..200usize, density in 0.0..1.0f32, tokens in 0..140usize, tile in 1..300usize, seed in 0..1000u64,
    ) {
        let mut stream = Seed(seed).stream("case");
        let w = Array2::from_shape_simple_fn((rows, cols), || stream.below(9) as f32 - 4.0);
        let mask = Mask::from_fn(rows, cols, |_, _| stream.uniform() < density);
        let x = Array2::from_shape_simple_fn((tokens, cols), || stream.below(17) as f32 - 8.0);
        let expected = oracle(&w, &mask, &x).mapv(|y| y as f32);
        prop_assert_eq!(apply(&TileCsr::<f32>::with_tile(&w, &mask, tile, Scaling::Row).unwrap(), &x), expected.clone());
        let words = tile.div_ceil(64);
        prop_assert_eq!(apply(&Bitmask::<f32>::with_tile(&w, &mask, words, Scaling::Row).unwrap(), &x), expected);
    }
}
