//! `lacuna bench check`: whether the plan keeps its promises on this machine.

use super::case::{Weights, in_pool};
use super::measure::{check, sparse as contender, spread, times};
use super::room::{Beside, check_memory, check_rising, check_seconds, check_threads, shape};
use crate::command::{counted, print, print_json};
use clap::Parser;
use lacuna::advise::Contender;
use lacuna::mask::{Mask, Pattern};
use lacuna::report::{Cell, Table};
use lacuna::rng::Seed;
use lacuna::sparse::{ActivationBits, Dense, Format, Hint, LinearOp, Plan, Precision};
use lacuna::{Error, Result};
use serde::Serialize;

/// Options of `bench check`.
#[derive(Parser)]
pub struct Check {
    /// Outputs x inputs; a list is separated by commas
    #[arg(long, value_delimiter = ',', default_value = "576x1536,1536x576,3072x768")]
    shape: Vec<String>,
    /// Rows of x; a list is separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,128")]
    tokens: Vec<usize>,
    /// Sparsities to try
    #[arg(long, value_delimiter = ',', default_value = "0,0.2,0.4,0.5,0.6,0.7,0.8,0.9,0.95,0.99")]
    sparsity: Vec<f64>,
    /// Threads of a product; a list is separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
    /// Let some rows and columns be dense and many nearly empty
    #[arg(long)]
    skewed: bool,
    /// Numbers that storages keep, as for spmm: plans are held against dense in as many bits; a list is separated by commas
    #[arg(long, value_delimiter = ',', default_value = "f32")]
    values: Vec<String>,
    /// Bits of activations where they meet codes of four and eight bits: 32, or 8
    #[arg(long, default_value = "32")]
    activation_bits: String,
    /// The plan as its model says, instead of tuned
    #[arg(long)]
    model: bool,
    /// Seconds for each sparsity
    #[arg(long, default_value_t = 0.2)]
    seconds: f64,
    /// Seed of random weights and inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object a case instead of a table
    #[arg(long)]
    json: bool,
}

/// A plan at one sparsity.
#[derive(Debug, Clone, Serialize)]
struct Checked {
    shape: String,
    tokens: usize,
    threads: usize,
    sparsity: f64,
    values: String,
    format: String,
    /// Median microseconds of the fastest dense product, and whose it is.
    dense_us: f64,
    dense_kernel: &'static str,
    /// Of a plan that took dense, that of this library's dense product: it is the same one.
    plan_us: f64,
    /// Dense time / time of the plan: not below [`DENSE`].
    speedup: f64,
    /// Time of the plan / the shortest at a lower sparsity: not above [`GROWTH`].
    growth: f64,
    holds: bool,
    /// Quartiles of the single products of which `dense_us` is the median, and how many they are.
    dense_quartiles_us: [f64; 2],
    dense_timed: usize,
    /// The same of `plan_us`.
    plan_quartiles_us: [f64; 2],
    plan_timed: usize,
}

/// A plan takes no more than the time of dense over this.
const DENSE: f64 = 0.97;
/// A plan takes no more than this times what a plan for fewer zeros takes.
const GROWTH: f64 = 1.03;
/// A case is at fault if it is so in each of so many measurements of plans made anew: others use the machine too, and where a weight lies in memory
/// decides how much of it the caches keep.
const MEASUREMENTS: usize = 3;

/// Runs the command; an error if a promise is broken.
pub fn run(args: &Check) -> Result<()> {
    check_seconds(args.seconds)?;
    check_rising(&args.sparsity)?;
    check_threads(&args.threads)?;
    let shapes: Vec<(usize, usize)> = args.shape.iter().map(|s| shape(s)).collect::<Result<_>>()?;
    // The plans for all sparsities lie in memory at once, and those that one of them tries.
    check_memory(&shapes, &args.tokens, Beside { copies: 0, storages: args.sparsity.len() + 4 })?;
    let activation_bits: ActivationBits = args.activation_bits.parse()?;
    let values: Vec<Precision> = args.values.iter().map(|v| v.parse()).collect::<Result<_>>()?;
    let mut table = Table::new([
        "shape",
        "tokens",
        "threads",
        "values",
        "sparsity",
        "format",
        "dense µs",
        "quartiles",
        "by",
        "plan µs",
        "quartiles",
        "timed",
        "speed-up",
        "growth",
        "holds",
    ]);
    let (mut cases, mut broken) = (0, Vec::new());
    for dim in shapes {
        let weights = Weights::random(dim, Seed(args.seed), args.skewed);
        for &threads in &args.threads {
            for (&tokens, &values) in args.tokens.iter().flat_map(|t| values.iter().map(move |v| (t, v))) {
                let found = in_pool(threads, || row_of_plans(args, &weights, (values, activation_bits), tokens, threads))?;
                cases += found.len();
                for c in found {
                    if args.json {
                        print_json(&c)?;
                    }
                    table.row(row(&c));
                    if !c.holds {
                        let (tokens, threads) = (counted(c.tokens, "token"), counted(c.threads, "thread"));
                        broken.push(format!("{}, {}, {tokens}, {threads} at {}", c.shape, c.values, c.sparsity));
                    }
                }
            }
        }
    }
    if !args.json {
        print(&table.to_text())?;
    }
    if broken.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "slower than {DENSE} of dense, or than {GROWTH} times itself at a lower sparsity, in {} of {cases} cases: {}",
        broken.len(),
        broken.join("; ")
    );
    Err(Error::invalid_option("plan", reason))
}

