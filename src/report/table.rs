//! Named columns and typed rows, printed four ways.

use super::cell::{Cell, IntoRow};
use super::{csv, escape};
use crate::{Error, Result};

/// Named columns and rows of typed [`Cell`]s.
///
/// ```
/// use lacuna::report::{Cell, Table};
///
/// let mut table = Table::new(["method", "kept", "accuracy"]);
/// table.row(("magnitude", 1200, 0.9312)).row(("wanda", 1200, Cell::float(0.9401, 2)));
///
/// assert_eq!(table.to_csv(), "method,kept,accuracy\nmagnitude,1200,0.9312\nwanda,1200,0.9401\n");
/// assert_eq!(
///     table.to_markdown(),
///     "| method | kept | accuracy |\n\
///      | :--- | ---: | ---: |\n\
///      | magnitude | 1200 | 0.9312 |\n\
///      | wanda | 1200 | 0.94 |\n"
/// );
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    ///
    /// # Panics
    ///
    /// When there is no column.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
        assert!(!columns.is_empty(), "a table needs a column");
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row below the others.
    ///
    /// # Panics
    ///
    /// When the row has not one cell for each column.
    pub fn row(&mut self, cells: impl IntoRow) -> &mut Self {
        let cells = cells.into_row();
        assert_eq!(cells.len(), self.columns.len(), "cells of a row against the columns {:?}", self.columns);
        self.rows.push(cells);
        self
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows from top to bottom.
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// The cells of the first column of this name, from top to bottom.
    ///
    /// ```
    /// # fn main() -> lacuna::Result<()> {
    /// let table = lacuna::report::Table::from_csv("seed,loss\n0,0.5\n1,0.25\n")?;
    /// let losses: Vec<f64> = table.column("loss")?.filter_map(|cell| cell.number()).collect();
    /// assert_eq!(losses, [0.5, 0.25]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When no column has the name; the message lists those that exist.
    pub fn column(&self, name: &str) -> Result<impl Iterator<Item = &Cell> + use<'_>> {
        let index = self.columns.iter().position(|column| column == name);
        let index = index
            .ok_or_else(|| Error::invalid_option(format!("column '{name}'"), format!("not among {}", self.columns.join(", "))))?;
        Ok(self.rows.iter().map(move |row| &row[index]))
    }

    /// What stands in this column, each text once, in the order in which they appear.
    ///
    /// ```
    /// # fn main() -> lacuna::Result<()> {
    /// let table = lacuna::report::Table::from_csv("method,seed\nobs,0\nobd,0\nobs,1\n")?;
    /// assert_eq!(table.distinct("method")?, ["obs", "obd"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When no column has the name.
    pub fn distinct(&self, column: &str) -> Result<Vec<String>> {
        let mut found: Vec<String> = Vec::new();
        for text in self.column(column)?.map(Cell::exact) {
            if !found.contains(&text) {
                found.push(text);
            }
        }
        Ok(found)
    }

    /// The rows whose cell in this column reads as `value` does, in their order.
    ///
    /// ```
    /// # fn main() -> lacuna::Result<()> {
    /// let table = lacuna::report::Table::from_csv("method,block,loss\nobd,1,0.5\nobs,1,0.25\nobs,2,0.2\n")?;
    /// assert_eq!(table.only("method", "obs")?.only("block", 2)?.to_csv(), "method,block,loss\nobs,2,0.2\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When no column has the name.
    pub fn only(&self, column: &str, value: impl Into<Cell>) -> Result<Table> {
        let value = value.into().exact();
        let chosen: Vec<bool> = self.column(column)?.map(|cell| cell.exact() == value).collect();
        let rows = self.rows.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(row, _)| row.clone()).collect();
        Ok(Table { columns: self.columns.clone(), rows })
    }

    /// Comma-separated values with the quoting of RFC 4180, for machines: a header line, floats that parse back to the same
    /// bits, nothing at all for a missing cell and `""` for an empty text. Lines end in `\n`.
    pub fn to_csv(&self) -> String {
        let mut out = String::new();
        csv::write_record(&mut out, self.columns.iter().map(|name| (name.clone(), true)));
        for row in &self.rows {
            csv::write_record(&mut out, row.iter().map(|cell| (cell.exact(), *cell != Cell::Missing)));
        }
        out
    }

    /// Reads what [`to_csv`](Self::to_csv) writes. Every cell is text, or missing when nothing stands between the commas;
    /// [`Cell::number`] reads the numbers.
    ///
    /// Lines may end in `\n` or `\r\n`, and a byte order mark is passed over.
    ///
    /// ```
    /// use lacuna::report::Table;
    ///
    /// let e = Table::from_csv("method,accuracy\nwanda\n").unwrap_err();
    /// assert_eq!(e.to_string(), "CSV line 2: 1 field where the header has 2");
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no header, a record has more or fewer fields than the header, or a quote is not closed or stands where
    /// none may; the message gives the line.
    pub fn from_csv(text: &str) -> Result<Self> {
        let mut records = csv::read_records(text)?.into_iter();
        let header = records.next().ok_or_else(|| Error::invalid_option("CSV", "empty: there is no header line"))?;
        let columns: Vec<String> = header.cells.iter().map(Cell::exact).collect();
        let mut rows = Vec::new();
        for record in records {
            let (found, expected) = (record.cells.len(), columns.len());
            if found != expected {
                let fields = if found == 1 { "field" } else { "fields" };
                let reason = format!("{found} {fields} where the header has {expected}");
                return Err(Error::invalid_option(format!("CSV line {}", record.line), reason));
            }
            rows.push(record.cells);
        }
        Ok(Table { columns, rows })
    }

    /// Aligned columns for a terminal: text to the left, numbers to the right.
    ///
    /// ```
    /// let mut table = lacuna::report::Table::new(["layer", "kept"]);
    /// table.row(("fc1", 1200)).row(("fc2", 80));
    /// assert_eq!(table.to_text(), "layer  kept\n-----  ----\nfc1    1200\nfc2      80\n");
    /// ```
    pub fn to_text(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|name| escape::one_line(name)).collect();
        let body: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| escape::one_line(&cell.show())).collect()).collect();
        let width = |column: usize| body.iter().map(|row| &row[column]).chain([&names[column]]).map(|s| s.chars().count()).max();
        let widths: Vec<usize> = (0..names.len()).map(|column| width(column).unwrap_or(0)).collect();
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();

        let numeric = self.numeric_columns();
        let mut out = String::new();
        for row in [&names, &rule].into_iter().chain(&body) {
            let padded: Vec<String> = (row.iter().zip(&widths).zip(&numeric))
                .map(|((cell, &width), numeric)| if *numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") })
                .collect();
            out.push_str(padded.join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    /// A GitHub table. Pipes are escaped and line breaks become `<br>`; other Markdown in a cell stays Markdown, so that a
    /// cell may hold a link.
    pub fn to_markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = line(self.columns.iter().map(|name| escape::markdown_cell(name)).collect());
        let rule = |numeric: bool| if numeric { "---:" } else { ":---" }.to_string();
        out.push_str(&line(self.numeric_columns().into_iter().map(rule).collect()));
        for row in &self.rows {
            out.push_str(&line(row.iter().map(|cell| escape::markdown_cell(&cell.show())).collect()));
        }
        out
    }

    /// A `<table>` element; everything that was given is escaped, and numbers are of class `number`, and `a ± b` stays on one line.
    pub fn to_html(&self) -> String {
        let numeric = self.numeric_columns();
        let cells = |tag: &str, texts: Vec<String>| {
            let mut line = "<tr>".to_string();
            for (text, numeric) in texts.iter().zip(&numeric) {
                let class = if *numeric { " class=\"number\"" } else { "" };
                // A mean and its deviation are not torn apart at the end of a line.
                let text = escape::html(text).replace(" ± ", "\u{a0}±\u{a0}");
                line.push_str(&format!("<{tag}{class}>{text}</{tag}>"));
            }
            line + "</tr>\n"
        };
        let mut out = format!("<table>\n<thead>\n{}</thead>\n<tbody>\n", cells("th", self.columns.clone()));
        for row in &self.rows {
            out.push_str(&cells("td", row.iter().map(Cell::show).collect()));
        }
        out + "</tbody>\n</table>\n"
    }

    /// Which columns hold a number and no text.
    fn numeric_columns(&self) -> Vec<bool> {
        let numeric = |column: usize| {
            let mut measured = self.rows.iter().map(|row| &row[column]).filter(|cell| **cell != Cell::Missing).peekable();
            measured.peek().is_some() && measured.all(Cell::is_numeric)
        };
        (0..self.columns.len()).map(numeric).collect()
    }
}
