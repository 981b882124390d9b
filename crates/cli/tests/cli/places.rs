//! Where commands write: what is there stays unless it is to be replaced, and what is read always does.

use crate::build::llama;
use crate::common::Folder;
use std::fs;

/// A folder with the file `model.safetensors` and a model `lm`.
fn folder() -> Folder {
    let folder = Folder::new();
    llama().write(folder.path("tiny.gguf"));
    folder.succeeds(&["import", "tiny.gguf", "lm"]);
    folder
}

#[test]
fn a_file_is_replaced_with_force_alone() {
    let folder = Folder::new();
    let prune = ["prune", "model.safetensors", "out.safetensors", "--sparsity", "0.5"];
    fs::write(folder.path("out.safetensors"), "older").unwrap();
    let line = folder.refuses(&prune);
    assert_eq!(line, "out.safetensors: exists already; name another, or replace it with --force");
    folder.succeeds(&[&prune[..], &["--force"]].concat());
    assert_eq!(folder.read("out.safetensors").masks().unwrap().len(), 3);
    // An empty file is nothing to lose, and neither is a device.
    fs::write(folder.path("empty.safetensors"), "").unwrap();
    folder.succeeds(&["prune", "model.safetensors", "empty.safetensors", "--sparsity", "0.5"]);
    if cfg!(unix) {
        folder.succeeds(&["prune", "model.safetensors", "/dev/null", "--sparsity", "0.5"]);
    }
    fs::create_dir(folder.path("dir")).unwrap();
    for force in [&[][..], &["--force"]] {
        let line = folder.refuses(&[&["prune", "model.safetensors", "dir", "--sparsity", "0.5"], force].concat());
        assert_eq!(line, "dir: is a folder, not a file");
    }
}

#[test]
fn what_is_read_is_never_written() {
    let folder = folder();
    fs::create_dir(folder.path("sub")).unwrap();
    let half = ["--sparsity", "0.5", "--force"];
    let mut outs = vec!["model.safetensors", "./model.safetensors", "sub/../model.safetensors"];
    if cfg!(unix) {
        std::os::unix::fs::symlink("model.safetensors", folder.path("link.safetensors")).unwrap();
        fs::hard_link(folder.path("model.safetensors"), folder.path("hard.safetensors")).unwrap();
        outs.extend(["link.safetensors", "hard.safetensors"]);
    }
    for out in outs {
        let line = folder.refuses(&[&["prune", "model.safetensors", out], &half[..]].concat());
        assert_eq!(line, format!("{out}: exists already and is what is read here; name another"));
    }
    for out in ["lm", "./lm", "lm/"] {
        let line = folder.refuses(&[&["prune", "lm", out], &half[..]].concat());
        assert!(line.contains("is what is read here"), "{line}");
    }
    let line = folder.refuses(&["prune", "lm", ".", "--sparsity", "0.5", "--force"]);
    assert!(line.contains("holds lm, which is read here"), "{line}");
    folder.succeeds(&["prune", "lm", "half", "--sparsity", "0.5"]);
    assert!(folder.refuses(&["pack", "half", "half", "--save", "bitmask", "--force"]).contains("is what is read here"));
    let ids = r#"{"input_ids":{"dtype":"I64","shape":[1,2],"data_offsets":[0,16]}}"#;
    let file =
        [&(ids.len() as u64).to_le_bytes()[..], ids.as_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 0]].concat();
    fs::write(folder.path("ids.safetensors"), file).unwrap();
    let logits = |out: &str| folder.refuses(&["logits", "lm", "--ids", "ids.safetensors", "--out", out, "--force"]);
    assert!(logits("ids.safetensors").contains("is what is read here"));
    assert!(logits("lm/model.safetensors").contains("belongs to the model that is read"));
}

#[test]
fn a_models_folder_is_replaced_whole_with_force_and_another_never() {
    let folder = folder();
    folder.succeeds(&["prune", "lm", "half", "--sparsity", "0.5"]);
    fs::write(folder.path("half/notes.txt"), "of the older one").unwrap();
    let old = fs::read(folder.path("half/masks.safetensors")).unwrap();
    let commands: [&[&str]; 3] = [
        &["prune", "lm", "half", "--sparsity", "0.75"],
        &["pack", "quarter", "half", "--save", "sparse-bitmask"],
        &["import", "tiny.gguf", "half"],
    ];
    folder.succeeds(&["prune", "lm", "quarter", "--sparsity", "0.75"]);
    for command in commands {
        let line = folder.refuses(command);
        assert_eq!(line, "half: exists already; name another, or replace it with --force", "{command:?}");
    }
    for command in commands {
        folder.succeeds(&[command, &["--force"]].concat());
        assert!(!folder.path("half/notes.txt").exists(), "{command:?}: a file of the older folder is in the new one");
        assert!(!folder.path(".half.old").exists(), "{command:?}: the older folder is still there");
        if command[0] == "prune" {
            assert_ne!(fs::read(folder.path("half/masks.safetensors")).unwrap(), old);
        }
    }
    assert!(!folder.path("half/masks.safetensors").exists(), "the imported folder has none");

    // A folder of other things, one with a folder in it, a file, and one that is not empty but no model.
    fs::create_dir_all(folder.path("other/deep")).unwrap();
    fs::create_dir(folder.path("text")).unwrap();
    fs::write(folder.path("text/config.json"), "{}").unwrap();
    folder.succeeds(&["import", "tiny.gguf", "nested"]);
    fs::create_dir(folder.path("nested/.git")).unwrap();
    for out in ["other", "text", "nested", "model.safetensors"] {
        for command in [
            &["prune", "lm", out, "--sparsity", "0.5"][..],
            &["import", "tiny.gguf", out],
            &["pack", "quarter", out, "--save", "csr"],
        ] {
            let line = folder.refuses(&[command, &["--force"]].concat());
            assert!(line.contains("is no model's folder") && line.contains("is not replaced"), "{command:?}: {line}");
        }
    }
    // An empty folder is free.
    fs::create_dir(folder.path("empty")).unwrap();
    folder.succeeds(&["import", "tiny.gguf", "empty"]);
}

