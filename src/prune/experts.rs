//! Experts of a mixture that are left out for good.
//!
//! ```text
//! reap      mean over the tokens x of expert e of w_e(x) ‖F_e(x)‖₂     Lasby et al., "REAP the Experts", arXiv:2510.13999, equation 9
//! use       number of tokens that meet e
//! minitron  mean over the tokens of e of ‖F_e(x)‖₂, without the router's weight: the mean activations of Muralidharan et al.,
//!           arXiv:2407.14679, with an expert for a unit
//! random    by chance
//! ```
//!
//! The scores are of the dense model, block by block, in one pass over the calibration. In every block the same number of experts stays, those of
//! the largest scores (of equal ones the lower number); an expert that no token meets has the score 0. The router loses the rows of those that go, so
//! that its probabilities are shared out among those that stay, and no weight moves. What stays is copied byte by byte.
//!
//! Departure: REAP's authors also merge; here experts only go.

use super::language::{ActivationMemory, Activations, MemoryBudget, PART, Saver, begin, check_measurable};
use crate::data::Sequences;
use crate::io::{Folder, FolderWriter, Layout, Output};
use crate::lm::{BlockExperts, Config, EmbeddingHead, experts, load_block, positions};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::Axis;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::ops::ControlFlow;

/// How experts are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpertScore {
    /// Router-weighted norms of outputs.
    #[default]
    Reap,
    /// Tokens.
    Use,
    /// Norms of outputs.
    Minitron,
    /// By chance.
    Random,
}

impl ExpertScore {
    /// All of them.
    pub const ALL: [ExpertScore; 4] = [ExpertScore::Reap, ExpertScore::Use, ExpertScore::Minitron, ExpertScore::Random];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            ExpertScore::Reap => "reap",
            ExpertScore::Use => "use",
            ExpertScore::Minitron => "minitron",
            ExpertScore::Random => "random",
        }
    }

    /// Whether a model must run for it.
    pub fn measures(self) -> bool {
        self != ExpertScore::Random
    }
}

impl fmt::Display for ExpertScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which experts of a mixture stay.
#[derive(Debug, Clone)]
pub struct ExpertRemoval {
    /// Experts of a block that stay.
    pub keep: usize,
    /// How many of them a token meets.
    pub active: usize,
    /// How they are chosen.
    pub score: ExpertScore,
    /// Of [`ExpertScore::Random`].
    pub seed: Seed,
    /// Where activations lie while scores are measured.
    pub memory: ActivationMemory,
}

/// What [`remove_experts`] is given.
#[derive(Debug, Clone, Copy)]
pub struct ExpertRun<'a> {
    /// The model.
    pub folder: &'a Folder,
    /// What its `config.json` says.
    pub config: &'a Config,
    /// The tokens on which experts are scored; [`Sequences::nothing`] where none are.
    pub calibration: &'a Sequences,
    /// Which experts stay.
    pub removal: &'a ExpertRemoval,
    /// Where the smaller model is written.
    pub out: &'a Output,
    /// What the run was asked for. It is kept beside what is written, and a run is only taken up again by one that was asked for the same.
    pub described: &'a Value,
    /// Whether a run that was interrupted goes on. It gives the bits that it would have given.
    pub resume: bool,
}

/// What became of the experts of a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertRecord {
    /// Number of the block.
    pub block: usize,
    /// Which experts stay, by their old numbers.
    pub kept: Vec<usize>,
    /// The score of each.
    pub scores: Vec<f64>,
    /// How many tokens of the calibration met each; none where nothing was measured.
    pub tokens: Vec<usize>,
}

/// Bytes of a file of weights; larger models are sharded.
const FILE: u64 = 5_000_000_000;

