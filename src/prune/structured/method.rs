//! How heads and feed-forward features are chosen, and what that needs of their inputs.

use crate::calibrate::InputStatistics;
use crate::criteria::{Need, Needs, Saliency};
use crate::prune::SequenceGradients;
use crate::rng::Seed;
use crate::solve::GroupObs;
use crate::{Error, Result};
use ndarray::{Array1, ArrayRef2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// The mean; of activations that of their absolute values.
    Mean,
    /// √ of the sum of squares.
    L2,
    /// The variance.
    Variance,
}

/// How activations of a feature become its score: over the tokens of a sequence, then over sequences. Minitron's paper (arXiv:2407.14679, section 2.2)
/// compares these; its authors take the mean over tokens and the norm over sequences, which is the default.
///
/// ```
/// use lacuna::prune::Aggregation;
/// assert_eq!(Aggregation::default(), "mean,l2".parse()?);
/// assert_eq!("variance,mean".parse::<Aggregation>()?.to_string(), "variance,mean");
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Aggregation {
    /// Over tokens.
    pub tokens: Aggregate,
    /// Over sequences.
    pub sequences: Aggregate,
}

impl Default for Aggregation {
    fn default() -> Self {
        Aggregation { tokens: Aggregate::Mean, sequences: Aggregate::L2 }
    }
}

impl Aggregate {
    /// All of them.
    pub const ALL: [Aggregate; 3] = [Aggregate::Mean, Aggregate::L2, Aggregate::Variance];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            Aggregate::Mean => "mean",
            Aggregate::L2 => "l2",
            Aggregate::Variance => "variance",
        }
    }
}

impl FromStr for Aggregation {
    type Err = Error;

    /// # Errors
    /// If the text is not two names with a comma between.
    fn from_str(text: &str) -> Result<Aggregation> {
        let refuse = || Error::invalid_option("aggregate", format!("'{text}' is not two of mean, l2 and variance, as mean,l2"));
        let one = |name: &str| Aggregate::ALL.into_iter().find(|a| a.name() == name.trim()).ok_or_else(refuse);
        let (tokens, sequences) = text.split_once(',').ok_or_else(refuse)?;
        Ok(Aggregation { tokens: one(tokens)?, sequences: one(sequences)? })
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.tokens.name(), self.sequences.name())
    }
}

impl TryFrom<String> for Aggregation {
    type Error = Error;

    fn try_from(text: String) -> Result<Aggregation> {
        text.parse()
    }
}

impl From<Aggregation> for String {
    fn from(aggregation: Aggregation) -> String {
        aggregation.to_string()
    }
}

/// How units of a block are chosen. All but the first leave the weights that stay as they are.
#[derive(Debug, Clone, Copy)]
pub enum UnitMethod<'a> {
    /// Group OBS on the layer that reads the units: removal in rounds, exchanges, and the least squares solution of what stays.
    Obs(GroupObs),
    /// The activations of a unit: √ Σ over sequences (mean over tokens |x|)², of heads √ Σ of the squares of that over their features. Muralidharan et
    /// al., *Compact language models via pruning and knowledge distillation* (Minitron), NeurIPS 2024, arXiv:2407.14679, as the authors' library
    /// computes it.
    Minitron,
    /// As Minitron, with other aggregations.
    Activations(Aggregation),
    /// Fluctuation: Σ over the unit's features of var(x) ‖W_:x‖², W the layer that reads them; what a unit gave in the mean goes into that layer's bias,
    /// where the family has one. An, Zhao, Yu, Tang, Wang, *Fluctuation-based adaptive structured pruning for large language models*, AAAI 2024,
    /// arXiv:2312.11983: the score WIFV, here with one width for all blocks.
    Flap,
    /// The sum of a criterion over all weights of the unit, in all its layers; with gradients, where it needs them.
    Weights(&'a dyn Saliency, Option<&'a SequenceGradients>),
    /// By chance.
    Random(Seed),
    /// The first ones: of a model that was sorted.
    Prefix,
}

