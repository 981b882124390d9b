//! A GGUF file becomes a Hugging Face folder.

use super::arch::{Arch, Change, EACH, Joint};
use super::config::config;
use super::keys::{Keys, Model};
use super::tokenizer::tokenizer;
use super::{Gguf, Quant, rope};
use crate::io::quoted;
use crate::io::{Dtype, Folder, FolderWriter, Layout, Output};
use crate::{Error, Result};
use ndarray::{ArrayD, IxDyn};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};

/// The most bytes of one file of weights, as the Hugging Face libraries cut them.
const SHARD: u64 = 5_000_000_000;

/// What was imported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Imported {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// Tensors written.
    pub tensors: usize,
    /// Numbers written.
    pub parameters: usize,
    /// Of each type in the file, how many tensors had it.
    pub types: BTreeMap<String, usize>,
    /// Bytes of the numbers written.
    pub bytes: u64,
    /// Tokens of the tokenizer, `None` if the file had none.
    pub tokens: Option<usize>,
}

/// One tensor's way; a bias that its neighbours have and it has not is zeros. One that holds all experts becomes as many.
struct Step {
    from: Option<String>,
    to: Vec<String>,
    shape: Vec<usize>,
    change: Change,
}

/// Writes the folder `out` from a GGUF file: weights, `config.json`, generation settings and tokenizer. Quantised numbers are
/// written as `dtype` (F32 holds them exactly), floats in the dtype that they have unless `dtype` is given. A head that is the
/// embedding over again is left out and tied. Where some layers have biases and their neighbours have none, as a checkpoint cannot say,
/// the neighbours' are written as zeros. The folder appears whole or not at all; one tensor is in memory at a time.
///
/// # Errors
/// [`Error::Malformed`] if the file lacks a tensor or key, has a tensor that its architecture has not or of another shape, says what a
/// `config.json` cannot, or its tokenizer is of a kind that is not read; [`Error::InvalidOption`] if the architecture is not known (the line
/// lists those that are); what [`FolderWriter`] reports.
pub fn import(file: &Gguf, out: impl Into<Output>, dtype: Option<Dtype>) -> Result<Imported> {
    import_checked(file, out, dtype, |_| Ok(()))
}

