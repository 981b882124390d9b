//! `lacuna bench`: fields, formats, and bad input.

use crate::common::Folder;

fn spmm(folder: &Folder, more: &[&str]) -> String {
    folder.succeeds(&[&["bench", "spmm", "--seconds", "0", "--json"], more].concat())
}

fn lines(printed: &str) -> Vec<serde_json::Value> {
    printed.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn every_combination_is_a_line_with_every_field() {
    let folder = Folder::new();
    let printed = spmm(&folder, &["--shape", "40x70,8x64", "--tokens", "1,5", "--sparsity", "0.5,0.9", "--threads", "1,2"]);
    let lines = lines(&printed);
    assert_eq!(lines.len(), 16);
    let fields = "shape tokens sparsity threads isa format kernel dense_us dense_kernel sparse_us sprs_us speedup pack_us bytes \
                  dense_bytes max_error pattern values cold";
    for line in &lines {
        for field in fields.split_whitespace() {
            assert!(line.get(field).is_some(), "no {field} in {line}");
        }
        let us = |name: &str| line[name].as_f64().unwrap();
        assert!(us("dense_us") > 0.0 && us("sparse_us") > 0.0 && us("sprs_us") > 0.0 && us("pack_us") > 0.0);
        assert!((us("speedup") - us("dense_us") / us("sparse_us")).abs() < 1e-9 * us("speedup"));
        assert!(us("max_error") < 1e-4);
    }
    assert_eq!(lines[0]["shape"], "40x70");
    assert_eq!(lines[0]["sparsity"], 0.5);
}

#[test]
fn formats_values_and_patterns_are_those_that_were_asked_for() {
    let folder = Folder::new();
    let printed = spmm(
        &folder,
        &[
            "--shape",
            "32x128",
            "--tokens",
            "16",
            "--sparsity",
            "0.8",
            "--format",
            "tile-csr:32,bitmask:64",
            "--values",
            "bf16,f16,i8",
        ],
    );
    let found: Vec<_> = lines(&printed).iter().map(|l| format!("{} {}", l["format"], l["values"])).collect();
    let asked = ["tile-csr:32", "bitmask:64"].map(|f| ["bf16", "f16", "i8"].map(|v| format!("\"{f}\" \"{v}\""))).concat();
    assert_eq!(found, asked);
    for pattern in ["2:4", "1:4"] {
        let format = format!("nm:{pattern}");
        let line = &lines(&spmm(&folder, &["--shape", "32x128", "--pattern", pattern, "--format", &format]))[0];
        assert_eq!(line["pattern"], pattern);
        assert_eq!(line["format"], format!("nm:{pattern}"));
        assert_eq!(line["sparsity"], if pattern == "2:4" { 0.5 } else { 0.75 });
    }
    let skewed = ["--shape", "32x128", "--pattern", "block16x1", "--sparsity", "0.5", "--skewed", "--cold", "--format", "model"];
    let line = &lines(&spmm(&folder, &skewed))[0];
    assert_eq!((&line["cold"], &line["sprs_us"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn weights_and_masks_of_a_file_are_timed_as_they_are() {
    let folder = Folder::new();
    folder.succeeds(&["prune", "model.safetensors", "pruned.safetensors", "--sparsity", "0.75"]);
    let tensor = folder.read("pruned.safetensors").masks().unwrap()[0].0.clone();
    let line = &lines(&spmm(&folder, &["--weights", "pruned.safetensors", "--tensor", &tensor]))[0];
    assert_eq!(line["sparsity"], 0.75);
    let says = folder.refuses(&["bench", "spmm", "--weights", "pruned.safetensors", "--tensor", "nothing"]);
    assert!(says.contains("nothing"), "{says}");
    let says = folder.refuses(&["bench", "spmm", "--weights", "model.safetensors", "--tensor", &tensor]);
    assert!(says.contains(&tensor) && says.contains("--sparsity"), "{says}");
}

#[test]
fn a_sweep_says_where_sparse_begins_to_win_and_draws_it() {
    let folder = Folder::new();
    let args = ["--shape", "64x128", "--tokens", "1,16", "--sparsity", "0,0.5,0.99", "--seconds", "0", "--out", "sweep"];
    let printed = folder.succeeds(&[&["bench", "sweep", "--json"][..], &args].concat());
    let lines = lines(&printed);
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|l| l["cases"].as_array().unwrap().len() == 3));
    for file in ["sweep/sweep.csv", "sweep/sweep.svg", "sweep/sweep.html"] {
        assert!(std::fs::metadata(folder.path(file)).unwrap().len() > 200, "{file}");
    }
}

#[test]
fn bad_input_is_one_line() {
    let folder = Folder::new();
    let refused = |args: &[&str], says: &str| {
        let line = folder.refuses(&[&["bench", "spmm"], args].concat());
        assert!(line.contains(says), "{args:?}: {line}");
    };
    let half = ["--sparsity", "0.5"];
    for (shape, says) in [
        ("4x", "shape: '4x' is not OUTxIN, as 4096x4096"),
        ("0x4", "shape: '0x4' has no weights"),
        ("100000x100000", "shape: '100000x100000' has more than 1073741824 weights"),
        ("4294967296x4294967296", "has more than 1073741824 weights"),
    ] {
        refused(&[&["--shape", shape][..], &half].concat(), says);
    }
    let small = ["--shape", "4x4"];
    for (more, says) in [
        (&["--sparsity", "1.5"][..], "sparsity: 1.5 is not in [0, 1)"),
        (&["--sparsity", "NaN"], "sparsity"),
        (&[], "sparsity: pattern unstructured needs one"),
        (&["--sparsity", "0.5", "--pattern", "2:4"], "sparsity: pattern 2:4 fixes the sparsity"),
        (&["--sparsity", "0.5", "--pattern", "9"], "pattern: '9' is none of"),
        (&["--sparsity", "0.5", "--tokens", "0"], "tokens: 0, where 1 or more are possible"),
        (&["--sparsity", "0.5", "--threads", "0"], "threads: 0, where 1 to 1024 are possible"),
        (&["--sparsity", "0.5", "--format", "coo"], "format: 'coo' is none of"),
        (&["--sparsity", "0.5", "--values", "f64"], "values: 'f64' is none of"),
        (&["--sparsity", "0.5", "--values", "i8"], "values: the plan keeps f32 only, not i8; name a format"),
        (&["--sparsity", "0.5", "--seconds", "NaN"], "seconds: NaN"),
    ] {
        refused(&[&small[..], more].concat(), says);
    }
    let line = folder.refuses(&["bench", "sweep", "--sparsity", "0.9,0.5"]);
    assert!(line.contains("sparsity: give rising numbers"), "{line}");
}
