//! `lacuna inspect FILE`: what a safetensors file holds; a folder goes to `anatomy`.

use super::{anatomy, print, print_json};
use clap::Parser;
use lacuna::Result;
use lacuna::io::{Checkpoint, read_header};
use lacuna::report::{Cell, Table};
use serde::Serialize;
use std::path::PathBuf;

/// Says what a model folder or a safetensors file holds.
#[derive(Parser)]
pub struct Args {
    /// A model's folder, or a safetensors file
    file: PathBuf,
    /// Of a folder: look at every number [default: if that reads at most 2 GB]
    #[arg(long, conflicts_with = "no_count")]
    count: bool,
    /// Of a folder: read no numbers
    #[arg(long)]
    no_count: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One tensor.
#[derive(Serialize)]
struct Row {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    numbers: usize,
    /// Numbers that stay: by the mask, or not zero.
    kept: Option<usize>,
    sparsity: Option<f64>,
    /// How the sparsity is known: `mask`, or `zeros` counted.
    by: Option<&'static str>,
    bytes: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.file.is_dir() {
        return anatomy::run(&args.file, (args.count || args.no_count).then_some(args.count), args.json);
    }
    let header = read_header(&args.file)?;
    let checkpoint = Checkpoint::read(&args.file)?;
    let masks = checkpoint.masks()?;
    let mut rows = Vec::new();
    for info in &header.tensors {
        let mask = masks.iter().find(|(name, _)| *name == info.name).map(|(_, m)| m);
        let weight = checkpoint.weights().find(|(name, _)| *name == info.name).map(|(_, w)| w);
        let (kept, by) = match (mask, weight) {
            (Some(m), _) => (Some(m.kept()), Some("mask")),
            (None, Some(w)) => (Some(w.iter().filter(|w| **w != 0.0).count()), Some("zeros")),
            (None, None) => (None, None),
        };
        let numbers = weight.map_or(info.shape.iter().product(), |w| w.len());
        let sparsity = kept.map(|k| 1.0 - k as f64 / numbers.max(1) as f64);
        let (name, dtype, shape) = (info.name.clone(), info.dtype.clone(), info.shape.clone());
        rows.push(Row { name, dtype, shape, numbers, kept, sparsity, by, bytes: info.bytes });
    }
    let total = |rows: &[&Row]| {
        let (numbers, kept) = rows.iter().fold((0, 0), |(n, k), r| (n + r.numbers, k + r.kept.unwrap_or(r.numbers)));
        let bytes: u64 = rows.iter().map(|r| r.bytes).sum();
        (numbers, kept, 1.0 - kept as f64 / numbers.max(1) as f64, bytes)
    };
    let float: Vec<&Row> = rows.iter().filter(|r| r.kept.is_some()).collect();
    let layers: Vec<&Row> = float.iter().copied().filter(|r| r.shape.len() >= 2).collect();
    let (layer_sum, whole) = (total(&layers), total(&float));
    if args.json {
        return print_json(&serde_json::json!({
            "file": args.file, "bytes": header.file_bytes, "tensors": rows, "weights": layer_sum.0, "kept": layer_sum.1,
            "sparsity": layer_sum.2, "parameters": whole.0, "whole_sparsity": whole.2,
        }));
    }
    let mut table = Table::new(["tensor", "dtype", "shape", "numbers", "kept", "sparsity", "by", "bytes"]);
    for r in &rows {
        let sparsity = r.sparsity.map(|s| Cell::float(s, 4));
        table.row((r.name.as_str(), r.dtype.as_str(), format!("{:?}", r.shape), r.numbers, r.kept, sparsity, r.by, r.bytes));
    }
    for (name, sum) in [("weights of layers", layer_sum), ("whole model", whole)] {
        table.row((name, "", "", sum.0, sum.1, Cell::float(sum.2, 4), "", sum.3));
    }
    print(&format!("{}\n{}: {} tensors, {} bytes\n", table.to_text(), args.file.display(), rows.len(), header.file_bytes))
}
