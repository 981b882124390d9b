//! Hidden states of a student that are to be a teacher's, beside its predictions.
//!
//! Romero et al. *FitNets: hints for thin deep nets.* ICLR 2015, arXiv:1412.6550; for language models Jiao et al. *TinyBERT.* 2020, arXiv:1909.10351,
//! and Muralidharan et al. *Compact language models via pruning and knowledge distillation (Minitron).* NeurIPS 2024, arXiv:2407.14679, section 3.2.
//!
//! ```text
//! of each pair k of blocks, over the T tokens of a pass:    y = P h        h of the student, P (teacher's width, student's), t of the teacher
//! mse       D_k = Σ ‖y − t‖² / (T · width)
//! cosine    D_k = Σ (1 − y · t / ‖y‖ ‖t‖) / T
//! slope of  L + w / K · Σ_k s_k D_k,    s_k = L / D_k as they are in this pass, taken as constants
//! ```
//!
//! L is the mean loss of the predictions in the pass. So hidden states count w times as much as predictions at every step, whatever their size, as
//! in ModelOpt. P is only there where the widths differ; it begins normal with variance 1 / (student's width) and trains with the student.
//!
//! Departure: every pair is scaled by itself, where ModelOpt scales the mean of all: the student's way back meets them one after another.

use crate::linalg::{Threads, gemm};
use crate::mask::Mask;
use crate::nn::{Change, Gradients, Parameters, See};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, ArrayView1};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// How hidden states are held against a teacher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HiddenLoss {
    /// By the mean squared error.
    Mse,
    /// By the angle between them.
    #[default]
    Cosine,
}

impl HiddenLoss {
    /// All of them.
    pub const ALL: [HiddenLoss; 2] = [HiddenLoss::Mse, HiddenLoss::Cosine];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            HiddenLoss::Mse => "mse",
            HiddenLoss::Cosine => "cosine",
        }
    }

    /// D of the rows of `y` against those of `target`, both `(tokens, features)`, and its slope at `y`.
    ///
    /// ```
    /// use lacuna::train::HiddenLoss;
    /// use ndarray::array;
    /// let (d, slope) = HiddenLoss::Mse.of(&array![[1., 2.]], &array![[1., 0.]]);
    /// assert_eq!((d, slope), (2.0, array![[0., 2.]]));
    /// ```
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn of(self, y: &ArrayRef2<f32>, target: &ArrayRef2<f32>) -> (f64, Array2<f32>) {
        assert_eq!(y.dim(), target.dim(), "hidden states of the student and of the teacher");
        let mut slope = Array2::<f32>::zeros(y.dim());
        let (tokens, width) = (y.nrows(), y.ncols().max(1));
        let rows = slope.as_slice_mut().expect("zeros lie row by row").par_chunks_mut(width).enumerate();
        let losses: Vec<f64> = rows.map(|(t, slope)| self.row(y.row(t), target.row(t), slope, 1.0 / tokens as f64)).collect();
        (losses.iter().sum::<f64>() / tokens.max(1) as f64, slope)
    }

    /// D of one token; the slope of `scale` · D at `y` is written to `slope`.
    fn row(self, y: ArrayView1<'_, f32>, t: ArrayView1<'_, f32>, slope: &mut [f32], scale: f64) -> f64 {
        let pairs = || y.iter().zip(t.iter()).map(|(y, t)| (f64::from(*y), f64::from(*t)));
        match self {
            HiddenLoss::Mse => {
                let each = 1.0 / y.len() as f64;
                slope.iter_mut().zip(pairs()).for_each(|(s, (y, t))| *s = (2.0 * scale * each * (y - t)) as f32);
                pairs().map(|(y, t)| (y - t) * (y - t)).sum::<f64>() * each
            }
            HiddenLoss::Cosine => {
                let [yy, tt, yt] = pairs().fold([0.0; 3], |[yy, tt, yt], (y, t)| [yy + y * y, tt + t * t, yt + y * t]);
                let (ny, nt) = (yy.sqrt().max(f64::MIN_POSITIVE), tt.sqrt().max(f64::MIN_POSITIVE));
                let cosine = yt / (ny * nt);
                let of = |(y, t): (f64, f64)| scale * (cosine * y / (ny * ny) - t / (ny * nt));
                slope.iter_mut().zip(pairs()).for_each(|(s, pair)| *s = of(pair) as f32);
                1.0 - cosine
            }
        }
    }
}

