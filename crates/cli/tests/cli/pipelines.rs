//! `lacuna run`: stages one after another, taken up where they were, and one page over all.

use crate::common::Folder;
use crate::language::tiny;
use serde_json::Value;
use std::fs;

const RECIPE: &str = r#"
model = "tiny"
out = "small"
text = "text.txt"
context = 16

[[stage]]
[stage.prune]
method = "magnitude"
sparsity = 0.5

[[stage]]
job = "train"
text = ["text.txt"]
steps = 12
context = 16
batch = 2
lr = 0.01
teacher = "tiny"
save-every = 2
"#;

fn with_recipe() -> Folder {
    let folder = tiny();
    fs::write(folder.path("r.toml"), RECIPE).unwrap();
    folder
}

/// Weights and masks of both stages.
fn weights(folder: &Folder) -> Vec<Vec<u8>> {
    let files =
        ["1-prune/model.safetensors", "1-prune/masks.safetensors", "2-train/model.safetensors", "2-train/masks.safetensors"];
    files.iter().map(|name| fs::read(folder.path("small").join(name)).unwrap()).collect()
}

#[test]
fn stages_are_the_commands_one_after_another_and_are_passed_over_when_they_are_done() {
    let folder = with_recipe();
    let output = folder.run(&["run", "r.toml", "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("note: stage 2 of 2: train -> small/2-train"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |key: &str| -> Vec<Value> { report["stages"].as_array().unwrap().iter().map(|s| s[key].clone()).collect() };
    assert_eq!(of("stage"), ["before", "prune", "train"]);
    let kept: Vec<u64> = of("kept").iter().map(|v| v.as_u64().unwrap()).collect();
    assert!(kept[1] < kept[0] && kept[2] == kept[1], "{kept:?}");
    let nll: Vec<f64> = of("nll").iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(nll[2] < nll[1], "what was pruned learns again: {nll:?}");
    folder.succeeds(&["prune", "tiny", "half", "--sparsity", "0.5"]);
    let typed = ["--text", "text.txt", "--steps", "12", "--context", "16", "--batch", "2", "--lr", "0.01", "--teacher", "tiny"];
    folder.succeeds(&[&["train", "half", "taught"], &typed[..]].concat());
    assert_eq!(fs::read(folder.path("taught").join("model.safetensors")).unwrap(), weights(&folder)[2]);
    let evaluated =
        folder.json(&["eval", "small/2-train", "--text", "text.txt", "--context", "16", "--format", "dense", "--json"]);
    assert!((evaluated["nll"].as_f64().unwrap() - nll[2]).abs() < 1e-5);
    // Nothing is done again; the numbers are those of before.
    let before = (weights(&folder), fs::read(folder.path("small").join("run.json")).unwrap());
    let again = folder.run(&["run", "r.toml", "--json"]);
    assert!(again.status.success() && again.stdout == output.stdout);
    assert!((weights(&folder), fs::read(folder.path("small").join("run.json")).unwrap()) == before);
    assert!(lacuna::report::Page::is_page(&fs::read_to_string(folder.path("small").join("run.html")).unwrap()));
    // A stage that is asked for something else is not mixed with what is there.
    fs::write(folder.path("other.toml"), RECIPE.replace("lr = 0.01", "lr = 0.02")).unwrap();
    let line = String::from_utf8(folder.run(&["run", "other.toml"]).stderr).unwrap();
    assert!(
        line.contains("stage 2 (train): --lr: the finished run small/2-train has 0.01, this one 0.02; name a new folder"),
        "{line}"
    );
}

#[test]
fn a_model_is_made_smaller_pruned_and_taught_in_one_run() {
    let folder = with_recipe();
    let cut = "[[stage]]\n[stage.shrink]\nmethod = \"magnitude\"\nintermediate = 24\n\n[[stage]]\n[stage.prune]";
    fs::write(folder.path("cut.toml"), RECIPE.replace("[[stage]]\n[stage.prune]", cut)).unwrap();
    let report: Value = serde_json::from_slice(&folder.run(&["run", "cut.toml", "--json"]).stdout).unwrap();
    let of = |key: &str| -> Vec<u64> { report["stages"].as_array().unwrap().iter().map(|s| s[key].as_u64().unwrap()).collect() };
    let (parameters, kept) = (of("parameters"), of("kept"));
    assert!(parameters[1] < parameters[0] && parameters[1..].iter().all(|&n| n == parameters[1]), "{parameters:?}");
    assert!(kept[1] == parameters[1] && kept[2] < kept[1] && kept[3] == kept[2], "{kept:?}");
    folder.succeeds(&["shrink", "tiny", "typed", "--method", "magnitude", "--intermediate", "24"]);
    let file = |path: &str| fs::read(folder.path(path).join("model.safetensors")).unwrap();
    assert_eq!(file("small/1-shrink"), file("typed"));
}

#[cfg(unix)]
#[test]
fn a_pipeline_that_is_killed_anywhere_ends_in_the_same_bytes() {
    let right = with_recipe();
    let begun = std::time::Instant::now();
    right.run(&["run", "r.toml"]);
    let whole = begun.elapsed();
    let folder = with_recipe();
    let mut cut = 0;
    for n in 0..20u32 {
        let mut child = folder
            .command(&["run", "r.toml"])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole.mul_f64(0.1 + 0.07 * f64::from(n)));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        cut += 1;
    }
    assert!(cut > 0, "nothing was cut off in {whole:?}");
    assert!(folder.run(&["run", "r.toml"]).status.success());
    assert!(weights(&folder) == weights(&right));
}

#[test]
fn what_is_wrong_with_a_pipeline_is_one_line_before_anything_is_done() {
    let folder = with_recipe();
    for (from, to, line) in [
        ("model = \"tiny\"", "", "model: is not given: the folder to begin with"),
        ("job = \"train\"", "job = \"trian\"", "stage 2: trian: no job is named 'trian' among 6; did you mean 'train'?"),
        ("job = \"train\"", "", "stage 2: names no job: [stage.prune] with its settings, or job = \"prune\" beside them"),
        ("steps = 12", "step = 12", "stage 2: step: no setting is named 'step' among 47; did you mean 'steps'?"),
        ("lr = 0.01", "lr = -1.0", "stage 2: lr: -1 is not a finite number of at least 0"),
        ("lr = 0.01", "out = \"here\"", "stage 2: out: is that of the pipeline, or of the stage before; leave it out"),
        ("context = 16", "contexts = 16", "no setting is named 'contexts' among 7; did you mean 'context'?"),
        ("sparsity = 0.5", "", "stage 1 (prune): sparsity: pattern unstructured needs one: give --sparsity"),
    ] {
        fs::write(folder.path("wrong.toml"), RECIPE.replacen(from, to, 1)).unwrap();
        let refused = folder.refuses(&["run", "wrong.toml"]);
        assert!(refused.ends_with(line), "{refused}");
    }
}
