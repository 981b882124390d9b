//! Commands on language models, on a tiny random one.

use crate::build::{HIDDEN, LAYERS, VOCAB, llama};
use crate::common::Folder;
use lacuna::io::{Folder as Model, FolderWriter, Layout, read_ids};
use lacuna::mask::Mask;
use lacuna::text::Tokenizer;
use serde_json::Value;
use std::fs;

const TEXT: &str = "The weights that stay are ranked, never held against a threshold; of 120 equal scores the first stays.\n";

/// A folder with `tiny.gguf`, the model `tiny` imported from it, and `text.txt`.
pub fn tiny() -> Folder {
    let folder = Folder::new();
    llama().write(folder.path("tiny.gguf"));
    folder.succeeds(&["import", "tiny.gguf", "tiny"]);
    fs::write(folder.path("text.txt"), TEXT.repeat(6)).unwrap();
    folder
}

/// A safetensors file of one I64 tensor.
pub fn ids_file(name: &str, shape: &[usize], ids: &[i64]) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"I64","shape":{shape:?},"data_offsets":[0,{}]}}}}"#, 8 * ids.len());
    let bytes: Vec<u8> = ids.iter().flat_map(|i| i.to_le_bytes()).collect();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()
}

/// -ln p of every token but the first, from the logits that the command wrote.
pub fn losses(folder: &Folder, ids: &[u32]) -> Vec<f64> {
    let as_i64: Vec<i64> = ids.iter().map(|i| i64::from(*i)).collect();
    fs::write(folder.path("ids.safetensors"), ids_file("input_ids", &[1, ids.len()], &as_i64)).unwrap();
    folder.succeeds(&["logits", "tiny", "--ids", "ids.safetensors", "--out", "logits.safetensors", "--force"]);
    let file = folder.read("logits.safetensors");
    let logits = file.get("logits").unwrap();
    assert_eq!(logits.shape(), [1, ids.len(), VOCAB]);
    let loss = |t: usize| {
        let row: Vec<f64> = (0..VOCAB).map(|v| f64::from(logits[[0, t, v]])).collect();
        row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[ids[t + 1] as usize]
    };
    (0..ids.len() - 1).map(loss).collect()
}

#[test]
fn perplexity_is_that_of_the_logits_window_by_window() {
    let folder = tiny();
    let report = folder.json(&["eval", "tiny", "--text", "text.txt", "--context", "24", "--windows", "3", "--json"]);
    let ids = Tokenizer::open(folder.path("tiny")).unwrap().encode(&TEXT.repeat(6), false).unwrap();
    let wanted: Vec<f64> = (0..3).flat_map(|w| losses(&folder, &ids[24 * w..24 * (w + 1)])).collect();
    let mean = wanted.iter().sum::<f64>() / wanted.len() as f64;
    let (nll, perplexity) = (report["nll"].as_f64().unwrap(), report["perplexity"].as_f64().unwrap());
    assert!((nll - mean).abs() < 1e-5 && (perplexity - mean.exp()).abs() < 1e-2, "{nll} {mean} {perplexity}");
    assert_eq!((&report["windows"], &report["tokens"], &report["predicted"]), (&3.into(), &72.into(), &69.into()));
    assert_eq!((&report["context"], &report["text_tokens"]), (&24.into(), &ids.len().into()));
    assert_eq!(report["bos"], "none (the tokenizer puts none)");
    assert!(report["tokens_per_second"].as_f64().unwrap() > 0.0 && report["weights_bytes"].as_u64().unwrap() > 0);
    // One block at a time gives the same number to the bit.
    let streamed =
        folder.json(&["eval", "tiny", "--text", "text.txt", "--context", "24", "--windows", "3", "--stream", "--json"]);
    assert_eq!(streamed["nll"], report["nll"]);
    // All windows, and the tail dropped.
    let all = folder.json(&["eval", "tiny", "--text", "text.txt", "--context", "24", "--json"]);
    assert_eq!(all["windows"].as_u64().unwrap() as usize, ids.len() / 24);
    // With the first token before every window one token of text less is in it.
    let begun =
        folder.json(&["eval", "tiny", "--text", "text.txt", "--context", "24", "--windows", "2", "--bos", "window", "--json"]);
    let first: Vec<u32> = [&[1], &ids[..23]].concat();
    let second: Vec<u32> = [&[1], &ids[23..46]].concat();
    let wanted = [losses(&folder, &first), losses(&folder, &second)].concat();
    let mean = wanted.iter().sum::<f64>() / wanted.len() as f64;
    assert!((begun["nll"].as_f64().unwrap() - mean).abs() < 1e-5, "{} {mean}", begun["nll"]);
    assert_eq!(begun["bos"], "token 1 <s> begins every window");
    let printed = folder.succeeds(&["eval", "tiny", "--text", "text.txt", "--context", "24"]);
    for says in ["context 24", "BOS: none", "perplexity ", "tokens/s", "peak memory "] {
        assert!(printed.contains(says), "{says}: {printed}");
    }
}