impl fmt::Display for HiddenLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HiddenLoss {
    type Err = Error;

    /// # Errors
    /// [`Error::UnknownName`] with the nearest.
    fn from_str(s: &str) -> Result<HiddenLoss> {
        let found = HiddenLoss::ALL.into_iter().find(|l| l.name() == s);
        found.ok_or_else(|| Error::unknown_name("hidden loss", s, HiddenLoss::ALL.into_iter().map(HiddenLoss::name)))
    }
}

/// A block of the student, and the block of the teacher whose hidden states it learns; both by number from 0.
///
/// ```
/// use lacuna::train::HiddenPair;
/// assert_eq!("3:6".parse::<HiddenPair>()?, HiddenPair { student: 3, teacher: 6 });
/// assert_eq!("4".parse::<HiddenPair>()?, HiddenPair { student: 4, teacher: 4 });
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HiddenPair {
    /// Of the student.
    pub student: usize,
    /// Of the teacher.
    pub teacher: usize,
}

impl fmt::Display for HiddenPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.student, self.teacher)
    }
}

impl FromStr for HiddenPair {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidOption`] if it is neither a number nor two with a colon between.
    fn from_str(s: &str) -> Result<HiddenPair> {
        let (student, teacher) = s.split_once(':').unwrap_or((s, s));
        match (student.parse(), teacher.parse()) {
            (Ok(student), Ok(teacher)) => Ok(HiddenPair { student, teacher }),
            _ => Err(Error::invalid_option(
                "hidden-states",
                format!("'{s}' is no block of the student and one of the teacher, as in 3:6"),
            )),
        }
    }
}

impl TryFrom<String> for HiddenPair {
    type Error = Error;

    fn try_from(s: String) -> Result<HiddenPair> {
        s.parse()
    }
}

impl From<HiddenPair> for String {
    fn from(pair: HiddenPair) -> String {
        pair.to_string()
    }
}

/// Which hidden states are learnt, and how.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `pairs` | | at least one, each block of the student at most once | blocks of the student and of the teacher |
/// | `loss` | `cosine` | [`HiddenLoss`] | D |
/// | `weight` | 1 | above 0 | w |
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HiddenStates {
    /// Blocks of the student and of the teacher.
    pub pairs: Vec<HiddenPair>,
    /// D
    pub loss: HiddenLoss,
    /// w
    pub weight: f64,
}

impl HiddenStates {
    /// Of these pairs, as by default.
    pub fn new(pairs: impl IntoIterator<Item = HiddenPair>) -> HiddenStates {
        HiddenStates { pairs: pairs.into_iter().collect(), loss: HiddenLoss::default(), weight: 1.0 }
    }

    /// The same by another loss.
    #[must_use]
    pub fn loss(self, loss: HiddenLoss) -> HiddenStates {
        HiddenStates { loss, ..self }
    }

    /// The same with another weight.
    #[must_use]
    pub fn weight(self, weight: f64) -> HiddenStates {
        HiddenStates { weight, ..self }
    }

    /// Refuses pairs of blocks that are not there, of models with so many blocks.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the pair and what is wrong.
    pub fn check(&self, student: usize, teacher: usize) -> Result<()> {
        let refuse = |reason: String| Err(Error::invalid_option("hidden-states", reason));
        if self.pairs.is_empty() {
            return refuse("names no pair of blocks".into());
        }
        if !(self.weight.is_finite() && self.weight > 0.0) {
            return Err(Error::invalid_option("hidden-weight", format!("{} is not a finite number above 0", self.weight)));
        }
        for (n, pair) in self.pairs.iter().enumerate() {
            for (who, block, blocks) in [("model", pair.student, student), ("teacher", pair.teacher, teacher)] {
                if block >= blocks {
                    return refuse(format!("{pair}: the {who} has {blocks} blocks, from 0 to {}", blocks.saturating_sub(1)));
                }
            }
            if self.pairs[..n].iter().any(|p| p.student == pair.student) {
                return refuse(format!("block {} of the model is named twice", pair.student));
            }
        }
        Ok(())
    }
}

/// The projections P of a run, where widths differ: as [`Parameters`] they are `hidden_projection.N` of each block N of the student.
#[derive(Debug, Clone)]
pub struct HiddenProjections {
    how: HiddenStates,
    taps: Vec<usize>,
    arrays: BTreeMap<usize, Array2<f32>>,
}

fn name(block: usize) -> String {
    format!("hidden_projection.{block}")
}

impl HiddenProjections {
    /// Drawn from a seed, for hidden states of these widths; none where they are equal.
    pub fn new(how: HiddenStates, student: usize, teacher: usize, seed: Seed) -> HiddenProjections {
        let drawn = |pair: &HiddenPair| {
            let mut stream = seed.stream(&name(pair.student));
            (pair.student, stream.normal_array(teacher, student, (1.0 / student as f32).sqrt()))
        };
        let arrays = if student == teacher { BTreeMap::new() } else { how.pairs.iter().map(drawn).collect() };
        HiddenProjections { taps: how.pairs.iter().map(|p| p.student).collect(), how, arrays }
    }

    /// Which hidden states are learnt.
    pub fn how(&self) -> &HiddenStates {
        &self.how
    }
}

impl Parameters for HiddenProjections {
    fn visit(&self, f: &mut See<'_>) {
        self.arrays.iter().for_each(|(block, p)| f(&name(*block), p.view().into_dyn(), None));
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.arrays.iter_mut().for_each(|(block, p)| f(&name(*block), p.as_slice_mut().expect("drawn in standard layout"), None));
        Ok(())
    }

    /// # Errors
    /// Always: nothing of a projection is dropped.
    fn set_mask(&mut self, name: &str, _: Option<Mask>) -> Result<()> {
        Err(Error::invalid_option("mask", format!("{name}: projections of hidden states are dense")))
    }
}

/// What hidden states have to learn in one pass, and what was found on the way back.
#[derive(Debug)]
pub(super) struct HiddenTargets<'a> {
    projections: &'a HiddenProjections,
    /// What the teacher's blocks gave, in the order of the pairs, each `(tokens, teacher's width)`.
    targets: Vec<Array2<f32>>,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// The sum of the losses of the predictions, which a way back meets first.
    predictions: f64,
    gradients: Gradients,
}

impl<'a> HiddenTargets<'a> {
    pub fn new(projections: &'a HiddenProjections, targets: Vec<Array2<f32>>) -> Self {
        HiddenTargets { projections, targets, found: Mutex::default() }
    }

