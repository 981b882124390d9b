//! Budgets chosen among layers pruned at several levels: the allocations `sensitivity`, `dynamic` and `evolve`.

use super::event::{Event, Stage};
use super::methods::Kind;
use super::settings::PruneJob;
use crate::allocate::Evolution;
use crate::data::Sequences;
use crate::io::Folder;
use crate::lm::Config;
use crate::mask::Budget;
use crate::prune::{LanguageLayer, LevelSettings, Levels};
use crate::rng::Seed;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// What is told of a run, and answers whether it goes on.
pub(super) type Watch<'w> = dyn FnMut(&Event) -> ControlFlow<()> + 'w;

/// Tells how far a part of the run is.
pub(super) fn progress(watch: &mut Watch<'_>, stage: Stage, done: usize, of: usize) -> ControlFlow<()> {
    watch(&Event::Progress { stage, done, of, memory: None })
}

/// The budget of each layer, by name.
pub(super) type Budgets = HashMap<String, Budget>;

/// The model that is searched on.
#[derive(Clone, Copy)]
pub(super) struct Model<'a> {
    pub folder: &'a Folder,
    pub config: &'a Config,
    pub calibration: &'a Sequences,
    /// The layers that are pruned.
    pub layers: &'a [LanguageLayer],
}

impl PruneJob {
    /// The levels asked for, or seven around the sparsity, the widest half as far away as the nearer end of [0, 1].
    fn sparsities(&self, sparsity: f64) -> Vec<f64> {
        if !self.levels.is_empty() {
            return self.levels.clone();
        }
        let step = 0.15 * sparsity.min(1.0 - sparsity);
        // Six digits, so that the record shows no rounding of sums.
        (-3..=3).map(|k| ((sparsity + f64::from(k) * step) * 1e6).round() / 1e6).collect()
    }

    /// Budgets of the layers by a search, and what it found, for the record.
    ///
    /// # Errors
    /// What the search refuses, and a sparsity that the levels cannot reach.
    pub(super) fn search(
        &self,
        kind: &Kind,
        model: Model<'_>,
        settings: LevelSettings<'_>,
        sparsity: f64,
        watch: &mut Watch<'_>,
    ) -> Result<(Budgets, Value)> {
        let Model { folder, config, calibration, layers } = model;
        let compared = calibration.first(self.search_tokens)?;
        if compared.length() < 2 {
            return Err(Error::invalid_option("search-tokens", format!("{} tokens have none to predict", self.search_tokens)));
        }
        let sparsities = self.sparsities(sparsity);
        let settings = LevelSettings { sparsities: &sparsities, cost: self.cost, ..settings };
        let see = |done, of| progress(watch, Stage::Levels, done, of);
        let levels = Levels::build(folder, config, calibration, layers, &settings, see)?;
        let budget = ((1.0 - sparsity) * levels.dense_cost() as f64).round() as u64;
        let names: Vec<&str> = layers.iter().map(|l| l.name.as_str()).collect();
        let mut found =
            json!({"layers": names, "unit": self.cost, "budget": budget, "dense": levels.dense_cost(), "levels": levels.table()});
        let choice = match kind {
            Kind::Sensitivity => {
                let losses = levels.sensitivities(&compared, |done, of| progress(watch, Stage::Sensitivity, done, of))?;
                let choice = levels.by_losses(&losses, budget)?;
                found["losses"] = json!(losses);
                choice
            }
            Kind::Evolve => {
                let search = Evolution { generations: self.generations, offspring: self.offspring, seed: Seed(self.seed) };
                let of = layers.len() + search.generations * search.offspring;
                let see = |done, _| progress(watch, Stage::Evolution, done, of);
                let (choice, after, before) = levels.evolved(&compared, budget, search, see)?;
                found["divergence"] = json!({"start": before, "end": after});
                choice
            }
            Kind::Layers(_) | Kind::Outliers | Kind::Dynamic => levels.by_error(budget)?,
        };
        found["chosen"] = json!(choice);
        found["cost"] = json!(levels.cost(&choice));
        Ok((levels.budgets(&choice), found))
    }
}
