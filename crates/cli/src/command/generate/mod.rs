//! `lacuna generate DIR --prompt TEXT`: text, token after token; `--many`: many texts side by side.

mod args;
mod limits;
mod many;

pub use args::Args;

use super::model::{of, open, seq2seq, stored};
use super::{print, print_json};
use lacuna::eval::peak_memory;
use lacuna::io::Folder;
use lacuna::lm::{Config, Inference, Running};
use lacuna::rng::Seed;
use lacuna::sparse::ActivationBits;
use lacuna::text::{ChatTemplate, Ended, Message, Sampler, Sampling, Stops, Tokenizer, generate_until};
use lacuna::{Error, Result};
use limits::{check_room, ends};
use serde_json::{Value, json};
use std::io::Read;
use std::ops::ControlFlow;
use std::time::Instant;

/// What the model reads.
struct Prompt {
    /// As it was given.
    text: String,
    /// What the chat template made of it.
    rendered: Option<String>,
    ids: Vec<u32>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.top_k == Some(0) {
        return Err(Error::invalid_option("top-k", "0 leaves no token to draw"));
    }
    let drawn = args.many.is_some() || args.top_k.is_some() || args.top_p.is_some();
    let sampling = Sampling {
        temperature: args.temperature.unwrap_or(if drawn { 1.0 } else { 0.0 }),
        top_k: args.top_k.unwrap_or(0),
        top_p: args.top_p.unwrap_or(1.0),
    };
    let running: Running = args.format.parse()?;
    let bits: ActivationBits = args.activation_bits.parse()?;
    let mut sampler = Sampler::new(sampling, Seed(args.seed))?;
    let mut stops = Stops::new(args.stop.iter())?;
    let (folder, config) = open(&args.dir)?;
    if let (Some(texts), Some(out)) = (args.many, &args.out) {
        return many::run(args, (texts, out), sampling, (folder, config), (running, bits));
    }
    if config.is_encoder_decoder() && running != Running::Auto {
        return Err(Error::invalid_option("format", "an encoder-decoder runs dense"));
    }
    if config.is_encoder_decoder() && bits != ActivationBits::Full {
        return Err(Error::invalid_option("activation-bits", "an encoder-decoder runs in 32 bits"));
    }
    let tokenizer = Tokenizer::open(&args.dir)?;
    let prompt = Prompt::read(args, &config, &tokenizer)?;
    let ends = ends(args, &folder, &config, &tokenizer)?;
    check_room(args.tokens, prompt.ids.len(), &config)?;

