//! `--verify`: rows of a paper's table run again, on a made-up program and on the quick run of a real one.

use lacuna::paper::{Figures, Options, Study, Verification, main_of, verify};
use lacuna::rng::Seed;
use lacuna::{Error, Result};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

#[path = "../papers/woodfisher/main.rs"]
mod woodfisher;

/// What a made-up program finds: two rows, of which the second has two numbers a seed.
fn program(options: &Options, accuracy: impl Fn(Seed) -> f64, gap: impl Fn(Seed, usize) -> f64) -> Result<Study> {
    let mut study = Study::default();
    let c = study.claims.setting("large", options.pick("tiny", "small"));
    c.add("accuracy, %", "99", "mean > 90", 1)?.extend(options.seeds().iter().map(|&s| (s, accuracy(s))));
    let gaps = options.seeds().iter().flat_map(|&s| [0, 1].map(|k| (s, gap(s, k)))).collect::<Vec<_>>();
    c.add("gap", "above 0", "every > 0", 2)?.extend(gaps);
    Ok(study)
}

fn accuracy(seed: Seed) -> f64 {
    [95.0, 95.4, 96.1][seed.0 as usize]
}

fn gap(seed: Seed, k: usize) -> f64 {
    [[1.0, 20.0], [1.2, 23.0], [1.1, 24.0]][seed.0 as usize][k]
}

fn as_it_was(options: &Options) -> Result<Study> {
    program(options, accuracy, gap)
}

fn no_figures(_: &Study) -> Result<Figures> {
    Ok(Vec::new())
}

/// A folder with what the program found with seeds 0, 1 and 2.
fn committed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    as_it_was(&Options::default()).unwrap().write(folder.path(), &Vec::new()).unwrap();
    folder
}

fn words(folder: &Path, more: &[&str]) -> Vec<String> {
    let out = ["--out", folder.to_str().unwrap()];
    more.iter().chain(&out).map(|w| w.to_string()).collect()
}

fn verified(folder: &Path, more: &[&str], run: impl FnOnce(&Options) -> Result<Study>) -> Result<Verification> {
    verify("made_up", &Options::parse(words(folder, more))?.unwrap(), run)
}

fn code(folder: &Path, more: &[&str], run: impl FnOnce(&Options) -> Result<Study>) -> ExitCode {
    main_of(words(folder, more), "made_up", run, no_figures)
}

#[test]
fn a_program_that_is_as_it_was_has_the_same_bits_and_ends_with_0() {
    let folder = committed();
    let found = verified(folder.path(), &["--verify"], as_it_was).unwrap();
    assert!(found.within() && found.claims.len() == 2);
    assert!(found.claims.iter().flat_map(|c| &c.numbers).all(|n| n.same_bits()));
    let text = found.to_string();
    assert!(text.contains("run whole, with the seeds 0, 1, 2"), "{text}");
    let counts = "Of 9 numbers 9 have the same bits, 0 others lie within their tolerance, 0 outside it, 0 were not reproduced.";
    assert!(text.contains(counts) && !text.contains("is another than the file's"), "{text}");
    assert!(text.ends_with("Verified: every row that was compared.\n"), "{text}");
    assert_eq!(code(folder.path(), &["--verify"], as_it_was), ExitCode::SUCCESS);
}

#[test]
fn a_row_is_named_by_its_claim_or_its_number_and_others_are_not_compared() {
    let folder = committed();
    let wrong = |options: &Options| program(options, accuracy, |s, k| -gap(s, k));
    for row in
        [&["--verify", "accuracy, %"][..], &["--verify", "1"], &["--verify=1"], &["--verify", "1", "--verify", "accuracy, %"]]
    {
        let found = verified(folder.path(), row, wrong).unwrap();
        assert_eq!((found.claims.len(), found.claims[0].number, found.claims[0].claim.what.as_str()), (1, 1, "accuracy, %"));
        assert!(found.within() && code(folder.path(), row, wrong) == ExitCode::SUCCESS);
    }
    assert!(!verified(folder.path(), &["--verify", "gap"], wrong).unwrap().within());
    for row in ["--verify=2", "--verify"] {
        assert_eq!(code(folder.path(), &[row], wrong), ExitCode::from(1), "{row}");
    }
    let text = verified(folder.path(), &["--verify"], wrong).unwrap().to_string();
    assert!(text.contains("OUTSIDE") && text.ends_with("Not verified: row 2.\n"), "{text}");
    assert!(text.contains("'every > 0' does not hold, and in the file it holds"), "{text}");
}

