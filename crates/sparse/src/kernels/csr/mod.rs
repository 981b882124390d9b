//! Storages that list the columns of their weights: compressed sparse rows, whole and in tiles.

mod lists;
mod rows;
mod tiles;

pub(crate) use lists::lists_product;
pub(crate) use rows::{CsrSlices, csr_product, csr_pull};
pub(crate) use tiles::TileCsrSlices;
