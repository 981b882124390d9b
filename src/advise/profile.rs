//! What was measured of a machine.

use super::grid::MeasurementGrid;
use crate::kernels::Isa;
use crate::mask::Pattern;
use crate::sparse::Format;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which machine a profile is of, how many threads ran, and what measured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The model of the processor, as the system names it.
    pub cpu: String,
    /// Instructions of the kernels: `avx512`.
    pub isa: String,
    /// Threads of a product.
    pub threads: usize,
    /// The version of this library.
    pub version: String,
}

impl Key {
    /// This machine with so many threads. Where the system does not name its processor, the architecture does.
    pub fn here(threads: usize) -> Key {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let named = |key: &str| {
            let line = info.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == key))?;
            line.split_once(':').map(|(_, name)| name.trim().to_string()).filter(|name| !name.is_empty())
        };
        let cpu = named("model name").or_else(|| named("CPU part")).unwrap_or_else(|| std::env::consts::ARCH.to_string());
        let (isa, version) = (Isa::current().name().to_string(), env!("CARGO_PKG_VERSION").to_string());
        Key { cpu, isa, threads, version }
    }
}

/// Microseconds of a product: the median of those that were timed, and the quartiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Median {
    /// The median.
    pub us: f64,
    /// The lower quartile.
    pub low: f64,
    /// The upper quartile.
    pub high: f64,
}

/// The fastest sparse storage of one mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sparse {
    /// The pattern of the mask.
    pub pattern: Pattern,
    /// Its sparsity.
    pub sparsity: f64,
    /// The storage, as [`Format`] is written.
    pub format: String,
    /// Its time.
    pub time: Median,
}

/// Products of one shape and number of tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShapeTimings {
    /// `(out, in)`.
    pub shape: (usize, usize),
    /// Rows of x.
    pub tokens: usize,
    /// Whether weights came from memory at each product.
    pub from_memory: bool,
    /// The fastest dense product.
    pub dense: Median,
    /// Whose it is.
    pub dense_kernel: String,
    /// The masks of the grid.
    pub sparse: Vec<Sparse>,
}

/// What was measured of a machine, once; [`Profile::advise`] answers from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Which machine.
    pub key: Key,
    /// What was to be measured.
    pub grid: MeasurementGrid,
    /// Seconds that it took.
    pub seconds: f64,
    /// Bytes of its last cache: weights of a model that are more come from memory.
    pub last_cache: usize,
    /// What was measured; the largest are not there if time or memory ended.
    pub cells: Vec<ShapeTimings>,
}

impl Profile {
    /// Refuses a profile from a file that no machine measures.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with the first cell that has no weights, tokens, or masks, times that are not positive or out of order, a sparsity outside of
    /// [0, 1), or a storage of no name; or if there is no cell.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::invalid_option("profile", reason));
        if self.cells.is_empty() {
            return refuse("has no cells".into());
        }
        for cell in &self.cells {
            let ((out, inputs), tokens) = (cell.shape, cell.tokens);
            let place = format!("{out}x{inputs}, {tokens} tokens");
            if out.checked_mul(inputs).is_none_or(|n| n == 0) || tokens == 0 || cell.sparse.is_empty() {
                return refuse(format!("cell {place} has no weights, tokens or masks"));
            }
            let times = [&cell.dense].into_iter().chain(cell.sparse.iter().map(|s| &s.time));
            if let Some(t) = times.into_iter().find(|t| !(t.low > 0.0 && t.low <= t.us && t.us <= t.high && t.high.is_finite())) {
                return refuse(format!("cell {place} has a time of {} µs between {} and {}", t.us, t.low, t.high));
            }
            if let Some(s) = cell.sparse.iter().find(|s| !(0.0..1.0).contains(&s.sparsity)) {
                return refuse(format!("cell {place} has a sparsity of {}", s.sparsity));
            }
            cell.sparse.iter().try_for_each(|s| s.format.parse::<Format>().map(|_| ()))?;
        }
        Ok(())
    }
}
