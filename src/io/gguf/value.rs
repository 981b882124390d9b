//! The keys and values in front of a GGUF file, and the cursor that reads them.

use crate::io::{one_line, quoted};
use crate::{Error, Result};
use std::io::Read;
use std::path::Path;

/// How deep arrays of arrays are followed.
const MAX_DEPTH: usize = 4;

/// One value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// An integer of any width.
    Int(i128),
    /// A number of 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// A list of integers or truth values.
    Ints(Vec<i64>),
    /// A list of numbers.
    Floats(Vec<f32>),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of lists; nothing here reads one.
    Lists,
}

/// Reads the front of a file, never more than the file has.
pub(super) struct Cursor<'a, R> {
    path: &'a Path,
    source: R,
    /// Bytes read.
    pub at: u64,
    length: u64,
}

impl<'a, R: Read> Cursor<'a, R> {
    pub fn new(path: &'a Path, source: R, length: u64) -> Self {
        Cursor { path, source, at: 0, length }
    }

    /// Bytes that are left of the file.
    pub fn left(&self) -> u64 {
        self.length - self.at
    }

    pub fn refuse<T>(&self, reason: String) -> Result<T> {
        Err(Error::malformed(self.path, one_line(&reason, 500)).at_byte(self.at))
    }

    /// Holds a count that the file states, of things of at least `least` bytes, against what is left.
    pub fn count(&self, count: u64, least: u64, what: &str) -> Result<usize> {
        if count > self.left() / least {
            return self.refuse(format!(
                "truncated: {count} {what} are stated at byte {}, {} bytes are left",
                self.at,
                self.left()
            ));
        }
        Ok(count as usize)
    }

    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        if self.left() < N as u64 {
            return self.refuse(format!("truncated: the header goes on at byte {}, where the file ends", self.length));
        }
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|e| Error::io(self.path, e))?;
        self.at += N as u64;
        Ok(bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A text: its length, then UTF-8.
    pub fn text(&mut self, what: &str) -> Result<String> {
        let stated = self.u64()?;
        let length = self.count(stated, 1, &format!("bytes of {what}"))?;
        let mut bytes = vec![0; length];
        self.source.read_exact(&mut bytes).map_err(|e| Error::io(self.path, e))?;
        self.at += length as u64;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(e) => self.refuse(format!("{what} before byte {} is not UTF-8: {e}", self.at)),
        }
    }

    /// The value of a key.
    pub fn value(&mut self, key: &str) -> Result<GgufValue> {
        let kind = self.u32()?;
        match kind {
            9 => self.list(key, 0),
            _ => self.scalar(kind, key),
        }
    }

    fn scalar(&mut self, kind: u32, key: &str) -> Result<GgufValue> {
        Ok(match kind {
            0 => GgufValue::Int(self.bytes::<1>()?[0].into()),
            1 => GgufValue::Int(i8::from_le_bytes(self.bytes()?).into()),
            2 => GgufValue::Int(u16::from_le_bytes(self.bytes()?).into()),
            3 => GgufValue::Int(i16::from_le_bytes(self.bytes()?).into()),
            4 => GgufValue::Int(self.u32()?.into()),
            5 => GgufValue::Int(i32::from_le_bytes(self.bytes()?).into()),
            6 => GgufValue::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => GgufValue::Bool(self.bytes::<1>()?[0] != 0),
            8 => GgufValue::Text(self.text(&format!("the value of {}", quoted(key)))?),
            10 => GgufValue::Int(self.u64()?.into()),
            11 => GgufValue::Int(i64::from_le_bytes(self.bytes()?).into()),
            12 => GgufValue::Float(f64::from_le_bytes(self.bytes()?)),
            _ => return self.refuse(format!("the value of {} is of type {kind}, which is none of 0 to 12", quoted(key))),
        })
    }

    /// Bytes that one entry of a list takes at least.
    fn least(kind: u32) -> u64 {
        match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            9 => 12,
            _ => 8,
        }
    }

    fn list(&mut self, key: &str, depth: usize) -> Result<GgufValue> {
        let kind = self.u32()?;
        let stated = self.u64()?;
        let count = self.count(stated, Self::least(kind), &format!("entries of {}", quoted(key)))?;
        match kind {
            0..=5 | 7 | 10 | 11 => {
                let mut list = Vec::with_capacity(count);
                for _ in 0..count {
                    list.push(match self.scalar(kind, key)? {
                        GgufValue::Int(i) => match i64::try_from(i) {
                            Ok(i) => i,
                            Err(_) => return self.refuse(format!("an entry of {} is {i}, more than 2^63 - 1", quoted(key))),
                        },
                        GgufValue::Bool(b) => b.into(),
                        _ => 0,
                    });
                }
                Ok(GgufValue::Ints(list))
            }
            6 | 12 => {
                let mut list = Vec::with_capacity(count);
                for _ in 0..count {
                    list.push(if kind == 6 {
                        f32::from_le_bytes(self.bytes()?)
                    } else {
                        f64::from_le_bytes(self.bytes()?) as f32
                    });
                }
                Ok(GgufValue::Floats(list))
            }
            8 => {
                let what = format!("an entry of {}", quoted(key));
                let mut list = Vec::with_capacity(count);
                for _ in 0..count {
                    list.push(self.text(&what)?);
                }
                Ok(GgufValue::Texts(list))
            }
            9 if depth < MAX_DEPTH => {
                for _ in 0..count {
                    self.list(key, depth + 1)?;
                }
                Ok(GgufValue::Lists)
            }
            9 => self.refuse(format!("{} is a list of lists, {MAX_DEPTH} deep", quoted(key))),
            _ => self.refuse(format!("the entries of {} are of type {kind}, which is none of 0 to 12", quoted(key))),
        }
    }
}
