//! Muralidharan et al. 2024, *Compact language models via pruning and knowledge distillation*: a model that the program trains is cut and distilled.
//!
//! `cargo run --release --example minitron -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::data::{data_dir, read_text};
use lacuna::job::{Keep, ShrinkJob, ShrinkMethod, TrainJob};
use lacuna::paper::{Figures, Options, Pieces, Study};
use lacuna::prune::DepthScore;
use lacuna::report::{Cell, Figure, Table, kendall_tau};
use lacuna::rng::Seed;
use lacuna::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The text of the quick run: the first chapters of Genesis, King James version.
const EMBEDDED: &str = include_str!("genesis.txt");

/// Feed-forward features, hidden features, heads and layers.
type Sizes = [usize; 4];

const SMALL: [Sizes; 4] = [[80, 48, 4, 4], [144, 48, 4, 3], [96, 48, 3, 4], [104, 40, 4, 4]];
const LARGE: [Sizes; 4] = [[248, 128, 4, 8], [384, 128, 4, 6], [288, 128, 3, 8], [304, 112, 4, 8]];
const NAMES: [&str; 4] = ["features", "depth", "features and heads", "features and hidden"];

struct Plan {
    set: &'static str,
    vocab: usize,
    sizes: Sizes,
    /// What stays in each candidate, of one number of parameters as nearly as units allow; features of the first half-way.
    candidates: [Sizes; 4],
    half: usize,
    context: usize,
    /// Steps of the model that is cut, of a student, and of a student that is looked at early.
    steps: [usize; 3],
    windows: usize,
}

fn plan(options: &Options) -> Plan {
    Plan {
        set: options.pick("Genesis 1-32", "King James Bible"),
        vocab: options.pick(384, 2048),
        sizes: options.pick([144, 48, 4, 4], [384, 128, 4, 8]),
        candidates: options.pick(SMALL, LARGE),
        half: options.pick(112, 316),
        context: options.pick(64, 128),
        steps: options.pick([240, 60, 20], [1200, 200, 50]),
        windows: options.pick(24, 96),
    }
}

/// Perplexities of models by their names: before the first step, at the early look and at the end.
type Found = BTreeMap<&'static str, [f64; 3]>;

/// What one seed finds: the model that is cut, the candidates' students, and four beside the first of them.
fn one(p: &Plan, folder: &Path, text: &str, seed: Seed) -> Result<Found> {
    let pieces = Pieces::new(folder.join(format!("seed-{}", seed.0)), text, seed)?;
    let random = |name: &str, [features, hidden, heads, layers]: Sizes| {
        pieces.llama(name, p.vocab, [hidden, features, heads, layers], p.context)
    };
    let train = |pair: (&str, &str), teacher: Option<&str>, steps: usize, rate: f64| {
        let job = TrainJob::new().steps(steps).context(p.context).batch(8).lr(rate).windows(p.windows).keep(Keep::Last);
        pieces.train(pair, job.eval_every(p.steps[2]).save_every(p.steps[1]), teacher, [0, p.steps[2], steps])
    };
    let cut = |pair: (&str, &str), stays: Sizes, method: ShrinkMethod| {
        let mut job = ShrinkJob::default().method(method).samples(96).context(p.context);
        job.depth_by = DepthScore::Perplexity;
        let less = |which: usize| (stays[which] < p.sizes[which]).then_some(stays[which]);
        (job.intermediate, job.hidden, job.heads, job.kv_heads, job.layers) = (less(0), less(1), less(2), less(2), less(3));
        pieces.shrink(pair, job)
    };
    random("random", p.sizes)?;
    let mut found = Found::from([("base", train(("random", "base"), None, p.steps[0], 3e-3)?)]);
    let mut learn = |name: &'static str, pair: (&str, &str), teacher: Option<&str>, steps: usize| -> Result<()> {
        found.insert(name, train(pair, teacher, steps, 1e-3)?);
        Ok(())
    };
    let (teacher, steps) = (Some("base"), p.steps[1]);
    for (n, stays) in p.candidates.into_iter().enumerate() {
        let (pruned, out) = (format!("cut-{n}"), format!("student-{n}"));
        cut(("base", &pruned), stays, ShrinkMethod::Minitron)?;
        learn(NAMES[n], (&pruned, &out), teacher, steps)?;
    }
    learn("text alone", ("cut-0", "text-alone"), None, steps)?;
    random("random-0", p.candidates[0])?;
    learn("random start", ("random-0", "from-random"), teacher, steps)?;
    cut(("base", "cut-obs"), p.candidates[0], ShrinkMethod::Obs)?;
    learn("OBS", ("cut-obs", "student-obs"), teacher, steps)?;
    // The same cut and the same tokens in two halves.
    cut(("base", "cut-half"), [p.half, p.sizes[1], p.sizes[2], p.sizes[3]], ShrinkMethod::Minitron)?;
    learn("two cuts", ("cut-half", "student-half"), teacher, steps / 2)?;
    cut(("student-half", "cut-whole"), p.candidates[0], ShrinkMethod::Minitron)?;
    learn("two cuts", ("cut-whole", "student-whole"), teacher, steps / 2)?;
    Ok(found)
}

