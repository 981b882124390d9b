//! Rows in pairs, within tiles of columns.

use super::blocks::{Cut, block_of, blocks, check, check_starts};
use super::entries::{Entries, Weights};
use super::kept::Kept;
use super::op::{check_shapes, check_transpose};
use super::scale::Scaling;
use super::tile_csr::Columns;
use crate::kernels::{Epilogue, Pair, PairSlices, Value, apply_transpose, product};
use crate::mask::Mask;
use crate::storage::{Compress, LinearOp};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use rayon::prelude::*;

/// A weight whose rows stand in pairs, tile by tile of columns: the storage for products of 16 tokens and more.
///
/// In each tile, a row is paired with one that has as many weights there and shares as many columns as can be found quickly, so that
/// what is loaded of x serves both. Columns are indices within the tile, of 8 bits up to 256 columns and of 16 above. A tile and its
/// part of x stay in the first cache: 64 columns are for strips of 128 tokens, 128 for 64, 512 for 16.
///
/// # Invariants
/// - `tile` is a multiple of 64. `blocks` rises strictly from 0 to `rows`, by 1024 at most, and by an even number but for the last.
/// - `pairs` has, for each block and tile, half as many entries as the block has rows, rounded up. They name each row of the block once; where
///   the number is odd, the partner of one of them is the number of rows, and has no weights.
/// - `column_starts` and `value_starts` have one number a block and tile and one more, and rise from 0 by what the pairs list.
/// - A pair lists: `single` columns of each row in turn, `both` common columns, `rest` columns of the second row; values in the same
///   order, two (first row, second row) for each common column. No row has a column twice; all columns lie within their tile.
/// - There are two scales a pair if values have scales, else none; scales are finite and above 0.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{apply, Compress, LinearOp, TilePairs}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let op = TilePairs::<f32>::compress(&w, &Mask::from_fn(2, 3, |r, c| r != c)).unwrap();
/// assert_eq!(op.nnz(), 4); // a kept weight that is 0 is stored
/// assert_eq!(apply(&op, &array![[1., 10., 100.]]), array![[20., 300.]]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TilePairs<T = f32>(TilePairsParts<T>);

/// What a [`TilePairs`] is made of; its invariants stand there.
#[derive(Debug, Clone, PartialEq)]
pub struct TilePairsParts<T> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Columns of a tile.
    pub tile: usize,
    /// First row of each block, and one past the last row.
    pub blocks: Vec<u32>,
    /// First column of each block and tile, and one past the last.
    pub column_starts: Vec<u32>,
    /// First value of each block and tile, and one past the last.
    pub value_starts: Vec<u32>,
    /// The pairs, by block and tile.
    pub pairs: Vec<Pair>,
    /// Columns within their tile.
    pub columns: Columns,
    /// The values.
    pub values: Vec<T>,
    /// Factors of the values of the two rows of each pair; empty where values are floats.
    pub scales: Vec<f32>,
}

const FORMAT: &str = "tile-pairs";
/// Columns of a tile when nobody says how many.
const TILE: usize = 128;
/// Sums of so many rows and 128 tokens are half of a second cache of 1 MiB.
const CUT: Cut = Cut { longest: 1024, most_by_cost: 2, multiple: 2 };
/// Rows with as many weights that are looked at for a partner.
const LOOKED_AT: usize = 24;

impl<T: Value> TilePairs<T> {
    /// A weight `(out, in)` in tiles of `tile` columns.
    ///
    /// # Errors
    /// If the shapes differ, `tile` is no multiple of 64 from 64 to 32 768, there are 2³² weights or more, or a weight with a scale is not
    /// finite.
    pub fn with_tile(weight: &ArrayRef2<f32>, mask: &Mask, tile: usize, scaling: Scaling) -> Result<Self> {
        TilePairs::pack(&Kept::of(weight, mask), tile, scaling)
    }

