//! `lacuna prune MODEL OUT`: plain weight files, by criteria that need the weights alone; model folders, by any method.

mod args;
mod search;
mod methods;
mod options;
mod report;
mod model;
mod file;

pub use args::Args;

use lacuna::Result;

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.model.is_dir() { model::run(args) } else { file::run(args) }
}
