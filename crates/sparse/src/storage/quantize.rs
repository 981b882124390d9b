//! Codes for a weight: rounded to the nearest, and those that it was made of.

use super::code_layouts::{CodeLayout, QuantizedSparseParts, words};
use super::codes::{Offsets, SPARE};
use super::kept::{Origin, Source};
use super::op::LinearOp;
use super::precision::Precision;
use super::quantized::{Quantized, QuantizedParts};
use super::quantized_nm::{QuantizedNm, QuantizedNmParts, pattern_of};
use super::quantized_sparse::QuantizedSparse;
use crate::kernels::{CODE_BLOCK, Values};
use crate::mask::{Mask, Pattern};
use crate::{Error, Result};
use half::f16;
use ndarray::ArrayRef2;
use rayon::prelude::*;

/// The nearest number of 16 bits that is finite and not 0, or the number itself if there is none.
fn scale_of(exact: f32) -> f32 {
    let half = f16::from_f32(exact).to_f32();
    if half.is_finite() && half.abs() >= f16::MIN_POSITIVE.to_f32() { half } else { exact }
}

/// Rounds a group to the nearest codes, one a byte, with a zero point or evenly about 0: its scale, and what stands for 0.
fn nearest(group: &[f32], (bits, zeros): (u8, bool), codes: &mut [u8]) -> (f32, i8) {
    let (least, most) = group.iter().fold((0.0f32, 0.0f32), |(l, m), &w| (l.min(w), m.max(w)));
    // Codes as if they began with 0, of which `first` is stored as the first.
    let (top, first) = if bits == 4 { (15.0, 0) } else { (255.0, -128) };
    let half = ((top - 1.0) / 2.0) as i32;
    let (scale, zero) = if zeros {
        let scale = scale_of(most / top - least / top);
        (scale, (-least / scale).round_ties_even().clamp(0.0, top) as i32)
    } else {
        (scale_of(most.max(-least) / half as f32), half + 1)
    };
    let usable = scale > 0.0 && scale.is_finite();
    let (scale, zero) = match (usable, zeros) {
        (true, _) => (scale, zero),
        (false, true) => (1.0, 0),
        (false, false) => (1.0, half + 1),
    };
    for (w, to) in group.iter().zip(codes) {
        let code = if usable { (w / scale).round_ties_even() as i32 } else { 0 };
        *to = ((code + zero).clamp(0, top as i32) + first) as u8;
    }
    (scale, (zero + first) as i8)
}

/// Codes of a weight, row by row, and their factors.
struct Joined {
    codes: Vec<u8>,
    scales: Vec<f32>,
    offsets: Offsets,
}

/// Codes, one a byte, and the factors of each group.
type Factored<T> = (Vec<u8>, Vec<(f32, T)>);

/// Numbers in groups of `len`, of which a row has `of_row`.
#[derive(Clone, Copy)]
struct Groups<'a> {
    numbers: &'a [f32],
    len: usize,
    of_row: usize,
}

impl Groups<'_> {
    /// What `code` makes of each group: a byte a code, written to the slice that it is given, and the scale and something more; none if it gives none for one.
    fn coded<T: Send>(self, code: impl Fn(&[f32], &mut [u8]) -> Option<(f32, T)> + Sync) -> Option<Factored<T>> {
        let mut codes = vec![0; self.numbers.len()];
        let len = self.len.max(1);
        let groups = self.numbers.par_chunks(len).zip(codes.par_chunks_mut(len)).with_min_len(1 << 10);
        let factors = groups.map(|(group, codes)| code(group, codes)).collect::<Option<_>>()?;
        Some((codes, factors))
    }
}

impl Joined {
    /// Of a byte a code: two codes to a byte where they have four bits, in whole bytes a row.
    fn of<T>(groups: Groups<'_>, (codes, factors): Factored<T>, bits: u8, offsets: impl FnOnce(Vec<T>) -> Offsets) -> Joined {
        let two = |two: &[u8]| two[0] | two.get(1).map_or(0, |high| high << 4);
        let codes = match bits {
            4 => codes.chunks((groups.len * groups.of_row).max(1)).flat_map(|row| row.chunks(2).map(two)).collect(),
            _ => codes,
        };
        let (scales, rest) = factors.into_iter().unzip();
        Joined { codes, scales, offsets: offsets(rest) }
    }