    pub fn taps(&self) -> &[usize] {
        &self.projections.taps
    }

    /// Adds to the sum of the losses of the predictions.
    pub fn predicted(&self, loss: f64) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).predictions += loss;
    }

    /// D of a block's hidden states; the slope of w s D / K is added to `slope`, where losses of predictions are divided by `count`.
    pub fn learn(&self, block: usize, h: &ArrayRef2<f32>, slope: &mut ArrayRef2<f32>, count: usize) -> f64 {
        let HiddenStates { pairs, loss, weight } = &self.projections.how;
        let Some(k) = pairs.iter().position(|p| p.student == block) else { return 0.0 };
        let (target, p) = (&self.targets[k], self.projections.arrays.get(&block));
        let projected = p.map(|p| {
            let mut y = Array2::zeros(target.dim());
            gemm(1.0, h, &p.t(), 0.0, &mut y, Threads::Pool);
            y
        });
        let (distance, mut at_y) = match &projected {
            Some(y) => loss.of(y, target),
            None => loss.of(h, target),
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let scale = if distance > 0.0 { weight * found.predictions / count as f64 / pairs.len() as f64 / distance } else { 0.0 };
        at_y *= scale as f32;
        match p {
            None => slope.zip_mut_with(&at_y, |s, d| *s += d),
            Some(p) => {
                gemm(1.0, &at_y, p, 1.0, slope, Threads::Pool);
                let mut gradient = Array2::zeros(p.dim());
                gemm(1.0, &at_y.t(), h, 0.0, &mut gradient, Threads::Pool);
                // Each block is met once in a pass.
                let own = Gradients::from_iter([(name(block), gradient.into_dyn())]);
                let added = found.gradients.add(own);
                assert!(added.is_ok(), "gradients of one projection have one shape");
            }
        }
        distance
    }

    /// The gradients of the projections.
    pub fn gradients(&self) -> Gradients {
        std::mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner).gradients)
    }
}
