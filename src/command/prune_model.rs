//! `lacuna prune DIR OUT`: language models, block by block.

use super::place::{self, Aside};
use super::prune::{Allocation, Args, Method, ScopeArg};
use super::prune_report::{Outcome, page, report, text};
use super::prune_search::Search;
use super::{print, print_json};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use lacuna::allocate::{Allocate, Er, Erk, Global, Lamp, Owl, Uniform};
use lacuna::criteria::{Fisher, Magnitude, Need, Needs, Norm, Random, Ria, Saliency, Taylor, Wanda};
use lacuna::io::{Folder, FolderWriter, Packing, read_ids, repack};
use lacuna::mask::{Budget, Pattern, Scope};
use lacuna::metrics::{Perplexity, streamed_losses, windows};
use lacuna::models::lm::Config;
use lacuna::prune::{
    Correction, Inputs, LanguageLayer, LanguagePruning, LevelSettings, SequenceGradients, Turn, allocated, language_layers,
    of_blocks, outliers, prune_language,
};
use lacuna::quantize::Affine;
use lacuna::rng::Seed;
use lacuna::solve::{Alps, DsNoT, ExactObs, Order, Pruner, Reconstruct, Reconstructed, Scored, Solver, SparseGpt, WoodFisher};
use lacuna::sparse::Format;
use lacuna::text::Tokenizer;
use lacuna::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is asked of language models alone.
#[derive(clap::Args)]
#[command(next_help_heading = "Language models")]
pub struct Language {
    /// Text, or a safetensors file with a tensor input_ids, to measure inputs on
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Sequences of calibration
    #[arg(long, default_value_t = 64)]
    samples: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 1024)]
    pub(super) context: usize,
    /// From which model the inputs of a block come
    #[arg(long, value_enum, default_value = "pruned")]
    inputs: InputsArg,
    /// Whether the layers of a block are measured all dense, or each behind the pruned ones before it
    #[arg(long, value_enum, default_value = "layer")]
    turn: TurnArg,
    /// Share of the mean diagonal that is added to the Gram matrices
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    damping: f64,
    /// λ of woodfisher
    #[arg(long, default_value_t = 1e-5, allow_negative_numbers = true)]
    fisher_damping: f64,
    /// Columns whose mask sparsegpt chooses together; weights of a block of woodfisher
    #[arg(long, default_value_t = 128)]
    block_size: usize,
    /// sparsegpt visits columns by falling activation
    #[arg(long)]
    actorder: bool,
    /// sparsegpt rounds what stays to 2^BITS values a row
    #[arg(long)]
    bits: Option<u32>,
    /// After pruning, move what stays to the least squares solution by this many steps of conjugate gradients
    #[arg(long, value_name = "STEPS")]
    reconstruct: Option<usize>,
    /// Let each layer make up for this share of what earlier ones changed: INPUTS or INPUTS,STREAM
    #[arg(long, value_name = "SHARES")]
    correct: Option<String>,
    /// Prune only layers whose names contain this or match it with *; may be given several times
    #[arg(long, value_name = "LAYER")]
    only: Vec<String>,
    /// Megabytes of activations that stay in memory; what is beyond goes to the disk
    #[arg(long, default_value_t = 512)]
    activations: usize,
    /// Spread of owl's densities
    #[arg(long, default_value_t = 0.08)]
    owl_lambda: f64,
    /// Multiple of the mean score above which owl counts an outlier
    #[arg(long, default_value_t = 5.0)]
    owl_threshold: f64,
    /// How pruned weights are laid: weights (whole, masks beside), sparse-bitmask, sparse-24-bitmask, or a storage, as bitmask or nm:2:4
    #[arg(long, default_value = "weights", value_name = "LAYOUT")]
    save: String,
    /// Measure the perplexity of this text before and after, in windows of --context tokens
    #[arg(long, value_name = "FILE")]
    pub(super) text: Option<PathBuf>,
    /// Only the first windows of that text
    #[arg(long, value_name = "K")]
    pub(super) windows: Option<usize>,
    /// Go on with a run that was interrupted
    #[arg(long)]
    pub(super) resume: bool,
    #[command(flatten)]
    search: Search,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InputsArg {
    Pruned,
    Dense,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TurnArg {
    Block,
    Layer,
}

impl Language {
    /// Refuses what a plain file of weights has no use for.
    pub fn refuse(&self) -> Result<()> {
        let given = [
            ("calibration", self.calibration.is_some()),
            ("actorder", self.actorder),
            ("bits", self.bits.is_some()),
            ("reconstruct", self.reconstruct.is_some()),
            ("correct", self.correct.is_some()),
            ("only", !self.only.is_empty()),
            ("save", self.save != "weights"),
            ("text", self.text.is_some()),
            ("resume", self.resume),
        ];
        self.search.refuse(Allocation::Uniform)?;
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => Err(Error::setting(option, "is for language models: give a model's folder")),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let wanted = &args.language;
    let pattern: Pattern = args.pattern.as_deref().unwrap_or("unstructured").parse()?;
    let sparsity = sparsity(args.sparsity, pattern)?;
    if !args.layer.is_empty() {
        return Err(Error::setting("layer", "sparsities of single layers are for files; use --only in several runs"));
    }
    wanted.search.refuse(args.allocate)?;
    let packing: Packing = wanted.save.parse()?;
    fits(packing, pattern)?;
    let folder = Folder::open(&args.model)?;
    if let Some(name) = folder.packed().next() {
        let reason = format!("weight {name} is packed; 'lacuna pack DIR OUT --save weights' makes it whole");
        return Err(Error::malformed(&args.model, reason));
    }
    let inputs: Vec<&Path> = [Some(&args.model), wanted.calibration.as_ref(), wanted.text.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    place::folder(&args.out, &inputs, args.force.force)?;
    let mut before = Aside::new(&args.out);
    let config =
        Config::parse(&Value::Object(folder.config().clone())).map_err(|e| Error::malformed(&args.model, e.to_string()))?;
    let layers = language_layers(&folder, &config, &wanted.only, &args.skip)?;
    readable(&folder, &layers)?;
    let calibration = calibration(args, &config)?;
    let memory = wanted.activations << 20;
    let quality = wanted.text.as_deref().map(|text| Quality::new(text, wanted, &args.model, &config)).transpose()?;

    let parts = Pruners::new(args)?;
    let first = parts.pruner(args, wanted)?;
    let gradients = parts.gradients(args, (&folder, &config), (&calibration, wanted.context), &layers, first.needs())?;
    let solver = Solver::Gradients { steps: wanted.reconstruct.unwrap_or(0), tolerance: 1e-6 };
    let second = Reconstructed::new(first.as_ref(), Reconstruct { damping: wanted.damping, solver });
    let pruner: &dyn Pruner = if wanted.reconstruct.is_some() { &second } else { first.as_ref() };
    let ids: &[u32] = if !of_inputs(pruner.needs()) && !args.allocate.measures() && wanted.correct.is_none() {
        // Nothing is measured, so nothing needs to run.
        &calibration[..1]
    } else {
        &calibration
    };
    let length = wanted.context.min(ids.len());
    let row = match args.scope {
        Some(scope) => scope == ScopeArg::Row,
        None => matches!(args.method, Method::Wanda | Method::Ria | Method::Dsnot) && pattern == Pattern::Unstructured,
    };
    let scope = if row { Scope::Row } else { Scope::Layer };
    let fixed = matches!(pattern, Pattern::Nm { .. });
    if fixed && args.allocate.measures() {
        let reason = format!("pattern {pattern} fixes the sparsity of every layer; nothing is left to move");
        return Err(Error::setting("allocate", reason));
    }
    let mut found = Value::Null;
    let budgets = match allocation(args.allocate) {
        Some(allocation) => {
            let ranking = parts.saliency.as_deref().zip(gradients.as_ref());
            allocated(&folder, &config, &layers, pattern, sparsity, (allocation.as_ref(), ranking))?
        }
        None if args.allocate == Allocation::Owl => {
            let found = outliers(&folder, &config, (ids, length), &layers, wanted.owl_threshold, memory)?;
            let (shares, sizes): (Vec<f64>, Vec<usize>) = found.into_iter().unzip();
            let total = Budget::from_sparsity(sizes.iter().sum(), sparsity)?;
            of_blocks(&layers, &Owl { lambda: wanted.owl_lambda }.shares(&shares, &sizes, total)?, pattern)?
        }
        None => {
            let settings = LevelSettings::new(pruner, pattern, scope, gradients.as_ref(), memory);
            let budgets;
            (budgets, found) = wanted.search.run(args, (&folder, &config), (ids, length), &layers, (settings, sparsity))?;
            budgets
        }
    };
    let settings = LanguagePruning {
        pruner,
        pattern,
        scope,
        budgets,
        inputs: if wanted.inputs == InputsArg::Dense { Inputs::Dense } else { Inputs::Pruned },
        turn: if wanted.turn == TurnArg::Block || wanted.inputs == InputsArg::Dense { Turn::Block } else { Turn::Layer },
        correction: correction(wanted)?,
        gradients: gradients.as_ref(),
        memory,
    };
    let described = described(args, pruner, &settings, &calibration, &found)?;
    let bar = bar(config.layers());
    // An older folder makes room while the new one is begun and while it gets its name, and stands at its place in between.
    before.away()?;
    let mut returned = Ok(());
    let done = prune_language(&folder, &config, (ids, length), &settings, (&args.out, &described, wanted.resume), &mut |p| {
        returned = std::mem::replace(&mut returned, Ok(())).and_then(|()| before.back());
        bar.set_length(p.of as u64);
        bar.set_position(p.blocks as u64);
        bar.set_message(p.memory.map_or(String::new(), |m| format!("{:.2} GB", m as f64 / 1e9)));
    });
    bar.finish_and_clear();
    let (writer, records) = done?;
    returned?;
    let seconds = begun.elapsed().as_secs_f64();
    let whole = writer.complete()?;
    let perplexity = quality.map(|q| q.before_and_after(&folder, &whole, &config)).transpose()?;
    let report = report(args, &described, &records, &folder, Outcome { seconds, perplexity, found })?;
    let page = page(&report, &records)?;
    let close = |writer: FolderWriter| {
        writer.json("prune.json", &report)?;
        writer.file("prune.html", page.as_bytes())?;
        writer.finish()
    };
    before.away()?;
    match packing {
        Packing::Whole => close(writer)?,
        _ => {
            close(repack(&whole, &args.out, packing, |_, _| {})?)?;
            // Only now is the whole one no longer needed.
            writer.discard();
        }
    }
    before.gone()?;
    if args.json { print_json(&report) } else { print(&text(args, &report, &records)) }
}

/// Refuses layers whose numbers are not read, before anything runs.
fn readable(folder: &Folder, layers: &[LanguageLayer]) -> Result<()> {
    let unread = |l: &&LanguageLayer| folder.dtype(&format!("{}.weight", l.name)).is_err();
    let mut unread = layers.iter().filter(unread);
    let Some(first) = unread.next() else { return Ok(()) };
    let (dtype, all) = (folder.info(&format!("{}.weight", first.name))?.dtype, 1 + unread.count());
    let reason = format!(
        "layer {} is {dtype}, one of {all} whose numbers are not read; F32, F16 and BF16 are (--skip leaves layers alone)",
        first.name
    );
    Err(Error::malformed(folder.path(), reason))
}

/// Refuses layouts that cannot hold the pattern, before anything runs.
fn fits(packing: Packing, pattern: Pattern) -> Result<()> {
    let held = match (packing, pattern) {
        (Packing::Sparse24Bitmask, p) => p == Pattern::Nm { n: 2, m: 4 },
        (Packing::Storage(Format::Nm(n, m)), p) => p == Pattern::Nm { n, m },
        (Packing::Storage(Format::Bsr(r, c)), p) => p == Pattern::Block { rows: r, cols: c },
        _ => true,
    };
    if held { Ok(()) } else { Err(Error::setting("save", format!("{packing} cannot hold pattern {pattern}"))) }
}

/// A text on which perplexity is measured.
struct Quality {
    windows: Vec<Vec<u32>>,
}

impl Quality {
    fn new(text: &Path, wanted: &Language, model: &Path, config: &Config) -> Result<Quality> {
        let ids = read_tokens(text, model)?;
        if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab()) {
            return Err(Error::malformed(text, format!("holds token {id}; the vocabulary has {}", config.vocab())));
        }
        let windows = windows(&ids, wanted.context, wanted.windows, None).map_err(|e| Error::malformed(text, e.to_string()))?;
        Ok(Quality { windows })
    }

    /// Of both models, one block in memory at a time.
    fn before_and_after(&self, before: &Folder, after: &Folder, config: &Config) -> Result<[f64; 2]> {
        let of = |folder: &Folder| {
            let losses = streamed_losses(folder, config, &self.windows, 512 << 20, |_, _| {})?;
            Perplexity::of(&losses).map(|p| p.perplexity)
        };
        Ok([of(before)?, of(after)?])
    }
}

/// Whether inputs of layers must be measured.
fn of_inputs(needs: Needs) -> bool {
    [Need::Gram, Need::InputSquares, Need::InputSums].into_iter().any(|n| needs.contains(n))
}

fn sparsity(given: Option<f64>, pattern: Pattern) -> Result<f64> {
    match (given, pattern) {
        (Some(s), Pattern::Nm { .. }) => {
            let reason = format!("{s} given with pattern {pattern}, which fixes the sparsity; leave one out");
            Err(Error::setting("sparsity", reason))
        }
        (None, Pattern::Nm { n, m }) => Ok(1.0 - n as f64 / m as f64),
        (Some(s), _) => Budget::from_sparsity(1, s).map(|_| s),
        (None, _) => Err(Error::setting("sparsity", format!("pattern {pattern} needs one: give --sparsity"))),
    }
}

fn allocation(of: Allocation) -> Option<Box<dyn Allocate>> {
    match of {
        Allocation::Uniform => Some(Box::new(Uniform)),
        Allocation::Global => Some(Box::new(Global)),
        Allocation::Er => Some(Box::new(Er)),
        Allocation::Erk => Some(Box::new(Erk)),
        Allocation::Lamp => Some(Box::new(Lamp)),
        Allocation::Owl | Allocation::Sensitivity | Allocation::Dynamic | Allocation::Evolve => None,
    }
}

/// What pruners borrow.
struct Pruners {
    saliency: Option<Box<dyn Saliency>>,
}

impl Pruners {
    fn new(args: &Args) -> Result<Self> {
        let saliency: Option<Box<dyn Saliency>> = match args.method {
            Method::Magnitude => Some(Box::new(Magnitude { norm: Norm::L1 })),
            Method::MagnitudeL2 => Some(Box::new(Magnitude { norm: Norm::L2 })),
            Method::Random => Some(Box::new(Random { seed: Seed(args.seed) })),
            Method::Wanda => Some(Box::new(Wanda)),
            Method::Ria => Some(Box::new(Ria::default())),
            Method::Taylor => Some(Box::new(Taylor)),
            Method::Fisher => Some(Box::new(Fisher)),
            Method::Woodfisher => Some(Box::new(woodfisher(&args.language))),
            Method::Sparsegpt | Method::Obc | Method::Alps | Method::Dsnot => None,
        };
        if args.method != Method::Sparsegpt && (args.language.actorder || args.language.bits.is_some()) {
            let option = if args.language.actorder { "actorder" } else { "bits" };
            return Err(Error::setting(option, "is for --method sparsegpt"));
        }
        Ok(Pruners { saliency })
    }

    fn pruner(&self, args: &Args, wanted: &Language) -> Result<Box<dyn Pruner + '_>> {
        let damping = wanted.damping;
        if args.method == Method::Woodfisher {
            return Ok(Box::new(woodfisher(wanted)));
        }
        if let Some(saliency) = &self.saliency {
            return Ok(Box::new(Scored(saliency.as_ref())));
        }
        Ok(match args.method {
            Method::Obc => Box::new(ExactObs { damping }),
            Method::Alps => Box::new(Alps { damping, ..Alps::default() }),
            Method::Dsnot => Box::new(DsNoT::new(&Scored(&Wanda))),
            _ => Box::new(SparseGpt {
                damping,
                block: wanted.block_size,
                order: if wanted.actorder { Order::Activation } else { Order::Natural },
                grid: wanted.bits.map(Affine::new),
            }),
        })
    }
}

impl Pruners {
    /// Gradients of the calibration, if the pruner needs them; they lie beside the folder that is written.
    fn gradients(
        &self,
        args: &Args,
        (folder, config): (&Folder, &Config),
        (ids, length): (&[u32], usize),
        layers: &[LanguageLayer],
        needs: Needs,
    ) -> Result<Option<SequenceGradients>> {
        if !SequenceGradients::wanted(needs) {
            return Ok(None);
        }
        if length < 2 {
            return Err(Error::setting("context", format!("{length} token has none that follows it, so there is no gradient")));
        }
        let above = args.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let bar = super::model::bar(ids.len() / length, "gradients");
        let found = SequenceGradients::measure(folder, config, (ids, length), (layers, needs), above, |done, _| {
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        found.map(Some)
    }
}

fn woodfisher(wanted: &Language) -> WoodFisher {
    WoodFisher { damping: wanted.fisher_damping, block: wanted.block_size }
}

/// The tokens of calibration: exactly as many as asked for.
fn calibration(args: &Args, config: &Config) -> Result<Vec<u32>> {
    let wanted = &args.language;
    let needless = matches!(args.method, Method::Magnitude | Method::MagnitudeL2 | Method::Random);
    let Some(file) = &wanted.calibration else {
        if needless && !args.allocate.measures() && wanted.reconstruct.is_none() && wanted.correct.is_none() {
            return Ok(vec![0]);
        }
        return Err(Error::setting("calibration", "this method measures inputs: give --calibration FILE, text or token numbers"));
    };
    let Some(most) = wanted.samples.checked_mul(wanted.context).filter(|n| *n > 0) else {
        return Err(Error::setting("samples", format!("{} sequences of {} tokens", wanted.samples, wanted.context)));
    };
    if let Some(positions) = config.stated_context().filter(|p| wanted.context > *p) {
        return Err(Error::setting("context", format!("{} tokens; this model has {positions} positions", wanted.context)));
    }
    let ids = read_tokens(file, &args.model)?;
    if ids.len() < most {
        let reason = format!(
            "{} has {} tokens, fewer than the {} x {} asked for; lower --samples or --context",
            file.display(),
            ids.len(),
            wanted.samples,
            wanted.context
        );
        return Err(Error::setting("calibration", reason));
    }
    Ok(ids[..most].to_vec())
}

fn read_tokens(file: &Path, model: &Path) -> Result<Vec<u32>> {
    if file.extension().is_some_and(|e| e == "safetensors") {
        let found = read_ids(file, "input_ids")?.ok_or_else(|| Error::malformed(file, "has no tensor 'input_ids'"))?;
        let number = |id: &i64| u32::try_from(*id).map_err(|_| Error::malformed(file, format!("{id} is no token number")));
        return found.iter().map(number).collect();
    }
    let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, e))?;
    Tokenizer::open(model)?.encode(&text, false)
}

fn correction(wanted: &Language) -> Result<Option<Correction>> {
    let Some(text) = &wanted.correct else { return Ok(None) };
    let refuse = || Error::setting("correct", format!("'{text}' is not one or two shares in [0, 1], as 1 or 1,0.5"));
    let shares: Vec<f64> = text.split(',').map(|s| s.trim().parse().map_err(|_| refuse())).collect::<Result<_>>()?;
    if shares.is_empty() || shares.len() > 2 || !shares.iter().all(|s| (0.0..=1.0).contains(s)) {
        return Err(refuse());
    }
    Ok(Some(Correction { inputs: shares[0], stream: shares.get(1).copied().unwrap_or(0.0), damping: wanted.damping }))
}

/// What the run was asked for, as it is kept beside its results.
fn described(args: &Args, pruner: &dyn Pruner, settings: &LanguagePruning<'_>, ids: &[u32], found: &Value) -> Result<Value> {
    let wanted = &args.language;
    let budgets: std::collections::BTreeMap<&String, &Budget> = settings.budgets.iter().collect();
    let hash = ids.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &id| (h ^ u64::from(id)).wrapping_mul(0x100_0000_01b3));
    Ok(json!({
        "lacuna": env!("CARGO_PKG_VERSION"), "model": args.model, "method": pruner.name(), "pattern": settings.pattern,
        "scope": settings.scope, "inputs": settings.inputs, "turn": settings.turn, "correction": settings.correction,
        "damping": wanted.damping, "block_size": wanted.block_size, "fisher_damping": wanted.fisher_damping, "actorder": wanted.actorder, "bits": wanted.bits,
        "reconstruct": wanted.reconstruct, "samples": wanted.samples, "context": wanted.context, "seed": args.seed,
        "search": wanted.search.described(args.allocate), "found": found, "tokens": ids.len(), "tokens_hash": format!("{hash:016x}"),
        "budgets": serde_json::to_value(budgets).map_err(|e| Error::setting("budgets", e.to_string()))?,
    }))
}

/// A bar on a terminal, nothing elsewhere.
fn bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let style = ProgressStyle::with_template("blocks {wide_bar} {pos}/{len} {elapsed} (left: {eta}) {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
