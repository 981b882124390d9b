//! `lacuna generate DIR --prompt TEXT`: text, token after token; `--many`: many texts side by side.

mod many;

use super::model::{of, open, seq2seq, stored};
use super::{print, print_json};
use clap::Parser;
use lacuna::eval::peak_memory;
use lacuna::io::Folder;
use lacuna::lm::{Config, Inference, Running};
use lacuna::rng::Seed;
use lacuna::sparse::ActivationBits;
use lacuna::text::{ChatTemplate, Ended, Message, Sampler, Sampling, Stops, Tokenizer, generate_until};
use lacuna::{Error, Result};
use serde_json::{Value, json};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// Continues a text, or answers one.
#[derive(Parser)]
pub struct Args {
    /// The model's folder
    dir: PathBuf,
    /// The text to continue (for an encoder-decoder and with --chat: the text to answer); - is standard input, without the line break at its
    /// end
    #[arg(long, required_unless_present = "many")]
    prompt: Option<String>,
    /// The prompt is what a user says, and the model answers: by the chat template of its folder
    #[arg(long)]
    chat: bool,
    /// What the model is told before the user speaks
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// The text ends before this one; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Tokens at most
    #[arg(long, default_value_t = 100)]
    tokens: usize,
    /// Writes N texts of the model's own side by side, as lines of JSON, to calibrate on: each behind the token that stands between documents, the
    /// first four tokens drawn from the whole distribution, the others as --temperature, --top-k and --top-p say, by default likewise; text i is
    /// drawn from --seed + i
    #[arg(long, value_name = "N", conflicts_with_all = ["prompt", "chat", "stop", "greedy", "ignore_end"], requires = "out")]
    many: Option<usize>,
    /// The file of lines of JSON of --many: text, tokens, seed, perplexity
    #[arg(long, value_name = "FILE.jsonl", requires = "many")]
    out: Option<PathBuf>,
    /// Of the texts of --many so large a fraction is written too and dropped: that of highest perplexity; in [0, 1)
    #[arg(long, value_name = "X", requires = "many", allow_negative_numbers = true, default_value_t = 0.2)]
    drop: f64,
    /// Texts of --many side by side
    #[arg(long, value_name = "N", requires = "many", default_value_t = 32)]
    batch: usize,
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
    /// Bits of activations in products with weights of 4 and 8 bits: 32, or 8, which is faster
    #[arg(long, value_name = "BITS", default_value = "32")]
    activation_bits: String,
    /// Replaces the file of --many that is there
    #[arg(long, requires = "many")]
    force: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

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

/// The tokens that end a text, by config.json and generation_config.json; in a chat that of the tokenizer too, which ends a turn; and texts
/// of `--stop` that are tokens for control, which have no text when they come.
fn ends(args: &Args, folder: &Folder, config: &Config, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut ends: Vec<u32> = args.stop.iter().filter_map(|text| tokenizer.control(text)).collect();
    if args.ignore_end {
        return Ok(ends);
    }
    ends.extend(config.eos());
    if let Some(named) = folder.json("generation_config.json")?.as_ref().and_then(|g| g.get("eos_token_id")) {
        let listed = named.as_array().map_or(std::slice::from_ref(named), Vec::as_slice);
        ends.extend(listed.iter().filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())));
    }
    ends.extend(tokenizer.eos(folder.config()).filter(|_| args.chat));
    Ok(ends)
}

/// Refuses more tokens than the model has positions for, or the machine memory. Where positions go on behind what the model was trained
/// for, says so.
fn check_room(tokens: usize, prompt: usize, config: &Config) -> Result<()> {
    let whole = prompt.saturating_add(tokens);
    let asked = format!("{tokens} tokens behind a prompt of {prompt}");
    if let Some(learned) = config.max_positions().filter(|n| *n < whole) {
        return Err(Error::invalid_option("tokens", format!("{asked}; the model has learned {learned} positions")));
    }
    let width = |i: usize| config.widths(i).kv_heads * config.widths(i).head_dim;
    let each: usize = (0..config.layers()).map(|i| 2 * size_of::<f32>() * width(i)).sum();
    let needed = whole as f64 * each as f64;
    if let Some(memory) = lacuna::eval::machine_memory().filter(|memory| needed > *memory as f64) {
        let (needed, memory) = (needed / 1e9, memory as f64 / 1e9);
        let reason = format!("{asked} need {needed:.1} GB for keys and values; this machine has {memory:.1} GB of memory");
        return Err(Error::invalid_option("tokens", reason));
    }
    if let Some(stated) = config.stated_context().filter(|n| *n < whole && !config.is_encoder_decoder()) {
        eprintln!(
            "note: {asked} may go beyond the context of {stated} that config.json states, for which the model was not trained"
        );
    }
    Ok(())
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
