//! One way to measure what a language model makes of a text, whole in memory or a block at a time, and one set of conventions to print.

use super::{Perplexity, streamed_losses};
use crate::data::Windows;
use crate::io::Folder;
use crate::lm::{Config, LanguageModel};
use crate::{Error, Result};
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A language model to be measured.
#[derive(Debug, Clone, Copy)]
pub enum Evaluated<'a> {
    /// Whole in memory.
    Memory(&'a LanguageModel),
    /// One block of a folder in memory at a time.
    Streamed {
        /// The folder.
        folder: &'a Folder,
        /// What its `config.json` says.
        config: &'a Config,
        /// Bytes that the windows' hidden states may take between blocks.
        features: usize,
    },
}

/// What a language model makes of one text, and how that was measured: numbers of other contexts, or with the first token elsewhere, are not
/// comparable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextScore {
    /// The text's file.
    pub text: PathBuf,
    /// Tokens of a window.
    pub context: usize,
    /// Windows.
    pub windows: usize,
    /// Tokens of all windows.
    pub tokens: usize,
    /// Tokens of the whole text.
    pub text_tokens: usize,
    /// Tokens that were predicted: all but the first of each window.
    pub predicted: usize,
    /// Where the token that begins a text stands, in words.
    pub bos: String,
    /// `exp` of the mean −ln p; infinite, in JSON null, where that is more than 709.
    pub perplexity: f64,
    /// The mean of −ln p over the predicted tokens, in nats.
    pub nll: f64,
    /// Bits a byte of text, comparable between tokenizers: `nll / ln 2 · L_T / L_B`, tokens over bytes of the whole text (Gao et al. 2020, *The
    /// Pile*, arXiv:2101.00027, section 3.1). `None` where the text came as token numbers.
    pub bits_per_byte: Option<f64>,
    /// Seconds of running the model.
    pub seconds: f64,
    /// Tokens of windows a second.
    pub tokens_per_second: f64,
}

impl TextScore {
    /// Measures a text that was cut into windows of `context` tokens. `see` is told how many windows, or blocks of a model that is streamed, of
    /// all are done, and may stop.
    ///
    /// # Errors
    /// Those of running the model; [`Error::Numerical`] if what it gives is not finite; [`Error::Interrupted`] if `see` stops.
    pub fn measure(
        model: Evaluated<'_>,
        text: &Path,
        windows: &Windows,
        see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<TextScore> {
        let begun = Instant::now();
        let all = &windows.windows;
        let losses = match model {
            Evaluated::Memory(model) => {
                let mut losses = Vec::with_capacity(all.len());
                for ids in all {
                    losses.push(model.nll(ids)?);
                    Error::go_on(see(losses.len(), all.len()))?;
                }
                losses
            }
            Evaluated::Streamed { folder, config, features } => streamed_losses(folder, config, all, features, see)?,
        };
        let seconds = begun.elapsed().as_secs_f64();
        let Perplexity { perplexity, nll, windows: count, predicted } = Perplexity::of(&losses)?;
        let context = all.first().map_or(0, Vec::len);
        let tokens = count * context;
        let per_byte = |bytes: usize| nll / std::f64::consts::LN_2 * windows.tokens as f64 / bytes as f64;
        Ok(TextScore {
            text: text.to_path_buf(),
            context,
            windows: count,
            tokens,
            text_tokens: windows.tokens,
            predicted,
            bos: windows.bos.clone(),
            perplexity,
            nll,
            bits_per_byte: windows.bytes.filter(|bytes| *bytes > 0).map(per_byte),
            seconds,
            tokens_per_second: tokens as f64 / seconds,
        })
    }

    /// What it was measured on, in words.
    pub fn setting(&self) -> String {
        format!("context {}, {} windows, BOS: {}", self.context, self.windows, self.bos)
    }
}
