//! One file a subcommand.

mod anatomy;
pub mod bench;
pub mod demo;
pub mod eval;
mod experiment;
pub mod generate;
pub mod import;
pub mod inspect;
pub mod logits;
mod model;
pub mod pack;
mod pages;
mod place;
pub mod prune;
mod prune_model;
mod prune_report;
mod prune_search;
mod timing;

use lacuna::{Error, Result};
use std::io::{ErrorKind, Write};

/// Prints to standard output. A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

/// One line of JSON on standard output.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_string(value).map_err(|e| Error::setting("json", e.to_string()))?;
    print(&(json + "\n"))
}
