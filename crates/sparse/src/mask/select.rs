//! Scores to mask: exact counts, ties to the lower index.
//!
//! The reference codes of the field pick a *value* and compare with it, which drops one weight too many and every tie
//! besides. Here units are ranked: the budget is met exactly, and of two equal scores the one with the lower row-major index
//! stays. `-0.0` and `0.0` are equal.
//!
//! **Cost.** Unstructured in layer scope: two histogram passes over the scores (upper, then lower 16 bits of an
//! order-preserving key) and two that find and write the bits, each spread over the threads, with half a megabyte of
//! histogram a task beside the scores and the mask. The histograms make the count exact without a copy of the scores, which
//! a quickselect would need. `benches/selection.rs` times it; `tests/selection_memory.rs` counts the memory.

use crate::mask::{Budget, Mask, Pattern, Scope};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// Chooses which weights stay: the `budget` of units with the largest scores, in the shape of `pattern`, competing within
/// `scope`.
///
/// - `scores`: `(out, in)`, larger = keep; any strides. A unit of several weights (block, row, column) scores the **sum** of
///   its weights' scores, in f64: what is lost if it goes. At ragged edges the units are smaller and so are their sums.
/// - `budget`: counts units of the pattern, so `budget.of()` is `pattern.units(out, in)`. See [`Pattern::budget`].
/// - Ties: the lower row-major index of the unit stays.
/// - [`Pattern::Nm`] has one budget, and its groups lie within rows, so both scopes mean the same.
///
/// The mask does not depend on the number of threads.
///
/// ```
/// use lacuna_sparse::mask::{select, Budget, Pattern, Scope};
/// use ndarray::array;
/// let scores = array![[3., 1., 2.], [2., 2., 0.]];
/// let mask = select(&scores, Pattern::Unstructured, Scope::Layer, Budget::new(3, 6).unwrap()).unwrap();
/// assert_eq!(mask.to_array(), array![[true, false, true], [true, false, false]]);
/// ```
///
/// # Errors
/// If the pattern does not fit the shape ([`Pattern::check_shape`]), the budget is not one of this pattern's units, the
/// scope leaves no choice, or a score is not finite ([`Error::NotFinite`] names the first).
pub fn select(scores: &ArrayRef2<f32>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Mask> {
    let (rows, cols) = scores.dim();
    let units = pattern.units(rows, cols)?;
    pattern.check_scope(scope)?;
    if budget.of() != units {
        let reason = format!("a {rows} x {cols} matrix has {units} units of pattern {pattern}");
        return Err(Error::Budget { keep: budget.keep(), of: budget.of(), reason });
    }
    match pattern {
        Pattern::Nm { n, m } => {
            check_finite(scores, "scores")?;
            if budget.keep() != units / m * n {
                let reason = format!("pattern {pattern} keeps exactly {}", units / m * n);
                return Err(Error::Budget { keep: budget.keep(), of: budget.of(), reason });
            }
            Ok(by_rows(scores, |_, row, words| nm_row(row, n, m, words)))
        }
        Pattern::Unstructured if scope == Scope::Layer => layer(scores, budget.keep()),
        Pattern::Unstructured => {
            check_finite(scores, "scores")?;
            Ok(by_rows(scores, |r, row, words| {
                let mut scratch = row.to_vec();
                let keep = share(budget.keep(), rows, r);
                top(&mut scratch, row, keep, |c| words[c / 64] |= 1 << (c % 64));
            }))
        }
        Pattern::Block { .. } | Pattern::Rows | Pattern::Cols => {
            let sums = unit_scores(scores, pattern)?;
            Ok(expand(&unit_mask(&sums, scope, budget.keep()), pattern, rows, cols))
        }
    }
}

/// The score of each unit of `pattern`: the sum over its weights, in f64, rows before columns.
///
/// Returns `(unit rows, unit columns)`: the scores themselves for unstructured and N:M, `(out, 1)` for rows, `(1, in)` for
/// columns, and `(ceil(out / r), ceil(in / c))` for blocks `r x c`.
///
/// # Errors
/// If the pattern does not fit the shape, or a score is not finite.
pub fn unit_scores(scores: &ArrayRef2<f32>, pattern: Pattern) -> Result<Array2<f64>> {
    let (rows, cols) = scores.dim();
    pattern.check_shape(rows, cols)?;
    check_finite(scores, "scores")?;
    let ((ur, uc), grid) = (pattern.unit(rows, cols), pattern.grid(rows, cols));
    let mut sums = Array2::<f64>::zeros(grid);
    sums.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, mut sum)| {
        for r in i * ur..((i + 1) * ur).min(rows) {
            for (c, &s) in scores.row(r).iter().enumerate() {
                sum[c / uc] += f64::from(s);
            }
        }
    });
    Ok(sums)
}

/// `total` shared over `parts`: the first ones get one more where it does not divide.
fn share(total: usize, parts: usize, i: usize) -> usize {
    total / parts + usize::from(i < total % parts)
}

