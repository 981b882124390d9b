//! The run over all blocks: what is written, what is recorded, and how it is taken up again.

use super::check::{check_measurable, check_trained};
use super::prune_layer::{PruneLayer, read_back};
use super::read_ahead::read_ahead;
use super::reconstruct::{BlockReconstruction, Reconstructed, Trained};
use super::record::{LayerRecord, Place};
use super::resume::{begin, fits};
use super::walk::{DenseBlock, Prune, Walk};
use super::{CalibrationInputs, LanguagePruning, Sequential};
use crate::calibrate::LayerStatistics;
use crate::data::Sequences;
use crate::eval::peak_memory;
use crate::io::{Folder, FolderWriter, Layout, Output, RECORDS, WeightsMut};
use crate::lm::{Config, Outline, load_block};
use crate::nn::{Block, Linear};
use crate::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::thread::JoinHandle;

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Blocks that are done.
    pub blocks: usize,
    /// All blocks.
    pub of: usize,
    /// Most bytes of memory so far, where the system says.
    pub memory: Option<u64>,
}

/// What [`prune_language`] is given.
#[derive(Debug, Clone, Copy)]
pub struct LanguageRun<'a> {
    /// The model.
    pub folder: &'a Folder,
    /// What its `config.json` says.
    pub config: &'a Config,
    /// The tokens on which inputs are measured; [`Sequences::nothing`] where none are.
    pub calibration: &'a Sequences,
    /// How it is pruned.
    pub pruning: &'a LanguagePruning<'a>,
    /// Where the pruned model is written.
    pub out: &'a Output,
    /// What the run was asked for. It is kept beside what is written, and a run is only taken up again by one that was asked for the same.
    pub described: &'a Value,
    /// Whether a run that was interrupted goes on behind its last whole block. It gives the bits that it would have given.
    pub resume: bool,
}

/// A folder whose weights and masks are all written, and which has not its name yet.
#[must_use = "the folder has its name once it is finished"]
pub struct PrunedFolder {
    /// It takes further files, and [`FolderWriter::finish`] gives the folder its name.
    pub writer: FolderWriter,
    /// What became of each layer.
    pub records: Vec<LayerRecord>,
}

impl PrunedFolder {
    /// Gives the folder its name.
    ///
    /// # Errors
    /// Those of [`FolderWriter::finish`].
    pub fn finish(self) -> Result<Vec<LayerRecord>> {
        self.writer.finish().map(|()| self.records)
    }
}

impl fmt::Debug for PrunedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrunedFolder").field("records", &self.records).finish_non_exhaustive()
    }
}

/// Prunes the model in `run.folder` and writes it to `run.out` with its masks: tensors that are not pruned are copied byte by byte. `see` is
/// told after each block, and may stop.
///
/// An error, and a stop, leaves the working folder to be taken up again, unless no block was done: then nothing is left.
///
/// # Errors
/// If a budget names no layer of the model, the settings exclude each other, inputs of an encoder-decoder would have to be measured
/// ([`check_measurable`]), an input is not finite or a pruner fails (both naming the layer), the model cannot be read or `out` cannot be
/// written; if the working folder of another run is there; with `resume`, if there is no such run or it was asked for something else.
/// [`Error::Interrupted`] if `see` stops; [`Error::Unfinished`] around any of them when a block was done.
pub fn prune_language(run: LanguageRun<'_>, see: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<PrunedFolder> {
    let LanguageRun { folder, config, calibration, pruning: settings, out, described, resume } = run;
    check(settings)?;
    if Walk::measures(settings) {
        check_measurable(config)?;
    }
    if settings.reconstruction.is_some() {
        check_trained(config, settings.sequential)?;
    }
    let outline = Outline::of(folder, config)?;
    let layers: Vec<Place> = outline.layers.iter().filter_map(Place::of).collect();
    // Budgets lie in no order; of several unknown names the first of the alphabet is told.
    if let Some(name) = settings.budgets.keys().filter(|name| !layers.iter().any(|l| l.name == **name)).min() {
        return Err(Error::unknown_layer(name, layers.iter().map(|l| l.name.as_str())));
    }
    let pruned: Vec<&Place> = layers.iter().filter(|l| settings.budgets.contains_key(&l.name)).collect();
    let mut layout = Layout::of(folder);
    layout.masks(pruned.iter().map(|l| l.tensor.as_str()))?;
    let (writer, records): (FolderWriter, Vec<LayerRecord>) = begin(out, layout, described, resume)?;
    let out = out.path();
    fits(out, &records, &pruned, &writer)?;
    let mut run = Run { folder, config, settings, layers, writer, records };
    let settled = config.settled(outline.tied).map_or(Ok(()), |config| run.writer.config(&config));
    match settled.and_then(|()| run.blocks(calibration, see)) {
        Ok(()) => Ok(PrunedFolder { writer: run.writer, records: run.records }),
        Err(error) if run.records.is_empty() => {
            run.writer.discard();
            Err(error)
        }
        Err(error) => Err(error.unfinished(FolderWriter::working_folder(out))),
    }
}

