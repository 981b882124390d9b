//! Scales of inputs (AWQ, SmoothQuant), folded into what makes the inputs. SmoothQuant divides norms alone.
//!
//! ```text
//! norm ─► queries, keys, values        weight (and bias) of the norm divided by s, columns of the layers multiplied
//! norm ─► gate, up
//! values ─► output                     rows of values divided, where each head of keys and values has one of queries
//! up ─► down                           rows of up divided, where its outputs reach the next layer times a gate, or through ReLU
//! ```
//!
//! The model computes the same before anything is rounded. A norm's divided weight is rounded to its dtype first, and s becomes what that gives, so that the rounding
//! is made up for. Inputs that more than these layers read (the router of experts, a norm behind a sum) keep their scale.

use crate::calibrate::LayerStatistics;
use crate::criteria::Evidence;
use crate::io::FolderWriter;
use crate::nn::{Activation, Block, Norm, Residual};
use crate::prune::language::Part;
use crate::quantize::CodeGrid;
use crate::solve::InputScaling;
use crate::{Error, Result};
use ndarray::{Array1, Array2, Axis};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What makes the inputs of some layers.
enum Producer {
    /// The norm of this name.
    Norm(String),
    /// Rows of a layer.
    Rows(String, Range<usize>),
}

/// Layers that share an input, and what makes it.
struct Fold {
    producer: Producer,
    consumers: Vec<String>,
}

/// The folds of a block, in the order in which it runs.
fn folds(block: &Block) -> Vec<Fold> {
    let mut all = Vec::new();
    let before =
        |norm: &Option<Norm>| norm.as_ref().filter(|_| block.residual != Residual::NormAfterSum).map(|n| n.name().to_string());
    let experts = block.mixture().is_some();
    if let Some(norm) = before(&block.norm).filter(|_| !(block.shares_input() && experts)) {
        let shared = if block.shares_input() { Part::Feed.names(block) } else { Vec::new() };
        all.push(Fold { producer: Producer::Norm(norm), consumers: [Part::Opening.names(block), shared].concat() });
    }
    let attention = block.attention();
    let heads = attention.heads();
    let layers = attention.linears();
    if heads.queries == heads.keys && block.cross.is_none() {
        let of_values = match layers[..] {
            [_, _, values, _] => Some((values.name().to_string(), 0..values.shape().0)),
            [all, _] => all.parts().into_iter().find(|(part, _)| *part == "v").map(|(_, rows)| (all.name().to_string(), rows)),
            _ => None,
        };
        all.extend(
            of_values.map(|(name, rows)| Fold { producer: Producer::Rows(name, rows), consumers: Part::Output.names(block) }),
        );
    }
    let Some(feed) = block.feed_forward() else { return all };
    if let Some(norm) = before(&block.feed_norm) {
        all.push(Fold { producer: Producer::Norm(norm), consumers: Part::Feed.names(block) });
    }
    let of_up = match feed.linears()[..] {
        [_, up, _] => Some((up.name().to_string(), 0..up.shape().0)),
        [one, _] => match one.parts().into_iter().find(|(part, _)| *part == "up") {
            Some((_, rows)) => Some((one.name().to_string(), rows)),
            None => (feed.activation() == Activation::Relu).then(|| (one.name().to_string(), 0..one.shape().0)),
        },
        _ => None,
    };
    all.extend(of_up.map(|(name, rows)| Fold { producer: Producer::Rows(name, rows), consumers: Part::Down.names(block) }));
    all
}

/// Which layers are quantised, and how.
pub(super) struct Rescaling<'a> {
    pub scaling: InputScaling,
    pub grid: CodeGrid,
    pub selected: &'a BTreeSet<String>,
}

