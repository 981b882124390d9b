//! Sparsities given for some layers.

use super::ranking::Ranking;
use super::{Allocate, LayerView, check};
use crate::mask::Budget;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Given sparsities for some layers; the rest share what is left of the budget by another allocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overrides<A> {
    /// Layer name to sparsity, in [0, 1); 0 keeps a layer whole.
    pub sparsity: BTreeMap<String, f64>,
    /// For the layers that are not named.
    pub rest: A,
}

impl<A> Overrides<A> {
    /// The budgets of the layers that are named.
    fn named(&self, layers: &[LayerView<'_>]) -> Result<Vec<Option<Budget>>> {
        for name in self.sparsity.keys() {
            if !layers.iter().any(|l| l.name == name) {
                return Err(Error::unknown_layer(name, layers.iter().map(|l| l.name)));
            }
        }
        let fixed = |l: &LayerView<'_>| {
            self.sparsity.get(l.name).map(|&s| Budget::from_sparsity(l.len(), s).map_err(|e| e.in_layer(l.name))).transpose()
        };
        layers.iter().map(fixed).collect()
    }

    /// The budgets of the layers that are named, the other layers, and what is left for these.
    fn split<'a>(&self, layers: &[LayerView<'a>], total: Budget) -> Result<(Vec<Option<Budget>>, Vec<LayerView<'a>>, Budget)> {
        let parts = self.named(layers)?;
        let rest: Vec<LayerView<'a>> = layers.iter().zip(&parts).filter(|(_, p)| p.is_none()).map(|(l, _)| *l).collect();
        let given: usize = parts.iter().flatten().map(|p| p.keep()).sum();
        let room: usize = rest.iter().map(LayerView::len).sum();
        if given > total.keep() || total.keep() - given > room {
            let reason = format!("the given layers keep {given}, which leaves the other {room} weights a part they cannot have");
            return Err(Error::Budget { keep: total.keep(), of: total.of(), reason });
        }
        Ok((parts, rest, Budget::new(total.keep() - given, room)?))
    }
}

impl<A: Allocate> Allocate for Overrides<A> {
    fn name(&self) -> &str {
        self.rest.name()
    }

    fn needs_scores(&self) -> bool {
        self.rest.needs_scores()
    }

    fn needs_weights(&self) -> bool {
        self.rest.needs_weights()
    }

    fn ranking(&self) -> Option<&dyn Ranking> {
        self.rest.ranking()
    }

    fn given(&self, layers: &[LayerView<'_>], total: Budget) -> Result<(Vec<Option<Budget>>, usize)> {
        let (mut parts, rest, left) = self.split(layers, total)?;
        let (given, keep) = self.rest.given(&rest, left)?;
        let mut given = given.into_iter();
        parts.iter_mut().filter(|part| part.is_none()).for_each(|part| *part = given.next().flatten());
        Ok((parts, keep))
    }

    fn range(&self, layers: &[LayerView<'_>]) -> Result<(usize, usize)> {
        let parts = self.named(layers)?;
        let given: usize = parts.iter().flatten().map(|p| p.keep()).sum();
        let rest: Vec<LayerView<'_>> = layers.iter().zip(&parts).filter(|(_, p)| p.is_none()).map(|(l, _)| *l).collect();
        let (least, most) = if rest.iter().all(LayerView::is_empty) { (0, 0) } else { self.rest.range(&rest)? };
        Ok((given + least, given + most))
    }

    /// # Errors
    /// Beside the errors of the other allocation: an unknown name, a sparsity outside [0, 1), or given sparsities that leave
    /// the rest more or less than it can hold.
    fn allocate(&self, layers: &[LayerView<'_>], total: Budget) -> Result<Vec<Budget>> {
        check(layers, total)?;
        let (mut parts, rest, left) = self.split(layers, total)?;
        if left.of() == 0 {
            return Ok(parts.into_iter().map(|part| part.unwrap_or(Budget::all(0))).collect());
        }
        let mut shares = self.rest.allocate(&rest, left)?.into_iter();
        for part in &mut parts {
            if part.is_none() {
                *part = shares.next();
            }
        }
        Ok(parts.into_iter().flatten().collect())
    }
}
