//! Methods that choose the mask and the surviving weights together.

mod inverse;
pub mod obs;
mod woodfisher;

pub use inverse::InverseHessian;
pub use woodfisher::WoodFisher;
