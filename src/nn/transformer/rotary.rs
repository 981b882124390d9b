//! Rotary positions: pairs of features are turned by an angle that grows with the position.
//!
//! Jianlin Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv:2104.09864. The pairs are
//! `(i, i + d/2)` of the first `d` features of each head, as in the checkpoints of the Hugging Face library.
//!
//! ```text
//! angle(p, i) = p · f_i      f_i = θ^(-2i/d)
//! ```
//!
//! Llama 3.1 stretches the slow ones: with the wavelength `λ = 2π / f` and the length `L` that the model was first trained at,
//!
//! ```text
//! f' = f                                    λ < L / high
//!      f / factor                           λ > L / low
//!      (1 - s) f / factor + s f             between, s = (L/λ - low) / (high - low)
//! ```
//!
//! YaRN divides slow ones as well, with a ramp over the pairs, where `pair(r) = d ln(L / 2πr) / (2 ln θ)` turns `r` times within `L`, and
//! lengthens queries and keys (Bowen Peng et al., arXiv:2309.00071, equations 19 to 22):
//!
//! ```text
//! f' = ((1 - g) + g / factor) f      g = (i - pair(fast)) / (pair(slow) - pair(fast)), held within 0 and 1
//! ```
//!
//! LongRoPE has a factor for every pair, and other ones once a text is longer than `L` (Yiran Ding et al., arXiv:2402.13753). Keys that were
//! kept for a shorter text are of no use then: [`Rotary::regime`] says which factors hold.
//!
//! Frequencies are rounded to `f32` where the reference library does: at far positions a unit in the last place of a frequency
//! is an angle that shows.

use crate::nn::activation::PARALLEL;
use ndarray::{Array2, ArrayRef2, ArrayViewMut2, Axis};
use rayon::prelude::*;

/// How frequencies are changed for contexts longer than the first training's.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not.
    None,
    /// All divided by this factor.
    Linear(f32),
    /// By wavelength, as in Llama 3.1.
    Llama3 {
        /// By how much the slow ones are divided.
        factor: f32,
        /// Wavelengths above `length / low` are slow.
        low: f32,
        /// Wavelengths below `length / high` stay.
        high: f32,
        /// The context of the first training.
        length: f32,
    },
    /// By turns within the context of the first training.
    Yarn {
        /// By how much the slow ones are divided.
        factor: f32,
        /// Pairs that turn so often or more stay.
        fast: f32,
        /// Pairs that turn so often or less are slow.
        slow: f32,
        /// The context of the first training.
        length: f32,
        /// Whether the ends of the ramp are whole numbers of pairs.
        whole: bool,
        /// What queries and keys are multiplied by.
        amplitude: f32,
    },
    /// By a factor for each pair.
    Long {
        /// Divisors of texts up to `length`, one a pair.
        short: Vec<f32>,
        /// Divisors of longer texts.
        long: Vec<f32>,
        /// The context of the first training.
        length: usize,
        /// What queries and keys are multiplied by.
        amplitude: f32,
    },
}

/// The frequencies of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    frequencies: Vec<f32>,
    /// Those of texts of more tokens than this.
    beyond: Option<(usize, Vec<f32>)>,
    amplitude: f32,
}

impl Rotary {
    /// For the first `dim` features of each head.
    ///
    /// # Panics
    /// If `dim` is odd, or a list of factors has not one for each pair.
    pub fn new(dim: usize, theta: f32, stretch: RopeScaling) -> Self {
        assert_eq!(dim % 2, 0, "rotary positions turn pairs: {dim} features");
        let powers: Vec<f32> = (0..dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / dim as f32;
                f64::from(theta).powf(f64::from(exponent)) as f32
            })
            .collect();
        let plain = |change: &dyn Fn(f32) -> f32| powers.iter().map(|p| change(1.0 / p)).collect::<Vec<f32>>();
        let (mut beyond, mut amplitude) = (None, 1.0);
        let frequencies = match stretch {
            RopeScaling::None => plain(&|f| f),
            RopeScaling::Linear(factor) => plain(&|f| f / factor),
            RopeScaling::Llama3 { factor, low, high, length } => plain(&|f| {
                let wavelength = 2.0 * std::f32::consts::PI / f;
                if wavelength < length / high {
                    f
                } else if wavelength > length / low {
                    f / factor
                } else {
                    let s = (length / wavelength - low) / (high - low);
                    (1.0 - s) * f / factor + s * f
                }
            }),
            RopeScaling::Yarn { factor, fast, slow, length, whole, amplitude: by } => {
                amplitude = by;
                let (dim, length) = (dim as f64, f64::from(length));
                let pair = |turns: f32| {
                    dim * (length / (f64::from(turns) * 2.0 * std::f64::consts::PI)).ln() / (2.0 * f64::from(theta).ln())
                };
                let (from, to) = (pair(fast), pair(slow));
                let (from, to) = if whole { (from.floor(), to.ceil()) } else { (from, to) };
                let (from, mut to) = (from.max(0.0), to.min(dim - 1.0));
                if from == to {
                    to += 0.001;
                }
                let ramp = |i: usize| ((i as f32 - from as f32) / (to - from) as f32).clamp(0.0, 1.0);
                (0..powers.len())
                    .map(|i| {
                        let stays = 1.0 - ramp(i);
                        1.0 / (factor * powers[i]) * (1.0 - stays) + 1.0 / powers[i] * stays
                    })
                    .collect()
            }
            RopeScaling::Long { short, long, length, amplitude: by } => {
                amplitude = by;
                assert!(
                    short.len() == dim / 2 && long.len() == dim / 2,
                    "{} and {} factors for {} pairs",
                    short.len(),
                    long.len(),
                    dim / 2
                );
                let divided = |by: &[f32]| powers.iter().zip(by).map(|(p, by)| 1.0 / (by * p)).collect::<Vec<f32>>();
                beyond = Some((length, divided(&long)));
                divided(&short)
            }
        };
        Rotary { frequencies, beyond, amplitude }
    }

    /// Which frequencies hold in a text of so many tokens: 0, or 1 where there are others for long texts.
    pub fn regime(&self, length: usize) -> usize {
        usize::from(self.beyond.as_ref().is_some_and(|(most, _)| length > *most))
    }

    /// Cosines and sines at `length` positions from `first` on, of a text that ends with them; times the amplitude.
    pub fn turns(&self, first: usize, length: usize) -> RotaryTable {
        let frequencies = match &self.beyond {
            Some((most, long)) if first + length > *most => long,
            _ => &self.frequencies,
        };
        let angle = |(t, i): (usize, usize)| f64::from((first + t) as f32 * frequencies[i]);
        let dim = (length, frequencies.len());
        RotaryTable {
            cos: Array2::from_shape_fn(dim, |at| self.amplitude * angle(at).cos() as f32),
            sin: Array2::from_shape_fn(dim, |at| self.amplitude * angle(at).sin() as f32),
        }
    }
}

