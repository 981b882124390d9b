//! Bytes with a scale for each group of a row's inputs, in N:M and blocks: exact where their scales are powers of two, as close as their
//! groups allow elsewhere.

use crate::close::assert_within;
use crate::patterned::{BLOCKS, NMS, keeps_infinities_apart, masked, takes_any_strides};
use crate::random::Seed;
use crate::storages::is_sound;
use crate::{TOKENS, oracle, whole};
use lacuna_sparse::mask::{Mask, Pattern};
use lacuna_sparse::storage::{Bsr, LinearOp, Nm, apply, apply_transpose};
use ndarray::{Array2, ArrayRef2};
use proptest::prelude::*;

/// Calls `law` with a weight in every patterned storage that has a scale for each group: its name, the weight, its mask, the inputs of a
/// group, and it.
fn in_every_grouping(
    weight: impl Fn(&Mask, usize) -> Array2<f32>,
    mut law: impl FnMut(&str, &ArrayRef2<f32>, &Mask, usize, &dyn LinearOp),
) {
    for (n, m) in NMS {
        // Rows of one word and of more, the last one whole or not; an odd number of rows; more than one block.
        for (rows, groups) in [(0, 3), (3, 0), (5, 3), (17, 40), (40, 23), (259, 20)] {
            let mask = masked(Pattern::Nm { n, m }, rows, m * groups, 0.0);
            for words in [1, 2] {
                let inputs = words * (64 / m * m);
                let w = weight(&mask, inputs);
                let op = Nm::<i8>::with_groups(&w, &mask, (n, m), inputs).unwrap();
                law(&format!("nm of {n}:{m} by {inputs}, {rows} x {}", m * groups), &w, &mask, inputs, &op);
            }
        }
    }
    for (r, c) in BLOCKS {
        for (rows, cols) in [(0, 4), (4, 0), (3, 17), (33, 40), (64, 130), (300, 70)] {
            for (sparsity, blocks) in [(0.0, 1), (0.4, 3), (0.9, 1), (0.9, 7)] {
                let mask = masked(Pattern::Block { rows: r, cols: c }, rows, cols, sparsity);
                let inputs = blocks * c;
                let w = weight(&mask, inputs);
                let op = Bsr::<i8>::with_groups(&w, &mask, (r, c), inputs).unwrap();
                law(&format!("bsr of {r}x{c} by {inputs}, {rows} x {cols} at {sparsity}"), &w, &mask, inputs, &op);
            }
        }
    }
}

/// Whole numbers up to 127 times a power of two for each group, the largest of which is reached: so the scale is that power, and nothing
/// is rounded.
fn exact(mask: &Mask, inputs: usize) -> Array2<f32> {
    let (rows, cols) = mask.dim();
    let mut w = whole(rows, cols, 127, "weight");
    let power = |r: usize, c: usize| 2f32.powi(((r + c / inputs) % 3) as i32 - 1);
    let mut before = None;
    for (r, c) in mask.iter_kept() {
        if before != Some((r, c / inputs)) {
            w[[r, c]] = if c % 2 == 0 { 127.0 } else { -127.0 };
            before = Some((r, c / inputs));
        }
    }
    w.indexed_iter_mut().for_each(|((r, c), w)| *w *= power(r, c));
    w
}

#[test]
fn products_by_groups_are_exact_where_scales_are_powers_of_two() {
    in_every_grouping(exact, |name, w, mask, _, op| {
        assert_eq!((op.shape(), op.nnz(), op.to_dense()), (w.dim(), mask.kept(), mask.applied(w)), "{name}");
        for tokens in TOKENS {
            let x = whole(tokens, mask.cols(), 8, "input");
            assert_eq!(apply(op, &x), oracle(w, mask, &x).mapv(|y| y as f32), "{name}, {tokens} tokens");
        }
        for tokens in [0, 1, 5, 70] {
            let dy = whole(tokens, mask.rows(), 8, "gradient");
            let expected = mask.applied(w).t().dot(&dy.t()).reversed_axes();
            assert_eq!(apply_transpose(op, &dy), expected, "{name}, {tokens} tokens back");
        }
    });
}

