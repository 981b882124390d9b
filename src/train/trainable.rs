//! A model, and which of its numbers move.

use super::fake_quantized::{FakeQuantized, StepRule};
use super::low_rank::{LowRank, LowRankConfig};
use crate::mask::Mask;
use crate::nn::{Change, Gradients, Parameters, See};
use crate::quantize::CodeGrid;
use crate::{Error, Result};
use ndarray::ArrayD;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
enum Moving {
    /// All parameters but these.
    But(BTreeSet<String>),
    /// Factors beside weights.
    LowRank(LowRank),
    /// All parameters but these, some of them behind levels.
    Levels(Box<FakeQuantized>, BTreeSet<String>),
}

/// A model, and which of its numbers training moves: all, some by name, low-rank factors beside its weights, or weights behind levels that it runs on. As [`Parameters`] it is what
/// moves: optimisers and saved states see nothing else. Masks are held throughout.
#[derive(Debug, Clone)]
pub struct Trainable<M> {
    model: M,
    moving: Moving,
}

impl<M: Parameters> Trainable<M> {
    /// Everything moves.
    pub fn all(model: M) -> Trainable<M> {
        Trainable { model, moving: Moving::But(BTreeSet::new()) }
    }

    /// Everything moves but these parameters.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no parameter of a name; [`Error::InvalidOption`] if nothing is left.
    pub fn without(model: M, frozen: BTreeSet<String>) -> Result<Trainable<M>> {
        check_frozen(&model, &frozen)?;
        Ok(Trainable { model, moving: Moving::But(frozen) })
    }

    /// Factors beside these weights move, and nothing else.
    ///
    /// # Errors
    /// As [`LowRank::new`].
    pub fn low_rank(model: M, weights: &BTreeSet<String>, config: LowRankConfig) -> Result<Trainable<M>> {
        let factors = LowRank::new(&model, weights, config)?;
        Ok(Trainable { model, moving: Moving::LowRank(factors) })
    }

    /// Everything moves but these parameters, and the model runs on the levels of `grid` in the place of some weights ([`FakeQuantized`]), from now on.
    ///
    /// ```
    /// use lacuna::{models::{Init, mlp}, nn::Activation, quantize::{CodeGrid, Granularity}, rng::Seed};
    /// use lacuna::train::{StepRule, Trainable};
    /// let net = mlp(&[4, 3, 2], Activation::Relu, Init::He, Seed(0))?;
    /// let names = ["fc1.weight".to_string()].into();
    /// let levels = Trainable::quantized(net, &names, [].into(), CodeGrid::new(2, Granularity::Row), StepRule::Lsq)?;
    /// let row = levels.model().param("fc1.weight")?.value().row(0).to_vec();
    /// let mut distinct: Vec<i64> = row.iter().map(|w| (w * 1e6) as i64).collect();
    /// distinct.sort();
    /// distinct.dedup();
    /// assert!(distinct.len() <= 4);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainable::without`] and [`FakeQuantized::new`].
    pub fn quantized(
        model: M,
        weights: &BTreeSet<String>,
        frozen: BTreeSet<String>,
        grid: CodeGrid,
        rule: StepRule,
    ) -> Result<Trainable<M>> {
        let levels = FakeQuantized::new(&model, weights, grid, rule)?;
        Trainable::on_levels(model, levels, frozen)
    }

    /// The same, on levels that are there.
    ///
    /// # Errors
    /// As [`Trainable::without`]; [`Error::UnknownName`] if the model has no weight of a name, [`Error::Shape`] if it has another shape.
    pub fn on_levels(mut model: M, levels: FakeQuantized, frozen: BTreeSet<String>) -> Result<Trainable<M>> {
        check_frozen(&model, &frozen)?;
        let mut shapes = BTreeMap::new();
        model.visit(&mut |name, values, _| drop(shapes.insert(name.to_string(), values.shape().to_vec())));
        for (name, (rows, cols)) in levels.shapes() {
            match shapes.get(name) {
                None => return Err(Error::unknown_layer(name, shapes.keys().map(String::as_str))),
                Some(shape) if *shape != [rows, cols] => return Err(Error::shape(name, &[rows, cols], shape)),
                Some(_) => {}
            }
        }
        levels.put_into(&mut model)?;
        Ok(Trainable { model, moving: Moving::Levels(Box::new(levels), frozen) })
    }

    /// The weights behind levels, where there are some.
    pub fn levels(&self) -> Option<&FakeQuantized> {
        if let Moving::Levels(levels, _) = &self.moving { Some(levels) } else { None }
    }

    /// The same, where the model is not needed any more.
    pub fn into_levels(self) -> Option<FakeQuantized> {
        if let Moving::Levels(levels, _) = self.moving { Some(*levels) } else { None }
    }

    /// The model, as it is now: with all factors merged, and on its levels.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model, to be changed. Where factors move, what is done to their weights lasts until the next [`Trainable::settle`].
    pub fn model_mut(&mut self) -> &mut M {
        &mut self.model
    }

