//! One block: measured, pruned, and run on.

mod experts;
mod part;

pub(in crate::prune) use self::experts::DenseBlock;
use self::experts::{Routes, Without};
pub(in crate::prune) use self::part::Part;
use super::activations::{ActivationMemory, Activations, MemoryBudget};
use super::check::check_measurable;
use super::reconstruct::{BlockReconstruction, Parts, Reconstructed, Trained, reconstruct};
use super::{CalibrationInputs, LanguagePruning, Sequential};
use crate::Result;
use crate::calibrate::{InputStatistics, LayerStatistics, ModelStatistics};
use crate::criteria::{Need, Needs};
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::{Config, EmbeddingHead, positions};
use crate::nn::{Block, Positions};
use crate::train::FakeQuantized;
use ndarray::Array2;
use std::collections::BTreeSet;

/// Tokens of a part of the hidden states, at least one sequence.
pub(in crate::prune) const PART: usize = 4096;

/// Sequences sorted by their texts, in parts of at most so many tokens, each of one text.
fn by_text(calibration: &Sequences, most: usize) -> Vec<(usize, Vec<u32>)> {
    let of = |text: usize| -> Vec<u32> {
        let own = calibration.iter().enumerate().filter(|(n, _)| calibration.text(*n) == text);
        own.flat_map(|(_, ids)| ids).copied().collect()
    };
    let parts = (0..calibration.text_count()).map(|text| (text, of(text)));
    parts.flat_map(|(text, ids)| ids.chunks(most).map(|part| (text, part.to_vec())).collect::<Vec<_>>()).collect()
}

/// The parts that are only judged by; none where no text is held out.
fn judged(texts: &[usize], held_out: Option<usize>) -> Vec<usize> {
    held_out.map_or_else(Vec::new, |held| (0..texts.len()).filter(|part| texts[*part] == held).collect())
}

/// What is done to a block on the way.
pub(in crate::prune) trait Prune {
    /// Prunes the named layers on what was measured.
    ///
    /// # Errors
    /// If a layer cannot be pruned or written.
    fn prune(&mut self, block: &mut Block, found: &mut LayerStatistics, names: &[String]) -> Result<()>;

    /// Changes the block, and what was measured of it with that, before its layers are pruned at once; experts are done by then.
    ///
    /// # Errors
    /// If what changes cannot be written.
    fn prepare(&mut self, _block: &mut Block, _found: &mut [LayerStatistics]) -> Result<()> {
        Ok(())
    }

    /// The parameters that are trained once these layers are pruned, and how; `None` if none are.
    fn training(&self, _block: &Block, _what: Trained) -> Option<(BTreeSet<String>, BlockReconstruction)> {
        None
    }

    /// Those of these parameters that run on levels.
    ///
    /// # Errors
    /// If they cannot.
    fn levels(&self, _names: &BTreeSet<String>) -> Result<Option<FakeQuantized>> {
        Ok(None)
    }

    /// Writes what of the block was trained, and reads it back as it was written.
    ///
    /// # Errors
    /// If it cannot be written.
    fn trained(&mut self, _block: &mut Block, _names: &BTreeSet<String>, _found: Reconstructed) -> Result<()> {
        Ok(())
    }
}

/// Pruning alone, without training.
impl<F: FnMut(&mut Block, &mut LayerStatistics, &[String]) -> Result<()>> Prune for F {
    fn prune(&mut self, block: &mut Block, found: &mut LayerStatistics, names: &[String]) -> Result<()> {
        self(block, found, names)
    }
}

/// The hidden states of a run, and where their tokens stand.
pub(in crate::prune) struct Walk {
    /// Of the model that is pruned.
    hidden: Activations,
    /// Of the dense model, where it is needed.
    dense: Option<Activations>,
    /// Of each part of the hidden states.
    positions: Vec<Positions>,
    /// The text of each part, where texts are told apart.
    texts: Vec<usize>,
    /// A text that is only judged by.
    held_out: Option<usize>,
    /// Of arrays that stay in memory.
    room: MemoryBudget,
    /// What is measured.
    needs: Needs,
    /// Whether inputs are held against those of the dense model.
    compares: bool,
}

