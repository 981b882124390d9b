//! Damaged checkpoints: whatever is done to their bytes, opening one gives a valid value or one clean error, and never takes more
//! memory than the file could need.

use crate::build::{byte_level, llama};
use crate::coded::{codes, said, written};
use crate::folder::{content, sharded};
use crate::{LARGEST, byte_level_folder};
use lacuna::io::gguf::{Gguf, import};
use lacuna::io::{Folder, QuantLayout, read_ids};
use lacuna::quantize::{CodeGrid, Granularity, ScaleType};
use lacuna::text::Tokenizer;
use proptest::prelude::*;
use std::fs;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::SeqCst;

/// The most bytes that may be asked for at once; the files here have less than 300 kB.
const MOST: usize = 16 << 20;

/// Files by their names.
type Files = Vec<(String, Vec<u8>)>;

/// The files of a sound folder of two shards, made once.
static MODEL: LazyLock<Files> = LazyLock::new(|| {
    let root = tempfile::tempdir().unwrap();
    content(&sharded(root.path()))
});

/// A sound GGUF file.
static GGUF: LazyLock<Vec<u8>> = LazyLock::new(|| llama().bytes());

/// The files of a sound folder of codes of each layout.
static CODED: LazyLock<Vec<Files>> = LazyLock::new(|| {
    let of = |layout: QuantLayout| {
        let root = tempfile::tempdir().unwrap();
        let bits = if layout == QuantLayout::IntQuantized { 8 } else { 4 };
        let grid = CodeGrid::new(bits, Granularity::Group(32)).asymmetric().scales(ScaleType::F16);
        content(&written(root.path(), layout, &codes((32, 64), grid), ScaleType::F16, said(layout, bits)))
    };
    QuantLayout::ALL.map(of).to_vec()
});

/// A sound tokenizer.json.
static WORDS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (_folder, out) = byte_level_folder();
    fs::read(out.join("tokenizer.json")).unwrap()
});

/// One thing that goes wrong with a file; places are shares of its length.
#[derive(Debug, Clone)]
enum Damage {
    Set {
        at: f64,
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
    Truncate {
        at: f64,
    },
    /// A length, count or offset of 8 bytes becomes this.
    Number {
        at: f64,
        value: u64,
    },
    /// A number written in decimal becomes this.
    Decimal {
        which: usize,
        value: u64,
    },
}

fn apply(file: &mut Vec<u8>, damage: &Damage) {
    let place = |at: f64| ((at * file.len() as f64) as usize).min(file.len());
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        file.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    };
    match damage {
        Damage::Set { at, bytes } => put(file, place(*at), bytes),
        Damage::Number { at, value } => put(file, place(*at), &value.to_le_bytes()),
        Damage::Truncate { at } => file.truncate(place(*at)),
        Damage::Remove { at, count } => {
            let at = place(*at);
            file.drain(at..(at + count).min(file.len()));
        }
        Damage::Insert { at, bytes } => {
            let at = place(*at);
            file.splice(at..at, bytes.iter().copied());
        }
        Damage::Decimal { which, value } => {
            let starts: Vec<usize> = (1..file.len())
                .filter(|i| file[*i].is_ascii_digit() && matches!(file[i - 1], b'[' | b',' | b' ' | b':'))
                .collect();
            if let Some(start) = starts.get(which % starts.len().max(1)) {
                let end = start + file[*start..].iter().take_while(|b| b.is_ascii_digit()).count();
                file.splice(*start..end, value.to_string().into_bytes());
            }
        }
    }
}

fn number() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, 31, 255, 1 << 16, u64::from(u32::MAX), 1 << 32, 1 << 53, 1 << 62, 1 << 63, u64::MAX - 8, u64::MAX];
    prop_oneof![3 => proptest::sample::select(edges.to_vec()), 2 => 0u64..300, 1 => any::<u64>()]
}

/// Damage within the first `share` of a file.
fn damages(share: f64) -> impl Strategy<Value = Vec<Damage>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 1..9);
    let damage = prop_oneof![
        (0.0..share, bytes()).prop_map(|(at, bytes)| Damage::Set { at, bytes }),
        (0.0..share, 1usize..40).prop_map(|(at, count)| Damage::Remove { at, count }),
        (0.0..share, bytes()).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        (0.0..1.0).prop_map(|at| Damage::Truncate { at }),
        (0.0..share, number()).prop_map(|(at, value)| Damage::Number { at, value }),
        (any::<usize>(), number()).prop_map(|(which, value)| Damage::Decimal { which, value }),
    ];
    proptest::collection::vec(damage, 1..4)
}

