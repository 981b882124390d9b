//! The settings by which a job is kept from learning its calibration by heart, and what they come to.

use super::chosen::ChosenSetting;
use super::settings::PruneJob;
use crate::lm::CalibrationMix;
use crate::prune::Generalisation;
use crate::solve::{GramShrinkage, RobustTexts};
use crate::{Error, Result};

/// Solves of a layer that are still a number and no slip.
const ROUNDS: usize = 1000;

impl PruneJob {
    /// What the settings come to, each in its range.
    pub(super) fn generalisation(&self) -> Result<Generalisation> {
        let text = self.shrinkage.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        if self.shrinkage.len() > 2 || !self.shrinkage.iter().all(|s| (0.0..=1.0).contains(s)) {
            let reason = format!("'{text}' is not one or two fractions in [0, 1], as 0.1 or 0.1,0.5");
            return Err(Error::invalid_option("shrinkage", reason));
        }
        if let Some(rounds) = self.robust.filter(|rounds| !(1..=ROUNDS).contains(rounds)) {
            return Err(Error::invalid_option(
                "robust",
                format!("{rounds} solves of each layer; 1 to {ROUNDS} are made, 4 are usual"),
            ));
        }
        let of = |at: usize| self.shrinkage.get(at).copied().unwrap_or(0.0);
        let chooses = |setting: ChosenSetting| self.choose.contains(&setting);
        Ok(Generalisation {
            shrinkage: GramShrinkage { diagonal: of(0), identity: 0.0, texts: of(1) },
            robust: self.robust.map(RobustTexts::new),
            choose_damping: chooses(ChosenSetting::Damping),
            choose_shrinkage: chooses(ChosenSetting::Shrinkage),
            choose_correction: chooses(ChosenSetting::Correct),
        })
    }

    /// The same, with the sources of calibration that it takes.
    pub(super) fn checked_generalisation(&self) -> Result<Generalisation> {
        let found = self.generalisation()?;
        let mix = self.calibration.as_deref().map(CalibrationMix::of_path).transpose()?.flatten();
        let sources = mix.as_ref().map_or(1, |mix| mix.sources().len());
        if let Some(name) = &self.hold_out {
            match &mix {
                Some(mix) => drop(mix.source(name)?),
                None => {
                    return Err(Error::invalid_option(
                        "hold-out",
                        format!("{name} is of a calibration of one source; {SEVERAL}"),
                    ));
                }
            }
            if self.choose.is_empty() && self.reconstruct_blocks.is_none() {
                let reason = format!("{name} has nothing to judge: give --choose or --reconstruct-blocks");
                return Err(Error::invalid_option("hold-out", reason));
            }
        }
        let alone = sources < 2;
        match self.choose.first() {
            Some(_) if alone && self.calibration.is_some() => {
                Err(Error::invalid_option("choose", format!("what is chosen is judged on texts left out; {SEVERAL}")))
            }
            Some(_) if found.choose_correction && self.correct.is_empty() => {
                Err(Error::invalid_option("choose", "correct has no fractions to choose up to: give --correct, as 1,1"))
            }
            _ => Ok(found),
        }
    }
}

/// What a calibration of one source lacks.
const SEVERAL: &str = "give --calibration several, as a.txt:0.5,self:0.5";
