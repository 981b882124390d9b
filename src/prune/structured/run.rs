//! The run over all blocks: what is chosen, what is written, and how it is taken up again.

use super::block::{Reader, by_scores};
use super::choice::{Choice, layers_of};
use super::method::UnitMethod;
use super::outset::{first_ones, outset};
use super::principal::Principal;
use super::record::{HalfErrors, ScoredUnits, ShrinkRecord, UnitRecord};
use super::scores::by_weights;
use super::sublayers::check_all;
use super::walk::{Choose, HalfTraining, HiddenStates, UnitWalk};
use super::write::{of_block, put, take_over};
use super::{LanguageShrinking, ShrinkRun, ShrinkSizes};
use crate::eval::peak_memory;
use crate::io::{Folder, FolderWriter, Weights};
use crate::lm::{Config, Outline, Widths, couplings, load_block};
use crate::nn::Block;
use crate::prune::language::{Part, Progress, Saver, begin, check_measurable, unfinished_records};
use crate::structure::{Coupling, UnitCut, UnitKind, UnitPad};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

/// A folder whose weights are all written, and which has not its name yet.
#[must_use = "the folder has its name once it is finished"]
pub struct ShrunkFolder {
    /// It takes further files, and [`FolderWriter::finish`] gives the folder its name.
    pub writer: FolderWriter,
    /// What became of the units.
    pub record: ShrinkRecord,
    /// The config of the smaller model.
    pub config: Config,
}

impl fmt::Debug for ShrunkFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShrunkFolder").field("record", &self.record).finish_non_exhaustive()
    }
}

/// Makes the model in `run.folder` smaller and writes it to `run.out`, as a model of the same family with one width for all blocks. `see` is told
/// after each block, and may stop.
///
/// An error, and a stop, leaves the working folder to be taken up again, unless no block was done: then nothing is left.
///
/// # Errors
/// If the sizes do not fit the model or nothing goes, the settings exclude each other, inputs of an encoder-decoder would have to be measured
/// ([`check_measurable`]), the model has masks, an input is not finite or a method fails (both naming the layer), the model cannot be read or `out`
/// cannot be written; if the working folder of another run is there; with `resume`, if there is no such run or it was asked for something else.
/// [`Error::Interrupted`] if `see` stops; [`Error::Unfinished`] around any of them when a block was done.
pub fn shrink_language(run: ShrinkRun<'_>, see: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<ShrunkFolder> {
    let ShrinkRun { folder, config, shrinking, out, described, resume, .. } = run;
    check(folder, config, shrinking)?;
    let whole = couplings(folder, config)?;
    let before = config.layers();
    let told = &mut |done, of: usize| see(Progress { blocks: 0, of: before.max(of - done), memory: peak_memory() });
    let kept: Option<ShrinkRecord> = if resume { unfinished_records(out.path())? } else { None };
    let (record, principal) = match kept.filter(|kept| kept.blocks > 0) {
        Some(kept) => (kept, None),
        None => outset(&run, &whole, told)?,
    };
    // The same bits as before, where a run goes on.
    let rotation = match (shrinking.rotates(), principal) {
        (true, None) => Some(Principal::of(folder, config, run.calibration, &shrinking.memory, told)?.rotation),
        (_, found) => found.map(|p| p.rotation),
    };
    let choice = Choice::new(&run, &whole, &record, rotation)?;
    let (writer, _): (FolderWriter, ShrinkRecord) = begin(out, choice.layout()?, described, resume)?;
    let mut state = State { run, writer, record };
    let done = state.blocks(&choice, &whole, see).and_then(|raw| {
        state.writer.config(&raw)?;
        let (files, behind) = shrinking.vocabulary.map_or((&[][..], &[][..]), |v| (&v.files[..], &v.behind[..]));
        files.iter().try_for_each(|(name, value)| state.writer.json(name, value))?;
        state.writer.copy_rest_but(folder, behind)?;
        Ok(choice.written().clone())
    });
    match done {
        Ok(config) => Ok(ShrunkFolder { writer: state.writer, record: state.record, config }),
        Err(error) if state.record.blocks == 0 => {
            state.writer.discard();
            Err(error)
        }
        Err(error) => Err(error.unfinished(FolderWriter::working_folder(out.path()))),
    }
}

