//! Training jobs on a folder: against a loop by hand, through masks, and taken up again after any end.

use crate::common::*;
use crate::jobs::calibration;
use lacuna::data::SequenceOrder;
use lacuna::io::{Checkpoint, Dtype};
use lacuna::job::{Event, Keep, Methods, PruneJob, TrainJob, TrainReport};
use lacuna::lm::LanguageModel;
use lacuna::nn::{Gradients, Method, Optimizer, Parameters};
use lacuna::rng::Seed;
use lacuna::train::{Cooldown, LearningRate};
use lacuna::{Error, Result};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// A job of eight steps on twenty sequences.
fn job(m: &Model) -> TrainJob {
    let ids = calibration(m, &tokens(20));
    TrainJob::new().model(&m.dir).out(m.out("out")).text([ids]).steps(8).context(LENGTH).batch(2).lr(1e-2).save_every(3)
}

fn run(job: &TrainJob) -> Result<TrainReport> {
    job.run(&mut |_| ControlFlow::Continue(()))
}

/// All parameters as bits.
fn bits(model: &LanguageModel) -> BTreeMap<String, Vec<u32>> {
    let mut all = BTreeMap::new();
    model.visit(&mut |name, values, _| {
        all.insert(name.to_string(), values.iter().map(|v| v.to_bits()).collect());
    });
    all
}

/// All files but record and page.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    files(dir).into_iter().filter(|(name, _)| !name.starts_with("train.")).collect()
}

/// A folder with half of the weights of every block pruned by magnitude.
fn pruned(m: &Model) -> std::path::PathBuf {
    let out = m.out("pruned");
    let job = PruneJob::new("magnitude").sparsity(0.5).model(&m.dir).out(&out);
    let _ = job.run(&Methods::standard(), &mut |_| ControlFlow::Continue(())).unwrap();
    out
}

#[test]
fn a_job_is_a_loop_of_passes_back_clipping_and_adamw_in_the_order_of_the_seed() {
    let m = Model::new(Dtype::F32);
    let report = run(&job(&m).seed(4).clip(0.5).weight_decay(0.1).warmup(2).schedule(Cooldown::Linear)).unwrap();
    let (mut model, ids) = (model(&m.dir), tokens(20));
    let undecayed = ["model.embed_tokens.weight", "model.norm.weight"].map(String::from).to_vec();
    let norms = (0..3).flat_map(|i| ["input", "post_attention"].map(|n| format!("model.layers.{i}.{n}_layernorm.weight")));
    let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.1 }).without_decay(undecayed.into_iter().chain(norms));
    let (mut order, rate) = (SequenceOrder::new(20, Seed(4)), LearningRate::new(1e-2).warmup(2).cooldown(Cooldown::Linear));
    for step in 0..8 {
        let part: Vec<u32> = [2 * step, 2 * step + 1]
            .into_iter()
            .map(|n| order.at(n as u64))
            .flat_map(|n| ids[n * LENGTH..(n + 1) * LENGTH].to_vec())
            .collect();
        let (loss, mut gradients) = Gradients::of(|sink| model.backward(&part, LENGTH, sink)).unwrap();
        let norm = gradients.norm();
        if norm > 0.5 {
            gradients.scale((0.5 / norm) as f32);
        }
        optimizer.step(&mut model, &gradients, rate.at(step, 8)).unwrap();
        let found = report.curve[step];
        assert_eq!((found.step, found.loss, found.gradient_norm), (step + 1, loss, norm));
    }
    assert_eq!(bits(&crate::common::model(&m.out("out"))), bits(&model));
    assert!(report.curve.iter().any(|s| s.gradient_norm > 0.5), "something is clipped");
    assert_eq!((report.tokens, report.sequences, report.resumed_at), (8 * 2 * 12, 20, 0));
    // The record runs again, to the same bytes.
    let again = TrainJob::read(m.out("out").join("train.json")).unwrap().out(m.out("again"));
    assert_eq!(run(&again).unwrap().curve, report.curve);
    assert_eq!(content(&m.out("again")), content(&m.out("out")));
}

#[test]
fn passes_that_are_added_up_are_one_larger_pass() {
    let m = Model::new(Dtype::F32);
    let whole = run(&job(&m).batch(4)).unwrap();
    let added = run(&job(&m).batch(2).accumulate(2).out(m.out("added"))).unwrap();
    for (a, b) in whole.curve.iter().zip(&added.curve) {
        assert!((a.loss - b.loss).abs() < 1e-4 && (a.gradient_norm / b.gradient_norm - 1.0).abs() < 1e-3, "{a:?} {b:?}");
    }
    assert!((whole.curve[0].loss - added.curve[0].loss).abs() < 1e-6 && whole.curve[7].loss < whole.curve[0].loss);
}

