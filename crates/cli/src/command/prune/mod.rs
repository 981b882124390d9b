//! `lacuna prune MODEL OUT`: plain weight files, by criteria that need the weights alone; model folders, by any method.

mod args;
mod job;

pub use args::Args;

use crate::command::{print, print_json};
use indicatif::{ProgressBar, ProgressStyle};
use lacuna::job::{Event, Methods, Stage, unused_note};
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
    let mut bars = Bars(None);
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

/// The bar of the part that runs, on a terminal; nothing elsewhere.
struct Bars(Option<(Stage, ProgressBar)>);

impl Bars {
    fn see(&mut self, event: &Event) {
        let Event::Progress { stage, done, of, memory } = event else { return };
        if self.0.as_ref().is_none_or(|(current, _)| current != stage) {
            self.clear();
            self.0 = Some((*stage, bar(*stage)));
        }
        if let Some((_, bar)) = &self.0 {
            bar.set_length(*of as u64);
            bar.set_position(*done as u64);
            if let Some(bytes) = memory {
                bar.set_message(format!("{:.2} GB", *bytes as f64 / 1e9));
            }
        }
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(stage: Stage) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} (left: {eta}) {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(stage.name());
    bar
}
