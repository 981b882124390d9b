//! Products with the transposed weight, from any storage: `dX = dY · W`.
//!
//! Strips as in `strip`: the numbers of a row's outputs are held in registers while its weights scatter them over the columns of a tile,
//! whose sums stay in a cache. Each sum adds its rows in the order of the storage, so neither the width of strips nor the number of
//! threads matters to it.

use crate::kernels::frame::{Epilogue, Out, RowLists, Scratch, Strip, Use, Walk, strips, tasks, turn_in, turn_out};
use crate::kernels::simd::{Isa, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};
use ndarray::ArrayRef2;

/// Multiplications from which on the pool is worth waking.
const PARALLEL: usize = 1 << 20;

/// `dx = dy · W` for `dy (tokens, out)` and `dx (tokens, in)` of any strides.
pub(crate) fn apply_transpose(w: &dyn Walk, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
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
            scatter(w, tile, columns.len(), dy, strip, &mut sums);
            // SAFETY: each task has its own strip and columns, so no two write the same entries of dx.
            unsafe { turn_out(&sums, strip, columns, out, &Epilogue::default()) };
        };
        tasks(group.len() * tiles, parallel, &task);
    }
}

/// Adds what a tile of columns gets from a strip `(out, width)` to sums `(columns of the tile, width)`.
fn scatter(w: &dyn Walk, tile: usize, columns: usize, dy: &[f32], strip: &Strip, sums: &mut [f32]) {
    let width = strip.width;
    assert!(dy.len() == w.size().0 * width && sums.len() == columns * width, "{} and {} for {width}", dy.len(), sums.len());
    let isa = Isa::current();
    let mut see = |row: (usize, f32), columns: &[u32], values: &[f32]| {
        let list = List { row, columns, values };
        // SAFETY: an instruction set is only ever current on a machine that has it; `Walk` promises columns of the tile, for each of which there are
        // `width` sums: asserted above.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => avx512(&list, dy, width, sums),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2(&list, dy, width, sums),
                _ => by_eights(Portable::<8>, Portable::<4>, &list, dy, width, sums),
            }
        }
    };
    let mut lists = RowLists::new(&mut see);
    w.walk(tile, &mut lists);
    lists.show();
}

/// Weights of one row.
struct List<'a> {
    /// Which, and the factor of its weights.
    row: (usize, f32),
    columns: &'a [u32],
    values: &'a [f32],
}

/// # Safety
/// As [`add`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
unsafe fn avx512(list: &List<'_>, dy: &[f32], width: usize, sums: &mut [f32]) {
    let s = Zmm::new();
    // SAFETY: the columns of the list are the caller's; each arm takes strips of its width.
    unsafe {
        match width {
            64 => add::<Zmm, 4>(s, list, dy, sums),
            32 => add::<Zmm, 2>(s, list, dy, sums),
            16 => add::<Zmm, 1>(s, list, dy, sums),
            _ => by_eights(Ymm::new(), Xmm::new(), list, dy, width, sums),
        }
    }
}

/// # Safety
/// As [`add`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
unsafe fn avx2(list: &List<'_>, dy: &[f32], width: usize, sums: &mut [f32]) {
    // SAFETY: the columns of the list are the caller's.
    unsafe { by_eights(Ymm::new(), Xmm::new(), list, dy, width, sums) }
}

/// With eight lanes, or four for the narrowest strip.
///
/// # Safety
/// As [`add`].
#[inline(always)]
unsafe fn by_eights<Eight: Simd, Four: Simd>(
    eight: Eight,
    four: Four,
    list: &List<'_>,
    dy: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    // SAFETY: the columns of the list are the caller's; each arm takes strips of its width.
    unsafe {
        match width {
            32 => add::<Eight, 4>(eight, list, dy, sums),
            16 => add::<Eight, 2>(eight, list, dy, sums),
            8 => add::<Eight, 1>(eight, list, dy, sums),
            4 => add::<Four, 1>(four, list, dy, sums),
            _ => unreachable!("no strip is {width} tokens wide here"),
        }
    }
}

/// Adds the outputs of one row, held in `V` vectors of tokens, to the columns of its weights.
///
/// # Safety
/// `sums` is `(columns of the tile, width)`, where `width` is `V * LANES`, and has these columns.
#[inline(always)]
unsafe fn add<S: Simd, const V: usize>(s: S, list: &List<'_>, dy: &[f32], sums: &mut [f32]) {
    let width = V * S::LANES;
    let (row, scale) = list.row;
    let dy = &dy[row * width..][..width];
    let mut held = [s.splat(0.0); V];
    for v in 0..V {
        let dy = s.read(&dy[v * S::LANES..]);
        held[v] = if scale == 1.0 { dy } else { s.fma(s.splat(scale), dy, s.splat(0.0)) };
    }
    // SAFETY: `sums` has `V` vectors for each column, and `v` is below `V`.
    unsafe {
        for (&column, &value) in list.columns.iter().zip(list.values) {
            let to = sums.as_mut_ptr().add(column as usize * width);
            let value = s.splat(value);
            for v in 0..V {
                let to = to.add(v * S::LANES);
                s.store(to, s.fma(value, held[v], s.load(to)));
            }
        }
    }
}
