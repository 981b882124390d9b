//! Texts with labels: what an encoder-decoder is run on, and learns.

use super::next_token::NextToken;
use crate::Result;
use crate::nn::{Objective, Passes, Samples};

/// A text and the labels that are to be written for it. A [`Seq2Seq`](super::Seq2Seq) is run on some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPair {
    /// Tokens that the encoder reads.
    pub ids: Vec<u32>,
    /// Tokens that the decoder is to write.
    pub labels: Vec<u32>,
}

/// Texts with labels as [`Samples`] of a [`Seq2Seq`](super::Seq2Seq): the cross-entropy of every label, one pair a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct TextPairs {
    pairs: Vec<TextPair>,
    /// The row of each pair's first label, and of none behind the last.
    first: Vec<usize>,
    objective: NextToken,
    passes: Passes,
}

impl TextPairs {
    /// Of these pairs, in a vocabulary of `vocab`.
    ///
    /// # Errors
    /// If a label is not in the vocabulary.
    pub fn new(pairs: Vec<TextPair>, vocab: usize) -> Result<Self> {
        let mut first = vec![0];
        pairs.iter().for_each(|pair| first.push(first[first.len() - 1] + pair.labels.len()));
        let targets = pairs.iter().flat_map(|pair| pair.labels.iter().copied().map(Some)).collect();
        let objective = NextToken::of(targets, vocab)?;
        Ok(TextPairs { pairs, first, objective, passes: Passes { batch: 1, ..Passes::default() } })
    }

    /// So many pairs a pass, and whatever else is said of them.
    pub fn with_passes(mut self, passes: Passes) -> Self {
        self.passes = passes;
        self
    }
}

impl Samples for TextPairs {
    type Batch = Vec<TextPair>;

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn batch(&self, samples: &[usize]) -> Vec<TextPair> {
        samples.iter().map(|&sample| self.pairs[sample].clone()).collect()
    }

    fn rows(&self, samples: &[usize]) -> Vec<usize> {
        samples.iter().flat_map(|&sample| self.first[sample]..self.first[sample + 1]).collect()
    }

    fn objective(&self) -> &dyn Objective {
        &self.objective
    }

    fn passes(&self) -> Passes {
        self.passes
    }
}
