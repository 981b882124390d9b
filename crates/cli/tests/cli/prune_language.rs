//! `lacuna prune` on a model's folder.

use crate::common::Folder;
use lacuna::io::{self, Dtype, FolderWriter, Layout, read_ids};
use lacuna::lm::{Config, LanguageModel};
use lacuna::mask::{Budget, Pattern, Scope, select};
use lacuna::rng::Seed;
use ndarray::{Array1, Array2};
use std::path::Path;
use std::process::Stdio;

/// A Llama of two blocks, and 40 sequences of 8 tokens in `ids.safetensors`.
pub fn folder() -> Folder {
    let folder = Folder::new();
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![30, 8]), ("model.norm.weight".to_string(), vec![8])];
    for i in 0..2 {
        for (name, shape) in [
            ("input_layernorm", vec![8]),
            ("post_attention_layernorm", vec![8]),
            ("self_attn.q_proj", vec![8, 8]),
            ("self_attn.k_proj", vec![8, 8]),
            ("self_attn.v_proj", vec![8, 8]),
            ("self_attn.o_proj", vec![8, 8]),
            ("mlp.gate_proj", vec![12, 8]),
            ("mlp.up_proj", vec![12, 8]),
            ("mlp.down_proj", vec![8, 12]),
        ] {
            tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    let layout = Layout::new(tensors.iter().map(|(n, s)| (n.clone(), Dtype::F32, s.clone())), 1 << 30).unwrap();
    let mut writer = FolderWriter::create(folder.path("lm"), layout).unwrap();
    for (name, shape) in &tensors {
        let mut stream = Seed(9).stream(name);
        match shape[..] {
            [r, c] => writer.write(name, &stream.normal_array(r, c, 0.5)).unwrap(),
            _ => writer.write(name, &Array1::<f32>::ones(shape[0])).unwrap(),
        }
    }
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 30, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "max_position_embeddings": 16, "hidden_act": "silu",
    });
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    let mut stream = Seed(9).stream("ids");
    let ids: Vec<u8> = (0..320).flat_map(|_| (stream.below(30) as i64).to_le_bytes()).collect();
    let header = format!(r#"{{"input_ids":{{"dtype":"I64","shape":[320],"data_offsets":[0,{}]}}}}"#, ids.len());
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &ids].concat();
    std::fs::write(folder.path("ids.safetensors"), file).unwrap();
    folder
}

pub const CALIBRATION: [&str; 6] = ["--calibration", "ids.safetensors", "--samples", "40", "--context", "8"];

fn masks(dir: &Path) -> Vec<(String, lacuna::mask::Mask)> {
    let folder = io::Folder::open(dir).unwrap();
    let masks = folder.masks().unwrap();
    masks.names().map(|n| (n.to_string(), masks.read(n).unwrap().unwrap())).collect()
}

#[test]
fn every_method_writes_a_folder_with_masks_and_says_what_it_did() {
    let folder = folder();
    for method in ["magnitude", "random", "wanda", "ria", "sparsegpt", "d2prune", "obc", "alps", "dsnot"] {
        for (name, target) in [("a", ["--sparsity", "0.5"]), ("b", ["--pattern", "2:4"])] {
            let out = format!("{method}-{name}");
            let said = folder.json(&[&["prune", "lm", &out, "--method", method, "--json"], &target[..], &CALIBRATION].concat());
            assert_eq!(said["sparsity"], 0.5, "{method}");
            assert_eq!(said["layers"].as_array().unwrap().len(), 14, "{method}");
            assert_eq!((said["weights"].as_u64(), said["kept"].as_u64()), (Some(1088), Some(544)), "{method}");
            assert!(said["seconds"].as_f64().unwrap() > 0.0 && said["whole_sparsity"].as_f64().unwrap() < 0.5);
            for (_, mask) in masks(&folder.path(&out)) {
                assert_eq!(2 * mask.kept(), mask.len());
                if name == "b" {
                    Pattern::Nm { n: 2, m: 4 }.check(&mask).unwrap();
                }
            }
            let record: serde_json::Value =
                serde_json::from_slice(&std::fs::read(folder.path(&out).join("prune.json")).unwrap()).unwrap();
            assert_eq!(record, said, "the record in the folder is what was said");
        }
    }
}

