//! D²Prune's score in SparseGPT's sweep: what a weight is worth if the activations deviate from those of the calibration.
//!
//! Xiong, Liu, Ren, Bai, Fang, Zhang, Jiang, Tan, Liu. *D²Prune: sparsifying large language models via dual Taylor expansion and attention
//! distribution awareness.* AAAI 2026, arXiv:2601.09176, the dual Taylor expansion of the error in weights and activations.
//!
//! ```text
//! δE = λ₁ y wᵀδx + λ₂ δxᵀ H_xx δx + ½ δwᵀ H_ww δw
//!
//! s_ij = w_ij² / U_jj²  +  λ₁ ‖y_i‖ |w_ij| ‖x_j‖  −  λ₂ w_ij² ‖x_j‖²
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | w_ij² / U_jj² | SparseGPT's score, with U as in [`SparseGpt`] |
//! | ‖x_j‖, ‖y_i‖ | norms of an input and an output over all tokens: the roots of the diagonals of XᵀX and W XᵀX Wᵀ |
//! | λ₁, λ₂ | [`D2Prune::first`], [`D2Prune::second`] |
//!
//! Departures. The authors sum norms of sequences in a way that grows with their number, and divide by a constant s for each model: their r₁ and s do not carry
//! over to other numbers of sequences. Here both norms are over all tokens and λ₁ is a plain number; r₁ = 1, s = 1500 and 128 sequences, their
//! setting for OPT-125M, come to λ₁ = r₁ · 0.235 (n + 1) √n / s² = 1.5 · 10⁻⁴. Their choice of which of queries, keys and values is pruned without
//! moving what stays, by perplexity, is not part of it: jobs with `--only` prune a layer by another method.
//!
//! Cost: SparseGPT's, and `out · in²` multiplications for the outputs' norms.

use super::layer::checked_weight;
use super::sweep::{Activations, Choice};
use super::{Pruned, Pruner, SparseGpt};
use crate::criteria::{Evidence, Needs};
use crate::mask::{Budget, Pattern, Scope};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// SparseGPT by D²Prune's score; see the module.
///
/// | field | default | range | meaning |
/// |---|---|---|---|
/// | `sparsegpt` | [`SparseGpt::default`] | | the sweep |
/// | `first` | 1.5e-4 | finite, at least 0 | λ₁ |
/// | `second` | 0 | finite, at least 0 | λ₂ |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct D2Prune {
    /// The sweep: damping, blocks, order, grid.
    pub sparsegpt: SparseGpt,
    /// λ₁, of the term of first order in the activations. With 0, and λ₂ = 0, this is SparseGPT.
    pub first: f64,
    /// λ₂, of the term of second order.
    pub second: f64,
}

impl Default for D2Prune {
    /// What the authors' settings for OPT-125M come to.
    fn default() -> Self {
        D2Prune { sparsegpt: SparseGpt::default(), first: 1.5e-4, second: 0.0 }
    }
}

impl Pruner for D2Prune {
    fn name(&self) -> &str {
        "d2prune"
    }

    fn needs(&self) -> Needs {
        self.sparsegpt.needs()
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        for (name, value) in [("first", self.first), ("second", self.second)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid_option(name, format!("{value} is not a finite number of at least 0")));
            }
        }
        let weight = checked_weight(layer, pattern, scope, budget)?;
        let gram = layer.gram(self.name())?;
        let outputs = output_norms(&weight, gram).into_iter().map(|norm| (self.first * norm) as f32).collect();
        let inputs = gram.diag().iter().map(|square| square.max(0.0).sqrt() as f32).collect();
        let activations = Some(Activations { outputs, inputs, second: self.second as f32 });
        self.sparsegpt.prune_with(self.name(), layer, Choice { pattern, scope, budget, activations })
    }
}

/// ‖X w_i‖ of every row of a weight `(out, in)` with the Gram matrix XᵀX.
fn output_norms(weight: &ArrayRef2<f32>, gram: &ArrayRef2<f64>) -> Vec<f64> {
    let rows: Vec<usize> = (0..weight.nrows()).collect();
    let parts = rows.par_chunks(64).map(|rows| {
        let part: Array2<f64> = weight.select(Axis(0), rows).mapv(f64::from);
        let squares = (part.dot(gram) * &part).sum_axis(Axis(1));
        squares.into_iter().map(|square| square.max(0.0).sqrt()).collect::<Vec<f64>>()
    });
    parts.collect::<Vec<_>>().concat()
}
