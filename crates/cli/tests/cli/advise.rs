//! `lacuna advise`, from a machine that is made up, and one short measurement.

use crate::common::Folder;
use crate::prune_language::folder;
use lacuna::advise::{Key, MeasurementGrid, Median, Profile, ShapeTimings, Sparse};
use lacuna::mask::Pattern;

/// A machine on which a weight and token take a nanosecond dense, and twice or half as long at sparsities of 0.5 and 0.9.
fn made_up(key: Key) -> Profile {
    let us = |us: f64| Median { us, low: us, high: us };
    let mut cells = Vec::new();
    for side in [8, 1024] {
        for tokens in [1, 64] {
            let dense = (side * side * tokens) as f64 * 1e-3;
            let of = |pattern, sparsity, format: &str, factor: f64| Sparse {
                pattern,
                sparsity,
                format: format.into(),
                time: us(dense * factor),
            };
            let sparse = vec![
                of(Pattern::Unstructured, 0.5, "bitmask:128", 2.0),
                of(Pattern::Unstructured, 0.9, "sell:padded", 0.5),
                of(Pattern::Nm { n: 2, m: 4 }, 0.5, "nm:2:4", 0.8),
            ];
            cells.push(ShapeTimings {
                shape: (side, side),
                tokens,
                from_memory: false,
                dense: us(dense),
                dense_kernel: "gemm".into(),
                sparse,
            });
        }
    }
    Profile { key, grid: MeasurementGrid::full(), seconds: 1.0, last_cache: 32 << 20, cells }
}

/// The folder with such a machine in `machine.json`.
fn with_machine(folder: Folder, key: Key) -> Folder {
    std::fs::write(folder.path("machine.json"), serde_json::to_string(&made_up(key)).unwrap()).unwrap();
    folder
}

#[test]
fn a_shape_is_answered_from_what_was_measured() {
    let folder = with_machine(Folder::new(), Key::here(1));
    let ask = |more: &[&str]| folder.json(&[&["advise", "--machine", "machine.json", "--json"], more].concat());
    let found = ask(&["--shape", "1024x1024", "--sparsity", "0.9"]);
    assert_eq!((found["storage"].as_str(), found["sparse"].as_str()), (Some("sell:padded"), Some("sell:padded")), "{found}");
    assert_eq!((found["speedup"].as_f64().unwrap() * 1e9).round(), 2e9, "{found}");
    assert_eq!((found["tokens"].as_u64(), found["measured"].as_bool()), (Some(1), Some(true)), "{found}");
    // Halfway between 0.5 and 0.9 the logarithms pass 0.
    assert_eq!((found["wins_from"].as_f64().unwrap() * 1e9).round(), 0.7e9, "{found}");
    let dense = ask(&["--shape", "1024x1024", "--sparsity", "0.6", "--tokens", "8"]);
    assert_eq!((dense["storage"].as_str(), dense["measured"].as_bool()), (Some("dense"), Some(false)), "{dense}");
    let nm = ask(&["--shape", "1024x1024", "--pattern", "2:4"]);
    assert_eq!((nm["storage"].as_str(), nm["sparsity"].as_f64()), (Some("nm:2:4"), Some(0.5)), "{nm}");
    assert_eq!((nm["wins_from"].as_f64(), nm["wins_at_all_measured"].as_bool()), (Some(0.5), Some(true)), "{nm}");
    let far = ask(&["--shape", "4096x4096", "--sparsity", "0.9"]);
    assert_eq!(far["extrapolated"], serde_json::json!(["shape"]), "{far}");
    let text = folder.succeeds(&["advise", "--machine", "machine.json", "--shape", "4096x4096", "--sparsity", "0.9"]);
    assert!(
        text.contains("speed-up of sell:padded over dense (gemm) 2.00 (") && text.contains("sparse wins from 70.0 % on"),
        "{text}"
    );
    assert!(text.contains("extrapolated: shape beyond what was measured"), "{text}");
}

#[test]
fn what_is_wrong_with_a_question_shows_before_anything_is_measured() {
    // Without a file of a machine every question would measure this one for a minute and a half.
    let folder = folder();
    for (question, says) in [
        (&["lm"][..], "sparsity: model.layers.0.self_attn.q_proj.weight has no mask; give a sparsity"),
        (&["--shape", "8x8", "--pattern", "4:8"], "pattern: 4:8 is not measured; unstructured, 2:4, block16x1 are"),
        (&["--shape", "8x8", "--pattern", "2:4", "--sparsity", "0.6"], "sparsity: 0.6, where 2:4 fixes it at 0.5; leave it out"),
        (&["--shape", "8x8"], "sparsity: unstructured says none; give one, as 0.6"),
        (&["--shape", "8x8", "--sparsity", "1.0"], "sparsity"),
    ] {
        let begun = std::time::Instant::now();
        let line = folder.refuses(&[&["advise"], question].concat());
        assert!(line.contains(says) && begun.elapsed().as_secs() < 20, "{line}");
    }
}

