//! The run over all blocks: what is written, what is recorded, and how it is taken up again.

use super::record::QuantRecord;
use super::rescale::Rescaling;
use crate::calibrate::LayerStatistics;
use crate::criteria::{Evidence, Need, Needs};
use crate::data::Sequences;
use crate::eval::peak_memory;
use crate::io::{Folder, FolderWriter, Layout, Output, QuantLayout, RECORDS, quoted};
use crate::lm::{Config, Outline, load_block};
use crate::mask::Mask;
use crate::nn::Block;
use crate::prune::language::{
    DenseBlock, Place, Prune, Reconstructed, Saver, Trained, Walk, begin, check_trained, mask_before, read_ahead, read_vectors,
    write_moved,
};
use crate::prune::{
    ActivationMemory, BlockReconstruction, CalibrationInputs, Correction, Progress, Sequential, check_measurable,
};
use crate::quantize::{CodeGrid, Codes};
use crate::solve::{InputScaling, Quantizer, Retarget, squared_error};
use crate::sparse::ActivationBits;
use crate::train::FakeQuantized;
use crate::{Error, Result};
use ndarray::{Array2, ArrayView2};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::time::Instant;

/// How a language model is quantised.
#[derive(Debug, Clone)]
pub struct LanguageQuantizing<'a> {
    /// By whom.
    pub quantizer: &'a dyn Quantizer,
    /// In which codes.
    pub grid: CodeGrid,
    /// How codes lie in files.
    pub layout: QuantLayout,
    /// The layers that are quantised, by name.
    pub layers: BTreeSet<String>,
    /// Whether a mask comes about in the same loop.
    pub prunes: bool,
    /// Whether inputs are scaled before. Only with [`Sequential::Block`].
    pub scales: Option<InputScaling>,
    /// From which model the inputs come.
    pub inputs: CalibrationInputs,
    /// When the layers of a block are quantised.
    pub sequential: Sequential,
    /// Whether layers make up for earlier ones. Only with [`Sequential::Layer`].
    pub correction: Option<Correction>,
    /// Whether blocks are trained on their levels towards the dense model's hidden states. Not on dense inputs, nor with codes of 1 bit.
    pub reconstruction: Option<BlockReconstruction>,
    /// Of how many bits `config.json` says that activations are: 8 only of [`QuantLayout::IntQuantized`].
    pub activations: ActivationBits,
    /// What `config.json` says of the damping, where there is one.
    pub damping: Option<f64>,
    /// Where activations lie while the run lasts.
    pub memory: ActivationMemory,
}

impl LanguageQuantizing<'_> {
    /// What must be measured.
    fn needs(&self) -> Needs {
        let needs = self.quantizer.needs();
        let needs = self.scales.map_or(needs, |scales| needs.union(scales.needs()));
        if self.correction.is_some() { needs.and(Need::Gram) } else { needs }
    }

    /// Whether the model runs on the calibration.
    fn measures(&self) -> bool {
        self.needs().iter().next().is_some() || self.reconstruction.is_some()
    }

    fn check(&self) -> Result<()> {
        if self.inputs == CalibrationInputs::Dense && self.sequential == Sequential::Layer {
            let reason = "dense inputs have no quantised layers before them; quantise by whole blocks, or on pruned inputs";
            return Err(Error::invalid_option("inputs", reason));
        }
        if self.correction.is_some() && self.sequential == Sequential::Block {
            return Err(Error::invalid_option(
                "correct",
                "layers make up for earlier ones only where they are quantised in turn",
            ));
        }
        if self.inputs == CalibrationInputs::Dense && self.reconstruction.is_some() {
            let reason = "blocks are reconstructed on inputs from blocks in codes, not on --inputs dense";
            return Err(Error::invalid_option("reconstruct-blocks", reason));
        }
        if self.scales.is_some() && self.sequential == Sequential::Layer {
            return Err(Error::invalid_option("turn", "inputs are scaled by whole blocks: give block"));
        }
        if self.layers.is_empty() {
            return Err(Error::invalid_option("layers", "none is left to quantise"));
        }
        self.layout.check_activations(self.activations)?;
        self.layout.check(self.grid)
    }
}

