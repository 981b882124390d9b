//! `lacuna shrink --scores` and budgets: what a file of scores gives is what the run gave that wrote it, and what a budget leaves is within it.

use crate::common::Folder;
use crate::prune_language::{CALIBRATION, folder};
use crate::shrink::{content, json};
use lacuna::io::{Dtype, FolderWriter, Layout};
use lacuna::prune::UnitScores;
use lacuna::rng::Seed;
use lacuna::structure::UnitKind;
use ndarray::Array1;
use std::fs;

#[test]
fn a_cut_from_scores_is_that_of_the_run_that_wrote_them() {
    let folder = folder();
    let sizes = ["--intermediate", "8", "--heads", "1", "--layers", "1"];
    for method in ["obs", "minitron", "flap", "taylor", "magnitude", "random"] {
        let (plain, wrote, read) = (format!("{method}-plain"), format!("{method}-wrote"), format!("{method}-read"));
        let file = format!("{method}.safetensors");
        let scores = ["--method", method, "--scores", &file];
        folder.succeeds(&[&["shrink", "lm", &plain, "--method", method][..], &sizes, &CALIBRATION].concat());
        folder.succeeds(&[&["shrink", "lm", &wrote][..], &sizes, &scores, &CALIBRATION].concat());
        assert!(content(&folder, &plain) == content(&folder, &wrote), "{method}: scores changed the run");
        let written = fs::read(folder.path(&file)).unwrap();
        // Where no weight moves scores are enough.
        let measured = if ["obs", "flap"].contains(&method) { &CALIBRATION[..] } else { &[] };
        folder.succeeds(&[&["shrink", "lm", &read][..], &sizes, &scores, measured].concat());
        assert!(content(&folder, &plain) == content(&folder, &read), "{method}: another cut from scores");
        // Other sizes of the same scores; the file stays as it is. Of a layer that went only its own score is there.
        let other = ["--method", method, "--scores", &file, "--intermediate", "5", "--layers", "1"];
        folder.succeeds(&[&["shrink", "lm", &format!("{method}-other")][..], &other, measured].concat());
        assert!(fs::read(folder.path(&file)).unwrap() == written, "{method}");
        let found = UnitScores::read(&folder.path(&file)).unwrap();
        assert_eq!(found.said("method"), Some(method));
        assert!(found.find(UnitKind::Layer, None, "layers", 2).is_ok(), "{method}");
    }
    // Units of which none went are scored too.
    folder.succeeds(
        &[&["shrink", "lm", "one", "--method", "minitron", "--intermediate", "8", "--scores", "all"][..], &CALIBRATION].concat(),
    );
    folder.succeeds(&["shrink", "lm", "two", "--method", "minitron", "--heads", "1", "--scores", "all"]);
    folder.succeeds(&[&["shrink", "lm", "three", "--method", "minitron", "--heads", "1"][..], &CALIBRATION].concat());
    // Attention of the first block sees the same in all runs.
    let kept = |out: &str| json(&folder, out, "shrink.json")["units"][0]["kept"].clone();
    assert_eq!(kept("two"), kept("three"));
}

