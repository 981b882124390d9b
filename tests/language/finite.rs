//! What is not finite is refused with its layer and place, by whatever measures.

use crate::common::*;
use lacuna::allocate::Evolution;
use lacuna::criteria::{Need, Needs, Ria, Wanda};
use lacuna::data::Sequences;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout};
use lacuna::mask::{Pattern, Scope};
use lacuna::prune::{CalibrationInputs, LevelSettings, Levels, SequenceGradients, Sequential, language_layers, outliers};
use lacuna::rng::Seed;
use lacuna::solve::{Alps, DsNoT, ExactObs, Pruner, Scored, SparseGpt};
use ndarray::ArrayD;
use std::path::PathBuf;

/// The model with one tensor changed.
fn changed(m: &Model, name: &str, tensor: &str, change: impl Fn(&mut ArrayD<f32>)) -> PathBuf {
    let (folder, dir) = (Folder::open(&m.dir).unwrap(), m.out(name));
    let mut writer = FolderWriter::create(&dir, Layout::of(&folder)).unwrap();
    let mut values = folder.read(tensor).unwrap();
    change(&mut values);
    writer.write(tensor, &values).unwrap();
    writer.copy_rest(&folder).unwrap();
    writer.finish().unwrap();
    dir
}

#[test]
fn inputs_that_are_not_finite_are_refused_with_the_layers_that_share_them() {
    let m = Model::new(Dtype::F32);
    let ids = tokens(10);
    let (ria, wanda) = (Ria::default(), Scored(&Wanda));
    let ria = Scored(&ria);
    let (sparse, alps, obc, dsnot) = (SparseGpt::default(), Alps::default(), ExactObs::default(), DsNoT::new(&wanda));
    let all: [&dyn Pruner; 6] = [&wanda, &ria, &sparse, &alps, &obc, &dsnot];
    let cases = [
        ("input_layernorm", "layer model.layers.1.self_attn.q_proj, k_proj, v_proj: inputs"),
        ("post_attention_layernorm", "layer model.layers.1.mlp.gate_proj, up_proj: inputs"),
    ];
    for (norm, expected) in cases {
        for value in [f32::NAN, f32::INFINITY] {
            let name = format!("{norm}{value}");
            let dir = changed(&m, &name, &format!("model.layers.1.{norm}.weight"), |w| w[[5]] = value);
            for (i, pruner) in all.into_iter().enumerate() {
                for (inputs, turn) in [
                    (CalibrationInputs::Pruned, Sequential::Layer),
                    (CalibrationInputs::Pruned, Sequential::Block),
                    (CalibrationInputs::Dense, Sequential::Block),
                ] {
                    let mut settings = settings(&dir, pruner, Pattern::Unstructured);
                    (settings.inputs, settings.sequential) = (inputs, turn);
                    let out = m.out(&format!("out{i}{name}{inputs:?}{turn:?}"));
                    let line = prune(&dir, &out, &ids, &settings).unwrap_err().to_string();
                    let place = format!("{value} at row 0, column 5");
                    let place = if value.is_nan() { place } else { place.replacen("inf", "", 1) };
                    assert!(line.starts_with(expected) && line.contains(&place), "{}: {line}", pruner.name());
                    assert!(line.ends_with("--resume goes on from there"), "the first block was done: {line}");
                }
            }
            let (folder, config) = open(&dir);
            let layers = language_layers(&folder, &config, &[], &[]).unwrap();
            let line = outliers(&folder, &config, &sequences(&ids), &layers, 5.0, &memory(0), on).unwrap_err().to_string();
            assert!(line.starts_with(expected), "{line}");
            let plain = LevelSettings::new(&sparse, Pattern::Unstructured, Scope::Layer, None, memory(0));
            let levels = LevelSettings { sparsities: &[0.5], ..plain };
            let built = Levels::build(&folder, &config, &sequences(&ids), &layers, &levels, on);
            let line = built.err().unwrap().to_string();
            assert!(line.starts_with(expected), "{line}");
        }
    }
}

