//! Training of a language model in a folder, as a value.

mod settings;
mod check;
mod recipe;
mod levels;
mod parts;
mod validation;
mod report;
mod page;
mod session;
mod run;

pub use report::TrainReport;
pub use settings::{Keep, TrainJob};
