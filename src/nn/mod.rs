//! Layers with a forward pass and hand-written derivatives, losses and optimisers.
//!
//! Activations are `(batch, features)`; images are features in channel, row, column order. Every layer that has weights is
//! one of a few bilinear [`Map`]s, and everything that pruning asks of a network follows from three products of a map
//! ([`Map::apply`], [`Map::pull`], [`Map::correlate`]): the gradient, the Hessian-vector product, the diagonal Fisher
//! matrix and Optimal Brain Damage's back-propagated second derivatives. They are written once, in [`passes`].

mod activation;
mod affine;
mod batchnorm;
mod conv;
mod dropout;
mod flow;
mod layer;
mod loss;
pub mod network;
mod optimizer;
mod param;
pub mod passes;
mod pool;
mod samples;

pub use activation::Activation;
pub use affine::{Affine, Map};
pub use batchnorm::BatchNorm;
pub use conv::Conv2d;
pub use dropout::Dropout;
pub use layer::{Layer, Mode, Saved};
pub use loss::{Loss, softmax};
pub use network::{Group, Network, Tape};
pub use optimizer::{Method, Optimizer};
pub use param::Param;
pub use passes::Curvature;
pub use pool::{Pool, Pooling};