impl Rescaling<'_> {
    /// Scales all inputs of a block whose layers are all quantised; what was measured of them becomes that of the scaled ones. The exponents, by the names of
    /// layers.
    pub fn run(
        &self,
        block: &mut Block,
        found: &mut [LayerStatistics],
        writer: &mut FolderWriter,
    ) -> Result<BTreeMap<String, f64>> {
        let mut exponents = BTreeMap::new();
        for Fold { producer, consumers } in folds(block) {
            let reached = matches!(producer, Producer::Norm(_)) || self.scaling.reaches_rows();
            if !reached || consumers.is_empty() || !consumers.iter().all(|name| self.selected.contains(name)) {
                continue;
            }
            let Some(at) = found.iter().position(|f| f.layers.contains(&consumers[0])) else { continue };
            let weights: Vec<(String, Array2<f32>, Option<crate::mask::Mask>)> = block
                .linears()
                .iter()
                .filter(|l| consumers.iter().any(|c| c == l.name()))
                .map(|l| (l.name().to_string(), l.dense_weight().into_owned(), l.mask().cloned()))
                .collect();
            let measured = found[at].inputs();
            let layers: Vec<Evidence<'_>> = weights
                .iter()
                .map(|(name, w, mask)| Evidence { mask: mask.as_ref(), ..Evidence::new(name, w, measured) })
                .collect();
            let (wanted, exponent) = self.scaling.scales(&layers, self.grid)?;
            exponents.extend(consumers.iter().map(|name| (name.clone(), exponent)));
            if wanted.iter().all(|scale| *scale == 1.0) {
                continue;
            }
            let scales = match producer {
                Producer::Norm(name) => divide_norm(block, &name, &wanted, writer)?,
                Producer::Rows(name, rows) => self.divide_rows(block, (&name, rows), wanted, writer)?,
            };
            for layer in block.linears_mut() {
                if let Some((_, weight, _)) = weights.iter().find(|(name, ..)| name == layer.name()) {
                    layer.set_weight(weight * &scales)?;
                }
            }
            for statistics in found.iter_mut().filter(|f| f.layers.iter().any(|l| consumers.contains(l))) {
                divide_inputs(statistics, &scales);
            }
        }
        Ok(exponents)
    }

    /// Divides rows of a layer; gives the scales.
    fn divide_rows(
        &self,
        block: &mut Block,
        (name, rows): (&str, Range<usize>),
        scales: Array1<f32>,
        writer: &mut FolderWriter,
    ) -> Result<Array1<f32>> {
        let missing = || Error::unknown_layer(name, std::iter::empty());
        let selected = self.selected.contains(name);
        let layer = block.linears_mut().into_iter().find(|l| l.name() == name).ok_or_else(missing)?;
        let mut weight = layer.dense_weight().into_owned();
        for (row, scale) in rows.clone().zip(&scales) {
            weight.row_mut(row).mapv_inplace(|w| w / scale);
        }
        if !selected {
            let (tensor, turned) = (layer.tensor(), layer.is_transposed());
            if turned {
                writer.write(&tensor, &weight.t())?
            } else {
                writer.write(&tensor, &weight)?
            }
            let back = writer.read_matrix(&tensor)?;
            weight = if turned { back.reversed_axes().as_standard_layout().into_owned() } else { back };
        }
        layer.set_weight(weight)?;
        if let Some(mut bias) = layer.bias().cloned() {
            for (row, scale) in rows.zip(&scales) {
                bias[row] /= scale;
            }
            layer.set_bias(Some(written(writer, &layer.bias_tensor(), &bias)?))?;
        }
        Ok(scales)
    }
}

/// A vector as it lies in the file once it is written.
fn written(writer: &mut FolderWriter, tensor: &str, values: &Array1<f32>) -> Result<Array1<f32>> {
    writer.write(tensor, values)?;
    Ok(writer.read(tensor)?.iter().copied().collect())
}

/// Divides the weight and the bias of a norm, and writes them; gives the scales that its rounded weight makes up for.
fn divide_norm(block: &mut Block, name: &str, scales: &Array1<f32>, writer: &mut FolderWriter) -> Result<Array1<f32>> {
    let missing = || Error::unknown_layer(name, std::iter::empty());
    let norm = block.norms().into_iter().find(|n| n.name() == name).ok_or_else(missing)?;
    let (gain, bias) = (norm.gain(), norm.bias().cloned());
    let one = if norm.is_plus_one() { 1.0 } else { 0.0 };
    let stored = (&gain / scales).mapv(|g| g - one);
    let stored = written(writer, &format!("{name}.weight"), &stored)?;
    let scale = |((gain, now), wanted): ((&f32, &f32), &f32)| {
        let met = gain / (now + one);
        if met.is_finite() && met > 0.0 { met } else { *wanted }
    };
    let met: Array1<f32> = gain.iter().zip(&stored).zip(scales).map(scale).collect();
    let bias = bias.map(|b| written(writer, &format!("{name}.bias"), &(b / &met))).transpose()?;
    block.visit_mut(&mut |tensor, values, _| {
        let new = match tensor.strip_prefix(name) {
            Some(".weight") => Some(&stored),
            Some(".bias") => bias.as_ref(),
            _ => None,
        };
        new.into_iter().for_each(|new| values.iter_mut().zip(new).for_each(|(v, n)| *v = *n));
    })?;
    Ok(met)
}

/// What is measured of inputs that are divided.
fn divide_inputs(statistics: &mut LayerStatistics, scales: &Array1<f32>) {
    let by = scales.mapv(|s| 1.0 / f64::from(s));
    let measured = statistics.inputs_mut();
    if let Some(gram) = &mut measured.gram {
        *gram *= &by;
        gram.axis_iter_mut(Axis(0)).zip(&by).for_each(|(mut row, by)| row *= *by);
    }
    for sums in [&mut measured.input_magnitudes, &mut measured.input_maxima, &mut measured.input_sums].into_iter().flatten() {
        *sums *= &by;
    }
    if let Some(squares) = &mut measured.input_squares {
        *squares *= &(&by * &by);
    }
}
