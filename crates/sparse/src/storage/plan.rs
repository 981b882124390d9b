//! Which storage, and when it is worth its while.

use super::cost::Sizes;
use super::entries::Entries;
use super::machine::Machine;
use crate::Result;
use crate::kernels::Epilogue;
use crate::mask::Mask;
use crate::storage::{Format, Hint, LinearOp};
use ndarray::{Array2, ArrayRef2};
use std::time::{Duration, Instant};

/// A weight in the storage that multiplies it fastest on this machine, dense if that is the one; [`Plan::chosen`] says so. A dense
/// storage multiplies dropped weights as zeros, so that an infinity in x makes NaNs, as [`Dense`](super::Dense) does.
///
/// ```
/// use lacuna_sparse::{mask::Mask, storage::{apply, Hint, LinearOp, Plan}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let plan = Plan::new(&w, &Mask::from_fn(2, 3, |r, c| r != c), Hint::tokens(1)).unwrap();
/// assert_eq!(apply(&plan, &array![[1., 10., 100.]]), array![[20., 300.]]);
/// println!("{}", plan.explain());
/// ```
#[derive(Debug)]
pub struct Plan {
    mask: Mask,
    hint: Hint,
    main: Choice,
    /// For products of one token, where the hint asks for them and another storage is better at it.
    single: Option<Choice>,
}

/// One storage, and how it was chosen.
#[derive(Debug)]
struct Choice {
    format: Format,
    op: Box<dyn LinearOp>,
    tokens: usize,
    why: String,
}

/// A dense product has to be this much slower than a sparse one before it is given up.
const BONUS: f64 = 1.03;
/// Time of a turn of one storage that is tried, at least.
const TURN: Duration = Duration::from_millis(2);
/// Time before it that does not count: a last cache that others filled may take ten passes until it holds a weight, and those of two
/// cores that share a product a millisecond.
const SETTLE: Duration = Duration::from_millis(4);
/// Turns of each.
const TURNS: usize = 7;
/// Turns of each where weights come from memory: a turn is one product.
const COLD_TURNS: usize = 15;

impl Plan {
    /// Chooses by a model of costs: instructions and bytes of each storage on this machine's caches.
    ///
    /// # Errors
    /// If the shapes differ, there are 2³² weights or more, or for values with scales, a weight is not finite or no storage has such groups.
    pub fn new(weight: &ArrayRef2<f32>, mask: &Mask, hint: Hint) -> Result<Plan> {
        let main = Choice::by_model(weight, mask, hint, hint.tokens.max(1))?;
        let single = if hint.two() { Choice::by_model(weight, mask, hint, 1)?.unless(&main) } else { None };
        Ok(Plan { mask: mask.clone(), hint, main, single })
    }

    /// The sparse storages that a plan thinks of for what the mask keeps, the cheapest by the model first, whether or not dense is cheaper still.
    /// There is always one, but of four bits and of eight with zero points.
    pub fn candidates(mask: &Mask, hint: Hint) -> Vec<Format> {
        let sizes = Sizes::of(mask, hint.tokens.max(1), hint);
        sizes.ranked(&Machine::here()).into_iter().map(|(format, _)| format).collect()
    }

    /// Times dense, the three storages that the model ranks highest, the best of another kind and those made for the mask's pattern, some 40 ms
    /// each and in turns, and keeps the fastest; a sparse one only if it is faster by 3 % in the median turn. Where the hint says
    /// that weights come from memory, the caches are emptied before each product, else trials multiply from them. The weight is what
    /// the plan stores by now: one that was rounded to the hint's values stays so, dense or not (codes with zero points are chosen anew).
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn tune(&mut self) -> Result<()> {
        let weight = self.main.op.to_dense();
        let main = Choice::by_trial(&weight, &self.mask, self.hint, self.main.tokens)?;
        self.single = match self.hint.two() {
            true => Choice::by_trial(&weight, &self.mask, self.hint, 1)?.unless(&main),
            false => None,
        };
        self.main = main;
        Ok(())
    }

