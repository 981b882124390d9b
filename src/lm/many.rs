//! Many texts that a model writes side by side: a token each at a time.
//!
//! Generating for calibration: Ji, Xiang, Li, Xia, Li, Zhang. *Beware of calibration data for pruning large language models.* 2024,
//! arXiv:2410.17711, section 5: texts of the model's own, begun by a few tokens, of which those of highest perplexity are dropped.
//!
//! Departure: where the authors begin with tokens of a corpus, a text begins with the token that stands between documents, and its first tokens are
//! drawn from the model's whole distribution, so that texts begin differently.

use super::LanguageModel;
use crate::kernels::vector;
use crate::nn::LayerCache;
use crate::rng::Seed;
use crate::text::{Ended, Sampler, Sampling};
use crate::{Error, Result};
use ndarray::{Array2, ArrayView1, s};
use rayon::prelude::*;
use serde::Serialize;
use std::ops::ControlFlow;

/// Keys and values of several texts of one length.
#[derive(Debug, Clone)]
pub struct BatchCache {
    /// Of each block, one a text.
    layers: Vec<Vec<LayerCache>>,
    /// The tokens of each text.
    ids: Vec<Vec<u32>>,
    regime: usize,
}

impl BatchCache {
    /// Number of texts.
    pub fn texts(&self) -> usize {
        self.ids.len()
    }

    /// Tokens of each text.
    pub fn tokens(&self) -> usize {
        self.ids.first().map_or(0, Vec::len)
    }

    /// Forgets a text; the last takes its number.
    ///
    /// # Panics
    /// If there is no such text.
    pub fn swap_remove(&mut self, text: usize) {
        self.ids.swap_remove(text);
        self.layers.iter_mut().for_each(|caches| drop(caches.swap_remove(text)));
    }
}

impl LanguageModel {
    /// An empty cache of so many texts.
    pub fn batch_cache(&self, texts: usize) -> BatchCache {
        let layers = vec![vec![LayerCache::default(); texts]; self.blocks().len()];
        BatchCache { layers, ids: vec![Vec::new(); texts], regime: 0 }
    }

    /// Appends a token to each text and gives the logits of what follows it, `(texts, vocab)`. Two texts or more have the bits that each of them has
    /// beside any others, but for mixtures of experts. Of rotary frequencies that change with the length see [`LanguageModel::step`].
    ///
    /// # Errors
    /// As [`LanguageModel::forward`]; [`Error::Shape`] if there is not a token for each text.
    pub fn step_batch(&self, ids: &[u32], cache: &mut BatchCache) -> Result<Array2<f32>> {
        let texts = cache.texts();
        if ids.len() != texts || texts == 0 {
            return Err(Error::shape("tokens of a batch", &[texts.max(1)], &[ids.len()]));
        }
        self.predicts()?;
        let first = cache.tokens();
        let regime = self.regime(first + 1);
        cache.ids.iter_mut().zip(ids).for_each(|(text, id)| text.push(*id));
        let anew = first > 0 && regime != cache.regime;
        cache.regime = regime;
        let found = match anew {
            false => self.advance(ids, (texts, first), cache.layers.iter_mut().map(Vec::as_mut_slice)),
            true => {
                cache.layers.iter_mut().flatten().for_each(|layer| layer.truncate(0));
                // Each text by itself, so that what is beside it decides on no order of sums.
                let (ids, layers) = (&cache.ids, &mut cache.layers);
                let rows = ids.iter().enumerate().map(|(i, text)| {
                    let own = layers.iter_mut().map(|caches| std::slice::from_mut(&mut caches[i]));
                    self.advance(text, (1, 0), own)
                });
                rows.collect::<Result<Vec<_>>>().map(|rows| {
                    let mut logits = Array2::zeros((texts, self.config().vocab()));
                    logits.rows_mut().into_iter().zip(&rows).for_each(|(mut to, row)| to.assign(&row.row(0)));
                    logits
                })
            }
        };
        if found.is_err() {
            cache.ids.iter_mut().for_each(|text| text.truncate(text.len() - 1));
        }
        found
    }
}

