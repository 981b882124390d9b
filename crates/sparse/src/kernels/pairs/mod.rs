//! Strips with rows in pairs.
//!
//! Two rows that have as many weights in a tile of columns walk it together: first the columns that only one of them has, one of each
//! at a time, then those that both have, where what is loaded of x serves two products. Pairs stand in the order of the lengths of their
//! loops, so that the processor foresees the ends. Compared with rows one by one (on a core with two units for 512-bit products and
//! as many loads), this is worth a quarter at half the weights and a tenth at a tenth of them; the units want 1.5 products
//! a load to be busy, and single rows have less than one.
//!
//! Tried, and no faster there: four rows by the 15 patterns of who has a column (the loops are too short to be foreseen; with
//! tiles of 1024 columns, from the second cache, as fast at half the weights and slower below), whole rows against a strip in the second cache
//! (half as fast), tiles beyond two thirds of the first cache, four rows side by side without common columns.

use crate::kernels::frame::{RowLists, Sums, Walk, check};
use crate::kernels::simd::{Column, Isa, Portable, Simd, Value};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Xmm, Ymm, Zmm};

/// Two rows of a block in one tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Pair {
    /// The row within the block that has no more weights in the tile than the other.
    pub first: u16,
    /// The other row; one past the last row of the block where a row has no partner.
    pub second: u16,
    /// Columns that only the first row has; as many are taken of those that only the second has.
    pub single: u16,
    /// Columns that both have.
    pub both: u16,
    /// Further columns of the second row.
    pub rest: u16,
}

impl Pair {
    /// Columns that are listed for it.
    pub(crate) fn columns(self) -> usize {
        2 * usize::from(self.single) + usize::from(self.both) + usize::from(self.rest)
    }

    /// Weights of both rows.
    pub(crate) fn values(self) -> usize {
        2 * (usize::from(self.single) + usize::from(self.both)) + usize::from(self.rest)
    }
}

/// The parts of a checked [`TilePairs`](crate::storage::TilePairs).
#[derive(Clone, Copy)]
pub(crate) struct PairSlices<'a, I, T> {
    pub rows: usize,
    pub cols: usize,
    pub tile: usize,
    pub blocks: &'a [u32],
    pub column_starts: &'a [u32],
    pub value_starts: &'a [u32],
    pub pairs: &'a [Pair],
    pub columns: &'a [I],
    pub values: &'a [T],
    pub scales: &'a [f32],
}

/// Bytes of a strip's part of one tile that stay in a first cache of 32 KiB or more.
const FIRST_CACHE: usize = 32 << 10;

/// The widest strip of tiles of so many columns: what the kernels have registers for, and the first cache room.
pub(crate) fn widest_pairs(columns: usize) -> usize {
    let widths: &[usize] = match Isa::current() {
        Isa::Avx512 => &[128, 64, 32, 16],
        Isa::Avx2 => &[48, 32, 16],
        Isa::Neon => &[32, 16],
        Isa::Portable => &[16],
    };
    widths.iter().copied().find(|width| columns * width * 4 <= FIRST_CACHE).unwrap_or(8)
}

impl<I: Column, T: Value> Sums for PairSlices<'_, I, T> {
    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn blocks(&self) -> &[u32] {
        self.blocks
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn widest(&self) -> usize {
        widest_pairs(self.tile.min(self.cols))
    }

    fn add(&self, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is only ever current on a machine that has it.
            Isa::Avx512 => unsafe { avx512(self, block, x, width, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2(self, block, x, width, sums) },
            _ => by_eights(Portable::<8>, Portable::<4>, self, block, x, width, sums),
        }
    }
}

