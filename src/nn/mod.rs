//! Layers with a forward pass and hand-written derivatives, losses and optimisers.
//!
//! Activations are `(batch, features)`; images are features in channel, row, column order. Every layer that has weights is
//! one of a few bilinear [`Map`]s, and everything that pruning asks of a network follows from three products of a map
//! ([`Map::apply`], [`Map::input_gradient`], [`Map::weight_gradient`]): the gradient, the Hessian-vector product, the diagonal Fisher
//! matrix and Optimal Brain Damage's back-propagated second derivatives. They are written once, in [`passes`].
//!
//! Transformers are made of other parts: [`Linear`] layers whose weights may be in any storage, [`Norm`], [`Rotary`] positions,
//! [`Attention`], [`FeedForward`], together a [`Block`]. They run in place on a stream of features `(tokens, features)`, and go
//! back by making again what lies between. [`lm`](crate::lm) puts them together.

mod activation;
mod loss;
mod parameters;
mod optimizer;
mod observer;
mod objective;
mod layers;
mod model;
pub mod chain;
pub mod transformer;

pub use activation::Activation;
pub use chain::{
    Affine, BatchNorm, Conv2d, Dropout, Group, Layer, Map, Network, Pact, Param, Pool, Pooling, Saved, Tape, network, passes,
};
pub(crate) use layers::layer_name;
pub use layers::{LayerInfo, Layers, NamedLayers, find_layer};
pub use loss::{Loss, softmax};
pub use model::{Curvature, Mode, Model, Passes, Samples};
pub use objective::{Objective, Targets};
pub(crate) use objective::{check_rows, check_taps};
pub use observer::{Observer, Sink, Wanted};
pub use optimizer::{AdamConstants, Method, Moments, Optimizer};
pub use parameters::{Change, Gradients, Parameters, See, check_mask};
pub use transformer::{
    Attention, AttentionRule, Back, Block, BlockFeed, Distances, FeedForward, Heads, LayerCache, Linear, Mixture, Norm, NormKind,
    Positions, QkvProjection, Residual, RopeScaling, Rotary, RotaryTable, Routed, Seen, SharedExpert, UpProjection, attend,
    attend_back,
};
pub(crate) use transformer::{Between, attention};