#[test]
fn a_run_that_fails_leaves_the_folder_that_it_was_to_replace() {
    let folder = folder();
    folder.succeeds(&["prune", "lm", "half", "--sparsity", "0.5"]);
    for command in [
        &["prune", "lm", "half", "--sparsity", "2", "--force"][..],
        &["prune", "lm", "half", "--pattern", "2:5", "--force"],
        &["pack", "half", "lm", "--save", "nm:2:4", "--force"],
        &["import", "tiny.gguf", "half", "--force", "--dtype", "f17"],
    ] {
        folder.refuses(command); // which looks at every file
    }
    // A file that cannot be imported to its end.
    let bytes = fs::read(folder.path("tiny.gguf")).unwrap();
    fs::write(folder.path("short.gguf"), &bytes[..bytes.len() - 64]).unwrap();
    folder.refuses(&["import", "short.gguf", "half", "--force"]);
    // What is another's is not in the way of a run that replaces nothing, and never overwritten.
    fs::create_dir(folder.path(".half.old")).unwrap();
    let line = folder.refuses(&["import", "tiny.gguf", "half", "--force"]);
    assert_eq!(line, ".half.old: stands where the older folder has to stand for a moment; move it away");
    fs::create_dir(folder.path(".new.old")).unwrap();
    folder.succeeds(&["import", "tiny.gguf", "new"]);
    assert!(folder.path(".new.old").exists());
}

#[test]
fn a_run_that_was_killed_between_two_renames_loses_neither_folder() {
    let folder = folder();
    folder.succeeds(&["prune", "lm", "half", "--sparsity", "0.5"]);
    let masks = fs::read(folder.path("half/masks.safetensors")).unwrap();
    let aside = || {
        fs::rename(folder.path("half"), folder.path(".half.old")).unwrap();
        fs::write(folder.path(".half.old/.lacuna-replaced"), "").unwrap();
    };
    // The new one had no name yet: the older one is put back, and then is in the way or is replaced.
    aside();
    let output = folder.run(&["prune", "lm", "half", "--sparsity", "0.75"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(fs::read(folder.path("half/masks.safetensors")).unwrap() == masks && !folder.path("half/.lacuna-replaced").exists());
    aside();
    folder.succeeds(&["prune", "lm", "half", "--sparsity", "0.75", "--force"]);
    assert!(fs::read(folder.path("half/masks.safetensors")).unwrap() != masks && !folder.path(".half.old").exists());
    // The new one had its name: what is left of the older one goes.
    aside();
    fs::remove_file(folder.path(".half.old/config.json")).unwrap();
    folder.succeeds(&["import", "tiny.gguf", "other"]);
    fs::rename(folder.path("other"), folder.path("half")).unwrap();
    folder.succeeds(&["prune", "lm", "half", "--sparsity", "0.5", "--force"]);
    assert!(!folder.path(".half.old").exists());
}

#[test]
fn reports_replace_those_of_an_earlier_run_and_nothing_else() {
    let folder = Folder::new();
    let sweep = ["bench", "sweep", "--shape", "8x16", "--tokens", "1", "--sparsity", "0.5", "--seconds", "0", "--out", "sweep"];
    folder.succeeds(&sweep);
    folder.succeeds(&sweep);
    fs::remove_file(folder.path("sweep/sweep.html")).unwrap();
    let line = folder.refuses(&sweep);
    assert_eq!(line, "sweep/sweep.csv: exists already; name another, or replace it with --force");
    folder.succeeds(&[&sweep[..], &["--force"]].concat());
    fs::create_dir(folder.path("mine")).unwrap();
    fs::write(folder.path("mine/report.html"), "<html>of another program</html>").unwrap();
    let line = folder.refuses(&["demo", "--out", "mine"]);
    assert_eq!(line, "mine/report.html: exists already; name another, or replace it with --force");
    fs::remove_file(folder.path("mine/report.html")).unwrap();
    fs::write(folder.path("mine/results.csv"), "of somebody").unwrap();
    // Where no folder can be made nothing is timed.
    let line = folder.refuses(&[&sweep[..sweep.len() - 1], &["mine/results.csv"]].concat());
    assert!(line.starts_with("mine/results.csv: "), "{line}");
    let line = folder.refuses(&["demo", "--out", "mine"]);
    assert_eq!(line, "mine/results.csv: exists already; name another, or replace it with --force");
}
