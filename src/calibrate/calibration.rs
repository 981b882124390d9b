//! Samples and targets of a chain of layers, and how they are measured.

use crate::mask::check_finite;
use crate::nn::{Curvature, Loss, Objective, Passes, Samples, Targets};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};

/// The data to measure a [`Network`](crate::nn::Network) on, and how.
#[derive(Debug, Clone, Copy)]
pub struct Calibration<'a> {
    /// `(samples, inputs)`.
    pub x: &'a ArrayRef2<f32>,
    /// `(samples, outputs)`.
    pub target: &'a ArrayRef2<f32>,
    /// Whose derivatives are measured.
    pub loss: Loss,
    /// Which second derivatives.
    pub curvature: Curvature,
    /// Samples of one pass. What is measured is a mean over all samples whatever this is, up to rounding.
    pub batch: usize,
    /// Samples whose gradients are averaged into one row of [`Need::SampleGradients`](crate::criteria::Need).
    pub minibatch: usize,
}

impl<'a> Calibration<'a> {
    /// In passes of 256 samples, with the Gauss-Newton curvature, and gradients of single samples.
    pub fn new(x: &'a ArrayRef2<f32>, target: &'a ArrayRef2<f32>, loss: Loss) -> Self {
        let Passes { batch, minibatch, curvature } = Passes::default();
        Calibration { x, target, loss, curvature, batch, minibatch }
    }
}

/// The loss on the targets.
impl Objective for Calibration<'_> {
    fn dim(&self) -> (usize, usize) {
        self.target.dim()
    }

    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
        let Calibration { target, loss, .. } = *self;
        let sum = Targets { target, loss }.loss(rows, outputs, 1);
        // What is measured is divided, where a step of training multiplies by the inverse: the last bits differ.
        *outputs /= count as f32;
        sum
    }

    fn targets(&self) -> Option<(Loss, &ArrayRef2<f32>)> {
        Some((self.loss, self.target))
    }
}

impl Samples for Calibration<'_> {
    type Batch = Array2<f32>;

    fn len(&self) -> usize {
        self.x.nrows()
    }

    fn batch(&self, samples: &[usize]) -> Array2<f32> {
        self.x.select(Axis(0), samples)
    }

    fn objective(&self) -> &dyn Objective {
        self
    }

    fn passes(&self) -> Passes {
        Passes { batch: self.batch, minibatch: self.minibatch, curvature: self.curvature }
    }

    fn check(&self, widths: Option<(usize, usize)>) -> Result<()> {
        let samples = self.len();
        let (inputs, outputs) = widths.unwrap_or((self.x.ncols(), self.target.ncols()));
        if self.x.ncols() != inputs || self.target.nrows() != samples {
            let found = [self.x.nrows(), self.x.ncols(), self.target.nrows()];
            return Err(Error::shape("calibration samples, inputs and targets", &[samples, inputs, samples], &found));
        }
        if self.target.ncols() != outputs {
            return Err(Error::shape("calibration targets", &[samples, outputs], &[samples, self.target.ncols()]));
        }
        check_finite(self.x, "calibration samples")?;
        check_finite(self.target, "calibration targets")
    }
}
