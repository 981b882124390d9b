//! A report as tables and as a page.

use super::report::{FileReport, ModelReport, PruneReport};
use crate::Result;
use crate::eval::sparsity;
use crate::prune::{LayerRecord, LeftAlone, layer_kind};
use crate::report::{Cell, Figure, Page, Point, Table};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

impl PruneReport {
    /// All layers as a table, and the sums in words.
    pub fn to_text(&self) -> String {
        match self {
            PruneReport::Model(report) => report.to_text(),
            PruneReport::File(report) => report.to_text(),
        }
    }

    /// The run as a page: the settings that matter, sums, figures by block and kind, all layers. A plain file has none.
    ///
    /// # Errors
    /// If a figure cannot be drawn.
    pub fn page(&self) -> Result<Option<String>> {
        match self {
            PruneReport::Model(report) => report.page().map(Some),
            PruneReport::File(_) => Ok(None),
        }
    }
}

impl ModelReport {
    /// All layers as a table, and the sums in words.
    pub fn to_text(&self) -> String {
        if self.already_finished {
            return format!("{} is finished, as it was asked for: nothing was done\n", self.out.display());
        }
        let fraction = |value: Option<f64>| Cell::from(value.map(|s| Cell::float(s, 4))).show();
        let error = match self.layers.iter().any(|r| r.error.is_some()) {
            true => format!("error: {ERROR}; "),
            false => String::new(),
        };
        format!(
            "{}\n{error}moved: {MOVED}\n{} by {} -> {}\nsparsity {} of the pruned layers, {} of the model; {:.1} s{}\n{}",
            layers(&self.layers).to_text(),
            self.model().display(),
            self.settings["method"].as_str().unwrap_or("?"),
            self.out.display(),
            fraction(self.sparsity),
            fraction(self.whole_sparsity),
            self.seconds,
            self.peak_bytes.map_or(String::new(), |bytes| format!(", {:.2} GB at most", bytes as f64 / 1e9)),
            self.perplexities().to_text(),
        )
    }

    /// The model that was pruned.
    fn model(&self) -> &Path {
        let of_job = self.job.as_ref().and_then(|job| job.model.as_deref());
        of_job.or_else(|| self.settings["model"].as_str().map(Path::new)).unwrap_or(Path::new("?"))
    }

    /// The run as a page: the settings that matter, sums, figures by block and kind, all layers.
    ///
    /// # Errors
    /// If a figure cannot be drawn.
    pub fn page(&self) -> Result<String> {
        let show = |v: &Value| v.as_str().map_or_else(|| v.to_string(), String::from);
        let mut settings = Table::new(["option", "value"]);
        let options = self.settings["options"].as_object().into_iter().flatten();
        for (key, value) in options.chain(self.asked.as_object().into_iter().flatten()).filter(|(_, v)| !v.is_null()) {
            settings.row((key.as_str(), show(value)));
        }
        let full = std::fs::canonicalize(self.model()).unwrap_or_else(|_| self.model().to_path_buf());
        let model = full.file_name().map_or_else(|| self.model().display().to_string(), |n| n.to_string_lossy().into_owned());
        let mut page = Page::new(format!("Pruning by {}: {model}", show(&self.settings["method"]))).table(&self.sums());
        if let Some(few) = &self.few_tokens {
            page = page.text(&format!(
                "The calibration has {} tokens, fewer than the inputs of {} layers, which have up to {}: what was solved for \
                 fits these tokens alone.",
                few.tokens, few.layers, few.inputs
            ));
        }
        if let Some(few) = self.few_routed() {
            page = page.text(&format!("{few}."));
        }
        page = self.perplexities().on(page)?;
        page = self.figures(page)?;
        Ok(page
            .heading("Settings")
            .text("Those that matter for the method.")
            .table(&settings)
            .heading("Layers")
            .table(&layers(&self.layers))
            .to_html())
    }

    fn sums(&self) -> Table {
        let float = |value: Option<f64>, digits: usize| value.map(|v| Cell::float(v, digits));
        let mut sums = Table::new(["", "value"]);
        sums.row(("pruned weights", self.weights));
        sums.row(("kept of them", self.kept));
        sums.row(("sparsity of them", float(self.sparsity, 4)));
        sums.row(("sparsity of the model", float(self.whole_sparsity, 4)));
        sums.row(("seconds", float(Some(self.seconds), 1)));
        sums.row(("peak memory, GB", float(self.peak_bytes.map(|b| b as f64 / 1e9), 2)));
        sums.row(("threads", self.threads));
        sums
    }

