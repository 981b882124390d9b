//! Jobs in files: recipes in TOML, and the records of runs.
//!
//! ```text
//! method = "sparsegpt"          the settings by the names of the command's options; what is left out is as by default
//! pattern = "2:4"
//! calibration = "ids.safetensors"
//! [layer]                       sparsities of single tensors
//! "fc1.weight" = 0.5
//! ```
//!
//! A record, `prune.json`, is read for its object `job`. Paths are as they were given to the run.

use super::settings::{NAMES, PruneJob};
use crate::io::one_line;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserializer, Serialize};
use std::path::Path;

/// Options of the command that are of one run, and no settings of a job.
const OF_A_RUN: [&str; 5] = ["force", "resume", "json", "recipe", "print-recipe"];

/// A job that can be written as a recipe. Its fields have the names of the command's options.
pub(super) trait Recipe: Serialize + DeserializeOwned {
    /// The command that runs it.
    const COMMAND: &'static str;
    /// Its settings, in the order in which they are written.
    const NAMES: &'static [&'static str];

    /// Refuses numbers outside their range.
    fn in_range(&self) -> Result<()>;

    /// Refuses paths that are not UTF-8.
    fn check_paths(&self) -> Result<()>;
}

impl Recipe for PruneJob {
    const COMMAND: &'static str = "prune";
    const NAMES: &'static [&'static str] = &NAMES;

    fn in_range(&self) -> Result<()> {
        self.check_ranges()
    }

    fn check_paths(&self) -> Result<()> {
        PruneJob::check_paths(self)
    }
}

impl PruneJob {
    /// Reads a recipe, or, if its text begins with `{`, the record of a run.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] with the file, the key and the value, where a key is unknown (with the nearest known one), or a value
    /// is of the wrong kind or outside its range.
    pub fn read(path: impl AsRef<Path>) -> Result<PruneJob> {
        read(path.as_ref())
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// With the key and the value, as [`PruneJob::read`].
    pub fn from_toml(text: &str) -> Result<PruneJob> {
        from_toml(text)
    }

    /// All settings, one a line, those that are not set behind a `#`. [`PruneJob::from_toml`] gives the job back.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a number is beyond the 64 bits with a sign that the format has, or a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        to_toml(self)
    }
}

/// Reads a recipe, or the record of a run.
pub(super) fn read<J: Recipe>(path: &Path) -> Result<J> {
    let text = crate::data::read_text(path)?;
    let read = if text.trim_start().starts_with('{') { of_record(&text) } else { from_toml(&text) };
    read.map_err(|e| Error::malformed(path, e.to_string()))
}

/// Reads a recipe.
pub(super) fn from_toml<J: Recipe>(text: &str) -> Result<J> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        Error::invalid_option(format!("line {}", before.matches('\n').count() + 1), one_line(e.message(), 300))
    })?;
    from_table(table)
}

/// A table of settings.
pub(super) fn from_table<J: Recipe>(table: toml::Table) -> Result<J> {
    for (name, value) in &table {
        let shown = || value.to_string();
        known::<J>(name)?;
        of_kind::<J, _>(name, toml::Value::Table([(name.clone(), value.clone())].into_iter().collect()), shown)?;
    }
    let job = J::deserialize(toml::Value::Table(table));
    let job = job.map_err(|e| Error::invalid_option("recipe", one_line(e.message(), 300)))?;
    job.in_range().map(|()| job)
}

/// All settings, one a line, those that are not set behind a `#`.
pub(super) fn to_toml<J: Recipe>(job: &J) -> Result<String> {
    job.check_paths()?;
    let table = toml::Table::try_from(job).map_err(|e| Error::invalid_option("recipe", one_line(&e.to_string(), 300)))?;
    let mut text = format!("# The settings of lacuna {}; those behind # are not set.\n", J::COMMAND);
    for name in J::NAMES {
        match table.get(*name) {
            None => text += &format!("# {name} =\n"),
            Some(toml::Value::Table(entries)) if entries.is_empty() => text += &format!("# [{name}]\n"),
            Some(toml::Value::Table(entries)) => text += &format!("\n[{name}]\n{entries}"),
            Some(value) => text += &format!("{name} = {value}\n"),
        }
    }
    Ok(text)
}

/// The job of a run's record.
fn of_record<J: Recipe>(text: &str) -> Result<J> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|e| Error::invalid_option("record", one_line(&e.to_string(), 300)))?;
    let Some(job) = value.get("job").and_then(|job| job.as_object()) else {
        return Err(Error::invalid_option("job", "is not in this record: it is of a build that did not note it"));
    };
    for (name, value) in job {
        known::<J>(name)?;
        of_kind::<J, _>(name, serde_json::json!({ name: value }), || value.to_string())?;
    }
    let whole = serde_json::Value::Object(job.clone());
    let job = J::deserialize(whole).map_err(|e| Error::invalid_option("job", one_line(&e.to_string(), 300)))?;
    job.in_range().map(|()| job)
}

fn known<J: Recipe>(name: &str) -> Result<()> {
    if OF_A_RUN.contains(&name) {
        return Err(Error::invalid_option(name, "is an option of one run, and no setting of a recipe"));
    }
    if J::NAMES.contains(&name) { Ok(()) } else { Err(Error::unknown_name("setting", name, J::NAMES.iter().copied())) }
}

