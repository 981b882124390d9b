//! Language models of the literature, opened from their checkpoints.
//!
//! [`Config`] reads a `config.json`; [`LanguageModel`] holds a decoder of any [`Family`] and runs it, with a [`KvCache`] token by
//! token, backward for gradients, or part by part ([`EmbeddingHead`], [`load_block`]) where it is larger than memory. A family is one
//! file that says which parts its blocks have and what their tensors are called; the parts are those of [`nn`](crate::nn). Families from outside
//! this crate are registered ([`architecture`]).

pub mod architecture;
mod families;
mod family;
mod config;
mod tie;
mod load;
mod linears;
mod next_token;
mod text_pairs;
mod embedding_head;
mod positions;
mod model;
mod many;
mod stored;
mod outline;
mod couplings;
mod experts;
mod rescale;
mod rotate;
mod init;
mod relative;
mod check;
mod tokens;
mod documents;
mod selection;
mod calibration;
mod seq2seq;

pub use calibration::{CalibrationMix, CalibrationSource, MixedCalibration};
pub use check::check;
pub use config::{Config, Widths};
pub use couplings::couplings;
pub use embedding_head::EmbeddingHead;
pub use experts::{BlockExperts, experts};
pub use family::Family;
pub use init::{init, parameter_count};
pub use load::remark;
pub use many::{BatchCache, GeneratedText, TextGeneration, repeated};
pub use model::{KvCache, LanguageModel, LanguageTape, load_block};
pub(crate) use model::{load_block_without_experts, load_expert};
pub use next_token::{NextToken, next_tokens};
pub use outline::{Kind, Outline, Outlined};
pub use positions::positions;
pub use rescale::{Rescale, rescaled};
pub use rotate::{NewHead, Rotation};
pub use selection::{CalibrationSelection, SelectedSequences, Taken};
pub use seq2seq::{Seq2Seq, Seq2SeqCache, Seq2SeqTape};
pub use stored::{Inference, Kept, Running};
pub use text_pairs::{TextPair, TextPairs};
