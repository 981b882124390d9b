//! What methods are compared on.

use crate::Result;
use crate::criteria::{Measured, Needs};
use crate::nn::Layers;
use crate::rng::Seed;
use crate::solve::Pruned;
use std::borrow::Cow;

/// A number by which a model is judged, and which way is better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its name with its unit, as a column or an axis shows it: `accuracy, %`.
    pub name: String,
    /// Whether a larger number is the better one.
    pub larger_is_better: bool,
}

impl Metric {
    /// One of which more is better, as accuracy.
    pub fn larger(name: impl Into<String>) -> Self {
        Metric { name: name.into(), larger_is_better: true }
    }

    /// One of which less is better, as loss or perplexity.
    pub fn smaller(name: impl Into<String>) -> Self {
        Metric { name: name.into(), larger_is_better: false }
    }
}

/// Gives a dense model for each seed, measures it, and judges what pruning leaves of it.
///
/// [`Networks`](super::Networks) is one for chains of layers and other models that run on arrays, [`LayerLists`](super::LayerLists) for layers that the caller measured, of
/// whatever model. All methods of a seed are given the same model and the same measures, so that differences between methods are paired.
/// For the same seed the same model must come back, to the bit.
pub trait Subject: Sync {
    /// A dense model of one seed with whatever is needed to judge it.
    type Model: Send + Sync;

    /// By what models are judged, at least one; tables and figures show the first where nothing else is said.
    fn metrics(&self) -> Vec<Metric>;

    /// The dense model of a seed.
    ///
    /// # Errors
    /// The subject's own: they end the comparison.
    fn model(&self, seed: Seed) -> Result<Self::Model>;

    /// The layers that may be pruned. What a mask that is held on one has dropped stays dropped.
    fn layers<'m>(&self, model: &'m Self::Model) -> &'m dyn Layers;

    /// What `needs` asks of every layer, in the order of [`Layers::layers`]; lent where it lies in the model.
    ///
    /// # Errors
    /// If something cannot be measured: the methods that need it are then in the table with this reason. An error for no needs at all ends
    /// the comparison.
    fn measure<'m>(&self, model: &'m Self::Model, needs: Needs) -> Result<Cow<'m, [Measured]>>;

    /// The metrics, in their order, of the model in which the layers of these names are pruned; of the dense model for none. A subject that
    /// trains after pruning does it here.
    ///
    /// # Errors
    /// The subject's own: the reason in the table, or the end of the comparison for the dense model.
    fn judge(&self, model: &Self::Model, seed: Seed, pruned: &[(String, Pruned)]) -> Result<Vec<f64>>;
}
