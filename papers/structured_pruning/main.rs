//! Structured pruning of language models at step 0, before any training: what several papers say of the order of methods, on one bench.
//!
//! `cargo run --release --example structured_pruning -- [--quick] [--seeds 0,1,2] [--out FOLDER] [--model DIR --text FILE]`

use lacuna::data::read_text;
use lacuna::io::{Dtype, Folder, atomic};
use lacuna::job::{Event, Keep, ShrinkJob, ShrinkMethod, TrainJob};
use lacuna::lm::{Config, init};
use lacuna::paper::{Figures, Options, Study};
use lacuna::prune::{Aggregate, Aggregation, DepthScore};
use lacuna::report::{Cell, Figure, Table};
use lacuna::rng::Seed;
use lacuna::text::train_bpe;
use lacuna::{Error, Result};
use serde_json::json;
use std::ops::ControlFlow::{self, Continue};
use std::path::{Path, PathBuf};

/// The text of runs without a model: the first chapters of Genesis, King James version.
const EMBEDDED: &str = include_str!("../minitron/genesis.txt");

/// One seed's model and what is cut out of it; each piece is a job, and one that is finished is not run again.
struct Bench {
    at: PathBuf,
    model: PathBuf,
    seed: Seed,
    samples: usize,
    context: usize,
    windows: usize,
}

/// Perplexity, and the fraction of the whole model's parameters that went.
#[derive(Clone, Copy)]
struct Left {
    perplexity: f64,
    gone: f64,
}

fn quiet(_: &Event) -> ControlFlow<()> {
    Continue(())
}

/// Nine tenths of a text to measure and to learn on, for each seed from another place on, and the rest to judge by.
fn split(at: &Path, text: &str, start: f64) -> Result<()> {
    let lines = |text: &str, at: usize| text[..text.floor_char_boundary(at)].rfind('\n').map_or(0, |n| n + 1);
    let cut = lines(text, text.len() * 9 / 10);
    let (before, rest) = text[..cut].split_at(lines(&text[..cut], (cut as f64 * start) as usize));
    atomic::create_dir(at)?;
    for (name, part) in [("train.txt", rest.to_string() + before), ("test.txt", text[cut..].to_string())] {
        std::fs::write(at.join(name), part).map_err(|e| Error::io(at.join(name), e))?;
    }
    Ok(())
}

impl Bench {
    /// A small Llama that has learnt the text.
    fn train(options: &Options, at: PathBuf, seed: Seed) -> Result<Bench> {
        let (vocab, hidden, features, heads, layers) = options.pick((256, 24, 72, 4, 6), (384, 48, 144, 4, 8));
        let (steps, context, batch) = options.pick((160, 48, 6), (600, 64, 8));
        split(&at, EMBEDDED, 0.0)?;
        let (random, model) = (at.join("random"), at.join("base"));
        let config = Config::parse(&json!({
            "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": features, "head_dim": hidden / heads,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "tie_word_embeddings": true,
            "max_position_embeddings": context, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
        }))?;
        if !random.is_dir() {
            let writer = init(&config, Seed(seed.0 + 1000), Dtype::F32, &random)?;
            let tokenizer = train_bpe(&[read_text(&at.join("train.txt"))?], vocab)?;
            tokenizer.iter().try_for_each(|(name, bytes)| writer.file(name, bytes))?;
            writer.finish()?;
        }
        let job = TrainJob::new().model(&random).out(&model).text([at.join("train.txt")]).steps(steps).context(context);
        job.batch(batch).seed(seed.0).lr(4e-3).keep(Keep::Last).resume(true).run(&mut quiet)?;
        Ok(Bench { at, model, seed, samples: options.pick(32, 64), context, windows: options.pick(24, 64) })
    }

