//! Products with blocks.
//!
//! The weights of a block stand column by column. One token: a vector of rows meets one number of x at a time, or, where blocks have one
//! row, a vector of columns meets as many numbers. Strips: see `strip`.

use super::slices::{BsrSlices, Run};
use super::strip::Tiles;
use crate::kernels::frame::{Epilogue, Scratch, Use, few_tokens, product};
use crate::kernels::simd::{Column, Isa, Portable, Simd, Value};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};
use ndarray::ArrayRef2;

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::storage::LinearOp::apply_with).
pub(crate) fn bsr_product<I: Column, T: Value>(
    w: &BsrSlices<'_, I, T>,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
) {
    if x.nrows() == 1 {
        few_tokens(w, x, y, epilogue, dots);
    } else {
        product(&Tiles(*w), x, y, epilogue);
    }
}

/// Adds the products of one part with one token to `sums`.
fn dots<I: Column, T: Value>(w: &BsrSlices<'_, I, T>, part: usize, x: &[f32], sums: &mut [f32]) {
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this set is only ever current on a machine that has it.
        Isa::Avx512 => unsafe { dots_avx512(w, part, x, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { dots_avx2(w, part, x, sums) },
        _ => dots_by((Portable::<16>, Portable::<8>, Portable::<4>), w, part, x, sums),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn dots_avx512<I: Column, T: Value>(w: &BsrSlices<'_, I, T>, part: usize, x: &[f32], sums: &mut [f32]) {
    dots_by((Zmm::new(), Ymm::new(), Xmm::new()), w, part, x, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn dots_avx2<I: Column, T: Value>(w: &BsrSlices<'_, I, T>, part: usize, x: &[f32], sums: &mut [f32]) {
    dots_by((Ymm::new(), Ymm::new(), Xmm::new()), w, part, x, sums);
}

/// x has all columns, `sums` the rows of the part.
#[inline(always)]
fn dots_by<Wide: Simd, Eight: Simd, Four: Simd, I: Column, T: Value>(
    isa: (Wide, Eight, Four),
    w: &BsrSlices<'_, I, T>,
    part: usize,
    x: &[f32],
    sums: &mut [f32],
) {
    let first = w.parts[part] as usize;
    assert!(x.len() == w.cols && sums.len() == w.parts[part + 1] as usize - first);
    if w.scales.grouped::<T>() {
        let mut own = Scratch::take(w.r.min(sums.len()), Use::Strips);
        for line in w.lines(part) {
            let top = line * w.r;
            for group in 0..w.scales.groups {
                let blocks = w.group(line, group);
                if blocks.is_empty() {
                    continue;
                }
                own.fill(0.0);
                for run in w.runs(line, blocks.start, blocks.end) {
                    // SAFETY: `Bsr` checked on its way in that blocks lie within the columns, of which x has all: asserted above.
                    unsafe { run_by(isa, &run, w.c, x, &mut own[..run.height]) };
                }
                for (i, own) in own.iter().enumerate().take(w.rows - top) {
                    sums[top - first + i] += w.scales.of::<T>(top + i, group) * own;
                }
            }
        }
        return;
    }
    for line in w.lines(part) {
        let top = line * w.r - first;
        for run in w.runs(line, 0, w.blocks_of(line)) {
            // SAFETY: as above.
            unsafe { run_by(isa, &run, w.c, x, &mut sums[top..top + run.height]) };
        }
    }
    if T::SCALED {
        sums.iter_mut().enumerate().for_each(|(i, sum)| *sum *= w.scales.of::<T>(first + i, 0));
    }
}

/// Adds the products of a run of blocks to the sums of its rows.
///
/// # Safety
/// The blocks lie within x, and the run has all of their values.
#[inline(always)]
unsafe fn run_by<Wide: Simd, Eight: Simd, Four: Simd, I: Column, T: Value>(
    (wide, eight, four): (Wide, Eight, Four),
    run: &Run<'_, I, T>,
    c: usize,
    x: &[f32],
    sums: &mut [f32],
) {
    let height = run.height;
    // SAFETY: the blocks of the caller, and `LANES` rows from `i` on are among their `height`.
    unsafe {
        let mut i = 0;
        if height == 1 {
            sums[0] += along(wide, run, c, x);
            i = 1;
        }
        while i + Wide::LANES <= height {
            down(wide, run, c, i, x, sums);
            i += Wide::LANES;
        }
        while i + Eight::LANES <= height {
            down(eight, run, c, i, x, sums);
            i += Eight::LANES;
        }
        while i + Four::LANES <= height {
            down(four, run, c, i, x, sums);
            i += Four::LANES;
        }
        for (i, sum) in sums.iter_mut().enumerate().skip(i) {
            let mut acc = [0.0f32; 2];
            for (block, column) in run.columns.iter().enumerate() {
                for j in 0..run.width {
                    let value = run.values[(block * run.width + j) * height + i].decode();
                    acc[(block + j) % 2] += value * x[column.index() * c + j];
                }
            }
            *sum += acc[0] + acc[1];
        }
    }
}

/// `LANES` numbers as a vector.
///
/// # Safety
/// `LANES` values can be read.
#[inline(always)]
unsafe fn load<S: Simd, T: Value>(s: S, at: *const T) -> S::V {
    let mut decoded = [0.0f32; 16];
    for (i, d) in decoded.iter_mut().enumerate().take(S::LANES) {
        // SAFETY: `i` is below `LANES`.
        *d = unsafe { (*at.add(i)).decode() };
    }
    s.read(&decoded)
}

/// Adds the products of rows `i..i + LANES` of a run.
///
/// # Safety
/// The rows lie within the blocks, which lie within x, and the run has all of their values.
#[inline(always)]
unsafe fn down<S: Simd, I: Column, T: Value>(s: S, run: &Run<'_, I, T>, c: usize, i: usize, x: &[f32], sums: &mut [f32]) {
    let size = run.height * run.width;
    // SAFETY: `block` is below the number of blocks, and `j` below their width: x has that column, and the run the values of that column and
    // these rows.
    unsafe {
        let mut acc = [s.splat(0.0); 4];
        // References to the sums would send them through memory.
        macro_rules! step {
            ($u:literal, $block:expr, $j:expr) => {{
                let (block, j) = ($block, $j);
                let x = s.splat(*x.get_unchecked(run.columns.get_unchecked(block).index() * c + j));
                acc[$u] = s.fma(x, load(s, run.values.as_ptr().add(block * size + j * run.height + i)), acc[$u]);
            }};
        }
        if run.width == 1 {
            let fours = run.columns.len() & !3;
            for block in (0..fours).step_by(4) {
                step!(0, block, 0);
                step!(1, block + 1, 0);
                step!(2, block + 2, 0);
                step!(3, block + 3, 0);
            }
            for block in fours..run.columns.len() {
                step!(0, block, 0);
            }
        } else {
            let fours = run.width & !3;
            for block in 0..run.columns.len() {
                for j in (0..fours).step_by(4) {
                    step!(0, block, j);
                    step!(1, block, j + 1);
                    step!(2, block, j + 2);
                    step!(3, block, j + 3);
                }
                for j in fours..run.width {
                    step!(0, block, j);
                }
            }
        }
        let sum = s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]));
        let to = &mut sums[i..i + S::LANES];
        s.write(to, s.add(s.read(to), sum));
    }
}

/// The product of a run of blocks of one row.
///
/// # Safety
/// The blocks lie within x, and the run has all of their values.
#[inline(always)]
unsafe fn along<S: Simd, I: Column, T: Value>(s: S, run: &Run<'_, I, T>, c: usize, x: &[f32]) -> f32 {
    let mut rest = 0.0f32;
    let mut lanes = [0.0f32; 16];
    // SAFETY: columns `j` lie within a block of one row, and their numbers within x, as do `LANES` from each multiple below `whole`.
    unsafe {
        let mut acc = [s.splat(0.0); 4];
        for (block, column) in run.columns.iter().enumerate() {
            let (values, x) = (run.values.as_ptr().add(block * run.width), x.as_ptr().add(column.index() * c));
            let whole = run.width / S::LANES * S::LANES;
            for j in (0..whole).step_by(S::LANES) {
                let product = (load(s, values.add(j)), s.load(x.add(j)));
                // The sums take turns.
                let next = s.fma(product.0, product.1, acc[3]);
                acc = [next, acc[0], acc[1], acc[2]];
            }
            for j in whole..run.width {
                rest += (*values.add(j)).decode() * *x.add(j);
            }
        }
        s.write(&mut lanes, s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])));
    }
    rest + lanes.iter().sum::<f32>()
}
