//! A run as a page.

use super::report::{ShrinkReport, tried};
use crate::Result;
use crate::prune::{SubLayer, SubLayerKind};
use crate::report::{Cell, Figure, Page, Point, Table};
use crate::structure::UnitKind;

/// The units of blocks, in the order in which they are drawn.
const KINDS: [UnitKind; 3] = [UnitKind::KvGroup, UnitKind::Head, UnitKind::FeedForward];

impl ShrinkReport {
    /// The run as a page: sizes before and after, what is left of each layer, errors, scores of layers, settings.
    ///
    /// # Errors
    /// If a figure cannot be drawn.
    pub fn page(&self) -> Result<String> {
        let model =
            self.job.model.as_deref().and_then(|m| m.file_name()).map_or("?".into(), |n| n.to_string_lossy().into_owned());
        let mut page = Page::new(format!("Made smaller by {}: {model}", self.chosen_by())).table(&self.sizes());
        page = self.perplexities().on(page)?;
        if let Some(mixture) = &self.mixture {
            let [experts, active] =
                [mixture.experts, mixture.active].map(|[before, after]| format!("{before} before, {after} after"));
            let text = format!(
                "Of each block: {experts}. Experts that a token meets: {active}. Scores as {} has them.",
                self.chosen_by()
            );
            page = page.heading("Experts").text(&text).table(&mixture.table());
        } else {
            page = page
                .heading("What is left")
                .text("Of each layer of the model before, by kind of unit; 0 of layers that were left out.");
            page = page.figure(&self.left().to_svg()?);
        }
        if let Some(errors) = self.errors() {
            page = page
                .heading("Error")
                .text("The squared error of the layer that reads the units, as a fraction of the square of its outputs on the calibration.")
                .figure(&errors.to_svg()?);
        }
        if !self.reconstructed.is_empty() {
            let of = |what: &str| -> Vec<Point> {
                let mine = self.reconstructed.iter().filter(|h| h.half == what && h.before > 0.0);
                mine.map(|h| Point::new(h.block as f64, h.after / h.before)).collect()
            };
            let figure = Figure::new("What training left of the error", "layer", "error after / before");
            let series = ["attention", "feed-forward", "both"].into_iter().map(|what| (what, of(what)));
            let figure = series.filter(|(_, points)| !points.is_empty()).fold(figure, |f, (what, points)| f.series(what, points));
            page = page
                .heading("Reconstruction")
                .text("The squared error of the hidden states behind each half that was trained, on the tokens that were looked at.")
                .figure(&figure.to_svg()?);
        }
        if let Some(search) = &self.search {
            let text =
                format!("Sizes that meet {}, on {} held-out tokens, with nothing made up for.", search.target, search.tokens);
            page = page.heading("Search").text(&text).table(&tried(search));
        }
        if let Some(sublayers) = self.sublayers.as_ref().filter(|s| !s.scores.is_empty()) {
            let of = |half: usize| {
                let scores = sublayers.scores.iter().enumerate().filter(|(_, s)| s[half].is_finite());
                scores.map(|(l, s)| Point::new(l as f64, s[half])).collect::<Vec<_>>()
            };
            let figure = Figure::new("What leaving half of a block out costs", "layer", "score");
            let figure = figure.series("attention", of(0)).series("feed-forward layers", of(1));
            page = page.heading("Sub-layers").text("Those with the smallest scores went.").figure(&figure.to_svg()?);
        }
        if let Some(layers) = &self.layers {
            let points = layers.scores.iter().enumerate().filter(|(_, s)| s.is_finite()).map(|(l, s)| Point::new(l as f64, *s));
            let figure =
                Figure::new("What leaving a layer out costs", "layer", "score").series("score", points.collect::<Vec<_>>());
            page = page.heading("Layers").text("Those with the smallest scores went.").figure(&figure.to_svg()?);
        }
        let mut settings = Table::new(["option", "value"]);
        let options = self.settings["options"].as_object().into_iter().flatten();
        for (key, value) in options.chain(self.asked.as_object().into_iter().flatten()).filter(|(_, v)| !v.is_null()) {
            settings.row((key.as_str(), value.as_str().map_or_else(|| value.to_string(), String::from)));
        }
        Ok(page.heading("Settings").text("Those that matter for what was asked.").table(&settings).to_html())
    }

    fn sizes(&self) -> Table {
        let mut table = Table::new(["", "before", "after", "left"]);
        let (a, b) = (self.before, self.after);
        let mut row = |what: &str, before: f64, after: f64| {
            let left = (before > 0.0).then(|| Cell::float(after / before, 4));
            table.row((what, Cell::float(before, 0), Cell::float(after, 0), left));
        };
        row("parameters", a.parameters as f64, b.parameters as f64);
        row("weights of the blocks", a.blocks as f64, b.blocks as f64);
        row("bytes", a.bytes as f64, b.bytes as f64);
        row("FLOPs a token", a.flops as f64, b.flops as f64);
        if let Some(times) = self.times {
            row("microseconds a token", 1e3 * times.before, 1e3 * times.after);
        }
        table
    }

    /// The fraction of each layer's units that is left.
    fn left(&self) -> Figure {
        let figure = Figure::new("What is left of each layer", "layer", "left").percent_y();
        let layers = self.layers.as_ref();
        let count =
            layers.map_or_else(|| self.units.iter().filter_map(|u| u.block).max().map_or(0, |b| b + 1), |l| l.scores.len());
        let stays = |layer: usize| layers.is_none_or(|l| l.kept.contains(&layer));
        let of = |layer: usize, kind: UnitKind| {
            let unit = self.units.iter().find(|u| u.block == Some(layer) && u.kind == kind);
            let half = if kind == UnitKind::FeedForward { SubLayerKind::FeedForward } else { SubLayerKind::Attention };
            let gone = self.sublayers.as_ref().is_some_and(|s| s.gone.contains(&SubLayer { block: layer, kind: half }));
            if stays(layer) && !gone { unit.map_or(1.0, |u| u.kept.len() as f64 / u.units as f64) } else { 0.0 }
        };
        let whole = (0..count.max(1)).map(|l| Point::new(l as f64, f64::from(u8::from(stays(l))))).collect::<Vec<_>>();
        let figure = figure.series("layers", whole);
        let halves = self.sublayers.is_some();
        let shown = |kind: &UnitKind| self.gone(*kind) > 0 || halves && *kind != UnitKind::KvGroup;
        KINDS.into_iter().filter(shown).fold(figure, |figure, kind| {
            figure.series(kind.name(), (0..count).map(|l| Point::new(l as f64, of(l, kind))).collect::<Vec<_>>())
        })
    }

    fn errors(&self) -> Option<Figure> {
        let figure = Figure::new("Error by layer", "layer", "squared error / square");
        let mut any = false;
        let figure = KINDS.into_iter().fold(figure, |figure, kind| {
            let mine = self.units.iter().filter(|u| u.kind == kind);
            let points: Vec<Point> = mine.filter_map(|u| Some(Point::new(u.block? as f64, u.error?))).collect();
            any |= !points.is_empty();
            if points.is_empty() { figure } else { figure.series(kind.name(), points) }
        });
        any.then_some(figure)
    }
}
