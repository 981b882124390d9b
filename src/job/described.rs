//! What a run was asked for, as it is kept beside what it writes: by it a run that was interrupted, or is finished, is known again.

use super::check::{Plan, of_inputs};
use super::settings::PruneJob;
use crate::criteria::Need;
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::CalibrationMix;
use crate::mask::Budget;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// The settings that matter for what is asked, by the names of the command's options, with the values that hold.
pub(super) fn options(job: &PruneJob, plan: &Plan<'_>) -> Value {
    let correction = plan.correction;
    let measured = plan.allocation.needs_folder()
        || job.reconstruct.is_some()
        || correction.is_some()
        || plan.reconstruction.is_some()
        || of_inputs(plan.needs.union(plan.generalisation.needs()));
    let reads = |setting: &str| plan.method.reads_setting(setting) || plan.allocation.reads_setting(setting);
    let all = [
        ("--method", true, json!(job.method)),
        ("--sparsity", job.sparsity.is_some(), json!(job.sparsity)),
        ("--pattern", true, json!(job.pattern)),
        ("--allocate", true, json!(job.allocate)),
        ("--scope", true, json!(plan.scope)),
        ("--only", !job.only.is_empty(), json!(job.only)),
        ("--skip", !job.skip.is_empty(), json!(job.skip)),
        ("--seed", reads("seed") || job.select.is_some() || CalibrationMix::draws(job.calibration.as_deref()), json!(job.seed)),
        ("--samples", plan.measures, json!(job.samples)),
        ("--context", plan.measures, json!(job.context)),
        ("--inputs", measured, json!(job.inputs)),
        ("--turn", measured, json!(plan.sequential)),
        ("--damping", reads("damping") || job.reconstruct.is_some() || correction.is_some(), json!(job.damping)),
        ("--fisher-damping", reads("fisher-damping"), json!(job.fisher_damping)),
        ("--block-size", reads("block-size"), json!(job.block_size)),
        ("--actorder", job.actorder, json!(job.actorder)),
        ("--bits", job.bits.is_some(), json!(job.bits)),
        ("--reconstruct", job.reconstruct.is_some(), json!(job.reconstruct)),
        ("--reconstruct-blocks", job.reconstruct_blocks.is_some(), json!(job.reconstruct_blocks)),
        ("--reconstruct-rate", job.reconstruct_blocks.is_some(), json!(job.reconstruct_rate)),
        ("--correct", correction.is_some(), correction.map_or(Value::Null, |c| json!([c.inputs, c.hidden_states]))),
        ("--select", job.select.is_some() && plan.measures, json!(job.select)),
        ("--shrinkage", !job.shrinkage.is_empty(), json!(job.shrinkage)),
        ("--robust", job.robust.is_some(), json!(job.robust)),
        ("--choose", !job.choose.is_empty(), json!(job.choose)),
        ("--hold-out", job.hold_out.is_some(), json!(job.hold_out)),
        ("--owl-lambda", reads("owl-lambda"), json!(job.owl_lambda)),
        ("--owl-threshold", reads("owl-threshold"), json!(job.owl_threshold)),
        ("--levels", reads("levels"), json!(job.levels)),
        ("--cost", reads("cost"), json!(job.cost)),
        ("--search-tokens", reads("search-tokens"), json!(job.search_tokens)),
        ("--generations", reads("generations"), json!(job.generations)),
        ("--offspring", reads("offspring"), json!(job.offspring)),
    ];
    let matters = all.into_iter().filter(|(_, matters, _)| *matters);
    Value::Object(matters.map(|(name, _, value)| (name.to_string(), value)).collect::<Map<_, _>>())
}

/// The settings of a search, by which a run is told apart from one that searched otherwise; null without a search.
fn search(job: &PruneJob, plan: &Plan<'_>) -> Value {
    match plan.allocation.searches() {
        false => Value::Null,
        true => json!({
            "allocate": job.allocate, "cost": job.cost, "levels": job.levels,
            "tokens": job.search_tokens, "generations": job.generations, "offspring": job.offspring,
        }),
    }
}

