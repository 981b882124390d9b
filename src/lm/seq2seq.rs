//! [`Seq2Seq`]: an encoder that reads one text, and a decoder that writes another.

use super::Config;
use super::embedding_head::EmbeddingHead;
use super::linears::{self, Taps, infos, named, no_weight};
use super::load::Reader;
use super::next_token::{NextToken, sequences};
use super::relative::Bias;
use super::text_pairs::TextPair;
use crate::io::{Weights, WeightsMut};
use crate::kernels::awake;
use crate::mask::Mask;
use crate::nn::attention::{Carry, Source};
use crate::nn::{
    Block, Change, Gradients, LayerCache, LayerInfo, Layers, Linear, Mode, Model, Norm, Objective, Observer, Parameters,
    Positions, See, Sink, Wanted, check_rows, check_taps, layer_name,
};
use crate::solve::Pruned;
use crate::{Error, Result};
use ndarray::{Array1, Array2, CowArray, Ix2, s};
use std::borrow::Cow;

/// A T5 model, whole in memory.
#[derive(Debug, Clone)]
pub struct Seq2Seq {
    config: Config,
    /// Embedding of both, final norm of the decoder, head.
    ends: EmbeddingHead,
    encoder: Vec<Block>,
    encoder_norm: Norm,
    encoder_bias: Bias,
    decoder: Vec<Block>,
    decoder_bias: Bias,
}

/// What the decoder has written so far, and what it reads of the encoder's text.
#[derive(Debug, Clone)]
pub struct Seq2SeqCache {
    own: Vec<LayerCache>,
    /// Keys and values of the encoder's text, for each block.
    memory: Vec<Array2<f32>>,
}

