//! BERT and the sentence encoders made of it, MiniLM among them: Devlin et al., "BERT", arXiv:1810.04805; Wang et al., "MiniLM", arXiv:2002.10957;
//! Reimers and Gurevych, "Sentence-BERT", arXiv:1908.10084.
//!
//! ```text
//! h = layer(E[ids] + P[positions] + T[0])
//! h = layer(h + W_o attention(h))           every token sees every other; a bias in every layer
//! h = layer(h + W_2 gelu(W_1 h))
//! ```
//!
//! All tokens are of the first kind (one sentence). What stands behind the hidden states (a pooler, the head of the first training) is passed over.

use crate::Result;
use crate::lm::architecture::{
    Architecture, BlockNames, Defaults, Definition, Keys, LLAMA, LearnedPositions, ModelKind, Names, USUAL, UpNames, WidthKeys,
    setting,
};
use crate::nn::{NormKind, Residual};

pub(super) static FAMILY: Definition = Definition {
    model_type: "bert",
    about: "BERT, MiniLM",
    architecture: recipe,
    widths: Some(WidthKeys { heads: "num_attention_heads", kv_heads: None, head_dim: None, intermediate: "intermediate_size" }),
    hidden: None,
    epsilon: "layer_norm_eps",
    ..Definition::USUAL
};

fn recipe(keys: Keys<'_>) -> Result<Architecture> {
    let kind = keys.text("position_embedding_type", "absolute")?;
    if kind != "absolute" {
        let reason = format!("{} is not known here; absolute is", crate::io::quoted(kind));
        return Err(setting("position_embedding_type", reason));
    }
    for key in ["is_decoder", "add_cross_attention"] {
        if keys.flag(key, false)? {
            return Err(setting(key, "is true; a BERT that writes is not known here"));
        }
    }
    let mut own = keys.0.clone();
    ["num_key_value_heads", "head_dim", "tie_word_embeddings"].iter().for_each(|key| drop(own.remove(*key)));
    let defaults =
        Defaults { epsilon: ("layer_norm_eps", 1e-12), activation: ("hidden_act", "gelu"), tied: true, turned: false, ..LLAMA };
    let usual = Architecture::usual(Keys(&own), defaults)?;
    let count = keys.size_or("max_position_embeddings", 512)?;
    let mut recipe = Architecture {
        kind: ModelKind::Encoder,
        positions: Some(LearnedPositions { count, offset: 0 }),
        token_types: Some(keys.size_or("type_vocab_size", 2)?),
        norm: NormKind::Layer,
        norm_bias: true,
        attention_bias: true,
        output_bias: true,
        feed_bias: true,
        residual: Residual::NormAfterSum,
        names: Names {
            prefix: "bert.",
            embedding: &["embeddings.word_embeddings"],
            embedding_norm: Some("embeddings.LayerNorm"),
            positions: "embeddings.position_embeddings",
            token_types: "embeddings.token_type_embeddings",
            ..Names::USUAL
        },
        ..usual
    };
    for layer in &mut recipe.layers {
        layer.rule.causal = false;
    }
    let stack = &mut recipe.stacks[0];
    (stack.path, stack.final_norm) = ("encoder.layer", None);
    stack.parts = BlockNames {
        norm: None,
        inputs: &["attention.self.query", "attention.self.key", "attention.self.value"],
        output: "attention.output.dense",
        attention_after: Some("attention.output.LayerNorm"),
        feed_norm: None,
        opening: UpNames::Plain("intermediate.dense"),
        down: "output.dense",
        feed_after: Some("output.LayerNorm"),
        ..USUAL
    };
    Ok(recipe)
}
