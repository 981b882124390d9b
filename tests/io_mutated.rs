//! Damaged files: whatever is done to the bytes of a valid file, reading it gives a valid value or one clean error.
//!
//! What must be refused is refused, what must be read is read with nothing else changed, and of all damages both kinds are counted: a
//! reader that took everything, or nothing, fails.

use lacuna::Error;
use lacuna::data::idx::Idx;
use lacuna::io::{Checkpoint, Dtype, read_header};
use lacuna::mask::Mask;
use lacuna::sparse::{
    Bitmask, Bsr, Compress, Csr, Nm, Offsets, Precision, Quantized, QuantizedNm, QuantizedParts, QuantizedSparse, Scaling, Sell,
    Slots, TileCsr, TilePairs, apply,
};
use ndarray::{Array2, array};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::ops::RangeInclusive;

/// One thing that goes wrong with a file. Places are shares of its length, so that they mean something at any length.
#[derive(Debug, Clone)]
enum Damage {
    Flip {
        at: f64,
        bit: u8,
    },
    Set {
        at: f64,
        byte: u8,
    },
    Truncate {
        at: f64,
    },
    Extend {
        bytes: Vec<u8>,
    },
    Remove {
        at: f64,
        count: usize,
    },
    Insert {
        at: f64,
        bytes: Vec<u8>,
    },
    /// Overwrites a length field near the front of the file.
    Length {
        at: usize,
        value: u64,
        bytes: usize,
        big: bool,
    },
    /// Puts another number in the place of one that is written in decimal.
    Number {
        which: usize,
        value: u64,
    },
}

impl Damage {
    fn kind(&self) -> &'static str {
        match self {
            Damage::Flip { .. } => "flip",
            Damage::Set { .. } => "set",
            Damage::Truncate { .. } => "truncate",
            Damage::Extend { .. } => "extend",
            Damage::Remove { .. } => "remove",
            Damage::Insert { .. } => "insert",
            Damage::Length { .. } => "length",
            Damage::Number { .. } => "number",
        }
    }

    fn apply(&self, file: &mut Vec<u8>) {
        let place = |at: f64| ((at * file.len() as f64) as usize).min(file.len().saturating_sub(1));
        match self {
            Damage::Flip { at, bit } if !file.is_empty() => {
                let at = place(*at);
                file[at] ^= 1 << bit;
            }
            Damage::Set { at, byte } if !file.is_empty() => {
                let at = place(*at);
                file[at] = *byte;
            }
            Damage::Flip { .. } | Damage::Set { .. } => {}
            Damage::Truncate { at } => file.truncate(place(*at)),
            Damage::Extend { bytes } => file.extend(bytes),
            Damage::Remove { at, count } => {
                let at = place(*at);
                file.drain(at..(at + count).min(file.len()));
            }
            Damage::Insert { at, bytes } => {
                let at = place(*at);
                file.splice(at..at, bytes.iter().copied());
            }
            Damage::Length { at, value, bytes, big } => {
                let field = if *big { value.to_be_bytes()[8 - bytes..].to_vec() } else { value.to_le_bytes()[..*bytes].to_vec() };
                for (to, from) in file.iter_mut().skip(*at).zip(field) {
                    *to = from;
                }
            }
            Damage::Number { which, value } => {
                let starts: Vec<usize> =
                    (1..file.len()).filter(|i| file[*i].is_ascii_digit() && matches!(file[i - 1], b'[' | b',' | b'"')).collect();
                if let Some(start) = starts.get(which % starts.len().max(1)) {
                    let end = start + file[*start..].iter().take_while(|b| b.is_ascii_digit()).count();
                    file.splice(*start..end, value.to_string().into_bytes());
                }
            }
        }
    }
}

/// Numbers that lengths, offsets and dimensions go wrong with.
fn number() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, 7, 8, 255, 1 << 16, u64::from(u32::MAX), 1 << 32, 1 << 53, 1 << 62, 1 << 63, u64::MAX - 8, u64::MAX];
    prop_oneof![3 => proptest::sample::select(edges.to_vec()), 2 => 0u64..200, 1 => any::<u64>()]
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        (0.0..1.0, 0u8..8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        (0.0..1.0, any::<u8>()).prop_map(|(at, byte)| Damage::Set { at, byte }),
        (0.0..1.0).prop_map(|at| Damage::Truncate { at }),
        bytes().prop_map(|bytes| Damage::Extend { bytes }),
        (0.0..1.0, 0usize..20).prop_map(|(at, count)| Damage::Remove { at, count }),
        (0.0..1.0, bytes()).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        (0usize..24, number(), 1usize..=8, any::<bool>()).prop_map(|(at, value, bytes, big)| Damage::Length {
            at,
            value,
            bytes,
            big
        }),
        (any::<usize>(), number()).prop_map(|(which, value)| Damage::Number { which, value }),
    ]
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    proptest::collection::vec(damage(), 1..4)
}

