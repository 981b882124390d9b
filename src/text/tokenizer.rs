//! The tokenizer of a model folder.

use crate::io::folder::read::{read_json, read_small};
use crate::io::{one_line, quoted};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};

/// Text into tokens and back, as `tokenizer.json` says.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    /// The tokens that are put before a text, and those behind it.
    around: [Vec<u32>; 2],
    /// `tokenizer_config.json`, which names the tokens that begin and end a text.
    settings: Map<String, Value>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("path", &self.path).field("around", &self.around).finish_non_exhaustive()
    }
}

/// The file that names a tokenizer's special tokens.
pub(super) const SETTINGS: &str = "tokenizer_config.json";

/// Stands for a text where only what is put around it is of interest. No vocabulary has it.
const NO_TOKEN: u32 = u32::MAX;

thread_local! {
    /// Whether what is found impossible on this thread just now is an error of a file.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what the `tokenizers` library may find impossible in a file; `None` if it did.
fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    let before = GUARDED.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    GUARDED.set(before);
    result.ok()
}

/// Whether a panic of this thread just now is caught and becomes an error of a file: a hook that prints panics may keep silent.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

impl Tokenizer {
    /// Opens the `tokenizer.json` of a folder, and what `tokenizer_config.json` beside it names. What it says of cutting and padding
    /// texts is not followed.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the folder has none, or it is not one that the `tokenizers` library reads.
    pub fn open(folder: impl AsRef<Path>) -> Result<Tokenizer> {
        let folder = folder.as_ref();
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            let others = ["tokenizer.model", "vocab.json", "spiece.model"];
            let hint = others.iter().find(|name| folder.join(name).exists());
            let hint =
                hint.map_or(String::new(), |name| format!("; {name} is there, which is not read: save the fast tokenizer"));
            return Err(Error::malformed(folder, format!("has no tokenizer.json{hint}")));
        }
        let tokenizer = Tokenizer::from_bytes(&path, &read_small(&path)?)?;
        let settings = folder.join(SETTINGS);
        let settings = if settings.is_file() { read_json(&settings)? } else { Map::new() };
        Ok(Tokenizer { settings, ..tokenizer })
    }

    /// Reads the bytes of a `tokenizer.json`, without a `tokenizer_config.json` beside it; `path` names it in messages.
    ///
    /// # Errors
    /// [`Error::Malformed`] if they are none that the `tokenizers` library reads.
    pub fn from_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Tokenizer> {
        let path = path.as_ref().to_path_buf();
        let refuse = |e: String| Error::malformed(&path, format!("is no tokenizer: {}", one_line(&e, 300)));
        // As values first: the library's own reading of text stops the program at some of the errors that text can have. What
        // it still finds impossible in the values must not stop it either.
        let json: Value = serde_json::from_slice(bytes).map_err(|e| refuse(e.to_string()))?;
        let made = guarded(|| serde_json::from_value::<tokenizers::Tokenizer>(json));
        let made = made.ok_or_else(|| refuse("it contradicts itself".to_string()))?;
        let mut inner = made.map_err(|e| refuse(e.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| refuse(e.to_string()))?;
        let around = guarded(|| around(&inner)).ok_or_else(|| refuse("it contradicts itself".to_string()))?.map_err(refuse)?;
        Ok(Tokenizer { inner, path, around, settings: Map::new() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens, those added to the vocabulary included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The tokens of a text. With `special` the tokens that the model expects around a text are put there, as far as
    /// `tokenizer.json` says so.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the text cannot be cut into tokens of the vocabulary.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        // The fast way does not note where in the text each token stands.
        let refuse = |e: &str| Err(Error::malformed(&self.path, format!("cannot tokenise the text: {}", one_line(e, 300))));
        match guarded(|| self.inner.encode_fast(text, special)) {
            Some(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Some(Err(e)) => refuse(&e.to_string()),
            None => refuse("the file contradicts itself"),
        }
    }

    /// The text of tokens, those for control left out. Bytes that are no UTF-8 become `�`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the decoder of the file fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let refuse = |e: &str| Error::malformed(&self.path, format!("cannot decode: {}", one_line(e, 300)));
        let decoded = guarded(|| self.inner.decode(ids, true)).ok_or_else(|| refuse("the file contradicts itself"))?;
        decoded.map_err(|e| refuse(&e.to_string()))
    }

    /// The number of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of a number, as it stands in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The tokens of a text that goes on: those that `encode` puts before it, unless the text begins with them itself, and none of
    /// those that `encode` puts behind one.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_open(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text, false)?;
        let [before, _] = &self.around;
        Ok(if ids.starts_with(before) { ids } else { [before, &ids[..]].concat() })
    }

    /// The token that begins a text: the one that `encode` puts there, else the one that `tokenizer_config.json` names, else the one that
    /// these settings of the model name (`bos_token_id`).
    pub fn bos(&self, config: &Map<String, Value>) -> Option<u32> {
        self.first_special().or_else(|| self.named("bos_token", config))
    }

    /// The token that ends a text: the one that `tokenizer_config.json` names, else the one that these settings of the model name
    /// (`eos_token_id`).
    pub fn eos(&self, config: &Map<String, Value>) -> Option<u32> {
        self.named("eos_token", config)
    }

    /// The token that stands before a text where many follow one another: the one that `encode` puts there, else `<|endoftext|>` where that is a token
    /// for control, else the one that begins, else the one that ends a text.
    pub fn between(&self, config: &Map<String, Value>) -> Option<u32> {
        self.first_special().or_else(|| self.control("<|endoftext|>")).or_else(|| self.bos(config)).or_else(|| self.eos(config))
    }

    /// The token that `encode` puts before a text.
    pub fn first_special(&self) -> Option<u32> {
        self.around[0].first().copied()
    }

    /// The number of a token for control, by its text.
    pub fn control(&self, text: &str) -> Option<u32> {
        let id = self.id(text)?;
        self.inner.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special).then_some(id)
    }

    /// A token that the tokenizer's settings name by its text, or the model's by its number. A `null` of the former is an answer.
    fn named(&self, key: &str, config: &Map<String, Value>) -> Option<u32> {
        if let Some(token) = self.settings.get(key) {
            return token.as_str().or_else(|| token.get("content")?.as_str()).and_then(|text| self.id(text));
        }
        let id = config.get(&format!("{key}_id"))?;
        id.as_u64().or_else(|| id.get(0)?.as_u64()).and_then(|id| u32::try_from(id).ok())
    }

    /// Holds tokens against a model's vocabulary.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the first token that is not below `vocabulary`.
    pub fn fits(&self, ids: &[u32], vocabulary: usize) -> Result<()> {
        match ids.iter().find(|id| **id as usize >= vocabulary) {
            None => Ok(()),
            Some(id) => {
                let token = quoted(&self.token(*id).unwrap_or_default());
                Err(Error::malformed(
                    &self.path,
                    format!("token {id}, {token}, is outside the model's vocabulary of {vocabulary}"),
                ))
            }
        }
    }

    /// Turns tokens that come one by one into text that comes in whole characters.
    pub fn typist(&self) -> StreamDecoder<'_> {
        StreamDecoder { tokenizer: self, ids: Vec::new(), shown: 0 }
    }
}

