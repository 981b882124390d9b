//! The demo's tables and its report.

use super::counted;
use super::experiment::{METHODS, Row, SPARSITIES, Shrunk, UNITS};
use super::timing::{SHAPE, TOKENS, Timing};
use lacuna::Result;
use lacuna::report::{Bars, Cell, Figure, Page, Point, Summary, Table};
use serde::Serialize;

/// The pruned network that was stored: Optimal Brain Damage at 80 %, retrained.
#[derive(Debug, Clone, Serialize)]
pub struct Stored {
    pub weights: usize,
    pub kept: usize,
    pub dense_bytes: usize,
    pub csr_bytes: usize,
    /// Largest difference between outputs from compressed and from masked weights.
    pub difference: f64,
}

/// All rows.
pub fn results(rows: &[Row]) -> Table {
    let mut table =
        Table::new(["seed", "method", "retrained", "sparsity", "accuracy", "loss", "predicted_increase", "measured_increase"]);
    for r in rows {
        table.row((r.seed, r.method, r.retrained, r.sparsity, r.accuracy, r.loss, r.predicted_increase, r.measured_increase));
    }
    table
}

/// All shrunk networks.
pub fn channels(rows: &[Shrunk]) -> Table {
    let mut table =
        Table::new(["seed", "units_removed", "parameters", "flops", "accuracy", "difference", "masked_us", "shrunk_us"]);
    for r in rows {
        table.row((r.seed, r.units, r.parameters, r.flops, r.accuracy, r.difference, r.masked_us, r.shrunk_us));
    }
    table
}

/// All timed products.
pub fn timing(rows: &[Timing]) -> Table {
    let mut table = Table::new([
        "shape",
        "tokens",
        "sparsity",
        "dense_us",
        "csr_us",
        "speedup",
        "dense_bytes",
        "csr_bytes",
        "difference",
        "dense_kernel",
        "plan_format",
        "plan_kernel",
        "plan_us",
        "plan_speedup",
        "plan_bytes",
    ]);
    for r in rows {
        let shape = format!("{}x{}", SHAPE.0, SHAPE.1);
        table.row(vec![
            Cell::from(shape),
            r.tokens.into(),
            r.sparsity.into(),
            r.dense_us.into(),
            r.csr_us.into(),
            r.speedup.into(),
            r.dense_bytes.into(),
            r.csr_bytes.into(),
            r.difference.into(),
            r.dense_kernel.into(),
            Cell::from(&r.plan_format),
            r.plan_kernel.into(),
            r.plan_us.into(),
            r.plan_speedup.into(),
            r.plan_bytes.into(),
        ]);
    }
    table
}

/// Of the rows of one method and sparsity: a summary over seeds.
fn over_seeds(rows: &[Row], method: &str, retrained: bool, sparsity: f64, of: impl Fn(&Row) -> Option<f64>) -> Result<Summary> {
    let chosen = rows.iter().filter(|r| r.method == method && r.retrained == retrained && r.sparsity == sparsity);
    Summary::of(&chosen.filter_map(of).collect::<Vec<_>>())
}

/// One line a sparsity, one column a method: mean ± deviation over seeds of `of`.
fn by_method(rows: &[Row], retrained: bool, digits: usize, of: impl Fn(&Row) -> f64) -> Result<Table> {
    let mut table = Table::new(std::iter::once("sparsity").chain(METHODS));
    for sparsity in SPARSITIES {
        let mut cells = vec![Cell::float(sparsity, 2)];
        for method in METHODS {
            cells.push(over_seeds(rows, method, retrained, sparsity, |r| Some(of(r)))?.plus_minus(digits).into());
        }
        table.row(cells);
    }
    Ok(table)
}

/// Predicted against measured increase, for Optimal Brain Damage one-shot.
fn prediction(rows: &[Row]) -> Result<Table> {
    let mut table = Table::new(["sparsity", "predicted", "measured", "predicted / measured, by seed"]);
    for sparsity in SPARSITIES.into_iter().filter(|s| *s > 0.0) {
        let chosen: Vec<&Row> = rows.iter().filter(|r| r.method == "obd" && !r.retrained && r.sparsity == sparsity).collect();
        let ratios: Vec<String> =
            chosen.iter().filter_map(|r| Some(format!("{:.2}", r.predicted_increase? / r.measured_increase))).collect();
        let predicted = Summary::of(&chosen.iter().filter_map(|r| r.predicted_increase).collect::<Vec<_>>())?;
        let measured = Summary::of(&chosen.iter().map(|r| r.measured_increase).collect::<Vec<_>>())?;
        table.row((Cell::float(sparsity, 2), predicted.plus_minus(5), measured.plus_minus(5), ratios.join("  ")));
    }
    Ok(table)
}