#[test]
fn options_reach_the_pruner() {
    let folder = folder();
    let run = |out: &str, options: &[&str]| {
        let all =
            [&["prune", "lm", out, "--method", "sparsegpt", "--sparsity", "0.5", "--json"], &CALIBRATION[..], options].concat();
        let said = folder.json(&all);
        let errors = said["layers"].as_array().unwrap().iter().map(|l| l["error"].as_f64().unwrap()).sum::<f64>();
        (said, errors)
    };
    let (_, plain) = run("plain", &[]);
    let (said, solved) = run("solved", &["--reconstruct", "50"]);
    assert_eq!(said["settings"]["method"], "sparsegpt + least squares");
    assert!(solved < plain, "{solved} and {plain}");
    assert!(run("rounded", &["--bits", "3"]).1 > plain);
    let (said, _) = run("corrected", &["--correct", "1,0.5"]);
    assert_eq!(said["settings"]["correction"]["stream"], 0.5);
    assert_eq!(run("only", &["--only", "mlp"]).0["layers"].as_array().unwrap().len(), 6);
    assert_eq!(run("dense", &["--inputs", "dense"]).0["settings"]["turn"], "block");
    for allocate in ["global", "er", "erk", "lamp", "owl"] {
        let own: &[&str] = if allocate == "owl" { &["--owl-threshold", "2"] } else { &[] };
        let kept = run(allocate, &[&["--allocate", allocate], own].concat()).0["kept"].as_u64().unwrap();
        assert_eq!(kept, 544, "{allocate}");
    }
    let printed = folder.succeeds(&[&["prune", "lm", "text", "--sparsity", "0.5"], &CALIBRATION[..]].concat());
    assert!(
        printed.contains("model.layers.1.mlp.down_proj") && printed.contains("sparsity 0.5000 of the pruned layers"),
        "{printed}"
    );
}

#[test]
fn what_cannot_be_done_is_one_line_and_leaves_nothing() {
    let folder = folder();
    let prune = |options: &[&str]| folder.refuses(&[&["prune", "lm", "out"], options].concat());
    let sparse = |options: &[&str]| prune(&[&["--method", "sparsegpt", "--sparsity", "0.5"], &CALIBRATION[..], options].concat());
    assert!(prune(&["--sparsity", "0.5", "--method", "wanda"]).starts_with("calibration: this method measures inputs"));
    let more = prune(&[
        "--sparsity",
        "0.5",
        "--method",
        "wanda",
        "--calibration",
        "ids.safetensors",
        "--samples",
        "41",
        "--context",
        "8",
    ]);
    assert!(more.contains("has 320 tokens, fewer than the 41 x 8 asked for"), "{more}");
    let long = prune(&["--sparsity", "0.5", "--method", "wanda", "--calibration", "ids.safetensors", "--context", "17"]);
    assert_eq!(long, "context: 17 tokens; this model has 16 positions");
    assert!(prune(&["--sparsity", "1", "--method", "magnitude"]).starts_with("sparsity: 1 is not in [0, 1)"));
    assert!(prune(&["--pattern", "2:5", "--method", "magnitude"]).contains("5 does not divide the 8 inputs of a row"));
    assert!(sparse(&["--only", "q_porj"]).contains("no layer is named 'q_porj' among 14"));
    assert!(sparse(&["--skip", "*"]).contains("no layer is left to prune"));
    assert!(sparse(&["--correct", "2"]).starts_with("correct: '2' is not one or two fractions"));
    assert!(sparse(&["--inputs", "dense", "--correct", "1"]).starts_with("correct: layers make up for earlier ones only"));
    assert!(sparse(&["--damping=-1"]).contains("damping: -1 is not a finite number"));
    assert!(sparse(&["--skip", "mlp", "--layer", "a=0.5"]).starts_with("layer: sparsities of single layers are for files"));
    let few = prune(&[
        "--method",
        "sparsegpt",
        "--sparsity",
        "0.5",
        "--calibration",
        "ids.safetensors",
        "--samples",
        "1",
        "--context",
        "4",
        "--damping",
        "0",
    ]);
    assert!(few.contains("model.layers.0.self_attn.q_proj") && few.contains("4 tokens, damping 0"), "{few}");
    assert!(
        prune(&["--pattern", "2:4", "--allocate", "owl", "--calibration", "ids.safetensors", "--samples", "4", "--context", "8"])
            .contains("pattern 2:4 fixes the sparsity of every layer")
    );
    let wrong = folder.refuses(&[
        "prune",
        "lm",
        "out",
        "--sparsity",
        "0.5",
        "--method",
        "alps",
        "--bits",
        "4",
        "--calibration",
        "ids.safetensors",
        "--samples",
        "4",
        "--context",
        "8",
    ]);
    assert_eq!(wrong, "bits: is for --method sparsegpt or d2prune");
    let file = folder.refuses(&["prune", "model.safetensors", "out", "--sparsity", "0.5", "--method", "wanda"]);
    assert!(file.starts_with("method: needs the inputs of the layers"), "{file}");
    let file = folder.refuses(&["prune", "model.safetensors", "out", "--sparsity", "0.5", "--resume"]);
    assert_eq!(file, "resume: is for language models: give a model's folder");
    std::fs::create_dir(folder.path("out")).unwrap();
    std::fs::write(folder.path("out").join("x"), "x").unwrap();
    let line = sparse(&[]);
    assert!(line.starts_with("out: exists already"), "{line}");
}