/// Refuses an infinity or a NaN, and names the first.
///
/// # Errors
/// [`Error::NotFinite`] with the place of the first; `what` says what the numbers are.
pub fn check_finite(numbers: &ArrayRef2<f32>, what: &str) -> Result<()> {
    check_finite_from(numbers, what, 0)
}

/// As [`check_finite`], of numbers that are a part of others: rows are counted from `first` on.
///
/// # Errors
/// As there.
pub fn check_finite_from(numbers: &ArrayRef2<f32>, what: &str, first: usize) -> Result<()> {
    let bad = numbers
        .axis_iter(Axis(0))
        .into_par_iter()
        .enumerate()
        .find_first(|(_, row)| !row.fold(true, |ok, s| ok & s.is_finite()))
        .map(|(r, _)| r);
    let Some(row) = bad else { return Ok(()) };
    let (col, value) = numbers.row(row).iter().copied().enumerate().find(|(_, s)| !s.is_finite()).unwrap_or((0, f32::NAN));
    Err(Error::NotFinite { what: what.into(), row: first + row, col, value: f64::from(value) })
}

/// A mask written row by row, in parallel.
fn by_rows(scores: &ArrayRef2<f32>, write: impl Fn(usize, &[f32], &mut [u64]) + Sync) -> Mask {
    let (rows, cols) = scores.dim();
    let mut mask = Mask::empty(rows, cols);
    let stride = mask.stride();
    let write_row = |r: usize, words: &mut [u64]| match scores.row(r).as_slice() {
        Some(row) => write(r, row, words),
        None => write(r, &scores.row(r).to_vec(), words),
    };
    mask.words_mut().par_chunks_mut(stride).enumerate().for_each(|(r, words)| write_row(r, words));
    mask
}

/// The `n` largest of every `m` scores of a row; of equals the first.
fn nm_row(row: &[f32], n: usize, m: usize, words: &mut [u64]) {
    let mut order: Vec<usize> = Vec::new();
    for (g, group) in row.chunks(m).enumerate() {
        let mut keep = |i: usize| words[(g * m + i) / 64] |= 1 << ((g * m + i) % 64);
        if m <= 32 {
            for (i, &a) in group.iter().enumerate() {
                let before = group[..i].iter().filter(|&&b| b >= a).count() + group[i + 1..].iter().filter(|&&b| b > a).count();
                if before < n {
                    keep(i);
                }
            }
        } else {
            order.clear();
            order.extend(0..m);
            order.sort_by(|&i, &j| order_key(group[j]).cmp(&order_key(group[i])).then(i.cmp(&j)));
            order[..n].iter().for_each(|&i| keep(i));
        }
    }
}

/// Calls `keep` for the `count` largest of `values`, of equals the first. `scratch` holds a copy of them.
fn top<T: PartialOrd + Copy>(scratch: &mut [T], values: &[T], count: usize, mut keep: impl FnMut(usize)) {
    if count == 0 {
        return;
    }
    let order = |a: &T, b: &T| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal);
    let (_, &mut cut, _) = scratch.select_nth_unstable_by(count - 1, order);
    let mut ties = count - values.iter().filter(|&&v| v > cut).count();
    for (i, &v) in values.iter().enumerate() {
        if v > cut || (v == cut && ties > 0) {
            ties -= usize::from(v == cut);
            keep(i);
        }
    }
}

/// The mask over units.
fn unit_mask(sums: &Array2<f64>, scope: Scope, keep: usize) -> Mask {
    let (rows, cols) = sums.dim();
    let mut mask = Mask::empty(rows, cols);
    match scope {
        Scope::Layer => {
            let all = sums.as_slice().expect("sums are made row by row");
            top(&mut all.to_vec(), all, keep, |i| mask.set(i / cols, i % cols, true));
        }
        Scope::Row => {
            for (r, row) in sums.rows().into_iter().enumerate() {
                let row = row.to_vec();
                top(&mut row.clone(), &row, share(keep, rows, r), |c| mask.set(r, c, true));
            }
        }
    }
    mask
}

/// The mask over weights that a mask over units stands for.
fn expand(units: &Mask, pattern: Pattern, rows: usize, cols: usize) -> Mask {
    let (ur, uc) = pattern.unit(rows, cols);
    let mut mask = Mask::empty(rows, cols);
    let stride = mask.stride();
    mask.words_mut().par_chunks_mut(stride).enumerate().for_each(|(r, words)| {
        for unit in units.row_indices(r / ur) {
            (unit * uc..((unit + 1) * uc).min(cols)).for_each(|c| words[c / 64] |= 1 << (c % 64));
        }
    });
    mask
}

