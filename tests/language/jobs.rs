//! Jobs on a model's folder, by the library alone.

use crate::common::*;
use lacuna::criteria::{Evidence, Need, Needs};
use lacuna::io::{Dtype, FolderWriter};
use lacuna::job::{Event, Methods, ModelReport, PruneJob, PruneMethod, PruneReport, Stage};
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::prune::{LayerRecord, unfinished_settings};
use lacuna::solve::{Pruned, Pruner, SparseGpt};
use lacuna::{Error, Result};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The tokens as a file.
fn calibration(m: &Model, ids: &[u32]) -> PathBuf {
    let path = m.out("ids.safetensors");
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let header = format!(r#"{{"input_ids":{{"dtype":"U32","shape":[{}],"data_offsets":[0,{}]}}}}"#, ids.len(), bytes.len());
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()).unwrap();
    path
}

/// A job on half of every layer, measured on twenty sequences.
fn job(m: &Model, method: &str) -> PruneJob {
    let ids = calibration(m, &tokens(20));
    PruneJob::new(method).sparsity(0.5).calibration(ids).samples(20).context(LENGTH).model(&m.dir).out(m.out("out"))
}

fn run(job: &PruneJob) -> Result<ModelReport> {
    match job.run(&Methods::standard(), &mut |_| ControlFlow::Continue(()))? {
        PruneReport::Model(report) => Ok(*report),
        PruneReport::File(_) => panic!("the model is a folder"),
    }
}

/// All files but record and page.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    files(dir).into_iter().filter(|(name, _)| !name.starts_with("prune.")).collect()
}

#[test]
fn a_job_writes_what_the_driver_writes_and_its_record_runs_again() {
    fn assert_value<T: Send + Sync + Clone + std::fmt::Debug + PartialEq>(_: &T) {}
    let m = Model::new(Dtype::BF16);
    let job = job(&m, "sparsegpt");
    assert_value(&job);
    let report = run(&job).unwrap();
    let pruner = SparseGpt::default();
    let records = prune(&m.dir, &m.out("driver"), &tokens(20), &settings(&m.dir, &pruner, Pattern::Unstructured)).unwrap();
    assert!(content(&m.out("out")) == files(&m.out("driver")));
    let timeless = |records: Vec<LayerRecord>| records.into_iter().map(|r| LayerRecord { seconds: 0.0, ..r }).collect::<Vec<_>>();
    assert_eq!(timeless(report.layers.clone()), timeless(records));
    assert_eq!((2 * report.kept, report.layers.len(), report.job.as_ref()), (report.weights, 21, Some(&job)));
    // What is written is what was returned, and the job in it gives the same bytes.
    let record: PruneReport = serde_json::from_slice(&std::fs::read(m.out("out").join("prune.json")).unwrap()).unwrap();
    assert_eq!(record, PruneReport::Model(Box::new(report.clone())));
    let again = PruneJob::read(m.out("out").join("prune.json")).unwrap().out(m.out("again"));
    run(&again).unwrap();
    assert!(content(&m.out("again")) == content(&m.out("out")));
    let page = std::fs::read_to_string(m.out("out").join("prune.html")).unwrap();
    assert_eq!(page, report.page().unwrap());
    assert!(report.to_text().contains("sparsity 0.5000 of the pruned layers"), "{}", report.to_text());
}

