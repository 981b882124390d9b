//! Jobs on a model's folder, by the library alone.

use crate::common::*;
use lacuna::allocate::Global;
use lacuna::criteria::{Evidence, Magnitude, Need, Needs, Saliency, Taylor, Wanda};
use lacuna::io::{Dtype, FolderWriter};
use lacuna::job::{Event, Methods, ModelReport, PruneJob, PruneMethod, PruneReport, Stage};
use lacuna::mask::{Budget, Mask, Pattern, Scope};
use lacuna::prune::{LayerRecord, SequenceGradients, allocated, language_layers, unfinished_settings};
use lacuna::solve::{Pruned, Pruner, Scored, SparseGpt};
use lacuna::{Error, Result};
use ndarray::Array2;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The tokens as a file.
pub fn calibration(m: &Model, ids: &[u32]) -> PathBuf {
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

/// A job with something changed that has no setter.
fn with(mut job: PruneJob, change: impl FnOnce(&mut PruneJob)) -> PruneJob {
    change(&mut job);
    job
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
    assert_eq!(line, "no method is named 'first' among 13", "none is near");
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
        (job.clone().method("sparsgpt"), "no method is named 'sparsgpt' among 13; did you mean 'sparsegpt'?"),
        (job.clone().sparsity(1.0), "sparsity: 1 is not in [0, 1): 0 keeps all, 0.9 drops nine of ten"),
        (job.clone().samples(usize::MAX), "samples: 18446744073709551615 sequences of 1024 tokens are more than can be counted"),
        (job.clone().method("alps").bits(4), "bits: is for --method sparsegpt or d2prune"),
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

/// Keeps the last inputs: its scores need the weights' places alone.
#[derive(Debug)]
struct Last;

impl Saliency for Last {
    fn name(&self) -> &str {
        "last"
    }

    fn score(&self, layer: &Evidence<'_>) -> Result<Array2<f32>> {
        Ok(Array2::from_shape_fn(layer.weight.dim(), |(_, c)| c as f32))
    }
}

/// The units that stay of each layer.
fn kept(report: PruneReport) -> HashMap<String, usize> {
    let PruneReport::Model(report) = report else { panic!("the model is a folder") };
    report.layers.into_iter().map(|l| (l.layer, l.kept)).collect()
}

#[test]
fn layers_of_a_folder_are_ranked_by_what_a_method_says_that_they_are_ranked_by() {
    let m = Model::new(Dtype::F32);
    let mut methods = Methods::standard();
    methods.register(PruneMethod::criterion("last", "", |_| Ok(Box::new(Last))));
    let magnitude = || Ok(Box::new(Scored(Magnitude::default())) as Box<dyn Pruner>);
    methods.register(PruneMethod::pruner("by last", "", move |_| magnitude()).ranked_by(|_| Ok(Box::new(Last))));
    methods.register(PruneMethod::pruner("by gradients", "", move |_| magnitude()).ranked_by(|_| Ok(Box::new(Taylor))));
    methods.register(PruneMethod::pruner("by inputs", "", move |_| magnitude()).ranked_by(|_| Ok(Box::new(Wanda))));
    let global = |method: &str| job(&m, method).allocate("global");
    let run = |methods: &Methods, method: &str| {
        let out = m.out(method);
        let mut notes = Vec::new();
        let report = global(method).out(out).run(methods, &mut |event| {
            if let Event::Note(text) = event {
                notes.push(text.clone());
            }
            ControlFlow::Continue(())
        });
        (kept(report.unwrap()), notes)
    };
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let needs = Needs::none().and(Need::Gradient);
    let gradients =
        SequenceGradients::measure(&folder, &config, &sequences(&tokens(20)), &layers, needs, &memory(1 << 20), on).unwrap();
    let by = |ranking| {
        let found = allocated(&folder, &config, &layers, Pattern::Unstructured, 0.5, (&Global, ranking)).unwrap();
        found.into_iter().map(|(name, budget)| (name, budget.keep())).collect::<HashMap<_, _>>()
    };
    let (plain, last) = (by(None), by(Some((&Last, None))));
    let taylor = by(Some((&Taylor, Some(&gradients))));
    assert!(plain != last && plain != taylor && last != taylor);
    for (method, expected) in [
        ("magnitude", &plain),
        ("random", &plain),
        ("magnitude-l2", &plain),
        ("sparsegpt", &plain),
        ("last", &last),
        ("by last", &last),
        ("by gradients", &taylor),
        ("taylor", &taylor),
    ] {
        assert_eq!(run(&methods, method), (expected.clone(), vec![]), "{method}");
    }
    // The inputs of a layer are measured as it is pruned: its criterion gives way, and that is said.
    let said = "global ranks the layers by magnitude: what wanda looks at is measured as they are pruned";
    assert_eq!(run(&methods, "wanda"), (plain, vec![said.to_string()]));
    let refused = "allocate: global ranks the layers of by inputs by wanda, which needs the input norms: of a folder's layers weights and \
                   gradients alone are known before they are pruned";
    for model in [None, Some(m.dir.clone())] {
        let unread = with(global("by inputs").calibration("nowhere"), |job| job.model = model);
        assert_eq!(unread.check(&methods).unwrap_err().to_string(), refused);
    }
    assert_eq!(global("by inputs").run(&methods, &mut |_| panic!("nothing runs")).unwrap_err().to_string(), refused);
    // Of a plain file the criterion that chooses ranks too.
    methods
        .register(PruneMethod::criterion("apart", "", |_| Ok(Box::new(Magnitude::default()))).ranked_by(|_| Ok(Box::new(Last))));
    let file = PruneJob::new("apart").sparsity(0.5).model("nowhere.safetensors");
    file.check(&methods).unwrap();
    let line = file.allocate("global").check(&methods).unwrap_err().to_string();
    assert_eq!(line, "allocate: global ranks the layers of apart by another criterion: give a model's folder");
    // Gradients are measured on something.
    let unmeasured = with(global("by gradients"), |job| (job.calibration, job.samples, job.context) = (None, 64, 1024));
    let line = unmeasured.check(&methods).unwrap_err().to_string();
    assert!(line.starts_with("calibration: this method measures"), "{line}");
    unmeasured.allocate("uniform").check(&methods).unwrap();
}

#[cfg(unix)]
#[test]
fn paths_that_no_record_can_hold_are_refused_by_the_setting() {
    use std::os::unix::ffi::OsStrExt;
    let m = Model::new(Dtype::F32);
    let bad = m.folder.path().join(std::ffi::OsStr::from_bytes(b"n\xffme"));
    let methods = Methods::standard();
    let jobs = |job: PruneJob| {
        [
            ("model", job.clone().model(&bad)),
            ("out", job.clone().out(&bad)),
            ("calibration", job.clone().calibration(&bad)),
            ("scratch", job.clone().scratch(&bad)),
            ("text", job.text(&bad)),
        ]
    };
    for (setting, job) in jobs(job(&m, "sparsegpt")) {
        let lines = [
            job.check(&methods).unwrap_err().to_string(),
            job.check_ranges().unwrap_err().to_string(),
            job.to_toml().unwrap_err().to_string(),
            job.run(&methods, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string(),
        ];
        let own = |line: &String| line.starts_with(&format!("{setting}: ")) && line.contains("is not UTF-8");
        // As a file's model, which there is none of at this path, the job has settings of folders.
        let most = if setting == "model" { &lines[1..3] } else { &lines[..] };
        assert!(most.iter().all(own), "{lines:?}");
    }
    let half = PruneJob::new("magnitude").sparsity(0.5);
    let file = m.dir.join("model.safetensors");
    for (setting, job) in [("model", half.clone().model(&bad).out("out")), ("out", half.model(file).out(&bad))] {
        for line in [job.check(&methods), job.run(&methods, &mut |_| ControlFlow::Continue(())).map(|_| ())] {
            assert!(line.unwrap_err().to_string().starts_with(&format!("{setting}: ")));
        }
    }
}

#[test]
fn numbers_outside_their_range_are_refused_by_their_names_of_folders_files_and_recipes() {
    let methods = Methods::standard();
    let half = PruneJob::new("magnitude").sparsity(0.5);
    for (job, line) in [
        (half.clone().samples(0), "samples: 0 is not at least 1; 64 is usual"),
        (half.clone().context(0), "context: 0 is not at least 1; 1024 is usual"),
        (half.clone().windows(0), "windows: 0 is not at least 1"),
        (half.clone().search_tokens(1), "search-tokens: 1 is not at least 2; 1024 is usual"),
        (half.clone().generations(0), "generations: 0 is not at least 1; 25 is usual"),
        (half.clone().offspring(0), "offspring: 0 is not at least 1; 8 is usual"),
        (half.clone().block_size(0), "block-size: 0 is not at least 1; 128 is usual"),
        (half.clone().bits(17), "bits: 17 is not 1 to 16"),
        (half.clone().owl_lambda(0.6), "owl-lambda: 0.6 is not in [0, 0.5]; 0.08 is usual"),
    ] {
        assert_eq!(job.check(&methods).unwrap_err().to_string(), line);
        assert_eq!(PruneJob::from_toml(&job.to_toml().unwrap()).unwrap_err().to_string(), line);
    }
    let file = half.model("nowhere.safetensors");
    for (job, line) in [
        (file.clone().sparsity(1.5), "sparsity: 1.5 is not in [0, 1): 0 keeps all, 0.9 drops nine of ten"),
        (file.clone().sparsity(f64::NAN), "sparsity: NaN is not in [0, 1): 0 keeps all, 0.9 drops nine of ten"),
        (file.clone().layer([("fc1", 1.0)]), "layer: 'fc1': 1 is not in [0, 1): 0 keeps all, 0.9 drops nine of ten"),
        (file.clone().allocate("owl"), "allocate: owl needs the inputs of the layers: give a model's folder"),
        (
            file.clone().pattern(Pattern::Rows).scope(Scope::Row),
            "scope: pattern rows cannot be chosen row by row; use the layer scope",
        ),
    ] {
        assert_eq!(job.check(&methods).unwrap_err().to_string(), line);
    }
}

#[test]
fn what_does_not_fit_a_folder_is_refused_before_anything_runs() {
    let m = Model::new(Dtype::F32);
    let text = calibration(&m, &tokens(20));
    let five = with(job(&m, "taylor"), |job| job.sparsity = None).pattern(Pattern::Nm { n: 1, m: 5 }).text(text);
    let line = five.run(&Methods::standard(), &mut |event| panic!("{event}")).unwrap_err().to_string();
    assert!(line.starts_with("layer model.layers.0.self_attn.q_proj: pattern 1:5 does not fit a 16 x 16 matrix"), "{line}");
}

#[test]
fn a_run_goes_on_where_a_setting_that_does_not_matter_is_another() {
    let m = Model::new(Dtype::F32);
    let whole = job(&m, "magnitude").out(m.out("whole"));
    run(&whole).unwrap();
    let stopped = whole.out(m.out("stopped"));
    let error = stopped.run(&Methods::standard(), &mut |event| match event {
        Event::Progress { stage: Stage::Blocks, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(error.unwrap_err(), Error::Unfinished { .. }));
    run(&stopped.seed(7).damping(0.5).block_size(3).resume(true)).unwrap();
    assert!(content(&m.out("stopped")) == content(&m.out("whole")));
}

/// Says that nothing can be lost, and less.
#[derive(Debug)]
struct Boaster(f64);

impl Pruner for Boaster {
    fn name(&self) -> &str {
        "boaster"
    }

    fn needs(&self) -> Needs {
        Needs::none()
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        let pruned = Scored(Magnitude::default()).prune(layer, pattern, scope, budget)?;
        Ok(Pruned { loss: Some(self.0), ..pruned })
    }
}

#[test]
fn a_loss_that_no_layer_can_have_is_not_written_into_a_record() {
    let m = Model::new(Dtype::F32);
    for (i, loss) in [-1.0, f64::NAN, f64::INFINITY].into_iter().enumerate() {
        let out = m.out(&format!("out{i}"));
        let pruner = Boaster(loss);
        let error = prune(&m.dir, &out, &tokens(20), &settings(&m.dir, &pruner, Pattern::Unstructured)).unwrap_err();
        let line = format!(
            "layer model.layers.0.self_attn.q_proj: loss: the pruner says {loss}, which is no finite number of at least 0"
        );
        assert_eq!(error.to_string(), line);
        assert!(!out.exists() && !FolderWriter::is_unfinished(&out).unwrap());
    }
}
