//! The Gram matrix XᵀX of a stream of inputs.
//!
//! ```text
//!                 panel j ->
//!             ┌────┬────┬────┐     for each panel of columns i, for each chunk of tokens c:
//!   panel i   │ ## │ ## │ ## │       scratch (f32)  =  X[c, i]ᵀ · X[c, i..]       one product
//!      |      │    │ ## │ ## │       sum (f64)     +=  scratch
//!      v      │    │    │ ## │     the blocks below the diagonal are never computed
//!             └────┴────┴────┘
//! ```
//!
//! Products of at most 256 tokens are summed in f32, the chunks in f64: the error does not grow with the
//! number of tokens, and the products keep the speed of f32.

use crate::linalg::layout::mirror_upper;
use crate::linalg::{Threads, gemm};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis, s};
use rayon::prelude::*;

/// Tokens whose products are summed in f32.
const CHUNK: usize = 256;
/// Columns of x whose products with all later columns are one gemm.
const PANEL: usize = 64;
/// Largest |x|: the squares of [`CHUNK`] such numbers still sum to a finite f32 (256 · 1e36 < 3.4e38).
const LARGEST: f32 = 1e18;

/// A Gram matrix XᵀX, summed over as many batches of inputs x `(tokens, dim)` as one likes.
///
/// ```
/// use lacuna::linalg::Gram;
/// use ndarray::array;
///
/// let mut gram = Gram::new(2);
/// gram.update(&array![[1., 2.], [3., 4.]])?;
/// gram.update(&array![[0., 1.]])?;
/// assert_eq!(gram.matrix(), array![[10., 14.], [14., 21.]]);
/// assert_eq!(gram.tokens(), 3);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Precision
/// Each entry is a sum over chunks of at most 256 tokens of one batch; within a chunk in f32, from chunk to chunk in f64. So
/// `|error of entry (i, j)| <= 256 · 2⁻²⁴ · Σ |x_i| |x_j|`, however many tokens there are. Small integers are exact. The
/// bits do not depend on the number of threads; they do depend on how the tokens are cut into batches.
///
/// # Cost
/// `tokens · dim · (dim + 64) / 2` multiplications and additions, about half of the full product; `8 dim²` bytes for the sum and
/// `256 dim` for each thread's panel.
#[derive(Debug, Clone)]
pub struct Gram {
    /// `(dim, dim)`; only the blocks on and above the diagonal are kept up to date.
    sum: Array2<f64>,
    tokens: usize,
}

impl Gram {
    /// The Gram matrix of no tokens at all: zero, `(dim, dim)`.
    pub fn new(dim: usize) -> Self {
        Gram { sum: Array2::zeros((dim, dim)), tokens: 0 }
    }

    /// Columns of x, and the order of [`matrix`](Self::matrix).
    pub fn dim(&self) -> usize {
        self.sum.nrows()
    }

    /// Rows of x seen so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds xᵀx for x `(tokens, dim)`, of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if x has not `dim` columns, [`Error::NotFinite`] at the first NaN or infinity, [`Error::Numerical`]
    /// at a number beyond ±1e18, whose square overflows. After an error the sum is as it was before.
    pub fn update(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        let (tokens, dim) = x.dim();
        if dim != self.dim() {
            return Err(Error::shape("inputs of the Gram matrix (tokens, in)", &[tokens, self.dim()], &[tokens, dim]));
        }
        Gram::check(x, 0)?;
        // A panel is one task: products shared out among threads one by one would wait for one another, as long as they take here.
        let panels: Vec<_> = self.sum.axis_chunks_iter_mut(Axis(0), PANEL).enumerate().collect();
        panels.into_par_iter().with_max_len(1).for_each(|(i, mut panel)| {
            let (first, last) = (i * PANEL, i * PANEL + panel.nrows());
            // The panel of the sum stays in the cache while the tokens go by.
            let mut sum = panel.slice_mut(s![.., first..]);
            let mut product = Array2::<f32>::zeros(sum.dim());
            for chunk in x.axis_chunks_iter(Axis(0), CHUNK) {
                let (left, right) = (chunk.slice(s![.., first..last]), chunk.slice(s![.., first..]));
                gemm(1.0, &left.t(), &right, 0.0, &mut product, Threads::One);
                sum.zip_mut_with(&product, |sum, &p| *sum += f64::from(p));
            }
        });
        self.tokens += tokens;
        Ok(())
    }

    /// Adds what another stream of the same inputs has seen.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn merge(&mut self, other: &Gram) {
        assert!(self.dim() == other.dim(), "merge: Gram matrices of order {} and {}", self.dim(), other.dim());
        self.sum += &other.sum;
        self.tokens += other.tokens;
    }

    /// As [`Gram::matrix`], without a copy.
    pub fn into_matrix(mut self) -> Array2<f64> {
        mirror_upper(&mut self.sum);
        self.sum
    }

    /// XᵀX, `(dim, dim)`: full, and symmetric to the bit.
    pub fn matrix(&self) -> Array2<f64> {
        let mut full = self.sum.clone();
        mirror_upper(&mut full);
        full
    }
}

impl Gram {
    /// All entries finite and small enough that no f32 product of a chunk overflows; rows are counted from `first` on.
    pub(crate) fn check(x: &ArrayRef2<f32>, first: usize) -> Result<()> {
        // NaN compares false, so one comparison rejects all that is not a usable number.
        let usable = |v: f32| v.abs() <= LARGEST;
        if x.rows().into_iter().all(|row| row.fold(true, |all, &v| all & usable(v))) {
            return Ok(());
        }
        let Some(((row, col), &value)) = x.indexed_iter().find(|(_, v)| !usable(**v)) else { return Ok(()) };
        let row = first + row;
        let what = "inputs of the Gram matrix (tokens, in)".to_string();
        if value.is_finite() {
            let reason =
                format!("{value:e} at row {row}, column {col}: its square overflows; scale the inputs to at most {LARGEST:e}");
            return Err(Error::Numerical { what, reason });
        }
        Err(Error::NotFinite { what, row, col, value: f64::from(value) })
    }
}
