//! Token numbers of a text: whole, as sequences to calibrate on, and as windows to measure a perplexity on.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the token that begins a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bos {
    /// As tokenizer.json puts it: once before the text, or not at all.
    #[default]
    Tokenizer,
    /// Nowhere.
    None,
    /// At the start of every window, in the place of one token of text.
    Window,
}

impl Bos {
    /// All of them.
    pub const ALL: [Bos; 3] = [Bos::Tokenizer, Bos::None, Bos::Window];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            Bos::Tokenizer => "tokenizer",
            Bos::None => "none",
            Bos::Window => "window",
        }
    }
}

impl fmt::Display for Bos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bos {
    type Err = Error;

    /// # Errors
    /// If the text is none of tokenizer, none and window.
    fn from_str(s: &str) -> Result<Bos> {
        let found = Bos::ALL.into_iter().find(|bos| bos.name() == s);
        found.ok_or_else(|| Error::invalid_option("bos", format!("'{s}' is none of tokenizer, none, window")))
    }
}

/// The tokens of a text. [`Tokens::read`] has them from a file.
///
/// ```
/// use lacuna::data::Tokens;
/// let tokens = Tokens { ids: vec![5, 6, 7, 8, 9], first: Some(1), bos: "token 1 begins every window".into(), bytes: None };
/// let calibration = tokens.sequences(3, 2).unwrap();
/// assert_eq!((calibration.ids(), calibration.length()), (&[1, 5, 6, 1, 7, 8][..], 3));
/// assert!(tokens.sequences(3, 3).is_none(), "the text is too short");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// All of them.
    pub ids: Vec<u32>,
    /// The token that begins every sequence or window, if one does.
    pub first: Option<u32>,
    /// Where the token that begins a text stands, in words.
    pub bos: String,
    /// Bytes of the text; `None` where it came as token numbers.
    pub bytes: Option<usize>,
}

impl Tokens {
    /// The first `count` sequences of `context` tokens, each begun by [`Tokens::first`]; `None` if there are not as many, or none is asked for.
    pub fn sequences(&self, context: usize, count: usize) -> Option<Sequences> {
        let fill = context.checked_sub(usize::from(self.first.is_some())).filter(|fill| *fill > 0)?;
        let parts = self.ids.chunks_exact(fill).take(count);
        let sequences = || parts.clone().flat_map(|part| self.first.iter().chain(part)).copied().collect();
        if parts.len() == count { Sequences::new(sequences(), context).ok() } else { None }
    }

    /// The text cut into windows of `context` tokens, the first `most` of them; see [`windows`].
    ///
    /// # Errors
    /// As [`windows`].
    pub fn windows(&self, context: usize, most: Option<usize>) -> Result<Windows> {
        let windows = windows(&self.ids, context, most, self.first)?;
        Ok(Windows { windows, tokens: self.ids.len(), bos: self.bos.clone(), bytes: self.bytes })
    }
}

/// Whole sequences of tokens, all of one length, one behind the other: at least one of at least one token.
///
/// ```
/// use lacuna::data::Sequences;
/// let calibration = Sequences::new(vec![3, 1, 4, 1, 5, 9], 3)?;
/// assert_eq!((calibration.len(), calibration.iter().next()), (2, Some(&[3, 1, 4][..])));
/// assert_eq!(
///     Sequences::new(vec![3, 1, 4, 1], 3).unwrap_err().to_string(),
///     "calibration: 4 tokens are not whole sequences of 3"
/// );
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    ids: Vec<u32>,
    length: usize,
    /// The text of each sequence; empty where all are of one.
    texts: Vec<usize>,
    /// A text that is only judged by.
    held_out: Option<usize>,
}

impl Sequences {
    /// Sequences of `length` tokens each.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if there are no tokens, or they are not whole sequences of `length`.
    pub fn new(ids: Vec<u32>, length: usize) -> Result<Sequences> {
        if length == 0 || ids.is_empty() || ids.len() % length != 0 {
            return Err(Error::invalid_option(
                "calibration",
                format!("{} tokens are not whole sequences of {length}", ids.len()),
            ));
        }
        Ok(Sequences { ids, length, texts: Vec::new(), held_out: None })
    }

    /// One sequence of one token, for what runs nothing.
    pub fn nothing() -> Sequences {
        Sequences { ids: vec![0], length: 1, texts: Vec::new(), held_out: None }
    }

    /// The same, with the text that each sequence is of, by numbers from 0.
    ///
    /// ```
    /// use lacuna::data::Sequences;
    /// let two = Sequences::new(vec![3, 1, 4, 1, 5, 9], 2)?.of_texts(vec![0, 1, 0])?.hold_out(1)?;
    /// assert_eq!((two.text(2), two.text_count(), two.fitted().ids()), (0, 2, &[3, 1, 5, 9][..]));
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one a sequence.
    pub fn of_texts(self, texts: Vec<usize>) -> Result<Sequences> {
        match texts.len() == self.len() {
            true => Ok(Sequences { texts, ..self }),
            false => Err(Error::shape("texts of sequences", &[self.len()], &[texts.len()])),
        }
    }

    /// The same, where one text is only judged by: what is fitted is fitted on the others.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if no sequence, or every one, is of this text.
    pub fn hold_out(self, text: usize) -> Result<Sequences> {
        let of = (0..self.len()).filter(|n| self.text(*n) == text).count();
        match of > 0 && of < self.len() {
            true => Ok(Sequences { held_out: Some(text), ..self }),
            false => {
                let reason = format!("{of} of {} sequences are of text {text}; some must be, and some of others", self.len());
                Err(Error::invalid_option("hold-out", reason))
            }
        }
    }

