//! Which sequences of a text are calibrated on: by chance, one of each cluster of activations, or those of a band of perplexity.
//!
//! | name | what is taken | after |
//! |---|---|---|
//! | `random` | so many by chance | |
//! | `clusters` | k-means with as many clusters, of each the sequence nearest to its mean | COLA (2025, arXiv:2510.10618), which picks for diversity in the space of activations; prototypes of Sorscher et al. 2022, arXiv:2206.14486 |
//! | `perplexity:LOW-HIGH` | by chance among those whose rank by the model's perplexity lies between these fractions | Marion et al. 2023, arXiv:2309.04564 |
//!
//! A sequence stands in the space of activations as the mean over its tokens of h / ‖h‖ behind the middle block and behind the last: as it is, one token of a
//! thousand times the length of others would be all of a mean. Candidates are eight times as many as are taken, drawn by the seed, or all that there are.
//!
//! What is chosen is told beside a choice by chance from the same candidates: the perplexity of both, and the mean distance of a candidate from the nearest that
//! was taken.
//!
//! Cost: one pass of the model over the candidates; k-means `candidates · taken · 2 hidden` a round, at most 25.

use super::LanguageModel;
use crate::rng::{Seed, Stream};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayView1, Axis, s};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

/// Which sequences of a source are taken; see the module.
///
/// ```
/// use lacuna::lm::CalibrationSelection;
/// let band: CalibrationSelection = "perplexity:0.5-1".parse()?;
/// assert_eq!(band, CalibrationSelection::Perplexity { low: 0.5, high: 1.0 });
/// assert_eq!("perplexity".parse::<CalibrationSelection>()?.to_string(), "perplexity:0.25-0.75");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CalibrationSelection {
    /// By chance.
    #[default]
    Random,
    /// One of each cluster of activations.
    Clusters,
    /// By chance within a band of ranks by perplexity, lowest first.
    Perplexity {
        /// From this fraction of the candidates on.
        low: f64,
        /// Up to this one.
        high: f64,
    },
}

/// Candidates for each sequence that is taken.
pub(super) const POOL: usize = 8;
/// Rounds of k-means at most.
const ROUNDS: usize = 25;

