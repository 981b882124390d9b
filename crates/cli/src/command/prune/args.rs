//! What is asked of `lacuna prune`.

use crate::command::place::Force;
use crate::command::texts::bos;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{ArgGroup, Parser, ValueEnum};
use lacuna::data::Bos;
use lacuna::io::Packing;
use lacuna::job::{ChosenSetting, Methods, PruneJob};
use lacuna::lm::CalibrationSelection;
use lacuna::mask::Scope;
use lacuna::prune::{CalibrationInputs, Cost, Sequential};
use std::path::PathBuf;

/// How the command is called, with a target or with a recipe.
const USAGE: &str = "lacuna prune [OPTIONS] <--sparsity <SPARSITY>|--pattern <PATTERN>> <MODEL> <OUT>
       lacuna prune [OPTIONS] --recipe <FILE> [MODEL] [OUT]";

/// Prunes a safetensors file or a language model's folder: what goes becomes 0, and the masks are stored beside the weights.
#[derive(Parser)]
#[command(override_usage = USAGE)]
#[command(group = ArgGroup::new("target").required(true).multiple(true).args(["sparsity", "pattern", "recipe", "print_recipe"]))]
pub struct Args {
    /// The safetensors file or the model folder to prune
    #[arg(required_unless_present_any = ["recipe", "print_recipe"])]
    pub model: Option<PathBuf>,
    /// The safetensors file or the folder to write; it appears whole or not at all
    #[arg(required_unless_present_any = ["recipe", "print_recipe"])]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub force: Force,
    /// Settings out of a file: a recipe, or the prune.json of a run. What is typed beside it holds instead
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Prints all settings as a recipe, and does nothing else
    #[arg(long)]
    pub print_recipe: bool,
    /// Which weights matter
    #[arg(long, value_parser = methods(), default_value_t = default().method)]
    pub method: String,
    /// Fraction of the weights that goes, in [0, 1)
    #[arg(long, allow_negative_numbers = true)]
    pub sparsity: Option<f64>,
    /// Shape that survivors take: unstructured, N:M (keeps N of M), blockRxC, rows, cols
    #[arg(long)]
    pub pattern: Option<String>,
    /// How much of each layer
    #[arg(long, value_parser = allocations(), default_value_t = default().allocate)]
    pub allocate: String,
    /// Who competes with whom in a layer [default: row for unstructured masks of wanda, ria and dsnot, layer otherwise]
    #[arg(long, value_enum)]
    pub scope: Option<ScopeArg>,
    /// A tensor to leave alone, in a folder all layers whose names contain this or match it with *; may be given several times
    #[arg(long, value_name = "TENSOR")]
    pub skip: Vec<String>,
    /// A sparsity for one tensor, apart from the rest; may be given several times
    #[arg(long, value_name = "TENSOR=SPARSITY")]
    pub layer: Vec<String>,
    /// Seed of random scores, and of the search evolve
    #[arg(long, default_value_t = default().seed, allow_negative_numbers = true)]
    pub seed: u64,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub language: Language,
    /// The options that were typed, by their names without the dashes.
    #[arg(skip)]
    pub given: Vec<String>,
}

/// The values that hold unless others are given.
fn default() -> PruneJob {
    PruneJob::default()
}

/// The values of an option are those of the library's type, by the same names.
macro_rules! same_values {
    ($arg:ident, $of:ident: $($value:ident),+) => {
        impl From<$arg> for $of {
            fn from(arg: $arg) -> $of {
                match arg {
                    $($arg::$value => $of::$value,)+
                }
            }
        }

        impl From<$of> for $arg {
            fn from(of: $of) -> $arg {
                match of {
                    $($of::$value => $arg::$value,)+
                }
            }
        }
    };
}

/// A value of an option, and what it does where that is said.
fn value(name: &str, about: &str) -> PossibleValue {
    let value = PossibleValue::new(name.to_string());
    if about.is_empty() { value } else { value.help(about.to_string()) }
}

fn methods() -> PossibleValuesParser {
    PossibleValuesParser::new(Methods::standard().methods().iter().map(|m| value(m.name(), m.about())))
}

fn allocations() -> PossibleValuesParser {
    PossibleValuesParser::new(Methods::standard().allocations().iter().map(|a| value(a.name(), a.about())))
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    Layer,
    Row,
}

same_values!(ScopeArg, Scope: Layer, Row);

