//! `lacuna export DIR FILE.gguf`: a Hugging Face folder as a GGUF file.

use super::place::Force;
use super::{print, print_json};
use clap::Parser;
use lacuna::Result;
use lacuna::io::Folder;
use lacuna::io::gguf::Quant;
use lacuna::job::ExportJob;
use std::path::PathBuf;

/// Turns a Hugging Face folder into a GGUF file, which llama.cpp opens: weights, settings and tokenizer.
///
/// Numbers that blocks of the type hold exactly are kept, others are rounded to the nearest. Norms and biases are F32. Masks are not part of the
/// format: zeros stay zeros in f32, f16, bf16, q8_0, q4_0, q5_0, q3_k and q6_k.
#[derive(Parser)]
pub struct Args {
    /// The folder of the model
    folder: PathBuf,
    /// The file to make; it appears whole or not at all
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// How weights are stored: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k or q6_k
    #[arg(long, value_name = "TYPE", required_unless_present = "like")]
    r#type: Option<Quant>,
    /// How embedding and head are stored [default: as weights, and q8_0 where these have fewer than eight bits]
    #[arg(long, value_name = "TYPE", conflicts_with = "like")]
    ends: Option<Quant>,
    /// How weights are stored whose rows are no whole number of blocks, as of 576 for K types, whose blocks have 256 [default: none, they are refused]
    #[arg(long, value_name = "TYPE", conflicts_with = "like")]
    fallback: Option<Quant>,
    /// Take keys, tokenizer, order and types of an older file of the same model; tensors whose numbers are those of the folder keep its bytes
    #[arg(long, value_name = "FILE.gguf", conflicts_with = "type")]
    like: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let mut job = ExportJob::default().model(&args.folder).out(&args.out).force(args.force.force);
    job.weights = args.r#type.map(|quant| quant.to_string());
    job.ends = args.ends.map(|quant| quant.to_string());
    job.fallback = args.fallback.map(|quant| quant.to_string());
    job.like.clone_from(&args.like);
    let report = job.run()?;
    if args.json {
        return print_json(&report);
    }
    let (exported, seconds) = (&report.exported, report.seconds);
    let types: Vec<String> = exported.types.iter().map(|(name, n)| format!("{n} {name}")).collect();
    let kept = if args.like.is_some() { format!(", {} with the bytes they had", exported.kept) } else { String::new() };
    let masked = Folder::open(&args.folder)?.masks().map_or("", |_| "; its masks are not part of a GGUF file");
    print(&format!(
        "{}, {} parameters in {} tensors ({}), {} of them rounded{kept}{masked}\n{} -> {}, {:.1} MB in {seconds:.1} s\n",
        exported.architecture,
        exported.parameters,
        exported.tensors,
        types.join(", "),
        exported.rounded,
        args.folder.display(),
        args.out.display(),
        exported.bytes as f64 / 1e6,
    ))
}