/// An integer that orders as the score does: `a < b` exactly if `order_key(a) < order_key(b)`, for scores that are not NaN. `-0.0` and `0.0`
/// have the same.
///
/// ```
/// use lacuna_sparse::mask::order_key;
/// assert!(order_key(-2.0) < order_key(-1.0) && order_key(-1.0) < order_key(0.5));
/// assert_eq!(order_key(-0.0), order_key(0.0));
/// ```
#[inline]
pub fn order_key(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0.0 becomes 0.0
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The score of an [`order_key`].
fn score(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Rows of a task: at least 64 Ki scores.
fn rows_a_task(cols: usize) -> usize {
    (1usize << 16).div_ceil(cols.max(1))
}

/// Counts of `bin(score)` over all scores, `1 << 16` bins; `None` is not counted.
fn histogram(scores: &[&ArrayRef2<f32>], bin: impl Fn(f32) -> Option<u32> + Sync) -> Vec<u64> {
    let count = |view: ArrayView2<'_, f32>, bins: &mut Vec<u64>| {
        let mut add = |s: f32| {
            if let Some(b) = bin(s) {
                bins[b as usize] += 1;
            }
        };
        for row in view.rows() {
            match row.as_slice() {
                Some(row) => row.iter().for_each(|&s| add(s)),
                None => row.iter().for_each(|&s| add(s)),
            }
        }
    };
    let zero = || vec![0u64; 1 << 16];
    scores
        .par_iter()
        .flat_map(|s| s.axis_chunks_iter(Axis(0), rows_a_task(s.ncols())).into_par_iter())
        .fold(zero, |mut bins, view| {
            count(view, &mut bins);
            bins
        })
        .reduce(zero, |mut a, b| {
            a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
            a
        })
}

/// The `keep`-th largest of all the scores together, and how many of those that equal it are among the `keep` largest.
///
/// # Panics
/// If `keep` is not from 1 to the number of scores. These must be finite.
fn rank_cut(scores: &[&ArrayRef2<f32>], keep: usize) -> (f32, usize) {
    let all: usize = scores.iter().map(|s| s.len()).sum();
    assert!((1..=all).contains(&keep), "rank {keep} of {all} scores");
    let (high, above) = bin_of_rank(&histogram(scores, |s| Some(order_key(s) >> 16)), keep);
    let low_bins = histogram(scores, |s| (order_key(s) >> 16 == high).then_some(order_key(s) & 0xffff));
    let (low, above_low) = bin_of_rank(&low_bins, keep - above);
    (score(high << 16 | low), keep - above - above_low)
}

/// From the highest bin down: the bin in which the `rank`-th largest lies, and how many lie above that bin.
fn bin_of_rank(bins: &[u64], rank: usize) -> (u32, usize) {
    let mut above = 0;
    for (b, &count) in bins.iter().enumerate().rev() {
        if above + count as usize >= rank {
            return (b as u32, above);
        }
        above += count as usize;
    }
    unreachable!("rank {rank} lies among the {above} scores counted")
}

/// Unstructured, in layer scope.
fn layer(scores: &ArrayRef2<f32>, keep: usize) -> Result<Mask> {
    check_finite(scores, "scores")?;
    let (rows, cols) = scores.dim();
    if keep == 0 || keep == rows * cols {
        return Ok(if keep == 0 { Mask::empty(rows, cols) } else { Mask::full(rows, cols) });
    }
    let (cut, ties_kept) = rank_cut(&[scores], keep);

    // How many of the ties that stay lie before each task's rows.
    let step = rows_a_task(cols);
    let equal = |row: ArrayView1<'_, f32>| row.iter().filter(|&&s| s == cut).count();
    let counts: Vec<usize> =
        scores.axis_chunks_iter(Axis(0), step).into_par_iter().map(|view| view.rows().into_iter().map(equal).sum()).collect();
    let ties_left: Vec<usize> = counts
        .iter()
        .scan(ties_kept, |left, count| {
            let before = *left;
            *left -= (*count).min(*left);
            Some(before)
        })
        .collect();
    let mut mask = Mask::empty(rows, cols);
    let stride = mask.stride();
    let tasks = mask.words_mut().par_chunks_mut(step * stride).zip(scores.axis_chunks_iter(Axis(0), step)).zip(ties_left);
    tasks.for_each(|((words, view), mut left)| {
        for (words, row) in words.chunks_mut(stride).zip(view.rows()) {
            let strided;
            let row = match row.as_slice() {
                Some(row) => row,
                None => {
                    strided = row.to_vec();
                    &strided
                }
            };
            for (word, part) in words.iter_mut().zip(row.chunks(64)) {
                *word = bits_where(part, |s| s > cut);
                let mut equal = bits_where(part, |s| s == cut);
                while equal.count_ones() as usize > left {
                    equal &= !(1 << (63 - equal.leading_zeros()));
                }
                left -= equal.count_ones() as usize;
                *word |= equal;
            }
        }
    });
    Ok(mask)
}

/// Bit `i` says what `test` says of entry `i`, of at most 64.
fn bits_where(part: &[f32], test: impl Fn(f32) -> bool) -> u64 {
    part.iter().enumerate().fold(0, |word, (i, &s)| word | u64::from(test(s)) << i)
}
