//! Where tokens stand: [`positions`].

use super::Config;
use crate::nn::{Distances, Positions};
use ndarray::Array2;

/// Where the tokens of `sequences` of `length` stand, from position `first` on.
pub fn positions(config: &Config, sequences: usize, length: usize, first: usize) -> Positions {
    let recipe = config.recipe();
    let turns = recipe.rotaries.iter().map(|rotary| rotary.turns(first, length)).collect();
    let distances =
        recipe.alibi.then(|| falling(recipe.layers.iter().map(|layer| layer.heads.queries).max().unwrap_or(0), length, first));
    Positions { turns, distances, ..Positions::plain(sequences, length, first) }
}

/// Biases of scores that fall with the distance (ALiBi, arXiv:2108.12409): `-slope · (i - j)`, slopes a geometric series over the heads; where their
/// number is no power of two, the first ones are those of the power below, the others every second of the power above.
fn falling(heads: usize, length: usize, first: usize) -> Distances {
    let power = 1usize << heads.checked_ilog2().unwrap_or(0);
    let series = |of: usize, n: usize| {
        let base = 2f64.powf(-(2f64.powf(-((of as f64).log2() - 3.0)))) as f32;
        base.powi(n as i32)
    };
    let slope = |head: usize| if head < power { series(power, head + 1) } else { series(2 * power, 2 * (head - power) + 1) };
    let zero = (first + length).saturating_sub(1);
    let slopes: Vec<f32> = (0..heads).map(slope).collect();
    let value = |(head, at): (usize, usize)| slopes[head] * (at as f32 - zero as f32);
    Distances::new(Array2::from_shape_fn((heads, zero + first + length), value), zero)
}
