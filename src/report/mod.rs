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
//!
//! `Figure`, `Bars` and `Page` need the feature `plots`; tables and summaries need none.

mod cell;
mod csv;
mod escape;
#[cfg(feature = "plots")]
mod canvas;
mod readme;
#[cfg(feature = "plots")]
mod scale;
#[cfg(feature = "plots")]
mod frame;
#[cfg(feature = "plots")]
mod bars;
mod stats;
mod table;
#[cfg(feature = "plots")]
mod figure;
#[cfg(feature = "plots")]
mod page;

#[cfg(feature = "plots")]
pub use bars::Bars;
pub use cell::{Cell, IntoRow};
#[cfg(feature = "plots")]
pub use figure::{Figure, Point};
#[cfg(feature = "plots")]
pub use page::Page;
pub use readme::replace_between;
pub use stats::{Summary, median, quantile};
pub use table::Table;
