//! Pruned models in sparse storages.

use super::{Config, LanguageModel};
use crate::io::{Folder, Weights};
use crate::mask::Mask;
use crate::nn::Linear;
use crate::sparse::{ActivationBits, CodeSource, Format, Hint, Plan, Precision, exact};
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

/// How a model runs for inference.
///
/// ```
/// use lacuna::lm::{Inference, Running};
/// use lacuna::sparse::ActivationBits;
/// let fast = Inference::tokens(1).with_activation_bits(ActivationBits::Eight);
/// assert_eq!((fast.tokens, fast.running), (1, Running::Auto));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inference {
    /// Tokens of a usual product: 1 where the model writes a text, else those of a window.
    pub tokens: usize,
    /// In which storages linear layers run.
    pub running: Running,
    /// Bits of activations in products with weights of four and eight bits.
    pub activation_bits: ActivationBits,
    /// Numbers that all weights of linear layers are rounded to, to the nearest; `None` leaves them as they are, in as few bits as hold them.
    pub values: Option<Precision>,
}

impl Inference {
    /// So many tokens at a time, in storages of the model's choice, with activations as they are.
    pub fn tokens(tokens: usize) -> Self {
        Inference { tokens, running: Running::Auto, activation_bits: ActivationBits::Full, values: None }
    }

    /// The same in these storages.
    pub fn running(self, running: Running) -> Self {
        Inference { running, ..self }
    }

    /// The same with weights rounded to the nearest of these.
    pub fn with_values(self, values: Precision) -> Self {
        Inference { values: Some(values), ..self }
    }

    /// The same with activations of so many bits.
    pub fn with_activation_bits(self, activation_bits: ActivationBits) -> Self {
        Inference { activation_bits, ..self }
    }
}

/// How one linear layer is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name.
    pub layer: String,
    /// The storage, `bitmask:512` or `dense`, and its numbers.
    pub format: String,
    /// `f32`, or `bf16`, `f16`, `i8` and `i4` with scales of groups or `u4` with scales and offsets where these hold every number exactly.
    pub values: String,
    /// Bytes.
    pub bytes: usize,
    /// Whether it has a mask.
    pub pruned: bool,
}

/// The most tokens for which numbers of fewer bits pay: with more, widening them costs what reading them saves.
const FEW: usize = 16;

impl LanguageModel {
    /// Reads a model for inference. Layers with masks go into sparse storages as
    /// [`Inference::running`] says (a storage in the folder is taken as it is with [`Running::Auto`]), and for few tokens, or activations of eight bits, all layers keep
    /// numbers of 4, 8 or 16 bits where these hold every number exactly, or the codes that the folder has; whole weights of 32 bits are packed. What is computed is what the masked weights give, up to the
    /// order of sums and what activations are rounded to.
    ///
    /// # Errors
    /// As [`LanguageModel::load`]; [`Error::InvalidOption`] naming the layer if its mask does not fit the storage that was asked for, or if one
    /// was asked for and nothing is pruned.
    pub fn load_stored(folder: &Folder, config: Config, inference: Inference) -> Result<(Self, Vec<Kept>)> {
        let running = inference.running;
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
                    pack(layer, &mask, folder, inference).map_err(|e| e.in_layer(layer.name()))?
                }
                _ => whole(layer, Some(folder), inference).map_err(|e| e.in_layer(layer.name()))?,
            };
            let (layer, bytes) = (layer.name().to_string(), layer.op().bytes());
            kept.push(Kept { layer, format, values, bytes, pruned });
            Ok(())
        })?;
        Ok((model, kept))
    }

    /// Reads a model without masks to write tokens one at a time: as [`LanguageModel::load_stored`], of any weights.
    ///
    /// # Errors
    /// As [`LanguageModel::load`].
    pub fn load_to_write(weights: &dyn Weights, config: Config) -> Result<Self> {
        LanguageModel::load_with(weights, config, &mut |layer| whole(layer, None, Inference::tokens(1)).map(drop))
    }
}

fn whole(layer: &mut Linear, folder: Option<&Folder>, inference: Inference) -> Result<(String, String)> {
    if let Some(values) = inference.values {
        layer.round_to(values, inference.activation_bits)?;
        return Ok(("dense".to_string(), values.to_string()));
    }
    if inference.tokens <= FEW || inference.activation_bits == ActivationBits::Eight {
        // A folder of codes says them; in other weights they are found, where there are some.
        if let (None, Some(folder)) = (layer.mask(), folder)
            && let Some(codes) = folder.codes(&layer.tensor())?.and_then(|codes| codes.storage())
        {
            let values = codes.precision().to_string();
            layer.set_op(Box::new(codes.with_activation_bits(inference.activation_bits)))?;
            return Ok(("dense".to_string(), values));
        }
        layer.narrow(inference.activation_bits);
    }
    let values = if layer.weight().is_some() { "f32".to_string() } else { layer.op().format().to_string() };
    layer.pack();
    Ok(("dense".to_string(), values))
}

fn pack(layer: &mut Linear, mask: &Mask, folder: &Folder, inference: Inference) -> Result<(String, String)> {
    let Inference { tokens, running, .. } = inference;
    // Codes are laid below as this machine and the activations want them.
    if let (Running::Auto, false, None) = (running, layer.is_transposed(), inference.values)
        && !folder.has_codes(&layer.tensor())
        && let Some(op) = folder.storage(&layer.tensor())?
    {
        let format = op.format().to_string();
        layer.set_op(op)?;
        return Ok((format, "as stored".to_string()));
    }
    let weight = layer.dense_weight();
    if (running, inference.values) == (Running::Auto, None)
        && (tokens <= FEW || inference.activation_bits == ActivationBits::Eight)
        && let known = if layer.is_transposed() { None } else { folder.kept_codes(&layer.tensor())? }
        && let codes = known.as_ref().map_or(CodeSource::Numbers(&weight), CodeSource::Kept)
        && let Some((format, values, op)) = codes.storage(mask, inference.activation_bits)
    {
        layer.set_op(op)?;
        return Ok((format.to_string(), values.to_string()));
    }
    let own = || if tokens <= FEW { exact(&weight) } else { Precision::F32 };
    let precision = inference.values.unwrap_or_else(own);
    let (format, planned) = match running {
        Running::In(format) => (format, None),
        _ => {
            let hint = Hint::tokens(tokens).from_memory().with_values(precision).with_activation_bits(inference.activation_bits);
            let plan = Plan::new(&weight, mask, hint)?;
            (plan.chosen(tokens), Some(plan))
        }
    };
    let precision = if format == Format::Csr { Precision::F32 } else { precision };
    let op = match (format, planned) {
        (Format::Dense, _) => return whole(layer, Some(folder), inference),
        (_, Some(plan)) => Box::new(plan),
        _ => format.build(&weight, mask, precision)?,
    };
    layer.set_op(op)?;
    Ok((format.to_string(), precision.to_string()))
}
