//! The papers' claims: what is committed follows from its numbers, and what holds at full size is seen at a small one.

use lacuna::paper::{ClaimRule, Claims, Excuses, Figures, Options, Run, Study, excuses, filled};
use lacuna::report::{Table, replace_between};
use lacuna::rng::Seed;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../papers/calibration_data/main.rs"]
mod calibration_data;
#[path = "../papers/distilling_knowledge/main.rs"]
mod distilling_knowledge;
#[path = "../papers/language_model_pruning/main.rs"]
mod language_model_pruning;
#[path = "../papers/minitron/main.rs"]
mod minitron;
#[path = "../papers/post_training_quantization/main.rs"]
mod post_training_quantization;
#[path = "../papers/quantization_aware_training/main.rs"]
mod quantization_aware_training;
#[path = "../papers/learning_weights_and_connections/main.rs"]
mod learning_weights_and_connections;
#[path = "../papers/lottery_ticket/main.rs"]
mod lottery_ticket;
#[path = "../papers/model_compression/main.rs"]
mod model_compression;
#[path = "../papers/movement_pruning/main.rs"]
mod movement_pruning;
#[path = "../papers/optimal_brain_damage/main.rs"]
mod optimal_brain_damage;
#[path = "../papers/optimal_brain_surgeon/main.rs"]
mod optimal_brain_surgeon;
#[path = "../papers/structured_pruning/main.rs"]
mod structured_pruning;
#[path = "../papers/pruning_at_initialization/main.rs"]
mod pruning_at_initialization;
#[path = "../papers/rigging_the_lottery/main.rs"]
mod rigging_the_lottery;
#[path = "../papers/state_of_sparsity/main.rs"]
mod state_of_sparsity;
#[path = "../papers/to_prune_or_not/main.rs"]
mod to_prune_or_not;
#[path = "../papers/weight_discretization/main.rs"]
mod weight_discretization;
#[path = "../papers/woodfisher/main.rs"]
mod woodfisher;

