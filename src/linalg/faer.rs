//! The default back end: faer.
//!
//! Cholesky, inverses and triangular solves give the same bits for any number of threads, and use them all. The reductions
//! to tridiagonal and bidiagonal form and QR sum one part per thread, and their last bits follow the number of parts: they run
//! on the calling thread alone.

use super::factors::{Eigh, Failure, Svd};
use crate::kernels::{PARALLEL, Threads};
use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::cholesky::llt;
use faer::linalg::matmul::matmul;
use faer::linalg::qr::no_pivoting::factor as qr;
use faer::linalg::{evd, householder, svd, triangular_inverse, triangular_solve};
use faer::{Accum, Conj, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayRef2, CowArray, Ix2, ShapeBuilder, s};
use rayon::prelude::*;

/// Columns of a task of a product that is not split by its crate: fixed, so that the bits do not depend on the number of threads.
pub(super) const COLUMNS: usize = 256;

/// As many threads as the current rayon pool has: for what does not depend on their number.
fn par() -> Par {
    Par::rayon(0)
}

/// A column-major array as faer sees it.
fn view(a: &ArrayRef2<f64>) -> MatRef<'_, f64> {
    let (m, n) = a.dim();
    let a = a.t().to_slice().unwrap_or_else(|| panic!("column-major without gaps"));
    MatRef::from_column_major_slice(a, m, n)
}

/// The same, to write into.
fn view_mut(a: &mut Array2<f64>) -> MatMut<'_, f64> {
    let (m, n) = a.dim();
    assert!(a.t().is_standard_layout(), "column-major without gaps");
    let a = a.as_slice_memory_order_mut().unwrap_or_else(|| panic!("column-major without gaps"));
    MatMut::from_column_major_slice_mut(a, m, n)
}

/// An array of one of the two orders without gaps, as faer sees it.
fn view32(a: &ArrayRef2<f32>) -> Option<MatRef<'_, f32>> {
    let (m, n) = a.dim();
    match (a.as_slice(), a.t().to_slice()) {
        (Some(a), _) => Some(MatRef::from_row_major_slice(a, m, n)),
        (_, Some(a)) => Some(MatRef::from_column_major_slice(a, m, n)),
        _ => None,
    }
}

/// The product of two matrices, in tasks of a fixed number of columns that each run on one thread; operands with gaps are copied.
pub(super) fn product(alpha: f32, a: &ArrayRef2<f32>, b: &ArrayRef2<f32>, beta: f32, c: &mut ArrayRef2<f32>, threads: Threads) {
    let (m, n) = c.dim();
    if view32(c).is_none() {
        // Not `to_owned`, which keeps the strides of a reversed view.
        let mut whole = c.as_standard_layout().into_owned();
        product(alpha, a, b, beta, &mut whole, threads);
        return c.assign(&whole);
    }
    let accum = if beta == 0.0 { Accum::Replace } else { Accum::Add };
    if beta != 0.0 && beta != 1.0 {
        c.mapv_inplace(|c| beta * c);
    }
    let rows = c.is_standard_layout();
    let turned = if rows { c.view_mut() } else { c.view_mut().reversed_axes() };
    let to = turned.into_slice().expect("one of the two orders, as was found just now");
    let to = if rows { MatMut::from_row_major_slice_mut(to, m, n) } else { MatMut::from_column_major_slice_mut(to, m, n) };
    let (a, b) = (gapless(a), gapless(b));
    let (Some(a), Some(b)) = (view32(&a), view32(&b)) else { unreachable!("what has gaps was copied") };
    let task = |(i, c): (usize, MatMut<'_, f32>)| {
        let columns = c.ncols();
        matmul(c, accum, a, b.subcols(i * COLUMNS, columns), alpha, Par::Seq);
    };
    let mut tasks = Vec::new();
    let mut rest = to;
    while rest.ncols() > COLUMNS {
        let (first, after) = rest.split_at_col_mut(COLUMNS);
        tasks.push(first);
        rest = after;
    }
    tasks.push(rest);
    if threads == Threads::Pool && m * n * a.ncols() >= PARALLEL {
        tasks.into_par_iter().enumerate().for_each(task);
    } else {
        tasks.into_iter().enumerate().for_each(task);
    }
}

/// The same array, copied where it has gaps.
fn gapless(a: &ArrayRef2<f32>) -> CowArray<'_, f32, Ix2> {
    if view32(a).is_some() { a.view().into() } else { a.as_standard_layout() }
}

/// Runs f with the scratch memory it asked for.
fn with_stack<T>(need: StackReq, f: impl FnOnce(&mut MemStack) -> T) -> T {
    f(MemStack::new(&mut MemBuffer::new(need)))
}

pub(super) fn factor_llt(a: &mut Array2<f64>) -> Result<(), usize> {
    let need = llt::factor::cholesky_in_place_scratch::<f64>(a.nrows(), par(), Default::default());
    let done = with_stack(need, |stack| {
        llt::factor::cholesky_in_place(view_mut(a), Default::default(), par(), stack, Default::default())
    });
    match done {
        Ok(_) => Ok(()),
        Err(llt::factor::LltError::NonPositivePivot { index }) => Err(index),
    }
}

