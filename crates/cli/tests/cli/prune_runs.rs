//! `lacuna prune` on a model's folder: runs that fail, that are taken up again, and what is said of them.

use crate::common::Folder;
use crate::prune_language::{CALIBRATION, folder};
use lacuna::io::{self, FolderWriter, Layout};

/// A run that is cut off behind its first block: by a layer of the second that cannot be pruned.
fn cut_off(folder: &Folder, out: &str) {
    let lm = io::Folder::open(folder.path("lm")).unwrap();
    let broken = folder.path("broken");
    if !broken.exists() {
        let mut writer = FolderWriter::create(&broken, Layout::of(&lm)).unwrap();
        let norm = "model.layers.1.input_layernorm.weight";
        let mut values = lm.read(norm).unwrap();
        values[[2]] = f32::NAN;
        writer.write(norm, &values).unwrap();
        writer.copy_rest(&lm).unwrap();
        writer.finish().unwrap();
    }
    let all = [&["prune", "broken", out, "--method", "sparsegpt", "--sparsity", "0.5"], &CALIBRATION[..]].concat();
    let output = folder.run(&all);
    let line = String::from_utf8(output.stderr).unwrap();
    let part = format!(".{out}.part");
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert_eq!(
        line,
        format!(
            "error: layer model.layers.1.self_attn.q_proj, k_proj, v_proj: inputs of the Gram matrix (tokens, in): NaN at row 0, column 2; \
             only finite numbers can be ranked or stored; what is done is kept in {part}: --resume goes on from there\n"
        )
    );
    assert!(folder.path(&part).is_dir() && !folder.path(out).exists());
}

#[test]
fn a_run_that_failed_on_its_data_names_layer_place_and_the_option_that_goes_on() {
    let folder = folder();
    cut_off(&folder, "out");
    let all = [&["prune", "broken", "out", "--method", "sparsegpt", "--sparsity", "0.5"], &CALIBRATION[..]].concat();
    let line = folder.refuses(&all);
    assert_eq!(line, ".out.part: holds an unfinished run: --resume goes on with it; remove it to begin anew");
    // Of a run that did nothing nothing is left, whatever the method.
    for method in ["wanda", "ria", "sparsegpt", "d2prune", "obc", "alps", "dsnot", "taylor", "fisher", "woodfisher"] {
        let all = ["prune", "broken", "other", "--method", method, "--sparsity", "0.5", "--only", "layers.1."];
        let line = folder.refuses(&[&all, &CALIBRATION[..]].concat());
        assert!(line.contains("layer model.layers.") && line.contains("NaN at row 0, column"), "{method}: {line}");
    }
    for more in [&["--allocate", "owl"][..], &["--allocate", "evolve"], &["--allocate", "dynamic"], &["--save", "bitmask"]] {
        let all = ["prune", "broken", "other", "--method", "sparsegpt", "--sparsity", "0.5", "--only", "layers.1."];
        assert!(folder.refuses(&[&all, &CALIBRATION[..], more].concat()).starts_with("layer model.layers.1."), "{more:?}");
    }
    // And what somebody else has put into the place of a working folder stays, and is said.
    std::fs::create_dir(folder.path(".new.part")).unwrap();
    std::fs::write(folder.path(".new.part").join("notes.txt"), "mine").unwrap();
    for more in [&[][..], &["--resume"]] {
        let line = folder.refuses(&[&["prune", "lm", "new", "--sparsity", "0.5"], more].concat());
        assert!(line.starts_with(".new.part: holds 'notes.txt', which no run has made and none removes"), "{line}");
    }
}

