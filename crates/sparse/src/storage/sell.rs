//! Rows side by side: sliced ELLPACK.

use super::blocks::check_starts;
use super::entries::{Entries, Weights};
use super::kept::Kept;
use super::op::{check_shapes, check_transpose};
use super::scale::check_scales;
use super::sell_block::Block;
use crate::kernels::{
    A_WORD, Epilogue, Expand, Isa, PLACE, SLACK, SellSlices, Value, apply_transpose, sell_blocks, sell_product, sell_slices,
};
use crate::mask::Mask;
use crate::storage::{Compress, LinearOp, Slots};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use rayon::prelude::*;

/// A weight whose rows stand side by side in the lanes of a vector, a slice, and take their steps together: the storage for one to four tokens.
///
/// It is SELL-C-σ (Kreutzer, Hager, Wellein, Fehske, Bishop: "A unified sparse matrix data format for efficient general sparse
/// matrix-vector multiplication on modern processors with wide SIMD units", 2014, arXiv:1307.6209) with C the lanes of a vector
/// and σ all rows, and with a window: in a phase, steps take weights of its `lanes` columns and of the next `lanes`, so that a
/// permutation of two registers finds the numbers of x. Lanes may be ahead by a phase, which evens out their differences: at 80 %
/// sparsity about a fourth of the slots is empty, where phases that stand alone would leave two fifths so. A weight whose phase has passed
/// before its lane came to it is late, and stands in a list.
///
/// # Invariants
/// - `lanes` is 8 or 16. `order` names each row once; slice `s` has the rows `order[s * lanes..]`, the last one maybe fewer.
/// - Blocks are up to four slices; there are `blocks = ceil(slices / 4)`, one more if that is odd and more than one, and block `b`
///   has the slices from `b * slices / blocks` on. `steps` has a number for each block and phase, `(blocks, ceil(cols / lanes))`.
/// - `place_starts`, `mask_starts` and `late_starts` have one number a block and one more, `value_starts` has one a slice and one more; they
///   rise from 0 to the number of what they count.
/// - `masks` has a number for each step and slice: bit `l` says whether lane `l` has a weight.
/// - `places` has a word for each six steps begun, slice and lane: step `i` of them has five bits from bit `5 i` on, the column of the weight in
///   the window, which is that of its phase and the next. Of slots without a weight the bits are 0, and so are the bits of steps beyond the last.
/// - Columns of a lane rise from step to step, and lie within the weight. No weight is late and in time.
/// - `values` go slice by slice, step by step, lane by lane: zeros in empty slots if `slots` is padded, left out if it is packed.
/// - `late_lanes` and `late_columns` say lane within the block and column of the late weights; they rise strictly, by lane and then column.
/// - There is a scale for each row if values have scales, else none; scales are finite and above 0.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{apply, Compress, LinearOp, Sell}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let op = Sell::<f32>::compress(&w, &Mask::from_fn(2, 3, |r, c| r != c)).unwrap();
/// assert_eq!(op.nnz(), 4); // a kept weight that is 0 is stored
/// assert_eq!(apply(&op, &array![[1., 10., 100.]]), array![[20., 300.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sell<T = f32> {
    /// The values are followed by SLACK more, which kernels may read.
    parts: SellParts<T>,
}

/// What a [`Sell`] is made of; its invariants stand there.
#[derive(Debug, Clone, PartialEq)]
pub struct SellParts<T> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Rows of a slice.
    pub lanes: usize,
    /// What empty slots hold.
    pub slots: Slots,
    /// The row of each lane, slice by slice.
    pub order: Vec<u32>,
    /// Steps of each block and phase.
    pub steps: Vec<u8>,
    /// First word of places of each block, and one past the last.
    pub place_starts: Vec<u32>,
    /// First mask of each block, and one past the last.
    pub mask_starts: Vec<u32>,
    /// First value of each slice, and one past the last.
    pub value_starts: Vec<u32>,
    /// First late weight of each block, and one past the last.
    pub late_starts: Vec<u32>,
    /// Where in the window the columns are, six to a word.
    pub places: Vec<u32>,
    /// Which lanes have a weight in a step.
    pub masks: Vec<u16>,
    /// The values, slot by slot.
    pub values: Vec<T>,
    /// Lane of each late weight within its block.
    pub late_lanes: Vec<u8>,
    /// Column of each late weight.
    pub late_columns: Vec<u32>,
    /// The late weights.
    pub late_values: Vec<T>,
    /// Factor of the values of each row; empty where values are floats.
    pub scales: Vec<f32>,
}

