//! Gemma 3, its text models: Gemma Team, "Gemma 3 Technical Report", arXiv:2503.19786.
//!
//! ```text
//! h  = √hidden · E[ids]
//! h += rms'(attention(rotate(rms'(q)), rotate(rms'(k)), v))    of x = rms'(h), head by head; scores q · k / √query_pre_attn_scalar
//! h += rms'(W_down (gelu(W_gate x) ⊙ W_up x))                  x = rms'(h), rms' multiplies by 1 + w
//! logits = E rms'(h)
//! ```
//!
//! Five of six blocks see a window, and have rotary positions of another base than the sixth.

use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockList, BlockNames, Defaults, Definition, Keys, LLAMA, QueryKeyNorm, USUAL, rotary_of, setting, windows,
};
use crate::nn::{RopeScaling, Rotary};

pub(super) static FAMILY: Definition = Definition {
    model_type: "gemma3_text",
    about: "Gemma 3 (text)",
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
        theta: 1e6,
        ..LLAMA
    };
    let bias = keys.flag("attention_bias", false)?;
    // Objects for kinds of layers are read one by one; the usual way is shown none.
    let mut plain = keys.0.clone();
    let by_kind = keys.get("rope_parameters").and_then(|v| v.as_object()).is_some_and(|o| o.values().any(|v| v.is_object()));
    if by_kind {
        for key in ["rope_parameters", "rope_scaling", "rope_theta"] {
            plain.remove(key);
        }
    }
    let usual = Architecture::usual(Keys(&plain), defaults)?;
    let dim = usual.layers.first().map_or(0, |layer| layer.heads.dim);
    let local = keys.positive("rope_local_base_freq", 1e4)?;
    let far = rotary_of(keys, "full_attention", dim, &defaults)?;
    let near = rotary_of(keys, "sliding_attention", dim, &Defaults { theta: f64::from(local), ..defaults })?;
    let near = near.unwrap_or_else(|| Rotary::new(dim, local, RopeScaling::None));
    let rotaries = far.into_iter().chain(usual.rotaries.first().filter(|_| !by_kind).cloned()).chain([near]).collect();
    let mut recipe = Architecture {
        plus_one: true,
        attention_bias: bias,
        output_bias: bias,
        query_key: Some(QueryKeyNorm::Head),
        embedding_scale: (usual.hidden as f32).sqrt(),
        rotaries,
        ..usual
    };
    // A cap of the scores, of which configs of Gemma 3 have a key too, is read by the reference library and applied to nothing.
    recipe.logit_cap = keys.get("final_logit_softcapping").map(|_| keys.positive("final_logit_softcapping", 0.0)).transpose()?;
    if keys.flag("use_bidirectional_attention", false)? {
        return Err(setting("use_bidirectional_attention", "tokens that see those behind them are not known here"));
    }
    let scale = keys.positive("query_pre_attn_scalar", 256.0)?.powf(-0.5);
    let window = if keys.0.contains_key("sliding_window") { keys.window("sliding_window")? } else { Some(4096) };
    let every = keys.size_or("sliding_window_pattern", keys.size_or("_sliding_window_pattern", 6)?)?;
    windows(keys, &mut recipe, window, |i| (i + 1) % every != 0)?;
    for layer in &mut recipe.layers {
        layer.rule.scale = scale;
        layer.rotary = Some(usize::from(layer.rule.window.is_some()));
    }
    recipe.stacks[0].parts = BlockNames {
        query_key: Some(["self_attn.q_norm", "self_attn.k_norm"]),
        attention_after: Some("post_attention_layernorm"),
        feed_norm: Some("pre_feedforward_layernorm"),
        feed_after: Some("post_feedforward_layernorm"),
        ..USUAL
    };
    Ok(recipe)
}
