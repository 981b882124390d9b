//! Optimal Brain Surgeon: the weight whose removal costs least when all others may answer, and their answer.
//!
//! Hassibi, Stork. *Second order derivatives for network pruning: Optimal Brain Surgeon.* NeurIPS 1992 (equations 5 and 6);
//! Hassibi, Stork, Wolff. *Optimal Brain Surgeon and general network pruning.* ICNN 1993.
//!
//! ```text
//! minimise ½ δwᵀ H δw  subject to  w_q + δw_q = 0:
//!
//! δw  = − w_q / [H⁻¹]_qq · H⁻¹ e_q
//! L_q = w_q² / (2 [H⁻¹]_qq)                 the increase of the loss
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | w | all parameters that are left, as one vector |
//! | H | the Hessian of the mean loss, as the inverse [`InverseHessian`] |
//! | q | the parameter that goes |
//!
//! If H is diagonal this is Optimal Brain Damage; if it is a multiple of I, magnitude. After a removal the inverse over what is left is
//! had by one downdate, and under a quadratic loss the weights are again at the minimum over what is left: the sum of the L_q
//! is the whole increase, whatever the order of removal.
//!
//! [`surgery`] works on a vector and an inverse. [`prune::surgeon`](crate::prune::Surgeon) makes both from a network.
//!
//! Cost: n² a removal, in time and memory.

use crate::solve::InverseHessian;
use crate::{Error, Result};

/// What [`surgery`] did: which parameter went, and the increase of the loss that was predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// The parameter.
    pub index: usize,
    /// L_q.
    pub saliency: f64,
}

/// L_q = w_q² / (2 [H⁻¹]_qq) of every parameter that is left; infinity for those that are not.
///
/// # Panics
/// If the vector has not as many entries as the inverse.
pub fn saliencies(weights: &[f64], inverse: &InverseHessian) -> Vec<f64> {
    assert_eq!(weights.len(), inverse.len(), "weights and inverse Hessian differ in length");
    let diagonal = inverse.matrix().diag();
    let saliency = |(q, &w): (usize, &f64)| if inverse.left()[q] { w * w / (2.0 * diagonal[q]) } else { f64::INFINITY };
    weights.iter().enumerate().map(saliency).collect()
}

/// Removes parameter `q`: the others answer, `w_q` becomes exactly 0, and the inverse goes on without it. Returns L_q.
///
/// ```
/// use lacuna::solve::{InverseHessian, obs};
/// use ndarray::array;
/// // E = ½ δwᵀ H δw around w = (1, 3): the first weight goes, the second takes over half of what it did.
/// let mut inverse = InverseHessian::of(&array![[2., 1.], [1., 2.]])?;
/// let mut w = [1., 3.];
/// let saliency = obs::remove(&mut w, &mut inverse, 0);
/// assert!((w[1] - 3.5).abs() < 1e-15 && w[0] == 0.0 && (saliency - 0.75).abs() < 1e-15);
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Panics
/// If the lengths differ, or `q` is not left.
pub fn remove(weights: &mut [f64], inverse: &mut InverseHessian, q: usize) -> f64 {
    let saliency = saliencies(weights, inverse)[q];
    assert!(inverse.left()[q], "parameter {q} was removed before");
    let column = inverse.matrix().column(q);
    let step = weights[q] / column[q];
    weights.iter_mut().zip(column).for_each(|(w, &h)| *w -= step * h);
    inverse.remove(q);
    weights.iter_mut().zip(inverse.left()).filter(|(_, left)| !**left).for_each(|(w, _)| *w = 0.0);
    saliency
}

/// Removes `count` parameters, each time the one of least L_q (of equals the first) among those that `may_go`.
///
/// # Errors
/// If fewer than `count` are left to go, a saliency is not finite, or rounding has made an entry of the inverse's diagonal 0 or less.
///
/// # Panics
/// If the lengths differ.
pub fn surgery(weights: &mut [f64], inverse: &mut InverseHessian, may_go: &[bool], count: usize) -> Result<Vec<Cut>> {
    assert_eq!(weights.len(), may_go.len(), "weights and permissions differ in length");
    let mut cuts = Vec::with_capacity(count.min(weights.len()));
    for gone in 0..count {
        let all = saliencies(weights, inverse);
        let mut best: Option<Cut> = None;
        for (index, &saliency) in all.iter().enumerate().filter(|(q, _)| may_go[*q] && inverse.left()[*q]) {
            let diagonal = inverse.matrix()[[index, index]];
            if diagonal <= 0.0 {
                let reason =
                    format!("rounding has made entry {index} of the inverse's diagonal {diagonal}; a larger alpha would help");
                return Err(Error::Numerical { what: "inverse Hessian".into(), reason });
            }
            if !saliency.is_finite() {
                return Err(Error::NotFinite { what: "saliencies".into(), row: 0, col: index, value: saliency });
            }
            if best.is_none_or(|b| saliency < b.saliency) {
                best = Some(Cut { index, saliency });
            }
        }
        let Some(cut) = best else {
            return Err(Error::invalid_option(
                "count",
                format!("{count} parameters are to go, and after {gone} none is left to go"),
            ));
        };
        remove(weights, inverse, cut.index);
        cuts.push(cut);
    }
    Ok(cuts)
}