#[test]
fn a_pruned_folder_is_saved_packed_measured_and_run_from_its_storages() {
    let folder = folder();
    let all = [
        &["prune", "lm", "out", "--pattern", "2:4", "--method", "sparsegpt", "--json", "--text", "ids.safetensors"],
        &CALIBRATION[..],
    ];
    let whole = folder.json(&all.concat());
    let (before, after) = (&whole["perplexity"]["before"], &whole["perplexity"]["after"]);
    assert!(before.as_f64().unwrap() > 1.0 && after.as_f64().unwrap() > 1.0 && before != after);
    let page = std::fs::read_to_string(folder.path("out").join("prune.html")).unwrap();
    for part in ["<title>Pruning by sparsegpt: lm</title>", "Perplexity", "Error by block", "mlp.down_proj", "Settings"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("Sparsity by block") && page.contains("0.5000 in every layer"), "no figure of equal lines");
    for save in ["sparse-24-bitmask", "bitmask", "nm:2:4"] {
        let said = folder.json(&[&all.concat()[..2], &["packed"], &all.concat()[3..], &["--save", save]].concat());
        assert_eq!(said["perplexity"], whole["perplexity"], "{save}");
        let packed = io::Folder::open(folder.path("packed")).unwrap();
        assert_eq!(packed.packed().count(), 14, "{save}");
        let dense = io::Folder::open(folder.path("out")).unwrap();
        for name in dense.names() {
            assert_eq!(dense.read(name).unwrap(), packed.read(name).unwrap(), "{name} as {save}");
        }
        assert_eq!(folder.json(&["inspect", "packed", "--json"])["prunable"]["sparsity"], 0.5, "{save}");
        // Packed again from the whole folder it is the same, but for the record and the page.
        folder.succeeds(&["pack", "out", "again", "--save", save]);
        for file in ["model.safetensors", "config.json"] {
            let [a, b] = ["packed", "again"].map(|dir| std::fs::read(folder.path(dir).join(file)).unwrap());
            assert_eq!(a, b, "{file} as {save}");
        }
        assert!(folder.refuses(&[&["prune", "packed", "twice", "--sparsity", "0.5"], &[][..]].concat()).contains("is packed"));
        for dir in ["packed", "again"] {
            std::fs::remove_dir_all(folder.path(dir)).unwrap();
        }
    }
    let refuses = |options: &[&str]| folder.refuses(options);
    assert!(refuses(&["pack", "lm", "x", "--save", "bitmask"]).contains("has no masks"));
    assert!(refuses(&["pack", "out", "x", "--save", "zip"]).contains("'zip' is none of weights"));
    assert!(refuses(&["pack", "out", "out", "--save", "bitmask"]).contains("exists already"));
    let line = refuses(&["prune", "lm", "x", "--sparsity", "0.5", "--save", "nm:2:4"]);
    assert!(line.contains("nm:2:4 cannot hold pattern unstructured"), "{line}");
}

