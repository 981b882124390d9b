//! What a family says of itself: the parts of its blocks, and the names of their tensors.

use super::defaults::Defaults;
use super::keys::{Keys, setting};
use super::rope;
use crate::Result;
use crate::nn::{Activation, AttentionRule, Heads, NormKind, Residual, Rotary};

/// Everything that building a model of a family needs, beside the weights.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// What kind of model it is.
    pub kind: ModelKind,
    /// Number of tokens that the model knows.
    pub vocab: usize,
    /// Features of the hidden states.
    pub hidden: usize,
    /// Features of the embedding, where a layer makes hidden states of them and another what the head reads; those of the hidden states if
    /// there is none.
    pub embedding_width: Option<usize>,
    /// Whether the config says that the head is the embedding.
    pub tied: bool,
    /// Whether a head in the file is the model's own whatever the config says, and the embedding is where there is none.
    pub own_head: bool,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Factor of what the embedding gives.
    pub embedding_scale: f32,
    /// Factor of what goes into the head.
    pub head_scale: f32,
    /// Soft cap of the logits.
    pub logit_cap: Option<f32>,
    /// Learned positions.
    pub positions: Option<LearnedPositions>,
    /// Kinds of tokens, of which all have the first.
    pub token_types: Option<usize>,
    /// Rotary positions; a block names one of these or none.
    pub rotaries: Vec<Rotary>,
    /// Relative positions.
    pub relative: Option<Relative>,
    /// Whether scores fall with the distance, by a slope for each head (ALiBi, Press et al., arXiv:2108.12409).
    pub alibi: bool,
    /// What norms take out.
    pub norm: NormKind,
    /// Whether norms have biases.
    pub norm_bias: bool,
    /// Whether norms multiply by `1 + w`.
    pub plus_one: bool,
    /// What norms add below the root.
    pub epsilon: f32,
    /// Norms of queries and keys, root mean squares without bias; their names stand in [`BlockNames::query_key`].
    pub query_key: Option<QueryKeyNorm>,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether attention's output has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward layers have biases.
    pub feed_bias: bool,
    /// Whether linear weights are `(in, out)` in the file.
    pub transposed: bool,
    /// How the rows stand of a layer that makes queries, keys and values.
    pub qkv: QkvLayout,
    /// How the outputs of a block's parts join the hidden states; of norms behind the sums, [`BlockNames::attention_after`] and [`BlockNames::feed_after`].
    pub residual: Residual,
    /// The blocks in their order.
    pub layers: Vec<BlockPlan>,
    /// Tensors outside the blocks.
    pub names: Names,
    /// One, or that of the encoder and that of the decoder.
    pub stacks: Vec<Stack>,
}

/// What reads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// One stack; a token sees those before it.
    Decoder,
    /// Two stacks: the first reads one text, the second writes another.
    EncoderDecoder,
    /// One stack; a token sees all others, and hidden states are what it is for.
    Encoder,
}

/// What a norm of queries and keys runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// Each head for itself, all with the same weight.
    Head,
    /// All heads together, a weight for each feature of each head.
    All,
}

/// How the rows of one layer stand that makes queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkvLayout {
    /// All queries, all keys, all values.
    Stacked,
    /// Group by group of keys and values: its queries, its key, its value.
    Grouped,
}

/// One block.
#[derive(Debug, Clone)]
pub struct BlockPlan {
    /// Heads of attention.
    pub heads: Heads,
    /// Who sees whom.
    pub rule: AttentionRule,
    /// Which of [`Architecture::rotaries`]; none where positions are not rotary.
    pub rotary: Option<usize>,
    /// Features between the feed-forward layers.
    pub intermediate: usize,
    /// Experts in the place of the feed-forward layers.
    pub experts: Option<Experts>,
}

/// The experts of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many a token meets.
    pub active: usize,
    /// Features between the layers of each.
    pub intermediate: usize,
    /// Whether the weights of those that a token meets are divided by their sum.
    pub normalised: bool,
    /// Features between the layers of the expert that all tokens meet, if there is one.
    pub shared: Option<usize>,
}

