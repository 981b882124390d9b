//! Couplings: a model whose units are 0 throughout, and the one without them, are the same function, in every family.

#[path = "lm/common.rs"]
#[allow(dead_code)] // shared with tests/lm.rs
mod common;
#[path = "structure/sublayers.rs"]
mod sublayers;

use common::{ALL, Golden, Model, worst};
use lacuna::criteria::Magnitude;
use lacuna::data::Sequences;
use lacuna::io::{Checkpoint, Dtype, Folder, FolderWriter, Layout, Output, Weights};
use lacuna::linalg::eigh;
use lacuna::lm::{Config, Rotation, Widths, couplings, rescaled};
use lacuna::nn::NormKind;
use lacuna::prune::{
    ActivationMemory, HiddenScore, LanguageShrinking, ShrinkRecord, ShrinkRun, ShrinkSizes, UnitMethod, shrink_language,
};
use lacuna::rng::{Seed, Stream};
use lacuna::solve::GroupObs;
use lacuna::structure::{Coupling, Extent, Side, UnitCut, UnitKind};
use ndarray::{Array2, ArrayD, Axis, Slice};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn of(golden: &Golden) -> Vec<Coupling> {
    couplings(&golden.weights, &golden.config()).unwrap()
}

/// Some units of each coupling of a kind, as many of each run, the same number in all.
fn chosen(couplings: &[Coupling], kind: UnitKind, stream: &mut Stream) -> Vec<(Coupling, Vec<usize>)> {
    let mine = couplings.iter().filter(|c| c.kind == kind);
    let pick = |c: &Coupling| {
        let keep = (c.units / c.runs * 2 / 3).max(1) * c.runs;
        let scores: Vec<f64> = (0..c.units).map(|_| f64::from(stream.uniform())).collect();
        (c.clone(), c.largest(&scores, keep).unwrap())
    };
    mine.map(pick).collect()
}

/// All that lies in the units that go set to 0. Norms over all heads take a mean over those that stay, and so their weights make up here for a mean over
/// the others' zeros.
fn masked(weights: &Checkpoint, chosen: &[(Coupling, Vec<usize>)]) -> Checkpoint {
    let (mut masked, mut over_all) = (weights.clone(), BTreeSet::new());
    for (coupling, kept) in chosen {
        for member in &coupling.members {
            let Ok(values) = masked.get(&member.tensor) else { continue };
            let mut values = values.clone();
            for unit in (0..coupling.units).filter(|u| !kept.contains(u)) {
                match member.part {
                    Extent::Slice { axis, offset, width } => {
                        let (from, to) = ((offset + unit * width) as isize, (offset + (unit + 1) * width) as isize);
                        values.slice_axis_mut(Axis(axis), Slice::new(from, Some(to), 1)).fill(0.0);
                    }
                    Extent::All { unit: of } if of == unit => values.fill(0.0),
                    Extent::All { .. } => {}
                }
            }
            if matches!(coupling.kind, UnitKind::Head | UnitKind::KvGroup) && member.side == Side::Scales {
                over_all.insert(member.tensor.clone());
            }
            masked.insert(&member.tensor, values, Dtype::F32).unwrap();
        }
    }
    for tensor in over_all {
        let values = masked.get(&tensor).unwrap().clone();
        let stay = values.iter().filter(|w| **w != 0.0).count();
        let factor = (stay as f32 / values.len() as f32).sqrt();
        masked.insert(&tensor, values * factor, Dtype::F32).unwrap();
    }
    masked
}

/// What stays of all tensors, under the config of the smaller model.
fn cut(golden: &Golden, chosen: &[(Coupling, Vec<usize>)], smaller: &Config) -> Checkpoint {
    let mut cut = UnitCut::default();
    chosen.iter().for_each(|(coupling, kept)| cut.keep(coupling, kept));
    let scales = rescaled(&golden.weights, &golden.config(), smaller).unwrap();
    let mut small = Checkpoint::new();
    for (name, values) in golden.weights.weights().filter(|(name, _)| cut.keeps(name)) {
        let mut values: ArrayD<f32> = cut.apply(name, values.clone());
        scales.get(name).iter().for_each(|scale| scale.apply(&mut values));
        small.insert(name, values, Dtype::F32).unwrap();
    }
    small
}

