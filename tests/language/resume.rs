use crate::common::*;
use lacuna::criteria::Magnitude;
use lacuna::io::{Dtype, FolderWriter};
use lacuna::mask::Pattern;
use lacuna::prune::{CalibrationInputs, Correction, LanguagePruning, LayerRecord, Sequential};
use lacuna::solve::{Scored, SparseGpt};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;

/// Runs until the given number of blocks is done, and there is killed.
fn killed(dir: &Path, out: &Path, ids: &[u32], settings: &LanguagePruning<'_>, blocks: usize, resume: bool) {
    let calibration = sequences(ids);
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        begin(dir, out, &calibration, settings, &json!({"a": 1}), resume, &mut |p| {
            assert!(p.blocks < blocks, "killed");
            ControlFlow::Continue(())
        })
        .map(|_| ())
    }));
    assert!(run.is_err() && !out.exists(), "nothing half written has the folder's name");
}

fn resumed(dir: &Path, out: &Path, ids: &[u32], settings: &LanguagePruning<'_>) -> Vec<LayerRecord> {
    let done = begin(dir, out, &sequences(ids), settings, &json!({"a": 1}), true, &mut go_on).unwrap();
    let records = done.finish().unwrap();
    assert_eq!(records.len(), 21);
    timeless(records)
}

/// Records without what no two runs share.
fn timeless(records: Vec<LayerRecord>) -> Vec<LayerRecord> {
    records.into_iter().map(|r| LayerRecord { seconds: 0.0, ..r }).collect()
}

#[test]
fn a_run_that_is_killed_at_any_block_goes_on_to_the_same_bits() {
    for dtype in [Dtype::F32, Dtype::BF16] {
        let m = Model::new(dtype);
        let (ids, pruner) = (tokens(20), SparseGpt::default());
        for case in 0..4 {
            let mut settings = settings(&m.dir, &pruner, Pattern::Unstructured);
            match case {
                0 => {}
                1 => settings.sequential = Sequential::Block,
                2 => (settings.inputs, settings.sequential) = (CalibrationInputs::Dense, Sequential::Block),
                _ => settings.correction = Some(Correction { inputs: 1.0, hidden_states: 1.0, damping: 0.01 }),
            }
            let whole = m.out(&format!("whole{case}"));
            let records = timeless(prune(&m.dir, &whole, &ids, &settings).unwrap());
            for blocks in 1..=3 {
                let out = m.out(&format!("killed{case}{blocks}"));
                killed(&m.dir, &out, &ids, &settings, blocks, false);
                if blocks > 1 {
                    killed(&m.dir, &out, &ids, &settings, 1, true);
                }
                let again = resumed(&m.dir, &out, &ids, &settings);
                assert!(files(&out) == files(&whole), "{dtype:?}, case {case}, killed after block {blocks}");
                assert_eq!(again, records, "{dtype:?}, case {case}, killed after block {blocks}");
            }
        }
    }
}

#[test]
fn a_run_is_not_taken_up_by_one_that_was_asked_for_something_else() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(10), SparseGpt::default());
    let settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    let run = |out: &str, described: serde_json::Value, resume: bool| {
        begin(&m.dir, m.out(out), &sequences(&ids), &settings, &described, resume, &mut go_on).unwrap_err().to_string()
    };
    killed(&m.dir, &m.out("out"), &ids, &settings, 1, false);
    let text = run("out", json!({"a": 2}), true);
    assert!(text.starts_with("a: the unfinished run has 1, this one 2; ask for the same, or remove "), "{text}");
    // What one of the two does not say is not compared; long values are cut.
    let long: Vec<usize> = (0..1000).collect();
    let text = run("out", json!({"a": long, "later": 1}), true);
    assert!(text.len() < 300 && text.starts_with("a: the unfinished run has 1, this one [0,1,2,"), "{text}");
    // Of settings within settings the one that differs is named.
    let noted = FolderWriter::working_folder(&m.out("out")).join(".settings.json");
    for (before, now, line) in [
        (
            json!({"options": {"--samples": 8, "--seed": 1}}),
            json!({"options": {"--samples": 9, "--seed": 1}}),
            "--samples: the unfinished run has 8, this one 9;",
        ),
        (json!({"options": {"--bits": 3}}), json!({"options": {}}), "--bits: the unfinished run has 3, this one null;"),
        (json!([]), json!({"a": 1}), "settings: the unfinished run has [], this one {\"a\":1};"),
    ] {
        std::fs::write(&noted, before.to_string()).unwrap();
        let text = run("out", now, true);
        assert!(text.starts_with(line), "{text}");
    }
    let text = run("out", json!({"a": 1}), false);
    assert!(text.ends_with("holds an unfinished run: --resume goes on with it; remove it to begin anew"), "{text}");
    let text = run("other", json!({"a": 1}), true);
    assert!(text.ends_with("holds no unfinished run; begin without --resume"), "{text}");
    prune(&m.dir, &m.out("there"), &ids, &settings).unwrap();
    let text = run("there", json!({"a": 1}), false);
    assert!(text.ends_with("there: exists already; name a new folder"), "{text}");
}

#[test]
fn a_number_of_many_digits_is_known_again() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(10), SparseGpt::default());
    let settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    for (i, value) in [0.09476986570913863, 0.18845576931540006, 0.11423174613768125, 1e-5, 0.1 + 0.2].into_iter().enumerate() {
        let out = m.out(&format!("out{i}"));
        let described = json!({ "a": value });
        let run = |resume: bool, last: usize| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let see = &mut |p: lacuna::prune::Progress| {
                    assert!(p.blocks < last, "killed");
                    ControlFlow::Continue(())
                };
                let done = begin(&m.dir, &out, &sequences(&ids), &settings, &described, resume, see);
                done.map(|_| ()).map_err(|e| e.to_string())
            }))
        };
        assert!(run(false, 1).is_err());
        assert_eq!(run(true, 4).unwrap(), Ok(()), "{value}");
    }
}