    pub(super) fn pack(kept: &Kept<'_, T>, tile: usize, scaling: Scaling) -> Result<Self> {
        let (rows, cols) = kept.dim();
        kept.check_sizes(FORMAT)?;
        check_tile(tile)?;
        kept.check_scalable()?;
        let counts = kept.mask.row_counts();
        let blocks = blocks(rows, CUT, |r| counts[r]);
        let narrow = tile <= 256;
        let packed: Vec<Packed<T>> =
            blocks.par_windows(2).map(|b| Packed::block(kept, b[0] as usize..b[1] as usize, tile, scaling, narrow)).collect();
        let sum = |f: fn(&Packed<T>) -> usize| packed.iter().map(f).sum::<usize>();
        let mut parts = TilePairsParts {
            rows,
            cols,
            tile,
            blocks,
            column_starts: vec![0],
            value_starts: vec![0],
            pairs: Vec::with_capacity(sum(|p| p.pairs.len())),
            columns: Columns::with_capacity(narrow, sum(|p| p.columns.len())),
            values: Vec::with_capacity(sum(|p| p.values.len())),
            scales: Vec::with_capacity(sum(|p| p.scales.len())),
        };
        for p in packed {
            let (columns, values) = (parts.columns.len() as u32, parts.values.len() as u32);
            parts.column_starts.extend(p.ends.iter().map(|e| columns + e.0));
            parts.value_starts.extend(p.ends.iter().map(|e| values + e.1));
            parts.pairs.extend(p.pairs);
            parts.columns.append(p.columns);
            parts.values.extend(p.values);
            parts.scales.extend(p.scales);
        }
        Ok(TilePairs(parts))
    }

    /// A weight from its parts, checked.
    ///
    /// # Errors
    /// Names the first invariant that is broken, with the numbers.
    pub fn new(parts: TilePairsParts<T>) -> Result<Self> {
        parts.check()?;
        Ok(TilePairs(parts))
    }

    /// What it is made of.
    pub fn parts(&self) -> &TilePairsParts<T> {
        &self.0
    }

    /// The mask of what is stored.
    pub fn mask(&self) -> Mask {
        self.0.stored()
    }
}

fn check_tile(tile: usize) -> Result<()> {
    if tile == 0 || tile % 64 != 0 || tile > 1 << 15 {
        return Err(Error::invalid_option(
            FORMAT,
            format!("tiles of {tile} columns, where multiples of 64 up to 32768 are possible"),
        ));
    }
    Ok(())
}

/// One block on its way.
struct Packed<T> {
    /// Ends of the columns and values of each tile.
    ends: Vec<(u32, u32)>,
    pairs: Vec<Pair>,
    columns: Columns,
    values: Vec<T>,
    scales: Vec<f32>,
}

impl<T: Value> Packed<T> {
    fn block(from: &Kept<'_, T>, rows: std::ops::Range<usize>, tile: usize, scaling: Scaling, narrow: bool) -> Self {
        let mask = from.mask;
        let kept: usize = rows.clone().map(|r| mask.row_words(r).iter().map(|w| w.count_ones() as usize).sum::<usize>()).sum();
        let (columns, values) = (Columns::with_capacity(narrow, kept), Vec::with_capacity(kept));
        let mut packed = Packed { ends: Vec::new(), pairs: Vec::new(), columns, values, scales: Vec::new() };
        // One row more, without weights, for a row without a partner.
        let slots = rows.len().next_multiple_of(2);
        let row_scales: Vec<f32> = if T::SCALED && scaling == Scaling::Row {
            rows.clone().map(|r| from.scale_of_row(r)).collect()
        } else {
            vec![1.0; rows.len()]
        };
        let words = tile / 64;
        let mut bits = vec![0u64; slots * words];
        for first in (0..mask.cols()).step_by(tile) {
            bits.fill(0);
            for (slot, r) in rows.clone().enumerate() {
                let from = &mask.row_words(r)[first / 64..];
                let n = words.min(from.len());
                bits[slot * words..slot * words + n].copy_from_slice(&from[..n]);
            }
            let bits_of = |slot: u16| &bits[usize::from(slot) * words..][..words];
            for pair in pairs(&bits, words, slots) {
                let (a, b) = (bits_of(pair.first), bits_of(pair.second));
                let [ra, rb] = [pair.first, pair.second].map(|slot| rows.start + usize::from(slot));
                let mut scale = [1.0f32; 2];
                if T::SCALED {
                    for (scale, (slot, bits, row)) in scale.iter_mut().zip([(pair.first, a, ra), (pair.second, b, rb)]) {
                        *scale = match scaling {
                            Scaling::Row => row_scales.get(usize::from(slot)).copied().unwrap_or(1.0),
                            Scaling::Tile => from.scale(row, ones(bits.iter().copied()).map(|c| first + c)),
                        };
                    }
                    packed.scales.extend(scale);
                }
                let value = |row: usize, c: usize, scale: f32| from.value(row, first + c, scale);
                let only_a = ones(a.iter().zip(b).map(|(a, b)| a & !b));
                let mut only_b = ones(a.iter().zip(b).map(|(a, b)| b & !a));
                for ca in only_a {
                    // The second row has no fewer weights than the first.
                    let Some(cb) = only_b.next() else { unreachable!("the first row of a pair has more weights") };
                    packed.columns.push(ca);
                    packed.columns.push(cb);
                    packed.values.push(value(ra, ca, scale[0]));
                    packed.values.push(value(rb, cb, scale[1]));
                }
                for c in ones(a.iter().zip(b).map(|(a, b)| a & b)) {
                    packed.columns.push(c);
                    packed.values.push(value(ra, c, scale[0]));
                    packed.values.push(value(rb, c, scale[1]));
                }
                for c in only_b {
                    packed.columns.push(c);
                    packed.values.push(value(rb, c, scale[1]));
                }
                packed.pairs.push(pair);
            }
            packed.ends.push((packed.columns.len() as u32, packed.values.len() as u32));
        }
        packed
    }
}

