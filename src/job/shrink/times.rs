//! What a token takes before and after.

use crate::Result;
use crate::advise::SpeedTrial;
use crate::eval::available_memory;
use crate::io::Folder;
use crate::lm::{Config, LanguageModel};
use serde::{Deserialize, Serialize};

/// Milliseconds of one token that is written, both models taken in turns, medians.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DecodeTimes {
    /// Of the model before.
    pub before: f64,
    /// Of the model after.
    pub after: f64,
    /// Threads.
    pub threads: usize,
}

impl DecodeTimes {
    /// Times both models; `None` where they have no room in memory together.
    ///
    /// # Errors
    /// If one cannot be read or run.
    pub fn measure(before: (&Folder, &Config), after: (&Folder, &Config)) -> Result<Option<DecodeTimes>> {
        let bytes = |folder: &Folder| -> u64 {
            folder.names().filter_map(|name| folder.info(name).ok()).map(|t| 4 * t.elements() as u64).sum()
        };
        if available_memory().is_some_and(|free| free < bytes(before.0) + bytes(after.0)) {
            return Ok(None);
        }
        let models = [before, after].map(|(folder, config)| LanguageModel::load_to_write(folder, config.clone()));
        let [a, b] = models;
        let (a, b) = (a?, b?);
        let most = before.1.max_positions().map_or(16, |n| n.saturating_sub(8).clamp(1, 16));
        let trial = SpeedTrial { tokens: most, prompt: 2, rounds: 5 };
        let speeds = trial.measure(&[&a, &b], |_| ())?;
        let of = |i: usize| 1e3 / speeds[i].decode.median;
        Ok(Some(DecodeTimes { before: of(0), after: of(1), threads: rayon::current_num_threads() }))
    }
}
