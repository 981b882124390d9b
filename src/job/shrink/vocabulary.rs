//! Which entries of a vocabulary stay: those that a text uses, counted by the model's own tokenizer.

use crate::data::{Bos, Tokens};
use crate::io::Folder;
use crate::io::folder::read::read_json;
use crate::lm::Config;
use crate::prune::VocabularyCut;
use crate::text::TrimmedTokenizer;
use crate::{Error, Result};
use serde_json::Value;
use std::path::PathBuf;

/// Files that say what `tokenizer.json` says, of the whole vocabulary.
const BEHIND: [&str; 6] = ["tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"];

/// Keeps `keep` entries, those that the texts use most.
///
/// # Errors
/// If there is no text, or it came as token numbers; if the folder has no tokenizer.json, or one that cannot be trimmed so far.
pub(super) fn cut(folder: &Folder, config: &Config, keep: usize, texts: &[PathBuf]) -> Result<VocabularyCut> {
    let refuse = |reason: String| Error::invalid_option("vocabulary", reason);
    let file = |name: &str| Some(folder.path().join(name)).filter(|path| path.is_file());
    let Some(path) = file("tokenizer.json") else {
        return Err(refuse(format!("{} has no tokenizer.json", folder.path().display())));
    };
    if texts.is_empty() {
        return Err(refuse("entries are chosen by how often a text uses them: give --text FILE".into()));
    }
    let mut counts = vec![0u64; config.vocab()];
    for text in texts {
        let tokens = Tokens::read(text, folder, config, Bos::None)?;
        if tokens.bytes.is_none() {
            return Err(refuse(format!("{} holds token numbers, which are others afterwards: give a text", text.display())));
        }
        for id in tokens.ids {
            counts[id as usize] += 1;
        }
    }
    let (json, generation) = (Value::Object(read_json(&path)?), file("generation_config.json"));
    let generation = generation.map(|path| read_json(&path)).transpose()?.map(Value::Object);
    let mut named = config.named_tokens();
    for (_, value) in generation.iter().filter_map(Value::as_object).flatten().filter(|(key, _)| key.ends_with("_token_id")) {
        let ids = value.as_array().map_or_else(|| vec![value.clone()], Clone::clone);
        let known = ids.iter().map(|id| id.as_u64().map(|id| id as usize));
        named.extend(known.flatten().filter(|id| *id < config.vocab()));
    }
    let trimmed = TrimmedTokenizer::new(&json, &counts, keep, &named)?;
    if let Some(beyond) = trimmed.kept.last().filter(|n| **n >= config.vocab()) {
        return Err(refuse(format!("tokenizer.json has entry {beyond}, the model {} of them", config.vocab())));
    }
    let mut files = vec![("tokenizer.json".to_string(), trimmed.json.clone())];
    if let Some(path) = file("tokenizer_config.json") {
        files.push(("tokenizer_config.json".into(), trimmed.settings(&Value::Object(read_json(&path)?))));
    }
    files.extend(generation.map(|g| ("generation_config.json".to_string(), trimmed.generation(&g))));
    let behind = BEHIND.iter().filter(|name| file(name).is_some()).map(|name| name.to_string()).collect();
    Ok(VocabularyCut { kept: trimmed.kept, files, behind })
}
