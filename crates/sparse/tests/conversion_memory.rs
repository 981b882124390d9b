//! A storage becomes another one in memory of its kept weights, counted by the allocator: no array of all weights is made on the way.

mod allocator;
mod random;

use allocator::beside;
use lacuna_sparse::mask::{Mask, Pattern, Scope, select};
use lacuna_sparse::storage::{Csr, Format, Precision};
use random::Seed;

const SIZE: usize = 4096;

#[test]
fn no_conversion_asks_for_memory_of_the_dense_weight() {
    let weight = Seed(1).stream("weight").normal_array(SIZE, SIZE, 1.0);
    let scores = weight.mapv(f32::abs);
    let of = |pattern: &str, sparsity: f64| -> Mask {
        let pattern: Pattern = pattern.parse().unwrap();
        select(&scores, pattern, Scope::Layer, pattern.budget(SIZE, SIZE, sparsity).unwrap()).unwrap()
    };
    let dense = 4 * SIZE * SIZE;
    let of_any = ["csr", "tile-csr:128", "tile-pairs:64", "bitmask:128", "sell", "bsr:1x1"];
    for (pattern, own) in [("unstructured", "sell:packed"), ("block16x1", "bsr:16x1"), ("1:16", "nm:1:16")] {
        let mask = of(pattern, if pattern == "1:16" { 15.0 / 16.0 } else { 0.95 });
        let formats: Vec<Format> = of_any.iter().chain([&own]).map(|f| f.parse().unwrap()).collect();
        // Entries with their columns, and sorted once more; the mask; what is built, and its parts on the way.
        let bound = 6 * 8 * mask.kept() + SIZE * SIZE / 8 + (4 << 20);
        assert!(bound < dense, "{bound} bytes would hide a dense weight of {dense}");
        let values = if pattern == "unstructured" { vec![Precision::F32, Precision::I8] } else { vec![Precision::F32] };
        for values in values {
            for &from in &formats {
                let values = if from == Format::Csr { Precision::F32 } else { values };
                let op = from.build(&weight, &mask, values).unwrap();
                let (csr, asked): (Csr, usize) = beside(|| op.to_csr());
                assert_eq!(csr.view().values().len(), mask.kept());
                assert!(asked <= bound, "{from} of {values} to csr: {asked} bytes, bound {bound}");
                for &to in &formats {
                    let (converted, asked) = beside(|| to.convert(op.as_ref()).unwrap());
                    assert_eq!(converted.nnz(), mask.kept());
                    assert!(asked <= bound, "{from} of {values} to {to}: {asked} bytes, bound {bound}");
                }
            }
        }
    }
}
