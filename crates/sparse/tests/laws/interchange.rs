//! Matrices of `sprs`: slices of others, other types of indices.

use crate::{random_mask, whole};
use lacuna_sparse::storage::{Compress, Csr, CsrView, LinearOp, apply};
use ndarray::s;
use sprs::{CompressedStorage, CsMat, CsMatI};

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
        // By columns, as they are and turned to rows by sprs first.
        let columns = all.to_csc();
        let taken = Csr::from_sprs(columns.slice_outer(from..to).to_owned()).unwrap();
        assert_eq!(taken.to_dense(), dense.slice(s![.., from..to]), "columns {from}..{to}");
        let by_rows = columns.slice_outer(from..to).to_csr();
        assert_eq!(Csr::from_sprs(by_rows).unwrap().to_dense(), dense.slice(s![.., from..to]), "columns {from}..{to}");
    }
    let far = CsMatI::<f32, usize>::new((1, 1 << 33), vec![0, 1], vec![1 << 32], vec![1.0]);
    let message = Csr::from_sprs(far).unwrap_err().to_string();
    assert_eq!(message, "csr: index 4294967296 of the sprs matrix does not fit 32 bits");
}

#[test]
fn matrices_of_the_default_type_come_by_rows_and_by_columns_and_go_back() {
    for (rows, cols) in [(1, 1), (3, 5), (40, 130), (4, 0), (0, 4)] {
        let (w, mask) = (whole(rows, cols, 4, "weight"), random_mask(rows, cols, 0.4));
        let csr = Csr::compress(&w, &mask).unwrap();
        let back: CsMat<f32> = csr.to_sprs().unwrap();
        assert_eq!((back.shape(), back.nnz()), ((rows, cols), mask.kept()), "{rows} x {cols}");
        assert!(back.iter().all(|(&value, (r, c))| mask.get(r, c) && value == w[[r, c]]), "{rows} x {cols}");
        assert_eq!(Csr::from_sprs(back.clone()).unwrap(), csr, "{rows} x {cols}");
        assert_eq!(Csr::from_sprs(back.to_csc()).unwrap(), csr, "{rows} x {cols}, by columns");
        assert_eq!(csr.transpose().to_dense(), csr.to_dense().t(), "{rows} x {cols}");
        assert_eq!(csr.transpose().transpose(), csr, "{rows} x {cols}");
        let values = back.data().as_ptr();
        assert_eq!(Csr::from_sprs(back).unwrap().view().values().as_ptr(), values, "{rows} x {cols}: values were copied");
    }
}

/// What is said of a matrix of 3 rows, or columns, whose structure nobody has checked.
fn refused(at: CompressedStorage, offsets: &[usize], indices: &[usize]) -> String {
    let shape = if at == CompressedStorage::CSR { (3, 4) } else { (4, 3) };
    let values = vec![1.0; indices.len()];
    // SAFETY: it is only taken apart again; no method of `sprs` reads it by its structure.
    let matrix: CsMat<f32> = unsafe { CsMat::new_unchecked(at, shape, offsets.to_vec(), indices.to_vec(), values) };
    Csr::from_sprs(matrix).unwrap_err().to_string()
}

#[test]
fn structures_that_are_none_are_refused_with_the_first_place() {
    use CompressedStorage::{CSC, CSR};
    assert_eq!(refused(CSR, &[0, 2, 2, 3], &[2, 1, 0]), "csr: indices of row 0 do not increase: 2 before 1");
    assert_eq!(refused(CSC, &[0, 0, 2, 3], &[3, 3, 0]), "csr: indices of column 1 do not increase: 3 before 3");
    assert_eq!(refused(CSR, &[0, 1, 2, 3], &[0, 3, 4]), "csr: row 2 has index 4 in 4 columns");
    assert_eq!(refused(CSC, &[0, 1, 2, 3], &[0, 4, 3]), "csr: column 1 has index 4 in 4 rows");
    assert_eq!(refused(CSR, &[0, 2, 1, 3], &[0, 1, 2]), "csr: offsets of row 1 decrease from 2 to 1");
    assert_eq!(
        refused(CSC, &[0, 2, 3], &[0, 1, 2]),
        "csr: 3 offsets for 3 columns, where each column has one and the end another"
    );
    let far = |at| refused(at, &[0, 1, 1 << 32, 1 << 32], &[0]);
    assert_eq!(far(CSR), "csr: offset 4294967296 of the sprs matrix does not fit 32 bits");
    assert_eq!(far(CSC), far(CSR));
    let tall = CsMat::<f32>::new_csc((1 << 33, 1), vec![0, 1], vec![7], vec![1.0]);
    let says = Csr::from_sprs(tall).unwrap_err().to_string();
    assert_eq!(says, "csr: the sprs matrix has 8589934592 rows, which do not fit 32 bits");
}
