//! What a run says of itself: tables, figures and pages, all as strings.
//!
//! ```text
//! numbers of seeds ─► Summary ─► Table  ─► CSV · text · Markdown · HTML ─► replace_between ─► README
//!                        └─────► Figure ─► SVG ─┐
//!                                Bars   ─► SVG ─┼─► Page ─► one HTML file
//! matrices, masks ─────────────► Heatmap ─► SVG ─┘
//! ```
//!
//! Nothing here opens a file: the caller writes the strings, and the same input gives the same string to the byte, so that
//! a table or a figure that did not change does not show up in a diff. In a notebook each of them is shown where it is the last value of a cell.

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
mod heatmap;
mod page;
mod notebook;

pub use bars::Bars;
pub use cell::{Cell, IntoRow};
pub use figure::{Figure, Point};
pub use heatmap::Heatmap;
pub use page::Page;
pub use readme::replace_between;
pub use stats::{Summary, kendall_tau, median, quantile};
pub use student::student_t;
pub use table::Table;