#[test]
fn scores_of_another_model_method_or_calibration_are_refused() {
    let folder = folder();
    let run = ["--method", "minitron", "--intermediate", "8", "--scores", "s"];
    folder.succeeds(&[&["shrink", "lm", "out"][..], &run, &CALIBRATION].concat());
    let line = |args: &[&str]| folder.refuses(&[&["shrink"], args].concat());
    let said = line(&["out", "no", "--method", "minitron", "--intermediate", "5", "--scores", "s"]);
    assert!(said.starts_with("scores: s is of another model: "), "{said}");
    let said = line(&["lm", "no", "--method", "magnitude", "--intermediate", "5", "--scores", "s"]);
    assert_eq!(said, "scores: s is of another method: minitron there, magnitude here; name another file");
    let said = line(&["lm", "no", "--method", "minitron", "--aggregate", "l2,l2", "--intermediate", "5", "--scores", "s"]);
    assert!(said.starts_with("scores: s is of another aggregate: mean,l2 there"), "{said}");
    let other = ["--calibration", "ids.safetensors", "--samples", "20", "--context", "8"];
    let said = line(&[&["lm", "no"][..], &run, &other].concat());
    assert!(said.starts_with("scores: s is of another calibration: "), "{said}");
    let said = line(&["lm", "no", "--method", "minitron", "--layers", "1", "--scores", "s"]);
    assert!(said.starts_with("s: has no scores of layers (layer/all/layers), but of feed-forward, head"), "{said}");
    let said = line(&["lm", "no", "--method", "magnitude", "--intermediate", "5", "--scores", "ids.safetensors"]);
    assert!(said.starts_with("ids.safetensors: holds no scores of units"), "{said}");
    let said = line(&["lm", "no", "--method", "magnitude", "--intermediate", "5", "--scores", "nowhere/s"]);
    assert!(said.starts_with("scores: nowhere/s cannot be written"), "{said}");
    let said = line(&["lm", "no", "--method", "flap", "--aggregate", "l2,l2", "--intermediate", "5"]);
    assert!(said.starts_with("aggregate: is for --method minitron"), "{said}");
    // A run that is finished is left as it is, whoever wrote the file.
    let again = folder.json(&[&["shrink", "lm", "out", "--resume", "--json"][..], &run, &CALIBRATION].concat());
    assert_eq!(again["already_finished"], true);
}

#[test]
fn budgets_of_operations_bytes_and_time_are_met_and_say_what_each_candidate_costs() {
    let folder = folder();
    // Of which a token takes longer than a clock's tick, most of it in feed-forward layers.
    let wide = serde_json::json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 8192, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 30, "max_position_embeddings": 64, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    });
    fs::write(folder.path("config.json"), wide.to_string()).unwrap();
    folder.run(&["init", "config.json", "wide", "--seed", "1"]);
    for (budget, after) in [("--flops", "flops"), ("--bytes", "bytes"), ("--milliseconds", "")] {
        let (out, model, round) =
            (&budget[2..], if after.is_empty() { "wide" } else { "lm" }, if after.is_empty() { "512" } else { "1" });
        let run = ["shrink", model, out, budget, "0.9", "--round", round, "--method", "magnitude", "--json"];
        let run = [&run[..], &CALIBRATION].concat();
        // Times are measured beside other tests, and may come out so that no size is said to be faster.
        let unlucky = || after.is_empty() && String::from_utf8_lossy(&folder.run(&run).stderr).contains("cannot be met");
        if (0..4).all(|_| unlucky()) {
            panic!("no size is faster, four times");
        }
        let resumed = [&run[..], &["--resume"][..if after.is_empty() { 1 } else { 0 }]].concat();
        let said = folder.json(&resumed);
        let (search, whole) = (&said["search"], said["search"]["whole"].as_f64().unwrap());
        let tried = search["tried"].as_array().unwrap();
        assert!(!tried.is_empty() && tried.iter().all(|t| t["cost"].as_f64().unwrap() <= 0.9 * whole + 0.5), "{search}");
        let chosen = &tried[search["chosen"].as_u64().unwrap() as usize];
        if !after.is_empty() {
            assert_eq!(
                (&chosen["cost"].as_f64(), whole),
                (&said["after"][after].as_f64(), said["before"][after].as_f64().unwrap())
            );
        } else {
            assert!(
                search["decode"]["whole"].as_f64().unwrap() > 0.0 && said["times"]["after"].as_f64().unwrap() > 0.0,
                "{said}"
            );
        }
    }
    let line = |args: &[&str]| folder.refuses(&[&["shrink", "lm", "no"][..], args, &CALIBRATION].concat());
    for (args, said) in [
        (&["--flops", "0.5", "--bytes", "0.5"][..], "bytes: and --flops both are budgets: give one"),
        (&["--flops", "0.5", "--heads", "1"], "flops: finds the sizes that stay"),
        (&["--bytes", "0.1"], "bytes: "),
        (&["--bytes", "1G"], "bytes: 1000000000 leaves all "),
        (&["--milliseconds", "0"], "invalid value '0' for '--milliseconds <X>'"),
    ] {
        let found = line(args);
        assert!(found.starts_with(said), "{args:?}: {found}");
    }
    assert!(line(&["--bytes", "0.1"]).contains("the nearest possible value"));
    // A budget spread over blocks, and padded to a plain model.
    let run = ["shrink", "lm", "padded", "--bytes", "0.9", "--per-layer", "--round", "2", "--pad"];
    folder.succeeds(&[&run[..], &CALIBRATION].concat());
    assert!(json(&folder, "padded", "config.json").get("layer_widths").is_none());
    folder.succeeds(&["eval", "padded", "--text", "ids.safetensors", "--context", "8"]);
}

