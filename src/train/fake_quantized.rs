//! Quantisation-aware training: the model runs on weights of a few levels, and what trains are the weights behind them and the steps between the levels.
//!
//! Straight through: Bengio, Léonard, Courville. *Estimating or propagating gradients through stochastic neurons for conditional computation.* 2013,
//! arXiv:1308.3432; as training: Courbariaux, Bengio, David. *BinaryConnect.* NeurIPS 2015, arXiv:1511.00363. Learned steps: Esser, McKinstry, Bablani, Appuswamy,
//! Modha. *Learned step size quantization.* ICLR 2020, arXiv:1902.08153, equations 1 to 5 (LSQ).
//!
//! ```text
//! Ŵ = s · q,   q = clamp(round(W / s), −2^(b−1), 2^(b−1) − 1)
//! straight through   s of the weights as they are (CodeGrid),      ∂L/∂W = ∂L/∂Ŵ
//! LSQ                s trained,   ∂Ŵ/∂W = 1 within the range, else 0,   ∂Ŵ/∂s = q − W/s within, q outside,   s₀ = 2 mean |W| / √(2^(b−1) − 1)
//! of codes           s₀ and z of a quantiser, q = clamp(round(W / s₀), −z, 2^b − 1 − z),   ∂Ŵ/∂W = 1 where round(W / s₀) is within the range, else 0,   ∂Ŵ/∂s = q
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | W | the weights that train, under the model's own names |
//! | s | one a group of the grid; of LSQ s = s₀ · r, and r trains as `NAME.step_factors` |
//! | Ŵ | what the model holds and runs on; [`FakeQuantized::codes`] are its codes, of which it is made to the bit |
//!
//! Departures of LSQ: ∂L/∂s is multiplied by 1/√(N (2^(b−1) − 1)) as in the paper, N the weights of a group and not of a layer; and r trains in place of s, so that
//! an optimiser whose steps do not depend on the gradient's size (Adam) changes s by a fraction of it. r is at least 1/1000. Of codes W/s₀ is rounded and not W/s: W begins
//! on the levels, where LSQ's ∂Ŵ/∂s is 0; and zero points stay. Steps are rounded to what a file holds of them, whose gradient passes straight through. A mask is held:
//! what it drops is 0 and has no gradient.
//!
//! Cost: one pass over the weights a step, and their memory once more.

