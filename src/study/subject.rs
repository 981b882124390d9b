//! What methods are compared on.

use crate::Result;
use crate::allocate::Layer;
use crate::criteria::{Measured, Needs};
use crate::mask::Mask;
use crate::rng::Seed;
use crate::solve::Pruned;

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
/// [`Networks`](super::Networks) is one for chains of layers, [`LayerLists`](super::LayerLists) for layers that the caller measured, of
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

    /// The layers that may be pruned, without scores.
    fn layers<'m>(&self, model: &'m Self::Model) -> Vec<Layer<'m>>;

    /// The mask already held on a layer, by its place in [`Subject::layers`]; what it dropped stays dropped.
    fn mask<'m>(&self, model: &'m Self::Model, layer: usize) -> Option<&'m Mask> {
        let _ = (model, layer);
        None
    }

    /// What `needs` asks of every layer, in the order of [`Subject::layers`].
    ///
    /// # Errors
    /// If something cannot be measured: the methods that need it are then in the table with this reason. An error for no needs at all ends
    /// the comparison.
    fn measure(&self, model: &Self::Model, needs: Needs) -> Result<Vec<Measured>>;

    /// The metrics, in their order, of the model in which these layers, by their places in [`Subject::layers`], are pruned; of the dense
    /// model for none. A subject that trains after pruning does it here.
    ///
    /// # Errors
    /// The subject's own: the reason in the table, or the end of the comparison for the dense model.
    fn judge(&self, model: &Self::Model, seed: Seed, pruned: &[(usize, Pruned)]) -> Result<Vec<f64>>;
}
