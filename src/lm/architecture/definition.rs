//! [`Definition`]: a family as a value.

use super::keys::Keys;
use super::parts::Architecture;
use crate::Result;

/// The keys under which a family keeps the widths of all its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WidthKeys {
    /// Heads of queries.
    pub heads: &'static str,
    /// Heads of keys and values; none where there are as many as of queries.
    pub kv_heads: Option<&'static str>,
    /// Features of a head; none where they follow from the hidden size.
    pub head_dim: Option<&'static str>,
    /// Features between the feed-forward layers.
    pub intermediate: &'static str,
}

/// A list of a config with an entry for each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockList {
    /// `layer_types`: which blocks see a window.
    Windows,
    /// `no_rope_layers`: 1 where positions are rotary, 0 where there are none.
    Rotary,
    /// `mlp_only_layers`: the numbers of blocks without experts; `decoder_sparse_step` beside it is 1 once the list is written.
    Dense,
}

impl BlockList {
    /// Its key.
    pub fn key(self) -> &'static str {
        match self {
            BlockList::Windows => "layer_types",
            BlockList::Rotary => "no_rope_layers",
            BlockList::Dense => "mlp_only_layers",
        }
    }
}

/// A family of language models: its `model_type`, its keys, and its architecture out of them.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// The `model_type` of its configs.
    pub model_type: &'static str,
    /// What it is known as.
    pub about: &'static str,
    /// Makes the architecture out of the keys of a config.
    pub architecture: fn(Keys<'_>) -> Result<Architecture>,
    /// Names that every config of the reference library knows, and the family's own for the same.
    pub general_names: &'static [(&'static str, &'static str)],
    /// Where the widths stand; none where one key stands for more than one width.
    pub widths: Option<WidthKeys>,
    /// Where the width of the hidden states stands; none where the width of heads follows from it.
    pub hidden: Option<&'static str>,
    /// Where the ε of norms stands.
    pub epsilon: &'static str,
    /// Where the number of blocks stands; none where it cannot change.
    pub depth: Option<&'static str>,
    /// Where the number of experts stands, and of those that a token meets.
    pub experts: Option<[&'static str; 2]>,
    /// Lists with an entry a block that a config may leave out, and that are written once blocks are taken away.
    pub lists: &'static [BlockList],
}

impl Definition {
    /// The keys of Llama's configs, which others share. The name and the architecture are to be given.
    pub const USUAL: Definition = Definition {
        model_type: "",
        about: "",
        architecture: |keys| Architecture::usual(keys, super::LLAMA),
        general_names: &[],
        widths: Some(WidthKeys {
            heads: "num_attention_heads",
            kv_heads: Some("num_key_value_heads"),
            head_dim: Some("head_dim"),
            intermediate: "intermediate_size",
        }),
        hidden: Some("hidden_size"),
        epsilon: "rms_norm_eps",
        depth: Some("num_hidden_layers"),
        experts: None,
        lists: &[],
    };

    /// Llama's keys where the reference library takes the width of heads from the hidden size alone, so that neither can change by itself.
    pub const HEADS_FROM_HIDDEN: Definition = Definition {
        widths: Some(WidthKeys {
            heads: "num_attention_heads",
            kv_heads: Some("num_key_value_heads"),
            head_dim: None,
            intermediate: "intermediate_size",
        }),
        hidden: None,
        ..Definition::USUAL
    };
}
