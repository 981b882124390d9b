//! Gradients of a language model's loss, for the criteria that ask for them.

use super::activations::ActivationMemory;
use super::check::{check_measurable, fits_memory};
use super::layers::LanguageLayer;
use crate::calibrate::LayerStatistics;
use crate::criteria::{Measured, Need, Needs};
use crate::data::Sequences;
use crate::io::{Folder, RowFile};
use crate::lm::{Config, LanguageModel};
use crate::{Error, Result};
use ndarray::{Array2, Axis};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Gradients of the mean loss of each sequence at the weights of some layers: their mean, the mean of their squares, or all of them, as a
/// pruner needs. A sequence is a sample. They lie on the disk; one layer's are read at a time.
#[derive(Debug)]
pub struct SequenceGradients {
    rows: RowFile,
    /// Of each layer its group, and `(out, in)`.
    layers: HashMap<String, (usize, (usize, usize))>,
    sequences: usize,
    needs: Needs,
}

impl SequenceGradients {
    /// The needs that are gradients of sequences.
    pub const NEEDS: [Need; 3] = [Need::Gradient, Need::SquaredGradients, Need::SampleGradients];

    /// Whether a pruner needs any of them.
    pub fn wanted(needs: Needs) -> bool {
        Self::NEEDS.into_iter().any(|n| needs.contains(n))
    }

