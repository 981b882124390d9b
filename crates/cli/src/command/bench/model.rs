//! `lacuna bench model`: how fast models write and read, in turns, and what they make of a text.

use super::case::in_pool;
use super::room::check_threads;
use crate::command::model::{bar, of, open, stored};
use crate::command::place::{self, Force};
use crate::command::texts::bos;
use crate::command::{print, print_json};
use clap::Parser;
use lacuna::advise::{Speed, SpeedTrial, memory_bandwidth};
use lacuna::data::{Bos, Windows};
use lacuna::eval::{Evaluated, TextScore, available_memory, peak_memory};
use lacuna::io::atomic;
use lacuna::kernels::Isa;
use lacuna::lm::{Inference, LanguageModel, Running};
use lacuna::report::{Cell, Figure, Page, Point, Table};
use lacuna::sparse::{ActivationBits, Precision};
use lacuna::{Error, Result};
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Options of `bench model`. Lists are separated by commas; every combination is a way to run each folder.
#[derive(Parser)]
pub struct Model {
    /// Folders of models
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// In which storage pruned layers run: auto, dense, or one of those of spmm
    #[arg(long, value_delimiter = ',', default_value = "auto")]
    format: Vec<String>,
    /// Numbers of linear layers: own (as they are, in as few bits as hold them), or rounded to the nearest f32, bf16, f16, i8, i8:INPUTS,
    /// u8:INPUTS, i4:INPUTS, u4:INPUTS, of INPUTS a multiple of 32 that divides all rows
    #[arg(long, value_delimiter = ',', default_value = "own")]
    values: Vec<String>,
    /// Bits of activations in products with weights of 4 and 8 bits: 32, 8
    #[arg(long, value_delimiter = ',', default_value = "32")]
    activation_bits: Vec<String>,
    /// Tokens that a turn writes: 1 and more
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Tokens that a turn reads at once: 2 and more
    #[arg(long, default_value_t = 256)]
    prompt: usize,
    /// Turns of each model: 1 and more
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// A text whose perplexity each way of running gives
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens of a window of the text
    #[arg(long, default_value_t = 512)]
    context: usize,
    /// Only the first windows
    #[arg(long)]
    windows: Option<usize>,
    /// Where the token that begins a text stands
    #[arg(long, value_parser = bos(), default_value = "tokenizer")]
    bos: Bos,
    /// Folder for model.csv, model.svg and model.html
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// One JSON object a way of running instead of a table
    #[arg(long)]
    json: bool,
}

/// A way to run a folder.
struct Way {
    dir: PathBuf,
    format: String,
    values: String,
    activation_bits: String,
    inference: Inference,
}

/// What was found of one.
#[derive(Debug, Serialize)]
struct Found {
    model: PathBuf,
    format: String,
    values: String,
    activation_bits: String,
    threads: usize,
    isa: &'static str,
    /// What the layers became.
    storages: String,
    #[serde(flatten)]
    speed: Speed,
    /// Bytes of all linear layers, which a token that is written reads.
    bytes_a_token: u64,
    /// Bytes a second that writing reads, as a share of what the machine's memory gives.
    share_of_bandwidth: f64,
    /// Bytes a second of the machine's memory.
    bandwidth: f64,
    /// Bytes by which the memory that was free became less while this model was read.
    memory: Option<u64>,
    perplexity: Option<f64>,
    nll: Option<f64>,
}

impl Model {
    /// Every combination, checked.
    fn ways(&self) -> Result<Vec<Way>> {
        let mut ways = Vec::new();
        for dir in &self.dirs {
            for format in &self.format {
                let running: Running = format.parse()?;
                for values in &self.values {
                    let rounded: Option<Precision> = if values == "own" { None } else { Some(values.parse()?) };
                    for bits in &self.activation_bits {
                        let activation_bits: ActivationBits = bits.parse()?;
                        let inference = Inference::tokens(1).running(running).with_activation_bits(activation_bits);
                        let inference = rounded.map_or(inference, |values| inference.with_values(values));
                        let (format, values, activation_bits) = (format.clone(), values.clone(), bits.clone());
                        ways.push(Way { dir: dir.clone(), format, values, activation_bits, inference });
                    }
                }
            }
        }
        Ok(ways)
    }
}

/// Runs the command.
pub fn run(args: &Model) -> Result<()> {
    check_threads(&[args.threads])?;
    if let Some(out) = &args.out {
        place::reports(out, &["model.html", "model.csv", "model.svg"], args.force.force)?;
    }
    let ways = args.ways()?;
    let texts = args.dirs.iter().map(|dir| cut(args, dir)).collect::<Result<Vec<_>>>()?;
    args.out.as_deref().map(place::reports_folder).transpose()?;
    let found = in_pool(args.threads, || measured(args, &ways, &texts))?;
    let table = table(&found);
    if args.json {
        found.iter().try_for_each(print_json)?;
    } else {
        let first = &found[0];
        let peak =
            peak_memory().map_or(String::new(), |bytes| format!("; peak memory of all together {:.0} MB", bytes as f64 / 1e6));
        let setting = format!(
            "{} threads ({}), {} tokens written and {} read a turn, medians of {}; memory gives {:.1} GB/s{peak}\n",
            first.threads,
            first.isa,
            args.tokens,
            args.prompt,
            args.rounds,
            first.bandwidth / 1e9
        );
        print(&(table.to_text() + &setting))?;
    }
    if let Some(out) = &args.out {
        let svg = figure(&found)?;
        atomic::write_bytes(out.join("model.csv"), table.to_csv().as_bytes())?;
        atomic::write_bytes(out.join("model.svg"), svg.as_bytes())?;
        let page = Page::new("How fast models write and read").table(&table).figure(&svg);
        atomic::write_bytes(out.join("model.html"), page.to_html().as_bytes())?;
    }
    Ok(())
}