/// What [`quantize_language`] is given.
#[derive(Debug, Clone, Copy)]
pub struct QuantizeRun<'a> {
    /// The model.
    pub folder: &'a Folder,
    /// What its `config.json` says.
    pub config: &'a Config,
    /// The tokens on which inputs are measured; [`Sequences::nothing`] where none are.
    pub calibration: &'a Sequences,
    /// How it is quantised.
    pub quantizing: &'a LanguageQuantizing<'a>,
    /// Where the model is written.
    pub out: &'a Output,
    /// What the run was asked for. It is kept beside what is written, and a run is only taken up again by one that was asked for the same.
    pub described: &'a Value,
    /// Whether a run that was interrupted goes on behind its last whole block. It gives the bits that it would have given.
    pub resume: bool,
}

/// A folder whose codes are all written, and which has not its name yet.
#[must_use = "the folder has its name once it is finished"]
pub struct QuantizedFolder {
    /// It takes further files, and [`FolderWriter::finish`] gives the folder its name.
    pub writer: FolderWriter,
    /// What became of each layer.
    pub records: Vec<QuantRecord>,
}

impl fmt::Debug for QuantizedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantizedFolder").field("records", &self.records).finish_non_exhaustive()
    }
}

/// Quantises the model in `run.folder` and writes it to `run.out`: embedding, head, norms and all that is not named are copied byte by byte, but for norms and biases into
/// which scales were folded. Masks stay beside. `see` is told after each block, and may stop.
///
/// An error, and a stop, leaves the working folder to be taken up again, unless no block was done: then nothing is left.
///
/// # Errors
/// If a name is that of no layer, settings exclude each other, the layout has not such codes or not of such a layer, inputs of an encoder-decoder would have to be
/// measured, a quantiser fails (naming the layer), the model cannot be read or `out` cannot be written; if the working folder of another run is there; with
/// `resume`, if there is no such run or it was asked for something else. [`Error::Interrupted`] if `see` stops; [`Error::Unfinished`] around any of them when a block was done.
pub fn quantize_language(run: QuantizeRun<'_>, see: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<QuantizedFolder> {
    let QuantizeRun { folder, config, quantizing: settings, out, described, resume, .. } = run;
    settings.check()?;
    if settings.measures() {
        check_measurable(config)?;
    }
    if settings.reconstruction.is_some() {
        check_trained(config, settings.sequential)?;
    }
    let outline = Outline::of(folder, config)?;
    let all: Vec<Place> = outline.layers.iter().filter_map(Place::of).collect();
    if let Some(name) = settings.layers.iter().find(|name| !all.iter().any(|l| l.name == **name)) {
        return Err(Error::unknown_layer(name, all.iter().map(|l| l.name.as_str())));
    }
    let places: Vec<Place> = all.into_iter().filter(|l| settings.layers.contains(&l.name)).collect();
    if let Some(turned) = places.iter().find(|l| l.transposed) {
        let reason = "is held (in, out), which layouts of codes have not; they are of linear layers (out, in)";
        return Err(Error::invalid_option("layout", reason).in_layer(&turned.name));
    }
    let masked: Vec<String> = folder
        .names()
        .filter(|n| folder.has_mask(n) || settings.prunes && places.iter().any(|l| l.tensor == **n))
        .map(String::from)
        .collect();
    let mut layout = Layout::of(folder);
    layout.masks_of(&masked, folder)?;
    places.iter().try_for_each(|l| layout.codes(&l.tensor, settings.layout, settings.grid))?;
    let (writer, records): (FolderWriter, Vec<QuantRecord>) = begin(out, layout, described, resume)?;
    let mut state = State { run, places, writer, records };
    state.fits()?;
    let coded = |n: &str| state.places.iter().any(|l| l.tensor == n);
    let mut json = config.settled(outline.tied).unwrap_or_else(|| folder.config().clone());
    let whole = whole_layers(folder, &coded);
    json.insert(
        "quantization_config".into(),
        settings.layout.config(settings.grid, &whole, settings.damping, settings.activations),
    );
    match state.writer.config(&json).and_then(|()| state.blocks(see)) {
        Ok(()) => Ok(QuantizedFolder { writer: state.writer, records: state.records }),
        Err(error) if state.records.is_empty() => {
            state.writer.discard();
            Err(error)
        }
        Err(error) => Err(error.unfinished(FolderWriter::working_folder(out.path()))),
    }
}

