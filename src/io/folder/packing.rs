//! How pruned weights are laid.

use crate::sparse::Format;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// How the pruned weights of a folder are laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Whole, with zeros, their masks beside.
    Whole,
    /// The published layout `sparse-bitmask`.
    SparseBitmask,
    /// The published layout `sparse-24-bitmask`, for 2:4 masks.
    Sparse24Bitmask,
    /// A storage of this library, its numbers of the weight's own dtype, the masks beside.
    Storage(Format),
}

impl Packing {
    /// The names that are read, in a line.
    pub const NAMES: &str = "weights, sparse-bitmask, sparse-24-bitmask, csr, tile-csr[:COLUMNS], tile-pairs[:COLUMNS], bitmask[:COLUMNS], \
                             sell[:padded|packed], nm[:N:M], bsr[:RxC]";
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packing::Whole => f.write_str("weights"),
            Packing::SparseBitmask => f.write_str("sparse-bitmask"),
            Packing::Sparse24Bitmask => f.write_str("sparse-24-bitmask"),
            Packing::Storage(format) => write!(f, "{format}"),
        }
    }
}

impl FromStr for Packing {
    type Err = Error;

    /// # Errors
    /// If the text is none of [`Packing::NAMES`].
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "weights" => return Ok(Packing::Whole),
            "sparse-bitmask" => return Ok(Packing::SparseBitmask),
            "sparse-24-bitmask" => return Ok(Packing::Sparse24Bitmask),
            _ => {}
        }
        match s.parse() {
            Ok(Format::Dense) | Err(_) => Err(Error::invalid_option("save", format!("'{s}' is none of {}", Packing::NAMES))),
            Ok(format) => Ok(Packing::Storage(format)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Packing;
    use crate::sparse::{Format, Slots};

    /// What a layout is called in the list of names; `None` of what is no layout. A new storage has to be named here.
    fn listed(format: Format) -> Option<&'static str> {
        match format {
            Format::Dense => None,
            Format::Csr => Some("csr"),
            Format::TileCsr(_) => Some("tile-csr[:COLUMNS]"),
            Format::TilePairs(_) => Some("tile-pairs[:COLUMNS]"),
            Format::Bitmask(_) => Some("bitmask[:COLUMNS]"),
            Format::Sell(_) => Some("sell[:padded|packed]"),
            Format::Nm(..) => Some("nm[:N:M]"),
            Format::Bsr(..) => Some("bsr[:RxC]"),
        }
    }

    #[test]
    fn every_layout_is_listed_and_everything_listed_is_read() {
        let storages = [
            Format::Csr,
            Format::TileCsr(128),
            Format::TilePairs(128),
            Format::Bitmask(128),
            Format::Sell(Slots::Packed),
            Format::Nm(2, 4),
            Format::Bsr(16, 1),
        ];
        let names: Vec<&str> = Packing::NAMES.split(", ").collect();
        let of_storages: Vec<&str> = storages.into_iter().filter_map(listed).collect();
        assert_eq!(names, [&["weights", "sparse-bitmask", "sparse-24-bitmask"][..], &of_storages].concat());
        for (name, format) in of_storages.iter().zip(storages) {
            let read: Packing = name.split('[').next().unwrap().parse().unwrap();
            assert!(matches!(read, Packing::Storage(read) if listed(read) == Some(name)), "{name}");
            assert_eq!(format.to_string().parse::<Packing>().unwrap(), Packing::Storage(format));
        }
        assert!("dense".parse::<Packing>().is_err());
    }
}
