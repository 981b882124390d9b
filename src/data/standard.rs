//! Inputs of mean 0 and standard deviation 1.

use crate::data::Dataset;
use ndarray::{Array1, Array2, Axis};

/// What is subtracted from each column, and what it is divided by.
///
/// ```
/// use lacuna::data::Standard;
/// use ndarray::array;
/// let x = array![[1., 5.], [3., 5.]];
/// assert_eq!(Standard::each(&x, 0.1).apply(&x), array![[-1., 0.], [1., 0.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Standard {
    mean: Array1<f32>,
    sd: Array1<f32>,
}

impl Standard {
    /// Every column by its own mean and deviation, but by no deviation below `least`: a pixel at the border is hardly ever inked.
    pub fn each(x: &Array2<f32>, least: f32) -> Self {
        let mean = x.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(x.ncols()));
        Standard { mean, sd: x.std_axis(Axis(0), 0.0).mapv(|s| s.max(least)) }
    }

    /// All columns by the mean and deviation of all numbers together, as pixels of images.
    pub fn whole(x: &Array2<f32>) -> Self {
        let all = |v: f32| Array1::from_elem(x.ncols(), v);
        Standard { mean: all(x.mean().unwrap_or(0.0)), sd: all(x.std(0.0).max(f32::MIN_POSITIVE)) }
    }

    /// `x (samples, columns)` in these units.
    ///
    /// # Panics
    /// If there are not as many columns as there were.
    pub fn apply(&self, x: &Array2<f32>) -> Array2<f32> {
        (x - &self.mean) / &self.sd
    }

    /// Samples in these units, and targets: `on` for the class, `off` for the others.
    ///
    /// # Panics
    /// As [`Standard::apply`].
    pub fn samples(&self, set: &Dataset, on: f32, off: f32) -> (Array2<f32>, Array2<f32>) {
        (self.apply(set.x()), set.one_hot(on, off))
    }
}
