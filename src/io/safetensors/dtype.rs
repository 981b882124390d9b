//! [`Dtype`]: how a file stores the numbers of a weight.

use crate::io::quoted;
use crate::{Error, Result};
use ::safetensors::tensor::Dtype as Element;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ndarray::ArrayD;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

/// Numbers that are encoded before they are written.
const CHUNK: usize = 1 << 15;

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
    pub(in crate::io) fn of(element: Element) -> Option<Self> {
        match element {
            Element::F32 => Some(Dtype::F32),
            Element::F16 => Some(Dtype::F16),
            Element::BF16 => Some(Dtype::BF16),
            _ => None,
        }
    }

    /// The format's own name for it.
    pub(in crate::io) fn element(self) -> Element {
        match self {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
        }
    }

    /// The numbers of a file's bytes, little endian.
    pub(in crate::io) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / self.bytes()];
        self.decode_into(bytes, &mut values);
        values
    }

    /// As `decode`, into a place of the right length.
    pub(in crate::io) fn decode_into(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(bytes.len(), values.len() * self.bytes(), "bytes of {self}");
        match self {
            Dtype::F32 => {
                for (v, b) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                    *v = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            Dtype::F16 => {
                // A slice at a time, which the machine's own conversion takes.
                let mut halves = [f16::ZERO; 1024];
                for (v, b) in values.chunks_mut(halves.len()).zip(bytes.chunks(2 * halves.len())) {
                    for (h, b) in halves.iter_mut().zip(b.chunks_exact(2)) {
                        *h = f16::from_le_bytes([b[0], b[1]]);
                    }
                    halves[..v.len()].convert_to_f32_slice(v);
                }
            }
            Dtype::BF16 => {
                for (v, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                    *v = bf16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
        }
    }

    /// The inverse of `decode`.
    pub(super) fn encode(self, values: &ArrayD<f32>, out: &mut dyn Write) -> io::Result<()> {
        let values = values.as_standard_layout();
        values
            .as_slice()
            .expect("made standard in the line above")
            .chunks(CHUNK)
            .try_for_each(|part| out.write_all(&self.bytes_of(part)))
    }

    /// The first finite number that this type rounds to an infinity.
    pub(in crate::io) fn first_too_large(self, values: &[f32]) -> Option<usize> {
        // Half a step above the largest number is the first that is too large.
        let limit = match self {
            Dtype::F32 => return None,
            Dtype::F16 => 65520.0,
            Dtype::BF16 => f32::from_bits(0x7f7f_8000),
        };
        let too_large = |v: f32| v.abs() >= limit && v.is_finite();
        let any = values.iter().fold(false, |any, &v| any | too_large(v));
        if any { values.iter().position(|&v| too_large(v)) } else { None }
    }

    /// The bytes of numbers.
    pub(in crate::io) fn bytes_of(self, values: &[f32]) -> Vec<u8> {
        match self {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                halves.iter().flat_map(|h| h.to_le_bytes()).collect()
            }
            Dtype::BF16 => {
                let mut bytes = vec![0; 2 * values.len()];
                for (b, &v) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                    *b = bf16::from_f32(v).to_le_bytes();
                }
                bytes
            }
        }
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
    /// [`Error::InvalidOption`] for any other text.
    fn from_str(s: &str) -> Result<Self> {
        let all = [Dtype::F32, Dtype::F16, Dtype::BF16];
        let found = all.into_iter().find(|d| d.to_string().eq_ignore_ascii_case(s));
        found.ok_or_else(|| Error::invalid_option("dtype", format!("{} is none of f32, f16, bf16", quoted(s))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_rounded_numbers_and_what_is_too_large_rounds_to_an_infinity() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            // All signs, exponents and upper bits, a bit below and above the midpoints between what two types hold.
            for low in [0u32, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let values: Vec<f32> = (0..=u16::MAX).map(|high| f32::from_bits(u32::from(high) << 16 | low)).collect();
                for (v, back) in values.iter().zip(dtype.decode(&dtype.bytes_of(&values))) {
                    let wanted = dtype.round(*v);
                    assert!(
                        back.to_bits() == wanted.to_bits() || (back.is_nan() && wanted.is_nan()),
                        "{dtype}: {v:e} became {back:e}"
                    );
                }
                for (i, v) in values.iter().enumerate() {
                    let too_large = v.is_finite() && !dtype.round(*v).is_finite();
                    assert_eq!(dtype.first_too_large(&values[i..=i]), too_large.then_some(0), "{dtype}: {v:e}");
                }
            }
            let large = [1.0, f32::INFINITY, f32::MAX, f32::NAN];
            assert_eq!(dtype.first_too_large(&large), (dtype != Dtype::F32).then_some(2), "{dtype}");
        }
    }
}
