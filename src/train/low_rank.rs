//! Low-rank adaptation (LoRA) that keeps masks.
//!
//! Hu et al. *LoRA: low-rank adaptation of large language models.* ICLR 2022, arXiv:2106.09685. With the mask inside the product: Zimmer et al.
//! *PERP: rethinking the prune-retrain paradigm in the era of LLMs.* 2023, arXiv:2312.15230 (MaskLoRA).
//!
//! ```text
//! W = W₀ + s · (B A ⊙ M)        s = α / r,  A (r, in),  B (out, r),  M the mask of W₀ or all ones
//! ∂/∂B = s · (∂W ⊙ M) Aᵀ        ∂/∂A = s · Bᵀ (∂W ⊙ M)
//! ```
//!
//! A begins uniform in ±1/√in, B at 0: the first step finds the model as it was. W is merged after every step, so that what runs is an
//! ordinary model: what M drops is exactly 0 in it, and nothing has to be merged, or pruned again, at the end.
//!
//! Departures: the mask is the one that is held on the weight, never read off its zeros, as the code of PERP does. W₀ is kept beside W, where
//! others keep B A apart: one copy of the layers' weights in memory, and no product more in the passes.

use crate::linalg::{Threads, gemm};
use crate::mask::Mask;
use crate::nn::{Change, Parameters, See};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewMut2, Ix2};
use std::collections::{BTreeMap, BTreeSet};

/// What an adaptation is made of.
///
/// | Name | Default | Range | Meaning |
/// |---|---|---|---|
/// | `rank` | | from 1 | r |
/// | `alpha` | 2 · `rank` | above 0 | α |
/// | `seed` | 0 | | of A |
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LowRankConfig {
    /// r
    pub rank: usize,
    /// α
    pub alpha: f32,
    /// Draws A.
    pub seed: Seed,
}

impl LowRankConfig {
    /// Of this rank, with α twice as large.
    pub fn new(rank: usize) -> LowRankConfig {
        LowRankConfig { rank, alpha: 2.0 * rank as f32, seed: Seed(0) }
    }

    /// The same with another α.
    #[must_use]
    pub fn alpha(self, alpha: f32) -> LowRankConfig {
        LowRankConfig { alpha, ..self }
    }

    /// The same with another seed.
    #[must_use]
    pub fn seed(self, seed: Seed) -> LowRankConfig {
        LowRankConfig { seed, ..self }
    }
}

/// The two factors beside one weight.
#[derive(Debug, Clone)]
struct Factors {
    base: Array2<f32>,
    mask: Option<Mask>,
    a: Array2<f32>,
    b: Array2<f32>,
}

/// The factors of some weights of a model. As [`Parameters`] they are `NAME.lora_a` and `NAME.lora_b` of each weight `NAME`.
#[derive(Debug, Clone)]
pub struct LowRank {
    factors: BTreeMap<String, Factors>,
    scale: f32,
}

const A: &str = ".lora_a";
const B: &str = ".lora_b";

