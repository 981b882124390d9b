//! SmolLM3: Bakouch et al., "SmolLM3: smol, multilingual, long-context reasoner", 2025; blocks without positions: Yang et al., "RoPE to NoPE and
//! Back Again", arXiv:2501.18795.
//!
//! Llama's blocks, of which every fourth has no rotary positions (`no_rope_layers` holds 1 where a block has them). Where
//! `use_sliding_window` is true, blocks without positions see a window.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockList, Defaults, Definition, Keys, LLAMA, setting, windows};

pub(super) static FAMILY: Definition = Definition {
    model_type: "smollm3",
    about: "SmolLM3",
    architecture: recipe,
    lists: &[BlockList::Windows, BlockList::Rotary],
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let usual = Architecture::usual(keys, Defaults { kv_heads: Some(4), tied: true, theta: 2e6, ..LLAMA })?;
    let bias = keys.flag("attention_bias", false)?;
    let feed_bias = keys.flag("mlp_bias", false)?;
    let mut recipe = Architecture { attention_bias: bias, output_bias: bias, feed_bias, ..usual };
    let every = keys.size_or("no_rope_layer_interval", 4)?;
    let list = keys.list_if("no_rope_layers", recipe.layers.len())?;
    let mut turned = Vec::with_capacity(recipe.layers.len());
    for (i, layer) in recipe.layers.iter_mut().enumerate() {
        let rotary = match list.map(|list| (list[i].as_u64(), list[i].as_bool())) {
            None => (i + 1) % every != 0,
            Some((Some(n @ 0..=1), _)) => n == 1,
            Some((_, Some(on))) => on,
            Some(_) => return Err(setting("no_rope_layers", format!("entry {i} is neither 0 nor 1"))),
        };
        layer.rotary = rotary.then_some(0);
        turned.push(rotary);
    }
    let window = if keys.flag("use_sliding_window", false)? { keys.window("sliding_window")? } else { None };
    windows(keys, &mut recipe, window, |i| window.is_some() && !turned[i])?;
    Ok(recipe)
}
