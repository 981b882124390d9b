//! OPT: Zhang et al., "OPT: Open Pre-trained Transformer Language Models", arXiv:2205.01068.
//!
//! ```text
//! h  = E[ids] + P[positions + 2]
//! h += W_o attention(layer(h))          a bias in every layer
//! h += W_2 relu(W_1 layer(h))
//! logits = E layer(h)
//! ```
//!
//! The model of 350 million parameters differs: its norms stand behind the sums, `h = layer(h + W_o attention(h))`, none behind the last block,
//! and its embedding is narrower than the hidden states, with a layer from one to the other and one back.

use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, LearnedPositions, Names, USUAL, UpNames, WidthKeys, setting,
};
use crate::nn::{NormKind, Residual};

pub(super) static FAMILY: Definition = Definition {
    model_type: "opt",
    about: "OPT",
    architecture: recipe,
    widths: Some(WidthKeys { heads: "num_attention_heads", kv_heads: None, head_dim: None, intermediate: "ffn_dim" }),
    hidden: None,
    ..Definition::USUAL
};

/// Rows of the table before that of position 0.
const OFFSET: usize = 2;

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    for key in ["layer_norm_elementwise_affine", "enable_bias"] {
        if !keys.flag(key, true)? {
            return Err(setting(key, "is false; norms and layers without it are not known of an OPT"));
        }
    }
    let mut own = keys.0.clone();
    own.insert("intermediate_size".into(), keys.size("ffn_dim")?.into());
    ["num_key_value_heads", "head_dim"].iter().for_each(|key| drop(own.remove(*key)));
    let defaults = Defaults {
        // No key of the config: that of the norms' own library.
        epsilon: ("layer_norm_eps", 1e-5),
        activation: ("activation_function", "relu"),
        tied: true,
        turned: false,
        ..LLAMA
    };
    let usual = Architecture::usual(Keys(&own), defaults)?;
    let before = keys.flag("do_layer_norm_before", true)?;
    let last = before && !keys.flag("_remove_final_layer_norm", false)?;
    let width = keys.size_or("word_embed_proj_dim", usual.hidden)?;
    let mut recipe = Architecture {
        embedding_width: (width != usual.hidden).then_some(width),
        positions: Some(LearnedPositions { count: keys.size_or("max_position_embeddings", 2048)?, offset: OFFSET }),
        norm: NormKind::Layer,
        norm_bias: true,
        attention_bias: true,
        output_bias: true,
        feed_bias: true,
        residual: if before { Residual::InTurn } else { Residual::NormAfterSum },
        names: Names {
            prefix: "model.decoder.",
            bare: "decoder.",
            positions: "embed_positions",
            projections: ["project_in", "project_out"],
            ..Names::USUAL
        },
        ..usual
    };
    let (first, second) = (Some("self_attn_layer_norm"), Some("final_layer_norm"));
    let stack = &mut recipe.stacks[0];
    stack.final_norm = last.then_some("final_layer_norm");
    stack.parts = BlockNames {
        norm: first.filter(|_| before),
        output: "self_attn.out_proj",
        attention_after: first.filter(|_| !before),
        feed_norm: second.filter(|_| before),
        opening: UpNames::Plain("fc1"),
        down: "fc2",
        feed_after: second.filter(|_| !before),
        ..USUAL
    };
    Ok(recipe)
}