    let mut typist = tokenizer.typist();
    let mut text = String::new();
    let (mut first, begun) = (None, Instant::now());
    let mut loaded = begun;
    // Of a text that goes on the prompt is a part; it is shown once the model has something to say.
    let mut shown = if args.json || args.chat || config.is_encoder_decoder() { None } else { Some(&prompt.text) };
    let mut show = |new: &str| match args.json {
        true => Ok(()),
        false => shown.take().map_or(Ok(()), |prompt| print(prompt)).and_then(|()| print(new)),
    };
    let mut see = |id: u32| {
        first.get_or_insert_with(Instant::now);
        let new = stops.push(&typist.push(id)?);
        show(&new)?;
        text.push_str(&new);
        Ok(if stops.met() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let mut storages = (json!({}), String::new());
    let made = if config.is_encoder_decoder() {
        let start = config.decoder_start();
        let model = seq2seq(&folder, config)?;
        loaded = Instant::now();
        let mut cache = model.cache(&prompt.ids)?;
        let step = |ids: &[u32]| model.step(ids, &mut cache).map(|z| z.to_vec());
        generate_until(step, &[start], args.tokens, &ends, &mut sampler, &mut see)
    } else {
        let origin = config.to_json()["imported_from"].take();
        let (model, value, line) = stored(&folder, config, Inference::tokens(1).running(running).with_activation_bits(bits))?;
        say_wider(&folder, &origin, &value);
        storages = (value, line);
        loaded = loaded.max(Instant::now());
        let mut cache = model.cache();
        let step = |ids: &[u32]| model.step(ids, &mut cache).map(|z| z.to_vec());
        generate_until(step, &prompt.ids, args.tokens, &ends, &mut sampler, &mut see)
    };
    let mut made = made.map_err(|e| of(&args.dir, e))?;
    let ended = Instant::now();
    let mut rest = stops.push(&typist.finish()?);
    if stops.met() {
        made.ended = Ended::StopText;
    } else {
        rest.push_str(&stops.finish());
    }
    show(&rest)?;
    text.push_str(&rest);

    let first = first.unwrap_or(ended);
    let (reading, writing) = (first - loaded, ended - first);
    // The first token comes with the prompt; the others are written one by one.
    let steps = (made.ids.len() + usize::from(made.ended == Ended::Stop)).saturating_sub(1);
    let rate = (steps > 0).then(|| steps as f64 / writing.as_secs_f64()).filter(|rate| rate.is_finite());
    if args.json {
        let mut report = json!({
            "prompt": prompt.text, "prompt_tokens": prompt.ids.len(), "text": text, "ids": made.ids, "ended": made.ended,
            "sampling": sampling, "seed": args.seed, "load_seconds": (loaded - begun).as_secs_f64(),
            "prompt_seconds": reading.as_secs_f64(), "tokens_per_second": rate, "peak_memory": peak_memory(),
        });
        if let (Some(report), Value::Object(storages)) = (report.as_object_mut(), storages.0) {
            report.extend(storages);
            report.extend(prompt.rendered.map(|rendered| ("rendered".to_string(), json!(rendered))));
        }
        return print_json(&report);
    }
    let rate = rate.map_or("-".to_string(), |r| format!("{r:.1}"));
    print(&format!(
        "\n\n{} tokens, {rate} tokens/s; prompt of {} tokens in {:.2} s{}\n",
        made.ids.len(),
        prompt.ids.len(),
        reading.as_secs_f64(),
        if storages.1.is_empty() { String::new() } else { format!("\n{}", storages.1) },
    ))
}

impl Prompt {
    fn read(args: &Args, config: &Config, tokenizer: &Tokenizer) -> Result<Prompt> {
        let given = args.prompt.clone().unwrap_or_default();
        let text = if given == "-" { standard_input()? } else { given };
        let mut rendered = None;
        let ids = if args.chat {
            let template = ChatTemplate::open(&args.dir)?.ok_or_else(|| {
                let reason = "has no chat template, neither chat_template.jinja nor a key of tokenizer_config.json; without --chat the prompt \
                              is continued as it is";
                Error::malformed(&args.dir, reason)
            })?;
            let system = args.system.iter().map(|text| Message::new("system", text));
            let messages: Vec<Message> = system.chain([Message::new("user", &text)]).collect();
            let whole = template.render(&messages, true)?;
            // The template has the special tokens that it wants.
            tokenizer.encode(rendered.insert(whole), false)?
        } else if config.is_encoder_decoder() {
            tokenizer.encode(&text, true)?
        } else {
            tokenizer.encode_open(&text)?
        };
        tokenizer.fits(&ids, config.vocab())?;
        if ids.is_empty() {
            return Err(Error::invalid_option("prompt", "it has no tokens, so there is nothing to continue"));
        }
        Ok(Prompt { text, rendered, ids })
    }
}

/// All of standard input, without the line break at its end.
fn standard_input() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|e| Error::io("standard input", e))?;
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::invalid_option("prompt", format!("standard input is not UTF-8 from byte {at} on"))
    })?;
    let end = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t).len());
    text.truncate(end.unwrap_or(text.len()));
    Ok(text)
}

/// Says where a pruned model takes more memory, and so more time for a token, than the file that it was imported from, and what would help.
fn say_wider(folder: &Folder, origin: &Value, stored: &Value) {
    let sizes = (origin["bytes"].as_u64(), stored["stored_bytes"].as_u64());
    let ((Some(before), Some(now)), true) = (sizes, folder.is_pruned()) else { return };
    if now <= before {
        return;
    }
    let keys = |of: &Value| of.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    // 16 bits hold what an import rounds to them, and an f32 that was not rounded needs 32.
    let wide = keys(&stored["formats"]).iter().any(|format| format.ends_with(" of f32") && !format.starts_with("dense"));
    let rounded = if wide { ", and so does what is imported with --dtype bf16" } else { "" };
    eprintln!(
        "note: the weights take {:.1} MB as they run; the file that the model was imported from held them in {:.1} MB ({}); a higher sparsity \
         takes less{rounded}",
        now as f64 / 1e6,
        before as f64 / 1e6,
        keys(&origin["types"]).join(", "),
    );
}
