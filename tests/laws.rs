//! Laws of dense products, of layers and of attention, held against naive oracles. Those of sparse storages stand in `crates/sparse/tests/laws.rs`.
//!
//! The kernels are chosen once a process: run this with `LACUNA_ISA=portable` too.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;
#[path = "laws/attention.rs"]
mod attention;
#[allow(dead_code)]
#[path = "../crates/sparse/tests/laws/common.rs"]
mod common;
#[path = "laws/dense.rs"]
mod dense;
#[path = "laws/narrow.rs"]
mod narrow;
#[path = "laws/parameters.rs"]
mod parameters;

use common::{into_layouts, layouts, oracle, whole};
use lacuna::{mask, rng as random, sparse};
