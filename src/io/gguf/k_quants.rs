//! The K types: blocks of 256 numbers in parts of 16 or 32, whose scales are small integers themselves.
//!
//! ```text
//! with minima      Q2_K (parts of 16), Q4_K, Q5_K (of 32)    w = (d · s) · q − (dmin · t)     s, t of 4, 6, 6 bits
//! without          Q3_K, Q6_K (parts of 16)                  w = (d · s) · q                  s of 6 and 8 bits with a sign
//! ```
//!
//! Writing, for each part: the scale (and minimum) of least Σ ω (w − ŵ)² among those that a range of so many steps gives, each with codes to the
//! nearest and then solved for (least squares); ω = rms(part) + |w|, as the tools of the format weigh where no importance is given. d and dmin are of the
//! largest scale and minimum. Each part then takes, of the integers s and t at those and beside them, the pair of least error.
//!
//! Departures from llama.cpp: that pair (it rounds both), a search with steps of its own, and one rule of ω for all types.
//!
//! Cost: about 30 passes over the numbers.

use half::f16;

/// Numbers of a block.
const BLOCK: usize = 256;

/// One of the K types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KQuant {
    Q2,
    Q3,
    Q4,
    Q5,
    Q6,
}

use KQuant::*;

/// Scale and minimum of a part.
type Affine = (f32, f32);

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

impl KQuant {
    /// Numbers of a part.
    fn part(self) -> usize {
        if matches!(self, Q4 | Q5) { 32 } else { 16 }
    }

    /// Whether parts have minima.
    fn has_minima(self) -> bool {
        matches!(self, Q2 | Q4 | Q5)
    }

    /// The least and the largest code.
    fn codes(self) -> (i32, i32) {
        match self {
            Q2 => (0, 3),
            Q3 => (-4, 3),
            Q4 => (0, 15),
            Q5 => (0, 31),
            Q6 => (-32, 31),
        }
    }

    /// The least and the largest integer that scales a part.
    fn scales(self) -> (i32, i32) {
        match self {
            Q2 => (0, 15),
            Q3 => (-32, 31),
            Q4 | Q5 => (0, 63),
            Q6 => (-128, 127),
        }
    }

