//! Language models made physically smaller, block by block, with one block in memory.
//!
//! ```text
//! folder ─ couplings ─► which layers, which hidden features          one pass of the dense model, where they are asked for
//!                          │
//!                          ▼ the folder as it would be without them (Trimmed)
//! tokens ─ embed ─► hidden states ─► block 0 ─► hidden states ─► block 1 ─► …
//!                                      │ inputs of the output layer of attention, then of the last feed-forward layer
//!                                      ▼
//!                                   heads and features that stay, and the weights that read them; the block runs on with what is written
//! ```
//!
//! A unit that goes takes all its rows and columns with it ([`structure`](crate::structure)). Inside a block the layer that reads heads or features is
//! moved by [`GroupObs`](crate::solve::GroupObs), so that what stays does what went did; with a [`Correction`] towards the dense model beside it, whose
//! dropped layers count too. All blocks come out alike, so that the result is a plain model of its family; where they do not (widths of each block, or
//! blocks without one of their halves) the config lists widths, or zeros make them alike.

mod sizes;
mod method;
mod scores;
mod target;
mod sublayer;
mod trimmed;
mod decode;
mod record;
mod survey;
mod sublayers;
mod score_file;
mod principal;
mod budget;
mod walk;
mod metric;
mod widths;
mod block;
mod choice;
mod outset;
mod write;
mod run;

pub use budget::{SizeSearch, search_sizes};
pub use decode::DecodeCost;
pub use method::{Aggregate, Aggregation, UnitMethod};
pub use metric::OutputMetrics;
pub use record::{HalfErrors, LayerChoice, ScoredUnits, SearchRecord, ShrinkRecord, Tried, UnitRecord};
pub use run::{ShrunkFolder, shrink_language};
pub use score_file::UnitScores;
pub use sizes::ShrinkSizes;
pub use sublayer::{SubLayer, SubLayerChoice, SubLayerKind};
pub use survey::{DepthScore, HiddenScore};
pub use target::{PartSize, SizeAmount, SizeTarget};
pub use widths::{BlockWidths, UnitCurve, spread_widths};

use super::language::{ActivationMemory, BlockReconstruction, Correction};
use crate::data::Sequences;
use crate::io::{Folder, Output};
use crate::lm::{Config, Widths};
use serde_json::Value;

/// How a language model is made smaller.
#[derive(Debug, Clone)]
pub struct LanguageShrinking<'a> {
    /// What stays of it.
    pub sizes: ShrinkSizes,
    /// Whether nothing goes, and units are put in the order of their scores instead, the largest first: any smaller model is then a prefix.
    pub sort: bool,
    /// How heads and feed-forward features are chosen.
    pub method: UnitMethod<'a>,
    /// How layers are chosen.
    pub depth: DepthScore,
    /// How hidden features are chosen.
    pub hidden_by: HiddenScore,
    /// Sub-layers that go, named by hand.
    pub drop: &'a [SubLayer],
    /// How many more sub-layers go, by the score of [`LanguageShrinking::depth`].
    pub sublayers: Option<usize>,
    /// Whether blocks of different widths are padded with zeros to the widest, with masks that say where, so that the result is a plain model.
    pub pad: bool,
    /// Scores of units that are taken instead of measuring.
    pub scores: Option<&'a UnitScores>,
    /// Whether units of which none goes are scored too, as far as the method scores units; they stand in [`ShrinkRecord::beside`].
    pub score_all: bool,
    /// Widths of each block, by its number in the model, in the place of the sizes of heads and feed-forward features.
    pub widths: Option<&'a [Widths]>,
    /// What the loss makes of errors of the layers that read units, by which [`UnitMethod::Obs`] chooses them; by their squares without.
    pub metrics: Option<&'a OutputMetrics>,
    /// The entries of the vocabulary that stay; all of them without.
    pub vocabulary: Option<&'a VocabularyCut>,
    /// Whether layers make up for what went before them. Only with [`UnitMethod::Obs`].
    pub correction: Option<Correction>,
    /// Whether halves of blocks from which units went are trained towards the dense model's hidden states. Only with methods that measure inputs, and
    /// where all hidden features stay.
    pub reconstruction: Option<BlockReconstruction>,
    /// Where activations lie while the run lasts.
    pub memory: ActivationMemory,
}

impl<'a> LanguageShrinking<'a> {
    /// These sizes by this method, everything else as it is by default.
    pub fn new(sizes: ShrinkSizes, method: UnitMethod<'a>, memory: ActivationMemory) -> Self {
        LanguageShrinking {
            sizes,
            sort: false,
            method,
            depth: DepthScore::default(),
            hidden_by: HiddenScore::default(),
            drop: &[],
            sublayers: None,
            pad: false,
            scores: None,
            score_all: false,
            widths: None,
            metrics: None,
            vocabulary: None,
            correction: None,
            reconstruction: None,
            memory,
        }
    }

    /// Whether nothing is to be left out or put in order.
    fn is_nothing(&self) -> bool {
        self.sizes == ShrinkSizes::default()
            && !self.sort
            && self.widths.is_none()
            && self.vocabulary.is_none()
            && self.drop.is_empty()
            && self.sublayers.is_none()
            && !self.pad
    }

    /// Whether the model must run over a calibration to choose units.
    fn measures(&self) -> bool {
        self.method.measures()
            && !(self.scores.is_some() && matches!(self.method, UnitMethod::Minitron | UnitMethod::Activations(_)))
    }

    /// What becomes of the hidden features is a rotation of all of them.
    fn rotates(&self) -> bool {
        self.hidden_by == HiddenScore::Pca && self.sizes.hidden.is_some() && !matches!(self.method, UnitMethod::Prefix)
    }
}

/// Which entries of the vocabulary stay, and the files of the tokenizer that has them.
#[derive(Debug, Clone, PartialEq)]
pub struct VocabularyCut {
    /// Entries by their numbers before, ascending.
    pub kept: Vec<usize>,
    /// Files of the folder that are written anew.
    pub files: Vec<(String, Value)>,
    /// Files of the folder that would say otherwise, and stay behind.
    pub behind: Vec<String>,
}

/// What [`shrink_language`] is given.
#[derive(Debug, Clone, Copy)]
pub struct ShrinkRun<'a> {
    /// The model.
    pub folder: &'a Folder,
    /// What its `config.json` says.
    pub config: &'a Config,
    /// The tokens on which inputs are measured; [`Sequences::nothing`] where none are.
    pub calibration: &'a Sequences,
    /// How it is made smaller.
    pub shrinking: &'a LanguageShrinking<'a>,
    /// Where the smaller model is written.
    pub out: &'a Output,
    /// What the run was asked for. It is kept beside what is written, and a run is only taken up again by one that was asked for the same.
    pub described: &'a Value,
    /// Whether a run that was interrupted goes on behind its last whole block. It gives the bits that it would have given.
    pub resume: bool,
}
