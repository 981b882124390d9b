//! [`LanguageModel`]: a decoder of any family.

use super::Config;
use super::embedding_head::EmbeddingHead;
use super::linears::{self, Taps, infos, no_weight};
use super::load::Reader;
use super::next_token::{NextToken, next_tokens, sequences};
use super::positions::positions;
use crate::data::Sequences;
use crate::io::{Weights, WeightsMut};
use crate::kernels::awake;
use crate::mask::Mask;
use crate::nn::attention::Carry;
use crate::nn::{
    Between, Block, Change, FeedForward, LayerCache, LayerInfo, Layers, Linear, Mode, Model, Objective, Observer, Parameters,
    Positions, See, Sink, Wanted, check_taps, layer_name,
};
use crate::solve::Pruned;
use crate::{Error, Result};
use ndarray::{Array1, Array2, CowArray, Ix2, s};
use std::borrow::Cow;

/// A decoder-only language model, whole in memory.
///
/// A model that does not fit runs block by block: [`EmbeddingHead::load`] and [`load_block`] give its parts.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    config: Config,
    ends: EmbeddingHead,
    blocks: Vec<Block>,
    /// Bytes of activations that a pass keeps for the way back.
    activation_memory: usize,
}

/// Keys and values of the tokens so far, of every block; and the tokens, since a model may have other rotary frequencies for longer texts.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    ids: Vec<u32>,
    regime: usize,
}

impl KvCache {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tokens from this one on.
    pub fn truncate(&mut self, tokens: usize) {
        self.ids.truncate(tokens);
        self.layers.iter_mut().for_each(|layer| layer.truncate(tokens));
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes).sum()
    }
}

/// Reads one block.
///
/// # Errors
/// If a tensor is missing or has another shape than the config says; the error names it.
///
/// # Panics
/// If there is no such block.
pub fn load_block(weights: &dyn Weights, config: &Config, block: usize) -> Result<Block> {
    Reader::new(weights, config).block(block)
}

/// Reads one block without the experts of its mixture, whose places are held by such without features, which give nothing; [`load_expert`] reads
/// each.
///
/// # Errors
/// As [`load_block`].
pub(crate) fn load_block_without_experts(weights: &dyn Weights, config: &Config, block: usize) -> Result<Block> {
    Reader::new(weights, config).without_experts().block(block)
}

/// Reads one expert of a block, by its number; none where the block has no experts.
///
/// # Errors
/// As [`load_block`].
pub(crate) fn load_expert(weights: &dyn Weights, config: &Config, block: usize, number: usize) -> Result<Option<FeedForward>> {
    Reader::new(weights, config).expert(block, number)
}

impl LanguageModel {
    /// Reads a whole model.
    ///
    /// # Errors
    /// If a tensor is missing, belongs to no part, or has another shape than the config says; the error names it. For an
    /// encoder-decoder, which is a [`Seq2Seq`](super::Seq2Seq).
    pub fn load(weights: &dyn Weights, config: Config) -> Result<Self> {
        LanguageModel::load_with(weights, config, &mut |_| Ok(()))
    }

    /// As [`LanguageModel::load`], with `store` called on every linear layer (embedding and head too) as soon as it is read: it may
    /// give the layer another storage, so that no more than one block is ever held in both.
    ///
    /// # Errors
    /// As [`LanguageModel::load`], and what `store` returns.
    pub fn load_with(weights: &dyn Weights, config: Config, store: &mut dyn FnMut(&mut Linear) -> Result<()>) -> Result<Self> {
        decoder_only(&config)?;
        let reader = Reader::new(weights, &config);
        reader.depth()?;
        let mut ends = EmbeddingHead::read(&reader, &config)?;
        ends.linears_mut().try_for_each(&mut *store)?;
        let mut blocks = Vec::with_capacity(config.layers());
        for i in 0..config.layers() {
            let mut block = reader.block(i)?;
            block.linears_mut().into_iter().try_for_each(&mut *store)?;
            blocks.push(block);
        }
        reader.finish()?;
        Ok(LanguageModel { config, ends, blocks, activation_memory: 0 })
    }

    /// Lets a pass keep so many bytes of activations for the way back. What does not fit is made again from each block's input, which takes a
    /// quarter more products; the gradients have the same bits. By default nothing is kept.
    pub fn set_activation_memory(&mut self, bytes: usize) {
        self.activation_memory = bytes;
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Embedding, final norm and head.
    pub fn embedding_head(&self) -> &EmbeddingHead {
        &self.ends
    }

    /// As [`LanguageModel::embedding_head`], to be changed.
    pub fn embedding_head_mut(&mut self) -> &mut EmbeddingHead {
        &mut self.ends
    }

    /// The blocks in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The blocks, to be changed.
    pub fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.blocks
    }

