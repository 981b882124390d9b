//! `lacuna eval DIR`: perplexity of a text, multiple choice, last words, named tasks.

use super::model::{bar, decoder, of, open, stored};
use super::place::{self, Force};
use super::texts::{bos, say_overflow};
use super::{print, print_json};
use clap::Parser;
use lacuna::data::{Bos, Windows, data_dir, text_files};
use lacuna::eval::{
    ChoiceScore, Encoding, Evaluated, Joined, LastWord, LastWordScore, Lines, Question, Task, TaskItem, TaskScore, TextScore,
    answer, guess, peak_memory, read_lines,
};
use lacuna::io::Folder;
use lacuna::job::{PerplexityReport, TextReports, calibration_of};
use lacuna::lm::{Config, Inference, LanguageModel, Running};
use lacuna::report::{Cell, Page, Table};
use lacuna::text::Tokenizer;
use lacuna::{Error, Result};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Bytes of features that a streamed model keeps between its blocks.
const FEATURES: usize = 512 << 20;

/// Measures a language model: perplexity of a text, multiple choice, last words, named tasks.
#[derive(Parser)]
pub struct Args {
    /// The model's folder
    dir: PathBuf,
    /// A text, as it is: tokenised once, cut into windows without overlap, the tail dropped; several as a.txt,b.txt
    #[arg(long, value_name = "FILE", required_unless_present_any = ["choices", "last_word", "tasks"])]
    text: Option<PathBuf>,
    /// The model that this one was made of: what was lost on each text, ln(perplexity / its), and the means over texts of the calibration's kind and over others
    #[arg(long, value_name = "DIR", requires = "text")]
    against: Option<PathBuf>,
    /// What this model was calibrated on, by whose name texts are of its kind [default: as the folder's record says]
    #[arg(long, value_name = "FILE", requires = "against")]
    calibration: Option<PathBuf>,
    /// A page with the texts as a table and as figures
    #[arg(long, value_name = "FILE.html", requires = "against")]
    page: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Tokens of a window
    #[arg(long, default_value_t = 1024)]
    context: usize,
    /// Only the first windows
    #[arg(long)]
    windows: Option<usize>,
    /// Where the token that begins a text stands
    #[arg(long, value_parser = bos(), default_value = "tokenizer")]
    bos: Bos,
    /// In which storage pruned layers run: auto, dense, or one of those of bench
    #[arg(long, default_value = "auto", conflicts_with = "stream")]
    format: String,
    /// Bits of activations in products with weights of 4 and 8 bits: 32, or 8, which is faster
    #[arg(long, value_name = "BITS", default_value = "32", conflicts_with = "stream")]
    activation_bits: String,
    /// One block of the model in memory at a time
    #[arg(long)]
    stream: bool,
    /// Multiple choice: lines of {"query": "…", "choices": ["…"], "gold": 0}
    #[arg(long, value_name = "JSONL", conflicts_with = "stream")]
    choices: Option<PathBuf>,
    /// Last words: lines of {"context": "…", "continuation": "…"}
    #[arg(long, value_name = "JSONL", conflicts_with = "stream")]
    last_word: Option<PathBuf>,
    /// Named tasks, as hellaswag,piqa,arc_easy: from $LACUNA_DATA/tasks/NAME.jsonl, in the fields of their data sets
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "stream")]
    tasks: Vec<String>,
    /// Only the first lines of those files
    #[arg(long)]
    items: Option<usize>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Tokens of a question at most for which storages are chosen.