const FORMAT: &str = "sell";

impl<T: Expand> Sell<T> {
    /// A weight `(out, in)` in slices of `lanes` rows; with a scale a row where values have one.
    ///
    /// # Errors
    /// If the shapes differ, `lanes` is neither 8 nor 16, there are 2³² slots or more, or a weight with a scale is not finite.
    pub fn with_lanes(weight: &ArrayRef2<f32>, mask: &Mask, lanes: usize, slots: Slots) -> Result<Self> {
        Sell::pack(&Kept::of(weight, mask), lanes, slots)
    }

    pub(super) fn pack(kept: &Kept<'_, T>, lanes: usize, slots: Slots) -> Result<Self> {
        let ((rows, cols), mask) = (kept.dim(), kept.mask);
        kept.check_sizes(FORMAT)?;
        check_lanes(lanes)?;
        kept.check_scalable()?;
        let counts = mask.row_counts();
        let mut order: Vec<u32> = (0..rows as u32).collect();
        order.sort_by_key(|&r| std::cmp::Reverse(counts[r as usize]));
        let phases = cols.div_ceil(lanes);
        let scales = kept.scales(0..rows, None);
        let blocks: Vec<Block<T>> = (0..sell_blocks(rows, lanes))
            .into_par_iter()
            .map(|block| {
                let slices = sell_slices(rows, lanes, block);
                let rows = &order[slices.start * lanes..(slices.end * lanes).min(rows)];
                let value = |r: usize, c: usize| kept.value(r, c, if T::SCALED { scales[r] } else { 1.0 });
                Block::new(mask, rows, (lanes, slices.len()), slots, value)
            })
            .collect();
        let mut parts = SellParts {
            rows,
            cols,
            lanes,
            slots,
            order,
            steps: Vec::with_capacity(blocks.len() * phases),
            place_starts: vec![0],
            mask_starts: vec![0],
            value_starts: vec![0],
            late_starts: vec![0],
            places: Vec::with_capacity(blocks.iter().map(|b| b.places.len()).sum()),
            masks: Vec::with_capacity(blocks.iter().map(|b| b.masks.len()).sum()),
            values: Vec::with_capacity(blocks.iter().flat_map(|b| &b.values).map(Vec::len).sum::<usize>() + SLACK),
            late_lanes: Vec::new(),
            late_columns: Vec::new(),
            late_values: Vec::new(),
            scales,
        };
        for block in blocks {
            parts.steps.extend(block.steps);
            parts.places.extend(block.places);
            parts.masks.extend(block.masks);
            for values in block.values {
                parts.values.extend(values);
                parts.value_starts.push(parts.values.len() as u32);
            }
            for (lane, column, value) in block.late {
                parts.late_lanes.push(lane);
                parts.late_columns.push(column);
                parts.late_values.push(value);
            }
            parts.place_starts.push(parts.places.len() as u32);
            parts.mask_starts.push(parts.masks.len() as u32);
            parts.late_starts.push(parts.late_lanes.len() as u32);
        }
        let longest = parts.values.len().max(parts.places.len()).max(parts.late_lanes.len());
        if u32::try_from(longest).is_err() {
            return Err(Error::invalid_option(FORMAT, format!("{longest} slots do not fit 32-bit indices")));
        }
        Ok(Sell::with_slack(parts))
    }

    /// The same in slices as wide as this machine's vectors.
    ///
    /// # Errors
    /// As [`Sell::with_lanes`].
    pub fn with_slots(weight: &ArrayRef2<f32>, mask: &Mask, slots: Slots) -> Result<Self> {
        Sell::with_lanes(weight, mask, lanes_here(), slots)
    }

    /// A weight from its parts, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    pub fn new(parts: SellParts<T>) -> Result<Self> {
        parts.check()?;
        Ok(Sell::with_slack(parts))
    }

    fn with_slack(mut parts: SellParts<T>) -> Self {
        parts.values.resize(parts.values.len() + SLACK, T::default());
        Sell { parts }
    }

    /// What it is made of.
    pub fn into_parts(mut self) -> SellParts<T> {
        self.parts.values.truncate(self.parts.values.len() - SLACK);
        self.parts
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        self.parts.stored()
    }

    /// What empty slots hold.
    pub fn slots(&self) -> Slots {
        self.parts.slots
    }
}

/// Lanes of this machine's vectors.
pub(super) fn lanes_here() -> usize {
    if Isa::current() == Isa::Avx512 { 16 } else { 8 }
}

