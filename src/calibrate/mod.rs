//! Runs a network over calibration data and measures what criteria need, in one go.

use crate::criteria::{Evidence, Measured, Need, Needs};
use crate::linalg::Gram;
use crate::mask::check_finite as check_rows;
use crate::nn::{Curvature, Layer, Loss, Mode, Network};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, Axis, s};

/// The data to measure on, and how.
#[derive(Debug, Clone, Copy)]
pub struct Calibration<'a> {
    /// `(samples, inputs)`.
    pub x: &'a ArrayRef2<f32>,
    /// `(samples, outputs)`.
    pub target: &'a ArrayRef2<f32>,
    /// Whose derivatives are measured.
    pub loss: Loss,
    /// Which second derivatives.
    pub curvature: Curvature,
    /// Samples of one pass. What is measured is a mean over all samples whatever this is, up to rounding.
    pub batch: usize,
    /// Samples whose gradients are averaged into one row of [`Need::SampleGradients`].
    pub minibatch: usize,
}

impl<'a> Calibration<'a> {
    /// In passes of 256 samples, with the Gauss-Newton curvature, and gradients of single samples.
    pub fn new(x: &'a ArrayRef2<f32>, target: &'a ArrayRef2<f32>, loss: Loss) -> Self {
        Calibration { x, target, loss, curvature: Curvature::default(), batch: 256, minibatch: 1 }
    }

    fn batches(&self) -> impl Iterator<Item = (Array2<f32>, Array2<f32>)> + '_ {
        let n = self.x.nrows();
        (0..n).step_by(self.batch).map(move |from| {
            let part = s![from..(from + self.batch).min(n), ..];
            (self.x.slice(part).as_standard_layout().into_owned(), self.target.slice(part).as_standard_layout().into_owned())
        })
    }
}

/// Measures what `needs` asks of every linear and convolutional layer, in the order of [`Network::affines`].
///
/// Batch normalisation uses its running statistics. Means over samples are summed in f64.
///
/// # Errors
/// If there are no samples, the data do not fit the network, or a sample, a target, a parameter (naming the layer) or something
/// measured (naming the layer) is not finite.
pub fn measure(network: &Network, data: &Calibration<'_>, needs: Needs) -> Result<Vec<Measured>> {
    let samples = data.x.nrows();
    if samples == 0 || data.batch == 0 || data.minibatch == 0 {
        let reason = format!("{samples} samples in batches of {}, mini-batches of {}", data.batch, data.minibatch);
        return Err(Error::setting("calibration", reason));
    }
    if data.x.ncols() != network.inputs() || data.target.nrows() != samples {
        let found = [data.x.nrows(), data.x.ncols(), data.target.nrows()];
        return Err(Error::shape("calibration samples, inputs and targets", &[samples, network.inputs(), samples], &found));
    }
    check_finite(network, data)?;
    let outputs = network.forward(&data.x.slice(s![..1, ..]).to_owned()).ncols();
    if data.target.ncols() != outputs {
        return Err(Error::shape("calibration targets", &[samples, outputs], &[samples, data.target.ncols()]));
    }
    let mut all: Vec<Measured> = network.affines().map(|_| Measured::default()).collect();
    let take = |mean: Vec<Array2<f32>>| weights_only(network, mean);

    if needs.contains(Need::Gradient) {
        let mean = mean(data, |x, t| network.gradient(x, t, data.loss, Mode::Eval).1);
        all.iter_mut().zip(take(mean)).for_each(|(m, g)| m.gradient = Some(g));
    }
    if needs.contains(Need::SquaredGradients) {
        let mean = mean(data, |x, t| network.fisher(x, t, data.loss));
        all.iter_mut().zip(take(mean)).for_each(|(m, g)| m.squared_gradients = Some(g));
    }
    if needs.contains(Need::SecondDerivatives) {
        let mean = mean(data, |x, t| network.curvature(x, t, data.loss, data.curvature));
        all.iter_mut().zip(take(mean)).for_each(|(m, h)| m.second_derivatives = Some(h));
    }
    if needs.contains(Need::HessianGradient) {
        let gradient = mean(data, |x, t| network.gradient(x, t, data.loss, Mode::Eval).1);
        let mean = mean(data, |x, t| network.hessian_times(x, t, data.loss, &gradient));
        all.iter_mut().zip(take(mean)).for_each(|(m, h)| m.hessian_gradient = Some(h));
    }
    if needs.contains(Need::SynapticFlow) {
        all.iter_mut().zip(network.synaptic_flow()).for_each(|(m, f)| m.synaptic_flow = Some(f));
    }
    if needs.contains(Need::SampleGradients) {
        sample_gradients(network, data, &mut all);
        for (m, (_, name, _)) in all.iter().zip(network.affines()) {
            if let Some(rows) = &m.sample_gradients {
                check_rows(rows, "gradients (mini-batches, out * in)").map_err(|e| e.in_layer(name))?;
            }
        }
    }
    if [Need::InputSquares, Need::Gram, Need::InputSums].into_iter().any(|n| needs.contains(n)) {
        inputs(network, data, needs, &mut all)?;
    }
    for (m, (_, name, _)) in all.iter().zip(network.affines()) {
        let arrays = [&m.gradient, &m.squared_gradients, &m.second_derivatives, &m.hessian_gradient, &m.synaptic_flow];
        for (array, need) in arrays.into_iter().zip(Need::ELEMENTWISE) {
            let bad = array.as_ref().and_then(|a| a.indexed_iter().find(|(_, v)| !v.is_finite()));
            if let Some(((row, col), &value)) = bad {
                let error = Error::NonFinite { what: need.to_string(), row, col, value: f64::from(value) };
                return Err(error.in_layer(name));
            }
        }
    }
    Ok(all)
}

