//! A storage becomes another one by its kept weights: what comes out is what the dense weight under its mask would have given.

use crate::patterned::masked;
use crate::random::Seed;
use crate::{masks, random_mask, whole};
use half::{bf16, f16};
use lacuna_sparse::mask::{Mask, Pattern};
use lacuna_sparse::storage::{
    Bitmask, Compress, Csr, Dense, Entries, Expand, Format, Hint, LinearOp, Nm, Plan, Precision, Scaling, Sell, Slots, TileCsr,
    TilePairs, Values, narrow,
};
use ndarray::{Array2, array};

const VALUES: [Precision; 4] = [Precision::F32, Precision::Bf16, Precision::F16, Precision::I8];

/// Storages that hold any mask.
fn formats() -> Vec<Format> {
    ["csr", "tile-csr:7", "tile-csr:300", "tile-pairs:64", "tile-pairs:320", "bitmask:64", "bitmask:512", "sell", "sell:packed"]
        .into_iter()
        .chain(["bsr:1x1"])
        .map(|f| f.parse().unwrap())
        .collect()
}

/// What a format keeps of the numbers asked for.
fn kept(format: Format, values: Precision) -> Precision {
    if format == Format::Csr { Precision::F32 } else { values }
}

/// Normal numbers, some of them 0 and -0.
fn numbers(rows: usize, cols: usize) -> Array2<f32> {
    let mut w = Seed(4).stream(&format!("{rows} x {cols}")).normal_array(rows, cols, 1.0);
    w.iter_mut().step_by(5).for_each(|w| *w = 0.0);
    w.iter_mut().step_by(7).for_each(|w| *w = -0.0);
    w
}

/// Converts between all of some formats, and holds lists and counts to those of the dense weight.
fn all_become_all(formats: &[Format], w: &Array2<f32>, mask: &Mask, name: &str) {
    for values in VALUES {
        for &from in formats {
            let op = from.build(w, mask, kept(from, values)).unwrap();
            let case = |to: Format| format!("{from} of {values} to {to}, {:?}, {name}", w.dim());
            // What is stored, without the zeros of what is dropped.
            let stored = op.to_dense();
            assert_eq!(op.to_csr(), Csr::compress(&stored, mask).unwrap(), "{}", case(Format::Csr));
            assert_eq!(op.mask(), *mask, "{}", case(Format::Csr));
            for &to in formats {
                let values = if from == Format::Csr { Precision::F32 } else { kept(to, values) };
                let (found, parts) = (to.convert(op.as_ref()).unwrap(), to.convert_parts(op.as_ref(), values).unwrap());
                assert_eq!(found.nnz(), mask.kept(), "{}", case(to));
                assert_eq!(found.format(), to.build(w, mask, values).unwrap().format(), "{}", case(to));
                // i8 are those that were there, whose scales rounding anew could change; from the dense weight they are the same.
                let of = if to == Format::Csr { &stored } else { w };
                assert_eq!(parts, to.parts(of, mask, values).unwrap(), "{}", case(to));
                assert_eq!(parts.into_storage().unwrap().entries(), found.entries(), "{}", case(to));
                let bits = |w: &Array2<f32>| w.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found.to_dense()), bits(&stored), "{}", case(to));
            }
            let dense = Format::Dense.convert(op.as_ref()).unwrap();
            assert_eq!((dense.to_dense(), dense.nnz()), (stored, mask.kept()), "{}", case(Format::Dense));
        }
    }
}

#[test]
fn every_storage_becomes_every_other_as_if_it_were_made_of_the_dense_weight() {
    for (rows, cols) in [(0, 4), (4, 0), (1, 1), (3, 5), (40, 200)] {
        let w = numbers(rows, cols);
        for (name, mask) in masks(rows, cols) {
            all_become_all(&formats(), &w, &mask, &name);
        }
    }
    all_become_all(&formats(), &numbers(1100, 140), &random_mask(1100, 140, 0.3), "several blocks");
}

