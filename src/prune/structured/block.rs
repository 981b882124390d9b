//! The units of one block: chosen, the layers around them changed, and what is left of its tensors.

use super::method::{UnitInputs, UnitMethod};
use super::metric::OutputMetrics;
use super::record::{ScoredUnits, UnitRecord};
use super::scores::by_inputs;
use crate::calibrate::LayerStatistics;
use crate::criteria::Evidence;
use crate::io::Dtype;
use crate::nn::{Block, Linear};
use crate::prune::Correction;
use crate::prune::language::Part;
use crate::solve::{GroupsLeft, Removal, Retarget, loss_of, refitted, squared_error};
use crate::structure::Coupling;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use std::time::Instant;

/// Units of one layer that go: of each coupling, the groups before the heads within them, how many stay in all.
pub(super) type Stages<'c> = [(&'c Coupling, usize)];

/// The columns of the layer that reads the units of a coupling which one of them has.
fn width(coupling: &Coupling, columns: usize) -> usize {
    columns / coupling.units
}

/// The stages as runs of columns.
fn removals(stages: &Stages<'_>, columns: usize) -> Vec<Removal> {
    let mut groups = None;
    let stage = |(coupling, keep): &(&Coupling, usize)| {
        // Of the runs that a stage before has left.
        let runs = groups.filter(|_| coupling.runs > 1).unwrap_or(coupling.runs);
        groups = Some(*keep);
        Removal { width: width(coupling, columns), run: coupling.units / coupling.runs, keep: keep / runs }
    };
    stages.iter().map(stage).collect()
}

/// The units of each stage that stay, by their scores: ascending, or with `sort` the largest score first, heads in the order of their groups.
///
/// # Errors
/// As [`Coupling::largest`].
pub(super) fn by_scores(stages: &Stages<'_>, scores: &[Vec<f64>], sort: bool) -> Result<Vec<Vec<usize>>> {
    let mut kept: Vec<Vec<usize>> = Vec::new();
    for (i, ((coupling, keep), scores)) in stages.iter().zip(scores).enumerate() {
        let run = coupling.units / coupling.runs;
        let all: Vec<usize> = (0..coupling.runs).collect();
        let groups = i.checked_sub(1).map(|before| &kept[before]).filter(|_| coupling.runs > 1).unwrap_or(&all);
        let mut chosen = coupling.largest(scores, keep / groups.len() * coupling.runs)?;
        chosen.retain(|unit| groups.contains(&(unit / run)));
        if sort {
            let group = |unit: usize| groups.iter().position(|g| *g == unit / run);
            chosen.sort_by(|&a, &b| group(a).cmp(&group(b)).then(scores[b].total_cmp(&scores[a])).then(a.cmp(&b)));
        }
        kept.push(chosen);
    }
    Ok(kept)
}

/// The units of each stage of which columns stay.
fn of_columns(stages: &Stages<'_>, columns: &[usize], all: usize) -> Vec<Vec<usize>> {
    let units = |(coupling, _): &(&Coupling, usize)| {
        let mut units: Vec<usize> = columns.iter().map(|c| c / width(coupling, all)).collect();
        units.dedup();
        units
    };
    stages.iter().map(units).collect()
}

/// The fraction of the mean diagonal that is added where no correction says how much.
const DAMPING: f64 = 0.0005;

/// A layer, and what else its choice needs.
pub(super) struct Reader<'a> {
    pub method: UnitMethod<'a>,
    pub correction: Option<Correction>,
    /// The part of the block, and the metrics by which group OBS chooses.
    pub part: Part,
    pub metrics: Option<&'a OutputMetrics>,
    /// The hidden features that stay, and by what they are rotated before.
    pub features: Option<&'a [usize]>,
    pub rotation: Option<&'a Array2<f64>>,
    /// Whether units are put in order, and none goes.
    pub sort: bool,
    /// The number of the block in the model before.
    pub block: usize,
    /// How the file rounds its numbers.
    pub dtype: Dtype,
}

