//! `lacuna run RECIPE.toml`: several jobs, each on what the one before has written.

use super::{print, print_json};
use clap::Parser;
use lacuna::Result;
use lacuna::job::{Event, Methods, Pipeline};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Runs the stages of a recipe one after another: [[stage]] tables, each a job of prune or train. A run that was cut off goes on where it was.
#[derive(Parser)]
pub struct Args {
    /// The recipe: `model`, `out`, `text` to measure on, and [[stage]] tables with `[stage.prune]` or `[stage.train]`
    recipe: PathBuf,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let pipeline = Pipeline::read(&args.recipe)?;
    super::train::stop_cleanly()?;
    let report = pipeline.run(&Methods::standard(), &mut |event| {
        if let Event::Note(_) | Event::Warning(_) | Event::Validated(_) = event {
            eprintln!("{event}");
        }
        if super::train::is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if args.json {
        return print_json(&report);
    }
    print(&report.to_text())
}
