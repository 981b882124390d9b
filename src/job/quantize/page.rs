//! A run as a page.

use super::report::QuantizeReport;
use crate::Result;
use crate::report::{Cell, Figure, Page, Point, Table};

impl QuantizeReport {
    /// The run as a page: sizes, perplexities, errors of layers, settings.
    ///
    /// # Errors
    /// If a figure cannot be drawn.
    pub fn page(&self) -> Result<String> {
        let model =
            self.job.model.as_deref().and_then(|m| m.file_name()).map_or("?".into(), |n| n.to_string_lossy().into_owned());
        let mut sizes = Table::new(["", "before", "after"]);
        sizes.row(("MB of weights", Cell::float(self.bytes_before as f64 / 1e6, 1), Cell::float(self.bytes as f64 / 1e6, 1)));
        sizes.row(("bits of each in codes", None::<Cell>, Cell::float(self.bits, 3)));
        let title = format!("{} to {} bits by {}", model, self.job.bits, self.job.method);
        let mut page = Page::new(title).table(&sizes);
        page = self.perplexities().on(page)?;
        let of = |what: &str, f: fn(&crate::prune::QuantRecord) -> Option<f64>| -> Result<Option<String>> {
            let points: Vec<Point> =
                self.layers.iter().enumerate().filter_map(|(i, l)| Some(Point::new(i as f64, f(l)?))).collect();
            if points.is_empty() {
                return Ok(None);
            }
            Figure::new(what, "layer, in order", "fraction").series("layers", points).to_svg().map(Some)
        };
        if let Some(figure) = of("Squared error of outputs, of their square", |l| l.error)? {
            page = page.heading("Error").text("On the calibration.").figure(&figure);
        }
        if let Some(figure) = of("Squared change of weights, of their square", |l| l.moved)? {
            page = page.heading("Change").figure(&figure);
        }
        if let Some(figure) = of("Squared error of hidden states behind a half, trained, of what it was", |l| {
            l.reconstructed.filter(|(before, _)| *before > 0.0).map(|(before, after)| after / before)
        })? {
            page = page.heading("Reconstruction").figure(&figure);
        }
        page = page.heading("Layers").table(&self.table());
        let mut settings = Table::new(["option", "value"]);
        let options = self.settings["options"].as_object().into_iter().flatten();
        for (key, value) in options.chain(self.asked.as_object().into_iter().flatten()).filter(|(_, v)| !v.is_null()) {
            settings.row((key.as_str(), value.as_str().map_or_else(|| value.to_string(), String::from)));
        }
        Ok(page.heading("Settings").text("Those that matter for what was asked.").table(&settings).to_html())
    }
}
