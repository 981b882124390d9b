//! Which parameters of a model train, and which have weight decay.

use super::settings::TrainJob;
use crate::io::Folder;
use crate::lm::{Kind, LanguageModel, Outline};
use crate::nn::Parameters;
use crate::prune::matches;
use crate::rng::Seed;
use crate::train::{LowRankConfig, Trainable};
use crate::{Error, Result};
use std::collections::BTreeSet;

/// What a pattern by kind begins with.
const KIND: &str = "kind:";

/// The parameters of a model, and what each is for.
pub(super) struct Named(Vec<(String, Kind)>);

impl Named {
    pub fn of(model: &LanguageModel, outline: &Outline) -> Named {
        let mut all = Vec::new();
        model.visit(&mut |name, values, _| all.push((name.to_string(), outline.kind(name, values.ndim()))));
        Named(all)
    }

    /// Those that match one of the patterns.
    ///
    /// # Errors
    /// If there is no such kind, or a pattern by name matches none.
    pub fn matching(&self, option: &str, patterns: &[String]) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for pattern in patterns {
            let kind = pattern.strip_prefix(KIND).map(|name| of_name(option, name)).transpose()?;
            let fits = |(name, is): &&(String, Kind)| kind.map_or_else(|| matches(pattern, name), |kind| kind == *is);
            let before = found.len();
            found.extend(self.0.iter().filter(fits).map(|(name, _)| name.clone()));
            if kind.is_none() && found.len() == before && !self.0.iter().any(|p| fits(&p)) {
                return Err(Error::unknown_name("parameter", pattern, self.0.iter().map(|(name, _)| name.as_str())));
            }
        }
        Ok(found)
    }
}

fn of_name(option: &str, name: &str) -> Result<Kind> {
    let known = ["norm", "bias", "embedding", "attention", "feed_forward", "head"];
    let kinds = [Kind::Norm, Kind::Bias, Kind::Embedding, Kind::Attention, Kind::FeedForward, Kind::Head];
    let found = known.iter().zip(kinds).find(|(known, _)| **known == name);
    let reason = || format!("'{KIND}{name}' is none of {}", known.map(|k| format!("{KIND}{k}")).join(", "));
    found.map(|(_, kind)| kind).ok_or_else(|| Error::invalid_option(option, reason()))
}

impl TrainJob {
    /// The model, and what of it moves.
    ///
    /// # Errors
    /// If a pattern matches nothing, or nothing is left to train; as [`Trainable::low_rank`] and [`Trainable::quantized`].
    pub(super) fn trainable(&self, model: LanguageModel, folder: &Folder, outline: &Outline) -> Result<Trainable<LanguageModel>> {
        let named = Named::of(&model, outline);
        let (only, freeze) = (named.matching("only", &self.only)?, named.matching("freeze", &self.freeze)?);
        let moves = |name: &String| (self.only.is_empty() || only.contains(name)) && !freeze.contains(name);
        let Some(rank) = self.lora else {
            let frozen = named.0.iter().map(|(name, _)| name).filter(|name| !moves(name)).cloned().collect();
            return match self.levels(folder, outline, &moves)? {
                Some(levels) => Trainable::quantized(model, &levels.weights, frozen, levels.grid, self.quantize_rule),
                None => Trainable::without(model, frozen),
            };
        };
        let of_blocks = |kind: Kind| matches!(kind, Kind::Attention | Kind::FeedForward);
        let weights: BTreeSet<String> =
            named.0.iter().filter(|(name, kind)| of_blocks(*kind) && moves(name)).map(|(name, _)| name.clone()).collect();
        if weights.is_empty() {
            return Err(Error::invalid_option("lora", "no linear layer of a block is left for it by --only and --freeze"));
        }
        let config = LowRankConfig::new(rank).seed(Seed(self.seed));
        Trainable::low_rank(model, &weights, self.lora_alpha.map_or(config, |alpha| config.alpha(alpha as f32)))
    }
}
