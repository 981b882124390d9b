//! A chain of layers as [`Layers`] and as a [`Model`].

use super::passes::{At, Gradient, Pass};
use super::{Affine, BatchNorm, Layer, Map, Network, Pact, Tape};
use crate::criteria::Need;
use crate::mask::{Mask, check_finite};
use crate::nn::{
    Curvature, Gradients, LayerInfo, Layers, Loss, Mode, Model, Objective, Observer, Sink, check_rows, check_taps, layer_name,
};
use crate::solve::Pruned;
use crate::{Error, Result};
use ndarray::{Array2, Axis, CowArray, Ix2};
use std::borrow::Cow;

impl Network {
    /// Features of the output.
    pub(crate) fn outputs(&self) -> usize {
        self.layers.iter().fold(self.inputs, |features, (_, layer)| layer.outputs(features))
    }

    /// The linear or convolutional layer of this name, or whose weight has it.
    fn affine(&self, name: &str) -> Result<&Affine> {
        let found = self.affines().find(|(_, n, _)| *n == layer_name(name));
        let known = || self.affines().map(|(_, n, _)| n);
        found.map(|(.., affine)| affine).ok_or_else(|| Error::unknown_layer(name, known()))
    }
}

/// The linear and convolutional layers, in the order of [`Network::affines`].
impl Layers for Network {
    fn layers(&self) -> Vec<LayerInfo> {
        let one = |(_, name, a): (usize, &str, &Affine)| {
            let kernel = if let Map::Conv2d(conv) = &a.map { Some(conv.kernel) } else { None };
            LayerInfo { kernel, positions: a.map.positions(), ..LayerInfo::linear(name, a.map.weight_dim()) }
        };
        self.affines().map(one).collect()
    }

    fn read(&self, name: &str) -> Result<CowArray<'_, f32, Ix2>> {
        Ok(self.affine(name)?.weight.value().view().into())
    }

    fn mask(&self, name: &str) -> Result<Option<Cow<'_, Mask>>> {
        Ok(self.affine(name)?.weight.mask().map(Cow::Borrowed))
    }

    fn write(&mut self, name: &str, pruned: Pruned) -> Result<()> {
        pruned.check(name, self.affine(name)?.map.weight_dim())?;
        let param = self.param_mut(&format!("{}.weight", layer_name(name)))?;
        param.clear_mask();
        param.set_value(pruned.weight)?;
        param.set_mask(pruned.mask)
    }
}

/// Run on samples `(batch, inputs)`; a row of outputs is a sample.
impl Model for Network {
    type Batch = Array2<f32>;
    type Tape = Tape;

    fn forward(&self, batch: &Array2<f32>, mode: Mode, observer: &mut dyn Observer) -> Result<Tape> {
        if batch.ncols() != self.inputs {
            let found = [batch.nrows(), batch.ncols()];
            return Err(Error::shape("samples (samples, inputs)", &[batch.nrows(), self.inputs], &found));
        }
        let tape = self.run(batch.clone(), mode);
        if observer.is_watching() {
            for (i, name, a) in self.affines() {
                match &a.map {
                    Map::Linear { .. } => observer.see(&[name], tape.input(i)),
                    Map::Conv2d(_) => observer.see(&[name], &a.map.patches(tape.input(i))),
                }
            }
        }
        Ok(tape)
    }

    fn backward(&self, tape: Tape, objective: &dyn Objective, rows: &[usize], sink: &mut Sink<'_>) -> Result<f64> {
        let mut d = tape.output().clone();
        let count = check_rows(objective, rows, d.dim())?;
        check_taps(objective, self.layers.len())?;
        if count == 0 {
            return Err(Error::invalid_option("objective", "has nothing to learn in these rows"));
        }
        let mut pass = Learning { gradient: Gradient::default(), objective, rows, count, loss: 0.0 };
        pass.loss = objective.loss(rows, &mut d, count);
        self.walk_back(&tape, d, &mut pass);
        // Layers before the first that has parameters are not walked: what they lose counts, though it moves nothing.
        for &layer in objective.taps().iter().filter(|layer| **layer < self.first()) {
            let hidden = &tape.values[layer + 1];
            pass.loss += objective.hidden_loss(layer, rows, hidden, &mut Array2::zeros(hidden.dim()), count);
        }
        let gradients = pass.gradient.in_order();
        self.params().into_iter().zip(gradients).for_each(|((name, _), gradient)| sink(&name, gradient.into_dyn()));
        Ok(pass.loss)
    }

    fn absorb(&mut self, tape: &Tape) {
        self.absorb_statistics(tape);
    }

    fn widths(&self) -> Option<(usize, usize)> {
        Some((self.inputs, self.outputs()))
    }