    /// Rounded to the nearest.
    fn nearest(groups: Groups<'_>, kind: (u8, bool)) -> Joined {
        let coded = groups.coded(|group, codes| Some(nearest(group, kind, codes))).unwrap_or_default();
        Joined::of(groups, coded, kind.0, |all| if kind.1 { Offsets::ZeroPoints(all) } else { Offsets::Symmetric })
    }

    /// Those that give every number to the bit, and their bits.
    fn exactly(groups: Groups<'_>) -> Option<(u8, Joined)> {
        let even = |bits: u8| {
            let coded = groups.coded(|group, codes| evenly(group, bits, codes))?;
            Some((bits, Joined::of(groups, coded, bits, |_| Offsets::Symmetric)))
        };
        let above = || Some((4, Joined::of(groups, groups.coded(above_least)?, 4, Offsets::Minimums)));
        even(4).or_else(above).or_else(|| even(8))
    }

    /// In groups as wide as neighbours agree, and how many inputs these are of rows of so many.
    fn widest(mut self, cols: usize) -> (usize, Joined) {
        let mut group = CODE_BLOCK;
        while group < WIDEST && self.widen(cols / group) {
            group *= 2;
        }
        (group, self)
    }

    /// Whether groups can be twice as wide, of a row's so many: then they are.
    fn widen(&mut self, of_row: usize) -> bool {
        fn every_other<T: Copy>(all: &[T]) -> Vec<T> {
            all.iter().step_by(2).copied().collect()
        }
        fn alike(all: &[f32]) -> bool {
            all.chunks(2).all(|two| two[0].to_bits() == two[1].to_bits())
        }
        if of_row % 2 != 0 || !alike(&self.scales) {
            return false;
        }
        self.offsets = match &self.offsets {
            Offsets::Minimums(least) if alike(least) => Offsets::Minimums(every_other(least)),
            Offsets::Symmetric => Offsets::Symmetric,
            _ => return false,
        };
        self.scales = every_other(&self.scales);
        true
    }
}

/// The most inputs of a group that is found in numbers.
const WIDEST: usize = 128;

/// Bits, inputs of a group, and whether there are zero points.
fn kind(to: Precision, cols: usize) -> Result<(u8, usize, bool)> {
    let (bits, group, zeros) = match to {
        Precision::I4Grouped(group) => (4, group, false),
        Precision::U4Grouped(group) => (4, group, true),
        Precision::I8 => (8, cols, false),
        Precision::I8Grouped(group) => (8, group, false),
        Precision::U8Grouped(group) => (8, group, true),
        Precision::F32 | Precision::Bf16 | Precision::F16 => {
            return Err(Error::invalid_option("values", format!("{to} has no codes")));
        }
    };
    match group {
        0 if cols == 0 => Ok((bits, group, zeros)),
        _ if group == 0 || cols % group != 0 => {
            Err(Error::invalid_option("values", format!("{to}: groups of {group} inputs in rows of {cols}")))
        }
        _ => Ok((bits, group, zeros)),
    }
}

