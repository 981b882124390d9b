//! What keeps a run from learning its calibration by heart: Gram matrices that are shrunk, weights of texts that follow their errors, and fractions that
//! are chosen on text that was left out.
//!
//! | what | by | how often |
//! |---|---|---|
//! | damping, shrinkage towards the diagonal | [`Regularised::chosen`](crate::solve::Regularised::chosen) on a short list each | of each kind of layer (`mlp.down_proj`), anew every eighth block |
//! | shares of the correction | [`chosen_shares`](crate::solve::chosen_shares), up to those of the correction | of each layer |

use super::layers::layer_kind;
use crate::Result;
use crate::criteria::{Need, Needs};
use crate::solve::{GramShrinkage, RobustTexts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How what is fitted on a calibration is kept from being learnt by heart; by default nothing is done. What looks at texts apart needs
/// [`Sequences::of_texts`](crate::data::Sequences::of_texts).
///
/// | Name | Default | Meaning |
/// |---|---|---|
/// | `shrinkage` | none | how Gram matrices are drawn towards simpler ones |
/// | `robust` | none | weights of texts follow their errors |
/// | `choose_damping` | false | more damping, where texts that are left out lose less by it |
/// | `choose_shrinkage` | false | the same of shrinkage towards the diagonal |
/// | `choose_correction` | false | the fractions of the correction, from 0 to those that are given |
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Generalisation {
    /// How Gram matrices are drawn towards simpler ones.
    pub shrinkage: GramShrinkage,
    /// Whether weights of texts follow their errors.
    pub robust: Option<RobustTexts>,
    /// Whether more damping is chosen on texts left out.
    pub choose_damping: bool,
    /// Whether shrinkage towards the diagonal is.
    pub choose_shrinkage: bool,
    /// Whether the fractions of the correction are.
    pub choose_correction: bool,
}

/// What was chosen for a layer on texts that were left out.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ChosenOnTexts {
    /// Shrinkage and damping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrinkage: Option<GramShrinkage>,
    /// Fractions of the inputs' change and of the hidden states' drift that are made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<(f64, f64)>,
}

/// What is added to the diagonal beside the damping of the method.
const DAMPING: [f64; 4] = [0.0, 0.03, 0.1, 0.3];
/// Fractions towards the diagonal.
const DIAGONAL: [f64; 5] = [0.0, 0.05, 0.1, 0.2, 0.4];
/// Blocks from one choice for a kind of layer to the next.
const EVERY: usize = 8;

impl Generalisation {
    /// Whether damping or shrinkage are chosen.
    pub(super) fn chooses_shrinkage(&self) -> bool {
        self.choose_damping || self.choose_shrinkage
    }

    /// Whether texts are measured apart.
    pub(crate) fn by_texts(&self) -> bool {
        self.robust.is_some() || self.shrinkage.texts > 0.0 || self.chooses_shrinkage() || self.choose_correction
    }

    /// What must be measured.
    pub(crate) fn needs(&self) -> Needs {
        let gram = self.by_texts() || !self.shrinkage.is_none();
        let needs = if gram { Needs::none().and(Need::Gram) } else { Needs::none() };
        if self.by_texts() { needs.and(Need::TextGrams) } else { needs }
    }

    /// One after the other: shrinkage towards the diagonal, then with that the damping. `of` finds the best of a list.
    pub(super) fn choose(&self, mut of: impl FnMut(&[GramShrinkage]) -> Result<GramShrinkage>) -> Result<GramShrinkage> {
        let mut found = self.shrinkage;
        if self.choose_shrinkage {
            found = of(&DIAGONAL.map(|diagonal| GramShrinkage { diagonal, ..found }))?;
        }
        if self.choose_damping {
            found = of(&DAMPING.map(|identity| GramShrinkage { identity, ..found }))?;
        }
        Ok(found)
    }
}

/// What was chosen for each kind of layer, and at which block.
#[derive(Debug, Default)]
pub(super) struct Choices(BTreeMap<String, (usize, GramShrinkage)>);

impl Choices {
    /// What holds for a layer; `None` if it is to be chosen anew.
    pub fn held(&self, layer: &str, block: usize) -> Option<GramShrinkage> {
        let (at, shrinkage) = self.0.get(&layer_kind(layer))?;
        (block < at + EVERY).then_some(*shrinkage)
    }

    /// Notes what a layer had, chosen for it or held from a block before: a run that is taken up again notes what it had, in order.
    pub fn note(&mut self, layer: &str, block: usize, shrinkage: GramShrinkage) {
        if self.held(layer, block).is_none() {
            self.0.insert(layer_kind(layer), (block, shrinkage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Choices, Generalisation};
    use crate::solve::GramShrinkage;

    #[test]
    fn a_choice_holds_for_its_kind_and_eight_blocks() {
        let of = |diagonal| GramShrinkage { diagonal, ..GramShrinkage::default() };
        let mut choices = Choices::default();
        assert_eq!(choices.held("h.0.mlp.down", 0), None);
        choices.note("h.0.mlp.down", 0, of(0.1));
        choices.note("h.3.mlp.down", 3, of(0.9));
        assert_eq!(choices.held("h.7.mlp.down", 7), Some(of(0.1)));
        assert_eq!((choices.held("h.8.mlp.down", 8), choices.held("h.1.mlp.up", 1)), (None, None));
        choices.note("h.8.mlp.down", 8, of(0.2));
        assert_eq!(choices.held("h.9.mlp.down", 9), Some(of(0.2)));
    }

    #[test]
    fn the_diagonal_is_chosen_first_and_the_damping_with_it() {
        let all = Generalisation { choose_damping: true, choose_shrinkage: true, ..Generalisation::default() };
        let found = all.choose(|list| Ok(list[2])).unwrap();
        assert_eq!((found.diagonal, found.identity), (0.1, 0.1));
        let none = Generalisation::default();
        assert_eq!(none.choose(|_| unreachable!("nothing is chosen")).unwrap(), GramShrinkage::default());
    }
}
