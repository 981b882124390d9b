//! `lacuna quantize DIR OUT`: a language model in codes of a few bits, in a layout that other tools open.

use super::bars::Bars;
use super::place::Force;
use super::texts::bos;
use super::{print, print_json};
use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use lacuna::data::Bos;
use lacuna::io::QuantLayout;
use lacuna::job::{Event, QuantScheme, QuantizeJob, QuantizeMethod};
use lacuna::mask::Pattern;
use lacuna::prune::{CalibrationInputs, Sequential};
use lacuna::quantize::{Granularity, ScaleType};
use lacuna::solve::Order;
use lacuna::{Error, Result};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// How the command is called.
const USAGE: &str = "lacuna quantize [OPTIONS] <MODEL> <OUT>
       lacuna quantize [OPTIONS] --recipe <FILE> [MODEL] [OUT]";

/// Puts the linear layers of a language model's blocks into codes of a few bits, block by block. Embedding, head, norms and biases stay as they are, masks
/// stay beside. The result is a folder that `eval`, `generate` and `export` read, and other tools by its layout.
#[derive(Parser)]
#[command(override_usage = USAGE)]
pub struct Args {
    /// The model's folder
    #[arg(required_unless_present_any = ["recipe", "print_recipe"])]
    model: Option<PathBuf>,
    /// The folder to write; it appears whole or not at all
    #[arg(required_unless_present_any = ["recipe", "print_recipe"])]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Settings out of a file: a recipe, or the quantize.json of a run. What is typed beside it holds instead
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Prints all settings as a recipe, and does nothing else
    #[arg(long)]
    print_recipe: bool,
    /// How codes are chosen
    #[arg(long, value_parser = methods(), default_value_t = default().method)]
    method: QuantizeMethod,
    /// Bits of a code: 2, 3, 4 or 8
    #[arg(long, default_value_t = default().bits)]
    bits: u32,
    /// Inputs of a row that share a scale; or row, or tensor
    #[arg(long, default_value_t = default().group, allow_negative_numbers = true)]
    group: Granularity,
    /// Whether values lie evenly about 0, or zero points say where 0 is [default: symmetric for rtn, gptq and obr, else asymmetric]
    #[arg(long, value_parser = schemes())]
    scheme: Option<QuantScheme>,
    /// How scales are stored [default: as the weights are; f16 in the layouts gptq and awq]
    #[arg(long, value_parser = scale_types())]
    scale_type: Option<ScaleType>,
    /// How codes lie in files
    #[arg(long, value_parser = layouts(), default_value_t = default().layout)]
    layout: QuantLayout,
    /// Leave layers alone whose names contain this or match it with *; may be given several times
    #[arg(long, value_name = "PATTERN")]
    skip: Vec<String>,
    /// Quantise only layers whose names contain this or match it with *; may be given several times
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// What is measured on: a text, or a safetensors file with input_ids
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Sequences of calibration
    #[arg(long, default_value_t = default().samples)]
    samples: usize,
    /// Tokens of a sequence, and of a window of --text
    #[arg(long, default_value_t = default().context)]
    context: usize,
    /// From which model inputs come: from the blocks before as they are in codes, or from the dense model
    #[arg(long, value_parser = inputs(), default_value = "pruned")]
    inputs: CalibrationInputs,
    /// When layers of a block are quantised: one after another, or all at once, measured dense [default: layer; of awq, and with dense inputs, block]
    #[arg(long, value_parser = turns())]
    turn: Option<Sequential>,
    /// Order of the columns, for gptq: as they stand, by activation (with static groups), or by activation within groups and of whole groups
    #[arg(long, value_parser = orders(), default_value = "natural")]
    order: Order,
    /// Find scales on the weights as they are, not as they were moved, for gptq
    #[arg(long)]
    static_groups: bool,
    /// Fraction of the mean diagonal that is added to Gram matrices, for gptq and obr
    #[arg(long, default_value_t = default().damping, allow_negative_numbers = true)]
    damping: f64,
    /// Columns that are visited together, for gptq
    #[arg(long, default_value_t = default().block_size)]
    block_size: usize,
    /// Keep the whole range of all groups, for awq
    #[arg(long)]
    no_clip: bool,
    /// SmoothQuant's strength, for all but awq: norms' outputs are divided, and the weights behind them multiplied; 0.5 is the paper's [default: none]
    #[arg(long, value_name = "STRENGTH", allow_negative_numbers = true)]
    smooth: Option<f64>,
    /// What the layout int-quantized says of activations: 32 bits, or 8 with a scale a token
    #[arg(long, value_name = "BITS", default_value_t = default().activation_bits)]
    activation_bits: u32,
    /// Fractions of what earlier layers changed that each layer makes up for: of its inputs (GPTAQ), of the hidden states; for gptq and obr [default: none]
    #[arg(long, value_name = "INPUTS,HIDDEN", allow_negative_numbers = true)]
    correct: Option<String>,
    /// Prune this fraction: in the same loop, for gptq (SparseGPT), or before, for obr (Wanda)
    #[arg(long, allow_negative_numbers = true)]
    sparsity: Option<f64>,
    /// The shape of what stays then: unstructured, N:M, block:RxC, cols
    #[arg(long)]
    pattern: Option<Pattern>,
    /// Passes over the calibration in which each half of a block trains on its levels towards the dense model's hidden states [default: none]
    #[arg(long, value_name = "PASSES", num_args = 0..=1, require_equals = true, default_missing_value = "2", allow_negative_numbers = true)]
    reconstruct_blocks: Option<usize>,
    /// The largest learning rate of these passes
    #[arg(long, value_name = "RATE", allow_negative_numbers = true, default_value_t = default().reconstruct_rate)]
    reconstruct_rate: f64,
    /// Megabytes of activations that stay in memory [default: half of what is free]
    #[arg(long, value_name = "MB")]
    activations: Option<usize>,
    /// Folder on whose disk the rest lies [default: that of OUT]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// A text whose perplexity is measured before and after; several as a.txt,b.txt
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Only the first windows of --text
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Where the token that begins a text stands
    #[arg(long, value_parser = bos(), default_value_t = default().bos)]
    bos: Bos,
    /// Go on with a run that was interrupted, to the same bits
    #[arg(long)]
    resume: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// The options that were typed, by their names without the dashes.
    #[arg(skip)]
    pub given: Vec<String>,
}

