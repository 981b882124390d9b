//! What a run of `lacuna prune DIR OUT` leaves to be read: a record, a table, a page.

use super::args::Args;
use super::options;
use lacuna::Result;
use lacuna::eval::{Census, sparsity};
use lacuna::io::Folder;
use lacuna::kernels::Isa;
use lacuna::lm::Config;
use lacuna::prune::LayerRecord;
use lacuna::report::{Bars, Cell, Figure, Page, Point, Table};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is known of a run at its end.
pub struct Outcome {
    /// How long it took.
    pub seconds: f64,
    /// Before and after, with what they were measured on; null if they were not.
    pub perplexity: Option<Value>,
    /// What a search of budgets found; null without one.
    pub found: Value,
    /// Where the calibration has fewer tokens than layers have inputs; null where it has enough.
    pub few: Value,
}

/// The run's record.
///
/// # Errors
/// If the folder's parameters cannot be counted.
pub fn report(args: &Args, described: &Value, records: &[LayerRecord], folder: &Folder, outcome: Outcome) -> Result<Value> {
    let (weights, kept) = records.iter().fold((0, 0), |(w, k), r| (w + r.shape.0 * r.shape.1, k + r.kept));
    let whole = Census::of(folder, &Config::of(folder)?, false)?.whole().numbers;
    let mut settings = described.clone();
    if let Some(map) = settings.as_object_mut() {
        map.remove("budgets");
        map.remove("found");
    }
    Ok(json!({
        "out": args.out, "settings": settings, "weights": weights, "kept": kept, "sparsity": sparsity(kept, weights),
        "parameters": whole, "whole_sparsity": sparsity(whole - (weights - kept).min(whole), whole), "seconds": outcome.seconds,
        "peak_bytes": lacuna::eval::peak_memory(), "threads": rayon::current_num_threads(), "isa": Isa::chosen().map(Isa::name).unwrap_or_default(),
        "search": outcome.found, "few_tokens": outcome.few, "asked": options::outcome_options(args),
        "perplexity": outcome.perplexity,
        "layers": records,
    }))
}

/// As a table.
pub fn text(args: &Args, report: &Value, records: &[LayerRecord]) -> String {
    let table = layers(records);
    let number = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
    let share = |key: &str| Cell::from(report[key].as_f64().map(|s| Cell::float(s, 4))).show();
    let error = match records.iter().any(|r| r.error.is_some()) {
        true => format!("error: {ERROR}; "),
        false => String::new(),
    };
    format!(
        "{}\n{error}moved: {MOVED}\n{} by {} -> {}\nsparsity {} of the pruned layers, {} of the model; {:.1} s{}\n{}",
        table.to_text(),
        args.model.display(),
        report["settings"]["method"].as_str().unwrap_or("?"),
        args.out.display(),
        share("sparsity"),
        share("whole_sparsity"),
        number("seconds"),
        report["peak_bytes"].as_f64().map_or(String::new(), |bytes| format!(", {:.2} GB at most", bytes / 1e9)),
        match measured(report) {
            Some([before, after]) => format!("perplexity {before:.4} before, {after:.4} after; {}\n", setting(report)),
            None => String::new(),
        },
    )
}

/// What the column `error` says.
const ERROR: &str = "‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖², the share of a layer's output that is lost on the inputs X of the calibration";
/// What the column `moved` says.
const MOVED: &str = "‖Ŵ − W‖² / ‖W‖², the share of a layer's weight that is lost";

/// The perplexity before and after, if it was measured. JSON has no number for one that is beyond all of them.
fn measured(report: &Value) -> Option<[f64; 2]> {
    let of = |key: &str| report["perplexity"][key].as_f64();
    let nll = |key: &str| of(key).map(f64::exp);
    Some([of("before").or(nll("nll_before"))?, of("after").or(nll("nll_after"))?])
}

/// What a perplexity was measured on: numbers of other contexts, or with the first token elsewhere, are not comparable.
fn setting(report: &Value) -> String {
    let of = &report["perplexity"];
    format!("context {}, {} windows, BOS: {}", of["context"], of["windows"], of["bos"].as_str().unwrap_or("?"))
}

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

