//! Which layers and hidden features stay, and what follows: shapes, couplings, config.

use super::ShrinkRun;
use super::block::Stages;
use super::record::{ShrinkRecord, UnitRecord};
use super::trimmed::Trimmed;
use crate::Result;
use crate::io::{Dtype, Layout, Weights};
use crate::lm::{Config, Outline, Rotation, Widths, couplings};
use crate::structure::{Coupling, Extent, Member, UnitCut, UnitKind};
use ndarray::{Array2, Axis};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// Most bytes of one file of weights.
const FILE: u64 = 5_000_000_000;

/// Which layers and hidden features stay, and what follows.
pub(super) struct Choice<'a> {
    pub base: Trimmed<'a>,
    /// Of the model without the layers and features that go.
    pub config: Config,
    /// Of the model with smaller blocks.
    pub smaller: Config,
    /// The couplings of the first.
    pub couplings: Vec<Coupling>,
    /// The numbers of the layers that stay, in the model before.
    pub layers: Vec<usize>,
    pub features: Option<Vec<usize>>,
    /// By what hidden states are rotated before features go.
    pub rotation: Option<Array2<f64>>,
    /// Of each coupling of a block what the model before calls it.
    pub names: HashMap<String, String>,
    sort: bool,
}

impl<'a> Choice<'a> {
    pub fn new(
        run: &ShrinkRun<'a>,
        whole: &[Coupling],
        layers: Option<Vec<usize>>,
        features: Option<Vec<usize>>,
        rotation: Option<Array2<f64>>,
    ) -> Result<Choice<'a>> {
        let (folder, before, sizes) = (run.folder, run.config, run.shrinking.sizes);
        let layers = layers.filter(|l| l.len() < before.layers());
        let sort = run.shrinking.sort;
        let features = features.filter(|f| sort || f.len() < before.hidden());
        let mut config = before.with_hidden(features.as_ref().map_or(before.hidden(), Vec::len))?;
        let hidden = config.clone();
        let turned = rotation.clone().map(|q| Rotation::new(folder, before, q)).transpose()?;
        if turned.as_ref().is_some_and(|r| r.head().is_some()) {
            config = config.with_own_head()?;
        }
        if let Some(layers) = &layers {
            config = config.with_blocks(layers)?;
        }
        let base = Trimmed::new(folder, (before, &hidden), whole, (layers.as_deref(), features.as_deref()), turned)?;
        let layers = layers.unwrap_or_else(|| (0..before.layers()).collect());
        let widths = match run.shrinking.widths {
            Some(given) => layers.iter().map(|&old| given[old]).collect(),
            None => (0..config.layers()).map(|i| sizes.widths(config.widths(i))).collect::<Result<Vec<Widths>>>()?,
        };
        let (couplings, mut smaller) = (couplings(&base, &config)?, config.with_widths(&widths)?);
        if let Some(vocabulary) = run.shrinking.vocabulary {
            smaller = smaller.with_vocabulary(&vocabulary.kept)?;
        }
        let named = |all: &[Coupling], block: usize| {
            all.iter().filter(|c| c.block == Some(block)).map(|c| c.name.clone()).collect::<Vec<_>>()
        };
        let pairs = layers.iter().enumerate().flat_map(|(new, &old)| named(&couplings, new).into_iter().zip(named(whole, old)));
        let names = pairs.collect();
        Ok(Choice { base, config, smaller, couplings, layers, features, rotation, names, sort })
    }

    /// What gives the rotated features that stay of the hidden states before, `(all, those that stay)`.
    pub fn rotated(&self) -> Option<Array2<f32>> {
        let q = self.rotation.as_ref()?.mapv(|v| v as f32);
        Some(self.features.as_ref().map_or(q.clone(), |kept| q.select(Axis(1), kept)))
    }

    /// What the model before calls a coupling.
    pub fn old_name<'c>(&'c self, coupling: &'c Coupling) -> &'c str {
        self.names.get(&coupling.name).unwrap_or(&coupling.name)
    }

    /// Cuts what a record says went.
    pub fn cut(&self, record: &UnitRecord, stages: &Stages<'_>, cut: &mut UnitCut) {
        let of = |(c, _): &&(&Coupling, usize)| c.kind == record.kind && self.old_name(c) == record.name;
        stages.iter().filter(of).for_each(|(c, _)| cut.keep(c, &record.kept));
    }

    /// How many units of a coupling within a block stay.
    pub fn keep(&self, coupling: &Coupling) -> usize {
        let widths = self.smaller.widths(coupling.block.unwrap_or(0));
        match coupling.kind {
            UnitKind::FeedForward => widths.intermediate,
            UnitKind::Head => widths.heads,
            UnitKind::KvGroup => widths.kv_heads,
            UnitKind::Vocabulary => self.smaller.vocab(),
            UnitKind::Hidden | UnitKind::Layer | UnitKind::Channel => coupling.units,
        }
    }

    /// The couplings of which units go, or are put in order, of a block or, where it is `None`, of several: heads before features, groups before the heads
    /// within them, and the vocabulary, which is never put in order.
    pub fn stages(&self, block: Option<usize>) -> Vec<(&Coupling, usize)> {
        let within = [UnitKind::KvGroup, UnitKind::Head, UnitKind::FeedForward, UnitKind::Vocabulary];
        let mine = self.couplings.iter().filter(|c| c.block == block && within.contains(&c.kind));
        let sorts = |c: &Coupling| self.sort && c.kind != UnitKind::Vocabulary;
        mine.map(|c| (c, self.keep(c))).filter(|(c, keep)| sorts(c) || *keep < c.units).collect()
    }

    /// The tensors of the smaller model with their shapes: those that any choice of as many units gives.
    pub fn layout(&self) -> Result<Layout> {
        let mut cut = UnitCut::default();
        for block in (0..self.config.layers()).map(Some).chain([None]) {
            for (coupling, keep) in self.stages(block) {
                // As many of each run: those of runs that go with a group before are cut there.
                let run = coupling.units / coupling.runs;
                let groups = self.smaller.widths(coupling.block.unwrap_or(0)).kv_heads.min(coupling.runs);
                let each = if coupling.runs > 1 { keep / groups } else { keep };
                cut.keep(coupling, &(0..coupling.units).filter(|u| u % run < each).collect::<Vec<_>>());
            }
        }
        let tensor = |name: String| {
            let shape = cut.shape(&name, &self.base.shape(&name)?);
            Ok((name.clone(), self.base.dtype(&name)?, shape))
        };
        Layout::new(self.base.names().into_iter().map(tensor).collect::<Result<Vec<(String, Dtype, Vec<usize>)>>>()?, FILE)
    }

    /// The tensors of a block.
    pub fn tensors(&self, block: usize) -> Vec<String> {
        let layers = self.couplings.iter().filter(|c| c.kind == UnitKind::Layer);
        let of = |m: &&Member| m.part == Extent::All { unit: block };
        layers.flat_map(|c| c.members.iter().filter(of).map(|m| m.tensor.clone())).collect()
    }

    /// The config as it is written.
    pub fn json(&self, run: &ShrinkRun<'_>, record: &ShrinkRecord) -> Result<Map<String, Value>> {
        let tied = Outline::of(run.folder, run.config)?.tied && self.smaller.tied() == run.config.tied();
        let settled = self.smaller.settled(tied);
        let mut raw = match settled {
            Some(raw) => raw,
            None => self.smaller.to_json().as_object().cloned().unwrap_or_default(),
        };
        // GPT-2 and BERT have no width of heads: their number stays, and the list says which went.
        let heads = record.units.iter().filter(|r| r.kind == UnitKind::Head && r.kept.len() < r.units);
        if matches!(self.smaller.family().model_type(), "gpt2" | "bert") {
            let mut pruned: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for record in heads {
                let number = self.layers.iter().position(|old| Some(*old) == record.block).unwrap_or(0);
                let gone = (0..record.units).filter(|u| !record.kept.contains(u)).collect();
                pruned.insert(number.to_string(), gone);
            }
            if !pruned.is_empty() {
                raw.insert("pruned_heads".into(), json!(pruned));
            }
        }
        Ok(raw)
    }
}

/// The couplings of a block by the layer that reads their units.
pub(super) fn layers_of<'c>(stages: &Stages<'c>) -> Vec<Vec<(&'c Coupling, usize)>> {
    let mut all: Vec<Vec<(&Coupling, usize)>> = Vec::new();
    for stage in stages {
        match all.last_mut().filter(|s| s.last().is_some_and(|(c, _)| c.name == stage.0.name)) {
            Some(same) => same.push(*stage),
            None => all.push(vec![*stage]),
        }
    }
    all
}
