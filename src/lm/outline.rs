//! [`Outline`]: the linear layers of a model by name, shape and input, without their weights.

use super::Config;
use super::architecture::{BlockNames, UpNames};
use super::load::Reader;
use crate::io::{Weights, quoted};
use crate::{Error, Result};
use serde::Serialize;

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Vectors of tokens, of positions, of distances.
    Embedding,
    /// Queries, keys, values and the output of attention.
    Attention,
    /// The feed-forward layers.
    FeedForward,
    /// What turns features into logits.
    Head,
    /// Scales and shifts of norms.
    Norm,
    /// Biases of linear layers.
    Bias,
    /// Anything else.
    Other,
}

/// One linear layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outlined {
    /// Its name, as [`Linear::name`](crate::nn::Linear::name).
    pub name: String,
    /// Its block, `None` for the head.
    pub block: Option<usize>,
    /// Attention, feed-forward or head.
    pub kind: Kind,
    /// `(out, in)`.
    pub shape: (usize, usize),
    /// The name of the first layer that reads the same input.
    pub group: String,
    /// Whether the checkpoint holds the weight `(in, out)`.
    pub transposed: bool,
}

impl Outlined {
    /// The name of the weight's tensor.
    pub fn tensor(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// The shape of the tensor in the checkpoint.
    pub fn stored_shape(&self) -> [usize; 2] {
        if self.transposed { [self.shape.1, self.shape.0] } else { [self.shape.0, self.shape.1] }
    }
}

/// The linear layers of a model in the order in which they run, the head last, and the name of its embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The layers; a tied head is not among them.
    pub layers: Vec<Outlined>,
    /// The tensor of the token embedding.
    pub embedding: String,
    /// Whether the head is the embedding. The file decides: it may hold a head of its own although the config ties it.
    pub tied: bool,
    /// Tensors that hold the embedding over again: under another name of it, or as the head that is tied to it.
    pub copies: Vec<String>,
    /// Tensors of the layers that choose among experts.
    pub routers: Vec<String>,
}

impl Outline {
    /// The outline of a model under the names of these weights (files of the bare model leave a prefix out).
    ///
    /// # Errors
    /// If a linear layer's tensor is missing or has another shape than the config says, or there is another number of blocks; the error names it. No numbers are
    /// read, unless there are two tensors that may be one: an embedding and a head that the config ties.
    pub fn of(weights: &dyn Weights, config: &Config) -> Result<Outline> {
        let (reader, recipe) = (Reader::new(weights, config), config.recipe());
        reader.depth()?;
        let (mut layers, mut routers) = (Vec::new(), Vec::new());
        for i in 0..config.layers() {
            let (stack, place) = recipe.place(i);
            let path = reader.name(&format!("{}.{place}.", stack.path));
            block(config, i, &stack.parts, &path, &mut layers);
            if let Some((names, sizes)) = recipe.experts(i) {
                let shared = names.shared.filter(|_| sizes.shared.is_some()).map(|(_, gate)| gate);
                routers.extend([Some(names.router), shared].into_iter().flatten().map(|part| format!("{path}{part}.weight")));
            }
        }
        let tie = reader.tie()?;
        let (head, shape) = (recipe.names.head.to_string(), (recipe.vocab, recipe.embedding_features()));
        if !tie.tied {
            let group = head.clone();
            layers.push(Outlined { name: head, block: None, kind: Kind::Head, shape, group, transposed: false });
        }
        let embedding = format!("{}.weight", tie.embedding);
        let tensors = layers.iter().map(|l| (l.tensor(), l.stored_shape()));
        for (tensor, wanted) in tensors.chain([(embedding.clone(), [shape.0, shape.1])]) {
            if !weights.contains(&tensor) {
                return Err(Error::invalid_option("weights", format!("tensor {} is missing", quoted(&tensor))));
            }
            let found = weights.shape(&tensor)?;
            if found != wanted {
                return Err(Error::shape(format!("tensor {}", quoted(&tensor)), &wanted, &found));
            }
        }
        Ok(Outline { layers, embedding, tied: tie.tied, copies: tie.copies, routers })
    }

    /// What a tensor of the model is for.
    pub fn kind(&self, tensor: &str, rank: usize) -> Kind {
        if tensor == self.embedding || tensor.contains("relative_attention_bias") {
            return Kind::Embedding;
        }
        if self.routers.iter().any(|router| router == tensor) {
            return Kind::Other;
        }
        match tensor.rsplit_once('.') {
            Some((name, "weight")) if rank == 2 => {
                self.layers.iter().find(|l| l.name == name).map_or(Kind::Embedding, |layer| layer.kind)
            }
            Some((name, "bias")) if self.layers.iter().any(|l| l.name == name) => Kind::Bias,
            Some((_, "weight" | "bias")) if rank == 1 => Kind::Norm,
            _ => Kind::Other,
        }
    }
}

/// The layers of one block.
pub(super) fn block(config: &Config, i: usize, parts: &BlockNames, path: &str, layers: &mut Vec<Outlined>) {
    let (recipe, widths) = (config.recipe(), config.widths(i));
    let (q, kv, hidden) = (widths.heads * widths.head_dim, widths.kv_heads * widths.head_dim, config.hidden());
    let mut push = |kind, part: &str, shape: (usize, usize), group: &str| {
        let (name, group) = (format!("{path}{part}"), format!("{path}{group}"));
        layers.push(Outlined { name, block: Some(i), kind, shape, group, transposed: recipe.transposed });
    };
    match parts.inputs {
        [all] => push(Kind::Attention, all, (q + 2 * kv, hidden), all),
        apart => {
            for (part, out) in apart.iter().zip([q, kv, kv]) {
                push(Kind::Attention, part, (out, hidden), apart[0]);
            }
        }
    }
    push(Kind::Attention, parts.output, (hidden, q), parts.output);
    if let Some([_, query, key, value, output]) = parts.cross {
        push(Kind::Attention, query, (q, hidden), query);
        push(Kind::Attention, key, (kv, hidden), key);
        push(Kind::Attention, value, (kv, hidden), key);
        push(Kind::Attention, output, (hidden, q), output);
    }
    if let Some((names, sizes)) = recipe.experts(i) {
        let mut expert = |path: &str, [gate, up, down]: [&str; 3], width: usize| {
            let [gate, up, down] = [gate, up, down].map(|part| format!("{path}{part}"));
            push(Kind::FeedForward, &gate, (width, hidden), &gate);
            push(Kind::FeedForward, &up, (width, hidden), &gate);
            push(Kind::FeedForward, &down, (hidden, width), &down);
        };
        (0..sizes.count).for_each(|e| expert(&format!("{}.{e}.", names.path), names.layers, sizes.intermediate));
        if let Some(((layers, _), width)) = names.shared.zip(sizes.shared) {
            expert("", layers, width);
        }
        return;
    }
    let width = widths.intermediate;
    match parts.opening {
        UpNames::Plain(up) => push(Kind::FeedForward, up, (width, hidden), up),
        UpNames::Fused(both) => push(Kind::FeedForward, both, (2 * width, hidden), both),
        UpNames::Gated(gate, up) => {
            push(Kind::FeedForward, gate, (width, hidden), gate);
            push(Kind::FeedForward, up, (width, hidden), gate);
        }
    }
    push(Kind::FeedForward, parts.down, (hidden, width), parts.down);
}
