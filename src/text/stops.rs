//! Texts that end a text.

use crate::{Error, Result};

/// Lets a text through piece by piece until one of some texts comes. What may be the beginning of one is held back until it is known.
///
/// ```
/// use lacuna::text::Stops;
/// let mut stops = Stops::new(["\n\n", "END"])?;
/// assert_eq!(stops.push("two lines\n"), "two lines");
/// assert_eq!(stops.push("are no stop, E"), "\nare no stop, ");
/// assert_eq!(stops.push("N"), "");
/// assert!(!stops.met());
/// assert_eq!(stops.push("D of it"), "");
/// assert!(stops.met());
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stops {
    texts: Vec<String>,
    held: String,
    met: bool,
}

impl Stops {
    /// Stops at the first of these texts to come; of none it lets everything through.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if one is empty.
    pub fn new<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Result<Stops> {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        if texts.iter().any(String::is_empty) {
            return Err(Error::invalid_option("stop", "an empty text stands everywhere"));
        }
        Ok(Stops { texts, held: String::new(), met: false })
    }

    /// Takes what comes next; what can be let through now. Nothing is once one of the texts came.
    pub fn push(&mut self, piece: &str) -> String {
        if self.met {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.texts.iter().filter_map(|text| self.held.find(text)).min() {
            self.met = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        // The longest end of what is held that one of the texts begins with.
        let begun = |from: &usize| self.texts.iter().any(|text| text.starts_with(&self.held[*from..]));
        let from = self.held.char_indices().map(|(i, _)| i).find(begun).unwrap_or(self.held.len());
        let kept = self.held.split_off(from);
        std::mem::replace(&mut self.held, kept)
    }

    /// Whether one of the texts came.
    pub fn met(&self) -> bool {
        self.met
    }

    /// What is held back at the end of the whole text.
    pub fn finish(self) -> String {
        self.held
    }
}
