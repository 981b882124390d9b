//! Encoder-decoders: pruned by their weights, refused by whatever measures inputs.

use crate::common::{begin, files, go_on, memory, on, open, sequences};
use lacuna::allocate::{Allocate, Er, Erk, Global, Lamp, Uniform};
use lacuna::criteria::{Fisher, Magnitude, Needs, Random, Ria, Saliency, Taylor, Wanda};
use lacuna::data::Sequences;
use lacuna::io::{Dtype, FolderWriter, Layout};
use lacuna::lm::Seq2Seq;
use lacuna::mask::{Pattern, Scope};
use lacuna::prune::{
    CalibrationInputs, Correction, LanguagePruning, LevelSettings, Levels, SequenceGradients, Sequential, allocated,
    check_measurable, language_layers, outliers,
};
use lacuna::rng::Seed;
use lacuna::solve::{Alps, DsNoT, ExactObs, Pruner, Reconstruct, Reconstructed, Scored, SparseGpt, WoodFisher};
use ndarray::Array1;
use serde_json::json;
use std::path::{Path, PathBuf};

const IDS: [u32; 9] = [3, 7, 1, 39, 12, 5, 5, 20, 8];

/// A T5 of two blocks in the encoder and three in the decoder: v1.0, with a tied head, or v1.1 with gates and a head of its own.
fn t5(folder: &Path, gated: bool) -> PathBuf {
    let dir = folder.join(if gated { "gated" } else { "plain" });
    let mut tensors: Vec<(String, Vec<usize>)> = vec![("shared.weight".into(), vec![40, 16])];
    for (stack, blocks) in [("encoder", 2), ("decoder", 3)] {
        for i in 0..blocks {
            let mut add =
                |name: String, shape: Vec<usize>| tensors.push((format!("{stack}.block.{i}.layer.{name}.weight"), shape));
            let attentions = if stack == "decoder" { vec!["SelfAttention", "EncDecAttention"] } else { vec!["SelfAttention"] };
            let feed = attentions.len();
            for (l, attention) in attentions.into_iter().enumerate() {
                ["q", "k", "v", "o"].iter().for_each(|part| add(format!("{l}.{attention}.{part}"), vec![16, 16]));
                add(format!("{l}.layer_norm"), vec![16]);
            }
            let opening = if gated { vec!["wi_0", "wi_1"] } else { vec!["wi"] };
            opening.iter().for_each(|part| add(format!("{feed}.DenseReluDense.{part}"), vec![24, 16]));
            add(format!("{feed}.DenseReluDense.wo"), vec![16, 24]);
            add(format!("{feed}.layer_norm"), vec![16]);
            if i == 0 {
                add("0.SelfAttention.relative_attention_bias".into(), vec![8, 2]);
            }
        }
        tensors.push((format!("{stack}.final_layer_norm.weight"), vec![16]));
    }
    if gated {
        tensors.push(("lm_head.weight".into(), vec![40, 16]));
    }
    let layout = Layout::new(tensors.iter().map(|(n, s)| (n.clone(), Dtype::F32, s.clone())), 1 << 30).unwrap();
    let mut writer = FolderWriter::create(&dir, layout).unwrap();
    for (name, shape) in &tensors {
        let mut stream = Seed(11).stream(name);
        match shape[..] {
            [n] => writer.write(name, &Array1::from_shape_simple_fn(n, || 1.0 + 0.2 * stream.normal())).unwrap(),
            [r, c] => writer.write(name, &stream.normal_array(r, c, 0.4)).unwrap(),
            _ => unreachable!(),
        }
    }
    let config = json!({
        "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 3, "vocab_size": 40,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": if gated { "gated-gelu" } else { "relu" }, "tie_word_embeddings": !gated, "decoder_start_token_id": 0,
        "pad_token_id": 0, "eos_token_id": 1,
    });
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    dir
}

fn load(dir: &Path) -> Seq2Seq {
    let (folder, config) = open(dir);
    Seq2Seq::load(&folder, config).unwrap()
}

fn plan<'a>(dir: &Path, pruner: &'a dyn Pruner, allocation: &dyn Allocate) -> LanguagePruning<'a> {
    let (folder, config) = open(dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    LanguagePruning {
        pruner,
        pattern: Pattern::Unstructured,
        scope: Scope::Layer,
        budgets: allocated(&folder, &config, &layers, Pattern::Unstructured, 0.5, (allocation, None)).unwrap(),
        inputs: CalibrationInputs::Pruned,
        sequential: Sequential::Layer,
        correction: None,
        reconstruction: None,
        generalisation: Default::default(),
        gradients: None,
        memory: memory(1 << 20),
    }
}

