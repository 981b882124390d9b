//! Storages in files: read back as they were, under names that stay; the layouts of published checkpoints, against files of their own writer.

use half::{bf16, f16};
use lacuna::Error;
use lacuna::io::{Checkpoint, Dtype};
use lacuna::mask::{Mask, Pattern, Scope, select};
use lacuna::rng::Seed;
use lacuna::sparse::{
    Bitmask, Bsr, Compress, Csr, Expand, LinearOp, Nm, Offsets, Precision, Quantized, QuantizedNm, QuantizedParts,
    QuantizedSparse, Scaling, Sell, Slots, Stored, TileCsr, TilePairs,
};
use ndarray::Array2;
use std::path::{Path, PathBuf};

fn weight(rows: usize, cols: usize) -> Array2<f32> {
    Seed(3).stream("weight").normal_array(rows, cols, 1.0)
}

fn masked(pattern: Pattern, rows: usize, cols: usize) -> Mask {
    select(&weight(rows, cols), pattern, Scope::Layer, pattern.budget(rows, cols, 0.6).unwrap()).unwrap()
}

/// Through bytes and back, typed and not.
fn comes_back<S: Stored + PartialEq + std::fmt::Debug>(storage: &S) {
    let mut model = Checkpoint::new();
    model.insert("other", weight(2, 3), Dtype::F32).unwrap();
    model.insert_storage("fc.weight", storage).unwrap();
    let bytes = model.to_bytes().unwrap();
    let read = Checkpoint::from_bytes("m", &bytes).unwrap();
    assert_eq!(read.storages().collect::<Vec<_>>(), ["fc.weight"]);
    assert_eq!(&read.storage_as::<S>("fc.weight").unwrap(), storage);
    let any = read.storage("fc.weight").unwrap();
    assert_eq!((any.format(), any.shape(), any.nnz()), (storage.format(), storage.shape(), storage.nnz()));
    assert_eq!((any.bytes(), any.to_dense()), (storage.bytes(), storage.to_dense()));
    assert_eq!(read.to_bytes().unwrap(), bytes);
    // Put in twice and taken out, it leaves nothing behind.
    model.insert_storage("fc.weight", storage).unwrap();
    assert_eq!(model.to_bytes().unwrap(), bytes);
    model.remove_storage("fc.weight");
    assert_eq!((model.len(), model.storages().count()), (1, 0));
}

fn all_come_back<T: Expand>() {
    for (rows, cols) in [(17, 64), (300, 320), (0, 16), (16, 0)] {
        let w = weight(rows, cols);
        let any = Mask::from_fn(rows, cols, |r, c| (r * 7 + c * 3) % 5 < 2);
        comes_back(&Csr::compress(&w, &any).unwrap());
        for scaling in [Scaling::Row, Scaling::Tile] {
            for tile in [64, 320] {
                comes_back(&TileCsr::<T>::with_tile(&w, &any, tile, scaling).unwrap());
                comes_back(&TilePairs::<T>::with_tile(&w, &any, tile, scaling).unwrap());
            }
            comes_back(&Bitmask::<T>::with_tile(&w, &any, 2, scaling).unwrap());
        }
        for (lanes, slots) in [(8, Slots::Packed), (16, Slots::Padded)] {
            comes_back(&Sell::<T>::with_lanes(&w, &any, lanes, slots).unwrap());
        }
        if rows * cols > 0 {
            let (half, blocks) = (Pattern::Nm { n: 2, m: 4 }, Pattern::Block { rows: 4, cols: 3 });
            let (half, blocks) = (masked(half, rows, cols), masked(blocks, rows, cols));
            comes_back(&Nm::<T>::with_pattern(&w, &half, 2, 4).unwrap());
            comes_back(&Bsr::<T>::with_blocks(&w, &blocks, 4, 3).unwrap());
            comes_back(&Nm::<T>::with_groups(&w, &half, (2, 4), 64).unwrap());
            comes_back(&Bsr::<T>::with_groups(&w, &blocks, (4, 3), 9).unwrap());
        }
    }
}

#[test]
fn every_storage_comes_back_from_a_file_as_it_was() {
    all_come_back::<f32>();
    all_come_back::<bf16>();
    all_come_back::<f16>();
    all_come_back::<i8>();
    let w = weight(20, 96);
    for values in [Precision::I4Grouped(32), Precision::U4Grouped(96), Precision::I8Grouped(32), Precision::U8Grouped(32)] {
        comes_back(&Quantized::round_to_nearest(&w, values).unwrap());
    }
    comes_back(&with_least(&w));
    let mask = masked(Pattern::Nm { n: 2, m: 4 }, 20, 96);
    comes_back(&QuantizedNm::round_to_nearest(&w, &mask, (2, 4), Precision::U4Grouped(32)).unwrap());
}

