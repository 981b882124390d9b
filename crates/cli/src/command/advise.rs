//! `lacuna advise`: which storage for a shape, or for the layers of a model, and what it gains on this machine.

use super::bench::room::{check_sparsity, check_threads, shape};
use super::model::bar;
use super::{counted, print, print_json};
use clap::Parser;
use lacuna::advise::{
    Advice, Key, LayerShape, MeasurementGrid, ModelAdvice, Profile, ProfileFile, Query, Speedup, layers_of, measure,
};
use lacuna::io::Folder;
use lacuna::mask::Pattern;
use lacuna::report::{Cell, Table};
use lacuna::rng::Seed;
use lacuna::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Says which storage multiplies fastest on this machine, its speed-up over the fastest dense product, and from which sparsity on sparse wins. The machine
/// is measured once, in about a minute and a half, and what was measured is kept.
#[derive(Parser)]
pub struct Args {
    /// A model's folder: a row for each shape of its linear layers, and their sum
    #[arg(required_unless_present = "shape", conflicts_with = "shape")]
    dir: Option<PathBuf>,
    /// Outputs x inputs of one weight, as 4096x4096
    #[arg(long)]
    shape: Option<String>,
    /// Rows of x
    #[arg(long, default_value_t = 1)]
    tokens: usize,
    /// Fraction of the weights that is pruned, in [0, 1); of a folder: where layers have no masks; 2:4 fixes it
    #[arg(long, allow_negative_numbers = true)]
    sparsity: Option<f64>,
    /// Shape that survivors take: unstructured, 2:4 or block16x1; masks of a folder say it themselves
    #[arg(long, default_value = "unstructured", conflicts_with = "dir")]
    pattern: String,
    /// Threads of a product
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Weights come from memory; of a folder always, if its dense layers do not fit the last cache
    #[arg(long)]
    cold: bool,
    /// The file that holds what was measured; without it, measures and writes it [default: in the user's folder of caches]
    #[arg(long)]
    machine: Option<PathBuf>,
    /// Measures the machine anew
    #[arg(long)]
    renew: bool,
    /// Measures two small shapes in a second or two, to try the command: no basis for a decision
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    // What is wrong with the question shows before anything is measured.
    check_threads(&[args.threads])?;
    check_sparsity(args.sparsity.as_slice())?;
    if args.tokens == 0 {
        return Err(Error::invalid_option("tokens", "0, where 1 or more are possible"));
    }
    let grid = if args.quick { MeasurementGrid::quick() } else { MeasurementGrid::full() };
    let asked = args.shape.as_deref().map(|text| question(args, text)).transpose()?;
    if let (Some(query), None) = (&asked, &args.machine)
        && !grid.patterns().contains(&query.pattern)
    {
        let known: Vec<String> = grid.patterns().iter().map(Pattern::to_string).collect();
        return Err(Error::invalid_option("pattern", format!("{} is not measured; {} are", query.pattern, known.join(", "))));
    }
    let folder = args.dir.as_ref().map(Folder::open).transpose()?;
    let layers = folder.as_ref().map(|folder| layers_of(folder, &grid.patterns())).transpose()?;
    layers.iter().flatten().try_for_each(|layer| layer.asked(args.sparsity).map(drop))?;
    let (profile, cache) = profile(args, &grid)?;
    match (asked, folder.zip(layers)) {
        (Some(query), _) => of_shape(args, &profile, &cache, &query),
        (None, Some((folder, layers))) => {
            let layers = if profile.patterns() == grid.patterns() { layers } else { layers_of(&folder, &profile.patterns())? };
            of_model(args, &profile, &cache, (&folder, &layers))
        }
        (None, None) => Err(Error::invalid_option("shape", "give one, or a folder")),
    }
}

/// What is asked of one shape.
fn question(args: &Args, text: &str) -> Result<Query> {
    let (shape, pattern): (_, Pattern) = (shape(text)?, args.pattern.parse()?);
    pattern.check_shape(shape.0, shape.1)?;
    let sparsity = match (args.sparsity, pattern) {
        (Some(sparsity), Pattern::Nm { n, m }) if sparsity != 1.0 - n as f64 / m as f64 => {
            let fixed = 1.0 - n as f64 / m as f64;
            return Err(Error::invalid_option(
                "sparsity",
                format!("{sparsity}, where {pattern} fixes it at {fixed}; leave it out"),
            ));
        }
        (Some(sparsity), _) => sparsity,
        (None, Pattern::Nm { .. }) => 0.0,
        (None, _) => return Err(Error::invalid_option("sparsity", format!("{pattern} says none; give one, as 0.6"))),
    };
    let plain = Query::new(shape, args.tokens, sparsity).with_pattern(pattern);
    Ok(if args.cold { plain.from_memory() } else { plain })
}

/// The profile of this machine, from its file or measured, and the file.
fn profile(args: &Args, grid: &MeasurementGrid) -> Result<(Profile, ProfileFile)> {
    let key = Key::here(args.threads);
    let cache = args.machine.as_ref().map_or_else(|| ProfileFile::of(&key, grid), |file| Ok(ProfileFile::file(file)))?;
    let kept = if args.renew { None } else { cache.read(&key, grid)? };
    if let Some(profile) = kept {
        if profile.key != key {
            eprintln!(
                "note: {} is of {}, not of this machine with {}",
                cache.path().display(),
                machine(&profile.key),
                machine(&key)
            );
        }
        return Ok((profile, cache));
    }
    eprintln!("measuring {} for about {:.0} s, once", machine(&key), grid.seconds);
    let bar = bar(0, "products");
    let measured = measure(grid, args.threads, Seed(0), |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let measured = measured?;
    cache.write(&measured)?;
    Ok((measured, cache))
}

fn machine(key: &Key) -> String {
    format!("{}, {}, {}", key.cpu, key.isa, counted(key.threads, "thread"))
}

fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// From where on sparse wins, in words.
fn wins(from: Option<f64>, at_all: bool) -> String {
    match (from, at_all) {
        (Some(s), true) => format!("sparse wins at {} already, the lowest sparsity measured", percent(s)),
        (Some(s), false) => format!("sparse wins from {} on", percent(s)),
        (None, _) => "sparse does not win at any sparsity measured".to_string(),
    }
}

/// Where weights came from, in words.
fn of_memory(asked: bool, measured: bool) -> &'static str {
    match (asked, measured) {
        (_, true) => ", weights from memory",
        (true, false) => ", weights from the caches (from memory, so many tokens were not measured)",
        (false, false) => "",
    }
}