#[test]
fn several_texts_are_a_row_each_and_bytes_make_tokenizers_comparable() {
    let folder = tiny();
    let text = fs::read_to_string(folder.path("text.txt")).unwrap();
    fs::write(folder.path("other.txt"), text.repeat(2)).unwrap();
    let eval = |texts: &str| folder.json(&["eval", "tiny", "--text", texts, "--context", "24", "--windows", "3", "--json"]);
    let (both, one, other) = (eval("text.txt,other.txt"), eval("text.txt"), eval("other.txt"));
    let timeless = |mut score: Value| {
        let score = score.as_object_mut().unwrap();
        score.retain(|key, _| !["seconds", "tokens_per_second"].contains(&key.as_str()));
        score.clone()
    };
    let rows: Vec<_> = both["texts"].as_array().unwrap().iter().cloned().map(timeless).collect();
    assert_eq!(rows, [timeless(one["texts"][0].clone()), timeless(other["texts"][0].clone())]);
    for key in ["text", "perplexity", "nll", "predicted", "bits_per_byte", "text_tokens"] {
        assert!(both[key] == one[key] && !both[key].is_null(), "{key}: {both}");
    }
    // Tokens over bytes of the whole text, nats to bits.
    let number = |key: &str| one[key].as_f64().unwrap();
    let by_hand = number("nll") / 2f64.ln() * number("text_tokens") / text.len() as f64;
    assert!((number("bits_per_byte") - by_hand).abs() < 1e-12 * by_hand, "{by_hand}: {one}");
    let printed = folder.succeeds(&["eval", "tiny", "--text", "text.txt,other.txt", "--context", "24", "--windows", "3"]);
    assert!(printed.contains("other.txt") && printed.contains("bits a byte"), "{printed}");
    let line = folder.refuses(&["eval", "tiny", "--text", "text.txt,gone.txt", "--context", "24"]);
    assert!(line.contains("gone.txt"), "{line}");
    for list in [",", "text.txt,", ",text.txt", "text.txt,,other.txt"] {
        let line = folder.refuses(&["eval", "tiny", "--text", list, "--context", "24"]);
        assert!(line.contains(&format!("'{list}' names an empty file")), "{line}");
    }
    // A file whose name has a comma is one text.
    fs::write(folder.path("a,b.txt"), &text).unwrap();
    assert_eq!(eval("a,b.txt")["texts"].as_array().unwrap().len(), 1);
}

