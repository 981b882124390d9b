//! `lacuna logits DIR`: what a model says of given tokens, whole or as a cache to learn from.

use super::model::{bar, decoder, of, open, seq2seq, stored};
use super::place::{self, Force};
use super::texts::bos;
use super::{print, print_json};
use clap::{ArgGroup, Parser};
use lacuna::data::{Bos, DocumentPacker, PackedDocuments};
use lacuna::io::{Folder, read_ids, write_sequences};
use lacuna::job::TrainJob;
use lacuna::lm::{Config, Inference};
use lacuna::rng::Seed;
use lacuna::train::{CacheEntries, TeacherCache};
use lacuna::{Error, Result};
use ndarray::Array2;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The label that the reference library passes over; the decoder then reads the filling token.
const IGNORED: i64 = -100;

/// Writes the logits of a model for given tokens, or with --top or --sample what `lacuna train --teacher-cache` reads.
#[derive(Parser)]
#[command(group = ArgGroup::new("tokens").required(true).args(["ids", "text"]))]
pub struct Args {
    /// The model's folder
    dir: PathBuf,
    /// A safetensors file with the integers `input_ids` (sequences, tokens), and `labels` for an encoder-decoder
    #[arg(long)]
    ids: Option<PathBuf>,
    /// The safetensors file to write: `logits` (sequences, tokens, vocabulary), F32; or the cache
    #[arg(long)]
    out: PathBuf,
    /// Of a cache: texts, .jsonl or safetensors, cut into sequences as `lacuna train` does
    #[arg(long, value_name = "FILE", num_args = 1..)]
    text: Vec<PathBuf>,
    /// Tokens of a sequence of --text
    #[arg(long, default_value_t = TrainJob::default().context)]
    context: usize,
    /// Where the token that begins a text stands in --text
    #[arg(long, value_parser = bos(), default_value_t = TrainJob::default().bos)]
    bos: Bos,
    /// Write a cache: of each token the K likeliest that may follow, and the mass of the rest
    #[arg(long, value_name = "K", conflicts_with = "sample")]
    top: Option<usize>,
    /// Write a cache: of each token N draws of what may follow, whose mean is unbiased; at most 255
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    force: Force,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let (folder, config) = open(&args.dir)?;
    let inputs: Vec<&Path> = args.ids.iter().chain(&args.text).chain([&args.dir]).map(PathBuf::as_path).collect();
    place::file(&args.out, &inputs, args.force.force)?;
    let entries = args.top.map(CacheEntries::Top).or(args.sample.map(CacheEntries::Sampled));
    let path = match (entries, &args.ids) {
        (Some(entries), _) => return cache(args, &folder, config, entries),
        (None, Some(path)) => path,
        (None, None) => return Err(Error::invalid_option("text", "is for a cache: give --top K or --sample N beside it")),
    };
    let (vocab, pad) = (config.vocab(), config.pad());
    let given = tensor(path, "input_ids", &config)?;
    let labels = if config.is_encoder_decoder() { Some(tensor(path, "labels", &config)?) } else { None };
    if let Some(labels) = labels.as_ref().filter(|labels| labels.nrows() != given.nrows()) {
        let (ids, labels) = (given.nrows(), labels.nrows());
        return Err(Error::malformed(path, format!("'input_ids' has {ids} sequences, 'labels' has {labels}")));
    }
    if let Some(learned) = config.max_positions().filter(|n| *n < given.ncols()) {
        let reason = format!("'input_ids' has sequences of {} tokens; the model has learned {learned} positions", given.ncols());
        return Err(Error::malformed(path, reason));
    }
    let ids = |table: &Array2<i64>, row: usize| -> Vec<u32> {
        let fill = pad.unwrap_or(0);
        table.row(row).iter().map(|&id| if id == IGNORED { fill } else { id as u32 }).collect()
    };
    let bar = bar(given.nrows(), "sequences");
    let shape = (given.nrows(), labels.as_ref().unwrap_or(&given).ncols(), vocab);
    let refuse = |e| of(path, e);
    match &labels {
        Some(labels) => {
            let model = seq2seq(&folder, config)?;
            write_sequences(&args.out, "logits", shape, |i| {
                bar.inc(1);
                model.forward(&ids(&given, i), &ids(labels, i)).map_err(refuse)
            })?;
        }
        None => {
            let model = decoder(&folder, config)?;
            write_sequences(&args.out, "logits", shape, |i| {
                bar.inc(1);
                model.forward(&ids(&given, i)).map_err(refuse)
            })?;
        }
    }
    bar.finish_and_clear();
    if args.json {
        return print_json(&serde_json::json!({"out": args.out, "shape": [shape.0, shape.1, shape.2]}));
    }
    print(&format!("logits of {} sequences, {} tokens, {} numbers each -> {}\n", shape.0, shape.1, shape.2, args.out.display()))
}

/// Writes a cache.
fn cache(args: &Args, folder: &Folder, config: Config, entries: CacheEntries) -> Result<()> {
    if config.is_encoder_decoder() {
        return Err(Error::malformed(&args.dir, "is an encoder-decoder; caches are of decoders alone"));
    }
    let scratch = args.out.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let packed = match &args.ids {
        None => PackedDocuments::read(&args.text, folder, &config, (args.context, args.bos), &scratch)?,
        Some(path) => {
            let table = tensor(path, "input_ids", &config)?;
            let mut packer = DocumentPacker::new(&scratch)?;
            for row in table.rows() {
                packer.document(&row.iter().map(|id| *id as u32).collect::<Vec<_>>(), None)?;
            }
            packer.finish(table.ncols(), None).map_err(|e| of(path, e))?
        }
    };
    let (vocab, fingerprint) = (config.vocab(), folder.fingerprint()?);
    let (model, ..) = stored(folder, config, Inference::tokens(packed.context()))?;
    let bar = bar(packed.len(), "sequences");
    TeacherCache::write(&args.out, (&model, &fingerprint), &packed, (entries, Seed(args.seed)), &mut |done, _| {
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let (sequences, context, bytes) = (packed.len(), packed.context(), entries.bytes(vocab));
    if args.json {
        return print_json(&serde_json::json!({
            "out": args.out, "sequences": sequences, "context": context, "bytes_per_token": bytes, "digest": packed.digest(),
        }));
    }
    print(&format!(
        "what {} says of {sequences} sequences of {context} tokens, {bytes} bytes a token -> {}\n",
        args.dir.display(),
        args.out.display()
    ))
}

/// A table of token numbers that the model knows.
fn tensor(path: &Path, name: &str, config: &Config) -> Result<Array2<i64>> {
    let Some(ids) = read_ids(path, name)? else {
        return Err(Error::malformed(path, format!("has no tensor '{name}'")));
    };
    if ids.is_empty() {
        return Err(Error::malformed(path, format!("'{name}' has no tokens: shape {:?}", ids.shape())));
    }
    let known = |id: i64| (0..config.vocab() as i64).contains(&id) || (name == "labels" && id == IGNORED);
    if let Some(((row, col), id)) = ids.indexed_iter().find(|(_, id)| !known(**id)) {
        let reason = format!("'{name}' has {id} at sequence {row}, token {col}; the vocabulary has {}", config.vocab());
        return Err(Error::malformed(path, reason));
    }
    Ok(ids)
}
