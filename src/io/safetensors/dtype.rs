//! [`Dtype`]: how a file stores the numbers of a weight.

use crate::io::quoted;
use crate::{Error, Result};
use ::safetensors::tensor::Dtype as Element;
use half::{bf16, f16};
use ndarray::ArrayD;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

/// Bytes that are encoded before they are written.
const CHUNK: usize = 1 << 16;

/// How a file stores the numbers of a weight. In memory they are `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dtype {
    /// 32 bits: as in memory.
    #[default]
    F32,
    /// 16 bits: 11 of precision, magnitudes up to 65504.
    F16,
    /// 16 bits: 8 of precision, the magnitudes of `f32`.
    BF16,
}

impl Dtype {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        if self == Dtype::F32 { 4 } else { 2 }
    }

    /// The nearest number that this type can hold, of two equally near the even one; an infinity where the magnitude is too
    /// large.
    ///
    /// ```
    /// use lacuna::io::Dtype;
    /// assert_eq!(Dtype::BF16.round(1.003), 1.0);
    /// assert_eq!(Dtype::F16.round(1.0 + 3.0 / 2048.0), 1.0 + 2.0 / 1024.0);
    /// assert_eq!(Dtype::F16.round(7e4), f32::INFINITY);
    /// ```
    pub fn round(self, value: f32) -> f32 {
        match self {
            Dtype::F32 => value,
            Dtype::F16 => f16::from_f32(value).to_f32(),
            Dtype::BF16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// The type of weights that this element type is; `None` for all others.
    pub(super) fn of(element: Element) -> Option<Self> {
        match element {
            Element::F32 => Some(Dtype::F32),
            Element::F16 => Some(Dtype::F16),
            Element::BF16 => Some(Dtype::BF16),
            _ => None,
        }
    }

    /// The format's own name for it.
    pub(super) fn element(self) -> Element {
        match self {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
        }
    }

    /// The numbers of a file's bytes, little endian.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => pairs.map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => pairs.map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        }
    }

    /// The inverse of `decode`.
    pub(super) fn encode(self, values: &ArrayD<f32>, out: &mut dyn Write) -> io::Result<()> {
        let mut part = Vec::with_capacity(CHUNK + 4);
        for &v in values {
            match self {
                Dtype::F32 => part.extend_from_slice(&v.to_le_bytes()),
                Dtype::F16 => part.extend_from_slice(&f16::from_f32(v).to_le_bytes()),
                Dtype::BF16 => part.extend_from_slice(&bf16::from_f32(v).to_le_bytes()),
            }
            if part.len() >= CHUNK {
                out.write_all(&part)?;
                part.clear();
            }
        }
        out.write_all(&part)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Dtype {
    type Err = Error;

    /// Reads `f32`, `f16` or `bf16`, in any case.
    ///
    /// # Errors
    /// [`Error::Setting`] for any other text.
    fn from_str(s: &str) -> Result<Self> {
        let all = [Dtype::F32, Dtype::F16, Dtype::BF16];
        let found = all.into_iter().find(|d| d.to_string().eq_ignore_ascii_case(s));
        found.ok_or_else(|| Error::setting("dtype", format!("{} is none of f32, f16, bf16", quoted(s))))
    }
}
