//! Frantar et al. 2023 (GPTQ), Lin et al. 2024 (AWQ), Badri and Shaji 2023 (HQQ), Guo et al. 2026 (OBR): codes of a few bits for a model that the program trains, alone and with pruning.
//!
//! `cargo run --release --example post_training_quantization -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::data::{data_dir, read_text};
use lacuna::job::{Keep, PruneJob, QuantScheme, QuantizeJob, QuantizeMethod, TrainJob};
use lacuna::paper::{Figures, Options, Pieces, Study};
use lacuna::quantize::{CodeGrid, Granularity};
use lacuna::report::{Cell, Figure, Table};
use lacuna::rng::Seed;
use lacuna::solve::{Hqq, Order};
use lacuna::{Error, Result};
use std::collections::BTreeMap;

/// The text of the quick run: the first chapters of Genesis, King James version.
const EMBEDDED: &str = include_str!("../minitron/genesis.txt");

/// Without a mask; OBR is GPTQ there.
const ALONE: [QuantizeMethod; 4] = [QuantizeMethod::Rtn, QuantizeMethod::Gptq, QuantizeMethod::Awq, QuantizeMethod::Hqq];

struct Plan {
    set: &'static str,
    vocab: usize,
    /// Hidden features, feed-forward features, heads and layers.
    sizes: [usize; 4],
    group: usize,
    context: usize,
    steps: usize,
    windows: usize,
    /// Those that methods are held against one another at, and all.
    bits: (&'static [u32], &'static [u32]),
}

fn plan(options: &Options) -> Plan {
    Plan {
        set: options.pick("Genesis 1-32", "King James Bible"),
        vocab: options.pick(384, 2048),
        sizes: options.pick([48, 144, 4, 4], [128, 384, 4, 8]),
        group: options.pick(16, 32),
        context: options.pick(64, 128),
        steps: options.pick(120, 1200),
        windows: options.pick(16, 96),
        bits: options.pick((&[2], &[2, 8]), (&[2, 3, 4], &[2, 3, 4, 8])),
    }
}

type Found = BTreeMap<String, f64>;

fn one(p: &Plan, folder: &std::path::Path, text: &str, seed: Seed) -> Result<Found> {
    let pieces = Pieces::new(folder.join(format!("seed-{}", seed.0)), text, seed)?;
    pieces.llama("random", p.vocab, p.sizes, p.context)?;
    let train = TrainJob::new().steps(p.steps).context(p.context).batch(8).lr(3e-3).windows(p.windows).keep(Keep::Last);
    let [dense] = pieces.train(("random", "dense"), train.eval_every(p.steps).save_every(p.steps), None, [p.steps])?;
    let mut found = Found::from([("dense".to_string(), dense)]);
    let job = |method: QuantizeMethod, bits: u32| {
        let job = QuantizeJob::default().method(method).bits(bits).group(Granularity::Group(p.group)).samples(2 * p.windows);
        job.context(p.context).scheme(QuantScheme::Asymmetric)
    };
    for &bits in p.bits.0 {
        let (hqq, grid) =
            (Hqq { whole_zeros: false, ..Hqq::default() }, CodeGrid::new(bits, Granularity::Group(p.group)).asymmetric());
        found.insert(format!("hqq, any zeros {bits}"), pieces.quantize_in_memory("dense", (&hqq, grid), (p.context, p.windows))?);
    }
    let mut codes = |from: &str, name: String, job: QuantizeJob| -> Result<()> {
        let found_ppl = pieces.quantize((from, &name.replace(' ', "-")), job, p.windows)?;
        found.insert(name, found_ppl);
        Ok(())
    };
    for method in ALONE {
        for &bits in p.bits.1 {
            codes("dense", format!("{method} {bits}"), job(method, bits))?;
        }
    }
    let row = || job(QuantizeMethod::Gptq, p.bits.0[p.bits.0.len() / 2]).group(Granularity::Row);
    codes("dense", "rows".into(), row())?;
    codes("dense", "rows by activation".into(), row().order(Order::Activation))?;
    // With pruning: zeros are a value of every grid.
    let half = |method: &str| PruneJob::new(method).sparsity(0.5).samples(2 * p.windows).context(p.context);
    pieces.prune(("dense", "half"), half("magnitude"), p.windows)?;
    pieces.prune(("dense", "half-obs"), half("sparsegpt"), p.windows)?;
    for &bits in p.bits.0 {
        codes("half", format!("pruned first {bits}"), job(QuantizeMethod::Rtn, bits))?;
    }
    codes("half-obs", "obs, rounded".into(), job(QuantizeMethod::Rtn, 4))?;
    codes("half-obs", "obs, GPTQ".into(), job(QuantizeMethod::Gptq, 4))?;
    codes("half-obs", "obs, OBR".into(), job(QuantizeMethod::Obr, 4))?;
    codes("dense", "trained 2".into(), job(QuantizeMethod::Gptq, 2).reconstruct_blocks(2))?;
    codes("dense", "in one loop".into(), job(QuantizeMethod::Gptq, 4).sparsity(0.5))?;
    for &bits in p.bits.0 {
        let name = format!("rounded first {bits}");
        let left = pieces.prune((&format!("rtn-{bits}"), &name.replace(' ', "-")), half("magnitude"), p.windows)?;
        found.insert(name, left);
    }
    Ok(found)
}