    /// The same.
    pub fn into_model(self) -> M {
        self.model
    }

    /// Brings the model up to the numbers that move, after these were changed.
    ///
    /// # Errors
    /// If a weight cannot be changed where it is stored.
    pub fn settle(&mut self) -> Result<()> {
        match &self.moving {
            Moving::But(_) => Ok(()),
            Moving::LowRank(factors) => factors.merge_into(&mut self.model),
            Moving::Levels(levels, _) => levels.put_into(&mut self.model),
        }
    }

    /// Whether the gradient of a parameter of the model is of use: it moves, or there are factors beside it.
    pub fn wants_gradient(&self, name: &str) -> bool {
        match &self.moving {
            Moving::But(frozen) | Moving::Levels(_, frozen) => !frozen.contains(name),
            Moving::LowRank(factors) => factors.factors(name).is_some(),
        }
    }

    /// Adds the gradient of a parameter of the model to what it is a gradient of here; nothing if that does not move.
    ///
    /// # Errors
    /// As [`Gradients::add`].
    pub fn add_gradient(&self, sums: &mut Gradients, name: &str, gradient: ArrayD<f32>) -> Result<()> {
        match &self.moving {
            Moving::But(frozen) | Moving::Levels(_, frozen) if frozen.contains(name) => Ok(()),
            Moving::Levels(levels, _) if levels.contains(name) => {
                sums.add(Gradients::from_iter(levels.gradients(name, gradient)))
            }
            Moving::But(_) | Moving::Levels(..) => sums.add(Gradients::from_iter([(name.to_string(), gradient)])),
            Moving::LowRank(factors) => sums.add(Gradients::from_iter(factors.gradients(name, gradient))),
        }
    }
}

/// Refuses parameters that are not to move which a model has not, or which are all.
fn check_frozen(model: &dyn Parameters, frozen: &BTreeSet<String>) -> Result<()> {
    let mut names = Vec::new();
    model.visit(&mut |name, _, _| names.push(name.to_string()));
    if let Some(unknown) = frozen.iter().find(|f| !names.contains(f)) {
        return Err(Error::unknown_name("parameter", unknown, names.iter().map(String::as_str)));
    }
    if names.len() == frozen.len() {
        return Err(Error::invalid_option("only", format!("none of {} parameters is left to train", names.len())));
    }
    Ok(())
}

/// Several parameters as one, in this order: a model and what else is trained or kept with it. Names must differ.
pub struct Together<'a>(pub Vec<&'a mut dyn Parameters>);

impl std::fmt::Debug for Together<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Together").field(&self.0.len()).finish()
    }
}

impl Parameters for Together<'_> {
    fn visit(&self, f: &mut See<'_>) {
        self.0.iter().for_each(|part| part.visit(f));
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|part| part.visit_mut(f))
    }

    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        let mut holds = Vec::new();
        for part in &self.0 {
            let mut found = false;
            part.visit(&mut |other, _, _| found |= other == name);
            holds.push(found);
        }
        match self.0.iter_mut().zip(holds).find(|(_, holds)| *holds) {
            Some((part, _)) => part.set_mask(name, mask),
            None => Err(Error::unknown_name("parameter", name, std::iter::empty())),
        }
    }
}

impl<M: Parameters> Parameters for Trainable<M> {
    fn visit(&self, f: &mut See<'_>) {
        match &self.moving {
            Moving::LowRank(factors) => factors.visit(f),
            Moving::Levels(levels, frozen) => {
                self.model.visit(&mut |name, values, mask| {
                    if !frozen.contains(name) && !levels.see(name, f) {
                        f(name, values, mask);
                    }
                });
                levels.see_factors(f);
            }
            Moving::But(frozen) => self.model.visit(&mut |name, values, mask| {
                if !frozen.contains(name) {
                    f(name, values, mask);
                }
            }),
        }
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        match &mut self.moving {
            Moving::LowRank(factors) => factors.visit_mut(f),
            Moving::Levels(levels, frozen) => {
                self.model.visit_mut(&mut |name, values, mask| {
                    if !frozen.contains(name) && !levels.change(name, f) {
                        f(name, values, mask);
                    }
                })?;
                levels.change_factors(f);
                Ok(())
            }
            Moving::But(frozen) => self.model.visit_mut(&mut |name, values, mask| {
                if !frozen.contains(name) {
                    f(name, values, mask);
                }
            }),
        }
    }

    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        match &mut self.moving {
            Moving::LowRank(factors) => factors.set_mask(name, mask),
            Moving::Levels(levels, _) if levels.contains(name) => {
                levels.set_mask(name, mask.clone())?;
                self.model.set_mask(name, mask)
            }
            Moving::But(_) | Moving::Levels(..) => self.model.set_mask(name, mask),
        }
    }
}
