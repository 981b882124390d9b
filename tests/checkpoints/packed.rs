//! Folders whose pruned weights are packed.

use crate::build::numbers;
use crate::close::assert_close;
use crate::folder::content;
use lacuna::io::{Dtype, Folder, FolderWriter, Layout, Packing, repack};
use lacuna::lm::{Config, Inference, LanguageModel, Running};
use lacuna::mask::{Mask, Pattern, Scope, select};
use ndarray::Array2;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const LAYOUTS: [&str; 9] =
    ["sparse-bitmask", "sparse-24-bitmask", "csr", "tile-csr", "tile-pairs", "bitmask", "nm:2:4", "bsr:1x1", "weights"];

/// A tiny Llama of this dtype with 2:4 masks, and one kept weight that is 0.
fn pruned(root: &Path, dtype: Dtype) -> PathBuf {
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![30, 8]), ("model.norm.weight".to_string(), vec![8])];
    let norms = ["input_layernorm", "post_attention_layernorm"].map(|n| (n, vec![8]));
    let square = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"].map(|n| (n, vec![8, 8]));
    let wide = [("mlp.gate_proj", vec![12, 8]), ("mlp.up_proj", vec![12, 8]), ("mlp.down_proj", vec![8, 12])];
    for (name, shape) in norms.into_iter().chain(square).chain(wide) {
        tensors.push((format!("model.layers.0.{name}.weight"), shape));
    }
    let mut layout = Layout::new(tensors.iter().map(|(n, s)| (n.clone(), dtype, s.clone())), 400).unwrap();
    let masked: Vec<&str> = tensors.iter().map(|(n, _)| n.as_str()).filter(|n| n.contains("proj")).collect();
    layout.masks(masked.iter().copied()).unwrap();
    let dir = root.join("pruned");
    let mut writer = FolderWriter::create(&dir, layout).unwrap();
    for (name, shape) in &tensors {
        let values = numbers(name, shape, 0.5);
        if masked.contains(&name.as_str()) {
            let mut weight: Array2<f32> = values.into_dimensionality().unwrap();
            let pattern = Pattern::Nm { n: 2, m: 4 };
            let budget = pattern.budget(weight.nrows(), weight.ncols(), 0.5).unwrap();
            let mask = select(&weight.mapv(f32::abs), pattern, Scope::Layer, budget).unwrap();
            weight[mask.iter_kept().next().unwrap()] = 0.0;
            writer.write(name, &mask.applied(&weight)).unwrap();
            writer.write_mask(name, &mask).unwrap();
        } else {
            writer.write(name, &values).unwrap();
        }
    }
    let config = json!({
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 30, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "max_position_embeddings": 16, "hidden_act": "silu",
    });
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    dir
}

fn masks(folder: &Folder) -> Vec<(String, Option<Mask>)> {
    folder.names().map(|n| (n.to_string(), folder.mask(n).unwrap())).collect()
}

#[test]
fn every_layout_gives_the_weights_and_masks_back_to_the_bit_and_the_first_folder_again() {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let root = tempfile::tempdir().unwrap();
        let dir = pruned(root.path(), dtype);
        let whole = Folder::open(&dir).unwrap();
        assert!(whole.files().count() > 1 && whole.packed().count() == 0 && whole.is_pruned());
        for layout in LAYOUTS {
            let (out, back) = (root.path().join(layout.replace(':', "-")), root.path().join("back"));
            let packing: Packing = layout.parse().unwrap();
            assert_eq!(packing.to_string().split(':').next(), layout.split(':').next());
            let mut seen = Vec::new();
            repack(&whole, &out, packing, |done, of| seen.push((done, of))).unwrap().finish().unwrap();
            assert_eq!(seen, (1..=7).map(|i| (i, 7)).collect::<Vec<_>>());
            let folder = Folder::open(&out).unwrap();
            assert_eq!(folder.packed().count(), if layout == "weights" { 0 } else { 7 }, "{layout}");
            let mut names: Vec<&str> = folder.names().collect();
            names.sort_unstable();
            let mut first: Vec<&str> = whole.names().collect();
            first.sort_unstable();
            assert_eq!(names, first);
            for name in names {
                assert_eq!(folder.shape(name).unwrap(), whole.shape(name).unwrap());
                assert_eq!(folder.read(name).unwrap(), whole.read(name).unwrap(), "{name} as {layout}");
                assert_eq!(folder.mask(name).unwrap(), whole.mask(name).unwrap(), "{name} as {layout}");
                if layout != "csr" {
                    assert_eq!(folder.dtype(name).unwrap(), dtype, "{name} as {layout}");
                }
            }
            // CSR keeps f32 only, so the dtype is another.
            if layout != "csr" || dtype == Dtype::F32 {
                repack(&folder, &back, Packing::Whole, |_, _| {}).unwrap().finish().unwrap();
                let (again, before) = (Folder::open(&back).unwrap(), Folder::open(&dir).unwrap());
                assert_eq!(masks(&again).len(), masks(&before).len());
                for name in before.names() {
                    assert_eq!(again.read(name).unwrap(), before.read(name).unwrap());
                    assert_eq!(again.mask(name).unwrap(), before.mask(name).unwrap());
                }
                assert_eq!(again.config(), before.config());
                fs::remove_dir_all(&back).unwrap();
            }
        }
        repack(&whole, root.path().join("same"), Packing::Whole, |_, _| {}).unwrap().finish().unwrap();
        assert_eq!(content(&root.path().join("same")), content(&dir), "laid whole it is the same folder");
    }
}

