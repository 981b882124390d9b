//! `lacuna inspect DIR`: what a model folder holds, what of it may be pruned, and what hangs together.

use super::model::open;
use super::{print, print_json};
use lacuna::Result;
use lacuna::eval::{Census, Counted, Sum, attention_flops, sparsity};
use lacuna::io::Folder;
use lacuna::lm::{Config, Kind};
use lacuna::report::{Cell, Table};
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
        return print_json(&describe(dir, &folder, &config, &census));
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
    for line in coupled(&config, &census) {
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

/// What may be pruned, and which rows and columns go together, as sentences about the first block.
fn coupled(config: &Config, census: &Census) -> Vec<String> {
    let layers: Vec<_> = census.outline.layers.iter().filter(|l| l.block == Some(0)).collect();
    // Behind the block's number: `mlp.down_proj`.
    let short = |name: &str| {
        let behind = name.split('.').skip_while(|part| part.parse::<usize>().is_err()).skip(1).collect::<Vec<_>>();
        if behind.is_empty() { name.to_string() } else { behind.join(".") }
    };
    let names = |want: &dyn Fn((usize, usize)) -> bool, kind: Kind| -> Vec<String> {
        layers.iter().filter(|l| l.kind == kind && want(l.shape)).map(|l| short(&l.name)).collect()
    };
    let hidden = config.hidden();
    let w = config.widths(0);
    let writes = |shape: (usize, usize)| shape.0 == hidden;
    let last =
        |kind: Kind| layers.iter().rev().find(|l| l.kind == kind && writes(l.shape)).map(|l| short(&l.name)).unwrap_or_default();
    let (output, down) = (last(Kind::Attention), last(Kind::FeedForward));
    let others = |kind: Kind, but: &str| names(&|_| true, kind).into_iter().filter(|n| n != but).collect::<Vec<_>>().join(", ");
    vec![
        format!(
            "may be pruned weight by weight: the {} linear layers of the blocks; embedding{}, norms and biases only if named",
            census.outline.layers.iter().filter(|l| l.block.is_some()).count(),
            if census.outline.tied { " (which is the head)" } else { " and head" },
        ),
        format!(
            "heads, each block alone: {} rows of {} with the columns of {output}; {} query heads share {} key-value heads, so they go by \
             groups of {}, or as many from each group",
            w.head_dim,
            others(Kind::Attention, &output),
            w.heads,
            w.kv_heads,
            w.heads / w.kv_heads.max(1),
        ),
        format!(
            "intermediate features, each block alone: the row of each part of {} with the column of {down}",
            others(Kind::FeedForward, &down)
        ),
        format!(
            "hidden features, all blocks at once: columns of what reads the stream, rows of {output} and {down}, norms, embedding{}",
            if census.outline.tied { "" } else { " and head" },
        ),
    ]
}

fn describe(dir: &Path, folder: &Folder, config: &Config, census: &Census) -> Value {
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
    json!({
        "folder": dir, "family": config.family().model_type(), "layers": config.layers(), "hidden": config.hidden(),
        "vocabulary": config.vocab(), "tied": census.outline.tied, "files": folder.files().count(), "whole": sum(&census.whole()),
        "prunable": sum(&census.prunable()), "buffers": sum(&census.buffers()), "packed": folder.layouts(), "kinds": kinds, "blocks": blocks, "linears": census.outline.layers,
        "tensors": census.tensors, "flops": flops, "kept_flops": kept_flops, "attention_context": context,
        "attention_flops": attention_flops(config, context), "coupled": coupled(config, census),
    })
}
