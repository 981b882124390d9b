//! Contenders, taken in turns.

use lacuna::linalg::{Threads, gemm};
use lacuna::report::median;
use lacuna::sparse::{Dense, LinearOp, apply};
use lacuna::{Error, Result};
use ndarray::{Array2, ArrayViewMut2};
use serde::Serialize;
use sprs::CsMatI;
use std::time::Instant;

/// What a case found. Some fields are there only where they say something.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub shape: String,
    pub tokens: usize,
    pub sparsity: f64,
    pub threads: usize,
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
    /// Time to make the storage, without the choice of it.
    pub pack_us: f64,
    pub bytes: usize,
    pub dense_bytes: usize,
    /// Largest distance of the sparse product from the one in f64, over all entries.
    pub max_error: f64,
    /// What survivors look like, if they have a pattern.
    #[serde(skip_serializing_if = "is_unstructured")]
    pub pattern: String,
    /// Numbers that the storage keeps, if they are not f32.
    #[serde(skip_serializing_if = "is_f32")]
    pub values: String,
    /// Whether weights came from memory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cold: bool,
}

fn is_unstructured(pattern: &str) -> bool {
    pattern == "unstructured"
}

fn is_f32(values: &str) -> bool {
    values == "f32"
}

/// Name of the storage that a case is about.
pub const SPARSE: &str = "sparse";
/// Name of the peer.
pub const SPRS: &str = "sprs";

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
        Contender { name: SPARSE, run: Box::new(run) }
    }

    /// Every dense product that is linked.
    pub fn dense(weights: &'a [Dense]) -> [Contender<'a>; 3] {
        let contender = |name, product: fn(&Dense, &Array2<f32>, &mut Array2<f32>)| {
            let mut turn = 0;
            let run = move |x: &Array2<f32>, y: &mut Array2<f32>| {
                product(&weights[turn % weights.len()], x, y);
                turn += 1;
            };
            Contender { name, run: Box::new(run) }
        };
        [
            contender("lacuna", |w, x, y| w.apply_into(x, y)),
            contender("gemm", |w, x, y| gemm(0.0, y, 1.0, x, &w.weight().t(), Threads::Pool)),
            contender("matrixmultiply", |w, x, y| ndarray::linalg::general_mat_mul(1.0, x, &w.weight().t(), 0.0, y)),
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
        Contender { name: SPRS, run: Box::new(run) }
    }
}

/// What one turn of a contender takes at least, in seconds, and what goes before it untimed, so that clocks and caches have settled. A last
/// cache that others filled may take ten passes until it holds a weight: with less, whoever reads what the one before it read looks
/// faster (by a fifth, with 9 MB in a cache of 32).
const TURN: f64 = 5e-3;
/// Products of a turn at least.
const RUNS: usize = 3;

/// Median microseconds of each contender, in `seconds` for all of them. They take turns, so that what the machine does meanwhile
/// meets all of them; a contender that needs more than that for one product runs once.
pub fn medians(contenders: &mut [Contender<'_>], x: &Array2<f32>, out: usize, seconds: f64) -> Result<Vec<(&'static str, f64)>> {
    let mut y = Array2::zeros((x.nrows(), out));
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 4 || begin.elapsed().as_secs_f64() < seconds {
        // Forth and back, so that nobody always comes behind one that reads the same weight.
        let n = contenders.len();
        for i in 0..n {
            let i = if rounds % 2 == 0 { i } else { n - 1 - i };
            let (contender, times) = (&mut contenders[i], &mut times[i]);
            if times.first().is_some_and(|us| us * 1e-6 > seconds) {
                continue;
            }
            // The others' weights leave the caches.
            let turn = Instant::now();
            (contender.run)(x, &mut y);
            if turn.elapsed().as_secs_f64() > seconds && rounds == 0 {
                times.push(turn.elapsed().as_secs_f64() * 1e6);
                continue;
            }
            while turn.elapsed().as_secs_f64() < TURN {
                (contender.run)(x, &mut y);
            }
            let turn = Instant::now();
            for run in 1.. {
                let start = Instant::now();
                (contender.run)(x, &mut y);
                times.push(start.elapsed().as_secs_f64() * 1e6);
                std::hint::black_box(&y);
                if run >= RUNS && turn.elapsed().as_secs_f64() >= TURN {
                    break;
                }
            }
        }
        rounds += 1;
    }
    contenders.iter().zip(times).map(|(c, times)| Ok((c.name, median(&times)?))).collect()
}

/// The largest distance of `op` from the product in f64 with what it stores; an error if it is more than rounding explains.
pub fn check(op: &dyn LinearOp, x: &Array2<f32>) -> Result<f64> {
    let weight = op.to_dense().mapv(f64::from);
    let wide = x.mapv(f64::from);
    let exact = wide.dot(&weight.t());
    // n additions in any order: n roundings of at most the sum of sizes.
    let sizes = wide.mapv(f64::abs).dot(&weight.mapv(f64::abs).t());
    let bound = f64::from(f32::EPSILON) * (weight.ncols() as f64 + 2.0);
    let y = apply(op, x);
    let mut worst = 0.0f64;
    for ((at, &y), (&exact, &size)) in y.indexed_iter().zip(exact.iter().zip(&sizes)) {
        let error = (f64::from(y) - exact).abs();
        if error.is_nan() || error > bound * size + f64::from(f32::MIN_POSITIVE) {
            let (format, (t, r)) = (op.format(), at);
            return Err(Error::setting("format", format!("{format} gives {y} for {exact} at token {t}, output {r}")));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}
