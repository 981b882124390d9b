//! Tables of numbers with a class, as CSV.

use crate::io::{one_line, quoted};

use crate::data::Dataset;
use crate::{Error, Result};
use ndarray::Array2;
use std::path::Path;

/// Reads a CSV file with a header whose last column is `class`; all others are numbers, none is quoted. Classes are numbered in the
/// order of their names. A sample is `(1, 1, columns)`.
///
/// # Errors
/// If the file cannot be read (a missing one is told how to get), a line has more or fewer fields than the header, a number is none
/// or not finite, or there is no sample.
pub fn table(path: impl AsRef<Path>) -> Result<Dataset> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(|e| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match e.kind() {
            std::io::ErrorKind::NotFound => Error::malformed(path, format!("not there; scripts/fetch_data.sh {name} fetches it")),
            _ => Error::io(path, e),
        }
    })?;
    let wrong = |line: usize, what: String| Error::malformed(path, format!("line {line}: {what}"));
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty());
    let columns: Vec<&str> = lines.next().map(|(_, header)| header.split(',').collect()).unwrap_or_default();
    if columns.len() < 2 || columns.last() != Some(&"class") {
        return Err(wrong(1, "the header has no columns that end in 'class'".into()));
    }
    let (mut numbers, mut classes) = (Vec::new(), Vec::new());
    for (at, line) in lines {
        let fields: Vec<&str> = line.split(',').collect();
        if fields.len() != columns.len() {
            return Err(wrong(at, format!("{} fields where the header has {}", fields.len(), columns.len())));
        }
        for field in &fields[..columns.len() - 1] {
            let number = field.trim().parse::<f32>().ok().filter(|v| v.is_finite());
            numbers.push(number.ok_or_else(|| wrong(at, format!("{} is not a number", quoted(field))))?);
        }
        classes.push(one_line(fields[columns.len() - 1], 100));
    }
    let mut names = classes.clone();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(wrong(1, "no sample follows the header".into()));
    }
    let labels = classes.iter().map(|c| names.binary_search(c).unwrap_or(0)).collect();
    let features = columns.len() - 1;
    let x = Array2::from_shape_vec((classes.len(), features), numbers).map_err(|e| wrong(1, e.to_string()))?;
    Dataset::new(x, labels, names.len(), (1, 1, features))
}
