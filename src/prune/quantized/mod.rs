//! Quantisation of language models, block by block, with one block in memory: as [`prune_language`](super::prune_language), with a
//! [`Quantizer`](crate::solve::Quantizer) in the place of a pruner and codes in the place of weights.
//!
//! ```text
//! block ─► inputs measured ─► [Awq: input scales, folded into norms and rows before] ─► Quantizer ─► codes, written at once; the block runs on with them
//! ```

mod record;
mod rescale;
mod run;

pub use record::QuantRecord;
pub(crate) use run::whole_layers;
pub use run::{LanguageQuantizing, QuantizeRun, QuantizedFolder, quantize_language};
