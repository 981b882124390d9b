//! Budgets of a folder's layers, which are read one at a time, against all of them in memory.

use crate::common::*;
use lacuna::allocate::{Allocate, Er, Erk, Global, Lamp, LayerView, Overrides, Target};
use lacuna::criteria::{Evidence, Fisher, Magnitude, Need, Needs, Saliency, Taylor};
use lacuna::data::Sequences;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout};
use lacuna::lm::Config;
use lacuna::mask::{Budget, Pattern};
use lacuna::prune::{ActivationMemory, LanguageLayer, SequenceGradients, allocated, allocated_with, language_layers};
use lacuna::rng::Seed;
use ndarray::{Array1, Array2};
use serde_json::json;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A GPT-2 of two blocks, whose weights lie (in, out), of scales that differ from layer to layer.
fn gpt2(root: &Path, dtype: Dtype) -> PathBuf {
    let mut tensors: Vec<(String, Vec<usize>)> =
        vec![("transformer.wte.weight".into(), vec![50, 32]), ("transformer.wpe.weight".into(), vec![64, 32])];
    for i in 0..2 {
        for (name, shape) in
            [("attn.c_attn", (32, 96)), ("attn.c_proj", (32, 32)), ("mlp.c_fc", (32, 128)), ("mlp.c_proj", (128, 32))]
        {
            tensors.push((format!("transformer.h.{i}.{name}.weight"), vec![shape.0, shape.1]));
            tensors.push((format!("transformer.h.{i}.{name}.bias"), vec![shape.1]));
        }
        for norm in ["ln_1", "ln_2"] {
            tensors.push((format!("transformer.h.{i}.{norm}.weight"), vec![32]));
            tensors.push((format!("transformer.h.{i}.{norm}.bias"), vec![32]));
        }
    }
    tensors.push(("transformer.ln_f.weight".into(), vec![32]));
    tensors.push(("transformer.ln_f.bias".into(), vec![32]));
    let dir = root.join("gpt2");
    let layout = Layout::new(tensors.iter().map(|(n, s)| (n.clone(), dtype, s.clone())), 1 << 30).unwrap();
    let mut writer = FolderWriter::create(&dir, layout).unwrap();
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let mut stream = Seed(8).stream(name);
        match shape[..] {
            [n] => writer.write(name, &Array1::from_shape_simple_fn(n, || 1.0 + 0.1 * stream.normal())).unwrap(),
            [r, c] => writer.write(name, &stream.normal_array(r, c, 0.1 + 0.05 * (i % 5) as f32)).unwrap(),
            _ => unreachable!(),
        }
    }
    let config = json!({
        "model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 50,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    });
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    dir
}

/// Every linear layer of a folder with its weight `(out, in)`.
fn weights(dir: &Path, layers: &[LanguageLayer]) -> Vec<Array2<f32>> {
    let model = model(dir);
    layers.iter().map(|l| weight(&model, &l.name)).collect()
}

/// How many of each layer are among the `keep` best of all, by a stable sort of everything.
fn naive(layers: &[LanguageLayer], scores: &[Array2<f32>], sparsity: f64) -> HashMap<String, Budget> {
    let mut all: Vec<(f32, usize)> = scores.iter().enumerate().flat_map(|(l, s)| s.iter().map(move |&s| (s, l))).collect();
    all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap());
    let keep = Budget::from_sparsity(all.len(), sparsity).unwrap().keep();
    let count = |l: usize| all[..keep].iter().filter(|(_, of)| *of == l).count();
    (0..layers.len()).map(|l| (layers[l].name.clone(), Budget::new(count(l), scores[l].len()).unwrap())).collect()
}

/// A model's folder, opened, and its layers.
fn opened(dir: &Path) -> (Folder, Config, Vec<LanguageLayer>) {
    let (folder, config) = open(dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    (folder, config, layers)
}

#[test]
fn layers_read_one_at_a_time_get_the_budgets_of_all_in_memory() {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let m = Model::new(dtype);
        for dir in [m.dir.clone(), gpt2(m.folder.path(), dtype)] {
            let (folder, config, layers) = opened(&dir);
            let weights = weights(&dir, &layers);
            let magnitudes: Vec<Array2<f32>> = weights.iter().map(|w| w.mapv(f32::abs)).collect();
            let lamp: Vec<Array2<f32>> = weights.iter().map(|w| Lamp::scores(w)).collect();
            let seen: Vec<LayerView<'_>> = layers.iter().zip(&weights).map(|(l, w)| LayerView::linear(&l.name, w)).collect();
            for sparsity in [0.0, 0.3, 0.5, 0.9] {
                let found = |allocation: &dyn Allocate| {
                    allocated(&folder, &config, &layers, Pattern::Unstructured, sparsity, (allocation, None)).unwrap()
                };
                assert_eq!(found(&Global), naive(&layers, &magnitudes, sparsity), "global of {dtype} at {sparsity}");
                assert_eq!(found(&Lamp), naive(&layers, &lamp, sparsity), "lamp of {dtype} at {sparsity}");
                for allocation in [&Er as &dyn Allocate, &Erk] {
                    let parts = Target::Sparsity(sparsity).allocate(allocation, &seen).unwrap();
                    let expected = layers.iter().map(|l| l.name.clone()).zip(parts).collect();
                    assert_eq!(found(allocation), expected, "{} of {dtype} at {sparsity}", allocation.name());
                }
            }
        }
    }
}

