//! What the model's loss makes of errors at the outputs of layers: the metric in which units are chosen, and by which layers compare.
//!
//! ```text
//! A = 1/T Σ over tokens g gᵀ,  g the gradient of the summed loss at what a layer adds to the hidden states
//! a layer's outputs off by E (tokens, out):   the loss rises by about ½ tr(E A Eᵀ) in all
//! ```
//!
//! This is the Fisher matrix of the layer's weights with its two Kronecker factors (Martens, Grosse, *Optimizing neural networks with Kronecker-factored
//! approximate curvature*, ICML 2015, arXiv:1503.05671): errors and gradients are taken as independent, and tokens apart from one another. The targets
//! are those of the text. 0.1 % of A's mean diagonal is added to its diagonal, so that no direction of the hidden states is free.
//!
//! Cost: a pass forward and back over a few sequences, one block in memory; `4 out²` bytes on the disk for each layer.

use crate::criteria::Evidence;
use crate::data::Sequences;
use crate::io::{Folder, RowFile};
use crate::linalg::{Gram, cholesky};
use crate::lm::{Config, EmbeddingHead, NextToken, load_block, next_tokens, positions};
use crate::nn::attention::Carry;
use crate::nn::{Block, Positions};
use crate::prune::language::{ActivationMemory, Activations, MemoryBudget, Part, check_measurable};
use crate::{Error, Result};
use ndarray::{Array2, Axis};
use std::ops::ControlFlow;

/// Sequences that are run back.
const SEQUENCES: usize = 6;
/// The fraction of the mean diagonal that is added.
const DAMPING: f64 = 1e-3;

/// Factors L `(features, features)` of A = L Lᵀ, of every block for attention's output layer and for the last feed-forward layer. They lie on the disk.
#[derive(Debug)]
pub struct OutputMetrics {
    rows: RowFile,
    features: usize,
}

/// A part's place in the file.
fn row(part: Part) -> Option<usize> {
    match part {
        Part::Output => Some(0),
        Part::Down => Some(1),
        _ => None,
    }
}

impl OutputMetrics {
    /// Runs the dense model forward and back on the first sequences, at most 6. `see` is told how many blocks of both ways are done, and may stop.
    ///
    /// # Errors
    /// If the model is an encoder-decoder or cannot be read, a token or a gradient is not what it must be, or the disk has not the room;
    /// [`Error::Interrupted`] if `see` stops.
    pub fn measure(
        folder: &Folder,
        config: &Config,
        calibration: &Sequences,
        memory: &ActivationMemory,
        see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Self> {
        check_measurable(config)?;
        let length = calibration.length();
        let text = calibration.first(length * SEQUENCES)?;
        let (layers, features) = (config.layers(), config.hidden());
        let (room, at) = (MemoryBudget::new(memory), positions(config, 1, text.length(), 0));
        let ends = EmbeddingHead::load(folder, config)?;
        let mut states = text.iter().map(|ids| ends.embed(ids, text.length(), 0)).collect::<Result<Vec<_>>>()?;
        let mut inputs = Vec::with_capacity(layers);
        for number in 0..layers {
            let block = load_block(folder, config, number)?;
            let mut before = Activations::new(states.len(), &room);
            for (i, h) in states.iter_mut().enumerate() {
                before.put(i, h.clone())?;
                block.forward(h, &at, &mut ());
            }
            inputs.push(before);
            Error::go_on(see(number + 1, 2 * layers))?;
        }
        let mut slopes = Vec::with_capacity(states.len());
        for (h, ids) in states.iter().zip(text.iter()) {
            slopes.push(ends.slope(h, &NextToken::of(next_tokens(ids, text.length()), config.vocab())?)?);
        }
        drop((ends, states));
        let rows = RowFile::new(&memory.folder, (0..layers).map(|_| (2, features * features)))?;
        for (number, mut before) in inputs.into_iter().enumerate().rev() {
            let block = load_block(folder, config, number)?;
            for (row, sum) in second_moments(&block, &mut before, &mut slopes, &at)?.into_iter().enumerate() {
                let factor = factor(sum).map_err(|e| e.in_layer(format!("block {number}")))?;
                rows.write(number, row, &factor.iter().map(|&v| v as f32).collect::<Vec<_>>())?;
            }
            Error::go_on(see(2 * layers - number, 2 * layers))?;
        }
        Ok(OutputMetrics { rows, features })
    }

    /// A `(features, features)` of a block's last feed-forward layer, or of attention's output layer.
    ///
    /// # Errors
    /// If the disk refuses.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn matrix(&self, block: usize, feed: bool) -> Result<Array2<f64>> {
        let factor = self.factor(block, if feed { Part::Down } else { Part::Output })?;
        Ok(factor.dot(&factor.t()))
    }

