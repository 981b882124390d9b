//! StableLM: Bellagente et al., "Stable LM 2 1.6B Technical Report", arXiv:2402.17834.
//!
//! Llama's blocks with layer norms that have biases, and heads of which the first quarter is turned. Where `use_parallel_residual` is true, one
//! norm stands before attention and the feed-forward layers, which join the hidden states together.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, USUAL, setting};
use crate::nn::{NormKind, Residual};

pub(super) static FAMILY: Definition = Definition {
    model_type: "stablelm",
    about: "StableLM",
    architecture: recipe,
    epsilon: "layer_norm_eps",
    ..Definition::HEADS_FROM_HIDDEN
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    if keys.flag("qk_layernorm", false)? {
        return Err(setting("qk_layernorm", "layer norms of queries and keys are not known here"));
    }
    let defaults = Defaults { kv_heads: Some(32), epsilon: ("layer_norm_eps", 1e-5), rotary: Some(0.25), ..LLAMA };
    let parallel = keys.flag("use_parallel_residual", false)?;
    let mut recipe = Architecture {
        norm: NormKind::Layer,
        norm_bias: true,
        attention_bias: keys.flag("use_qkv_bias", false)?,
        residual: if parallel { Residual::Parallel } else { Residual::InTurn },
        ..Architecture::usual(keys, defaults)?
    };
    if parallel {
        recipe.stacks[0].parts = BlockNames { feed_norm: None, ..USUAL };
    }
    Ok(recipe)
}