/// Cosines and sines, `(positions, pairs)`.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryTable {
    cos: Array2<f32>,
    sin: Array2<f32>,
}

impl RotaryTable {
    /// Turns every head of `x (tokens, heads · head_dim)`; its rows run through the positions once for each sequence.
    ///
    /// # Panics
    /// If heads are narrower than what is turned, rows are not a multiple of the positions, or a row is not contiguous.
    pub fn turn(&self, x: &mut ArrayRef2<f32>, head_dim: usize) {
        self.by(x, head_dim, 1.0);
    }

    /// Turns back, which is the derivative of turning.
    ///
    /// # Panics
    /// As [`RotaryTable::turn`].
    pub fn turn_back(&self, x: &mut ArrayRef2<f32>, head_dim: usize) {
        self.by(x, head_dim, -1.0);
    }

    fn by(&self, x: &mut ArrayRef2<f32>, head_dim: usize, sign: f32) {
        let (length, half) = self.cos.dim();
        assert!(2 * half <= head_dim && x.ncols() % head_dim == 0, "{} features in heads of {head_dim}", x.ncols());
        assert!(length > 0 && x.nrows() % length == 0, "{} tokens at {length} positions", x.nrows());
        assert!(x.ncols() < 2 || x.strides()[1] == 1, "the features of a token lie side by side");
        let task = |(i, mut rows): (usize, ArrayViewMut2<'_, f32>)| {
            for (t, mut token) in rows.rows_mut().into_iter().enumerate() {
                let p = (i * TOKENS + t) % length;
                let (cos, sin) = (self.cos.row(p), self.sin.row(p));
                let table = "tables are made in standard layout";
                let (cos, sin) = (cos.to_slice().expect(table), sin.to_slice().expect(table));
                let token = token.as_slice_mut().expect("the features of a token were found to lie side by side");
                for head in token.chunks_exact_mut(head_dim) {
                    let (a, b) = head[..2 * half].split_at_mut(half);
                    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                        let sin = sign * sin;
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        };
        let many = x.len() >= PARALLEL;
        let parts = x.axis_chunks_iter_mut(Axis(0), TOKENS);
        if many {
            parts.into_par_iter().enumerate().for_each(task);
        } else {
            parts.enumerate().for_each(task);
        }
    }
}

/// Tokens of a parallel task.
const TOKENS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_pair_is_turned_by_its_angle_and_back() {
        let turns = Rotary::new(2, 1e4, RopeScaling::None).turns(2, 1); // 2 rad
        let mut x = array![[1.0, 0.0, 7.0, 0.0, 1.0, 8.0]]; // two heads of 3, whose last feature is not turned
        let before = x.clone();
        turns.turn(&mut x, 3);
        let (s, c) = 2f32.sin_cos();
        assert_eq!(x, array![[c, s, 7.0, -s, c, 8.0]]);
        turns.turn_back(&mut x, 3);
        assert!((x - before).iter().all(|d| d.abs() < 1e-6));
    }

    #[test]
    fn llama3_keeps_fast_frequencies_and_divides_slow_ones() {
        let stretch = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, length: 64.0 };
        let (plain, stretched) = (Rotary::new(16, 1e4, RopeScaling::None), Rotary::new(16, 1e4, stretch));
        let ratios: Vec<f32> = plain.frequencies.iter().zip(&stretched.frequencies).map(|(p, s)| p / s).collect();
        assert_eq!((ratios[0], ratios[7]), (1.0, 8.0));
        // λ = 2π / 0.1 = 62.8 of the third frequency lies between 16 and 64: s = (64 / 62.8 - 1) / 3.
        let s = (64.0 * 0.1 / (2.0 * std::f32::consts::PI) - 1.0) / 3.0;
        assert!((ratios[2] - 1.0 / ((1.0 - s) / 8.0 + s)).abs() < 1e-3, "{ratios:?}");
    }
}
