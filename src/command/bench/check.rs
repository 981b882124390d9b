//! `lacuna bench check`: whether the plan keeps its promises on this machine.

use super::case::{Weights, in_pool};
use super::measure::{Contender, SPARSE, check, medians};
use super::{check_rising, check_seconds, print, print_json, shape};
use clap::Parser;
use lacuna::mask::Pattern;
use lacuna::report::{Cell, Table};
use lacuna::rng::Seed;
use lacuna::sparse::{Dense, Hint, LinearOp, Plan};
use lacuna::{Error, Result};
use ndarray::Array2;
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
    format: String,
    /// Median microseconds of the fastest dense product, and whose it is.
    dense_us: f64,
    dense_kernel: &'static str,
    plan_us: f64,
    /// Dense time / time of the plan: not below [`DENSE`].
    speedup: f64,
    /// Time of the plan / the shortest at a lower sparsity: not above [`GROWTH`].
    growth: f64,
    holds: bool,
}

/// A plan takes no more than the time of dense over this.
const DENSE: f64 = 0.97;
/// A plan takes no more than this times what a plan for fewer zeros takes.
const GROWTH: f64 = 1.03;
/// A case is at fault if it is so in each of so many measurements: others use the machine too.
const MEASUREMENTS: usize = 3;

/// Runs the command; an error if a promise is broken.
pub fn run(args: &Check) -> Result<()> {
    check_seconds(args.seconds)?;
    check_rising(&args.sparsity)?;
    let mut table = Table::new([
        "shape",
        "tokens",
        "threads",
        "sparsity",
        "format",
        "dense µs",
        "by",
        "plan µs",
        "speed-up",
        "growth",
        "holds",
    ]);
    let (mut cases, mut broken) = (0, Vec::new());
    for dim in args.shape.iter().map(|s| shape(s)).collect::<Result<Vec<_>>>()? {
        let weights = Weights::random(dim, Seed(args.seed), args.skewed);
        for &threads in &args.threads {
            for &tokens in &args.tokens {
                let found = in_pool(threads, tokens, || row_of_plans(args, &weights, tokens, threads))?;
                cases += found.len();
                for c in found {
                    if args.json {
                        print_json(&c)?;
                    }
                    table.row(row(&c));
                    if !c.holds {
                        broken.push(format!("{}, {} tokens, {} threads at {}", c.shape, c.tokens, c.threads, c.sparsity));
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
    Err(Error::setting("plan", reason))
}

/// Plans for all sparsities of one shape and number of tokens, timed in turns.
fn row_of_plans(args: &Check, weights: &Weights, tokens: usize, threads: usize) -> Result<Vec<Checked>> {
    let (out, inputs) = weights.weight.dim();
    let x = Seed(args.seed).stream("bench/x").normal_array(tokens, inputs, 1.0);
    let mut plans: Vec<[Box<dyn LinearOp>; 1]> = Vec::new();
    let mut formats = Vec::new();
    for &sparsity in &args.sparsity {
        let mut plan = Plan::new(&weights.weight, &weights.mask(Pattern::Unstructured, Some(sparsity))?, Hint::tokens(tokens))?;
        if !args.model {
            plan.tune()?;
        }
        check(&plan, &x)?;
        formats.push(plan.chosen(tokens));
        plans.push([Box::new(plan)]);
    }
    let dense = [Dense::new(weights.weight.clone())];
    let mut found = Vec::new();
    for _ in 0..MEASUREMENTS {
        let times = times(&plans, &dense, &x, out, args.seconds)?;
        let (plan_us, dense): (Vec<_>, Vec<_>) = times.into_iter().partition(|t| t.0 == SPARSE);
        let (dense_kernel, dense_us) = dense.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("none", f64::NAN));
        let mut shortest = f64::INFINITY;
        let now: Vec<Checked> = plan_us
            .iter()
            .enumerate()
            .map(|(i, &(_, us))| {
                let growth = if shortest.is_finite() { us / shortest } else { 1.0 };
                shortest = shortest.min(us);
                Checked {
                    shape: format!("{out}x{inputs}"),
                    tokens,
                    threads,
                    sparsity: args.sparsity[i],
                    format: formats[i].to_string(),
                    dense_us,
                    dense_kernel,
                    plan_us: us,
                    speedup: dense_us / us,
                    growth,
                    holds: dense_us / us >= DENSE && growth <= GROWTH,
                }
            })
            .collect();
        if found.is_empty() {
            found = now;
        } else {
            let better = found.iter_mut().zip(now).filter(|(old, new)| !old.holds && new.holds);
            better.for_each(|(old, new)| *old = new);
        }
        if found.iter().all(|c| c.holds) {
            break;
        }
    }
    Ok(found)
}

/// Median microseconds of each plan and of every dense product.
fn times(
    plans: &[[Box<dyn LinearOp>; 1]],
    dense: &[Dense],
    x: &Array2<f32>,
    out: usize,
    seconds: f64,
) -> Result<Vec<(&'static str, f64)>> {
    let mut contenders: Vec<Contender<'_>> = plans.iter().map(|plan| Contender::sparse(plan)).collect();
    contenders.extend(Contender::dense(dense));
    let seconds = seconds * plans.len() as f64;
    medians(&mut contenders, x, out, seconds)
}

fn row(c: &Checked) -> Vec<Cell> {
    vec![
        Cell::from(c.shape.clone()),
        c.tokens.into(),
        c.threads.into(),
        Cell::float(c.sparsity, 2),
        c.format.clone().into(),
        Cell::float(c.dense_us, 1),
        c.dense_kernel.into(),
        Cell::float(c.plan_us, 1),
        Cell::float(c.speedup, 3),
        Cell::float(c.growth, 3),
        if c.holds { "yes" } else { "no" }.into(),
    ]
}
