//! Plain files with more in them than weights: types that are not read, buffers, masks of other tools, nothing at all.

use crate::build::llama;
use crate::common::Folder;
use lacuna::io::Checkpoint;
use lacuna::mask::Mask;
use lacuna::rng::Seed;
use serde_json::Value;
use std::fs;

/// One tensor: name, dtype, shape, bytes.
type Entry<'a> = (&'a str, &'a str, &'a [usize], Vec<u8>);

/// A safetensors file of these tensors, in this order.
fn file(entries: &[Entry<'_>]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in entries {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.to_string(), serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let json = serde_json::to_string(&header).unwrap();
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &data].concat()
}

fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn normal(name: &str, n: usize) -> Vec<f32> {
    Seed(5).stream(name).normal_array(1, n, 1.0).into_raw_vec_and_offset().0
}

fn number(value: &Value, key: &str) -> usize {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} of {value}")) as usize
}

/// The reason for which a tensor was left alone.
fn why<'a>(said: &'a Value, name: &str) -> &'a str {
    let list = said["left_alone"].as_array().unwrap();
    let found = list.iter().find(|l| l["name"] == name).unwrap_or_else(|| panic!("{name} is not named: {list:?}"));
    found["why"].as_str().unwrap()
}

fn prune(folder: &Folder, bytes: Vec<u8>, options: &[&str]) -> (Value, Checkpoint) {
    fs::write(folder.path("in.safetensors"), bytes).unwrap();
    let args = [&["prune", "in.safetensors", "out.safetensors", "--force"], options];
    let said = folder.json(&[&args.concat()[..], &["--json"]].concat());
    // What the table says is the same: every tensor that was left alone is named.
    let text = folder.succeeds(&args.concat());
    for left in said["left_alone"].as_array().unwrap() {
        assert!(text.contains(left["name"].as_str().unwrap()) && text.contains(left["why"].as_str().unwrap()), "{text}");
    }
    (said, folder.read("out.safetensors"))
}

const HALF: [&str; 2] = ["--sparsity", "0.5"];

