//! GGUF files against the format's own tools, and what cannot be imported.

use crate::build::{self, Gguf, byte_level, llama, llama_weights};
use crate::close::assert_within;
use lacuna::io::gguf::{Gguf as File, Quant, import};
use lacuna::io::{Checkpoint, Dtype, Folder};
use lacuna::lm::{Config, LanguageModel};
use lacuna::text::Tokenizer;
use ndarray::{Array2, ArrayD};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Writes a file into a new folder and opens it.
pub fn open(file: &Gguf) -> (tempfile::TempDir, lacuna::Result<File>) {
    let folder = tempfile::tempdir().unwrap();
    file.write(folder.path().join("m.gguf"));
    let opened = File::open(folder.path().join("m.gguf"));
    (folder, opened)
}

/// The line with which a file is refused, when it is opened or imported; nothing is left behind.
pub fn refused(file: &Gguf) -> String {
    let (folder, opened) = open(file);
    let out = folder.path().join("out");
    let line = opened.and_then(|f| import(&f, &out, None)).unwrap_err().to_string();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{line}");
    assert!(!line.contains('\n') && line.contains("m.gguf: "), "{line}");
    line
}

pub fn imported(file: &Gguf) -> (tempfile::TempDir, PathBuf) {
    let (folder, opened) = open(file);
    let out = folder.path().join("out");
    import(&opened.unwrap(), &out, None).unwrap();
    (folder, out)
}

#[test]
fn numbers_of_every_type_are_those_of_the_formats_own_tools_to_the_bit() {
    let golden = Checkpoint::from_bytes("quants", include_bytes!("quants.safetensors")).unwrap();
    let raw = safetensors::SafeTensors::deserialize(include_bytes!("quants.safetensors")).unwrap();
    let types = [1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 30].map(|n| Quant::of(n).unwrap());
    for quant in types {
        let bytes = raw.tensor(&format!("{quant}.bytes")).unwrap();
        let wanted = golden.get(&format!("{quant}.values")).unwrap();
        let mut found = vec![f32::NAN; wanted.len()];
        quant.decode(bytes.data(), &mut found);
        let differ = found.iter().zip(wanted).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differ, None, "{quant}: {found:?}");
    }
    let mut one = [0.0];
    Quant::F32.decode(&(-1.5f32).to_le_bytes(), &mut one);
    assert_eq!(one, [-1.5]);
}

#[test]
fn an_imported_model_has_the_names_numbers_and_settings_of_the_original() {
    let (_folder, out) = imported(&llama());
    let folder = Folder::open(&out).unwrap();
    assert_eq!(folder.names().count(), llama_weights().len());
    for (_, name, wanted) in llama_weights() {
        assert_eq!(folder.read(&name).unwrap(), wanted, "{name}");
        assert_eq!(folder.dtype(&name).unwrap(), Dtype::F32);
    }
    let wanted = serde_json::json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 400, "tie_word_embeddings": true, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    });
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&folder.config()[key], value, "{key}");
    }
    assert_eq!(folder.config()["rope_scaling"], Value::Null);
}

#[test]
fn every_architecture_gives_the_logits_of_the_original_after_import() {
    let golden = safetensors::SafeTensors::deserialize(include_bytes!("families.safetensors")).unwrap();
    let files: [(&str, &[u8]); 19] = [
        ("llama", include_bytes!("llama.gguf")),
        ("gemma2", include_bytes!("gemma2.gguf")),
        ("phi2", include_bytes!("phi2.gguf")),
        ("phi3", include_bytes!("phi3.gguf")),
        ("nemotron", include_bytes!("nemotron.gguf")),
        ("gpt2", include_bytes!("gpt2.gguf")),
        ("qwen2", include_bytes!("qwen2.gguf")),
        ("qwen3", include_bytes!("qwen3.gguf")),
        ("gemma", include_bytes!("gemma.gguf")),
        ("gemma3", include_bytes!("gemma3.gguf")),
        ("smollm3", include_bytes!("smollm3.gguf")),
        ("olmo2", include_bytes!("olmo2.gguf")),
        ("mixtral", include_bytes!("mixtral.gguf")),
        ("qwen2moe", include_bytes!("qwen2moe.gguf")),
        ("qwen3moe", include_bytes!("qwen3moe.gguf")),
        ("olmoe", include_bytes!("olmoe.gguf")),
        ("gptneox", include_bytes!("gptneox.gguf")),
        ("bloom", include_bytes!("bloom.gguf")),
        ("stablelm", include_bytes!("stablelm.gguf")),
    ];
    for (name, bytes) in files {
        let folder = tempfile::tempdir().unwrap();
        let (path, out) = (folder.path().join("m.gguf"), folder.path().join("out"));
        std::fs::write(&path, bytes).unwrap();
        let made = import(&File::open(&path).unwrap(), &out, None).unwrap();
        let written = if name == "mixtral" { "llama" } else { name };
        assert_eq!((made.architecture.as_str(), made.tokens), (written, None));
        let opened = Folder::open(&out).unwrap();
        let config = Config::parse(&Value::Object(opened.config().clone())).unwrap();
        let model = LanguageModel::load(&opened, config).unwrap();
        let tensor = |key: &str| golden.tensor(&format!("{name}.{key}")).unwrap();
        let ids: Vec<u32> =
            tensor("ids").data().chunks_exact(8).map(|b| u32::from_le_bytes(b[..4].try_into().unwrap())).collect();
        let wanted: Vec<f32> =
            tensor("logits").data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let found = model.forward(&ids).unwrap();
        let wanted = Array2::from_shape_vec(found.dim(), wanted).unwrap();
        assert_within(&found, &wanted, |_, wanted: f32| 1e-4 + 1e-4 * wanted.abs(), name);
    }
}

