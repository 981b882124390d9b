//! The papers' claims: what is committed follows from its numbers, and what holds at full size is seen at a small one.
#![cfg(feature = "plots")]

use lacuna::io::Monk;
use lacuna::paper::{Claims, Options, Rule, Study};
use lacuna::report::{Table, replace_between};
use lacuna::rng::Seed;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../papers/distilling_knowledge/main.rs"]
mod distilling_knowledge;
#[path = "../papers/model_compression/main.rs"]
mod model_compression;
#[path = "../papers/optimal_brain_damage/main.rs"]
mod optimal_brain_damage;
#[path = "../papers/optimal_brain_surgeon/main.rs"]
mod optimal_brain_surgeon;
#[path = "../papers/weight_discretization/main.rs"]
mod weight_discretization;
#[path = "../papers/woodfisher/main.rs"]
mod woodfisher;

const SLUGS: [&str; 6] = [
    "distilling_knowledge",
    "model_compression",
    "optimal_brain_damage",
    "optimal_brain_surgeon",
    "weight_discretization",
    "woodfisher",
];

fn folder(slug: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("papers").join(slug)
}

fn read(slug: &str, file: &str) -> String {
    let path = folder(slug).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_readme_is_what_its_results_make_of_it() {
    for slug in SLUGS {
        let (results, readme) = (read(slug, "results.csv"), read(slug, "README.md"));
        let block = Claims::block(&results).unwrap_or_else(|e| panic!("{slug}: {e}"));
        assert_eq!(replace_between(&readme, "claims", &block).unwrap(), readme, "{slug}: run the program, do not edit the table");
        let claims = Claims::from_csv(&results).unwrap();
        for claim in claims.all() {
            let seeds: Vec<u64> = claim.values.iter().map(|(seed, _)| seed.0).collect();
            let one_teacher = slug == "distilling_knowledge" && claim.what.starts_with("teacher");
            let distinct = seeds.iter().collect::<std::collections::BTreeSet<_>>().len();
            assert!(distinct >= if one_teacher { 1 } else { 3 }, "{slug}: '{}' has the seeds {seeds:?}", claim.what);
            // What does not hold must be spoken of beside the table.
            assert!(claim.holds().unwrap() || readme.contains("## What does not hold"), "{slug}: '{}'", claim.what);
        }
        let figures: Vec<String> = files(slug, "svg");
        assert!(!figures.is_empty(), "{slug} has no figure");
        figures.iter().for_each(|f| assert!(readme.contains(f.as_str()), "{slug}: {f} is not shown in the README"));
        files(slug, "csv").iter().for_each(|f| assert!(Table::from_csv(&read(slug, f)).is_ok(), "{slug}: {f}"));
        assert!(readme.contains(&format!("cargo run --release --example {slug}")), "{slug}: the command");
        let lines = read(slug, "main.rs").lines().count();
        assert!((60..=150).contains(&lines), "{slug}: main.rs has {lines} lines");
    }
}

fn files(slug: &str, extension: &str) -> Vec<String> {
    let names = fs::read_dir(folder(slug)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(&format!(".{extension}"))).collect()
}

#[test]
fn a_number_changed_by_hand_is_found_out() {
    for slug in SLUGS {
        let (results, readme) = (read(slug, "results.csv"), read(slug, "README.md"));
        let table = Table::from_csv(&results).unwrap();
        for (row, cells) in table.rows().iter().enumerate() {
            let columns: Vec<usize> = (0..cells.len()).filter(|c| [4, 7, 8].contains(c)).collect();
            for column in columns {
                let old = cells[column].exact();
                let new = match column {
                    4 => "mean >= -1000000".to_string(),
                    7 => format!("{:?}", old.parse::<f64>().unwrap() + 1e-3),
                    _ => if old == "yes" { "no" } else { "yes" }.to_string(),
                };
                let mut changed = Table::new(table.columns().to_vec());
                for (r, cells) in table.rows().iter().enumerate() {
                    let mut cells = cells.clone();
                    if r == row {
                        cells[column] = new.as_str().into();
                    }
                    changed.row(cells);
                }
                let kept =
                    Claims::block(&changed.to_csv()).is_ok_and(|b| replace_between(&readme, "claims", &b).unwrap() == readme);
                assert!(!kept, "{slug}: row {row}, '{old}' changed to '{new}' was not seen");
            }
        }
    }
}

/// Runs quickly and holds every claim to its rule but those that are excused, by parts of what is claimed and of its setting: on some
/// machines, whose instructions round otherwise, they hold. Then writes and reads back what a run leaves.
fn holds(run: fn(&Options) -> lacuna::Result<Study>, excused: &[(&str, &str)]) {
    let study = run(&Options::quick()).unwrap();
    let mut wrong = Vec::new();
    let mut used = vec![false; excused.len()];
    for claim in study.claims.all() {
        let excuse = excused.iter().position(|(what, setting)| claim.what.contains(what) && claim.setting.contains(setting));
        excuse.into_iter().for_each(|e| used[e] = true);
        if !claim.holds().unwrap() && excuse.is_none() {
            wrong.push(format!("'{}' on {}: {:?} against '{}'", claim.what, claim.setting, claim.values, claim.rule));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    excused.iter().zip(used).for_each(|(e, used)| assert!(used, "{e:?} excuses nothing"));
    let out = tempfile::tempdir().unwrap();
    study.write(out.path()).unwrap();
    let results = fs::read_to_string(out.path().join("results.csv")).unwrap();
    assert_eq!(Claims::from_csv(&results).unwrap(), study.claims);
    assert_eq!(fs::read_to_string(out.path().join("claims.md")).unwrap(), Claims::block(&results).unwrap());
}

#[test]
fn optimal_brain_damage_holds_at_quick_scale() {
    // More training alone helps the dense network too: see the README.
    holds(optimal_brain_damage::run, &[("against the dense network trained on as long", "")]);
}

#[test]
fn optimal_brain_surgeon_holds_at_quick_scale() {
    // The rules are the paper's, for its training samples: from the UCI files every claim holds. From drawn samples, which are there
    // where those files are not, these do not.
    let excused = [
        // One of three samples and six starts leave a network in a minimum that is not the best: 97.6 % and 91.7 %. Cut down by OBS and
        // retrained it leaves that minimum: 100 %.
        (Monk::One, "dense: training accuracy", "MONK 1"),
        (Monk::One, "dense: test accuracy", "MONK 1"),
        // Six labels are wrong, and which they are is drawn: 97.0 to 97.2 %, and up to 7 weights for one of the samples.
        (Monk::Three, "dense: test accuracy", "MONK 3"),
        (Monk::Three, "OBS at the same training accuracy: weights left", "MONK 3"),
    ];
    let drawn = |monk: &Monk| !monk.load(Seed(0)).unwrap().from_files;
    let excused: Vec<(&str, &str)> =
        excused.iter().filter(|(m, ..)| drawn(m)).map(|(_, what, setting)| (*what, *setting)).collect();
    holds(optimal_brain_surgeon::run, &excused);
}

#[test]
fn woodfisher_holds_at_quick_scale() {
    holds(woodfisher::run, &[]);
}

#[test]
fn weight_discretization_holds_at_quick_scale() {
    holds(weight_discretization::run, &[]);
}

#[test]
fn model_compression_holds_at_quick_scale() {
    holds(model_compression::run, &[]);
}

#[test]
fn distilling_knowledge_holds_at_quick_scale() {
    // On 300 digits of 64 pixels, with ten units a layer for the paper's thirty, the best temperature is lower than on MNIST: τ = 1 is a
    // few per cent ahead of 2.5, and these of 10 and 20 by far.
    holds(distilling_knowledge::run, &[("errors at τ = 1 over those at 2.5 and 4", "2 × 10 units")]);
}

#[test]
fn rules_read_back_as_they_are_written_and_judge_means_and_every_value() {
    for text in ["mean <= 14", "every >= -0.5", "mean < 1", "every > 0", "every in 0.5 .. 1.5"] {
        assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
    }
    let judge = |rule: &str, values: &[f64]| rule.parse::<Rule>().unwrap().holds(values).unwrap();
    assert!(judge("mean <= 2", &[1.0, 3.0]) && !judge("every <= 2", &[1.0, 3.0]));
    assert!(judge("every in 0 .. 1", &[0.0, 1.0]) && !judge("mean < 1", &[1.0]) && !judge("mean > 1", &[1.0]));
    for bad in ["", "mean", "mean <=", "some <= 1", "mean <= x", "every in 2 .. 1", "mean <= inf"] {
        assert!(bad.parse::<Rule>().is_err(), "{bad}");
    }
    assert!("mean < 1".parse::<Rule>().unwrap().holds(&[f64::NAN]).is_err());
}
