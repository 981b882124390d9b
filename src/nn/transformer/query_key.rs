//! What happens to queries, keys and values between the layers that make them and attention: norms, and another order.

use super::{Heads, Norm};
use crate::nn::observer::Sink;
use crate::nn::parameters::Change;
use crate::{Error, Result};
use ndarray::{Array2, ArrayView2, s};
use std::ops::Range;

/// Norms of queries and keys, of each head for itself or of all heads together (Henry et al., arXiv:2010.04245; Dehghani et al.,
/// arXiv:2302.05442).
#[derive(Debug, Clone)]
pub(super) struct QueryKeyNorms {
    queries: Norm,
    keys: Norm,
}

impl QueryKeyNorms {
    pub fn new(queries: Norm, keys: Norm, heads: Heads) -> Result<Self> {
        for (norm, heads_of) in [(&queries, heads.queries), (&keys, heads.keys)] {
            let found = norm.weight().len();
            if found != heads.dim && found != heads_of * heads.dim {
                return Err(Error::shape(format!("width of {}", norm.name()), &[heads_of * heads.dim], &[found]));
            }
        }
        Ok(QueryKeyNorms { queries, keys })
    }

    pub fn both(&self) -> [&Norm; 2] {
        [&self.queries, &self.keys]
    }

    fn places(&self, heads: Heads) -> [(&Norm, Range<usize>); 2] {
        let (q, kv) = (heads.queries * heads.dim, heads.keys * heads.dim);
        [(&self.queries, 0..q), (&self.keys, q..q + kv)]
    }

    /// Norms the queries and keys that stand in the first columns of `own (tokens, ..)`, and gives what they were.
    pub fn apply(&self, own: &mut Array2<f32>, heads: Heads) -> Array2<f32> {
        let before = own.slice(s![.., ..(heads.queries + heads.keys) * heads.dim]).to_owned();
        for (norm, columns) in self.places(heads).into_iter().filter(|(_, columns)| !columns.is_empty()) {
            let normed = norm.apply(&pieces(before.slice(s![.., columns.clone()]), norm));
            put(normed, &mut own.slice_mut(s![.., columns]));
        }
        before
    }

    /// Turns the gradients behind the norms, in the first columns of `d_own`, into those before them.
    pub fn back(&self, before: &Array2<f32>, d_own: &mut Array2<f32>, heads: Heads, sink: &mut Sink<'_>) {
        for (norm, columns) in self.places(heads).into_iter().filter(|(_, columns)| !columns.is_empty()) {
            let x = pieces(before.slice(s![.., columns.clone()]), norm);
            let dy = pieces(d_own.slice(s![.., columns.clone()]), norm);
            let mut dx = Array2::zeros(x.dim());
            norm.back(&x, &dy, &mut dx, sink);
            put(dx, &mut d_own.slice_mut(s![.., columns]));
        }
    }

    pub fn visit_mut(&mut self, f: &mut Change<'_>) {
        self.queries.visit_mut(f);
        self.keys.visit_mut(f);
    }
}

/// Rows of as many features as the norm has.
fn pieces(x: ArrayView2<'_, f32>, norm: &Norm) -> Array2<f32> {
    let width = norm.weight().len();
    let numbers: Vec<f32> = x.iter().copied().collect();
    Array2::from_shape_vec((numbers.len() / width, width), numbers).expect("a norm is over a head or over all of them")
}

/// Puts such rows back.
fn put(pieces: Array2<f32>, to: &mut ndarray::ArrayViewMut2<'_, f32>) {
    to.iter_mut().zip(pieces.iter()).for_each(|(to, from)| *to = *from);
}

/// Where the outputs of a layer stand whose rows go group by group: `share` heads of queries, one of keys, one of values.
pub(super) struct Grouped {
    /// For each column of queries, keys and values one behind the other, the layer's.
    order: Vec<usize>,
}

impl Grouped {
    pub fn new(heads: Heads) -> Self {
        let (share, dim) = (heads.share(), heads.dim);
        let place = |group: usize, part: usize| (group * (share + 2) + part) * dim;
        let q = (0..heads.queries).map(|h| place(h / share, h % share));
        let k = (0..heads.keys).map(|g| place(g, share));
        let v = (0..heads.keys).map(|g| place(g, share + 1));
        Grouped { order: q.chain(k).chain(v).flat_map(|start| start..start + dim).collect() }
    }

    /// Queries, then keys, then values, of what the layer gave.
    pub fn apart(&self, own: &Array2<f32>) -> Array2<f32> {
        let mut apart = Array2::zeros(own.dim());
        for (mut to, from) in apart.rows_mut().into_iter().zip(own.rows()) {
            to.iter_mut().zip(&self.order).for_each(|(to, &at)| *to = from[at]);
        }
        apart
    }

    /// The way back.
    pub fn together(&self, d_own: &Array2<f32>) -> Array2<f32> {
        let mut d = Array2::zeros(d_own.dim());
        for (mut d, from) in d.rows_mut().into_iter().zip(d_own.rows()) {
            self.order.iter().zip(from).for_each(|(&to, from)| d[to] = *from);
        }
        d
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn groups_come_apart_and_together_again() {
        // Two groups of two heads of queries, one feature each: q q k v, q q k v.
        let grouped = Grouped::new(Heads { queries: 4, keys: 2, dim: 1 });
        let rows = array![[0.0f32, 1.0, 10.0, 20.0, 2.0, 3.0, 11.0, 21.0]];
        let apart = grouped.apart(&rows);
        assert_eq!(apart, array![[0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 20.0, 21.0]]);
        assert_eq!(grouped.together(&apart), rows);
    }
}