/// Unit removal, mean over seeds.
fn removal(rows: &[Shrunk]) -> Result<Table> {
    let mut table =
        Table::new(["units removed", "parameters", "MFLOP", "accuracy", "masked µs", "shrunk µs", "times faster", "difference"]);
    for units in UNITS {
        let of = |f: &dyn Fn(&Shrunk) -> f64| Summary::of(&rows.iter().filter(|r| r.units == units).map(f).collect::<Vec<_>>());
        table.row((
            Cell::float(units, 2),
            of(&|r| r.parameters as f64)?.mean.round() as i64,
            Cell::float(of(&|r| r.flops as f64)?.mean / 1e6, 3),
            of(&|r| r.accuracy)?.plus_minus(4),
            Cell::float(of(&|r| r.masked_us)?.mean, 0),
            Cell::float(of(&|r| r.shrunk_us)?.mean, 0),
            Cell::float(of(&|r| r.masked_us / r.shrunk_us)?.mean, 2),
            difference(of(&|r| r.difference)?.max),
        ));
    }
    Ok(table)
}

/// Dense against sparse, for reading.
fn products(rows: &[Timing]) -> Table {
    let mut table = Table::new([
        "tokens",
        "sparsity",
        "dense µs",
        "by",
        "storage",
        "µs",
        "times faster",
        "bytes / dense",
        "CSR µs",
        "times faster",
        "bytes / dense",
    ]);
    for r in rows {
        let share = |bytes: usize| Cell::float(bytes as f64 / r.dense_bytes as f64, 2);
        table.row((
            r.tokens,
            Cell::float(r.sparsity, 2),
            Cell::float(r.dense_us, 1),
            r.dense_kernel,
            &r.plan_format,
            Cell::float(r.plan_us, 1),
            Cell::float(r.plan_speedup, 2),
            share(r.plan_bytes),
            Cell::float(r.csr_us, 1),
            Cell::float(r.speedup, 2),
            share(r.csr_bytes),
        ));
    }
    table
}

/// A difference of which the size matters alone.
fn difference(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}

/// The sections of the report: title, text, table.
fn sections(rows: &[Row], shrunk: &[Shrunk], times: &[Timing], stored: &Stored) -> Result<Vec<(&'static str, String, Table)>> {
    let percent = 100.0 * (1.0 - stored.kept as f64 / stored.weights as f64);
    Ok(vec![
        (
            "Accuracy on held-out digits, pruned at once",
            "Mean ± standard deviation over the seeds. All weights are ranked together. SNIP's mask comes from the initial \
             network, as in its paper, and is laid on the trained one here."
                .into(),
            by_method(rows, false, 3, |r| r.accuracy)?,
        ),
        (
            "Accuracy on held-out digits, retrained",
            "Random, magnitude and OBD train on for 8 epochs from the pruned network, SNIP trains its initial network for all \
             40. Sparsity 0 is the control: the same training with nothing pruned."
                .into(),
            by_method(rows, true, 3, |r| r.accuracy)?,
        ),
        (
            "Increase of the training loss, pruned at once",
            "Squared error summed over the ten outputs, less the dense network's.".into(),
            by_method(rows, false, 4, |r| r.measured_increase)?,
        ),
        (
            "Optimal Brain Damage: predicted against measured increase",
            "The sum of the saliencies of what went, and what the loss did. They part once the quadratic picture ends.".into(),
            prediction(rows)?,
        ),
        (
            "Channels and hidden units removed for real",
            "A convnet with batch normalisation; units scored by OBD, retrained under the mask, then removed. Times are for one pass \
             over the held-out digits; the last column is the largest difference between the masked and the smaller network."
                .into(),
            removal(shrunk)?,
        ),
        (
            "Dense against sparse products",
            format!(
                "Weights of {} x {}, pruned by magnitude. The dense product is the fastest of those that are linked, the storage is the one \
                 that a plan for so many tokens takes by trial; compressed sparse rows (CSR) stand beside it. Times are medians; below 1 \
                 the dense product is faster.",
                SHAPE.0, SHAPE.1
            ),
            products(times),
        ),
        (
            "The stored network",
            format!(
                "OBD at {percent:.1} % of the weights, retrained: pruned.safetensors, masks beside the weights. Outputs from compressed \
                 and from masked weights differ by at most {}.",
                difference(stored.difference)
            ),
            {
                let mut table = Table::new(["weights", "kept", "dense bytes", "CSR bytes"]);
                table.row((stored.weights, stored.kept, stored.dense_bytes, stored.csr_bytes));
                table
            },
        ),
    ])
}

