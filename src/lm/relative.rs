//! The relative bias of T5: a number a head for each bucket of distances.
//!
//! ```text
//! n = distance (of an encoder, half of the buckets are for j > i and n = |j - i|; of a decoder n = max(0, i - j))
//! bucket = n                                                    n < B/2
//!          B/2 + ⌊ln(2n/B) / ln(2 farthest/B) · B/2⌋, below B    else          B buckets
//! ```

use super::architecture::Relative;
use super::load::Reader;
use crate::Result;
use crate::nn::Distances;
use crate::nn::attention::Carry;
use crate::nn::{Change, See};
use ndarray::Array2;

/// The bias of one stack.
#[derive(Debug, Clone)]
pub(super) struct Bias {
    tensor: String,
    /// `(buckets, heads)`
    table: Array2<f32>,
    relative: Relative,
    both_ways: bool,
}

impl Bias {
    pub(super) fn read(reader: &Reader<'_>, path: &str, relative: Relative, heads: usize, both_ways: bool) -> Result<Self> {
        let tensor = format!("{path}.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let table = reader.matrix(&tensor, (relative.buckets, heads))?;
        Ok(Bias { tensor, table, relative, both_ways })
    }

    fn bucket(&self, distance: isize) -> usize {
        let (mut buckets, mut base) = (self.relative.buckets, 0);
        let n = if self.both_ways {
            buckets /= 2;
            base = if distance > 0 { buckets } else { 0 };
            distance.unsigned_abs()
        } else {
            distance.min(0).unsigned_abs()
        };
        let exact = buckets / 2;
        if n < exact {
            return base + n;
        }
        // In f32, as the reference library does it: distances at the edge of a bucket depend on the rounding.
        let span = (self.relative.farthest as f64 / exact as f64).ln() as f32;
        let above = (n as f32 / exact as f32).ln() / span * (buckets - exact) as f32;
        base + (exact + above as usize).min(buckets - 1)
    }

    /// The biases of `queries` positions for `keys` positions.
    pub(super) fn distances(&self, queries: usize, keys: usize) -> Distances {
        let zero = queries.saturating_sub(1);
        let dim = (self.table.ncols(), zero + keys);
        let value = |(head, d): (usize, usize)| self.table[[self.bucket(d as isize - zero as isize), head]];
        Distances::new(Array2::from_shape_fn(dim, value), zero)
    }

    /// Gives the gradient of the table, of which `carry` has summed what belongs to each distance.
    pub(super) fn back(&self, queries: usize, carry: &mut Carry<'_, '_>) {
        let Some(sums) = carry.distances.take() else { return };
        let zero = queries.saturating_sub(1);
        let mut gradient = Array2::zeros(self.table.dim());
        for ((head, d), sum) in sums.indexed_iter() {
            gradient[[self.bucket(d as isize - zero as isize), head]] += sum;
        }
        carry.give(&self.tensor, gradient.into_dyn());
    }

    pub(super) fn visit(&self, f: &mut See<'_>) {
        f(&self.tensor, self.table.view().into_dyn(), None);
    }

    pub(super) fn visit_mut(&mut self, f: &mut Change<'_>) {
        f(&self.tensor, self.table.as_slice_mut().expect("a reader gives matrices in standard layout"), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_buckets_of_their_own_and_far_ones_share_the_last() {
        let relative = Relative { buckets: 8, farthest: 16 };
        let bias = |both_ways| Bias { tensor: String::new(), table: Array2::zeros((8, 1)), relative, both_ways };
        let (both, back) = (bias(true), bias(false));
        let buckets = |b: &Bias, d: [isize; 6]| d.map(|d| b.bucket(d));
        assert_eq!(buckets(&back, [3, 0, -1, -3, -4, -100]), [0, 0, 1, 3, 4, 7]);
        assert_eq!(buckets(&both, [0, -1, -2, -100, 1, 100]), [0, 1, 2, 3, 5, 7]);
    }
}
