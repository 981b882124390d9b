//! What a run leaves to be read: its record, as typed values, and as text.

use super::settings::ShrinkJob;
use super::times::DecodeTimes;
use crate::Result;
use crate::eval::Census;
use crate::io::Folder;
use crate::job::excess::{Excess, PerplexityReport, TextReports};
use crate::lm::Config;
use crate::prune::{BlockWidths, ExpertRecord, HalfErrors, LayerChoice, SearchRecord, SubLayerChoice, Tried, UnitRecord};
use crate::report::{Cell, Table};
use crate::structure::UnitKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// How large a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelSize {
    /// All parameters, a tied head counted once.
    pub parameters: usize,
    /// Weights of the linear layers of the blocks.
    pub blocks: usize,
    /// Bytes of all weights in the files.
    pub bytes: u64,
    /// Multiplications and additions of the linear layers and the head for one token.
    pub flops: usize,
}

impl ModelSize {
    /// Of a folder, whose numbers are not read.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(folder: &Folder, config: &Config) -> Result<ModelSize> {
        let census = Census::of(folder, config, false)?;
        let whole = census.whole();
        let (parameters, blocks) = (whole.numbers, census.prunable().numbers);
        Ok(ModelSize { parameters, blocks, bytes: whole.bytes, flops: census.flops().0 })
    }
}

/// What became of the experts of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpertsReport {
    /// Experts of a block, before and after.
    pub experts: [usize; 2],
    /// How many of them a token meets, before and after.
    pub active: [usize; 2],
    /// Block by block.
    pub blocks: Vec<ExpertRecord>,
}

impl ExpertsReport {
    /// How many experts no token of the calibration met, of those that were measured.
    fn idle(&self) -> (usize, usize) {
        let all = || self.blocks.iter().flat_map(|block| &block.tokens);
        (all().filter(|tokens| **tokens == 0).count(), all().count())
    }
}

/// The outcome of a [`ShrinkJob`]. It serialises to the record `shrink.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct ShrinkReport {
    /// The folder that was written.
    pub out: PathBuf,
    /// The whole job, which can be run again, without what is of one run.
    pub job: ShrinkJob,
    /// What the run is known by when it is taken up again.
    pub settings: Value,
    /// The model before.
    pub before: ModelSize,
    /// The model after.
    pub after: ModelSize,
    /// What a token takes, of a budget of time.
    #[serde(default)]
    pub times: Option<DecodeTimes>,
    /// What a search for sizes found; `None` without one.
    #[serde(default)]
    pub search: Option<SearchRecord>,
    /// Widths of each block that a budget was spread over; `None` where all blocks are alike.
    #[serde(default)]
    pub spread: Option<BlockWidths>,
    /// Layers that stayed; `None` where all did.
    pub layers: Option<LayerChoice>,
    /// Sub-layers that went; `None` where none did.
    #[serde(default)]
    pub sublayers: Option<SubLayerChoice>,
    /// Units that stayed, of hidden features first, then block by block.
    pub units: Vec<UnitRecord>,
    /// Experts of a mixture, where some went or fewer are met.
    #[serde(flatten)]
    pub mixture: Option<ExpertsReport>,
    /// What training halves of blocks did, where they were trained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reconstructed: Vec<HalfErrors>,
    /// How long it took, without measuring a perplexity.
    pub seconds: f64,
    /// The most bytes of memory, where the system says.
    pub peak_bytes: Option<u64>,
    /// Threads.
    pub threads: usize,
    /// The instruction set of the kernels.
    pub isa: String,
    /// How the end of the run was asked for: what the perplexity is of.
    pub asked: Value,
    /// The perplexity before and after, if it was measured: of several texts that of the first.
    pub perplexity: Option<PerplexityReport>,
    /// The same of every text.
    pub texts: Vec<PerplexityReport>,
    /// What was lost on them, at home and abroad; `None` without texts, and in records of builds that did not say it.
    #[serde(default)]
    pub excess: Option<Excess>,
    /// Whether the run was finished before, so that nothing was done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already_finished: bool,
}

