//! The tokenizer inside a GGUF file as the `tokenizer.json` of the `tokenizers` library.
//!
//! Two kinds are read. `gpt2` is byte-level BPE: the file has the tokens and the merges, and names its pre-tokenizer, which cuts
//! the text first. `llama` is SentencePiece's BPE: the file has tokens and scores, and merges are made of them: whatever two
//! tokens together are a third, the best score first.

use super::Gguf;
use crate::io::quoted;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// How text is cut before it is merged, by the names of llama.cpp.
const CUTS: [(&[&str], Cut); 6] = [
    (&["gpt-2", "gpt2", "phi-2", "olmo", "mpt", "default", ""], Cut::Words),
    (&["smollm", "starcoder", "refact", "codeshell", "command-r"], Cut::DigitsThenWords),
    (
        &["llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe"],
        Cut::Pattern(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
    (
        &["qwen2", "stablelm2"],
        Cut::Pattern(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
    (
        &["tekken"],
        Cut::Pattern(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
    (
        &["gpt-4o", "llama4"],
        Cut::Pattern(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
];

#[derive(Clone, Copy)]
enum Cut {
    /// GPT-2's: words with the space before them, numbers, punctuation.
    Words,
    /// Every digit alone, then GPT-2's.
    DigitsThenWords,
    /// By an expression.
    Pattern(&'static str),
}

impl Cut {
    fn json(self) -> Value {
        let bytes =
            |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        match self {
            Cut::Words => bytes(true),
            Cut::DigitsThenWords => {
                json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes(true)]})
            }
            Cut::Pattern(regex) => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}, bytes(false),
            ]}),
        }
    }
}

/// What the format says of a token.
pub(super) mod kind {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER: i64 = 4;
    pub const UNUSED: i64 = 5;
    pub const BYTE: i64 = 6;
}

/// The name of how a pre-tokenizer cuts text, if it is one of those that are known; `whole` says whether a word that is a token is never merged, by
/// which two that cut alike are told apart.
pub(super) fn cut_name(pre: &Value, whole: bool) -> Option<&'static str> {
    let regex = |pre: &Value| {
        let parts = pre.get("pretokenizers")?.as_array()?;
        let split = parts.iter().find(|part| part["type"] == "Split")?;
        Some(split["pattern"]["Regex"].as_str()?.to_string())
    };
    let found = regex(pre);
    let digits = pre
        .get("pretokenizers")
        .and_then(Value::as_array)
        .is_some_and(|parts| parts.iter().any(|part| part["type"] == "Digits" && part["individual_digits"] == true));
    let words = |pre: &Value| pre["type"] == "ByteLevel" && pre["use_regex"] != false && pre["add_prefix_space"] != true;
    let listed = pre.get("pretokenizers").and_then(Value::as_array);
    let is = |cut: &Cut| match cut {
        Cut::Words => words(pre),
        Cut::DigitsThenWords => digits && listed.is_some_and(|parts| parts.len() == 2 && parts.iter().any(words)),
        Cut::Pattern(known) => found.as_deref() == Some(known),
    };
    let name = CUTS.iter().find(|(_, cut)| is(cut)).map(|(names, _)| names[0])?;
    Some(if name == "llama-bpe" && !whole { "smaug-bpe" } else { name })
}

/// The word mark of SentencePiece, which stands for a space.
const MARK: char = '▁';

/// The files of a tokenizer: `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.
pub(super) struct Tokenizer {
    pub tokenizer: Value,
    pub config: Value,
    pub special: Value,
}

/// What both kinds have.
struct Tokens<'a> {
    file: &'a Gguf,
    texts: &'a [String],
    kinds: Vec<i64>,
}

/// The tokenizer of a file, `None` if it has none.
pub(super) fn tokenizer(file: &Gguf) -> Result<Option<Tokenizer>> {
    let Some(model) = file.text_or("tokenizer.ggml.model")? else { return Ok(None) };
    let texts = file.must("tokenizer.ggml.tokens", file.texts_or("tokenizer.ggml.tokens")?)?;
    let kinds = match file.ints_or("tokenizer.ggml.token_type")? {
        Some(kinds) if kinds.len() != texts.len() => {
            let (kinds, texts) = (kinds.len(), texts.len());
            return Err(Error::malformed(
                file.path(),
                format!("{texts} tokens, but 'tokenizer.ggml.token_type' has {kinds} entries"),
            ));
        }
        Some(kinds) => kinds.to_vec(),
        None => vec![kind::NORMAL; texts.len()],
    };
    let tokens = Tokens { file, texts, kinds };
    let made = match model {
        "gpt2" => byte_level(&tokens)?,
        "llama" => sentence_piece(&tokens)?,
        other => {
            let reason = format!("'tokenizer.ggml.model' is {}; gpt2 and llama are read", quoted(other));
            return Err(Error::malformed(file.path(), reason));
        }
    };
    Ok(Some(made))
}

