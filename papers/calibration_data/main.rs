//! Williams, Aletras 2024, Ji et al. 2024, Bandari et al. 2024: which text a model is calibrated on, and what is lost on text of other kinds.
//!
//! `cargo run --release --example calibration_data -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::data::data_dir;
use lacuna::job::{Excess, Keep, PruneJob, TrainJob};
use lacuna::paper::{Figures, Options, Pieces, Study, text_parts};
use lacuna::report::{Bars, Cell, Summary, Table};
use lacuna::rng::Seed;
use lacuna::{Error, Result};
use std::collections::BTreeMap;

/// The prose of the quick run: the first chapters of Genesis, King James version. Its other kinds are made up.
const PROSE: &str = include_str!("../minitron/genesis.txt");
const METHODS: [&str; 3] = ["wanda", "sparsegpt", "alps"];

struct Plan {
    kinds: &'static [&'static str],
    set: &'static str,
    /// Few sequences, and many; their tokens.
    samples: [usize; 2],
    context: usize,
    percents: [u32; 2],
}

fn plan(options: &Options) -> Plan {
    Plan {
        kinds: options.pick(&["prose", "sums", "lists"], &["bible", "speeches", "code", "help"]),
        set: options.pick("2 layers, trained on three kinds of text", "SmolLM2-135M"),
        samples: options.pick([24, 48], [16, 128]),
        context: options.pick(64, 512),
        percents: options.pick([80, 90], [50, 70]),
    }
}

/// Lines of a kind: sums, or lists of names and numbers, by chance.
fn text_of(kind: &str, seed: Seed) -> String {
    let mut random = seed.stream(kind);
    let mut part = |sums: bool| {
        let (a, b, name) = (random.below(50), random.below(50), ["height", "width", "count", "last"][random.below(4)]);
        if sums { format!("{a} + {b} = {}; ", a + b) } else { format!("{name}[{}] = {b}; ", a % 10) }
    };
    let mut line = |_| (0..6).map(|_| part(kind == "sums")).collect::<String>() + "\n";
    if kind == "prose" { PROSE.to_string() } else { (0..700).map(&mut line).collect() }
}

/// The excess by source, method and percent of sparsity.
type Found = BTreeMap<(String, &'static str, u32), Excess>;

fn one(p: &Plan, pieces: &Pieces, quick: bool) -> Result<Found> {
    let path = |kind: &str, part: usize| match quick {
        true => pieces.path(kind).join(["train.txt", "test.txt"][part]).display().to_string(),
        false => data_dir().join(format!("texts/{kind}-{}.txt", ["calibration", "judge"][part])).display().to_string(),
    };
    let model = pieces.path("model");
    if quick {
        p.kinds.iter().try_for_each(|kind| text_parts(&pieces.path(kind), &text_of(kind, pieces.seed()), 0.0))?;
        pieces.llama("random", 384, [32, 96, 4, 2], p.context)?;
        let job = TrainJob::new().steps(160).context(p.context).batch(8).lr(3e-3).windows(12).keep(Keep::Last);
        pieces.train(("random", "model"), job.eval_every(160), None, [160])?;
    } else {
        pieces.import("model", &data_dir().join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))?;
    }
    let list = |part: usize| p.kinds.iter().map(|kind| path(kind, part)).collect::<Vec<_>>().join(",");
    let mut sources: Vec<(String, String)> = p.kinds.iter().map(|kind| (kind.to_string(), path(kind, 0) + ":1")).collect();
    sources.extend([("self".into(), "self".into()), ("all".into(), list(0))]);
    let mut found = Found::new();
    let mut prune = |source: String, calibration: &str, (method, percent): (&'static str, u32), samples: usize| -> Result<()> {
        let job = PruneJob::new(method).sparsity(f64::from(percent) / 100.0).calibration(calibration).samples(samples);
        let job = job.context(p.context).text(list(1)).windows(10).seed(pieces.seed().0);
        let report = pieces.prune_and_report(&model, &format!("{source}-{method}-{percent}"), &job)?;
        found.extend(report.excess.map(|excess| ((source, method, percent), excess)));
        Ok(())
    };
    for (n, (source, calibration)) in sources.iter().enumerate() {
        for how in METHODS.into_iter().flat_map(|method| p.percents.map(|percent| (method, percent))) {
            prune(source.clone(), calibration, how, p.samples[0])?;
        }
        if n < p.kinds.len() {
            prune(format!("{source}, more"), calibration, (METHODS[1], p.percents[0]), p.samples[1])?;
        }
    }
    Ok(found)
}

