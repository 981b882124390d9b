//! Blocks without one of their halves, in every family: the model in which it adds nothing, with widths of 0 and padded.

use super::common::{ALL, Golden, Model, worst};
use super::{BOUND, folder_of, logits};
use lacuna::data::Sequences;
use lacuna::io::{Checkpoint, Dtype, Folder, Output, Weights};
use lacuna::lm::{Config, couplings};
use lacuna::prune::{
    ActivationMemory, LanguageShrinking, ShrinkRun, ShrinkSizes, SubLayer, SubLayerKind, UnitMethod, shrink_language,
};
use lacuna::rng::Seed;
use lacuna::structure::{Side, UnitKind};
use std::ops::ControlFlow;
use std::path::Path;

/// The golden with everything that a sub-layer adds set to 0.
fn silenced(golden: &Golden, gone: &[SubLayer]) -> Checkpoint {
    let mut weights = golden.weights.clone();
    for coupling in couplings(&golden.weights, &golden.config()).unwrap() {
        let kind = match coupling.kind {
            UnitKind::Head | UnitKind::KvGroup => SubLayerKind::Attention,
            UnitKind::FeedForward => SubLayerKind::FeedForward,
            _ => continue,
        };
        if !gone.iter().any(|sub| sub.kind == kind && Some(sub.block) == coupling.block) {
            continue;
        }
        for member in coupling.members.iter().filter(|m| m.side == Side::Reads) {
            for name in [member.tensor.clone(), member.tensor.replace(".weight", ".bias")] {
                if let Ok(values) = weights.get(&name).cloned() {
                    weights.insert(&name, values * 0.0, Dtype::F32).unwrap();
                }
            }
        }
    }
    weights
}

fn without(golden: &Golden, dir: &Path, drop: &[SubLayer], pad: bool) -> lacuna::Result<(Model, Config, bool)> {
    let folder = Folder::open(dir).unwrap();
    let to = dir.with_file_name(format!("{} {pad}", golden.name));
    let memory = ActivationMemory::new(1 << 30, env!("CARGO_TARGET_TMPDIR"));
    let plain = LanguageShrinking::new(ShrinkSizes::default(), UnitMethod::Random(Seed(0)), memory);
    let run = ShrinkRun {
        folder: &folder,
        config: &golden.config(),
        calibration: &Sequences::nothing(),
        shrinking: &LanguageShrinking { drop, pad, ..plain },
        out: &Output::replacing(&to),
        described: &serde_json::json!({}),
        resume: false,
    };
    shrink_language(run, &mut |_| ControlFlow::Continue(()))?.writer.finish()?;
    let folder = Folder::open(&to).unwrap();
    let config = Config::of(&folder).unwrap();
    let mut weights = Checkpoint::new();
    folder.names().for_each(|name| weights.insert(name, folder.read(name).unwrap(), Dtype::F32).unwrap());
    assert!(Weights::names(&weights).len() <= Weights::names(&golden.weights).len());
    Ok((Model::load(&weights, config.clone()).unwrap(), config, folder.is_pruned()))
}

#[test]
fn a_block_without_half_of_it_is_the_one_in_which_that_adds_nothing() {
    let above = tempfile::tempdir().unwrap();
    let (mut dropped, mut padded) = (0, 0);
    for name in ALL {
        let golden = Golden::read(name);
        let (dir, config) = (folder_of(&golden, above.path()), golden.config());
        let last = config.layers() - 1;
        let drop =
            [SubLayer { block: 0, kind: SubLayerKind::FeedForward }, SubLayer { block: last, kind: SubLayerKind::Attention }];
        let drop: Vec<SubLayer> = match (config.experts().is_some(), name) {
            (true, _) => drop[1..].to_vec(),
            (false, "bloom") => drop[..1].to_vec(),
            _ => drop.to_vec(),
        };
        let (small, now, masks) = match without(&golden, &dir, &drop, false) {
            Ok(found) => found,
            Err(e) => {
                let line = e.to_string();
                let stays = ["norms stand behind sums", "an encoder-decoder has none", "it is experts"];
                assert!(line.starts_with("drop: ") && stays.iter().any(|s| line.contains(s)), "{name}: {line}");
                assert!(
                    name.starts_with("t5") || name == "opt_350m" || name.starts_with("bert") || config.experts().is_some(),
                    "{name}"
                );
                continue;
            }
        };
        dropped += 1;
        for sub in &drop {
            let w = now.widths(sub.block);
            let left = if sub.kind == SubLayerKind::Attention { w.heads + w.kv_heads } else { w.intermediate };
            assert_eq!(left, 0, "{name}: {sub}");
        }
        assert!(!masks, "{name}");
        let right = logits(&golden, &silenced(&golden, &drop), config.clone()).into_dyn();
        let off = worst(&small.logits(&golden).into_dyn(), &right, 1e-5);
        assert!(off <= 1.0, "{name}: {off} times 1e-5");
        assert!(worst(&golden.matrix("logits").into_dyn(), &right, 1e-5) > 1.0, "{name}: nothing was left out");
        match without(&golden, &dir, &drop, true) {
            Ok((whole, plain, masks)) => {
                padded += 1;
                assert!(masks && plain.to_json().get("layer_widths").is_none(), "{name}: {:?}", plain.to_json());
                let off = worst(&whole.logits(&golden).into_dyn(), &right, 1e-5);
                assert!(off <= 1.0, "{name}, padded: {off} times 1e-5");
            }
            Err(e) => {
                let line = e.to_string();
                // Blocks of one width with some left out of all of them have no keys in these families.
                assert!(line.starts_with("pad: ") && BOUND.contains(&name), "{name}: {line}");
            }
        }
    }
    assert!(dropped >= 18 && padded >= 14, "{dropped} dropped, {padded} padded");
}