impl LowRank {
    /// Factors beside these weights of a model, which they do not change yet.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the rank is 0 or above both sides of a weight, α is not a finite number above 0, or no weight is named;
    /// [`Error::UnknownName`] if the model has none of a name; [`Error::Shape`] if it is no matrix.
    pub fn new(model: &dyn Parameters, weights: &BTreeSet<String>, config: LowRankConfig) -> Result<LowRank> {
        let LowRankConfig { rank, alpha, seed } = config;
        if rank == 0 || weights.is_empty() {
            let reason = format!("rank {rank} beside {} weights; both are at least 1", weights.len());
            return Err(Error::invalid_option("lora", reason));
        }
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(Error::invalid_option("lora-alpha", format!("{alpha} is not a finite number above 0")));
        }
        let mut factors = BTreeMap::new();
        let (mut wrong, mut names) = (None, Vec::new());
        model.visit(&mut |name, values, mask| {
            names.push(name.to_string());
            if !weights.contains(name) {
                return;
            }
            match values.view().into_dimensionality::<Ix2>() {
                Ok(base) if rank <= base.nrows().min(base.ncols()) => {
                    let (out, inputs) = base.dim();
                    let a = seed.stream(&format!("lora {name}")).uniform_array(rank, inputs, 1.0 / (inputs as f32).sqrt());
                    let base = base.as_standard_layout().into_owned();
                    factors.insert(name.to_string(), Factors { base, mask: mask.cloned(), a, b: Array2::zeros((out, rank)) });
                }
                Ok(base) => {
                    let reason = format!("rank {rank} is above a side of {name}, {:?}", base.dim());
                    wrong = wrong.take().or(Some(Error::invalid_option("lora", reason)));
                }
                Err(_) => wrong = wrong.take().or(Some(Error::shape(name, &[0, 0], values.shape()))),
            }
        });
        if let Some(unknown) = weights.iter().find(|w| !names.contains(w)) {
            return Err(Error::unknown_layer(unknown, names.iter().map(String::as_str)));
        }
        match wrong {
            Some(e) => Err(e),
            None => Ok(LowRank { factors, scale: alpha / rank as f32 }),
        }
    }

    /// Gives the weights of the model what they are with the factors as they are now.
    ///
    /// # Errors
    /// If a weight cannot be changed where it is stored.
    pub fn merge_into(&self, model: &mut dyn Parameters) -> Result<()> {
        model.visit_mut(&mut |name, values, _| {
            let Some(Factors { base, mask, a, b }) = self.factors.get(name) else { return };
            let Ok(mut weight) = ArrayViewMut2::from_shape(base.dim(), values) else { return };
            gemm(self.scale, b, a, 0.0, &mut weight, Threads::Pool);
            mask.iter().for_each(|mask| mask.apply(&mut weight));
            weight += base;
        })
    }

    /// The gradients of the factors of weight `name`, from that of the weight; none if it has no factors.
    ///
    /// # Panics
    /// If the gradient has another shape than the weight.
    pub fn gradients(&self, name: &str, gradient: ArrayD<f32>) -> Vec<(String, ArrayD<f32>)> {
        let Some(Factors { base, mask, a, b }) = self.factors.get(name) else { return Vec::new() };
        assert_eq!(gradient.shape(), [base.nrows(), base.ncols()], "the gradient of {name}");
        let Ok(mut d) = gradient.into_dimensionality::<Ix2>() else { return Vec::new() };
        mask.iter().for_each(|mask| mask.apply(&mut d));
        let (mut d_a, mut d_b) = (Array2::zeros(a.dim()), Array2::zeros(b.dim()));
        gemm(self.scale, &d, &a.t(), 0.0, &mut d_b, Threads::Pool);
        gemm(self.scale, &b.t(), &d, 0.0, &mut d_a, Threads::Pool);
        vec![(format!("{name}{A}"), d_a.into_dyn()), (format!("{name}{B}"), d_b.into_dyn())]
    }

    /// The factors A and B of a weight.
    pub fn factors(&self, name: &str) -> Option<(ArrayView2<'_, f32>, ArrayView2<'_, f32>)> {
        self.factors.get(name).map(|f| (f.a.view(), f.b.view()))
    }
}

impl Parameters for LowRank {
    fn visit(&self, f: &mut See<'_>) {
        for (name, Factors { a, b, .. }) in &self.factors {
            f(&format!("{name}{A}"), a.view().into_dyn(), None);
            f(&format!("{name}{B}"), b.view().into_dyn(), None);
        }
    }

    fn visit_mut(&mut self, f: &mut Change<'_>) -> Result<()> {
        for (name, Factors { a, b, .. }) in &mut self.factors {
            f(&format!("{name}{A}"), a.as_slice_mut().expect("made in standard layout"), None);
            f(&format!("{name}{B}"), b.as_slice_mut().expect("made in standard layout"), None);
        }
        Ok(())
    }

    /// # Errors
    /// Always: masks are held on the weights, not on the factors.
    fn set_mask(&mut self, name: &str, _: Option<Mask>) -> Result<()> {
        Err(Error::invalid_option("mask", format!("{name}: masks are held on the weights beside which the factors are")))
    }
}
