//! What must hold whatever the input.

use lacuna::Result;
use lacuna::sparse::{LinearOp, apply, apply_transpose};
use ndarray::Array2;

/// The value; or nothing, after a look at the error: one line, without control characters, not endless.
pub fn clean<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) => {
            let line = e.to_string();
            assert!(!line.contains(char::is_control) && line.chars().count() < 1000, "no line to print: {line:?}");
            None
        }
    }
}

/// The most numbers of a weight that is made whole: a few bytes may state a great one that is empty.
const MOST: usize = 1 << 14;

/// Holds the products of a storage against its dense weight: with rows of the identity they are its columns and rows, to the bit.
pub fn products(op: &dyn LinearOp) {
    let (rows, cols) = op.shape();
    if rows.checked_mul(cols).is_none_or(|n| n > MOST) || rows.max(cols) > MOST {
        return;
    }
    let dense = op.to_dense();
    assert_eq!(dense.dim(), (rows, cols));
    let stored = op.nnz();
    assert!(dense.iter().filter(|w| **w != 0.0).count() <= stored && stored <= rows * cols, "{stored} of {rows} x {cols}");
    let identity = |of: usize, tokens: usize, first: usize| {
        Array2::from_shape_fn((tokens, of), |(t, i)| if of > 0 && i == (first + t) % of { 1.0f32 } else { 0.0 })
    };
    let same = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan());
    // A sum with an infinity in it is another matter.
    let finite = |mut line: ndarray::iter::Iter<'_, f32, ndarray::Ix1>| line.all(|w| w.is_finite());
    for (tokens, first) in [(1, 0), (3, 1), (17, 2)] {
        let y = apply(op, &identity(cols, tokens, first));
        assert_eq!(y.dim(), (tokens, rows));
        for (r, row) in dense.rows().into_iter().enumerate().filter(|(_, row)| finite(row.iter())) {
            for t in 0..tokens {
                let wanted = if cols == 0 { 0.0 } else { row[(first + t) % cols] };
                assert!(
                    same(y[[t, r]], wanted),
                    "{} {rows} x {cols}, {tokens} tokens: {} at {t}, {r}, not {wanted}",
                    op.format(),
                    y[[t, r]]
                );
            }
        }
        let x = apply_transpose(op, &identity(rows, tokens, first));
        assert_eq!(x.dim(), (tokens, cols));
        for (c, column) in dense.columns().into_iter().enumerate().filter(|(_, column)| finite(column.iter())) {
            for t in 0..tokens {
                let wanted = if rows == 0 { 0.0 } else { column[(first + t) % rows] };
                assert!(
                    same(x[[t, c]], wanted),
                    "{} {rows} x {cols}, back: {} at {t}, {c}, not {wanted}",
                    op.format(),
                    x[[t, c]]
                );
            }
        }
    }
}
