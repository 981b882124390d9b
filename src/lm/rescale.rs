//! What numbers owe to a smaller hidden size.
//!
//! ```text
//! masked   y = x / √(Σ x² / d + ε) · γ
//! smaller  y = x / √(Σ x² / d' + ε') · γ'        ε' = ε d / d',  γ' = γ √(d / d')
//! ```
//!
//! Both are the same function of the features that stay. A family that multiplies its embedding by √d (Gemma 2), or what its head reads by 1 / √d (T5),
//! has that in its config's hidden size, so that embedding and final norm make up for it.

use super::Config;
use super::load::Reader;
use crate::Result;
use crate::io::Weights;
use crate::nn::NormKind;
use ndarray::ArrayD;
use std::collections::BTreeMap;

/// What a tensor is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rescale {
    factor: f64,
    /// Whether the file holds `w - 1`.
    plus_one: bool,
}

impl Rescale {
    /// Multiplies the numbers that a file holds.
    pub fn apply(self, values: &mut ArrayD<f32>) {
        let one = f64::from(u8::from(self.plus_one));
        values.mapv_inplace(|w| ((f64::from(w) + one) * self.factor - one) as f32);
    }
}

/// The tensors that change, beside what is cut off them, as a model goes from this config to `smaller`, which has fewer hidden features
/// ([`Config::with_hidden`]). Then a model whose other features are 0 throughout and the smaller one are the same function, where norms are by root
/// mean squares. Means over the features, as layer norms take them, change with their number, and nothing makes up for it here.
///
/// # Errors
/// If the file has two embeddings that differ, or cannot be read.
pub fn rescaled(weights: &dyn Weights, config: &Config, smaller: &Config) -> Result<BTreeMap<String, Rescale>> {
    let (old, new) = (config.recipe(), smaller.recipe());
    let mut all = BTreeMap::new();
    if old.hidden == new.hidden {
        return Ok(all);
    }
    let reader = Reader::new(weights, config);
    let tie = reader.tie()?;
    let norm = match old.norm {
        NormKind::Rms => (old.hidden as f64 / new.hidden as f64).sqrt(),
        NormKind::Layer => 1.0,
    };
    let ratio = |old: f32, new: f32| f64::from(old) / f64::from(new);
    let embedding = ratio(old.embedding_scale, new.embedding_scale);
    let head = norm * ratio(old.head_scale, new.head_scale) / if tie.tied { embedding } else { 1.0 };
    let mut put = |name: String, factor: f64, plus_one: bool| {
        if (factor - 1.0).abs() > 1e-9 {
            all.insert(name, Rescale { factor, plus_one });
        }
    };
    for (number, stack) in old.stacks.iter().enumerate() {
        let parts = &stack.parts;
        for block in 0..stack.blocks {
            for part in parts.norms() {
                put(reader.name(&format!("{}.{block}.{part}.weight", stack.path)), norm, old.plus_one);
            }
        }
        let last = number + 1 == old.stacks.len();
        if let Some(part) = stack.final_norm {
            put(reader.name(&format!("{part}.weight")), if last { head } else { norm }, old.plus_one);
        }
    }
    for tensor in [format!("{}.weight", tie.embedding)].into_iter().chain(tie.copies) {
        put(tensor, embedding, false);
    }
    Ok(all)
}
