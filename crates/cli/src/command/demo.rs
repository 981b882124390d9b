//! `lacuna demo`: one way through the whole library on real data.

use super::experiment::{METHODS, Row, SPARSITIES, Shrunk, Trained, compare, remove_units, time, train};
use super::pages::{self, Stored};
use super::place::{self, Force};
use super::timing::{Timing, dense_against_sparse};
use super::{print, print_json};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lacuna::io::{Checkpoint, Dtype, atomic};
use lacuna::models::{Compressed, to_checkpoint};
use lacuna::nn::Network;
use lacuna::rng::Seed;
use lacuna::sparse::{Compress, Csr};
use lacuna::{Error, Result};
use ndarray::Array1;
use rayon::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Trains networks on the 1797 scanned digits that come with this program, prunes them by four criteria with and without
/// retraining, removes channels for real, times sparse against dense products, and writes a report.
#[derive(Parser)]
pub struct Args {
    /// Folder for report.html, results.csv, channels.csv, timing.csv and pruned.safetensors
    #[arg(long, default_value = "lacuna-demo")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// The first seed; every seed is another split and other initial weights
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// Number of seeds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// What is written, the page first.
const REPORTS: [&str; 5] = ["report.html", "results.csv", "channels.csv", "timing.csv", "pruned.safetensors"];

/// Everything that was measured.
#[derive(Serialize)]
struct Results<'a> {
    seconds: f64,
    rows: &'a [Row],
    channels: &'a [Shrunk],
    timing: &'a [Timing],
    stored: &'a Stored,
    out: &'a Path,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    place::reports(&args.out, &REPORTS, args.force.force)?;
    place::reports_folder(&args.out)?;
    let seeds: Vec<Seed> = (0..args.seeds).map(|i| Seed(args.seed.wrapping_add(i))).collect();
    let jobs: Vec<(usize, &'static str, bool, f64)> = (0..seeds.len())
        .flat_map(|s| {
            METHODS.into_iter().flat_map(move |m| [true, false].into_iter().flat_map(move |r| SPARSITIES.map(|p| (s, m, r, p))))
        })
        .collect();
    let bar = ProgressBar::new((2 * seeds.len() + jobs.len()) as u64);
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);

    bar.set_message("training");
    let trained: Vec<Trained> = seeds.par_iter().map(|&s| train(s).inspect(|_| bar.inc(1))).collect::<Result<_>>()?;
    bar.set_message("removing channels");
    let shrunk: Vec<_> = seeds.par_iter().map(|&s| remove_units(s).inspect(|_| bar.inc(1))).collect::<Result<Vec<_>>>()?;
    bar.set_message("pruning");
    let run = |&(s, method, retrained, sparsity): &(usize, &'static str, bool, f64)| {
        compare(&trained[s], method, retrained, sparsity).map(|(row, network)| {
            bar.inc(1);
            let example = s == 0 && method == "obd" && retrained && sparsity == 0.8;
            (row, example.then_some(network))
        })
    };
    // Long jobs begin first, and are stolen one by one.
    let done: Vec<(Row, Option<Network>)> = jobs.par_iter().with_max_len(1).map(run).collect::<Result<_>>()?;
    bar.set_message("timing");
    let mut channels = Vec::new();
    for (mut row, networks) in shrunk.into_iter().flatten() {
        time(&mut row, &networks)?;
        channels.push(row);
    }
    let timing = dense_against_sparse(seeds[0])?;
    bar.finish_and_clear();

    let mut rows = Vec::new();
    let mut stored = None;
    for (row, network) in done {
        rows.push(row);
        if let Some(network) = network {
            stored = Some(store(&network, &trained[0], &args.out.join("pruned.safetensors"))?);
        }
    }
    let Some(stored) = stored else { return Err(Error::invalid_option("demo", "no pruned network was made")) };
    rows.sort_by(|a, b| {
        (a.seed, a.method, a.retrained).cmp(&(b.seed, b.method, b.retrained)).then(a.sparsity.total_cmp(&b.sparsity))
    });

    atomic::write_bytes(args.out.join("results.csv"), pages::results(&rows).to_csv().as_bytes())?;
    atomic::write_bytes(args.out.join("channels.csv"), pages::channels(&channels).to_csv().as_bytes())?;
    atomic::write_bytes(args.out.join("timing.csv"), pages::timing(&timing).to_csv().as_bytes())?;
    let report = pages::report(&rows, &channels, &timing, &stored)?;
    atomic::write_bytes(args.out.join("report.html"), report.as_bytes())?;

    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        return print_json(&Results {
            seconds,
            rows: &rows,
            channels: &channels,
            timing: &timing,
            stored: &stored,
            out: &args.out,
        });
    }
    print(&pages::text(&rows, &channels, &timing, &stored)?)?;
    print(&format!(
        "\n{}: report.html, results.csv, channels.csv, timing.csv, pruned.safetensors; {seconds:.1} s\n",
        args.out.display()
    ))
}

/// Writes the pruned network with its masks, and says what its weights weigh in compressed sparse rows.
fn store(network: &Network, trained: &Trained, path: &Path) -> Result<Stored> {
    let mut file: Checkpoint = to_checkpoint(network)?;
    let (mean, scale) = &trained.data.standard;
    file.insert("input.mean", Array1::from(mean.clone()), Dtype::F32)?;
    file.insert("input.scale", Array1::from(scale.clone()), Dtype::F32)?;
    file.write(path)?;
    let compressed = Compressed::new(network, |_, weight, mask| Ok(Box::new(Csr::compress(weight, mask)?)))?;
    let x = &trained.data.test.0;
    let difference = super::largest_difference(&compressed.forward(x), &network.forward(x))?;
    let weights: usize = network.affines().map(|(_, _, a)| a.weight.value().len()).sum();
    Ok(Stored { weights, kept: compressed.nnz(), dense_bytes: 4 * weights, csr_bytes: compressed.bytes(), difference })
}
