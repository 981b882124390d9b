//! The run over all blocks: what is written, what is recorded, and how it is taken up again.

use super::tally::Found;
use super::walk::Walk;
use super::{Inputs, LanguagePruning, Turn};
use crate::criteria::Evidence;
use crate::io::{Folder, FolderWriter, Layout, one_line, quoted};
use crate::mask::Mask;
use crate::metrics::peak_memory;
use crate::models::lm::{Config, Outline, Outlined, load_block};
use crate::nn::Block;
use crate::solve::{Retarget, squared_error};
use crate::{Error, Result};
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Instant;

/// What became of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its name.
    pub layer: String,
    /// Number of its block.
    pub block: usize,
    /// `(out, in)`.
    pub shape: (usize, usize),
    /// Weights that stay.
    pub kept: usize,
    /// Tokens that were measured.
    pub tokens: usize,
    /// ‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖², towards the weight that was to be met; `None` where no Gram matrix was measured.
    pub error: Option<f64>,
    /// Seconds of pruning, without measuring.
    pub seconds: f64,
}

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

/// In the working folder: what was asked for, and the records of the blocks that are done.
const SETTINGS: &str = ".settings.json";
const RECORDS: &str = ".records.json";

/// Prunes the model in `folder` on `ids`, whole sequences of `length` tokens, and writes it to `out` with its masks: tensors that are
/// not pruned are copied byte by byte. `described` is what the run was asked for; it is kept beside what is written, and a run is only
/// taken up again by one that was asked for the same. `see` is told after each block.
///
/// With `resume` a run that was interrupted goes on behind its last whole block, and gives the bits that it would have given.
///
/// # Errors
/// If a budget names no layer of the model, the settings exclude each other, a pruner fails (naming the layer), the model cannot be read
/// or `out` cannot be written; with `resume`, if there is no such run or it was asked for something else.
pub fn prune_language(
    folder: &Folder,
    config: &Config,
    (ids, length): (&[u32], usize),
    settings: &LanguagePruning<'_>,
    (out, described, resume): (&Path, &Value, bool),
    see: &mut dyn FnMut(Progress),
) -> Result<(FolderWriter, Vec<LayerRecord>)> {
    check(ids, length, settings)?;
    let outline = Outline::of(folder, config)?;
    let layers: Vec<Place> = outline.layers.iter().filter_map(Place::of).collect();
    if let Some(name) = settings.budgets.keys().find(|name| !layers.iter().any(|l| l.name == **name)) {
        return Err(Error::unknown_layer(name, layers.iter().map(|l| l.name.as_str())));
    }
    let pruned: Vec<&Place> = layers.iter().filter(|l| settings.budgets.contains_key(&l.name)).collect();
    let mut layout = Layout::of(folder);
    layout.masks(pruned.iter().map(|l| l.tensor.as_str()))?;
    let (writer, records) = begin(out, layout, described, resume)?;
    fits(out, &records, &pruned, &writer)?;
    let begun = !records.is_empty();
    let mut run = Run { folder, config, settings, layers, writer, records };
    match run.blocks(ids, length, see) {
        Ok(()) => Ok((run.writer, run.records)),
        Err(error) => {
            // What was done is kept for a run that goes on from there; nothing is not.
            if !begun && run.records.is_empty() {
                let part = FolderWriter::working_folder(out);
                drop(run);
                let _ = std::fs::remove_dir_all(part);
            }
            Err(error)
        }
    }
}

/// Where a layer stands in the model and in its files.
struct Place {
    block: usize,
    name: String,
    tensor: String,
    /// The shape in the checkpoint.
    stored: (usize, usize),
    transposed: bool,
}

