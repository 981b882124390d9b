//! Methods that run on other weights than those that they train.
//!
//! ```text
//! before the run      the model's weights W are put aside, and f(W, s) is in their place
//! after the way back  G = ∂L/∂f(W, s) gives ∂L/∂W and ∂L/∂s; W comes back; both take a step
//! ```
//!
//! W are the weights of the layers that are pruned, s numbers of the method's own, one matrix a layer. All other parameters train as ever.

use super::choice::{MaskChoice, matrix, weights_of};
use super::method::{Prunable, SparseMethod, UsedWeights};
use crate::mask::Mask;
use crate::nn::{Change, Gradients, LayerInfo, Method, Optimizer, Parameters, See};
use crate::rng::{Seed, Stream};
use crate::solve::Pruned;
use crate::train::TrainStep;
use crate::{Error, Result};
use ndarray::{Array2, Zip};

/// The weights that a step runs on.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// f(W, s) of each layer, `(out, in)`.
    pub weights: Vec<Array2<f32>>,
    /// How many weights of each layer are run, and of how many the gradient is asked for.
    pub used: Vec<UsedWeights>,
}

/// f(W, s) and its way back; [`Reparametrized`] makes a [`SparseMethod`] of it.
pub trait Reparametrization: std::fmt::Debug {
    /// The name users know, lower case: `movement`.
    fn name(&self) -> &str;

    /// The layers it is for, by their choice or their names, and the settings checked.
    ///
    /// # Errors
    /// If a setting is out of its range or does not fit the model.
    fn layers(&self, model: &dyn Prunable) -> Result<Vec<LayerInfo>>;

    /// s at the beginning, one matrix a layer, `(0, 0)` where there is none; may change W.
    ///
    /// # Errors
    /// Those of the method.
    fn begin(&mut self, layers: &[LayerInfo], weights: &mut [Array2<f32>], random: &mut Stream) -> Result<Vec<Array2<f32>>>;

    /// f(W, s) at this step.
    ///
    /// # Errors
    /// Those of the method.
    fn effective(
        &mut self,
        layers: &[LayerInfo],
        weights: &[Array2<f32>],
        own: &[Array2<f32>],
        at: TrainStep,
        random: &mut Stream,
    ) -> Result<Effective>;

    /// ∂L/∂W and ∂L/∂s of layer number `layer` from `gradient` = ∂L/∂f, with what the method adds to the loss.
    fn back(&self, layer: usize, weight: &Array2<f32>, own: &Array2<f32>, gradient: Array2<f32>) -> (Array2<f32>, Array2<f32>);

    /// The last weights and masks.
    ///
    /// # Errors
    /// Those of the method.
    fn finish(&mut self, layers: &[LayerInfo], weights: &[Array2<f32>], own: &[Array2<f32>]) -> Result<Vec<Pruned>>;

    /// Whether the model's parameters move, or s alone.
    fn trains_model(&self) -> bool {
        true
    }
}

/// How s is trained.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `rate` | 1 | at least 0 | learning rate of s over that of the model, which falls as that does |
/// | `method` | the model's | | the optimiser of s, with its weight decay |
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OwnTraining {
    /// Over the model's learning rate.
    pub rate: f32,
    /// None: as the model.
    pub method: Option<Method>,
}

impl Default for OwnTraining {
    fn default() -> Self {
        OwnTraining { rate: 1.0, method: None }
    }
}

/// s as parameters, named as the weights that they belong to.
#[derive(Debug, Clone, Default)]
struct Own(Vec<(String, Array2<f32>)>);

impl Parameters for Own {
    fn visit(&self, f: &mut See<'_>) {
        self.0.iter().for_each(|(name, values)| f(name, values.view().into_dyn(), None));
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.0.iter_mut().for_each(|(name, values)| f(name, values.as_slice_mut().unwrap_or_default(), None));
        Ok(())
    }

    fn set_mask(&mut self, name: &str, _: Option<Mask>) -> Result<()> {
        Err(Error::invalid_option("mask", format!("{name}: masks are held on the model, not on what they are made of")))
    }
}

/// What a run keeps.
#[derive(Debug)]
struct Running {
    layers: Vec<LayerInfo>,
    /// W, while f(W, s) is in its place.
    weights: Vec<Array2<f32>>,
    own: Own,
    optimizer: Option<Optimizer>,
    random: Stream,
    used: Vec<UsedWeights>,
}

/// A [`Reparametrization`] as a method of sparse training.
#[derive(Debug)]
pub struct Reparametrized<R> {
    /// f
    pub map: R,
    /// How s is trained.
    pub own: OwnTraining,
    run: Option<Running>,
}

impl<R: Reparametrization> Reparametrized<R> {
    /// With s trained as the model is.
    pub fn new(map: R) -> Self {
        Reparametrized::trained(map, OwnTraining::default())
    }

    /// With s trained so.
    pub fn trained(map: R, own: OwnTraining) -> Self {
        Reparametrized { map, own, run: None }
    }

    /// s of each layer, by the layers' weights, as they are now: scores, thresholds, gates. None before a run.
    pub fn own_numbers(&self) -> impl Iterator<Item = (&str, &Array2<f32>)> {
        self.run.iter().flat_map(|run| run.own.0.iter().map(|(name, values)| (name.as_str(), values)))
    }
}

