//! The methods and allocations of this library.

use super::methods::{Allocation, Kind, Methods, PruneMethod};
use super::settings::PruneJob;
use crate::allocate::{Er, Erk, Global, Lamp, Uniform};
use crate::criteria::{Fisher, Magnitude, MagnitudeNorm, Random, Ria, Taylor, Wanda};
use crate::quantize::AffineGrid;
use crate::rng::Seed;
use crate::solve::{Alps, D2Prune, DsNoT, ExactObs, Order, Scored, SparseGpt, WoodFisher};

impl Methods {
    /// The methods and allocations of this library.
    ///
    /// ```
    /// use lacuna::job::Methods;
    /// let standard = Methods::standard();
    /// let names: Vec<&str> = standard.methods().iter().map(|m| m.name()).collect();
    /// assert_eq!(names[..4], ["magnitude", "magnitude-l2", "random", "wanda"]);
    /// assert!(standard.allocation("owl")?.needs_folder() && !standard.allocation("erk")?.needs_folder());
    /// # Ok::<(), lacuna::Error>(())
    /// ```
    pub fn standard() -> Methods {
        Methods { methods: methods(), allocations: allocations() }
    }
}

fn woodfisher(job: &PruneJob) -> WoodFisher {
    WoodFisher { damping: job.fisher_damping, block: job.block_size }
}

fn sparsegpt(job: &PruneJob) -> SparseGpt {
    SparseGpt {
        damping: job.damping,
        block: job.block_size,
        order: if job.actorder { Order::Activation } else { Order::Natural },
        grid: job.bits.map(AffineGrid::new),
    }
}

fn methods() -> Vec<PruneMethod> {
    vec![
        PruneMethod::criterion("magnitude", "|w|", |_| Ok(Box::new(Magnitude { norm: MagnitudeNorm::L1 }))),
        PruneMethod::criterion("magnitude-l2", "w²; differs from magnitude for blocks, rows and columns", |_| {
            Ok(Box::new(Magnitude { norm: MagnitudeNorm::L2 }))
        })
        .by_magnitude_in_folders(),
        PruneMethod::criterion("random", "Uniform scores", |job| Ok(Box::new(Random { seed: Seed(job.seed) })))
            .reads(["seed"])
            .by_magnitude_in_folders(),
        PruneMethod::criterion("wanda", "|w| times the norm of the input (folders)", |_| Ok(Box::new(Wanda))).by_row(),
        PruneMethod::criterion("ria", "Relative importance and activations (folders)", |_| Ok(Box::new(Ria::default()))).by_row(),
        PruneMethod::pruner("sparsegpt", "SparseGPT (folders)", |job| Ok(Box::new(sparsegpt(job)))).reads([
            "damping",
            "block-size",
            "actorder",
            "bits",
        ]),
        PruneMethod::pruner("d2prune", "SparseGPT by D²Prune's score (folders)", |job| {
            Ok(Box::new(D2Prune { sparsegpt: sparsegpt(job), ..D2Prune::default() }))
        })
        .reads(["damping", "block-size", "actorder", "bits"]),
        PruneMethod::pruner("obc", "ExactOBS, or optimal brain compression (folders; slow for wide layers)", |job| {
            Ok(Box::new(ExactObs { damping: job.damping }))
        })
        .reads(["damping"]),
        PruneMethod::pruner("alps", "ALPS (folders)", |job| Ok(Box::new(Alps { damping: job.damping, ..Alps::default() })))
            .reads(["damping"]),
        PruneMethod::pruner("dsnot", "Wanda, then weights exchanged by DSnoT (folders)", |_| {
            Ok(Box::new(DsNoT::new(Scored(Wanda))))
        })
        .by_row(),
        PruneMethod::criterion("taylor", "(gradient · weight)² (folders)", |_| Ok(Box::new(Taylor))),
        PruneMethod::criterion("fisher", "Half the diagonal empirical Fisher times w² (folders)", |_| Ok(Box::new(Fisher))),
        PruneMethod::pruner(
            "woodfisher",
            "Blocks of the inverse empirical Fisher matrix, survivors moved (folders; 4 bytes a weight and sample on the disk)",
            |job| Ok(Box::new(woodfisher(job))),
        )
        .ranked_by(|job| Ok(Box::new(woodfisher(job))))
        .reads(["fisher-damping", "block-size"]),
    ]
}

fn allocations() -> Vec<Allocation> {
    vec![
        Allocation::new("uniform", "", |_| Ok(Box::new(Uniform))),
        Allocation::new("global", "", |_| Ok(Box::new(Global))),
        Allocation::new("er", "", |_| Ok(Box::new(Er))),
        Allocation::new("erk", "", |_| Ok(Box::new(Erk))),
        Allocation::new("lamp", "", |_| Ok(Box::new(Lamp))),
        Allocation::built_in("owl", "By the outliers of each block (folders)", Kind::Outliers)
            .reads(["owl-lambda", "owl-threshold"]),
        Allocation::built_in(
            "sensitivity",
            "Least sum of what the model's predictions lose when each layer alone is pruned (folders)",
            Kind::Sensitivity,
        )
        .reads(["levels", "cost", "search-tokens"]),
        Allocation::built_in("dynamic", "Least sum of the layers' own errors, by dynamic programming (folders)", Kind::Dynamic)
            .reads(["levels", "cost"]),
        Allocation::built_in("evolve", "Evolutionary search by what the model's predictions lose (folders)", Kind::Evolve)
            .reads(["levels", "cost", "search-tokens", "generations", "offspring", "seed"]),
    ]
}