#[test]
fn a_number_may_move_as_far_as_seeds_move_it_and_the_rule_must_say_the_same() {
    let folder = committed();
    let shifted = |by: f64| move |options: &Options| program(options, |s| accuracy(s) + by, gap);
    // 95, 95.4 and 96.1 have the mean 95.5 and the deviation √0.31; with 94.8 for 95 it is larger, and with 95.2 smaller: 95.2, 95.4 and 96.1
    // have the mean 95.567 and the deviation √0.2233. The t of 2 degrees for 95 % is 4.3027.
    let tolerance = |found: &Verification| found.claims[0].numbers[0].tolerance.unwrap();
    let found = verified(folder.path(), &["--verify", "1"], shifted(-0.2)).unwrap();
    assert!((tolerance(&found) - 4.3027 * (2.0 * 0.31f64).sqrt()).abs() < 1e-3, "{found}");
    let found = verified(folder.path(), &["--verify", "1"], shifted(0.2)).unwrap();
    assert!((tolerance(&found) - 4.3027 * (2.0 * 0.223_333f64).sqrt()).abs() < 1e-3, "{found}");
    assert!(found.within() && !found.claims[0].numbers[0].same_bits(), "{found}");
    let text = found.to_string();
    assert!(
        text.contains("Of 3 numbers 0 have the same bits, 3 others lie within") && text.contains("is another than the file's"),
        "{text}"
    );
    assert_eq!(code(folder.path(), &["--verify", "1"], shifted(0.2)), ExitCode::SUCCESS);
    // 4 points more, seven deviations, are too far for three seeds, though the rule holds; what is near and on the other side of the rule's bound is not the same either.
    let far = verified(folder.path(), &["--verify", "1"], shifted(4.0)).unwrap();
    assert!(far.claims[0].holds && !far.within() && far.claims[0].numbers.iter().all(|n| !n.within()));
    let slight = |options: &Options| program(options, accuracy, |s, k| if (s.0, k) == (0, 0) { -0.01 } else { gap(s, k) });
    let found = verified(folder.path(), &["--verify", "2"], slight).unwrap();
    assert!(!found.claims[0].holds && !found.within(), "{found}");
}

#[test]
fn one_number_changed_by_hand_in_the_file_or_gone_wrong_in_the_run_does_not_make_room_for_itself() {
    let folder = committed();
    let off = |options: &Options| program(options, |s| accuracy(s) + if s.0 == 1 { 9.0 } else { 0.0 }, gap);
    let outside =
        |found: &Verification| -> Vec<u64> { found.claims[0].numbers.iter().filter(|n| !n.within()).map(|n| n.seed.0).collect() };
    let found = verified(folder.path(), &["--verify", "1"], off).unwrap();
    assert_eq!(outside(&found), [1], "{found}");

    let path = folder.path().join("results.csv");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(",95.4,", ",104.4,")).unwrap();
    let found = verified(folder.path(), &["--verify", "1"], as_it_was).unwrap();
    assert_eq!(outside(&found), [1], "{found}");
    assert_eq!(code(folder.path(), &["--verify", "1"], as_it_was), ExitCode::from(1));
    // Another seed alone has the bits that it had; this one alone has not, and is outside too.
    let alone = |seed: &str| verified(folder.path(), &["--verify", "1", "--seed", seed], as_it_was).unwrap();
    assert!(alone("2").claims[0].numbers[0].same_bits());
    assert_eq!(outside(&alone("1")), [1]);
}

