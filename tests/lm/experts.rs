//! Mixtures of experts: every expert is pruned like other layers, and experts leave for good.

use crate::common::Golden;
use lacuna::data::Sequences;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout, Output, Weights};
use lacuna::job::{Event, Methods, ModelReport, PruneJob, PruneReport, QuantizeJob, QuantizeMethod, Stage};
use lacuna::lm::{Config, LanguageModel, Outline};
use lacuna::prune::{
    ActivationMemory, ExpertRecord, ExpertRemoval, ExpertRun, ExpertScore, LayerRecord, Sequential, remove_experts,
};
use lacuna::quantize::Granularity;
use lacuna::rng::Seed;
use ndarray::Axis;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const MIXTURES: [&str; 4] = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"];

/// A golden as a folder.
pub fn folder_of(golden: &Golden, above: &Path) -> PathBuf {
    let dir = above.join(golden.name);
    let shape = |name: &String| (name.clone(), Dtype::F32, Weights::shape(&golden.weights, name).unwrap());
    let layout = Layout::new(Weights::names(&golden.weights).iter().map(shape), 1 << 30).unwrap();
    let mut writer = FolderWriter::create(&dir, layout).unwrap();
    golden.weights.weights().for_each(|(name, values)| writer.write(name, values).unwrap());
    writer.config(golden.json.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    dir
}

pub fn calibration(golden: &Golden, above: &Path) -> PathBuf {
    let path = above.join(format!("{}.ids", golden.name)).with_extension("safetensors");
    let ids = golden.ids.repeat(4);
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let header = format!(r#"{{"input_ids":{{"dtype":"U32","shape":[{}],"data_offsets":[0,{}]}}}}"#, ids.len(), bytes.len());
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()).unwrap();
    path
}

#[test]
fn every_experts_layers_are_pruned_like_others_whether_layers_are_measured_in_turn_or_at_once() {
    let above = tempfile::tempdir().unwrap();
    for (name, turn) in MIXTURES.into_iter().zip([Sequential::Layer, Sequential::Block, Sequential::Layer, Sequential::Block]) {
        let golden = Golden::read(name);
        let (dir, ids) = (folder_of(&golden, above.path()), calibration(&golden, above.path()));
        let out = above.path().join(format!("{name} pruned"));
        let job = PruneJob::new("sparsegpt").sparsity(0.5).calibration(ids).samples(4).context(golden.ids.len());
        let job = job.model(&dir).out(&out).sequential(turn);
        let report: ModelReport = match job.run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).unwrap() {
            PruneReport::Model(report) => *report,
            PruneReport::File(_) => panic!("a folder"),
        };
        let outline = Outline::of(&golden.weights, &golden.config()).unwrap();
        let blocks = outline.layers.iter().filter(|l| l.block.is_some()).count();
        assert_eq!(report.layers.len(), blocks, "{name}: every layer has a record");
        let folder = Folder::open(&out).unwrap();
        for layer in &report.layers {
            assert_eq!(layer.kept, layer.shape.0 * layer.shape.1 / 2, "{name}: {}", layer.layer);
            let weight = folder.read(&format!("{}.weight", layer.layer)).unwrap();
            assert!(weight.iter().filter(|w| **w != 0.0).count() <= layer.kept, "{name}: {}", layer.layer);
            // Measured on the expert's own tokens, or on all where these are fewer than its inputs.
            let all = 4 * golden.ids.len();
            assert_eq!(layer.routed.is_some(), layer.layer.contains(".experts."), "{name}: {}", layer.layer);
            let (few, routed) = (layer.routed.is_some_and(|n| n < golden.config().hidden()), layer.routed.unwrap_or(all));
            assert_eq!(layer.tokens, if few { all } else { routed }, "{name}: {} of {all}", layer.layer);
            assert!(layer.error.is_some_and(|e| e > 0.0 && e < 1.0), "{name}: {}: {:?}", layer.layer, layer.error);
        }
        // Routers are no layers: they stay as they were.
        for router in &outline.routers {
            assert_eq!(&folder.read(router).unwrap(), golden.weights.get(router).unwrap(), "{name}: {router}");
        }
        let model = LanguageModel::load(&folder, golden.config()).unwrap();
        assert!(model.forward(&golden.ids).unwrap().iter().all(|z| z.is_finite()), "{name}");
    }
}