#[test]
fn quantised_floats_become_f32_unless_another_dtype_is_asked_for() {
    let mut file = llama();
    let at = file.tensors.iter().position(|t| t.0 == "blk.1.ffn_up.weight").unwrap();
    // Rows of 32: one Q8_0 block each, d = 1/4 and q = 3.
    file.tensors[at].2 = 8;
    file.tensors[at].3 = (0..build::WIDTH).flat_map(|_| [&[0x00, 0x34][..], &[3u8; 32]].concat()).collect();
    let at = file.tensors.iter().position(|t| t.0 == "blk.0.ffn_up.weight").unwrap();
    file.tensors[at].2 = 1;
    file.tensors[at].3 = [0x00, 0x3c].repeat(build::WIDTH * build::HIDDEN);
    let (_folder, out) = imported(&file);
    let folder = Folder::open(&out).unwrap();
    let (quantised, half) = ("model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight");
    assert_eq!(folder.read(quantised).unwrap(), ArrayD::from_elem(vec![48, 32], 0.75));
    assert_eq!((folder.dtype(quantised).unwrap(), folder.dtype(half).unwrap()), (Dtype::F32, Dtype::F16));
    let (folder, opened) = open(&file);
    import(&opened.unwrap(), folder.path().join("out"), Some(Dtype::BF16)).unwrap();
    let folder = Folder::open(folder.path().join("out")).unwrap();
    assert_eq!((folder.dtype(half).unwrap(), folder.config()["torch_dtype"].as_str()), (Dtype::BF16, Some("bfloat16")));
}

#[test]
fn a_head_that_is_the_embedding_again_is_tied_and_another_is_not() {
    let embedding = llama_weights().remove(0).2;
    let mut file = llama();
    file.tensor("output.weight", &embedding);
    let (_folder, out) = imported(&file);
    let folder = Folder::open(&out).unwrap();
    assert_eq!((folder.config()["tie_word_embeddings"].as_bool(), folder.contains("lm_head.weight")), (Some(true), false));
    let mut file = llama();
    file.tensor("output.weight", &(&embedding * 2.0));
    let (_folder, out) = imported(&file);
    let folder = Folder::open(&out).unwrap();
    assert_eq!(folder.config()["tie_word_embeddings"].as_bool(), Some(false));
    assert_eq!(folder.read("lm_head.weight").unwrap(), &embedding * 2.0);
}

#[test]
fn the_scaling_of_llama_3_is_known_by_its_factors() {
    // transformers' own factors for a head of 8, theta 500000, factor 8: by its formula, written another way round.
    let factors: Vec<f32> = (0..4)
        .map(|i| {
            let frequency = 500_000f64.powf(-f64::from(2 * i) / 8.0);
            let turns = 8192.0 * frequency / (2.0 * std::f64::consts::PI);
            let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 / (smooth + (1.0 - smooth) / 8.0)) as f32
        })
        .collect();
    let mut file = llama();
    file.float("llama.rope.freq_base", 500_000.0);
    file.tensor("rope_freqs.weight", &ndarray::Array1::from(factors).into_dyn());
    let (_folder, out) = imported(&file);
    let opened = Folder::open(&out).unwrap();
    let scaling = &opened.config()["rope_scaling"];
    assert_eq!((scaling["rope_type"].as_str(), scaling["factor"].as_f64()), (Some("llama3"), Some(8.0)), "{scaling}");
    file.tensors.pop();
    file.tensor("rope_freqs.weight", &ndarray::array![1.0f32, 2.0, 3.0, 4.0].into_dyn());
    assert!(refused(&file).contains("'rope_freqs.weight' holds none of the factors"));
}

