//! What is measured of the inputs of layers while a model runs.

use crate::criteria::{InputSums, Measured, Needs};
use crate::linalg::Cross;
use crate::mask::check_finite_from;
use crate::nn::Observer;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use std::collections::HashMap;

/// Sums over the inputs of layers that share them.
pub(crate) struct InputStatistics {
    /// Which layers.
    layers: Vec<String>,
    sums: InputSums,
    crossed: Option<Cross>,
    drift: Option<Cross>,
}

impl InputStatistics {
    /// Of the inputs of these layers.
    pub fn new(needs: Needs, layers: Vec<String>) -> Self {
        InputStatistics { layers, sums: InputSums::new(needs), crossed: None, drift: None }
    }

    /// Adds inputs `(tokens, in)`. Errors name the layers; rows are counted over all tokens.
    pub fn add(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        let result = self.sums.add(x);
        result.map_err(|e| e.in_layer(together(&self.layers)))
    }

    /// Adds what the dense model has in the place of the x that was added last: its inputs, and by how much its hidden states differ. Errors
    /// name the layers.
    pub fn compare(&mut self, x: &ArrayRef2<f32>, dense: &ArrayRef2<f32>, drift: Option<&Array2<f32>>) -> Result<()> {
        let result = self.cross(x, dense, drift);
        result.map_err(|e| e.in_layer(together(&self.layers)))
    }

    fn cross(&mut self, x: &ArrayRef2<f32>, dense: &ArrayRef2<f32>, drift: Option<&Array2<f32>>) -> Result<()> {
        let before = self.sums.tokens() - x.nrows();
        check_finite_from(dense, "inputs in the dense model (tokens, in)", before)?;
        self.crossed.get_or_insert_with(|| Cross::new(dense.ncols(), x.ncols())).update(dense, x)?;
        if let Some(drift) = drift {
            check_finite_from(drift, "distance of the hidden states from the dense model's (tokens, features)", before)?;
            self.drift.get_or_insert_with(|| Cross::new(drift.ncols(), x.ncols())).update(drift, x)?;
        }
        Ok(())
    }

    /// What a pruner is given, and what the dense model has in the place of it.
    pub fn found(self) -> LayerStatistics {
        let measured = self.sums.into_measured();
        LayerStatistics { layers: self.layers, measured, crossed: self.crossed, drift: self.drift, routed: None }
    }
}

/// The names of layers in one: the first whole, of the others what differs.
pub(crate) fn together(layers: &[String]) -> String {
    let Some((first, rest)) = layers.split_first() else { return String::new() };
    let same = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let shared = rest.iter().map(|l| same(first, l)).min().unwrap_or(0);
    // Only whole parts of the name are left out.
    let shared = first.as_bytes()[..shared].iter().rposition(|b| *b == b'.').map_or(0, |at| at + 1);
    rest.iter().fold(first.clone(), |all, layer| all + ", " + &layer[shared..])
}

/// What was measured of inputs, at the end.
pub(crate) struct LayerStatistics {
    /// The layers that share them.
    pub layers: Vec<String>,
    /// Of the inputs.
    measured: Measured,
    /// Dense inputs times pruned ones.
    pub crossed: Option<Cross>,
    /// The hidden states' drift times pruned inputs.
    pub drift: Option<Cross>,
    /// Of an expert's layer: how many tokens of the calibration the router gives the expert.
    pub routed: Option<usize>,
}

impl LayerStatistics {
    /// Where nothing was measured.
    pub fn nothing() -> LayerStatistics {
        LayerStatistics { layers: vec![], measured: Measured::default(), crossed: None, drift: None, routed: None }
    }

    /// What was measured of the inputs.
    pub fn inputs(&self) -> &Measured {
        &self.measured
    }

    /// As [`LayerStatistics::inputs`], to be given what else was measured of a layer.
    pub fn inputs_mut(&mut self) -> &mut Measured {
        &mut self.measured
    }
}

/// Sees the inputs of all layers of a model, or of a block of one, in one pass.
pub(crate) struct ModelStatistics {
    needs: Needs,
    found: Vec<InputStatistics>,
    /// Of each layer the index of its statistics.
    places: HashMap<String, usize>,
    failed: Option<Error>,
}

impl ModelStatistics {
    pub fn new(needs: Needs) -> Self {
        ModelStatistics { needs, found: Vec::new(), places: HashMap::new(), failed: None }
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

impl Observer for ModelStatistics {
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
