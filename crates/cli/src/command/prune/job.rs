//! The job that is asked for: a recipe, and over it what was typed.

use super::args::Args;
use lacuna::job::{Methods, PruneJob};
use lacuna::mask::Pattern;
use lacuna::{Error, Result};
use std::collections::BTreeMap;

/// The job.
///
/// # Errors
/// What is wrong with the recipe, naming file, key and value; texts that are no pattern, layout, fractions or sparsities.
pub fn of(args: &Args, methods: &Methods) -> Result<PruneJob> {
    let mut job = match &args.recipe {
        None => PruneJob::default(),
        Some(path) => {
            let job = PruneJob::read(path)?;
            job.check_names(methods).map_err(|e| Error::malformed(path, e.to_string()))?;
            job
        }
    };
    let typed = |name: &str| args.given.iter().any(|given| given == name);
    let wanted = &args.language;
    macro_rules! take {
        ($($field:ident: $name:literal = $value:expr;)*) => { $(if typed($name) { job.$field = $value; })* };
    }
    job.model = args.model.clone().or(job.model);
    job.out = args.out.clone().or(job.out);
    if let Some(text) = &args.pattern {
        job.pattern = text.parse()?;
        // What was typed fixes the sparsity; that of the recipe does not hold any more.
        if matches!(job.pattern, Pattern::Nm { .. }) {
            job.sparsity = None;
        }
    }
    take! {
        method: "method" = args.method.clone();
        sparsity: "sparsity" = args.sparsity;
        allocate: "allocate" = args.allocate.clone();
        scope: "scope" = args.scope.map(Into::into);
        skip: "skip" = args.skip.clone();
        layer: "layer" = sparsities(&args.layer)?;
        seed: "seed" = args.seed;
        calibration: "calibration" = wanted.calibration.clone();
        samples: "samples" = wanted.samples;
        context: "context" = wanted.context;
        inputs: "inputs" = wanted.inputs.into();
        sequential: "turn" = wanted.turn.into();
        damping: "damping" = wanted.damping;
        fisher_damping: "fisher-damping" = wanted.fisher_damping;
        block_size: "block-size" = wanted.block_size;
        actorder: "actorder" = wanted.actorder;
        bits: "bits" = wanted.bits;
        reconstruct: "reconstruct" = wanted.reconstruct;
        reconstruct_blocks: "reconstruct-blocks" = wanted.reconstruct_blocks;
        reconstruct_rate: "reconstruct-rate" = wanted.reconstruct_rate;
        select: "select" = wanted.select;
        robust: "robust" = wanted.robust;
        choose: "choose" = wanted.choose.clone();
        hold_out: "hold-out" = wanted.hold_out.clone();
        only: "only" = wanted.only.clone();
        activations: "activations" = wanted.activations;
        scratch: "scratch" = wanted.scratch.clone();
        owl_lambda: "owl-lambda" = wanted.owl_lambda;
        owl_threshold: "owl-threshold" = wanted.owl_threshold;
        save: "save" = wanted.save.clone();
        text: "text" = wanted.text.clone();
        windows: "windows" = wanted.windows;
        bos: "bos" = wanted.bos;
        levels: "levels" = wanted.search.levels.clone();
        cost: "cost" = wanted.search.cost.into();
        search_tokens: "search-tokens" = wanted.search.search_tokens;
        generations: "generations" = wanted.search.generations;
        offspring: "offspring" = wanted.search.offspring;
    }
    if let Some(text) = &wanted.correct {
        job.correct = fractions("correct", text)?;
    }
    if let Some(text) = &wanted.shrinkage {
        job.shrinkage = fractions("shrinkage", text)?;
    }
    (job.force, job.resume) = (args.force.force, wanted.resume);
    Ok(job)
}

/// `name=sparsity` pairs.
fn sparsities(given: &[String]) -> Result<BTreeMap<String, f64>> {
    let pair = |text: &String| {
        let parsed = text.rsplit_once('=').and_then(|(name, s)| Some((name.to_string(), s.parse::<f64>().ok()?)));
        parsed.ok_or_else(|| Error::invalid_option("layer", format!("'{text}' is not TENSOR=SPARSITY, as fc1.weight=0.5")))
    };
    let mut all = BTreeMap::new();
    for text in given {
        let (name, sparsity) = pair(text)?;
        if all.insert(name.clone(), sparsity).is_some() {
            return Err(Error::invalid_option("layer", format!("'{name}' is given twice")));
        }
    }
    Ok(all)
}

/// One or two fractions behind one another.
fn fractions(option: &str, text: &str) -> Result<Vec<f64>> {
    let refuse = || Error::invalid_option(option, format!("'{text}' is not one or two fractions in [0, 1], as 1 or 1,0.5"));
    text.split(',').map(|s| s.trim().parse().map_err(|_| refuse())).collect()
}
