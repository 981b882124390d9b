//! What a job may choose on texts that are left out, by name.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What is chosen for layers on texts that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChosenSetting {
    /// More damping than `damping` says, by kind of layer.
    Damping,
    /// Shrinkage of Gram matrices towards their diagonal, by kind of layer.
    Shrinkage,
    /// Fractions up to those of `correct`, layer by layer.
    Correct,
}

impl ChosenSetting {
    /// All of them.
    pub const ALL: [ChosenSetting; 3] = [ChosenSetting::Damping, ChosenSetting::Shrinkage, ChosenSetting::Correct];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            ChosenSetting::Damping => "damping",
            ChosenSetting::Shrinkage => "shrinkage",
            ChosenSetting::Correct => "correct",
        }
    }
}

impl fmt::Display for ChosenSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ChosenSetting {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    fn from_str(s: &str) -> Result<Self> {
        let found = ChosenSetting::ALL.into_iter().find(|setting| setting.name() == s);
        found.ok_or_else(|| Error::unknown_name("choice", s, ChosenSetting::ALL.into_iter().map(ChosenSetting::name)))
    }
}
