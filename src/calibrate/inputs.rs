//! What is measured of the inputs of layers while a model runs.

use crate::criteria::{InputSums, Measured, Need, Needs, TextGram};
use crate::linalg::Cross;
use crate::mask::check_finite_from;
use crate::nn::Observer;
use crate::solve::TextProducts;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use std::collections::HashMap;

/// What the inputs of one text sum to.
#[derive(Clone)]
struct Sums {
    sums: InputSums,
    crossed: Option<Cross>,
    drift: Option<Cross>,
}

impl Sums {
    fn merge(&mut self, other: &Sums) {
        self.sums.merge(&other.sums);
        for (sum, other) in [(&mut self.crossed, &other.crossed), (&mut self.drift, &other.drift)] {
            match (&mut *sum, other) {
                (Some(sum), Some(other)) => sum.merge(other),
                _ => *sum = sum.take().or_else(|| other.clone()),
            }
        }
    }
}

/// Sums over the inputs of layers that share them, of each text apart where there are several.
pub(crate) struct InputStatistics {
    /// Which layers.
    layers: Vec<String>,
    needs: Needs,
    /// One a text; one of all where texts are not told apart.
    texts: Vec<Sums>,
    /// The text of what is added.
    text: usize,
    /// A text that is only judged by.
    held_out: Option<usize>,
    /// Whether anything is made of the dense model's inputs.
    compares: bool,
}

impl InputStatistics {
    /// Of the inputs of these layers.
    pub fn new(needs: Needs, layers: Vec<String>) -> Self {
        InputStatistics { layers, needs, texts: Vec::new(), text: 0, held_out: None, compares: true }
    }

    /// The same, where a text is only judged by.
    pub fn held_out(self, text: Option<usize>) -> Self {
        InputStatistics { held_out: text, ..self }
    }

    /// The same, where it is said whether [`InputStatistics::compare`] sums anything.
    pub fn comparing(self, compares: bool) -> Self {
        InputStatistics { compares, ..self }
    }

    /// Of which text that is which is added from here on.
    pub fn of_text(&mut self, text: usize) {
        self.text = text;
    }

    fn sums(&mut self) -> &mut Sums {
        let needs = self.needs;
        let empty = || Sums { sums: InputSums::new(needs), crossed: None, drift: None };
        if self.texts.len() <= self.text {
            self.texts.resize_with(self.text + 1, empty);
        }
        &mut self.texts[self.text]
    }

    /// Tokens of the texts before the one at hand.
    fn before(&self) -> usize {
        self.texts.iter().take(self.text).map(|text| text.sums.tokens()).sum()
    }

    /// Adds inputs `(tokens, in)`. Errors name the layers; rows are counted over all tokens.
    pub fn add(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        let result = self.sums().sums.add(x);
        result.map_err(|e| e.in_layer(together(&self.layers)))
    }

    /// Adds what the dense model has in the place of the x that was added last: its inputs, and by how much its hidden states differ. Errors
    /// name the layers.
    pub fn compare(&mut self, x: &ArrayRef2<f32>, dense: &ArrayRef2<f32>, drift: Option<&Array2<f32>>) -> Result<()> {
        if !self.compares {
            return Ok(());
        }
        let result = self.cross(x, dense, drift);
        result.map_err(|e| e.in_layer(together(&self.layers)))
    }

    fn cross(&mut self, x: &ArrayRef2<f32>, dense: &ArrayRef2<f32>, drift: Option<&Array2<f32>>) -> Result<()> {
        let before = self.before() + self.sums().sums.tokens() - x.nrows();
        let sums = self.sums();
        check_finite_from(dense, "inputs in the dense model (tokens, in)", before)?;
        sums.crossed.get_or_insert_with(|| Cross::new(dense.ncols(), x.ncols())).update(dense, x)?;
        if let Some(drift) = drift {
            check_finite_from(drift, "distance of the hidden states from the dense model's (tokens, features)", before)?;
            sums.drift.get_or_insert_with(|| Cross::new(drift.ncols(), x.ncols())).update(drift, x)?;
        }
        Ok(())
    }

    /// What a pruner is given, and what the dense model has in the place of it.
    pub fn found(self) -> LayerStatistics {
        let InputStatistics { layers, needs, texts, held_out, .. } = self;
        let (mut grams, mut products) = (Vec::new(), Vec::new());
        let mut whole: Option<Sums> = None;
        for (number, text) in texts.into_iter().enumerate().filter(|(_, text)| text.sums.tokens() > 0) {
            let held_out = held_out == Some(number);
            if needs.contains(Need::TextGrams) {
                let Measured { tokens, gram, .. } = text.sums.clone().into_measured();
                grams.extend(gram.map(|gram| TextGram { tokens, gram, held_out }));
                products.push((text.crossed.clone(), text.drift.clone()));
            }
            match &mut whole {
                _ if held_out => {}
                Some(sum) => sum.merge(&text),
                None => whole = Some(text),
            }
        }
        let Sums { sums, crossed, drift } =
            whole.unwrap_or_else(|| Sums { sums: InputSums::new(needs), crossed: None, drift: None });
        let measured = Measured { texts: grams, ..sums.into_measured() };
        LayerStatistics { layers, measured, crossed, drift, products, routed: None }
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
    /// The same of each text of [`Measured::texts`], in their order.
    products: Vec<(Option<Cross>, Option<Cross>)>,
    /// Of an expert's layer: how many tokens of the calibration the router gives the expert.
    pub routed: Option<usize>,
}

impl LayerStatistics {
    /// Where nothing was measured.
    pub fn nothing() -> LayerStatistics {
        LayerStatistics {
            layers: vec![],
            measured: Measured::default(),
            crossed: None,
            drift: None,
            products: vec![],
            routed: None,
        }
    }

    /// What was measured of the inputs.
    pub fn inputs(&self) -> &Measured {
        &self.measured
    }

    /// What was measured of each text.
    pub fn products(&self) -> Vec<TextProducts<'_>> {
        let texts = self.measured.texts.iter().zip(&self.products);
        texts
            .map(|(text, (crossed, drift))| TextProducts {
                tokens: text.tokens,
                gram: &text.gram,
                crossed: crossed.as_ref().map(Cross::matrix),
                drift: drift.as_ref().map(Cross::matrix),
                held_out: text.held_out,
            })
            .collect()
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
    text: usize,
    held_out: Option<usize>,
}

impl ModelStatistics {
    pub fn new(needs: Needs) -> Self {
        ModelStatistics { needs, found: Vec::new(), places: HashMap::new(), failed: None, text: 0, held_out: None }
    }

    /// The same, where a text is only judged by.
    pub fn held_out(self, text: Option<usize>) -> Self {
        ModelStatistics { held_out: text, ..self }
    }

    /// Of which text that is which is seen from here on.
    pub fn of_text(&mut self, text: usize) {
        self.text = text;
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
            let names = layers.iter().map(|l| l.to_string()).collect();
            self.found.push(InputStatistics::new(self.needs, names).held_out(self.held_out));
            self.places.extend(layers.iter().map(|l| (l.to_string(), place)));
        }
        self.found[place].of_text(self.text);
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
