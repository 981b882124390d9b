//! What a token takes that the model writes, by its layers, heads and features: measured on this machine.
//!
//! ```text
//! time = rest + layers · (block − (heads that go) · head − (features that go) · feature)
//! ```
//!
//! Four models of the first blocks are timed in turns, with the kernels and the numbers with which `generate` runs: some blocks, half of them, and these
//! with the fewest heads and the fewest features that a search tries. Writing reads every weight once, so that time goes with the number of weights, and
//! the line through two points of each axis holds between them. The rest is the head, the last norm and what a token takes besides.
//!
//! Cost: the memory of four models of at most 256 MB in blocks, and of their heads; some seconds.

use super::trimmed::Trimmed;
use crate::advise::SpeedTrial;
use crate::eval::available_memory;
use crate::io::{Folder, Weights};
use crate::lm::{Config, LanguageModel, Widths};
use crate::structure::{Coupling, UnitCut, UnitKind};
use crate::{Error, Result};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// The most bytes of blocks of a model that is timed.
const BYTES: usize = 256 << 20;
/// Tokens of a turn, and turns.
const TRIAL: SpeedTrial = SpeedTrial { tokens: 16, prompt: 2, rounds: 7 };

/// Milliseconds of one token, by what a model has.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DecodeCost {
    /// Of the whole model.
    pub whole: f64,
    /// Of a block.
    pub block: f64,
    /// Of a head in a block, with its own keys and values where it has some.
    pub head: f64,
    /// Of a feed-forward feature in a block.
    pub feature: f64,
    /// Threads with which it was measured.
    pub threads: usize,
}

/// Tensors of which some units are left.
struct Cut<'a> {
    base: &'a Trimmed<'a>,
    cut: UnitCut,
}

impl Weights for Cut<'_> {
    fn names(&self) -> Vec<String> {
        self.base.names()
    }

    fn contains(&self, name: &str) -> bool {
        self.base.contains(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.cut.shape(name, &self.base.shape(name)?))
    }

    fn read(&self, name: &str) -> Result<ArrayD<f32>> {
        Ok(self.cut.apply(name, self.base.read(name)?))
    }
}

impl DecodeCost {
    /// Times a model whose blocks are alike; `least` says how many heads and features a search leaves at least. `see` is told how many turns are done of
    /// how many, and may stop.
    ///
    /// # Errors
    /// If the models do not fit into memory, or cannot be read or run; [`Error::Interrupted`] if `see` stops.
    pub fn measure(
        (folder, config): (&Folder, &Config),
        all: &[Coupling],
        least: Widths,
        see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<DecodeCost> {
        let (widths, layers) = (config.widths(0), config.layers());
        let numbers = |layer: bool| -> usize {
            let block = all.iter().filter(|c| c.kind == UnitKind::Layer).flat_map(|c| &c.members);
            let of_blocks: std::collections::HashSet<&str> = block.map(|m| m.tensor.as_str()).collect();
            let mine = folder.names().filter(|name| of_blocks.contains(name) == layer);
            mine.filter_map(|name| folder.info(name).ok()).map(|t| t.elements()).sum()
        };
        let block = 4 * numbers(true) / layers;
        let some = (BYTES / block.max(1)).clamp(2, 16).min(layers);
        let half = some.div_ceil(2);
        let needed = (4 * (4 * numbers(false) + some * block)) as u64;
        if let Some(free) = available_memory().filter(|free| *free < needed) {
            let reason = format!(
                "timing takes four models of {some} blocks, {:.1} GB of memory, and {:.1} GB are free",
                needed as f64 / 1e9,
                free as f64 / 1e9
            );
            return Err(Error::invalid_option("milliseconds", reason));
        }
        let shapes = [
            (some, widths),
            (half, widths),
            (some, least_heads(widths, least)),
            (some, Widths { intermediate: least.intermediate, ..widths }),
        ];
        let mut models = Vec::new();
        for (blocks, widths) in shapes {
            models.push(small((folder, config), all, blocks, widths)?);
            Error::go_on(see(models.len(), shapes.len() + TRIAL.rounds))?;
        }
        // Learned positions end.
        let tokens = config.max_positions().map_or(TRIAL.tokens, |n| n.saturating_sub(8).clamp(1, TRIAL.tokens));
        let mut stopped = false;
        let speeds = SpeedTrial { tokens, ..TRIAL }.measure(&models.iter().collect::<Vec<_>>(), |round| {
            stopped |= see(shapes.len() + round, shapes.len() + TRIAL.rounds).is_break();
        })?;
        if stopped {
            return Err(Error::Interrupted);
        }
        let ms: Vec<f64> = speeds.iter().map(|speed| 1e3 / speed.decode.median).collect();
        let per = |gain: f64, of: usize| if of > 0 { (gain / of as f64).max(0.0) } else { 0.0 };
        let block = if some > half { per(ms[0] - ms[1], some - half) } else { ms[0] };
        let rest = (ms[0] - some as f64 * block).max(0.0);
        Ok(DecodeCost {
            whole: rest + layers as f64 * block,
            block,
            head: per(ms[0] - ms[2], some * (widths.heads - least.heads)),
            feature: per(ms[0] - ms[3], some * (widths.intermediate - least.intermediate)),
            threads: rayon::current_num_threads(),
        })
    }
}

/// The widths of a block with the fewest heads.
fn least_heads(widths: Widths, least: Widths) -> Widths {
    Widths { heads: least.heads, kv_heads: if widths.heads == widths.kv_heads { least.heads } else { widths.kv_heads }, ..widths }
}

/// The first blocks of a model, each with the first units of so many.
fn small((folder, config): (&Folder, &Config), all: &[Coupling], blocks: usize, widths: Widths) -> Result<LanguageModel> {
    let layers: Vec<usize> = (0..blocks).collect();
    let base = Trimmed::new(folder, (config, config), all, (Some(&layers), None, &[]), None)?;
    let config = config.with_blocks(&layers)?.with_widths(&vec![widths; blocks])?;
    let mut cut = UnitCut::default();
    for coupling in all.iter().filter(|c| c.block.is_some_and(|b| b < blocks)) {
        let keep = match coupling.kind {
            UnitKind::Head => widths.heads,
            UnitKind::FeedForward => widths.intermediate,
            _ => continue,
        };
        let run = coupling.units / coupling.runs;
        cut.keep(coupling, &(0..coupling.units).filter(|u| u % run < keep / coupling.runs).collect::<Vec<_>>());
    }
    LanguageModel::load_to_write(&Cut { base: &base, cut }, config)
}
