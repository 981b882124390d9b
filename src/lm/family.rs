//! The families of language models, by `model_type`.

use super::architecture::Architecture;
use super::keys::{Keys, setting};
use super::{gemma2, gpt2, llama, mistral, nemotron, phi, phi3, t5};
use crate::Result;
use std::fmt;

/// A family of language models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Llama 2 and 3, SmolLM, SmolLM2, Llama-3.1-Minitron.
    Llama,
    /// Mistral and Mistral NeMo.
    Mistral,
    /// Gemma 2.
    Gemma2,
    /// Phi-1, Phi-1.5, Phi-2.
    Phi,
    /// Phi-3.
    Phi3,
    /// Nemotron and Minitron.
    Nemotron,
    /// GPT-2.
    Gpt2,
    /// T5 v1.0 and v1.1, an encoder-decoder.
    T5,
}

/// The keys under which a family keeps the widths of all its blocks.
pub(super) struct WidthKeys {
    pub(super) heads: &'static str,
    pub(super) kv_heads: Option<&'static str>,
    pub(super) head_dim: Option<&'static str>,
    pub(super) intermediate: &'static str,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 8] =
        [Family::Llama, Family::Mistral, Family::Gemma2, Family::Phi, Family::Phi3, Family::Nemotron, Family::Gpt2, Family::T5];

    /// The `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Gemma2 => "gemma2",
            Family::Phi => "phi",
            Family::Phi3 => "phi3",
            Family::Nemotron => "nemotron",
            Family::Gpt2 => "gpt2",
            Family::T5 => "t5",
        }
    }

    /// The family of a `model_type`.
    ///
    /// # Errors
    /// If there is none; the error lists those that are known.
    pub fn of(model_type: &str) -> Result<Self> {
        Family::ALL.into_iter().find(|f| f.model_type() == model_type).ok_or_else(|| {
            let known: Vec<&str> = Family::ALL.iter().map(|f| f.model_type()).collect();
            setting("model_type", format!("{} is none of {}", crate::io::quoted(model_type), known.join(", ")))
        })
    }

    pub(super) fn recipe(self, keys: Keys<'_>) -> Result<Architecture> {
        match self {
            Family::Llama => llama::recipe(keys),
            Family::Mistral => mistral::recipe(keys),
            Family::Gemma2 => gemma2::recipe(keys),
            Family::Phi => phi::recipe(keys),
            Family::Phi3 => phi3::recipe(keys),
            Family::Nemotron => nemotron::recipe(keys),
            Family::Gpt2 => gpt2::recipe(keys),
            Family::T5 => t5::recipe(keys),
        }
    }

    /// Names that every config of the reference library knows, and the family's own for the same.
    pub(super) fn general_names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Family::Gpt2 => &[
                ("hidden_size", "n_embd"),
                ("max_position_embeddings", "n_positions"),
                ("num_attention_heads", "n_head"),
                ("num_hidden_layers", "n_layer"),
            ],
            Family::T5 => &[
                ("hidden_size", "d_model"),
                ("num_attention_heads", "num_heads"),
                ("num_hidden_layers", "num_layers"),
                ("head_dim", "d_kv"),
            ],
            _ => &[],
        }
    }

    /// Where the widths stand; none where one key stands for more than one width.
    pub(super) fn width_keys(self) -> Option<WidthKeys> {
        let usual = |head_dim| WidthKeys {
            heads: "num_attention_heads",
            kv_heads: Some("num_key_value_heads"),
            head_dim,
            intermediate: "intermediate_size",
        };
        match self {
            Family::Llama | Family::Mistral | Family::Gemma2 | Family::Nemotron => Some(usual(Some("head_dim"))),
            Family::Phi | Family::Phi3 => Some(usual(Some("head_dim"))),
            Family::Gpt2 => Some(WidthKeys { heads: "n_head", kv_heads: None, head_dim: None, intermediate: "n_inner" }),
            Family::T5 => Some(WidthKeys { heads: "num_heads", kv_heads: None, head_dim: None, intermediate: "d_ff" }),
        }
    }

    /// Where the width of the hidden states stands; none where the width of heads follows from it.
    pub(super) fn hidden_key(self) -> Option<&'static str> {
        match self {
            Family::Gpt2 => None,
            Family::T5 => Some("d_model"),
            _ => Some("hidden_size"),
        }
    }

    /// Where the ε of norms stands.
    pub(super) fn epsilon_key(self) -> &'static str {
        match self {
            Family::Phi => "layer_norm_eps",
            Family::Nemotron => "norm_eps",
            Family::Gpt2 | Family::T5 => "layer_norm_epsilon",
            _ => "rms_norm_eps",
        }
    }

    /// Where the number of blocks stands.
    pub(super) fn depth_key(self) -> Option<&'static str> {
        match self {
            Family::T5 => None,
            Family::Gpt2 => Some("n_layer"),
            _ => Some("num_hidden_layers"),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}
