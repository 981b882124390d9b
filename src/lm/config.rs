//! [`Config`]: the `config.json` of a language model.

use super::architecture::{Architecture, BlockList, Keys, ModelKind, QueryKeyNorm, setting};
use super::family::Family;
use crate::io::{Folder, check_quant_method};
use crate::nn::{NormKind, Residual};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Widths of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Widths {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Features between the feed-forward layers.
    pub intermediate: usize,
}

/// A parsed `config.json`. Keys that are not understood are kept and written back.
///
/// **Blocks of different widths.** Beside the family's own keys, which give one width to all blocks, the key
/// `layer_widths` may hold a list with one object a block, of any of the keys `heads`, `kv_heads` and `intermediate`; what an
/// object leaves out is the family's, and 0 is a block without attention, or without feed-forward layers. Where all blocks are alike the key is left out when written, so that other programs open
/// what they can.
///
/// ```
/// use lacuna::lm::Config;
/// let json = serde_json::json!({
///     "model_type": "llama", "vocab_size": 97, "hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 2,
///     "num_attention_heads": 6, "num_key_value_heads": 2, "my_key": [1, 2],
///     "layer_widths": [{}, {"intermediate": 40, "heads": 4}],
/// });
/// let config = Config::parse(&json)?;
/// assert_eq!((config.widths(0).heads, config.widths(1).heads, config.widths(1).intermediate), (6, 4, 40));
/// assert_eq!(config.to_json()["my_key"], json["my_key"]);
/// # Ok::<(), lacuna::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    raw: Map<String, Value>,
    family: Family,
    recipe: Architecture,
}

/// Keys that name tokens.
const IDS: [&str; 4] = ["bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"];
/// Keys that state a context.
const CONTEXTS: [&str; 2] = ["max_position_embeddings", "n_positions"];
/// Keys by which other programs say what differs from block to block.
const ELSEWHERE: [(&str, &str); 3] = [
    ("per_layer_config", "it changes single blocks"),
    ("block_configs", "it changes single blocks"),
    ("layer_configs", "it changes single blocks"),
];
/// The key of per-block widths.
const LAYER_WIDTHS: &str = "layer_widths";

impl Config {
    /// Checks a config and reads what its family needs.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the key: an unknown `model_type` (with those that are known), a key that is missing, of another
    /// type, or contradicts another one.
    pub fn parse(json: &Value) -> Result<Self> {
        let raw = json.as_object().ok_or_else(|| Error::invalid_option("config.json", "is not a JSON object"))?;
        Config::from_raw(raw.clone())
    }

    /// The config of a folder.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the file, for what [`Config::parse`] refuses.
    pub fn of(folder: &Folder) -> Result<Self> {
        let refuse = |e: Error| Error::malformed(folder.path().join("config.json"), e.to_string());
        Config::from_raw(folder.config().clone()).map_err(refuse)
    }

    fn from_raw(raw: Map<String, Value>) -> Result<Self> {
        check_quant_method(&raw)?;
        let family = Family::of(Keys(&raw).text("model_type", "")?)?;
        let own = own_names(&raw, family)?;
        let keys = Keys(own.as_ref().unwrap_or(&raw));
        for (key, what) in ELSEWHERE {
            let empty =
                |value: &Value| value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
            if keys.get(key).is_some_and(|value| !empty(value)) {
                return Err(setting(key, format!("is given; {what}, of which {LAYER_WIDTHS} alone is read")));
            }
        }
        let mut recipe = family.architecture(keys)?;
        IDS.iter().try_for_each(|key| Keys(&raw).ids(key).map(|_| ()))?;
        CONTEXTS.iter().try_for_each(|key| Keys(&raw).size_if(key).map(|_| ()))?;
        if let Some(list) = keys.list_if(LAYER_WIDTHS, recipe.layers.len())? {
            for (i, (entry, layer)) in list.iter().zip(&mut recipe.layers).enumerate() {
                let refuse = || setting(LAYER_WIDTHS, format!("entry {i} is not an object of heads, kv_heads, intermediate"));
                let entry = Keys(entry.as_object().ok_or_else(refuse)?);
                // 0 is a block without attention, or without feed-forward layers.
                let size = |key: &str, own: usize| Ok::<usize, Error>(entry.size_if(key)?.unwrap_or(own));
                layer.heads.queries = size("heads", layer.heads.queries)?;
                layer.heads.keys = size("kv_heads", layer.heads.keys)?;
                layer.intermediate = size("intermediate", layer.intermediate)?;
            }
        }
        recipe.check()?;
        Ok(Config { raw, family, recipe })
    }

