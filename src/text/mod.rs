//! Text: into tokens and back, and on from where it ends.
//!
//! - `Tokenizer` (feature `text`): the `tokenizer.json` of a model folder.
//! - `train_bpe` (feature `text`): a tokenizer out of texts.
//! - `ChatTemplate` (feature `text`): messages as the text that the model was trained to answer.
//! - [`Sampler`]: one token out of logits: the largest, or by chance with temperature, top-k and top-p.
//! - [`TrimmedTokenizer`]: a `tokenizer.json` with fewer entries.
//! - [`generate`]: token after token. [`Stops`]: until a text comes that ends it.

mod sampler;
mod generate;
mod stops;
mod trim;
#[cfg(feature = "text")]
mod tokenizer;
#[cfg(feature = "text")]
mod chat;
#[cfg(feature = "text")]
mod train;

#[cfg(feature = "text")]
pub use chat::{ChatTemplate, Message};
pub use generate::{Ended, Generation, generate, generate_until};
pub use sampler::{Sampler, Sampling};
pub use stops::Stops;
#[cfg(feature = "text")]
pub use tokenizer::{StreamDecoder, Tokenizer, is_guarded};
#[cfg(feature = "text")]
pub use train::train_bpe;
pub use trim::TrimmedTokenizer;