    /// What was chosen, for which tokens, and why: one line a storage.
    pub fn explain(&self) -> String {
        let (rows, cols) = self.mask.dim();
        let line = |c: &Choice| {
            let (kept, all) = (self.mask.kept(), rows * cols);
            let (tokens, format, why) = (c.tokens, c.format, &c.why);
            let isa = Machine::here().isa.name();
            format!("{rows} x {cols}, {kept} of {all} kept, {tokens} tokens: {format} ({isa}); {why}")
        };
        [Some(&self.main), self.single.as_ref()].into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The storage for products of so many tokens.
    pub fn chosen(&self, tokens: usize) -> Format {
        self.choice(tokens).format
    }

    /// The mask of what is kept.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    fn choice(&self, tokens: usize) -> &Choice {
        match &self.single {
            Some(single) if tokens == 1 => single,
            _ => &self.main,
        }
    }
}

impl Choice {
    /// One storage is enough where both would be the same.
    fn unless(self, other: &Choice) -> Option<Choice> {
        (self.format != other.format).then_some(self)
    }

    fn by_model(weight: &ArrayRef2<f32>, mask: &Mask, hint: Hint, tokens: usize) -> Result<Choice> {
        let (sizes, machine) = (Sizes::of(mask, tokens, hint), Machine::here());
        let dense = sizes.cycles(Format::Dense, &machine);
        let best = sizes.ranked(&machine).into_iter().next();
        let format = best.filter(|(_, cost)| cost * BONUS < dense).map_or(Format::Dense, |(sparse, _)| sparse);
        let other = best.map_or(String::new(), |(sparse, cost)| format!(", {sparse} {:.0}", cost / 1e3));
        let why = format!("thousand cycles expected: dense {:.0}{other}", dense / 1e3);
        Ok(Choice { format, op: hint.build(format, weight, mask)?, tokens, why })
    }

    fn by_trial(weight: &ArrayRef2<f32>, mask: &Mask, hint: Hint, tokens: usize) -> Result<Choice> {
        let x = numbers(tokens, weight.ncols());
        let mut y = Array2::zeros((tokens, weight.nrows()));
        let sizes = Sizes::of(mask, tokens, hint);
        let mut formats = vec![Format::Dense];
        let ranked: Vec<Format> = sizes.ranked(&Machine::here()).into_iter().map(|(format, _)| format).collect();
        formats.extend(ranked.iter().take(3));
        // The model knows nothing of threads, which not all kinds share their work between equally well.
        let of_no_kind = |format: &&Format| formats.iter().all(|f| std::mem::discriminant(f) != std::mem::discriminant(*format));
        formats.extend(ranked.iter().find(of_no_kind).copied());
        let others: Vec<_> = sizes.of_pattern().filter(|format| ranked.contains(format) && !formats.contains(format)).collect();
        formats.extend(others);
        let build = |format: Format| Ok((format, hint.build(format, weight, mask)?));
        let mut tried: Vec<(Format, Box<dyn LinearOp>)> = formats.into_iter().map(build).collect::<Result<_>>()?;
        let run = |op: &dyn LinearOp| op.apply_into(&x, &mut y);
        let turns = if hint.from_memory { in_cold_turns(&tried, run) } else { in_turns(&tried, run) };
        // What the machine does meanwhile meets all storages of a round alike, so they are compared within rounds.
        let share = |i: usize| median(turns[i].iter().zip(&turns[0]).map(|(seconds, dense)| seconds / dense).collect());
        let best = (1..tried.len()).map(|i| (share(i) * BONUS, i)).min_by(|a, b| a.0.total_cmp(&b.0));
        let best = best.filter(|(share, _)| *share < 1.0).map_or(0, |(_, i)| i);
        let line = |(of, turns): (&(Format, _), &Vec<f64>)| format!("{} {:.1} us", of.0, median(turns.clone()) * 1e6);
        let from = if hint.from_memory { " from memory" } else { "" };
        let why = format!("timed{from}: {}", tried.iter().zip(&turns).map(line).collect::<Vec<_>>().join(", "));
        let (format, op) = tried.swap_remove(best);
        Ok(Choice { format, op, tokens, why })
    }
}

