//! Settings of methods are plain values: written down and read again they are the same.

use lacuna::allocate::{Owl, Target};
use lacuna::criteria::{Magnitude, MagnitudeNorm, Random, Ria};
use lacuna::quantize::AffineGrid;
use lacuna::rng::Seed;
use lacuna::solve::{Alps, DsNoT, ExactObs, Order, Reconstruct, SparseGpt, WoodFisher};
use serde::{Serialize, de::DeserializeOwned};

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *value, "{text}");
}

#[test]
fn settings_are_the_same_when_they_are_written_and_read() {
    let grid = Some(AffineGrid { bits: 4, symmetric: true });
    same(&SparseGpt { order: Order::Activation, grid, ..SparseGpt::default() });
    same(&ExactObs { damping: 0.25 });
    same(&Alps { rho: 0.3, ..Alps::default() });
    same(&DsNoT { cycles: 7, ..DsNoT::new(SparseGpt::default()) });
    same(&Reconstruct::default());
    same(&WoodFisher { damping: 1e-7, block: 3 });
    same(&Magnitude { norm: MagnitudeNorm::L2 });
    same(&Random { seed: Seed(u64::MAX) });
    same(&Ria { power: 0.1 });
    same(&Owl { lambda: 0.05 });
    [Target::Sparsity(0.1 + 0.2), Target::Parameters(usize::MAX), Target::Flops(0)].iter().for_each(same);
}
