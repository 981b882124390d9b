//! Hinton, Vinyals, Dean 2015, *Distilling the knowledge in a neural network*: the experiments on MNIST.
//!
//! `cargo run --release --example distilling_knowledge -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::io::{Dataset, data_dir, digits, mnist};
use lacuna::models::{Init, mlp};
use lacuna::nn::{Activation, Dropout, Loss, Method, Network};
use lacuna::paper::{Options, Study};
use lacuna::recover::{Care, Decay, Distil, Jitter, Lesson, Recipe, Targets, train};
use lacuna::report::{Figure, Point, Table};
use lacuna::rng::Seed;
use lacuna::{Result, metrics};
use ndarray::{Array2, Axis};

/// Sizes and lengths: quick on the embedded digits, full on MNIST.
struct Plan {
    set: &'static str,
    train: Dataset,
    test: Dataset,
    hidden: (usize, usize),
    care: Care,
    epochs: [usize; 4], // teacher, plain student, distilled student, each point of the temperature curve
    batch: usize,
    curve: (Vec<usize>, Vec<f32>), // widths, temperatures
    rules: [&'static str; 6],
}

fn plan(options: &Options) -> Result<Plan> {
    if options.quick {
        let all = digits();
        let order = Seed(0).stream("digits").permutation(all.len());
        let (train, test) = (all.select(&order[..300]), all.select(&order[300..]));
        let care = Care { dropout: Some(Dropout { inputs: 0.0, hidden: 0.5 }), max_norm: Some(3.0), jitter: None };
        let rules = ["mean < 80", "mean < 130", "mean < 100", "every > 100", "mean > 0.2", "mean < 180"];
        let curve = (vec![20, 60], vec![1.0, 4.0, 20.0]);
        let epochs = [200, 60, 120, 60];
        return Ok(Plan { set: "digits 8×8", train, test, hidden: (300, 40), care, epochs, batch: 32, curve, rules });
    }
    let (train, test) = mnist(data_dir().join("mnist"))?;
    let dropout = Some(Dropout { inputs: 0.2, hidden: 0.5 });
    let care = Care { dropout, max_norm: Some(3.0), jitter: Some(Jitter { shape: train.shape(), pixels: 2 }) };
    let rules = ["mean <= 75", "mean in 140 .. 160", "mean <= 85", "every > 100", "mean > 0.3", "mean < 150"];
    let curve = (vec![30, 300], vec![1.0, 2.5, 8.0, 20.0]);
    Ok(Plan { set: "MNIST", train, test, hidden: (1200, 800), care, epochs: [28, 10, 20, 4], batch: 256, curve, rules })
}

impl Plan {
    /// Trains a network of this width on a lesson; `x` are the lesson's samples.
    fn train(
        &self,
        width: usize,
        seed: Seed,
        epochs: usize,
        x: &Array2<f32>,
        lesson: &dyn Lesson,
        care: &Care,
    ) -> Result<Network> {
        let method = Method::Adam { weight_decay: 0.0 };
        let (loss, decay, batch) = (Loss::CrossEntropy, Decay::Cosine, self.batch);
        let recipe = Recipe { loss, method, learning_rate: 1.5e-3, decay, epochs, batch, seed };
        let mut network = mlp(&[x.ncols(), width, width, 10], Activation::Relu, Init::He, seed)?;
        train(&mut network, x, lesson, &recipe, care, &mut |epoch, loss| {
            eprintln!("  2 x {width} units: epoch {epoch}, loss {loss:.4}")
        })?;
        Ok(network)
    }

