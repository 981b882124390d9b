//! What is fitted on several texts: measured apart, weighted, chosen on those left out, and the same bytes after an interruption.

use crate::common::*;
use lacuna::data::Sequences;
use lacuna::io::Dtype;
use lacuna::job::{ChosenSetting, Event, Methods, ModelReport, PruneJob, PruneReport, Stage};
use lacuna::lm::{CalibrationMix, CalibrationSelection};
use lacuna::mask::Pattern;
use lacuna::prune::Generalisation;
use lacuna::rng::Seed;
use lacuna::solve::{GramShrinkage, RobustTexts, SparseGpt};
use lacuna::{Error, Result};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;

/// Three texts, each of its own third of the vocabulary, and all of them as a calibration.
fn mix(m: &Model) -> String {
    let names = ["a", "b", "c"].map(|name| m.out(&format!("{name}-ids.safetensors")));
    for (n, path) in names.iter().enumerate() {
        let mut stream = Seed(n as u64).stream("text");
        let ids: Vec<u32> = (0..40 * LENGTH).map(|_| (16 * n + stream.below(16)) as u32).collect();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let header = format!(r#"{{"input_ids":{{"dtype":"U32","shape":[{}],"data_offsets":[0,{}]}}}}"#, ids.len(), bytes.len());
        std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()).unwrap();
    }
    format!("{}:0.5,{}:0.25,{}:0.25", names[0].display(), names[1].display(), names[2].display())
}

fn job(m: &Model, method: &str, out: &str) -> PruneJob {
    PruneJob::new(method).sparsity(0.5).calibration(mix(m)).samples(40).context(LENGTH).model(&m.dir).out(m.out(out))
}

fn run(job: &PruneJob) -> Result<ModelReport> {
    match job.run(&Methods::standard(), &mut |_| ControlFlow::Continue(()))? {
        PruneReport::Model(report) => Ok(*report),
        PruneReport::File(_) => panic!("the model is a folder"),
    }
}

fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    files(dir).into_iter().filter(|(name, _)| !name.starts_with("prune.")).collect()
}

#[test]
fn texts_that_are_not_looked_at_apart_change_nothing_and_one_text_is_the_plain_run() {
    let m = Model::new(Dtype::F32);
    let (pruner, ids) = (SparseGpt::default(), tokens(20));
    let plain = settings(&m.dir, &pruner, Pattern::Unstructured);
    let go = |out: &str, calibration: &Sequences, general: Generalisation| {
        let settings = lacuna::prune::LanguagePruning { generalisation: general, ..plain.clone() };
        begin(&m.dir, m.out(out), calibration, &settings, &json!({"a": out}), false, &mut go_on).unwrap().finish().unwrap()
    };
    let whole = Sequences::new(ids, LENGTH).unwrap();
    go("plain", &whole, Generalisation::default());
    let two = whole.clone().of_texts((0..20).map(|n| n % 2).collect()).unwrap();
    go("two", &two, Generalisation::default());
    let robust = Generalisation { robust: Some(RobustTexts::new(3)), ..Generalisation::default() };
    let of_one = go("one", &whole, robust);
    assert!(files(&m.out("plain")) == files(&m.out("two")) && files(&m.out("plain")) == files(&m.out("one")));
    // Of one text its error is that of the whole.
    assert!(of_one.iter().all(|r| r.texts.len() == 1 && (r.texts[0] - r.error.unwrap()).abs() < 1e-9 * r.texts[0]));
    let of_two = go("robust", &two, robust);
    assert!(of_two.iter().all(|r| r.texts.len() == 2) && files(&m.out("plain")) != files(&m.out("robust")));
    // What is held out is measured beside, and fitted on by nobody.
    let held = two.hold_out(1).unwrap();
    let beside = go("held", &held, robust);
    go("fitted", &held.fitted(), Generalisation::default());
    assert!(
        files(&m.out("held")) == files(&m.out("fitted")) && beside.iter().all(|r| r.texts.len() == 2 && r.tokens == 10 * LENGTH)
    );
    let shrunk = GramShrinkage { diagonal: 0.3, ..GramShrinkage::default() };
    go("shrunk", &whole, Generalisation { shrinkage: shrunk, ..Generalisation::default() });
    assert!(files(&m.out("plain")) != files(&m.out("shrunk")));
}

