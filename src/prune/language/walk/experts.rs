//! The experts of a block, one after another: what is measured of one is in memory, never that of all.
//!
//! An expert is measured on the tokens that the router gives it. One that has fewer of them than its layers have inputs (no Gram matrix of them is
//! regular, and a mean over them says little) is measured on all tokens of the calibration, as if each had met it; the number of tokens in its
//! layers' records says so. The expert that all tokens meet is measured on all.

use super::{Prune, Walk};
use crate::Result;
use crate::calibrate::{InputStatistics, LayerStatistics};
use crate::nn::{Block, FeedForward, Observer, Routed};
use ndarray::{Array2, ArrayRef2, Axis};
use std::collections::HashSet;

/// Of each part of the hidden states, which tokens meet each expert.
#[derive(Default)]
pub(super) struct Routes(Vec<Vec<Routed>>);

impl Routes {
    /// Adds those of the next part, whose tokens read `x`.
    pub fn add(&mut self, block: &Block, x: &Array2<f32>) {
        self.0.extend(block.mixture().map(|mixture| mixture.routes(x)));
    }

    /// How many tokens an expert meets; none of the one that all meet.
    fn tokens(&self, expert: usize) -> Option<usize> {
        self.0.iter().map(|part| Some(part.get(expert)?.tokens.len())).sum()
    }

    /// The rows of a part on which an expert of so many inputs is measured; none are all of them.
    fn rows(&self, part: usize, expert: usize, inputs: usize) -> Option<&[usize]> {
        let routed = self.0.get(part)?.get(expert)?;
        self.tokens(expert).is_some_and(|tokens| tokens >= inputs).then_some(&routed.tokens[..])
    }
}

/// Rows of an array, all of them if none are named.
fn pick(x: &Array2<f32>, rows: Option<&[usize]>) -> Array2<f32> {
    rows.map_or_else(|| x.clone(), |rows| x.select(Axis(0), rows))
}

/// The expert of this number; the one that all tokens meet comes behind the last.
fn expert(block: &Block, number: usize) -> Option<&FeedForward> {
    let mixture = block.mixture()?;
    mixture.experts().get(number).or_else(|| mixture.shared().map(|shared| &shared.feed))
}

/// The names of an expert's first layers, and of its last.
fn names(expert: &FeedForward) -> [Vec<String>; 2] {
    let mut first: Vec<String> = expert.linears().iter().map(|l| l.name().to_string()).collect();
    let last = first.split_off(first.len() - 1);
    [first, last]
}

impl Walk {
    /// Measures and prunes the experts, given the hidden states that their block's feed-forward part reads. The last layer of each is measured behind
    /// the pruned ones before it, or with `dense_inside` behind those as they were.
    pub(super) fn experts(
        &mut self,
        block: &mut Block,
        dense: Option<&Block>,
        routes: &Routes,
        dense_inside: bool,
        prune: &mut dyn Prune,
    ) -> Result<()> {
        let Some(mixture) = block.mixture() else { return Ok(()) };
        let count = mixture.experts().len() + usize::from(mixture.shared().is_some());
        for number in 0..count {
            let Some(before) = expert(block, number) else { continue };
            let [first, last] = names(before);
            let inputs = before.linears()[0].shape().1;
            let before = dense_inside.then(|| before.clone());
            let rows = |part: usize| routes.rows(part, number, inputs);
            let routed = routes.tokens(number);

            let mut tally = InputStatistics::new(self.needs, first.clone());
            let here: &Block = block;
            self.each(dense, |i, h, other| {
                let x = pick(&here.feed_x(h), rows(i));
                tally.add(&x)?;
                other.map_or(Ok(()), |(dense, from)| tally.compare(&x, &pick(&dense.feed_x(from), rows(i)), None))
            })?;
            prune.prune(block, &mut of_expert(tally, routed), &first)?;

            let here: &Block = block;
            let Some(inside) = before.as_ref().or_else(|| expert(here, number)) else { continue };
            let mut tally = InputStatistics::new(self.needs, last.clone());
            self.each(dense, |i, h, other| {
                let x = inside.inner_of(&pick(&here.feed_x(h), rows(i)));
                tally.add(&x)?;
                let Some((dense, from)) = other else { return Ok(()) };
                let Some(expert) = expert(dense, number) else { return Ok(()) };
                let from_x = expert.inner_of(&pick(&dense.feed_x(from), rows(i)));
                tally.compare(&x, &from_x, Some(&pick(&(&*from - &*h), rows(i))))
            })?;
            prune.prune(block, &mut of_expert(tally, routed), &last)?;
        }
        Ok(())
    }
}

/// What was measured of an expert's layers, with the tokens that the router gives it.
fn of_expert(tally: InputStatistics, routed: Option<usize>) -> LayerStatistics {
    let mut found = tally.found();
    found.routed = routed;
    found
}

/// Sees all layers but some.
pub(super) struct Without<'a> {
    pub observer: &'a mut dyn Observer,
    pub names: HashSet<String>,
}

impl<'a> Without<'a> {
    /// All layers of a block but its experts'.
    pub fn experts(block: &Block, observer: &'a mut dyn Observer) -> Self {
        let linears = block.mixture().map_or_else(Vec::new, |mixture| mixture.linears());
        Without { observer, names: linears.iter().map(|l| l.name().to_string()).collect() }
    }
}

impl Observer for Without<'_> {
    fn see(&mut self, layers: &[&str], input: &ArrayRef2<f32>) {
        if !layers.iter().any(|name| self.names.contains(*name)) {
            self.observer.see(layers, input);
        }
    }
}
