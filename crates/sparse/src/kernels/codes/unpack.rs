//! Codes turned back into the numbers that they stand for.

use super::slices::{BLOCK, CodeSlices, Offsets, Pattern, Width, named, side_by_side};
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
        if run < w.runs() {
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
    let (blocks, groups, size) = (w.blocks(), w.groups(), w.size());
    assert!(run < w.runs() && S::LANES == side_by_side() && stride >= S::LANES);
    for c in columns.start / BLOCK..columns.end.div_ceil(BLOCK) {
        let block = Block {
            lines: &w.codes[(run * blocks + c) * size..][..size],
            numbers: Numbers::of(s, w, (run * groups + c / w.group.max(1)) * S::LANES),
        };
        let to = &mut to[(c * BLOCK - columns.start) * stride..];
        match (w.pattern, w.width) {
            (Pattern::Whole, Width::Four) => block.whole::<4>(s, to, stride),
            (Pattern::Whole, Width::Eight) => block.whole::<8>(s, to, stride),
            (Pattern::Near(nearest), width) => block.steps::<4, false>(s, width, nearest, to, stride),
            (Pattern::Eight, width) => block.steps::<4, true>(s, width, 0, to, stride),
            (Pattern::Sixteen, width) => block.steps::<2, false>(s, width, 0, to, stride),
        }
    }
}

/// What codes of a block stand for.
#[derive(Clone, Copy)]
struct Numbers<V> {
    scale: V,
    /// To be added to codes before they are scaled.
    zero: V,
    /// To be added afterwards.
    least: Option<V>,
}

impl<V: Copy> Numbers<V> {
    #[inline(always)]
    fn of<S: Codes<V = V>>(s: S, w: &CodeSlices<'_>, factor: usize) -> Numbers<V> {
        let zero = s.splat(-w.width.zero() as f32);
        // SAFETY: `check` asserted that there is a scale for each row of each group.
        unsafe {
            let scale = w.scales.load(s, factor);
            match w.offsets {
                Offsets::Symmetric => Numbers { scale, zero, least: None },
                Offsets::ZeroPoints(zeros) => {
                    Numbers { scale, zero: s.mul(s.load_i8(zeros.as_ptr().add(factor)), s.splat(-1.0)), least: None }
                }
                Offsets::Minimums(least) => Numbers { scale, zero, least: Some(least.load(s, factor)) },
            }
        }
    }

    #[inline(always)]
    fn number<S: Codes<V = V>>(self, s: S, code: V) -> V {
        match self.least {
            Some(least) => s.add(s.mul(self.scale, code), least),
            None => s.mul(self.scale, s.add(code, self.zero)),
        }
    }
}

/// Some columns of rows side by side.
struct Block<'a, V> {
    lines: &'a [u8],
    numbers: Numbers<V>,
}

impl<V: Copy> Block<'_, V> {
    /// Line `at`.
    #[inline(always)]
    fn line<S: Codes<V = V>>(&self, s: S, at: usize) -> S::I {
        let line = &self.lines[at * 4 * S::LANES..][..4 * S::LANES];
        // SAFETY: a line has four bytes a lane.
        unsafe { s.line(line.as_ptr()) }
    }

    /// All columns, of codes of so many bits, into `to` as far as it goes.
    #[inline(always)]
    fn whole<const BITS: usize>(&self, s: impl Codes<V = V>, to: &mut [f32], stride: usize) {
        let columns = 32 / BITS;
        for (l, to) in to.chunks_mut(columns * stride).take(BITS).enumerate() {
            let codes = self.line(s, l);
            for (at, to) in to.chunks_mut(stride).enumerate() {
                let code = match BITS {
                    4 => s.half_byte(codes, [0, 2, 4, 6, 1, 3, 5, 7][at]),
                    _ => s.byte(codes, [0, 2, 1, 3][at]),
                };
                s.write(to, self.numbers.number(s, code));
            }
        }
    }

    /// All columns of a pattern of so many steps: what it drops is 0.
    #[inline(always)]
    fn steps<const STEPS: usize, const MASKS: bool>(
        &self,
        s: impl Codes<V = V>,
        width: Width,
        nearest: u32,
        to: &mut [f32],
        stride: usize,
    ) {
        let first = self.line(s, 0);
        for (step, to) in to.chunks_mut(BLOCK / STEPS * stride).take(STEPS).enumerate() {
            let places = named::<_, STEPS, MASKS>(s, first, nearest, step);
            let codes = self.line(s, 1 + if width == Width::Four { step / 2 } else { step });
            let mut numbers = [s.splat(0.0); 4];
            for (at, number) in numbers.iter_mut().enumerate() {
                let code = if width == Width::Four { s.half_byte(codes, 2 * at + step % 2) } else { s.byte(codes, at) };
                *number = self.numbers.number(s, code);
            }
            // Places are those of a window of sixteen columns.
            let begin = (step * (BLOCK / STEPS) % 16) as u8;
            for (column, to) in to.chunks_mut(stride).enumerate() {
                let mut all = s.splat(0.0);
                for (at, number) in numbers.into_iter().enumerate() {
                    all = s.where_is(places, at, begin + column as u8, number, all);
                }
                s.write(to, all);
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