impl Quantized {
    /// Rounds a weight `(out, in)` to the nearest codes (round-to-nearest, RTN): of [`Precision::I4Grouped`] and [`Precision::I8Grouped`] with the scale
    /// `max |w| / (2^(b−1) − 1)` of a group, of [`Precision::U4Grouped`] and [`Precision::U8Grouped`] with `(max − min) / (2^b − 1)` and the zero point
    /// `round(−min / scale)`, where min is 0 at most and max 0 at least: 0 has a code in all of them. Scales are rounded to 16 bits first where these
    /// hold them. [`Precision::I8`] is a group a row.
    ///
    /// ```
    /// use lacuna_sparse::storage::{LinearOp, Precision, Quantized};
    /// use ndarray::array;
    /// let w = array![[0.7, -0.31, 0., 0.1]];
    /// let q = Quantized::round_to_nearest(&w, Precision::I4Grouped(4))?;
    /// let scale = half::f16::from_f32(0.1).to_f32();
    /// assert_eq!(q.to_dense(), array![[7. * scale, -3. * scale, 0., scale]]);
    /// # Ok::<(), lacuna_sparse::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the numbers are none of these, groups neither divide a row nor are multiples of 32, or a weight is not finite.
    pub fn round_to_nearest(weight: &ArrayRef2<f32>, to: Precision) -> Result<Quantized> {
        let (rows, cols) = weight.dim();
        let (bits, group, zeros) = kind(to, cols)?;
        crate::mask::check_finite(weight, "weights")?;
        let weight = weight.as_standard_layout();
        let numbers = weight.as_slice().expect("an array in standard layout is a slice");
        let groups = Groups { numbers, len: group, of_row: cols / group.max(1) };
        let Joined { codes, scales, offsets } = Joined::nearest(groups, (bits, zeros));
        Quantized::new(QuantizedParts { rows, cols, bits, group, codes, scales, offsets })
    }

    /// What a mask keeps of a source, zeros being codes: numbers of eight bits that have scales already stay as they are.
    ///
    /// # Errors
    /// As [`Quantized::round_to_nearest`]; if the mask has another shape.
    pub(super) fn of_source(source: &Source<'_>, to: Precision) -> Result<Quantized> {
        if let Origin::Same(entries) = source.from
            && let Values::I8(values) = entries.values()
        {
            let (rows, cols) = entries.dim();
            let mut codes = vec![0; rows * cols];
            for (row, of) in entries.offsets().windows(2).enumerate() {
                let of = of[0] as usize..of[1] as usize;
                for (column, value) in entries.indices()[of.clone()].iter().zip(&values[of]) {
                    codes[row * cols + *column as usize] = value.cast_unsigned();
                }
            }
            let (group, scales) = (entries.group.unwrap_or(cols), entries.scales.clone());
            let parts = QuantizedParts { rows, cols, bits: 8, group, codes, scales, offsets: Offsets::Symmetric };
            return Ok(Quantized::new(parts)?.with_kept(source.mask.kept()));
        }
        let weight = source.from.dense();
        if weight.dim() != source.mask.dim() {
            return Err(Error::shape("mask", &[weight.nrows(), weight.ncols()], &[source.mask.rows(), source.mask.cols()]));
        }
        Ok(Quantized::round_to_nearest(&source.mask.applied(&weight), to)?.with_kept(source.mask.kept()))
    }

    /// Codes at places, with such as stand for 0 between them; none where no code does.
    pub fn of_kept(kept: &QuantizedSparse) -> Option<Quantized> {
        let QuantizedSparseParts { rows, cols, bits, group, words, codes, scales, offsets } = kept.parts();
        let (stride, groups) = (cols.div_ceil(64), cols / group.max(1));
        let zero = |row: usize, col: usize| match &offsets {
            Offsets::Symmetric => Some(if bits == 4 { 8 } else { 0 }),
            Offsets::ZeroPoints(zeros) => Some(zeros[row * groups + col / group].cast_unsigned()),
            Offsets::Minimums(_) => None,
        };
        let (mut all, mut from) = (Vec::with_capacity(rows * cols), 0);
        for row in 0..rows {
            let (mut of, mut next) = (Vec::with_capacity(cols), 0);
            for col in 0..cols {
                if words[row * stride + col / 64] >> (col % 64) & 1 == 0 {
                    of.push(zero(row, col)?);
                    continue;
                }
                of.push(if bits == 4 { codes[from + next / 2] >> (4 * (next % 2)) & 15 } else { codes[from + next] });
                next += 1;
            }
            from += if bits == 4 { next.div_ceil(2) } else { next };
            match bits {
                4 => all.extend(of.chunks(2).map(|two| two[0] | two.get(1).map_or(0, |high| high << 4))),
                _ => all.extend(of),
            }
        }
        Quantized::new(QuantizedParts { rows, cols, bits, group, codes: all, scales, offsets }).ok()
    }