/// The names of all that has a matrix of weights and is not in codes; the head among them, tied or not.
pub(crate) fn whole_layers(folder: &Folder, coded: &dyn Fn(&str) -> bool) -> Vec<String> {
    let matrix = |n: &&str| n.ends_with(".weight") && folder.shape(n).is_ok_and(|s| s.len() == 2);
    let mut all: Vec<String> =
        folder.names().filter(|n| matrix(n) && !coded(n)).filter_map(|n| n.strip_suffix(".weight")).map(String::from).collect();
    if !all.iter().any(|n| n == "lm_head") {
        all.push("lm_head".into());
    }
    all
}

/// A run, what it writes and what it has done.
struct State<'a> {
    run: QuantizeRun<'a>,
    places: Vec<Place>,
    writer: FolderWriter,
    records: Vec<QuantRecord>,
}

impl State<'_> {
    /// Refuses records that say other than was written.
    fn fits(&self) -> Result<()> {
        let settings = self.run.quantizing;
        let refuse = |reason: String| {
            let path = FolderWriter::working_folder(self.run.out.path()).join(RECORDS);
            Err(Error::malformed(path, format!("{reason}; remove its folder to begin anew")))
        };
        for record in &self.records {
            let name = quoted(&record.layer);
            let Some(place) = self.places.iter().find(|l| (&l.name, l.block) == (&record.layer, record.block)) else {
                return refuse(format!("names the layer {name} of block {}, which this run does not quantise", record.block));
            };
            let done = self.writer.is_codes_written(&place.tensor, settings.layout, place.shape(), settings.grid);
            if !done || record.shape != place.shape() {
                return refuse(format!("says that the layer {name} of {:?} is done, which was not written", record.shape));
            }
        }
        let done = self.records.iter().map(|r| r.block).max();
        match self.places.iter().find(|l| Some(l.block) <= done && !self.records.iter().any(|r| r.layer == l.name)) {
            Some(l) => refuse(format!("leaves out the layer {} of block {}, which is done", quoted(&l.name), l.block)),
            None => Ok(()),
        }
    }

    fn blocks(&mut self, see: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<()> {
        let State { run, places, writer, records } = self;
        let QuantizeRun { folder, config, calibration, quantizing: settings, .. } = *run;
        let mut saver = Saver::default();
        let done = records.iter().map(|r: &QuantRecord| r.block + 1).max().unwrap_or(0);
        let last = places.iter().map(|l| l.block).max().unwrap_or(0);
        let progress = |blocks: usize| Progress { blocks, of: last + 1, memory: peak_memory() };
        // Masks of layers that are not quantised stay as they are.
        for name in folder.names().filter(|n| folder.has_mask(n) && !places.iter().any(|l| l.tensor == **n)) {
            if let Some(mask) = folder.mask(name)? {
                writer.write_mask(name, &mask)?;
            }
        }
        if !settings.measures() {
            for i in done..=last {
                let mut fresh = Vec::new();
                let these: Vec<&Place> = places.iter().filter(|l| l.block == i).collect();
                read_ahead(folder, &these, |place, weight| {
                    let mut turn = Turn::new((settings, folder, places), &mut *writer, &mut fresh);
                    turn.one(place, weight.view(), &mut LayerStatistics::nothing()).map(|_| ())
                })?;
                if !fresh.is_empty() {
                    records.extend(fresh);
                    saver.save(records, writer)?;
                }
                Error::go_on(see(progress(i + 1)))?;
            }
            writer.copy_rest(folder)?;
            return saver.end();
        }
        if done > last {
            Error::go_on(see(progress(last + 1)))?;
            return writer.copy_rest(folder);
        }
        let comparing = settings.correction.is_some() || settings.reconstruction.is_some();
        let mut walk = Walk::new(
            folder,
            config,
            calibration,
            settings.needs(),
            (comparing, settings.correction.is_some()),
            &settings.memory,
        )?;
        for i in 0..=last {
            let mut block = load_block(folder, config, i)?;
            let dense = if comparing { Some(DenseBlock::load(folder, config, i)?) } else { None };
            if i < done || !places.iter().any(|l| l.block == i) {
                if settings.inputs == CalibrationInputs::Pruned {
                    take_over(&mut block, settings, None, writer)?;
                }
                walk.pass(&block, dense.as_ref())?;
            } else {
                let mut fresh = Vec::new();
                let mut turn = Turn::new((settings, folder, places), writer, &mut fresh);
                walk.block(&mut block, dense.as_ref(), (settings.sequential, settings.inputs), &mut turn)?;
                records.extend(fresh);
                saver.save(records, writer)?;
            }
            Error::go_on(see(progress(i + 1)))?;
        }
        writer.copy_rest(folder)?;
        saver.end()
    }
}