impl Walk {
    /// The hidden states before the first block; with `comparing` those of the dense model too, whose inputs
    /// are held against the others' with `compares`. Where `needs` has the Gram matrix, its diagonal
    /// serves for the squares of inputs, and these are not summed beside it.
    ///
    /// # Errors
    /// If the model is an encoder-decoder, the embedding cannot be read, a token is not in the vocabulary, or the disk refuses.
    pub fn new(
        folder: &Folder,
        config: &Config,
        calibration: &Sequences,
        needs: Needs,
        (comparing, compares): (bool, bool),
        memory: &ActivationMemory,
    ) -> Result<Walk> {
        check_measurable(config)?;
        let ends = EmbeddingHead::for_embedding(folder, config)?;
        let length = calibration.length();
        let most = (PART / length).max(1) * length;
        let apart = needs.contains(Need::TextGrams) || calibration.held_out().is_some();
        let sorted = if apart { by_text(calibration, most) } else { Vec::new() };
        let chunks: Vec<&[u32]> = match apart {
            true => sorted.iter().map(|(_, ids)| &ids[..]).collect(),
            false => calibration.ids().chunks(most).collect(),
        };
        let room = MemoryBudget::new(memory);
        let needs = if needs.contains(Need::Gram) { needs.without(Need::InputSquares) } else { needs };
        let mut walk = Walk {
            hidden: Activations::new(chunks.len(), &room),
            dense: comparing.then(|| Activations::new(chunks.len(), &room)),
            positions: chunks.iter().map(|c| positions(config, c.len() / length, length, 0)).collect(),
            texts: sorted.iter().map(|(text, _)| *text).collect(),
            held_out: calibration.held_out(),
            room,
            needs,
            compares,
        };
        for (i, chunk) in chunks.iter().enumerate() {
            let h = ends.embed(chunk, length, 0)?;
            if let Some(dense) = &mut walk.dense {
                dense.put(i, h.clone())?;
            }
            walk.hidden.put(i, h)?;
        }
        Ok(walk)
    }

    /// What must be measured.
    pub fn needs(settings: &LanguagePruning<'_>) -> Needs {
        let needs = settings.pruner.needs();
        let needs = if settings.correction.is_some() { needs.and(Need::Gram) } else { needs };
        needs.union(settings.generalisation.needs())
    }

    /// Sums over the inputs of layers, of the text of a part.
    fn statistics(&self, names: Vec<String>) -> InputStatistics {
        InputStatistics::new(self.needs, names).held_out(self.held_out).comparing(self.compares)
    }

    /// Whether anything must run to be measured.
    pub fn measures(settings: &LanguagePruning<'_>) -> bool {
        if settings.reconstruction.is_some() {
            return true;
        }
        let needs = Self::needs(settings);
        [Need::Gram, Need::InputSquares, Need::InputSums, Need::InputMagnitudes, Need::InputMaxima]
            .into_iter()
            .any(|n| needs.contains(n))
    }

    /// Prunes the block by calling `prune` with what was measured and the names of the layers; afterwards the hidden states are those behind it.
    pub fn block(
        &mut self,
        block: &mut Block,
        dense: Option<&DenseBlock<'_>>,
        (sequential, inputs): (Sequential, CalibrationInputs),
        prune: &mut dyn Prune,
    ) -> Result<()> {
        let at_once = sequential == Sequential::Block;
        let whole = at_once || block.is_parallel();
        let before = if whole && prune.training(block, Trained::Block).is_some() { Some(self.copy()?) } else { None };
        if at_once {
            self.at_once(block, inputs, prune)?;
            if let Some(dense) = dense {
                self.pass_dense(dense)?;
            }
        } else {
            self.in_turn(block, dense, prune)?;
        }
        let (Some(mut before), Some((names, how)), Some(targets)) =
            (before, prune.training(block, Trained::Block).filter(|(names, _)| !names.is_empty()), &mut self.dense)
        else {
            return Ok(());
        };
        let parts = Parts { positions: &self.positions, judged: judged(&self.texts, self.held_out) };
        let what = (&names, Trained::Block, prune.levels(&names)?);
        let found = reconstruct(block, what, (&mut before, targets), &parts, how)?;
        prune.trained(block, &names, found)?;
        self.run_again(block, before)
    }

    /// Trains a half of a block towards the dense model's hidden states, which stand behind that half by now.
    ///
    /// # Errors
    /// As [`reconstruct`], and if it cannot be written.
    fn train(&mut self, block: &mut Block, what: Trained, prune: &mut dyn Prune) -> Result<()> {
        let (Some((names, how)), Some(targets)) = (prune.training(block, what), &mut self.dense) else { return Ok(()) };
        if names.is_empty() {
            return Ok(());
        }
        let parts = Parts { positions: &self.positions, judged: judged(&self.texts, self.held_out) };
        let what = (&names, what, prune.levels(&names)?);
        let found = reconstruct(block, what, (&mut self.hidden, targets), &parts, how)?;
        prune.trained(block, &names, found)
    }

    /// Runs the hidden states through a block that is pruned already.
    pub fn pass(&mut self, block: &Block, dense: Option<&DenseBlock<'_>>) -> Result<()> {
        for (i, at) in self.positions.iter().enumerate() {
            let mut h = self.hidden.take(i)?;
            block.forward(&mut h, at, &mut ());
            self.hidden.put(i, h)?;
        }
        dense.map_or(Ok(()), |dense| self.pass_dense(dense))
    }

