//! Hinton, Vinyals, Dean 2015, *Distilling the knowledge in a neural network*: the experiments on MNIST.
//!
//! `cargo run --release --example distilling_knowledge -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::data::{Dataset, data_dir, digits, mnist};
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Dropout, Loss, Method, Network};
use lacuna::paper::{Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::train::{Decay, Distil, Jitter, Objective, Regularization, Targets, TrainConfig, side_by_side, train};
use lacuna::{Result, eval};
use ndarray::{Array2, Axis};

/// Sizes and lengths: quick on the embedded digits, full on MNIST.
struct Plan {
    set: &'static str,
    train: Dataset,
    test: Dataset,
    hidden: (usize, usize),
    care: Regularization,
    epochs: [usize; 3], // teacher, plain student, distilled students
    start: f32,         // factor of the first layer's weights of students: pixels that are never on keep theirs
    batch: usize,
    small: [(usize, usize); 2], // of the temperature curve: widths and epochs
    rules: [&'static str; 6],
}

/// h, the weight of the labels.
const HARD: f32 = 0.05;
/// Of the curve: below the small network's best, those two, above them.
const TEMPERATURES: [f32; 5] = [1.0, 2.5, 4.0, 10.0, 20.0];

fn plan(options: &Options) -> Result<Plan> {
    if options.quick {
        let all = digits();
        let order = Seed(0).stream("digits").permutation(all.len());
        let (train, test) = options.samples(all.select(&order[..300]), all.select(&order[300..]));
        let care = Regularization { dropout: Some(Dropout { inputs: 0.0, hidden: 0.5 }), max_norm: Some(3.0), jitter: None };
        let rules = ["mean < 80", "mean < 150", "mean < 120", "every > 100", "mean > 0.2", "mean < 180"];
        let (epochs, hidden, small) = ([200, 60, 120], (300, 40), [(10, 200), (60, 200)]);
        return Ok(Plan { set: "digits 8×8", train, test, hidden, care, epochs, start: 1.0, batch: 32, small, rules });
    }
    let (train, test) = mnist(data_dir().join("mnist")).map(|(train, test)| options.samples(train, test))?;
    let dropout = Some(Dropout { inputs: 0.0, hidden: 0.25 });
    let care = Regularization { dropout, max_norm: Some(3.0), jitter: Some(Jitter { shape: train.shape(), pixels: 2 }) };
    let rules = ["mean <= 75", "mean in 140 .. 160", "mean <= 85", "every > 100", "mean > 0.3", "mean < 150"];
    let (epochs, hidden, small) = ([150, 10, 60], (1200, 800), [(30, 60), (300, 12)]);
    Ok(Plan { set: "MNIST", train, test, hidden, care, epochs, start: 0.2, batch: 256, small, rules })
}

impl Plan {
    /// A network trained on a lesson whose samples are `x`.
    fn train(&self, net: (usize, Seed, usize), x: &Array2<f32>, l: &dyn Objective, by: &Regularization) -> Result<Network> {
        let (width, seed, epochs) = net;
        let (loss, method, decay) = (Loss::CrossEntropy, Method::Adam { weight_decay: 0.0 }, Decay::Cosine);
        let recipe = TrainConfig { loss, method, learning_rate: 1e-3, decay, epochs, batch: self.batch, seed };
        let mut network = mlp(&[x.ncols(), width, width, 10], Activation::Relu, Init::He, seed)?;
        let (first, start) = (network.param_mut("fc1.weight")?, if *by == Regularization::default() { self.start } else { 1.0 });
        first.set_value(first.value() * start)?;
        let mut say = |epoch, loss| eprintln!("  2 x {width} units, seed {}: epoch {epoch}, loss {loss:.4}", seed.0);
        train(&mut network, x, l, &recipe, by, &mut say)?;
        Ok(network)
    }

    fn errors(&self, network: &Network) -> f64 {
        eval::mistaken(network, self.test.x(), self.test.labels()).len() as f64
    }

    /// Test errors of a student of the teacher's `logits`; and, if it sees no 3, those once its bias is moved as the paper does.
    fn distilled(&self, (width, temperature, epochs, blind): Student, seed: Seed, logits: &Array2<f32>) -> Result<[f64; 2]> {
        let seen: Vec<usize> = (0..self.train.len()).filter(|&i| !blind || self.train.labels()[i] != 3).collect();
        let (part, logits) = (self.train.select(&seen), logits.select(Axis(0), &seen));
        let labels = part.one_hot(1.0, 0.0);
        let soft = Distil::new(&logits, &labels, temperature, HARD)?;
        let mut network = self.train((width, seed, epochs), part.x(), &soft, &Regularization::default())?;
        let (before, bias) = (self.errors(&network), network.param("fc3.bias")?.value().clone());
        let mut best = before;
        for step in 1..=if blind { 20 } else { 0 } {
            let mut moved = bias.clone();
            moved[[3, 0]] += 0.5 * step as f32;
            network.param_mut("fc3.bias")?.set_value(moved)?;
            best = best.min(self.errors(&network));
        }
        Ok([before, best])
    }
}

/// Width, temperature, epochs, and whether it never sees a 3.
type Student = (usize, f32, usize, bool);

/// Runs the experiments: one teacher, by the first seed, and students by every seed.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_chosen_seeds("one teacher, by the first seed, teaches the students of every seed")?;
    let p = plan(options)?;
    let (seeds, n, (t, s), [_, plain_epochs, taught_epochs]) = (options.seeds(), options.seeds().len(), p.hidden, p.epochs);
    let hard = Targets { target: &p.train.one_hot(1.0, 0.0), loss: Loss::CrossEntropy };
    let mut undistilled = side_by_side(1 + seeds.len(), |k| match k {
        0 => p.train((t, seeds[0], p.epochs[0]), p.train.x(), &hard, &p.care),
        _ => p.train((s, seeds[k - 1], plain_epochs), p.train.x(), &hard, &Regularization::default()),
    })?;
    let plain: Vec<f64> = undistilled.split_off(1).iter().map(|n| p.errors(n)).collect();
    let (teacher, logits) = (p.errors(&undistilled[0]), undistilled[0].forward(p.train.x()));
    let mut students = vec![(s, 20.0, taught_epochs, false), (s, 20.0, taught_epochs, true)];
    for (width, epochs) in p.small {
        students.extend(TEMPERATURES.map(|temperature| (width, temperature, epochs, false)));
    }
    let errors = side_by_side(students.len() * n, |k| p.distilled(students[k / n], seeds[k % n], &logits))?;
    let errors: Vec<&[[f64; 2]]> = errors.chunks(n).collect(); // of each student, by seed

    let mut study = Study::default();
    let set = format!("{}, {} training and {} test samples", p.set, p.train.len(), p.test.len());
    let each = |f: &dyn Fn(usize) -> f64| -> Vec<(Seed, f64)> { seeds.iter().enumerate().map(|(i, &s)| (s, f(i))).collect() };
    let c = &mut study.claims;
    let ours = format!("{set}, 2 × {t} units, dropout, max-norm{}", options.pick("", ", ±2 pixels"));
    c.setting("MNIST, 2 × 1200 units, dropout, max-norm, ±2 pixels", ours);
    c.add("teacher: test errors", "67", p.rules[0], 0)?.push((seeds[0], teacher));
    c.setting("MNIST, 2 × 800 units", format!("{set}, 2 × {s} units, {plain_epochs} and {taught_epochs} epochs"));
    c.add("student on labels alone: test errors", "146", p.rules[1], 0)?.extend(each(&|i| plain[i]));
    c.add("student distilled at τ = 20: test errors", "74", p.rules[2], 0)?.extend(each(&|i| errors[0][i][0]));
    c.add("distilled over plain: errors", "0.51", "mean < 1", 2)?.extend(each(&|i| errors[0][i][0] / plain[i]));
    c.setting("no 3 in the transfer set", format!("{set}, no 3 in the transfer set, {taught_epochs} epochs"));
    c.add("test errors before the bias is moved", "206", p.rules[3], 0)?.extend(each(&|i| errors[1][i][0]));
    let share = |i: usize| (errors[1][i][0] - errors[1][i][1]) / errors[1][i][0].max(1.0);
    c.add("share of them that moving one bias takes away", "0.47", p.rules[4], 2)?.extend(each(&share));
    c.add("test errors after", "109", p.rules[5], 0)?.extend(each(&|i| errors[1][i][1]));
    let at = |width: usize, temperature: usize, i: usize| errors[2 + 5 * width + temperature][i][0]; // after the first two
    let best = |i: usize| (at(0, 1, i) + at(0, 2, i)) / 2.0;
    c.setting("MNIST, 2 × 30 units", format!("{set}, 2 × {} units, {} epochs", p.small[0].0, p.small[0].1));
    if !options.quick {
        c.add("errors at τ = 1 over those at 2.5 and 4", "above 1", "mean > 1", 2)?.extend(each(&|i| at(0, 0, i) / best(i)));
    }
    let high = each(&|i| (at(0, 3, i) + at(0, 4, i)) / 2.0 / best(i));
    c.add("errors at τ = 10 and 20 over those at 2.5 and 4", "above 1", "mean > 1", 2)?.extend(high);
    c.setting("MNIST, 2 × 300 units", format!("{set}, 2 × {} units, {} epochs", p.small[1].0, p.small[1].1));
    c.add("errors at τ = 10 over those at 20", "about 1", "mean in 0.9 .. 1.1", 2)?.extend(each(&|i| at(1, 3, i) / at(1, 4, i)));
    let mut rows = Table::new(["seed", "units", "temperature", "errors"]);
    for (w, (width, _)) in p.small.into_iter().enumerate() {
        for j in 0..5 * n {
            rows.row((seeds[j % n].0, width, TEMPERATURES[j / n], at(w, j / n, j % n)));
        }
    }
    study.tables.push(("temperature".into(), rows));
    Ok(study)
}

/// Errors of the small networks against the temperature.
pub fn draw(study: &Study) -> Result<Figures> {
    let rows = study.table("temperature")?;
    let mut figure = Figure::new("Students of a teacher", "temperature", "test errors").log_x();
    for units in rows.distinct("units")? {
        figure = figure.line(format!("2 × {units} units"), &rows.only("units", &units)?, "temperature", "errors")?;
    }
    Ok(vec![("temperature".into(), figure.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("distilling_knowledge", run, draw)
}
