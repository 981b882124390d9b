//! What becomes of a folder as a GGUF file, and of that as a folder again.

use crate::build::{Gguf, byte_level, llama};
use crate::gguf::imported;
use crate::imported::{architecture, families};
use lacuna::io::Folder;
use lacuna::io::gguf::{ExportTypes, Gguf as File, Quant, comes_back_as, export, import};
use lacuna::text::{ChatTemplate, Message, Tokenizer};
use std::path::{Path, PathBuf};

/// A file, the folder that it becomes, and that folder as a file again.
fn around(file: &Gguf, types: ExportTypes) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let (room, out) = imported(file);
    let again = room.path().join("again.gguf");
    export(&Folder::open(&out).unwrap(), &again, types, None).unwrap();
    (room, out, again)
}

fn same_tensors(a: &Path, b: &Path, what: &str) {
    let (a, b) = (Folder::open(a).unwrap(), Folder::open(b).unwrap());
    let names: Vec<&str> = a.names().collect();
    assert_eq!(names.len(), b.names().count(), "{what}");
    for name in names {
        let (x, y) = (a.read(name).unwrap(), b.read(name).unwrap());
        // Where 1 was taken off norms, the last bit may go.
        let apart = (&x - &y).iter().fold(0.0f32, |m, d| m.max(d.abs()));
        assert!(x.shape() == y.shape() && apart <= 1.2e-7, "{what}: {name} is {apart} apart");
    }
}

#[test]
fn a_folder_of_every_architecture_goes_through_a_file_and_comes_back() {
    for (arch, file) in families() {
        let (room, out, again) = around(&file, ExportTypes::new(Quant::F32));
        let back = room.path().join("back");
        let made = import(&File::open(&again).unwrap(), &back, None).unwrap();
        assert_eq!(made.architecture, architecture(arch));
        same_tensors(&out, &back, arch);
        let config = |path: &Path| {
            let mut config = Folder::open(path).unwrap().config().clone();
            config.remove("imported_from");
            config
        };
        assert_eq!(config(&out), config(&back), "{arch}");
    }
}

#[test]
fn the_families_that_come_back_are_those_of_the_files_here() {
    let mut tried: Vec<String> = Vec::new();
    for (_, file) in families() {
        let (_room, out) = imported(&file);
        let of = Folder::open(&out).unwrap().config()["model_type"].as_str().unwrap().to_string();
        assert_eq!(comes_back_as(&of), Some(&*of));
        tried.push(of);
    }
    let all = lacuna::lm::Family::all();
    let mut known: Vec<&str> = all.iter().filter_map(|f| comes_back_as(f.model_type())).collect();
    known.sort_unstable();
    known.dedup();
    tried.sort_unstable();
    assert_eq!(known, tried);
}

#[test]
fn a_file_that_was_imported_and_not_changed_is_written_back_bit_by_bit() {
    for (arch, file) in families() {
        let (room, out) = imported(&file);
        let (old, new) = (room.path().join("m.gguf"), room.path().join("new.gguf"));
        let made =
            export(&Folder::open(&out).unwrap(), &new, ExportTypes::new(Quant::F32), Some(&File::open(&old).unwrap())).unwrap();
        assert_eq!(made.kept, made.tensors, "{arch}");
        assert!(std::fs::read(&old).unwrap() == std::fs::read(&new).unwrap(), "{arch}");
    }
}

#[test]
fn mixtures_that_are_computed_otherwise_or_lack_an_expert_are_refused() {
    let (_, file) = families().into_iter().find(|(name, _)| *name == "qwen2moe").unwrap();
    let (room, out) = imported(&file);
    let new = room.path().join("new.gguf");
    let path = out.join("config.json");
    let old: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let line = |key: &str, value: serde_json::Value| {
        let mut config = old.clone();
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        let line = export(&Folder::open(&out).unwrap(), &new, ExportTypes::new(Quant::F32), None).unwrap_err().to_string();
        assert!(!new.exists() && !line.contains('\n'), "{line}");
        line
    };
    use serde_json::json;
    for (key, value, says) in [
        ("norm_topk_prob", json!(true), "norm_topk_prob is true; a qwen2moe computes with false"),
        ("mlp_only_layers", json!([1]), "some blocks have no experts, which a qwen2moe has in all"),
        ("decoder_sparse_step", json!(2), "some blocks have no experts"),
        ("num_experts", json!(3), "has shape [4, 16]; a qwen2moe has [3, 16] there"),
        ("moe_intermediate_size", json!(5), "has shape"),
        ("num_experts_per_tok", json!(null), "the config has no count 'num_experts_per_tok'"),
    ] {
        let found = line(key, value);
        assert!(found.contains(says), "{key}: {found}");
    }
}