/// Runs the experiments: a model for every seed.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let p = plan(options);
    let temporary = tempfile::tempdir().map_err(|e| Error::io("a temporary folder", e))?;
    let folder = options.pick(temporary.path().to_path_buf(), data_dir().join("post_training_quantization"));
    let text = if options.quick { EMBEDDED.to_string() } else { read_text(&data_dir().join("bible/kjv.txt"))? };
    let each = options.seeds().iter().map(|&seed| Ok((seed, one(&p, &folder, &text, seed)?))).collect::<Result<Vec<_>>>()?;
    let mut study = Study::default();
    // By how much the logarithm of the perplexity is above the dense model's.
    let excess = |f: &Found, name: &str| (f[name] / f["dense"]).ln();
    let of = |value: &dyn Fn(&Found) -> f64| each.iter().map(|(seed, f)| (*seed, value(f))).collect::<Vec<(Seed, f64)>>();
    let ratio = |above: &str, below: &str| of(&|f| excess(f, above) / excess(f, below));
    let trained = format!("{}, [hidden, features, heads, layers] = {:?}, {} steps of 8 × {}", p.set, p.sizes, p.steps, p.context);
    let ours = format!("{trained}; asymmetric, groups of {}; ln perplexity above the dense model's", p.group);
    let c = &mut study.claims;
    c.setting("", trained);
    c.add("dense: perplexity", "", options.pick("mean < 200", "mean < 80"), 2)?.extend(of(&|f| f["dense"]));
    c.setting("OPT-125M: 27.65; GPTQ 31.12 and 53.85, rounded 37.28 and 1300", ours.clone());
    c.add("8 bits, rounded: over the dense perplexity", "1.00", "every in 0.99 .. 1.01", 4)?
        .extend(of(&|f| f["rtn 8"] / f["dense"]));
    for &bits in p.bits.0 {
        let (rounded, paper) = (format!("rtn {bits}"), ["", "0.17", "0.40"][bits as usize - 2]);
        c.add(format!("GPTQ over rounding, {bits} bits"), paper, "mean < 0.9", 3)?
            .extend(ratio(&format!("gptq {bits}"), &rounded));
    }
    let (middle, rule) = (p.bits.0[p.bits.0.len() / 2], options.pick("mean > 0.8", "mean > 1"));
    let groups = format!("gptq {middle}");
    c.add(format!("GPTQ, {middle} bits: rows over groups"), "above 1", rule, 3)?.extend(ratio("rows", &groups));
    c.setting("AWQ, LLaMA; HQQ, Llama-2", ours.clone());
    for &bits in p.bits.0 {
        let near = options.pick("mean < 1.5", "mean <= 1");
        for (what, a, b, rule) in [("AWQ over rounding", "awq", "rtn", "mean < 1"), ("GPTQ over AWQ", "gptq", "awq", near)] {
            c.add(format!("{what}, {bits} bits"), "below 1", rule, 3)?
                .extend(ratio(&format!("{a} {bits}"), &format!("{b} {bits}")));
        }
        c.add(format!("HQQ over rounding, {bits} bits"), "below 1", options.pick("mean < 1.1", "mean < 1"), 3)?
            .extend(ratio(&format!("hqq, any zeros {bits}"), &format!("rtn {bits}")));
    }
    c.setting("EfficientQAT, Llama-2-7B, 2 bits: 6.86, whole 5.47", ours.clone());
    let rule = options.pick("mean < 1.05", "mean < 0.9");
    c.add("trained block by block behind GPTQ over GPTQ, 2 bits", "below 1", rule, 3)?.extend(ratio("trained 2", "gptq 2"));
    // In a quick run both lose too little to be divided.
    if !options.quick {
        c.setting("SparseGPT, OPT-175B, 50 % and 4 bits", ours.clone());
        c.add("pruned in GPTQ's loop over SparseGPT, then rounding", "below 1", "mean <= 0.9", 3)?
            .extend(ratio("in one loop", "obs, rounded"));
        c.add("SparseGPT: GPTQ behind its mask over rounding", "", "mean < 1", 3)?.extend(ratio("obs, GPTQ", "obs, rounded"));
        c.add("SparseGPT: OBR behind its mask over GPTQ", "", "mean <= 1", 3)?.extend(ratio("obs, OBR", "obs, GPTQ"));
    }
    c.setting("2405.20935, OPT and LLaMA: 50 % by magnitude and rounding", ours);
    for &bits in p.bits.0 {
        c.add(format!("{bits} bits: rounded first over pruned first"), "above 1", options.pick("mean > 0.7", "mean > 1"), 3)?
            .extend(ratio(&format!("rounded first {bits}"), &format!("pruned first {bits}")));
    }
    let mut rows = Table::new(["seed", "method", "bits", "perplexity"]);
    for (seed, (name, ppl)) in each.iter().flat_map(|(seed, found)| found.iter().map(move |one| (seed, one))) {
        let (method, bits) = name.rsplit_once(' ').filter(|(_, bits)| bits.len() == 1).unwrap_or((name, ""));
        rows.row((seed.0, method, bits.parse::<usize>().ok(), Cell::float(*ppl, 4)));
    }
    study.tables.push(("perplexities".into(), rows));
    Ok(study)
}

/// Perplexity against bits, means of the seeds.
pub fn draw(study: &Study) -> Result<Figures> {
    let rows = study.table("perplexities")?;
    let mut figure = Figure::new("Codes of a few bits", "bits", "perplexity").log_y();
    for method in ALONE {
        figure = figure.line(method.name(), &rows.only("method", method.name())?, "bits", "perplexity")?;
    }
    Ok(vec![("bits".into(), figure.level("dense", &rows.only("method", "dense")?, "perplexity")?.to_svg()?)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("post_training_quantization", run, draw)
}
