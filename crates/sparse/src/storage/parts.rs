//! A storage taken apart into named lists of numbers, as files hold it, and put together again.

use crate::kernels::{Value, Values};
use crate::storage::Slots;
use crate::{Error, Result};

/// What a storage is, beside its lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// The format, without its tile: `tile-csr`.
    pub format: String,
    /// What the numbers are: `f32`, `bf16`, `f16`, `i8`; of quantized weights `i4`, `u4`, `i8`, `u8`.
    pub values: String,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Columns of a tile, or lanes of a slice.
    pub tile: Option<usize>,
    /// The two numbers of N:M, or of a block.
    pub pattern: Option<(usize, usize)>,
    /// Inputs of a row that share a scale, if not all do.
    pub group: Option<usize>,
    /// What slots without a weight hold.
    pub slots: Option<Slots>,
}

impl Sizes {
    pub(super) fn new<T: Value>(format: &str, rows: usize, cols: usize) -> Sizes {
        let (format, values) = (format.to_string(), T::NAME.to_string());
        Sizes { format, values, rows, cols, tile: None, pattern: None, group: None, slots: None }
    }

    fn missing(&self, what: &str) -> Error {
        Error::invalid_option("storage", format!("has no {what}"))
    }

    /// The width of tiles.
    pub(super) fn tile(&self) -> Result<usize> {
        self.tile.ok_or_else(|| self.missing("tile"))
    }

    /// What empty slots hold.
    pub(super) fn slots(&self) -> Result<Slots> {
        self.slots.ok_or_else(|| self.missing("slots"))
    }

    /// The two numbers of the pattern.
    pub(super) fn pattern(&self) -> Result<(usize, usize)> {
        self.pattern.ok_or_else(|| self.missing("pattern"))
    }
}

/// One list of numbers of a storage.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Part {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Values(Values),
}

impl Part {
    /// The type of its numbers, as files name it: `U32`.
    pub fn element(&self) -> &'static str {
        match self {
            Part::U8(_) => "U8",
            Part::U16(_) => "U16",
            Part::U32(_) => "U32",
            Part::U64(_) => "U64",
            Part::Values(Values::I8(_)) => "I8",
            Part::Values(Values::Bf16(_)) => "BF16",
            Part::Values(Values::F16(_)) => "F16",
            Part::Values(Values::F32(_)) => "F32",
        }
    }
}

/// A storage as named lists: what [`Stored::to_parts`](crate::storage::Stored::to_parts) gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// What it is.
    pub sizes: Sizes,
    /// Its lists, in the order in which they are written.
    pub lists: Vec<(&'static str, Part)>,
}

impl Parts {
    /// The names that lists of any storage have.
    pub const NAMES: [&'static str; 25] = [
        "codes",
        "zero_points",
        "minimums",
        "offsets",
        "indices",
        "blocks",
        "starts",
        "order",
        "columns",
        "column_starts",
        "value_starts",
        "pairs",
        "words",
        "shares",
        "steps",
        "place_starts",
        "mask_starts",
        "late_starts",
        "places",
        "masks",
        "late_lanes",
        "late_columns",
        "late_values",
        "values",
        "scales",
    ];

    /// Whether there is a list of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.lists.iter().any(|(n, _)| *n == name)
    }

    /// Takes a list out.
    fn take(&mut self, name: &'static str) -> Result<Part> {
        let at = self.lists.iter().position(|(n, _)| *n == name);
        let at = at.ok_or_else(|| Error::invalid_option(name, format!("is missing; {} needs it", self.sizes.format)))?;
        Ok(self.lists.swap_remove(at).1)
    }

    /// The list of that name, whatever its numbers are.
    pub(super) fn any(&mut self, name: &'static str) -> Result<Part> {
        self.take(name)
    }

    /// The values, of the type that the storage keeps.
    pub(super) fn values<T: Value>(&mut self, name: &'static str) -> Result<Vec<T>> {
        let part = self.take(name)?;
        let element = part.element();
        let wanted = || Error::invalid_option(name, format!("is {element}, not {}", T::NAME.to_uppercase()));
        let Part::Values(values) = part else { return Err(wanted()) };
        if let Values::I8(v) = &values
            && v.contains(&-128)
        {
            return Err(Error::invalid_option(name, "holds -128, where -127 to 127 are possible"));
        }
        T::of_list(values).ok_or_else(wanted)
    }

    /// The factors; none where values are floats.
    pub(super) fn scales<T: Value>(&mut self) -> Result<Vec<f32>> {
        if T::SCALED { self.values("scales") } else { Ok(Vec::new()) }
    }
}

/// Takes a list of one type out.
macro_rules! lists {
    ($($name:ident, $part:ident, $t:ty;)*) => {
        impl Parts {
            $(pub(super) fn $name(&mut self, name: &'static str) -> Result<Vec<$t>> {
                match self.take(name)? {
                    Part::$part(list) => Ok(list),
                    other => Err(Error::invalid_option(name, format!("is {}, not {}", other.element(), stringify!($part)))),
                }
            })*
        }
    };
}

lists! {
    u8s, U8, u8;
    u16s, U16, u16;
    u32s, U32, u32;
    u64s, U64, u64;
}
