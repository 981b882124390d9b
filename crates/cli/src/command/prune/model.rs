//! `lacuna prune DIR OUT`: language models, block by block.

use super::args::{Allocation, Args, InputsArg, Language, Method, ScopeArg, TurnArg};
use super::methods::{Pruners, allocation};
use super::options::{self, Standing};
use super::report::{Outcome, page, report, text};
use crate::command::model::say_remarks;
use crate::command::place;
use crate::command::texts::say_overflow;
use crate::command::{print, print_json};
use indicatif::{ProgressBar, ProgressStyle};
use lacuna::allocate::Owl;
use lacuna::criteria::{Need, Needs, Saliency};
use lacuna::data::{Sequences, Tokens, Windows};
use lacuna::eval::{Perplexity, streamed_losses};
use lacuna::io::{Folder, FolderWriter, Output, Packing};
use lacuna::lm::Config;
use lacuna::mask::{Budget, Pattern, Scope};
use lacuna::prune::{
    CalibrationInputs, Correction, LanguageLayer, LanguagePruning, LanguageRun, LevelSettings, PrunedFolder, Sequential,
    allocated_with, check_measurable, language_layers, of_blocks, outliers, prune_language,
};
use lacuna::solve::{Pruner, Reconstruct, Reconstructed, Solver};
use lacuna::sparse::Format;
use lacuna::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let wanted = &args.language;
    let pattern: Pattern = args.pattern.as_deref().unwrap_or("unstructured").parse()?;
    let sparsity = sparsity(args.sparsity, pattern)?;
    if !args.layer.is_empty() {
        return Err(Error::setting("layer", "sparsities of single layers are for files; use --only in several runs"));
    }
    options::check(args)?;
    wanted.search.refuse(args.allocate)?;
    let packing: Packing = wanted.save.parse()?;
    fits(packing, pattern)?;
    if matches!(pattern, Pattern::Nm { .. }) && args.allocate.measures() {
        let reason = format!("pattern {pattern} fixes the sparsity of every layer; nothing is left to move");
        return Err(Error::setting("allocate", reason));
    }
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
    let out = match wanted.resume && !args.force.force {
        true => place::apart(&args.out, &inputs).map(|()| Output::from(&args.out))?,
        false => place::folder(&args.out, &inputs, args.force.force)?,
    };
    let config =
        Config::parse(&Value::Object(folder.config().clone())).map_err(|e| Error::malformed(&args.model, e.to_string()))?;
    say_remarks(&folder, &config)?;
    if options::measures(args) {
        check_measurable(&config).map_err(|e| Error::malformed(&args.model, e.to_string()))?;
    }
    if wanted.text.is_some() && config.is_encoder_decoder() {
        return Err(Error::setting("text", "an encoder-decoder has no perplexity of a text alone"));
    }
    let layers = language_layers(&folder, &config, &wanted.only, &args.skip)?;
    readable(&folder, &layers)?;
    let memory = options::memory(args, &folder)?;
    let (calibration, bos) = calibration(args, (&folder, &config))?;

    let parts = Pruners::new(args)?;
    let first = parts.pruner(args, wanted)?;
    let solver = Solver::Gradients { steps: wanted.reconstruct.unwrap_or(0), tolerance: 1e-6 };
    let second = Reconstructed::new(first.as_ref(), Reconstruct { damping: wanted.damping, solver });
    let pruner: &dyn Pruner = if wanted.reconstruct.is_some() { &second } else { first.as_ref() };
    let nothing = Sequences::nothing();
    // Where nothing is measured nothing needs to run.
    let run = of_inputs(pruner.needs()) || args.allocate.measures() || wanted.correct.is_some();
    let measured = if run { &calibration } else { &nothing };
    let row = match args.scope {
        Some(scope) => scope == ScopeArg::Row,
        None => matches!(args.method, Method::Wanda | Method::Ria | Method::Dsnot) && pattern == Pattern::Unstructured,
    };
    let (dense, block) = (wanted.inputs == InputsArg::Dense, wanted.turn == TurnArg::Block);
    let mut settings = LanguagePruning {
        pruner,
        pattern,
        scope: if row { Scope::Row } else { Scope::Layer },
        budgets: HashMap::new(),
        inputs: if dense { CalibrationInputs::Dense } else { CalibrationInputs::Pruned },
        sequential: if block || dense { Sequential::Block } else { Sequential::Layer },
        correction: correction(wanted)?,
        gradients: None,
        memory,
    };
    let asked = options::asked(args, &settings, &folder, (calibration.ids(), &bos))?;
    let before = match Standing::of(args, &asked)? {
        Standing::Finished(report) => return finished(args, report, &asked),
        Standing::Unfinished(before) => Some(before),
        Standing::Anew => {
            if wanted.resume {
                eprintln!("note: there is no unfinished run towards {}; it begins anew", args.out.display());
            }
            None
        }
    };
    let quality = wanted.text.as_deref().map(|text| Quality::new(text, wanted, &folder, &config)).transpose()?;
    let begun = begun + quality.as_ref().map_or(Duration::ZERO, |q| q.spent);
    let squares = pruner.needs().contains(Need::Gram) || settings.correction.is_some() || args.allocate.searches();
    let few = if squares { options::few_tokens(&layers, measured.tokens()) } else { Value::Null };
    let gradients = parts.gradients((&folder, &config), &calibration, (&layers, first.needs()), &settings.memory)?;
    settings.gradients = gradients.as_ref();
    let model = (&folder, &config, measured, &layers[..]);
    let found;
    (settings.budgets, found) = match &before {
        // A run that is taken up again has the budgets that it had.
        Some(before) if before["options"].is_object() || args.allocate.searches() => kept_budgets(args, before)?,
        _ => budgets(args, model, &settings, (sparsity, parts.saliency.as_deref()))?,
    };
    let described = options::described(asked, &settings, &found)?;
    if let Some(before) = &before {
        options::check_budgets(args, before, &described["budgets"])?;
    }
    let bar = bar(config.layers());
    let mut warned = false;
    let run = LanguageRun {
        folder: &folder,
        config: &config,
        calibration: measured,
        pruning: &settings,
        out: &out,
        described: &described,
        resume: before.is_some(),
    };
    let done = prune_language(run, &mut |p| {
        // What cannot be done at all is one line, and that its error.
        if !std::mem::replace(&mut warned, true) {
            options::warn(&few);
            options::note_idle(args, &described);
        }
        bar.set_length(p.of as u64);
        bar.set_position(p.blocks as u64);
        bar.set_message(p.memory.map_or(String::new(), |m| format!("{:.2} GB", m as f64 / 1e9)));
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let PrunedFolder { writer, records } = done?;
    let seconds = begun.elapsed().as_secs_f64();
    let end = || -> Result<Value> {
        let whole = writer.complete()?;
        let perplexity = quality.map(|q| q.before_and_after(&whole, &config)).transpose()?;
        let report = report(args, &described, &records, &folder, Outcome { seconds, perplexity, found, few })?;
        let page = page(args, &report, &records)?;
        let close = |writer: FolderWriter| {
            writer.json("prune.json", &report)?;
            writer.file("prune.html", page.as_bytes())?;
            writer.finish()
        };
        match packing {
            Packing::Whole => close(writer)?,
            _ => {
                close(writer.repack(&whole, packing, |_, _| {})?)?;
                // Only now is the whole one no longer needed.
                writer.discard();
            }
        }
        Ok(report)
    };
    let part = FolderWriter::working_folder(&args.out);
    let report = end().map_err(|e| if part.is_dir() { e.unfinished(part) } else { e })?;
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

/// A run that was done before: nothing is written anew.
fn finished(args: &Args, mut report: Value, asked: &Value) -> Result<()> {
    if options::is_of_another_run(args, asked) {
        eprintln!("note: {} is of another run, and stays", FolderWriter::working_folder(&args.out).display());
    } else {
        FolderWriter::tidy(&args.out)?;
    }
    report["already_finished"] = true.into();
    let line = format!("{} is finished, as it was asked for: nothing was done\n", args.out.display());
    if args.json { print_json(&report) } else { print(&line) }
}

/// The budgets of an unfinished run, and what a search found.
fn kept_budgets(args: &Args, before: &Value) -> Result<(HashMap<String, Budget>, Value)> {
    let part = FolderWriter::working_folder(&args.out);
    let budgets = serde_json::from_value(before["budgets"].clone());
    let budgets = budgets.map_err(|e| Error::malformed(part, format!("budgets of the unfinished run: {e}")))?;
    Ok((budgets, before["found"].clone()))
}

/// A model, what it is measured on, and its layers that are pruned.
type Model<'a> = (&'a Folder, &'a Config, &'a Sequences, &'a [LanguageLayer]);

/// How much of each layer stays, and what a search found.
fn budgets(
    args: &Args,
    (folder, config, calibration, layers): Model<'_>,
    settings: &LanguagePruning<'_>,
    (sparsity, saliency): (f64, Option<&dyn Saliency>),
) -> Result<(HashMap<String, Budget>, Value)> {
    let (wanted, LanguagePruning { pattern, memory, .. }) = (&args.language, settings);
    if let Some(allocation) = allocation(args.allocate) {
        let ranking = saliency.zip(settings.gradients);
        let (bar, mut again) = (crate::command::model::bar(layers.len(), "ranking"), false);
        let by = (allocation.as_ref(), ranking);
        let budgets = allocated_with(folder, config, layers, *pattern, sparsity, by, &mut |reading| {
            if reading.pass == 2 && !std::mem::replace(&mut again, true) {
                bar.suspend(|| {
                    eprintln!("note: a sample of the weights misled about where the budget falls; all are read once more")
                });
            }
            bar.set_position(reading.layers as u64);
        });
        bar.finish_and_clear();
        return Ok((budgets?, Value::Null));
    }
    if args.allocate == Allocation::Owl {
        let found =
            outliers(folder, config, calibration, layers, wanted.owl_threshold, memory, |_, _| ControlFlow::Continue(()))?;
        let (shares, sizes): (Vec<f64>, Vec<usize>) = found.into_iter().map(|b| (b.percent, b.weights)).unzip();
        let total = Budget::from_sparsity(sizes.iter().sum(), sparsity)?;
        let parts = Owl { lambda: wanted.owl_lambda }.shares(&shares, &sizes, total)?;
        return Ok((of_blocks(layers, &parts, *pattern)?, Value::Null));
    }
    let levels = LevelSettings::new(settings.pruner, *pattern, settings.scope, settings.gradients, memory.clone());
    wanted.search.run(args, (folder, config), calibration, layers, (levels, sparsity))
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

/// A text on which perplexity is measured, as `eval` measures it, and that of the model before.
struct Quality<'a> {
    text: &'a Path,
    context: usize,
    cut: Windows,
    before: Perplexity,
    /// What measuring took.
    spent: Duration,
}

impl<'a> Quality<'a> {
    /// Measures the model before: what is wrong with the text or the model shows before anything is pruned.
    fn new(text: &'a Path, wanted: &Language, folder: &Folder, config: &Config) -> Result<Quality<'a>> {
        let begun = Instant::now();
        let cut = Windows::read(text, folder, config, wanted.context, wanted.windows, wanted.bos)?;
        let before = Quality::measure(folder, config, &cut, "the perplexity before")?;
        Ok(Quality { text, context: wanted.context, cut, before, spent: begun.elapsed() })
    }

    /// One block in memory at a time.
    fn measure(folder: &Folder, config: &Config, cut: &Windows, what: &str) -> Result<Perplexity> {
        let losses = streamed_losses(folder, config, &cut.windows, 512 << 20, |_, _| ControlFlow::Continue(()))?;
        let measured = Perplexity::of(&losses).map_err(|e| Error::malformed(folder.path(), e.to_string()))?;
        say_overflow(what, measured.perplexity, measured.nll);
        Ok(measured)
    }

    /// Of both models, with all that it takes to compare the numbers with others.
    fn before_and_after(&self, after: &Folder, config: &Config) -> Result<Value> {
        let (before, after) = (self.before, Quality::measure(after, config, &self.cut, "the perplexity after")?);
        Ok(json!({
            "text": self.text, "context": self.context, "windows": before.windows, "predicted": before.predicted,
            "text_tokens": self.cut.tokens, "bos": self.cut.bos, "before": before.perplexity, "after": after.perplexity,
            "nll_before": before.nll, "nll_after": after.nll,
        }))
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

/// The tokens of calibration, exactly as many as asked for, and where the token that begins a text stands among them.
fn calibration(args: &Args, (folder, config): (&Folder, &Config)) -> Result<(Sequences, String)> {
    let wanted = &args.language;
    let Some(file) = &wanted.calibration else {
        if !options::measures(args) {
            return Ok((Sequences::nothing(), String::new()));
        }
        return Err(Error::setting("calibration", "this method measures inputs: give --calibration FILE, text or token numbers"));
    };
    if wanted.samples.checked_mul(wanted.context).is_none_or(|n| n == 0) {
        return Err(Error::setting("samples", format!("{} sequences of {} tokens", wanted.samples, wanted.context)));
    }
    let gradients = matches!(args.method, Method::Taylor | Method::Fisher | Method::Woodfisher);
    if gradients && wanted.context < 2 {
        let reason = format!("{} token has none that follows it, so there is no gradient", wanted.context);
        return Err(Error::setting("context", reason));
    }
    if let Some(positions) = config.stated_context().filter(|p| wanted.context > *p) {
        return Err(Error::setting("context", format!("{} tokens; this model has {positions} positions", wanted.context)));
    }
    let tokens = Tokens::read(file, folder, config, wanted.bos)?;
    let short = || {
        let reason = format!(
            "{} has {} tokens, fewer than the {} x {} asked for; lower --samples or --context",
            file.display(),
            tokens.ids.len(),
            wanted.samples,
            wanted.context
        );
        Error::setting("calibration", reason)
    };
    let ids = tokens.sequences(wanted.context, wanted.samples).ok_or_else(short)?;
    Ok((ids, tokens.bos))
}

fn correction(wanted: &Language) -> Result<Option<Correction>> {
    let Some(text) = &wanted.correct else { return Ok(None) };
    let refuse = || Error::setting("correct", format!("'{text}' is not one or two shares in [0, 1], as 1 or 1,0.5"));
    let shares: Vec<f64> = text.split(',').map(|s| s.trim().parse().map_err(|_| refuse())).collect::<Result<_>>()?;
    if shares.is_empty() || shares.len() > 2 || !shares.iter().all(|s| (0.0..=1.0).contains(s)) {
        return Err(refuse());
    }
    if wanted.turn == TurnArg::Block || wanted.inputs == InputsArg::Dense {
        return Err(Error::setting("correct", "layers make up for earlier ones only where they are pruned in turn"));
    }
    Ok(Some(Correction { inputs: shares[0], hidden_states: shares.get(1).copied().unwrap_or(0.0), damping: wanted.damping }))
}

/// A bar on a terminal, nothing elsewhere.
fn bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let style = ProgressStyle::with_template("blocks {wide_bar} {pos}/{len} {elapsed} (left: {eta}) {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
