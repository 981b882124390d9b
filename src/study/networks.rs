//! Networks of this library as a subject.

use super::subject::{Metric, Subject};
use crate::Result;
use crate::allocate::Layer;
use crate::calibrate::{Calibration, measure};
use crate::criteria::{Measured, Needs};
use crate::eval::score;
use crate::mask::Mask;
use crate::nn::{Affine, Curvature, Loss, Map, Network};
use crate::rng::Seed;
use crate::solve::Pruned;
use ndarray::ArcArray2;
use std::fmt;

/// A trained network of one seed with the samples that it is measured and judged on. The arrays are shared, so that seeds may have the
/// same samples without copies of them.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The dense network.
    pub network: Network,
    /// Samples `(samples, inputs)` and targets `(samples, outputs)` on which criteria are measured.
    pub calibration: (ArcArray2<f32>, ArcArray2<f32>),
    /// Samples and targets on which it is judged.
    pub test: (ArcArray2<f32>, ArcArray2<f32>),
    /// Whose derivatives are measured, and which is judged.
    pub loss: Loss,
    /// Which second derivatives are measured.
    pub curvature: Curvature,
    /// Samples whose gradients are averaged into one row of gradients.
    pub minibatch: usize,
}

impl Trained {
    /// With the Gauss-Newton curvature, and gradients of single samples.
    pub fn new<C: Into<ArcArray2<f32>>, T: Into<ArcArray2<f32>>>(
        network: Network,
        calibration: (C, C),
        test: (T, T),
        loss: Loss,
    ) -> Self {
        let calibration = (calibration.0.into(), calibration.1.into());
        let test = (test.0.into(), test.1.into());
        Trained { network, calibration, test, loss, curvature: Curvature::default(), minibatch: 1 }
    }

    fn affine(&self, layer: usize) -> Option<(&str, &Affine)> {
        self.network.affines().nth(layer).map(|(_, name, affine)| (name, affine))
    }
}

type Train<'a> = Box<dyn Fn(Seed) -> Result<Trained> + Sync + 'a>;
type Recover<'a> = Box<dyn Fn(&mut Network, &Trained, Seed) -> Result<()> + Sync + 'a>;
type Judge<'a> = Box<dyn Fn(&Network, &Trained) -> Result<Vec<f64>> + Sync + 'a>;

/// Networks as a [`Subject`]: trained for each seed, measured on their calibration samples, judged by accuracy in % and loss on their test
/// samples, at once after pruning or after recovery.
///
/// The example of [`Compare`](super::Compare) shows one.
pub struct Networks<'a> {
    train: Train<'a>,
    recover: Option<Recover<'a>>,
    metrics: Vec<Metric>,
    judge: Judge<'a>,
}

impl fmt::Debug for Networks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Networks").field("recover", &self.recover.is_some()).field("metrics", &self.metrics).finish()
    }
}

impl<'a> Networks<'a> {
    /// `train` gives the dense network of a seed.
    pub fn new(train: impl Fn(Seed) -> Result<Trained> + Sync + 'a) -> Self {
        let judge = |network: &Network, of: &Trained| {
            let score = score(network, &of.test.0, &of.test.1, of.loss);
            Ok(vec![100.0 * score.accuracy, score.loss])
        };
        let metrics = vec![Metric::larger("accuracy, %"), Metric::smaller("loss")];
        Networks { train: Box::new(train), recover: None, metrics, judge: Box::new(judge) }
    }

    /// Trains what is pruned before it is judged: `recover` gets the pruned network, whose masks are held, the dense one with its samples, and
    /// the seed. The dense network is judged as it is.
    pub fn recover(mut self, recover: impl Fn(&mut Network, &Trained, Seed) -> Result<()> + Sync + 'a) -> Self {
        self.recover = Some(Box::new(recover));
        self
    }

    /// Judges by other metrics than accuracy and loss on the test samples: `judge` gives one number for each.
    pub fn judge(
        mut self,
        metrics: impl IntoIterator<Item = Metric>,
        judge: impl Fn(&Network, &Trained) -> Result<Vec<f64>> + Sync + 'a,
    ) -> Self {
        self.metrics = metrics.into_iter().collect();
        self.judge = Box::new(judge);
        self
    }
}

impl Subject for Networks<'_> {
    type Model = Trained;

    fn metrics(&self) -> Vec<Metric> {
        self.metrics.clone()
    }

    fn model(&self, seed: Seed) -> Result<Trained> {
        (self.train)(seed)
    }

    fn layers<'m>(&self, model: &'m Trained) -> Vec<Layer<'m>> {
        let layer = |(_, name, a): (usize, &'m str, &'m Affine)| {
            let kernel = if let Map::Conv2d(c) = &a.map { Some(c.kernel) } else { None };
            Layer { kernel, positions: a.map.positions(), ..Layer::linear(name, a.weight.value()) }
        };
        model.network.affines().map(layer).collect()
    }

    fn mask<'m>(&self, model: &'m Trained, layer: usize) -> Option<&'m Mask> {
        model.affine(layer).and_then(|(_, a)| a.weight.mask())
    }

    fn measure(&self, model: &Trained, needs: Needs) -> Result<Vec<Measured>> {
        let (x, target) = &model.calibration;
        let (curvature, minibatch) = (model.curvature, model.minibatch);
        measure(&model.network, &Calibration { curvature, minibatch, ..Calibration::new(x, target, model.loss) }, needs)
    }

    fn judge(&self, model: &Trained, seed: Seed, pruned: &[(usize, Pruned)]) -> Result<Vec<f64>> {
        if pruned.is_empty() {
            return (self.judge)(&model.network, model);
        }
        let mut network = model.network.clone();
        for (layer, pruned) in pruned {
            let Some((name, _)) = model.affine(*layer) else { continue };
            let param = network.param_mut(&format!("{name}.weight"))?;
            param.set_value(pruned.weight.clone())?;
            param.set_mask(pruned.mask.clone())?;
        }
        if let Some(recover) = &self.recover {
            recover(&mut network, model, seed)?;
        }
        (self.judge)(&network, model)
    }
}
