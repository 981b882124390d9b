//! Phi-1, Phi-1.5 and Phi-2: Gunasekar et al., "Textbooks Are All You Need", arXiv:2306.11644.
//!
//! ```text
//! h += W_o attention(x) + W_2 gelu(W_1 x)      x = layer(h), both from the same x; a bias in every layer
//! logits = W_head layer(h) + b
//! ```
//!
//! Only the first part of each head is turned by its position.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, USUAL, UpNames, setting};
use crate::nn::{NormKind, Residual};

pub(super) static FAMILY: Definition = Definition {
    model_type: "phi",
    about: "Phi-1, Phi-1.5, Phi-2",
    architecture: recipe,
    epsilon: "layer_norm_eps",
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    if keys.flag("qk_layernorm", false)? {
        return Err(setting("qk_layernorm", "norms of queries and keys are not known here"));
    }
    let defaults =
        Defaults { epsilon: ("layer_norm_eps", 1e-5), activation: ("hidden_act", "gelu_new"), rotary: Some(0.5), ..LLAMA };
    let mut recipe = Architecture {
        norm: NormKind::Layer,
        norm_bias: true,
        attention_bias: true,
        output_bias: true,
        feed_bias: true,
        head_bias: true,
        residual: Residual::Parallel,
        ..Architecture::usual(keys, defaults)?
    };
    let stack = &mut recipe.stacks[0];
    stack.final_norm = Some("final_layernorm");
    stack.parts =
        BlockNames { output: "self_attn.dense", feed_norm: None, opening: UpNames::Plain("mlp.fc1"), down: "mlp.fc2", ..USUAL };
    Ok(recipe)
}
