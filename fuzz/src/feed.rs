//! Parts of storages out of bytes, for the constructors that take them.
//!
//! A byte is a number, and some bytes are the numbers that sums and products go wrong with; a list is its length and its numbers. So
//! parts that a storage was taken apart into are a short input, and a change of it is a change of one of them.

use half::{bf16, f16};
use lacuna::sparse::{
    BitmaskParts, BlockColumns, BsrParts, Columns, NmParts, Pair, SellParts, Slots, TileCsrParts, TilePairsParts,
};

/// The numbers of the bytes from 240 to 254; behind 255 a number stands in eight bytes.
const LARGE: [usize; 15] = [
    255,
    256,
    257,
    1024,
    1 << 15,
    (1 << 16) - 1,
    1 << 16,
    (1 << 16) + 1,
    u32::MAX as usize - 1,
    u32::MAX as usize,
    1 << 32,
    (1 << 48) - 1,
    isize::MAX as usize,
    usize::MAX - 1,
    usize::MAX,
];
const SMALL: u8 = 240;
/// The longest list.
const LONGEST: usize = 1 << 10;

/// The floats of the bytes from 240 on; the others are sixteenths from -4 on.
const FLOATS: [f32; 16] = [
    f32::INFINITY,
    f32::NEG_INFINITY,
    -0.0,
    f32::MIN_POSITIVE,
    1e-45,
    f32::MAX,
    f32::MIN,
    65504.0,
    65520.0,
    1e-8,
    127.0,
    -127.0,
    1.0 / 127.0,
    2.0 / 127.0,
    1e30,
    100.0,
];

/// Bytes that are being read; behind the last there are zeros.
pub struct Feed<'a>(pub &'a [u8]);

impl Feed<'_> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }
}

/// What bytes can be read as and written back to.
pub trait Part: Sized {
    /// Reads it.
    fn read(feed: &mut Feed<'_>) -> Self;

    /// Writes it, so that it is read as it was.
    ///
    /// # Panics
    /// If it has a number that no bytes stand for.
    fn write(&self, to: &mut Vec<u8>);
}

impl Part for usize {
    fn read(feed: &mut Feed<'_>) -> Self {
        match feed.byte() {
            byte if byte < SMALL => byte.into(),
            byte => LARGE.get(usize::from(byte - SMALL)).copied().unwrap_or_else(|| u64::read(feed) as usize),
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        match (u8::try_from(*self), LARGE.iter().position(|l| l == self)) {
            (Ok(byte), _) if byte < SMALL => to.push(byte),
            (_, Some(at)) => to.push(SMALL + at as u8),
            _ => {
                to.push(u8::MAX);
                (*self as u64).write(to);
            }
        }
    }
}

macro_rules! narrow {
    ($($t:ty)*) => {
        $(impl Part for $t {
            fn read(feed: &mut Feed<'_>) -> Self {
                usize::read(feed) as $t
            }

            fn write(&self, to: &mut Vec<u8>) {
                (*self as usize).write(to);
            }
        })*
    };
}
narrow! { u8 u16 u32 }

impl Part for u64 {
    fn read(feed: &mut Feed<'_>) -> Self {
        u64::from_le_bytes([(); 8].map(|()| feed.byte()))
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.to_le_bytes());
    }
}

impl Part for f32 {
    fn read(feed: &mut Feed<'_>) -> Self {
        let byte = feed.byte();
        if byte < SMALL { (f32::from(byte) - 64.0) / 16.0 } else { FLOATS[usize::from(byte - SMALL)] }
    }

    fn write(&self, to: &mut Vec<u8>) {
        let sixteenth = self * 16.0 + 64.0;
        let special = FLOATS.iter().position(|f| f.to_bits() == self.to_bits()).map(|at| SMALL + at as u8);
        let plain = || ((0.0..f32::from(SMALL)).contains(&sixteenth) && sixteenth.fract() == 0.0).then_some(sixteenth as u8);
        to.push(special.or_else(plain).unwrap_or_else(|| panic!("{self} is none of the numbers that bytes stand for")));
    }
}

macro_rules! halves {
    ($($t:ty)*) => {
        $(impl Part for $t {
            fn read(feed: &mut Feed<'_>) -> Self {
                <$t>::from_f32(f32::read(feed))
            }

            fn write(&self, to: &mut Vec<u8>) {
                self.to_f32().write(to);
            }
        })*
    };
}
halves! { bf16 f16 }

impl Part for i8 {
    fn read(feed: &mut Feed<'_>) -> Self {
        // -128 is no value of a storage.
        feed.byte().cast_signed().max(-127)
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.push(self.cast_unsigned());
    }
}

impl<T: Part> Part for Vec<T> {
    fn read(feed: &mut Feed<'_>) -> Self {
        let len = usize::read(feed).min(LONGEST);
        (0..len).map(|_| T::read(feed)).collect()
    }

    fn write(&self, to: &mut Vec<u8>) {
        assert!(self.len() <= LONGEST, "a list of {} in a seed", self.len());
        self.len().write(to);
        self.iter().for_each(|one| one.write(to));
    }
}

impl Part for Option<usize> {
    fn read(feed: &mut Feed<'_>) -> Self {
        match feed.byte() {
            0 => None,
            _ => Some(usize::read(feed)),
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.push(self.is_some().into());
        self.iter().for_each(|n| n.write(to));
    }
}

macro_rules! choices {
    ($t:ident $narrow:ident $wide:ident) => {
        impl Part for $t {
            fn read(feed: &mut Feed<'_>) -> Self {
                if feed.byte() == 0 { $t::$narrow(Part::read(feed)) } else { $t::$wide(Part::read(feed)) }
            }

            fn write(&self, to: &mut Vec<u8>) {
                to.push(matches!(self, $t::$wide(_)).into());
                match self {
                    $t::$narrow(list) => list.write(to),
                    $t::$wide(list) => list.write(to),
                }
            }
        }
    };
}
choices! { Columns Narrow Wide }
choices! { BlockColumns Narrow Wide }

impl Part for Slots {
    fn read(feed: &mut Feed<'_>) -> Self {
        if feed.byte() == 0 { Slots::Padded } else { Slots::Packed }
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.push((*self == Slots::Packed).into());
    }
}

macro_rules! whole {
    ($t:ident $(<$v:ident>)? { $($field:ident)* }) => {
        impl $(<$v: Part>)? Part for $t $(<$v>)? {
            fn read(feed: &mut Feed<'_>) -> Self {
                $(let $field = Part::read(feed);)*
                $t { $($field),* }
            }

            fn write(&self, to: &mut Vec<u8>) {
                $(self.$field.write(to);)*
            }
        }
    };
}
whole! { Pair { first second single both rest } }
whole! { BitmaskParts<T> { rows cols tile blocks starts words values scales } }
whole! { BsrParts<T> { rows cols r c shares starts value_starts columns values group scales } }
whole! { NmParts<T> { rows cols n m blocks order words values group scales } }
whole! { TileCsrParts<T> { rows cols tile blocks starts order columns values scales } }
whole! { TilePairsParts<T> { rows cols tile blocks column_starts value_starts pairs columns values scales } }
whole! {
    SellParts<T> {
        rows cols lanes slots order steps place_starts mask_starts value_starts late_starts places masks values late_lanes late_columns
        late_values scales
    }
}

/// Offsets, indices and values of a matrix of compressed rows.
pub struct CsrParts {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// First value of each row, and one past the last.
    pub offsets: Vec<u32>,
    /// Columns.
    pub indices: Vec<u32>,
    /// Values.
    pub values: Vec<f32>,
}
whole! { CsrParts { rows cols offsets indices values } }
