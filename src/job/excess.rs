//! What a model loses on texts, at home and abroad: perplexities before and after, as a table, as figures and as means.

use crate::Result;
use crate::eval::TextScore;
use crate::lm::CalibrationMix;
use crate::report::{Bars, Cell, Page, Table};
use serde::{Deserialize, Deserializer, Serialize};
use std::path::{Path, PathBuf};

/// A perplexity before and after, with all that it takes to compare the numbers with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerplexityReport {
    /// The text.
    pub text: PathBuf,
    /// Tokens of a window.
    pub context: usize,
    /// Windows.
    pub windows: usize,
    /// Predicted tokens.
    pub predicted: usize,
    /// Tokens of the whole text.
    pub text_tokens: usize,
    /// Where the token that begins a text stands, in words.
    pub bos: String,
    /// The perplexity before; infinite, and null in JSON, where it is beyond all numbers.
    #[serde(deserialize_with = "or_infinite")]
    pub before: f64,
    /// The perplexity after.
    #[serde(deserialize_with = "or_infinite")]
    pub after: f64,
    /// The mean of −ln p before, in nats.
    pub nll_before: f64,
    /// The mean of −ln p after.
    pub nll_after: f64,
    /// The excess in nats a token of the model before: ln(after / before), and of other tokens what their bits a byte come to. 0 in records of
    /// builds that did not say it.
    #[serde(default)]
    pub excess: f64,
    /// Bits a byte of text before ([`TextScore::bits_per_byte`](crate::eval::TextScore)).
    #[serde(default)]
    pub bits_per_byte_before: Option<f64>,
    /// Bits a byte of text after.
    #[serde(default)]
    pub bits_per_byte_after: Option<f64>,
}

/// JSON has no number for what is beyond all of them.
fn or_infinite<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(value)?.unwrap_or(f64::INFINITY))
}

impl PerplexityReport {
    /// Of what two models make of one text; `others` says that the second has other tokens.
    pub fn of(before: &TextScore, after: &TextScore, others: bool) -> PerplexityReport {
        let excess = match (before.bits_per_byte, after.bits_per_byte) {
            (Some(a), Some(b)) if others && a > 0.0 => before.nll * (b / a - 1.0),
            _ => after.nll - before.nll,
        };
        PerplexityReport {
            text: before.text.clone(),
            context: before.context,
            windows: before.windows,
            predicted: before.predicted,
            text_tokens: before.text_tokens,
            bos: before.bos.clone(),
            before: before.perplexity,
            after: after.perplexity,
            nll_before: before.nll,
            nll_after: after.nll,
            excess,
            bits_per_byte_before: before.bits_per_byte,
            bits_per_byte_after: after.bits_per_byte,
        }
    }

    /// Before and after; infinite only where the mean of −ln p is beyond 709.
    fn perplexities(&self) -> [f64; 2] {
        [(self.before, self.nll_before), (self.after, self.nll_after)].map(|(p, nll)| if p.is_finite() { p } else { nll.exp() })
    }

    /// What it was measured on: numbers of other contexts, or with the first token elsewhere, are not comparable.
    fn setting(&self) -> String {
        format!("context {}, {} windows, BOS: {}", self.context, self.windows, self.bos)
    }

    /// A page with a table and a figure of it.
    fn on(&self, page: Page) -> Result<Page> {
        let [before, after] = self.perplexities();
        let mut table = Table::new(["", "perplexity"]);
        table.row(("before", Cell::float(before, 4)));
        table.row(("after", Cell::float(after, 4)));
        let bars = Bars::new("Perplexity", "", "perplexity", ["before", "after"]).series("model", vec![before, after]);
        let page = page.heading("Perplexity").text(&format!("{}: {}.", self.text.display(), self.setting())).table(&table);
        if before.is_finite() && after.is_finite() { Ok(page.figure(&bars.to_svg()?)) } else { Ok(page) }
    }
}

/// The excess ln(perplexity after / before): its means over texts of the calibration's kind (at home), over the others (abroad), and over all.
///
/// A text is of the calibration's kind if the names of both files are alike up to the first `-` or `.`: `bible-judge.txt` and `bible-calibration.txt`.
/// Where a name begins with what a part of a data set is called (`train.txt`, `test.txt`), that of the folder says the kind. What a method learns of its
/// calibration alone is lost abroad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Excess {
    /// The mean over all texts.
    pub mean: f64,
    /// The mean over those of the calibration's kind; `None` if there are none.
    pub home: Option<f64>,
    /// The mean over the others; `None` if there are none.
    pub abroad: Option<f64>,
}

