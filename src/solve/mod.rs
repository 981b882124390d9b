//! Masks and surviving weights, or codes of a few bits, chosen one layer at a time.
//!
//! A [`Saliency`](crate::criteria::Saliency) only scores. A [`Pruner`] also may move the weights that stay, so that the layer's
//! outputs on the measured inputs change as little as can be. With W the weight `(out, in)`, X the inputs `(tokens, in)` and
//! H = XᵀX, all of them lessen
//!
//! ```text
//! loss = ‖X (Ŵ − W)ᵀ‖²_F = tr( (Ŵ − W) H (Ŵ − W)ᵀ )
//! ```
//!
//! | pruner | mask | weights that stay | source |
//! |---|---|---|---|
//! | [`Scored`] | by a criterion | as they were | |
//! | [`SparseGpt`] | blocks of columns, from left to right | moved with each column, once | Frantar, Alistarh 2023 |
//! | [`D2Prune`] | the same, by scores that reckon with other activations | the same | Xiong et al. 2026 |
//! | [`ExactObs`] | weight by weight, the cheapest first | the least squares solution after each | Frantar, Singh, Alistarh 2022 |
//! | [`Alps`] | by alternating directions | conjugate gradients on the mask | Meng et al. 2024 |
//! | [`DsNoT`] | of another pruner, then single exchanges | as they were | Zhang et al. 2024 |
//! | [`WoodFisher`] | by its scores, from gradients of the loss | the minimiser within each block | Singh, Alistarh 2020 |
//! | [`Reconstructed`] | of another pruner | the least squares solution | |
//! | [`Regularised`] | of another pruner | of another pruner | a shrunk Gram matrix, texts weighted by their errors |
//!
//! A [`Quantizer`] chooses codes of a few bits the same way: [`Rtn`], [`Gptq`] (with or without pruning in its loop), [`Obr`], [`Awq`], [`Hqq`].
//!
//! [`GroupObs`] removes whole groups of inputs (heads, features) from a layer by the same algebra, and gives what stays its least squares solution.
//! [`Retarget`] gives a layer another weight to be pruned towards, where earlier layers have changed its inputs, by fractions that
//! [`chosen_shares`] finds on texts left out; [`channel_order`] finds an
//! order of inputs in which an N:M pattern keeps more.
//!
//! For whole networks and any loss: [`InverseHessian`], built and taken apart by rank one; Optimal Brain Surgeon in [`obs`]; [`WoodFisher`].
//!
//! Nothing here knows a model: a layer's name, weight and measures come in as [`Evidence`](crate::criteria::Evidence).

mod greedy;
mod inverse;
mod layer;
mod dsnot;
pub mod obs;
mod permute;
mod reconstruct;
mod exact_obs;
mod group_obs;
mod retarget;
mod shares;
mod scored;
mod shrinkage;
mod regularised;
mod alps;
mod sweep;
mod sparsegpt;
mod d2prune;
mod woodfisher;
mod quantizers;

pub use alps::Alps;
pub use d2prune::D2Prune;
pub use dsnot::DsNoT;
pub use exact_obs::{ExactObs, Trace};
pub use group_obs::{GroupObs, GroupsLeft, Removal, loss_of};
pub use inverse::InverseHessian;
pub use layer::{Pruned, Pruner, squared_error};
pub use permute::channel_order;
pub use quantizers::{Awq, Gptq, Hqq, InputScales, InputScaling, JointPruning, Obr, Quantizer, Rounded, Rtn, SmoothQuant};
pub use reconstruct::{Reconstruct, Reconstructed, Solver};
pub use regularised::{Regularised, RobustTexts, relative_error};
pub use retarget::{Retarget, refitted};
pub use scored::Scored;
pub(crate) use scored::scores;
pub use shares::{TextProducts, chosen_shares};
pub use shrinkage::GramShrinkage;
pub use sparsegpt::SparseGpt;
pub use sweep::Order;
pub use woodfisher::WoodFisher;
