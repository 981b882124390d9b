//! A model of what products cost, in cycles of one core.
//!
//! Each storage is charged its instructions and the bytes that it brings from beyond the caches; the two overlap in part, so the cost is
//! the root of the sum of their squares. The constants were read off one core with AVX2 and 256-bit units of half speed, one with AVX-512 and
//! two 512-bit units, and one with AVX-512 in 256-bit units: they rank storages, and `Plan::tune` replaces them by times.

use super::machine::Machine;
use super::{ActivationBits, Format, Hint, Precision, Slots};
use crate::kernels::{CodePattern, Isa, strips};
use crate::mask::{Mask, Pattern};

/// A product: what a cost depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    rows: usize,
    cols: usize,
    kept: usize,
    tokens: usize,
    /// Whether the weight comes from memory at each product, because others were multiplied in between.
    cold: bool,
    /// What storages keep, a dense one and the others; and inputs that share a scale of a dense one.
    dense: Precision,
    values: Precision,
    /// Times that a code is met: in several planes where activations have 32 bits, at less than the cost of as many products.
    planes: f64,
    group: Option<usize>,
    /// The N:M pattern and the blocks that the mask has.
    nm: Option<(usize, usize)>,
    block: Option<(usize, usize)>,
}

/// The patterns that are looked for.
const NM: [(usize, usize); 7] = [(1, 4), (2, 4), (1, 8), (2, 8), (4, 16), (4, 8), (1, 2)];
/// The blocks that are looked for, the largest first.
const BLOCKS: [(usize, usize); 5] = [(16, 1), (1, 16), (4, 4), (8, 1), (4, 1)];

impl Sizes {
    pub(super) fn of(mask: &Mask, tokens: usize, hint: Hint) -> Sizes {
        let (rows, cols) = mask.dim();
        let kept = mask.kept();
        // A pattern is looked for only where the count allows it.
        let holds = |pattern: Pattern, share: usize, of: usize| {
            kept > 0 && kept * of == rows * cols * share && pattern.check(mask).is_ok()
        };
        let nm = NM.into_iter().find(|&(n, m)| cols % m == 0 && holds(Pattern::Nm { n, m }, n, m));
        let whole = |&(r, c): &(usize, usize)| {
            // The block of the first weight tells most masks apart.
            let full = |(row, col): (usize, usize)| {
                let (row, col) = (row / r * r, col / c * c);
                (row..row + r).all(|row| (col..col + c).all(|col| mask.get(row, col)))
            };
            rows % r == 0
                && cols % c == 0
                && kept % (r * c) == 0
                && kept < rows * cols
                && mask.iter_kept().next().is_some_and(full)
                && mask.block_counts(r, c).iter().all(|&n| n == 0 || n == r * c)
        };
        let block = BLOCKS.into_iter().find(whole);
        let dense = hint.values_in(Format::Dense, cols);
        let planes = if hint.activation_bits == ActivationBits::Full { 1.8 } else { 1.0 };
        let (cold, values, group) = (hint.from_memory, hint.values, dense.group());
        Sizes { rows, cols, kept, tokens, cold, dense, values, planes, group, nm, block }
    }

    /// Storages that are made for the pattern of the mask.
    pub(super) fn of_pattern(&self) -> impl Iterator<Item = Format> {
        let group = self.values.group();
        // A group of inputs with a scale is some whole words of N:M, or some whole blocks.
        let fits = move |part: usize| group.is_none_or(|inputs| inputs > 0 && inputs % part == 0);
        let nm = self.nm.filter(|&(_, m)| fits(64 / m * m)).map(|(n, m)| Format::Nm(n, m));
        nm.into_iter().chain(self.block.filter(|&(_, c)| fits(c)).map(|(r, c)| Format::Bsr(r, c)))
    }

