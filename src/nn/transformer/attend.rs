//! Attention of queries to keys and values, head by head, in blocks of queries, so that memory does not grow with the square
//! of the context.
//!
//! Vaswani et al., "Attention Is All You Need", arXiv:1706.03762; several heads that share keys and values: Ainslie et al.,
//! "GQA", arXiv:2305.13245; the soft cap: Gemma 2, arXiv:2408.00118; the relative bias: T5, arXiv:1910.10683.
//!
//! ```text
//! s_ij = cap(scale q_i · k_j) + bias(j - i)      cap(s) = c tanh(s / c), where there is one
//! p_i  = softmax over the j that i may see       j ≤ i where causal, j > i - window where there is a window
//! y_i  = Σ_j p_ij v_j
//! ```

use crate::kernels::vector;
use crate::linalg::{Threads, gemm};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use std::ops::Range;

/// Heads of a layer, and their width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Heads of queries.
    pub queries: usize,
    /// Heads of keys and values; it divides the queries'.
    pub keys: usize,
    /// Features of a head.
    pub dim: usize,
}

impl Heads {
    /// Whether queries share keys and values evenly; where there are none of the one there are none of the other.
    pub fn fit(self) -> bool {
        if self.keys == 0 { self.queries == 0 } else { self.queries > 0 && self.queries % self.keys == 0 }
    }

    /// Heads of queries that share one of keys and values; 0 where there are none.
    pub fn share(self) -> usize {
        self.queries / self.keys.max(1)
    }
}

/// Who sees whom, and how scores are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionRule {
    /// Factor of `q · k`.
    pub scale: f32,
    /// The soft cap of scores.
    pub cap: Option<f32>,
    /// How many positions a query sees, itself among them; all if there is none.
    pub window: Option<usize>,
    /// Whether a query sees none that come after it.
    pub causal: bool,
}

impl AttentionRule {
    /// The keys that queries at `positions` see together, and those that one of them sees.
    pub(super) fn seen(&self, positions: Range<usize>, keys: usize) -> Range<usize> {
        let end = if self.causal { positions.end.min(keys) } else { keys };
        let first = self.window.map_or(0, |w| (positions.start + 1).saturating_sub(w));
        first.min(end)..end
    }
}

/// A bias of scores by distance.
#[derive(Debug, Clone, PartialEq)]
pub struct Distances {
    /// `(heads, distances)`, in standard layout; the bias of key j for query i stands at `zero + j - i`.
    pub(super) values: Array2<f32>,
    pub(super) zero: usize,
}

impl Distances {
    /// From `(heads, distances)` of any strides, the column `zero` of which is that of a query's own position.
    pub fn new(values: Array2<f32>, zero: usize) -> Self {
        // Rows are read as slices.
        let values = if values.is_standard_layout() { values } else { values.as_standard_layout().into_owned() };
        Distances { values, zero }
    }

    /// `(heads, distances)`.
    pub fn dim(&self) -> (usize, usize) {
        self.values.dim()
    }

    /// The biases of all keys for one query.
    pub(super) fn row(&self, head: usize, query: usize, keys: &Range<usize>) -> &[f32] {
        let first = self.zero + keys.start - query;
        &self.values.as_slice().expect("distances are in standard layout")[head * self.values.ncols() + first..][..keys.len()]
    }
}

/// Queries of one task.
pub(super) const BLOCK: usize = 64;
/// Products from which on the pool is worth waking.
const PARALLEL: usize = 1 << 15;

/// Turns products `q · k` into probabilities that are not yet divided by their sum, in place, and returns the sum. Entries of
/// keys that the query does not see become 0. `keys` are those of the row, `query` the query's position.
pub(super) fn weigh(row: &mut [f32], keys: &Range<usize>, query: usize, rule: &AttentionRule, bias: Option<&[f32]>) -> f64 {
    let seen = rule.seen(query..query + 1, keys.end);
    let (a, b) = (seen.start - keys.start, seen.end - keys.start);
    row[..a].fill(0.0);
    row[b..].fill(0.0);
    let row = &mut row[a..b];
    let factor = match rule.cap {
        Some(cap) => {
            vector::soft_cap(row, rule.scale, cap);
            1.0
        }
        None => rule.scale,
    };
    let factor = match bias {
        Some(bias) => {
            if factor != 1.0 {
                vector::scale(row, factor);
            }
            vector::add_scaled(row, 1.0, &bias[a..b]);
            1.0
        }
        None => factor,
    };
    vector::exp_sum(row, factor, factor * vector::max(row))
}

/// What attention reads: queries `(tokens, queries · dim)` and, of the same sequence, keys and values `(keys, keys · dim)`.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Queries.
    pub q: ArrayView2<'a, f32>,
    /// Keys.
    pub k: ArrayView2<'a, f32>,
    /// Values.
    pub v: ArrayView2<'a, f32>,
    /// Position of the first query among the keys.
    pub first: usize,
}

impl Seen<'_> {
    pub(super) fn check(&self, heads: Heads, out: (usize, usize)) {
        let (q, k) = (self.q.dim(), self.k.dim());
        assert!(heads.fit(), "{heads:?}");
        assert!(q.1 == heads.queries * heads.dim && out == q, "queries {q:?}, outputs {out:?}, {heads:?}");
        assert!(k.1 == heads.keys * heads.dim && self.v.dim() == k, "keys {k:?}, values {:?}, {heads:?}", self.v.dim());
    }

    /// Queries, keys and values of one head.
    pub(super) fn head(&self, heads: Heads, head: usize) -> [ArrayView2<'_, f32>; 3] {
        let (d, kv) = (heads.dim, head / heads.share());
        let of = |head: usize| s![.., head * d..(head + 1) * d];
        [self.q.slice(of(head)), self.k.slice(of(kv)), self.v.slice(of(kv))]
    }
}

