//! Structured pruning of language models at step 0, before any training: what several papers say of the order of methods, on one bench.
//!
//! `cargo run --release --example structured_pruning -- [--quick] [--seeds 0,1,2] [--out FOLDER] [--model DIR --text FILE]`

use lacuna::data::{data_dir, read_text};
use lacuna::io::{Dtype, Folder};
use lacuna::job::{Keep, ShrinkJob, ShrinkMethod, TrainJob};
use lacuna::lm::{Config, init};
use lacuna::paper::{Figures, Options, Study, text_parts};
use lacuna::prune::DepthScore;
use lacuna::report::{Cell, Figure, Table};
use lacuna::rng::Seed;
use lacuna::text::train_bpe;
use lacuna::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::ControlFlow::Continue;
use std::path::{Path, PathBuf};

/// The text of runs without a model: the first chapters of Genesis, King James version.
const EMBEDDED: &str = include_str!("../minitron/genesis.txt");
/// Of activations over tokens, then over sequences; the first is Minitron's.
const AGGREGATIONS: [&str; 5] = [MINITRON, "l2,l2", "variance,l2", "mean,mean", "l2,mean"];
const MINITRON: &str = "mean,l2";

/// One seed's model and what is cut out of it; each piece is a job, and one that is finished is not run again.
struct Bench {
    at: PathBuf,
    model: PathBuf,
    seed: Seed,
    sizes: [usize; 3], // sequences of calibration, their tokens, windows to judge by
}

/// By name the perplexity that a cut leaves, and the fraction of the parameters that went.
type Cuts = BTreeMap<String, [f64; 2]>;

impl Bench {
    fn train(options: &Options, at: PathBuf, seed: Seed) -> Result<Bench> {
        let [vocab, hidden, features, heads, layers] = options.pick([300, 24, 72, 4, 6], [384, 32, 96, 4, 6]);
        let [steps, context, batch] = options.pick([400, 48, 6], [1000, 48, 8]);
        text_parts(&at, EMBEDDED, 0.0)?;
        let (text, start, model) = (at.join("train.txt"), at.join("start"), at.join("base"));
        let config = Config::parse(&json!({
            "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": features, "head_dim": hidden / heads,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "tie_word_embeddings": true,
            "max_position_embeddings": context, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0, "initializer_range": 0.1,
        }))?;
        if !start.is_dir() {
            let writer = init(&config, Seed(seed.0 + 1000), Dtype::F32, &start)?;
            let tokenizer = train_bpe(&[read_text(&text)?], vocab)?;
            tokenizer.iter().try_for_each(|(name, bytes)| writer.file(name, bytes))?;
            writer.finish()?;
        }
        let job = TrainJob::new().model(&start).out(&model).text([text]).steps(steps).context(context).batch(batch);
        job.seed(seed.0).lr(4e-3).keep(Keep::Last).resume(true).run(&mut |_| Continue(())).map(drop)?;
        Ok(Bench { at, model, seed, sizes: [options.pick(32, 64), context, options.pick(24, 64)] })
    }

    /// Cuts the model, and judges what is left.
    fn cut(&self, cuts: &mut Cuts, name: &str, change: impl FnOnce(ShrinkJob) -> ShrinkJob) -> Result<()> {
        let [samples, context, windows] = self.sizes;
        let job = ShrinkJob::default().model(&self.model).out(self.at.join(name.replace([' ', ','], "-"))).seed(self.seed.0);
        let job = job.calibration(self.at.join("train.txt")).samples(samples).context(context);
        let report = change(job.text(self.at.join("test.txt")).windows(windows).resume(true)).run(&mut |_| Continue(()))?;
        let [dense, left] = report.perplexity.map_or([f64::NAN; 2], |p| [p.before, p.after]);
        cuts.insert("dense".into(), [dense, 0.0]);
        cuts.insert(name.into(), [left, 1.0 - report.after.parameters as f64 / report.before.parameters as f64]);
        Ok(())
    }

    fn run(&self) -> Result<Cuts> {
        let config = Config::of(&Folder::open(&self.model)?)?;
        let (w, hidden, layers) = (config.widths(0), config.hidden(), config.layers());
        let (fewer, least) = (layers - (layers / 6).max(1), layers - (layers / 4).max(2));
        // As many weights as the layers that go have.
        let block = (2 * w.heads + 2 * w.kv_heads) * w.head_dim * hidden + 3 * hidden * w.intermediate;
        let width = w.intermediate - (layers - fewer) * block / (layers * 3 * hidden);
        let heads = w.heads - if w.heads == w.kv_heads { w.heads.div_ceil(4) } else { w.kv_heads };
        let (some, minitron, mut all) = (w.intermediate * 2 / 3, ShrinkMethod::Minitron, Cuts::new());
        for method in [ShrinkMethod::Random, ShrinkMethod::Magnitude, ShrinkMethod::Obs] {
            self.cut(&mut all, method.name(), |j| j.intermediate(some).method(method))?;
        }
        for name in AGGREGATIONS {
            let by = name.parse()?;
            self.cut(&mut all, name, |j| j.intermediate(some).method(minitron).aggregate(by))?;
        }
        self.cut(&mut all, "width", |j| j.intermediate(width).method(minitron))?;
        self.cut(&mut all, "layers", |j| j.layers(fewer))?;
        self.cut(&mut all, "heads", |j| j.heads(heads).method(minitron))?;
        self.cut(&mut all, "hidden", |j| j.hidden(hidden * 3 / 4))?;
        self.cut(&mut all, "by influence", |j| j.layers(least))?;
        self.cut(&mut all, "each alone", |j| j.layers(least).depth_by(DepthScore::Error))?;
        Ok(all)
    }
}

