//! Matrices of `sprs`: slices of others, other types of indices.

use crate::{random_mask, whole};
use lacuna_sparse::storage::{Compress, Csr, CsrView, LinearOp, apply};
use ndarray::s;
use sprs::CsMatI;

#[test]
fn a_slice_of_a_matrix_of_sprs_is_taken_as_the_rows_that_it_is() {
    let (rows, cols) = (9, 70);
    let (w, mask) = (whole(rows, cols, 4, "weight"), random_mask(rows, cols, 0.4));
    let dense = mask.applied(&w);
    let all = Csr::compress(&w, &mask).unwrap().into_sprs().unwrap();
    for (from, to) in [(0, 9), (1, 3), (3, 9), (8, 9), (4, 4), (9, 9)] {
        let expected = dense.slice(s![from..to, ..]).to_owned();
        let slice = all.slice_outer(from..to);
        let taken = Csr::from_sprs(slice.to_owned()).unwrap();
        assert_eq!(taken.to_dense(), expected, "rows {from}..{to}");
        assert_eq!(taken.view().offsets()[0], 0, "rows {from}..{to}");
        let x = whole(5, cols, 8, "input");
        assert_eq!(apply(&taken, &x), x.dot(&expected.t()), "rows {from}..{to}");
        // A slice of a slice, and the same by other types of indices.
        let again = slice.slice_outer(0..(to - from).min(1));
        assert_eq!(Csr::from_sprs(again.to_owned()).unwrap().to_dense(), expected.slice(s![..(to - from).min(1), ..]));
        let wide: CsMatI<f32, usize> = slice.to_other_types();
        assert_eq!(Csr::from_sprs(wide).unwrap(), taken, "usize, rows {from}..{to}");
        let mixed: CsMatI<f32, i32, u64> = slice.to_other_types();
        assert_eq!(Csr::from_sprs(mixed).unwrap(), taken, "i32 and u64, rows {from}..{to}");
        // A view needs offsets that begin at 0, which a slice from the first row has.
        match CsrView::from_sprs(&slice) {
            Ok(view) => assert!(from == 0 && view.to_dense() == expected),
            Err(e) => assert!(from > 0 && e.to_string().ends_with("is a slice of another"), "{e}"),
        }
        // By columns, turned to rows by sprs first.
        let columns = all.to_csc();
        let by_rows = columns.slice_outer(from..to).to_csr();
        assert_eq!(Csr::from_sprs(by_rows).unwrap().to_dense(), dense.slice(s![.., from..to]), "columns {from}..{to}");
    }
    let far = CsMatI::<f32, usize>::new((1, 1 << 33), vec![0, 1], vec![1 << 32], vec![1.0]);
    let message = Csr::from_sprs(far).unwrap_err().to_string();
    assert_eq!(message, "csr: index 4294967296 of the sprs matrix does not fit 32 bits");
}
