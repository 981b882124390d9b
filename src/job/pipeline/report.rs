//! What a pipeline leaves to be read.

use crate::Result;
use crate::report::{Cell, Figure, Page, Point, Table};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A model between two stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageReport {
    /// The job that made it; `before` of the model that the pipeline began with.
    pub stage: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it is known by.
    pub fingerprint: String,
    /// Bytes of its weights.
    pub bytes: u64,
    /// Its parameters.
    pub parameters: usize,
    /// Those that are kept, by masks or because they are not 0.
    pub kept: usize,
    /// Perplexity of the pipeline's text.
    pub perplexity: Option<f64>,
    /// The mean −ln p of it, in nats.
    pub nll: Option<f64>,
    /// Tokens a second while that was measured.
    pub tokens_per_second: Option<f64>,
    /// Seconds of the stage, as its own record says; measuring is not in them.
    pub seconds: f64,
}

/// The outcome of a pipeline. It serialises to the record `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct PipelineReport {
    /// The folder of all stages.
    pub out: PathBuf,
    /// The model before, and behind each stage.
    pub stages: Vec<StageReport>,
}

impl PipelineReport {
    fn table(&self) -> Table {
        let mut table = Table::new(["stage", "MB", "parameters", "kept", "perplexity", "tokens/s", "seconds"]);
        for s in &self.stages {
            let (perplexity, speed) = (s.perplexity.map(|p| Cell::float(p, 4)), s.tokens_per_second.map(|t| Cell::float(t, 1)));
            table.row((
                s.stage.as_str(),
                Cell::float(s.bytes as f64 / 1e6, 1),
                s.parameters,
                s.kept,
                perplexity,
                speed,
                Cell::float(s.seconds, 1),
            ));
        }
        table
    }

    /// All stages as a table.
    pub fn to_text(&self) -> String {
        format!("{}-> {}\n", self.table().to_text(), self.out.display())
    }

    /// All stages as a page.
    ///
    /// # Errors
    /// If a figure cannot be drawn.
    pub fn page(&self) -> Result<String> {
        let mut page = Page::new("Pipeline").table(&self.table());
        let points: Vec<Point> = self.stages.iter().enumerate().filter_map(|(i, s)| Some(Point::new(i as f64, s.nll?))).collect();
        if points.len() > 1 {
            let figure = Figure::new("Perplexity behind each stage", "stage", "ln perplexity, nats").series("text", points);
            page = page.figure(&figure.to_svg()?);
        }
        for s in &self.stages {
            page = page.text(&format!("{}: {}", s.stage, s.folder.display()));
        }
        Ok(page.to_html())
    }
}
