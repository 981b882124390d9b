//! What does not work: exit code 2, one line, nothing written.

use crate::common::{Folder, model};
use lacuna::io::{Checkpoint, Dtype};
use ndarray::{Array1, Array2};
use std::fs;

/// Prunes this file by half.
fn half(folder: &Folder, file: &str) -> String {
    folder.refuses(&["prune", file, "out.safetensors", "--sparsity", "0.5"])
}

fn with_options(options: &[&str]) -> String {
    Folder::new().refuses(&[&["prune", "model.safetensors", "out.safetensors"], options].concat())
}

/// A safetensors file with this header and this many zero bytes behind.
fn raw(length: u64, json: &str, data: usize) -> Vec<u8> {
    [&length.to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let folder = Folder::new();
    let good = fs::read(folder.path("model.safetensors")).unwrap();
    let ints = r#"{"w":{"dtype":"I64","shape":[2,2],"data_offsets":[0,32]}}"#;
    let huge = r#"{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}"#;
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("empty", vec![], "the file is empty"),
        ("short", good[..5].to_vec(), "5 bytes"),
        ("truncated", good[..good.len() - 7].to_vec(), "bytes"),
        ("cut", good[..60].to_vec(), "bytes"),
        ("header", raw(u64::MAX, "{}", 0), "header"),
        ("large", raw(1 << 40, "{}", 0), "header"),
        ("shape", raw(huge.len() as u64, huge, 16), "'w'"),
        ("ints", raw(ints.len() as u64, ints, 32), "no weights to prune"),
    ];
    for (name, bytes, says) in cases {
        let file = format!("{name}.safetensors");
        fs::write(folder.path(&file), bytes).unwrap();
        let line = half(&folder, &file);
        assert!(line.starts_with(&file) && line.contains(says), "{line}");
        if name != "ints" {
            assert!(folder.refuses(&["inspect", &file]).starts_with(&file));
        }
    }
    let line = half(&folder, "missing.safetensors");
    assert!(line.starts_with("missing.safetensors: ") && line.contains("No such file"), "{line}");
    fs::create_dir(folder.path("folder")).unwrap();
    let line = half(&folder, "folder");
    assert!(line.starts_with("folder/config.json: ") && line.contains("No such file"), "{line}");
}

#[test]
fn weights_that_cannot_be_ranked() {
    let folder = Folder::new();
    for (value, dtype) in [(f32::NAN, Dtype::F32), (f32::INFINITY, Dtype::BF16), (f32::NEG_INFINITY, Dtype::F16)] {
        let mut file = model(dtype);
        let mut w = file.matrix("fc2.weight").unwrap();
        w[[3, 5]] = value;
        file.set_matrix("fc2.weight", w).unwrap();
        file.write(folder.path("bad.safetensors")).unwrap();
        let expected = format!("tensor 'fc2.weight': {value} at row 3, column 5; only finite numbers can be ranked or stored");
        assert_eq!(half(&folder, "bad.safetensors"), expected);
        // What is left alone may be what it likes.
        let skip = ["prune", "bad.safetensors", "skipped.safetensors", "--force", "--sparsity", "0.5", "--skip", "fc2.weight"];
        folder.succeeds(&skip);
    }
    let mut vectors = Checkpoint::new();
    vectors.insert("bias", Array1::<f32>::ones(4), Dtype::F32).unwrap();
    vectors.write(folder.path("bad.safetensors")).unwrap();
    assert!(half(&folder, "bad.safetensors").contains("no weights to prune"));
}

#[test]
fn names_out_of_a_file_cannot_break_the_line() {
    let folder = Folder::new();
    let mut file = model(Dtype::F32);
    file.insert("two\nlines\u{1b}[31m", Array2::<f32>::zeros((2, 3)), Dtype::F32).unwrap();
    file.insert(&"x".repeat(4000), Array2::<f32>::zeros((2, 4)), Dtype::F32).unwrap();
    file.write(folder.path("bad.safetensors")).unwrap();
    let line = folder.refuses(&["prune", "bad.safetensors", "out.safetensors", "--pattern", "2:4"]);
    assert!(line.starts_with(r"layer two\nlines\u{1b}[31m: "), "{line}");
    // Names of more than 200 bytes are not compared with others.
    for (skip, says) in [("two\nlines", r"did you mean 'two\nlines\u{1b}[31m'?"), (&"x".repeat(3999), "xxx…' among 5")] {
        let line = folder.refuses(&["prune", "bad.safetensors", "out.safetensors", "--sparsity", "0.5", "--skip", skip]);
        assert!(line.contains(says) && line.len() < 500, "{line}");
    }
}