/// Runs the experiments: every source, method and sparsity for every seed.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let temporary = tempfile::tempdir().map_err(|e| Error::io("a temporary folder", e))?;
    let (p, folder) = (plan(options), options.pick(temporary.path().into(), data_dir().join("calibration_data")));
    let one = |&seed: &Seed| {
        let text: String = p.kinds.iter().filter(|_| options.quick).map(|kind| text_of(kind, seed)).collect();
        Ok((seed, one(&p, &Pieces::new(folder.join(format!("seed-{}", seed.0)), &text, seed)?, options.quick)?))
    };
    let each = options.seeds().iter().map(one).collect::<Result<Vec<(Seed, Found)>>>()?;
    let all_of = |values: Vec<f64>| Summary::of(&values).unwrap_or(Summary { mean: f64::NAN, sd: 0.0, min: 0.0, max: 0.0, n: 0 });
    let get = |f: &Found, source: &str, method: &'static str, percent: u32| f[&(source.to_string(), method, percent)];
    // Means over methods of a source, over sources of a method.
    let source = |f: &Found, name: &str, percent: u32| all_of(METHODS.map(|m| get(f, name, m, percent).mean).to_vec()).mean;
    let sources = |f: &Found, percent: u32| all_of(p.kinds.iter().map(|kind| source(f, kind, percent)).collect());
    let method = |f: &Found, name: &'static str, percent: u32, of: fn(&Excess) -> Option<f64>| {
        all_of(p.kinds.iter().filter_map(|kind| of(&get(f, kind, name, percent))).collect()).mean
    };
    let (first, mut study) = (p.percents[0], Study::default());
    let c = &mut study.claims;
    let of = |value: &dyn Fn(&Found) -> f64| each.iter().map(|(seed, f)| (*seed, value(f))).collect::<Vec<(Seed, f64)>>();
    for percent in p.percents {
        c.setting("LLMs of 7B", format!("{}, {percent} %, {} × {} tokens", p.set, p.samples[0], p.context));
        let spread = |x: Summary| x.max - x.min;
        let methods = |f: &Found| all_of(METHODS.map(|m| method(f, m, percent, |e| Some(e.mean))).to_vec());
        let spreads = of(&|f| spread(sources(f, percent)) / spread(methods(f)));
        c.add("spread over sources, over that over methods", "above 1", options.pick("mean > 0", "mean > 1"), 2)?.extend(spreads);
        for (name, text) in [("self", "self-generated text"), ("all", "all kinds")] {
            let what = format!("{text} over the best single source: mean excess");
            let ratios = of(&|f| source(f, name, percent) / sources(f, percent).min);
            c.add(what, "below 1", options.pick("mean < 2", "mean < 1"), 2)?.extend(ratios);
        }
    }
    c.setting("LLMs of 7B", format!("{}, {first} %, SparseGPT, {:?} × {} tokens", p.set, p.samples, p.context));
    let few = |f: &Found, source: &str| get(f, source, METHODS[1], first).mean;
    let more = |f: &Found, kind: &str| few(f, &format!("{kind}, more")) / few(f, kind);
    c.add("more sequences over few: mean excess", "about 1", options.pick("mean in 0.6 .. 1.2", "mean in 0.8 .. 1.2"), 2)?
        .extend(of(&|f| all_of(p.kinds.iter().map(|kind| more(f, kind)).collect()).mean));
    c.setting("not in the papers", format!("{}, {first} %, {} × {} tokens", p.set, p.samples[0], p.context));
    c.add("abroad over at home: excess by SparseGPT", "above 1", "every > 1", 2)?
        .extend(of(&|f| method(f, METHODS[1], first, |e| e.abroad) / method(f, METHODS[1], first, |e| e.home)));
    for [better, worse] in [["sparsegpt", "wanda"], ["alps", "sparsegpt"]] {
        let ratio = |f: &Found, of: fn(&Excess) -> Option<f64>| method(f, better, first, of) / method(f, worse, first, of);
        let what = format!("{better} over {worse}: excess abroad, over that at home");
        let rule = options.pick("mean > 0.5", "mean > 1");
        c.add(what, "above 1", rule, 2)?.extend(of(&|f| ratio(f, |e| e.abroad) / ratio(f, |e| e.home)));
    }
    let mut rows = Table::new(["seed", "source", "method", "percent", "home", "abroad", "mean"]);
    each.iter().flat_map(|(seed, f)| f.iter().map(move |row| (seed, row))).for_each(|(seed, ((source, method, percent), e))| {
        rows.row((seed.0, source.as_str(), *method, *percent, e.home, e.abroad, e.mean));
    });
    study.tables.push(("excess".into(), rows));
    Ok(study)
}

/// The mean excess of each source by each method at the lower sparsity.
pub fn draw(study: &Study) -> Result<Figures> {
    let all = study.table("excess")?;
    let rows = all.only("percent", all.distinct("percent")?.remove(0))?;
    let sources = rows.only("method", METHODS[0])?.distinct("source")?;
    let mut bars = Bars::new("The lower sparsity", "calibrated on", "mean excess, nats a token", sources.clone());
    for method in METHODS {
        let of = |source: &String| -> Result<f64> {
            let only = rows.only("method", method)?.only("source", source.as_str())?;
            Ok(Summary::of(&only.column("mean")?.filter_map(Cell::number).collect::<Vec<_>>())?.mean)
        };
        bars = bars.series(method, sources.iter().map(of).collect::<Result<Vec<f64>>>()?);
    }
    Ok(vec![("sources".into(), bars.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("calibration_data", run, draw)
}
