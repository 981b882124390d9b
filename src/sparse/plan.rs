//! Which storage, and when it is worth its while.

use super::cost::{candidates, cycles};
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
}

impl Hint {
    /// Products of so many tokens.
    pub fn tokens(tokens: usize) -> Hint {
        Hint { tokens, single_too: false }
    }

    /// Products of so many tokens, and of one.
    pub fn tokens_and_single(tokens: usize) -> Hint {
        Hint { tokens, single_too: true }
    }
}

/// A weight in the storage that multiplies it fastest on this machine, dense if that is the one.
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
    hint: Hint,
    main: Choice,
    /// For products of one token, where the hint asks for them and another storage is better at it.
    single: Option<Choice>,
}

/// One storage, and how it was chosen.
struct Choice {
    candidate: Format,
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
        let main = Choice::by_model(weight, mask, hint.tokens.max(1))?;
        let single = if hint.single_too && hint.tokens > 1 { Some(Choice::by_model(weight, mask, 1)?) } else { None };
        Ok(Plan { mask: mask.clone(), hint, main, single }.merged())
    }

    /// Times the two best sparse storages of the model, the one in use and dense, a few milliseconds each, and keeps the fastest.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn tune(&mut self) -> Result<()> {
        let weight = self.main.op.to_dense();
        self.main = Choice::by_trial(&weight, &self.mask, self.hint.tokens.max(1))?;
        if self.hint.single_too && self.hint.tokens > 1 {
            self.single = Some(Choice::by_trial(&weight, &self.mask, 1)?);
        }
        let (mask, main) = (Mask::empty(0, 0), Choice::none());
        let plan = std::mem::replace(self, Plan { mask, hint: self.hint, main, single: None });
        *self = plan.merged();
        Ok(())
    }

    /// One storage is enough where both would be the same.
    fn merged(mut self) -> Plan {
        if self.single.as_ref().is_some_and(|s| s.candidate == self.main.candidate) {
            self.single = None;
        }
        self
    }

    /// What was chosen, for which tokens, and why: one line a storage.
    pub fn explain(&self) -> String {
        let (rows, cols) = self.mask.dim();
        let line = |c: &Choice| {
            let (kept, all) = (self.mask.kept(), rows * cols);
            let (tokens, candidate, why) = (c.tokens, c.candidate, &c.why);
            let isa = Machine::here().isa.name();
            format!("{rows} x {cols}, {kept} of {all} kept, {tokens} tokens: {candidate} ({isa}); {why}")
        };
        [Some(&self.main), self.single.as_ref()].into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The storage for products of so many tokens.
    pub fn chosen(&self, tokens: usize) -> Format {
        self.choice(tokens).candidate
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
    fn none() -> Choice {
        let op = Box::new(super::Dense::new(Array2::zeros((0, 0))));
        Choice { candidate: Format::Dense, op, tokens: 0, why: String::new() }
    }

    fn by_model(weight: &ArrayRef2<f32>, mask: &Mask, tokens: usize) -> Result<Choice> {
        let machine = Machine::here();
        let cost = |c: Format| cycles(c, mask, tokens, &machine);
        let dense = cost(Format::Dense);
        let best = candidates(mask, tokens).into_iter().min_by(|&a, &b| cost(a).total_cmp(&cost(b)));
        let (candidate, own) = match best {
            Some(best) if cost(best) * BONUS < dense => (best, cost(best)),
            _ => (Format::Dense, dense),
        };
        let other = best.map_or("none".to_string(), |b| format!("{} at {:.0}", b, cost(b) / 1e3));
        let why = match candidate {
            Format::Dense => format!("{:.0} thousand cycles expected, the best sparse storage {other}", dense / 1e3),
            _ => format!("{:.0} thousand cycles expected, dense {:.0}", own / 1e3, dense / 1e3),
        };
        Ok(Choice { candidate, op: candidate.build(weight, mask, Precision::F32)?, tokens, why })
    }

    fn by_trial(weight: &ArrayRef2<f32>, mask: &Mask, tokens: usize) -> Result<Choice> {
        let machine = Machine::here();
        let mut sparse = candidates(mask, tokens);
        sparse.sort_by(|&a, &b| cycles(a, mask, tokens, &machine).total_cmp(&cycles(b, mask, tokens, &machine)));
        sparse.truncate(3);
        let x = Seed(0).stream("plan").normal_array(tokens, weight.ncols(), 1.0);
        let mut y = Array2::zeros((tokens, weight.nrows()));
        let mut best: Option<(f64, Format, Box<dyn LinearOp>)> = None;
        let mut seen = Vec::new();
        for candidate in std::iter::once(Format::Dense).chain(sparse) {
            let op = candidate.build(weight, mask, Precision::F32)?;
            let seconds = median_seconds(|| op.apply_into(&x, &mut y));
            seen.push(format!("{} {:.1} us", candidate, seconds * 1e6));
            let handicap = if candidate == Format::Dense { 1.0 } else { BONUS };
            if best.as_ref().is_none_or(|(fastest, ..)| seconds * handicap < *fastest) {
                best = Some((seconds * handicap, candidate, op));
            }
        }
        let why = format!("timed: {}", seen.join(", "));
        Ok(best.map_or_else(Choice::none, |(_, candidate, op)| Choice { candidate, op, tokens, why }))
    }
}

/// The median of several runs, after one to warm up.
fn median_seconds(mut run: impl FnMut()) -> f64 {
    run();
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < 5 || (start.elapsed() < TRIAL && times.len() < 1000) {
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
