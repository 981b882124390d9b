//! The products of a way back: `dX = dY · W` of any storage, and `dW = dYᵀ · X` at a mask.

mod input;
mod weight;

pub(crate) use input::apply_transpose;
pub(crate) use weight::weight_gradient;