// SAFETY: `TilePairs` checks on its way in that columns lie within their tile; the row that is none has no weights, and is not shown.
unsafe impl<I: Column, T: Value> Walk for PairSlices<'_, I, T> {
    fn size(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn weights(&self) -> usize {
        self.values.len()
    }

    fn tiles_across(&self) -> usize {
        self.cols.div_ceil(self.tile)
    }

    fn start(&self, tile: usize) -> usize {
        tile * self.tile
    }

    #[inline(always)]
    fn walk(&self, tile: usize, lists: &mut RowLists<'_>) {
        let tiles = self.tiles_across();
        for block in 0..self.blocks.len() - 1 {
            let (first, end) = (self.blocks[block] as usize, self.blocks[block + 1] as usize);
            let pairs = (end - first).div_ceil(2);
            let (at, list) = (first.div_ceil(2) * tiles + tile * pairs, block * tiles + tile);
            let mut columns = &self.columns[self.column_starts[list] as usize..self.column_starts[list + 1] as usize];
            let mut values = &self.values[self.value_starts[list] as usize..self.value_starts[list + 1] as usize];
            for (i, pair) in self.pairs[at..at + pairs].iter().enumerate() {
                let (single, both) = (usize::from(pair.single), usize::from(pair.both));
                let (here, there) = columns.split_at(pair.columns());
                let (weights, later) = values.split_at(pair.values());
                (columns, values) = (there, later);
                let (singles, common) = here.split_at(2 * single);
                let (common, rest) = common.split_at(both);
                let (twos, last) = weights.split_at(2 * (single + both));
                for (which, slot) in [pair.first, pair.second].into_iter().enumerate() {
                    let row = first + usize::from(slot);
                    if row >= end {
                        continue;
                    }
                    lists.row(row, if T::SCALED { self.scales[2 * (at + i) + which] } else { 1.0 });
                    let own = singles[..].iter().skip(which).step_by(2).chain(common);
                    for (column, value) in own.zip(twos.iter().skip(which).step_by(2)) {
                        lists.weight(column.index(), value.decode());
                    }
                    if which == 1 {
                        rest.iter().zip(last).for_each(|(column, value)| lists.weight(column.index(), value.decode()));
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn avx512<I: Column, T: Value>(w: &PairSlices<'_, I, T>, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    let s = Zmm::new();
    match width {
        128 => tiles::<Zmm, I, T, 8, 1>(s, w, block, x, sums),
        64 => tiles::<Zmm, I, T, 4, 1>(s, w, block, x, sums),
        32 => tiles::<Zmm, I, T, 2, 2>(s, w, block, x, sums),
        16 => tiles::<Zmm, I, T, 1, 4>(s, w, block, x, sums),
        _ => avx2(w, block, x, width, sums),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
fn avx2<I: Column, T: Value>(w: &PairSlices<'_, I, T>, block: usize, x: &[f32], width: usize, sums: &mut [f32]) {
    let s = Ymm::new();
    match width {
        // Six vectors a row fill the registers; with four, a twentieth slower.
        48 => tiles::<Ymm, I, T, 6, 1>(s, w, block, x, sums),
        _ => by_eights(s, Xmm::new(), w, block, x, width, sums),
    }
}

/// With eight lanes, or four for the narrowest strip.
#[inline(always)]
fn by_eights<Eight: Simd, Four: Simd, I: Column, T: Value>(
    eight: Eight,
    four: Four,
    w: &PairSlices<'_, I, T>,
    block: usize,
    x: &[f32],
    width: usize,
    sums: &mut [f32],
) {
    match width {
        32 if Eight::WIDE => tiles::<Eight, I, T, 4, 1>(eight, w, block, x, sums),
        16 => tiles::<Eight, I, T, 2, 2>(eight, w, block, x, sums),
        8 => tiles::<Eight, I, T, 1, 4>(eight, w, block, x, sums),
        4 => tiles::<Four, I, T, 1, 4>(four, w, block, x, sums),
        _ => unreachable!("no strip is {width} tokens wide here"),
    }
}

/// `V` vectors of sums for each of two rows, and `U` such sets that take turns, so that products need not wait for one another. `x` is
/// `(in, V * LANES)`, `sums` is `(rows of the block + 1, V * LANES)`.
#[inline(always)]
fn tiles<S: Simd, I: Column, T: Value, const V: usize, const U: usize>(
    s: S,
    w: &PairSlices<'_, I, T>,
    block: usize,
    x: &[f32],
    sums: &mut [f32],
) {
    let width = V * S::LANES;
    let (first, end) = (w.blocks[block] as usize, w.blocks[block + 1] as usize);
    let (pairs, tiles) = ((end - first).div_ceil(2), w.cols.div_ceil(w.tile));
    check(x, w.cols, sums, end - first + 1, width);
    let to = sums.as_mut_ptr();
    for tile in 0..tiles {
        let x = x[tile * w.tile * width..].as_ptr();
        let at = first.div_ceil(2) * tiles + tile * pairs;
        let list = block * tiles + tile;
        let mut columns = w.columns[w.column_starts[list] as usize..].as_ptr();
        let mut values = w.values[w.value_starts[list] as usize..].as_ptr();
        for (i, pair) in w.pairs[at..at + pairs].iter().enumerate() {
            // SAFETY: `TilePairs` checked on its way in that a list has as many columns and values as its pairs say, that columns lie within
            // their tile, and rows within their block or one past it; x has `width` numbers for each column and `sums` for
            // each of these rows, says `check`.
            unsafe {
                let (a, b) = (to.add(usize::from(pair.first) * width), to.add(usize::from(pair.second) * width));
                let mut sa = [[s.splat(0.0); V]; U];
                let mut sb = [[s.splat(0.0); V]; U];
                if !T::SCALED {
                    for v in 0..V {
                        sa[0][v] = s.load(a.add(v * S::LANES));
                        sb[0][v] = s.load(b.add(v * S::LANES));
                    }
                }
                macro_rules! single {
                    ($u:expr) => {{
                        let (xa, xb) = (x.add((*columns).index() * width), x.add((*columns.add(1)).index() * width));
                        let (wa, wb) = (s.splat((*values).decode()), s.splat((*values.add(1)).decode()));
                        (columns, values) = (columns.add(2), values.add(2));
                        for v in 0..V {
                            sa[$u][v] = s.fma(wa, s.load(xa.add(v * S::LANES)), sa[$u][v]);
                        }
                        for v in 0..V {
                            sb[$u][v] = s.fma(wb, s.load(xb.add(v * S::LANES)), sb[$u][v]);
                        }
                    }};
                }
                macro_rules! both {
                    ($u:expr) => {{
                        let x = x.add((*columns).index() * width);
                        let (wa, wb) = (s.splat((*values).decode()), s.splat((*values.add(1)).decode()));
                        (columns, values) = (columns.add(1), values.add(2));
                        for v in 0..V {
                            let x = s.load(x.add(v * S::LANES));
                            sa[$u][v] = s.fma(wa, x, sa[$u][v]);
                            sb[$u][v] = s.fma(wb, x, sb[$u][v]);
                        }
                    }};
                }
                macro_rules! in_turns {
                    ($count:expr, $body:ident) => {
                        let count = usize::from($count);
                        for _ in 0..count / U {
                            for u in 0..U {
                                $body!(u);
                            }
                        }
                        for _ in 0..count % U {
                            $body!(0);
                        }
                    };
                }
                in_turns!(pair.single, single);
                in_turns!(pair.both, both);
                for _ in 0..pair.rest {
                    let x = x.add((*columns).index() * width);
                    let wb = s.splat((*values).decode());
                    (columns, values) = (columns.add(1), values.add(1));
                    for v in 0..V {
                        sb[0][v] = s.fma(wb, s.load(x.add(v * S::LANES)), sb[0][v]);
                    }
                }
                // References to the sums would send them through memory.
                macro_rules! finish {
                    ($to:ident, $acc:ident, $slot:literal) => {
                        for v in 0..V {
                            let mut sum = $acc[0][v];
                            for u in 1..U {
                                sum = s.add(sum, $acc[u][v]);
                            }
                            let to = $to.add(v * S::LANES);
                            if T::SCALED {
                                sum = s.fma(s.splat(w.scales[2 * (at + i) + $slot]), sum, s.load(to));
                            }
                            s.store(to, sum);
                        }
                    };
                }
                finish!(a, sa, 0);
                finish!(b, sb, 1);
            }
        }
    }
}
