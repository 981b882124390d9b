//! How much of each layer stays.
//!
//! An allocation turns one budget for all layers into one a layer. Budgets count weights, and the parts sum to the whole
//! exactly. Ranking weights over the whole network is an allocation too ([`Global`]): it counts how many of each layer are
//! among the best of all, and selection then takes that many of each layer.
//!
//! | allocation | share of a layer | source |
//! |---|---|---|
//! | [`Uniform`] | the same everywhere | |
//! | [`Global`] | by rank of the scores among all layers | |
//! | [`Er`] | (in + out) / (in · out) | Mocanu et al. 2018; Evci et al. 2020 |
//! | [`Erk`] | (in + out + height + width) / (in · out · height · width) | Evci et al. 2020 |
//! | [`Lamp`] | by rank of w² over the sum of the squares not smaller | Lee et al. 2021 |
//! | [`Owl`] | by the share of outliers in a block's Wanda scores | Yin et al. 2024 |
//! | [`dynamic`], [`evolve`] | searched among layers pruned at several levels, under any budget | Frantar, Alistarh 2022; Sieberling et al. 2025 |
//! | [`Overrides`] | given for some layers, another allocation for the rest | |

mod apportion;
mod counter;
mod ranking;
mod erk;
mod global;
mod lamp;
mod owl;
mod overrides;
mod search;
mod target;
mod uniform;

pub(crate) use apportion::apportion;
pub use counter::{RankCounter, RankSample};
pub use erk::{Er, Erk};
pub use global::Global;
pub use lamp::Lamp;
pub use overrides::Overrides;
pub use owl::{Outliers, Owl};
pub use ranking::{Ranking, ReadLayers, by_rank, sampled_rows};
pub use search::{Evolution, Level, dynamic, evolve};
pub use target::Target;
pub use uniform::Uniform;

use crate::mask::Budget;
use crate::{Error, Result};
use ndarray::{ArrayRef2, ArrayView2};

/// One layer as an allocation sees it.
#[derive(Debug, Clone, Copy)]
pub struct LayerView<'a> {
    /// Its name.
    pub name: &'a str,
    /// The weight, `(out, in)`; for a convolution `in` is channels · height · width. Allocations that go by shapes may be given one number for all.
    pub weight: ArrayView2<'a, f32>,
    /// Height and width of a convolution's kernel; `None` for a linear layer.
    pub kernel: Option<(usize, usize)>,
    /// Times each weight is used for one sample; a weight costs `2 * positions` FLOPs.
    pub positions: usize,
    /// Scores of the weight's shape, larger = keep, for allocations that rank.
    pub scores: Option<ArrayView2<'a, f32>>,
}

impl<'a> LayerView<'a> {
    /// A linear layer without scores.
    pub fn linear(name: &'a str, weight: &'a ArrayRef2<f32>) -> Self {
        LayerView { name, weight: weight.view(), kernel: None, positions: 1, scores: None }
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.weight.len()
    }

    /// Whether there are no weights.
    pub fn is_empty(&self) -> bool {
        self.weight.is_empty()
    }
}

/// Shares one budget out over layers.
///
/// ```
/// use lacuna::allocate::{Allocate, LayerView, Uniform};
/// use lacuna::mask::Budget;
/// use ndarray::Array2;
/// let (a, b) = (Array2::zeros((3, 3)), Array2::zeros((2, 3)));
/// let layers = [LayerView::linear("a", &a), LayerView::linear("b", &b)];
/// let parts = Uniform.allocate(&layers, Budget::new(8, 15).unwrap()).unwrap();
/// assert_eq!(parts.iter().map(|p| p.keep()).collect::<Vec<_>>(), [5, 3]);
/// ```
#[auto_impl::auto_impl(&, Box)]
pub trait Allocate: Send + Sync + std::fmt::Debug {
    /// The name users know, lower case: `erk`.
    fn name(&self) -> &str;

    /// Whether [`LayerView::scores`] must be there.
    fn needs_scores(&self) -> bool {
        false
    }

    /// Whether the numbers of [`LayerView::weight`] are looked at, and not its shape alone.
    fn needs_weights(&self) -> bool {
        true
    }

    /// What is ranked over all layers, if budgets are counts by rank: then layers can be read one at a time ([`by_rank`]).
    fn ranking(&self) -> Option<&dyn Ranking> {
        None
    }

    /// The budgets of layers that do not take part in the ranking, from shapes alone, and how many weights of the others stay.
    ///
    /// # Errors
    /// As [`Allocate::allocate`].
    fn given(&self, layers: &[LayerView<'_>], total: Budget) -> Result<(Vec<Option<Budget>>, usize)> {
        Ok((vec![None; layers.len()], total.keep()))
    }

    /// Fewest and most weights of these layers together that may stay.
    ///
    /// # Errors
    /// As [`Allocate::allocate`].
    fn range(&self, layers: &[LayerView<'_>]) -> Result<(usize, usize)> {
        Ok((0, layers.iter().map(LayerView::len).sum()))
    }

    /// One budget for each layer, in weights; they sum to `total`.
    ///
    /// # Errors
    /// If there are no layers, `total.of()` is not their number of weights, or the total cannot be met.
    fn allocate(&self, layers: &[LayerView<'_>], total: Budget) -> Result<Vec<Budget>>;
}

/// Checks that the total is of these layers.
fn check(layers: &[LayerView<'_>], total: Budget) -> Result<()> {
    let of: usize = layers.iter().map(LayerView::len).sum();
    if layers.is_empty() || of == 0 {
        return Err(Error::invalid_option("layers", "there are no weights to allocate a budget to"));
    }
    if of != total.of() {
        let reason = format!("the {} layers have {of} weights together", layers.len());
        return Err(Error::Budget { keep: total.keep(), of: total.of(), reason });
    }
    Ok(())
}

/// Budgets from counts.
fn budgets(layers: &[LayerView<'_>], keep: Vec<usize>) -> Result<Vec<Budget>> {
    layers.iter().zip(keep).map(|(layer, keep)| Budget::new(keep, layer.len()).map_err(|e| e.in_layer(layer.name))).collect()
}
