//! From data to a pruned network: training, measuring, pruning at once and in steps, and what Optimal Brain Damage predicts.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;
#[path = "pipeline/brain_damage.rs"]
mod brain_damage;
#[path = "pipeline/common.rs"]
mod common;
#[path = "pipeline/jobs.rs"]
mod jobs;
#[path = "pipeline/measuring.rs"]
mod measuring;
#[path = "pipeline/one_shot.rs"]
mod one_shot;
#[path = "pipeline/refused.rs"]
mod refused;
#[path = "pipeline/steps.rs"]
mod steps;
#[path = "pipeline/training.rs"]
mod training;
