//! Numbers into the blocks of GGUF: the way back of [`Quant::decode`].
//!
//! A block that holds the numbers exactly is looked for among the scales that their range says, so that what was read from blocks and not changed
//! becomes blocks of the same numbers. Others are rounded to the nearest, as the reference of the format does it (`gguf-py`, `quants.py`): a scale of the block's largest
//! magnitude, or scale and minimum of its range. Scales fitted by least squares lose fewer squares and cut off the largest numbers of a block, and are worse
//! for the model. K types are searched for (`k_quants.rs`), and not made again to the bit.

use super::Quant;
use half::{bf16, f16};
use rayon::prelude::*;

/// Blocks of a task.
const TASK: usize = 1 << 10;

/// Codes of a type of blocks of 32: the least and the largest, and whether there is a minimum beside the scale.
#[derive(Clone, Copy)]
struct Grid {
    least: i32,
    most: i32,
    minimum: bool,
}

impl Grid {
    fn of(quant: Quant) -> Option<Grid> {
        let (least, most, minimum) = match quant {
            Quant::Q8_0 => (-127, 127, false),
            Quant::Q4_0 => (-8, 7, false),
            Quant::Q5_0 => (-16, 15, false),
            Quant::Q4_1 => (0, 15, true),
            Quant::Q5_1 => (0, 31, true),
            _ => return None,
        };
        Some(Grid { least, most, minimum })
    }
}

/// Scale, minimum and codes of a block.
struct Block {
    d: f16,
    m: f16,
    codes: [i32; 32],
}

impl Block {
    /// The numbers, by the operations of [`Quant::decode`].
    fn number(&self, grid: Grid, i: usize) -> f32 {
        let m = if grid.minimum { self.m.to_f32() } else { -0.0 };
        self.d.to_f32() * self.codes[i] as f32 + m
    }

    fn is(&self, grid: Grid, w: &[f32]) -> bool {
        (0..32).all(|i| self.number(grid, i) == w[i])
    }

    /// With this scale and minimum, each number at the code nearest to it.
    fn nearest(grid: Grid, d: f16, m: f16, w: &[f32]) -> Block {
        let (scale, least) = (d.to_f32(), if grid.minimum { m.to_f32() } else { 0.0 });
        let code = |w: f32| if scale == 0.0 { 0 } else { ((w - least) / scale).round() as i32 };
        let codes = std::array::from_fn(|i| code(w[i]).clamp(grid.least, grid.most));
        Block { d, m, codes }
    }

    /// As the reference rounds.
    fn rounded(grid: Grid, w: &[f32]) -> Block {
        let (low, high) = range(w);
        let (d, m) = match grid {
            Grid { minimum: true, most, .. } => ((high - low) / most as f32, low),
            // The largest magnitude gets the code that has no counterpart.
            Grid { least, most, .. } if most < -least => ((if -low > high { low } else { high }) / least as f32, 0.0),
            Grid { most, .. } => (high.max(-low) / most as f32, 0.0),
        };
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let code = |w: f32| {
            let x = (w - m) * inverse;
            // Bytes are rounded half away from zero, fewer bits half up.
            if grid.most == 127 { x.round() as i32 } else { (x - grid.least as f32 + 0.5) as i32 + grid.least }
        };
        let codes = std::array::from_fn(|i| code(w[i]).clamp(grid.least, grid.most));
        Block { d: f16::from_f32(d), m: f16::from_f32(m), codes }
    }

    /// The block that holds these numbers exactly, if there is one whose scale is the range over a whole number.
    fn exact(grid: Grid, w: &[f32]) -> Option<Block> {
        let (low, high) = range(w);
        let holds = |d: f16, m: f16| Some(Block::nearest(grid, d, m, w)).filter(|block| block.is(grid, w));
        // Few candidates hold the ends of the range, and only these are tried on all numbers.
        if grid.minimum {
            return (1..=grid.most).rev().find_map(|n| {
                near((high - low) / n as f32).into_iter().find_map(|d| {
                    let scale = d.to_f32();
                    (0..=grid.most - n).find_map(|first| {
                        let m = f16::from_f32(low - scale * first as f32);
                        let at = |code: i32| scale * code as f32 + m.to_f32();
                        if at(first) == low && at(first + n) == high { holds(d, m) } else { None }
                    })
                })
            });
        }
        let largest = if -low > high { low } else { high };
        (1..=-grid.least).rev().flat_map(|n| [-n, n]).filter(|n| *n <= grid.most).find_map(|n| {
            let d = f16::from_f32(largest / n as f32);
            if d.to_f32() * n as f32 == largest { holds(d, f16::ZERO) } else { None }
        })
    }

