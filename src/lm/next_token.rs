//! What a language model learns from a text: the token that follows.

use crate::data::Sequences;
use crate::kernels::vector;
use crate::nn::{Objective, Passes, Samples};
use crate::{Error, Result};
use ndarray::Array2;
use rayon::prelude::*;

/// What each token of sequences of `length` has to predict: the one that follows it, and the last of each nothing.
///
/// # Panics
/// If `length` is 0.
pub fn next_tokens(ids: &[u32], length: usize) -> Vec<Option<u32>> {
    assert!(length > 0, "sequences of no tokens");
    (0..ids.len()).map(|t| if (t + 1) % length == 0 { None } else { ids.get(t + 1).copied() }).collect()
}

/// The cross-entropy of the token that follows each, −ln p in nats: a row of outputs is a token, its outputs the logits of the vocabulary.
/// A row without a target has no loss.
///
/// With the sequences that the targets were made of ([`NextToken::new`]) these are [`Samples`] too: a sample is a sequence.
///
/// ```
/// use lacuna::{data::Sequences, lm::NextToken, nn::Objective};
/// use ndarray::array;
/// let text = NextToken::new(Sequences::new(vec![0, 1, 1], 3)?, 2)?;
/// let mut logits = array![[0., 0.], [0., 0.], [5., 0.]];
/// assert_eq!(text.count(&[0, 1, 2]), 2);
/// assert!((text.loss(&[0, 1, 2], &mut logits, 2) - 2. * 2f64.ln()).abs() < 1e-6);
/// assert_eq!(logits, array![[0.25, -0.25], [0.25, -0.25], [0., 0.]]);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NextToken {
    /// None where the targets follow nothing that is run.
    sequences: Option<Sequences>,
    targets: Vec<Option<u32>>,
    vocab: usize,
    passes: Passes,
}

impl NextToken {
    /// Of sequences, in a vocabulary of `vocab`; one sequence a pass.
    ///
    /// # Errors
    /// If a token is not in the vocabulary.
    pub fn new(sequences: Sequences, vocab: usize) -> Result<Self> {
        known(sequences.ids().iter().copied(), vocab)?;
        let targets = next_tokens(sequences.ids(), sequences.length());
        let passes = Passes { batch: 1, ..Passes::default() };
        Ok(NextToken { sequences: Some(sequences), targets, vocab, passes })
    }

    /// Of these targets, one a row, whatever they follow.
    ///
    /// # Errors
    /// If one is not in the vocabulary.
    pub fn of(targets: Vec<Option<u32>>, vocab: usize) -> Result<Self> {
        known(targets.iter().flatten().copied(), vocab)?;
        Ok(NextToken { sequences: None, targets, vocab, passes: Passes::default() })
    }

    /// So many sequences a pass, and whatever else is said of them.
    pub fn with_passes(mut self, passes: Passes) -> Self {
        self.passes = passes;
        self
    }
}

impl Objective for NextToken {
    fn dim(&self) -> (usize, usize) {
        (self.targets.len(), self.vocab)
    }

    fn count(&self, rows: &[usize]) -> usize {
        rows.iter().filter(|row| self.targets[**row].is_some()).count()
    }

    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
        if !outputs.is_standard_layout() {
            *outputs = outputs.as_standard_layout().into_owned();
        }
        let mut losses = vec![0.0; rows.len()];
        rows_with(outputs, &mut losses, |t, row, loss| softmax_slope(row, self.targets[rows[t]], count, loss));
        losses.iter().sum()
    }
}

impl Samples for NextToken {
    type Batch = Sequences;

    fn len(&self) -> usize {
        self.sequences.as_ref().map_or(0, Sequences::len)
    }

    fn batch(&self, samples: &[usize]) -> Sequences {
        let of = self.sequences.as_ref().and_then(|all| all.select(samples));
        of.unwrap_or_else(|| panic!("{samples:?} are not samples of {}", Samples::len(self)))
    }

    fn rows(&self, samples: &[usize]) -> Vec<usize> {
        let length = self.sequences.as_ref().map_or(1, Sequences::length);
        samples.iter().flat_map(|sample| sample * length..(sample + 1) * length).collect()
    }

    fn objective(&self) -> &dyn Objective {
        self
    }

    fn passes(&self) -> Passes {
        self.passes
    }
}

/// Turns logits into the slope of the mean loss at them; a token without a target has none.
fn softmax_slope(row: &mut [f32], target: Option<u32>, count: usize, loss: &mut f64) {
    let Some(target) = target else { return row.fill(0.0) };
    let target = target as usize;
    *loss = -f64::from(row[target]);
    let max = vector::max(row);
    let sum = vector::exp_sum(row, 1.0, max);
    *loss += f64::from(max) + sum.ln();
    vector::scale(row, (1.0 / (sum * count as f64)) as f32);
    row[target] -= 1.0 / count as f32;
}

/// Calls `f` with each row's number, the row, and its own number of `with`, in parallel.
pub(super) fn rows_with(x: &mut Array2<f32>, with: &mut [f64], f: impl Fn(usize, &mut [f32], &mut f64) + Sync) {
    let width = x.ncols();
    let x = x.as_slice_mut().expect("logits are made in standard layout");
    x.par_chunks_mut(width).zip(with).enumerate().for_each(|(t, (row, with))| f(t, row, with));
}

/// How many whole sequences there are.
pub(super) fn sequences(ids: &[u32], length: usize) -> Result<usize> {
    if length == 0 || ids.is_empty() || ids.len() % length != 0 {
        return Err(Error::invalid_option("ids", format!("{} tokens are not whole sequences of {length}", ids.len())));
    }
    Ok(ids.len() / length)
}

/// Refuses ids that the vocabulary has not.
pub(super) fn known(ids: impl Iterator<Item = u32>, vocab: usize) -> Result<()> {
    match ids.enumerate().find(|(_, id)| *id as usize >= vocab) {
        Some((at, id)) => Err(Error::invalid_option("ids", format!("token {at} is {id}; the vocabulary has {vocab}"))),
        None => Ok(()),
    }
}
