//! What a choice of pruned layers does to a model's predictions.

use super::check::{check_measurable, fits_memory};
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::{Config, LanguageModel, positions};
use crate::mask::check_finite_from as check;
use crate::nn::Positions;
use crate::{Error, Result};
use ndarray::Array2;

/// A whole model whose layers can be exchanged, and what the dense one gives on some tokens.
///
/// Only what lies behind the first block that differs from a base is run: the hidden states before each block of the base are kept,
/// `(tokens, hidden)` a block. So are the dense model's logits, `(tokens, vocab)`, whose product costs as much as a quarter of a small model.
pub(super) struct Evaluator {
    model: LanguageModel,
    at: Positions,
    /// The logits of the dense model.
    dense: Array2<f32>,
    /// The hidden states of the base before each block.
    before: Vec<Array2<f32>>,
    /// The level of each layer in the base, and in the model.
    base: Vec<usize>,
    loaded: Vec<usize>,
    /// What the base loses.
    loss: f64,
}

fn behind(block: usize) -> String {
    format!("stream behind block {block} (tokens, features)")
}

/// The layers that are exchanged: their blocks, and their weights at each level; level 0 is the dense one.
pub(super) trait Exchange {
    /// The block of each layer, in order.
    fn blocks(&self) -> Vec<usize>;

    /// Puts the weight of a layer at a level into the model.
    fn put(&self, model: &mut LanguageModel, layer: usize, level: usize) -> Result<()>;
}

impl Evaluator {
    /// Loads the dense model and runs it on some sequences.
    ///
    /// # Errors
    /// If it is an encoder-decoder or cannot be read, the sequences have no token to predict, what is kept of them has no room in memory, or
    /// what the model gives is not finite.
    pub fn new(folder: &Folder, config: &Config, tokens: &Sequences, layers: usize) -> Result<Evaluator> {
        check_measurable(config)?;
        let (ids, length, count) = (tokens.ids(), tokens.length(), tokens.len());
        if length < 2 {
            return Err(Error::invalid_option("search-tokens", format!("sequences of {length} token have none to predict")));
        }
        let a_token = config.layers().checked_mul(config.hidden()).and_then(|n| n.checked_add(config.vocab()));
        let bytes = a_token.and_then(|n| n.checked_mul(ids.len())?.checked_mul(size_of::<f32>()));
        fits_memory("search-tokens", &format!("{} tokens", ids.len()), bytes.map(|n| n as u64))?;
        let model = LanguageModel::load(folder, config.clone())?;
        let at = positions(config, count, length, 0);
        let mut h = model.embedding_head().embed(ids, length, 0)?;
        let mut before = Vec::with_capacity(config.layers());
        for (i, block) in model.blocks().iter().enumerate() {
            before.push(h.clone());
            block.forward(&mut h, &at, &mut ());
            check(&h, &behind(i), 0)?;
        }
        let dense = model.embedding_head().logits(&h);
        check(&dense, "logits of the dense model (tokens, vocab)", 0)?;
        Ok(Evaluator { model, at, dense, before, base: vec![0; layers], loaded: vec![0; layers], loss: 0.0 })
    }

    /// The mean divergence of the next token's distribution from the dense model's, in nats, with each layer at a level. A choice that is
    /// better than the base becomes the base.
    ///
    /// # Errors
    /// If a weight cannot be put into the model, or what the model gives is not finite.
    pub fn loss(&mut self, layers: &dyn Exchange, choice: &[usize]) -> Result<f64> {
        let blocks = layers.blocks();
        let changed = (0..choice.len()).filter(|&l| choice[l] != self.base[l]);
        let Some(first) = changed.map(|l| blocks[l]).min() else { return Ok(self.loss) };
        self.load(layers, choice)?;
        let mut h = self.before[first].clone();
        self.model.blocks()[first..].iter().for_each(|block| block.forward(&mut h, &self.at, &mut ()));
        let loss = self.finite(self.model.embedding_head().divergence(&self.dense, &h), first)?;
        if loss < self.loss {
            self.rebase(choice, first, loss);
        }
        Ok(loss)
    }

    /// Makes a choice the base, whatever it loses, and says what that is.
    pub fn begin(&mut self, layers: &dyn Exchange, choice: &[usize]) -> Result<f64> {
        self.load(layers, choice)?;
        let h = self.rebase(choice, 0, 0.0);
        self.loss = self.finite(self.model.embedding_head().divergence(&self.dense, &h), 0)?;
        Ok(self.loss)
    }

    /// Refuses a loss that is not finite: it would lose every comparison, or win it. Says where in the blocks from `first` on it began.
    fn finite(&self, loss: f64, first: usize) -> Result<f64> {
        if loss.is_finite() {
            return Ok(loss);
        }
        let mut h = self.before[first].clone();
        for (i, block) in self.model.blocks().iter().enumerate().skip(first) {
            block.forward(&mut h, &self.at, &mut ());
            check(&h, &behind(i), 0)?;
        }
        check(&self.model.embedding_head().logits(&h), "logits (tokens, vocab)", 0)?;
        Err(Error::Numerical { what: "divergence of the predictions".into(), reason: format!("is {loss}") })
    }

    fn load(&mut self, layers: &dyn Exchange, choice: &[usize]) -> Result<()> {
        for (l, &level) in choice.iter().enumerate() {
            if self.loaded[l] != level {
                layers.put(&mut self.model, l, level)?;
                self.loaded[l] = level;
            }
        }
        Ok(())
    }

    /// Keeps the hidden states of what is loaded, from a block on.
    fn rebase(&mut self, choice: &[usize], first: usize, loss: f64) -> Array2<f32> {
        let mut h = self.before[first].clone();
        for (block, before) in self.model.blocks().iter().zip(&mut self.before).skip(first) {
            before.assign(&h);
            block.forward(&mut h, &self.at, &mut ());
        }
        (self.base, self.loss) = (choice.to_vec(), loss);
        h
    }
}
