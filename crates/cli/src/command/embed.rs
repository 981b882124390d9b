//! `lacuna embed DIR`: sentences as vectors, and how near another model's are.

use super::model::{open, stored};
use super::place::{self, Force};
use super::{print, print_json};
use clap::Parser;
use lacuna::eval::{SentencePooling, cosine, embed};
use lacuna::io::{Checkpoint, Dtype};
use lacuna::lm::Inference;
use lacuna::text::Tokenizer;
use lacuna::{Error, Result};
use ndarray::Array2;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Makes vectors of sentences, and compares them with those of another model.
#[derive(Parser)]
pub struct Args {
    /// The sentence encoder's folder
    dir: PathBuf,
    /// A text with a sentence a line; empty lines are passed over
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// A safetensors file to write with `embeddings` (sentences, hidden)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Another encoder's folder: the cosines between its vectors and these are told
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Tokens for which storages of pruned layers are chosen.
const SENTENCE: usize = 32;

/// The vectors of the sentences by the model of a folder.
fn vectors(dir: &Path, sentences: &[&str]) -> Result<(Array2<f32>, SentencePooling)> {
    let (folder, config) = open(dir)?;
    if !config.is_encoder() {
        return Err(Error::malformed(dir, format!("is a {}; embed makes vectors by encoders", config.kind())));
    }
    let (tokenizer, pooling) = (Tokenizer::open(dir)?, SentencePooling::of(dir)?);
    let vocab = config.vocab();
    let tokens = |text: &&str| tokenizer.encode(text, true).and_then(|ids| tokenizer.fits(&ids, vocab).map(|()| ids));
    let ids = sentences.iter().map(tokens).collect::<Result<Vec<_>>>()?;
    let (model, ..) = stored(&folder, config, Inference::tokens(SENTENCE))?;
    Ok((embed(&model, &ids, pooling)?, pooling))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let inputs: Vec<&Path> = [&args.dir, &args.text].into_iter().chain(&args.against).map(PathBuf::as_path).collect();
    if let Some(out) = &args.out {
        place::file(out, &inputs, args.force.force)?;
    }
    let text = lacuna::data::read_text(&args.text)?;
    let sentences: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if sentences.is_empty() {
        return Err(Error::malformed(&args.text, "has no line with a sentence"));
    }
    let (embeddings, pooling) = vectors(&args.dir, &sentences)?;
    let mut report = json!({
        "model": args.dir, "sentences": sentences.len(), "hidden": embeddings.ncols(), "pooling": pooling, "out": args.out,
    });
    let mut lines = vec![format!("{} sentences, {} numbers each", sentences.len(), embeddings.ncols())];
    if let Some(other) = &args.against {
        let (others, _) = vectors(other, &sentences)?;
        if others.ncols() != embeddings.ncols() {
            let reason = format!("has vectors of {} numbers; {} has {}", others.ncols(), args.dir.display(), embeddings.ncols());
            return Err(Error::malformed(other, reason));
        }
        let cosines: Vec<f64> = embeddings.rows().into_iter().zip(others.rows()).map(|(a, b)| cosine(a, b)).collect();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
        report["against"] = json!(other);
        (report["cosine"], report["least_cosine"]) = (json!(mean), json!(least));
        lines.push(format!("cosine to {}: mean {mean:.6}, least {least:.6}", other.display()));
    }
    if let Some(out) = &args.out {
        let mut file = Checkpoint::new();
        file.insert("embeddings", embeddings.into_dyn(), Dtype::F32)?;
        file.write(out)?;
        lines.push(format!("-> {}", out.display()));
    }
    if args.json { print_json(&report) } else { print(&(lines.join("\n") + "\n")) }
}
