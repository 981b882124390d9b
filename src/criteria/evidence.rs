//! What a criterion is given, and the trait it fulfils.

use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, ArrayView2};
use std::fmt;

/// One thing that can be measured of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// Sum over tokens of the squares of each input, `(in)`.
    InputSquares,
    /// Sum over tokens of x xᵀ, `(in, in)`.
    Gram,
    /// Sum over tokens of each input, `(in)`.
    InputSums,
    /// Gradient of the mean loss, `(out, in)`.
    Gradient,
    /// Mean over samples of the squared gradient of each, `(out, in)`.
    SquaredGradients,
    /// Back-propagated second derivatives of the mean loss, `(out, in)`.
    SecondDerivatives,
    /// The Hessian of the mean loss times its gradient, `(out, in)`.
    HessianGradient,
    /// Synaptic flow ∂R/∂|w|, `(out, in)`.
    SynapticFlow,
    /// Gradients of mini-batches one by one, `(mini-batches, out * in)`.
    SampleGradients,
    /// Sum over tokens of the absolute value of each input, `(in)`.
    InputMagnitudes,
    /// Largest absolute value of each input over tokens, `(in)`.
    InputMaxima,
    /// The Gram matrix of each text of the calibration apart, `(in, in)` each.
    TextGrams,
}

impl Need {
    const ALL: [Need; 12] = [
        Need::InputSquares,
        Need::Gram,
        Need::InputSums,
        Need::Gradient,
        Need::SquaredGradients,
        Need::SecondDerivatives,
        Need::HessianGradient,
        Need::SynapticFlow,
        Need::SampleGradients,
        Need::InputMagnitudes,
        Need::InputMaxima,
        Need::TextGrams,
    ];
}

impl Need {
    /// Those that are one number a weight.
    pub(crate) const ELEMENTWISE: [Need; 5] =
        [Need::Gradient, Need::SquaredGradients, Need::SecondDerivatives, Need::HessianGradient, Need::SynapticFlow];
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Need::InputSquares => "the input norms",
            Need::Gram => "the Gram matrix of the inputs",
            Need::InputSums => "the sums of the inputs",
            Need::Gradient => "the gradient",
            Need::SquaredGradients => "the squared gradients",
            Need::SecondDerivatives => "the second derivatives",
            Need::HessianGradient => "the Hessian times the gradient",
            Need::SynapticFlow => "the synaptic flow",
            Need::SampleGradients => "the gradients of single mini-batches",
            Need::InputMagnitudes => "the magnitudes of the inputs",
            Need::InputMaxima => "the largest magnitudes of the inputs",
            Need::TextGrams => "the Gram matrices of the texts",
        })
    }
}

/// A set of [`Need`]s.
///
/// ```
/// use lacuna::criteria::{Need, Needs};
/// let needs = Needs::none().and(Need::Gradient);
/// assert!(needs.contains(Need::Gradient) && !needs.contains(Need::Gram));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs(u16);

impl Needs {
    /// Nothing but the weight.
    pub fn none() -> Self {
        Needs(0)
    }

    /// These needs and one more.
    pub fn and(self, need: Need) -> Self {
        Needs(self.0 | 1 << need as u8)
    }

    /// These needs but for one.
    pub fn without(self, need: Need) -> Self {
        Needs(self.0 & !(1 << need as u8))
    }

    /// Both sets of needs.
    pub fn union(self, other: Needs) -> Self {
        Needs(self.0 | other.0)
    }

    /// Whether this is needed.
    pub fn contains(self, need: Need) -> bool {
        self.0 >> need as u8 & 1 == 1
    }

    /// The needs one by one.
    pub fn iter(self) -> impl Iterator<Item = Need> {
        Need::ALL.into_iter().filter(move |n| self.contains(*n))
    }
}

/// The Gram matrix of the inputs that one text of a calibration gives.
#[derive(Debug, Clone, PartialEq)]
pub struct TextGram {
    /// Tokens of the text, at least 1.
    pub tokens: usize,
    /// Sum over them of x xᵀ, `(in, in)`.
    pub gram: Array2<f64>,
    /// Whether the text is only judged by: [`Measured::gram`] is without it.
    pub held_out: bool,
}

