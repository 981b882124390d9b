//! Quantising a language model as a value, as [`PruneJob`](super::PruneJob) is one for pruning: [`QuantizeJob`], with the same life.

mod method;
mod settings;
mod setters;
mod described;
mod report;
mod page;
mod run;

pub use method::{QuantScheme, QuantizeMethod};
pub use report::QuantizeReport;
pub(in crate::job) use run::scales_of;
pub use settings::QuantizeJob;
