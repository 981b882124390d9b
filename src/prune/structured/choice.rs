//! Which layers and hidden features stay, and what follows: shapes, couplings, config.

use super::ShrinkRun;
use super::block::Stages;
use super::record::{ShrinkRecord, UnitRecord};
use super::sublayer::{SubLayer, SubLayerKind};
use super::trimmed::Trimmed;
use crate::io::{Dtype, Layout, Weights};
use crate::lm::{Config, Outline, Rotation, Widths, couplings};
use crate::structure::{Coupling, Extent, Member, UnitCut, UnitKind, UnitPad};
use crate::{Error, Result};
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
    /// Of the model as it is written, where blocks are padded to the widest.
    padded: Option<Config>,
    /// The sub-layers that go.
    gone: Vec<SubLayer>,
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
        record: &ShrinkRecord,
        rotation: Option<Array2<f64>>,
    ) -> Result<Choice<'a>> {
        let layers = record.layers.as_ref().map(|l| l.kept.clone());
        let features = record.units.iter().find(|r| r.kind == UnitKind::Hidden).map(|r| r.kept.clone());
        let gone = record.sublayers.as_ref().map(|s| s.gone.clone()).unwrap_or_default();
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
        let base = Trimmed::new(folder, (before, &hidden), whole, (layers.as_deref(), features.as_deref(), &gone), turned)?;
        let layers = layers.unwrap_or_else(|| (0..before.layers()).collect());
        if !gone.is_empty() {
            config = config.with_widths(&without(&config, &layers, &gone))?;
        }
        let widths = match run.shrinking.widths {
            Some(given) => layers.iter().map(|&old| given[old]).collect(),
            // What has no units keeps none.
            None => (0..config.layers()).map(|i| sizes.widths(config.widths(i))).collect::<Result<Vec<Widths>>>()?,
        };
        let (couplings, mut smaller) = (couplings(&base, &config)?, config.with_widths(&widths)?);
        if let Some(vocabulary) = run.shrinking.vocabulary {
            smaller = smaller.with_vocabulary(&vocabulary.kept)?;
        }
        // Some of a block's may be gone: names differ by the number of the block alone.
        let mine = |all: &[Coupling], block: usize| all.iter().filter(|c| c.block == Some(block)).cloned().collect::<Vec<_>>();
        let mut names = HashMap::new();
        for (new, &old) in layers.iter().enumerate() {
            let before = mine(whole, old);
            for coupling in mine(&couplings, new) {
                let behind = |name: &str, block: usize| name.split_once(&format!(".{block}.")).map(|(_, rest)| rest.to_string());
                let same = |c: &&Coupling| match c.kind == coupling.kind {
                    true if new == old => c.name == coupling.name,
                    same => same && behind(&c.name, old) == behind(&coupling.name, new),
                };
                names.extend(before.iter().find(same).map(|c| (coupling.name.clone(), c.name.clone())));
            }
        }
        let padded = if run.shrinking.pad { padded(&smaller)? } else { None };
        Ok(Choice { base, config, smaller, padded, gone, couplings, layers, features, rotation, names, sort })
    }

    /// What gives the rotated features that stay of the hidden states before, `(all, those that stay)`.
    pub fn rotated(&self) -> Option<Array2<f32>> {
        let q = self.rotation.as_ref()?.mapv(|v| v as f32);
        Some(self.features.as_ref().map_or(q.clone(), |kept| q.select(Axis(1), kept)))
    }

    /// The config of the model as it is written.
    pub fn written(&self) -> &Config {
        self.padded.as_ref().unwrap_or(&self.smaller)
    }

    /// How the tensors of a block lie among the zeros that make it as wide as the others.
    pub fn pad(&self, block: usize) -> Result<Option<UnitPad>> {
        let Some(padded) = &self.padded else { return Ok(None) };
        let (small, large) = (self.smaller.widths(block), padded.widths(block));
        let all = couplings(&self.base, padded)?;
        let mine: Vec<Coupling> = all.into_iter().filter(|c| c.block == Some(block)).collect();
        let runs = |w: Widths| if large.heads == large.kv_heads { 1 } else { w.kv_heads };
        let counts = |kind: UnitKind| match kind {
            UnitKind::Head => [small, large].map(|w| (w.heads, runs(w))),
            UnitKind::KvGroup => [small, large].map(|w| (w.kv_heads, 1)),
            _ => [small, large].map(|w| (w.intermediate, 1)),
        };
        Ok(Some(UnitPad::new(&mine, &counts)))
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
        let mut shapes = HashMap::new();
        let mut masks = Vec::new();
        for block in 0..self.config.layers() {
            let Some(pad) = self.pad(block)? else { continue };
            for name in self.tensors(block).into_iter().filter(|name| self.base.contains(name)) {
                let shape = pad.shape(&name, &cut.shape(&name, &self.base.shape(&name)?));
                if shape.len() == 2 && pad.pads(&name) {
                    masks.push(name.clone());
                }
                shapes.insert(name, shape);
            }
        }
        let tensor = |name: String| {
            let shape = cut.shape(&name, &self.base.shape(&name)?);
            Ok((name.clone(), self.base.dtype(&name)?, shapes.get(&name).cloned().unwrap_or(shape)))
        };
        let tensors = self.base.names().into_iter().map(tensor).collect::<Result<Vec<(String, Dtype, Vec<usize>)>>>()?;
        let mut layout = Layout::new(tensors, FILE)?;
        if !masks.is_empty() {
            layout.masks(masks.iter().map(String::as_str))?;
        }
        Ok(layout)
    }

    /// The tensors of a block.
    pub fn tensors(&self, block: usize) -> Vec<String> {
        let layers = self.couplings.iter().filter(|c| c.kind == UnitKind::Layer);
        let of = |m: &&Member| m.part == Extent::All { unit: block };
        layers.flat_map(|c| c.members.iter().filter(of).map(|m| m.tensor.clone())).collect()
    }

    /// The config as it is written.
    pub fn json(&self, run: &ShrinkRun<'_>, record: &ShrinkRecord) -> Result<Map<String, Value>> {
        let written = self.written();
        let tied = Outline::of(run.folder, run.config)?.tied && written.tied() == run.config.tied();
        let settled = written.settled(tied);
        let mut raw = match settled {
            Some(raw) => raw,
            None => written.to_json().as_object().cloned().unwrap_or_default(),
        };
        // GPT-2 and BERT have no width of heads: their number stays, and the list says which went.
        let heads = record.units.iter().filter(|r| r.kind == UnitKind::Head && r.kept.len() < r.units);
        if matches!(written.family().model_type(), "gpt2" | "bert") {
            let mut pruned: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for record in heads {
                let number = self.layers.iter().position(|old| Some(*old) == record.block).unwrap_or(0);
                let gone = (0..record.units).filter(|u| !record.kept.contains(u)).collect();
                pruned.insert(number.to_string(), gone);
            }
            // A block of zeros has as many heads as the others, whichever they were.
            for sub in self.gone.iter().filter(|sub| sub.kind == SubLayerKind::Attention && self.padded.is_some()) {
                let Some(number) = self.layers.iter().position(|old| *old == sub.block) else { continue };
                let gone: Vec<usize> = (written.widths(number).heads..run.config.widths(sub.block).heads).collect();
                if !gone.is_empty() {
                    pruned.insert(number.to_string(), gone);
                }
            }
            if !pruned.is_empty() {
                raw.insert("pruned_heads".into(), json!(pruned));
            }
        }
        Ok(raw)
    }
}

