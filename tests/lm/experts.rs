//! Mixtures of experts: every expert is pruned like other layers, and experts leave for good.

use crate::common::Golden;
use lacuna::data::Sequences;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout, Weights};
use lacuna::job::{Methods, ModelReport, PruneJob, PruneReport};
use lacuna::lm::{Config, LanguageModel, Outline};
use lacuna::prune::{ActivationMemory, ExpertRecord, ExpertScore, Sequential, remove_experts};
use lacuna::rng::Seed;
use ndarray::Axis;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const MIXTURES: [&str; 4] = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"];

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

fn calibration(golden: &Golden, above: &Path) -> PathBuf {
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
            assert!(layer.tokens == all || layer.tokens >= golden.config().hidden(), "{name}: {} of {all}", layer.tokens);
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

fn removed(golden: &Golden, dir: &Path, sizes: (usize, usize), score: ExpertScore) -> (Folder, Config, Vec<ExpertRecord>) {
    let (folder, config) = (Folder::open(dir).unwrap(), golden.config());
    let out = dir.with_file_name(format!("{} without {score:?} {}", golden.name, sizes.0));
    let calibration = Sequences::new(golden.ids.clone(), golden.ids.len()).unwrap();
    let memory = ActivationMemory::new(1 << 30, env!("CARGO_TARGET_TMPDIR"));
    let mut see = |_, _| ControlFlow::Continue(());
    let (writer, smaller, records) =
        remove_experts((&folder, &config), &calibration, sizes, score, &memory, &out, &mut see).unwrap();
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
        for score in [ExpertScore::Reap, ExpertScore::Use, ExpertScore::Minitron, ExpertScore::Random(Seed(1))] {
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
}
