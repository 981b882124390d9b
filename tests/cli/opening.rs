//! What the commands say of folders that are not what they seem, and of files that are no folders.

use crate::build::llama;
use crate::common::Folder;
use lacuna::io::Dtype;
use serde_json::{Value, json};
use std::fs;

const TEXT: &str = "The weights that stay are ranked, never held against a threshold; of 120 equal scores the first stays.\n";

/// A folder with the model `tiny`, which ties its head, and `text.txt`.
fn tiny() -> Folder {
    let folder = Folder::new();
    llama().write(folder.path("tiny.gguf"));
    folder.succeeds(&["import", "tiny.gguf", "tiny"]);
    fs::write(folder.path("text.txt"), TEXT.repeat(6)).unwrap();
    folder
}

/// Runs what succeeds with one line on standard error: the last line of what it printed, and that line.
fn with_a_note(folder: &Folder, args: &[&str]) -> (String, String) {
    let output = folder.run(args);
    let [out, line] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {line}");
    assert!(line.starts_with("note: ") && line.lines().count() == 1, "{args:?}: {line}");
    (out.lines().last().unwrap_or_default().to_string(), line.trim_end().to_string())
}

#[test]
fn a_gguf_file_is_known_in_every_command_that_wants_a_model_and_sent_to_import() {
    let folder = tiny();
    fs::copy(folder.path("tiny.gguf"), folder.path("model.bin")).unwrap();
    fs::copy(folder.path("tiny.gguf"), folder.path("model2.safetensors")).unwrap();
    for file in ["tiny.gguf", "model.bin", "model2.safetensors"] {
        for args in [
            &["inspect", file][..],
            &["inspect", file, "--json"],
            &["prune", file, "out", "--sparsity", "0.5"],
            &["prune", file, "out", "--method", "wanda", "--sparsity", "0.5", "--calibration", "text.txt"],
            &["eval", file, "--text", "text.txt"],
            &["generate", file, "--prompt", "a"],
            &["logits", file, "--ids", "model.safetensors", "--out", "out.safetensors"],
            &["pack", file, "out", "--save", "bitmask"],
            &["bench", "spmm", "--weights", file, "--tensor", "fc", "--sparsity", "0.5"],
        ] {
            let line = folder.refuses(args);
            assert!(line.contains(file) && line.contains("is a GGUF file; 'lacuna import FILE DIR'"), "{args:?}: {line}");
        }
    }
}

#[test]
fn another_head_than_the_one_the_config_ties_is_used_and_said() {
    let folder = tiny();
    let whole = folder.path("tiny/model.safetensors");
    let eval = ["eval", "tiny", "--text", "text.txt", "--context", "24", "--windows", "2", "--json"];
    let tied = folder.json(&eval);
    let mut file = folder.read("tiny/model.safetensors");
    let embedding = file.get("model.embed_tokens.weight").unwrap().clone();
    file.insert("lm_head.weight", embedding.clone(), Dtype::F32).unwrap();
    file.write(&whole).unwrap();
    assert_eq!(folder.json(&eval)["nll"], tied["nll"]);
    file.insert("lm_head.weight", embedding * 2.0, Dtype::F32).unwrap();
    file.write(&whole).unwrap();
    let (report, line) = with_a_note(&folder, &eval);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(
        line.contains("tiny: tie_word_embeddings is true, but 'lm_head.weight' differs from 'model.embed_tokens.weight'"),
        "{line}"
    );
    assert_ne!(report["nll"], tied["nll"]);
    let (report, _) = with_a_note(&folder, &["inspect", "tiny", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["tied"], &report["kinds"]["head"]["parameters"]), (&json!(false), &json!(400 * 32)));
    // The same numbers as where the config says so, and a pruned copy says so itself.
    let before: Value = serde_json::from_slice(&fs::read(folder.path("tiny/config.json")).unwrap()).unwrap();
    let mut untied = before.clone();
    untied["tie_word_embeddings"] = json!(false);
    fs::write(folder.path("tiny/config.json"), untied.to_string()).unwrap();
    let apart = folder.json(&eval);
    fs::write(folder.path("tiny/config.json"), before.to_string()).unwrap();
    let (tied_report, _) = with_a_note(&folder, &eval);
    assert_eq!(serde_json::from_str::<Value>(&tied_report).unwrap()["nll"], apart["nll"]);
    with_a_note(&folder, &["prune", "tiny", "pruned", "--sparsity", "0.5"]);
    let written: Value = serde_json::from_slice(&fs::read(folder.path("pruned/config.json")).unwrap()).unwrap();
    assert_eq!(written["tie_word_embeddings"], json!(false));
    folder.succeeds(&["inspect", "pruned"]);
}

#[test]
fn a_whole_file_beside_old_shards_is_read_and_said() {
    let folder = tiny();
    let plain = folder.json(&["inspect", "tiny", "--json"]);
    fs::write(folder.path("tiny/model.safetensors.index.json"), r#"{"weight_map": {"x": "model-00001-of-00002.safetensors"}}"#)
        .unwrap();
    let (report, line) = with_a_note(&folder, &["inspect", "tiny", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap(), plain);
    assert!(line.contains("tiny: model.safetensors is read; model.safetensors.index.json beside it"), "{line}");
}

#[test]
fn a_file_that_would_make_a_folder_that_does_not_open_is_refused_at_import() {
    let folder = Folder::new();
    let mut file = llama();
    file.tensor("blk.0.attn_norm.bias", &ndarray::ArrayD::zeros(vec![32]));
    file.write(folder.path("odd.gguf"));
    assert!(folder.refuses(&["import", "odd.gguf", "out"]).contains("has the tensor 'blk.0.attn_norm.bias', which a llama"));
    let mut file = llama();
    file.tensor("blk.0.attn_q.bias", &ndarray::ArrayD::zeros(vec![32]));
    file.write(folder.path("biased.gguf"));
    folder.succeeds(&["import", "biased.gguf", "out"]);
    folder.succeeds(&["generate", "out", "--prompt", "a", "--tokens", "2"]);
}