#[test]
fn masks_are_held_and_the_sparsity_is_the_same_before_and_after() {
    let m = Model::new(Dtype::BF16);
    let from = pruned(&m);
    for (name, job) in [("all", job(&m)), ("lora", job(&m).lora(2)), ("norms", job(&m).only(["kind:norm"]))] {
        let report = run(&job.model(&from).batch(20).out(m.out(name))).unwrap();
        assert_eq!(report.sparsity_before, report.sparsity_after);
        assert!(report.sparsity_before > 0.3, "{}", report.sparsity_before);
        let (before, after) = (model(&from), model(&m.out(name)));
        assert_eq!(before.masks(), after.masks());
        let mut moved = 0;
        for (old, new) in before.linears().into_iter().zip(after.linears()) {
            let mask = old.mask().unwrap();
            let (old, new) = (old.dense_weight(), new.dense_weight());
            assert!(new.indexed_iter().all(|((r, c), w)| mask.get(r, c) || *w == 0.0));
            moved += old.iter().zip(&new).filter(|(a, b)| a != b).count();
        }
        assert_eq!(moved == 0, name == "norms", "{name}: {moved} weights moved");
        assert!(report.curve[7].loss < report.curve[0].loss, "{name}: {:?}", report.curve);
    }
}

#[test]
fn a_run_that_ends_at_any_step_goes_on_to_the_same_bytes() {
    let m = Model::new(Dtype::F32);
    let from = pruned(&m);
    for (name, job) in [
        ("plain", job(&m)),
        ("measured", job(&m).held_out(4).eval_every(2)),
        ("lora", job(&m).lora(2)),
        ("taught", job(&m).teacher(&m.dir)),
    ] {
        let job = job.model(&from);
        let right = m.out(&format!("{name}-right"));
        let report = run(&job.clone().out(&right)).unwrap();
        let out = m.out(&format!("{name}-out"));
        let job = job.out(&out).resume(true);
        // Stopped in words at two steps, and killed at others: what a panic leaves is what a kill leaves.
        for (at, killed) in [(1, true), (2, false), (4, true), (5, false), (7, true), (8, true)] {
            let mut stop = |event: &Event| match event {
                Event::Step { record, .. } if record.step == at && killed => panic!("killed"),
                Event::Step { record, .. } if record.step == at => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            };
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run(&mut stop)));
            match end {
                Err(_) => assert!(killed),
                Ok(end) => {
                    let line = end.unwrap_err();
                    assert!(!killed && matches!(line, Error::Unfinished { .. }), "{name} at {at}: {line}");
                }
            }
            assert!(!out.exists(), "{name}: nothing stands under the name before it is whole");
        }
        let end = run(&job).unwrap();
        assert_eq!((end.resumed_at, end.steps), (6, 8), "{name}: the last state before the kill at 8 is that of step 6");
        assert_eq!((&end.curve, &end.validation, end.written_step), (&report.curve, &report.validation, report.written_step));
        assert_eq!(content(&out), content(&right), "{name}");
        let again = run(&job).unwrap();
        assert!(again.already_finished, "{name}");
        assert_eq!(content(&out), content(&right), "{name}");
    }
}

#[test]
fn the_best_model_of_the_validation_is_the_one_that_is_written() {
    let m = Model::new(Dtype::F32);
    // A rate that is far too large: the text is learnt, then lost.
    let job = job(&m).held_out(5).eval_every(1).lr(0.3).warmup(0);
    let best = run(&job).unwrap();
    assert_eq!(best.validation.len(), 9);
    let least = best.validation[1..].iter().min_by(|a, b| a.nll.total_cmp(&b.nll)).unwrap();
    assert_eq!(best.written_step, least.step);
    let last = run(&job.clone().keep(Keep::Last).out(m.out("last"))).unwrap();
    assert_eq!((last.written_step, &last.validation), (8, &best.validation));
    for (out, step) in [("out", best.written_step), ("last", 8)] {
        let (model, ids) = (model(&m.out(out)), tokens(20));
        let losses: Vec<f64> = ids[15 * LENGTH..].chunks(LENGTH).flat_map(|w| model.nll(w).unwrap()).collect();
        let nll = losses.iter().sum::<f64>() / losses.len() as f64;
        assert!((nll - best.validation[step].nll).abs() < 1e-12, "{out}: {nll}");
    }
}