    /// The codes that a weight was made of, if each group of 32 along its rows has some that give every number of it to the bit: of four bits (as Q4_0 and Q4_1 have
    /// them), else of eight (Q8_0), with scales of 16 bits.
    pub fn exactly(weight: &ArrayRef2<f32>) -> Option<Quantized> {
        let (rows, cols) = weight.dim();
        if cols == 0 || cols % CODE_BLOCK != 0 {
            return None;
        }
        let weight = weight.as_standard_layout();
        let numbers = weight.as_slice().expect("an array in standard layout is a slice");
        let groups = Groups { numbers, len: CODE_BLOCK, of_row: cols / CODE_BLOCK };
        let (bits, joined) = Joined::exactly(groups)?;
        let (group, Joined { codes, scales, offsets }) = joined.widest(cols);
        Quantized::new(QuantizedParts { rows, cols, bits, group, codes, scales, offsets }).ok()
    }
}

/// What a mask of N:M keeps of a weight, row by row.
fn kept(weight: &ArrayRef2<f32>, mask: &Mask) -> Vec<f32> {
    mask.iter_kept().map(|(r, c)| weight[[r, c]]).collect()
}

impl QuantizedNm {
    /// Rounds what a mask keeps of a weight `(out, in)` to the nearest codes, as [`Quantized::round_to_nearest`] rounds whole weights; groups are of inputs, dropped ones among
    /// them.
    ///
    /// # Errors
    /// As there; if the shapes differ, `n:m` is none of 1:2, 2:4, 4:8, 1:4, 2:8 and 4:16, or the mask is not of that pattern (the place is named).
    pub fn round_to_nearest(weight: &ArrayRef2<f32>, mask: &Mask, (n, m): (usize, usize), to: Precision) -> Result<QuantizedNm> {
        let (rows, cols) = weight.dim();
        if weight.dim() != mask.dim() {
            return Err(Error::shape("mask", &[rows, cols], &[mask.rows(), mask.cols()]));
        }
        let (bits, group, zeros) = kind(to, cols)?;
        pattern_of((n, m), cols)?;
        Pattern::Nm { n, m }.check(mask)?;
        let numbers = kept(weight, mask);
        if let Some(odd) = numbers.iter().find(|w| !w.is_finite()) {
            return Err(Error::invalid_option("values", format!("{to}: a kept weight is {odd}")));
        }
        let groups = Groups { numbers: &numbers, len: group / m * n, of_row: cols / group.max(1) };
        let Joined { codes, scales, offsets } = Joined::nearest(groups, (bits, zeros));
        QuantizedNm::new(QuantizedNmParts { rows, cols, n, m, bits, group, words: words(mask), codes, scales, offsets })
    }

    /// The codes that the kept weights were made of, as [`Quantized::exactly`] finds them.
    pub fn exactly(weight: &ArrayRef2<f32>, mask: &Mask, (n, m): (usize, usize)) -> Option<QuantizedNm> {
        let (rows, cols) = weight.dim();
        let fits = cols > 0 && cols % CODE_BLOCK == 0 && weight.dim() == mask.dim() && pattern_of((n, m), cols).is_ok();
        if !fits || (Pattern::Nm { n, m }).check(mask).is_err() {
            return None;
        }
        let numbers = kept(weight, mask);
        let groups = Groups { numbers: &numbers, len: CODE_BLOCK / m * n, of_row: cols / CODE_BLOCK };
        let (bits, joined) = Joined::exactly(groups)?;
        let (group, Joined { codes, scales, offsets }) = joined.widest(cols);
        let words = words(mask);
        QuantizedNm::new(QuantizedNmParts { rows, cols, n, m, bits, group, words, codes, scales, offsets }).ok()
    }

    /// The same codes, whose mask is of this pattern.
    ///
    /// # Errors
    /// As [`QuantizedNm::round_to_nearest`].
    pub fn of_kept(kept: &QuantizedSparse, (n, m): (usize, usize)) -> Result<QuantizedNm> {
        let QuantizedSparseParts { rows, cols, bits, group, words, codes, scales, offsets } = kept.parts();
        pattern_of((n, m), cols)?;
        Pattern::Nm { n, m }.check(&kept.mask())?;
        QuantizedNm::new(QuantizedNmParts { rows, cols, n, m, bits, group, words, codes, scales, offsets })
    }

