//! Moving triangles between row-major and column-major storage, tile by tile: an element-wise transposition of a large
//! matrix misses the cache once an entry.

use ndarray::{Array2, ArrayRef2, ShapeBuilder, s};

/// Rows and columns of a tile: two tiles of f64 fit a first-level cache of 32 KB.
const TILE: usize = 32;

/// Calls `f(i, j)` with the index ranges of every tile of an `(m, n)` matrix.
fn tiles(m: usize, n: usize, mut f: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>)) {
    for i in (0..m).step_by(TILE) {
        for j in (0..n).step_by(TILE) {
            f(i..(i + TILE).min(m), j..(j + TILE).min(n));
        }
    }
}

/// Copies a over c, both `(m, n)`, of any strides.
fn copy_tiles(c: &mut ArrayRef2<f64>, a: &ArrayRef2<f64>) {
    tiles(a.nrows(), a.ncols(), |i, j| {
        c.slice_mut(s![i.clone(), j.clone()]).assign(&a.slice(s![i, j]));
    });
}

/// A column-major copy of a `(m, n)`.
pub(super) fn to_columns(a: &ArrayRef2<f64>) -> Array2<f64> {
    let mut c = Array2::zeros(a.dim().f());
    copy_tiles(&mut c, a);
    c
}

/// The same matrix in standard layout; no copy if it has it already.
pub(super) fn to_rows(a: Array2<f64>) -> Array2<f64> {
    if a.is_standard_layout() {
        return a;
    }
    let mut c = Array2::zeros(a.dim());
    copy_tiles(&mut c, &a);
    c
}

/// Copies the lower triangle of a over that of c, both `(n, n)`, of any strides.
fn copy_lower(c: &mut ArrayRef2<f64>, a: &ArrayRef2<f64>) {
    let n = a.nrows();
    tiles(n, n, |i, j| {
        if i.start > j.start {
            c.slice_mut(s![i.clone(), j.clone()]).assign(&a.slice(s![i, j]));
        } else if i.start == j.start {
            for j in j {
                c.slice_mut(s![j..i.end, j]).assign(&a.slice(s![j..i.end, j]));
            }
        }
    });
}

/// A column-major copy of the lower triangle of a `(n, n)`, zero above.
pub(super) fn lower_to_columns(a: &ArrayRef2<f64>) -> Array2<f64> {
    let mut c = Array2::zeros(a.dim().f());
    copy_lower(&mut c, a);
    c
}

/// A row-major copy of the lower triangle of a `(n, n)`, zero above.
pub(super) fn lower_to_rows(a: &ArrayRef2<f64>) -> Array2<f64> {
    let mut c = Array2::zeros(a.dim());
    copy_lower(&mut c, a);
    c
}

/// Column-major, the lower triangle of the symmetric a `(n, n)` with rows and columns in reverse order, zero above; only the
/// lower triangle of a is read.
pub(super) fn reversed_lower_to_columns(a: &ArrayRef2<f64>) -> Array2<f64> {
    // Entry (i, j) of the reversed matrix is a[n-1-i, n-1-j] = a[n-1-j, n-1-i], which is in the lower triangle if i >= j.
    lower_to_columns(&a.t().slice(s![..;-1, ..;-1]))
}

/// Copies the upper triangle of a `(n, n)` into the lower.
pub(super) fn mirror_upper(a: &mut ArrayRef2<f64>) {
    let n = a.nrows();
    tiles(n, n, |i, j| {
        if i.start < j.start {
            let (upper, mut lower) = a.multi_slice_mut((s![i.clone(), j.clone()], s![j, i]));
            lower.assign(&upper.t());
        } else if i.start == j.start {
            for r in i {
                for c in r + 1..j.end {
                    a[[c, r]] = a[[r, c]];
                }
            }
        }
    });
}