#[test]
fn yarn_is_read_from_its_keys_and_an_unknown_scaling_is_refused() {
    let mut file = llama();
    file.text("llama.rope.scaling.type", "yarn").float("llama.rope.scaling.factor", 4.0);
    file.count("llama.rope.scaling.original_context_length", 64).float("llama.rope.scaling.yarn_beta_fast", 16.0);
    let (_folder, out) = imported(&file);
    let folder = Folder::open(&out).unwrap();
    let scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0});
    assert_eq!(folder.config()["rope_scaling"], scaling);
    Config::of(&folder).unwrap();
    // The factor that a file states stands before the paper's own.
    file.float("llama.rope.scaling.attn_factor", 2.0);
    let (_folder, out) = imported(&file);
    let by = Folder::open(&out).unwrap().config()["rope_scaling"]["attention_factor"].as_f64().unwrap();
    assert!((by - 2.0 * (1.0 + 0.1 * 4f64.ln())).abs() < 1e-12, "{by}");
    let mut file = llama();
    file.text("llama.rope.scaling.type", "ntk");
    assert!(refused(&file).contains("rope.scaling.type is 'ntk'; none, linear and yarn are read"));
}

#[test]
fn the_tokens_of_a_byte_level_tokenizer_are_those_of_the_original() {
    let (_folder, out) = imported(&llama());
    let tokenizer = Tokenizer::open(&out).unwrap();
    assert_eq!(tokenizer.vocabulary(), 400);
    let golden = byte_level(&mut Gguf::new());
    compare(&tokenizer, &golden, false);
    // The settings may ask for a first token.
    let mut file = llama();
    file.flag("tokenizer.ggml.add_bos_token", true);
    let (_folder, out) = imported(&file);
    let with = Tokenizer::open(&out).unwrap();
    assert_eq!((with.first_special(), with.encode("", true).unwrap()), (Some(1), vec![1]));
    assert_eq!(tokenizer.first_special(), None);
}

#[test]
fn the_tokens_of_a_sentencepiece_tokenizer_are_those_of_sentencepiece() {
    let golden: Value = serde_json::from_str(include_str!("sentencepiece.json")).unwrap();
    let list = |key: &str| golden[key].as_array().unwrap();
    let mut file = llama();
    file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
    file.text("tokenizer.ggml.model", "llama");
    file.texts("tokenizer.ggml.tokens", list("tokens").iter().map(|t| t.as_str().unwrap()));
    let scores: Vec<f32> = list("scores").iter().map(|s| s.as_f64().unwrap() as f32).collect();
    let types: Vec<i32> = list("types").iter().map(|t| t.as_i64().unwrap() as i32).collect();
    file.floats("tokenizer.ggml.scores", &scores).ints("tokenizer.ggml.token_type", &types);
    for (key, named) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown")] {
        file.count(&format!("tokenizer.ggml.{named}_token_id"), golden[key].as_u64().unwrap() as u32);
    }
    let (_folder, out) = imported(&file);
    let tokenizer = Tokenizer::open(&out).unwrap();
    compare(&tokenizer, &golden, true);
    assert_eq!(tokenizer.first_special(), Some(1));
}

/// Tokens of every text, and the text back.
fn compare(tokenizer: &Tokenizer, golden: &Value, special: bool) {
    let (texts, ids) = (golden["texts"].as_array().unwrap(), golden["ids"].as_array().unwrap());
    assert!(texts.len() > 5);
    for (text, ids) in texts.iter().zip(ids) {
        let text = text.as_str().unwrap();
        let wanted: Vec<u32> = ids.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect();
        let found = tokenizer.encode(text, special).unwrap();
        assert_eq!(found, wanted, "{text:?}");
        if !text.contains("<s>") {
            assert_eq!(tokenizer.decode(&found).unwrap(), text);
        }
        // Token by token the same text appears, and never half a character.
        let (mut typist, mut typed) = (tokenizer.typist(), String::new());
        for id in &found {
            let new = typist.push(*id).unwrap();
            assert!(!new.contains('\u{fffd}'), "{text:?}: {new:?}");
            typed += &new;
        }
        typed += &typist.finish().unwrap();
        assert_eq!(typed, tokenizer.decode(&found).unwrap());
    }
}

