//! [`Coupling`]: the tensors in which the units of one kind lie, and which units go together.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitKind {
    /// A feature between the feed-forward layers: a row of each part of the first, a column of the last.
    FeedForward,
    /// A head of queries. Where several share keys and values it lies within a [`UnitKind::KvGroup`]; elsewhere it has its own.
    Head,
    /// A head of keys and values, with all queries that share it.
    KvGroup,
    /// A feature of the hidden states, in all blocks at once.
    Hidden,
    /// A whole block.
    Layer,
    /// An entry of the vocabulary.
    Vocabulary,
    /// A hidden unit or channel of a chain of layers.
    Channel,
}

impl UnitKind {
    /// Several of them, in words.
    pub fn name(self) -> &'static str {
        match self {
            UnitKind::FeedForward => "feed-forward units",
            UnitKind::Head => "heads",
            UnitKind::KvGroup => "key-value groups",
            UnitKind::Hidden => "hidden features",
            UnitKind::Layer => "layers",
            UnitKind::Vocabulary => "vocabulary entries",
            UnitKind::Channel => "channels",
        }
    }
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a tensor is to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Makes the unit: rows of a weight `(out, in)`, rows of an embedding, entries of a bias.
    Makes,
    /// Reads the unit: columns of a weight `(out, in)`.
    Reads,
    /// Multiplies it, as the weight of a norm does.
    Scales,
    /// Is added to it, as the bias of a norm.
    Shifts,
    /// Belongs to it as a whole.
    Whole,
}

/// Where in a tensor, as the checkpoint holds it, the units lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// Unit u is entries `offset + u · width .. offset + (u + 1) · width` along `axis`.
    Slice {
        /// 0 for rows, 1 for columns.
        axis: usize,
        /// Where unit 0 begins.
        offset: usize,
        /// Entries of a unit.
        width: usize,
    },
    /// The whole tensor is one unit's.
    All {
        /// Its number.
        unit: usize,
    },
}

/// A tensor in which units of a coupling lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Member {
    /// The tensor, as the checkpoint calls it.
    pub tensor: String,
    /// Where in it.
    pub part: Extent,
    /// What it is to them.
    pub side: Side,
}

/// Units that can be left out, and everything that goes with each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coupling {
    /// A name: the layer, block or model that it is of.
    pub name: String,
    /// What its units are.
    pub kind: UnitKind,
    /// The block, if it is of one alone.
    pub block: Option<usize>,
    /// Number of units.
    pub units: usize,
    /// The units are so many runs of one length, and as many must go from each (query heads that share keys); 1 where any may go.
    pub runs: usize,
    /// The tensors.
    pub members: Vec<Member>,
}

impl Coupling {
    /// The units with the largest scores, `keep` in all and as many of each run, in ascending order. Of equal scores the lower number stays.
    ///
    /// # Errors
    /// [`Error::Budget`] if there are fewer, or none would stay; [`Error::InvalidOption`] if the runs do not share them evenly;
    /// [`Error::NotFinite`] at the first score that is not finite.
    ///
    /// # Panics
    /// If there is not one score a unit.
    pub fn largest(&self, scores: &[f64], keep: usize) -> Result<Vec<usize>> {
        assert_eq!(scores.len(), self.units, "{}: one score a unit", self.name);
        self.check(keep)?;
        if let Some((row, &value)) = scores.iter().enumerate().find(|(_, s)| !s.is_finite()) {
            return Err(Error::NotFinite { what: format!("scores of {} of {}", self.kind, self.name), row, col: 0, value });
        }
        let run = self.units / self.runs;
        let mut kept = Vec::with_capacity(keep);
        for first in (0..self.units).step_by(run.max(1)) {
            let mut units: Vec<usize> = (first..first + run).collect();
            units.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            kept.extend(&units[..keep / self.runs]);
        }
        kept.sort_unstable();
        Ok(kept)
    }

    /// Whether so many units can stay.
    ///
    /// # Errors
    /// As [`Coupling::largest`].
    pub fn check(&self, keep: usize) -> Result<()> {
        if keep == 0 || keep > self.units {
            let reason = if keep == 0 { "at least one stays" } else { "there are no more" };
            return Err(Error::Budget { keep, of: self.units, reason: format!("{} of {}: {reason}", self.kind, self.name) });
        }
        if keep % self.runs != 0 {
            let (below, above) = (keep / self.runs * self.runs, keep.div_ceil(self.runs) * self.runs);
            let near = if below > 0 { format!("{below} or {above}") } else { above.to_string() };
            let reason = format!("{keep} of {} are not as many of each of {} groups; {near} are", self.units, self.runs);
            return Err(Error::invalid_option(self.kind.name(), reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Coupling, UnitKind};

    #[test]
    fn as_many_stay_in_each_run_and_of_equal_scores_the_first() {
        let coupling = Coupling { name: "a".into(), kind: UnitKind::Head, block: None, units: 6, runs: 2, members: vec![] };
        assert_eq!(coupling.largest(&[9., 8., 7., 1., 1., 1.], 4).unwrap(), [0, 1, 3, 4]);
        assert_eq!(coupling.largest(&[0., 0., 1., 3., 1., 2.], 2).unwrap(), [2, 3]);
        let line = coupling.largest(&[0.; 6], 3).unwrap_err().to_string();
        assert_eq!(line, "heads: 3 of 6 are not as many of each of 2 groups; 2 or 4 are");
        assert!(coupling.largest(&[0.; 6], 8).is_err() && coupling.largest(&[0.; 6], 0).is_err());
        assert!(coupling.largest(&[0., f64::NAN, 0., 0., 0., 0.], 2).is_err());
    }
}