#[test]
fn weights_are_rounded_to_the_type_and_norms_are_not() {
    for quant in [Quant::F16, Quant::BF16] {
        let (_room, _, again) = around(&llama(), ExportTypes::new(quant));
        for tensor in File::open(&again).unwrap().tensors() {
            assert_eq!(tensor.quant, if tensor.shape.len() < 2 { Quant::F32 } else { quant }, "{}", tensor.name);
        }
    }
    // Rows of 48 are no whole blocks of 32.
    let (room, out) = imported(&llama());
    let folder = Folder::open(&out).unwrap();
    let new = room.path().join("new.gguf");
    let e = export(&folder, &new, ExportTypes::new(Quant::Q4_0), None).unwrap_err().to_string();
    assert_eq!(e, "type: 'blk.0.ffn_down.weight' has rows of 48, no multiple of the 32 numbers of a block of Q4_0");
    assert!(!new.exists());
    let e = export(&folder, &new, ExportTypes::new(Quant::Q4_K), None).unwrap_err().to_string();
    let says = "type: 'token_embd.weight' has rows of 32, no multiple of the 256 numbers of a block of Q4_K";
    assert!(
        export(&folder, &new, ExportTypes::new(Quant::Q4_K).ends(Quant::Q4_K), None).unwrap_err().to_string().starts_with(says)
    );
    assert!(
        e.contains("rows of 32, no multiple of the 256 numbers of a block of Q4_K; q8_0, q5_1, q5_0, q4_1 and q4_0 fit"),
        "{e}"
    );
    // Asked for by name, blocks of 32 stand in for those of 256; rows of 48 have none.
    let e = export(&folder, &new, ExportTypes::new(Quant::Q4_K).fallback(Quant::Q5_0), None).unwrap_err().to_string();
    assert!(e.contains("ffn_down.weight' has rows of 48, no multiple of the 32 numbers of a block of Q5_0"), "{e}");
    let _ = export(&folder, &new, ExportTypes::new(Quant::Q4_K).fallback(Quant::F16), None).unwrap();
    assert!(File::open(&new).unwrap().tensors().iter().all(|t| [Quant::F32, Quant::F16, Quant::Q8_0].contains(&t.quant)));
}

#[test]
fn a_tokenizer_goes_along_and_cuts_texts_as_before() {
    let mut file = llama();
    byte_level(&mut file);
    let (room, out, again) = around(&file, ExportTypes::new(Quant::F32));
    let back = room.path().join("back");
    import(&File::open(&again).unwrap(), &back, None).unwrap();
    let (a, b) = (Tokenizer::open(&out).unwrap(), Tokenizer::open(&back).unwrap());
    for text in ["", "a", "ab abc", "b a\n\n 12 c", "<|end|>a"] {
        assert_eq!(a.encode(text, false).unwrap(), b.encode(text, false).unwrap(), "{text:?}");
    }
}

#[test]
fn a_chat_template_goes_along_from_wherever_a_folder_has_it() {
    let mut file = llama();
    byte_level(&mut file);
    let (room, out) = imported(&file);
    let settings = out.join("tokenizer_config.json");
    let old: serde_json::Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
    let back = |what: &str| {
        let (new, back) = (room.path().join(format!("{what}.gguf")), room.path().join(what));
        export(&Folder::open(&out).unwrap(), &new, ExportTypes::new(Quant::F32), None).unwrap();
        import(&File::open(&new).unwrap(), &back, None).unwrap();
        let template = ChatTemplate::open(&back).unwrap();
        template.map(|t| t.render(&[Message::new("user", "hi")], true).unwrap())
    };
    let mut listed = old.clone();
    listed["chat_template"] = serde_json::json!([
        {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "listed {{ messages[0].content }}"},
    ]);
    assert_eq!(back("none"), None);
    std::fs::write(&settings, listed.to_string()).unwrap();
    assert_eq!(back("list").as_deref(), Some("listed hi"));
    std::fs::write(out.join("chat_template.jinja"), "of its own {{ messages[0].content }}").unwrap();
    assert_eq!(back("file").as_deref(), Some("of its own hi"));
}

#[test]
fn what_a_file_cannot_say_is_refused_by_its_name() {
    let (room, out) = imported(&llama());
    let new = room.path().join("new.gguf");
    let refused = |key: &str, value: serde_json::Value| {
        let path = out.join("config.json");
        let old = std::fs::read_to_string(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&old).unwrap();
        config[key] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        let line = export(&Folder::open(&out).unwrap(), &new, ExportTypes::new(Quant::F32), None).unwrap_err().to_string();
        std::fs::write(&path, old).unwrap();
        assert!(!new.exists() && !line.contains('\n'), "{line}");
        line
    };
    use serde_json::json;
    for (key, value, says) in [
        ("model_type", json!("mamba"), "model_type 'mamba' is not written as GGUF; these are: llama, mistral, qwen2"),
        ("hidden_act", json!("gelu"), "the activation is 'gelu'; a llama computes with silu"),
        ("sliding_window", json!(3), "a sliding window of 3 tokens, which a llama has not"),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 2.0}), "of type 'dynamic' is not written for a llama"),
        ("intermediate_size", json!(7), "has shape"),
        ("num_hidden_layers", json!(1), "which a llama of 1 blocks has not"),
        ("num_hidden_layers", json!(9), "lacks a tensor"),
    ] {
        let line = refused(key, value);
        assert!(line.contains(says), "{key}: {line}");
    }
}
