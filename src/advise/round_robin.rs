//! Products timed in turns, so that what the machine does meanwhile meets all of them.

use crate::Result;
use crate::linalg::{Product, Threads};
use crate::report::{median, quantile};
use crate::sparse::{Dense, LinearOp, Machine, PackedDense};
use ndarray::{Array2, ArrayRef2};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Writes x · Wᵀ of some weight.
type Run<'a> = Box<dyn FnMut(&ArrayRef2<f32>, &mut ArrayRef2<f32>) + 'a>;

/// A product with a name; it is run on one copy of its weight after the other.
pub struct Contender<'a> {
    name: &'static str,
    run: Run<'a>,
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Contender<'a> {
    /// Anything that writes `y (tokens, out)` from `x (tokens, in)`.
    pub fn new(name: &'static str, run: impl FnMut(&ArrayRef2<f32>, &mut ArrayRef2<f32>) + 'a) -> Contender<'a> {
        Contender { name, run: Box::new(run) }
    }

    /// Copies of one storage.
    ///
    /// # Panics
    /// When it is run, if there is none.
    pub fn storages(name: &'static str, ops: &'a [Box<dyn LinearOp>]) -> Contender<'a> {
        let mut turn = 0;
        Contender::new(name, move |x, y| {
            ops[turn % ops.len()].apply_into(x, y);
            turn += 1;
        })
    }

    /// Every dense product that is linked: first the weights packed, as a [`Plan`](crate::sparse::Plan) keeps a dense weight, then as they lie.
    ///
    /// # Panics
    /// When one is run, if there is no weight.
    pub fn dense(weights: &'a [Dense]) -> Vec<Contender<'a>> {
        let packed: Vec<PackedDense> = weights.iter().map(|w| PackedDense::new(w.weight())).collect();
        let mut turn = 0;
        let packed = Contender::new("packed", move |x, y| {
            packed[turn % packed.len()].apply_into(x, y);
            turn += 1;
        });
        let as_they_lie = Product::ALL.into_iter().map(|product| {
            let mut turn = 0;
            Contender::new(product.name(), move |x, y| {
                let w = &weights[turn % weights.len()];
                turn += 1;
                product.run(1.0, x, &w.weight().t(), 0.0, y, Threads::Pool);
            })
        });
        std::iter::once(packed).chain(as_they_lie).collect()
    }
}

/// How turns are taken.
///
/// | field | default | range | meaning |
/// |---|---|---|---|
/// | `seconds` | | 0 and more | time for all contenders together |
/// | `turn` | 0.005 | 0 and more | seconds of a turn at least, and of what goes before it untimed |
/// | `runs` | 3 | 1 and more | products of a turn at least |
/// | `rounds` | 4 | 1 and more | turns of each contender at least |
/// | `once_above` | `seconds` | 0 and more | seconds of a product above which it is timed once |
/// | `from_memory` | false | | the caches are emptied before each product, and a turn is `runs` products |
///
/// The time before a turn lets clocks and caches settle. A last cache that others filled may take ten passes until it holds a weight: with less,
/// whoever reads what the one before it read looks faster (by a fifth, with 9 MB in a cache of 32).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoundRobin {
    /// Seconds for all contenders together.
    pub seconds: f64,
    /// Seconds of a turn at least.
    pub turn: f64,
    /// Products of a turn at least.
    pub runs: usize,
    /// Turns of each contender at least.
    pub rounds: usize,
    /// Seconds of a product above which it is timed once.
    pub once_above: f64,
    /// Whether weights come from memory at each product.
    pub from_memory: bool,
}

impl RoundRobin {
    /// The usual turns, in so many seconds for all contenders together.
    pub fn of(seconds: f64) -> RoundRobin {
        RoundRobin { seconds, turn: 5e-3, runs: 3, rounds: 4, once_above: seconds, from_memory: false }
    }
}

