//! What a run was asked for, as it is kept beside what it writes.

use super::method::ShrinkMethod;
use super::scores::KEY;
use super::settings::ShrinkJob;
use crate::Result;
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::CalibrationMix;
use crate::prune::{Aggregation, VocabularyCut};
use serde_json::{Map, Value, json};

/// The settings that matter for what is asked, by the names of the command's options, with the values that hold.
pub(super) fn options(job: &ShrinkJob) -> Result<Value> {
    let prefix = job.cuts_prefix();
    let correction = job.correction()?.filter(|_| !prefix);
    let obs = job.method == ShrinkMethod::Obs && !prefix && (job.moves() || correction.is_some());
    let inside = (job.moves() || correction.is_some()) && !prefix;
    // Records of runs that had none to choose from are as they were.
    let changed = job.aggregate != Aggregation::default();
    let all = [
        ("--method", inside, json!(job.method)),
        ("--intermediate", job.intermediate.is_some(), json!(job.intermediate)),
        ("--heads", job.heads.is_some(), json!(job.heads)),
        ("--kv-heads", job.kv_heads.is_some(), json!(job.kv_heads)),
        ("--hidden", job.hidden.is_some(), json!(job.hidden)),
        ("--layers", job.layers.is_some(), json!(job.layers)),
        ("--vocabulary", job.vocabulary.is_some(), json!(job.vocabulary)),
        ("--experts", job.experts.is_some(), json!(job.experts)),
        ("--active-experts", job.active_experts.is_some(), json!(job.active_experts)),
        ("--experts-by", job.experts.is_some(), json!(job.experts_by)),
        ("--sublayers", job.sublayers.is_some(), json!(job.sublayers)),
        ("--drop", !job.drop.is_empty(), json!(job.drop)),
        ("--pad", job.pad, json!(true)),
        ("--parameters", job.parameters.is_some(), json!(job.parameters)),
        ("--flops", job.flops.is_some(), json!(job.flops)),
        ("--bytes", job.bytes.is_some(), json!(job.bytes)),
        ("--milliseconds", job.milliseconds.is_some(), json!(job.milliseconds)),
        ("--per-layer", job.per_layer, json!(true)),
        ("--metric", obs && job.moves(), json!(job.metric)),
        ("--aggregate", inside && job.method == ShrinkMethod::Minitron && changed, json!(job.aggregate)),
        ("--scores", job.scores.is_some(), json!(job.scores)),
        ("--hidden-by", job.hidden.is_some() && !prefix, json!(job.hidden_by)),
        ("--round", job.searches(), json!(job.round)),
        ("--sort", job.sort, json!(true)),
        ("--depth-by", job.layers.is_some() || job.sublayers.is_some(), json!(job.depth_by)),
        ("--seed", job.draws() || CalibrationMix::draws(job.calibration.as_deref()), json!(job.seed)),
        ("--samples", job.reads_calibration() && !prefix, json!(job.samples)),
        ("--context", job.reads_calibration() && !prefix, json!(job.context)),
        ("--damping", obs, json!(job.damping)),
        ("--rounds", obs && job.moves(), json!(job.rounds)),
        ("--swaps", obs && job.moves(), json!(job.swaps)),
        ("--correct", correction.is_some(), correction.map_or(Value::Null, |c| json!([c.inputs, c.hidden_states]))),
        ("--reconstruct-blocks", job.reconstruct_blocks.is_some(), json!(job.reconstruct_blocks)),
        ("--reconstruct-rate", job.reconstruct_blocks.is_some(), json!(job.reconstruct_rate)),
    ];
    let matters = all.into_iter().filter(|(_, matters, _)| *matters);
    Ok(Value::Object(matters.map(|(name, _, value)| (name.to_string(), value)).collect::<Map<_, _>>()))
}

/// What a run is asked for. `bos` says where the token that begins a text stands.
///
/// # Errors
/// If the model's files cannot be read.
pub(super) fn asked(
    job: &ShrinkJob,
    folder: &Folder,
    calibration: &Sequences,
    vocabulary: Option<&VocabularyCut>,
    bos: &str,
) -> Result<Value> {
    let hash =
        |all: &mut dyn Iterator<Item = u64>| all.fold(0xcbf2_9ce4_8422_2325u64, |h, id| (h ^ id).wrapping_mul(0x100_0000_01b3));
    let ids = calibration.ids();
    let entries = vocabulary.map(|v| format!("{:016x}", hash(&mut v.kept.iter().map(|n| *n as u64))));
    let hash = hash(&mut ids.iter().map(|id| u64::from(*id)));
    let mut all = json!({
        "lacuna": env!("CARGO_PKG_VERSION"), "model": job.model, "model_hash": folder.fingerprint()?, "method": job.method,
        "tokens": ids.len(), "tokens_hash": format!("{hash:016x}"), "first_token": bos, "options": options(job)?,
    });
    if job.scores.is_some() {
        all[KEY] = if job.reuses_scores() { "read" } else { "written" }.into();
    }
    // Only where there is one, so that records of other runs are as they were.
    if let Some(entries) = entries {
        all["entries_hash"] = entries.into();
    }
    Ok(all)
}

/// What else a finished run must have been asked for to be the same.
pub(super) fn outcome(job: &ShrinkJob) -> Value {
    match &job.text {
        None => json!({"--text": null}),
        Some(text) => json!({"--text": text, "--windows": job.windows, "--bos": job.bos}),
    }
}
