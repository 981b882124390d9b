//! What is measured of inputs on their way through a block.

use super::gradients::SequenceGradients;
use crate::criteria::{Measured, Need, Needs};
use crate::linalg::{Cross, Gram};
use crate::nn::Probe;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, Axis};
use std::borrow::Cow;
use std::collections::HashMap;

/// Sums over the inputs of layers that share them.
pub(super) struct Tally {
    needs: Needs,
    tokens: usize,
    gram: Option<Gram>,
    squares: Option<Array1<f64>>,
    sums: Option<Array1<f64>>,
    crossed: Option<Cross>,
    drift: Option<Cross>,
}

impl Tally {
    pub fn new(needs: Needs) -> Self {
        Tally { needs, tokens: 0, gram: None, squares: None, sums: None, crossed: None, drift: None }
    }

    /// Adds inputs `(tokens, in)`.
    pub fn add(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        let cols = x.ncols();
        if let Some(((row, col), &value)) = x.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return Err(Error::NonFinite { what: "inputs (tokens, in)".into(), row, col, value: f64::from(value) });
        }
        self.tokens += x.nrows();
        if self.needs.contains(Need::Gram) {
            self.gram.get_or_insert_with(|| Gram::new(cols)).update(x)?;
        } else if self.needs.contains(Need::InputSquares) {
            let squares = self.squares.get_or_insert_with(|| Array1::zeros(cols));
            x.axis_iter(Axis(0)).for_each(|row| squares.zip_mut_with(&row, |s, &x| *s += f64::from(x) * f64::from(x)));
        }
        if self.needs.contains(Need::InputSums) {
            let sums = self.sums.get_or_insert_with(|| Array1::zeros(cols));
            x.axis_iter(Axis(0)).for_each(|row| sums.zip_mut_with(&row, |s, &x| *s += f64::from(x)));
        }
        Ok(())
    }

    /// Adds what the dense model has in the place of x: its inputs, and by how much its stream differs.
    pub fn compare(&mut self, x: &ArrayRef2<f32>, dense: &ArrayRef2<f32>, drift: Option<&Array2<f32>>) -> Result<()> {
        self.crossed.get_or_insert_with(|| Cross::new(dense.ncols(), x.ncols())).update(dense, x)?;
        if let Some(drift) = drift {
            self.drift.get_or_insert_with(|| Cross::new(drift.ncols(), x.ncols())).update(drift, x)?;
        }
        Ok(())
    }

    /// What a pruner is given, and what the dense model has in the place of it.
    pub fn found(self) -> Found {
        let measured = Measured {
            tokens: self.tokens,
            gram: self.gram.map(Gram::into_matrix),
            input_squares: self.squares,
            input_sums: self.sums,
            ..Measured::default()
        };
        Found { measured, crossed: self.crossed, drift: self.drift }
    }
}

/// What was measured of inputs, at the end.
pub(super) struct Found {
    /// Of the inputs.
    pub measured: Measured,
    /// Dense inputs times pruned ones.
    pub crossed: Option<Cross>,
    /// The stream's drift times pruned inputs.
    pub drift: Option<Cross>,
}

impl Found {
    /// Where nothing was measured.
    pub fn nothing() -> Found {
        Found { measured: Measured::default(), crossed: None, drift: None }
    }

    /// What was measured of the inputs of a layer, and its gradients where there are some.
    pub fn with_gradients(&self, layer: &str, gradients: Option<&SequenceGradients>) -> Result<Cow<'_, Measured>> {
        let Some(gradients) = gradients else { return Ok(Cow::Borrowed(&self.measured)) };
        let Measured { tokens, gram, input_squares, input_sums, .. } = self.measured.clone();
        Ok(Cow::Owned(Measured { tokens, gram, input_squares, input_sums, ..gradients.measured(layer)? }))
    }
}

/// Sees the inputs of all layers of a block in one pass.
pub(super) struct Tallies {
    needs: Needs,
    found: Vec<Tally>,
    /// Of each layer the place of its tally.
    places: HashMap<String, usize>,
    failed: Option<Error>,
}

impl Tallies {
    pub fn new(needs: Needs) -> Self {
        Tallies { needs, found: Vec::new(), places: HashMap::new(), failed: None }
    }

    /// What was found, and the layers that share each, or the first error.
    pub fn finish(self) -> Result<Vec<(Found, Vec<String>)>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut out: Vec<(Found, Vec<String>)> = self.found.into_iter().map(|t| (t.found(), vec![])).collect();
        self.places.into_iter().for_each(|(layer, place)| out[place].1.push(layer));
        Ok(out)
    }
}

impl Probe for Tallies {
    fn see(&mut self, layers: &[&str], input: &ArrayRef2<f32>) {
        let Some(first) = layers.first() else { return };
        if self.failed.is_some() {
            return;
        }
        let place = *self.places.get(*first).unwrap_or(&self.found.len());
        if place == self.found.len() {
            self.found.push(Tally::new(self.needs));
            self.places.extend(layers.iter().map(|l| (l.to_string(), place)));
        }
        if let Err(error) = self.found[place].add(input) {
            self.failed = Some(error.in_layer(*first));
        }
    }
}