    /// Where the tokens of `sequences` of `length` stand, from position 0 on.
    pub fn positions(&self, sequences: usize, length: usize) -> Positions {
        positions(&self.config, sequences, length, 0)
    }

    /// The linear layers of all blocks, in the order in which they run. The head is [`EmbeddingHead::head`].
    pub fn linears(&self) -> Vec<&Linear> {
        self.blocks.iter().flat_map(Block::linears).collect()
    }

    /// A linear layer by its name.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name.
    pub fn linear(&self, name: &str) -> Result<&Linear> {
        let head = self.ends.head();
        let found = self.linears().into_iter().chain([head]).find(|l| l.name() == name);
        found.ok_or_else(|| self.unknown(name))
    }

    /// A linear layer by its name, to be changed. A tied head is the embedding and cannot be.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name.
    pub fn linear_mut(&mut self, name: &str) -> Result<&mut Linear> {
        // The nearest name is looked for only where it is needed.
        if self.find_mut(name).is_none() {
            return Err(self.unknown(name));
        }
        self.find_mut(name).ok_or_else(|| Error::unknown_layer(name, std::iter::empty()))
    }

    fn find_mut(&mut self, name: &str) -> Option<&mut Linear> {
        let head = self.ends.head_mut().into_iter();
        self.blocks.iter_mut().flat_map(Block::linears_mut).chain(head).find(|l| l.name() == name)
    }

    fn unknown(&self, name: &str) -> Error {
        Error::unknown_layer(name, self.linears().into_iter().map(Linear::name))
    }

    /// Refuses a model that predicts no tokens.
    pub(super) fn predicts(&self) -> Result<()> {
        match self.config.is_encoder() {
            true => Err(Error::invalid_option(
                "model_type",
                format!("a {} is an encoder and predicts no tokens", self.config.family()),
            )),
            false => Ok(()),
        }
    }

    /// Logits `(tokens, vocab)` of one sequence.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, or there are more tokens than learned positions; for an encoder, which predicts none.
    pub fn forward(&self, ids: &[u32]) -> Result<Array2<f32>> {
        self.predicts()?;
        Ok(self.ends.logits(&self.hidden_states(ids, ids.len(), &mut ())?))
    }

    /// What the last block gives, `(tokens, hidden)`, for sequences of `length` tokens one after another; `observer` sees every
    /// linear layer's input.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`], and if the tokens are not whole sequences.
    pub fn hidden_states(&self, ids: &[u32], length: usize, observer: &mut dyn Observer) -> Result<Array2<f32>> {
        let at = self.positions(sequences(ids, length)?, length);
        let mut h = self.ends.embed(ids, length, 0)?;
        self.blocks.iter().for_each(|block| block.forward(&mut h, &at, observer));
        Ok(h)
    }

    /// `-ln p` of every token of one sequence but the first, given those before it.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`].
    pub fn nll(&self, ids: &[u32]) -> Result<Vec<f64>> {
        self.predicts()?;
        self.ends.nll(&self.hidden_states(ids, ids.len(), &mut ())?, &next_tokens(ids, ids.len()))
    }

    /// `-ln p` of the tokens of one sequence from `from` on, given those before them. The last token is not read, so there may be one more
    /// than the model has positions.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`].
    ///
    /// # Panics
    /// If `from` is 0 or no token stands there.
    pub fn nll_from(&self, ids: &[u32], from: usize) -> Result<Vec<f64>> {
        let targets: Vec<Option<u32>> = ids[from.min(ids.len())..].iter().copied().map(Some).collect();
        self.ends.nll(&self.hidden_from(ids, from)?, &targets)
    }

    /// Logits `(tokens from from on, vocab)` of what follows each token from the one before `from` on, but for the last, which is not read.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`].
    ///
    /// # Panics
    /// If `from` is 0 or no token stands there.
    pub fn logits_from(&self, ids: &[u32], from: usize) -> Result<Array2<f32>> {
        Ok(self.ends.logits(&self.hidden_from(ids, from)?))
    }

    /// What the last block gives for all tokens but the last, from the one before `from` on.
    fn hidden_from(&self, ids: &[u32], from: usize) -> Result<Array2<f32>> {
        assert!((1..ids.len()).contains(&from), "from token {from} of {}", ids.len());
        self.predicts()?;
        let read = &ids[..ids.len() - 1];
        let h = self.hidden_states(read, read.len(), &mut ())?;
        Ok(h.slice_move(s![from - 1.., ..]))
    }

