//! Text: into tokens and back, and on from where it ends.
//!
//! - `Tokenizer` (feature `text`): the `tokenizer.json` of a model folder.
//! - [`Sampler`]: one token out of logits: the largest, or by chance with temperature, top-k and top-p.
//! - [`generate`]: token after token.

mod generate;
mod sampler;
#[cfg(feature = "text")]
mod tokenizer;

pub use generate::{Ended, Generation, generate};
pub use sampler::{Sampler, Sampling};
#[cfg(feature = "text")]
pub use tokenizer::{Tokenizer, Typist};
