//! A training run as words and as a page with its curves.

use super::report::TrainReport;
use crate::Result;
use crate::report::{Cell, Figure, Page, Point, Table};
use serde_json::Value;

/// The most points of a curve; of more steps each is the mean of several.
const POINTS: usize = 400;

impl TrainReport {
    /// What became of it, in a few lines.
    pub fn to_text(&self) -> String {
        if self.already_finished {
            return format!("{} is finished, as it was asked for: nothing was done\n", self.out.display());
        }
        let mut text = self.sums().to_text();
        if let (Some(of), Some(before), Some(after)) = (&self.validation_text, self.validation.first(), self.written()) {
            text += &format!(
                "\nperplexity {:.4} before, {:.4} after step {}; {of}\n",
                before.perplexity, after.perplexity, self.written_step
            );
        }
        text += &format!(
            "{} -> {}; sparsity {:.4} before, {:.4} after\n",
            self.job.model.as_deref().unwrap_or(std::path::Path::new("?")).display(),
            self.out.display(),
            self.sparsity_before,
            self.sparsity_after
        );
        text
    }

    /// The mean loss of the first and of the last tenth of the steps.
    fn ends(&self) -> Option<(f64, f64)> {
        let n = self.curve.len().div_ceil(10);
        let mean = |part: &[crate::train::StepRecord]| part.iter().map(|s| s.loss).sum::<f64>() / part.len() as f64;
        let last = self.curve.len().checked_sub(n)?;
        (n > 0).then(|| (mean(&self.curve[..n]), mean(&self.curve[last..])))
    }

    fn sums(&self) -> Table {
        let mut sums = Table::new(["", "value"]);
        sums.row(("steps", self.steps));
        sums.row(("tokens trained on", self.tokens as usize));
        sums.row(("tokens of the text", self.text_tokens as usize));
        sums.row(("sequences", self.sequences));
        if let Some((first, last)) = self.ends() {
            sums.row(("mean loss of the first tenth of the steps", Cell::float(first, 4)));
            sums.row(("of the last", Cell::float(last, 4)));
        }
        for v in &self.validation {
            sums.row((format!("perplexity after {} steps", v.step), Cell::float(v.perplexity, 4)));
        }
        sums.row(("parameters of the model", self.parameters));
        sums.row(("numbers that moved", self.trained));
        sums.row(("sparsity of the model before", Cell::float(self.sparsity_before, 4)));
        sums.row(("and after", Cell::float(self.sparsity_after, 4)));
        sums.row(("tokens/s", Cell::float(self.tokens_per_second, 1)));
        sums.row(("seconds", Cell::float(self.seconds, 1)));
        if let Some(bytes) = self.peak_bytes {
            sums.row(("memory at most, GB", Cell::float(bytes as f64 / 1e9, 2)));
        }
        sums.row(("threads", self.threads));
        sums
    }

    /// Points of a curve over the steps, not more than are seen.
    fn curve_of(&self, of: impl Fn(&crate::train::StepRecord) -> f64) -> Vec<Point> {
        let each = self.curve.len().div_ceil(POINTS).max(1);
        let mean = |part: &[crate::train::StepRecord]| {
            let n = part.len() as f64;
            Point::new(part.iter().map(|s| s.step as f64).sum::<f64>() / n, part.iter().map(&of).sum::<f64>() / n)
        };
        self.curve.chunks(each).map(mean).collect()
    }

    /// The run as a page: sums, curves, the settings.
    ///
    /// # Errors
    /// If a figure cannot be drawn.
    pub fn page(&self) -> Result<String> {
        let model =
            self.job.model.as_deref().and_then(|m| m.file_name()).map_or("?".into(), |n| n.to_string_lossy().into_owned());
        let mut page = Page::new(format!("Training: {model}")).table(&self.sums());
        let label = if self.job.teacher.is_some() || self.job.teacher_cache.is_some() {
            "loss towards the teacher, nats"
        } else {
            "cross-entropy, nats"
        };
        let loss = Figure::new("Training loss", "step", label).series("loss", self.curve_of(|s| s.loss));
        page = page.figure(&loss.to_svg()?);
        let measured: Vec<Point> = self.validation.iter().map(|v| Point::new(v.step as f64, v.nll)).collect();
        if let (Some(of), true) = (&self.validation_text, measured.len() > 1) {
            let figure = Figure::new("Validation", "step", "ln perplexity, nats").series("validation", measured);
            page = page.figure(&figure.to_svg()?).text(&format!("Measured on {of}."));
        }
        let rate =
            Figure::new("Learning rate", "step", "learning rate").series("rate", self.curve_of(|s| f64::from(s.learning_rate)));
        let norm = Figure::new("Norm of the gradient", "step", "norm").log_y().series("norm", self.curve_of(|s| s.gradient_norm));
        page = page.figure(&rate.to_svg()?).figure(&norm.to_svg()?);
        let mut settings = Table::new(["setting", "value"]);
        let job = serde_json::to_value(&self.job).unwrap_or_default();
        for (name, value) in job.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()) {
            let shown = match value {
                Value::String(text) => text.clone(),
                Value::Array(list) => {
                    list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), String::from)).collect::<Vec<_>>().join(", ")
                }
                other => other.to_string(),
            };
            settings.row((name.as_str(), shown));
        }
        Ok(page.heading("Settings").table(&settings).to_html())
    }
}
