//! What is lost on several texts, at home and abroad, by every command that measures it.

use crate::common::*;
use crate::language::tiny;
use serde_json::Value;
use std::fs;

/// A tiny model with a text to calibrate on, one of its kind, and one of another.
fn with_texts() -> Folder {
    let folder = tiny();
    let text = fs::read_to_string(folder.path("text.txt")).unwrap();
    fs::write(folder.path("home-calibration.txt"), text.repeat(3)).unwrap();
    fs::write(folder.path("home-judge.txt"), text.repeat(2)).unwrap();
    let other: String = text.split(' ').rev().collect::<Vec<_>>().join(" ");
    fs::write(folder.path("far-judge.txt"), other.repeat(2)).unwrap();
    folder
}

/// Means by hand.
fn check(report: &Value) {
    let of = |n: usize| {
        let text = &report["texts"][n];
        let number = |key: &str| text[key].as_f64().unwrap();
        let by_hand = (number("after") / number("before")).ln();
        assert!((number("excess") - by_hand).abs() < 1e-9, "{text}");
        number("excess")
    };
    let (home, far) = (of(0), of(1));
    let excess = |key: &str| report["excess"][key].as_f64().unwrap();
    assert!((excess("home") - home).abs() < 1e-12 && (excess("abroad") - far).abs() < 1e-12, "{report}");
    assert!((excess("mean") - (home + far) / 2.0).abs() < 1e-12, "{report}");
}

#[test]
fn what_is_lost_at_home_and_abroad_is_said_by_every_command() {
    let folder = with_texts();
    let texts = ["--text", "home-judge.txt,far-judge.txt", "--windows", "3", "--context", "16"];
    let measured = ["--calibration", "home-calibration.txt", "--samples", "6"];
    let commands: [(&str, &[&str]); 3] = [
        ("prune", &["--method", "wanda", "--sparsity", "0.5"]),
        ("quantize", &["--bits", "3", "--group", "row"]),
        ("shrink", &["--intermediate", "8"]),
    ];
    for (command, own) in commands {
        let out = format!("{command}d");
        let args = [&[command, "tiny", &out], own, &measured, &texts].concat();
        let printed = folder.succeeds(&args);
        assert!(["mean at home", "mean abroad", "far-judge.txt"].iter().all(|part| printed.contains(part)), "{printed}");
        let page = fs::read_to_string(folder.path(&format!("{out}/{command}.html"))).unwrap();
        assert!(["mean at home", "What was lost on each text", "of other kinds"].iter().all(|part| page.contains(part)));
        let json = format!("{command}j");
        let report = folder.json(&[&[command, "tiny", &json, "--json"], own, &measured, &texts].concat());
        check(&report);
        // The same numbers afterwards, by the folder's record.
        let eval = folder.json(&[&["eval", &json, "--against", "tiny", "--json", "--format", "dense"], &texts[..]].concat());
        check(&eval);
        assert_eq!(eval["calibration"], "home-calibration.txt");
        for n in 0..2 {
            let number = |report: &Value| report["texts"][n]["excess"].as_f64().unwrap();
            assert!((number(&eval) - number(&report)).abs() < 1e-4, "{command}: {eval}");
        }
    }
    let page = ["eval", "pruned", "--against", "tiny", "--page", "lost.html"];
    let printed = folder.succeeds(&[&page, &texts[..]].concat());
    assert!(printed.contains("mean abroad"), "{printed}");
    assert!(fs::read_to_string(folder.path("lost.html")).unwrap().contains("What was lost on each text"));
    let line = folder.refuses(&[&page, &texts[..]].concat());
    assert!(line.contains("lost.html"), "{line}");
    let line = folder.refuses(&["eval", "pruned", "--text", "home-judge.txt", "--page", "x.html"]);
    assert!(line.contains("--against"), "{line}");
}

#[test]
fn calibration_is_selected_and_generalised_by_options() {
    let folder = with_texts();
    let base = ["prune", "tiny", "--method", "sparsegpt", "--sparsity", "0.5", "--samples", "6", "--context", "8"];
    let run = |out: &str, more: &[&str]| {
        let mut args = base.to_vec();
        args.insert(2, out);
        // A selection says on stderr what it took.
        assert!(folder.run(&[&args[..], more].concat()).status.success(), "{more:?}");
        fs::read(folder.path(&format!("{out}/model.safetensors"))).unwrap()
    };
    let one = ["--calibration", "home-calibration.txt"];
    let two = ["--calibration", "home-calibration.txt:0.5,far-judge.txt:0.5"];
    let plain = run("plain", &one);
    assert!(plain != run("random", &[&one[..], &["--select", "random"]].concat()));
    assert!(plain != run("clusters", &[&one[..], &["--select", "clusters"]].concat()));
    assert!(plain == run("unshrunk", &[&one[..], &["--shrinkage", "0"]].concat()));
    assert!(plain != run("shrunk", &[&one[..], &["--shrinkage", "0.3"]].concat()));
    let mixed = run("mixed", &two);
    assert!(mixed != run("robust", &[&two[..], &["--robust"]].concat()));
    run("chosen", &[&two[..], &["--correct", "1,1", "--choose", "correct,shrinkage,damping"]].concat());
    let refused = |more: &[&str]| {
        let mut args = base.to_vec();
        args.insert(2, "z");
        folder.refuses(&[&args[..], more].concat())
    };
    assert!(refused(&[&one[..], &["--select", "cluster"]].concat()).contains("clusters"));
    assert!(refused(&[&one[..], &["--select", "perplexity:1-0"]].concat()).contains("perplexity:0.25-0.75"));
    assert!(refused(&[&two[..], &["--choose", "dampin"]].concat()).contains("damping"));
    assert!(refused(&[&two[..], &["--hold-out", "near.txt", "--choose", "damping"]].concat()).contains("near.txt"));
    assert!(!folder.path("z").exists());
}
