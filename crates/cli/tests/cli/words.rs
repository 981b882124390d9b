//! Tokens around a text, numbers that are none, texts beyond the positions, chats: on a tiny random Llama.

use crate::build::VOCAB;
use crate::common::Folder;
use crate::language::tiny;
use lacuna::io::{Dtype, FolderWriter, Layout};
use lacuna::rng::Seed;
use lacuna::text::Tokenizer;
use ndarray::Array1;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::Stdio;

/// Changes a JSON file of the folder.
pub fn edit(folder: &Folder, name: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.path(name);
    let mut json: Value = fs::read(&path).map_or(json!({}), |bytes| serde_json::from_slice(&bytes).unwrap());
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// A copy of the model `tiny` whose tokenizer puts these tokens around every text.
pub fn around(folder: &Folder, name: &str, before: &[(&str, u32)], behind: &[(&str, u32)]) {
    fs::create_dir(folder.path(name)).unwrap();
    for file in fs::read_dir(folder.path("tiny")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path(name).join(file.file_name())).unwrap();
    }
    edit(folder, &format!("{name}/tokenizer.json"), |t| {
        let part =
            |list: &[(&str, u32)]| list.iter().map(|(t, _)| json!({"SpecialToken": {"id": t, "type_id": 0}})).collect::<Vec<_>>();
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let known = before.iter().chain(behind).map(|(t, id)| (t.to_string(), json!({"id": t, "ids": [id], "tokens": [t]})));
        let single = [part(before), vec![text.clone()], part(behind)].concat();
        t["post_processor"] = json!({
            "type": "TemplateProcessing", "single": single,
            "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": known.collect::<serde_json::Map<_, _>>(),
        });
    });
}

pub const BOS: &[(&str, u32)] = &[("<s>", 1)];
const EOS: &[(&str, u32)] = &[("</s>", 2)];

fn write_lines(folder: &Folder) {
    let choices = [
        json!({"query": "The weights that", "choices": ["stay", "are ranked"], "gold": 0}),
        json!({"query": "of 120 equal", "choices": ["a", "b", "c"], "gold": 2}),
        json!({"query": "A mask is ", "choices": ["saved", "not"], "gold": 1}),
    ];
    let last = [("The weights", "stay"), ("held against a", "threshold"), ("", "The")];
    let lines = |all: Vec<Value>| all.iter().map(|v| format!("{v}\n")).collect::<String>();
    fs::write(folder.path("choices.jsonl"), lines(choices.to_vec())).unwrap();
    let last = last.map(|(context, continuation)| json!({"context": context, "continuation": continuation}));
    fs::write(folder.path("last.jsonl"), lines(last.to_vec())).unwrap();
}

#[test]
fn a_tokenizer_that_ends_texts_changes_nothing_that_is_scored_or_continued() {
    let folder = tiny();
    write_lines(&folder);
    around(&folder, "begun", BOS, &[]);
    around(&folder, "both", BOS, EOS);
    around(&folder, "ended", &[], EOS);
    // The text is a whole number of windows without the token that would end it, so that it would make one more number.
    let n = Tokenizer::open(folder.path("tiny"))
        .unwrap()
        .encode(&fs::read_to_string(folder.path("text.txt")).unwrap(), false)
        .unwrap()
        .len();
    let context = |first: usize| (n + first).to_string();
    let eval = |dir: &str, first: usize, more: &[&str]| {
        let common = ["eval", dir, "--choices", "choices.jsonl", "--last-word", "last.jsonl", "--text", "text.txt", "--json"];
        let context = context(first);
        let mut report = folder.json(&[&common[..], &["--context", &context], more].concat());
        ["model", "seconds", "tokens_per_second", "peak_memory"].into_iter().for_each(|key| report[key] = Value::Null);
        ["seconds", "tokens_per_second"].into_iter().for_each(|key| report["texts"][0][key] = Value::Null);
        report
    };
    assert_eq!(eval("both", 1, &[]), eval("begun", 1, &[]));
    assert_eq!(eval("ended", 0, &[]), eval("tiny", 0, &[]));
    assert_eq!(eval("both", 0, &["--bos", "none"]), eval("tiny", 0, &["--bos", "none"]));
    // The token that begins a text makes another number, so there is something to be equal.
    assert_ne!(eval("begun", 1, &[])["last_word"]["nll"], eval("tiny", 0, &[])["last_word"]["nll"]);
    // Where the tokenizer puts none, it is put.
    assert_eq!(eval("ended", 1, &["--bos", "window"])["last_word"], eval("both", 1, &[])["last_word"]);
    assert_eq!(eval("ended", 1, &["--bos", "window"])["choices"]["bos"], "token 1 <s>");
    let generate = |dir: &str| {
        let report = folder.json(&["generate", dir, "--prompt", "The weights", "--tokens", "5", "--ignore-end", "--json"]);
        (report["ids"].clone(), report["prompt_tokens"].clone())
    };
    assert_eq!(generate("both"), generate("begun"));
    assert_eq!(generate("ended"), generate("tiny"));
    let with_its_own =
        folder.json(&["generate", "begun", "--prompt", "<s>The weights", "--tokens", "5", "--ignore-end", "--json"]);
    assert_eq!((&with_its_own["ids"], &with_its_own["prompt_tokens"]), (&generate("both").0, &generate("both").1));
}