/// What was timed of a contender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timed {
    /// Its name.
    pub name: &'static str,
    /// Median microseconds of a product.
    pub us: f64,
    /// The quartiles.
    pub quartiles_us: [f64; 2],
    /// Products that were timed.
    pub timed: usize,
}

impl RoundRobin {
    /// Times each contender on `x (tokens, in)` with outputs `(tokens, out)`. They take turns; one that needs more than `once_above` for one product
    /// runs once. In their order.
    ///
    /// ```
    /// use lacuna::advise::{Contender, RoundRobin};
    /// use ndarray::Array2;
    /// let weight = Array2::<f32>::eye(4);
    /// let by_hand = Contender::new("ndarray", |x, y| y.assign(&x.dot(&weight.t())));
    /// let timed = RoundRobin { turn: 1e-4, ..RoundRobin::of(0.01) }.time(&mut [by_hand], &Array2::ones((2, 4)), 4)?;
    /// assert!(timed[0].name == "ndarray" && timed[0].us > 0.0 && timed[0].timed >= 12);
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    ///
    /// # Errors
    /// None that a machine with a clock gives.
    pub fn time(&self, contenders: &mut [Contender<'_>], x: &ArrayRef2<f32>, out: usize) -> Result<Vec<Timed>> {
        let mut y = Array2::zeros((x.nrows(), out));
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
        let others = if self.from_memory { beyond_caches() } else { Vec::new() };
        let begin = Instant::now();
        let mut rounds = 0;
        while rounds < self.rounds.max(1) || begin.elapsed().as_secs_f64() < self.seconds {
            // Forth and back, so that nobody always comes behind one that reads the same weight.
            let n = contenders.len();
            for i in 0..n {
                let i = if rounds % 2 == 0 { i } else { n - 1 - i };
                let (contender, times) = (&mut contenders[i], &mut times[i]);
                if times.first().is_some_and(|us| us * 1e-6 > self.once_above) {
                    continue;
                }
                let mut once = || {
                    let start = Instant::now();
                    (contender.run)(x, &mut y);
                    let took = start.elapsed();
                    std::hint::black_box(&y);
                    micros(took)
                };
                match self.from_memory {
                    true => self.cold_turn(&others, times, once),
                    false => self.warm_turn(rounds == 0, times, &mut once),
                }
            }
            rounds += 1;
        }
        let timed = |(c, times): (&Contender<'_>, Vec<f64>)| {
            let quartiles_us = [quantile(&times, 0.25)?, quantile(&times, 0.75)?];
            Ok(Timed { name: c.name, us: median(&times)?, quartiles_us, timed: times.len() })
        };
        contenders.iter().zip(times).map(timed).collect()
    }

    /// Products until the others' weights have left the caches, then those that count.
    fn warm_turn(&self, first: bool, times: &mut Vec<f64>, once: &mut impl FnMut() -> f64) {
        let turn = Instant::now();
        let us = once();
        if turn.elapsed().as_secs_f64() > self.once_above && first {
            times.push(us);
            return;
        }
        while turn.elapsed().as_secs_f64() < self.turn {
            once();
        }
        let turn = Instant::now();
        for run in 1.. {
            times.push(once());
            if run >= self.runs && turn.elapsed().as_secs_f64() >= self.turn {
                break;
            }
        }
    }

    /// Products of which each is behind a reading of other memory by all threads.
    fn cold_turn(&self, others: &[f32], times: &mut Vec<f64>, mut once: impl FnMut() -> f64) {
        for _ in 0..self.runs.max(1) {
            rayon::broadcast(|_| std::hint::black_box(others.iter().step_by(16).sum::<f32>()));
            times.push(once());
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Numbers that fill all caches.
fn beyond_caches() -> Vec<f32> {
    let Machine { l2, l3, .. } = Machine::here();
    vec![1.0; (l3.clamp(8 << 20, 256 << 20) * 2 + l2) / 4]
}
