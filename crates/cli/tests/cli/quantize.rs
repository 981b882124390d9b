//! `lacuna quantize` on a tiny random Llama: what is written is read by the other commands, and bad input is one line.

use crate::language::tiny;
use serde_json::Value;

/// What a run measures on.
const MEASURED: [&str; 6] = ["--calibration", "text.txt", "--samples", "4", "--context", "24"];

#[test]
fn folders_of_codes_are_evaluated_continued_inspected_made_whole_and_exported() {
    let folder = tiny();
    let nll = |dir: &str| {
        folder.json(&["eval", dir, "--text", "text.txt", "--context", "24", "--windows", "2", "--json"])["nll"].as_f64().unwrap()
    };
    let dense = nll("tiny");
    for (method, layout) in
        [("rtn", "compressed-tensors"), ("gptq", "gptq"), ("obr", "gptq"), ("awq", "awq"), ("hqq", "compressed-tensors")]
    {
        let mut args = vec!["quantize", "tiny", method, "--method", method, "--layout", layout, "--group", "16", "--json"];
        args.extend(["--text", "text.txt", "--windows", "2"]);
        args.extend(if matches!(method, "gptq" | "obr" | "awq") { &MEASURED[..] } else { &MEASURED[4..] });
        let output = folder.run(&args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let report: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        assert!(report["bytes"].as_u64() < report["bytes_before"].as_u64(), "{report}");
        let (before, after) =
            (report["perplexity"]["nll_before"].as_f64().unwrap(), report["perplexity"]["nll_after"].as_f64().unwrap());
        assert!((before - dense).abs() < 1e-5 && (after - nll(method)).abs() < 1e-5, "{method}: {before} {after}");
        assert!((after - dense).abs() < 0.2, "{method}: {after} {dense}");
        let said = folder.succeeds(&["generate", method, "--prompt", "The weights", "--tokens", "3", "--ignore-end"]);
        assert!(!said.is_empty());
        let packing = if layout == "compressed-tensors" { "pack-quantized" } else { layout };
        let seen = folder.json(&["inspect", method, "--json"]);
        assert!(seen["packed"][packing].as_u64() > Some(0), "{seen}");
        let whole = format!("{method}-whole");
        folder.succeeds(&["pack", method, &whole, "--save", "weights"]);
        assert!((nll(&whole) - nll(method)).abs() < 1e-6);
        folder.succeeds(&["export", method, &format!("{method}.gguf"), "--type", "f32"]);
    }
}

#[test]
fn recipes_hold_every_setting_and_what_is_typed_holds_instead() {
    let folder = tiny();
    let recipe = folder.succeeds(&["quantize", "--print-recipe", "--bits", "3", "--group", "row", "--no-clip"]);
    assert!(
        recipe.contains("bits = 3\n") && recipe.contains("group = \"row\"\n") && recipe.contains("clip = false\n"),
        "{recipe}"
    );
    std::fs::write(folder.path("r.toml"), recipe).unwrap();
    let more = ["--recipe", "r.toml", "--method", "rtn", "--group", "32", "--print-recipe"];
    let over = folder.succeeds(&[&["quantize"][..], &more].concat());
    assert!(over.contains("bits = 3\n") && over.contains("group = 32\n") && over.contains("method = \"rtn\"\n"), "{over}");
}

#[test]
fn what_is_wrong_is_one_line_and_nothing_is_written() {
    let folder = tiny();
    let refuses = |more: &[&str]| folder.refuses(&[&["quantize", "tiny", "out"][..], more].concat());
    for (more, begins) in [
        (&["--method", "rtn", "--bits", "5"][..], "bits: 5 is none that the layout compressed-tensors has: 2, 3, 4, 8"),
        (&["--method", "rtn", "--layout", "awq", "--bits", "3"], "bits: 3 is none that the layout awq has: 4"),
        (&["--method", "gptq"], "calibration: this method measures inputs"),
        (&["--method", "hqq", "--scheme", "symmetric"], "scheme: hqq finds zero points"),
        (&["--calibration", "text.txt", "--samples", "100000", "--context", "24", "--group", "16"], "calibration: text.txt has"),
        (&["--method", "rtn", "--sparsity", "0.5"], "sparsity: is for --method gptq"),
    ] {
        let line = refuses(more);
        assert!(line.starts_with(begins), "{line}");
    }
    let line = refuses(&["--method", "rtn", "--group", "100"]);
    assert!(line.contains("group: groups of 100 do not divide rows of"), "{line}");
    folder.succeeds(&["quantize", "tiny", "codes", "--method", "rtn", "--group", "16"]);
    let line = folder.refuses(&["quantize", "codes", "again", "--method", "rtn", "--group", "16"]);
    assert!(line.contains("is in codes of 4 bits; 'lacuna pack DIR OUT --save weights' makes it whole"), "{line}");
    let line = folder.refuses(&["quantize", "tiny", "codes", "--method", "rtn", "--group", "16"]);
    assert!(line.contains("exists already"), "{line}");
    let done = folder.succeeds(&["quantize", "tiny", "codes", "--method", "rtn", "--group", "16", "--resume"]);
    assert!(done.contains("is finished, as it was asked for"), "{done}");
}
