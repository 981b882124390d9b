//! `lacuna bench`: sparse products against the fastest dense ones, on this machine.

mod case;
mod check;
mod measure;
mod sweep;

use super::{print, print_json};
use case::{Case, Weights};
use clap::{Parser, Subcommand};
use lacuna::mask::Pattern;
use lacuna::report::{Cell, Table};
use lacuna::rng::Seed;
use lacuna::sparse::Precision;
use lacuna::{Error, Result};
use measure::Measured;
use std::path::PathBuf;

/// Times sparse products against dense ones; answers are checked before anything is timed.
#[derive(Parser)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One line a case: medians of y = x · Wᵀ, dense and sparse in turn
    Spmm(Spmm),
    /// From which sparsity on sparse beats dense, a shape and a number of tokens at a time, with figures
    Sweep(sweep::Sweep),
    /// Whether the plan is never slower than dense, and never slower where more is pruned; fails and says where if it is
    Check(check::Check),
}

/// Options of `bench spmm`. Lists are separated by commas; every combination is a case.
#[derive(Parser)]
struct Spmm {
    /// Outputs x inputs of the weight, as 4096x4096
    #[arg(long, value_delimiter = ',', required_unless_present = "weights", conflicts_with = "weights")]
    shape: Vec<String>,
    /// Rows of x
    #[arg(long, value_delimiter = ',', default_value = "1")]
    tokens: Vec<usize>,
    /// Share of the weights that is pruned, by magnitude, in [0, 1]; a pattern N:M fixes it
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    sparsity: Vec<f64>,
    /// Shape that survivors take: unstructured, N:M, blockRxC
    #[arg(long, default_value = "unstructured")]
    pattern: String,
    /// auto (the plan, tuned), model (the plan as its model says), dense, csr,
    /// tile-csr[:COLUMNS], tile-pairs[:COLUMNS], bitmask[:COLUMNS], sell[:padded|packed], nm[:N:M],
    /// bsr[:RxC]
    #[arg(long, value_delimiter = ',', default_value = "auto")]
    format: Vec<String>,
    /// Numbers that the storage keeps: f32, bf16, f16, i8 (a scale a row), i8:INPUTS (a scale for so many inputs of a row)
    #[arg(long, value_delimiter = ',', default_value = "f32")]
    values: Vec<String>,
    /// Threads of a product
    #[arg(long, value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
    /// Take the weight from this safetensors file or model's folder; with its mask, from there or from masks.safetensors beside it, if no
    /// sparsity is asked for
    #[arg(long, requires = "tensor")]
    weights: Option<PathBuf>,
    /// Name of the weight in the file or folder
    #[arg(long, requires = "weights")]
    tensor: Option<String>,
    /// Let some rows and columns be dense and many nearly empty, as real pruning leaves them
    #[arg(long)]
    skewed: bool,
    /// Weights come from memory: products go round copies that no cache holds
    #[arg(long)]
    cold: bool,
    /// Seconds for each case
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Seed of random weights and inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Spmm(spmm) => run_spmm(spmm),
        What::Sweep(sweep) => sweep::run(sweep),
        What::Check(check) => check::run(check),
    }
}

/// Weights of a random matrix, at most: 4 GiB of them.
const LARGEST: usize = 1 << 30;

/// Reads `OUTxIN`.
fn shape(text: &str) -> Result<(usize, usize)> {
    let pair = text.split_once('x').and_then(|(out, inputs)| Some((out.parse::<usize>().ok()?, inputs.parse::<usize>().ok()?)));
    match pair {
        Some((out, inputs)) if out == 0 || inputs == 0 => Err(Error::setting("shape", format!("'{text}' has no weights"))),
        Some((out, inputs)) if out.checked_mul(inputs).is_none_or(|n| n > LARGEST) => {
            Err(Error::setting("shape", format!("'{text}' has more than {LARGEST} weights")))
        }
        Some(pair) => Ok(pair),
        _ => Err(Error::setting("shape", format!("'{text}' is not OUTxIN, as 4096x4096"))),
    }
}