/// Refuses NaN and infinities in data and network: what is measured of them says nothing, and a comparison may hide them.
fn check_finite(network: &Network, data: &Calibration<'_>) -> Result<()> {
    let check = |what: &str, values: &ArrayRef2<f32>| match values.indexed_iter().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some(((row, col), &value)) => Err(Error::NonFinite { what: what.into(), row, col, value: f64::from(value) }),
    };
    check("calibration samples", data.x)?;
    check("calibration targets", data.target)?;
    for (name, layer) in network.layers() {
        let averages = match layer {
            Layer::BatchNorm(b) => vec![("running mean", column(&b.mean)), ("running variance", column(&b.variance))],
            _ => vec![],
        };
        let params = layer.params().into_iter().map(|(what, p)| (what, p.value()));
        let mut all = params.chain(averages.iter().map(|(what, v)| (*what, v)));
        all.try_for_each(|(what, values)| check(what, values)).map_err(|e| e.in_layer(name))?;
    }
    Ok(())
}

fn column(values: &[f32]) -> Array2<f32> {
    Array2::from_shape_fn((values.len(), 1), |(i, _)| values[i])
}

/// A weight of each linear and convolutional layer with what was measured of it.
pub fn evidence<'a>(network: &'a Network, measured: &'a [Measured]) -> Vec<Evidence<'a>> {
    let evidence = |((_, layer, a), measured): ((usize, &'a str, &'a crate::nn::Affine), &'a Measured)| Evidence {
        layer,
        weight: a.weight.value().view(),
        mask: a.weight.mask(),
        measured,
    };
    network.affines().zip(measured).map(evidence).collect()
}

/// The mean over all samples of what `pass` gives as means over a batch.
fn mean(data: &Calibration<'_>, pass: impl Fn(&Array2<f32>, &Array2<f32>) -> Vec<Array2<f32>>) -> Vec<Array2<f32>> {
    let mut sums: Vec<Array2<f64>> = Vec::new();
    for (x, t) in data.batches() {
        let (weight, parts) = (x.nrows() as f64, pass(&x, &t));
        if sums.is_empty() {
            sums = parts.iter().map(|p| Array2::zeros(p.dim())).collect();
        }
        sums.iter_mut().zip(&parts).for_each(|(sum, part)| sum.zip_mut_with(part, |s, &p| *s += weight * f64::from(p)));
    }
    let samples = data.x.nrows() as f64;
    sums.iter().map(|s| s.mapv(|s| (s / samples) as f32)).collect()
}