/// Runs the experiments: a model for every seed, or one model with the calibration of every seed.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let temporary = tempfile::tempdir().map_err(|e| Error::io(Path::new("a temporary folder"), e))?;
    let name = options.model.as_ref().and_then(|(model, _)| model.file_name()).unwrap_or("small".as_ref());
    let above = if options.quick { temporary.path().into() } else { data_dir().join("structured_pruning").join(name) };
    let mut found: Vec<(Seed, Cuts)> = Vec::new();
    for &seed in options.seeds() {
        let at = above.join(format!("seed-{}", seed.0));
        let Some((model, text)) = options.model.clone() else {
            found.push((seed, Bench::train(options, at, seed)?.run()?));
            continue;
        };
        text_parts(&at, &read_text(&text)?, (seed.0 % 8) as f64 / 8.0)?;
        found.push((seed, Bench { at, model, seed, sizes: [32, 512, 20] }.run()?));
    }
    let mut study = Study::default();
    let trained = options.pick("6 layers, 24 hidden, 72 features, 4 heads", "6 layers, 32 hidden, 96 features, 4 heads");
    let on = options.model.as_ref().map_or(trained.to_string(), |(model, _)| model.display().to_string());
    let each = |f: &dyn Fn(&Cuts) -> f64| found.iter().map(|(seed, cuts)| (*seed, f(cuts))).collect::<Vec<_>>();
    let ratio = |a: &str, b: &str| each(&|of| of[a][0] / of[b][0]);
    let damage = |of: &Cuts, a: &str| (of[a][0] / of["dense"][0]).ln() / of[a][1];
    let others = |of: &Cuts| AGGREGATIONS[1..].iter().map(|n| (of[*n][0] / of[MINITRON][0]).powf(0.25)).product::<f64>();
    let (third, c) = (format!("{on}; a third of the features"), &mut study.claims);
    c.setting("", on.clone());
    c.add("dense: perplexity", "", options.pick("mean < 120", "mean < 80"), 2)?.extend(each(&|of| of["dense"][0]));
    c.setting("LLM-Pruner, LLaMA-7B, 20 %: 582 and 27.5", third.clone());
    c.add("L2 of the group over random: perplexity", "21", "every > 1", 3)?.extend(ratio("magnitude", "random"));
    c.setting("Minitron, Nemotron-4 15B", third.clone());
    c.add("other aggregations over mean, then L2: perplexity", "above 1", "mean > 1", 3)?.extend(each(&others));
    c.setting("OSSCAR, SlimGPT", third);
    c.add("group OBS over activations: perplexity", "below 1", "every < 1", 3)?.extend(ratio("obs", MINITRON));
    c.setting("Minitron, Nemotron-4 15B, not retrained", format!("{on}; as many weights of blocks"));
    c.add("fewer layers over fewer features: perplexity", "at most 1", "mean <= 1", 3)?.extend(ratio("layers", "width"));
    c.setting("Model-Optimizer, Qwen3-30B-A3B", format!("{on}; damage: Δ ln perplexity by the parameters that went"));
    for (a, b, less) in [("heads", MINITRON, "features"), ("layers", "heads", "heads"), ("hidden", "layers", "layers")] {
        let more = each(&|of| damage(of, a) - damage(of, b));
        c.add(format!("damage of {a} less that of {less}"), "above 0", "mean > 0", 3)?.extend(more);
    }
    c.setting("Puzzletron, Qwen3-8B: MMLU 0.295 and 0.508", format!("{on}; a quarter of the layers"));
    c.add("layers by what each costs over block influence", "above 1", "mean > 1", 3)?
        .extend(ratio("each alone", "by influence"));
    let mut rows = Table::new(["seed", "cut", "parameters gone", "perplexity"]);
    for (seed, (name, [left, gone])) in found.iter().flat_map(|(seed, cuts)| cuts.iter().map(move |cut| (seed, cut))) {
        rows.row((seed.0, name.as_str(), Cell::float(*gone, 4), Cell::float(*left, 4)));
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
