//! Muralidharan et al. 2024, *Compact language models via pruning and knowledge distillation*: a model that the program trains is cut and distilled.
//!
//! `cargo run --release --example minitron -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::data::{data_dir, read_text};
use lacuna::io::{Dtype, atomic};
use lacuna::job::{Event, Keep, ShrinkJob, ShrinkMethod, TrainJob};
use lacuna::lm::{Config, init};
use lacuna::paper::{Figures, Options, Study};
use lacuna::prune::DepthScore;
use lacuna::report::{Cell, Figure, Table};
use lacuna::rng::Seed;
use lacuna::text::train_bpe;
use lacuna::{Error, Result};
use serde_json::json;
use std::ops::ControlFlow::{self, Continue};
use std::path::{Path, PathBuf};

/// The text of the quick run: the first chapters of Genesis, King James version.
const EMBEDDED: &str = include_str!("genesis.txt");

/// Sizes and lengths.
struct Plan {
    set: &'static str,
    vocab: usize,
    /// Hidden features, feed-forward features, heads, layers.
    sizes: [usize; 4],
    /// What stays in each of the four candidates, all of one number of parameters as nearly as their units allow.
    candidates: [Cut; 4],
    /// Half of the way to the first.
    half: usize,
    context: usize,
    batch: usize,
    /// Steps of the model that is cut, of a student, and of a student that is looked at early.
    steps: [usize; 3],
    samples: usize,
    windows: usize,
    rules: [&'static str; 9],
}

/// A name, and features, hidden features, heads and layers that stay; 0 means all.
type Cut = (&'static str, [usize; 4]);

fn plan(options: &Options) -> Plan {
    if options.quick {
        return Plan {
            set: "Genesis 1-32",
            vocab: 384,
            sizes: [48, 144, 4, 4],
            candidates: [
                ("features", [80, 0, 0, 0]),
                ("depth", [0, 0, 0, 3]),
                ("features and heads", [96, 0, 3, 0]),
                ("features and hidden", [104, 40, 0, 0]),
            ],
            half: 112,
            context: 64,
            batch: 8,
            steps: [240, 60, 20],
            samples: 64,
            windows: 24,
            rules: QUICK,
        };
    }
    Plan {
        set: "King James Bible",
        vocab: 2048,
        sizes: [128, 384, 4, 8],
        candidates: [
            ("features", [248, 0, 0, 0]),
            ("depth", [0, 0, 0, 6]),
            ("features and heads", [288, 0, 3, 0]),
            ("features and hidden", [304, 112, 0, 0]),
        ],
        half: 316,
        context: 128,
        batch: 8,
        steps: [2000, 300, 75],
        samples: 128,
        windows: 96,
        rules: FULL,
    }
}

/// What a run of each candidate must show; what the paper says gives the rules.
const FULL: [&str; 9] = [
    "mean < 60",
    "every < 1",
    "every < 1",
    "every > 1.2",
    "mean <= 1",
    "every < 1",
    "every > 0",
    "mean in 0.9 .. 1.1",
    "every > 0",
];
const QUICK: [&str; 9] = [
    "mean < 120",
    "every < 1",
    "every < 2",
    "every > 1.2",
    "mean <= 1.05",
    "every < 1",
    "mean > 0",
    "mean in 0.8 .. 1.2",
    "mean > -1",
];

/// One seed's folders and jobs. Each piece is a job, and what is finished is not run again.
struct Bench<'p> {
    plan: &'p Plan,
    at: PathBuf,
    seed: Seed,
}

/// Perplexity before the first step, at the early look and at the end.
type Curve = [f64; 3];

impl Bench<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// The text in two parts, nine tenths to learn from.
    fn texts(&self, text: &str) -> Result<()> {
        let cut = text[..text.len() * 9 / 10].rfind('\n').map_or(0, |n| n + 1);
        atomic::create_dir(&self.at)?;
        for (name, part) in [("train.txt", &text[..cut]), ("test.txt", &text[cut..])] {
            std::fs::write(self.file(name), part).map_err(|e| Error::io(self.file(name), e))?;
        }
        Ok(())
    }

    /// A model of these sizes out of a seed, with its tokenizer.
    fn random(&self, name: &str, [hidden, features, heads, layers]: [usize; 4], head: usize) -> Result<()> {
        if self.file(name).is_dir() {
            return Ok(());
        }
        let config = Config::parse(&json!({
            "model_type": "llama", "vocab_size": self.plan.vocab, "hidden_size": hidden, "intermediate_size": features, "head_dim": head,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "tie_word_embeddings": true,
            "max_position_embeddings": self.plan.context, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
        }))?;
        let tokenizer = train_bpe(&[read_text(&self.file("train.txt"))?], self.plan.vocab)?;
        let writer = init(&config, Seed(self.seed.0 + 1000), Dtype::F32, self.file(name))?;
        tokenizer.iter().try_for_each(|(name, bytes)| writer.file(name, bytes))?;
        writer.finish()
    }

