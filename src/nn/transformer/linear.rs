//! A linear layer of a language model, its weight in any storage; and who may look at its inputs.

use super::norm::{SIDE_BY_SIDE, side_by_side};
use crate::linalg::{Threads, gemm};
use crate::mask::Mask;
use crate::nn::activation::PARALLEL;
use crate::nn::observer::{Sink, Wanted};
use crate::nn::parameters::{Change, See, check_mask, hold};
use crate::solve::Pruned;
use crate::sparse::{ActivationBits, Dense, Epilogue, Format, LinearOp, PackedDense, Precision, Quantized, narrow};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone)]
enum Storage {
    Dense(Box<Dense>),
    /// Not changed any more, so that copies of a model share it.
    Packed(Arc<dyn LinearOp>),
}

/// `y = x · Wᵀ + b`, where W `(out, in)` is dense until another storage replaces it.
///
/// The name is that of the layer in its checkpoint, for example `model.layers.0.self_attn.q_proj`.
#[derive(Clone)]
pub struct Linear {
    name: String,
    group: String,
    storage: Storage,
    /// Held on a dense weight; one in another storage has its own.
    mask: Option<Mask>,
    bias: Option<Array1<f32>>,
    transposed: bool,
    parts: Vec<(&'static str, usize)>,
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, inputs) = self.shape();
        write!(f, "Linear({}, {out} x {inputs}, {})", self.name, self.op().format())
    }
}

impl Linear {
    /// A layer with a dense weight `(out, in)`.
    ///
    /// # Panics
    /// If the bias has not `out` numbers.
    pub fn new(name: impl Into<String>, weight: Array2<f32>, bias: Option<Array1<f32>>) -> Self {
        let name = name.into();
        let out = weight.nrows();
        assert!(bias.as_ref().is_none_or(|b| b.len() == out), "{name}: {out} outputs, a bias of {:?}", bias.map(|b| b.len()));
        let storage = Storage::Dense(Box::new(Dense::new(weight)));
        Linear {
            group: name.clone(),
            name,
            storage,
            mask: None,
            bias: bias.map(side_by_side),
            transposed: false,
            parts: Vec::new(),
        }
    }

    /// Says which layer stands for all that read the same input: the first of them.
    pub fn in_group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// Says that the checkpoint holds the weight `(in, out)`.
    pub fn held_transposed(mut self, transposed: bool) -> Self {
        self.transposed = transposed;
        self
    }