    /// A copy of the hidden states.
    fn copy(&mut self) -> Result<Activations> {
        let mut copy = Activations::new(self.positions.len(), &self.room);
        for i in 0..self.positions.len() {
            let h = self.hidden.take(i)?;
            copy.put(i, h.clone())?;
            self.hidden.put(i, h)?;
        }
        Ok(copy)
    }

    /// Runs hidden states that were copied before a block through it: they are the model's from here on.
    fn run_again(&mut self, block: &Block, mut before: Activations) -> Result<()> {
        for (i, at) in self.positions.iter().enumerate() {
            self.hidden.take(i)?;
            let mut h = before.take(i)?;
            block.forward(&mut h, at, &mut ());
            self.hidden.put(i, h)?;
        }
        Ok(())
    }

    /// All layers measured with the block as it is, then pruned; the hidden states go on from the dense block or from the pruned one.
    pub fn at_once(&mut self, block: &mut Block, inputs: CalibrationInputs, prune: &mut dyn Prune) -> Result<()> {
        let before_experts = if block.mixture().is_some() { Some(self.copy()?) } else { None };
        let mut statistics = ModelStatistics::new(self.needs).held_out(self.held_out);
        let texts = self.texts.clone();
        for (i, at) in self.positions.iter().enumerate() {
            let before = self.hidden.take(i)?;
            let mut h = before.clone();
            statistics.of_text(texts.get(i).copied().unwrap_or(0));
            block.forward(&mut h, at, &mut Without::experts(block, &mut statistics));
            statistics.check()?;
            self.hidden.put(i, if inputs == CalibrationInputs::Dense { h } else { before })?;
        }
        let mut all = statistics.finish()?;
        if let Some(before) = before_experts {
            self.experts_at_once(block, before, prune)?;
        }
        prune.prepare(block, &mut all)?;
        for layer in block.linears().iter().map(|l| l.name().to_string()).collect::<Vec<_>>() {
            if let Some(found) = all.iter_mut().find(|found| found.layers.contains(&layer)) {
                prune.prune(block, found, &[layer])?;
            }
        }
        if inputs == CalibrationInputs::Pruned { self.pass(block, None) } else { Ok(()) }
    }

    /// The experts of a block measured with all of it as it is, then pruned: they do not follow one another. `before` are the hidden states before it.
    fn experts_at_once(&mut self, block: &mut Block, before: Activations, prune: &mut dyn Prune) -> Result<()> {
        let (behind, mut routes) = (std::mem::replace(&mut self.hidden, before), Routes::default());
        for (i, at) in self.positions.iter().enumerate() {
            let mut h = self.hidden.take(i)?;
            if !block.is_parallel() {
                let mixed = block.mixed(&block.attention_x(&h), at);
                block.add_attention(&mut h, &mixed);
            }
            routes.add(block, &block.feed_x(&h));
            self.hidden.put(i, h)?;
        }
        self.experts(block, None, &routes, true, prune)?;
        self.hidden = behind;
        Ok(())
    }

