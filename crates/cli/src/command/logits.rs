//! `lacuna logits DIR`: what a model says of given tokens.

use super::model::{bar, decoder, of, open, seq2seq};
use super::place::{self, Force};
use super::{print, print_json};
use clap::Parser;
use lacuna::io::{read_ids, write_sequences};
use lacuna::lm::Config;
use lacuna::{Error, Result};
use ndarray::Array2;
use std::path::PathBuf;

/// The label that the reference library passes over; the decoder then reads the filling token.
const IGNORED: i64 = -100;

/// Writes the logits of a model for given tokens.
#[derive(Parser)]
pub struct Args {
    /// The model's folder
    dir: PathBuf,
    /// A safetensors file with the integers `input_ids` (sequences, tokens), and `labels` for an encoder-decoder
    #[arg(long)]
    ids: PathBuf,
    /// The safetensors file to write: `logits` (sequences, tokens, vocabulary), F32
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let (folder, config) = open(&args.dir)?;
    place::file(&args.out, &[&args.dir, &args.ids], args.force.force)?;
    let (vocab, pad) = (config.vocab(), config.pad());
    let given = tensor(args, "input_ids", &config)?;
    let labels = if config.is_encoder_decoder() { Some(tensor(args, "labels", &config)?) } else { None };
    if let Some(labels) = labels.as_ref().filter(|labels| labels.nrows() != given.nrows()) {
        let (ids, labels) = (given.nrows(), labels.nrows());
        return Err(Error::malformed(&args.ids, format!("'input_ids' has {ids} sequences, 'labels' has {labels}")));
    }
    if let Some(learned) = config.max_positions().filter(|n| *n < given.ncols()) {
        let reason = format!("'input_ids' has sequences of {} tokens; the model has learned {learned} positions", given.ncols());
        return Err(Error::malformed(&args.ids, reason));
    }
    let ids = |table: &Array2<i64>, row: usize| -> Vec<u32> {
        let fill = pad.unwrap_or(0);
        table.row(row).iter().map(|&id| if id == IGNORED { fill } else { id as u32 }).collect()
    };
    let bar = bar(given.nrows(), "sequences");
    let shape = (given.nrows(), labels.as_ref().unwrap_or(&given).ncols(), vocab);
    let refuse = |e| of(&args.ids, e);
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

/// A table of token numbers that the model knows.
fn tensor(args: &Args, name: &str, config: &Config) -> Result<Array2<i64>> {
    let Some(ids) = read_ids(&args.ids, name)? else {
        return Err(Error::malformed(&args.ids, format!("has no tensor '{name}'")));
    };
    if ids.is_empty() {
        return Err(Error::malformed(&args.ids, format!("'{name}' has no tokens: shape {:?}", ids.shape())));
    }
    let known = |id: i64| (0..config.vocab() as i64).contains(&id) || (name == "labels" && id == IGNORED);
    if let Some(((row, col), id)) = ids.indexed_iter().find(|(_, id)| !known(**id)) {
        let reason = format!("'{name}' has {id} at sequence {row}, token {col}; the vocabulary has {}", config.vocab());
        return Err(Error::malformed(&args.ids, reason));
    }
    Ok(ids)
}