fn damaged(mut file: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    damages.iter().for_each(|d| d.apply(&mut file));
    file
}

fn safetensors() -> Vec<u8> {
    let mut model = Checkpoint::new();
    let values = Array2::from_shape_fn((5, 11), |(r, c)| r as f32 - c as f32 / 4.0);
    model.insert("fc1.weight", values.clone(), Dtype::F32).unwrap();
    model.insert("fc2.weight", values, Dtype::BF16).unwrap();
    model.insert("fc2.bias", array![1.0, 2.0], Dtype::F16).unwrap();
    model.insert_mask("fc1.weight", &Mask::from_fn(5, 11, |r, c| (r + c) % 2 == 0)).unwrap();
    model.insert_metadata("format", "pt");
    model.to_bytes().unwrap()
}

/// A file with a storage of every format, and one weight in each published layout.
fn storages() -> Vec<u8> {
    let mut model = Checkpoint::new();
    let w = Array2::from_shape_fn((6, 8), |(r, c)| r as f32 - c as f32 / 4.0);
    let mask = Mask::from_fn(6, 8, |r, c| (r / 2 + c) % 2 == 0);
    model.insert_storage("csr", &Csr::compress(&w, &mask).unwrap()).unwrap();
    model.insert_storage("tile-csr", &TileCsr::<half::f16>::with_tile(&w, &mask, 5, Scaling::Row).unwrap()).unwrap();
    model.insert_storage("tile-pairs", &TilePairs::<i8>::compress(&w, &mask).unwrap()).unwrap();
    model.insert_storage("bitmask", &Bitmask::<f32>::compress(&w, &mask).unwrap()).unwrap();
    model.insert_storage("sell", &Sell::<f32>::with_lanes(&w, &mask, 8, Slots::Padded).unwrap()).unwrap();
    model.insert_storage("sell-packed", &Sell::<i8>::with_lanes(&w, &mask, 16, Slots::Packed).unwrap()).unwrap();
    model.insert_storage("nm", &Nm::<i8>::with_pattern(&w, &mask, 2, 4).unwrap()).unwrap();
    model.insert_storage("bsr-groups", &Bsr::<i8>::with_groups(&w, &mask, (2, 1), 3).unwrap()).unwrap();
    let (wide, full) =
        (Array2::from_shape_fn((3, 72), |(r, c)| r as f32 - c as f32 / 4.0), Mask::from_fn(3, 72, |_, c| c % 2 == 0));
    model.insert_storage("nm-groups", &Nm::<i8>::with_groups(&wide, &full, (1, 2), 64).unwrap()).unwrap();
    model.insert_storage("bsr", &Bsr::<half::bf16>::with_blocks(&w, &mask, 2, 1).unwrap()).unwrap();
    let few = |values: Precision| Quantized::round_to_nearest(&wide.slice(ndarray::s![.., ..64]), values).unwrap();
    model.insert_storage("i4", &few(Precision::I4Grouped(32))).unwrap();
    model.insert_storage("u8", &few(Precision::U8Grouped(64))).unwrap();
    let parts = few(Precision::U4Grouped(32)).parts();
    let offsets = Offsets::Minimums(vec![-0.5; parts.scales.len()]);
    model.insert_storage("u4-least", &Quantized::new(QuantizedParts { offsets, ..parts }).unwrap()).unwrap();
    let pairs = Mask::from_fn(3, 64, |r, c| (r + c) % 4 < 2);
    let of_pattern =
        QuantizedNm::round_to_nearest(&wide.slice(ndarray::s![.., ..64]), &pairs, (2, 4), Precision::U4Grouped(32)).unwrap();
    model.insert_storage("u4-nm", &of_pattern).unwrap();
    let some = Mask::from_fn(3, 64, |r, c| (r + c) % 5 == 0);
    let sparse = QuantizedSparse::round_to_nearest(&wide.slice(ndarray::s![.., ..64]), &some, Precision::U4Grouped(32)).unwrap();
    model.insert_storage("u4-sparse", &sparse).unwrap();
    model.insert_sparse_bitmask("a.weight", &w, &mask, Dtype::F32).unwrap();
    model.insert_sparse_24_bitmask("b.weight", &w, &mask, Dtype::BF16).unwrap();
    model.to_bytes().unwrap()
}

