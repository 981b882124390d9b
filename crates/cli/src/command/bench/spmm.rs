//! `lacuna bench spmm`: one line a case.

use super::case::{Case, FormatArg, Weights, beyond_caches};
use super::measure::{Measured, spread};
use super::room::{Beside, check_memory, check_seconds, check_sparsity, check_threads, shape};
use crate::command::{print, print_json};
use clap::Parser;
use lacuna::mask::Pattern;
use lacuna::report::{Cell, Table};
use lacuna::rng::Seed;
use lacuna::sparse::{ActivationBits, Precision};
use lacuna::{Error, Result};
use std::path::PathBuf;

/// Options of `bench spmm`. Lists are separated by commas; every combination is a case.
#[derive(Parser)]
pub struct Spmm {
    /// Outputs x inputs of the weight, as 4096x4096
    #[arg(long, value_delimiter = ',', required_unless_present = "weights", conflicts_with = "weights")]
    shape: Vec<String>,
    /// Rows of x
    #[arg(long, value_delimiter = ',', default_value = "1")]
    tokens: Vec<usize>,
    /// Share of the weights that is pruned, by magnitude, in [0, 1); a pattern N:M fixes it
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
    /// Numbers that the storage keeps: f32, bf16, f16, i8 (a scale a row), i8:INPUTS (a scale for so many inputs of a row); dense, nm, sell, bitmask and
    /// bsr also u8:INPUTS, i4:INPUTS, u4:INPUTS (u: and a zero point)
    #[arg(long, value_delimiter = ',', default_value = "f32")]
    values: Vec<String>,
    /// Bits of activations where they meet codes of four and eight bits: 32, or 8
    #[arg(long, default_value = "32")]
    activation_bits: String,
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
pub fn run(args: &Spmm) -> Result<()> {
    check_seconds(args.seconds)?;
    let pattern: Pattern = args.pattern.parse()?;
    let activation_bits: ActivationBits = args.activation_bits.parse()?;
    let values: Vec<Precision> = args.values.iter().map(|v| v.parse()).collect::<Result<_>>()?;
    let sparsities: Vec<Option<f64>> = match (&args.sparsity[..], pattern, &args.weights) {
        ([], Pattern::Nm { .. }, _) | ([], _, Some(_)) => vec![None],
        ([], _, None) => return Err(Error::invalid_option("sparsity", format!("pattern {pattern} needs one: give --sparsity"))),
        (_, Pattern::Nm { .. }, _) => {
            return Err(Error::invalid_option("sparsity", format!("pattern {pattern} fixes the sparsity; leave one out")));
        }
        (some, ..) => some.iter().map(|&s| Some(s)).collect(),
    };
    let formats: Vec<FormatArg> = args.format.iter().map(|f| f.parse()).collect::<Result<_>>()?;
    check_sparsity(&args.sparsity)?;
    check_threads(&args.threads)?;
    let beside = Beside { copies: if args.cold { 2 * beyond_caches() } else { 0 }, storages: 4 };
    let (opened, shapes) = match (&args.weights, &args.tensor) {
        (Some(file), Some(tensor)) => {
            let weights = Weights::open(file, tensor)?;
            let dim = weights.weight.dim();
            (Some(weights), vec![dim])
        }
        _ => (None, args.shape.iter().map(|s| shape(s)).collect::<Result<_>>()?),
    };
    check_memory(&shapes, &args.tokens, beside)?;
    let mut table = table();
    for dim in shapes {
        let made;
        let weights = match &opened {
            Some(weights) => weights,
            None => {
                made = Weights::random(dim, Seed(args.seed), args.skewed);
                &made
            }
        };
        for &sparsity in &sparsities {
            let mask = weights.mask(pattern, sparsity)?;
            for &threads in &args.threads {
                for &tokens in &args.tokens {
                    for &format in &formats {
                        for &values in &values {
                            let case = Case {
                                weight: &weights.weight,
                                mask: &mask,
                                pattern,
                                tokens,
                                threads,
                                format,
                                values,
                                activation_bits,
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
        print(&format!("{}{NOTE}", table.to_text()))?;
    }
    Ok(())
}

/// What stands under the table.
const NOTE: &str = "\
µs are medians of single products, with their quartiles; timed is the number of products that were timed of dense and of sparse.
max |y - exact| is the largest distance of an output of the sparse product from the same sum in f64, in units of y (random weights and
inputs are of size 1); of sizes is the largest share of it in its sum of |weight times input|.
";

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
        "quartiles",
        "by",
        "sparse µs",
        "quartiles",
        "timed",
        "sprs µs",
        "speed-up",
        "pack µs",
        "MB",
        "dense MB",
        "max |y - exact|",
        "of sizes",
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
        spread(m.dense_quartiles_us).into(),
        m.dense_kernel.into(),
        Cell::float(m.sparse_us, 1),
        spread(m.sparse_quartiles_us).into(),
        format!("{}, {}", m.dense_timed, m.sparse_timed).into(),
        m.sprs_us.map_or_else(|| "".into(), |us| Cell::float(us, 1)),
        Cell::float(m.speedup, 2),
        Cell::float(m.pack_us, 0),
        Cell::float(m.bytes as f64 / 1e6, 2),
        Cell::float(m.dense_bytes as f64 / 1e6, 2),
        format!("{:.1e}", m.max_error).into(),
        format!("{:.1e}", m.max_error_of_sizes).into(),
    ]
}
