//! Blocks of weights, compressed by rows.

use super::blocks::{Cut, blocks, check, check_starts};
use super::entries::{Entries, Weights};
use super::kept::Kept;
use super::op::{check_shapes, check_transpose};
use super::scale::{check_group, check_scales, scales_by};
use crate::kernels::{BsrSlices, Epilogue, Value, apply_transpose, bsr_product};
use crate::mask::{Mask, Pattern};
use crate::storage::LinearOp;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};

/// A weight whose mask keeps and drops whole blocks of `r x c`, counted from the upper left corner: 4 bytes a weight in `f32` and 2 a block,
/// 4 where there are more than 65 536 columns of blocks.
///
/// Blocks at the lower and right edge may be smaller; they are stored as small as they are. A mask that keeps a part of a block is refused with
/// the place: nothing is padded.
///
/// # Invariants
/// - `r` and `c` are above 0. There are `ceil(rows / r)` lines of blocks and `ceil(cols / c)` columns of blocks.
/// - `shares` rises strictly from 0 to `rows`; all but the last are multiples of `r`.
/// - `starts` has one number a line and one more, never decreases, and runs from 0 to the number of columns listed.
/// - Within a line, columns of blocks increase strictly; all lie below the number of them. Indices of 16 bits are for 65 536 of them at most.
/// - `value_starts` has one number a line and one more, runs from 0 to the number of values, and rises by what the line's blocks hold.
/// - The values of a block stand column by column.
/// - If values have scales, there is one a row, or with a `group` one for each row's part of so many inputs, a multiple of `c`; else none, and no
///   group. Scales are finite and above 0.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{apply, Bsr, LinearOp}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 4., 3.]];
/// let op = Bsr::<f32>::with_blocks(&w, &Mask::from_fn(2, 3, |_, c| c != 1), 2, 1).unwrap();
/// assert_eq!(op.nnz(), 4); // a kept weight that is 0 is stored
/// assert_eq!(apply(&op, &array![[1., 10., 100.]]), array![[1., 300.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Bsr<T = f32>(BsrParts<T>);

/// What a [`Bsr`] is made of; its invariants stand there.
#[derive(Debug, Clone, PartialEq)]
pub struct BsrParts<T> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Rows of a block.
    pub r: usize,
    /// Columns of a block.
    pub c: usize,
    /// First row of each share that a thread takes, and one past the last row.
    pub shares: Vec<u32>,
    /// First block of each line, and one past the last.
    pub starts: Vec<u32>,
    /// First value of each line, and one past the last.
    pub value_starts: Vec<u32>,
    /// Column of each block, in blocks.
    pub columns: BlockColumns,
    /// The values, block by block.
    pub values: Vec<T>,
    /// Inputs of a row that share a scale; all of them if none is said.
    pub group: Option<usize>,
    /// Factor of the values of each row or group, `(rows, groups)`; empty where values are floats.
    pub scales: Vec<f32>,
}

/// Columns of blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockColumns {
    /// Where there are up to 65 536.
    Narrow(Vec<u16>),
    /// Where there are more.
    Wide(Vec<u32>),
}

impl BlockColumns {
    /// How many blocks are listed.
    pub fn len(&self) -> usize {
        match self {
            BlockColumns::Narrow(c) => c.len(),
            BlockColumns::Wide(c) => c.len(),
        }
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, i: usize) -> usize {
        match self {
            BlockColumns::Narrow(c) => usize::from(c[i]),
            BlockColumns::Wide(c) => c[i] as usize,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            BlockColumns::Narrow(c) => size_of_val(&c[..]),
            BlockColumns::Wide(c) => size_of_val(&c[..]),
        }
    }
}

const FORMAT: &str = "bsr";
/// Columns of blocks that 16 bits name.
const NARROW: usize = 1 << 16;
/// Rows of a share, where blocks are not higher.
const SHARE: usize = 256;

impl<T: Value> Bsr<T> {
    /// A weight `(out, in)` in blocks of `r x c`; with a scale a row where values have one.
    ///
    /// # Errors
    /// If the shapes differ, a block has no rows or columns, the mask keeps a part of a block (the place is named), there are 2³² weights
    /// or more, or a weight with a scale is not finite.
    pub fn with_blocks(weight: &ArrayRef2<f32>, mask: &Mask, r: usize, c: usize) -> Result<Self> {
        Bsr::pack(&Kept::of(weight, mask), (r, c), None)
    }