    /// The sparse storages that are worth a thought.
    fn candidates(&self, machine: &Machine) -> Vec<Format> {
        let whole = self.cols.clamp(1, 1 << 15).next_multiple_of(64);
        let mut all = Vec::new();
        if !self.values.is_sparse() {
            let pattern = self.nm.filter(|&(n, m)| self.dense == self.values && CodePattern::of(n, m).is_some());
            all.extend(pattern.map(|(n, m)| Format::Nm(n, m)));
            if pattern.is_none() && self.dense == self.values && self.tokens <= 4 {
                all.extend([Format::Sell(Slots::Padded), Format::Bitmask(64)]);
            }
            return all;
        }
        if let Precision::I8Grouped(inputs) = self.values {
            // A scale a tile, or a group. There is always one, which may refuse the number.
            all.push(Format::TileCsr(inputs));
            all.extend(self.of_pattern());
            return all;
        }
        if self.tokens == 1 {
            all.push(Format::TileCsr(self.cols.clamp(257, 1 << 16)));
        }
        match machine.isa {
            Isa::Avx512 if self.tokens <= 4 => all.extend([Slots::Padded, Slots::Packed].map(Format::Sell)),
            Isa::Avx2 if self.tokens <= 2 => all.push(Format::Sell(Slots::Padded)),
            _ => {}
        }
        if self.tokens <= 4 {
            all.push(Format::Bitmask(whole.min(512)));
            all.push(Format::Bitmask(whole));
        }
        if self.tokens > 1 {
            let tiles = if self.tokens < 16 { vec![512, 1024, whole] } else { vec![64, 128, 192, 256, 512] };
            all.extend(tiles.into_iter().filter(|&t| t <= whole || t == 64).map(Format::TilePairs));
        }
        all.extend(self.of_pattern());
        all.dedup();
        all
    }

    /// The sparse storages with their cycles, the cheapest first.
    pub(super) fn ranked(&self, machine: &Machine) -> Vec<(Format, f64)> {
        let mut all: Vec<_> = self.candidates(machine).into_iter().map(|f| (f, self.cycles(f, machine))).collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        all
    }

