//! What a run leaves to be read: its record, as typed values, and as text.

use super::settings::QuantizeJob;
use crate::job::FewTokens;
use crate::job::excess::{Excess, PerplexityReport, TextReports};
use crate::prune::QuantRecord;
use crate::report::{Cell, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The outcome of a [`QuantizeJob`]. It serialises to the record `quantize.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct QuantizeReport {
    /// The folder that was written.
    pub out: PathBuf,
    /// The whole job, which can be run again, without what is of one run.
    pub job: QuantizeJob,
    /// What the run is known by when it is taken up again.
    pub settings: Value,
    /// Weights of the layers that were quantised.
    pub weights: usize,
    /// Bits a weight of these, scales and zero points among them.
    pub bits: f64,
    /// Bytes of all weights in the files before.
    pub bytes_before: u64,
    /// And after.
    pub bytes: u64,
    /// Parameters of the whole model.
    pub parameters: usize,
    /// How long it took, without measuring a perplexity.
    pub seconds: f64,
    /// The most bytes of memory, where the system says.
    pub peak_bytes: Option<u64>,
    /// Threads.
    pub threads: usize,
    /// The instruction set of the kernels.
    pub isa: String,
    /// Where the calibration has fewer tokens than layers have inputs.
    pub few_tokens: Option<FewTokens>,
    /// How the end of the run was asked for: what the perplexity is of.
    pub asked: Value,
    /// The perplexity before and after, if it was measured: of several texts that of the first.
    pub perplexity: Option<PerplexityReport>,
    /// The same of every text.
    pub texts: Vec<PerplexityReport>,
    /// What was lost on them, at home and abroad; `None` without texts, and in records of builds that did not say it.
    #[serde(default)]
    pub excess: Option<Excess>,
    /// What became of each layer.
    pub layers: Vec<QuantRecord>,
    /// Whether the run was finished before, so that nothing was done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already_finished: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl QuantizeReport {
    /// The perplexities of its texts.
    pub(super) fn perplexities(&self) -> TextReports<'_> {
        TextReports::new(&self.texts, self.job.calibration.as_deref())
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(["layer", "shape", "bits a weight", "kept", "error", "moved", "exponent"]);
        for l in &self.layers {
            let (error, moved) = (l.error.map(|e| Cell::float(e, 6)), l.moved.map(|m| Cell::float(m, 6)));
            let exponent = l.exponent.map(|e| Cell::float(e, 2));
            table.row((l.layer.as_str(), format!("{:?}", l.shape), Cell::float(l.bits, 3), l.kept, error, moved, exponent));
        }
        table
    }

    /// What became of each layer as a table, and the sums in words.
    pub fn to_text(&self) -> String {
        if self.already_finished {
            return format!("{} is finished, as it was asked for: nothing was done\n", self.out.display());
        }
        let mut text = self.table().to_text();
        if self.layers.iter().any(|l| l.error.is_some()) {
            text += "error: squared error of the outputs as a fraction of their square, on the calibration\n";
        }
        text += &format!(
            "{} by {} to {} bits -> {}\n{} weights in {} layers, {:.3} bits each; {:.1} -> {:.1} MB in all\n",
            self.job.model.as_deref().unwrap_or(Path::new("?")).display(),
            self.job.method,
            self.job.bits,
            self.out.display(),
            self.weights,
            self.layers.len(),
            self.bits,
            self.bytes_before as f64 / 1e6,
            self.bytes as f64 / 1e6,
        );
        let memory = self.peak_bytes.map_or(String::new(), |bytes| format!(", {:.2} GB at most", bytes as f64 / 1e9));
        text += &format!("{:.1} s{memory}\n", self.seconds);
        text += &self.perplexities().to_text();
        text
    }
}
