//! Products with few tokens: the weights are read once, so what counts is how few bytes and instructions each needs.

use super::awake::is_awake;
use super::epilogue::{Epilogue, Out};
use super::rows::Rows;
use super::scratch::{Scratch, Use};
use super::tasks::tasks;
use crate::kernels::simd::Simd;
use ndarray::ArrayRef2;
use std::borrow::Cow;

/// Weights from which on the pool is worth waking.
const PARALLEL: usize = 1 << 17;
/// Weights from which on a product is shared out where the pool is awake.
const AWAKE: usize = 1 << 14;

/// Bytes between what is asked for and what is used: beyond the page, where the processor does not look by itself, and into the second
/// cache, which can wait for more lines at a time than the first (23 GB/s against 14 on one core; 16 KiB ahead gave 19).
pub(crate) const AHEAD: usize = 32 << 10;

/// Asks for a line of memory, for the second cache.
#[inline(always)]
pub(crate) fn ask(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, for any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Asks for a line of codes ahead of those that are read from there, one stream of them. Cores with vectors of sixteen lanes bring most from memory into
/// their first cache, 8 KiB ahead (37 GB/s, where 32 KiB ahead into the second gave 31 and two streams 28); those with eight, as [`AHEAD`] says.
#[inline(always)]
pub(crate) fn ask_codes<S: Simd>(from: *const u8) {
    #[cfg(target_arch = "x86_64")]
    if S::LANES == 16 {
        // SAFETY: a hint, for any address.
        return unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(from.wrapping_add(8 << 10).cast());
        };
    }
    ask(from.wrapping_add(AHEAD));
}

/// Runs `sums_of(w, block, x, sums)` over the blocks of `w`, in parallel, and stores what it finds: x is `(tokens, in)` without gaps, sums
/// are `(tokens, rows of the block)`, to be added to.
pub(crate) fn few_tokens<R: Rows>(
    w: &R,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
    sums_of: impl Fn(&R, usize, &[f32], &mut [f32]) + Sync,
) {
    in_blocks(w.blocks(), w.len(), x, y, epilogue, &|block, x, sums| sums_of(w, block, x, sums));
}

/// What is done with the sums of a block.
type SumsOf<'f> = dyn Fn(usize, &[f32], &mut [f32]) + Sync + 'f;

fn in_blocks(
    blocks: &[u32],
    weights: usize,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
    sums_of: &SumsOf<'_>,
) {
    let tokens = x.nrows();
    let x: Cow<'_, [f32]> = x.as_slice().map_or_else(|| x.iter().copied().collect::<Vec<f32>>().into(), Cow::Borrowed);
    let out = Out::new(y);
    let task = |block: usize| {
        let (first, end) = (blocks[block] as usize, blocks[block + 1] as usize);
        let mut sums = Scratch::take(tokens * (end - first), Use::Sums);
        sums.fill(0.0);
        sums_of(block, &x, &mut sums);
        for token in 0..tokens {
            // SAFETY: each task has its own rows, so no two write the same entries of y.
            unsafe { epilogue.put(out, token, first, &sums[token * (end - first)..][..end - first]) };
        }
    };
    let enough = if is_awake() { AWAKE } else { PARALLEL };
    tasks(blocks.len() - 1, weights >= enough && rayon::current_num_threads() > 1, &task);
}