/// Pairs rows with as many weights that share many columns, and orders the pairs by their loops.
fn pairs(bits: &[u64], words: usize, slots: usize) -> Vec<Pair> {
    let row = |slot: u16| &bits[usize::from(slot) * words..][..words];
    let counts: Vec<u32> = bits.chunks_exact(words.max(1)).map(|row| row.iter().map(|w| w.count_ones()).sum()).collect();
    let mut left: Vec<u16> = (0..slots).map(|slot| slot as u16).collect();
    left.sort_by_key(|&slot| counts[usize::from(slot)]);
    let mut taken = vec![false; slots];
    let mut pairs = Vec::with_capacity(slots / 2);
    for (i, &first) in left.iter().enumerate() {
        if std::mem::replace(&mut taken[usize::from(first)], true) {
            continue;
        }
        let count = counts[usize::from(first)];
        let mut best: Option<(u16, u32)> = None;
        for &other in left[i + 1..].iter().filter(|&&o| !taken[usize::from(o)]).take(LOOKED_AT) {
            if best.is_some() && counts[usize::from(other)] != count {
                break;
            }
            let both = row(first).iter().zip(row(other)).map(|(a, b)| (a & b).count_ones()).sum();
            if best.is_none_or(|(_, most)| both > most) {
                best = Some((other, both));
            }
            // None shares more than all.
            if both == count {
                break;
            }
        }
        let Some((second, both)) = best else { unreachable!("the number of rows is even") };
        taken[usize::from(second)] = true;
        let (single, rest) = (count - both, counts[usize::from(second)] - count);
        pairs.push(Pair { first, second, single: single as u16, both: both as u16, rest: rest as u16 });
    }
    pairs.sort_by_key(|p| (p.single, p.rest, p.both));
    pairs
}

/// The places of the bits that are set, lowest first.
fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = usize> {
    words.enumerate().flat_map(|(i, mut word)| {
        std::iter::from_fn(move || {
            let bit = word.trailing_zeros() as usize;
            (word != 0).then(|| {
                word &= word - 1;
                64 * i + bit
            })
        })
    })
}

impl<T: Value> TilePairsParts<T> {
    fn tiles(&self) -> usize {
        self.cols.div_ceil(self.tile)
    }

    fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::invalid_option(FORMAT, reason));
        let TilePairsParts { rows, cols, tile, ref blocks, ref pairs, ref scales, .. } = *self;
        check_tile(tile)?;
        check(FORMAT, blocks, rows, CUT.longest)?;
        if let Some(b) = blocks[..blocks.len() - 1].iter().find(|b| *b % 2 != 0) {
            return refuse(format!("a block begins at row {b}, which is odd"));
        }
        if matches!(self.columns, Columns::Narrow(_)) && tile > 256 {
            return refuse(format!("tiles of {tile} columns with indices for 256"));
        }
        let (tiles, lists) = (self.tiles(), (blocks.len() - 1).checked_mul(self.tiles()));
        let all = rows.div_ceil(2).checked_mul(tiles);
        let (Some(lists), Some(all)) = (lists, all) else { return refuse(format!("{rows} rows of {tiles} tiles are too many")) };
        check_starts(FORMAT, &self.column_starts, lists, self.columns.len())?;
        check_starts(FORMAT, &self.value_starts, lists, self.values.len())?;
        if pairs.len() != all || scales.len() != if T::SCALED { 2 * all } else { 0 } {
            return refuse(format!("{} pairs and {} scales for {rows} rows of {tiles} tiles", pairs.len(), scales.len()));
        }
        if let Some(scale) = scales.iter().find(|s| !s.is_finite() || **s <= 0.0) {
            return refuse(format!("a scale is {scale}"));
        }
        let mut at = 0;
        let mut bits = Vec::new();
        for (b, block) in blocks.windows(2).enumerate() {
            let size = (block[1] - block[0]) as usize;
            let slots = size.next_multiple_of(2);
            for t in 0..tiles {
                let list = b * tiles + t;
                let here = &pairs[at..at + slots / 2];
                at += slots / 2;
                let listed = (here.iter().map(|p| p.columns()).sum(), here.iter().map(|p| p.values()).sum::<usize>());
                let found = |starts: &[u32]| (starts[list + 1] - starts[list]) as usize;
                if listed != (found(&self.column_starts), found(&self.value_starts)) {
                    return refuse(format!("block {b}, tile {t}: pairs list {} columns and {} values", listed.0, listed.1));
                }
                let mut seen = vec![false; slots];
                let mut column = self.column_starts[list] as usize;
                for pair in here {
                    for (slot, columns) in [pair.first, pair.second].into_iter().zip(self.columns_of(*pair, column)) {
                        let slot = usize::from(slot);
                        if slot >= slots || std::mem::replace(&mut seen[slot], true) {
                            return refuse(format!("block {b}, tile {t}: row {slot} of {size} comes twice, or is none"));
                        }
                        if slot >= size && !columns.is_empty() {
                            return refuse(format!("block {b}, tile {t}: {} weights of a row that is none", columns.len()));
                        }
                        let width = tile.min(cols - t * tile);
                        bits.clear();
                        bits.resize(width, false);
                        if let Some(c) = columns.iter().find(|&&c| c >= width || std::mem::replace(&mut bits[c], true)) {
                            return refuse(format!(
                                "block {b}, tile {t}: row {slot} has column {c} of {width} twice, or it is none"
                            ));
                        }
                    }
                    column += pair.columns();
                }
            }
        }
        Ok(())
    }

    /// The columns of both rows of a pair, whose list begins at `at`, in the order of their values.
    fn columns_of(&self, pair: Pair, at: usize) -> [Vec<usize>; 2] {
        let (single, both, rest) = (usize::from(pair.single), usize::from(pair.both), usize::from(pair.rest));
        let get = |i: usize| self.columns.get(at + i);
        let common = (2 * single..2 * single + both).map(get);
        let first = (0..single).map(|i| get(2 * i)).chain(common.clone()).collect();
        let last = (2 * single + both..2 * single + both + rest).map(get);
        let second = (0..single).map(|i| get(2 * i + 1)).chain(common).chain(last).collect();
        [first, second]
    }
}

impl<T: Value> Weights for TilePairsParts<T> {
    type Number = T;

