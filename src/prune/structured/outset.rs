//! What is decided before the first block: layers, sub-layers and hidden features that stay.

use super::ShrinkRun;
use super::block::by_scores;
use super::method::UnitMethod;
use super::principal::Principal;
use super::record::{LayerChoice, ShrinkRecord, UnitRecord};
use super::score_file::UnitScores;
use super::sublayer::SubLayerChoice;
use super::sublayers::{by_outputs as halves_by_outputs, smallest};
use super::survey::{DepthScore, Steps, Survey, Wanted, at_once, by_outputs};
use crate::Result;
use crate::structure::{Coupling, UnitKind};
use std::time::Instant;

/// The record of a run that begins, and the principal components of the hidden states, where they are rotated.
pub(super) fn outset(run: &ShrinkRun<'_>, whole: &[Coupling], see: &mut Steps<'_>) -> Result<(ShrinkRecord, Option<Principal>)> {
    let ShrinkRun { folder, config, calibration, shrinking, .. } = *run;
    let mut record = ShrinkRecord::default();
    let layers = shrinking.sizes.layers.filter(|n| *n < config.layers());
    // Hidden features are ordered where there is something to order them by.
    let coupling = whole.iter().find(|c| c.kind == UnitKind::Hidden);
    let known = |scores: &UnitScores| coupling.is_some_and(|c| scores.find(c.kind, None, &c.name, c.units).is_ok());
    let sorts = shrinking.sort && (!calibration.ids().is_empty() || shrinking.scores.is_some_and(known));
    let hidden = match sorts {
        true => Some(config.hidden()),
        false => shrinking.sizes.hidden.filter(|n| *n < config.hidden()),
    };
    let prefix = matches!(shrinking.method, UnitMethod::Prefix);
    let cosines = shrinking.depth == DepthScore::Cosine && shrinking.scores.is_none();
    let begun = Instant::now();
    let principal = match shrinking.rotates() && hidden.is_some() {
        true => Some(Principal::of(folder, config, calibration, &shrinking.memory, see)?),
        false => None,
    };
    let (by_cosine, halves) = (layers.is_some() && cosines, shrinking.sublayers.is_some() && cosines);
    let scores_hidden = hidden.is_some() && !prefix && principal.is_none() && shrinking.scores.is_none();
    let survey = match scores_hidden || by_cosine || halves {
        true => {
            let wanted = Wanted { halves, ..Wanted::default() };
            Some(Survey::run(folder, config, calibration, &shrinking.memory, wanted, see)?)
        }
        false => None,
    };
    record.layers = match (layers, &survey, shrinking.scores) {
        (None, ..) => None,
        (Some(keep), _, Some(scores)) => Some(at_once(scores.layers(config.layers())?, keep)),
        (Some(keep), Some(survey), None) if by_cosine => Some(at_once(survey.cosines.clone(), keep)),
        (Some(keep), ..) => Some(by_outputs(folder, config, calibration, (shrinking.depth, keep), see)?),
    };
    let stay = record.layers.as_ref().map_or_else(|| (0..config.layers()).collect(), |l: &LayerChoice| l.kept.clone());
    let found = match (shrinking.sublayers, &survey, shrinking.scores) {
        (None, ..) => SubLayerChoice { gone: Vec::new(), scores: Vec::new() },
        (Some(count), _, Some(scores)) => smallest(config, &stay, scores.halves(config.layers())?, count),
        (Some(count), Some(survey), None) if halves => smallest(config, &stay, survey.halves.clone(), count),
        (Some(count), ..) => halves_by_outputs((folder, config), calibration, (shrinking.depth, count), &stay, see)?,
    };
    let mut gone = [found.gone, shrinking.drop.to_vec()].concat();
    gone.retain(|sub| stay.contains(&sub.block));
    gone.sort_unstable();
    gone.dedup();
    record.sublayers = (!gone.is_empty()).then_some(SubLayerChoice { gone, scores: found.scores });
    if let (Some(keep), Some(coupling)) = (hidden, coupling) {
        let scores = match (&principal, survey, shrinking.scores) {
            (Some(found), ..) => found.fractions.clone(),
            (None, _, Some(scores)) => scores.find(coupling.kind, None, &coupling.name, coupling.units)?,
            (None, Some(survey), None) => survey.hidden,
            (None, None, None) => first_ones(coupling),
        };
        let stages = [(coupling, keep)];
        let kept = by_scores(&stages, std::slice::from_ref(&scores), shrinking.sort)?.concat();
        record.units.push(UnitRecord {
            name: coupling.name.clone(),
            kind: coupling.kind,
            block: None,
            units: coupling.units,
            kept,
            scores,
            error: None,
            swapped: 0,
            tokens: calibration.ids().len(),
            seconds: begun.elapsed().as_secs_f64(),
        });
    }
    Ok((record, principal))
}

/// Scores by which the first units stay.
pub(super) fn first_ones(coupling: &Coupling) -> Vec<f64> {
    (0..coupling.units).map(|u| -(u as f64)).collect()
}
