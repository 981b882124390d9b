//! `y = x · Wᵀ` of a weight of codes, in integers.

use super::input::{Order, Rounding, Step, Tile};
use super::slices::{BLOCK, CodeSlices, Offsets, Pattern, Width, named, side_by_side};
use super::unpack::unpacked_product;
use crate::kernels::frame::{Epilogue, Out, Scratch, Use, ask_codes, is_awake, tasks};
use crate::kernels::simd::{Codes, Isa, Portable};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Vnni, Ymm, Zmm};
use ndarray::ArrayRef2;
use std::ops::Range;

/// The most tokens that are multiplied in several planes: with more, unpacking codes costs less.
const FEW: usize = 4;
/// Multiplications from which on the pool is worth waking, and where it is awake.
const PARALLEL: usize = 1 << 18;
const AWAKE: usize = 1 << 15;
/// Tokens that meet rows of a task before the next rows: their codes stay in the second cache.
const TOKENS: usize = 64;
/// Blocks of eight rows that one token walks side by side (one takes a tenth more time from memory, four as much); of sixteen one is the fastest from memory.
const SIDE: usize = 2;

/// `y (tokens, out) = x · Wᵀ` with the epilogue, for x and y of any strides; with `rounded`, x is rounded to codes of its own whatever the number of tokens. The bits of
/// a token depend neither on the number of threads nor on other tokens, if all are finite, and either up to four or more than four.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn codes_product(
    w: &CodeSlices<'_>,
    rounded: bool,
    x: &ArrayRef2<f32>,
    y: &mut ArrayRef2<f32>,
    epilogue: &Epilogue<'_>,
) {
    let tokens = x.nrows();
    assert!(x.ncols() == w.cols && y.dim() == (tokens, w.rows), "{} x {}: x {:?}, y {:?}", w.rows, w.cols, x.dim(), y.dim());
    w.check();
    if tokens == 0 || w.rows == 0 {
        return;
    }
    // Codes in a pattern meet bytes; whole ones of eight bits meet words.
    let whole = w.pattern == Pattern::Whole;
    let words = whole && w.width == Width::Eight;
    let planes = if rounded { 1 } else { 3 - usize::from(words) };
    let most = if rounded && whole { 4 } else { 2 };
    let rounding = Rounding { words, planes, zero: w.width.zero(), block: BLOCK, order: Order::Blocks { pad: 0 } };
    let frame = Frame { rows: w.rows, cols: w.cols, rounded, rounding, most };
    if !frame.product(x, y, epilogue, &|tile, runs, sums| meet(w, rounding, tile, runs, sums)) {
        unpacked_product(w, x, y, epilogue);
    }
}

/// A product in integers.
pub(super) struct Frame {
    pub rows: usize,
    pub cols: usize,
    /// Whether x is rounded whatever the number of tokens.
    pub rounded: bool,
    pub rounding: Rounding,
    /// The most tokens of a tile.
    pub most: usize,
}

/// Writes the sums of a tile of tokens and some blocks of rows, `(blocks of rows, tokens, rows side by side)`.
pub(super) type Meet<'a> = dyn Fn(&Tile, Range<usize>, &mut [f32]) + Sync + 'a;

