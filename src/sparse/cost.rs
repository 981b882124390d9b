//! A model of what products cost, in cycles of one core.
//!
//! Each storage is charged its instructions and the bytes that it brings from beyond the caches; the two overlap in part, so the cost is
//! the root of the sum of their squares. The constants were measured with `lacuna bench spmm` on cores with AVX2; they rank storages,
//! and `Plan::tune` replaces them by times.

use super::Format;
use super::machine::Machine;
use crate::kernels::Isa;
use crate::mask::Mask;

/// The sparse storages that are worth a thought.
pub(super) fn candidates(mask: &Mask, tokens: usize) -> Vec<Format> {
    let cols = mask.cols().max(1);
    if tokens == 1 {
        return vec![Format::TileCsr(cols.clamp(257, 1 << 16)), Format::Bitmask(cols.next_multiple_of(64))];
    }
    let mut all: Vec<Format> = [64, 128, 256, 512].into_iter().map(Format::TileCsr).collect();
    all.extend([64, 128, 256].map(Format::Bitmask));
    all
}

/// Cycles of a product.
pub(super) fn cycles(candidate: Format, mask: &Mask, tokens: usize, machine: &Machine) -> f64 {
    let (rows, cols) = mask.dim();
    let (cells, kept) = ((rows * cols) as f64, mask.kept() as f64);
    // Without vectors of eight and fused multiply-adds, arithmetic costs some four times as much.
    let slow = if machine.isa == Isa::Portable { 4.0 } else { 1.0 };
    let bytes = match candidate {
        Format::Dense => 4.0 * cells,
        Format::Csr => 8.0 * kept,
        Format::TileCsr(columns) => {
            let index = if columns <= 256 { 1.0 } else { 2.0 };
            (4.0 + index) * kept + 6.0 * (rows * cols.div_ceil(columns)) as f64
        }
        Format::Bitmask(columns) => 4.0 * kept + cells / 8.0 + 4.0 * (rows * cols.div_ceil(columns)) as f64,
    };
    // Bytes a cycle: from the last cache, and from memory.
    let transfer = if bytes > machine.l3 as f64 { bytes / 6.0 } else { bytes / 18.0 };
    let work = match (candidate, tokens) {
        (Format::Dense, 1) => cells / 6.0,
        (Format::Dense, t) => {
            let efficiency = match t {
                ..8 => 0.3,
                8..32 => 0.65,
                32..64 => 0.8,
                _ => 0.93,
            };
            cells * t as f64 / 8.0 / efficiency
        }
        (Format::TileCsr(_) | Format::Csr, 1) => kept + 12.0 * rows as f64,
        (Format::Bitmask(_), 1) => cells * 0.47 + 10.0 * rows as f64,
        (_, t) => strips(candidate, mask, t, machine),
    };
    (slow * work).hypot(transfer)
}

/// Cycles of the arithmetic over strips.
fn strips(candidate: Format, mask: &Mask, tokens: usize, machine: &Machine) -> f64 {
    let (rows, cols) = mask.dim();
    let kept = mask.kept() as f64;
    let (mut rest, mut cycles) = (tokens, 0.0);
    while rest > 0 {
        let width = [64, 32, 16, 8].into_iter().find(|&w| rest >= w).unwrap_or(4);
        let wide = width as f64;
        // Vectors of the strip and of the weight, one index; then sums, which come and go once a list, and where its loop ends.
        let (columns, weight, list) = match candidate {
            Format::TileCsr(columns) => (columns, wide / 8.0 + 1.0, wide * 0.4 + 8.0),
            Format::Bitmask(columns) => (columns, wide / 8.0 + 1.0, wide * 0.4 + 6.0 + 0.2 * columns as f64),
            Format::Dense | Format::Csr => (cols, wide / 8.0 + 1.0, wide * 0.4 + 20.0),
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
