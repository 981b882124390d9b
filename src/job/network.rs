//! A job on a network in memory.

use super::check::{Plan, Subject};
use super::methods::{Kind, Methods};
use super::settings::PruneJob;
use crate::allocate::{Allocate, Layer, Overrides, Target};
use crate::calibrate::{Calibration, evidence, measure};
use crate::criteria::{Evidence, Magnitude, Saliency};
use crate::mask::{Budget, Pattern};
use crate::nn::{Map, Network};
use crate::prune::{Outcome, matches};
use crate::solve::lower;
use crate::{Error, Result};
use ndarray::Array2;

/// The settings that a network has no use for.
const OF_FOLDERS: [&str; 15] = [
    "calibration",
    "samples",
    "context",
    "inputs",
    "turn",
    "correct",
    "activations",
    "scratch",
    "save",
    "text",
    "windows",
    "bos",
    "levels",
    "cost",
    "search-tokens",
];

impl PruneJob {
    /// Prunes a network by the same settings: measures what the method needs on `data`, allocates, prunes every layer, and holds the masks. The
    /// network that is given stays as it was. A criterion prunes as [`one_shot`](crate::prune::one_shot) does; a pruner is given each layer's
    /// measures of the dense network.
    ///
    /// ```
    /// use lacuna::{calibrate::Calibration, job::{Methods, PruneJob}, models::{Init, mlp}, nn::{Activation, Loss}, rng::Seed};
    /// let net = mlp(&[4, 8, 2], Activation::Relu, Init::He, Seed(0))?;
    /// let (x, t) = (Seed(1).stream("x").normal_array(32, 4, 1.0), Seed(1).stream("t").normal_array(32, 2, 1.0));
    /// let job = PruneJob::new("sparsegpt").sparsity(0.5);
    /// let pruned = job.prune_network(&Methods::standard(), &net, &Calibration::new(&x, &t, Loss::SquaredError))?;
    /// assert_eq!(pruned.masks.iter().map(|(_, mask)| mask.kept()).collect::<Vec<_>>(), [16, 8]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// Settings outside their range, those of folders and files, allocations that need a folder; a name in `skip`, `only` or `layer` that matches
    /// no layer; those of measuring and of the method, naming the layer.
    pub fn prune_network(&self, methods: &Methods, network: &Network, data: &Calibration<'_>) -> Result<Outcome> {
        self.check_names(methods)?;
        self.check_ranges()?;
        if let Some(option) = self.changed().into_iter().find(|option| OF_FOLDERS.contains(option)) {
            return Err(Error::setting(option, "is for files: this job prunes a network in memory"));
        }
        let plan = Plan::new(self, methods, Subject::Network)?;
        let Kind::Layers(make) = &plan.allocation.kind else {
            return Err(Error::setting("allocate", format!("{} needs a model's folder", self.allocate)));
        };
        let allocate = Overrides { sparsity: self.layer.clone(), rest: make(self)? };
        let criterion = if self.reconstruct.is_none() { plan.method.make_criterion(self)? } else { None };
        let needs = plan.pruner.needs().union(plan.ranking.as_ref().map_or_else(Default::default, |r| r.needs()));
        let measured = measure(network, data, needs)?;
        let names: Vec<&str> = network.affines().map(|(_, name, _)| name).collect();
        for pattern in self.only.iter().chain(&self.skip) {
            if !names.iter().any(|name| matches(pattern, name)) {
                return Err(Error::unknown_layer(pattern, names.into_iter()));
            }
        }
        let wanted = |name: &str| {
            (self.only.is_empty() || self.only.iter().any(|p| matches(p, name))) && !self.skip.iter().any(|p| matches(p, name))
        };
        let layers: Vec<Evidence<'_>> =
            evidence(network, &measured).into_iter().filter(|e| wanted(e.layer) && !e.weight.is_empty()).collect();
        if layers.is_empty() {
            return Err(Error::setting("skip", "no layer is left to prune"));
        }
        let budgets = self.network_budgets(network, &layers, &plan, &allocate)?;

        let (mut pruned, mut masks, mut predicted) = (network.clone(), Vec::new(), 0.0);
        for (layer, budget) in layers.iter().zip(budgets) {
            let in_layer = |e: Error| if matches!(e, Error::Layer { .. }) { e } else { e.in_layer(layer.layer) };
            let found = plan.pruner.prune(layer, self.pattern, plan.scope, budget).map_err(in_layer)?;
            if let Some(criterion) = criterion.as_deref().filter(|c| c.predicts_loss()) {
                let (scores, before) = (criterion.score(layer).map_err(in_layer)?, layer.mask);
                let gone = before.map_or_else(|| found.mask.not(), |before| before.minus(&found.mask));
                predicted += gone.iter_kept().map(|(r, c)| f64::from(scores[[r, c]])).sum::<f64>();
            }
            let weight = pruned.param_mut(&format!("{}.weight", layer.layer))?;
            weight.set_value(found.weight)?;
            weight.set_mask(found.mask.clone())?;
            masks.push((layer.layer.to_string(), found.mask));
        }
        let predicts = criterion.is_some_and(|c| c.predicts_loss());
        Ok(Outcome { network: pruned, masks, predicted_increase: predicts.then_some(predicted) })
    }

    /// How much of each layer stays, in units of the pattern.
    fn network_budgets(
        &self,
        network: &Network,
        layers: &[Evidence<'_>],
        plan: &Plan<'_>,
        allocate: &dyn Allocate,
    ) -> Result<Vec<Budget>> {
        let units = |e: &Evidence<'_>| {
            let (rows, cols) = e.weight.dim();
            self.pattern.units(rows, cols).map_err(|error| error.in_layer(e.layer))
        };
        if let Pattern::Nm { n, m } = self.pattern {
            return layers.iter().map(|e| units(e).and_then(|u| Budget::new(u / m * n, u))).collect();
        }
        let score = |e: &Evidence<'_>| {
            let mut scores = match &plan.ranking {
                Some(ranking) => ranking.score(e)?,
                None => Magnitude::default().score(e)?,
            };
            if let Some(mask) = e.mask {
                lower(&mut scores, mask, self.pattern);
            }
            Ok(scores)
        };
        let scores: Vec<Array2<f32>> = match allocate.needs_scores() {
            true => layers.iter().map(|e| score(e).map_err(|error: Error| error.in_layer(e.layer))).collect::<Result<_>>()?,
            false => Vec::new(),
        };
        let seen = |(i, e): (usize, &Evidence<'_>)| {
            let map = network.affines().find(|(_, name, _)| *name == e.layer).map(|(_, _, affine)| &affine.map);
            let kernel = map.and_then(|m| if let Map::Conv2d(c) = m { Some(c.kernel) } else { None });
            (i, kernel, map.map_or(1, Map::positions))
        };
        let shapes: Vec<Layer<'_>> = layers
            .iter()
            .enumerate()
            .map(|(i, e)| {
                let (i, kernel, positions) = seen((i, e));
                Layer { name: e.layer, weight: e.weight, kernel, positions, scores: scores.get(i).map(|s| s.view()) }
            })
            .collect();
        let parts = Target::Sparsity(plan.sparsity).allocate(allocate, &shapes)?;
        let in_units = |(e, part): (&Evidence<'_>, Budget)| {
            let units = units(e)?;
            if part.of() == 0 {
                return Ok(Budget::all(0));
            }
            Budget::new((units as f64 * part.keep() as f64 / part.of() as f64).round() as usize, units)
        };
        layers.iter().zip(parts).map(in_units).collect()
    }
}