/// Four bits with offsets that are no multiples of the scale.
fn with_least(w: &Array2<f32>) -> Quantized {
    let parts = Quantized::round_to_nearest(w, Precision::U4Grouped(32)).unwrap().parts();
    let offsets = Offsets::Minimums(vec![-0.3; parts.scales.len()]);
    Quantized::new(QuantizedParts { offsets, ..parts }).unwrap()
}

#[test]
fn columns_of_more_than_16_bits_come_back_too() {
    let mask = Mask::from_fn(2, 70_000, |_, c| c % 5000 == 7);
    comes_back(&Bsr::<f32>::with_blocks(&Array2::ones((2, 70_000)), &mask, 2, 1).unwrap());
}

/// The tensors with their types, and the JSON.
fn listing<S: Stored>(storage: &S) -> String {
    let mut model = Checkpoint::new();
    model.insert_storage("w", storage).unwrap();
    let tensor = |name: &str| {
        let info = model.info(name).unwrap();
        format!("{name} {} {:?}", info.dtype, info.shape)
    };
    let tensors: Vec<String> = model.names().map(tensor).collect();
    format!("{}; {}", tensors.join(", "), model.metadata()["w.storage"])
}

#[test]
fn names_and_types_on_disk_stay_what_they_are() {
    let w = weight(2, 8);
    let half = masked(Pattern::Nm { n: 1, m: 2 }, 2, 8);
    let listings = [
        listing(&Csr::compress(&w, &half).unwrap()),
        listing(&TileCsr::<i8>::compress(&w, &half).unwrap()),
        listing(&TilePairs::<f32>::with_tile(&w, &half, 320, Scaling::Row).unwrap()),
        listing(&Bitmask::<bf16>::compress(&w, &half).unwrap()),
        listing(&Nm::<i8>::with_pattern(&w, &half, 1, 2).unwrap()),
        listing(&Bsr::<f16>::with_blocks(&w, &Mask::from_fn(2, 8, |_, c| c < 4), 2, 2).unwrap()),
        listing(&Bsr::<i8>::with_groups(&w, &Mask::from_fn(2, 8, |_, c| c < 4), (2, 2), 4).unwrap()),
        listing(&Quantized::round_to_nearest(&w, Precision::U4Grouped(8)).unwrap()),
        listing(&with_least(&weight(2, 32))),
        listing(&QuantizedNm::round_to_nearest(&w, &half, (1, 2), Precision::I4Grouped(8)).unwrap()),
        listing(&QuantizedSparse::round_to_nearest(&w, &half, Precision::U8Grouped(8)).unwrap()),
    ];
    let expected = [
        "w.offsets U32 [3], w.indices U32 [8], w.values F32 [8]; \
         {\"format\":\"csr\",\"version\":1,\"values\":\"f32\",\"rows\":2,\"cols\":8}",
        "w.blocks U32 [2], w.starts U32 [3], w.order U16 [2], w.columns U8 [8], w.values I8 [8], w.scales F32 [2]; \
         {\"format\":\"tile-csr\",\"version\":1,\"values\":\"i8\",\"rows\":2,\"cols\":8,\"tile\":128}",
        "w.blocks U32 [2], w.column_starts U32 [2], w.value_starts U32 [2], w.pairs U16 [5], w.columns U16 [COLUMNS], w.values F32 [8]; \
         {\"format\":\"tile-pairs\",\"version\":1,\"values\":\"f32\",\"rows\":2,\"cols\":8,\"tile\":320}",
        "w.blocks U32 [2], w.starts U32 [3], w.words U64 [2], w.values BF16 [8]; \
         {\"format\":\"bitmask\",\"version\":1,\"values\":\"bf16\",\"rows\":2,\"cols\":8,\"tile\":1}",
        "w.blocks U32 [2], w.order U8 [2], w.words U64 [2], w.values I8 [8], w.scales F32 [2]; \
         {\"format\":\"nm\",\"version\":1,\"values\":\"i8\",\"rows\":2,\"cols\":8,\"pattern\":[1,2]}",
        "w.shares U32 [2], w.starts U32 [2], w.value_starts U32 [2], w.columns U16 [2], w.values F16 [8]; \
         {\"format\":\"bsr\",\"version\":1,\"values\":\"f16\",\"rows\":2,\"cols\":8,\"pattern\":[2,2]}",
        // Two groups of four inputs for each of two rows.
        "w.shares U32 [2], w.starts U32 [2], w.value_starts U32 [2], w.columns U16 [2], w.values I8 [8], w.scales F32 [4]; \
         {\"format\":\"bsr\",\"version\":1,\"values\":\"i8\",\"rows\":2,\"cols\":8,\"pattern\":[2,2],\"group\":4}",
        "w.codes U8 [8], w.scales F16 [2], w.zero_points I8 [2]; \
         {\"format\":\"quantized\",\"version\":1,\"values\":\"u4\",\"rows\":2,\"cols\":8,\"group\":8}",
        "w.codes U8 [32], w.scales F16 [2], w.minimums F32 [2]; \
         {\"format\":\"quantized\",\"version\":1,\"values\":\"u4\",\"rows\":2,\"cols\":32,\"group\":32}",
        "w.words U64 [2], w.codes U8 [4], w.scales F16 [2]; \
         {\"format\":\"quantized-nm\",\"version\":1,\"values\":\"i4\",\"rows\":2,\"cols\":8,\"pattern\":[1,2],\"group\":8}",
        "w.words U64 [2], w.codes U8 [8], w.scales F16 [2], w.zero_points I8 [2]; \
         {\"format\":\"quantized-sparse\",\"version\":1,\"values\":\"u8\",\"rows\":2,\"cols\":8,\"group\":8}",
    ];
    // Two rows share as many columns as they do.
    let common = (0..8).filter(|&c| half.get(0, c) && half.get(1, c)).count();
    for (found, expected) in listings.into_iter().zip(expected) {
        assert_eq!(found, expected.replace("COLUMNS", &(8 - common).to_string()));
    }
}

