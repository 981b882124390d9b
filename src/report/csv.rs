//! The quoting of RFC 4180, written and read.
//!
//! A field is quoted when it holds a comma, a quote, a line break or a space at an end; quotes inside are doubled.
//! An empty text is written `""`, so that a missing cell, which is nothing at all, stays apart from it.

use super::cell::Cell;
use crate::{Error, Result};

/// One record and the line it begins on, from 1.
#[derive(Debug)]
pub(super) struct Record {
    pub line: usize,
    pub cells: Vec<Cell>,
}

/// Writes one record; the flag of a field says whether it is there or missing.
pub(super) fn write_record(out: &mut String, fields: impl Iterator<Item = (String, bool)>) {
    for (index, (field, present)) in fields.enumerate() {
        if index > 0 {
            out.push(',');
        }
        let quoted = field.is_empty()
            || field.contains([',', '"', '\n', '\r'])
            || field.starts_with([' ', '\t', '\u{feff}'])
            || field.ends_with([' ', '\t']);
        if present && quoted {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&field);
        }
    }
    out.push('\n');
}

/// Reads every record. The line break at the end of the text begins no further record.
pub(super) fn read_records(text: &str) -> Result<Vec<Record>> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    let mut records = Vec::new();
    let mut record = Record { line, cells: Vec::new() };
    while !rest.is_empty() || !record.cells.is_empty() {
        let (cell, after) = read_field(rest, line)?;
        line += rest[..rest.len() - after.len()].matches('\n').count();
        record.cells.push(cell);
        if let Some(next) = after.strip_prefix(',') {
            rest = next;
            continue;
        }
        rest = after.strip_prefix("\r\n").or(after.strip_prefix('\n')).unwrap_or(after);
        line += 1;
        records.push(std::mem::replace(&mut record, Record { line, cells: Vec::new() }));
    }
    Ok(records)
}

/// One field and what follows it: nothing, a comma or a line break.
fn read_field(text: &str, line: usize) -> Result<(Cell, &str)> {
    let error = |reason: &str| Err(Error::invalid_option(format!("CSV line {line}"), reason));
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let at_break = text[end..].starts_with('\n');
        let end = if at_break && text[..end].ends_with('\r') { end - 1 } else { end };
        let (field, rest) = text.split_at(end);
        if field.contains('"') {
            return error("a quote inside a field that does not begin with one");
        }
        return Ok((if field.is_empty() { Cell::Missing } else { Cell::from(field) }, rest));
    };
    let mut field = String::new();
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            return error("the quote that begins a field is never closed");
        };
        field.push_str(before);
        let Some(more) = after.strip_prefix('"') else {
            let closed = after.is_empty() || after.starts_with([',', '\n']) || after.starts_with("\r\n");
            return if closed { Ok((Cell::Text(field), after)) } else { error("text follows the quote that closes a field") };
        };
        field.push('"');
        rest = more;
    }
}
