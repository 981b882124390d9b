//! Scores: how much each weight matters. Larger = keep.
//!
//! A criterion only combines what was measured: a weight and its [`Measured`] come in as [`Evidence`], scores of the
//! weight's shape go out. Which passes must run is said by [`Saliency::needs`], so that calibration measures exactly that.
//!
//! | criterion | score | needs |
//! |---|---|---|
//! | [`Random`] | uniform | nothing |
//! | [`Magnitude`] | \|w\| or w² | nothing |
//! | [`Taylor`] | (w g)² | gradient |
//! | [`Snip`] | \|w g\| | gradient |
//! | [`Grasp`] | w (H g) | Hessian times gradient |
//! | [`SynFlow`] | \|w\| ∂R/∂\|w\| | synaptic flow |
//! | [`Fisher`] | ½ F w² | squared gradients |
//! | [`Obd`] | ½ h w² | second derivatives |
//! | [`Wanda`] | \|w\| ‖x‖ | input norms |
//! | [`Ria`] | (\|w\| / column + \|w\| / row) ‖x‖^½ | input norms |
//!
//! Scores of one criterion can be compared between layers (they are shares of one loss) where its page says so.

mod evidence;
mod inputs;
mod fisher;
mod grasp;
mod magnitude;
mod obd;
mod random;
mod ria;
mod snip;
mod synflow;
mod taylor;
mod wanda;

pub use evidence::{Evidence, Measured, Need, Needs, Saliency, TextGram};
pub use fisher::Fisher;
pub use grasp::Grasp;
pub use inputs::InputSums;
pub use magnitude::{Magnitude, MagnitudeNorm};
pub use obd::Obd;
pub use random::Random;
pub use ria::Ria;
pub use snip::Snip;
pub use synflow::SynFlow;
pub use taylor::Taylor;
pub use wanda::Wanda;
