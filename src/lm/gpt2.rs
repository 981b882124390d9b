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

use super::architecture::{Architecture, Layer, Names, Parts, Stack, USUAL, UpNames, activation, share};
use super::keys::Keys;
use crate::Result;
use crate::nn::{AttentionRule, Heads, NormKind};

pub(super) fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let hidden = keys.size("n_embd")?;
    let queries = keys.size("n_head")?;
    let dim = share(hidden, queries, "n_head")?;
    let blocks = keys.blocks("n_layer")?;
    let scale = if keys.flag("scale_attn_weights", true)? { (dim as f32).powf(-0.5) } else { 1.0 };
    let by_number = keys.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |i: usize| Layer {
        heads: Heads { queries, keys: queries, dim },
        rule: AttentionRule {
            scale: if by_number { scale / (i + 1) as f32 } else { scale },
            cap: None,
            window: None,
            causal: true,
        },
        intermediate: 0,
    };
    let intermediate = keys.size_or("n_inner", 4 * hidden)?;
    Ok(Architecture {
        vocab: keys.size("vocab_size")?,
        hidden,
        tied: keys.flag("tie_word_embeddings", true)?,
        own_head: false,
        head_bias: false,
        embedding_scale: 1.0,
        head_scale: 1.0,
        logit_cap: None,
        positions: Some(keys.size_or("n_positions", 1024)?),
        rotary: None,
        relative: None,
        norm: NormKind::Layer,
        norm_bias: true,
        plus_one: false,
        epsilon: keys.epsilon("layer_norm_epsilon", 1e-5)?,
        activation: activation(keys, "activation_function", "gelu_new")?,
        attention_bias: true,
        output_bias: true,
        feed_bias: true,
        transposed: true,
        layers: (0..blocks).map(|i| Layer { intermediate, ..layer(i) }).collect(),
        names: Names { prefix: "transformer.", embedding: &["wte"], positions: "wpe", head: "lm_head" },
        stacks: vec![Stack {
            blocks,
            path: "h",
            final_norm: "ln_f",
            parts: Parts {
                norm: "ln_1",
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