#[test]
fn a_published_layout_says_in_the_configuration_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    let whole = Folder::open(pruned(root.path(), Dtype::BF16)).unwrap();
    let out = root.path().join("out");
    repack(&whole, &out, Packing::Sparse24Bitmask, |_, _| {}).unwrap().finish().unwrap();
    let folder = Folder::open(&out).unwrap();
    let said = &folder.config()["quantization_config"];
    assert_eq!(said["quant_method"], "compressed-tensors");
    assert_eq!(said["sparsity_config"]["format"], "sparse-24-bitmask");
    assert_eq!(said["sparsity_config"]["sparsity_structure"], "2:4");
    assert_eq!(said["sparsity_config"]["global_sparsity"], 0.5);
    assert_eq!(said["sparsity_config"]["ignore"], json!(["model.embed_tokens"]));
    assert!(!out.join("masks.safetensors").exists(), "the layout has the masks in it");
}

#[test]
fn a_folder_of_storages_says_whose_they_are_and_whole_again_says_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = pruned(root.path(), Dtype::BF16);
    let whole = Folder::open(&dir).unwrap();
    for layout in LAYOUTS {
        let (out, back) = (root.path().join(layout.replace(':', "-")), root.path().join("back"));
        repack(&whole, &out, layout.parse().unwrap(), |_, _| {}).unwrap().finish().unwrap();
        let folder = Folder::open(&out).unwrap();
        let own = !layout.contains("sparse-") && layout != "weights";
        let said = folder.config().get("quantization_config");
        assert_eq!(said.is_some(), layout != "weights", "{layout}");
        let formats: Vec<String> = folder
            .files()
            .map(|(path, _)| lacuna::io::read_header(path).unwrap().metadata.get("format").cloned().unwrap_or_default())
            .collect();
        assert!(formats.iter().all(|f| f == if own { "lacuna" } else { "pt" }), "{layout}: {formats:?}");
        if own {
            let said = said.unwrap();
            assert_eq!((&said["quant_method"], &said["weights"]), (&json!("lacuna"), &json!(7)), "{layout}");
            assert!(said["format"].as_str().unwrap().starts_with(layout), "{layout}: {said}");
        }
        let name = if layout == "weights" { vec![] } else { vec![(layout.split(':').next().unwrap(), 7)] };
        assert_eq!(folder.layouts().into_iter().collect::<Vec<_>>(), name, "{layout}");
        if layout != "csr" {
            repack(&folder, &back, Packing::Whole, |_, _| {}).unwrap().finish().unwrap();
            assert_eq!(content(&back).len(), content(&dir).len());
            assert_eq!(Folder::open(&back).unwrap().config(), whole.config(), "{layout}");
            let header = lacuna::io::read_header(back.join(whole.files().next().unwrap().0.file_name().unwrap())).unwrap();
            assert_eq!(header.metadata["format"], "pt", "{layout}");
            fs::remove_dir_all(&back).unwrap();
        }
    }
}

#[test]
fn what_lies_beside_the_weights_goes_along_in_every_layout() {
    let root = tempfile::tempdir().unwrap();
    let dir = pruned(root.path(), Dtype::F32);
    let beside = ["prune.json", "prune.html", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "LICENSE"];
    for name in beside {
        fs::write(dir.join(name), format!("{{\"of\": \"{name}\"}}")).unwrap();
    }
    let whole = Folder::open(&dir).unwrap();
    for layout in ["weights", "sparse-bitmask", "bitmask"] {
        let out = root.path().join(layout);
        repack(&whole, &out, layout.parse().unwrap(), |_, _| {}).unwrap().finish().unwrap();
        for name in beside {
            assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(dir.join(name)).unwrap(), "{name} in {layout}");
        }
    }
}

