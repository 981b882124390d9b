//! What becomes of a GGUF file: a folder that opens and computes what the file says, or one line.

use crate::build::{self, Gguf, byte_level, llama};
use crate::close::assert_close;
use crate::gguf::{imported, open, refused};
use lacuna::io::Folder;
use lacuna::io::gguf::{Gguf as File, import};
use lacuna::lm::{Config, LanguageModel};
use lacuna::text::Tokenizer;
use ndarray::ArrayD;
use serde_json::{Value, json};

/// A file over again, to be changed: all tensors in F32.
fn again(bytes: &[u8]) -> Gguf {
    use lacuna::io::gguf::GgufValue as Kept;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    let (from, mut file) = (File::open(&path).unwrap(), Gguf::new());
    for (key, value) in from.metadata() {
        match value {
            Kept::Int(i) => file.count(key, u32::try_from(*i).unwrap()),
            Kept::Float(f) => file.float(key, *f as f32),
            Kept::Bool(b) => file.flag(key, *b),
            Kept::Text(t) => file.text(key, t),
            _ => panic!("{key} is a list"),
        };
    }
    for tensor in from.tensors() {
        file.tensor(&tensor.name, &from.read(&tensor.name).unwrap());
    }
    file
}

/// The name of a family's architecture in a file: the format has none of its own for Mixtral.
pub fn architecture(family: &str) -> &str {
    if family == "mixtral" { "llama" } else { family }
}

