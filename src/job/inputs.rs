//! What jobs on a model's folder read, and where they keep what they measure.

use super::event::{Event, Stage};
use super::search::{Watch, progress};
use crate::data::{Bos, Sequences, Tokens};
use crate::eval::available_memory;
use crate::io::Folder;
use crate::lm::{CalibrationMix, CalibrationSelection, Config, remark};
use crate::rng::Seed;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Megabytes of activations where the system does not say how much memory is free.
const MEGABYTES: usize = 512;

/// Opens a folder whose weights are not packed.
pub(super) fn open_whole(model: &Path) -> Result<Folder> {
    let folder = Folder::open(model)?;
    if let Some(name) = folder.packed().next() {
        let how = match folder.is_coded(name) {
            true => format!("in codes of {} bits", folder.info(name)?.dtype.trim_start_matches('I')),
            false => "packed".to_string(),
        };
        let reason = format!("weight {name} is {how}; 'lacuna pack DIR OUT --save weights' makes it whole");
        return Err(Error::malformed(model, reason));
    }
    Ok(folder)
}

/// Bytes of activations and sums of gradients that stay in memory: as asked for, or half of what is free beside the model, where that is
/// loaded whole.
pub(super) fn activation_bytes(asked: Option<usize>, whole: bool, folder: &Folder) -> usize {
    if let Some(bytes) = asked {
        return bytes;
    }
    let bytes = || folder.names().filter_map(|name| folder.info(name).ok()).map(|t| 4 * t.elements()).sum();
    let model = if whole { bytes() } else { 0 };
    let half = |free: u64| usize::try_from(free).unwrap_or(usize::MAX).saturating_sub(model) / 2;
    available_memory().map_or(MEGABYTES << 20, half)
}

/// The folder for what has no room in memory: as asked for, or that of the output. A file without a name is made there at once.
pub(super) fn scratch_folder(asked: Option<&Path>, out: &Path) -> Result<PathBuf> {
    let above = || out.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let Some(asked) = asked else { return Ok(above()) };
    if !asked.is_dir() {
        return Err(Error::invalid_option("scratch", format!("{} is no folder", asked.display())));
    }
    tempfile::tempfile_in(asked).map_err(|e| Error::io(asked, e))?;
    Ok(asked.to_path_buf())
}

/// What is measured on.
pub(super) struct CalibrationText<'a> {
    pub file: Option<&'a Path>,
    pub samples: usize,
    pub context: usize,
    pub bos: Bos,
    /// Draws documents and sequences where there are several sources, and texts of the model's own.
    pub seed: u64,
    /// Which sequences; of one file the first, of several by chance, unless it is said.
    pub select: Option<CalibrationSelection>,
    /// The source that is only judged by.
    pub hold_out: Option<&'a str>,
}

/// The files that are read to measure on.
pub(super) fn calibration_files(calibration: Option<&Path>) -> Result<Vec<PathBuf>> {
    let Some(given) = calibration else { return Ok(Vec::new()) };
    Ok(match CalibrationMix::of_path(given)? {
        Some(mix) => mix.files().map(PathBuf::from).collect(),
        None => vec![given.to_path_buf()],
    })
}

impl CalibrationText<'_> {
    /// The tokens of calibration, exactly as many as asked for, and where the token that begins a text stands among them.
    pub fn read(&self, folder: &Folder, config: &Config, watch: &mut Watch<'_>) -> Result<(Sequences, String)> {
        let Some(file) = self.file else { return Ok((Sequences::nothing(), String::new())) };
        if let Some(positions) = config.stated_context().filter(|p| self.context > *p) {
            return Err(Error::invalid_option(
                "context",
                format!("{} tokens; this model has {positions} positions", self.context),
            ));
        }
        let mix = CalibrationMix::of_path(file)?;
        if let Some(mix) = mix.or_else(|| self.select.map(|_| CalibrationMix::of_file(file))) {
            let held_out = self.hold_out.map(|name| mix.source(name)).transpose()?;
            let see = &mut |done, of| progress(watch, Stage::Texts, done, of);
            let mix = mix.select(self.select.unwrap_or_default());
            let found = mix.read(folder, config, (self.samples, self.context, self.bos), Seed(self.seed), see)?;
            for selected in found.selected {
                Error::go_on(watch(&Event::Note(format!("calibration by {selected}"))))?;
            }
            let sequences =
                held_out.map_or_else(|| Ok(found.sequences.clone()), |text| found.sequences.clone().hold_out(text))?;
            return Ok((sequences, found.bos));
        }
        let tokens = Tokens::read(file, folder, config, self.bos)?;
        let short = || {
            let reason = format!(
                "{} has {} tokens, fewer than the {} x {} asked for; lower --samples or --context",
                file.display(),
                tokens.ids.len(),
                self.samples,
                self.context
            );
            Error::invalid_option("calibration", reason)
        };
        let sequences = tokens.sequences(self.context, self.samples).ok_or_else(short)?;
        Ok((sequences, tokens.bos))
    }
}

/// Says where a folder is not what it seems.
pub(super) fn remarks(folder: &Folder, config: &Config, watch: &mut Watch<'_>) -> Result<()> {
    let of_folder = |error: Error| match error {
        e @ (Error::Io { .. } | Error::Malformed { .. }) => e,
        e => Error::malformed(folder.path(), e.to_string()),
    };
    let tied = remark(folder, config).map_err(of_folder)?;
    for line in folder.remark().into_iter().chain(tied) {
        Error::go_on(watch(&Event::Note(format!("{}: {line}", folder.path().display()))))?;
    }
    Ok(())
}