/// The values that hold unless others are given.
fn default() -> QuantizeJob {
    QuantizeJob::default()
}

/// Values by their names, each with its help.
fn named<T: Clone + Send + Sync + 'static>(all: Vec<(&'static str, &'static str, T)>) -> impl TypedValueParser<Value = T> {
    let names: Vec<PossibleValue> = all.iter().map(|(name, help, _)| PossibleValue::new(*name).help(*help)).collect();
    PossibleValuesParser::new(names).map(move |given| {
        let found = all.iter().find(|(name, ..)| *name == given).unwrap_or(&all[0]);
        found.2.clone()
    })
}

fn methods() -> impl TypedValueParser<Value = QuantizeMethod> {
    let help = |method: QuantizeMethod| match method {
        QuantizeMethod::Rtn => "Round to nearest; reads no calibration",
        QuantizeMethod::Gptq => "Column by column, the rest makes up for what rounding loses",
        QuantizeMethod::Obr => "The same of each row by itself, by what its mask keeps alone",
        QuantizeMethod::Awq => "Inputs that matter are scaled up, ranges are cut off where that pays",
        QuantizeMethod::Hqq => "Zero points that lose least; reads no calibration",
    };
    named(QuantizeMethod::ALL.map(|m| (m.name(), help(m), m)).to_vec())
}

fn schemes() -> impl TypedValueParser<Value = QuantScheme> {
    named(vec![
        ("symmetric", "Evenly about 0", QuantScheme::Symmetric),
        ("asymmetric", "From the least to the largest weight of a group", QuantScheme::Asymmetric),
    ])
}

fn scale_types() -> impl TypedValueParser<Value = ScaleType> {
    named(vec![
        ("f32", "32 bits", ScaleType::F32),
        ("f16", "16 bits", ScaleType::F16),
        ("bf16", "16 bits, of the range of 32", ScaleType::BF16),
    ])
}

