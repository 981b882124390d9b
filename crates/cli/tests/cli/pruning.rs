//! What works.

use crate::common::{Folder, WEIGHTS, model};
use lacuna::io::{Checkpoint, Dtype};
use lacuna::mask::{Mask, Pattern};
use serde_json::Value;

/// Masks of all weights, after the laws that hold for every pruned file: what went is 0, what stays is as it was, all else
/// is untouched.
fn masks(before: &Checkpoint, after: &Checkpoint) -> Vec<(String, Mask)> {
    for (name, _) in before.weights() {
        let (old, new) = (before.get(name).unwrap(), after.get(name).unwrap());
        assert_eq!(after.dtype(name).unwrap(), before.dtype(name).unwrap(), "{name}");
        assert_eq!(new.shape(), old.shape(), "{name}");
        match after.mask(name).unwrap() {
            None => assert_eq!(new, old, "{name}"),
            Some(mask) => assert_eq!(after.matrix(name).unwrap(), mask.applied(&before.matrix(name).unwrap()), "{name}"),
        }
    }
    for (key, value) in before.metadata().iter().filter(|(k, _)| !k.ends_with(".mask.cols")) {
        assert_eq!(after.metadata().get(key), Some(value));
    }
    after.masks().unwrap()
}

fn prune(folder: &Folder, options: &[&str]) -> Vec<(String, Mask)> {
    folder.succeeds(&[&["prune", "model.safetensors", "out.safetensors", "--force"], options].concat());
    masks(&folder.read("model.safetensors"), &folder.read("out.safetensors"))
}

fn kept(masks: &[(String, Mask)]) -> usize {
    masks.iter().map(|(_, m)| m.kept()).sum()
}

fn of<'a>(masks: &'a [(String, Mask)], name: &str) -> &'a Mask {
    &masks.iter().find(|(n, _)| n == name).unwrap().1
}

#[test]
fn magnitude_keeps_the_larger_half_of_every_layer() {
    let folder = Folder::new();
    let masks = prune(&folder, &["--sparsity", "0.5"]);
    let before = folder.read("model.safetensors");
    assert_eq!(masks.len(), 3);
    for (name, mask) in &masks {
        assert_eq!(2 * mask.kept(), mask.len(), "{name}");
        let w = before.matrix(name).unwrap();
        let least = mask.iter_kept().map(|(r, c)| w[[r, c]].abs()).fold(f32::INFINITY, f32::min);
        let most = mask.not().iter_kept().map(|(r, c)| w[[r, c]].abs()).fold(0.0, f32::max);
        assert!(most <= least, "{name}: {most} went, {least} stayed");
    }
    // The order of weights is that of their squares.
    assert_eq!(prune(&folder, &["--sparsity", "0.5", "--method", "magnitude-l2"]), masks);
}

#[test]
fn every_allocation_keeps_the_budget_of_the_whole() {
    let folder = Folder::new();
    let mut distinct = Vec::new();
    for allocate in ["uniform", "global", "er", "erk", "lamp"] {
        let masks = prune(&folder, &["--sparsity", "0.7", "--allocate", allocate]);
        assert_eq!(kept(&masks), 240, "{allocate}");
        let parts: Vec<usize> = masks.iter().map(|(_, m)| m.kept()).collect();
        assert!(!distinct.contains(&parts), "{allocate} allots as another does: {parts:?}");
        distinct.push(parts);
    }
}

