//! What a choice of pruned layers does to a model's predictions.

use crate::Result;
use crate::io::Folder;
use crate::models::lm::{Config, LanguageModel, positions};
use crate::nn::Positions;
use ndarray::Array2;

/// A whole model whose layers can be exchanged, and what the dense one gives on some tokens.
///
/// Only what lies behind the first block that differs from a base is run: the streams before each block of the base are kept, `(tokens,
/// hidden)` a block. So are the dense model's logits, `(tokens, vocab)`, whose product costs as much as a quarter of a small model.
pub(super) struct Judge {
    model: LanguageModel,
    at: Positions,
    /// The logits of the dense model.
    dense: Array2<f32>,
    /// The streams of the base before each block.
    before: Vec<Array2<f32>>,
    /// The level of each layer in the base, and in the model.
    base: Vec<usize>,
    loaded: Vec<usize>,
    /// What the base loses.
    loss: f64,
}

/// The layers that are exchanged: their blocks, and their weights at each level; level 0 is the dense one.
pub(super) trait Exchange {
    /// The block of each layer, in order.
    fn blocks(&self) -> Vec<usize>;

    /// Puts the weight of a layer at a level into the model.
    fn put(&self, model: &mut LanguageModel, layer: usize, level: usize) -> Result<()>;
}

impl Judge {
    /// Loads the dense model and runs it on whole sequences of `length` tokens.
    pub fn new(folder: &Folder, config: &Config, (ids, length): (&[u32], usize), layers: usize) -> Result<Judge> {
        let model = LanguageModel::load(folder, config.clone())?;
        let at = positions(config, ids.len() / length, length, 0);
        let mut h = model.ends().embed(ids, length, 0)?;
        let mut before = Vec::with_capacity(config.layers());
        for block in model.blocks() {
            before.push(h.clone());
            block.forward(&mut h, &at, &mut ());
        }
        let dense = model.ends().logits(&h);
        Ok(Judge { model, at, dense, before, base: vec![0; layers], loaded: vec![0; layers], loss: 0.0 })
    }

    /// The mean divergence of the next token's distribution from the dense model's, in nats, with each layer at a level. A choice that is
    /// better than the base becomes the base.
    pub fn loss(&mut self, layers: &dyn Exchange, choice: &[usize]) -> Result<f64> {
        let blocks = layers.blocks();
        let changed = (0..choice.len()).filter(|&l| choice[l] != self.base[l]);
        let Some(first) = changed.map(|l| blocks[l]).min() else { return Ok(self.loss) };
        self.load(layers, choice)?;
        let mut h = self.before[first].clone();
        self.model.blocks()[first..].iter().for_each(|block| block.forward(&mut h, &self.at, &mut ()));
        let loss = self.model.ends().divergence(&self.dense, &h);
        if loss < self.loss {
            self.rebase(choice, first, loss);
        }
        Ok(loss)
    }

    /// Makes a choice the base, whatever it loses, and says what that is.
    pub fn begin(&mut self, layers: &dyn Exchange, choice: &[usize]) -> Result<f64> {
        self.load(layers, choice)?;
        let h = self.rebase(choice, 0, 0.0);
        self.loss = self.model.ends().divergence(&self.dense, &h);
        Ok(self.loss)
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

    /// Keeps the streams of what is loaded, from a block on.
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
