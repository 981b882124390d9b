//! ALPS: the mask by splitting the problem in two, then least squares on it.
//!
//! Meng, Behdin, Wang, Mazumder. *ALPS: improved optimization for highly sparse one-shot pruning for large language models.*
//! NeurIPS 2024, arXiv:2406.07831, equations 4 to 8 and algorithm 2; the schedule of ρ as in the authors' code.
//!
//! ```text
//! min ‖X (B − W)ᵀ‖²  with B = D and D of the pattern:
//!     B ← (W H − V + ρ D) (H + ρ I)⁻¹
//!     D ← the weights of B + V/ρ that the pattern keeps, largest squares first
//!     V ← V + ρ (B − D)
//! then conjugate gradients on the support of B's largest
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | H | the damped Gram matrix in the scale in which its diagonal is 1; W, B, D, V in that scale |
//! | ρ | from 0.1; every 3 steps × 1.3, 1.2 or 1.1 as the mask changed by more than 10 %, 0.5 % or at all; ÷ 5 and from the start while it never changed |
//!
//! H is diagonalised once, in f64; (H + ρI)⁻¹ is then one product for each ρ, and each step one product, in f32.
//!
//! Departures: D is ranked exactly (ties to the lower index), within rows if the scope says so; a layer's error never comes out above
//! that of its start, since the better of both is returned.
//!
//! Cost: `in² (out + in / 3)` multiplications a step, of which there are 30 to 150 as a rule; the eigenvalues of H.

use super::layer::{Damped, checked_weight, damped, explain, finish, squared_error};
use super::reconstruct::gradients_unit;
use super::scored::lower;
use super::{Pruned, Pruner};
use crate::criteria::{Evidence, Need, Needs};
use crate::linalg::{Threads, cholesky, eigh, for_entries, gemm};
use crate::mask::{Budget, Mask, Pattern, Scope, select};
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, Axis};
use serde::{Deserialize, Serialize};

/// ALPS; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Alps {
    /// The fraction of the mean diagonal that is added to the diagonal.
    pub damping: f64,
    /// ρ at the start.
    pub rho: f64,
    /// Steps at most.
    pub steps: usize,
    /// Steps of conjugate gradients on the final mask.
    pub back_solve: usize,
}

impl Default for Alps {
    /// The authors' settings: 1 % damping, ρ = 0.1, 300 steps at most, 10 steps of conjugate gradients.
    fn default() -> Self {
        Alps { damping: 0.01, rho: 0.1, steps: 300, back_solve: 10 }
    }
}

/// Steps from one look at the mask to the next.
const LOOK: usize = 3;
/// Steps after which a mask that changes by less than [`SETTLED`] is final.
const SWITCH: usize = 30;
const SETTLED: f64 = 3e-4;

impl Pruner for Alps {
    fn name(&self) -> &str {
        "alps"
    }

    fn needs(&self) -> Needs {
        Needs::none().and(Need::Gram)
    }

    fn prune(&self, layer: &Evidence<'_>, pattern: Pattern, scope: Scope, budget: Budget) -> Result<Pruned> {
        let mut weight = checked_weight(layer, pattern, scope, budget)?;
        if !(self.rho.is_finite() && self.rho > 0.0) {
            return Err(Error::invalid_option("rho", format!("{} is not a finite number above 0; 0.1 is usual", self.rho)));
        }
        let Damped { matrix, dead } = damped(self.name(), layer, self.damping)?;
        // ρ alone would make a singular matrix solvable, and the back solve would not see it.
        cholesky(&matrix).map_err(|e| explain(e, layer, self.damping))?;
        for (mut column, _) in weight.columns_mut().into_iter().zip(&dead).filter(|(_, dead)| **dead) {
            column.fill(0.0);
        }
        let scale = matrix.diag().mapv(f64::sqrt);
        let unit = Array2::from_shape_fn(matrix.dim(), |(i, j)| matrix[[i, j]] / (scale[i] * scale[j]));
        let choose = |values: &Array2<f32>| -> Result<Mask> {
            let mut scores = values.mapv(|v| v * v);
            if let Some(old) = layer.mask {
                lower(&mut scores, old, pattern);
            }
            let mask = select(&scores, pattern, scope, budget)?;
            Ok(layer.mask.map_or_else(|| mask.clone(), |old| mask.and(old)))
        };
        let up = scale.mapv(|s| s as f32);
        let target = weight * &up;
        let unit32 = unit.mapv(|v| v as f32);
        let settled = self.split(&target, &unit, &unit32, budget.keep(), &choose)?;
        let start = choose(&target)?;
        let mut best: Option<(f64, Mask, Array2<f32>)> = None;
        for mask in [choose(&settled)?, start] {
            let mut x = mask.applied(&settled);
            gradients_unit(&target, &mask, &mut x, &unit32, self.back_solve, 1e-4);
            let error = squared_error(&x, &target, &unit);
            if !error.is_finite() {
                let reason = format!("its error comes out as {error}; raise the damping, or scale the inputs");
                return Err(Error::Numerical { what: self.name().into(), reason }.in_layer(layer.layer));
            }
            if best.as_ref().is_none_or(|(least, ..)| error < *least) {
                best = Some((error, mask, x));
            }
        }
        let Some((_, mask, x)) = best else { unreachable!("two masks were tried") };
        finish(layer, mask, x / &up)
    }
}

