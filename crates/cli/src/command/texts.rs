//! Texts that are measured, in tokens and in windows: the same for `eval` and for `prune`.

use clap::ValueEnum;
use lacuna::eval::windows;
use lacuna::io::{Folder, read_ids};
use lacuna::lm::Config;
use lacuna::text::Tokenizer;
use lacuna::{Error, Result};
use std::path::Path;

/// Where the token that begins a text stands.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bos {
    /// As tokenizer.json puts it: once before the text, or not at all
    Tokenizer,
    /// Nowhere
    None,
    /// At the start of every window, in the place of one token of text
    Window,
}

/// The tokens of a text.
pub struct Tokens {
    /// All of them.
    pub ids: Vec<u32>,
    /// The token that begins every window, if one does.
    pub first: Option<u32>,
    /// Where the token that begins a text stands, in words.
    pub bos: String,
}

/// A text cut into windows.
pub struct Cut {
    /// Tokens of each window.
    pub windows: Vec<Vec<u32>>,
    /// Tokens of the whole text.
    pub tokens: usize,
    /// Where the token that begins a text stands, in words.
    pub bos: String,
}

impl Tokens {
    /// Of a text, or of a safetensors file with a tensor `input_ids`.
    ///
    /// # Errors
    /// If the file cannot be read, the model does not know its tokens, or `--bos window` is asked of a model that names no such token.
    pub fn of(path: &Path, (folder, config): (&Folder, &Config), bos: Bos) -> Result<Tokens> {
        let given = ids(path, config)?;
        let tokenizer = if given.is_some() { None } else { Some(Tokenizer::open(folder.path())?) };
        let ids = match (&tokenizer, given) {
            (Some(tokenizer), None) => {
                let text = read_text(path)?;
                let ids = if bos == Bos::Tokenizer { tokenizer.encode_open(&text) } else { tokenizer.encode(&text, false) }?;
                tokenizer.fits(&ids, config.vocab())?;
                ids
            }
            (_, given) => given.unwrap_or_default(),
        };
        let named = || match &tokenizer {
            Some(tokenizer) => tokenizer.bos(folder.config()),
            None => config.bos(),
        };
        let no_token = || Error::malformed(folder.path(), "names no token that begins a text; --bos window needs one");
        let first = if bos == Bos::Window { Some(named().ok_or_else(no_token)?) } else { None };
        if let Some(id) = first.filter(|id| *id as usize >= config.vocab()) {
            let reason = format!("the token that begins a text is {id}; the vocabulary has {}", config.vocab());
            return Err(Error::malformed(folder.path(), reason));
        }
        let shown = |id: u32| match tokenizer.as_ref().and_then(|t| t.token(id)) {
            Some(token) => format!("token {id} {token}"),
            None => format!("token {id}"),
        };
        let bos = match (bos, first, &tokenizer) {
            (_, Some(id), _) => format!("{} begins every window", shown(id)),
            (Bos::Tokenizer, _, Some(tokenizer)) => match tokenizer.first_special() {
                Some(id) => format!("{} once before the text, put by the tokenizer", shown(id)),
                None => "none (the tokenizer puts none)".to_string(),
            },
            (Bos::Tokenizer, _, None) => "none (the file has token numbers)".to_string(),
            _ => "none".to_string(),
        };
        Ok(Tokens { ids, first, bos })
    }

    /// The first `count` sequences of `context` tokens, one behind the other; `None` if there are not as many.
    pub fn sequences(&self, context: usize, count: usize) -> Option<Vec<u32>> {
        let fill = context.checked_sub(usize::from(self.first.is_some())).filter(|fill| *fill > 0)?;
        let parts = self.ids.chunks_exact(fill).take(count);
        let sequences = || parts.clone().flat_map(|part| self.first.iter().chain(part)).copied().collect();
        (parts.len() == count).then(sequences)
    }
}

impl Cut {
    /// Cuts a text, or a safetensors file with a tensor `input_ids`, into windows of `context` tokens, the first `most` of them.
    ///
    /// # Errors
    /// If it does not fill a window or the model has no positions for one, and as [`Tokens::of`].
    pub fn of(
        path: &Path,
        (folder, config): (&Folder, &Config),
        (context, most): (usize, Option<usize>),
        bos: Bos,
    ) -> Result<Cut> {
        if config.is_encoder_decoder() {
            return Err(Error::malformed(folder.path(), "is an encoder-decoder, which has no perplexity of a text alone"));
        }
        if let Some(learned) = config.max_positions().filter(|n| *n < context) {
            return Err(Error::setting("context", format!("{context} tokens; the model has learned {learned} positions")));
        }
        let Tokens { ids, first, bos } = Tokens::of(path, (folder, config), bos)?;
        let windows = windows(&ids, context, most, first).map_err(|e| Error::malformed(path, e.to_string()))?;
        Ok(Cut { windows, tokens: ids.len(), bos })
    }
}

/// The token numbers of a safetensors file, row after row; `None` if the path is that of no such file.
fn ids(path: &Path, config: &Config) -> Result<Option<Vec<u32>>> {
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

/// A text as it is in a file.
///
/// # Errors
/// If it cannot be read, or is not UTF-8 (with the place).
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::malformed(path, format!("is not UTF-8 from byte {at} on"))
    })
}

/// Says on stderr where a perplexity is beyond all numbers; its logarithm beside it is not.
pub fn say_overflow(what: &str, perplexity: f64, nll: f64) {
    if perplexity.is_infinite() {
        eprintln!("note: {what} is beyond the largest number, e^{nll:.1}: the mean of -ln p is {nll:.4}");
    }
}
