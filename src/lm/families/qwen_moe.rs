//! The mixtures of Qwen: Qwen Team, "Qwen1.5-MoE", 2024; Yang et al., "Qwen2 Technical Report", arXiv:2407.10671; "Qwen3 Technical Report",
//! arXiv:2505.09388.
//!
//! The attention of Qwen2 and Qwen3. In every `decoder_sparse_step`-th block that `mlp_only_layers` does not name, experts stand in the place of
//! the feed-forward layers; in Qwen2 all tokens meet one more, times the logistic function of a layer of its own.

use super::qwen2::asked_window;
use super::qwen3;
use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockList, BlockNames, Defaults, Definition, ExpertNames, Experts, Keys, LLAMA, USUAL, setting, windows,
};

pub(super) static QWEN2: Definition = Definition {
    model_type: "qwen2_moe",
    about: "Qwen1.5-MoE, Qwen2-MoE",
    architecture: qwen2_moe,
    general_names: &[("num_local_experts", "num_experts")],
    experts: Some(["num_experts", "num_experts_per_tok"]),
    lists: &[BlockList::Windows, BlockList::Dense],
    ..Definition::USUAL
};

pub(super) static QWEN3: Definition = Definition {
    model_type: "qwen3_moe",
    about: "Qwen3-MoE",
    architecture: qwen3_moe,
    general_names: &[("num_local_experts", "num_experts")],
    experts: Some(["num_experts", "num_experts_per_tok"]),
    lists: &[BlockList::Windows, BlockList::Dense],
    ..Definition::USUAL
};

/// Names of Qwen's experts.
pub(super) const EXPERTS: ExpertNames =
    ExpertNames { router: "mlp.gate", path: "mlp.experts", layers: ["gate_proj", "up_proj", "down_proj"], shared: None };

fn qwen2_moe(keys: Keys<'_>) -> Result<Architecture> {
    let bias = keys.flag("qkv_bias", true)?;
    let usual = Architecture::usual(keys, Defaults { kv_heads: Some(16), ..LLAMA })?;
    let mut recipe = Architecture { attention_bias: bias, ..usual };
    all_windows(keys, &mut recipe)?;
    let experts = Experts {
        count: keys.size_or("num_experts", 60)?,
        active: keys.size_or("num_experts_per_tok", 4)?,
        intermediate: keys.size_or("moe_intermediate_size", 1408)?,
        normalised: keys.flag("norm_topk_prob", false)?,
        shared: Some(keys.size_or("shared_expert_intermediate_size", 5632)?),
    };
    place(keys, &mut recipe, experts)?;
    let layers = ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"];
    let names = ExpertNames { shared: Some((layers, "mlp.shared_expert_gate")), ..EXPERTS };
    recipe.stacks[0].parts = BlockNames { experts: Some(names), ..USUAL };
    Ok(recipe)
}

fn qwen3_moe(keys: Keys<'_>) -> Result<Architecture> {
    let mut recipe = qwen3::with(keys, Defaults { kv_heads: Some(4), ..LLAMA })?;
    all_windows(keys, &mut recipe)?;
    let experts = Experts {
        count: keys.size_or("num_experts", 128)?,
        active: keys.size_or("num_experts_per_tok", 8)?,
        intermediate: keys.size_or("moe_intermediate_size", 768)?,
        normalised: keys.flag("norm_topk_prob", false)?,
        shared: None,
    };
    place(keys, &mut recipe, experts)?;
    recipe.stacks[0].parts.experts = Some(EXPERTS);
    Ok(recipe)
}

/// Windows of a mixture whose config has no list of them: the reference library knows no number here from which blocks see one, all do. (Its newer
/// generation writes the list, and says otherwise without it.)
fn all_windows(keys: Keys<'_>, recipe: &mut Architecture) -> Result<()> {
    let window = asked_window(keys)?;
    windows(keys, recipe, window, |_| window.is_some())
}

/// Gives experts to the blocks that have some.
fn place(keys: Keys<'_>, recipe: &mut Architecture, experts: Experts) -> Result<()> {
    let every = keys.size_or("decoder_sparse_step", 1)?;
    let mut dense = Vec::new();
    if let Some(value) = keys.get("mlp_only_layers") {
        let refuse = || setting("mlp_only_layers", "is not a list of numbers of blocks");
        for number in value.as_array().ok_or_else(refuse)? {
            dense.push(number.as_u64().ok_or_else(refuse)? as usize);
        }
    }
    for (i, layer) in recipe.layers.iter_mut().enumerate() {
        layer.experts = ((i + 1) % every == 0 && !dense.contains(&i)).then_some(experts);
    }
    Ok(())
}
