//! The plan: whatever it chooses multiplies exactly, dense wins where nothing is pruned, and it says what it did.

use crate::close::assert_close;
use crate::random::Seed;
use crate::{oracle, random_mask, whole};
use lacuna_sparse::mask::Mask;
use lacuna_sparse::storage::{Bsr, Format, Hint, LinearOp, Nm, Plan, Precision, QuantizedSparse, Scaling, Slots, TileCsr, apply};

#[test]
fn whatever_is_chosen_or_tuned_multiplies_exactly() {
    for (rows, cols) in [(1, 1), (0, 4), (4, 0), (40, 300), (300, 130)] {
        for tokens in [0, 1, 4, 300] {
            let format = Plan::candidates(&Mask::full(rows, cols), Hint::tokens(tokens))[0];
            assert_ne!(format, Format::Dense, "{rows} x {cols}, {tokens} tokens");
        }
        let w = whole(rows, cols, 4, "weight");
        for density in [0.0, 0.02, 0.3, 1.0] {
            let mask = random_mask(rows, cols, density);
            for hint in [Hint::tokens(1), Hint::tokens(33), Hint::tokens_and_single(64)] {
                let mut plan = Plan::new(&w, &mask, hint).unwrap();
                for tuned in [false, true] {
                    if tuned {
                        plan.tune().unwrap();
                    }
                    assert_eq!((plan.shape(), plan.nnz()), ((rows, cols), mask.kept()));
                    assert_eq!(plan.to_dense(), mask.applied(&w));
                    for tokens in [0, 1, 5, 64] {
                        let x = whole(tokens, cols, 8, "input");
                        let expected = oracle(&w, &mask, &x).mapv(|y| y as f32);
                        assert_eq!(apply(&plan, &x), expected, "{rows} x {cols} at {density}, {hint:?}, {tokens} tokens");
                    }
                }
            }
        }
    }
}

#[test]
fn dense_is_chosen_for_few_tokens_where_nothing_is_pruned_and_sparse_where_nearly_all_is() {
    let w = whole(256, 512, 4, "weight");
    for tokens in [1, 4, 16, 128] {
        let full = Plan::new(&w, &Mask::full(256, 512), Hint::tokens(tokens)).unwrap();
        // With more tokens, strips of rows in pairs may beat the dense product even of a full weight.
        if tokens <= 4 {
            assert_eq!(full.chosen(tokens), Format::Dense, "{tokens} tokens");
        }
        let few = Plan::new(&w, &random_mask(256, 512, 0.02), Hint::tokens(tokens)).unwrap();
        assert_eq!(few.chosen(tokens), Plan::candidates(few.mask(), Hint::tokens(tokens))[0], "{tokens} tokens");
        assert!(!Plan::candidates(few.mask(), Hint::tokens(tokens)).contains(&Format::Dense), "{tokens} tokens");
        assert!(few.bytes() < 4 * 256 * 512 / 4);
    }
}

#[test]
fn a_plan_for_both_has_a_storage_for_each_and_says_so() {
    let (w, mask) = (whole(256, 512, 4, "weight"), random_mask(256, 512, 0.1));
    let plan = Plan::new(&w, &mask, Hint::tokens_and_single(128)).unwrap();
    let [one, many] = [1, 128].map(|t| Plan::new(&w, &mask, Hint::tokens(t)).unwrap());
    assert_eq!((plan.chosen(1), plan.chosen(128)), (one.chosen(1), many.chosen(128)));
    assert_eq!(plan.bytes(), one.bytes() + many.bytes());
    let said = plan.explain();
    assert_eq!(said.lines().count(), 2, "{said}");
    for (line, tokens) in said.lines().zip([128, 1]) {
        let choice = format!("256 x 512, {} of 131072 kept, {tokens} tokens: {} (", mask.kept(), plan.chosen(tokens));
        assert!(line.starts_with(&choice), "{line}");
    }
}

