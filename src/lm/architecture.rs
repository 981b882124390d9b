//! What a family says of itself: the parts of its blocks, and the names of their tensors.

use super::defaults::Defaults;
use super::keys::{Keys, setting};
use super::rope;
use crate::Result;
use crate::nn::{Activation, AttentionRule, Heads, NormKind, Rotary};

/// Everything that building a model of a family needs, beside the weights.
#[derive(Debug, Clone)]
pub(super) struct Architecture {
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    /// Whether the config says that the head is the embedding.
    pub(super) tied: bool,
    /// Whether a head in the file is the model's own whatever the config says, and the embedding is where there is none.
    pub(super) own_head: bool,
    pub(super) head_bias: bool,
    /// Factor of what the embedding gives.
    pub(super) embedding_scale: f32,
    /// Factor of what goes into the head.
    pub(super) head_scale: f32,
    /// Soft cap of the logits.
    pub(super) logit_cap: Option<f32>,
    /// Number of learned positions.
    pub(super) positions: Option<usize>,
    pub(super) rotary: Option<Rotary>,
    pub(super) relative: Option<Relative>,
    pub(super) norm: NormKind,
    pub(super) norm_bias: bool,
    /// Whether norms multiply by `1 + w`.
    pub(super) plus_one: bool,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
    pub(super) attention_bias: bool,
    pub(super) output_bias: bool,
    pub(super) feed_bias: bool,
    /// Whether linear weights are `(in, out)` in the file.
    pub(super) transposed: bool,
    pub(super) layers: Vec<Layer>,
    pub(super) names: Names,
    /// One, or that of the encoder and that of the decoder.
    pub(super) stacks: Vec<Stack>,
}

/// One block.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) heads: Heads,
    pub(super) rule: AttentionRule,
    pub(super) intermediate: usize,
}

/// Relative positions, as T5 has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relative {
    pub(super) buckets: usize,
    pub(super) farthest: usize,
}

/// Tensors outside the blocks.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// What stands before every name but the head's; files of the bare model leave it out.
    pub(super) prefix: &'static str,
    /// The first of these that is there; others are the same over again.
    pub(super) embedding: &'static [&'static str],
    pub(super) positions: &'static str,
    pub(super) head: &'static str,
}

/// A run of blocks.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    pub(super) blocks: usize,
    /// What stands before a block's number.
    pub(super) path: &'static str,
    pub(super) final_norm: &'static str,
    pub(super) parts: Parts,
}

/// Names within a block.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) norm: &'static str,
    /// Of q, k and v; or of the one layer that is all three.
    pub(super) inputs: &'static [&'static str],
    pub(super) output: &'static str,
    pub(super) attention_after: Option<&'static str>,
    /// Norm, q, k, v and output of attention to a memory.
    pub(super) cross: Option<[&'static str; 5]>,
    /// None where the feed-forward layers run beside attention.
    pub(super) feed_norm: Option<&'static str>,
    pub(super) opening: UpNames,
    pub(super) down: &'static str,
    pub(super) feed_after: Option<&'static str>,
}

/// The first feed-forward layers.
#[derive(Debug, Clone, Copy)]
pub(super) enum UpNames {
    Plain(&'static str),
    Gated(&'static str, &'static str),
    Fused(&'static str),
}

/// The names of Llama's block, which others share.
pub(super) const USUAL: Parts = Parts {
    norm: "input_layernorm",
    inputs: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    output: "self_attn.o_proj",
    attention_after: None,
    cross: None,
    feed_norm: Some("post_attention_layernorm"),
    opening: UpNames::Gated("mlp.gate_proj", "mlp.up_proj"),
    down: "mlp.down_proj",
    feed_after: None,
};

impl Architecture {
    /// A decoder whose config has the usual keys, with Llama's blocks: what other families start from.
    pub(super) fn usual(keys: Keys<'_>, defaults: Defaults) -> Result<Architecture> {
        let hidden = keys.size("hidden_size")?;
        let queries = keys.size("num_attention_heads")?;
        // Absent is the family's own number, null one for each head of queries.
        let kv = match defaults.kv_heads.filter(|_| !keys.0.contains_key("num_key_value_heads")) {
            Some(kv) => kv,
            None => keys.size_or("num_key_value_heads", queries)?,
        };
        let dim = match (keys.get("head_dim"), defaults.head_dim) {
            (Some(_), _) => keys.size("head_dim")?,
            (None, Some(dim)) => dim,
            (None, None) => share(hidden, queries, "num_attention_heads")?,
        };
        let rule = AttentionRule { scale: (dim as f32).powf(-0.5), cap: None, window: None, causal: true };
        let heads = Heads { queries, keys: kv, dim };
        let blocks = keys.blocks("num_hidden_layers")?;
        let layer = Layer { heads, rule, intermediate: keys.size("intermediate_size")? };
        Ok(Architecture {
            vocab: keys.size("vocab_size")?,
            hidden,
            tied: keys.flag("tie_word_embeddings", defaults.tied)?,
            own_head: false,
            head_bias: false,
            embedding_scale: 1.0,
            head_scale: 1.0,
            logit_cap: None,
            positions: None,
            rotary: Some(rope::rotary(keys, dim, &defaults)?),
            relative: None,
            norm: NormKind::Rms,
            norm_bias: false,
            plus_one: false,
            epsilon: keys.epsilon(defaults.epsilon.0, defaults.epsilon.1)?,
            activation: activation(keys, defaults.activation.0, defaults.activation.1)?,
            attention_bias: false,
            output_bias: false,
            feed_bias: false,
            transposed: false,
            layers: vec![layer; blocks],
            names: Names { prefix: "model.", embedding: &["embed_tokens"], positions: "", head: "lm_head" },
            stacks: vec![Stack { blocks, path: "layers", final_norm: "norm", parts: USUAL }],
        })
    }

    /// Refuses what contradicts itself.
    pub(super) fn check(&self) -> Result<()> {
        for (i, Layer { heads, .. }) in self.layers.iter().enumerate() {
            if heads.queries % heads.keys != 0 {
                let reason = format!("block {i}: {} heads do not share {} key-value heads evenly", heads.queries, heads.keys);
                return Err(setting("num_key_value_heads", reason));
            }
        }
        Ok(())
    }

    /// The stack of a block, and its number there.
    pub(super) fn place(&self, block: usize) -> (&Stack, usize) {
        let mut left = block;
        for stack in &self.stacks {
            if left < stack.blocks {
                return (stack, left);
            }
            left -= stack.blocks;
        }
        panic!("block {block} of {}", self.layers.len())
    }
}

/// An even share.
pub(super) fn share(hidden: usize, heads: usize, key: &str) -> Result<usize> {
    if hidden % heads == 0 {
        Ok(hidden / heads)
    } else {
        Err(setting(key, format!("{heads} does not divide the hidden size {hidden}")))
    }
}

/// The activation under a key.
pub(super) fn activation(keys: Keys<'_>, key: &str, default: &str) -> Result<Activation> {
    let known = [
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
        ("relu2", Activation::SquaredRelu),
    ];
    let name = keys.get(key).map_or(Ok(default), |_| keys.text(key, ""))?;
    known.iter().find(|(known, _)| *known == name).map(|(_, a)| *a).ok_or_else(|| {
        let known: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        setting(key, format!("{} is none of {}", crate::io::quoted(name), known.join(", ")))
    })
}
