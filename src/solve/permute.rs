//! An order of the inputs in which an N:M pattern keeps more.
//!
//! Zhang, Bai, Lin, Zhao, Hou, Cannistraci. *Plug-and-play: an efficient post-training pruning method for large language models.* ICLR
//! 2024, section 3.3: channel permutation.
//!
//! ```text
//! maximise over orders of the columns   Σ of the scores that N of every M neighbours keep
//! 1. columns by their sum, dealt out to the groups to and fro
//! 2. for each place of a group: all columns in that place are handed out anew, at best (linear sum assignment), until nothing is gained
//! ```
//!
//! With the other M − 1 columns of a group fixed, a row keeps the sum of their N − 1 largest and the larger of their N-th and the new
//! column's score: so the gains of all pairs of group and column are sums of maxima, `rows · groups²` of them.
//!
//! The order changes a layer's inputs. Whoever uses it permutes the columns of the weight, and either the outputs of what stands
//! before, or the input itself.
//!
//! Cost: `M · (rows · groups² + groups³)` a round, a few rounds.

use crate::mask::{Pattern, Scope, select};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use rayon::prelude::*;

/// Rounds over all places at most.
const ROUNDS: usize = 8;

/// The columns of `scores` `(out, in)` in an order in which `n` of every `m` neighbours keep at least as much as in their own.
///
/// ```
/// use lacuna::solve::channel_order;
/// use ndarray::array;
/// // The two large columns stand in one group; apart, both stay.
/// let order = channel_order(&array![[9., 8., 1., 2.]], 1, 2)?;
/// assert!(order[..2].contains(&0) != order[..2].contains(&1));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// If the pattern does not fit, or a score is not a finite number of at least 0.
pub fn channel_order(scores: &ArrayRef2<f32>, n: usize, m: usize) -> Result<Vec<usize>> {
    let (rows, cols) = scores.dim();
    let pattern = Pattern::Nm { n, m };
    pattern.check_shape(rows, cols)?;
    if let Some(((row, col), &value)) = scores.indexed_iter().find(|(_, s)| !(s.is_finite() && **s >= 0.0)) {
        return Err(Error::NotFinite { what: "scores of channels".into(), row, col, value: f64::from(value) });
    }
    let natural: Vec<usize> = (0..cols).collect();
    if n == m || cols == m {
        return Ok(natural);
    }
    let mut order = dealt(scores, m);
    let mut best = retained(scores, &order, pattern)?;
    for _ in 0..ROUNDS {
        let before = best;
        for place in 0..m {
            let better = handed_out(scores, &order, (n, m), place);
            let now = retained(scores, &better, pattern)?;
            if now > best {
                (order, best) = (better, now);
            }
        }
        if best <= before {
            break;
        }
    }
    Ok(if best > retained(scores, &natural, pattern)? { order } else { natural })
}

/// Columns by rising sum, dealt out to the groups, every other round backwards.
fn dealt(scores: &ArrayRef2<f32>, m: usize) -> Vec<usize> {
    let cols = scores.ncols();
    let sums: Vec<f64> = scores.columns().into_iter().map(|c| c.iter().map(|&s| f64::from(s)).sum()).collect();
    let mut sorted: Vec<usize> = (0..cols).collect();
    sorted.sort_by(|&a, &b| sums[a].total_cmp(&sums[b]));
    let groups = cols / m;
    let mut order = vec![0; cols];
    for (place, part) in sorted.chunks(groups).enumerate() {
        for (i, &c) in part.iter().enumerate() {
            let group = if place % 2 == 0 { i } else { groups - 1 - i };
            order[group * m + place] = c;
        }
    }
    order
}

/// The sum of what the pattern keeps of the columns in this order.
fn retained(scores: &ArrayRef2<f32>, order: &[usize], pattern: Pattern) -> Result<f64> {
    let ordered = Array2::from_shape_fn(scores.dim(), |(r, c)| scores[[r, order[c]]]);
    let budget = pattern.budget(ordered.nrows(), ordered.ncols(), 0.0)?;
    let mask = select(&ordered, pattern, Scope::Layer, budget)?;
    Ok(mask.iter_kept().map(|at| f64::from(ordered[at])).sum())
}

