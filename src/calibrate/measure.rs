//! Evidence from passes over a model: gradients, curvature, inputs.

use super::inputs::ModelStatistics;
use crate::criteria::{Evidence, Measured, Need, Needs};
use crate::mask::{Mask, check_finite};
use crate::nn::{Gradients, LayerInfo, Layers, Mode, Model, Passes, Samples};
use crate::{Error, Result};
use ndarray::{Array2, ArrayD, CowArray, Ix2, s};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Measures what `needs` asks of every layer of a model, in the order of [`Layers::layers`].
///
/// | need | how |
/// |---|---|
/// | inputs | one pass forward |
/// | gradient | the mean over samples |
/// | squared gradients, gradients of mini-batches | by a pass of the model's own ([`Model::squared_gradients`], [`Model::sample_gradients`]), or sample by sample |
/// | second derivatives, Hessian times gradient, synaptic flow | where the model has such a pass |
///
/// Batch normalisation uses its running statistics. Means over samples are summed in f64.
///
/// # Errors
/// If there are no samples, the data do not fit the model, or a sample, a target, a parameter (naming the layer) or something
/// measured (naming the layer) is not finite; [`Error::Unsupported`] if the model has no pass for a need.
pub fn measure<M, S>(model: &M, data: &S, needs: Needs) -> Result<Vec<Measured>>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    let (samples, Passes { batch, minibatch, curvature }) = (data.len(), data.passes());
    if samples == 0 || batch == 0 || minibatch == 0 {
        let reason = format!("{samples} samples in batches of {batch}, mini-batches of {minibatch}");
        return Err(Error::invalid_option("calibration", reason));
    }
    data.check(model.widths())?;
    model.check_finite()?;
    let layers = model.layers();
    let mut all: Vec<Measured> = layers.iter().map(|_| Measured::default()).collect();
    let objective = data.objective();

    // What a model cannot be measured by is said before anything runs for long.
    let flow = match needs.contains(Need::SynapticFlow) {
        true => Some(model.synaptic_flow().ok_or_else(|| no_pass(Need::SynapticFlow))?),
        false => None,
    };
    if needs.contains(Need::HessianGradient) {
        let (first, rows) = (data.batch(&[0]), data.rows(&[0]));
        let direction = gradient_of(model, data, &[0], None)?;
        model.hessian_times(&first, objective, &rows, &direction)?.ok_or_else(|| no_pass(Need::HessianGradient))?;
    }
    let names: BTreeSet<&str> = layers.iter().map(|l| l.parameter.as_str()).collect();
    // The mean of a loss is over the rows that have something to learn, that of single gradients over samples.
    let (by_rows, by_samples) = (|part: &[usize]| objective.count(&data.rows(part)), |part: &[usize]| part.len());
    if needs.contains(Need::Gradient) {
        let pass = &mut |part: &[usize]| gradient_of(model, data, part, Some(&names)).map(Some);
        let found = mean(data, Need::Gradient, &by_rows, pass)?;
        each(&layers, found, &mut all, |m, g| m.gradient = Some(g))?;
    }
    if needs.contains(Need::SquaredGradients) {
        let found = mean(data, Need::SquaredGradients, &by_samples, &mut |part| match model.squared_gradients(
            &data.batch(part),
            objective,
            &data.rows(part),
        )? {
            Some(squares) => Ok(Some(squares)),
            None => squares_of(model, data, part, Some(&names)).map(Some),
        })?;
        each(&layers, found, &mut all, |m, g| m.squared_gradients = Some(g))?;
    }
    if needs.contains(Need::SecondDerivatives) {
        let found = mean(data, Need::SecondDerivatives, &by_rows, &mut |part| {
            model.second_derivatives(&data.batch(part), objective, &data.rows(part), curvature)
        })?;
        each(&layers, found, &mut all, |m, h| m.second_derivatives = Some(h))?;
    }
    if needs.contains(Need::HessianGradient) {
        let pass = &mut |part: &[usize]| gradient_of(model, data, part, None).map(Some);
        let direction = mean(data, Need::Gradient, &by_rows, pass)?;
        let found = mean(data, Need::HessianGradient, &by_rows, &mut |part| {
            model.hessian_times(&data.batch(part), objective, &data.rows(part), &direction)
        })?;
        each(&layers, found, &mut all, |m, h| m.hessian_gradient = Some(h))?;
    }
    if let Some(flow) = flow {
        all.iter_mut().zip(flow).for_each(|(m, f)| m.synaptic_flow = Some(f));
    }
    if needs.contains(Need::SampleGradients) {
        sample_gradients(model, data, &layers, &mut all)?;
        for (m, layer) in all.iter().zip(&layers) {
            if let Some(rows) = &m.sample_gradients {
                check_finite(rows, "gradients (mini-batches, out * in)").map_err(|e| e.in_layer(&layer.name))?;
            }
        }
    }
    if [Need::InputSquares, Need::Gram, Need::InputSums, Need::InputMagnitudes, Need::InputMaxima]
        .into_iter()
        .any(|n| needs.contains(n))
    {
        inputs(model, data, needs, &layers, &mut all)?;
    }
    for (m, layer) in all.iter().zip(&layers) {
        let arrays = [&m.gradient, &m.squared_gradients, &m.second_derivatives, &m.hessian_gradient, &m.synaptic_flow];
        for (array, need) in arrays.into_iter().zip(Need::ELEMENTWISE) {
            if let Some(array) = array {
                check_finite(array, &need.to_string()).map_err(|e| e.in_layer(&layer.name))?;
            }
        }
    }
    Ok(all)
}

