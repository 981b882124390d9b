//! Language models: what the reference library says of every family, derivatives, layers in other storages, configs.

#[path = "lm/common.rs"]
mod common;
#[path = "lm/config.rs"]
mod config;
#[path = "lm/differences.rs"]
mod differences;
#[path = "lm/encoders.rs"]
mod encoders;
#[path = "lm/experts.rs"]
mod experts;
#[path = "lm/goldens.rs"]
mod goldens;
#[path = "lm/layers.rs"]
mod layers;
#[path = "lm/lengths.rs"]
mod lengths;
#[path = "lm/opening.rs"]
mod opening;
#[path = "lm/page.rs"]
mod page;
#[path = "lm/public.rs"]
mod public;
#[path = "lm/shrunk.rs"]
mod shrunk;
#[path = "lm/training.rs"]
mod training;