#[test]
fn seeds_that_agree_leave_one_unit_of_the_last_digit_shown() {
    let folder = tempfile::tempdir().unwrap();
    let all = |value: f64| move |options: &Options| program(options, move |_| value, gap);
    all(100.0)(&Options::default()).unwrap().write(folder.path(), &Vec::new()).unwrap();
    let within = |value: f64| verified(folder.path(), &["--verify", "1"], all(value)).unwrap();
    assert_eq!(within(100.0).claims[0].numbers[0].tolerance, Some(0.1));
    assert!(within(99.95).within() && !within(99.85).within());
}

#[test]
fn a_seed_that_gives_no_number_today_is_not_reproduced() {
    let folder = committed();
    // Of seed 1 there is nothing; or only the first of two; or what is no number.
    let without = |options: &Options| program(&Options { seeds: Some(vec![Seed(0), Seed(2)]), ..options.clone() }, accuracy, gap);
    let found = verified(folder.path(), &["--verify"], without).unwrap();
    for claim in &found.claims {
        assert!(!claim.within() && claim.numbers.iter().filter(|n| !n.reproduced()).all(|n| n.seed == Seed(1)), "{found}");
        assert!(claim.numbers.iter().filter(|n| n.seed != Seed(1)).all(|n| n.same_bits()), "{found}");
    }
    let text = found.to_string();
    assert!(
        text.contains("NOT REPRODUCED") && text.contains("not reproduced: the run gives no finite number for seed 1"),
        "{text}"
    );
    assert!(
        text.contains(
            "Of 9 numbers 6 have the same bits, 0 others lie within their tolerance, 0 outside it, 3 were not reproduced."
        ),
        "{text}"
    );
    assert!(text.ends_with("Not verified: rows 1, 2.\n"), "{text}");
    assert_eq!(code(folder.path(), &["--verify"], without), ExitCode::from(1));
    // Alone as well, and where the row is there with no number at all.
    let none = |options: &Options| program(&Options { seeds: Some(vec![]), ..options.clone() }, accuracy, gap);
    for row in [&["--verify", "1", "--seed", "1"][..], &["--verify"]] {
        let found = verified(folder.path(), row, none).unwrap();
        assert!(!found.within() && found.claims.iter().flat_map(|c| &c.numbers).all(|n| !n.reproduced()), "{found}");
    }
    let nan = |options: &Options| program(options, |s| if s.0 == 2 { f64::NAN } else { accuracy(s) }, gap);
    let found = verified(folder.path(), &["--verify", "1"], nan).unwrap();
    assert!(found.to_string().contains("no finite number for seed 2") && !found.within(), "{found}");
    let half = |options: &Options| {
        let mut study = Study::default();
        let c = study.claims.setting("large", "small");
        c.add("accuracy, %", "99", "mean > 90", 1)?.extend(options.seeds().iter().map(|&s| (s, accuracy(s))));
        c.add("gap", "above 0", "every > 0", 2)?.extend(options.seeds().iter().map(|&s| (s, gap(s, 0))));
        Ok(study)
    };
    let found = verified(folder.path(), &["--verify", "2"], half).unwrap();
    let lost: Vec<u64> = found.claims[0].numbers.iter().filter(|n| !n.reproduced()).map(|n| n.seed.0).collect();
    assert_eq!((lost, found.within()), (vec![0, 1, 2], false), "{found}");
}

