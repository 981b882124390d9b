//! What the commands on language models share.

use indicatif::{ProgressBar, ProgressStyle};
use lacuna::io::Folder;
use lacuna::models::lm::{Config, LanguageModel, Seq2Seq};
use lacuna::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Opens a model folder and reads its configuration; no weights.
pub fn open(dir: &Path) -> Result<(Folder, Config)> {
    let folder = Folder::open(dir)?;
    let config = Config::parse(&Value::Object(folder.config().clone())).map_err(|e| of(dir, e))?;
    Ok((folder, config))
}

/// An error, naming the folder it was met in.
pub fn of(dir: &Path, error: Error) -> Error {
    match error {
        e @ (Error::Io { .. } | Error::Malformed { .. }) => e,
        e => Error::malformed(dir, e.to_string()),
    }
}

/// Reads the weights of a decoder.
pub fn decoder(folder: &Folder, config: Config) -> Result<LanguageModel> {
    LanguageModel::load(folder, config).map_err(|e| of(folder.path(), e))
}

/// Reads the weights of an encoder-decoder.
pub fn seq2seq(folder: &Folder, config: Config) -> Result<Seq2Seq> {
    Seq2Seq::load(folder, config).map_err(|e| of(folder.path(), e))
}

/// A bar on a terminal, nothing elsewhere.
pub fn bar(length: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let style = ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len} {elapsed} (left: {eta})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}