    /// Runs the dense model forward and back on each sequence. A file without a name takes the numbers: 4 bytes a weight for a mean or a mean
    /// of squares, 4 a weight and sequence for all of them. Sums lie in memory meanwhile, as far as `memory` goes, and are written once; those
    /// of other layers are read and written for each sequence. Beside them memory holds the whole model, and what
    /// [`LanguageModel::backward`] needs. `see` is told how many sequences of all are done, and may stop.
    ///
    /// # Errors
    /// If the model is an encoder-decoder or cannot be read, the gradients of one layer have no room in memory, a gradient is not finite
    /// (naming layer and sequence), or the disk has not the room; [`Error::Interrupted`] if `see` stops.
    pub fn measure(
        folder: &Folder,
        config: &Config,
        calibration: &Sequences,
        layers: &[LanguageLayer],
        needs: Needs,
        memory: &ActivationMemory,
        mut see: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Self> {
        check_measurable(config)?;
        let (sequences, length) = (calibration.len(), calibration.length());
        let sums = usize::from(needs.contains(Need::Gradient)) + usize::from(needs.contains(Need::SquaredGradients));
        let singles = if needs.contains(Need::SampleGradients) { sequences } else { 0 };
        let largest = layers.iter().map(|l| l.shape.0 * l.shape.1).max().unwrap_or(0);
        let bytes = largest.checked_mul(sums + singles).and_then(|n| n.checked_mul(size_of::<f32>()));
        fits_memory("samples", &format!("the gradients of one layer for {sequences} sequences"), bytes.map(|n| n as u64))?;
        let model = LanguageModel::load(folder, config.clone())?;
        let rows = RowFile::new(&memory.folder, layers.iter().map(|l| (sums + singles, l.shape.0 * l.shape.1)))?;
        let groups: HashMap<String, (usize, (usize, usize))> =
            layers.iter().enumerate().map(|(i, l)| (l.name.clone(), (i, l.shape))).collect();
        let mut sink = Sums { rows, kept: Sums::room(layers, sums, memory.bytes), needs, sequences };
        for (n, ids) in calibration.iter().enumerate() {
            let mut failed = None;
            model.backward(ids, length, &mut |tensor, gradient| {
                let Some((name, (group, _))) = tensor.strip_suffix(".weight").and_then(|name| groups.get_key_value(name)) else {
                    return;
                };
                if failed.is_none()
                    && let Err(e) = sink.add(*group, n, &gradient.as_standard_layout())
                {
                    failed = Some(e.in_layer(name));
                }
            })?;
            if let Some(e) = failed {
                return Err(e);
            }
            Error::go_on(see(n + 1, sequences))?;
        }
        Ok(SequenceGradients { rows: sink.written()?, layers: groups, sequences, needs })
    }

    /// What was measured of a layer.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if it was not among those that were measured; [`Error::Io`] if the disk refuses.
    pub fn measured(&self, layer: &str) -> Result<Measured> {
        let (group, shape) = self.find(layer)?;
        self.gather(shape, &|row| self.rows.row(group, row))
    }

    /// What was measured of some rows or columns of a layer.
    ///
    /// # Errors
    /// As [`SequenceGradients::measured`].
    ///
    /// # Panics
    /// If there is no such row or column.
    pub(super) fn measured_part(&self, layer: &str, (axis, which): (Axis, &[usize])) -> Result<Measured> {
        let (group, (rows, cols)) = self.find(layer)?;
        if axis == Axis(0) {
            let part = |row: usize, r: usize| self.rows.part(group, row, r * cols..(r + 1) * cols);
            return self.gather((which.len(), cols), &|row| {
                which.iter().try_fold(Vec::new(), |all, &r| Ok([all, part(row, r)?].concat()))
            });
        }
        let columns = |all: Vec<f32>| (0..rows).flat_map(|r| which.iter().map(move |c| r * cols + c)).map(|at| all[at]).collect();
        self.gather((rows, which.len()), &|row| self.rows.row(group, row).map(columns))
    }

    /// The group of a layer in the file, and its shape.
    fn find(&self, layer: &str) -> Result<(usize, (usize, usize))> {
        let unknown = || Error::unknown_layer(layer, self.layers.keys().map(String::as_str));
        self.layers.get(layer).copied().ok_or_else(unknown)
    }

    /// What was measured, from the rows of a group.
    fn gather(&self, shape: (usize, usize), row: &dyn Fn(usize) -> Result<Vec<f32>>) -> Result<Measured> {
        let mut next = 0;
        let mut sum = |need: Need| -> Result<Option<Array2<f32>>> {
            if !self.needs.contains(need) {
                return Ok(None);
            }
            next += 1;
            Array2::from_shape_vec(shape, row(next - 1)?).map(Some).map_err(|e| Error::invalid_option("gradients", e.to_string()))
        };
        let (gradient, squared_gradients) = (sum(Need::Gradient)?, sum(Need::SquaredGradients)?);
        let sample_gradients = match self.needs.contains(Need::SampleGradients) {
            false => None,
            true => {
                let mut all = Array2::zeros((self.sequences, shape.0 * shape.1));
                for (n, mut sample) in all.rows_mut().into_iter().enumerate() {
                    sample.assign(&ndarray::ArrayView1::from(&row(next + n)?));
                }
                Some(all)
            }
        };
        Ok(Measured { gradient, squared_gradients, sample_gradients, ..Measured::default() })
    }
}

/// What was measured of the inputs of a layer, and its gradients where there are some. They take the place of those of the layer before:
/// what all layers share is never copied.
pub(super) fn with_gradients<'f>(
    found: &'f mut LayerStatistics,
    layer: &str,
    gradients: Option<&SequenceGradients>,
) -> Result<&'f Measured> {
    let measured = found.inputs_mut();
    if let Some(gradients) = gradients {
        let own = gradients.measured(layer)?;
        measured.gradient = own.gradient;
        measured.squared_gradients = own.squared_gradients;
        measured.sample_gradients = own.sample_gradients;
    }
    Ok(measured)
}

/// Where gradients go as they come.
struct Sums {
    rows: RowFile,
    /// Of each layer, one row after another, the sums that stay in memory until all sequences are done.
    kept: Vec<Option<Vec<f32>>>,
    needs: Needs,
    sequences: usize,
}

