//! Weights of few bits and activations of eight: `bench model`, `eval`, `generate` and `bench spmm`, on a tiny random Llama.

use crate::common::Folder;
use crate::language::tiny;
use serde_json::Value;

#[test]
fn models_are_timed_in_turns_in_several_numbers() {
    let folder = tiny();
    let printed = folder.succeeds(&[
        "bench",
        "model",
        "tiny",
        "--values",
        "own,f32,bf16,i8",
        "--activation-bits",
        "32,8",
        "--tokens",
        "4",
        "--prompt",
        "16",
        "--rounds",
        "2",
        "--text",
        "text.txt",
        "--context",
        "24",
        "--windows",
        "2",
        "--out",
        "report",
        "--json",
    ]);
    let rows: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 8, "{printed}");
    let of = |values: &str, bits: &str| rows.iter().find(|r| r["values"] == values && r["activation_bits"] == bits).unwrap();
    for row in &rows {
        assert!(row["decode"]["median"].as_f64().unwrap() > 0.0 && row["prefill"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["share_of_bandwidth"].as_f64().unwrap() > 0.0 && row["perplexity"].as_f64().unwrap() > 1.0, "{row}");
    }
    let bytes = |values: &str| of(values, "32")["bytes_a_token"].as_f64().unwrap();
    // Eight bits and a scale a row, sixteen, and 32, which are filled up to whole panels.
    assert!((1.5..2.0).contains(&(bytes("bf16") / bytes("i8"))), "{printed}");
    assert!(bytes("f32") / bytes("bf16") >= 2.0, "{printed}");
    let nll = |values: &str, bits: &str| of(values, bits)["nll"].as_f64().unwrap();
    assert_eq!(nll("f32", "32"), nll("f32", "8"), "activations meet no codes");
    assert!((nll("f32", "32") - nll("bf16", "32")).abs() < 1e-2);
    let (exact, rounded) = (nll("i8", "32"), nll("i8", "8"));
    assert!(exact != rounded && (exact - rounded).abs() < 1e-3, "{exact}, {rounded}");
    let svg = std::fs::read_to_string(folder.path("report/model.svg")).unwrap();
    assert!(svg.contains("Perplexity against speed"), "{svg}");
    assert!(std::fs::read_to_string(folder.path("report/model.csv")).unwrap().lines().count() == 9);
}

#[test]
fn activations_of_eight_bits_are_an_option_of_eval_and_generate() {
    let folder = tiny();
    let nll = |bits: &str| {
        let more = ["--text", "text.txt", "--context", "24", "--windows", "2", "--activation-bits", bits, "--json"];
        folder.json(&[&["eval", "tiny"][..], &more].concat())["nll"].as_f64().unwrap()
    };
    assert!((nll("32") - nll("8")).abs() < 2e-2, "{} and {}", nll("32"), nll("8"));
    let said = folder.succeeds(&[
        "generate",
        "tiny",
        "--prompt",
        "The weights",
        "--tokens",
        "3",
        "--activation-bits",
        "8",
        "--ignore-end",
        "--json",
    ]);
    assert!(said.contains("\"ended\""), "{said}");
    for command in ["eval", "generate"] {
        let more: &[&str] = if command == "eval" { &["--text", "text.txt"] } else { &["--prompt", "The"] };
        let said = folder.refuses(&[&[command, "tiny", "--activation-bits", "16"][..], more].concat());
        assert_eq!(said, "activation-bits: '16' is neither 32 nor 8");
    }
}

#[test]
fn what_cannot_be_timed_is_refused_in_one_line() {
    let folder = tiny();
    let refuses = |more: &[&str]| folder.refuses(&[&["bench", "model", "tiny"][..], more].concat());
    assert!(refuses(&["--values", "i3:32"]).starts_with("values: 'i3:32' is none of"), "{}", refuses(&["--values", "i3:32"]));
    let said = refuses(&["--values", "i4:48"]);
    assert!(said.contains("i4:48: groups of 48 inputs in rows of 32") && said.contains("model.embed_tokens"), "{said}");
    assert_eq!(refuses(&["--tokens", "0"]), "tokens: 0, where 1 and more are possible");
    assert_eq!(refuses(&["--prompt", "1"]), "prompt: 1, where 2 and more are possible");
    assert_eq!(refuses(&["--rounds", "0"]), "rounds: 0, where 1 and more are possible");
    assert_eq!(refuses(&["--threads", "0"]), "threads: 0, where 1 to 1024 are possible");
    assert!(refuses(&["--activation-bits", "7"]).contains("'7' is neither 32 nor 8"));
    assert!(refuses(&["--text", "nothing.txt"]).contains("nothing.txt"));
    assert!(folder.refuses(&["bench", "model", "nowhere"]).contains("nowhere"));
}

#[test]
fn products_of_few_bits_are_timed_against_dense_of_as_many() {
    let folder = tiny();
    let spmm = |more: &[&str]| -> Value {
        let args = ["bench", "spmm", "--shape", "48x64", "--sparsity", "0.5", "--seconds", "0", "--json"];
        serde_json::from_str(folder.succeeds(&[&args[..], more].concat()).trim()).unwrap()
    };
    for values in ["i4:32", "u4:64", "u8:32", "i8:32", "bf16"] {
        let row = spmm(&["--format", "dense", "--values", values]);
        assert_eq!((row["format"].as_str(), row["values"].as_str()), (Some("dense"), Some(values)), "{row}");
        let auto = spmm(&["--values", values]);
        assert!(auto["dense_us"].as_f64().unwrap() > 0.0, "{auto}");
    }
    let said =
        folder.refuses(&["bench", "spmm", "--shape", "48x64", "--sparsity", "0.5", "--format", "csr", "--values", "i4:32"]);
    assert_eq!(said, "values: csr keeps f32 only, not i4:32");
}

#[test]
fn storages_of_few_bits_at_any_mask_are_timed() {
    let folder = Folder::new();
    let case = ["bench", "spmm", "--shape", "64x128", "--sparsity", "0.8", "--values", "i4:64", "--format", "sell,bitmask,auto"];
    let printed =
        folder.succeeds(&[&case[..], &["--activation-bits", "8", "--tokens", "1,5", "--seconds", "0.02", "--json"]].concat());
    let rows: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6, "{printed}");
    for row in &rows {
        assert_eq!((&row["values"], &row["activation_bits"]), (&"i4:64".into(), &"8".into()), "{row}");
        assert!(row["max_error_of_sizes"].as_f64().unwrap() < 1e-2, "{row}");
    }
    // A bit each and half a byte for a fifth, scales and where rows begin; windows have 8 bits for a weight that is kept.
    let bytes = |format: &str| rows.iter().find(|row| row["format"] == format).unwrap()["bytes"].as_f64().unwrap() * 8.0 / 8192.0;
    assert!(bytes("bitmask:128") < 2.6 && bytes("sell:padded") < 3.6, "{printed}");
    let refused = folder.refuses(&[&case[..], &["--activation-bits", "16"]].concat());
    assert!(refused.ends_with("'16' is neither 32 nor 8"), "{refused}");
}
