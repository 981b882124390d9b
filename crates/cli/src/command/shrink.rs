//! `lacuna shrink DIR OUT`: a language model with fewer heads, features and layers, as an ordinary folder.

use super::bars::Bars;
use super::place::Force;
use super::texts::bos;
use super::{print, print_json};
use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use lacuna::data::Bos;
use lacuna::job::{Event, ShrinkJob, ShrinkMethod, UnitMetric};
use lacuna::prune::{Aggregation, DepthScore, ExpertScore, HiddenScore, SizeAmount, SubLayer};
use lacuna::{Error, Result};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// How the command is called.
const USAGE: &str = "lacuna shrink [OPTIONS] <MODEL> <OUT>
       lacuna shrink [OPTIONS] --recipe <FILE> [MODEL] [OUT]";

/// Makes a language model's folder smaller: whole heads, feed-forward and hidden features and layers go, with every row and column of theirs. Sizes
/// say what stays, in every layer. The result is an ordinary folder of the same family.
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
    /// Settings out of a file: a recipe, or the shrink.json of a run. What is typed beside it holds instead
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Prints all settings as a recipe, and does nothing else
    #[arg(long)]
    print_recipe: bool,
    /// Features between the feed-forward layers that stay
    #[arg(long, value_name = "N")]
    intermediate: Option<usize>,
    /// Heads of queries that stay: with grouped keys and values as many of each group, without with their own
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Heads of keys and values that stay, with their queries
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// Hidden features that stay
    #[arg(long, value_name = "N")]
    hidden: Option<usize>,
    /// Layers that stay
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Entries of the vocabulary that stay: bytes, special tokens and those that --text uses most
    #[arg(long, value_name = "N")]
    vocabulary: Option<usize>,
    /// Of a mixture: experts that stay in every block, alone or with --active-experts
    #[arg(long, value_name = "N")]
    experts: Option<usize>,
    /// Of a mixture: how many experts a token meets [default: as before, or as stay]
    #[arg(long, value_name = "N")]
    active_experts: Option<usize>,
    /// How experts are chosen
    #[arg(long, value_parser = expert_scores(), default_value_t = default().experts_by)]
    experts_by: ExpertScore,
    /// How many sub-layers go (attention, or the feed-forward layers, of a block), by --depth-by; the config lists widths of 0, as Lacuna alone reads them
    #[arg(long, value_name = "N")]
    sublayers: Option<usize>,
    /// Sub-layers that go, as attention:3,mlp:7, by the numbers of blocks from 0
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    drop: Vec<SubLayer>,
    /// Blocks of different widths (--per-layer, --sublayers, --drop, or of a folder that has them) are padded with zeros to the widest, with masks: a plain
    /// model of its family, the same function
    #[arg(long)]
    pad: bool,
    /// How many parameters stay, instead of sizes: below 1 a fraction of the blocks' weights, or a count as 100M of the whole model; layers, heads and
    /// feed-forward features are searched for
    #[arg(long, value_name = "X")]
    parameters: Option<SizeAmount>,
    /// The same of multiplications and additions a token: below 1 a fraction of the whole model's, or a count as 200M
    #[arg(long, value_name = "X")]
    flops: Option<SizeAmount>,
    /// The same of bytes of all weights: below 1 a fraction of the whole model's, or a count as 200M
    #[arg(long, value_name = "X")]
    bytes: Option<SizeAmount>,
    /// The same of what a token takes that is written, measured here: below 1 a fraction of what it takes now, or milliseconds
    #[arg(long, value_name = "X")]
    milliseconds: Option<SizeAmount>,
    /// With a budget: each block has widths of its own, by what the loss is expected to rise by. The config lists them, as Lacuna alone reads them
    #[arg(long)]
    per_layer: bool,
    /// Feed-forward features that the search tries are multiples of this; with --per-layer they go from each block in steps of it
    #[arg(long, value_name = "N", default_value_t = default().round)]
    round: usize,
    /// Nothing goes: units are put in the order of their scores, so that any smaller model is a prefix, cut without a calibration
    #[arg(long)]
    sort: bool,
    /// How heads and feed-forward features are chosen
    #[arg(long, value_parser = methods(), default_value_t = default().method)]
    method: ShrinkMethod,
    /// For minitron: what activations become over tokens, then over sequences, each mean, l2 or variance
    #[arg(long, value_name = "TOKENS,SEQUENCES", default_value_t = default().aggregate)]
    aggregate: Aggregation,
    /// A file of units' scores: written where there is none, read and cut by where there is
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// By what obs chooses them
    #[arg(long, value_parser = metrics(), default_value_t = default().metric)]
    metric: UnitMetric,
    /// How hidden features are chosen
    #[arg(long, value_parser = hidden(), default_value = "minitron")]
    hidden_by: HiddenScore,
    /// How layers are chosen
    #[arg(long, value_parser = depths(), default_value = "cosine")]
    depth_by: DepthScore,
    /// Seed of random scores
    #[arg(long, default_value_t = default().seed, allow_negative_numbers = true)]
    seed: u64,
    /// What is measured on: a text, or a safetensors file with input_ids
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Sequences of calibration
    #[arg(long, default_value_t = default().samples)]
    samples: usize,
    /// Tokens of a sequence, and of a window of --text
    #[arg(long, default_value_t = default().context)]
    context: usize,
    /// Fraction of the mean diagonal that is added to Gram matrices
    #[arg(long, default_value_t = default().damping, allow_negative_numbers = true)]
    damping: f64,
    /// Rounds in which units leave a layer, for obs
    #[arg(long, default_value_t = default().rounds)]
    rounds: usize,
    /// The most units of a layer that are exchanged after their choice, for obs
    #[arg(long, default_value_t = default().swaps)]
    swaps: usize,
    /// Fractions of what earlier layers changed that each layer makes up for: of its inputs, of the hidden states; for obs [default: none]
    #[arg(long, value_name = "INPUTS,HIDDEN", allow_negative_numbers = true)]
    correct: Option<String>,
    /// For obs, minitron and flap: passes over the calibration in which halves of blocks from which units went are trained towards the dense model's hidden states [default: none]
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
fn default() -> ShrinkJob {
    ShrinkJob::default()
}

