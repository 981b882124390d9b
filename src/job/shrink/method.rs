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

/// By what group OBS chooses units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitMetric {
    /// What the model's loss is expected to rise by: errors of a layer's outputs, weighed by the second moments of the loss's gradients there
    /// ([`OutputMetrics`](crate::prune::OutputMetrics)).
    #[default]
    Loss,
    /// The squared error of the layer that reads the units, as the published methods.
    Error,
}

impl UnitMetric {
    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        match self {
            UnitMetric::Loss => "loss",
            UnitMetric::Error => "error",
        }
    }
}

impl fmt::Display for UnitMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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

    /// Whether what stays follows from inputs too, so that scores alone are not enough.
    pub(super) fn reads_inputs(self) -> bool {
        matches!(self, ShrinkMethod::Obs | ShrinkMethod::Flap)
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