impl UnitMethod<'_> {
    /// Whether the model must run over a calibration for it.
    pub fn measures(&self) -> bool {
        matches!(self, UnitMethod::Obs(_) | UnitMethod::Minitron | UnitMethod::Activations(_) | UnitMethod::Flap)
    }

    /// What it needs of the inputs of the layer that reads the units.
    pub(super) fn needs(&self) -> Needs {
        match self {
            UnitMethod::Obs(_) => Needs::none().and(Need::Gram),
            UnitMethod::Flap => Needs::none().and(Need::InputSquares).and(Need::InputSums),
            _ => Needs::none(),
        }
    }
}

/// What is measured of the inputs of a layer that reads units.
pub(super) struct UnitInputs {
    pub sums: InputStatistics,
    /// Σ over sequences of what their tokens' activations become, and of its squares, of each input.
    moments: Option<[Array1<f64>; 2]>,
    /// Sequences so far, and their tokens.
    sequences: usize,
    length: usize,
    aggregation: Option<Aggregation>,
}

impl UnitInputs {
    pub fn new(method: &UnitMethod<'_>, needs: Needs, layers: Vec<String>, length: usize) -> Self {
        let aggregation = match method {
            UnitMethod::Minitron => Some(Aggregation::default()),
            UnitMethod::Activations(aggregation) => Some(*aggregation),
            _ => None,
        };
        UnitInputs { sums: InputStatistics::new(needs, layers), moments: None, sequences: 0, length, aggregation }
    }

    /// Adds inputs `(tokens, in)` of whole sequences.
    pub fn add(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        self.sums.add(x)?;
        let Some(aggregation) = self.aggregation else { return Ok(()) };
        let [first, second] = self.moments.get_or_insert_with(|| [Array1::zeros(x.ncols()), Array1::zeros(x.ncols())]);
        for sequence in x.axis_chunks_iter(Axis(0), self.length) {
            let found = of_tokens(aggregation.tokens, &sequence);
            *first += &found;
            second.zip_mut_with(&found, |to, s| *to += s.powi(2));
            self.sequences += 1;
        }
        Ok(())
    }

    /// Of each input the square of its score by activations.
    pub fn activations(&self) -> Option<Array1<f64>> {
        let ([first, second], n) = (self.moments.as_ref()?, self.sequences as f64);
        Some(match self.aggregation?.sequences {
            Aggregate::L2 => second.clone(),
            Aggregate::Mean => first.mapv(|s| (s / n).powi(2)),
            Aggregate::Variance => (second / n - first.mapv(|s| (s / n).powi(2))).mapv(|v| v.powi(2)),
        })
    }
}

/// What the rows of a sequence become.
fn of_tokens(aggregate: Aggregate, sequence: &ArrayView2<'_, f32>) -> Array1<f64> {
    let (mut sum, mut squares) = (Array1::<f64>::zeros(sequence.ncols()), Array1::<f64>::zeros(sequence.ncols()));
    let n = sequence.nrows() as f64;
    for row in sequence.rows() {
        match aggregate {
            Aggregate::Mean => sum.zip_mut_with(&row, |s, x| *s += f64::from(x.abs())),
            _ => {
                sum.zip_mut_with(&row, |s, x| *s += f64::from(*x));
                squares.zip_mut_with(&row, |s, x| *s += f64::from(*x).powi(2));
            }
        }
    }
    match aggregate {
        Aggregate::Mean => sum / n,
        Aggregate::L2 => squares.mapv(f64::sqrt),
        Aggregate::Variance => squares / n - (sum / n).mapv(|m| m.powi(2)),
    }
}

/// Adds Σ over sequences of `length` rows of (mean over rows |x|)².
pub(super) fn add_means(to: &mut Array1<f64>, x: &ArrayRef2<f32>, length: usize) {
    for sequence in x.axis_chunks_iter(Axis(0), length) {
        let mut sum = Array1::<f64>::zeros(x.ncols());
        sequence.rows().into_iter().for_each(|row| sum.zip_mut_with(&row, |s, x| *s += f64::from(x.abs())));
        to.zip_mut_with(&sum, |to, s| *to += (s / length as f64).powi(2));
    }
}