    /// Says which layers are stacked in the rows of this one: their names and numbers of rows.
    ///
    /// # Panics
    /// If the rows do not sum to those of the weight.
    pub fn with_parts(mut self, parts: &[(&'static str, usize)]) -> Self {
        let rows: usize = parts.iter().map(|(_, rows)| rows).sum();
        assert_eq!(rows, self.shape().0, "{}: the rows of its parts", self.name);
        self.parts = parts.to_vec();
        self
    }

    /// The layer's name in its checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the weight's tensor.
    pub fn tensor(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// The name of the bias's tensor, whether or not there is one.
    pub fn bias_tensor(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// The name of the first layer that reads the same input; its own if it is alone.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Whether the checkpoint holds the weight `(in, out)`; here it is always `(out, in)`.
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// The layers that are stacked in the rows of this one, and their rows; none if it is a single layer.
    pub fn parts(&self) -> Vec<(&'static str, Range<usize>)> {
        let mut end = 0;
        let place = |&(name, rows): &(&'static str, usize)| {
            end += rows;
            (name, end - rows..end)
        };
        self.parts.iter().map(place).collect()
    }

    /// `(out, in)`.
    pub fn shape(&self) -> (usize, usize) {
        self.op().shape()
    }

    /// The weight in its storage.
    pub fn op(&self) -> &dyn LinearOp {
        match &self.storage {
            Storage::Dense(dense) => dense.as_ref(),
            Storage::Packed(op) => op.as_ref(),
        }
    }

    /// The weight `(out, in)` if it is dense.
    pub fn weight(&self) -> Option<&Array2<f32>> {
        match &self.storage {
            Storage::Dense(dense) => Some(dense.weight()),
            Storage::Packed(_) => None,
        }
    }

    /// The weight `(out, in)`, made dense if it is not.
    pub fn dense_weight(&self) -> CowArray<'_, f32, Ix2> {
        self.weight().map_or_else(|| self.op().to_dense().into(), |w| w.view().into())
    }

    /// The bias, `(out)`.
    pub fn bias(&self) -> Option<&Array1<f32>> {
        self.bias.as_ref()
    }

    /// Replaces the weight by a dense one; a mask that is held is applied to it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape differs.
    pub fn set_weight(&mut self, mut weight: Array2<f32>) -> Result<()> {
        self.check(weight.dim())?;
        self.mask.iter().for_each(|mask| mask.apply(&mut weight));
        self.storage = Storage::Dense(Box::new(Dense::new(weight)));
        Ok(())
    }

    /// The mask that is held on the weight, if any.
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// Which weights are kept: the mask that is held, or what a sparse storage keeps. `None` where all are.
    pub fn kept(&self) -> Option<Cow<'_, Mask>> {
        let stored = || match &self.storage {
            Storage::Packed(op) if op.nnz() < op.shape().0 * op.shape().1 => Some(Cow::Owned(op.mask())),
            _ => None,
        };
        self.mask.as_ref().map(Cow::Borrowed).or_else(stored)
    }

    /// Holds a mask on the weight from now on: what it drops becomes 0, and stays 0 through training. None lets all of it move again.
    ///
    /// # Errors
    /// [`Error::Shape`] if the mask's shape is not the weight's; if the weight is not dense.
    pub fn set_mask(&mut self, mask: Option<Mask>) -> Result<()> {
        let tensor = self.tensor();
        if let Some(mask) = &mask {
            check_mask(&tensor, self.shape(), mask)?;
            match &mut self.storage {
                Storage::Dense(dense) => hold(mask, dense.as_slice_mut()),
                Storage::Packed(op) => {
                    let reason = format!("{tensor} is stored as {}; masks are held on dense weights, in 32 bits", op.format());
                    return Err(Error::invalid_option("mask", reason));
                }
            }
        }
        self.mask = mask;
        Ok(())
    }

    /// Takes the weight and the mask that pruning left; the mask is held from now on.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ.
    pub fn set_pruned(&mut self, pruned: Pruned) -> Result<()> {
        pruned.check(&self.name, self.shape())?;
        self.mask = None;
        self.set_weight(pruned.weight)?;
        self.set_mask(Some(pruned.mask))
    }

    /// Keeps a dense weight in 4 or 8 bits ([`Quantized`]: a scale, and an offset or none, for each 32 along the inputs or more) or in 16 if these hold
    /// every number of it exactly: a seventh, a quarter or half of the memory, and of the time of a product with few tokens where memory is
    /// what it waits for. Products with 4 and 8 bits take activations of so many bits. Such a weight does not train.
    pub fn narrow(&mut self, bits: ActivationBits) {
        if let Storage::Dense(dense) = &self.storage
            && !dense.weight().is_empty()
        {
            let codes = Quantized::exactly(dense.weight()).map(|w| Arc::new(w.with_activation_bits(bits)) as Arc<dyn LinearOp>);
            if let Some(narrow) = codes.or_else(|| narrow(dense.weight()).map(Arc::from)) {
                self.storage = Storage::Packed(narrow);
            }
        }
    }

    /// Rounds a dense weight to the nearest of some numbers and keeps it in them; products with 4 and 8 bits take activations of so many bits. Such a
    /// weight does not train.
    ///
    /// # Errors
    /// As [`Quantized::round_to_nearest`].
    pub fn round_to(&mut self, values: Precision, bits: ActivationBits) -> Result<()> {
        let Storage::Dense(dense) = &self.storage else { return Ok(()) };
        let weight = dense.weight();
        self.storage = Storage::Packed(match values {
            Precision::F32 | Precision::Bf16 | Precision::F16 => {
                Format::Dense.build(weight, &Mask::full(weight.nrows(), weight.ncols()), values)?.into()
            }
            _ => Arc::new(Quantized::round_to_nearest(weight, values)?.with_activation_bits(bits)),
        });
        Ok(())
    }

    /// Packs a dense weight for inference: the same numbers in as many bytes, in the order in which products read them ([`PackedDense`]), which
    /// takes up to a quarter less time. Such a weight does not train.
    pub fn pack(&mut self) {
        if let Storage::Dense(dense) = &self.storage {
            self.storage = Storage::Packed(Arc::new(PackedDense::new(dense.weight())));
        }
    }

    /// Reads one row of the weight, `(in)`.
    ///
    /// # Panics
    /// If there is no such row, or `to` has not `in` numbers.
    pub fn row_into(&self, row: usize, to: &mut [f32]) {
        self.op().row_into(row, to);
    }

    /// Replaces the weight's storage.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shape differs.
    pub fn set_op(&mut self, op: Box<dyn LinearOp>) -> Result<()> {
        self.check(op.shape())?;
        self.mask = None;
        self.storage = Storage::Packed(op.into());
        Ok(())
    }

    /// Replaces the bias, or gives one to a layer that has none.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of outputs differs.
    pub fn set_bias(&mut self, bias: Option<Array1<f32>>) -> Result<()> {
        if let Some(bias) = bias.as_ref().filter(|b| b.len() != self.shape().0) {
            return Err(Error::shape(self.bias_tensor(), &[self.shape().0], &[bias.len()]));
        }
        self.bias = bias.map(side_by_side);
        Ok(())
    }

    fn check(&self, found: (usize, usize)) -> Result<()> {
        let (out, inputs) = self.shape();
        let misfit = || Error::shape(self.tensor(), &[out, inputs], &[found.0, found.1]);
        if found == (out, inputs) { Ok(()) } else { Err(misfit()) }
    }

    /// `y = x · Wᵀ + b`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn apply(&self, x: &ArrayRef2<f32>) -> Array2<f32> {
        let mut y = Array2::zeros((x.nrows(), self.shape().0));
        self.apply_into(x, &mut y);
        y
    }

    /// As [`Linear::apply`], into y of any strides.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn apply_into(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>) {
        match self.shape().1 {
            0 => y.fill(0.0),
            _ => self.op().apply_into(x, y),
        }
        self.add_bias(y);
    }