/// `out (tokens, queries · dim)` of one or more sequences: `seen[i]` makes the `i`-th part of the rows.
///
/// # Panics
/// If shapes do not fit, or a query sees no key.
pub fn attend(seen: &[Seen<'_>], heads: Heads, rule: &AttentionRule, bias: Option<&Distances>, out: ArrayViewMut2<'_, f32>) {
    let mut tasks = Vec::new();
    let mut rest = out;
    let mut work = 0;
    for one in seen {
        let tokens = one.q.nrows();
        let (mut part, after) = rest.split_at(Axis(0), tokens);
        rest = after;
        one.check(heads, part.dim());
        work += tokens * one.k.nrows() * one.q.ncols();
        while part.ncols() > 0 {
            let (mut column, columns) = part.split_at(Axis(1), heads.dim);
            part = columns;
            let head = heads.queries - 1 - part.ncols() / heads.dim;
            let mut start = 0;
            while column.nrows() > 0 {
                let n = column.nrows().min(BLOCK);
                let (block, below) = column.split_at(Axis(0), n);
                column = below;
                tasks.push((one, head, start, block));
                start += n;
            }
        }
    }
    let run = |(one, head, start, out): (&Seen<'_>, usize, usize, ArrayViewMut2<'_, f32>)| {
        attend_block(one, heads, head, rule, bias, start, out);
    };
    if work < PARALLEL {
        tasks.into_iter().for_each(run);
    } else {
        // The last blocks of queries see the most keys, so they go first.
        tasks.reverse();
        tasks.into_par_iter().with_max_len(1).for_each(run);
    }
}

fn attend_block(
    seen: &Seen<'_>,
    heads: Heads,
    head: usize,
    rule: &AttentionRule,
    bias: Option<&Distances>,
    start: usize,
    mut out: ArrayViewMut2<'_, f32>,
) {
    let [q, k, v] = seen.head(heads, head);
    let n = out.nrows();
    let first = seen.first + start;
    let keys = rule.seen(first..first + n, k.nrows());
    let q = q.slice_move(s![start..start + n, ..]);
    let (k, v) = (k.slice_move(s![keys.clone(), ..]), v.slice_move(s![keys.clone(), ..]));
    let weigh = |row: &mut [f32], i: usize| {
        let bias = bias.map(|b| b.row(head, first + i, &keys));
        (1.0 / weigh(row, &keys, first + i, rule, bias)) as f32
    };
    // A matrix product would spend most of its time on packing what it uses once.
    if let (1, 1, 1, Some(q), Some(out)) = (n, k.strides()[1], v.strides()[1], q.as_slice(), out.as_slice_mut()) {
        let mut scores = vec![0.0; keys.len()];
        vector::row_dots(q, k, &mut scores);
        let rate = weigh(&mut scores, 0);
        vector::mix_rows(&scores, v, out);
        vector::scale(out, rate);
        return;
    }
    let mut scores = Array2::zeros((n, keys.len()));
    gemm(1.0, &q, &k.reversed_axes(), 0.0, &mut scores, Threads::One);
    let mut rates = vec![0.0; n];
    for (i, mut row) in scores.rows_mut().into_iter().enumerate() {
        rates[i] = weigh(row.as_slice_mut().expect("a new array is in standard layout"), i);
    }
    gemm(1.0, &scores, &v, 0.0, &mut out, Threads::One);
    out.rows_mut().into_iter().zip(rates).for_each(|(mut y, rate)| y *= rate);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    /// The last query alone, by its own path, against the same query among others.
    #[test]
    fn one_query_sees_what_it_sees_among_others() {
        let heads = Heads { queries: 6, keys: 2, dim: 20 };
        let of = |name: &str, cols: usize| Seed(3).stream(name).normal_array(37, cols, 1.0);
        let (q, k, v) = (of("q", 120), of("k", 40), of("v", 40));
        let bias = Distances::new(Seed(3).stream("bias").normal_array(6, 100, 1.0), 50);
        for (cap, window, bias) in [(None, None, None), (Some(3.0), Some(9), None), (None, Some(1), Some(&bias))] {
            let rule = AttentionRule { scale: 0.3, cap, window, causal: true };
            let mut all = Array2::zeros((37, 120));
            attend(&[Seen { q: q.view(), k: k.view(), v: v.view(), first: 0 }], heads, &rule, bias, all.view_mut());
            for keys in [1, 2, 3, 4, 5, 36, 37] {
                let mut one = Array2::zeros((1, 120));
                let seen = Seen {
                    q: q.slice(s![keys - 1..keys, ..]),
                    k: k.slice(s![..keys, ..]),
                    v: v.slice(s![..keys, ..]),
                    first: keys - 1,
                };
                attend(&[seen], heads, &rule, bias, one.view_mut());
                let apart = (&one.row(0) - &all.row(keys - 1))
                    .fold(0.0, |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d.abs()) });
                assert!(apart < 1e-5, "{apart} apart with {keys} keys, {rule:?}");
            }
        }
    }
}
