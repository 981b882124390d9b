//! Documents to train on, out of files: texts, lines of JSON, token numbers.
//!
//! | file | documents | tokens |
//! |---|---|---|
//! | `.jsonl` | the `text` of each line | by the model's tokenizer (feature `text`) |
//! | `.safetensors` | `input_ids`, row after row, all together | as they are |
//! | any other | the whole text | by the model's tokenizer (feature `text`) |
//!
//! Between documents stands the token that the tokenizer names as the end of a text, if it names one.

use super::Config;
#[cfg(feature = "text")]
use super::tokens::first;
use super::tokens::{first_of_numbers, numbers};
use crate::data::{Bos, DocumentPacker, PackedDocuments};
use crate::io::Folder;
use crate::{Error, Result};
#[cfg(feature = "text")]
use crate::{data::read_text, text::Tokenizer};
use std::path::{Path, PathBuf};

impl PackedDocuments {
    /// Reads documents and packs them into sequences of `context` tokens; they lie on the disk of `scratch`. At most one document is in memory,
    /// or of `.safetensors` one file. `bos` says where the token that begins a text stands: before each document as the tokenizer puts it,
    /// nowhere, or at the start of each sequence.
    ///
    /// # Errors
    /// If a file cannot be read, or a line of `.jsonl` is no object with a `text` (with its number); if the model does not know a token, or has
    /// fewer positions than `context`; [`Error::InvalidOption`] if all tokens fill no sequence; without the feature `text`, for a text.
    pub fn read(
        files: &[PathBuf],
        folder: &Folder,
        config: &Config,
        (context, bos): (usize, Bos),
        scratch: &Path,
    ) -> Result<PackedDocuments> {
        if let Some(positions) = config.stated_context().filter(|p| context > *p) {
            return Err(Error::invalid_option("context", format!("{context} tokens; this model has {positions} positions")));
        }
        let mut packer = DocumentPacker::new(scratch)?;
        let mut first = None;
        let mut texts = Texts::default();
        for path in files {
            first = read(path, &mut texts, (folder, config), bos, &mut |ids, end| packer.document(ids, end))?;
        }
        packer.finish(context, first)
    }
}

/// Takes the tokens of a document, and the token that stands between two.
pub(super) type Take<'f> = dyn FnMut(&[u32], Option<u32>) -> Result<()> + 'f;

/// Calls `take` with each document of a file; gives the token that begins every sequence, if one does.
///
/// # Errors
/// As [`PackedDocuments::read`].
pub(super) fn documents(path: &Path, folder: &Folder, config: &Config, bos: Bos, take: &mut Take<'_>) -> Result<Option<u32>> {
    read(path, &mut Texts::default(), (folder, config), bos, take)
}

fn read(
    path: &Path,
    texts: &mut Texts,
    (folder, config): (&Folder, &Config),
    bos: Bos,
    take: &mut Take<'_>,
) -> Result<Option<u32>> {
    match numbers(path, config)? {
        Some(ids) => {
            take(&ids, None)?;
            first_of_numbers(folder, config, bos)
        }
        None => texts.add(path, folder, config, bos, take),
    }
}

/// Reads texts, with a tokenizer that is opened for the first of them.
#[cfg(feature = "text")]
#[derive(Default)]
struct Texts(Option<Tokenizer>);

#[cfg(feature = "text")]
impl Texts {
    /// Adds the documents of a file; gives the token that begins every sequence, if one does.
    fn add(&mut self, path: &Path, folder: &Folder, config: &Config, bos: Bos, take: &mut Take<'_>) -> Result<Option<u32>> {
        if self.0.is_none() {
            self.0 = Some(Tokenizer::open(folder.path())?);
        }
        let Some(tokenizer) = &self.0 else { return Ok(None) };
        let end = tokenizer.eos(folder.config()).filter(|id| (*id as usize) < config.vocab());
        let mut document = |text: &str| {
            let ids = if bos == Bos::Tokenizer { tokenizer.encode_open(text) } else { tokenizer.encode(text, false) }?;
            tokenizer.fits(&ids, config.vocab())?;
            take(&ids, end)
        };
        if path.extension().is_some_and(|e| e == "jsonl") {
            lines(path, &mut document)?
        } else {
            document(&read_text(path)?)?
        }
        first(tokenizer.bos(folder.config()), folder, config, bos)
    }
}

/// Calls `document` with the `text` of each line that is not empty.
#[cfg(feature = "text")]
fn lines(path: &Path, document: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    use std::io::BufRead;
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let (mut file, mut bytes, mut number, mut at) = (std::io::BufReader::new(file), Vec::new(), 0usize, 0u64);
    loop {
        bytes.clear();
        let read = file.read_until(b'\n', &mut bytes).map_err(|e| Error::io(path, e))?;
        if read == 0 {
            return Ok(());
        }
        let (begins, line) = (at, std::str::from_utf8(&bytes));
        (number, at) = (number + 1, at + read as u64);
        let line = line.map_err(|e| {
            let wrong = begins + e.valid_up_to() as u64;
            Error::malformed(path, format!("is not UTF-8 from byte {wrong} on, in line {number}")).at_byte(wrong)
        })?;
        if line.trim().is_empty() {
            continue;
        }
        let refuse = |reason: String| Error::malformed(path, format!("line {number}: {reason}"));
        let value: serde_json::Value = serde_json::from_str(line).map_err(|e| refuse(format!("is no JSON: {e}")))?;
        match value.get("text").and_then(serde_json::Value::as_str) {
            Some(text) => document(text)?,
            None => return Err(refuse("is no object with a text under the key 'text'".into())),
        }
    }
}

#[cfg(not(feature = "text"))]
#[derive(Default)]
struct Texts;

#[cfg(not(feature = "text"))]
impl Texts {
    fn add(&mut self, path: &Path, _: &Folder, _: &Config, _: Bos, _: &mut Take<'_>) -> Result<Option<u32>> {
        Err(super::tokens::no_tokenizers(path))
    }
}
