//! The principal components of the hidden states, as layers see them.
//!
//! ```text
//! C = Σ over the norms of all blocks and the last one, Σ over tokens, n nᵀ,   n = h / √(mean of h² + ε)
//! Q = eigenvectors of C, those of the largest eigenvalues first
//! ```
//!
//! Of SliceGPT (arXiv:2401.15024) with one rotation for all blocks; hidden states are normalised before, as every reader has them, so that no block and no
//! token counts more than another. Each vector's largest entry is positive.

use super::survey::Steps;
use crate::data::Sequences;
use crate::io::Folder;
use crate::linalg::{Gram, eigh};
use crate::lm::{Config, EmbeddingHead, load_block, positions};
use crate::nn::Positions;
use crate::prune::language::{ActivationMemory, Activations, MemoryBudget, PART};
use crate::{Error, Result};
use ndarray::{Array2, Axis, s};

/// What a pass of the dense model says of its hidden states.
#[derive(Debug, Clone)]
pub(super) struct Principal {
    /// Q `(features, components)`.
    pub rotation: Array2<f64>,
    /// The fraction of C's trace that each component has, the largest first.
    pub fractions: Vec<f64>,
}

impl Principal {
    /// Runs the dense model once, a block at a time.
    pub fn of(
        folder: &Folder,
        config: &Config,
        calibration: &Sequences,
        memory: &ActivationMemory,
        see: &mut Steps<'_>,
    ) -> Result<Principal> {
        let ends = EmbeddingHead::for_embedding(folder, config)?;
        let length = calibration.length();
        let chunks: Vec<&[u32]> = calibration.ids().chunks((PART / length).max(1) * length).collect();
        let at: Vec<Positions> = chunks.iter().map(|c| positions(config, c.len() / length, length, 0)).collect();
        let mut states = Activations::new(chunks.len(), &MemoryBudget::new(memory));
        for (i, chunk) in chunks.iter().enumerate() {
            states.put(i, ends.embed(chunk, length, 0)?)?;
        }
        drop(ends);
        let mut sum = Gram::new(config.hidden());
        for number in 0..config.layers() {
            let block = load_block(folder, config, number)?;
            for (i, at) in at.iter().enumerate() {
                let mut h = states.take(i)?;
                sum.update(&normalised(&h))?;
                let x = block.attention_x(&h);
                let mixed = block.mixed(&x, at);
                let feed_x = if block.is_parallel() {
                    x
                } else {
                    block.add_attention(&mut h, &mixed);
                    sum.update(&normalised(&h))?;
                    block.feed_x(&h)
                };
                if block.is_parallel() {
                    block.add_attention(&mut h, &mixed);
                }
                block.add_feed(&mut h, &block.inner(&feed_x));
                if number + 1 == config.layers() {
                    sum.update(&normalised(&h))?;
                }
                states.put(i, h)?;
            }
            Error::go_on(see(number + 1, config.layers()))?;
        }
        Principal::from_moments(&sum.into_matrix())
    }

    fn from_moments(c: &Array2<f64>) -> Result<Principal> {
        let found = eigh(c)?;
        let mut rotation = found.vectors.slice(s![.., ..;-1]).as_standard_layout().into_owned();
        for mut vector in rotation.axis_iter_mut(Axis(1)) {
            let largest = vector.iter().copied().fold(0.0f64, |m, v| if v.abs() > m.abs() { v } else { m });
            if largest < 0.0 {
                vector.mapv_inplace(|v| -v);
            }
        }
        let trace = found.values.sum();
        let fractions = found.values.iter().rev().map(|v| if trace > 0.0 { v / trace } else { 0.0 }).collect();
        Ok(Principal { rotation, fractions })
    }
}

/// Each row over the root of its mean square.
fn normalised(h: &Array2<f32>) -> Array2<f32> {
    let mut n = h.clone();
    for mut row in n.rows_mut() {
        let mean = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / row.len().max(1) as f64;
        let factor = if mean > 0.0 { mean.sqrt().recip() as f32 } else { 0.0 };
        row.mapv_inplace(|v| v * factor);
    }
    n
}

#[cfg(test)]
mod tests {
    use super::Principal;
    use ndarray::array;

    #[test]
    fn components_come_by_their_part_with_positive_largest_entries() {
        let found = Principal::from_moments(&array![[1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]).unwrap();
        assert_eq!(found.rotation, array![[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
        assert!(found.fractions.iter().zip([0.75, 0.25, 0.0]).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
