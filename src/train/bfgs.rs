//! BFGS (Broyden, Fletcher, Goldfarb, Shanno 1970): to a minimum, for networks of a few hundred parameters.
//!
//! ```text
//! p = − B g,  w ← w + t p,  s = t p,  y = g' − g
//! B ← (I − s yᵀ/yᵀs) B (I − y sᵀ/yᵀs) + s sᵀ/yᵀs
//! ```
//!
//! with `t` halved from 1 until the objective falls by at least `1e-4 t |gᵀp|` (Armijo). A step with `yᵀs ≤ 0` leaves B as it was.
//! The objective is the mean loss over all samples plus `decay · Σ w²` over all parameters that no mask drops. Second-order
//! pruning assumes a network at a minimum; stochastic training does not take it there.
//!
//! Cost: n² memory, and n² a step beside a pass over all samples.

use crate::nn::{Loss, Mode, Network};
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayRef2};
use serde::{Deserialize, Serialize};

/// How to minimise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bfgs {
    /// What is made small.
    pub loss: Loss,
    /// λ of the term λ Σ w², biases included.
    pub decay: f64,
    /// The most steps.
    pub steps: usize,
    /// Stops where no entry of the gradient is larger.
    pub tolerance: f64,
}

/// Minimises over the parameters that no mask drops, and returns the objective at the end. The same bits for any number of threads.
///
/// # Errors
/// If there are no samples, the data do not fit the network, decay or tolerance is not a finite number of at least 0, the objective at the
/// beginning is not finite, or a gradient is not (naming the parameter).
pub fn bfgs(network: &mut Network, x: &ArrayRef2<f32>, target: &ArrayRef2<f32>, how: &Bfgs) -> Result<f64> {
    let outputs = network.layers().iter().fold(network.inputs(), |f, (_, l)| l.outputs(f));
    let (expected, found) =
        ([x.nrows().max(1), network.inputs(), x.nrows().max(1), outputs], [x.nrows(), x.ncols(), target.nrows(), target.ncols()]);
    if expected != found {
        return Err(Error::shape("samples and targets of BFGS", &expected, &found));
    }
    for (option, value) in [("decay", how.decay), ("tolerance", how.tolerance)] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(Error::invalid_option(option, format!("{value}; it must be a finite number of at least 0")));
        }
    }
    let (x, target) = (x.to_owned(), target.to_owned());
    let free = free_parameters(network);
    let n = free.len();
    let mut w = gather(network, &free);
    let (mut f, mut g) = objective(network, &x, &target, how, &free, &w)?;
    if !f.is_finite() {
        return Err(Error::Numerical { what: "BFGS".into(), reason: format!("the objective begins at {f}") });
    }
    let mut b = Array2::<f64>::eye(n);
    let mut fresh = true;
    for _ in 0..how.steps {
        if g.iter().all(|g| g.abs() <= how.tolerance) {
            break;
        }
        let mut p = -b.dot(&g);
        let mut slope = g.dot(&p);
        if slope >= 0.0 {
            (b, p, fresh) = (Array2::eye(n), -g.clone(), true);
            slope = -g.dot(&g);
        }
        let Some((next_w, next_f, next_g)) = search(network, &x, &target, how, &free, (&w, f, &p, slope, fresh))? else {
            if fresh {
                break; // along the gradient itself nothing falls any more: rounding
            }
            (b, fresh) = (Array2::eye(n), true);
            continue;
        };
        let (s, y) = (&next_w - &w, &next_g - &g);
        let sy = s.dot(&y);
        if sy > 1e-12 * s.dot(&s).sqrt() * y.dot(&y).sqrt() {
            if fresh {
                b = Array2::from_diag_elem(n, sy / y.dot(&y));
            }
            update(&mut b, &s, &y, sy);
            fresh = false;
        }
        (w, f, g) = (next_w, next_f, next_g);
    }
    scatter(network, &free, &w)?;
    Ok(f)
}

