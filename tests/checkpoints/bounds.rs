//! Small files that say great things, or say them with long names: refused, or read, without the time and memory that they ask for.

use crate::LARGEST;
use lacuna::Error;
use lacuna::io::gguf::{Gguf, import};
use lacuna::io::{Checkpoint, Folder, Role, read_header};

use lacuna::data::table;
use std::fs;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The most bytes that may be asked for at once.
const MOST: usize = 16 << 20;
/// Far more than any of this takes, far less than it took.
const SOON: Duration = Duration::from_secs(20);

/// Runs, and holds time and memory.
fn soon<T>(call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = call();
    let (took, largest) = (begun.elapsed(), LARGEST.load(SeqCst));
    assert!(took < SOON && largest < MOST, "{took:?}, and {largest} bytes were asked for at once");
    result
}

/// A safetensors file of a header and its data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn refused(file: &[u8], call: impl FnOnce(&Checkpoint) -> Option<Error>) -> String {
    let line = match soon(|| Checkpoint::from_bytes("f", file)) {
        Err(e) => e.to_string(),
        Ok(model) => soon(|| call(&model)).expect("an error").to_string(),
    };
    assert!(!line.contains(char::is_control) && line.chars().count() < 400, "{line}");
    line
}

#[test]
fn a_long_name_is_looked_for_without_a_table_of_its_letters() {
    // Two names of 60 000 letters: the distance between them is a table of 29 GB.
    let (a, b) = ("a".repeat(60_000), "b".repeat(60_000));
    let header =
        format!(r#"{{"__metadata__":{{"{a}.mask.cols":"1"}},"{b}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    let line = refused(&file(&header, &[0; 4]), |model| model.masks().err());
    assert!(line.starts_with("no layer is named 'aaa") && line.ends_with("among 1"), "{line}");
    // Names of usual length are still found.
    let line = Error::unknown_layer("model.norm.wieght", ["model.norm.weight"].into_iter()).to_string();
    assert!(line.ends_with("did you mean 'model.norm.weight'?"), "{line}");
}

#[test]
fn rows_without_columns_are_not_counted_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    for shape in ["[16777217,0]", "[0,4294967296]", "[4096,0,4097]", "[1152921504606846976,0]"] {
        let header = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
        let bytes = file(&header, &[]);
        let line = refused(&bytes, |_| None);
        assert!(
            line.contains("tensor 'w': shape") && line.ends_with("has no elements, and dimensions of more than 16777216"),
            "{line}"
        );
        fs::write(folder.path().join("f"), &bytes).unwrap();
        let listed = soon(|| read_header(folder.path().join("f"))).unwrap_err().to_string();
        assert!(listed.ends_with(&line[1..]), "{listed}");
    }
    let sound = file(r#"{"w":{"dtype":"F32","shape":[16777216,0],"data_offsets":[0,0]}}"#, &[]);
    let model = Checkpoint::from_bytes("f", &sound).unwrap();
    assert_eq!(soon(|| model.matrix("w").unwrap().dim()), (16_777_216, 0));
    assert_eq!(Checkpoint::from_bytes("f", &model.to_bytes().unwrap()).unwrap().info("w").unwrap(), model.info("w").unwrap());
}

#[test]
fn as_many_and_as_long_dimensions_as_there_can_be_make_a_short_line() {
    for first in ["0", "1"] {
        let shape = format!("[{first}{}]", ",18446744073709551615".repeat(63));
        let header = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
        let line = refused(&file(&header, &[]), |_| None);
        assert!(line.starts_with("f: tensor 'w': shape [") && line.contains('…'), "{line}");
    }
}

#[test]
fn a_packed_weight_of_many_rows_has_as_many_offsets_before_they_are_counted() {
    let header = r#"{"a.shape":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},
        "a.row_offsets":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},
        "a.bitmask":{"dtype":"U8","shape":[16777216,0],"data_offsets":[24,24]},
        "a.compressed":{"dtype":"F32","shape":[0],"data_offsets":[24,24]}}"#;
    let data = [&(1i64 << 24).to_le_bytes()[..], &[0; 16]].concat();
    let line = refused(&file(header, &data), |model| model.published("a.weight").err());
    assert_eq!(line, "f: tensor 'a.row_offsets' has 1 numbers for 16777216 rows");
}

