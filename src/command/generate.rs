//! `lacuna generate DIR --prompt TEXT`: text, token after token.

use super::model::{open, seq2seq, stored};
use super::{print, print_json};
use clap::Parser;
use lacuna::io::Folder;
use lacuna::metrics::peak_memory;
use lacuna::models::lm::{Config, Running};
use lacuna::rng::Seed;
use lacuna::text::{Ended, Sampler, Sampling, Tokenizer, generate};
use lacuna::{Error, Result};
use std::path::PathBuf;
use std::time::Instant;

/// Continues a text.
#[derive(Parser)]
pub struct Args {
    /// The model's folder
    dir: PathBuf,
    /// The text to continue (for an encoder-decoder: the text to answer)
    #[arg(long)]
    prompt: String,
    /// Tokens at most
    #[arg(long, default_value_t = 100)]
    tokens: usize,
    /// Always the likeliest token; so it is unless one of the next three is given
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    greedy: bool,
    /// Divides the logits before a token is drawn; 0 is greedy [default: 1 with --top-k or --top-p]
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draws from the likeliest K tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draws from the fewest tokens that hold this share of the probability, in (0, 1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Goes on after a token that ends a text
    #[arg(long)]
    ignore_end: bool,
    /// In which storage pruned layers run: auto, dense, or one of those of bench
    #[arg(long, default_value = "auto")]
    format: String,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.top_k == Some(0) {
        return Err(Error::setting("top-k", "0 leaves no token to draw"));
    }
    let drawn = args.top_k.is_some() || args.top_p.is_some();
    let sampling = Sampling {
        temperature: args.temperature.unwrap_or(if drawn { 1.0 } else { 0.0 }),
        top_k: args.top_k.unwrap_or(0),
        top_p: args.top_p.unwrap_or(1.0),
    };
    let running: Running = args.format.parse()?;
    let mut sampler = Sampler::new(sampling, Seed(args.seed))?;
    let (folder, config) = open(&args.dir)?;
    let tokenizer = Tokenizer::open(&args.dir)?;
    let prompt = tokenizer.encode(&args.prompt, true)?;
    tokenizer.fits(&prompt, config.vocab())?;
    if prompt.is_empty() {
        return Err(Error::setting("prompt", "it has no tokens, so there is nothing to continue"));
    }
    let stops = if args.ignore_end { Vec::new() } else { ends(&folder, &config)? };
    if let Some(learned) = config.max_positions().filter(|n| *n < prompt.len() + args.tokens) {
        let asked = format!("{} tokens behind a prompt of {}", args.tokens, prompt.len());
        return Err(Error::setting("tokens", format!("{asked}; the model has learned {learned} positions")));
    }

    let mut typist = tokenizer.typist();
    let mut text = String::new();
    let (mut first, begun) = (None, Instant::now());
    let mut loaded = begun;
    let mut see = |id: u32| {
        first.get_or_insert_with(Instant::now);
        let new = typist.push(id)?;
        if !args.json {
            print(&new)?;
        }
        text.push_str(&new);
        Ok(())
    };
    let mut storages = (serde_json::json!({}), String::new());
    let made = if config.is_encoder_decoder() {
        if running != Running::Auto {
            return Err(Error::setting("format", "an encoder-decoder runs dense"));
        }
        let start = config.decoder_start();
        let model = seq2seq(&folder, config)?;
        loaded = Instant::now();
        let mut cache = model.cache(&prompt)?;
        let step = |ids: &[u32]| model.step(ids, &mut cache).map(|z| z.to_vec());
        generate(step, &[start], args.tokens, &stops, &mut sampler, &mut see)?
    } else {
        let (model, value, line) = stored(&folder, config, running, 1)?;
        storages = (value, line);
        if !args.json {
            print(&args.prompt)?;
        }
        loaded = loaded.max(Instant::now());
        let mut cache = model.cache();
        let step = |ids: &[u32]| model.step(ids, &mut cache).map(|z| z.to_vec());
        generate(step, &prompt, args.tokens, &stops, &mut sampler, &mut see)?
    };
    let ended = Instant::now();
    let rest = typist.finish()?;
    text.push_str(&rest);

    let first = first.unwrap_or(ended);
    let (reading, writing) = (first - loaded, ended - first);
    // The first token comes with the prompt; the others are written one by one.
    let steps = (made.ids.len() + usize::from(made.ended == Ended::Stop)).saturating_sub(1);
    let rate = (steps > 0).then(|| steps as f64 / writing.as_secs_f64());
    if args.json {
        let mut report = serde_json::json!({
            "prompt": args.prompt, "prompt_tokens": prompt.len(), "text": text, "ids": made.ids, "ended": made.ended, "sampling": sampling,
            "seed": args.seed, "load_seconds": (loaded - begun).as_secs_f64(), "prompt_seconds": reading.as_secs_f64(),
            "tokens_per_second": rate, "peak_memory": peak_memory(),
        });
        if let (Some(report), serde_json::Value::Object(storages)) = (report.as_object_mut(), storages.0) {
            report.extend(storages);
        }
        return print_json(&report);
    }
    let rate = rate.map_or("-".to_string(), |r| format!("{r:.1}"));
    print(&format!(
        "{rest}\n\n{} tokens, {rate} tokens/s; prompt of {} tokens in {:.2} s{}\n",
        made.ids.len(),
        prompt.len(),
        reading.as_secs_f64(),
        if storages.1.is_empty() { String::new() } else { format!("\n{}", storages.1) },
    ))
}

/// The tokens that end a text, by config.json and generation_config.json.
fn ends(folder: &Folder, config: &Config) -> Result<Vec<u32>> {
    let mut stops = config.eos();
    if let Some(named) = folder.json("generation_config.json")?.as_ref().and_then(|g| g.get("eos_token_id")) {
        let listed = named.as_array().map_or(std::slice::from_ref(named), Vec::as_slice);
        stops.extend(listed.iter().filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())));
    }
    Ok(stops)
}