pub(super) fn invert_lower(l: Array2<f64>) -> Array2<f64> {
    let mut inverse = Array2::zeros(l.dim().f());
    triangular_inverse::invert_lower_triangular(view_mut(&mut inverse), view(&l), par());
    inverse
}

pub(super) fn invert_lower_strip(l: &ArrayRef2<f64>, from: usize, to: usize) -> Array2<f64> {
    let rest = l.nrows() - from;
    let mut strip = Array2::zeros((rest, to - from).f());
    strip.diag_mut().fill(1.0);
    triangular_solve::solve_lower_triangular_in_place(view(l).submatrix(from, from, rest, rest), view_mut(&mut strip), par());
    strip
}

pub(super) fn invert_llt(l: Array2<f64>) -> Array2<f64> {
    let mut inverse = Array2::zeros(l.dim().f());
    with_stack(llt::inverse::inverse_scratch::<f64>(l.nrows(), par()), |stack| {
        llt::inverse::inverse(view_mut(&mut inverse), view(&l), par(), stack);
    });
    // faer wrote the lower triangle of a column-major matrix: the upper one of the row-major matrix that is its transpose.
    let mut inverse = inverse.reversed_axes();
    super::layout::mirror_upper(&mut inverse);
    inverse
}

pub(super) fn solve_lower(l: &ArrayRef2<f64>, mut b: Array2<f64>) -> Array2<f64> {
    triangular_solve::solve_lower_triangular_in_place(view(l), view_mut(&mut b), par());
    b
}

pub(super) fn solve_upper(r: &ArrayRef2<f64>, mut b: Array2<f64>) -> Array2<f64> {
    let t = r.t();
    let r = if r.is_standard_layout() { view(&t).transpose() } else { view(r) };
    triangular_solve::solve_upper_triangular_in_place(r, view_mut(&mut b), par());
    b
}

pub(super) fn eigh_lower(a: Array2<f64>) -> Result<Eigh, Failure> {
    let n = a.nrows();
    let (mut values, mut vectors) = (vec![0.0; n], Array2::zeros((n, n).f()));
    let need = evd::self_adjoint_evd_scratch::<f64>(n, evd::ComputeEigenvectors::Yes, Par::Seq, Default::default());
    with_stack(need, |stack| {
        let (s, u) = (DiagMut::from_slice_mut(&mut values), view_mut(&mut vectors));
        evd::self_adjoint_evd(view(&a), s, Some(u), Par::Seq, stack, Default::default())
    })
    .map_err(|e| format!("faer: {e:?}"))?;
    Ok(Eigh { values: Array1::from(values), vectors })
}

pub(super) fn thin_svd(a: Array2<f64>) -> Result<Svd, Failure> {
    let ((m, n), thin) = (a.dim(), svd::ComputeSvdVectors::Thin);
    let r = m.min(n);
    let (mut s, mut u, mut v) = (vec![0.0; r], Array2::zeros((m, r).f()), Array2::zeros((n, r).f()));
    let need = svd::svd_scratch::<f64>(m, n, thin, thin, Par::Seq, Default::default());
    with_stack(need, |stack| {
        let (s, u, v) = (DiagMut::from_slice_mut(&mut s), view_mut(&mut u), view_mut(&mut v));
        svd::svd(view(&a), s, Some(u), Some(v), Par::Seq, stack, Default::default())
    })
    .map_err(|e| format!("faer: {e:?}"))?;
    Ok(Svd { u, s: Array1::from(s), vt: v.reversed_axes() })
}

pub(super) fn qr_apply(mut a: Array2<f64>, mut b: Array2<f64>) -> (Array2<f64>, Array2<f64>) {
    let ((m, n), k) = (a.dim(), b.ncols());
    let block = qr::recommended_block_size::<f64>(m, n);
    let mut coefficients = Array2::zeros((block, n).f());
    with_stack(qr::qr_in_place_scratch::<f64>(m, n, block, Par::Seq, Default::default()), |stack| {
        qr::qr_in_place(view_mut(&mut a), view_mut(&mut coefficients), Par::Seq, stack, Default::default());
    });
    let need = householder::apply_block_householder_sequence_transpose_on_the_left_in_place_scratch::<f64>(m, block, k);
    with_stack(need, |stack| {
        householder::apply_block_householder_sequence_transpose_on_the_left_in_place_with_conj(
            view(&a),
            view(&coefficients),
            Conj::No,
            view_mut(&mut b),
            Par::Seq,
            stack,
        );
    });
    let mut r = Array2::zeros((n, n).f());
    for j in 0..n {
        r.slice_mut(s![..=j, j]).assign(&a.slice(s![..=j, j]));
    }
    (r, super::layout::to_columns(&b.slice(s![..n, ..])))
}
