//! Blocks: `few` multiplies one token, `strip` more.

mod slices;
mod strip;
mod few;

pub(crate) use few::bsr_product;
pub(crate) use slices::BsrSlices;
