//! What laws of products share: the naive product, whole numbers, and arrays of other strides.

use crate::mask::Mask;
use crate::random::Seed;
use crate::sparse::LinearOp;
use ndarray::{Array2, ArrayRef2, ArrayView2, ArrayViewMut2, s};

/// y = x · Wᵀ over what the mask keeps, in f64.
pub fn oracle(w: &ArrayRef2<f32>, mask: &Mask, x: &ArrayRef2<f32>) -> Array2<f64> {
    let term = |t: usize, o: usize, i: usize| f64::from(w[[o, i]]) * f64::from(x[[t, i]]);
    Array2::from_shape_fn((x.nrows(), w.nrows()), |(t, o)| mask.row_indices(o).map(|i| term(t, o, i)).sum())
}

/// The largest size of each row.
pub fn largest_of_rows(w: &ArrayRef2<f32>) -> Vec<f32> {
    w.rows().into_iter().map(|row| row.fold(0.0, |most, w| w.abs().max(most))).collect()
}

/// Whole numbers from -`max` to `max`, zeros among them.
pub fn whole(rows: usize, cols: usize, max: usize, name: &str) -> Array2<f32> {
    let mut stream = Seed(rows as u64 * 1000 + cols as u64).stream(name);
    Array2::from_shape_simple_fn((rows, cols), || stream.below(2 * max + 1) as f32 - max as f32)
}

/// Normal numbers.
pub fn normal(seed: u64, rows: usize, cols: usize) -> Array2<f32> {
    Seed(seed).stream("normal").normal_array(rows, cols, 1.0)
}

/// A way to look at an array, and to write into one.
pub type Look = fn(&Array2<f32>) -> ArrayView2<'_, f32>;
pub type LookMut = fn(&mut Array2<f32>) -> ArrayViewMut2<'_, f32>;

/// Views with the values of `x` and other strides.
pub fn layouts(x: &Array2<f32>) -> Vec<(&'static str, Array2<f32>, Look)> {
    let (rows, cols) = x.dim();
    let mut wide = Array2::from_elem((2 * rows, 3 * cols), f32::NAN);
    wide.slice_mut(s![..;2, ..;3]).assign(x);
    let mut mirrored = Array2::from_elem((rows, cols), f32::NAN);
    mirrored.slice_mut(s![..;-1, ..;-1]).assign(x);
    vec![
        ("as it is", x.clone(), |x| x.view()),
        ("transposed", x.t().as_standard_layout().into_owned(), |x| x.t()),
        ("strided", wide, |x| x.slice(s![..;2, ..;3])),
        ("reversed", mirrored, |x| x.slice(s![..;-1, ..;-1])),
    ]
}

/// Writes the product into views of other strides, over NaNs, and returns what each holds.
pub fn into_layouts(op: &dyn LinearOp, x: &ArrayRef2<f32>) -> Vec<(&'static str, Array2<f32>)> {
    let (tokens, out) = (x.nrows(), op.shape().0);
    let view: [(&str, (usize, usize), LookMut); 4] = [
        ("as it is", (tokens, out), |y| y.view_mut()),
        ("transposed", (out, tokens), |y| y.view_mut().reversed_axes()),
        ("strided", (2 * tokens, 3 * out), |y| y.slice_mut(s![..;2, ..;3])),
        ("reversed", (tokens, out), |y| y.slice_mut(s![..;-1, ..;-1])),
    ];
    let product = |(name, shape, view): (_, _, LookMut)| {
        let mut y = Array2::from_elem(shape, f32::NAN);
        op.apply_into(x, &mut view(&mut y));
        let written = view(&mut y).to_owned();
        // Nothing outside the view was touched.
        view(&mut y).fill(f32::NAN);
        assert!(y.iter().all(|y| y.is_nan()), "{name}: the product wrote outside its view");
        (name, written)
    };
    view.map(product).into()
}
