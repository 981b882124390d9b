//! How far a job is, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use lacuna::job::{Event, Stage};

/// The bar of the part that runs, on a terminal; nothing elsewhere.
#[derive(Default)]
pub struct Bars(Option<(Stage, ProgressBar)>);

impl Bars {
    /// Shows how far a part is.
    pub fn see(&mut self, event: &Event) {
        let Event::Progress { stage, done, of, memory } = event else { return };
        if self.0.as_ref().is_none_or(|(current, _)| current != stage) {
            self.clear();
            self.0 = Some((*stage, bar(*stage)));
        }
        if let Some((_, bar)) = &self.0 {
            bar.set_length(*of as u64);
            bar.set_position(*done as u64);
            if let Some(bytes) = memory {
                bar.set_message(format!("{:.2} GB", *bytes as f64 / 1e9));
            }
        }
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(stage: Stage) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} (left: {eta}) {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(stage.name());
    bar
}