impl Alps {
    /// B after the last step.
    fn split(
        &self,
        target: &Array2<f32>,
        unit: &Array2<f64>,
        unit32: &Array2<f32>,
        keep: usize,
        choose: &dyn Fn(&Array2<f32>) -> Result<Mask>,
    ) -> Result<Array2<f32>> {
        let spectrum = eigh(unit)?;
        let values: Vec<f64> = spectrum.values.iter().map(|v| v.max(0.0)).collect();
        let vectors = spectrum.vectors.mapv(|v| v as f32);
        let mut right = Array2::zeros(target.dim());
        gemm(1.0, target, unit32, 0.0, &mut right, Threads::Pool);

        let first = choose(target)?;
        let (mut rho, mut moved) = (self.rho, false);
        let mut d = first.applied(target);
        let mut v = Array2::<f32>::zeros(target.dim());
        let mut b = target.clone();
        let mut before = first.clone();
        let mut inverse = shifted_inverse(&values, &vectors, rho);
        let mut side = Array2::<f32>::zeros(target.dim());
        for step in 1..=self.steps {
            let r = rho as f32;
            for_entries(&mut side, [&right, &v, &d], |_, [g, v, d]| g - v + r * d);
            gemm(1.0, &side, &inverse, 0.0, &mut b, Threads::Pool);
            for_entries(&mut d, [&b, &v], |_, [b, v]| b + v / r);
            let mask = choose(&d)?;
            mask.apply(&mut d);
            for_entries(&mut v, [&b, &d], |v, [b, d]| v + r * (b - d));
            if step % LOOK != 0 {
                continue;
            }
            let changed = mask.xor(&before).kept() as f64;
            let share = changed / keep.max(1) as f64;
            before = mask;
            if share > 0.1 {
                (rho, moved) = (rho * 1.3, true);
            } else if share > 0.005 {
                (rho, moved) = (rho * 1.2, true);
            } else if changed > 0.5 && moved {
                rho *= 1.1;
            } else if changed > 0.5 {
                rho /= 5.0;
                (d, b) = (first.applied(target), target.clone());
                v.fill(0.0);
            } else if moved {
                break;
            } else {
                rho /= 5.0;
            }
            if step >= SWITCH && share < SETTLED {
                break;
            }
            rho = rho.clamp(1e-9, 1e6);
            inverse = shifted_inverse(&values, &vectors, rho);
        }
        Ok(b)
    }
}

/// (H + ρI)⁻¹ from the eigenvalues and eigenvectors of H.
fn shifted_inverse(values: &[f64], vectors: &ArrayRef2<f32>, rho: f64) -> Array2<f32> {
    let mut scaled = vectors.to_owned();
    for (mut column, value) in scaled.axis_iter_mut(Axis(1)).zip(values) {
        let factor = (1.0 / (value + rho)) as f32;
        column.mapv_inplace(|v| v * factor);
    }
    let mut inverse = Array2::zeros(vectors.dim());
    gemm(1.0, &scaled, &vectors.t(), 0.0, &mut inverse, Threads::Pool);
    inverse
}
