//! `lacuna bench`: sparse products against the fastest dense ones, on this machine.

pub(super) mod measure;
pub(super) mod room;
mod case;
mod check;
mod sweep;
mod spmm;

use clap::{Parser, Subcommand};
use lacuna::Result;

/// Times sparse products against dense ones; answers are checked before anything is timed.
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
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Spmm(spmm) => spmm::run(spmm),
        What::Sweep(sweep) => sweep::run(sweep),
        What::Check(check) => check::run(check),
    }
}