/// Puts weights into a model, all in one visit.
fn put(model: &mut dyn Prunable, layers: &[LayerInfo], weights: &[Array2<f32>]) -> Result<()> {
    model.visit_mut(&mut |name, numbers, _| {
        if let Some(at) = layers.iter().position(|layer| layer.parameter == name) {
            numbers.iter_mut().zip(&weights[at]).for_each(|(n, w)| *n = *w);
        }
    })
}

impl<R: Reparametrization> SparseMethod for Reparametrized<R> {
    fn name(&self) -> &str {
        self.map.name()
    }

    fn begin(&mut self, model: &mut dyn Prunable, seed: Seed, _: usize) -> Result<()> {
        if !(self.own.rate.is_finite() && self.own.rate >= 0.0) {
            return Err(Error::invalid_option("rate", format!("{} is no finite number of at least 0", self.own.rate)));
        }
        let layers = self.map.layers(model)?;
        layers.iter().try_for_each(|layer| model.set_mask(&layer.parameter, None))?;
        let mut random = seed.stream(self.map.name());
        let mut weights = weights_of(model, &layers)?;
        let own = self.map.begin(&layers, &mut weights, &mut random)?;
        put(model, &layers, &weights)?;
        let own = Own(layers.iter().map(|layer| layer.parameter.clone()).zip(own).collect());
        self.run = Some(Running { layers, weights, own, optimizer: None, random, used: Vec::new() });
        Ok(())
    }

    fn before_step(&mut self, model: &mut dyn Prunable, at: TrainStep) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.weights = weights_of(model, &run.layers)?;
        let own: Vec<Array2<f32>> = run.own.0.iter().map(|(_, values)| values.clone()).collect();
        let effective = self.map.effective(&run.layers, &run.weights, &own, at, &mut run.random)?;
        run.used = effective.used;
        put(model, &run.layers, &effective.weights)
    }

    fn used(&self, model: &dyn Prunable, _: TrainStep) -> Result<Vec<UsedWeights>> {
        let one = |layer: LayerInfo| {
            let of = self.run.iter().flat_map(|run| run.layers.iter().zip(&run.used)).find(|(l, _)| **l == layer);
            Ok(of.map_or(UsedWeights { run: layer.len(), gradient: layer.len() }, |(_, used)| *used))
        };
        model.layers().into_iter().map(one).collect()
    }

    fn step(&mut self, model: &mut dyn Prunable, gradients: Gradients, optimizer: &mut Optimizer, at: TrainStep) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        put(model, &run.layers, &run.weights)?;
        let (mut of_model, mut of_own) = (Vec::new(), Vec::new());
        for (name, gradient) in gradients {
            let Some(at) = run.layers.iter().position(|layer| layer.parameter == name) else {
                of_model.push((name, gradient));
                continue;
            };
            let gradient = matrix(gradient, &run.layers[at])?;
            let (weight, own) = self.map.back(at, &run.weights[at], &run.own.0[at].1, gradient);
            of_model.push((name.clone(), weight.into_dyn()));
            of_own.push((name, own.into_dyn()));
        }
        if self.map.trains_model() {
            optimizer.step(model, &Gradients::from_iter(of_model), at.learning_rate)?;
        }
        let method = self.own.method.unwrap_or(optimizer.method());
        let own = run.optimizer.get_or_insert_with(|| Optimizer::new(method));
        own.step(&mut run.own, &Gradients::from_iter(of_own), self.own.rate * at.learning_rate)
    }

    fn finish(&mut self, model: &mut dyn Prunable) -> Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let weights = weights_of(model, &run.layers)?;
        let own: Vec<Array2<f32>> = run.own.0.iter().map(|(_, values)| values.clone()).collect();
        let pruned = self.map.finish(&run.layers, &weights, &own)?;
        run.layers.iter().zip(pruned).try_for_each(|(layer, pruned)| model.write(&layer.name, pruned))
    }
}

/// W ⊙ M, with what a step uses: W's gradient at the mask, or everywhere.
pub(super) fn masked(weights: &[Array2<f32>], masks: &[Mask], dense: bool) -> Effective {
    let used = |mask: &Mask| UsedWeights { run: mask.kept(), gradient: if dense { mask.len() } else { mask.kept() } };
    let weight = |(w, mask): (&Array2<f32>, &Mask)| mask.applied(w);
    Effective { weights: weights.iter().zip(masks).map(weight).collect(), used: masks.iter().map(used).collect() }
}

/// The weights under these masks, as what is left.
pub(super) fn pruned(weights: &[Array2<f32>], masks: Vec<Mask>) -> Vec<Pruned> {
    let one = |(weight, mask): (&Array2<f32>, Mask)| Pruned { weight: mask.applied(weight), mask, loss: None };
    weights.iter().zip(masks).map(one).collect()
}

/// Entry by entry, G ⊙ W.
pub(super) fn times(gradient: &Array2<f32>, weight: &Array2<f32>) -> Array2<f32> {
    Zip::from(gradient).and(weight).map_collect(|g, w| g * w)
}

/// The layers of a choice that is made every so many steps.
///
/// # Errors
/// If these are 0; as [`MaskChoice::layers`].
pub(super) fn check_every(every: usize, choice: &MaskChoice, model: &dyn Prunable) -> Result<Vec<LayerInfo>> {
    if every == 0 {
        return Err(Error::invalid_option("every", "0 steps between selections; 1 is the papers'"));
    }
    choice.layers(model)
}
