//! Layers that the caller measured, of whatever model, as a subject.

use super::subject::{Metric, Subject};
use crate::criteria::{Measured, Need, Needs};
use crate::nn::{Layers, NamedLayers};
use crate::rng::Seed;
use crate::solve::{Pruned, squared_error};
use crate::{Error, Result};
use ndarray::Array2;
use std::borrow::Cow;
use std::fmt;

/// A layer's name, its weight `(out, in)`, and what was measured of it.
pub type MeasuredLayer = (String, Array2<f32>, Measured);

type Give<'a> = Box<dyn Fn(Seed) -> Result<Vec<MeasuredLayer>> + Sync + 'a>;
type Judge<'a> = Box<dyn Fn(&[(&str, &Array2<f32>)], Seed) -> Result<Vec<f64>> + Sync + 'a>;

/// Lists of measured layers as a [`Subject`], judged by the error of their outputs or by a closure, which may put the weights into a model.
///
/// The output error is the mean over layers of `‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖²`, from the Gram matrices that [`Measured`] must then hold; of a layer
/// whose outputs are all 0 it is 0.
///
/// ```
/// use lacuna::criteria::Measured;
/// use lacuna::study::{Compare, LayerLists};
/// use ndarray::array;
/// // Two inputs, of which the first is ten times as large: Wanda sees it, magnitude does not.
/// let gram = array![[100., 0.], [0., 1.]];
/// let measured = Measured { tokens: 1, input_squares: Some(gram.diag().to_owned()), gram: Some(gram), ..Measured::default() };
/// let layers = LayerLists::new(|_| Ok(vec![("fc1".into(), array![[1., 2.]], measured.clone())]));
/// let found = Compare::new().built_in(["magnitude", "wanda"]).sparsities([0.5]).seeds([0]).run(&layers)?;
/// assert_eq!(found.values("magnitude", 0.5)?[0].1, 100. / 104.);
/// assert_eq!(found.values("wanda", 0.5)?[0].1, 4. / 104.);
/// # Ok::<(), lacuna::Error>(())
/// ```
pub struct LayerLists<'a> {
    give: Give<'a>,
    judge: Option<(Vec<Metric>, Judge<'a>)>,
}

impl fmt::Debug for LayerLists<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerLists").field("judge", &self.judge.as_ref().map(|(metrics, _)| metrics)).finish()
    }
}

impl<'a> LayerLists<'a> {
    /// `give` gives the layers of a seed, whose calibration samples for one may hang on it.
    pub fn new(give: impl Fn(Seed) -> Result<Vec<MeasuredLayer>> + Sync + 'a) -> Self {
        LayerLists { give: Box::new(give), judge: None }
    }

    /// Judges by other metrics than the error of the outputs: `judge` gets the names and weights of all layers, pruned or dense, and the
    /// seed, and gives one number for each metric.
    pub fn judge(
        mut self,
        metrics: impl IntoIterator<Item = Metric>,
        judge: impl Fn(&[(&str, &Array2<f32>)], Seed) -> Result<Vec<f64>> + Sync + 'a,
    ) -> Self {
        self.judge = Some((metrics.into_iter().collect(), Box::new(judge)));
        self
    }
}

impl Subject for LayerLists<'_> {
    /// The layers, and what was measured of each.
    type Model = (NamedLayers, Vec<Measured>);

    fn metrics(&self) -> Vec<Metric> {
        let usual = || vec![Metric::smaller("relative output error")];
        self.judge.as_ref().map_or_else(usual, |(metrics, _)| metrics.clone())
    }

    fn model(&self, seed: Seed) -> Result<Self::Model> {
        let (layers, measured): (Vec<_>, Vec<_>) = (self.give)(seed)?.into_iter().map(|(name, w, m)| ((name, w), m)).unzip();
        Ok((NamedLayers::new(layers)?, measured))
    }

    fn layers<'m>(&self, (layers, _): &'m Self::Model) -> &'m dyn Layers {
        layers
    }

    fn measure<'m>(&self, (layers, all): &'m Self::Model, needs: Needs) -> Result<Cow<'m, [Measured]>> {
        for ((name, ..), measured) in layers.iter().zip(all) {
            if let Some(need) = needs.iter().find(|need| !has(measured, *need)) {
                return Err(Error::invalid_option(need.to_string(), format!("not among what was measured of layer {name}")));
            }
        }
        Ok(Cow::Borrowed(all))
    }

    fn judge(&self, (layers, all): &Self::Model, seed: Seed, pruned: &[(String, Pruned)]) -> Result<Vec<f64>> {
        let now = |name: &str| pruned.iter().find(|(n, _)| n == name).map(|(_, p)| &p.weight);
        if let Some((_, judge)) = &self.judge {
            let weights: Vec<(&str, &Array2<f32>)> = layers.iter().map(|(name, w, _)| (name, now(name).unwrap_or(w))).collect();
            return judge(&weights, seed);
        }
        let mut sum = 0.0;
        for ((name, dense, _), measured) in layers.iter().zip(all) {
            let Some(gram) = measured.gram.as_ref().filter(|g| g.dim() == (dense.ncols(), dense.ncols())) else {
                let reason = format!("its Gram matrix {0} x {0} is not among what was measured", dense.ncols());
                return Err(Error::invalid_option("relative output error", reason).in_layer(name));
            };
            let whole = squared_error(dense, &Array2::zeros(dense.dim()), gram);
            let lost = squared_error(now(name).unwrap_or(dense), dense, gram);
            sum += if whole == 0.0 { 0.0 } else { lost / whole };
        }
        Ok(vec![sum / all.len() as f64])
    }
}

/// Whether this was measured; norms of inputs are the diagonal of the Gram matrix too.
fn has(measured: &Measured, need: Need) -> bool {
    match need {
        Need::InputSquares => measured.input_squares.is_some() || measured.gram.is_some(),
        Need::Gram => measured.gram.is_some(),
        Need::InputSums => measured.input_sums.is_some(),
        Need::Gradient => measured.gradient.is_some(),
        Need::SquaredGradients => measured.squared_gradients.is_some(),
        Need::SecondDerivatives => measured.second_derivatives.is_some(),
        Need::HessianGradient => measured.hessian_gradient.is_some(),
        Need::SynapticFlow => measured.synaptic_flow.is_some(),
        Need::SampleGradients => measured.sample_gradients.is_some(),
        Need::InputMagnitudes => measured.input_magnitudes.is_some(),
        Need::InputMaxima => measured.input_maxima.is_some(),
        Need::TextGrams => !measured.texts.is_empty(),
    }
}
