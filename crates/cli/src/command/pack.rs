//! `lacuna pack DIR OUT --save LAYOUT`: the pruned weights of a folder, laid in another way.

use super::model::{bar, open};
use super::place::{self, Force};
use super::{print, print_json};
use clap::Parser;
use lacuna::io::{Packing, repack};
use lacuna::{Error, Result};
use std::path::PathBuf;
use std::time::Instant;

/// Lays the pruned weights of a model's folder in another way.
#[derive(Parser)]
pub struct Args {
    /// The pruned model's folder
    dir: PathBuf,
    /// The folder to write
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// How pruned weights are laid
    #[arg(long, value_name = "LAYOUT", help = format!("How pruned weights are laid: {} (weights: whole, masks beside)", Packing::NAMES))]
    save: String,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let packing: Packing = args.save.parse()?;
    let (folder, _) = open(&args.dir)?;
    let out = place::folder(&args.out, &[&args.dir], args.force.force)?;
    if !folder.is_pruned() && folder.packed().next().is_none() {
        return Err(Error::malformed(&args.dir, "has no masks; prune it first"));
    }
    let bar = bar(0, "weights");
    let writer = repack(&folder, out, packing, |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    writer?.finish()?;
    let (written, _) = open(&args.out)?;
    let bytes = |folder: &lacuna::io::Folder| folder.files().map(|(_, bytes)| bytes).sum::<u64>();
    let (old, new, seconds) = (bytes(&folder), bytes(&written), begun.elapsed().as_secs_f64());
    let weights = written.packed().count();
    if args.json {
        return print_json(&serde_json::json!({
            "folder": args.dir, "out": args.out, "save": packing.to_string(), "packed_weights": weights, "bytes": new, "bytes_before": old,
            "seconds": seconds,
        }));
    }
    let (from, to, mb) = (args.dir.display(), args.out.display(), |bytes: u64| bytes as f64 / 1e6);
    print(&format!(
        "{from} -> {to} as {packing}: {weights} weights packed, {:.1} MB -> {:.1} MB, {seconds:.1} s\n",
        mb(old),
        mb(new)
    ))
}