    /// Cycles of a product.
    pub(super) fn cycles(&self, format: Format, machine: &Machine) -> f64 {
        let Sizes { rows, cols, kept, tokens, .. } = *self;
        let values = if format == Format::Dense { self.dense } else { self.values };
        let (cells, kept, value) = ((rows * cols) as f64, kept as f64, values.bytes());
        // Strips cost twice as much in vectors of eight as in those of sixteen.
        let narrow = if machine.isa == Isa::Avx512 { 1.0 } else { 2.0 };
        // Without vectors of eight and fused multiply-adds, arithmetic costs some four times as much.
        let slow = if machine.isa == Isa::Portable { 4.0 } else { 1.0 };
        let bytes = match format {
            // Scales have 16 bits.
            Format::Dense => (value + self.group.map_or(0.0, |inputs| 2.0 / inputs.max(1) as f64)) * cells,
            // A place of half a byte beside each code, in slots of which some are empty.
            Format::Sell(_) | Format::Bsr(..) if !values.is_sparse() => {
                (value + 0.5) * self.code_slots() + self.group.map_or(0.0, |inputs| 2.0 / inputs.max(1) as f64) * cells
            }
            Format::Bitmask(_) if !values.is_sparse() => {
                value * kept + (0.125 + self.group.map_or(0.0, |inputs| 2.0 / inputs.max(1) as f64)) * cells
            }
            Format::Csr => 8.0 * kept,
            Format::TileCsr(columns) => {
                let index = if columns <= 256 { 1.0 } else { 2.0 };
                (value + index) * kept + 6.0 * (rows * cols.div_ceil(columns.max(1))) as f64
            }
            Format::TilePairs(columns) => (value + 1.0) * kept + 5.0 * (rows * cols.div_ceil(columns.max(1))) as f64,
            Format::Bitmask(columns) => value * kept + cells / 8.0 + 4.0 * (rows * cols.div_ceil(columns.max(1))) as f64,
            Format::Sell(Slots::Padded) => (value + 0.67) * self.slots(machine),
            Format::Sell(Slots::Packed) => value * kept + 0.79 * self.slots(machine),
            Format::Nm(_, m) if !values.is_sparse() => {
                let places = if m > 4 && 2.0 * kept < cells { 0.5 * kept } else { cells / 8.0 };
                value * kept + places + self.group.map_or(0.0, |inputs| 2.0 / inputs.max(1) as f64) * cells
            }
            Format::Nm(..) => value * kept + cells / 7.0,
            Format::Bsr(r, c) => kept * (value + 2.0 / (r * c) as f64),
        };
        // Bytes a cycle: from the second cache, from the last one, which many cores may share over a mesh, and from memory.
        let transfer = match () {
            () if self.cold || bytes > machine.l3 as f64 => bytes / 6.0,
            () if bytes > machine.l2 as f64 && machine.gathers => bytes / 10.0,
            () => bytes / 20.0,
        };
        let work = match (format, tokens) {
            // Codes, by what was read off a core with VNNI and VBMI2.
            (Format::Dense, t) if t <= 4 && value <= 1.0 && machine.multiplies => cells * 0.045 * value * self.planes * t as f64,
            (Format::Nm(_, m), t) if !values.is_sparse() && t <= 4 && machine.multiplies => {
                cells * if m == 16 || 2.0 * kept < cells { 0.021 } else { 0.03 } * self.planes * t as f64
            }
            (Format::Sell(_) | Format::Bsr(..), t) if !values.is_sparse() && t <= 4 && machine.expands => {
                (self.code_slots() * 0.075 + cells * 0.0085) * self.planes * t as f64
            }
            // Codes, each with two or three of a token.
            (Format::Dense, t) if t <= 4 && value <= 1.0 => cells * 0.15 * t as f64,
            (Format::Dense, t) => {
                let unpack = if value <= 1.0 { 0.25 * cells } else { 0.0 };
                // Tiles of eight or six tokens: each loads the weight, and multiplies at four fifths of what the units can.
                let (tile, load, product) =
                    if machine.isa == Isa::Avx512 { (8, 1.0 / 32.0, 1.0 / 26.0) } else { (6, 1.0 / 12.0, 1.0 / 14.0) };
                unpack + cells * (load * t.div_ceil(tile) as f64 + product * t as f64)
            }
            (Format::Sell(_) | Format::Bsr(..), t) if !values.is_sparse() => {
                self.code_slots() * (0.2 + 0.1 * t as f64) + cells * 0.05
            }
            // A processor that expands bytes does it for 64 columns at a time.
            (Format::Bitmask(_), t) if !values.is_sparse() => {
                cells * if machine.expands { 0.1 * self.planes * t as f64 } else { 0.5 + 0.05 * t as f64 }
            }
            (Format::TileCsr(_) | Format::Csr, 1) if machine.gathers => 0.62 * kept + 16.0 * rows as f64,
            (Format::Bitmask(columns), 1..=4) if machine.isa == Isa::Avx512 => {
                cells * (0.17 + 0.045 * tokens as f64) + 12.0 * (rows * cols.div_ceil(columns.max(1))) as f64
            }
            (Format::TileCsr(_) | Format::Csr, 1) => 0.95 * kept + 12.0 * rows as f64,
            (Format::Bitmask(_), 1) => cells * 0.25 + 10.0 * rows as f64,
            (Format::TilePairs(tile), _) => {
                let widest = crate::kernels::widest_pairs(tile.min(cols));
                strips(tokens, widest).iter().map(|s| self.pairs(tile, s.width, machine)).sum()
            }
            (Format::Sell(slots), t) => {
                // A step: what it takes beside the tokens, and for each of them.
                let (beside, each) = match machine.isa {
                    Isa::Avx512 if machine.gathers => (0.5, 1.0),
                    Isa::Avx512 => (0.3, 1.9),
                    _ => (0.4, 3.6),
                };
                let masks = if slots == Slots::Packed { 1.2 } else { 0.0 };
                let steps = self.slots(machine) * (masks + beside + each * t as f64) / 16.0;
                let late = 0.008 * kept;
                steps + (3.0 * late + (2 * rows) as f64) * t as f64
            }
            (Format::Nm(..), t) if !values.is_sparse() && t <= 4 => cells * 0.2 * t as f64,
            (Format::Nm(..), t) if !values.is_sparse() => cells * (2.0 + 1.0 / 14.0 * t as f64),
            (Format::Nm(..), 1..=4) if machine.isa == Isa::Avx512 => cells * (0.09 + 0.055 * tokens as f64) + 10.0 * rows as f64,
            (Format::Nm(..), 1) => cells * 0.24 + 10.0 * rows as f64,
            (Format::Nm(..), t) => narrow * kept * (1.4 + 0.045 * t as f64),
            (Format::Bsr(r, _), t) => {
                // The higher a block, the more rows share what is loaded of x.
                let (one, few, a_token) = match r {
                    ..4 => (0.6, 3.1, 0.125),
                    4..16 => (0.42, 1.25, 0.066),
                    _ => (0.22, 0.95, 0.053),
                };
                let each = if t == 1 { one } else { narrow * (a_token * t as f64).max(few) };
                kept * each + 10.0 * rows as f64
            }
            _ => strips(tokens, 64).iter().map(|s| self.strip(format, s.width, machine)).sum(),
        };
        (slow * work).hypot(transfer)
    }

