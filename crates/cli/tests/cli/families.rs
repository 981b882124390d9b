//! Mixtures of experts, sentence encoders and named tasks by the command.

use crate::common::Folder;
use crate::language::tiny;
use serde_json::json;
use std::fs;

/// A folder with the model `NAME` of random weights after a config.
fn drawn(name: &str, config: &serde_json::Value, words: bool) -> Folder {
    let folder = Folder::new();
    fs::write(folder.path("config.json"), config.to_string()).unwrap();
    fs::write(folder.path("words.txt"), "the cat and the dog\n".repeat(9)).unwrap();
    let mut args = vec!["init", "config.json", name, "--seed", "3"];
    if words {
        args.extend(["--tokenizer-text", "words.txt"]);
    }
    folder.succeeds(&args);
    folder
}

fn olmoe() -> serde_json::Value {
    json!({
        "model_type": "olmoe", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 32, "eos_token_id": 0,
    })
}

#[test]
fn experts_leave_a_mixture_and_what_cannot_be_is_one_line() {
    let folder = drawn("moe", &olmoe(), false);
    let fewer = ["shrink", "moe", "fewer", "--experts", "3", "--experts-by", "random", "--json"];
    // Progress goes to standard error.
    let output = folder.run(&fewer);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["experts"], &report["active"]), (&json!([4, 3]), &json!([2, 2])));
    let config: serde_json::Value = serde_json::from_slice(&fs::read(folder.path("fewer/config.json")).unwrap()).unwrap();
    assert_eq!((&config["num_experts"], &config["num_experts_per_tok"]), (&json!(3), &json!(2)));
    for (args, says) in [
        (&["--experts", "5", "--experts-by", "random"][..], "experts: 5 of 4 cannot stay"),
        (&["--experts", "0"], "experts: 0 is not at least 1"),
        (&["--experts", "3", "--experts-by", "random", "--active-experts", "4"], "cannot meet 4 of 3"),
        (&["--experts", "3"], "calibration: is missing"),
        (&["--experts", "3", "--experts-by", "random", "--heads", "1"], "heads: cannot be used with --experts"),
        (&["--experts", "3", "--experts-by", "random", "--per-layer"], "cannot be used with"),
        (&["--experts", "4"], "calibration: is missing"),
        (&["--active-experts", "2"], "nothing goes: there are 4, of which a token meets 2"),
        (&["--experts", "3", "--experts-by", "reep"], "reap"),
        (&["--experts-by", "use"], "--experts"),
    ] {
        let line = folder.run(&[&["shrink", "moe", "out"][..], args].concat());
        let text = String::from_utf8(line.stderr).unwrap();
        assert!(line.status.code() == Some(2) && text.contains(says), "{args:?}: {text}");
        assert!(!folder.path("out").exists(), "{args:?}");
    }
    let dense = tiny();
    let line = dense.refuses(&["shrink", "tiny", "out", "--experts", "2", "--experts-by", "random"]);
    assert!(line.contains("has none"), "{line}");
}

