//! What a running job says.

use crate::train::StepRecord;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A perplexity while training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// After how many steps.
    pub step: usize,
    /// `exp` of the mean −ln p; infinite, in JSON null, where that is more than 709.
    #[serde(deserialize_with = "or_infinite")]
    pub perplexity: f64,
    /// The mean −ln p, in nats.
    pub nll: f64,
}

/// JSON has no infinity.
fn or_infinite<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// A part of a run whose progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The perplexity of the model before it is pruned; steps are blocks.
    PerplexityBefore,
    /// Texts that the model writes to calibrate on; steps are tokens at most.
    Texts,
    /// Gradients of the calibration's loss; steps are sequences.
    Gradients,
    /// Weights read to be ranked over all layers, for the allocations `global` and `lamp`; steps are layers.
    Ranking,
    /// Outliers of each block, for the allocation `owl`; steps are blocks.
    Outliers,
    /// Layers pruned at several levels, for a search; steps are blocks.
    Levels,
    /// What the predictions lose by each layer alone; steps are layers.
    Sensitivity,
    /// The evolutionary search; steps are passes.
    Evolution,
    /// Sizes that meet a budget; steps are blocks of two passes.
    Sizes,
    /// Blocks that are pruned and written.
    Blocks,
    /// The perplexity of the pruned model; steps are blocks.
    PerplexityAfter,
    /// The perplexity of a model that trains; steps are windows.
    Validation,
}

impl Stage {
    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Stage::PerplexityBefore => "perplexity before",
            Stage::Texts => "texts",
            Stage::Gradients => "gradients",
            Stage::Ranking => "ranking",
            Stage::Outliers => "outliers",
            Stage::Levels => "levels",
            Stage::Sensitivity => "sensitivity",
            Stage::Evolution => "evolution",
            Stage::Sizes => "sizes",
            Stage::Blocks => "blocks",
            Stage::PerplexityAfter => "perplexity after",
            Stage::Validation => "validation",
        }
    }
}

/// What a running job tells its callback, which answers whether the job goes on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Something that a user should know.
    Note(String),
    /// Something that a user should do otherwise.
    Warning(String),
    /// Settings that change nothing of what is asked for.
    Unused {
        /// All of them, by name, whatever their values.
        all: Vec<&'static str>,
        /// Those among them that are not as they are by default.
        changed: Vec<&'static str>,
    },
    /// How far a part of the run is.
    Progress {
        /// Which part.
        stage: Stage,
        /// Steps that are done.
        done: usize,
        /// All steps.
        of: usize,
        /// Most bytes of memory so far, where the system says and the part is [`Stage::Blocks`].
        memory: Option<u64>,
    },
    /// A step of training was taken.
    Step {
        /// What became of it.
        record: StepRecord,
        /// The numbers of the sequences that it was on, in order.
        sequences: Vec<usize>,
        /// All steps.
        of: usize,
        /// Tokens a second, over the steps since the run was begun or taken up.
        tokens_per_second: f64,
        /// Seconds of the steps that are left, at that.
        seconds_left: f64,
        /// Most bytes of memory so far, where the system says.
        memory: Option<u64>,
    },
    /// The perplexity of a model that trains was measured.
    Validated(ValidationRecord),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Note(text) => write!(f, "note: {text}"),
            Event::Warning(text) => write!(f, "warning: {text}"),
            Event::Unused { changed, .. } => match unused_note(changed) {
                Some(text) => write!(f, "note: {text}"),
                None => f.write_str("note: all settings matter"),
            },
            Event::Progress { stage, done, of, .. } => write!(f, "{}: {done} of {of}", stage.name()),
            Event::Step { record, of, tokens_per_second, .. } => {
                let StepRecord { step, loss, learning_rate, .. } = record;
                write!(
                    f,
                    "step {step} of {of}: loss {loss:.4}, learning rate {learning_rate:.3e}, {tokens_per_second:.0} tokens/s"
                )
            }
            Event::Validated(ValidationRecord { step, perplexity, .. }) => {
                write!(f, "perplexity {perplexity:.4} after step {step}")
            }
        }
    }
}

/// What is said of settings that change nothing, by the names of the command's options; `None` if there are none.
///
/// ```
/// use lacuna::job::unused_note;
/// assert_eq!(unused_note(&["seed", "bits"]).unwrap(), "--bits, --seed change nothing of what is asked for here");
/// ```
pub fn unused_note(settings: &[&str]) -> Option<String> {
    let mut options: Vec<String> = settings.iter().map(|name| format!("--{name}")).collect();
    options.sort();
    let verb = if options.len() == 1 { "changes" } else { "change" };
    (!options.is_empty()).then(|| format!("{} {verb} nothing of what is asked for here", options.join(", ")))
}
