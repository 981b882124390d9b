//! Models made smaller: what is written is what the masked model computes, opens as a plain model, and goes on to the same bits.

use crate::common::*;
use lacuna::criteria::{Magnitude, MagnitudeNorm};
use lacuna::data::Sequences;
use lacuna::eval::Census;
use lacuna::io::{Dtype, FolderWriter, Output};
use lacuna::linalg::solve_spd;
use lacuna::lm::{Config, LanguageModel};
use lacuna::nn::Observer;
use lacuna::prune::{
    BlockReconstruction, Correction, DepthScore, HiddenScore, LanguageShrinking, OutputMetrics, Progress, ShrinkRecord,
    ShrinkRun, ShrinkSizes, SizeAmount, SizeSearch, SizeTarget, UnitMethod, shrink_language, spread_widths,
};
use lacuna::rng::Seed;
use lacuna::solve::GroupObs;
use lacuna::structure::UnitKind;
use lacuna::{Error, Result};
use ndarray::{Array2, ArrayRef2, Ix2};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;

const SQUARES: Magnitude = Magnitude { norm: MagnitudeNorm::L2 };
const ALL: ShrinkSizes =
    ShrinkSizes { intermediate: Some(16), heads: Some(1), kv_heads: None, hidden: Some(12), layers: Some(2) };
const BLOCKS: ShrinkSizes = ShrinkSizes { hidden: None, layers: None, ..ALL };

pub fn shrinking(sizes: ShrinkSizes, method: UnitMethod<'_>) -> LanguageShrinking<'_> {
    LanguageShrinking::new(sizes, method, memory(1 << 30))
}

pub fn with(
    dir: &Path,
    out: impl Into<Output>,
    shrinking: &LanguageShrinking<'_>,
    resume: bool,
    see: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<ShrinkRecord> {
    let ((folder, config), out) = (open(dir), out.into());
    let calibration = Sequences::new(tokens(10), LENGTH).unwrap();
    let described = json!({"sizes": shrinking.sizes});
    let run = ShrinkRun {
        folder: &folder,
        config: &config,
        calibration: &calibration,
        shrinking,
        out: &out,
        described: &described,
        resume,
    };
    let done = shrink_language(run, see)?;
    done.writer.finish()?;
    Ok(done.record)
}

pub fn shrink(dir: &Path, out: &Path, settings: &LanguageShrinking<'_>) -> ShrinkRecord {
    with(dir, out, settings, false, &mut go_on).unwrap()
}

pub fn logits(model: &LanguageModel) -> Array2<f32> {
    model.forward(&tokens(2)).unwrap()
}

pub fn apart(a: &Array2<f32>, b: &Array2<f32>) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max)
}

/// The dense model with what a record says went set to 0 where it is read, and the weights that read what stays as the smaller model has them.
pub fn masked(dir: &Path, small: &LanguageModel, record: &ShrinkRecord) -> LanguageModel {
    let mut masked = model(dir);
    for unit in record.units.iter().filter(|u| u.block.is_some()) {
        let block = unit.block.unwrap();
        let reader = match unit.kind {
            UnitKind::FeedForward => "mlp.down_proj",
            _ => "self_attn.o_proj",
        };
        let name = format!("model.layers.{block}.{reader}");
        let (new, width) = (weight(small, &name), weight(&masked, &name).ncols() / unit.units);
        let mut whole = Array2::zeros(weight(&masked, &name).dim());
        for (to, &from) in unit.kept.iter().enumerate() {
            (0..width).for_each(|i| whole.column_mut(from * width + i).assign(&new.column(to * width + i)));
        }
        masked.linear_mut(&name).unwrap().set_weight(whole).unwrap();
    }
    masked
}

