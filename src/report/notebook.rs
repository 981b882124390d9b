//! Figures, tables and pages as the last value of a notebook's cell.
//!
//! The kernel `evcxr` calls a method of this name, if the value has one, and shows what it writes between two marks.

use super::{Bars, Figure, Heatmap, Page, Table};
use crate::Result;

/// Writes contents in the kernel's own way: a type, the text, and the end, on lines of their own.
fn show(contents: &[(&str, String)]) {
    for (mime, text) in contents {
        println!("EVCXR_BEGIN_CONTENT {mime}\n{text}\nEVCXR_END_CONTENT");
    }
}

fn show_drawing(svg: Result<String>) {
    match svg {
        Ok(svg) => show(&[("image/svg+xml", svg)]),
        Err(e) => panic!("{e}"),
    }
}

macro_rules! drawings {
    ($($name:ty),*) => {$(
        impl $name {
            /// Shows the drawing in a notebook: the kernel `evcxr` calls this for the last value of a cell. Writes to standard output.
            ///
            /// # Panics
            ///
            /// When there is nothing to draw, as `to_svg` refuses it.
            pub fn evcxr_display(&self) {
                show_drawing(self.to_svg());
            }
        }
    )*};
}

drawings!(Figure, Bars, Heatmap);

impl Table {
    /// Shows the table in a notebook, as HTML and as text: the kernel `evcxr` calls this for the last value of a cell. Writes to standard output.
    pub fn evcxr_display(&self) {
        show(&[("text/html", self.to_html()), ("text/plain", self.to_text())]);
    }
}

impl Page {
    /// Shows the page's text, tables and figures in a notebook: the kernel `evcxr` calls this for the last value of a cell. Writes to standard output.
    pub fn evcxr_display(&self) {
        show(&[("text/html", self.fragment())]);
    }
}
