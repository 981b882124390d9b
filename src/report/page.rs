//! Text, tables and figures in one HTML file that needs nothing else.

use super::{Table, escape};

/// What every page says that it was made by.
const GENERATOR: &str = concat!("lacuna ", env!("CARGO_PKG_VERSION"));

/// Light and dark by the reader's own setting; figures stay on white paper, and what is too wide scrolls by itself.
const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1d1f22; --soft: #666b73; --line: #dcdfe4; --paper: #fcfcfb; --band: #f3f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #9aa1ab; --line: #363b43; --paper: #16181c; --band: #1f2228; }
}
body { max-width: 56rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.5rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 0.75rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--line); }
p { max-width: 42rem; }
.scroll { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.35rem 0.8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
tbody tr:nth-child(even) { background: var(--band); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.5rem 0; padding: 0.75rem; background: #fff; border: 1px solid var(--line); border-radius: 8px; overflow-x: auto; }
figure svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }
@media print { body { padding: 0; } figure { break-inside: avoid; } }
";

/// A page of text, tables and figures.
///
/// The file has no scripts and refers to nothing outside itself. Everything but the figures is escaped.
///
/// ```
/// use lacuna::report::{Page, Table};
///
/// let mut table = Table::new(["method", "accuracy"]);
/// table.row(("magnitude", 0.93));
/// let html = Page::new("A < B").heading("Accuracy").text("Three seeds.").table(&table).to_html();
/// assert!(html.contains("<title>A &lt; B</title>") && html.contains("<h2>Accuracy</h2>"));
/// ```
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// Whether a text is a page of this kind, of any version.
    pub fn is_page(html: &str) -> bool {
        html.contains("<meta name=\"generator\" content=\"lacuna ")
    }

    /// A page with a title and nothing below it.
    pub fn new(title: impl Into<String>) -> Self {
        Page { title: title.into(), body: String::new() }
    }

    /// Adds a heading.
    pub fn heading(mut self, heading: &str) -> Self {
        self.body.push_str(&format!("<h2>{}</h2>\n", escape::html(heading)));
        self
    }

    /// Adds a paragraph of plain text; an empty line within it begins another.
    pub fn text(mut self, paragraph: &str) -> Self {
        for text in paragraph.replace("\r\n", "\n").split("\n\n").map(str::trim).filter(|text| !text.is_empty()) {
            self.body.push_str(&format!("<p>{}</p>\n", escape::html(text)));
        }
        self
    }

    /// Adds a table.
    pub fn table(mut self, table: &Table) -> Self {
        self.body.push_str(&format!("<div class=\"scroll\">\n{}</div>\n", table.to_html()));
        self
    }

    /// Adds a drawing from [`Figure::to_svg`](super::Figure::to_svg) or [`Bars::to_svg`](super::Bars::to_svg). It is put in
    /// as it is: an SVG from elsewhere must be one that you trust.
    pub fn figure(mut self, svg: &str) -> Self {
        self.body.push_str(&format!("<figure>\n{}\n</figure>\n", svg.trim()));
        self
    }

    /// Title and body, without the document around them.
    pub(super) fn fragment(&self) -> String {
        format!("<h1>{}</h1>\n{}", escape::html(&self.title), self.body)
    }

    /// The whole file.
    pub fn to_html(&self) -> String {
        let title = escape::html(&self.title);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"generator\" content=\"{GENERATOR}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
            self.fragment()
        )
    }
}
