//! Which continuation a model finds likelier: multiple choice and last words.
//!
//! The rules are those of EleutherAI's evaluation harness. A continuation follows its context after a space, unless one of them brings
//! white space to the border or there is no context. Context and continuation are cut into tokens together; the tokens behind as many
//! as the context alone has are the continuation's (white space at the end of the context counts as the continuation's). Tokens that
//! end a text are left out: nothing ends between context and continuation. Where there is no context, the token that begins a text
//! stands for it, or the one that ends a text. What is longer than the model's positions loses its first tokens.

use crate::io::one_line;
use crate::{Error, Result};
use ndarray::Array2;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The most bytes of one line.
const LONGEST: u64 = 16 << 20;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// What comes before the choices.
    pub query: String,
    /// The continuations.
    pub choices: Vec<String>,
    /// Which of them is right, from 0.
    pub gold: usize,
}

/// One text whose end is to be guessed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LastWord {
    /// What comes before.
    pub context: String,
    /// The end.
    pub continuation: String,
}

/// What scoring asks of a tokenizer and its model.
#[derive(Clone, Copy)]
pub struct Encoding<'a> {
    /// The tokens of a text that goes on: with those that begin a text, if the model expects them, and without those that end one.
    pub open: &'a dyn Fn(&str) -> Result<Vec<u32>>,
    /// The tokens of a text alone.
    pub bare: &'a dyn Fn(&str) -> Result<Vec<u32>>,
    /// The token that stands where there is no context.
    pub prefix: Option<u32>,
    /// The most tokens that the model reads at once.
    pub longest: Option<usize>,
}

impl fmt::Debug for Encoding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoding").field("prefix", &self.prefix).field("longest", &self.longest).finish_non_exhaustive()
    }
}

/// A context and its continuation in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The tokens, of which the model reads all but the last.
    pub ids: Vec<u32>,
    /// Where those of the continuation begin; 1 or more.
    pub from: usize,
    /// How many tokens of the context were left out, because the model has no positions for them.
    pub cut: usize,
}

/// How often the right choice was the likeliest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChoiceScore {
    /// Questions.
    pub questions: usize,
    /// Share whose right choice has the largest log-likelihood.
    pub accuracy: f64,
    /// Share whose right choice has the largest log-likelihood for each of its characters.
    pub accuracy_normalised: f64,
    /// Questions that lost the first tokens of their context with a choice of theirs: see [`Joined::cut`].
    pub cut: usize,
}

/// How often the end was what the model would have said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LastWordScore {
    /// Texts.
    pub texts: usize,
    /// Share of which every token of the end is the likeliest one after those before it.
    pub accuracy: f64,
    /// `exp` of `nll`; infinite where that is more than 709.
    pub perplexity: f64,
    /// Mean over the texts of -log p of the whole end, natural logarithm.
    pub nll: f64,
    /// Texts that lost the first tokens of their context: see [`Joined::cut`].
    pub cut: usize,
}

/// The items of a file, and the lines that they stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines<T> {
    path: PathBuf,
    items: Vec<T>,
    numbers: Vec<usize>,
}

impl<T> Lines<T> {
    /// The items in order.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// Applies `f` to every item and its number, from 0.
    ///
    /// # Errors
    /// [`Error::Malformed`] with what `f` returns, naming the file and the item's line.
    pub fn try_map<U>(&self, mut f: impl FnMut(usize, &T) -> Result<U>) -> Result<Vec<U>> {
        let at = |i: usize, e: Error| Error::malformed(&self.path, format!("line {}: {e}", self.numbers[i]));
        self.items.iter().enumerate().map(|(i, item)| f(i, item).map_err(|e| at(i, e))).collect()
    }
}

/// Reads a file of one JSON object a line; empty lines are passed over. At most `most` are read. Lines count from 1, the empty ones too.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] naming the line that is no such object, or if there is none; [`Error::InvalidOption`] if `most` is 0.
pub fn read_lines<T: DeserializeOwned>(path: impl AsRef<Path>, most: Option<usize>) -> Result<Lines<T>> {
    let path = path.as_ref();
    if most == Some(0) {
        return Err(Error::invalid_option("items", "0 lines have no score"));
    }
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut source = BufReader::new(file);
    let (mut items, mut numbers) = (Vec::new(), Vec::new());
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = std::io::Read::take(&mut source, LONGEST).read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))?;
        if read == 0 || most.is_some_and(|most| items.len() >= most) {
            break;
        }
        if read as u64 == LONGEST {
            return Err(Error::malformed(path, format!("line {number} has more than {LONGEST} bytes")));
        }
        // Some editors put a mark of the byte order before a text.
        let content = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if content.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let refuse = |e: serde_json::Error| Error::malformed(path, format!("line {number}: {}", one_line(&e.to_string(), 200)));
        items.push(serde_json::from_slice(content).map_err(refuse)?);
        numbers.push(number);
    }
    if items.is_empty() {
        return Err(Error::malformed(path, "has no line with an item"));
    }
    Ok(Lines { path: path.to_path_buf(), items, numbers })
}