/// A block's turn.
struct Turn<'a> {
    settings: &'a LanguageQuantizing<'a>,
    folder: &'a Folder,
    places: &'a [Place],
    writer: &'a mut FolderWriter,
    fresh: &'a mut Vec<QuantRecord>,
    exponents: BTreeMap<String, f64>,
    /// Of the layers that are in codes, by the names of their weights, where these are trained.
    codes: BTreeMap<String, (Codes, Option<Mask>)>,
}

impl<'a> Turn<'a> {
    fn new(
        (settings, folder, places): (&'a LanguageQuantizing<'a>, &'a Folder, &'a [Place]),
        writer: &'a mut FolderWriter,
        fresh: &'a mut Vec<QuantRecord>,
    ) -> Turn<'a> {
        Turn { settings, folder, places, writer, fresh, exponents: BTreeMap::new(), codes: BTreeMap::new() }
    }
}

impl Prune for Turn<'_> {
    fn prepare(&mut self, block: &mut Block, found: &mut [LayerStatistics]) -> Result<()> {
        let Some(scaling) = self.settings.scales else { return Ok(()) };
        let rescaling = Rescaling { scaling, grid: self.settings.grid, selected: &self.settings.layers };
        self.exponents = rescaling.run(block, found, self.writer)?;
        Ok(())
    }

    fn prune(&mut self, block: &mut Block, found: &mut LayerStatistics, names: &[String]) -> Result<()> {
        for name in names.iter().filter(|n| self.settings.layers.contains(*n)) {
            let misplaced = || Error::unknown_layer(name, std::iter::empty());
            let place = self.places.iter().find(|l| l.name == **name).ok_or_else(misplaced)?;
            let layer = block.linears_mut().into_iter().find(|l| l.name() == name).ok_or_else(misplaced)?;
            let weight = layer.dense_weight().into_owned();
            let (weight, mask) = self.one(place, weight.view(), found)?;
            layer.set_weight(weight)?;
            layer.set_mask(mask)?;
        }
        Ok(())
    }

    fn training(&self, block: &Block, what: Trained) -> Option<(BTreeSet<String>, BlockReconstruction)> {
        Some((what.moving(block, |layer| self.settings.layers.contains(layer)), self.settings.reconstruction?))
    }

    fn levels(&self, names: &BTreeSet<String>) -> Result<Option<FakeQuantized>> {
        let codes = self.codes.iter().filter(|(name, _)| names.contains(*name)).map(|(n, c)| (n.clone(), c.clone()));
        FakeQuantized::of_codes(codes.collect(), self.settings.grid).map(Some)
    }

    fn trained(&mut self, block: &mut Block, names: &BTreeSet<String>, found: Reconstructed) -> Result<()> {
        let of = |record: &QuantRecord| block.linears().iter().any(|l| l.name() == record.layer && names.contains(&l.tensor()));
        self.fresh.iter_mut().filter(|r| of(r)).for_each(|record| record.reconstructed = Some(found.errors));
        let coded: BTreeSet<String> = found.levels.iter().flat_map(FakeQuantized::names).map(String::from).collect();
        for (levels, name) in found.levels.iter().flat_map(|levels| coded.iter().map(move |name| (levels, name))) {
            self.writer.write_codes(name, self.settings.layout, &levels.codes(name)?, self.settings.grid.scales)?;
        }
        write_moved(block, &names.difference(&coded).cloned().collect(), self.writer)?;
        // What was written may have been rounded.
        take_over(block, self.settings, Some(names), self.writer)
    }
}