#[test]
fn choices_and_last_words_are_scored_by_the_same_losses() {
    let folder = tiny();
    let tokenizer = Tokenizer::open(folder.path("tiny")).unwrap();
    let questions = [
        ("The weights that", ["stay", "are ranked, never", "x"]),
        ("of equal scores", ["the first", "1", "threshold; threshold"]),
        ("A mask is ", ["saved", "a", "networks"]),
    ];
    let mut lines = String::new();
    let (mut plain, mut normalised) = (0, 0);
    for (i, (query, choices)) in questions.iter().enumerate() {
        let space = if query.ends_with(' ') { "" } else { " " };
        let score = |choice: &str| {
            let ids = tokenizer.encode(&format!("{query}{space}{choice}"), true).unwrap();
            let from = tokenizer.encode(query.trim_end(), true).unwrap().len();
            -losses(&folder, &ids)[from - 1..].iter().sum::<f64>()
        };
        let scores = choices.map(score);
        let each: Vec<f64> = scores.iter().zip(choices).map(|(s, c)| s / c.len() as f64).collect();
        let best = |of: &[f64]| (0..3).max_by(|a, b| of[*a].total_cmp(&of[*b])).unwrap();
        plain += usize::from(best(&scores) == i % 3);
        normalised += usize::from(best(&each) == i % 3);
        lines += &format!("{}\n\n", serde_json::json!({"query": query, "choices": choices, "gold": i % 3, "more": 1}));
    }
    fs::write(folder.path("choices.jsonl"), lines).unwrap();
    fs::write(folder.path("last.jsonl"), "{\"context\": \"The weights that\", \"continuation\": \"stay\"}\n").unwrap();
    let report = folder.json(&["eval", "tiny", "--choices", "choices.jsonl", "--last-word", "last.jsonl", "--json"]);
    let choices = &report["choices"];
    assert_eq!((choices["questions"].as_u64(), choices["accuracy"].as_f64()), (Some(3), Some(plain as f64 / 3.0)));
    assert_eq!(choices["accuracy_normalised"].as_f64(), Some(normalised as f64 / 3.0));
    let ids = tokenizer.encode("The weights that stay", true).unwrap();
    let from = tokenizer.encode("The weights that", true).unwrap().len();
    let nll: f64 = losses(&folder, &ids)[from - 1..].iter().sum();
    let last = &report["last_word"];
    assert!((last["perplexity"].as_f64().unwrap() / nll.exp() - 1.0).abs() < 1e-4, "{last} {nll}");
    assert_eq!(last["texts"], 1);
    let one = folder.json(&["eval", "tiny", "--choices", "choices.jsonl", "--items", "1", "--json"]);
    assert_eq!(one["choices"]["questions"], 1);
}

#[test]
fn generation_is_greedy_or_drawn_and_repeats_with_its_seed() {
    let folder = tiny();
    let made = |more: &[&str]| {
        folder.json(&[&["generate", "tiny", "--prompt", "The weights", "--tokens", "12", "--json"], more].concat())
    };
    let ids = |v: &Value| v["ids"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect::<Vec<_>>();
    let greedy = made(&["--ignore-end"]);
    // Each token is the likeliest after all before it, by logits of the whole.
    let prompt = Tokenizer::open(folder.path("tiny")).unwrap().encode("The weights", true).unwrap();
    let whole = [prompt.clone(), ids(&greedy)].concat();
    losses(&folder, &whole);
    let file = folder.read("logits.safetensors");
    let logits = file.get("logits").unwrap();
    for (i, id) in ids(&greedy).iter().enumerate() {
        let row = (0..VOCAB).map(|v| logits[[0, prompt.len() + i - 1, v]]);
        let top = row.fold(f32::MIN, f32::max);
        assert!(logits[[0, prompt.len() + i - 1, *id as usize]] >= top - 1e-4, "token {i}");
    }
    assert_eq!((greedy["ended"].as_str(), ids(&greedy).len()), (Some("limit"), 12));
    assert_eq!(greedy["text"], Tokenizer::open(folder.path("tiny")).unwrap().decode(&ids(&greedy)).unwrap());
    assert_eq!(ids(&made(&["--ignore-end", "--greedy"])), ids(&greedy));
    assert_eq!(ids(&made(&["--ignore-end", "--temperature", "0"])), ids(&greedy));
    assert_eq!(ids(&made(&["--ignore-end", "--top-k", "1"])), ids(&greedy));
    let drawn = |seed: &str| ids(&made(&["--ignore-end", "--temperature", "1.2", "--top-p", "0.95", "--seed", seed]));
    assert_eq!(drawn("3"), drawn("3"));
    assert_ne!(drawn("3"), drawn("4"));
    let printed = folder.succeeds(&["generate", "tiny", "--prompt", "The weights", "--tokens", "12", "--ignore-end"]);
    assert!(printed.starts_with(&format!("The weights{}", greedy["text"].as_str().unwrap())), "{printed}");
    assert!(printed.contains("12 tokens, ") && printed.contains(" tokens/s"), "{printed}");
}

#[test]
fn many_texts_are_written_side_by_side_and_each_is_what_it_is_alone() {
    let folder = tiny();
    let many = |n: &str, seed: &str, out: &str, more: &[&str]| {
        let args = ["generate", "tiny", "--many", n, "--tokens", "20", "--seed", seed, "--out", out, "--json"];
        let report = folder.json(&[&args, more].concat());
        let text = std::fs::read_to_string(folder.path(out)).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(report["texts"], lines.len());
        (report, lines)
    };
    let (report, all) = many("5", "7", "all.jsonl", &["--drop", "0", "--batch", "3", "--top-p", "0.9"]);
    assert_eq!((&report["written"], &report["batch"]), (&5.into(), &3.into()));
    let texts: std::collections::BTreeSet<&str> = all.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 5, "{texts:?}");
    for (i, line) in all.iter().enumerate() {
        let out = format!("{i}.jsonl");
        let (_, alone) = many("1", &(7 + i).to_string(), &out, &["--drop", "0", "--top-p", "0.9"]);
        assert_eq!((&alone[0], &line["seed"]), (line, &(7 + i).into()));
        // The perplexity is the model's.
        let tokenizer = Tokenizer::open(folder.path("tiny")).unwrap();
        assert!(line["tokens"].as_u64().unwrap() <= 20 && line["perplexity"].as_f64().unwrap() > 1.0);
        assert!(tokenizer.encode(line["text"].as_str().unwrap(), false).is_ok());
    }
    // Of five written the two of highest perplexity go.
    let (report, kept) = many("3", "7", "kept.jsonl", &["--drop", "0.4", "--top-p", "0.9"]);
    assert_eq!(report["written"], 5);
    let mut sorted: Vec<&Value> = all.iter().collect();
    sorted.sort_by(|a, b| a["perplexity"].as_f64().unwrap().total_cmp(&b["perplexity"].as_f64().unwrap()));
    assert!(kept.iter().all(|line| sorted[..3].contains(&line)), "{kept:?}");
    // They are texts to calibrate on.
    folder.succeeds(&["train", "tiny", "grown", "--text", "all.jsonl", "--steps", "1", "--context", "8"]);
    let refused = |more: &[&str]| folder.refuses(&[&["generate", "tiny", "--many", "2"], more].concat());
    assert!(refused(&["--out", "all.jsonl"]).contains("all.jsonl: exists already"));
    assert!(refused(&["--out", "new.jsonl", "--drop", "1"]).ends_with("drop: 1 is not in [0, 1)"));
    assert!(refused(&["--out", "new.jsonl", "--tokens", "0"]).ends_with("tokens: 0 is not at least 1"));
    assert!(!folder.path("new.jsonl").exists());
}

