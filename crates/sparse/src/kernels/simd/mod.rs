//! Instruction sets, vectors of each, numbers and columns as they are stored, functions of whole slices.

mod isa;
mod value;
pub mod slices;
mod lanes;
mod codes;
mod sparse_codes;
mod column;
mod expand;

pub(crate) use codes::Codes;
pub(crate) use column::Column;
pub use expand::Expand;
pub(crate) use expand::SLACK;
#[cfg(target_arch = "x86_64")]
pub(crate) use expand::{part, places};
pub use isa::{Isa, check_environment};
pub(crate) use lanes::{Float, Portable, Simd};
#[cfg(target_arch = "x86_64")]
pub(crate) use lanes::{Vbmi, Vnni, Xmm, Ymm, Zmm, sum_of, sum_of_eight};
pub(crate) use slices::all_finite;
pub(crate) use sparse_codes::{NEAR, SparseCodes};
pub(crate) use value::{Scales, decode};
pub use value::{Value, Values};