    /// Where the 16-bit floats stand.
    fn floats(self) -> &'static [usize] {
        match self {
            Q2 => &[80, 82],
            Q3 => &[108],
            Q4 | Q5 => &[0, 2],
            Q6 => &[208],
        }
    }

    /// The numbers of a block.
    pub fn decode(self, block: &[u8], w: &mut [f32]) {
        let floats = self.floats();
        let d = half_at(block, floats[0]);
        let dmin = floats.get(1).map(|at| half_at(block, *at));
        let codes = self.unpack(block);
        for (j, (w, codes)) in w.chunks_exact_mut(self.part()).zip(codes.chunks_exact(self.part())).enumerate() {
            let (s, t) = self.scale(block, j);
            let scale = d * s as f32;
            match dmin.map(|dmin| dmin * t as f32) {
                Some(least) => w.iter_mut().zip(codes).for_each(|(w, code)| *w = scale * f32::from(*code) - least),
                None => w.iter_mut().zip(codes).for_each(|(w, code)| *w = scale * f32::from(*code)),
            }
        }
    }

    /// The integers s and t of a part.
    fn scale(self, block: &[u8], j: usize) -> (i32, i32) {
        match self {
            Q2 => (i32::from(block[j] & 15), i32::from(block[j] >> 4)),
            Q3 => {
                let packed = &block[96..108];
                let low = packed[j % 8] >> (4 * (j / 8)) & 15;
                let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
                (i32::from(low | high << 4) - 32, 0)
            }
            // The first four have six bits in a byte of their own, the others four bits in a byte and two in the tops of the first eight.
            Q4 | Q5 if j < 4 => (i32::from(block[4 + j] & 63), i32::from(block[8 + j] & 63)),
            Q4 | Q5 => {
                let (both, tops) = (block[8 + j], &block[4..12]);
                (i32::from(both & 15 | tops[j - 4] >> 6 << 4), i32::from(both >> 4 | tops[j] >> 6 << 4))
            }
            Q6 => (i32::from(block[192 + j] as i8), 0),
        }
    }

    /// The codes of a block.
    fn unpack(self, block: &[u8]) -> [i8; BLOCK] {
        // Rows of 32 numbers lie over one another in the bits of 32 bytes.
        let two = |from: usize, i: usize| block[from + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        let four = |from: usize, i: usize| block[from + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
        let one = |from: usize, i: usize| block[from + i % 32] >> (i / 32) & 1;
        match self {
            Q2 => std::array::from_fn(|i| two(16, i).cast_signed()),
            Q3 => std::array::from_fn(|i| (two(32, i) | one(0, i) << 2).cast_signed() - 4),
            Q4 => std::array::from_fn(|i| four(16, i).cast_signed()),
            Q5 => std::array::from_fn(|i| (four(48, i) | one(16, i) << 4).cast_signed()),
            Q6 => {
                let low = |i: usize| block[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
                std::array::from_fn(|i| (low(i) | two(128, i) << 4).cast_signed() - 32)
            }
        }
    }

    /// The block for some numbers. False if a 16-bit float does not hold its scale.
    pub fn encode(self, w: &[f32], block: &mut [u8]) -> bool {
        // Beyond what any of these types holds; squares would be too large below.
        if w.iter().any(|w| w.abs() > f16::MAX.to_f32() * 8192.0) {
            return false;
        }
        let part = self.part();
        let weights: Vec<f32> = w.chunks_exact(part).flat_map(weights).collect();
        let parts = || w.chunks_exact(part).zip(weights.chunks_exact(part));
        let found: Vec<Affine> =
            parts().map(|(w, o)| if self.has_minima() { self.affine(w, o) } else { self.linear(w, o) }).collect();
        let ((least, most), top) = (self.scales(), self.scales().1 as f32);
        // With a sign the scale of largest magnitude has the integer that has no counterpart.
        let d = match self.has_minima() {
            true => found.iter().fold(0.0f32, |m, (s, _)| m.max(*s)) / top,
            false => found.iter().fold(0.0f32, |m, (s, _)| if s.abs() > m.abs() { *s } else { m }) / least as f32,
        };
        let (d, dmin) = (f16::from_f32(d), f16::from_f32(found.iter().fold(0.0f32, |m, (_, t)| m.max(*t)) / top));
        if d.is_infinite() || dmin.is_infinite() {
            return false;
        }
        block.fill(0);
        for (at, float) in self.floats().iter().zip([d, dmin]) {
            block[*at..at + 2].copy_from_slice(&float.to_le_bytes());
        }
        let (d, dmin) = (d.to_f32(), dmin.to_f32());
        let nearest = |x: f32, step: f32| if step == 0.0 { 0 } else { (x / step).round() as i32 };
        for (j, ((w, o), (s, t))) in parts().zip(&found).enumerate() {
            let (s, t) = (nearest(*s, d), nearest(*t, dmin));
            let beside = |x: i32| [x, x - 1, x + 1].into_iter().filter(move |x| (least..=most).contains(x));
            let minima: Vec<i32> = if self.has_minima() { beside(t.clamp(least, most)).collect() } else { vec![0] };
            let mut best = (f32::INFINITY, 0, 0);
            for s in beside(s.clamp(least, most)) {
                for &t in &minima {
                    let lost = self.lost(w, o, (d * s as f32, dmin * t as f32));
                    if lost < best.0 {
                        best = (lost, s, t);
                    }
                }
            }
            let (_, s, t) = best;
            self.put_scale(block, j, s, t);
            for (i, w) in w.iter().enumerate() {
                self.put_code(block, j * part + i, self.nearest((d * s as f32, dmin * t as f32), *w));
            }
        }
        true
    }

    /// The code whose value is nearest.
    fn nearest(self, (scale, minimum): Affine, w: f32) -> i32 {
        let (least, most) = self.codes();
        if scale == 0.0 { 0 } else { (((w + minimum) / scale).round() as i32).clamp(least, most) }
    }

    /// Σ ω (w − ŵ)².
    fn lost(self, w: &[f32], weights: &[f32], found: Affine) -> f32 {
        let one = |(w, o): (&f32, &f32)| {
            let error = found.0 * self.nearest(found, *w) as f32 - found.1 - w;
            o * error * error
        };
        w.iter().zip(weights).map(one).sum()
    }

    /// Scale and minimum, both at least 0, of a part.
    fn affine(self, w: &[f32], weights: &[f32]) -> Affine {
        let (low, high) = w.iter().fold((0.0f32, f32::NEG_INFINITY), |(l, h), &w| (l.min(w), h.max(w)));
        if high <= low {
            return (0.0, -low);
        }
        let top = self.codes().1 as f32;
        let mut best = (f32::INFINITY, (0.0, 0.0));
        let tried = (0..=20).map(|i| (high - low) / (top - 1.0 + 0.1 * i as f32)).filter(|s| *s > 0.0 && s.is_finite());
        for from in tried.map(|scale| (scale, -low)) {
            // Codes by that scale, and the scale and minimum that fit these best.
            let [mut o, mut q, mut x, mut qq, mut qx] = [0.0f32; 5];
            for (w, weight) in w.iter().zip(weights) {
                let code = self.nearest(from, *w) as f32;
                (o, q, x) = (o + weight, q + weight * code, x + weight * w);
                (qq, qx) = (qq + weight * code * code, qx + weight * code * w);
            }
            let determinant = o * qq - q * q;
            let solved = ((o * qx - x * q) / determinant, (q * qx - qq * x) / determinant);
            let without = (qx / qq, 0.0);
            for found in [from, if solved.1 < 0.0 { without } else { solved }] {
                let lost = self.lost(w, weights, found);
                if found.0 > 0.0 && lost < best.0 {
                    best = (lost, found);
                }
            }
        }
        best.1
    }

    /// The scale of a part, of any sign.
    fn linear(self, w: &[f32], weights: &[f32]) -> Affine {
        let largest = w.iter().fold(0.0f32, |m, &w| if w.abs() > m.abs() { w } else { m });
        let least = self.codes().0 as f32;
        let mut best = (self.lost(w, weights, (0.0, 0.0)), (0.0, 0.0));
        let tried = (-9..=9).map(|i| largest / (least + 0.1 * i as f32));
        for from in tried.filter(|s| *s != 0.0) {
            let (mut qq, mut qx) = (0.0f32, 0.0f32);
            for (w, weight) in w.iter().zip(weights) {
                let code = self.nearest((from, 0.0), *w) as f32;
                (qq, qx) = (qq + weight * code * code, qx + weight * code * w);
            }
            for scale in [from, qx / qq].into_iter().filter(|s| s.is_finite()) {
                let lost = self.lost(w, weights, (scale, 0.0));
                if lost < best.0 {
                    best = (lost, (scale, 0.0));
                }
            }
        }
        best.1
    }

    fn put_scale(self, block: &mut [u8], j: usize, s: i32, t: i32) {
        match self {
            Q2 => block[j] = (s | t << 4) as u8,
            Q3 => {
                let s = (s + 32) as u8;
                block[96 + j % 8] |= (s & 15) << (4 * (j / 8));
                block[104 + j % 4] |= (s >> 4) << (2 * (j / 4));
            }
            Q4 | Q5 if j < 4 => {
                block[4 + j] |= s as u8;
                block[8 + j] |= t as u8;
            }
            Q4 | Q5 => {
                block[8 + j] = (s & 15 | (t & 15) << 4) as u8;
                block[j] |= (s >> 4 << 6) as u8;
                block[4 + j] |= (t >> 4 << 6) as u8;
            }
            Q6 => block[192 + j] = s as i8 as u8,
        }
    }

    fn put_code(self, block: &mut [u8], i: usize, code: i32) {
        let (half, row, col) = (i / 128, i % 128 / 32, i % 32);
        let code = (code - self.codes().0) as u8;
        let four = i / 64 * 32 + col;
        let shift = 4 * (i / 32 % 2);
        match self {
            Q2 => block[16 + 32 * half + col] |= code << (2 * row),
            Q3 => {
                block[32 + 32 * half + col] |= (code & 3) << (2 * row);
                block[col] |= (code >> 2) << (i / 32);
            }
            Q4 => block[16 + four] |= code << shift,
            Q5 => {
                block[48 + four] |= (code & 15) << shift;
                block[16 + col] |= (code >> 4) << (i / 32);
            }
            Q6 => {
                block[64 * half + 32 * (row % 2) + col] |= (code & 15) << (4 * (row / 2));
                block[128 + 32 * half + col] |= (code >> 4) << (2 * row);
            }
        }
    }
}

/// ω of a part.
fn weights(w: &[f32]) -> Vec<f32> {
    let rms = (w.iter().map(|w| w * w).sum::<f32>() / w.len() as f32).sqrt();
    w.iter().map(|w| rms + w.abs()).collect()
}

#[cfg(test)]
mod tests {
    use super::KQuant::{self, *};
    use crate::rng::Seed;

    const ALL: [(KQuant, usize); 5] = [(Q2, 84), (Q3, 110), (Q4, 144), (Q5, 176), (Q6, 210)];

    fn around(kind: KQuant, bytes: usize, w: &[f32]) -> Vec<f32> {
        let (mut block, mut again) = (vec![0; bytes], vec![f32::NAN; w.len()]);
        for (w, again) in w.chunks(256).zip(again.chunks_mut(256)) {
            assert!(kind.encode(w, &mut block));
            kind.decode(&block, again);
        }
        again
    }

    #[test]
    fn integers_that_are_put_into_a_block_are_found_there() {
        let mut stream = Seed(3).stream("k");
        for (kind, bytes) in ALL {
            let mut block = vec![0; bytes];
            let ((low, high), (least, most)) = (kind.codes(), kind.scales());
            let codes: Vec<i32> = (0..256).map(|_| low + stream.below((high - low + 1) as usize) as i32).collect();
            let scales: Vec<i32> =
                (0..256 / kind.part()).map(|_| least + stream.below((most - least + 1) as usize) as i32).collect();
            codes.iter().enumerate().for_each(|(i, code)| kind.put_code(&mut block, i, *code));
            scales
                .iter()
                .enumerate()
                .for_each(|(j, s)| kind.put_scale(&mut block, j, *s, if kind.has_minima() { most - s } else { 0 }));
            assert_eq!(kind.unpack(&block).map(i32::from).to_vec(), codes, "{kind:?}");
            for (j, s) in scales.iter().enumerate() {
                assert_eq!(kind.scale(&block, j), (*s, if kind.has_minima() { most - s } else { 0 }), "{kind:?} {j}");
            }
        }
    }

    #[test]
    fn more_bits_lose_less_and_each_loses_little() {
        let w = Seed(4).stream("w").normal_array(8, 256, 0.05).into_raw_vec_and_offset().0;
        let whole: f32 = w.iter().map(|w| w * w).sum();
        // Of a normal distribution.
        for ((kind, bytes), most) in ALL.into_iter().zip([0.10, 0.033, 0.0063, 0.0016, 0.0004]) {
            let again = around(kind, bytes, &w);
            let lost = w.iter().zip(&again).map(|(w, a)| (w - a) * (w - a)).sum::<f32>() / whole;
            assert!(lost < most, "{kind:?}: {lost}");
        }
    }

    #[test]
    fn zeros_stay_zero_without_minima_and_blocks_of_one_number_are_met() {
        let mut w = Seed(5).stream("w").normal_array(1, 256, 1.0).into_raw_vec_and_offset().0;
        w.iter_mut().step_by(3).for_each(|w| *w = 0.0);
        for (kind, bytes) in ALL {
            let again = around(kind, bytes, &w);
            assert!(kind.has_minima() || w.iter().zip(&again).all(|(w, a)| *w != 0.0 || *a == 0.0), "{kind:?}");
            assert_eq!(around(kind, bytes, &[0.0; 256]), [0.0; 256], "{kind:?}");
            let one = around(kind, bytes, &[-0.25; 256]);
            assert!(one.iter().all(|w| (w + 0.25).abs() < 0.01), "{kind:?}: {one:?}");
        }
    }

    #[test]
    fn scales_that_no_half_holds_are_said() {
        for (kind, bytes) in ALL {
            let mut w = [0.0; 256];
            w[100] = 1e30;
            assert!(!kind.encode(&w, &mut vec![0; bytes]), "{kind:?}");
        }
    }
}