    /// The text of a sequence.
    pub fn text(&self, sequence: usize) -> usize {
        self.texts.get(sequence).copied().unwrap_or(0)
    }

    /// How many texts there are: one more than the largest number.
    pub fn text_count(&self) -> usize {
        self.texts.iter().max().map_or(1, |most| most + 1)
    }

    /// The text that is only judged by.
    pub fn held_out(&self) -> Option<usize> {
        self.held_out
    }

    /// The sequences that are fitted on: all but those held out.
    pub fn fitted(&self) -> Sequences {
        let fitted: Vec<usize> = (0..self.len()).filter(|n| Some(self.text(*n)) != self.held_out).collect();
        let left = self.select(&fitted).filter(|_| self.held_out.is_some());
        left.map_or_else(|| self.clone(), |left| Sequences { held_out: None, ..left })
    }

    /// All tokens, one sequence behind the other.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens of a sequence.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many sequences there are.
    #[allow(clippy::len_without_is_empty)] // there is at least one
    pub fn len(&self) -> usize {
        self.ids.len() / self.length
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// One sequence after another.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, u32> {
        self.ids.chunks_exact(self.length)
    }

    /// Some of the sequences, by their numbers; `None` if one is not there, or none is asked for.
    pub fn select(&self, sequences: &[usize]) -> Option<Sequences> {
        let parts = sequences.iter().map(|&n| self.iter().nth(n)).collect::<Option<Vec<_>>>()?;
        let texts = if self.texts.is_empty() { vec![] } else { sequences.iter().map(|&n| self.text(n)).collect() };
        Some(Sequences { texts, held_out: self.held_out, ..Sequences::new(parts.concat(), self.length).ok()? })
    }

    /// As many of the first sequences as `tokens` tokens have room for; where they are fewer than one sequence, one that is cut to them.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if no token is left.
    pub fn first(&self, tokens: usize) -> Result<Sequences> {
        let tokens = tokens.min(self.ids.len());
        let length = self.length.min(tokens);
        let whole = tokens.checked_div(length).unwrap_or(0) * length;
        let texts = self.texts.iter().take(whole / length.max(1)).copied().collect();
        Ok(Sequences { texts, held_out: self.held_out, ..Sequences::new(self.ids[..whole].to_vec(), length)? })
    }
}

/// A text cut into windows. [`Windows::read`] has them from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of each window.
    pub windows: Vec<Vec<u32>>,
    /// Tokens of the whole text.
    pub tokens: usize,
    /// Where the token that begins a text stands, in words.
    pub bos: String,
    /// Bytes of the whole text; `None` where it came as token numbers.
    pub bytes: Option<usize>,
}

/// The windows of a text: `context` tokens each, the first `most` of them. With `first` every window begins with that token
/// and has `context - 1` of the text.
///
/// ```
/// use lacuna::data::windows;
/// let ids = [5, 6, 7, 8, 9, 10, 11];
/// assert_eq!(windows(&ids, 3, None, None)?, [[5, 6, 7], [8, 9, 10]]);
/// assert_eq!(windows(&ids, 3, Some(1), Some(1))?, [[1, 5, 6]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidOption`] if a window has fewer than 2 tokens of the text in it, `most` is 0, or the text does not fill one window.
pub fn windows(ids: &[u32], context: usize, most: Option<usize>, first: Option<u32>) -> Result<Vec<Vec<u32>>> {
    check_windows(context, most)?;
    let fill = context - usize::from(first.is_some());
    if ids.len() < fill {
        return Err(Error::invalid_option(
            "context",
            format!("the text has {} tokens, fewer than one window of {fill}", ids.len()),
        ));
    }
    let window = |part: &[u32]| first.iter().chain(part).copied().collect();
    Ok(ids.chunks_exact(fill).take(most.unwrap_or(usize::MAX)).map(window).collect())
}

/// Refuses windows in which nothing is predicted, and none at all.
pub(crate) fn check_windows(context: usize, most: Option<usize>) -> Result<()> {
    if context < 2 {
        return Err(Error::invalid_option("context", format!("{context} tokens leave none to predict; at least 2 are needed")));
    }
    match most {
        Some(0) => Err(Error::invalid_option("windows", "0 windows have no perplexity")),
        _ => Ok(()),
    }
}

/// The files of a list `a.txt,b.txt`. A file whose name has commas is one, if it is there.
///
/// # Errors
/// [`Error::InvalidOption`] if a part of the list is empty.
pub fn text_files(list: &Path) -> Result<Vec<PathBuf>> {
    let Some(text) = list.to_str().filter(|text| text.contains(',') && !list.exists()) else {
        return Ok(vec![list.to_path_buf()]);
    };
    if text.split(',').any(str::is_empty) {
        return Err(Error::invalid_option("text", format!("'{text}' names an empty file; several are a.txt,b.txt")));
    }
    Ok(text.split(',').map(PathBuf::from).collect())
}

/// A text as it is in a file.
///
/// # Errors
/// If it cannot be read, or is not UTF-8 (with the place).
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
        Error::malformed(path, format!("is not UTF-8 from byte {at} on, in line {line}")).at_byte(at as u64)
    })
}
