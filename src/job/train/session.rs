//! A training run on the disk: where it stands, what it has done, and the state from which it goes on.
//!
//! ```text
//! .OUT.part/model.safetensors …   laid out at once; filled with the best model so far, or at the end
//! .OUT.part/.settings.json        what the run was asked for
//! .OUT.part/.state.safetensors    parameters that move, moments of the optimiser, notes; replaced as a whole
//! ```
//!
//! A run that is killed before its first state begins anew; one that is killed later goes on from its last. Both give the bits of an unbroken
//! run. What was written of the best model after that state is written again, the same, when the run comes to its step.

use super::super::event::ValidationRecord;
use super::super::standing::{first, refuse_difference};
use super::levels::{coded_config, coded_layout, write};
use super::report::TrainReport;
use super::settings::TrainJob;
use crate::io::{Folder, FolderWriter, Layout, Output, QuantLayout, SETTINGS};
use crate::lm::{LanguageModel, Outline};
use crate::nn::{Layers, Optimizer, Parameters};
use crate::prune::unfinished_settings;
use crate::train::{Feed, LanguageFeed, StepRecord, Together, Trainable, WeightAverage, load_state, save_state};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The file of the state.
const STATE: &str = ".state.safetensors";
/// The key of the notes in it.
const NOTES: &str = "train.notes";

/// Where a run stands.
pub(super) enum Standing {
    /// There is nothing of it.
    Anew,
    /// It was begun.
    Unfinished,
    /// All is done.
    Finished(Box<TrainReport>),
}

impl Standing {
    /// Looks for what is there, before anything is done.
    ///
    /// # Errors
    /// If an output is in the way, or the run that is there was asked for something else.
    pub fn of(job: &TrainJob, out: &Path, asked: &Value) -> Result<Standing> {
        if !job.resume {
            FolderWriter::check_working(out)?;
            return Ok(Standing::Anew);
        }
        let record = out.join("train.json");
        // With --force an older folder stands at the place of the one that is not finished yet.
        if record.is_file() && !(job.force && FolderWriter::is_unfinished(out)?) {
            let text = std::fs::read(&record).map_err(|e| Error::io(&record, e))?;
            let report: TrainReport = serde_json::from_slice(&text).map_err(|e| Error::malformed(&record, e.to_string()))?;
            return match first(&report.settings, asked) {
                Some(_) if job.force => Ok(Standing::Anew),
                Some(d) => {
                    let reason =
                        format!("the finished run {} has {}, this one {}; name a new folder", out.display(), d.before, d.now);
                    Err(Error::invalid_option(d.option, reason))
                }
                None => Ok(Standing::Finished(Box::new(report))),
            };
        }
        if !job.force {
            FolderWriter::check_free(out)?;
        }
        if !FolderWriter::is_unfinished(out)? {
            return Ok(Standing::Anew);
        }
        refuse_difference(out, &unfinished_settings(out)?, asked)?;
        Ok(Standing::Unfinished)
    }
}

/// What a run has done, kept with its state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Notes {
    pub curve: Vec<StepRecord>,
    pub validation: Vec<ValidationRecord>,
    /// The step of the best model that was written, if one was.
    pub best: Option<usize>,
    pub seconds: f64,
}

/// All numbers that a run changes: the model, what the feed has of its own, the average.
pub(super) type Moving<'r, 'f> = (&'r mut Trainable<LanguageModel>, &'r mut LanguageFeed<'f>, &'r mut Option<WeightAverage>);

fn together<'r>((model, feed, average): Moving<'r, '_>) -> Together<'r> {
    let mut all: Vec<&mut dyn Parameters> = vec![&mut *model];
    all.extend(feed.own());
    all.extend(average.as_mut().map(|average| average as &mut dyn Parameters));
    Together(all)
}

/// The working folder of a run.
pub(super) struct Session {
    pub writer: FolderWriter,
    pub notes: Notes,
    /// How weights of levels are written, where there are some.
    codes: QuantLayout,
}

impl Session {
    /// Begins a run, or takes one up: `model` and the optimiser are then as they were.
    ///
    /// # Errors
    /// If the disk refuses, or what is there belongs to another run.
    pub fn begin(
        out: &Output,
        (folder, codes): (&Folder, QuantLayout),
        (asked, resume): (&Value, bool),
        (model, feed, average): Moving<'_, '_>,
        optimizer: &mut Optimizer,
    ) -> Result<Session> {
        let outline = Outline::of(folder, model.model().config())?;
        let mut layout = layout(folder, model.model(), &outline)?;
        coded_layout(&mut layout, model, codes)?;
        let config = coded_config(folder, model.model().config(), outline.tied, model, codes);
        if !resume {
            let writer = FolderWriter::create_resumable(out.clone(), layout)?;
            let begun = writer.json(SETTINGS, asked).and_then(|()| config.map_or(Ok(()), |json| writer.config(&json)));
            return match begun {
                Ok(()) => Ok(Session { writer, notes: Notes::default(), codes }),
                Err(e) => {
                    writer.discard();
                    Err(e)
                }
            };
        }
        let writer = FolderWriter::resume(out.clone(), layout)?;
        config.map_or(Ok(()), |json| writer.config(&json))?;
        let state = writer.own_file(STATE)?;
        if !state.is_file() {
            return Ok(Session { writer, notes: Notes::default(), codes });
        }
        let (read, notes) = load_state(&mut together((&mut *model, feed, average)), &state)?;
        let none = || Error::malformed(&state, format!("has no {NOTES}; remove its folder to begin anew"));
        let notes = serde_json::from_str(notes.get(NOTES).ok_or_else(none)?);
        model.settle()?;
        *optimizer = read;
        let notes = notes.map_err(|e| Error::malformed(&state, format!("{NOTES}: {e}")))?;
        Ok(Session { writer, notes, codes })
    }

    /// Saves the state, in place of the one before.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses; the state before is still there.
    pub fn save(&self, moving: Moving<'_, '_>, optimizer: &Optimizer) -> Result<()> {
        let notes = serde_json::to_string(&self.notes).map_err(|e| Error::invalid_option("record", e.to_string()))?;
        save_state(&together(moving), optimizer, &BTreeMap::from([(NOTES.to_string(), notes)]), self.writer.own_file(STATE)?)
    }

    /// Writes the model as it is now to its place.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses; [`Error::InvalidOption`] if a number is too large for the folder's dtype.
    pub fn write(&mut self, model: &Trainable<LanguageModel>) -> Result<()> {
        write(model, self.codes, &mut self.writer)?;
        self.writer.sync()
    }
}

/// The layout of the model's folder, with the masks that are held.
fn layout(folder: &Folder, model: &LanguageModel, outline: &Outline) -> Result<Layout> {
    let mut layout = Layout::of(folder);
    let mut masked = Vec::new();
    for layer in outline.layers.iter().filter(|l| l.block.is_some()) {
        if Layers::mask(model, &layer.name)?.is_some() {
            masked.push(layer.tensor());
        }
    }
    if model.embedding_head().head().mask().is_some() {
        masked.push(model.embedding_head().head().tensor());
    }
    if !masked.is_empty() {
        layout.masks(masked.iter().map(String::as_str))?;
    }
    Ok(layout)
}