const WIDTH: &str = "width over depth after distillation: perplexity";
const ADVANTAGE: &str = "width (features and hidden) over depth, after over before distillation";
const RANDOM: &str = "random start over pruned start at equal tokens: perplexity";
const DISTILLED: &str = "distillation over cross-entropy at equal tokens: perplexity";
const OBS: &str = "group OBS over activations before distillation: perplexity";
const CLOSED: &str = "share of that gap, in ln perplexity, that distillation closes";
const TWICE: &str = "one cut over two halves, at equal tokens: perplexity";
const RANKED: &str = "agreement with the final order (Kendall's τ), short training less none";

/// Runs the experiments: a model for every seed, its candidates and their students.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let p = plan(options);
    let temporary = tempfile::tempdir().map_err(|e| Error::io("a temporary folder", e))?;
    let folder = options.pick(temporary.path().to_path_buf(), data_dir().join("minitron"));
    let text = if options.quick { EMBEDDED.to_string() } else { read_text(&data_dir().join("bible/kjv.txt"))? };
    let each = options.seeds().iter().map(|&seed| Ok((seed, one(&p, &folder, &text, seed)?))).collect::<Result<Vec<_>>>()?;
    let mut study = Study::default();
    let over = |f: &Found, above: &str, below: &str, at: usize| f[above][at] / f[below][at];
    let width = |f: &Found| [0, 2, 3].map(|n| f[NAMES[n]][2]).into_iter().fold(f64::MAX, f64::min) / f["depth"][2];
    let order = |f: &Found, look: usize| kendall_tau(&NAMES.map(|n| f[n][look]), &NAMES.map(|n| f[n][2]));
    let whole = format!("{}, [features, hidden, heads, layers] = {:?}", p.set, p.sizes);
    let cut = format!("{whole}, a quarter of the blocks cut, {} steps, {} of short training", p.steps[1], p.steps[2]);
    let c = &mut study.claims;
    let of = |value: &dyn Fn(&Found) -> f64| each.iter().map(|(seed, f)| (*seed, value(f))).collect::<Vec<(Seed, f64)>>();
    c.setting("Nemotron-4 15B", format!("{whole}, {} steps of 8 × {}", p.steps[0], p.context));
    c.add("perplexity of the model that is cut", "", options.pick("mean < 120", "mean < 60"), 2)?.extend(of(&|f| f["base"][2]));
    c.setting("Nemotron-4 15B to 8B; Llama-3.1-8B to 4B", cut.clone());
    c.add(WIDTH, "below 1", options.pick("every < 1.05", "every < 1"), 3)?.extend(of(&width));
    c.add(ADVANTAGE, "below 1", "every < 1", 3)?.extend(of(&|f| over(f, NAMES[3], "depth", 2) / over(f, NAMES[3], "depth", 0)));
    c.add(RANDOM, "above 1", "every > 1.2", 3)?.extend(of(&|f| over(f, "random start", "features", 2)));
    c.add(DISTILLED, "below 1", options.pick("mean < 1.1", "mean <= 1"), 3)?
        .extend(of(&|f| over(f, "features", "text alone", 2)));
    c.add(TWICE, "about 1", options.pick("mean in 0.8 .. 1.2", "mean in 0.9 .. 1.1"), 3)?
        .extend(of(&|f| over(f, "features", "two cuts", 2)));
    c.add(RANKED, "above 0", options.pick("mean > -1", "every > 0"), 2)?.extend(of(&|f| order(f, 1) - order(f, 0)));
    c.setting("not in the paper: followers (OSSCAR, SlimGPT)", cut);
    c.add(OBS, "below 1", "every < 1", 3)?.extend(of(&|f| over(f, "OBS", "features", 0)));
    c.add(CLOSED, "", options.pick("mean > 0", "every > 0"), 3)?
        .extend(of(&|f| 1.0 - over(f, "OBS", "features", 2).ln() / over(f, "OBS", "features", 0).ln()));
    let mut rows = Table::new(["seed", "student", "step", "perplexity"]);
    for (seed, (name, curve)) in each.iter().flat_map(|(seed, found)| found.iter().map(move |one| (seed, one))) {
        let steps = [0, p.steps[2], p.steps[usize::from(*name != "base")]];
        for (step, value) in steps.into_iter().zip(curve) {
            rows.row((seed.0, *name, step, Cell::float(*value, 4)));
        }
    }
    study.tables.push(("students".into(), rows));
    Ok(study)
}

/// Perplexity of the students over the steps, means of the seeds.
pub fn draw(study: &Study) -> Result<Figures> {
    let rows = study.table("students")?;
    let mut figure = Figure::new("Students of one teacher", "step", "perplexity").log_y();
    for name in rows.distinct("student")?.into_iter().filter(|name| name != "base") {
        figure = figure.line(name.clone(), &rows.only("student", name)?, "step", "perplexity")?;
    }
    Ok(vec![("students".into(), figure.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("minitron", run, draw)
}