fn check(folder: &Folder, config: &Config, shrinking: &LanguageShrinking<'_>) -> Result<()> {
    let sizes = shrinking.sizes;
    match (shrinking.sort, sizes == ShrinkSizes::default()) {
        (false, _) => {
            let halves = !shrinking.drop.is_empty() || shrinking.sublayers.is_some();
            sizes.check(config, shrinking.widths.is_some() || shrinking.vocabulary.is_some() || halves || shrinking.pad)?;
        }
        (true, true) => {}
        (true, false) => return Err(Error::invalid_option("sort", "puts units in order, and none goes: give no sizes with it")),
    }
    if let Some(widths) = shrinking.widths.filter(|w| w.len() != config.layers()) {
        return Err(Error::invalid_option("per-layer", format!("widths of {} blocks for {}", widths.len(), config.layers())));
    }
    check_all(config, shrinking.drop, shrinking.sublayers, sizes.layers.unwrap_or(config.layers()))?;
    if shrinking.sublayers.is_some() && !shrinking.drop.is_empty() {
        return Err(Error::invalid_option("sublayers", "are found by their scores, and --drop names them: give one of the two"));
    }
    let alike = (1..config.layers()).all(|i| config.widths(i) == config.widths(0));
    let cuts = shrinking.widths.is_some() || !shrinking.drop.is_empty() || shrinking.sublayers.is_some();
    if shrinking.pad && alike && !cuts {
        let reason =
            "all blocks have one width already: it is for --per-layer, --drop and --sublayers, and for folders that they wrote";
        return Err(Error::invalid_option("pad", reason));
    }
    if shrinking.is_nothing() {
        return Err(Error::invalid_option("sizes", "nothing goes"));
    }
    if shrinking.metrics.is_some() && !matches!(shrinking.method, UnitMethod::Obs(_)) {
        return Err(Error::invalid_option("metric", "is for --method obs: other methods have a score of their own"));
    }
    if shrinking.sort && matches!(shrinking.method, UnitMethod::Obs(_)) {
        let reason = "group OBS scores no units: give --method minitron, flap, taylor, fisher or magnitude";
        return Err(Error::invalid_option("sort", reason));
    }
    let first = matches!(shrinking.method, UnitMethod::Prefix);
    if first && (sizes.layers.is_some() || shrinking.sublayers.is_some()) {
        let option = if sizes.layers.is_some() { "layers" } else { "sublayers" };
        return Err(Error::invalid_option(option, "are in no order in a sorted model: give a --calibration to choose them by"));
    }
    let surveys = sizes.layers.is_some() || sizes.hidden.is_some() || shrinking.sublayers.is_some();
    if !first && (shrinking.measures() || surveys && shrinking.scores.is_none()) {
        check_measurable(config)?;
    }
    if folder.is_pruned() {
        let reason = "its weights have masks, which are not cut; give the model as it was before it was pruned";
        return Err(Error::malformed(folder.path(), reason));
    }
    if shrinking.reconstruction.is_some() {
        let refuse = |reason: &str| Err(Error::invalid_option("reconstruct-blocks", reason));
        if sizes.hidden.is_some() {
            return refuse("trains towards the dense model's hidden states, of which all features stay: leave hidden out");
        }
        if shrinking.sort || !shrinking.method.measures() {
            return refuse("is for methods that measure inputs: obs, minitron and flap");
        }
        let fewer = |w: &Widths| (w.heads, w.kv_heads) != (config.widths(0).heads, config.widths(0).kv_heads);
        let heads = sizes.heads.or(sizes.kv_heads).is_some() || shrinking.widths.is_some_and(|all| all.iter().any(fewer));
        if heads && config.norms_all_heads() {
            return refuse("and fewer heads: queries and keys have norms over all heads, those that went among them");
        }
    }
    if shrinking.correction.is_some() && !matches!(shrinking.method, UnitMethod::Obs(_)) {
        return Err(Error::invalid_option("correct", "is for --method obs: weights make up for what went only there"));
    }
    Ok(())
}

/// A run, what it writes and what it has done.
struct State<'a> {
    run: ShrinkRun<'a>,
    writer: FolderWriter,
    record: ShrinkRecord,
}