impl Question {
    /// Checks that there are choices, that each has a text, and that the right one is among them.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the numbers.
    pub fn check(&self) -> Result<()> {
        let (gold, n) = (self.gold, self.choices.len());
        if gold >= n {
            return Err(Error::invalid_option("gold", format!("is {gold}, and there are {n} choices, which count from 0")));
        }
        match self.choices.iter().position(String::is_empty) {
            None => Ok(()),
            Some(i) => Err(Error::invalid_option("choices", format!("choice {i} of {n} has no text"))),
        }
    }

    /// The tokens of every choice behind the query.
    ///
    /// # Errors
    /// As [`Question::check`] and [`join`], naming the choice.
    pub fn join(&self, encoding: &Encoding<'_>) -> Result<Vec<Joined>> {
        self.check()?;
        self.choices.iter().map(|choice| join(encoding, &self.query, choice)).collect()
    }
}

impl LastWord {
    /// The tokens of the end behind its context.
    ///
    /// # Errors
    /// As [`join`].
    pub fn join(&self, encoding: &Encoding<'_>) -> Result<Joined> {
        join(encoding, &self.context, &self.continuation)
    }
}

/// The tokens of a context and its continuation.
///
/// ```
/// use lacuna::eval::{Encoding, join};
/// let letters = |text: &str| Ok(text.chars().map(u32::from).collect::<Vec<_>>());
/// let encoding = Encoding { open: &letters, bare: &letters, prefix: Some(1), longest: Some(3) };
/// let joined = join(&encoding, "ab", "c")?; // a b, a space, c: the model reads the first three
/// assert_eq!((joined.ids, joined.from, joined.cut), (vec![97, 98, 32, 99], 2, 0));
/// let joined = join(&encoding, "", "c")?;
/// assert_eq!((joined.ids, joined.from), (vec![1, 99], 1));
/// let joined = join(&encoding, "abcdef", "g")?;
/// assert_eq!((joined.ids, joined.from, joined.cut), (vec![101, 102, 32, 103], 2, 4));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// What the encoding returns; [`Error::InvalidOption`] if the continuation has no tokens or more than the model has positions, or there is
/// neither a context nor a token that stands for one.
pub fn join(encoding: &Encoding<'_>, context: &str, continuation: &str) -> Result<Joined> {
    let refuse =
        |reason: String| Err(Error::invalid_option("continuation", format!("'{}': {reason}", one_line(continuation, 60))));
    let apart = context.ends_with(char::is_whitespace) || continuation.starts_with(char::is_whitespace) || context.is_empty();
    let whole = format!("{context}{}{continuation}", if apart { "" } else { " " });
    let before = context.trim_end();
    let (mut ids, mut from) = match before.is_empty() {
        false => ((encoding.open)(&whole)?, (encoding.open)(before)?.len()),
        true => {
            // Of a continuation that begins with that token itself, the token is the context.
            let mut ids = (encoding.bare)(&whole)?;
            let begun = encoding.prefix.is_some() && ids.first() == encoding.prefix.as_ref();
            match encoding.prefix.filter(|_| !begun) {
                Some(prefix) => ids.insert(0, prefix),
                None if begun => {}
                None => return refuse("there is no context, and the model names no token that begins or ends a text".into()),
            }
            (ids, 1)
        }
    };
    if from == 0 || from >= ids.len() {
        return refuse(format!("{from} tokens before it, {} with it: nothing to score", ids.len()));
    }
    let mut cut = 0;
    if let Some(longest) = encoding.longest {
        let scored = ids.len() - from;
        if scored > longest {
            return refuse(format!("has {scored} tokens; the model has {longest} positions"));
        }
        cut = ids.len().saturating_sub(longest + 1);
        ids.drain(..cut);
        from -= cut; // one token of the context stays at least
    }
    Ok(Joined { ids, from, cut })
}
/// Scores one question: the index of the likeliest choice, and of the likeliest for each of its characters. Of equals the first.
///
/// `choices` are those of [`Question::join`]. `nll(ids, from)` gives -log p of the tokens from `from` on, natural logarithm.
///
/// # Errors
/// What `nll` returns; [`Error::Numerical`] naming the choice whose losses are not finite.
///
/// # Panics
/// If there are not as many joined choices as choices, or `nll` gives another number of losses than there are tokens.
pub fn answer(
    question: &Question,
    choices: &[Joined],
    mut nll: impl FnMut(&[u32], usize) -> Result<Vec<f64>>,
) -> Result<(usize, usize)> {
    assert_eq!(question.choices.len(), choices.len(), "joined choices");
    let (mut plain, mut normalised) = ((0, f64::NEG_INFINITY), (0, f64::NEG_INFINITY));
    for (i, (text, Joined { ids, from, .. })) in question.choices.iter().zip(choices).enumerate() {
        let losses = nll(ids, *from)?;
        assert_eq!(losses.len(), ids.len() - from, "losses of choice {i}");
        finite(&losses).map_err(|e| Error::Numerical { what: format!("choice {i}"), reason: e })?;
        let score = -losses.iter().sum::<f64>();
        let each = score / text.chars().count() as f64;
        if score > plain.1 {
            plain = (i, score);
        }
        if each > normalised.1 {
            normalised = (i, each);
        }
    }
    Ok((plain.0, normalised.0))
}

