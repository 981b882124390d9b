//! How GGUF stores numbers, and the numbers that stand there.
//!
//! A row is cut into blocks of 32 or 256 numbers. A block holds small integers q and, in 16-bit floats, what turns them back:
//!
//! ```text
//! Q8_0, Q4_0, Q5_0     w = d · q               q in -128..127, -8..7, -16..15
//! Q4_1, Q5_1           w = d · q + m           q in 0..15, 0..31
//! Q4_K, Q5_K           w = (d · s) · q - (dmin · t)    s, t of 6 bits for each 32 of the 256
//! Q2_K                 likewise                        s, t of 4 bits for each 16
//! Q6_K                 w = (d · s) · q         q in -32..31, s of 8 bits for each 16 of the 256
//! Q3_K                 likewise                q in -4..3, s of 6 bits for each 16
//! ```
//!
//! The order of the operations is that of the format's own tools, so that the numbers are theirs to the bit.

use super::k_quants::KQuant;
use crate::io::quoted;
use crate::{Error, Result};
use half::{bf16, f16};
use std::fmt;
use std::str::FromStr;

/// An element type of GGUF that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs)]
pub enum Quant {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

use Quant::*;

impl Quant {
    /// All of them, with the number that the format gives each, the numbers of a block and its bytes.
    const ALL: [(Quant, u32, usize, usize); 13] = [
        (F32, 0, 1, 4),
        (F16, 1, 1, 2),
        (Q4_0, 2, 32, 18),
        (Q4_1, 3, 32, 20),
        (Q5_0, 6, 32, 22),
        (Q5_1, 7, 32, 24),
        (Q8_0, 8, 32, 34),
        (Q2_K, 10, 256, 84),
        (Q3_K, 11, 256, 110),
        (Q4_K, 12, 256, 144),
        (Q5_K, 13, 256, 176),
        (Q6_K, 14, 256, 210),
        (BF16, 30, 1, 2),
    ];

    /// The type that has this number in the format.
    pub fn of(number: u32) -> Option<Quant> {
        Self::ALL.iter().find(|(_, n, _, _)| *n == number).map(|(quant, ..)| *quant)
    }

    /// The number that the format gives the type.
    pub(super) fn number(self) -> u32 {
        Self::ALL.iter().find(|(quant, ..)| *quant == self).map_or(0, |(_, number, ..)| *number)
    }

    /// The names of all types that are read.
    pub fn known() -> String {
        Self::ALL.map(|(quant, ..)| quant.to_string()).join(", ")
    }

    /// Numbers of a block, and the bytes that they take.
    pub fn block(self) -> (usize, usize) {
        Self::ALL.iter().find(|(quant, ..)| *quant == self).map_or((1, 4), |(_, _, numbers, bytes)| (*numbers, *bytes))
    }

    /// Whether the numbers are floats, so that a file of floats can hold them as they are.
    pub fn is_float(self) -> bool {
        matches!(self, F32 | F16 | BF16)
    }

    /// The K type that it is, if it is one.
    pub(super) fn k(self) -> Option<KQuant> {
        match self {
            Q2_K => Some(KQuant::Q2),
            Q3_K => Some(KQuant::Q3),
            Q4_K => Some(KQuant::Q4),
            Q5_K => Some(KQuant::Q5),
            Q6_K => Some(KQuant::Q6),
            _ => None,
        }
    }

    /// The numbers of some blocks.
    ///
    /// # Panics
    /// If `bytes` and `values` do not hold the same whole number of blocks.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        let (numbers, size) = self.block();
        assert!(values.len() % numbers == 0 && bytes.len() % size == 0, "{self}: whole blocks");
        assert_eq!(values.len() / numbers, bytes.len() / size, "{self}: blocks");
        let blocks = bytes.chunks_exact(size).zip(values.chunks_exact_mut(numbers));
        match self {
            F32 => blocks.for_each(|(b, w)| w[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            F16 => blocks.for_each(|(b, w)| w[0] = half_at(b, 0)),
            BF16 => blocks.for_each(|(b, w)| w[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            Q8_0 => blocks.for_each(|(b, w)| q8_0(b, w)),
            Q4_0 => blocks.for_each(|(b, w)| q4(half_at(b, 0), -8, -0.0, &b[2..], w)),
            Q4_1 => blocks.for_each(|(b, w)| q4(half_at(b, 0), 0, half_at(b, 2), &b[4..], w)),
            Q5_0 => blocks.for_each(|(b, w)| q5(half_at(b, 0), -16, -0.0, &b[2..], w)),
            Q5_1 => blocks.for_each(|(b, w)| q5(half_at(b, 0), 0, half_at(b, 2), &b[4..], w)),
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K => {
                let kind = self.k().unwrap_or(KQuant::Q6);
                blocks.for_each(|(b, w)| kind.decode(b, w));
            }
        }
    }
}

/// By its name, whatever the case of letters.
impl FromStr for Quant {
    type Err = Error;

    fn from_str(name: &str) -> Result<Quant> {
        let named = Self::ALL.iter().find(|(quant, ..)| quant.to_string().eq_ignore_ascii_case(name));
        let known = || Self::ALL.map(|(quant, ..)| quant.to_string().to_lowercase()).join(", ");
        named
            .map(|(quant, ..)| *quant)
            .ok_or_else(|| Error::invalid_option("type", format!("{} is none of {}", quoted(name), known())))
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Scale, then 32 signed bytes.
fn q8_0(block: &[u8], w: &mut [f32]) {
    let d = half_at(block, 0);
    for (w, &q) in w.iter_mut().zip(&block[2..]) {
        *w = d * f32::from(q as i8);
    }
}

/// `m` is -0 where there is none: added, it leaves the sign of a zero alone. 16 bytes: the low four bits are the first 16 numbers, the high four the others.
fn q4(d: f32, least: i32, m: f32, nibbles: &[u8], w: &mut [f32]) {
    for (i, &b) in nibbles[..16].iter().enumerate() {
        w[i] = d * (i32::from(b & 15) + least) as f32 + m;
        w[i + 16] = d * (i32::from(b >> 4) + least) as f32 + m;
    }
}

/// As `q4` behind 4 bytes whose bit i is the fifth bit of number i.
fn q5(d: f32, least: i32, m: f32, bytes: &[u8], w: &mut [f32]) {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let fifth = |i: usize| ((high >> i & 1) << 4) as i32;
    for (i, &b) in bytes[4..20].iter().enumerate() {
        w[i] = d * ((i32::from(b & 15) | fifth(i)) + least) as f32 + m;
        w[i + 16] = d * ((i32::from(b >> 4) | fifth(i + 16)) + least) as f32 + m;
    }
}