/// The config of a model of which so much stays in every block.
fn config(golden: &Golden, chosen: &[(Coupling, Vec<usize>)], kind: UnitKind) -> Config {
    let config = golden.config();
    let keep = chosen[0].1.len();
    let of = |w: Widths| match kind {
        UnitKind::FeedForward => Widths { intermediate: keep, ..w },
        UnitKind::Head if w.heads == w.kv_heads => Widths { heads: keep, kv_heads: keep, ..w },
        UnitKind::Head => Widths { heads: keep, ..w },
        UnitKind::KvGroup => Widths { heads: w.heads / w.kv_heads * keep, kv_heads: keep, ..w },
        _ => w,
    };
    let widths: Vec<Widths> = (0..config.layers()).map(|i| of(config.widths(i))).collect();
    match kind {
        UnitKind::Hidden => config.with_hidden(keep).unwrap(),
        _ => config.with_widths(&widths).unwrap(),
    }
}

/// Goldens whose heads are as wide as the hidden size says: no key changes one without the other.
const BOUND: [&str; 9] = ["gpt2", "opt", "opt_350m", "pythia", "neox_serial", "bloom", "stablelm", "stablelm_parallel", "olmoe"];

/// Goldens whose norms take a mean over features away.
const LAYER_NORMS: [&str; 13] = [
    "gpt2",
    "phi2",
    "phi_part",
    "phi_tied",
    "nemotron",
    "nemotron_part",
    "stablelm",
    "stablelm_parallel",
    "opt",
    "opt_350m",
    "pythia",
    "neox_serial",
    "bloom",
];

fn logits(golden: &Golden, weights: &Checkpoint, config: Config) -> Array2<f32> {
    Model::load(weights, config).unwrap().logits(golden)
}

#[test]
fn a_model_without_units_is_the_one_in_which_they_are_0() {
    let mut tried = 0;
    for (name, seed) in ALL.into_iter().flat_map(|name| [(name, 0), (name, 1), (name, 2)]) {
        let golden = Golden::read(name);
        let mut stream = Seed(seed).stream(name);
        let all = of(&golden);
        for kind in [UnitKind::FeedForward, UnitKind::Head, UnitKind::KvGroup, UnitKind::Hidden] {
            let chosen = chosen(&all, kind, &mut stream);
            // Means over features of layer norms are of another number of them.
            let stays = LAYER_NORMS.contains(&name) || BOUND.contains(&name);
            let all_stay = chosen.iter().all(|(coupling, kept)| kept.len() == coupling.units);
            if all_stay || kind == UnitKind::Hidden && stays {
                continue;
            }
            let small = config(&golden, &chosen, kind);
            let found = logits(&golden, &cut(&golden, &chosen, &small), small);
            let right = logits(&golden, &masked(&golden.weights, &chosen), golden.config());
            let off = worst(&found.into_dyn(), &right.clone().into_dyn(), 1e-5);
            assert!(off <= 1.0, "{name}, {kind}, seed {seed}: {off} times 1e-5");
            let dense = golden.matrix("logits");
            assert!(worst(&right.into_dyn(), &dense.into_dyn(), 1e-5) > 1.0, "{name}, {kind}: nothing was left out");
            tried += 1;
        }
    }
    assert!(tried > 90, "{tried} cases");
}

#[test]
fn heads_groups_and_feed_forward_units_go_together() {
    for name in ["llama", "gemma2", "phi3", "mistral"] {
        let golden = Golden::read(name);
        let (mut stream, all) = (Seed(7).stream(name), of(&golden));
        let w = golden.config().widths(0);
        let mut picked = chosen(&all, UnitKind::KvGroup, &mut stream);
        let groups = picked[0].1.len();
        picked.extend(chosen(&all, UnitKind::Head, &mut stream));
        picked.extend(chosen(&all, UnitKind::FeedForward, &mut stream));
        let heads = (w.heads / w.kv_heads * 2 / 3).max(1) * groups;
        let intermediate = picked.last().unwrap().1.len();
        let widths = Widths { heads, kv_heads: groups, intermediate, ..w };
        let small = golden.config().with_widths(&vec![widths; golden.config().layers()]).unwrap();
        let found = logits(&golden, &cut(&golden, &picked, &small), small);
        let right = logits(&golden, &masked(&golden.weights, &picked), golden.config());
        let off = worst(&found.into_dyn(), &right.into_dyn(), 1e-5);
        assert!(off <= 1.0, "{name}: {off} times 1e-5");
    }
}