/// Behind the number of its block: `mlp.down_proj`.
fn kind(layer: &str) -> String {
    let behind: Vec<&str> = layer.split('.').skip_while(|part| part.parse::<usize>().is_err()).skip(1).collect();
    if behind.is_empty() { layer.to_string() } else { behind.join(".") }
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
            lines.entry(kind(&r.layer)).or_default().push(Point::new(r.block as f64, value));
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

/// The run as a page: the options that matter, sums, figures by block and kind, all layers.
///
/// # Errors
/// If a figure cannot be drawn.
pub fn page(args: &Args, report: &Value, records: &[LayerRecord]) -> Result<String> {
    let show = |v: &Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    let mut settings = Table::new(["option", "value"]);
    let options = report["settings"]["options"].as_object().into_iter().flatten();
    for (key, value) in options.chain(report["asked"].as_object().into_iter().flatten()).filter(|(_, v)| !v.is_null()) {
        settings.row((key.as_str(), show(value)));
    }
    let full = std::fs::canonicalize(&args.model).unwrap_or_else(|_| args.model.clone());
    let model = full.file_name().map_or_else(|| args.model.display().to_string(), |n| n.to_string_lossy().into_owned());
    let mut sums = Table::new(["", "value"]);
    let float = |key: &str, digits: usize| report[key].as_f64().map(|v| Cell::float(v, digits));
    sums.row(("pruned weights", report["weights"].as_u64().unwrap_or(0)));
    sums.row(("kept of them", report["kept"].as_u64().unwrap_or(0)));
    sums.row(("sparsity of them", float("sparsity", 4)));
    sums.row(("sparsity of the model", float("whole_sparsity", 4)));
    sums.row(("seconds", float("seconds", 1)));
    sums.row(("peak memory, GB", report["peak_bytes"].as_f64().map(|b| Cell::float(b / 1e9, 2))));
    sums.row(("threads", report["threads"].as_u64().unwrap_or(1)));
    let mut page = Page::new(format!("Pruning by {}: {model}", show(&report["settings"]["method"]))).table(&sums);
    if let (Some(tokens), Some(inputs)) = (report["few_tokens"]["tokens"].as_u64(), report["few_tokens"]["inputs"].as_u64()) {
        let layers = &report["few_tokens"]["layers"];
        page = page.text(&format!(
            "The calibration has {tokens} tokens, fewer than the inputs of {layers} layers, which have up to {inputs}: what was solved for \
             fits these tokens alone."
        ));
    }
    if let Some([before, after]) = measured(report) {
        let mut table = Table::new(["", "perplexity"]);
        table.row(("before", Cell::float(before, 4)));
        table.row(("after", Cell::float(after, 4)));
        let bars = Bars::new("Perplexity", "", "perplexity", ["before", "after"]).series("model", vec![before, after]);
        page = page.heading("Perplexity").text(&format!("{}.", setting(report))).table(&table);
        if before.is_finite() && after.is_finite() {
            page = page.figure(&bars.to_svg()?);
        }
    }
    // What is said of each layer's output where its inputs were measured, else of its weight.
    if let Some(errors) = by_block("Error by block", "‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖²", records, |r| r.error)? {
        page = page.heading("Error").text(&format!("{ERROR}.")).figure(&errors.to_svg()?);
    } else if let Some(moved) = by_block("Loss of weight by block", "‖Ŵ − W‖² / ‖W‖²", records, |r| r.moved)? {
        page = page.heading("Loss of weight").text(&format!("{MOVED}.")).figure(&moved.to_svg()?);
    }
    if let Some(sensitivities) = sensitivities(&report["search"], records)? {
        page = page
            .heading("Sensitivity")
            .text("What the model's predictions lose, in nats of divergence a token, when one layer alone is pruned as far as the search goes.")
            .figure(&sensitivities.to_svg()?);
    }
    let gone = |r: &LayerRecord| sparsity(r.kept, r.shape.0 * r.shape.1);
    // Lines that lie on one another, but for rounding, are no figure.
    let whole = report["sparsity"].as_f64().unwrap_or(0.0);
    page = page.heading("Sparsity");
    if records.iter().filter_map(gone).all(|s| (s - whole).abs() < 0.005) {
        page = page.text(&format!("{whole:.4} in every layer."));
    } else if let Some(figure) = by_block("Sparsity by block", "sparsity", records, gone)? {
        page = page.figure(&figure.percent_y().to_svg()?);
    }
    if let Some(seconds) = by_block("Time by block", "seconds of pruning, without measuring", records, |r| Some(r.seconds))? {
        page = page.heading("Time").figure(&seconds.to_svg()?);
    }
    Ok(page
        .heading("Settings")
        .text("Those that matter for the method.")
        .table(&settings)
        .heading("Layers")
        .table(&layers(records))
        .to_html())
}
