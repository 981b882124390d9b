//! A job on a model in memory.

use super::check::{Plan, Subject, each_once};
use super::methods::Methods;
use super::settings::PruneJob;
use crate::allocate::{Allocate, Overrides, Target};
use crate::calibrate::{LayerWeights, measure};
use crate::criteria::{Magnitude, Measured, Needs};
use crate::nn::{LayerInfo, Layers, Model, Samples, find_layer};
use crate::prune::{Outcome, Pruning, check_pruning, matches, prune_layers_by};
use crate::solve::Pruned;
use crate::{Error, Result};

/// What must be measured of a model in memory.
fn needs(plan: &Plan<'_>) -> Needs {
    plan.pruner.needs().union(plan.ranking.as_ref().map_or_else(Needs::none, |ranking| ranking.needs()))
}

/// The settings that a model in memory has no use for.
const OF_FOLDERS: [&str; 20] = [
    "calibration",
    "samples",
    "context",
    "inputs",
    "turn",
    "correct",
    "select",
    "shrinkage",
    "robust",
    "choose",
    "hold-out",
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
    /// Prunes a model in memory by the same settings, a chain of layers, a language model or one of your own: measures what the method needs
    /// on `data`, allocates, prunes every layer, and holds the masks. The model that is given stays as it was. A criterion prunes as
    /// [`one_shot`](crate::prune::one_shot) does; a pruner is given each layer's measures of the dense model.
    ///
    /// ```
    /// use lacuna::{calibrate::Calibration, job::{Methods, PruneJob}, models::{Init, mlp}, nn::{Activation, Loss}, rng::Seed};
    /// let net = mlp(&[4, 8, 2], Activation::Relu, Init::He, Seed(0))?;
    /// let (x, t) = (Seed(1).stream("x").normal_array(32, 4, 1.0), Seed(1).stream("t").normal_array(32, 2, 1.0));
    /// let job = PruneJob::new("sparsegpt").sparsity(0.5);
    /// let pruned = job.prune_model(&Methods::standard(), &net, &Calibration::new(&x, &t, Loss::SquaredError))?;
    /// assert_eq!(pruned.masks.iter().map(|(_, mask)| mask.kept()).collect::<Vec<_>>(), [16, 8]);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// Settings outside their range, those of folders and files, allocations that need a folder; a name in `skip`, `only` or `layer` that matches
    /// no layer; those of measuring and of the method, naming the layer.
    pub fn prune_model<M, S>(&self, methods: &Methods, model: &M, data: &S) -> Result<Outcome<M>>
    where
        M: Model + Clone,
        S: Samples<Batch = M::Batch>,
    {
        let plan = self.plan_in_memory(methods)?;
        let layers = model.layers();
        let (skip, allocate) = (self.left_alone(&layers)?, self.divided(&plan, &layers)?);
        let magnitude = Magnitude::default();
        let pruning = Pruning {
            saliency: plan.ranking.as_deref().unwrap_or(&magnitude),
            allocate: &allocate,
            target: Target::Sparsity(plan.sparsity),
            pattern: self.pattern,
            scope: plan.scope,
            skip: &skip,
        };
        check_pruning(model, &pruning)?;
        let measured = measure(model, data, needs(&plan))?;
        let mut pruned = model.clone();
        let results = prune_layers_by(&mut pruned, &measured, plan.pruner.as_ref(), &pruning)?;
        let predicted_increase = self.predicted(&plan, model, &measured, &results)?;
        let masks = results.into_iter().map(|(name, pruned)| (name, pruned.mask)).collect();
        Ok(Outcome { model: pruned, masks, predicted_increase })
    }

    /// What the settings mean for a model in memory.
    fn plan_in_memory<'m>(&self, methods: &'m Methods) -> Result<Plan<'m>> {
        self.check_names(methods)?;
        self.check_ranges()?;
        if let Some(option) = self.changed().into_iter().find(|option| OF_FOLDERS.contains(option)) {
            return Err(Error::invalid_option(option, "is for files: this job prunes a model in memory"));
        }
        self.refuse_layers_of_nm("layer")?;
        if methods.allocation(&self.allocate)?.needs_folder() {
            return Err(Error::invalid_option("allocate", format!("{} needs a model's folder", self.allocate)));
        }
        Plan::new(self, methods, Subject::Network)
    }

    /// The names of the layers that are left alone.
    fn left_alone(&self, layers: &[LayerInfo]) -> Result<Vec<String>> {
        let called = |pattern: &str, layer: &LayerInfo| layer.is_called(pattern) || matches(pattern, &layer.name);
        for pattern in self.only.iter().chain(&self.skip) {
            if !layers.iter().any(|layer| called(pattern, layer)) {
                return Err(Error::unknown_layer(pattern, layers.iter().map(|l| l.name.as_str())));
            }
        }
        let wanted = |layer: &LayerInfo| {
            let only = self.only.is_empty() || self.only.iter().any(|p| called(p, layer));
            only && !self.skip.iter().any(|p| called(p, layer)) && !layer.is_empty()
        };
        let skip: Vec<String> = layers.iter().filter(|l| !wanted(l)).map(|l| l.name.clone()).collect();
        if skip.len() == layers.len() {
            return Err(Error::invalid_option("skip", "no layer is left to prune"));
        }
        Ok(skip)
    }

    /// How the budget is divided over the layers.
    fn divided(&self, plan: &Plan<'_>, layers: &[LayerInfo]) -> Result<Overrides<Box<dyn Allocate>>> {
        let sparsity = each_once(&self.layer, |name| Ok(find_layer(layers, name)?.name.clone()))?;
        Ok(Overrides { sparsity, rest: plan.allocation.make(self)? })
    }

    /// The sum of the scores of what went, of a criterion that predicts the loss.
    fn predicted(
        &self,
        plan: &Plan<'_>,
        before: &dyn Layers,
        measured: &[Measured],
        results: &[(String, Pruned)],
    ) -> Result<Option<f64>> {
        let criterion = if self.reconstruct.is_none() { plan.method.make_criterion(self)? } else { None };
        let Some(criterion) = criterion.filter(|c| c.predicts_loss()) else { return Ok(None) };
        let weights = LayerWeights::of(before)?;
        let mut predicted = 0.0;
        for layer in weights.evidence(measured) {
            let Some((_, pruned)) = results.iter().find(|(name, _)| name == layer.layer) else { continue };
            let scores = criterion.score(&layer).map_err(|e| e.in_layer(layer.layer))?;
            let gone = layer.mask.map_or_else(|| pruned.mask.not(), |before| before.minus(&pruned.mask));
            predicted += gone.iter_kept().map(|(r, c)| f64::from(scores[[r, c]])).sum::<f64>();
        }
        Ok(Some(predicted))
    }
}
