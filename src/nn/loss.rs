//! Losses of one sample, averaged over the batch, with the derivatives that pruning needs.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use serde::{Deserialize, Serialize};

/// What training makes small. `z` is the network's output and `t` the target, each `(batch, classes)`.
///
/// | loss | of one sample | ∂/∂z | ∂²/∂z² (its diagonal) |
/// |---|---|---|---|
/// | `CrossEntropy` | −Σₖ tₖ log pₖ, p = softmax z | p Σt − t | p (1 − p) Σt |
/// | `SquaredError` | Σₖ (zₖ − tₖ)² | 2 (z − t) | 2 |
///
/// Targets of the cross-entropy are probabilities: one-hot, or soft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Softmax cross-entropy.
    CrossEntropy,
    /// Sum of squares, without the factor ½ (as Optimal Brain Damage has it).
    SquaredError,
}

impl Loss {
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
                Loss::CrossEntropy => {
                    let log_sum = log_sum_exp(z);
                    pairs.map(|(z, t)| t * (log_sum - z)).sum()
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
            Loss::CrossEntropy => softmax(output) * &target.sum_axis(Axis(1)).insert_axis(Axis(1)) - target,
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
            Loss::CrossEntropy => softmax(output).mapv(|p| p * (1.0 - p)) * &target.sum_axis(Axis(1)).insert_axis(Axis(1)),
        }
    }

    /// Arrays `r_k (batch, classes)` with Σ_k r_k r_kᵀ the loss's Hessian in z, for each sample: the Gauss-Newton matrix of a
    /// network is the sum over samples and k of the outer products of Jᵀ r_k, J the Jacobian of the outputs.
    ///
    /// | loss | r_k |
    /// |---|---|
    /// | `CrossEntropy` | √(p_k Σt) (e_k − p) |
    /// | `SquaredError` | √2 e_k |
    ///
    /// # Panics
    /// If output and target differ in shape.
    pub fn curvature_roots(self, output: &Array2<f32>, target: &Array2<f32>) -> Vec<Array2<f32>> {
        assert_eq!(output.dim(), target.dim(), "output and target differ in shape");
        let p = softmax(output);
        let weight = target.sum_axis(Axis(1));
        let root = |k: usize| match self {
            Loss::SquaredError => {
                Array2::from_shape_fn(output.dim(), |(_, j)| if j == k { std::f32::consts::SQRT_2 } else { 0.0 })
            }
            Loss::CrossEntropy => Array2::from_shape_fn(output.dim(), |(n, j)| {
                (p[[n, k]] * weight[n]).max(0.0).sqrt() * (f32::from(u8::from(j == k)) - p[[n, j]])
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
            Loss::CrossEntropy => {
                let p = softmax(output);
                let along = (&p * direction).sum_axis(Axis(1)).insert_axis(Axis(1));
                &p * &(direction - &along) * &target.sum_axis(Axis(1)).insert_axis(Axis(1))
            }
        }
    }
}

/// log Σ exp z, in f64.
fn log_sum_exp(z: ArrayView1<'_, f32>) -> f64 {
    let max = f64::from(z.fold(f32::NEG_INFINITY, |m, &z| m.max(z)));
    max + z.iter().map(|&z| (f64::from(z) - max).exp()).sum::<f64>().ln()
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