const QUESTION: usize = 1024;

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let running: Running = args.format.parse()?;
    let bits = args.activation_bits.parse()?;
    let (folder, config) = opened(&args.dir)?;
    // What is to be measured is read before the weights, so that what is wrong with it shows at once.
    let cut = |path: PathBuf| {
        Windows::read(&path, &folder, &config, args.context, args.windows, args.bos).map(|windows| (path, windows))
    };
    let texts = args.text.as_deref().map_or(Ok(vec![]), text_files)?;
    if let Some(page) = &args.page {
        place::file(page, &texts.iter().map(PathBuf::as_path).collect::<Vec<_>>(), args.force.force)?;
    }
    let before = args.against.as_ref().map(|dir| before(args, dir, &texts)).transpose()?;
    let cut = texts.into_iter().map(cut).collect::<Result<Vec<_>>>()?;
    let asked = Asked::read(args, &folder, &config)?;
    let weights: usize = folder.names().filter_map(|n| folder.info(n).ok()).map(|t| 4 * t.elements()).sum();
    let mut storages = None;
    let model = match args.stream {
        true => None,
        false => {
            // Without a text nothing has windows, and the context is that of questions.
            let context = if !cut.is_empty() { args.context } else { args.context.min(QUESTION) };
            let (model, value, line) =
                stored(&folder, config.clone(), Inference::tokens(context).running(running).with_activation_bits(bits))?;
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
    if !cut.is_empty() {
        let of_model = match &model {
            Some(model) => Evaluated::Memory(model),
            None => Evaluated::Streamed { folder: &folder, config: &config, features: FEATURES },
        };
        let scores: Vec<TextScore> = cut.iter().map(|text| score(args, text, of_model)).collect::<Result<_>>()?;
        let (mut value, mut lines) = perplexities(args, &scores, &config)?;
        if let Some(before) = &before {
            lines = lines + "\n" + &against(args, before, &scores, &mut value)?;
        }
        add((value, lines));
    }
    if let (Some(model), Some(asked)) = (&model, &asked) {
        if let Some((questions, joined)) = &asked.choices {
            add(choices(questions, joined, model, &asked.bos)?);
        }
        if let Some((texts, joined)) = &asked.last_words {
            add(last_words(texts, joined, model, &asked.bos)?);
        }
        if !asked.tasks.is_empty() {
            add(tasks(&asked.tasks, model, &asked.bos)?);
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

/// Opens a decoder's folder.
fn opened(dir: &Path) -> Result<(Folder, Config)> {
    let (folder, config) = open(dir)?;
    match config.is_decoder() {
        true => Ok((folder, config)),
        false => Err(Error::malformed(dir, format!("is an {}; eval measures decoders", config.kind()))),
    }
}

/// Measures the texts by the model that this one was made of, which is let go before the other is read. Texts are cut by its own tokenizer.
fn before(args: &Args, dir: &Path, texts: &[PathBuf]) -> Result<Vec<TextScore>> {
    let (folder, config) = opened(dir)?;
    let model = if args.stream { None } else { Some(decoder(&folder, config.clone())?) };
    let of_model = match &model {
        Some(model) => Evaluated::Memory(model),
        None => Evaluated::Streamed { folder: &folder, config: &config, features: FEATURES },
    };
    let one = |text: &PathBuf| {
        let windows = Windows::read(text, &folder, &config, args.context, args.windows, args.bos)?;
        score(args, &(text.clone(), windows), of_model)
    };
    texts.iter().map(one).collect()
}

/// What was lost on each text, in words; `texts` of the report has it too, the means are its `excess`.
fn against(args: &Args, before: &[TextScore], after: &[TextScore], value: &mut Value) -> Result<String> {
    let others = |a: &TextScore, b: &TextScore| a.text_tokens != b.text_tokens;
    let reports: Vec<PerplexityReport> =
        before.iter().zip(after).map(|(a, b)| PerplexityReport::of(a, b, others(a, b))).collect();
    let calibration = args.calibration.clone().or_else(|| calibration_of(&args.dir));
    let reports = TextReports::new(&reports, calibration.as_deref());
    for (text, report) in value["texts"].as_array_mut().into_iter().flatten().zip(reports.texts()) {
        (text["before"], text["after"], text["excess"]) = (json!(report.before), json!(report.after), json!(report.excess));
    }
    (value["against"], value["calibration"], value["excess"]) =
        (json!(args.against), json!(calibration), json!(reports.excess()));
    if let Some(path) = &args.page {
        let page = reports.on(Page::new(format!("{}: what was lost on texts", args.dir.display())))?;
        lacuna::io::atomic::write_bytes(path, page.to_html().as_bytes())?;
    }
    Ok(reports.to_text().trim_end().to_string())
}

/// Measures one text.
fn score(args: &Args, (text, windows): &(PathBuf, Windows), model: Evaluated<'_>) -> Result<TextScore> {
    let bar = bar(windows.windows.len(), if args.stream { "blocks" } else { "windows" });
    let score = TextScore::measure(model, text, windows, &mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let score = score.map_err(|e| of(&args.dir, e))?;
    say_overflow("the perplexity", score.perplexity, score.nll);
    Ok(score)
}

/// All texts: the first by its own keys, each as one of `texts`.
fn perplexities(args: &Args, scores: &[TextScore], config: &Config) -> Result<(Value, String)> {
    let as_json = |value: Vec<TextScore>| serde_json::to_value(value).map_err(|e| Error::invalid_option("json", e.to_string()));
    let texts = as_json(scores.to_vec())?;
    let mut value = texts[0].clone();
    value["texts"] = texts;
    let stated = config.stated_context().filter(|n| *n < args.context);
    let note = stated.map_or(String::new(), |n| format!(" (config.json states {n})"));
    let streamed = if args.stream { ", one block at a time" } else { "" };
    let line = |score: &TextScore| {
        let TextScore { context, windows, tokens, text_tokens, predicted, bos, perplexity, nll, seconds, .. } = score;
        let bits = score.bits_per_byte.map_or(String::new(), |bits| format!(", {bits:.4} bits a byte"));
        format!(
            "context {context}{note}, {windows} windows, {tokens} of {text_tokens} tokens, {predicted} predicted; BOS: {bos}\n\
             perplexity {perplexity:.4} (mean -ln p {nll:.6} nats{bits})\n{:.1} tokens/s, {seconds:.1} s{streamed}",
            score.tokens_per_second
        )
    };
    if let [one] = scores {
        return Ok((value, line(one)));
    }
    let mut table = Table::new(["text", "windows", "predicted", "perplexity", "-ln p, nats", "bits a byte", "tokens/s"]);
    for score in scores {
        table.row((
            score.text.display().to_string(),
            score.windows,
            score.predicted,
            Cell::float(score.perplexity, 4),
            Cell::float(score.nll, 6),
            Cell::from(score.bits_per_byte.map(|bits| Cell::float(bits, 4))),
            Cell::float(score.tokens_per_second, 1),
        ));
    }
    let first = &scores[0];
    let seconds: f64 = scores.iter().map(|s| s.seconds).sum();
    let setting = format!("context {}{note}; BOS: {}\n{seconds:.1} s{streamed}", first.context, first.bos);
    Ok((value, format!("{}{setting}", table.to_text())))
}

/// A task, the lines of its file, what they ask, and that in tokens.
struct Items {
    task: Task,
    lines: Lines<Value>,
    items: Vec<TaskItem>,
    joined: Vec<Vec<Joined>>,
}

impl Items {
    fn read(name: &str, most: Option<usize>, encoding: &Encoding<'_>) -> Result<Items> {
        let task = Task::of(name)?;
        let path = data_dir().join("tasks").join(format!("{name}.jsonl"));
        let lines = read_lines::<Value>(&path, most)?;
        let items = lines.try_map(|_, line| task.item(line))?;
        let joined = lines.try_map(|i, _| items[i].join(encoding))?;
        Ok(Items { task, lines, items, joined })
    }
}

/// Questions and texts in tokens.
struct Asked {
    choices: Option<(Lines<Question>, Vec<Vec<Joined>>)>,
    last_words: Option<(Lines<LastWord>, Vec<Joined>)>,
    tasks: Vec<Items>,
    /// Where the token that begins a text stands, in words.
    bos: String,
}

impl Asked {
    /// `None` if there is neither.
    fn read(args: &Args, folder: &Folder, config: &Config) -> Result<Option<Asked>> {
        if args.choices.is_none() && args.last_word.is_none() && args.tasks.is_empty() {
            return Ok(None);
        }
        args.tasks.iter().try_for_each(|name| Task::of(name).map(|_| ()))?;
        let tokenizer = Tokenizer::open(&args.dir)?;
        let fit = |ids: Vec<u32>| tokenizer.fits(&ids, config.vocab()).map(|()| ids);
        let first = tokenizer.bos(folder.config()).filter(|_| args.bos == Bos::Window);
        if args.bos == Bos::Window && first.is_none() {
            return Err(Error::malformed(&args.dir, "names no token that begins a text; --bos window needs one"));
        }
        let bare = |text: &str| tokenizer.encode(text, false).and_then(fit);
        let open = |text: &str| match (args.bos, first) {
            (Bos::None, _) => bare(text),
            // The tokenizer puts it, or it is put here.
            (Bos::Window, Some(first)) if tokenizer.first_special() != Some(first) => Ok([&[first], &bare(text)?[..]].concat()),
            _ => tokenizer.encode_open(text).and_then(fit),
        };
        // The model has learned no more positions, or has not been trained for more.
        let longest = [config.max_positions(), config.stated_context()].into_iter().flatten().min();
        let prefix = tokenizer.bos(folder.config()).or_else(|| tokenizer.eos(folder.config()));
        let encoding =
            Encoding { open: &open, bare: &bare, prefix: prefix.filter(|id| (*id as usize) < config.vocab()), longest };
        let choices = args.choices.as_ref().map(|path| {
            let lines = read_lines::<Question>(path, args.items)?;
            let joined = lines.try_map(|_, question| question.join(&encoding))?;
            Ok::<_, Error>((lines, joined))
        });
        let last_words = args.last_word.as_ref().map(|path| {
            let lines = read_lines::<LastWord>(path, args.items)?;
            let joined = lines.try_map(|_, text| text.join(&encoding))?;
            Ok::<_, Error>((lines, joined))
        });
        let tasks = args.tasks.iter().map(|name| Items::read(name, args.items, &encoding)).collect::<Result<Vec<_>>>()?;
        let shown = |id: Option<u32>| match id {
            Some(id) => format!("token {id} {}", tokenizer.token(id).unwrap_or_default()),
            None => "none".to_string(),
        };
        let bos = shown(if args.bos == Bos::None { None } else { first.or(tokenizer.first_special()) });
        Ok(Some(Asked { choices: choices.transpose()?, last_words: last_words.transpose()?, tasks, bos }))
    }
}

/// How many lost the start of their context, in words.
fn shortened(cut: usize) -> String {
    if cut == 0 {
        String::new()
    } else {
        format!("; {cut} lost the start of their context, for which the model has no positions")
    }
}

/// A score with what is not the library's to know.
fn with(score: impl serde::Serialize, bos: &str) -> Result<Value> {
    let mut value = serde_json::to_value(score).map_err(|e| Error::invalid_option("json", e.to_string()))?;
    if let Some(object) = value.as_object_mut() {
        object.insert("bos".to_string(), json!(bos));
    }
    Ok(value)
}

fn choices(lines: &Lines<Question>, joined: &[Vec<Joined>], model: &LanguageModel, bos: &str) -> Result<(Value, String)> {
    let bar = bar(lines.items().len(), "questions");
    let answers = lines.try_map(|i, question| {
        bar.inc(1);
        answer(question, &joined[i], |ids, from| model.nll_from(ids, from))
    })?;
    bar.finish_and_clear();
    let score = ChoiceScore::of(lines.items(), joined, &answers);
    let line = format!(
        "{} questions: accuracy {:.4}, by log-likelihood a character {:.4}; BOS: {bos}{}",
        score.questions,
        score.accuracy,
        score.accuracy_normalised,
        shortened(score.cut),
    );
    Ok((json!({"choices": with(score, bos)?}), line))
}

fn last_words(lines: &Lines<LastWord>, joined: &[Joined], model: &LanguageModel, bos: &str) -> Result<(Value, String)> {
    let bar = bar(lines.items().len(), "texts");
    let guesses = lines.try_map(|i, _| {
        bar.inc(1);
        guess(&joined[i], |ids, from| model.logits_from(ids, from))
    })?;
    bar.finish_and_clear();
    let score = LastWordScore::of(joined, &guesses);
    say_overflow("the perplexity of an ending", score.perplexity, score.nll);
    let line = format!(
        "{} last words: accuracy {:.4}, perplexity of an ending {:.4} (mean -ln p {:.6} nats); BOS: {bos}{}",
        score.texts,
        score.accuracy,
        score.perplexity,
        score.nll,
        shortened(score.cut),
    );
    Ok((json!({"last_word": with(score, bos)?}), line))
}

fn tasks(all: &[Items], model: &LanguageModel, bos: &str) -> Result<(Value, String)> {
    let mut scores: Vec<TaskScore> = Vec::new();
    for Items { task, lines, items, joined } in all {
        let bar = bar(items.len(), task.name);
        let answers = lines.try_map(|i, _| {
            bar.inc(1);
            items[i].answer(&joined[i], |ids, from| model.nll_from(ids, from), |ids, from| model.logits_from(ids, from))
        })?;
        bar.finish_and_clear();
        scores.push(task.score(&answers, joined));
    }
    let mut table = Table::new(["task", "items", "accuracy", "±", "a character", "±", "perplexity", "cut"]);
    let share = |value: Option<f64>| Cell::from(value.map(|x| Cell::float(x, 4)));
    for score in &scores {
        table.row((
            score.task.clone(),
            score.items,
            Cell::float(score.accuracy, 4),
            share(score.accuracy_stderr),
            share(score.accuracy_normalised),
            share(score.accuracy_normalised_stderr),
            share(score.perplexity),
            score.cut,
        ));
    }
    let value = scores.iter().map(|score| with(score, bos)).collect::<Result<Vec<_>>>()?;
    Ok((json!({ "tasks": value }), format!("{}BOS: {bos}", table.to_text())))
}
