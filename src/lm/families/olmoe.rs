//! OLMoE: Muennighoff et al., "OLMoE: Open Mixture-of-Experts Language Models", arXiv:2409.02060.
//!
//! Llama's blocks with norms of queries and keys over all heads; the feed-forward layers of a block are 64 experts, of which a token meets eight.

use super::qwen_moe::EXPERTS;
use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockNames, Defaults, Definition, Experts, Keys, LLAMA, QueryKeyNorm, USUAL, setting,
};

pub(super) static FAMILY: Definition = Definition {
    model_type: "olmoe",
    about: "OLMoE",
    architecture: recipe,
    general_names: &[("num_local_experts", "num_experts")],
    experts: Some(["num_experts", "num_experts_per_tok"]),
    ..Definition::HEADS_FROM_HIDDEN
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    if keys.get("clip_qkv").is_some() {
        return Err(setting("clip_qkv", "is given; queries, keys and values that are clipped are not known here"));
    }
    let bias = keys.flag("attention_bias", false)?;
    let usual = Architecture::usual(keys, Defaults { epsilon: ("rms_norm_eps", 1e-5), ..LLAMA })?;
    let mut recipe = Architecture { attention_bias: bias, output_bias: bias, query_key: Some(QueryKeyNorm::All), ..usual };
    let (count, active) = (keys.size_or("num_experts", 64)?, keys.size_or("num_experts_per_tok", 8)?);
    let normalised = keys.flag("norm_topk_prob", false)?;
    for layer in &mut recipe.layers {
        layer.experts = Some(Experts { count, active, intermediate: layer.intermediate, normalised, shared: None });
    }
    let query_key = Some(["self_attn.q_norm", "self_attn.k_norm"]);
    recipe.stacks[0].parts = BlockNames { query_key, experts: Some(EXPERTS), ..USUAL };
    Ok(recipe)
}
