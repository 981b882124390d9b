//! The layers between attentions.
//!
//! ```text
//! plain   y = W_down f(W_up x)
//! gated   y = W_down (f(W_gate x) ⊙ W_up x)       Shazeer 2020, arXiv:2002.05202
//! ```

use super::Linear;
use super::attention::{Carry, project, project_back};
use crate::kernels::vector;
use crate::nn::Activation;
use crate::nn::activation::PARALLEL;
use crate::nn::observer::Observer;
use crate::nn::parameters::{Change, See};
use crate::{Error, Result};
use ndarray::Array2;
use rayon::prelude::*;
use std::ops::Range;

/// The layers that read the input.
#[derive(Debug, Clone)]
pub enum UpProjection {
    /// One, whose outputs go through the activation.
    Plain(Linear),
    /// Two: the activation of the first multiplies the second.
    Gated {
        /// The one with the activation.
        gate: Linear,
        /// The other.
        up: Linear,
    },
    /// Those two in the rows of one layer, the gate first.
    Fused(Linear),
}

/// Two or three linear layers around an activation.
#[derive(Debug, Clone)]
pub struct FeedForward {
    opening: UpProjection,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    /// A layer of these parts.
    ///
    /// # Errors
    /// [`Error::Shape`] if their widths do not fit.
    pub fn new(opening: UpProjection, down: Linear, activation: Activation) -> Result<Self> {
        let width = down.shape().1;
        let all = match &opening {
            UpProjection::Plain(up) => vec![(up, width)],
            UpProjection::Gated { gate, up } => vec![(gate, width), (up, width)],
            UpProjection::Fused(both) => vec![(both, 2 * width)],
        };
        for (layer, expected) in all {
            if layer.shape().0 != expected {
                return Err(Error::shape(format!("width of {}", layer.name()), &[expected], &[layer.shape().0]));
            }
        }
        Ok(FeedForward { opening, down, activation })
    }

    /// Features between the layers.
    pub fn width(&self) -> usize {
        self.down.shape().1
    }

    /// Features that the first layers give.
    pub(crate) fn opened(&self) -> usize {
        if self.is_gated() { 2 * self.width() } else { self.width() }
    }

    /// The activation.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// The linear layers, in the order in which they run.
    pub fn linears(&self) -> Vec<&Linear> {
        match &self.opening {
            UpProjection::Plain(one) | UpProjection::Fused(one) => vec![one, &self.down],
            UpProjection::Gated { gate, up } => vec![gate, up, &self.down],
        }
    }

