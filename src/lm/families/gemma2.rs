//! Gemma 2: Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size", arXiv:2408.00118.
//!
//! ```text
//! h  = √hidden · E[ids]
//! h += rms'(attention(rms'(h)))      scores cap tanh(s / cap), s = q · k / √query_pre_attn_scalar
//! h += rms'(W_down (gelu(W_gate x) ⊙ W_up x))          x = rms'(h), rms' multiplies by 1 + w
//! logits = cap tanh(E rms'(h) / cap)
//! ```
//!
//! Every other block, from the first on, sees only a window.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockList, BlockNames, Defaults, Definition, Keys, LLAMA, USUAL, setting, windows};

pub(super) static FAMILY: Definition = Definition {
    model_type: "gemma2",
    about: "Gemma 2",
    architecture: recipe,
    lists: &[BlockList::Windows],
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let defaults = Defaults {
        kv_heads: Some(4),
        head_dim: Some(256),
        activation: ("hidden_activation", "gelu_pytorch_tanh"),
        tied: true,
        ..LLAMA
    };
    let bias = keys.flag("attention_bias", false)?;
    let mut recipe =
        Architecture { plus_one: true, attention_bias: bias, output_bias: bias, ..Architecture::usual(keys, defaults)? };
    recipe.embedding_scale = (recipe.hidden as f32).sqrt();
    let cap = |key: &str, default: f64| match keys.0.get(key) {
        Some(serde_json::Value::Null) => Ok(None),
        _ => keys.positive(key, default).map(Some),
    };
    recipe.logit_cap = cap("final_logit_softcapping", 30.0)?;
    let cap = cap("attn_logit_softcapping", 50.0)?;
    let scale = keys.positive("query_pre_attn_scalar", 256.0)?.powf(-0.5);
    if keys.flag("use_bidirectional_attention", false)? {
        return Err(setting("use_bidirectional_attention", "tokens that see those behind them are not known here"));
    }
    let window = match keys.0.contains_key("sliding_window") {
        true => keys.window("sliding_window")?,
        false => Some(4096),
    };
    for layer in &mut recipe.layers {
        layer.rule.scale = scale;
        layer.rule.cap = cap;
    }
    windows(keys, &mut recipe, window, |i| i % 2 == 0)?;
    recipe.stacks[0].parts = BlockNames {
        attention_after: Some("post_attention_layernorm"),
        feed_norm: Some("pre_feedforward_layernorm"),
        feed_after: Some("post_feedforward_layernorm"),
        ..USUAL
    };
    Ok(recipe)
}
