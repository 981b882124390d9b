//! Networks that are chains of layers: linear, convolution, batch norm, pooling, activations.

mod arrays;
mod param;
mod saved;
mod pool;
mod conv;
mod affine;
mod batchnorm;
mod pact;
mod layer;
pub mod network;
mod dropout;
mod flow;
pub mod passes;
mod samples;
mod model;

pub use affine::{Affine, Map};
pub use batchnorm::BatchNorm;
pub use conv::Conv2d;
pub use dropout::Dropout;
pub use layer::Layer;
pub use network::{Group, Network, Tape};
pub use pact::Pact;
pub use param::Param;
pub use pool::{Pool, Pooling};
pub use saved::Saved;