#[test]
fn sparsities_outside_their_domain() {
    for text in ["1.0", "1", "-0.1", "NaN", "nan", "inf", "-inf", "1e300"] {
        for option in [vec![format!("--sparsity={text}")], vec!["--sparsity".into(), text.into()]] {
            if text == "-inf" && option.len() == 2 {
                continue; // an option to the eye of the parser
            }
            let option: Vec<&str> = option.iter().map(String::as_str).collect();
            let line = with_options(&option);
            assert!(line.starts_with("sparsity: ") && line.contains("is not in [0, 1)"), "{line}");
        }
    }
    for text in ["abc", "", "0,5", "50%"] {
        let line = with_options(&["--sparsity", text]);
        assert!(line.contains("--sparsity") && line.contains(text), "{line}");
    }
}

#[test]
fn patterns_that_cannot_be() {
    for (pattern, says) in [
        ("5:4", "keeps N of every M"),
        ("0:4", "keeps N of every M"),
        ("3:7", "7 does not divide the 36 inputs"),
        ("1:18446744073709551616", "is none of"),
        ("1:18446744073709551615", "does not divide"),
        ("block0x4", "a block has rows and columns"),
        ("2x4", "is none of"),
        ("", "is none of"),
    ] {
        let options: &[&str] = if pattern.contains(':') { &[] } else { &["--sparsity", "0.5"] };
        let line = with_options(&[&["--pattern", pattern], options].concat());
        assert!(line.contains(says), "{pattern}: {line}");
    }
    let line = with_options(&["--pattern", "3:7"]);
    assert!(line.starts_with("layer conv.weight: pattern 3:7 does not fit a 8 x 36 matrix"), "{line}");
    let line = with_options(&["--pattern", "rows", "--sparsity", "0.5", "--scope", "row"]);
    assert!(line.contains("cannot be chosen row by row"), "{line}");
}

#[test]
fn options_that_contradict_or_lack_each_other() {
    let line = with_options(&[]);
    assert!(line.contains("--sparsity") && line.contains("--pattern"), "{line}");
    let line = with_options(&["--pattern", "2:4", "--sparsity", "0.5"]);
    assert!(line.contains("which fixes the sparsity"), "{line}");
    let line = with_options(&["--pattern", "2:4", "--layer", "fc1.weight=0.5"]);
    assert!(line.contains("fixes the sparsity of every tensor"), "{line}");
    for pattern in ["rows", "block2x2", "unstructured"] {
        let line = with_options(&["--pattern", pattern]);
        assert!(line.contains(&format!("pattern {pattern} needs one: give --sparsity")), "{line}");
    }
    let line = with_options(&["--sparsity", "0.9", "--layer", "fc1.weight=0", "--layer", "conv.weight=0"]);
    assert!(line.contains("budget: "), "{line}");
}

#[test]
fn names_that_do_not_exist() {
    let line = with_options(&["--sparsity", "0.5", "--skip", "fc1.wieght"]);
    assert_eq!(line, "no layer is named 'fc1.wieght' among 3; did you mean 'fc1.weight'?");
    let line = with_options(&["--sparsity", "0.5", "--layer", "conv.wight=0.2"]);
    assert!(line.ends_with("did you mean 'conv.weight'?"), "{line}");
    for text in ["fc1.weight", "fc1.weight=", "fc1.weight=x"] {
        let line = with_options(&["--sparsity", "0.5", "--layer", text]);
        assert_eq!(line, format!("layer: '{text}' is not TENSOR=SPARSITY, as fc1.weight=0.5"));
    }
    let line = with_options(&["--sparsity", "0.5", "--layer", "=0.5"]);
    assert!(line.starts_with("no layer is named '' among 3"), "{line}");
    let line = with_options(&["--sparsity", "0.5", "--layer", "fc1.weight=1.5"]);
    assert_eq!(line, "layer: 'fc1.weight': 1.5 is not in [0, 1): 0 keeps all, 0.9 drops nine of ten");
    let line = with_options(&["--sparsity", "0.5", "--layer", "fc1=0.5", "--layer", "fc1.weight=0.6"]);
    assert_eq!(line, "layer: 'fc1' and 'fc1.weight' are one layer, which is given twice");
    let line = with_options(&["--sparsity", "0.5", "--layer", "fc1.weight=0.5", "--layer", "fc1.weight=0.5"]);
    assert_eq!(line, "layer: 'fc1.weight' is given twice");
    for args in [&["--method", "obd"][..], &["--allocate", "owls"], &["--scope", "all"], &["--seed", "-1"], &["--no-such"]] {
        let line = with_options(&[args, &["--sparsity", "0.5"]].concat());
        assert!(args.iter().all(|a| line.contains(a)), "{line}");
    }
    let folder = Folder::new();
    assert!(folder.refuses(&["dwindle"]).contains("'dwindle'"));
    assert!(folder.refuses(&["prune", "model.safetensors"]).contains("required"));
    assert!(folder.refuses(&["inspect"]).contains("required"));
}

#[test]
fn no_command_at_all_is_told_of_the_help() {
    let line = Folder::new().refuses(&[]);
    assert!(line.contains("--help"), "{line}");
}

