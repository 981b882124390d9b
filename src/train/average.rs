//! A running average of weights, which is often a better model than the last one.
//!
//! Polyak and Juditsky. *Acceleration of stochastic approximation by averaging.* 1992; exponential, as in Tarvainen and Valpola. *Mean teachers.*
//! NeurIPS 2017, arXiv:1703.01780.
//!
//! ```text
//! a ← a + (1 − β_t) (w − a)        β_t = min(β, (1 + t) / (10 + t))  at step t, from 1
//! ```
//!
//! The smaller β of the first steps lets what the model began from fade. What a mask drops is 0 in every w, and so in a.

use crate::mask::Mask;
use crate::nn::{Change, Parameters, See};
use crate::{Error, Result};
use ndarray::ArrayView1;
use std::collections::BTreeMap;

/// The average of all numbers that move. As [`Parameters`], for saved states, they are `average/NAME`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightAverage {
    beta: f64,
    values: BTreeMap<String, Vec<f32>>,
}

impl WeightAverage {
    /// Begins at what the parameters are; `beta` in [0, 1) is how much of it stays in a step.
    ///
    /// ```
    /// use lacuna::models::{Init, mlp};
    /// use lacuna::{nn::{Activation, Parameters}, rng::Seed, train::WeightAverage};
    /// let mut net = mlp(&[1, 1], Activation::Tanh, Init::LeCun, Seed(0))?;
    /// net.visit_mut(&mut |_, values, _| values.fill(1.0))?;
    /// let mut average = WeightAverage::new(0.9, &net)?;
    /// net.visit_mut(&mut |_, values, _| values.fill(2.0))?;
    /// average.update(&net, 1);
    /// average.swap(&mut net)?;
    /// net.visit(&mut |_, values, _| assert!(values.iter().all(|v| (v - (1.0 + 9.0 / 11.0)).abs() < 1e-6)));
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `beta` is not in [0, 1).
    pub fn new(beta: f64, parameters: &dyn Parameters) -> Result<WeightAverage> {
        if !(0.0..1.0).contains(&beta) {
            return Err(Error::invalid_option("average", format!("{beta} is not in [0, 1); 0.99 is usual")));
        }
        let mut values = BTreeMap::new();
        parameters.visit(&mut |name, v, _| {
            values.insert(format!("average/{name}"), v.iter().copied().collect());
        });
        Ok(WeightAverage { beta, values })
    }

    /// Goes on with the parameters as they are after `step` steps.
    pub fn update(&mut self, parameters: &dyn Parameters, step: usize) {
        let t = step as f64;
        let rest = 1.0 - self.beta.min((1.0 + t) / (10.0 + t));
        parameters.visit(&mut |name, v, _| {
            if let Some(average) = self.values.get_mut(&format!("average/{name}")) {
                average.iter_mut().zip(v).for_each(|(a, w)| *a += (rest * f64::from(w - *a)) as f32);
            }
        });
    }

    /// Exchanges the average and the parameters; a second call puts both back.
    ///
    /// # Errors
    /// If a weight cannot be changed where it is stored.
    pub fn swap(&mut self, parameters: &mut dyn Parameters) -> Result<()> {
        parameters.visit_mut(&mut |name, v, _| {
            if let Some(average) = self.values.get_mut(&format!("average/{name}")) {
                average.iter_mut().zip(v).for_each(|(a, w)| std::mem::swap(a, w));
            }
        })
    }
}

impl Parameters for WeightAverage {
    fn visit(&self, f: &mut See<'_>) {
        self.values.iter().for_each(|(name, v)| f(name, ArrayView1::from(v).into_dyn(), None));
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.values.iter_mut().for_each(|(name, v)| f(name, v, None));
        Ok(())
    }

    /// # Errors
    /// Always: masks are held on the model.
    fn set_mask(&mut self, name: &str, _: Option<Mask>) -> Result<()> {
        Err(Error::invalid_option("mask", format!("{name}: masks are held on the model, not on its average")))
    }
}