fn methods() -> impl TypedValueParser<Value = ShrinkMethod> {
    let help = |method: ShrinkMethod| match method {
        ShrinkMethod::Obs => "Group OBS: rounds of removal, exchanges, and the least squares solution of what stays",
        ShrinkMethod::Minitron => "Mean activations; no weight moves",
        ShrinkMethod::Flap => "Fluctuations of inputs times the weights that read them; means go into biases",
        ShrinkMethod::Taylor => "Sums of (gradient times weight)²",
        ShrinkMethod::Fisher => "Sums of ½ gradient² times weight²",
        ShrinkMethod::Magnitude => "Sums of weight²",
        ShrinkMethod::Random => "By chance",
    };
    let all = ShrinkMethod::ALL.map(|method| PossibleValue::new(method.name()).help(help(method)));
    PossibleValuesParser::new(all).map(|name| ShrinkMethod::ALL.into_iter().find(|m| m.name() == name).unwrap_or_default())
}

fn metrics() -> impl TypedValueParser<Value = UnitMetric> {
    let all = [
        PossibleValue::new("loss")
            .help("What the model's loss is expected to rise by, by its gradients at the outputs of layers"),
        PossibleValue::new("error").help("Squared errors of the outputs of layers"),
    ];
    PossibleValuesParser::new(all).map(|name| if name == "error" { UnitMetric::Error } else { UnitMetric::Loss })
}

fn hidden() -> impl TypedValueParser<Value = HiddenScore> {
    let all = [
        PossibleValue::new("minitron").help("The largest mean activations behind the norms of all blocks"),
        PossibleValue::new("pca")
            .help("The first principal components: one rotation, folded into the weights; a tied head becomes its own"),
    ];
    PossibleValuesParser::new(all).map(|name| if name == "pca" { HiddenScore::Pca } else { HiddenScore::Minitron })
}

fn depths() -> impl TypedValueParser<Value = DepthScore> {
    let all = [
        PossibleValue::new("cosine").help("1 - cosine of a layer's input and output, over all tokens"),
        PossibleValue::new("error").help("Error of the last norm's output without the layer, on two sequences"),
        PossibleValue::new("perplexity").help("Perplexity without the layer, one layer after another, on one sequence"),
    ];
    PossibleValuesParser::new(all).map(|name| match &*name {
        "error" => DepthScore::Error,
        "perplexity" => DepthScore::Perplexity,
        _ => DepthScore::Cosine,
    })
}

fn expert_scores() -> impl TypedValueParser<Value = ExpertScore> {
    let help = |score: ExpertScore| match score {
        ExpertScore::Reap => "Means over an expert's tokens of the norm of its output times the router's weight",
        ExpertScore::Use => "Tokens that meet it",
        ExpertScore::Minitron => "Means over an expert's tokens of the norm of its output",
        ExpertScore::Random => "By chance",
    };
    let all = ExpertScore::ALL.map(|score| PossibleValue::new(score.name()).help(help(score)));
    PossibleValuesParser::new(all).map(|name| ExpertScore::ALL.into_iter().find(|s| s.name() == name).unwrap_or_default())
}

/// The job that is asked for: a recipe, and over it what was typed.
fn job(args: &Args) -> Result<ShrinkJob> {
    let mut job = args.recipe.as_ref().map_or_else(|| Ok(ShrinkJob::default()), ShrinkJob::read)?;
    let typed = |name: &str| args.given.iter().any(|given| given == name);
    macro_rules! take {
        ($($field:ident: $name:literal;)*) => { $(if typed($name) { job.$field = args.$field.clone(); })* };
    }
    job.model = args.model.clone().or(job.model);
    job.out = args.out.clone().or(job.out);
    take! {
        intermediate: "intermediate";
        heads: "heads";
        kv_heads: "kv-heads";
        hidden: "hidden";
        layers: "layers";
        vocabulary: "vocabulary";
        experts: "experts";
        active_experts: "active-experts";
        experts_by: "experts-by";
        sublayers: "sublayers";
        drop: "drop";
        pad: "pad";
        parameters: "parameters";
        flops: "flops";
        bytes: "bytes";
        milliseconds: "milliseconds";
        aggregate: "aggregate";
        scores: "scores";
        per_layer: "per-layer";
        round: "round";
        sort: "sort";
        method: "method";
        metric: "metric";
        hidden_by: "hidden-by";
        depth_by: "depth-by";
        seed: "seed";
        calibration: "calibration";
        samples: "samples";
        context: "context";
        damping: "damping";
        rounds: "rounds";
        reconstruct_blocks: "reconstruct-blocks";
        reconstruct_rate: "reconstruct-rate";
        swaps: "swaps";
        activations: "activations";
        scratch: "scratch";
        text: "text";
        windows: "windows";
        bos: "bos";
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
    if args.json { print_json(&report.summary()?) } else { print(&report.to_text()) }
}
