//! Llama 2 and 3, SmolLM, SmolLM2, Llama-3.1-Minitron: Touvron et al., "Llama 2", arXiv:2307.09288; "The Llama 3 Herd of
//! Models", arXiv:2407.21783.
//!
//! ```text
//! h  = E[ids]                                            (tokens, hidden)
//! h += W_o attention(rotate(W_q x), rotate(W_k x), W_v x)   x = rms(h); q (tokens, heads · dim), k and v (tokens, kv_heads · dim)
//! h += W_down (silu(W_gate x) ⊙ W_up x)                     x = rms(h); (tokens, intermediate) between
//! logits = W_head rms(h)                                 (tokens, vocab)
//! ```

use crate::Result;
use crate::lm::architecture::{Architecture, Definition, Keys, LLAMA};

pub(super) static FAMILY: Definition = Definition {
    model_type: "llama",
    about: "Llama 2 and 3, SmolLM, SmolLM2, Minitron",
    architecture: recipe,
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let bias = keys.flag("attention_bias", false)?;
    let feed_bias = keys.flag("mlp_bias", false)?;
    Ok(Architecture { attention_bias: bias, output_bias: bias, feed_bias, ..Architecture::usual(keys, LLAMA)? })
}
