//! The second back end: LAPACK through ndarray-linalg.

use super::factors::{Eigh, Failure, Svd};
use ndarray::{Array2, ArrayRef2, ShapeBuilder};
use ndarray_linalg::cholesky::{CholeskyFactorized, CholeskyInplace, InverseCInto};
use ndarray_linalg::error::LinalgError;
use ndarray_linalg::{Diag, EighInto, JobSvd, QRInto, SVDDCInto, SolveTriangularInto, UPLO};

/// LAPACK refuses an argument only if this module passed it a wrong one.
const ARGUMENTS: &str = "arguments that LAPACK accepts";

pub(super) fn factor_llt(a: &mut Array2<f64>) -> Result<(), usize> {
    match a.cholesky_inplace(UPLO::Lower) {
        Ok(_) => Ok(()),
        // dpotrf: the order of the first leading minor that is not positive.
        Err(LinalgError::Lapack(lax::error::Error::LapackComputationalFailure { return_code })) => Err(return_code as usize - 1),
        Err(e) => panic!("{ARGUMENTS}: {e}"),
    }
}

pub(super) fn invert_lower(l: Array2<f64>) -> Array2<f64> {
    let mut identity = Array2::zeros(l.dim().f());
    identity.diag_mut().fill(1.0);
    solve_lower(&l, identity)
}

pub(super) fn invert_lower_strip(l: &ArrayRef2<f64>, from: usize, to: usize) -> Array2<f64> {
    let mut strip = Array2::zeros((l.nrows() - from, to - from).f());
    strip.diag_mut().fill(1.0);
    solve_lower(&super::layout::to_columns(&l.slice(ndarray::s![from.., from..])), strip)
}

pub(super) fn invert_llt(l: Array2<f64>) -> Array2<f64> {
    CholeskyFactorized { factor: l, uplo: UPLO::Lower }.invc_into().unwrap_or_else(|e| panic!("{ARGUMENTS}: {e}"))
}

pub(super) fn solve_lower(l: &ArrayRef2<f64>, b: Array2<f64>) -> Array2<f64> {
    l.to_owned().solve_triangular_into(UPLO::Lower, Diag::NonUnit, b).unwrap_or_else(|e| panic!("{ARGUMENTS}: {e}"))
}

pub(super) fn solve_upper(r: &ArrayRef2<f64>, b: Array2<f64>) -> Array2<f64> {
    super::layout::to_columns(r)
        .solve_triangular_into(UPLO::Upper, Diag::NonUnit, b)
        .unwrap_or_else(|e| panic!("{ARGUMENTS}: {e}"))
}

pub(super) fn eigh_lower(a: Array2<f64>) -> Result<Eigh, Failure> {
    let (values, vectors) = a.eigh_into(UPLO::Lower).map_err(|e| format!("dsyev: {e}"))?;
    Ok(Eigh { values, vectors })
}

pub(super) fn thin_svd(a: Array2<f64>) -> Result<Svd, Failure> {
    match a.svddc_into(JobSvd::Some).map_err(|e| format!("dgesdd: {e}"))? {
        (Some(u), s, Some(vt)) => Ok(Svd { u, s, vt }),
        _ => Err("dgesdd: no singular vectors".to_string()),
    }
}

pub(super) fn qr_apply(a: Array2<f64>, b: Array2<f64>) -> (Array2<f64>, Array2<f64>) {
    let (q, r) = a.qr_into().unwrap_or_else(|e| panic!("{ARGUMENTS}: {e}"));
    let mut qtb = Array2::zeros((r.nrows(), b.ncols()).f());
    ndarray::linalg::general_mat_mul(1.0, &q.t(), &b, 0.0, &mut qtb);
    (super::layout::to_columns(&r), qtb)
}