    fn dim(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn group(&self) -> Option<usize> {
        Some(self.tile)
    }

    fn for_each(&self, mut f: impl FnMut(usize, usize, T, f32)) {
        let (tiles, mut at) = (self.tiles(), 0);
        let (mut column, mut value) = (0, 0);
        for block in self.blocks.windows(2) {
            for t in 0..tiles {
                for _ in 0..((block[1] - block[0]) as usize).div_ceil(2) {
                    let pair = self.pairs[at];
                    for (slot, columns) in self.columns_of(pair, column).into_iter().enumerate() {
                        let row = block[0] as usize + usize::from([pair.first, pair.second][slot]);
                        let scale = if T::SCALED { self.scales[2 * at + slot] } else { 1.0 };
                        // Values stand in twos until only the second row is left.
                        let twos = usize::from(pair.single) + usize::from(pair.both);
                        for (i, c) in columns.into_iter().enumerate() {
                            let place = if i < twos { 2 * i + slot } else { twos + i };
                            f(row, t * self.tile + c, self.values[value + place], scale);
                        }
                    }
                    column += pair.columns();
                    value += pair.values();
                    at += 1;
                }
            }
        }
    }

    fn for_each_of(&self, row: usize, mut f: impl FnMut(usize, T, f32)) {
        let (tiles, block) = (self.tiles(), block_of(&self.blocks, row));
        let pairs = block.len().div_ceil(2);
        let number = self.blocks.partition_point(|&b| (b as usize) < block.end) - 1;
        for t in 0..tiles {
            let list = number * tiles + t;
            let (mut column, mut value) = (self.column_starts[list] as usize, self.value_starts[list] as usize);
            let first = block.start.div_ceil(2) * tiles + t * pairs;
            for (at, pair) in self.pairs.iter().enumerate().skip(first).take(pairs) {
                for slot in (0..2).filter(|&s| block.start + usize::from([pair.first, pair.second][s]) == row) {
                    let scale = if T::SCALED { self.scales[2 * at + slot] } else { 1.0 };
                    let twos = usize::from(pair.single) + usize::from(pair.both);
                    for (i, &c) in self.columns_of(*pair, column)[slot].iter().enumerate() {
                        let place = if i < twos { 2 * i + slot } else { twos + i };
                        f(t * self.tile + c, self.values[value + place], scale);
                    }
                }
                column += pair.columns();
                value += pair.values();
            }
        }
    }
}

impl<T: Value> LinearOp for TilePairs<T> {
    fn format(&self) -> &str {
        FORMAT
    }

    fn shape(&self) -> (usize, usize) {
        self.0.dim()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        check_shapes(self, x, y, epilogue);
        let TilePairsParts { rows, cols, tile, blocks, column_starts, value_starts, pairs, columns, values, scales } = &self.0;
        let (rows, cols, tile) = (*rows, *cols, *tile);
        macro_rules! with {
            ($columns:ident) => {{
                let columns = $columns;
                let w = PairSlices { rows, cols, tile, blocks, column_starts, value_starts, pairs, columns, values, scales };
                product(&w, x, y, epilogue)
            }};
        }
        match columns {
            Columns::Narrow(c) => with!(c),
            Columns::Wide(c) => with!(c),
        }
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        check_transpose(self, dy, dx);
        let TilePairsParts { rows, cols, tile, blocks, column_starts, value_starts, pairs, columns, values, scales } = &self.0;
        let (rows, cols, tile) = (*rows, *cols, *tile);
        macro_rules! with {
            ($columns:ident) => {{
                let columns = $columns;
                let w = PairSlices { rows, cols, tile, blocks, column_starts, value_starts, pairs, columns, values, scales };
                apply_transpose(&w, dy, dx)
            }};
        }
        match columns {
            Columns::Narrow(c) => with!(c),
            Columns::Wide(c) => with!(c),
        }
    }

    fn to_dense(&self) -> Array2<f32> {
        self.0.dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        self.0.row(row, to);
    }

    fn entries(&self) -> Entries {
        self.0.entries()
    }

    fn nnz(&self) -> usize {
        self.0.values.len()
    }

    fn bytes(&self) -> usize {
        let TilePairsParts { blocks, column_starts, value_starts, pairs, columns, values, scales, .. } = &self.0;
        let lists = size_of_val(&blocks[..]) + size_of_val(&column_starts[..]) + size_of_val(&value_starts[..]);
        lists + size_of_val(&pairs[..]) + columns.bytes() + size_of_val(&values[..]) + size_of_val(&scales[..])
    }
}

impl<T: Value> Compress for TilePairs<T> {
    /// In tiles of 128 columns, with a scale a row where values have one.
    ///
    /// # Errors
    /// As [`TilePairs::with_tile`].
    fn compress(weight: &ArrayRef2<f32>, mask: &Mask) -> Result<Self> {
        TilePairs::with_tile(weight, mask, TILE, Scaling::Row)
    }
}
