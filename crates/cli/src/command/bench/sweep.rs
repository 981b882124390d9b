//! `lacuna bench sweep`: where sparse begins to win.

use super::case::{Case, FormatArg, Weights, beyond_caches};
use super::measure::{Measured, spread};
use super::room::{Beside, check_memory, check_rising, check_seconds, check_threads, shape};
use crate::command::place::{self, Force};
use crate::command::{counted, print, print_json};
use clap::Parser;
use lacuna::io::atomic;
use lacuna::mask::Pattern;
use lacuna::report::{Cell, Figure, Page, Point, Table};
use lacuna::rng::Seed;
use lacuna::sparse::{ActivationBits, Hint, Plan, Precision};
use lacuna::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;

/// Options of `bench sweep`.
#[derive(Parser)]
pub struct Sweep {
    /// Outputs x inputs; a list is separated by commas
    #[arg(long, value_delimiter = ',', default_value = "576x1536,1536x576,3072x768")]
    shape: Vec<String>,
    /// Rows of x; a list is separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,128,512")]
    tokens: Vec<usize>,
    /// Sparsities to try
    #[arg(long, value_delimiter = ',', default_value = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95,0.99")]
    sparsity: Vec<f64>,
    /// Threads of a product
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Weights come from memory
    #[arg(long)]
    cold: bool,
    /// Seconds for each product
    #[arg(long, default_value_t = 0.25)]
    seconds: f64,
    /// Folder for sweep.csv, sweep.svg and sweep.html
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Seed of random weights and inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object a shape and number of tokens instead of a table
    #[arg(long)]
    json: bool,
}

/// Where sparse begins to win.
#[derive(Debug, Serialize)]
struct BreakEven {
    shape: String,
    tokens: usize,
    threads: usize,
    /// The lowest sparsity from which on the fastest sparse storage is faster than dense; none within those tried.
    sparsity: Option<f64>,
    /// Storage chosen at each sparsity, and its speed-up.
    cases: Vec<(f64, String, f64)>,
    /// What the speed-ups were made of.
    times: Vec<Times>,
}

/// Times at one sparsity: medians of single products, their quartiles, and how many they are.
#[derive(Debug, Serialize)]
struct Times {
    sparsity: f64,
    dense_us: f64,
    dense_quartiles_us: [f64; 2],
    dense_timed: usize,
    sparse_us: f64,
    sparse_quartiles_us: [f64; 2],
    sparse_timed: usize,
}