#[test]
fn names_of_storages_are_read_back_and_others_refused() {
    let formats = [Format::Dense, Format::Csr, Format::TileCsr(1), Format::TileCsr(65536), Format::Bitmask(128)];
    for format in formats.into_iter().chain([Slots::Padded, Slots::Packed].map(Format::Sell)) {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
    }
    assert_eq!("tile-csr".parse::<Format>().unwrap(), Format::TileCsr(128));
    let refused = [
        (
            "coo",
            "format: 'coo' is none of auto, dense, csr, tile-csr[:COLUMNS], tile-pairs[:COLUMNS], bitmask[:COLUMNS], sell[:padded|packed], nm[:N:M], bsr[:RxC]",
        ),
        ("sell:8", "format: 'sell:8': slots are padded or packed"),
        ("csr:4", "format: 'csr:4': csr has no tiles"),
        ("tile-csr:0", "format: 'tile-csr:0': a tile has 1 to 65536 columns"),
        ("tile-csr:65537", "format: 'tile-csr:65537': a tile has 1 to 65536 columns"),
        ("bitmask:65", "format: 'bitmask:65': a tile of a bitmask is a multiple of 64 columns wide"),
    ];
    for (text, says) in refused {
        assert_eq!(text.parse::<Format>().unwrap_err().to_string(), says);
    }
    for values in [Precision::F32, Precision::Bf16, Precision::F16, Precision::I8, Precision::I8Grouped(64)] {
        assert_eq!(values.to_string().parse::<Precision>().unwrap(), values);
        let built = Format::Bitmask(64).build(&whole(3, 70, 4, "weight"), &Mask::full(3, 70), values).unwrap();
        assert_eq!((built.format(), built.nnz()), ("bitmask", 210));
    }
    for values in [Precision::U8Grouped(32), Precision::I4Grouped(64), Precision::U4Grouped(128)] {
        assert_eq!(values.to_string().parse::<Precision>().unwrap(), values);
    }
    let csr = Format::Csr.build(&whole(3, 7, 4, "weight"), &Mask::full(3, 7), Precision::I8).err().unwrap();
    assert_eq!(csr.to_string(), "values: csr keeps f32 only, not i8");
}

#[test]
fn plans_of_other_numbers_multiply_what_they_store() {
    let (w, mask) = (Seed(4).stream("w").normal_array(96, 256, 1.0), random_mask(96, 256, 0.1));
    let x = Seed(5).stream("x").normal_array(3, 256, 1.0);
    for values in [Precision::Bf16, Precision::F16, Precision::I8, Precision::I8Grouped(64)] {
        for tokens in [1, 3, 40] {
            let mut plan = Plan::new(&w, &mask, Hint::tokens(tokens).with_values(values)).unwrap();
            for tuned in [false, true] {
                if tuned {
                    plan.tune().unwrap();
                }
                let exact = oracle(&plan.to_dense(), &mask, &x);
                let y = apply(&plan, &x).mapv(f64::from);
                assert_close(&y, &exact, 1e-4f64.next_down(), format!("{values}, {tokens} tokens, {}", plan.explain()));
                // Nearer than a step of 8 bits, and half as large as f32 would be whole.
                assert_close(&plan.to_dense(), &mask.applied(&w), 0.03f32.next_down(), values);
                assert!(plan.chosen(tokens) == Format::Dense || plan.bytes() < 2 * w.len(), "{}", plan.explain());
            }
        }
    }
}

#[test]
fn plans_for_weights_from_memory_are_timed_from_there() {
    let (w, mask) = (whole(96, 512, 4, "weight"), random_mask(96, 512, 0.1));
    let x = whole(1, 512, 8, "input");
    for (hint, from) in [(Hint::tokens(1), "timed:"), (Hint::tokens(1).from_memory(), "timed from memory:")] {
        let mut plan = Plan::new(&w, &mask, hint).unwrap();
        plan.tune().unwrap();
        let said = plan.explain();
        assert!(said.contains(from) && said.contains("dense"), "{said}");
        // The storages that the model ranks first were tried, with the same hint.
        assert!(Plan::candidates(&mask, hint).iter().take(3).all(|f| said.contains(&f.to_string())), "{said}");
        assert_eq!(apply(&plan, &x), oracle(&w, &mask, &x).mapv(|y| y as f32));
    }
}

#[test]
fn plans_of_groups_take_a_storage_that_has_them() {
    let w = whole(64, 256, 4, "weight");
    let half = Mask::from_fn(64, 256, |r, c| (r + c) % 4 < 2);
    for (inputs, has_nm) in [(64, true), (32, false), (7, false)] {
        let hint = Hint::tokens(1).from_memory().with_values(Precision::I8Grouped(inputs));
        assert_eq!(Plan::candidates(&half, hint).contains(&Format::Nm(2, 4)), has_nm, "{inputs}");
        Plan::new(&w, &half, hint).unwrap().tune().unwrap();
    }
    let none = Hint::tokens(1).with_values(Precision::I8Grouped(0));
    // No storage has groups of nothing, and no text asks for them.
    assert_eq!(Plan::new(&w, &half, none).unwrap().chosen(1), Format::Dense);
    assert_eq!(
        "i8:0".parse::<Precision>().unwrap_err().to_string(),
        "values: 'i8:0' is none of f32, bf16, f16, i8, i8:INPUTS, u8:INPUTS, i4:INPUTS and u4:INPUTS, of 1 to 65536 inputs"
    );
}

