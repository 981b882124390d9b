//! Storages that list the columns of their weights: compressed sparse rows, whole and in tiles.

mod lists;
mod rows;
mod tiles;

pub(crate) use lists::lists_product;
pub(crate) use rows::{CsrSlices, csr_apply_transpose, csr_product};
pub(crate) use tiles::TileCsrSlices;