/// Names of parts, which say nothing of a text's kind.
const PARTS: [&str; 11] =
    ["train", "training", "valid", "validation", "val", "dev", "test", "calibration", "judge", "heldout", "text"];

/// What the name of a file, or of its folder, begins with.
fn kind(path: &Path) -> String {
    let begins = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy().into_owned();
        name.split(['-', '.']).next().unwrap_or_default().to_string()
    };
    let own = path.file_name().map(begins).unwrap_or_default();
    let folder = || path.parent().and_then(Path::file_name).map(begins).filter(|name| !name.is_empty());
    match PARTS.contains(&&*own.to_lowercase()) {
        true => folder().map_or(own, |folder| format!("{folder}/")),
        false => own,
    }
}

/// What a folder of this library was calibrated on, by its record; `None` where it has none, or nothing was measured.
pub fn calibration_of(folder: &Path) -> Option<PathBuf> {
    let record =
        |name: &str| -> Option<serde_json::Value> { serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok() };
    let records = ["prune.json", "quantize.json", "shrink.json"].into_iter().filter_map(record);
    records.filter_map(|record| record["job"]["calibration"].as_str().map(PathBuf::from)).next()
}

/// Texts that were measured before and after, and what was calibrated on: the table, the figures and the means of all commands.
#[derive(Debug, Clone, Copy)]
pub struct TextReports<'a> {
    texts: &'a [PerplexityReport],
    calibration: Option<&'a Path>,
}

impl<'a> TextReports<'a> {
    /// Of these texts; `calibration` is a file or a mix of several ([`CalibrationMix`]), by whose names texts are at home or abroad.
    pub fn new(texts: &'a [PerplexityReport], calibration: Option<&'a Path>) -> TextReports<'a> {
        TextReports { texts, calibration }
    }

    /// Each text.
    pub fn texts(&self) -> &'a [PerplexityReport] {
        self.texts
    }

    /// The kinds of the calibration.
    fn kinds(&self) -> Vec<String> {
        let Some(given) = self.calibration else { return Vec::new() };
        match CalibrationMix::of_path(given) {
            Ok(Some(mix)) => mix.files().map(kind).collect(),
            _ => vec![kind(given)],
        }
    }

    /// The means of the excess; `None` without texts.
    pub fn excess(&self) -> Option<Excess> {
        let kinds = self.kinds();
        let (home, abroad): (Vec<_>, Vec<_>) = self.texts.iter().partition(|p| kinds.contains(&kind(&p.text)));
        let mean =
            |of: &[&PerplexityReport]| (!of.is_empty()).then(|| of.iter().map(|p| p.excess).sum::<f64>() / of.len() as f64);
        let all: Vec<&PerplexityReport> = self.texts.iter().collect();
        Some(Excess { mean: mean(&all)?, home: mean(&home), abroad: mean(&abroad) })
    }

    /// Each text before and after, and the means.
    pub fn table(&self) -> Table {
        let mut table =
            Table::new(["text", "of the calibration's kind", "perplexity before", "after", "ln (after / before)", "windows"]);
        let kinds = self.kinds();
        for p in self.texts {
            let [before, after] = p.perplexities().map(|x| Cell::float(x, 4));
            let home = if kinds.contains(&kind(&p.text)) { "yes" } else { "no" };
            table.row((p.text.display().to_string(), home, before, after, Cell::float(p.excess, 4), p.windows));
        }
        let Some(Excess { mean, home, abroad }) = self.excess() else { return table };
        let all = [("mean at home", home), ("mean abroad", abroad), ("mean", Some(mean))];
        for (name, mean) in all.into_iter().filter_map(|(name, mean)| Some((name, mean?))) {
            table.row((name, "", "", "", Cell::float(mean, 4), ""));
        }
        table
    }

    /// A line of one text, the table of several.
    pub fn to_text(&self) -> String {
        match self.texts {
            [] => String::new(),
            [p] => format!(
                "perplexity of {}: {:.4} before, {:.4} after, ln (after / before) {:.4}; {}\n",
                p.text.display(),
                p.perplexities()[0],
                p.perplexities()[1],
                p.excess,
                p.setting()
            ),
            [first, ..] => format!("{}context {}; BOS: {}\n", self.table().to_text(), first.context, first.bos),
        }
    }

    /// The page with the table, the excess of each text beside its means, and the perplexities.
    ///
    /// # Errors
    /// If a figure cannot be drawn.
    pub fn on(&self, mut page: Page) -> Result<Page> {
        if let [one] = self.texts {
            return one.on(page);
        }
        let (Some(first), Some(excess)) = (self.texts.first(), self.excess()) else { return Ok(page) };
        let setting = format!("Context {}; BOS: {}.", first.context, first.bos);
        page = page.heading("Texts").text(&setting).table(&self.table());
        let name = |p: &PerplexityReport| p.text.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names: Vec<String> = self.texts.iter().map(name).collect();
        let kinds = self.kinds();
        // Texts at home and abroad are two colours; each has a bar at its own places.
        let of = |home: bool, mean: Option<f64>| -> Vec<f64> {
            let own = |p: &PerplexityReport| if kinds.contains(&kind(&p.text)) == home { p.excess } else { f64::NAN };
            self.texts.iter().map(own).chain([mean.unwrap_or(f64::NAN)]).collect()
        };
        let means = names.iter().map(String::as_str).chain(["mean"]);
        let mut bars = Bars::new("What was lost on each text", "", "ln (perplexity after / before)", means);
        if excess.home.is_some() {
            bars = bars.series("of the calibration's kind", of(true, excess.home));
        }
        if excess.abroad.is_some() {
            bars = bars.series("of other kinds", of(false, excess.abroad));
        }
        page = page.figure(&bars.to_svg()?);
        let both: Vec<[f64; 2]> = self.texts.iter().map(PerplexityReport::perplexities).collect();
        if both.iter().flatten().any(|p| !p.is_finite()) {
            return Ok(page);
        }
        let bars = Bars::new("Perplexity", "", "perplexity", names.iter().map(String::as_str));
        let bars =
            bars.series("before", both.iter().map(|p| p[0]).collect()).series("after", both.iter().map(|p| p[1]).collect());
        Ok(page.figure(&bars.to_svg()?))
    }
}