/// Runs the command.
pub fn run(args: &Sweep) -> Result<()> {
    check_seconds(args.seconds)?;
    check_rising(&args.sparsity)?;
    if let Some(out) = &args.out {
        place::reports(out, &["sweep.html", "sweep.csv", "sweep.svg"], args.force.force)?;
    }
    check_threads(&[args.threads])?;
    let shapes: Vec<(usize, usize)> = args.shape.iter().map(|s| shape(s)).collect::<Result<_>>()?;
    check_memory(&shapes, &args.tokens, Beside { copies: if args.cold { 2 * beyond_caches() } else { 0 }, storages: 2 })?;
    args.out.as_deref().map(place::reports_folder).transpose()?;
    let mut found = Vec::new();
    let mut lines = Table::new([
        "shape",
        "tokens",
        "threads",
        "sparsity",
        "format",
        "dense µs",
        "sparse µs",
        "speed-up",
        "dense quartiles",
        "sparse quartiles",
        "timed",
    ]);
    for dim in shapes {
        let weights = Weights::random(dim, Seed(args.seed), false);
        for &tokens in &args.tokens {
            let (mut cases, mut times) = (Vec::new(), Vec::new());
            for &sparsity in &args.sparsity {
                let m = best(args, &weights, tokens, sparsity)?;
                lines.row(vec![
                    Cell::from(m.shape.clone()),
                    m.tokens.into(),
                    m.threads.into(),
                    Cell::float(sparsity, 2),
                    m.format.clone().into(),
                    Cell::float(m.dense_us, 1),
                    Cell::float(m.sparse_us, 1),
                    Cell::float(m.speedup, 3),
                    spread(m.dense_quartiles_us).into(),
                    spread(m.sparse_quartiles_us).into(),
                    format!("{}, {}", m.dense_timed, m.sparse_timed).into(),
                ]);
                times.push(Times {
                    sparsity,
                    dense_us: m.dense_us,
                    dense_quartiles_us: m.dense_quartiles_us,
                    dense_timed: m.dense_timed,
                    sparse_us: m.sparse_us,
                    sparse_quartiles_us: m.sparse_quartiles_us,
                    sparse_timed: m.sparse_timed,
                });
                cases.push((sparsity, m.format, m.speedup));
            }
            let even = BreakEven {
                shape: format!("{}x{}", dim.0, dim.1),
                tokens,
                threads: args.threads,
                sparsity: break_even(&cases),
                cases,
                times,
            };
            if args.json {
                print_json(&even)?;
            }
            found.push(even);
        }
    }
    let mut table = Table::new(["shape", "tokens", "threads", "break-even sparsity"]);
    for e in &found {
        table.row(vec![
            Cell::from(e.shape.clone()),
            e.tokens.into(),
            e.threads.into(),
            e.sparsity.map_or(Cell::Missing, |s| Cell::float(s, 2)),
        ]);
    }
    if !args.json {
        print(&table.to_text())?;
    }
    if let Some(out) = &args.out {
        let svg = figure(&found)?;
        atomic::write_bytes(out.join("sweep.csv"), lines.to_csv().as_bytes())?;
        atomic::write_bytes(out.join("sweep.svg"), svg.as_bytes())?;
        let page = Page::new("From which sparsity on sparse beats dense").table(&table).figure(&svg).table(&lines);
        atomic::write_bytes(out.join("sweep.html"), page.to_html().as_bytes())?;
    }
    Ok(())
}

/// Storages that are tried at each sparsity.
const TRIED: usize = 3;

/// The fastest of the sparse storages that the plan's model ranks highest.
fn best(args: &Sweep, weights: &Weights, tokens: usize, sparsity: f64) -> Result<Measured> {
    let mask = weights.mask(Pattern::Unstructured, Some(sparsity))?;
    let hint = Hint { from_memory: args.cold, ..Hint::tokens(tokens) };
    let mut best: Option<Measured> = None;
    for format in Plan::candidates(&mask, hint).into_iter().take(TRIED) {
        let case = Case {
            weight: &weights.weight,
            mask: &mask,
            pattern: Pattern::Unstructured,
            tokens,
            threads: args.threads,
            format: FormatArg::Named(format),
            values: Precision::F32,
            activation_bits: ActivationBits::Full,
            cold: args.cold,
            peers: false,
            seconds: args.seconds,
            seed: Seed(args.seed),
        };
        let m = case.run()?;
        if best.as_ref().is_none_or(|b| m.speedup > b.speedup) {
            best = Some(m);
        }
    }
    best.ok_or_else(|| Error::invalid_option("format", "no storage to try"))
}

/// Where the speed-up crosses 1 for good, by a straight line between neighbours.
fn break_even(cases: &[(f64, String, f64)]) -> Option<f64> {
    let last_loss = cases.iter().rposition(|c| c.2 < 1.0);
    match last_loss {
        None => cases.first().map(|c| c.0),
        Some(i) if i + 1 == cases.len() => None,
        Some(i) => {
            let ((s0, _, a), (s1, _, b)) = (&cases[i], &cases[i + 1]);
            Some(s0 + (s1 - s0) * (1.0 - a) / (b - a))
        }
    }
}

fn figure(found: &[BreakEven]) -> Result<String> {
    let mut figure = Figure::new("Speed-up over dense", "sparsity", "dense time / sparse time").percent_x().log_y();
    for e in found {
        let points = e.cases.iter().map(|c| Point::new(c.0, c.2)).collect();
        figure = figure.series(format!("{}, {}", e.shape, counted(e.tokens, "token")), points);
    }
    figure.to_svg()
}
