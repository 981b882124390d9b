//! Pruners of one layer: held to published codes, to the best mask of all, and to exact least squares.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;
#[path = "solve/alps.rs"]
mod alps;
#[path = "solve/common.rs"]
mod common;
#[path = "solve/configs.rs"]
mod configs;
#[path = "solve/dsnot.rs"]
mod dsnot;
#[path = "solve/exact_obs.rs"]
mod exact_obs;
#[path = "solve/group_obs.rs"]
mod group_obs;
#[path = "solve/permute.rs"]
mod permute;
#[path = "solve/quantizers.rs"]
mod quantizers;
#[path = "solve/reconstruct.rs"]
mod reconstruct;
#[path = "solve/regularised.rs"]
mod regularised;
#[path = "solve/retarget.rs"]
mod retarget;
#[path = "solve/d2prune.rs"]
mod d2prune;
#[path = "solve/sparsegpt.rs"]
mod sparsegpt;
