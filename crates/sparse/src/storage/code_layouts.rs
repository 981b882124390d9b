//! The two orders in which codes at a mask of no pattern lie.

use super::codes::{Offsets, check_factors, code_at, put_code, row_bytes, width_of};
use crate::kernels::{
    Aligned, CODE_BLOCK, CODE_SLACK, CodeAt, CodeWidth, NO_PLACE, WINDOW, bases, bytes_of, part_of_mask, side_by_side, step_size,
};
use crate::mask::Mask;
use crate::{Error, Result};
use rayon::prelude::*;

/// What a [`QuantizedSparse`](super::QuantizedSparse) is made of, row by row.
///
/// # Invariants
/// - `words` are those of a [`Mask`]: 64 columns each, `(out, ceil(in / 64))`, no bit beyond the last column.
/// - `bits` is 4 or 8; `group` is a multiple of 32 that divides `cols`, or `cols`.
/// - `codes` are those of the kept weights, row by row, each row in whole bytes, as in [`QuantizedParts`](super::QuantizedParts).
/// - Scales and offsets are as there.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedSparseParts {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Bits of a code.
    pub bits: u8,
    /// Inputs of a row that share a scale, dropped ones among them.
    pub group: usize,
    /// A bit a weight, the lowest column first.
    pub words: Vec<u64>,
    /// Codes of what is kept, row by row.
    pub codes: Vec<u8>,
    /// Scales, `(out, groups)`.
    pub scales: Vec<f32>,
    /// Zero points or minimums.
    pub offsets: Offsets,
}

/// In which order a [`QuantizedSparse`](super::QuantizedSparse) holds its codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeLayout {
    /// Rows side by side, in steps of up to four codes a row, each with its place in a window of 16 inputs: 8 bits a code of four, 12 a code of eight, and steps that are
    /// not full. For 60 % of zeros and more; with minimums, of which none stands for 0 for certain, windows have 15 inputs.
    Windows,
    /// Row by row, a bit an input and the codes of those that have one. For fewer zeros, on processors that expand bytes (AVX-512 VBMI2).
    Masked,
}

/// The name of the format.
const FORMAT: &str = "quantized-sparse";

/// Codes in one of both orders.
#[derive(Clone)]
pub(super) enum Codes {
    Windows(Windows),
    Masked(Masked),
}

/// As `WindowSlices`.
#[derive(Clone, Default)]
pub(super) struct Windows {
    pub base: [u8; 4],
    pub begins: Vec<u32>,
    pub counts: Vec<[u8; 2]>,
    pub starts: Vec<u8>,
    pub steps: Aligned,
    /// Kept weights whose code stands for 0, which have no slots: columns, and where those of each row begin.
    pub zero_begins: Vec<u32>,
    pub zeros: Vec<u32>,
}

/// As `MaskedSlices`.
#[derive(Clone)]
pub(super) struct Masked {
    pub masks: Vec<u8>,
    pub begins: Vec<u32>,
    pub codes: Vec<u8>,
}

/// What is kept, row by row, checked.
pub(super) struct Rows<'a> {
    parts: &'a QuantizedSparseParts,
    pub width: CodeWidth,
    stride: usize,
    /// The first byte of the codes of each row.
    begins: Vec<usize>,
}

