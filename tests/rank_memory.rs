//! Memory of ranking and pruning a folder by weights alone, counted by the allocator: that of a few layers, however many there are.

#[path = "../crates/sparse/tests/allocator/mod.rs"]
mod allocator;

use allocator::beside;
use lacuna::allocate::{Allocate, Global, Lamp, LayerView, Target, sampled_rows};
use lacuna::criteria::Magnitude;
use lacuna::data::Sequences;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout, Output};
use lacuna::lm::Config;
use lacuna::mask::{Pattern, Scope};
use lacuna::prune::{
    ActivationMemory, CalibrationInputs, LanguageLayer, LanguagePruning, LanguageRun, Sequential, allocated_with,
    language_layers, prune_language,
};
use lacuna::rng::Seed;
use lacuna::solve::Scored;
use ndarray::{Array1, Array2};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const HIDDEN: usize = 384;
const WIDE: usize = 768;
/// Bytes of the largest layer in memory.
const LAYER: usize = 4 * HIDDEN * WIDE;

/// A Llama of so many blocks. Where the sample is to mislead, the rows of which it is made are a thousand times as large as the others.
fn llama(dir: &Path, blocks: usize, dtype: Dtype, misleading: bool) -> PathBuf {
    let mut tensors: Vec<(String, Vec<usize>)> = vec![("model.embed_tokens.weight".into(), vec![50, HIDDEN])];
    for i in 0..blocks {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("mlp.gate_proj", vec![WIDE, HIDDEN]),
            ("mlp.up_proj", vec![WIDE, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, WIDE]),
        ] {
            tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    tensors.push(("model.norm.weight".into(), vec![HIDDEN]));
    let layout = Layout::new(tensors.iter().map(|(n, s)| (n.clone(), dtype, s.clone())), 1 << 30).unwrap();
    let mut writer = FolderWriter::create(dir, layout).unwrap();
    for (i, (name, shape)) in tensors.iter().enumerate() {
        match shape[..] {
            [rows, cols] => {
                let mut weight = Seed(1).stream(name).normal_array(rows, cols, 0.01 + 0.001 * (i % 7) as f32);
                if misleading {
                    let sampled = sampled_rows(name.trim_end_matches(".weight"), rows);
                    sampled.into_iter().for_each(|r| weight.row_mut(r).mapv_inplace(|w| 1000.0 * w));
                }
                writer.write(name, &weight).unwrap();
            }
            _ => writer.write(name, &Array1::<f32>::ones(shape[0])).unwrap(),
        }
    }
    let config = json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": blocks, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": HIDDEN / 4, "vocab_size": 50, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "max_position_embeddings": 64, "hidden_act": "silu",
    });
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    dir.to_path_buf()
}

fn open(dir: &Path) -> (Folder, Config, Vec<LanguageLayer>) {
    let folder = Folder::open(dir).unwrap();
    let config = Config::parse(&serde_json::Value::Object(folder.config().clone())).unwrap();
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    (folder, config, layers)
}

/// Budgets of the layers in order, the number of passes, and the most bytes that they took.
fn ranked(dir: &Path, allocation: &dyn Allocate) -> (Vec<usize>, usize, usize) {
    let (folder, config, layers) = open(dir);
    let mut passes = 0;
    let by = (allocation, None);
    let (budgets, bytes) = beside(|| {
        allocated_with(&folder, &config, &layers, Pattern::Unstructured, 0.5, by, &mut |r| {
            passes = passes.max(r.pass);
            ControlFlow::Continue(())
        })
        .unwrap()
    });
    (layers.iter().map(|l| budgets[&l.name].keep()).collect(), passes, bytes)
}

/// The budgets with all layers in memory.
fn in_memory(dir: &Path, allocation: &dyn Allocate) -> Vec<usize> {
    let (folder, _, layers) = open(dir);
    let weights: Vec<Array2<f32>> =
        layers.iter().map(|l| folder.matrix(&format!("{}.weight", l.name), l.shape).unwrap()).collect();
    let scores: Vec<Array2<f32>> = weights.iter().map(|w| w.mapv(f32::abs)).collect();
    let seen: Vec<LayerView<'_>> = (0..layers.len())
        .map(|i| LayerView { scores: Some(scores[i].view()), ..LayerView::linear(&layers[i].name, &weights[i]) })
        .collect();
    Target::Sparsity(0.5).allocate(allocation, &seen).unwrap().iter().map(|p| p.keep()).collect()
}

/// The most bytes that pruning by magnitude takes.
fn pruned(dir: &Path) -> usize {
    let (folder, config, layers) = open(dir);
    let budgets =
        allocated_with(
            &folder,
            &config,
            &layers,
            Pattern::Unstructured,
            0.5,
            (&Global, None),
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap();
    let magnitude = Magnitude::default();
    let settings = LanguagePruning {
        pruner: &Scored(&magnitude),
        pattern: Pattern::Unstructured,
        scope: Scope::Layer,
        budgets,
        inputs: CalibrationInputs::Pruned,
        sequential: Sequential::Layer,
        correction: None,
        reconstruction: None,
        generalisation: Default::default(),
        gradients: None,
        memory: ActivationMemory::new(0, dir),
    };
    let out = dir.with_extension("pruned");
    let run = LanguageRun {
        folder: &folder,
        config: &config,
        calibration: &Sequences::nothing(),
        pruning: &settings,
        out: &Output::from(&out),
        described: &json!({}),
        resume: false,
    };
    let (done, bytes) = beside(|| prune_language(run, &mut |_| ControlFlow::Continue(())).unwrap().finish());
    done.unwrap();
    bytes
}

// One test: others at the same time would be counted with it.
#[test]
fn a_folder_is_ranked_and_pruned_in_the_memory_of_a_few_layers_however_many_it_has() {
    let root = tempfile::tempdir().unwrap();
    let weights = |blocks: usize| blocks * 9 * 4 * HIDDEN * HIDDEN;
    for dtype in [Dtype::BF16, Dtype::F32] {
        let dirs = [2, 12].map(|blocks| llama(&root.path().join(format!("{dtype}{blocks}")), blocks, dtype, false));
        for allocation in [&Global as &dyn Allocate, &Lamp] {
            let name = format!("{} of {dtype}", allocation.name());
            let [few, many] = [&dirs[0], &dirs[1]].map(|dir| {
                let (counts, passes, bytes) = ranked(dir, allocation);
                assert_eq!((counts, passes), (in_memory(dir, allocation), 1), "{name}");
                bytes
            });
            // Counts of what occurs: a few tens of kilobytes a layer.
            assert!(many < few + 10 * 7 * (40 << 10), "{name}: {few} bytes for 2 blocks, {many} for 12");
            assert!(many < 12 * LAYER && 4 * many < weights(12), "{name}: {many} bytes for 12 blocks, layers have {LAYER}");
        }
        let [few, many] = [&dirs[0], &dirs[1]].map(|dir| pruned(dir));
        assert!(many < few + LAYER && many < 12 * LAYER, "{dtype}: pruning took {few} bytes for 2 blocks, {many} for 12");
    }
    let misled = llama(&root.path().join("misled"), 1, Dtype::F32, true);
    for allocation in [&Global as &dyn Allocate, &Lamp] {
        let (counts, passes, bytes) = ranked(&misled, allocation);
        assert_eq!((counts, passes), (in_memory(&misled, allocation), 2), "{}", allocation.name());
        assert!(bytes < 12 * LAYER, "{}: {bytes} bytes in two passes", allocation.name());
    }
}