#[test]
fn criteria_of_gradients_prune_with_what_the_whole_models_loss_says() {
    let folder = folder();
    let run = |out: &str, method: &str, options: &[&str]| {
        let all = [&["prune", "lm", out, "--method", method, "--sparsity", "0.5", "--json"], &CALIBRATION[..], options].concat();
        let said = folder.json(&all);
        assert_eq!(said["kept"], 544, "{method}");
        said
    };
    // By hand: the mean over sequences of the gradient, from the model itself.
    let opened = io::Folder::open(folder.path("lm")).unwrap();
    let model = LanguageModel::load(&opened, Config::of(&opened).unwrap()).unwrap();
    let ids = read_ids(folder.path("ids.safetensors"), "input_ids").unwrap().unwrap();
    let ids: Vec<u32> = ids.iter().map(|&i| i as u32).collect();
    let name = "model.layers.1.mlp.down_proj.weight";
    let (mut mean, mut squares) = (Array2::<f64>::zeros((8, 12)), Array2::<f64>::zeros((8, 12)));
    for ids in ids.chunks(8) {
        model
            .backward(ids, 8, &mut |tensor, gradient| {
                if tensor == name {
                    let g: Array2<f64> = gradient.mapv(|g| f64::from(g) / 40.0).into_dimensionality().unwrap();
                    squares += &g.mapv(|g| 40.0 * g * g);
                    mean += &g;
                }
            })
            .unwrap();
    }
    let weight = opened.matrix(name, (8, 12)).unwrap().mapv(f64::from);
    let expected = |scores: Array2<f64>| {
        let scores = scores.mapv(|s| s as f32);
        select(&scores, Pattern::Unstructured, Scope::Layer, Budget::new(48, 96).unwrap()).unwrap()
    };
    let of = |out: &str| masks(&folder.path(out)).into_iter().find(|(n, _)| n == name).unwrap().1;
    run("taylor", "taylor", &[]);
    assert_eq!(of("taylor"), expected((&mean * &weight).mapv(|s| s * s)));
    run("fisher", "fisher", &[]);
    assert_eq!(of("fisher"), expected(&squares * &weight.mapv(|w| w * w)));
    let said = run("wood", "woodfisher", &["--block-size", "8", "--fisher-damping", "1e-3"]);
    assert_eq!((&said["settings"]["fisher_damping"], &said["settings"]["block_size"]), (&1e-3.into(), &8.into()));
    let moved = io::Folder::open(folder.path("wood")).unwrap().matrix(name, (8, 12)).unwrap();
    let old = opened.matrix(name, (8, 12)).unwrap();
    assert!(of("wood").iter_kept().any(|at| moved[at] != old[at]), "survivors move");
    // The blocks compete where they are ranked together.
    let said = run("global", "fisher", &["--allocate", "global"]);
    let kept: Vec<u64> = said["layers"].as_array().unwrap().iter().map(|l| l["kept"].as_u64().unwrap()).collect();
    assert!(kept.iter().any(|k| *k != 32 && *k != 48), "{kept:?}");
    // Nothing of the gradients stays behind.
    let parts = std::fs::read_dir(folder.path("lm").parent().unwrap()).unwrap().filter(|e| {
        let name = e.as_ref().unwrap().file_name().to_string_lossy().into_owned();
        name.starts_with('.')
    });
    assert_eq!(parts.count(), 0);
    let line = folder.refuses(&["prune", "lm", "x", "--method", "taylor", "--sparsity", "0.5"]);
    assert!(line.starts_with("calibration: "), "{line}");
}

#[test]
fn a_run_that_is_killed_at_any_moment_goes_on_to_the_same_bits() {
    let folder = folder();
    let options = |out: &'static str| {
        [&["prune", "lm", out, "--method", "sparsegpt", "--sparsity", "0.5", "--json"], &CALIBRATION[..]].concat()
    };
    let begun = std::time::Instant::now();
    folder.json(&options("whole"));
    let mut long = begun.elapsed();
    let files = |out: &str| {
        ["model.safetensors", "masks.safetensors", "config.json"].map(|f| std::fs::read(folder.path(out).join(f)).unwrap())
    };
    let whole = files("whole");
    let mut killed = 0;
    for moment in 1..=24 {
        for again in 0..40 {
            // The settings are there from the moment on at which there is something to take up.
            let resume = folder.path(".out.part").join(".settings.json").exists();
            let args = [options("out"), if resume { vec!["--resume"] } else { vec![] }].concat();
            let mut child = folder.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            // The later it is tried again, the longer it may run.
            std::thread::sleep(long * moment / 24 + long * again / 20);
            let over = child.try_wait().unwrap().is_some();
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            killed += u32::from(!over);
            if over && again == 0 {
                // The machine has become faster since the whole run was timed.
                long = long * 4 / 5;
            }
            let errors = String::from_utf8(output.stderr).unwrap();
            assert!(errors.is_empty(), "moment {moment}, try {again}: {errors}");
            if folder.path("out").exists() {
                break;
            }
        }
        assert!(files("out") == whole, "moment {moment}");
        assert!(!folder.path(".out.part").exists());
        std::fs::remove_dir_all(folder.path("out")).unwrap();
    }
    assert!(killed >= 12, "{killed} runs were killed");
}

