//! OLMo 2: OLMo Team, "2 OLMo 2 Furious", arXiv:2501.00656.
//!
//! ```text
//! h += rms(W_o attention(rotate(rms(W_q h)), rotate(rms(W_k h)), W_v h))      queries are normed over all heads, keys as well
//! h += rms(W_down (silu(W_gate h) ⊙ W_up h))
//! ```
//!
//! No norm stands before a part of a block, one behind each.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, QueryKeyNorm, USUAL};

pub(super) static FAMILY: Definition =
    Definition { model_type: "olmo2", about: "OLMo 2", architecture: recipe, ..Definition::USUAL };

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let bias = keys.flag("attention_bias", false)?;
    let usual = Architecture::usual(keys, Defaults { epsilon: ("rms_norm_eps", 1e-5), ..LLAMA })?;
    let mut recipe = Architecture { attention_bias: bias, output_bias: bias, query_key: Some(QueryKeyNorm::All), ..usual };
    recipe.stacks[0].parts = BlockNames {
        norm: None,
        query_key: Some(["self_attn.q_norm", "self_attn.k_norm"]),
        attention_after: Some("post_attention_layernorm"),
        feed_norm: None,
        feed_after: Some("post_feedforward_layernorm"),
        ..USUAL
    };
    Ok(recipe)
}
