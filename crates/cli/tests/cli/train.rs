//! `lacuna train`: lines for machines, recipes, runs that are killed and stopped, what is refused.

use crate::common::Folder;
use crate::language::{ids_file, tiny};
use lacuna::job::TrainJob;
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RUN: [&str; 13] =
    ["train", "tiny", "out", "--text", "text.txt", "--steps", "6", "--context", "16", "--batch", "2", "--lr", "0.01"];

fn weights(folder: &Folder, out: &str) -> Vec<u8> {
    fs::read(folder.path(out).join("model.safetensors")).unwrap()
}

/// The lines of a run with `--json`.
fn lines(folder: &Folder, args: &[&str]) -> Vec<Value> {
    folder.succeeds(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_a_step_and_one_at_the_end_are_printed_for_machines_and_words_for_people() {
    let folder = tiny();
    let said = lines(&folder, &[&RUN[..], &["--held-out", "3", "--eval-every", "3", "--json"]].concat());
    let losses: Vec<f64> = said.iter().filter_map(|line| line["loss"].as_f64()).collect();
    let steps: Vec<u64> = said.iter().filter(|l| l["loss"].is_f64()).map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    assert!(losses[5] < losses[0], "{losses:?}");
    let measured: Vec<u64> = said.iter().filter(|l| l["perplexity"].is_f64()).map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(measured, [0, 3, 6]);
    let last = said.last().unwrap();
    assert_eq!((&last["resumed_at"], &last["steps"]), (&0.into(), &6.into()));
    let record: Value = serde_json::from_slice(&fs::read(folder.path("out").join("train.json")).unwrap()).unwrap();
    assert_eq!(record["curve"][5]["loss"].as_f64().unwrap(), losses[5]);
    assert!(lacuna::report::Page::is_page(&fs::read_to_string(folder.path("out").join("train.html")).unwrap()));
    // Of a finished run nothing is done.
    let before = weights(&folder, "out");
    let again = lines(&folder, &[&RUN[..], &["--held-out", "3", "--eval-every", "3", "--json", "--resume"]].concat());
    assert_eq!((again.len(), &again[0]["already_finished"], &again[0]["steps"]), (1, &true.into(), &6.into()));
    assert_eq!(weights(&folder, "out"), before);
    let words = folder.succeeds(&[&["train", "tiny", "words"], &RUN[3..], &["--held-out", "3"]].concat());
    for part in ["perplexity ", "before, ", "after step ", "sparsity 0.0000 before, 0.0000 after", "tokens/s"] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[test]
fn recipes_records_and_typed_options_give_the_same_bytes() {
    let folder = tiny();
    let printed = folder.succeeds(&["train", "--print-recipe"]);
    assert_eq!(TrainJob::from_toml(&printed).unwrap(), TrainJob::new());
    let help = folder.succeeds(&["train", "--help"]);
    let options =
        help.lines().filter_map(|l| l.trim_start().strip_prefix("--")).map(|l| l.split([' ', '[', '.']).next().unwrap());
    for option in options.filter(|o| !["force", "json", "resume", "recipe", "print-recipe", "help"].contains(o)) {
        let there = [format!("{option} ="), format!("# {option} =")];
        assert!(printed.lines().any(|l| there.iter().any(|t| l.starts_with(t))), "--{option} is not in the recipe\n{printed}");
    }
    let typed = [
        "--lora",
        "2",
        "--schedule",
        "wsd",
        "--clip",
        "0.5",
        "--teacher",
        "tiny",
        "--hard",
        "0.5",
        "--no-decay",
        "kind:norm",
        "--hidden-states",
        "0:1,1",
        "--average",
        "0.5",
    ];
    folder.succeeds(&[&RUN[..], &typed].concat());
    fs::write(folder.path("r.toml"), folder.succeeds(&[&RUN[..], &typed, &["--print-recipe"]].concat())).unwrap();
    folder.succeeds(&["train", "--recipe", "r.toml", "tiny", "by-recipe"]);
    folder.succeeds(&["train", "--recipe", "out/train.json", "tiny", "by-record"]);
    // What is typed holds instead.
    folder.succeeds(&["train", "--recipe", "r.toml", "tiny", "other", "--epochs", "0.1"]);
    let right = weights(&folder, "out");
    assert!(
        weights(&folder, "by-recipe") == right && weights(&folder, "by-record") == right && weights(&folder, "other") != right
    );
}

#[test]
fn lines_of_json_and_token_numbers_are_documents_too() {
    let folder = tiny();
    let text = fs::read_to_string(folder.path("text.txt")).unwrap();
    let line = |text: &str| serde_json::json!({"text": text, "id": 7}).to_string();
    fs::write(folder.path("docs.jsonl"), format!("{}\n\n{}\n", line(&text), line("The first stays."))).unwrap();
    let run = |out: &str, texts: &[&str]| {
        let args = [&["train", "tiny", out, "--steps", "1", "--context", "8", "--json", "--text"], texts].concat();
        lines(&folder, &args).last().unwrap().clone()
    };
    let (one, both) = (run("one", &["text.txt"]), run("both", &["docs.jsonl", "text.txt"]));
    assert_eq!((&one["documents"], &both["documents"]), (&1.into(), &3.into()));
    assert!(both["text_tokens"].as_u64() > one["text_tokens"].as_u64().map(|n| 2 * n));
    fs::write(folder.path("ids.safetensors"), ids_file("input_ids", &[2, 10], &(0..20).collect::<Vec<i64>>())).unwrap();
    assert_eq!(run("ids", &["ids.safetensors"])["text_tokens"], 20);
    fs::write(folder.path("wrong.jsonl"), format!("{}\n{{\"body\": 1}}\n", line("a"))).unwrap();
    let refused = folder.refuses(&["train", "tiny", "w", "--text", "wrong.jsonl", "--steps", "1", "--context", "8"]);
    assert_eq!(refused, "wrong.jsonl: line 2: is no object with a text under the key 'text'");
}

#[test]
fn a_cache_of_a_teacher_is_written_from_a_text_and_learnt_from() {
    let folder = tiny();
    let text = ["--text", "text.txt", "--context", "16"];
    let said = folder.json(&[&["logits", "tiny", "--out", "c.safetensors", "--top", "8", "--json"], &text[..]].concat());
    assert_eq!(said["bytes_per_token"], 8 * 4 + 4);
    let run = |out: &str, more: &[&str]| {
        let args = [&["train", "tiny", out, "--steps", "4", "--lr", "0.01", "--json"], &text[..], more].concat();
        lines(&folder, &args)
    };
    let (cached, plain) = (run("cached", &["--teacher-cache", "c.safetensors"]), run("plain", &[]));
    // A model that learns from itself has nothing to learn but what rounding left.
    assert!(cached[0]["loss"].as_f64().unwrap().abs() < 1e-3 && plain[0]["loss"].as_f64().unwrap() > 1.0, "{}", cached[0]);
    folder.succeeds(&[&["logits", "tiny", "--out", "s.safetensors", "--sample", "20"], &text[..]].concat());
    assert!(run("sampled", &["--teacher-cache", "s.safetensors", "--hard", "0.5"])[0]["loss"].as_f64().unwrap() > 0.1);
    fs::write(folder.path("other.txt"), fs::read_to_string(folder.path("text.txt")).unwrap().to_uppercase()).unwrap();
    let refused =
        ["train", "tiny", "w", "--steps", "1", "--context", "16", "--teacher-cache", "c.safetensors", "--text", "other.txt"];
    assert!(folder.refuses(&refused).starts_with("teacher-cache: c.safetensors is of "));
    let line = folder.refuses(&["logits", "tiny", "--out", "o.safetensors", "--text", "text.txt"]);
    assert_eq!(line, "text: is for a cache: give --top K or --sample N beside it");
    fs::write(folder.path("ids.safetensors"), ids_file("input_ids", &[2, 16], &(0..32).collect::<Vec<i64>>())).unwrap();
    folder.succeeds(&["logits", "tiny", "--ids", "ids.safetensors", "--out", "i.safetensors", "--top", "3"]);
    let args = [
        "train",
        "tiny",
        "by-ids",
        "--text",
        "ids.safetensors",
        "--context",
        "16",
        "--epochs",
        "1",
        "--teacher-cache",
        "i.safetensors",
    ];
    folder.succeeds(&args);
}

#[test]
fn a_model_from_scratch_takes_the_tokenizer_along_and_learns() {
    let folder = tiny();
    let said = folder.json(&["init", "tiny", "new", "--seed", "3", "--json"]);
    assert_eq!((&said["seed"], &said["tokenizer"]), (&3.into(), &"tiny".into()));
    let args = [
        "train",
        "new",
        "grown",
        "--text",
        "text.txt",
        "--steps",
        "30",
        "--context",
        "16",
        "--batch",
        "4",
        "--lr",
        "0.01",
        "--json",
    ];
    let said = lines(&folder, &args);
    let loss = |n: usize| said[n]["loss"].as_f64().unwrap();
    assert!(loss(29) < 0.7 * loss(0), "{} to {}", loss(0), loss(29));
    folder.succeeds(&["generate", "grown", "--prompt", "The", "--tokens", "2"]);
    let mut config: Value = serde_json::from_slice(&fs::read(folder.path("tiny").join("config.json")).unwrap()).unwrap();
    config["vocab_size"] = 7.into();
    fs::write(folder.path("small.json"), config.to_string()).unwrap();
    let line = folder.refuses(&["init", "small.json", "s", "--tokenizer", "tiny"]);
    assert!(
        line.starts_with("tokenizer: tiny has ") && line.ends_with(" tokens, the config a vocabulary of 7: raise vocab_size"),
        "{line}"
    );
    assert!(folder.succeeds(&["init", "small.json", "s"]).contains("no tokenizer -> s"));
    // A tokenizer of its own: any text becomes its tokens and comes back.
    config["vocab_size"] = 280.into();
    fs::write(folder.path("own.json"), config.to_string()).unwrap();
    let line = folder.refuses(&["init", "small.json", "o", "--tokenizer-text", "text.txt"]);
    assert_eq!(line, "tokenizer-text: a vocabulary of 7 tokens; bytes and the end of a text alone are 257");
    let said = folder.succeeds(&["init", "own.json", "own", "--tokenizer-text", "text.txt"]);
    assert!(said.contains("a tokenizer of 2") && said.ends_with(" -> own\n"), "{said}");
    folder.succeeds(&["init", "own.json", "twice", "--tokenizer-text", "text.txt"]);
    let tokenizer = |of: &str| fs::read(folder.path(of).join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer("own"), tokenizer("twice"));
    let opened = lacuna::text::Tokenizer::open(folder.path("own")).unwrap();
    let text = "naïve 中 text\n";
    assert_eq!(opened.decode(&opened.encode(text, false).unwrap()).unwrap(), text);
    folder.succeeds(&["train", "own", "taught", "--text", "text.txt", "--steps", "2", "--context", "16"]);
}

/// Ends a process by its number.
fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_at_any_instant_or_stopped_goes_on_to_the_same_bytes() {
    let folder = tiny();
    let long = ["--steps", "40", "--save-every", "3", "--eval-every", "7", "--held-out", "2", "--json"];
    let args = |out: &'static str| [&["train", "tiny", out], &RUN[3..5], &RUN[7..], &long].concat();
    let begun = Instant::now();
    folder.succeeds(&args("right"));
    let whole = begun.elapsed();
    let resumed = [&args("out")[..], &["--resume"]].concat();
    let (mut kills, mut stops) = (0, 0);
    for n in 0u32.. {
        let mut child = folder.command(&resumed).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(0.15 + 0.1 * f64::from(n % 7)).max(Duration::from_millis(5)));
        if child.try_wait().unwrap().is_some() || n == 12 {
            assert!(child.wait().unwrap().success());
            break;
        }
        signal(if n % 2 == 0 { "-KILL" } else { "-INT" }, child.id());
        let end = child.wait_with_output().unwrap();
        let said = String::from_utf8(end.stderr).unwrap();
        // Whoever was done just then has ended well.
        match end.status.code() {
            None => kills += 1,
            Some(2) => {
                assert!(said.contains("note: ends after this step") && said.contains("--resume"), "{said}");
                stops += 1;
            }
            // Before the run has said what Ctrl-C means, the system ends it.
            Some(_) => assert!(end.status.success() || end.status.code() == Some(130), "{said}"),
        }
    }
    assert!(kills + stops > 0, "nothing was cut off in {whole:?}");
    assert_eq!(weights(&folder, "out"), weights(&folder, "right"));
    let curve = |out: &str| -> Value {
        let record: Value = serde_json::from_slice(&fs::read(folder.path(out).join("train.json")).unwrap()).unwrap();
        serde_json::json!([record["curve"], record["validation"], record["written_step"]])
    };
    assert_eq!(curve("out"), curve("right"));
    let left: Vec<String> =
        fs::read_dir(folder.path("")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
}

#[test]
fn what_is_wrong_is_one_line_before_anything_is_written() {
    let folder = tiny();
    let with = |more: &[&'static str]| [&RUN[..], more].concat();
    for (args, line) in [
        (vec!["train", "tiny", "o"], "text: is not given: --text FILE, a text, .jsonl, or safetensors with input_ids"),
        (RUN[..5].to_vec(), "steps: is not given, nor tokens or epochs: one says how long the run is"),
        (with(&["--epochs", "2"]), "steps: is given beside epochs; one says how long the run is"),
        ([&RUN[..11], &["--lr", "-1"]].concat(), "lr: -1 is not a finite number of at least 0"),
        ([&RUN[..9], &["--batch", "0"]].concat(), "batch: 0 is not at least 1"),
        (with(&["--temperature", "2"]), "temperature: is for --teacher"),
        (with(&["--hidden-states", "0"]), "hidden-states: is for --teacher, which runs beside"),
        (with(&["--teacher", "tiny", "--hidden-states", "0:9"]), "hidden-states: 0:9: the teacher has "),
        (with(&["--held-out", "9999"]), "held-out: 9999 of "),
        (with(&["--only", "qq"]), "no parameter is named 'qq' among "),
        (with(&["--teacher", "nowhere"]), "nowhere"),
        (vec!["train", "tiny", "tiny", "--text", "text.txt", "--steps", "1"], "tiny: exists already and is what is read here"),
        (vec!["train", "tiny", "o", "--text", "text.txt", "--steps", "1", "--context", "100000"], "context: 100000 tokens; "),
    ] {
        let refused = folder.refuses(&args);
        assert!(refused.starts_with(line), "{args:?}: {refused}");
    }
}