impl FromStr for CalibrationSelection {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownName`] with the nearest; [`Error::InvalidOption`] for a band that is not in [0, 1] or has nothing in it.
    fn from_str(text: &str) -> Result<Self> {
        let refuse =
            || Error::invalid_option("select", format!("'{text}' has no band LOW-HIGH of [0, 1], as perplexity:0.25-0.75"));
        match text.split_once(':') {
            None if text == "random" => Ok(CalibrationSelection::Random),
            None if text == "clusters" => Ok(CalibrationSelection::Clusters),
            None if text == "perplexity" => Ok(CalibrationSelection::Perplexity { low: 0.25, high: 0.75 }),
            Some(("perplexity", band)) => {
                let (low, high) = band.split_once('-').ok_or_else(refuse)?;
                let (low, high): (f64, f64) = (low.parse().map_err(|_| refuse())?, high.parse().map_err(|_| refuse())?);
                match 0.0 <= low && low < high && high <= 1.0 {
                    true => Ok(CalibrationSelection::Perplexity { low, high }),
                    false => Err(refuse()),
                }
            }
            _ => Err(Error::unknown_name("selection", text, ["random", "clusters", "perplexity"].into_iter())),
        }
    }
}

impl fmt::Display for CalibrationSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalibrationSelection::Random => f.write_str("random"),
            CalibrationSelection::Clusters => f.write_str("clusters"),
            CalibrationSelection::Perplexity { low, high } => write!(f, "perplexity:{low}-{high}"),
        }
    }
}

impl TryFrom<String> for CalibrationSelection {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<CalibrationSelection> for String {
    fn from(selection: CalibrationSelection) -> String {
        selection.to_string()
    }
}

/// What a choice is like: its perplexity, and the mean distance of a candidate from the nearest sequence that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// exp of the mean over sequences of their mean −ln p.
    pub perplexity: f64,
    /// The mean distance, of means of vectors of length 1.
    pub distance: f64,
}

/// What was taken of so many candidates, beside what chance would have taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelectedSequences {
    /// By which rule.
    pub selection: CalibrationSelection,
    /// Candidates.
    pub candidates: usize,
    /// The numbers of those that were taken, rising.
    pub taken: Vec<usize>,
    /// What they are like.
    pub chosen: Taken,
    /// What as many by chance are like.
    pub random: Taken,
}

impl fmt::Display for SelectedSequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SelectedSequences { selection, candidates, taken, chosen, random } = self;
        write!(
            f,
            "{selection}: {} of {candidates} sequences, perplexity {:.2} (by chance {:.2}), distance of a candidate from the nearest {:.4} (by chance {:.4})",
            taken.len(),
            chosen.perplexity,
            random.perplexity,
            chosen.distance,
            random.distance
        )
    }
}

impl CalibrationSelection {
    /// Takes `count` of the candidates, each a sequence of at least two tokens. `see` is told how many of all were run, and may stop.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if there are fewer candidates, or fewer within the band; those of running the model; [`Error::Interrupted`].
    pub fn of(
        self,
        model: &LanguageModel,
        candidates: &[Vec<u32>],
        count: usize,
        seed: Seed,
        see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<SelectedSequences> {
        let refuse = |found: usize, of: String| {
            Err(Error::invalid_option("select", format!("{self}: {found} of {of}, fewer than the {count} that are taken")))
        };
        if candidates.len() < count || count == 0 {
            return refuse(candidates.len(), "the text's sequences".into());
        }
        let (mut losses, mut vectors) = (Vec::new(), Array2::zeros((candidates.len(), 2 * model.config().hidden())));
        for (n, ids) in candidates.iter().enumerate() {
            let (loss, vector) = looked_at(model, ids)?;
            losses.push(loss);
            vectors.row_mut(n).assign(&vector);
            Error::go_on(see(n + 1, candidates.len()))?;
        }
        let mut random = seed.stream("selection of calibration");
        let by_chance = some(&mut random, (0..candidates.len()).collect(), count);
        let taken = match self {
            CalibrationSelection::Random => by_chance.clone(),
            CalibrationSelection::Clusters => medoids(&vectors, count, &mut random),
            CalibrationSelection::Perplexity { low, high } => {
                let mut ranked: Vec<usize> = (0..candidates.len()).collect();
                ranked.sort_by(|a, b| losses[*a].total_cmp(&losses[*b]).then(a.cmp(b)));
                let at = |fraction: f64| (fraction * ranked.len() as f64).round() as usize;
                let band = ranked[at(low)..at(high)].to_vec();
                if band.len() < count {
                    return refuse(band.len(), format!("{} sequences", ranked.len()));
                }
                some(&mut random, band, count)
            }
        };
        let like = |taken: &[usize]| Taken {
            perplexity: (taken.iter().map(|n| losses[*n]).sum::<f64>() / taken.len() as f64).exp(),
            distance: vectors.rows().into_iter().map(|v| nearest(v, &vectors, taken).1.sqrt()).sum::<f64>()
                / vectors.nrows() as f64,
        };
        let (chosen, random) = (like(&taken), like(&by_chance));
        Ok(SelectedSequences { selection: self, candidates: candidates.len(), taken, chosen, random })
    }
}

/// So many of a list, rising.
fn some(random: &mut Stream, list: Vec<usize>, count: usize) -> Vec<usize> {
    let mut taken: Vec<usize> = random.permutation(list.len()).into_iter().take(count).map(|n| list[n]).collect();
    taken.sort_unstable();
    taken
}

/// The mean −ln p of a sequence, and where it stands in the space of activations.
fn looked_at(model: &LanguageModel, ids: &[u32]) -> Result<(f64, Array1<f32>)> {
    let at = model.positions(1, ids.len());
    let ends = model.embedding_head();
    let mut h = ends.embed(ids, ids.len(), 0)?;
    let (blocks, hidden) = (model.blocks(), h.ncols());
    let mut vector = Array1::zeros(2 * hidden);
    let mean = |h: &Array2<f32>| {
        let mut sum = Array1::<f32>::zeros(hidden);
        for row in h.rows() {
            let length = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
            if length > 0.0 {
                sum.scaled_add((1.0 / (length * h.nrows() as f64)) as f32, &row);
            }
        }
        sum
    };
    for (n, block) in blocks.iter().enumerate() {
        block.forward(&mut h, &at, &mut ());
        if n + 1 == blocks.len().div_ceil(2) {
            vector.slice_mut(s![..hidden]).assign(&mean(&h));
        }
    }
    vector.slice_mut(s![hidden..]).assign(&mean(&h));
    let targets: Vec<Option<u32>> = ids[1..].iter().copied().map(Some).chain([None]).collect();
    let losses = ends.nll(&h, &targets)?;
    Ok((losses.iter().sum::<f64>() / losses.len().max(1) as f64, vector))
}

fn squared_distance(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// Which of some rows is the nearest, the first of equals, and its squared distance.
fn nearest(v: ArrayView1<'_, f32>, rows: &Array2<f32>, among: &[usize]) -> (usize, f64) {
    among.iter().fold((0, f64::INFINITY), |(best, least), &n| {
        let distance = squared_distance(v, rows.row(n));
        if distance < least { (n, distance) } else { (best, least) }
    })
}

/// k-means, begun by k-means++ (Arthur, Vassilvitskii 2007); of each cluster the row nearest to its mean, rising. They are `count` different rows.
fn medoids(rows: &Array2<f32>, count: usize, random: &mut Stream) -> Vec<usize> {
    let all: Vec<usize> = (0..rows.nrows()).collect();
    let mut begin = some(random, all.clone(), 1);
    while begin.len() < count {
        let far: Vec<f64> = all.iter().map(|n| nearest(rows.row(*n), rows, &begin).1).collect();
        let mut at = f64::from(random.uniform()) * far.iter().sum::<f64>();
        let drawn = all.iter().find(|n| {
            at -= far[**n];
            at < 0.0 && !begin.contains(n)
        });
        // Rows that are all alike have no distance: any that is left will do.
        begin.extend(drawn.or_else(|| all.iter().find(|n| !begin.contains(n))));
    }
    let mut means = rows.select(Axis(0), &begin);
    let centres: Vec<usize> = (0..count).collect();
    let mut of: Vec<usize> = Vec::new();
    for _ in 0..ROUNDS {
        let now: Vec<usize> = rows.rows().into_iter().map(|row| nearest(row, &means, &centres).0).collect();
        if now == of {
            break;
        }
        of = now;
        for c in 0..count {
            let members: Vec<usize> = all.iter().copied().filter(|n| of[*n] == c).collect();
            if let Some(mean) = rows.select(Axis(0), &members).mean_axis(Axis(0)) {
                means.row_mut(c).assign(&mean);
            }
        }
    }
    let mut taken: Vec<usize> = Vec::new();
    for c in 0..count {
        let free = |own: bool| all.iter().copied().filter(|n| !taken.contains(n) && (!own || of[*n] == c)).collect::<Vec<_>>();
        // A cluster that has lost its members takes the nearest that is left.
        let members = Some(free(true)).filter(|m| !m.is_empty()).unwrap_or_else(|| free(false));
        let (row, _) = nearest(means.row(c), rows, &members);
        taken.push(row);
    }
    taken.sort_unstable();
    taken
}

#[cfg(test)]
mod tests {
    use super::medoids;
    use crate::rng::Seed;
    use ndarray::Array2;

    #[test]
    fn one_of_each_cluster_is_taken() {
        // Four heaps of five rows, far apart.
        let rows =
            Array2::from_shape_fn((20, 2), |(n, c)| [0.0, 10.0, 20.0, 30.0][n / 5] * (c as f32 + 1.0) + (n % 5) as f32 * 0.1);
        for seed in 0..8 {
            let taken = medoids(&rows, 4, &mut Seed(seed).stream("x"));
            // The middle of each heap is the nearest to its mean.
            assert_eq!(taken, [2, 7, 12, 17], "seed {seed}");
        }
        let alike = Array2::from_elem((6, 2), 1.0);
        let taken = medoids(&alike, 6, &mut Seed(0).stream("x"));
        assert_eq!(taken, [0, 1, 2, 3, 4, 5], "rows that are alike are still different sequences");
    }
}
