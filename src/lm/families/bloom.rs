//! BLOOM: BigScience Workshop, "BLOOM: A 176B-Parameter Open-Access Multilingual Language Model", arXiv:2211.05100.
//!
//! ```text
//! h  = layer(E[ids])
//! h += W_o attention(layer(h))          scores q · k / √dim - m (i - j), a slope m for each head (Press et al., arXiv:2108.12409)
//! h += W_2 gelu(W_1 layer(h))           a bias in every layer
//! logits = E layer(h)
//! ```
//!
//! One layer makes queries, keys and values, head by head. Slopes follow from the number of heads, so heads stay.

use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, Names, QkvLayout, USUAL, UpNames, setting,
};
use crate::nn::NormKind;

pub(super) static FAMILY: Definition = Definition {
    model_type: "bloom",
    about: "BLOOM",
    architecture: recipe,
    general_names: &[("num_hidden_layers", "n_layer"), ("num_attention_heads", "n_head"), ("n_embed", "hidden_size")],
    // The feed-forward layers are four times as wide as the hidden states, and no key says so.
    widths: None,
    hidden: None,
    epsilon: "layer_norm_epsilon",
    depth: Some("n_layer"),
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    if keys.flag("apply_residual_connection_post_layernorm", false)? {
        let key = "apply_residual_connection_post_layernorm";
        return Err(setting(key, "is true; hidden states that go on from a norm are not known here"));
    }
    let mut own = keys.0.clone();
    ["num_key_value_heads", "head_dim", "rope_scaling", "hidden_act"].iter().for_each(|key| drop(own.remove(*key)));
    for (to, from) in [("num_attention_heads", "n_head"), ("num_hidden_layers", "n_layer")] {
        own.insert(to.into(), keys.size(from)?.into());
    }
    own.insert("intermediate_size".into(), (4 * keys.size("hidden_size")?).into());
    let defaults = Defaults {
        epsilon: ("layer_norm_epsilon", 1e-5),
        activation: ("hidden_act", "gelu_new"),
        tied: true,
        turned: false,
        ..LLAMA
    };
    let usual = Architecture::usual(Keys(&own), defaults)?;
    let mut recipe = Architecture {
        alibi: true,
        norm: NormKind::Layer,
        norm_bias: true,
        attention_bias: true,
        output_bias: true,
        feed_bias: true,
        qkv: QkvLayout::Grouped,
        names: Names {
            prefix: "transformer.",
            embedding: &["word_embeddings"],
            embedding_norm: Some("word_embeddings_layernorm"),
            ..Names::USUAL
        },
        ..usual
    };
    let stack = &mut recipe.stacks[0];
    (stack.path, stack.final_norm) = ("h", Some("ln_f"));
    stack.parts = BlockNames {
        inputs: &["self_attention.query_key_value"],
        output: "self_attention.dense",
        opening: UpNames::Plain("mlp.dense_h_to_4h"),
        down: "mlp.dense_4h_to_h",
        ..USUAL
    };
    Ok(recipe)
}
