//! Sliced ELLPACK: as many rows side by side as a vector has lanes.

mod slices;
#[cfg(target_arch = "x86_64")]
mod steps;
mod product;

pub(crate) use product::sell_product;
pub(crate) use slices::{A_WORD, LANES, PLACE, SellSlices, sell_blocks, sell_slices};
