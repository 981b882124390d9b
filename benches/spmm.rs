//! y = x · Wᵀ, sparse against dense: the cases of `lacuna bench spmm`, a group for each shape and number of tokens.
//!
//! What it shows: from which sparsity on the storage that a tuned plan takes is faster than the dense products that are linked, beside which it
//! stands in every group, and by how much than `sprs`. Weights are pruned by magnitude, inputs are random; every product is held to the
//! dense one before it is timed; packing is outside the timer.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lacuna::criteria::{Evidence, Magnitude, Saliency};
use lacuna::linalg::{Product, Threads};
use lacuna::mask::{Mask, Pattern, Scope, select};
use lacuna::rng::Seed;
use lacuna::sparse::{Compress, Csr, Dense, Format, Hint, LinearOp, Plan, Precision, apply};
use ndarray::{Array2, ArrayRef2};
use std::time::Duration;

const SHAPES: [(usize, usize); 3] = [(576, 1536), (1536, 576), (3072, 768)];
const TOKENS: [usize; 5] = [1, 4, 16, 128, 512];
const SPARSITIES: [f64; 5] = [0.5, 0.7, 0.8, 0.9, 0.95];
/// Patterns with a storage of their own, and what is pruned of them.
const PATTERNS: [(&str, f64); 3] = [("2:4", 0.5), ("block16x1", 0.9), ("block4x4", 0.9)];

fn pruned(weight: &ArrayRef2<f32>, pattern: Pattern, sparsity: f64) -> Mask {
    let (out, inputs) = weight.dim();
    let scores = Magnitude::default().score(&Evidence::weight_only("weight", weight)).unwrap();
    let sparsity = if matches!(pattern, Pattern::Nm { .. }) { 0.0 } else { sparsity };
    select(&scores, pattern, Scope::Layer, pattern.budget(out, inputs, sparsity).unwrap()).unwrap()
}

/// Panics unless the product is that of the pruned weight, within the rounding of sums of its length.
fn is_right(op: &dyn LinearOp, weight: &ArrayRef2<f32>, mask: &Mask, x: &ArrayRef2<f32>) {
    let exact = x.mapv(f64::from).dot(&mask.applied(weight).mapv(f64::from).t());
    let size = x.mapv(|x| f64::from(x).abs()).dot(&mask.applied(weight).mapv(|w| f64::from(w).abs()).t());
    let bound = f64::from(f32::EPSILON) * weight.ncols() as f64;
    for ((y, exact), size) in apply(op, x).iter().zip(&exact).zip(&size) {
        assert!((f64::from(*y) - exact).abs() <= bound * size, "{}: {y} for {exact}", op.format());
    }
}

fn spmm(c: &mut Criterion) {
    for (out, inputs) in SHAPES {
        let weight = Seed(0).stream("bench/weight").normal_array(out, inputs, 1.0);
        for tokens in TOKENS {
            let x = Seed(0).stream("bench/x").normal_array(tokens, inputs, 1.0);
            let mut y = Array2::zeros((tokens, out));
            let mut group = c.benchmark_group(format!("{out}x{inputs}, {tokens} tokens"));
            // Multiplications of the dense product.
            group.throughput(Throughput::Elements((out * inputs * tokens) as u64));
            group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
            let dense = Dense::new(weight.clone());
            group.bench_function("dense", |b| b.iter(|| dense.apply_into(&x, &mut y)));
            for product in Product::ALL {
                let name = format!("dense, {}", product.name());
                group.bench_function(name, |b| b.iter(|| product.run(1.0, &x, &weight.t(), 0.0, &mut y, Threads::Pool)));
            }
            for sparsity in SPARSITIES {
                let mask = pruned(&weight, Pattern::Unstructured, sparsity);
                let mut plan = Plan::new(&weight, &mask, Hint::tokens(tokens)).unwrap();
                plan.tune().unwrap();
                is_right(&plan, &weight, &mask, &x);
                let name = format!("plan ({})", plan.chosen(tokens));
                group.bench_with_input(BenchmarkId::new(name, sparsity), &plan, |b, op| b.iter(|| op.apply_into(&x, &mut y)));
                let csr = Csr::compress(&weight, &mask).unwrap().into_sprs().unwrap();
                let (turned, mut product) = (x.t().as_standard_layout().into_owned(), Array2::zeros((out, tokens)));
                group.bench_with_input(BenchmarkId::new("sprs", sparsity), &csr, |b, csr| {
                    b.iter(|| {
                        product.fill(0.0);
                        sprs::prod::csr_mulacc_dense_rowmaj(csr.view(), turned.view(), product.view_mut());
                    });
                });
            }
            for (name, sparsity) in PATTERNS {
                let pattern: Pattern = name.parse().unwrap();
                let mask = pruned(&weight, pattern, sparsity);
                let format = Format::of_pattern(pattern).unwrap();
                let op = format.build(&weight, &mask, Precision::F32).unwrap();
                is_right(op.as_ref(), &weight, &mask, &x);
                let id = BenchmarkId::new(format!("{format}"), mask.sparsity());
                group.bench_with_input(id, &op, |b, op| b.iter(|| op.apply_into(&x, &mut y)));
            }
            group.finish();
        }
    }
}

criterion_group!(benches, spmm);
criterion_main!(benches);