#[test]
fn the_folder_computes_what_the_model_without_the_units_does() {
    let dense = Model::new(Dtype::F32);
    let methods = [
        ("obs", UnitMethod::Obs(GroupObs::default())),
        ("minitron", UnitMethod::Minitron),
        ("flap", UnitMethod::Flap),
        ("magnitude", UnitMethod::Weights(&SQUARES, None)),
        ("random", UnitMethod::Random(Seed(1))),
    ];
    for (name, method) in methods {
        let out = dense.out(name);
        let record = shrink(&dense.dir, &out, &shrinking(BLOCKS, method));
        assert_eq!(record.units.len(), 6, "{name}");
        let small = model(&out);
        let w = small.config().widths(2);
        assert_eq!((w.heads, w.kv_heads, w.head_dim, w.intermediate), (1, 1, 8, 16), "{name}");
        let config = small.config().to_json();
        assert_eq!((&config["num_attention_heads"], &config["head_dim"]), (&json!(1), &json!(8)), "{name}");
        assert!(config.get("layer_widths").is_none(), "{name}: {config}");
        let off = apart(&logits(&small), &logits(&masked(&dense.dir, &small, &record)));
        assert!(off < 1e-5, "{name}: {off}");
        assert!(!out.join("masks.safetensors").exists());
    }
}

