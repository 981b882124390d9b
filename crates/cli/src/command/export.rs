//! `lacuna export DIR FILE.gguf`: a Hugging Face folder as a GGUF file.

use super::place::{self, Force};
use super::{print, print_json};
use clap::Parser;
use lacuna::io::Folder;
use lacuna::io::gguf::{ExportTypes, Gguf, Quant, export};
use lacuna::{Error, Result};
use std::path::PathBuf;
use std::time::Instant;

/// Turns a Hugging Face folder into a GGUF file, which llama.cpp opens: weights, settings and tokenizer.
///
/// Numbers that blocks of the type hold exactly are kept, others are rounded to the nearest. Norms and biases are F32. Masks are not part of the
/// format: zeros stay zeros in f32, f16, bf16, q8_0, q4_0 and q5_0.
#[derive(Parser)]
pub struct Args {
    /// The folder of the model
    folder: PathBuf,
    /// The file to make; it appears whole or not at all
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// How weights are stored: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0 or q5_1
    #[arg(long, value_name = "TYPE", required_unless_present = "like")]
    r#type: Option<Quant>,
    /// How embedding and head are stored [default: as weights, and q8_0 where these have fewer than eight bits]
    #[arg(long, value_name = "TYPE", conflicts_with = "like")]
    ends: Option<Quant>,
    /// Take keys, tokenizer, order and types of an older file of the same model; tensors whose numbers are those of the folder keep its bytes
    #[arg(long, value_name = "FILE.gguf", conflicts_with = "type")]
    like: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let mut inputs = vec![args.folder.as_path()];
    inputs.extend(args.like.as_deref());
    place::file(&args.out, &inputs, args.force.force)?;
    let folder = Folder::open(&args.folder)?;
    let like = args.like.as_ref().map(Gguf::open).transpose()?;
    let types = ExportTypes::new(args.r#type.unwrap_or(Quant::F32));
    let types = args.ends.map_or(types, |ends| types.ends(ends));
    let exported = export(&folder, &args.out, types, like.as_ref()).map_err(|e| match e {
        e @ (Error::Io { .. } | Error::Malformed { .. }) => e,
        e => Error::malformed(&args.folder, e.to_string()),
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    if args.json {
        let mut value = serde_json::json!({"out": args.out, "seconds": seconds});
        if let (Some(value), Ok(serde_json::Value::Object(rest))) = (value.as_object_mut(), serde_json::to_value(&exported)) {
            value.extend(rest);
        }
        return print_json(&value);
    }
    let types: Vec<String> = exported.types.iter().map(|(name, n)| format!("{n} {name}")).collect();
    let kept = if args.like.is_some() { format!(", {} with the bytes they had", exported.kept) } else { String::new() };
    let masked = folder.masks().map_or("", |_| "; its masks are not part of a GGUF file");
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
