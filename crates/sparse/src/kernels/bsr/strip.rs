//! Strips with blocks: a few rows of a block keep their sums of a few vectors of tokens in registers, so that what is loaded of x serves all of
//! them; a row of blocks walks as many columns at a time as a strip has in a cache.

// Vectors are named by their place, so that they stay in registers.
#![allow(clippy::needless_range_loop, clippy::int_plus_one)]

use super::slices::{Blocks, BsrSlices, Held, WideRun};
use crate::kernels::frame::{Rows, Sums, check};
use crate::kernels::simd::{Column, Isa, Portable, Scales, Simd, Value};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};
use std::ops::Range;

/// The same weight, for strips.
pub(crate) struct Tiles<'a, I, T>(pub(crate) BsrSlices<'a, I, T>);

/// Bytes of a strip that a row of blocks walks at a time: where four rows share what is loaded, the second cache is near enough.
const fn near(rows: usize) -> usize {
    if rows >= 4 { 256 << 10 } else { 32 << 10 }
}

impl<I: Column, T: Value> Sums for Tiles<'_, I, T> {
    fn dim(&self) -> (usize, usize) {
        Rows::dim(&self.0)
    }

    fn blocks(&self) -> &[u32] {
        self.0.parts
    }

    fn len(&self) -> usize {
        self.0.values.len()
    }

    fn widest(&self) -> usize {
        match Isa::current() {
            Isa::Avx512 => 128,
            Isa::Avx2 | Isa::Neon => 32,
            Isa::Portable => 16,
        }
    }

    fn add(&self, part: usize, x: &[f32], width: usize, sums: &mut [f32]) {
        let BsrSlices { cols, r, c, parts, ref scales, .. } = self.0;
        let rows = [parts[part] as usize, parts[part + 1] as usize];
        Tile { rows, lines: self.0.lines(part), blocks: &self.0, scaled: T::SCALED, cols, r, c, scales }.add_here(x, width, sums);
    }
}

/// A part of a weight; the names are those of [`BsrSlices`].
struct Tile<'a> {
    /// The first row of the part, and one past its last.
    rows: [usize; 2],
    /// The rows of blocks of the part.
    lines: Range<usize>,
    blocks: &'a dyn Blocks,
    /// Whether values have scales.
    scaled: bool,
    cols: usize,
    r: usize,
    c: usize,
    scales: &'a Scales<'a>,
}