    /// An empty cache.
    pub fn cache(&self) -> KvCache {
        KvCache { layers: vec![LayerCache::default(); self.blocks.len()], ids: Vec::new(), regime: 0 }
    }

    /// Appends tokens to the cache and gives the logits `(vocab)` of what follows them. Where the text passes a length from which rotary
    /// frequencies are others ([`Rotary::regime`](crate::nn::Rotary::regime)), the tokens before are run once more.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`], and if there is no token.
    pub fn step(&self, ids: &[u32], cache: &mut KvCache) -> Result<Array1<f32>> {
        if ids.is_empty() {
            return Err(Error::invalid_option("ids", "there is no token"));
        }
        self.predicts()?;
        let length = cache.len() + ids.len();
        let regime = self.regime(length);
        if !cache.is_empty() && regime != cache.regime {
            let all = [&cache.ids, ids].concat();
            let mut anew = self.cache();
            let logits = self.step(&all, &mut anew)?;
            *cache = anew;
            return Ok(logits);
        }
        let first = cache.len();
        let logits = self.advance(ids, (1, first), cache.layers.iter_mut().map(std::slice::from_mut))?;
        cache.regime = regime;
        cache.ids.extend(ids);
        Ok(logits.row(0).to_owned())
    }

    /// Which rotary frequencies a text of so many tokens has.
    pub(super) fn regime(&self, length: usize) -> usize {
        self.config.recipe().rotaries.iter().map(|rotary| rotary.regime(length)).max().unwrap_or(0)
    }

    /// Runs the next tokens of `texts` texts, as many of each, from position `first` on, on the caches of each block, one a text; the logits of what
    /// follows each text, `(texts, vocab)`.
    pub(super) fn advance<'c>(
        &self,
        ids: &[u32],
        (texts, first): (usize, usize),
        caches: impl Iterator<Item = &'c mut [LayerCache]> + Send,
    ) -> Result<Array2<f32>> {
        awake(|| {
            let length = ids.len() / texts;
            let at = positions(&self.config, texts, length, first);
            let mut h = self.ends.embed(ids, length, first)?;
            self.blocks.iter().zip(caches).for_each(|(block, caches)| block.step(&mut h, &at, caches));
            let last = h.slice_move(s![length - 1..;length, ..]);
            Ok(self.ends.logits(&last))
        })
    }

    /// The mean loss of predicting each token of sequences of `length` from those before it, over all predicted tokens; every
    /// parameter's gradient goes to `sink`, once. Memory: one array `(tokens, hidden)` a block, what one block needs, and
    /// [`set_activation_memory`](LanguageModel::set_activation_memory).
    ///
    /// [`Model::backward`] is the same for any objective.
    ///
    /// # Errors
    /// As [`LanguageModel::hidden_states`], and if there is no token to predict.
    pub fn backward(&self, ids: &[u32], length: usize, sink: &mut Sink<'_>) -> Result<f64> {
        let tape = self.tape(ids, length, &mut ())?;
        let text = NextToken::of(next_tokens(ids, length), self.config.vocab())?;
        let rows: Vec<usize> = (0..ids.len()).collect();
        let sum = Model::backward(self, tape, &text, &rows, sink)?;
        Ok(sum / text.count(&rows) as f64)
    }

    /// Runs sequences of `length` tokens and keeps what every block was given.
    fn tape(&self, ids: &[u32], length: usize, observer: &mut dyn Observer) -> Result<LanguageTape> {
        let at = self.positions(sequences(ids, length)?, length);
        let mut h = self.ends.embed(ids, length, 0)?;
        // Those of the last blocks: they are let go first, before most gradients are there.
        let mut room = self.activation_memory;
        let fits = |block: &&Block| {
            let left = room.checked_sub(block.between_bytes(ids.len()));
            room = left.unwrap_or(0);
            left.is_some()
        };
        let again = self.blocks.len() - self.blocks.iter().rev().take_while(fits).count();
        let mut inputs = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            let input = h.clone();
            let kept = if i < again {
                block.forward(&mut h, &at, observer);
                None
            } else {
                Some(block.forward_keeping(&mut h, &at, observer))
            };
            inputs.push((input, kept));
        }
        Ok(LanguageTape { ids: ids.to_vec(), length, at, inputs, h })
    }

    /// Writes every tensor under its checkpoint name, in its checkpoint layout, and the masks; zeros where a sparse storage keeps nothing. An
    /// embedding that the file held twice is written twice.
    ///
    /// # Errors
    /// As [`WeightsMut::write`].
    pub fn write(&self, to: &mut dyn WeightsMut) -> Result<()> {
        linears::write(self, self.linears(), to)?;
        self.ends.write_copies(to)
    }
}