    /// What a mask keeps of a source.
    ///
    /// # Errors
    /// As [`QuantizedNm::round_to_nearest`].
    pub(super) fn of_source(source: &Source<'_>, (n, m): (usize, usize), to: Precision) -> Result<QuantizedNm> {
        QuantizedNm::round_to_nearest(&source.from.dense(), source.mask, (n, m), to)
    }
}

/// Rounded to 17 bits, of which products with codes are exact: what a file's factor of 11 bits is, or the product of one with six more (Q4_K).
fn of_few_bits(x: f32) -> f32 {
    const HALF: u32 = 0x40;
    f32::from_bits((x.to_bits() + HALF) & !SPARE)
}

/// The largest scale of which every number is a whole multiple that has a code.
fn evenly(group: &[f32], bits: u8, codes: &mut [u8]) -> Option<(f32, ())> {
    let largest = group.iter().copied().fold(0.0f32, |m, w| if w.abs() > m.abs() { w } else { m });
    let (below, zero) = if bits == 4 { (8, 8) } else { (128, 0) };
    let mut codes_by = |scale: f32| {
        group.iter().zip(&mut *codes).all(|(w, to)| {
            let code = (w / scale).round() as i32;
            *to = (code + zero) as u8;
            (-below..below).contains(&code) && (scale * code as f32).to_bits() == w.to_bits()
        })
    };
    if largest == 0.0 {
        return codes_by(1.0).then_some((1.0, ()));
    }
    // Of eight bits only the smallest: a group that reaches less far is found in one try out of a hundred.
    let reaches: &[i32] = if bits == 4 { &[1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, -8] } else { &[127, -127, -128] };
    let scales = reaches.iter().map(|&steps| (steps, of_few_bits(largest / steps as f32)));
    let mut usable = scales.filter(|&(steps, scale)| scale.is_finite() && (scale > 0.0 || scale < 0.0 && steps == -below));
    usable.find(|&(_, scale)| codes_by(scale)).map(|(_, scale)| (scale, ()))
}

/// A scale and an offset, the least number or some scales below, of which every number is a sum with a multiple of 0 to 15.
fn above_least(group: &[f32], codes: &mut [u8]) -> Option<(f32, f32)> {
    let (least, most) = group.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, m), &w| (l.min(w), m.max(w)));
    if !least.is_finite() || !most.is_finite() {
        return None;
    }
    let mut codes_by = |scale: f32, offset: f32| {
        group.iter().zip(&mut *codes).all(|(w, to)| {
            let code = ((w - offset) / scale).round().clamp(0.0, 15.0);
            *to = code as u8;
            (scale * code + offset).to_bits() == w.to_bits()
        })
    };
    if least == most {
        return codes_by(1.0, least).then_some((1.0, least));
    }
    // The largest number is 15 scales above the smallest, or fewer where the grid ends beyond them.
    (1..=15).rev().find_map(|steps| {
        let scale = of_few_bits(((f64::from(most) - f64::from(least)) / f64::from(steps)) as f32);
        if !(scale > 0.0 && scale.is_finite()) {
            return None;
        }
        (0..=15 - steps).find_map(|below| {
            let offset = if below == 0 { least } else { of_few_bits(least - below as f32 * scale) };
            codes_by(scale, offset).then_some((scale, offset))
        })
    })
}

impl QuantizedSparse {
    /// Rounds what a mask keeps of a weight `(out, in)` to the nearest codes, as [`Quantized::round_to_nearest`] rounds whole weights with zeros where nothing is kept; groups
    /// are of inputs, dropped ones among them.
    ///
    /// # Errors
    /// As there; if the shapes differ.
    pub fn round_to_nearest(weight: &ArrayRef2<f32>, mask: &Mask, to: Precision) -> Result<QuantizedSparse> {
        if weight.dim() != mask.dim() {
            return Err(Error::shape("mask", &[weight.nrows(), weight.ncols()], &[mask.rows(), mask.cols()]));
        }
        if let Some((row, col)) = mask.iter_kept().find(|&(r, c)| !weight[[r, c]].is_finite()) {
            return Err(Error::NotFinite { what: format!("weight for {to}"), row, col, value: weight[[row, col]].into() });
        }
        QuantizedSparse::new(at_mask(Quantized::round_to_nearest(&mask.applied(weight), to)?.parts(), mask))
    }

