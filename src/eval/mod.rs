//! What a network does and what it costs; what a language model makes of texts.

mod census;
mod choices;
mod tasks;
mod embedding;
mod energy;
mod file;
mod memory;
mod perplexity;
mod streamed;
mod texts;

pub use census::{Census, Counted, Sum, attention_flops, sparsity};
pub use choices::{ChoiceScore, Encoding, Joined, LastWord, LastWordScore, Lines, Question, answer, guess, join, read_lines};
pub use embedding::{SentencePooling, TokenPool, cosine, embed};
pub use energy::{joules, processor_seconds};
pub use file::{FileCensus, FileTensor, PackedWeight};
pub use memory::{available_memory, machine_memory, peak_memory};
pub use perplexity::Perplexity;
pub use streamed::streamed_losses;
pub use tasks::{Task, TaskAnswer, TaskItem, TaskScore};
pub use texts::{Evaluated, TextScore};

use crate::Result;
#[doc(no_inline)]
pub use crate::data::windows;
use crate::nn::{Layers, Loss, Network, Parameters};
use ndarray::{Array2, ArrayRef2, ArrayView1, s};
use serde::Serialize;

/// How well a network does on data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Share of samples whose largest output is that of the label.
    pub accuracy: f64,
    /// Mean loss, summed in f64.
    pub loss: f64,
}

/// Accuracy and mean loss on `x (samples, inputs)` with `target (samples, outputs)`, whose largest entry is the label.
/// Running statistics, in passes of 256 samples. Of equal outputs the first counts; an output that holds a NaN is never right. Of no
/// samples both are NaN.
///
/// # Panics
/// If the data do not fit the network.
pub fn score(network: &Network, x: &ArrayRef2<f32>, target: &ArrayRef2<f32>, loss: Loss) -> Score {
    let samples = x.nrows();
    let (mut right, mut sum) = (0, 0.0);
    for from in (0..samples).step_by(256) {
        let part = s![from..(from + 256).min(samples), ..];
        let target: Array2<f32> = target.slice(part).to_owned();
        let output = network.forward(&x.slice(part).to_owned());
        sum += loss.values(&output, &target).sum();
        right += output.rows().into_iter().zip(target.rows()).filter(|(z, t)| is_right(*z, largest(*t))).count();
    }
    let n = samples as f64;
    Score { accuracy: right as f64 / n, loss: sum / n }
}

/// Share of outputs `(samples, classes)` whose largest entry, of equals the first, is that of the label; NaN of no samples. An output that
/// holds a NaN is never right.
///
/// # Panics
/// If there is not one label a sample.
pub fn agreement(output: &ArrayRef2<f32>, labels: &[usize]) -> f64 {
    assert_eq!(output.nrows(), labels.len(), "one label a sample");
    let right = output.rows().into_iter().zip(labels).filter(|(z, label)| is_right(*z, **label)).count();
    right as f64 / labels.len() as f64
}

/// The samples whose largest output is not that of their label, or of whose outputs one is NaN.
///
/// # Panics
/// If the data do not fit the network, or there is not one label a sample.
pub fn mistaken(network: &Network, x: &ArrayRef2<f32>, labels: &[usize]) -> Vec<usize> {
    assert_eq!(x.nrows(), labels.len(), "one label a sample");
    let mut wrong = Vec::new();
    for from in (0..x.nrows()).step_by(256) {
        let output = network.forward(&x.slice(s![from..(from + 256).min(x.nrows()), ..]).to_owned());
        wrong.extend(
            output.rows().into_iter().enumerate().filter(|(i, z)| !is_right(*z, labels[from + i])).map(|(i, _)| from + i),
        );
    }
    wrong
}

/// Share of samples whose single output lies on the side of `threshold` on which the target does; NaN of no samples. An output that is NaN
/// lies on neither.
///
/// # Panics
/// If the data do not fit the network, or there is not one output.
pub fn binary_accuracy(network: &Network, x: &ArrayRef2<f32>, target: &ArrayRef2<f32>, threshold: f32) -> f64 {
    let output = network.forward(&x.to_owned());
    assert!(output.ncols() == 1 && target.dim() == output.dim(), "one output a sample, not {:?}", output.dim());
    let right = output.iter().zip(target).filter(|(z, t)| !z.is_nan() && (**z > threshold) == (**t > threshold)).count();
    right as f64 / x.nrows() as f64
}

/// Whether the largest entry is that of the label, and none is NaN, which would be passed over.
fn is_right(row: ArrayView1<'_, f32>, label: usize) -> bool {
    largest(row) == label && !row.iter().any(|z| z.is_nan())
}

/// Index of the largest entry, of equals the first; 0 of nothing.
fn largest(row: ArrayView1<'_, f32>) -> usize {
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &v)| if v > best.1 { (i, v) } else { best }).0
}

/// What a network costs, dense and as masked.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Size {
    /// Parameters, biases and norms included.
    pub parameters: usize,
    /// Parameters that are not masked.
    pub kept: usize,
    /// Weights of the linear and convolutional layers.
    pub weights: usize,
    /// Of these, those that are not masked.
    pub kept_weights: usize,
    /// FLOPs of one sample with the kept weights of the layers, of a language model of one token without head and attention; two a use.
    pub flops: usize,
    /// Bytes of all parameters in f32.
    pub bytes: usize,
    /// Each layer: name, weights, kept.
    pub layers: Vec<(String, usize, usize)>,
}

impl Size {
    /// The size of a model.
    ///
    /// # Errors
    /// If a mask cannot be read.
    pub fn of<M: Parameters + Layers + ?Sized>(model: &M) -> Result<Self> {
        let mut size = Size { parameters: model.parameter_count(), kept: model.kept_parameters(), ..Size::default() };
        size.bytes = size_of::<f32>() * size.parameters;
        for layer in model.layers() {
            let kept = model.mask(&layer.name)?.map_or(layer.len(), |mask| mask.kept());
            size.weights += layer.len();
            size.kept_weights += kept;
            size.flops += 2 * kept * layer.positions;
            size.layers.push((layer.name.clone(), layer.len(), kept));
        }
        Ok(size)
    }

    /// Share of the linear and convolutional weights that went; NaN if there are none.
    pub fn sparsity(&self) -> f64 {
        sparsity(self.kept_weights, self.weights).unwrap_or(f64::NAN)
    }

    /// Share of all parameters that went; NaN if there are none.
    pub fn whole_sparsity(&self) -> f64 {
        sparsity(self.kept, self.parameters).unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn outputs_that_are_nan_are_right_of_nothing() {
        let nan = f32::NAN;
        let output = array![[1.0, 0.0], [nan, nan], [nan, 1.0], [0.0, 1.0]];
        assert_eq!(agreement(&output, &[0, 0, 1, 1]), 0.5);
        let rows = output.rows().into_iter().map(|z| is_right(z, 0));
        assert_eq!(rows.collect::<Vec<_>>(), [true, false, false, false]);
    }
}
