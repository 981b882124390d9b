//! The families of language models, by `model_type`: those of this crate, and those that are registered.

use super::architecture::{Architecture, Definition, Keys, setting};
use super::families::STANDARD;
use crate::{Error, Result};
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// A family of language models. Two are equal if they have the same `model_type`.
#[derive(Clone, Copy)]
pub struct Family(&'static Definition);

/// Families from outside. One table for the whole process: a config is read in many places, and its `model_type` is all that they have.
static REGISTERED: RwLock<Vec<&'static Definition>> = RwLock::new(Vec::new());

impl Family {
    /// The families of this crate.
    pub fn standard() -> impl Iterator<Item = Family> {
        STANDARD.iter().map(|definition| Family(definition))
    }

    /// All that are known: those of this crate, then those that were registered.
    pub fn all() -> Vec<Family> {
        let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
        STANDARD.iter().chain(registered.iter()).map(|definition| Family(definition)).collect()
    }

    /// Makes a family known to this process: its configs are read from now on like those of this crate. The same definition may be registered
    /// again.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if its `model_type` is empty or another family's.
    pub fn register(definition: &'static Definition) -> Result<Family> {
        let name = definition.model_type;
        if name.is_empty() {
            return Err(Error::invalid_option("model_type", "a family has a name"));
        }
        let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
        match STANDARD.iter().chain(registered.iter()).find(|known| known.model_type == name) {
            Some(known) if std::ptr::eq(*known, definition) => {}
            Some(_) => {
                return Err(Error::invalid_option("model_type", format!("{} is a family already", crate::io::quoted(name))));
            }
            None => registered.push(definition),
        }
        Ok(Family(definition))
    }

    /// The `model_type`.
    pub fn model_type(self) -> &'static str {
        self.0.model_type
    }

    /// What it is known as.
    pub fn about(self) -> &'static str {
        self.0.about
    }

    /// The family of a `model_type`.
    ///
    /// # Errors
    /// If there is none; the error lists those that are known.
    pub fn of(model_type: &str) -> Result<Self> {
        let all = Family::all();
        all.iter().find(|f| f.model_type() == model_type).copied().ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|f| f.model_type()).collect();
            setting("model_type", format!("{} is none of {}", crate::io::quoted(model_type), known.join(", ")))
        })
    }

    pub(super) fn definition(self) -> &'static Definition {
        self.0
    }

    pub(super) fn architecture(self, keys: Keys<'_>) -> Result<Architecture> {
        (self.0.architecture)(keys)
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Family) -> bool {
        self.model_type() == other.model_type()
    }
}

impl Eq for Family {}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({})", self.model_type())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}
