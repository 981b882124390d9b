//! The names of the files of a folder.

/// The name of the configuration.
pub(in crate::io) const CONFIG: &str = "config.json";
/// The name of the weights in one file.
pub(in crate::io) const WEIGHTS: &str = "model.safetensors";
/// The name of the list of shards.
pub(in crate::io) const INDEX: &str = "model.safetensors.index.json";
/// The most bytes that a JSON file of a folder may have; tokenizers of 256 000 entries take 35 MB.
pub(super) const MAX_JSON: u64 = 256 << 20;
/// What belongs to a model besides its configuration and weights, as far as it is copied with it.
pub(super) const COMPANIONS: [&str; 17] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
];
/// The name of the file of masks.
pub(super) const MASKS: &str = "masks.safetensors";
/// What the name of a mask has behind that of its weight.
pub(super) const SUFFIX: &str = ".mask";
/// The list of tensors that are on the disk, in the working folder of a run that may be taken up again.
pub(super) const JOURNAL: &str = ".written.json";
/// What a run was asked for.
pub(crate) const SETTINGS: &str = ".settings.json";
/// What a run has done.
pub(crate) const RECORDS: &str = ".records.json";