    /// The same with a scale for each row's part of `inputs` columns, a multiple of `c`. Where values are floats, they have no scales.
    ///
    /// # Errors
    /// As [`Bsr::with_blocks`], and if `inputs` is 0 or no such multiple.
    pub fn with_groups(weight: &ArrayRef2<f32>, mask: &Mask, (r, c): (usize, usize), inputs: usize) -> Result<Self> {
        Bsr::pack(&Kept::of(weight, mask), (r, c), Some(inputs))
    }

    /// With a scale a row, or a group of inputs if one is said.
    pub(super) fn pack(from: &Kept<'_, T>, (r, c): (usize, usize), group: Option<usize>) -> Result<Self> {
        let ((rows, cols), mask) = (from.dim(), from.mask);
        if group.is_some() {
            check_block(r, c)?;
            check_group::<i8>(FORMAT, group, c)?;
        }
        let group = group.filter(|_| T::SCALED);
        let kept = from.check_sizes(FORMAT)?;
        check_block(r, c)?;
        if !mask.is_empty() {
            Pattern::Block { rows: r, cols: c }.check(mask)?;
        }
        from.check_scalable()?;
        let scales = from.scales(0..rows, group);
        let by = scales_by(&scales, cols, group, c);
        let narrow = cols.div_ceil(c) <= NARROW;
        let lines = rows.div_ceil(r);
        let mut parts = BsrParts {
            rows,
            cols,
            r,
            c,
            shares: shares(rows, r, mask),
            starts: Vec::with_capacity(lines + 1),
            value_starts: Vec::with_capacity(lines + 1),
            columns: if narrow { BlockColumns::Narrow(Vec::new()) } else { BlockColumns::Wide(Vec::new()) },
            values: Vec::with_capacity(kept),
            group,
            scales: Vec::new(),
        };
        parts.starts.push(0);
        parts.value_starts.push(0);
        for top in (0..rows).step_by(r) {
            let bottom = (top + r).min(rows);
            // What the first row of a block keeps, all of them keep.
            let mut kept = mask.row_indices(top).peekable();
            while let Some(&first) = kept.peek() {
                let column = first / c;
                match &mut parts.columns {
                    BlockColumns::Narrow(list) => list.push(column as u16),
                    BlockColumns::Wide(list) => list.push(column as u32),
                }
                while let Some(j) = kept.next_if(|j| j / c == column) {
                    parts.values.extend((top..bottom).map(|i| from.value(i, j, by.at::<T>(i, column))));
                }
            }
            parts.starts.push(parts.columns.len() as u32);
            parts.value_starts.push(parts.values.len() as u32);
        }
        parts.scales = scales;
        Ok(Bsr(parts))
    }

    /// A weight from its parts, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    pub fn new(parts: BsrParts<T>) -> Result<Self> {
        parts.check()?;
        Ok(Bsr(parts))
    }

    /// What it is made of.
    pub fn parts(&self) -> &BsrParts<T> {
        &self.0
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        self.0.stored()
    }

    /// The pattern of its blocks.
    pub fn pattern(&self) -> Pattern {
        Pattern::Block { rows: self.0.r, cols: self.0.c }
    }
}

fn check_block(r: usize, c: usize) -> Result<()> {
    if r == 0 || c == 0 || u32::try_from(r.max(c)).is_err() {
        return Err(Error::invalid_option(FORMAT, format!("blocks of {r} x {c}, where 1 x 1 and more are possible")));
    }
    Ok(())
}

/// Whole lines of blocks of like cost.
fn shares(rows: usize, r: usize, mask: &Mask) -> Vec<u32> {
    let counts: Vec<usize> = (0..rows).step_by(r).map(|top| r.min(rows - top) * mask.row_indices(top).count()).collect();
    let longest = (SHARE / r).max(1);
    let cut = Cut { longest, most_by_cost: 8, multiple: 1 };
    blocks(counts.len(), cut, |line| counts[line]).into_iter().map(|line| (line as usize * r).min(rows) as u32).collect()
}

impl<T: Value> BsrParts<T> {
    /// Rows and columns of a block.
    fn block(&self, line: usize, column: usize) -> (usize, usize) {
        (self.r.min(self.rows - line * self.r), self.c.min(self.cols - column * self.c))
    }

