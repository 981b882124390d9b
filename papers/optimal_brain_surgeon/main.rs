//! Hassibi, Stork 1993, *Second order derivatives for network pruning: Optimal Brain Surgeon*: the MONK's problems and XOR.
//!
//! `cargo run --release --example optimal_brain_surgeon -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::calibrate::Calibration;
use lacuna::data::{Dataset, Monk};
use lacuna::eval::{binary_accuracy, score};
use lacuna::models::{Builder, Init};
use lacuna::nn::{Activation, Loss, Network};
use lacuna::paper::{Figures, Options, Study};
use lacuna::prune::{Criterion, Surgeon};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::train::{Bfgs, bfgs};
use ndarray::{array, s};

const LOSS: Loss = Loss::SquaredError;
const KNIVES: [(Criterion, &str); 3] = [(Criterion::Obs, "OBS"), (Criterion::Obd, "OBD"), (Criterion::Magnitude, "magnitude")];
/// Hidden units, weights, weight decay; and the paper's numbers: training and test accuracy in %, weights left.
const PROBLEMS: [(usize, usize, f64, [f64; 3]); 3] =
    [(3, 58, 0.003, [100.0, 100.0, 14.0]), (2, 39, 0.001, [100.0, 100.0, 15.0]), (2, 39, 0.03, [93.4, 97.2, 4.0])];

fn net(inputs: usize, hidden: usize, f: Activation, init: Init, seed: Seed) -> Result<Network> {
    Builder::vector(inputs, init, seed).linear(hidden).activation(f).linear(1).activation(f).build()
}

fn monk(problem: Monk, options: &Options, study: &mut Study, [rows, curves]: [&mut Table; 2]) -> Result<()> {
    let (hidden, size, decay, [paper_train, paper_test, paper_left]) = PROBLEMS[problem.number() - 1];
    let shape = format!("MONK {}, 17-{hidden}-1 net of {size} weights", problem.number());
    let mut values: [Vec<(Seed, f64)>; 7] = Default::default();
    let mut source = (0, false); // training samples, and whether they are from files
    for &seed in options.seeds() {
        let monks = if options.quick { problem.sample(seed)? } else { problem.load(seed)? };
        source = (monks.train.len(), monks.from_files);
        let part = |d: &Dataset| (d.x().clone(), d.one_hot(1.0, -1.0).slice(s![.., 1..]).to_owned());
        let (train, test) = (part(&monks.train), part(&monks.test));
        let data = Calibration::new(&train.0, &train.1, LOSS);
        let how = Bfgs { loss: LOSS, decay, steps: 500, tolerance: 1e-5 };
        let fit = |n: &mut Network| bfgs(n, data.x, data.target, &how);
        let accuracy = |n: &Network| [&train, &test].map(|(x, t)| 100.0 * binary_accuracy(n, x, t, 0.0));
        // Of several starts the one of least objective: chosen by the training samples alone.
        let start = |k: u64| -> Result<(f64, Network)> {
            let mut n = net(17, hidden, Activation::Tanh, Init::LeCun, Seed(1000 * seed.0 + k))?;
            Ok((fit(&mut n)?, n))
        };
        let mut starts = (0..options.pick(6, 20)).map(start).collect::<Result<Vec<_>>>()?;
        starts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let dense = starts.swap_remove(0).1;
        let base = accuracy(&dense);
        let (mut left, mut unaided) = (Vec::new(), Vec::new());
        for (criterion, name) in KNIVES {
            let surgeon = Surgeon::new(criterion, 2.0 * decay);
            let enough = |n: &Network| accuracy(n)[0] >= base[0];
            let smallest = surgeon.smallest(&dense, &data, |n| fit(n).map(|_| ()), enough)?;
            let errors: Vec<f64> =
                surgeon.path(&dense, &data, |_| Ok(()))?.iter().map(|n| score(n, data.x, data.target, LOSS).loss).collect();
            let gone = errors.iter().take_while(|e| **e <= errors[0] + 0.05).count() - 1;
            let [train, test] = accuracy(&smallest);
            rows.row((problem.number(), seed.0, name, smallest.kept_parameters(), train, test, size - gone));
            left.push((smallest.kept_parameters() as f64, test));
            unaided.push((size - gone) as f64);
            for (gone, error) in errors.into_iter().enumerate() {
                curves.row((&shape, seed.0, name, size - gone, error));
            }
        }
        let ratio = unaided[0] / f64::min(unaided[1], unaided[2]);
        let all = [base[0], base[1], left[0].0, left[0].1, left[1].0 - left[0].0, left[2].0 - left[0].0, ratio];
        values.iter_mut().zip(all).for_each(|(v, number)| v.push((seed, number)));
    }
    let from = if source.1 { "UCI files" } else { "drawn by the seed" };
    let c = study.claims.setting(&shape, format!("{shape}, {} samples ({from}), decay {decay}", source.0));
    // The paper's numbers, to its own digits, wherever the samples are from.
    let accuracy = |paper: f64| format!("every >= {:.2}", paper - 0.05);
    let fewest = format!("every <= {paper_left}");
    let [train, test, left, kept, gaps @ .., unaided] = values;
    if !options.quick {
        // They hang on the samples: the quick run draws its own.
        c.add("dense: training accuracy, %", format!("{paper_train}"), &accuracy(paper_train), 1)?.extend(train);
        c.add("dense: test accuracy, %", format!("{paper_test}"), &accuracy(paper_test), 1)?.extend(test);
        c.add("OBS at the same training accuracy: weights left", format!("{paper_left}"), &fewest, 1)?.extend(left);
        c.add("OBS: test accuracy, %", format!("{paper_test}"), &accuracy(paper_test), 1)?.extend(kept);
        for ((_, name), gap) in KNIVES[1..].iter().zip(gaps) {
            c.add(format!("weights that {name} leaves more than OBS, all retrained"), "–", "every >= 0", 1)?.extend(gap);
        }
    }
    c.add("not retrained, MSE up to 0.05 above dense: OBS's weights over the better other's", "–", "every < 1", 2)?
        .extend(unaided);
    Ok(())
}