#[test]
fn patterns_of_units_get_their_share_of_the_counts_by_rank() {
    let m = Model::new(Dtype::BF16);
    let (folder, config, layers) = opened(&m.dir);
    let counts = allocated(&folder, &config, &layers, Pattern::Unstructured, 0.6, (&Global, None)).unwrap();
    let blocks = Pattern::Block { rows: 4, cols: 2 };
    let found = allocated(&folder, &config, &layers, blocks, 0.6, (&Global, None)).unwrap();
    for layer in &layers {
        let (part, units) = (counts[&layer.name], layer.shape.0 * layer.shape.1 / 8);
        let keep = (units as f64 * part.keep() as f64 / part.of() as f64).round() as usize;
        assert_eq!(found[&layer.name], Budget::new(keep, units).unwrap(), "{}", layer.name);
    }
}

#[test]
fn criteria_of_gradients_are_ranked_layer_by_layer_too() {
    let m = Model::new(Dtype::F32);
    let ids = tokens(4);
    for dir in [m.dir.clone(), gpt2(m.folder.path(), Dtype::F32)] {
        let (folder, config, layers) = opened(&dir);
        let weights = weights(&dir, &layers);
        let needs = Needs::none().and(Need::Gradient).and(Need::SquaredGradients);
        let (room, ids) = (ActivationMemory::new(1 << 20, m.folder.path()), Sequences::new(ids.clone(), LENGTH).unwrap());
        let see = |_, _| ControlFlow::Continue(());
        let gradients = SequenceGradients::measure(&folder, &config, &ids, &layers, needs, &room, see).unwrap();
        for saliency in [&Taylor as &dyn Saliency, &Fisher] {
            let score = |(l, w): (&LanguageLayer, &Array2<f32>)| {
                let measured = gradients.measured(&l.name).unwrap();
                saliency.score(&Evidence { measured: &measured, ..Evidence::weight_only(&l.name, w) }).unwrap()
            };
            let scores: Vec<Array2<f32>> = layers.iter().zip(&weights).map(score).collect();
            let by = (&Global as &dyn Allocate, Some((saliency, Some(&gradients))));
            for sparsity in [0.2, 0.7] {
                let found = allocated(&folder, &config, &layers, Pattern::Unstructured, sparsity, by).unwrap();
                assert_eq!(found, naive(&layers, &scores, sparsity), "{} at {sparsity}", saliency.name());
            }
        }
    }
}

/// Looks at weights in a way of its own, and at scores.
#[derive(Debug)]
struct Largest;

impl Allocate for Largest {
    fn name(&self) -> &str {
        "largest"
    }

    fn needs_scores(&self) -> bool {
        true
    }