use crate::mask::Mask;
use crate::nn::{Change, Parameters, See};
use crate::quantize::{CodeGrid, Codes, Granularity, Step};
use crate::{Error, Result};
use ndarray::{Array2, ArrayD, ArrayViewMut2, Axis, Ix2, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where the steps of a grid come from while training; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepRule {
    /// From the weights as they are, which get the gradient of what runs.
    StraightThrough,
    /// They are learnt (LSQ). For symmetric grids of at least 2 bits.
    #[default]
    Lsq,
}

/// What follows the name of a weight whose steps are learnt.
const FACTORS: &str = ".step_factors";
/// The least r.
const LEAST: f32 = 1e-3;

/// One weight behind its levels.
#[derive(Debug, Clone)]
struct Weight {
    weight: Array2<f32>,
    mask: Option<Mask>,
    /// Inputs of a group.
    group: usize,
    /// s₀ and r, `(out, groups)`, or `(1, 1)` for a tensor; none where steps are not learnt.
    first: Array2<f32>,
    factors: Array2<f32>,
    /// z, `(out, groups)`, where they are not all the middle of the codes.
    zeros: Option<Array2<f32>>,
}

/// Some weights of a model that run on the levels of a grid. As [`Parameters`] they are the weights behind, each under its name, and the factors of
/// their steps.
///
/// ```
/// use lacuna::{models::{Init, mlp}, nn::Activation, quantize::{CodeGrid, Granularity}, rng::Seed};
/// use lacuna::train::{FakeQuantized, StepRule};
/// let mut net = mlp(&[4, 3, 2], Activation::Relu, Init::He, Seed(0))?;
/// let names = ["fc1.weight", "fc2.weight"].map(String::from).into();
/// let levels = FakeQuantized::new(&net, &names, CodeGrid::new(3, Granularity::Row), StepRule::Lsq)?;
/// levels.put_into(&mut net)?;
/// assert_eq!(*net.param("fc1.weight")?.value(), levels.codes("fc1.weight")?.to_dense());
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FakeQuantized {
    weights: BTreeMap<String, Weight>,
    grid: CodeGrid,
    rule: StepRule,
    /// Whether weights are rounded by their first steps, whatever these are by now.
    by_first: bool,
}

impl FakeQuantized {
    /// These weights of a model, which is not changed yet.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if no weight is named, groups do not divide a weight's inputs, bits are not 1 to 8, or LSQ is to learn an asymmetric grid or one of
    /// 1 bit; [`Error::UnknownName`] if the model has none of a name; [`Error::Shape`] if it is no matrix.
    pub fn new(model: &dyn Parameters, weights: &BTreeSet<String>, grid: CodeGrid, rule: StepRule) -> Result<FakeQuantized> {
        if weights.is_empty() {
            return Err(Error::invalid_option("quantize", "no weight is named that is to have few levels"));
        }
        if rule == StepRule::Lsq && (!grid.symmetric || grid.bits < 2) {
            let what = if grid.symmetric { format!("{} bit", grid.bits) } else { "an asymmetric grid".to_string() };
            return Err(Error::invalid_option("quantize", format!("lsq learns symmetric grids of at least 2 bits, not {what}")));
        }
        let (mut found, mut wrong, mut names) = (BTreeMap::new(), None, Vec::new());
        model.visit(&mut |name, values, mask| {
            names.push(name.to_string());
            if !weights.contains(name) {
                return;
            }
            let one = values.view().into_dimensionality::<Ix2>().map_err(|_| Error::shape(name, &[0, 0], values.shape()));
            let one = one.and_then(|weight| {
                let group = grid.check(weight.ncols()).map_err(|e| e.in_layer(name))?.max(1);
                let weight = weight.as_standard_layout().into_owned();
                let first = if rule == StepRule::Lsq { first_steps(&weight, mask, grid, group) } else { Array2::zeros((0, 0)) };
                let factors = Array2::ones(first.dim());
                Ok(Weight { weight, mask: mask.cloned(), group, first, factors, zeros: None })
            });
            match one {
                Ok(one) => drop(found.insert(name.to_string(), one)),
                Err(e) => wrong = wrong.take().or(Some(e)),
            }
        });
        if let Some(unknown) = weights.iter().find(|w| !names.contains(w)) {
            return Err(Error::unknown_layer(unknown, names.iter().map(String::as_str)));
        }
        match wrong {
            Some(e) => Err(e),
            None => Ok(FakeQuantized { weights: found, grid, rule, by_first: false }),
        }
    }

    /// Weights that are in codes of `grid` already, with what masks keep of them: their scales are learnt from what they are, zero points stay. The weights
    /// behind begin at the levels.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if there is none, codes are not of the grid, or zero points are not whole.
    pub fn of_codes(codes: BTreeMap<String, (Codes, Option<Mask>)>, grid: CodeGrid) -> Result<FakeQuantized> {
        if codes.is_empty() {
            return Err(Error::invalid_option("quantize", "no weight is named that has few levels"));
        }
        let one = |(name, (codes, mask)): (String, (Codes, Option<Mask>))| {
            let own = (codes.bits, codes.granularity, codes.symmetric);
            if own != (grid.bits, grid.granularity, grid.symmetric) {
                let reason = format!("codes of {} bits, groups of {}, are not of the grid of {} bits", own.0, own.1, grid.bits);
                return Err(Error::invalid_option("quantize", reason).in_layer(&name));
            }
            if let Some(zero) = codes.zeros.iter().find(|z| z.fract() != 0.0) {
                let reason = format!("a zero point is {zero}: levels of whole zero points are trained");
                return Err(Error::invalid_option("quantize", reason).in_layer(&name));
            }
            let mut weight = codes.to_dense();
            mask.iter().for_each(|mask| mask.apply(&mut weight));
            let first = match grid.granularity {
                Granularity::Tensor => codes.scales.slice(s![..1, ..1]).to_owned(),
                Granularity::Row | Granularity::Group(_) => codes.scales,
            };
            let factors = Array2::ones(first.dim());
            let zeros = (!grid.symmetric).then_some(codes.zeros);
            Ok((name, Weight { weight, mask, group: codes.group.max(1), first, factors, zeros }))
        };
        let weights = codes.into_iter().map(one).collect::<Result<_>>()?;
        Ok(FakeQuantized { weights, grid, rule: StepRule::Lsq, by_first: true })
    }

    /// The grid.
    pub fn grid(&self) -> CodeGrid {
        self.grid
    }

    /// The names of the weights.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.keys().map(String::as_str)
    }

    /// The names of what the steps are learnt by; none where they are not.
    pub fn factor_names(&self) -> impl Iterator<Item = String> {
        self.weights.keys().filter(|_| self.rule == StepRule::Lsq).map(|name| format!("{name}{FACTORS}"))
    }

    /// The shapes of the weights, by their names.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (&str, (usize, usize))> {
        self.weights.iter().map(|(name, weight)| (name.as_str(), weight.weight.dim()))
    }

    /// Whether a weight is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    /// Gives the model's weights the levels that they have now.
    ///
    /// # Errors
    /// If a weight cannot be changed where it is stored.
    pub fn put_into(&self, model: &mut dyn Parameters) -> Result<()> {
        model.visit_mut(&mut |name, values, _| {
            let Some(weight) = self.weights.get(name) else { return };
            let (steps, rounded_by) = (self.steps(weight), self.rounded_by(weight));
            let Ok(mut to) = ArrayViewMut2::from_shape(weight.weight.dim(), values) else { return };
            to.axis_iter_mut(Axis(0)).into_par_iter().enumerate().with_min_len(16).for_each(|(r, mut to)| {
                for ((c, to), w) in to.indexed_iter_mut().zip(weight.weight.row(r)) {
                    let at = [r, c / weight.group];
                    *to = steps[at].value(self.grid.code(rounded_by.as_ref().unwrap_or(&steps)[at], *w));
                }
            });
            weight.mask.iter().for_each(|mask| mask.apply(&mut to));
        })
    }

    /// The codes of a weight as it is now, in the grid: the model's weights are [`Codes::to_dense`] of them.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such weight; [`Error::InvalidOption`] if a step is beyond what its type holds.
    pub fn codes(&self, name: &str) -> Result<Codes> {
        let weight = self.weights.get(name).ok_or_else(|| Error::unknown_layer(name, self.names()))?;
        let (steps, rounded_by) = (self.steps(weight), self.rounded_by(weight));
        let by = rounded_by.as_ref().unwrap_or(&steps);
        let code = |(r, c): (usize, usize)| self.grid.code(by[[r, c / weight.group]], weight.weight[[r, c]]);
        let mut codes = Codes::new(self.grid, Array2::from_shape_fn(weight.weight.dim(), code), &steps)?;
        weight.mask.iter().for_each(|mask| codes.drop_by(mask));
        Ok(codes)
    }

    /// From the gradient of a weight that runs, those of the weight behind and of the factors of its steps; none if it is not among them.
    ///
    /// # Panics
    /// If the gradient has another shape than the weight.
    pub fn gradients(&self, name: &str, gradient: ArrayD<f32>) -> Vec<(String, ArrayD<f32>)> {
        let Some(weight) = self.weights.get(name) else { return Vec::new() };
        assert_eq!(gradient.shape(), [weight.weight.nrows(), weight.weight.ncols()], "the gradient of {name}");
        let Ok(mut d) = gradient.into_dimensionality::<Ix2>() else { return Vec::new() };
        weight.mask.iter().for_each(|mask| mask.apply(&mut d));
        if self.rule == StepRule::StraightThrough {
            return vec![(name.to_string(), d.into_dyn())];
        }
        let (steps, top) = (self.rounded_by(weight).unwrap_or_else(|| self.steps(weight)), self.grid.top());
        let positive = ((1u32 << (self.grid.bits - 1)) - 1).max(1);
        let mut sums = Array2::<f64>::zeros(steps.dim());
        let work = d.axis_iter_mut(Axis(0)).into_par_iter().zip(sums.axis_iter_mut(Axis(0))).enumerate();
        work.with_min_len(16).for_each(|(r, (mut d, mut sums))| {
            for ((c, d), w) in d.indexed_iter_mut().zip(weight.weight.row(r)) {
                let step = steps[[r, c / weight.group]];
                let (x, q) = (w / step.scale, f32::from(self.grid.code(step, *w)) - step.zero);
                // Of codes weights begin on the levels, the outermost among them.
                let within = match self.by_first {
                    true => (0.0..=top).contains(&(x.round_ties_even() + step.zero)),
                    false => -step.zero < x && x < top - step.zero,
                };
                sums[c / weight.group] += f64::from(*d) * f64::from(if within && !self.by_first { q - x } else { q });
                if !within {
                    *d = 0.0;
                }
            }
        });
        let count = if self.is_one() { weight.weight.len() } else { weight.group };
        let by = 1.0 / (count as f64 * f64::from(positive)).sqrt();
        let of_factors = match self.is_one() {
            true => Array2::from_elem((1, 1), (sums.sum() * by) as f32 * weight.first[[0, 0]]),
            false => Array2::from_shape_fn(sums.dim(), |at| (sums[at] * by) as f32 * weight.first[at]),
        };
        vec![(name.to_string(), d.into_dyn()), (format!("{name}{FACTORS}"), of_factors.into_dyn())]
    }

    fn is_one(&self) -> bool {
        self.grid.granularity == Granularity::Tensor
    }

    /// The steps as they are now, `(out, groups)`.
    fn steps(&self, weight: &Weight) -> Array2<Step> {
        if self.rule == StepRule::StraightThrough {
            // What a mask drops is 0, and within every range.
            return self.grid.fit_all(&weight.weight).unwrap_or_else(|_| unreachable!("the grid was checked"));
        }
        self.learnt(weight, |first, factor| first * factor.max(LEAST))
    }

    /// The steps by which weights are rounded, where these are not the steps as they are now.
    fn rounded_by(&self, weight: &Weight) -> Option<Array2<Step>> {
        self.by_first.then(|| self.learnt(weight, |first, _| first))
    }

    /// Steps of s₀ and r.
    fn learnt(&self, weight: &Weight, scale: impl Fn(f32, f32) -> f32) -> Array2<Step> {
        let (rows, cols) = weight.weight.dim();
        let middle = (1u32 << (self.grid.bits - 1)) as f32;
        Array2::from_shape_fn((rows, cols / weight.group), |group| {
            let at = if self.is_one() { (0, 0) } else { group };
            let zero = weight.zeros.as_ref().map_or(middle, |zeros| zeros[group]);
            Step { scale: self.grid.scales.round(scale(weight.first[at], weight.factors[at])), zero }
        })
    }
}