impl Place {
    fn of(layer: &Outlined) -> Option<Place> {
        let [rows, cols] = layer.stored_shape();
        let (name, tensor) = (layer.name.clone(), layer.tensor());
        Some(Place { block: layer.block?, name, tensor, stored: (rows, cols), transposed: layer.transposed })
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
    fn blocks(&mut self, ids: &[u32], length: usize, see: &mut dyn FnMut(Progress)) -> Result<()> {
        let (folder, config, settings) = (self.folder, self.config, self.settings);
        let Run { layers, writer, records, .. } = self;
        let mut saver = Saver::default();
        let done = records.iter().map(|r: &LayerRecord| r.block + 1).max().unwrap_or(0);
        let last = layers.iter().filter(|l| settings.budgets.contains_key(&l.name)).map(|l| l.block).max().unwrap_or(0);
        if !Walk::measures(settings) {
            // Nothing runs: weights are read, pruned and written.
            for i in done..=last {
                let pruned = layers.iter().filter(|l| l.block == i && settings.budgets.contains_key(&l.name));
                let fresh = read_ahead(folder, pruned.collect(), |layer, weight| {
                    one(layer, weight.view(), &Found::nothing(), settings, folder, writer)
                })?;
                if !fresh.is_empty() {
                    records.extend(fresh);
                    saver.save(records, writer)?;
                }
                see(Progress { blocks: i + 1, of: last + 1, memory: peak_memory() });
            }
            writer.copy_rest(folder)?;
            return saver.end();
        }
        let comparing = settings.correction.is_some();
        let mut walk = Walk::new(folder, config, (ids, length), (Walk::needs(settings), comparing), settings.memory)?;
        for i in 0..=last {
            let mut block = load_block(folder, config, i)?;
            let dense = if comparing { Some(load_block(folder, config, i)?) } else { None };
            let any = layers.iter().any(|l| l.block == i && settings.budgets.contains_key(&l.name));
            if i < done || !any {
                if settings.inputs == Inputs::Pruned {
                    take_over(&mut block, settings, writer)?;
                }
                walk.pass(&block, dense.as_ref())?;
            } else {
                let mut fresh = Vec::new();
                walk.block(&mut block, dense.as_ref(), settings, &mut |block, found, names| {
                    names.iter().filter(|n| settings.budgets.contains_key(*n)).try_for_each(|name| {
                        fresh.push(within(block, found, name, i, settings, folder, writer)?);
                        Ok(())
                    })
                })?;
                records.extend(fresh);
                saver.save(records, writer)?;
            }
            see(Progress { blocks: i + 1, of: last + 1, memory: peak_memory() });
        }
        writer.copy_rest(folder)?;
        saver.end()
    }
}

/// Notes what is done once it is on the disk, while the run goes on.
#[derive(Default)]
struct Saver(Option<JoinHandle<Result<()>>>);

impl Saver {
    fn save(&mut self, records: &[LayerRecord], writer: &FolderWriter) -> Result<()> {
        self.end()?;
        let value = serde_json::to_value(records).map_err(|e| Error::setting("records", e.to_string()))?;
        let sync = writer.sync_later((RECORDS, &value))?;
        self.0 = Some(std::thread::spawn(sync));
        Ok(())
    }

    /// Waits for what is being noted.
    fn end(&mut self) -> Result<()> {
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

/// Calls `f` with each layer and its weight `(out, in)`, the next of which is read meanwhile.
fn read_ahead<T>(folder: &Folder, layers: Vec<&Place>, mut f: impl FnMut(&Place, Array2<f32>) -> Result<T>) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let (send, weights) = std::sync::mpsc::sync_channel(0);
        let names = &layers;
        scope.spawn(move || {
            for layer in names {
                let weight = folder.matrix(&layer.tensor, layer.stored).map(|w| turned_weight(w, layer.transposed));
                // Nobody listens any more after an error.
                if send.send(weight).is_err() {
                    return;
                }
            }
        });
        layers.iter().zip(&weights).map(|(layer, weight)| f(layer, weight?)).collect()
    })
}

fn check(ids: &[u32], length: usize, settings: &LanguagePruning<'_>) -> Result<()> {
    if length == 0 || ids.is_empty() || ids.len() % length != 0 {
        return Err(Error::setting("calibration", format!("{} tokens are not whole sequences of {length}", ids.len())));
    }
    if settings.inputs == Inputs::Dense && settings.turn == Turn::Layer {
        let reason = "dense inputs have no pruned layers before them; prune by whole blocks, or with pruned inputs";
        return Err(Error::setting("inputs", reason));
    }
    if settings.correction.is_some() && settings.turn == Turn::Block {
        return Err(Error::setting("correct", "layers make up for earlier ones only where they are pruned in turn"));
    }
    if settings.budgets.is_empty() {
        return Err(Error::setting("layers", "none is left to prune"));
    }
    Ok(())
}