/// What a run is asked for, without the budgets that follow from it. `bos` says where the token that begins a text stands.
///
/// # Errors
/// If the model's files cannot be read.
pub(super) fn asked(job: &PruneJob, plan: &Plan<'_>, folder: &Folder, calibration: &Sequences, bos: &str) -> Result<Value> {
    let ids = calibration.ids();
    let hash = ids.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &id| (h ^ u64::from(id)).wrapping_mul(0x100_0000_01b3));
    Ok(json!({
        "lacuna": env!("CARGO_PKG_VERSION"), "model": job.model, "model_hash": folder.fingerprint()?, "method": plan.pruner.name(),
        "pattern": job.pattern, "scope": plan.scope, "inputs": job.inputs, "turn": plan.sequential, "correction": plan.correction,
        "damping": job.damping, "block_size": job.block_size, "fisher_damping": job.fisher_damping, "actorder": job.actorder,
        "bits": job.bits, "reconstruct": job.reconstruct, "samples": job.samples, "context": job.context, "seed": job.seed,
        "search": search(job, plan), "tokens": ids.len(), "tokens_hash": format!("{hash:016x}"),
        "first_token": bos,
        "options": options(job, plan),
    }))
}

/// The same with its budgets and what a search found, as it is kept beside what is written.
pub(super) fn described(mut asked: Value, budgets: &HashMap<String, Budget>, found: &Value) -> Result<Value> {
    let budgets: BTreeMap<&String, &Budget> = budgets.iter().collect();
    asked["budgets"] = serde_json::to_value(budgets).map_err(|e| Error::invalid_option("budgets", e.to_string()))?;
    asked["found"] = found.clone();
    Ok(asked)
}

/// What else a finished run must have been asked for to be the same.
pub(super) fn outcome(job: &PruneJob) -> Value {
    match &job.text {
        None => json!({"--save": job.save, "--text": null}),
        Some(text) => json!({"--save": job.save, "--text": text, "--windows": job.windows, "--bos": job.bos}),
    }
}

/// The settings that change nothing of what is asked for.
pub(super) fn unused(job: &PruneJob, plan: &Plan<'_>) -> Vec<&'static str> {
    // Whoever compares methods gives them all the same calibration.
    let mut matter = vec!["activations", "scratch", "save", "text", "calibration", "samples", "context", "model", "out"];
    if job.text.is_some() {
        matter.extend(["windows", "bos"]);
    }
    if plan.measures {
        matter.push("bos");
    }
    let options = options(job, plan);
    let is_idle = |name: &&str| !matter.contains(name) && options.get(format!("--{name}")).is_none();
    super::settings::NAMES.into_iter().filter(is_idle).collect()
}

/// Layers of which a Gram matrix is made of fewer tokens than it has columns: it is singular, and what is solved by it fits the calibration
/// alone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FewTokens {
    /// Tokens of the calibration.
    pub tokens: usize,
    /// Layers that have more inputs than there are tokens.
    pub layers: usize,
    /// All layers that are pruned.
    pub of: usize,
    /// The layer with most inputs.
    pub widest: String,
    /// Its inputs.
    pub inputs: usize,
}

impl FewTokens {
    /// Where the method solves by Gram matrices and has too few tokens for them.
    pub(super) fn of(job: &Plan<'_>, layers: &[crate::prune::LanguageLayer], tokens: usize) -> Option<FewTokens> {
        let squares = job.pruner.needs().contains(Need::Gram) || job.correction.is_some() || job.allocation.searches();
        FewTokens::among(squares, layers, tokens)
    }