    /// `y <- y + x · Wᵀ + b`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_to(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>) {
        if self.shape().1 > 0 {
            self.op().apply_with(x, y, &Epilogue { accumulate: true, ..Epilogue::default() });
        }
        self.add_bias(y);
    }

    fn add_bias(&self, y: &mut ArrayRef2<f32>) {
        let Some(bias) = &self.bias else { return };
        let many = y.len() >= PARALLEL;
        let rows = y.axis_chunks_iter_mut(Axis(0), if many { 16 } else { 1 << 30 });
        if many {
            rows.into_par_iter().for_each(|mut rows| rows += bias);
        } else {
            rows.for_each(|mut rows| rows += bias);
        }
    }

    /// `dx <- dx + dy · W`: the way back to the input.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn input_gradient(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        gemm(1.0, dy, &self.dense_weight(), 1.0, dx, Threads::Pool);
    }

    /// Gives `dyᵀ · x`, the gradient of the weight, and `Σ dy`, that of the bias, to `sink`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn weight_gradient(&self, dy: &ArrayRef2<f32>, x: &ArrayRef2<f32>, sink: &mut Sink<'_>) {
        self.wanted_gradient(dy, x, &|_| true, sink);
    }

    /// As [`Linear::weight_gradient`], where these are wanted; what is not is not computed.
    pub(crate) fn wanted_gradient(&self, dy: &ArrayRef2<f32>, x: &ArrayRef2<f32>, wanted: &Wanted<'_>, sink: &mut Sink<'_>) {
        if wanted(&self.tensor()) {
            let mut gradient = Array2::zeros(self.shape());
            gemm(1.0, &dy.t(), x, 0.0, &mut gradient, Threads::Pool);
            sink(&self.tensor(), gradient.into_dyn());
        }
        if self.bias.is_some() && wanted(&self.bias_tensor()) {
            sink(&self.bias_tensor(), column_sums(dy.view()).into_dyn());
        }
    }

    /// Calls `f` with each parameter's tensor name and numbers, a weight as `(out, in)`.
    pub(crate) fn visit(&self, f: &mut See<'_>) {
        f(&self.tensor(), self.dense_weight().view().into_dyn(), self.kept().as_deref());
        if let Some(bias) = &self.bias {
            f(&self.bias_tensor(), bias.view().into_dyn(), None);
        }
    }

    /// Calls `f` with each parameter's tensor name and numbers, to be changed.
    ///
    /// # Errors
    /// If the weight is not dense.
    pub(crate) fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        let tensor = self.tensor();
        match &mut self.storage {
            Storage::Dense(dense) => f(&tensor, dense.as_slice_mut(), self.mask.as_ref()),
            Storage::Packed(_) => {
                let reason = format!("{tensor} is stored as {}; only dense weights train, in 32 bits", self.op().format());
                return Err(Error::invalid_option("training", reason));
            }
        }
        let tensor = self.bias_tensor();
        if let Some(bias) = &mut self.bias {
            f(&tensor, bias.as_slice_mut().expect(SIDE_BY_SIDE), None);
        }
        Ok(())
    }
}

/// Rows of a task whose sums are added in their order.
const ROWS: usize = 64;

/// Sums of the columns, in parts of a fixed number of rows.
pub(crate) fn column_sums(y: ArrayView2<'_, f32>) -> Array1<f32> {
    let mut sums = Array1::<f64>::zeros(y.ncols());
    for part in y.axis_chunks_iter(Axis(0), ROWS) {
        sums += &part.sum_axis(Axis(0)).mapv(f64::from);
    }
    sums.mapv(|s| s as f32)
}
