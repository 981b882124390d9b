//! One error type for the whole library: the message carries the numbers and names the file, layer or option.
//!
//! Data from outside and anything a user can configure returns [`Result`]; a broken contract between functions is an
//! `assert!`, listed under `# Panics`.

use std::ops::ControlFlow;
use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong with what a user gives: files, options, layers, numbers.
///
/// `Display` is one line, fit to be printed as it is: line breaks and their like, which names and texts from outside may have, are shown
/// escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file.
    #[error("{}: {}", whole(path.display()), line(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read and is not what it should be.
    #[error("{}: {}", whole(path.display()), line(reason))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the numbers.
        reason: String,
        /// The byte at which it was found, where that is known.
        offset: Option<u64>,
    },
    /// Something stands where something is to be written.
    #[error("{}: {}", whole(path.display()), line(reason))]
    Exists {
        /// What is in the way.
        path: PathBuf,
        /// What to do about it.
        reason: String,
    },
    /// An option lies outside its range, contradicts another, or cannot be met.
    #[error("{}: {}", line(option), line(reason))]
    InvalidOption {
        /// The option as its user knows it, for example `sparsity`.
        option: String,
        /// The value and the values that are allowed.
        reason: String,
    },
    /// A NaN or an infinity where only finite numbers have a meaning.
    #[error("{}: {value} at row {row}, column {col}; only finite numbers can be ranked or stored", line(what))]
    NotFinite {
        /// What was read, for example `scores`.
        what: String,
        /// Row of the first such entry.
        row: usize,
        /// Column of the first such entry.
        col: usize,
        /// The entry.
        value: f64,
    },
    /// Two shapes that must agree do not.
    #[error("{}: expected shape {expected:?}, found {found:?}", line(what))]
    Shape {
        /// What has the shape.
        what: String,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A count that cannot be kept.
    #[error("budget: cannot keep {keep} of {of}: {reason}")]
    Budget {
        /// How many were to stay.
        keep: usize,
        /// Of how many.
        of: usize,
        /// Why that is impossible.
        reason: String,
    },
    /// A pattern that cannot be laid over a matrix of this shape.
    #[error("pattern {pattern} does not fit a {rows} x {cols} matrix: {reason}")]
    Pattern {
        /// The pattern, as it is written.
        pattern: String,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Why it does not fit.
        reason: String,
    },
    /// A mask that is not of the pattern it is said to have; the first place where it is not.
    #[error("mask is not {pattern}: {place} {found}")]
    Violation {
        /// The pattern, as it is written.
        pattern: String,
        /// Where, for example `row 3, columns 8..12`.
        place: String,
        /// What stands there.
        found: String,
    },
    /// A criterion was asked for scores without what it needs.
    #[error("{criterion} needs {need} of layer {}, which was not measured", line(layer))]
    MissingEvidence {
        /// The criterion.
        criterion: String,
        /// What it needs.
        need: String,
        /// The layer.
        layer: String,
    },
    /// A name of something that does not exist: a layer, a method, an allocation, a setting.
    #[error("no {kind} is named '{}' among {known}{}", shown(name), nearest.as_ref().map(|n| format!("; did you mean '{}'?", shown(n))).unwrap_or_default())]
    UnknownName {
        /// What was to have the name, for example `layer` or `method`.
        kind: String,
        /// The name that was asked for.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
        /// How many names exist.
        known: usize,
    },
    /// Something that is not known here, whatever the numbers.
    #[error("{}: {}", line(what), line(reason))]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Where it is known, or what does instead.
        reason: String,
    },
    /// A matrix that had to be positive definite is not.
    #[error("{}: the {order} x {order} matrix is not positive definite (at column {column}); {hint}", line(what))]
    NotPositiveDefinite {
        /// Which matrix, of which layer.
        what: String,
        /// Its order.
        order: usize,
        /// The column at which the factorisation failed, from 0.
        column: usize,
        /// What would help.
        hint: String,
    },
    /// A factorisation that did not come to an end.
    #[error("{}: {}", line(what), line(reason))]
    Numerical {
        /// Which computation.
        what: String,
        /// What happened, with the numbers.
        reason: String,
    },
    /// An error met while working on one layer.
    #[error("layer {}: {source}", shown(layer))]
    Layer {
        /// The layer's name.
        layer: String,
        /// What went wrong there.
        source: Box<Error>,
    },
    /// A callback asked a run to stop.
    #[error("interrupted")]
    Interrupted,
    /// A run that ended on an error when a part of it was done.
    #[error("{source}; what is done is kept in {}: --resume goes on from there", part.display())]
    Unfinished {
        /// Its working folder.
        part: PathBuf,
        /// What it ended on.
        source: Box<Error>,
    },
}

