//! The lottery ticket hypothesis: iterative magnitude pruning with rewinding.
//!
//! Frankle, Carbin. *The lottery ticket hypothesis: finding sparse, trainable neural networks.* ICLR 2019, arXiv:1803.03635, section 2 and appendix B.
//! Rewinding to a later moment: Frankle, Dziugaite, Roy, Carbin. *Linear mode connectivity and the lottery ticket hypothesis.* ICML 2020, arXiv:1912.05671.
//! Without rewinding, and then with a lower learning rate, it is the method of Han, Pool, Tran, Dally. *Learning both weights and connections for
//! efficient neural networks.* NeurIPS 2015, arXiv:1506.02626; [`prune::iterative`](crate::prune::iterative) does that too, by any criterion.
//!
//! ```text
//! θ = train(θ_k)                       θ_k: the weights at the beginning, or after k steps
//! in each round:
//!     drop the fraction p_l of what layer l keeps, of smallest |θ|
//!     θ = train(m ⊙ θ_k)               rewound; or train(m ⊙ θ), where it goes on
//! ```
//!
//! Departures: none that is known; in each layer exactly the rounded number of weights stays. Cost: a training a round.

use super::choice::{hold_masks, weights_of};
use super::method::Prunable;
use crate::mask::{Budget, Mask, Pattern, Scope, select};
use crate::nn::{LayerInfo, find_layer};
use crate::{Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How tickets are drawn.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `fraction` | 0.2 | (0, 1) | of what a layer keeps, how much goes in a round |
/// | `others` | none | [0, 1) each | layers with a fraction of their own, by name: the paper's output layers have half of it |
/// | `global` | no | | one ranking over all layers, and then `others` must be none |
/// | `rounds` | 10 | from 1 | rounds of pruning |
/// | `rewind` | yes | | whether survivors get their values back, or go on from where they are |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LotteryTickets {
    /// p
    pub fraction: f64,
    /// Layers with another p; 0 keeps a layer whole.
    pub others: Vec<(String, f64)>,
    /// One ranking over all layers.
    pub global: bool,
    /// Rounds of pruning.
    pub rounds: usize,
    /// Whether survivors are rewound.
    pub rewind: bool,
}

impl Default for LotteryTickets {
    fn default() -> Self {
        LotteryTickets { fraction: 0.2, others: Vec::new(), global: false, rounds: 10, rewind: true }
    }
}

impl LotteryTickets {
    /// The fraction of each layer that goes in a round.
    fn fractions(&self, layers: &[LayerInfo]) -> Result<Vec<f64>> {
        if !(self.fraction > 0.0 && self.fraction < 1.0) {
            return Err(Error::invalid_option("fraction", format!("{} is not above 0 and below 1", self.fraction)));
        }
        if self.global && !self.others.is_empty() {
            let reason = format!("{} is given its own, and one ranking over all layers has no room for it", self.others[0].0);
            return Err(Error::invalid_option("fraction of a layer", reason));
        }
        let mut fractions = vec![self.fraction; layers.len()];
        for (name, fraction) in &self.others {
            if !(0.0..1.0).contains(fraction) {
                return Err(Error::invalid_option("fraction of a layer", format!("{name}: {fraction} is not in [0, 1)")));
            }
            let found = find_layer(layers, name)?;
            let of = layers.iter().zip(&mut fractions).filter(|(layer, _)| *layer == found);
            of.for_each(|(_, f)| *f = *fraction);
        }
        Ok(fractions)
    }

