//! Which storage, and when it is worth its while.

use super::cost::Sizes;
use super::machine::Machine;
use crate::Result;
use crate::kernels::Epilogue;
use crate::mask::Mask;
use crate::rng::Seed;
use crate::sparse::{Format, LinearOp, Precision};
use ndarray::{Array2, ArrayRef2};
use std::time::{Duration, Instant};

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// Tokens of a usual product.
    pub tokens: usize,
    /// Whether products of one token come as well: then they get a storage of their own where that is faster, and memory for both.
    pub single_too: bool,
    /// Whether the weight comes from memory at each product, as those of a model do that is larger than the caches; else the last cache is
    /// taken to hold it, if it can.
    pub from_memory: bool,
}

impl Hint {
    /// Products of so many tokens.
    pub fn tokens(tokens: usize) -> Hint {
        Hint { tokens, single_too: false, from_memory: false }
    }

    /// Products of so many tokens, and of one.
    pub fn tokens_and_single(tokens: usize) -> Hint {
        Hint { single_too: true, ..Hint::tokens(tokens) }
    }

    /// The same, of weights that come from memory each time.
    pub fn from_memory(self) -> Hint {
        Hint { from_memory: true, ..self }
    }
}

/// A weight in the storage that multiplies it fastest on this machine, dense if that is the one; [`Plan::chosen`] says so. A dense
/// storage multiplies dropped weights as zeros, so that an infinity in x makes NaNs, as [`Dense`](super::Dense) does.
///
/// ```
/// use lacuna::{mask::Mask, sparse::{apply, Hint, LinearOp, Plan}};
/// use ndarray::array;
/// let w = array![[1., 2., 0.], [0., 0., 3.]];
/// let plan = Plan::new(&w, &Mask::from_fn(2, 3, |r, c| r != c), Hint::tokens(1)).unwrap();
/// assert_eq!(apply(&plan, &array![[1., 10., 100.]]), array![[20., 300.]]);
/// println!("{}", plan.explain());
/// ```
pub struct Plan {
    mask: Mask,
    single_wanted: bool,
    main: Choice,
    /// For products of one token, where the hint asks for them and another storage is better at it.
    single: Option<Choice>,
}

/// One storage, and how it was chosen.
struct Choice {
    format: Format,
    op: Box<dyn LinearOp>,
    tokens: usize,
    why: String,
}

/// A dense product has to be this much slower than a sparse one before it is given up.
const BONUS: f64 = 1.03;
/// Time for each storage that is tried.
const TRIAL: Duration = Duration::from_millis(4);

impl Plan {
    /// Chooses by a model of costs: instructions and bytes of each storage on this machine's caches.
    ///
    /// # Errors
    /// If the shapes differ, or there are 2³² weights or more.
    pub fn new(weight: &ArrayRef2<f32>, mask: &Mask, hint: Hint) -> Result<Plan> {
        let main = Choice::by_model(weight, mask, hint.tokens.max(1), hint.from_memory)?;
        let single_wanted = hint.single_too && hint.tokens > 1;
        let single = if single_wanted { Choice::by_model(weight, mask, 1, hint.from_memory)?.unless(&main) } else { None };
        Ok(Plan { mask: mask.clone(), single_wanted, main, single })
    }

    /// Times dense and the three storages that the model ranks highest, some milliseconds each, and keeps the fastest. Trials multiply
    /// from the caches, whatever the hint says of memory.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn tune(&mut self) -> Result<()> {
        let weight = self.main.op.to_dense();
        let main = Choice::by_trial(&weight, &self.mask, self.main.tokens)?;
        self.single = match self.single_wanted {
            true => Choice::by_trial(&weight, &self.mask, 1)?.unless(&main),
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

    fn by_model(weight: &ArrayRef2<f32>, mask: &Mask, tokens: usize, cold: bool) -> Result<Choice> {
        let (sizes, machine) = (Sizes::of(mask, tokens, cold), Machine::here());
        let dense = sizes.cycles(Format::Dense, &machine);
        let (sparse, cost) = sizes.ranked(&machine)[0];
        let format = if cost * BONUS < dense { sparse } else { Format::Dense };
        let why = format!("thousand cycles expected: dense {:.0}, {sparse} {:.0}", dense / 1e3, cost / 1e3);
        Ok(Choice { format, op: format.build(weight, mask, Precision::F32)?, tokens, why })
    }

    fn by_trial(weight: &ArrayRef2<f32>, mask: &Mask, tokens: usize) -> Result<Choice> {
        let x = Seed(0).stream("plan").normal_array(tokens, weight.ncols(), 1.0);
        let mut y = Array2::zeros((tokens, weight.nrows()));
        let mut timed = |format: Format| -> Result<(f64, Box<dyn LinearOp>)> {
            let op = format.build(weight, mask, Precision::F32)?;
            Ok((median_seconds(|| op.apply_into(&x, &mut y), TRIAL), op))
        };
        let (dense, op) = timed(Format::Dense)?;
        let (mut best, mut choice) = (dense / BONUS, (Format::Dense, op));
        let mut why = format!("timed: dense {:.1} us", dense * 1e6);
        for (format, _) in Sizes::of(mask, tokens, false).ranked(&Machine::here()).into_iter().take(3) {
            let (seconds, op) = timed(format)?;
            why += &format!(", {format} {:.1} us", seconds * 1e6);
            if seconds < best {
                (best, choice) = (seconds, (format, op));
            }
        }
        let (format, op) = choice;
        Ok(Choice { format, op, tokens, why })
    }
}

/// The median of at least five runs that together take so long, after one to warm up.
pub(crate) fn median_seconds(mut run: impl FnMut(), long: Duration) -> f64 {
    run();
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 5 || (start.elapsed() < long && times.len() < 1000) {
        let before = Instant::now();
        run();
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
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

    fn pull_into(&self, dy: &ArrayRef2<f32>, dx: &mut ArrayRef2<f32>) {
        self.choice(dy.nrows()).op.pull_into(dy, dx);
    }

    fn to_dense(&self) -> Array2<f32> {
        self.main.op.to_dense()
    }

    fn nnz(&self) -> usize {
        self.mask.kept()
    }

    fn bytes(&self) -> usize {
        self.main.op.bytes() + self.single.as_ref().map_or(0, |s| s.op.bytes())
    }
}