/// As [`import`]; `check` is shown the folder before it has its name, and what it refuses is not made.
///
/// # Errors
/// As [`import`], and those of `check`.
pub fn import_checked(
    file: &Gguf,
    out: impl Into<Output>,
    dtype: Option<Dtype>,
    check: impl FnOnce(&Folder) -> Result<()>,
) -> Result<Imported> {
    let refuse = |reason: String| Error::malformed(file.path(), reason);
    let name = file.text("general.architecture")?;
    let experts = file.count_or(&format!("{name}.expert_count"))?.unwrap_or(0);
    let arch = Arch::of(name, experts > 0).map_err(|e| refuse(e.to_string()))?;
    let model = Model::read(file, arch)?;
    let layers = model.layers;
    let names: HashSet<&str> = file.tensors().iter().map(|t| t.name.as_str()).collect();
    let tied = arch.may_tie() && head_is_embedding(file)?;
    if let Some(missing) = arch.needed(layers, tied).find(|name| !names.contains(name.as_str())) {
        return Err(refuse(format!("lacks the tensor {} of a {} of {layers} blocks", quoted(&missing), arch.name)));
    }
    let (mut steps, mut tensors) = (Vec::new(), Vec::new());
    let mut sums: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in file.tensors() {
        // Factors of the rotary frequencies go to the configuration.
        if rope::is_factors(&tensor.name) || (tied && tensor.name == "output.weight") {
            continue;
        }
        let Some((to, change)) = arch.translate(&tensor.name, layers, model.heads) else {
            return Err(refuse(format!(
                "has the tensor {}, which a {} of {layers} blocks has not",
                quoted(&tensor.name),
                arch.name
            )));
        };
        if !change.fits(&tensor.shape) {
            return Err(refuse(format!(
                "tensor {} has shape {:?}, which does not fit {:?} heads",
                quoted(&tensor.name),
                tensor.shape,
                model.heads
            )));
        }
        let wanted = arch.shape(&tensor.name, &model.sizes);
        if tensor.shape != wanted && !(change == Change::Row && tensor.shape[1..] == wanted) {
            let shown = quoted(&tensor.name);
            return Err(refuse(format!("tensor {shown} has shape {:?}; its keys ask for {wanted:?}", tensor.shape)));
        }
        let own = match tensor.quant {
            Quant::F16 => Dtype::F16,
            Quant::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        };
        let dtype = dtype.unwrap_or(own);
        let mut shape = change.shape(&tensor.shape);
        *sums.entry(name_of(dtype)).or_default() += shape.iter().product::<usize>();
        let to = match to.contains(EACH) {
            true => (0..shape.remove(0)).map(|expert| to.replace(EACH, &expert.to_string())).collect(),
            false => vec![to],
        };
        tensors.extend(to.iter().map(|to| (to.clone(), dtype, shape.clone())));
        steps.push(Step { from: Some(tensor.name.clone()), to, shape, change });
    }
    model.check(Keys { file, arch: arch.name })?;
    let biased = |joint: Joint| arch.biased(joint, layers).any(|part| names.contains(format!("{part}.bias").as_str()));
    for part in [Joint::Attention, Joint::Feed].into_iter().filter(|j| biased(*j)).flat_map(|j| arch.biased(j, layers)) {
        let from = format!("{part}.bias");
        if let (false, Some((to, change))) = (names.contains(from.as_str()), arch.translate(&from, layers, model.heads)) {
            let shape = arch.shape(&from, &model.sizes);
            tensors.push((to.clone(), dtype.unwrap_or(Dtype::F32), shape.clone()));
            steps.push(Step { from: None, to: vec![to], shape, change });
        }
    }
    let most = sums.iter().max_by_key(|(_, n)| **n).map_or("float32", |(name, _)| *name);
    let config = config(file, arch, (&model, tied), biased, most)?;
    let words = tokenizer(file)?;
    let imported = Imported {
        architecture: arch.name.to_string(),
        tensors: tensors.len(),
        parameters: tensors.iter().map(|(_, _, shape)| shape.iter().product::<usize>()).sum(),
        types: file.tensors().iter().fold(BTreeMap::new(), |mut types, t| {
            *types.entry(t.quant.to_string()).or_default() += 1;
            types
        }),
        bytes: tensors.iter().map(|(_, dtype, shape)| (dtype.bytes() * shape.iter().product::<usize>()) as u64).sum(),
        tokens: words.as_ref().and_then(|_| file.texts_or("tokenizer.ggml.tokens").ok().flatten()).map(<[String]>::len),
    };

    let mut writer = FolderWriter::create(out, Layout::new(tensors, SHARD)?)?;
    writer.config(&with_origin(&config, file, &imported.types))?;
    writer.json("generation_config.json", &generation(&config))?;
    if let Some(words) = words {
        writer.json("tokenizer.json", &words.tokenizer)?;
        writer.json("tokenizer_config.json", &words.config)?;
        writer.json("special_tokens_map.json", &words.special)?;
    }
    for step in steps {
        let values = match step.from {
            Some(from) => step.change.apply(file.read(&from)?),
            None => ArrayD::zeros(IxDyn(&step.shape)),
        };
        match &step.to[..] {
            [to] if values.shape() == step.shape => writer.write(to, &values)?,
            each => each.iter().zip(values.outer_iter()).try_for_each(|(to, values)| writer.write(to, &values))?,
        }
    }
    check(&writer.complete()?)?;
    writer.finish()?;
    Ok(imported)
}

/// The config with a record of the file: in which types it held the numbers, and in how many bytes. Who runs the folder, or one made of
/// it, can say from it what the numbers took before.
fn with_origin(config: &Map<String, Value>, file: &Gguf, types: &BTreeMap<String, usize>) -> Map<String, Value> {
    let bytes: u64 = file.tensors().iter().map(|t| t.bytes).sum();
    let mut config = config.clone();
    config.insert("imported_from".to_string(), json!({"format": "GGUF", "types": types, "bytes": bytes}));
    config
}

/// Whether the head is left out because it is the embedding, or is the same over again.
fn head_is_embedding(file: &Gguf) -> Result<bool> {
    match (file.tensor("output.weight"), file.tensor("token_embd.weight")) {
        (Some(head), Some(embedding)) if (&head.shape, head.quant) == (&embedding.shape, embedding.quant) => {
            Ok(file.read(&head.name)? == file.read(&embedding.name)?)
        }
        (head, _) => Ok(head.is_none()),
    }
}

fn name_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
    }
}

fn generation(config: &Map<String, Value>) -> Value {
    let ids = ["bos_token_id", "eos_token_id", "pad_token_id"];
    let known = ids.iter().filter_map(|key| Some((key.to_string(), config.get(*key).filter(|id| !id.is_null())?.clone())));
    let mut generation: Map<String, Value> = known.collect();
    generation.insert("_from_model_config".to_string(), json!(true));
    Value::Object(generation)
}
