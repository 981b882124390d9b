//! The products of a way back: `dX = dY · W` of any storage, and `dW = dYᵀ · X` at a mask.

mod input;
mod weight;

pub(crate) use input::pull;
pub(crate) use weight::correlate;
