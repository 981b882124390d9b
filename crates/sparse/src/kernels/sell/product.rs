//! Products with sliced ELLPACK: as many rows side by side as a vector has lanes.
//!
//! A gather from memory costs a cycle a number and more; a permutation of two registers brings a vector of numbers together in one. So x
//! goes by in a window of two registers, 32 columns with AVX-512, that moves on by one register a phase, and each lane takes its row's
//! next weights as they come into the window. A lane that is ahead may take what the window shows first, so that lanes need not have
//! as many weights in the same columns: in the long run they have, and the few weights that came too late stand in a list.
//!
//! ```text
//! for each phase:   here, next = x[phase], x[phase + 1]
//!     for each step of it, for each slice: sums += values · permute(here ‖ next, places)
//! ```
//!
//! The values of each slice of a block stand by themselves: a processor looks ahead in every stream that it sees, and with four of them in place
//! of one a weight from memory took an eighth to three tenths less time (Intel, family 6, model 207). In the caches it makes no difference.
//!
//! On Zen 4 a step takes 2.0 to 2.3 cycles for sixteen weights: permutation, shift and multiply-add share three pipes. There a masked expansion of
//! sixteen columns takes 3.0 to 3.3, and at half the weights it brings eight. Tried: places as bytes, widened at each step (3.0).

use super::slices::{LANES, SellSlices, Sums, TOKENS};
#[cfg(target_arch = "x86_64")]
use super::steps::{block_avx2, block_avx512};
use crate::kernels::frame::{Epilogue, Out, is_awake, tasks as share};
use crate::kernels::simd::{Expand, Isa, all_finite};
use ndarray::ArrayRef2;
use std::borrow::Cow;

/// Slots and tokens from which on the pool is worth waking, and from which on a product is shared out where it is awake.
const PARALLEL: usize = 1 << 16;
const AWAKE: usize = 1 << 14;

/// `y = x · Wᵀ`; see [`LinearOp::apply_with`](crate::storage::LinearOp::apply_with).
pub(crate) fn sell_product<T: Expand>(
    w: &SellSlices<'_, T>,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
) {
    let (tokens, cols) = x.dim();
    let x: Cow<'_, [f32]> = x.as_slice().map_or_else(|| x.iter().copied().collect::<Vec<f32>>().into(), Cow::Borrowed);
    // An empty slot that has a value multiplies some number of x by zero, so that x must be finite.
    let kernel = Kernel::of(w).filter(|_| w.packed || all_finite(&x)).unwrap_or(Kernel::Lanes);
    let (out, blocks) = (Out::new(y), w.blocks());
    let task = |task: usize| {
        // Blocks stand by falling weight; from both ends, so that the halves of the tasks cost the same.
        let block = if task % 2 == 0 { task / 2 } else { blocks - 1 - task / 2 };
        let mut token = 0;
        while token < tokens {
            let many = kernel.tokens(tokens - token);
            let x = &x[token * cols..(token + many) * cols];
            let mut sums = [[0.0; LANES]; TOKENS];
            kernel.run(w, block, many, x, &mut sums);
            // Many tokens together, so that those of a lane need not wait for one another; one alone, as fast as can be.
            let to = (out, token);
            // SAFETY: each task has its own block, whose rows are no other's, so no two write the same entries of y.
            unsafe {
                match many {
                    1 => w.finish::<1>(block, x, &mut sums, to, epilogue),
                    2 => w.finish::<2>(block, x, &mut sums, to, epilogue),
                    _ => w.finish::<TOKENS>(block, x, &mut sums, to, epilogue),
                }
            }
            token += many;
        }
    };
    let enough = if is_awake() { AWAKE } else { PARALLEL };
    share(blocks, w.masks.len() * w.lanes * tokens >= enough && rayon::current_num_threads() > 1, &task);
}

/// How a block is multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Kernel {
    /// Sixteen lanes, AVX-512.
    #[cfg(target_arch = "x86_64")]
    Sixteen,
    /// Eight lanes that all have a value, AVX2.
    #[cfg(target_arch = "x86_64")]
    Eight,
    /// One lane after another: any storage, on any machine.
    Lanes,
}

impl Kernel {
    /// The vectors that are as wide as the slices, if there are.
    fn of<T>(w: &SellSlices<'_, T>) -> Option<Kernel> {
        #[cfg(target_arch = "x86_64")]
        match (Isa::current(), w.lanes) {
            (Isa::Avx512, 16) => return Some(Kernel::Sixteen),
            (Isa::Avx512 | Isa::Avx2, 8) if !w.packed => return Some(Kernel::Eight),
            _ => {}
        }
        None
    }

    /// Tokens that it multiplies at once of so many.
    fn tokens(self, left: usize) -> usize {
        match (self, left) {
            #[cfg(target_arch = "x86_64")]
            (Kernel::Eight, _) => left.min(2),
            (_, 3) => 2,
            _ => left.min(TOKENS),
        }
    }

    /// Adds the products of a block to sums.
    fn run<T: Expand>(self, w: &SellSlices<'_, T>, block: usize, tokens: usize, x: &[f32], sums: &mut Sums) {
        assert!(x.len() == tokens * w.cols, "{} numbers for {tokens} tokens of {}", x.len(), w.cols);
        match self {
            // SAFETY: `of` chose it, so the machine has its instructions.
            #[cfg(target_arch = "x86_64")]
            Kernel::Sixteen => unsafe { block_avx512(w, block, tokens, x, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Eight => unsafe { block_avx2(w, block, tokens, x, sums) },
            Kernel::Lanes => w.in_time(block, |lane, column, value| {
                for token in 0..tokens {
                    sums[token][lane] += value.decode() * x[token * w.cols + column];
                }
            }),
        }
    }
}
