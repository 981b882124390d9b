//! Training on weights of a few levels: which, on what grid, and how they are written.

use super::super::quantize::scales_of;
use super::settings::TrainJob;
use crate::io::{Folder, FolderWriter, Layout, QuantLayout, WeightsMut};
use crate::lm::{Config, LanguageModel, Outline};
use crate::mask::Mask;
use crate::prune::whole_layers;
use crate::quantize::{CodeGrid, ScaleType};
use crate::sparse::ActivationBits;
use crate::train::{FakeQuantized, Trainable};
use crate::{Error, Result};
use ndarray::ArrayViewD;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The layers of blocks that train on levels, and their grid.
pub(super) struct Levels {
    pub weights: BTreeSet<String>,
    pub grid: CodeGrid,
}

impl TrainJob {
    /// The grid of the levels, with scales as the weights are stored unless the layout has its own.
    fn grid(&self, bits: u32, own: ScaleType) -> CodeGrid {
        let own = if matches!(self.quantize_layout, QuantLayout::Gptq | QuantLayout::Awq) { ScaleType::F16 } else { own };
        CodeGrid { bits, symmetric: true, granularity: self.quantize_group, scales: own }
    }

    /// Refuses bits and groups that the layout has not, and settings of levels where there are none.
    pub(super) fn check_levels(&self) -> Result<()> {
        let plain = TrainJob::default();
        let Some(bits) = self.quantize else {
            let idle = [
                ("quantize-group", self.quantize_group != plain.quantize_group),
                ("quantize-rule", self.quantize_rule != plain.quantize_rule),
                ("quantize-layout", self.quantize_layout != plain.quantize_layout),
            ];
            return match idle.into_iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(Error::invalid_option(name, "is for --quantize BITS")),
                None => Ok(()),
            };
        };
        if self.lora.is_some() {
            return Err(Error::invalid_option("quantize", "is given beside lora, whose factors leave the weights as they are"));
        }
        self.quantize_layout.check(self.grid(bits, ScaleType::F32)).map_err(|e| match e {
            Error::InvalidOption { option, reason } if option == "bits" => Error::invalid_option("quantize", reason),
            Error::InvalidOption { option, reason } => Error::invalid_option(format!("quantize-{option}"), reason),
            e => e,
        })
    }

    /// The linear layers of blocks that `moves` says train, where they are to train on levels.
    ///
    /// # Errors
    /// If no layer is left, one is held `(in, out)`, or groups or the layout do not fit its shape.
    pub(super) fn levels(&self, folder: &Folder, outline: &Outline, moves: &dyn Fn(&String) -> bool) -> Result<Option<Levels>> {
        let Some(bits) = self.quantize else { return Ok(None) };
        let layers: Vec<_> = outline.layers.iter().filter(|l| l.block.is_some() && moves(&l.tensor())).collect();
        if layers.is_empty() {
            return Err(Error::invalid_option("quantize", "no linear layer of a block is left for it by --only and --freeze"));
        }
        let grid = self.grid(bits, scales_of(folder, layers.iter().map(|l| l.name.as_str()))?);
        for layer in &layers {
            if layer.transposed {
                let reason = "is held (in, out), which layouts of codes have not; they are of linear layers (out, in)";
                return Err(Error::invalid_option("quantize", reason).in_layer(&layer.name));
            }
            self.quantize_layout.check_shape(layer.shape, grid).map_err(|e| e.in_layer(&layer.name))?;
        }
        Ok(Some(Levels { weights: layers.iter().map(|l| l.tensor()).collect(), grid }))
    }
}

/// Gives the places of weights to their codes.
pub(super) fn coded_layout(layout: &mut Layout, model: &Trainable<LanguageModel>, codes: QuantLayout) -> Result<()> {
    let Some(levels) = model.levels() else { return Ok(()) };
    levels.names().try_for_each(|name| layout.codes(name, codes, levels.grid()))
}

/// `config.json` of a folder whose weights are in codes; none where there are no levels.
pub(super) fn coded_config(
    folder: &Folder,
    config: &Config,
    tied: bool,
    model: &Trainable<LanguageModel>,
    codes: QuantLayout,
) -> Option<Map<String, Value>> {
    let levels = model.levels()?;
    let mut json = config.settled(tied).unwrap_or_else(|| folder.config().clone());
    let whole = whole_layers(folder, &|name| levels.contains(name));
    json.insert("quantization_config".into(), codes.config(levels.grid(), &whole, None, ActivationBits::Full));
    Some(json)
}

/// Writes the model, weights of levels as their codes.
pub(super) fn write(model: &Trainable<LanguageModel>, codes: QuantLayout, writer: &mut FolderWriter) -> Result<()> {
    match model.levels() {
        None => model.model().write(writer),
        Some(levels) => model.model().write(&mut InCodes { levels, codes, writer }),
    }
}

/// Takes weights of levels as their codes, and all else as it is.
struct InCodes<'a> {
    levels: &'a FakeQuantized,
    codes: QuantLayout,
    writer: &'a mut FolderWriter,
}

impl WeightsMut for InCodes<'_> {
    fn write(&mut self, name: &str, values: ArrayViewD<'_, f32>) -> Result<()> {
        if !self.levels.contains(name) {
            return WeightsMut::write(self.writer, name, values);
        }
        self.writer.write_codes(name, self.codes, &self.levels.codes(name)?, self.levels.grid().scales)
    }

    fn write_mask(&mut self, name: &str, mask: &Mask) -> Result<()> {
        WeightsMut::write_mask(self.writer, name, mask)
    }
}