/// Scores of all experts of all blocks, in the order of [`experts`], with the tokens that met each.
fn measured(run: &ExpertRun<'_>, see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>) -> Result<Vec<(Vec<f64>, Vec<usize>)>> {
    let ExpertRun { folder, config, calibration, removal: &ExpertRemoval { score, ref memory, .. }, .. } = *run;
    let ends = EmbeddingHead::for_embedding(folder, config)?;
    let length = calibration.length();
    let chunks: Vec<&[u32]> = calibration.ids().chunks((PART / length).max(1) * length).collect();
    let mut states = Activations::new(chunks.len(), &MemoryBudget::new(memory));
    for (i, chunk) in chunks.iter().enumerate() {
        states.put(i, ends.embed(chunk, length, 0)?)?;
    }
    drop(ends);
    let mut all = Vec::new();
    for number in 0..config.layers() {
        let block = load_block(folder, config, number)?;
        let count = block.mixture().map_or(0, |mixture| mixture.experts().len());
        let (mut sums, mut tokens) = (vec![0.0f64; count], vec![0usize; count]);
        for (i, chunk) in chunks.iter().enumerate() {
            let mut h = states.take(i)?;
            block.forward_seen(&mut h, &positions(config, chunk.len() / length, length, 0), &mut |expert, routed, outputs| {
                tokens[expert] += routed.tokens.len();
                for (y, weight) in outputs.axis_iter(Axis(0)).zip(&routed.weights) {
                    let norm = y.iter().map(|y| f64::from(*y) * f64::from(*y)).sum::<f64>().sqrt();
                    sums[expert] += if score == ExpertScore::Reap { f64::from(*weight) * norm } else { norm };
                }
            });
            if let Some(place) = h.iter().position(|x| !x.is_finite()) {
                let reason = format!("hidden states behind block {number} are not finite, first in token {}", place / h.ncols());
                return Err(Error::Numerical { what: "experts".into(), reason });
            }
            states.put(i, h)?;
        }
        if count > 0 {
            let mean = |(sum, n): (f64, usize)| if n == 0 { 0.0 } else { sum / n as f64 };
            let scores = match score {
                ExpertScore::Use => tokens.iter().map(|n| *n as f64).collect(),
                _ => sums.into_iter().zip(tokens.iter().copied()).map(mean).collect(),
            };
            all.push((scores, tokens));
        }
        Error::go_on(see(number + 1, config.layers()))?;
    }
    Ok(all)
}

/// The largest scores, of equal ones the first, in the order of their numbers.
fn largest(scores: &[f64], keep: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(keep);
    order.sort_unstable();
    order
}

