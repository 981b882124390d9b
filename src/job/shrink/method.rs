//! The methods of a job that makes a model smaller, by name.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How heads and feed-forward features are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShrinkMethod {
    /// Group OBS with exchanges, and the least squares solution of what stays.
    #[default]
    Obs,
    /// Mean activations, as Minitron.
    Minitron,
    /// Fluctuations, as FLAP.
    Flap,
    /// First-order Taylor: the sum of (g w)² over all weights of the unit.
    Taylor,
    /// Diagonal Fisher: the sum of ½ F w².
    Fisher,
    /// The sum of w².
    Magnitude,
    /// By chance.
    Random,
}

impl ShrinkMethod {
    /// All of them.
    pub const ALL: [ShrinkMethod; 7] = [
        ShrinkMethod::Obs,
        ShrinkMethod::Minitron,
        ShrinkMethod::Flap,
        ShrinkMethod::Taylor,
        ShrinkMethod::Fisher,
        ShrinkMethod::Magnitude,
        ShrinkMethod::Random,
    ];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            ShrinkMethod::Obs => "obs",
            ShrinkMethod::Minitron => "minitron",
            ShrinkMethod::Flap => "flap",
            ShrinkMethod::Taylor => "taylor",
            ShrinkMethod::Fisher => "fisher",
            ShrinkMethod::Magnitude => "magnitude",
            ShrinkMethod::Random => "random",
        }
    }

    /// Whether a calibration is run, forward or back.
    pub fn measures(self) -> bool {
        !matches!(self, ShrinkMethod::Magnitude | ShrinkMethod::Random)
    }
}

impl fmt::Display for ShrinkMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
