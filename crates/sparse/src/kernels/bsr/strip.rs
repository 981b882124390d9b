//! Strips with blocks: a few rows of a block keep their sums of a few vectors of tokens in registers, so that what is loaded of x serves all of
//! them; a row of blocks walks as many columns at a time as a strip has in a cache.

// Vectors are named by their place, so that they stay in registers.
#![allow(clippy::needless_range_loop, clippy::int_plus_one)]

use super::slices::BsrSlices;
use crate::kernels::frame::{Rows, Sums, check};
use crate::kernels::simd::{Column, Isa, Portable, Scales, Simd, Value};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};

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
        let w = &self.0;
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is only ever current on a machine that has it.
            Isa::Avx512 => unsafe { add_avx512(w, part, x, width, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { add_avx2(w, part, x, width, sums) },
            _ => by_eights(Portable::<8>, Portable::<4>, w, part, x, width, sums),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn add_avx512<I: Column, T: Value>(w: &BsrSlices<'_, I, T>, part: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    let (s, tile) = (Zmm::new(), Tile { w, part });
    match width {
        128 => tile.add::<Zmm, 8, 2, 4, 4>(s, x, sums),
        64 => tile.add::<Zmm, 4, 2, 4, 4>(s, x, sums),
        32 => tile.add::<Zmm, 2, 2, 2, 2>(s, x, sums),
        16 => tile.add::<Zmm, 1, 1, 1, 1>(s, x, sums),
        _ => by_eights(Ymm::new(), Xmm::new(), w, part, x, width, sums),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn add_avx2<I: Column, T: Value>(w: &BsrSlices<'_, I, T>, part: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    by_eights(Ymm::new(), Xmm::new(), w, part, x, width, sums);
}

/// With eight lanes, or four for the narrowest strip.
#[inline(always)]
fn by_eights<Eight: Simd, Four: Simd, I: Column, T: Value>(
    eight: Eight,
    four: Four,
    w: &BsrSlices<'_, I, T>,
    part: usize,
    x: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    let tile = Tile { w, part };
    match width {
        32 => tile.add::<Eight, 4, 1, 2, 4>(eight, x, sums),
        16 => tile.add::<Eight, 2, 1, 2, 2>(eight, x, sums),
        8 => tile.add::<Eight, 1, 1, 1, 1>(eight, x, sums),
        4 => tile.add::<Four, 1, 1, 1, 1>(four, x, sums),
        _ => unreachable!("no strip is {width} tokens wide here"),
    }
}

/// A part of the weight.
struct Tile<'a, I, T> {
    w: &'a BsrSlices<'a, I, T>,
    part: usize,
}

impl<I: Column, T: Value> Tile<'_, I, T> {
    /// `N` vectors of tokens; eight rows, four, and fewer take `V8`, `V4` and `V1` of them at a time, which divide
    /// `N`. `x` is `(in, N * LANES)`, `sums` is `(rows of the part, N * LANES)` at least.
    #[inline(always)]
    fn add<S: Simd, const N: usize, const V8: usize, const V4: usize, const V1: usize>(&self, s: S, x: &[f32], sums: &mut [f32]) {
        let (w, first) = (self.w, self.w.parts[self.part] as usize);
        const { assert!(N % V8 == 0 && N % V4 == 0 && N % V1 == 0) };
        let width = N * S::LANES;
        check(x, w.cols, sums, w.parts[self.part + 1] as usize - first, width);
        let lines = w.lines(self.part);
        let across = (near(w.r) / (4 * width * w.c)).max(1);
        let mut done = vec![0usize; lines.len()];
        let (columns, mut end) = (w.cols.div_ceil(w.c), 0);
        // First columns of the blocks of a run, so that what meets them is compiled once for all types of columns.
        let mut places: Vec<usize> = Vec::new();
        let values = Blocks { scales: &w.scales, width };
        while end < columns {
            // What walks together has its scales in common.
            let group = end / w.scales.parts;
            end = (end + across).min(columns).min((group + 1).saturating_mul(w.scales.parts));
            for (line, done) in lines.clone().zip(&mut done) {
                let blocks = &w.columns[w.starts[line] as usize..w.starts[line + 1] as usize];
                let from = *done;
                *done += blocks[from..].iter().take_while(|c| c.index() < end).count();
                if from == *done {
                    continue;
                }
                let sums = sums[(line * w.r - first) * width..].as_mut_ptr();
                for run in w.runs(line, from, *done) {
                    places.clear();
                    places.extend(run.columns.iter().map(|column| column.index() * w.c));
                    let run = Places { height: run.height, width: run.width, places: &places, values: run.values };
                    let mut i = 0;
                    macro_rules! rows {
                        ($r:literal, $v:ident) => {
                            while i + $r <= run.height {
                                for v in (0..N).step_by($v) {
                                    // SAFETY: `i + $r` rows lie within the blocks, and with them within the part, for which `check` says that there
                                    // are sums; `v + $v` is `N` at most, as `$v` divides it; `Bsr` checked on its way in that blocks lie
                                    // within the columns, for each of which x has `width` numbers.
                                    unsafe { values.rows::<S, T, $r, $v>(s, &run, (line * w.r, group), (i, v), x.as_ptr(), sums) };
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

/// Some blocks of one row of blocks, all of them of the same shape, whose first columns are known.
struct Places<'a, T> {
    height: usize,
    width: usize,
    places: &'a [usize],
    values: &'a [T],
}

/// What blocks need to meet a strip.
struct Blocks<'a> {
    scales: &'a Scales<'a>,
    width: usize,
}

impl Blocks<'_> {
    /// Rows `i..i + R` of a run meet `V` vectors of the strip from vector `v` on.
    ///
    /// # Safety
    /// The blocks have so many rows, and their values stand in the run. x has `width` numbers for each of their columns, `sums` as many for
    /// each of their rows, and `width` is `v + V` vectors at least.
    #[inline(always)]
    unsafe fn rows<S: Simd, T: Value, const R: usize, const V: usize>(
        &self,
        s: S,
        run: &Places<'_, T>,
        (top, group): (usize, usize),
        (i, v): (usize, usize),
        x: *const f32,
        sums: *mut f32,
    ) {
        if run.places.is_empty() {
            return;
        }
        let width = self.width;
        let (height, size) = (run.height, run.height * run.width);
        // SAFETY: row `r` is below R, vector `v` below V, and column `j` one of the block at `place`, which the caller says are there; `values`
        // moves on by one block with each place, and a run has the values of all.
        unsafe {
            let to = sums.add(i * width + v * S::LANES);
            let x = x.add(v * S::LANES);
            let mut values = run.values.as_ptr().add(i);
            let mut acc = [[s.splat(0.0); V]; R];
            if !T::SCALED {
                for r in 0..R {
                    for v in 0..V {
                        acc[r][v] = s.load(to.add(r * width + v * S::LANES));
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
                        let value = s.splat((*values.add(r)).decode());
                        for v in 0..V {
                            acc[r][v] = s.fma(value, xs[v], acc[r][v]);
                        }
                    }
                }};
            }
            for place in run.places {
                let x = x.add(place * width);
                if run.width == 1 {
                    column!(x, values);
                } else {
                    for j in 0..run.width {
                        column!(x.add(j * width), values.add(j * height));
                    }
                }
                values = values.add(size);
            }
            for r in 0..R {
                let scale = self.scales.of::<T>(top + i + r, group);
                for v in 0..V {
                    let to = to.add(r * width + v * S::LANES);
                    let mut sum = acc[r][v];
                    if T::SCALED {
                        sum = s.fma(s.splat(scale), sum, s.load(to));
                    }
                    s.store(to, sum);
                }
            }
        }
    }
}
