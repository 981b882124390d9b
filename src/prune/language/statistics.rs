//! What is measured of inputs on their way through a block.

use super::gradients::SequenceGradients;
use crate::criteria::{Measured, Need, Needs};
use crate::linalg::{Cross, Gram};
use crate::nn::Probe;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, Axis};
use std::collections::HashMap;

/// Sums over the inputs of layers that share them.
pub(super) struct InputStatistics {
    /// Which layers.
    layers: Vec<String>,
    needs: Needs,
    tokens: usize,
    gram: Option<Gram>,
    squares: Option<Array1<f64>>,
    sums: Option<Array1<f64>>,
    crossed: Option<Cross>,
    drift: Option<Cross>,
}

impl InputStatistics {
    /// Of the inputs of these layers.
    pub fn new(needs: Needs, layers: Vec<String>) -> Self {
        InputStatistics { layers, needs, tokens: 0, gram: None, squares: None, sums: None, crossed: None, drift: None }
    }

    /// Adds inputs `(tokens, in)`. Errors name the layers; rows are counted over all tokens.
    pub fn add(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        let result = self.sum(x);
        result.map_err(|e| e.in_layer(together(&self.layers)))
    }

    fn sum(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        let cols = x.ncols();
        if self.needs.contains(Need::Gram) {
            Gram::check(x, self.tokens)?;
        } else {
            check(x, "inputs (tokens, in)", self.tokens)?;
        }
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
        self.tokens += x.nrows();
        Ok(())
    }

    /// Adds what the dense model has in the place of the x that was added last: its inputs, and by how much its hidden states differ. Errors
    /// name the layers.
    pub fn compare(&mut self, x: &ArrayRef2<f32>, dense: &ArrayRef2<f32>, drift: Option<&Array2<f32>>) -> Result<()> {
        let result = self.cross(x, dense, drift);
        result.map_err(|e| e.in_layer(together(&self.layers)))
    }

    fn cross(&mut self, x: &ArrayRef2<f32>, dense: &ArrayRef2<f32>, drift: Option<&Array2<f32>>) -> Result<()> {
        let before = self.tokens - x.nrows();
        check(dense, "inputs in the dense model (tokens, in)", before)?;
        self.crossed.get_or_insert_with(|| Cross::new(dense.ncols(), x.ncols())).update(dense, x)?;
        if let Some(drift) = drift {
            check(drift, "distance of the stream from the dense model's (tokens, features)", before)?;
            self.drift.get_or_insert_with(|| Cross::new(drift.ncols(), x.ncols())).update(drift, x)?;
        }
        Ok(())
    }

    /// What a pruner is given, and what the dense model has in the place of it.
    pub fn found(self) -> LayerStatistics {
        let measured = Measured {
            tokens: self.tokens,
            gram: self.gram.map(Gram::into_matrix),
            input_squares: self.squares,
            input_sums: self.sums,
            ..Measured::default()
        };
        LayerStatistics { layers: self.layers, measured, crossed: self.crossed, drift: self.drift }
    }
}

/// Refuses the first number that is not finite; `before` rows were seen before.
pub(super) fn check(x: &ArrayRef2<f32>, what: &str, before: usize) -> Result<()> {
    if x.rows().into_iter().all(|row| row.fold(true, |all, v| all & v.is_finite())) {
        return Ok(());
    }
    match x.indexed_iter().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some(((row, col), &value)) => {
            Err(Error::NonFinite { what: what.into(), row: before + row, col, value: f64::from(value) })
        }
    }
}

/// The names of layers in one: the first whole, of the others what differs.
pub(super) fn together(layers: &[String]) -> String {
    let Some((first, rest)) = layers.split_first() else { return String::new() };
    let same = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let shared = rest.iter().map(|l| same(first, l)).min().unwrap_or(0);
    // Only whole parts of the name are left out.
    let shared = first.as_bytes()[..shared].iter().rposition(|b| *b == b'.').map_or(0, |at| at + 1);
    rest.iter().fold(first.clone(), |all, layer| all + ", " + &layer[shared..])
}

/// What was measured of inputs, at the end.
pub(super) struct LayerStatistics {
    /// The layers that share them.
    pub layers: Vec<String>,
    /// Of the inputs.
    measured: Measured,
    /// Dense inputs times pruned ones.
    pub crossed: Option<Cross>,
    /// The hidden states' drift times pruned inputs.
    pub drift: Option<Cross>,
}

impl LayerStatistics {
    /// Where nothing was measured.
    pub fn nothing() -> LayerStatistics {
        LayerStatistics { layers: vec![], measured: Measured::default(), crossed: None, drift: None }
    }

    /// What was measured of the inputs.
    pub fn inputs(&self) -> &Measured {
        &self.measured
    }

    /// What was measured of the inputs of a layer, and its gradients where there are some. They take the place of those of the layer
    /// before: what all layers share is never copied.
    pub fn with_gradients(&mut self, layer: &str, gradients: Option<&SequenceGradients>) -> Result<&Measured> {
        if let Some(gradients) = gradients {
            let own = gradients.measured(layer)?;
            self.measured.gradient = own.gradient;
            self.measured.squared_gradients = own.squared_gradients;
            self.measured.sample_gradients = own.sample_gradients;
        }
        Ok(&self.measured)
    }
}

/// Sees the inputs of all layers of a block in one pass.
pub(super) struct BlockStatistics {
    needs: Needs,
    found: Vec<InputStatistics>,
    /// Of each layer the index of its statistics.
    places: HashMap<String, usize>,
    failed: Option<Error>,
}

impl BlockStatistics {
    pub fn new(needs: Needs) -> Self {
        BlockStatistics { needs, found: Vec::new(), places: HashMap::new(), failed: None }
    }

    /// The first error so far, if there was one.
    pub fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// What was found of the inputs of each group of layers.
    pub fn finish(mut self) -> Result<Vec<LayerStatistics>> {
        self.check()?;
        Ok(self.found.into_iter().map(InputStatistics::found).collect())
    }
}

impl Probe for BlockStatistics {
    fn see(&mut self, layers: &[&str], input: &ArrayRef2<f32>) {
        let Some(first) = layers.first() else { return };
        if self.failed.is_some() {
            return;
        }
        let place = *self.places.get(*first).unwrap_or(&self.found.len());
        if place == self.found.len() {
            self.found.push(InputStatistics::new(self.needs, layers.iter().map(|l| l.to_string()).collect()));
            self.places.extend(layers.iter().map(|l| (l.to_string(), place)));
        }
        self.failed = self.found[place].add(input).err();
    }
}

#[cfg(test)]
mod tests {
    use super::together;

    #[test]
    fn layers_are_named_together_by_what_differs() {
        let of = |names: &[&str]| together(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["h.0.attn.q_proj", "h.0.attn.k_proj", "h.0.attn.v_proj"]), "h.0.attn.q_proj, k_proj, v_proj");
        assert_eq!(of(&["h.0.attn.q", "h.0.mlp.fc1"]), "h.0.attn.q, mlp.fc1");
        assert_eq!(of(&["h.0.attn.query", "h.0.attn.query_norm"]), "h.0.attn.query, query_norm");
        assert_eq!(of(&["wte"]), "wte");
        assert_eq!(of(&["a", "b"]), "a, b");
        assert_eq!(of(&[]), "");
    }
}