/// What the unfinished run towards `out` was asked for: the `described` of [`prune_language`].
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn unfinished_settings(out: &Path) -> Result<Value> {
    let part = FolderWriter::working_folder(out);
    let none = || Error::malformed(&part, "holds no unfinished run; begin without --resume");
    kept(&part, SETTINGS)?.ok_or_else(none)
}

/// A file of a working folder, if it is there.
fn kept(part: &Path, name: &str) -> Result<Option<Value>> {
    let path = part.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    serde_json::from_slice(&text).map(Some).map_err(|e| Error::malformed(&path, e.to_string()))
}

/// The writer and the records so far.
fn begin(out: &Path, layout: Layout, described: &Value, resume: bool) -> Result<(FolderWriter, Vec<LayerRecord>)> {
    if !resume {
        let part = FolderWriter::working_folder(out);
        if part.is_dir() && !part.join(SETTINGS).exists() {
            // A run that ended before it had begun: there is nothing to take up.
            std::fs::remove_dir_all(&part).map_err(|e| Error::io(&part, e))?;
        }
        let writer = FolderWriter::create_resumable(out, layout)?;
        writer.json(SETTINGS, described)?;
        return Ok((writer, vec![]));
    }
    let before = unfinished_settings(out)?;
    let part = FolderWriter::working_folder(out);
    if let (Value::Object(before), Value::Object(now)) = (&before, described)
        && let Some((key, value)) = now.iter().find(|(key, value)| before.get(*key) != Some(value))
    {
        let old = before.get(key).map_or("nothing".to_string(), |old| one_line(&old.to_string(), 200));
        let value = one_line(&value.to_string(), 200);
        let reason = format!("the unfinished run has {old}, this one {value}; ask for the same, or remove {}", part.display());
        return Err(Error::setting(key, reason));
    }
    let writer = FolderWriter::resume(out, layout)?;
    let refuse = |e: serde_json::Error| Error::malformed(part.join(RECORDS), one_line(&e.to_string(), 300));
    let records = kept(&part, RECORDS)?.map(serde_json::from_value).transpose().map_err(refuse)?;
    Ok((writer, records.unwrap_or_default()))
}

/// Refuses records that say more than was written, or leave out a layer of a block that is done.
fn fits(out: &Path, records: &[LayerRecord], pruned: &[&Place], writer: &FolderWriter) -> Result<()> {
    let refuse = |reason: String| {
        let path = FolderWriter::working_folder(out).join(RECORDS);
        Err(Error::malformed(path, format!("{reason}; remove its folder to begin anew")))
    };
    for record in records {
        let (name, block) = (quoted(&record.layer), record.block);
        let Some(layer) = pruned.iter().find(|l| (&l.name, l.block) == (&record.layer, block)) else {
            return refuse(format!("names the layer {name} of block {block}, which this run does not prune"));
        };
        if !writer.is_written(&layer.tensor) || !writer.is_mask_written(&layer.tensor) {
            return refuse(format!("says that the layer {name} is done, which was not written"));
        }
    }
    let done = records.iter().map(|r| r.block).max();
    match pruned.iter().find(|l| Some(l.block) <= done && !records.iter().any(|r| r.layer == l.name)) {
        Some(l) => refuse(format!("leaves out the layer {} of block {}, which is done", quoted(&l.name), l.block)),
        None => Ok(()),
    }
}

/// Puts the weights that were written into a block.
fn take_over(block: &mut Block, settings: &LanguagePruning<'_>, writer: &FolderWriter) -> Result<()> {
    for layer in block.linears_mut().into_iter().filter(|l| settings.budgets.contains_key(l.name())) {
        layer.set_weight(read_back(writer, &layer.tensor(), layer.is_transposed())?)?;
    }
    Ok(())
}

fn read_back(writer: &FolderWriter, tensor: &str, transposed: bool) -> Result<Array2<f32>> {
    Ok(turned_weight(writer.read_matrix(tensor)?, transposed))
}

