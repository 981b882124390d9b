//! `lacuna inspect DIR`: what a model folder holds, what of it may be pruned, and what hangs together.

use super::model::open;
use super::{print, print_json};
use lacuna::Result;
use lacuna::eval::{Census, Counted, Sum, attention_flops, sparsity};
use lacuna::io::Folder;
use lacuna::lm::{Config, Kind, couplings};
use lacuna::report::{Cell, Table};
use lacuna::structure::{Coupling, Extent, Side, UnitKind};
use serde_json::{Value, json};
use std::path::Path;

/// Bytes of weights up to which they are counted without being asked for.
const COUNTED: u64 = 2_000_000_000;

/// Looks at a folder. `count` says whether every number is looked at; where it is `None` that depends on how many there are.
pub fn run(dir: &Path, count: Option<bool>, as_json: bool) -> Result<()> {
    let (folder, config) = open(dir)?;
    let counted = count.unwrap_or(folder.bytes() <= COUNTED);
    let census = Census::of(&folder, &config, counted)?;
    if as_json {
        return print_json(&describe(dir, &folder, &config, &census)?);
    }
    let (whole, buffers) = (census.whole(), census.buffers());
    let mut text = format!(
        "{}: {}, {} blocks, hidden {}, vocabulary {}{}\n{} parameters, {:.1} MB in {} file(s)\n\n",
        dir.display(),
        config.family().model_type(),
        config.layers(),
        config.hidden(),
        config.vocab(),
        if census.outline.tied { ", head tied to the embedding" } else { "" },
        whole.numbers,
        folder.bytes() as f64 / 1e6,
        folder.files().count(),
    );
    let mut kinds = Table::new(["kind", "parameters", "kept", "sparsity", "MB"]);
    for (kind, sum) in census.kinds() {
        row(&mut kinds, word(kind), &sum);
    }
    row(&mut kinds, "linear layers of blocks", &census.prunable());
    row(&mut kinds, "whole model", &whole);
    if buffers.numbers > 0 {
        row(&mut kinds, "buffers (no parameters)", &buffers);
    }
    text += &(kinds.to_text() + "\n");
    for line in remarks(&folder, &census) {
        text += &(line + "\n\n");
    }
    if counted {
        let mut blocks = Table::new(["block", "heads", "kv heads", "intermediate", "weights", "kept", "sparsity"]);
        for (i, sum) in census.blocks().iter().enumerate() {
            let w = config.widths(i);
            let sparsity = sum.sparsity().map(|s| Cell::float(s, 4));
            blocks.row((i, w.heads, w.kv_heads, w.intermediate, sum.numbers, sum.kept, sparsity));
        }
        text += &(blocks.to_text() + "\n");
        let mut layers = Table::new(["layer", "shape", "kept", "sparsity", "by"]);
        for (tensor, layer) in
            census.outline.layers.iter().filter_map(|l| Some((census.tensors.iter().find(|t| t.name == l.tensor())?, l)))
        {
            let sparsity = tensor.kept.and_then(|k| sparsity(k, tensor.numbers)).map(|s| Cell::float(s, 4));
            layers.row((layer.name.as_str(), format!("{:?}", layer.shape), tensor.kept, sparsity, tensor.by));
        }
        text += &(layers.to_text() + "\n");
    } else {
        text += &format!("sparsity not counted: it takes reading {:.1} GB; --count does it\n", folder.bytes() as f64 / 1e9);
    }
    let (all, kept) = census.flops();
    let context = config.stated_context().unwrap_or(1024);
    text += &format!(
        "FLOPs a token: {all} for all weights{}; attention to {context} tokens adds {}\n\n",
        kept.filter(|kept| *kept != all).map_or(String::new(), |kept| format!(", {kept} for those that are kept")),
        attention_flops(&config, context)
    );
    for line in coupled(&census, &couplings(&folder, &config)?) {
        text += &(line + "\n");
    }
    print(&text)
}

fn row(table: &mut Table, name: &str, sum: &Sum) {
    let sparsity = sum.sparsity().map(|s| Cell::float(s, 4));
    table.row((name, sum.numbers, sum.kept, sparsity, Cell::float(sum.bytes as f64 / 1e6, 1)));
}

/// How weights are packed, and what is not read.
fn remarks(folder: &Folder, census: &Census) -> Vec<String> {
    let mut lines = Vec::new();
    let layouts: Vec<String> = folder.layouts().into_iter().map(|(layout, n)| format!("{n} as {layout}")).collect();
    if !layouts.is_empty() {
        lines.push(format!("packed weights: {}; 'lacuna pack DIR OUT --save weights' makes them whole", layouts.join(", ")));
    }
    let unread: Vec<&Counted> = census.parameters().filter(|t| folder.dtype(&t.name).is_err()).collect();
    if let Some(first) = unread.first() {
        let n = unread.len();
        lines.push(format!("not read: {n} tensors, the first of them {} of {}; F32, F16 and BF16 are", first.name, first.dtype));
    }
    lines
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Embedding => "embedding",
        Kind::Attention => "attention",
        Kind::FeedForward => "feed-forward",
        Kind::Head => "head",
        Kind::Norm => "norm",
        Kind::Bias => "bias",
        Kind::Other => "other",
    }
}