#[test]
fn a_folder_has_a_row_for_each_shape_and_their_sum() {
    let folder = with_machine(folder(), Key::here(1));
    folder.succeeds(&["prune", "lm", "pruned", "--method", "magnitude", "--sparsity", "0.9", "--json"]);
    let found = folder.json(&["advise", "pruned", "--machine", "machine.json", "--json"]);
    let rows = found["rows"].as_array().unwrap();
    let shapes: Vec<_> = rows.iter().map(|r| (r["shape"].as_str().unwrap(), r["layers"].as_u64().unwrap())).collect();
    assert_eq!(shapes, [("8x8", 8), ("12x8", 4), ("8x12", 2)], "{found}");
    let sum: f64 = rows.iter().map(|r| r["dense_us"].as_f64().unwrap()).sum();
    assert!((found["dense_us"].as_f64().unwrap() - sum).abs() < 1e-9 && found["speedup"].as_f64().unwrap() > 1.5, "{found}");
    assert!(rows.iter().all(|r| (r["sparsity"].as_f64().unwrap() - 0.9).abs() < 0.02), "{found}");
    let text = folder.succeeds(&["advise", "pruned", "--machine", "machine.json", "--tokens", "64"]);
    assert!(text.contains("12x8") && text.contains("all linear layers, 64 tokens"), "{text}");
    // Without masks the sparsity has to be given.
    let says = folder.refuses(&["advise", "lm", "--machine", "machine.json"]);
    assert_eq!(says, "sparsity: model.layers.0.self_attn.q_proj.weight has no mask; give a sparsity");
    let asked = folder.json(&["advise", "lm", "--machine", "machine.json", "--sparsity", "0.9", "--json"]);
    assert_eq!(asked["rows"][0]["storage"], "sell:padded", "{asked}");
}

#[test]
fn what_is_wrong_with_a_question_is_one_line_before_anything_is_measured() {
    let folder = with_machine(Folder::new(), Key::here(1));
    let says = |more: &[&str]| folder.refuses(&[&["advise", "--machine", "new.json"], more].concat());
    assert_eq!(says(&["--shape", "4096", "--sparsity", "0.5"]), "shape: '4096' is not OUTxIN, as 4096x4096");
    assert_eq!(says(&["--shape", "8x8", "--sparsity", "1"]), "sparsity: 1.0 is not in [0, 1)");
    assert_eq!(says(&["--shape", "8x8"]), "sparsity: unstructured says none; give one, as 0.6");
    assert_eq!(says(&["--shape", "8x8", "--sparsity", "0.5", "--tokens", "0"]), "tokens: 0, where 1 or more are possible");
    assert_eq!(says(&["--shape", "8x8", "--sparsity", "0.5", "--threads", "0"]), "threads: 0, where 1 to 1024 are possible");
    assert!(says(&["--shape", "8x6", "--pattern", "2:4"]).starts_with("pattern 2:4 does not fit a 8 x 6 matrix"));
    assert!(says(&["nowhere"]).starts_with("nowhere"));
    std::fs::write(folder.path("broken.json"), "[]").unwrap();
    let broken = folder.refuses(&["advise", "--machine", "broken.json", "--shape", "8x8", "--sparsity", "0.5"]);
    assert!(broken.starts_with("broken.json: is no profile of a machine"), "{broken}");
    let unknown = folder.refuses(&[
        "advise",
        "--machine",
        "machine.json",
        "--shape",
        "32x32",
        "--sparsity",
        "0.5",
        "--pattern",
        "block16x1",
    ]);
    assert_eq!(unknown, "pattern: block16x1 was not measured; 2:4, unstructured were");
    let cold = folder.refuses(&["advise", "--machine", "machine.json", "--shape", "32x32", "--sparsity", "0.5", "--cold"]);
    assert!(cold.starts_with("cold: no weights from memory were measured"), "{cold}");
}

#[test]
fn a_machine_is_measured_once_and_another_ones_file_is_said_to_be_so() {
    let folder = Folder::new();
    let caches = folder.path("caches");
    let ask = |more: &[&str]| {
        let args = [&["advise", "--quick", "--shape", "128x128", "--sparsity", "0.9", "--json"], more].concat();
        let output = folder.command(&args).env("XDG_CACHE_HOME", &caches).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (found, String::from_utf8(output.stderr).unwrap())
    };
    let (first, said) = ask(&[]);
    assert!(said.starts_with("measuring ") && first["measured"] == true, "{said} {first}");
    assert!(first["profile"].as_str().unwrap().starts_with(caches.join("lacuna").to_str().unwrap()), "{first}");
    let (again, said) = ask(&[]);
    assert!(said.is_empty() && again == first, "{said} {again}");
    let (_, said) = ask(&["--renew"]);
    assert!(said.starts_with("measuring "), "{said}");
    let folder = with_machine(Folder::new(), Key { cpu: "another".into(), ..Key::here(1) });
    let output = folder.run(&["advise", "--machine", "machine.json", "--shape", "1024x1024", "--sparsity", "0.9"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.starts_with("note: machine.json is of another, "), "{said}");
}
