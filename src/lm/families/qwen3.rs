//! Qwen3: Yang et al., "Qwen3 Technical Report", arXiv:2505.09388.
//!
//! ```text
//! h += W_o attention(rotate(rms(W_q x)), rotate(rms(W_k x)), W_v x)      x = rms(h); queries and keys are normed head by head
//! h += W_down (silu(W_gate x) ⊙ W_up x)                                  x = rms(h)
//! ```
//!
//! The width of a head is a key of its own, and not the hidden size shared out. Windows as in Qwen2.

use super::qwen2::late_windows;
use crate::Result;
use crate::lm::architecture::{Architecture, BlockList, BlockNames, Defaults, Definition, Keys, LLAMA, QueryKeyNorm, USUAL};

pub(super) static FAMILY: Definition =
    Definition { model_type: "qwen3", about: "Qwen3", architecture: recipe, lists: &[BlockList::Windows], ..Definition::USUAL };

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    with(keys, Defaults { kv_heads: Some(32), head_dim: Some(128), ..LLAMA })
}

/// Qwen3's blocks by these defaults.
pub(super) fn with(keys: Keys<'_>, defaults: Defaults) -> Result<Architecture> {
    let bias = keys.flag("attention_bias", false)?;
    let usual = Architecture::usual(keys, defaults)?;
    let mut recipe = Architecture { attention_bias: bias, output_bias: bias, query_key: Some(QueryKeyNorm::Head), ..usual };
    late_windows(keys, &mut recipe)?;
    recipe.stacks[0].parts = BlockNames { query_key: Some(["self_attn.q_norm", "self_attn.k_norm"]), ..USUAL };
    Ok(recipe)
}
