//! A tokenizer with fewer entries.
//!
//! Of a byte pair encoding (Sennrich, Haddow, Birch, ACL 2016, arXiv:1508.07909) an entry can only be reached by the merge that makes it, so that its two
//! parts stay as long as it does. Entries that are part of no other leave one after another, each time that which a text uses least; what the text
//! used it for falls to its two parts. Entries of single bytes and those that were added (special tokens) always stay: every text has tokens, and
//! they give the text back.

use crate::io::gguf::merge_sides;
use crate::io::quoted;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A `tokenizer.json` with fewer entries.
#[derive(Debug, Clone, PartialEq)]
pub struct TrimmedTokenizer {
    /// `tokenizer.json`, of the entries that stay, which are numbered anew in the order that they had.
    pub json: Value,
    /// The numbers before of the entries that stay, ascending: entry i was `kept[i]`.
    pub kept: Vec<usize>,
}

/// Characters of a model that stands for bytes by characters of its own (GPT-2's): one a byte.
fn byte_characters() -> impl Iterator<Item = String> {
    let shown = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let hidden = (0..256u32).filter(move |&b| !shown(b)).count() as u32;
    (0..256u32).filter(move |&b| shown(b)).chain(256..256 + hidden).filter_map(char::from_u32).map(String::from)
}

/// Whether a pre-tokenizer or decoder is or holds one of a type.
fn holds(value: &Value, kind: &str) -> bool {
    let lists = ["pretokenizers", "decoders", "processors", "normalizers"];
    value["type"] == kind || lists.iter().filter_map(|list| value[*list].as_array()).flatten().any(|part| holds(part, kind))
}

/// The numbers of the vocabulary, its merges, and the entries that cannot go.
struct Entries {
    numbers: HashMap<String, usize>,
    /// Of each entry the two parts by which it is made, if it is.
    parts: HashMap<usize, (usize, usize)>,
    /// All merges, as the file has them, with both parts and what they make.
    merges: Vec<(Value, [usize; 3])>,
    fixed: Vec<usize>,
}

impl Entries {
    fn of(json: &Value, also: &[usize]) -> Result<Entries> {
        let refuse = |reason: String| Error::invalid_option("vocabulary", format!("tokenizer.json cannot be trimmed: {reason}"));
        let model = &json["model"];
        let kind = model["type"].as_str().unwrap_or("BPE");
        let (Some(vocab), Some(merges), "BPE") = (model["vocab"].as_object(), model["merges"].as_array(), kind) else {
            return Err(refuse(format!("a model of type {} has no merges; BPE has", quoted(kind))));
        };
        if let Some(key) = ["continuing_subword_prefix", "end_of_word_suffix"]
            .iter()
            .find(|k| model[**k].as_str().is_some_and(|s| !s.is_empty()))
        {
            return Err(refuse(format!("{key} is {}, by which parts are not those of the merges", model[*key])));
        }
        let mut numbers = HashMap::new();
        for (entry, number) in vocab {
            let number = number.as_u64().ok_or_else(|| refuse(format!("entry {} has no number", quoted(entry))))?;
            numbers.insert(entry.clone(), number as usize);
        }
        let mut fixed: Vec<usize> = also.to_vec();
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let (Some(content), Some(id)) = (added["content"].as_str(), added["id"].as_u64()) else {
                return Err(refuse("an added token has no content or no id".into()));
            };
            numbers.insert(content.to_string(), id as usize);
            fixed.push(id as usize);
        }
        let fallback = model["byte_fallback"] == true;
        let bytes: Vec<String> = match fallback {
            true => (0..256).map(|b| format!("<0x{b:02X}>")).chain(["\u{2581}".to_string()]).collect(),
            false if holds(&json["pre_tokenizer"], "ByteLevel") || holds(&json["decoder"], "ByteLevel") => {
                byte_characters().collect()
            }
            false => return Err(refuse("it falls back to no bytes, so that texts would be lost".into())),
        };
        fixed.extend(bytes.iter().chain(model["unk_token"].as_str().map(String::from).iter()).filter_map(|b| numbers.get(b)));
        fixed.sort_unstable();
        fixed.dedup();
        let (mut parts, mut all) = (HashMap::new(), Vec::with_capacity(merges.len()));
        for (i, merge) in merges.iter().enumerate() {
            let found = merge_sides(merge)
                .and_then(|(a, b)| Some([*numbers.get(a)?, *numbers.get(b)?, *numbers.get(&format!("{a}{b}"))?]));
            let found = found.ok_or_else(|| refuse(format!("merge {i} is not two entries that make one of the vocabulary")))?;
            parts.entry(found[2]).or_insert((found[0], found[1]));
            all.push((merge.clone(), found));
        }
        Ok(Entries { numbers, parts, merges: all, fixed })
    }

    /// The entries that stay, ascending.
    fn choose(&self, counts: &[u64], keep: usize) -> Result<Vec<usize>> {
        let mut inside: HashMap<usize, u64> = self.numbers.values().map(|&n| (n, counts.get(n).copied().unwrap_or(0))).collect();
        let least = self.fixed.iter().filter(|n| inside.contains_key(n)).count();
        if keep < least || keep > inside.len() {
            let (all, nearest) = (inside.len(), keep.clamp(least, inside.len()));
            let reason = format!(
                "{keep} of {all} entries cannot stay: {least} of them are bytes, special tokens or named by the config; the nearest possible value is {nearest}"
            );
            return Err(Error::invalid_option("vocabulary", reason));
        }
        // How many entries that are there an entry is a part of.
        let mut users: HashMap<usize, usize> = HashMap::new();
        self.parts.values().flat_map(|(a, b)| [*a, *b]).for_each(|p| *users.entry(p).or_default() += 1);
        let is_fixed = |n: usize| self.fixed.binary_search(&n).is_ok();
        let free = |users: &HashMap<usize, usize>, n: usize| users.get(&n).is_none_or(|u| *u == 0) && !is_fixed(n);
        let mut leaves: BinaryHeap<Reverse<(u64, Reverse<usize>)>> =
            inside.iter().filter(|(n, _)| free(&users, **n)).map(|(n, count)| Reverse((*count, Reverse(*n)))).collect();
        while inside.len() > keep {
            let Some(Reverse((count, Reverse(entry)))) = leaves.pop() else {
                let reason = format!("{keep} entries cannot stay: {} are parts of those that must", inside.len());
                return Err(Error::invalid_option("vocabulary", reason));
            };
            // What was counted since stands in the heap again.
            if inside.get(&entry) != Some(&count) {
                continue;
            }
            inside.remove(&entry);
            let Some(&(a, b)) = self.parts.get(&entry) else { continue };
            for part in [a, b] {
                if let Some(left) = users.get_mut(&part) {
                    *left -= 1;
                }
                if let Some(uses) = inside.get_mut(&part) {
                    *uses += count;
                    if free(&users, part) {
                        leaves.push(Reverse((*uses, Reverse(part))));
                    }
                }
            }
        }
        let mut kept: Vec<usize> = inside.into_keys().collect();
        kept.sort_unstable();
        Ok(kept)
    }
}

