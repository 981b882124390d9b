//! Blocks as kernels read them.

use crate::kernels::frame::Rows;
use crate::kernels::simd::{Column, Scales, Value, decode};
use std::ops::Range;

/// The parts of a checked [`Bsr`](crate::storage::Bsr).
#[derive(Clone, Copy)]
pub(crate) struct BsrSlices<'a, I, T> {
    pub rows: usize,
    pub cols: usize,
    /// Rows of a block; the last row of blocks may have fewer.
    pub r: usize,
    /// Columns of a block; the last column of blocks may have fewer.
    pub c: usize,
    /// First row of each part that a thread takes, a multiple of `r`.
    pub parts: &'a [u32],
    /// First block of each row of blocks.
    pub starts: &'a [u32],
    /// First value of each row of blocks.
    pub value_starts: &'a [u32],
    pub columns: &'a [I],
    pub values: &'a [T],
    /// By columns of blocks.
    pub scales: Scales<'a>,
}

/// Some blocks of one row of blocks, all of them of the same shape.
pub(crate) struct Run<'a, I, T> {
    /// Rows of each.
    pub(crate) height: usize,
    /// Columns of each.
    pub(crate) width: usize,
    pub(crate) columns: &'a [I],
    pub(crate) values: &'a [T],
}

impl<'a, I: Column, T: Value> BsrSlices<'a, I, T> {
    /// Blocks `from..to` of a row of blocks: the whole ones, and the narrower one at the edge if it is among them.
    #[inline(always)]
    pub(crate) fn runs(&self, line: usize, from: usize, to: usize) -> [Run<'a, I, T>; 2] {
        let first = self.starts[line] as usize;
        let height = self.r.min(self.rows - line * self.r);
        let all = &self.columns[first + from..first + to];
        let last = self.cols % self.c;
        let edge = last != 0 && all.last().is_some_and(|c| c.index() == self.cols / self.c);
        let (columns, narrow) = all.split_at(all.len() - usize::from(edge));
        let at = self.value_starts[line] as usize + from * height * self.c;
        let (values, rest) = self.values[at..].split_at(columns.len() * height * self.c);
        let narrow_values = &rest[..narrow.len() * height * last];
        [Run { height, width: self.c, columns, values }, Run { height, width: last, columns: narrow, values: narrow_values }]
    }

    #[inline(always)]
    pub(crate) fn blocks_of(&self, line: usize) -> usize {
        (self.starts[line + 1] - self.starts[line]) as usize
    }

    /// The blocks of a row of blocks whose columns share their scales in a group, and no more than that group.
    #[inline(always)]
    pub(crate) fn group(&self, line: usize, group: usize) -> Range<usize> {
        if self.scales.groups == 1 {
            return 0..self.blocks_of(line);
        }
        let columns = &self.columns[self.starts[line] as usize..self.starts[line + 1] as usize];
        let before = |group: usize| columns.partition_point(|c| c.index() / self.scales.parts < group);
        before(group)..before(group + 1)
    }

    /// The rows of blocks of a part.
    pub(crate) fn lines(&self, part: usize) -> Range<usize> {
        self.parts[part] as usize / self.r..(self.parts[part + 1] as usize).div_ceil(self.r)
    }
}

/// A [`Run`] as kernels take it, whatever its columns and values are stored as.
pub(crate) struct WideRun<'a> {
    /// Rows of each block.
    pub(crate) height: usize,
    /// Columns of each.
    pub(crate) width: usize,
    /// The first column of each.
    pub(crate) places: &'a [usize],
    /// Before their scales.
    pub(crate) values: &'a [f32],
}

/// Room for what runs are widened to.
#[derive(Default)]
pub(crate) struct Held {
    places: Vec<usize>,
    values: Vec<f32>,
}

/// Blocks for kernels that are compiled once for all of them.
pub(crate) trait Blocks {
    /// How many of a row of blocks, from one on, stand before a column of blocks.
    fn before(&self, line: usize, from: usize, column: usize) -> usize;
    /// What [`BsrSlices::runs`] finds, widened.
    fn wide_runs<'s>(&'s self, line: usize, blocks: Range<usize>, held: &'s mut Held) -> [WideRun<'s>; 2];
}

impl<I: Column, T: Value> Blocks for BsrSlices<'_, I, T> {
    fn before(&self, line: usize, from: usize, column: usize) -> usize {
        let blocks = self.starts[line] as usize + from..self.starts[line + 1] as usize;
        self.columns[blocks].iter().take_while(|c| c.index() < column).count()
    }

    fn wide_runs<'s>(&'s self, line: usize, blocks: Range<usize>, held: &'s mut Held) -> [WideRun<'s>; 2] {
        let runs = self.runs(line, blocks.start, blocks.end);
        held.places.clear();
        held.places.extend(runs.iter().flat_map(|run| run.columns).map(|column| column.index() * self.c));
        let (whole, edge) = held.places.split_at(runs[0].columns.len());
        let [first, last] = match runs.each_ref().map(|run| T::plain(run.values)) {
            [Some(first), Some(last)] => [first, last],
            _ => {
                held.values.resize(runs.iter().map(|run| run.values.len()).sum(), 0.0);
                let (first, last) = held.values.split_at_mut(runs[0].values.len());
                decode(runs[0].values, first);
                decode(runs[1].values, last);
                [&*first, &*last]
            }
        };
        let [height, width, narrow] = [runs[0].height, runs[0].width, runs[1].width];
        [WideRun { height, width, places: whole, values: first }, WideRun { height, width: narrow, places: edge, values: last }]
    }
}

// SAFETY: `Bsr` checks on its way in that the columns of blocks lie within the weight; rows are the slots themselves.
unsafe impl<I: Column, T: Value> Rows for BsrSlices<'_, I, T> {
    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn blocks(&self) -> &[u32] {
        self.parts
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    /// Groups of columns that share scales.
    fn tiles(&self) -> usize {
        self.scales.groups
    }

    fn tile_start(&self, group: usize) -> usize {
        if group == 0 { 0 } else { group * self.scales.parts * self.c }
    }

    fn row(&self, _: usize, _: usize, slot: usize) -> usize {
        slot
    }

    #[inline(always)]
    fn scale(&self, block: usize, group: usize, slot: usize) -> f32 {
        self.scales.of::<T>(self.parts[block] as usize + slot, group)
    }

    #[inline(always)]
    fn each<const U: usize>(&self, block: usize, group: usize, slot: usize, mut f: impl FnMut(usize, usize, f32)) {
        let row = self.parts[block] as usize + slot;
        let (line, i) = (row / self.r, row % self.r);
        let (blocks, start) = (self.group(line, group), self.tile_start(group));
        let mut turn = 0;
        for run in self.runs(line, blocks.start, blocks.end) {
            for (block, column) in run.columns.iter().enumerate() {
                for j in 0..run.width {
                    let value = run.values[(block * run.width + j) * run.height + i];
                    f(turn % U, column.index() * self.c + j - start, value.decode());
                    turn += 1;
                }
            }
        }
    }
}
