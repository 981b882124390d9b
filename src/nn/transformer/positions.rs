//! Where the tokens of a pass stand, and what earlier passes left in the cache.

use super::{Distances, RotaryTable};
use ndarray::{Array2, ArrayRef2, ArrayView2, s};
use std::ops::Range;

/// Where tokens stand: `sequences` of `length` tokens each, one after another in the rows of every array, each from position
/// `first` on; and what depends on positions alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Positions {
    /// Number of sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Position of the first token of each.
    pub first: usize,
    /// Cosines and sines, where positions are rotary: a table for each kind of layers.
    pub turns: Vec<RotaryTable>,
    /// Biases of scores, where positions are relative.
    pub distances: Option<Distances>,
}

impl Positions {
    /// Positions that change nothing by themselves.
    pub fn plain(sequences: usize, length: usize, first: usize) -> Self {
        Positions { sequences, length, first, turns: Vec::new(), distances: None }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.sequences * self.length
    }
}

/// Keys and values of one layer and one sequence, for the tokens that come later.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    k: Vec<f32>,
    v: Vec<f32>,
    width: usize,
    tokens: usize,
}

impl LayerCache {
    /// Appends the keys and values `(tokens, keys · dim)` of the next tokens.
    ///
    /// # Panics
    /// If their width is not that of the tokens before.
    pub fn push(&mut self, k: &ArrayRef2<f32>, v: &ArrayRef2<f32>) {
        assert!(
            k.dim() == v.dim() && (self.tokens == 0 || k.ncols() == self.width),
            "keys of {:?}, before {}",
            k.dim(),
            self.width
        );
        self.width = k.ncols();
        self.tokens += k.nrows();
        k.rows().into_iter().for_each(|row| self.k.extend(row));
        v.rows().into_iter().for_each(|row| self.v.extend(row));
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Forgets all tokens from this one on.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
        self.k.truncate(self.tokens * self.width);
        self.v.truncate(self.tokens * self.width);
    }

    /// Bytes of the keys and values.
    pub fn bytes(&self) -> usize {
        (self.k.len() + self.v.len()) * size_of::<f32>()
    }

    /// Keys and values, `(tokens, keys · dim)` each.
    pub fn views(&self) -> [ArrayView2<'_, f32>; 2] {
        [&self.k, &self.v].map(|of| match ArrayView2::from_shape((self.tokens, self.width), of) {
            Ok(view) => view,
            Err(_) => unreachable!("{} numbers of {} tokens of {}", of.len(), self.tokens, self.width),
        })
    }
}

/// Some columns of the rows of one sequence.
pub(super) fn part<'a>(x: &'a Array2<f32>, at: &Positions, sequence: usize, columns: Range<usize>) -> ArrayView2<'a, f32> {
    let length = x.nrows() / at.sequences;
    x.slice(s![sequence * length..(sequence + 1) * length, columns])
}
