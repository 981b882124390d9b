//! [`SubLayer`]: attention, or the feed-forward layers, of a block alone.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Half of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubLayerKind {
    /// Attention of the sequence to itself.
    Attention,
    /// The feed-forward layers.
    FeedForward,
}

/// A sub-layer of a model, as `attention:3` or `mlp:7`.
///
/// ```
/// use lacuna::prune::{SubLayer, SubLayerKind};
/// let sub: SubLayer = "mlp:7".parse()?;
/// assert_eq!((sub.block, sub.kind, sub.to_string()), (7, SubLayerKind::FeedForward, "mlp:7".to_string()));
/// assert!("mlp7".parse::<SubLayer>().is_err());
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubLayer {
    /// The block, by its number in the model before.
    pub block: usize,
    /// Which half of it.
    pub kind: SubLayerKind,
}

impl SubLayerKind {
    /// Both, in the order in which they run.
    pub const ALL: [SubLayerKind; 2] = [SubLayerKind::Attention, SubLayerKind::FeedForward];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            SubLayerKind::Attention => "attention",
            SubLayerKind::FeedForward => "mlp",
        }
    }
}

impl FromStr for SubLayer {
    type Err = Error;

    /// # Errors
    /// If the text is not the name of a kind, a colon and a number.
    fn from_str(text: &str) -> Result<SubLayer> {
        let refuse = || Error::invalid_option("drop", format!("'{text}' is not as attention:3 or mlp:7"));
        let (kind, block) = text.trim().split_once(':').ok_or_else(refuse)?;
        let kind = SubLayerKind::ALL.into_iter().find(|k| k.name() == kind).ok_or_else(refuse)?;
        Ok(SubLayer { block: block.parse().map_err(|_| refuse())?, kind })
    }
}

impl fmt::Display for SubLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.block)
    }
}

impl TryFrom<String> for SubLayer {
    type Error = Error;

    fn try_from(text: String) -> Result<SubLayer> {
        text.parse()
    }
}

impl From<SubLayer> for String {
    fn from(sub: SubLayer) -> String {
        sub.to_string()
    }
}

/// Which sub-layers went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubLayerChoice {
    /// Those that went, in order.
    pub gone: Vec<SubLayer>,
    /// What leaving each out would cost, attention and feed-forward layers of each block of the model before; of a greedy choice that of the last round in
    /// which it was there; 0 where nothing was measured. None where they were named by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<[f64; 2]>,
}

#[cfg(test)]
mod tests {
    use super::SubLayer;

    #[test]
    fn names_read_back_as_they_are_written() {
        for text in ["attention:0", "mlp:12"] {
            assert_eq!(text.parse::<SubLayer>().unwrap().to_string(), text);
        }
        for wrong in ["attention", "ffn:1", "mlp:", "mlp:-1", "3:mlp", "mlp:1:2"] {
            let line = wrong.parse::<SubLayer>().unwrap_err().to_string();
            assert_eq!(line, format!("drop: '{wrong}' is not as attention:3 or mlp:7"));
        }
    }
}
