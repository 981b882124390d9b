//! Which weights of one matrix stay.
//!
//! [`Mask`] holds the answer, [`Pattern`] says what shape the survivors must take, [`Scope`] who competes with whom,
//! [`Budget`] how many stay, and [`select`] turns scores into a mask. **true = kept**, larger score = keep.

mod bits;
mod budget;
mod pattern;
mod select;

pub use bits::Mask;
pub use budget::{Budget, Scope};
pub use pattern::Pattern;
pub use select::{check_finite, check_finite_from, order_key, select, unit_scores};
