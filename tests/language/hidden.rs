//! Losses of distillation against the reference library's numbers; hidden states that are learnt, and the average of weights.

use crate::common::*;
use crate::jobs::calibration;
use lacuna::data::Sequences;
use lacuna::io::Dtype;
use lacuna::job::{Keep, TrainJob};
use lacuna::lm::{Config, LanguageModel, init};
use lacuna::nn::{Mode, Model as Runs, Objective, Parameters};
use lacuna::rng::Seed;
use lacuna::train::{
    Divergence, HiddenLoss, HiddenPair, HiddenProjections, HiddenStates, TeacherLoss, TokenDistillation, WeightAverage,
};
use ndarray::Array2;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn goldens() -> Value {
    serde_json::from_str(include_str!("goldens/losses.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn matrix(value: &Value) -> Array2<f32> {
    let rows: Vec<Vec<f64>> = value.as_array().unwrap().iter().map(numbers).collect();
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(r, c)| rows[r][c] as f32)
}

#[test]
fn losses_and_slopes_of_every_divergence_are_those_of_the_reference_library() {
    let all = goldens();
    for row in all["rows"].as_array().unwrap() {
        let divergence: Divergence = row["divergence"].as_str().unwrap().parse().unwrap();
        let [temperature, hard] = ["temperature", "hard"].map(|name| row[name].as_f64().unwrap() as f32);
        let loss = TeacherLoss::default().divergence(divergence).temperature(temperature).hard(hard);
        let loss = row["margin"].as_f64().map_or(loss, |margin| loss.margin(margin as f32));
        let [mut z, mut v] = ["z", "v"].map(|name| numbers(&row[name]).into_iter().map(|x| x as f32).collect::<Vec<_>>());
        let found = loss.row(&mut z, &mut v, row["y"].as_u64().unwrap() as u32, 1.0);
        let right = row["loss"].as_f64().unwrap();
        assert!((found - right).abs() < 2e-6 * right.max(1.0), "{loss:?}: {found} for {right}");
        for (found, right) in z.iter().zip(numbers(&row["slope"])) {
            assert!((f64::from(*found) - right).abs() < 2e-6, "{loss:?}: {found} for {right}");
        }
    }
    for row in all["hidden"].as_array().unwrap() {
        let loss: HiddenLoss = row["loss"].as_str().unwrap().parse().unwrap();
        let (found, slope) = loss.of(&matrix(&row["y"]), &matrix(&row["target"]));
        assert!((found - row["value"].as_f64().unwrap()).abs() < 1e-6, "{loss}");
        assert!(slope.iter().zip(&matrix(&row["slope"])).all(|(a, b)| (a - b).abs() < 1e-6), "{loss}");
    }
}

/// A model of two blocks with other widths than the teacher's, of the same tokens.
fn narrow(m: &Model) -> PathBuf {
    let out = m.out("narrow");
    let config = Config::parse(&json!({
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 50, "tie_word_embeddings": true, "max_position_embeddings": 64,
        "initializer_range": 0.4,
    }));
    init(&config.unwrap(), Seed(4), Dtype::F32, &out).unwrap().finish().unwrap();
    out
}

fn pairs(words: [&str; 2]) -> [HiddenPair; 2] {
    words.map(|word| word.parse().unwrap())
}

/// The sum of the scaled losses of hidden states is `weight` times that of the predictions, whatever their size; slopes at hidden states and at
/// projections are those of the differences at a fixed scale.
#[test]
fn hidden_states_weigh_as_much_as_predictions_and_their_slopes_are_differences() {
    let m = Model::new(Dtype::F32);
    let (teacher, student) = (model(&m.dir), model(&narrow(&m)));
    let batch = Sequences::new(tokens(2), LENGTH).unwrap();
    for loss in HiddenLoss::ALL {
        let how = HiddenStates::new(pairs(["0:1", "1:2"])).loss(loss).weight(0.5);
        how.check(2, 3).unwrap();
        let projections = HiddenProjections::new(how, 8, 16, Seed(1));
        let objective = TokenDistillation::with_hidden(&teacher, &batch, TeacherLoss::default(), &projections).unwrap();
        let rows: Vec<usize> = (0..batch.tokens()).collect();
        let count = objective.count(&rows);
        let tape = Runs::forward(&student, &batch, Mode::Train, &mut ()).unwrap();
        let mut logits = student.embedding_head().logits(tape.hidden_states());
        let predictions = objective.loss(&rows, &mut logits, count) / count as f64;
        let target = Runs::forward(&teacher, &batch, Mode::Eval, &mut ()).unwrap();
        let mut arrays = Vec::new();
        projections.visit(&mut |_, p, _| arrays.push(p.to_owned().into_dimensionality::<ndarray::Ix2>().unwrap()));
        for (block, of) in [(1, 2), (0, 1)] {
            let (h, t, p) = (tape.behind(block), target.behind(of), &arrays[block]);
            let naive = |h: &Array2<f64>, p: &Array2<f64>| -> f64 {
                let (y, t) = (h.dot(&p.t()), t.mapv(f64::from));
                let each = y.rows().into_iter().zip(t.rows()).map(|(y, t)| match loss {
                    HiddenLoss::Mse => (&y - &t).mapv(|d| d * d).mean().unwrap(),
                    HiddenLoss::Cosine => 1.0 - y.dot(&t) / (y.dot(&y) * t.dot(&t)).sqrt(),
                });
                each.sum::<f64>() / h.nrows() as f64
            };
            let (wide_h, wide_p) = (h.mapv(f64::from), p.mapv(f64::from));
            let scale = 0.5 / 2.0 * predictions / naive(&wide_h, &wide_p);
            let mut slope = Array2::from_elem(h.dim(), 1.0);
            assert_eq!(
                objective.hidden_loss(block, &rows, h, &mut slope, count),
                0.0,
                "the loss that is told is of the predictions"
            );
            let gradients = objective.own_gradients();
            let found = gradients.get(&format!("hidden_projection.{block}")).unwrap();
            for at in [(0, 0), (3, 5), (7, 2)] {
                let by = |x: &Array2<f64>, d: f64| {
                    let mut x = x.clone();
                    x[at] += d;
                    x
                };
                let right = scale * (naive(&by(&wide_h, 1e-4), &wide_p) - naive(&by(&wide_h, -1e-4), &wide_p)) / 2e-4;
                assert!(
                    (f64::from(slope[at]) - 1.0 - right).abs() < 1e-5,
                    "{loss}, block {block}, {at:?}: {} for {right}",
                    slope[at]
                );
                let right = scale * (naive(&wide_h, &by(&wide_p, 1e-4)) - naive(&wide_h, &by(&wide_p, -1e-4))) / 2e-4;
                let found = f64::from(found[[at.0, at.1]]);
                assert!((found - right).abs() < 1e-4 * right.abs().max(0.1), "{loss}, P {block}, {at:?}: {found} for {right}");
            }
        }
    }
}

fn job(m: &Model, from: &Path) -> TrainJob {
    let ids = calibration(m, &tokens(20));
    TrainJob::new().model(from).out(m.out("out")).text([ids]).steps(10).context(LENGTH).batch(2).lr(1e-2).save_every(3)
}

fn run(job: &TrainJob) -> lacuna::Result<lacuna::job::TrainReport> {
    job.run(&mut |_| ControlFlow::Continue(()))
}

/// The mean over tokens of 1 − cos of hidden states behind block 0 and the teacher's behind block 0.
fn angle(teacher: &LanguageModel, student: &LanguageModel) -> f64 {
    let batch = Sequences::new(tokens(20), LENGTH).unwrap();
    let [t, s] = [teacher, student].map(|m| Runs::forward(m, &batch, Mode::Eval, &mut ()).unwrap());
    HiddenLoss::Cosine.of(s.behind(0), t.behind(0)).0
}

#[test]
fn a_student_comes_nearer_to_hidden_states_that_it_learns_and_a_run_with_projections_and_an_average_goes_on_to_the_same_bytes() {
    let m = Model::new(Dtype::F32);
    let teacher = model(&m.dir);
    // Of the same widths, without projections.
    let config = Config::parse(&Value::Object(open(&m.dir).0.config().clone())).unwrap();
    init(&config, Seed(9), Dtype::F32, m.out("anew")).unwrap().finish().unwrap();
    let plain = job(&m, &m.out("anew")).teacher(&m.dir).keep(Keep::Last).steps(30);
    let _ = run(&plain.clone().out(m.out("plain"))).unwrap();
    let _ = run(&plain.hidden_states([HiddenPair { student: 0, teacher: 0 }]).hidden_weight(4.0).out(m.out("learnt"))).unwrap();
    let [without, with] = ["plain", "learnt"].map(|out| angle(&teacher, &model(&m.out(out))));
    assert!(with < 0.8 * without, "{with} with, {without} without");

    let narrow = job(&m, &narrow(&m)).teacher(&m.dir).hidden_states(pairs(["0:1", "1:2"])).average(0.9);
    let right = run(&narrow).unwrap();
    let stop = |event: &lacuna::job::Event| match event {
        lacuna::job::Event::Step { record, .. } if record.step == 7 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let cut = narrow.out(m.out("cut"));
    assert!(cut.run(&mut { stop }).is_err());
    let again = run(&cut.clone().resume(true)).unwrap();
    assert_eq!((again.resumed_at, &again.curve), (7, &right.curve));
    let bytes = |name: &str| std::fs::read(m.out(name).join("model.safetensors")).unwrap();
    assert_eq!(bytes("out"), bytes("cut"));
    let e = run(&cut.hidden_weight(2.0).out(m.out("out")).resume(true)).unwrap_err().to_string();
    assert!(e.starts_with("--hidden-weight: the finished run"), "{e}");
}

#[test]
fn what_is_written_is_the_average_by_its_recursion_and_keeps_the_masks() {
    let m = Model::new(Dtype::F32);
    let prune = lacuna::job::PruneJob::new("magnitude").sparsity(0.5).model(&m.dir).out(m.out("half"));
    let _ = prune.run(&lacuna::job::Methods::standard(), &mut |_| ControlFlow::Continue(())).unwrap();
    let report = run(&job(&m, &m.out("half")).average(0.5).schedule(lacuna::train::Cooldown::Constant)).unwrap();
    assert_eq!(report.sparsity_before, report.sparsity_after);
    // The weights after each step, out of runs of so many steps.
    let mut average = WeightAverage::new(0.5, &model(&m.out("half"))).unwrap();
    for steps in 1..=10 {
        let out = m.out(&format!("after-{steps}"));
        let part = job(&m, &m.out("half")).schedule(lacuna::train::Cooldown::Constant).steps(steps).warmup(1).out(&out);
        let _ = run(&part).unwrap();
        average.update(&model(&out), steps);
    }
    let mut right = model(&m.out("half"));
    average.swap(&mut right).unwrap();
    let found = model(&m.out("out"));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    right.visit(&mut |_, values, _| a.extend(values.iter().copied()));
    found.visit(&mut |_, values, _| b.extend(values.iter().copied()));
    assert_eq!(a, b);
}

#[test]
fn hidden_states_and_averages_that_cannot_be_are_refused() {
    let m = Model::new(Dtype::F32);
    let plain = job(&m, &m.dir);
    for (job, line) in [
        (plain.clone().hidden_states(pairs(["0", "1"])), "hidden-states: is for --teacher, which runs beside"),
        (
            plain.clone().teacher(&m.dir).hidden_states(pairs(["0:1", "5:1"])),
            "hidden-states: 5:1: the model has 3 blocks, from 0 to 2",
        ),
        (
            plain.clone().teacher(&m.dir).hidden_states(pairs(["1:0", "1:2"])),
            "hidden-states: block 1 of the model is named twice",
        ),
        (plain.clone().hidden_weight(2.0), "hidden-weight: is for --hidden-states"),
        (plain.clone().hidden_weight(0.0), "hidden-weight: 0 is not a finite number above 0"),
        (plain.average(1.0), "average: 1 is not in [0, 1)"),
    ] {
        assert_eq!(run(&job).unwrap_err().to_string(), line);
    }
    assert!("x:1".parse::<HiddenPair>().unwrap_err().to_string().starts_with("hidden-states: 'x:1' is no block"));
}