/// Writes a model of which `keep` experts stay in every block that has some, and of whose experts a token meets `active`; the folder is complete but
/// for its name, which [`FolderWriter::finish`] gives it. One block is in memory at a time while scores are measured, one tensor while is written.
///
/// An error, and a stop, when all scores are known leaves the working folder to be taken up again; before that nothing is left.
///
/// # Errors
/// [`Error::InvalidOption`] naming `experts` or `active-experts` where the model has none or they do not fit, or nothing changes; where weights have
/// masks; what reading and writing returns; if the working folder of another run is there; with `resume`, if there is no such run or it was asked for
/// something else; [`Error::Interrupted`]. [`Error::Unfinished`] around any of them when scores are known.
pub fn remove_experts(
    run: ExpertRun<'_>,
    see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<(FolderWriter, Config, Vec<ExpertRecord>)> {
    let ExpertRun { folder, config, removal: &ExpertRemoval { keep, active, score, .. }, out, .. } = run;
    let smaller = config.with_experts(keep, active)?;
    let places = experts(folder, config);
    let Some((count, before)) = config.experts() else { return Err(Error::invalid_option("experts", "there are none")) };
    if (keep, active) == (count, before) {
        return Err(Error::invalid_option(
            "experts",
            format!("nothing goes: there are {count}, of which a token meets {before}"),
        ));
    }
    if folder.is_pruned() {
        let reason = "its weights have masks, which are not cut; give the model as it was before it was pruned";
        return Err(Error::malformed(folder.path(), reason));
    }
    if keep < count && score.measures() {
        check_measurable(config)?;
    }
    let (mut writer, mut records): (FolderWriter, Vec<ExpertRecord>) =
        begin(out, layout(folder, &places, keep)?, run.described, run.resume)?;
    if records.len() != places.len() {
        records = match chosen(&run, &places, see) {
            Ok(records) => records,
            Err(error) => {
                writer.discard();
                return Err(error);
            }
        };
    }
    let written = write(&run, &places, &smaller, &records, &mut writer);
    match written {
        Ok(()) => Ok((writer, smaller, records)),
        Err(error) => Err(error.unfinished(FolderWriter::working_folder(out.path()))),
    }
}

/// Which experts of each block stay.
fn chosen(
    run: &ExpertRun<'_>,
    places: &[BlockExperts],
    see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<ExpertRecord>> {
    let ExpertRemoval { keep, score, seed, .. } = *run.removal;
    let scores: Vec<(Vec<f64>, Vec<usize>)> = match score {
        _ if places.iter().all(|place| place.count == keep) => {
            places.iter().map(|place| (vec![0.0; place.count], Vec::new())).collect()
        }
        ExpertScore::Random => {
            let draw = |place: &BlockExperts| {
                let mut stream = seed.stream(&format!("experts {}", place.block));
                ((0..place.count).map(|_| f64::from(stream.uniform())).collect(), Vec::new())
            };
            places.iter().map(draw).collect()
        }
        _ => measured(run, see)?,
    };
    let record = |(place, (scores, tokens)): (&BlockExperts, (Vec<f64>, Vec<usize>))| ExpertRecord {
        block: place.block,
        kept: largest(&scores, keep),
        scores,
        tokens,
    };
    Ok(places.iter().zip(scores).map(record).collect())
}

/// What is to be written. Sizes alone say so, whichever experts stay: each place has the type of the tensor that stands there before.
fn layout(folder: &Folder, places: &[BlockExperts], keep: usize) -> Result<Layout> {
    let first = |place: &BlockExperts| ExpertRecord {
        block: place.block,
        kept: (0..keep).collect(),
        scores: Vec::new(),
        tokens: Vec::new(),
    };
    let first: Vec<ExpertRecord> = places.iter().map(first).collect();
    let mut tensors = Vec::new();
    for name in folder.names() {
        if let Some((to, cut)) = renamed(name, places, &first) {
            let mut shape = folder.shape(name)?.to_vec();
            if cut.is_some() {
                shape[0] = keep;
            }
            tensors.push((to, folder.dtype(name)?, shape));
        }
    }
    Layout::new(tensors, FILE)
}

/// Writes what is not written yet.
fn write(
    run: &ExpertRun<'_>,
    places: &[BlockExperts],
    smaller: &Config,
    records: &[ExpertRecord],
    writer: &mut FolderWriter,
) -> Result<()> {
    let mut saver = Saver::default();
    saver.save(&records, writer)?;
    for from in run.folder.names() {
        match renamed(from, places, records) {
            Some((to, _)) if writer.is_written(&to) => {}
            Some((to, Some(rows))) => writer.write(&to, &run.folder.read(from)?.select(Axis(0), rows))?,
            Some((to, None)) if run.folder.dtype(from)? == run.folder.dtype(&to)? => writer.copy_as(&to, run.folder, from)?,
            Some((to, None)) => writer.write(&to, &run.folder.read(from)?)?,
            None => {}
        }
    }
    if let Some(json) = smaller.to_json().as_object() {
        writer.config(json)?;
    }
    writer.copy_rest(run.folder)?;
    saver.end()
}

/// The name of a tensor in the smaller model and the rows of it that stay, if not all; none where it goes.
fn renamed<'r>(name: &str, places: &[BlockExperts], records: &'r [ExpertRecord]) -> Option<(String, Option<&'r [usize]>)> {
    for (place, record) in places.iter().zip(records) {
        if name == place.router {
            return Some((name.to_string(), Some(&record.kept)));
        }
        if let Some((old, rest)) = place.of(name) {
            let new = record.kept.iter().position(|&kept| kept == old)?;
            return Some((place.name(new, rest), None));
        }
    }
    Some((name.to_string(), None))
}