/// Refuses a value of another kind than its setting has.
fn of_kind<'de, J: Recipe, D: Deserializer<'de>>(name: &str, alone: D, value: impl Fn() -> String) -> Result<()> {
    let Err(e) = J::deserialize(alone) else { return Ok(()) };
    let text = e.to_string();
    let reason = text.lines().next().unwrap_or_default();
    // Some say themselves which setting they are of.
    let reason = reason.strip_prefix(&format!("{name}: ")).unwrap_or(reason);
    Err(Error::invalid_option(name, format!("{}: {}", one_line(&value(), 60), one_line(reason, 300))))
}

#[cfg(test)]
mod tests {
    use super::PruneJob;
    use crate::data::Bos;
    use crate::mask::{Pattern, Scope};
    use crate::prune::{CalibrationInputs, Cost, Sequential};

    #[test]
    fn every_setting_comes_back_from_a_recipe_and_from_a_record() {
        let all = PruneJob::new("woodfisher")
            .model("a b/c")
            .out("d\"e")
            .sparsity(0.123456789012345)
            .pattern(Pattern::Block { rows: 4, cols: 1 })
            .allocate("evolve")
            .scope(Scope::Row)
            .skip(["x", "y.*"])
            .only(["mlp"])
            .layer([("fc1.weight", 0.25), ("conv \"1\"", 0.0)])
            .seed(7)
            .calibration("t.txt")
            .samples(3)
            .context(5)
            .inputs(CalibrationInputs::Dense)
            .sequential(Sequential::Block)
            .damping(1e-7)
            .fisher_damping(3.5)
            .block_size(9)
            .actorder(true)
            .bits(3)
            .reconstruct(11)
            .reconstruct_blocks(4)
            .reconstruct_rate(0.25)
            .correct(1.0, 0.1)
            .select(crate::lm::CalibrationSelection::Clusters)
            .shrinkage(0.1, 0.5)
            .robust(4)
            .choose([crate::job::ChosenSetting::Damping, crate::job::ChosenSetting::Correct])
            .hold_out("self")
            .activations(12)
            .scratch("/tmp")
            .owl_lambda(0.3)
            .owl_threshold(4.0)
            .save("bsr:4x1")
            .text("u.txt")
            .windows(2)
            .bos(Bos::Window)
            .levels([0.2, 0.4])
            .cost(Cost::Time)
            .search_tokens(99)
            .generations(1)
            .offspring(2);
        assert_eq!(all.changed().len() + 2, super::NAMES.len(), "each is another than by default");
        for job in [PruneJob::default(), all] {
            let text = job.to_toml().unwrap();
            assert_eq!(PruneJob::from_toml(&text).unwrap(), job, "{text}");
            assert!(super::NAMES.iter().all(|name| text.contains(name)), "{text}");
            let record = serde_json::json!({"settings": 1, "job": job}).to_string();
            assert_eq!(super::of_record::<PruneJob>(&record).unwrap(), job);
        }
    }

    #[test]
    fn what_is_of_one_run_is_in_no_recipe() {
        let job = PruneJob::default().force(true).resume(true);
        assert_eq!(PruneJob::from_toml(&job.to_toml().unwrap()).unwrap(), PruneJob::default());
    }

    #[test]
    fn what_is_wrong_with_a_recipe_is_one_line_with_the_key_and_the_value() {
        for (text, line) in [
            ("sparsty = 0.5", "no setting is named 'sparsty' among 43; did you mean 'sparsity'?"),
            ("force = true", "force: is an option of one run, and no setting of a recipe"),
            ("sparsity = \"half\"", "sparsity: \"half\": invalid type: string \"half\", expected f64"),
            ("sparsity = 1.5", "sparsity: 1.5 is not in [0, 1): 0 keeps all, 0.9 drops nine of ten"),
            ("samples = -1", "samples: -1: invalid value: integer `-1`, expected usize"),
            ("damping = nan", "damping: NaN is not a finite number of at least 0; 0.01 is usual"),
            ("correct = [1.5]", "correct: '1.5' is not one or two fractions in [0, 1], as 1 or 1,0.5"),
            ("correct = [1, 0, 0]", "correct: '1,0,0' is not one or two fractions in [0, 1], as 1 or 1,0.5"),
            ("layer = 3", "layer: 3: invalid type: integer `3`, expected a map"),
        ] {
            assert_eq!(PruneJob::from_toml(text).unwrap_err().to_string(), line, "{text}");
        }
        for (text, parts) in [
            ("pattern = \"2-4\"", ["pattern: \"2-4\": ", "unstructured"]),
            ("save = \"zip\"", ["save: 'zip' is none of weights, ", "sparse-bitmask"]),
            ("turn = \"layers\"", ["turn: \"layers\": unknown variant", "`layer`"]),
            ("a = [", ["line 1: ", ""]),
            ("seed = 1\nseed = 2", ["line 2: ", "duplicate key"]),
        ] {
            let line = PruneJob::from_toml(text).unwrap_err().to_string();
            assert!(line.starts_with(parts[0]) && line.contains(parts[1]) && line.lines().count() == 1, "{text}: {line}");
        }
    }
}
