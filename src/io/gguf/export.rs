//! A Hugging Face folder becomes a GGUF file.

use super::arch::Change;
use super::inverse::{Place, Said};
use super::words::Files;
use super::write::{KeyBytes, planned, write};
use super::{Gguf, GgufTensor, Quant};
use crate::io::folder::read::{default_template, read_small};
use crate::io::{Folder, quoted};
use crate::{Error, Result};
use ndarray::ArrayD;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The types of a file's tensors. Norms, biases and learned positions are always F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportTypes {
    /// Of the weights of linear layers.
    pub weights: Quant,
    /// Of embedding and head; by default that of the weights, and Q8_0 where these have fewer than eight bits.
    pub ends: Option<Quant>,
    /// Of weights whose rows are no whole number of blocks; without one these are refused.
    pub fallback: Option<Quant>,
}

impl ExportTypes {
    /// All weights of one type, embedding and head of eight bits at least.
    pub fn new(weights: Quant) -> ExportTypes {
        ExportTypes { weights, ends: None, fallback: None }
    }

    /// Another type of embedding and head.
    #[must_use]
    pub fn ends(mut self, ends: Quant) -> ExportTypes {
        self.ends = Some(ends);
        self
    }

    /// A type of weights whose rows are no whole number of blocks: K types have blocks of 256, which llama.cpp's own tools leave for blocks of 32 likewise.
    #[must_use]
    pub fn fallback(mut self, fallback: Quant) -> ExportTypes {
        self.fallback = Some(fallback);
        self
    }

    fn of(self, part: &str, rank: usize, row: usize) -> Quant {
        let quant = self.asked(part, rank);
        self.fallback.filter(|_| row % quant.block().0 != 0).unwrap_or(quant)
    }

