//! Parts of a model out of named tensors.

use super::Config;
use super::architecture::{
    Architecture, BlockNames, BlockPlan, ExpertNames, Experts, ModelKind, QkvLayout, QueryKeyNorm, UpNames,
};
use super::tie::{self, Tie};
use crate::io::{self, Weights, quoted};
use crate::mask::Mask;
use crate::nn::{
    Attention, AttentionRule, Block, BlockFeed, FeedForward, Heads, Linear, Mixture, Norm, NormKind, QkvProjection, SharedExpert,
    UpProjection,
};
use crate::{Error, Result};
use ndarray::{Array1, Array2};
use std::cell::RefCell;
use std::collections::HashSet;

/// What may stand behind the hidden states of an encoder, or in the head of its first training; nothing here reads it.
const BEHIND: &[&str] = &["pooler.dense.", "cls.predictions.", "cls.seq_relationship."];

/// Reads tensors under the names of one file, and remembers which.
pub(super) struct Reader<'a> {
    weights: &'a dyn Weights,
    recipe: &'a Architecture,
    prefix: &'static str,
    read: RefCell<HashSet<String>>,
    /// Whether the experts of a mixture are read with their block; others have no features and give nothing.
    experts: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(weights: &'a dyn Weights, config: &'a Config) -> Self {
        let (recipe, names) = (config.recipe(), &config.recipe().names);
        // The embedding may stand under the name of the head, which never has a prefix; the first block tells then.
        let block = recipe
            .stacks
            .first()
            .map(|stack| format!("{}.0.{}", stack.path, stack.parts.norms().next().unwrap_or(stack.parts.output)));
        let known = |prefix: &str| {
            let mut parts = names.embedding.iter().copied().chain(block.as_deref());
            parts.any(|part| weights.contains(&format!("{prefix}{part}.weight")))
        };
        let bare = !known(names.prefix) && known(names.bare);
        let prefix = if bare { names.bare } else { names.prefix };
        Reader { weights, recipe, prefix, read: RefCell::new(HashSet::new()), experts: true }
    }

    /// Leaves experts of mixtures unread.
    pub(super) fn without_experts(self) -> Self {
        Reader { experts: false, ..self }
    }

    /// An expert of a block, by its number; none where the block has no experts.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape than the config says.
    pub(super) fn expert(&self, block: usize, number: usize) -> Result<Option<FeedForward>> {
        let (stack, place) = self.recipe.place(block);
        let Some((names, sizes)) = self.recipe.experts(block) else { return Ok(None) };
        let path = self.name(&format!("{}.{place}.{}.{number}.", stack.path, names.path));
        self.gated(&path, names.layers, sizes.intermediate).map(Some)
    }

    fn gated(&self, path: &str, [gate, up, down]: [&'static str; 3], width: usize) -> Result<FeedForward> {
        self.feed(path, (UpNames::Gated(gate, up), down), width)
    }

    /// Which tensors are embedding and head.
    ///
    /// # Errors
    /// If there are two embeddings that differ.
    pub(super) fn tie(&self) -> Result<Tie> {
        let tie = tie::find(|part| self.name(part), self.weights, self.recipe)?;
        self.read.borrow_mut().extend(tie.copies.iter().cloned());
        Ok(tie)
    }

    /// The name of a part outside the blocks.
    pub(super) fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefix)
    }

    fn take(&self, name: &str) -> Result<()> {
        if !self.weights.contains(name) {
            let names = self.weights.names();
            let near = match Error::unknown_layer(name, names.iter().map(String::as_str)) {
                Error::UnknownName { nearest: Some(near), .. } => format!("; the nearest is {}", quoted(&near)),
                _ => String::new(),
            };
            let reason = format!("tensor {} is missing among {}{near}", quoted(name), names.len());
            return Err(Error::invalid_option("weights", reason));
        }
        self.read.borrow_mut().insert(name.to_string());
        Ok(())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    pub(super) fn matrix(&self, name: &str, dim: (usize, usize)) -> Result<Array2<f32>> {
        self.take(name)?;
        let matrix = io::read_matrix(self.weights, name, dim)?;
        // Parts of a model are used as slices.
        Ok(if matrix.is_standard_layout() { matrix } else { matrix.as_standard_layout().into_owned() })
    }

    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Array1<f32>> {
        self.take(name)?;
        io::read_vector(self.weights, name, len)
    }

    pub(super) fn norm(&self, name: &str) -> Result<Norm> {
        let (recipe, n) = (self.recipe, self.recipe.hidden);
        let weight = self.vector(&format!("{name}.weight"), n)?;
        let bias = if recipe.norm_bias { Some(self.vector(&format!("{name}.bias"), n)?) } else { None };
        Ok(Norm::new(name, recipe.norm, weight, bias, recipe.epsilon).plus_one(recipe.plus_one))
    }

    /// A norm of queries or keys.
    fn query_key_norm(&self, name: &str, width: usize) -> Result<Norm> {
        let weight = self.vector(&format!("{name}.weight"), width)?;
        Ok(Norm::new(name, NormKind::Rms, weight, None, self.recipe.epsilon).plus_one(self.recipe.plus_one))
    }

    /// A linear layer `(out, in)`, turned if the file holds such weights `(in, out)`.
    pub(super) fn linear(&self, name: &str, (out, inputs): (usize, usize), bias: bool, transposed: bool) -> Result<Linear> {
        let tensor = format!("{name}.weight");
        let weight = if transposed {
            self.matrix(&tensor, (inputs, out))?.reversed_axes().as_standard_layout().into_owned()
        } else {
            self.matrix(&tensor, (out, inputs))?
        };
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), out)?) } else { None };
        let mut linear = Linear::new(name, weight, bias).held_transposed(transposed);
        if let Some(mask) = self.weights.mask(&tensor)? {
            let mask = if transposed { mask.transpose() } else { mask };
            keeps_all(&linear, &mask)?;
            linear.set_mask(Some(mask))?;
        }
        Ok(linear)
    }

    pub(super) fn block(&self, i: usize) -> Result<Block> {
        let (stack, place) = self.recipe.place(i);
        let (recipe, layer, parts) = (self.recipe, &self.recipe.layers[i], &stack.parts);
        let path = self.name(&format!("{}.{place}.", stack.path));
        let name = |part: &str| format!("{path}{part}");
        let attention = self.attention(&path, parts, layer)?;
        let cross = match parts.cross {
            None => None,
            Some([norm, q, k, v, output]) => {
                let rule = AttentionRule { causal: false, ..layer.rule };
                let apart = self.apart(&path, &[q, k, v], layer.heads, true)?;
                let output = self.output(&name(output), layer.heads)?;
                Some((self.norm(&name(norm))?, Attention::new(apart, output, layer.heads, rule)?))
            }
        };
        let optional = |part: Option<&str>| part.map(|part| self.norm(&name(part))).transpose();
        Ok(Block {
            residual: recipe.residual,
            norm: optional(parts.norm)?,
            attention,
            attention_after: optional(parts.attention_after)?,
            cross,
            feed_norm: optional(parts.feed_norm)?,
            feed: match (parts.experts, layer.experts) {
                (Some(names), Some(sizes)) => BlockFeed::Mixture(self.mixture(&path, names, sizes)?),
                _ => BlockFeed::Dense(self.feed(&path, (parts.opening, parts.down), layer.intermediate)?),
            },
            feed_after: optional(parts.feed_after)?,
        })
    }

    fn attention(&self, path: &str, parts: &BlockNames, layer: &BlockPlan) -> Result<Attention> {
        let BlockPlan { heads, rule, rotary, .. } = *layer;
        let (q, kv) = (heads.queries * heads.dim, heads.keys * heads.dim);
        let inputs = match parts.inputs {
            [all] => {
                let (bias, turned) = (self.recipe.attention_bias, self.recipe.transposed);
                let layer = self.linear(&format!("{path}{all}"), (q + 2 * kv, self.recipe.hidden), bias, turned)?;
                match self.recipe.qkv {
                    QkvLayout::Stacked => QkvProjection::Fused(layer.with_parts(&[("q", q), ("k", kv), ("v", kv)])),
                    QkvLayout::Grouped => QkvProjection::Grouped(layer),
                }
            }
            apart => self.apart(path, apart, heads, false)?,
        };
        let output = self.output(&format!("{path}{}", parts.output), heads)?;
        let attention = Attention::new(inputs, output, heads, rule)?.turned_by(rotary);
        let (Some(over), Some(names)) = (self.recipe.query_key, parts.query_key) else { return Ok(attention) };
        let [of_q, of_k] = match over {
            QueryKeyNorm::Head => [heads.dim; 2],
            QueryKeyNorm::All => [q, kv],
        };
        let [queries, keys] = names.map(|name| format!("{path}{name}"));
        attention.with_norms(self.query_key_norm(&queries, of_q)?, self.query_key_norm(&keys, of_k)?)
    }

    /// Queries, keys and values apart, which share an input unless keys and values read a memory.
    fn apart(&self, path: &str, names: &[&str], heads: Heads, memory: bool) -> Result<QkvProjection> {
        let [q, k, v] = [0, 1, 2].map(|i| format!("{path}{}", names[i]));
        let bias = self.recipe.attention_bias;
        let make = |name: &str, heads: usize, dim: usize, group: &str| {
            let layer = self.linear(name, (heads * dim, self.recipe.hidden), bias, self.recipe.transposed)?;
            Ok::<Linear, Error>(layer.in_group(group))
        };
        let group = if memory { &k } else { &q };
        let q = make(&q, heads.queries, heads.dim, &q)?;
        let (k, v) = (make(&k, heads.keys, heads.dim, group)?, make(&v, heads.keys, heads.dim, group)?);
        Ok(QkvProjection::Apart(Box::new([q, k, v])))
    }

    fn output(&self, name: &str, heads: Heads) -> Result<Linear> {
        let recipe = self.recipe;
        self.linear(name, (recipe.hidden, heads.queries * heads.dim), recipe.output_bias, recipe.transposed)
    }

    fn mixture(&self, path: &str, names: ExpertNames, sizes: Experts) -> Result<Mixture> {
        let hidden = self.recipe.hidden;
        let router = self.linear(&format!("{path}{}", names.router), (sizes.count, hidden), false, false)?;
        let each = |e: usize| {
            let path = format!("{path}{}.{e}.", names.path);
            if self.experts { self.gated(&path, names.layers, sizes.intermediate) } else { self.hollow(&path, names.layers) }
        };
        let experts = (0..sizes.count).map(each).collect::<Result<Vec<_>>>()?;
        let shared = match names.shared.zip(sizes.shared) {
            None => None,
            Some(((layers, gate), width)) => Some(SharedExpert {
                feed: self.gated(path, layers, width)?,
                gate: self.linear(&format!("{path}{gate}"), (1, hidden), false, false)?,
            }),
        };
        Mixture::new(router, experts, shared, sizes.active, sizes.normalised)
    }

    /// An expert without features.
    fn hollow(&self, path: &str, [gate, up, down]: [&'static str; 3]) -> Result<FeedForward> {
        let hidden = self.recipe.hidden;
        let empty = |part: &str, shape: (usize, usize)| Linear::new(format!("{path}{part}"), Array2::zeros(shape), None);
        let gate = empty(gate, (0, hidden));
        let up = empty(up, (0, hidden)).in_group(gate.name());
        FeedForward::new(UpProjection::Gated { up, gate }, empty(down, (hidden, 0)), self.recipe.activation)
    }

    fn feed(&self, path: &str, (opening, down): (UpNames, &str), width: usize) -> Result<FeedForward> {
        let recipe = self.recipe;
        let open = |part: &str, out: usize| {
            self.linear(&format!("{path}{part}"), (out, recipe.hidden), recipe.feed_bias, recipe.transposed)
        };
        let opening = match opening {
            UpNames::Plain(up) => UpProjection::Plain(open(up, width)?),
            UpNames::Gated(gate, up) => {
                let gate = open(gate, width)?;
                UpProjection::Gated { up: open(up, width)?.in_group(gate.name()), gate }
            }
            UpNames::Fused(both) => UpProjection::Fused(open(both, 2 * width)?.with_parts(&[("gate", width), ("up", width)])),
        };
        let down = format!("{path}{down}");
        let down = self.linear(&down, (recipe.hidden, width), recipe.feed_bias, recipe.transposed)?;
        FeedForward::new(opening, down, recipe.activation)
    }

    /// Refuses weights that have another number of blocks than the config says. Where whole halves of blocks are left out, numbers say nothing.
    pub(super) fn depth(&self) -> Result<()> {
        if self.recipe.layers.iter().any(|l| l.heads.queries == 0 || l.intermediate == 0) {
            return Ok(());
        }
        for stack in &self.recipe.stacks {
            let path = self.name(stack.path);
            let parts = [Some(stack.parts.output), Some(stack.parts.down), stack.parts.norms().next()];
            let there =
                |i: &usize| parts.iter().flatten().any(|part| self.weights.contains(&format!("{path}.{i}.{part}.weight")));
            let found = (0..).take_while(there).count();
            if found > 0 && found != stack.blocks && !(found..stack.blocks).any(|i| there(&i)) {
                let [first, last] = [0, found - 1].map(|i| quoted(&format!("{path}.{i}")));
                let reason = format!("have {found} blocks, {first} to {last}; the config says {}", stack.blocks);
                return Err(Error::invalid_option("weights", reason));
            }
        }
        Ok(())
    }

    /// Refuses tensors that nothing has read, apart from those that hold no weights of their own: masks and tables that some files
    /// keep. Second copies of the embedding count as read, and a tied head that is not read is passed over.
    pub(super) fn finish(self) -> Result<()> {
        let read = self.read.into_inner();
        let harmless = |name: &str| {
            let mask = name.strip_suffix(".mask").is_some_and(|of| read.contains(of));
            let table = [".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"];
            let head = self.recipe.tied && name.strip_suffix(".weight") == Some(self.recipe.names.head);
            let bias = self.recipe.relative.is_some() && name.ends_with("EncDecAttention.relative_attention_bias.weight");
            let kind = self.recipe.kind == ModelKind::Encoder;
            let behind = kind && [BEHIND, &["embeddings.position_ids"]].concat().iter().any(|part| name.contains(part));
            mask || head || bias || behind || table.iter().any(|end| name.ends_with(end))
        };
        let extra: Vec<String> = self.weights.names().into_iter().filter(|n| !read.contains(n) && !harmless(n)).collect();
        match extra.first() {
            None => Ok(()),
            Some(first) => {
                let reason = format!("tensor {} belongs to no part of the model ({} such)", quoted(first), extra.len());
                Err(Error::invalid_option("weights", reason))
            }
        }
    }
}

/// What a user should know of these weights: where their head is not the one that the config speaks of. Nothing is read, unless there are
/// two tensors that may be one.
///
/// # Errors
/// If the file has two embeddings that differ, or cannot be read.
pub fn remark(weights: &dyn Weights, config: &Config) -> Result<Option<String>> {
    Reader::new(weights, config).tie().map(|tie| tie.remark)
}

/// Refuses a mask that drops weights which are not 0: it is of other weights, and what is computed would depend on the storage.
fn keeps_all(layer: &Linear, mask: &Mask) -> Result<()> {
    let weight = layer.dense_weight();
    // Shapes are refused by what holds the mask.
    let lost = if mask.dim() == weight.dim() { mask.dropped_nonzeros(&weight) } else { 0 };
    if lost == 0 {
        return Ok(());
    }
    let reason =
        format!("{lost} weights that its mask drops are not 0; the masks are of other weights: remove them, or prune again");
    Err(Error::invalid_option("mask", reason).in_layer(layer.name()))
}
