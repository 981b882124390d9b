//! `lacuna init CONFIG OUT`: a model of random weights, to be trained from scratch.

use super::place::{self, Force};
use super::{print, print_json};
use clap::Parser;
use lacuna::io::{Dtype, Folder};
use lacuna::lm::{self, Config};
use lacuna::rng::Seed;
use lacuna::text::{Tokenizer, train_bpe};
use lacuna::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a tokenizer is in a folder.
const TOKENIZER: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
];

/// Makes the folder of a model that a config describes, its weights drawn from a seed.
#[derive(Parser)]
pub struct Args {
    /// A config.json of any family but T5, or a model's folder whose config is taken
    config: PathBuf,
    /// The folder to make; it appears whole or not at all
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// From which all weights are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder whose tokenizer is taken along [default: that of CONFIG, if it is one with a tokenizer]
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Train a tokenizer (byte-level BPE, as many tokens as the config's vocabulary) on these texts, in place of one that is taken along
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "tokenizer")]
    tokenizer_text: Vec<PathBuf>,
    /// Store every number as f32, f16 or bf16
    #[arg(long, default_value = "f32")]
    dtype: Dtype,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let file = if args.config.is_dir() { args.config.join("config.json") } else { args.config.clone() };
    let text = lacuna::data::read_text(&file)?;
    let refuse = |e: String| Error::malformed(&file, e);
    let json: Value = serde_json::from_str(&text).map_err(|e| refuse(format!("is no JSON: {e}")))?;
    let config = Config::parse(&json).map_err(|e| refuse(e.to_string()))?;
    let from = match &args.tokenizer {
        Some(folder) => Some(folder.as_path()),
        None if !args.tokenizer_text.is_empty() => None,
        None => Some(args.config.as_path()).filter(|folder| folder.join("tokenizer.json").is_file()),
    };
    let texts = args.tokenizer_text.iter().map(|path| lacuna::data::read_text(path)).collect::<Result<Vec<_>>>()?;
    let files = match from {
        Some(folder) => tokenizer(folder, config.vocab())?,
        None if texts.is_empty() => Vec::new(),
        None => train_bpe(&texts, config.vocab())?,
    };
    let inputs = [Some(args.config.as_path()), args.tokenizer.as_deref()].into_iter().flatten();
    let inputs: Vec<&Path> = inputs.chain(args.tokenizer_text.iter().map(PathBuf::as_path)).collect();
    let out = place::folder(&args.out, &inputs, args.force.force)?;
    let writer = lm::init(&config, Seed(args.seed), args.dtype, out)?;
    for (name, bytes) in &files {
        writer.file(name, bytes)?;
    }
    writer.finish()?;
    let folder = Folder::open(&args.out)?;
    let parameters: usize = folder.names().filter_map(|name| folder.info(name).ok()).map(|t| t.elements()).sum();
    if args.json {
        return print_json(&serde_json::json!({
            "out": args.out, "seed": args.seed, "parameters": parameters, "bytes": folder.bytes(), "tokenizer": from,
            "tokenizer_text": args.tokenizer_text,
        }));
    }
    let tokenizer = match from {
        Some(from) => format!("the tokenizer of {}", from.display()),
        None if texts.is_empty() => "no tokenizer".to_string(),
        None => format!("a tokenizer of {} tokens", Tokenizer::open(&args.out)?.vocabulary()),
    };
    print(&format!(
        "{}, {parameters} parameters from seed {}, {tokenizer} -> {}\n",
        json["model_type"].as_str().unwrap_or("?"),
        args.seed,
        args.out.display()
    ))
}

/// The files of a tokenizer whose tokens a vocabulary holds.
fn tokenizer(folder: &Path, vocab: usize) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let tokens = Tokenizer::open(folder)?.vocabulary();
    if tokens > vocab {
        let reason = format!("{} has {tokens} tokens, the config a vocabulary of {vocab}: raise vocab_size", folder.display());
        return Err(Error::invalid_option("tokenizer", reason));
    }
    let there = TOKENIZER.into_iter().map(|name| (name, folder.join(name))).filter(|(_, path)| path.is_file());
    there.map(|(name, path)| Ok((name, std::fs::read(&path).map_err(|e| Error::io(&path, e))?))).collect()
}
