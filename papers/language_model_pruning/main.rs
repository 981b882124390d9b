//! One-shot pruning of a small language model: SparseGPT, Wanda, RIA, OWL, ALPS and D²Prune's score on one bench, as their papers order them.
//!
//! `cargo run --release --example language_model_pruning -- [--quick] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::data::{data_dir, read_text};
use lacuna::io::gguf::{Gguf, import};
use lacuna::job::{Keep, PruneJob, TrainJob};
use lacuna::paper::{Figures, JudgeTexts, Options, Pieces, Study, text_parts};
use lacuna::report::{Cell, Figure, Table, kendall_tau};
use lacuna::rng::Seed;
use lacuna::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The texts of the quick run: the first chapters of Genesis, and one that is nothing like it.
const TEXTS: [&str; 2] = [include_str!("../minitron/genesis.txt"), include_str!("../../LICENSE-APACHE")];
const METHODS: [&str; 7] = ["magnitude", "Wanda", "RIA", "OWL", "SparseGPT", "D²Prune", "ALPS"];
const BUDGETS: [&str; 6] = ["50 %", "70 %", "2:4", "4:8", "60 %", "80 %"]; // the quick run has the first four
/// The fraction that goes; none of a pattern.
fn sparsity(budget: &str) -> Option<f64> {
    budget.strip_suffix(" %")?.parse::<f64>().ok().map(|percent| percent / 100.0)
}

struct Bench {
    pieces: Pieces,
    model: PathBuf,
    judge: JudgeTexts,
    budgets: &'static [&'static str],
    samples: [usize; 3], // sequences of calibration: a few, as usual, many
}

type Found = BTreeMap<String, Vec<f64>>; // perplexities of both texts, by names as `Wanda, 50 %, few`

impl Bench {
    fn new(options: &Options, folder: &Path, seed: Seed) -> Result<Bench> {
        let at = folder.join(format!("seed-{}", seed.0));
        let path = data_dir().join("texts/speeches-calibration.txt");
        let text = if options.quick { TEXTS[0].to_string() } else { read_text(&path)? };
        let pieces = Pieces::new(&at, &text, seed)?;
        let (model, files) = if options.quick {
            pieces.llama("random", 384, [48, 144, 4, 4], 64)?;
            let job = TrainJob::new().steps(160).context(64).batch(8).lr(4e-3).windows(8).eval_every(160).keep(Keep::Last);
            pieces.train(("random", "base"), job, None, [160])?;
            std::fs::write(at.join("abroad.txt"), TEXTS[1]).map_err(|e| Error::io(&at, e))?;
            (pieces.path("base"), ["test.txt", "abroad.txt"].map(|name| at.join(name)))
        } else {
            let model = folder.join("smollm2");
            let gguf = data_dir().join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
            (!model.is_dir()).then(|| import(&Gguf::open(gguf)?, &model, None)).transpose()?;
            (model, ["speeches", "code"].map(|name| data_dir().join(format!("texts/{name}-judge.txt"))))
        };
        let start = (seed.0 as f64 * 0.618_034).fract(); // of the text of calibration
        text_parts(&at.join("usual"), &text, start)?;
        text_parts(&at.join("other"), &text, (start + 0.5).fract())?;
        let judge = JudgeTexts { files: files.to_vec(), context: options.pick(64, 512), windows: options.pick(12, 8) };
        // No claim is of the last two budgets: the first seed alone has them.
        let all = !options.quick && options.seeds().first() == Some(&seed);
        let (budgets, samples) = (&BUDGETS[..if all { 6 } else { 4 }], options.pick([4, 16, 32], [2, 16, 64]));
        Ok(Bench { pieces, model, judge, budgets, samples })
    }

    /// Prunes by a method of the table to a budget, on so many sequences of a part of the text.
    fn prune(&self, method: &str, budget: &str, samples: usize, part: &str) -> Result<Vec<f64>> {
        let name = method.to_lowercase().replace('²', "2");
        let job = if name == "owl" { PruneJob::new("wanda").allocate(name) } else { PruneJob::new(name) };
        let job = job.calibration(self.pieces.path(part).join("train.txt")).samples(samples).context(self.judge.context);
        let job = match sparsity(budget) {
            Some(fraction) => job.sparsity(fraction),
            None => job.pattern(budget.parse()?),
        };
        let piece = format!("{method}-{budget}-{samples}-{part}").replace([' ', '%', ':'], "");
        self.pieces.prune_and_judge(&self.model, &piece, &job, &self.judge)
    }

    fn run(&self) -> Result<Found> {
        let mut found = Found::from([("dense".to_string(), self.judge.perplexities(&self.model)?)]);
        let [few, usual, many] = self.samples;
        for name in METHODS {
            for &budget in self.budgets.iter().filter(|budget| name != "OWL" || budget.contains('%')) {
                found.insert(format!("{name}, {budget}"), self.prune(name, budget, usual, "usual")?);
            }
            if ["Wanda", "SparseGPT"].contains(&name) {
                for (what, samples, part) in [("few", few, "usual"), ("many", many, "usual"), ("other", usual, "other")] {
                    found.insert(format!("{name}, 50 %, {what}"), self.prune(name, "50 %", samples, part)?);
                }
            }
        }
        Ok(found)
    }
}