/// Of each problem the training error as weights go and nothing is retrained.
pub fn draw(study: &Study) -> Result<Figures> {
    let curves = study.table("curves")?;
    let figure = |(i, problem): (usize, String)| -> Result<(String, String)> {
        let mut figure = Figure::new(&problem, "weights left", "training MSE, nothing retrained").y_range(0.0, 1.2);
        for (_, name) in KNIVES {
            let rows = curves.only("problem", &problem)?.only("method", name)?;
            figure = figure.line(name, &rows, "weights left", "training MSE")?;
        }
        Ok((format!("monk{}", i + 1), figure.to_svg()?))
    };
    curves.distinct("problem")?.into_iter().enumerate().map(figure).collect()
}

/// The share of networks in which a right weight goes first: one without which the network, trained on, still knows XOR.
fn xor(options: &Options, study: &mut Study) -> Result<()> {
    let x = array![[-1., -1.], [-1., 1.], [1., -1.], [1., 1.]];
    let target = array![[0.1], [0.9], [0.9], [0.1]];
    let data = Calibration::new(&x, &target, LOSS);
    let how = Bfgs { loss: LOSS, decay: 1e-6, steps: 2000, tolerance: 1e-7 };
    let fit = |n: &mut Network| bfgs(n, data.x, data.target, &how);
    let knows = |n: &Network| score(n, data.x, data.target, LOSS).loss < 0.02;
    let starts = options.pick(12, 60);
    let mut shares: [Vec<(Seed, f64)>; 3] = Default::default();
    for &seed in options.seeds() {
        let (mut learnt, mut right) = (0.0, [0.0; 3]);
        for start in 0..starts {
            let mut dense = net(2, 2, Activation::Sigmoid, Init::He, Seed(1000 * seed.0 + start))?;
            fit(&mut dense)?;
            if !knows(&dense) {
                continue;
            }
            learnt += 1.0;
            for (k, (criterion, _)) in KNIVES.into_iter().enumerate() {
                let (mut n, _) = Surgeon::new(criterion, 2e-6).cut(&dense, &data, 1)?;
                fit(&mut n)?;
                right[k] += f64::from(u8::from(knows(&n)));
            }
        }
        (0..3).for_each(|k| shares[k].push((seed, right[k] / f64::max(learnt, 1.0))));
    }
    let ours = format!("XOR of ±1, 2-2-1 net of 9 weights, sigmoid, those of {starts} starts a seed that learn it");
    let c = study.claims.setting("XOR, 2-2-1 net of 9 weights", ours);
    for ((_, name), share) in KNIVES.into_iter().zip(shares) {
        let (paper, rule) = if name == "OBS" { ("always", "every >= 1") } else { ("not always", "mean < 1") };
        c.add(format!("{name}: share of networks in which a right weight goes first"), paper, rule, 2)?.extend(share);
    }
    Ok(())
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let mut study = Study::default();
    let mut rows =
        Table::new(["monk", "seed", "method", "weights", "training accuracy", "test accuracy", "weights, not retrained"]);
    let mut curves = Table::new(["problem", "seed", "method", "weights left", "training MSE"]);
    Monk::ALL.into_iter().try_for_each(|problem| monk(problem, options, &mut study, [&mut rows, &mut curves]))?;
    xor(options, &mut study)?;
    study.tables = vec![("monks".into(), rows), ("curves".into(), curves)];
    Ok(study)
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("optimal_brain_surgeon", run, draw)
}
