//! Models from scratch: every tensor that a config asks for, drawn from a seed.
//!
//! Radford et al. *Language models are unsupervised multitask learners.* 2019, section 2.3, as GPT-2's code has it:
//!
//! ```text
//! weights, embeddings    N(0, σ²), σ = initializer_range of the config, 0.02 if it names none
//! what joins the hidden states (attention's output, the last feed-forward layer)   N(0, σ² / 2L) for L blocks
//! norms 1 (0 where they multiply by 1 + w), biases 0
//! ```
//!
//! Departure: the smaller weights of what joins the hidden states are for every family, where some references draw all alike.

use super::Config;
use super::architecture::{BlockNames, QueryKeyNorm};
use super::outline::{Kind, Outlined, block};
use crate::io::{Dtype, FolderWriter, Layout, Output};
use crate::rng::Seed;
use crate::{Error, Result};
use ndarray::{Array1, Array2, Axis};
use rayon::prelude::*;

/// Bytes of a file of weights; larger models are sharded.
const SHARD: u64 = 5_000_000_000;
/// Rows that have a stream of their own, so that the numbers do not depend on the threads.
const ROWS: usize = 64;

/// What the numbers of a tensor begin as.
#[derive(Debug, Clone, Copy)]
enum Begin {
    /// Normal, of this deviation.
    Normal(f32),
    /// All this.
    Constant(f32),
}

