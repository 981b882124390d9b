//! A GGUF file of version 3 written front first, one tensor after another.

use super::{GgufTensor, Quant};
use crate::Result;
use crate::io::atomic;
use crate::io::foreign::MAGIC;
use std::io;
use std::path::Path;

/// Keys and values as they stand in a file.
#[derive(Debug, Default)]
pub(super) struct KeyBytes {
    pub bytes: Vec<u8>,
    pub count: u64,
}

impl KeyBytes {
    fn begin(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.count += 1;
        text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        &mut self.bytes
    }

    fn list<T>(&mut self, key: &str, kind: u32, values: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
        let bytes = self.begin(key, 9);
        bytes.extend(kind.to_le_bytes());
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| put(bytes, value));
    }

    pub fn count(&mut self, key: &str, value: u32) {
        self.begin(key, 4).extend(value.to_le_bytes());
    }

    pub fn float(&mut self, key: &str, value: f64) {
        self.begin(key, 6).extend((value as f32).to_le_bytes());
    }

    pub fn flag(&mut self, key: &str, value: bool) {
        self.begin(key, 7).push(value.into());
    }

    pub fn text(&mut self, key: &str, value: &str) {
        text(self.begin(key, 8), value);
    }

    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.list(key, 8, values, |bytes, value| text(bytes, value));
    }

    pub fn ints(&mut self, key: &str, values: &[i32]) {
        self.list(key, 5, values, |bytes, value| bytes.extend(value.to_le_bytes()));
    }

    pub fn floats(&mut self, key: &str, values: &[f32]) {
        self.list(key, 6, values, |bytes, value| bytes.extend(value.to_le_bytes()));
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// A tensor to be written; of [`GgufTensor`] the place is not known yet.
pub(super) fn planned(name: &str, shape: &[usize], quant: Quant) -> GgufTensor {
    let (numbers, size) = quant.block();
    let bytes = (shape.iter().product::<usize>() / numbers * size) as u64;
    GgufTensor { name: name.to_string(), shape: shape.to_vec(), quant, bytes, start: 0 }
}

/// Writes a file, whole or not at all; `numbers` gives the bytes of each tensor in turn, as many as it has. One is in memory at a time.
///
/// # Errors
/// [`Error::Io`] naming the file; what `numbers` returns.
///
/// # Panics
/// If a tensor's bytes are more or fewer.
pub(super) fn write(
    out: &Path,
    keys: &KeyBytes,
    alignment: u64,
    tensors: &[GgufTensor],
    numbers: &mut dyn FnMut(&GgufTensor) -> Result<Vec<u8>>,
) -> Result<u64> {
    let mut front = MAGIC.to_vec();
    front.extend(3u32.to_le_bytes());
    front.extend((tensors.len() as u64).to_le_bytes());
    front.extend(keys.count.to_le_bytes());
    front.extend(&keys.bytes);
    let mut start = 0u64;
    for tensor in tensors {
        text(&mut front, &tensor.name);
        front.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|n| front.extend((*n as u64).to_le_bytes()));
        front.extend(tensor.quant.number().to_le_bytes());
        front.extend(start.to_le_bytes());
        start += tensor.bytes.next_multiple_of(alignment);
    }
    let fill = |len: u64| vec![0u8; (len.next_multiple_of(alignment) - len) as usize];
    front.extend(fill(front.len() as u64));
    let mut failed = None;
    let written = atomic::write(out, |to| {
        to.write_all(&front)?;
        for tensor in tensors {
            let bytes = match numbers(tensor) {
                Ok(bytes) => bytes,
                Err(e) => {
                    failed = Some(e);
                    return Err(io::Error::other("a tensor was refused"));
                }
            };
            assert_eq!(bytes.len() as u64, tensor.bytes, "{}: bytes", tensor.name);
            to.write_all(&bytes)?;
            to.write_all(&fill(tensor.bytes))?;
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => written.map(|()| front.len() as u64 + start),
    }
}
