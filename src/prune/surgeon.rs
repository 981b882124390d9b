//! Weights removed one at a time from a whole network, biases included: Optimal Brain Surgeon, and what it is compared with.

use crate::calibrate::Calibration;
use crate::mask::Mask;
use crate::nn::{Mode, Network};
use crate::solve::{InverseHessian, obs};
use crate::{Error, Result};
use ndarray::{Array2, Axis, s};
use serde::{Deserialize, Serialize};

/// Which parameter goes next, and what the others do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Criterion {
    /// Optimal Brain Surgeon: least w² / (2 [H⁻¹]_qq); the others answer.
    Obs,
    /// Optimal Brain Damage: least ½ h w²; the others stay.
    Obd,
    /// Least |w|; the others stay.
    Magnitude,
}

/// Removes parameters of a network one at a time.
///
/// The Hessian is the Gauss-Newton matrix of the mean loss over all parameters together, one vector for each output and
/// sample, plus α I. With weight decay `λ Σ w²` in training, α = 2λ makes it the Hessian of what was minimised; without it, α is
/// the small number that Hassibi and Stork begin with, from 1e-8 to 1e-4.
///
/// ```
/// use lacuna::{calibrate::Calibration, models::{Init, mlp}, nn::{Activation, Loss}, prune::{Criterion, Surgeon}, rng::Seed};
/// use ndarray::array;
/// let net = mlp(&[2, 1], Activation::Tanh, Init::LeCun, Seed(0))?;
/// let (x, t) = (array![[1., 0.], [0., 1.], [1., 1.]], array![[1.], [0.], [1.]]);
/// let (smaller, cuts) = Surgeon::new(Criterion::Obs, 1e-4).cut(&net, &Calibration::new(&x, &t, Loss::SquaredError), 1)?;
/// assert_eq!((cuts.len(), smaller.kept_parameters()), (1, 2));
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Surgeon {
    /// Which goes next.
    pub criterion: Criterion,
    /// α, added to the diagonal of the Hessian.
    pub alpha: f64,
}

/// One parameter that went.
#[derive(Debug, Clone, PartialEq)]
pub struct Removed {
    /// The parameter's matrix, for example `fc1.bias`.
    pub param: String,
    /// Row within it.
    pub row: usize,
    /// Column within it.
    pub col: usize,
    /// The predicted increase of the loss; for magnitude |w|.
    pub saliency: f64,
}

impl Surgeon {
    /// A surgeon with this knife and α.
    pub fn new(criterion: Criterion, alpha: f64) -> Self {
        Surgeon { criterion, alpha }
    }

    /// The inverse Hessian over all parameters, in the order of [`Network::params`], each row-major; what a mask dropped is taken out.
    ///
    /// # Errors
    /// If there are no samples, they do not fit the network, α is not positive, or a derivative is not finite.
    pub fn inverse(&self, network: &Network, data: &Calibration<'_>) -> Result<InverseHessian> {
        let gone = dropped(network);
        let samples = check(network, data)?;
        let mut inverse = InverseHessian::new(network.parameters(), self.alpha)?;
        for from in (0..samples).step_by(data.batch.max(1)) {
            let span = s![from..(from + data.batch.max(1)).min(samples), ..];
            let tape = network.run(data.x.slice(span).to_owned(), Mode::Eval);
            for root in data.loss.curvature_roots(tape.output(), &data.target.slice(span).to_owned()) {
                let rows = network.sample_gradients(&tape, root);
                for (sample, row) in rows.axis_iter(Axis(0)).enumerate() {
                    let mut row = row.mapv(f64::from);
                    if let Some(col) = row.iter().position(|v| !v.is_finite()) {
                        let what = "derivatives (samples, parameters)".into();
                        return Err(Error::NotFinite { what, row: from + sample, col, value: row[col] });
                    }
                    gone.iter().for_each(|&q| row[q] = 0.0);
                    inverse.absorb(&row, samples as f64);
                }
            }
        }
        gone.iter().for_each(|&q| inverse.remove(q));
        Ok(inverse)
    }