impl Turn<'_> {
    /// Quantises one layer and writes it; its weight and mask as they are from here on.
    fn one(
        &mut self,
        place: &Place,
        weight: ArrayView2<'_, f32>,
        found: &mut LayerStatistics,
    ) -> Result<(Array2<f32>, Option<Mask>)> {
        let begun = Instant::now();
        let (settings, name, tensor) = (self.settings, &*place.name, &*place.tensor);
        let old = mask_before(tensor, false, self.folder)?;
        let measured = found.inputs();
        let evidence = Evidence { layer: name, weight, mask: old.as_ref(), measured };
        let target = match settings.correction {
            None => None,
            Some(c) => {
                let inputs = found.crossed.as_ref().map(|m| (c.inputs, m.matrix()));
                let hidden_states = found.drift.as_ref().map(|m| (c.hidden_states, m.matrix()));
                let retarget = Retarget { damping: c.damping, inputs, hidden_states };
                Some(retarget.run(&evidence).map_err(|e| e.in_layer(name))?)
            }
        };
        let evidence = Evidence { weight: target.as_ref().map_or(weight, |t| t.view()), ..evidence };
        let rounded = settings.quantizer.quantize(&evidence, settings.grid).map_err(|e| e.in_layer(name))?;
        if rounded.weight.dim() != weight.dim() || rounded.codes.dim() != weight.dim() {
            let ((rows, cols), found) = (weight.dim(), [rounded.weight.nrows(), rounded.weight.ncols()]);
            return Err(Error::shape("quantised weight", &[rows, cols], &found).in_layer(name));
        }
        let error = rounded.loss.zip(measured.gram.as_ref()).map(|(loss, gram)| {
            let whole = squared_error(&evidence.weight, &Array2::zeros(evidence.weight.dim()), gram);
            if whole > 0.0 { loss / whole } else { 0.0 }
        });
        self.writer.write_codes(tensor, settings.layout, &rounded.codes, settings.grid.scales).map_err(|e| e.in_layer(name))?;
        if let Some(mask) = &rounded.mask {
            self.writer.write_mask(tensor, mask)?;
        }
        let scale = if settings.grid.scales == crate::quantize::ScaleType::F32 { 32 } else { 16 };
        if settings.reconstruction.is_some() {
            self.codes.insert(tensor.to_string(), (rounded.codes.clone(), rounded.mask.clone()));
        }
        self.fresh.push(QuantRecord {
            layer: name.to_string(),
            block: place.block,
            shape: place.shape(),
            bits: rounded.codes.bits_a_weight(scale),
            kept: rounded.mask.as_ref().map(Mask::kept),
            tokens: measured.tokens,
            error,
            moved: moved(weight, &rounded.weight),
            exponent: self.exponents.get(name).copied(),
            reconstructed: None,
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok((rounded.weight, rounded.mask))
    }
}

/// ‖Ŵ − W‖² / ‖W‖²; 0 of a weight that is 0 and stays it, none of one that does not.
fn moved(weight: ArrayView2<'_, f32>, now: &Array2<f32>) -> Option<f64> {
    let (moved, whole) = weight.iter().zip(now).fold((0.0, 0.0), |(moved, whole), (&w, &q)| {
        let (w, q) = (f64::from(w), f64::from(q));
        (moved + (q - w) * (q - w), whole + w * w)
    });
    if moved > 0.0 { (whole > 0.0).then(|| moved / whole) } else { Some(0.0) }
}

/// Puts what was written into a block: codes, and the norms, biases and weights into which scales were folded; of a block at which a run is, what has these
/// names alone: an earlier run may have written more of it.
fn take_over(
    block: &mut Block,
    settings: &LanguageQuantizing<'_>,
    only: Option<&BTreeSet<String>>,
    writer: &FolderWriter,
) -> Result<()> {
    let mine = |name: &str| only.is_none_or(|only| only.contains(name));
    read_vectors(block, mine, writer)?;
    for layer in block.linears_mut().into_iter().filter(|l| mine(&l.tensor())) {
        let (tensor, shape) = (layer.tensor(), layer.shape());
        if settings.layers.contains(layer.name()) {
            if writer.is_codes_written(&tensor, settings.layout, shape, settings.grid) {
                let weight = writer.read_codes(&tensor, settings.layout, shape, settings.grid)?.to_dense();
                layer.set_mask(None)?;
                layer.set_weight(weight)?;
            }
        } else if writer.is_written(&tensor) {
            let weight = writer.read_matrix(&tensor)?;
            layer.set_weight(if layer.is_transposed() {
                weight.reversed_axes().as_standard_layout().into_owned()
            } else {
                weight
            })?;
        }
    }
    Ok(())
}
