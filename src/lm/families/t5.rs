//! T5 v1.0 and v1.1: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
//! arXiv:1910.10683; Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202.
//!
//! ```text
//! encoder   h += W_o attention(rms(h))                               q · k + b(j - i), not scaled
//!           h += W_o f(W_i rms(h))
//! decoder   h += W_o attention(rms(h)), causal;  h += W_o attention(rms(h), memory);  h += W_o f(W_i rms(h))
//! logits = E (rms(h) / √hidden) of v1.0, W_head rms(h) of v1.1
//! ```
//!
//! Older configs say by `tie_word_embeddings` which of the two it is. Newer ones always tie and say `scale_decoder_outputs`; the head
//! that such a file holds is its own.
//!
//! The bias of scores depends on the distance, sorted into buckets, and is that of the first block in all blocks of a stack; it
//! stays with its stack, whatever becomes of the block. v1.0 has `f = relu`, v1.1 a gate with gelu and a head of its own.

use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockNames, BlockPlan, Definition, Keys, ModelKind, Names, QkvLayout, Relative, Stack, UpNames, WidthKeys,
    activation, setting,
};
use crate::nn::{Activation, AttentionRule, Heads, NormKind, Residual};

pub(super) static FAMILY: Definition = Definition {
    model_type: "t5",
    about: "T5 v1.0 and v1.1",
    architecture: recipe,
    general_names: &[
        ("hidden_size", "d_model"),
        ("num_attention_heads", "num_heads"),
        ("num_hidden_layers", "num_layers"),
        ("head_dim", "d_kv"),
    ],
    widths: Some(WidthKeys { heads: "num_heads", kv_heads: None, head_dim: None, intermediate: "d_ff" }),
    hidden: Some("d_model"),
    epsilon: "layer_norm_epsilon",
    depth: None,
    experts: None,
    lists: &[],
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let hidden = keys.size("d_model")?;
    let queries = keys.size("num_heads")?;
    let heads = Heads { queries, keys: queries, dim: keys.size("d_kv")? };
    let encoder = keys.blocks("num_layers")?;
    let decoder = if keys.get("num_decoder_layers").is_some() { keys.blocks("num_decoder_layers")? } else { encoder };
    let tied = keys.flag("tie_word_embeddings", true)?;
    let scaled = keys.flag("scale_decoder_outputs", tied)?;
    if scaled && !tied {
        return Err(setting("scale_decoder_outputs", "is true, but tie_word_embeddings is false, which leaves them as they are"));
    }
    let (gated, activation) = feed(keys)?;
    let intermediate = keys.size("d_ff")?;
    let layer = |causal| BlockPlan {
        heads,
        rule: AttentionRule { scale: 1.0, cap: None, window: None, causal },
        rotary: None,
        intermediate,
        experts: None,
    };
    let relative = Relative {
        buckets: keys.size_or("relative_attention_num_buckets", 32)?,
        farthest: keys.size_or("relative_attention_max_distance", 128)?,
    };
    if relative.buckets < 4 || relative.farthest <= relative.buckets / 2 {
        let reason = format!("{} buckets for distances up to {}", relative.buckets, relative.farthest);
        return Err(setting("relative_attention_num_buckets", reason));
    }
    Ok(Architecture {
        kind: ModelKind::EncoderDecoder,
        vocab: keys.size("vocab_size")?,
        hidden,
        embedding_width: None,
        tied,
        own_head: !scaled,
        head_bias: false,
        embedding_scale: 1.0,
        head_scale: if scaled { (hidden as f32).powf(-0.5) } else { 1.0 },
        logit_cap: None,
        positions: None,
        token_types: None,
        rotaries: vec![],
        relative: Some(relative),
        alibi: false,
        norm: NormKind::Rms,
        norm_bias: false,
        plus_one: false,
        epsilon: keys.epsilon("layer_norm_epsilon", 1e-6)?,
        query_key: None,
        activation,
        attention_bias: false,
        output_bias: false,
        feed_bias: false,
        transposed: false,
        qkv: QkvLayout::Stacked,
        residual: Residual::InTurn,
        layers: (0..encoder + decoder).map(|i| layer(i >= encoder)).collect(),
        names: Names { prefix: "", embedding: &["shared", "encoder.embed_tokens", "decoder.embed_tokens"], ..Names::USUAL },
        stacks: vec![
            Stack {
                blocks: encoder,
                path: "encoder.block",
                final_norm: Some("encoder.final_layer_norm"),
                parts: parts(gated, false),
            },
            Stack {
                blocks: decoder,
                path: "decoder.block",
                final_norm: Some("decoder.final_layer_norm"),
                parts: parts(gated, true),
            },
        ],
    })
}

/// Whether there is a gate, and the activation: of `relu`, `gated-gelu` and their like.
fn feed(keys: Keys<'_>) -> Result<(bool, Activation)> {
    let name = keys.text("feed_forward_proj", "relu")?;
    let (gated, function) = name.strip_prefix("gated-").map_or((false, name), |function| (true, function));
    // The reference library reads the gelu of `gated-gelu`, and of no other name, as its approximation with tanh.
    let function = if name == "gated-gelu" { "gelu_new" } else { function };
    let mut one = serde_json::Map::new();
    one.insert("feed_forward_proj".into(), function.into());
    let activation = activation(Keys(&one), "feed_forward_proj", "relu")?;
    // What the library makes of the name stands beside it.
    let (also, is_gated) =
        (crate::lm::architecture::activation(keys, "dense_act_fn", function)?, keys.flag("is_gated_act", gated)?);
    if (also, is_gated) != (activation, gated) {
        let reason = format!("{} contradicts dense_act_fn or is_gated_act", crate::io::quoted(name));
        return Err(setting("feed_forward_proj", reason));
    }
    Ok((gated, activation))
}

fn parts(gated: bool, decoder: bool) -> BlockNames {
    let opening = match (gated, decoder) {
        (false, false) => UpNames::Plain("layer.1.DenseReluDense.wi"),
        (false, true) => UpNames::Plain("layer.2.DenseReluDense.wi"),
        (true, false) => UpNames::Gated("layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1"),
        (true, true) => UpNames::Gated("layer.2.DenseReluDense.wi_0", "layer.2.DenseReluDense.wi_1"),
    };
    let cross = [
        "layer.1.layer_norm",
        "layer.1.EncDecAttention.q",
        "layer.1.EncDecAttention.k",
        "layer.1.EncDecAttention.v",
        "layer.1.EncDecAttention.o",
    ];
    BlockNames {
        norm: Some("layer.0.layer_norm"),
        inputs: &["layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v"],
        query_key: None,
        output: "layer.0.SelfAttention.o",
        attention_after: None,
        cross: decoder.then_some(cross),
        feed_norm: Some(if decoder { "layer.2.layer_norm" } else { "layer.1.layer_norm" }),
        opening,
        down: if decoder { "layer.2.DenseReluDense.wo" } else { "layer.1.DenseReluDense.wo" },
        feed_after: None,
        experts: None,
    }
}