impl Sums {
    /// Sums of as many layers, from the first on, as have room in so many bytes.
    fn room(layers: &[LanguageLayer], sums: usize, memory: usize) -> Vec<Option<Vec<f32>>> {
        let mut left = memory / size_of::<f32>();
        let one = |layer: &LanguageLayer| {
            let numbers = sums * layer.shape.0 * layer.shape.1;
            left = left.checked_sub(numbers)?;
            Some(vec![0.0; numbers])
        };
        layers.iter().map(one).collect()
    }

    /// Adds the gradient of sequence `n` to the rows of a layer.
    fn add(&mut self, group: usize, n: usize, gradient: &ndarray::ArrayRefD<f32>) -> Result<()> {
        let numbers = gradient.as_slice().expect("the caller lays gradients row by row");
        if let Some(at) = numbers.iter().position(|v| !v.is_finite()) {
            let cols = gradient.shape().get(1).copied().unwrap_or(1);
            let what = format!("gradient of sequence {n}");
            return Err(Error::NotFinite { what, row: at / cols, col: at % cols, value: f64::from(numbers[at]) });
        }
        let (all, mut next) = (self.sequences, 0);
        for (need, of) in [(Need::Gradient, (|g| g) as fn(f32) -> f32), (Need::SquaredGradients, |g| g * g)] {
            if !self.needs.contains(need) {
                continue;
            }
            let grow = |row: &mut [f32]| row.iter_mut().zip(numbers).for_each(|(sum, &g)| *sum += of(g) / all as f32);
            match &mut self.kept[group] {
                Some(sums) => grow(&mut sums[next * numbers.len()..(next + 1) * numbers.len()]),
                None => {
                    let mut row = self.rows.row(group, next)?;
                    grow(&mut row);
                    self.rows.write(group, next, &row)?;
                }
            }
            next += 1;
        }
        if self.needs.contains(Need::SampleGradients) {
            self.rows.write(group, next + n, numbers)?;
        }
        Ok(())
    }

    /// Everything in the file. A sum that is not finite is refused where it is ranked.
    fn written(self) -> Result<RowFile> {
        let Sums { rows, kept, needs, .. } = self;
        let sums = [Need::Gradient, Need::SquaredGradients].into_iter().filter(|n| needs.contains(*n)).count();
        for (group, numbers) in kept.into_iter().enumerate() {
            let Some(numbers) = numbers else { continue };
            let len = numbers.len() / sums.max(1);
            (0..sums).try_for_each(|row| rows.write(group, row, &numbers[row * len..(row + 1) * len]))?;
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_what_was_measured_is_that_part_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let needs = Needs::none().and(Need::Gradient).and(Need::SampleGradients);
        let rows = RowFile::new(folder.path(), [(3, 2), (3, 12)]).unwrap();
        for row in 0..3 {
            rows.write(1, row, &(0..12).map(|i| (100 * row + i) as f32).collect::<Vec<_>>()).unwrap();
        }
        let layers = [("a".to_string(), (0, (1, 2))), ("b".to_string(), (1, (3, 4)))].into();
        let gradients = SequenceGradients { rows, layers, sequences: 2, needs };
        let whole = gradients.measured("b").unwrap();
        let samples = whole.sample_gradients.unwrap().into_shape_with_order((2, 3, 4)).unwrap();
        for (axis, which) in [(Axis(0), vec![0, 2]), (Axis(1), vec![1, 2]), (Axis(1), vec![3]), (Axis(0), vec![])] {
            let part = gradients.measured_part("b", (axis, &which)).unwrap();
            assert_eq!(part.gradient, whole.gradient.as_ref().map(|g| g.select(axis, &which)), "{axis:?}, {which:?}");
            let selected = samples.select(Axis(axis.index() + 1), &which);
            let expected = selected.to_shape((2, selected.len() / 2)).unwrap();
            assert_eq!(part.sample_gradients.unwrap(), expected, "{axis:?}, {which:?}");
            assert_eq!(part.squared_gradients, None);
        }
    }
}