    /// Slots of steps of codes: more than weights, as the counts of rows differ within a window.
    fn code_slots(&self) -> f64 {
        let density = self.kept as f64 / (self.rows * self.cols).max(1) as f64;
        self.kept as f64 * if self.block.is_some() { 1.1 } else { 1.07 + 0.11 / density.max(0.01) }
    }

    /// Slots of slices as wide as this machine's vectors: more than weights, as the counts of rows differ within a window.
    fn slots(&self, machine: &Machine) -> f64 {
        let lanes = if machine.isa == Isa::Avx512 { 16.0 } else { 8.0 };
        let density = self.kept as f64 / (self.rows * self.cols).max(1) as f64;
        if self.nm.is_some() {
            return self.kept as f64;
        }
        let spread = ((1.0 - density) / (lanes * density).max(1e-9)).sqrt();
        self.kept as f64 * (1.0 + 0.16 * spread + 0.77 * spread * spread)
    }

    /// Cycles of the arithmetic over one strip, with rows in pairs.
    fn pairs(&self, tile: usize, width: usize, machine: &Machine) -> f64 {
        let Sizes { rows, cols, kept, .. } = *self;
        // What a weight costs for each vector and beside them, and a row in a tile, whose sums come and go.
        let (lanes, each, beside, list) =
            if machine.isa == Isa::Avx512 { (16.0, 0.63, 0.42, 4.5) } else { (8.0, 0.82, 0.9, 16.0) };
        let vectors = (width as f64 / lanes).max(1.0);
        let weights = kept as f64 * (each * vectors + beside);
        let sums = (4.5 * vectors).max(list) * (rows * cols.div_ceil(tile)) as f64;
        weights + sums + 0.3 * (width * (rows + cols)) as f64
    }

