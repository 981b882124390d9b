//! `lacuna import FILE.gguf DIR`: a GGUF file as a Hugging Face folder.

use super::place::{self, Force};
use super::{print, print_json};
use clap::Parser;
use lacuna::io::Dtype;
use lacuna::io::gguf::{Gguf, import_checked};
use lacuna::lm::{Config, check};
use lacuna::{Error, Result};
use std::path::PathBuf;
use std::time::Instant;

/// Turns a GGUF file into a folder with config.json, model.safetensors and tokenizer.json.
#[derive(Parser)]
pub struct Args {
    /// The GGUF file: version 2 or 3, of floats or quantised
    file: PathBuf,
    /// The folder to make; it appears whole or not at all
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// Store every number as f32, f16 or bf16 [default: quantised ones as f32, floats as they are]
    #[arg(long)]
    dtype: Option<Dtype>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let file = Gguf::open(&args.file)?;
    let out = place::folder(&args.out, &[&args.file], args.force.force)?;
    let imported = import_checked(&file, out, args.dtype, |folder| {
        let opens = Config::parse(&serde_json::Value::Object(folder.config().clone())).and_then(|config| check(folder, &config));
        opens.map_err(|e| Error::malformed(&args.file, format!("makes a folder that does not open: {e}")))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    if args.json {
        let mut value = serde_json::json!({"out": args.out, "seconds": seconds});
        if let (Some(value), Ok(serde_json::Value::Object(rest))) = (value.as_object_mut(), serde_json::to_value(&imported)) {
            value.extend(rest);
        }
        return print_json(&value);
    }
    let types: Vec<String> = imported.types.iter().map(|(name, n)| format!("{n} {name}")).collect();
    let words = imported.tokens.map_or("no tokenizer in the file".to_string(), |n| format!("tokenizer of {n} tokens"));
    print(&format!(
        "{} ({}), {} parameters in {} tensors ({}), {words}\n{} -> {}, {:.1} MB in {seconds:.1} s\n",
        imported.architecture,
        format_args!("GGUF {}", file.version()),
        imported.parameters,
        imported.tensors,
        types.join(", "),
        args.file.display(),
        args.out.display(),
        imported.bytes as f64 / 1e6,
    ))
}
