//! GPT-NeoX and Pythia: Black et al., "GPT-NeoX-20B", arXiv:2204.06745; Biderman et al., "Pythia", arXiv:2304.01373.
//!
//! ```text
//! h += W_o attention(layer(h)) + W_2 gelu(W_1 layer'(h))      both from the same h, each behind its own norm; a bias in every layer
//! logits = W_head layer(h)
//! ```
//!
//! One layer makes queries, keys and values, head by head; the first quarter of a head is turned by its position. Where
//! `use_parallel_residual` is false, the feed-forward layers follow attention.

use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, Names, QkvLayout, USUAL, UpNames, WidthKeys,
};
use crate::nn::{NormKind, Residual};

pub(super) static FAMILY: Definition = Definition {
    model_type: "gpt_neox",
    about: "GPT-NeoX, Pythia",
    architecture: recipe,
    widths: Some(WidthKeys { heads: "num_attention_heads", kv_heads: None, head_dim: None, intermediate: "intermediate_size" }),
    hidden: None,
    epsilon: "layer_norm_eps",
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let mut own = keys.0.clone();
    ["num_key_value_heads", "head_dim"].iter().for_each(|key| drop(own.remove(*key)));
    for (from, to) in [("rotary_pct", "partial_rotary_factor"), ("rotary_emb_base", "rope_theta")] {
        if let Some(value) = own.remove(from) {
            own.insert(to.into(), value);
        }
    }
    let defaults =
        Defaults { epsilon: ("layer_norm_eps", 1e-5), activation: ("hidden_act", "gelu"), rotary: Some(0.25), ..LLAMA };
    let usual = Architecture::usual(Keys(&own), defaults)?;
    let bias = keys.flag("attention_bias", true)?;
    let parallel = keys.flag("use_parallel_residual", true)?;
    let mut recipe = Architecture {
        norm: NormKind::Layer,
        norm_bias: true,
        attention_bias: bias,
        output_bias: bias,
        feed_bias: true,
        qkv: QkvLayout::Grouped,
        residual: if parallel { Residual::Parallel } else { Residual::InTurn },
        names: Names { prefix: "gpt_neox.", embedding: &["embed_in"], head: "embed_out", ..Names::USUAL },
        ..usual
    };
    let stack = &mut recipe.stacks[0];
    stack.final_norm = Some("final_layer_norm");
    stack.parts = BlockNames {
        inputs: &["attention.query_key_value"],
        output: "attention.dense",
        opening: UpNames::Plain("mlp.dense_h_to_4h"),
        down: "mlp.dense_4h_to_h",
        ..USUAL
    };
    Ok(recipe)
}
