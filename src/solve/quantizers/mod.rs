//! Quantisers: the codes of one layer's weights, chosen by what was measured of its inputs. The siblings of [`Pruner`](super::Pruner)s.
//!
//! | quantiser | codes | source |
//! |---|---|---|
//! | [`Rtn`] | the nearest | |
//! | [`Gptq`] | column by column; what is lost, later columns make up for | Frantar, Ashkboos, Hoefler, Alistarh 2023 |
//! | [`Obr`] | the same on what a mask keeps, of each row by itself; before, what stays makes up for what went | Guo, Li, Benini 2026 |
//! | [`Awq`] | the nearest, of ranges that are cut off where that lessens the layer's error; and inputs scaled before | Lin et al. 2024 |
//! | [`Hqq`] | the nearest, of zero points that lessen ‖W − Ŵ‖ₚ, p < 1; without data | Badri, Shaji 2023 |
//!
//! Before codes are chosen inputs may be scaled ([`InputScaling`]): by [`Awq`], or by [`SmoothQuant`], which makes room for activations of 8 bits.

mod quantizer;
mod rtn;
mod gptq;
mod obr;
mod awq;
mod hqq;
mod smooth;

pub use awq::{Awq, InputScales};
pub use gptq::{Gptq, JointPruning};
pub use hqq::Hqq;
pub use obr::Obr;
pub use quantizer::{Quantizer, Rounded};
pub use rtn::Rtn;
pub use smooth::{InputScaling, SmoothQuant};
