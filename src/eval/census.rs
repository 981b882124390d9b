//! What a checkpoint holds: parameters by kind, bytes, and what of it is zero or masked.

use crate::io::Folder;
use crate::lm::{Config, Kind, Outline};
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// One tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Counted {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Its element type, as the file writes it.
    pub dtype: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub numbers: usize,
    /// Those that its mask keeps or, without a mask, are not 0; `None` if they were not counted, or their type does not say.
    pub kept: Option<usize>,
    /// How that is known: `mask` or `zeros`.
    pub by: Option<&'static str>,
    /// Bytes in the file.
    pub bytes: u64,
    /// What it is if its numbers are no parameters: a buffer, integers. Those are in no sum but [`Census::buffers`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aside: Option<&'static str>,
}

/// Numbers of some tensors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Sum {
    /// Numbers.
    pub numbers: usize,
    /// Those that are kept; `None` if they were not counted.
    pub kept: Option<usize>,
    /// Bytes in the file.
    pub bytes: u64,
}

impl Sum {
    fn of<'a>(tensors: impl Iterator<Item = &'a Counted>) -> Sum {
        Sum::all(tensors.map(|t| Sum { numbers: t.numbers, kept: t.kept, bytes: t.bytes }))
    }

    /// Sums together; what is kept is known if it is of all.
    pub(super) fn all(sums: impl Iterator<Item = Sum>) -> Sum {
        sums.fold(Sum { kept: Some(0), ..Sum::default() }, |s, t| Sum {
            numbers: s.numbers + t.numbers,
            kept: s.kept.zip(t.kept).map(|(a, b)| a + b),
            bytes: s.bytes + t.bytes,
        })
    }

    /// Share that went; `None` if it was not counted, or there are no numbers.
    pub fn sparsity(&self) -> Option<f64> {
        self.kept.and_then(|kept| sparsity(kept, self.numbers))
    }
}

/// Share that went where `kept` of so many numbers stay; `None` of none at all.
pub fn sparsity(kept: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| 1.0 - kept as f64 / of as f64)
}

/// A checkpoint, counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Census {
    /// The tensors, in the order of the files.
    pub tensors: Vec<Counted>,
    /// The linear layers.
    pub outline: Outline,
}

impl Census {
    /// Counts a folder. With `count` every number is looked at, a part at a time (masks are counted instead where there are
    /// some); without it no numbers are read.
    ///
    /// # Errors
    /// As [`Outline::of`] and [`Folder::stream`].
    pub fn of(folder: &Folder, config: &Config, count: bool) -> Result<Census> {
        let outline = Outline::of(folder, config).map_err(|e| Error::malformed(folder.path(), e.to_string()))?;
        let mut tensors = Vec::new();
        for name in folder.names() {
            let info = folder.info(name)?;
            let (kind, numbers) = (outline.kind(name, info.shape.len()), info.elements());
            let aside = match kind {
                _ if outline.copies.iter().any(|copy| copy == name) => Some("the embedding over again"),
                Kind::Other => folder.set_aside(name, count)?,
                _ => None,
            };
            let mask = if count { folder.kept(name)? } else { None };
            let by = if mask.is_some() { "mask" } else { "zeros" };
            let kept = if count && mask.is_none() && aside.is_none() { folder.filled(name)? } else { mask };
            tensors.push(Counted {
                name: info.name,
                kind,
                dtype: info.dtype,
                shape: info.shape,
                numbers,
                kept,
                by: kept.map(|_| by),
                bytes: info.bytes,
                aside,
            });
        }
        Ok(Census { tensors, outline })
    }

    /// All parameters.
    pub fn whole(&self) -> Sum {
        Sum::of(self.parameters())
    }

    /// The tensors whose numbers are parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &Counted> {
        self.tensors.iter().filter(|t| t.aside.is_none())
    }

    /// What is no parameter: causal masks, frequencies, integers.
    pub fn buffers(&self) -> Sum {
        Sum::of(self.tensors.iter().filter(|t| t.aside.is_some()))
    }

    /// The weights of linear layers inside blocks: what is pruned unless more is named.
    pub fn prunable(&self) -> Sum {
        Sum::of(self.tensors.iter().filter(|t| matches!(t.kind, Kind::Attention | Kind::FeedForward)))
    }

    /// By kind.
    pub fn kinds(&self) -> BTreeMap<Kind, Sum> {
        let mut kinds: BTreeMap<Kind, Vec<&Counted>> = BTreeMap::new();
        self.parameters().for_each(|t| kinds.entry(t.kind).or_default().push(t));
        kinds.into_iter().map(|(kind, tensors)| (kind, Sum::of(tensors.into_iter()))).collect()
    }

    /// The weights of the linear layers of each block.
    pub fn blocks(&self) -> Vec<Sum> {
        let by_name: BTreeMap<&str, &Counted> = self.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
        let last = self.outline.layers.iter().filter_map(|l| l.block).max().map_or(0, |b| b + 1);
        let block = |b: usize| {
            let layers = self.outline.layers.iter().filter(|l| l.block == Some(b));
            let names: Vec<String> = layers.map(|l| l.tensor()).collect();
            Sum::of(names.iter().filter_map(|name| by_name.get(name.as_str()).copied()))
        };
        (0..last).map(block).collect()
    }

    /// FLOPs of the linear layers and the head for one token, two a weight: of all weights, and of those that are kept.
    pub fn flops(&self) -> (usize, Option<usize>) {
        let used = self.tensors.iter().filter(|t| {
            matches!(t.kind, Kind::Attention | Kind::FeedForward | Kind::Head)
                || self.outline.tied && t.name == self.outline.embedding
        });
        let sum = Sum::of(used);
        (2 * sum.numbers, sum.kept.map(|kept| 2 * kept))
    }
}

/// FLOPs that attention's scores and sums take for one token that sees `context` tokens: 4 a feature of the heads and token.
pub fn attention_flops(config: &Config, context: usize) -> usize {
    (0..config.layers()).map(|i| config.widths(i)).map(|w| 4 * w.heads * w.head_dim * context).sum()
}
