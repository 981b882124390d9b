//! What decoders and encoder-decoders share as models of named linear layers.

use crate::io::WeightsMut;
use crate::nn::{LayerInfo, Linear, Objective, Parameters};
use crate::{Error, Result};
use ndarray::Array2;
use std::collections::HashSet;

/// What linear layers are, in their order.
pub(super) fn infos(linears: Vec<&Linear>) -> Vec<LayerInfo> {
    linears.into_iter().map(|l| LayerInfo { parameter: l.tensor(), ..LayerInfo::linear(l.name(), l.shape()) }).collect()
}

/// The layer of this name among some.
///
/// # Errors
/// [`Error::UnknownName`] with the nearest name.
pub(super) fn named<'l>(linears: Vec<&'l Linear>, name: &str) -> Result<&'l Linear> {
    let found = linears.iter().find(|l| l.name() == name).copied();
    found.ok_or_else(|| Error::unknown_layer(name, linears.iter().map(|l| l.name())))
}

/// Writes every parameter, and the masks that are held; of layers that a file holds `(in, out)` both in that layout.
///
/// # Errors
/// As [`WeightsMut::write`].
pub(super) fn write(model: &dyn Parameters, linears: Vec<&Linear>, to: &mut dyn WeightsMut) -> Result<()> {
    let transposed: HashSet<String> = linears.into_iter().filter(|l| l.is_transposed()).map(Linear::tensor).collect();
    let mut result = Ok(());
    model.visit(&mut |name, values, mask| {
        let other = transposed.contains(name);
        if result.is_ok() {
            result = to.write(name, if other { values.reversed_axes() } else { values });
        }
        if let (Ok(()), Some(mask)) = (&result, mask) {
            result = if other { to.write_mask(name, &mask.transpose()) } else { to.write_mask(name, mask) };
        }
    });
    result
}

/// What is said of a parameter that no mask is held on.
pub(super) fn no_weight(model: &dyn Parameters, name: &str) -> Error {
    let mut names = Vec::new();
    model.visit(&mut |name, _, _| names.push(name.to_string()));
    if names.iter().any(|n| n == name) {
        return Error::invalid_option("mask", format!("{name} is not the weight of a linear layer"));
    }
    Error::unknown_layer(name, names.iter().map(String::as_str))
}

/// What an objective says of hidden states on the way back.
pub(super) struct Taps<'a> {
    pub objective: &'a dyn Objective,
    pub rows: &'a [usize],
    /// What a mean loss is divided by.
    pub count: usize,
    /// The sum of the losses so far.
    pub loss: f64,
}

impl Taps<'_> {
    /// Adds to `d` the slope at `h`, which block number `block` gave, if its hidden states are learnt; before the first there is none.
    pub fn behind(&mut self, block: Option<usize>, h: &Array2<f32>, d: &mut Array2<f32>) {
        if let Some(block) = block.filter(|n| self.objective.taps().contains(n)) {
            self.loss += self.objective.hidden_loss(block, self.rows, h, d, self.count);
        }
    }
}
