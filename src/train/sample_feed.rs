//! Samples in epochs, for a [`Trainer`] of any model.

use super::rate::{Cooldown, LearningRate};
use super::steps::check_training;
use super::trainable::Trainable;
use super::trainer::{Feed, Pass, Trainer};
use super::{Decay, TrainConfig};
use crate::nn::{Model, Optimizer, Samples};
use crate::rng::{Seed, Stream};
use crate::{Error, Result};

/// Samples in a new random order each epoch, `batch` a step, of which the last of an epoch may have fewer.
#[derive(Debug)]
pub struct SampleFeed<'a, S> {
    data: &'a S,
    batch: usize,
    random: Stream,
    /// The orders of the epochs that were asked for.
    orders: Vec<Vec<usize>>,
}

impl<'a, S: Samples> SampleFeed<'a, S> {
    /// The orders are those of [`train_model`](super::train_model) with this seed.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if there are no samples, or the batch is 0.
    pub fn new(data: &'a S, batch: usize, seed: Seed) -> Result<SampleFeed<'a, S>> {
        if data.is_empty() || batch == 0 {
            return Err(Error::invalid_option("training", format!("{} samples in batches of {batch}", data.len())));
        }
        Ok(SampleFeed { data, batch, random: seed.stream("order of samples"), orders: Vec::new() })
    }

    /// Steps of an epoch.
    pub fn steps(&self) -> usize {
        self.data.len().div_ceil(self.batch)
    }

    /// The samples of a step, which counts from 0.
    pub fn samples(&mut self, step: usize) -> &[usize] {
        let (epoch, at) = (step / self.steps(), step % self.steps() * self.batch);
        while self.orders.len() <= epoch {
            self.orders.push(self.random.permutation(self.data.len()));
        }
        let order = &self.orders[epoch];
        &order[at..(at + self.batch).min(order.len())]
    }
}

impl<S: Samples> Feed for SampleFeed<'_, S> {
    type Batch = S::Batch;

    fn passes(&self) -> usize {
        1
    }

    fn count(&mut self, step: usize) -> usize {
        let data = self.data;
        data.objective().count(&data.rows(self.samples(step)))
    }

    fn pass(&mut self, step: usize, _: usize) -> Result<Pass<'_, S::Batch>> {
        let data = self.data;
        let samples = self.samples(step);
        Ok(Pass { batch: data.batch(samples), rows: data.rows(samples), objective: Box::new(data.objective()) })
    }

    fn describe(&mut self, step: usize) -> String {
        let (epoch, samples) = (step / self.steps(), self.samples(step));
        format!("{} samples of epoch {epoch}", samples.len())
    }
}

/// Trains what moves of a model by a config, as [`train_model`](super::train_model) trains all of one: the mean loss of each epoch. Factors of learnt steps have no
/// weight decay.
///
/// # Errors
/// As [`train_model`](super::train_model).
pub fn train_moving<M, S>(model: &mut Trainable<M>, data: &S, config: &TrainConfig) -> Result<Vec<f64>>
where
    M: Model,
    S: Samples<Batch = M::Batch>,
{
    check_training(model.model(), data, config)?;
    let mut feed = SampleFeed::new(data, config.batch, config.seed)?;
    let each = feed.steps();
    let cooldown = match config.decay {
        Decay::Constant => Cooldown::Constant,
        Decay::Linear => Cooldown::Linear,
        Decay::Cosine => Cooldown::Cosine,
    };
    let factors: Vec<String> = model.levels().iter().flat_map(|levels| levels.factor_names()).collect();
    let rate = LearningRate::new(f64::from(config.learning_rate)).cooldown(cooldown);
    let optimizer = Optimizer::new(config.method).without_decay(factors);
    let mut trainer = Trainer::new(optimizer, rate, each.saturating_mul(config.epochs), None);
    let mut losses = Vec::with_capacity(config.epochs);
    for epoch in 0..config.epochs {
        let (mut sum, mut count) = (0.0, 0);
        for step in epoch * each..(epoch + 1) * each {
            let rows = feed.count(step);
            sum += trainer.step(model, &mut feed)?.loss * rows as f64;
            count += rows;
        }
        losses.push(sum / count.max(1) as f64);
    }
    model.model().check_finite()?;
    Ok(losses)
}