#[test]
fn every_pattern_is_in_the_file() {
    let folder = Folder::new();
    let patterns: [(&str, &[&str]); 6] = [
        ("2:4", &["--pattern", "2:4"]),
        ("1:4", &["--pattern", "1:4", "--method", "random"]),
        ("block4x4", &["--pattern", "block4x4", "--sparsity", "0.5"]),
        ("rows", &["--pattern", "rows", "--sparsity", "0.25"]),
        ("cols", &["--pattern", "cols", "--sparsity", "0.5", "--method", "magnitude-l2"]),
        ("unstructured", &["--pattern", "unstructured", "--sparsity", "0.9"]),
    ];
    for (pattern, options) in patterns {
        for (name, mask) in prune(&folder, options) {
            pattern.parse::<Pattern>().unwrap().check(&mask).unwrap_or_else(|e| panic!("{name}: {e}"));
            let density = match pattern {
                "1:4" => 0.25,
                "rows" => 0.75,
                "unstructured" => 0.1,
                _ => 0.5,
            };
            let units = if pattern == "unstructured" { mask.len() } else { mask.rows().min(mask.cols()) };
            assert!((mask.density() - density).abs() <= 1.0 / units as f64, "{pattern}, {name}: {}", mask.density());
        }
    }
}

#[test]
fn in_row_scope_every_row_keeps_as_many() {
    let folder = Folder::new();
    for (name, mask) in prune(&folder, &["--sparsity", "0.5", "--scope", "row"]) {
        assert!(mask.row_counts().iter().all(|n| 2 * n == mask.cols()), "{name}: {:?}", mask.row_counts());
    }
    let by_layer = prune(&folder, &["--sparsity", "0.5", "--scope", "layer"]);
    assert!(by_layer.iter().any(|(_, m)| m.row_counts().iter().any(|n| 2 * n != m.cols())));
}

#[test]
fn a_tensor_may_have_a_sparsity_of_its_own() {
    let folder = Folder::new();
    let masks = prune(&folder, &["--sparsity", "0.5", "--layer", "fc2.weight=0", "--layer", "conv.weight=0.75"]);
    assert_eq!((of(&masks, "fc2.weight").kept(), of(&masks, "conv.weight").kept(), kept(&masks)), (128, 72, 400));
}

#[test]
fn a_tensor_may_be_left_alone() {
    let folder = Folder::new();
    let masks = prune(&folder, &["--sparsity", "0.5", "--skip", "fc2.weight", "--skip", "conv.weight"]);
    assert_eq!((masks.len(), masks[0].0.as_str(), masks[0].1.kept()), (1, "fc1.weight", 192));
}

#[test]
fn random_masks_are_those_of_their_seed() {
    let folder = Folder::new();
    let random = |seed: &str| prune(&folder, &["--sparsity", "0.5", "--method", "random", "--seed", seed]);
    let (first, other) = (random("1"), random("2"));
    assert_eq!(first, random("1"));
    assert_ne!(first, other);
}

#[test]
fn the_same_command_writes_the_same_bytes() {
    let folder = Folder::new();
    let run = || {
        prune(&folder, &["--sparsity", "0.6", "--allocate", "global"]);
        std::fs::read(folder.path("out.safetensors")).unwrap()
    };
    assert_eq!(run(), run());
}

