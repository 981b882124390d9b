//! Mixtral: Jiang et al., "Mixtral of Experts", arXiv:2401.04088.
//!
//! Mistral's attention; the feed-forward layers of a block are eight experts, of which a token meets two, weighed by probabilities that are divided
//! by their sum.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockNames, Defaults, Definition, ExpertNames, Experts, Keys, LLAMA, USUAL};

pub(super) static FAMILY: Definition = Definition {
    model_type: "mixtral",
    about: "Mixtral",
    architecture: recipe,
    experts: Some(["num_local_experts", "num_experts_per_tok"]),
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let defaults = Defaults { kv_heads: Some(8), epsilon: ("rms_norm_eps", 1e-5), theta: 1e6, ..LLAMA };
    let mut recipe = Architecture::usual(keys, defaults)?;
    let window = keys.window("sliding_window")?;
    let (count, active) = (keys.size_or("num_local_experts", 8)?, keys.size_or("num_experts_per_tok", 2)?);
    for layer in &mut recipe.layers {
        layer.rule.window = window;
        let intermediate = layer.intermediate;
        layer.experts = Some(Experts { count, active, intermediate, normalised: true, shared: None });
    }
    let experts = ExpertNames {
        router: "block_sparse_moe.gate",
        path: "block_sparse_moe.experts",
        layers: ["w1", "w3", "w2"],
        shared: None,
    };
    recipe.stacks[0].parts = BlockNames { experts: Some(experts), ..USUAL };
    Ok(recipe)
}
