//! How fast language models write and read, taken in turns.

use crate::eval::{joules, processor_seconds};
use crate::lm::LanguageModel;
use crate::report::{median, quantile};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// How models are timed. What the machine does meanwhile meets all of them: each writes, then reads, and then the next does.
///
/// | field | default | range | meaning |
/// |---|---|---|---|
/// | `tokens` | 32 | 1 and more | tokens that a turn writes, one at a time |
/// | `prompt` | 256 | 2 and more | tokens that a turn reads at once |
/// | `rounds` | 5 | 1 and more | turns of each model |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeedTrial {
    /// Tokens that a turn writes.
    pub tokens: usize,
    /// Tokens that a turn reads at once.
    pub prompt: usize,
    /// Turns of each model.
    pub rounds: usize,
}

impl Default for SpeedTrial {
    fn default() -> Self {
        SpeedTrial { tokens: 32, prompt: 256, rounds: 5 }
    }
}

/// Tokens a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Of the median turn.
    pub median: f64,
    /// The quartiles.
    pub quartiles: [f64; 2],
}

impl Rate {
    fn of(rates: &[f64]) -> Result<Rate> {
        Ok(Rate { median: median(rates)?, quartiles: [quantile(rates, 0.25)?, quantile(rates, 0.75)?] })
    }
}

/// What was timed of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// Tokens written a second, one at a time after a short prompt.
    pub decode: Rate,
    /// Tokens read a second, all at once.
    pub prefill: Rate,
    /// Seconds of all processors for a token that is written.
    pub processor_seconds_a_token: Option<f64>,
    /// Energy of the processor's package for a token that is written, where the machine tells.
    pub joules_a_token: Option<f64>,
}

/// Tokens before the first that is written.
const BEFORE: usize = 8;

impl SpeedTrial {
    /// Times models in turns, on the current pool of threads, and says after each round how many are done. Tokens are the same for all, whatever their words are.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if a number is out of its range; those of running a model.
    pub fn measure(&self, models: &[&LanguageModel], mut see: impl FnMut(usize)) -> Result<Vec<Speed>> {
        let refuse = |option: &'static str, found: usize, least: usize| {
            if found >= least {
                Ok(())
            } else {
                Err(Error::invalid_option(option, format!("{found}, where {least} and more are possible")))
            }
        };
        refuse("tokens", self.tokens, 1)?;
        refuse("prompt", self.prompt, 2)?;
        refuse("rounds", self.rounds, 1)?;
        let mut turns = vec![Vec::with_capacity(self.rounds); models.len()];
        for round in 0..=self.rounds {
            for (model, turns) in models.iter().zip(&mut turns) {
                let turn = self.turn(model)?;
                // The first warms up.
                if round > 0 {
                    turns.push(turn);
                }
            }
            see(round);
        }
        let speed = |turns: &Vec<Turn>| {
            let of = |what: fn(&Turn) -> f64| turns.iter().map(what).collect::<Vec<f64>>();
            let known = |what: fn(&Turn) -> Option<f64>| turns.iter().map(what).collect::<Option<Vec<f64>>>();
            Ok(Speed {
                decode: Rate::of(&of(|t| t.decode))?,
                prefill: Rate::of(&of(|t| t.prefill))?,
                processor_seconds_a_token: known(|t| t.processor_seconds).map(|all| median(&all)).transpose()?,
                joules_a_token: known(|t| t.joules).map(|all| median(&all)).transpose()?,
            })
        };
        turns.iter().map(speed).collect()
    }

    fn turn(&self, model: &LanguageModel) -> Result<Turn> {
        let vocab = model.config().vocab().max(1);
        let ids: Vec<u32> = (0..self.prompt.max(self.tokens + BEFORE)).map(|i| (i * 7919 % vocab) as u32).collect();
        let mut cache = model.cache();
        model.step(&ids[..BEFORE], &mut cache)?;
        let (before, energy, begun) = (processor_seconds(), joules(), Instant::now());
        for id in ids[BEFORE..].iter().take(self.tokens) {
            model.step(&[*id], &mut cache)?;
        }
        let (seconds, tokens) = (begun.elapsed().as_secs_f64(), self.tokens as f64);
        let share = |before: Option<f64>, after: Option<f64>| Some((after? - before?) / tokens).filter(|s| *s >= 0.0);
        let (processor_seconds, joules) = (share(before, processor_seconds()), share(energy, joules()));
        let (mut cache, begun) = (model.cache(), Instant::now());
        model.step(&ids[..self.prompt], &mut cache)?;
        let prefill = self.prompt as f64 / begun.elapsed().as_secs_f64();
        Ok(Turn { decode: tokens / seconds, prefill, processor_seconds, joules })
    }
}

/// What one turn took.
#[derive(Clone)]
struct Turn {
    decode: f64,
    prefill: f64,
    processor_seconds: Option<f64>,
    joules: Option<f64>,
}

/// Bytes a second that the current pool of threads reads from memory, beyond all caches: the fastest of some passes over 512 MB, which each thread reads
/// in eight streams.
pub fn memory_bandwidth() -> f64 {
    const NUMBERS: usize = 64 << 20;
    const STREAMS: usize = 8;
    let numbers = vec![1u64; NUMBERS];
    let part = (NUMBERS / (16 * rayon::current_num_threads())).max(STREAMS);
    let read = |part: &[u64]| {
        let stream = part.len() / STREAMS;
        let mut all = [0u64; 8];
        for at in (0..stream / 8 * 8).step_by(8) {
            for first in (0..STREAMS).map(|s| s * stream + at) {
                all.iter_mut().zip(&part[first..first + 8]).for_each(|(all, n)| *all ^= n);
            }
        }
        all.into_iter().fold(0, |a, b| a ^ b)
    };
    let pass = || {
        let begun = Instant::now();
        std::hint::black_box(numbers.par_chunks(part).map(read).reduce(|| 0, |a, b| a ^ b));
        size_of_val(numbers.as_slice()) as f64 / begun.elapsed().as_secs_f64()
    };
    (0..7).map(|_| pass()).fold(0.0, f64::max)
}