/// What was measured of one layer; what was not asked for is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// Tokens (samples, and positions of a convolution) behind the input sums.
    pub tokens: usize,
    /// [`Need::InputSquares`]
    pub input_squares: Option<Array1<f64>>,
    /// [`Need::Gram`]
    pub gram: Option<Array2<f64>>,
    /// [`Need::InputSums`]
    pub input_sums: Option<Array1<f64>>,
    /// [`Need::Gradient`]
    pub gradient: Option<Array2<f32>>,
    /// [`Need::SquaredGradients`]
    pub squared_gradients: Option<Array2<f32>>,
    /// [`Need::SecondDerivatives`]
    pub second_derivatives: Option<Array2<f32>>,
    /// [`Need::HessianGradient`]
    pub hessian_gradient: Option<Array2<f32>>,
    /// [`Need::SynapticFlow`]
    pub synaptic_flow: Option<Array2<f32>>,
    /// [`Need::SampleGradients`]
    pub sample_gradients: Option<Array2<f32>>,
    /// [`Need::InputMagnitudes`]
    pub input_magnitudes: Option<Array1<f64>>,
    /// [`Need::InputMaxima`]
    pub input_maxima: Option<Array1<f64>>,
    /// [`Need::TextGrams`]: of each text that has tokens; those not held out sum to the Gram matrix.
    pub texts: Vec<TextGram>,
}

/// One layer as a criterion sees it: its name, its weight, and what was measured.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The layer's name.
    pub layer: &'a str,
    /// `(out, in)`.
    pub weight: ArrayView2<'a, f32>,
    /// The mask already held on the weight, if any.
    pub mask: Option<&'a Mask>,
    /// What was measured.
    pub measured: &'a Measured,
}

impl<'a> Evidence<'a> {
    /// A weight `(out, in)` without a mask, and what was measured of its layer.
    pub fn new(layer: &'a str, weight: &'a ArrayRef2<f32>, measured: &'a Measured) -> Self {
        Evidence { layer, weight: weight.view(), mask: None, measured }
    }

    /// A weight of which nothing was measured.
    pub fn weight_only(layer: &'a str, weight: &'a ArrayRef2<f32>) -> Self {
        static NOTHING: Measured = Measured {
            tokens: 0,
            input_squares: None,
            gram: None,
            input_sums: None,
            gradient: None,
            squared_gradients: None,
            second_derivatives: None,
            hessian_gradient: None,
            synaptic_flow: None,
            sample_gradients: None,
            input_magnitudes: None,
            input_maxima: None,
            texts: Vec::new(),
        };
        Evidence { layer, weight: weight.view(), mask: None, measured: &NOTHING }
    }

