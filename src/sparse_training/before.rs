//! Pruning at initialisation: SNIP, iterative SNIP, GraSP, SynFlow.
//!
//! Lee, Ajanthan, Torr. *SNIP.* ICLR 2019, arXiv:1810.02340 (one round). Wang, Zhang, Grosse. *GraSP.* ICLR 2020, arXiv:2002.07376 (one round).
//! Verdenius, Stol, Forré. *Pruning via iterative ranking of sensitivity statistics.* 2020, arXiv:2006.00896, and de Jorge et al. *Progressive skeletonization.* ICLR 2021,
//! arXiv:2006.09081 (SNIP in rounds). Tanaka, Kunin, Yamins, Ganguli. *Pruning neural networks without any data by iteratively conserving synaptic flow.* NeurIPS 2020,
//! arXiv:2006.05467, algorithm 1 (100 rounds).
//!
//! ```text
//! in round k of n:   scores of the masked model;   keep the ρ^{−k/n} of largest score over all layers,   ρ the compression ratio
//! ```
//!
//! The scores are criteria: [`Snip`](crate::criteria::Snip), [`Grasp`](crate::criteria::Grasp), [`SynFlow`](crate::criteria::SynFlow), whose flow is scaled layer by
//! layer, so that it neither overflows nor vanishes in deep models. What went does not come back.
//!
//! Cost: what the criterion costs, n times.

use crate::allocate::{Allocate, Target};
use crate::criteria::Saliency;
use crate::mask::{Mask, Pattern, Scope};
use crate::nn::{Model, Samples};
use crate::prune::{Pruning, Schedule, iterative};
use crate::{Error, Result};

/// Masks an initialised model to `sparsity` in `rounds` rounds, ranking by `saliency` under `allocate` ([`Global`](crate::allocate::Global) in the papers), and gives the masked model and its masks.
///
/// ```
/// use lacuna::allocate::Global;
/// use lacuna::calibrate::Calibration;
/// use lacuna::criteria::SynFlow;
/// use lacuna::models::{Init, mlp};
/// use lacuna::nn::{Activation, Loss};
/// use lacuna::rng::Seed;
/// use lacuna::sparse_training::prune_before_training;
/// use ndarray::Array2;
/// let net = mlp(&[20, 30, 30, 5], Activation::Relu, Init::He, Seed(0))?;
/// // SynFlow looks at no sample.
/// let (x, t) = (Array2::zeros((1, 20)), Array2::zeros((1, 5)));
/// let (_, masks) = prune_before_training(&net, &Calibration::new(&x, &t, Loss::SquaredError), &SynFlow, &Global, 0.99, 100)?;
/// assert_eq!(masks.iter().map(|(_, m)| m.kept()).sum::<usize>(), 16); // of 1650
/// assert!(masks.iter().all(|(_, m)| m.kept() > 0)); // no layer collapses
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// As [`iterative`]; if there are no rounds.
pub fn prune_before_training<M, S>(
    model: &M,
    data: &S,
    saliency: &dyn Saliency,
    allocate: &dyn Allocate,
    sparsity: f64,
    rounds: usize,
) -> Result<(M, Vec<(String, Mask)>)>
where
    M: Model + Clone,
    S: Samples<Batch = M::Batch>,
{
    if rounds == 0 {
        return Err(Error::invalid_option("rounds", "0; scores are taken in 1 or more"));
    }
    let (pattern, scope, target) = (Pattern::Unstructured, Scope::Layer, Target::Sparsity(sparsity));
    let pruning = Pruning { saliency, allocate, target, pattern, scope, skip: &[] };
    let found = iterative(model, data, &pruning, Schedule::Exponential { steps: rounds }, sparsity, |_, _| Ok(()))?;
    Ok((found.model, found.masks))
}
