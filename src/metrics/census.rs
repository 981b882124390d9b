//! What a checkpoint holds: parameters by kind, bytes, and what of it is zero or masked.

use crate::io::Folder;
use crate::models::lm::{Config, Kind, Outline};
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
    /// Those that its mask keeps or, without a mask, are not 0; `None` if they were not counted.
    pub kept: Option<usize>,
    /// How that is known: `mask` or `zeros`.
    pub by: Option<&'static str>,
    /// Bytes in the file.
    pub bytes: u64,
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
        tensors.fold(Sum { kept: Some(0), ..Sum::default() }, |s, t| Sum {
            numbers: s.numbers + t.numbers,
            kept: s.kept.zip(t.kept).map(|(a, b)| a + b),
            bytes: s.bytes + t.bytes,
        })
    }

    /// Share that went, if it was counted.
    pub fn sparsity(&self) -> Option<f64> {
        self.kept.map(|kept| 1.0 - kept as f64 / self.numbers.max(1) as f64)
    }
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
            let mask = folder.masks().filter(|_| count).map(|masks| masks.kept(name)).transpose()?.flatten();
            let mut kept = mask;
            let by = if mask.is_some() { "mask" } else { "zeros" };
            if count && mask.is_none() && folder.dtype(name).is_ok() {
                let mut filled = 0;
                folder.stream(name, |part| filled += part.iter().filter(|w| **w != 0.0).count())?;
                kept = Some(filled);
            }
            let (kind, numbers) = (outline.kind(name, info.shape.len()), info.elements());
            let by = kept.map(|_| by);
            tensors.push(Counted {
                name: info.name,
                kind,
                dtype: info.dtype,
                shape: info.shape,
                numbers,
                kept,
                by,
                bytes: info.bytes,
            });
        }
        Ok(Census { tensors, outline })
    }

    /// All tensors.
    pub fn whole(&self) -> Sum {
        Sum::of(self.tensors.iter())
    }

    /// The weights of linear layers inside blocks: what is pruned unless more is named.
    pub fn prunable(&self) -> Sum {
        Sum::of(self.tensors.iter().filter(|t| matches!(t.kind, Kind::Attention | Kind::FeedForward)))
    }

    /// By kind.
    pub fn kinds(&self) -> BTreeMap<Kind, Sum> {
        let mut kinds: BTreeMap<Kind, Vec<&Counted>> = BTreeMap::new();
        self.tensors.iter().for_each(|t| kinds.entry(t.kind).or_default().push(t));
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
