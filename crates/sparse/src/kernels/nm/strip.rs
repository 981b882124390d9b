//! Strips with N:M: neighbours walk their word together, first the columns that only one of the two has, then those that both have, where what is
//! loaded of x serves two products.

use super::slices::NmSlices;
use crate::kernels::frame::{Rows, Sums, check};
use crate::kernels::simd::{Isa, Portable, Simd, Value};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};

/// The same weight, for strips.
pub(crate) struct Neighbours<'a, T>(pub(crate) NmSlices<'a, T>);

impl<T: Value> Sums for Neighbours<'_, T> {
    fn dim(&self) -> (usize, usize) {
        Rows::dim(&self.0)
    }

    fn blocks(&self) -> &[u32] {
        self.0.blocks
    }

    fn len(&self) -> usize {
        Rows::len(&self.0)
    }

    fn widest(&self) -> usize {
        match Isa::current() {
            Isa::Avx512 => 128,
            Isa::Avx2 | Isa::Neon => 32,
            Isa::Portable => 16,
        }
    }

    fn add(&self, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is only ever current on a machine that has it.
            Isa::Avx512 => unsafe { avx512(&self.0, block, x, width, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2(&self.0, block, x, width, sums) },
            _ => by_eights(Portable::<8>, Portable::<4>, &self.0, block, x, width, sums),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn avx512<T: Value>(w: &NmSlices<'_, T>, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    let s = Zmm::new();
    match width {
        128 => words::<Zmm, T, 8, 1>(s, w, block, x, sums),
        64 => words::<Zmm, T, 4, 1>(s, w, block, x, sums),
        32 => words::<Zmm, T, 2, 2>(s, w, block, x, sums),
        16 => words::<Zmm, T, 1, 4>(s, w, block, x, sums),
        _ => avx2(w, block, x, width, sums),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn avx2<T: Value>(w: &NmSlices<'_, T>, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    by_eights(Ymm::new(), Xmm::new(), w, block, x, width, sums);
}

/// With eight lanes, or four for the narrowest strip.
#[inline(always)]
fn by_eights<Eight: Simd, Four: Simd, T: Value>(
    eight: Eight,
    four: Four,
    w: &NmSlices<'_, T>,
    block: usize,
    x: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    match width {
        32 if Eight::WIDE => words::<Eight, T, 4, 1>(eight, w, block, x, sums),
        16 => words::<Eight, T, 2, 2>(eight, w, block, x, sums),
        8 => words::<Eight, T, 1, 4>(eight, w, block, x, sums),
        4 => words::<Four, T, 1, 4>(four, w, block, x, sums),
        _ => unreachable!("no strip is {width} tokens wide here"),
    }
}

/// `V` vectors of sums for each of two neighbours, and `U` such sets that take turns, so that products need not wait for one another. `x` is
/// `(in, V * LANES)`, `sums` is `(rows of the block, V * LANES)` at least.
#[inline(always)]
fn words<S: Simd, T: Value, const V: usize, const U: usize>(
    s: S,
    w: &NmSlices<'_, T>,
    block: usize,
    x: &[f32],
    sums: &mut [f32],
) {
    let width = V * S::LANES;
    let (first, rows) = w.block(block);
    check(x, w.cols, sums, rows, width);
    let to = sums.as_mut_ptr();
    for word in 0..w.tiles() {
        let x = x[w.tile_start(word) * width..].as_ptr();
        let (run, count) = (w.run(block, word), w.count(word));
        let mut values = w.values[w.value(block, word)..].as_ptr();
        let (order, bits) = (&w.order[run..run + rows], &w.words[run..run + rows]);
        // The last of an odd number of rows has no neighbour: its sums of nothing go nowhere.
        for slot in (0..rows).step_by(2) {
            let alone = slot + 1 == rows;
            let (row_a, row_b) = (usize::from(order[slot]), usize::from(order[slot + usize::from(!alone)]));
            let (bits_a, bits_b) = (bits[slot], if alone { 0 } else { bits[slot + 1] });
            // SAFETY: `Nm` checked on its way in that runs have as many values as bits, that bits lie within the columns and rows within the
            // block; x has `width` numbers for each column and `sums` for each row of the block, says `check`.
            unsafe {
                let (a, b) = (to.add(row_a * width), to.add(row_b * width));
                let (va, vb) = (values, values.add(count));
                let mut sa = [[s.splat(0.0); V]; U];
                let mut sb = [[s.splat(0.0); V]; U];
                if !T::SCALED {
                    for v in 0..V {
                        sa[0][v] = s.load(a.add(v * S::LANES));
                        sb[0][v] = s.load(b.add(v * S::LANES));
                    }
                }
                macro_rules! take {
                    ($from:ident) => {{
                        let column = $from.trailing_zeros() as usize;
                        $from &= $from.wrapping_sub(1);
                        column
                    }};
                }
                macro_rules! value {
                    ($values:ident, $bits:ident, $column:expr) => {
                        s.splat((*$values.add(($bits & ((1u64 << $column) - 1)).count_ones() as usize)).decode())
                    };
                }
                macro_rules! add {
                    ($sum:ident, $u:expr, $weight:expr, $column:expr) => {{
                        let x = x.add($column * width);
                        for v in 0..V {
                            $sum[$u][v] = s.fma($weight, s.load(x.add(v * S::LANES)), $sum[$u][v]);
                        }
                    }};
                }
                let (mut both, mut only_a, mut only_b) = (bits_a & bits_b, bits_a & !bits_b, bits_b & !bits_a);
                macro_rules! single {
                    ($u:expr) => {{
                        let (ca, cb) = (take!(only_a), take!(only_b));
                        let (wa, wb) = (value!(va, bits_a, ca), value!(vb, bits_b, cb));
                        add!(sa, $u, wa, ca);
                        add!(sb, $u, wb, cb);
                    }};
                }
                macro_rules! both {
                    ($u:expr) => {{
                        let column = take!(both);
                        let (wa, wb) = (value!(va, bits_a, column), value!(vb, bits_b, column));
                        let x = x.add(column * width);
                        for v in 0..V {
                            let x = s.load(x.add(v * S::LANES));
                            sa[$u][v] = s.fma(wa, x, sa[$u][v]);
                            sb[$u][v] = s.fma(wb, x, sb[$u][v]);
                        }
                    }};
                }
                macro_rules! in_turns {
                    ($count:expr, $body:ident) => {
                        for _ in 0..$count / U {
                            for u in 0..U {
                                $body!(u);
                            }
                        }
                        for _ in 0..$count % U {
                            $body!(0);
                        }
                    };
                }
                let common = both.count_ones() as usize;
                if alone {
                    for _ in 0..count {
                        let column = take!(only_a);
                        add!(sa, 0, value!(va, bits_a, column), column);
                    }
                } else {
                    in_turns!(count - common, single);
                    in_turns!(common, both);
                }
                // References to the sums would send them through memory.
                macro_rules! finish {
                    ($to:ident, $acc:ident, $row:expr) => {
                        for v in 0..V {
                            let mut sum = $acc[0][v];
                            for u in 1..U {
                                sum = s.add(sum, $acc[u][v]);
                            }
                            let to = $to.add(v * S::LANES);
                            if T::SCALED {
                                sum = s.fma(s.splat(w.scales.at::<T>(first + $row, word)), sum, s.load(to));
                            }
                            s.store(to, sum);
                        }
                    };
                }
                if !alone {
                    finish!(b, sb, row_b);
                }
                finish!(a, sa, row_a);
                values = values.add(2 * count);
            }
        }
    }
}
