//! Language models of the literature, opened from their checkpoints.
//!
//! [`Config`] reads a `config.json`; [`LanguageModel`] holds a decoder of any [`Family`] and runs it, with a [`Cache`] token by
//! token, backward for gradients, or part by part ([`Ends`], [`load_block`]) where it is larger than memory. A family is one
//! file that says which parts its blocks have and what their tensors are called; the parts are those of [`nn`](crate::nn).

mod check;
mod config;
mod ends;
mod family;
mod gemma2;
mod gpt2;
mod keys;
mod llama;
mod load;
mod mistral;
mod model;
mod nemotron;
mod outline;
mod phi;
mod phi3;
mod recipe;
mod relative;
mod rope;
mod seq2seq;
mod stored;
mod t5;
mod tie;
mod train;

pub use check::check;
pub use config::{Config, Widths};
pub use ends::Ends;
pub use family::Family;
pub use model::{Cache, LanguageModel, load_block, next_tokens, positions};
pub use outline::{Kind, Outline, Outlined};
pub use seq2seq::{Seq2Seq, Seq2SeqCache};
pub use stored::{Kept, Running};
pub use tie::remark;
pub use train::{Gradients, Parameters, step};