/// What is asked of language models alone.
#[derive(clap::Args)]
#[command(next_help_heading = "Language models")]
pub struct Language {
    /// Text, or a safetensors file with a tensor input_ids, to measure inputs on; several as a.txt:0.5,b.jsonl:0.3,self:0.2 with their shares of the
    /// tokens, drawn by --seed; self is what the model writes
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Sequences of calibration
    #[arg(long, default_value_t = default().samples)]
    pub samples: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = default().context)]
    pub context: usize,
    /// From which model the inputs of a block come
    #[arg(long, value_enum, default_value_t = default().inputs.into())]
    pub inputs: InputsArg,
    /// Whether the layers of a block are measured all dense, or each behind the pruned ones before it
    #[arg(long, value_enum, default_value_t = default().sequential.into())]
    pub turn: TurnArg,
    /// Fraction of the mean diagonal that is added to the Gram matrices
    #[arg(long, default_value_t = default().damping, allow_negative_numbers = true)]
    pub damping: f64,
    /// λ of woodfisher
    #[arg(long, default_value_t = default().fisher_damping, allow_negative_numbers = true)]
    pub fisher_damping: f64,
    /// Columns whose mask sparsegpt chooses together; weights of a block of woodfisher
    #[arg(long, default_value_t = default().block_size)]
    pub block_size: usize,
    /// sparsegpt visits columns by falling activation
    #[arg(long)]
    pub actorder: bool,
    /// sparsegpt rounds what stays to 2^BITS values a row
    #[arg(long)]
    pub bits: Option<u32>,
    /// After pruning, move what stays to the least squares solution by this many steps of conjugate gradients
    #[arg(long, value_name = "STEPS")]
    pub reconstruct: Option<usize>,
    /// After a block is pruned, train its kept weights and norms for this many passes over the calibration, so that it gives what the dense block gives
    #[arg(long, value_name = "PASSES", num_args = 0..=1, require_equals = true, default_missing_value = "2")]
    pub reconstruct_blocks: Option<usize>,
    /// The largest learning rate of --reconstruct-blocks
    #[arg(long, value_name = "X", default_value_t = default().reconstruct_rate, allow_negative_numbers = true)]
    pub reconstruct_rate: f64,
    /// Let each layer make up for this fraction of what earlier ones changed: of their inputs, or of their inputs and of the hidden states, as 1 or 1,0.5
    #[arg(long, value_name = "FRACTIONS")]
    pub correct: Option<String>,
    /// Which sequences of each source are calibrated on: random, clusters (one of each cluster of activations), perplexity:LOW-HIGH (a band of ranks) [default:
    /// random of several sources, the first of one file]
    #[arg(long, value_name = "RULE")]
    pub select: Option<CalibrationSelection>,
    /// Draw Gram matrices towards their diagonal, or towards it and the mean over texts, by these fractions, as 0.1 or 0.1,0.5
    #[arg(long, value_name = "FRACTIONS")]
    pub shrinkage: Option<String>,
    /// Solve each layer so many times, sources weighing more where their error is worst; the solve with the least worst error stays
    #[arg(long, value_name = "SOLVES", num_args = 0..=1, require_equals = true, default_missing_value = "4")]
    pub robust: Option<usize>,
    /// Choose these on sources that are left out, each in turn or those of --hold-out: damping and shrinkage, by kind of layer; correct, layer by layer, up to --correct
    #[arg(long, value_name = "SETTINGS", value_delimiter = ',')]
    pub choose: Vec<ChosenSetting>,
    /// A source of --calibration that is only judged by: by --choose, and where --reconstruct-blocks stops
    #[arg(long, value_name = "SOURCE")]
    pub hold_out: Option<String>,
    /// Prune only layers whose names contain this or match it with *; may be given several times
    #[arg(long, value_name = "LAYER")]
    pub only: Vec<String>,
    /// Megabytes of activations that stay in memory; what is beyond goes to the disk [default: half of the memory that is free]
    #[arg(long, value_name = "MB")]
    pub activations: Option<usize>,
    /// The folder on whose disk activations, gradients and levels lie while the run lasts [default: that of OUT]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Spread of owl's densities
    #[arg(long, default_value_t = default().owl_lambda)]
    pub owl_lambda: f64,
    /// Multiple of the mean score above which owl counts an outlier
    #[arg(long, default_value_t = default().owl_threshold)]
    pub owl_threshold: f64,
    /// How pruned weights are laid
    #[arg(long, help = format!("How pruned weights are laid: {} (weights: whole, masks beside)", Packing::NAMES), default_value_t = default().save, value_name = "LAYOUT")]
    pub save: String,
    /// Measure the perplexity of this text before and after, in windows of --context tokens; several as a.txt,b.txt
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Only the first windows of that text
    #[arg(long, value_name = "K")]
    pub windows: Option<usize>,
    /// Where the token that begins a text stands: in the sequences of calibration, and in the windows of --text
    #[arg(long, value_parser = bos(), default_value_t = default().bos)]
    pub bos: Bos,
    /// Go on with a run that was interrupted
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub search: Search,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputsArg {
    Pruned,
    Dense,
}

same_values!(InputsArg, CalibrationInputs: Pruned, Dense);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TurnArg {
    Block,
    Layer,
}

same_values!(TurnArg, Sequential: Block, Layer);

/// What is asked of a search.
#[derive(clap::Args)]
pub struct Search {
    /// Sparsities of each layer beside dense among which sensitivity, dynamic and evolve choose, as 0.4,0.5,0.6 [default: seven around --sparsity]
    #[arg(long, value_name = "SPARSITIES", value_delimiter = ',')]
    pub levels: Vec<f64>,
    /// What --sparsity is a fraction of in a search
    #[arg(long, value_enum, default_value_t = default().cost.into())]
    pub cost: CostArg,
    /// Tokens of the calibration on which sensitivity and evolve judge the model's predictions
    #[arg(long, default_value_t = default().search_tokens)]
    pub search_tokens: usize,
    /// Generations of evolve
    #[arg(long, default_value_t = default().generations)]
    pub generations: usize,
    /// Choices that evolve tries a generation
    #[arg(long, default_value_t = default().offspring)]
    pub offspring: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CostArg {
    /// Weights that stay
    Weights,
    /// Bytes of the pattern's storage, a bitmask where it has none
    Bytes,
    /// Time of one token in the storages that the plan chooses, measured here
    Time,
}

same_values!(CostArg, Cost: Weights, Bytes, Time);