#[test]
fn a_row_of_other_seeds_alone_is_left_out_and_said_to_be() {
    // As a teacher that only the first seed has.
    let teacher = |options: &Options| {
        let mut study = as_it_was(options)?;
        let first = options.seeds().iter().filter(|s| s.0 == 0).map(|&s| (s, 1.0));
        let values: Vec<(Seed, f64)> = first.collect();
        if !values.is_empty() {
            study.claims.add("teacher", "–", "mean > 0", 1)?.extend(values);
        }
        Ok(study)
    };
    let folder = tempfile::tempdir().unwrap();
    teacher(&Options::default()).unwrap().write(folder.path(), &Vec::new()).unwrap();
    assert!(verified(folder.path(), &["--verify"], teacher).unwrap().within());
    let found = verified(folder.path(), &["--verify", "--seed", "1"], teacher).unwrap();
    assert_eq!((found.within(), found.claims.len(), &found.left_out[..]), (true, 2, &[3][..]), "{found}");
    assert!(found.to_string().contains("Not compared: row 3, of which there is no number of these seeds."), "{found}");
    // Asked for by name, it is not verified.
    let found = verified(folder.path(), &["--verify", "3", "--verify", "1", "--seed", "1"], teacher).unwrap();
    assert!(!found.within() && found.to_string().ends_with("Not verified: row 3.\n"), "{found}");
}

#[test]
fn one_seed_alone_is_run_and_judged_in_its_place_among_the_others() {
    let folder = committed();
    let ran = Cell::new(0);
    let run = |options: &Options| {
        ran.set(options.seeds().len());
        as_it_was(options)
    };
    let found = verified(folder.path(), &["--verify", "--seed", "2"], run).unwrap();
    assert_eq!((ran.get(), found.claims[1].numbers.len()), (1, 2));
    assert!(found.within());
    // 60 alone is below the bound of 90, and with the others' 95 and 95.4 the mean is 83.5.
    let low = |options: &Options| program(options, |_| 60.0, gap);
    assert!(!verified(folder.path(), &["--verify", "1", "--seed", "2"], low).unwrap().claims[0].holds);
    // 87 keeps the mean above 90: the rule holds, and the number is outside.
    let off = |options: &Options| program(options, |_| 87.0, gap);
    let found = verified(folder.path(), &["--verify", "1", "--seed", "2"], off).unwrap();
    assert!(found.claims[0].holds && !found.within(), "{found}");
}

#[test]
fn rows_that_program_and_file_do_not_share_are_said_to_be_so() {
    let folder = committed();
    let more = |options: &Options| {
        let mut study = as_it_was(options)?;
        study.claims.add("new", "–", "mean > 0", 1)?.push((Seed(0), 1.0));
        Ok(study)
    };
    let found = verified(folder.path(), &["--verify"], more).unwrap();
    assert!(!found.within() && found.to_string().contains("not in the file"), "{found}");
    assert!(verified(folder.path(), &["--verify", "2"], more).unwrap().within(), "the rows asked for are there");
    let fewer = |options: &Options| {
        let mut study = Study::default();
        study
            .claims
            .setting("large", "small")
            .add("accuracy, %", "99", "mean > 90", 1)?
            .extend(options.seeds().iter().map(|&s| (s, accuracy(s))));
        Ok(study)
    };
    let found = verified(folder.path(), &["--verify"], fewer).unwrap();
    assert!(!found.within() && found.to_string().contains("the run has no such row"), "{found}");
    let moved = |options: &Options| program(&Options { quick: true, ..options.clone() }, accuracy, gap);
    let found = verified(folder.path(), &["--verify", "2"], moved).unwrap();
    assert!(!found.within() && found.to_string().contains("the run has it in another setting, tiny"), "{found}");
    let other = |options: &Options| {
        let mut study = Study::default();
        study
            .claims
            .setting("large", "small")
            .add("accuracy, %", "99", "mean > 80", 1)?
            .extend(options.seeds().iter().map(|&s| (s, accuracy(s))));
        Ok(study)
    };
    let found = verified(folder.path(), &["--verify", "1"], other).unwrap();
    assert!(!found.within() && found.to_string().contains("the file has the rule 'mean > 90'"), "{found}");
}

