//! What a run was asked for, as it is kept beside what it writes.

use super::method::QuantizeMethod;
use super::settings::QuantizeJob;
use crate::Result;
use crate::data::Sequences;
use crate::io::Folder;
use crate::quantize::CodeGrid;
use serde_json::{Map, Value, json};

/// The settings that matter for what is asked, by the names of the command's options, with the values that hold.
pub(super) fn options(job: &QuantizeJob, grid: CodeGrid) -> Result<Value> {
    let (gptq, awq, measures) = (job.method == QuantizeMethod::Gptq, job.method == QuantizeMethod::Awq, job.measures());
    let correction = job.correction()?;
    let all = [
        ("--method", true, json!(job.method)),
        ("--bits", true, json!(job.bits)),
        ("--group", true, json!(job.group)),
        ("--scheme", true, json!(if grid.symmetric { "symmetric" } else { "asymmetric" })),
        ("--scale-type", true, json!(grid.scales)),
        ("--layout", true, json!(job.layout)),
        ("--skip", !job.skip.is_empty(), json!(job.skip)),
        ("--only", !job.only.is_empty(), json!(job.only)),
        ("--samples", measures, json!(job.samples)),
        ("--context", measures, json!(job.context)),
        ("--inputs", measures, json!(job.inputs)),
        ("--turn", measures, json!(job.turn())),
        ("--order", gptq, json!(job.order)),
        ("--static-groups", gptq, json!(job.static_groups)),
        ("--damping", job.method.moves_weights(), json!(job.damping)),
        ("--block-size", gptq, json!(job.block_size)),
        ("--clip", awq, json!(job.clip)),
        ("--smooth", job.smooth.is_some(), json!(job.smooth)),
        ("--activation-bits", job.activation_bits != 32, json!(job.activation_bits)),
        ("--correct", correction.is_some(), correction.map_or(Value::Null, |c| json!([c.inputs, c.hidden_states]))),
        ("--sparsity", job.sparsity.is_some(), json!(job.sparsity)),
        ("--pattern", job.prunes(), json!(job.pattern)),
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
pub(super) fn asked(job: &QuantizeJob, grid: CodeGrid, folder: &Folder, calibration: &Sequences, bos: &str) -> Result<Value> {
    let ids = calibration.ids();
    let hash = ids.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &id| (h ^ u64::from(id)).wrapping_mul(0x100_0000_01b3));
    Ok(json!({
        "lacuna": env!("CARGO_PKG_VERSION"), "model": job.model, "model_hash": folder.fingerprint()?, "method": job.method,
        "tokens": ids.len(), "tokens_hash": format!("{hash:016x}"), "first_token": bos, "options": options(job, grid)?,
    }))
}

/// What else a finished run must have been asked for to be the same.
pub(super) fn outcome(job: &QuantizeJob) -> Value {
    match &job.text {
        None => json!({"--text": null}),
        Some(text) => json!({"--text": text, "--windows": job.windows, "--bos": job.bos}),
    }
}
