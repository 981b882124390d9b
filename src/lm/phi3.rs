//! Phi-3: Abdin et al., "Phi-3 Technical Report", arXiv:2404.14219.
//!
//! Llama's blocks with fewer, larger layers: the rows of `qkv_proj` are those of queries, keys and values, the rows of
//! `gate_up_proj` those of the gate and of its partner.

use super::architecture::{Architecture, Parts, USUAL, UpNames};
use super::defaults::{Defaults, LLAMA};
use super::keys::Keys;
use crate::Result;

pub(super) fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let defaults = Defaults { epsilon: ("rms_norm_eps", 1e-5), rotary: Some(1.0), original: Some(4096), ..LLAMA };
    let mut recipe = Architecture::usual(keys, defaults)?;
    let window = keys.window("sliding_window")?;
    recipe.layers.iter_mut().for_each(|layer| layer.rule.window = window);
    recipe.stacks[0].parts = Parts { inputs: &["self_attn.qkv_proj"], opening: UpNames::Fused("mlp.gate_up_proj"), ..USUAL };
    Ok(recipe)
}
