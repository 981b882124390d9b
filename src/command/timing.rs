//! Dense against sparse, on one shape where it matters.

use lacuna::Result;
use lacuna::criteria::{Evidence, Magnitude, Saliency};
use lacuna::mask::{Pattern, Scope, select};
use lacuna::report::median;
use lacuna::rng::Seed;
use lacuna::sparse::{Compress, Csr, Dense, LinearOp, apply};
use ndarray::Array2;
use serde::Serialize;
use std::time::Instant;

/// Outputs and inputs of the weight that is timed.
pub const SHAPE: (usize, usize) = (1536, 2048);
/// Tokens of a product.
pub const TOKENS: [usize; 2] = [1, 64];
const SPARSITIES: [f64; 6] = [0.5, 0.7, 0.8, 0.9, 0.95, 0.98];

/// One product.
#[derive(Debug, Clone, Serialize)]
pub struct Timing {
    pub tokens: usize,
    pub sparsity: f64,
    /// Median microseconds of a product.
    pub dense_us: f64,
    pub csr_us: f64,
    pub speedup: f64,
    pub dense_bytes: usize,
    pub csr_bytes: usize,
    /// Largest difference between the two results.
    pub difference: f64,
}

/// Times products of random weights, pruned by magnitude, with random inputs. Results are compared before anything is timed;
/// storing is not timed.
pub fn dense_against_csr(seed: Seed) -> Result<Vec<Timing>> {
    let (out, inputs) = SHAPE;
    let weight = seed.stream("timing/weight").normal_array(out, inputs, 1.0);
    let scores = Magnitude::default().score(&Evidence::weight_only("timing", weight.view()))?;
    let mut rows = Vec::new();
    for tokens in TOKENS {
        let x = seed.stream("timing/x").normal_array(tokens, inputs, 1.0);
        for sparsity in SPARSITIES {
            let budget = Pattern::Unstructured.budget(out, inputs, sparsity)?;
            let mask = select(&scores, Pattern::Unstructured, Scope::Layer, budget)?;
            let (dense, csr) = (Dense::compress(&weight, &mask)?, Csr::compress(&weight, &mask)?);
            let difference = super::largest_difference(&apply(&dense, &x), &apply(&csr, &x))?;
            let ops: [&dyn LinearOp; 2] = [&dense, &csr];
            let [dense_us, csr_us] = alternately(&ops, &x)?;
            rows.push(Timing {
                tokens,
                sparsity,
                dense_us,
                csr_us,
                speedup: dense_us / csr_us,
                dense_bytes: dense.bytes(),
                csr_bytes: csr.bytes(),
                difference,
            });
        }
    }
    Ok(rows)
}

/// Median microseconds of each, in turns, for a fifth of a second.
fn alternately(ops: &[&dyn LinearOp; 2], x: &Array2<f32>) -> Result<[f64; 2]> {
    let mut y = Array2::zeros((x.nrows(), SHAPE.0));
    let mut times = [Vec::new(), Vec::new()];
    let begin = Instant::now();
    while times[0].len() < 5 || begin.elapsed().as_secs_f64() < 0.2 {
        for (op, times) in ops.iter().zip(&mut times) {
            let start = Instant::now();
            op.apply_into(x, &mut y);
            times.push(start.elapsed().as_secs_f64() * 1e6);
            std::hint::black_box(&y);
        }
    }
    Ok([median(&times[0])?, median(&times[1])?])
}
