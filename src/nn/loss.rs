//! Losses of one sample, averaged over the batch, with the derivatives that pruning needs.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use serde::{Deserialize, Serialize};

/// What training makes small. `z` is the network's output and `t` the target, each `(batch, classes)`.
///
/// | loss | of one sample | ∂/∂z | ∂²/∂z² (its diagonal) |
/// |---|---|---|---|
/// | `CrossEntropy` | −Σₖ tₖ log pₖ, p = softmax z | p Σt − t | p (1 − p) Σt |
/// | `TemperedCrossEntropy` | −Σₖ tₖ log pₖ, p = softmax z/T | (p Σt − t) / T | p (1 − p) Σt / T² |
/// | `SquaredError` | Σₖ (zₖ − tₖ)² | 2 (z − t) | 2 |
///
/// Targets of the cross-entropies are probabilities: one-hot, or soft.
///
/// ```
/// use lacuna::nn::Loss;
/// use ndarray::array;
/// let (z, t) = (array![[4., 2.]], array![[0., 1.]]);
/// let warm = Loss::TemperedCrossEntropy { temperature: 2. };
/// assert_eq!(warm.value(&z, &t), Loss::CrossEntropy.value(&(&z / 2.), &t));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Softmax cross-entropy.
    CrossEntropy,
    /// Softmax cross-entropy of the outputs divided by a temperature, as [`crate::criteria::Grasp`] wants it.
    TemperedCrossEntropy {
        /// T, a finite number above 0; others give losses that are not finite or turned about.
        temperature: f32,
    },
    /// Sum of squares, without the factor ½ (as Optimal Brain Damage has it).
    SquaredError,
}

impl Loss {
    /// What a cross-entropy divides the outputs by.
    fn temperature(self) -> f32 {
        match self {
            Loss::TemperedCrossEntropy { temperature } => temperature,
            Loss::CrossEntropy | Loss::SquaredError => 1.0,
        }
    }

    /// The softmax of the outputs over the temperature, and Σt of each sample, `(batch, 1)`.
    fn probabilities(self, output: &Array2<f32>, target: &Array2<f32>) -> (Array2<f32>, Array2<f32>) {
        let temperature = self.temperature();
        (softmax(&output.mapv(|z| z / temperature)), target.sum_axis(Axis(1)).insert_axis(Axis(1)))
    }

    /// The mean over the batch, summed in f64.
    ///
    /// # Panics
    /// If output and target differ in shape.
    pub fn value(self, output: &Array2<f32>, target: &Array2<f32>) -> f64 {
        self.values(output, target).sum() / output.nrows() as f64
    }

    /// The loss of each sample, `(batch)`.
    ///
    /// # Panics
    /// If output and target differ in shape.
    pub fn values(self, output: &Array2<f32>, target: &Array2<f32>) -> Array1<f64> {
        assert_eq!(output.dim(), target.dim(), "output and target differ in shape");
        let sample = |z: ArrayView1<'_, f32>, t: ArrayView1<'_, f32>| -> f64 {
            let pairs = z.iter().map(|&z| f64::from(z)).zip(t.iter().map(|&t| f64::from(t)));
            match self {
                Loss::SquaredError => pairs.map(|(z, t)| (z - t) * (z - t)).sum(),
                Loss::CrossEntropy | Loss::TemperedCrossEntropy { .. } => {
                    let temperature = f64::from(self.temperature());
                    let log_sum = log_sum_exp(z, temperature);
                    pairs.map(|(z, t)| t * (log_sum - z / temperature)).sum()
                }
            }
        };
        output.rows().into_iter().zip(target.rows()).map(|(z, t)| sample(z, t)).collect()
    }

    /// ∂loss/∂z of each sample, not averaged: `(batch, classes)`.
    ///
    /// # Panics
    /// If output and target differ in shape.
    pub fn gradient(self, output: &Array2<f32>, target: &Array2<f32>) -> Array2<f32> {
        assert_eq!(output.dim(), target.dim(), "output and target differ in shape");
        match self {
            Loss::SquaredError => (output - target) * 2.0,
            Loss::CrossEntropy | Loss::TemperedCrossEntropy { .. } => {
                let (p, weight) = self.probabilities(output, target);
                (p * &weight - target) / self.temperature()
            }
        }
    }