#[test]
fn matrices_of_types_that_are_not_read_are_named_and_counted() {
    let folder = Folder::new();
    let f64s: Vec<u8> = normal("b", 128).iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    let f8s: Vec<u8> = (0..128u8).collect(); // one of them is 0
    let entries: [Entry<'_>; 7] = [
        ("b.weight", "F64", &[8, 16], f64s.clone()),
        ("a.weight_scale", "F32", &[1], f32s([1.0])),
        ("c.weight", "F32", &[8, 16], f32s(normal("c", 128))),
        ("a.weight", "F8_E4M3", &[8, 16], f8s.clone()),
        ("d.weight", "F8_E5M2", &[8, 16], f8s.clone()),
        ("d.exponents", "F8_E8M0", &[8, 4], vec![127; 32]),
        ("ids", "I64", &[2, 2], vec![0; 32]),
    ];
    let (said, out) = prune(&folder, file(&entries), &HALF);
    assert_eq!((number(&said, "weights"), number(&said, "kept")), (128, 64));
    assert_eq!(number(&said, "parameters"), 128 + 1 + 128 + 128 + 128 + 32);
    assert_eq!(why(&said, "d.exponents"), "scales of quantised numbers");
    for name in ["a.weight", "b.weight", "d.weight"] {
        assert_eq!(why(&said, name), "not read: F32, F16 and BF16 are", "{name}");
    }
    assert_eq!(why(&said, "ids"), "no floating-point numbers");
    assert_eq!(said["left_alone"].as_array().unwrap().len(), 5);
    // 64 went, and one zero of each F8 matrix was there.
    assert!((said["whole_sparsity"].as_f64().unwrap() - 66.0 / 545.0).abs() < 1e-12, "{said}");
    // They are as they were, to the bit.
    let bytes = out.to_bytes().unwrap();
    assert!([&f64s, &f8s].iter().all(|part| bytes.windows(part.len()).any(|w| w == **part)));

    let inspected = folder.json(&["inspect", "out.safetensors", "--json"]);
    for key in ["parameters", "whole_sparsity"] {
        assert_eq!(inspected[key], said[key], "{key}");
    }
    assert_eq!((number(&inspected, "weights"), number(&inspected, "kept")), (128 * 4, 64 + 128 + 127 * 2));
    let row = |name: &str| inspected["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap().clone();
    assert_eq!((&row("a.weight")["kept"], &row("a.weight")["by"]), (&127.into(), &"zeros".into()));
    assert_eq!((&row("ids")["kept"], &row("ids")["role"]), (&Value::Null, &"no floating-point numbers".into()));
    assert!(folder.succeeds(&["inspect", "out.safetensors"]).contains("not read: F32, F16 and BF16 are"));

    // They may be skipped, for they are left alone anyway; a sparsity of theirs is refused.
    folder.succeeds(&["prune", "in.safetensors", "new.safetensors", "--sparsity", "0.5", "--skip", "a.weight"]);
    let line = folder.refuses(&["prune", "in.safetensors", "x.safetensors", "--sparsity", "0.1", "--layer", "a.weight=0.5"]);
    assert_eq!(line, "layer: 'a.weight' is left alone: F8_E4M3, not read: F32, F16 and BF16 are");
    // A file of nothing else.
    fs::write(folder.path("f8.safetensors"), file(&entries[3..4])).unwrap();
    let line = folder.refuses(&["prune", "f8.safetensors", "x.safetensors", "--sparsity", "0.5"]);
    assert!(
        line.contains("holds no weights to prune")
            && line.ends_with("; 'a.weight' is left alone: not read: F32, F16 and BF16 are"),
        "{line}"
    );
}

#[test]
fn scales_of_quantised_weights_are_not_weights() {
    let folder = Folder::new();
    let scales = || f32s(normal("s", 8));
    let entries: [Entry<'_>; 6] = [
        ("a.weight", "F8_E4M3", &[8, 16], vec![1; 128]),
        ("a.weight_scale_inv", "F32", &[2, 4], scales()),
        ("b.qweight", "I32", &[2, 16], vec![0; 128]),
        ("b.scales", "F32", &[2, 4], scales()),
        ("c.weight", "F32", &[2, 4], scales()),
        ("c.scales", "F32", &[2, 4], scales()), // beside a weight that is read it is one too
    ];
    let (said, _) = prune(&folder, file(&entries), &HALF);
    assert_eq!(number(&said, "weights"), 16);
    for name in ["a.weight_scale_inv", "b.scales"] {
        assert_eq!(why(&said, name), "scales of quantised numbers");
    }
    assert_eq!(number(&said, "parameters"), 128 + 4 * 8);
}

#[test]
fn buffers_that_look_like_weights_are_left_alone_and_said() {
    let folder = Folder::new();
    let causal = |n: usize| f32s((0..n * n).map(move |i| f32::from(u8::from(i % n <= i / n))));
    let angles = f32s((0..50 * 4).map(|i| {
        let a = (i / 4) as f32 / 100f32.powf((i % 4 / 2) as f32 / 2.0);
        if i % 2 == 0 { a.sin() } else { a.cos() }
    }));
    let shifted = f32s((0..9).map(|i| if i % 3 > i / 3 { f32::NEG_INFINITY } else { 0.0 }));
    let entries: [Entry<'_>; 11] = [
        ("h.0.attn.bias", "F32", &[1, 1, 16, 16], causal(16)),
        ("h.0.attn.masked_bias", "F32", &[], f32s([-1e4])),
        ("h.0.attn.c_attn.weight", "F32", &[8, 8], f32s(normal("w", 64))),
        ("h.1.attn.mask", "F32", &[1, 1, 8, 8], causal(8)),
        ("h.1.attn.weight", "F32", &[8, 8], f32s(normal("v", 64))),
        ("attn_mask", "F32", &[3, 3], shifted),
        ("pos_encoder.pe", "F32", &[1, 50, 4], angles),
        ("rotary_emb.inv_freq", "F32", &[4], f32s([1.0; 4])),
        ("bn.running_mean", "F32", &[6], f32s([1.0; 6])),
        // Weights: a depthwise convolution, a square that is causal by name of a weight, a learned table.
        ("dw.weight", "F32", &[6, 1, 3, 3], f32s(normal("d", 54))),
        ("cumulate.weight", "F32", &[8, 8], causal(8)),
    ];
    let (said, out) = prune(&folder, file(&entries), &HALF);
    assert_eq!(number(&said, "weights"), 64 + 64 + 54 + 64);
    assert_eq!(number(&said, "parameters"), 64 + 64 + 54 + 64, "buffers are no parameters");
    for name in ["h.0.attn.bias", "h.1.attn.mask", "attn_mask"] {
        assert_eq!(why(&said, name), "buffer: causal mask", "{name}");
    }
    assert_eq!(why(&said, "pos_encoder.pe"), "buffer: table of sines and cosines");
    let before = Checkpoint::read(folder.path("in.safetensors")).unwrap();
    for (name, ..) in entries.iter().filter(|(name, ..)| !name.ends_with("weight")) {
        assert_eq!(out.get(name).unwrap(), before.get(name).unwrap(), "{name}");
    }
    let inspected = folder.json(&["inspect", "out.safetensors", "--json"]);
    for key in ["weights", "kept", "sparsity", "parameters", "whole_sparsity"] {
        assert_eq!(inspected[key], said[key], "{key}");
    }
}

#[test]
fn a_state_of_torchs_pruning_is_read_with_its_masks_and_stays_one() {
    let folder = Folder::new();
    let mut draw = Seed(2).stream("mask");
    let kept: Vec<bool> = (0..128).map(|_| draw.uniform() > 0.5).collect();
    let ones = kept.iter().filter(|k| **k).count();
    let bytes = file(&[
        ("fc.weight_orig", "F32", &[8, 16], f32s(normal("w", 128))),
        ("fc.weight_mask", "F32", &[8, 16], f32s(kept.iter().map(|k| f32::from(u8::from(*k))))),
        ("fc.bias_orig", "F32", &[8], f32s([1.0; 8])),
        ("fc.bias_mask", "F32", &[8], f32s([1., 0., 1., 0., 1., 0., 1., 0.])),
    ]);
    let old = Mask::from_fn(8, 16, |r, c| kept[r * 16 + c]);
    fs::write(folder.path("torch.safetensors"), &bytes).unwrap();
    let inspected = folder.json(&["inspect", "torch.safetensors", "--json"]);
    assert_eq!((number(&inspected, "weights"), number(&inspected, "kept")), (128, ones), "counted once");
    assert_eq!(number(&inspected, "parameters"), 136);
    assert!((inspected["whole_sparsity"].as_f64().unwrap() - (1.0 - (ones + 4) as f64 / 136.0)).abs() < 1e-12);

    for options in [&["--sparsity", "0.75"][..], &["--sparsity", "0.1", "--method", "random"], &["--pattern", "2:4"]] {
        let (said, out) = prune(&folder, bytes.clone(), options);
        assert_eq!(number(&said, "weights"), 128);
        assert_eq!(why(&said, "fc.weight_mask"), "mask of fc.weight_orig, goes with it");
        // Names, types and shapes are those that torch asks for, and nothing is beside them.
        let names: Vec<&str> = out.names().collect();
        assert_eq!(names, ["fc.bias_mask", "fc.bias_orig", "fc.weight_mask", "fc.weight_orig"]);
        assert!(out.metadata().is_empty());
        let (weight, mask) = (out.matrix("fc.weight_orig").unwrap(), out.matrix("fc.weight_mask").unwrap());
        let new = Mask::from_fn(8, 16, |r, c| mask[[r, c]] == 1.0);
        assert!(mask.iter().all(|m| *m == 0.0 || *m == 1.0) && new.is_subset_of(&old), "{options:?}: weights came back");
        assert_eq!(new.kept(), number(&said, "kept"));
        // What torch's module computes with, the product of the two, is the pruned weight.
        let before = Checkpoint::from_bytes("in", &bytes).unwrap();
        assert_eq!(&weight * &mask, new.applied(&before.matrix("fc.weight_orig").unwrap()), "{options:?}");
        assert_eq!(weight, &weight * &mask, "{options:?}");
        assert_eq!(out.matrix("fc.weight_orig").unwrap().dim(), (8, 16));
        if options[0] == "--sparsity" && options[1] == "0.75" {
            assert_eq!(new.kept(), 32);
        }
    }
    // The layer's own name for its weight does as well.
    let half = ["prune", "torch.safetensors", "x.safetensors", "--sparsity", "0.5"];
    let line = folder.refuses(&[&half[..], &["--skip", "fc.weight"]].concat());
    assert!(line.contains("holds no weights to prune"), "{line}");
    let said = folder.json(&[&half[..], &["--layer", "fc.weight=0.5", "--json"]].concat());
    assert_eq!(said["layers"][0]["name"], "fc.weight_orig");
}

#[test]
fn masks_of_other_tools_are_read_in_every_type_and_written_back_in_it() {
    let folder = Folder::new();
    let kept: Vec<bool> = (0..128).map(|i| i % 3 != 0).collect();
    let weight = || f32s(normal("w", 128));
    let one =
        |bytes: &[u8]| -> Vec<u8> { kept.iter().flat_map(|k| bytes.iter().map(move |b| if *k { *b } else { 0 })).collect() };
    let cases: [(&str, &str, &str, Vec<u8>); 9] = [
        ("w", "w.mask", "F32", one(&1f32.to_le_bytes())),
        ("w", "w.mask", "BOOL", one(&[1])),
        ("w", "w.mask", "U8", one(&[1])),
        ("fc.weight", "fc.mask", "I64", one(&1i64.to_le_bytes())),
        ("fc.weight", "fc.weight_mask", "F64", one(&1f64.to_le_bytes())),
        ("fc.module.weight", "fc.weight_mask", "F32", one(&1f32.to_le_bytes())),
        ("fc.weight", "fc.__weight_mma_mask", "BOOL", one(&[1])),
        ("fc.parametrizations.weight.original", "fc.parametrizations.weight.0.mask", "F32", one(&1f32.to_le_bytes())),
        ("fc.weight", "fc.mask_weight", "I32", one(&1i32.to_le_bytes())),
    ];
    for (name, mask, dtype, bytes) in cases {
        let entries: [Entry<'_>; 2] = [(name, "F32", &[8, 16], weight()), (mask, dtype, &[8, 16], bytes)];
        let (said, out) = prune(&folder, file(&entries), &["--sparsity", "0.5", "--method", "random"]);
        assert_eq!((number(&said, "weights"), number(&said, "kept"), number(&said, "parameters")), (128, 64, 128), "{mask}");
        let new = out.mask(name).unwrap().unwrap();
        assert_eq!(out.info(mask).unwrap().dtype, dtype, "{mask}");
        assert_eq!(out.info(mask).unwrap().shape, [8, 16], "{mask}");
        assert!(new.kept() == 64 && new.is_subset_of(&Mask::from_fn(8, 16, |r, c| kept[r * 16 + c])), "{mask} of {dtype}");
        assert_eq!(out.len(), 2, "{mask}");
    }
}

#[test]
fn what_is_called_a_mask_and_is_none_is_said_and_never_overwritten() {
    let folder = Folder::new();
    let weight = || f32s(normal("w", 128));
    let cases: [Entry<'_>; 3] = [
        ("w.mask", "F32", &[8, 16], f32s(normal("m", 128))),
        ("w.mask", "F32", &[8, 1], f32s([1.0; 8])),
        ("w.mask", "BOOL", &[4, 4], vec![1; 16]),
    ];
    for entry in cases {
        let (shape, bytes) = (format!("{:?}", entry.2), file(&[("w", "F32", &[8, 16], weight()), entry.clone()]));
        fs::write(folder.path("odd.safetensors"), bytes).unwrap();
        let said = folder.json(&["inspect", "odd.safetensors", "--json"]);
        assert!(said["tensors"][1]["role"].as_str().unwrap().contains("called a mask, and none"), "{said}");
        assert_eq!((number(&said, "weights"), number(&said, "parameters")), (128, 128));
        let line = folder.refuses(&["prune", "odd.safetensors", "x.safetensors", "--sparsity", "0.5"]);
        assert!(line.contains("'w.mask'") && line.contains(&shape) && line.contains("is no mask of 'w'"), "{line}");
    }
    // Under another name it is no hindrance; a mask without its weight is none.
    let entries: [Entry<'_>; 3] = [
        ("w", "F32", &[8, 16], weight()),
        ("w_mask", "F32", &[8, 1], f32s([1.0; 8])),
        ("gone.weight_mask", "F32", &[2, 2], f32s([1.0, 0.0, 1.0, 1.0])),
    ];
    let (said, out) = prune(&folder, file(&entries), &HALF);
    assert!(why(&said, "w_mask").contains("called a mask, and none"), "{said}");
    assert_eq!(why(&said, "gone.weight_mask"), "buffer: mask without its weight");
    assert!(out.contains("w.mask") && number(&said, "weights") == 128);
}

#[test]
fn what_a_weight_is_computed_of_is_left_alone() {
    let folder = Folder::new();
    let numbers = |n: usize| f32s(normal("w", n));
    let entries: [Entry<'_>; 7] = [
        ("a.weight_g", "F32", &[8, 1], numbers(8)),
        ("a.weight_v", "F32", &[8, 16], numbers(128)),
        ("b.parametrizations.weight.original0", "F32", &[8, 1], numbers(8)),
        ("b.parametrizations.weight.original1", "F32", &[8, 16], numbers(128)),
        ("c.weight_orig", "F32", &[8, 16], numbers(128)),
        ("c.weight_u", "F32", &[8], numbers(8)),
        ("d.weight", "F32", &[8, 16], numbers(128)),
    ];
    let (said, _) = prune(&folder, file(&entries), &HALF);
    assert_eq!((number(&said, "weights"), number(&said, "parameters")), (128, 4 * 128 + 3 * 8));
    for (name, says) in [
        ("a.weight_g", "weight norm"),
        ("a.weight_v", "weight norm"),
        ("b.parametrizations.weight.original0", "parametrization"),
        ("b.parametrizations.weight.original1", "parametrization"),
        ("c.weight_orig", "spectral norm"),
    ] {
        assert!(why(&said, name).starts_with(says) || why(&said, name).contains(says), "{name}: {}", why(&said, name));
    }
}

#[test]
fn weights_without_numbers_are_passed_over_and_said() {
    let folder = Folder::new();
    let entries: [Entry<'_>; 6] = [
        ("w", "F32", &[8, 16], f32s(normal("w", 128))),
        ("e", "F32", &[4, 0], vec![]),
        ("z", "F32", &[0], vec![]),
        ("f", "BF16", &[0, 4], vec![]),
        ("g", "F8_E4M3", &[3, 0, 2], vec![]),
        ("s", "F32", &[], f32s([2.5])),
    ];
    for options in [
        &HALF[..],
        &["--pattern", "2:4"],
        &["--sparsity", "0.5", "--allocate", "erk"],
        &["--sparsity", "0.5", "--layer", "w=0.5"],
    ] {
        let (said, out) = prune(&folder, file(&entries), options);
        assert_eq!((number(&said, "weights"), number(&said, "kept"), number(&said, "parameters")), (128, 64, 129), "{options:?}");
        for name in ["e", "f", "g"] {
            assert_eq!(why(&said, name), "no numbers", "{name}");
            assert!(!out.contains(&format!("{name}.mask")));
        }
        assert_eq!(out.len(), 7);
    }
    let said = folder.json(&["inspect", "in.safetensors", "--json"]);
    let empty = said["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "e").unwrap();
    assert_eq!((&empty["sparsity"], &empty["numbers"]), (&Value::Null, &0.into()));
}

#[test]
fn no_numbers_have_no_sparsity() {
    let folder = Folder::new();
    for (name, entries) in
        [("none", vec![]), ("empty", vec![("e", "F32", &[4, 0][..], vec![])]), ("ids", vec![("i", "I64", &[1][..], vec![0; 8])])]
    {
        let path = format!("{name}.safetensors");
        fs::write(folder.path(&path), file(&entries)).unwrap();
        let said = folder.json(&["inspect", &path, "--json"]);
        for key in ["sparsity", "whole_sparsity"] {
            assert_eq!(said[key], Value::Null, "{key} of {name}: {said}");
        }
        assert_eq!((number(&said, "weights"), number(&said, "parameters")), (0, 0), "{name}");
        let text = folder.succeeds(&["inspect", &path]);
        assert!(text.contains('–') && !text.contains("1.0000") && !text.contains("NaN"), "{text}");
    }
    // Biases alone are a model without weights.
    fs::write(folder.path("bias.safetensors"), file(&[("b", "F32", &[4], f32s([1.0; 4]))])).unwrap();
    let said = folder.json(&["inspect", "bias.safetensors", "--json"]);
    assert_eq!((&said["sparsity"], &said["whole_sparsity"]), (&Value::Null, &0.0.into()));
}

#[test]
fn weights_that_are_packed_in_a_file_are_counted_as_what_they_are_and_left_alone() {
    let folder = Folder::new();
    let mut model = Checkpoint::new();
    let w = Seed(4).stream("w").normal_array(8, 16, 1.0);
    let mask = Mask::from_fn(8, 16, |r, c| (r + c) % 4 < 2);
    model.insert_sparse_24_bitmask("a.weight", &w, &mask, lacuna::io::Dtype::F32).unwrap();
    model.insert_packed("b.weight", (&w, &mask), "bitmask".parse().unwrap(), "f32".parse().unwrap()).unwrap();
    model.insert("c.weight", w.clone(), lacuna::io::Dtype::F32).unwrap();
    let (said, out) = prune(&folder, model.to_bytes().unwrap(), &HALF);
    assert_eq!((number(&said, "weights"), number(&said, "parameters")), (128, 3 * 128));
    assert_eq!(said["whole_sparsity"], 0.5);
    for name in ["a.weight", "b.weight"] {
        assert_eq!(why(&said, name), "packed: stored without its zeros");
    }
    assert_eq!(out.published("a.weight").unwrap().0, mask.applied(&w));
    assert_eq!(out.storage("b.weight").unwrap().to_dense(), mask.applied(&w));
    let inspected = folder.json(&["inspect", "out.safetensors", "--json"]);
    assert_eq!((number(&inspected, "weights"), number(&inspected, "kept")), (384, 192));
    assert_eq!(inspected["packed"].as_array().unwrap().len(), 2);
}

/// The tensors of a file as entries, those for which `as_f8` is true as bytes of F8.
fn entries(model: &Checkpoint, as_f8: impl Fn(&str) -> bool) -> Vec<(String, &'static str, Vec<usize>, Vec<u8>)> {
    let one = |(name, values): (&str, &ndarray::ArrayD<f32>)| {
        let (dtype, bytes) = if as_f8(name) {
            ("F8_E4M3", values.iter().enumerate().map(|(i, _)| (i % 16) as u8).collect()) // one of 16 is 0
        } else {
            ("F32", f32s(values.iter().copied()))
        };
        (name.to_string(), dtype, values.shape().to_vec(), bytes)
    };
    model.weights().map(one).collect()
}

#[test]
fn a_folder_counts_what_it_cannot_read_and_leaves_buffers_out() {
    let folder = Folder::new();
    llama().write(folder.path("tiny.gguf"));
    folder.succeeds(&["import", "tiny.gguf", "tiny"]);
    let before = folder.json(&["inspect", "tiny", "--json"]);
    let model = folder.read("tiny/model.safetensors");
    let rewrite = |all: &[(String, &'static str, Vec<usize>, Vec<u8>)]| {
        let all: Vec<Entry<'_>> = all.iter().map(|(n, d, s, b)| (n.as_str(), *d, s.as_slice(), b.clone())).collect();
        fs::write(folder.path("tiny/model.safetensors"), file(&all)).unwrap();
    };
    // Buffers of several kinds and types.
    let mut with = entries(&model, |_| false);
    let causal = f32s((0..64).map(|i| f32::from(u8::from(i % 8 <= i / 8))));
    with.push(("model.layers.0.attn.bias".into(), "F32", vec![1, 1, 8, 8], causal));
    with.push(("model.layers.1.attn.bias".into(), "BOOL", vec![1, 1, 8, 8], vec![1; 64]));
    with.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), "F32", vec![4], f32s([1.0; 4])));
    rewrite(&with);
    for more in [&[][..], &["--no-count"], &["--count"]] {
        let said = folder.json(&[&["inspect", "tiny", "--json"], more].concat());
        assert_eq!(said["whole"]["parameters"], before["whole"]["parameters"], "{more:?}");
        assert_eq!(said["buffers"]["parameters"], 64 + 64 + 4, "{more:?}");
        if more != ["--no-count"] {
            assert_eq!(said["whole"]["sparsity"], before["whole"]["sparsity"], "an integer hides no sparsity");
        }
    }
    assert!(folder.succeeds(&["inspect", "tiny"]).contains("buffers (no parameters)"));
    let said = folder.json(&["prune", "tiny", "half", "--sparsity", "0.5", "--json"]);
    assert_eq!(said["parameters"], before["whole"]["parameters"]);
    assert_eq!(folder.json(&["inspect", "half", "--json"])["whole"]["sparsity"], said["whole_sparsity"]);

    // Layers of a type that is not read: counted, named, and refused before anything is done.
    let is_f8 = |name: &str| name.contains("mlp");
    rewrite(&entries(&model, is_f8));
    let said = folder.json(&["inspect", "tiny", "--json"]);
    assert_eq!(said["whole"]["parameters"], before["whole"]["parameters"]);
    let feed = &said["kinds"]["feed-forward"];
    assert_eq!(feed["sparsity"], 1.0 / 16.0, "{feed}");
    let text = folder.succeeds(&["inspect", "tiny"]);
    assert!(text.contains("not read: 6 tensors") && text.contains("F8_E4M3"), "{text}");
    let line = folder.refuses(&["prune", "tiny", "x", "--sparsity", "0.5"]);
    assert!(line.contains("mlp.gate_proj is F8_E4M3, one of 6 whose numbers are not read"), "{line}");
    folder.succeeds(&["prune", "tiny", "some", "--sparsity", "0.5", "--skip", "mlp"]);
    assert_eq!(folder.json(&["inspect", "some", "--json"])["kinds"]["attention"]["sparsity"], 0.5);
}