/// For the terminal.
pub fn text(rows: &[Row], shrunk: &[Shrunk], times: &[Timing], stored: &Stored) -> Result<String> {
    let section = |(title, text, table): &(&str, String, Table)| format!("\n{title}\n{text}\n\n{}", table.to_text());
    Ok(sections(rows, shrunk, times, stored)?.iter().map(section).collect())
}

/// The HTML report.
pub fn report(rows: &[Row], shrunk: &[Shrunk], times: &[Timing], stored: &Stored) -> Result<String> {
    let mut figures = [vec![], vec![], vec![], vec![], vec![], vec![], vec![]];
    for (i, retrained) in [false, true].into_iter().enumerate() {
        let title = if retrained { "Retrained" } else { "Pruned at once" };
        let mut figure = Figure::new(title, "sparsity", "held-out accuracy").percent_x().percent_y();
        for method in METHODS {
            figure = figure.series(method, curve(rows, method, retrained, |r| Some(r.accuracy))?);
        }
        figures[i].push(figure.to_svg()?);
    }
    let mut figure = Figure::new("Increase of the loss", "sparsity", "measured increase").percent_x().log_y();
    for method in METHODS {
        figure = figure.series(method, curve(rows, method, false, |r| Some(r.measured_increase).filter(|m| *m > 0.0))?);
    }
    figures[2].push(figure.to_svg()?);
    let figure = Figure::new("Optimal Brain Damage", "sparsity", "increase of the loss").percent_x().log_y();
    let positive = |v: Option<f64>| v.filter(|m| *m > 0.0);
    let figure = figure.series("predicted", curve(rows, "obd", false, |r| positive(r.predicted_increase))?);
    let figure = figure.series("measured", curve(rows, "obd", false, |r| positive(Some(r.measured_increase)))?);
    figures[3].push(figure.to_svg()?);
    if let Some(first) = rows.first() {
        let names: Vec<&str> = first.layers.iter().map(|(n, _)| n.as_str()).collect();
        let mut bars = Bars::new("Sparsity of each layer at 80 % of all", "layer", "sparsity", names.clone()).percent_y();
        for method in METHODS {
            let of = |i: usize| over_seeds(rows, method, false, 0.8, |r| Some(r.layers[i].1)).map(|s| s.mean);
            bars = bars.series(method, (0..names.len()).map(of).collect::<Result<Vec<f64>>>()?);
        }
        figures[2].push(bars.to_svg()?);
    }
    for tokens in TOKENS {
        let of =
            |f: fn(&Timing) -> f64| times.iter().filter(|t| t.tokens == tokens).map(|t| Point::new(t.sparsity, f(t))).collect();
        let figure = Figure::new(counted(tokens, "token"), "sparsity", "µs").percent_x().log_y();
        let figure = figure.series("dense", of(|t| t.dense_us)).series("plan", of(|t| t.plan_us));
        figures[5].push(figure.series("CSR", of(|t| t.csr_us)).to_svg()?);
    }
    let mut page = Page::new("Pruning scanned digits");
    page = page.text(
        "Networks with shared weights, trained on 1797 real 8×8 scans of digits, pruned by four criteria. Bands are the range over \
         the seeds.",
    );
    for ((title, text, table), figures) in sections(rows, shrunk, times, stored)?.iter().zip(&figures) {
        page = figures.iter().fold(page.heading(title).text(text), |page, svg| page.figure(svg)).table(table);
    }
    Ok(page.to_html())
}

/// One point a sparsity with the range over seeds; sparsities for which no seed has a value are left out.
fn curve(rows: &[Row], method: &str, retrained: bool, of: impl Fn(&Row) -> Option<f64>) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for s in SPARSITIES {
        let has = rows.iter().any(|r| r.method == method && r.retrained == retrained && r.sparsity == s && of(r).is_some());
        if has {
            points.push(Point::of(s, &over_seeds(rows, method, retrained, s, &of)?));
        }
    }
    Ok(points)
}