/// What is put before a text and behind it.
fn around(inner: &tokenizers::Tokenizer) -> std::result::Result<[Vec<u32>; 2], String> {
    let text = vec![tokenizers::Token::new(NO_TOKEN, "a".to_string(), (0, 1))];
    let made = inner.post_process(tokenizers::Encoding::from_tokens(text, 0), None, true).map_err(|e| e.to_string())?;
    let ids = made.get_ids();
    let text = |id: &u32| *id == NO_TOKEN;
    Ok(match (ids.iter().position(text), ids.iter().rposition(text)) {
        (Some(first), Some(last)) => [ids[..first].to_vec(), ids[last + 1..].to_vec()],
        _ => return Err("its post-processor leaves the text out".to_string()),
    })
}

/// See [`Tokenizer::typist`].
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The last tokens: those whose text was given out last, and those whose text was not yet.
    ids: Vec<u32>,
    /// How many of them were given out.
    shown: usize,
}

impl StreamDecoder<'_> {
    /// Takes a token; what can be read now that could not before, which is nothing in the middle of a character.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.since()?;
        if text.is_empty() || text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        // The tokens that were given out now stay as context: a space before a word may depend on them.
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(text)
    }

    /// What is left at the end, unfinished characters as `�`.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        self.since()
    }

    /// The text of the tokens that were not given out.
    fn since(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[..self.shown])?;
        let all = self.tokenizer.decode(&self.ids)?;
        Ok(all.strip_prefix(&before).unwrap_or(&all).to_string())
    }
}
