//! The random streams of the library, for tests.

#[allow(dead_code)]
#[path = "../../../../src/rng.rs"]
mod rng;

pub use rng::Seed;
