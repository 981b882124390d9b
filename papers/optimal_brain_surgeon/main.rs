//! Optimal Brain Surgeon.
use lacuna::Result;
use lacuna::calibrate::Calibration;
use lacuna::mask::Mask;
use lacuna::metrics::score;
use lacuna::models::{Builder, Init};
use lacuna::nn::{Activation, Curvature, Loss};
use lacuna::prune::{Knife, Surgeon};
use lacuna::recover::{Bfgs, bfgs};
use lacuna::rng::Seed;
use ndarray::array;

const LOSS: Loss = Loss::SquaredError;
fn main() -> Result<()> {
    let args: Vec<f64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (decay, hi, lo, act) = (args[0], args[1] as f32, args[2] as f32, args[3]);
    let f = if act > 0.0 { Activation::Sigmoid } else { Activation::Tanh };
    let a = args[4] as f32;
    let (x, t) = (array![[a, a], [a, 1.], [1., a], [1., 1.]], array![[lo], [hi], [hi], [lo]]);
    let how = Bfgs { loss: LOSS, decay, steps: 2000, tolerance: 1e-7 };
    let mut counts = [[0; 3]; 3];
    let mut solved = 0;
    for s in 0..60 {
        let mut n = Builder::vector(2, Init::He, Seed(s)).linear(2).activation(f).linear(1).activation(f).build()?;
        bfgs(&mut n, &x, &t, &how)?;
        let base = score(&n, &x, &t, LOSS).loss;
        if base > 0.05 * f64::from(hi - lo).powi(2) {
            continue;
        }
        solved += 1;
        // brute force
        let mut after = Vec::new();
        for (name, p) in n.params() {
            for r in 0..p.value().nrows() {
                for c in 0..p.value().ncols() {
                    let mut m = n.clone();
                    let mut mask = Mask::full(p.value().nrows(), p.value().ncols());
                    mask.set(r, c, false);
                    m.param_mut(&name)?.set_mask(mask)?;
                    let obj = bfgs(&mut m, &x, &t, &how)?;
                    after.push((name.clone(), r, c, score(&m, &x, &t, LOSS).loss, obj));
                }
            }
        }
        let right: Vec<bool> = after.iter().map(|a| a.3 < 0.05 * f64::from(hi - lo).powi(2)).collect();
        let mut line = String::new();
        for (k, knife) in [Knife::Obs, Knife::Obd, Knife::Magnitude].into_iter().enumerate() {
            let data = Calibration { curvature: Curvature::GaussNewton, ..Calibration::new(&x, &t, LOSS) };
            let (m, cuts) = Surgeon::new(knife, (2.0 * decay).max(1e-7)).cut(&n, &data, 1)?;
            let i = after.iter().position(|a| (&a.0, a.1, a.2) == (&cuts[0].param, cuts[0].row, cuts[0].col)).unwrap();
            counts[k][0] += usize::from(right[i]);
            counts[k][1] += usize::from(score(&m, &x, &t, LOSS).loss < 0.05 * f64::from(hi - lo).powi(2));
            line += &format!(
                "{knife:?} {}{}{} {} {:.3} {:.4}; ",
                cuts[0].param,
                cuts[0].row,
                cuts[0].col,
                right[i],
                score(&m, &x, &t, LOSS).loss,
                after[i].3
            );
        }
        if solved < 6 {
            println!("{s} base {base:.4} right {} {line}", right.iter().filter(|r| **r).count());
        }
    }
    println!("solved {solved} counts {counts:?}");
    Ok(())
}
