//! How heads and feed-forward features are chosen, and what that needs of their inputs.

use crate::Result;
use crate::calibrate::InputStatistics;
use crate::criteria::{Need, Needs, Saliency};
use crate::prune::SequenceGradients;
use crate::rng::Seed;
use crate::solve::GroupObs;
use ndarray::{Array1, ArrayRef2, Axis};

/// How units of a block are chosen. All but the first leave the weights that stay as they are.
#[derive(Debug, Clone, Copy)]
pub enum UnitMethod<'a> {
    /// Group OBS on the layer that reads the units: removal in rounds, exchanges, and the least squares solution of what stays.
    Obs(GroupObs),
    /// The activations of a unit: √ Σ over sequences (mean over tokens |x|)², of heads √ Σ of the squares of that over their features. Muralidharan et
    /// al., *Compact language models via pruning and knowledge distillation* (Minitron), NeurIPS 2024, arXiv:2407.14679, as the authors' library
    /// computes it.
    Minitron,
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
        matches!(self, UnitMethod::Obs(_) | UnitMethod::Minitron | UnitMethod::Flap)
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
    /// Σ over sequences (mean over tokens |x|)², of each input.
    pub means: Option<Array1<f64>>,
    /// Tokens of a sequence.
    length: usize,
    activations: bool,
}

impl UnitInputs {
    pub fn new(method: &UnitMethod<'_>, needs: Needs, layers: Vec<String>, length: usize) -> Self {
        let activations = matches!(method, UnitMethod::Minitron);
        UnitInputs { sums: InputStatistics::new(needs, layers), means: None, length, activations }
    }

    /// Adds inputs `(tokens, in)` of whole sequences.
    pub fn add(&mut self, x: &ArrayRef2<f32>) -> Result<()> {
        self.sums.add(x)?;
        if self.activations {
            add_means(self.means.get_or_insert_with(|| Array1::zeros(x.ncols())), x, self.length);
        }
        Ok(())
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
