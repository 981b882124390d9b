//! Tokens rounded to codes.

use super::slices::BLOCK;
use crate::kernels::simd::{Isa, NEAR};
use ndarray::ArrayRef2;
use rayon::prelude::*;

/// The most planes.
pub(super) const PLANES: usize = 3;

/// What belongs to the numbers of a token that are rounded alike.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    /// What a code of the first plane stands for.
    pub step: f32,
    /// The sum of what all codes stand for.
    pub sum: f32,
    /// By plane, what takes the zero of the weight's codes away: `−zero · Σ codes`.
    pub zero: [i32; PLANES],
}

/// Some tokens that meet the weight together.
pub(super) struct Tile {
    pub first: usize,
    pub tokens: usize,
    /// Bytes or words, in the order of [`Order`].
    pub codes: Vec<u8>,
    /// `(blocks, tokens)`.
    pub steps: Vec<Step>,
    /// `−zero · Σ` of each four codes, in the order of [`Order::Rows`], if that is asked for.
    pub starts: Vec<i32>,
}

/// In which order codes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `(blocks, tokens, planes, block)`, with so many zeros before and behind each block, and [`NEAR`] bytes behind all if there are any.
    Blocks { pad: usize },
    /// `(tokens, planes, blocks, block)`, filled up to a multiple of so many columns, and with the sums of four.
    Rows { multiple: usize },
}

/// Numbers of which 32 have a common step: where the largest is beyond these, their products or steps may be.
const LEAST: f32 = 1e-30;
const MOST: f32 = 1e30;

/// How x is rounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounding {
    /// Whether to words, else to bytes.
    pub words: bool,
    pub planes: usize,
    /// The zero of the weight's codes.
    pub zero: i32,
    /// Numbers that have a step in common: 32 or 64.
    pub block: usize,
    pub order: Order,
}

impl Rounding {
    /// Bytes of a plane of a block.
    pub fn size(self) -> usize {
        if self.words { 2 * self.block } else { self.block }
    }

    /// Bytes from a plane of a block to the next in [`Order::Blocks`], and from a plane of a token to the next in [`Order::Rows`], of so many columns.
    pub fn stride(self, cols: usize) -> usize {
        match self.order {
            Order::Blocks { pad } => self.size() + 2 * pad,
            Order::Rows { multiple } => cols.next_multiple_of(multiple),
        }
    }

    /// Bytes of a tile.
    fn bytes(self, cols: usize, tokens: usize) -> usize {
        let planes = tokens * self.planes * self.stride(cols);
        match self.order {
            Order::Blocks { pad } => cols.div_ceil(self.block) * planes + if pad > 0 { NEAR } else { 0 },
            Order::Rows { .. } => planes,
        }
    }

    /// The largest code.
    fn most(self) -> f32 {
        if self.words { 32767.0 } else { 127.0 }
    }

    /// What a code of one plane is, in those of the plane before it: what that left is half a code at most.
    pub fn finer(self) -> f32 {
        0.5 / self.most()
    }

    /// Tokens in tiles of up to `most`; none if a number is infinite, none, or so large or small that its codes would be.
    pub fn tiles(self, x: &ArrayRef2<f32>, most: usize, parallel: bool) -> Option<Vec<Tile>> {
        let tokens = x.nrows();
        let tile = |i: usize| self.tile(x, i * most, most.min(tokens - i * most));
        let many = tokens.div_ceil(most);
        if parallel && many > 1 {
            return (0..many).into_par_iter().map(tile).collect();
        }
        (0..many).map(tile).collect()
    }

    fn tile(self, x: &ArrayRef2<f32>, first: usize, tokens: usize) -> Option<Tile> {
        let bytes = self.bytes(x.ncols(), tokens);
        let mut tile = Tile {
            first,
            tokens,
            codes: vec![0; bytes],
            steps: vec![Step::default(); x.ncols().div_ceil(self.block) * tokens],
            starts: Vec::new(),
        };
        let mut held = Vec::new();
        for t in 0..tokens {
            let row = x.row(first + t);
            let row = row.as_slice().unwrap_or_else(|| {
                held.clear();
                held.extend(row.iter());
                &held
            });
            if !self.token(row, t, &mut tile) {
                return None;
            }
        }
        if let Order::Rows { .. } = self.order {
            let sum = |four: &[u8; 4]| four.iter().map(|code| i32::from(*code as i8)).sum::<i32>();
            tile.starts = tile.codes.as_chunks().0.iter().map(|four| -self.zero * sum(four)).collect();
        }
        Some(tile)
    }