impl Tokens<'_> {
    /// The tokens with their numbers; of equal texts the first counts.
    fn vocabulary(&self) -> Map<String, Value> {
        let mut vocabulary = Map::new();
        for (id, text) in self.texts.iter().enumerate() {
            vocabulary.entry(text.clone()).or_insert_with(|| json!(id));
        }
        vocabulary
    }

    /// Tokens that stand for themselves in the text, and are not made by merging.
    fn added(&self) -> Vec<Value> {
        let listed = |id: usize| {
            json!({
                "id": id, "content": self.texts[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": self.kinds[id] == kind::CONTROL,
            })
        };
        let is_added = |id: &usize| match self.kinds[*id] {
            kind::CONTROL => true,
            kind::USER => !self.texts[*id].contains(MARK),
            _ => false,
        };
        (0..self.texts.len()).filter(is_added).map(listed).collect()
    }

    /// The token that a key names by its number.
    fn named(&self, key: &str) -> Result<Option<(usize, &str)>> {
        let key = format!("tokenizer.ggml.{key}_token_id");
        let Some(id) = self.file.count_or(&key)? else { return Ok(None) };
        match self.texts.get(id) {
            Some(text) => Ok(Some((id, text))),
            None => {
                let reason = format!("{} is {id}, but there are {} tokens", quoted(&key), self.texts.len());
                Err(Error::malformed(self.file.path(), reason))
            }
        }
    }

    /// What puts the first and last token around a text, if anything does.
    fn template(&self, begins: bool, ends: bool) -> Result<Option<Value>> {
        let flag = |key: &str, otherwise| Ok::<_, Error>(self.file.flag_or(key)?.unwrap_or(otherwise));
        let bos = self.named("bos")?.filter(|_| begins);
        let eos = if flag("tokenizer.ggml.add_eos_token", ends)? { self.named("eos")? } else { None };
        if bos.is_none() && eos.is_none() {
            return Ok(None);
        }
        let token =
            |t: Option<(usize, &str)>, kind: usize| t.map(|(_, text)| json!({"SpecialToken": {"id": text, "type_id": kind}}));
        let part = |name: &str, kind: usize| {
            let text = json!({"Sequence": {"id": name, "type_id": kind}});
            [token(bos, kind), Some(text), token(eos, kind)].into_iter().flatten().collect::<Vec<_>>()
        };
        let special: Map<String, Value> = [bos, eos]
            .into_iter()
            .flatten()
            .map(|(id, text)| (text.to_string(), json!({"id": text, "ids": [id], "tokens": [text]})))
            .collect();
        let pair = [part("A", 0), part("B", 1)].concat();
        Ok(Some(json!({"type": "TemplateProcessing", "single": part("A", 0), "pair": pair, "special_tokens": special})))
    }

    /// The three files around this model.
    fn files(&self, model: Value, normalizer: Value, cut: Value, post: Value, decoder: Value, begins: bool) -> Result<Tokenizer> {
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added(), "normalizer": normalizer,
            "pre_tokenizer": cut, "post_processor": post, "decoder": decoder, "model": model,
        });
        let mut special = Map::new();
        for (key, name) in [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")] {
            if let Some((_, text)) = self.named(key)? {
                special.insert(name.to_string(), json!(text));
            }
        }
        let mut config = special.clone();
        config.insert("tokenizer_class".to_string(), json!("PreTrainedTokenizerFast"));
        config.insert("clean_up_tokenization_spaces".to_string(), json!(false));
        config.insert("add_bos_token".to_string(), json!(begins));
        // What a decoder reads: without this the library makes token_type_ids besides, which its own models refuse.
        config.insert("model_input_names".to_string(), json!(["input_ids", "attention_mask"]));
        if let Some(template) = self.file.text_or("tokenizer.chat_template")? {
            config.insert("chat_template".to_string(), json!(template));
        }
        Ok(Tokenizer { tokenizer, config: Value::Object(config), special: Value::Object(special) })
    }
}