/// A T5 v1.1 of two blocks and one in the folder `t5`.
fn t5(folder: &Folder, config: &serde_json::Value) {
    let (vocab, hidden, heads, features) = (30, 8, 8, 12);
    let mut tensors = vec![("shared.weight".to_string(), vec![vocab, hidden]), ("lm_head.weight".into(), vec![vocab, hidden])];
    for (stack, blocks, attentions) in
        [("encoder", 2, &["SelfAttention"][..]), ("decoder", 1, &["SelfAttention", "EncDecAttention"])]
    {
        tensors.push((format!("{stack}.final_layer_norm.weight"), vec![hidden]));
        for block in 0..blocks {
            let mut put = |layer: usize, name: &str, shape: &[usize]| {
                tensors.push((format!("{stack}.block.{block}.layer.{layer}.{name}.weight"), shape.to_vec()));
            };
            for (layer, attention) in attentions.iter().enumerate() {
                ["q", "k", "v"].iter().for_each(|part| put(layer, &format!("{attention}.{part}"), &[heads, hidden]));
                put(layer, &format!("{attention}.o"), &[hidden, heads]);
                put(layer, "layer_norm", &[hidden]);
            }
            if block == 0 {
                put(0, "SelfAttention.relative_attention_bias", &[32, 2]);
            }
            let feed = attentions.len();
            ["wi_0", "wi_1"].iter().for_each(|part| put(feed, &format!("DenseReluDense.{part}"), &[features, hidden]));
            put(feed, "DenseReluDense.wo", &[hidden, features]);
            put(feed, "layer_norm", &[hidden]);
        }
    }
    let layout = Layout::new(tensors.iter().map(|(name, shape)| (name.clone(), Dtype::F32, shape.clone())), 1 << 30).unwrap();
    let mut writer = FolderWriter::create(folder.path("t5"), layout).unwrap();
    for (name, shape) in &tensors {
        match shape[..] {
            [r, c] => writer.write(name, &Seed(9).stream(name).normal_array(r, c, 0.5)).unwrap(),
            _ => writer.write(name, &Array1::<f32>::ones(shape[0])).unwrap(),
        }
    }
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
}

#[test]
fn an_encoder_decoder_is_cut_by_its_weights_in_both_stacks() {
    let folder = folder();
    let config = serde_json::json!({
        "model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2, "vocab_size": 30,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
    });
    t5(&folder, &config);
    let run = ["--method", "magnitude", "--heads", "1", "--intermediate", "8", "--scores", "s"];
    folder.succeeds(&[&["shrink", "t5", "small"][..], &run].concat());
    let now = json(&folder, "small", "config.json");
    assert_eq!((&now["num_heads"], &now["d_ff"], &now["d_kv"]), (&1.into(), &8.into(), &4.into()));
    folder.succeeds(&[&["shrink", "t5", "again"][..], &run].concat());
    assert!(content(&folder, "small") == content(&folder, "again"));
    let file = folder.read("small/model.safetensors");
    for (tensor, shape) in [
        ("encoder.block.1.layer.0.SelfAttention.o.weight", (8, 4)),
        ("decoder.block.0.layer.1.EncDecAttention.q.weight", (4, 8)),
        ("decoder.block.0.layer.2.DenseReluDense.wo.weight", (8, 8)),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 1)),
    ] {
        assert_eq!(file.matrix(tensor).unwrap().dim(), shape, "{tensor}");
    }
    let line = folder.refuses(&[&["shrink", "t5", "no", "--heads", "1"][..], &CALIBRATION].concat());
    assert!(
        line.starts_with("t5: is an encoder-decoder, whose layers' inputs are not measured: --method magnitude and random"),
        "{line}"
    );
    let line = folder.refuses(&["shrink", "t5", "no", "--drop", "mlp:0"]);
    assert_eq!(line, "drop: mlp:0 stays: an encoder-decoder has none that can go");
    let line = folder.refuses(&["shrink", "t5", "no", "--method", "magnitude", "--heads", "3"]);
    assert_eq!(line, "heads: 3 of 2 cannot stay; the nearest possible value is 2");
}