/// Multiplies by every storage that can still be read, and writes and reads it again; counts those that are read and those that are not.
fn exercise_storages(file: &[u8], tally: &mut Tally) {
    let Ok(model) = Checkpoint::from_bytes("damaged", file) else { return };
    let again = Checkpoint::from_bytes("again", &model.to_bytes().unwrap()).unwrap();
    for name in model.storages() {
        let read = model.storage(name);
        tally.count("storage", read.is_ok());
        match read {
            Err(e) => assert_clean(&e),
            Ok(op) => {
                let (rows, cols) = op.shape();
                if rows * cols > 1 << 16 {
                    continue; // few numbers may say a great weight
                }
                let dense = op.to_dense();
                for tokens in [1, 3, 17] {
                    let x = Array2::from_shape_fn((tokens, cols), |(t, i)| (t + i) as f32);
                    assert_eq!(apply(op.as_ref(), &x).dim(), (tokens, rows));
                }
                assert!(dense.iter().filter(|w| **w != 0.0).count() <= op.nnz());
                let back = again.storage(name).unwrap();
                assert_eq!(back.to_dense().mapv(f32::to_bits), dense.mapv(f32::to_bits), "{name}");
                assert_eq!((back.format(), back.nnz()), (op.format(), op.nnz()), "{name}");
            }
        }
    }
    for name in model.published_names() {
        let read = model.published(&name);
        tally.count("published", read.is_ok());
        match read {
            Err(Error::UnknownName { .. }) => {}
            Err(e) => assert_clean(&e),
            Ok((weight, mask)) => assert_eq!(mask.applied(&weight).mapv(f32::to_bits), weight.mapv(f32::to_bits)),
        }
    }
}

fn idx() -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6];
    bytes.extend((0..120).map(|i: u8| i.wrapping_mul(37)));
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// One line that names the file and is not endless.
fn assert_clean(e: &Error) {
    let line = e.to_string();
    assert!(line.starts_with("damaged: ") && !line.contains('\n') && line.chars().count() < 800, "{line}");
}

/// Shares that are read, in percent: about half to double of what was found when this was written.
const ONE_DAMAGE: [(&str, RangeInclusive<u32>); 8] = [
    ("extend", 2..=10),
    ("flip", 40..=80),
    ("insert", 2..=9),
    ("length", 1..=4),
    ("number", 1..=4),
    ("remove", 2..=10),
    ("set", 30..=70),
    ("truncate", 0..=0),
];
const FILE: RangeInclusive<u32> = 3..=12;
const HEADER: RangeInclusive<u32> = 1..=6;
const IDX: RangeInclusive<u32> = 10..=40;
const GZIP: RangeInclusive<u32> = 3..=12;
const STORAGE: RangeInclusive<u32> = 25..=65;
const PUBLISHED: RangeInclusive<u32> = 25..=65;

/// How many were read and how many were refused, by kind.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, (u32, u32)>);

impl Tally {
    fn count(&mut self, kind: &'static str, read: bool) {
        let (accepted, refused) = self.0.entry(kind).or_default();
        *(if read { accepted } else { refused }) += 1;
    }