    fn write(&self, quant: Quant, to: &mut [u8]) {
        let grid = Grid::of(quant).unwrap_or(Grid { least: 0, most: 0, minimum: false });
        to[..2].copy_from_slice(&self.d.to_le_bytes());
        let mut at = 2;
        if grid.minimum {
            to[2..4].copy_from_slice(&self.m.to_le_bytes());
            at = 4;
        }
        if quant == Quant::Q8_0 {
            to[at..].iter_mut().zip(self.codes).for_each(|(to, code)| *to = code as i8 as u8);
            return;
        }
        let code = |i: usize| (self.codes[i] - grid.least) as u32;
        if matches!(quant, Quant::Q5_0 | Quant::Q5_1) {
            let fifth = (0..32).fold(0u32, |bits, i| bits | (code(i) >> 4) << i);
            to[at..at + 4].copy_from_slice(&fifth.to_le_bytes());
            at += 4;
        }
        for (i, to) in to[at..].iter_mut().enumerate() {
            *to = (code(i) & 15 | (code(i + 16) & 15) << 4) as u8;
        }
    }
}

/// The number of 16 bits that is nearest to one, and its neighbours: a range of rounded numbers says its scale so far.
fn near(d: f32) -> [f16; 3] {
    let bits = f16::from_f32(d).to_bits();
    [bits, bits.saturating_sub(1), bits + 1].map(f16::from_bits)
}

/// The least and the largest number.
fn range(w: &[f32]) -> (f32, f32) {
    w.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &w| (low.min(w), high.max(w)))
}

impl Quant {
    /// The blocks of some numbers: those that hold them exactly, where there are such, else the nearest by the rule of the format.
    ///
    /// # Errors
    /// The first number that the type does not hold: one that is not finite, or too large for a float or a scale of 16 bits.
    ///
    /// # Panics
    /// If the numbers are not whole blocks.
    pub fn encode(self, values: &[f32]) -> std::result::Result<Vec<u8>, f32> {
        let (numbers, size) = self.block();
        assert!(values.len() % numbers == 0, "{self}: {} numbers", values.len());
        let mut bytes = vec![0; values.len() / numbers * size];
        let tasks = bytes.par_chunks_mut(TASK * size).zip(values.par_chunks(TASK * numbers));
        tasks.try_for_each(|(bytes, values)| {
            bytes.chunks_exact_mut(size).zip(values.chunks_exact(numbers)).try_for_each(|(to, w)| self.encode_block(w, to))
        })?;
        Ok(bytes)
    }

