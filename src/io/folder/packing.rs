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
    /// If the text is none of weights, sparse-bitmask, sparse-24-bitmask and the names of sparse storages.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "weights" => return Ok(Packing::Whole),
            "sparse-bitmask" => return Ok(Packing::SparseBitmask),
            "sparse-24-bitmask" => return Ok(Packing::Sparse24Bitmask),
            _ => {}
        }
        match s.parse() {
            Ok(Format::Dense) | Err(_) => Err(Error::invalid_option(
                "save",
                format!(
                    "'{s}' is none of weights, sparse-bitmask, sparse-24-bitmask, csr, tile-csr[:COLUMNS], tile-pairs[:COLUMNS], \
                     bitmask[:COLUMNS], sell[:padded|packed], nm[:N:M], bsr[:RxC]"
                ),
            )),
            Ok(format) => Ok(Packing::Storage(format)),
        }
    }
}