impl Tile<'_> {
    fn add_here(&self, x: &[f32], width: usize, sums: &mut [f32]) {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is only ever current on a machine that has it.
            Isa::Avx512 => unsafe { self.add_avx512(x, width, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { self.add_avx2(x, width, sums) },
            _ => self.by_eights(Portable::<8>, Portable::<4>, x, width, sums),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn add_avx512(&self, x: &[f32], width: usize, sums: &mut [f32]) {
        let s = Zmm::new();
        match width {
            128 => self.add::<Zmm, 8, 2, 4, 4>(s, x, sums),
            64 => self.add::<Zmm, 4, 2, 4, 4>(s, x, sums),
            32 => self.add::<Zmm, 2, 2, 2, 2>(s, x, sums),
            16 => self.add::<Zmm, 1, 1, 1, 1>(s, x, sums),
            _ => self.add_avx2(x, width, sums),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn add_avx2(&self, x: &[f32], width: usize, sums: &mut [f32]) {
        self.by_eights(Ymm::new(), Xmm::new(), x, width, sums);
    }

    /// With eight lanes, or four for the narrowest strip.
    #[inline(always)]
    fn by_eights<Eight: Simd, Four: Simd>(&self, eight: Eight, four: Four, x: &[f32], width: usize, sums: &mut [f32]) {
        match width {
            32 if Eight::WIDE => self.add::<Eight, 4, 1, 2, 4>(eight, x, sums),
            16 => self.add::<Eight, 2, 1, 2, 2>(eight, x, sums),
            8 => self.add::<Eight, 1, 1, 1, 1>(eight, x, sums),
            4 => self.add::<Four, 1, 1, 1, 1>(four, x, sums),
            _ => unreachable!("no strip is {width} tokens wide here"),
        }
    }

    /// `N` vectors of tokens; eight rows, four, and fewer take `V8`, `V4` and `V1` of them at a time, which divide
    /// `N`. `x` is `(in, N * LANES)`, `sums` is `(rows of the part, N * LANES)` at least.
    #[inline(always)]
    fn add<S: Simd, const N: usize, const V8: usize, const V4: usize, const V1: usize>(&self, s: S, x: &[f32], sums: &mut [f32]) {
        let (cols, [first, end_of_part]) = (self.cols, self.rows);
        const { assert!(N % V8 == 0 && N % V4 == 0 && N % V1 == 0) };
        let width = N * S::LANES;
        check(x, cols, sums, end_of_part - first, width);
        let across = (near(self.r) / (4 * width * self.c)).max(1);
        let mut done = vec![0usize; self.lines.len()];
        let (columns, mut end) = (cols.div_ceil(self.c), 0);
        let mut held = Held::default();
        while end < columns {
            // What walks together has its scales in common.
            let group = end / self.scales.parts;
            end = (end + across).min(columns).min((group + 1).saturating_mul(self.scales.parts));
            for (line, done) in self.lines.clone().zip(&mut done) {
                let from = *done;
                *done += self.blocks.before(line, from, end);
                if from == *done {
                    continue;
                }
                let top = line * self.r;
                let sums = sums[(top - first) * width..].as_mut_ptr();
                for run in &self.blocks.wide_runs(line, from..*done, &mut held) {
                    let mut i = 0;
                    macro_rules! rows {
                        ($r:literal, $v:ident) => {
                            while i + $r <= run.height {
                                let mut scales = [None; $r];
                                for (r, scale) in scales.iter_mut().enumerate().filter(|_| self.scaled) {
                                    *scale = Some(self.scales.of::<i8>(top + i + r, group));
                                }
                                for v in (0..N).step_by($v) {
                                    // SAFETY: `i + $r` rows lie within the blocks, and with them within the part, for which `check` says that there
                                    // are sums; `v + $v` is `N` at most, as `$v` divides it; `Bsr` checked on its way in that blocks lie
                                    // within the columns, for each of which x has `width` numbers.
                                    unsafe { rows::<S, $r, $v>(s, run, width, &scales, (i, v), x.as_ptr(), sums) };
                                }
                                i += $r;
                            }
                        };
                    }
                    rows!(8, V8);
                    rows!(4, V4);
                    rows!(2, V1);
                    rows!(1, V1);
                }
            }
        }
    }
}

/// Rows `i..i + R` of a run meet `V` vectors of a strip, `line` tokens wide, from vector `v` on.
///
/// # Safety
/// The blocks have so many rows, and their values stand in the run. x has `line` numbers for each of their columns, `sums` as many for
/// each of their rows, and `line` is `v + V` vectors at least.
#[inline(always)]
unsafe fn rows<S: Simd, const R: usize, const V: usize>(
    s: S,
    run: &WideRun<'_>,
    line: usize,
    scales: &[Option<f32>; R],
    (i, v): (usize, usize),
    x: *const f32,
    sums: *mut f32,
) {
    if run.places.is_empty() {
        return;
    }
    let (height, size) = (run.height, run.height * run.width);
    // SAFETY: row `r` is below R, vector `v` below V, and column `j` one of the block at `place`, which the caller says are there; `values`
    // moves on by one block with each place, and a run has the values of all.
    unsafe {
        let to = sums.add(i * line + v * S::LANES);
        let x = x.add(v * S::LANES);
        let mut values = run.values.as_ptr().add(i);
        let mut acc = [[s.splat(0.0); V]; R];
        for r in 0..R {
            for v in 0..V {
                if scales[r].is_none() {
                    acc[r][v] = s.load(to.add(r * line + v * S::LANES));
                }
            }
        }
        macro_rules! column {
            ($x:expr, $values:expr) => {{
                let (x, values) = ($x, $values);
                let mut xs = [s.splat(0.0); V];
                for v in 0..V {
                    xs[v] = s.load(x.add(v * S::LANES));
                }
                for r in 0..R {
                    let value = s.splat(*values.add(r));
                    for v in 0..V {
                        acc[r][v] = s.fma(value, xs[v], acc[r][v]);
                    }
                }
            }};
        }
        for place in run.places {
            let x = x.add(place * line);
            if run.width == 1 {
                column!(x, values);
            } else {
                for j in 0..run.width {
                    column!(x.add(j * line), values.add(j * height));
                }
            }
            values = values.add(size);
        }
        for r in 0..R {
            for v in 0..V {
                let to = to.add(r * line + v * S::LANES);
                let sum = match scales[r] {
                    Some(scale) => s.fma(s.splat(scale), acc[r][v], s.load(to)),
                    None => acc[r][v],
                };
                s.store(to, sum);
            }
        }
    }
}
