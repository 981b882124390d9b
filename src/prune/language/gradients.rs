//! Gradients of a language model's loss, for the criteria that ask for them.

use super::share::LanguageLayer;
use crate::criteria::{Measured, Need, Needs};
use crate::io::{Folder, RowFile};
use crate::models::lm::{Config, LanguageModel};
use crate::{Error, Result};
use ndarray::Array2;
use std::collections::HashMap;
use std::path::Path;

/// Gradients of the mean loss of each sequence at the weights of some layers: their mean, the mean of their squares, or all of them, as a
/// pruner needs. A sequence is a sample. They lie on the disk; one layer's are read at a time.
pub struct SequenceGradients {
    rows: RowFile,
    /// Of each layer its group, and `(out, in)`.
    layers: HashMap<String, (usize, (usize, usize))>,
    sequences: usize,
    needs: Needs,
}

/// The needs that are gradients of sequences.
const NEEDS: [Need; 3] = [Need::Gradient, Need::SquaredGradients, Need::SampleGradients];

impl SequenceGradients {
    /// Whether a pruner needs any of them.
    pub fn wanted(needs: Needs) -> bool {
        NEEDS.into_iter().any(|n| needs.contains(n))
    }

    /// Runs the dense model forward and back on each sequence of `length` tokens. A file without a name in `scratch` takes the numbers: 4 bytes a
    /// weight for a mean or a mean of squares, 4 a weight and sequence for all of them. Memory: the whole model, and what
    /// [`LanguageModel::backward`] needs. `see` is told how many sequences of all are done.
    ///
    /// # Errors
    /// If the model cannot be read, a gradient is not finite (naming the layer), or the disk has not the room.
    pub fn measure(
        folder: &Folder,
        config: &Config,
        (ids, length): (&[u32], usize),
        (layers, needs): (&[LanguageLayer], Needs),
        scratch: &Path,
        mut see: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let model = LanguageModel::load(folder, config.clone())?;
        let sequences = ids.len() / length;
        let sums = usize::from(needs.contains(Need::Gradient)) + usize::from(needs.contains(Need::SquaredGradients));
        let count = sums + if needs.contains(Need::SampleGradients) { sequences } else { 0 };
        let rows = RowFile::new(scratch, layers.iter().map(|l| (count, l.shape.0 * l.shape.1)))?;
        let groups: HashMap<String, (usize, (usize, usize))> =
            layers.iter().enumerate().map(|(i, l)| (l.name.clone(), (i, l.shape))).collect();
        for (n, ids) in ids.chunks_exact(length).enumerate() {
            let mut failed = None;
            model.backward(ids, length, &mut |tensor, gradient| {
                let Some((name, (group, _))) = tensor.strip_suffix(".weight").and_then(|name| groups.get_key_value(name)) else {
                    return;
                };
                if failed.is_none()
                    && let Err(e) = add(&rows, *group, (n, sequences), needs, &gradient.as_standard_layout())
                {
                    failed = Some(e.in_layer(name));
                }
            })?;
            if let Some(e) = failed {
                return Err(e);
            }
            see(n + 1, sequences);
        }
        Ok(SequenceGradients { rows, layers: groups, sequences, needs })
    }

    /// What was measured of a layer.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if it was not among those that were measured; [`Error::Io`] if the disk refuses.
    pub fn measured(&self, layer: &str) -> Result<Measured> {
        let Some(&(group, shape)) = self.layers.get(layer) else {
            return Err(Error::unknown_layer(layer, self.layers.keys().map(String::as_str)));
        };
        let mut next = 0;
        let mut sum = |need: Need| -> Result<Option<Array2<f32>>> {
            if !self.needs.contains(need) {
                return Ok(None);
            }
            next += 1;
            let row = self.rows.row(group, next - 1)?;
            Array2::from_shape_vec(shape, row).map(Some).map_err(|e| Error::setting("gradients", e.to_string()))
        };
        let (gradient, squared_gradients) = (sum(Need::Gradient)?, sum(Need::SquaredGradients)?);
        let sample_gradients = match self.needs.contains(Need::SampleGradients) {
            false => None,
            true => {
                let mut all = Array2::zeros((self.sequences, shape.0 * shape.1));
                for (n, mut row) in all.rows_mut().into_iter().enumerate() {
                    row.assign(&ndarray::ArrayView1::from(&self.rows.row(group, next + n)?));
                }
                Some(all)
            }
        };
        Ok(Measured { gradient, squared_gradients, sample_gradients, ..Measured::default() })
    }
}

/// Adds the gradient of sequence `n` of all to the rows of a layer.
fn add(rows: &RowFile, group: usize, (n, all): (usize, usize), needs: Needs, gradient: &ndarray::ArrayRefD<f32>) -> Result<()> {
    let numbers = gradient.as_slice().unwrap_or_default();
    if let Some(at) = numbers.iter().position(|v| !v.is_finite()) {
        let cols = gradient.shape().get(1).copied().unwrap_or(1);
        return Err(Error::NonFinite { what: "gradients".into(), row: at / cols, col: at % cols, value: f64::from(numbers[at]) });
    }
    let mut next = 0;
    let mut sum = |need: Need, of: fn(f32) -> f32| -> Result<()> {
        if needs.contains(need) {
            let mut row = rows.row(group, next)?;
            row.iter_mut().zip(numbers).for_each(|(sum, &g)| *sum += of(g) / all as f32);
            rows.write(group, next, &row)?;
            next += 1;
        }
        Ok(())
    };
    sum(Need::Gradient, |g| g)?;
    sum(Need::SquaredGradients, |g| g * g)?;
    if needs.contains(Need::SampleGradients) {
        rows.write(group, next + n, numbers)?;
    }
    Ok(())
}
