//! `lacuna shrink`: every method writes a plain folder of the family, recipes and records give the same bytes, and what does not fit is one line.

use crate::common::Folder;
use crate::prune_language::{CALIBRATION, folder};
use lacuna::job::{ShrinkJob, ShrinkMethod};
use serde_json::Value;
use std::fs;

/// The files of a folder but for the record.
pub fn content(folder: &Folder, out: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder.path(out)).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<(String, Vec<u8>)> =
        entries.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&p).unwrap())).collect();
    all.retain(|(name, _)| !name.starts_with("shrink."));
    assert!(folder.path(out).join("shrink.html").is_file(), "{out} has no page");
    all.sort();
    all
}

pub fn json(folder: &Folder, out: &str, file: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.path(out).join(file)).unwrap()).unwrap()
}

#[test]
fn every_method_writes_a_plain_folder_and_says_what_is_left() {
    let folder = folder();
    for method in ShrinkMethod::ALL {
        let args =
            [&["shrink", "lm", method.name(), "--method", method.name(), "--intermediate", "8", "--json"][..], &CALIBRATION]
                .concat();
        let said = folder.json(&args);
        let config = json(&folder, method.name(), "config.json");
        assert_eq!(config["intermediate_size"], 8, "{method}");
        assert!(config["head_dim"].is_u64() && config.get("layer_widths").is_none(), "{method}: {config}");
        // Two blocks lose 3 · 4 · 8 weights each.
        let lost = |key: &str| said["before"][key].as_u64().unwrap() - said["after"][key].as_u64().unwrap();
        assert_eq!((lost("parameters"), lost("blocks"), lost("bytes")), (192, 192, 4 * 192), "{method}");
        assert_eq!(said["units"].as_array().unwrap().len(), 2, "{method}");
        assert_eq!(
            (&said["units"][1]["units"], &said["units"][1]["kept"], &said["units"][1]["block"]),
            (&12.into(), &8.into(), &1.into())
        );
        let record = json(&folder, method.name(), "shrink.json");
        assert_eq!(record["units"][0]["kept"].as_array().unwrap().len(), 8, "{method}");
        // It is a model like any other, and may be made smaller again.
        let again = format!("{method} again");
        folder.succeeds(&[&["shrink", method.name(), &again, "--layers", "1"][..], &CALIBRATION].concat());
        assert_eq!(json(&folder, &again, "config.json")["num_hidden_layers"], 1);
        folder.succeeds(&["eval", &again, "--text", "ids.safetensors", "--context", "8"]);
    }
}

#[test]
fn all_settings_are_printed_with_their_defaults_and_nothing_else_happens() {
    let folder = Folder::new();
    let printed = folder.succeeds(&["shrink", "--print-recipe"]);
    assert_eq!(ShrinkJob::from_toml(&printed).unwrap(), ShrinkJob::default());
    let help = folder.succeeds(&["shrink", "--help"]);
    let options = help.lines().filter_map(|l| l.trim_start().strip_prefix("--")).map(|l| l.split([' ', '[']).next().unwrap());
    let of_a_run = ["force", "json", "resume", "recipe", "print-recipe", "help"];
    // Experts are a job of their own, which no recipe has.
    let of_experts = ["experts", "active-experts", "experts-by"];
    let mut seen = 0;
    for option in options.filter(|o| !of_a_run.contains(o) && !of_experts.contains(o)) {
        let there = printed.lines().any(|l| [format!("{option} ="), format!("# {option} =")].iter().any(|s| l.starts_with(s)));
        assert!(there, "--{option} is not in the recipe\n{printed}");
        seen += 1;
    }
    assert!(seen >= 20, "{seen} options");
}

#[test]
fn a_printed_recipe_and_a_record_give_the_bytes_of_the_typed_options() {
    let folder = folder();
    let typed =
        ["--layers", "1", "--intermediate", "6", "--method", "obs", "--rounds", "3", "--swaps", "2", "--correct", "1,0.5"];
    folder.succeeds(&[&["shrink", "lm", "typed"][..], &typed, &CALIBRATION].concat());
    let printed = folder.succeeds(&[&["shrink", "--print-recipe"][..], &typed, &CALIBRATION].concat());
    fs::write(folder.path("recipe.toml"), printed).unwrap();
    folder.succeeds(&["shrink", "--recipe", "recipe.toml", "lm", "by-recipe"]);
    folder.succeeds(&["shrink", "--recipe", "typed/shrink.json", "lm", "by-record"]);
    for out in ["by-recipe", "by-record"] {
        assert!(content(&folder, "typed") == content(&folder, out), "{out}");
    }
    // What is typed goes before what is read.
    let said = folder.json(&["shrink", "--recipe", "recipe.toml", "lm", "other", "--intermediate", "5", "--json"]);
    assert_eq!(said["job"]["intermediate"], 5);
    fs::write(folder.path("wrong.toml"), "intermediat = 3\n").unwrap();
    let line = folder.refuses(&["shrink", "--recipe", "wrong.toml", "lm", "wrong"]);
    assert!(line.contains("did you mean 'intermediate'?"), "{line}");
}

