//! `lacuna bench`: sparse products against the fastest dense ones, and whole models, on this machine.

pub(super) mod measure;
pub(super) mod room;
mod case;
mod check;
mod sweep;
mod spmm;
mod model;

use clap::{Parser, Subcommand};
use lacuna::Result;

/// Times sparse products against dense ones, answers checked before anything is timed; and whole models.
#[derive(Parser)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One line a case: medians of y = x · Wᵀ, dense and sparse in turn
    Spmm(spmm::Spmm),
    /// From which sparsity on sparse beats dense, a shape and a number of tokens at a time, with figures
    Sweep(sweep::Sweep),
    /// Whether the plan is never slower than dense, and never slower where more is pruned; fails and says where if it is
    Check(check::Check),
    /// How fast models write and read, each in several numbers and storages, in turns; and what they make of a text
    Model(model::Model),
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Spmm(spmm) => spmm::run(spmm),
        What::Sweep(sweep) => sweep::run(sweep),
        What::Check(check) => check::run(check),
        What::Model(model) => model::run(model),
    }
}
