//! One rotation of the hidden states, folded into the weights.
//!
//! ```text
//! h' = h Q,  Q (features, features) orthogonal: a norm by the root mean square gives as much of h' as of h
//!     what adds to the hidden states, W (out, in)     W' = Qᵀ W
//!     what reads them behind a norm of weights γ      W' = W diag(γ) Q,  γ' = 1
//!     the embedding E, and the head                   E' = E Q,  head' = head diag(γ) Q
//! ```
//!
//! Ashkboos, Croci, do Nascimento, Hoefler, Hensman, *SliceGPT: compress large language models by deleting rows and columns*, ICLR 2024,
//! arXiv:2401.15024, whose rotations differ from block to block and need shortcut matrices between; here one is for all, so that the model stays one
//! of its family. A head that is the embedding becomes its own, since γ of the last norm stands before one of them alone.

use super::Config;
use super::architecture::UpNames;
use super::couplings::couplings;
use super::load::Reader;
use crate::io::Weights;
use crate::nn::NormKind;
use crate::structure::{Extent, Side, UnitKind};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayD, Axis, Ix1, Ix2, concatenate};
use std::collections::BTreeMap;

/// What a rotation does to a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Turned {
    /// Its entries along `axis` are hidden features, in the rotated order of none; before that they are multiplied by the weights of a norm.
    Axis { axis: usize, gain: Option<String> },
    /// The weights of a norm are 1.
    Ones,
}

/// The head that a model has of its own once it is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHead {
    /// Its tensor.
    pub tensor: String,
    /// The embedding, which was the head before.
    pub embedding: String,
    /// The last norm.
    norm: String,
}

/// A rotation of a model's hidden states.
#[derive(Debug, Clone)]
pub struct Rotation {
    q: Array2<f64>,
    tensors: BTreeMap<String, Turned>,
    head: Option<NewHead>,
    /// Whether the file holds `γ − 1`.
    plus_one: bool,
}

/// Rows or columns that are multiplied at once.
const PART: usize = 1024;

impl Rotation {
    /// The rotation by an orthogonal `q (features, features)` of the model in these weights. No numbers are read.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the family's norms take means, stand behind a layer, or the model is an encoder-decoder: no rotation passes those; if `q`
    /// has another size; if the file cannot be read.
    pub fn new(weights: &dyn Weights, config: &Config, q: Array2<f64>) -> Result<Rotation> {
        let recipe = config.recipe();
        let refuse = |reason: &str| {
            Error::invalid_option("hidden-by", format!("pca: {}: {reason}; minitron is possible", config.family()))
        };
        let [stack] = &recipe.stacks[..] else { return Err(refuse("an encoder-decoder has two streams of hidden states")) };
        let parts = &stack.parts;
        if recipe.norm != NormKind::Rms || recipe.positions.is_some() {
            return Err(refuse("its norms take means of the features, which a rotation changes"));
        }
        if parts.attention_after.or(parts.feed_after).is_some() {
            return Err(refuse("it has norms behind its layers, whose weights a rotation cannot pass"));
        }
        let (Some(norm), Some(final_norm)) = (parts.norm, stack.final_norm) else {
            return Err(refuse("it has no norm before its layers or behind the last, which a rotation is to pass"));
        };
        if parts.experts.is_some() {
            return Err(refuse("a rotation of experts and their routers is not made"));
        }
        if q.dim() != (recipe.hidden, recipe.hidden) {
            return Err(Error::shape("rotation", &[recipe.hidden, recipe.hidden], q.shape()));
        }
        let reader = Reader::new(weights, config);
        let tie = reader.tie()?;
        let mut gains = BTreeMap::new();
        for block in 0..stack.blocks {
            let path = reader.name(&format!("{}.{block}.", stack.path));
            let name = |part: &str| format!("{path}{part}.weight");
            let opening = match parts.opening {
                UpNames::Plain(one) | UpNames::Fused(one) => vec![one],
                UpNames::Gated(gate, up) => vec![gate, up],
            };
            gains.extend(parts.inputs.iter().map(|part| (name(part), name(norm))));
            gains.extend(opening.into_iter().map(|part| (name(part), name(parts.feed_norm.unwrap_or(norm)))));
        }
        let last = format!("{}.weight", reader.name(final_norm));
        let head = format!("{}.weight", recipe.names.head);
        gains.insert(head.clone(), last.clone());
        let mut tensors = BTreeMap::new();
        for member in couplings(weights, config)?.into_iter().filter(|c| c.kind == UnitKind::Hidden).flat_map(|c| c.members) {
            let turned = match (member.side, member.part) {
                (Side::Reads, Extent::Slice { axis, .. }) => Turned::Axis { axis, gain: gains.get(&member.tensor).cloned() },
                (Side::Makes, Extent::Slice { axis, .. }) => Turned::Axis { axis, gain: None },
                _ => Turned::Ones,
            };
            tensors.insert(member.tensor, turned);
        }
        let embedding = format!("{}.weight", tie.embedding);
        if tie.tied && embedding == head {
            return Err(refuse("the file holds the head alone, and no embedding beside which it could become another"));
        }
        let head = tie.tied.then_some(NewHead { tensor: head, embedding, norm: last });
        Ok(Rotation { q, tensors, head, plus_one: recipe.plus_one })
    }

