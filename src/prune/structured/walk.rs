//! The hidden states of a run: those of the model that is made smaller, and those of the dense one beside it.

use super::method::{UnitInputs, UnitMethod};
use crate::Result;
use crate::criteria::{Need, Needs};
use crate::data::Sequences;
use crate::io::{Folder, Weights};
use crate::linalg::matmul;
use crate::lm::{Config, EmbeddingHead, positions};
use crate::mask::Mask;
use crate::nn::{Block, Positions};
use crate::prune::BlockReconstruction;
use crate::prune::language::{ActivationMemory, Activations, MemoryBudget, PART, Part, Parts, Trained, reconstruct};
use ndarray::{Array2, Axis};
use std::collections::BTreeSet;

/// Takes what was measured of the inputs of a part of a block, and may change its weights.
pub(super) type Choose<'f> = dyn FnMut(Part, &mut Block, UnitInputs) -> Result<()> + 'f;

/// Takes a block of which these parameters, of the half that is named, were trained, and the errors before and after.
pub(super) type Done<'f> = dyn FnMut(&mut Block, &BTreeSet<String>, &'static str, (f64, f64)) -> Result<()> + 'f;

/// How halves of a block are trained once units went from them.
pub(super) struct HalfTraining<'f> {
    pub how: BlockReconstruction,
    /// Whether units go from attention, and from the feed-forward layers.
    pub cut: [bool; 2],
    /// Rounds the named parameters as the file does, and takes note of the errors.
    pub done: &'f mut Done<'f>,
}

pub(super) struct UnitWalk<'a> {
    hidden: Activations,
    dense: Option<Activations>,
    positions: Vec<Positions>,
    room: MemoryBudget,
    length: usize,
    method: UnitMethod<'a>,
    needs: Needs,
    joined: HiddenStates,
    /// Whether inputs are held against those of the dense model.
    compares: bool,
}

/// What the smaller model's hidden states are of the dense one's.
#[derive(Clone, Default)]
pub(super) struct HiddenStates {
    /// The features that it has, where it has not all.
    pub features: Option<Vec<usize>>,
    /// What they are multiplied by, `(all, those that stay)`, where they are rotated.
    pub rotation: Option<Array2<f32>>,
}

