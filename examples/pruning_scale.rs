//! How the time of pruning grows: with the blocks of a model, and with the tokens of calibration.
//!
//! `cargo run --release --example pruning_scale -- [OUT]`
//!
//! SparseGPT to half, on models of random weights in the shape of SmolLM2-135M with 4 to 30 blocks, on 4 to 32 sequences of 1024 tokens.
//! Writes `pruning_scale.csv` and two figures into OUT, `.` if none is given, and says how far each curve is from a straight line.

#[path = "random_model.rs"]
mod random_model;

use lacuna::allocate::Uniform;
use lacuna::data::Sequences;
use lacuna::io::{Folder, Output};
use lacuna::lm::Config;
use lacuna::mask::{Pattern, Scope};
use lacuna::prune::{
    ActivationMemory, CalibrationInputs, LanguagePruning, LanguageRun, Sequential, allocated, language_layers, prune_language,
};
use lacuna::report::{Figure, Point, Table};
use lacuna::rng::Seed;
use lacuna::solve::SparseGpt;
use lacuna::{Error, Result};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

const LENGTH: usize = 1024;

/// Seconds of pruning a model with so many blocks on so many sequences, embedding and writing included.
fn seconds(scratch: &Path, blocks: usize, sequences: usize) -> Result<f64> {
    let model = scratch.join(format!("{blocks}"));
    if !model.exists() {
        random_model::write(&model.to_string_lossy(), "smollm2-135m", Some(blocks))?;
    }
    let folder = Folder::open(&model)?;
    let config = Config::of(&folder)?;
    let layers = language_layers(&folder, &config, &[], &[])?;
    let mut stream = Seed(0).stream("ids");
    let ids: Vec<u32> = (0..sequences * LENGTH).map(|_| stream.below(config.vocab()) as u32).collect();
    let settings = LanguagePruning {
        pruner: &SparseGpt::default(),
        pattern: Pattern::Unstructured,
        scope: Scope::Layer,
        budgets: allocated(&folder, &config, &layers, Pattern::Unstructured, 0.5, (&Uniform, None))?,
        inputs: CalibrationInputs::Pruned,
        sequential: Sequential::Layer,
        correction: None,
        reconstruction: None,
        generalisation: Default::default(),
        gradients: None,
        memory: ActivationMemory::new(512 << 20, scratch),
    };
    let (out, begun) = (scratch.join("out"), Instant::now());
    let run = LanguageRun {
        folder: &folder,
        config: &config,
        calibration: &Sequences::new(ids, LENGTH)?,
        pruning: &settings,
        out: &Output::from(&out),
        described: &serde_json::json!({}),
        resume: false,
    };
    prune_language(run, &mut |_| ControlFlow::Continue(()))?.finish()?;
    let seconds = begun.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&out).map_err(|e| Error::io(&out, e))?;
    eprintln!("{blocks} blocks, {sequences} x {LENGTH} tokens: {seconds:.1} s");
    Ok(seconds)
}

/// The largest distance from the line of least squares, as a share of the largest value.
fn bend(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let slope =
        points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>() / points.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>();
    let most = points.iter().map(|p| p.1).fold(0.0, f64::max);
    points.iter().map(|p| (p.1 - my - slope * (p.0 - mx)).abs() / most).fold(0.0, f64::max)
}

fn main() -> Result<()> {
    let out = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let out = Path::new(&out);
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    let scratch = tempfile::tempdir_in(out).map_err(|e| Error::io(out, e))?;
    let write = |name: &str, text: String| std::fs::write(out.join(name), text).map_err(|e| Error::io(out.join(name), e));
    let mut table = Table::new(["blocks", "tokens", "seconds"]);
    seconds(scratch.path(), 4, 4)?; // to warm up
    for (name, label, cases) in [
        ("blocks", "blocks", [(4, 8), (8, 8), (16, 8), (30, 8)]),
        ("tokens", "tokens of calibration", [(4, 4), (4, 8), (4, 16), (4, 32)]),
    ] {
        let mut points = Vec::new();
        for (blocks, sequences) in cases {
            let s = seconds(scratch.path(), blocks, sequences)?;
            table.row((blocks, sequences * LENGTH, s));
            points.push((if name == "blocks" { blocks as f64 } else { (sequences * LENGTH) as f64 }, s));
        }
        println!("{name}: at most {:.1} % of the largest away from a straight line", 100.0 * bend(&points));
        let line = points.into_iter().map(|(x, y)| Point::new(x, y)).collect();
        let figure = Figure::new("SparseGPT, 50 %", label, "seconds").series("SmolLM2's shape", line);
        write(&format!("pruning_scale_{name}.svg"), figure.to_svg()?)?;
    }
    write("pruning_scale.csv", table.to_csv())
}
