//! `lacuna prune --recipe` and `--print-recipe`: what is printed runs as what was typed, and a record runs again.

use crate::common::Folder;
use crate::prune_language::{CALIBRATION, folder};
use lacuna::job::PruneJob;
use serde_json::Value;
use std::fs;

/// The weights and masks of a folder, and the other files but for record and page.
fn content(folder: &Folder, out: &str) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(folder.path(out))
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&p).unwrap()))
        .filter(|(name, _)| !name.starts_with("prune."))
        .collect();
    all.sort();
    assert!(all.iter().any(|(name, _)| name.starts_with("masks")), "{out} has no masks");
    all
}

fn record(folder: &Folder, out: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.path(out).join("prune.json")).unwrap()).unwrap()
}

#[test]
fn all_settings_are_printed_with_their_defaults_and_nothing_else_happens() {
    let folder = Folder::new();
    let printed = folder.succeeds(&["prune", "--print-recipe"]);
    assert_eq!(PruneJob::from_toml(&printed).unwrap(), PruneJob::default());
    let help = folder.succeeds(&["prune", "--help"]);
    let options = help.lines().filter_map(|l| l.trim_start().strip_prefix("--")).map(|l| l.split([' ', '[']).next().unwrap());
    let of_a_run = ["force", "json", "resume", "recipe", "print-recipe", "help"];
    let mut seen = 0;
    for option in options.filter(|o| !of_a_run.contains(o)) {
        let there = printed
            .lines()
            .any(|l| [format!("{option} ="), format!("# {option} ="), format!("# [{option}]")].iter().any(|s| l.starts_with(s)));
        assert!(there, "--{option} is not in the recipe\n{printed}");
        seen += 1;
    }
    assert!(seen >= 34, "{seen} options");
    // Neither a model that is not there nor an output that is matter.
    let before: Vec<_> = fs::read_dir(folder.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let typed = ["prune", "nowhere", "model.safetensors", "--method", "wanda", "--sparsity", "0.3", "--print-recipe"];
    let job = PruneJob::from_toml(&folder.succeeds(&typed)).unwrap();
    assert_eq!(job, PruneJob::new("wanda").sparsity(0.3).model("nowhere").out("model.safetensors"));
    let after: Vec<_> = fs::read_dir(folder.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_printed_recipe_gives_the_bytes_of_the_typed_options_and_so_does_a_record() {
    let folder = folder();
    let cases: [&[&str]; 5] = [
        &["--method", "sparsegpt", "--sparsity", "0.5", "--actorder", "--inputs", "dense", "--reconstruct", "5"],
        &["--method", "sparsegpt", "--pattern", "2:4", "--block-size", "8", "--bits", "3"],
        &[
            "--method",
            "sparsegpt",
            "--sparsity",
            "0.5",
            "--correct",
            "1,0.5",
            "--allocate",
            "evolve",
            "--generations",
            "2",
            "--seed",
            "3",
        ],
        &["--method", "woodfisher", "--sparsity", "0.6", "--fisher-damping", "1e-4", "--allocate", "global"],
        &[
            "--method",
            "ria",
            "--sparsity",
            "0.4",
            "--turn",
            "block",
            "--skip",
            "q_proj",
            "--only",
            "layers.1.",
            "--save",
            "bitmask",
        ],
    ];
    for (i, options) in cases.into_iter().enumerate() {
        let [typed, printed, again] = ["typed", "printed", "again"].map(|name| format!("{name}{i}"));
        folder.succeeds(&[&["prune", "lm", &typed], options, &CALIBRATION[..]].concat());
        let recipe = folder.succeeds(&[&["prune"], options, &CALIBRATION[..], &["--print-recipe"]].concat());
        fs::write(folder.path("recipe.toml"), recipe).unwrap();
        folder.succeeds(&["prune", "--recipe", "recipe.toml", "lm", &printed]);
        let of_typed = format!("{typed}/prune.json");
        folder.succeeds(&["prune", "--recipe", &of_typed, "lm", &again]);
        let bytes = content(&folder, &typed);
        assert!(bytes == content(&folder, &printed), "{options:?}: the recipe");
        assert!(bytes == content(&folder, &again), "{options:?}: the record");
        assert_eq!(record(&folder, &typed)["settings"], record(&folder, &again)["settings"], "{options:?}");
        // The record has the model too: it alone is enough for another output.
        folder.succeeds(&["prune", "--recipe", &of_typed, "lm", "third"]);
        fs::remove_dir_all(folder.path("third")).unwrap();
    }
}

#[test]
fn a_recipe_prunes_a_plain_file_to_the_same_bytes() {
    let folder = Folder::new();
    let options =
        ["--pattern", "block4x4", "--sparsity", "0.5", "--method", "random", "--seed", "9", "--layer", "fc2.weight=0.25"];
    folder.succeeds(&[&["prune", "model.safetensors", "a.safetensors"], &options[..]].concat());
    let recipe = folder.succeeds(&[&["prune", "model.safetensors"], &options[..], &["--print-recipe"]].concat());
    fs::write(folder.path("r.toml"), &recipe).unwrap();
    let printed = folder.succeeds(&["prune", "--recipe", "r.toml", "model.safetensors", "b.safetensors", "--json"]);
    let read = |name: &str| fs::read(folder.path(name)).unwrap();
    assert!(read("a.safetensors") == read("b.safetensors"));
    fs::write(folder.path("b.json"), printed).unwrap();
    folder.succeeds(&["prune", "--recipe", "b.json", "model.safetensors", "c.safetensors"]);
    assert!(read("a.safetensors") == read("c.safetensors"), "what --json said is a recipe too");
}

#[test]
fn what_is_typed_holds_instead_of_what_the_recipe_says() {
    let folder = Folder::new();
    let text = "model = \"model.safetensors\"\nout = \"a.safetensors\"\nsparsity = 0.25\nmethod = \"random\"\nseed = 1\nskip = [\"fc1.weight\"]\n";
    fs::write(folder.path("r.toml"), text).unwrap();
    let by_recipe = folder.json(&["prune", "--recipe", "r.toml", "--json"]);
    assert_eq!((&by_recipe["sparsity"], &by_recipe["method"]), (&0.25.into(), &"random".into()));
    let typed = ["--sparsity", "0.5", "--method", "magnitude", "--skip", "conv.weight"];
    let over =
        folder.json(&[&["prune", "--recipe", "r.toml", "model.safetensors", "b.safetensors", "--json"], &typed[..]].concat());
    assert_eq!((&over["sparsity"], &over["method"], &over["out"]), (&0.5.into(), &"magnitude".into(), &"b.safetensors".into()));
    let plain = folder.json(&[&["prune", "model.safetensors", "c.safetensors", "--json"], &typed[..]].concat());
    assert_eq!(over["layers"], plain["layers"]);
    // A value that is typed holds even where it is the default one.
    let job = folder.succeeds(&["prune", "--recipe", "r.toml", "--seed", "0", "--method", "magnitude", "--print-recipe"]);
    let job = PruneJob::from_toml(&job).unwrap();
    assert_eq!((job.seed, &*job.method, job.sparsity), (0, "magnitude", Some(0.25)));
    // A typed N:M pattern fixes the sparsity, whatever the recipe says of it.
    let nm = folder.json(&["prune", "--recipe", "r.toml", "model.safetensors", "d.safetensors", "--pattern", "2:4", "--json"]);
    assert_eq!((&nm["pattern"], &nm["sparsity"]), (&"2:4".into(), &0.5.into()));
}

#[test]
fn what_is_wrong_with_a_recipe_is_one_line_that_names_file_key_and_value() {
    let folder = Folder::new();
    let refuse = |text: &str| {
        fs::write(folder.path("r.toml"), text).unwrap();
        folder.refuses(&["prune", "--recipe", "r.toml", "model.safetensors", "out.safetensors"])
    };
    for (text, line) in [
        ("sparsty = 0.5", "r.toml: no setting is named 'sparsty' among 43; did you mean 'sparsity'?"),
        ("sparsity = \"half\"", "r.toml: sparsity: \"half\": invalid type: string \"half\", expected f64"),
        ("sparsity = 1.5", "r.toml: sparsity: 1.5 is not in [0, 1): 0 keeps all, 0.9 drops nine of ten"),
        ("sparsity = 0.5\nmethod = \"magnitud\"", "r.toml: no method is named 'magnitud' among 13; did you mean 'magnitude'?"),
        ("sparsity = 0.5\nallocate = \"erkk\"", "r.toml: no allocation is named 'erkk' among 9; did you mean 'erk'?"),
        ("sparsity = 0.5\nresume = true", "r.toml: resume: is an option of one run, and no setting of a recipe"),
        ("{\"layers\": []}", "r.toml: job: is not in this record: it is of a build that did not note it"),
        ("{\"job\": {\"sparsity\": \"x\"}}", "r.toml: sparsity: \"x\": invalid type: string \"x\", expected f64"),
        ("method = \"random\"", "sparsity: pattern unstructured needs one: give --sparsity"),
        ("sparsity = 0.5\nturn = \"block\"", "turn: is for language models: give a model's folder"),
    ] {
        assert_eq!(refuse(text), line, "{text}");
    }
    for (text, start) in [
        ("sparsity = ", "r.toml: line 1: "),
        ("{\"job\": ", "r.toml: record: "),
        ("sparsity = 0.5\npattern = \"2-4\"", "r.toml: pattern: \"2-4\": "),
        ("sparsity = 0.5\nturn = \"up\\nside\"", "r.toml: turn: "),
        ("[[sparsity]]\na = 1", "r.toml: sparsity: "),
    ] {
        let line = refuse(text);
        assert!(line.starts_with(start), "{text}: {line}");
    }
    let missing = folder.refuses(&["prune", "--recipe", "nowhere.toml", "model.safetensors", "out.safetensors"]);
    assert!(missing.starts_with("nowhere.toml: "), "{missing}");
    fs::write(folder.path("r.toml"), "sparsity = 0.5").unwrap();
    let line = folder.refuses(&["prune", "--recipe", "r.toml", "model.safetensors"]);
    assert_eq!(line, "out: is not set: the folder or the file to write");
    // Without a recipe a target must be typed, as before.
    assert!(folder.refuses(&["prune", "model.safetensors", "out.safetensors"]).contains("required"));
}

#[test]
fn a_recipe_with_settings_that_change_nothing_says_so_and_one_with_their_defaults_does_not() {
    let folder = folder();
    fs::write(folder.path("r.toml"), "sparsity = 0.5\nowl-lambda = 0.1\nseed = 0\n").unwrap();
    let output = folder.run(&["prune", "--recipe", "r.toml", "lm", "out"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "note: --owl-lambda changes nothing of what is asked for here\n");
    assert_eq!(output.status.code(), Some(0));
}
