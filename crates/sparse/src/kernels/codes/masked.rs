//! Codes at a mask of no pattern, where many are kept: row by row, a bit for each column and the codes of those that have one.
//!
//! A vector holds the columns of a part of a mask: codes are spread over it, four a lane, and meet the numbers of x as they lie. Nothing is added across
//! lanes before the end of a row.

use super::input::{Rounding, Tile};
use super::slices::{Factors, Offsets, Width, side_by_side};
use super::windows::CodeAt;
use crate::kernels::frame::{AHEAD, ask};
use crate::kernels::simd::SparseCodes;
use std::ops::Range;

/// A weight in masks and codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskedSlices<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) width: Width,
    /// Columns of a group: a multiple of 32, or all.
    pub(crate) group: usize,
    /// Columns of which x has a step in common: 32 or 64.
    pub(crate) block: usize,
    /// `(out, parts)`: a bit a column, those of a part in so many bytes as lanes have half of.
    pub(crate) masks: &'a [u8],
    /// The first byte of the codes of each row, and the end of the last.
    pub(crate) begins: &'a [u32],
    /// Of each row part by part, in whole bytes each; [`CODE_SLACK`] bytes more.
    pub(crate) codes: &'a [u8],
    /// `(out, groups)`.
    pub(crate) scales: Factors<'a>,
    /// As scales.
    pub(crate) offsets: Offsets<'a>,
}

/// Bytes that may be read behind the last code.
pub(crate) const CODE_SLACK: usize = 80;

/// Columns of a part of a mask.
pub(crate) fn part_of_mask() -> usize {
    4 * side_by_side()
}

/// The bits of a part.
fn bits(masks: &[u8], at: usize, side: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..side / 2].copy_from_slice(&masks[at * (side / 2)..(at + 1) * (side / 2)]);
    u64::from_le_bytes(bytes)
}

/// Bytes of so many codes.
pub(crate) fn bytes_of(width: Width, codes: usize) -> usize {
    if width == Width::Four { codes.div_ceil(2) } else { codes }
}

impl MaskedSlices<'_> {
    /// Parts of a row.
    pub(crate) fn parts(&self) -> usize {
        self.cols.div_ceil(part_of_mask())
    }

    /// Groups of a row.
    pub(crate) fn groups(&self) -> usize {
        self.cols / self.group.max(1)
    }

    /// Blocks of rows.
    pub(crate) fn runs(&self) -> usize {
        self.rows.div_ceil(side_by_side())
    }

    /// # Panics
    /// If a list has not the length that the others need.
    pub(crate) fn check(&self) {
        let side = side_by_side();
        let (factors, codes) = (self.rows * self.groups(), self.begins.last().map_or(0, |end| *end as usize));
        assert_eq!((self.begins.len(), self.masks.len()), (self.rows + 1, self.rows * self.parts() * side / 2));
        assert_eq!(self.codes.len(), codes + CODE_SLACK, "codes of {} x {}", self.rows, self.cols);
        assert_eq!(self.scales.len(), factors, "scales of {} x {}", self.rows, self.cols);
        assert!(self.offsets.len().is_none_or(|len| len == factors), "offsets of {} x {}", self.rows, self.cols);
    }

    /// Calls `f` with each code of a row, in some parts of the mask.
    pub(crate) fn each_code(&self, row: usize, parts: Range<usize>, mut f: impl FnMut(CodeAt)) {
        let (side, all) = (side_by_side(), self.parts());
        let mut next = self.begins[row] as usize;
        for part in 0..parts.end {
            let mut mask = bits(self.masks, row * all + part, side);
            let bytes = bytes_of(self.width, mask.count_ones() as usize);
            if parts.contains(&part) {
                let codes = &self.codes[next..next + bytes];
                for at in 0..mask.count_ones() as usize {
                    let code = if self.width == Width::Four { codes[at / 2] >> (4 * (at % 2)) & 15 } else { codes[at] };
                    f(CodeAt { column: part * 4 * side + mask.trailing_zeros() as usize, code });
                    mask &= mask - 1;
                }
            }
            next += bytes;
        }
    }
}

/// A tile of tokens and a weight.
pub(super) struct MaskedPart<'a> {
    pub w: &'a MaskedSlices<'a>,
    pub rounding: Rounding,
    pub tile: &'a Tile,
}