impl TrimmedTokenizer {
    /// Keeps `keep` entries of a `tokenizer.json`: single bytes, added tokens, those in `also`, and of the others those that a text uses most, of which
    /// `counts` has how often it uses each, by their numbers.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the tokenizer is no byte pair encoding that falls back to bytes, or as many cannot stay, with the nearest number
    /// that can.
    pub fn new(json: &Value, counts: &[u64], keep: usize, also: &[usize]) -> Result<TrimmedTokenizer> {
        let entries = Entries::of(json, also)?;
        let kept = entries.choose(counts, keep)?;
        let new: HashMap<usize, usize> = kept.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let mut json = json.clone();
        let vocab: Map<String, Value> = json["model"]["vocab"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(entry, n)| Some((entry.clone(), (*new.get(&(n.as_u64()? as usize))?).into())))
            .collect();
        json["model"]["vocab"] = Value::Object(vocab);
        let merges = entries.merges.into_iter().filter(|(_, all)| all.iter().all(|n| new.contains_key(n)));
        json["model"]["merges"] = merges.map(|(merge, _)| merge).collect();
        for added in json.get_mut("added_tokens").and_then(Value::as_array_mut).into_iter().flatten() {
            renumber(&mut added["id"], &new);
        }
        json.get_mut("post_processor").into_iter().for_each(|value| processor(value, &new));
        Ok(TrimmedTokenizer { json, kept })
    }

    /// `tokenizer_config.json` with the new numbers.
    pub fn settings(&self, settings: &Value) -> Value {
        let (mut settings, new) = (settings.clone(), self.numbers());
        if let Some(added) = settings["added_tokens_decoder"].as_object() {
            let renumbered = |(id, token): (&String, &Value)| Some((new.get(&id.parse().ok()?)?.to_string(), token.clone()));
            settings["added_tokens_decoder"] = Value::Object(added.iter().filter_map(renumbered).collect());
        }
        settings
    }

