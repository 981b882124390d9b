//! [`Dataset`]: samples with labels.

use crate::mask::check_finite;
use crate::{Error, Result};
use ndarray::{Array2, Axis};

/// Samples, one a row, each of one class.
///
/// # Invariants
/// - `x` is `(n, features)` and finite, `labels` has `n` entries below `classes`.
/// - `shape` is `(channels, height, width)` of one sample, whose product is `features`; the width runs fastest.
///
/// ```
/// use lacuna::data::Dataset;
/// use ndarray::array;
/// let set = Dataset::new(array![[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], vec![1, 0, 0], 2, (1, 1, 2))?;
/// assert_eq!(set.one_hot(1.0, -1.0), array![[-1.0, 1.0], [1.0, -1.0], [1.0, -1.0]]);
/// assert_eq!(set.select(&[2, 0]).labels(), [0, 1]);
/// let (rest, held_out) = set.split(&[1]);
/// assert_eq!((rest.len(), held_out.len()), (2, 1));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    x: Array2<f32>,
    labels: Vec<usize>,
    classes: usize,
    shape: (usize, usize, usize),
}

impl Dataset {
    /// A set of the samples `x`, `(n, features)`, with a label below `classes` for each. `shape` is `(channels, height,
    /// width)` of one sample.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of labels is not `n` or `shape` does not multiply to `features`; [`Error::InvalidOption`] if
    /// a label is not below `classes`; [`Error::NotFinite`] if a value is NaN or infinite.
    pub fn new(x: Array2<f32>, labels: Vec<usize>, classes: usize, shape: (usize, usize, usize)) -> Result<Self> {
        let (n, features) = x.dim();
        if labels.len() != n {
            return Err(Error::shape("labels", &[n], &[labels.len()]));
        }
        let (channels, height, width) = shape;
        if channels.checked_mul(height).and_then(|p| p.checked_mul(width)) != Some(features) {
            return Err(Error::shape(format!("samples of {features} features"), &[features], &[channels, height, width]));
        }
        if let Some((row, label)) = labels.iter().enumerate().find(|(_, l)| **l >= classes) {
            return Err(Error::invalid_option(
                "labels",
                format!("label {label} of row {row} is not below the {classes} classes"),
            ));
        }
        check_finite(&x, "samples")?;
        Ok(Dataset { x, labels, classes, shape })
    }

    /// The samples, `(n, features)`.
    pub fn x(&self) -> &Array2<f32> {
        &self.x
    }

    /// The class of each sample, `n` of them.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// `(channels, height, width)` of one sample.
    pub fn shape(&self) -> (usize, usize, usize) {
        self.shape
    }

    /// Numbers in one sample.
    pub fn features(&self) -> usize {
        self.x.ncols()
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many samples each class has.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes];
        self.labels.iter().for_each(|l| counts[*l] += 1);
        counts
    }

    /// The samples of these rows, in this order; a row may come more than once.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select(&self, rows: &[usize]) -> Dataset {
        self.check_rows(rows);
        let labels = rows.iter().map(|r| self.labels[*r]).collect();
        Dataset { x: self.x.select(Axis(0), rows), labels, classes: self.classes, shape: self.shape }
    }

    /// The samples of all other rows in their order, then those of these rows in the order given.
    ///
    /// # Panics
    /// If there is no such row, or one is given twice.
    pub fn split(&self, held_out: &[usize]) -> (Dataset, Dataset) {
        self.check_rows(held_out);
        let mut stays = vec![true; self.len()];
        for row in held_out {
            assert!(std::mem::replace(&mut stays[*row], false), "row {row} is held out twice");
        }
        let rest: Vec<usize> = (0..self.len()).filter(|r| stays[*r]).collect();
        (self.select(&rest), self.select(held_out))
    }

    /// Targets `(n, classes)`: `on` in the column of a sample's class, `off` in the others.
    pub fn one_hot(&self, on: f32, off: f32) -> Array2<f32> {
        let mut targets = Array2::from_elem((self.len(), self.classes), off);
        self.labels.iter().enumerate().for_each(|(row, label)| targets[[row, *label]] = on);
        targets
    }

    fn check_rows(&self, rows: &[usize]) {
        let n = self.len();
        assert!(rows.iter().all(|r| *r < n), "a row of {:?} lies outside {n} samples", rows.iter().max());
    }
}
