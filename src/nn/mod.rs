//! Layers with a forward pass and hand-written derivatives, losses and optimisers.
//!
//! Activations are `(batch, features)`; images are features in channel, row, column order. Every layer that has weights is
//! one of a few bilinear [`Map`]s, and everything that pruning asks of a network follows from three products of a map
//! ([`Map::apply`], [`Map::pull`], [`Map::correlate`]): the gradient, the Hessian-vector product, the diagonal Fisher
//! matrix and Optimal Brain Damage's back-propagated second derivatives. They are written once, in [`network`].
//!
//! Transformers are made of other parts: [`Linear`] layers whose weights may be in any storage, [`Norm`], [`Rotary`] positions,
//! [`Attention`], [`FeedForward`], together a [`Block`]. They run in place on a stream of features `(tokens, features)`, and go
//! back by making again what lies between. [`models::lm`](crate::models::lm) puts them together.

mod activation;
mod affine;
mod attend;
mod attend_back;
pub(crate) mod attention;
mod batchnorm;
mod block;
mod conv;
mod feedforward;
mod layer;
mod linear;
mod loss;
pub mod network;
mod norm;
mod optimizer;
mod param;
mod pool;
mod positions;
mod rotary;

pub use activation::Activation;
pub use affine::{Affine, Map};
pub use attend::{Distances, Heads, Rule, Seen, attend};
pub use attend_back::{Back, attend_back};
pub use attention::{Attention, Inputs};
pub use batchnorm::BatchNorm;
pub use block::Block;
pub use conv::Conv2d;
pub use feedforward::{FeedForward, Opening};
pub use layer::{Layer, Mode, Saved};
pub use linear::{Linear, Probe, Sink};
pub use loss::{Loss, softmax};
pub use network::{Curvature, Group, Network, Tape};
pub use norm::{Norm, NormKind};
pub use optimizer::{Method, Optimizer};
pub use param::Param;
pub use pool::{Pool, Pooling};
pub use positions::{LayerCache, Positions};
pub use rotary::{Rotary, Stretch, Turns};
