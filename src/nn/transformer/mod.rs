//! The parts of transformers, in any storage of their weights.

mod norm;
mod linear;
mod attend;
mod attend_back;
mod rotary;
mod positions;
mod query_key;
pub(crate) mod attention;
mod feedforward;
pub(crate) mod mixture;
mod block;

pub use attend::{AttentionRule, Distances, Heads, Seen, attend};
pub use attend_back::{Back, attend_back};
pub use attention::{Attention, QkvProjection};
pub(crate) use block::Between;
pub use block::{Block, BlockFeed, Residual};
pub use feedforward::{FeedForward, UpProjection};
pub use linear::Linear;
pub use mixture::{Mixture, Routed, SharedExpert};
pub use norm::{Norm, NormKind};
pub use positions::{LayerCache, Positions};
pub use rotary::{RopeScaling, Rotary, RotaryTable};
