//! Phi-3 and Phi-4-mini: Abdin et al., "Phi-3 Technical Report", arXiv:2404.14219; Abouelenin et al., "Phi-4-Mini Technical Report",
//! arXiv:2503.01743.
//!
//! Llama's blocks with fewer, larger layers: the rows of `qkv_proj` are those of queries, keys and values, the rows of
//! `gate_up_proj` those of the gate and of its partner. Phi-4-mini turns a part of each head, and its head is the
//! embedding.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, USUAL, UpNames};

pub(super) static FAMILY: Definition =
    Definition { model_type: "phi3", about: "Phi-3, Phi-4-mini", architecture: recipe, ..Definition::USUAL };

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let defaults = Defaults { epsilon: ("rms_norm_eps", 1e-5), rotary: Some(1.0), original: Some(4096), ..LLAMA };
    let mut recipe = Architecture::usual(keys, defaults)?;
    let window = keys.window("sliding_window")?;
    recipe.layers.iter_mut().for_each(|layer| layer.rule.window = window);
    recipe.stacks[0].parts = BlockNames { inputs: &["self_attn.qkv_proj"], opening: UpNames::Fused("mlp.gate_up_proj"), ..USUAL };
    Ok(recipe)
}