#[test]
fn a_budget_is_met_by_sizes_that_were_tried_on_held_out_tokens() {
    let folder = folder();
    let said =
        folder.json(&[&["shrink", "lm", "out", "--parameters", "0.9", "--round", "1", "--json"][..], &CALIBRATION].concat());
    let (search, blocks) = (&said["search"], |of: &str| said[of]["blocks"].as_f64().unwrap());
    let tried = search["tried"].as_array().unwrap();
    let chosen = &tried[search["chosen"].as_u64().unwrap() as usize];
    assert!(!tried.is_empty() && tried.iter().all(|t| t["loss"].as_f64() >= chosen["loss"].as_f64()), "{search}");
    // The counts are those of the folder that was made.
    assert_eq!((&chosen["parameters"], &chosen["blocks"]), (&said["after"]["parameters"], &said["after"]["blocks"]));
    assert!(blocks("after") <= 0.9 * blocks("before"), "{} of {}", blocks("after"), blocks("before"));
    assert_eq!(search["tokens"], 4 * 8);
    let line = |target: &str| folder.refuses(&[&["shrink", "lm", "no", "--parameters", target][..], &CALIBRATION].concat());
    assert!(line("0.1").starts_with("parameters: ") && line("0.1").contains("cannot be met: at most 40 % of a width"));
    assert!(line("1M").contains("leaves all"), "{}", line("1M"));
}

#[test]
fn a_sorted_folder_gives_the_same_logits_and_smaller_ones_without_a_calibration() {
    let folder = folder();
    folder.succeeds(&[&["shrink", "lm", "sorted", "--sort", "--method", "minitron"][..], &CALIBRATION].concat());
    let perplexity = |model: &str| {
        let said = folder.json(&["eval", model, "--text", "ids.safetensors", "--context", "8", "--json"]);
        said["nll"].as_f64().unwrap()
    };
    let (before, after) = (perplexity("lm"), perplexity("sorted"));
    assert!((before - after).abs() < 1e-5, "{before} and {after}");
    folder.succeeds(&["shrink", "sorted", "small", "--intermediate", "8", "--hidden", "6"]);
    let (whole, small) = (folder.read("sorted/model.safetensors"), folder.read("small/model.safetensors"));
    let name = "model.layers.1.mlp.gate_proj.weight";
    let part = whole.matrix(name).unwrap().slice(ndarray::s![..8, ..6]).to_owned();
    assert_eq!(small.matrix(name).unwrap(), part);
    let line = folder.refuses(&[&["shrink", "lm", "no", "--sort"][..], &CALIBRATION].concat());
    assert!(line.starts_with("sort: obs scores no units"), "{line}");
    let line = folder.refuses(&["shrink", "sorted", "no", "--layers", "1"]);
    assert!(line.starts_with("layers: are in no order in a sorted model"), "{line}");
}

#[test]
fn the_perplexity_before_and_after_is_that_of_eval() {
    let folder = folder();
    let text = ["--text", "ids.safetensors", "--windows", "5"];
    let said = folder.json(&[&["shrink", "lm", "out", "--intermediate", "9", "--json"][..], &text, &CALIBRATION].concat());
    for (model, key) in [("lm", "before"), ("out", "after")] {
        let eval =
            folder.json(&["eval", model, "--text", "ids.safetensors", "--windows", "5", "--context", "8", "--stream", "--json"]);
        assert_eq!(said["perplexity"][key], eval["perplexity"], "{model}");
    }
}

#[test]
fn a_finished_run_is_left_as_it_is_and_another_one_is_refused() {
    let folder = folder();
    let run = [&["shrink", "lm", "out", "--intermediate", "9", "--resume", "--json"][..], &CALIBRATION].concat();
    let (_, first) = (folder.run(&run), content(&folder, "out"));
    assert_eq!(folder.json(&run)["already_finished"], true);
    assert!(first == content(&folder, "out"));
    let other = [&["shrink", "lm", "out", "--intermediate", "8", "--resume"][..], &CALIBRATION].concat();
    let line = folder.refuses(&other);
    assert!(line.starts_with("--intermediate: the finished run out has 9, this one 8"), "{line}");
    let line = folder.refuses(&[&["shrink", "lm", "out", "--intermediate", "8"][..], &CALIBRATION].concat());
    assert!(line.contains("exists already"), "{line}");
    folder.succeeds(&[&["shrink", "lm", "out", "--intermediate", "8", "--force"][..], &CALIBRATION].concat());
    assert_eq!(json(&folder, "out", "config.json")["intermediate_size"], 8);
}

