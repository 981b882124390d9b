//! Contenders, taken in turns.

use lacuna::linalg::{Product, Threads};
use lacuna::report::{median, quantile};
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
    /// Largest distance of an output of the sparse product from the same sum in f64, in units of y.
    pub max_error: f64,
    /// The largest share of such a distance in Σ |w x| of its output: about 1e-7 for each rounding that does not cancel.
    pub max_error_of_sizes: f64,
    /// Quartiles of the single products of which `dense_us` is the median, and how many they are.
    pub dense_quartiles_us: [f64; 2],
    pub dense_timed: usize,
    /// The same of `sparse_us`.
    pub sparse_quartiles_us: [f64; 2],
    pub sparse_timed: usize,
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
        Contender::named(SPARSE, ops)
    }

    /// Copies of one storage.
    pub fn named(name: &'static str, ops: &'a [Box<dyn LinearOp>]) -> Contender<'a> {
        let mut turn = 0;
        let run = move |x: &Array2<f32>, y: &mut Array2<f32>| {
            ops[turn % ops.len()].apply_into(x, y);
            turn += 1;
        };
        Contender { name, run: Box::new(run) }
    }

    /// Every dense product that is linked, this library's first.
    pub fn dense(weights: &'a [Dense]) -> [Contender<'a>; Product::ALL.len()] {
        Product::ALL.map(|product| {
            let mut turn = 0;
            let run = move |x: &Array2<f32>, y: &mut Array2<f32>| {
                let w = &weights[turn % weights.len()];
                turn += 1;
                product.run(1.0, x, &w.weight().t(), 0.0, y, Threads::Pool);
            };
            Contender { name: product.name(), run: Box::new(run) }
        })
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

/// What was timed of a contender.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    pub name: &'static str,
    /// Median microseconds of a product, and the quartiles.
    pub us: f64,
    pub quartiles_us: [f64; 2],
    /// Products that were timed.
    pub timed: usize,
}

/// Times each contender, in `seconds` for all of them. They take turns, so that what the machine does meanwhile
/// meets all of them; a contender that needs more than that for one product runs once.
pub fn times(contenders: &mut [Contender<'_>], x: &Array2<f32>, out: usize, seconds: f64) -> Result<Vec<Timed>> {
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
    let timed = |(c, times): (&Contender<'_>, Vec<f64>)| {
        let quartiles_us = [quantile(&times, 0.25)?, quantile(&times, 0.75)?];
        Ok(Timed { name: c.name, us: median(&times)?, quartiles_us, timed: times.len() })
    };
    contenders.iter().zip(times).map(timed).collect()
}

/// How far a product is off.
#[derive(Debug, Clone, Copy, Default)]
pub struct Off {
    /// The largest distance of an output from the sum in f64.
    pub largest: f64,
    /// The largest share of such a distance in the sum of sizes.
    pub of_sizes: f64,
}

/// How far `op` is off the product in f64 with what it stores; an error if it is more than rounding explains.
pub fn check(op: &dyn LinearOp, x: &Array2<f32>) -> Result<Off> {
    let weight = op.to_dense().mapv(f64::from);
    let wide = x.mapv(f64::from);
    let exact = wide.dot(&weight.t());
    // n additions in any order: n roundings of at most the sum of sizes.
    let sizes = wide.mapv(f64::abs).dot(&weight.mapv(f64::abs).t());
    let bound = f64::from(f32::EPSILON) * (weight.ncols() as f64 + 2.0);
    let y = apply(op, x);
    let mut worst = Off::default();
    for ((at, &y), (&exact, &size)) in y.indexed_iter().zip(exact.iter().zip(&sizes)) {
        let error = (f64::from(y) - exact).abs();
        if error.is_nan() || error > bound * size + f64::from(f32::MIN_POSITIVE) {
            let (format, (t, r)) = (op.format(), at);
            return Err(Error::setting("format", format!("{format} gives {y} for {exact} at token {t}, output {r}")));
        }
        worst.largest = worst.largest.max(error);
        worst.of_sizes = worst.of_sizes.max(if size > 0.0 { error / size } else { 0.0 });
    }
    Ok(worst)
}

/// Two quartiles, for reading.
pub fn spread([low, high]: [f64; 2]) -> String {
    format!("{low:.1} to {high:.1}")
}