/// Characters of a part of a message at most: a text out of a file may be as long as the file.
const LONGEST: usize = 450;

/// A text with the characters escaped that break a line or do the like.
fn whole(text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let visible = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(visible).collect()
}

/// The same, its end left out where it is long.
fn line(text: impl std::fmt::Display) -> String {
    let text = whole(text);
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A name that may come from a file, fit for a message of one line: at most 100 characters.
fn shown(name: &str) -> String {
    let rest = if name.chars().nth(100).is_some() { "…" } else { "" };
    line(name.chars().take(100).collect::<String>()) + rest
}

/// Bytes of the longest name that is compared with others: names of files may be as long as the files, and a comparison takes time and
/// memory by the product of both lengths.
const COMPARED: usize = 200;

/// The nearest of the known names, unless none is near.
fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let compared = known.iter().filter(|k| k.len().max(name.len()) <= COMPARED);
    let (distance, nearest) = compared.map(|k| (strsim::damerau_levenshtein(name, k), *k)).min()?;
    (distance <= nearest.len().max(name.len()) / 2).then(|| nearest.to_string())
}

impl Error {
    /// An option outside its range.
    pub fn invalid_option(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::InvalidOption { option: option.into(), reason: reason.into() }
    }

    /// A file that is not what it should be.
    pub fn malformed(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Malformed { path: path.into(), reason: reason.into(), offset: None }
    }

    /// The same error of a file, with the byte at which it was found; others stay as they are.
    pub fn at_byte(self, at: u64) -> Self {
        match self {
            Error::Malformed { path, reason, .. } => Error::Malformed { path, reason, offset: Some(at) },
            e => e,
        }
    }

    /// What stands in the way of an output.
    pub fn exists(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Exists { path: path.into(), reason: reason.into() }
    }

    /// Something that is not known here.
    pub fn unsupported(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Unsupported { what: what.into(), reason: reason.into() }
    }

    /// What the system said of a file.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), source }
    }

    /// Two shapes that do not agree.
    pub fn shape(what: impl Into<String>, expected: &[usize], found: &[usize]) -> Self {
        Error::Shape { what: what.into(), expected: expected.to_vec(), found: found.to_vec() }
    }

    /// An unknown name, with the nearest of the known ones as a suggestion.
    ///
    /// ```
    /// let known = ["fc1.weight", "fc2.weight"];
    /// let e = lacuna_sparse::Error::unknown_layer("fc1.wieght", known.into_iter());
    /// assert!(e.to_string().ends_with("did you mean 'fc1.weight'?"));
    /// ```
    pub fn unknown_layer<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Error::unknown_name("layer", name, known)
    }

    /// An unknown name of a method, a setting or the like, with the nearest of the known ones as a suggestion.
    ///
    /// ```
    /// let e = lacuna_sparse::Error::unknown_name("method", "wnada", ["magnitude", "wanda"].into_iter());
    /// assert_eq!(e.to_string(), "no method is named 'wnada' among 2; did you mean 'wanda'?");
    /// ```
    pub fn unknown_name<'a>(kind: impl Into<String>, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.collect();
        Error::UnknownName { kind: kind.into(), name: name.to_string(), nearest: nearest(name, &known), known: known.len() }
    }

    /// What a callback said: to go on, or to stop, which is [`Error::Interrupted`].
    ///
    /// # Errors
    /// [`Error::Interrupted`] for [`ControlFlow::Break`].
    pub fn go_on(said: ControlFlow<()>) -> Result<()> {
        if said.is_break() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The same error, saying where what was done before it is kept.
    pub fn unfinished(self, part: impl Into<PathBuf>) -> Self {
        Error::Unfinished { part: part.into(), source: Box::new(self) }
    }

    /// The same error, saying in which layer it was met, if it does not say so already.
    pub fn in_layer(self, layer: impl Into<String>) -> Self {
        let layer = layer.into();
        if self.names_layer(&layer) { self } else { Error::Layer { layer, source: Box::new(self) } }
    }

    fn names_layer(&self, name: &str) -> bool {
        match self {
            Error::Layer { layer, source } => layer == name || source.names_layer(name),
            Error::MissingEvidence { layer, .. } => layer == name,
            Error::UnknownName { name: unknown, .. } => unknown == name,
            Error::Unfinished { source, .. } => source.names_layer(name),
            _ => false,
        }
    }
}
