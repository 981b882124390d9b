//! Token numbers that a model knows, out of files: of texts by the model's own tokenizer (feature `text`), or as they stand in a safetensors
//! file.

use super::Config;
use crate::data::{Bos, Tokens, Windows, check_windows};
use crate::io::{Folder, read_ids};
use crate::{Error, Result};
#[cfg(feature = "text")]
use crate::{data::read_text, text::Tokenizer};
use std::path::Path;

impl Tokens {
    /// Of a text (feature `text`), or of a safetensors file with a tensor `input_ids`, row after row.
    ///
    /// # Errors
    /// If the file cannot be read, the model does not know its tokens, or [`Bos::Window`] is asked of a model that names no such token; without
    /// the feature `text`, for a text.
    pub fn read(path: &Path, folder: &Folder, config: &Config, bos: Bos) -> Result<Tokens> {
        match numbers(path, config)? {
            Some(ids) => {
                let first = first_of_numbers(folder, config, bos)?;
                let bos = match (bos, first) {
                    (_, Some(id)) => begins(format!("token {id}")),
                    (Bos::Tokenizer, _) => "none (the file has token numbers)".to_string(),
                    _ => "none".to_string(),
                };
                Ok(Tokens { ids, first, bos, bytes: None })
            }
            None => of_text(path, folder, config, bos),
        }
    }
}

impl Windows {
    /// Cuts a text (feature `text`), or a safetensors file with a tensor `input_ids`, into windows of `context` tokens, the first `most` of
    /// them.
    ///
    /// # Errors
    /// If it does not fill a window or the model has no positions for one, and as [`Tokens::read`].
    pub fn read(path: &Path, folder: &Folder, config: &Config, context: usize, most: Option<usize>, bos: Bos) -> Result<Windows> {
        if config.is_encoder_decoder() {
            return Err(Error::malformed(folder.path(), "is an encoder-decoder, which has no perplexity of a text alone"));
        }
        if let Some(learned) = config.max_positions().filter(|n| *n < context) {
            return Err(Error::invalid_option("context", format!("{context} tokens; the model has learned {learned} positions")));
        }
        check_windows(context, most)?;
        let tokens = Tokens::read(path, folder, config, bos)?;
        tokens.windows(context, most).map_err(|e| Error::malformed(path, e.to_string()))
    }
}

/// As [`first`], where tokens come as numbers.
pub(super) fn first_of_numbers(folder: &Folder, config: &Config, bos: Bos) -> Result<Option<u32>> {
    first(config.bos(), folder, config, bos)
}

/// The token that begins every window, if one is to: the one that the model or its tokenizer names.
pub(super) fn first(named: Option<u32>, folder: &Folder, config: &Config, bos: Bos) -> Result<Option<u32>> {
    let no_token = || Error::malformed(folder.path(), "names no token that begins a text; --bos window needs one");
    let first = if bos == Bos::Window { Some(named.ok_or_else(no_token)?) } else { None };
    match first.filter(|id| *id as usize >= config.vocab()) {
        None => Ok(first),
        Some(id) => {
            let reason = format!("the token that begins a text is {id}; the vocabulary has {}", config.vocab());
            Err(Error::malformed(folder.path(), reason))
        }
    }
}

fn begins(token: String) -> String {
    format!("{token} begins every window")
}

#[cfg(feature = "text")]
fn of_text(path: &Path, folder: &Folder, config: &Config, bos: Bos) -> Result<Tokens> {
    let tokenizer = Tokenizer::open(folder.path())?;
    let text = read_text(path)?;
    let ids = if bos == Bos::Tokenizer { tokenizer.encode_open(&text) } else { tokenizer.encode(&text, false) }?;
    tokenizer.fits(&ids, config.vocab())?;
    let first = first(tokenizer.bos(folder.config()), folder, config, bos)?;
    let shown = |id: u32| match tokenizer.token(id) {
        Some(token) => format!("token {id} {token}"),
        None => format!("token {id}"),
    };
    let bos = match (bos, first) {
        (_, Some(id)) => begins(shown(id)),
        (Bos::Tokenizer, _) => match tokenizer.first_special() {
            Some(id) => format!("{} once before the text, put by the tokenizer", shown(id)),
            None => "none (the tokenizer puts none)".to_string(),
        },
        _ => "none".to_string(),
    };
    Ok(Tokens { ids, first, bos, bytes: Some(text.len()) })
}

#[cfg(not(feature = "text"))]
fn of_text(path: &Path, _: &Folder, _: &Config, _: Bos) -> Result<Tokens> {
    Err(no_tokenizers(path))
}

/// What is said of a text by a build that cannot cut it into tokens.
#[cfg(not(feature = "text"))]
pub(super) fn no_tokenizers(path: &Path) -> Error {
    let reason = "is a text, and this build of the library has no tokenizers: build it with the feature 'text', or give a safetensors file with \
                  a tensor input_ids";
    Error::malformed(path, reason)
}

/// The token numbers of a safetensors file, row after row; `None` if the path is that of no such file.
pub(super) fn numbers(path: &Path, config: &Config) -> Result<Option<Vec<u32>>> {
    if path.extension().is_none_or(|e| e != "safetensors") {
        return Ok(None);
    }
    let found = read_ids(path, "input_ids")?.ok_or_else(|| Error::malformed(path, "has no tensor 'input_ids'"))?;
    let vocab = config.vocab();
    let known = |id: &i64| u32::try_from(*id).ok().filter(|id| (*id as usize) < vocab);
    let number =
        |id: &i64| known(id).ok_or_else(|| Error::malformed(path, format!("holds token {id}; the vocabulary has {vocab}")));
    found.iter().map(number).collect::<Result<_>>().map(Some)
}