/// A golden whose router gives the last expert no token.
fn shunned(name: &'static str) -> Golden {
    let mut golden = Golden::read(name);
    let routers = Outline::of(&golden.weights, &golden.config()).unwrap().routers;
    for router in routers {
        let mut weight = golden.weights.get(&router).unwrap().clone();
        // Of a row and its negative one has a product above that of zeros.
        let first = weight.index_axis(Axis(0), 0).to_owned();
        let last = weight.shape()[0] - 1;
        weight.index_axis_mut(Axis(0), last).assign(&(&first * 0.0));
        for other in 0..last {
            let sign = if other % 2 == 0 { 50.0 } else { -50.0 };
            weight.index_axis_mut(Axis(0), other).assign(&(&first * sign + other as f32 * 1e-3));
        }
        golden.weights.insert(&router, weight, Dtype::F32).unwrap();
    }
    golden
}

#[test]
fn experts_that_few_tokens_meet_are_pruned_on_all_and_the_run_says_so() {
    let above = tempfile::tempdir().unwrap();
    let golden = shunned("mixtral");
    let (dir, ids) = (folder_of(&golden, above.path()), calibration(&golden, above.path()));
    // One token meets one expert: the last has none, whatever the sign of the product.
    let path = dir.join("config.json");
    let mut json = golden.json.clone();
    json["num_experts_per_tok"] = 1.into();
    std::fs::write(&path, json.to_string()).unwrap();
    let all = 4 * golden.ids.len();
    for (method, turn) in [("sparsegpt", Sequential::Layer), ("wanda", Sequential::Block)] {
        let out = above.path().join(method);
        let job = PruneJob::new(method).sparsity(0.5).calibration(&ids).samples(4).context(golden.ids.len());
        let mut warnings = Vec::new();
        let job = job.model(&dir).out(&out).sequential(turn);
        let report = job.run(&Methods::standard(), &mut |event| {
            if let Event::Warning(text) = event {
                warnings.push(text.clone());
            }
            ControlFlow::Continue(())
        });
        let PruneReport::Model(report) = report.unwrap() else { panic!("a folder") };
        let last = |l: &&LayerRecord| l.layer.contains(".experts.3.");
        assert_eq!(report.layers.iter().filter(last).count(), 3 * golden.config().layers());
        for layer in report.layers.iter().filter(last) {
            assert_eq!((layer.routed, layer.tokens, layer.kept * 2), (Some(0), all, layer.shape.0 * layer.shape.1), "{method}");
        }
        let few: std::collections::BTreeSet<_> = report
            .layers
            .iter()
            .filter(|l| l.routed.is_some_and(|n| n < golden.config().hidden()))
            .map(|l| l.layer.rsplit_once('.').unwrap().0)
            .collect();
        let said = format!("{} of {} experts met fewer tokens", few.len(), 4 * golden.config().layers());
        assert!(warnings.iter().any(|w| w.starts_with(&said)), "{method}: {warnings:?}");
        let page = std::fs::read_to_string(out.join("prune.html")).unwrap();
        assert!(page.contains(&said), "{method}");
    }
}

