//! Networks as a subject: chains of layers, and other models that run on arrays.

use super::subject::{Metric, Subject};
use crate::Result;
use crate::calibrate::{Calibration, measure};
use crate::criteria::{Measured, Needs};
use crate::eval::score;
use crate::nn::{Curvature, Layers, Loss, Model, Network};
use crate::rng::Seed;
use crate::solve::Pruned;
use ndarray::{ArcArray2, Array2};
use std::borrow::Cow;
use std::fmt;

/// A trained network of one seed with the samples that it is measured and judged on. The arrays are shared, so that seeds may have the
/// same samples without copies of them.
#[derive(Debug, Clone)]
pub struct Trained<M = Network> {
    /// The dense network.
    pub network: M,
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

impl<M> Trained<M> {
    /// With the Gauss-Newton curvature, and gradients of single samples.
    pub fn new<C: Into<ArcArray2<f32>>, T: Into<ArcArray2<f32>>>(
        network: M,
        calibration: (C, C),
        test: (T, T),
        loss: Loss,
    ) -> Self {
        let calibration = (calibration.0.into(), calibration.1.into());
        let test = (test.0.into(), test.1.into());
        Trained { network, calibration, test, loss, curvature: Curvature::default(), minibatch: 1 }
    }
}

type Train<'a, M> = Box<dyn Fn(Seed) -> Result<Trained<M>> + Sync + 'a>;
type Recover<'a, M> = Box<dyn Fn(&mut M, &Trained<M>, Seed) -> Result<()> + Sync + 'a>;
type Judge<'a, M> = Box<dyn Fn(&M, &Trained<M>) -> Result<Vec<f64>> + Sync + 'a>;

/// Networks as a [`Subject`]: trained for each seed, measured on their calibration samples, judged on their test samples, at once after
/// pruning or after recovery.
///
/// [`Networks::new`] takes chains of layers and judges them by accuracy in % and loss; [`Networks::judged_by`] any [`Model`] that runs on samples
/// `(samples, inputs)`. The example of [`Compare`](super::Compare) shows one.
pub struct Networks<'a, M = Network> {
    train: Train<'a, M>,
    recover: Option<Recover<'a, M>>,
    metrics: Vec<Metric>,
    judge: Judge<'a, M>,
}

impl<M> fmt::Debug for Networks<'_, M> {
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
        Networks::judged_by(train, [Metric::larger("accuracy, %"), Metric::smaller("loss")], judge)
    }
}

impl<'a, M> Networks<'a, M> {
    /// `train` gives the dense model of a seed, `judge` one number for each metric, of the dense model or of what pruning left of it.
    pub fn judged_by(
        train: impl Fn(Seed) -> Result<Trained<M>> + Sync + 'a,
        metrics: impl IntoIterator<Item = Metric>,
        judge: impl Fn(&M, &Trained<M>) -> Result<Vec<f64>> + Sync + 'a,
    ) -> Self {
        Networks { train: Box::new(train), recover: None, metrics: metrics.into_iter().collect(), judge: Box::new(judge) }
    }

    /// Trains what is pruned before it is judged: `recover` gets the pruned network, whose masks are held, the dense one with its samples, and
    /// the seed. The dense network is judged as it is.
    pub fn recover(mut self, recover: impl Fn(&mut M, &Trained<M>, Seed) -> Result<()> + Sync + 'a) -> Self {
        self.recover = Some(Box::new(recover));
        self
    }

    /// Judges by other metrics than accuracy and loss on the test samples: `judge` gives one number for each.
    pub fn judge(
        mut self,
        metrics: impl IntoIterator<Item = Metric>,
        judge: impl Fn(&M, &Trained<M>) -> Result<Vec<f64>> + Sync + 'a,
    ) -> Self {
        self.metrics = metrics.into_iter().collect();
        self.judge = Box::new(judge);
        self
    }
}

impl<M> Subject for Networks<'_, M>
where
    M: Model<Batch = Array2<f32>> + Clone + Send + Sync,
{
    type Model = Trained<M>;

    fn metrics(&self) -> Vec<Metric> {
        self.metrics.clone()
    }

    fn model(&self, seed: Seed) -> Result<Trained<M>> {
        (self.train)(seed)
    }

    fn layers<'m>(&self, model: &'m Trained<M>) -> &'m dyn Layers {
        &model.network
    }

    fn measure<'m>(&self, model: &'m Trained<M>, needs: Needs) -> Result<Cow<'m, [Measured]>> {
        let (x, target) = &model.calibration;
        let (curvature, minibatch) = (model.curvature, model.minibatch);
        let calibration = Calibration { curvature, minibatch, ..Calibration::new(x, target, model.loss) };
        measure(&model.network, &calibration, needs).map(Cow::Owned)
    }

    fn judge(&self, model: &Trained<M>, seed: Seed, pruned: &[(String, Pruned)]) -> Result<Vec<f64>> {
        if pruned.is_empty() {
            return (self.judge)(&model.network, model);
        }
        let mut network = model.network.clone();
        pruned.iter().try_for_each(|(name, pruned)| network.write(name, pruned.clone()))?;
        if let Some(recover) = &self.recover {
            recover(&mut network, model, seed)?;
        }
        (self.judge)(&network, model)
    }
}