    fn encode_block(self, w: &[f32], to: &mut [u8]) -> std::result::Result<(), f32> {
        if let Some(wrong) = w.iter().find(|w| !w.is_finite()) {
            return Err(*wrong);
        }
        let largest = || {
            let (low, high) = range(w);
            if -low > high { low } else { high }
        };
        if let Some(kind) = self.k() {
            return if kind.encode(w, to) { Ok(()) } else { Err(largest()) };
        }
        let Some(grid) = Grid::of(self) else {
            match self {
                Quant::F16 if f16::from_f32(w[0]).is_infinite() => return Err(w[0]),
                Quant::F16 => to.copy_from_slice(&f16::from_f32(w[0]).to_le_bytes()),
                Quant::BF16 if bf16::from_f32(w[0]).is_infinite() => return Err(w[0]),
                Quant::BF16 => to.copy_from_slice(&bf16::from_f32(w[0]).to_le_bytes()),
                _ => to.copy_from_slice(&w[0].to_le_bytes()),
            }
            return Ok(());
        };
        let mut block = Block::rounded(grid, w);
        if !block.is(grid, w) {
            block = Block::exact(grid, w).unwrap_or(block);
        }
        if block.d.is_infinite() || block.m.is_infinite() {
            return Err(largest());
        }
        block.write(self, to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    const BLOCKS: [Quant; 5] = [Quant::Q8_0, Quant::Q4_0, Quant::Q4_1, Quant::Q5_0, Quant::Q5_1];

    fn decoded(quant: Quant, bytes: &[u8], count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        quant.decode(bytes, &mut values);
        values
    }

    #[test]
    fn numbers_out_of_any_blocks_become_blocks_of_the_same_numbers() {
        let mut stream = Seed(5).stream("blocks");
        for quant in BLOCKS {
            let (_, size) = quant.block();
            let mut bytes: Vec<u8> = (0..200 * size).map(|_| stream.below(256) as u8).collect();
            for block in bytes.chunks_exact_mut(size) {
                let minimum = matches!(quant, Quant::Q4_1 | Quant::Q5_1);
                // A scale beside a minimum is above 0, and not so small that all numbers are much the same.
                let d = 0.01 * stream.normal();
                let (d, m) = (f16::from_f32(if minimum { d.abs() + 1e-3 } else { d }), f16::from_f32(0.1 * stream.normal()));
                block[..2].copy_from_slice(&d.to_le_bytes());
                if minimum {
                    block[2..4].copy_from_slice(&m.to_le_bytes());
                }
                if quant == Quant::Q8_0 {
                    // The reference never writes -128.
                    block[2..].iter_mut().for_each(|b| *b = (*b as i8).max(-127) as u8);
                }
            }
            let values = decoded(quant, &bytes, 200 * 32);
            let again = decoded(quant, &quant.encode(&values).unwrap(), 200 * 32);
            assert!(values == again, "{quant}");
        }
    }

    #[test]
    fn blocks_whose_codes_reach_both_ends_come_back_bit_by_bit() {
        let mut stream = Seed(6).stream("blocks");
        for quant in BLOCKS {
            let values = stream.normal_array(50, 32, 0.05).into_raw_vec_and_offset().0;
            let bytes = quant.encode(&values).unwrap();
            let again = quant.encode(&decoded(quant, &bytes, 50 * 32)).unwrap();
            assert!(bytes == again, "{quant}");
        }
    }

    #[test]
    fn rounding_is_off_by_half_a_step_at_most() {
        let mut stream = Seed(7).stream("blocks");
        let values = stream.normal_array(300, 32, 1.0).into_raw_vec_and_offset().0;
        for (quant, steps) in [(Quant::Q8_0, 254.0), (Quant::Q4_1, 15.0), (Quant::Q5_1, 31.0)] {
            let again = decoded(quant, &quant.encode(&values).unwrap(), values.len());
            for (w, r) in values.chunks(32).zip(again.chunks(32)) {
                let (low, high) = range(w);
                let step = if quant == Quant::Q8_0 { 2.0 * high.max(-low) / steps } else { (high - low) / steps };
                let worst = w.iter().zip(r).map(|(w, r)| (w - r).abs()).fold(0.0, f32::max);
                // The scale is rounded to 11 bits.
                assert!(worst <= 0.5 * step + 1e-3 * (high - low), "{quant}: {worst} of {step}");
            }
        }
    }

    #[test]
    fn zeros_stay_zero_where_there_is_no_minimum() {
        let mut values = Seed(8).stream("w").normal_array(20, 32, 0.3).into_raw_vec_and_offset().0;
        values.iter_mut().step_by(2).for_each(|w| *w = 0.0);
        values[..32].fill(0.0);
        for quant in [Quant::Q8_0, Quant::Q4_0, Quant::Q5_0, Quant::F16, Quant::BF16, Quant::F32] {
            let again = decoded(quant, &quant.encode(&values).unwrap(), values.len());
            assert!(values.iter().zip(&again).all(|(w, r)| *w != 0.0 || *r == 0.0), "{quant}");
        }
    }

    #[test]
    fn what_a_type_does_not_hold_is_named() {
        let mut values = vec![0.5f32; 32];
        values[7] = f32::NAN;
        assert!(Quant::Q4_0.encode(&values).unwrap_err().is_nan());
        values[7] = 1e30;
        assert_eq!(Quant::Q4_1.encode(&values), Err(1e30));
        assert_eq!(Quant::F16.encode(&values), Err(1e30));
        assert!(Quant::BF16.encode(&values).is_ok());
    }
}
