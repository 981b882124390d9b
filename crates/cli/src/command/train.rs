//! `lacuna train MODEL OUT`: trains a language model's folder, with a teacher or without.

use super::place::Force;
use super::texts::bos;
use super::{print, print_json};
use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use lacuna::data::Bos;
use lacuna::io::QuantLayout;
use lacuna::job::{Event, Keep, Stage, TrainJob, TrainReport};
use lacuna::quantize::Granularity;
use lacuna::train::{Cooldown, Divergence, HiddenLoss, HiddenPair, StepRule};
use lacuna::{Error, Result};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the command is called.
const USAGE: &str = "lacuna train [OPTIONS] <MODEL> <OUT> --text <FILE>… --steps <N>
       lacuna train [OPTIONS] --recipe <FILE> [MODEL] [OUT]";

/// Trains a language model's folder on texts, the masks of a pruned one held through every step.
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
    /// Settings out of a file: a recipe, or the train.json of a run. What is typed beside it holds instead
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Prints all settings as a recipe, and does nothing else
    #[arg(long)]
    print_recipe: bool,
    /// What is trained on: texts, .jsonl with a "text" in each line, or safetensors with a tensor input_ids
    #[arg(long, value_name = "FILE", num_args = 1..)]
    text: Vec<PathBuf>,
    /// How many steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// How many tokens, in whole steps; in place of --steps
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// How many passes over the text, in whole steps; in place of --steps
    #[arg(long, value_name = "X")]
    epochs: Option<f64>,
    /// Tokens of a sequence
    #[arg(long, default_value_t = default().context)]
    context: usize,
    /// Sequences of a pass
    #[arg(long, default_value_t = default().batch)]
    batch: usize,
    /// Passes of a step, whose gradients are added up
    #[arg(long, default_value_t = default().accumulate)]
    accumulate: usize,
    /// Where the token that begins a text stands
    #[arg(long, value_parser = bos(), default_value_t = default().bos)]
    bos: Bos,
    /// Orders the sequences, and draws the factors of --lora
    #[arg(long, default_value_t = default().seed, allow_negative_numbers = true)]
    seed: u64,
    /// One JSON object a step, and one at the end
    #[arg(long)]
    json: bool,
    /// Go on with a run that was interrupted
    #[arg(long)]
    resume: bool,
    /// Steps between two saved states
    #[arg(long, value_name = "N", default_value_t = default().save_every)]
    save_every: usize,
    /// Activations that a pass keeps for the way back; what does not fit is made again [default: half of the free memory]
    #[arg(long, value_name = "MEGABYTES")]
    activations: Option<usize>,
    /// The folder on whose disk the tokens lie while the run lasts [default: that of OUT]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    optimizer: OptimizerArgs,
    #[command(flatten)]
    parts: Parts,
    #[command(flatten)]
    teacher: Teacher,
    #[command(flatten)]
    measured: Measured,
    /// The options that were typed, by their names without the dashes.
    #[arg(skip)]
    pub given: Vec<String>,
}

/// The values that hold unless others are given.
fn default() -> TrainJob {
    TrainJob::default()
}

