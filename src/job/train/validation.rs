//! The text on which a model is measured while it trains.

use super::super::event::ValidationRecord;
use super::settings::TrainJob;
use crate::data::{PackedDocuments, Windows};
use crate::eval::Perplexity;
use crate::io::Folder;
use crate::lm::{Config, LanguageModel};
use crate::{Error, Result};
use std::ops::ControlFlow;

/// Windows of tokens.
#[derive(Debug)]
pub(super) struct Validation {
    pub windows: Vec<Vec<u32>>,
    /// What they are, in words.
    pub of: String,
}

impl Validation {
    /// The windows of a text, or the sequences that are held out; `None` if nothing is measured.
    ///
    /// # Errors
    /// If the text cannot be read or fills no window; if so many sequences are held out that none is left.
    pub fn of(job: &TrainJob, packed: &PackedDocuments, folder: &Folder, config: &Config) -> Result<Option<Validation>> {
        if let Some(text) = &job.validation {
            let windows = Windows::read(text, folder, config, job.context, job.windows, job.bos)?;
            let of = format!("{}, {} windows of {} tokens", text.display(), windows.windows.len(), job.context);
            return Ok(Some(Validation { windows: windows.windows, of }));
        }
        if job.held_out >= packed.len() {
            let reason = format!("{} of {} sequences leave none to train on", job.held_out, packed.len());
            return Err(Error::invalid_option("held-out", reason));
        }
        if job.held_out == 0 {
            return Ok(None);
        }
        let windows = (packed.len() - job.held_out..packed.len()).map(|n| packed.sequence(n)).collect::<Result<Vec<_>>>()?;
        let of = format!("{} sequences of {} tokens at the end of the text", windows.len(), job.context);
        Ok(Some(Validation { windows, of }))
    }

    /// Measures a model. `see` is told how many windows of all are done, and may stop.
    ///
    /// # Errors
    /// Those of the model; [`Error::Numerical`] if it gives what is not finite; [`Error::Interrupted`].
    pub fn measure(
        &self,
        model: &LanguageModel,
        step: usize,
        see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<ValidationRecord> {
        let mut losses = Vec::with_capacity(self.windows.len());
        for ids in &self.windows {
            losses.push(model.nll(ids)?);
            Error::go_on(see(losses.len(), self.windows.len()))?;
        }
        let Perplexity { perplexity, nll, .. } = Perplexity::of(&losses)?;
        Ok(ValidationRecord { step, perplexity, nll })
    }
}