#[test]
fn what_a_layer_that_is_left_alone_breaks_is_named_where_it_is_read() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(10), SparseGpt::default());
    for (layer, reads) in [("self_attn.v_proj", "self_attn.o_proj"), ("mlp.up_proj", "mlp.down_proj")] {
        let tensor = format!("model.layers.0.{layer}.weight");
        let dir = changed(&m, layer, &tensor, |w| w[[3, 2]] = f32::NAN);
        for turn in [Sequential::Layer, Sequential::Block] {
            let mut settings = settings(&dir, &pruner, Pattern::Unstructured);
            settings.sequential = turn;
            settings.budgets.remove(&format!("model.layers.0.{layer}"));
            let out = m.out("out");
            let line = prune(&dir, &out, &ids, &settings).unwrap_err().to_string();
            assert!(line.starts_with(&format!("layer model.layers.0.{reads}: inputs")), "{line}");
            assert!(line.contains("NaN at row 0, column "), "{line}");
            assert!(!out.exists() && !FolderWriter::working_folder(&out).exists(), "nothing was done, and nothing is left");
        }
        // Pruned itself, the weight is what is refused.
        let line = prune(&dir, &m.out("out"), &ids, &settings(&dir, &pruner, Pattern::Unstructured)).unwrap_err().to_string();
        assert!(line.starts_with(&format!("layer model.layers.0.{layer}: weights: NaN at row 3, column 2")), "{line}");
    }
}

#[test]
fn rows_are_counted_over_all_parts_of_the_stream() {
    let m = Model::new(Dtype::F32);
    // Token 49 is nowhere but here, behind the first 4096 tokens.
    let mut ids: Vec<u32> = tokens(400).into_iter().map(|id| id.min(48)).collect();
    ids[4501] = 49;
    let dir = changed(&m, "nan", "model.embed_tokens.weight", |w| w[[49, 7]] = f32::NAN);
    for pruner in [&Scored(&Wanda) as &dyn Pruner, &SparseGpt::default()] {
        for turn in [Sequential::Layer, Sequential::Block] {
            let mut settings = settings(&dir, pruner, Pattern::Unstructured);
            (settings.sequential, settings.memory) = (turn, memory(0));
            let line = prune(&dir, &m.out("out"), &ids, &settings).unwrap_err().to_string();
            assert!(line.contains("NaN at row 4501, column 0"), "{line}");
        }
    }
}