    fn asked(self, part: &str, rank: usize) -> Quant {
        let few = !self.weights.is_float() && self.weights != Quant::Q8_0;
        match part {
            _ if rank < 2 || part == "position_embd" || part == "ffn_gate_inp" => Quant::F32,
            "token_embd" | "output" => self.ends.unwrap_or(if few { Quant::Q8_0 } else { self.weights }),
            _ => self.weights,
        }
    }
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exported {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// Tensors written.
    pub tensors: usize,
    /// Numbers written.
    pub parameters: usize,
    /// Of each type, how many tensors have it.
    pub types: BTreeMap<String, usize>,
    /// Of tensors that an older file has, how many kept its bytes.
    pub kept: usize,
    /// Tensors whose numbers are not all those of the folder: they were rounded.
    pub rounded: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// One tensor's way.
enum Way {
    /// A tensor of the folder, and what was done to its numbers in the file.
    Folder(String, Change),
    /// As many tensors as there are experts, in their order.
    Experts(Vec<Option<String>>),
    /// Numbers that the config says.
    Made(Vec<f32>),
}

/// Buffers that some checkpoints hold and no file does.
const BUFFERS: [&str; 5] =
    [".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"];

/// The number that the format gives a file of mostly this type.
fn file_type(quant: Quant) -> u32 {
    match quant {
        Quant::F32 => 0,
        Quant::F16 => 1,
        Quant::Q4_0 => 2,
        Quant::Q4_1 => 3,
        Quant::Q8_0 => 7,
        Quant::Q5_0 => 8,
        Quant::Q5_1 => 9,
        Quant::BF16 => 32,
        Quant::Q2_K => 10,
        Quant::Q3_K => 11,
        Quant::Q4_K => 14,
        Quant::Q5_K => 16,
        Quant::Q6_K => 18,
    }
}

/// Writes the GGUF file `out` from a folder: settings, tokenizer and weights, whole or not at all; one tensor is in memory at a time. Rows of
/// queries and keys go to the order in which llama.cpp turns them. A tied head is left out. Blocks that hold a row's numbers exactly are found
/// ([`Quant::encode`]); others are rounded to the nearest. Masks are not part of the format: zeros stay zeros in types without a minimum.
///
/// With `like`, an older file of the same model, its keys, tokenizer, order and types are taken, and a tensor whose numbers are those of the folder
/// keeps its bytes: a folder that was imported from it and not changed becomes the same file.
///
/// # Errors
/// [`Error::InvalidOption`] if the model is of a type that is not written, says what the file cannot, has layers of different widths, a row that is no
/// whole number of blocks, or a number that the type does not hold; [`Error::Malformed`] if the folder lacks a tensor; [`Error::Io`].
pub fn export(folder: &Folder, out: &Path, types: ExportTypes, like: Option<&Gguf>) -> Result<Exported> {
    let said = Said::read(folder.config())?;
    let (arch, layers) = (said.arch, said.layers);
    let tied = folder.config().get("tie_word_embeddings").and_then(serde_json::Value::as_bool);
    let mut ways: HashMap<String, Way> = HashMap::new();
    let mut tensors: Vec<GgufTensor> = Vec::new();
    let mut keys = KeyBytes::default();
    keys.text("general.architecture", arch.name);
    keys.count("general.file_type", file_type(types.weights));
    if !types.weights.is_float() {
        keys.count("general.quantization_version", 2);
    }
    for (name, numbers) in said.keys(&mut keys)? {
        tensors.push(planned(name, &[numbers.len()], Quant::F32));
        ways.insert(name.to_string(), Way::Made(numbers));
    }
    for name in folder.names() {
        let Some(Place { name: to, change, expert }) = arch.inverse(name, layers, said.heads) else {
            if BUFFERS.iter().any(|buffer| name.ends_with(buffer)) {
                continue;
            }
            let reason = format!("has the tensor {}, which a {} of {layers} blocks has not", quoted(name), arch.name);
            return Err(Error::malformed(folder.path(), reason));
        };
        if to == "output.weight"
            && (tied == Some(true) || tied.is_none() && ["gemma", "gemma2", "gemma3", "gpt2", "bloom"].contains(&arch.name))
        {
            continue;
        }
        let (stored, wanted) = (folder.shape(name)?, arch.shape(&to, &said.sizes));
        let fits = match (expert, change) {
            (Some(_), _) => stored == &wanted[1..],
            (None, Change::Row) => stored.len() == 2 && stored[0] == 1 && stored[1..] == wanted,
            (None, _) => change.shape(stored) == wanted,
        };
        if !fits {
            let reason = format!(
                "tensor {} has shape {:?}; a {} has {wanted:?} there: layers of different widths are not written",
                quoted(name),
                folder.shape(name)?,
                arch.name
            );
            return Err(Error::malformed(folder.path(), reason));
        }
        if let Some(expert) = expert {
            let all = || Way::Experts(vec![None; said.sizes.experts]);
            let Way::Experts(found) = ways.entry(to.clone()).or_insert_with(all) else { continue };
            let count = found.len();
            let Some(place) = found.get_mut(expert) else {
                let reason = format!("has the tensor {}, which a {} of {count} experts has not", quoted(name), arch.name);
                return Err(Error::malformed(folder.path(), reason));
            };
            *place = Some(name.to_string());
            if expert > 0 {
                continue;
            }
        }
        let shape = wanted;
        let part = to.rsplit_once('.').map_or(to.as_str(), |(stem, _)| stem);
        let row = shape.last().copied().unwrap_or(0);
        let quant = types.of(part.rsplit_once('.').map_or(part, |(_, part)| part), shape.len(), row);
        tensors.push(planned(&to, &shape, quant));
        if expert.is_none() {
            ways.insert(to, Way::Folder(name.to_string(), change));
        }
    }
    tensors.sort_by_key(|tensor| order(&tensor.name));
    let needed = arch.needed(layers, !ways.contains_key("output.weight")).find(|name| !ways.contains_key(name));
    if let Some(missing) = needed {
        let reason = format!("lacks a tensor: {} of a {} of {layers} blocks", quoted(&missing), arch.name);
        return Err(Error::malformed(folder.path(), reason));
    }
    let incomplete = |way: &Way| match way {
        Way::Experts(all) => all.iter().position(Option::is_none),
        _ => None,
    };
    if let Some((name, expert)) = ways.iter().filter_map(|(name, way)| Some((name, incomplete(way)?))).min() {
        let reason = format!("lacks a tensor: expert {expert} of {} in {}", said.sizes.experts, quoted(name));
        return Err(Error::malformed(folder.path(), reason));
    }
    let mut alignment = 32;
    match like {
        Some(like) => {
            tensors = as_in(like, &tensors, arch.name)?;
            if let (None, Some(Way::Folder(name, change))) = (ways.get("output.weight"), ways.get("token_embd.weight")) {
                // Where the file holds the embedding over again as its head.
                let head = Way::Folder(name.clone(), *change);
                ways.insert("output.weight".to_string(), head);
            }
            let (bytes, count) = like.key_section()?;
            keys = KeyBytes { bytes, count };
            alignment = like.alignment;
        }
        None => words(folder, said.sizes.vocab, &mut keys)?,
    }
    for tensor in &tensors {
        let (row, block) = (tensor.shape.last().copied().unwrap_or(0), tensor.quant.block().0);
        if row % block != 0 {
            let instead = if row % 32 == 0 { "; q8_0, q5_1, q5_0, q4_1 and q4_0 fit, and are a --fallback" } else { "" };
            let reason = format!(
                "{} has rows of {row}, no multiple of the {block} numbers of a block of {}{instead}",
                quoted(&tensor.name),
                tensor.quant
            );
            return Err(Error::invalid_option("type", reason));
        }
    }
    let (mut kept, mut rounded) = (0, 0);
    let bytes = write(out, &keys, alignment, &tensors, &mut |tensor| {
        let values = match ways.get(&tensor.name) {
            Some(Way::Folder(name, change)) => change.undo(folder.read(name)?),
            Some(Way::Experts(names)) => {
                let mut all = ArrayD::zeros(tensor.shape.clone());
                for (mut to, name) in all.outer_iter_mut().zip(names.iter().flatten()) {
                    to.assign(&folder.read(name)?);
                }
                all
            }
            Some(Way::Made(numbers)) => ArrayD::from_shape_vec(vec![numbers.len()], numbers.clone())
                .map_err(|e| Error::invalid_option("export", format!("{}: {e}", tensor.name)))?,
            None => ArrayD::zeros(tensor.shape.clone()),
        };
        if let Some(like) = like.filter(|like| like.tensor(&tensor.name).is_some()) {
            let old = like.read(&tensor.name)?;
            let change = if let Some(Way::Folder(_, change)) = ways.get(&tensor.name) { *change } else { Change::Same };
            // What was done to the numbers of a checkpoint may not be undone to the last bit.
            if old == values || change.apply(old) == change.apply(values.clone()) {
                kept += 1;
                return like.blocks(&tensor.name);
            }
        }
        let values = values.as_standard_layout();
        let numbers = values.as_slice().unwrap_or(&[]);
        let blocks = tensor.quant.encode(numbers).map_err(|wrong| {
            Error::invalid_option("type", format!("{} holds {wrong}, which {} does not", quoted(&tensor.name), tensor.quant))
        })?;
        let mut again = vec![0.0; numbers.len()];
        tensor.quant.decode(&blocks, &mut again);
        rounded += usize::from(again != numbers);
        Ok(blocks)
    })?;
    let mut counts = BTreeMap::new();
    tensors.iter().for_each(|tensor| *counts.entry(tensor.quant.to_string()).or_default() += 1);
    Ok(Exported {
        architecture: arch.name.to_string(),
        tensors: tensors.len(),
        parameters: tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum(),
        types: counts,
        kept,
        rounded,
        bytes,
    })
}

/// Where a tensor stands: embedding, blocks in order, what is behind them.
fn order(name: &str) -> (usize, String) {
    match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (1 + layer.parse().unwrap_or(0), part.to_string()),
        None if name.starts_with("output") => (usize::MAX, name.to_string()),
        None => (0, name.to_string()),
    }
}

/// The tensors in the order and of the types of an older file.
fn as_in(like: &Gguf, tensors: &[GgufTensor], arch: &str) -> Result<Vec<GgufTensor>> {
    let refuse = |reason: String| Err(Error::malformed(like.path(), reason));
    let found = like.text("general.architecture")?;
    if found != arch {
        return refuse(format!("is a {}, the folder a {arch}", quoted(found)));
    }
    let by_name: HashMap<&str, &GgufTensor> = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    if let Some(more) = tensors.iter().find(|tensor| like.tensor(&tensor.name).is_none()) {
        return refuse(format!("lacks the tensor {}, which the folder has", quoted(&more.name)));
    }
    for old in like.tensors() {
        match by_name.get(old.name.as_str()) {
            Some(new) if new.shape != old.shape => {
                return refuse(format!("tensor {} has shape {:?}, in the folder {:?}", quoted(&old.name), old.shape, new.shape));
            }
            Some(_) => {}
            // A head that is the embedding over again is tied in a folder.
            None if old.name == "output.weight" => {}
            None => return refuse(format!("has the tensor {}, which the folder has not", quoted(&old.name))),
        }
    }
    Ok(like.tensors().iter().map(|old| planned(&old.name, &old.shape, old.quant)).collect())
}

/// The keys of the tokenizer, where the folder has one.
fn words(folder: &Folder, vocab: usize, keys: &mut KeyBytes) -> Result<()> {
    let Some(tokenizer) = folder.json("tokenizer.json")? else { return Ok(()) };
    let settings = folder.json("tokenizer_config.json")?.unwrap_or_default();
    let own = folder.path().join("chat_template.jinja");
    let own = if own.is_file() { Some(read_small(&own)?) } else { None };
    let chat = match &own {
        Some(bytes) => std::str::from_utf8(bytes).ok(),
        None => settings.get("chat_template").and_then(default_template),
    };
    Files { tokenizer: &tokenizer, settings: &settings, chat, config: folder.config() }.write(vocab, keys)
}
