//! LeCun, Denker, Solla 1989, *Optimal Brain Damage*: the curves of the paper on a shared-weight network for digits.
//!
//! `cargo run --release --example optimal_brain_damage -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

mod task;

use lacuna::Result;
use lacuna::criteria::{Magnitude, Obd, Random, Saliency};
use lacuna::paper::{Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use task::{STEPS, Task};

const SHARES: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let mut study = Study::default();
    let mut rows = Table::new(["seed", "method", "share deleted", "training MSE", "test MSE", "test error, %", "predicted"]);
    let mut values: [Vec<(Seed, f64)>; 11] = Default::default();
    let mut parameters = 0;
    for &seed in options.seeds() {
        let task = Task::load(options, seed)?;
        parameters = task.network.kept_parameters();
        let dense = task.fit(task.network.clone(), task.epochs.0)?;
        let base = task.errors(&dense);
        let methods: [&dyn Saliency; 3] = [&Obd, &Magnitude::default(), &Random { seed }];
        let mut increase = vec![Vec::new(); 3];
        for (m, saliency) in methods.into_iter().enumerate() {
            for share in SHARES {
                let outcome = task.prune(&dense, saliency, share)?;
                let e = task.errors(&outcome.model);
                rows.row((seed.0, saliency.name(), share, e.0, e.1, e.2, outcome.predicted_increase));
                increase[m].push((e.0 - base.0, outcome.predicted_increase));
            }
        }
        let share = |i: usize| increase[0][i].1.unwrap_or(f64::NAN) / increase[0][i].0;
        let many = task.retrained(&dense)?;
        let little = task.little(options.pick(150, 300));
        let few = little.retrained(&little.fit(little.network.clone(), little.epochs.0)?)?;
        for (found, with) in [(&many, ""), (&few, ", little data")] {
            for (e, share) in found.iter().zip(STEPS.into_iter().chain([0.0])) {
                let name = if share > 0.0 { "OBD, retrained" } else { "dense, trained as long" };
                rows.row((seed.0, format!("{name}{with}"), share, e.0, e.1, e.2, None::<f64>));
            }
        }
        let change = |a: f64, b: f64| vec![100.0 * (a / b - 1.0)];
        let ratios = (0..3).map(share).collect();
        let over = (1..7).map(|i| increase[0][i].0 / increase[1][i].0).collect();
        let more = few[1..4].iter().flat_map(|e| change(e.1, few[4].1)).collect();
        let changes = [change(many[3].0, base.0), change(many[3].1, base.1), change(many[3].1, many[4].1)];
        let changes = changes.into_iter().chain([change(few[0].1, few[4].1), more]);
        let all = [vec![base.2], vec![base.1], ratios, vec![share(5)], over, vec![increase[2][2].0 / increase[0][2].0]]
            .into_iter()
            .chain(changes);
        values.iter_mut().zip(all).for_each(|(v, numbers)| v.extend(numbers.into_iter().map(|n| (seed, n))));
    }
    let ours = options.pick("digits 8×8, 1347 and 450", "MNIST at 16×16 in 28×28, 9300 and 3350");
    let ours = format!("{parameters} shared parameters, {ours} samples");
    let c = study.claims.setting("2578 shared parameters, 9300 and 3350 digits", ours);
    let texts = [
        ("dense: test error, %", "–", "mean < 5", 1),
        ("dense: test MSE", "–", "mean < 0.6", 3),
        ("predicted over measured increase, 10, 20 and 30 % deleted", "about 1 up to 30 %", "every in 0.5 .. 1.5", 2),
        ("the same, 60 % deleted", "they part", "mean < 0.5", 2),
        ("increase by OBD over that by magnitude, 20 to 70 % deleted", "far below 1", "every < 1", 2),
        ("increase by random over that by OBD, 30 % deleted", "off the scale", "every > 5", 0),
        ("change of training MSE, 60 % deleted and retrained, %", "almost none", "mean <= 5", 1),
        ("change of test MSE, 60 % deleted and retrained, %", "almost none", "mean <= 5", 1),
        ("the same against the dense network trained on as long, %", "–", "mean <= 5", 1),
        ("the same on little data, 20 % deleted", "below 0", "mean < 0", 1),
        ("the same on little data, 40, 50 and 60 % deleted", "below 0", "mean < 0", 1),
    ];
    for ((what, paper, rule, digits), v) in texts.into_iter().zip(values) {
        c.add(what, paper, rule, digits)?.extend(v);
    }
    study.tables.push(("curves".into(), rows));
    Ok(study)
}

/// The training error against the share deleted.
pub fn draw(study: &Study) -> Result<Figures> {
    let rows = study.table("curves")?;
    let mut figure = Figure::new("Deleted without retraining", "share deleted", "training MSE").percent_x().log_y();
    for (name, method) in [("OBD", "obd"), ("magnitude", "magnitude"), ("random", "random")] {
        figure = figure.line(name, &rows.only("method", method)?, "share deleted", "training MSE")?;
    }
    Ok(vec![("deleted".into(), figure.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("optimal_brain_damage", run, draw)
}