#[test]
fn layers_and_hidden_features_go_from_the_whole_model() {
    let dense = Model::new(Dtype::F32);
    for (name, depth) in [("c", DepthScore::Cosine), ("e", DepthScore::Error), ("p", DepthScore::Perplexity)] {
        let out = dense.out(name);
        let settings = LanguageShrinking { depth, ..shrinking(ALL, UnitMethod::Obs(GroupObs::default())) };
        let record = shrink(&dense.dir, &out, &settings);
        let (small, layers) = (model(&out), record.layers.unwrap());
        assert_eq!((small.config().layers(), small.config().hidden(), layers.kept.len()), (2, 12, 2));
        assert_eq!(layers.scores.len(), 3);
        assert!(logits(&small).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn layers_left_out_are_those_that_change_their_input_least() {
    let dense = Model::new(Dtype::F32);
    let sizes = ShrinkSizes { layers: Some(1), ..ShrinkSizes::default() };
    let record = shrink(&dense.dir, &dense.out("one"), &shrinking(sizes, UnitMethod::Random(Seed(0))));
    // The same by running the whole model.
    let (whole, ids) = (model(&dense.dir), tokens(10));
    let at = whole.positions(10, LENGTH);
    let mut h = whole.embedding_head().embed(&ids, LENGTH, 0).unwrap();
    let mut scores = Vec::new();
    for block in whole.blocks() {
        let before = h.clone();
        block.forward(&mut h, &at, &mut ());
        let cosine = |t: usize| {
            let (a, b) = (before.row(t), h.row(t));
            f64::from(a.dot(&b)) / (f64::from(a.dot(&a)) * f64::from(b.dot(&b))).sqrt()
        };
        scores.push((0..ids.len()).map(|t| 1.0 - cosine(t)).sum::<f64>() / ids.len() as f64);
    }
    let choice = record.layers.unwrap();
    let off = choice.scores.iter().zip(&scores).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-5, "{:?} and {scores:?}", choice.scores);
    let largest = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
    assert_eq!(choice.kept, [largest]);
    // One block is all that is left, under the number 0.
    let small = model(&dense.out("one"));
    let name = |n: usize| format!("model.layers.{n}.mlp.down_proj");
    assert_eq!(weight(&small, &name(0)), weight(&whole, &name(largest)));
}

#[test]
fn making_up_for_earlier_layers_brings_the_outputs_nearer_to_the_dense_model() {
    let dense = Model::new(Dtype::F32);
    let plain = shrinking(BLOCKS, UnitMethod::Obs(GroupObs { damping: 1e-4, ..GroupObs::default() }));
    let correction = Some(Correction { inputs: 1.0, hidden_states: 1.0, damping: 1e-4 });
    let settings = LanguageShrinking { correction, ..plain.clone() };
    shrink(&dense.dir, &dense.out("plain"), &plain);
    shrink(&dense.dir, &dense.out("corrected"), &settings);
    let hidden = |dir: &Path| model(dir).hidden_states(&tokens(10), LENGTH, &mut ()).unwrap();
    let right = hidden(&dense.dir);
    let error = |name: &str| (hidden(&dense.out(name)) - &right).iter().map(|d| f64::from(d * d)).sum::<f64>();
    let (with, without) = (error("corrected"), error("plain"));
    assert!(with < 0.9 * without, "{with} with, {without} without");
}

#[test]
fn halves_that_lost_units_are_trained_towards_the_dense_model_and_what_went_stays_away() {
    for (dtype, method) in [(Dtype::F32, UnitMethod::Obs(GroupObs::default())), (Dtype::BF16, UnitMethod::Minitron)] {
        let dense = Model::new(dtype);
        let plain = shrinking(BLOCKS, method);
        let how = BlockReconstruction::new(8).learning_rate(1e-3);
        let trained = LanguageShrinking { reconstruction: Some(how), ..plain.clone() };
        let first = shrink(&dense.dir, &dense.out("plain"), &plain);
        let record = shrink(&dense.dir, &dense.out("trained"), &trained);
        assert!(first.reconstructed.is_empty());
        let halves: Vec<(usize, &str)> = record.reconstructed.iter().map(|h| (h.block, &*h.half)).collect();
        let wanted: Vec<_> = (0..3).flat_map(|block| [(block, "attention"), (block, "feed-forward")]).collect();
        assert_eq!(halves, wanted);
        assert!(record.reconstructed.iter().all(|h| h.after < 0.95 * h.before), "{:?}", record.reconstructed);
        // What is written has the sizes, is what ran, and is nearer to the dense model.
        let [whole, a, b] = [dense.dir.clone(), dense.out("plain"), dense.out("trained")].map(|dir| model(&dir));
        assert_eq!(b.config().widths(1).intermediate, 16);
        let states = |m: &LanguageModel| m.hidden_states(&tokens(10), LENGTH, &mut ()).unwrap();
        let far = |m: &LanguageModel| {
            let (found, wanted) = (states(m), states(&whole));
            let pairs = found.rows().into_iter().zip(wanted.rows());
            pairs.map(|(y, t)| (&y - &t).mapv(|d| d * d).sum() / t.mapv(|t| t * t).sum()).sum::<f32>() / wanted.nrows() as f32
        };
        assert!(far(&b) < 0.9 * far(&a), "{} {}", far(&b), far(&a));
        if dtype == Dtype::F32 {
            // Few parts: all are trained on and looked at, so that the last half's error is that of the whole.
            let last = record.reconstructed.last().unwrap().after;
            assert!((f64::from(far(&b)) / last - 1.0).abs() < 1e-3, "{} {last}", far(&b));
        }
        let norm = "model.layers.1.post_attention_layernorm.weight";
        assert_ne!(open(&dense.dir).0.read(norm).unwrap(), open(&dense.out("trained")).0.read(norm).unwrap());
        // Stopped anywhere it goes on to the same bytes.
        for stop in 1..3 {
            let out = dense.out(&format!("stopped {stop}"));
            let see = &mut |p: Progress| if p.blocks == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            assert!(matches!(with(&dense.dir, &*out, &trained, false, see), Err(Error::Unfinished { .. })));
            let again = with(&dense.dir, &*out, &trained, true, &mut go_on).unwrap();
            assert_eq!(again.reconstructed, record.reconstructed);
            let (a, b) = (files(&out), files(&dense.out("trained")));
            assert!(a == b, "stopped behind block {stop}: other bytes");
        }
    }
    // Only the half that lost units.
    let dense = Model::new(Dtype::F32);
    let features = ShrinkSizes { intermediate: Some(16), ..ShrinkSizes::default() };
    let how = Some(BlockReconstruction::new(2).learning_rate(1e-3));
    let settings = LanguageShrinking { reconstruction: how, ..shrinking(features, UnitMethod::Flap) };
    let record = shrink(&dense.dir, &dense.out("features"), &settings);
    assert!(record.reconstructed.len() == 3 && record.reconstructed.iter().all(|h| h.half == "feed-forward"));
    let query = "model.layers.1.self_attn.q_proj.weight";
    assert_eq!(open(&dense.dir).0.read(query).unwrap(), open(&dense.out("features")).0.read(query).unwrap());
    let hidden = LanguageShrinking { sizes: ALL, ..settings };
    let line = with(&dense.dir, dense.out("x"), &hidden, false, &mut go_on).unwrap_err().to_string();
    assert!(line.starts_with("reconstruct-blocks: trains towards the dense model's hidden states"), "{line}");
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    for (dtype, sizes) in [(Dtype::F32, ALL), (Dtype::BF16, BLOCKS)] {
        let dense = Model::new(dtype);
        let correction = Some(Correction { inputs: 1.0, hidden_states: 1.0, damping: 0.01 });
        let settings = LanguageShrinking { correction, ..shrinking(sizes, UnitMethod::Obs(GroupObs::default())) };
        shrink(&dense.dir, &dense.out("whole"), &settings);
        let blocks = sizes.layers.unwrap_or(3);
        for stop in 1..blocks {
            let out = dense.out(&format!("stopped {stop}"));
            let mut see = |p: Progress| if p.blocks == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            let error = with(&dense.dir, out.as_path(), &settings, false, &mut see).unwrap_err();
            assert!(matches!(error, Error::Unfinished { .. }), "{error}");
            assert!(FolderWriter::is_unfinished(&out).unwrap() && !out.exists());
            with(&dense.dir, out.as_path(), &settings, true, &mut go_on).unwrap();
            let (a, b) = (files(&dense.out("whole")), files(&out));
            let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
            assert_eq!(names(&a), names(&b));
            assert!(a == b, "stopped behind block {stop}: other bytes");
        }
    }
}

#[test]
fn one_thread_and_two_make_the_same_bits() {
    let dense = Model::new(Dtype::F32);
    let settings = shrinking(ALL, UnitMethod::Obs(GroupObs::default()));
    let run = |threads: usize| {
        let out = dense.out(&format!("{threads}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| shrink(&dense.dir, &out, &settings));
        files(&out)
    };
    assert!(run(1) == run(2), "one thread and two give other bytes");
}

#[test]
fn a_sorted_model_is_the_same_function_and_its_first_units_are_a_smaller_model() {
    let dense = Model::new(Dtype::F32);
    let methods = [("minitron", UnitMethod::Minitron), ("magnitude", UnitMethod::Weights(&SQUARES, None))];
    for (name, method) in methods {
        let (sorted, small) = (dense.out(&format!("{name} sorted")), dense.out(&format!("{name} small")));
        let settings = LanguageShrinking { sort: true, ..shrinking(ShrinkSizes::default(), method) };
        let record = shrink(&dense.dir, &sorted, &settings);
        // Hidden features, and of three blocks heads, the group of their keys, and feed-forward units.
        assert_eq!(record.units.len(), 10, "{name}");
        for unit in &record.units {
            let falls = unit.kept.windows(2).all(|pair| unit.scores[pair[0]] >= unit.scores[pair[1]]);
            assert!(falls && unit.kept.len() == unit.units, "{name}: {unit:?}");
        }
        let off = apart(&logits(&model(&sorted)), &logits(&model(&dense.dir)));
        assert!(off < 1e-4, "{name}: {off}");
        let moved = files(&sorted).iter().find(|(n, _)| n == "model.safetensors")
            != files(&dense.dir).iter().find(|(n, _)| n == "model.safetensors");
        assert!(moved, "{name}: nothing was put in order");
        let record = shrink(&sorted, &small, &shrinking(BLOCKS, UnitMethod::Prefix));
        assert!(record.units.iter().all(|u| u.kept == (0..u.kept.len()).collect::<Vec<_>>()), "{name}");
        let small = model(&small);
        let off = apart(&logits(&small), &logits(&masked(&sorted, &small, &record)));
        assert!(off < 1e-5, "{name}: {off}");
        // Hidden features too, without a run of the model.
        let hidden = ShrinkSizes { hidden: Some(9), ..ShrinkSizes::default() };
        let record = shrink(&sorted, &dense.out(&format!("{name} narrow")), &shrinking(hidden, UnitMethod::Prefix));
        assert_eq!(record.units[0].kept, (0..9).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let dense = Model::new(Dtype::F32);
    let line = |sizes: ShrinkSizes, method: UnitMethod<'_>, correction: Option<Correction>| {
        let out = dense.out("refused");
        let settings = LanguageShrinking { correction, ..shrinking(sizes, method) };
        let error = with(&dense.dir, out.as_path(), &settings, false, &mut go_on).unwrap_err();
        assert!(!out.exists() && !FolderWriter::is_unfinished(&out).unwrap(), "{error}");
        error.to_string()
    };
    let some = |intermediate: usize| ShrinkSizes { intermediate: Some(intermediate), ..ShrinkSizes::default() };
    let random = UnitMethod::Random(Seed(0));
    assert_eq!(line(some(30), random, None), "intermediate: 30 of 24 cannot stay; the nearest possible value is 24");
    assert!(line(some(24), random, None).starts_with("sizes: nothing goes: the model has 3 layers"));
    let correction = Some(Correction { inputs: 1.0, hidden_states: 1.0, damping: 0.01 });
    assert!(line(some(12), UnitMethod::Minitron, correction).starts_with("correct: is for --method obs"));
    let hidden = ShrinkSizes { hidden: Some(17), ..ShrinkSizes::default() };
    assert_eq!(line(hidden, random, None), "hidden: 17 of 16 cannot stay; the nearest possible value is 16");
}

#[test]
fn a_budget_is_spread_over_blocks_by_what_the_loss_is_expected_to_rise_by_and_each_has_its_widths() {
    let dense = Model::new(Dtype::F32);
    let (folder, config) = open(&dense.dir);
    let (calibration, memory) = (Sequences::new(tokens(10), LENGTH).unwrap(), memory(1 << 30));
    let metrics = OutputMetrics::measure(&folder, &config, &calibration, &memory, &mut on).unwrap();
    let obs = GroupObs { damping: 1e-3, ..GroupObs::default() };
    let blocks = |config: &Config| Census::of(&open(&dense.dir).0, config, false).unwrap().prunable().numbers;
    let whole = blocks(&config);
    let search = |fraction| SizeSearch {
        target: SizeTarget::Parameters(SizeAmount::Fraction(fraction)),
        round: 2,
        parameters: 0,
        bytes: 0,
        flops: 0,
        decode: None,
    };
    let mut before = 0.0;
    for fraction in [0.9, 0.8, 0.7] {
        let found =
            spread_widths((&folder, &config), &calibration, (&search(fraction), whole), obs, &metrics, &memory, &mut on).unwrap();
        assert!(found.expected > before, "{fraction}: {} after {before}", found.expected);
        before = found.expected;
        let out = dense.out(&format!("{fraction}"));
        let settings = LanguageShrinking {
            widths: Some(&found.widths),
            metrics: Some(&metrics),
            ..shrinking(ShrinkSizes::default(), UnitMethod::Obs(obs))
        };
        let record = shrink(&dense.dir, &out, &settings);
        let small = model(&out);
        (0..3).for_each(|i| assert_eq!(small.config().widths(i), found.widths[i], "{fraction}"));
        let (small_folder, small_config) = open(&out);
        let left = Census::of(&small_folder, &small_config, false).unwrap().prunable().numbers;
        assert!(left as f64 <= (fraction * whole as f64).round(), "{left} of {whole}");
        assert!(left as f64 > (fraction - 0.15) * whole as f64, "{left} of {whole}");
        let off = apart(&logits(&small), &logits(&masked(&dense.dir, &small, &record)));
        assert!(off < 1e-5, "{fraction}: {off}");
    }
    // A run that was stopped goes on to the same bits.
    let widths = spread_widths((&folder, &config), &calibration, (&search(0.8), whole), obs, &metrics, &memory, &mut on);
    let widths = widths.unwrap().widths;
    let settings = LanguageShrinking {
        widths: Some(&widths),
        metrics: Some(&metrics),
        ..shrinking(ShrinkSizes::default(), UnitMethod::Obs(obs))
    };
    let stop = &mut |p: Progress| if p.blocks == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let stopped = with(&dense.dir, dense.out("stopped"), &settings, false, stop).unwrap_err();
    assert!(matches!(stopped, Error::Unfinished { .. }), "{stopped}");
    with(&dense.dir, dense.out("stopped"), &settings, true, &mut go_on).unwrap();
    assert!(files(&dense.out("stopped")) == files(&dense.out("0.8")), "other bits");
}

#[test]
fn a_rotated_model_goes_on_to_the_same_bits_after_a_stop() {
    let dense = Model::new(Dtype::F32);
    let sizes = ShrinkSizes { hidden: Some(12), intermediate: Some(16), ..ShrinkSizes::default() };
    let plain = shrinking(sizes, UnitMethod::Obs(GroupObs::default()));
    let settings = LanguageShrinking { hidden_by: HiddenScore::Pca, ..plain };
    shrink(&dense.dir, &dense.out("at once"), &settings);
    let stop = &mut |p: Progress| if p.blocks == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let stopped = with(&dense.dir, dense.out("stopped"), &settings, false, stop).unwrap_err();
    assert!(matches!(stopped, Error::Unfinished { .. }), "{stopped}");
    with(&dense.dir, dense.out("stopped"), &settings, true, &mut go_on).unwrap();
    assert!(files(&dense.out("stopped")) == files(&dense.out("at once")), "other bits");
}

/// Keeps what a layer was given.
struct Seen(String, Option<Array2<f32>>);

impl Observer for Seen {
    fn see(&mut self, layers: &[&str], x: &ArrayRef2<f32>) {
        if layers.contains(&self.0.as_str()) {
            self.1 = Some(x.to_owned());
        }
    }
}

#[test]
fn the_metric_of_outputs_is_that_of_the_gradients_by_hand() {
    let dense = Model::new(Dtype::F32);
    let (folder, config) = open(&dense.dir);
    let calibration = Sequences::new(tokens(1), LENGTH).unwrap();
    let measure = |bytes| OutputMetrics::measure(&folder, &config, &calibration, &memory(bytes), &mut on).unwrap();
    let (metrics, spilled, whole) = (measure(1 << 30), measure(0), model(&dense.dir));
    let (at, count) = (whole.positions(1, LENGTH), (LENGTH - 1) as f64);
    for (number, layer) in (0..config.layers()).map(|n| (n, format!("model.layers.{n}.mlp.down_proj"))) {
        let (mut gradient, mut seen) = (None, Seen(layer.clone(), None));
        whole
            .backward(calibration.ids(), LENGTH, &mut |name, g| {
                if name == format!("{layer}.weight") {
                    gradient = Some(g);
                }
            })
            .unwrap();
        let mut h = whole.embedding_head().embed(calibration.ids(), LENGTH, 0).unwrap();
        whole.blocks().iter().for_each(|block| block.forward(&mut h, &at, &mut seen));
        // The weight's gradient is Gᵀ X, of a mean: with fewer tokens than inputs G follows from it.
        let x = seen.1.unwrap().mapv(f64::from);
        assert!(x.nrows() < x.ncols());
        let gradient = gradient.unwrap().into_dimensionality::<Ix2>().unwrap().mapv(|g| count * f64::from(g));
        let g = solve_spd(&x.dot(&x.t()), &x.dot(&gradient.t())).unwrap();
        let mut right = g.t().dot(&g) / LENGTH as f64;
        let mean = right.diag().mean().unwrap();
        right.diag_mut().mapv_inplace(|v| v + 1e-3 * mean);
        let found = metrics.matrix(number, true).unwrap();
        let off = (&found - &right).iter().map(|d| d.abs()).fold(0.0, f64::max);
        assert!(off < 1e-2 * mean, "block {number}: {off} of {mean}");
        assert_eq!(found, spilled.matrix(number, true).unwrap());
        assert_ne!(found, metrics.matrix(number, false).unwrap());
    }
}
