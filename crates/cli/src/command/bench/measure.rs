//! Contenders, taken in turns.

use ::sprs::CsMatI;
use lacuna::advise::{Contender, RoundRobin, Timed};
use lacuna::sparse::{ActivationBits, LinearOp, apply};
use lacuna::{Error, Result};
use ndarray::{Array2, ArrayViewMut2, Axis};
use serde::Serialize;

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
    /// Bits of activations where they meet codes, if they are not 32.
    #[serde(skip_serializing_if = "is_32")]
    pub activation_bits: String,
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

fn is_32(bits: &str) -> bool {
    bits == "32"
}

/// Name of the storage that a case is about.
pub const SPARSE: &str = "sparse";
/// Name of the peer.
pub const SPRS: &str = "sprs";

/// A storage as the contender that a case is about.
pub fn sparse(ops: &[Box<dyn LinearOp>]) -> Contender<'_> {
    Contender::storages(SPARSE, ops)
}

/// The product of `sprs`, `W · xᵀ` with x turned beforehand.
pub fn sprs<'a>(csr: &'a CsMatI<f32, u32>, turned: &'a Array2<f32>) -> Contender<'a> {
    let mut out = Array2::zeros((csr.rows(), turned.ncols()));
    Contender::new(SPRS, move |_, _| {
        out.fill(0.0);
        let out: ArrayViewMut2<'_, f32> = out.view_mut();
        ::sprs::prod::csr_mulacc_dense_rowmaj(csr.view(), turned.view(), out);
    })
}

/// Times contenders in their turns, in `seconds` for all of them.
pub fn times(contenders: &mut [Contender<'_>], x: &Array2<f32>, out: usize, seconds: f64) -> Result<Vec<Timed>> {
    RoundRobin::of(seconds).time(contenders, x, out)
}

/// How far a product is off.
#[derive(Debug, Clone, Copy, Default)]
pub struct Off {
    /// The largest distance of an output from the sum in f64.
    pub largest: f64,
    /// The largest share of such a distance in the sum of sizes.
    pub of_sizes: f64,
}

/// How far `op` is off the product in f64 with what it stores; an error if it is more than rounding explains, of activations of so many bits too.
pub fn check(op: &dyn LinearOp, x: &Array2<f32>, bits: ActivationBits) -> Result<Off> {
    let weight = op.to_dense().mapv(f64::from);
    let wide = x.mapv(f64::from);
    let exact = wide.dot(&weight.t());
    // n additions in any order: n roundings of at most the sum of sizes.
    let sizes = wide.mapv(f64::abs).dot(&weight.mapv(f64::abs).t());
    let heights = weight.mapv(f64::abs).sum_axis(Axis(1));
    // Half a step of 8 bits, of the largest of them at most.
    let step = if bits == ActivationBits::Eight { 0.5 / 127.0 } else { 0.0 };
    let largest: Vec<f64> = wide.rows().into_iter().map(|x| x.iter().fold(0.0, |m: f64, x| m.max(x.abs()))).collect();
    let bound = f64::from(f32::EPSILON) * (weight.ncols() as f64 + 2.0);
    let y = apply(op, x);
    let mut worst = Off::default();
    for ((at, &y), (&exact, &size)) in y.indexed_iter().zip(exact.iter().zip(&sizes)) {
        let error = (f64::from(y) - exact).abs();
        let rounded = step * largest[at.0] * heights[at.1];
        if error.is_nan() || error > bound * size + rounded + f64::from(f32::MIN_POSITIVE) {
            let (format, (t, r)) = (op.format(), at);
            return Err(Error::invalid_option("format", format!("{format} gives {y} for {exact} at token {t}, output {r}")));
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
