//! One layer, what is measured of it, and slow exact answers.

use lacuna::Result;
use lacuna::criteria::{Evidence, Measured};
use lacuna::io::Checkpoint;
use lacuna::linalg::Gram;
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::rng::Seed;
use lacuna::solve::{Pruned, Pruner};
use ndarray::{Array1, Array2, ArrayRef2, Axis};

pub struct Layer {
    pub weight: Array2<f32>,
    pub measured: Measured,
}

impl Layer {
    pub fn new(weight: Array2<f32>, x: &Array2<f32>) -> Self {
        let mut gram = Gram::new(x.ncols());
        gram.update(x).unwrap();
        let wide = x.mapv(f64::from);
        let measured = Measured {
            tokens: x.nrows(),
            gram: Some(gram.matrix()),
            input_squares: Some((&wide * &wide).sum_axis(Axis(0))),
            input_sums: Some(wide.sum_axis(Axis(0))),
            ..Measured::default()
        };
        Layer { weight, measured }
    }

    /// Weights and inputs by chance; the inputs of different sizes, each tied to the one before it.
    pub fn random(rows: usize, cols: usize, tokens: usize, seed: u64) -> Self {
        let mut stream = Seed(seed).stream("layer");
        let weight = stream.normal_array(rows, cols, 1.0);
        let mut x = stream.normal_array(tokens, cols, 1.0);
        for c in 1..cols {
            let before = x.column(c - 1).to_owned();
            let size = 0.3 + stream.uniform();
            x.column_mut(c).zip_mut_with(&before, |x, b| *x = size * (*x + 0.7 * b));
        }
        Layer::new(weight, &x)
    }

    pub fn evidence(&self) -> Evidence<'_> {
        Evidence { measured: &self.measured, ..Evidence::weight_only("blocks.3.o", &self.weight) }
    }

    pub fn gram(&self) -> &Array2<f64> {
        self.measured.gram.as_ref().unwrap()
    }

    pub fn prune(&self, pruner: &dyn Pruner, pattern: Pattern, sparsity: f64) -> Result<Pruned> {
        self.prune_in(pruner, pattern, Scope::Layer, sparsity)
    }

    pub fn prune_in(&self, pruner: &dyn Pruner, pattern: Pattern, scope: Scope, sparsity: f64) -> Result<Pruned> {
        let budget = pattern.budget(self.weight.nrows(), self.weight.ncols(), sparsity).unwrap();
        pruner.prune(&self.evidence(), pattern, scope, budget)
    }
}

pub fn keep(keep: usize, of: usize) -> Budget {
    Budget::new(keep, of).unwrap()
}

/// The golden layer, and one case of what plain versions of the methods made of it.
pub struct Golden(Checkpoint);

impl Golden {
    pub fn read() -> Self {
        Golden(Checkpoint::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/solve.safetensors")).unwrap())
    }

    pub fn layer(&self) -> Layer {
        Layer::new(self.0.matrix("weight").unwrap(), &self.0.matrix("inputs").unwrap())
    }

    pub fn weight(&self, case: &str) -> Array2<f32> {
        self.0.matrix(case).unwrap()
    }

    pub fn mask(&self, case: &str) -> Mask {
        let bytes: Vec<u8> = self.0.matrix(&format!("{case} mask")).unwrap().iter().map(|&b| b as u8).collect();
        Mask::from_bytes(16, 72, &bytes).unwrap()
    }
}

/// (a − b) H (a − b)ᵀ of one row.
pub fn row_error(a: &[f64], b: &[f64], gram: &Array2<f64>) -> f64 {
    let d = Array1::from_iter(a.iter().zip(b).map(|(a, b)| a - b));
    d.dot(&gram.dot(&d))
}

/// The least squares solution of one row on a support, by Gaussian elimination with pivots, in f64.
pub fn least_squares(w: &[f64], support: &[usize], gram: &Array2<f64>) -> Vec<f64> {
    let k = support.len();
    let mut a = Array2::from_shape_fn((k, k + 1), |(i, j)| {
        let row = gram.row(support[i]);
        if j < k { row[support[j]] } else { row.iter().zip(w).map(|(g, w)| g * w).sum() }
    });
    for c in 0..k {
        let pivot = (c..k).max_by(|&i, &j| a[[i, c]].abs().total_cmp(&a[[j, c]].abs())).unwrap();
        (0..=k).for_each(|j| a.swap([c, j], [pivot, j]));
        for r in (0..k).filter(|&r| r != c) {
            let factor = a[[r, c]] / a[[c, c]];
            (c..=k).for_each(|j| a[[r, j]] -= factor * a[[c, j]]);
        }
    }
    let mut out = vec![0.0; w.len()];
    (0..k).for_each(|i| out[support[i]] = a[[i, k]] / a[[i, i]]);
    out
}

/// The least error that any mask of one row with `keep` weights can have, over all of them.
pub fn best_row(w: &[f64], keep: usize, gram: &Array2<f64>, allowed: impl Fn(u32) -> bool) -> f64 {
    let masks = (0..1u32 << w.len()).filter(|m| m.count_ones() as usize == keep && allowed(*m));
    let error = |m: u32| {
        let support: Vec<usize> = (0..w.len()).filter(|i| m >> i & 1 == 1).collect();
        row_error(&least_squares(w, &support, gram), w, gram)
    };
    masks.map(error).fold(f64::INFINITY, f64::min)
}

pub fn wide(row: ndarray::ArrayView1<'_, f32>) -> Vec<f64> {
    row.iter().map(|&v| f64::from(v)).collect()
}

/// Largest difference of two weights; infinite where one is NaN.
pub fn distance(a: &ArrayRef2<f32>, b: &ArrayRef2<f32>) -> f32 {
    (&a.to_owned() - &b.to_owned()).fold(0.0, |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d.abs()) })
}

/// What `f` gives on a pool of this many threads.
pub fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}