#[test]
fn a_mixture_beside_its_dense_model_goes_on_after_a_stop_to_the_same_bytes() {
    let above = tempfile::tempdir().unwrap();
    for name in MIXTURES {
        let golden = Golden::read(name);
        let (dir, ids) = (folder_of(&golden, above.path()), calibration(&golden, above.path()));
        let job = |out: &str| {
            let job = PruneJob::new("sparsegpt").sparsity(0.5).calibration(&ids).samples(4).context(golden.ids.len());
            job.model(&dir).out(above.path().join(format!("{name} {out}"))).correct(1.0, 0.5)
        };
        let bytes = |out: &str| std::fs::read(above.path().join(format!("{name} {out}/model.safetensors"))).unwrap();
        let _ = job("whole").run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).unwrap();
        let stopped = job("stopped").run(&Methods::standard(), &mut |event| match event {
            Event::Progress { stage: Stage::Blocks, done: 1, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(stopped.is_err(), "{name}");
        let _ = job("stopped").resume(true).run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(bytes("whole") == bytes("stopped"), "{name}");
    }
}

fn removed(golden: &Golden, dir: &Path, sizes: (usize, usize), score: ExpertScore) -> (Folder, Config, Vec<ExpertRecord>) {
    let (folder, config) = (Folder::open(dir).unwrap(), golden.config());
    let out = dir.with_file_name(format!("{} without {score:?} {}", golden.name, sizes.0));
    let calibration = Sequences::new(golden.ids.clone(), golden.ids.len()).unwrap();
    let memory = ActivationMemory::new(1 << 30, env!("CARGO_TARGET_TMPDIR"));
    let removal = ExpertRemoval { keep: sizes.0, active: sizes.1, score, seed: Seed(1), memory };
    let run = ExpertRun {
        folder: &folder,
        config: &config,
        calibration: &calibration,
        removal: &removal,
        out: &Output::from(&out),
        described: &serde_json::json!({}),
        resume: false,
    };
    let (writer, smaller, records) = remove_experts(run, &mut |_, _| ControlFlow::Continue(())).unwrap();
    writer.finish().unwrap();
    let folder = Folder::open(&out).unwrap();
    assert_eq!(Config::of(&folder).unwrap().experts(), Some(sizes));
    (folder, smaller, records)
}

#[test]
fn experts_leave_with_their_rows_of_the_router_and_the_others_stay_as_they_were() {
    let above = tempfile::tempdir().unwrap();
    for name in MIXTURES {
        let golden = Golden::read(name);
        let dir = folder_of(&golden, above.path());
        for score in [ExpertScore::Reap, ExpertScore::Use, ExpertScore::Minitron, ExpertScore::Random] {
            let (_, active) = golden.config().experts().unwrap();
            let (folder, smaller, records) = removed(&golden, &dir, (3, active.min(2)), score);
            for record in &records {
                let mut order: Vec<usize> = (0..record.scores.len()).collect();
                order.sort_by(|&a, &b| record.scores[b].total_cmp(&record.scores[a]));
                let mut first = order[..3].to_vec();
                first.sort_unstable();
                assert_eq!(record.kept, first, "{name}, {score:?}");
                if score.measures() {
                    let met: usize = record.tokens.iter().sum();
                    assert_eq!(met, active * golden.ids.len(), "{name}: a token meets {active} experts");
                }
                if score == ExpertScore::Use {
                    assert!(record.scores.iter().zip(&record.tokens).all(|(s, n)| *s == *n as f64));
                }
                let path = if name == "mixtral" { "block_sparse_moe" } else { "mlp" };
                let tensor = |part: &str| format!("model.layers.{}.{path}.{part}.weight", record.block);
                let last = if name == "mixtral" { "w2" } else { "down_proj" };
                for (new, old) in record.kept.iter().enumerate() {
                    let (now, before) = (tensor(&format!("experts.{new}.{last}")), tensor(&format!("experts.{old}.{last}")));
                    assert_eq!(&folder.read(&now).unwrap(), golden.weights.get(&before).unwrap(), "{name}: {now}");
                }
                let rows = golden.weights.get(&tensor("gate")).unwrap().select(Axis(0), &record.kept);
                assert_eq!(folder.read(&tensor("gate")).unwrap(), rows, "{name}");
            }
            let model = LanguageModel::load(&folder, smaller).unwrap();
            assert!(model.forward(&golden.ids).unwrap().iter().all(|z| z.is_finite()), "{name}");
        }
    }
}

#[test]
fn experts_that_do_not_fit_are_refused_with_the_numbers() {
    let config = Golden::read("olmoe").config();
    let e = |count, active| config.with_experts(count, active).unwrap_err().to_string();
    assert_eq!(e(5, 2), "experts: 5 of 4 cannot stay; the nearest possible value is 4");
    assert_eq!(e(0, 2), "experts: 0 of 4 cannot stay; the nearest possible value is 1");
    assert_eq!(e(2, 3), "active-experts: a token cannot meet 3 of 2 experts");
    let e = Golden::read("llama").config().with_experts(1, 1).unwrap_err().to_string();
    assert_eq!(e, "experts: a llama has none");
    // Blocks of experts are trained whole, after they are pruned or put into codes.
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::read("mixtral");
    let (dir, ids) = (folder_of(&golden, folder.path()), calibration(&golden, folder.path()));
    let (out, length) = (folder.path().join("out"), golden.ids.len());
    let quantize = QuantizeJob::default().method(QuantizeMethod::Rtn).group(Granularity::Row).reconstruct_blocks(1);
    let quantize = quantize.model(&dir).out(&out).calibration(&ids).samples(4).context(length);
    let prune = PruneJob::new("wanda").sparsity(0.5).reconstruct_blocks(1);
    let prune = prune.model(&dir).out(&out).calibration(&ids).samples(4).context(length);
    let go_on = &mut |_: &Event| ControlFlow::Continue(());
    let says = "reconstruct-blocks: blocks of experts are trained whole, and not where their layers are taken in turn: give --turn block";
    assert_eq!(quantize.run(go_on).unwrap_err().to_string(), says);
    assert_eq!(prune.run(&Methods::standard(), go_on).unwrap_err().to_string(), says);
    assert!(!out.exists());
    let report = quantize.sequential(Sequential::Block).run(go_on).unwrap();
    assert!(report.layers.iter().all(|l| l.reconstructed.is_some()));
}