fn check_lanes(lanes: usize) -> Result<()> {
    match lanes {
        8 | 16 => Ok(()),
        _ => Err(Error::invalid_option(FORMAT, format!("slices of {lanes} rows, where 8 and 16 are possible"))),
    }
}

impl<T: Value> SellParts<T> {
    pub(super) fn slices(&self) -> SellSlices<'_, T> {
        SellSlices {
            rows: self.rows,
            cols: self.cols,
            lanes: self.lanes,
            packed: self.slots == Slots::Packed,
            order: &self.order,
            steps: &self.steps,
            place_starts: &self.place_starts,
            mask_starts: &self.mask_starts,
            value_starts: &self.value_starts,
            late_starts: &self.late_starts,
            places: &self.places,
            masks: &self.masks,
            values: &self.values,
            late_lanes: &self.late_lanes,
            late_columns: &self.late_columns,
            late_values: &self.late_values,
            scales: &self.scales,
        }
    }

    fn check(&self) -> Result<()> {
        let SellParts { rows, cols, lanes, ref order, ref steps, .. } = *self;
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, reason));
        check_lanes(lanes)?;
        if u32::try_from(rows.max(cols)).is_err() || order.len() != rows {
            return refuse(format!("{} rows in order of {rows} x {cols}", order.len()));
        }
        let mut seen = vec![false; rows];
        if let Some(row) = order.iter().find(|&&r| r as usize >= rows || std::mem::replace(&mut seen[r as usize], true)) {
            return refuse(format!("row {row} of {rows} in order, or that row comes twice"));
        }
        let (blocks, phases) = (sell_blocks(rows, lanes), cols.div_ceil(lanes));
        if blocks.checked_mul(phases) != Some(steps.len()) {
            return refuse(format!("{} steps for {blocks} blocks of {phases} phases", steps.len()));
        }
        let late = self.late_lanes.len();
        if (self.late_columns.len(), self.late_values.len()) != (late, late) {
            let (c, v) = (self.late_columns.len(), self.late_values.len());
            return refuse(format!("{late} lanes, {c} columns and {v} values of late weights"));
        }
        check_starts(FORMAT, &self.place_starts, blocks, self.places.len())?;
        check_starts(FORMAT, &self.mask_starts, blocks, self.masks.len())?;
        check_starts(FORMAT, &self.value_starts, rows.div_ceil(lanes), self.values.len())?;
        check_starts(FORMAT, &self.late_starts, blocks, late)?;
        check_scales::<T>(FORMAT, &self.scales, (rows, cols), None)?;
        let mut stored = Mask::empty(rows, cols);
        for block in 0..blocks {
            self.check_block(block, &mut stored)?;
        }
        Ok(())
    }

    /// What belongs to one block; its weights are put into the mask.
    fn check_block(&self, block: usize, stored: &mut Mask) -> Result<()> {
        let SellParts { cols, lanes, .. } = *self;
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, format!("block {block}: {reason}")));
        let of = |starts: &[u32]| starts[block] as usize..starts[block + 1] as usize;
        let of_block = sell_slices(self.rows, lanes, block);
        let slices = of_block.len();
        let phases = cols.div_ceil(lanes);
        let steps = &self.steps[block * phases..(block + 1) * phases];
        let all: usize = steps.iter().map(|&s| usize::from(s)).sum();
        let (masks, places) = (&self.masks[of(&self.mask_starts)], &self.places[of(&self.place_starts)]);
        let words = all.div_ceil(A_WORD) * slices * lanes;
        if (masks.len(), places.len()) != (all * slices, words) {
            let (m, p) = (masks.len(), places.len());
            return refuse(format!("{m} masks and {p} words of places for {all} steps of {slices} slices of {lanes}"));
        }
        for (slice, starts) in self.value_starts[of_block.start..=of_block.end].windows(2).enumerate() {
            let kept = masks.iter().skip(slice).step_by(slices).map(|m| m.count_ones() as usize).sum();
            let wanted = if self.slots == Slots::Packed { kept } else { all * lanes };
            let values = (starts[1] - starts[0]) as usize;
            if values != wanted {
                return refuse(format!("slice {slice}: {values} values for {wanted} slots"));
            }
        }
        let view = self.slices();
        let rows = view.rows_of(block);
        let (mut step, mut at) = (0, view.first_values(block));
        let mut next = vec![0; slices * lanes];
        for (phase, &here) in steps.iter().enumerate() {
            for _ in 0..here {
                for lane in 0..slices * lanes {
                    let mask = masks[step * slices + lane / lanes];
                    if mask >> (lanes - 1) >> 1 != 0 {
                        return refuse(format!("step {step} has bits beyond {lanes} lanes"));
                    }
                    let word = places[step / A_WORD * slices * lanes + lane] >> (PLACE * (step % A_WORD));
                    let column = phase * lanes + (word & ((1 << PLACE) - 1)) as usize;
                    let kept = mask >> (lane % lanes) & 1 == 1;
                    if kept && (lane >= rows.len() || column >= cols.min((phase + 2) * lanes) || column < next[lane]) {
                        return refuse(format!("step {step}, lane {lane}: column {column} of {cols} after {}", next[lane]));
                    }
                    if !kept && column != phase * lanes {
                        return refuse(format!("step {step}, lane {lane}: a place without a weight"));
                    }
                    if (step + 1 == all || step % A_WORD == A_WORD - 1) && word >> PLACE != 0 {
                        return refuse(format!("lane {lane}: places beyond the last step"));
                    }
                    if kept {
                        next[lane] = column + 1;
                        stored.set(rows[lane] as usize, column, true);
                    } else if self.slots == Slots::Padded && self.values[at[lane / lanes]] != T::default() {
                        return refuse(format!("step {step}, lane {lane}: a value without a weight"));
                    }
                    at[lane / lanes] += usize::from(kept || self.slots == Slots::Padded);
                }
                step += 1;
            }
        }
        let mut before = None;
        for (lane, column, _) in view.late(block) {
            if lane >= rows.len() || column >= cols || before >= Some((lane, column)) {
                return refuse(format!("late weight of lane {lane}, column {column} of {cols} after {before:?}"));
            }
            if stored.get(rows[lane] as usize, column) {
                return refuse(format!("lane {lane}, column {column} is late and in time"));
            }
            stored.set(rows[lane] as usize, column, true);
            before = Some((lane, column));
        }
        Ok(())
    }
}