    fn allocate(&self, layers: &[LayerView<'_>], total: Budget) -> lacuna::Result<Vec<Budget>> {
        let largest = |l: &LayerView<'_>| l.weight.iter().zip(l.scores.unwrap()).fold(0.0f32, |m, (w, s)| m.max(w.abs() + s));
        let first = (0..layers.len()).max_by(|&a, &b| largest(&layers[a]).total_cmp(&largest(&layers[b]))).unwrap();
        let mut left = total.keep();
        let mut parts = vec![Budget::new(0, 0)?; layers.len()];
        for i in (first..layers.len()).chain(0..first) {
            let keep = left.min(layers[i].len());
            parts[i] = Budget::new(keep, layers[i].len())?;
            left -= keep;
        }
        Ok(parts)
    }
}

#[test]
fn an_allocation_from_outside_sees_all_weights_with_their_scores() {
    let m = Model::new(Dtype::F32);
    let (folder, config, layers) = opened(&m.dir);
    let weights = weights(&m.dir, &layers);
    let scores: Vec<Array2<f32>> = layers
        .iter()
        .zip(&weights)
        .map(|(l, w)| Magnitude::default().score(&Evidence::weight_only(&l.name, w)).unwrap())
        .collect();
    let seen: Vec<LayerView<'_>> = (0..layers.len())
        .map(|i| LayerView { scores: Some(scores[i].view()), ..LayerView::linear(&layers[i].name, &weights[i]) })
        .collect();
    let parts = Target::Sparsity(0.4).allocate(&Largest, &seen).unwrap();
    let expected: HashMap<String, Budget> = layers.iter().map(|l| l.name.clone()).zip(parts).collect();
    assert_eq!(allocated(&folder, &config, &layers, Pattern::Unstructured, 0.4, (&Largest, None)).unwrap(), expected);
}

#[test]
fn layers_that_are_given_and_those_that_are_left_out_are_not_read() {
    let m = Model::new(Dtype::F32);
    let (folder, config, all) = opened(&m.dir);
    let layers: Vec<LanguageLayer> = all.iter().filter(|l| l.name.contains("mlp")).cloned().collect();
    let given = Overrides { sparsity: [(layers[0].name.clone(), 0.25)].into(), rest: Lamp };
    let mut read = Vec::new();
    let found = allocated_with(&folder, &config, &layers, Pattern::Unstructured, 0.5, (&given, None), &mut |r| {
        read.push(r);
        ControlFlow::Continue(())
    })
    .unwrap();
    let weights = weights(&m.dir, &layers);
    let seen: Vec<LayerView<'_>> = layers.iter().zip(&weights).map(|(l, w)| LayerView::linear(&l.name, w)).collect();
    let parts = Target::Sparsity(0.5).allocate(&given, &seen).unwrap();
    assert_eq!(found, layers.iter().map(|l| l.name.clone()).zip(parts).collect());
    assert!(read.iter().all(|r| r.of == layers.len() - 1 && r.layers <= r.of), "{read:?}");
    assert_eq!(read.iter().filter(|r| r.pass == 1).count(), layers.len() - 1);
}

#[test]
fn shapes_are_enough_for_er_and_erk_and_others_name_what_cannot_be_read() {
    let m = Model::new(Dtype::BF16);
    let (folder, config, layers) = opened(&m.dir);
    let whole = |allocation| allocated(&folder, &config, &layers, Pattern::Unstructured, 0.5, (allocation, None));
    let before = [whole(&Er as &dyn Allocate).unwrap(), whole(&Erk).unwrap()];
    // The file is cut after its header while it is open.
    let file = m.dir.join("model.safetensors");
    let header = std::fs::read(&file).unwrap().first_chunk::<8>().map(|n| 8 + u64::from_le_bytes(*n)).unwrap();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(header).unwrap();
    assert_eq!(before, [whole(&Er as &dyn Allocate).unwrap(), whole(&Erk).unwrap()]);
    for allocation in [&Global as &dyn Allocate, &Lamp] {
        let line = whole(allocation).unwrap_err().to_string();
        assert!(line.contains("tensor 'model.layers.0.self_attn.q_proj.weight': the file had"), "{line}");
    }
    let mut unknown = layers.clone();
    unknown[3].name = "model.layers.0.self_attn.p_proj".into();
    let line = allocated(&folder, &config, &unknown, Pattern::Unstructured, 0.5, (&Er, None)).unwrap_err().to_string();
    assert!(line.starts_with("no layer is named 'model.layers.0.self_attn.p_proj' among 21; did you mean"), "{line}");
}

#[test]
fn a_weight_that_is_not_finite_is_refused_with_its_own_place() {
    let m = Model::new(Dtype::F32);
    let (folder, tensor) = (Folder::open(&m.dir).unwrap(), "model.layers.1.mlp.gate_proj.weight");
    let mut values = folder.read(tensor).unwrap();
    values[[21, 3]] = f32::NAN;
    let dir = m.out("nan");
    let mut writer = FolderWriter::create(&dir, Layout::of(&folder)).unwrap();
    writer.write(tensor, &values).unwrap();
    writer.copy_rest(&folder).unwrap();
    writer.finish().unwrap();
    let (folder, config, layers) = opened(&dir);
    for (allocation, what) in [(&Global as &dyn Allocate, "scores"), (&Lamp, "weights")] {
        let found = allocated(&folder, &config, &layers, Pattern::Unstructured, 0.5, (allocation, None));
        let expected = format!(
            "layer model.layers.1.mlp.gate_proj: {what}: NaN at row 21, column 3; only finite numbers can be ranked or stored"
        );
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
}
