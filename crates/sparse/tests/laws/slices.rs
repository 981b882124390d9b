//! Sliced ELLPACK: windows that move over uneven rows, late weights, invariants, and the bits of its sums.

use crate::random::Seed;
use crate::storages::is_sound;
use crate::{SELL, oracle, random_mask, whole};
use half::bf16;
use lacuna_sparse::mask::Mask;
use lacuna_sparse::storage::{LinearOp, Sell, SellParts, Slots, apply};
use ndarray::{Array2, s};
use proptest::prelude::*;

/// Masks whose rows are alike in no window: weights late and early, and slices of unlike length.
fn uneven(rows: usize, cols: usize) -> Vec<(&'static str, Mask)> {
    let mut stream = Seed(7).stream("uneven");
    let shares: Vec<f32> = (0..rows).map(|_| stream.uniform().powi(3)).collect();
    vec![
        ("random at 0.2", random_mask(rows, cols, 0.2)),
        ("random at 0.03", random_mask(rows, cols, 0.03)),
        ("rows of any density", Mask::from_fn(rows, cols, |r, _| stream.uniform() < shares[r])),
        ("one dense row among empty ones", Mask::from_fn(rows, cols, |r, _| r == rows / 3)),
        ("each row in a window of its own", Mask::from_fn(rows, cols, |r, c| c / 16 == r % cols.div_ceil(16))),
        ("each row in two far columns", Mask::from_fn(rows, cols, |r, c| c == r % cols || c == cols - 1 - r % cols)),
        ("two dense columns", Mask::from_fn(rows, cols, |_, c| c == 3 || c == cols - 1)),
        ("2:4", Mask::from_fn(rows, cols, |r, c| (r + c) % 4 < 2)),
    ]
}

#[test]
fn uneven_rows_are_exact_for_every_number_of_tokens() {
    for (rows, cols) in [(130, 150), (67, 16), (200, 40), (129, 31)] {
        let w = whole(rows, cols, 4, "weight");
        for (name, mask) in uneven(rows, cols) {
            for (lanes, slots) in SELL {
                let op = Sell::<f32>::with_lanes(&w, &mask, lanes, slots).unwrap();
                assert_eq!((op.mask(), op.nnz()), (mask.clone(), mask.kept()), "{rows} x {cols}, {name}, {lanes}, {slots}");
                assert_eq!(op.to_dense(), mask.applied(&w), "{rows} x {cols}, {name}, {lanes}, {slots}");
                for tokens in 1..=7 {
                    let x = whole(tokens, cols, 8, "input");
                    let expected = oracle(&w, &mask, &x).mapv(|y| y as f32);
                    assert_eq!(apply(&op, &x), expected, "{rows} x {cols}, {name}, {lanes}, {slots}, {tokens} tokens");
                }
            }
        }
    }
}