#[test]
fn a_token_as_long_as_the_file_is_not_cut_at_every_letter() {
    let mut gguf = crate::build::llama();
    let long = "x".repeat(100_000);
    let tokens = ["<unk>", "a", "b", "ab", "aab", long.as_str(), "xx", "x"];
    gguf.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", tokens);
    gguf.floats("tokenizer.ggml.scores", &[0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0]);
    gguf.ints("tokenizer.ggml.token_type", &[2, 1, 1, 1, 1, 1, 1, 1]).count("tokenizer.ggml.unknown_token_id", 0);
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("m.gguf"), folder.path().join("m"));
    gguf.write(&path);
    soon(|| import(&Gguf::open(&path).unwrap(), &out, None).unwrap());
    let text = fs::read(out.join("tokenizer.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    // Every cut into two tokens, and none else; the best score first.
    assert_eq!(json["model"]["merges"], serde_json::json!([["a", "b"], ["a", "ab"], ["x", "x"]]));
}

#[test]
fn as_many_classes_as_samples_are_numbered_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    let n = 150_000;
    let lines: Vec<String> = (0..n).map(|i| format!("{i},c{:06}", n - 1 - i)).collect();
    fs::write(&path, format!("x,class\n{}\n", lines.join("\n"))).unwrap();
    let set = soon(|| table(&path).unwrap());
    assert_eq!((set.classes(), set.labels()[0], set.labels()[n - 1]), (n, n - 1, 0));
}

#[test]
fn whatever_texts_are_in_an_error_it_is_one_line() {
    let text = || "a\nb\r\t\u{1b}[2J".to_string();
    let errors = [
        Error::invalid_option(text(), text()),
        Error::malformed(text(), text()),
        Error::io(text(), std::io::Error::other(text())),
        Error::shape(text(), &[1], &[2]),
        Error::unknown_layer(&text(), [text().as_str()].into_iter()),
        Error::NotFinite { what: text(), row: 0, col: 0, value: 0.0 },
        Error::Numerical { what: text(), reason: text() },
        Error::invalid_option("a", "b").in_layer(text()),
    ];
    for e in errors {
        let line = e.to_string();
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    assert_eq!(Error::invalid_option("a\n", "naïve ▁").to_string(), "a\\n: naïve ▁");
}

#[test]
fn many_names_that_masks_have_and_many_storages_are_not_compared_with_all_names() {
    let count = 20_000;
    let one = |i: usize, name: &str| format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1);
    let masks: Vec<String> = (0..count).map(|i| one(i, &format!("x{i:05}_mask"))).collect();
    let model = soon(|| Checkpoint::from_bytes("f", &file(&format!("{{{}}}", masks.join(",")), &vec![0; count]))).unwrap();
    assert_eq!(soon(|| model.roles()).len(), count);
    let parts: Vec<String> = (0..count).map(|i| one(i, &format!("x{i:05}.values"))).collect();
    let storages: Vec<String> =
        (0..count).map(|i| format!(r#""x{i:05}.storage":"{{\"format\":\"csr\",\"rows\":1,\"cols\":1}}""#)).collect();
    let header = format!(r#"{{"__metadata__":{{{}}},{}}}"#, storages.join(","), parts.join(","));
    let model = soon(|| Checkpoint::from_bytes("f", &file(&header, &vec![0; count]))).unwrap();
    assert!(soon(|| model.roles()).iter().all(|(name, role)| *role == Role::Packed { of: name[..6].to_string() }));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), file(&header, &vec![0; count])).unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert_eq!(soon(|| Folder::open(folder.path())).unwrap().packed().count(), count);
}