impl Frame {
    /// Whether that is how so many tokens are multiplied, which must have codes: then `y = x · Wᵀ` with the epilogue is written.
    pub fn product(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>, meet: &Meet<'_>) -> bool {
        let Frame { rows, cols, rounded, rounding, most } = *self;
        let (tokens, side) = (x.nrows(), side_by_side());
        let work = tokens.saturating_mul(rows * cols);
        let threads = rayon::current_num_threads();
        let parallel = threads > 1 && work >= if is_awake() { AWAKE } else { PARALLEL };
        let tiles = if rounded || tokens <= FEW { rounding.tiles(x, most, parallel && work >= 1 << 22) } else { None };
        let Some(tiles) = tiles else { return false };
        let runs = rows.div_ceil(side);
        let height = if parallel { runs.div_ceil(4 * threads) } else { runs };
        let height = if tokens > TOKENS { height.min(8) } else { height }.max(1);
        let parts: Vec<Range<usize>> = (0..runs).step_by(height).map(|first| first..(first + height).min(runs)).collect();
        let blocks: Vec<&[Tile]> = tiles.chunks(TOKENS / most).collect();
        let out = Out::new(y);
        let task = |tiles: &[Tile], runs: Range<usize>| {
            let mut sums = Scratch::take(most * runs.len() * side, Use::Sums);
            for tile in tiles {
                let sums = &mut sums[..tile.tokens * runs.len() * side];
                meet(tile, runs.clone(), sums);
                for (run, sums) in runs.clone().zip(sums.chunks_exact(tile.tokens * side)) {
                    let first = run * side;
                    for (t, sums) in sums.chunks_exact(side).enumerate() {
                        // SAFETY: each task has its own tokens and outputs, so no two write the same entries of y, and these lie within it.
                        unsafe { epilogue.put(out, tile.first + t, first, &sums[..side.min(rows - first)]) };
                    }
                }
            }
        };
        tasks(blocks.len() * parts.len(), parallel, &|i| task(blocks[i / parts.len()], parts[i % parts.len()].clone()));
        true
    }
}

