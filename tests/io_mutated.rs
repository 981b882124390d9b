//! Damaged files: whatever is done to the bytes of a valid file, reading it gives a valid value or one clean error.

use lacuna::Error;
use lacuna::io::idx::Idx;
use lacuna::io::{Checkpoint, Dtype, read_header};
use lacuna::mask::Mask;
use lacuna::sparse::{Bitmask, Bsr, Compress, Csr, Nm, Scaling, Sell, Slots, TileCsr, TilePairs, apply};
use ndarray::{Array2, array};
use proptest::prelude::*;
use std::io::Write;
use std::sync::LazyLock;

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
    model.insert_sparse_bitmask("a.weight", &w, &mask, Dtype::F32).unwrap();
    model.insert_sparse_24_bitmask("b.weight", &w, &mask, Dtype::BF16).unwrap();
    model.to_bytes().unwrap()
}

/// Multiplies by every storage that can still be read.
fn exercise_storages(file: &[u8]) {
    let Ok(model) = Checkpoint::from_bytes("damaged", file) else { return };
    for name in model.storages() {
        match model.storage(name) {
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
            }
        }
    }
    for name in model.published_names() {
        match model.published(&name) {
            Err(Error::UnknownLayer { .. }) => {}
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

/// Reads everything there is in a checkpoint.
fn exercise(file: &[u8]) {
    match Checkpoint::from_bytes("damaged", file) {
        Err(e) => {
            assert!(matches!(e, Error::Malformed { .. }), "{e:?}");
            assert_clean(&e);
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
            let bytes = model.to_bytes().unwrap();
            let again = Checkpoint::from_bytes("again", &bytes).unwrap();
            assert_eq!(again.to_bytes().unwrap(), bytes);
            assert_eq!(again.metadata(), model.metadata());
            assert_eq!(again.len(), model.len());
        }
    }
}

fn exercise_idx(file: &[u8]) {
    match Idx::from_bytes("damaged", file) {
        Err(e) => {
            assert!(matches!(e, Error::Malformed { .. }), "{e:?}");
            assert_clean(&e);
        }
        Ok(idx) => assert_eq!(idx.shape().iter().map(|d| *d as u128).product::<u128>(), idx.data().len() as u128),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_safetensors_file_is_valid_or_refused_cleanly(damages in damages()) {
        exercise(&damaged(safetensors(), &damages));
    }

    #[test]
    fn a_damaged_header_of_the_right_length_is_valid_or_refused_cleanly(damages in damages()) {
        // Damage to the JSON alone, with the length in front made right again, reaches what stands behind the first checks.
        let file = safetensors();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let json = damaged(file[8..8 + length].to_vec(), &damages);
        let file = [&(json.len() as u64).to_le_bytes()[..], &json, &file[8 + length..]].concat();
        exercise(&file);
    }

    #[test]
    fn a_damaged_idx_file_is_valid_or_refused_cleanly(damages in damages()) {
        exercise_idx(&damaged(idx(), &damages));
    }

    #[test]
    fn a_damaged_gzip_file_is_valid_or_refused_cleanly(damages in damages()) {
        exercise_idx(&damaged(gzip(&idx()), &damages));
    }

    #[test]
    fn a_gzip_file_of_damaged_idx_is_valid_or_refused_cleanly(damages in damages()) {
        exercise_idx(&gzip(&damaged(idx(), &damages)));
    }

    #[test]
    fn any_bytes_at_all_are_valid_or_refused_cleanly(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        exercise(&bytes);
        exercise_idx(&bytes);
        exercise_idx(&[&[0x1f, 0x8b, 8, 0][..], &bytes].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_storages_are_refused_cleanly_or_multiply(damages in damages()) {
        static FILE: LazyLock<Vec<u8>> = LazyLock::new(storages);
        let file = &*FILE;
        exercise_storages(&damaged(file.clone(), &damages));
        // The tensors alone, and the JSON alone with the length in front made right again.
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let json = damaged(file[8..8 + length].to_vec(), &damages);
        exercise_storages(&[&(json.len() as u64).to_le_bytes()[..], &json, &file[8 + length..]].concat());
        let mut data = damaged(file[8 + length..].to_vec(), &damages);
        data.resize(file.len() - 8 - length, 0);
        exercise_storages(&[&file[..8 + length], &data].concat());
    }

    #[test]
    fn the_listing_of_a_file_agrees_with_reading_it(damages in damages()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged");
        std::fs::write(&path, damaged(safetensors(), &damages)).unwrap();
        match (read_header(&path), Checkpoint::read(&path)) {
            (Ok(header), Ok(model)) => {
                let names: Vec<_> = header.tensors.iter().map(|t| t.name.as_str()).collect();
                prop_assert_eq!(names, model.names().collect::<Vec<_>>());
                prop_assert_eq!(&header.metadata, model.metadata());
            }
            (Err(a), Err(b)) => prop_assert_eq!(a.to_string(), b.to_string()),
            (a, b) => prop_assert!(false, "{:?} but {:?}", a, b),
        }
    }
}
