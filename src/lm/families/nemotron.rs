//! Nemotron and the first Minitron models: Parmar et al., "Nemotron-4 15B Technical Report", arXiv:2402.16819; Muralidharan et
//! al., "Compact Language Models via Pruning and Knowledge Distillation", arXiv:2407.14679.
//!
//! ```text
//! h += W_o attention(layer'(h))
//! h += W_down max(0, W_up layer'(h))²      layer' multiplies by 1 + w
//! ```
//!
//! Only the first part of each head is turned by its position.

use crate::Result;
use crate::lm::architecture::{Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, USUAL, UpNames};
use crate::nn::NormKind;

pub(super) static FAMILY: Definition = Definition {
    model_type: "nemotron",
    about: "Nemotron, Minitron",
    architecture: recipe,
    epsilon: "norm_eps",
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let defaults = Defaults { epsilon: ("norm_eps", 1e-5), activation: ("hidden_act", "relu2"), rotary: Some(0.5), ..LLAMA };
    let bias = keys.flag("attention_bias", false)?;
    let mut recipe = Architecture {
        norm: NormKind::Layer,
        norm_bias: true,
        plus_one: true,
        attention_bias: bias,
        output_bias: bias,
        feed_bias: keys.flag("mlp_bias", false)?,
        ..Architecture::usual(keys, defaults)?
    };
    recipe.stacks[0].parts = BlockNames { opening: UpNames::Plain("mlp.up_proj"), ..USUAL };
    Ok(recipe)
}