#[test]
fn storages_of_patterns_become_all_others_and_are_made_of_them() {
    for (pattern, format) in [("2:4", "nm:2:4"), ("3:16", "nm:3:16"), ("block4x2", "bsr:4x2"), ("block16x1", "bsr:16x1")] {
        for (rows, cols) in [(32, 48), (300, 144)] {
            let mask = masked(pattern.parse().unwrap(), rows, cols, 0.5);
            let formats: Vec<Format> = formats().into_iter().chain([format.parse().unwrap()]).collect();
            all_become_all(&formats, &numbers(rows, cols), &mask, pattern);
        }
    }
}

/// Numbers that are no numbers come through: rounding would turn their bits.
fn bits_stay<T: Expand>(odd: [T; 3], bits: fn(T) -> u32) {
    let w = Array2::from_shape_fn((3, 70), |(r, c)| odd[(r + c) % 3].decode());
    let mask = random_mask(3, 70, 0.5);
    let from = Sell::<T>::compress(&w, &mask).unwrap();
    let list = |entries: Entries| T::of_list(entries.values().clone()).unwrap().into_iter().map(bits).collect::<Vec<_>>();
    let first = list(from.entries());
    for to in formats().into_iter().filter(|f| *f != Format::Csr) {
        assert_eq!(list(to.convert(&from).unwrap().entries()), first, "{to} of {}", T::NAME);
    }
    let wide: Vec<u32> = from.to_csr().view().values().iter().map(|v| v.to_bits()).collect();
    assert_eq!(wide, mask.iter_kept().map(|at| w[at].to_bits()).collect::<Vec<_>>(), "csr of {}", T::NAME);
}

#[test]
fn infinities_and_the_payloads_of_nans_come_through_in_every_kind_of_float() {
    let odd = [0x7f80_0000, 0x7fc0_1234, 0xffc0_0001];
    bits_stay(odd.map(f32::from_bits), f32::to_bits);
    bits_stay([0x7f80, 0x7fc1, 0xffe0].map(bf16::from_bits), |v| u32::from(v.to_bits()));
    bits_stay([0x7c00, 0x7e01, 0xfe10].map(f16::from_bits), |v| u32::from(v.to_bits()));
}

#[test]
fn a_mask_that_the_other_storage_cannot_hold_is_refused_with_its_place() {
    let mask = Mask::from_fn(4, 8, |r, c| c % 2 == 0 && (r, c) != (2, 4));
    let op = Bitmask::<bf16>::compress(&whole(4, 8, 4, "weight"), &mask).unwrap();
    let says = |to: &str| to.parse::<Format>().unwrap().convert(&op).err().unwrap().to_string();
    assert_eq!(says("nm:2:4"), "mask is not 2:4: row 2, columns 4..8 keep 1, not 2");
    assert_eq!(says("bsr:2x1"), "mask is not block2x1: rows 2..4, columns 4..5 keep 1 of 2");
    assert_eq!(says("nm:1:3"), "nm: groups of 3 do not divide rows of 8");
    let rounded = Format::Csr.convert_to(&op, Precision::I8).err().unwrap().to_string();
    assert_eq!(rounded, "values: csr keeps f32 only, not i8");
}