#[test]
fn only_what_is_asked_for_moves() {
    let m = Model::new(Dtype::F32);
    let before = bits(&model(&m.dir));
    for (name, job, moves) in [
        ("norms", job(&m).only(["kind:norm"]), (|n: &str| n.contains("norm")) as fn(&str) -> bool),
        ("frozen", job(&m).freeze(["kind:embedding", "mlp"]), |n| !n.contains("embed") && !n.contains("mlp")),
        ("part", job(&m).only(["model.layers.1.*_proj.weight"]), |n| n.starts_with("model.layers.1.") && n.contains("_proj")),
        ("lora", job(&m).lora(1).only(["q_proj", "down"]), |n| n.contains("q_proj") || n.contains("down")),
    ] {
        let report = run(&job.out(m.out(name))).unwrap();
        let after = bits(&model(&m.out(name)));
        let moved: Vec<&String> = before.keys().filter(|n| before[*n] != after[*n]).collect();
        let right: Vec<&String> = before.keys().filter(|n| moves(n)).collect();
        assert_eq!(moved, right, "{name}");
        let rank_1 = 3 * (16 + 16 + 16 + 24);
        let count: usize = right.iter().map(|n| before[*n].len()).sum();
        assert_eq!(report.trained, if name == "lora" { rank_1 } else { count }, "{name}");
    }
}

#[test]
fn a_teacher_is_learnt_from_and_one_that_knows_nothing_else_has_no_loss() {
    let m = Model::new(Dtype::F32);
    let itself = run(&job(&m).teacher(&m.dir).weight_decay(0.0)).unwrap();
    assert!(itself.curve[0].loss.abs() < 1e-6, "{:?}", itself.curve[0]);
    let from = pruned(&m);
    for divergence in lacuna::train::Divergence::ALL {
        let job = job(&m).model(&from).teacher(&m.dir).divergence(divergence).steps(30).out(m.out(divergence.name()));
        let curve = run(&job).unwrap().curve;
        assert!(curve[29].loss < 0.7 * curve[0].loss, "{divergence}: {} to {}", curve[0].loss, curve[29].loss);
    }
    // A mixture of both losses is the mean of both at the first step.
    let first = |job: TrainJob, name: &str| run(&job.steps(1).model(&from).out(m.out(name))).unwrap().curve[0].loss;
    let (text, taught) = (first(job(&m), "t"), first(job(&m).teacher(&m.dir), "d"));
    let both = first(job(&m).teacher(&m.dir).hard(0.25), "b");
    assert!((both - 0.25 * text - 0.75 * taught).abs() < 1e-5, "{both} of {text} and {taught}");
}

#[test]
fn what_is_wrong_is_one_line_and_nothing_is_left() {
    let m = Model::new(Dtype::F32);
    let plain = job(&m);
    let short = plain.clone().context(64).text([calibration(&m, &tokens(4))]);
    let other = m.out("other");
    let (folder, _) = open(&m.dir);
    let mut config = folder.config().clone();
    config["vocab_size"] = 51.into();
    let mut file = Checkpoint::read(m.dir.join("model.safetensors")).unwrap();
    file.insert("model.embed_tokens.weight", Seed(1).stream("e").normal_array(51, 16, 1.0), Dtype::F32).unwrap();
    std::fs::create_dir(&other).unwrap();
    file.write(other.join("model.safetensors")).unwrap();
    std::fs::write(other.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
    for (job, line) in [
        (short, "text: 48 tokens, fewer than one sequence of 64: give more text, or lower --context"),
        (plain.clone().tokens(5), "steps: is given beside tokens; one says how long the run is"),
        (plain.clone().hard(0.5), "hard: is for --teacher"),
        (plain.clone().only(["q_porj"]), "no parameter is named 'q_porj' among 29"),
        (plain.clone().only(["kind:norms"]), "only: 'kind:norms' is none of kind:norm, kind:bias, "),
        (plain.clone().lora(17), "lora: rank 17 is above a side of model.layers.0."),
        (plain.clone().held_out(4), "held-out: 4 of 4 sequences leave none to train on"),
        (plain.clone().eval_every(2), "eval-every: is for --held-out or --validation: without them nothing is measured"),
        (plain.clone().teacher(&other), "teacher: has a vocabulary of 51 tokens, the model one of 50; "),
        (plain.clone().out(&m.dir), "exists already and is what is read here; name another"),
    ] {
        let e = run(&job).unwrap_err().to_string();
        assert!(e.starts_with(line) || e.ends_with(line), "{e}");
        assert!(e.lines().count() == 1 && !m.out("out").exists(), "{e}");
    }
    // A rate that breaks the model: the step, the sequences and the rate are named, and the last state stays.
    let e = run(&job(&m).lr(1e20).warmup(0).clip(0.0).save_every(1)).unwrap_err().to_string();
    for part in ["is NaN at step ", "on sequences ", "at learning rate ", "--resume"] {
        assert!(e.contains(part), "{part}: {e}");
    }
    let e = run(&job(&m).warmup(0).clip(0.0).resume(true)).unwrap_err().to_string();
    assert!(
        e.starts_with("--lr: the unfinished run has 1") && e.contains(", this one 0.01; ask for the same, or remove "),
        "{e}"
    );
    assert!(m.out(".out.part").join(".state.safetensors").is_file(), "what was kept is still there");
}
