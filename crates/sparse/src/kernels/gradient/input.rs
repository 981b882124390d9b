//! Products with the transposed weight, from any storage: `dX = dY · W`.
//!
//! Strips as in `strip`: the numbers of a row's outputs are held in registers while its weights scatter them over the columns of a tile,
//! whose sums stay in a cache. Each sum adds its rows in the order of the storage, so neither the width of strips nor the number of
//! threads matters to it.

use crate::kernels::frame::{Epilogue, Out, Scratch, Strip, Use, Visit, Walk, strips, turn_in, turn_out};
use crate::kernels::simd::{Isa, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};
use ndarray::ArrayRef2;
use rayon::prelude::*;

/// Multiplications from which on the pool is worth waking.
const PARALLEL: usize = 1 << 20;

/// `dx = dy · W` for `dy (tokens, out)` and `dx (tokens, in)` of any strides.
pub(crate) fn pull<W: Walk>(w: &W, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
    let (tokens, (rows, cols)) = (dy.nrows(), w.size());
    if tokens == 0 || cols == 0 {
        return;
    }
    let threads = rayon::current_num_threads();
    let parallel = threads > 1 && tokens.saturating_mul(w.weights()) >= PARALLEL;
    let tiles = w.tiles_across();
    let most = match Isa::current() {
        Isa::Avx512 => 64,
        Isa::Avx2 | Isa::Neon => 32,
        Isa::Portable => 16,
    };
    // A storage of one tile gives every thread tokens of its own.
    let share = if parallel { tokens.div_ceil(threads.div_ceil(tiles)).next_power_of_two() } else { most };
    let out = Out::new(dx);
    for group in strips(tokens, share.clamp(4, most)).chunks(if parallel { threads } else { 1 }) {
        let turned: Vec<Scratch> = group
            .iter()
            .map(|strip| {
                let mut turned = Scratch::take(strip.width * rows, Use::Strips);
                turn_in(dy, strip, 0..rows, &mut turned);
                turned
            })
            .collect();
        let turned: Vec<&[f32]> = turned.iter().map(|t| &t[..]).collect();
        let task = |i: usize| {
            let (strip, dy, tile) = (&group[i / tiles], turned[i / tiles], i % tiles);
            let columns = w.start(tile)..if tile + 1 < tiles { w.start(tile + 1) } else { cols };
            let mut sums = Scratch::take(columns.len() * strip.width, Use::Sums);
            sums.fill(0.0);
            scatter(w, tile, dy, strip, &mut sums);
            // SAFETY: each task has its own strip and columns, so no two write the same entries of dx.
            unsafe { turn_out(&sums, strip, columns, out, &Epilogue::default()) };
        };
        if parallel {
            (0..group.len() * tiles).into_par_iter().for_each(task);
        } else {
            (0..group.len() * tiles).for_each(task);
        }
    }
}

/// Adds what a tile of columns gets from a strip `(out, width)` to sums `(columns of the tile, width)`.
fn scatter<W: Walk>(w: &W, tile: usize, dy: &[f32], strip: &Strip, sums: &mut [f32]) {
    assert!(dy.len() == w.size().0 * strip.width, "a strip of {} for {}", dy.len(), strip.width);
    // SAFETY: an instruction set is only ever current on a machine that has it; the length was checked just now, and that of the
    // sums is the caller's, who made them.
    unsafe {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512(w, tile, dy, strip.width, sums),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(w, tile, dy, strip.width, sums),
            _ => by_eights::<Portable<8>, Portable<4>, W>(w, tile, dy, strip.width, sums),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
unsafe fn avx512<W: Walk>(w: &W, tile: usize, dy: &[f32], width: usize, sums: &mut [f32]) {
    // SAFETY: the caller vouches for the instructions and the lengths.
    unsafe {
        match width {
            64 => Scatter::<Zmm, 4>::all(w, tile, dy, sums),
            32 => Scatter::<Zmm, 2>::all(w, tile, dy, sums),
            16 => Scatter::<Zmm, 1>::all(w, tile, dy, sums),
            _ => by_eights::<Ymm, Xmm, W>(w, tile, dy, width, sums),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
unsafe fn avx2<W: Walk>(w: &W, tile: usize, dy: &[f32], width: usize, sums: &mut [f32]) {
    // SAFETY: the caller vouches for the instructions and the lengths.
    unsafe { by_eights::<Ymm, Xmm, W>(w, tile, dy, width, sums) }
}

/// With eight lanes, or four for the narrowest strip.
///
/// # Safety
/// As [`Scatter::all`], for both.
#[inline(always)]
unsafe fn by_eights<Eight: Simd, Four: Simd, W: Walk>(w: &W, tile: usize, dy: &[f32], width: usize, sums: &mut [f32]) {
    // SAFETY: the caller vouches for the instructions and the lengths.
    unsafe {
        match width {
            32 => Scatter::<Eight, 4>::all(w, tile, dy, sums),
            16 => Scatter::<Eight, 2>::all(w, tile, dy, sums),
            8 => Scatter::<Eight, 1>::all(w, tile, dy, sums),
            4 => Scatter::<Four, 1>::all(w, tile, dy, sums),
            _ => unreachable!("no strip is {width} tokens wide here"),
        }
    }
}

/// The outputs of one row, on their way to its columns: `V` vectors of tokens.
struct Scatter<S: Simd, const V: usize> {
    dy: *const f32,
    sums: *mut f32,
    row: [S::V; V],
}

impl<S: Simd, const V: usize> Scatter<S, V> {
    /// # Safety
    /// The machine has the instructions of `S`; `dy` is `(out, V * LANES)`, `sums` is `(columns of the tile, V * LANES)`.
    #[inline(always)]
    unsafe fn all<W: Walk>(w: &W, tile: usize, dy: &[f32], sums: &mut [f32]) {
        // SAFETY: as promised by the caller.
        let mut this = Self { dy: dy.as_ptr(), sums: sums.as_mut_ptr(), row: [unsafe { S::splat(0.0) }; V] };
        w.walk(tile, &mut this);
    }
}

impl<S: Simd, const V: usize> Visit for Scatter<S, V> {
    #[inline(always)]
    fn row(&mut self, row: usize, scale: f32) {
        // SAFETY: `Walk` promises a row of dy; whoever made this vouched for the rest.
        unsafe {
            let dy = self.dy.add(row * V * S::LANES);
            for v in 0..V {
                let dy = S::load(dy.add(v * S::LANES));
                self.row[v] = if scale == 1.0 { dy } else { S::fma(S::splat(scale), dy, S::splat(0.0)) };
            }
        }
    }

    #[inline(always)]
    fn weight(&mut self, column: usize, value: f32) {
        // SAFETY: `Walk` promises a column of the tile; whoever made this vouched for the rest.
        unsafe {
            let to = self.sums.add(column * V * S::LANES);
            let value = S::splat(value);
            for v in 0..V {
                let to = to.add(v * S::LANES);
                S::store(to, S::fma(value, self.row[v], S::load(to)));
            }
        }
    }
}
