//! A model of what products cost, in cycles of one core.
//!
//! Each storage is charged its instructions and the bytes that it brings from beyond the caches; the two overlap in part, so the cost is
//! the root of the sum of their squares. The constants were measured with `lacuna bench spmm` on cores with AVX2; they rank storages,
//! and `Plan::tune` replaces them by times.

use super::machine::Machine;
use super::{Bitmask, Dense, LinearOp, Scaling, TileCsr};
use crate::Result;
use crate::kernels::Isa;
use crate::mask::Mask;
use crate::sparse::Compress;
use ndarray::ArrayRef2;

/// A storage with its tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidate {
    Dense,
    /// Columns of a tile.
    TileCsr(usize),
    /// Words of a tile.
    Bitmask(usize),
}

impl Candidate {
    pub(super) fn name(self) -> String {
        match self {
            Candidate::Dense => "dense".into(),
            Candidate::TileCsr(columns) => format!("tile-csr:{columns}"),
            Candidate::Bitmask(words) => format!("bitmask:{}", 64 * words),
        }
    }

    pub(super) fn build(self, weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Box<dyn LinearOp>> {
        Ok(match self {
            Candidate::Dense => Box::new(Dense::compress(weight, mask)?),
            Candidate::TileCsr(columns) => Box::new(TileCsr::<f32>::with_tile(weight, mask, columns, Scaling::Row)?),
            Candidate::Bitmask(words) => Box::new(Bitmask::<f32>::with_tile(weight, mask, words, Scaling::Row)?),
        })
    }
}

/// The sparse storages that are worth a thought.
pub(super) fn candidates(mask: &Mask, tokens: usize) -> Vec<Candidate> {
    let cols = mask.cols().max(1);
    if tokens == 1 {
        return vec![Candidate::TileCsr(cols.clamp(257, 1 << 16)), Candidate::Bitmask(cols.div_ceil(64))];
    }
    let mut all: Vec<Candidate> = [64, 128, 256, 512].into_iter().map(Candidate::TileCsr).collect();
    all.extend([1, 2, 4].map(Candidate::Bitmask));
    all
}

/// Cycles of a product.
pub(super) fn cycles(candidate: Candidate, mask: &Mask, tokens: usize, machine: &Machine) -> f64 {
    let (rows, cols) = mask.dim();
    let (cells, kept) = ((rows * cols) as f64, mask.kept() as f64);
    // Without vectors of eight and fused multiply-adds, arithmetic costs some four times as much.
    let slow = if machine.isa == Isa::Portable { 4.0 } else { 1.0 };
    let bytes = match candidate {
        Candidate::Dense => 4.0 * cells,
        Candidate::TileCsr(columns) => {
            let index = if columns <= 256 { 1.0 } else { 2.0 };
            (4.0 + index) * kept + 6.0 * (rows * cols.div_ceil(columns)) as f64
        }
        Candidate::Bitmask(words) => 4.0 * kept + cells / 8.0 + 4.0 * (rows * cols.div_ceil(64 * words)) as f64,
    };
    // Bytes a cycle: from the last cache, and from memory.
    let transfer = if bytes > machine.l3 as f64 { bytes / 6.0 } else { bytes / 18.0 };
    let work = match (candidate, tokens) {
        (Candidate::Dense, 1) => cells / 6.0,
        (Candidate::Dense, t) => {
            let efficiency = match t {
                ..8 => 0.3,
                8..32 => 0.65,
                32..64 => 0.8,
                _ => 0.93,
            };
            cells * t as f64 / 8.0 / efficiency
        }
        (Candidate::TileCsr(_), 1) => kept + 12.0 * rows as f64,
        (Candidate::Bitmask(_), 1) => cells * 0.47 + 10.0 * rows as f64,
        (_, t) => strips(candidate, mask, t, machine),
    };
    (slow * work).hypot(transfer)
}

/// Cycles of the arithmetic over strips.
fn strips(candidate: Candidate, mask: &Mask, tokens: usize, machine: &Machine) -> f64 {
    let (rows, cols) = mask.dim();
    let kept = mask.kept() as f64;
    let (mut rest, mut cycles) = (tokens, 0.0);
    while rest > 0 {
        let width = [64, 32, 16, 8].into_iter().find(|&w| rest >= w).unwrap_or(4);
        let wide = width as f64;
        // Vectors of the strip and of the weight, one index; then sums, which come and go once a list, and where its loop ends.
        let (columns, weight, list) = match candidate {
            Candidate::TileCsr(columns) => (columns, wide / 8.0 + 1.0, wide * 0.4 + 8.0),
            Candidate::Bitmask(words) => (64 * words, wide / 8.0 + 1.0, wide * 0.4 + 6.0 + 12.0 * words as f64),
            Candidate::Dense => (cols, wide / 8.0, 0.0),
        };
        let strip = columns.min(cols) * width * 4;
        let far = if strip > machine.l2 {
            1.9
        } else if strip > machine.l1 {
            1.3
        } else {
            1.0
        };
        cycles += kept * (weight * far).max(1.7) + list * (rows * cols.div_ceil(columns)) as f64;
        cycles += wide * 0.8 * (rows + cols) as f64;
        rest = rest.saturating_sub(width);
    }
    cycles
}