/// How texts are written.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `texts` | | from 1 | texts that are kept |
/// | `tokens` | | from 1 | tokens of each at most |
/// | `batch` | 32 | from 1 | texts side by side |
/// | `opening` | 4 | | first tokens, which are drawn from the whole distribution |
/// | `sampling` | temperature 1 | | how the others are drawn |
/// | `drop` | 0.2 | [0, 1) | of all that are written, the fraction of highest perplexity that is not kept |
/// | `seed` | 0 | | text number i is drawn from `seed + i` |
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TextGeneration {
    /// Texts that are kept.
    pub texts: usize,
    /// Tokens of each at most.
    pub tokens: usize,
    /// Texts side by side.
    pub batch: usize,
    /// First tokens of a text, which are drawn from the whole distribution.
    pub opening: usize,
    /// How the others are drawn.
    pub sampling: Sampling,
    /// The fraction that is dropped.
    pub drop: f64,
    /// The seed of the first text.
    pub seed: Seed,
}

/// A text that a model wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GeneratedText {
    /// The seed that it was drawn from.
    pub seed: Seed,
    /// Its tokens, without the one that it begins behind and the one that ended it.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub ended: Ended,
    /// The mean −ln p of its tokens by the model, in nats.
    pub nll: f64,
}

impl TextGeneration {
    /// So many texts of so many tokens.
    pub fn new(texts: usize, tokens: usize) -> TextGeneration {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        TextGeneration { texts, tokens, batch: 32, opening: 4, sampling, drop: 0.2, seed: Seed(0) }
    }

    /// The same with other draws.
    #[must_use]
    pub fn sampling(self, sampling: Sampling) -> TextGeneration {
        TextGeneration { sampling, ..self }
    }

    /// The same, so many side by side.
    #[must_use]
    pub fn batch(self, batch: usize) -> TextGeneration {
        TextGeneration { batch, ..self }
    }

    /// The same with another fraction dropped.
    #[must_use]
    pub fn drop(self, drop: f64) -> TextGeneration {
        TextGeneration { drop, ..self }
    }

    /// The same from another seed.
    #[must_use]
    pub fn seed(self, seed: Seed) -> TextGeneration {
        TextGeneration { seed, ..self }
    }

    /// Texts that are written, with those that will be dropped.
    pub fn written(&self) -> usize {
        (self.texts as f64 / (1.0 - self.drop)).ceil() as usize
    }

    /// Refuses settings that cannot be.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the number and its range.
    pub fn check(&self) -> Result<()> {
        for (option, number) in [("many", self.texts), ("tokens", self.tokens), ("batch", self.batch)] {
            if number == 0 {
                return Err(Error::invalid_option(option, "0 is not at least 1"));
            }
        }
        if !(0.0..1.0).contains(&self.drop) {
            return Err(Error::invalid_option("drop", format!("{} is not in [0, 1)", self.drop)));
        }
        Sampler::new(self.sampling, self.seed).map(drop)
    }

