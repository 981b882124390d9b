//! What `lacuna prune DIR OUT` was asked for: numbers that are checked before anything runs, and the options by which a run is known again.

use super::args::{Allocation, Args, Method};
use clap::ValueEnum;
use lacuna::eval::available_memory;
use lacuna::io::{Folder, FolderWriter};
use lacuna::mask::{Budget, Pattern, Scope};
use lacuna::prune::{ActivationMemory, Correction, LanguageLayer, LanguagePruning, Sequential};
use lacuna::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Megabytes of activations where the system does not say how much memory is free.
const MEGABYTES: usize = 512;
/// Steps of conjugate gradients that are still a number and no slip.
const STEPS: usize = 1_000_000;

/// Refuses numbers outside their domain, whether the method reads them or not.
pub fn check(args: &Args) -> Result<()> {
    let wanted = &args.language;
    let at_least_0 = |option: &str, value: f64, usual: &str| match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(Error::setting(option, format!("{value} is not a finite number of at least 0; {usual} is usual"))),
    };
    at_least_0("damping", wanted.damping, "0.01")?;
    at_least_0("owl-threshold", wanted.owl_threshold, "5")?;
    if !(wanted.fisher_damping.is_finite() && wanted.fisher_damping > 0.0) {
        let reason = format!("{} is not a finite number above 0; 1e-5 is usual", wanted.fisher_damping);
        return Err(Error::setting("fisher-damping", reason));
    }
    if !(0.0..=0.5).contains(&wanted.owl_lambda) {
        return Err(Error::setting("owl-lambda", format!("{} is not in [0, 0.5]; 0.08 is usual", wanted.owl_lambda)));
    }
    if wanted.block_size == 0 {
        return Err(Error::setting("block-size", "0 columns have no mask to choose; 128 is usual"));
    }
    if let Some(bits) = wanted.bits.filter(|bits| !(1..=16).contains(bits)) {
        return Err(Error::setting("bits", format!("{bits} is not 1 to 16")));
    }
    if let Some(steps) = wanted.reconstruct.filter(|steps| *steps > STEPS) {
        return Err(Error::setting("reconstruct", format!("{steps} steps; at most {STEPS} are run")));
    }
    wanted.search.check(args)?;
    megabytes(args).map(|_| ())
}

/// The bytes that `--activations` asks for.
fn megabytes(args: &Args) -> Result<Option<usize>> {
    let bytes = |megabytes: usize| {
        megabytes.checked_mul(1 << 20).ok_or_else(|| {
            Error::setting("activations", format!("{megabytes} megabytes; at most {} can be counted", usize::MAX >> 20))
        })
    };
    args.language.activations.map(bytes).transpose()
}

/// Bytes of activations and sums of gradients that stay in memory: as asked for, or half of what is free beside the model, where that is
/// loaded whole.
pub fn memory(args: &Args, folder: &Folder) -> Result<ActivationMemory> {
    let asked = megabytes(args)?;
    let whole = matches!(args.method, Method::Taylor | Method::Fisher | Method::Woodfisher)
        || matches!(args.allocate, Allocation::Evolve | Allocation::Sensitivity);
    let bytes = || folder.names().filter_map(|name| folder.info(name).ok()).map(|t| 4 * t.elements()).sum();
    let model = if whole { bytes() } else { 0 };
    let half = |free: u64| usize::try_from(free).unwrap_or(usize::MAX).saturating_sub(model) / 2;
    let bytes = asked.unwrap_or_else(|| available_memory().map_or(MEGABYTES << 20, half));
    Ok(ActivationMemory::new(bytes, scratch(args)?))
}

/// The folder for what has no room in memory: as asked for, or that of the output. A file without a name is made there at once.
fn scratch(args: &Args) -> Result<PathBuf> {
    let above = || args.out.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let Some(asked) = &args.language.scratch else { return Ok(above()) };
    if !asked.is_dir() {
        return Err(Error::setting("scratch", format!("{} is no folder", asked.display())));
    }
    tempfile::tempfile_in(asked).map_err(|e| Error::io(asked, e))?;
    Ok(asked.clone())
}

/// Whether inputs of layers, gradients or predictions must be measured.
pub fn measures(args: &Args) -> bool {
    let of_weights = matches!(args.method, Method::Magnitude | Method::MagnitudeL2 | Method::Random);
    !of_weights || args.allocate.measures() || args.language.reconstruct.is_some() || args.language.correct.is_some()
}

