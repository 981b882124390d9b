//! Where a run stands that is to be taken up again.

use crate::io::FolderWriter;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Where a run stands.
pub(super) enum Standing {
    /// There is nothing of it.
    Anew,
    /// A part is done; what it was asked for.
    Unfinished(Value),
    /// All is done; its record.
    Finished(Value),
}

/// A run that may go on with what is there.
pub(super) struct Mine {
    /// The name of its record.
    pub record: &'static str,
    pub resume: bool,
    pub force: bool,
    /// How its end is asked for: what else a finished run must have been asked for to be the same.
    pub outcome: Value,
}

impl Standing {
    /// Looks for what is there, before anything is done. `asked` is what the run is asked for, without budgets.
    ///
    /// # Errors
    /// If an output is in the way, or the run that is there was asked for something else.
    pub fn of(job: &Mine, out: &Path, asked: &Value) -> Result<Standing> {
        if !job.resume {
            FolderWriter::check_working(out)?;
            return Ok(Standing::Anew);
        }
        let record = out.join(job.record);
        // With --force an older folder stands at the place of the one that is not finished yet.
        if record.is_file() && !(job.force && FolderWriter::is_unfinished(out)?) {
            let text = std::fs::read(&record).map_err(|e| Error::io(&record, e))?;
            let report: Value = serde_json::from_slice(&text).map_err(|e| Error::malformed(&record, e.to_string()))?;
            let before = &report["settings"];
            let differs = difference(before, asked).or_else(|| outcome_difference(&report["asked"], &job.outcome));
            if job.force && differs.is_some() {
                return Ok(Standing::Anew);
            }
            if !before["options"].is_object() {
                let reason = "is finished, by a build whose record does not say all that it was asked for; name a new folder";
                return Err(Error::malformed(out, reason));
            }
            return match differs {
                Some(d) => Err(Error::invalid_option(
                    d.option,
                    format!("the finished run {} has {}, this one {}; name a new folder", out.display(), d.before, d.now),
                )),
                None => Ok(Standing::Finished(report)),
            };
        }
        if !job.force {
            FolderWriter::check_free(out)?;
        }
        if !FolderWriter::is_unfinished(out)? {
            return Ok(Standing::Anew);
        }
        let before = crate::prune::unfinished_settings(out)?;
        match difference(&before, asked) {
            Some(d) => Err(d.refuse(out)),
            None => Ok(Standing::Unfinished(before)),
        }
    }
}

/// Whether an unfinished run towards the output was asked for something else.
pub(super) fn is_of_another_run(out: &Path, asked: &Value) -> bool {
    match FolderWriter::is_unfinished(out) {
        Ok(true) => crate::prune::unfinished_settings(out).is_ok_and(|before| difference(&before, asked).is_some()),
        _ => false,
    }
}

/// Refuses budgets other than those of an unfinished run that an older build has begun, which did not say its options.
pub(super) fn check_budgets(out: &Path, before: &Value, now: &Value) -> Result<()> {
    if before["options"].is_object() || before["budgets"] == *now {
        return Ok(());
    }
    let sums = |budgets: &Value| {
        let all: Vec<&Value> = budgets.as_object().into_iter().flat_map(|b| b.values()).collect();
        let sum = |key: &str| all.iter().filter_map(|b| b[key].as_u64()).sum::<u64>();
        format!("{} of {} kept in {} layers", sum("keep"), sum("of"), all.len())
    };
    let option = "--sparsity, --allocate, --only or --skip".to_string();
    Err(Difference { option, before: sums(&before["budgets"]), now: sums(now) }.refuse(out))
}

/// The first of the settings of its end in which a finished run was asked for something else.
fn outcome_difference(before: &Value, now: &Value) -> Option<Difference> {
    let mut before = before.clone();
    if let (Some(before), true) = (before.as_object_mut(), now["--text"].is_null()) {
        // Builds that wrote them did so without a text too.
        before.retain(|key, _| !["--windows", "--bos"].contains(&key.as_str()));
    }
    first(&before, now)
}

/// An option in which two runs differ.
pub(super) struct Difference {
    pub option: String,
    pub before: String,
    pub now: String,
}

impl Difference {
    fn refuse(self, out: &Path) -> Error {
        let part = FolderWriter::working_folder(out);
        let Difference { option, before, now } = self;
        Error::invalid_option(
            option,
            format!("the unfinished run has {before}, this one {now}; ask for the same, or remove {}", part.display()),
        )
    }
}

/// The first thing in which a run was asked for something else than an earlier one; what the earlier one does not say is not compared.
fn difference(before: &Value, now: &Value) -> Option<Difference> {
    let says_all = before["options"].is_object();
    if says_all && let Some(found) = first(&before["options"], &now["options"]) {
        return Some(found);
    }
    let later = ["options", "budgets", "found", "first_token"];
    // Where the options that matter are said, the others need not be the same; what was measured on must be, if anything was.
    let beside = ["lacuna", "method", "model", "model_hash", "tokens", "tokens_hash"];
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

/// Refuses an option in which an unfinished run differs from this one.
pub(super) fn refuse_difference(out: &Path, before: &Value, now: &Value) -> Result<()> {
    first(before, now).map_or(Ok(()), |d| Err(d.refuse(out)))
}

/// The first option in which two sets differ, those that decide about others before them.
pub(super) fn first(before: &Value, now: &Value) -> Option<Difference> {
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
