//! Named parameters, the masks that are held on them, and gradients by name: what training, sizes and checkpoints are written against,
//! whatever the model is.

use crate::mask::Mask;
use crate::{Error, Result};
use ndarray::{ArrayD, ArrayViewD};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Sees a parameter: its name, its numbers (a weight as `(out, in)`), and the mask that is held on it.
pub type See<'f> = dyn FnMut(&str, ArrayViewD<'_, f32>, Option<&Mask>) + 'f;

/// Changes a parameter: its name, its numbers in standard layout, and the mask that is held on it.
pub type Change<'f> = dyn FnMut(&str, &mut [f32], Option<&Mask>) + 'f;

/// A model as named parameters, and the only owner of the masks that are held on them.
///
/// A [`Network`](crate::nn::Network), a [`LanguageModel`](crate::lm::LanguageModel) and a [`Seq2Seq`](crate::lm::Seq2Seq) are some; a model of your
/// own needs the three methods that have no body.
///
/// ```
/// use lacuna::mask::Mask;
/// use lacuna::nn::{Change, Gradients, Method, Optimizer, Parameters, See};
/// use ndarray::{Array2, array};
///
/// /// One weight, `(out, in)`, and its mask.
/// struct Line(Array2<f32>, Option<Mask>);
///
/// impl Parameters for Line {
///     fn visit(&self, f: &mut See<'_>) {
///         f("weight", self.0.view().into_dyn(), self.1.as_ref());
///     }
///     fn visit_mut(&mut self, f: &mut Change<'_>) -> lacuna::Result<()> {
///         f("weight", self.0.as_slice_mut().expect("standard layout"), self.1.as_ref());
///         Ok(())
///     }
///     fn set_mask(&mut self, _: &str, mask: Option<Mask>) -> lacuna::Result<()> {
///         mask.iter().for_each(|m| m.apply(&mut self.0));
///         self.1 = mask;
///         Ok(())
///     }
/// }
///
/// let mut line = Line(array![[1., 2.]], None);
/// line.set_mask("weight", Some(Mask::from_fn(1, 2, |_, c| c == 1)))?;
/// let gradients = Gradients::from_iter([("weight".to_string(), array![[1., 1.]].into_dyn())]);
/// Optimizer::new(Method::Sgd { momentum: 0., weight_decay: 0. }).step(&mut line, &gradients, 0.5)?;
/// assert_eq!((line.0.clone(), line.kept_parameters()), (array![[0., 1.5]], 1));
/// # Ok::<(), lacuna::Error>(())
/// ```
pub trait Parameters {
    /// Calls `f` with every parameter, always in the same order.
    fn visit(&self, f: &mut See<'_>);

    /// Calls `f` with every parameter, in the order of [`Parameters::visit`], to be changed. Whoever changes one sees to its mask.
    ///
    /// # Errors
    /// If a weight cannot be changed where it is stored.
    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()>;

    /// Holds a mask on a parameter from now on: what it drops becomes 0, and stays 0 through training. None lets all of it move again.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if no parameter has that name, [`Error::Shape`] if the mask has another shape.
    fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()>;

    /// The masks that are held, by the parameters' names.
    fn masks(&self) -> BTreeMap<String, Mask> {
        let mut found = BTreeMap::new();
        self.visit(&mut |name, _, mask| found.extend(mask.map(|m| (name.to_string(), m.clone()))));
        found
    }

    /// Number of parameters.
    fn parameter_count(&self) -> usize {
        let mut sum = 0;
        self.visit(&mut |_, values, _| sum += values.len());
        sum
    }

    /// Number of parameters that no mask drops.
    fn kept_parameters(&self) -> usize {
        let mut sum = 0;
        self.visit(&mut |_, values, mask| sum += mask.map_or(values.len(), Mask::kept));
        sum
    }
}

/// Refuses a mask of another shape than the parameter's matrix.
///
/// # Errors
/// [`Error::Shape`], naming the parameter.
pub fn check_mask(name: &str, (rows, cols): (usize, usize), mask: &Mask) -> Result<()> {
    if mask.dim() == (rows, cols) {
        return Ok(());
    }
    Err(Error::shape(format!("mask of {name}"), &[rows, cols], &[mask.rows(), mask.cols()]))
}

/// Numbers of a gradient whose squares are summed one after another.
const PART: usize = 1 << 14;

/// Gradients by parameter name: `(out, in)` for a weight, `(n)` or `(n, 1)` for a vector.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gradients(BTreeMap<String, ArrayD<f32>>);

impl FromIterator<(String, ArrayD<f32>)> for Gradients {
    fn from_iter<I: IntoIterator<Item = (String, ArrayD<f32>)>>(all: I) -> Self {
        Gradients(all.into_iter().collect())
    }
}

impl IntoIterator for Gradients {
    type Item = (String, ArrayD<f32>);
    type IntoIter = std::collections::btree_map::IntoIter<String, ArrayD<f32>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Gradients {
    /// Keeps what a pass back gives: `pass` is given the sink.
    ///
    /// ```no_run
    /// # fn f(model: lacuna::lm::LanguageModel, ids: &[u32]) -> lacuna::Result<()> {
    /// use lacuna::nn::Gradients;
    /// let (loss, gradients) = Gradients::of(|sink| model.backward(ids, ids.len(), sink))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of the pass.
    pub fn of<T>(pass: impl FnOnce(&mut dyn FnMut(&str, ArrayD<f32>)) -> Result<T>) -> Result<(T, Self)> {
        let mut all = BTreeMap::new();
        let result = pass(&mut |name, gradient| {
            all.insert(name.to_string(), gradient);
        })?;
        Ok((result, Gradients(all)))
    }

    /// The gradient of one parameter.
    pub fn get(&self, name: &str) -> Option<&ArrayD<f32>> {
        self.0.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ArrayD<f32>)> {
        self.0.iter().map(|(name, g)| (name.as_str(), g))
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The Euclidean norm of all gradients together.
    pub fn norm(&self) -> f64 {
        // In parts of a fixed size, whose sums are added in their order.
        let squares = |part: &[f32]| part.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        let square = |g: &ArrayD<f32>| match g.as_slice_memory_order() {
            Some(numbers) => numbers.par_chunks(PART).map(squares).collect::<Vec<_>>().into_iter().sum::<f64>(),
            None => g.iter().map(|&g| f64::from(g) * f64::from(g)).sum(),
        };
        self.0.values().map(square).sum::<f64>().sqrt()
    }

    /// Multiplies all by a factor.
    pub fn scale(&mut self, factor: f32) {
        self.0.values_mut().for_each(|g| g.par_mapv_inplace(|g| g * factor));
    }

    /// Squares every entry.
    pub fn square(&mut self) {
        self.0.values_mut().for_each(|g| g.mapv_inplace(|g| g * g));
    }

    /// Adds others, of the same parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] if a parameter's two gradients differ in shape.
    pub fn add(&mut self, others: Gradients) -> Result<()> {
        for (name, other) in others.0 {
            match self.0.get_mut(&name) {
                None => {
                    self.0.insert(name, other);
                }
                Some(own) if own.shape() == other.shape() => *own += &other,
                Some(own) => return Err(Error::shape(format!("gradient of {name}"), own.shape(), other.shape())),
            }
        }
        Ok(())
    }
}

/// A mask over the numbers of a parameter, `(rows, cols)` of them row by row, applied.
///
/// # Panics
/// If the numbers are not as many.
pub(crate) fn hold(mask: &Mask, values: &mut [f32]) {
    match ndarray::ArrayViewMut2::from_shape(mask.dim(), values) {
        Ok(mut values) => mask.apply(&mut values),
        Err(_) => panic!("a mask of {:?} on another number of numbers", mask.dim()),
    }
}