#[test]
fn both_versions_are_read_and_no_other() {
    let (_a, two) = open(&Gguf { version: 2, ..llama() });
    assert_eq!(two.unwrap().version(), 2);
    for (version, says) in [(1, "version 1;"), (4, "version 4;"), (3u32.swap_bytes(), "big-endian")] {
        assert!(refused(&Gguf { version, ..llama() }).contains(says), "{version}");
    }
}

#[test]
fn what_is_missing_unknown_or_does_not_fit_is_named() {
    let change = |change: &dyn Fn(&mut Gguf)| {
        let mut file = llama();
        change(&mut file);
        refused(&file)
    };
    let without = |name: &str| change(&|f| f.tensors.retain(|t| t.0 != name));
    let line = change(&|f| f.tensors[3].2 = 99);
    assert!(line.contains("type 99, which is not read; these are: F32, F16, Q4_0"), "{line}");
    assert!(without("blk.1.ffn_up.weight").contains("lacks the tensor 'blk.1.ffn_up.weight' of a llama of 2 blocks"));
    assert!(without("token_embd.weight").contains("lacks the tensor 'token_embd.weight'"));
    let line = change(&|f| {
        f.tensor("blk.2.ffn_up.weight", &build::numbers("x", &[4, 4], 1.0));
    });
    assert!(line.contains("'blk.2.ffn_up.weight', which a llama of 2 blocks has not"), "{line}");
    let line = change(&|f| {
        f.text("general.architecture", "mamba");
    });
    let known = "llama, gemma2, phi2, phi3, nemotron, qwen2, qwen3, gemma, gemma3, smollm3, olmo2, gpt2, \
                 qwen2moe, qwen3moe, olmoe, gptneox, bloom, stablelm";
    assert!(line.contains(&format!("'mamba' is none of {known}")), "{line}");
    assert!(change(&|f| f.keys.retain(|k| k.0 != "llama.block_count")).contains("lacks the key 'llama.block_count'"));
    let line = change(&|f| {
        f.text("llama.block_count", "two");
    });
    assert!(line.contains("'llama.block_count' is a text; it must be an integer"), "{line}");
    assert!(
        change(&|f| {
            f.count("llama.attention.head_count", 3);
        })
        .contains("does not fit (3, 2) heads")
    );
    assert!(
        change(&|f| {
            f.count("llama.expert_count", 8).count("llama.expert_used_count", 2);
        })
        .contains("lacks the tensor 'blk.0.ffn_gate_inp.weight' of a llama of 2 blocks")
    );
    assert!(
        change(&|f| {
            f.text("tokenizer.ggml.model", "bert");
        })
        .contains("'bert'; gpt2 and llama are read")
    );
    assert!(
        change(&|f| {
            f.text("tokenizer.ggml.pre", "odd");
        })
        .contains("'odd'; these are read: gpt-2")
    );
    assert!(
        change(&|f| {
            f.count("tokenizer.ggml.bos_token_id", 400);
        })
        .contains("is 400, but there are 400 tokens")
    );
    let golden = byte_level(&mut Gguf::new());
    let merge = golden["merges"][0].as_str().unwrap();
    assert!(
        change(&|f| {
            f.texts("tokenizer.ggml.merges", [merge, "nonsense"]);
        })
        .contains("merge 1 is 'nonsense'")
    );
    assert!(
        change(&|f| {
            f.ints("tokenizer.ggml.token_type", &[1, 1]);
        })
        .contains("has 2 entries")
    );
    assert!(
        change(&|f| {
            f.count("general.alignment", 3);
        })
        .contains("no power of two")
    );
    let odd = change(&|f| {
        f.tensors[1].1 = vec![31];
        f.tensors[1].2 = 8;
    });
    assert!(odd.contains("rows of 31, no multiple of the block of 32"), "{odd}");
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let whole = llama().bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    for end in (0..whole.len() - 32).step_by(whole.len() / 97) {
        std::fs::write(&path, &whole[..end]).unwrap();
        let line = File::open(&path).unwrap_err().to_string();
        assert!(line.contains("truncated") || line.contains("is no GGUF file"), "{end}: {line}");
    }
}

#[test]
fn a_file_without_a_tokenizer_makes_a_folder_without_one() {
    let mut file = llama();
    file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
    let (_folder, out) = imported(&file);
    assert!(Folder::open(&out).unwrap().companions().iter().all(|p| p.ends_with("generation_config.json")));
    let line = Tokenizer::open(&out).err().unwrap().to_string();
    assert!(line.ends_with("has no tokenizer.json"), "{line}");
}