/// Refuses times that measure nothing, or go on for ever.
fn check_seconds(seconds: f64) -> Result<()> {
    if seconds.is_finite() && (0.0..=3600.0).contains(&seconds) {
        return Ok(());
    }
    Err(Error::setting("seconds", format!("{seconds}, where 0 to 3600 are possible")))
}

/// Refuses sparsities that do not rise.
fn check_rising(sparsity: &[f64]) -> Result<()> {
    if sparsity.is_empty() || !sparsity.is_sorted_by(|a, b| a < b) {
        return Err(Error::setting("sparsity", "give rising numbers, as 0.5,0.7,0.9"));
    }
    Ok(())
}

fn run_spmm(args: &Spmm) -> Result<()> {
    check_seconds(args.seconds)?;
    let pattern: Pattern = args.pattern.parse()?;
    let values: Vec<Precision> = args.values.iter().map(|v| v.parse()).collect::<Result<_>>()?;
    let sparsities: Vec<Option<f64>> = match (&args.sparsity[..], pattern, &args.weights) {
        ([], Pattern::Nm { .. }, _) | ([], _, Some(_)) => vec![None],
        ([], _, None) => return Err(Error::setting("sparsity", format!("pattern {pattern} needs one: give --sparsity"))),
        (_, Pattern::Nm { .. }, _) => {
            return Err(Error::setting("sparsity", format!("pattern {pattern} fixes the sparsity; leave one out")));
        }
        (some, ..) => some.iter().map(|&s| Some(s)).collect(),
    };
    let weights: Vec<Weights> = match (&args.weights, &args.tensor) {
        (Some(file), Some(tensor)) => vec![Weights::open(file, tensor)?],
        _ => args.shape.iter().map(|s| Ok(Weights::random(shape(s)?, Seed(args.seed), args.skewed))).collect::<Result<_>>()?,
    };
    let mut table = table();
    for weights in &weights {
        for &sparsity in &sparsities {
            let mask = weights.mask(pattern, sparsity)?;
            for &threads in &args.threads {
                for &tokens in &args.tokens {
                    for format in &args.format {
                        for &values in &values {
                            let case = Case {
                                weight: &weights.weight,
                                mask: &mask,
                                pattern,
                                tokens,
                                threads,
                                format: format.parse()?,
                                values,
                                cold: args.cold,
                                peers: true,
                                seconds: args.seconds,
                                seed: Seed(args.seed),
                            };
                            let measured = case.run()?;
                            if args.json {
                                print_json(&measured)?;
                            } else {
                                table.row(row(&measured));
                            }
                        }
                    }
                }
            }
        }
    }
    if !args.json {
        print(&table.to_text())?;
    }
    Ok(())
}

/// The columns of [`row`].
fn table() -> Table {
    Table::new([
        "shape",
        "tokens",
        "pattern",
        "sparsity",
        "values",
        "threads",
        "isa",
        "format",
        "dense µs",
        "by",
        "sparse µs",
        "sprs µs",
        "speed-up",
        "pack µs",
        "MB",
        "dense MB",
        "max error",
    ])
}

fn row(m: &Measured) -> Vec<Cell> {
    vec![
        m.shape.clone().into(),
        Cell::from(m.tokens),
        m.pattern.clone().into(),
        Cell::float(m.sparsity, 3),
        m.values.clone().into(),
        Cell::from(m.threads),
        m.isa.into(),
        m.format.clone().into(),
        Cell::float(m.dense_us, 1),
        m.dense_kernel.into(),
        Cell::float(m.sparse_us, 1),
        m.sprs_us.map_or_else(|| "".into(), |us| Cell::float(us, 1)),
        Cell::float(m.speedup, 2),
        Cell::float(m.pack_us, 0),
        Cell::float(m.bytes as f64 / 1e6, 2),
        Cell::float(m.dense_bytes as f64 / 1e6, 2),
        format!("{:.1e}", m.max_error).into(),
    ]
}
