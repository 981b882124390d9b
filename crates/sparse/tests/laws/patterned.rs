//! N:M and blocks: exact products over every pattern, shape and number of tokens, their numbers and invariants, and masks
//! of other patterns refused.

use crate::close::assert_within;
use crate::common::largest_of_rows;
use crate::random::Seed;
use crate::storages::is_sound;
use crate::{TOKENS, into_layouts, layouts, oracle, whole};
use half::{bf16, f16};
use lacuna_sparse::mask::{Mask, Pattern, Scope, select};
use lacuna_sparse::storage::{BlockColumns, Bsr, BsrParts, Epilogue, Expand, Format, LinearOp, Nm, NmParts, Precision, apply};
use ndarray::{Array2, ArrayRef2};
use proptest::prelude::*;

pub const NMS: [(usize, usize); 10] = [(2, 4), (1, 4), (4, 8), (1, 2), (1, 16), (16, 16), (1, 1), (2, 5), (3, 7), (7, 13)];
pub const BLOCKS: [(usize, usize); 8] = [(16, 1), (4, 1), (4, 4), (1, 16), (3, 5), (40, 2), (8, 3), (1, 1)];

/// A random mask of a pattern.
pub fn masked(pattern: Pattern, rows: usize, cols: usize, sparsity: f64) -> Mask {
    if rows * cols == 0 {
        return Mask::empty(rows, cols);
    }
    let scores = Seed((rows * 1000 + cols) as u64).stream(&format!("{pattern} {sparsity}")).normal_array(rows, cols, 1.0);
    select(&scores, pattern, Scope::Layer, pattern.budget(rows, cols, sparsity).unwrap()).unwrap()
}

/// Calls `law` with a weight of some whole or real numbers in every patterned storage: its name, the weight, its mask, and it.
pub fn in_every_pattern<T: Expand>(
    weight: impl Fn(usize, usize) -> Array2<f32>,
    mut law: impl FnMut(&str, &ArrayRef2<f32>, &Mask, &dyn LinearOp),
) {
    for (n, m) in NMS {
        // Words of one row and of many, the last one whole or not; an odd number of rows; more than one block.
        for (rows, groups) in [(0, 3), (3, 0), (1, 1), (5, 3), (17, 16), (40, 23), (259, 2)] {
            let w = weight(rows, m * groups);
            let mask = masked(Pattern::Nm { n, m }, rows, m * groups, 0.0);
            let op = Nm::<T>::with_pattern(&w, &mask, n, m).unwrap();
            law(&format!("nm of {n}:{m} in {}, {rows} x {}", T::NAME, m * groups), &w, &mask, &op);
        }
    }
    for (r, c) in BLOCKS {
        for (rows, cols) in [(0, 4), (4, 0), (1, 1), (3, 17), (33, 40), (64, 130), (300, 70)] {
            for sparsity in [0.0, 0.4, 0.9] {
                let w = weight(rows, cols);
                let mask = masked(Pattern::Block { rows: r, cols: c }, rows, cols, sparsity);
                let op = Bsr::<T>::with_blocks(&w, &mask, r, c).unwrap();
                law(&format!("bsr of {r}x{c} in {}, {rows} x {cols} at {sparsity}", T::NAME), &w, &mask, &op);
            }
        }
    }
}

#[test]
fn every_product_of_a_pattern_is_exact_on_small_whole_numbers() {
    in_every_pattern::<f32>(
        |rows, cols| whole(rows, cols, 4, "weight"),
        |name, w, mask, op| {
            for tokens in TOKENS {
                let x = whole(tokens, mask.cols(), 8, "input");
                assert_eq!(apply(op, &x), oracle(w, mask, &x).mapv(|y| y as f32), "{name}, {tokens} tokens");
            }
        },
    );
}

#[test]
fn patterned_products_take_any_strides_and_what_is_done_on_the_way_into_y() {
    in_every_pattern::<f32>(|rows, cols| whole(rows, cols, 4, "weight"), takes_any_strides);
}

