//! The numbers that storages keep.

use super::isa::Isa;
use half::{bf16, f16};

/// A number as stored: `f32`, `bf16`, `f16`, or `i8` with a scale beside it.
pub trait Value: sealed::Sealed + Copy + Default + PartialEq + Send + Sync + std::fmt::Debug + 'static {
    /// The name in tables and files: `f32`.
    const NAME: &'static str;
    /// Whether a scale belongs to it.
    const SCALED: bool;

    /// What it stands for, before its scale.
    fn decode(self) -> f32;

    /// The nearest to a weight divided by its scale.
    fn encode(x: f32) -> Self;

    /// A list of them as a value of one type, whatever they are.
    fn list(values: Vec<Self>) -> Values;

    /// The list, if it is of these.
    fn of_list(values: Values) -> Option<Vec<Self>>;

    /// The same where it lies.
    fn slice_of(values: &Values) -> Option<&[Self]>;

    /// The same numbers, if they are `f32`.
    fn plain(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

/// Numbers as stored, of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// 32 bits.
    F32(Vec<f32>),
    /// 16 bits with the range of 32.
    Bf16(Vec<bf16>),
    /// 16 bits, IEEE.
    F16(Vec<f16>),
    /// 8 bits, to be multiplied by a scale.
    I8(Vec<i8>),
}

macro_rules! listed {
    ($kind:ident) => {
        fn list(values: Vec<Self>) -> Values {
            Values::$kind(values)
        }

        fn of_list(values: Values) -> Option<Vec<Self>> {
            if let Values::$kind(values) = values { Some(values) } else { None }
        }

        fn slice_of(values: &Values) -> Option<&[Self]> {
            if let Values::$kind(values) = values { Some(values) } else { None }
        }
    };
}

/// Factors of values, `(rows, groups)`: a group is some parts of a row that follow one another, or all of them.
#[derive(Clone, Copy)]
pub(crate) struct Scales<'a> {
    /// Row by row; empty where values are floats.
    pub factors: &'a [f32],
    /// Groups of a row.
    pub groups: usize,
    /// Parts of a group.
    pub parts: usize,
}

impl Scales<'_> {
    /// The factor of a part of a row.
    #[inline(always)]
    pub(crate) fn at<T: Value>(&self, row: usize, part: usize) -> f32 {
        self.of::<T>(row, part / self.parts)
    }

    /// The factor of a group of a row.
    #[inline(always)]
    pub(crate) fn of<T: Value>(&self, row: usize, group: usize) -> f32 {
        if T::SCALED { self.factors[row * self.groups + group] } else { 1.0 }
    }

    /// Whether a row has more than one factor.
    #[inline(always)]
    pub(crate) fn grouped<T: Value>(&self) -> bool {
        T::SCALED && self.groups != 1
    }
}

/// What numbers stand for, before their scales.
///
/// # Panics
/// If there are not as many places.
pub(crate) fn decode<T: Value>(from: &[T], to: &mut [f32]) {
    #[inline(always)]
    fn each<T: Value>(from: &[T], to: &mut [f32]) {
        to.iter_mut().zip(from).for_each(|(to, v)| *to = v.decode());
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn avx2<T: Value>(from: &[T], to: &mut [f32]) {
        each(from, to);
    }
    assert_eq!(from.len(), to.len(), "numbers and places");
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: these sets are only ever current on a machine that has them, and the second has the first.
        Isa::Avx2 | Isa::Avx512 => unsafe { avx2(from, to) },
        _ => each(from, to),
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
    impl Sealed for i8 {}
}

impl Value for f32 {
    listed!(F32);

    const NAME: &'static str = "f32";
    const SCALED: bool = false;

    fn plain(numbers: &[f32]) -> Option<&[f32]> {
        Some(numbers)
    }

    #[inline(always)]
    fn decode(self) -> f32 {
        self
    }

    fn encode(x: f32) -> f32 {
        x
    }
}

impl Value for bf16 {
    listed!(Bf16);

    const NAME: &'static str = "bf16";
    const SCALED: bool = false;

    #[inline(always)]
    fn decode(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn encode(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

impl Value for f16 {
    listed!(F16);

    const NAME: &'static str = "f16";
    const SCALED: bool = false;

    // `half` asks the machine for F16C at every call; this is a handful of instructions in any loop.
    #[inline(always)]
    fn decode(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
        // The exponent moves by 127 - 15 = 112; multiplying does it, and normalises what was subnormal.
        let finite = f32::from_bits(rest) * f32::from_bits((112 + 127) << 23);
        let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 | rest } else { finite.to_bits() };
        f32::from_bits(sign | special)
    }

    fn encode(x: f32) -> f16 {
        f16::from_f32(x)
    }
}

impl Value for i8 {
    listed!(I8);

    const NAME: &'static str = "i8";
    const SCALED: bool = true;

    #[inline(always)]
    fn decode(self) -> f32 {
        f32::from(self)
    }

    fn encode(x: f32) -> i8 {
        x.round_ties_even().clamp(-127.0, 127.0) as i8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_decodes_as_its_crate_says() {
        for bits in 0..=u16::MAX {
            let (h, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(h.decode().is_nan(), h.is_nan());
            assert_eq!(b.decode().is_nan(), b.is_nan());
            if !h.is_nan() {
                assert_eq!(h.decode().to_bits(), h.to_f32().to_bits(), "{bits:#06x}");
            }
            if !b.is_nan() {
                assert_eq!(b.decode().to_bits(), b.to_f32().to_bits(), "{bits:#06x}");
            }
        }
    }
}
