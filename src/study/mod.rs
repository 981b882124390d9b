//! One's own criterion or pruner beside every built-in one: over budgets and seeds, with paired differences.
//!
//! ```text
//! Compare ── run(Subject) ─► Comparison ─┬─ table()         mean ± sd of every method at every sparsity, mean ranks, reasons
//!  methods     a model a seed            ├─ figure()        lines with error bars
//!  budgets     measured once             ├─ differences()   two methods, paired over the seeds, with Student's t intervals
//!  seeds       judged as pruned          └─ to_csv()        every run, to the last bit
//! ```
//!
//! | subject | models | judged by |
//! |---|---|---|
//! | [`Networks`] | chains of layers, or any model that runs on arrays, trained for each seed; at once or after recovery | accuracy and loss, or a closure |
//! | [`LayerLists`] | measured layers of any model | the error of the outputs, or a closure: the perplexity of a language model, for one |
//! | the trait [`Subject`] | one's own | one's own |
//!
//! A method that cannot do something, as a pattern or a measure that is missing, is in the table with the reason; it ends nothing and is not
//! dropped. `examples/compare_criteria.rs` shows a criterion of fifteen lines beside all others.

mod subject;
mod candidate;
mod layer_lists;
mod networks;
mod differences;
mod comparison;
mod file;
mod runs;
mod compare;

pub use candidate::{Candidate, built_in_names};
pub use compare::Compare;
pub use comparison::{Comparison, Measurement, Setting, Trial};
pub use differences::{Differences, PairedDifference};
pub use layer_lists::{LayerLists, MeasuredLayer};
pub use networks::{Networks, Trained};
pub use subject::{Metric, Subject};