#[test]
fn gradients_and_predictions_that_are_not_finite_are_refused_with_their_place() {
    let m = Model::new(Dtype::F32);
    let ids: Vec<u32> = tokens(10).into_iter().map(|id| id.min(48)).collect();
    let mut rare = ids.clone();
    rare[5 * LENGTH + 2] = 49;
    let dir = changed(&m, "nan", "model.embed_tokens.weight", |w| w[[49, 7]] = f32::INFINITY);
    let (folder, config) = open(&dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let needs = Needs::none().and(Need::Gradient).and(Need::SquaredGradients).and(Need::SampleGradients);
    let found = SequenceGradients::measure(&folder, &config, &sequences(&rare), &layers, needs, &memory(0), on);
    let line = found.err().unwrap().to_string();
    // The tied head has that token among its logits too, so that the first sequence breaks.
    assert!(line.starts_with("layer model.layers.") && line.contains(": gradient of sequence 0: "), "{line}");

    let sparse = SparseGpt::default();
    let settings = LevelSettings {
        sparsities: &[0.5],
        ..LevelSettings::new(&sparse, Pattern::Unstructured, Scope::Layer, None, memory(1 << 20))
    };
    let dir = changed(&m, "norm", "model.norm.weight", |w| w[[5]] = f32::NAN);
    let (folder, config) = open(&dir);
    let levels = Levels::build(&folder, &config, &sequences(&ids), &layers, &settings, on).unwrap();
    let line = levels.sensitivities(&sequences(&ids[..24]), on).unwrap_err().to_string();
    assert!(line.starts_with("logits of the dense model (tokens, vocab): NaN at row 0, column 0"), "{line}");
    let search = Evolution { generations: 2, offspring: 2, seed: Seed(0) };
    let budget = levels.dense_cost() * 3 / 4;
    let again = levels.evolved(&sequences(&ids[..24]), budget, search, on).unwrap_err().to_string();
    assert_eq!(again, line);
    let mut losses = vec![vec![0.0, 1.0]; layers.len()];
    losses[4][1] = f64::NAN;
    let line = levels.by_losses(&losses, budget).unwrap_err().to_string();
    assert_eq!(line, format!("layer {}: levels: its loss at sparsity 0.5 is NaN", layers[4].name));
}

#[test]
fn tokens_that_are_no_whole_sequences_are_refused_and_sequences_of_one_token_have_none_to_predict() {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let sparse = SparseGpt::default();
    let plain = LevelSettings::new(&sparse, Pattern::Unstructured, Scope::Layer, None, memory(1 << 20));
    let settings = LevelSettings { sparsities: &[0.5], ..plain };
    let ids = tokens(2);
    for (ids, length) in [(&ids[..], 0), (&ids[..13], 12), (&ids[..0], 12), (&ids[..0], 0)] {
        let line = Sequences::new(ids.to_vec(), length).unwrap_err().to_string();
        assert_eq!(line, format!("calibration: {} tokens are not whole sequences of {length}", ids.len()));
    }
    let levels = Levels::build(&folder, &config, &sequences(&ids), &layers, &settings, on).unwrap();
    let single = Sequences::new(ids, 1).unwrap();
    let expected = "search-tokens: sequences of 1 token have none to predict";
    assert_eq!(levels.sensitivities(&single, on).unwrap_err().to_string(), expected);
    let search = Evolution { generations: 1, offspring: 1, seed: Seed(0) };
    assert_eq!(levels.evolved(&single, levels.dense_cost(), search, on).unwrap_err().to_string(), expected);
}

#[test]
fn sums_of_gradients_are_the_same_bits_in_memory_and_on_the_disk() {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &["v_proj".into()]).unwrap();
    let ids = tokens(7);
    let needs = Needs::none().and(Need::Gradient).and(Need::SquaredGradients).and(Need::SampleGradients);
    // None, the first layers alone, all.
    let measured: Vec<SequenceGradients> = [0, 8000, 1 << 30]
        .into_iter()
        .map(|bytes| SequenceGradients::measure(&folder, &config, &sequences(&ids), &layers, needs, &memory(bytes), on).unwrap())
        .collect();
    let model = model(&m.dir);
    for layer in &layers {
        let (mut mean, mut squares) = (vec![0.0f32; layer.shape.0 * layer.shape.1], vec![0.0f32; layer.shape.0 * layer.shape.1]);
        for ids in ids.chunks(LENGTH) {
            let mut sink = |tensor: &str, gradient: ArrayD<f32>| {
                if tensor == format!("{}.weight", layer.name) {
                    gradient.iter().zip(mean.iter_mut().zip(&mut squares)).for_each(|(&g, (mean, square))| {
                        *mean += g / 7.0;
                        *square += g * g / 7.0;
                    });
                }
            };
            model.backward(ids, LENGTH, &mut sink).unwrap();
        }
        for found in &measured {
            let found = found.measured(&layer.name).unwrap();
            assert_eq!(found.gradient.unwrap().into_raw_vec_and_offset().0, mean, "{}", layer.name);
            assert_eq!(found.squared_gradients.unwrap().into_raw_vec_and_offset().0, squares, "{}", layer.name);
            assert_eq!(found.sample_gradients.unwrap().nrows(), 7);
        }
    }
}