#[test]
fn output_that_cannot_be_written() {
    let folder = Folder::new();
    fs::create_dir(folder.path("folder")).unwrap();
    fs::write(folder.path("file"), "text").unwrap();
    let prune = |out: &str| folder.refuses(&["prune", "model.safetensors", out, "--sparsity", "0.5"]);
    let line = prune("nowhere/out.safetensors");
    assert!(line.contains("nowhere/out.safetensors") && line.contains("does not exist"), "{line}");
    assert!(prune("folder").contains("is a folder"));
    let line = prune("file/out.safetensors");
    assert!(line.contains("file/out.safetensors") && line.to_lowercase().contains("not a "), "{line}");
    if cfg!(target_os = "linux") {
        let line = prune("/dev/full");
        assert!(line.starts_with("/dev/full: No space left"), "{line}");
    }
}

#[test]
fn a_failed_run_leaves_an_older_output_as_it_was() {
    let folder = Folder::new();
    fs::write(folder.path("out.safetensors"), "older").unwrap();
    folder.refuses(&["prune", "model.safetensors", "out.safetensors", "--sparsity", "2"]);
    folder.refuses(&["prune", "missing", "out.safetensors", "--sparsity", "0.5"]);
    assert_eq!(fs::read(folder.path("out.safetensors")).unwrap(), b"older");
}

#[test]
fn a_demo_that_could_not_write_its_report_fails_at_once() {
    let folder = Folder::new();
    fs::write(folder.path("file"), "text").unwrap();
    for out in ["file", "file/below", "/dev/null/below"] {
        let start = std::time::Instant::now();
        let line = folder.refuses(&["demo", "--out", out]);
        assert!(line.starts_with(out), "{line}");
        assert!(start.elapsed().as_secs() < 5, "{out}: it worked first");
    }
    for seeds in ["0", "101", "x"] {
        assert!(folder.refuses(&["demo", "--seeds", seeds]).contains("--seeds"));
    }
}

#[test]
fn variables_of_the_environment_that_cannot_be_met() {
    let folder = Folder::new();
    let with = |name: &str, value: &str| {
        let output = folder.command(&["inspect", "model.safetensors"]).env(name, value).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), output.stdout.is_empty())
    };
    let threads = |value: &str| format!("'{value}', where 1 to 1024 are possible, or 0 for all");
    for (name, value, says) in [
        ("LACUNA_ISA", "foo", "'foo' is none of portable, neon, avx2 and avx512".to_string()),
        ("LACUNA_ISA", "AVX2", "'AVX2' is none of portable, neon, avx2 and avx512".to_string()),
        ("LACUNA_ISA", "a\nb", "'a\\nb' is none of portable, neon, avx2 and avx512".to_string()),
        ("RAYON_NUM_THREADS", "foo", threads("foo")),
        ("RAYON_NUM_THREADS", "-1", threads("-1")),
        ("RAYON_NUM_THREADS", "1.5", threads("1.5")),
        ("RAYON_NUM_THREADS", "1025", threads("1025")),
        ("RAYON_NUM_THREADS", "18446744073709551616", threads("18446744073709551616")),
    ] {
        assert_eq!(with(name, value), (Some(2), format!("error: {name}: {says}\n"), true));
    }
    for (name, value) in [("LACUNA_ISA", ""), ("LACUNA_ISA", "portable"), ("RAYON_NUM_THREADS", ""), ("RAYON_NUM_THREADS", "0")] {
        assert_eq!(with(name, value), (Some(0), String::new(), false), "{name}={value}");
    }
}

#[cfg(unix)]
#[test]
fn paths_that_are_not_utf_8_are_one_line_with_the_option() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let bad = OsStr::from_bytes(b"n\xffme.safetensors");
    std::fs::copy(folder.path("model.safetensors"), folder.path("").join(bad)).unwrap();
    let good = OsStr::new("model.safetensors");
    let out = OsStr::new("out.safetensors");
    for (setting, args) in [("model", [bad, out]), ("out", [good, bad])] {
        for (more, setting) in [(&[][..], setting), (&["--json"], "json"), (&["--print-recipe"], setting)] {
            let output = folder.command(&["prune", "--sparsity", "0.5"]).args(args).args(more).output().unwrap();
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{line}");
            assert!(line.starts_with(&format!("error: {setting}: n\u{fffd}me.safetensors is not UTF-8")), "{line}");
            assert!(line.lines().count() == 1 && !folder.path("out.safetensors").exists(), "{line}");
        }
    }
    let inspect = |more: &[&str]| folder.command(&["inspect"]).arg(bad).args(more).output().unwrap();
    assert_eq!(inspect(&[]).status.code(), Some(0), "what is printed for people may be near enough");
    let output = inspect(&["--json"]);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &*line),
        (Some(2), "error: json: n\u{fffd}me.safetensors is not UTF-8, which JSON cannot hold\n")
    );
}