    /// Rounds a token of a tile; whether that is possible.
    fn token(self, x: &[f32], token: usize, tile: &mut Tile) -> bool {
        match Isa::current() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these sets are only ever current on a machine that has them, and the second has the first.
            Isa::Avx2 | Isa::Avx512 => unsafe { self.token_avx2(x, token, tile) },
            _ => self.token_by(x, token, tile),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn token_avx2(self, x: &[f32], token: usize, tile: &mut Tile) -> bool {
        self.token_by(x, token, tile)
    }

    #[inline(always)]
    fn token_by(self, x: &[f32], token: usize, tile: &mut Tile) -> bool {
        match self.block {
            BLOCK => self.blocks::<BLOCK>(x, token, tile),
            64 => self.blocks::<64>(x, token, tile),
            block => unreachable!("{block} numbers with a step in common"),
        }
    }

    #[inline(always)]
    fn blocks<const N: usize>(self, x: &[f32], token: usize, tile: &mut Tile) -> bool {
        let (planes, size, stride) = (self.planes, self.size(), self.stride(x.len()));
        for block in 0..x.len().div_ceil(N) {
            let (first, step) = match self.order {
                Order::Blocks { pad } => ((block * tile.tokens + token) * planes * stride + pad, stride),
                Order::Rows { .. } => (token * planes * stride + block * size, stride),
            };
            let to = &mut tile.codes[first..first + (planes - 1) * step + size];
            let numbers = &x[block * N..];
            let mut part = [0.0; N];
            match numbers.first_chunk::<N>() {
                Some(whole) => part = *whole,
                None => part[..numbers.len()].copy_from_slice(numbers),
            }
            let found = match self.words {
                false => self.block(&part, to, step, |to, codes| {
                    to.iter_mut().zip(codes).for_each(|(to, code)| *to = *code as i8 as u8);
                }),
                true => self.block(&part, to, step, |to, codes| {
                    to.as_chunks_mut::<2>().0.iter_mut().zip(codes).for_each(|(to, code)| *to = (*code as i16).to_le_bytes());
                }),
            };
            let Some(found) = found else { return false };
            tile.steps[block * tile.tokens + token] = found;
        }
        true
    }

    /// The codes of some numbers, plane by plane, of which each begins so many bytes behind the one before it.
    #[inline(always)]
    fn block<const N: usize>(
        self,
        x: &[f32; N],
        to: &mut [u8],
        next: usize,
        write: impl Fn(&mut [u8], &[i32; N]),
    ) -> Option<Step> {
        // As integers, since comparisons of floats pass over what is no number.
        let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
        if largest == 0.0 {
            return Some(Step::default());
        }
        if !(LEAST..=MOST).contains(&largest) {
            return None;
        }
        const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: what is added to it is rounded to an integer
        let inverse = self.most() / largest;
        let mut rest = [0.0; N];
        let mut step = Step { step: 1.0 / inverse, ..Step::default() };
        let mut sum = 0.0f64;
        let mut unit = 1.0f64;
        for plane in 0..self.planes {
            let mut codes = [0; N];
            for i in 0..N {
                let scaled = if plane == 0 { x[i] * inverse } else { rest[i] * (2.0 * self.most()) };
                let moved = scaled + ROUND;
                codes[i] = moved.to_bits().cast_signed() - ROUND.to_bits().cast_signed();
                rest[i] = scaled - (moved - ROUND);
            }
            write(&mut to[plane * next..][..self.size()], &codes);
            let all: i32 = codes.iter().sum();
            step.zero[plane] = -self.zero * all;
            sum += unit * f64::from(all);
            unit *= f64::from(self.finer());
        }
        step.sum = (f64::from(step.step) * sum) as f32;
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn planes_hold_what_the_ones_before_them_left() {
        let x = Array2::from_shape_fn((3, 70), |(t, c)| ((t * 70 + c) as f32 * 0.731).sin() * 10f32.powi(c as i32 % 5 - 2));
        for (words, planes, bound) in [(false, 1, 4e-3), (false, 3, 1.6e-7), (true, 1, 1.6e-5), (true, 2, 1e-7)] {
            let rounding = Rounding { words, planes, zero: 8, block: BLOCK, order: Order::Blocks { pad: 0 } };
            let tiles = rounding.tiles(&x, 2, false).unwrap();
            assert_eq!(tiles.iter().map(|t| (t.first, t.tokens)).collect::<Vec<_>>(), [(0, 2), (2, 1)]);
            for tile in &tiles {
                for (t, c) in (0..tile.tokens).flat_map(|t| (0..70).map(move |c| (t, c))) {
                    let at = (c / BLOCK) * tile.tokens + t;
                    let code = |plane: usize| {
                        let bytes = &tile.codes[(at * planes + plane) * rounding.size()..];
                        match words {
                            false => f64::from(bytes[c % BLOCK] as i8),
                            true => f64::from(i16::from_le_bytes([bytes[2 * (c % BLOCK)], bytes[2 * (c % BLOCK) + 1]])),
                        }
                    };
                    let value: f64 = (0..planes).map(|p| code(p) * f64::from(rounding.finer()).powi(p as i32)).sum();
                    let (value, right) = (value * f64::from(tile.steps[at].step), f64::from(x[[tile.first + t, c]]));
                    let largest = (c / BLOCK * BLOCK..(c / BLOCK * BLOCK + BLOCK).min(70))
                        .map(|c| x[[tile.first + t, c]].abs())
                        .fold(0.0, f32::max);
                    let error = (value - right).abs() / f64::from(largest);
                    assert!(error <= bound, "words {words}, {planes} planes, token {t}, column {c}: {error:.1e} of the largest");
                }
            }
        }
    }

    #[test]
    fn what_has_no_codes_is_refused() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e31, 1e-31] {
            let mut x = Array2::zeros((2, 40));
            x[[1, 35]] = odd;
            assert!(
                Rounding { words: false, planes: 1, zero: 8, block: BLOCK, order: Order::Blocks { pad: 0 } }
                    .tiles(&x, 4, false)
                    .is_none(),
                "{odd}"
            );
        }
        let zeros = Rounding { words: true, planes: 2, zero: 0, block: BLOCK, order: Order::Blocks { pad: 0 } }
            .tiles(&Array2::zeros((2, 40)), 4, false)
            .unwrap();
        assert!(zeros[0].codes.iter().all(|c| *c == 0) && zeros[0].steps.iter().all(|s| s.step == 0.0));
    }
}