impl Rows<'_> {
    pub fn of(parts: &QuantizedSparseParts) -> Result<Rows<'_>> {
        let QuantizedSparseParts { rows, cols, bits, group, words, codes, scales, offsets } = parts;
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, reason));
        let width = width_of(FORMAT, *bits)?;
        check_factors(FORMAT, (*rows, *cols), (width, *group), scales, offsets)?;
        let stride = cols.div_ceil(64);
        if rows.checked_mul(stride) != Some(words.len()) {
            return refuse(format!("{} words for {rows} rows of {cols} bits", words.len()));
        }
        if cols % 64 != 0 && words.chunks(stride.max(1)).any(|row| row[stride - 1] >> (cols % 64) != 0) {
            return refuse(format!("a bit stands beyond the last of {cols} columns"));
        }
        let kept = |row: usize| words[row * stride..(row + 1) * stride].iter().map(|w| w.count_ones() as usize).sum::<usize>();
        let mut begins = vec![0];
        for row in 0..*rows {
            begins.push(begins[row] + row_bytes(width, kept(row)));
        }
        if begins[*rows] != codes.len() {
            let kept: usize = (0..*rows).map(kept).sum();
            return refuse(format!("{} bytes of codes for {kept} weights of {bits} bits", codes.len()));
        }
        Ok(Rows { parts, width, stride, begins })
    }

    /// The kept weights of a row.
    fn row(&self, row: usize) -> impl Iterator<Item = CodeAt> {
        let words = &self.parts.words[row * self.stride..(row + 1) * self.stride];
        let codes = &self.parts.codes[self.begins[row]..self.begins[row + 1]];
        let columns = words.iter().enumerate().flat_map(|(i, word)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| i * 64 + bit)
        });
        columns.enumerate().map(|(at, column)| CodeAt { column, code: code_at(self.width, codes, at) })
    }

    /// The code that stands for 0 in the group of a column; none of minimums, where none does for certain.
    fn zero(&self, row: usize, column: usize) -> Option<u8> {
        match &self.parts.offsets {
            Offsets::Symmetric => Some(self.width.zero() as u8),
            Offsets::ZeroPoints(zeros) => {
                Some(zeros[row * (self.parts.cols / self.parts.group) + column / self.parts.group].cast_unsigned())
            }
            Offsets::Minimums(_) => None,
        }
    }
}

impl Rows<'_> {
    /// What slots of a row hold that there is not: a place and a code.
    fn zero_beyond(&self) -> (u8, u8) {
        match self.parts.offsets {
            Offsets::Symmetric => (0, self.width.zero() as u8),
            Offsets::ZeroPoints(_) => (0, 0),
            Offsets::Minimums(_) => (NO_PLACE, 0),
        }
    }

    /// Columns of a window.
    fn window(&self) -> usize {
        if matches!(self.parts.offsets, Offsets::Minimums(_)) { usize::from(NO_PLACE) } else { WINDOW }
    }
}

/// Columns of which x has a step in common.
pub(super) fn block_of(group: usize, cols: usize) -> usize {
    if group == cols || group % 64 == 0 { 64 } else { CODE_BLOCK }
}

/// The steps of some rows side by side.
#[derive(Default)]
struct Run {
    counts: Vec<[u8; 2]>,
    starts: Vec<u8>,
    steps: Vec<u8>,
}

impl Windows {
    pub fn of(rows: &Rows<'_>) -> Windows {
        let (all, cols, side) = (rows.parts.rows, rows.parts.cols, side_by_side());
        let block = block_of(rows.parts.group, cols);
        let mut kept = Vec::new();
        let (mut zero_begins, mut zeros) = (vec![0], Vec::new());
        for row in 0..all {
            let stands_for_0 = |at: &CodeAt| rows.zero(row, at.column) == Some(at.code);
            let (none, some): (Vec<CodeAt>, Vec<CodeAt>) = rows.row(row).partition(stands_for_0);
            zeros.extend(none.iter().map(|at| at.column as u32));
            zero_begins.push(zeros.len() as u32);
            kept.push(some);
        }
        let base = bases(kept.iter().map(Vec::len).sum::<usize>() * 1000 / (all * cols).max(1));
        let runs: Vec<Run> = (0..all.div_ceil(side))
            .into_par_iter()
            .map(|run| {
                let first = run * side;
                Run::of(rows, first, &kept[first..all.min(first + side)], base, block)
            })
            .collect();
        let mut windows = Windows { base, begins: vec![0], zero_begins, zeros, ..Windows::default() };
        let mut steps = Vec::new();
        for run in runs {
            windows.counts.extend(run.counts);
            windows.starts.extend(run.starts);
            windows.begins.push(windows.starts.len() as u32);
            steps.extend(run.steps);
        }
        windows.steps = Aligned::zeros(steps.len().div_ceil(4));
        windows.steps.bytes_mut()[..steps.len()].copy_from_slice(&steps);
        windows
    }
}