    /// As [`Quantized::exactly`], of what a mask keeps.
    pub fn exactly(weight: &ArrayRef2<f32>, mask: &Mask) -> Option<QuantizedSparse> {
        let (rows, cols) = weight.dim();
        if cols == 0 || cols % CODE_BLOCK != 0 || mask.dim() != (rows, cols) {
            return None;
        }
        // What is dropped does not matter: a number that the group keeps stands in for it.
        let mut numbers = Vec::with_capacity(rows * cols);
        for row in 0..rows {
            for first in (0..cols).step_by(CODE_BLOCK) {
                let kept = (first..first + CODE_BLOCK).find(|&c| mask.get(row, c)).map_or(0.0, |c| weight[[row, c]]);
                numbers.extend((first..first + CODE_BLOCK).map(|c| if mask.get(row, c) { weight[[row, c]] } else { kept }));
            }
        }
        let groups = Groups { numbers: &numbers, len: CODE_BLOCK, of_row: cols / CODE_BLOCK };
        let (bits, joined) = Joined::exactly(groups)?;
        let (group, Joined { codes, scales, offsets }) = joined.widest(cols);
        QuantizedSparse::new(at_mask(QuantizedParts { rows, cols, bits, group, codes, scales, offsets }, mask)).ok()
    }

    /// What a mask keeps of codes; nothing is rounded.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn of_codes(codes: &Quantized, mask: &Mask) -> Result<QuantizedSparse> {
        let (rows, cols) = codes.shape();
        match mask.dim() == (rows, cols) {
            true => QuantizedSparse::new(at_mask(codes.parts(), mask)),
            false => Err(Error::shape("mask", &[rows, cols], &[mask.rows(), mask.cols()])),
        }
    }

    /// The same codes and places, without their pattern.
    ///
    /// # Errors
    /// As [`QuantizedSparse::new`].
    pub fn of_nm(kept: &QuantizedNm) -> Result<QuantizedSparse> {
        let QuantizedNmParts { rows, cols, bits, group, words, codes, scales, offsets, .. } = kept.parts();
        QuantizedSparse::new(QuantizedSparseParts { rows, cols, bits, group, words, codes, scales, offsets })
    }

    /// What a mask keeps of a source, in a layout; with `blocks`, the mask has to be of such.
    ///
    /// # Errors
    /// As [`Quantized::round_to_nearest`]; if the mask has another shape, or not those blocks.
    pub(super) fn of_source(
        source: &Source<'_>,
        layout: CodeLayout,
        blocks: Option<(usize, usize)>,
        to: Precision,
    ) -> Result<QuantizedSparse> {
        if let Some((rows, cols)) = blocks {
            Pattern::Block { rows, cols }.check(source.mask)?;
        }
        QuantizedSparse::in_layout(at_mask(Quantized::of_source(source, to)?.parts(), source.mask), layout)
    }
}

/// The codes of a whole weight that a mask keeps.
fn at_mask(parts: QuantizedParts, mask: &Mask) -> QuantizedSparseParts {
    let QuantizedParts { rows, cols, bits, group, codes, scales, offsets } = parts;
    let bytes = if bits == 4 { cols.div_ceil(2) } else { cols };
    let code = |row: usize, at: usize| match bits {
        4 => codes[row * bytes + at / 2] >> (4 * (at % 2)) & 15,
        _ => codes[row * bytes + at],
    };
    let mut kept = Vec::new();
    for row in 0..rows {
        let of: Vec<u8> = (0..cols).filter(|&c| mask.get(row, c)).map(|c| code(row, c)).collect();
        match bits {
            4 => kept.extend(of.chunks(2).map(|two| two[0] | two.get(1).map_or(0, |high| high << 4))),
            _ => kept.extend(of),
        }
    }
    QuantizedSparseParts { rows, cols, bits, group, words: words(mask), codes: kept, scales, offsets }
}
