//! `lacuna inspect FILE`: what a safetensors file holds; a folder goes to `anatomy`.

use super::{anatomy, print, print_json};
use clap::Parser;
use lacuna::Result;
use lacuna::eval::{FileCensus, sparsity};
use lacuna::io::{Checkpoint, read_header};
use lacuna::report::{Cell, Table};
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

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.file.is_dir() {
        return anatomy::run(&args.file, (args.count || args.no_count).then_some(args.count), args.json);
    }
    let header = read_header(&args.file)?;
    let census = FileCensus::of(&Checkpoint::read(&args.file)?)?;
    let (layers, whole) = (census.weights(), census.whole());
    if args.json {
        return print_json(&serde_json::json!({
            "file": args.file, "bytes": header.file_bytes, "tensors": census.tensors, "weights": layers.numbers, "kept": layers.kept,
            "sparsity": layers.sparsity(), "parameters": whole.numbers, "whole_sparsity": whole.sparsity(), "packed": census.packed,
        }));
    }
    let mut table = Table::new(["tensor", "dtype", "shape", "numbers", "kept", "sparsity", "by", "bytes", "what"]);
    let share = |s: Option<f64>| s.map(|s| Cell::float(s, 4));
    for t in &census.tensors {
        let what = t.note.clone().unwrap_or(t.role.to_string());
        let (name, shape) = (t.name.as_str(), format!("{:?}", t.shape));
        table.row((name, t.dtype.as_str(), shape, t.numbers, t.kept, share(t.sparsity), t.by, t.bytes, what));
    }
    for p in &census.packed {
        let (shape, numbers) = (format!("[{}, {}]", p.shape.0, p.shape.1), p.shape.0 * p.shape.1);
        let gone = share(sparsity(p.kept, numbers));
        table.row((
            p.name.as_str(),
            "packed",
            shape,
            numbers,
            p.kept,
            gone,
            "layout",
            p.bytes,
            format!("weight as {}", p.layout),
        ));
    }
    for (name, sum) in [("weights of layers", layers), ("whole model", whole)] {
        table.row((name, "", "", sum.numbers, sum.kept, share(sum.sparsity()), "", sum.bytes, ""));
    }
    let (tensors, bytes) = (census.tensors.len(), header.file_bytes);
    print(&format!("{}\n{}: {tensors} tensors, {bytes} bytes\n", table.to_text(), args.file.display()))
}