/// The options that matter for what is asked, by their names as they are typed, with the values that hold.
pub fn options(args: &Args, pattern: Pattern, (scope, turn): (Scope, Sequential), correction: Option<Correction>) -> Value {
    let wanted = &args.language;
    let name = |value: &dyn Fn() -> Option<String>| value().map_or(Value::Null, Value::from);
    let of_inputs = args.allocate.measures() || wanted.reconstruct.is_some() || correction.is_some();
    let of_inputs = of_inputs
        || matches!(args.method, Method::Wanda | Method::Ria | Method::Sparsegpt | Method::Obc | Method::Alps | Method::Dsnot);
    let squares = matches!(args.method, Method::Sparsegpt | Method::Obc | Method::Alps) || wanted.reconstruct.is_some();
    let (sparsegpt, woodfisher) = (args.method == Method::Sparsegpt, args.method == Method::Woodfisher);
    let owl = args.allocate == Allocation::Owl;
    let seeded = args.method == Method::Random || args.allocate == Allocation::Evolve;
    let all = [
        ("--method", true, name(&|| args.method.to_possible_value().map(|v| v.get_name().to_string()))),
        ("--sparsity", args.sparsity.is_some(), json!(args.sparsity)),
        ("--pattern", true, json!(pattern)),
        ("--allocate", true, name(&|| args.allocate.to_possible_value().map(|v| v.get_name().to_string()))),
        ("--scope", true, json!(scope)),
        ("--only", !wanted.only.is_empty(), json!(wanted.only)),
        ("--skip", !args.skip.is_empty(), json!(args.skip)),
        ("--seed", seeded, json!(args.seed)),
        ("--samples", measures(args), json!(wanted.samples)),
        ("--context", measures(args), json!(wanted.context)),
        ("--inputs", of_inputs, name(&|| wanted.inputs.to_possible_value().map(|v| v.get_name().to_string()))),
        ("--turn", of_inputs, json!(turn)),
        ("--damping", squares || correction.is_some(), json!(wanted.damping)),
        ("--fisher-damping", woodfisher, json!(wanted.fisher_damping)),
        ("--block-size", sparsegpt || woodfisher, json!(wanted.block_size)),
        ("--actorder", wanted.actorder, json!(wanted.actorder)),
        ("--bits", wanted.bits.is_some(), json!(wanted.bits)),
        ("--reconstruct", wanted.reconstruct.is_some(), json!(wanted.reconstruct)),
        ("--correct", correction.is_some(), correction.map_or(Value::Null, |c| json!([c.inputs, c.hidden_states]))),
        ("--owl-lambda", owl, json!(wanted.owl_lambda)),
        ("--owl-threshold", owl, json!(wanted.owl_threshold)),
    ];
    let mut found: Map<String, Value> =
        all.into_iter().filter(|(_, matters, _)| *matters).map(|(name, _, value)| (name.to_string(), value)).collect();
    found.extend(wanted.search.options(args.allocate));
    Value::Object(found)
}

/// What the run is asked for, without the budgets that follow from it.
///
/// # Errors
/// If the model's files cannot be read.
pub fn asked(args: &Args, settings: &LanguagePruning<'_>, folder: &Folder, (ids, bos): (&[u32], &str)) -> Result<Value> {
    let wanted = &args.language;
    let hash = ids.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &id| (h ^ u64::from(id)).wrapping_mul(0x100_0000_01b3));
    Ok(json!({
        "lacuna": env!("CARGO_PKG_VERSION"), "model": args.model, "model_hash": folder.fingerprint()?, "method": settings.pruner.name(), "pattern": settings.pattern,
        "scope": settings.scope, "inputs": settings.inputs, "turn": settings.sequential, "correction": settings.correction,
        "damping": wanted.damping, "block_size": wanted.block_size, "fisher_damping": wanted.fisher_damping, "actorder": wanted.actorder, "bits": wanted.bits,
        "reconstruct": wanted.reconstruct, "samples": wanted.samples, "context": wanted.context, "seed": args.seed,
        "search": wanted.search.described(args.allocate), "tokens": ids.len(), "tokens_hash": format!("{hash:016x}"),
        "first_token": bos,
        "options": options(args, settings.pattern, (settings.scope, settings.sequential), settings.correction),
    }))
}

/// Says which options were given that change nothing of what is asked.
pub fn note_idle(args: &Args, asked: &Value) {
    // Whoever compares methods gives them all the same calibration.
    let always = ["activations", "scratch", "save", "text", "resume", "json", "force", "calibration", "samples", "context"];
    let mut matter = always.to_vec();
    if args.language.text.is_some() {
        matter.extend(["windows", "bos"]);
    }
    if measures(args) {
        matter.push("bos");
    }
    let is_idle = |option: &&String| !matter.contains(&option.as_str()) && asked["options"].get(format!("--{option}")).is_none();
    let mut idle: Vec<String> = args.given.iter().filter(is_idle).map(|option| format!("--{option}")).collect();
    idle.sort();
    if !idle.is_empty() {
        let verb = if idle.len() == 1 { "changes" } else { "change" };
        eprintln!("note: {} {verb} nothing of what is asked for here", idle.join(", "));
    }
}