    /// The masks of the next round, from trained weights and the masks that they were trained with.
    ///
    /// # Errors
    /// Fractions that are none, an unknown layer; weights that are not finite, naming the layer.
    ///
    /// # Panics
    /// If there are not weights and a mask of every layer.
    pub fn next_masks(&self, layers: &[LayerInfo], weights: &[Array2<f32>], masks: &[Mask]) -> Result<Vec<Mask>> {
        assert!(layers.len() == weights.len() && layers.len() == masks.len(), "weights and a mask of every layer");
        let fractions = self.fractions(layers)?;
        // What went ranks below every magnitude.
        let score = |(weight, mask): (&Array2<f32>, &Mask)| {
            Array2::from_shape_fn(mask.dim(), |(r, c)| if mask.get(r, c) { weight[[r, c]].abs() } else { -1.0 })
        };
        let scores: Vec<Array2<f32>> = weights.iter().zip(masks).map(score).collect();
        let left = |kept: usize, fraction: f64| (kept as f64 * (1.0 - fraction)).round() as usize;
        let keeps = if self.global {
            let mut all: Vec<f32> = scores.iter().flatten().copied().collect();
            let keep = left(masks.iter().map(Mask::kept).sum(), self.fraction);
            let flat = Array2::from_shape_vec((1, all.len()), std::mem::take(&mut all)).unwrap_or_default();
            let chosen = select(&flat, Pattern::Unstructured, Scope::Layer, Budget::new(keep, flat.len())?)?;
            let mut begin = 0;
            let count = |layer: &LayerInfo| {
                let of = begin..begin + layer.len();
                begin = of.end;
                of.filter(|&i| chosen.get(0, i)).count()
            };
            layers.iter().map(count).collect::<Vec<_>>()
        } else {
            masks.iter().zip(&fractions).map(|(mask, &fraction)| left(mask.kept(), fraction)).collect()
        };
        let one = |((layer, scores), keep): ((&LayerInfo, &Array2<f32>), usize)| {
            select(scores, Pattern::Unstructured, Scope::Layer, Budget::new(keep, layer.len())?)
                .map_err(|e| e.in_layer(&layer.name))
        };
        layers.iter().zip(&scores).zip(keeps).map(one).collect()
    }
}

/// A trained subnetwork.
#[derive(Debug, Clone)]
pub struct Ticket<M> {
    /// Rounds of pruning before it; 0 is the dense model.
    pub round: usize,
    /// The masks, by the layers' names.
    pub masks: Vec<(String, Mask)>,
    /// The model at the end of its training, its masks held.
    pub trained: M,
}

impl<M> Ticket<M> {
    /// The fraction of the layers' weights that are kept.
    pub fn density(&self) -> f64 {
        let (kept, of) = self.masks.iter().fold((0, 0), |(k, n), (_, mask)| (k + mask.kept(), n + mask.len()));
        if of == 0 { 1.0 } else { kept as f64 / of as f64 }
    }
}

/// Draws a ticket a round: the dense model first. `rewind_to` is what survivors are rewound to: the model at its beginning, or after a few steps. `train(model, round)`
/// trains from there to the end, masks held, as [`train_model`](crate::train::train_model) holds them; it is called with round 0 for the dense model.
///
/// Masks that `rewind_to` holds are where it begins.
///
/// ```
/// use lacuna::models::{Init, mlp};
/// use lacuna::nn::{Activation, Parameters};
/// use lacuna::rng::Seed;
/// use lacuna::sparse_training::{LotteryTickets, winning_tickets};
/// let start = mlp(&[4, 5, 2], Activation::Relu, Init::He, Seed(0))?;
/// let settings = LotteryTickets { fraction: 0.5, rounds: 2, ..LotteryTickets::default() };
/// let twice = |net: &mut lacuna::nn::Network, _| net.visit_mut(&mut |_, values, _| values.iter_mut().for_each(|w| *w *= 2.0));
/// let tickets = winning_tickets(&start, &settings, twice)?;
/// assert_eq!(tickets.iter().map(|t| t.density()).collect::<Vec<_>>(), [1.0, 0.5, 0.26666666666666666]);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// As [`LotteryTickets::next_masks`], and those of `train`.
pub fn winning_tickets<M: Prunable + Clone>(
    rewind_to: &M,
    settings: &LotteryTickets,
    mut train: impl FnMut(&mut M, usize) -> Result<()>,
) -> Result<Vec<Ticket<M>>> {
    let layers = rewind_to.layers();
    settings.fractions(&layers)?;
    if settings.rounds == 0 {
        return Err(Error::invalid_option("rounds", "0; a ticket is drawn in 1 or more"));
    }
    let full = |layer: &LayerInfo| {
        let held = rewind_to.mask(&layer.name)?.map(|mask| mask.into_owned());
        Ok(held.unwrap_or_else(|| Mask::full(layer.shape.0, layer.shape.1)))
    };
    let mut masks = layers.iter().map(full).collect::<Result<Vec<Mask>>>()?;
    let mut tickets: Vec<Ticket<M>> = Vec::with_capacity(settings.rounds + 1);
    for round in 0..=settings.rounds {
        let mut model = rewind_to.clone();
        if let Some(last) = tickets.last() {
            masks = settings.next_masks(&layers, &weights_of(&last.trained, &layers)?, &masks)?;
            if !settings.rewind {
                model = last.trained.clone();
            }
            hold_masks(&mut model, &layers, &masks)?;
        }
        train(&mut model, round)?;
        let named = layers.iter().map(|layer| layer.name.clone()).zip(masks.iter().cloned()).collect();
        tickets.push(Ticket { round, masks: named, trained: model });
    }
    Ok(tickets)
}
