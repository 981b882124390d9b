//! `lacuna eval DIR`: perplexity of a text, multiple choice, last words.

use super::model::{bar, of, open, stored};
use super::{print, print_json};
use clap::{Parser, ValueEnum};
use lacuna::io::Folder;
use lacuna::metrics::{
    ChoiceScore, LastWord, LastWordScore, Perplexity, Question, answer, check_questions, guess, peak_memory, read_lines,
    streamed_losses, windows,
};
use lacuna::models::lm::{Config, LanguageModel, Running};
use lacuna::text::Tokenizer;
use lacuna::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of features that a streamed model keeps between its blocks.
const FEATURES: usize = 512 << 20;

/// Measures a language model: perplexity of a text, multiple choice, last words.
#[derive(Parser)]
pub struct Args {
    /// The model's folder
    dir: PathBuf,
    /// A text, as it is: tokenised once, cut into windows without overlap, the tail dropped
    #[arg(long, value_name = "FILE", required_unless_present_any = ["choices", "last_word"])]
    text: Option<PathBuf>,
    /// Tokens of a window
    #[arg(long, default_value_t = 1024)]
    context: usize,
    /// Only the first windows
    #[arg(long)]
    windows: Option<usize>,
    /// Where the token that begins a text stands
    #[arg(long, value_enum, default_value = "tokenizer")]
    bos: Bos,
    /// In which storage pruned layers run: auto, dense, or one of those of bench
    #[arg(long, default_value = "auto", conflicts_with = "stream")]
    format: String,
    /// One block of the model in memory at a time
    #[arg(long)]
    stream: bool,
    /// Multiple choice: lines of {"query": "…", "choices": ["…"], "gold": 0}
    #[arg(long, value_name = "JSONL", conflicts_with = "stream")]
    choices: Option<PathBuf>,
    /// Last words: lines of {"context": "…", "continuation": "…"}
    #[arg(long, value_name = "JSONL", conflicts_with = "stream")]
    last_word: Option<PathBuf>,
    /// Only the first lines of those files
    #[arg(long)]
    items: Option<usize>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bos {
    /// As tokenizer.json puts it: once before the text, or not at all
    Tokenizer,
    /// Nowhere
    None,
    /// At the start of every window, in the place of one token of text
    Window,
}

/// A text cut into windows.
struct Cut {
    windows: Vec<Vec<u32>>,
    /// Tokens of the whole text.
    tokens: usize,
    /// Where the first token of the model's own stands.
    bos: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let (folder, config) = open(&args.dir)?;
    if config.is_encoder_decoder() {
        return Err(Error::malformed(&args.dir, "is an encoder-decoder; eval measures decoders"));
    }
    let tokenizer = Tokenizer::open(&args.dir)?;
    // What is to be measured is read before the weights, so that what is wrong with it shows at once.
    let cut = args.text.as_deref().map(|path| cut(args, path, &tokenizer, &folder, &config)).transpose()?;
    let questions: Option<Vec<Question>> = args.choices.as_ref().map(|path| read_lines(path, args.items)).transpose()?;
    let texts: Option<Vec<LastWord>> = args.last_word.as_ref().map(|path| read_lines(path, args.items)).transpose()?;
    if let (Some(questions), Some(path)) = (&questions, &args.choices) {
        check_questions(questions).map_err(|e| Error::malformed(path, e.to_string()))?;
    }
    let weights: usize = folder.names().filter_map(|n| folder.info(n).ok()).map(|t| 4 * t.elements()).sum();
    let running: Running = args.format.parse()?;
    let mut storages = None;
    let model = match args.stream {
        true => None,
        false => {
            let (model, value, line) = stored(&folder, config.clone(), running, args.context)?;
            storages = Some((value, line));
            Some(model)
        }
    };
    let mut report = json!({"model": args.dir, "family": config.family().model_type(), "stream": args.stream});
    let mut lines = vec![format!("{} ({})", args.dir.display(), config.family().model_type())];
    let mut add = |part: (Value, String)| {
        if let (Some(report), Value::Object(part)) = (report.as_object_mut(), part.0) {
            report.extend(part);
        }
        lines.push(part.1);
    };
    if let Some(storages) = storages {
        add(storages);
    }
    if let Some(cut) = &cut {
        add(perplexity(args, cut, &folder, &config, model.as_ref())?);
    }
    if let Some(model) = &model {
        let encode = |text: &str| {
            let ids = tokenizer.encode(text, args.bos != Bos::None)?;
            tokenizer.fits(&ids, config.vocab()).map(|()| ids)
        };
        if let Some(questions) = &questions {
            add(choices(questions, model, &encode)?);
        }
        if let Some(texts) = &texts {
            add(last_words(texts, model, &encode)?);
        }
    }
    let peak = peak_memory();
    let shown = peak.map_or("unknown".to_string(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
    add((
        json!({"peak_memory": peak, "weights_bytes": weights}),
        format!("peak memory {shown}; the weights in f32 are {:.0} MB", weights as f64 / 1e6),
    ));
    if args.json { print_json(&report) } else { print(&(lines.join("\n") + "\n")) }
}

fn cut(args: &Args, path: &Path, tokenizer: &Tokenizer, folder: &Folder, config: &Config) -> Result<Cut> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::malformed(path, format!("is not UTF-8 from byte {at} on"))
    })?;
    let ids = tokenizer.encode(&text, args.bos == Bos::Tokenizer)?;
    drop(text);
    tokenizer.fits(&ids, config.vocab())?;
    if let Some(learned) = config.max_positions().filter(|n| *n < args.context) {
        return Err(Error::setting("context", format!("{} tokens; the model has learned {learned} positions", args.context)));
    }
    let first = match args.bos {
        Bos::Window => Some(
            tokenizer
                .bos(folder.config())
                .ok_or_else(|| Error::malformed(&args.dir, "names no token that begins a text; --bos window needs one"))?,
        ),
        _ => None,
    };
    let windows = windows(&ids, args.context, args.windows, first).map_err(|e| Error::malformed(path, e.to_string()))?;
    let shown = |id: u32| format!("token {id} {}", tokenizer.token(id).unwrap_or_default());
    let bos = match (args.bos, first, tokenizer.first_special()) {
        (Bos::Window, Some(id), _) => format!("{} begins every window", shown(id)),
        (Bos::Tokenizer, _, Some(id)) => format!("{} once before the text, put by the tokenizer", shown(id)),
        (Bos::Tokenizer, _, None) => "none (the tokenizer puts none)".to_string(),
        _ => "none".to_string(),
    };
    Ok(Cut { windows, tokens: ids.len(), bos })
}