/// Whether every token of the end is the likeliest one (of equals the first), and -log p of the end, natural logarithm.
///
/// `logits(ids, from)` gives those of what follows each token from the one before `from` on but the last, `(tokens from from on, vocab)`.
///
/// # Errors
/// What `logits` returns; [`Error::InvalidOption`] for a token outside the vocabulary; [`Error::Numerical`] if the logits are not finite.
///
/// # Panics
/// If `logits` gives another number of rows than there are tokens.
pub fn guess(text: &Joined, mut logits: impl FnMut(&[u32], usize) -> Result<Array2<f32>>) -> Result<(bool, f64)> {
    let Joined { ids, from, .. } = text;
    let logits = logits(ids, *from)?;
    assert_eq!(logits.nrows(), ids.len() - from, "rows of logits");
    let (mut right, mut losses) = (true, Vec::with_capacity(logits.nrows()));
    for (row, &id) in logits.rows().into_iter().zip(&ids[*from..]) {
        let Some(&said) = row.get(id as usize) else {
            let reason = format!("token {id} is outside the model's vocabulary of {}", row.len());
            return Err(Error::invalid_option("continuation", reason));
        };
        let (best, top) = row.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, &z)| if z > b.1 { (i, z) } else { b });
        // A NaN anywhere in the row is one in the sum, and so is an infinity that is the largest.
        let sum: f64 = row.iter().map(|z| f64::from(z - top).exp()).sum();
        losses.push(sum.ln() - f64::from(said - top));
        right &= best == id as usize;
    }
    finite(&losses).map_err(|e| Error::Numerical { what: "continuation".into(), reason: e })?;
    Ok((right, losses.iter().sum()))
}

/// Refuses losses that are NaN or infinite, which no ranking can use.
fn finite(losses: &[f64]) -> std::result::Result<(), String> {
    match losses.iter().position(|loss| !loss.is_finite()) {
        None => Ok(()),
        Some(i) => Err(format!("-log p of its token {} is {}: the model's numbers are not finite", i + 1, losses[i])),
    }
}

impl ChoiceScore {
    /// The score of these answers to questions, in their order: see [`Question::join`] and [`answer`]. The shares of none are NaN.
    ///
    /// # Panics
    /// If there are not as many of each.
    pub fn of(questions: &[Question], joined: &[Vec<Joined>], answers: &[(usize, usize)]) -> ChoiceScore {
        assert!(questions.len() == answers.len() && joined.len() == answers.len(), "{} answers", answers.len());
        let n = answers.len() as f64;
        let share = |pick: fn(&(usize, usize)) -> usize| {
            questions.iter().zip(answers).filter(|(q, a)| q.gold == pick(a)).count() as f64 / n
        };
        ChoiceScore {
            questions: answers.len(),
            accuracy: share(|a| a.0),
            accuracy_normalised: share(|a| a.1),
            cut: joined.iter().filter(|choices| choices.iter().any(|j| j.cut > 0)).count(),
        }
    }
}

impl LastWordScore {
    /// The score of these guesses at texts, in their order: see [`guess`]. Accuracy and perplexity of none are NaN.
    ///
    /// # Panics
    /// If there are not as many guesses as texts.
    pub fn of(texts: &[Joined], guesses: &[(bool, f64)]) -> LastWordScore {
        assert_eq!(texts.len(), guesses.len(), "guesses");
        let n = guesses.len() as f64;
        let right = guesses.iter().filter(|(right, _)| *right).count() as f64;
        let nll = guesses.iter().map(|(_, nll)| nll).sum::<f64>() / n;
        let cut = texts.iter().filter(|text| text.cut > 0).count();
        LastWordScore { texts: guesses.len(), accuracy: right / n, perplexity: nll.exp(), nll, cut }
    }
}