fn bounds(s: &Speedup) -> String {
    format!("{:.2} ({:.2} to {:.2})", s.median, s.low, s.high)
}

fn of_shape(args: &Args, profile: &Profile, cache: &ProfileFile, query: &Query) -> Result<()> {
    let a: Advice = profile.advise(query)?;
    let ((out, inputs), key) = (query.shape, &profile.key);
    if args.json {
        return print_json(&json!({
            "shape": format!("{out}x{inputs}"), "tokens": query.tokens, "pattern": query.pattern, "sparsity": query.sparsity,
            "cold": a.from_memory, "storage": a.storage, "sparse": a.sparse, "speedup": a.speedup.median, "speedup_low": a.speedup.low,
            "speedup_high": a.speedup.high, "dense_us": a.dense.us, "dense_kernel": a.dense_kernel, "sparse_us": a.sparse_time.us,
            "wins_from": a.wins_from, "wins_at_all_measured": a.wins_at_all, "measured": a.measured, "extrapolated": a.extrapolated,
            "machine": key, "profile": cache.path(),
        }));
    }
    let from = of_memory(query.from_memory, a.from_memory);
    let source = match (a.measured, a.extrapolated.is_empty()) {
        (true, _) => "measured".to_string(),
        (false, true) => "interpolated between measured products".to_string(),
        (false, false) => format!("extrapolated: {} beyond what was measured", a.extrapolated.join(", ")),
    };
    print(&format!(
        "{out}x{inputs}, {}, {} at {}{from}: {}\nspeed-up of {} over dense ({}) {}, {:.1} µs and {:.1} µs; {source}\n{}\n{}: {}\n",
        counted(query.tokens, "token"),
        query.pattern,
        percent(query.sparsity),
        a.storage,
        a.sparse,
        a.dense_kernel,
        bounds(&a.speedup),
        a.sparse_time.us,
        a.dense.us,
        wins(a.wins_from, a.wins_at_all),
        machine(key),
        cache.path().display(),
    ))
}

fn of_model(args: &Args, profile: &Profile, cache: &ProfileFile, (folder, layers): (&Folder, &[LayerShape])) -> Result<()> {
    let bytes: usize = layers.iter().map(|l| 4 * l.shape.0 * l.shape.1).sum();
    let far = profile.cells.iter().any(|c| c.from_memory);
    let from_memory = args.cold || (far && bytes > profile.last_cache);
    let model: ModelAdvice = profile.advise_model(layers, args.tokens, args.sparsity, from_memory)?;
    let key = &profile.key;
    if args.json {
        let rows: Vec<_> = model
            .rows
            .iter()
            .map(|r| {
                json!({
                    "shape": format!("{}x{}", r.shape.0, r.shape.1), "pattern": r.pattern, "layers": r.layers, "sparsity": r.sparsity,
                    "storage": r.storage, "speedup": r.speedup.median, "speedup_low": r.speedup.low, "speedup_high": r.speedup.high,
                    "dense_us": r.dense_us, "best_us": r.best_us, "wins_from": r.wins_from, "wins_at_all_measured": r.wins_at_all,
                    "extrapolated": r.extrapolated,
                })
            })
            .collect();
        return print_json(&json!({
            "folder": folder.path(), "tokens": args.tokens, "cold": model.from_memory, "rows": rows, "dense_us": model.dense_us,
            "best_us": model.best_us, "speedup": model.speedup.median, "speedup_low": model.speedup.low,
            "speedup_high": model.speedup.high, "machine": key, "profile": cache.path(),
        }));
    }
    let mut table = Table::new([
        "shape",
        "layers",
        "pattern",
        "sparsity",
        "storage",
        "speed-up",
        "sparse wins from",
        "dense µs",
        "best µs",
        "",
    ]);
    for r in &model.rows {
        let from = match (r.wins_from, r.wins_at_all) {
            (Some(s), all) => format!("{}{}", percent(s), if all { " or less" } else { "" }),
            (None, _) => "never".to_string(),
        };
        let note = if r.extrapolated.is_empty() { String::new() } else { format!("{} extrapolated", r.extrapolated.join(", ")) };
        table.row(vec![
            Cell::from(format!("{}x{}", r.shape.0, r.shape.1)),
            r.layers.into(),
            r.pattern.to_string().into(),
            Cell::float(r.sparsity, 3),
            r.storage.clone().into(),
            bounds(&r.speedup).into(),
            from.into(),
            Cell::float(r.dense_us, 1),
            Cell::float(r.best_us, 1),
            note.into(),
        ]);
    }
    print(&format!(
        "{}\nall linear layers, {}{}: {:.1} µs dense, {:.1} µs each in its faster storage, speed-up {}\n{}: {}\n",
        table.to_text(),
        counted(args.tokens, "token"),
        of_memory(from_memory, model.from_memory),
        model.dense_us,
        model.best_us,
        bounds(&model.speedup),
        machine(key),
        cache.path().display(),
    ))
}
