//! Which kernel multiplies a whole weight.

use super::gemm::{Threads, gemm};
use super::gemv::FEW;
use super::numbers::Numbers;
use super::rows::{PARALLEL, dense_product};
use crate::kernels::frame::Epilogue;
use ndarray::{Array2, ArrayRef2, ArrayView2};
use rayon::prelude::*;

/// Whether this library's kernels are the faster ones for so many tokens and rows that lie side by side.
pub fn is_by_rows(tokens: usize, rows: usize, cols: usize) -> bool {
    match tokens {
        ..=FEW => true,
        _ if rows < 32 => false,
        // Turning x and y takes its share.
        65.. if rows * cols < 128 * (rows + cols) => false,
        _ => true,
    }
}

/// `c <- alpha * a * b + beta * c` as [`gemm`], by this library's kernels: the rows of one operand are read where they lie, the other is turned.
/// The larger of those that can be read so is read so.
///
/// # Panics
/// If the shapes do not agree.
pub fn gemm_by_rows(alpha: f32, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, beta: f32, c: &mut ArrayRef2<f32>, threads: Threads) {
    if alpha != 1.0 || !(beta == 0.0 || beta == 1.0) {
        let mut product = Array2::zeros(c.dim());
        gemm_by_rows(1.0, a, b, 0.0, &mut product, threads);
        return c.zip_mut_with(&product, |c, p| *c = alpha * p + if beta == 0.0 { 0.0 } else { beta * *c });
    }
    let epilogue = Epilogue { accumulate: beta == 1.0, ..Epilogue::default() };
    let columns = b.t();
    let of_columns = match (a.is_standard_layout(), columns.is_standard_layout()) {
        (true, true) => a.nrows() <= columns.nrows(),
        (_, yes) => yes,
    };
    let slice = "an array in standard layout is a slice";
    if of_columns {
        dense_product(columns.as_standard_layout().as_slice().expect(slice), a, c, &epilogue, threads);
    } else {
        let mut turned = c.view_mut().reversed_axes();
        dense_product(a.as_standard_layout().as_slice().expect(slice), &columns, &mut turned, &epilogue, threads);
    }
}

/// `y (tokens, out) = x · Wᵀ` with the epilogue, for a whole weight `(out, in)` of whatever numbers: the bits are those of the same numbers in
/// 32 bits.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn linear<N: Numbers>(w: N, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
    let ((tokens, cols), rows) = (x.dim(), y.ncols());
    if is_by_rows(tokens, rows, cols) {
        return dense_product(w, x, y, epilogue, Threads::Pool);
    }
    assert!(y.nrows() == tokens && w.len() == rows * cols, "{} weights, x {:?}, y {:?}", w.len(), x.dim(), y.dim());
    let mut wide = Vec::new();
    if w.plain().is_none() && cols > 0 {
        wide.resize(w.len(), 0.0);
        let some = cols * (PARALLEL / cols).max(1);
        wide.par_chunks_mut(some).enumerate().for_each(|(i, to)| w.part(i * some..i * some + to.len()).widen(to));
    }
    let w = ArrayView2::from_shape((rows, cols), w.plain().unwrap_or(&wide)).expect("as many numbers as were counted");
    if epilogue.is_sum() {
        return gemm(1.0, x, &w.t(), 1.0, y, Threads::Pool);
    }
    epilogue.after(y, |y| gemm(1.0, x, &w.t(), 0.0, y, Threads::Pool));
}
