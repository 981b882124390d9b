//! Refuses numbers that no measurement can be made with, before anything is made.

use crate::command::counted;
use lacuna::eval::available_memory;
use lacuna::{Error, Result};

/// Weights of a random matrix, at most: 4 GiB of them.
const LARGEST: usize = 1 << 30;
/// Threads of a product, at most.
const THREADS: usize = 1024;
/// Seconds of a measurement, at most.
const SECONDS: f64 = 3600.0;

/// Reads `OUTxIN`.
pub fn shape(text: &str) -> Result<(usize, usize)> {
    let pair = text.split_once('x').and_then(|(out, inputs)| Some((out.parse::<usize>().ok()?, inputs.parse::<usize>().ok()?)));
    match pair {
        Some((out, inputs)) if out == 0 || inputs == 0 => Err(Error::invalid_option("shape", format!("'{text}' has no weights"))),
        Some((out, inputs)) if out.checked_mul(inputs).is_none_or(|n| n > LARGEST) => {
            Err(Error::invalid_option("shape", format!("'{text}' has more than {LARGEST} weights")))
        }
        Some(pair) => Ok(pair),
        _ => Err(Error::invalid_option("shape", format!("'{text}' is not OUTxIN, as 4096x4096"))),
    }
}

/// Refuses times that measure nothing, or go on for ever.
pub fn check_seconds(seconds: f64) -> Result<()> {
    if (0.0..=SECONDS).contains(&seconds) {
        return Ok(());
    }
    Err(Error::invalid_option("seconds", format!("{seconds:?}, where 0 to {SECONDS} are possible")))
}

/// Refuses shares that nothing can be pruned by.
pub fn check_sparsity(sparsity: &[f64]) -> Result<()> {
    match sparsity.iter().find(|s| !(0.0..1.0).contains(*s)) {
        Some(s) => Err(Error::invalid_option("sparsity", format!("{s:?} is not in [0, 1)"))),
        None => Ok(()),
    }
}

/// Refuses sparsities that do not rise.
pub fn check_rising(sparsity: &[f64]) -> Result<()> {
    if sparsity.is_empty() || !sparsity.is_sorted_by(|a, b| a < b) {
        return Err(Error::invalid_option("sparsity", "give rising numbers, as 0.5,0.7,0.9"));
    }
    check_sparsity(sparsity)
}

/// Refuses numbers of threads that no pool has.
pub fn check_threads(threads: &[usize]) -> Result<()> {
    match threads.iter().find(|t| !(1..=THREADS).contains(*t)) {
        Some(t) => Err(Error::invalid_option("threads", format!("{t}, where 1 to {THREADS} are possible"))),
        None => Ok(()),
    }
}

/// Bytes that a case needs beside its weights.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside {
    /// Of copies that no cache holds.
    pub copies: usize,
    /// Storages that lie in memory at once.
    pub storages: usize,
}

/// Refuses tokens that are none, and such numbers of weights and tokens together as the free memory does not hold.
///
/// A weight is held as it is, pruned, in the storages that are tried, and twice in f64 for the check of the answers; x and y likewise.
pub fn check_memory(shapes: &[(usize, usize)], tokens: &[usize], beside: Beside) -> Result<()> {
    if tokens.contains(&0) {
        return Err(Error::invalid_option("tokens", "0, where 1 or more are possible"));
    }
    // Where the system does not say what is free, what an address can name is a bound.
    let free = available_memory().unwrap_or(1 << 46);
    for &(out, inputs) in shapes {
        let (o, i) = (out as u128, inputs as u128);
        let weights = o * i * (4 * (5 + beside.storages as u128) + 16) + beside.copies as u128;
        for &tokens in tokens {
            let needed = weights + tokens as u128 * (28 * i + 40 * o);
            if needed > u128::from(free) {
                let option = if weights > u128::from(free) { "shape" } else { "tokens" };
                let reason = format!(
                    "{} and a weight of {out} x {inputs} need about {} of memory; {} are free",
                    counted(tokens, "token"),
                    bytes(needed),
                    bytes(free.into())
                );
                return Err(Error::invalid_option(option, reason));
            }
        }
    }
    Ok(())
}

/// A number of bytes for people.
fn bytes(n: u128) -> String {
    let (mut value, mut unit) = (n as f64 / 1e6, "MB");
    for next in ["GB", "TB", "PB", "EB", "ZB", "YB"] {
        if value < 1e3 {
            break;
        }
        (value, unit) = (value / 1e3, next);
    }
    if value < 1e4 { format!("{value:.1} {unit}") } else { format!("{value:.1e} {unit}") }
}