fn byte_level(tokens: &Tokens<'_>) -> Result<Tokenizer> {
    let file = tokens.file;
    let refuse = |reason: String| Error::malformed(file.path(), reason);
    let pre = file.text_or("tokenizer.ggml.pre")?.unwrap_or("default");
    let Some((_, cut)) = CUTS.iter().find(|(names, _)| names.contains(&pre)) else {
        let known = CUTS.iter().flat_map(|(names, _)| names.iter()).filter(|n| !n.is_empty()).copied().collect::<Vec<_>>();
        return Err(refuse(format!("'tokenizer.ggml.pre' is {}; these are read: {}", quoted(pre), known.join(", "))));
    };
    let vocabulary = tokens.vocabulary();
    let listed = file.must("tokenizer.ggml.merges", file.texts_or("tokenizer.ggml.merges")?)?;
    let mut merges = Vec::with_capacity(listed.len());
    for (i, merge) in listed.iter().enumerate() {
        let parts = merge.split_once(' ').filter(|(a, b)| {
            !b.contains(' ')
                && vocabulary.contains_key(*a)
                && vocabulary.contains_key(*b)
                && vocabulary.contains_key(&format!("{a}{b}"))
        });
        match parts {
            Some((a, b)) => merges.push(json!([a, b])),
            None => return Err(refuse(format!("merge {i} is {}, not two tokens that together are a third", quoted(merge)))),
        }
    }
    let begins_by_itself = ["llama-bpe", "llama3", "llama-v3"].contains(&pre);
    let begins = file.flag_or("tokenizer.ggml.add_bos_token")?.unwrap_or(begins_by_itself);
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": begins_by_itself || pre == "tekken", "vocab": vocabulary,
        "merges": merges,
    });
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let post = tokens.template(begins, false)?.unwrap_or(Value::Null);
    let normalizer = if pre == "qwen2" { json!({"type": "NFC"}) } else { Value::Null };
    tokens.files(model, normalizer, cut.json(), post, bytes, begins)
}

fn sentence_piece(tokens: &Tokens<'_>) -> Result<Tokenizer> {
    let file = tokens.file;
    let scores = file.must("tokenizer.ggml.scores", file.floats_or("tokenizer.ggml.scores")?)?;
    if scores.len() != tokens.texts.len() || scores.iter().any(|s| s.is_nan()) {
        let (scores, texts) = (scores.len(), tokens.texts.len());
        return Err(Error::malformed(file.path(), format!("{texts} tokens, but {scores} scores, or one that is no number")));
    }
    let unknown = tokens.named("unknown")?.map(|(_, text)| text);
    let prefix = file.flag_or("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let begins = file.flag_or("tokenizer.ggml.add_bos_token")?.unwrap_or(true);
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": tokens.vocabulary(),
        "merges": merges_by_score(tokens, scores),
    });
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": MARK.to_string()});
    let normalizer = if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK.to_string()}, replace]})
    } else {
        replace
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": MARK.to_string()}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let post = tokens.template(begins, false)?.unwrap_or(Value::Null);
    tokens.files(model, normalizer, Value::Null, post, json!({"type": "Sequence", "decoders": decoders}), begins)
}

/// Every pair of tokens that together are a token, the one with the best score first; of equal scores the longer left part, and
/// then the lower numbers.
fn merges_by_score(tokens: &Tokens<'_>, scores: &[f32]) -> Vec<Value> {
    let merged = |id: &usize| matches!(tokens.kinds[*id], kind::NORMAL | kind::USER);
    let ids: HashMap<&str, usize> =
        (0..tokens.texts.len()).rev().filter(merged).map(|id| (tokens.texts[id].as_str(), id)).collect();
    // Of a long text only the cuts that can give two tokens are tried: each is two look-ups as long as the text.
    let lengths: HashSet<usize> = ids.keys().map(|text| text.len()).collect();
    let mut found = Vec::new();
    for (&text, &id) in &ids {
        let cuts = |(at, _): &(usize, char)| lengths.contains(at) && lengths.contains(&(text.len() - at));
        for (at, _) in text.char_indices().skip(1).filter(cuts) {
            let (left, right) = text.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                found.push((scores[id], left.chars().count(), l, r));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then((a.2, a.3).cmp(&(b.2, b.3))));
    found.into_iter().map(|(_, _, l, r)| json!([tokens.texts[l], tokens.texts[r]])).collect()
}
