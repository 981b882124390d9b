//! One row of any storage is that of the dense weight, to the bit.

use crate::patterned::{in_every_pattern, masked};
use crate::random::Seed;
use crate::storages::in_every_tiling;
use crate::{in_every_format, masks, random_mask};
use half::{bf16, f16};
use lacuna_sparse::mask::Pattern;
use lacuna_sparse::storage::{Bsr, Epilogue, Expand, Hint, LinearOp, Nm, Plan};
use ndarray::{Array2, ArrayRef2};

fn normal(rows: usize, cols: usize) -> Array2<f32> {
    Seed(8).stream(&format!("rows {rows} x {cols}")).normal_array(rows, cols, 1.0)
}

/// Every row, read over NaNs.
fn rows_are_those_of_the_whole(name: &str, op: &dyn LinearOp) {
    let whole = op.to_dense();
    let mut row = vec![f32::NAN; whole.ncols()];
    for (r, expected) in whole.rows().into_iter().enumerate() {
        row.fill(f32::NAN);
        op.row_into(r, &mut row);
        let (found, expected): (Vec<u32>, Vec<u32>) = row.iter().zip(expected).map(|(a, b)| (a.to_bits(), b.to_bits())).unzip();
        assert_eq!(found, expected, "{name}, {:?}, row {r}", op.shape());
    }
}

fn of_numbers<T: Expand>() {
    for (rows, cols) in [(1, 1), (3, 5), (17, 33), (40, 200), (600, 70), (1100, 140)] {
        let w = normal(rows, cols);
        let of_masks = if rows < 100 { masks(rows, cols) } else { vec![("half".to_string(), random_mask(rows, cols, 0.5))] };
        for (mask_name, mask) in of_masks {
            let law = |name: &str, op: &dyn LinearOp| rows_are_those_of_the_whole(&format!("{name}, {mask_name}"), op);
            in_every_tiling::<T>(&w, &mask, |name, op, _| law(name, op));
            if T::NAME == "f32" {
                in_every_format(&w, &mask, law);
            }
        }
    }
    in_every_pattern::<T>(normal, |name, _, _, op| rows_are_those_of_the_whole(name, op));
}

#[test]
fn a_row_is_that_of_the_dense_weight_in_every_storage_and_kind_of_numbers() {
    of_numbers::<f32>();
    of_numbers::<bf16>();
    of_numbers::<f16>();
    of_numbers::<i8>();
    let (w, half) = (normal(300, 256), masked(Pattern::Nm { n: 2, m: 4 }, 300, 256, 0.0));
    let blocks = masked(Pattern::Block { rows: 4, cols: 2 }, 300, 256, 0.5);
    for inputs in [64, 128] {
        rows_are_those_of_the_whole("nm in groups", &Nm::<i8>::with_groups(&w, &half, (2, 4), inputs).unwrap());
        rows_are_those_of_the_whole("bsr in groups", &Bsr::<i8>::with_groups(&w, &blocks, (4, 2), inputs).unwrap());
    }
    for tokens in [1, 16] {
        rows_are_those_of_the_whole("plan", &Plan::new(&w, &half, Hint::tokens_and_single(tokens)).unwrap());
    }
}

/// A storage of somebody else, who says nothing of rows.
#[derive(Debug)]
struct Foreign(Array2<f32>);

impl LinearOp for Foreign {
    fn format(&self) -> &str {
        "foreign"
    }

    fn shape(&self) -> (usize, usize) {
        self.0.dim()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, _: &Epilogue<'_>) {
        y.assign(&x.dot(&self.0.t()));
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        dx.assign(&dy.dot(&self.0));
    }

    fn to_dense(&self) -> Array2<f32> {
        self.0.clone()
    }

    fn nnz(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        4 * self.0.len()
    }
}

#[test]
fn a_storage_that_says_nothing_of_rows_has_them_all_the_same() {
    rows_are_those_of_the_whole("foreign", &Foreign(normal(5, 7)));
    rows_are_those_of_the_whole("foreign", &Foreign(normal(5, 0)));
}

#[test]
#[should_panic(expected = "row 3 of 3 x 5 into 5 numbers")]
fn a_row_behind_the_last_panics() {
    let op = Plan::new(&normal(3, 5), &random_mask(3, 5, 0.5), Hint::tokens(1)).unwrap();
    op.row_into(3, &mut [0.0; 5]);
}

#[test]
#[should_panic(expected = "row 2 of 3 x 5 into 4 numbers")]
fn a_row_that_does_not_fit_panics() {
    Foreign(normal(3, 5)).row_into(2, &mut [0.0; 4]);
}
