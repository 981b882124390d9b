//! The methods of a job that quantises, by name.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How codes are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuantizeMethod {
    /// Round to nearest.
    Rtn,
    /// [`Gptq`](crate::solve::Gptq).
    #[default]
    Gptq,
    /// [`Obr`](crate::solve::Obr): as `gptq`, of each row what its mask keeps.
    Obr,
    /// [`Awq`](crate::solve::Awq): scales of inputs, ranges cut off.
    Awq,
    /// [`Hqq`](crate::solve::Hqq).
    Hqq,
}

impl QuantizeMethod {
    /// All of them.
    pub const ALL: [QuantizeMethod; 5] =
        [QuantizeMethod::Rtn, QuantizeMethod::Gptq, QuantizeMethod::Obr, QuantizeMethod::Awq, QuantizeMethod::Hqq];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            QuantizeMethod::Rtn => "rtn",
            QuantizeMethod::Gptq => "gptq",
            QuantizeMethod::Obr => "obr",
            QuantizeMethod::Awq => "awq",
            QuantizeMethod::Hqq => "hqq",
        }
    }

    /// Whether weights make up for what others lose.
    pub fn moves_weights(self) -> bool {
        matches!(self, QuantizeMethod::Gptq | QuantizeMethod::Obr)
    }

    /// Whether inputs are measured.
    pub fn measures(self) -> bool {
        self.moves_weights() || self == QuantizeMethod::Awq
    }
}

impl fmt::Display for QuantizeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for QuantizeMethod {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    fn from_str(s: &str) -> Result<Self> {
        let found = QuantizeMethod::ALL.into_iter().find(|m| m.name() == s);
        found.ok_or_else(|| Error::unknown_name("method", s, QuantizeMethod::ALL.into_iter().map(QuantizeMethod::name)))
    }
}

/// Whether the values of a grid lie evenly about 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuantScheme {
    /// They do.
    Symmetric,
    /// They span the weights of a group; a zero point says which of them is 0.
    Asymmetric,
}
