//! What a model loses on texts, at home and abroad.

use super::report::PerplexityReport;
use crate::lm::CalibrationMix;
use crate::report::{Cell, Table};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The excess ln(perplexity after / before): its means over texts of the calibration's kind (at home), over the others (abroad), and over all.
///
/// A text is of the calibration's kind if the names of both files are alike up to the first `-` or `.`: `bible-judge.txt` and `bible-calibration.txt`.
/// What a method learns of its calibration alone is lost abroad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Excess {
    /// The mean over all texts.
    pub mean: f64,
    /// The mean over those of the calibration's kind; `None` if there are none.
    pub home: Option<f64>,
    /// The mean over the others; `None` if there are none.
    pub abroad: Option<f64>,
}

/// What the name of a file begins with.
fn kind(path: &Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    name.split(['-', '.']).next().unwrap_or_default().to_string()
}

impl Excess {
    /// Of texts that were measured before and after, where this was the calibration; `None` without texts.
    pub(super) fn of(texts: &[PerplexityReport], calibration: Option<&Path>) -> Option<Excess> {
        let files: Vec<PathBuf> = match calibration {
            None => Vec::new(),
            Some(given) => match CalibrationMix::of_path(given) {
                Ok(Some(mix)) => mix.files().map(PathBuf::from).collect(),
                _ => vec![given.to_path_buf()],
            },
        };
        let kinds: Vec<String> = files.iter().map(|file| kind(file)).collect();
        let (home, abroad): (Vec<_>, Vec<_>) = texts.iter().partition(|p| kinds.contains(&kind(&p.text)));
        let mean = |of: &[&PerplexityReport]| {
            (!of.is_empty()).then(|| of.iter().map(|p| p.nll_after - p.nll_before).sum::<f64>() / of.len() as f64)
        };
        let all: Vec<&PerplexityReport> = texts.iter().collect();
        Some(Excess { mean: mean(&all)?, home: mean(&home), abroad: mean(&abroad) })
    }

    /// Adds the means to a table of texts whose fourth of five columns is the excess.
    pub(super) fn rows(self, table: &mut Table) {
        let all = [("mean at home", self.home), ("mean abroad", self.abroad), ("mean", Some(self.mean))];
        for (name, mean) in all.into_iter().filter_map(|(name, mean)| Some((name, mean?))) {
            table.row((name, "", "", Cell::float(mean, 4), ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Excess;
    use crate::job::PerplexityReport;
    use std::path::Path;

    #[test]
    fn texts_of_the_calibrations_kind_are_at_home() {
        let text = |name: &str, after: f64| PerplexityReport {
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
            bits_per_byte_before: None,
            bits_per_byte_after: None,
        };
        let texts = [text("t/bible-judge.txt", 1.5), text("code-judge.txt", 2.0), text("help-judge.txt", 3.0)];
        let of = |calibration: Option<&str>| Excess::of(&texts, calibration.map(Path::new)).unwrap();
        let found = of(Some("bible-calibration.txt"));
        assert_eq!((found.mean, found.home, found.abroad), (3.5 / 3.0, Some(0.5), Some(1.5)));
        let found = of(Some("a/code-calibration.txt:0.5,help-x.txt:0.5"));
        assert_eq!((found.home, found.abroad), (Some(1.5), Some(0.5)));
        assert_eq!((of(None).home, of(Some("self")).abroad), (None, Some(3.5 / 3.0)));
        assert_eq!(Excess::of(&[], None), None);
    }
}