    fn in_turn(&mut self, block: &mut Block, beside: Option<&DenseBlock<'_>>, prune: &mut dyn Prune) -> Result<()> {
        let dense = beside.map(DenseBlock::block);
        let texts = self.texts.clone();
        let of = |i: usize| texts.get(i).copied().unwrap_or(0);
        let parts = self.positions.len();
        let new = || Activations::new(parts, &self.room);
        let (mut mixed, mut dense_mixed, mut inner, mut dense_inner) = (new(), new(), new(), new());
        let at = self.positions.clone();

        let mut names = Part::Opening.names(block);
        let (parallel, shared) = (block.is_parallel(), block.shares_input());
        if shared {
            names.extend(Part::Feed.names(block));
        }
        let mut tally = self.statistics(names.clone());
        self.each(dense, |i, h, other| {
            let x = block.attention_x(h);
            tally.of_text(of(i));
            tally.add(&x)?;
            other.map_or(Ok(()), |(block, h)| tally.compare(&x, &block.attention_x(h), None))
        })?;
        prune.prune(block, &mut tally.found(), &names)?;

        // Halves are trained one after the other, where they follow one another.
        let halves =
            dense.filter(|_| !parallel && block.mixture().is_none() && prune.training(block, Trained::Attention).is_some());

        let names = Part::Output.names(block);
        let mut tally = self.statistics(names.clone());
        self.each(dense, |i, h, other| {
            let x = block.mixed(&block.attention_x(h), &at[i]);
            tally.of_text(of(i));
            tally.add(&x)?;
            if let Some((dense, from)) = other {
                let from_x = dense.mixed(&dense.attention_x(from), &at[i]);
                tally.compare(&x, &from_x, Some(&(&*from - &*h)))?;
                dense_mixed.put(i, from_x)?;
            }
            mixed.put(i, x)
        })?;
        prune.prune(block, &mut tally.found(), &names)?;
        if let Some(dense) = halves {
            self.each(Some(dense), |i, _, other| {
                other.map_or(Ok(()), |(dense, from)| {
                    dense.add_attention(from, &dense_mixed.take(i)?);
                    Ok(())
                })
            })?;
            self.train(block, Trained::Attention, prune)?;
            self.each(None, |i, h, _| {
                mixed.take(i)?;
                mixed.put(i, block.mixed(&block.attention_x(h), &at[i]))
            })?;
        }

        if block.mixture().is_some() {
            let mut routes = Routes::default();
            self.each(dense, |i, h, other| {
                if !parallel {
                    block.add_attention(h, &mixed.take(i)?);
                }
                routes.add(block, &block.feed_x(h));
                if let Some((dense, from)) = other.filter(|_| !parallel) {
                    dense.add_attention(from, &dense_mixed.take(i)?);
                }
                Ok(())
            })?;
            self.experts(block, beside, &routes, false, prune)?;
            let streamed = beside.filter(|dense| dense.is_apart());
            self.each(dense, |i, h, other| {
                let x = block.feed_x(h);
                if parallel {
                    block.add_attention(h, &mixed.take(i)?);
                }
                block.add_feed(h, &x);
                if let Some((dense, from)) = other.filter(|_| streamed.is_none()) {
                    let x = dense.feed_x(from);
                    if parallel {
                        dense.add_attention(from, &dense_mixed.take(i)?);
                    }
                    dense.add_feed(from, &x);
                }
                Ok(())
            })?;
            return streamed.map_or(Ok(()), |dense| self.add_dense_experts(dense));
        }

        if !shared {
            let names = Part::Feed.names(block);
            let mut tally = self.statistics(names.clone());
            self.each(dense, |i, h, other| {
                if !parallel {
                    block.add_attention(h, &mixed.take(i)?);
                }
                let x = block.feed_x(h);
                tally.of_text(of(i));
                tally.add(&x)?;
                if let Some((dense, from)) = other {
                    if !parallel && halves.is_none() {
                        dense.add_attention(from, &dense_mixed.take(i)?);
                    }
                    tally.compare(&x, &dense.feed_x(from), None)?;
                }
                Ok(())
            })?;
            prune.prune(block, &mut tally.found(), &names)?;
        }

        let names = Part::Down.names(block);
        let mut tally = self.statistics(names.clone());
        self.each(dense, |i, h, other| {
            let x = block.inner(&block.feed_x(h));
            tally.of_text(of(i));
            tally.add(&x)?;
            if let Some((dense, from)) = other {
                let from_x = dense.inner(&dense.feed_x(from));
                tally.compare(&x, &from_x, Some(&(&*from - &*h)))?;
                dense_inner.put(i, from_x)?;
            }
            inner.put(i, x)
        })?;
        prune.prune(block, &mut tally.found(), &names)?;

        if let Some(dense) = halves {
            self.each(Some(dense), |i, _, other| {
                other.map_or(Ok(()), |(dense, from)| {
                    dense.add_feed(from, &dense_inner.take(i)?);
                    Ok(())
                })
            })?;
            self.train(block, Trained::Feed, prune)?;
            return self.each(None, |_, h, _| {
                let inner = block.inner(&block.feed_x(h));
                block.add_feed(h, &inner);
                Ok(())
            });
        }
        self.each(dense, |i, h, other| {
            let inner = inner.take(i)?;
            if parallel {
                block.add_attention(h, &mixed.take(i)?);
            }
            block.add_feed(h, &inner);
            if let Some((dense, from)) = other {
                let inner = dense_inner.take(i)?;
                if parallel {
                    dense.add_attention(from, &dense_mixed.take(i)?);
                }
                dense.add_feed(from, &inner);
            }
            Ok(())
        })
    }

    /// Calls `f` with each part of the hidden states, and with the dense block and its part.
    fn each<'d>(
        &mut self,
        dense: Option<&'d Block>,
        mut f: impl FnMut(usize, &mut Array2<f32>, Option<(&'d Block, &mut Array2<f32>)>) -> Result<()>,
    ) -> Result<()> {
        for i in 0..self.positions.len() {
            let mut h = self.hidden.take(i)?;
            match (dense, self.dense.as_mut()) {
                (Some(block), Some(hidden)) => {
                    let mut from = hidden.take(i)?;
                    f(i, &mut h, Some((block, &mut from)))?;
                    hidden.put(i, from)?;
                }
                _ => f(i, &mut h, None)?,
            }
            self.hidden.put(i, h)?;
        }
        Ok(())
    }
}