impl Run {
    fn of(rows: &Rows<'_>, first: usize, kept: &[Vec<CodeAt>], base: [u8; 4], block: usize) -> Run {
        let (cols, side, width) = (rows.parts.cols, side_by_side(), rows.width);
        let mut run = Run { counts: vec![[0; 2]; cols.div_ceil(block)], ..Run::default() };
        let window = rows.window();
        let reach = usize::from(base[3]) + window;
        let mut next = vec![0; kept.len()];
        // Where the row goes on that is furthest behind.
        while let Some(column) = kept.iter().zip(&next).filter_map(|(row, &at)| row.get(at).map(|at| at.column)).min() {
            let of = column / block;
            // Slots without a code name a column of their own block.
            let start = column.min((of + 1) * block - 1 - usize::from(base[3]));
            let at = run.steps.len();
            run.steps.resize(at + step_size(width, side), 0);
            let step = &mut run.steps[at..];
            for (lane, slot) in (0..side).flat_map(|lane| (0..4).map(move |slot| (lane, slot))) {
                let from = start + usize::from(base[slot]);
                let code = kept.get(lane).and_then(|row| row.get(next[lane]));
                let (place, code) = match code.filter(|at| (from..from + window).contains(&at.column)) {
                    Some(code) => {
                        next[lane] += 1;
                        ((code.column - from) as u8, code.code)
                    }
                    // Rows beyond the last have the factors 0.
                    None if lane < kept.len() => rows.zero(first + lane, column).map_or((NO_PLACE, 0), |zero| (0, zero)),
                    None => rows.zero_beyond(),
                };
                let slot = 4 * lane + slot;
                match width {
                    CodeWidth::Four => step[slot] = place | code << 4,
                    CodeWidth::Eight => {
                        step[slot / 2] |= place << (4 * (slot % 2));
                        step[2 * side + slot] = code;
                    }
                }
            }
            run.starts.push((start % block) as u8);
            run.counts[of][0] += 1;
            // Its last columns belong to the next block.
            if start % block + reach > block && of + 1 < run.counts.len() {
                run.counts[of + 1][1] += 1;
            }
        }
        run
    }
}

impl Masked {
    pub fn of(rows: &Rows<'_>) -> Masked {
        let (all, part, bytes) = (rows.parts.rows, part_of_mask(), part_of_mask() / 8);
        let parts = rows.parts.cols.div_ceil(part);
        let mut masked = Masked { masks: vec![0; all * parts * bytes], begins: vec![0], codes: Vec::new() };
        for row in 0..all {
            let mask = &mut masked.masks[row * parts * bytes..(row + 1) * parts * bytes];
            let mut codes: Vec<Vec<u8>> = vec![Vec::new(); parts];
            for CodeAt { column, code } in rows.row(row) {
                mask[column / 8] |= 1 << (column % 8);
                codes[column / part].push(code);
            }
            for codes in codes {
                let first = masked.codes.len();
                masked.codes.resize(first + bytes_of(rows.width, codes.len()), 0);
                codes.iter().enumerate().for_each(|(at, code)| put_code(rows.width, &mut masked.codes[first..], at, *code));
            }
            masked.begins.push(masked.codes.len() as u32);
        }
        masked.codes.resize(masked.codes.len() + CODE_SLACK, 0);
        masked
    }
}

/// The words of a mask, 64 columns each.
pub(super) fn words(mask: &Mask) -> Vec<u64> {
    (0..mask.rows()).flat_map(|row| mask.row_words(row)).copied().collect()
}