/// Whether an unfinished run towards the output was asked for something else.
pub fn is_of_another_run(args: &Args, asked: &Value) -> bool {
    match FolderWriter::is_unfinished(&args.out) {
        Ok(true) => lacuna::prune::unfinished_settings(&args.out).is_ok_and(|before| difference(&before, asked).is_some()),
        _ => false,
    }
}

/// What the run is asked for, as it is kept beside its results.
pub fn described(mut asked: Value, settings: &LanguagePruning<'_>, found: &Value) -> Result<Value> {
    let budgets: std::collections::BTreeMap<&String, &Budget> = settings.budgets.iter().collect();
    asked["budgets"] = serde_json::to_value(budgets).map_err(|e| Error::setting("budgets", e.to_string()))?;
    asked["found"] = found.clone();
    Ok(asked)
}

/// What else a finished run must have been asked for to be the same.
pub fn outcome_options(args: &Args) -> Value {
    let wanted = &args.language;
    let Some(text) = &wanted.text else { return json!({"--save": wanted.save, "--text": null}) };
    json!({"--save": wanted.save, "--text": text, "--windows": wanted.windows, "--bos": wanted.bos})
}

/// The first of these in which a finished run was asked for something else.
fn outcome_difference(before: &Value, args: &Args) -> Option<Difference> {
    let (mut before, now) = (before.clone(), outcome_options(args));
    if let (Some(before), true) = (before.as_object_mut(), now["--text"].is_null()) {
        // Builds that wrote them did so without a text too.
        before.retain(|key, _| !["--windows", "--bos"].contains(&key.as_str()));
    }
    first(&before, &now)
}

/// Where a run stands that `--resume` is to go on with.
pub enum Standing {
    /// There is nothing of it.
    Anew,
    /// A part is done; what it was asked for.
    Unfinished(Value),
    /// All is done; its record.
    Finished(Value),
}

impl Standing {
    /// Looks for what is there, before anything is done. `asked` is what the run is asked for, without budgets.
    ///
    /// # Errors
    /// If an output is in the way, or the run that is there was asked for something else.
    pub fn of(args: &Args, asked: &Value) -> Result<Standing> {
        let force = args.force.force;
        if !args.language.resume {
            FolderWriter::check_working(&args.out)?;
            return Ok(Standing::Anew);
        }
        let record = args.out.join("prune.json");
        // With --force an older folder stands at the place of the one that is not finished yet.
        if record.is_file() && !(force && FolderWriter::is_unfinished(&args.out)?) {
            let text = std::fs::read(&record).map_err(|e| Error::io(&record, e))?;
            let report: Value = serde_json::from_slice(&text).map_err(|e| Error::malformed(&record, e.to_string()))?;
            let before = &report["settings"];
            let differs = difference(before, asked).or_else(|| outcome_difference(&report["asked"], args));
            if force && differs.is_some() {
                return Ok(Standing::Anew);
            }
            if !before["options"].is_object() {
                let reason = "is finished, by a build whose record does not say all that it was asked for; name a new folder";
                return Err(Error::malformed(&args.out, reason));
            }
            return match differs {
                Some(d) => Err(Error::setting(
                    d.option,
                    format!("the finished run {} has {}, this one {}; name a new folder", args.out.display(), d.before, d.now),
                )),
                None => Ok(Standing::Finished(report)),
            };
        }
        if !force {
            FolderWriter::check_free(&args.out)?;
        }
        if !FolderWriter::is_unfinished(&args.out)? {
            return Ok(Standing::Anew);
        }
        let before = lacuna::prune::unfinished_settings(&args.out)?;
        match difference(&before, asked) {
            Some(d) => Err(d.refuse(args)),
            None => Ok(Standing::Unfinished(before)),
        }
    }
}

/// An option in which two runs differ.
pub struct Difference {
    option: String,
    before: String,
    now: String,
}

impl Difference {
    fn refuse(self, args: &Args) -> Error {
        let part = FolderWriter::working_folder(&args.out);
        let Difference { option, before, now } = self;
        Error::setting(
            option,
            format!("the unfinished run has {before}, this one {now}; ask for the same, or remove {}", part.display()),
        )
    }
}