    /// Trains for so many steps of the plan, from a teacher or from the text alone.
    fn train(&self, (from, to): (&str, &str), teacher: Option<&str>, (steps, lr): (usize, f64)) -> Result<Curve> {
        let p = self.plan;
        let job = TrainJob::new().model(self.file(from)).out(self.file(to)).text([self.file("train.txt")]).steps(steps);
        let job =
            job.context(p.context).batch(p.batch).seed(self.seed.0).lr(lr).validation(self.file("test.txt")).windows(p.windows);
        let job = job.keep(Keep::Last).eval_every(p.steps[2]).save_every(p.steps[1]).resume(true);
        let report = teacher.map_or(job.clone(), |t| job.teacher(self.file(t))).run(&mut quiet)?;
        let at = |step: usize| report.validation.iter().find(|v| v.step == step).map_or(f64::NAN, |v| v.perplexity);
        eprintln!("  seed {}: {to}, perplexity {:.2}, {:.2}, {:.2}", self.seed.0, at(0), at(p.steps[2]), at(steps));
        Ok([at(0), at(p.steps[2]), at(steps)])
    }

    fn cut(&self, (from, to): (&str, &str), [features, hidden, heads, layers]: [usize; 4], method: ShrinkMethod) -> Result<()> {
        let mut job = ShrinkJob::default().model(self.file(from)).out(self.file(to)).method(method).resume(true);
        job = job.calibration(self.file("train.txt")).samples(self.plan.samples).context(self.plan.context);
        job.depth_by = DepthScore::Perplexity;
        job.intermediate = (features > 0).then_some(features);
        job.hidden = (hidden > 0).then_some(hidden);
        (job.heads, job.kv_heads) = ((heads > 0).then_some(heads), (heads > 0).then_some(heads));
        job.layers = (layers > 0).then_some(layers);
        job.run(&mut quiet).map(drop)
    }

    /// What one seed finds: the model that is cut, the candidates, and the four beside the first of them.
    fn run(&self) -> Result<Found> {
        let p = self.plan;
        let ([hidden, features, heads, layers], student) = (p.sizes, (p.steps[1], 1e-3));
        self.random("random", p.sizes, hidden / heads)?;
        let base = self.train(("random", "base"), None, (p.steps[0], 3e-3))?;
        let mut candidates = Vec::new();
        for (n, (_, stays)) in p.candidates.iter().enumerate() {
            let (cut, out) = (format!("cut-{n}"), format!("student-{n}"));
            self.cut(("base", &cut), *stays, ShrinkMethod::Minitron)?;
            candidates.push(self.train((&cut, &out), Some("base"), student)?);
        }
        let text = self.train(("cut-0", "text-alone"), None, student)?;
        self.random("random-0", [hidden, p.candidates[0].1[0], heads, layers], hidden / heads)?;
        let random = self.train(("random-0", "from-random"), Some("base"), student)?;
        self.cut(("base", "cut-obs"), p.candidates[0].1, ShrinkMethod::Obs)?;
        let obs = self.train(("cut-obs", "student-obs"), Some("base"), student)?;
        // The same cut and the same tokens in two halves.
        let half = (p.steps[1] / 2, 1e-3);
        self.cut(("base", "cut-half"), [p.half, 0, 0, 0], ShrinkMethod::Minitron)?;
        self.train(("cut-half", "student-half"), Some("base"), half)?;
        self.cut(("student-half", "cut-whole"), p.candidates[0].1, ShrinkMethod::Minitron)?;
        let twice = self.train(("cut-whole", "student-whole"), Some("base"), half)?;
        debug_assert!(features > p.half);
        Ok(Found { base: base[2], candidates, text, random, obs, twice })
    }
}

struct Found {
    base: f64,
    candidates: Vec<Curve>,
    text: Curve,
    random: Curve,
    obs: Curve,
    twice: Curve,
}

fn quiet(_: &Event) -> ControlFlow<()> {
    Continue(())
}

