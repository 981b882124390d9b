//! What a family of language models says of itself: the parts of its blocks, the names of their tensors, the keys of its config.
//!
//! A family is a [`Definition`]: a constant that names its `model_type` and keys, and a function from the keys of a `config.json` to an
//! [`Architecture`]. Everything else (running, gradients, what hangs together, files) follows from the architecture. One that is not of this
//! crate is known from [`Family::register`](super::Family::register) on.
//!
//! ```
//! use lacuna::lm::{Config, Family, architecture::{Architecture, Definition, Keys, LLAMA}};
//!
//! /// Llama's blocks with twice the embedding.
//! fn architecture(keys: Keys<'_>) -> lacuna::Result<Architecture> {
//!     Ok(Architecture { embedding_scale: 2.0, ..Architecture::usual(keys, LLAMA)? })
//! }
//! static LOUD: Definition = Definition { model_type: "loud_llama", about: "Loud Llama", architecture, ..Definition::USUAL };
//!
//! Family::register(&LOUD)?;
//! let config = Config::parse(&serde_json::json!({
//!     "model_type": "loud_llama", "vocab_size": 97, "hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 2,
//!     "num_attention_heads": 6, "num_key_value_heads": 2,
//! }))?;
//! assert_eq!(config.family().model_type(), "loud_llama");
//! # Ok::<(), lacuna::Error>(())
//! ```

mod keys;
mod defaults;
mod rope;
mod parts;
mod windows;
mod definition;

pub use defaults::{Defaults, LLAMA};
pub use definition::{BlockList, Definition, WidthKeys};
pub use keys::{Keys, setting};
pub use parts::{
    Architecture, BlockNames, BlockPlan, ExpertNames, Experts, LearnedPositions, ModelKind, Names, QkvLayout, QueryKeyNorm,
    Relative, Stack, USUAL, UpNames, activation, share,
};
pub use rope::{rotary, rotary_of};
pub use windows::windows;