#[test]
fn json_agrees_with_the_file_and_with_inspect() {
    let folder = Folder::new();
    let printed =
        folder.json(&["prune", "model.safetensors", "out.safetensors", "--sparsity", "0.8", "--allocate", "erk", "--json"]);
    let masks = masks(&folder.read("model.safetensors"), &folder.read("out.safetensors"));
    let number = |v: &Value, key: &str| usize::try_from(v[key].as_u64().unwrap()).unwrap();
    assert_eq!((number(&printed, "weights"), number(&printed, "kept")), (800, kept(&masks)));
    assert_eq!((number(&printed, "parameters"), number(&printed, "whole_kept")), (816, 16 + kept(&masks)));
    assert_eq!((printed["method"].as_str(), printed["pattern"].as_str()), (Some("magnitude"), Some("unstructured")));
    assert_eq!((printed["allocate"].as_str(), printed["out"].as_str()), (Some("erk"), Some("out.safetensors")));
    let near = |v: &Value, expected: f64| (v.as_f64().unwrap() - expected).abs() < 1e-12;
    assert!(near(&printed["sparsity"], 0.8) && near(&printed["whole_sparsity"], 640.0 / 816.0), "{printed}");

    let inspected = folder.json(&["inspect", "out.safetensors", "--json"]);
    for key in ["weights", "kept", "sparsity", "parameters", "whole_sparsity"] {
        assert_eq!(inspected[key], printed[key], "{key}");
    }
    assert_eq!(printed["layers"].as_array().unwrap().len(), WEIGHTS.len());
    for (layer, (name, weights)) in printed["layers"].as_array().unwrap().iter().zip(WEIGHTS) {
        assert_eq!((layer["name"].as_str(), number(layer, "weights")), (Some(name), weights));
        assert_eq!(number(layer, "kept"), of(&masks, name).kept());
        let row = inspected["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap();
        assert_eq!((&row["kept"], &row["shape"], row["by"].as_str()), (&layer["kept"], &layer["shape"], Some("mask")));
    }
    assert_eq!(number(&inspected, "bytes"), std::fs::read(folder.path("out.safetensors")).unwrap().len());
    // Without masks, zeros are counted.
    let plain = folder.json(&["inspect", "model.safetensors", "--json"]);
    assert_eq!((number(&plain, "kept"), plain["tensors"][0]["by"].as_str()), (800, Some("zeros")));
}

#[test]
fn tables_name_every_tensor_and_both_sparsities() {
    let folder = Folder::new();
    let pruned = folder.succeeds(&["prune", "model.safetensors", "out.safetensors", "--sparsity", "0.75"]);
    let inspected = folder.succeeds(&["inspect", "out.safetensors"]);
    for text in [&pruned, &inspected] {
        assert!(WEIGHTS.iter().all(|(name, _)| text.contains(name)), "{text}");
        assert!(text.contains("0.7500") && text.contains("0.7353"), "{text}"); // 600 of 800, and of 816
    }
    assert!(pruned.contains("whole file") && inspected.contains("whole model"));
}

#[test]
fn half_precision_stays_half_precision() {
    let folder = Folder::new();
    for dtype in [Dtype::BF16, Dtype::F16] {
        model(dtype).write(folder.path("model.safetensors")).unwrap();
        let masks = prune(&folder, &["--sparsity", "0.5"]);
        assert_eq!(kept(&masks), 400, "{dtype}");
        let inspected = folder.json(&["inspect", "out.safetensors", "--json"]);
        let rows = inspected["tensors"].as_array().unwrap();
        let expected = dtype.to_string();
        assert_eq!(rows.iter().filter(|t| t["dtype"] == expected.as_str()).count(), 4, "{inspected}");
        assert_eq!(rows.iter().filter(|t| t["dtype"] == "U8").count(), 3, "{inspected}");
    }
}

#[test]
fn what_an_earlier_run_dropped_stays_dropped() {
    let folder = Folder::new();
    let first = prune(&folder, &["--sparsity", "0.6", "--method", "random"]);
    std::fs::rename(folder.path("out.safetensors"), folder.path("once.safetensors")).unwrap();
    let again: [&[&str]; 6] = [
        &["--sparsity", "0.9"],
        &["--sparsity", "0.3"],
        &["--sparsity", "0.7", "--method", "random", "--seed", "9", "--allocate", "global"],
        &["--pattern", "2:4"],
        &["--pattern", "rows", "--sparsity", "0.5"],
        &["--sparsity", "0.7", "--skip", "fc1.weight"],
    ];
    for options in again {
        folder.succeeds(&[&["prune", "once.safetensors", "out.safetensors", "--force"], options].concat());
        let second = masks(&folder.read("once.safetensors"), &folder.read("out.safetensors"));
        assert_eq!(second.len(), 3);
        for (name, mask) in &second {
            assert!(mask.is_subset_of(of(&first, name)), "{options:?}: {name} got weights back");
        }
        if options[1] == "0.9" {
            assert_eq!(kept(&second), 80);
        }
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let folder = Folder::new();
    assert!(folder.succeeds(&["--help"]).contains("Usage: lacuna"));
    assert_eq!(folder.succeeds(&["--version"]), format!("lacuna {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["prune", "inspect", "demo"] {
        assert!(folder.succeeds(&[command, "--help"]).contains(&format!("Usage: lacuna {command}")));
    }
}