/// What is said where a model cannot be measured so.
fn no_pass(need: Need) -> Error {
    Error::unsupported(need.to_string(), "this model has no pass that measures it")
}

/// The layers of a model as criteria see them: names, weights, masks.
///
/// ```
/// use lacuna::calibrate::{Calibration, LayerWeights, measure};
/// use lacuna::{criteria::{Saliency, Taylor}, models::{Init, mlp}, nn::{Activation, Loss}, rng::Seed};
/// use ndarray::array;
/// let net = mlp(&[2, 3, 1], Activation::Tanh, Init::LeCun, Seed(0))?;
/// let (x, t) = (array![[1., 0.], [0., 1.]], array![[1.], [0.]]);
/// let measured = measure(&net, &Calibration::new(&x, &t, Loss::SquaredError), Taylor.needs())?;
/// let weights = LayerWeights::of(&net)?;
/// let scores = Taylor.score(&weights.evidence(&measured)[0])?;
/// assert_eq!(scores.dim(), (3, 2));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LayerWeights<'m> {
    layers: Vec<LayerInfo>,
    weights: Vec<CowArray<'m, f32, Ix2>>,
    masks: Vec<Option<Cow<'m, Mask>>>,
}

impl<'m> LayerWeights<'m> {
    /// Reads all layers of a model.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of(model: &'m dyn Layers) -> Result<Self> {
        let layers = model.layers();
        let weights = layers.iter().map(|l| model.read(&l.name)).collect::<Result<_>>()?;
        let masks = layers.iter().map(|l| model.mask(&l.name)).collect::<Result<_>>()?;
        Ok(LayerWeights { layers, weights, masks })
    }

    /// What the layers are, in order.
    pub fn layers(&self) -> &[LayerInfo] {
        &self.layers
    }

    /// What criteria see of each layer: its weight, its mask, and what was [`measure`]d of it.
    ///
    /// # Panics
    /// If there is not one measure a layer.
    pub fn evidence<'a>(&'a self, measured: &'a [Measured]) -> Vec<Evidence<'a>> {
        assert_eq!(self.layers.len(), measured.len(), "one measure a layer");
        let parts = self.layers.iter().zip(&self.weights).zip(&self.masks).zip(measured);
        let one = |(((layer, weight), mask), measured): (((&'a LayerInfo, &'a CowArray<'m, f32, Ix2>), _), _)| {
            let mask: &'a Option<Cow<'m, Mask>> = mask;
            Evidence { layer: layer.name.as_str(), weight: weight.view(), mask: mask.as_deref(), measured }
        };
        parts.map(one).collect()
    }
}

/// Numbers of the samples, so many at a time.
fn parts(samples: usize, batch: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..samples).step_by(batch).map(move |from| (from..(from + batch).min(samples)).collect())
}