#[derive(clap::Args)]
#[command(next_help_heading = "AdamW")]
struct OptimizerArgs {
    /// The largest learning rate
    #[arg(long, value_name = "X", default_value_t = default().lr, allow_negative_numbers = true)]
    lr: f64,
    /// How the learning rate goes down
    #[arg(long, value_parser = schedules(), default_value_t = default().schedule)]
    schedule: Cooldown,
    /// Steps until the largest learning rate is reached [default: 3 % of the steps]
    #[arg(long, value_name = "N")]
    warmup: Option<usize>,
    /// Where the learning rate goes down to, as a fraction of the largest
    #[arg(long, value_name = "X", default_value_t = default().floor, allow_negative_numbers = true)]
    floor: f64,
    /// Weight decay
    #[arg(long, value_name = "X", default_value_t = default().weight_decay, allow_negative_numbers = true)]
    weight_decay: f64,
    /// Parameters without weight decay; may be given several times [default: kind:norm, kind:bias, kind:embedding]
    #[arg(long, value_name = "PATTERN")]
    no_decay: Vec<String>,
    /// How much of the mean of gradients stays in a step
    #[arg(long, value_name = "X", default_value_t = default().beta1, allow_negative_numbers = true)]
    beta1: f64,
    /// The same of the mean of their squares
    #[arg(long, value_name = "X", default_value_t = default().beta2, allow_negative_numbers = true)]
    beta2: f64,
    /// Added to the root of that
    #[arg(long, value_name = "X", default_value_t = default().epsilon, allow_negative_numbers = true)]
    epsilon: f64,
    /// The largest norm of a gradient; a longer one is shortened to it. 0 shortens none
    #[arg(long, value_name = "X", default_value_t = default().clip, allow_negative_numbers = true)]
    clip: f64,
    /// Measure and write a running average of the weights, of which so much stays in a step; 0.99 is usual
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    average: Option<f64>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "What trains")]
struct Parts {
    /// Train only parameters whose names contain this or match it with *, or kind:norm, kind:bias, kind:embedding, kind:attention, kind:feed_forward, kind:head; may be given several times
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Parameters that do not train; may be given several times
    #[arg(long, value_name = "PATTERN")]
    freeze: Vec<String>,
    /// Train factors of this rank beside the linear layers of all blocks (or those of --only), merged so that masks stay exact
    #[arg(long, value_name = "RANK")]
    lora: Option<usize>,
    /// Scale of the factors times the rank [default: twice the rank]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lora_alpha: Option<f64>,
    /// Quantisation-aware training: run the linear layers of all blocks (or those of --only) on weights of so many bits, and write these as codes: 2, 3, 4 or 8
    #[arg(long, value_name = "BITS")]
    quantize: Option<u32>,
    /// Inputs of a row that share a scale; or row, or tensor
    #[arg(long, value_name = "GROUP", default_value_t = default().quantize_group, allow_negative_numbers = true)]
    quantize_group: Granularity,
    /// Whether scales are learnt, or those of the weights as they are
    #[arg(long, value_parser = rules(), default_value = "lsq")]
    quantize_rule: StepRule,
    /// How codes lie in files: compressed-tensors, int-quantized (8 bits), gptq or awq (4 bits)
    #[arg(long, value_name = "LAYOUT", default_value_t = default().quantize_layout)]
    quantize_layout: QuantLayout,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Distillation")]
struct Teacher {
    /// Learn from this model's predictions, which runs beside
    #[arg(long, value_name = "DIR")]
    teacher: Option<PathBuf>,
    /// Learn from what a teacher said of the same text: a file that `lacuna logits --top` wrote
    #[arg(long, value_name = "FILE")]
    teacher_cache: Option<PathBuf>,
    /// How student and teacher are held against one another
    #[arg(long, value_parser = divergences(), default_value_t = default().divergence)]
    divergence: Divergence,
    /// Temperature of both
    #[arg(long, value_name = "X", default_value_t = default().temperature, allow_negative_numbers = true)]
    temperature: f64,
    /// Weight of the text's own cross-entropy beside, in [0, 1]
    #[arg(long, value_name = "X", default_value_t = default().hard, allow_negative_numbers = true)]
    hard: f64,
    /// Lift the text's token above the teacher's likeliest by this probability; for little data
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    margin: Option<f64>,
    /// Learn hidden states of the teacher's blocks too: pairs of a block of the model and one of the teacher, from 0, as in 3:6,7:14
    #[arg(long, value_name = "PAIRS", value_delimiter = ',')]
    hidden_states: Vec<HiddenPair>,
    /// How hidden states are held against one another
    #[arg(long, value_parser = hidden_losses(), default_value_t = default().hidden_loss)]
    hidden_loss: HiddenLoss,
    /// Weight of the hidden states, which are scaled to the loss of the predictions at every step
    #[arg(long, value_name = "X", default_value_t = default().hidden_weight, allow_negative_numbers = true)]
    hidden_weight: f64,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Validation")]
struct Measured {
    /// Sequences at the end of the text that are not trained on, but measured
    #[arg(long, value_name = "N", default_value_t = default().held_out)]
    held_out: usize,
    /// A text whose perplexity is measured, in windows of --context tokens
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,
    /// Only the first windows of that text
    #[arg(long, value_name = "K")]
    windows: Option<usize>,
    /// Steps between two measurements [default: before the first and after the last]
    #[arg(long, value_name = "N")]
    eval_every: Option<usize>,
    /// Which model is written [default: best where it is measured]
    #[arg(long, value_parser = keeps())]
    keep: Option<Keep>,
}

fn schedules() -> impl TypedValueParser<Value = Cooldown> {
    PossibleValuesParser::new(Cooldown::ALL.map(Cooldown::name)).try_map(|name| -> Result<Cooldown> { name.parse() })
}

fn divergences() -> impl TypedValueParser<Value = Divergence> {
    PossibleValuesParser::new(Divergence::ALL.map(Divergence::name)).try_map(|name| -> Result<Divergence> { name.parse() })
}

fn hidden_losses() -> impl TypedValueParser<Value = HiddenLoss> {
    PossibleValuesParser::new(HiddenLoss::ALL.map(HiddenLoss::name)).try_map(|name| -> Result<HiddenLoss> { name.parse() })
}

fn rules() -> impl TypedValueParser<Value = StepRule> {
    let names = ["lsq", "straight-through"];
    PossibleValuesParser::new(names).map(|name| if name == "lsq" { StepRule::Lsq } else { StepRule::StraightThrough })
}

fn keeps() -> impl TypedValueParser<Value = Keep> {
    PossibleValuesParser::new(["best", "last"]).map(|name| if name == "best" { Keep::Best } else { Keep::Last })
}

/// The job that is asked for: a recipe, and over it what was typed.
fn job(args: &Args) -> Result<TrainJob> {
    let mut job = args.recipe.as_ref().map_or_else(|| Ok(TrainJob::default()), TrainJob::read)?;
    let typed = |name: &str| args.given.iter().any(|given| given == name);
    macro_rules! take {
        ($($field:ident: $name:literal = $value:expr;)*) => { $(if typed($name) { job.$field = $value.clone(); })* };
    }
    job.model = args.model.clone().or(job.model);
    job.out = args.out.clone().or(job.out);
    if ["steps", "tokens", "epochs"].into_iter().any(typed) {
        // What was typed says how long the run is; that of the recipe does not hold any more.
        (job.steps, job.tokens, job.epochs) = (None, None, None);
    }
    let (optimizer, parts, teacher, measured) = (&args.optimizer, &args.parts, &args.teacher, &args.measured);
    take! {
        text: "text" = args.text;
        steps: "steps" = args.steps;
        tokens: "tokens" = args.tokens;
        epochs: "epochs" = args.epochs;
        context: "context" = args.context;
        batch: "batch" = args.batch;
        accumulate: "accumulate" = args.accumulate;
        bos: "bos" = args.bos;
        seed: "seed" = args.seed;
        save_every: "save-every" = args.save_every;
        activations: "activations" = args.activations;
        scratch: "scratch" = args.scratch;
        lr: "lr" = optimizer.lr;
        schedule: "schedule" = optimizer.schedule;
        warmup: "warmup" = optimizer.warmup;
        floor: "floor" = optimizer.floor;
        weight_decay: "weight-decay" = optimizer.weight_decay;
        no_decay: "no-decay" = optimizer.no_decay;
        beta1: "beta1" = optimizer.beta1;
        beta2: "beta2" = optimizer.beta2;
        epsilon: "epsilon" = optimizer.epsilon;
        clip: "clip" = optimizer.clip;
        only: "only" = parts.only;
        freeze: "freeze" = parts.freeze;
        lora: "lora" = parts.lora;
        lora_alpha: "lora-alpha" = parts.lora_alpha;
        quantize: "quantize" = parts.quantize;
        quantize_group: "quantize-group" = parts.quantize_group;
        quantize_rule: "quantize-rule" = parts.quantize_rule;
        quantize_layout: "quantize-layout" = parts.quantize_layout;
        teacher: "teacher" = teacher.teacher;
        teacher_cache: "teacher-cache" = teacher.teacher_cache;
        divergence: "divergence" = teacher.divergence;
        temperature: "temperature" = teacher.temperature;
        hard: "hard" = teacher.hard;
        margin: "margin" = teacher.margin;
        hidden_states: "hidden-states" = teacher.hidden_states;
        hidden_loss: "hidden-loss" = teacher.hidden_loss;
        hidden_weight: "hidden-weight" = teacher.hidden_weight;
        average: "average" = optimizer.average;
        held_out: "held-out" = measured.held_out;
        validation: "validation" = measured.validation;
        windows: "windows" = measured.windows;
        eval_every: "eval-every" = measured.eval_every;
        keep: "keep" = measured.keep;
    }
    (job.force, job.resume) = (args.force.force, args.resume);
    Ok(job)
}

/// Whether the run is to end with its state saved.
static STOP: AtomicBool = AtomicBool::new(false);

/// From now on the first Ctrl-C (or a request of the system to end) lets the step that runs end and the state be saved; the second ends at once.
pub(super) fn stop_cleanly() -> Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("note: ends after this step, with its state saved; once more ends at once");
    })
    .map_err(|e| Error::unsupported("Ctrl-C", e.to_string()))
}