#[test]
fn storages_that_are_not_what_they_say_are_refused_in_one_line() {
    let w = weight(8, 16);
    let mask = masked(Pattern::Nm { n: 2, m: 4 }, 8, 16);
    let mut model = Checkpoint::new();
    model.insert_storage("fc.weight", &Nm::<i8>::with_pattern(&w, &mask, 2, 4).unwrap()).unwrap();
    let says = |model: &Checkpoint| {
        let line = model.storage("fc.weight").err().unwrap().to_string();
        assert!(!line.contains('\n') && line.starts_with("(new checkpoint): tensor "), "{line}");
        line.trim_start_matches("(new checkpoint): tensor ").to_string()
    };
    let with = |from: &str, to: &str| {
        let mut other = model.clone();
        let json = other.metadata()["fc.weight.storage"].replace(from, to);
        other.insert_metadata("fc.weight.storage", json);
        says(&other)
    };
    assert_eq!(with("\"version\":1", "\"version\":2"), "'fc.weight.storage' is of version 2; this reads version 1");
    assert_eq!(
        with("\"nm\"", "\"coo\""),
        "'fc.weight.storage' 'coo' is none of csr, tile-csr, tile-pairs, bitmask, sell, nm, bsr, quantized, quantized-nm, quantized-sparse"
    );
    assert_eq!(with("\"i8\"", "\"i4\""), "'fc.weight.storage' 'i4' is none of f32, bf16, f16, i8");
    assert_eq!(with("\"i8\"", "\"bf16\""), "'fc.weight.values' is I8, not BF16");
    let line = "'fc.weight.storage' is no nm: groups of 9 inputs with a scale, where multiples of 64 are possible";
    assert_eq!(with("[2,4]", "[2,4],\"group\":9"), line);
    assert_eq!(with("[2,4]", "[2,3]"), "'fc.weight.storage' is no nm: groups of 3 do not divide rows of 16");
    assert_eq!(with("\"rows\":8", "\"rows\":9"), "'fc.weight.storage' is no nm: blocks run from Some(0) to Some(8) over 9 rows");
    assert_eq!(with(",\"pattern\":[2,4]", ""), "'fc.weight.storage' has no pattern");
    assert!(with("\"rows\"", "\"lines\"").starts_with("'fc.weight.storage' does not describe a storage: unknown field `lines`"));
    assert!(with("\"rows\":8", "\"rows\":9999999999").ends_with("says 9999999999 x 16, which is too large"));
    let mut without = model.clone();
    without.remove("fc.weight.words").unwrap();
    assert_eq!(says(&without), "'fc.weight.words' is missing; nm needs it");
    let mut shaped = model.clone();
    shaped.insert("fc.weight.scales", weight(2, 4), Dtype::F32).unwrap();
    assert_eq!(says(&shaped), "'fc.weight.scales' has shape [2, 4]; a part of a storage has one dimension");
    let line = model.storage_as::<Nm<f32>>("fc.weight").unwrap_err().to_string();
    assert_eq!(line, "(new checkpoint): tensor 'fc.weight.storage' is 'nm' of 'i8', not nm of f32");
    assert!(matches!(model.storage("fc"), Err(Error::UnknownName { .. })));
    let mut taken = Checkpoint::new();
    taken.insert("fc.values", weight(1, 1), Dtype::F32).unwrap();
    let line = taken.insert_storage("fc", &Csr::compress(&w, &mask).unwrap()).unwrap_err().to_string();
    assert_eq!(line, "storage: there is a tensor 'fc.values' already");
    assert_eq!(taken.len(), 1);
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/io/published.safetensors")
}

