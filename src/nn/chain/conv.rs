//! Two-dimensional convolution through patches and dense products.
//!
//! The patches of a few samples at a time are laid out as a `(in channels * height * width, positions)` matrix in scratch
//! memory that stays in the second-level cache; nothing of the size of all patches of a batch is ever built. The batch is
//! cut into at most eight tasks of fixed size, whatever the number of threads, so sums over the batch come out the same to
//! the bit.

use super::arrays::square;
use super::arrays::{slice, slice_mut};
use crate::linalg::{Threads, gemm};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The geometry of a convolution (a cross-correlation, as everywhere in this field) over `(channels, height, width)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv2d {
    /// `(channels, height, width)` of the input.
    pub input: (usize, usize, usize),
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: (usize, usize),
    /// Distance between positions, both ways.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
}

/// Inputs `input, input + stride, …` of a sample that one weight position meets at consecutive positions.
struct Run {
    /// Row of the patch matrix.
    row: usize,
    input: usize,
    position: usize,
    len: usize,
}

impl Conv2d {
    /// A convolution of stride 1 without padding.
    pub fn valid(input: (usize, usize, usize), out_channels: usize, kernel: usize) -> Self {
        Conv2d { input, out_channels, kernel: (kernel, kernel), stride: 1, padding: 0 }
    }

    /// `(channels, height, width)` of the output.
    ///
    /// # Panics
    /// If the kernel is larger than the padded image, or there is no kernel or stride.
    pub fn output(&self) -> (usize, usize, usize) {
        let ((_, h, w), (kh, kw)) = (self.input, self.kernel);
        let (h, w) = (h + 2 * self.padding, w + 2 * self.padding);
        assert!(kh > 0 && kw > 0 && self.stride > 0 && h >= kh && w >= kw, "{self:?} has no position");
        (self.out_channels, (h - kh) / self.stride + 1, (w - kw) / self.stride + 1)
    }

    /// Positions of the output.
    pub fn positions(&self) -> usize {
        let (_, h, w) = self.output();
        h * w
    }

    /// Inputs of one output: `channels * height * width` of the kernel.
    pub fn patch(&self) -> usize {
        self.input.0 * self.kernel.0 * self.kernel.1
    }

    fn inputs(&self) -> usize {
        self.input.0 * self.input.1 * self.input.2
    }

    /// Samples whose patches are laid out together.
    fn group(&self) -> usize {
        256usize.div_ceil(self.positions()).min(8)
    }

    /// Samples of a task: an eighth of the batch, in whole groups.
    fn task(&self, batch: usize) -> usize {
        batch.div_ceil(8).max(1).next_multiple_of(self.group())
    }

    /// Every run of inputs that one weight position meets along a row of positions: with them patches are gathered and
    /// scattered. Worked out once a pass, not once a sample.
    fn runs(&self) -> Vec<Run> {
        let ((channels, h, w), (kh, kw), (_, oh, ow)) = (self.input, self.kernel, self.output());
        let (stride, padding) = (self.stride, self.padding);
        let mut runs = Vec::with_capacity(self.patch() * oh);
        for c in 0..channels {
            for (ki, kj) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                let row = (c * kh + ki) * kw + kj;
                // Outputs j with 0 <= j * stride + kj - padding < w.
                let first = padding.saturating_sub(kj).div_ceil(stride);
                let end = (w + padding).saturating_sub(kj).div_ceil(stride).min(ow);
                for oi in 0..oh {
                    let i = oi * stride + ki;
                    if i < padding || i - padding >= h || first >= end {
                        continue;
                    }
                    let input = (c * h + i - padding) * w + first * stride + kj - padding;
                    runs.push(Run { row, input, position: oi * ow + first, len: end - first });
                }
            }
        }
        runs
    }

    /// Patches of a sample into columns `at..at + positions` of `patches`, whose rows are `width` long.
    fn gather(&self, runs: &[Run], x: &[f32], patches: &mut [f32], width: usize, at: usize) {
        if self.padding > 0 {
            let positions = self.positions();
            patches.chunks_mut(width).take(self.patch()).for_each(|row| row[at..at + positions].fill(0.0));
        }
        for run in runs {
            let (out, x) = (&mut patches[run.row * width + at + run.position..][..run.len], &x[run.input..]);
            match self.stride {
                // A loop, not a call of memcpy: most runs are short.
                1 => out.iter_mut().zip(&x[..run.len]).for_each(|(o, x)| *o = *x),
                2 => out.iter_mut().zip(x.iter().step_by(2)).for_each(|(o, x)| *o = *x),
                stride => out.iter_mut().zip(x.iter().step_by(stride)).for_each(|(o, x)| *o = *x),
            }
        }
    }

    /// The transpose of [`Conv2d::gather`]: adds each patch entry to the input it came from.
    fn scatter(&self, runs: &[Run], patches: &[f32], width: usize, at: usize, x: &mut [f32]) {
        for run in runs {
            let (part, x) = (&patches[run.row * width + at + run.position..][..run.len], &mut x[run.input..]);
            match self.stride {
                1 => x[..run.len].iter_mut().zip(part).for_each(|(x, p)| *x += p),
                2 => x.iter_mut().step_by(2).zip(part).for_each(|(x, p)| *x += p),
                stride => x.iter_mut().step_by(stride).zip(part).for_each(|(x, p)| *x += p),
            }
        }
    }

    /// Samples to and from a `(channels, samples * positions)` matrix.
    fn interleave(&self, samples: &[f32], wide: &mut [f32]) {
        let (positions, n) = (self.positions(), samples.len() / self.out_channels / self.positions());
        for (s, sample) in samples.chunks(self.out_channels * positions).enumerate() {
            for (c, part) in sample.chunks(positions).enumerate() {
                wide[(c * n + s) * positions..][..positions].copy_from_slice(part);
            }
        }
    }

    fn deinterleave(&self, wide: &[f32], samples: &mut [f32]) {
        let (positions, n) = (self.positions(), samples.len() / self.out_channels / self.positions());
        for (s, sample) in samples.chunks_mut(self.out_channels * positions).enumerate() {
            for (c, part) in sample.chunks_mut(positions).enumerate() {
                part.copy_from_slice(&wide[(c * n + s) * positions..][..positions]);
            }
        }
    }

    fn scratch(&self) -> (Vec<f32>, Vec<f32>) {
        let wide = self.group() * self.positions();
        (vec![0.0; self.patch() * wide], vec![0.0; self.out_channels * wide])
    }

    /// See [`Map::patches`](crate::nn::Map::patches).
    pub(crate) fn patches(&self, x: &Array2<f32>) -> Array2<f32> {
        let (positions, inputs, patch, runs) = (self.positions(), self.inputs(), self.patch(), self.runs());
        let mut out = Array2::zeros((x.nrows() * positions, patch));
        let tasks = slice_mut(&mut out).par_chunks_mut(positions * patch).zip(slice(x).par_chunks(inputs));
        tasks.for_each(|(out, x)| {
            let mut patches = vec![0.0; patch * positions];
            self.gather(&runs, x, &mut patches, positions, 0);
            for (p, out) in out.chunks_mut(patch).enumerate() {
                out.iter_mut().enumerate().for_each(|(k, o)| *o = patches[k * positions + p]);
            }
        });
        out
    }

    /// See [`Map::apply`](crate::nn::Map::apply).
    pub(crate) fn apply(&self, weight: &Array2<f32>, x: &Array2<f32>) -> Array2<f32> {
        let (batch, positions, inputs, outputs) =
            (x.nrows(), self.positions(), self.inputs(), self.out_channels * self.positions());
        let (task, group, runs) = (self.task(batch), self.group(), self.runs());
        let mut y = Array2::zeros((batch, outputs));
        let tasks = slice_mut(&mut y).par_chunks_mut(task * outputs).zip(slice(x).par_chunks(task * inputs));
        tasks.for_each(|(y, x)| {
            let (mut patches, mut wide) = self.scratch();
            for (y, x) in y.chunks_mut(group * outputs).zip(x.chunks(group * inputs)) {
                let n = y.len() / outputs;
                let width = n * positions;
                x.chunks(inputs).enumerate().for_each(|(s, x)| self.gather(&runs, x, &mut patches, width, s * positions));
                let patches = view(&patches, self.patch(), width);
                let out = if n == 1 { &mut y[..] } else { &mut wide[..self.out_channels * width] };
                gemm(1.0, weight, &patches, 0.0, &mut view_mut(out, self.out_channels, width), Threads::One);
                if n > 1 {
                    self.deinterleave(&wide[..self.out_channels * width], y);
                }
            }
        });
        y
    }

    /// See [`Map::input_gradient`](crate::nn::Map::input_gradient).
    pub(crate) fn input_gradient(&self, weight: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        let (batch, positions, inputs, outputs) =
            (d.nrows(), self.positions(), self.inputs(), self.out_channels * self.positions());
        let (task, group, runs) = (self.task(batch), self.group(), self.runs());
        let mut out = Array2::zeros((batch, inputs));
        let tasks = slice_mut(&mut out).par_chunks_mut(task * inputs).zip(slice(d).par_chunks(task * outputs));
        tasks.for_each(|(out, d)| {
            let (mut patches, mut wide) = self.scratch();
            for (out, d) in out.chunks_mut(group * inputs).zip(d.chunks(group * outputs)) {
                let width = out.len() / inputs * positions;
                self.interleave(d, &mut wide);
                let wide = view(&wide, self.out_channels, width);
                gemm(1.0, &weight.t(), &wide, 0.0, &mut view_mut(&mut patches, self.patch(), width), Threads::One);
                out.chunks_mut(inputs).enumerate().for_each(|(s, out)| self.scatter(&runs, &patches, width, s * positions, out));
            }
        });
        out
    }

    /// See [`Map::weight_gradient`](crate::nn::Map::weight_gradient).
    pub(crate) fn weight_gradient(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        self.gradient_in(self.group(), x, d, |sum, d, patches| gemm(1.0, d, &patches.t(), 1.0, sum, Threads::One))
    }

    /// See [`Map::squared_weight_gradient`](crate::nn::Map::squared_weight_gradient).
    pub(crate) fn squared_weight_gradient(&self, x: &Array2<f32>, d: &Array2<f32>) -> Array2<f32> {
        self.gradient_in(1, x, d, |sum, d, patches| {
            let mut one = Array2::zeros(sum.dim());
            gemm(1.0, d, &patches.t(), 0.0, &mut one, Threads::One);
            *sum += &square(&one);
        })
    }

    /// Sums `add(sum, d (out channels, width), patches (patch, width))` over the batch, `group` samples at a time.
    fn gradient_in(
        &self,
        group: usize,
        x: &Array2<f32>,
        d: &Array2<f32>,
        add: impl Fn(&mut Array2<f32>, &ArrayView2<'_, f32>, &ArrayView2<'_, f32>) + Sync,
    ) -> Array2<f32> {
        let (batch, positions, inputs, outputs) =
            (x.nrows(), self.positions(), self.inputs(), self.out_channels * self.positions());
        let (task, runs) = (self.task(batch), self.runs());
        let zero = || Array2::zeros((self.out_channels, self.patch()));
        let tasks = slice(x).par_chunks(task * inputs).zip(slice(d).par_chunks(task * outputs));
        let parts: Vec<Array2<f32>> = tasks
            .map(|(x, d)| {
                let (mut patches, mut wide) = self.scratch();
                let mut sum = zero();
                for (x, d) in x.chunks(group * inputs).zip(d.chunks(group * outputs)) {
                    let width = x.len() / inputs * positions;
                    x.chunks(inputs).enumerate().for_each(|(s, x)| self.gather(&runs, x, &mut patches, width, s * positions));
                    self.interleave(d, &mut wide);
                    add(&mut sum, &view(&wide, self.out_channels, width), &view(&patches, self.patch(), width));
                }
                sum
            })
            .collect();
        parts.iter().fold(zero(), |sum, part| sum + part)
    }
}

/// The first `rows * cols` entries as a matrix.
fn view(data: &[f32], rows: usize, cols: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, cols), &data[..rows * cols]).unwrap_or_else(|e| panic!("{e}"))
}

/// As [`view`].
fn view_mut(data: &mut [f32], rows: usize, cols: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, cols), &mut data[..rows * cols]).unwrap_or_else(|e| panic!("{e}"))
}
