//! The experts of a block, one after another: what is measured of one is in memory, never that of all.
//!
//! An expert is measured on the tokens that the router gives it. One that has fewer of them than its layers have inputs (no Gram matrix of them is
//! regular, and a mean over them says little) is measured on all tokens of the calibration, as if each had met it; the number of tokens in its
//! layers' records says so. The expert that all tokens meet is measured on all.
//!
//! Where the dense model runs beside, its experts are read one after another too, so that no second block is in memory.

use super::{Prune, Walk};
use crate::Result;
use crate::calibrate::{InputStatistics, LayerStatistics};
use crate::io::Folder;
use crate::lm::{Config, load_block, load_block_without_experts, load_expert};
use crate::nn::{Block, FeedForward, Observer, Routed};
use crate::prune::language::activations::Activations;
use ndarray::{Array2, ArrayRef2, Axis};
use std::borrow::Cow;
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

/// A block of the dense model, which runs beside the one that is pruned.
pub(in crate::prune) struct DenseBlock<'a> {
    block: Block,
    /// Where the experts of a mixture are read, one at a time.
    apart: Option<(&'a Folder, &'a Config, usize)>,
}

impl<'a> DenseBlock<'a> {
    /// Reads a block, but for experts that can be read one at a time.
    ///
    /// # Errors
    /// As [`load_block`].
    pub fn load(folder: &'a Folder, config: &'a Config, number: usize) -> Result<Self> {
        let hollow = load_block_without_experts(folder, config, number)?;
        // They add to the hidden states behind attention themselves, so that they may do so one after another.
        match hollow.mixture().is_some() && !hollow.is_parallel() && hollow.feed_after.is_none() {
            true => Ok(DenseBlock { block: hollow, apart: Some((folder, config, number)) }),
            false => Ok(DenseBlock { block: load_block(folder, config, number)?, apart: None }),
        }
    }

    /// The block; of experts that are read one at a time without these.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Whether its experts are read one at a time.
    pub fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// An expert; the one that all tokens meet comes behind the last.
    fn expert(&self, number: usize) -> Result<Option<Cow<'_, FeedForward>>> {
        let count = self.block.mixture().map_or(0, |mixture| mixture.experts().len());
        match self.apart.filter(|_| number < count) {
            Some((folder, config, block)) => Ok(load_expert(folder, config, block, number)?.map(Cow::Owned)),
            None => Ok(expert(&self.block, number).map(Cow::Borrowed)),
        }
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
        dense: Option<&DenseBlock<'_>>,
        routes: &Routes,
        dense_inside: bool,
        prune: &mut dyn Prune,
    ) -> Result<()> {
        let Some(mixture) = block.mixture() else { return Ok(()) };
        let count = mixture.experts().len() + usize::from(mixture.shared().is_some());
        let texts = self.texts.clone();
        let of = |i: usize| texts.get(i).copied().unwrap_or(0);
        for number in 0..count {
            let Some(before) = expert(block, number) else { continue };
            let [first, last] = names(before);
            let inputs = before.linears()[0].shape().1;
            let before = dense_inside.then(|| before.clone());
            let rows = |part: usize| routes.rows(part, number, inputs);
            let routed = routes.tokens(number);

            let whole = dense.map(|dense| dense.expert(number)).transpose()?.flatten();
            let dense = dense.map(DenseBlock::block);
            let mut tally = self.statistics(first.clone());
            let here: &Block = block;
            self.each(dense, |i, h, other| {
                let x = pick(&here.feed_x(h), rows(i));
                tally.of_text(of(i));
                tally.add(&x)?;
                other.map_or(Ok(()), |(dense, from)| tally.compare(&x, &pick(&dense.feed_x(from), rows(i)), None))
            })?;
            prune.prune(block, &mut of_expert(tally, routed), &first)?;

            let here: &Block = block;
            let Some(inside) = before.as_ref().or_else(|| expert(here, number)) else { continue };
            let mut tally = self.statistics(last.clone());
            self.each(dense, |i, h, other| {
                let x = inside.inner_of(&pick(&here.feed_x(h), rows(i)));
                tally.of_text(of(i));
                tally.add(&x)?;
                let Some((dense, from)) = other else { return Ok(()) };
                let Some(expert) = &whole else { return Ok(()) };
                let from_x = expert.inner_of(&pick(&dense.feed_x(from), rows(i)));
                tally.compare(&x, &from_x, Some(&pick(&(&*from - &*h), rows(i))))
            })?;
            prune.prune(block, &mut of_expert(tally, routed), &last)?;
        }
        Ok(())
    }
}

impl Walk {
    /// Runs the dense model's hidden states, where they are kept, through its block.
    pub(super) fn pass_dense(&mut self, dense: &DenseBlock<'_>) -> Result<()> {
        let block = dense.block();
        let Some(hidden) = &mut self.dense else { return Ok(()) };
        for (i, at) in self.positions.iter().enumerate() {
            let mut h = hidden.take(i)?;
            if dense.apart.is_some() {
                let mixed = block.mixed(&block.attention_x(&h), at);
                block.add_attention(&mut h, &mixed);
            } else {
                block.forward(&mut h, at, &mut ());
            }
            hidden.put(i, h)?;
        }
        if dense.apart.is_some() { self.add_dense_experts(dense) } else { Ok(()) }
    }

    /// Adds what the dense block's experts give to its hidden states, which stand behind attention: one expert after another for all tokens, which
    /// is the order in which each token meets them.
    pub(super) fn add_dense_experts(&mut self, dense: &DenseBlock<'_>) -> Result<()> {
        let (block, parts) = (dense.block(), self.positions.len());
        let (Some(hidden), Some(mixture)) = (&mut self.dense, block.mixture()) else { return Ok(()) };
        let mut inputs = Activations::new(parts, &self.room);
        let mut routes = Routes::default();
        for i in 0..parts {
            let h = hidden.take(i)?;
            let x = block.feed_x(&h);
            routes.add(block, &x);
            inputs.put(i, x)?;
            hidden.put(i, h)?;
        }
        for number in 0..mixture.experts().len() {
            let Some(expert) = dense.expert(number)? else { continue };
            for (i, routed) in routes.0.iter().map(|part| &part[number]).enumerate().filter(|(_, r)| !r.tokens.is_empty()) {
                let (mut h, x) = (hidden.take(i)?, inputs.take(i)?);
                routed.add(&expert.outputs(&x.select(Axis(0), &routed.tokens), &mut ()), &mut h);
                inputs.put(i, x)?;
                hidden.put(i, h)?;
            }
        }
        for i in 0..parts {
            let mut h = hidden.take(i)?;
            mixture.add_shared(&inputs.take(i)?, &mut h, &mut ());
            hidden.put(i, h)?;
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
