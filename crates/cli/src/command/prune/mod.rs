//! `lacuna prune MODEL OUT`: plain weight files, by criteria that need the weights alone; model folders, by any method.

mod args;
mod job;

pub use args::Args;

use crate::command::bars::Bars;
use crate::command::{print, print_json};
use lacuna::job::{Event, Methods, unused_note};
use lacuna::{Error, Result};
use std::ops::ControlFlow;

/// The options that are no settings of a job, and that a plain file of weights has a use for too.
const OF_A_RUN: [&str; 4] = ["json", "force", "recipe", "print-recipe"];

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let methods = Methods::standard();
    let job = job::of(args, &methods)?;
    if args.print_recipe {
        job.check_ranges()?;
        return print(&job.to_toml()?);
    }
    job.check_given(args.given.iter().map(String::as_str).filter(|option| !OF_A_RUN.contains(option)))?;
    let mut bars = Bars::default();
    let report = job.run(&methods, &mut |event| {
        bars.see(event);
        match event {
            Event::Progress { .. } => {}
            Event::Unused { all, changed } => say_unused(args, all, changed),
            other => eprintln!("{other}"),
        }
        ControlFlow::Continue(())
    });
    bars.clear();
    let report = report?;
    if args.json {
        let value = serde_json::to_value(&report).map_err(|e| Error::invalid_option("json", e.to_string()))?;
        return print_json(&value);
    }
    print(&report.to_text())
}

/// Says which options were given that change nothing of what is asked.
fn say_unused(args: &Args, all: &[&str], changed: &[&str]) {
    let idle: Vec<&str> =
        all.iter().filter(|name| changed.contains(name) || args.given.iter().any(|given| given == *name)).copied().collect();
    if let Some(text) = unused_note(&idle) {
        eprintln!("note: {text}");
    }
}