/// The order with the columns that stand in `place` of all groups handed out anew.
fn handed_out(scores: &ArrayRef2<f32>, order: &[usize], (n, m): (usize, usize), place: usize) -> Vec<usize> {
    let (rows, groups) = (scores.nrows(), order.len() / m);
    // Of each group and row the n-th largest score without the column in question.
    let others = |g: usize| -> Vec<f32> {
        (0..rows)
            .map(|r| {
                let mut left: Vec<f32> = (0..m).filter(|i| *i != place).map(|i| scores[[r, order[g * m + i]]]).collect();
                left.sort_by(|a, b| b.total_cmp(a));
                left[n - 1]
            })
            .collect()
    };
    let candidates: Vec<Vec<f32>> = (0..groups).map(|g| scores.column(order[g * m + place]).to_vec()).collect();
    let cost: Vec<Vec<f64>> = (0..groups)
        .into_par_iter()
        .map(|g| {
            let bar = others(g);
            let gain = |column: &Vec<f32>| bar.iter().zip(column).map(|(b, s)| f64::from(b.max(*s))).sum::<f64>();
            candidates.iter().map(|column| -gain(column)).collect()
        })
        .collect();
    let mut next = order.to_vec();
    for (g, from) in assignment(&cost).into_iter().enumerate() {
        next[g * m + place] = order[from * m + place];
    }
    next
}

/// For each row of a square matrix its column in the assignment of least cost (the Hungarian method with potentials, Kuhn 1955).
fn assignment(cost: &[Vec<f64>]) -> Vec<usize> {
    let n = cost.len();
    // Rows and columns from 1; 0 is a place to start from.
    let (mut row_price, mut col_price) = (vec![0.0; n + 1], vec![0.0; n + 1]);
    let (mut row_of, mut came) = (vec![0; n + 1], vec![0; n + 1]);
    for row in 1..=n {
        row_of[0] = row;
        let (mut at, mut least, mut used) = (0, vec![f64::INFINITY; n + 1], vec![false; n + 1]);
        while row_of[at] != 0 {
            used[at] = true;
            let (i, mut delta, mut next) = (row_of[at], f64::INFINITY, 0);
            for j in (1..=n).filter(|&j| !used[j]) {
                let reduced = cost[i - 1][j - 1] - row_price[i] - col_price[j];
                if reduced < least[j] {
                    (least[j], came[j]) = (reduced, at);
                }
                if least[j] < delta {
                    (delta, next) = (least[j], j);
                }
            }
            for j in 0..=n {
                if used[j] {
                    row_price[row_of[j]] += delta;
                    col_price[j] -= delta;
                } else {
                    least[j] -= delta;
                }
            }
            at = next;
        }
        while at != 0 {
            row_of[at] = row_of[came[at]];
            at = came[at];
        }
    }
    let mut column_of = vec![0; n];
    (1..=n).for_each(|j| column_of[row_of[j] - 1] = j - 1);
    column_of
}

#[cfg(test)]
mod tests {
    use super::assignment;

    #[test]
    fn the_assignment_is_the_best_of_all_permutations() {
        let mut stream = crate::rng::Seed(3).stream("assignment");
        for n in 1..=6 {
            let cost: Vec<Vec<f64>> = (0..n).map(|_| (0..n).map(|_| f64::from(stream.normal())).collect()).collect();
            fn least(cost: &[Vec<f64>], row: usize, used: u32) -> f64 {
                if row == cost.len() {
                    return 0.0;
                }
                let free = (0..cost.len()).filter(|j| used >> j & 1 == 0);
                free.map(|j| cost[row][j] + least(cost, row + 1, used | 1 << j)).fold(f64::INFINITY, f64::min)
            }
            let found = assignment(&cost);
            let total: f64 = found.iter().enumerate().map(|(i, &j)| cost[i][j]).sum();
            assert!((total - least(&cost, 0, 0)).abs() < 1e-12, "{n}: {total}");
        }
    }
}