fn perplexity(
    args: &Args,
    cut: &Cut,
    folder: &Folder,
    config: &Config,
    model: Option<&LanguageModel>,
) -> Result<(Value, String)> {
    let begun = Instant::now();
    let losses = match model {
        Some(model) => {
            let bar = bar(cut.windows.len(), "windows");
            let losses = cut.windows.iter().map(|ids| model.nll(ids).inspect(|_| bar.inc(1))).collect::<Result<Vec<_>>>()?;
            bar.finish_and_clear();
            losses
        }
        None => {
            let bar = bar(0, "blocks");
            let losses = streamed_losses(folder, config, &cut.windows, FEATURES, |done, of| {
                bar.set_length(of as u64);
                bar.set_position(done as u64);
            });
            bar.finish_and_clear();
            losses.map_err(|e| of(&args.dir, e))?
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let Perplexity { perplexity, nll, windows, predicted } = Perplexity::of(&losses)?;
    let tokens = windows * args.context;
    let rate = tokens as f64 / seconds;
    let stated = config.stated_context().filter(|n| *n < args.context);
    let note = stated.map_or(String::new(), |n| format!(" (config.json states {n})"));
    let value = json!({
        "text": args.text, "context": args.context, "windows": windows, "tokens": tokens, "text_tokens": cut.tokens,
        "predicted": predicted, "bos": cut.bos, "perplexity": perplexity, "nll": nll, "seconds": seconds, "tokens_per_second": rate,
    });
    let line = format!(
        "context {}{note}, {windows} windows, {tokens} of {} tokens, {predicted} predicted; BOS: {}\nperplexity {perplexity:.4} (mean \
         -ln p {nll:.6})\n{rate:.1} tokens/s, {seconds:.1} s{}",
        args.context,
        cut.tokens,
        cut.bos,
        if args.stream { ", one block at a time" } else { "" },
    );
    Ok((value, line))
}

fn choices(questions: &[Question], model: &LanguageModel, encode: &impl Fn(&str) -> Result<Vec<u32>>) -> Result<(Value, String)> {
    let bar = bar(questions.len(), "questions");
    let one = |q: &Question| answer(q, encode, |ids| model.nll(ids)).inspect(|_| bar.inc(1));
    let answers = questions.iter().map(one).collect::<Result<Vec<_>>>()?;
    bar.finish_and_clear();
    let score = ChoiceScore::of(questions, &answers);
    let line = format!(
        "{} questions: accuracy {:.4}, by log-likelihood a character {:.4}",
        score.questions, score.accuracy, score.accuracy_normalised
    );
    Ok((json!({"choices": score}), line))
}

fn last_words(texts: &[LastWord], model: &LanguageModel, encode: &impl Fn(&str) -> Result<Vec<u32>>) -> Result<(Value, String)> {
    let bar = bar(texts.len(), "texts");
    let one = |t: &LastWord| guess(t, encode, |ids| model.forward(ids)).inspect(|_| bar.inc(1));
    let guesses = texts.iter().map(one).collect::<Result<Vec<_>>>()?;
    bar.finish_and_clear();
    let score = LastWordScore::of(&guesses);
    let line =
        format!("{} last words: accuracy {:.4}, perplexity of an ending {:.4}", score.texts, score.accuracy, score.perplexity);
    Ok((json!({"last_word": score}), line))
}
