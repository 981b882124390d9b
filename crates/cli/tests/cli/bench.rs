//! `lacuna bench`: fields, formats, and bad input.

use crate::build::{HIDDEN, WIDTH, llama};
use crate::common::Folder;

fn spmm(folder: &Folder, more: &[&str]) -> String {
    folder.succeeds(&[&["bench", "spmm", "--seconds", "0", "--json"], more].concat())
}

fn lines(printed: &str) -> Vec<serde_json::Value> {
    printed.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The names of a line's fields, in the order in which they stand there.
fn fields_of(line: &str) -> Vec<&str> {
    line.split('"')
        .skip(1)
        .step_by(2)
        .zip(line.split('"').skip(2).step_by(2))
        .filter(|(_, after)| after.starts_with(':'))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_combination_is_a_line_with_every_field() {
    let folder = Folder::new();
    let printed = spmm(&folder, &["--shape", "40x70,8x64", "--tokens", "1,5", "--sparsity", "0.5,0.9", "--threads", "1,2"]);
    let lines = lines(&printed);
    assert_eq!(lines.len(), 16);
    let fields = "shape tokens sparsity threads isa format kernel dense_us dense_kernel sparse_us sprs_us speedup pack_us bytes \
                  dense_bytes max_error max_error_of_sizes dense_quartiles_us dense_timed sparse_quartiles_us sparse_timed";
    for (line, text) in lines.iter().zip(printed.lines()) {
        assert_eq!(fields_of(text), fields.split_whitespace().collect::<Vec<_>>(), "{text}");
        let us = |name: &str| line[name].as_f64().unwrap();
        assert!(us("dense_us") > 0.0 && us("sparse_us") > 0.0 && us("sprs_us") > 0.0 && us("pack_us") > 0.0);
        assert!((us("speedup") - us("dense_us") / us("sparse_us")).abs() < 1e-9 * us("speedup"));
        assert!(us("max_error") < 1e-4);
        // 70 products of numbers of size 1: a few roundings of their sum of sizes.
        assert!(us("max_error_of_sizes") < 1e-6 && us("max_error_of_sizes") > 0.0, "{text}");
        for of in ["dense", "sparse"] {
            let [low, high] = [0, 1].map(|i| line[format!("{of}_quartiles_us")][i].as_f64().unwrap());
            assert!(low <= us(&format!("{of}_us")) && us(&format!("{of}_us")) <= high, "{text}");
            // No time at all is one product.
            assert_eq!(line[format!("{of}_timed")].as_u64(), Some(1), "{text}");
        }
    }
    assert_eq!(lines[0]["shape"], "40x70");
    assert_eq!(lines[0]["sparsity"], 0.5);
}

#[test]
fn formats_values_and_patterns_are_those_that_were_asked_for() {
    let folder = Folder::new();
    let printed = spmm(
        &folder,
        &[
            "--shape",
            "32x128",
            "--tokens",
            "16",
            "--sparsity",
            "0.8",
            "--format",
            "tile-csr:32,bitmask:64",
            "--values",
            "bf16,f16,i8",
        ],
    );
    let found: Vec<_> = lines(&printed).iter().map(|l| format!("{} {}", l["format"], l["values"])).collect();
    let asked = ["tile-csr:32", "bitmask:64"].map(|f| ["bf16", "f16", "i8"].map(|v| format!("\"{f}\" \"{v}\""))).concat();
    assert_eq!(found, asked);
    for pattern in ["2:4", "1:4"] {
        let format = format!("nm:{pattern}");
        let line = &lines(&spmm(&folder, &["--shape", "32x128", "--pattern", pattern, "--format", &format]))[0];
        assert_eq!(line["pattern"], pattern);
        assert_eq!(line["format"], format!("nm:{pattern}"));
        assert_eq!(line["sparsity"], if pattern == "2:4" { 0.5 } else { 0.75 });
    }
    let skewed = ["--shape", "32x128", "--pattern", "block16x1", "--sparsity", "0.5", "--skewed", "--cold", "--format", "model"];
    let line = &lines(&spmm(&folder, &skewed))[0];
    assert_eq!((&line["cold"], &line["sprs_us"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn weights_and_masks_of_a_file_are_timed_as_they_are() {
    let folder = Folder::new();
    folder.succeeds(&["prune", "model.safetensors", "pruned.safetensors", "--sparsity", "0.75"]);
    let tensor = folder.read("pruned.safetensors").masks().unwrap()[0].0.clone();
    let line = &lines(&spmm(&folder, &["--weights", "pruned.safetensors", "--tensor", &tensor]))[0];
    assert_eq!(line["sparsity"], 0.75);
    let says = folder.refuses(&["bench", "spmm", "--weights", "pruned.safetensors", "--tensor", "nothing"]);
    assert!(says.contains("nothing"), "{says}");
    let says = folder.refuses(&["bench", "spmm", "--weights", "model.safetensors", "--tensor", &tensor]);
    assert!(says.contains(&tensor) && says.contains("--sparsity"), "{says}");
}

#[test]
fn masks_are_found_beside_the_file_in_the_folder_and_in_the_layout() {
    let folder = Folder::new();
    llama().write(folder.path("tiny.gguf"));
    folder.succeeds(&["import", "tiny.gguf", "tiny"]);
    folder.succeeds(&["prune", "tiny", "half", "--pattern", "2:4"]);
    let tensor = "model.layers.0.mlp.up_proj.weight";
    let first = |weights: &str, more: &[&str]| {
        let args = [&["--weights", weights, "--tensor", tensor], more].concat();
        lines(&spmm(&folder, &args))[0].clone()
    };
    let expected = first("half", &[]);
    assert_eq!((&expected["sparsity"], &expected["shape"]), (&0.5.into(), &format!("{WIDTH}x{HIDDEN}").into()));
    // The masks lie in masks.safetensors beside the file.
    assert_eq!(first("half/model.safetensors", &[])["sparsity"], 0.5);
    assert_eq!(first("half/model.safetensors", &["--sparsity", "0.75"])["sparsity"], 0.75);
    for save in ["bitmask", "csr", "nm:2:4", "sparse-bitmask", "sparse-24-bitmask"] {
        folder.succeeds(&["pack", "half", "packed", "--save", save, "--force"]);
        for weights in ["packed", "packed/model.safetensors"] {
            let line = first(weights, &["--format", "bitmask"]);
            assert_eq!((&line["sparsity"], &line["shape"]), (&0.5.into(), &expected["shape"]), "{weights} as {save}");
        }
    }
    // A model without masks, a folder that is none, a tensor that is not there.
    let refuses = |weights: &str, tensor: &str| folder.refuses(&["bench", "spmm", "--weights", weights, "--tensor", tensor]);
    assert!(refuses("tiny", tensor).contains("has no mask of that pattern stored; give --sparsity"));
    assert!(refuses("half", "up_proj").contains("no layer is named 'up_proj'"));
    assert!(refuses("half", "model.norm.weight").contains("a weight of a folder is a matrix"));
    std::fs::create_dir(folder.path("none")).unwrap();
    assert!(refuses("none", tensor).contains("config.json"));
    // A mask of another weight's shape is told, not used.
    let mut other = folder.read("half/model.safetensors");
    other.remove(tensor).unwrap();
    other.insert(tensor, ndarray::Array2::<f32>::ones((4, 4)), lacuna::io::Dtype::F32).unwrap();
    other.write(folder.path("half/model.safetensors")).unwrap();
    assert!(refuses("half/model.safetensors", tensor).contains("the mask of"));
}

#[test]
fn weights_that_a_model_keeps_turned_are_timed_as_they_are_multiplied() {
    let folder = Folder::new();
    let config = serde_json::json!({
        "model_type": "gpt2", "vocab_size": 12, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "activation_function": "gelu_new",
    });
    let shapes: [(&str, &[usize]); 16] = [
        ("wte.weight", &[12, 8]),
        ("wpe.weight", &[16, 8]),
        ("h.0.ln_1.weight", &[8]),
        ("h.0.ln_1.bias", &[8]),
        ("h.0.attn.c_attn.weight", &[8, 24]),
        ("h.0.attn.c_attn.bias", &[24]),
        ("h.0.attn.c_proj.weight", &[8, 8]),
        ("h.0.attn.c_proj.bias", &[8]),
        ("h.0.ln_2.weight", &[8]),
        ("h.0.ln_2.bias", &[8]),
        ("h.0.mlp.c_fc.weight", &[8, 32]),
        ("h.0.mlp.c_fc.bias", &[32]),
        ("h.0.mlp.c_proj.weight", &[32, 8]),
        ("h.0.mlp.c_proj.bias", &[8]),
        ("ln_f.weight", &[8]),
        ("ln_f.bias", &[8]),
    ];
    let tensors = shapes.map(|(name, shape)| (name.to_string(), lacuna::io::Dtype::F32, shape.to_vec()));
    let layout = lacuna::io::Layout::new(tensors, 1 << 30).unwrap();
    let mut writer = lacuna::io::FolderWriter::create(folder.path("gpt2"), layout).unwrap();
    for (name, shape) in shapes {
        writer.write(name, &crate::build::numbers(name, shape, 1.0)).unwrap();
    }
    writer.config(config.as_object().unwrap()).unwrap();
    writer.finish().unwrap();
    folder.succeeds(&["prune", "gpt2", "half", "--pattern", "2:4"]);
    let args = ["--weights", "half", "--tensor", "h.0.mlp.c_fc.weight", "--format", "nm:2:4"];
    let line = &lines(&spmm(&folder, &args))[0];
    // (out, in), in groups of the inputs: as the file holds it the mask would not be 2:4.
    assert_eq!((&line["shape"], &line["sparsity"]), (&"32x8".into(), &0.5.into()));
}

#[test]
fn a_sweep_says_where_sparse_begins_to_win_and_draws_it() {
    let folder = Folder::new();
    let args = ["--shape", "64x128", "--tokens", "1,16", "--sparsity", "0,0.5,0.99", "--seconds", "0", "--out", "sweep"];
    let printed = folder.succeeds(&[&["bench", "sweep", "--json"][..], &args].concat());
    let lines = lines(&printed);
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|l| l["cases"].as_array().unwrap().len() == 3));
    for file in ["sweep/sweep.csv", "sweep/sweep.svg", "sweep/sweep.html"] {
        assert!(std::fs::metadata(folder.path(file)).unwrap().len() > 200, "{file}");
    }
}

#[test]
fn numbers_of_16_and_8_bits_get_the_sparse_storage_that_the_model_ranks_first() {
    let folder = Folder::new();
    let printed = spmm(&folder, &["--shape", "64x512", "--tokens", "1,32", "--sparsity", "0.9", "--values", "f32,bf16,f16,i8"]);
    let lines = lines(&printed);
    assert_eq!(lines.len(), 8);
    for line in lines.iter().filter(|l| l.get("values").is_some()) {
        assert!(line["format"] != "dense" && line["values"] != "f32", "{line}");
        assert!(line["bytes"].as_u64() < lines[0]["dense_bytes"].as_u64(), "{line}");
    }
    assert_eq!(lines.iter().filter(|l| l.get("values").is_none()).count(), 2);
}

#[test]
fn a_check_fails_exactly_where_a_plan_is_slower_than_it_may_be() {
    let folder = Folder::new();
    let args =
        ["bench", "check", "--json", "--seconds", "0", "--shape", "64x128", "--tokens", "1,16", "--sparsity", "0,0.5,0.99"];
    for more in [&[][..], &["--model", "--skewed"]] {
        let output = folder.run(&[&args[..], more].concat());
        let (printed, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let lines = lines(&printed);
        assert_eq!(lines.len(), 6, "{printed}{errors}");
        let mut broken = 0;
        for line in &lines {
            let number = |name: &str| line[name].as_f64().unwrap();
            assert!((number("speedup") - number("dense_us") / number("plan_us")).abs() < 1e-9 * number("speedup"), "{line}");
            assert!(line["sparsity"] != 0.0 || number("growth") == 1.0, "{line}");
            assert_eq!(line["holds"], number("speedup") >= 0.97 && number("growth") <= 1.03, "{line}");
            broken += usize::from(line["holds"] == false);
        }
        if broken == 0 {
            assert!(output.status.success() && errors.is_empty(), "{errors}");
        } else {
            assert_eq!(output.status.code(), Some(2));
            assert!(errors.starts_with("error: plan: slower than 0.97 of dense") && errors.lines().count() == 1, "{errors}");
            assert!(errors.contains(&format!("in {broken} of 6 cases")), "{errors}");
        }
    }
}

#[test]
fn the_table_says_the_spread_the_number_of_products_and_what_the_error_is() {
    let folder = Folder::new();
    let printed = folder.succeeds(&["bench", "spmm", "--shape", "40x70", "--sparsity", "0.5", "--seconds", "0"]);
    let head = printed.lines().next().unwrap();
    for column in ["dense µs", "sparse µs", "timed", "max |y - exact|", "of sizes"] {
        assert!(head.contains(column), "{column}: {printed}");
    }
    assert_eq!(head.matches("quartiles").count(), 2, "{printed}");
    assert!(printed.contains("quartiles; timed is the number") && printed.contains("in units of y"), "{printed}");
    let printed = folder.run(&["bench", "check", "--shape", "40x70", "--sparsity", "0.5", "--tokens", "1", "--seconds", "0"]);
    let head = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(head.lines().next().unwrap().matches("quartiles").count(), 2, "{head}");
    // Where a product takes less than that: four rounds of three products at least.
    let args = ["--shape", "40x70", "--sparsity", "0.5", "--tokens", "1", "--seconds", "0.01", "--json"];
    let line = &lines(&folder.succeeds(&[&["bench", "sweep"], &args[..]].concat()))[0];
    assert_eq!((line["times"].as_array().unwrap().len(), line["cases"].as_array().unwrap().len()), (1, 1), "{line}");
    assert!(line["times"][0]["sparse_timed"].as_u64() >= Some(12) && line["times"][0]["dense_quartiles_us"][1].is_number());
}

/// No number makes it work for nothing, abort, panic or go on for ever.
#[test]
fn numbers_beyond_every_machine_are_refused_before_any_work() {
    let folder = Folder::new();
    let huge = "18446744073709551615";
    let begin = std::time::Instant::now();
    for what in ["spmm", "sweep", "check"] {
        let refused = |args: &[&str], says: &str| {
            let start: &[&str] = if args.contains(&"--shape") { &[] } else { &["--shape", "8x8"] };
            let sparsity: &[&str] = if args.iter().any(|a| a.contains("sparsity")) { &[] } else { &["--sparsity", "0.5"] };
            let line = folder.refuses(&[&["bench", what], start, sparsity, args].concat());
            assert!(line.contains(says), "bench {what} {args:?}: {line}");
        };
        for tokens in ["99999999999", "9999999999999", huge] {
            refused(&["--tokens", tokens], &format!("tokens: {tokens} tokens and a weight of 8 x 8 need about "));
        }
        refused(&["--tokens", "1,99999999999"], "tokens: 99999999999 tokens");
        refused(&["--tokens", "18446744073709551616"], "--tokens");
        refused(&["--tokens=-1"], "--tokens");
        refused(&["--tokens", "0"], "tokens: 0, where 1 or more are possible");
        for shape in ["99999999999x3", "3x99999999999", "4294967296x4294967296", &format!("{huge}x{huge}"), &format!("1x{huge}")]
        {
            refused(&["--shape", shape], "has more than 1073741824 weights");
        }
        refused(&["--shape", "18446744073709551616x1"], "is not OUTxIN");
        refused(&["--shape=-1x4"], "is not OUTxIN");
        for threads in ["0", "1025", huge] {
            refused(&["--threads", threads], &format!("threads: {threads}, where 1 to 1024 are possible"));
        }
        for (seconds, shown) in
            [("nan", "NaN"), ("inf", "inf"), ("-inf", "-inf"), ("-1", "-1.0"), ("1e300", "1e300"), ("3601", "3601.0")]
        {
            refused(&[&format!("--seconds={seconds}")], &format!("seconds: {shown}, where 0 to 3600 are possible"));
        }
        for (sparsity, shown) in [("nan", "NaN"), ("inf", "inf"), ("-0.5", "-0.5"), ("1", "1.0"), ("1e300", "1e300")] {
            refused(&[&format!("--sparsity={sparsity}")], &format!("sparsity: {shown} is not in [0, 1)"));
        }
        refused(&["--seed", "18446744073709551616"], "--seed");
        refused(&["--seed=-1"], "--seed");
    }
    for (more, says) in [
        (["--format", "tile-csr:99999999999999999999"], "tile-csr"),
        (["--format", "tile-csr:18446744073709551615"], "tile-csr"),
        (["--format", "tile-pairs:18446744073709551552"], "tile-pairs"),
        (["--format", "bitmask:18446744073709551552"], "bitmask"),
        (["--format", "nm:18446744073709551615:18446744073709551615"], "nm"),
        (["--format", "bsr:18446744073709551615x18446744073709551615"], "bsr"),
        (["--format", "bsr:0x1"], "bsr"),
        (["--values", "i8:0"], "values: 'i8:0'"),
        (["--values", "i8:18446744073709551615"], "i8:18446744073709551615"),
        (["--pattern", "18446744073709551615:18446744073709551615"], "pattern"),
        (["--pattern", "block0x0"], "pattern"),
    ] {
        // A pattern N:M takes no sparsity.
        let sparsity: &[&str] = if more[1].starts_with("1844") { &[] } else { &["--sparsity", "0.5"] };
        let args = [&["bench", "spmm", "--shape", "8x8", "--seconds", "0"], sparsity, &more[..]].concat();
        let line = folder.refuses(&args);
        assert!(line.contains(says), "{args:?}: {line}");
    }
    // A block that is larger than the weight is the whole weight.
    let args =
        ["--shape", "8x8", "--tokens", "1", "--sparsity", "0", "--pattern", "block18446744073709551615x18446744073709551615"];
    assert_eq!(lines(&spmm(&folder, &args))[0]["sparsity"], 0.0);
    for seeds in ["0", "101", huge, "18446744073709551616", "-1"] {
        let line = folder.refuses(&["demo", &format!("--seeds={seeds}")]);
        assert!(line.contains("--seeds") || line.contains("100"), "{line}");
    }
    for seed in ["18446744073709551616", "-1", "nan"] {
        assert!(folder.refuses(&["demo", &format!("--seed={seed}")]).contains("--seed"));
    }
    assert!(begin.elapsed().as_secs() < 120, "{:?} for what has no work in it", begin.elapsed());
}

#[test]
fn bad_input_is_one_line() {
    let folder = Folder::new();
    let refused = |args: &[&str], says: &str| {
        let line = folder.refuses(&[&["bench", "spmm"], args].concat());
        assert!(line.contains(says), "{args:?}: {line}");
    };
    let half = ["--sparsity", "0.5"];
    for (shape, says) in [
        ("4x", "shape: '4x' is not OUTxIN, as 4096x4096"),
        ("0x4", "shape: '0x4' has no weights"),
        ("100000x100000", "shape: '100000x100000' has more than 1073741824 weights"),
        ("4294967296x4294967296", "has more than 1073741824 weights"),
    ] {
        refused(&[&["--shape", shape][..], &half].concat(), says);
    }
    let small = ["--shape", "4x4"];
    for (more, says) in [
        (&["--sparsity", "1.5"][..], "sparsity: 1.5 is not in [0, 1)"),
        (&["--sparsity", "NaN"], "sparsity"),
        (&[], "sparsity: pattern unstructured needs one"),
        (&["--sparsity", "0.5", "--pattern", "2:4"], "sparsity: pattern 2:4 fixes the sparsity"),
        (&["--sparsity", "0.5", "--pattern", "9"], "pattern: '9' is none of"),
        (&["--sparsity", "0.5", "--tokens", "0"], "tokens: 0, where 1 or more are possible"),
        (&["--sparsity", "0.5", "--threads", "0"], "threads: 0, where 1 to 1024 are possible"),
        (&["--sparsity", "0.5", "--format", "coo"], "format: 'coo' is none of"),
        (&["--sparsity", "0.5", "--values", "f64"], "values: 'f64' is none of"),
        (&["--sparsity", "0.5", "--values", "i8", "--format", "csr"], "values: csr keeps f32 only, not i8"),
        (&["--sparsity", "0.5", "--values", "i4:3", "--format", "dense"], "values: i4:3: groups of 3 inputs in rows of 4"),
        (&["--sparsity", "0.5", "--pattern", "block0x4"], "pattern: 'block0x4'"),
        (&["--sparsity", "0.25", "--format", "nm:2:4"], "mask is not 2:4"),
        (&["--sparsity", "0.5", "--pattern", "5:4"], "pattern: '5:4'"),
        (&["--sparsity", "0.5", "--weights", "model.safetensors"], "'--shape <SHAPE>' cannot be used with '--weights <WEIGHTS>'"),
        (&["--sparsity", "0.5", "--tokens", "many"], "--tokens"),
        (&["--sparsity", "0.5", "--seconds", "NaN"], "seconds: NaN"),
    ] {
        refused(&[&small[..], more].concat(), says);
    }
    refused(&["--weights", "model.safetensors", "--sparsity", "0.5"], "--tensor <TENSOR>");
    refused(&["--weights", "nowhere.safetensors", "--tensor", "w", "--sparsity", "0.5"], "nowhere.safetensors");
    for what in ["sweep", "check"] {
        let line = folder.refuses(&["bench", what, "--sparsity", "0.9,0.5"]);
        assert!(line.contains("sparsity: give rising numbers"), "{line}");
        let line = folder.refuses(&["bench", what, "--shape", "4x"]);
        assert!(line.contains("shape: '4x' is not OUTxIN"), "{line}");
        let line = folder.refuses(&["bench", what, "--shape", "4x4", "--threads", "0"]);
        assert!(line.contains("threads: 0, where 1 to 1024 are possible"), "{line}");
    }
}