/// Refuses budgets other than those of an unfinished run that an older build has begun, which did not say its options.
pub fn check_budgets(args: &Args, before: &Value, now: &Value) -> Result<()> {
    if before["options"].is_object() || before["budgets"] == *now {
        return Ok(());
    }
    let sums = |budgets: &Value| {
        let all: Vec<&Value> = budgets.as_object().into_iter().flat_map(|b| b.values()).collect();
        let sum = |key: &str| all.iter().filter_map(|b| b[key].as_u64()).sum::<u64>();
        format!("{} of {} kept in {} layers", sum("keep"), sum("of"), all.len())
    };
    let option = "--sparsity, --allocate, --only or --skip".to_string();
    Err(Difference { option, before: sums(&before["budgets"]), now: sums(now) }.refuse(args))
}

/// The first thing in which a run was asked for something else than an earlier one; what the earlier one does not say is not compared.
fn difference(before: &Value, now: &Value) -> Option<Difference> {
    let says_all = before["options"].is_object();
    if says_all && let Some(found) = first(&before["options"], &now["options"]) {
        return Some(found);
    }
    let later = ["options", "budgets", "found", "first_token"];
    // Where the options that matter are said, the others need not be the same; what was measured on must be, if anything was.
    let beside = ["lacuna", "model", "model_hash", "tokens", "tokens_hash"];
    let measured = !says_all || now["options"].get("--samples").is_some();
    let matters = |key: &str| match key {
        // A model is known by what is in it, where that was noted.
        "model" => before["model_hash"].is_null(),
        "tokens" | "tokens_hash" => measured,
        _ => !later.contains(&key) && (!says_all || beside.contains(&key)),
    };
    let same = |(key, value): &(&String, &Value)| !matters(key) || before.get(*key).is_none_or(|old| old == *value);
    let (key, value) = now.as_object()?.iter().find(|pair| !same(pair))?;
    let option = match key.as_str() {
        "lacuna" => "version of lacuna",
        "model" | "model_hash" => "MODEL",
        "correction" => "--correct",
        "search" => "--allocate, --levels, --cost, --search-tokens, --generations or --offspring",
        "tokens" => "--samples or --context",
        "tokens_hash" => "--calibration",
        _ => &format!("--{}", key.replace('_', "-")),
    };
    let (old, new) = match key.as_str() {
        "tokens_hash" => ("other tokens".to_string(), "its own".to_string()),
        "model_hash" if before["model"] != now["model"] => (short(&before["model"]), short(&now["model"])),
        "model_hash" => ("other weights or another config.json".to_string(), "its own".to_string()),
        _ => (short(&before[key]), short(value)),
    };
    Some(Difference { option: option.to_string(), before: old, now: new })
}

/// The first option in which two sets differ, those that decide about others before them.
fn first(before: &Value, now: &Value) -> Option<Difference> {
    let keys = |v: &Value| -> Vec<String> { v.as_object().into_iter().flat_map(|v| v.keys().cloned()).collect() };
    let leading = ["--method", "--pattern", "--allocate", "--sparsity", "--text"].map(String::from).into_iter();
    let option = leading.chain(keys(now)).chain(keys(before)).find(|key| before[key] != now[key])?;
    let (old, new) = (short(&before[&option]), short(&now[&option]));
    Some(Difference { option, before: old, now: new })
}

/// A value as it was typed, at most 60 characters of it.
fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_string(),
        Value::String(s) => s.clone(),
        Value::Array(list) => list.iter().map(short).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    match text.char_indices().nth(60) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Says where a Gram matrix is made of fewer tokens than it has columns: it is singular, and what is solved by it fits the calibration alone.
pub fn few_tokens(layers: &[LanguageLayer], tokens: usize) -> Value {
    let few: Vec<&LanguageLayer> = layers.iter().filter(|l| l.shape.1 > tokens).collect();
    let Some(widest) = few.iter().max_by_key(|l| l.shape.1) else { return Value::Null };
    json!({"tokens": tokens, "layers": few.len(), "of": layers.len(), "widest": widest.name, "inputs": widest.shape.1})
}

/// One line of what [`few_tokens`] found.
pub fn warn(few: &Value) {
    if let (Some(tokens), Some(inputs)) = (few["tokens"].as_u64(), few["inputs"].as_u64()) {
        let (layers, of, widest) = (&few["layers"], &few["of"], few["widest"].as_str().unwrap_or_default());
        eprintln!(
            "warning: {tokens} tokens of calibration are fewer than the inputs of {layers} of {of} layers (up to {inputs}: {widest}); \
             what is solved for fits these tokens alone: give more --samples"
        );
    }
}