/// Kendall's τ of two orders of the candidates: 1 where they agree on every pair, −1 where on none.
fn agreement(curves: &[Curve], before: usize) -> f64 {
    let pairs = (0..curves.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let signs: Vec<f64> =
        pairs.map(|(i, j)| ((curves[i][before] - curves[j][before]) * (curves[i][2] - curves[j][2])).signum()).collect();
    signs.iter().sum::<f64>() / signs.len() as f64
}

/// Runs the experiments: a model for every seed, its candidates and their students.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let p = plan(options);
    let temporary = tempfile::tempdir().map_err(|e| Error::io(Path::new("a temporary folder"), e))?;
    let (at, text) = match options.quick {
        true => (temporary.path().to_path_buf(), EMBEDDED.to_string()),
        false => (data_dir().join("minitron"), read_text(&data_dir().join("bible").join("kjv.txt"))?),
    };
    let mut found = Vec::new();
    for &seed in options.seeds() {
        let bench = Bench { plan: &p, at: at.join(format!("seed-{}", seed.0)), seed };
        bench.texts(&text)?;
        found.push((seed, bench.run()?));
    }
    let mut study = Study::default();
    let [hidden, features, heads, layers] = p.sizes;
    let whole = format!("{}, {layers} layers, {hidden} hidden, {features} features, {heads} heads", p.set);
    let each = |f: &dyn Fn(&Found) -> f64| -> Vec<(Seed, f64)> { found.iter().map(|(seed, found)| (*seed, f(found))).collect() };
    let (base, students) = (p.steps[0], format!("{whole}, a quarter of the blocks cut, {} steps", p.steps[1]));
    let c = &mut study.claims;
    c.setting("Nemotron-4 15B", format!("{whole}, {base} steps of {} × {}", p.batch, p.context));
    c.add("perplexity of the model that is cut", "", p.rules[0], 2)?.extend(each(&|f| f.base));
    c.setting("Nemotron-4 15B to 8B; Llama-3.1-8B to 4B", students.clone());
    let width = |f: &Found, at: usize| f.candidates[0][at].min(f.candidates[2][at]).min(f.candidates[3][at]);
    c.add("width over depth after distillation: perplexity", "below 1", p.rules[1], 3)?
        .extend(each(&|f| width(f, 2) / f.candidates[1][2]));
    let advantage = |f: &Found| (f.candidates[3][2] / f.candidates[1][2]) / (f.candidates[3][0] / f.candidates[1][0]);
    c.add("width (features and hidden) over depth, after over before distillation", "below 1", p.rules[2], 3)?
        .extend(each(&advantage));
    c.add("random start over pruned start at equal tokens: perplexity", "above 1", p.rules[3], 3)?
        .extend(each(&|f| f.random[2] / f.candidates[0][2]));
    c.add("distillation over cross-entropy at equal tokens: perplexity", "below 1", p.rules[4], 3)?
        .extend(each(&|f| f.candidates[0][2] / f.text[2]));
    c.setting("not in the paper: followers (OSSCAR, SlimGPT)", students.clone());
    c.add("group OBS over activations before distillation: perplexity", "below 1", p.rules[5], 3)?
        .extend(each(&|f| f.obs[0] / f.candidates[0][0]));
    let gap = |f: &Found, at: usize| (f.candidates[0][at] / f.obs[at]).ln();
    c.add("share of that gap, in ln perplexity, that distillation closes", "", p.rules[6], 3)?
        .extend(each(&|f| 1.0 - gap(f, 2) / gap(f, 0)));
    c.setting("one cut against two halves at equal tokens", students.clone());
    c.add("one cut over two: perplexity", "about 1", p.rules[7], 3)?.extend(each(&|f| f.candidates[0][2] / f.twice[2]));
    c.setting("candidates ranked after short retraining", format!("{students}; short: {}", p.steps[2]));
    let better = |f: &Found| agreement(&f.candidates, 1) - agreement(&f.candidates, 0);
    c.add("agreement with the final order (Kendall's τ), short training less none", "above 0", p.rules[8], 2)?
        .extend(each(&better));
    let mut rows = Table::new(["seed", "student", "step", "perplexity"]);
    for (seed, f) in &found {
        let names = p.candidates.iter().map(|(name, _)| *name);
        let beside = [
            ("features, text alone", f.text),
            ("features, random start", f.random),
            ("features, OBS", f.obs),
            ("features, two cuts", f.twice),
        ];
        for (name, curve) in names.zip(f.candidates.iter().copied()).chain(beside) {
            for (step, value) in [0, p.steps[2], p.steps[1]].into_iter().zip(curve) {
                rows.row((seed.0, name, step, Cell::float(value, 4)));
            }
        }
    }
    study.tables.push(("students".into(), rows));
    Ok(study)
}

/// Perplexity of the students over the steps, means of the seeds.
pub fn draw(study: &Study) -> Result<Figures> {
    let rows = study.table("students")?;
    let mut figure = Figure::new("Students of one teacher", "step", "perplexity").log_y();
    for name in rows.distinct("student")? {
        figure = figure.line(name.clone(), &rows.only("student", name)?, "step", "perplexity")?;
    }
    Ok(vec![("students".into(), figure.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("minitron", run, draw)
}
