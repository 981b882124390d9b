//! Which continuation a model finds likelier: multiple choice and last words.
//!
//! A continuation follows its context after a space, unless one of them brings white space to the border. Context and continuation
//! are cut into tokens together; the tokens behind those of the context alone are the continuation's (white space at the end of
//! the context counts as the continuation's). These are the rules of EleutherAI's evaluation harness.

use crate::io::one_line;
use crate::{Error, Result};
use ndarray::Array2;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::path::Path;

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

/// How often the right choice was the likeliest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChoiceScore {
    /// Questions.
    pub questions: usize,
    /// Share whose right choice has the largest log-likelihood.
    pub accuracy: f64,
    /// Share whose right choice has the largest log-likelihood for each of its characters.
    pub accuracy_normalised: f64,
}

/// How often the end was what the model would have said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LastWordScore {
    /// Texts.
    pub texts: usize,
    /// Share of which every token of the end is the likeliest one after those before it.
    pub accuracy: f64,
    /// `exp` of the mean over the texts of -log p of the whole end.
    pub perplexity: f64,
}

/// Reads a file of one JSON object a line; empty lines are passed over. At most `most` are read.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] naming the line that is no such object, or if there is none.
pub fn read_lines<T: DeserializeOwned>(path: impl AsRef<Path>, most: Option<usize>) -> Result<Vec<T>> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut source = BufReader::new(file);
    let mut items = Vec::new();
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
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let refuse = |e: serde_json::Error| Error::malformed(path, format!("line {number}: {}", one_line(&e.to_string(), 200)));
        items.push(serde_json::from_slice(&line).map_err(refuse)?);
    }
    if items.is_empty() {
        return Err(Error::malformed(path, "has no line with an item"));
    }
    Ok(items)
}

/// Checks that every question has choices and that its right one is among them.
///
/// # Errors
/// [`Error::Setting`] naming the question.
pub fn check_questions(questions: &[Question]) -> Result<()> {
    let wrong = |q: &Question| q.gold >= q.choices.len() || q.choices.iter().any(String::is_empty);
    match questions.iter().position(wrong) {
        None => Ok(()),
        Some(i) => {
            let (gold, n) = (questions[i].gold, questions[i].choices.len());
            let reason = format!("question {} has {n} choices, gold {gold}, or a choice without text", i + 1);
            Err(Error::setting("choices", reason))
        }
    }
}

/// The tokens of a context and its continuation, and where those of the continuation begin.
///
/// # Errors
/// What `encode` returns; [`Error::Setting`] if the context or the continuation has no tokens.
pub fn join(encode: impl Fn(&str) -> Result<Vec<u32>>, context: &str, continuation: &str) -> Result<(Vec<u32>, usize)> {
    let apart = context.ends_with(char::is_whitespace) || continuation.starts_with(char::is_whitespace) || context.is_empty();
    let space = if apart { "" } else { " " };
    let ids = encode(&format!("{context}{space}{continuation}"))?;
    let from = encode(context.trim_end())?.len();
    if from == 0 || from >= ids.len() {
        let reason = format!("{} tokens before it, {} with it: nothing to score", from, ids.len());
        return Err(Error::setting("continuation", format!("'{}': {reason}", one_line(continuation, 60))));
    }
    Ok((ids, from))
}

/// Scores one question: the index of the likeliest choice, and of the likeliest for each of its characters. Of equals the first.
///
/// `nll` gives -log p of every token but the first.
///
/// # Errors
/// As [`join`], and what `nll` returns.
pub fn answer(
    question: &Question,
    encode: impl Fn(&str) -> Result<Vec<u32>>,
    mut nll: impl FnMut(&[u32]) -> Result<Vec<f64>>,
) -> Result<(usize, usize)> {
    let (mut plain, mut normalised) = ((0, f64::NEG_INFINITY), (0, f64::NEG_INFINITY));
    for (i, choice) in question.choices.iter().enumerate() {
        let (ids, from) = join(&encode, &question.query, choice)?;
        let score = -nll(&ids)?[from - 1..].iter().sum::<f64>();
        let each = score / choice.chars().count() as f64;
        if score > plain.1 {
            plain = (i, score);
        }
        if each > normalised.1 {
            normalised = (i, each);
        }
    }
    Ok((plain.0, normalised.0))
}

/// Whether every token of the end is the likeliest one (of equals the first), and -log p of the end.
///
/// `logits` gives those of every position.
///
/// # Errors
/// As [`join`], and what `logits` returns.
pub fn guess(
    text: &LastWord,
    encode: impl Fn(&str) -> Result<Vec<u32>>,
    mut logits: impl FnMut(&[u32]) -> Result<Array2<f32>>,
) -> Result<(bool, f64)> {
    let (ids, from) = join(encode, &text.context, &text.continuation)?;
    let logits = logits(&ids)?;
    let (mut right, mut nll) = (true, 0.0);
    for (row, &id) in logits.rows().into_iter().skip(from - 1).zip(&ids[from..]) {
        let Some(&said) = row.get(id as usize) else {
            let reason = format!("token {id} is outside the model's vocabulary of {}", row.len());
            return Err(Error::setting("continuation", reason));
        };
        let (best, top) = row.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, &z)| if z > b.1 { (i, z) } else { b });
        let sum: f64 = row.iter().map(|z| f64::from(z - top).exp()).sum();
        nll += sum.ln() - f64::from(said - top);
        right &= best == id as usize;
    }
    Ok((right, nll))
}

impl ChoiceScore {
    /// The score of these answers: see [`answer`]; of none the shares are NaN.
    pub fn of(questions: &[Question], answers: &[(usize, usize)]) -> ChoiceScore {
        let n = answers.len() as f64;
        let share = |pick: fn(&(usize, usize)) -> usize| {
            questions.iter().zip(answers).filter(|(q, a)| q.gold == pick(a)).count() as f64 / n
        };
        ChoiceScore { questions: answers.len(), accuracy: share(|a| a.0), accuracy_normalised: share(|a| a.1) }
    }
}

impl LastWordScore {
    /// The score of these guesses: see [`guess`]; of none accuracy and perplexity are NaN.
    pub fn of(guesses: &[(bool, f64)]) -> LastWordScore {
        let n = guesses.len() as f64;
        let right = guesses.iter().filter(|(right, _)| *right).count() as f64;
        let nll: f64 = guesses.iter().map(|(_, nll)| nll).sum();
        LastWordScore { texts: guesses.len(), accuracy: right / n, perplexity: (nll / n).exp() }
    }
}