/// Writes the sums of a tile of tokens and some blocks of rows, `(blocks of rows, tokens, rows side by side)`.
fn meet(w: &CodeSlices<'_>, rounding: Rounding, tile: &Tile, runs: Range<usize>, sums: &mut [f32]) {
    let part = Part { w, rounding, tile };
    match Isa::current() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if Isa::multiplies_bytes() => {
            // SAFETY: this set is only ever current on a machine that has it, and the other was found just now.
            unsafe { part.meet_vnni(runs, sums) }
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this set is only ever current on a machine that has it.
        Isa::Avx512 => unsafe { part.meet_avx512(runs, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { part.meet_avx2(runs, sums) },
        _ => part.meet_by(Portable::<8>, runs, sums),
    }
}

/// A tile of tokens and a weight.
struct Part<'a> {
    w: &'a CodeSlices<'a>,
    rounding: Rounding,
    tile: &'a Tile,
}

impl Part<'_> {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn meet_vnni(&self, runs: Range<usize>, sums: &mut [f32]) {
        self.meet_by(Vnni::new(), runs, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn meet_avx512(&self, runs: Range<usize>, sums: &mut [f32]) {
        self.meet_by(Zmm::new(), runs, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,f16c")]
    fn meet_avx2(&self, runs: Range<usize>, sums: &mut [f32]) {
        self.meet_by(Ymm::new(), runs, sums);
    }

    #[inline(always)]
    fn meet_by<S: Codes>(&self, s: S, runs: Range<usize>, sums: &mut [f32]) {
        let Part { w, rounding, tile } = self;
        let (blocks, tokens, planes) = (w.blocks(), tile.tokens, rounding.planes);
        assert!(S::LANES == side_by_side() && runs.end <= w.runs() && sums.len() == runs.len() * tokens * S::LANES);
        assert!(tile.codes.len() == blocks * tokens * planes * rounding.size() && tile.steps.len() == blocks * tokens);
        w.check();
        let mut runs = runs;
        let mut sums = sums;
        while runs.start < runs.end {
            // One token walks several blocks of rows side by side: memory has more streams, and sums need not wait for one another.
            let side = if S::LANES == 8 && tokens == 1 && runs.len() >= SIDE && w.pattern == Pattern::Whole { SIDE } else { 1 };
            let (run, now);
            (now, sums) = sums.split_at_mut(side * tokens * S::LANES);
            (run, runs.start) = (runs.start, runs.start + side);
            let sums = now;
            // SAFETY: the lists of the weight have what `check` asserts, the tile and the sums what was asserted above.
            unsafe {
                if w.pattern != Pattern::Whole {
                    match (w.width, planes, tokens) {
                        (Width::Four, 1, 1) => self.steps::<S, 1, 1, false>(s, run, sums),
                        (Width::Four, 1, 2) => self.steps::<S, 1, 2, false>(s, run, sums),
                        (Width::Four, 3, 1) => self.steps::<S, 3, 1, false>(s, run, sums),
                        (Width::Four, 3, 2) => self.steps::<S, 3, 2, false>(s, run, sums),
                        (Width::Eight, 1, 1) => self.steps::<S, 1, 1, true>(s, run, sums),
                        (Width::Eight, 1, 2) => self.steps::<S, 1, 2, true>(s, run, sums),
                        (Width::Eight, 3, 1) => self.steps::<S, 3, 1, true>(s, run, sums),
                        (Width::Eight, 3, 2) => self.steps::<S, 3, 2, true>(s, run, sums),
                        (width, planes, tokens) => unreachable!("{tokens} tokens in {planes} planes meet {width:?} bits"),
                    }
                    continue;
                }
                match (w.width, planes, tokens) {
                    (Width::Four, 1, 1) if S::LANES == 8 && side == SIDE => self.run::<S, 1, 1, SIDE, false>(s, run, sums),
                    (Width::Four, 3, 1) if S::LANES == 8 && side == SIDE => self.run::<S, 3, 1, SIDE, false>(s, run, sums),
                    (Width::Eight, 1, 1) if S::LANES == 8 && side == SIDE => self.run::<S, 1, 1, SIDE, true>(s, run, sums),
                    (Width::Eight, 2, 1) if S::LANES == 8 && side == SIDE => self.run::<S, 2, 1, SIDE, true>(s, run, sums),
                    (Width::Four, 1, 1) => self.run::<S, 1, 1, 1, false>(s, run, sums),
                    (Width::Four, 1, 2) => self.run::<S, 1, 2, 1, false>(s, run, sums),
                    (Width::Four, 1, 3) => self.run::<S, 1, 3, 1, false>(s, run, sums),
                    (Width::Four, 1, 4) => self.run::<S, 1, 4, 1, false>(s, run, sums),
                    (Width::Four, 3, 1) => self.run::<S, 3, 1, 1, false>(s, run, sums),
                    (Width::Four, 3, 2) => self.run::<S, 3, 2, 1, false>(s, run, sums),
                    (Width::Eight, 1, 1) => self.run::<S, 1, 1, 1, true>(s, run, sums),
                    (Width::Eight, 1, 2) => self.run::<S, 1, 2, 1, true>(s, run, sums),
                    (Width::Eight, 1, 3) => self.run::<S, 1, 3, 1, true>(s, run, sums),
                    (Width::Eight, 1, 4) => self.run::<S, 1, 4, 1, true>(s, run, sums),
                    (Width::Eight, 2, 1) => self.run::<S, 2, 1, 1, true>(s, run, sums),
                    (Width::Eight, 2, 2) => self.run::<S, 2, 2, 1, true>(s, run, sums),
                    (width, planes, tokens) => unreachable!("{tokens} tokens in {planes} planes meet {width:?} bits"),
                }
            }
        }
    }

    /// `R` blocks of rows meet `T` tokens in `P` planes, codes being bytes if `BYTES`.
    ///
    /// # Safety
    /// The weight has those blocks of rows, and the tile `T` tokens in `P` planes.
    #[inline(always)]
    unsafe fn run<S: Codes, const P: usize, const T: usize, const R: usize, const BYTES: bool>(
        &self,
        s: S,
        run: usize,
        to: &mut [f32],
    ) {
        // SAFETY: as promised by the caller. A branch within the loop would part the tokens, and with them what is held in registers.
        unsafe {
            match self.w.offsets {
                Offsets::Symmetric => self.run_by::<S, P, T, R, BYTES, true>(s, run, to),
                _ => self.run_by::<S, P, T, R, BYTES, false>(s, run, to),
            }
        }
    }

    /// As [`Part::run`]; without offsets if `EVEN`.
    ///
    /// # Safety
    /// As there; `EVEN` is what the weight says.
    #[inline(always)]
    unsafe fn run_by<S: Codes, const P: usize, const T: usize, const R: usize, const BYTES: bool, const EVEN: bool>(
        &self,
        s: S,
        run: usize,
        to: &mut [f32],
    ) {
        let w = self.w;
        let (blocks, groups, group) = (w.blocks(), w.groups(), w.group);
        let (line, input, lines) =
            (4 * S::LANES, self.rounding.size(), const { Pattern::Whole.lines(if BYTES { Width::Eight } else { Width::Four }) });
        let finer = s.splat(self.rounding.finer());
        let mut sums = [[s.splat(0.0); T]; R];
        // SAFETY: block `c` of columns is below `blocks`, line `l` one of the block, and each plane of each token has `input` bytes for it.
        unsafe {
            let next = blocks * lines * line;
            let mut at = w.codes.as_ptr().add(run * next);
            let mut x = self.tile.codes.as_ptr();
            let mut steps = self.tile.steps.as_ptr();
            let mut factor = run * groups * S::LANES;
            let mut left = 0;
            let (mut scale, mut offset) = ([s.splat(0.0); R], [s.splat(0.0); R]);
            for _ in 0..blocks {
                if left == 0 {
                    left = group;
                    for r in 0..R {
                        (scale[r], offset[r]) = w.factors(s, factor + r * groups * S::LANES);
                    }
                    factor += S::LANES;
                }
                left -= 1;
                let mut acc = [[[s.none(); P]; T]; R];
                for l in 0..lines {
                    for r in 0..R {
                        let codes = at.add(r * next + l * line);
                        // Once a line of the cache.
                        if line % 64 == 0 || l % 2 == 0 {
                            ask_codes::<S>(codes);
                        }
                        let codes = s.line(codes);
                        let (first, second) = if BYTES { (s.even(codes), s.odd(codes)) } else { (s.low(codes), s.high(codes)) };
                        for t in 0..T {
                            for p in 0..P {
                                let x = x.add((t * P + p) * input + 8 * l);
                                let (near, far) = (s.four(x), s.four(x.add(4)));
                                let acc = &mut acc[r][t][p];
                                *acc = if BYTES {
                                    s.add_words(s.add_words(*acc, first, near), second, far)
                                } else {
                                    s.add_bytes(s.add_bytes(*acc, first, near), second, far)
                                };
                            }
                        }
                    }
                }
                for t in 0..T {
                    let step: &Step = &*steps.add(t);
                    for r in 0..R {
                        let plane = |p: usize| {
                            let acc = acc[r][t][p];
                            s.float(if BYTES { acc } else { s.closed(acc, if EVEN { step.zero[p] } else { 0 }) })
                        };
                        let mut all = plane(P - 1);
                        for p in (0..P - 1).rev() {
                            all = s.fma(all, finer, plane(p));
                        }
                        sums[r][t] = s.fma(all, s.mul(scale[r], s.splat(step.step)), sums[r][t]);
                        if !EVEN {
                            sums[r][t] = s.fma(offset[r], s.splat(step.sum), sums[r][t]);
                        }
                    }
                }
                at = at.add(lines * line);
                x = x.add(T * P * input);
                steps = steps.add(T);
            }
        }
        for (to, sums) in to.chunks_exact_mut(S::LANES).zip(sums.into_iter().flatten()) {
            s.write(to, sums);
        }
    }

    /// A block of rows of a pattern meets `T` tokens in `P` planes, codes being bytes if `BYTES`.
    ///
    /// # Safety
    /// The weight has that block of rows, and the tile `T` tokens in `P` planes.
    #[inline(always)]
    unsafe fn steps<S: Codes, const P: usize, const T: usize, const BYTES: bool>(&self, s: S, run: usize, to: &mut [f32]) {
        // SAFETY: as promised by the caller.
        unsafe {
            match self.w.pattern {
                Pattern::Near(_) => self.steps_by::<S, P, T, 4, false, BYTES>(s, run, to),
                Pattern::Eight => self.steps_by::<S, P, T, 4, true, BYTES>(s, run, to),
                Pattern::Sixteen | Pattern::Whole => self.steps_by::<S, P, T, 2, false, BYTES>(s, run, to),
            }
        }
    }

    /// As [`Part::steps`], of `STEPS` steps a block, whose columns are named by masks or by places.
    ///
    /// # Safety
    /// As there; the pattern has so many steps.
    #[inline(always)]
    unsafe fn steps_by<S: Codes, const P: usize, const T: usize, const STEPS: usize, const MASKS: bool, const BYTES: bool>(
        &self,
        s: S,
        run: usize,
        to: &mut [f32],
    ) {
        let w = self.w;
        let nearest = w.pattern.nearest();
        let (blocks, groups, group) = (w.blocks(), w.groups(), w.group);
        let (line, input) = (4 * S::LANES, self.rounding.size());
        let lines = 1 + if BYTES { STEPS } else { STEPS / 2 };
        let (finer, ones) = (s.splat(self.rounding.finer()), s.bytes(1));
        let mut sums = [s.splat(0.0); T];
        // SAFETY: block `c` of columns is below `blocks`, with `lines` lines, and each plane of each token has `input` bytes for it, of which a window is
        // sixteen.
        unsafe {
            let mut at = w.codes.as_ptr().add(run * blocks * lines * line);
            let mut x = self.tile.codes.as_ptr();
            let mut steps = self.tile.steps.as_ptr();
            let mut factor = run * groups * S::LANES;
            let mut left = 0;
            let (mut scale, mut offset) = (s.splat(0.0), s.splat(0.0));
            for _ in 0..blocks {
                if left == 0 {
                    left = group;
                    (scale, offset) = w.factors(s, factor);
                    factor += S::LANES;
                }
                left -= 1;
                let mut acc = [[s.none(); P]; T];
                // Of the numbers of x that are met.
                let mut met = [[s.none(); P]; T];
                let first = s.line(at);
                for l in 0..lines {
                    if line % 64 == 0 || l % 2 == 0 {
                        ask_codes::<S>(at.wrapping_add(l * line));
                    }
                }
                for step in 0..STEPS {
                    let codes = s.line(at.add((1 + if BYTES { step } else { step / 2 }) * line));
                    let codes = match (BYTES, step % 2) {
                        (true, _) => codes,
                        (false, 0) => s.low(codes),
                        (false, _) => s.high(codes),
                    };
                    let named = named::<S, STEPS, MASKS>(s, first, nearest, step);
                    for t in 0..T {
                        for p in 0..P {
                            let window = s.window(x.add((t * P + p) * input + if STEPS == 4 { step / 2 } else { step } * 16));
                            let x = s.pick(window, named);
                            met[t][p] = s.add_bytes(met[t][p], ones, x);
                            acc[t][p] = if BYTES {
                                s.add_words(s.add_words(acc[t][p], s.even(codes), s.even(x)), s.odd(codes), s.odd(x))
                            } else {
                                s.add_bytes(acc[t][p], codes, x)
                            };
                        }
                    }
                }
                for t in 0..T {
                    let step: &Step = &*steps.add(t);
                    let code = |p: usize| s.float(if BYTES { acc[t][p] } else { s.closed(acc[t][p], 0) });
                    let meet = |p: usize| s.float(s.closed(met[t][p], 0));
                    let (mut all, mut sum) = (code(P - 1), meet(P - 1));
                    for p in (0..P - 1).rev() {
                        (all, sum) = (s.fma(all, finer, code(p)), s.fma(sum, finer, meet(p)));
                    }
                    let step = s.splat(step.step);
                    sums[t] = s.fma(all, s.mul(scale, step), sums[t]);
                    sums[t] = s.fma(sum, s.mul(offset, step), sums[t]);
                }
                at = at.add(lines * line);
                x = x.add(T * P * input);
                steps = steps.add(T);
            }
        }
        for (to, sums) in to.chunks_exact_mut(S::LANES).zip(sums) {
            s.write(to, sums);
        }
    }
}
