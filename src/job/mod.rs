//! Pruning as a value: a job is made, checked, run, written as a recipe, and kept in the record of what it did.
//!
//! ```text
//! recipe.toml ─► PruneJob ─► check ─► run, which tells Events and may be stopped ─► PruneReport: prune.json, a table, a page
//!     ▲                                                                                  │
//!     └──────────────────────────────────── job ◄────────────────────────────────────────┘
//! ```
//!
//! [`TrainJob`] is the same for training a language model: `train.json`, the page, and a saved state from which it is taken up.
//!
//! [`QuantizeJob`] is the same for codes of a few bits: `quantize.json`.
//!
//! [`Pipeline`] is several of them, each on what the one before has written.
//!
//! [`PruneJob`] lists its settings. [`Methods`] turns the names `sparsegpt`, `erk`, … into methods; a user's own are registered there. A job
//! prunes a model's folder or a plain file ([`PruneJob::run`]), or a model in memory ([`PruneJob::prune_model`]).

mod event;
mod setters;
mod chosen;
mod settings;
mod generalise;
mod methods;
mod standard;
mod check;
mod described;
mod standing;
mod recipe;
mod excess;
mod report;
mod page;
mod search;
mod inputs;
mod quality;
mod model;
mod file;
mod network;
mod run;
mod shrink;
mod quantize;
mod export;
mod pack;
mod train;
mod pipeline;

pub use chosen::ChosenSetting;
pub use described::FewTokens;
pub use event::{Event, Stage, ValidationRecord, unused_note};
pub use excess::{Excess, PerplexityReport, TextReports, calibration_of};
pub use export::{ExportJob, ExportReport};
pub use methods::{Allocation, Methods, PruneMethod};
pub use pack::PackJob;
pub use pipeline::{Pipeline, PipelineReport, StageJob, StageReport};
pub use quantize::{QuantScheme, QuantizeJob, QuantizeMethod, QuantizeReport};
pub use report::{FileReport, ModelReport, PruneReport};
pub use settings::PruneJob;
pub use shrink::{DecodeTimes, ExpertsReport, ModelSize, ShrinkJob, ShrinkMethod, ShrinkReport, UnitMetric};
pub use train::{Keep, TrainJob, TrainReport};