/// Seconds of a product of each storage, turn by turn: all of them take one, then all of them the next.
fn in_turns(tried: &[(Format, Box<dyn LinearOp>)], mut run: impl FnMut(&dyn LinearOp)) -> Vec<Vec<f64>> {
    let mut turns = vec![Vec::new(); tried.len()];
    for _ in 0..TURNS {
        for ((_, op), turns) in tried.iter().zip(&mut turns) {
            // The others' weights leave the caches; a product that takes longer than a turn takes no notice.
            let (begin, mut times) = (Instant::now(), Vec::new());
            run(op.as_ref());
            if begin.elapsed() > TURN && !turns.is_empty() {
                times.push(begin.elapsed().as_secs_f64());
            }
            while times.is_empty() && begin.elapsed() < SETTLE {
                run(op.as_ref());
            }
            let begin = Instant::now();
            while times.is_empty() || begin.elapsed() < TURN {
                let before = Instant::now();
                run(op.as_ref());
                times.push(before.elapsed().as_secs_f64());
            }
            turns.push(median(times));
        }
    }
    turns
}

/// The same where no cache holds a weight: before each product, all threads read what takes its place.
fn in_cold_turns(tried: &[(Format, Box<dyn LinearOp>)], mut run: impl FnMut(&dyn LinearOp)) -> Vec<Vec<f64>> {
    let Machine { l2, l3, .. } = Machine::here();
    let others = vec![1.0f32; (l3.clamp(8 << 20, 256 << 20) * 2 + l2) / 4];
    let mut turns = vec![Vec::new(); tried.len()];
    for _ in 0..COLD_TURNS {
        for ((_, op), turns) in tried.iter().zip(&mut turns) {
            let read = |_: rayon::BroadcastContext<'_>| std::hint::black_box(others.iter().step_by(16).sum::<f32>());
            rayon::broadcast(read);
            let before = Instant::now();
            run(op.as_ref());
            turns.push(before.elapsed().as_secs_f64());
        }
    }
    turns
}

/// The median of at least five runs that together take so long, after one to warm up.
pub fn median_seconds(mut run: impl FnMut(), long: Duration) -> f64 {
    run();
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 5 || (start.elapsed() < long && times.len() < 1000) {
        let before = Instant::now();
        run();
        times.push(before.elapsed().as_secs_f64());
    }
    median(times)
}

/// The median of some numbers, which are not none.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

impl LinearOp for Plan {
    /// The storage for the tokens of the hint.
    fn format(&self) -> &str {
        self.main.op.format()
    }

    fn shape(&self) -> (usize, usize) {
        self.main.op.shape()
    }

    fn apply_with(&self, x: &ArrayRef2<f32>, y: &mut ArrayRef2<f32>, epilogue: &Epilogue<'_>) {
        self.choice(x.nrows()).op.apply_with(x, y, epilogue);
    }

    fn apply_transpose_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        self.choice(dy.nrows()).op.apply_transpose_into(dy, dx);
    }

    fn to_dense(&self) -> Array2<f32> {
        self.main.op.to_dense()
    }

    fn row_into(&self, row: usize, to: &mut [f32]) {
        self.main.op.row_into(row, to);
    }

    /// What the plan's mask keeps, in the numbers of the storage for the tokens of the hint.
    fn entries(&self) -> Entries {
        let entries = self.main.op.entries();
        if self.main.format == Format::Dense { entries.only(&self.mask) } else { entries }
    }

    fn nnz(&self) -> usize {
        self.mask.kept()
    }

    fn bytes(&self) -> usize {
        self.main.op.bytes() + self.single.as_ref().map_or(0, |s| s.op.bytes())
    }
}

/// Numbers from [-1, 1) without a pattern (xorshift), to be multiplied in a trial.
fn numbers(rows: usize, cols: usize) -> Array2<f32> {
    let mut state = 0x9e37_79b9u32;
    Array2::from_shape_simple_fn((rows, cols), || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}
