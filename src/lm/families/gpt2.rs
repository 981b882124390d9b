//! GPT-2: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
//!
//! ```text
//! h  = E[ids] + P[positions]
//! h += W_o attention(layer(h))               one layer makes queries, keys and values; a bias in every layer
//! h += W_proj gelu(W_fc layer(h))
//! logits = E layer(h)
//! ```
//!
//! The file holds linear weights `(in, out)`; they are turned when read and turned back when written.

use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockNames, BlockPlan, Definition, Keys, LearnedPositions, ModelKind, Names, QkvLayout, Stack, USUAL, UpNames,
    WidthKeys, activation, share,
};
use crate::nn::{AttentionRule, Heads, NormKind, Residual};

pub(super) static FAMILY: Definition = Definition {
    model_type: "gpt2",
    about: "GPT-2",
    architecture: recipe,
    general_names: &[
        ("hidden_size", "n_embd"),
        ("max_position_embeddings", "n_positions"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
    ],
    widths: Some(WidthKeys { heads: "n_head", kv_heads: None, head_dim: None, intermediate: "n_inner" }),
    hidden: None,
    epsilon: "layer_norm_epsilon",
    depth: Some("n_layer"),
    experts: None,
    lists: &[],
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let hidden = keys.size("n_embd")?;
    let queries = keys.size("n_head")?;
    let dim = share(hidden, queries, "n_head")?;
    let blocks = keys.blocks("n_layer")?;
    let scale = if keys.flag("scale_attn_weights", true)? { (dim as f32).powf(-0.5) } else { 1.0 };
    let by_number = keys.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |i: usize| BlockPlan {
        heads: Heads { queries, keys: queries, dim },
        rule: AttentionRule {
            scale: if by_number { scale / (i + 1) as f32 } else { scale },
            cap: None,
            window: None,
            causal: true,
        },
        rotary: None,
        intermediate: 0,
        experts: None,
    };
    let intermediate = keys.size_or("n_inner", 4 * hidden)?;
    Ok(Architecture {
        kind: ModelKind::Decoder,
        vocab: keys.size("vocab_size")?,
        hidden,
        embedding_width: None,
        tied: keys.flag("tie_word_embeddings", true)?,
        own_head: false,
        head_bias: false,
        embedding_scale: 1.0,
        head_scale: 1.0,
        logit_cap: None,
        positions: Some(LearnedPositions { count: keys.size_or("n_positions", 1024)?, offset: 0 }),
        token_types: None,
        rotaries: vec![],
        relative: None,
        alibi: false,
        norm: NormKind::Layer,
        norm_bias: true,
        plus_one: false,
        epsilon: keys.epsilon("layer_norm_epsilon", 1e-5)?,
        query_key: None,
        activation: activation(keys, "activation_function", "gelu_new")?,
        attention_bias: true,
        output_bias: true,
        feed_bias: true,
        transposed: true,
        qkv: QkvLayout::Stacked,
        residual: Residual::InTurn,
        layers: (0..blocks).map(|i| BlockPlan { intermediate, ..layer(i) }).collect(),
        names: Names { prefix: "transformer.", embedding: &["wte"], positions: "wpe", ..Names::USUAL },
        stacks: vec![Stack {
            blocks,
            path: "h",
            final_norm: Some("ln_f"),
            parts: BlockNames {
                norm: Some("ln_1"),
                inputs: &["attn.c_attn"],
                output: "attn.c_proj",
                feed_norm: Some("ln_2"),
                opening: UpNames::Plain("mlp.c_fc"),
                down: "mlp.c_proj",
                ..USUAL
            },
        }],
    })
}