#[test]
fn budgets_are_searched_for_among_levels() {
    let folder = folder();
    let run = |out: &str, options: &[&str]| {
        let sparsity = match out {
            "time" => "0",
            "bytes" => "0.1",
            _ => "0.5",
        };
        let all = [&["prune", "lm", out, "--method", "sparsegpt", "--sparsity", sparsity, "--json"], &CALIBRATION[..], options]
            .concat();
        folder.json(&all)
    };
    for (allocate, more) in
        [("dynamic", &[][..]), ("sensitivity", &["--search-tokens", "64"]), ("evolve", &["--generations", "3"])]
    {
        let said = run(allocate, &[&["--allocate", allocate, "--levels", "0.25,0.5,0.75"], more].concat());
        let search = &said["search"];
        assert_eq!((&search["unit"], &search["dense"], &search["budget"]), (&"weights".into(), &1088.into(), &544.into()));
        assert!(said["kept"].as_u64().unwrap() <= 544 && said["kept"] == search["cost"], "{said}");
        assert_eq!(
            search["levels"][3].as_array().unwrap().iter().map(|l| l["sparsity"].as_f64().unwrap()).collect::<Vec<_>>(),
            [0.0, 0.25, 0.5, 0.75]
        );
        for (i, layer) in search["layers"].as_array().unwrap().iter().enumerate() {
            let level = &search["levels"][i][search["chosen"][i].as_u64().unwrap() as usize];
            let kept = said["layers"].as_array().unwrap().iter().find(|l| l["layer"] == *layer).unwrap()["kept"].clone();
            assert_eq!(kept, level["cost"], "{layer}");
        }
        assert_eq!(
            (search["losses"].is_null(), search["divergence"].is_null()),
            (allocate != "sensitivity", allocate != "evolve")
        );
        let page = std::fs::read_to_string(folder.path(allocate).join("prune.html")).unwrap();
        assert_eq!(page.contains("Sensitivity by block"), allocate == "sensitivity");
    }
    let said = run("bytes", &["--allocate", "dynamic", "--cost", "bytes", "--levels", "0.3,0.5,0.8"]);
    assert!(said["search"]["cost"].as_u64() <= said["search"]["budget"].as_u64() && said["search"]["unit"] == "bytes");
    let said = run("time", &["--allocate", "dynamic", "--cost", "time", "--levels", "0.5"]);
    assert_eq!(said["search"]["unit"], "time");
    let refuses = |options: &[&str]| {
        let all = [&["prune", "lm", "x", "--method", "sparsegpt"], &CALIBRATION[..], options].concat();
        folder.refuses(&all)
    };
    let line = refuses(&["--sparsity", "0.5", "--allocate", "dynamic", "--levels", "0.1,0.2"]);
    assert!(line.starts_with("budget: 544 is less than the"), "{line}");
    assert!(
        refuses(&["--sparsity", "0.5", "--allocate", "evolve", "--levels", "0.5,1.5"]).contains("not sparsities between 0 and 1")
    );
    assert!(refuses(&["--pattern", "2:4", "--allocate", "dynamic"]).contains("pattern 2:4 fixes the sparsity"));
    assert!(refuses(&["--sparsity", "0.5", "--allocate", "evolve", "--search-tokens", "1"]).contains("search-tokens"));
    for (option, value) in [("levels", "0.5"), ("cost", "bytes")] {
        let line = refuses(&["--sparsity", "0.5", "--allocate", "lamp", &format!("--{option}"), value]);
        assert_eq!(line, format!("{option}: is for --allocate sensitivity, dynamic or evolve"));
        let file =
            folder.refuses(&["prune", "model.safetensors", "x.safetensors", "--sparsity", "0.5", &format!("--{option}"), value]);
        assert_eq!(file, line);
    }
}