    /// What became of the layers, by block and kind.
    fn figures(&self, mut page: Page) -> Result<Page> {
        let records = &self.layers;
        // What is said of each layer's output where its inputs were measured, else of its weight.
        if let Some(errors) = by_block("Error by block", "‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖²", records, |r| r.error)? {
            page = page.heading("Error").text(&format!("{ERROR}.")).figure(&errors.to_svg()?);
        } else if let Some(moved) = by_block("Loss of weight by block", "‖Ŵ − W‖² / ‖W‖²", records, |r| r.moved)? {
            page = page.heading("Loss of weight").text(&format!("{MOVED}.")).figure(&moved.to_svg()?);
        }
        if let Some(sensitivities) = sensitivities(&self.search, records)? {
            page = page
                .heading("Sensitivity")
                .text("What the model's predictions lose, in nats of divergence a token, when one layer alone is pruned as far as the search goes.")
                .figure(&sensitivities.to_svg()?);
        }
        let gone = |r: &LayerRecord| sparsity(r.kept, r.shape.0 * r.shape.1);
        // Lines that lie on one another, but for rounding, are no figure.
        let whole = self.sparsity.unwrap_or(0.0);
        page = page.heading("Sparsity");
        if records.iter().filter_map(gone).all(|s| (s - whole).abs() < 0.005) {
            page = page.text(&format!("{whole:.4} in every layer."));
        } else if let Some(figure) = by_block("Sparsity by block", "sparsity", records, gone)? {
            page = page.figure(&figure.percent_y().to_svg()?);
        }
        if let Some(seconds) = by_block("Time by block", "seconds of pruning, without measuring", records, |r| Some(r.seconds))? {
            page = page.heading("Time").figure(&seconds.to_svg()?);
        }
        Ok(page)
    }
}

impl FileReport {
    /// All tensors as tables, and the sums in words.
    pub fn to_text(&self) -> String {
        let mut table = Table::new(["tensor", "shape", "weights", "kept", "sparsity"]);
        let fraction = |kept: Option<f64>| kept.map(|s| Cell::float(s, 4));
        for t in &self.layers {
            table.row((t.name.as_str(), format!("{:?}", t.shape), t.weights, t.kept, fraction(sparsity(t.kept, t.weights))));
        }
        table.row(("pruned tensors", "", self.weights, self.kept, fraction(self.sparsity)));
        table.row(("whole file", "", self.parameters, self.whole_kept, fraction(self.whole_sparsity)));
        format!(
            "{}{}\n{} with {} masks by {} -> {}\n",
            table.to_text(),
            others(&self.left_alone),
            self.job.model.as_deref().unwrap_or(Path::new("?")).display(),
            self.pattern,
            self.method,
            self.out.display()
        )
    }
}

/// The tensors that were left alone, as a table with a line before it; nothing if there are none.
fn others(left: &[LeftAlone]) -> String {
    if left.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["left alone", "dtype", "shape", "numbers", "why"]);
    for l in left {
        table.row((l.name.as_str(), l.dtype.as_str(), format!("{:?}", l.shape), l.numbers, l.why.as_str()));
    }
    format!("\n{}", table.to_text())
}

/// What the column `error` says.
const ERROR: &str = "‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖², the share of a layer's output that is lost on the inputs X of the calibration";
/// What the column `moved` says.
const MOVED: &str = "‖Ŵ − W‖² / ‖W‖², the share of a layer's weight that is lost";

/// All layers.
fn layers(records: &[LayerRecord]) -> Table {
    let mut table = Table::new(["layer", "shape", "kept", "sparsity", "error", "moved", "seconds"]);
    for r in records {
        let weights = r.shape.0 * r.shape.1;
        let share = |value: Option<f64>| value.map_or(Cell::from("-"), |e| Cell::float(e, 5));
        let shape = format!("{} x {}", r.shape.0, r.shape.1);
        table.row((
            r.layer.as_str(),
            shape,
            r.kept,
            Cell::from(sparsity(r.kept, weights).map(|s| Cell::float(s, 4))),
            share(r.error),
            share(r.moved),
            Cell::float(r.seconds, 2),
        ));
    }
    table
}

/// One value a block and kind of layer, as lines over the blocks.
fn by_block(
    title: &str,
    label: &str,
    records: &[LayerRecord],
    of: impl Fn(&LayerRecord) -> Option<f64>,
) -> Result<Option<Figure>> {
    let mut lines: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for r in records {
        if let Some(value) = of(r) {
            lines.entry(layer_kind(&r.layer)).or_default().push(Point::new(r.block as f64, value));
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let figure = Figure::new(title, "block", label);
    Ok(Some(lines.into_iter().fold(figure, |figure, (kind, points)| figure.series(kind, points))))
}

/// What the predictions lose by each layer at its last level.
fn sensitivities(search: &Value, records: &[LayerRecord]) -> Result<Option<Figure>> {
    let last = |losses: &Value| losses.as_array().and_then(|l| l.last()).and_then(Value::as_f64);
    let list = |key: &str| search[key].as_array().into_iter().flatten();
    let of: BTreeMap<&str, f64> =
        list("layers").zip(list("losses")).filter_map(|(name, losses)| Some((name.as_str()?, last(losses)?))).collect();
    by_block("Sensitivity by block", "divergence, nats a token", records, |r| of.get(r.layer.as_str()).copied())
}