#[test]
fn products_by_groups_take_any_strides_and_what_is_done_on_the_way_into_y() {
    in_every_grouping(exact, |name, w, mask, _, op| takes_any_strides(name, w, mask, op));
}

#[test]
fn infinities_at_dropped_inputs_do_not_reach_the_outputs_by_groups() {
    in_every_grouping(exact, |name, w, mask, _, op| keeps_infinities_apart(name, w, mask, op));
}

fn normal(mask: &Mask, _: usize) -> Array2<f32> {
    Seed(9).stream(&format!("{:?}", mask.dim())).normal_array(mask.rows(), mask.cols(), 1.0)
}

#[test]
fn real_numbers_are_within_half_a_step_of_their_group_and_products_are_those_of_what_is_stored() {
    let u = 2f64.powi(-24);
    in_every_grouping(normal, |name, w, mask, inputs, op| {
        let stored = op.to_dense();
        let kept = mask.applied(w);
        let half_a_step = |(r, c): (usize, usize), _| {
            let of_group = mask.row_indices(r).filter(|other| other / inputs == c / inputs);
            0.5 * (of_group.map(|c| w[[r, c]].abs()).fold(0.0, f32::max) / 127.0) * (1.0 + 1e-5)
        };
        assert_within(&stored, &kept, half_a_step, name);
        for tokens in [1, 2, 7, 16, 130] {
            let x = Seed(4).stream(&format!("x {tokens}")).normal_array(tokens, mask.cols(), 1.0);
            let (exact, size) = (oracle(&stored, mask, &x), oracle(&stored.mapv(f32::abs), mask, &x.mapv(f32::abs)));
            // A rounding for each product and sum, for the scale of each stored number, and for the scale of each group.
            let n = (mask.cols() + 4 + mask.cols().div_ceil(inputs.min(52))) as f64;
            let y = apply(op, &x).mapv(f64::from);
            assert_within(&y, &exact, |at, _| n * u / (1.0 - n * u) * size[at], format!("{name}, {tokens} tokens"));
        }
    });
}

/// 2:4 of 20 x 512, whole words of 64.
fn halved() -> (Array2<f32>, Mask) {
    (Seed(5).stream("scales").normal_array(20, 512, 1.0), masked(Pattern::Nm { n: 2, m: 4 }, 20, 512, 0.0))
}

#[test]
fn smaller_groups_are_closer_to_the_weight_and_take_as_many_bytes_as_they_have_scales_more() {
    let (w, mask) = halved();
    let blocks = Mask::from_fn(20, 512, |r, c| (r / 4 + c / 2) % 3 != 0);
    let off = |op: &dyn LinearOp, mask: &Mask| (op.to_dense() - mask.applied(&w)).iter().map(|d| f64::from(d * d)).sum::<f64>();
    let (mut nm, mut bsr) = (Vec::new(), Vec::new());
    for inputs in [512, 128, 64] {
        nm.push(Nm::<i8>::with_groups(&w, &mask, (2, 4), inputs).unwrap());
        bsr.push(Bsr::<i8>::with_groups(&w, &blocks, (4, 2), inputs).unwrap());
    }
    let whole = Nm::<i8>::with_pattern(&w, &mask, 2, 4).unwrap();
    assert_eq!((whole.to_dense(), whole.bytes()), (nm[0].to_dense(), nm[0].bytes()), "one group is a row");
    for (i, groups) in [1, 4, 8].into_iter().enumerate() {
        assert_eq!(nm[i].bytes(), nm[0].bytes() + 4 * 20 * (groups - 1));
        assert_eq!(bsr[i].bytes(), bsr[0].bytes() + 4 * 20 * (groups - 1));
        if i > 0 {
            assert!(off(&nm[i], &mask) < off(&nm[i - 1], &mask));
            assert!(off(&bsr[i], &blocks) < off(&bsr[i - 1], &blocks));
        }
        assert_eq!((nm[i].mask(), bsr[i].mask()), (mask.clone(), blocks.clone()));
        assert_eq!(Nm::new(nm[i].clone().into_parts()).unwrap(), nm[i]);
        assert_eq!(Bsr::new(bsr[i].parts().clone()).unwrap(), bsr[i]);
    }
    // Floats have no scales.
    let floats = Nm::<f32>::with_groups(&w, &mask, (2, 4), 64).unwrap();
    assert_eq!(floats, Nm::<f32>::with_pattern(&w, &mask, 2, 4).unwrap());
    assert_eq!(floats.into_parts().group, None);
}