#[test]
fn a_run_that_is_asked_for_something_else_is_told_the_option_and_both_values() {
    let folder = folder();
    cut_off(&folder, "out");
    let run = |changes: &[&str]| {
        let mut all = vec!["prune", "broken", "out", "--resume", "--method", "sparsegpt", "--sparsity", "0.5"];
        all.extend(CALIBRATION);
        for pair in changes.chunks(2) {
            match all.iter().position(|a| *a == pair[0]) {
                Some(at) => all[at + 1] = pair[1],
                None => all.extend(pair),
            }
        }
        let line = folder.refuses(&all);
        assert!(line.len() < 300, "{line}");
        line
    };
    let end = "; ask for the same, or remove .out.part";
    for (changes, expected) in [
        (&["--sparsity", "0.6"][..], "--sparsity: the unfinished run has 0.5, this one 0.6"),
        (&["--method", "wanda"], "--method: the unfinished run has sparsegpt, this one wanda"),
        (&["--allocate", "lamp"], "--allocate: the unfinished run has uniform, this one lamp"),
        (&["--skip", "down_proj"], "--skip: the unfinished run has none, this one down_proj"),
        (&["--damping", "0.1"], "--damping: the unfinished run has 0.01, this one 0.1"),
        (&["--block-size", "4"], "--block-size: the unfinished run has 128, this one 4"),
        (&["--turn", "block"], "--turn: the unfinished run has layer, this one block"),
        (&["--samples", "39"], "--samples: the unfinished run has 40, this one 39"),
        (&["--reconstruct", "3"], "--reconstruct: the unfinished run has none, this one 3"),
        (&["--correct", "1,0.5"], "--correct: the unfinished run has none, this one 1.0,0.5"),
        (&["--allocate", "evolve", "--levels", "0.4,0.6"], "--allocate: the unfinished run has uniform, this one evolve"),
    ] {
        assert_eq!(run(changes), format!("{expected}{end}"));
    }
    // The same numbers of other tokens.
    let bytes = std::fs::read(folder.path("ids.safetensors")).unwrap();
    let at = bytes.len() - 8;
    std::fs::write(folder.path("others.safetensors"), [&bytes[..at], &3i64.to_le_bytes()[..]].concat()).unwrap();
    assert_eq!(
        run(&["--calibration", "others.safetensors"]),
        format!("--calibration: the unfinished run has other tokens, this one its own{end}")
    );
    let line = folder
        .refuses(&[&["prune", "lm", "out", "--resume", "--method", "sparsegpt", "--sparsity", "0.5"], &CALIBRATION[..]].concat());
    assert_eq!(line, format!("MODEL: the unfinished run has broken, this one lm{end}"));
    // A build that noted no options noted the budgets.
    let file = folder.path(".out.part").join(".settings.json");
    let mut settings: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    settings.as_object_mut().unwrap().remove("options");
    std::fs::write(&file, serde_json::to_vec(&settings).unwrap()).unwrap();
    assert_eq!(
        run(&["--sparsity", "0.75"]),
        format!(
            "--sparsity, --allocate, --only or --skip: the unfinished run has 544 of 1088 kept in 14 layers, this one 272 of 1088 kept in 14 layers{end}"
        )
    );
    assert_eq!(run(&["--damping", "0.1"]), format!("--damping: the unfinished run has 0.01, this one 0.1{end}"));
}