/// Backtracking from `(w, f, p, slope, fresh)`: the point, its objective and its gradient, or nothing if none is lower.
type Point = (Array1<f64>, f64, Array1<f64>);
fn search(
    network: &mut Network,
    x: &Array2<f32>,
    target: &Array2<f32>,
    how: &Bfgs,
    free: &[(usize, usize)],
    (w, f, p, slope, fresh): (&Array1<f64>, f64, &Array1<f64>, f64, bool),
) -> Result<Option<Point>> {
    // The first step along the bare gradient has no scale of its own.
    let mut t = if fresh { (1.0 / p.dot(p).sqrt()).min(1.0) } else { 1.0 };
    for _ in 0..40 {
        // As the network will hold it, so that steps and gradients belong together.
        let next = (w + t * p).mapv(|w| f64::from(w as f32));
        let (value, gradient) = objective(network, x, target, how, free, &next)?;
        if value <= f + 1e-4 * t * slope && value < f {
            return Ok(Some((next, value, gradient)));
        }
        t *= 0.5;
    }
    Ok(None)
}

/// The BFGS update of the inverse.
fn update(b: &mut Array2<f64>, s: &Array1<f64>, y: &Array1<f64>, sy: f64) {
    let by = b.dot(y);
    let scale = (1.0 + y.dot(&by) / sy) / sy;
    for (i, mut row) in b.rows_mut().into_iter().enumerate() {
        for (j, b) in row.iter_mut().enumerate() {
            *b += scale * s[i] * s[j] - (by[i] * s[j] + s[i] * by[j]) / sy;
        }
    }
}

/// Parameter and place within it of every number that no mask drops.
fn free_parameters(network: &Network) -> Vec<(usize, usize)> {
    let mut free = Vec::new();
    for (k, (_, p)) in network.params().iter().enumerate() {
        let cols = p.value().ncols();
        free.extend((0..p.value().len()).filter(|i| p.mask().is_none_or(|m| m.get(i / cols, i % cols))).map(|i| (k, i)));
    }
    free
}

fn gather(network: &Network, free: &[(usize, usize)]) -> Array1<f64> {
    let params = network.params();
    free.iter().map(|&(k, i)| f64::from(params[k].1.as_slice()[i])).collect()
}

fn scatter(network: &mut Network, free: &[(usize, usize)], w: &Array1<f64>) -> Result<()> {
    let mut values: Vec<Array2<f32>> = network.params().iter().map(|(_, p)| p.value().clone()).collect();
    for (&(k, i), &w) in free.iter().zip(w) {
        let cols = values[k].ncols();
        values[k][[i / cols, i % cols]] = w as f32;
    }
    network.params_mut().into_iter().zip(values).try_for_each(|((_, p), v)| p.set_value(v))
}

/// Mean loss plus decay, and its gradient in the free parameters.
fn objective(
    network: &mut Network,
    x: &Array2<f32>,
    target: &Array2<f32>,
    how: &Bfgs,
    free: &[(usize, usize)],
    w: &Array1<f64>,
) -> Result<(f64, Array1<f64>)> {
    scatter(network, free, w)?;
    let (loss, gradients) = network.gradient(x, target, how.loss, Mode::Eval);
    let g = |(&(k, i), &w): (&(usize, usize), &f64)| {
        let cols = gradients[k].ncols();
        f64::from(gradients[k][[i / cols, i % cols]]) + 2.0 * how.decay * w
    };
    let (value, gradient) = (loss + how.decay * w.dot(w), free.iter().zip(w).map(g).collect::<Array1<f64>>());
    // Where the objective is not finite the search steps back; a gradient that is not would end it as if this were the minimum.
    if let Some(at) = gradient.iter().position(|g| !g.is_finite()).filter(|_| value.is_finite()) {
        let ((k, i), params) = (free[at], network.params());
        let (name, param) = &params[k];
        let cols = param.value().ncols();
        let error = Error::NotFinite { what: "gradient".into(), row: i / cols, col: i % cols, value: gradient[at] };
        return Err(error.in_layer(name));
    }
    Ok((value, gradient))
}
