//! What the tests of files share.

use lacuna::Error;
use lacuna::io::{Checkpoint, Dtype};
use ndarray::{Array4, array};
use std::fs;
use std::io::Write;
use std::path::Path;

pub fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A safetensors file with this header and this many zero bytes of data.
pub fn with_header(json: &str, data: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

pub fn refusal(bytes: &[u8]) -> String {
    let e = Checkpoint::from_bytes("m.safetensors", bytes).unwrap_err();
    assert!(matches!(e, Error::Malformed { .. }), "{e:?}");
    let line = e.to_string();
    assert!(!line.contains('\n') && line.len() < 700, "{line}");
    line.strip_prefix("m.safetensors: ").unwrap().to_string()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub fn idx(shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, shape.len() as u8];
    shape.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(data);
    bytes
}

pub fn sample() -> Checkpoint {
    let mut model = Checkpoint::new();
    model.insert("fc2.weight", array![[1.0, -2.5, 0.0], [4.0, 5.0, 6.0]], Dtype::F16).unwrap();
    model
        .insert("fc1.weight", Array4::from_shape_fn((3, 2, 2, 3), |(a, b, c, d)| (a * 12 + b * 6 + c * 3 + d) as f32), Dtype::F32)
        .unwrap();
    model.insert("fc1.bias", array![0.1, 0.2, 0.3], Dtype::BF16).unwrap();
    for (key, value) in [("format", "pt"), ("b", "2"), ("a", "1"), ("licence", "«MIT»\n")] {
        model.insert_metadata(key, value);
    }
    model
}