impl ShrinkReport {
    /// The perplexities of its texts.
    pub(super) fn perplexities(&self) -> TextReports<'_> {
        TextReports::new(&self.texts, self.job.calibration.as_deref())
    }

    /// The record with counts in the place of long lists: what the command says with `--json`.
    ///
    /// # Errors
    /// If a number cannot be written.
    pub fn summary(&self) -> Result<Value> {
        let wrong = |e: serde_json::Error| crate::Error::invalid_option("json", e.to_string());
        let mut value = serde_json::to_value(self).map_err(wrong)?;
        let unit = |u: &UnitRecord| {
            json!({
                "name": u.name, "kind": u.kind, "block": u.block, "units": u.units, "kept": u.kept.len(), "error": u.error,
                "swapped": u.swapped, "seconds": u.seconds,
            })
        };
        value["units"] = self.units.iter().map(unit).collect();
        Ok(value)
    }

    /// What became of each layer's units as a table, and the sums in words.
    pub fn to_text(&self) -> String {
        if self.already_finished {
            return format!("{} is finished, as it was asked for: nothing was done\n", self.out.display());
        }
        let mut table = Table::new(["units of", "kind", "before", "after", "error", "exchanged"]);
        for u in &self.units {
            let error = u.error.map(|e| Cell::float(e, 5));
            table.row((u.name.as_str(), u.kind.name(), u.units, u.kept.len(), error, u.swapped));
        }
        let mut text = String::new();
        if !self.units.is_empty() {
            text += &table.to_text();
            if self.units.iter().any(|u| u.error.is_some()) {
                text += "error: squared error of the layer that reads the units, of its outputs on the calibration\n";
            }
        }
        if let Some(search) = &self.search {
            text += &format!(
                "sizes that meet {}, tried on {} held-out tokens with nothing made up for:\n{}",
                search.target,
                search.tokens,
                tried(search).to_text()
            );
        }
        if let Some(spread) = &self.spread {
            text += &format!(
                "widths that meet {}: the loss is expected to rise by {:.4} nats a token\n",
                spread.target, spread.expected
            );
        }
        if let Some(layers) = &self.layers {
            let gone: Vec<String> =
                (0..layers.scores.len()).filter(|l| !layers.kept.contains(l)).map(|l| l.to_string()).collect();
            text += &format!("layers left out: {}\n", gone.join(", "));
        }
        if let Some(mixture) = &self.mixture {
            text += &mixture.table().to_text();
            let (ExpertsReport { experts, active, blocks }, (idle, measured)) = (mixture, mixture.idle());
            text += &format!(
                "{} of {} experts stay in each of {} blocks, and a token meets {} of them ({} before)\n",
                experts[1],
                experts[0],
                blocks.len(),
                active[1],
                active[0]
            );
            if measured > 0 {
                text += &format!("{idle} of {measured} experts met no token of the calibration: their score is 0\n");
            }
        }
        if let Some(sublayers) = &self.sublayers {
            let gone: Vec<String> = sublayers.gone.iter().map(|sub| sub.to_string()).collect();
            text += &format!("sub-layers left out: {}\n", gone.join(", "));
        }
        if let Some(times) = self.times {
            let (a, b, threads) = (times.before, times.after, times.threads);
            text += &format!("a token takes {a:.3} ms before, {b:.3} ms after, in turns with {threads} threads\n");
        }
        let (a, b) = (self.before, self.after);
        let fraction = |after: f64, before: f64| if before > 0.0 { 100.0 * after / before } else { 100.0 };
        text += &format!(
            "{} by {} -> {}\nparameters {} -> {} ({:.1} %), of the blocks {} -> {} ({:.1} %); {:.1} -> {:.1} MB; FLOPs a token {} -> {}\n",
            self.job.model.as_deref().unwrap_or(std::path::Path::new("?")).display(),
            self.chosen_by(),
            self.out.display(),
            a.parameters,
            b.parameters,
            fraction(b.parameters as f64, a.parameters as f64),
            a.blocks,
            b.blocks,
            fraction(b.blocks as f64, a.blocks as f64),
            a.bytes as f64 / 1e6,
            b.bytes as f64 / 1e6,
            a.flops,
            b.flops,
        );
        text += &format!(
            "{:.1} s{}\n",
            self.seconds,
            self.peak_bytes.map_or(String::new(), |bytes| format!(", {:.2} GB at most", bytes as f64 / 1e9))
        );
        text += &self.perplexities().to_text();
        for p in self.texts.iter().filter(|_| self.job.vocabulary.is_some()) {
            if let (Some(before), Some(after)) = (p.bits_per_byte_before, p.bits_per_byte_after) {
                let [a, b] = [before, after].map(f64::exp2);
                text += &format!("  of other tokens: {a:.4} a byte before, {b:.4} after ({before:.4} and {after:.4} bits)\n");
            }
        }
        text
    }

    /// The name of the method that chose what stays.
    pub(super) fn chosen_by(&self) -> &'static str {
        if self.mixture.is_some() { self.job.experts_by.name() } else { self.job.method.name() }
    }

    /// Units of one kind that went, of all blocks.
    pub fn gone(&self, kind: UnitKind) -> usize {
        self.units.iter().filter(|u| u.kind == kind).map(|u| u.units - u.kept.len()).sum()
    }
}

impl ExpertsReport {
    /// Block by block: scores of what stays and of what went, tokens of the experts that met fewest and most.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(["block", "experts", "left", "smallest kept", "largest gone", "fewest tokens", "most tokens"]);
        for block in &self.blocks {
            let kept = block.kept.iter().map(|&e| block.scores[e]).reduce(f64::min);
            let gone = (0..block.scores.len()).filter(|e| !block.kept.contains(e)).map(|e| block.scores[e]).reduce(f64::max);
            let number = |score: Option<f64>| score.map(|score| Cell::float(score, 5));
            let (fewest, most) = (block.tokens.iter().min().copied(), block.tokens.iter().max().copied());
            table.row((block.block, block.scores.len(), block.kept.len(), number(kept), number(gone), fewest, most));
        }
        table
    }
}

/// What a search tried, with the choice marked.
pub(super) fn tried(search: &SearchRecord) -> Table {
    let what = if search.what.is_empty() { "cost" } else { &search.what };
    let mut table = Table::new(["layers", "heads", "intermediate", "parameters", "of the blocks", what, "loss", ""]);
    let or_all = |n: Option<usize>| n.map_or("all".to_string(), |n| n.to_string());
    let digits = if search.decode.is_some() { 3 } else { 0 };
    for (i, Tried { sizes, parameters, blocks, cost, loss }) in search.tried.iter().enumerate() {
        let mark = if i == search.chosen { "chosen" } else { "" };
        let (layers, heads, intermediate) = (or_all(sizes.layers), or_all(sizes.heads), or_all(sizes.intermediate));
        let (cost, loss) = (Cell::float(*cost, digits), Cell::float(*loss, 4));
        table.row((layers, heads, intermediate, *parameters, *blocks, cost, loss, mark));
    }
    table
}

fn is_false(value: &bool) -> bool {
    !value
}