#[test]
fn infinities_reach_the_rows_that_have_their_column_and_no_others() {
    let (rows, cols) = (70, 90);
    let w = whole(rows, cols, 3, "weight").mapv(|w| w + 0.5);
    for (name, mask) in uneven(rows, cols) {
        for (lanes, slots) in SELL {
            let op = Sell::<f32>::with_lanes(&w, &mask, lanes, slots).unwrap();
            for tokens in 1..=5 {
                for (column, what) in [(0, f32::INFINITY), (17, f32::NAN), (cols - 1, f32::NEG_INFINITY)] {
                    let mut x = whole(tokens, cols, 8, "input");
                    x[[tokens - 1, column]] = what;
                    for ((t, r), y) in apply(&op, &x).indexed_iter() {
                        let reached = t == tokens - 1 && mask.get(r, column);
                        assert_eq!(y.is_finite(), !reached, "{name}, {lanes}, {slots}, {tokens} tokens, row {r}");
                    }
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut stream = Seed(5).stream("threads");
    let (w, mask) = (stream.normal_array(700, 900, 1.0), random_mask(700, 900, 0.3));
    let x = stream.normal_array(4, 900, 1.0);
    for (lanes, slots) in SELL {
        let op = Sell::<f32>::with_lanes(&w, &mask, lanes, slots).unwrap();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| apply(&op, &x)).mapv(f32::to_bits)
        };
        assert_eq!(with(1), with(2), "{lanes}, {slots}");
    }
}

#[test]
fn few_slots_are_empty_and_few_weights_late() {
    // Windows that stand alone would leave two fifths empty at this sparsity.
    let mask = random_mask(512, 1024, 0.2);
    let parts = Sell::<f32>::with_lanes(&Array2::ones((512, 1024)), &mask, 16, Slots::Padded).unwrap().into_parts();
    let (slots, kept, late) = (parts.values.len() as f64, mask.kept() as f64, parts.late_values.len() as f64);
    assert!(slots / kept < 1.45 && late / kept < 0.01, "{slots} slots and {late} late of {kept}");
    // Rows that are alike leave none, packed or not.
    let mask = Mask::from_fn(64, 256, |r, c| (r + c) % 4 < 2);
    for slots in [Slots::Padded, Slots::Packed] {
        let parts = Sell::<f32>::with_lanes(&Array2::ones((64, 256)), &mask, 16, slots).unwrap().into_parts();
        assert_eq!((parts.values.len(), parts.late_values.len()), (mask.kept(), 0), "{slots}");
    }
}

#[test]
fn parts_come_back_and_all_of_them_count() {
    for (rows, cols) in [(0, 4), (4, 0), (1, 1), (17, 33), (300, 130)] {
        let w = whole(rows, cols, 4, "weight");
        for density in [0.0, 0.1, 0.6, 1.0] {
            let mask = random_mask(rows, cols, density);
            for (lanes, slots) in SELL {
                let op = Sell::<bf16>::with_lanes(&w, &mask, lanes, slots).unwrap();
                let (p, bytes) = (op.clone().into_parts(), op.bytes());
                let starts = p.place_starts.len() + p.mask_starts.len() + p.value_starts.len() + p.late_starts.len();
                let words = 4 * (p.order.len() + starts + p.places.len() + p.late_columns.len());
                let rest = p.steps.len() + p.late_lanes.len() + 2 * (p.masks.len() + p.late_values.len());
                // 16 values more, which kernels may read.
                assert_eq!(bytes, words + rest + 2 * (p.values.len() + 16), "{rows} x {cols}, {lanes}, {slots}");
                assert_eq!(Sell::new(p).unwrap(), op, "{rows} x {cols}, {lanes}, {slots}");
            }
        }
    }
}

#[test]
fn sizes_that_it_cannot_have_are_refused() {
    let w = Array2::<f32>::ones((3, 4));
    let says = |mask: &Mask, lanes| Sell::<f32>::with_lanes(&w, mask, lanes, Slots::Padded).unwrap_err().to_string();
    assert_eq!(says(&Mask::full(3, 4), 4), "sell: slices of 4 rows, where 8 and 16 are possible");
    assert_eq!(says(&Mask::full(4, 3), 8), "mask: expected shape [3, 4], found [4, 3]");
    let mut infinite = w.clone();
    infinite[[1, 2]] = f32::INFINITY;
    assert!(Sell::<i8>::with_lanes(&infinite, &Mask::full(3, 4), 8, Slots::Padded).is_err());
    assert!(Sell::<f32>::with_lanes(&infinite, &Mask::full(3, 4), 8, Slots::Padded).is_ok());
    let op = Sell::<f32>::with_lanes(&w.slice(s![..;-1, ..;2]), &Mask::full(3, 2), 8, Slots::Padded).unwrap();
    assert_eq!(op.shape(), (3, 2));
}

/// 100 rows of 40 columns: two blocks of slices of 16, the one full row has late weights.
fn slices(slots: Slots) -> SellParts<f32> {
    let mut stream = Seed(3).stream("slices");
    let mask = Mask::from_fn(100, 40, |r, _| r == 5 || stream.uniform() < 0.15);
    let parts = Sell::<f32>::with_lanes(&Array2::ones((100, 40)), &mask, 16, slots).unwrap().into_parts();
    assert!(!parts.late_values.is_empty());
    parts
}

#[test]
fn slices_that_break_an_invariant_are_refused_by_its_name() {
    type Break = fn(&mut SellParts<f32>);
    let table: [(Break, &str); 17] = [
        (|p| p.lanes = 12, "slices of 12 rows, where 8 and 16 are possible"),
        (|p| p.rows = 101, "100 rows in order of 101 x 40"),
        (|p| p.order[3] = p.order[2], "in order, or that row comes twice"),
        (|p| p.order[3] = 100, "row 100 of 100 in order, or that row comes twice"),
        (|p| p.steps.truncate(5), "5 steps for 2 blocks of 3 phases"),
        (|p| p.steps[0] += 1, "block 0: "),
        (|p| p.late_columns.truncate(1), " columns and "),
        (|p| p.place_starts[1] = u32::MAX, "starts of list 1 decrease"),
        (|p| p.values.truncate(7), "starts run from 0 to "),
        (|p| p.value_starts[1] += 1, "block 0: slice 0: "),
        (|p| p.value_starts.truncate(3), "3 starts"),
        (|p| p.scales = vec![1.0], "1 scales for 100 rows"),
        (|p| p.masks[0] ^= 1, "block 0: step 0, lane 0: "),
        (|p| p.places[0] = u32::MAX, "block 0: step 1, lane 0: column 31 of 40 after 32"),
        (|p| *p.places.last_mut().unwrap() |= 1 << 31, "places beyond the last step"),
        (|p| p.late_columns[0] = 40, "column 40 of 40"),
        (|p| p.late_lanes[0] = 64, "late weight of lane 64"),
    ];
    for (i, (breaks, says)) in table.into_iter().enumerate() {
        let mut parts = slices(Slots::Padded);
        breaks(&mut parts);
        let error = Sell::new(parts).unwrap_err().to_string();
        assert!(error.starts_with("sell: ") && error.contains(says), "case {i}: {error}");
    }
    let mut parts = slices(Slots::Padded);
    // The values of the first of the three slices of the first block come first, step by step.
    let empty = (0..parts.value_starts[1] as usize).find(|slot| parts.masks[slot / 16 * 3] >> (slot % 16) & 1 == 0).unwrap();
    parts.values[empty] = 2.0;
    assert!(Sell::new(parts).unwrap_err().to_string().contains("a value without a weight"));
    let mut huge = slices(Slots::Packed);
    (huge.rows, huge.cols) = (usize::MAX, usize::MAX);
    assert!(Sell::new(huge).is_err());
}

proptest! {
    #[test]
    fn changed_slices_are_refused_or_sound(packed in any::<bool>(), which in 0..8usize, at in any::<prop::sample::Index>(), to in any::<u32>()) {
        let mut parts = slices(if packed { Slots::Packed } else { Slots::Padded });
        match which {
            0 => { let i = at.index(parts.steps.len()); parts.steps[i] = to as u8 % 12 }
            1 => { let i = at.index(parts.masks.len()); parts.masks[i] ^= 1 << (to % 16) }
            2 => { let i = at.index(parts.places.len()); parts.places[i] ^= 1 << (to % 32) }
            3 => { let i = at.index(parts.order.len()); parts.order[i] = to % 102 }
            4 => { let i = at.index(parts.late_lanes.len()); parts.late_lanes[i] = to as u8 % 70 }
            5 => { let i = at.index(parts.late_columns.len()); parts.late_columns[i] = to % 42 }
            6 => { let i = at.index(parts.value_starts.len()); parts.value_starts[i] = to % 1000 }
            _ => parts.lanes = if to % 2 == 0 { 8 } else { 16 },
        }
        if let Ok(op) = Sell::new(parts) {
            is_sound(&op)?;
        }
    }

    #[test]
    fn random_shapes_and_masks_are_exact(
        rows in 0..150usize, cols in 0..200usize, density in 0.0..1.0f32, tokens in 0..9usize, which in 0..4usize, seed in 0..1000u64,
    ) {
        let mut stream = Seed(seed).stream("case");
        let w = Array2::from_shape_simple_fn((rows, cols), || stream.below(9) as f32 - 4.0);
        let mask = Mask::from_fn(rows, cols, |_, _| stream.uniform() < density);
        let x = Array2::from_shape_simple_fn((tokens, cols), || stream.below(17) as f32 - 8.0);
        let (lanes, slots) = SELL[which];
        let op = Sell::<f32>::with_lanes(&w, &mask, lanes, slots).unwrap();
        prop_assert_eq!(apply(&op, &x), oracle(&w, &mask, &x).mapv(|y| y as f32));
    }
}
