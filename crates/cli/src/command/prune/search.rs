//! `lacuna prune DIR OUT --allocate sensitivity|dynamic|evolve`: budgets chosen among layers pruned at several levels.

use super::args::{Allocation, Args, CostArg, Search};
use crate::command::model::bar;
use clap::ValueEnum;
use lacuna::allocate::Evolution;
use lacuna::data::Sequences;
use lacuna::io::Folder;
use lacuna::lm::Config;
use lacuna::mask::Budget;
use lacuna::prune::{Cost, LanguageLayer, LevelSettings, Levels};
use lacuna::rng::Seed;
use lacuna::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Choices that a search is asked to try and that are no slip.
const TRIED: usize = 100_000_000;

impl Search {
    /// Refuses what only a search has a use for, where none was asked for.
    pub fn refuse(&self, allocation: Allocation) -> Result<()> {
        let option = if self.levels.is_empty() { "cost" } else { "levels" };
        let given = !self.levels.is_empty() || self.cost != CostArg::Weights;
        if given && !allocation.searches() {
            return Err(Error::setting(option, "is for --allocate sensitivity, dynamic or evolve"));
        }
        Ok(())
    }

    /// Refuses numbers outside their domain, where something is searched.
    pub fn check(&self, args: &Args) -> Result<()> {
        if !args.allocate.searches() {
            return Ok(());
        }
        if self.search_tokens < 2 {
            return Err(Error::setting("search-tokens", format!("{} tokens have none to predict", self.search_tokens)));
        }
        if let Some(bad) = self.levels.iter().find(|s| !(**s > 0.0 && **s < 1.0)) {
            return Err(Error::setting("levels", format!("{bad}: {:?} are not sparsities between 0 and 1", self.levels)));
        }
        if self.levels.len() > 255 {
            return Err(Error::setting("levels", format!("{} sparsities; at most 255 are searched", self.levels.len())));
        }
        match self.generations.checked_mul(self.offspring).filter(|n| *n <= TRIED) {
            Some(_) => Ok(()),
            None => {
                let reason =
                    format!("{} of {} offspring each; at most {TRIED} choices are tried", self.generations, self.offspring);
                Err(Error::setting("generations", reason))
            }
        }
    }

    /// The options of a search, by their names as they are typed.
    pub fn options(&self, allocation: Allocation) -> Map<String, Value> {
        let evolves = allocation == Allocation::Evolve;
        let judges = evolves || allocation == Allocation::Sensitivity;
        let all = [
            ("--levels", allocation.searches(), json!(self.levels)),
            ("--cost", allocation.searches(), json!(self.cost())),
            ("--search-tokens", judges, json!(self.search_tokens)),
            ("--generations", evolves, json!(self.generations)),
            ("--offspring", evolves, json!(self.offspring)),
        ];
        all.into_iter().filter(|(_, matters, _)| *matters).map(|(name, _, value)| (name.to_string(), value)).collect()
    }

    /// What a run is told apart by from one that searched otherwise.
    pub fn described(&self, allocation: Allocation) -> Value {
        if !allocation.searches() {
            return Value::Null;
        }
        json!({
            "allocate": allocation.to_possible_value().map(|v| v.get_name().to_string()), "cost": self.cost(), "levels": self.levels,
            "tokens": self.search_tokens, "generations": self.generations, "offspring": self.offspring,
        })
    }

    fn cost(&self) -> Cost {
        match self.cost {
            CostArg::Weights => Cost::Weights,
            CostArg::Bytes => Cost::Bytes,
            CostArg::Time => Cost::Time,
        }
    }

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
    pub fn run(
        &self,
        args: &Args,
        (folder, config): (&Folder, &Config),
        calibration: &Sequences,
        layers: &[LanguageLayer],
        (settings, sparsity): (LevelSettings<'_>, f64),
    ) -> Result<(HashMap<String, Budget>, Value)> {
        let judged = calibration.first(self.search_tokens)?;
        if judged.length() < 2 {
            return Err(Error::setting("search-tokens", format!("{} tokens have none to predict", self.search_tokens)));
        }
        let sparsities = self.sparsities(sparsity);
        let settings = LevelSettings { sparsities: &sparsities, cost: self.cost(), ..settings };
        let progress = bar(config.layers(), "levels");
        let levels = Levels::build(folder, config, calibration, layers, &settings, |done, of| {
            progress.set_length(of as u64);
            progress.set_position(done as u64);
            ControlFlow::Continue(())
        });
        progress.finish_and_clear();
        let levels = levels?;
        let budget = ((1.0 - sparsity) * levels.dense_cost() as f64).round() as u64;
        let names: Vec<&str> = layers.iter().map(|l| l.name.as_str()).collect();
        let mut found = json!({"layers": names, "unit": self.cost(), "budget": budget, "dense": levels.dense_cost(), "levels": levels.table()});
        let choice = match args.allocate {
            Allocation::Sensitivity => {
                let progress = bar(layers.len(), "sensitivity");
                let losses = levels.sensitivities(&judged, |done, _| {
                    progress.set_position(done as u64);
                    ControlFlow::Continue(())
                });
                progress.finish_and_clear();
                let losses = losses?;
                let choice = levels.by_losses(&losses, budget)?;
                found["losses"] = json!(losses);
                choice
            }
            Allocation::Evolve => {
                let search = Evolution { generations: self.generations, offspring: self.offspring, seed: Seed(args.seed) };
                let progress = bar(layers.len() + search.generations * search.offspring, "evolution");
                let evolved = levels.evolved(&judged, budget, search, |done, _| {
                    progress.set_position(done as u64);
                    ControlFlow::Continue(())
                });
                progress.finish_and_clear();
                let (choice, after, before) = evolved?;
                found["divergence"] = json!({"start": before, "end": after});
                choice
            }
            _ => levels.by_error(budget)?,
        };
        found["chosen"] = json!(choice);
        found["cost"] = json!(levels.cost(&choice));
        Ok((levels.budgets(&choice), found))
    }
}