#[test]
fn criteria_of_weights_prune_both_stacks_and_the_folder_gives_the_logits_of_the_masked_model() {
    let root = tempfile::tempdir().unwrap();
    let (magnitude, random) = (Magnitude::default(), Random { seed: Seed(4) });
    let allocations: [&dyn Allocate; 5] = [&Uniform, &Er, &Erk, &Lamp, &Global];
    for gated in [false, true] {
        let dir = t5(root.path(), gated);
        let before = load(&dir).forward(&IDS, &IDS[..4]).unwrap();
        for (i, saliency) in [&magnitude as &dyn Saliency, &random].into_iter().enumerate() {
            for (j, allocation) in allocations.into_iter().enumerate() {
                let (out, pruner) = (root.path().join(format!("{gated}{i}{j}")), Scored(saliency));
                let settings = plan(&dir, &pruner, allocation);
                let nothing = Sequences::nothing();
                let records = begin(&dir, &out, &nothing, &settings, &json!({}), false, &mut go_on).unwrap().finish().unwrap();
                // Attention 4 a block, once more in the decoder; 2 or 3 feed-forward layers.
                assert_eq!(records.len(), 5 * 4 + 3 * 4 + 5 * if gated { 3 } else { 2 });
                let masks = open(&out).0;
                let mut masked = load(&dir);
                let names: Vec<String> = masked.linears().iter().map(|l| l.name().to_string()).collect();
                let (mut kept, mut all) = (0, 0);
                for name in &names {
                    let mask = masks.masks().unwrap().read(&format!("{name}.weight")).unwrap().unwrap();
                    let layer = masked.linear_mut(name).unwrap();
                    let weight = mask.applied(&layer.dense_weight());
                    layer.set_weight(weight).unwrap();
                    (kept, all) = (kept + mask.kept(), all + mask.len());
                }
                assert_eq!(2 * kept, all, "{} by {}", saliency.name(), allocation.name());
                let after = load(&out).forward(&IDS, &IDS[..4]).unwrap();
                assert_eq!(after, masked.forward(&IDS, &IDS[..4]).unwrap(), "{} by {}", saliency.name(), allocation.name());
                assert_ne!(after, before);
            }
        }
    }
}

#[test]
fn whatever_measures_is_refused_at_once_and_says_what_works() {
    let root = tempfile::tempdir().unwrap();
    let dir = t5(root.path(), false);
    let (folder, config) = open(&dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let decoder_alone = language_layers(&folder, &config, &[], &["EncDec".into()]).unwrap();
    let (calibration, content) = (sequences(&[3; 24]), files(&dir));
    let line = check_measurable(&config).unwrap_err().to_string();
    assert!(line.contains("encoder-decoder") && line.contains("magnitude") && line.contains("uniform"), "{line}");
    let refused = |result: Option<String>, what: &str| assert_eq!(result.as_deref(), Some(&*line), "{what}");

    let (magnitude, ria, taylor) = (Magnitude::default(), Ria::default(), Taylor);
    let (magnitude, wanda, ria, taylor, fisher) =
        (Scored(&magnitude), Scored(&Wanda), Scored(&ria), Scored(&taylor), Scored(&Fisher));
    let (sparse, alps, obc, dsnot) = (SparseGpt::default(), Alps::default(), ExactObs::default(), DsNoT::new(&wanda));
    let solved = Reconstructed::new(&magnitude, Reconstruct::default());
    let all: [&dyn Pruner; 7] = [&wanda, &ria, &sparse, &alps, &obc, &dsnot, &solved];
    for pruner in all {
        for (inputs, turn) in [
            (CalibrationInputs::Pruned, Sequential::Layer),
            (CalibrationInputs::Pruned, Sequential::Block),
            (CalibrationInputs::Dense, Sequential::Block),
        ] {
            for skip in [false, true] {
                let mut settings = plan(&dir, pruner, &Uniform);
                (settings.inputs, settings.sequential) = (inputs, turn);
                if skip {
                    settings.budgets.retain(|name, _| decoder_alone.iter().any(|l| l.name == *name));
                }
                let out = root.path().join("never");
                let mut see = |_| panic!("nothing is done");
                let done = begin(&dir, &out, &calibration, &settings, &json!({}), false, &mut see);
                refused(done.err().map(|e| e.to_string()), pruner.name());
            }
        }
    }
    let mut corrected = plan(&dir, &magnitude, &Uniform);
    corrected.correction = Some(Correction { inputs: 1.0, hidden_states: 0.0, damping: 0.01 });
    let out = root.path().join("never");
    let done = begin(&dir, &out, &calibration, &corrected, &json!({}), false, &mut go_on);
    refused(done.err().map(|e| e.to_string()), "correction");

    let found = outliers(&folder, &config, &calibration, &layers, 5.0, &memory(0), on);
    refused(found.err().map(|e| e.to_string()), "outliers");
    let plain = LevelSettings::new(&sparse, Pattern::Unstructured, Scope::Layer, None, memory(1 << 20));
    let settings = LevelSettings { sparsities: &[0.5], ..plain };
    let levels = Levels::build(&folder, &config, &calibration, &layers, &settings, |_, _| panic!("nothing is done"));
    refused(levels.err().map(|e| e.to_string()), "levels");
    let gradients: [&dyn Pruner; 3] = [&taylor, &fisher, &WoodFisher { damping: 1e-5, block: 8 }];
    for pruner in gradients {
        let needs: Needs = pruner.needs();
        let found = SequenceGradients::measure(&folder, &config, &calibration, &layers, needs, &memory(0), |_, _| {
            panic!("nothing is done")
        });
        refused(found.err().map(|e| e.to_string()), pruner.name());
    }
    assert!(files(&dir) == content && std::fs::read_dir(root.path()).unwrap().count() == 1, "nothing was written");
}
