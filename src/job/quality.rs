//! The perplexity of texts before and after.

use super::event::{Event, Stage};
use super::excess::PerplexityReport;
use super::search::{Watch, progress};
use crate::data::{Bos, Windows, text_files};
use crate::eval::{Evaluated, TextScore};
use crate::io::Folder;
use crate::lm::Config;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of hidden states that a model keeps between its blocks.
const FEATURES: usize = 512 << 20;

/// Texts on which perplexity is measured, and that of the model before.
pub(super) struct Quality {
    texts: Vec<(PathBuf, Windows, TextScore)>,
    /// What measuring took.
    pub spent: Duration,
}

/// The texts whose perplexity is measured.
pub(super) fn texts_of(text: Option<&Path>) -> Result<Vec<PathBuf>> {
    text.map_or(Ok(vec![]), text_files)
}

/// Texts, and how they are cut.
pub(super) struct Texts {
    pub files: Vec<PathBuf>,
    pub context: usize,
    pub windows: Option<usize>,
    pub bos: Bos,
}

impl Quality {
    /// Measures the model before: what is wrong with a text or the model shows before anything is pruned. `None` if there is no text.
    pub fn new(asked: &Texts, folder: &Folder, config: &Config, watch: &mut Watch<'_>) -> Result<Option<Quality>> {
        let begun = Instant::now();
        let read = |text: PathBuf| Ok((Windows::read(&text, folder, config, asked.context, asked.windows, asked.bos)?, text));
        let cut = asked.files.iter().cloned().map(read).collect::<Result<Vec<_>>>()?;
        let mut texts = Vec::with_capacity(cut.len());
        for (windows, text) in cut {
            let before = measure(folder, config, (&text, &windows), Stage::PerplexityBefore, watch)?;
            texts.push((text, windows, before));
        }
        Ok((!texts.is_empty()).then(|| Quality { texts, spent: begun.elapsed() }))
    }

    /// Of both models, with all that it takes to compare the numbers with others. Where its tokens are `others`, texts are cut anew by its
    /// tokenizer; then bits a byte compare, and perplexities a token do not.
    pub fn before_and_after(
        self,
        after: &Folder,
        config: &Config,
        others: Option<&Texts>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<PerplexityReport>> {
        let mut reports = Vec::with_capacity(self.texts.len());
        for (text, mut windows, before) in self.texts {
            if let Some(asked) = others {
                windows = Windows::read(&text, after, config, asked.context, asked.windows, asked.bos)?;
            }
            let after = measure(after, config, (&text, &windows), Stage::PerplexityAfter, watch)?;
            reports.push(PerplexityReport::of(&before, &after, others.is_some()));
        }
        Ok(reports)
    }
}

/// One block in memory at a time.
fn measure(
    folder: &Folder,
    config: &Config,
    (text, windows): (&Path, &Windows),
    stage: Stage,
    watch: &mut Watch<'_>,
) -> Result<TextScore> {
    let model = Evaluated::Streamed { folder, config, features: FEATURES };
    let score = TextScore::measure(model, text, windows, &mut |done, of| progress(watch, stage, done, of));
    let score = score.map_err(|e| match e {
        e @ Error::Numerical { .. } => Error::malformed(folder.path(), e.to_string()),
        e => e,
    })?;
    if score.perplexity.is_infinite() {
        let nll = score.nll;
        let text = format!("the {} is beyond the largest number, e^{nll:.1}: the mean of -ln p is {nll:.4}", stage.name());
        Error::go_on(watch(&Event::Note(text)))?;
    }
    Ok(score)
}