#[test]
fn a_callback_that_stops_behind_a_block_leaves_what_resume_takes_up_to_the_same_bits() {
    let m = Model::new(Dtype::F32);
    for (i, whole) in [job(&m, "sparsegpt"), job(&m, "woodfisher").allocate("global"), job(&m, "wanda").allocate("dynamic")]
        .into_iter()
        .enumerate()
    {
        let whole = whole.out(m.out(&format!("whole{i}")));
        let report = run(&whole).unwrap();
        for last in 1..=3 {
            let out = m.out(&format!("stopped{i}{last}"));
            let stopped = whole.clone().out(&out);
            let error = stopped.run(&Methods::standard(), &mut |event| match event {
                Event::Progress { stage: Stage::Blocks, done, .. } if *done == last => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
            let error = error.unwrap_err();
            assert!(matches!(&error, Error::Unfinished { source, .. } if matches!(**source, Error::Interrupted)), "{error}");
            assert!(!out.exists() && FolderWriter::is_unfinished(&out).unwrap());
            assert!(run(&stopped).unwrap_err().to_string().contains("holds an unfinished run"), "without resume it stays");
            let other = stopped.clone().damping(0.5).fisher_damping(0.5).sparsity(0.25).resume(true);
            assert!(run(&other).unwrap_err().to_string().contains("the unfinished run has 0.5, this one 0.25"));
            let mut resumed = run(&stopped.clone().resume(true)).unwrap();
            assert!(content(&out) == content(&m.out(&format!("whole{i}"))), "job {i}, stopped after block {last}");
            assert_eq!((resumed.kept, &resumed.search), (report.kept, &report.search));
            let done = run(&stopped.resume(true)).unwrap();
            resumed.already_finished = true;
            assert_eq!(resumed, done, "a finished run is known again");
        }
    }
}

#[test]
fn a_callback_that_stops_before_a_block_is_done_leaves_nothing() {
    let m = Model::new(Dtype::F32);
    let text = calibration(&m, &tokens(20));
    let before = std::fs::read_dir(m.folder.path()).unwrap().count();
    let cases = [
        (job(&m, "taylor"), Stage::Gradients),
        (job(&m, "sparsegpt").allocate("owl"), Stage::Outliers),
        (job(&m, "sparsegpt").allocate("dynamic"), Stage::Levels),
        (job(&m, "sparsegpt").allocate("sensitivity").search_tokens(24), Stage::Sensitivity),
        (job(&m, "sparsegpt").allocate("evolve").search_tokens(24).generations(1), Stage::Evolution),
        (job(&m, "magnitude").text(text), Stage::PerplexityBefore),
    ];
    for (job, at) in cases {
        let mut seen = 0;
        let stopped = job.run(&Methods::standard(), &mut |event| match event {
            Event::Progress { stage, .. } if *stage == at => {
                seen += 1;
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(stopped.unwrap_err(), Error::Interrupted), "{at:?}");
        assert_eq!((seen, std::fs::read_dir(m.folder.path()).unwrap().count()), (1, before), "{at:?}");
    }
    // All blocks are done when the perplexity after is measured: they are kept.
    let job = job(&m, "magnitude").text(m.out("ids.safetensors"));
    let stopped = job.run(&Methods::standard(), &mut |event| match event {
        Event::Progress { stage: Stage::PerplexityAfter, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(stopped.unwrap_err(), Error::Unfinished { .. }));
    let report = run(&job.resume(true)).unwrap().perplexity.unwrap();
    assert!(report.before > 1.0 && report.after > 1.0 && report.before != report.after);
}

/// Keeps the first inputs of every row, and doubles them.
#[derive(Debug)]
struct First(Arc<AtomicUsize>);

impl Pruner for First {
    fn name(&self) -> &str {
        "first inputs, doubled"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::InputSums)
    }

    fn prune(&self, layer: &Evidence<'_>, _: Pattern, _: Scope, budget: Budget) -> Result<Pruned> {
        assert!(layer.measured.tokens == 20 * LENGTH && layer.measured.input_sums.is_some());
        self.0.fetch_add(1, Ordering::Relaxed);
        let (rows, cols) = layer.weight.dim();
        let mask = Mask::from_fn(rows, cols, |_, c| c < budget.keep() / rows);
        let weight = mask.applied(&layer.weight.mapv(|w| 2.0 * w));
        Ok(Pruned { mask, weight, loss: None })
    }
}

#[test]
fn a_pruner_of_ones_own_is_used_by_its_name() {
    let m = Model::new(Dtype::F32);
    let calls = Arc::new(AtomicUsize::new(0));
    let mut methods = Methods::standard();
    let count = calls.clone();
    methods.register(PruneMethod::pruner("first", "", move |_| Ok(Box::new(First(count.clone())))).reads(["damping"]));
    let job = job(&m, "first").damping(0.25);
    let report = job.run(&methods, &mut |_| ControlFlow::Continue(())).unwrap();
    let PruneReport::Model(report) = report else { panic!("the model is a folder") };
    assert_eq!((calls.load(Ordering::Relaxed), report.kept * 2), (21, report.weights));
    assert_eq!(
        (&report.settings["method"], &report.settings["options"]["--method"]),
        (&"first inputs, doubled".into(), &"first".into())
    );
    assert_eq!(report.settings["options"]["--damping"], 0.25, "what it says it reads is what it is known by");
    let (dense, pruned) = (model(&m.dir), model(&m.out("out")));
    for layer in dense.linears() {
        let (before, after) = (layer.dense_weight(), weight(&pruned, layer.name()));
        let half = before.ncols() / 2;
        assert!(
            after.indexed_iter().all(|((r, c), &w)| w == if c < half { 2.0 * before[[r, c]] } else { 0.0 }),
            "{}",
            layer.name()
        );
    }
    // The library alone does not know it.
    let line = job.check(&Methods::standard()).unwrap_err().to_string();
    assert_eq!(line, "no method is named 'first' among 12", "none is near");
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_replaced_and_what_is_read_always_does() {
    let m = Model::new(Dtype::F32);
    let half = PruneJob::new("magnitude").sparsity(0.5).model(&m.dir).out(m.out("out"));
    run(&half).unwrap();
    let before = files(&m.out("out"));
    let line = run(&half.clone().sparsity(0.75)).unwrap_err().to_string();
    assert!(line.ends_with("out: exists already; name another, or replace it with --force"), "{line}");
    assert!(files(&m.out("out")) == before);
    let quarter = run(&half.clone().sparsity(0.75).force(true)).unwrap();
    assert_eq!(4 * quarter.kept, quarter.weights);
    for force in [false, true] {
        let line = run(&half.clone().out(&m.dir).force(force)).unwrap_err().to_string();
        assert!(line.ends_with("is what is read here; name another"), "{line}");
    }
    assert!(unfinished_settings(&m.out("out")).is_err(), "nothing half done is left");
}

#[test]
fn a_check_reads_no_model_and_names_setting_value_and_range() {
    let methods = Methods::standard();
    let job = PruneJob::new("sparsegpt").sparsity(0.5).calibration("nowhere.safetensors");
    job.check(&methods).unwrap();
    for (job, line) in [
        (job.clone().method("sparsgpt"), "no method is named 'sparsgpt' among 12; did you mean 'sparsegpt'?"),
        (job.clone().sparsity(1.0), "sparsity: 1 is not in [0, 1): 0 keeps all, 0.9 drops nine of ten"),
        (job.clone().samples(0), "samples: 0 sequences of 1024 tokens"),
        (job.clone().method("alps").bits(4), "bits: is for --method sparsegpt"),
        (job.clone().correct(1.0, -0.5), "correct: '1,-0.5' is not one or two fractions in [0, 1], as 1 or 1,0.5"),
        (job.clone().levels([0.5]), "levels: is for --allocate sensitivity, dynamic or evolve"),
        (job.clone().save("nm:2:4"), "save: nm:2:4 cannot hold pattern unstructured"),
        (job.clone().method("taylor").context(1), "context: 1 token has none that follows it, so there is no gradient"),
        (job.clone().scratch("nowhere"), "scratch: nowhere is no folder"),
        (
            PruneJob::new("wanda").sparsity(0.5),
            "calibration: this method measures inputs: give --calibration FILE, text or token numbers",
        ),
        (PruneJob::default(), "sparsity: pattern unstructured needs one: give --sparsity"),
        (job.clone().model("nowhere.safetensors"), "calibration: is for language models: give a model's folder"),
    ] {
        assert_eq!(job.check(&methods).unwrap_err().to_string(), line);
    }
    let line = job.run(&methods, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert_eq!(line, "model: is not set: the folder or the file to prune");
}