/// The gradient of the mean loss of these samples, at the parameters of these names, or at all.
fn gradient_of<M, S>(model: &M, data: &S, samples: &[usize], of: Option<&BTreeSet<&str>>) -> Result<Gradients>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    let tape = model.forward(&data.batch(samples), Mode::Eval, &mut ())?;
    let mut kept = Vec::new();
    model.backward(tape, data.objective(), &data.rows(samples), &mut |name, gradient| {
        if of.is_none_or(|of| of.contains(name)) {
            kept.push((name.to_string(), gradient));
        }
    })?;
    Ok(kept.into_iter().collect())
}

/// The mean of the squares of each sample's gradient, one sample after another.
fn squares_of<M, S>(model: &M, data: &S, samples: &[usize], of: Option<&BTreeSet<&str>>) -> Result<Gradients>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    let mut sums = Means::default();
    for sample in samples {
        let mut gradients = gradient_of(model, data, &[*sample], of)?;
        gradients.square();
        sums.add(gradients, 1.0)?;
    }
    Ok(sums.mean(samples.len()))
}

/// Sums of gradients in f64.
#[derive(Default)]
struct Means(BTreeMap<String, ArrayD<f64>>);

impl Means {
    fn add(&mut self, gradients: Gradients, weight: f64) -> Result<()> {
        for (name, part) in gradients {
            let sum = self.0.entry(name).or_insert_with(|| ArrayD::zeros(part.shape()));
            sum.zip_mut_with(&part, |s, &p| *s += weight * f64::from(p));
        }
        Ok(())
    }

    fn mean(self, samples: usize) -> Gradients {
        let samples = samples as f64;
        self.0.into_iter().map(|(name, sum)| (name, sum.mapv(|s| (s / samples) as f32))).collect()
    }
}

/// The mean of what `pass` gives as means over some samples, which weigh as much as `weight` says of them.
fn mean<S: Samples>(
    data: &S,
    need: Need,
    weight: &dyn Fn(&[usize]) -> usize,
    pass: &mut dyn FnMut(&[usize]) -> Result<Option<Gradients>>,
) -> Result<Gradients> {
    let (mut sums, mut of) = (Means::default(), 0);
    for part in parts(data.len(), data.passes().batch) {
        let weight = weight(&part);
        sums.add(pass(&part)?.ok_or_else(|| no_pass(need))?, weight as f64)?;
        of += weight;
    }
    Ok(sums.mean(of))
}

/// Gives each layer what was found of its weight.
fn each(
    layers: &[LayerInfo],
    found: Gradients,
    all: &mut [Measured],
    mut give: impl FnMut(&mut Measured, Array2<f32>),
) -> Result<()> {
    let mut found: BTreeMap<String, ArrayD<f32>> = found.into_iter().collect();
    for (layer, measured) in layers.iter().zip(all) {
        let Some(array) = found.remove(&layer.parameter) else {
            return Err(Error::unknown_layer(&layer.parameter, found.keys().map(String::as_str)));
        };
        give(measured, matrix(layer, array)?);
    }
    Ok(())
}