/// s₀ of each group, over the weights that a mask keeps.
fn first_steps(weight: &Array2<f32>, mask: Option<&Mask>, grid: CodeGrid, group: usize) -> Array2<f32> {
    let top = ((1u32 << (grid.bits - 1)) - 1) as f64;
    let of = |sum: f64, count: usize| {
        let mean = sum / count.max(1) as f64;
        if mean > 0.0 { (2.0 * mean / top.sqrt()) as f32 } else { 1.0 }
    };
    let kept = |r: usize, c: usize| mask.is_none_or(|mask| mask.get(r, c));
    let part = |r: usize, from: usize, to: usize| {
        (from..to).filter(|c| kept(r, *c)).fold((0.0, 0), |(sum, n), c| (sum + f64::from(weight[[r, c]].abs()), n + 1))
    };
    let (rows, cols) = weight.dim();
    if grid.granularity == Granularity::Tensor {
        let (sum, count) = (0..rows).map(|r| part(r, 0, cols)).fold((0.0, 0), |(s, n), (a, b)| (s + a, n + b));
        return Array2::from_elem((1, 1), of(sum, count));
    }
    Array2::from_shape_fn((rows, cols / group), |(r, g)| {
        let (sum, count) = part(r, g * group, (g + 1) * group);
        of(sum, count)
    })
}

