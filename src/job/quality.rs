//! The perplexity of a text before and after.

use super::event::{Event, Stage};
use super::report::PerplexityReport;
use super::search::{Watch, progress};
use super::settings::PruneJob;
use crate::data::Windows;
use crate::eval::{Perplexity, streamed_losses};
use crate::io::Folder;
use crate::lm::Config;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of features that a model keeps between its blocks.
const FEATURES: usize = 512 << 20;

/// A text on which perplexity is measured, and that of the model before.
pub(super) struct Quality {
    text: PathBuf,
    context: usize,
    cut: Windows,
    before: Perplexity,
    /// What measuring took.
    pub spent: Duration,
}

impl Quality {
    /// Measures the model before: what is wrong with the text or the model shows before anything is pruned.
    pub fn new(text: &Path, job: &PruneJob, folder: &Folder, config: &Config, watch: &mut Watch<'_>) -> Result<Quality> {
        let begun = Instant::now();
        let cut = Windows::read(text, folder, config, job.context, job.windows, job.bos)?;
        let before = measure(folder, config, &cut, Stage::PerplexityBefore, watch)?;
        Ok(Quality { text: text.to_path_buf(), context: job.context, cut, before, spent: begun.elapsed() })
    }

    /// Of both models, with all that it takes to compare the numbers with others.
    pub fn before_and_after(self, after: &Folder, config: &Config, watch: &mut Watch<'_>) -> Result<PerplexityReport> {
        let after = measure(after, config, &self.cut, Stage::PerplexityAfter, watch)?;
        let before = self.before;
        Ok(PerplexityReport {
            text: self.text,
            context: self.context,
            windows: before.windows,
            predicted: before.predicted,
            text_tokens: self.cut.tokens,
            bos: self.cut.bos,
            before: before.perplexity,
            after: after.perplexity,
            nll_before: before.nll,
            nll_after: after.nll,
        })
    }
}

/// One block in memory at a time.
fn measure(folder: &Folder, config: &Config, cut: &Windows, stage: Stage, watch: &mut Watch<'_>) -> Result<Perplexity> {
    let losses = streamed_losses(folder, config, &cut.windows, FEATURES, |done, of| progress(watch, stage, done, of))?;
    let measured = Perplexity::of(&losses).map_err(|e| Error::malformed(folder.path(), e.to_string()))?;
    if measured.perplexity.is_infinite() {
        let nll = measured.nll;
        let text = format!("the {} is beyond the largest number, e^{nll:.1}: the mean of -ln p is {nll:.4}", stage.name());
        Error::go_on(watch(&Event::Note(text)))?;
    }
    Ok(measured)
}
