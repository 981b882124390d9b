//! Contenders, taken in turns.

use lacuna::linalg::{Threads, gemm};
use lacuna::report::median;
use lacuna::sparse::{Dense, LinearOp};
use lacuna::{Error, Result};
use ndarray::{Array2, ArrayViewMut2};
use serde::Serialize;
use sprs::CsMatI;
use std::time::Instant;

/// What a case found.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub shape: String,
    pub tokens: usize,
    pub pattern: String,
    pub sparsity: f64,
    pub values: String,
    pub threads: usize,
    pub cold: bool,
    pub isa: &'static str,
    pub format: String,
    pub kernel: &'static str,
    /// Median microseconds of the fastest dense product, and whose it is.
    pub dense_us: f64,
    pub dense_kernel: &'static str,
    pub sparse_us: f64,
    /// The product of the crate `sprs`, in the layout that it likes best, on one thread.
    pub sprs_us: Option<f64>,
    pub speedup: f64,
    pub pack_us: f64,
    pub bytes: usize,
    pub dense_bytes: usize,
    /// Largest distance of the sparse product from the one in f64, over all entries.
    pub max_error: f64,
}

/// Writes x · Wᵀ of some weight.
type Run<'a> = Box<dyn FnMut(&Array2<f32>, &mut Array2<f32>) + 'a>;

/// A product with a name; it is run on one copy of its weight after the other.
pub struct Contender<'a> {
    name: &'static str,
    run: Run<'a>,
}

impl<'a> Contender<'a> {
    pub fn sparse(ops: &'a [Box<dyn LinearOp>]) -> Contender<'a> {
        let mut turn = 0;
        let run = move |x: &Array2<f32>, y: &mut Array2<f32>| {
            ops[turn % ops.len()].apply_into(x, y);
            turn += 1;
        };
        Contender { name: "sparse", run: Box::new(run) }
    }

    /// Every dense product that is linked.
    pub fn dense(weights: &'a [Array2<f32>]) -> Vec<Contender<'a>> {
        let contender = |name, product: fn(&Array2<f32>, &Array2<f32>, &mut Array2<f32>)| {
            let mut turn = 0;
            let run = move |x: &Array2<f32>, y: &mut Array2<f32>| {
                product(&weights[turn % weights.len()], x, y);
                turn += 1;
            };
            Contender { name, run: Box::new(run) as Run<'a> }
        };
        let ops: Vec<Dense> = weights.iter().map(|w| Dense::new(w.clone())).collect();
        let mut turn = 0;
        let own = move |x: &Array2<f32>, y: &mut Array2<f32>| {
            ops[turn % ops.len()].apply_into(x, y);
            turn += 1;
        };
        vec![
            Contender { name: "lacuna", run: Box::new(own) },
            contender("gemm", |w, x, y| gemm(0.0, y, 1.0, x, &w.t(), Threads::Pool)),
            contender("matrixmultiply", |w, x, y| ndarray::linalg::general_mat_mul(1.0, x, &w.t(), 0.0, y)),
        ]
    }

    /// `W · xᵀ` with x turned beforehand.
    pub fn sprs(csr: &'a CsMatI<f32, u32>, turned: &'a Array2<f32>) -> Contender<'a> {
        let mut out = Array2::zeros((csr.rows(), turned.ncols()));
        let run = move |_: &Array2<f32>, _: &mut Array2<f32>| {
            out.fill(0.0);
            let out: ArrayViewMut2<'_, f32> = out.view_mut();
            sprs::prod::csr_mulacc_dense_rowmaj(csr.view(), turned.view(), out);
        };
        Contender { name: "sprs", run: Box::new(run) }
    }
}

/// How long to measure.
pub struct Timer {
    pub seconds: f64,
}

/// What one turn of a contender takes at least, so that clocks and caches have settled.
const TURN: f64 = 2e-3;

impl Timer {
    /// Median microseconds of each contender; they take turns, so that what the machine does meanwhile meets all of them.
    pub fn medians(&self, contenders: &mut [Contender<'_>], x: &Array2<f32>, out: usize) -> Result<Vec<(&'static str, f64)>> {
        let mut y = Array2::zeros((x.nrows(), out));
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
        let begin = Instant::now();
        let mut rounds = 0;
        while rounds < 4 || begin.elapsed().as_secs_f64() < self.seconds {
            for (contender, times) in contenders.iter_mut().zip(&mut times) {
                (contender.run)(x, &mut y); // the others' weights leave the caches
                let turn = Instant::now();
                let mut first = true;
                while std::mem::take(&mut first) || turn.elapsed().as_secs_f64() < TURN {
                    let start = Instant::now();
                    (contender.run)(x, &mut y);
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                    std::hint::black_box(&y);
                }
            }
            rounds += 1;
        }
        contenders.iter().zip(times).map(|(c, times)| Ok((c.name, median(&times)?))).collect()
    }
}

/// The largest distance of `op` from the product in f64; an error if it is more than rounding explains.
pub fn check(op: &dyn LinearOp, weight: &Array2<f32>, x: &Array2<f32>) -> Result<f64> {
    let (out, inputs) = op.shape();
    let mut y = Array2::zeros((x.nrows(), out));
    op.apply_into(x, &mut y);
    let mut worst = 0.0f64;
    for t in 0..x.nrows() {
        for r in 0..out {
            let (mut sum, mut size) = (0.0f64, 0.0f64);
            for (w, x) in weight.row(r).iter().zip(x.row(t)) {
                let product = f64::from(*w) * f64::from(*x);
                sum += product;
                size += product.abs();
            }
            let error = (f64::from(y[[t, r]]) - sum).abs();
            // n additions in any order: n roundings of at most the sum of sizes.
            if error > f64::from(f32::EPSILON) * (inputs as f64 + 2.0) * size + 1e-30 {
                let (format, product) = (op.format(), y[[t, r]]);
                return Err(Error::setting("format", format!("{format} gives {product} for {sum} at token {t}, output {r}")));
            }
            worst = worst.max(error);
        }
    }
    Ok(worst)
}