#[test]
fn calibration_is_drawn_from_several_sources_and_from_the_model() {
    let folder = tiny();
    let words = |n: usize| {
        (0..n).map(|i| ["The weights", "of a model", "are pruned", "and kept"][i * 7 % 4]).collect::<Vec<_>>().join(" ")
    };
    std::fs::write(folder.path("home-calibration.txt"), words(200)).unwrap();
    std::fs::write(folder.path("home-judge.txt"), words(90)).unwrap();
    std::fs::write(folder.path("far-judge.txt"), words(50)).unwrap();
    let lines: String = (0..40).map(|i| format!("{{\"text\": \"{} {}\"}}\n", words(3), words(i % 5 + 1))).collect();
    std::fs::write(folder.path("docs.jsonl"), lines).unwrap();
    let prune = |out: &str, calibration: &str, more: &[&str]| {
        let args =
            ["prune", "tiny", out, "--method", "sparsegpt", "--sparsity", "0.5", "--calibration", calibration, "--samples", "10"];
        [&args[..], &["--context", "8"], more].concat().into_iter().map(String::from).collect::<Vec<String>>()
    };
    let run = |out: &str, calibration: &str, more: &[&str]| {
        let args = prune(out, calibration, more);
        folder.succeeds(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let weights = |out: &str| std::fs::read(folder.path(&format!("{out}/model.safetensors"))).unwrap();
    let mix = "home-calibration.txt:0.5,docs.jsonl:0.3,self:0.2";
    let text = run("a", mix, &["--text", "home-judge.txt,far-judge.txt", "--windows", "3"]);
    assert!(["mean at home", "mean abroad", "mean "].iter().all(|mean| text.contains(mean)), "{text}");
    run("b", mix, &[]);
    run("c", mix, &["--seed", "1"]);
    assert!(weights("a") == weights("b") && weights("a") != weights("c"));
    // A finished run is taken up; another mix is another calibration.
    run("b", mix, &["--resume"]);
    let line = folder.refuses(&prune("b", "docs.jsonl,self", &["--resume"]).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(line.contains("--calibration"), "{line}");
    let refused =
        |calibration: &str| folder.refuses(&prune("z", calibration, &[]).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused("docs.jsonl:0.5,self:0.6").ends_with("calibration: the shares 0.5, 0.6 sum to 1.1, not to 1"));
    std::fs::write(folder.path("short.txt"), words(5)).unwrap();
    let line = refused("short.txt:0.9,docs.jsonl:0.1");
    assert!(line.contains("short.txt has ") && line.contains("fewer than the 9 x 8 of its share"), "{line}");
    assert!(refused("far-judge.txt:0.9,missing.txt:0.1").contains("missing.txt"));
    std::fs::write(folder.path("broken.jsonl"), [b"{\"text\": \"a\"}\n{\"text\": \"".as_slice(), &[0xff, b'"', b'}']].concat())
        .unwrap();
    let line = refused("docs.jsonl:0.5,broken.jsonl:0.5");
    assert!(line.contains("broken.jsonl: is not UTF-8 from byte 24 on, in line 2"), "{line}");
    assert!(!folder.path("z").exists());
}

#[test]
fn inspecting_a_folder_counts_parameters_zeros_and_masks() {
    let folder = tiny();
    let before = folder.json(&["inspect", "tiny", "--json"]);
    let linear = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN / 2 + 3 * HIDDEN * 48;
    assert_eq!(before["prunable"]["parameters"], LAYERS * linear);
    assert_eq!(before["kinds"]["embedding"]["parameters"], VOCAB * HIDDEN);
    assert_eq!(before["whole"]["parameters"], LAYERS * (linear + 2 * HIDDEN) + HIDDEN + VOCAB * HIDDEN);
    assert_eq!(before["flops"], 2 * (LAYERS * linear + VOCAB * HIDDEN));
    assert_eq!((&before["family"], &before["layers"], &before["tied"]), (&"llama".into(), &LAYERS.into(), &true.into()));
    let groups: Vec<&str> = before["linears"].as_array().unwrap()[..7].iter().map(|l| l["group"].as_str().unwrap()).collect();
    let name = |n: &str| format!("model.layers.0.{n}");
    let expected =
        ["self_attn.q_proj", "self_attn.q_proj", "self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.gate_proj"];
    assert_eq!(groups[..6], expected.map(name));

    // Half of one layer goes, with a mask; of another by zeros alone.
    let model = Model::open(folder.path("tiny")).unwrap();
    let mut layout = Layout::of(&model);
    let (masked, zeros) = ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight");
    layout.masks([masked]).unwrap();
    let mut writer = FolderWriter::create(folder.path("pruned"), layout).unwrap();
    writer.write_mask(masked, &Mask::from_fn(48, HIDDEN, |_, c| c % 2 == 0)).unwrap();
    let mut values = model.read(zeros).unwrap();
    values.slice_mut(ndarray::s![.., ..8]).fill(0.0);
    writer.write(zeros, &values).unwrap();
    writer.copy_rest(&model).unwrap();
    writer.finish().unwrap();
    let after = folder.json(&["inspect", "pruned", "--json"]);
    let tensor = |name: &str| {
        let found = after["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap();
        (found["kept"].as_u64().unwrap() as usize, found["by"].as_str().unwrap().to_string())
    };
    assert_eq!(tensor(masked), (48 * HIDDEN / 2, "mask".to_string()));
    assert_eq!(tensor(zeros), (48 * (HIDDEN - 8), "zeros".to_string()));
    let sparsity = after["blocks"][0]["sparsity"].as_f64().unwrap();
    assert!((sparsity - 48.0 * 16.0 / linear as f64).abs() < 1e-12, "{sparsity}");
    assert_eq!(folder.json(&["inspect", "pruned", "--no-count", "--json"])["whole"]["kept"], Value::Null);
    // Of each block heads, their groups and feed-forward units; hidden features, layers and the vocabulary.
    let couplings = after["couplings"].as_array().unwrap();
    assert_eq!(couplings.len(), 3 * LAYERS + 3);
    let hidden = couplings.iter().find(|c| c["kind"] == "hidden").unwrap();
    assert_eq!((&hidden["units"], hidden["members"].as_array().unwrap().len()), (&HIDDEN.into(), 2 + 9 * LAYERS));
    let printed = folder.succeeds(&["inspect", "pruned"]);
    for says in ["head tied to the embedding", "feed-forward", "FLOPs a token", "as many from each of 2 key-value groups"] {
        assert!(printed.contains(says), "{says}: {printed}");
    }
    // The tensors of one file are still listed by its name.
    assert!(folder.succeeds(&["inspect", "tiny/model.safetensors"]).contains("model.embed_tokens.weight"));
}

#[test]
fn token_numbers_of_several_sequences_and_integer_types_are_read() {
    let folder = tiny();
    fs::write(folder.path("two.safetensors"), ids_file("input_ids", &[2, 3], &[5, 6, 7, 8, 9, 10])).unwrap();
    assert_eq!(read_ids(folder.path("two.safetensors"), "input_ids").unwrap().unwrap(), ndarray::array![[5, 6, 7], [8, 9, 10]]);
    let report = folder.json(&["logits", "tiny", "--ids", "two.safetensors", "--out", "out.safetensors", "--json"]);
    assert_eq!(report["shape"], serde_json::json!([2, 3, VOCAB]));
    let two = folder.read("out.safetensors").get("logits").unwrap().clone();
    fs::write(folder.path("one.safetensors"), ids_file("input_ids", &[3], &[8, 9, 10])).unwrap();
    folder.succeeds(&["logits", "tiny", "--ids", "one.safetensors", "--out", "out.safetensors", "--force"]);
    let one = folder.read("out.safetensors").get("logits").unwrap().clone();
    assert_eq!(two.index_axis(ndarray::Axis(0), 1), one.index_axis(ndarray::Axis(0), 0));
}

#[test]
fn what_a_model_command_cannot_do_is_one_line_that_names_it() {
    let folder = tiny();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path(name), bytes).unwrap();
    let eval = |more: &[&str]| folder.refuses(&[&["eval", "tiny", "--text", "text.txt"], more].concat());
    let line = eval(&["--context", "100000"]);
    assert!(line.starts_with("text.txt: context: the text has ") && line.contains("fewer than one window of 100000"), "{line}");
    assert!(eval(&["--context", "1"]).contains("1 tokens leave none to predict"));
    assert!(eval(&["--windows", "0"]).contains("0 windows"));
    assert!(folder.refuses(&["eval", "tiny"]).contains("--text"));
    assert!(folder.refuses(&["eval", "tiny", "--text", "missing.txt"]).starts_with("missing.txt: No such file"));
    write("latin.txt", b"caf\xe9");
    assert!(folder.refuses(&["eval", "tiny", "--text", "latin.txt"]).contains("is not UTF-8 from byte 3 on"));
    for (content, says) in [
        ("{\"query\": \"a\", \"choices\": [\"b\"], \"gold\": 1}", "line 1: gold: is 1, and there are 1 choices"),
        ("{\"query\": \"a\"}\n", "line 1: missing field `choices`"),
        ("\n\nnonsense", "line 3: "),
        ("", "has no line with an item"),
    ] {
        write("bad.jsonl", content.as_bytes());
        let line = folder.refuses(&["eval", "tiny", "--choices", "bad.jsonl"]);
        assert!(line.starts_with("bad.jsonl: ") && line.contains(says), "{line}");
    }
    let generate = |more: &[&str]| folder.refuses(&[&["generate", "tiny", "--prompt", "a"], more].concat());
    assert!(generate(&["--temperature", "-1"]).contains("temperature: -1"));
    assert!(generate(&["--top-p", "0"]).contains("top-p: 0"));
    assert!(generate(&["--top-k", "0"]).contains("top-k: 0"));
    assert!(folder.refuses(&["generate", "tiny", "--prompt", ""]).contains("prompt: it has no tokens"));
    let logits = |ids: &str| folder.refuses(&["logits", "tiny", "--ids", ids, "--out", "out.safetensors"]);
    write("outside.safetensors", &ids_file("input_ids", &[1, 3], &[5, 6, 400]));
    assert!(logits("outside.safetensors").contains("'input_ids' has 400 at sequence 0, token 2; the vocabulary has 400"));
    write("other.safetensors", &ids_file("ids", &[1, 1], &[5]));
    assert!(logits("other.safetensors").contains("has no tensor 'input_ids'"));
    assert!(logits("model.safetensors").contains("has no tensor 'input_ids'"));
    write("none.safetensors", &ids_file("input_ids", &[1, 0], &[]));
    assert!(logits("none.safetensors").contains("'input_ids' has no tokens"));
    assert!(folder.refuses(&["import", "tiny.gguf", "tiny"]).contains("tiny: exists already"));
    assert!(folder.refuses(&["import", "text.txt", "new"]).contains("is no GGUF file"));
    assert!(folder.refuses(&["import", "tiny.gguf", "new", "--dtype", "int8"]).contains("is none of f32, f16, bf16"));
}

#[test]
fn a_folder_becomes_the_gguf_file_that_it_was_and_others() {
    let folder = tiny();
    folder.succeeds(&["export", "tiny", "same.gguf", "--like", "tiny.gguf"]);
    assert!(fs::read(folder.path("same.gguf")).unwrap() == fs::read(folder.path("tiny.gguf")).unwrap());
    let made = folder.json(&["export", "tiny", "half.gguf", "--type", "F16", "--json"]);
    assert_eq!((made["architecture"].as_str(), made["kept"].as_u64()), (Some("llama"), Some(0)));
    folder.succeeds(&["import", "half.gguf", "again"]);
    assert!(folder.refuses(&["export", "tiny", "half.gguf", "--type", "f16"]).contains("half.gguf: exists already"));
    assert!(folder.refuses(&["export", "tiny", "new.gguf", "--type", "q9"]).contains("'q9' is none of f32, f16, q4_0"));
    let line = folder.refuses(&["export", "tiny", "new.gguf", "--type", "q6_k"]);
    assert!(line.contains("no multiple of the 256 numbers of a block of Q6_K"), "{line}");
    assert!(folder.refuses(&["export", "tiny", "new.gguf"]).contains("--type"));
    assert!(folder.refuses(&["export", "text.txt", "new.gguf", "--type", "f32"]).contains("text.txt"));
    assert!(!folder.path("new.gguf").exists());
}

#[test]
fn a_model_that_contradicts_itself_is_refused_by_tensor_and_shape() {
    let folder = tiny();
    let path = folder.path("tiny/config.json");
    let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let with = |key: &str, value: Value, says: &[&str]| {
        let mut changed = config.clone();
        changed[key] = value;
        fs::write(&path, changed.to_string()).unwrap();
        for command in [
            &["eval", "tiny", "--text", "text.txt", "--context", "24"][..],
            &["eval", "tiny", "--text", "text.txt", "--context", "24", "--stream"],
            &["generate", "tiny", "--prompt", "a"],
            &["inspect", "tiny"],
        ] {
            let line = folder.refuses(command);
            assert!(says.iter().all(|s| line.contains(s)) && line.starts_with("tiny: "), "{command:?}: {line}");
        }
    };
    with("model_type", "mamba".into(), &["mamba", "llama", "gemma2", "t5"]);
    with("intermediate_size", 52.into(), &["mlp.gate_proj.weight", "[52, 32]", "[48, 32]"]);
    with("num_hidden_layers", 3.into(), &["have 2 blocks", "the config says 3"]);
    with("num_key_value_heads", 3.into(), &["num_key_value_heads", "3"]);
    with("hidden_size", "wide".into(), &["hidden_size", "wide"]);
    fs::write(&path, config.to_string()).unwrap();
    // A tensor too many, and a shard that is cut short.
    let mut file = folder.read("tiny/model.safetensors");
    file.insert("model.layers.7.odd.weight", ndarray::array![[1.0f32]], lacuna::io::Dtype::F32).unwrap();
    file.write(folder.path("tiny/model.safetensors")).unwrap();
    let line = folder.refuses(&["generate", "tiny", "--prompt", "a"]);
    assert!(line.contains("'model.layers.7.odd.weight' belongs to no part of the model"), "{line}");
    let bytes = fs::read(folder.path("tiny/model.safetensors")).unwrap();
    fs::write(folder.path("tiny/model.safetensors"), &bytes[..bytes.len() - 100]).unwrap();
    assert!(folder.refuses(&["inspect", "tiny"]).contains("tiny/model.safetensors: truncated"));
    fs::write(folder.path("tiny/model.safetensors"), &bytes).unwrap();
    fs::remove_file(folder.path("tiny/tokenizer.json")).unwrap();
    assert!(folder.refuses(&["generate", "tiny", "--prompt", "a"]).ends_with("has no tokenizer.json"));
}
