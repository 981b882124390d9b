//! N of every M: `few` multiplies a few tokens, `strip` more.

mod slices;
mod strip;
mod few;

pub(crate) use few::nm_product;
pub(crate) use slices::NmSlices;