#[test]
fn one_thread_and_two_make_the_same_bits_by_groups() {
    let (w, mask) = (Seed(8).stream("threads").normal_array(640, 512, 1.0), masked(Pattern::Nm { n: 2, m: 4 }, 640, 512, 0.0));
    let blocks = Mask::from_fn(640, 512, |r, c| (r / 16 * 7 + c) % 3 != 0);
    let pools = [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    let nm = Nm::<i8>::with_groups(&w, &mask, (2, 4), 128).unwrap();
    let bsr = Bsr::<i8>::with_groups(&w, &blocks, (16, 1), 128).unwrap();
    for op in [&nm as &dyn LinearOp, &bsr] {
        for tokens in [1, 4, 17, 128] {
            let x = Seed(8).stream("x").normal_array(tokens, 512, 1.0);
            let [one, two] = [0, 1].map(|i| pools[i].install(|| apply(op, &x)).mapv(f32::to_bits));
            assert_eq!(one, two, "{}, {tokens} tokens", op.format());
            let dy = Seed(8).stream("dy").normal_array(tokens, 640, 1.0);
            let [one, two] = [0, 1].map(|i| pools[i].install(|| apply_transpose(op, &dy)).mapv(f32::to_bits));
            assert_eq!(one, two, "{}, {tokens} tokens back", op.format());
        }
    }
}

#[test]
fn groups_and_scales_that_do_not_fit_are_refused() {
    let (w, mask) = halved();
    let blocks = Mask::from_fn(20, 512, |r, c| (r / 4 + c / 2) % 3 != 0);
    let says = |e: lacuna_sparse::Error| e.to_string();
    for inputs in [0, 1, 63, 96] {
        let line = format!("nm: groups of {inputs} inputs with a scale, where multiples of 64 are possible");
        assert_eq!(says(Nm::<i8>::with_groups(&w, &mask, (2, 4), inputs).unwrap_err()), line);
        // What is asked for does not depend on the numbers.
        assert_eq!(says(Nm::<f32>::with_groups(&w, &mask, (2, 4), inputs).unwrap_err()), line);
    }
    let line = "bsr: groups of 3 inputs with a scale, where multiples of 2 are possible";
    assert_eq!(says(Bsr::<i8>::with_groups(&w, &blocks, (4, 2), 3).unwrap_err()), line);
    let line = "bsr: blocks of 0 x 2, where 1 x 1 and more are possible";
    assert_eq!(says(Bsr::<i8>::with_groups(&w, &blocks, (0, 2), 2).unwrap_err()), line);
    let line = "nm: 5:4, where 1 <= N <= M <= 16 is possible";
    assert_eq!(says(Nm::<i8>::with_groups(&w, &mask, (5, 4), 64).unwrap_err()), line);

    let parts = Nm::<i8>::with_groups(&w, &mask, (2, 4), 128).unwrap().into_parts();
    let mut short = parts.clone();
    short.scales.pop();
    assert_eq!(says(Nm::new(short).unwrap_err()), "nm: 79 scales for 20 rows of 4 groups");
    let mut other = parts.clone();
    other.group = Some(64);
    assert_eq!(says(Nm::new(other).unwrap_err()), "nm: 80 scales for 20 rows of 8 groups");
    let mut odd = parts.clone();
    odd.group = Some(100);
    assert_eq!(says(Nm::new(odd).unwrap_err()), "nm: groups of 100 inputs with a scale, where multiples of 64 are possible");
    let mut none = parts;
    (none.group, none.scales[79]) = (Some(128), f32::INFINITY);
    assert_eq!(says(Nm::new(none).unwrap_err()), "nm: a scale is inf");
    let mut floats = Nm::<f32>::with_pattern(&w, &mask, 2, 4).unwrap().into_parts();
    floats.group = Some(64);
    assert_eq!(says(Nm::new(floats).unwrap_err()), "nm: groups of 64 inputs with a scale, where f32 has none");

    let parts = Bsr::<i8>::with_groups(&w, &blocks, (4, 2), 128).unwrap().parts().clone();
    let mut zero = parts.clone();
    zero.group = Some(0);
    assert_eq!(says(Bsr::new(zero).unwrap_err()), "bsr: groups of 0 inputs with a scale, where multiples of 2 are possible");
    let mut all = parts;
    all.group = None;
    assert_eq!(says(Bsr::new(all).unwrap_err()), "bsr: 80 scales for 20 rows");
}

proptest! {
    #[test]
    fn changed_groups_and_scales_are_refused_or_sound(which in 0..4usize, at in 0..100usize, to in any::<u32>()) {
        let (w, mask) = halved();
        let mut nm = Nm::<i8>::with_groups(&w, &mask, (2, 4), 128).unwrap().into_parts();
        let blocks = Mask::from_fn(20, 512, |r, c| (r / 4 + c / 2) % 3 != 0);
        let mut bsr = Bsr::<i8>::with_groups(&w, &blocks, (4, 2), 128).unwrap().parts().clone();
        match which {
            0 => (nm.group, bsr.group) = (Some(64 * at), Some(2 * at)),
            1 => (nm.group, bsr.group) = (Some(to as usize), Some(to as usize)),
            2 => {
                // No larger, so that sums that cancel are as close as `is_sound` asks.
                let scale = f32::from_bits(to).clamp(-0.1, 0.1);
                (nm.scales[at % 80], bsr.scales[at % 80]) = (scale, scale);
            }
            _ => {
                nm.scales.truncate(at);
                bsr.scales.resize(at, 1.0);
            }
        }
        if let Ok(op) = Nm::new(nm) {
            is_sound(&op)?;
        }
        if let Ok(op) = Bsr::new(bsr) {
            is_sound(&op)?;
        }
    }

    #[test]
    fn random_groups_are_exact(
        rows in 1..60usize, groups in 0..60usize, m in 1..17usize, n in 1..17usize, r in 1..20usize, c in 1..20usize,
        sparsity in 0.0..0.99f64, tokens in 0..70usize, size in 1..6usize,
    ) {
        let (n, cols) = (n.min(m), groups * m);
        let x = whole(tokens, cols, 8, "input");
        let mask = masked(Pattern::Nm { n, m }, rows, cols, 0.0);
        let inputs = size * (64 / m * m);
        let w = exact(&mask, inputs);
        let y = apply(&Nm::<i8>::with_groups(&w, &mask, (n, m), inputs).unwrap(), &x);
        prop_assert_eq!(y, oracle(&w, &mask, &x).mapv(|y| y as f32));
        let mask = masked(Pattern::Block { rows: r, cols: c }, rows, cols, sparsity);
        let w = exact(&mask, size * c);
        let y = apply(&Bsr::<i8>::with_groups(&w, &mask, (r, c), size * c).unwrap(), &x);
        prop_assert_eq!(y, oracle(&w, &mask, &x).mapv(|y| y as f32));
    }
}
