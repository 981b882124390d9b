//! Inputs that stay near to files when bytes of them change.
//!
//! A safetensors file begins with the length of its header, and the header names the place of every byte behind it: hardly a change of a
//! single byte leaves a file of which anything is read. So an input may hold the header and the data alone, and what follows from them is
//! put in here.

use serde_json::{Map, Value};

/// The most bytes of data that are made up.
const MOST: usize = 1 << 16;

/// A safetensors file of an input: `0`, then the file as it is; `1`, then header, `\0` and data, the length in front made right; any other
/// byte, then the same with the places of all tensors made right too, one behind the other.
pub fn safetensors(input: &[u8]) -> Vec<u8> {
    let Some((&mode, rest)) = input.split_first() else { return Vec::new() };
    if mode == b'0' {
        return rest.to_vec();
    }
    let at = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
    let (header, data) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
    if mode == b'1' {
        return file(header, data);
    }
    let Ok(Value::Object(header)) = serde_json::from_slice(header) else { return file(header, data) };
    let (header, bytes) = laid(header);
    let mut data = data.to_vec();
    data.resize(bytes, 0);
    file(&serde_json::to_vec(&header).unwrap_or_default(), &data)
}

/// The length, the header, the data.
fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// The header with its tensors one behind the other, and the bytes of all.
fn laid(mut header: Map<String, Value>) -> (Map<String, Value>, usize) {
    let mut end = 0usize;
    for (_, entry) in header.iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let Some(entry) = entry.as_object_mut() else { continue };
        let width = match entry.get("dtype").and_then(Value::as_str) {
            Some("U8" | "I8" | "BOOL" | "F8_E4M3" | "F8_E5M2") => 1,
            Some("F16" | "BF16" | "I16" | "U16") => 2,
            Some("F32" | "I32" | "U32") => 4,
            Some("F64" | "I64" | "U64" | "C64") => 8,
            _ => continue,
        };
        let Some(shape) = entry.get("shape").and_then(Value::as_array) else { continue };
        let size = |n: usize, d: &Value| n.checked_mul(usize::try_from(d.as_u64()?).ok()?);
        let Some(bytes) = shape.iter().try_fold(width, size).filter(|bytes| end + bytes <= MOST) else { continue };
        entry.insert("data_offsets".into(), vec![end, end + bytes].into());
        end += bytes;
    }
    (header, end)
}

/// The input of a target as one that [`safetensors`] turns into this file.
pub fn unframed(file: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().expect("a whole file")) as usize;
    [b"2", &file[8..8 + length], b"\0", &file[8 + length..]].concat()
}

/// What stands in front of each part of an input of several files.
const MARK: [u8; 2] = [0xff, 0xfe];

/// The parts of an input: a letter and what follows it, up to the next mark.
pub fn parts(input: &[u8]) -> Vec<(u8, &[u8])> {
    let mut begins: Vec<usize> = input.windows(2).enumerate().filter(|(_, w)| *w == MARK).map(|(i, _)| i).collect();
    begins.push(input.len());
    let part = |w: &[usize]| input.get(w[0] + 2).map(|&letter| (letter, input.get(w[0] + 3..w[1]).unwrap_or_default()));
    begins.windows(2).filter_map(part).collect()
}

/// An input of these parts.
pub fn joined(parts: &[(u8, &[u8])]) -> Vec<u8> {
    parts.iter().flat_map(|(letter, bytes)| [&MARK[..], &[*letter], bytes].concat()).collect()
}
