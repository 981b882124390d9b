//! One file a subcommand.

mod experiment;
mod model;
mod anatomy;
pub mod inspect;
mod place;
pub mod generate;
mod texts;
mod bars;
pub mod bench;
pub mod advise;
pub mod import;
pub mod export;
pub mod init;
pub mod logits;
pub mod pack;
pub mod embed;
pub mod eval;
mod timing;
mod pages;
pub mod demo;
pub mod prune;
pub mod shrink;
pub mod quantize;
pub mod train;
pub mod run;

use lacuna::{Error, Result};
use ndarray::Array2;
use std::io::{ErrorKind, Write};

/// Prints to standard output. A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

/// Refuses, before any work, `--json` beside a name that is not UTF-8: what is printed would have to hold it.
///
/// # Errors
/// [`Error::InvalidOption`] with the name.
pub fn check_arguments() -> Result<()> {
    let all: Vec<_> = std::env::args_os().skip(1).collect();
    match all.iter().find(|arg| arg.to_str().is_none()) {
        Some(name) if all.iter().any(|arg| arg == "--json") => {
            Err(Error::invalid_option("json", format!("{} is not UTF-8, which JSON cannot hold", name.to_string_lossy())))
        }
        _ => Ok(()),
    }
}

/// A number of things, in words: `1 token`, `2 tokens`.
pub fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// The largest difference of an entry of two arrays of one shape.
///
/// # Errors
/// If one is NaN, which would be passed over.
pub fn largest_difference(a: &Array2<f32>, b: &Array2<f32>) -> Result<f64> {
    let apart = a - b;
    match apart.indexed_iter().find(|(_, d)| d.is_nan()) {
        Some(((row, col), &value)) => Err(Error::NotFinite { what: "difference".into(), row, col, value: f64::from(value) }),
        None => Ok(f64::from(apart.fold(0.0, |m, d| f32::max(m, d.abs())))),
    }
}

/// One line of JSON on standard output.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_string(value).map_err(|e| Error::invalid_option("json", e.to_string()))?;
    print(&(json + "\n"))
}