impl<'a> UnitWalk<'a> {
    /// The hidden states before the first block, of the model in `weights`; with `dense` those of that model too, whose inputs are compared where that is
    /// said.
    pub fn new(
        (weights, config): (&dyn Weights, &Config),
        (dense, compares): (Option<(&Folder, &Config)>, bool),
        calibration: &Sequences,
        method: UnitMethod<'a>,
        joined: HiddenStates,
        memory: &ActivationMemory,
    ) -> Result<UnitWalk<'a>> {
        let length = calibration.length();
        let chunks: Vec<&[u32]> = calibration.ids().chunks((PART / length).max(1) * length).collect();
        let room = MemoryBudget::new(memory);
        let embedded = |ends: EmbeddingHead| -> Result<Activations> {
            let mut states = Activations::new(chunks.len(), &room);
            chunks.iter().enumerate().try_for_each(|(i, chunk)| states.put(i, ends.embed(chunk, length, 0)?))?;
            Ok(states)
        };
        let needs = if compares { method.needs().and(Need::Gram) } else { method.needs() };
        Ok(UnitWalk {
            hidden: embedded(EmbeddingHead::for_embedding(weights, config)?)?,
            dense: dense.map(|(folder, config)| embedded(EmbeddingHead::for_embedding(folder, config)?)).transpose()?,
            positions: chunks.iter().map(|c| positions(config, c.len() / length, length, 0)).collect(),
            room,
            length,
            method,
            needs,
            joined,
            compares,
        })
    }

    /// Runs the hidden states through a block that is done.
    pub fn pass(&mut self, block: &Block) -> Result<()> {
        run(&mut self.hidden, &self.positions, block)
    }

    /// Runs the dense model's through one of its blocks.
    pub fn pass_dense(&mut self, block: &Block) -> Result<()> {
        self.dense.as_mut().map_or(Ok(()), |dense| run(dense, &self.positions, block))
    }

    /// Measures the parts of a block in turn, each with those before it as `choose` left them, and runs the hidden states through what is left. Parts
    /// whose inputs are not to be measured are passed over. Halves from which units went are trained before anything behind them is measured, both
    /// together where they run side by side.
    pub fn block(
        &mut self,
        block: &mut Block,
        dense: Option<&Block>,
        parts: &[Part],
        choose: &mut Choose<'_>,
        mut training: Option<HalfTraining<'_>>,
    ) -> Result<()> {
        let (count, at) = (self.positions.len(), self.positions.clone());
        let new = |room: &MemoryBudget| Activations::new(count, room);
        let (mut mixed, mut dense_mixed, mut inner) = (new(&self.room), new(&self.room), new(&self.room));
        let (parallel, shared, compares) = (block.is_parallel(), block.shares_input(), self.compares);
        let wants = |part: Part| parts.contains(&part);

        if wants(Part::Opening) || shared && wants(Part::Feed) {
            let mut names = Part::Opening.names(block);
            if shared {
                names.extend(Part::Feed.names(block));
            }
            let mut inputs = self.inputs(names, Needs::none().and(Need::Gram));
            self.each(dense, |_, h, other| {
                let x = block.attention_x(h);
                inputs.add(&x)?;
                other.map_or(Ok(()), |(block, h)| inputs.sums.compare(&x, &block.attention_x(h), None))
            })?;
            choose(Part::Opening, block, inputs)?;
        }

        let measured = wants(Part::Output);
        let mut inputs = self.inputs(Part::Output.names(block), self.needs);
        let joins = block.attention_after.is_none();
        let joined = self.joined.clone();
        self.each(dense, |i, h, other| {
            let x = block.mixed(&block.attention_x(h), &at[i]);
            if measured {
                inputs.add(&x)?;
            }
            if let Some((dense, from)) = other {
                let from_x = dense.mixed(&dense.attention_x(from), &at[i]);
                if measured && compares {
                    let ahead = joins.then(|| joined.drift(from, h));
                    inputs.sums.compare(&x, &from_x, ahead.as_ref())?;
                }
                // Nothing is chosen in the dense model: it goes on at once.
                if parallel {
                    dense_mixed.put(i, from_x)?;
                } else {
                    dense.add_attention(from, &from_x);
                }
            }
            mixed.put(i, x)
        })?;
        if measured {
            choose(Part::Output, block, inputs)?;
        }
        if let Some(training) = training.as_mut().filter(|t| t.cut[0] && !parallel) {
            self.train(block, Trained::Attention, training)?;
            self.each(None, |i, h, _| {
                mixed.take(i)?;
                mixed.put(i, block.mixed(&block.attention_x(h), &at[i]))
            })?;
        }

        if !shared {
            let measured = wants(Part::Feed);
            let mut inputs = self.inputs(Part::Feed.names(block), Needs::none().and(Need::Gram));
            self.each(dense, |i, h, other| {
                if !parallel {
                    block.add_attention(h, &mixed.take(i)?);
                }
                let x = if measured { Some(block.feed_x(h)) } else { None };
                x.iter().try_for_each(|x| inputs.add(x))?;
                if let Some((dense, from)) = other {
                    x.iter().try_for_each(|x| inputs.sums.compare(x, &dense.feed_x(from), None))?;
                }
                Ok(())
            })?;
            if measured {
                choose(Part::Feed, block, inputs)?;
            }
        }

        let measured = wants(Part::Down);
        let mut inputs = self.inputs(Part::Down.names(block), self.needs);
        let joins = block.feed_after.is_none();
        let joined = self.joined.clone();
        self.each(dense, |i, h, other| {
            let x = block.inner(&block.feed_x(h));
            if measured {
                inputs.add(&x)?;
            }
            if let Some((dense, from)) = other {
                let from_x = dense.inner(&dense.feed_x(from));
                if measured && compares {
                    let ahead = joins.then(|| joined.drift(from, h));
                    inputs.sums.compare(&x, &from_x, ahead.as_ref())?;
                }
                if parallel {
                    dense.add_attention(from, &dense_mixed.take(i)?);
                }
                dense.add_feed(from, &from_x);
            }
            inner.put(i, x)
        })?;
        if measured {
            choose(Part::Down, block, inputs)?;
        }
        if let Some(training) = training.as_mut().filter(|t| t.cut[1] || parallel && t.cut[0]) {
            self.train(block, if parallel { Trained::Block } else { Trained::Feed }, training)?;
            self.each(None, |i, h, _| {
                if parallel {
                    mixed.take(i)?;
                    mixed.put(i, block.mixed(&block.attention_x(h), &at[i]))?;
                }
                inner.take(i)?;
                inner.put(i, block.inner(&block.feed_x(h)))
            })?;
        }

        self.each(None, |i, h, _| {
            if parallel {
                block.add_attention(h, &mixed.take(i)?);
            }
            block.add_feed(h, &inner.take(i)?);
            Ok(())
        })
    }

    /// Trains a part of a block towards the dense model's hidden states, which stand behind it by now. What went stays 0.
    fn train(&mut self, block: &mut Block, what: Trained, training: &mut HalfTraining<'_>) -> Result<()> {
        let Some(targets) = &mut self.dense else { return Ok(()) };
        let names = what.moving(block, |_| true);
        let readers: Vec<String> = [Part::Output, Part::Down].iter().flat_map(|part| part.names(block)).collect();
        let mut held = Vec::new();
        for layer in block.linears_mut().into_iter().filter(|l| readers.iter().any(|n| n == l.name()) && l.mask().is_none()) {
            let weight = layer.dense_weight();
            let stays: Vec<bool> = weight.columns().into_iter().map(|c| c.iter().any(|w| *w != 0.0)).collect();
            let mask = Mask::from_fn(weight.nrows(), weight.ncols(), |_, c| stays[c]);
            held.push(layer.name().to_string());
            layer.set_mask(Some(mask))?;
        }
        let parts = Parts { positions: &self.positions, judged: Vec::new() };
        let found = reconstruct(block, (&names, what, None), (&mut self.hidden, targets), &parts, training.how)?;
        for layer in block.linears_mut().into_iter().filter(|l| held.iter().any(|n| n == l.name())) {
            layer.set_mask(None)?;
        }
        let half = match what {
            Trained::Attention => "attention",
            Trained::Feed => "feed-forward",
            Trained::Block => "both",
        };
        (training.done)(block, &names, half, found.errors)
    }

    fn inputs(&self, layers: Vec<String>, needs: Needs) -> UnitInputs {
        UnitInputs::new(&self.method, needs, layers, self.length)
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
                (Some(block), Some(states)) => {
                    let mut from = states.take(i)?;
                    f(i, &mut h, Some((block, &mut from)))?;
                    states.put(i, from)?;
                }
                _ => f(i, &mut h, None)?,
            }
            self.hidden.put(i, h)?;
        }
        Ok(())
    }
}

fn run(states: &mut Activations, positions: &[Positions], block: &Block) -> Result<()> {
    for (i, at) in positions.iter().enumerate() {
        let mut h = states.take(i)?;
        block.forward(&mut h, at, &mut ());
        states.put(i, h)?;
    }
    Ok(())
}

impl HiddenStates {
    /// By how much the dense model's hidden states are ahead, in the features that both have.
    fn drift(&self, dense: &Array2<f32>, h: &Array2<f32>) -> Array2<f32> {
        match (&self.rotation, &self.features) {
            (Some(rotation), _) => matmul(dense, rotation) - h,
            (None, Some(kept)) => dense.select(Axis(1), kept) - h,
            (None, None) => dense - h,
        }
    }
}
