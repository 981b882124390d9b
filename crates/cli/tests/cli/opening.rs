//! What the commands say of folders that are not what they seem, and of files that are no folders.

use crate::build::llama;
use crate::common::Folder;
use crate::language::{ids_file, tiny};
use crate::words::{BOS, around, edit};
use lacuna::io::Dtype;
use lacuna::text::Tokenizer;
use serde_json::{Value, json};
use std::fs;

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

#[test]
fn a_tokenizer_that_its_own_library_finds_impossible_is_one_line() {
    let folder = tiny();
    // A template that names a token which it does not list.
    let known = fs::read(folder.path("tiny/tokenizer.json")).unwrap();
    edit(&folder, "tiny/tokenizer.json", |t| {
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let end = json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
        t["post_processor"] = json!({"type": "TemplateProcessing", "single": [text, end], "pair": [text], "special_tokens": {}});
    });
    let line = folder.refuses(&["eval", "tiny", "--text", "text.txt", "--context", "24"]);
    assert!(line.starts_with("tiny/tokenizer.json: is no tokenizer: "), "{line}");
    fs::write(folder.path("tiny/tokenizer.json"), known).unwrap();
    for charsmap in ["", "AAAAAA==", "AAAA", "////////"] {
        edit(&folder, "tiny/tokenizer.json", |t| {
            t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": charsmap})
        });
        for args in [&["eval", "tiny", "--text", "text.txt", "--context", "24"][..], &["generate", "tiny", "--prompt", "The"]] {
            let line = folder.refuses(args);
            assert!(line.starts_with("tiny/tokenizer.json: "), "{charsmap}: {line}");
        }
    }
}

#[test]
fn a_context_without_windows_is_no_number_of_tokens_to_make_room_for() {
    let folder = tiny();
    folder.succeeds(&["prune", "tiny", "half", "--sparsity", "0.5"]);
    fs::write(folder.path("q.jsonl"), "{\"query\": \"The weights that\", \"choices\": [\"stay\", \"are\"], \"gold\": 0}\n")
        .unwrap();
    let eval =
        |context: &str| folder.json(&["eval", "half", "--choices", "q.jsonl", "--context", context, "--json"])["choices"].clone();
    let usual = eval("1024");
    assert!(usual.is_object());
    for context in ["99999999999", "18446744073709551615"] {
        assert_eq!(eval(context), usual);
    }
}

#[test]
fn calibration_has_the_token_that_begins_a_text_where_it_was_asked_to_stand() {
    let folder = tiny();
    around(&folder, "begun", BOS, &[]);
    let text = fs::read_to_string(folder.path("text.txt")).unwrap();
    let ids: Vec<i64> =
        Tokenizer::open(folder.path("begun")).unwrap().encode(&text, false).unwrap().into_iter().map(i64::from).collect();
    let (context, count) = (8, 6);
    let windows: Vec<i64> = ids.chunks_exact(context - 1).take(count).flat_map(|part| [&[1], part].concat()).collect();
    let once = [&[1], &ids[..context * count - 1]].concat();
    let prune = |bos: &'static str, context: &'static str, calibration: &'static str| {
        let text = "prune begun out --method wanda --sparsity 0.5 --samples 6 --force --bos";
        text.split(' ').chain([bos, "--context", context, "--calibration", calibration]).collect::<Vec<_>>()
    };
    let line = folder.refuses(&prune("window", "1", "text.txt"));
    assert!(line.contains("fewer than the 6 x 1 asked for"), "{line}");
    let run = |bos: &'static str, calibration: &'static str| {
        folder.succeeds(&prune(bos, "8", calibration));
        let record: Value = serde_json::from_slice(&fs::read(folder.path("out/prune.json")).unwrap()).unwrap();
        (fs::read(folder.path("out/model.safetensors")).unwrap(), record["settings"]["first_token"].clone())
    };
    let mut found = Vec::new();
    for (bos, by_hand) in [("none", ids[..context * count].to_vec()), ("tokenizer", once), ("window", windows)] {
        fs::write(folder.path("by_hand.safetensors"), ids_file("input_ids", &[1, by_hand.len()], &by_hand)).unwrap();
        let of_text = run(bos, "text.txt");
        assert!(of_text.0 == run("none", "by_hand.safetensors").0, "{bos}");
        found.push(of_text);
    }
    let said: Vec<&str> = found.iter().map(|(_, said)| said.as_str().unwrap()).collect();
    assert_eq!(said, ["none", "token 1 <s> once before the text, put by the tokenizer", "token 1 <s> begins every window"]);
    assert!(found[0].0 != found[1].0 && found[1].0 != found[2].0);
}

#[test]
fn what_is_packed_two_of_four_is_said_to_be() {
    let folder = tiny();
    folder.succeeds(&["prune", "tiny", "packed", "--pattern", "2:4", "--save", "sparse-24-bitmask"]);
    let printed = folder.succeeds(&["inspect", "packed/model.safetensors"]);
    assert!(printed.contains("sparse-24-bitmask") && !printed.contains("sparse-bitmask"), "{printed}");
}

#[test]
fn masks_of_other_weights_are_no_silent_choice() {
    let folder = tiny();
    folder.succeeds(&["prune", "tiny", "half", "--sparsity", "0.5"]);
    fs::copy(folder.path("tiny/model.safetensors"), folder.path("half/model.safetensors")).unwrap();
    for format in ["auto", "dense", "bitmask"] {
        let line = folder.refuses(&["eval", "half", "--text", "text.txt", "--context", "24", "--format", format]);
        assert!(line.contains("weights that its mask drops are not 0; the masks are of other weights"), "{line}");
    }
}

#[test]
fn an_embedding_that_lies_in_the_file_twice_is_counted_once() {
    let folder = tiny();
    let parameters = |dir: &str| folder.json(&["inspect", dir, "--json"])["whole"]["parameters"].as_u64().unwrap();
    let once = parameters("tiny");
    let mut file = folder.read("tiny/model.safetensors");
    let embedding = file.get("model.embed_tokens.weight").unwrap().clone();
    file.insert("lm_head.weight", embedding, Dtype::F32).unwrap();
    file.write(folder.path("tiny/model.safetensors")).unwrap();
    assert_eq!(parameters("tiny"), once);
    let tensors = folder.json(&["inspect", "tiny", "--json"])["tensors"].clone();
    let head = tensors.as_array().unwrap().iter().find(|t| t["name"] == "lm_head.weight").unwrap();
    assert_eq!(head["aside"], "the embedding over again");
}