    /// The gradients of mini-batches, `(mini-batches, out * in)`, checked to have a column for each weight.
    ///
    /// # Errors
    /// [`Error::MissingEvidence`] if they were not measured, [`Error::Shape`] if they are of another width.
    pub fn sample_gradients(&self, criterion: &str) -> Result<&'a Array2<f32>> {
        let need = Need::SampleGradients;
        let Some(rows) = &self.measured.sample_gradients else {
            return Err(Error::MissingEvidence { criterion: criterion.into(), need: need.to_string(), layer: self.layer.into() });
        };
        if rows.ncols() != self.weight.len() {
            let (n, found) = rows.dim();
            return Err(Error::shape(need.to_string(), &[n, self.weight.len()], &[n, found]).in_layer(self.layer));
        }
        Ok(rows)
    }

    /// The measured `(out, in)` array behind `need`, checked to have the weight's shape.
    ///
    /// # Errors
    /// [`Error::MissingEvidence`] if it was not measured, [`Error::Shape`] if it is of another shape, and
    /// [`Error::InvalidOption`] if `need` is one of the inputs' measures, which have another shape.
    pub fn elementwise(&self, criterion: &str, need: Need) -> Result<&'a Array2<f32>> {
        let found = match need {
            Need::Gradient => &self.measured.gradient,
            Need::SquaredGradients => &self.measured.squared_gradients,
            Need::SecondDerivatives => &self.measured.second_derivatives,
            Need::HessianGradient => &self.measured.hessian_gradient,
            Need::SynapticFlow => &self.measured.synaptic_flow,
            Need::InputSquares
            | Need::Gram
            | Need::InputSums
            | Need::SampleGradients
            | Need::InputMagnitudes
            | Need::InputMaxima
            | Need::TextGrams => {
                return Err(Error::invalid_option(criterion, format!("{need} is not one number a weight")));
            }
        };
        let Some(array) = found else {
            return Err(Error::MissingEvidence { criterion: criterion.into(), need: need.to_string(), layer: self.layer.into() });
        };
        if array.dim() != self.weight.dim() {
            let ((r, c), (fr, fc)) = (self.weight.dim(), array.dim());
            return Err(Error::shape(need.to_string(), &[r, c], &[fr, fc]).in_layer(self.layer));
        }
        Ok(array)
    }

    /// Sum over tokens of the squares of each input, `(in)`: as measured, or the diagonal of the Gram matrix.
    ///
    /// # Errors
    /// [`Error::MissingEvidence`] if neither was measured, [`Error::Shape`] if it has not one entry an input, and
    /// [`Error::NotFinite`] at the first that is not a finite number of at least 0.
    pub fn input_squares(&self, criterion: &str) -> Result<Array1<f64>> {
        let diagonal = || self.measured.gram.as_ref().map(|g| g.diag().to_owned());
        let found = self.measured.input_squares.clone().or_else(diagonal);
        self.not_negative(criterion, Need::InputSquares, found)
    }

    /// Sum over tokens of each input, `(in)`.
    ///
    /// # Errors
    /// As [`Evidence::input_squares`].
    pub fn input_sums(&self, criterion: &str) -> Result<Array1<f64>> {
        let sums = self.one_an_input(criterion, Need::InputSums, self.measured.input_sums.clone())?;
        match sums.iter().position(|s| !s.is_finite()) {
            None => Ok(sums),
            Some(col) => Err(Error::NotFinite { what: Need::InputSums.to_string(), row: 0, col, value: sums[col] }),
        }
    }

    /// Sum over tokens of the absolute value of each input, `(in)`.
    ///
    /// # Errors
    /// As [`Evidence::input_squares`].
    pub fn input_magnitudes(&self, criterion: &str) -> Result<Array1<f64>> {
        self.not_negative(criterion, Need::InputMagnitudes, self.measured.input_magnitudes.clone())
    }

    /// Largest absolute value of each input over tokens, `(in)`.
    ///
    /// # Errors
    /// As [`Evidence::input_squares`].
    pub fn input_maxima(&self, criterion: &str) -> Result<Array1<f64>> {
        self.not_negative(criterion, Need::InputMaxima, self.measured.input_maxima.clone())
    }

    fn not_negative(&self, criterion: &str, need: Need, found: Option<Array1<f64>>) -> Result<Array1<f64>> {
        let array = self.one_an_input(criterion, need, found)?;
        match array.iter().position(|s| !(s.is_finite() && *s >= 0.0)) {
            None => Ok(array),
            Some(col) => Err(Error::NotFinite { what: need.to_string(), row: 0, col, value: array[col] }),
        }
    }

    fn one_an_input(&self, criterion: &str, need: Need, found: Option<Array1<f64>>) -> Result<Array1<f64>> {
        let missing = || Error::MissingEvidence { criterion: criterion.into(), need: need.to_string(), layer: self.layer.into() };
        let array = found.ok_or_else(missing)?;
        if array.len() != self.weight.ncols() {
            return Err(Error::shape(need.to_string(), &[self.weight.ncols()], &[array.len()]).in_layer(self.layer));
        }
        Ok(array)
    }

    /// The Gram matrix XᵀX of the inputs, `(in, in)`.
    ///
    /// # Errors
    /// [`Error::MissingEvidence`] if it was not measured, [`Error::Shape`] if its order is not the number of inputs,
    /// [`Error::NotFinite`] at its first NaN or infinity.
    pub fn gram(&self, criterion: &str) -> Result<&'a Array2<f64>> {
        let missing =
            || Error::MissingEvidence { criterion: criterion.into(), need: Need::Gram.to_string(), layer: self.layer.into() };
        let (gram, n) = (self.measured.gram.as_ref().ok_or_else(missing)?, self.weight.ncols());
        if gram.dim() != (n, n) {
            let (what, found) = (Need::Gram.to_string(), [gram.nrows(), gram.ncols()]);
            return Err(Error::shape(what, &[n, n], &found).in_layer(self.layer));
        }
        match gram.indexed_iter().find(|(_, v)| !v.is_finite()) {
            None => Ok(gram),
            Some(((row, col), &value)) => Err(Error::NotFinite { what: Need::Gram.to_string(), row, col, value }),
        }
    }
}

/// A criterion: scores for the weights of one layer.
///
/// ```
/// use lacuna::criteria::{Evidence, Magnitude, Saliency};
/// use ndarray::array;
/// let w = array![[1., -3.], [2., 0.]];
/// let scores = Magnitude::default().score(&Evidence::weight_only("fc1", &w)).unwrap();
/// assert_eq!(scores, array![[1., 3.], [2., 0.]]);
/// ```
#[auto_impl::auto_impl(&, Box)]
pub trait Saliency: Send + Sync + fmt::Debug {
    /// The name users know, lower case: `obd`.
    fn name(&self) -> &str;

    /// What must be measured before scores can be computed.
    fn needs(&self) -> Needs {
        Needs::none()
    }

    /// Scores of the weight's shape, larger = keep.
    ///
    /// # Errors
    /// [`Error::MissingEvidence`] if what [`Saliency::needs`] says was not measured.
    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>>;

    /// Whether the score is the increase of the loss that removing the weight is predicted to cause.
    fn predicts_loss(&self) -> bool {
        false
    }
}
