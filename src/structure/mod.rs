//! What hangs together: units that are left out whole, declared by each architecture and never traced.
//!
//! A unit of a network (a hidden unit of a feed-forward layer, a head, a feature of the hidden states, a layer, an entry of the vocabulary) lies in
//! several tensors. A [`Coupling`] names all of them, so that leaving units out is choosing numbers of units: [`UnitCut`] turns the choice into the
//! rows and columns of each tensor that stay, and [`UnitPad`] lays what stays of blocks that differ into blocks that are alike. Language models declare theirs in [`lm::couplings`](crate::lm::couplings), chains of layers in
//! [`Network::couplings`](crate::nn::Network::couplings).

mod coupling;
mod cut;
mod pad;

pub use coupling::{Coupling, Extent, Member, Side, UnitKind};
pub use cut::UnitCut;
pub use pad::{UnitCounts, UnitPad};