/// Parameters have the names of their tensors. Masks are held on the weights of linear layers.
impl Parameters for LanguageModel {
    fn visit(&self, f: &mut See<'_>) {
        self.ends.visit(f);
        self.blocks.iter().for_each(|block| block.visit(f));
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.ends.visit_mut(f)?;
        self.blocks.iter_mut().try_for_each(|block| block.visit_mut(f))
    }

    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        match name.strip_suffix(".weight").map(|layer| self.linear_mut(layer)) {
            Some(Ok(linear)) => linear.set_mask(mask),
            _ => Err(no_weight(self, name)),
        }
    }
}

/// What a run of a language model keeps for the way back: the hidden states before each block, what lies within some of them, and the hidden states
/// behind the last.
#[derive(Debug, Clone)]
pub struct LanguageTape {
    ids: Vec<u32>,
    length: usize,
    at: Positions,
    inputs: Vec<(Array2<f32>, Option<Between>)>,
    h: Array2<f32>,
}

impl LanguageTape {
    /// The hidden states behind the last block, `(tokens, hidden)`.
    pub fn hidden_states(&self) -> &Array2<f32> {
        &self.h
    }

    /// The hidden states behind block number `block`, `(tokens, hidden)`.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn behind(&self, block: usize) -> &Array2<f32> {
        assert!(block < self.inputs.len(), "block {block} of {}", self.inputs.len());
        self.inputs.get(block + 1).map_or(&self.h, |(h, _)| h)
    }
}

/// The linear layers of all blocks, in the order in which they run.
impl Layers for LanguageModel {
    fn layers(&self) -> Vec<LayerInfo> {
        infos(self.linears())
    }

    fn read(&self, name: &str) -> Result<CowArray<'_, f32, Ix2>> {
        Ok(self.linear(layer_name(name))?.dense_weight())
    }

    fn mask(&self, name: &str) -> Result<Option<Cow<'_, Mask>>> {
        Ok(self.linear(layer_name(name))?.kept())
    }

    fn write(&mut self, name: &str, pruned: Pruned) -> Result<()> {
        self.linear_mut(layer_name(name))?.set_pruned(pruned)
    }
}

/// Run on [`Sequences`]; a row of outputs is a token, its outputs are the logits. There is no pass for second derivatives.
impl Model for LanguageModel {
    type Batch = Sequences;
    type Tape = LanguageTape;

    fn forward(&self, batch: &Sequences, _: Mode, observer: &mut dyn Observer) -> Result<LanguageTape> {
        self.tape(batch.ids(), batch.length(), observer)
    }

    fn observe(&self, batch: &Sequences, observer: &mut dyn Observer) -> Result<()> {
        self.hidden_states(batch.ids(), batch.length(), observer).map(drop)
    }

    fn backward(&self, tape: LanguageTape, objective: &dyn Objective, rows: &[usize], sink: &mut Sink<'_>) -> Result<f64> {
        self.backward_wanted(tape, objective, rows, &|_| true, sink)
    }

    fn backward_wanted(
        &self,
        tape: LanguageTape,
        objective: &dyn Objective,
        rows: &[usize],
        wanted: &Wanted<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<f64> {
        let LanguageTape { ids, length, at, inputs, h } = tape;
        // Of norms, which cost little, gradients are made in any case.
        let sink: &mut Sink<'_> = &mut |name, gradient| {
            if wanted(name) {
                sink(name, gradient);
            }
        };
        let mut carry = Carry::new(sink);
        carry.wanted = wanted;
        check_taps(objective, self.blocks.len())?;
        let count = objective.count(rows);
        let (loss, mut d, tied) = self.ends.back(&h, (objective, rows, count), &mut carry)?;
        let mut taps = Taps { objective, rows, count, loss };
        taps.behind(self.blocks.len().checked_sub(1), &h, &mut d);
        drop(h);
        for (number, (block, (h, kept))) in self.blocks.iter().zip(inputs).enumerate().rev() {
            block.back((&h, kept), &at, &mut d, None, &mut carry);
            // What goes into a block is what the one before it gave.
            taps.behind(number.checked_sub(1), &h, &mut d);
        }
        self.ends.embed_back(&[(&ids, &d)], length, tied, &mut carry);
        Ok(taps.loss)
    }
}

fn decoder_only(config: &Config) -> Result<()> {
    if config.is_encoder_decoder() {
        let reason = format!("{} is an encoder-decoder, not a decoder alone", config.family());
        return Err(Error::invalid_option("model_type", reason));
    }
    Ok(())
}