/// A run over all blocks.
struct Run<'a, 'p> {
    folder: &'a Folder,
    config: &'a Config,
    settings: &'a LanguagePruning<'p>,
    /// Every layer of a block.
    layers: Vec<Place>,
    writer: FolderWriter,
    /// Of the blocks that are done.
    records: Vec<LayerRecord>,
}

impl Run<'_, '_> {
    fn blocks(&mut self, calibration: &Sequences, see: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<()> {
        let (folder, config, settings) = (self.folder, self.config, self.settings);
        let Run { layers, writer, records, .. } = self;
        let mut saver = Saver::default();
        let mut layer = PruneLayer::new(settings, folder, records);
        let done = records.iter().map(|r: &LayerRecord| r.block + 1).max().unwrap_or(0);
        let last = layers.iter().filter(|l| settings.budgets.contains_key(&l.name)).map(|l| l.block).max().unwrap_or(0);
        if !Walk::measures(settings) {
            // Nothing runs: weights are read, pruned and written.
            for i in done..=last {
                let pruned = layers.iter().filter(|l| l.block == i && settings.budgets.contains_key(&l.name));
                let mut fresh = Vec::new();
                read_ahead(folder, &pruned.collect::<Vec<_>>(), |place, weight| {
                    fresh.push(layer.prune(place, weight.view(), &mut LayerStatistics::nothing(), writer)?.0);
                    Ok(())
                })?;
                if !fresh.is_empty() {
                    records.extend(fresh);
                    saver.save(records, writer)?;
                }
                Error::go_on(see(Progress { blocks: i + 1, of: last + 1, memory: peak_memory() }))?;
            }
            writer.copy_rest(folder)?;
            return saver.end();
        }
        if done > last {
            // All blocks were done when the run ended: nothing has to be measured any more.
            Error::go_on(see(Progress { blocks: last + 1, of: last + 1, memory: peak_memory() }))?;
            writer.copy_rest(folder)?;
            return Ok(());
        }
        let comparing = settings.correction.is_some() || settings.reconstruction.is_some();
        let compares = (comparing, settings.correction.is_some());
        let mut walk = Walk::new(folder, config, calibration, Walk::needs(settings), compares, &settings.memory)?;
        for i in 0..=last {
            let mut block = load_block(folder, config, i)?;
            let dense = if comparing { Some(DenseBlock::load(folder, config, i)?) } else { None };
            let any = layers.iter().any(|l| l.block == i && settings.budgets.contains_key(&l.name));
            if i < done || !any {
                if settings.inputs == CalibrationInputs::Pruned {
                    take_over(&mut block, settings, None, writer)?;
                }
                walk.pass(&block, dense.as_ref())?;
            } else {
                let mut turn = Turn { number: i, settings, layer: &mut layer, writer, fresh: Vec::new() };
                walk.block(&mut block, dense.as_ref(), (settings.sequential, settings.inputs), &mut turn)?;
                let fresh = turn.fresh;
                records.extend(fresh);
                saver.save(records, writer)?;
            }
            Error::go_on(see(Progress { blocks: i + 1, of: last + 1, memory: peak_memory() }))?;
        }
        writer.copy_rest(folder)?;
        saver.end()
    }
}

/// A block's turn.
struct Turn<'t, 'a, 'p> {
    number: usize,
    settings: &'a LanguagePruning<'p>,
    layer: &'t mut PruneLayer<'a, 'p>,
    writer: &'t mut FolderWriter,
    fresh: Vec<LayerRecord>,
}