/// The families' files, to be changed.
pub fn families() -> [(&'static str, Gguf); 19] {
    [
        ("llama", again(include_bytes!("llama.gguf"))),
        ("gemma2", again(include_bytes!("gemma2.gguf"))),
        ("phi2", again(include_bytes!("phi2.gguf"))),
        ("phi3", again(include_bytes!("phi3.gguf"))),
        ("nemotron", again(include_bytes!("nemotron.gguf"))),
        ("gpt2", again(include_bytes!("gpt2.gguf"))),
        ("qwen2", again(include_bytes!("qwen2.gguf"))),
        ("qwen3", again(include_bytes!("qwen3.gguf"))),
        ("gemma", again(include_bytes!("gemma.gguf"))),
        ("gemma3", again(include_bytes!("gemma3.gguf"))),
        ("smollm3", again(include_bytes!("smollm3.gguf"))),
        ("olmo2", again(include_bytes!("olmo2.gguf"))),
        ("mixtral", again(include_bytes!("mixtral.gguf"))),
        ("qwen2moe", again(include_bytes!("qwen2moe.gguf"))),
        ("qwen3moe", again(include_bytes!("qwen3moe.gguf"))),
        ("olmoe", again(include_bytes!("olmoe.gguf"))),
        ("gptneox", again(include_bytes!("gptneox.gguf"))),
        ("bloom", again(include_bytes!("bloom.gguf"))),
        ("stablelm", again(include_bytes!("stablelm.gguf"))),
    ]
}

const IDS: [u32; 12] = [3, 17, 8, 30, 5, 5, 21, 12, 39, 4, 9, 28];

/// Logits of an imported folder, after `change` of its config.
fn logits(out: &std::path::Path, change: impl Fn(&mut Value)) -> ndarray::Array2<f32> {
    let folder = Folder::open(out).unwrap();
    let mut json = Value::Object(folder.config().clone());
    change(&mut json);
    LanguageModel::load(&folder, Config::parse(&json).unwrap()).unwrap().forward(&IDS).unwrap()
}

#[test]
fn a_factor_without_a_type_or_by_its_old_name_is_linear_in_every_architecture() {
    for (arch, file) in families().into_iter().filter(|(arch, _)| !["gpt2", "gemma3", "bloom"].contains(arch)) {
        let arch = architecture(arch);
        let (_plain, plain) = imported(&file);
        assert_eq!(Folder::open(&plain).unwrap().config()["rope_scaling"], Value::Null, "{arch}");
        let linear = json!({"rope_type": "linear", "factor": 4.0});
        let right = logits(&plain, |json| json["rope_scaling"] = linear.clone());
        assert_ne!(right, logits(&plain, |_| {}), "{arch}");
        for keys in [
            &[("rope.scaling.factor", 4.0)][..],
            &[("rope.scale_linear", 4.0)],
            &[("rope.scaling.factor", 4.0), ("rope.scale_linear", 2.0)],
        ] {
            let mut scaled = file.clone();
            for (key, value) in keys {
                scaled.float(&format!("{arch}.{key}"), *value);
            }
            let (_folder, out) = imported(&scaled);
            assert_eq!(Folder::open(&out).unwrap().config()["rope_scaling"], linear, "{arch} {keys:?}");
            assert_eq!(logits(&out, |_| {}), right, "{arch} {keys:?}");
        }
        // What leaves everything as it is: a factor of 1 or 0, or the type none.
        for (key, value) in [("rope.scaling.factor", 1.0), ("rope.scaling.factor", 0.0), ("rope.scale_linear", 1.0)] {
            let mut scaled = file.clone();
            scaled.float(&format!("{arch}.{key}"), value).flag(&format!("{arch}.rope.scaling.finetuned"), true);
            let (_folder, out) = imported(&scaled);
            assert_eq!(Folder::open(&out).unwrap().config()["rope_scaling"], Value::Null, "{arch} {key}");
        }
        let mut none = file.clone();
        none.float(&format!("{arch}.rope.scaling.factor"), 4.0).text(&format!("{arch}.rope.scaling.type"), "none");
        // llama.cpp scales the windowed blocks of this one all the same, which no config says.
        if arch == "gemma2" {
            assert!(refused(&none).contains("is 4, which does not go with the type none of a gemma2"));
            continue;
        }
        let (_folder, out) = imported(&none);
        assert_eq!(Folder::open(&out).unwrap().config()["rope_scaling"], Value::Null, "{arch}");
    }
}

#[test]
fn what_a_config_cannot_say_of_a_file_is_refused_at_import_by_its_key_or_tensor() {
    let ones = |n: usize| ndarray::Array1::<f32>::ones(n).into_dyn();
    let change = |arch: &str, change: &dyn Fn(&mut Gguf)| {
        let mut file = families().into_iter().find(|(name, _)| *name == arch).unwrap().1;
        change(&mut file);
        refused(&file)
    };
    for (arch, key, value, says) in [
        (
            "llama",
            "rope.scaling.attn_factor",
            0.5,
            "'llama.rope.scaling.attn_factor' is 0.5, which goes with yarn and longrope alone",
        ),
        ("phi2", "rope.scaling.attn_factor", 1.2, "'phi2.rope.scaling.attn_factor' is 1.2"),
        (
            "llama",
            "rope.scaling.yarn_ext_factor",
            0.5,
            "'llama.rope.scaling.yarn_ext_factor' is 0.5, which is not known of a llama",
        ),
        ("llama", "rope.scaling.yarn_attn_factor", 0.5, "'llama.rope.scaling.yarn_attn_factor' is 0.5"),
        ("llama", "rope.scaling.yarn_log_multiplier", 0.1, "'llama.rope.scaling.yarn_log_multiplier' is 0.1"),
        ("llama", "attention.scale", 0.1, "'llama.attention.scale' is 0.1"),
        ("llama", "logit_scale", 16.0, "'llama.logit_scale' is 16"),
        ("llama", "residual_scale", 0.22, "'llama.residual_scale' is 0.22"),
        ("llama", "embedding_scale", 12.0, "'llama.embedding_scale' is 12"),
        ("phi3", "final_logit_softcapping", 30.0, "'phi3.final_logit_softcapping' is 30"),
        ("gemma2", "rope.freq_base_swa", 1e6, "'gemma2.rope.freq_base_swa' is 1000000"),
        ("gpt2", "attention.clamp_kqv", 8.0, "'gpt2.attention.clamp_kqv' is 8"),
        ("nemotron", "rope.scaling.factor", -2.0, "'nemotron.rope.scaling.factor' is -2"),
    ] {
        let line = change(arch, &|f| {
            f.float(&format!("{arch}.{key}"), value);
        });
        assert!(line.contains(says), "{line}");
    }
    for (arch, key, value, says) in [
        ("llama", "attention.sliding_window", 8, "'llama.attention.sliding_window' is 8, which is not known of a llama"),
        ("llama", "attention.value_length", 4, "'llama.attention.value_length' or attention.key_length is 0, or they differ"),
        ("llama", "rope.dimension_count", 4, "'llama.rope.dimension_count' is 4, but heads have 6 features"),
        ("gemma2", "rope.dimension_count", 4, "'gemma2.rope.dimension_count' is 4"),
        ("phi2", "rope.dimension_count", 3, "'phi2.rope.dimension_count' is 3"),
        ("gemma2", "attention.sliding_window", 0, "'gemma2.attention.sliding_window' is 0"),
        ("llama", "feed_forward_length", 23, "'blk.0.ffn_gate.weight' has shape [24, 16]; its keys ask for [23, 16]"),
        ("gpt2", "context_length", 65, "'position_embd.weight' has shape [64, 16]; its keys ask for [65, 16]"),
    ] {
        let line = change(arch, &|f| {
            f.count(&format!("{arch}.{key}"), value);
        });
        assert!(line.contains(says), "{line}");
    }
    // Tensors that an architecture has not, or has not with the others.
    let factors = |file: &mut Gguf, name: &str, n: usize| {
        file.tensor(name, &(ones(n) * 2.0));
    };
    for (arch, name, n, says) in [
        ("phi2", "rope_freqs.weight", 2, "has the tensor 'rope_freqs.weight', which is not known of a phi2"),
        ("gemma2", "rope_factors_long.weight", 3, "has the tensor 'rope_factors_long.weight', which is not known of a gemma2"),
        ("llama", "rope_factors_short.weight", 3, "has the tensor 'rope_factors_short.weight', which is not known of a llama"),
        ("phi3", "rope_factors_short.weight", 4, "lacks the tensor 'rope_factors_long.weight'"),
        ("phi3", "rope_freqs.weight", 4, "has the tensor 'rope_freqs.weight', which is not known of a phi3"),
        ("llama", "rope_freqs.weight", 2, "tensor 'rope_freqs.weight' is no list of 3 numbers above 0"),
        ("gemma2", "blk.0.attn_q.bias", 12, "has the tensor 'blk.0.attn_q.bias', which a gemma2 of 2 blocks has not"),
        ("phi3", "blk.1.attn_qkv.bias", 32, "has the tensor 'blk.1.attn_qkv.bias', which a phi3 of 2 blocks has not"),
        ("llama", "output.bias", 40, "has the tensor 'output.bias', which a llama of 2 blocks has not"),
        ("llama", "blk.0.attn_norm.bias", 16, "has the tensor 'blk.0.attn_norm.bias', which a llama of 2 blocks has not"),
        ("llama", "blk.0.attn_q.bias", 11, "does not fit (2, 1) heads"),
        ("llama", "blk.0.attn_v.bias", 5, "tensor 'blk.0.attn_v.bias' has shape [5]; its keys ask for [6]"),
    ] {
        let line = change(arch, &|f| factors(f, name, n));
        assert!(line.contains(says), "{line}");
    }
    for (arch, name) in [
        ("phi2", "output.weight"),
        ("phi2", "output.bias"),
        ("phi2", "blk.1.attn_k.bias"),
        ("gpt2", "blk.0.ffn_up.bias"),
        ("nemotron", "output_norm.bias"),
    ] {
        let line = change(arch, &|f| f.tensors.retain(|t| t.0 != name));
        assert!(line.contains(&format!("lacks the tensor '{name}' of a {arch} of 2 blocks")), "{line}");
    }
    // Two kinds of scaling at once.
    let line = change("llama", &|f| {
        f.float("llama.rope.scaling.factor", 4.0);
        factors(f, "rope_freqs.weight", 3);
    });
    assert!(line.contains("has both linear scaling and the tensor 'rope_freqs.weight'"), "{line}");
    let line = change("llama", &|f| {
        f.text("llama.rope.scaling.type", "longrope");
    });
    assert!(line.contains("states longrope and lacks the tensor 'rope_factors_short.weight'"), "{line}");
    let line = change("llama", &|f| {
        f.count("split.count", 3);
    });
    assert!(line.contains("is one of 3 parts of a model"), "{line}");
    let line = change("llama", &|f| {
        f.flag("llama.attention.causal", false);
    });
    assert!(line.contains("'llama.attention.causal' is false"), "{line}");
}

#[test]
fn divisors_of_one_are_none_and_those_of_long_texts_are_two_lists() {
    let mut file = llama();
    file.tensor("rope_freqs.weight", &ndarray::Array1::<f32>::ones(4).into_dyn());
    let (_folder, out) = imported(&file);
    assert_eq!(Folder::open(&out).unwrap().config()["rope_scaling"], Value::Null);

    let (short, long) = (ndarray::array![1.0f32, 1.25, 1.5].into_dyn(), ndarray::array![2.0f32, 3.0, 4.5].into_dyn());
    for (arch, named) in [("llama", true), ("phi3", false)] {
        let mut file = families().into_iter().find(|(name, _)| *name == arch).unwrap().1;
        let pairs = if arch == "phi3" { 4 } else { 3 };
        let list = |of: &ArrayD<f32>| {
            let mut all: Vec<f32> = of.iter().copied().collect();
            all.resize(pairs, 5.0);
            ndarray::Array1::from(all).into_dyn()
        };
        file.tensor("rope_factors_short.weight", &list(&short)).tensor("rope_factors_long.weight", &list(&long));
        file.count(&format!("{arch}.rope.scaling.original_context_length"), 16);
        if named {
            file.text(&format!("{arch}.rope.scaling.type"), "longrope");
        }
        // The factor that follows from the lengths, one of the file's own, and none, which is 1.
        let follows = (1.0 + 4f64.ln() / 16f64.ln()).sqrt();
        for (stated, says) in [(Some(follows), None), (Some(1.5), Some(1.5)), (None, Some(1.0))] {
            file.keys.retain(|(key, _)| !key.ends_with("attn_factor"));
            if let Some(stated) = stated {
                file.float(&format!("{arch}.rope.scaling.attn_factor"), stated as f32);
            }
            let (_folder, out) = imported(&file);
            let opened = Folder::open(&out).unwrap();
            let scaling = &opened.config()["rope_scaling"];
            assert_eq!(
                (scaling["type"].as_str(), scaling["short_factor"][1].as_f64()),
                (Some("longrope"), Some(1.25)),
                "{scaling}"
            );
            assert_eq!(scaling.get("attention_factor").and_then(Value::as_f64), says, "{scaling}");
            assert_eq!(opened.config()["original_max_position_embeddings"], 16);
            let lengthened = |json: &mut Value| json["rope_scaling"]["attention_factor"] = json!(stated.unwrap_or(1.0));
            let (plain, lengthened) = (logits(&out, |_| {}), logits(&out, lengthened));
            assert_close(&plain, &lengthened, 1e-5f32.next_down(), format!("{arch} {stated:?}"));
        }
    }
}

#[test]
fn the_windows_of_a_file_are_those_of_its_pattern() {
    let file = families().into_iter().find(|(name, _)| *name == "gemma2").unwrap().1;
    let kinds = |change: &dyn Fn(&mut Gguf)| {
        let mut changed = file.clone();
        change(&mut changed);
        let (_folder, out) = imported(&changed);
        let windows = Folder::open(&out).unwrap().config().get("layer_types").cloned();
        (windows, logits(&out, |_| {}))
    };
    let key = "gemma2.attention.sliding_window_pattern";
    let (none, plain) = kinds(&|_| {});
    assert_eq!(none, None);
    let (two, same) = kinds(&|f| {
        f.count(key, 2);
    });
    assert_eq!((two, same), (Some(json!(["sliding_attention", "full_attention"])), plain.clone()));
    let (one, other) = kinds(&|f| {
        f.count(key, 1);
    });
    assert_eq!(one, Some(json!(["full_attention", "full_attention"])));
    assert_ne!(other, plain);
    let (list, turned) = kinds(&|f| {
        f.ints(key, &[0, 1]);
    });
    assert_eq!(list, Some(json!(["full_attention", "sliding_attention"])));
    assert_ne!(turned, plain);
}

#[test]
fn biases_of_some_layers_of_attention_are_read_and_those_that_are_missing_are_zeros() {
    let mut file = llama();
    let bias = |name: &str, n: usize| build::numbers(name, &[n], 0.5);
    let (q, k, v) = (bias("q", 32), bias("k", 16), bias("v", 16));
    let pairs = |values: &ArrayD<f32>, heads: usize| {
        let column = values.view().into_shape_with_order((values.len(), 1)).unwrap().to_owned();
        build::paired(&column, heads).into_shape_with_order(values.len()).unwrap().into_dyn()
    };
    file.tensor("blk.1.attn_q.bias", &pairs(&q, 4)).tensor("blk.1.attn_k.bias", &pairs(&k, 2)).tensor("blk.1.attn_v.bias", &v);
    let (_folder, out) = imported(&file);
    let folder = Folder::open(&out).unwrap();
    assert_eq!((&folder.config()["attention_bias"], &folder.config()["mlp_bias"]), (&json!(true), &json!(false)));
    let at = |block: usize, part: &str| folder.read(&format!("model.layers.{block}.self_attn.{part}_proj.bias")).unwrap();
    assert_eq!([at(1, "q"), at(1, "k"), at(1, "v")], [q, k, v]);
    for (block, part, n) in [(0, "q", 32), (0, "k", 16), (0, "v", 16), (0, "o", 32), (1, "o", 32)] {
        assert_eq!(at(block, part), ArrayD::<f32>::zeros(vec![n]), "{block} {part}");
    }
    // It opens; without the biases of block 1 it is the model without biases.
    let (_plain, plain) = imported(&llama());
    assert_ne!(logits(&out, |_| {}), logits(&plain, |_| {}));
    let mut zero = llama();
    zero.tensor("blk.1.attn_q.bias", &ArrayD::zeros(vec![32])).tensor("blk.0.ffn_down.bias", &ArrayD::zeros(vec![32]));
    let (_folder, out) = imported(&zero);
    assert_eq!(Folder::open(&out).unwrap().config()["mlp_bias"], json!(true));
    assert_eq!(logits(&out, |_| {}), logits(&plain, |_| {}));
}

#[test]
fn a_tokenizer_says_which_inputs_its_model_reads() {
    let (_folder, out) = imported(&llama());
    let config = Folder::open(&out).unwrap().json("tokenizer_config.json").unwrap().unwrap();
    assert_eq!(config["model_input_names"], json!(["input_ids", "attention_mask"]));
}

#[test]
fn the_pre_tokenizer_of_gpt_4o_cuts_as_its_expression_says() {
    let mut file = llama();
    file.text("tokenizer.ggml.pre", "gpt-4o");
    let (_folder, out) = imported(&file);
    let tokenizer = Tokenizer::open(&out).unwrap();
    let golden = byte_level(&mut Gguf::new());
    for text in golden["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).filter(|t| !t.contains("<s>")) {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, false).unwrap()).unwrap(), text);
    }
    // A capital begins a new word, an ending belongs to its word, numbers are cut by threes, a slash goes with what stands before it.
    let file: tokenizers::Tokenizer = tokenizers::Tokenizer::from_file(out.join("tokenizer.json")).unwrap();
    let cut = |text: &str| -> Vec<String> {
        let mut pieces = tokenizers::PreTokenizedString::from(text);
        tokenizers::PreTokenizer::pre_tokenize(file.get_pre_tokenizer().unwrap(), &mut pieces).unwrap();
        let splits = pieces.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        splits.iter().map(|(_, (from, to), _)| text[*from..*to].to_string()).collect()
    };
    assert_eq!(cut("camelCase HTMLParser I'll"), ["camel", "Case", " HTMLParser", " I'll"]);
    assert_eq!(cut("12345, it's\n\n"), ["123", "45", ",", " it's", "\n\n"]);
    assert_eq!(cut("a //x"), ["a", " //", "x"]);
}

/// Whatever a file says: a folder that is made opens.
#[test]
fn an_import_that_succeeds_gives_a_folder_that_opens() {
    let (mut made, mut not) = (0, 0);
    let mut try_it = |file: &Gguf, what: String| {
        let (folder, opened) = open(file);
        let out = folder.path().join("out");
        match opened.and_then(|f| import(&f, &out, None)) {
            Err(e) => {
                assert!(!e.to_string().contains('\n'), "{what}: {e}");
                not += 1;
            }
            Ok(_) => {
                let folder = Folder::open(&out).unwrap();
                let config = Config::of(&folder).unwrap_or_else(|e| panic!("{what}: {e}"));
                lacuna::lm::check(&folder, &config).unwrap_or_else(|e| panic!("{what}: {e}"));
                made += 1;
            }
        }
    };
    for (arch, file) in families() {
        let arch = architecture(arch);
        let copy = || file.clone();
        let own = file.keys.iter().map(|(key, _)| key.clone()).filter(|key| key.starts_with(arch));
        let more = ["attention.sliding_window", "attention.head_count_kv", "attention.value_length", "rope.scaling.factor"];
        for key in own.chain(more.map(|key| format!("{arch}.{key}"))) {
            for value in [0, 1, 2, 3, 5, 6, 8, 16, 24, 48, 1 << 29, u32::MAX] {
                let mut changed = copy();
                changed.count(&key, value);
                try_it(&changed, format!("{key} = {value}"));
            }
            for value in [0.0, -1.0, 0.5, 1e30] {
                let mut changed = copy();
                changed.float(&key, value);
                try_it(&changed, format!("{key} = {value}"));
            }
            let mut changed = copy();
            changed.keys.retain(|(k, _)| *k != key);
            try_it(&changed, format!("without {key}"));
        }
        for i in 0..file.tensors.len() {
            let name = &file.tensors[i].0;
            let mut changed = copy();
            changed.tensors.remove(i);
            try_it(&changed, format!("without {name}"));
            let mut changed = copy();
            changed.tensors[i].1.reverse();
            try_it(&changed, format!("{name} turned"));
            let stem = name.rsplit_once('.').unwrap().0;
            if name.ends_with(".weight") && !file.tensors.iter().any(|t| t.0 == format!("{stem}.bias")) {
                let rows = *file.tensors[i].1.last().unwrap() as usize;
                let mut changed = copy();
                changed.tensor(&format!("{stem}.bias"), &ArrayD::zeros(vec![rows]));
                try_it(&changed, format!("with {stem}.bias"));
            }
        }
    }
    assert!(made > 100 && not > 300, "{made} made, {not} refused");
}

#[test]
fn what_ends_a_turn_or_a_message_ends_a_text_too() {
    for (more, ends) in [
        (&[][..], json!(2)),
        (&[("eot", 5)][..], json!([2, 5])),
        (&[("eot", 2), ("eom", 6)], json!([2, 6])),
        (&[("eot", 5), ("eom", 5)], json!([2, 5])),
    ] {
        let mut file = llama();
        more.iter().for_each(|(key, id)| {
            file.count(&format!("tokenizer.ggml.{key}_token_id"), *id);
        });
        let (_folder, out) = imported(&file);
        let folder = Folder::open(&out).unwrap();
        assert_eq!(folder.config()["eos_token_id"], ends);
        assert_eq!(folder.json("generation_config.json").unwrap().unwrap()["eos_token_id"], ends);
        let listed: Vec<u64> = ends.as_array().map_or_else(|| vec![2], |list| list.iter().filter_map(Value::as_u64).collect());
        assert_eq!(Config::of(&folder).unwrap().eos().into_iter().map(u64::from).collect::<Vec<_>>(), listed);
    }
}