/// A weight as the checkpoint holds it, as `(out, in)`.
fn turned_weight(stored: Array2<f32>, transposed: bool) -> Array2<f32> {
    if transposed { stored.t().as_standard_layout().into_owned() } else { stored }
}

/// A mask in the other layout of the weight, if that is how the checkpoint holds it.
fn turned(mask: Mask, transposed: bool) -> Mask {
    let (rows, cols) = mask.dim();
    if transposed { Mask::from_fn(cols, rows, |r, c| mask.get(c, r)) } else { mask }
}

/// The mask `(out, in)` that an earlier run has left beside the weight.
pub(super) fn mask_before(tensor: &str, transposed: bool, folder: &Folder) -> Result<Option<Mask>> {
    let found = folder.masks().map(|m| m.read(tensor)).transpose()?.flatten();
    Ok(found.map(|mask| turned(mask, transposed)))
}

/// Prunes one layer of a block, writes it, and lets the block go on with what was written.
fn within(
    block: &mut Block,
    found: &Found,
    name: &str,
    number: usize,
    settings: &LanguagePruning<'_>,
    folder: &Folder,
    writer: &mut FolderWriter,
) -> Result<LayerRecord> {
    let begun = Instant::now();
    let misplaced = || Error::unknown_layer(name, std::iter::empty());
    let layer = block.linears_mut().into_iter().find(|l| l.name() == name).ok_or_else(misplaced)?;
    let (tensor, transposed) = (layer.tensor(), layer.is_transposed());
    let weight = layer.dense_weight();
    let stored = if transposed { (weight.ncols(), weight.nrows()) } else { weight.dim() };
    let place = Place { block: number, name: name.to_string(), tensor, stored, transposed };
    let record = one(&place, weight.view(), found, settings, folder, writer)?;
    // What was written may have been rounded.
    layer.set_weight(read_back(writer, &place.tensor, transposed)?)?;
    Ok(LayerRecord { seconds: begun.elapsed().as_secs_f64(), ..record })
}

/// Prunes one layer and writes it.
fn one(
    layer: &Place,
    weight: ArrayView2<'_, f32>,
    found: &Found,
    settings: &LanguagePruning<'_>,
    folder: &Folder,
    writer: &mut FolderWriter,
) -> Result<LayerRecord> {
    let begun = Instant::now();
    let (name, tensor, transposed) = (&*layer.name, &*layer.tensor, layer.transposed);
    let old = mask_before(tensor, transposed, folder)?;
    let measured = &*found.with_gradients(name, settings.gradients)?;
    let evidence = Evidence { layer: name, weight, mask: old.as_ref(), measured };
    let in_layer = |e: Error| if e.to_string().contains(name) { e } else { e.in_layer(name) };
    let target = match settings.correction {
        None => None,
        Some(c) => {
            let inputs = found.crossed.as_ref().map(|m| (c.inputs, m.matrix()));
            let stream = found.drift.as_ref().map(|m| (c.stream, m.matrix()));
            Some(Retarget { damping: c.damping, inputs, stream }.run(&evidence).map_err(in_layer)?)
        }
    };
    let evidence = Evidence { weight: target.as_ref().map_or(weight, |t| t.view()), ..evidence };
    let budget = settings.budgets[name];
    let pruned = settings.pruner.prune(&evidence, settings.pattern, settings.scope, budget).map_err(in_layer)?;
    let error = pruned.loss.zip(measured.gram.as_ref()).map(|(loss, gram)| {
        let whole = squared_error(&evidence.weight, &Array2::zeros(evidence.weight.dim()), gram);
        if whole > 0.0 { loss / whole } else { 0.0 }
    });
    let (shape, kept) = (pruned.mask.dim(), pruned.mask.kept());
    if transposed {
        writer.write(tensor, &pruned.weight.t())?;
    } else {
        writer.write(tensor, &pruned.weight)?;
    }
    writer.write_mask(tensor, &turned(pruned.mask, transposed))?;
    let (layer, block, seconds) = (name.to_string(), layer.block, begun.elapsed().as_secs_f64());
    Ok(LayerRecord { layer, block, shape, kept, tokens: measured.tokens, error, seconds })
}