#[test]
fn to_go_on_with_a_finished_run_does_nothing_and_with_none_begins_anew() {
    let folder = folder();
    let all = |more: &[&'static str]| {
        [&["prune", "lm", "out", "--method", "sparsegpt", "--sparsity", "0.5"], &CALIBRATION[..], more].concat()
    };
    let output = folder.run(&all(&["--resume", "--json"]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "note: there is no unfinished run towards out; it begins anew\n");
    let first: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let stamp = || {
        let of = |f: &str| std::fs::metadata(folder.path("out").join(f)).unwrap().modified().unwrap();
        [of("model.safetensors"), of("prune.json"), of("prune.html")]
    };
    let before = stamp();
    assert_eq!(folder.succeeds(&all(&["--resume"])), "out is finished, as it was asked for: nothing was done\n");
    let mut again = folder.json(&all(&["--resume", "--json", "--activations", "1"]));
    assert_eq!(again["already_finished"], true);
    again.as_object_mut().unwrap().remove("already_finished");
    assert_eq!((again, stamp()), (first, before));
    for (more, expected) in [
        (&["--save", "bitmask"][..], "--save: the finished run out has weights, this one bitmask; name a new folder"),
        (&["--damping", "0.2"], "--damping: the finished run out has 0.01, this one 0.2; name a new folder"),
        (&["--text", "ids.safetensors"], "--text: the finished run out has none, this one ids.safetensors; name a new folder"),
    ] {
        assert_eq!(folder.refuses(&all(&[&["--resume"], more].concat())), expected);
    }
    assert_eq!(folder.refuses(&all(&[])), "out: exists already; name another, or replace it with --force");
    // What a run that was killed at its very end has left goes.
    std::fs::create_dir(folder.path(".out.part")).unwrap();
    std::fs::write(folder.path(".out.part").join(".settings.json"), "{}").unwrap();
    for left in [".out.part", "out"] {
        std::fs::write(folder.path(left).join(".lacuna.json"), "[]").unwrap();
    }
    folder.succeeds(&all(&["--resume"]));
    assert!(!folder.path(".out.part").exists() && !folder.path("out").join(".lacuna.json").exists());
    // What somebody else has put there stays, and the run is finished all the same.
    std::fs::create_dir(folder.path(".out.part")).unwrap();
    for name in ["notes.txt", ".settings.json"] {
        std::fs::write(folder.path(".out.part").join(name), "mine").unwrap();
    }
    folder.succeeds(&all(&["--resume"]));
    for name in ["notes.txt", ".settings.json"] {
        assert_eq!(std::fs::read(folder.path(".out.part").join(name)).unwrap(), b"mine", "{name}");
    }
}

#[test]
fn numbers_outside_their_domain_are_refused_before_anything_runs() {
    let folder = folder();
    // No calibration: whoever read the model first would ask for it.
    let all =
        |more: &[&str]| folder.refuses(&[&["prune", "lm", "out", "--method", "sparsegpt", "--sparsity", "0.5"], more].concat());
    let largest = usize::MAX.to_string();
    for (option, value, expected) in [
        ("--activations", &*largest, "activations: 18446744073709551615 megabytes; at most 17592186044415 can be counted"),
        ("--activations", "17592186044416", "activations: 17592186044416 megabytes; at most 17592186044415 can be counted"),
        ("--damping", "NaN", "damping: NaN is not a finite number of at least 0; 0.01 is usual"),
        ("--damping", "inf", "damping: inf is not a finite number of at least 0; 0.01 is usual"),
        ("--fisher-damping", "0", "fisher-damping: 0 is not a finite number above 0; 1e-5 is usual"),
        ("--fisher-damping", "NaN", "fisher-damping: NaN is not a finite number above 0; 1e-5 is usual"),
        ("--block-size", "0", "block-size: 0 is not at least 1; 128 is usual"),
        ("--bits", "0", "bits: 0 is not 1 to 16"),
        ("--bits", "17", "bits: 17 is not 1 to 16"),
        ("--reconstruct", &*largest, "reconstruct: 18446744073709551615 steps; at most 1000000 are run"),
        ("--owl-lambda", "NaN", "owl-lambda: NaN is not in [0, 0.5]; 0.08 is usual"),
        ("--owl-threshold", "inf", "owl-threshold: inf is not a finite number of at least 0; 5 is usual"),
        ("--sparsity", "NaN", "sparsity: NaN is not in [0, 1)"),
        ("--scratch", "ids.safetensors", "scratch: ids.safetensors is no folder"),
        ("--scratch", "nowhere", "scratch: nowhere is no folder"),
    ] {
        let option = format!("{option}={value}");
        let line = match option.starts_with("--sparsity") {
            true => folder.refuses(&["prune", "lm", "out", &option]),
            false => all(&[&option]),
        };
        assert!(line.starts_with(expected), "{option}: {line}");
    }
    let search = |more: &[&str]| all(&[&["--allocate", "evolve"], more].concat());
    assert_eq!(search(&["--search-tokens", "0"]), "search-tokens: 0 is not at least 2; 1024 is usual");
    assert!(search(&["--levels", "0.5,NaN"]).starts_with("levels: NaN: "));
    assert_eq!(search(&["--generations", "0"]), "generations: 0 is not at least 1; 25 is usual");
    assert_eq!(search(&["--offspring", "0"]), "offspring: 0 is not at least 1; 8 is usual");
    assert_eq!(search(&["--windows", "0"]), "windows: 0 is not at least 1");
    let many = (1..=256).map(|i| format!("{}", f64::from(i) / 300.0)).collect::<Vec<_>>().join(",");
    assert_eq!(search(&["--levels", &many]), "levels: 256 sparsities; at most 255 are searched");
    let line = search(&["--generations", &largest, "--offspring", "2"]);
    assert_eq!(line, format!("generations: {largest} of 2 offspring each; at most 100000000 choices are tried"));
    let with = |more: &[&str]| all(&[&["--calibration", "ids.safetensors"], more].concat());
    assert_eq!(
        with(&["--samples", &largest, "--context", "8"]),
        format!("samples: {largest} sequences of 8 tokens are more than can be counted")
    );
    assert_eq!(with(&["--samples", "0", "--context", "8"]), "samples: 0 is not at least 1; 64 is usual");
    assert_eq!(with(&["--samples", "8", "--context", "0"]), "context: 0 is not at least 1; 1024 is usual");
    let one = folder.refuses(&[
        "prune",
        "lm",
        "out",
        "--method",
        "taylor",
        "--sparsity",
        "0.5",
        "--calibration",
        "ids.safetensors",
        "--samples",
        "4",
        "--context",
        "1",
    ]);
    assert_eq!(one, "context: 1 token has none that follows it, so there is no gradient");
    assert_eq!(
        all(&[&CALIBRATION[..], &["--correct", "NaN"]].concat()),
        "correct: 'NaN' is not one or two fractions in [0, 1], as 1 or 1,0.5"
    );
    let prune = ["prune", "lm", "huge", "--method", "magnitude", "--pattern"];
    // A block that is larger than a layer is the whole layer.
    for pattern in ["block18446744073709551615x2", "block2x18446744073709551615"] {
        folder.succeeds(&[&prune[..], &[pattern, "--sparsity", "0.5"]].concat());
        std::fs::remove_dir_all(folder.path("huge")).unwrap();
    }
    let line = folder.refuses(&[&prune[..], &["1:18446744073709551615"]].concat());
    assert!(line.contains("1:18446744073709551615") && !folder.path("huge").exists(), "{line}");
}

#[test]
fn a_calibration_of_fewer_tokens_than_inputs_is_said_with_the_numbers() {
    let folder = folder();
    let run = |out: &str, method: &str, samples: &str| {
        let all = ["prune", "lm", out, "--method", method, "--sparsity", "0.5", "--json", "--calibration", "ids.safetensors"];
        let output = folder.run(&[&all[..], &["--samples", samples, "--context", "5"]].concat());
        assert_eq!(output.status.code(), Some(0));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (String::from_utf8(output.stderr).unwrap(), report["few_tokens"].clone())
    };
    let (line, few) = run("few", "sparsegpt", "2");
    assert_eq!(
        line,
        "warning: 10 tokens of calibration are fewer than the inputs of 2 of 14 layers (up to 12: model.layers.1.mlp.down_proj); \
         what is solved for fits these tokens alone: give more --samples\n"
    );
    let expected =
        serde_json::json!({"tokens": 10, "layers": 2, "of": 14, "widest": "model.layers.1.mlp.down_proj", "inputs": 12});
    assert_eq!(few, expected);
    let page = std::fs::read_to_string(folder.path("few").join("prune.html")).unwrap();
    assert!(page.contains("The calibration has 10 tokens, fewer than the inputs of 2 layers, which have up to 12"));
    // As many as inputs, or a method that solves nothing.
    assert_eq!(run("enough", "sparsegpt", "3"), (String::new(), serde_json::Value::Null));
    assert_eq!(run("norms", "wanda", "2"), (String::new(), serde_json::Value::Null));
}

#[test]
fn where_activations_lie_changes_nothing() {
    let folder = folder();
    std::fs::create_dir(folder.path("scratch")).unwrap();
    let run = |out: &str, more: &[&str]| {
        let all = ["prune", "lm", out, "--method", "sparsegpt", "--sparsity", "0.5", "--correct", "1,1", "--allocate", "dynamic"];
        folder.succeeds(&[&all[..], &CALIBRATION[..], more].concat());
        std::fs::read(folder.path(out).join("model.safetensors")).unwrap()
    };
    let whole = run("a", &[]);
    assert!(whole == run("b", &["--activations", "0"]));
    assert!(whole == run("c", &["--activations", "0", "--scratch", "scratch"]));
    let settings = |out: &str| {
        let record = std::fs::read(folder.path(out).join("prune.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&record).unwrap()["settings"].clone()
    };
    assert_eq!(settings("a"), settings("c"), "what a run is known by says nothing of memory and scratch");
}

#[test]
fn the_page_and_the_table_say_what_their_numbers_are() {
    let folder = folder();
    let printed =
        folder.succeeds(&[&["prune", "lm", "solved", "--method", "sparsegpt", "--sparsity", "0.5"], &CALIBRATION[..]].concat());
    assert!(printed.contains("error: ‖X (Ŵ − W)ᵀ‖² / ‖X Wᵀ‖², the share of a layer's output that is lost"), "{printed}");
    let printed = folder.succeeds(&["prune", "lm", "plain", "--sparsity", "0.5"]);
    assert!(!printed.contains("error:") && printed.contains("moved: ‖Ŵ − W‖² / ‖W‖²"), "{printed}");
    let page = |out: &str| std::fs::read_to_string(folder.path(out).join("prune.html")).unwrap();
    let (solved, plain) = (page("solved"), page("plain"));
    assert!(solved.contains("<title>Pruning by sparsegpt: lm</title>") && solved.contains("Error by block"));
    assert!(plain.contains("<title>Pruning by magnitude: lm</title>") && plain.contains("Loss of weight by block"));
    for option in ["--damping", "--block-size", "--turn", "--samples"] {
        assert_eq!((solved.contains(option), plain.contains(option)), (true, false), "{option}");
    }
    for option in ["--fisher-damping", "--owl-lambda", "--bits", "--levels", "--seed"] {
        assert!(!solved.contains(option) && !plain.contains(option), "{option}");
    }
    folder.succeeds(&["prune", "lm", "lamp", "--sparsity", "0.5", "--allocate", "lamp"]);
    assert!(page("lamp").contains("Sparsity by block") && !plain.contains("Sparsity by block"));
}

#[test]
fn a_model_is_known_by_what_is_in_it_and_not_by_its_place() {
    let folder = folder();
    let prune = |model: &'static str| ["prune", model, "out", "--sparsity", "0.5", "--resume"];
    folder.succeeds(&prune("lm")[..5]);
    let done = "out is finished, as it was asked for: nothing was done\n";
    assert_eq!(folder.succeeds(&prune("./lm")), done);
    std::fs::rename(folder.path("lm"), folder.path("moved")).unwrap();
    assert_eq!(folder.succeeds(&prune("moved")), done);
    // Trained on: other numbers in a file of the same length.
    let file = folder.path("moved/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::rename(folder.path("moved"), folder.path("lm")).unwrap();
    let says = "MODEL: the finished run out has other weights or another config.json, this one its own; name a new folder";
    assert_eq!(folder.refuses(&prune("lm")), says);
}

#[test]
fn the_work_of_another_run_stays_where_one_is_finished() {
    let folder = folder();
    let finished = ["prune", "lm", "out", "--method", "sparsegpt", "--sparsity", "0.5"];
    folder.succeeds(&[&finished[..], &CALIBRATION[..]].concat());
    cut_off(&folder, "other");
    std::fs::rename(folder.path(".other.part"), folder.path(".out.part")).unwrap();
    let output = folder.run(&[&finished[..], &CALIBRATION[..], &["--resume"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "note: .out.part is of another run, and stays\n");
    assert!(folder.path(".out.part/.records.json").exists());
}

#[test]
fn options_that_change_nothing_are_said_once_and_those_of_folders_refused_for_a_file() {
    let folder = folder();
    let output = folder.run(&["prune", "lm", "out", "--sparsity", "0.5", "--owl-lambda", "0.1", "--windows", "3", "--seed", "2"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "note: --owl-lambda, --seed, --windows change nothing of what is asked for here\n");
    let of_file = |option: &'static str, value: &'static str| {
        folder.refuses(&["prune", "lm/model.safetensors", "new.safetensors", "--sparsity", "0.5", option, value])
    };
    for (option, value) in [("--windows", "3"), ("--turn", "block"), ("--samples", "4"), ("--bos", "none"), ("--damping", "1")] {
        let line = of_file(option, value);
        assert_eq!(line, format!("{}: is for language models: give a model's folder", &option[2..]));
    }
}
