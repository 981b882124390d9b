//! MUNGE: samples that look like the given ones, for a student to be taught on.
//!
//! Bucilă, Caruana, Niculescu-Mizil. *Model compression.* KDD 2006, algorithm 1.
//!
//! ```text
//! k times:  T' = T
//!           for every sample e of T', e' the sample of T' nearest to e:
//!               for every attribute a, with probability p:
//!                   continuous:  sd = |e_a − e'_a| / s,  e_a ← N(e'_a, sd),  e'_a ← N(e_a, sd)
//!                   nominal:     e_a and e'_a change places
//!           T' is added to the result
//! ```
//!
//! Distances are Euclidean over the continuous attributes, which should have one scale, and count 1 for each nominal attribute that
//! differs. No label is needed: the teacher labels what comes out.
//!
//! Cost: `k n² d` for `n` samples of `d` attributes.

use crate::mask::{check_finite, check_finite_from};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::{Array2, ArrayRef2, ArrayView1, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The settings of [`munge`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Munge {
    /// k: so many times as many samples come out as go in.
    pub times: usize,
    /// p: the probability that an attribute changes.
    pub swap: f32,
    /// s: the larger, the nearer to the neighbour's value.
    pub variance: f32,
    /// Of all randomness.
    pub seed: Seed,
}

/// `(times * n, d)` samples made of `x (n, d)`; `nominal` says of each attribute whether its values only have names.
///
/// # Errors
/// If there are fewer than two samples, `swap` is not in [0, 1], `variance` is not positive, `nominal` has another length, a number is
/// not finite, given or made (with a variance near 0), or so many samples are beyond counting.
pub fn munge(x: &ArrayRef2<f32>, nominal: &[bool], how: &Munge) -> Result<Array2<f32>> {
    let (n, d) = x.dim();
    if n < 2 || nominal.len() != d {
        return Err(Error::shape("samples and kinds of attributes to munge", &[n.max(2), d], &[n, nominal.len()]));
    }
    let sound = (0.0..=1.0).contains(&how.swap) && how.variance > 0.0 && how.variance.is_finite();
    if !sound {
        let reason = format!("swap {} must be in [0, 1], variance {} positive", how.swap, how.variance);
        return Err(Error::invalid_option("munge", reason));
    }
    check_finite(x, "samples")?;
    let mut random = how.seed.stream("munge");
    let Some(made) =
        how.times.checked_mul(n).filter(|made| made.checked_mul(d.max(1)).is_some_and(|all| all < isize::MAX as usize / 4))
    else {
        return Err(Error::invalid_option(
            "munge",
            format!("{} times {n} samples of {d} attributes are beyond any memory", how.times),
        ));
    };
    let mut all = Array2::zeros((made, d));
    for time in 0..how.times {
        let mut t = x.to_owned();
        for e in 0..n {
            let other = nearest(&t, e, nominal);
            for a in 0..d {
                if random.uniform() >= how.swap {
                    continue;
                }
                let (mine, its) = (t[[e, a]], t[[other, a]]);
                if nominal[a] {
                    (t[[e, a]], t[[other, a]]) = (its, mine);
                } else {
                    let sd = (mine - its).abs() / how.variance;
                    (t[[e, a]], t[[other, a]]) = (its + sd * random.normal(), mine + sd * random.normal());
                }
            }
        }
        check_finite_from(&t, &format!("samples made with variance {}", how.variance), time * n)?;
        all.slice_mut(s![time * n..(time + 1) * n, ..]).assign(&t);
    }
    Ok(all)
}

/// The row nearest to row `e`, of equals the first.
fn nearest(t: &Array2<f32>, e: usize, nominal: &[bool]) -> usize {
    let from = t.row(e);
    let distance = |row: ArrayView1<'_, f32>| -> f32 {
        let parts = from.iter().zip(row).zip(nominal);
        parts.map(|((&a, &b), &nominal)| if nominal { f32::from(u8::from(a != b)) } else { (a - b) * (a - b) }).sum()
    };
    let best = |rows: std::ops::Range<usize>| {
        rows.filter(|&r| r != e).map(|r| (distance(t.row(r)), r)).min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    };
    let chunks: Vec<usize> = (0..t.nrows()).step_by(1024).collect();
    let found = chunks.into_par_iter().filter_map(|from| best(from..(from + 1024).min(t.nrows())));
    found.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map_or(e, |(_, r)| r)
}