impl State<'_> {
    /// Everything up to the config of the smaller model, which is returned.
    fn blocks(
        &mut self,
        choice: &Choice<'_>,
        whole: &[Coupling],
        see: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Map<String, Value>> {
        let run = self.run;
        let shrinking = run.shrinking;
        let mut shared = UnitCut::default();
        self.shared(choice, &mut shared)?;
        let goes = (0..choice.config.layers()).any(|i| !choice.stages(Some(i)).is_empty());
        // Units that are scored by weights alone leave nothing to measure.
        let measurable = shrinking.method.measures() || !goes;
        let trains = shrinking.reconstruction.is_some();
        let compares = shrinking.correction.is_some() || shrinking.rotates() && measurable;
        let comparing = compares || trains;
        let can = !run.calibration.ids().is_empty() && !matches!(shrinking.method, UnitMethod::Obs(_));
        let scored = shrinking.score_all && shrinking.method.measures() && can;
        let measures = shrinking.measures() && goes || comparing || scored;
        let mut walk = match measures {
            false => None,
            true => {
                let dense = comparing.then_some((run.folder, run.config));
                let model: (&dyn Weights, &Config) = (&choice.base, &choice.config);
                let hidden = HiddenStates { features: choice.features.clone(), rotation: choice.rotated() };
                Some(UnitWalk::new(model, (dense, compares), run.calibration, shrinking.method, hidden, &shrinking.memory)?)
            }
        };
        let outline = Outline::of(run.folder, run.config)?;
        let (mut saver, mut passed) = (Saver::default(), 0);
        for number in 0..choice.config.layers() {
            let old = choice.layers[number];
            let stages = choice.stages(Some(number));
            let mut cut = shared.clone();
            let (mut block, pad) =
                (walk.as_ref().map(|_| load_block(&choice.base, &choice.config, number)).transpose()?, choice.pad(number)?);
            if number < self.record.blocks {
                self.record.units.iter().filter(|r| r.block == Some(old)).for_each(|r| choice.cut(r, &stages, &mut cut));
                if let (Some(walk), Some(block)) = (&mut walk, &mut block) {
                    take_over(block, (&cut, pad.as_ref()), trains, &self.writer)?;
                    walk.pass(block)?;
                    pass_dense(walk, &run, comparing, &mut passed, old + 1)?;
                }
                Error::go_on(see(Progress { blocks: number + 1, of: choice.config.layers(), memory: peak_memory() }))?;
                continue;
            }
            let (mut fresh, mut beside, mut trained) = (Vec::new(), Vec::new(), Vec::new());
            match (&mut walk, &mut block) {
                (Some(walk), Some(block)) => {
                    pass_dense(walk, &run, comparing, &mut passed, old)?;
                    let dense = if comparing { Some(load_block(run.folder, run.config, old)?) } else { None };
                    passed = old + 1;
                    let found = (&mut fresh, &mut beside, &mut trained);
                    self.measured(walk, block, dense.as_ref(), choice, (number, old), found)?;
                }
                _ => self.by_weights(choice, whole, &outline, (number, old), (&mut fresh, &mut beside))?,
            }
            fresh.iter().for_each(|r| choice.cut(r, &stages, &mut cut));
            self.write(choice, number, (&cut, pad.as_ref()), block.as_ref())?;
            self.record.units.extend(fresh);
            self.record.beside.extend(beside);
            self.record.reconstructed.extend(trained);
            self.record.blocks = number + 1;
            saver.save(&self.record, &self.writer)?;
            Error::go_on(see(Progress { blocks: number + 1, of: choice.config.layers(), memory: peak_memory() }))?;
        }
        let rest: Vec<String> = self.writer.missing().map(String::from).collect();
        rest.iter().try_for_each(|name| put(&mut self.writer, choice, name, (&shared, None), None, run.folder))?;
        saver.end()?;
        choice.json(&run, &self.record)
    }

    /// Heads that all blocks of a stack share, and the vocabulary.
    fn shared(&mut self, choice: &Choice<'_>, cut: &mut UnitCut) -> Result<()> {
        let stages = choice.stages(None);
        let shrinking = self.run.shrinking;
        for (coupling, keep) in &stages {
            let mine = |r: &UnitRecord| r.block.is_none() && r.kind == coupling.kind && r.name == coupling.name;
            if self.record.units.iter().any(mine) {
                continue;
            }
            let begun = Instant::now();
            let (kept, scores) = match (coupling.kind, shrinking.vocabulary) {
                (UnitKind::Vocabulary, Some(vocabulary)) => (vocabulary.kept.clone(), Vec::new()),
                _ => {
                    let scores = self.scores(coupling, &Outline::of(self.run.folder, self.run.config)?)?;
                    (by_scores(&[(*coupling, *keep)], std::slice::from_ref(&scores), shrinking.sort)?.concat(), scores)
                }
            };
            self.record.units.push(record(coupling.name.clone(), coupling, None, kept, scores, begun));
        }
        for record in self.record.units.iter().filter(|r| r.block.is_none()) {
            let coupling = stages.iter().find(|(c, _)| c.kind == record.kind && c.name == record.name);
            coupling.iter().for_each(|(c, _)| cut.keep(c, &record.kept));
        }
        Ok(())
    }

    /// Scores of units that need no inputs, of a coupling of the model before.
    fn scores(&self, coupling: &Coupling, outline: &Outline) -> Result<Vec<f64>> {
        if let Some(scores) = self.run.shrinking.scores {
            return scores.find(coupling.kind, coupling.block, &coupling.name, coupling.units);
        }
        match self.run.shrinking.method {
            UnitMethod::Random(seed) => {
                let mut stream = seed.stream(&format!("{} {}", coupling.kind.name(), coupling.name));
                Ok((0..coupling.units).map(|_| f64::from(stream.uniform())).collect())
            }
            UnitMethod::Weights(saliency, gradients) => by_weights(self.run.folder, outline, coupling, saliency, gradients),
            UnitMethod::Prefix => Ok(first_ones(coupling)),
            _ => Err(Error::invalid_option("method", "scores units by their inputs")),
        }
    }

    /// The units of a block, by weights alone.
    fn by_weights(
        &self,
        choice: &Choice<'_>,
        whole: &[Coupling],
        outline: &Outline,
        (number, old): (usize, usize),
        (records, beside): (&mut Vec<UnitRecord>, &mut Vec<ScoredUnits>),
    ) -> Result<()> {
        for stages in layers_of(&choice.stages(Some(number))) {
            let begun = Instant::now();
            let mut scores = Vec::new();
            for (coupling, _) in &stages {
                let old_name = choice.old_name(coupling);
                let before = whole.iter().find(|c| c.kind == coupling.kind && c.name == old_name);
                let before = before.ok_or_else(|| Error::unknown_layer(old_name, std::iter::empty()))?;
                scores.push(self.scores(before, outline)?);
            }
            let kept = by_scores(&stages, &scores, self.run.shrinking.sort)?;
            let all = stages.iter().zip(kept).zip(scores);
            records.extend(all.map(|(((coupling, _), kept), scores)| {
                record(choice.old_name(coupling).to_string(), coupling, Some(old), kept, scores, begun)
            }));
        }
        let within = [UnitKind::KvGroup, UnitKind::Head, UnitKind::FeedForward];
        let all = self.run.shrinking.score_all && !self.run.shrinking.method.measures();
        let mine = whole.iter().filter(|c| all && c.block == Some(old) && within.contains(&c.kind));
        for coupling in mine {
            if !records.iter().any(|r| r.kind == coupling.kind && r.name == coupling.name) {
                let scores = self.scores(coupling, outline)?;
                beside.push(ScoredUnits { name: coupling.name.clone(), kind: coupling.kind, block: Some(old), scores });
            }
        }
        Ok(())
    }

    /// The units of a block by what its layers see, which are changed.
    fn measured(
        &self,
        walk: &mut UnitWalk<'_>,
        block: &mut Block,
        dense: Option<&Block>,
        choice: &Choice<'_>,
        (number, old): (usize, usize),
        (fresh, beside, trained): (&mut Vec<UnitRecord>, &mut Vec<ScoredUnits>, &mut Vec<HalfErrors>),
    ) -> Result<()> {
        let shrinking = self.run.shrinking;
        let stages = choice.stages(Some(number));
        let split: Vec<Vec<(&Coupling, usize)>> = layers_of(&stages);
        let goes = |kind: UnitKind| split.iter().find(|s| s.last().is_some_and(|(c, _)| c.kind == kind));
        let corrects = shrinking.correction.is_some();
        let widths = choice.config.widths(number);
        let scored = shrinking.score_all && !matches!(shrinking.method, UnitMethod::Obs(_)) && block.mixture().is_none();
        // Couplings that are scored beside those of which units go.
        let others = |kind: UnitKind| -> Vec<&Coupling> {
            let kinds = if kind == UnitKind::Head { [UnitKind::KvGroup, kind] } else { [kind; 2] };
            let mine = choice.couplings.iter().filter(|c| scored && c.block == Some(number) && kinds.contains(&c.kind));
            mine.filter(|c| !stages.iter().any(|(s, _)| s.kind == c.kind && s.name == c.name)).collect()
        };
        let mut parts = Vec::new();
        for (part, kind, any) in
            [(Part::Output, UnitKind::Head, widths.heads), (Part::Down, UnitKind::FeedForward, widths.intermediate)]
        {
            if any > 0 && (corrects || goes(kind).is_some() || !others(kind).is_empty()) {
                parts.push(part);
            }
        }
        if corrects || choice.rotation.is_some() && dense.is_some() {
            parts.extend([Part::Opening, Part::Feed]);
        }
        // What moved, as the file will have it.
        let mut done =
            |block: &mut Block, names: &BTreeSet<String>, half: &'static str, (before, after): (f64, f64)| -> Result<()> {
                let mut result = Ok(());
                block.visit_mut(&mut |name, values, _| {
                    if result.is_ok() && names.contains(name) {
                        result = choice.base.dtype(name).map(|dtype| values.iter_mut().for_each(|v| *v = dtype.round(*v)));
                    }
                })?;
                result?;
                trained.push(HalfErrors { block: old, half: half.to_string(), before, after });
                Ok(())
            };
        let cut = [UnitKind::Head, UnitKind::FeedForward].map(|kind| goes(kind).is_some());
        let training = shrinking.reconstruction.map(|how| HalfTraining { how, cut, done: &mut done });
        let choose: &mut Choose<'_> = &mut |part, block, inputs| {
            let names = part.names(block);
            let names = match (part, block.shares_input()) {
                (Part::Opening, true) => names.into_iter().chain(Part::Feed.names(block)).collect(),
                _ => names,
            };
            let Some(first) = names.first() else { return Ok(()) };
            let dtype = choice.base.dtype(&format!("{first}.weight"))?;
            let reader = Reader {
                method: shrinking.method,
                correction: shrinking.correction,
                part,
                metrics: shrinking.metrics,
                features: choice.features.as_deref(),
                rotation: choice.rotation.as_ref(),
                sort: shrinking.sort,
                block: old,
                dtype,
            };
            let kind = match part {
                Part::Opening | Part::Feed => {
                    return match dense.filter(|_| choice.features.is_some()) {
                        Some(dense) => reader.refit(block, dense, &names, inputs),
                        None => reader.retarget(block, &names, inputs),
                    };
                }
                Part::Output => UnitKind::Head,
                Part::Down => UnitKind::FeedForward,
            };
            let others = others(kind);
            let stages = match goes(kind) {
                Some(stages) => &stages[..],
                None if others.is_empty() => return reader.retarget(block, &names, inputs),
                None => &[],
            };
            let missing = || Error::unknown_layer(first, std::iter::empty());
            let layer = block.linears_mut().into_iter().find(|l| l.name() == first).ok_or_else(missing)?;
            let named = |r: UnitRecord| UnitRecord { name: choice.names.get(&r.name).cloned().unwrap_or(r.name), ..r };
            let given = stages.iter().filter_map(|(c, _)| {
                let scores = shrinking.scores?;
                Some(scores.find(c.kind, Some(old), choice.old_name(c), c.units))
            });
            let given = given.collect::<Result<Vec<Vec<f64>>>>()?;
            let (units, scored) = reader.choose(layer, inputs, stages, (&others, given))?;
            fresh.extend(units.into_iter().map(named));
            beside.extend(
                scored.into_iter().map(|s| ScoredUnits { name: choice.names.get(&s.name).cloned().unwrap_or(s.name), ..s }),
            );
            Ok(())
        };
        walk.block(block, dense, &parts, choose, training)
    }

    /// Writes what is left of a block.
    fn write(
        &mut self,
        choice: &Choice<'_>,
        number: usize,
        cut: (&UnitCut, Option<&UnitPad>),
        block: Option<&Block>,
    ) -> Result<()> {
        let folder = self.run.folder;
        for name in choice.tensors(number) {
            if !choice.base.contains(&name) {
                continue;
            }
            let changed = block.and_then(|block| of_block(block, &name, self.run.shrinking.reconstruction.is_some()));
            put(&mut self.writer, choice, &name, cut, changed, folder)?;
        }
        Ok(())
    }
}

fn record(
    name: String,
    coupling: &Coupling,
    block: Option<usize>,
    kept: Vec<usize>,
    scores: Vec<f64>,
    begun: Instant,
) -> UnitRecord {
    UnitRecord {
        name,
        kind: coupling.kind,
        block,
        units: coupling.units,
        kept,
        scores,
        error: None,
        swapped: 0,
        tokens: 0,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// Runs the dense model's hidden states up to a block.
fn pass_dense(walk: &mut UnitWalk<'_>, run: &ShrinkRun<'_>, comparing: bool, passed: &mut usize, to: usize) -> Result<()> {
    if comparing {
        for number in *passed..to {
            walk.pass_dense(&load_block(run.folder, run.config, number)?)?;
        }
    }
    *passed = to.max(*passed);
    Ok(())
}