#[test]
fn notes_of_a_run_that_contradict_what_was_written_are_refused() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(4), Scored(&Magnitude::default()));
    let settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    let out = m.out("out");
    let (part, described) = (FolderWriter::working_folder(&out), json!({"a": 1}));
    let run = |resume: bool| begin(&m.dir, &out, &sequences(&ids), &settings, &described, resume, &mut go_on);
    drop(run(false).unwrap());
    let read = |name: &str| serde_json::from_slice::<Vec<Value>>(&std::fs::read(part.join(name)).unwrap()).unwrap();
    let write = |name: &str, list: &[Value]| std::fs::write(part.join(name), serde_json::to_vec(list).unwrap()).unwrap();
    let (records, written) = (read(".records.json"), read(".written.json"));
    let tensor = "model.layers.0.mlp.up_proj.weight";
    let without = |name: &str| written.iter().filter(|n| **n != name).cloned().collect::<Vec<_>>();
    let with = |at: usize, key: &str, value: Value| {
        let mut records = records.clone();
        records[at][key] = value;
        records
    };
    let line = |records: &[Value], written: &[Value]| {
        write(".records.json", records);
        write(".written.json", written);
        let line = run(true).map(|_| ()).unwrap_err().to_string();
        assert!(line.contains(".out.part") && !line.contains(char::is_control) && line.chars().count() < 600, "{line}");
        line
    };
    // Else the dense weight would be copied, with the mask of the pruned one beside it; or the other way round.
    for lost in [tensor.to_string(), format!("{tensor}.mask")] {
        let line = line(&records, &without(&lost));
        assert!(line.contains("says that the layer 'model.layers.0.mlp.up_proj' is done, which was not written"), "{line}");
    }
    let gap: Vec<Value> = records.iter().filter(|r| r["layer"] != "model.layers.0.mlp.up_proj").cloned().collect();
    assert!(line(&gap, &written).contains("leaves out the layer 'model.layers.0.mlp.up_proj' of block 0, which is done"));
    for (key, value) in [("block", json!(usize::MAX)), ("block", json!(1)), ("layer", json!("x\ny")), ("layer", json!("lm_head"))]
    {
        let line = line(&with(0, key, value), &written);
        assert!(line.contains("which this run does not prune; remove its folder to begin anew"), "{line}");
    }
    for (key, value) in
        [("block", json!(-1)), ("layer", json!({"a\nb": "c".repeat(10_000)})), ("shape", json!("\n".repeat(5000)))]
    {
        assert!(line(&with(0, key, value), &written).contains(".records.json: invalid "), "{key}");
    }
    // What stays of a layer is what its mask keeps.
    let kept = records[0]["kept"].as_u64().unwrap();
    for (key, value) in [("kept", json!(kept + 1)), ("kept", json!(0)), ("kept", json!(u64::MAX)), ("shape", json!([1, kept]))] {
        let line = line(&with(0, key, value), &written);
        assert!(line.contains(&format!("where {kept} of (")) && line.contains("remove its folder to begin anew"), "{line}");
    }
    for key in ["error", "moved", "seconds"] {
        assert!(line(&with(0, key, json!(-0.5)), &written).contains("says a number below 0 of the layer"), "{key}");
    }
    assert!(line(&records, &[json!("\n".repeat(10_000)), json!({})]).contains("is no list of names: invalid type"));
    // As they were, the run goes on to its end.
    write(".records.json", &records);
    write(".written.json", &written);
    let again = run(true).unwrap().finish().unwrap();
    assert_eq!(again.len(), records.len());
    prune(&m.dir, &m.out("whole"), &ids, &settings).unwrap();
    assert!(files(&out) == files(&m.out("whole")), "the run that went on and the one at once");
}

#[test]
fn a_callback_that_stops_leaves_what_is_done_to_be_taken_up_to_the_same_bits_and_nothing_where_no_block_is() {
    let m = Model::new(Dtype::F32);
    let (ids, pruner) = (tokens(10), SparseGpt::default());
    let settings = settings(&m.dir, &pruner, Pattern::Unstructured);
    prune(&m.dir, &m.out("whole"), &ids, &settings).unwrap();
    for last in 1..=3 {
        let out = m.out(&format!("out{last}"));
        let mut seen = 0;
        let stopped = begin(&m.dir, &out, &sequences(&ids), &settings, &json!({"a": 1}), false, &mut |p| {
            seen += 1;
            if p.blocks == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let error = stopped.unwrap_err();
        assert!(matches!(&error, lacuna::Error::Unfinished { source, .. } if matches!(**source, lacuna::Error::Interrupted)));
        assert!(error.to_string().starts_with("interrupted; what is done is kept in ") && seen == last, "{error}");
        assert!(!out.exists() && FolderWriter::is_unfinished(&out).unwrap());
        resumed(&m.dir, &out, &ids, &settings);
        assert!(files(&out) == files(&m.out("whole")), "stopped after block {last}");
    }
    // The first block has nothing to prune, so that nothing is done where the run stops.
    let mut later = settings.clone();
    later.budgets.retain(|name, _| !name.contains("layers.0."));
    let stop = &mut |_| ControlFlow::Break(());
    let stopped = begin(&m.dir, m.out("never"), &sequences(&ids), &later, &json!({"a": 1}), false, stop);
    assert!(matches!(stopped.unwrap_err(), lacuna::Error::Interrupted));
    assert!(!m.out("never").exists() && !FolderWriter::working_folder(&m.out("never")).exists());
}