#[test]
fn scales_of_groups_stay_where_the_other_storage_has_groups_within_them() {
    let (rows, cols) = (16, 512);
    let w = numbers(rows, cols);
    let mask = masked(Pattern::Nm { n: 2, m: 4 }, rows, cols, 0.0);
    let from = Nm::<i8>::with_groups(&w, &mask, (2, 4), 128).unwrap();
    assert_eq!(from.entries().precision(), Precision::I8Grouped(128));
    for to in ["nm:2:4", "tile-csr:128", "tile-csr:32", "tile-pairs:64", "bitmask:128", "bitmask:64", "bsr:1x1"] {
        let to = to.parse::<Format>().unwrap().convert(&from).unwrap();
        assert_eq!(to.to_dense(), from.to_dense(), "{}", to.format());
        assert_eq!(to.to_csr(), from.to_csr(), "{}", to.format());
        let Values::I8(values) = to.entries().values().clone() else { panic!("{} keeps others", to.format()) };
        assert_eq!(Values::I8(values), *from.entries().values(), "{}", to.format());
    }
    let says = |to: &str| to.parse::<Format>().unwrap().convert(&from).err().unwrap().to_string();
    let sell = "sell".parse::<Format>().unwrap().convert(&from).unwrap();
    assert_eq!((sell.to_dense(), sell.mask()), (from.to_dense(), from.mask()), "codes and scales are taken as they are");
    assert_eq!(says("tile-csr:256"), "values: i8:128, where tile-csr:256 has a scale a row, or one a tile as i8:256");
    // Asked for a scale a row, they are rounded anew, as from the dense weight.
    let anew = "sell".parse::<Format>().unwrap().convert_parts(&from, Precision::I8).unwrap();
    assert_eq!(anew, "sell".parse::<Format>().unwrap().parts(&from.to_dense(), &mask, Precision::I8).unwrap());
    // A scale a row serves every group.
    let of_rows = TilePairs::<i8>::with_tile(&w, &mask, 64, Scaling::Row).unwrap();
    assert_eq!(of_rows.entries().precision(), Precision::I8);
    let grouped = Format::Nm(2, 4).convert_to(&of_rows, Precision::I8Grouped(64)).unwrap();
    assert_eq!(grouped.to_csr(), of_rows.to_csr());
}

#[test]
fn other_numbers_are_rounded_as_from_the_dense_weight() {
    let (w, mask) = (numbers(17, 90), random_mask(17, 90, 0.4));
    let op = TileCsr::<f32>::compress(&w, &mask).unwrap();
    for to in formats().into_iter().filter(|f| *f != Format::Csr) {
        for values in VALUES {
            assert_eq!(to.convert_parts(&op, values).unwrap(), to.parts(&w, &mask, values).unwrap(), "{to} of {values}");
            assert_eq!(
                to.convert_to(&op, values).unwrap().to_csr(),
                to.build(&w, &mask, values).unwrap().to_csr(),
                "{to} of {values}"
            );
        }
    }
    let mut odd = w;
    odd[[3, mask.row_indices(3).next().unwrap()]] = f32::NAN;
    let op = Csr::compress(&odd, &mask).unwrap();
    let refused = Format::Sell(Slots::Padded).convert_to(&op, Precision::I8).err().unwrap().to_string();
    assert!(refused.starts_with("weight for i8: NaN at row 3, column "), "{refused}");
}

#[test]
fn all_weights_of_a_dense_storage_are_kept_and_a_plan_knows_its_mask() {
    let (w, mask) = (array![[1., 0., -2.], [0., 0., 3.]], Mask::from_fn(2, 3, |r, c| r + c != 1));
    for op in [Dense::new(w.clone()), Dense::compress(&w, &mask).unwrap()] {
        let csr = op.to_csr();
        assert_eq!((csr.nnz(), csr.to_dense(), csr.mask()), (6, op.to_dense(), Mask::full(2, 3)));
    }
    let narrowed = narrow(&w).unwrap();
    assert_eq!((narrowed.to_csr().nnz(), narrowed.to_csr().to_dense()), (6, w.clone()));
    // Nothing is faster than dense where all but two weights of few stay.
    let plan = Plan::new(&w, &mask, Hint::tokens(300)).unwrap();
    assert_eq!(plan.to_csr(), Csr::compress(&w, &mask).unwrap());
    let large = numbers(64, 64);
    let nearly = random_mask(64, 64, 0.99);
    let plan = Plan::new(&large, &nearly, Hint::tokens(64)).unwrap();
    assert_eq!(plan.chosen(64), Format::Dense);
    assert_eq!(plan.to_csr(), Csr::compress(&large, &nearly).unwrap());
}