#[test]
fn what_does_not_fit_is_one_line_with_the_numbers() {
    let folder = folder();
    let line = |args: &[&str]| folder.refuses(&[&["shrink", "lm", "out"][..], args].concat());
    let random = ["--method", "random"];
    assert!(line(&random).starts_with("sizes: nothing goes: give --intermediate"));
    for (args, said) in [
        (&["--intermediate", "0"][..], "intermediate: 0 is not at least 1"),
        (&["--intermediate", "13"], "intermediate: 13 of 12 cannot stay; the nearest possible value is 12"),
        (&["--intermediate", "12"], "sizes: nothing goes: the model has 2 layers, 8 hidden features"),
        (&["--heads", "5"], "heads: 5 of"),
        (&["--correct", "1", "--intermediate", "3"], "correct: is for --method obs; random moves no weights"),
        (&["--layers", "1"], "calibration: layers, sub-layers and hidden features are chosen by activations"),
    ] {
        let line = line(&[&random[..], args].concat());
        assert!(line.starts_with(said), "{line}");
    }
    assert!(line(&["--intermediate", "3"]).starts_with("calibration: this method measures activations"));
    assert!(line(&["--intermediate", "3", "--correct", "half"]).contains("'half' is not one or two fractions"));
    folder.succeeds(&["prune", "lm", "pruned", "--sparsity", "0.5"]);
    let line = folder.refuses(&["shrink", "pruned", "out", "--method", "random", "--intermediate", "3"]);
    assert!(line.contains("its weights have masks"), "{line}");
    // A tokenizer without merges.
    let vocab: serde_json::Map<String, Value> = (0..30).map(|n| (format!("w{n}"), n.into())).collect();
    let words = serde_json::json!({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}});
    fs::write(folder.path("lm/tokenizer.json"), words.to_string()).unwrap();
    fs::write(folder.path("text.txt"), "w1 w2 w3").unwrap();
    let line = folder.refuses(&["shrink", "lm", "out", "--vocabulary", "20", "--text", "text.txt"]);
    assert!(line.starts_with("vocabulary: tokenizer.json cannot be trimmed: a model of type"), "{line}");
}

#[test]
fn a_budget_by_block_gives_widths_that_the_config_lists_and_lacuna_reads_back() {
    let folder = folder();
    let run = ["shrink", "lm", "out", "--parameters", "0.85", "--per-layer", "--round", "2", "--json"];
    let printed = folder.notes(&[&run[..], &CALIBRATION].concat(), "layer_widths, which this library alone reads: blocks differ");
    let said: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let blocks = |of: &str| said[of]["blocks"].as_f64().unwrap();
    assert!(blocks("after") <= 0.85 * blocks("before") && blocks("after") > 0.6 * blocks("before"), "{said}");
    assert!(said["spread"]["expected"].as_f64().unwrap() > 0.0);
    assert_eq!(said["spread"]["widths"].as_array().unwrap().len(), 2);
    folder.succeeds(&["eval", "out", "--text", "ids.safetensors", "--context", "8"]);
    for (args, line) in [
        (&["--per-layer", "--intermediate", "8"][..], "per-layer: spreads a budget"),
        (&["--per-layer", "--parameters", "0.1"], "parameters: "),
        (&["--vocabulary", "30"], "vocabulary: entries are chosen by how often"),
        (&["--vocabulary", "30", "--text", "ids.safetensors"], "vocabulary: "),
        (&["--metric", "half", "--intermediate", "8"], "invalid value 'half' for '--metric"),
    ] {
        let said = folder.refuses(&[&["shrink", "lm", "no"][..], args, &CALIBRATION].concat());
        assert!(said.starts_with(line), "{args:?}: {said}");
        assert!(!folder.path("no").exists(), "{args:?}");
    }
}

#[test]
fn principal_components_are_a_plain_folder_and_a_run_that_goes_on_has_its_bits() {
    let folder = folder();
    let run = ["--hidden", "6", "--intermediate", "9", "--hidden-by", "pca"];
    folder.succeeds(&[&["shrink", "lm", "out"][..], &run, &CALIBRATION].concat());
    let config = json(&folder, "out", "config.json");
    assert_eq!((&config["hidden_size"], &config["intermediate_size"]), (&6.into(), &9.into()));
    folder.succeeds(&["eval", "out", "--text", "ids.safetensors", "--context", "8"]);
    folder.run(&[&["shrink", "lm", "again", "--resume"][..], &run, &CALIBRATION].concat());
    assert!(content(&folder, "out") == content(&folder, "again"));
}