    /// The factor of a layer of a block, by its number in the dense model.
    pub(super) fn factor(&self, block: usize, part: Part) -> Result<Array2<f64>> {
        let row = row(part).ok_or_else(|| Error::invalid_option("metric", "is of layers that add to the hidden states"))?;
        let numbers = self.rows.row(block, row)?.into_iter().map(f64::from).collect();
        let shape = (self.features, self.features);
        Array2::from_shape_vec(shape, numbers).map_err(|e| Error::invalid_option("metric", e.to_string()))
    }

    /// As [`OutputMetrics::factor`], for a layer that has these features of the hidden states alone, where these are rotated before.
    pub(super) fn of(
        &self,
        layer: &Evidence<'_>,
        (block, part): (usize, Part),
        features: Option<&[usize]>,
        rotation: Option<&Array2<f64>>,
    ) -> Result<Array2<f64>> {
        let whole = self.factor(block, part)?;
        let whole = rotation.map_or(whole.clone(), |q| q.t().dot(&whole));
        let factor = features.map_or_else(|| whole.clone(), |kept| whole.select(Axis(0), kept));
        match factor.nrows() == layer.weight.nrows() {
            true => Ok(factor),
            false => Err(Error::shape("metric of the outputs", &[layer.weight.nrows()], &[factor.nrows()]).in_layer(layer.layer)),
        }
    }
}

/// Σ g gᵀ / T of both layers; `slopes` become those before the block.
fn second_moments(
    block: &Block,
    before: &mut Activations,
    slopes: &mut [Array2<f32>],
    at: &Positions,
) -> Result<[Array2<f64>; 2]> {
    let features = slopes.first().map_or(0, |d| d.ncols());
    // A block without one of its halves has no such layer, and a mixture has as many as experts, whose outputs are weighed: no metric of these.
    let names = [Part::Output, Part::Down].map(|part| part.names(block).into_iter().next());
    let (mut sums, mut tokens) = ([Gram::new(features), Gram::new(features)], 0);
    for (i, d) in slopes.iter_mut().enumerate() {
        let h = before.take(i)?;
        let mut found = Ok(());
        let mut outputs = |layer: &str, gradient: &Array2<f32>| {
            if let (Some(which), Ok(())) = (names.iter().position(|n| n.as_deref() == Some(layer)), &found) {
                found = sums[which].update(gradient).map_err(|e| e.in_layer(layer));
            }
        };
        let sink = &mut |_: &str, _| {};
        let mut carry = Carry::new(sink);
        carry.outputs = Some(&mut outputs);
        carry.wanted = &|_| false;
        block.back((&h, None), at, d, None, &mut carry);
        tokens += h.nrows();
        found?;
    }
    Ok(sums.map(|sum| sum.into_matrix() / tokens.max(1) as f64))
}

/// L with L Lᵀ = A and a little of its diagonal.
fn factor(mut a: Array2<f64>) -> Result<Array2<f64>> {
    let mean = a.diag().mean().unwrap_or(0.0);
    // Where nothing has a gradient any metric is as good.
    let added = if mean > 0.0 { DAMPING * mean } else { 1.0 };
    a.diag_mut().mapv_inplace(|v| v + added);
    cholesky(&a)
}

#[cfg(test)]
mod tests {
    use super::factor;
    use ndarray::{Array2, array};

    #[test]
    fn a_factor_times_itself_is_the_metric_and_of_nothing_it_is_the_identity() {
        let a = array![[4.0, 2.0], [2.0, 3.0]];
        let l = factor(a.clone()).unwrap();
        let damped = &a + &(Array2::<f64>::eye(2) * 3.5e-3);
        assert!((l.dot(&l.t()) - damped).iter().all(|d| d.abs() < 1e-12));
        assert_eq!(factor(Array2::zeros((2, 2))).unwrap(), Array2::<f64>::eye(2));
    }
}
