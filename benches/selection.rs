//! Selecting half of the weights of a matrix as large as a language model's: every pattern, in layer and in row scope.
//!
//! What it shows: the count is exact at the cost of a few passes over the scores. `torch.kthvalue` on the same number of
//! scores is the figure to stay below.

use criterion::{Criterion, criterion_group, criterion_main};
use lacuna::mask::{Pattern, Scope, select};
use lacuna::rng::Seed;

fn selection(c: &mut Criterion) {
    let scores = Seed(0).stream("bench/scores").normal_array(11008, 4096, 1.0).mapv(f32::abs);
    let mut group = c.benchmark_group("select half of 11008 x 4096");
    group.sample_size(10);
    let cases =
        [("unstructured", Scope::Layer), ("unstructured", Scope::Row), ("2:4", Scope::Layer), ("block16x1", Scope::Layer)];
    for (pattern, scope) in cases {
        let shape: Pattern = pattern.parse().unwrap();
        let budget = shape.budget(11008, 4096, 0.5).unwrap();
        let mask = select(&scores, shape, scope, budget).unwrap();
        assert_eq!(mask.kept(), 11008 * 4096 / 2);
        group
            .bench_function(format!("{pattern}, {scope:?} scope"), |b| b.iter(|| select(&scores, shape, scope, budget).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, selection);
criterion_main!(benches);