#[test]
fn bad_input_is_one_line_and_2_and_runs_nothing() {
    let folder = committed();
    let never = |_: &Options| -> Result<Study> { panic!("was run") };
    let error = |more: &[&str]| verified(folder.path(), more, never).unwrap_err().to_string();
    assert_eq!(error(&["--verify", "3"]), "--verify: there is no row 3; they are numbered 1 to 2");
    assert!(error(&["--verify", "0"]).contains("there is no row 0"));
    assert_eq!(error(&["--verify", "Gap"]), "no row is named 'Gap' among 2; did you mean 'gap'?");
    assert_eq!(error(&["--verify", "--seeds", "1,7"]), "--seeds: the file has no number of seed 7; it has those of 0, 1, 2");
    let empty = tempfile::tempdir().unwrap();
    assert!(verified(empty.path(), &["--verify"], never).unwrap_err().to_string().contains("results.csv"));
    for more in [
        &["--verify", "3"][..],
        &["--verify", "--redraw"],
        &["--verify", "--held-out"],
        &["--verify", "--seed", "1,2"],
        &["--verify", "--seed", "x"],
    ] {
        assert_eq!(code(folder.path(), more, never), ExitCode::from(2), "{more:?}");
    }
    let fails = |_: &Options| Err(Error::invalid_option("data", "there is none"));
    assert_eq!(code(folder.path(), &["--verify"], fails), ExitCode::from(2));
    let shared = |options: &Options| {
        options.refuse_chosen_seeds("one teacher")?;
        as_it_was(options)
    };
    assert_eq!(code(folder.path(), &["--verify"], shared), ExitCode::SUCCESS);
    assert_eq!(code(folder.path(), &["--verify", "--seed", "0"], shared), ExitCode::from(2));
}

#[test]
fn nothing_is_written() {
    let folder = committed();
    let state = || {
        let mut all: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name(), fs::read(e.path()).unwrap(), e.metadata().unwrap().modified().unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = state();
    let drawn = |_: &Study| -> Result<Figures> { panic!("was drawn") };
    let wrong = |options: &Options| program(options, |_| 1.0, gap);
    assert_eq!(main_of(words(folder.path(), &["--verify"]), "made_up", wrong, drawn), ExitCode::from(1));
    assert_eq!(main_of(words(folder.path(), &["--verify", "--quick"]), "made_up", as_it_was, drawn), ExitCode::from(1));
    assert_eq!(state(), before);
}

#[test]
fn the_quick_run_of_a_paper_is_held_to_its_rules_and_has_the_same_bits_as_itself() {
    // Tests run at the root, where papers/woodfisher/excuses.csv lies.
    let options = |text: &str| Options::parse(text.split(' ').map(String::from)).unwrap().unwrap();
    let found = verify("woodfisher", &options("--quick --verify --seeds 0,1,2"), woodfisher::run).unwrap();
    assert!(found.within() && found.claims.len() == 4, "{found}");
    assert!(found.claims.iter().flat_map(|c| &c.numbers).all(|n| n.before.is_none() && n.within()));
    // What the run gave, as a file; then one seed of it.
    let mut study = Study::default();
    for c in &found.claims {
        let claims = study.claims.setting(&c.claim.paper_setting, &c.claim.setting);
        claims
            .add(&c.claim.what, &c.claim.paper, &c.claim.rule.to_string(), c.claim.digits)
            .unwrap()
            .extend(c.claim.values.clone());
    }
    let folder = tempfile::tempdir().unwrap();
    study.write(folder.path(), &Vec::new()).unwrap();
    let text = format!("--quick --verify --seed 1 --out {}", folder.path().display());
    let again = verify("woodfisher", &options(&text), woodfisher::run).unwrap();
    assert!(again.within() && again.claims.iter().flat_map(|c| &c.numbers).all(|n| n.same_bits()), "{again}");
    assert!(again.to_string().contains("Of 4 numbers 4 have the same bits"), "{again}");
    let _ = woodfisher::draw;
}