    /// The head that the model has of its own now, where it was the embedding before.
    pub fn head(&self) -> Option<&NewHead> {
        self.head.as_ref()
    }

    /// A tensor as the rotated model has it. Sums are in f64.
    ///
    /// # Errors
    /// If the weights cannot be read, or have not the shapes that the model has.
    pub fn read(&self, weights: &dyn Weights, name: &str) -> Result<ArrayD<f32>> {
        if let Some(head) = self.head.as_ref().filter(|head| head.tensor == name) {
            return self.turn(weights.read(&head.embedding)?, 1, Some(self.gain(weights, &head.norm)?), name);
        }
        match self.tensors.get(name) {
            None => weights.read(name),
            Some(Turned::Ones) => {
                let one = if self.plus_one { 0.0 } else { 1.0 };
                Ok(ArrayD::from_elem(weights.shape(name)?, one))
            }
            Some(Turned::Axis { axis, gain }) => {
                let gain = gain.as_ref().map(|norm| self.gain(weights, norm)).transpose()?;
                self.turn(weights.read(name)?, *axis, gain, name)
            }
        }
    }

    /// Whether a tensor is another than before.
    pub fn turns(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.head.as_ref().is_some_and(|head| head.tensor == name)
    }

    fn gain(&self, weights: &dyn Weights, norm: &str) -> Result<Array1<f64>> {
        let one = f64::from(u8::from(self.plus_one));
        Ok(weights.read(norm)?.iter().map(|&w| f64::from(w) + one).collect())
    }

    fn turn(&self, values: ArrayD<f32>, axis: usize, gain: Option<Array1<f64>>, name: &str) -> Result<ArrayD<f32>> {
        let shape = values.shape().to_vec();
        let misfit = || Error::shape(format!("tensor {}", crate::io::quoted(name)), &[self.q.nrows()], &shape);
        if shape.get(axis) != Some(&self.q.nrows()) || gain.as_ref().is_some_and(|g| g.len() != self.q.nrows()) {
            return Err(misfit());
        }
        // Rows of features times this.
        let turn = match gain {
            Some(gain) => &self.q * &gain.insert_axis(Axis(1)),
            None => self.q.clone(),
        };
        if values.ndim() == 1 {
            let values = values.into_dimensionality::<Ix1>().map_err(|_| misfit())?.mapv(f64::from);
            return Ok(values.dot(&turn).mapv(|v| v as f32).into_dyn());
        }
        let values = values.into_dimensionality::<Ix2>().map_err(|_| misfit())?;
        let along = if axis == 1 { values.view() } else { values.t() };
        let part = |rows: ndarray::ArrayView2<'_, f32>| rows.mapv(f64::from).dot(&turn).mapv(|v| v as f32);
        let parts: Vec<Array2<f32>> = along.axis_chunks_iter(Axis(0), PART).map(part).collect();
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        let turned = concatenate(Axis(0), &views).map_err(|_| misfit())?;
        Ok(if axis == 1 { turned.into_dyn() } else { turned.reversed_axes().as_standard_layout().into_owned().into_dyn() })
    }
}