    fn check_finite(&self) -> Result<()> {
        for (name, layer) in self.layers() {
            let column = |values: &[f32]| Array2::from_shape_fn((values.len(), 1), |(i, _)| values[i]);
            let averages = match layer {
                Layer::BatchNorm(b) => vec![("running mean", column(&b.mean)), ("running variance", column(&b.variance))],
                _ => vec![],
            };
            let params = layer.params().into_iter().map(|(what, p)| (what, p.value()));
            let mut all = params.chain(averages.iter().map(|(what, v)| (*what, v)));
            all.try_for_each(|(what, values)| check_finite(values, what)).map_err(|e| e.in_layer(name))?;
        }
        Ok(())
    }

    fn sample_gradients(&self, batch: &Array2<f32>, objective: &dyn Objective, rows: &[usize]) -> Result<Option<Array2<f32>>> {
        // With hidden states to learn there are losses inside, which only the way back of each sample alone has.
        if !objective.taps().is_empty() {
            return Ok(None);
        }
        check_rows(objective, rows, (batch.nrows(), self.outputs()))?;
        let tape = self.run(batch.clone(), Mode::Eval);
        let mut d = tape.output().clone();
        objective.loss(rows, &mut d, 1);
        Ok(Some(Network::sample_gradients(self, &tape, d)))
    }

    fn squared_gradients(&self, batch: &Array2<f32>, objective: &dyn Objective, rows: &[usize]) -> Result<Option<Gradients>> {
        // With hidden states to learn there are losses inside, which only the way back of each sample alone has.
        if !objective.taps().is_empty() {
            return Ok(None);
        }
        check_rows(objective, rows, (batch.nrows(), self.outputs()))?;
        let tape = self.run(batch.clone(), Mode::Eval);
        let mut d = tape.output().clone();
        objective.loss(rows, &mut d, 1);
        Ok(Some(self.named(self.squares(&tape, d))))
    }

    fn second_derivatives(
        &self,
        batch: &Array2<f32>,
        objective: &dyn Objective,
        rows: &[usize],
        curvature: Curvature,
    ) -> Result<Option<Gradients>> {
        let (loss, target) = targets(objective, rows, Need::SecondDerivatives)?;
        Ok(Some(self.named(self.curvature(batch, &target, loss, curvature))))
    }

    fn hessian_times(
        &self,
        batch: &Array2<f32>,
        objective: &dyn Objective,
        rows: &[usize],
        direction: &Gradients,
    ) -> Result<Option<Gradients>> {
        let (loss, target) = targets(objective, rows, Need::HessianGradient)?;
        let part = |(name, param): (String, &super::Param)| {
            let missing = || Error::unknown_layer(&name, direction.iter().map(|(n, _)| n));
            let along = direction.get(&name).ok_or_else(missing)?;
            let found = along.shape().to_vec();
            let matrix = along.to_shape(param.value().dim()).map_err(|_| Error::shape(&name, param.shape(), &found))?;
            Ok(matrix.into_owned())
        };
        let along = self.params().into_iter().map(part).collect::<Result<Vec<_>>>()?;
        Ok(Some(self.named(Network::hessian_times(self, batch, &target, loss, &along))))
    }

    fn synaptic_flow(&self) -> Option<Vec<Array2<f32>>> {
        Some(Network::synaptic_flow(self))
    }
}

/// The loss, and the targets of these rows.
fn targets(objective: &dyn Objective, rows: &[usize], need: Need) -> Result<(Loss, Array2<f32>)> {
    let unknown = || Error::unsupported(need.to_string(), "is known of losses on targets alone, not of another objective");
    let (loss, target) = objective.targets().filter(|_| objective.taps().is_empty()).ok_or_else(unknown)?;
    Ok((loss, target.select(Axis(0), rows)))
}

/// Gradients, with those of hidden states added where they are learnt.
struct Learning<'a> {
    gradient: Gradient,
    objective: &'a dyn Objective,
    rows: &'a [usize],
    count: usize,
    loss: f64,
}

impl Pass for Learning<'_> {
    fn affine(&mut self, at: &At<'_>, a: &Affine, d: &Array2<f32>) {
        self.gradient.affine(at, a, d);
    }

    fn norm(&mut self, at: &At<'_>, b: &BatchNorm, d: &Array2<f32>, gradient: [Array2<f32>; 2]) {
        self.gradient.norm(at, b, d, gradient);
    }

    fn pact(&mut self, at: &At<'_>, p: &Pact, d: &Array2<f32>) {
        self.gradient.pact(at, p, d);
    }

    fn hidden(&mut self, layer: usize, y: &Array2<f32>, d: &mut Array2<f32>) {
        if self.objective.taps().contains(&layer) {
            self.loss += self.objective.hidden_loss(layer, self.rows, y, d, self.count);
        }
    }
}