/// A paper's folder, what runs it, and what draws its figures.
type Paper = (&'static str, fn(&Options) -> lacuna::Result<Study>, fn(&Study) -> lacuna::Result<Figures>);

const PAPERS: [Paper; 14] = [
    ("distilling_knowledge", distilling_knowledge::run, distilling_knowledge::draw),
    ("learning_weights_and_connections", learning_weights_and_connections::run, learning_weights_and_connections::draw),
    ("lottery_ticket", lottery_ticket::run, lottery_ticket::draw),
    ("model_compression", model_compression::run, model_compression::draw),
    ("movement_pruning", movement_pruning::run, movement_pruning::draw),
    ("optimal_brain_damage", optimal_brain_damage::run, optimal_brain_damage::draw),
    ("optimal_brain_surgeon", optimal_brain_surgeon::run, optimal_brain_surgeon::draw),
    ("pruning_at_initialization", pruning_at_initialization::run, pruning_at_initialization::draw),
    ("rigging_the_lottery", rigging_the_lottery::run, rigging_the_lottery::draw),
    ("state_of_sparsity", state_of_sparsity::run, state_of_sparsity::draw),
    ("structured_pruning", structured_pruning::run, structured_pruning::draw),
    ("to_prune_or_not", to_prune_or_not::run, to_prune_or_not::draw),
    ("weight_discretization", weight_discretization::run, weight_discretization::draw),
    ("woodfisher", woodfisher::run, woodfisher::draw),
];

/// Those whose full run has left no numbers yet: they are held to their claims at quick scale alone.
const QUICK_ALONE: [Paper; 5] = [
    ("calibration_data", calibration_data::run, calibration_data::draw),
    ("language_model_pruning", language_model_pruning::run, language_model_pruning::draw),
    ("minitron", minitron::run, minitron::draw),
    ("post_training_quantization", post_training_quantization::run, post_training_quantization::draw),
    ("quantization_aware_training", quantization_aware_training::run, quantization_aware_training::draw),
];

fn folder(slug: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("papers").join(slug)
}

fn read(slug: &str, file: &str) -> String {
    let path = folder(slug).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_readme_lists_every_paper_and_says_which_full_runs_are_to_come() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for (slug, ..) in PAPERS.into_iter().chain(QUICK_ALONE) {
        let (link, example) = (format!("](papers/{slug})"), format!("| `{slug}` |"));
        let rows: Vec<&str> = text.lines().filter(|l| l.contains(&link) && l.contains(&example)).collect();
        assert_eq!(rows.len(), 1, "{slug} has a row in README's table");
        let to_come = QUICK_ALONE.iter().any(|(other, ..)| *other == slug);
        assert_eq!(rows[0].contains("full run to come"), to_come, "{}", rows[0]);
    }
}

#[test]
fn every_readme_is_what_its_results_and_its_excuses_make_of_it() {
    for (slug, ..) in PAPERS {
        let (results, readme) = (read(slug, "results.csv"), read(slug, "README.md"));
        let block = Claims::block(&results).unwrap_or_else(|e| panic!("{slug}: {e}"));
        let excuses = excuses(&folder(slug)).unwrap();
        assert_eq!(
            filled(&readme, &block, &excuses).unwrap(),
            readme,
            "{slug}: run the program, do not edit the table or the list"
        );
        let claims = Claims::from_csv(&results).unwrap();
        excuses.check(Run::Full, &claims).unwrap_or_else(|e| panic!("{slug}/excuses.csv: {e}"));
        for claim in claims.all() {
            let seeds: Vec<u64> = claim.values.iter().map(|(seed, _)| seed.0).collect();
            let one_teacher = slug == "distilling_knowledge" && claim.what.starts_with("teacher");
            let distinct = seeds.iter().collect::<std::collections::BTreeSet<_>>().len();
            assert!(distinct >= if one_teacher { 1 } else { 3 }, "{slug}: '{}' has the seeds {seeds:?}", claim.what);
        }
        let figures: Vec<String> = files(slug, "svg");
        assert!(!figures.is_empty(), "{slug} has no figure");
        figures.iter().for_each(|f| assert!(readme.contains(f.as_str()), "{slug}: {f} is not shown in the README"));
        assert!(readme.contains(&format!("cargo run --release --example {slug}")), "{slug}: the command");
        let lines = read(slug, "main.rs").lines().count();
        assert!((60..=160).contains(&lines), "{slug}: main.rs has {lines} lines");
    }
}

#[test]
fn every_figure_is_what_its_tables_make_of_it() {
    for (slug, _, draw) in PAPERS {
        let study = Study::read(&folder(slug)).unwrap();
        let mut drawn = draw(&study).unwrap_or_else(|e| panic!("{slug}: {e}"));
        let mut lying = files(slug, "svg");
        drawn.sort();
        lying.sort();
        assert_eq!(drawn.iter().map(|(name, _)| format!("{name}.svg")).collect::<Vec<_>>(), lying, "{slug}");
        for (name, svg) in drawn {
            assert!(
                svg == read(slug, &format!("{name}.svg")),
                "{slug}: {name}.svg is another one: run the program with --redraw"
            );
        }
    }
}

#[test]
fn an_excuse_ends_with_the_claim_that_it_excuses() {
    for (slug, ..) in PAPERS {
        let claims = Claims::from_csv(&read(slug, "results.csv")).unwrap();
        let all = excuses(&folder(slug)).unwrap();
        // The file with one claim more excused, or less.
        let with = |change: &dyn Fn(&mut Vec<[String; 4]>)| {
            let row = |e: &lacuna::paper::Excuse| [e.run.to_string(), e.claim.clone(), e.setting.clone(), e.reason.clone()];
            let mut rows = all.all().iter().map(row).collect();
            change(&mut rows);
            let mut table = Table::new(["run", "claim", "our setting", "reason"]);
            for row in rows {
                table.row(row);
            }
            Excuses::from_csv(&table.to_csv()).unwrap().check(Run::Full, &claims)
        };
        assert!(with(&|_| ()).is_ok(), "{slug}");
        for claim in claims.all() {
            let same = |row: &[String; 4]| (row[0].as_str(), &row[1], &row[2]) == ("full", &claim.what, &claim.setting);
            let error = if claim.holds().unwrap() {
                with(&|rows| rows.push(["full", &claim.what, &claim.setting, "bad luck"].map(String::from)))
                    .unwrap_err()
                    .to_string()
            } else {
                with(&|rows| rows.retain(|row| !same(row))).unwrap_err().to_string()
            };
            let says = if claim.holds().unwrap() { "holds: remove its excuse" } else { "does not hold" };
            assert!(error.contains(&claim.what) && error.contains(says), "{slug}: {error}");
        }
        let error = with(&|rows| rows.push(["full", "no claim", "nowhere", "none"].map(String::from))).unwrap_err().to_string();
        assert!(error.contains("'no claim' on nowhere is excused and no claim"), "{slug}: {error}");
    }
}

#[test]
fn excuses_without_a_reason_twice_or_of_no_run_are_refused() {
    let error = |rows: &str| Excuses::from_csv(&format!("run,claim,our setting,reason\n{rows}")).unwrap_err().to_string();
    assert!(error("full,a,b,\n").contains("row 1: no reason why 'a' does not hold"));
    assert!(error("full,a,b,c\nfull,a,b,d\n").contains("row 2: 'a' on b is excused before"));
    assert!(error("slow,a,b,c\n").contains("'slow' is neither quick nor full"));
    assert!(Excuses::from_csv("claim,reason\na,b\n").unwrap_err().to_string().contains("the columns are not run, claim"));
    assert_eq!(Excuses::from_csv("run,claim,our setting,reason\nfull,a,b,c\nquick,a,b,c\n").unwrap().all().len(), 2);
}

fn files(slug: &str, extension: &str) -> Vec<String> {
    let names = fs::read_dir(folder(slug)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(&format!(".{extension}"))).collect()
}

#[test]
fn a_number_changed_by_hand_is_found_out() {
    for (slug, ..) in PAPERS {
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

/// Runs quickly, and holds the claims and `excuses.csv` to one another, both ways. Then writes and reads back what a run leaves.
fn holds(slug: &str) {
    let (_, run, draw) = PAPERS.into_iter().chain(QUICK_ALONE).find(|(s, ..)| *s == slug).unwrap();
    let study = run(&Options::quick()).unwrap();
    excuses(&folder(slug)).unwrap().check(Run::Quick, &study.claims).unwrap_or_else(|e| panic!("{e}"));
    let out = tempfile::tempdir().unwrap();
    let figures = draw(&study).unwrap();
    study.write(out.path(), &figures).unwrap();
    let results = fs::read_to_string(out.path().join("results.csv")).unwrap();
    let again = Study::read(out.path()).unwrap();
    assert_eq!(again.claims, study.claims);
    assert_eq!(draw(&again).unwrap(), figures, "drawn from the files and drawn from the run");
    assert_eq!(fs::read_to_string(out.path().join("claims.md")).unwrap(), Claims::block(&results).unwrap());
}

#[test]
fn optimal_brain_damage_holds_at_quick_scale() {
    holds("optimal_brain_damage");
}

#[test]
fn optimal_brain_surgeon_holds_at_quick_scale() {
    holds("optimal_brain_surgeon");
}

#[test]
fn language_model_pruning_holds_at_quick_scale() {
    holds("language_model_pruning");
}

#[test]
fn calibration_data_holds_at_quick_scale() {
    holds("calibration_data");
}

#[test]
fn minitron_holds_at_quick_scale() {
    holds("minitron");
}

#[test]
fn post_training_quantization_holds_at_quick_scale() {
    holds("post_training_quantization");
}

#[test]
fn quantization_aware_training_holds_at_quick_scale() {
    holds("quantization_aware_training");
}

#[test]
fn woodfisher_holds_at_quick_scale() {
    holds("woodfisher");
}

#[test]
fn weight_discretization_holds_at_quick_scale() {
    holds("weight_discretization");
}

#[test]
fn structured_pruning_holds_at_quick_scale() {
    holds("structured_pruning");
}

#[test]
fn model_compression_holds_at_quick_scale() {
    holds("model_compression");
}

#[test]
fn distilling_knowledge_holds_at_quick_scale() {
    holds("distilling_knowledge");
}

#[test]
fn lottery_ticket_holds_at_quick_scale() {
    holds("lottery_ticket");
}

#[test]
fn learning_weights_and_connections_holds_at_quick_scale() {
    holds("learning_weights_and_connections");
}

#[test]
fn pruning_at_initialization_holds_at_quick_scale() {
    holds("pruning_at_initialization");
}

#[test]
fn rigging_the_lottery_holds_at_quick_scale() {
    holds("rigging_the_lottery");
}

#[test]
fn to_prune_or_not_holds_at_quick_scale() {
    holds("to_prune_or_not");
}

#[test]
fn movement_pruning_holds_at_quick_scale() {
    holds("movement_pruning");
}

#[test]
fn state_of_sparsity_holds_at_quick_scale() {
    holds("state_of_sparsity");
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let parse = |text: &str| Options::parse(text.split(' ').map(String::from)).map(Option::unwrap_or_default);
    let options = parse("--quick --seeds=7,8 --out a=b").unwrap();
    assert_eq!((options.quick, options.seeds()), (true, &[Seed(7), Seed(8)][..]));
    assert_eq!(options.out, Some(PathBuf::from("a=b")));
    assert!(parse("--redraw --out x").unwrap().redraw);
    let rows = |text: &str| parse(text).unwrap().verify;
    assert_eq!(
        (rows("--quick"), rows("--verify --quick"), rows("--verify 2 --quick")),
        (None, Some(vec![]), Some(vec!["2".into()]))
    );
    assert_eq!(rows("--verify=a --verify b"), Some(vec!["a".to_string(), "b".to_string()]));
    let one = parse("--verify 2 --seed 4").unwrap();
    assert_eq!(one.seeds, Some(vec![Seed(4)]));
    // None are chosen: those of the rows that are verified, or else the usual ones.
    let none = parse("--quick").unwrap();
    assert_eq!((&none.seeds, none.seeds()), (&None, &[Seed(0), Seed(1), Seed(2)][..]));
    let verified = Options { of_rows: Some(vec![Seed(9)]), ..none };
    assert_eq!((verified.seeds(), Options { of_rows: Some(vec![Seed(9)]), ..one }.seeds()), (&[Seed(9)][..], &[Seed(4)][..]));
    for (text, says) in [
        ("--model a", "--model: goes with --text FILE and without --quick"),
        ("--quick=false", "--quick: takes no value, and 'false' was given"),
        ("--redraw=no", "--redraw: takes no value, and 'no' was given"),
        ("--redraw --seeds 1,2", "--redraw: runs nothing, so there is no seed to give it"),
        ("--seeds", "--seeds: needs a value"),
        ("--seeds 1,1", "--seeds: '1,1' names a seed twice"),
        ("--seeds 18446744073709551615", "--seeds: '18446744073709551615' holds a seed above 18446744073709550"),
        ("--sed 1", "--sed: unknown; there are --quick"),
        ("--seed 1,2", "--seed: '1,2' is more than one seed"),
        ("--verify --redraw", "--verify: runs again, compares and writes nothing, and --redraw writes files"),
        ("--verify --held-out", "--verify: runs again, compares and writes nothing, and --held-out is judged on other samples"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(says), "{text}: {error}");
    }
}

#[test]
fn rules_read_back_as_they_are_written_and_judge_means_and_every_value() {
    for text in ["mean <= 14", "every >= -0.5", "mean < 1", "every > 0", "every in 0.5 .. 1.5"] {
        assert_eq!(text.parse::<ClaimRule>().unwrap().to_string(), text);
    }
    let judge = |rule: &str, values: &[f64]| rule.parse::<ClaimRule>().unwrap().holds(values).unwrap();
    assert!(judge("mean <= 2", &[1.0, 3.0]) && !judge("every <= 2", &[1.0, 3.0]));
    assert!(judge("every in 0 .. 1", &[0.0, 1.0]) && !judge("mean < 1", &[1.0]) && !judge("mean > 1", &[1.0]));
    for bad in ["", "mean", "mean <=", "some <= 1", "mean <= x", "every in 2 .. 1", "mean <= inf"] {
        assert!(bad.parse::<ClaimRule>().is_err(), "{bad}");
    }
    assert!("mean < 1".parse::<ClaimRule>().unwrap().holds(&[f64::NAN]).is_err());
}
