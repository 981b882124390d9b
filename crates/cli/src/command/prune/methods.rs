//! The methods and allocations of `lacuna prune DIR OUT` by their names.

use super::args::{Allocation, Args, Language, Method};
use lacuna::allocate::{Allocate, Er, Erk, Global, Lamp, Uniform};
use lacuna::criteria::{Fisher, Magnitude, MagnitudeNorm, Needs, Random, Ria, Saliency, Taylor, Wanda};
use lacuna::data::Sequences;
use lacuna::io::Folder;
use lacuna::lm::Config;
use lacuna::prune::{ActivationMemory, LanguageLayer, SequenceGradients};
use lacuna::quantize::AffineGrid;
use lacuna::rng::Seed;
use lacuna::solve::{Alps, DsNoT, ExactObs, Order, Pruner, Scored, SparseGpt, WoodFisher};
use lacuna::{Error, Result};
use std::ops::ControlFlow;

/// The allocation of this name, of those that see weights or scores alone.
pub fn allocation(of: Allocation) -> Option<Box<dyn Allocate>> {
    match of {
        Allocation::Uniform => Some(Box::new(Uniform)),
        Allocation::Global => Some(Box::new(Global)),
        Allocation::Er => Some(Box::new(Er)),
        Allocation::Erk => Some(Box::new(Erk)),
        Allocation::Lamp => Some(Box::new(Lamp)),
        Allocation::Owl | Allocation::Sensitivity | Allocation::Dynamic | Allocation::Evolve => None,
    }
}

/// What pruners borrow.
pub struct Pruners {
    /// The criterion, where the method is one.
    pub saliency: Option<Box<dyn Saliency>>,
}

impl Pruners {
    /// Of the method that is asked for.
    pub fn new(args: &Args) -> Result<Self> {
        let saliency: Option<Box<dyn Saliency>> = match args.method {
            Method::Magnitude => Some(Box::new(Magnitude { norm: MagnitudeNorm::L1 })),
            Method::MagnitudeL2 => Some(Box::new(Magnitude { norm: MagnitudeNorm::L2 })),
            Method::Random => Some(Box::new(Random { seed: Seed(args.seed) })),
            Method::Wanda => Some(Box::new(Wanda)),
            Method::Ria => Some(Box::new(Ria::default())),
            Method::Taylor => Some(Box::new(Taylor)),
            Method::Fisher => Some(Box::new(Fisher)),
            Method::Woodfisher => Some(Box::new(woodfisher(&args.language))),
            Method::Sparsegpt | Method::Obc | Method::Alps | Method::Dsnot => None,
        };
        if args.method != Method::Sparsegpt && (args.language.actorder || args.language.bits.is_some()) {
            let option = if args.language.actorder { "actorder" } else { "bits" };
            return Err(Error::setting(option, "is for --method sparsegpt"));
        }
        Ok(Pruners { saliency })
    }

    /// The method.
    pub fn pruner(&self, args: &Args, wanted: &Language) -> Result<Box<dyn Pruner + '_>> {
        let damping = wanted.damping;
        if args.method == Method::Woodfisher {
            return Ok(Box::new(woodfisher(wanted)));
        }
        if let Some(saliency) = &self.saliency {
            return Ok(Box::new(Scored(saliency.as_ref())));
        }
        Ok(match args.method {
            Method::Obc => Box::new(ExactObs { damping }),
            Method::Alps => Box::new(Alps { damping, ..Alps::default() }),
            Method::Dsnot => Box::new(DsNoT::new(&Scored(&Wanda))),
            _ => Box::new(SparseGpt {
                damping,
                block: wanted.block_size,
                order: if wanted.actorder { Order::Activation } else { Order::Natural },
                grid: wanted.bits.map(AffineGrid::new),
            }),
        })
    }
}

impl Pruners {
    /// Gradients of the calibration, if the pruner needs them.
    pub fn gradients(
        &self,
        (folder, config): (&Folder, &Config),
        calibration: &Sequences,
        (layers, needs): (&[LanguageLayer], Needs),
        memory: &ActivationMemory,
    ) -> Result<Option<SequenceGradients>> {
        if !SequenceGradients::wanted(needs) {
            return Ok(None);
        }
        let bar = crate::command::model::bar(calibration.len(), "gradients");
        let found = SequenceGradients::measure(folder, config, calibration, layers, needs, memory, |done, _| {
            bar.set_position(done as u64);
            ControlFlow::Continue(())
        });
        bar.finish_and_clear();
        found.map(Some)
    }
}

fn woodfisher(wanted: &Language) -> WoodFisher {
    WoodFisher { damping: wanted.fisher_damping, block: wanted.block_size }
}
