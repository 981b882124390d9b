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

use super::language::{ActivationMemory, Activations, MemoryBudget, PART, check_measurable};
use crate::data::Sequences;
use crate::io::{Folder, FolderWriter, Layout, Output};
use crate::lm::{BlockExperts, Config, EmbeddingHead, experts, load_block, positions};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::Axis;
use serde::Serialize;
use std::ops::ControlFlow;

/// How experts are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertScore {
    /// Router-weighted norms of outputs.
    Reap,
    /// Tokens.
    Use,
    /// Norms of outputs.
    Minitron,
    /// By chance.
    Random(Seed),
}

impl ExpertScore {
    /// Whether a model must run for it.
    pub fn measures(self) -> bool {
        !matches!(self, ExpertScore::Random(_))
    }
}

/// What became of the experts of a block.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
fn measured(
    folder: &Folder,
    config: &Config,
    calibration: &Sequences,
    score: ExpertScore,
    memory: &ActivationMemory,
    see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<(Vec<f64>, Vec<usize>)>> {
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
/// # Errors
/// [`Error::InvalidOption`] naming `experts` or `active-experts` where the model has none or they do not fit, or nothing changes; where weights have
/// masks; what reading and writing returns; [`Error::Interrupted`].
pub fn remove_experts(
    (folder, config): (&Folder, &Config),
    calibration: &Sequences,
    (keep, active): (usize, usize),
    score: ExpertScore,
    memory: &ActivationMemory,
    out: impl Into<Output>,
    see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<(FolderWriter, Config, Vec<ExpertRecord>)> {
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
    let scores: Vec<(Vec<f64>, Vec<usize>)> = match score {
        _ if keep == count => places.iter().map(|place| (vec![0.0; place.count], Vec::new())).collect(),
        ExpertScore::Random(seed) => {
            let draw = |place: &BlockExperts| {
                let mut stream = seed.stream(&format!("experts {}", place.block));
                ((0..place.count).map(|_| f64::from(stream.uniform())).collect(), Vec::new())
            };
            places.iter().map(draw).collect()
        }
        _ => {
            check_measurable(config)?;
            measured(folder, config, calibration, score, memory, see)?
        }
    };
    let records: Vec<ExpertRecord> = places
        .iter()
        .zip(scores)
        .map(|(place, (scores, tokens))| ExpertRecord { block: place.block, kept: largest(&scores, keep), scores, tokens })
        .collect();
    let mut tensors = Vec::new();
    for name in folder.names() {
        if let Some((to, cut)) = renamed(name, &places, &records) {
            let mut shape = folder.shape(name)?.to_vec();
            if cut.is_some() {
                shape[0] = keep;
            }
            tensors.push((name.to_string(), to, shape, cut));
        }
    }
    let layout = tensors.iter().map(|(from, to, shape, _)| Ok((to.clone(), folder.dtype(from)?, shape.clone())));
    let mut writer = FolderWriter::create(out, Layout::new(layout.collect::<Result<Vec<_>>>()?, FILE)?)?;
    for (from, to, _, cut) in &tensors {
        match cut {
            None => writer.copy_as(to, folder, from)?,
            Some(rows) => writer.write(to, &folder.read(from)?.select(Axis(0), rows))?,
        }
    }
    if let Some(json) = smaller.to_json().as_object() {
        writer.config(json)?;
    }
    writer.copy_rest(folder)?;
    Ok((writer, smaller, records))
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