    /// What is left of the model, and how well it speaks.
    fn cut(&self, name: &str, change: impl FnOnce(ShrinkJob) -> ShrinkJob) -> Result<Left> {
        let job = ShrinkJob::default().model(&self.model).out(self.at.join(name.replace([' ', ','], "-"))).seed(self.seed.0);
        let job = job.calibration(self.at.join("train.txt")).samples(self.samples).context(self.context).round(1);
        let report = change(job.text(self.at.join("test.txt")).windows(self.windows).resume(true)).run(&mut quiet)?;
        let perplexity = report.perplexity.as_ref().map_or(f64::NAN, |p| p.after);
        eprintln!("  seed {}: {name}, perplexity {perplexity:.2}", self.seed.0);
        let [before, after] = [report.before, report.after].map(|size| size.parameters as f64);
        Ok(Left { perplexity, gone: 1.0 - after / before })
    }

    /// All that is cut, by name; the model as it was under the name `dense`.
    fn run(&self) -> Result<Vec<(String, Left)>> {
        let config = Config::of(&Folder::open(&self.model)?)?;
        let (w, hidden, layers) = (config.widths(0), config.hidden(), config.layers());
        let (fewer, least) = (layers - (layers / 6).max(1), layers - (layers / 4).max(2));
        // As many weights as the layers that go have.
        let block = (2 * w.heads + 2 * w.kv_heads) * w.head_dim * hidden + 3 * hidden * w.intermediate;
        let width = w.intermediate - (layers - fewer) * block / (layers * 3 * hidden);
        let heads = w.heads - if w.heads == w.kv_heads { w.heads.div_ceil(4) } else { w.kv_heads };
        let some = w.intermediate * 2 / 3;
        let mut all = vec![("dense".to_string(), self.cut("dense", |j| j.sort(true).method(ShrinkMethod::Magnitude))?)];
        let mut add = |name: &str, change: &dyn Fn(ShrinkJob) -> ShrinkJob| -> Result<()> {
            all.push((name.to_string(), self.cut(name, change)?));
            Ok(())
        };
        for method in [ShrinkMethod::Random, ShrinkMethod::Magnitude, ShrinkMethod::Obs] {
            add(method.name(), &|j| j.intermediate(some).method(method))?;
        }
        for (tokens, sequences) in Aggregate::ALL.into_iter().flat_map(|t| Aggregate::ALL.map(|s| (t, s))) {
            let aggregation = Aggregation { tokens, sequences };
            add(&aggregation.to_string(), &|j| j.intermediate(some).method(ShrinkMethod::Minitron).aggregate(aggregation))?;
        }
        add("width", &|j| j.intermediate(width).method(ShrinkMethod::Minitron))?;
        add("layers", &|j| j.layers(fewer))?;
        add("heads", &|j| j.heads(heads).method(ShrinkMethod::Minitron))?;
        add("hidden", &|j| j.hidden(hidden * 3 / 4))?;
        add("by influence", &|j| j.layers(least))?;
        add("each alone", &|j| j.layers(least).depth_by(DepthScore::Error))?;
        Ok(all)
    }
}

