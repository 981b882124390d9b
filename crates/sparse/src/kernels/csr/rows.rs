//! Products with compressed sparse rows: one tile, with lists in the order of their rows.

use super::lists::{Lists, lists_product, walk};
use crate::kernels::frame::{Epilogue, Rows};
use crate::kernels::gradient::apply_transpose;
use ndarray::ArrayRef2;

/// The parts of a checked matrix in compressed sparse rows.
#[derive(Clone, Copy)]
pub(crate) struct CsrSlices<'a> {
    pub cols: usize,
    pub offsets: &'a [u32],
    pub indices: &'a [u32],
    pub values: &'a [f32],
}

/// The same in blocks of rows.
struct Blocks<'a> {
    csr: CsrSlices<'a>,
    blocks: Vec<u32>,
}

/// Rows of a block.
const ROWS: usize = 64;

impl Lists for Blocks<'_> {
    type Column = u32;
    type Value = f32;

    #[inline(always)]
    fn list(&self, block: usize, _: usize, slot: usize) -> (&[u32], &[f32]) {
        let row = self.blocks[block] as usize + slot;
        let range = self.csr.offsets[row] as usize..self.csr.offsets[row + 1] as usize;
        (&self.csr.indices[range.clone()], &self.csr.values[range])
    }
}

// SAFETY: `CsrView` checks on its way in that indices lie below `cols`; rows are the slots themselves.
unsafe impl Rows for Blocks<'_> {
    fn dim(&self) -> (usize, usize) {
        (self.csr.offsets.len() - 1, self.csr.cols)
    }

    fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    fn len(&self) -> usize {
        self.csr.values.len()
    }

    fn tiles(&self) -> usize {
        1
    }

    fn tile_start(&self, _: usize) -> usize {
        0
    }

    fn row(&self, _: usize, _: usize, slot: usize) -> usize {
        slot
    }

    fn scale(&self, _: usize, _: usize, _: usize) -> f32 {
        1.0
    }

    #[inline(always)]
    fn each<const U: usize>(&self, block: usize, tile: usize, slot: usize, f: impl FnMut(usize, usize, f32)) {
        walk::<U, _>(self, block, tile, slot, f);
    }
}

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::storage::LinearOp::apply_with).
pub(crate) fn csr_product(csr: CsrSlices<'_>, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
    lists_product(&in_blocks(csr), x, y, epilogue);
}

/// `dx = dy · W`; see [`LinearOp::apply_transpose_into`](crate::storage::LinearOp::apply_transpose_into).
pub(crate) fn csr_apply_transpose(csr: CsrSlices<'_>, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
    apply_transpose(&in_blocks(csr), dy, dx);
}

fn in_blocks(csr: CsrSlices<'_>) -> Blocks<'_> {
    let rows = csr.offsets.len() - 1;
    let blocks = (0..rows).step_by(ROWS).chain([rows]).map(|r| r as u32).collect();
    Blocks { csr, blocks }
}