/// What may be pruned, and which rows and columns go together, as sentences: of couplings within blocks those of the first of each stack.
fn coupled(census: &Census, couplings: &[Coupling]) -> Vec<String> {
    let linear = format!(
        "may be pruned weight by weight: the {} linear layers of the blocks; embedding{}, norms and biases only if named",
        census.outline.layers.iter().filter(|l| l.block.is_some()).count(),
        if census.outline.tied { " (which is the head)" } else { " and head" },
    );
    let mut seen: Vec<(UnitKind, String)> = Vec::new();
    let mut lines = vec![linear];
    for coupling in couplings {
        let of = (coupling.kind, short(&coupling.name));
        if seen.contains(&of) {
            continue;
        }
        seen.push(of);
        lines.push(sentence(coupling));
    }
    lines
}

/// Behind the block's number: `mlp.down_proj`.
fn short(name: &str) -> String {
    let behind = name.split('.').skip_while(|part| part.parse::<usize>().is_err()).skip(1).collect::<Vec<_>>();
    if behind.is_empty() { name.to_string() } else { behind.join(".") }
}

/// A coupling as a sentence.
fn sentence(coupling: &Coupling) -> String {
    let scope = match coupling.block {
        Some(_) => ", each block alone",
        None if coupling.kind == UnitKind::Head => ", all blocks of the stack at once",
        None if coupling.kind == UnitKind::Hidden => ", all blocks at once",
        None => "",
    };
    let runs = match coupling.runs {
        1 => String::new(),
        runs => format!(", as many from each of {runs} key-value groups"),
    };
    let mut parts: Vec<(String, Vec<String>)> = Vec::new();
    for member in &coupling.members {
        let (tensor, bias) = (short(&member.tensor), member.tensor.ends_with(".bias"));
        let tensor = tensor.strip_suffix(".weight").unwrap_or(&tensor).to_string();
        let what = match (member.part, member.side) {
            (Extent::All { .. }, _) => "all".to_string(),
            (Extent::Slice { width, .. }, Side::Makes | Side::Shifts) if bias => format!("entries ({width})"),
            (Extent::Slice { width, axis: 1, .. }, Side::Makes) if coupling.kind == UnitKind::Hidden => {
                format!("columns ({width})")
            }
            (Extent::Slice { width, .. }, Side::Makes) => format!("rows ({width})"),
            (Extent::Slice { width, .. }, Side::Reads | Side::Shifts) => format!("columns ({width})"),
            (Extent::Slice { .. }, Side::Scales | Side::Whole) => "entries (1)".to_string(),
        };
        match parts.iter_mut().find(|(known, _)| *known == what) {
            Some((_, names)) if names.contains(&tensor) => {}
            Some((_, names)) => names.push(tensor),
            None => parts.push((what, vec![tensor])),
        }
    }
    let parts: Vec<String> = parts.into_iter().map(|(what, names)| format!("{what} of {}", names.join(", "))).collect();
    format!("{}{scope}: {}{runs}; with each go {}", coupling.kind, coupling.units, parts.join("; "))
}

fn describe(dir: &Path, folder: &Folder, config: &Config, census: &Census) -> Result<Value> {
    let all = couplings(folder, config)?;
    let sum = |sum: &Sum| json!({"parameters": sum.numbers, "kept": sum.kept, "sparsity": sum.sparsity(), "bytes": sum.bytes});
    let (flops, kept_flops) = census.flops();
    let context = config.stated_context().unwrap_or(1024);
    let blocks: Vec<Value> = (census.blocks().iter().enumerate())
        .map(|(i, s)| {
            let w = config.widths(i);
            json!({
                "heads": w.heads, "kv_heads": w.kv_heads, "head_dim": w.head_dim, "intermediate": w.intermediate, "weights": s.numbers,
                "kept": s.kept, "sparsity": s.sparsity(),
            })
        })
        .collect();
    let kinds: serde_json::Map<String, Value> = census.kinds().iter().map(|(k, s)| (word(*k).to_string(), sum(s))).collect();
    Ok(json!({
        "folder": dir, "family": config.family().model_type(), "layers": config.layers(), "hidden": config.hidden(),
        "vocabulary": config.vocab(), "tied": census.outline.tied, "files": folder.files().count(), "whole": sum(&census.whole()),
        "prunable": sum(&census.prunable()), "buffers": sum(&census.buffers()), "packed": folder.layouts(), "kinds": kinds, "blocks": blocks, "linears": census.outline.layers,
        "tensors": census.tensors, "flops": flops, "kept_flops": kept_flops, "attention_context": context,
        "attention_flops": attention_flops(config, context), "coupled": coupled(census, &all), "couplings": all,
    }))
}
