//! Measures a machine: dense products and sparse storages in turns, at the points of a grid.

use super::grid::MeasurementGrid;
use super::profile::{Key, Median, Profile, ShapeTimings, Sparse};
use super::round_robin::{Contender, RoundRobin, Timed};
use crate::eval::available_memory;
use crate::mask::{Mask, Pattern, Scope, select};
use crate::rng::Seed;
use crate::sparse::{Dense, Format, Hint, LinearOp, Machine, Plan, Precision};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2};
use std::time::Instant;

/// Name of every sparse storage among contenders; they are told apart by their places.
const SPARSE: &str = "sparse";
/// Storages that are tried for each mask: those that the model of costs ranks highest, and the one that is made for its pattern.
const RANKED: usize = 2;
/// Seconds of a product from which on it is timed a few times only.
const SLOW: f64 = 0.01;
/// Seconds from which on it is timed once, whatever its quartiles would be.
const VERY_SLOW: f64 = 0.25;

/// Seconds for the products of a cell from which on more are no better spent on them than on larger ones.
const ENOUGH: f64 = 1.0;

/// Runs on so many threads, from 1 to 1024.
///
/// # Errors
/// [`Error::InvalidOption`] for other numbers, or if the system has no such threads.
pub fn in_pool<T: Send>(threads: usize, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if !(1..=1024).contains(&threads) {
        return Err(Error::invalid_option("threads", format!("{threads}, where 1 to 1024 are possible")));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| Error::invalid_option("threads", e.to_string()))?.install(run)
}

/// Measures this machine with so many threads: random weights, pruned by magnitude, times of each cell's dense products and sparse storages in
/// turns. `see` is told after each cell how many of all are done. Cells for which time or memory does not suffice are left out, the largest first;
/// the first is always measured.
///
/// # Errors
/// [`Error::InvalidOption`] if the grid is empty or has a pattern that does not fit its shapes, or for an impossible number of threads.
pub fn measure(grid: &MeasurementGrid, threads: usize, seed: Seed, mut see: impl FnMut(usize, usize) + Send) -> Result<Profile> {
    let cells = grid.cells();
    if cells.is_empty() || grid.masks().is_empty() {
        return Err(Error::invalid_option("grid", "has no shapes, tokens or masks"));
    }
    in_pool(threads, || {
        let begin = Instant::now();
        let (mut measured, mut masked): (Vec<ShapeTimings>, Option<Masked>) = (Vec::new(), None);
        // Seconds of the last cell, and multiplications of it: the next one takes about as long for each.
        let mut last: Option<(f64, f64)> = None;
        for (done, &(shape, tokens, from_memory)) in cells.iter().enumerate() {
            let left = grid.seconds - begin.elapsed().as_secs_f64();
            let work = (shape.0 * shape.1 * tokens) as f64;
            let expected = last.map_or(0.0, |(seconds, of)| seconds * (work / of).clamp(0.5, 16.0));
            if !measured.is_empty() && (expected > left || !fits(shape, grid)) {
                see(done + 1, cells.len());
                continue;
            }
            let of_shape = match masked.take().filter(|m| m.weight.dim() == shape) {
                Some(same) => same,
                None => Masked::new(shape, grid, seed)?,
            };
            let started = Instant::now();
            let share = (left / (cells.len() - done) as f64).clamp(0.0, ENOUGH);
            measured.push(of_shape.cell(tokens, from_memory, share, seed)?);
            last = Some((started.elapsed().as_secs_f64(), work));
            masked = Some(of_shape);
            see(done + 1, cells.len());
        }
        let (key, last_cache) = (Key::here(threads), Machine::here().l3);
        Ok(Profile { key, grid: grid.clone(), seconds: begin.elapsed().as_secs_f64(), last_cache, cells: measured })
    })
}

/// Whether a shape's weight and all of its storages fit the free memory.
fn fits((out, inputs): (usize, usize), grid: &MeasurementGrid) -> bool {
    let storages = (RANKED + 1) * grid.masks().len() + 4;
    let bytes = [out, inputs, 4, storages].into_iter().try_fold(1usize, usize::checked_mul);
    available_memory().is_none_or(|free| bytes.is_some_and(|bytes| bytes as u64 <= free))
}

/// A storage of a mask, by its place among the masks.
struct Tried {
    mask: usize,
    format: Format,
    op: [Box<dyn LinearOp>; 1],
}