    /// ∂²loss/∂z² of each sample, the diagonal, not averaged: `(batch, classes)`.
    ///
    /// # Panics
    /// If output and target differ in shape.
    pub fn curvature(self, output: &Array2<f32>, target: &Array2<f32>) -> Array2<f32> {
        assert_eq!(output.dim(), target.dim(), "output and target differ in shape");
        match self {
            Loss::SquaredError => Array2::from_elem(output.dim(), 2.0),
            Loss::CrossEntropy | Loss::TemperedCrossEntropy { .. } => {
                let (p, weight) = self.probabilities(output, target);
                p.mapv(|p| p * (1.0 - p)) * &weight / self.temperature().powi(2)
            }
        }
    }

    /// Arrays `r_k (batch, classes)` with Σ_k r_k r_kᵀ the loss's Hessian in z, for each sample: the Gauss-Newton matrix of a
    /// network is the sum over samples and k of the outer products of Jᵀ r_k, J the Jacobian of the outputs.
    ///
    /// | loss | r_k |
    /// |---|---|
    /// | `CrossEntropy` | √(p_k Σt) (e_k − p) |
    /// | `TemperedCrossEntropy` | √(p_k Σt) (e_k − p) / T |
    /// | `SquaredError` | √2 e_k |
    ///
    /// # Panics
    /// If output and target differ in shape.
    pub fn curvature_roots(self, output: &Array2<f32>, target: &Array2<f32>) -> Vec<Array2<f32>> {
        assert_eq!(output.dim(), target.dim(), "output and target differ in shape");
        let (p, weight) = self.probabilities(output, target);
        let temperature = self.temperature();
        let root = |k: usize| match self {
            Loss::SquaredError => {
                Array2::from_shape_fn(output.dim(), |(_, j)| if j == k { std::f32::consts::SQRT_2 } else { 0.0 })
            }
            Loss::CrossEntropy | Loss::TemperedCrossEntropy { .. } => Array2::from_shape_fn(output.dim(), |(n, j)| {
                (p[[n, k]] * weight[[n, 0]]).max(0.0).sqrt() * (f32::from(u8::from(j == k)) - p[[n, j]]) / temperature
            }),
        };
        (0..output.ncols()).map(root).collect()
    }

    /// The loss's Hessian in z times a direction, for each sample: `(batch, classes)`.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn hessian_times(self, output: &Array2<f32>, target: &Array2<f32>, direction: &Array2<f32>) -> Array2<f32> {
        assert!(output.dim() == target.dim() && output.dim() == direction.dim(), "output, target and direction differ in shape");
        match self {
            Loss::SquaredError => direction * 2.0,
            Loss::CrossEntropy | Loss::TemperedCrossEntropy { .. } => {
                let (p, weight) = self.probabilities(output, target);
                let along = (&p * direction).sum_axis(Axis(1)).insert_axis(Axis(1));
                &p * &(direction - &along) * &weight / self.temperature().powi(2)
            }
        }
    }
}

/// log Σ exp z/T, in f64.
fn log_sum_exp(z: ArrayView1<'_, f32>, temperature: f64) -> f64 {
    let max = f64::from(z.fold(f32::NEG_INFINITY, |m, &z| m.max(z)));
    max / temperature + z.iter().map(|&z| ((f64::from(z) - max) / temperature).exp()).sum::<f64>().ln()
}

/// The softmax of each row of `z (batch, classes)`.
///
/// ```
/// use ndarray::array;
/// assert_eq!(lacuna::nn::softmax(&array![[0., 0.], [1000., 0.]]), array![[0.5, 0.5], [1., 0.]]);
/// ```
pub fn softmax(z: &Array2<f32>) -> Array2<f32> {
    let mut p = z.clone();
    for mut row in p.rows_mut() {
        let max = row.fold(f32::NEG_INFINITY, |m, &z| m.max(z));
        row.mapv_inplace(|z| (z - max).exp());
        let sum: f64 = row.iter().map(|&e| f64::from(e)).sum();
        row.mapv_inplace(|e| (f64::from(e) / sum) as f32);
    }
    p
}