    fn errors(&self, network: &Network) -> f64 {
        metrics::mistaken(network, self.test.x(), self.test.labels()).len() as f64
    }
}

/// Runs the experiments: one teacher, by the first seed, and students by every seed.
pub fn run(options: &Options) -> Result<Study> {
    let p = plan(options)?;
    let labels = p.train.one_hot(1.0, 0.0);
    let (t, s) = p.hidden;
    let hard = Targets { target: &labels, loss: Loss::CrossEntropy };
    let teacher = p.train(t, options.seeds[0], p.epochs[0], p.train.x(), &hard, &p.care)?;
    let logits = teacher.forward(p.train.x());
    let none = Care::default();
    let mut study = Study::default();
    let mut rows = Table::new(["seed", "units", "temperature", "errors"]);
    let mut points: Vec<(usize, f32, Vec<f64>)> = Vec::new();
    let mut values: [Vec<(Seed, f64)>; 6] = Default::default();
    let others: Vec<usize> = (0..p.train.len()).filter(|&i| p.train.labels()[i] != 3).collect();
    let fewer = p.train.select(&others);
    let (fewer_logits, fewer_labels) = (logits.select(Axis(0), &others), fewer.one_hot(1.0, 0.0));
    for &seed in &options.seeds {
        let plain = p.errors(&p.train(s, seed, p.epochs[1], p.train.x(), &hard, &none)?);
        let soft = Distil::new(&logits, &labels, 20.0, 0.05)?;
        let taught = p.errors(&p.train(s, seed, p.epochs[2], p.train.x(), &soft, &none)?);
        // A student that has never seen a 3, and the one bias that the paper then moves.
        let soft = Distil::new(&fewer_logits, &fewer_labels, 20.0, 0.05)?;
        let mut blind = p.train(s, seed, p.epochs[1], fewer.x(), &soft, &none)?;
        let (before, bias) = (p.errors(&blind), blind.param("fc3.bias")?.value().clone());
        let mut best = before;
        for step in 1..=20 {
            let mut moved = bias.clone();
            moved[[3, 0]] += 0.5 * step as f32;
            blind.param_mut("fc3.bias")?.set_value(moved)?;
            best = best.min(p.errors(&blind));
        }
        let all = [plain, taught, taught / plain, before, (before - best) / before.max(1.0), best];
        values.iter_mut().zip(all).for_each(|(v, number)| v.push((seed, number)));
        for &width in &p.curve.0 {
            for &temperature in &p.curve.1 {
                let soft = Distil::new(&logits, &labels, temperature, 0.05)?;
                let errors = p.errors(&p.train(width, seed, p.epochs[3], p.train.x(), &soft, &none)?);
                rows.row((seed.0, width, temperature, errors));
                match points.iter_mut().find(|(w, t, _)| (*w, *t) == (width, temperature)) {
                    Some((_, _, all)) => all.push(errors),
                    None => points.push((width, temperature, vec![errors])),
                }
            }
        }
    }

    let c = &mut study.claims;
    let of = format!("{}, {} training and {} test samples", p.set, p.train.len(), p.test.len());
    c.setting(
        "MNIST, 2 × 1200 units, dropout, max-norm, ±2 pixels",
        format!("{of}, 2 × {t} units, dropout, max-norm{}", options.pick("", ", ±2 pixels")),
    );
    c.add("teacher: test errors", "67", p.rules[0], 0)?.push((options.seeds[0], p.errors(&teacher)));
    c.setting("MNIST, 2 × 800 units", format!("{of}, 2 × {s} units, {} and {} epochs", p.epochs[1], p.epochs[2]));
    let [plain, distilled, relative, before, share, after] = values;
    c.add("student on labels alone: test errors", "146", p.rules[1], 0)?.extend(plain);
    c.add("student distilled at τ = 20: test errors", "74", p.rules[2], 0)?.extend(distilled);
    c.add("distilled over plain: errors", "0.51", "mean < 1", 2)?.extend(relative);
    c.setting("no 3 in the transfer set", format!("{of}, no 3 in the transfer set, {} epochs", p.epochs[1]));
    c.add("test errors before the bias is moved", "206", p.rules[3], 0)?.extend(before);
    c.add("share of them that moving one bias takes away", "0.47", p.rules[4], 2)?.extend(share);
    c.add("test errors after", "109", p.rules[5], 0)?.extend(after);
    let mut figure = Figure::new("Students of a teacher", "temperature", "test errors").log_x();
    for &width in &p.curve.0 {
        let of_width = points.iter().filter(|(w, _, _)| *w == width);
        let line = of_width.map(|(_, t, e)| (f64::from(*t), e.clone()));
        figure = figure.series(format!("2 × {width} units"), Point::line(line)?);
    }
    study.figures.push(("temperature".into(), figure.to_svg()?));
    study.tables.push(("temperature".into(), rows));
    Ok(study)
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("distilling_knowledge", run)
}