    fn check(&self) -> Result<()> {
        let BsrParts { rows, cols, r, c, ref shares, ref starts, ref value_starts, ref columns, ref values, group, ref scales } =
            *self;
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, reason));
        check_block(r, c)?;
        check(FORMAT, shares, rows, rows.max(1))?;
        if let Some(s) = shares[..shares.len() - 1].iter().find(|s| **s as usize % r != 0) {
            return refuse(format!("a share begins at row {s}, within a block of {r} rows"));
        }
        let (lines, across) = (rows.div_ceil(r), cols.div_ceil(c));
        if matches!(columns, BlockColumns::Narrow(_)) && across > NARROW {
            return refuse(format!("{across} columns of blocks with indices for {NARROW}"));
        }
        check_starts(FORMAT, starts, lines, columns.len())?;
        check_starts(FORMAT, value_starts, lines, values.len())?;
        check_group::<T>(FORMAT, group, c)?;
        check_scales::<T>(FORMAT, scales, (rows, cols), group)?;
        for line in 0..lines {
            let mut before = None;
            let mut holds = 0u64;
            for i in starts[line] as usize..starts[line + 1] as usize {
                let column = columns.get(i);
                if let Some(before) = before.filter(|before| *before >= column) {
                    return refuse(format!("columns of line {line} do not increase: {before} before {column}"));
                }
                if column >= across {
                    return refuse(format!("line {line} has a block in column {column} of {across}"));
                }
                let (height, width) = self.block(line, column);
                holds = holds.saturating_add((height as u64).saturating_mul(width as u64));
                before = Some(column);
            }
            let found = value_starts[line + 1] - value_starts[line];
            if holds != u64::from(found) {
                return refuse(format!("the blocks of line {line} hold {holds} values, and it has {found}"));
            }
        }
        Ok(())
    }
}

impl<T: Value> Weights for BsrParts<T> {
    type Number = T;

    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn group(&self) -> Option<usize> {
        self.group
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize, T, f32)) {
        let mut value = 0;
        let scales = scales_by(&self.scales, self.cols, self.group, self.c);
        for line in 0..self.rows.div_ceil(self.r) {
            for i in self.starts[line] as usize..self.starts[line + 1] as usize {
                let column = self.columns.get(i);
                let (height, width) = self.block(line, column);
                for j in 0..width {
                    for k in 0..height {
                        let row = line * self.r + k;
                        let scale = scales.at::<T>(row, column);
                        f(row, column * self.c + j, self.values[value], scale);
                        value += 1;
                    }
                }
            }
        }
    }

    fn for_each_of(&self, row: usize, mut f: impl FnMut(usize, T, f32)) {
        let (line, k) = (row / self.r, row % self.r);
        let scales = scales_by(&self.scales, self.cols, self.group, self.c);
        let mut value = self.value_starts[line] as usize;
        for i in self.starts[line] as usize..self.starts[line + 1] as usize {
            let column = self.columns.get(i);
            let (height, width) = self.block(line, column);
            let scale = scales.at::<T>(row, column);
            (0..width).for_each(|j| f(column * self.c + j, self.values[value + j * height + k], scale));
            value += height * width;
        }
    }
}

impl<T: Value> LinearOp for Bsr<T> {
    fn format(&self) -> &str {
        FORMAT
    }

    fn shape(&self) -> (usize, usize) {
        self.0.dim()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        check_shapes(self, x, y, epilogue);
        let BsrParts { rows, cols, r, c, shares, starts, value_starts, columns, values, group, scales } = &self.0;
        let (rows, cols, r, c) = (*rows, *cols, *r, *c);
        let scales = scales_by(scales, cols, *group, c);
        macro_rules! with {
            ($columns:ident) => {{
                let w = BsrSlices { rows, cols, r, c, parts: shares, starts, value_starts, columns: $columns, values, scales };
                bsr_product(&w, x, y, epilogue)
            }};
        }
        match columns {
            BlockColumns::Narrow(c) => with!(c),
            BlockColumns::Wide(c) => with!(c),
        }
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        check_transpose(self, dy, dx);
        let BsrParts { rows, cols, r, c, shares, starts, value_starts, columns, values, group, scales } = &self.0;
        let (rows, cols, r, c) = (*rows, *cols, *r, *c);
        let scales = scales_by(scales, cols, *group, c);
        macro_rules! with {
            ($columns:ident) => {{
                let w = BsrSlices { rows, cols, r, c, parts: shares, starts, value_starts, columns: $columns, values, scales };
                apply_transpose(&w, dy, dx)
            }};
        }
        match columns {
            BlockColumns::Narrow(c) => with!(c),
            BlockColumns::Wide(c) => with!(c),
        }
    }

    fn to_dense(&self) -> Array2<f32> {
        self.0.dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        self.0.row(row, to);
    }

    fn entries(&self) -> Entries {
        self.0.entries()
    }

    fn nnz(&self) -> usize {
        self.0.values.len()
    }

    fn bytes(&self) -> usize {
        let BsrParts { shares, starts, value_starts, columns, values, scales, .. } = &self.0;
        let lines = size_of_val(&shares[..]) + size_of_val(&starts[..]) + size_of_val(&value_starts[..]);
        lines + columns.bytes() + size_of_val(&values[..]) + size_of_val(&scales[..])
    }
}