    /// Has a model write texts behind token `start`, until one of `stops` or until they are long enough. A text is the same whatever is written beside
    /// it (see [`LanguageModel::step_batch`]). `see` is told how many tokens of all are written at most, and may stop.
    ///
    /// # Errors
    /// As [`TextGeneration::check`] and [`LanguageModel::step_batch`]; [`Error::NotFinite`] if logits are not numbers; [`Error::Interrupted`] if `see`
    /// stops.
    pub fn run(
        &self,
        model: &LanguageModel,
        (start, stops): (u32, &[u32]),
        see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<GeneratedText>> {
        self.check()?;
        let (written, mut all) = (self.written(), Vec::new());
        for first in (0..written).step_by(self.batch) {
            let count = self.batch.min(written - first);
            let mut told = |tokens: usize| see(first * self.tokens + tokens * count, written * self.tokens);
            all.extend(self.side_by_side(model, (start, stops), (first, count), &mut told)?);
        }
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by(|&a, &b| all[a].nll.total_cmp(&all[b].nll).then(a.cmp(&b)));
        order.truncate(self.texts);
        order.sort_unstable();
        Ok(order.into_iter().map(|i| all[i].clone()).collect())
    }

    /// Texts number `first` and on.
    fn side_by_side(
        &self,
        model: &LanguageModel,
        (start, stops): (u32, &[u32]),
        (first, count): (usize, usize),
        see: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<GeneratedText>> {
        let whole = Sampling { temperature: 1.0, ..Sampling::default() };
        let begin = |i: usize| -> Result<Slot> {
            let seed = Seed(self.seed.0.wrapping_add((first + i) as u64));
            let text = GeneratedText { seed, ids: Vec::new(), ended: Ended::Limit, nll: 0.0 };
            Ok(Slot { number: i, text, next: start, sampler: Sampler::new(whole, seed)? })
        };
        // A product of one row adds up in another order than those of more.
        let mut slots = (0..count.max(2)).map(begin).collect::<Result<Vec<_>>>()?;
        let mut cache = model.batch_cache(slots.len());
        let mut done: Vec<Option<GeneratedText>> = vec![None; slots.len()];
        for t in 0..self.tokens {
            let ids: Vec<u32> = slots.iter().map(|slot| slot.next).collect();
            let logits = model.step_batch(&ids, &mut cache)?;
            if t == self.opening {
                slots.iter_mut().for_each(|slot| slot.sampler.set_sampling(self.sampling));
            }
            let picked = slots.par_iter_mut().enumerate().map(|(i, slot)| slot.pick(logits.slice(s![i, ..]), stops));
            let ended = picked.collect::<Result<Vec<bool>>>()?;
            for i in (0..slots.len()).rev().filter(|&i| ended[i]) {
                let number = slots[i].number;
                done[number].get_or_insert_with(|| slots[i].text.clone());
                if slots.len() > 2 {
                    cache.swap_remove(i);
                    slots.swap_remove(i);
                }
            }
            if slots.iter().all(|slot| done[slot.number].is_some()) {
                break;
            }
            Error::go_on(see(t + 1))?;
        }
        for slot in slots {
            done[slot.number].get_or_insert(slot.text);
        }
        let texts = done.into_iter().take(count).flatten();
        Ok(texts.map(|text| GeneratedText { nll: text.nll / text.ids.len().max(1) as f64, ..text }).collect())
    }
}

/// A text that is being written.
struct Slot {
    number: usize,
    text: GeneratedText,
    next: u32,
    sampler: Sampler,
}

impl Slot {
    /// Draws the next token; whether it ended the text.
    fn pick(&mut self, logits: ArrayView1<'_, f32>, stops: &[u32]) -> Result<bool> {
        let mut logits = logits.to_vec();
        let id = self.sampler.pick(&logits)?;
        self.next = id;
        if self.text.ended == Ended::Stop || stops.contains(&id) {
            self.text.ended = Ended::Stop;
            return Ok(true);
        }
        let top = vector::max(&logits);
        let own = f64::from(logits[id as usize] - top);
        self.text.nll += vector::exp_sum(&mut logits, 1.0, top).ln() - own;
        self.text.ids.push(id);
        Ok(false)
    }
}

/// The fraction of runs of eight tokens that stood in the same text before, over all texts: near 1 of a model that only repeats itself.
pub fn repeated(texts: &[GeneratedText]) -> f64 {
    let (mut again, mut all) = (0usize, 0usize);
    for text in texts {
        let mut seen = std::collections::HashSet::new();
        for run in text.ids.windows(8) {
            all += 1;
            again += usize::from(!seen.insert(run));
        }
    }
    again as f64 / all.max(1) as f64
}
