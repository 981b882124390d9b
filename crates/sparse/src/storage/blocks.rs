//! Blocks of rows: what threads share out, and what keeps its sums in a cache.

use crate::{Error, Result};
use std::ops::Range;

/// How rows are cut into blocks.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Rows of a block, at most.
    pub longest: usize,
    /// Blocks that a weight of many rows' cost is cut into even if fewer could hold its rows.
    pub most_by_cost: usize,
    /// What the number of rows of every block but the last is a multiple of.
    pub multiple: usize,
}

/// For storages whose rows stand alone.
pub(super) const SINGLE: Cut = Cut { longest: 256, most_by_cost: 8, multiple: 1 };

/// Weights of a block that are worth a thread's while.
const WEIGHTS: usize = 1 << 14;

/// First row of each block, and one past the last row: an even number of blocks of like cost where the weight is large enough, so
/// that two threads share them evenly.
///
/// `cost(row)` is the number of weights of a row.
pub(super) fn blocks(rows: usize, cut: Cut, cost: impl Fn(usize) -> usize) -> Vec<u32> {
    // A row costs something even when it is empty.
    let total: usize = (0..rows).map(|r| cost(r) + 4).sum();
    let by_rows = rows.div_ceil(cut.longest);
    let by_cost = (total / WEIGHTS).min(cut.most_by_cost);
    let mut count = by_rows.max(by_cost).max(1);
    if count > 1 {
        count = count.next_multiple_of(2).min(rows.max(1));
    }
    let mut ends = Vec::with_capacity(count + 1);
    ends.push(0u32);
    let (mut done, mut first) = (0, 0);
    for r in 0..rows {
        done += cost(r) + 4;
        let size = r + 1 - first;
        // The part of the whole that blocks up to this one should have.
        let enough = size == cut.longest || done * count >= total * ends.len();
        if r + 1 < rows && enough && size % cut.multiple == 0 {
            ends.push(r as u32 + 1);
            first = r + 1;
        }
    }
    if rows > 0 {
        ends.push(rows as u32);
    }
    ends
}

/// The rows of the block that has this one.
pub(super) fn block_of(blocks: &[u32], row: usize) -> Range<usize> {
    let next = blocks.partition_point(|&first| first as usize <= row);
    blocks[next - 1] as usize..blocks[next] as usize
}

/// Whether blocks cover the rows in order, none longer than `longest`.
pub(super) fn check(format: &'static str, blocks: &[u32], rows: usize, longest: usize) -> Result<()> {
    let refuse = |reason: String| Err(Error::invalid_option(format, reason));
    if blocks.first() != Some(&0) || blocks.last().map(|&b| b as usize) != Some(rows) {
        return refuse(format!("blocks run from {:?} to {:?} over {rows} rows", blocks.first(), blocks.last()));
    }
    match blocks.windows(2).find(|w| w[0] >= w[1] || (w[1] - w[0]) as usize > longest) {
        Some(w) => refuse(format!("a block runs from row {} to {}, where 1 to {longest} rows are possible", w[0], w[1])),
        None => Ok(()),
    }
}

/// Whether `starts` rise from 0 to `end`.
pub(super) fn check_starts(format: &'static str, starts: &[u32], lists: usize, end: usize) -> Result<()> {
    let refuse = |reason: String| Err(Error::invalid_option(format, reason));
    if starts.len().checked_sub(1) != Some(lists) {
        return refuse(format!("{} starts for {lists} lists, where each has one and the end another", starts.len()));
    }
    if starts[0] != 0 || starts[lists] as usize != end {
        return refuse(format!("starts run from {} to {} over {end} values", starts[0], starts[lists]));
    }
    match (0..lists).find(|&i| starts[i] > starts[i + 1]) {
        Some(i) => refuse(format!("starts of list {i} decrease from {} to {}", starts[i], starts[i + 1])),
        None => Ok(()),
    }
}
