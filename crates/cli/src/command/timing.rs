//! Dense against sparse, on one shape where it matters.

use super::bench::measure::{SPARSE, check, times};
use super::largest_difference;
use lacuna::advise::Contender;
use lacuna::criteria::{Evidence, Magnitude, Saliency};
use lacuna::mask::{Pattern, Scope, select};
use lacuna::rng::Seed;
use lacuna::sparse::{ActivationBits, Compress, Csr, Dense, Hint, LinearOp, Plan, apply};
use lacuna::{Error, Result};
use serde::Serialize;

/// Outputs and inputs of the weight that is timed.
pub const SHAPE: (usize, usize) = (1536, 2048);
/// Tokens of a product.
pub const TOKENS: [usize; 2] = [1, 64];
const SPARSITIES: [f64; 6] = [0.5, 0.7, 0.8, 0.9, 0.95, 0.98];
/// Seconds for the contenders of a row together.
const SECONDS: f64 = 0.2;
/// Name of compressed sparse rows among the contenders.
const CSR: &str = "csr";

/// One product.
#[derive(Debug, Clone, Serialize)]
pub struct Timing {
    pub tokens: usize,
    pub sparsity: f64,
    /// Median microseconds of the fastest dense product that is linked.
    pub dense_us: f64,
    /// Of compressed sparse rows.
    pub csr_us: f64,
    /// Dense time / time of compressed sparse rows.
    pub speedup: f64,
    pub dense_bytes: usize,
    pub csr_bytes: usize,
    /// Largest difference between two of the results.
    pub difference: f64,
    /// Whose dense product it is.
    pub dense_kernel: &'static str,
    /// The storage that a tuned plan takes, and its kernel.
    pub plan_format: String,
    pub plan_kernel: &'static str,
    pub plan_us: f64,
    /// Dense time / time of the plan.
    pub plan_speedup: f64,
    pub plan_bytes: usize,
}

/// Times products of random weights, pruned by magnitude, with random inputs: what a plan takes, and plain compressed sparse rows, against the
/// fastest dense product. Results are compared before anything is timed; storing is not timed.
pub fn dense_against_sparse(seed: Seed) -> Result<Vec<Timing>> {
    let (out, inputs) = SHAPE;
    let weight = seed.stream("timing/weight").normal_array(out, inputs, 1.0);
    let scores = Magnitude::default().score(&Evidence::weight_only("timing", &weight))?;
    let mut rows = Vec::new();
    for tokens in TOKENS {
        let x = seed.stream("timing/x").normal_array(tokens, inputs, 1.0);
        for sparsity in SPARSITIES {
            let budget = Pattern::Unstructured.budget(out, inputs, sparsity)?;
            let mask = select(&scores, Pattern::Unstructured, Scope::Layer, budget)?;
            let (dense, csr) = (Dense::compress(&weight, &mask)?, Csr::compress(&weight, &mask)?);
            let mut plan = Plan::new(&weight, &mask, Hint::tokens(tokens))?;
            plan.tune()?;
            let format = plan.chosen(tokens);
            check(&plan, &x, ActivationBits::Full)?;
            let results = [apply(&dense, &x), apply(&csr, &x), apply(&plan, &x)];
            let [a, b, c] = &results;
            let difference = largest_difference(a, b)?.max(largest_difference(a, c)?).max(largest_difference(b, c)?);
            let (dense_bytes, csr_bytes, plan_bytes) = (dense.bytes(), csr.bytes(), plan.bytes());
            let dense = [dense];
            let csr: [Box<dyn LinearOp>; 1] = [Box::new(csr)];
            let plan: [Box<dyn LinearOp>; 1] = [Box::new(plan)];
            let mut contenders = vec![Contender::storages(SPARSE, &plan), Contender::storages(CSR, &csr)];
            contenders.extend(Contender::dense(&dense));
            let times = times(&mut contenders, &x, out, SECONDS)?;
            let of = |name: &str| times.iter().find(|t| t.name == name);
            let best = times.iter().filter(|t| t.name != SPARSE && t.name != CSR).min_by(|a, b| a.us.total_cmp(&b.us));
            let (Some(plan), Some(csr), Some(best)) = (of(SPARSE), of(CSR), best) else {
                return Err(Error::invalid_option("timing", "nothing was timed"));
            };
            rows.push(Timing {
                tokens,
                sparsity,
                dense_us: best.us,
                csr_us: csr.us,
                speedup: best.us / csr.us,
                dense_bytes,
                csr_bytes,
                difference,
                dense_kernel: best.name,
                plan_format: format.to_string(),
                plan_kernel: format.kernel(tokens),
                plan_us: plan.us,
                plan_speedup: best.us / plan.us,
                plan_bytes,
            });
        }
    }
    Ok(rows)
}
