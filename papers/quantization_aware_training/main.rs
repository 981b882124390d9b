//! Esser et al. 2020 (LSQ), Choi et al. 2018 (PACT), Bengio et al. 2013 (straight through): training on weights of a few levels against rounding afterwards.
//!
//! `cargo run --release --example quantization_aware_training -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::data::{data_dir, read_text};
use lacuna::job::{Keep, QuantizeJob, QuantizeMethod, TrainJob};
use lacuna::models::{Builder, Init};
use lacuna::nn::{Activation, Network};
use lacuna::paper::{DigitImages, Figures, Options, Pieces, Study};
use lacuna::quantize::{CodeGrid, Granularity};
use lacuna::report::{Cell, Figure, Table};
use lacuna::rng::Seed;
use lacuna::train::{Decay, StepRule, TrainConfig, Trainable, train_moving};
use lacuna::{Error, Result};
use std::collections::BTreeMap;

/// The text of the quick run: the first chapters of Genesis, King James version.
const EMBEDDED: &str = include_str!("../minitron/genesis.txt");
const BITS: [u32; 3] = [2, 3, 4];
const RULES: [(&str, StepRule); 2] = [("straight through", StepRule::StraightThrough), ("LSQ", StepRule::Lsq)];

/// Test errors in % of networks and perplexities of language models, by what was done and bits; 32 where nothing is rounded.
type Found = BTreeMap<(&'static str, u32), f64>;

/// The networks: trained whole, rounded, and trained on as few levels.
fn networks(options: &Options, seed: Seed) -> Result<Found> {
    let images = DigitImages::load(options, 5000, seed)?;
    let config = |epochs, rate| TrainConfig { decay: Decay::Cosine, learning_rate: rate, ..DigitImages::config(epochs, seed) };
    let (epochs, more, pixels) = (options.pick(16, 20), options.pick(8, 10), images.train.0.ncols());
    let error = |network: &Network| 100.0 - images.accuracy(network);
    // Rectifiers, or PACT of so many bits.
    let make = |levels: Option<u32>| {
        let of = |net: Builder| if levels.is_some() { net.pact(4.0, levels) } else { net.activation(Activation::Relu) };
        let (first, second) = options.pick((60, 30), (300, 100));
        of(of(Builder::vector(pixels, Init::He, seed).linear(first)).linear(second)).linear(10).build()
    };
    let mut whole = make(None)?;
    images.fit(&mut whole, &config(epochs, 1.2e-3))?;
    let mut found = Found::from([(("whole", 32), error(&whole))]);
    let weights = whole.affines().map(|(_, name, _)| format!("{name}.weight")).collect();
    for bits in BITS {
        let grid = CodeGrid::new(bits, Granularity::Tensor);
        let levels = |net: &Network, rule| Trainable::quantized(net.clone(), &weights, [].into(), grid, rule);
        found.insert(("rounded", bits), error(levels(&whole, StepRule::StraightThrough)?.model()));
        for (name, rule) in RULES {
            let mut moving = levels(&whole, rule)?;
            train_moving(&mut moving, &images.samples(), &config(more, 6e-4))?;
            found.insert((name, bits), error(moving.model()));
        }
        // Weights and activations of as many bits; the heights of PACT are learnt from the beginning.
        let mut clipped = make(Some(bits))?;
        images.fit(&mut clipped, &config(epochs, 1.2e-3))?;
        let mut moving = levels(&clipped, StepRule::Lsq)?;
        train_moving(&mut moving, &images.samples(), &config(more, 6e-4))?;
        found.insert(("LSQ and PACT", bits), error(moving.model()));
    }
    Ok(found)
}

/// Vocabulary, group, context, steps of the whole model and of those on levels, windows.
type Plan = [usize; 6];

/// The language models: trained whole, rounded, and trained on as few levels.
fn language(p: Plan, sizes: [usize; 4], folder: &std::path::Path, text: &str, seed: Seed) -> Result<Found> {
    let [vocab, group, context, steps, more, windows] = p;
    let pieces = Pieces::new(folder.join(format!("seed-{}", seed.0)), text, seed)?;
    pieces.llama("random", vocab, sizes, context)?;
    let train = |from: &str, to: &str, job: TrainJob, teacher: Option<&str>, steps: usize, rate: f64| -> Result<f64> {
        let job = job.steps(steps).context(context).batch(8).lr(rate).windows(windows).keep(Keep::Last);
        Ok(pieces.train((from, to), job.eval_every(steps).save_every(steps), teacher, [steps])?[0])
    };
    let whole = train("random", "whole", TrainJob::new(), None, steps, 3e-3)?;
    let mut found = Found::from([(("whole", 32), whole)]);
    // What is rounded has been trained for as many steps as what trains on levels.
    found.insert(("whole, as many steps", 32), train("whole", "longer", TrainJob::new(), None, more, 1e-3)?);
    for bits in BITS {
        for (name, method) in [("rounded", QuantizeMethod::Rtn), ("GPTQ", QuantizeMethod::Gptq)] {
            let job =
                QuantizeJob::default().method(method).bits(bits).group(Granularity::Group(group)).samples(64).context(context);
            found.insert((name, bits), pieces.quantize(("longer", &format!("{name}-{bits}")), job, windows)?);
        }
        let levels = |rule| TrainJob::new().quantize(bits).quantize_group(Granularity::Group(group)).quantize_rule(rule);
        for (name, rule) in RULES {
            let to = format!("{}-{bits}", name.replace(' ', "-"));
            found.insert((name, bits), train("whole", &to, levels(rule), None, more, 1e-3)?);
        }
        let taught = train("whole", &format!("taught-{bits}"), levels(StepRule::Lsq), Some("whole"), more, 1e-3)?;
        found.insert(("LSQ, distilled", bits), taught);
    }
    Ok(found)
}

/// Runs the experiments: a network and a language model for every seed.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let temporary = tempfile::tempdir().map_err(|e| Error::io("a temporary folder", e))?;
    let folder = options.pick(temporary.path().to_path_buf(), data_dir().join("quantization_aware_training"));
    let text = if options.quick { EMBEDDED.to_string() } else { read_text(&data_dir().join("bible/kjv.txt"))? };
    let sizes = options.pick([48, 144, 4, 4], [128, 384, 4, 8]);
    let plan = options.pick([384, 48, 64, 120, 40, 16], [2048, 128, 128, 1200, 200, 96]);
    let (mut nets, mut models) = (Vec::new(), Vec::new());
    for &seed in options.seeds() {
        nets.push((seed, networks(options, seed)?));
        models.push((seed, language(plan, sizes, &folder, &text, seed)?));
    }
    let mut study = Study::default();
    let each = |of: &[(Seed, Found)], value: &dyn Fn(&Found) -> f64| of.iter().map(|(s, f)| (*s, value(f))).collect::<Vec<_>>();
    let digits = options.pick("64-60-30-10, digits 8×8", "LeNet-300-100, 5000 of MNIST");
    let c = &mut study.claims;
    c.setting("LSQ, ResNet-18, ImageNet: 70.5 whole, 67.6 at 2 bits", format!("{digits}; one scale a matrix; test error, %"));
    c.add("whole", "29.5", options.pick("mean < 8", "mean < 6"), 2)?.extend(each(&nets, &|f| f[&("whole", 32)]));
    c.add("LSQ less whole, 4 bits", "-0.6", options.pick("mean < 2", "mean < 1"), 2)?
        .extend(each(&nets, &|f| f[&("LSQ", 4)] - f[&("whole", 32)]));
    c.add("LSQ less whole, 2 bits", "2.9", options.pick("mean < 8", "mean < 4"), 2)?
        .extend(each(&nets, &|f| f[&("LSQ", 2)] - f[&("whole", 32)]));
    c.add("LSQ less rounded, 2 bits", "below 0", "every < 0", 2)?.extend(each(&nets, &|f| f[&("LSQ", 2)] - f[&("rounded", 2)]));
    c.add("LSQ less straight through, 2 bits", "below 0", options.pick("mean < 1.5", "mean < 0.5"), 2)?
        .extend(each(&nets, &|f| f[&("LSQ", 2)] - f[&("straight through", 2)]));
    c.setting("PACT, ResNet-18: 70.2 whole, 69.2 at 4 bits", format!("{digits}; activations too; test error, %"));
    c.add("LSQ and PACT less whole, 4 bits", "1.0", options.pick("mean < 4", "mean < 2"), 2)?
        .extend(each(&nets, &|f| f[&("LSQ and PACT", 4)] - f[&("whole", 32)]));
    let what =
        format!("Llama of {sizes:?} on a book, groups of {}, {} more steps; differences of ln perplexity", plan[1], plan[4]);
    c.setting("EfficientQAT, Llama-2-7B; LLM-QAT", what);
    let few = options.pick("mean < 0.02", "every < 0");
    for (bits, far, gptq) in [(2, "mean < 1", few), (3, "mean < 0.3", few), (4, "mean < 0.1", "mean < 0.03")] {
        for (what, a, b, rule) in [
            ("LSQ less GPTQ", "LSQ", ("GPTQ", bits), gptq),
            ("LSQ less whole", "LSQ", ("whole, as many steps", 32), far),
            ("LSQ less straight through", "LSQ", ("straight through", bits), "mean < 0.05"),
            ("distilled less from the text", "LSQ, distilled", ("LSQ", bits), options.pick("mean < 0.2", "mean < 0.05")),
        ] {
            let less = each(&models, &|f| (f[&(a, bits)] / f[&b]).ln());
            c.add(format!("{what}, {bits} bits"), if b.1 == 32 { "" } else { "below 0" }, rule, 3)?.extend(less);
        }
    }
    let mut rows = Table::new(["seed", "on", "way", "bits", "error or perplexity"]);
    for (on, all) in [("digits", &nets), ("text", &models)] {
        for (seed, ((way, bits), value)) in all.iter().flat_map(|(seed, found)| found.iter().map(move |one| (seed, one))) {
            rows.row((seed.0, on, *way, *bits as usize, Cell::float(*value, 4)));
        }
    }
    study.tables.push(("levels".into(), rows));
    Ok(study)
}

/// Perplexity against bits, means of the seeds.
pub fn draw(study: &Study) -> Result<Figures> {
    let (rows, y) = (study.table("levels")?.only("on", "text")?, "error or perplexity");
    let mut figure = Figure::new("A language model on few levels", "bits", "perplexity").log_y();
    for way in ["rounded", "GPTQ", "straight through", "LSQ", "LSQ, distilled"] {
        figure = figure.line(way, &rows.only("way", way)?, "bits", y)?;
    }
    Ok(vec![("levels".into(), figure.level("whole", &rows.only("way", "whole, as many steps")?, y)?.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("quantization_aware_training", run, draw)
}