#[test]
fn infinities_at_dropped_inputs_do_not_reach_the_outputs_of_patterns() {
    in_every_pattern::<f32>(
        |rows, cols| whole(rows, cols, 4, "weight").mapv(|w| if w == 0.0 { 1.0 } else { w }),
        keeps_infinities_apart,
    );
}

/// Products of whole numbers are exact for any strides of x and y, with a bias, an activation and what y held before.
pub fn takes_any_strides(name: &str, w: &ArrayRef2<f32>, mask: &Mask, op: &dyn LinearOp) {
    let relu: fn(f32) -> f32 = |y| y.max(0.0);
    for tokens in [1, 3, 21] {
        let x = whole(tokens, mask.cols(), 8, "input");
        let expected = oracle(w, mask, &x).mapv(|y| y as f32);
        for (from, array, view) in layouts(&x) {
            for (to, y) in into_layouts(op, &view(&array)) {
                assert_eq!(y, expected, "{name}, {tokens} tokens, x {from}, y {to}");
            }
        }
        let bias: Vec<f32> = (0..w.nrows()).map(|r| r as f32 - 3.0).collect();
        let mut y = Array2::from_elem(expected.dim(), 5.0);
        op.apply_with(&x, &mut y, &Epilogue { bias: Some(&bias), activation: Some(relu), accumulate: true });
        let with = Array2::from_shape_fn(expected.dim(), |(t, r)| 5.0 + relu(expected[[t, r]] + bias[r]));
        assert_eq!(y, with, "{name}, {tokens} tokens");
    }
}

/// Infinities and NaNs of x reach the outputs whose rows keep their input, and no others; no kept weight is 0.
pub fn keeps_infinities_apart(name: &str, w: &ArrayRef2<f32>, mask: &Mask, op: &dyn LinearOp) {
    for (bad, tokens) in [(f32::INFINITY, 1), (f32::NAN, 2), (f32::NEG_INFINITY, 4), (f32::INFINITY, 20), (f32::NAN, 128)] {
        let clean = whole(tokens, mask.cols(), 8, "input");
        let poisoned = |t: usize, i: usize| t % 2 == 0 && i % 3 == 0;
        let x = Array2::from_shape_fn(clean.dim(), |at| if poisoned(at.0, at.1) { bad } else { clean[at] });
        let expected = oracle(w, mask, &clean);
        for ((t, o), &y) in apply(op, &x).indexed_iter() {
            if mask.row_indices(o).any(|i| poisoned(t, i)) {
                assert!(!y.is_finite(), "{name}, {tokens} tokens: {y} hides what it was made of");
            } else {
                assert_eq!(f64::from(y), expected[[t, o]], "{name}, {bad} in token {t} of {tokens}, output {o}");
            }
        }
    }
}

/// Stored numbers are within `rounding(w, largest of its row)`, and products are those of the stored numbers.
fn holds_for<T: Expand>(rounding: impl Fn(f32, f32) -> f32) {
    let u = 2f64.powi(-24);
    in_every_pattern::<T>(
        |rows, cols| Seed(9).stream(&format!("{rows} x {cols}")).normal_array(rows, cols, 1.0),
        |name, w, mask, op| {
            let stored = op.to_dense();
            let kept = mask.applied(w);
            let largest = largest_of_rows(&kept);
            assert_within(&stored, &kept, |(r, _), w| rounding(w, largest[r]), name);
            for tokens in [1, 2, 7, 16, 130] {
                let x = Seed(4).stream(&format!("x {tokens}")).normal_array(tokens, mask.cols(), 1.0);
                let (exact, size) = (oracle(&stored, mask, &x), oracle(&stored.mapv(f32::abs), mask, &x.mapv(f32::abs)));
                let n = (mask.cols() + 4 + mask.cols().div_ceil(52)) as f64;
                let y = apply(op, &x).mapv(f64::from);
                assert_within(&y, &exact, |at, _| n * u / (1.0 - n * u) * size[at], format!("{name}, {tokens} tokens"));
            }
        },
    );
}