    /// Where Gram matrices are solved by, of these layers.
    pub(super) fn among(squares: bool, layers: &[crate::prune::LanguageLayer], tokens: usize) -> Option<FewTokens> {
        let few: Vec<_> = layers.iter().filter(|l| squares && l.shape.1 > tokens).collect();
        let widest = few.iter().max_by_key(|l| l.shape.1)?;
        let (widest, inputs) = (widest.name.clone(), widest.shape.1);
        Some(FewTokens { tokens, layers: few.len(), of: layers.len(), widest, inputs })
    }

    /// In a line.
    pub(super) fn warning(&self) -> String {
        let FewTokens { tokens, layers, of, widest, inputs } = self;
        format!(
            "{tokens} tokens of calibration are fewer than the inputs of {layers} of {of} layers (up to {inputs}: {widest}); \
             what is solved for fits these tokens alone: give more --samples"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{Plan, Subject};
    use super::super::methods::Methods;
    use super::super::settings::PruneJob;
    use super::unused;

    /// Jobs by a method in which one setting is another than by default, with its name.
    fn changed(method: &str) -> Vec<(&'static str, PruneJob)> {
        let job = || PruneJob::new(method).sparsity(0.5);
        vec![
            ("seed", job().seed(7)),
            ("damping", job().damping(0.5)),
            ("fisher-damping", job().fisher_damping(0.5)),
            ("block-size", job().block_size(32)),
            ("actorder", job().actorder(true)),
            ("bits", job().bits(3)),
            ("owl-lambda", job().owl_lambda(0.2)),
            ("owl-threshold", job().owl_threshold(3.0)),
            ("levels", job().levels([0.5])),
            ("cost", job().cost(crate::prune::Cost::Time)),
            ("search-tokens", job().search_tokens(5)),
            ("generations", job().generations(5)),
            ("offspring", job().offspring(5)),
        ]
    }

    #[test]
    fn what_a_method_says_that_it_reads_is_what_it_is_made_of_and_the_rest_is_said_to_change_nothing() {
        let standard = Methods::standard();
        for method in standard.methods() {
            let made = |job: &PruneJob| {
                let ranking = method.make_ranking(job).unwrap().map(|criterion| format!("{criterion:?}"));
                (format!("{:?}", method.make_pruner(job).unwrap()), ranking)
            };
            let plain = made(&PruneJob::new(method.name()).sparsity(0.5));
            for (setting, job) in changed(method.name()) {
                let reads = made(&job) != plain;
                assert_eq!(method.reads_setting(setting), reads, "{} and --{setting}", method.name());
                match Plan::new(&job, &standard, Subject::Folder) {
                    Ok(plan) => assert_eq!(unused(&job, &plan).contains(&setting), !reads, "{} and --{setting}", method.name()),
                    // Those of one method are refused of all others.
                    Err(e) => assert!(!reads && e.to_string().starts_with(&format!("{setting}: is for --method ")), "{e}"),
                }
            }
        }
    }

    #[test]
    fn what_an_allocation_reads_is_said_to_change_nothing_of_all_others() {
        let standard = Methods::standard();
        let of = |name: &str| match name {
            "owl" => &["owl-lambda", "owl-threshold"][..],
            "sensitivity" => &["levels", "cost", "search-tokens"],
            "dynamic" => &["levels", "cost"],
            "evolve" => &["levels", "cost", "search-tokens", "generations", "offspring", "seed"],
            _ => &[],
        };
        for allocation in standard.allocations() {
            let made = |job: &PruneJob| allocation.make(job).ok().map(|made| format!("{made:?}"));
            let plain = PruneJob::new("magnitude").sparsity(0.5).allocate(allocation.name());
            for (setting, job) in changed("magnitude") {
                let job = job.allocate(allocation.name());
                assert_eq!(made(&job), made(&plain), "{} is made of no setting", allocation.name());
                let Ok(plan) = Plan::new(&job, &standard, Subject::Folder) else { continue };
                let reads = of(allocation.name()).contains(&setting);
                assert_eq!(unused(&job, &plan).contains(&setting), !reads, "{} and --{setting}", allocation.name());
            }
        }
    }
}