/// A random weight and its masks.
struct Masked {
    weight: Array2<f32>,
    masks: Vec<(Pattern, f64, Mask)>,
}

impl Masked {
    fn new((out, inputs): (usize, usize), grid: &MeasurementGrid, seed: Seed) -> Result<Masked> {
        let weight = seed.stream(&format!("advise/weight {out}x{inputs}")).normal_array(out, inputs, 1.0);
        let scores = weight.mapv(f32::abs);
        let mask = |(pattern, sparsity): (Pattern, f64)| {
            let mask = select(&scores, pattern, Scope::Layer, pattern.budget(out, inputs, sparsity)?)?;
            Ok((pattern, mask.sparsity(), mask))
        };
        let masks = grid.masks().into_iter().map(mask).collect::<Result<_>>()?;
        Ok(Masked { weight, masks })
    }

    /// All products of this many tokens, in about so many seconds.
    fn cell(&self, tokens: usize, from_memory: bool, seconds: f64, seed: Seed) -> Result<ShapeTimings> {
        let ((out, inputs), begun) = (self.weight.dim(), Instant::now());
        let x = seed.stream("advise/x").normal_array(tokens, inputs, 1.0);
        let hint = Hint { from_memory, ..Hint::tokens(tokens) };
        let mut storages: Vec<Tried> = Vec::new();
        for (i, (pattern, _, mask)) in self.masks.iter().enumerate() {
            let mut formats = Plan::candidates(mask, hint);
            let own = Format::of_pattern(*pattern);
            formats.truncate(RANKED);
            formats.extend(own.filter(|own| !formats.contains(own)));
            for format in formats {
                storages.push(Tried { mask: i, format, op: [format.build(&self.weight, mask, Precision::F32)?] });
            }
        }
        // What of a dense weight is 0 takes a dense product no less time.
        let dense = [Dense::new(self.weight.clone())];
        let mut contenders = Contender::dense(&dense);
        let kernels = contenders.len();
        contenders.extend(storages.iter().map(|s| Contender::storages(SPARSE, &s.op)));
        let turns = turns_for(storages[0].op[0].as_ref(), &x, from_memory, (seconds - begun.elapsed().as_secs_f64()).max(0.0));
        let times = turns.time(&mut contenders, &x, out)?;
        let median = |t: &Timed| Median { us: t.us, low: t.quartiles_us[0], high: t.quartiles_us[1] };
        let fastest = |of: &mut dyn Iterator<Item = usize>| of.min_by(|&a, &b| times[a].us.total_cmp(&times[b].us));
        let nothing = || Error::invalid_option("grid", "nothing was timed");
        let best = fastest(&mut (0..kernels)).ok_or_else(nothing)?;
        let mut sparse = Vec::new();
        for (i, (pattern, sparsity, _)) in self.masks.iter().enumerate() {
            let mut own = (0..storages.len()).filter(|&s| storages[s].mask == i).map(|s| kernels + s);
            let at = fastest(&mut own).ok_or_else(nothing)?;
            let (format, time) = (storages[at - kernels].format.to_string(), median(&times[at]));
            sparse.push(Sparse { pattern: *pattern, sparsity: *sparsity, format, time });
        }
        let (dense, dense_kernel) = (median(&times[best]), times[best].name.to_string());
        Ok(ShapeTimings { shape: (out, inputs), tokens, from_memory, dense, dense_kernel, sparse })
    }
}

/// How turns are taken where one product takes as long as this one: the usual way, or a few products of each where they are slow.
fn turns_for(op: &dyn LinearOp, x: &ArrayRef2<f32>, from_memory: bool, seconds: f64) -> RoundRobin {
    let mut y = Array2::zeros((x.nrows(), op.shape().0));
    op.apply_into(x, &mut y);
    let begun = Instant::now();
    op.apply_into(x, &mut y);
    let slow = begun.elapsed().as_secs_f64() > SLOW;
    let usual = RoundRobin::of(seconds);
    match (from_memory, slow) {
        (true, _) => RoundRobin { runs: 1, rounds: 9, from_memory, ..usual },
        (false, true) => RoundRobin { runs: 2, rounds: 3, turn: 0.0, once_above: VERY_SLOW, ..usual },
        (false, false) => RoundRobin { once_above: VERY_SLOW, ..usual },
    }
}
