//! Gemma: Gemma Team, "Gemma: Open Models Based on Gemini Research and Technology", arXiv:2403.08295.
//!
//! Llama's blocks with gelu, an embedding that is multiplied by √hidden, norms that multiply by 1 + w, and heads whose width is a key of its
//! own. The smaller models have one head of keys and values; the head is the embedding.

use crate::Result;
use crate::lm::architecture::{Architecture, Defaults, Definition, Keys, LLAMA};

pub(super) static FAMILY: Definition =
    Definition { model_type: "gemma", about: "Gemma", architecture: recipe, ..Definition::USUAL };

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let defaults = Defaults {
        kv_heads: Some(16),
        head_dim: Some(256),
        activation: ("hidden_act", "gelu_pytorch_tanh"),
        tied: true,
        ..LLAMA
    };
    let bias = keys.flag("attention_bias", false)?;
    let usual = Architecture::usual(keys, defaults)?;
    let embedding_scale = (usual.hidden as f32).sqrt();
    Ok(Architecture { plus_one: true, attention_bias: bias, output_bias: bias, embedding_scale, ..usual })
}