    /// The config as it is written: what was read, with the changes made since.
    pub fn to_json(&self) -> Value {
        Value::Object(self.raw.clone())
    }

    /// The family, by `model_type`.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether an encoder reads one text and a decoder writes another.
    pub fn is_encoder_decoder(&self) -> bool {
        self.recipe.kind == ModelKind::EncoderDecoder
    }

    /// Whether the model is for its hidden states, in which every token has seen every other, and predicts nothing.
    pub fn is_encoder(&self) -> bool {
        self.recipe.kind == ModelKind::Encoder
    }

    /// Which kind of model it is, in a word: decoder, encoder, encoder-decoder.
    pub fn kind(&self) -> &'static str {
        match self.recipe.kind {
            ModelKind::Decoder => "decoder",
            ModelKind::Encoder => "encoder",
            ModelKind::EncoderDecoder => "encoder-decoder",
        }
    }

    /// Whether each token is predicted from those before it.
    pub fn is_decoder(&self) -> bool {
        self.recipe.kind == ModelKind::Decoder
    }

    /// Number of tokens that the model knows.
    pub fn vocab(&self) -> usize {
        self.recipe.vocab
    }

    /// Features of the hidden states between blocks.
    pub fn hidden(&self) -> usize {
        self.recipe.hidden
    }

    /// Number of blocks (of an encoder-decoder: of the encoder, then of the decoder).
    pub fn layers(&self) -> usize {
        self.recipe.layers.len()
    }

    /// The longest context, where positions are learned and end.
    pub fn max_positions(&self) -> Option<usize> {
        self.recipe.positions.map(|positions| positions.count)
    }

    /// The context that the config states, if any; rotary positions go on behind it.
    pub fn stated_context(&self) -> Option<usize> {
        let keys = Keys(&self.raw);
        CONTEXTS.into_iter().find_map(|key| keys.size_if(key).ok().flatten())
    }

    /// Whether the config says that the head is the embedding. A file may hold another head all the same: [`Outline`](super::Outline)
    /// says what is so.
    pub fn tied(&self) -> bool {
        self.recipe.tied
    }

    /// The config for weights whose head is or is not the embedding, where it says otherwise: so that every program reads them alike. T5's
    /// says more by the key and stays as it is.
    pub(crate) fn settled(&self, tied: bool) -> Option<Map<String, Value>> {
        if tied == self.recipe.tied || !self.is_decoder() {
            return None;
        }
        let mut raw = self.raw.clone();
        raw.insert("tie_word_embeddings".into(), tied.into());
        Some(raw)
    }

    /// The token that begins a text, if the config names one.
    pub fn bos(&self) -> Option<u32> {
        self.id("bos_token_id")
    }

    /// The tokens that end a text.
    pub fn eos(&self) -> Vec<u32> {
        Keys(&self.raw).ids("eos_token_id").unwrap_or_default()
    }

    /// The token that fills up, if the config names one.
    pub fn pad(&self) -> Option<u32> {
        self.id("pad_token_id")
    }

    /// The token that a decoder begins with.
    pub fn decoder_start(&self) -> u32 {
        self.id("decoder_start_token_id").or(self.pad()).unwrap_or(0)
    }

    fn id(&self, key: &str) -> Option<u32> {
        Keys(&self.raw).ids(key).ok()?.first().copied()
    }

    /// Widths of a block.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn widths(&self, layer: usize) -> Widths {
        let layer = &self.recipe.layers[layer];
        let heads = layer.heads;
        Widths { heads: heads.queries, kv_heads: heads.keys, head_dim: heads.dim, intermediate: layer.intermediate }
    }

    /// Whether the family's own keys say the widths of all blocks, so that other programs open the model too; else `layer_widths` does.
    pub fn has_plain_widths(&self) -> bool {
        !self.raw.contains_key(LAYER_WIDTHS)
    }

    /// A config with other widths: one entry a block. Where all blocks are alike the family's own keys say so, and
    /// `layer_widths` where they differ.
    ///
    /// # Errors
    /// If there are not as many entries as blocks, heads do not share keys evenly, or the width of heads changes.
    pub fn with_widths(&self, widths: &[Widths]) -> Result<Self> {
        if widths.len() != self.layers() {
            return Err(setting(LAYER_WIDTHS, format!("has {} entries for {} layers", widths.len(), self.layers())));
        }
        if let Some(w) = widths.iter().enumerate().find(|(i, w)| w.head_dim != self.widths(*i).head_dim) {
            let reason = format!("block {}: heads of {} features cannot become {}", w.0, self.widths(w.0).head_dim, w.1.head_dim);
            return Err(setting(LAYER_WIDTHS, reason));
        }
        let mut raw = self.raw.clone();
        raw.remove(LAYER_WIDTHS);
        if let (Some(first), Some(names)) = (widths.first(), self.family.definition().widths)
            && widths.iter().all(|w| w == first)
        {
            let kv_heads = names.kv_heads.map(|key| (key, first.kv_heads));
            let head_dim = names.head_dim.map(|key| (key, first.head_dim));
            let all = [(names.heads, first.heads), (names.intermediate, first.intermediate)].into_iter();
            all.chain(kv_heads).chain(head_dim).for_each(|(key, n)| self.put(&mut raw, key, n.into()));
        }
        let plain = Config::from_raw(raw.clone()).ok();
        if plain.is_some_and(|p| (0..widths.len()).all(|i| p.widths(i) == widths[i])) {
            return Config::from_raw(raw);
        }
        // The family's keys keep what holds for the blocks that the list says nothing of.
        let mut raw = self.raw.clone();
        let entry = |w: &Widths| json!({"heads": w.heads, "kv_heads": w.kv_heads, "intermediate": w.intermediate});
        raw.insert(LAYER_WIDTHS.into(), widths.iter().map(entry).collect());
        Config::from_raw(raw)
    }

    /// A config of fewer hidden features. The width of heads is written out, since it may not follow from the hidden size any more. Where
    /// norms divide by the root of a mean of squares, ε shrinks or grows with the number of squares, so that they divide by a multiple of what they
    /// did: [`rescaled`](super::rescaled) has what tensors owe to that. Norms of queries and keys, whose features stay, share the ε and see the change.
    ///
    /// # Errors
    /// If there are none or more than there were; for a family whose heads are as wide as the hidden size says.
    pub fn with_hidden(&self, hidden: usize) -> Result<Self> {
        let old = self.hidden();
        if hidden == 0 || hidden > old {
            return Err(Error::invalid_option("hidden", format!("{hidden} features of {old}")));
        }
        if hidden == old {
            return Ok(self.clone());
        }
        let Some(key) = self.family.definition().hidden else {
            let reason = format!("{} has no width of heads apart from the hidden size: {old} features stay", self.family);
            return Err(Error::invalid_option("hidden", reason));
        };
        let mut raw = self.raw.clone();
        self.put(&mut raw, key, hidden.into());
        if let Some(key) = self.family.definition().widths.and_then(|keys| keys.head_dim) {
            self.put(&mut raw, key, self.widths(0).head_dim.into());
        }
        if self.recipe.norm == NormKind::Rms {
            let epsilon = f64::from(self.recipe.epsilon) * old as f64 / hidden as f64;
            self.put(&mut raw, self.family.definition().epsilon, epsilon.into());
        }
        Config::from_raw(raw)
    }

    /// A config of the model whose head is its own and not the embedding.
    ///
    /// # Errors
    /// Those of reading a config.
    pub fn with_own_head(&self) -> Result<Self> {
        let mut raw = self.raw.clone();
        raw.insert("tie_word_embeddings".into(), false.into());
        Config::from_raw(raw)
    }

    /// A config of some entries of the vocabulary, by their numbers before, in their order; tokens that it names have the new numbers, and those that
    /// went have none.
    ///
    /// # Errors
    /// If no entry is named, or one does not exist.
    pub fn with_vocabulary(&self, kept: &[usize]) -> Result<Self> {
        if let Some(wrong) = kept.iter().find(|n| **n >= self.vocab()) {
            return Err(Error::invalid_option("vocabulary", format!("entry {wrong} of {}", self.vocab())));
        }
        let new: HashMap<usize, usize> = kept.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let mut raw = self.raw.clone();
        raw.insert("vocab_size".into(), kept.len().into());
        let number = |value: &Value| value.as_u64().and_then(|n| new.get(&(n as usize))).map_or(Value::Null, |n| (*n).into());
        for key in IDS {
            match raw.get(key) {
                Some(Value::Array(list)) => {
                    let stay = list.iter().map(number).filter(|n| !n.is_null()).collect();
                    raw.insert(key.into(), stay);
                }
                Some(value) if !value.is_null() => {
                    let value = number(value);
                    raw.insert(key.into(), value);
                }
                _ => {}
            }
        }
        Config::from_raw(raw)
    }

    /// The numbers of the tokens that the config names, as far as they are in the vocabulary.
    pub fn named_tokens(&self) -> Vec<usize> {
        let all = IDS.into_iter().flat_map(|key| Keys(&self.raw).ids(key).unwrap_or_default());
        all.map(|id| id as usize).filter(|id| *id < self.vocab()).collect()
    }

    /// Puts a value under a key, and under the general name of it, where that is there.
    fn put(&self, raw: &mut Map<String, Value>, key: &str, value: Value) {
        for (general, own) in self.family.definition().general_names {
            if *own == key && raw.contains_key(*general) {
                raw.insert(general.to_string(), value.clone());
            }
        }
        raw.insert(key.into(), value);
    }

    /// How many experts blocks have, and how many of them a token meets; none where no block has experts.
    pub fn experts(&self) -> Option<(usize, usize)> {
        let mut all = self.recipe.layers.iter().filter_map(|layer| layer.experts);
        all.next().map(|experts| (experts.count, experts.active))
    }

    /// A config of so many experts a block, of which a token meets `active`.
    ///
    /// # Errors
    /// If no block has experts, there would be more than there were, or a token would meet none or more than there are.
    pub fn with_experts(&self, count: usize, active: usize) -> Result<Self> {
        let (Some((before, _)), Some([of_count, of_active])) = (self.experts(), self.family.definition().experts) else {
            return Err(Error::invalid_option("experts", format!("a {} has none", self.family)));
        };
        if count == 0 || count > before {
            let nearest = count.clamp(1, before);
            return Err(Error::invalid_option(
                "experts",
                format!("{count} of {before} cannot stay; the nearest possible value is {nearest}"),
            ));
        }
        if active == 0 || active > count {
            return Err(Error::invalid_option("active-experts", format!("a token cannot meet {active} of {count} experts")));
        }
        let mut raw = self.raw.clone();
        self.put(&mut raw, of_count, count.into());
        self.put(&mut raw, of_active, active.into());
        Config::from_raw(raw)
    }

    /// Why heads cannot go, if they cannot.
    pub(crate) fn heads_stay(&self) -> Option<&'static str> {
        self.recipe.alibi.then_some("slopes of scores follow from the number of heads")
    }

    /// Why no block can be without its attention or without its feed-forward layers, if it cannot.
    pub(crate) fn sublayers_stay(&self) -> Option<&'static str> {
        match self.recipe.kind {
            ModelKind::EncoderDecoder => Some("an encoder-decoder has none that can go"),
            _ if self.recipe.residual == Residual::NormAfterSum => {
                Some("norms stand behind sums, which a block without it would still take")
            }
            _ => None,
        }
    }

    /// Whether experts stand in the place of a block's feed-forward layers.
    pub(crate) fn mixes(&self, block: usize) -> bool {
        self.recipe.experts(block).is_some()
    }

    /// Whether norms of queries and keys are over all heads of a block together.
    pub(crate) fn norms_all_heads(&self) -> bool {
        self.recipe.query_key == Some(QueryKeyNorm::All)
    }

    /// A config of some of the blocks, in their order; per-block lists of the config follow.
    ///
    /// # Errors
    /// If a block does not exist or none is named; for an encoder-decoder.
    pub fn with_blocks(&self, blocks: &[usize]) -> Result<Self> {
        let n = self.layers();
        let Some(key) = self.family.definition().depth else {
            return Err(Error::invalid_option("blocks", "of an encoder-decoder cannot be left out"));
        };
        if blocks.is_empty() || blocks.iter().any(|&b| b >= n) {
            return Err(Error::invalid_option("blocks", format!("{blocks:?} are not some of {n}")));
        }
        let key_of_number = "scale_attn_by_inverse_layer_idx";
        if self.raw.get(key_of_number).and_then(Value::as_bool) == Some(true) && blocks.iter().enumerate().any(|(i, &b)| i != b) {
            let reason = format!("{blocks:?} change the numbers of blocks, by which {key_of_number} scales");
            return Err(Error::invalid_option("blocks", reason));
        }
        let mut raw = self.raw.clone();
        raw.insert(key.into(), blocks.len().into());
        for list in [LAYER_WIDTHS, BlockList::Windows.key(), BlockList::Rotary.key()] {
            if let Some(values) = self.raw.get(list).and_then(Value::as_array).filter(|l| l.len() == n) {
                raw.insert(list.into(), blocks.iter().map(|&b| values[b].clone()).collect());
            }
        }
        // What goes by the number of a block would go otherwise after: lists write it out.
        let layers = &self.recipe.layers;
        for list in self.family.definition().lists {
            if *list == BlockList::Dense {
                let dense = blocks.iter().enumerate().filter(|(_, b)| layers[**b].experts.is_none());
                raw.insert(list.key().into(), dense.map(|(i, _)| Value::from(i)).collect());
                raw.insert("decoder_sparse_step".into(), 1.into());
                continue;
            }
            let here = Keys(&raw).get(list.key()).is_some();
            let entry = |&b: &usize| match list {
                BlockList::Windows if layers[b].rule.window.is_some() => Value::from("sliding_attention"),
                BlockList::Windows => "full_attention".into(),
                BlockList::Dense => Value::Null,
                BlockList::Rotary => u8::from(layers[b].rotary.is_some()).into(),
            };
            let differs = |list: &BlockList| match list {
                BlockList::Windows => layers.iter().any(|layer| layer.rule.window.is_some()),
                BlockList::Dense => false,
                BlockList::Rotary => layers.iter().any(|layer| layer.rotary.is_none()),
            };
            if !here && differs(list) {
                raw.insert(list.key().into(), blocks.iter().map(entry).collect());
            }
        }
        Config::from_raw(raw)
    }

    pub(super) fn recipe(&self) -> &Architecture {
        &self.recipe
    }
}

/// The config with the family's own names in the place of general ones; none if there are no such.
fn own_names(raw: &Map<String, Value>, family: Family) -> Result<Option<Map<String, Value>>> {
    let mut own = None;
    for (general, name) in family.definition().general_names {
        let Some(value) = Keys(raw).get(general) else { continue };
        match Keys(raw).get(name) {
            Some(other) if other != value => {
                let [a, b] = [other, value].map(|v| crate::io::one_line(&v.to_string(), 40));
                return Err(setting(name, format!("is {a}, and {general}, which is the same, is {b}")));
            }
            Some(_) => {}
            None => drop(own.get_or_insert_with(|| raw.clone()).insert(name.to_string(), value.clone())),
        }
    }
    Ok(own)
}
