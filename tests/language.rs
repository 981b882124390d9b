//! One-shot pruning of language models: what was measured is what the pruned model sees, and an interrupted run goes on to the same bits.

#[path = "../crates/sparse/tests/close/mod.rs"]
mod close;
#[path = "language/budgets.rs"]
mod budgets;
#[path = "language/cached.rs"]
mod cached;
#[path = "language/common.rs"]
mod common;
#[path = "language/divergences.rs"]
mod divergences;
#[path = "language/driver.rs"]
mod driver;
#[path = "language/encdec.rs"]
mod encdec;
#[path = "language/finite.rs"]
mod finite;
#[path = "language/generalised.rs"]
mod generalised;
#[path = "language/hidden.rs"]
mod hidden;
#[path = "language/jobs.rs"]
mod jobs;
#[path = "language/levels.rs"]
mod levels;
#[path = "language/low_rank.rs"]
mod low_rank;
#[path = "language/quantization_aware.rs"]
mod quantization_aware;
#[path = "language/quantized.rs"]
mod quantized;
#[path = "language/ranked.rs"]
mod ranked;
#[path = "language/reconstructed.rs"]
mod reconstructed;
#[path = "language/resume.rs"]
mod resume;
#[path = "language/shrink.rs"]
mod shrink;
#[path = "language/sublayers.rs"]
mod sublayers;
#[path = "language/training.rs"]
mod training;
#[path = "language/working.rs"]
mod working;
