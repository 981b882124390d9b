//! Codes turned back into the numbers that they stand for.

use super::slices::{BLOCK, CodeSlices, Offsets, Pattern, Width, place_of_step, side_by_side};
use crate::kernels::dense::{PanelNumbers, Panels, Threads, panels_product};
use crate::kernels::frame::Epilogue;
use crate::kernels::simd::{Codes, Isa, Portable};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Ymm, Zmm};
use ndarray::ArrayRef2;
use std::ops::Range;

/// As a dense weight, of which some columns of a panel are unpacked at a time. The bits are those of the packed dense weight.
pub(super) fn unpacked_product(w: &CodeSlices<'_>, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
    let numbers = |rows: Range<usize>, columns: Range<usize>, to: &mut [f32]| unpack(w, rows, columns, to);
    let panels = Panels { rows: w.rows, cols: w.cols, numbers: PanelNumbers::Made(&numbers) };
    panels_product(panels, x, y, epilogue, Threads::Pool);
}

/// Some rows as they were, `(rows, in)`, into `to`.
///
/// # Panics
/// If there are no such rows, or `to` has another length.
pub(crate) fn unpack_rows(w: &CodeSlices<'_>, rows: Range<usize>, to: &mut [f32]) {
    let side = side_by_side();
    assert!(rows.end <= w.rows && to.len() == rows.len() * w.cols, "{} x {}: rows {rows:?}", w.rows, w.cols);
    let mut wide = vec![0.0; w.cols * side];
    for run in rows.start / side..rows.end.div_ceil(side) {
        let first = run * side;
        unpack(w, first..first + side, 0..w.cols, &mut wide);
        for row in rows.start.max(first)..rows.end.min(first + side) {
            let to = &mut to[(row - rows.start) * w.cols..][..w.cols];
            to.iter_mut().zip(wide[row - first..].iter().step_by(side)).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Some columns of whole blocks of rows, column by column: `(columns, rows)`. The columns begin with a block. Rows that are none are zeros.
///
/// # Panics
/// If that is not so, or `to` has another length.
fn unpack(w: &CodeSlices<'_>, rows: Range<usize>, columns: Range<usize>, to: &mut [f32]) {
    w.check();
    let side = side_by_side();
    assert!(rows.start % side == 0 && rows.len() % side == 0 && to.len() == rows.len() * columns.len());
    assert!(columns.start % BLOCK == 0 && columns.end <= w.cols, "columns {columns:?} of {}", w.cols);
    let stride = rows.len();
    for (i, run) in (rows.start / side..rows.end / side).enumerate() {
        let to = &mut to[i * side..];
        if run < w.runs() && w.pattern != Pattern::Whole {
            unpack_steps(w, run, columns.clone(), to, stride);
        } else if run < w.runs() {
            unpack_run(w, run, columns.clone(), to, stride);
        } else {
            to.chunks_mut(stride).for_each(|to| to[..side].fill(0.0));
        }
    }
}

fn unpack_run(w: &CodeSlices<'_>, run: usize, columns: Range<usize>, to: &mut [f32], stride: usize) {
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this set is only ever current on a machine that has it.
        Isa::Avx512 => unsafe { unpack_avx512(w, run, columns, to, stride) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { unpack_avx2(w, run, columns, to, stride) },
        _ => unpack_by(Portable::<8>, w, run, columns, to, stride),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn unpack_avx512(w: &CodeSlices<'_>, run: usize, columns: Range<usize>, to: &mut [f32], stride: usize) {
    unpack_by(Zmm::new(), w, run, columns, to, stride);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn unpack_avx2(w: &CodeSlices<'_>, run: usize, columns: Range<usize>, to: &mut [f32], stride: usize) {
    unpack_by(Ymm::new(), w, run, columns, to, stride);
}

#[inline(always)]
fn unpack_by<S: Codes>(s: S, w: &CodeSlices<'_>, run: usize, columns: Range<usize>, to: &mut [f32], stride: usize) {
    let (blocks, groups) = (w.blocks(), w.groups());
    let size = w.size();
    assert!(run < w.runs() && S::LANES == side_by_side() && stride >= S::LANES);
    let even = s.splat(-w.width.zero() as f32);
    for c in columns.start / BLOCK..columns.end.div_ceil(BLOCK) {
        let from = &w.codes[(run * blocks + c) * size..][..size];
        let factor = (run * groups + c / w.group.max(1)) * S::LANES;
        // SAFETY: `check` asserted that there is a scale for each row of each group.
        let (scale, zero, least) = unsafe {
            let scale = w.scales.load(s, factor);
            match w.offsets {
                Offsets::Symmetric => (scale, even, None),
                Offsets::ZeroPoints(zeros) => (scale, s.mul(s.load_i8(zeros.as_ptr().add(factor)), s.splat(-1.0)), None),
                Offsets::Minimums(least) => (scale, even, Some(least.load(s, factor))),
            }
        };
        let here = c * BLOCK - columns.start;
        for (l, line) in from.chunks_exact(4 * S::LANES).enumerate() {
            // SAFETY: a line has four bytes a lane.
            let codes = unsafe { s.line(line.as_ptr()) };
            let mut put = |column: usize, code: S::V| {
                let at = (here + column) * stride;
                if at < to.len() {
                    let number = match least {
                        Some(least) => s.add(s.mul(scale, code), least),
                        None => s.mul(scale, s.add(code, zero)),
                    };
                    s.write(&mut to[at..], number);
                }
            };
            match w.width {
                Width::Four => {
                    for (j, at) in [0, 2, 4, 6, 1, 3, 5, 7].into_iter().enumerate() {
                        put(8 * l + j, s.half_byte(codes, at));
                    }
                }
                Width::Eight => {
                    for (j, at) in [0, 2, 1, 3].into_iter().enumerate() {
                        put(4 * l + j, s.byte(codes, at));
                    }
                }
            }
        }
    }
}

/// As [`unpack_run`], of a pattern: what it drops is 0.
fn unpack_steps(w: &CodeSlices<'_>, run: usize, columns: Range<usize>, to: &mut [f32], stride: usize) {
    let (side, blocks, groups, size) = (side_by_side(), w.blocks(), w.groups(), w.size());
    to.chunks_mut(stride).for_each(|to| to[..side].fill(0.0));
    for c in columns.start / BLOCK..columns.end.div_ceil(BLOCK) {
        let block = &w.codes[(run * blocks + c) * size..][..size];
        let factor = (run * groups + c / w.group.max(1)) * side;
        for row in 0..side {
            let from = &block[4 * row..];
            let factor = factor + row;
            let scale = w.scales.get(factor);
            for step in 0..w.pattern.steps() {
                for at in 0..4 {
                    let [(code, shift), (place, by)] = place_of_step(w.width, w.pattern, side, step, at);
                    let code = match w.width {
                        Width::Four => f32::from(from[code] >> shift & 15),
                        Width::Eight => f32::from(from[code].cast_signed()),
                    };
                    let column = c * BLOCK + step * w.pattern.columns() + column_of(w.pattern, from[place] >> by, at);
                    if column < columns.end {
                        let number = match w.offsets {
                            Offsets::Symmetric => scale * (code - w.width.zero() as f32),
                            Offsets::ZeroPoints(zeros) => scale * (code - f32::from(zeros[factor])),
                            Offsets::Minimums(least) => scale * code + least.get(factor),
                        };
                        to[(column - columns.start) * stride + row] = number;
                    }
                }
            }
        }
    }
}

/// The column within a step that the place of code `at` names.
pub(crate) fn column_of(pattern: Pattern, place: u8, at: usize) -> usize {
    match pattern {
        Pattern::Near(first) => usize::from(place & 3) + usize::from(first.to_le_bytes()[at]),
        Pattern::Eight => {
            let mut bits = place;
            (0..at).for_each(|_| bits &= bits.wrapping_sub(1));
            bits.trailing_zeros() as usize
        }
        Pattern::Whole | Pattern::Sixteen => usize::from(place & 15),
    }
}