/// Plans for all sparsities of one shape and number of tokens, again where one is at fault.
fn row_of_plans(
    args: &Check,
    weights: &Weights,
    (values, bits): (Precision, ActivationBits),
    tokens: usize,
    threads: usize,
) -> Result<Vec<Checked>> {
    let mut found = measured(args, weights, (values, bits), tokens, threads)?;
    for _ in 1..MEASUREMENTS {
        if found.iter().all(|c| c.holds) {
            break;
        }
        let again = measured(args, weights, (values, bits), tokens, threads)?;
        found.iter_mut().zip(again).filter(|(old, new)| !old.holds && new.holds).for_each(|(old, new)| *old = new);
    }
    Ok(found)
}

/// Plans for all sparsities, made and timed in turns.
fn measured(
    args: &Check,
    weights: &Weights,
    (values, bits): (Precision, ActivationBits),
    tokens: usize,
    threads: usize,
) -> Result<Vec<Checked>> {
    let (out, inputs) = weights.weight.dim();
    let x = Seed(args.seed).stream("bench/x").normal_array(tokens, inputs, 1.0);
    let hint = Hint::tokens(tokens).with_values(values).with_activation_bits(bits);
    let (mut formats, mut sparse) = (Vec::new(), Vec::new());
    for &sparsity in &args.sparsity {
        let mut plan = Plan::new(&weights.weight, &weights.mask(Pattern::Unstructured, Some(sparsity))?, hint)?;
        if !args.model {
            plan.tune()?;
        }
        check(&plan, &x, bits)?;
        let format = plan.chosen(tokens);
        if format != Format::Dense {
            sparse.push([Box::new(plan) as Box<dyn LinearOp>]);
        }
        formats.push(format);
    }
    let weight = [Dense::new(weights.weight.clone())];
    // First what a plan that takes dense has.
    let own = hint.values_in(Format::Dense, inputs);
    let same = [Format::Dense.build_with(&weights.weight, &Mask::full(out, inputs), own, bits)?];
    let mut contenders = vec![Contender::storages("dense", &same)];
    if values == Precision::F32 {
        contenders.extend(Contender::dense(&weight).into_iter().skip(1));
    }
    let linked = contenders.len();
    contenders.extend(sparse.iter().map(|plan| contender(plan)));
    let times = times(&mut contenders, &x, out, args.seconds * formats.len() as f64)?;
    let (dense, sparse) = times.split_at(linked);
    let fastest = dense.iter().min_by(|a, b| a.us.total_cmp(&b.us));
    let best = *fastest.ok_or_else(|| Error::invalid_option("plan", "no dense product is linked"))?;
    let mut sparse = sparse.iter();
    let mut shortest = f64::INFINITY;
    let mut found = Vec::with_capacity(formats.len());
    for (&sparsity, format) in args.sparsity.iter().zip(formats) {
        // The first of the dense products is the plan's.
        let time = if format == Format::Dense { dense.first() } else { sparse.next() };
        let plan = *time.ok_or_else(|| Error::invalid_option("plan", "one was not timed"))?;
        let plan_us = plan.us;
        let growth = if shortest.is_finite() { plan_us / shortest } else { 1.0 };
        shortest = shortest.min(plan_us);
        let speedup = best.us / plan_us;
        found.push(Checked {
            shape: format!("{out}x{inputs}"),
            tokens,
            threads,
            sparsity,
            values: values.to_string(),
            format: format.to_string(),
            dense_us: best.us,
            dense_kernel: best.name,
            plan_us,
            speedup,
            growth,
            holds: speedup >= DENSE && growth <= GROWTH,
            dense_quartiles_us: best.quartiles_us,
            dense_timed: best.timed,
            plan_quartiles_us: plan.quartiles_us,
            plan_timed: plan.timed,
        });
    }
    Ok(found)
}

fn row(c: &Checked) -> Vec<Cell> {
    vec![
        Cell::from(c.shape.clone()),
        c.tokens.into(),
        c.threads.into(),
        c.values.clone().into(),
        Cell::float(c.sparsity, 2),
        c.format.clone().into(),
        Cell::float(c.dense_us, 1),
        spread(c.dense_quartiles_us).into(),
        c.dense_kernel.into(),
        Cell::float(c.plan_us, 1),
        spread(c.plan_quartiles_us).into(),
        format!("{}, {}", c.dense_timed, c.plan_timed).into(),
        Cell::float(c.speedup, 3),
        Cell::float(c.growth, 3),
        if c.holds { "yes" } else { "no" }.into(),
    ]
}