#[test]
fn what_is_chosen_stands_in_the_record_and_a_run_that_is_taken_up_chooses_it_again() {
    let m = Model::new(Dtype::F32);
    let all = || job(&m, "sparsegpt", "whole").correct(1.0, 1.0).choose(ChosenSetting::ALL).robust(2).shrinkage(0.0, 0.5);
    let report = run(&all()).unwrap();
    assert_eq!(2 * report.kept, report.weights);
    for layer in &report.layers {
        let chosen = layer.chosen.unwrap();
        let (shrinkage, (a, b)) = (chosen.shrinkage.unwrap(), chosen.correction.unwrap());
        assert!(
            layer.texts.len() == 3 && shrinkage.texts == 0.5 && (0.0..=1.0).contains(&a) && (0.0..=1.0).contains(&b),
            "{layer:?}"
        );
    }
    // One choice for a kind of layer holds in the blocks behind.
    let of = |block: usize| report.layers.iter().filter(move |l| l.block == block).map(|l| l.chosen.unwrap().shrinkage);
    assert!(of(0).eq(of(1)) && of(0).eq(of(2)));
    let record: PruneReport = serde_json::from_slice(&std::fs::read(m.out("whole").join("prune.json")).unwrap()).unwrap();
    assert_eq!(record, PruneReport::Model(Box::new(report.clone())));
    for last in 1..=2 {
        let stopped = all().out(m.out(&format!("stopped{last}")));
        let error = stopped.run(&Methods::standard(), &mut |event| match event {
            Event::Progress { stage: Stage::Blocks, done, .. } if *done == last => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(error.unwrap_err(), Error::Unfinished { .. }));
        let line = run(&stopped.clone().resume(true).robust(3)).unwrap_err().to_string();
        assert!(line.contains("--robust"), "{line}");
        let resumed = run(&stopped.clone().resume(true)).unwrap();
        assert!(content(&stopped.out.clone().unwrap()) == content(&m.out("whole")), "stopped behind block {last}");
        let chosen = |r: &ModelReport| r.layers.iter().map(|l| (l.chosen, l.texts.clone())).collect::<Vec<_>>();
        assert_eq!(chosen(&resumed), chosen(&report));
    }
    // By whole blocks too, on which nothing is corrected.
    let at_once = job(&m, "wanda", "at-once").sequential(lacuna::prune::Sequential::Block).robust(3);
    assert!(run(&at_once).unwrap().layers.iter().all(|l| l.texts.len() == 3));
}

#[test]
fn a_text_that_is_held_out_judges_the_reconstruction_of_blocks() {
    let m = Model::new(Dtype::F32);
    let reconstructed = |out: &str| job(&m, "magnitude", out).reconstruct_blocks(4).reconstruct_rate(1e-3);
    let plain = run(&reconstructed("plain")).unwrap();
    let held = run(&reconstructed("held").hold_out("c-ids.safetensors")).unwrap();
    assert!(content(&m.out("plain")) != content(&m.out("held")));
    for (a, b) in plain.layers.iter().zip(&held.layers) {
        let ((_, _), (before, after)) = (a.reconstructed.unwrap(), b.reconstructed.unwrap());
        assert!(after <= before, "what is no better on the text held out is not kept: {before} to {after}");
    }
}

#[test]
fn sequences_are_taken_by_clusters_and_bands_of_perplexity() {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let mix: CalibrationMix = mix(&m).parse().unwrap();
    let read = |selection: CalibrationSelection| {
        let how = (8, LENGTH, lacuna::data::Bos::None);
        mix.clone().select(selection).read(&folder, &config, how, Seed(1), &mut |_, _| ControlFlow::Continue(())).unwrap()
    };
    let random = read(CalibrationSelection::Random);
    assert!(random.selected.is_empty() && random.sequences.len() == 8);
    let texts: Vec<usize> = (0..8).map(|n| random.sequences.text(n)).collect();
    assert_eq!((0..3).map(|t| texts.iter().filter(|x| **x == t).count()).collect::<Vec<_>>(), [4, 2, 2]);
    let band = |low, high| read(CalibrationSelection::Perplexity { low, high });
    let (low, high, clusters) = (band(0.0, 0.25), band(0.75, 1.0), read(CalibrationSelection::Clusters));
    for found in [&low, &high, &clusters] {
        assert!(found.selected.len() == 3 && found.sequences.len() == 8 && found.selected[0].candidates == 32);
    }
    for text in 0..3 {
        let of = |found: &lacuna::lm::MixedCalibration| found.selected[text].clone();
        assert!(of(&low).chosen.perplexity < of(&high).chosen.perplexity && of(&low).random == of(&high).random);
        let found = of(&clusters);
        assert!(found.chosen.distance <= found.random.distance, "{found}");
    }
    assert_ne!(clusters.sequences.ids(), random.sequences.ids());
    assert_eq!(read(CalibrationSelection::Clusters), clusters, "the same seed, the same sequences");
}

#[test]
fn what_cannot_be_chosen_or_held_out_is_one_line() {
    let m = Model::new(Dtype::F32);
    let line = |job: PruneJob| run(&job).unwrap_err().to_string();
    let all = || job(&m, "sparsegpt", "out");
    let one = || all().calibration(m.out("a-ids.safetensors"));
    let several = "give --calibration several, as a.txt:0.5,self:0.5";
    for (job, expected) in [
        (one().choose([ChosenSetting::Damping]), format!("choose: what is chosen is judged on texts left out; {several}")),
        (
            one().hold_out("self").choose([ChosenSetting::Damping]),
            format!("hold-out: self is of a calibration of one source; {several}"),
        ),
        (
            all().hold_out("c-ids.safetensors"),
            "hold-out: c-ids.safetensors has nothing to judge: give --choose or --reconstruct-blocks".into(),
        ),
        (
            all().choose([ChosenSetting::Correct]),
            "choose: correct has no fractions to choose up to: give --correct, as 1,1".into(),
        ),
        (all().shrinkage(0.5, 2.0), "shrinkage: '0.5,2' is not one or two fractions in [0, 1], as 0.1 or 0.1,0.5".into()),
        (all().robust(0), "robust: 0 solves of each layer; 1 to 1000 are made, 4 are usual".into()),
    ] {
        assert_eq!(line(job), expected);
    }
    assert!(line(all().hold_out("d").choose([ChosenSetting::Damping])).contains("no source of the calibration is named 'd'"));
    assert!(!m.out("out").exists());
}