#[test]
fn sub_layers_go_by_name_and_by_score_and_what_cannot_go_is_one_line() {
    let folder = folder();
    folder.notes(&["shrink", "lm", "dropped", "--drop", "attention:1,mlp:0"], "--pad fills them up");
    let widths = &json(&folder, "dropped", "config.json")["layer_widths"];
    assert_eq!((&widths[0]["intermediate"], &widths[1]["heads"], &widths[0]["heads"]), (&0.into(), &0.into(), &2.into()));
    folder.succeeds(&["shrink", "lm", "padded", "--drop", "attention:1,mlp:0", "--pad"]);
    assert!(folder.path("padded/masks.safetensors").is_file());
    let nll = |model: &str| {
        folder.json(&["eval", model, "--text", "ids.safetensors", "--context", "8", "--json"])["nll"].as_f64().unwrap()
    };
    assert!((nll("dropped") - nll("padded")).abs() < 1e-6, "{} and {}", nll("dropped"), nll("padded"));
    let scored = ["shrink", "lm", "scored", "--sublayers", "1", "--depth-by", "error", "--intermediate", "8"];
    folder.notes(&[&scored[..], &CALIBRATION].concat(), "--pad fills them up");
    assert_eq!(json(&folder, "scored", "shrink.json")["sublayers"]["gone"].as_array().unwrap().len(), 1);
    folder.succeeds(&["inspect", "dropped"]);
    let random = ["--method", "random"];
    let line = |model: &str, args: &[&str]| folder.refuses(&[&["shrink", model, "no"][..], args, &random].concat());
    for (model, args, said) in [
        ("lm", &["--drop", "attention:2"][..], "drop: attention:2 is of no block: the model has 2, the last is 1"),
        ("lm", &["--drop", "mlp:0,mlp:0"], "drop: names mlp:0 twice"),
        ("lm", &["--drop", "ffn:0"], "invalid value 'ffn:0' for '--drop <LIST>'"),
        ("lm", &["--sublayers", "0"], "sublayers: 0 is not at least 1"),
        ("lm", &["--sublayers", "1"], "calibration: layers, sub-layers and hidden features are chosen by activations"),
        ("lm", &["--sublayers", "1", "--drop", "mlp:0"], "sublayers: are found by their scores, and --drop names them"),
        ("lm", &["--parameters", "0.9", "--drop", "mlp:0"], "parameters: finds the sizes that stay"),
        ("lm", &["--pad"], "pad: all blocks have one width already"),
        ("dropped", &["--drop", "mlp:0"], "drop: mlp:0 is not there any more"),
        ("dropped", &["--intermediate", "13"], "intermediate: 13 of 12 cannot stay; the nearest possible value is 12"),
        ("padded", &["--intermediate", "8"], "padded: its weights have masks, which are not cut"),
    ] {
        let found = line(model, args);
        assert!(found.starts_with(said), "{args:?}: {found}");
    }
    let found = folder.refuses(&[&["shrink", "lm", "no", "--sublayers", "4"][..], &CALIBRATION].concat());
    assert_eq!(found, "sublayers: 4 of 4 in 2 layers cannot go; the nearest possible value is 3");
    let found = folder.refuses(&[&["shrink", "dropped", "no", "--parameters", "0.9"][..], &CALIBRATION].concat());
    assert!(found.contains("has other widths than block 0; give the sizes that stay"), "{found}");
    // What is cut may be cut again, without its missing halves in the way.
    folder.notes(&["shrink", "dropped", "again", "--intermediate", "6", "--method", "magnitude"], "--pad fills them up");
    // By the loss too, whose metric a half that is not there has not.
    let by_loss = ["shrink", "dropped", "by-loss", "--intermediate", "6"];
    folder.notes(&[&by_loss[..], &CALIBRATION].concat(), "--pad fills them up");
    assert_eq!(json(&folder, "again", "config.json")["layer_widths"][1]["intermediate"], 6);
}