    /// Cycles of the arithmetic over one strip.
    fn strip(&self, format: Format, width: usize, machine: &Machine) -> f64 {
        let Sizes { rows, cols, kept, .. } = *self;
        let wide = width as f64;
        // Sums come and go once a list, and its loop ends unforeseen.
        let (columns, list) = match format {
            Format::TileCsr(columns) => (columns, wide * 0.4 + 8.0),
            Format::Bitmask(columns) => (columns, wide * 0.4 + 6.0 + 0.2 * columns as f64),
            // The others are charged above.
            Format::Dense | Format::Csr | Format::TilePairs(_) | Format::Sell(_) | Format::Nm(..) | Format::Bsr(..) => {
                (cols.max(1), wide * 0.4 + 20.0)
            }
        };
        let strip = columns.min(cols) * width * 4;
        let far = if strip > machine.l2 {
            1.9
        } else if strip > machine.l1 {
            1.3
        } else {
            1.0
        };
        // Vectors of the strip, the weight, and its column.
        let weights = kept as f64 * ((wide / 8.0 + 1.0) * far).max(1.7);
        weights + list * (rows * cols.div_ceil(columns.max(1))) as f64 + wide * 0.8 * (rows + cols) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_is_the_cheapest_where_nothing_is_dropped_and_never_cheaper_for_more_tokens() {
        let (l1, l2, l3) = (32 << 10, 1 << 20, 32 << 20);
        for (isa, gathers) in [(Isa::Avx512, true), (Isa::Avx512, false), (Isa::Avx2, false), (Isa::Portable, false)] {
            let machine = Machine { isa, gathers, multiplies: false, expands: false, l1, l2, l3 };
            for (rows, cols) in [(576, 1536), (1536, 576), (4096, 4096)] {
                let full = Mask::full(rows, cols);
                let mut before = 0.0;
                for tokens in 1..=256 {
                    let sizes = Sizes::of(&full, tokens, Hint::tokens(tokens));
                    let dense = sizes.cycles(Format::Dense, &machine);
                    assert!(dense >= before, "{isa:?}, {rows} x {cols}: {tokens} tokens take {dense}, one less {before}");
                    before = dense;
                    let (format, cycles) = sizes.ranked(&machine)[0];
                    assert!(dense <= cycles, "{isa:?}, {rows} x {cols}, {tokens} tokens: {format} takes {cycles}, dense {dense}");
                }
            }
        }
    }

    #[test]
    fn few_bits_from_memory_are_sparse_where_that_was_faster() {
        let machine = Machine {
            isa: Isa::Avx512,
            gathers: false,
            multiplies: true,
            expands: true,
            l1: 48 << 10,
            l2: 1 << 20,
            l3: 32 << 20,
        };
        let (rows, cols) = (1024, 4096);
        let hint =
            Hint::tokens(1).from_memory().with_values(Precision::I4Grouped(64)).with_activation_bits(ActivationBits::Eight);
        let taken = |mask: &Mask, hint: Hint| {
            let sizes = Sizes::of(mask, 1, hint);
            let dense = sizes.cycles(Format::Dense, &machine);
            sizes.ranked(&machine).first().filter(|(_, cost)| cost * 1.03 < dense).map(|(format, _)| *format)
        };
        let nm = |n: usize, m: usize| Mask::from_fn(rows, cols, |r, c| (c + r) % m < n);
        // A fifth, a tenth and half of the weights without a pattern.
        let some = |every: usize| Mask::from_fn(rows, cols, |r, c| (r * 7919 + c * 104_729) % 1009 % every == 0);
        assert_eq!(taken(&nm(2, 4), hint), Some(Format::Nm(2, 4)));
        assert_eq!(taken(&nm(4, 16), hint), Some(Format::Nm(4, 16)));
        assert_eq!(taken(&some(5), hint), Some(Format::Sell(Slots::Padded)));
        assert_eq!(taken(&some(10), hint), Some(Format::Sell(Slots::Padded)));
        assert_eq!(taken(&some(2), hint), None);
        // In a cache, where instructions are the limit, hardly anything is.
        let (rows, cols) = (512, 1536);
        let near = Hint { from_memory: false, ..hint };
        assert_eq!(taken(&Mask::from_fn(rows, cols, |r, c| (c + r) % 4 < 2), near), None);
        assert_eq!(taken(&Mask::from_fn(rows, cols, |r, c| (r * 7919 + c * 104_729) % 1009 % 5 == 0), near), None);
    }
}
