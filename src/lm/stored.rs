//! Pruned models in sparse storages.

use super::{Config, LanguageModel};
use crate::io::Folder;
use crate::mask::Mask;
use crate::nn::Linear;
use crate::sparse::{Format, Hint, Plan, Precision, exact};
use crate::{Error, Result};
use serde::Serialize;
use std::str::FromStr;

/// In which storages the linear layers of a model run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Running {
    /// Pruned layers in the storage that is the fastest for so many tokens, by [`Plan`]; all others whole.
    #[default]
    Auto,
    /// All whole, zeros and all.
    Dense,
    /// Pruned layers in one storage.
    In(Format),
}

impl FromStr for Running {
    type Err = Error;

    /// # Errors
    /// If the text is neither `auto` nor the name of a storage.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Running::Auto),
            "dense" => Ok(Running::Dense),
            _ => s.parse().map(Running::In),
        }
    }
}

/// How one linear layer is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name.
    pub layer: String,
    /// The storage, `bitmask:512` or `dense`, and its numbers.
    pub format: String,
    /// `f32`, or `bf16`, `f16`, `i8` with a scale for each 32 or `u4` with a scale and an offset where these hold every number exactly.
    pub values: String,
    /// Bytes.
    pub bytes: usize,
    /// Whether it has a mask.
    pub pruned: bool,
}

/// The most tokens for which numbers of fewer bits pay: with more, widening them costs what reading them saves.
const FEW: usize = 16;

impl LanguageModel {
    /// Reads a model for inference with `tokens` tokens at a time, 1 where it writes a text. Layers with masks go into sparse storages as
    /// `running` says (a storage in the folder is taken as it is with [`Running::Auto`]), and for few tokens all layers keep numbers of 8
    /// or 16 bits where these hold every number exactly; whole weights of 32 bits are packed. What is computed is what the masked weights give, up to the order of sums.
    ///
    /// # Errors
    /// As [`LanguageModel::load`]; [`Error::InvalidOption`] naming the layer if its mask does not fit the storage that was asked for, or if one
    /// was asked for and nothing is pruned.
    pub fn load_stored(folder: &Folder, config: Config, running: Running, tokens: usize) -> Result<(Self, Vec<Kept>)> {
        if let (Running::In(format), false) = (running, folder.is_pruned()) {
            let reason = format!("{} has no masks, and {format} stores what a mask keeps", folder.path().display());
            return Err(Error::invalid_option("format", reason));
        }
        let mut kept = Vec::new();
        let model = LanguageModel::load_with(folder, config, &mut |layer| {
            let mask = layer.mask().cloned();
            let pruned = mask.is_some();
            let (format, values) = match mask {
                Some(mask) if running != Running::Dense => {
                    pack(layer, &mask, folder, running, tokens).map_err(|e| e.in_layer(layer.name()))?
                }
                _ => whole(layer, tokens),
            };
            let (layer, bytes) = (layer.name().to_string(), layer.op().bytes());
            kept.push(Kept { layer, format, values, bytes, pruned });
            Ok(())
        })?;
        Ok((model, kept))
    }
}

fn whole(layer: &mut Linear, tokens: usize) -> (String, String) {
    if tokens <= FEW {
        layer.narrow();
    }
    let values = if layer.weight().is_some() { "f32".to_string() } else { layer.op().format().to_string() };
    layer.pack();
    ("dense".to_string(), values)
}

fn pack(layer: &mut Linear, mask: &Mask, folder: &Folder, running: Running, tokens: usize) -> Result<(String, String)> {
    if let (Running::Auto, false) = (running, layer.is_transposed())
        && let Some(op) = folder.storage(&layer.tensor())?
    {
        let format = op.format().to_string();
        layer.set_op(op)?;
        return Ok((format, "as stored".to_string()));
    }
    let weight = layer.dense_weight();
    let precision = if tokens <= FEW { exact(&weight) } else { Precision::F32 };
    let (format, planned) = match running {
        Running::In(format) => (format, None),
        _ => {
            let plan = Plan::new(&weight, mask, Hint::tokens(tokens).from_memory().with_values(precision))?;
            (plan.chosen(tokens), Some(plan))
        }
    };
    let precision = if format == Format::Csr { Precision::F32 } else { precision };
    let op = match (format, planned) {
        (Format::Dense, _) => return Ok(whole(layer, tokens)),
        (_, Some(plan)) => Box::new(plan),
        _ => format.build(&weight, mask, precision)?,
    };
    layer.set_op(op)?;
    Ok((format.to_string(), precision.to_string()))
}