/// One line, not endless.
fn clean<T>(result: lacuna::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) => {
            let line = e.to_string();
            assert!(!line.contains('\n') && line.chars().count() < 900, "{line}");
            None
        }
    }
}

fn modest() {
    let largest = LARGEST.load(SeqCst);
    assert!(largest < MOST, "{largest} bytes were asked for at once");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_gguf_file_is_imported_or_refused_cleanly(damages in damages(0.35), whole in 0u8..5) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = GGUF.clone();
        damages.iter().for_each(|d| apply(&mut bytes, d));
        fs::write(folder.path().join("m.gguf"), &bytes).unwrap();
        if let Some(file) = clean(Gguf::open(folder.path().join("m.gguf"))) {
            for tensor in file.tensors() {
                clean(file.read(&tensor.name));
            }
            // One in five is written, which takes waiting for the disk.
            if whole == 0 {
                let out = folder.path().join("out");
                let done = clean(import(&file, &out, None)).is_some();
                prop_assert_eq!(out.exists(), done);
                prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), if done { 2 } else { 1 });
            }
        }
        modest();
    }

    #[test]
    fn a_damaged_folder_is_read_or_refused_cleanly(damages in damages(1.0), file in 0usize..4) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().to_path_buf();
        MODEL.iter().for_each(|(name, bytes)| fs::write(dir.join(name), bytes).unwrap());
        let names =
            ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-ids.safetensors"];
        let path = dir.join(names[file]);
        let mut bytes = fs::read(&path).unwrap();
        damages.iter().for_each(|d| apply(&mut bytes, d));
        fs::write(&path, &bytes).unwrap();
        if let Some(folder) = clean(Folder::open(&dir)) {
            for name in folder.names() {
                clean(folder.read(name));
            }
        }
        clean(read_ids(dir.join("model-ids.safetensors"), "ids"));
        modest();
    }

    #[test]
    fn a_damaged_folder_of_codes_is_read_or_refused_cleanly(damages in damages(1.0), layout in 0usize..4, config in 0u8..4) {
        let root = tempfile::tempdir().unwrap();
        let files = &CODED[layout];
        files.iter().for_each(|(name, bytes)| fs::write(root.path().join(name), bytes).unwrap());
        let path = root.path().join(if config == 0 { "config.json" } else { "model.safetensors" });
        let mut bytes = fs::read(&path).unwrap();
        // Most of the file are codes, of which any are sound: the header is where damage shows.
        let end = if config == 1 { bytes.len() } else { bytes.len().min(1200) };
        let mut head = bytes[..end].to_vec();
        damages.iter().for_each(|d| apply(&mut head, d));
        bytes.splice(..end, head);
        fs::write(&path, &bytes).unwrap();
        if let Some(folder) = clean(Folder::open(root.path())) {
            for name in folder.names() {
                clean(folder.read(name));
                if let Some(codes) = clean(folder.codes(name)).flatten() {
                    codes.storage();
                }
            }
        }
        modest();
    }

    #[test]
    fn a_damaged_tokenizer_is_read_or_refused_cleanly(damages in damages(1.0)) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = WORDS.clone();
        damages.iter().for_each(|d| apply(&mut bytes, d));
        fs::write(folder.path().join("tokenizer.json"), &bytes).unwrap();
        if let Some(tokenizer) = clean(Tokenizer::open(folder.path()))
            && let Some(ids) = clean(tokenizer.encode("The 12 weights, naïve.", true))
        {
            clean(tokenizer.decode(&ids));
        }
        modest();
    }
}

#[test]
fn lists_that_state_more_than_the_file_has_are_refused_before_memory_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let mut file = crate::build::Gguf::new();
    byte_level(&mut file);
    // A list of texts, of bytes and of lists, of 2^40 entries each.
    for kind in [8u32, 0, 9] {
        let list = [&kind.to_le_bytes()[..], &(1u64 << 40).to_le_bytes()].concat();
        file.key("tokenizer.ggml.tokens", 9, &list);
        file.write(&path);
        let line = Gguf::open(&path).unwrap_err().to_string();
        assert!(line.contains("1099511627776 entries of 'tokenizer.ggml.tokens' are stated"), "{line}");
    }
    // Lists in lists in lists.
    let mut deep = 9u32.to_le_bytes().to_vec();
    for _ in 0..50 {
        deep.extend(1u64.to_le_bytes());
        deep.extend(9u32.to_le_bytes());
    }
    file.key("deep", 9, &deep);
    file.keys.retain(|(k, _)| k == "deep");
    file.write(&path);
    let line = Gguf::open(&path).unwrap_err().to_string();
    assert!(line.contains("'deep' is a list of lists") || line.contains("truncated"), "{line}");
    modest();
}
