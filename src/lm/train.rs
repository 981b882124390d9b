//! Gradients of a language model by name, and optimiser steps along them.

use super::{LanguageModel, Seq2Seq};
use crate::mask::Mask;
use crate::nn::{Optimizer, Sink};
use crate::{Error, Result};
use ndarray::ArrayD;
use std::collections::BTreeMap;

/// A model whose parameters can be changed one after another.
pub trait Parameters {
    /// Calls `f` with the tensor name and numbers of every parameter, always in the same order, a linear weight as
    /// `(out, in)`.
    ///
    /// # Errors
    /// If a weight is not stored dense.
    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut [f32])) -> Result<()>;
}

impl Parameters for LanguageModel {
    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut [f32])) -> Result<()> {
        LanguageModel::visit_mut(self, f)
    }
}

impl Parameters for Seq2Seq {
    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut [f32])) -> Result<()> {
        Seq2Seq::visit_mut(self, f)
    }
}

/// Gradients by tensor name: `(out, in)` for a linear layer, `(n)` for a vector.
#[derive(Debug, Clone, Default)]
pub struct Gradients(BTreeMap<String, ArrayD<f32>>);

impl Gradients {
    /// Keeps what a pass back gives: `pass` is given the sink.
    ///
    /// ```no_run
    /// # fn f(model: lacuna::lm::LanguageModel, ids: &[u32]) -> lacuna::Result<()> {
    /// use lacuna::lm::Gradients;
    /// let (loss, gradients) = Gradients::of(|sink| model.backward(ids, ids.len(), sink))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of the pass.
    pub fn of<T>(pass: impl FnOnce(&mut Sink<'_>) -> Result<T>) -> Result<(T, Self)> {
        let mut all = BTreeMap::new();
        let result = pass(&mut |name, gradient| {
            all.insert(name.to_string(), gradient);
        })?;
        Ok((result, Gradients(all)))
    }

    /// The gradient of one tensor.
    pub fn get(&self, tensor: &str) -> Option<&ArrayD<f32>> {
        self.0.get(tensor)
    }

    /// All of them by tensor name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ArrayD<f32>)> {
        self.0.iter().map(|(name, g)| (name.as_str(), g))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The Euclidean norm of all gradients together.
    pub fn norm(&self) -> f64 {
        let square = |g: &ArrayD<f32>| g.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        self.0.values().map(square).sum::<f64>().sqrt()
    }

    /// Multiplies all by a factor.
    pub fn scale(&mut self, factor: f32) {
        self.0.values_mut().for_each(|g| *g *= factor);
    }
}

/// Takes one step of the whole model at `learning_rate`. `masks`, by tensor name, are held: what they drop is 0 after the step,
/// in the weights and in what the optimiser remembers.
///
/// # Errors
/// If a weight is not stored dense, a parameter has no gradient, or a mask has another shape than its weight.
pub fn step(
    optimizer: &mut Optimizer,
    model: &mut dyn Parameters,
    gradients: &Gradients,
    masks: &BTreeMap<String, Mask>,
    learning_rate: f32,
) -> Result<()> {
    for (name, mask) in masks {
        let expected = gradients.get(name).map_or(&[][..], |g| g.shape());
        if expected != [mask.rows(), mask.cols()] {
            return Err(Error::shape(format!("mask of {name}"), expected, &[mask.rows(), mask.cols()]));
        }
    }
    let mut missing = None;
    model.visit_mut(&mut |name, values| {
        if missing.is_none() && gradients.get(name).is_none_or(|g| g.len() != values.len()) {
            missing = Some(name.to_string());
        }
    })?;
    if let Some(name) = missing {
        return Err(Error::setting("training", format!("{name} has no gradient of its size")));
    }
    optimizer.advance();
    let mut slot = 0;
    model.visit_mut(&mut |name, values| {
        let gradient = gradients.get(name).map(|g| g.as_standard_layout());
        if let Some(gradient) = gradient.as_ref().and_then(|g| g.as_slice()) {
            optimizer.apply(slot, values, gradient, masks.get(name), learning_rate);
        }
        slot += 1;
    })
}