#[test]
fn every_tensor_hangs_together_with_something_within_its_bounds() {
    for name in ALL {
        let golden = Golden::read(name);
        let mut seen = BTreeSet::new();
        for coupling in of(&golden) {
            assert!(coupling.units > 0 && coupling.units % coupling.runs == 0, "{name}: {coupling:?}");
            for member in &coupling.members {
                let shape = Weights::shape(&golden.weights, &member.tensor).unwrap_or_else(|e| panic!("{name}: {e}"));
                match member.part {
                    Extent::Slice { axis, offset, width } => {
                        assert!(offset + width * coupling.units <= shape[axis], "{name}: {member:?} of {shape:?}");
                        if matches!(coupling.kind, UnitKind::Hidden | UnitKind::Vocabulary) {
                            assert_eq!((offset, width * coupling.units), (0, shape[axis]), "{name}: {member:?}");
                        }
                    }
                    Extent::All { unit } => assert!(unit < coupling.units),
                }
                seen.insert(member.tensor.clone());
            }
        }
        let missing: Vec<String> = Weights::names(&golden.weights).into_iter().filter(|n| !seen.contains(n)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}

/// Logits of a decoder whose hidden states run through these blocks alone.
fn run_through(golden: &Golden, blocks: &[usize]) -> Array2<f32> {
    let Model::Decoder(model) = golden.model() else { panic!("{} is no decoder", golden.name) };
    let (ends, length) = (model.embedding_head(), golden.ids.len());
    let mut h = ends.embed(&golden.ids, length, 0).unwrap();
    blocks.iter().for_each(|&i| model.blocks()[i].forward(&mut h, &model.positions(1, length), &mut ()));
    ends.logits(&h)
}

#[test]
fn layers_go_whole_and_take_their_tensors_with_them() {
    for name in ALL.into_iter().filter(|name| !name.starts_with("t5")) {
        let golden = Golden::read(name);
        let layers = of(&golden).into_iter().find(|c| c.kind == UnitKind::Layer).unwrap();
        // Blocks of this GPT-2 scale by their numbers.
        let others: Vec<usize> = (0..layers.units).skip(1).filter(|_| name != "gpt2").collect();
        for kept in [vec![0], others].into_iter().filter(|kept| !kept.is_empty()) {
            let mut cut = UnitCut::default();
            cut.keep(&layers, &kept);
            let small = golden.config().with_blocks(&kept).unwrap();
            let mut weights = Checkpoint::new();
            let number = |name: &str| name.split('.').find_map(|part| part.parse::<usize>().ok());
            for (name, values) in golden.weights.weights().filter(|(name, _)| cut.keeps(name)) {
                // Of the blocks that stay, the new number.
                let new = number(name).map(|old| (old, kept.iter().position(|&k| k == old).unwrap()));
                let to = new.map_or(name.to_string(), |(old, new)| name.replacen(&format!(".{old}."), &format!(".{new}."), 1));
                weights.insert(&to, values.clone(), Dtype::F32).unwrap();
            }
            let found = logits(&golden, &weights, small).into_dyn();
            let off = worst(&found, &run_through(&golden, &kept).into_dyn(), 1e-5);
            assert!(off <= 1.0, "{name}, {kept:?}: {off} times 1e-5");
            // Nothing passes a block of zeros whose norms stand behind the sums.
            if name != "opt_350m" {
                let right = logits(&golden, &masked(&golden.weights, &[(layers.clone(), kept.clone())]), golden.config());
                let off = worst(&found, &right.into_dyn(), 1e-5);
                assert!(off <= 1.0, "{name}, {kept:?}, masked: {off} times 1e-5");
            }
        }
    }
}

#[test]
fn the_families_of_layer_norms_are_those_that_were_left_out() {
    for name in ALL {
        let model = Golden::read(name).model();
        let bias = match &model {
            Model::Decoder(m) => m.blocks()[0].norms()[0].bias().is_some(),
            Model::Both(_) => false,
        };
        let kind = if bias { NormKind::Layer } else { NormKind::Rms };
        let listed = LAYER_NORMS.contains(&name);
        assert_eq!(kind == NormKind::Layer, listed, "{name}");
    }
}

/// A golden as a folder.
fn folder_of(golden: &Golden, above: &Path) -> PathBuf {
    let dir = above.join(golden.name);
    let shape = |name: &String| (name.clone(), Dtype::F32, Weights::shape(&golden.weights, name).unwrap());
    let layout = Layout::new(Weights::names(&golden.weights).iter().map(shape), 1 << 30).unwrap();
    let mut writer = FolderWriter::create(&dir, layout).unwrap();
    golden.weights.weights().for_each(|(name, values)| writer.write(name, values).unwrap());
    writer.config(golden.json.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    dir
}

/// What is left of the golden in a folder, and what went.
fn shrunk(golden: &Golden, dir: &Path, sizes: ShrinkSizes, method: UnitMethod<'_>) -> (Model, Config, ShrinkRecord) {
    shrunk_by(golden, dir, sizes, method, HiddenScore::Minitron)
}

/// As [`shrunk`], hidden features by this score.
fn shrunk_by(
    golden: &Golden,
    dir: &Path,
    sizes: ShrinkSizes,
    method: UnitMethod<'_>,
    hidden_by: HiddenScore,
) -> (Model, Config, ShrinkRecord) {
    let (folder, out) = (Folder::open(dir).unwrap(), dir.with_file_name(format!("{} smaller", golden.name)));
    let calibration = match golden.config().is_encoder_decoder() {
        true => Sequences::nothing(),
        false => Sequences::new(golden.ids.repeat(3), golden.ids.len()).unwrap(),
    };
    let memory = ActivationMemory::new(1 << 30, env!("CARGO_TARGET_TMPDIR"));
    let shrinking = LanguageShrinking { hidden_by, ..LanguageShrinking::new(sizes, method, memory) };
    let (config, described) = (golden.config(), serde_json::json!({}));
    let to = Output::replacing(&out);
    let run = ShrinkRun {
        folder: &folder,
        config: &config,
        calibration: &calibration,
        shrinking: &shrinking,
        out: &to,
        described: &described,
        resume: false,
    };
    let done = shrink_language(run, &mut |_| ControlFlow::Continue(())).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
    done.writer.finish().unwrap();
    let folder = Folder::open(&out).unwrap();
    let config = Config::of(&folder).unwrap();
    let mut weights = Checkpoint::new();
    folder.names().for_each(|name| weights.insert(name, folder.read(name).unwrap(), Dtype::F32).unwrap());
    (Model::load(&weights, config.clone()).unwrap(), config, done.record)
}

#[test]
fn a_run_leaves_every_family_as_the_model_without_the_units() {
    let above = tempfile::tempdir().unwrap();
    for name in ALL {
        let golden = Golden::read(name);
        let (dir, w) = (folder_of(&golden, above.path()), golden.config().widths(0));
        let share = w.heads / w.kv_heads;
        let kv_heads = if share == 1 { None } else { Some(w.kv_heads.div_ceil(2)) };
        let heads = if share == 1 { w.heads.div_ceil(2) } else { share.div_ceil(2) * w.kv_heads.div_ceil(2) };
        // BLOOM's slopes follow from the number of heads.
        let heads = if name == "bloom" { w.heads } else { heads };
        let less = (heads < w.heads).then_some(heads);
        // The feed-forward layers of a mixture are its experts.
        let intermediate = golden.config().experts().is_none().then_some(w.intermediate * 2 / 3);
        let sizes = ShrinkSizes { intermediate, heads: less, kv_heads, ..ShrinkSizes::default() };
        let magnitude = Magnitude::default();
        let mut methods = vec![UnitMethod::Random(Seed(4)), UnitMethod::Weights(&magnitude, None)];
        if !golden.config().is_encoder_decoder() {
            methods.extend([UnitMethod::Minitron, UnitMethod::Obs(GroupObs::default())]);
        }
        for method in methods {
            let (small, config, record) = shrunk(&golden, &dir, sizes, method);
            let found = small.logits(&golden);
            let now = config.widths(config.layers() - 1);
            assert_eq!((now.heads, now.intermediate), (heads, intermediate.unwrap_or(w.intermediate)), "{name}");
            let all = of(&golden);
            let of_record = |unit: &lacuna::prune::UnitRecord| {
                let coupling = all.iter().find(|c| c.kind == unit.kind && c.name == unit.name);
                (coupling.unwrap_or_else(|| panic!("{name}: no {}", unit.name)).clone(), unit.kept.clone())
            };
            if matches!(method, UnitMethod::Obs(_)) {
                assert!(found.iter().all(|x| x.is_finite()), "{name}");
                continue;
            }
            let chosen: Vec<_> = record.units.iter().map(of_record).collect();
            let right = logits(&golden, &masked(&golden.weights, &chosen), golden.config());
            let off = worst(&found.into_dyn(), &right.into_dyn(), 1e-5);
            // Norms over all heads add ε to the mean that they take, which is smaller in the masked model.
            let most = if name.starts_with("olmo") { 5.0 } else { 1.0 };
            assert!(off <= most, "{name}, {method:?}: {off} times 1e-5");
            let json = config.to_json();
            match name {
                "gpt2" => assert_eq!(json["pruned_heads"].as_object().unwrap().len(), config.layers(), "{json}"),
                // No key for the width of a head, or of the feed-forward layers.
                name if BOUND.contains(&name) => {
                    assert_eq!(json["layer_widths"].as_array().unwrap().len(), config.layers(), "{name}: {json}");
                }
                _ => assert!(json.get("layer_widths").is_none() && json.get("pruned_heads").is_none(), "{name}: {json}"),
            }
        }
    }
}

#[test]
fn a_run_leaves_layers_and_hidden_features_out_of_every_decoder() {
    let above = tempfile::tempdir().unwrap();
    for name in ALL.into_iter().filter(|name| !name.starts_with("t5")) {
        let golden = Golden::read(name);
        // Where the width of heads follows from the hidden size, that stays.
        let bound = BOUND.contains(&name);
        if bound {
            let e = golden.config().with_hidden(golden.config().hidden() - 1).unwrap_err().to_string();
            assert!(e.contains("has no width of heads apart from the hidden size"), "{e}");
        }
        let (dir, config) = (folder_of(&golden, above.path()), golden.config());
        let hidden = if bound { config.hidden() } else { config.hidden() * 3 / 4 };
        // Blocks of this GPT-2 scale by their numbers.
        let layers = (config.layers() > 1 && name != "gpt2").then(|| config.layers() - 1);
        if bound && layers.is_none() {
            continue;
        }
        let sizes = ShrinkSizes { hidden: (!bound).then_some(hidden), layers, ..ShrinkSizes::default() };
        let (small, now, record) = shrunk(&golden, &dir, sizes, UnitMethod::Random(Seed(0)));
        assert_eq!((now.hidden(), now.layers()), (hidden, layers.unwrap_or(1)), "{name}");
        assert_eq!(now.widths(0), config.widths(0), "{name}");
        let found = small.logits(&golden);
        assert!(found.iter().all(|x| x.is_finite()), "{name}");
        if bound {
            let kept = &record.layers.as_ref().unwrap().kept;
            let off = worst(&found.into_dyn(), &run_through(&golden, kept).into_dyn(), 1e-5);
            assert!(off <= 1.0, "{name}, {kept:?}: {off} times 1e-5");
            continue;
        }
        if golden.model().linears().is_empty() || LAYER_NORMS.contains(&name) {
            continue;
        }
        let all = of(&golden);
        let kept = |kind: UnitKind| -> Vec<usize> {
            match kind {
                UnitKind::Hidden => record.units[0].kept.clone(),
                _ => record.layers.as_ref().map_or_else(|| (0..config.layers()).collect(), |l| l.kept.clone()),
            }
        };
        let chosen: Vec<_> = [UnitKind::Hidden, UnitKind::Layer]
            .map(|kind| (all.iter().find(|c| c.kind == kind).unwrap().clone(), kept(kind)))
            .into();
        let right = logits(&golden, &masked(&golden.weights, &chosen), golden.config());
        let off = worst(&found.into_dyn(), &right.into_dyn(), 1e-5);
        assert!(off <= 1.0, "{name}: {off} times 1e-5");
    }
}

/// A rotation of so many features, from a seed.
fn orthogonal(features: usize, seed: u64) -> Array2<f64> {
    let a = Seed(seed).stream("rotation").normal_array(features, features, 1.0).mapv(f64::from);
    eigh(&(&a + &a.t())).unwrap().vectors
}

/// Families whose norms are by root mean squares before their layers, of one stack.
const ROTATE: [&str; 4] = ["llama", "smollm", "mistral", "phi3"];

#[test]
fn a_rotation_of_the_hidden_states_changes_no_logit_in_every_family_that_lets_it_pass() {
    let mut rotated = 0;
    for (name, seed) in ALL.into_iter().flat_map(|name| [(name, 1), (name, 2)]) {
        let golden = Golden::read(name);
        let config = golden.config();
        let rotation = match Rotation::new(&golden.weights, &config, orthogonal(config.hidden(), seed)) {
            Ok(rotation) => rotation,
            Err(e) => {
                assert!(e.to_string().starts_with("hidden-by: pca: "), "{name}: {e}");
                assert!(!ROTATE.iter().any(|family| name.starts_with(family)), "{name}: {e}");
                continue;
            }
        };
        rotated += 1;
        let mut weights = Checkpoint::new();
        let head = rotation.head().map(|head| head.tensor.clone());
        for tensor in golden.weights.weights().map(|(name, _)| name.to_string()).chain(head.clone()) {
            weights.insert(&tensor, rotation.read(&golden.weights, &tensor).unwrap(), Dtype::F32).unwrap();
        }
        let turned = if head.is_some() { config.with_own_head().unwrap() } else { config.clone() };
        let (found, right) = (logits(&golden, &weights, turned), logits(&golden, &golden.weights, config));
        let off = worst(&found.into_dyn(), &right.into_dyn(), 1e-4);
        assert!(off <= 1.0, "{name}: {off} times 1e-4");
    }
    assert!(rotated >= 8, "{rotated} models were rotated");
}

#[test]
fn principal_components_leave_a_plain_model_nearer_to_the_dense_one_than_chosen_features() {
    let above = tempfile::tempdir().unwrap();
    let mut nearer = (0, 0);
    for name in ALL.into_iter().filter(|name| ROTATE.iter().any(|family| name.starts_with(family))) {
        let golden = Golden::read(name);
        let (dir, config) = (folder_of(&golden, above.path()), golden.config());
        let hidden = config.hidden() - 2;
        let sizes = ShrinkSizes { hidden: Some(hidden), ..ShrinkSizes::default() };
        let dense = logits(&golden, &golden.weights, config.clone());
        let [pca, minitron] = [HiddenScore::Pca, HiddenScore::Minitron].map(|by| {
            let (small, now, record) = shrunk_by(&golden, &dir, sizes, UnitMethod::Obs(GroupObs::default()), by);
            assert_eq!((now.hidden(), now.widths(0)), (hidden, config.widths(0)), "{name}");
            assert!(by == HiddenScore::Minitron || record.units[0].kept == (0..hidden).collect::<Vec<_>>(), "{name}");
            assert!(by == HiddenScore::Minitron || !now.tied(), "{name}: a head of its own");
            let off = &small.logits(&golden) - &dense;
            off.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>()
        });
        nearer = (nearer.0 + usize::from(pca < minitron), nearer.1 + 1);
    }
    assert!(2 * nearer.0 > nearer.1, "nearer in {} of {} models", nearer.0, nearer.1);
}
