//! The tokenizer of a folder as keys of a GGUF file: the way back of [`tokenizer`](super::tokenizer).

use super::tokenizer::{cut_name, kind};
use super::write::KeyBytes;
use crate::io::quoted;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The files of a folder's tokenizer, and its `config.json`.
pub(super) struct Files<'a> {
    pub tokenizer: &'a Map<String, Value>,
    pub settings: &'a Map<String, Value>,
    /// The chat template, wherever the folder has it.
    pub chat: Option<&'a str>,
    pub config: &'a Map<String, Value>,
}

fn refuse(reason: String) -> Error {
    Error::invalid_option("export", format!("tokenizer.json {reason}"))
}

/// Tokens that no merge makes: they never win against one that a merge makes.
const NO_MERGE: f32 = -1e6;

impl Files<'_> {
    /// Writes the keys; tokens that the model has beyond those of the tokenizer are named so and not used.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the tokenizer is no byte-level or SentencePiece BPE, cuts text in a way that the format has no name for, or has
    /// more tokens than the model.
    pub fn write(&self, vocab: usize, to: &mut KeyBytes) -> Result<()> {
        let model = self.tokenizer.get("model").and_then(Value::as_object).ok_or_else(|| refuse("has no model".to_string()))?;
        let of = model.get("type").and_then(Value::as_str).unwrap_or("");
        if of != "BPE" {
            return Err(refuse(format!("holds a {}; BPE is written", quoted(of))));
        }
        let pieces = model.get("byte_fallback").and_then(Value::as_bool) == Some(true);
        let mut texts: Vec<Option<String>> = vec![None; vocab];
        let mut kinds = vec![kind::UNUSED as i32; vocab];
        let put = |texts: &mut Vec<Option<String>>, kinds: &mut [i32], id: Option<u64>, text: &str, kind: i64| {
            let id = id.unwrap_or(u64::MAX) as usize;
            if id >= vocab {
                return Err(refuse(format!("has the token {} with number {id}; the model has {vocab}", quoted(text))));
            }
            texts[id] = Some(text.to_string());
            kinds[id] = kind as i32;
            Ok(())
        };
        let vocabulary = model.get("vocab").and_then(Value::as_object).ok_or_else(|| refuse("has no vocabulary".to_string()))?;
        let unknown = model.get("unk_token").and_then(Value::as_str);
        for (text, id) in vocabulary {
            let is_byte = pieces && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            let kind = match () {
                _ if pieces && unknown == Some(text.as_str()) => kind::UNKNOWN,
                _ if is_byte => kind::BYTE,
                _ => kind::NORMAL,
            };
            put(&mut texts, &mut kinds, id.as_u64(), text, kind)?;
        }
        for added in self.tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            let text = added.get("content").and_then(Value::as_str).unwrap_or("");
            let id = added.get("id").and_then(Value::as_u64);
            let is_unknown = pieces && unknown == Some(text);
            let special = added.get("special").and_then(Value::as_bool) == Some(true);
            put(
                &mut texts,
                &mut kinds,
                id,
                text,
                if is_unknown {
                    kind::UNKNOWN
                } else if special {
                    kind::CONTROL
                } else {
                    kind::USER
                },
            )?;
        }
        let named = |(id, text): (usize, Option<String>)| text.unwrap_or_else(|| format!("[PAD{id}]"));
        let texts: Vec<String> = texts.into_iter().enumerate().map(named).collect();
        let merges = merges(model)?;
        to.text("tokenizer.ggml.model", if pieces { "llama" } else { "gpt2" });
        if !pieces {
            let cut = self.tokenizer.get("pre_tokenizer").unwrap_or(&Value::Null);
            let begins = model.get("ignore_merges").and_then(Value::as_bool) == Some(true);
            let name = cut_name(cut, begins).ok_or_else(|| {
                refuse("cuts text before it is merged in a way that llama.cpp has no name for here (pre_tokenizer)".to_string())
            })?;
            to.text("tokenizer.ggml.pre", name);
        }
        to.texts("tokenizer.ggml.tokens", &texts);
        to.ints("tokenizer.ggml.token_type", &kinds);
        if pieces {
            let rank: HashMap<String, usize> =
                merges.iter().enumerate().rev().map(|(rank, (a, b))| (format!("{a}{b}"), rank)).collect();
            let score = |text: &String| rank.get(text).map_or(NO_MERGE, |rank| -(*rank as f32));
            to.floats("tokenizer.ggml.scores", &texts.iter().map(score).collect::<Vec<_>>());
            to.flag("tokenizer.ggml.add_space_prefix", self.prepends());
        } else {
            to.texts("tokenizer.ggml.merges", &merges.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>());
        }
        self.specials(&texts, to);
        Ok(())
    }

    /// Whether a text begins with the mark of a space.
    fn prepends(&self) -> bool {
        let has = |value: &Value| value.get("type").and_then(Value::as_str) == Some("Prepend");
        let normalizer = self.tokenizer.get("normalizer");
        let among = |key: &str| {
            let list = self.tokenizer.get(key).and_then(|n| n.get("normalizers")).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(has))
        };
        let cut = self.tokenizer.get("pre_tokenizer");
        let scheme = |cut: &Value| {
            cut.get("type").and_then(Value::as_str) == Some("Metaspace")
                && !matches!(cut.get("prepend_scheme").and_then(Value::as_str), Some("never"))
        };
        normalizer.is_some_and(has) || among("normalizer") || cut.is_some_and(scheme)
    }

    /// What begins, ends and fills a text.
    fn specials(&self, texts: &[String], to: &mut KeyBytes) {
        let number = |text: &str| texts.iter().position(|t| t == text);
        let setting = |name: &str| {
            let value = self.settings.get(name)?;
            value.as_str().or_else(|| value.get("content")?.as_str())
        };
        let from_config = |name: &str| match self.config.get(name) {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).map(|id| id as usize).collect(),
            Some(id) => id.as_u64().map(|id| id as usize).into_iter().collect(),
            None => Vec::new(),
        };
        let mut ids = |keys: &[&str], name: &str, token: &str| {
            let mut found: Vec<usize> = from_config(name);
            if found.is_empty() {
                found.extend(setting(token).and_then(number));
            }
            for (key, id) in keys.iter().zip(found.iter().filter(|id| **id < texts.len())) {
                to.count(&format!("tokenizer.ggml.{key}_token_id"), *id as u32);
            }
            found.first().copied()
        };
        let bos = ids(&["bos"], "bos_token_id", "bos_token");
        let eos = ids(&["eos", "eot", "eom"], "eos_token_id", "eos_token");
        ids(&["padding"], "pad_token_id", "pad_token");
        ids(&["unknown"], "unk_token_id", "unk_token");
        let around = self.around();
        let is = |id: Option<usize>, text: Option<&String>| text.is_some() && id.and_then(|id| texts.get(id)) == text;
        to.flag("tokenizer.ggml.add_bos_token", is(bos, around.first()));
        to.flag("tokenizer.ggml.add_eos_token", is(eos, around.last()));
        if let Some(template) = self.chat {
            to.text("tokenizer.chat_template", template);
        }
    }

    /// The token before a text and that behind it, each empty if there is none.
    fn around(&self) -> Vec<String> {
        let post = self.tokenizer.get("post_processor");
        let parts = |post: &Value| match post.get("type").and_then(Value::as_str) {
            Some("Sequence") => {
                post.get("processors").and_then(Value::as_array).and_then(|all| all.iter().find_map(|p| p.get("single")).cloned())
            }
            _ => post.get("single").cloned(),
        };
        let single = post.and_then(parts);
        let list = single.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        let token = |part: Option<&Value>| {
            let id = part.and_then(|part| part.get("SpecialToken")).and_then(|token| token.get("id"));
            id.and_then(Value::as_str).unwrap_or("").to_string()
        };
        vec![token(list.first()), token(list.last())]
    }
}

/// The merges, in their order.
fn merges(model: &Map<String, Value>) -> Result<Vec<(String, String)>> {
    let list = model.get("merges").and_then(Value::as_array).ok_or_else(|| refuse("has no merges".to_string()))?;
    let read = |(i, merge): (usize, &Value)| match merge_sides(merge) {
        Some((a, b)) => Ok((a.to_string(), b.to_string())),
        None => Err(refuse(format!("has merge {i}, which is no pair of tokens"))),
    };
    list.iter().enumerate().map(read).collect()
}

/// Both parts of a merge of a `tokenizer.json`, of either form that files have.
pub(crate) fn merge_sides(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(pair) => match pair.as_slice() {
            [a, b] => Some((a.as_str()?, b.as_str()?)),
            _ => None,
        },
        _ => None,
    }
}