/// The widths of blocks, by their numbers before, without what is gone.
fn without(config: &Config, layers: &[usize], gone: &[SubLayer]) -> Vec<Widths> {
    let of = |(new, &old): (usize, &usize)| {
        let goes = |kind| gone.contains(&SubLayer { block: old, kind });
        let before = config.widths(new);
        let attention = if goes(SubLayerKind::Attention) { Widths { heads: 0, kv_heads: 0, ..before } } else { before };
        if goes(SubLayerKind::FeedForward) { Widths { intermediate: 0, ..attention } } else { attention }
    };
    layers.iter().enumerate().map(of).collect()
}

/// The config whose blocks are all as wide as the widest of each part; `None` where they are alike already.
fn padded(config: &Config) -> Result<Option<Config>> {
    let all: Vec<Widths> = (0..config.layers()).map(|i| config.widths(i)).collect();
    let most = |of: fn(&Widths) -> usize| all.iter().map(of).max().unwrap_or(0).max(1);
    let (kv_heads, share) = (most(|w| w.kv_heads), most(|w| w.heads / w.kv_heads.max(1)));
    let widths: Vec<Widths> =
        all.iter().map(|w| Widths { heads: kv_heads * share, kv_heads, intermediate: most(|w| w.intermediate), ..*w }).collect();
    let no_keys = || {
        let reason = format!("a {} has no keys for one width of all blocks: leave it out", config.family());
        Error::invalid_option("pad", reason)
    };
    if widths == all {
        return if config.has_plain_widths() { Ok(None) } else { Err(no_keys()) };
    }
    let heads = |(before, after): (&Widths, &Widths)| before.heads != 0 && before.heads != after.heads;
    if let Some(block) = all.iter().zip(&widths).position(heads).filter(|_| config.norms_all_heads()) {
        let reason = format!(
            "block {block} has {} heads of {}, and its norms take means over all of them",
            all[block].heads,
            kv_heads * share
        );
        return Err(Error::invalid_option("pad", reason));
    }
    let padded = config.with_widths(&widths)?;
    if padded.has_plain_widths() { Ok(Some(padded)) } else { Err(no_keys()) }
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
