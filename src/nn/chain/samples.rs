//! The gradient of every sample apart: rows of the Jacobian, from which second-order methods build their matrices.

use super::passes::{At, Pass};
use super::{Affine, BatchNorm, Map, Network, Pact, Tape};
use ndarray::{Array2, Axis, Zip, s};
use rayon::prelude::*;

impl Network {
    /// What each sample alone adds to [`Network::backward`]: `(batch, parameters)`, the parameters of [`Network::params`] one
    /// after the other, each row-major.
    ///
    /// With `d` the derivative of the loss that is a sample's gradient; with `d` 1 in one output and 0 in the others, the row
    /// of the Jacobian ∂output/∂w of each sample. Batch normalisation must have run on its running statistics: in training
    /// the samples of a batch are not apart.
    ///
    /// Cost: as `backward`, and `batch * parameters` floats.
    ///
    /// ```
    /// use lacuna::{models::{Init, mlp}, nn::{Activation, Mode}, rng::Seed};
    /// use ndarray::array;
    /// let net = mlp(&[2, 1], Activation::Tanh, Init::LeCun, Seed(0))?; // z = w · x + b
    /// let tape = net.run(array![[3., 4.], [5., 6.]], Mode::Eval);
    /// assert_eq!(net.sample_gradients(&tape, array![[1.], [2.]]), array![[3., 4., 1.], [10., 12., 2.]]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Panics
    /// If `d` has not the output's shape, or batch normalisation ran on the batch's statistics.
    pub fn sample_gradients(&self, tape: &Tape, d: Array2<f32>) -> Array2<f32> {
        let (batch, total) = (d.nrows(), self.parameters());
        let mut pass = Rows { rows: Array2::zeros((batch, total)), end: total };
        self.walk_back(tape, d, &mut pass);
        pass.rows
    }
}

/// Rows that are filled from the last parameter to the first.
struct Rows {
    rows: Array2<f32>,
    end: usize,
}

impl Rows {
    /// The columns of the parameter before those that are filled.
    fn before(&mut self, len: usize) -> ndarray::ArrayViewMut2<'_, f32> {
        let part = s![.., self.end - len..self.end];
        self.end -= len;
        self.rows.slice_mut(part)
    }
}

impl Pass for Rows {
    fn affine(&mut self, at: &At<'_>, a: &Affine, d: &Array2<f32>) {
        if a.bias.is_some() {
            let sums = a.map.over_positions(d);
            self.before(sums.ncols()).assign(&sums);
        }
        let (rows, cols) = a.map.weight_dim();
        let mut part = self.before(rows * cols);
        match &a.map {
            Map::Linear { .. } => {
                let samples = Zip::from(part.rows_mut()).and(at.x.rows()).and(d.rows());
                samples.par_for_each(|mut out, x, d| {
                    for (mut out, &d) in out.exact_chunks_mut(cols).into_iter().zip(d) {
                        out.zip_mut_with(&x, |out, &x| *out = d * x);
                    }
                });
            }
            Map::Conv2d(_) => part.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(n, mut out)| {
                let one = |v: &Array2<f32>| v.slice(s![n..n + 1, ..]).to_owned();
                let gradient = a.map.weight_gradient(&one(at.x), &one(d));
                out.iter_mut().zip(&gradient).for_each(|(out, g)| *out = *g);
            }),
        }
    }

    fn pact(&mut self, at: &At<'_>, p: &Pact, d: &Array2<f32>) {
        self.before(1).assign(&p.sample_gradients(at.x, d));
    }

    fn norm(&mut self, at: &At<'_>, b: &BatchNorm, d: &Array2<f32>, _: [Array2<f32>; 2]) {
        let (mean, inverse, count) = b.statistics(at.saved);
        assert_eq!(count, 0, "batch statistics tie the samples of a batch together");
        let channels = b.channels();
        let mut part = self.before(2 * channels);
        Zip::from(part.rows_mut()).and(at.x.rows()).and(d.rows()).for_each(|mut out, x, d| {
            for c in 0..channels {
                let at = c * b.positions..(c + 1) * b.positions;
                out[c] = at.clone().map(|i| d[i] * (x[i] - mean[c]) * inverse[c]).sum();
                out[channels + c] = at.map(|i| d[i]).sum();
            }
        });
    }
}