#[test]
fn a_model_computes_in_every_storage_what_its_masked_weights_give() {
    let root = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..12).map(|i| i * 7 % 30).collect();
    for dtype in [Dtype::F32, Dtype::BF16] {
        let dir = root.path().join(dtype.to_string());
        fs::create_dir(&dir).unwrap();
        let whole = Folder::open(pruned(&dir, dtype)).unwrap();
        let config = Config::of(&whole).unwrap();
        let right = LanguageModel::load(&whole, config.clone()).unwrap().forward(&ids).unwrap();
        let near = |folder: &Folder, running: Running, tokens: usize, what: &str| {
            let (model, kept) =
                LanguageModel::load_stored(folder, config.clone(), Inference::tokens(tokens).running(running)).unwrap();
            assert_eq!(kept.iter().filter(|k| k.pruned).count(), if folder.is_pruned() { 7 } else { 0 });
            let found = model.forward(&ids).unwrap();
            assert_close(&found, &right, 1e-4f32.next_down(), format!("{what}, {dtype}"));
            let mut cache = model.cache();
            for (t, id) in ids.iter().enumerate() {
                let z = model.step(&[*id], &mut cache).unwrap();
                assert_close(&z, &right.row(t), 1e-4f32.next_down(), format!("{what}, token {t}, {dtype}"));
            }
            kept
        };
        for running in ["auto", "dense", "csr", "tile-csr", "tile-pairs", "bitmask", "nm:2:4", "bsr:1x1"] {
            for tokens in [1, 12, 64] {
                let kept = near(&whole, running.parse().unwrap(), tokens, running);
                let narrow = dtype == Dtype::BF16 && tokens <= 16 && running != "csr";
                let layer = kept.iter().find(|k| k.pruned).unwrap();
                assert_eq!(layer.values, if narrow { "bf16" } else { "f32" }, "{running}, {tokens}");
                if running != "auto" {
                    assert!(layer.format.starts_with(running), "{layer:?}");
                }
            }
        }
        for layout in LAYOUTS {
            let out = dir.join(layout.replace(':', "-"));
            repack(&whole, &out, layout.parse().unwrap(), |_, _| {}).unwrap().finish().unwrap();
            near(&Folder::open(&out).unwrap(), Running::Auto, 1, layout);
        }
    }
}

#[test]
fn what_a_layout_cannot_hold_or_a_folder_has_not_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let whole = Folder::open(pruned(root.path(), Dtype::BF16)).unwrap();
    let refused = |layout: &str| {
        let line = repack(&whole, root.path().join("out"), layout.parse().unwrap(), |_, _| {}).err().unwrap().to_string();
        assert!(line.contains("proj") && !line.contains('\n'), "{line}");
        assert!(!root.path().join("out").exists());
        line
    };
    assert!(refused("nm:1:4").contains("1:4"), "{}", refused("nm:1:4"));
    let e = "sparse".parse::<Packing>().unwrap_err().to_string();
    assert!(e.contains("'sparse' is none of weights, sparse-bitmask"), "{e}");
    assert!("dense".parse::<Packing>().is_err());

    // A part that is missing, and one that contradicts another.
    let out = root.path().join("packed");
    repack(&whole, &out, Packing::SparseBitmask, |_, _| {}).unwrap().finish().unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    for (part, old, new) in
        [("compressed", "\"BF16\"", "\"I16\" "), ("bitmask", "\"U8\"", "\"I8\""), ("row_offsets", "\"I64\"", "\"U64\"")]
    {
        let broken = root.path().join(format!("broken-{part}"));
        fs::create_dir(&broken).unwrap();
        for (file, bytes) in content(&out) {
            let of = format!("down_proj.{part}\"").into_bytes();
            let at = bytes.windows(of.len()).position(|w| w == of);
            let mut bytes = bytes;
            if let (Some(at), true) = (at, file.starts_with("model-")) {
                // Its dtype becomes another of the same size.
                let from = at + of.len();
                let text = String::from_utf8_lossy(&bytes[from..from + 40]).into_owned();
                let place = from + text.find(old).unwrap_or_else(|| panic!("{text}"));
                bytes[place..place + old.len()].copy_from_slice(new.as_bytes());
            }
            fs::write(broken.join(file), bytes).unwrap();
        }
        let line = Folder::open(&broken).and_then(|f| f.read(name)).unwrap_err().to_string();
        assert!(line.contains("down_proj") && !line.contains('\n'), "{part}: {line}");
    }
}

#[test]
fn sizes_that_a_few_bytes_cannot_hold_are_refused_before_any_memory_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let whole = Folder::open(pruned(root.path(), Dtype::F32)).unwrap();
    let out = root.path().join("packed");
    repack(&whole, &out, "csr".parse().unwrap(), |_, _| {}).unwrap().finish().unwrap();
    let broken = root.path().join("broken");
    fs::create_dir(&broken).unwrap();
    let mut changed = 0;
    for (file, bytes) in content(&out) {
        let old = br#"\"cols\":8"#;
        let mut all = Vec::new();
        let mut rest = &bytes[..];
        while let Some(at) = rest.windows(old.len()).position(|w| w == old).filter(|_| changed == 0 && file.starts_with("model-"))
        {
            changed += 1;
            all.extend_from_slice(&rest[..at]);
            all.extend_from_slice(br#"\"cols\":4000000000"#);
            rest = &rest[at + old.len()..];
        }
        all.extend_from_slice(rest);
        if all.len() != bytes.len() {
            // The header has grown: its length stands in front.
            let length = u64::from_le_bytes(all[..8].try_into().unwrap()) + (all.len() - bytes.len()) as u64;
            all[..8].copy_from_slice(&length.to_le_bytes());
        }
        fs::write(broken.join(file), all).unwrap();
    }
    assert_eq!(changed, 1);
    let line = Folder::open(&broken).unwrap_err().to_string();
    assert!(line.contains("x 4000000000, which is too large") && !line.contains('\n'), "{line}");
}