impl Reader<'_> {
    /// Chooses the units that `layer` reads, by what was measured of its inputs or by scores that are given, one list a stage, and gives it the weights that
    /// are left, 0 where units went. Units of `others` are scored.
    pub fn choose(
        &self,
        layer: &mut Linear,
        inputs: UnitInputs,
        stages: &Stages<'_>,
        (others, given): (&[&Coupling], Vec<Vec<f64>>),
    ) -> Result<(Vec<UnitRecord>, Vec<ScoredUnits>)> {
        let begun = Instant::now();
        let (name, means) = (layer.name().to_string(), inputs.activations());
        let found = inputs.sums.found();
        let own = layer.dense_weight().into_owned();
        let target = self.target(&name, own.view(), &found)?;
        let weight = target.as_ref().unwrap_or(&own);
        let evidence = Evidence { measured: found.inputs(), ..Evidence::weight_only(&name, weight) };
        let columns = weight.ncols();
        let score = |coupling: &Coupling| {
            let of = by_inputs(&self.method, weight.view(), found.inputs(), means.as_ref(), width(coupling, columns))?;
            of.ok_or_else(|| Error::invalid_option("method", "does not score units by their inputs"))
        };
        let scored = |coupling: &&Coupling| {
            Ok(ScoredUnits {
                name: coupling.name.clone(),
                kind: coupling.kind,
                block: Some(self.block),
                scores: score(coupling)?,
            })
        };
        let beside = others.iter().map(scored).collect::<Result<Vec<_>>>()?;
        if stages.is_empty() {
            return Ok((Vec::new(), beside));
        }
        let scores: Vec<Vec<f64>>;
        let (kept, new, swapped) = match self.method {
            UnitMethod::Obs(obs) if !given.is_empty() => {
                let kept = by_scores(stages, &given, false)?;
                let left = columns_of(stages, &kept, columns);
                scores = given;
                (kept, spread(&left, obs.refit(&evidence, &left)?.view(), columns), 0)
            }
            UnitMethod::Obs(obs) => {
                let metric = self.metrics.map(|all| all.of(&evidence, (self.block, self.part), self.features, self.rotation));
                let metric = metric.transpose()?;
                let GroupsLeft { columns: left, weight: moved, swapped, scores: found, .. } =
                    obs.remove_by(&evidence, &removals(stages, columns), metric.as_ref())?;
                scores = found;
                (of_columns(stages, &left, columns), spread(&left, moved.view(), columns), swapped)
            }
            _ => {
                scores = match given.is_empty() {
                    true => stages.iter().map(|(coupling, _)| score(coupling)).collect::<Result<_>>()?,
                    false => given,
                };
                let kept = by_scores(stages, &scores, self.sort)?;
                let left = columns_of(stages, &kept, columns);
                (kept, spread(&left, weight.select(Axis(1), &left).view(), columns), 0)
            }
        };
        let new = new.mapv(|w| self.dtype.round(w));
        let error = found.inputs().gram.as_ref().map(|gram| {
            let all: Vec<usize> = (0..columns).collect();
            let whole = squared_error(weight, &Array2::zeros(weight.dim()), gram);
            loss_of(&evidence, &all, new.view()).map(|loss| if whole > 0.0 { loss / whole } else { 0.0 })
        });
        let error = error.transpose()?;
        if let (UnitMethod::Flap, Some(sums)) = (self.method, &found.inputs().input_sums) {
            self.shift(layer, &own, &new, &sums.mapv(|s| s / found.inputs().tokens as f64))?;
        }
        layer.set_weight(new)?;
        let (tokens, seconds) = (found.inputs().tokens, begun.elapsed().as_secs_f64());
        let record = |(i, ((coupling, _), kept)): (usize, (&(&Coupling, usize), Vec<usize>))| UnitRecord {
            name: coupling.name.clone(),
            kind: coupling.kind,
            block: Some(self.block),
            units: coupling.units,
            kept,
            scores: scores.get(i).cloned().unwrap_or_default(),
            error,
            swapped,
            tokens,
            seconds,
        };
        Ok((stages.iter().zip(kept).enumerate().map(record).collect(), beside))
    }

    /// Moves layers that read the hidden states towards what the dense model gives at the same place; none of their rows goes here.
    pub fn retarget(&self, block: &mut Block, names: &[String], inputs: UnitInputs) -> Result<()> {
        let found = inputs.sums.found();
        for layer in block.linears_mut().into_iter().filter(|l| names.iter().any(|n| n == l.name())) {
            let own = layer.dense_weight().into_owned();
            if own.is_empty() {
                continue;
            }
            if let Some(moved) = self.target(layer.name(), own.view(), &found)? {
                layer.set_weight(moved.mapv(|w| self.dtype.round(w)))?;
            }
        }
        Ok(())
    }

    /// Gives layers that read fewer hidden features than the dense ones do the least squares solution of what these give.
    pub fn refit(&self, block: &mut Block, dense: &Block, names: &[String], inputs: UnitInputs) -> Result<()> {
        let found = inputs.sums.found();
        let Some(crossed) = &found.crossed else { return Ok(()) };
        let settings = self.correction.map_or((1.0, DAMPING), |c| (c.inputs, c.damping));
        let dense = dense.linears();
        for (layer, dense) in block.linears_mut().into_iter().zip(dense).filter(|(l, _)| names.iter().any(|n| n == l.name())) {
            let own = layer.dense_weight().into_owned();
            if own.is_empty() {
                continue;
            }
            let evidence = Evidence { measured: found.inputs(), ..Evidence::weight_only(layer.name(), &own) };
            let new = refitted(&evidence, (&dense.dense_weight(), crossed.matrix()), settings);
            let new = new.map_err(|e| e.in_layer(layer.name()))?.mapv(|w| self.dtype.round(w));
            layer.set_weight(new)?;
        }
        Ok(())
    }

    /// The weight that is to be met instead of the layer's own.
    fn target(&self, name: &str, weight: ArrayView2<'_, f32>, found: &LayerStatistics) -> Result<Option<Array2<f32>>> {
        let Some(correction) = self.correction else { return Ok(None) };
        let inputs = found.crossed.as_ref().map(|m| (correction.inputs, m.matrix()));
        let hidden_states = found.drift.as_ref().map(|m| (correction.hidden_states, m.matrix()));
        let evidence = Evidence { layer: name, weight, mask: None, measured: found.inputs() };
        let retarget = Retarget { damping: correction.damping, inputs, hidden_states };
        retarget.run(&evidence).map(Some).map_err(|e| e.in_layer(name))
    }

    /// Puts what the inputs that went gave in the mean into the bias, if there is one.
    fn shift(&self, layer: &mut Linear, before: &Array2<f32>, after: &Array2<f32>, mean: &Array1<f64>) -> Result<()> {
        let Some(bias) = layer.bias() else { return Ok(()) };
        let gone = (before - after).mapv(f64::from).dot(mean);
        let moved = Array1::from_shape_fn(bias.len(), |i| self.dtype.round((f64::from(bias[i]) + gone[i]) as f32));
        layer.set_bias(Some(moved))
    }
}

/// The columns of the units of the last stage that stay.
fn columns_of(stages: &Stages<'_>, kept: &[Vec<usize>], columns: usize) -> Vec<usize> {
    let Some(((coupling, _), kept)) = stages.last().zip(kept.last()) else { return (0..columns).collect() };
    let width = width(coupling, columns);
    kept.iter().flat_map(|u| u * width..(u + 1) * width).collect()
}

/// Weights of some columns, at their places among all.
pub(super) fn spread(columns: &[usize], weight: ArrayView2<'_, f32>, all: usize) -> Array2<f32> {
    let mut whole = Array2::zeros((weight.nrows(), all));
    columns.iter().zip(weight.columns()).for_each(|(&c, w)| whole.column_mut(c).assign(&w));
    whole
}