/// Names of experts within a block.
#[derive(Debug, Clone, Copy)]
pub struct ExpertNames {
    /// The layer that chooses.
    pub router: &'static str,
    /// What stands before an expert's number.
    pub path: &'static str,
    /// The gate, its partner and the last layer of each, behind its number.
    pub layers: [&'static str; 3],
    /// Those of the expert that all tokens meet, and the layer that says how much.
    pub shared: Option<([&'static str; 3], &'static str)>,
}

/// A table of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedPositions {
    /// How many there are.
    pub count: usize,
    /// Rows of the table before the first.
    pub offset: usize,
}

/// Relative positions, as T5 has them.
#[derive(Debug, Clone, Copy)]
pub struct Relative {
    /// Numbers of each head.
    pub buckets: usize,
    /// Distances from which on all share one.
    pub farthest: usize,
}

/// Tensors outside the blocks.
#[derive(Debug, Clone)]
pub struct Names {
    /// What stands before every name but the head's.
    pub prefix: &'static str,
    /// What stands there in files of the bare model.
    pub bare: &'static str,
    /// The first of these that is there; others are the same over again.
    pub embedding: &'static [&'static str],
    /// The norm behind the embedding, if there is one.
    pub embedding_norm: Option<&'static str>,
    /// The table of positions.
    pub positions: &'static str,
    /// The table of kinds of tokens.
    pub token_types: &'static str,
    /// What makes hidden states of the embedding, and what the head reads of hidden states; where [`Architecture::embedding_width`] is given.
    pub projections: [&'static str; 2],
    /// The head.
    pub head: &'static str,
}

/// A run of blocks.
#[derive(Debug, Clone)]
pub struct Stack {
    /// How many.
    pub blocks: usize,
    /// What stands before a block's number.
    pub path: &'static str,
    /// The norm behind the last block, if there is one.
    pub final_norm: Option<&'static str>,
    /// Names within a block.
    pub parts: BlockNames,
}

/// Names within a block.
#[derive(Debug, Clone, Copy)]
pub struct BlockNames {
    /// Before attention.
    pub norm: Option<&'static str>,
    /// Of q, k and v; or of the one layer that is all three.
    pub inputs: &'static [&'static str],
    /// Norms of queries and of keys.
    pub query_key: Option<[&'static str; 2]>,
    /// Attention's last layer.
    pub output: &'static str,
    /// The norm behind attention.
    pub attention_after: Option<&'static str>,
    /// Norm, q, k, v and output of attention to a memory.
    pub cross: Option<[&'static str; 5]>,
    /// Before the feed-forward layers.
    pub feed_norm: Option<&'static str>,
    /// The first feed-forward layers.
    pub opening: UpNames,
    /// The last.
    pub down: &'static str,
    /// The norm behind the feed-forward layers.
    pub feed_after: Option<&'static str>,
    /// Experts, in blocks that have some.
    pub experts: Option<ExpertNames>,
}

impl BlockNames {
    /// The norms of hidden features, in the order in which they run.
    pub(crate) fn norms(&self) -> impl Iterator<Item = &'static str> {
        let cross = self.cross.map(|cross| cross[0]);
        [self.norm, self.attention_after, cross, self.feed_norm, self.feed_after].into_iter().flatten()
    }
}

/// The first feed-forward layers.
#[derive(Debug, Clone, Copy)]
pub enum UpNames {
    /// One.
    Plain(&'static str),
    /// The gate and its partner.
    Gated(&'static str, &'static str),
    /// Both in the rows of one layer, the gate first.
    Fused(&'static str),
}

/// The names of Llama's block, which others share.
pub const USUAL: BlockNames = BlockNames {
    norm: Some("input_layernorm"),
    inputs: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    query_key: None,
    output: "self_attn.o_proj",
    attention_after: None,
    cross: None,
    feed_norm: Some("post_attention_layernorm"),
    opening: UpNames::Gated("mlp.gate_proj", "mlp.up_proj"),
    down: "mlp.down_proj",
    feed_after: None,
    experts: None,
};

impl Names {
    /// Those of Llama.
    pub const USUAL: Names = Names {
        prefix: "model.",
        bare: "",
        embedding: &["embed_tokens"],
        embedding_norm: None,
        positions: "",
        token_types: "",
        projections: ["", ""],
        head: "lm_head",
    };
}

impl Architecture {
    /// A decoder whose config has the usual keys, with Llama's blocks: what other families start from.
    ///
    /// # Errors
    /// If a key is missing, of another type, or contradicts another one.
    pub fn usual(keys: Keys<'_>, defaults: Defaults) -> Result<Architecture> {
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
        let layer = BlockPlan {
            heads,
            rule,
            rotary: defaults.turned.then_some(0),
            intermediate: keys.size("intermediate_size")?,
            experts: None,
        };
        Ok(Architecture {
            kind: ModelKind::Decoder,
            vocab: keys.size("vocab_size")?,
            hidden,
            embedding_width: None,
            tied: keys.flag("tie_word_embeddings", defaults.tied)?,
            own_head: false,
            head_bias: false,
            embedding_scale: 1.0,
            head_scale: 1.0,
            logit_cap: None,
            positions: None,
            token_types: None,
            rotaries: if defaults.turned { vec![rope::rotary(keys, dim, &defaults)?] } else { Vec::new() },
            relative: None,
            alibi: false,
            norm: NormKind::Rms,
            norm_bias: false,
            plus_one: false,
            epsilon: keys.epsilon(defaults.epsilon.0, defaults.epsilon.1)?,
            query_key: None,
            activation: activation(keys, defaults.activation.0, defaults.activation.1)?,
            attention_bias: false,
            output_bias: false,
            feed_bias: false,
            transposed: false,
            qkv: QkvLayout::Stacked,
            residual: Residual::InTurn,
            layers: vec![layer; blocks],
            names: Names::USUAL,
            stacks: vec![Stack { blocks, path: "layers", final_norm: Some("norm"), parts: USUAL }],
        })
    }

    /// Features of the embedding.
    pub(crate) fn embedding_features(&self) -> usize {
        self.embedding_width.unwrap_or(self.hidden)
    }

    /// Refuses what contradicts itself.
    pub(crate) fn check(&self) -> Result<()> {
        for (i, BlockPlan { heads, experts, .. }) in self.layers.iter().enumerate() {
            if !heads.fit() {
                let reason = format!("block {i}: {} heads do not share {} key-value heads evenly", heads.queries, heads.keys);
                return Err(setting("num_key_value_heads", reason));
            }
            if let Some(experts) = experts.filter(|e| e.active > e.count) {
                let reason = format!("block {i}: a token meets {} of {} experts", experts.active, experts.count);
                return Err(setting("num_experts_per_tok", reason));
            }
            let of = self.layers.iter().map(|layer| layer.heads.queries).find(|n| *n > 0).unwrap_or(0);
            if self.alibi && heads.queries > 0 && heads.queries != of {
                let reason =
                    format!("block {i}: {} heads of {of}; slopes of scores follow from the number of heads", heads.queries);
                return Err(setting("layer_widths", reason));
            }
        }
        Ok(())
    }

    /// The names of a block's experts and their sizes, if it has some.
    pub(crate) fn experts(&self, block: usize) -> Option<(ExpertNames, Experts)> {
        self.place(block).0.parts.experts.zip(self.layers[block].experts)
    }

    /// The stack of a block, and its number there.
    pub(crate) fn place(&self, block: usize) -> (&Stack, usize) {
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

/// An even share of `hidden` features for each of `heads`, whose number stands under `key`.
///
/// # Errors
/// If there is a remainder.
pub fn share(hidden: usize, heads: usize, key: &str) -> Result<usize> {
    if hidden % heads == 0 {
        Ok(hidden / heads)
    } else {
        Err(setting(key, format!("{heads} does not divide the hidden size {hidden}")))
    }
}

/// The activation under a key.
///
/// # Errors
/// If the key is no text or the activation is not known; the error lists those that are.
pub fn activation(keys: Keys<'_>, key: &str, default: &str) -> Result<Activation> {
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
