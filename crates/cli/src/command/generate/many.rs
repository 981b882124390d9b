//! `lacuna generate DIR --many N --out FILE.jsonl`: many texts of a model's own, to calibrate on.

use super::super::model::{bar, of, stored};
use super::super::{place, print, print_json};
use super::args::Args;
use super::limits::{check_room, ends};
use lacuna::eval::peak_memory;
use lacuna::io::{Folder, atomic};
use lacuna::lm::{Config, Inference, Running, TextGeneration, repeated};
use lacuna::rng::Seed;
use lacuna::sparse::ActivationBits;
use lacuna::text::{Sampling, Tokenizer};
use lacuna::{Error, Result};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// Rows of a product for which storages are chosen.
const SIDE: usize = 32;

/// Writes the texts.
pub fn run(
    args: &Args,
    (texts, out): (usize, &Path),
    sampling: Sampling,
    (folder, config): (Folder, Config),
    (running, bits): (Running, ActivationBits),
) -> Result<()> {
    let how = TextGeneration::new(texts, args.tokens).sampling(sampling).batch(args.batch).drop(args.drop).seed(Seed(args.seed));
    how.check()?;
    if !config.is_decoder() {
        return Err(Error::invalid_option("many", format!("is for decoders; {} is an {}", args.dir.display(), config.kind())));
    }
    place::file(out, &[&args.dir], args.force)?;
    let tokenizer = Tokenizer::open(&args.dir)?;
    let start = tokenizer.between(folder.config()).ok_or_else(|| {
        Error::malformed(&args.dir, "names no token that begins a text or stands between two, so there is nothing to begin with")
    })?;
    tokenizer.fits(&[start], config.vocab())?;
    check_room(args.tokens, 1, &config)?;
    let mut stops = ends(args, &folder, &config, &tokenizer)?;
    stops.push(start);
    // The storages are those of many texts however few there are, so that a text is the same in every batch.
    let side = args.batch.min(how.written());
    let (model, _, line) = stored(&folder, config, Inference::tokens(SIDE).running(running).with_activation_bits(bits))?;
    let bar = bar(how.written() * args.tokens, "tokens");
    let begun = Instant::now();
    let found = how.run(&model, (start, &stops), &mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let found = found.map_err(|e| of(&args.dir, e))?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut lines = String::new();
    for text in &found {
        let words = tokenizer.decode(&text.ids)?;
        let line = json!({"text": words, "tokens": text.ids.len(), "seed": text.seed, "perplexity": text.nll.exp()});
        lines.push_str(&format!("{line}\n"));
    }
    atomic::write_bytes(out, lines.as_bytes())?;
    let tokens: usize = found.iter().map(|text| text.ids.len()).sum();
    let mean = found.iter().map(|text| text.nll * text.ids.len() as f64).sum::<f64>() / tokens.max(1) as f64;
    let rate = tokens as f64 / seconds * how.written() as f64 / found.len() as f64;
    let again = repeated(&found);
    if args.json {
        return print_json(&json!({
            "out": out, "texts": found.len(), "written": how.written(), "tokens": tokens, "perplexity": mean.exp(), "repeated": again,
            "sampling": sampling, "seed": args.seed, "batch": side, "seconds": seconds, "tokens_per_second": rate,
            "peak_memory": peak_memory(),
        }));
    }
    print(&format!(
        "{} texts of {} written, {tokens} tokens, {rate:.1} tokens/s; perplexity {:.2}, {:.1} % of runs of 8 tokens repeated\n-> {}{}\n",
        found.len(),
        how.written(),
        mean.exp(),
        100.0 * again,
        out.display(),
        if line.is_empty() { String::new() } else { format!("\n{line}") },
    ))
}
