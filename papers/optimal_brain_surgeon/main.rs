//! Optimal Brain Surgeon.
use lacuna::Result;
use lacuna::calibrate::Calibration;
use lacuna::io::{Monk, Monks};
use lacuna::metrics::{binary_accuracy, score};
use lacuna::models::{Builder, Init};
use lacuna::nn::{Activation, Curvature, Loss, Network};
use lacuna::prune::{Knife, Surgeon};
use lacuna::recover::{Bfgs, bfgs};
use lacuna::rng::Seed;
use ndarray::{Array2, array};

const LOSS: Loss = Loss::SquaredError;
fn net(inputs: usize, hidden: usize, seed: Seed) -> Result<Network> {
    Builder::vector(inputs, Init::LeCun, seed)
        .linear(hidden)
        .activation(Activation::Tanh)
        .linear(1)
        .activation(Activation::Tanh)
        .build()
}

fn main() -> Result<()> {
    let args: Vec<f64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (decay, starts, seeds) = (args[0], args[1] as u64, args[2] as u64);
    let which = args.get(3).copied().unwrap_or(0.0) as usize;
    for m in Monk::ALL {
        if which > 0 && m.number() != which {
            continue;
        }
        let hidden = [3, 2, 2][m as usize];
        for seed in 0..seeds {
            let Monks { train, test, from_files } = m.load(Seed(seed))?;
            let t = |d: &lacuna::io::Dataset| d.one_hot(1.0, -1.0).column(1).to_owned().insert_axis(ndarray::Axis(1));
            let (tr, te): (Array2<f32>, Array2<f32>) = (t(&train), t(&test));
            let data = Calibration { curvature: Curvature::GaussNewton, ..Calibration::new(train.x(), &tr, LOSS) };
            let how = Bfgs { loss: LOSS, decay, steps: 500, tolerance: 1e-5 };
            let clock = std::time::Instant::now();
            let mut best: Option<(f64, Network)> = None;
            for s in 0..starts {
                let mut n = net(17, hidden, Seed(seed * 1000 + s))?;
                let f = bfgs(&mut n, train.x(), &tr, &how)?;
                if best.as_ref().is_none_or(|b| f < b.0) {
                    best = Some((f, n));
                }
            }
            let (f, dense) = best.unwrap();
            let acc = |n: &Network| (binary_accuracy(n, train.x(), &tr, 0.0), binary_accuracy(n, test.x(), &te, 0.0));
            let a = acc(&dense);
            print!("monk{} seed {seed} files {from_files} f {f:.4} dense {:.4} {:.4} | ", m.number(), a.0, a.1);
            for knife in [Knife::Obs, Knife::Obd, Knife::Magnitude] {
                let path = Surgeon::new(knife, 2.0 * decay).path(&dense, &data, |n| {
                    if acc(n).0 < a.0 { bfgs(n, train.x(), &tr, &Bfgs { steps: 200, ..how }).map(|_| ()) } else { Ok(()) }
                })?;
                let smallest = path.iter().filter(|n| acc(n).0 >= a.0).last().unwrap();
                let free = Surgeon::new(knife, 2.0 * decay).path(&dense, &data, |_| Ok(()))?;
                let base = score(&dense, train.x(), &tr, LOSS).loss;
                let sm2 = free.iter().take_while(|n| score(n, train.x(), &tr, LOSS).loss < base + 0.05).last().unwrap();
                let s = acc(smallest);
                print!("{knife:?} {} ({:.4} {:.4}) free {} | ", smallest.kept_parameters(), s.0, s.1, sm2.kept_parameters());
            }
            println!("{:.1}s", clock.elapsed().as_secs_f64());
        }
    }
    if which > 0 {
        return Ok(());
    }
    // XOR
    let (x, t) = (array![[0f32, 0.], [0., 1.], [1., 0.], [1., 1.]], array![[-1f32], [1.], [1.], [-1.]]);
    let how = Bfgs { loss: LOSS, decay: decay.min(1e-3), steps: 1000, tolerance: 1e-7 };
    let data = Calibration::new(&x, &t, LOSS);
    for s in 0..12 {
        let mut n = net(2, 2, Seed(s))?;
        bfgs(&mut n, &x, &t, &how)?;
        if score(&n, &x, &t, LOSS).loss > 0.1 {
            println!("xor {s} not solved");
            continue;
        }
        print!("xor {s}: {:.4} ", score(&n, &x, &t, LOSS).loss);
        for knife in [Knife::Obs, Knife::Obd, Knife::Magnitude] {
            let path = Surgeon::new(knife, 2.0 * how.decay).path(&n, &data, |n| bfgs(n, &x, &t, &how).map(|_| ()))?;
            let ok: Vec<String> = path.iter().map(|n| format!("{:.2}", score(n, &x, &t, LOSS).loss)).collect();
            print!("{knife:?} {} | ", ok.join(" "));
        }
        println!();
    }
    Ok(())
}
