//! Pooling over windows of an image.

use super::Saved;
use super::arrays::{slice, slice_mut};
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How a window becomes one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The largest; of equals the first, in row, column order. A window with a NaN gives NaN.
    Max,
    /// The mean.
    Average,
}

/// Pools every channel of `(channels, height, width)` over `size x size` windows, `stride` apart. Rows and columns that no
/// whole window covers are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// How.
    pub pooling: Pooling,
    /// `(channels, height, width)` of the input.
    pub input: (usize, usize, usize),
    /// Side of a window.
    pub size: usize,
    /// Distance between windows.
    pub stride: usize,
}

impl Pool {
    /// `(channels, height, width)` of the output.
    ///
    /// # Panics
    /// If a window is larger than the image, or has no side or stride.
    pub fn output(&self) -> (usize, usize, usize) {
        let (c, h, w) = self.input;
        assert!(self.size > 0 && self.stride > 0 && h >= self.size && w >= self.size, "{self:?} has no whole window");
        (c, (h - self.size) / self.stride + 1, (w - self.size) / self.stride + 1)
    }

    /// For each output, the first input of its window, within the sample.
    fn corners(&self) -> impl Iterator<Item = usize> + use<> {
        let ((c, oh, ow), (_, h, w), stride) = (self.output(), self.input, self.stride);
        (0..c).flat_map(move |c| (0..oh).flat_map(move |i| (0..ow).map(move |j| (c * h + i * stride) * w + j * stride)))
    }

    /// Offsets of a window's inputs from its first.
    fn window(&self) -> Vec<usize> {
        (0..self.size).flat_map(|i| (0..self.size).map(move |j| (i, j))).map(|(i, j)| i * self.input.2 + j).collect()
    }

    /// `x (batch, c*h*w)` to `(batch, c*oh*ow)`, and which inputs the maxima were.
    pub(crate) fn forward(&self, x: &Array2<f32>) -> (Array2<f32>, Saved) {
        let ((c, oh, ow), window) = (self.output(), self.window());
        let features = c * oh * ow;
        let corners: Vec<usize> = self.corners().collect();
        let mut y = Array2::zeros((x.nrows(), features));
        let mut chosen = vec![0u32; if self.pooling == Pooling::Max { y.len() } else { 0 }];
        let (ys, xs) = (slice_mut(&mut y), slice(x));
        if self.pooling == Pooling::Average {
            let scale = 1.0 / window.len() as f32;
            ys.par_chunks_mut(features).zip(xs.par_chunks(x.ncols())).for_each(|(y, x)| {
                for (y, &at) in y.iter_mut().zip(&corners) {
                    *y = scale * window.iter().map(|o| x[at + o]).sum::<f32>();
                }
            });
            return (y, Saved::Nothing);
        }
        ys.par_chunks_mut(features).zip(chosen.par_chunks_mut(features)).zip(xs.par_chunks(x.ncols())).for_each(
            |((y, chosen), x)| {
                for ((y, chosen), &at) in y.iter_mut().zip(chosen).zip(&corners) {
                    let (mut best, mut where_) = (x[at], at);
                    for o in &window[1..] {
                        if x[at + o] > best || x[at + o].is_nan() {
                            (best, where_) = (x[at + o], at + o);
                        }
                    }
                    (*y, *chosen) = (best, where_ as u32);
                }
            },
        );
        (y, Saved::Chosen(chosen))
    }

    /// The map that the forward pass was, applied to another input (a tangent).
    pub(crate) fn apply(&self, saved: &Saved, x: &Array2<f32>) -> Array2<f32> {
        match saved {
            Saved::Chosen(chosen) => {
                let features = chosen.len() / x.nrows().max(1);
                Array2::from_shape_fn((x.nrows(), features), |(n, f)| x[[n, chosen[n * features + f] as usize]])
            }
            _ => self.forward(x).0,
        }
    }

    /// The transpose of that map: `d (batch, c*oh*ow)` to `(batch, c*h*w)`. `squared` squares the map's coefficients, as
    /// back-propagated second derivatives need.
    pub(crate) fn input_gradient(&self, saved: &Saved, d: &Array2<f32>, squared: bool) -> Array2<f32> {
        let (window, corners) = (self.window(), self.corners().collect::<Vec<_>>());
        let inputs = self.input.0 * self.input.1 * self.input.2;
        let mut out = Array2::zeros((d.nrows(), inputs));
        let scale = 1.0 / window.len() as f32;
        let scale = if squared { scale * scale } else { scale };
        let features = d.ncols();
        slice_mut(&mut out).par_chunks_mut(inputs).zip(slice(d).par_chunks(features)).enumerate().for_each(|(n, (out, d))| {
            match saved {
                Saved::Chosen(chosen) => {
                    for (&at, &d) in chosen[n * features..].iter().zip(d) {
                        out[at as usize] += d;
                    }
                }
                _ => {
                    for (&at, &d) in corners.iter().zip(d) {
                        window.iter().for_each(|o| out[at + o] += scale * d);
                    }
                }
            }
        });
        out
    }
}