#[test]
fn scales_of_groups_are_named_and_built() {
    let (w, full) = (whole(4, 128, 4, "weight"), Mask::full(4, 128));
    let half = Mask::from_fn(4, 128, |_, c| c % 4 < 2);
    let built = |format: &str, values: &str, mask| {
        let (format, values) = (format.parse::<Format>().unwrap(), values.parse::<Precision>().unwrap());
        format.build(&w, mask, values).map(|op| (op.bytes(), op.to_dense()))
    };
    let of = |op: &dyn LinearOp| (op.bytes(), op.to_dense());
    let tiles = TileCsr::<i8>::with_tile(&w, &half, 64, Scaling::Tile).unwrap();
    assert_eq!(built("tile-csr:64", "i8:64", &half).unwrap(), of(&tiles));
    assert_eq!(built("nm:2:4", "i8:64", &half).unwrap(), of(&Nm::<i8>::with_groups(&w, &half, (2, 4), 64).unwrap()));
    assert_eq!(built("bsr:4x1", "i8:32", &full).unwrap(), of(&Bsr::<i8>::with_groups(&w, &full, (4, 1), 32).unwrap()));
    let says = |format, values| built(format, values, &full).unwrap_err().to_string();
    let tile = "values: i8:32, where bitmask:64 has a scale a row, or one a tile as i8:64";
    assert_eq!(says("bitmask:64", "i8:32"), tile);
    let rounded = QuantizedSparse::round_to_nearest(&w, &half, Precision::I8Grouped(64)).unwrap();
    assert_eq!(built("sell", "i8:64", &half).unwrap().1, rounded.to_dense());
    assert_eq!(
        "i8:x".parse::<Precision>().unwrap_err().to_string(),
        "values: 'i8:x' is none of f32, bf16, f16, i8, i8:INPUTS, u8:INPUTS, i4:INPUTS and u4:INPUTS, of 1 to 65536 inputs"
    );
}

#[test]
fn patterns_are_found_in_a_mask_and_their_storages_are_among_the_choices() {
    let w = whole(64, 256, 4, "weight");
    for (n, m) in [(1, 4), (2, 4), (4, 8)] {
        let mask = Mask::from_fn(64, 256, |r, c| (c + r) % m < n);
        let hint = Hint::tokens(1).from_memory();
        let plan = Plan::new(&w, &mask, hint).unwrap();
        // It is among the best of the sparse ones: the caches hold these 16 thousand weights, so slices may take less time.
        let best = &Plan::candidates(&mask, hint)[..3];
        assert!(best.contains(&Format::Nm(n, m)), "{best:?}");
        let x = whole(1, 256, 8, "input");
        assert_eq!(apply(&plan, &x), oracle(&w, &mask, &x).mapv(|y| y as f32));
        // One weight elsewhere, and the pattern is gone.
        let mut broken = mask.clone();
        let (r, c) = mask.not().iter_kept().next().unwrap();
        let gone = mask.iter_kept().find(|&(row, col)| row == r && col / 16 != c / 16).unwrap();
        broken.set(r, c, true);
        broken.set(gone.0, gone.1, false);
        assert_eq!(broken.kept(), mask.kept());
        assert!(!Plan::candidates(&broken, hint).contains(&Format::Nm(n, m)));
    }
    for (r, c) in [(16, 1), (1, 16), (4, 4), (8, 1), (4, 1)] {
        let mask = Mask::from_fn(64, 256, |row, col| (row / r * 7 + col / c * 5) % 10 == 0);
        let mut plan = Plan::new(&w, &mask, Hint::tokens(64)).unwrap();
        plan.tune().unwrap();
        let said = plan.explain();
        assert!(said.contains("bsr:"), "blocks of {r} x {c} were tried: {said}");
        let x = whole(64, 256, 8, "input");
        assert_eq!(apply(&plan, &x), oracle(&w, &mask, &x).mapv(|y| y as f32));
    }
}