#[test]
fn the_scores_of_a_tokenizer_with_tokens_around_are_those_of_the_logits() {
    let folder = tiny();
    around(&folder, "both", BOS, EOS);
    let text = Tokenizer::open(folder.path("tiny")).unwrap();
    fs::write(folder.path("last.jsonl"), r#"{"context": "The weights that", "continuation": "stay"}"#).unwrap();
    let (before, whole) = (text.encode("The weights that", false).unwrap(), text.encode("The weights that stay", false).unwrap());
    let ids: Vec<u32> = [&[1], &whole[..]].concat();
    let nll: f64 = crate::language::losses(&folder, &ids)[before.len()..].iter().sum();
    let found = folder.json(&["eval", "both", "--last-word", "last.jsonl", "--json"]);
    let found = found["last_word"]["nll"].as_f64().unwrap();
    assert!((found - nll).abs() < 1e-4, "{found} {nll}");
    // Without a context the token that begins a text stands for it, whether or not the tokenizer puts it.
    fs::write(folder.path("last.jsonl"), r#"{"context": "", "continuation": "The weights"}"#).unwrap();
    let ids: Vec<u32> = [&[1], &text.encode("The weights", false).unwrap()[..]].concat();
    let nll: f64 = crate::language::losses(&folder, &ids).iter().sum();
    for dir in ["both", "tiny"] {
        let found =
            folder.json(&["eval", dir, "--last-word", "last.jsonl", "--bos", "none", "--json"])["last_word"]["nll"].as_f64();
        assert!((found.unwrap() - nll).abs() < 1e-4, "{dir}: {found:?} {nll}");
    }
    // Else the one that ends it; and if there is none, the line is named.
    edit(&folder, "tiny/tokenizer_config.json", |c| c["bos_token"] = Value::Null);
    let ids: Vec<u32> = [&[2], &ids[1..]].concat();
    let nll: f64 = crate::language::losses(&folder, &ids).iter().sum();
    let found = folder.json(&["eval", "tiny", "--last-word", "last.jsonl", "--json"])["last_word"]["nll"].as_f64().unwrap();
    assert!((found - nll).abs() < 1e-4, "{found} {nll}");
    edit(&folder, "tiny/tokenizer_config.json", |c| c["eos_token"] = Value::Null);
    let line = folder.refuses(&["eval", "tiny", "--last-word", "last.jsonl"]);
    assert!(line.starts_with("last.jsonl: line 1: ") && line.contains("there is no context"), "{line}");
}

#[test]
fn a_question_that_is_too_long_loses_its_start_and_is_counted() {
    let folder = tiny();
    let text = Tokenizer::open(folder.path("tiny")).unwrap();
    let context = "The weights that stay are ranked, never held against a";
    let whole = text.encode(&format!("{context} threshold"), false).unwrap();
    let from = text.encode(context, false).unwrap().len();
    let lines = json!({"context": context, "continuation": "threshold"}).to_string()
        + "\n\n"
        + r#"{"context": "a", "continuation": "b"}"#;
    fs::write(folder.path("last.jsonl"), lines).unwrap();
    let longest = whole.len() - from + 1;
    edit(&folder, "tiny/config.json", |c| c["max_position_embeddings"] = longest.into());
    let found = folder.json(&["eval", "tiny", "--last-word", "last.jsonl", "--items", "1", "--json"]);
    let ids = &whole[whole.len() - longest - 1..];
    let nll: f64 = crate::language::losses(&folder, ids)[1..].iter().sum();
    assert!((found["last_word"]["nll"].as_f64().unwrap() - nll).abs() < 1e-4, "{found} {nll}");
    assert_eq!(found["last_word"]["cut"], 1);
    assert!(folder.succeeds(&["eval", "tiny", "--last-word", "last.jsonl"]).contains("; 1 lost the start of their context"));
    // An end that has not room by itself is refused by its line, as an editor counts.
    edit(&folder, "tiny/config.json", |c| c["max_position_embeddings"] = 1.into());
    fs::write(
        folder.path("choices.jsonl"),
        "\n\n".to_string() + &json!({"query": "a", "choices": ["threshold"], "gold": 0}).to_string(),
    )
    .unwrap();
    let line = folder.refuses(&["eval", "tiny", "--choices", "choices.jsonl"]);
    assert!(
        line.starts_with("choices.jsonl: line 3: continuation: 'threshold': has ") && line.contains("the model has 1 positions"),
        "{line}"
    );
    assert!(folder.refuses(&["eval", "tiny", "--choices", "choices.jsonl", "--items", "0"]).contains("items: 0"));
}

#[test]
fn a_model_of_numbers_that_are_none_ranks_nothing() {
    let folder = tiny();
    write_lines(&folder);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut file = folder.read("tiny/model.safetensors");
        let mut norm = file.get("model.layers.1.input_layernorm.weight").unwrap().clone();
        norm[[2]] = bad;
        file.insert("model.layers.1.input_layernorm.weight", norm, Dtype::F32).unwrap();
        file.write(folder.path("tiny/model.safetensors")).unwrap();
        let choices = folder.refuses(&["eval", "tiny", "--choices", "choices.jsonl"]);
        assert!(choices.starts_with("choices.jsonl: line 1: choice 0: -log p of its token 1 is NaN"), "{choices}");
        let last = folder.refuses(&["eval", "tiny", "--last-word", "last.jsonl", "--json"]);
        assert!(last.starts_with("last.jsonl: line 1: ") && last.contains("the model's numbers are not finite"), "{last}");
        for more in [&[][..], &["--stream"]] {
            let text = folder.refuses(&[&["eval", "tiny", "--text", "text.txt", "--context", "24"], more].concat());
            assert!(text.starts_with("tiny: perplexity: the loss of token 1 of window 0 is NaN"), "{text}");
        }
        for more in [&[][..], &["--top-k", "3"], &["--top-p", "0.5"], &["--temperature", "2"], &["--json"]] {
            let generate = folder.refuses(&[&["generate", "tiny", "--prompt", "The"], more].concat());
            assert!(generate.starts_with("tiny: logits: NaN at row 0, column 0"), "{generate}");
        }
        let prune =
            ["prune", "tiny", "out", "--method", "magnitude", "--sparsity", "0.5", "--text", "text.txt", "--context", "24"];
        assert!(folder.refuses(&prune).contains("the loss of token 1 of window 0 is NaN"));
    }
}

#[test]
fn a_perplexity_beyond_all_numbers_is_said() {
    let folder = tiny();
    write_lines(&folder);
    let mut file = folder.read("tiny/model.safetensors");
    let norm = file.get("model.norm.weight").unwrap() * 1e4;
    file.insert("model.norm.weight", norm, Dtype::F32).unwrap();
    file.write(folder.path("tiny/model.safetensors")).unwrap();
    let args = ["eval", "tiny", "--text", "text.txt", "--context", "24", "--last-word", "last.jsonl", "--json"];
    let output = folder.run(&args);
    let (errors, printed) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(
        errors.lines().filter(|l| l.starts_with("note: the perplexity") && l.contains("is beyond the largest number")).count(),
        2
    );
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert!(report["perplexity"].is_null() && report["nll"].as_f64().unwrap() > 709.0, "{printed}");
    assert!(report["last_word"]["perplexity"].is_null() && report["last_word"]["nll"].as_f64().unwrap() > 709.0, "{printed}");
}

#[test]
fn prune_measures_perplexity_as_eval_does_and_says_on_what() {
    let folder = tiny();
    around(&folder, "begun", BOS, EOS);
    let common = ["--text", "text.txt", "--context", "24", "--windows", "3"];
    let prune = |out: &str, more: &[&str]| {
        let args = [&["prune", "begun", out, "--method", "magnitude", "--sparsity", "0.5"][..], &common, more].concat();
        folder.json(&[&args[..], &["--json"]].concat())["perplexity"].clone()
    };
    for (bos, says) in [
        (&[][..], "token 1 <s> once before the text, put by the tokenizer"),
        (&["--bos", "tokenizer"], "token 1 <s> once before the text, put by the tokenizer"),
        (&["--bos", "window"], "token 1 <s> begins every window"),
        (&["--bos", "none"], "none"),
    ] {
        let found = prune("out", bos);
        let eval = |dir| folder.json(&[&["eval", dir, "--json"][..], &common, bos].concat());
        let (before, after) = (eval("begun"), eval("out"));
        for (key, of) in [("before", &before["perplexity"]), ("after", &after["perplexity"]), ("nll_before", &before["nll"])] {
            let (found, right) = (found[key].as_f64().unwrap(), of.as_f64().unwrap());
            assert!((found - right).abs() < 1e-6 * right, "{bos:?}: {key} {found} {right}");
        }
        for key in ["context", "windows", "predicted", "text_tokens", "bos"] {
            assert_eq!(found[key], before[key], "{bos:?}: {key}");
        }
        assert_eq!((&found["bos"], &found["windows"], &found["text"]), (&says.into(), &3.into(), &"text.txt".into()));
        let page = fs::read_to_string(folder.path("out/prune.html")).unwrap();
        let shown = format!("context 24, 3 windows, BOS: {says}.").replace('<', "&lt;").replace('>', "&gt;");
        assert!(page.contains(&shown), "{shown}");
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
    let printed =
        folder.succeeds(&[&["prune", "begun", "out", "--method", "magnitude", "--sparsity", "0.5"][..], &common].concat());
    assert!(printed.contains(" after, ln (after / before) "), "{printed}");
    assert!(printed.contains("; context 24, 3 windows, BOS: token 1 <s> once before the text"), "{printed}");
    fs::remove_dir_all(folder.path("out")).unwrap();
    // Token numbers are a text like any other, to both.
    let ids = Tokenizer::open(folder.path("tiny"))
        .unwrap()
        .encode(&fs::read_to_string(folder.path("text.txt")).unwrap(), false)
        .unwrap();
    let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
    fs::write(folder.path("ids.safetensors"), crate::language::ids_file("input_ids", &[ids.len()], &ids)).unwrap();
    let eval =
        |text, more: &[&str]| folder.json(&[&["eval", "begun", "--text", text, "--context", "24", "--json"], more].concat());
    assert_eq!(eval("ids.safetensors", &[])["nll"], eval("text.txt", &["--bos", "none"])["nll"]);
    assert_eq!(eval("ids.safetensors", &[])["bos"], "none (the file has token numbers)");
    assert_eq!(eval("ids.safetensors", &["--bos", "window"])["nll"], eval("text.txt", &["--bos", "window"])["nll"]);
}

/// A GPT-2 with 16 learned positions and the tokenizer of `tiny`.
fn learned(folder: &Folder) {
    let mut tensors = vec![("wte", vec![VOCAB, 8]), ("wpe", vec![16, 8]), ("ln_f", vec![8])];
    let block = [
        ("h.0.ln_1", vec![8]),
        ("h.0.attn.c_attn", vec![8, 24]),
        ("h.0.attn.c_proj", vec![8, 8]),
        ("h.0.ln_2", vec![8]),
        ("h.0.mlp.c_fc", vec![8, 32]),
        ("h.0.mlp.c_proj", vec![32, 8]),
    ];
    tensors.extend(block);
    let mut all = Vec::new();
    for (name, shape) in tensors {
        let biases =
            if name.starts_with('w') { None } else { shape.last().map(|n| (format!("transformer.{name}.bias"), vec![*n])) };
        all.extend([(format!("transformer.{name}.weight"), shape)].into_iter().chain(biases));
    }
    let layout = Layout::new(all.iter().map(|(n, s)| (n.clone(), Dtype::F32, s.clone())), 1 << 30).unwrap();
    let mut writer = FolderWriter::create(folder.path("learned"), layout).unwrap();
    for (name, shape) in &all {
        match shape[..] {
            [r, c] => writer.write(name, &Seed(4).stream(name).normal_array(r, c, 0.5)).unwrap(),
            _ => writer.write(name, &Array1::<f32>::ones(shape[0])).unwrap(),
        }
    }
    let config = json!({
        "model_type": "gpt2", "vocab_size": VOCAB, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "eos_token_id": 2,
        "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
    });
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    fs::copy(folder.path("tiny/tokenizer.json"), folder.path("learned/tokenizer.json")).unwrap();
}

#[test]
fn more_tokens_than_there_is_room_for_are_refused_before_any_is_written() {
    let folder = tiny();
    learned(&folder);
    let prompt = ["--prompt", "The weights that stay are"];
    let n = Tokenizer::open(folder.path("tiny")).unwrap().encode(prompt[1], false).unwrap().len();
    let generate = |dir: &str, tokens: &str| folder.refuses(&["generate", dir, prompt[0], prompt[1], "--tokens", tokens]);
    for tokens in ["18446744073709551615", "18446744073709551614", "9223372036854775807", "100", &(17 - n).to_string()] {
        let line = generate("learned", tokens);
        let says = format!("tokens: {tokens} tokens behind a prompt of {n}; the model has learned 16 positions");
        assert_eq!(line, says);
    }
    let tokens = (16 - n).to_string();
    let made = folder.json(&["generate", "learned", prompt[0], prompt[1], "--tokens", &tokens, "--ignore-end", "--json"]);
    assert_eq!(made["ids"].as_array().unwrap().len(), 16 - n);
    fs::write(folder.path("long.safetensors"), crate::language::ids_file("input_ids", &[1, 17], &[5; 17])).unwrap();
    let line = folder.refuses(&["logits", "learned", "--ids", "long.safetensors", "--out", "out.safetensors"]);
    assert_eq!(line, "long.safetensors: 'input_ids' has sequences of 17 tokens; the model has learned 16 positions");
    // Rotary positions go on, but the memory does not.
    for tokens in ["18446744073709551615", "1000000000000000"] {
        let line = generate("tiny", tokens);
        assert!(line.starts_with(&format!("tokens: {tokens} tokens behind a prompt of {n} need ")), "{line}");
        assert!(line.contains(" GB for keys and values; this machine has "), "{line}");
    }
    // A text that may pass the context that the config states is written, and that is said once.
    let output = folder.run(&["generate", "tiny", prompt[0], prompt[1], "--tokens", "252", "--ignore-end", "--json"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let says = format!("note: 252 tokens behind a prompt of {n} may go beyond the context of 256 that config.json states");
    assert!(errors.starts_with(&says) && errors.lines().count() == 1, "{errors}");
    for (option, value, says) in [
        ("--temperature", "nan", "temperature: NaN"),
        ("--temperature", "inf", "temperature: inf"),
        ("--top-p", "2", "top-p: 2 is not in (0, 1]"),
        ("--top-p", "nan", "top-p: NaN"),
        ("--stop", "", "stop: an empty text"),
        ("--system", "x", "--chat"),
    ] {
        let line = folder.refuses(&["generate", "tiny", "--prompt", "a", option, value]);
        assert!(line.contains(says), "{option} {value}: {line}");
    }
}

const CHAT: &str = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{{ eos_token }}{% endfor %}\
                    {% if add_generation_prompt %}<assistant>{% endif %}";

#[test]
fn a_chat_is_the_text_of_the_folders_template() {
    let folder = tiny();
    fn chat<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["generate", "tiny", "--chat", "--prompt", " The weights ", "--tokens", "4"], more].concat()
    }
    let line = folder.refuses(&chat(&[]));
    assert!(line.starts_with("tiny: has no chat template"), "{line}");
    edit(&folder, "tiny/tokenizer_config.json", |c| c["chat_template"] = CHAT.into());
    for (more, rendered) in [
        (&[][..], "<s><user>The weights</s><assistant>"),
        (&["--system", "Be short."], "<s><system>Be short.</s><user>The weights</s><assistant>"),
    ] {
        let made = folder.json(&[&chat(&["--ignore-end", "--json"])[..], more].concat());
        assert_eq!((&made["rendered"], &made["prompt"]), (&rendered.into(), &" The weights ".into()));
        // The same tokens, if what is put before a text is written out.
        let plain = folder.json(&["generate", "tiny", "--prompt", rendered, "--tokens", "4", "--ignore-end", "--json"]);
        assert_eq!((&made["ids"], &made["prompt_tokens"]), (&plain["ids"], &plain["prompt_tokens"]));
        let tokens = Tokenizer::open(folder.path("tiny")).unwrap().encode(rendered, false).unwrap();
        assert!(tokens[0] == 1 && tokens.contains(&2) && made["prompt_tokens"] == tokens.len(), "{tokens:?}");
        // The answer alone is shown.
        let printed = folder.succeeds(&[&chat(&["--ignore-end"])[..], more].concat());
        assert!(printed.starts_with(&format!("{}\n\n4 tokens", made["text"].as_str().unwrap())), "{printed}");
    }
    // A tokenizer that puts the first token does not put it again.
    around(&folder, "begun", BOS, EOS);
    let twice =
        folder.json(&["generate", "begun", "--chat", "--prompt", "The weights", "--tokens", "4", "--ignore-end", "--json"]);
    assert_eq!(twice["ids"], folder.json(&chat(&["--ignore-end", "--json"]))["ids"]);
    // What the template refuses is one line.
    edit(&folder, "tiny/tokenizer_config.json", |c| c["chat_template"] = "\n{{ raise_exception('no\nsystem') }}".into());
    let line = folder.refuses(&chat(&["--system", "x"]));
    assert_eq!(line, "tiny/tokenizer_config.json: the chat template, line 2: no\\nsystem");
}

#[test]
fn a_text_ends_before_a_stop_and_a_token_for_control_can_be_one() {
    let folder = tiny();
    let base = ["generate", "tiny", "--prompt", "The weights", "--tokens", "12", "--ignore-end"];
    let made = |more: &[&str]| folder.json(&[&base[..], &["--json"], more].concat());
    let whole = made(&[]);
    let text = whole["text"].as_str().unwrap();
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    assert!(chars.len() > 8, "{text}");
    let (from, to) = (chars[4].0, chars[7].0);
    let stop = &text[from..to];
    let first = text.find(stop).unwrap();
    let ended = made(&["--stop", "nowhere in it", "--stop", stop]);
    assert_eq!((ended["text"].as_str(), ended["ended"].as_str()), (Some(&text[..first]), Some("stop_text")));
    let (ids, all) = (ended["ids"].as_array().unwrap(), whole["ids"].as_array().unwrap());
    assert!(ids.len() <= all.len() && ids[..] == all[..ids.len()], "{ids:?} {all:?}");
    let printed = folder.succeeds(&[&base[..], &["--stop", stop]].concat());
    assert!(printed.starts_with(&format!("The weights{}\n\n{} tokens", &text[..first], ids.len())), "{printed}");
    // What may be the beginning of a stop is held back, and comes if it was none.
    let held = format!("{}#", &text[chars[chars.len() - 1].0..]);
    assert_eq!(made(&["--stop", &held])["text"], whole["text"]);
    // A token for control has no text; its name is a stop all the same.
    let folder = tiny();
    let mut file = folder.read("tiny/model.safetensors");
    let norm = file.get("model.norm.weight").unwrap().clone();
    file.insert("model.norm.weight", norm * 0.0, Dtype::F32).unwrap();
    file.write(folder.path("tiny/model.safetensors")).unwrap();
    // All logits are 0, and the first token is the likeliest of equals.
    let name = Tokenizer::open(folder.path("tiny")).unwrap().token(0).unwrap();
    let report =
        folder.json(&["generate", "tiny", "--prompt", "The", "--tokens", "3", "--ignore-end", "--json", "--stop", &name]);
    assert_eq!((report["ended"].as_str(), report["ids"].as_array().unwrap().len()), (Some("stop"), 0));
    let report = folder.json(&["generate", "tiny", "--prompt", "The", "--tokens", "3", "--ignore-end", "--json"]);
    assert_eq!((report["ended"].as_str(), report["ids"].as_array().unwrap().len()), (Some("limit"), 3));
}

/// The command with something on its standard input.
fn given(folder: &Folder, args: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = folder.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_prompt_may_come_from_standard_input() {
    let folder = tiny();
    let args = ["generate", "tiny", "--prompt", "-", "--tokens", "4", "--ignore-end", "--json"];
    let right = folder.json(&["generate", "tiny", "--prompt", "The\nweights", "--tokens", "4", "--ignore-end", "--json"]);
    for input in ["The\nweights", "The\nweights\n", "The\nweights\r\n"] {
        let (code, printed, errors) = given(&folder, &args, input.as_bytes());
        let report: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!((code, &report["prompt"], &report["ids"]), (Some(0), &right["prompt"], &right["ids"]), "{input:?}: {errors}");
    }
    for (input, says) in
        [(&b""[..], "prompt: it has no tokens"), (b"\n", "prompt: it has no tokens"), (b"caf\xe9", "not UTF-8 from byte 3 on")]
    {
        let (code, printed, errors) = given(&folder, &args, input);
        assert!(code == Some(2) && printed.is_empty() && errors.contains(says), "{input:?}: {errors}");
    }
}

#[test]
fn an_import_remembers_its_file_and_a_pruned_model_says_where_it_grew() {
    let folder = tiny();
    let record = |dir: &str| lacuna::io::Folder::open(folder.path(dir)).unwrap().config()["imported_from"].clone();
    let parameters = folder.json(&["inspect", "tiny", "--json"])["whole"]["parameters"].as_u64().unwrap();
    assert_eq!(record("tiny"), json!({"format": "GGUF", "types": {"F32": 20}, "bytes": 4 * parameters}));
    folder.succeeds(&["prune", "tiny", "out", "--method", "magnitude", "--sparsity", "0.5"]);
    assert_eq!(record("out"), record("tiny"), "what is pruned has the record of what it was made of");
    let generate = |dir: &str| {
        let output = folder.run(&["generate", dir, "--prompt", "The weights", "--tokens", "2", "--json"]);
        let stored = serde_json::from_slice::<Value>(&output.stdout).unwrap()["stored_bytes"].as_u64().unwrap();
        (stored, String::from_utf8(output.stderr).unwrap())
    };
    let (stored, errors) = generate("out");
    assert!(errors.is_empty() && stored < 4 * parameters, "{stored} of {}: {errors}", 4 * parameters);
    // As if the file had held the same numbers in 4 bits.
    for dir in ["tiny", "out"] {
        edit(&folder, &format!("{dir}/config.json"), |c| c["imported_from"]["bytes"] = 20_000.into());
        edit(&folder, &format!("{dir}/config.json"), |c| c["imported_from"]["types"] = json!({"F32": 5, "Q4_1": 15}));
    }
    let (stored, errors) = generate("out");
    let says = format!(
        "note: the weights take {:.1} MB as they run; the file that the model was imported from held them in 0.0 MB (F32, Q4_1)",
        stored as f64 / 1e6
    );
    assert!(errors.starts_with(&says) && errors.lines().count() == 1, "{errors}");
    assert!(generate("tiny").1.is_empty(), "a model that is whole runs as it was imported");
}