    /// Holds the shares that are read to their bounds, in percent.
    fn within(&self, bounds: &[(&str, RangeInclusive<u32>)]) {
        assert_eq!(self.0.len(), bounds.len(), "{self}");
        for (kind, bounds) in bounds {
            let (accepted, refused) = self.0.get(kind).unwrap_or_else(|| panic!("{kind} never happened: {self}"));
            let share = 100 * accepted / (accepted + refused);
            assert!(bounds.contains(&share), "{kind}: {share} % are read, not {bounds:?}: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(kind, (read, refused))| write!(f, "{kind}: {read} read, {refused} refused; "))
    }
}

/// Runs so many cases, the same ones each time, and counts what `judge` says.
fn tally<S: Strategy>(cases: u32, of: &S, judge: impl Fn(S::Value, &mut Tally)) -> Tally {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let found = RefCell::new(Tally::default());
    let run = runner.run(of, |value| {
        judge(value, &mut found.borrow_mut());
        Ok(())
    });
    run.unwrap_or_else(|e| panic!("{e}"));
    found.into_inner()
}

/// Reads everything there is in a checkpoint, and what is written of it; whether it could be read.
fn exercise(file: &[u8]) -> bool {
    match Checkpoint::from_bytes("damaged", file) {
        Err(e) => {
            assert!(matches!(e, Error::Malformed { .. }), "{e:?}");
            assert_clean(&e);
            false
        }
        Ok(model) => {
            let total: u64 = model.names().map(|n| model.info(n).unwrap().bytes).sum();
            assert!(total <= file.len() as u64);
            for name in model.names() {
                for error in [model.get(name).err(), model.matrix(name).err(), model.mask(name).err()].into_iter().flatten() {
                    assert_clean(&error);
                }
            }
            let _ = model.masks();
            assert_eq!(model.roles().len(), model.len());
            let bytes = model.to_bytes().unwrap();
            let again = Checkpoint::from_bytes("again", &bytes).unwrap();
            assert_eq!(again.to_bytes().unwrap(), bytes);
            assert_same(&model, &again, None);
            true
        }
    }
}

/// Two checkpoints hold the same, but for what `except` is called.
fn assert_same(a: &Checkpoint, b: &Checkpoint, except: Option<&str>) {
    assert_eq!((a.len(), a.metadata()), (b.len(), b.metadata()));
    for name in a.names() {
        assert_eq!(a.info(name).unwrap(), b.info(name).unwrap());
        if except != Some(name) {
            let bits = |c: &Checkpoint| c.get(name).map(|v| v.mapv(f32::to_bits)).ok();
            assert_eq!(bits(a), bits(b), "{name}");
            assert_eq!(a.mask(name).ok().flatten(), b.mask(name).ok().flatten(), "{name}");
        }
    }
}

fn exercise_idx(file: &[u8]) -> bool {
    match Idx::from_bytes("damaged", file) {
        Err(e) => {
            assert!(matches!(e, Error::Malformed { .. }), "{e:?}");
            assert_clean(&e);
            false
        }
        Ok(idx) => {
            assert_eq!(idx.shape().iter().map(|d| *d as u128).product::<u128>(), idx.data().len() as u128);
            true
        }
    }
}

/// The bytes of the header of a safetensors file, its length included.
fn header_length(file: &[u8]) -> usize {
    8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize
}

/// Whether a safetensors file must be refused after one damage; `None` where that depends on what was hit.
fn must_be_refused(damage: &Damage, before: &[u8], after: &[u8]) -> Option<bool> {
    let data = header_length(before);
    if before == after {
        return Some(false);
    }
    let first = before.iter().zip(after).position(|(a, b)| a != b).unwrap_or(before.len().min(after.len()));
    match damage {
        // The file is shorter or longer than its header promises.
        Damage::Truncate { .. } | Damage::Extend { .. } => Some(true),
        Damage::Remove { .. } | Damage::Insert { .. } if first >= data => Some(true),
        // Behind another length the JSON is cut, or goes on in the numbers.
        _ if before[..8] != after[..8] => Some(true),
        // A shape or an offset that is another is not that of the bytes; a number in quotes is a text, of the same length or not.
        Damage::Number { .. } if first < data => {
            let start = (0..=first).rev().find(|i| !before[*i].is_ascii_digit()).unwrap_or(0);
            Some(before[start] != b'"' || before.len() != after.len())
        }
        // Numbers and bits may be anything.
        Damage::Flip { .. } | Damage::Set { .. } if first >= data => Some(false),
        _ => None,
    }
}

#[test]
fn one_damage_to_a_safetensors_file_is_refused_where_it_must_be_and_else_changes_nothing_else() {
    let sound = safetensors();
    let whole = Checkpoint::from_bytes("sound", &sound).unwrap();
    let found = tally(12_000, &damage(), |damage, tally| {
        let file = damaged(sound.clone(), std::slice::from_ref(&damage));
        let read = exercise(&file);
        tally.count(damage.kind(), read);
        match must_be_refused(&damage, &sound, &file) {
            Some(refused) => assert_ne!(read, refused, "{damage:?}"),
            None => return,
        }
        if read && file.len() == sound.len() && file[..header_length(&sound)] == sound[..header_length(&sound)] {
            // One byte of one tensor is another: all others are as they were.
            let model = Checkpoint::from_bytes("damaged", &file).unwrap();
            let changed = |name: &&str| {
                let numbers = |c: &Checkpoint| c.get(name).map(|v| v.mapv(f32::to_bits)).ok();
                numbers(&model) != numbers(&whole) || model.mask(name).ok() != whole.mask(name).ok()
            };
            let changed: Vec<&str> = whole.names().filter(changed).collect();
            assert!(changed.len() <= 1, "{damage:?}: {changed:?}");
            assert_same(&whole, &model, changed.first().copied());
        }
    });
    found.within(&ONE_DAMAGE);
}

#[test]
fn a_damaged_safetensors_file_is_valid_or_refused_cleanly() {
    let found = tally(4000, &damages(), |damages, tally| tally.count("file", exercise(&damaged(safetensors(), &damages))));
    found.within(&[("file", FILE)]);
}

#[test]
fn a_damaged_header_of_the_right_length_is_valid_or_refused_cleanly() {
    // Damage to the JSON alone, with the length in front made right again, reaches what stands behind the first checks.
    let found = tally(4000, &damages(), |damages, tally| {
        let file = safetensors();
        let length = header_length(&file);
        let json = damaged(file[8..length].to_vec(), &damages);
        tally.count("header", exercise(&[&(json.len() as u64).to_le_bytes()[..], &json, &file[length..]].concat()));
    });
    found.within(&[("header", HEADER)]);
}

#[test]
fn damaged_idx_files_plain_and_compressed_are_valid_or_refused_cleanly() {
    let found = tally(4000, &damages(), |damages, tally| {
        tally.count("plain", exercise_idx(&damaged(idx(), &damages)));
        // Compressed data have a checksum behind them: what is changed there and read must have been nothing.
        let file = damaged(gzip(&idx()), &damages);
        let read = exercise_idx(&file);
        tally.count("gzip", read);
        if read {
            let (a, b) = (Idx::from_bytes("a", &file).unwrap(), Idx::from_bytes("b", &idx()).unwrap());
            assert_eq!((a.shape(), a.data()), (b.shape(), b.data()));
        }
        tally.count("inside gzip", exercise_idx(&gzip(&damaged(idx(), &damages))));
    });
    found.within(&[("gzip", GZIP), ("inside gzip", IDX), ("plain", IDX)]);
}

#[test]
fn any_bytes_at_all_are_refused_cleanly() {
    let found = tally(4000, &proptest::collection::vec(any::<u8>(), 0..300), |bytes, tally| {
        tally.count("safetensors", exercise(&bytes));
        tally.count("idx", exercise_idx(&bytes));
        tally.count("gzip", exercise_idx(&[&[0x1f, 0x8b, 8, 0][..], &bytes].concat()));
    });
    found.within(&[("gzip", 0..=0), ("idx", 0..=0), ("safetensors", 0..=0)]);
}

#[test]
fn damaged_storages_are_refused_cleanly_or_multiply() {
    let file = storages();
    let length = header_length(&file);
    let found = tally(300, &damages(), |damages, tally| {
        exercise_storages(&damaged(file.clone(), &damages), tally);
        // The tensors alone, and the JSON alone with the length in front made right again.
        let json = damaged(file[8..length].to_vec(), &damages);
        exercise_storages(&[&(json.len() as u64).to_le_bytes()[..], &json, &file[length..]].concat(), tally);
        let mut data = damaged(file[length..].to_vec(), &damages);
        data.resize(file.len() - length, 0);
        exercise_storages(&[&file[..length], &data].concat(), tally);
    });
    found.within(&[("published", PUBLISHED), ("storage", STORAGE)]);
}

#[test]
fn the_listing_of_a_file_agrees_with_reading_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let found = tally(300, &damages(), |damages, tally| {
        std::fs::write(&path, damaged(safetensors(), &damages)).unwrap();
        let (header, model) = (read_header(&path), Checkpoint::read(&path));
        tally.count("file", model.is_ok());
        match (header, model) {
            (Ok(header), Ok(model)) => {
                let names: Vec<_> = header.tensors.iter().map(|t| t.name.as_str()).collect();
                assert_eq!(names, model.names().collect::<Vec<_>>());
                assert_eq!(&header.metadata, model.metadata());
            }
            (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
            (a, b) => panic!("{a:?} but {b:?}"),
        }
    });
    found.within(&[("file", FILE)]);
}