/// Of one array a parameter, those of the linear and convolutional weights.
fn weights_only(network: &Network, arrays: Vec<Array2<f32>>) -> Vec<Array2<f32>> {
    let wanted: Vec<String> = network.affines().map(|(_, name, _)| format!("{name}.weight")).collect();
    network.params().iter().zip(arrays).filter(|((name, _), _)| wanted.contains(name)).map(|(_, a)| a).collect()
}

/// Gradients of mini-batches, a row each, of every layer's weight.
fn sample_gradients(network: &Network, data: &Calibration<'_>, all: &mut [Measured]) {
    let rows = data.x.nrows().div_ceil(data.minibatch);
    // Where each weight's gradient lies among those of all parameters.
    let wanted: Vec<String> = network.affines().map(|(_, name, _)| format!("{name}.weight")).collect();
    let mut from = 0;
    let mut places = Vec::new();
    for (name, param) in network.params() {
        let len = param.value().len();
        places.extend(wanted.contains(&name).then_some(from..from + len));
        from += len;
    }
    let mut parts: Vec<Array2<f32>> = places.iter().map(|p| Array2::zeros((rows, p.len()))).collect();
    // Single samples side by side, but few at a time; a mini-batch's mean is one gradient.
    let step = if data.minibatch == 1 { data.batch.min(32) } else { data.minibatch };
    for start in (0..data.x.nrows()).step_by(step) {
        let span = s![start..(start + step).min(data.x.nrows()), ..];
        let tape = network.run(data.x.slice(span).to_owned(), Mode::Eval);
        let d = data.loss.gradient(tape.output(), &data.target.slice(span).to_owned());
        if data.minibatch == 1 {
            let all = network.sample_gradients(&tape, d);
            for (part, place) in parts.iter_mut().zip(&places) {
                part.slice_mut(span).assign(&all.slice(s![.., place.clone()]));
            }
        } else {
            let d = &d / d.nrows() as f32;
            let gradients = network.backward(&tape, d);
            let weights = weights_only(network, gradients);
            for (part, g) in parts.iter_mut().zip(weights) {
                part.row_mut(start / step).iter_mut().zip(&g).for_each(|(out, &g)| *out = g);
            }
        }
    }
    all.iter_mut().zip(parts).for_each(|(m, g)| m.sample_gradients = Some(g));
}

/// Input norms and Gram matrices of every layer.
fn inputs(network: &Network, data: &Calibration<'_>, needs: Needs, all: &mut [Measured]) -> Result<()> {
    let mut grams: Vec<Gram> = Vec::new();
    for (x, _) in data.batches() {
        let tape = network.run(x, Mode::Eval);
        for (k, (i, name, a)) in network.affines().enumerate() {
            let tokens = a.map.patches(tape.input(i)); // (batch * positions, in)
            let m = &mut all[k];
            let before = m.tokens;
            let placed = |e: Error| match e {
                Error::NonFinite { what, row, col, value } => Error::NonFinite { what, row: before + row, col, value },
                e => e,
            };
            check_rows(&tokens, "inputs (tokens, in)").map_err(|e| placed(e).in_layer(name))?;
            if needs.contains(Need::Gram) {
                Gram::check(&tokens, before).map_err(|e| e.in_layer(name))?;
            }
            m.tokens += tokens.nrows();
            if needs.contains(Need::InputSquares) {
                let squares = m.input_squares.get_or_insert_with(|| Array1::zeros(tokens.ncols()));
                tokens.axis_iter(Axis(0)).for_each(|row| squares.zip_mut_with(&row, |s, &x| *s += f64::from(x) * f64::from(x)));
            }
            if needs.contains(Need::InputSums) {
                let sums = m.input_sums.get_or_insert_with(|| Array1::zeros(tokens.ncols()));
                tokens.axis_iter(Axis(0)).for_each(|row| sums.zip_mut_with(&row, |s, &x| *s += f64::from(x)));
            }
            if needs.contains(Need::Gram) {
                if grams.len() == k {
                    grams.push(Gram::new(tokens.ncols()));
                }
                grams[k].update(&tokens).map_err(|e| e.in_layer(name))?;
            }
        }
    }
    all.iter_mut().zip(grams).for_each(|(m, g)| m.gram = Some(g.matrix()));
    Ok(())
}