fn layouts() -> impl TypedValueParser<Value = QuantLayout> {
    let help = |layout: QuantLayout| match layout {
        QuantLayout::CompressedTensors => "pack-quantized of compressed-tensors",
        QuantLayout::IntQuantized => "int-quantized of compressed-tensors: 8 bits, a byte each",
        QuantLayout::Gptq => "GPTQ, version 2",
        QuantLayout::Awq => "AWQ (GEMM): 4 bits",
    };
    named(QuantLayout::ALL.map(|l| (l.name(), help(l), l)).to_vec())
}

fn inputs() -> impl TypedValueParser<Value = CalibrationInputs> {
    named(vec![
        ("pruned", "From blocks in codes", CalibrationInputs::Pruned),
        ("dense", "From the dense model", CalibrationInputs::Dense),
    ])
}

fn turns() -> impl TypedValueParser<Value = Sequential> {
    named(vec![
        ("layer", "One after another", Sequential::Layer),
        ("block", "All at once, measured with the block dense", Sequential::Block),
    ])
}

fn orders() -> impl TypedValueParser<Value = Order> {
    named(vec![
        ("natural", "As they stand", Order::Natural),
        ("activation", "By falling diagonal of the Gram matrix", Order::Activation),
        ("group-aware", "The same within groups, and of whole groups", Order::GroupAware),
    ])
}

/// The job that is asked for: a recipe, and over it what was typed.
fn job(args: &Args) -> Result<QuantizeJob> {
    let mut job = args.recipe.as_ref().map_or_else(|| Ok(QuantizeJob::default()), QuantizeJob::read)?;
    let typed = |name: &str| args.given.iter().any(|given| given == name);
    macro_rules! take {
        ($($field:ident: $name:literal;)*) => { $(if typed($name) { job.$field = args.$field.clone(); })* };
    }
    job.model = args.model.clone().or(job.model);
    job.out = args.out.clone().or(job.out);
    take! {
        method: "method";
        bits: "bits";
        group: "group";
        scheme: "scheme";
        scale_type: "scale-type";
        layout: "layout";
        skip: "skip";
        only: "only";
        calibration: "calibration";
        samples: "samples";
        context: "context";
        inputs: "inputs";
        order: "order";
        static_groups: "static-groups";
        damping: "damping";
        block_size: "block-size";
        smooth: "smooth";
        activation_bits: "activation-bits";
        sparsity: "sparsity";
        reconstruct_blocks: "reconstruct-blocks";
        reconstruct_rate: "reconstruct-rate";
        activations: "activations";
        scratch: "scratch";
        text: "text";
        windows: "windows";
        bos: "bos";
    }
    job.sequential = args.turn.or(job.sequential);
    job.clip &= !args.no_clip;
    if let Some(pattern) = args.pattern {
        job.pattern = pattern;
        // What was typed fixes the sparsity; that of the recipe does not hold any more.
        if matches!(pattern, Pattern::Nm { .. }) && !typed("sparsity") {
            job.sparsity = None;
        }
    }
    if let Some(text) = &args.correct {
        let refuse =
            || Error::invalid_option("correct", format!("'{text}' is not one or two fractions in [0, 1], as 1 or 1,0.5"));
        job.correct = text.split(',').map(|s| s.trim().parse().map_err(|_| refuse())).collect::<Result<_>>()?;
    }
    (job.force, job.resume) = (args.force.force, args.resume);
    Ok(job)
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let job = job(args)?;
    if args.print_recipe {
        job.check_ranges()?;
        return print(&job.to_toml()?);
    }
    let mut bars = Bars::default();
    let report = job.run(&mut |event| {
        bars.see(event);
        if !matches!(event, Event::Progress { .. }) {
            eprintln!("{event}");
        }
        ControlFlow::Continue(())
    });
    bars.clear();
    let report = report?;
    if args.json {
        let value = serde_json::to_value(&report).map_err(|e| Error::invalid_option("json", e.to_string()))?;
        return print_json(&value);
    }
    print(&report.to_text())
}
