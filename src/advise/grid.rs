//! The points that are measured.

use crate::mask::Pattern;
use serde::{Deserialize, Serialize};

/// Shapes, tokens, sparsities and patterns that are measured, and how many seconds that may take.
///
/// | field | [`MeasurementGrid::full`] | [`MeasurementGrid::quick`] | meaning |
/// |---|---|---|---|
/// | `shapes` | 512, 1024, 2048, 4096 square; 1024 x 4096, 4096 x 1024 | 128, 256 square | `(out, in)`, the smallest first |
/// | `cold` | 1024, 2048, 4096 square | none | shapes that are also measured with weights from memory |
/// | `tokens` | 1, 4, 16, 64, 256 | 1, 4 | rows of x |
/// | `cold_tokens` | 1, 4, 16 | none | the same with weights from memory |
/// | `sparsities` | 0.5, 0.6, 0.7, 0.8, 0.9, 0.95 | 0.5, 0.9 | of unstructured masks |
/// | `patterns` | 2:4; block16x1 at 0.5, 0.7, 0.9 | 2:4 | other patterns, each with its sparsities |
/// | `seconds` | 100 | 1.5 | time that measuring may take, about |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasurementGrid {
    /// `(out, in)`, the smallest first.
    pub shapes: Vec<(usize, usize)>,
    /// Shapes that are also measured with weights from memory.
    pub cold: Vec<(usize, usize)>,
    /// Rows of x.
    pub tokens: Vec<usize>,
    /// Rows of x with weights from memory.
    pub cold_tokens: Vec<usize>,
    /// Of unstructured masks.
    pub sparsities: Vec<f64>,
    /// Other patterns, and sparsities of each.
    pub patterns: Vec<(Pattern, Vec<f64>)>,
    /// Seconds that measuring may take, about: what is not measured by then is left out, the largest shapes first.
    pub seconds: f64,
}

impl MeasurementGrid {
    /// Some 250 products on a minute and a half.
    pub fn full() -> MeasurementGrid {
        MeasurementGrid {
            shapes: vec![(512, 512), (1024, 1024), (2048, 2048), (1024, 4096), (4096, 1024), (4096, 4096)],
            cold: vec![(1024, 1024), (2048, 2048), (4096, 4096)],
            tokens: vec![1, 4, 16, 64, 256],
            cold_tokens: vec![1, 4, 16],
            sparsities: vec![0.5, 0.6, 0.7, 0.8, 0.9, 0.95],
            patterns: vec![(Pattern::Nm { n: 2, m: 4 }, vec![0.5]), (Pattern::Block { rows: 16, cols: 1 }, vec![0.5, 0.7, 0.9])],
            seconds: 100.0,
        }
    }

    /// Two small shapes in a second or two: whether all works, no basis for a decision.
    pub fn quick() -> MeasurementGrid {
        MeasurementGrid {
            shapes: vec![(128, 128), (256, 256)],
            cold: Vec::new(),
            tokens: vec![1, 4],
            cold_tokens: Vec::new(),
            sparsities: vec![0.5, 0.9],
            patterns: vec![(Pattern::Nm { n: 2, m: 4 }, vec![0.5])],
            seconds: 1.5,
        }
    }

    /// The patterns of its masks.
    pub fn patterns(&self) -> Vec<Pattern> {
        let unstructured = (!self.sparsities.is_empty()).then_some(Pattern::Unstructured);
        unstructured.into_iter().chain(self.patterns.iter().map(|(pattern, _)| *pattern)).collect()
    }

    /// Masks of one shape: patterns with their sparsities.
    pub(super) fn masks(&self) -> Vec<(Pattern, f64)> {
        let unstructured = self.sparsities.iter().map(|&s| (Pattern::Unstructured, s));
        let others = self.patterns.iter().flat_map(|(pattern, of)| of.iter().map(|&s| (*pattern, s)));
        unstructured.chain(others).collect()
    }

    /// Shape, tokens, and whether weights come from memory, in the order in which they are measured.
    pub(super) fn cells(&self) -> Vec<((usize, usize), usize, bool)> {
        let of = |shapes: &[(usize, usize)], tokens: &[usize], from_memory: bool| {
            let cells = shapes.iter().flat_map(|&shape| tokens.iter().map(move |&t| (shape, t, from_memory)));
            cells.collect::<Vec<_>>()
        };
        let mut cells = [of(&self.shapes, &self.tokens, false), of(&self.cold, &self.cold_tokens, true)].concat();
        cells.sort_by_key(|&((out, inputs), tokens, from_memory)| (out * inputs, from_memory, out, tokens));
        cells
    }
}