/// Writes a folder with a model of this config whose weights are drawn from a seed, and its `config.json`. Tokenizer and name are the caller's
/// to add: [`FolderWriter::file`], [`FolderWriter::finish`].
///
/// ```
/// use lacuna::{io::{Dtype, Folder}, lm::{Config, LanguageModel, init}, rng::Seed};
/// # let folder = tempfile::tempdir().unwrap();
/// # let out = folder.path().join("new");
/// let config = Config::parse(&serde_json::json!({
///     "model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 52, "num_hidden_layers": 2,
///     "num_attention_heads": 4, "num_key_value_heads": 2,
/// }))?;
/// init(&config, Seed(0), Dtype::F32, &out)?.finish()?;
/// let nll = LanguageModel::load(&Folder::open(&out)?, config)?.nll(&[1, 2, 3, 4])?;
/// assert!(nll.iter().all(|nll| (nll - 97f64.ln()).abs() < 0.5), "it knows nothing yet");
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidOption`] for an encoder-decoder, or an `initializer_range` that is no number above 0; as [`FolderWriter::create`] and
/// [`FolderWriter::write`].
pub fn init(config: &Config, seed: Seed, dtype: Dtype, out: impl Into<Output>) -> Result<FolderWriter> {
    let tensors = tensors(config)?;
    let layout = Layout::new(tensors.iter().map(|(name, shape, _)| (name.clone(), dtype, shape.clone())), SHARD)?;
    let mut writer = FolderWriter::create(out, layout)?;
    for (name, shape, begin) in &tensors {
        // Vectors are constant, matrices normal.
        match *begin {
            Begin::Constant(value) => writer.write(name, &Array1::from_elem(shape[0], value))?,
            Begin::Normal(deviation) => writer.write(name, &normal(seed, name, (shape[0], shape[1]), deviation))?,
        }
    }
    if let Some(json) = config.to_json().as_object() {
        writer.config(json)?;
    }
    Ok(writer)
}

/// Parameters of a model of this config, a tied head counted once; nothing is drawn.
///
/// # Errors
/// As [`init`], for what it refuses of a config.
pub fn parameter_count(config: &Config) -> Result<usize> {
    Ok(tensors(config)?.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum())
}

fn normal(seed: Seed, name: &str, (rows, cols): (usize, usize), deviation: f32) -> Array2<f32> {
    let mut weight = Array2::zeros((rows, cols));
    weight.axis_chunks_iter_mut(Axis(0), ROWS).into_par_iter().enumerate().for_each(|(i, mut part)| {
        let mut stream = seed.stream(&format!("init {name}/{i}"));
        let drawn = stream.normal_array(part.nrows(), cols, deviation);
        part.assign(&drawn);
    });
    weight
}

/// All tensors in the order of checkpoints, `(name, shape in the file, beginning)`.
fn tensors(config: &Config) -> Result<Vec<(String, Vec<usize>, Begin)>> {
    let recipe = config.recipe();
    if config.is_encoder_decoder() {
        return Err(Error::invalid_option("model_type", "an encoder-decoder is not begun from scratch here"));
    }
    let deviation = match config.to_json().get("initializer_range") {
        None => 0.02,
        Some(value) => match value.as_f64().filter(|v| v.is_finite() && *v > 0.0) {
            Some(value) => value,
            None => return Err(Error::invalid_option("initializer_range", format!("{value} is not a number above 0"))),
        },
    };
    let joining = (deviation / (2.0 * recipe.layers.len().max(1) as f64).sqrt()) as f32;
    let (deviation, hidden) = (deviation as f32, recipe.hidden);
    let name = |part: &str| format!("{}{part}", recipe.names.prefix);
    let mut all = Vec::new();
    let embedding = recipe.names.embedding.first().copied().unwrap_or_default();
    let width = recipe.embedding_features();
    all.push((format!("{}.weight", name(embedding)), vec![recipe.vocab, width], Begin::Normal(deviation)));
    if let Some(positions) = recipe.positions {
        let rows = positions.count + positions.offset;
        all.push((format!("{}.weight", name(recipe.names.positions)), vec![rows, hidden], Begin::Normal(deviation)));
    }
    if let Some(count) = recipe.token_types {
        all.push((format!("{}.weight", name(recipe.names.token_types)), vec![count, hidden], Begin::Normal(deviation)));
    }
    if recipe.embedding_width.is_some() {
        let shapes = [vec![hidden, width], vec![width, hidden]];
        let projections = recipe.names.projections.into_iter().zip(shapes);
        all.extend(projections.map(|(part, shape)| (format!("{}.weight", name(part)), shape, Begin::Normal(deviation))));
    }
    let norm = |name: String, all: &mut Vec<_>| {
        let one = if recipe.plus_one { 0.0 } else { 1.0 };
        all.push((format!("{name}.weight"), vec![hidden], Begin::Constant(one)));
        if recipe.norm_bias {
            all.push((format!("{name}.bias"), vec![hidden], Begin::Constant(0.0)));
        }
    };
    recipe.names.embedding_norm.iter().for_each(|part| norm(name(part), &mut all));
    for i in 0..recipe.layers.len() {
        let (stack, place) = recipe.place(i);
        let (parts, path) = (&stack.parts, name(&format!("{}.{place}.", stack.path)));
        let BlockNames { output, down, .. } = parts;
        parts.norms().for_each(|part| norm(format!("{path}{part}"), &mut all));
        if let (Some(over), Some(names)) = (recipe.query_key, parts.query_key) {
            let heads = recipe.layers[i].heads;
            for (part, heads_of) in names.into_iter().zip([heads.queries, heads.keys]) {
                let width = if over == QueryKeyNorm::Head { heads.dim } else { heads_of * heads.dim };
                let one = if recipe.plus_one { 0.0 } else { 1.0 };
                all.push((format!("{path}{part}.weight"), vec![width], Begin::Constant(one)));
            }
        }
        if let Some((names, sizes)) = recipe.experts(i) {
            let shared = names.shared.filter(|_| sizes.shared.is_some()).map(|(_, gate)| (gate, 1));
            for (part, rows) in [Some((names.router, sizes.count)), shared].into_iter().flatten() {
                all.push((format!("{path}{part}.weight"), vec![rows, hidden], Begin::Normal(deviation)));
            }
        }
        let mut layers = Vec::new();
        block(config, i, parts, &path, &mut layers);
        for layer in layers {
            let is = |part: &str| layer.name == format!("{path}{part}");
            // Of an expert's layers, the one that gives hidden features.
            let last = recipe.experts(i).is_some()
                && layer.kind == Kind::FeedForward
                && layer.group == layer.name
                && layer.shape.0 == hidden;
            let last = last && recipe.experts(i).is_some_and(|(names, _)| layer.name.ends_with(names.layers[2]));
            let (is_output, joins) = (is(output), is(output) || is(down) || last);
            let bias = match layer.kind {
                Kind::Attention if is_output => recipe.output_bias,
                Kind::Attention => recipe.attention_bias,
                _ => recipe.feed_bias,
            };
            let Outlined { shape: (out, _), .. } = layer;
            let begin = Begin::Normal(if joins { joining } else { deviation });
            all.push((layer.tensor(), layer.stored_shape().to_vec(), begin));
            if bias {
                all.push((format!("{}.bias", layer.name), vec![out], Begin::Constant(0.0)));
            }
        }
    }
    let last = recipe.stacks.last().and_then(|stack| stack.final_norm);
    last.iter().for_each(|part| norm(name(part), &mut all));
    if !recipe.tied {
        all.push((format!("{}.weight", recipe.names.head), vec![recipe.vocab, width], Begin::Normal(deviation)));
    }
    if recipe.head_bias {
        all.push((format!("{}.bias", recipe.names.head), vec![recipe.vocab], Begin::Constant(0.0)));
    }
    Ok(all)
}
