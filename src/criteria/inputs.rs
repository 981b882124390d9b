//! Sums over the inputs of a layer: what criteria and pruners need of activations.

use super::{Measured, Need, Needs};
use crate::Result;
use crate::linalg::Gram;
use crate::mask::check_finite_from;
use ndarray::{Array1, ArrayRef2, Axis};

/// Sums over the inputs of a layer, a few tokens at a time: the squares of each input, the Gram matrix, the inputs themselves, their magnitudes, the largest of these.
///
/// ```
/// use lacuna::criteria::{InputSums, Need, Needs};
/// use ndarray::array;
/// let mut sums = InputSums::new(Needs::none().and(Need::Gram));
/// sums.add(&array![[1., 2.]])?;
/// sums.add(&array![[0., 1.]])?;
/// let measured = sums.into_measured();
/// assert_eq!((measured.tokens, measured.gram), (2, Some(array![[1., 2.], [2., 5.]])));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct InputSums {
    needs: Needs,
    tokens: usize,
    gram: Option<Gram>,
    squares: Option<Array1<f64>>,
    sums: Option<Array1<f64>>,
    magnitudes: Option<Array1<f64>>,
    maxima: Option<Array1<f64>>,
}

impl InputSums {
    /// Of nothing yet. Of `needs` those count that are sums over inputs.
    pub fn new(needs: Needs) -> Self {
        InputSums { needs, tokens: 0, gram: None, squares: None, sums: None, magnitudes: None, maxima: None }
    }

    /// Rows that were added.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds inputs `(tokens, in)`.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) at the first that is not finite, its row counted over all tokens;
    /// [`Error::Shape`](crate::Error::Shape) if there are not as many inputs as before.
    pub fn add(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        let cols = x.ncols();
        let lengths = [&self.squares, &self.sums, &self.magnitudes, &self.maxima].map(|sums| sums.as_ref().map(Array1::len));
        let before = lengths.into_iter().chain([self.gram.as_ref().map(Gram::dim)]);
        if let Some(before) = before.flatten().find(|n| *n != cols) {
            return Err(crate::Error::shape("inputs (tokens, in)", &[x.nrows(), before], &[x.nrows(), cols]));
        }
        if self.needs.contains(Need::Gram) {
            Gram::check(x, self.tokens)?;
            self.gram.get_or_insert_with(|| Gram::new(cols)).update(x)?;
        } else {
            check_finite_from(x, "inputs (tokens, in)", self.tokens)?;
        }
        if self.needs.contains(Need::InputSquares) {
            let squares = self.squares.get_or_insert_with(|| Array1::zeros(cols));
            x.axis_iter(Axis(0)).for_each(|row| squares.zip_mut_with(&row, |s, &x| *s += f64::from(x) * f64::from(x)));
        }
        if self.needs.contains(Need::InputSums) {
            let sums = self.sums.get_or_insert_with(|| Array1::zeros(cols));
            x.axis_iter(Axis(0)).for_each(|row| sums.zip_mut_with(&row, |s, &x| *s += f64::from(x)));
        }
        if self.needs.contains(Need::InputMagnitudes) {
            let sums = self.magnitudes.get_or_insert_with(|| Array1::zeros(cols));
            x.axis_iter(Axis(0)).for_each(|row| sums.zip_mut_with(&row, |s, &x| *s += f64::from(x).abs()));
        }
        if self.needs.contains(Need::InputMaxima) {
            let maxima = self.maxima.get_or_insert_with(|| Array1::zeros(cols));
            x.axis_iter(Axis(0)).for_each(|row| maxima.zip_mut_with(&row, |m, &x| *m = m.max(f64::from(x).abs())));
        }
        self.tokens += x.nrows();
        Ok(())
    }

    /// Adds what other inputs of the same layers have summed to.
    ///
    /// ```
    /// use lacuna::criteria::{InputSums, Need, Needs};
    /// use ndarray::array;
    /// let of = |x: [f32; 2]| {
    ///     let mut sums = InputSums::new(Needs::none().and(Need::Gram));
    ///     sums.add(&array![x]).map(|()| sums)
    /// };
    /// let mut both = of([1., 2.])?;
    /// both.merge(&of([0., 1.])?);
    /// assert_eq!((both.tokens(), both.into_measured().gram), (2, Some(array![[1., 2.], [2., 5.]])));
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Panics
    /// If there are not as many inputs.
    pub fn merge(&mut self, other: &InputSums) {
        match (&mut self.gram, &other.gram) {
            (Some(gram), Some(other)) => gram.merge(other),
            (gram, other) => *gram = gram.take().or_else(|| other.clone()),
        }
        let sums = [&mut self.squares, &mut self.sums, &mut self.magnitudes];
        for (sum, other) in sums.into_iter().zip([&other.squares, &other.sums, &other.magnitudes]) {
            match (&mut *sum, other) {
                (Some(sum), Some(other)) => *sum += other,
                _ => *sum = sum.take().or_else(|| other.clone()),
            }
        }
        match (&mut self.maxima, &other.maxima) {
            (Some(maxima), Some(other)) => maxima.zip_mut_with(other, |m, o| *m = m.max(*o)),
            (maxima, other) => *maxima = maxima.take().or_else(|| other.clone()),
        }
        self.tokens += other.tokens;
    }

    /// What was measured.
    pub fn into_measured(self) -> Measured {
        let gram = self.gram.map(Gram::into_matrix);
        let (input_squares, input_sums) = (self.squares, self.sums);
        let (input_magnitudes, input_maxima) = (self.magnitudes, self.maxima);
        Measured { tokens: self.tokens, gram, input_squares, input_sums, input_magnitudes, input_maxima, ..Measured::default() }
    }
}

impl Measured {
    /// What is measured of inputs `(tokens, in)`: their squares, their sums and their Gram matrix. For more tokens than memory holds, and to
    /// leave out the Gram matrix, see [`InputSums`].
    ///
    /// ```
    /// use lacuna::criteria::{Evidence, Measured, Saliency, Wanda};
    /// use ndarray::array;
    /// let measured = Measured::of_inputs(&array![[3., 0.], [4., 1.]])?;
    /// let scores = Wanda.score(&Evidence::new("fc1", &array![[1., -2.]], &measured))?;
    /// assert_eq!(scores, array![[5., 2.]]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) at the first that is not finite.
    pub fn of_inputs(x: &ArrayRef2<f32>) -> Result<Measured> {
        let mut sums =
            InputSums::new([Need::Gram, Need::InputSquares, Need::InputSums].into_iter().fold(Needs::none(), Needs::and));
        sums.add(x)?;
        Ok(sums.into_measured())
    }
}