/// Runs the experiments: a model for every seed, or one model with the calibration of every seed.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let temporary = tempfile::tempdir().map_err(|e| Error::io(Path::new("a temporary folder"), e))?;
    let mut found = Vec::new();
    for &seed in options.seeds() {
        let at = if options.quick { temporary.path().to_path_buf() } else { options.folder("structured_pruning").join("pieces") };
        let at = at.join(format!("seed-{}", seed.0));
        let bench = match &options.model {
            None => Bench::train(options, at, seed)?,
            Some((model, text)) => {
                split(&at, &read_text(text)?, (seed.0 % 8) as f64 / 8.0)?;
                Bench { at, model: model.clone(), seed, samples: 32, context: 512, windows: 20 }
            }
        };
        found.push((seed, bench.run()?));
    }
    let mut study = Study::default();
    let on = options.model.as_ref().map_or_else(
        || options.pick("6 layers, 24 hidden, 72 features, 4 heads, Genesis", "8 layers, 48 hidden, 144 features, 4 heads, Genesis").into(),
        |(model, _)| model.file_name().map_or("a model".into(), |n| n.to_string_lossy().into_owned()),
    );
    let of = |cuts: &[(String, Left)], name: &str| cuts.iter().find(|(n, _)| n == name).map_or(Left { perplexity: f64::NAN, gone: f64::NAN }, |c| c.1);
    let each = |f: &dyn Fn(&dyn Fn(&str) -> Left) -> f64| -> Vec<(Seed, f64)> { found.iter().map(|(seed, cuts)| (*seed, f(&|name| of(cuts, name)))).collect() };
    let ratio = |a: &'static str, b: &'static str| each(&|of| of(a).perplexity / of(b).perplexity);
    // ln of the perplexity over the dense one's, for each part of the parameters that went.
    let damage = |cut: Left, dense: Left| (cut.perplexity / dense.perplexity).ln() / cut.gone;
    let axes = |a: &'static str, b: &'static str| each(&|of| damage(of(a), of("dense")) - damage(of(b), of("dense")));
    let c = &mut study.claims;
    c.setting("", on.clone());
    c.add("perplexity of the model that is cut", "", options.pick("mean < 120", "mean < 80"), 2)?.extend(each(&|of| of("dense").perplexity));
    c.setting("LLM-Pruner, LLaMA-7B, 20 %", format!("{on}; a third of the features"));
    c.add("L2 of the group over random: perplexity", "21 (582 over 27.5)", "every > 1", 3)?.extend(ratio("magnitude", "random"));
    c.setting("Minitron, Nemotron-4 15B", format!("{on}; a third of the features"));
    let others = |of: &dyn Fn(&str) -> Left| {
        let all = Aggregate::ALL.into_iter().flat_map(|t| Aggregate::ALL.map(|s| format!("{},{}", t.name(), s.name())));
        let other: Vec<f64> = all.filter(|n| n != "mean,l2").map(|n| of(&n).perplexity.ln()).collect();
        (other.iter().sum::<f64>() / other.len() as f64).exp() / of("mean,l2").perplexity
    };
    c.add("other aggregations (geometric mean) over mean, then L2: perplexity", "above 1", "mean > 1", 3)?.extend(each(&others));
    c.setting("OSSCAR, SlimGPT against activations", format!("{on}; a third of the features"));
    c.add("group OBS over activations: perplexity", "below 1", "every < 1", 3)?.extend(ratio("obs", "mean,l2"));
    c.setting("Minitron, Nemotron-4 15B, before retraining", format!("{on}; as many weights of blocks"));
    c.add("fewer layers over fewer features: perplexity", "at most 1", "mean <= 1", 3)?.extend(ratio("layers", "width"));
    c.setting("Model-Optimizer, Qwen3-30B-A3B", format!("{on}; damage: ln of the perplexity's ratio over the part of the parameters"));
    for (a, b) in [("heads", "mean,l2"), ("layers", "heads"), ("hidden", "layers")] {
        c.add(format!("damage of {a} less that of {}", if b == "mean,l2" { "features" } else { b }), "above 0", "mean > 0", 3)?.extend(axes(a, b));
    }
    c.setting("Puzzletron, Qwen3-8B: MMLU 0.295 against 0.508", format!("{on}; a quarter of the layers"));
    c.add("layers by what each costs alone over block influence: perplexity", "above 1", "mean > 1", 3)?.extend(ratio("each alone", "by influence"));
    let mut rows = Table::new(["seed", "cut", "parameters gone", "perplexity"]);
    for (seed, cuts) in &found {
        for (name, left) in cuts {
            rows.row((seed.0, name.as_str(), Cell::float(left.gone, 4), Cell::float(left.perplexity, 4)));
        }
    }
    study.tables.push(("cuts".into(), rows));
    Ok(study)
}

/// Perplexity against the parameters that went, a series a cut.
pub fn draw(study: &Study) -> Result<Figures> {
    let rows = study.table("cuts")?;
    let mut figure = Figure::new("Cut, nothing retrained", "parameters gone", "perplexity").percent_x().log_y();
    for name in rows.distinct("cut")? {
        figure = figure.line(name.clone(), &rows.only("cut", name)?, "parameters gone", "perplexity")?;
    }
    Ok(vec![("cuts".into(), figure.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("structured_pruning", run, draw)
}
