//! Runs a model over calibration data and measures what criteria need, in one go.

mod inputs;
mod calibration;
mod measure;

pub use calibration::Calibration;
pub(crate) use inputs::{InputStatistics, LayerStatistics, ModelStatistics};
pub use measure::{LayerWeights, measure};