#[cfg(test)]
mod tests {
    use super::{Excess, PerplexityReport, TextReports};
    use std::path::Path;

    fn text(name: &str, after: f64) -> PerplexityReport {
        PerplexityReport {
            text: name.into(),
            context: 8,
            windows: 1,
            predicted: 7,
            text_tokens: 8,
            bos: String::new(),
            before: 1f64.exp(),
            after: after.exp(),
            nll_before: 1.0,
            nll_after: after,
            excess: after - 1.0,
            bits_per_byte_before: None,
            bits_per_byte_after: None,
        }
    }

    fn of(texts: &[PerplexityReport], calibration: Option<&str>) -> Excess {
        TextReports::new(texts, calibration.map(Path::new)).excess().unwrap()
    }

    #[test]
    fn texts_of_the_calibrations_kind_are_at_home() {
        let texts = [text("t/bible-judge.txt", 1.5), text("code-judge.txt", 2.0), text("help-judge.txt", 3.0)];
        let found = of(&texts, Some("bible-calibration.txt"));
        assert_eq!((found.mean, found.home, found.abroad), (3.5 / 3.0, Some(0.5), Some(1.5)));
        let found = of(&texts, Some("a/code-calibration.txt:0.5,help-x.txt:0.5"));
        assert_eq!((found.home, found.abroad), (Some(1.5), Some(0.5)));
        assert_eq!((of(&texts, None).home, of(&texts, Some("self")).abroad), (None, Some(3.5 / 3.0)));
        assert_eq!(TextReports::new(&[], None).excess(), None);
    }

    #[test]
    fn names_of_parts_leave_the_kind_to_the_folder() {
        let texts = [text("news-en/test.txt", 1.5), text("law/test.txt", 2.0), text("test.txt", 3.0)];
        assert_eq!(of(&texts, Some("x/news/train.txt")).home, Some(0.5));
        assert_eq!(of(&texts, Some("law/valid.jsonl")).home, Some(1.0));
    }

    #[test]
    fn the_page_draws_each_text_and_both_means() {
        let texts = [text("a-judge.txt", 1.5), text("b-judge.txt", 2.0)];
        let reports = TextReports::new(&texts, Some(Path::new("a-calibration.txt")));
        let page = reports.on(crate::report::Page::new("x")).unwrap().to_html();
        for part in ["of the calibration&#39;s kind", "of other kinds", "mean at home", "mean abroad", "b-judge.txt", "<svg"] {
            assert!(page.contains(part) || page.contains(&part.replace("&#39;", "'")), "{part}");
        }
        assert_eq!(page.matches("<svg xmlns").count(), 2);
    }
}