    /// Removes `count` parameters: a new network, masks held, and what went in order. The Hessian is measured once; call again for
    /// each removal to measure it anew.
    ///
    /// # Errors
    /// As [`Surgeon::inverse`]; if fewer than `count` parameters are left.
    pub fn cut(&self, network: &Network, data: &Calibration<'_>, count: usize) -> Result<(Network, Vec<Removed>)> {
        let mut w: Vec<f64> = network.params().iter().flat_map(|(_, p)| p.value().iter().map(|&w| f64::from(w))).collect();
        let mut inverse = match self.criterion {
            Criterion::Obs => self.inverse(network, data)?,
            Criterion::Obd | Criterion::Magnitude => self.diagonal(network, data)?,
        };
        let may_go = inverse.left().to_vec();
        let mut cuts = obs::surgery(&mut w, &mut inverse, &may_go, count)?;
        if self.criterion == Criterion::Magnitude {
            cuts.iter_mut().for_each(|c| c.saliency = (2.0 * c.saliency).sqrt());
        }
        let mut smaller = network.clone();
        let (mut from, mut removed) = (0, vec![None; cuts.len()]);
        for (name, param) in smaller.params_mut() {
            let (rows, cols) = param.value().dim();
            let mut mask = param.mask().cloned().unwrap_or_else(|| Mask::full(rows, cols));
            for (cut, out) in cuts.iter().zip(&mut removed).filter(|(c, _)| (from..from + rows * cols).contains(&c.index)) {
                let (row, col) = ((cut.index - from) / cols, (cut.index - from) % cols);
                mask.set(row, col, false);
                *out = Some(Removed { param: name.clone(), row, col, saliency: cut.saliency });
            }
            param.set_value(Array2::from_shape_fn((rows, cols), |(r, c)| w[from + r * cols + c] as f32))?;
            if mask.kept() < mask.len() {
                param.set_mask(mask)?;
            }
            from += rows * cols;
        }
        Ok((smaller, removed.into_iter().flatten().collect()))
    }

    /// A diagonal "inverse" under which surgery is Optimal Brain Damage, or (of I) magnitude: nothing answers.
    fn diagonal(&self, network: &Network, data: &Calibration<'_>) -> Result<InverseHessian> {
        check(network, data)?;
        let gone = dropped(network);
        let h: Vec<f64> = if self.criterion == Criterion::Magnitude {
            vec![1.0; network.parameters()]
        } else {
            let (x, target) = (data.x.to_owned(), data.target.to_owned());
            let h = network.curvature(&x, &target, data.loss, data.curvature);
            h.iter().flatten().map(|&h| f64::from(h) + self.alpha).collect()
        };
        let mut inverse = InverseHessian::of_diagonal(&h)?;
        gone.iter().for_each(|&q| inverse.remove(q));
        Ok(inverse)
    }

    /// All networks on the way down: the one given, then one parameter fewer each time, measured anew and recovered by
    /// `recover(network)` after each removal, to the last that has a parameter.
    ///
    /// # Errors
    /// As [`Surgeon::cut`]; those of `recover`.
    pub fn path(
        &self,
        network: &Network,
        data: &Calibration<'_>,
        mut recover: impl FnMut(&mut Network) -> Result<()>,
    ) -> Result<Vec<Network>> {
        let mut path = vec![network.clone()];
        let mut now = network.clone();
        while now.kept_parameters() > 1 {
            now = self.cut(&now, data, 1)?.0;
            recover(&mut now)?;
            path.push(now.clone());
        }
        Ok(path)
    }

    /// The smallest network on two ways down that is good `enough` once recovered: recovered after each removal, and, as Hassibi
    /// and Stork do, only where the removal has made it worse than enough. The network given if none is.
    ///
    /// # Errors
    /// As [`Surgeon::path`].
    pub fn smallest(
        &self,
        network: &Network,
        data: &Calibration<'_>,
        recover: impl Fn(&mut Network) -> Result<()>,
        enough: impl Fn(&Network) -> bool,
    ) -> Result<Network> {
        let mut smallest = network.clone();
        for always in [true, false] {
            let again = |n: &mut Network| if always || !enough(n) { recover(n) } else { Ok(()) };
            for mut n in self.path(network, data, again)?.into_iter().skip(1) {
                recover(&mut n)?;
                if n.kept_parameters() < smallest.kept_parameters() && enough(&n) {
                    smallest = n;
                }
            }
        }
        Ok(smallest)
    }
}

/// Indices, over all parameters, of what masks dropped.
fn dropped(network: &Network) -> Vec<usize> {
    let (mut from, mut gone) = (0, Vec::new());
    for (_, p) in network.params() {
        if let Some(mask) = p.mask() {
            gone.extend(mask.not().iter_kept().map(|(r, c)| from + r * mask.cols() + c));
        }
        from += p.value().len();
    }
    gone
}

fn check(network: &Network, data: &Calibration<'_>) -> Result<usize> {
    let samples = data.x.nrows();
    let outputs = network.outputs();
    let expected = [samples.max(1), network.inputs(), samples.max(1), outputs];
    let found = [samples, data.x.ncols(), data.target.nrows(), data.target.ncols()];
    if expected == found { Ok(samples) } else { Err(Error::shape("samples and targets of a surgeon", &expected, &found)) }
}
