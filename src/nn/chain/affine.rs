//! Layers that are linear in their weights: fully connected and convolutional.

use super::arrays::square;
use super::{Conv2d, Param};
use crate::linalg::{Threads, gemm};
use ndarray::{Array2, Axis};
use std::borrow::Cow;

/// How a weight matrix meets its input: a bilinear map of `(W, x)`.
///
/// With `y = map(W, x)`, three products are enough for every derivative:
///
/// | product | linear layer | used for |
/// |---|---|---|
/// | `apply(W, x)` | x Wᵀ | y, and tangents of y |
/// | `input_gradient(W, d)` | d W | ∂/∂x from d = ∂/∂y |
/// | `weight_gradient(x, d)` | dᵀ x | ∂/∂W, summed over the batch |
///
/// A convolution is the same three with the weights shared over positions. With `W∘W`, `x∘x` and second derivatives for
/// `d`, they back-propagate Optimal Brain Damage's diagonal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Map {
    /// Fully connected, weight `(outputs, inputs)`.
    Linear {
        /// Features of x.
        inputs: usize,
        /// Features of y.
        outputs: usize,
    },
    /// Two-dimensional convolution, weight `(out channels, in channels * height * width)`.
    Conv2d(Conv2d),
}

impl Map {
    /// Rows and columns of the weight.
    pub fn weight_dim(&self) -> (usize, usize) {
        match self {
            Map::Linear { inputs, outputs } => (*outputs, *inputs),
            Map::Conv2d(conv) => (conv.out_channels, conv.patch()),
        }
    }

    /// Features of x.
    pub fn inputs(&self) -> usize {
        match self {
            Map::Linear { inputs, .. } => *inputs,
            Map::Conv2d(conv) => conv.input.0 * conv.input.1 * conv.input.2,
        }
    }

    /// Features of y.
    pub fn outputs(&self) -> usize {
        self.weight_dim().0 * self.positions()
    }

    /// How many times each weight is used for one sample: 1, or the positions of a convolution's output.
    pub fn positions(&self) -> usize {
        match self {
            Map::Linear { .. } => 1,
            Map::Conv2d(conv) => conv.positions(),
        }
    }

    /// The shape that files show of the weight.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Map::Linear { inputs, outputs } => vec![*outputs, *inputs],
            Map::Conv2d(conv) => vec![conv.out_channels, conv.input.0, conv.kernel.0, conv.kernel.1],
        }
    }

    /// `y (batch, outputs)` of `x (batch, inputs)`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn apply(&self, weight: &Array2<f32>, x: &Array2<f32>) -> Array2<f32> {
        self.check(weight, x, self.inputs());
        match self {
            Map::Linear { outputs, .. } => {
                let mut y = Array2::zeros((x.nrows(), *outputs));
                gemm(1.0, x, &weight.t(), 0.0, &mut y, Threads::Pool);
                y
            }
            Map::Conv2d(conv) => conv.apply(weight, &standard(x)),
        }
    }

    /// `(batch, inputs)` of `d (batch, outputs)`: the transpose of [`Map::apply`] in x.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn input_gradient(&self, weight: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        self.check(weight, d, self.outputs());
        match self {
            Map::Linear { inputs, .. } => {
                let mut out = Array2::zeros((d.nrows(), *inputs));
                gemm(1.0, d, weight, 0.0, &mut out, Threads::Pool);
                out
            }
            Map::Conv2d(conv) => conv.input_gradient(weight, &standard(d)),
        }
    }

    /// The transpose of [`Map::apply`] in W, of the shape of W, summed over the batch.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn weight_gradient(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        self.check_pair(x, d);
        match self {
            Map::Linear { .. } => {
                let mut out = Array2::zeros(self.weight_dim());
                gemm(1.0, &d.t(), x, 0.0, &mut out, Threads::Pool);
                out
            }
            Map::Conv2d(conv) => conv.weight_gradient(&standard(x), &standard(d)),
        }
    }

    /// The sum over the batch of the squares of each sample's [`Map::weight_gradient`]: what the diagonal of the empirical Fisher
    /// matrix is made of.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn squared_weight_gradient(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        self.check_pair(x, d);
        match self {
            // A sample's gradient is an outer product, so its square is the outer product of the squares.
            Map::Linear { .. } => self.weight_gradient(&square(x), &square(d)),
            Map::Conv2d(conv) => conv.squared_weight_gradient(&standard(x), &standard(d)),
        }
    }

    /// What each row of the weight is multiplied with: `(batch * positions, in)`. For a linear layer that is x.
    ///
    /// # Panics
    /// If x has another number of features.
    pub fn patches(&self, x: &Array2<f32>) -> Array2<f32> {
        assert_eq!(x.ncols(), self.inputs(), "{self:?} has another number of inputs");
        match self {
            Map::Linear { .. } => x.clone(),
            Map::Conv2d(conv) => conv.patches(&standard(x)),
        }
    }

    /// `d (batch, outputs)` summed over positions: `(batch, out units)`.
    pub(crate) fn over_positions(&self, d: &Array2<f32>) -> Array2<f32> {
        let positions = self.positions();
        if positions == 1 {
            return d.clone();
        }
        let sums =
            d.rows().into_iter().flat_map(|row| row.exact_chunks(positions).into_iter().map(|p| p.sum()).collect::<Vec<_>>());
        Array2::from_shape_vec((d.nrows(), d.ncols() / positions), sums.collect()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn check(&self, weight: &Array2<f32>, x: &Array2<f32>, features: usize) {
        assert!(
            weight.dim() == self.weight_dim() && x.ncols() == features,
            "{self:?} given weight {:?} and {:?} features, expected {:?} and {features}",
            weight.dim(),
            x.ncols(),
            self.weight_dim(),
        );
    }

    fn check_pair(&self, x: &Array2<f32>, d: &Array2<f32>) {
        let found = (x.nrows(), x.ncols(), d.ncols());
        assert!(found == (d.nrows(), self.inputs(), self.outputs()), "{self:?} given x {:?} and d {:?}", x.dim(), d.dim());
    }
}

/// The array in standard layout, a copy only where it is in another.
fn standard(x: &Array2<f32>) -> Cow<'_, Array2<f32>> {
    if x.is_standard_layout() { Cow::Borrowed(x) } else { Cow::Owned(x.as_standard_layout().into_owned()) }
}

