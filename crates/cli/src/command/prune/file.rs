//! `lacuna prune FILE OUT`: plain weight files, by criteria that need the weights alone.

use super::args::{Allocation, Args, Language, Method, ScopeArg};
use crate::command::{place, print, print_json};
use lacuna::allocate::{Allocate, Er, Erk, Global, Lamp, Overrides, Target, Uniform};
use lacuna::criteria::{Magnitude, MagnitudeNorm, Random, Saliency};
use lacuna::eval::{FileCensus, sparsity as went};
use lacuna::io::Checkpoint;
use lacuna::mask::{Pattern, Scope};
use lacuna::prune::{LeftAlone, PrunedTensor, Pruning, left_alone, prune_checkpoint};
use lacuna::report::{Cell, Table};
use lacuna::rng::Seed;
use lacuna::{Error, Result};
use std::collections::BTreeMap;

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    lacuna::io::refuse_gguf(&args.model)?;
    refuse(&args.language, &args.given)?;
    let pattern: Pattern = args.pattern.as_deref().unwrap_or("unstructured").parse()?;
    let nm = matches!(pattern, Pattern::Nm { .. });
    let sparsity = match (args.sparsity, nm) {
        (Some(s), true) => {
            return Err(Error::setting(
                "sparsity",
                format!("{s} given with pattern {pattern}, which fixes the sparsity; leave one out"),
            ));
        }
        (None, false) => {
            return Err(Error::setting("sparsity", format!("pattern {pattern} needs one: give --sparsity")));
        }
        (s, _) => s.unwrap_or(0.0),
    };
    let saliency: Box<dyn Saliency> = match args.method {
        Method::Magnitude => Box::new(Magnitude { norm: MagnitudeNorm::L1 }),
        Method::MagnitudeL2 => Box::new(Magnitude { norm: MagnitudeNorm::L2 }),
        Method::Random => Box::new(Random { seed: Seed(args.seed) }),
        _ => {
            let reason = "needs the inputs of the layers: give a model's folder, not a file of weights";
            return Err(Error::setting("method", reason));
        }
    };
    let given = overrides(&args.layer)?;
    if nm && !given.is_empty() {
        return Err(Error::setting("layer", format!("pattern {pattern} fixes the sparsity of every tensor")));
    }
    place::file(&args.out, &[&args.model], args.force.force)?;
    let checkpoint = Checkpoint::read(&args.model)?;
    let left = left_alone(&checkpoint);
    let given = named(&checkpoint, &left, given)?;
    let allocate: Box<dyn Allocate> = match args.allocate {
        Allocation::Uniform => Box::new(Overrides { sparsity: given, rest: Uniform }),
        Allocation::Global => Box::new(Overrides { sparsity: given, rest: Global }),
        Allocation::Er => Box::new(Overrides { sparsity: given, rest: Er }),
        Allocation::Erk => Box::new(Overrides { sparsity: given, rest: Erk }),
        Allocation::Lamp => Box::new(Overrides { sparsity: given, rest: Lamp }),
        _ => return Err(Error::setting("allocate", "this one needs the inputs of the layers: give a model's folder")),
    };
    let pruning = Pruning {
        saliency: saliency.as_ref(),
        allocate: allocate.as_ref(),
        target: Target::Sparsity(sparsity),
        pattern,
        scope: match args.scope {
            Some(ScopeArg::Row) => Scope::Row,
            _ => Scope::Layer,
        },
        skip: &args.skip,
    };
    let (pruned, tensors) = prune_checkpoint(&checkpoint, &pruning)?;
    let whole = FileCensus::of(&pruned)?.whole();
    pruned.write(&args.out)?;

    let (weights, kept) = tensors.iter().fold((0, 0), |(w, k), t| (w + t.weights, k + t.kept));
    if args.json {
        return print_json(&serde_json::json!({
            "out": args.out, "method": saliency.name(), "pattern": pattern, "allocate": allocate.name(), "weights": weights, "kept": kept,
            "sparsity": went(kept, weights), "parameters": whole.numbers, "whole_sparsity": whole.sparsity(), "layers": tensors,
            "left_alone": left,
        }));
    }
    let mut table = Table::new(["tensor", "shape", "weights", "kept", "sparsity"]);
    let share = |kept: Option<f64>| kept.map(|s| Cell::float(s, 4));
    for PrunedTensor { name, shape, weights, kept } in &tensors {
        table.row((name.as_str(), format!("{shape:?}"), *weights, *kept, share(went(*kept, *weights))));
    }
    table.row(("pruned tensors", "", weights, kept, share(went(kept, weights))));
    table.row(("whole file", "", whole.numbers, whole.kept, share(whole.sparsity())));
    print(&format!(
        "{}{}\n{} with {pattern} masks by {} -> {}\n",
        table.to_text(),
        others(&left),
        args.model.display(),
        saliency.name(),
        args.out.display()
    ))
}

/// The tensors that were left alone, as a table with a line before it; nothing if there are none.
fn others(left: &[LeftAlone]) -> String {
    if left.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["left alone", "dtype", "shape", "numbers", "why"]);
    for l in left {
        table.row((l.name.as_str(), l.dtype.as_str(), format!("{:?}", l.shape), l.numbers, l.why.as_str()));
    }
    format!("\n{}", table.to_text())
}

/// Sparsities by the tensors that hold the weights; of one that is left alone none can be asked for.
fn named(file: &Checkpoint, left: &[LeftAlone], given: BTreeMap<String, f64>) -> Result<BTreeMap<String, f64>> {
    let one = |(name, sparsity): (String, f64)| match left.iter().find(|l| l.name == name) {
        Some(l) => Err(Error::setting("layer", format!("'{name}' is left alone: {}, {}", l.dtype, l.why))),
        None => Ok((file.tensor_of(&name).map(String::from).unwrap_or(name), sparsity)),
    };
    given.into_iter().map(one).collect()
}

/// `name=sparsity` pairs.
fn overrides(given: &[String]) -> Result<BTreeMap<String, f64>> {
    let pair = |text: &String| {
        let parsed = text.rsplit_once('=').and_then(|(name, s)| Some((name.to_string(), s.parse::<f64>().ok()?)));
        parsed.ok_or_else(|| Error::setting("layer", format!("'{text}' is not TENSOR=SPARSITY, as fc1.weight=0.5")))
    };
    given.iter().map(pair).collect()
}

/// Refuses what a plain file of weights has no use for.
fn refuse(language: &Language, given: &[String]) -> Result<()> {
    let of_files = ["method", "sparsity", "pattern", "allocate", "scope", "skip", "layer", "seed", "json", "force"];
    language.search.refuse(Allocation::Uniform)?;
    match given.iter().find(|option| !of_files.contains(&option.as_str())) {
        None => Ok(()),
        Some(option) => Err(Error::setting(option, "is for language models: give a model's folder")),
    }
}
