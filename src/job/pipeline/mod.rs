//! Several jobs as one value, each on what the one before has written.
//!
//! ```text
//! recipe.toml ─► Pipeline ─► stage 1 ─► OUT/1-prune ─► stage 2 ─► OUT/2-train ─► …    OUT/run.json · OUT/run.html
//! ```
//!
//! A stage is a job with its own working folder and its own record, so that a pipeline that was cut off is taken up within the stage where it was.

mod recipe;
mod report;
mod run;

pub use recipe::{Pipeline, StageJob};
pub use report::{PipelineReport, StageReport};