/// The text in tokens of a folder, checked before anything is timed.
fn cut(args: &Model, dir: &Path) -> Result<Option<Windows>> {
    let (folder, config) = open(dir)?;
    if !config.is_decoder() {
        return Err(Error::malformed(dir, format!("is an {}; bench model times decoders", config.kind())));
    }
    let Some(text) = &args.text else { return Ok(None) };
    Windows::read(text, &folder, &config, args.context, args.windows, args.bos).map(Some)
}

fn measured(args: &Model, ways: &[Way], texts: &[Option<Windows>]) -> Result<Vec<Found>> {
    let trial = SpeedTrial { tokens: args.tokens, prompt: args.prompt, rounds: args.rounds };
    let mut models: Vec<(LanguageModel, u64, String, Option<u64>)> = Vec::new();
    for way in ways {
        let (folder, config) = open(&way.dir)?;
        let before = available_memory();
        let (model, value, line) = stored(&folder, config, way.inference)?;
        let memory = before.zip(available_memory()).map(|(before, after)| before.saturating_sub(after));
        models.push((model, value["stored_bytes"].as_u64().unwrap_or(0), line, memory));
    }
    let bandwidth = memory_bandwidth();
    let all: Vec<&LanguageModel> = models.iter().map(|m| &m.0).collect();
    let rounds = bar(args.rounds + 1, "rounds");
    let speeds = trial.measure(&all, |round| rounds.set_position(round as u64 + 1));
    rounds.finish_and_clear();
    let speeds = speeds?;
    let mut found = Vec::new();
    for ((way, (model, bytes, storages, memory)), speed) in ways.iter().zip(&models).zip(speeds) {
        let text = args.dirs.iter().position(|dir| *dir == way.dir).and_then(|i| texts[i].as_ref());
        let score = match (text, &args.text) {
            (Some(windows), Some(path)) => {
                let bar = bar(windows.windows.len(), "windows");
                let score = TextScore::measure(Evaluated::Memory(model), path, windows, &mut |done, _| {
                    bar.set_position(done as u64);
                    ControlFlow::Continue(())
                });
                bar.finish_and_clear();
                Some(score.map_err(|e| of(&way.dir, e))?)
            }
            _ => None,
        };
        found.push(Found {
            model: way.dir.clone(),
            format: way.format.clone(),
            values: way.values.clone(),
            activation_bits: way.activation_bits.clone(),
            threads: args.threads,
            isa: Isa::chosen()?.name(),
            storages: storages.clone(),
            speed,
            bytes_a_token: *bytes,
            share_of_bandwidth: *bytes as f64 * speed.decode.median / bandwidth,
            bandwidth,
            memory: *memory,
            perplexity: score.as_ref().map(|s| s.perplexity),
            nll: score.as_ref().map(|s| s.nll),
        });
    }
    Ok(found)
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new([
        "model",
        "format",
        "values",
        "activations",
        "decode tokens/s",
        "quartiles",
        "prefill tokens/s",
        "MB a token",
        "of bandwidth",
        "CPU ms a token",
        "J a token",
        "memory MB",
        "perplexity",
    ]);
    for f in found {
        let [low, high] = f.speed.decode.quartiles;
        table.row(vec![
            Cell::from(f.model.display().to_string()),
            f.format.clone().into(),
            f.values.clone().into(),
            f.activation_bits.clone().into(),
            Cell::float(f.speed.decode.median, 1),
            format!("{low:.1} to {high:.1}").into(),
            Cell::float(f.speed.prefill.median, 1),
            Cell::float(f.bytes_a_token as f64 / 1e6, 1),
            Cell::float(f.share_of_bandwidth, 2),
            f.speed.processor_seconds_a_token.map_or(Cell::Missing, |s| Cell::float(1e3 * s, 1)),
            f.speed.joules_a_token.map_or(Cell::Missing, |j| Cell::float(j, 3)),
            f.memory.map_or(Cell::Missing, |bytes| Cell::float(bytes as f64 / 1e6, 0)),
            f.perplexity.map_or(Cell::Missing, |p| Cell::float(p, 4)),
        ]);
    }
    table
}

/// Perplexity against speed where there is a text, else reading against writing: a point a way of running.
fn figure(found: &[Found]) -> Result<String> {
    let name = |f: &Found| {
        let model = f.model.file_name().map_or_else(|| f.model.display().to_string(), |name| name.to_string_lossy().into_owned());
        format!("{model}, {} of {}, activations of {}", f.format, f.values, f.activation_bits)
    };
    let with_text = found.iter().all(|f| f.perplexity.is_some_and(f64::is_finite));
    let (title, y) = match with_text {
        true => ("Perplexity against speed", "perplexity"),
        false => ("Reading against writing", "tokens read a second"),
    };
    let mut figure = Figure::new(title, "tokens written a second", y);
    for f in found {
        let at = f.perplexity.filter(|_| with_text).unwrap_or(f.speed.prefill.median);
        figure = figure.series(name(f), vec![Point::new(f.speed.decode.median, at)]);
    }
    figure.to_svg()
}