/// A weight, its map and a bias: `y = map(W, x) + b`, the bias shared over positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// How the weight meets the input.
    pub map: Map,
    /// `(out, in)`; see [`Map::weight_dim`].
    pub weight: Param,
    /// `(out, 1)`.
    pub bias: Option<Param>,
}

impl Affine {
    /// A layer with these numbers.
    ///
    /// # Panics
    /// If the weight or the bias does not fit the map.
    pub fn new(map: Map, weight: Array2<f32>, bias: Option<Array2<f32>>) -> Self {
        let dim = map.weight_dim();
        assert!(weight.dim() == dim, "{map:?} needs a weight {dim:?}, not {:?}", weight.dim());
        let bias = bias.map(|bias| {
            assert!(bias.dim() == (dim.0, 1), "{map:?} needs a bias {:?}, not {:?}", (dim.0, 1), bias.dim());
            Param::new(bias, vec![dim.0])
        });
        Affine { weight: Param::new(weight, map.weight_shape()), map, bias }
    }

    pub(crate) fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        let mut y = self.map.apply(self.weight.value(), x);
        if let Some(bias) = &self.bias {
            self.add_bias(bias.value(), &mut y);
        }
        y
    }

    /// `y + b`, for `b (out, 1)`.
    pub(crate) fn add_bias(&self, bias: &Array2<f32>, y: &mut Array2<f32>) {
        let positions = self.map.positions();
        for mut row in y.rows_mut() {
            for (mut part, &b) in row.exact_chunks_mut(positions).into_iter().zip(bias) {
                part += b;
            }
        }
    }

    /// The gradient of the bias, `(out, 1)`, summed over the batch.
    pub(crate) fn bias_gradient(&self, d: &Array2<f32>) -> Array2<f32> {
        self.map.over_positions(d).sum_axis(Axis(0)).insert_axis(Axis(1))
    }

    /// The sum over the batch of the squared gradients of the bias, `(out, 1)`.
    pub(crate) fn bias_gradient_squares(&self, d: &Array2<f32>) -> Array2<f32> {
        square(&self.map.over_positions(d)).sum_axis(Axis(0)).insert_axis(Axis(1))
    }
}