impl FakeQuantized {
    /// Calls `f` with the weight behind a parameter of the model, if it is among them.
    pub(super) fn see(&self, name: &str, f: &mut See<'_>) -> bool {
        let found = self.weights.get(name);
        found.iter().for_each(|weight| f(name, weight.weight.view().into_dyn(), weight.mask.as_ref()));
        found.is_some()
    }

    /// As [`FakeQuantized::see`], to be changed.
    pub(super) fn change(&mut self, name: &str, f: &mut Change<'_>) -> bool {
        let Some(weight) = self.weights.get_mut(name) else { return false };
        f(name, weight.weight.as_slice_mut().expect("made in standard layout"), weight.mask.as_ref());
        true
    }

    /// Calls `f` with the factors of all steps.
    pub(super) fn see_factors(&self, f: &mut See<'_>) {
        for (name, weight) in self.weights.iter().filter(|_| self.rule == StepRule::Lsq) {
            f(&format!("{name}{FACTORS}"), weight.factors.view().into_dyn(), None);
        }
    }

    /// As [`FakeQuantized::see_factors`], to be changed.
    pub(super) fn change_factors(&mut self, f: &mut Change<'_>) {
        for (name, weight) in self.weights.iter_mut().filter(|_| self.rule == StepRule::Lsq) {
            f(&format!("{name}{FACTORS}"), weight.factors.as_slice_mut().expect("made in standard layout"), None);
        }
    }

    /// Holds a mask on a weight, or none.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is no such weight; [`Error::Shape`] if the mask has another shape.
    pub(super) fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        let names: Vec<String> = self.weights.keys().cloned().collect();
        let missing = || Error::unknown_layer(name, names.iter().map(String::as_str));
        let weight = self.weights.get_mut(name).ok_or_else(missing)?;
        if let Some(mask) = &mask {
            crate::nn::check_mask(name, weight.weight.dim(), mask)?;
            mask.apply(&mut weight.weight);
        }
        weight.mask = mask;
        Ok(())
    }
}

impl Parameters for FakeQuantized {
    fn visit(&self, f: &mut See<'_>) {
        for name in self.weights.keys() {
            self.see(name, f);
        }
        self.see_factors(f);
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        let names: Vec<String> = self.weights.keys().cloned().collect();
        for name in names {
            self.change(&name, f);
        }
        self.change_factors(f);
        Ok(())
    }

    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        FakeQuantized::set_mask(self, name, mask)
    }
}