#[test]
fn experts_leave_by_options_by_a_recipe_and_in_a_pipeline_to_the_same_bytes_and_a_record_says_so() {
    let mut config = olmoe();
    config["vocab_size"] = json!(300);
    let folder = drawn("moe", &config, true);
    fs::write(folder.path("long.txt"), "a cat, then the dog; ".repeat(60)).unwrap();
    let typed = ["--experts", "3", "--active-experts", "1", "--experts-by", "use", "--calibration", "long.txt"];
    let sizes = ["--samples", "2", "--context", "16"];
    folder.succeeds(&[&["shrink", "moe", "typed"][..], &typed, &sizes].concat());
    let recipe = folder.run(&[&["shrink", "--print-recipe"][..], &typed, &sizes].concat());
    assert_eq!(recipe.status.code(), Some(0));
    let recipe = String::from_utf8(recipe.stdout).unwrap();
    for line in ["experts = 3", "active-experts = 1", "experts-by = \"use\""] {
        assert!(recipe.lines().any(|l| l == line), "{recipe}");
    }
    fs::write(folder.path("recipe.toml"), &recipe).unwrap();
    folder.succeeds(&["shrink", "--recipe", "recipe.toml", "moe", "by-recipe"]);
    let stages = "model = 'moe'\nout = 'run'\n[[stage]]\njob = 'shrink'\nexperts = 3\nactive-experts = 1\nexperts-by = 'use'\n\
                  calibration = 'long.txt'\nsamples = 2\ncontext = 16\n[[stage]]\nprune = { method = 'magnitude', sparsity = 0.5 }\n";
    fs::write(folder.path("run.toml"), stages).unwrap();
    // Each stage is said on standard error.
    assert_eq!(folder.run(&["run", "run.toml"]).status.code(), Some(0));
    let weights = |path: &str| fs::read(folder.path(path).join("model.safetensors")).unwrap();
    assert!(weights("typed") == weights("by-recipe") && weights("typed") == weights("run/1-shrink"));
    let config: serde_json::Value = serde_json::from_slice(&fs::read(folder.path("typed/config.json")).unwrap()).unwrap();
    assert_eq!((&config["num_experts"], &config["num_experts_per_tok"]), (&json!(3), &json!(1)));
    let record: serde_json::Value = serde_json::from_slice(&fs::read(folder.path("typed/shrink.json")).unwrap()).unwrap();
    assert_eq!((&record["experts"], &record["active"]), (&json!([4, 3]), &json!([2, 1])));
    assert_eq!(record["job"]["experts-by"], "use");
    for block in record["blocks"].as_array().unwrap() {
        // Each of 32 tokens meets two experts.
        let tokens: Vec<u64> = block["tokens"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!((tokens.len(), tokens.iter().sum::<u64>()), (4, 64));
        assert_eq!(block["kept"].as_array().unwrap().len(), 3);
    }
    let page = fs::read_to_string(folder.path("typed/shrink.html")).unwrap();
    assert!(page.contains("Experts") && page.contains("--experts-by"), "{page}");
    // A finished run is known again, and one that was asked for something else is told from it.
    let again = folder.run(&[&["shrink", "moe", "typed", "--resume"][..], &typed, &sizes].concat());
    assert!(String::from_utf8(again.stdout).unwrap().contains("nothing was done"));
    let mut other = typed;
    other[1] = "2";
    let line = folder.refuses(&[&["shrink", "moe", "typed", "--resume"][..], &other, &sizes].concat());
    assert!(line.contains("--experts: the finished run typed has 3, this one 2"), "{line}");
}

#[test]
fn an_encoder_makes_vectors_and_nothing_is_written_beside_one_that_does_not_fit() {
    let config = json!({
        "model_type": "bert", "vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 32, "type_vocab_size": 2,
    });
    let folder = drawn("encoder", &config, true);
    let made =
        folder.json(&["embed", "encoder", "--text", "words.txt", "--against", "encoder", "--out", "v.safetensors", "--json"]);
    assert_eq!((&made["sentences"], &made["hidden"]), (&json!(9), &json!(16)));
    assert!((made["least_cosine"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{made}");
    assert_eq!(folder.read("v.safetensors").get("embeddings").unwrap().shape(), [9, 16]);
    fs::write(folder.path("empty.txt"), "\n \n").unwrap();
    assert!(folder.refuses(&["embed", "encoder", "--text", "empty.txt"]).contains("has no line with a sentence"));
    assert!(
        folder
            .refuses(&["embed", "encoder", "--text", "words.txt", "--against", "none", "--out", "w.safetensors"])
            .contains("none")
    );
    assert!(!folder.path("w.safetensors").exists());
    let dense = tiny();
    assert!(dense.refuses(&["embed", "tiny", "--text", "text.txt"]).contains("embed makes vectors by encoders"));
    assert!(folder.refuses(&["eval", "encoder", "--text", "words.txt"]).contains("eval measures decoders"));
}

#[test]
fn tasks_are_read_by_their_names_from_the_folder_of_data() {
    let mut config = olmoe();
    config["vocab_size"] = json!(300);
    let folder = drawn("moe", &config, true);
    fs::create_dir_all(folder.path("data/tasks")).unwrap();
    let items = [
        json!({"goal": "the cat", "sol1": "and the dog", "sol2": "dog", "label": 0}),
        json!({"goal": "the dog", "sol1": "and the cat", "sol2": "cat", "label": 1}),
    ];
    fs::write(folder.path("data/tasks/piqa.jsonl"), items.map(|i| i.to_string()).join("\n")).unwrap();
    fs::write(folder.path("data/tasks/boolq.jsonl"), "{\"passage\": \"the cat\"}\n").unwrap();
    let run = |names: &str| {
        let mut command = folder.command(&["eval", "moe", "--tasks", names, "--json"]);
        command.env("LACUNA_DATA", folder.path("data")).output().unwrap()
    };
    let output = run("piqa");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let score = &report["tasks"][0];
    assert_eq!((&score["task"], &score["items"]), (&json!("piqa"), &json!(2)), "{report}");
    assert!([0.0, 0.5, 1.0].contains(&score["accuracy"].as_f64().unwrap()), "{report}");
    for (names, says) in [
        ("piqqa", "no task is named 'piqqa' among 8; did you mean 'piqa'?"),
        ("boolq", "boolq.jsonl"),
        ("winogrande", "winogrande.jsonl"),
    ] {
        let output = run(names);
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && line.lines().count() == 1 && line.contains(says), "{names}: {line}");
    }
}
