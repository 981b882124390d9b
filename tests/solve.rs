//! Pruners of one layer: held to published codes, to the best mask of all, and to exact least squares.

#[path = "solve/common.rs"]
mod common;
#[path = "solve/reconstruct.rs"]
mod reconstruct;
#[path = "solve/sparsegpt.rs"]
mod sparsegpt;