    /// `generation_config.json` with the new numbers; of lists of tokens those that stay.
    pub fn generation(&self, generation: &Value) -> Value {
        let (mut generation, new) = (generation.clone(), self.numbers());
        for (key, value) in generation.as_object_mut().into_iter().flatten() {
            let lists = ["suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "forced_decoder_ids"];
            if key.ends_with("_token_id") || lists.contains(&key.as_str()) {
                renumber(value, &new);
            }
        }
        generation
    }

    fn numbers(&self) -> HashMap<usize, usize> {
        self.kept.iter().enumerate().map(|(new, old)| (*old, new)).collect()
    }
}

/// Gives a number, or the numbers of a list, those that they have now; entries of lists that went go.
fn renumber(value: &mut Value, new: &HashMap<usize, usize>) {
    let of = |n: &Value| n.as_u64().map(|n| new.get(&(n as usize)).copied());
    match value {
        Value::Array(list) => {
            list.retain(|n| of(n) != Some(None));
            list.iter_mut().for_each(|n| renumber(n, new));
        }
        number => {
            if let Some(found) = of(number) {
                *number = found.map_or(Value::Null, Value::from);
            }
        }
    }
}

/// A post-processor names tokens with their numbers.
fn processor(value: &mut Value, new: &HashMap<usize, usize>) {
    // What is not there is not put there.
    for part in value.get_mut("processors").and_then(Value::as_array_mut).into_iter().flatten() {
        processor(part, new);
    }
    for (_, token) in value.get_mut("special_tokens").and_then(Value::as_object_mut).into_iter().flatten() {
        token.get_mut("ids").into_iter().for_each(|ids| renumber(ids, new));
    }
    for key in ["sep", "cls"] {
        if let Some([content, number]) = value[key].as_array().map(Vec::as_slice) {
            let mut number = number.clone();
            renumber(&mut number, new);
            value[key] = json!([content, number]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{TrimmedTokenizer, byte_characters};
    use serde_json::{Map, Value, json};

    /// Bytes, "ab", "abc", "cd", and two that were added.
    fn tokenizer() -> Value {
        let mut vocab = Map::new();
        vocab.insert("<s>".into(), 0.into());
        byte_characters().for_each(|c| drop(vocab.insert(c, (vocab.len()).into())));
        for entry in ["ab", "abc", "cd"] {
            vocab.insert(entry.into(), vocab.len().into());
        }
        let (s, end) =
            (json!({"id": 0, "content": "<s>", "special": true}), json!({"id": 260, "content": "<e>", "special": true}));
        json!({
            "added_tokens": [s, end], "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
            "post_processor": {"type": "TemplateProcessing", "special_tokens": {"<e>": {"id": "<e>", "ids": [260], "tokens": ["<e>"]}}},
            "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", ["ab", "c"], "c d"]},
        })
    }

    #[test]
    fn a_byte_has_one_character() {
        let mut all: Vec<String> = byte_characters().collect();
        assert_eq!((all.len(), &all[0], &all[255]), (256, &"!".to_string(), &"\u{143}".to_string()));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn an_entry_goes_before_its_parts_and_what_it_was_used_for_falls_to_them() {
        // "abc" was used, "ab" and "cd" never but for it.
        let mut counts = vec![0; 261];
        counts[258] = 5;
        let of = |keep| TrimmedTokenizer::new(&tokenizer(), &counts, keep, &[]).unwrap();
        let left = |t: &TrimmedTokenizer| t.json["model"]["merges"].clone();
        assert_eq!(left(&of(260)), json!(["a b", ["ab", "c"]]));
        assert_eq!(left(&of(259)), json!(["a b"]));
        let none = of(258);
        assert_eq!(left(&none), json!([]));
        // What stands behind entries that went has another number.
        assert_eq!((none.kept.len(), none.kept[257]), (258, 260));
        assert_eq!(none.json["added_tokens"][1]["id"], 257);
        assert_eq!(none.json["post_processor"]["special_tokens"]["<e>"]["ids"], json!([257]));
        let mut bare = tokenizer();
        bare.as_object_mut().unwrap().remove("post_processor");
        assert!(TrimmedTokenizer::new(&bare, &counts, 258, &[]).unwrap().json.get("post_processor").is_none());
        assert_eq!(none.json["post_processor"].as_object().unwrap().len(), 2, "no keys that were not there");
        let settings = none.settings(&json!({"added_tokens_decoder": {"0": "a", "260": "b", "259": "c"}}));
        assert_eq!(settings["added_tokens_decoder"], json!({"0": "a", "257": "b"}));
        let generation = none.generation(&json!({"eos_token_id": [260, 259], "bos_token_id": 0, "top_k": 260}));
        assert_eq!(generation, json!({"eos_token_id": [257], "bos_token_id": 0, "top_k": 260}));
    }

    #[test]
    fn numbers_that_cannot_be_and_tokenizers_without_merges_are_refused() {
        let line = |json: &Value, keep| TrimmedTokenizer::new(json, &[], keep, &[257]).unwrap_err().to_string();
        assert!(line(&tokenizer(), 3).contains("3 of 261 entries cannot stay: 259 of them"), "{}", line(&tokenizer(), 3));
        assert!(line(&tokenizer(), 262).contains("the nearest possible value is 261"));
        let mut other = tokenizer();
        other["model"]["type"] = "Unigram".into();
        assert!(line(&other, 260).contains("has no merges"));
        let mut other = tokenizer();
        (other["pre_tokenizer"], other["decoder"]) = (Value::Null, Value::Null);
        assert!(line(&other, 260).contains("falls back to no bytes"));
        let mut other = tokenizer();
        other["model"]["merges"] = json!(["a x1"]);
        assert!(line(&other, 260).contains("merge 0 is not two entries"));
    }
}