#[test]
fn patterns_keep_each_kind_of_numbers_as_exactly_as_it_can() {
    holds_for::<f32>(|_, _| 0.0);
    holds_for::<bf16>(|w, _| w.abs() * 2f32.powi(-8));
    holds_for::<f16>(|w, _| (w.abs() * 2f32.powi(-11)).max(2f32.powi(-25)));
    holds_for::<i8>(|_, largest| largest / 127.0 * 0.5 * (1.0 + 1e-5));
}

#[test]
fn one_thread_and_two_make_the_same_bits_of_patterns() {
    let mut stream = Seed(8).stream("threads");
    let w = stream.normal_array(640, 512, 1.0);
    let pools = [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    for format in [Format::Nm(2, 4), Format::Bsr(16, 1), Format::Bsr(4, 4), Format::Bsr(1, 16)] {
        let pattern = if format == Format::Nm(2, 4) { "2:4".into() } else { format.to_string().replace("bsr:", "block") };
        let op = format.build(&w, &masked(pattern.parse().unwrap(), 640, 512, 0.5), Precision::F32).unwrap();
        for tokens in [1, 4, 17, 128] {
            let x = stream.normal_array(tokens, 512, 1.0);
            let [one, two] = [0, 1].map(|i| pools[i].install(|| apply(op.as_ref(), &x)).mapv(f32::to_bits));
            assert_eq!(one, two, "{format}, {tokens} tokens");
        }
    }
}

#[test]
fn patterns_store_what_the_mask_keeps_zeros_and_all_and_come_back_from_their_parts() {
    in_every_pattern::<f32>(
        |rows, cols| whole(rows, cols, 1, "weight"),
        |name, w, mask, op| {
            assert_eq!((op.shape(), op.nnz(), op.to_dense()), (w.dim(), mask.kept(), mask.applied(w)), "{name}");
            assert!(name.starts_with(op.format()));
        },
    );
    for (n, m) in NMS {
        let (rows, cols) = (300, 6 * m);
        let (w, mask) = (whole(rows, cols, 4, "weight"), masked(Pattern::Nm { n, m }, rows, cols, 0.0));
        let op = Nm::<i8>::with_pattern(&w, &mask, n, m).unwrap();
        assert_eq!((op.mask(), op.pattern()), (mask.clone(), Pattern::Nm { n, m }));
        let (bytes, parts) = (op.bytes(), op.clone().into_parts());
        // A word and the name of its row, 16 values more which kernels may read, a scale a row.
        let runs = rows * cols.div_ceil(64 / m * m);
        assert_eq!(bytes, 9 * runs + mask.kept() + 16 + 4 * rows + 4 * parts.blocks.len(), "{n}:{m}");
        assert_eq!(Nm::new(parts).unwrap(), op, "{n}:{m}");
        // What goes is not read, whatever it is.
        let mut hidden = w.clone();
        mask.not().iter_kept().for_each(|at| hidden[at] = f32::NAN);
        assert_eq!(Nm::<i8>::with_pattern(&hidden, &mask, n, m).unwrap(), op);
    }
    for (r, c) in BLOCKS {
        let (w, mask) = (whole(300, 70, 4, "weight"), masked(Pattern::Block { rows: r, cols: c }, 300, 70, 0.6));
        let op = Bsr::<bf16>::with_blocks(&w, &mask, r, c).unwrap();
        assert_eq!((op.mask(), op.pattern()), (mask.clone(), Pattern::Block { rows: r, cols: c }));
        let (p, lines) = (op.parts(), 300usize.div_ceil(r));
        assert_eq!(op.bytes(), 2 * mask.kept() + 2 * p.columns.len() + 8 * (lines + 1) + 4 * p.shares.len(), "{r} x {c}");
        assert_eq!(Bsr::new(p.clone()).unwrap(), op, "{r} x {c}");
    }
}

#[test]
fn four_weights_of_2_of_4_take_8_and_a_half_bytes_and_a_row_of_a_word_one_more() {
    let (w, mask) = (whole(1024, 1024, 4, "weight"), masked(Pattern::Nm { n: 2, m: 4 }, 1024, 1024, 0.0));
    let op = Nm::<f32>::with_pattern(&w, &mask, 2, 4).unwrap();
    let published = 1024 * 1024 / 4 * 17 / 2;
    assert!(op.bytes() <= published + 1024 * 16 + 200, "{} for {published}", op.bytes());
}

#[test]
fn a_mask_of_another_pattern_is_refused_with_its_place() {
    let w = whole(8, 8, 4, "weight");
    let mut mask = masked(Pattern::Nm { n: 2, m: 4 }, 8, 8, 0.0);
    let column = mask.row_indices(3).last().unwrap();
    mask.set(3, column, false);
    let says = |e: lacuna_sparse::Error| e.to_string();
    assert_eq!(says(Nm::<f32>::with_pattern(&w, &mask, 2, 4).unwrap_err()), "mask is not 2:4: row 3, columns 4..8 keep 1, not 2");
    let mask = Mask::from_fn(8, 8, |r, c| c < 2 && (r, c) != (5, 1));
    assert_eq!(
        says(Bsr::<f32>::with_blocks(&w, &mask, 4, 2).unwrap_err()),
        "mask is not block4x2: rows 4..8, columns 0..2 keep 7 of 8"
    );
    let full = Mask::full(8, 8);
    assert_eq!(says(Nm::<f32>::with_pattern(&w, &full, 3, 3).unwrap_err()), "nm: groups of 3 do not divide rows of 8");
    assert_eq!(says(Nm::<f32>::with_pattern(&w, &full, 1, 32).unwrap_err()), "nm: 1:32, where 1 <= N <= M <= 16 is possible");
    assert_eq!(says(Nm::<f32>::with_pattern(&w, &full, 0, 4).unwrap_err()), "nm: 0:4, where 1 <= N <= M <= 16 is possible");
    assert_eq!(
        says(Bsr::<f32>::with_blocks(&w, &full, 0, 4).unwrap_err()),
        "bsr: blocks of 0 x 4, where 1 x 1 and more are possible"
    );
    let other = Mask::full(8, 4);
    assert_eq!(says(Nm::<f32>::with_pattern(&w, &other, 2, 4).unwrap_err()), "mask: expected shape [8, 8], found [8, 4]");
    assert_eq!(says(Bsr::<f32>::with_blocks(&w, &other, 2, 4).unwrap_err()), "mask: expected shape [8, 8], found [8, 4]");
    let mut infinite = whole(8, 8, 4, "weight");
    infinite[[2, 3]] = f32::INFINITY;
    let line = "weight for i8: inf at row 2, column 3; only finite numbers can be ranked or stored";
    assert_eq!(says(Nm::<i8>::with_pattern(&infinite, &full, 4, 4).unwrap_err()), line);
    assert_eq!(says(Bsr::<i8>::with_blocks(&infinite, &full, 4, 4).unwrap_err()), line);
    assert!(Nm::<i8>::with_pattern(&infinite, &masked_off(), 3, 4).is_ok());
}

/// 3:4 of 8 x 8 without column 3 of every group.
fn masked_off() -> Mask {
    Mask::from_fn(8, 8, |_, c| c % 4 != 3)
}

/// 3 rows of 68 columns of 2:4, one block of two words.
fn nm_parts() -> NmParts<i8> {
    let mask = Mask::from_fn(3, 68, |r, c| (r + c) % 2 == 0);
    Nm::<i8>::with_pattern(&Array2::ones((3, 68)), &mask, 2, 4).unwrap().into_parts()
}

/// 5 rows of 7 columns in blocks of 2 x 3: two blocks in the first line, one in the last.
fn bsr_parts() -> BsrParts<i8> {
    let mask = Mask::from_fn(5, 7, |r, c| (r < 2 && c >= 3) || (r == 4 && c < 3));
    Bsr::<i8>::with_blocks(&Array2::ones((5, 7)), &mask, 2, 3).unwrap().parts().clone()
}

#[test]
fn parts_of_patterns_that_break_an_invariant_are_refused_by_its_name() {
    type Break<P> = fn(&mut P);
    let table: [(Break<NmParts<i8>>, &str); 14] = [
        (|p| p.m = 17, "2:17, where 1 <= N <= M <= 16 is possible"),
        (|p| p.n = 5, "5:4, where 1 <= N <= M <= 16 is possible"),
        (|p| p.m = 3, "groups of 3 do not divide rows of 68"),
        (|p| p.blocks = vec![0, 2], "blocks run from Some(0) to Some(2) over 3 rows"),
        (|p| p.blocks = vec![0, 3, 3], "a block runs from row 3 to 3, where 1 to 256 rows are possible"),
        (|p| p.order.truncate(5), "5 rows and 6 words for 6 runs"),
        (|p| p.words.push(0), "6 rows and 7 words for 6 runs"),
        (|p| p.values.truncate(7), "7 values for 3 rows that keep 34"),
        (|p| p.scales.clear(), "0 scales for 3 rows"),
        (|p| p.scales[2] = -1.0, "a scale is -1"),
        (|p| p.order[1] = p.order[0], "run 1 is row 0 of a block of 3, or that row comes twice"),
        (|p| p.order[4] = 3, "run 4 is row 3 of a block of 3, or that row comes twice"),
        (|p| p.words[2] ^= 1 << 9 | 1 << 12, "run 2 keeps 1 of columns 8..12, not 2"),
        (|p| p.words[5] |= 16, "run 5 has a bit beyond its 4 columns"),
    ];
    for (i, (breaks, says)) in table.into_iter().enumerate() {
        let mut parts = nm_parts();
        breaks(&mut parts);
        assert_eq!(Nm::new(parts).unwrap_err().to_string(), format!("nm: {says}"), "case {i}");
    }
    let table: [(Break<BsrParts<i8>>, &str); 12] = [
        (|p| p.r = 0, "blocks of 0 x 3, where 1 x 1 and more are possible"),
        (|p| p.shares[1] = 4, "shares"),
        (|p| p.shares = vec![0, 3, 5], "a share begins at row 3, within a block of 2 rows"),
        (|p| p.starts.truncate(3), "3 starts for 3 lists, where each has one and the end another"),
        (|p| p.starts[1] = 9, "starts of list 1 decrease from 9 to 2"),
        (|p| p.value_starts[3] = 12, "starts run from 0 to 12 over 11 values"),
        (|p| p.value_starts[1] = 7, "the blocks of line 0 hold 8 values, and it has 7"),
        (|p| p.columns = BlockColumns::Narrow(vec![2, 1, 0]), "columns of line 0 do not increase: 2 before 1"),
        (|p| p.columns = BlockColumns::Wide(vec![1, 3, 0]), "line 0 has a block in column 3 of 3"),
        (|p| p.columns = BlockColumns::Narrow(vec![0, 1, 0]), "the blocks of line 0 hold 12 values, and it has 8"),
        (|p| p.scales.clear(), "0 scales for 5 rows"),
        (|p| p.scales[0] = 0.0, "a scale is 0"),
    ];
    for (i, (breaks, says)) in table.into_iter().enumerate() {
        let mut parts = bsr_parts();
        breaks(&mut parts);
        let says = says.replace("shares", "blocks run from Some(0) to Some(4) over 5 rows");
        assert_eq!(Bsr::new(parts).unwrap_err().to_string(), format!("bsr: {says}"), "case {i}");
    }
    let mut huge = nm_parts();
    (huge.rows, huge.blocks) = (usize::MAX, vec![0, u32::MAX]);
    assert!(Nm::new(huge).is_err());
    let mut huge = bsr_parts();
    (huge.rows, huge.cols, huge.r, huge.c) = (usize::MAX, usize::MAX, u32::MAX as usize, 1);
    assert!(Bsr::new(huge).is_err());
}

#[test]
fn columns_of_blocks_beyond_16_bits_are_kept_in_32() {
    let cols = 70_000;
    let (w, mask) =
        (Array2::from_shape_fn((2, cols), |(r, c)| (r + c % 5) as f32), Mask::from_fn(2, cols, |_, c| c % 1000 == 999));
    let op = Bsr::<f32>::with_blocks(&w, &mask, 2, 1).unwrap();
    assert!(matches!(op.parts().columns, BlockColumns::Wide(_)));
    let narrow = BsrParts { columns: BlockColumns::Narrow(vec![0; 70]), ..op.parts().clone() };
    assert_eq!(Bsr::new(narrow).unwrap_err().to_string(), "bsr: 70000 columns of blocks with indices for 65536");
    for tokens in [1, 20] {
        let x = whole(tokens, cols, 3, "input");
        assert_eq!(apply(&op, &x), oracle(&w, &mask, &x).mapv(|y| y as f32));
    }
}

#[test]
fn names_of_patterned_storages_are_read_back_and_others_refused() {
    for format in [Format::Nm(2, 4), Format::Nm(1, 16), Format::Bsr(16, 1), Format::Bsr(1, 300)] {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
    }
    assert_eq!(["nm", "bsr"].map(|s| s.parse::<Format>().unwrap()), [Format::Nm(2, 4), Format::Bsr(16, 1)]);
    for (text, says) in [
        ("nm:4:2", "format: 'nm:4:2': nm keeps N of every M with 1 <= N <= M <= 16, as nm:2:4"),
        ("nm:2:32", "format: 'nm:2:32': nm keeps N of every M with 1 <= N <= M <= 16, as nm:2:4"),
        ("nm:rows", "format: 'nm:rows': nm keeps N of every M with 1 <= N <= M <= 16, as nm:2:4"),
        ("bsr:0x4", "format: 'bsr:0x4': a block has rows and columns, as bsr:16x1"),
        ("bsr:2:4", "format: 'bsr:2:4': a block has rows and columns, as bsr:16x1"),
    ] {
        assert_eq!(text.parse::<Format>().unwrap_err().to_string(), says);
    }
    let named = |p: &str| Format::of_pattern(p.parse().unwrap());
    assert_eq!(
        [named("2:4"), named("block4x4"), named("rows"), named("3:32")],
        [Some(Format::Nm(2, 4)), Some(Format::Bsr(4, 4)), None, None]
    );
}

proptest! {
    #[test]
    fn changed_parts_of_patterns_are_refused_or_sound(which in 0..9usize, at in 0..9usize, to in any::<u64>()) {
        let (mut nm, mut bsr) = (nm_parts(), bsr_parts());
        let small = to % 12;
        match which {
            0 => nm.words[at % 6] = to,
            1 => nm.words[at % 6] = nm.words[at % 6].rotate_left(small as u32),
            2 => nm.order[at % 6] = small as u8,
            3 => (nm.n, nm.m) = (at, small as usize),
            4 => nm.cols = 4 * small as usize,
            5 => bsr.starts[at % 4] = small as u32,
            6 => bsr.value_starts[at % 4] = small as u32,
            7 => bsr.columns = BlockColumns::Wide((0..3).map(|i| (to >> (8 * i) & 3) as u32).collect()),
            _ => (bsr.r, bsr.c, bsr.shares) = (at, small as usize, vec![0, 5]),
        }
        if let Ok(op) = Nm::new(nm) {
            is_sound(&op)?;
        }
        if let Ok(op) = Bsr::new(bsr) {
            is_sound(&op)?;
        }
    }

    #[test]
    fn random_patterns_are_exact(
        rows in 0..90usize, groups in 0..40usize, m in 1..17usize, n in 1..17usize, r in 1..20usize, c in 1..20usize,
        sparsity in 0.0..0.99f64, tokens in 0..140usize,
    ) {
        let n = n.min(m);
        let cols = groups * m;
        let (w, x) = (whole(rows, cols, 4, "weight"), whole(tokens, cols, 8, "input"));
        let mask = masked(Pattern::Nm { n, m }, rows, cols, 0.0);
        let y = apply(&Nm::<f32>::with_pattern(&w, &mask, n, m).unwrap(), &x);
        prop_assert_eq!(y, oracle(&w, &mask, &x).mapv(|y| y as f32));
        let mask = masked(Pattern::Block { rows: r, cols: c }, rows, cols, sparsity);
        let y = apply(&Bsr::<f32>::with_blocks(&w, &mask, r, c).unwrap(), &x);
        prop_assert_eq!(y, oracle(&w, &mask, &x).mapv(|y| y as f32));
    }
}