/// Quotients of perplexities of the first text: above, below, the paper's, and when it holds, of the full and of the quick run.
const QUOTIENTS: [[&str; 5]; 12] = [
    ["Wanda, 50 %", "magnitude, 50 %", "0.43 (LLaMA-2 7B)", "every < 1", "mean < 1.1"],
    ["SparseGPT, 50 %", "Wanda, 50 %", "0.95 (OPT-125M)", "mean < 1", "mean < 1"],
    ["SparseGPT, 70 %", "Wanda, 70 %", "0.63 (OPT-125M)", "every < 1", "mean < 1"],
    ["SparseGPT, 2:4", "Wanda, 2:4", "0.75 (OPT-125M)", "every < 1", "mean < 1"],
    ["RIA, 50 %", "Wanda, 50 %", "below 1", "mean < 1", "mean < 1.2"],
    ["OWL, 50 %", "Wanda, 50 %", "about 1", "mean in 0.9 .. 1.1", "mean in 0.8 .. 1.2"],
    ["OWL, 70 %", "Wanda, 70 %", "0.29 (LLaMA 7B)", "mean < 1", "mean < 2"],
    ["D²Prune, 50 %", "SparseGPT, 50 %", "0.98 (OPT-125M)", "mean < 1", "mean < 1.05"],
    ["D²Prune, 70 %", "SparseGPT, 70 %", "0.93 (OPT-125M)", "mean < 1", "mean < 1.05"],
    ["ALPS, 70 %", "SparseGPT, 70 %", "below 1", "every < 1", "mean < 1"],
    ["SparseGPT, 2:4", "SparseGPT, 4:8", "1.25 (LLaMA-2 7B)", "every > 1", "mean > 0.95"],
    ["SparseGPT, 4:8", "SparseGPT, 50 %", "1.25 (LLaMA-2 7B)", "every > 1", "mean > 0.95"],
];

/// Runs the experiments: for every seed another part of the calibration text, quick also another model.
pub fn run(options: &Options) -> Result<Study> {
    options.refuse_held_out()?;
    let temporary = tempfile::tempdir().map_err(|e| Error::io("a temporary folder", e))?;
    let folder = options.pick(temporary.path().to_path_buf(), data_dir().join("language_model_pruning"));
    let each = options.seeds().iter().map(|&seed| Ok((seed, Bench::new(options, &folder, seed)?.run()?)));
    let each = each.collect::<Result<Vec<(Seed, Found)>>>()?;
    let mut study = Study::default();
    let c = &mut study.claims;
    let of = |value: &dyn Fn(&Found) -> f64| each.iter().map(|(seed, f)| (*seed, value(f))).collect::<Vec<(Seed, f64)>>();
    c.setting("C4, 128 × 2048 tokens", options.pick("Llama of 4 blocks, Genesis, 16 × 64", "SmolLM2-135M, speeches, 16 × 512"));
    c.add("dense: perplexity", "27.66 (OPT-125M)", options.pick("mean < 150", "mean < 40"), 2)?.extend(of(&|f| f["dense"][0]));
    for [above, below, paper, full, quick] in QUOTIENTS {
        let what = format!("perplexity: {above} over {below}");
        c.add(what, paper, options.pick(quick, full), 3)?.extend(of(&|f| f[above][0] / f[below][0]));
    }
    let calm = |f: &Found, method: &str| f[&format!("{method}, 50 %, few")][0] / f[&format!("{method}, 50 %, many")][0];
    let few = "few over many sequences of calibration, 50 %: Wanda's quotient over SparseGPT's";
    c.add(few, "below 1", options.pick("mean < 1.05", "every < 1"), 3)?.extend(of(&|f| calm(f, "Wanda") / calm(f, "SparseGPT")));
    for method in ["Wanda, 50 %", "SparseGPT, 50 %"] {
        let change = |f: &Found| 100.0 * (f[&format!("{method}, other")][0] / f[method][0] - 1.0).abs();
        let what = format!("change of the perplexity by another part of the calibration text, {method}, in %");
        c.add(what, "small", options.pick("mean < 10", "every < 3"), 2)?.extend(of(&change));
    }
    let order = |f: &Found, text: usize| METHODS.map(|name| f[&format!("{name}, 70 %")][text]);
    let agree = "agreement of the orders on the two texts, 70 % (Kendall's τ)";
    c.add(agree, "above 0", options.pick("mean > -0.5", "every > 0"), 2)?
        .extend(of(&|f| kendall_tau(&order(f, 0), &order(f, 1))));
    let mut rows = Table::new(["seed", "method", "budget", "sparsity", "calibration", "first text", "second text"]);
    for (seed, (name, of)) in each.iter().flat_map(|(seed, f)| f.iter().map(move |one| (seed, one))) {
        let words: Vec<&str> = name.split(", ").collect();
        let (budget, part) = (words.get(1).copied().unwrap_or("0 %"), words.get(2).copied().unwrap_or("usual"));
        rows.row((seed.0, words[0], budget, sparsity(budget), part, Cell::float(of[0], 4), Cell::float(of[1], 4)));
    }
    study.tables.push(("perplexities".into(), rows));
    Ok(study)
}

/// Perplexity against the sparsity, a figure for each text.
pub fn draw(study: &Study) -> Result<Figures> {
    let (rows, mut figures) = (study.table("perplexities")?.only("calibration", "usual")?, Figures::new());
    for (file, text) in [("first_text", "first text"), ("second_text", "second text")] {
        let mut figure = Figure::new(format!("Unstructured masks, {text}"), "sparsity", "perplexity").percent_x().log_y();
        for method in METHODS {
            figure = figure.line(method, &rows.only("method", method)?, "sparsity", text)?;
        }
        figures.push((file.into(), figure.to_svg()?));
    }
    Ok(figures)
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("language_model_pruning", run, draw)
}