#[test]
fn published_layouts_are_read_as_their_own_writer_meant_them() {
    let model = Checkpoint::read(golden()).unwrap();
    assert_eq!(model.published_names(), ["model.a.weight", "model.b.weight"]);
    for (name, dense) in [("model.a.weight", "dense.a"), ("model.b.weight", "dense.b"), ("model.a", "dense.a")] {
        let (weight, mask) = model.published(name).unwrap();
        let dense = model.matrix(dense).unwrap();
        assert_eq!(weight, dense, "{name}");
        assert_eq!(mask, Mask::from_array(&dense.mapv(|w| w != 0.0)), "{name}");
        assert_eq!(Bitmask::<f32>::compress(&weight, &mask).unwrap().to_dense(), dense, "{name}");
    }
    let (weight, mask) = model.published("model.b.weight").unwrap();
    assert_eq!(Nm::<bf16>::with_pattern(&weight, &mask, 2, 4).unwrap().to_dense(), weight);
    assert!(matches!(model.published("model.c.weight"), Err(Error::UnknownName { .. })));
}

#[test]
fn what_is_written_in_published_layouts_is_what_their_own_writer_writes() {
    let theirs = Checkpoint::read(golden()).unwrap();
    let mut ours = Checkpoint::new();
    ours.insert_metadata("format", "pt");
    let dense = |name: &str| theirs.matrix(name).unwrap();
    let mask = |w: &Array2<f32>| Mask::from_array(&w.mapv(|w| w != 0.0));
    let (a, b) = (dense("dense.a"), dense("dense.b"));
    // Twice, and of the other layout before: the last one stays.
    ours.insert_sparse_bitmask("model.b.weight", &b, &mask(&b), Dtype::F32).unwrap();
    for _ in 0..2 {
        ours.insert_sparse_bitmask("model.a.weight", &a, &mask(&a), Dtype::F32).unwrap();
        ours.insert_sparse_24_bitmask("model.b.weight", &b, &mask(&b), Dtype::BF16).unwrap();
    }
    let mut reduced = theirs.clone();
    ["dense.a", "dense.b"].iter().for_each(|name| reduced.remove(name).unwrap());
    assert_eq!(ours.to_bytes().unwrap(), reduced.to_bytes().unwrap());
}

#[test]
fn published_layouts_keep_zeros_and_refuse_what_does_not_fit() {
    let (w, mask) = (Array2::zeros((4, 8)), Mask::from_fn(4, 8, |r, c| (r + c) % 2 == 0));
    let mut model = Checkpoint::new();
    model.insert_sparse_bitmask("a.weight", &w, &mask, Dtype::F16).unwrap();
    model.insert_sparse_24_bitmask("b.weight", &w, &mask, Dtype::F16).unwrap();
    for name in ["a.weight", "b.weight"] {
        assert_eq!(model.published(name).unwrap(), (w.clone(), mask.clone()));
    }
    let three = Mask::from_fn(4, 8, |_, c| c != 2);
    let says = model.insert_sparse_24_bitmask("b.weight", &w, &three, Dtype::F16).unwrap_err().to_string();
    assert_eq!(says, "mask is not 2:4: row 0, columns 0..4 keep 3, not 2");
    assert!(model.insert_sparse_bitmask("b.weight", &w, &Mask::full(8, 4), Dtype::F16).is_err());
    // What stands there is left as it was.
    assert_eq!(model.published("b.weight").unwrap(), (w.clone(), mask));
    let mut broken = model.clone();
    broken.remove("a.row_offsets").unwrap();
    assert_eq!(broken.published("a.weight").unwrap_err().to_string(), "(new checkpoint): tensor 'a.row_offsets' is missing");
    let mut broken = model.clone();
    broken.insert("a.compressed", ndarray::arr1(&[1.0, 2.0]), Dtype::F16).unwrap();
    let says = broken.published("a.weight").unwrap_err().to_string();
    assert_eq!(says, "(new checkpoint): tensor 'a.compressed' has shape [2]; the mask keeps 16 of 4 x 8");
    let mut broken = model.clone();
    broken.insert("a.bitmask", Array2::zeros((4, 1)), Dtype::F16).unwrap();
    let says = broken.published("a.weight").unwrap_err().to_string();
    assert_eq!(says, "(new checkpoint): tensor 'a.bitmask' is F16 of shape [4, 1]; the mask of a 4 x 8 weight is U8 of [4, 1]");
}