impl Prune for Turn<'_, '_, '_> {
    fn prune(&mut self, block: &mut Block, found: &mut LayerStatistics, names: &[String]) -> Result<()> {
        let Turn { number, settings, layer, writer, fresh } = self;
        names.iter().filter(|n| settings.budgets.contains_key(*n)).try_for_each(|name| {
            fresh.push(layer.within(block, found, (name, *number), writer)?);
            Ok(())
        })
    }

    fn training(&self, block: &Block, what: Trained) -> Option<(BTreeSet<String>, BlockReconstruction)> {
        let how = self.settings.reconstruction?;
        Some((what.moving(block, |layer| self.settings.budgets.contains_key(layer)), how))
    }

    fn trained(&mut self, block: &mut Block, names: &BTreeSet<String>, found: Reconstructed) -> Result<()> {
        let of = |record: &LayerRecord| block.linears().iter().any(|l| l.name() == record.layer && names.contains(&l.tensor()));
        self.fresh.iter_mut().filter(|r| of(r)).for_each(|record| record.reconstructed = Some(found.errors));
        write_moved(block, names, self.writer)?;
        // What was written may have been rounded.
        take_over(block, self.settings, Some(names), self.writer)
    }
}

/// Notes what is done once it is on the disk, while the run goes on.
#[derive(Default)]
pub(in crate::prune) struct Saver(Option<JoinHandle<Result<()>>>);

impl Saver {
    pub(in crate::prune) fn save(&mut self, records: &impl Serialize, writer: &FolderWriter) -> Result<()> {
        self.end()?;
        let value = serde_json::to_value(records).map_err(|e| Error::invalid_option("records", e.to_string()))?;
        let sync = writer.sync_later((RECORDS, &value))?;
        self.0 = Some(std::thread::spawn(sync));
        Ok(())
    }

    /// Waits for what is being noted.
    pub(in crate::prune) fn end(&mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), |running| running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Saver {
    /// A run that fails leaves a folder in which nothing is written any more.
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            let _ = running.join();
        }
    }
}

fn check(settings: &LanguagePruning<'_>) -> Result<()> {
    if settings.inputs == CalibrationInputs::Dense && settings.sequential == Sequential::Layer {
        let reason = "dense inputs have no pruned layers before them; prune by whole blocks, or with pruned inputs";
        return Err(Error::invalid_option("inputs", reason));
    }
    if settings.correction.is_some() && settings.sequential == Sequential::Block {
        return Err(Error::invalid_option("correct", "layers make up for earlier ones only where they are pruned in turn"));
    }
    if settings.inputs == CalibrationInputs::Dense && settings.reconstruction.is_some() {
        return Err(Error::invalid_option(
            "reconstruct-blocks",
            "blocks are reconstructed on pruned inputs, not on --inputs dense",
        ));
    }
    if settings.budgets.is_empty() {
        return Err(Error::invalid_option("layers", "none is left to prune"));
    }
    Ok(())
}

/// Writes what of a block was trained.
pub(in crate::prune) fn write_moved(block: &Block, names: &BTreeSet<String>, writer: &mut FolderWriter) -> Result<()> {
    let turned: BTreeSet<String> = block.linears().into_iter().filter(|l| l.is_transposed()).map(Linear::tensor).collect();
    let mut result = Ok(());
    block.visit(&mut |name, values, _| {
        if result.is_ok() && names.contains(name) {
            let values = if turned.contains(name) { values.reversed_axes() } else { values };
            result = WeightsMut::write(writer, name, values);
        }
    });
    result
}

/// Puts the norms and biases that were written into a block, those that are wanted.
pub(in crate::prune) fn read_vectors(block: &mut Block, wanted: impl Fn(&str) -> bool, writer: &FolderWriter) -> Result<()> {
    let mut result = Ok(());
    block.visit_mut(&mut |name, values, _| {
        if result.is_ok() && wanted(name) && writer.is_written(name) && writer.rank(name) == Some(1) {
            result = writer.read(name).map(|read| values.iter_mut().zip(&read).for_each(|(v, r)| *v = *r));
        }
    })?;
    result
}

/// Puts the weights that were written into a block, and what else of it was; of a block at which a run is, what has these names alone: an earlier run may
/// have written more of it.
fn take_over(
    block: &mut Block,
    settings: &LanguagePruning<'_>,
    only: Option<&BTreeSet<String>>,
    writer: &FolderWriter,
) -> Result<()> {
    let mine = |name: &str| only.is_none_or(|only| only.contains(name));
    if settings.reconstruction.is_some() {
        let names = Trained::Block.moving(block, |layer| settings.budgets.contains_key(layer));
        read_vectors(block, |name| mine(name) && names.contains(name), writer)?;
    }
    let written =
        |l: &&mut Linear| mine(&l.tensor()) && settings.budgets.contains_key(l.name()) && writer.is_written(&l.tensor());
    for layer in block.linears_mut().into_iter().filter(written) {
        layer.set_weight(read_back(writer, &layer.tensor(), layer.is_transposed())?)?;
    }
    Ok(())
}
