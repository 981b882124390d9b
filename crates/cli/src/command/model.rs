//! What the commands on language models share.

use indicatif::{ProgressBar, ProgressStyle};
use lacuna::io::Folder;
use lacuna::lm::{Config, Inference, LanguageModel, Seq2Seq, remark};
use lacuna::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Opens a model folder and reads its configuration; no weights. What a user should know of the folder goes to stderr.
pub fn open(dir: &Path) -> Result<(Folder, Config)> {
    let folder = Folder::open(dir)?;
    let config = Config::parse(&Value::Object(folder.config().clone())).map_err(|e| of(dir, e))?;
    say_remarks(&folder, &config)?;
    Ok((folder, config))
}

/// Says on stderr where a folder is not what it seems.
pub fn say_remarks(folder: &Folder, config: &Config) -> Result<()> {
    let tied = remark(folder, config).map_err(|e| of(folder.path(), e))?;
    for line in folder.remark().into_iter().chain(tied) {
        eprintln!("note: {}: {line}", folder.path().display());
    }
    Ok(())
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

/// Reads the weights of a decoder into the storages asked for; and says what they became.
pub fn stored(folder: &Folder, config: Config, inference: Inference) -> Result<(LanguageModel, Value, String)> {
    let (model, kept) = LanguageModel::load_stored(folder, config, inference).map_err(|e| of(folder.path(), e))?;
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for layer in &kept {
        let (layers, bytes) = counts.entry(format!("{} of {}", layer.format, layer.values)).or_default();
        *layers += 1;
        *bytes += layer.bytes;
    }
    let part = |(format, (layers, bytes)): (&String, &(usize, usize))| {
        format!("{layers} layers {format} ({:.1} MB)", *bytes as f64 / 1e6)
    };
    let line = counts.iter().map(part).collect::<Vec<_>>().join(", ");
    let all: usize = kept.iter().map(|k| k.bytes).sum();
    let value: serde_json::Map<String, Value> =
        counts.into_iter().map(|(format, (layers, bytes))| (format, json!({"layers": layers, "bytes": bytes}))).collect();
    Ok((model, json!({"stored_bytes": all, "formats": value}), line))
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