/// Whether Ctrl-C was pressed.
pub(super) fn is_stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let job = job(args)?;
    if args.print_recipe {
        job.check_ranges()?;
        return print(&job.to_toml()?);
    }
    job.check()?;
    stop_cleanly()?;
    let mut bar = Bar(None);
    let mut printed = Ok(());
    let report = job.run(&mut |event| {
        bar.see(event);
        match event {
            Event::Step { record, sequences, .. } if args.json => {
                printed = print_json(&serde_json::json!({
                    "step": record.step, "loss": record.loss, "learning_rate": record.learning_rate,
                    "gradient_norm": record.gradient_norm, "sequences": sequences,
                }));
            }
            Event::Validated(record) if args.json => {
                printed = print_json(&serde_json::json!({"step": record.step, "perplexity": record.perplexity}));
            }
            Event::Validated(_) => bar.say(&event.to_string()),
            Event::Step { .. } | Event::Progress { .. } => {}
            other => eprintln!("{other}"),
        }
        if printed.is_err() || is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.clear();
    printed?;
    let report = report?;
    if args.json {
        return print_json(&summary(&report)?);
    }
    print(&report.to_text())
}

/// The report without its curve, which stands in `train.json`.
fn summary(report: &TrainReport) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(report).map_err(|e| Error::invalid_option("json", e.to_string()))?;
    if let Some(map) = value.as_object_mut() {
        map.remove("curve");
    }
    Ok(value)
}

/// The bar of the run on a terminal; nothing elsewhere.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Step { record, of, tokens_per_second, seconds_left, memory, .. } => {
                let bar = self.0.get_or_insert_with(|| {
                    let bar = ProgressBar::new(*of as u64);
                    let style = ProgressStyle::with_template("steps {wide_bar} {pos}/{len} {elapsed} {msg}");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    bar
                });
                bar.set_position(record.step as u64);
                let memory = memory.map_or(String::new(), |bytes| format!(", {:.2} GB", bytes as f64 / 1e9));
                bar.set_message(format!(
                    "loss {:.4}, rate {:.2e}, {tokens_per_second:.0} tokens/s, {:.0} s left{memory}",
                    record.loss, record.learning_rate, seconds_left
                ));
            }
            Event::Progress { stage: Stage::Validation, done, of, .. } => {
                if let Some(bar) = &self.0 {
                    bar.set_message(format!("validation: {done} of {of} windows"));
                }
            }
            _ => {}
        }
    }

    /// A line above the bar, where there is one.
    fn say(&self, line: &str) {
        if let Some(bar) = &self.0 {
            bar.println(line);
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}