impl Seq2SeqCache {
    /// Number of tokens written.
    pub fn len(&self) -> usize {
        self.own.first().map_or(0, LayerCache::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Seq2Seq {
    /// Reads a whole model.
    ///
    /// # Errors
    /// If a tensor is missing, belongs to no part, or has another shape than the config says; the error names it. For a config
    /// that is not an encoder-decoder's.
    pub fn load(weights: &dyn Weights, config: Config) -> Result<Self> {
        let recipe = config.recipe();
        let (Some(relative), [first, second]) = (recipe.relative, &recipe.stacks[..]) else {
            let reason = format!("{} is a decoder alone, not an encoder-decoder", config.family());
            return Err(Error::invalid_option("model_type", reason));
        };
        let reader = Reader::new(weights, &config);
        let heads = recipe.layers[0].heads.queries;
        if let Some(i) = recipe.layers.iter().position(|l| l.heads.queries != heads) {
            return Err(Error::invalid_option(
                "layer_widths",
                format!("block {i}: all blocks of T5 share one bias of {heads} heads"),
            ));
        }
        reader.depth()?;
        let model = Seq2Seq {
            ends: EmbeddingHead::read(&reader, &config)?,
            encoder: (0..first.blocks).map(|i| reader.block(i)).collect::<Result<_>>()?,
            encoder_norm: reader.norm(&reader.name(first.final_norm.unwrap_or_default()))?,
            encoder_bias: Bias::read(&reader, first.path, relative, heads, true)?,
            decoder: (first.blocks..config.layers()).map(|i| reader.block(i)).collect::<Result<_>>()?,
            decoder_bias: Bias::read(&reader, second.path, relative, heads, false)?,
            config: config.clone(),
        };
        reader.finish()?;
        Ok(model)
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Embedding, final norm of the decoder, and head.
    pub fn embedding_head(&self) -> &EmbeddingHead {
        &self.ends
    }

    /// As [`Seq2Seq::embedding_head`], to be changed.
    pub fn embedding_head_mut(&mut self) -> &mut EmbeddingHead {
        &mut self.ends
    }

    /// The encoder's blocks.
    pub fn encoder(&self) -> &[Block] {
        &self.encoder
    }

    /// The decoder's blocks.
    pub fn decoder(&self) -> &[Block] {
        &self.decoder
    }

    /// All blocks, the encoder's first, to be changed.
    pub fn blocks_mut(&mut self) -> impl Iterator<Item = &mut Block> {
        self.encoder.iter_mut().chain(&mut self.decoder)
    }

    /// The linear layers of all blocks, the encoder's first.
    pub fn linears(&self) -> Vec<&Linear> {
        self.encoder.iter().chain(&self.decoder).flat_map(Block::linears).collect()
    }

    /// A linear layer by its name.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name.
    pub fn linear(&self, name: &str) -> Result<&Linear> {
        named(self.linears(), name)
    }

    /// A linear layer by its name, to be changed.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name.
    pub fn linear_mut(&mut self, name: &str) -> Result<&mut Linear> {
        // The nearest name is looked for only where it is needed.
        if self.find_mut(name).is_none() {
            return Err(Error::unknown_layer(name, self.linears().into_iter().map(Linear::name)));
        }
        self.find_mut(name).ok_or_else(|| Error::unknown_layer(name, std::iter::empty()))
    }

    fn find_mut(&mut self, name: &str) -> Option<&mut Linear> {
        let Seq2Seq { ends, encoder, decoder, .. } = self;
        let blocks = encoder.iter_mut().chain(decoder).flat_map(Block::linears_mut);
        blocks.chain(ends.head_mut()).find(|l| l.name() == name)
    }

    /// Where the encoder's tokens stand.
    pub fn encoder_positions(&self, length: usize) -> Positions {
        let distances = Some(self.encoder_bias.distances(length, length));
        Positions { distances, ..Positions::plain(1, length, 0) }
    }

    /// Where the decoder's tokens stand, from position `first` on.
    pub fn decoder_positions(&self, length: usize, first: usize) -> Positions {
        let distances = Some(self.decoder_bias.distances(first + length, first + length));
        Positions { distances, ..Positions::plain(1, length, first) }
    }

    /// What the encoder makes of a text, `(tokens, hidden)`.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, or there is no token.
    pub fn encode(&self, ids: &[u32], observer: &mut dyn Observer) -> Result<Array2<f32>> {
        sequences(ids, ids.len())?;
        let at = self.encoder_positions(ids.len());
        let mut h = self.ends.embed(ids, ids.len(), 0)?;
        self.encoder.iter().for_each(|block| block.forward(&mut h, &at, observer));
        Ok(self.encoder_norm.apply(&h))
    }

    /// What the decoder reads to write `labels`: they follow the token it starts with.
    pub fn shifted(&self, labels: &[u32]) -> Vec<u32> {
        let start = self.config.decoder_start();
        std::iter::once(start).chain(labels.iter().copied()).take(labels.len()).collect()
    }

    /// What the decoder's last block gives, `(labels, hidden)`, given the encoder's `memory`.
    ///
    /// # Errors
    /// As [`Seq2Seq::encode`].
    pub fn decode(&self, labels: &[u32], memory: &Array2<f32>, observer: &mut dyn Observer) -> Result<Array2<f32>> {
        sequences(labels, labels.len())?;
        let at = self.decoder_positions(labels.len(), 0);
        let mut h = self.ends.embed(&self.shifted(labels), labels.len(), 0)?;
        self.decoder.iter().for_each(|block| block.forward_with_memory(&mut h, memory, &at, observer));
        Ok(h)
    }

    /// Logits `(labels, vocab)`: those of token t say what the decoder makes of the labels before it.
    ///
    /// # Errors
    /// As [`Seq2Seq::encode`].
    pub fn forward(&self, ids: &[u32], labels: &[u32]) -> Result<Array2<f32>> {
        Ok(self.ends.logits(&self.decode(labels, &self.encode(ids, &mut ())?, &mut ())?))
    }

    /// `-ln p` of every label.
    ///
    /// # Errors
    /// As [`Seq2Seq::encode`].
    pub fn nll(&self, ids: &[u32], labels: &[u32]) -> Result<Vec<f64>> {
        let targets: Vec<Option<u32>> = labels.iter().copied().map(Some).collect();
        self.ends.nll(&self.decode(labels, &self.encode(ids, &mut ())?, &mut ())?, &targets)
    }

    /// Reads a text, for [`Seq2Seq::step`].
    ///
    /// # Errors
    /// As [`Seq2Seq::encode`].
    pub fn cache(&self, ids: &[u32]) -> Result<Seq2SeqCache> {
        let states = self.encode(ids, &mut ())?;
        let ready =
            |block: &Block| block.cross.as_ref().map_or_else(|| Array2::zeros((0, 0)), |(_, c)| c.remember(&states, &mut ()));
        Ok(Seq2SeqCache {
            own: vec![LayerCache::default(); self.decoder.len()],
            memory: self.decoder.iter().map(ready).collect(),
        })
    }

    /// Appends tokens that the decoder wrote, the first of all being [`Config::decoder_start`], and gives the logits `(vocab)`
    /// of what follows.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, or there is no token.
    pub fn step(&self, ids: &[u32], cache: &mut Seq2SeqCache) -> Result<Array1<f32>> {
        sequences(ids, ids.len())?;
        let at = self.decoder_positions(ids.len(), cache.len());
        awake(|| {
            let mut h = self.ends.embed(ids, ids.len(), at.first)?;
            for ((block, own), memory) in self.decoder.iter().zip(&mut cache.own).zip(&cache.memory) {
                block.run(&mut h, &at, Source::Ready(memory), Some(std::slice::from_mut(own)), &mut ());
            }
            Ok(self.ends.logits(&h.slice(s![ids.len() - 1.., ..])).row(0).to_owned())
        })
    }

    /// The mean loss of the labels, given the text; every parameter's gradient goes to `sink`, once. [`Model::backward`] is the same for
    /// any objective.
    ///
    /// # Errors
    /// As [`Seq2Seq::encode`].
    pub fn backward(&self, ids: &[u32], labels: &[u32], sink: &mut Sink<'_>) -> Result<f64> {
        let tape = self.tape(ids, labels, &mut ())?;
        let objective = NextToken::of(labels.iter().copied().map(Some).collect(), self.config.vocab())?;
        let rows: Vec<usize> = (0..labels.len()).collect();
        Ok(self.back(tape, (&objective, &rows, labels.len()), &|_| true, sink)? / labels.len() as f64)
    }

    /// Runs and keeps what every block was given.
    fn tape(&self, ids: &[u32], labels: &[u32], observer: &mut dyn Observer) -> Result<Seq2SeqTape> {
        sequences(ids, ids.len())?;
        sequences(labels, labels.len())?;
        let (at, decoder_at) = (self.encoder_positions(ids.len()), self.decoder_positions(labels.len(), 0));
        let mut encoded = self.ends.embed(ids, ids.len(), 0)?;
        let mut encoder_inputs = Vec::with_capacity(self.encoder.len());
        for block in &self.encoder {
            encoder_inputs.push(encoded.clone());
            block.forward(&mut encoded, &at, observer);
        }
        let memory = self.encoder_norm.apply(&encoded);
        let shifted = self.shifted(labels);
        let mut h = self.ends.embed(&shifted, labels.len(), 0)?;
        let mut inputs = Vec::with_capacity(self.decoder.len());
        for block in &self.decoder {
            inputs.push(h.clone());
            block.forward_with_memory(&mut h, &memory, &decoder_at, observer);
        }
        Ok(Seq2SeqTape { ids: ids.to_vec(), shifted, at, decoder_at, encoder_inputs, encoded, memory, inputs, h })
    }

    /// Writes every tensor under its checkpoint name, and the masks; zeros where a sparse storage keeps nothing. An embedding that the file held
    /// under several names is written under each.
    ///
    /// # Errors
    /// As [`WeightsMut::write`].
    pub fn write(&self, to: &mut dyn WeightsMut) -> Result<()> {
        linears::write(self, self.linears(), to)?;
        self.ends.write_copies(to)
    }
}

/// Parameters have the names of their tensors. Masks are held on the weights of linear layers.
impl Parameters for Seq2Seq {
    fn visit(&self, f: &mut See<'_>) {
        self.ends.visit(f);
        self.encoder.iter().for_each(|block| block.visit(f));
        self.encoder_norm.visit(f);
        self.encoder_bias.visit(f);
        self.decoder.iter().for_each(|block| block.visit(f));
        self.decoder_bias.visit(f);
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.ends.visit_mut(f)?;
        self.encoder.iter_mut().try_for_each(|block| block.visit_mut(f))?;
        self.encoder_norm.visit_mut(f);
        self.encoder_bias.visit_mut(f);
        self.decoder.iter_mut().try_for_each(|block| block.visit_mut(f))?;
        self.decoder_bias.visit_mut(f);
        Ok(())
    }

    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        match name.strip_suffix(".weight").map(|layer| self.linear_mut(layer)) {
            Some(Ok(linear)) => linear.set_mask(mask),
            _ => Err(no_weight(self, name)),
        }
    }
}

/// What a run keeps for the way back: the hidden states before each block, and behind the last of both stacks.
#[derive(Debug, Clone)]
pub struct Seq2SeqTape {
    ids: Vec<u32>,
    shifted: Vec<u32>,
    at: Positions,
    decoder_at: Positions,
    encoder_inputs: Vec<Array2<f32>>,
    encoded: Array2<f32>,
    memory: Array2<f32>,
    inputs: Vec<Array2<f32>>,
    h: Array2<f32>,
}

/// The linear layers of all blocks, those of the encoder first.
impl Layers for Seq2Seq {
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

/// Run on texts and their labels, one after another; a row of outputs is a label, its outputs are the logits. Hidden states that an objective asks for are
/// those of the decoder's blocks.
impl Model for Seq2Seq {
    type Batch = Vec<TextPair>;
    type Tape = Vec<Seq2SeqTape>;

    fn forward(&self, batch: &Vec<TextPair>, _: Mode, observer: &mut dyn Observer) -> Result<Vec<Seq2SeqTape>> {
        batch.iter().map(|pair| self.tape(&pair.ids, &pair.labels, observer)).collect()
    }

    fn observe(&self, batch: &Vec<TextPair>, observer: &mut dyn Observer) -> Result<()> {
        batch.iter().try_for_each(|pair| {
            let memory = self.encode(&pair.ids, observer)?;
            self.decode(&pair.labels, &memory, observer).map(drop)
        })
    }

    fn backward(&self, tapes: Vec<Seq2SeqTape>, objective: &dyn Objective, rows: &[usize], sink: &mut Sink<'_>) -> Result<f64> {
        self.backward_wanted(tapes, objective, rows, &|_| true, sink)
    }

    fn backward_wanted(
        &self,
        tapes: Vec<Seq2SeqTape>,
        objective: &dyn Objective,
        rows: &[usize],
        wanted: &Wanted<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<f64> {
        check_taps(objective, self.decoder.len())?;
        let labels: usize = tapes.iter().map(|tape| tape.shifted.len()).sum();
        check_rows(objective, rows, (labels, self.config.vocab()))?;
        let (count, mut left, mut loss) = (objective.count(rows), rows, 0.0);
        let alone = tapes.len() == 1;
        let mut sums = Gradients::default();
        for tape in tapes {
            let (own, behind) = left.split_at(tape.shifted.len());
            left = behind;
            if alone {
                return self.back(tape, (objective, own, count), wanted, sink);
            }
            let (part, gradients) = Gradients::of(|sink| self.back(tape, (objective, own, count), wanted, sink))?;
            loss += part;
            sums.add(gradients)?;
        }
        sums.into_iter().for_each(|(name, gradient)| sink(&name, gradient));
        Ok(loss)
    }
}

impl Seq2Seq {
    /// Goes back over one pair.
    fn back(
        &self,
        tape: Seq2SeqTape,
        (objective, rows, count): (&dyn Objective, &[usize], usize),
        wanted: &Wanted<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<f64> {
        let Seq2SeqTape { ids, shifted, at, decoder_at, encoder_inputs, encoded, memory, inputs, h } = tape;
        let sink: &mut Sink<'_> = &mut |name, gradient| {
            if wanted(name) {
                sink(name, gradient);
            }
        };
        let mut carry = Carry::new(sink);
        carry.wanted = wanted;
        let (loss, mut d, tied) = self.ends.back(&h, (objective, rows, count), &mut carry)?;
        let mut taps = Taps { objective, rows, count, loss };
        taps.behind(self.decoder.len().checked_sub(1), &h, &mut d);
        drop(h);
        let sums = |at: &Positions| at.distances.as_ref().map(|d| Array2::zeros(d.dim()));
        let mut d_memory = Array2::zeros(memory.dim());
        carry.distances = sums(&decoder_at);
        for (number, (block, h)) in self.decoder.iter().zip(inputs).enumerate().rev() {
            block.back((&h, None), &decoder_at, &mut d, Some((&memory, &mut d_memory)), &mut carry);
            taps.behind(number.checked_sub(1), &h, &mut d);
        }
        self.decoder_bias.back(shifted.len(), &mut carry);
        let mut d_encoded = Array2::zeros(encoded.dim());
        self.encoder_norm.back(&encoded, &d_memory, &mut d_encoded, carry.sink);
        carry.distances = sums(&at);
        for (block, h) in self.encoder.iter().zip(encoder_inputs).rev() {
            block.back((&h, None), &at, &mut d_encoded, None, &mut carry);
        }
        self.encoder_bias.back(ids.len(), &mut carry);
        self.ends.embed_back(&[(&shifted, &d), (&ids, &d_encoded)], shifted.len(), tied, &mut carry);
        Ok(taps.loss)
    }
}