/// A weight's gradient as a matrix.
fn matrix(layer: &LayerInfo, array: ArrayD<f32>) -> Result<Array2<f32>> {
    let found = array.shape().to_vec();
    let misfit = || Error::shape(format!("gradient of {}", layer.parameter), &[layer.shape.0, layer.shape.1], &found);
    array.into_dimensionality::<Ix2>().ok().filter(|a| a.dim() == layer.shape).ok_or_else(misfit)
}

/// Gradients of mini-batches, a row each, of every layer's weight.
fn sample_gradients<M, S>(model: &M, data: &S, layers: &[LayerInfo], all: &mut [Measured]) -> Result<()>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    let (samples, Passes { batch, minibatch, .. }) = (data.len(), data.passes());
    // Where each weight's gradient lies among those of all parameters.
    let (mut from, mut places) = (0, BTreeMap::new());
    model.visit(&mut |name, values, _| {
        places.insert(name.to_string(), from..from + values.len());
        from += values.len();
    });
    let names: BTreeSet<&str> = layers.iter().map(|l| l.parameter.as_str()).collect();
    let mut rows: Vec<Array2<f32>> = layers.iter().map(|l| Array2::zeros((samples.div_ceil(minibatch), l.len()))).collect();
    // Single samples side by side, but few at a time; a mini-batch's mean is one gradient.
    let step = if minibatch == 1 { batch.min(32) } else { minibatch };
    for part in parts(samples, step) {
        let first = part[0];
        let side_by_side = match minibatch {
            1 => model.sample_gradients(&data.batch(&part), data.objective(), &data.rows(&part))?,
            _ => None,
        };
        if let Some(found) = side_by_side {
            for (layer, rows) in layers.iter().zip(&mut rows) {
                let place = places.get(&layer.parameter).cloned();
                let place = place.ok_or_else(|| Error::unknown_layer(&layer.parameter, places.keys().map(String::as_str)))?;
                rows.slice_mut(s![first..first + part.len(), ..]).assign(&found.slice(s![.., place]));
            }
            continue;
        }
        for (i, of) in part.chunks(minibatch).enumerate() {
            let mut gradients: BTreeMap<String, ArrayD<f32>> = gradient_of(model, data, of, Some(&names))?.into_iter().collect();
            for (layer, rows) in layers.iter().zip(&mut rows) {
                let Some(gradient) = gradients.remove(&layer.parameter) else {
                    return Err(Error::unknown_layer(&layer.parameter, gradients.keys().map(String::as_str)));
                };
                let gradient = matrix(layer, gradient)?;
                rows.row_mut(first / minibatch + i).iter_mut().zip(&gradient).for_each(|(out, &g)| *out = g);
            }
        }
    }
    all.iter_mut().zip(rows).for_each(|(m, g)| m.sample_gradients = Some(g));
    Ok(())
}

/// Input norms, sums and Gram matrices of every layer.
fn inputs<M, S>(model: &M, data: &S, needs: Needs, layers: &[LayerInfo], all: &mut [Measured]) -> Result<()>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    let mut statistics = ModelStatistics::new(needs);
    for part in parts(data.len(), data.passes().batch) {
        model.observe(&data.batch(&part), &mut statistics)?;
        statistics.check()?;
    }
    let mut found = statistics.finish()?;
    for (i, (layer, measured)) in layers.iter().zip(all).enumerate() {
        let missing =
            || Error::invalid_option("calibration", format!("the model does not show the inputs of layer {}", layer.name));
        let group = found.iter_mut().find(|f| f.layers.contains(&layer.name)).ok_or_else(missing)?;
        // The last layer that reads an input takes what was measured of it, the others a copy.
        let again = layers[i + 1..].iter().any(|later| group.layers.contains(&later.name));
        let of = if again { group.inputs().clone() } else { std::mem::take(group.inputs_mut()) };
        measured.tokens = of.tokens;
        measured.gram = of.gram;
        measured.input_squares = of.input_squares;
        measured.input_sums = of.input_sums;
    }
    Ok(())
}