    /// As [`FeedForward::linears`], to be changed.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match &mut self.opening {
            UpProjection::Plain(one) | UpProjection::Fused(one) => vec![one, &mut self.down],
            UpProjection::Gated { gate, up } => vec![gate, up, &mut self.down],
        }
    }

    fn places(&self) -> Vec<(&Linear, Range<usize>)> {
        let n = self.width();
        match &self.opening {
            UpProjection::Plain(up) => vec![(up, 0..n)],
            UpProjection::Gated { gate, up } => vec![(gate, 0..n), (up, n..2 * n)],
            UpProjection::Fused(both) => vec![(both, 0..2 * n)],
        }
    }

    fn is_gated(&self) -> bool {
        !matches!(self.opening, UpProjection::Plain(_))
    }

    /// What the first layers give: `(tokens, width)`, or `(tokens, 2 width)` with the gates first.
    pub(crate) fn open(&self, x: &Array2<f32>, observer: &mut dyn Observer) -> Array2<f32> {
        project(&self.places(), x, observer)
    }

    /// What goes into the last layer, `(tokens, width)`.
    pub(crate) fn inner(&self, open: &Array2<f32>) -> Array2<f32> {
        let n = self.width();
        let mut inner = Array2::zeros((open.nrows(), n));
        rows(&mut inner, open, |inner, open| {
            inner.copy_from_slice(&open[..n]);
            self.activation.of_slice(inner);
            if self.is_gated() {
                vector::times(inner, &open[n..]);
            }
        });
        inner
    }

    /// Adds the layer's output to `h`.
    pub(crate) fn finish(&self, inner: &Array2<f32>, h: &mut Array2<f32>, observer: &mut dyn Observer) {
        observer.see(&[self.down.name()], inner);
        self.down.add_to(inner, h);
    }

    /// What goes into the last layer for `x`.
    pub(crate) fn inner_of(&self, x: &Array2<f32>) -> Array2<f32> {
        self.inner(&self.open(x, &mut ()))
    }

    /// The outputs for `x`.
    pub(crate) fn outputs(&self, x: &Array2<f32>, observer: &mut dyn Observer) -> Array2<f32> {
        let mut y = Array2::zeros((x.nrows(), self.down.shape().0));
        self.finish(&self.inner(&self.open(x, observer)), &mut y, observer);
        y
    }

    /// The way back: adds to `dx`, given the input, what [`FeedForward::open`] and [`FeedForward::inner`] gave, and the
    /// gradient at the output.
    pub(crate) fn back(
        &self,
        x: &Array2<f32>,
        open: &Array2<f32>,
        inner: &Array2<f32>,
        dy: &Array2<f32>,
        dx: &mut Array2<f32>,
        carry: &mut Carry<'_, '_>,
    ) {
        let n = self.width();
        carry.weight_gradient(&self.down, dy, inner);
        let mut d_inner = Array2::zeros(inner.dim());
        self.down.input_gradient(dy, &mut d_inner);
        let mut d_open = Array2::zeros(open.dim());
        let d_inner = d_inner.as_slice().expect(NEW);
        let d_rows = |t: usize| &d_inner[t * n..(t + 1) * n];
        numbered_rows(&mut d_open, open, |t, d, open| {
            let (d_gate, d_up) = d.split_at_mut(n);
            self.activation.slope_of_slice(&open[..n], d_gate);
            vector::times(d_gate, d_rows(t));
            if self.is_gated() {
                vector::times(d_gate, &open[n..]);
                d_up.copy_from_slice(&open[..n]);
                self.activation.of_slice(d_up);
                vector::times(d_up, d_rows(t));
            }
        });
        project_back(&self.places(), x, &d_open, dx, carry);
    }

    pub(crate) fn visit(&self, f: &mut See<'_>) {
        self.linears().into_iter().for_each(|l| l.visit(f));
    }

    pub(crate) fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        self.linears_mut().into_iter().try_for_each(|l| l.visit_mut(f))
    }

    /// The last layer.
    pub(crate) fn down(&self) -> &Linear {
        &self.down
    }
}

/// What flows between the layers of a block was made by them.
const NEW: &str = "a new array is in standard layout";

fn rows(to: &mut Array2<f32>, from: &Array2<f32>, f: impl Fn(&mut [f32], &[f32]) + Sync) {
    numbered_rows(to, from, |_, to, from| f(to, from));
}

/// Tokens of a parallel task.
const TOKENS: usize = 8;

fn numbered_rows(to: &mut Array2<f32>, from: &Array2<f32>, f: impl Fn(usize, &mut [f32], &[f32]) + Sync) {
    let (n, m, many) = (to.ncols(), from.ncols(), to.len() >= PARALLEL);
    if n == 0 {
        return;
    }
    let (to, from) = (to.as_slice_mut().expect(NEW), from.as_slice().expect(NEW));
    let task = |(i, (to, from)): (usize, (&mut [f32], &[f32]))| {
        to.chunks_mut(n).zip(from.chunks(m)).enumerate().for_each(|(t, (to, from))| f(i * TOKENS + t, to, from));
    };
    if many {
        to.par_chunks_mut(TOKENS * n).zip(from.par_chunks(TOKENS * m)).enumerate().for_each(task);
    } else {
        to.chunks_mut(TOKENS * n).zip(from.chunks(TOKENS * m)).enumerate().for_each(task);
    }
}
