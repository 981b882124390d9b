//! Making a language model smaller as a value, as [`PruneJob`](super::PruneJob) is one for pruning: [`ShrinkJob`], with the same life.

mod method;
mod settings;
mod setters;
mod checks;
mod scores;
mod described;
mod vocabulary;
mod times;
mod report;
mod page;
mod make;
mod run;

pub use method::{ShrinkMethod, UnitMetric};
pub use report::{ExpertsReport, ModelSize, ShrinkReport};
pub use settings::ShrinkJob;
pub use times::DecodeTimes;