impl<T: Value> Weights for SellParts<T> {
    type Number = T;

    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize, T, f32)) {
        let view = self.slices();
        for block in 0..view.blocks() {
            let rows = view.rows_of(block);
            let mut show = |lane: usize, column: usize, value: T| {
                let row = rows[lane] as usize;
                f(row, column, value, if T::SCALED { self.scales[row] } else { 1.0 });
            };
            view.in_time(block, &mut show);
            view.late(block).for_each(|(lane, column, value)| show(lane, column, value));
        }
    }

    fn for_each_of(&self, row: usize, mut f: impl FnMut(usize, T, f32)) {
        let view = self.slices();
        let holds = |block: usize| Some((block, view.rows_of(block).iter().position(|&r| r as usize == row)?));
        let Some((block, lane)) = (0..view.blocks()).find_map(holds) else { return };
        let scale = if T::SCALED { self.scales[row] } else { 1.0 };
        let mut show = |l: usize, column: usize, value: T| {
            if l == lane {
                f(column, value, scale);
            }
        };
        view.in_time(block, &mut show);
        view.late(block).for_each(|(lane, column, value)| show(lane, column, value));
    }
}

impl<T: Expand> LinearOp for Sell<T> {
    fn format(&self) -> &str {
        FORMAT
    }

    fn shape(&self) -> (usize, usize) {
        self.parts.dim()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        check_shapes(self, x, y, epilogue);
        sell_product(&self.parts.slices(), x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        check_transpose(self, dy, dx);
        apply_transpose(&self.parts.slices(), dy, dx);
    }

    fn to_dense(&self) -> Array2<f32> {
        self.parts.dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        self.parts.row(row, to);
    }

    fn entries(&self) -> Entries {
        self.parts.entries()
    }

    fn nnz(&self) -> usize {
        self.parts.slices().weights()
    }

    fn bytes(&self) -> usize {
        let p = &self.parts;
        let lists =
            size_of_val(&p.order[..]) + size_of_val(&p.steps[..]) + size_of_val(&p.masks[..]) + size_of_val(&p.places[..]);
        let starts = [&p.place_starts, &p.mask_starts, &p.value_starts, &p.late_starts].map(|s| size_of_val(&s[..]));
        let late = size_of_val(&p.late_lanes[..]) + size_of_val(&p.late_columns[..]) + size_of_val(&p.late_values[..]);
        lists + starts.iter().sum::<usize>() + late + size_of_val(&p.values[..]) + size_of_val(&p.scales[..])
    }
}

impl<T: Expand> Compress for Sell<T> {
    /// In slices as wide as this machine's vectors, padded.
    ///
    /// # Errors
    /// As [`Sell::with_lanes`].
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        Sell::with_slots(weight, mask, Slots::Padded)
    }
}
