//! What a run says of itself: tables, figures and pages, all as strings.
//!
//! ```text
//! numbers of seeds ─► Summary ─► Table  ─► CSV · text · Markdown · HTML ─► replace_between ─► README
//!                        └─────► Figure ─► SVG ─┐
//!                                Bars   ─► SVG ─┴─► Page ─► one HTML file
//! ```
//!
//! Nothing here opens a file: the caller writes the strings, and the same input gives the same string to the byte, so that
//! a table or a figure that did not change does not show up in a diff.

mod cell;
mod csv;
mod escape;
mod canvas;
mod readme;
mod scale;
mod frame;
mod bars;
mod student;
mod stats;
mod table;
mod figure;
mod page;

pub use bars::Bars;
pub use cell::{Cell, IntoRow};
pub use figure::{Figure, Point};
pub use page::Page;
pub use readme::replace_between;
pub use stats::{Summary, kendall_tau, median, quantile};
pub use student::student_t;
pub use table::Table;