impl MaskedPart<'_> {
    /// Writes the sums of some blocks of rows, `(blocks of rows, tokens, rows side by side)`.
    #[inline(always)]
    pub fn meet<S: SparseCodes>(&self, s: S, runs: Range<usize>, sums: &mut [f32]) {
        let MaskedPart { w, rounding, tile } = self;
        let (tokens, planes, bytes) = (tile.tokens, rounding.planes, rounding.stride(w.cols));
        assert!(S::LANES == side_by_side() && runs.end <= w.runs() && sums.len() == runs.len() * tokens * S::LANES);
        assert!(tile.codes.len() == tokens * planes * bytes && tile.starts.len() * 4 == tile.codes.len());
        assert!(bytes >= w.parts() * 4 * S::LANES && tile.steps.len() == w.cols.div_ceil(w.block) * tokens);
        w.check();
        sums.fill(0.0);
        let even = matches!(w.offsets, Offsets::Symmetric);
        for (run, to) in runs.zip(sums.chunks_exact_mut(tokens * S::LANES)) {
            for row in run * S::LANES..w.rows.min((run + 1) * S::LANES) {
                let to = &mut to[row % S::LANES..];
                // SAFETY: the lists of the weight have what `check` asserts and its constructor, the tile and the sums what was asserted above.
                unsafe {
                    match (w.width, planes, tokens, even) {
                        (Width::Four, 1, 1, true) => self.row::<S, 1, 1, false, true>(s, row, to),
                        (Width::Four, 1, 2, true) => self.row::<S, 1, 2, false, true>(s, row, to),
                        (Width::Four, 3, 1, true) => self.row::<S, 3, 1, false, true>(s, row, to),
                        (Width::Eight, 1, 1, true) => self.row::<S, 1, 1, true, true>(s, row, to),
                        (Width::Eight, 1, 2, true) => self.row::<S, 1, 2, true, true>(s, row, to),
                        (Width::Eight, 3, 1, true) => self.row::<S, 3, 1, true, true>(s, row, to),
                        (Width::Four, 1, 1, false) => self.row::<S, 1, 1, false, false>(s, row, to),
                        (Width::Four, 1, 2, false) => self.row::<S, 1, 2, false, false>(s, row, to),
                        (Width::Four, 3, 1, false) => self.row::<S, 3, 1, false, false>(s, row, to),
                        (Width::Eight, 1, 1, false) => self.row::<S, 1, 1, true, false>(s, row, to),
                        (Width::Eight, 1, 2, false) => self.row::<S, 1, 2, true, false>(s, row, to),
                        (Width::Eight, 3, 1, false) => self.row::<S, 3, 1, true, false>(s, row, to),
                        (width, planes, tokens, _) => unreachable!("{tokens} tokens in {planes} planes meet {width:?} bits"),
                    }
                }
            }
        }
    }

    /// A row meets `T` tokens in `P` planes, codes being bytes if `BYTES`, without offsets if `EVEN`: sums go to every lane-th place.
    ///
    /// # Safety
    /// The weight has that row, and the tile `T` tokens in `P` planes.
    #[inline(always)]
    unsafe fn row<S: SparseCodes, const P: usize, const T: usize, const BYTES: bool, const EVEN: bool>(
        &self,
        s: S,
        row: usize,
        to: &mut [f32],
    ) {
        let w = self.w;
        let (parts, groups) = (w.parts(), w.groups());
        let finer = s.splat(self.rounding.finer());
        let mut sums = [[s.splat(0.0); T]; 2];
        // SAFETY: the row has so many parts, whose codes follow one another from that of `begins` on, with slack behind the last.
        unsafe {
            let mut walk = Walk {
                mask: w.masks.as_ptr().add(row * parts * (S::LANES / 2)),
                codes: w.codes.as_ptr().add(*w.begins.get_unchecked(row) as usize),
                factor: row * groups,
                part: 0,
            };
            while walk.part + 2 <= parts {
                self.part::<S, P, T, BYTES, EVEN>(s, finer, &mut walk, &mut sums[0]);
                self.part::<S, P, T, BYTES, EVEN>(s, finer, &mut walk, &mut sums[1]);
            }
            if walk.part < parts {
                self.part::<S, P, T, BYTES, EVEN>(s, finer, &mut walk, &mut sums[0]);
            }
        }
        for (t, to) in to.chunks_mut(S::LANES).take(T).enumerate() {
            to[0] = s.sum(s.add(sums[0][t], sums[1][t]));
        }
    }

    /// A part of a row.
    ///
    /// # Safety
    /// It is where `walk` says.
    #[inline(always)]
    unsafe fn part<S: SparseCodes, const P: usize, const T: usize, const BYTES: bool, const EVEN: bool>(
        &self,
        s: S,
        finer: S::V,
        walk: &mut Walk,
        sums: &mut [S::V; T],
    ) {
        let (w, tile) = (self.w, self.tile);
        let (columns, plane) = (4 * S::LANES, self.rounding.stride(w.cols));
        // SAFETY: as promised by the caller; of the last part, blocks and groups are those that there are.
        unsafe {
            let mask = match S::LANES {
                16 => walk.mask.cast::<u64>().read_unaligned(),
                _ => u64::from(walk.mask.cast::<u32>().read_unaligned()),
            };
            ask(walk.codes.wrapping_add(AHEAD));
            let fill = if BYTES || !EVEN { 0 } else { 8 };
            let codes = s.expand::<BYTES>(walk.codes, mask, fill);
            let many = mask.count_ones() as usize;
            walk.codes = walk.codes.add(if BYTES { many } else { many.div_ceil(2) });
            walk.mask = walk.mask.add(S::LANES / 2);
            let first = walk.part * columns;
            walk.part += 1;
            let ones = if EVEN { s.none() } else { s.at_mask(mask, s.bytes(1)) };
            // One step of x, or two with half of the lanes each.
            let (block, group) = (first / w.block, first / w.group);
            let two = columns > w.block && first + w.block < w.cols;
            let scale = w.scales.at(walk.factor + group);
            let (other, scale_of_other) = match two {
                true => (block + 1, w.scales.at(walk.factor + (first + w.block) / w.group)),
                false => (block, scale),
            };
            for t in 0..T {
                let mut code = [s.splat(0.0); P];
                let mut met = [s.splat(0.0); P];
                for p in 0..P {
                    let at = (t * P + p) * plane + first;
                    let x = s.line(tile.codes.as_ptr().add(at));
                    let sum =
                        if BYTES { s.meet_signed(s.none(), codes, x) } else { s.closed(s.add_bytes(s.none(), codes, x), 0) };
                    // What bytes of 0 and codes of 8 met is taken away.
                    let sum = match EVEN || BYTES {
                        true => s.plus(sum, s.line(tile.starts.as_ptr().add(at / 4).cast())),
                        false => sum,
                    };
                    code[p] = s.float(sum);
                    if !EVEN {
                        met[p] = s.float(s.closed(s.add_bytes(s.none(), ones, x), 0));
                    }
                }
                for p in (0..P - 1).rev() {
                    code[p] = s.fma(code[p + 1], finer, code[p]);
                    met[p] = s.fma(met[p + 1], finer, met[p]);
                }
                let step = |block: usize| tile.steps.get_unchecked(block * T + t).step;
                let times = factor(s, two, scale * step(block), scale_of_other * step(other));
                sums[t] = s.fma(code[0], times, sums[t]);
                if !EVEN {
                    let (offset, offset_of_other) = match w.offsets {
                        Offsets::ZeroPoints(zeros) => {
                            let zero = |group: usize| -f32::from(*zeros.get_unchecked(walk.factor + group));
                            (scale * zero(group), scale_of_other * zero(if two { (first + w.block) / w.group } else { group }))
                        }
                        Offsets::Minimums(least) => {
                            let least = |group: usize| least.at(walk.factor + group);
                            (least(group), least(if two { (first + w.block) / w.group } else { group }))
                        }
                        Offsets::Symmetric => (0.0, 0.0),
                    };
                    let times = factor(s, two, offset * step(block), offset_of_other * step(other));
                    sums[t] = s.fma(met[0], times, sums[t]);
                }
            }
        }
    }
}

/// A factor of all lanes, or two of half of them each.
#[inline(always)]
fn factor<S: SparseCodes>(s: S, two: bool, first: f32, second: f32) -> S::V {
    if two { s.halves(s.splat(first), s.splat(second)) } else { s.splat(first) }
}

/// Where a row is.
struct Walk {
    mask: *const u8,
    codes: *const u8,
    /// The first factor of the row.
    factor: usize,
    part: usize,
}
