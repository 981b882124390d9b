//! A tokenizer from texts: byte-level byte-pair encoding.
//!
//! Sennrich, Haddow, Birch. *Neural machine translation of rare words with subword units.* ACL 2016, arXiv:1508.07909; on bytes as in Radford et al.
//! *Language models are unsupervised multitask learners.* 2019. The library `tokenizers` counts and merges.

use super::tokenizer::SETTINGS;
use crate::{Error, Result};
use serde_json::json;
use std::collections::HashSet;
use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Ends a text, and has the number 0.
const END: &str = "<|endoftext|>";

/// Bytes, and the token that ends a text.
const LEAST: usize = 257;

/// Trains a tokenizer of at most `vocabulary` tokens: every byte, `<|endoftext|>`, and what is merged, the most frequent pair first. Any text can be
/// cut into its tokens and back. Gives the files of a folder, names and bytes. The same texts give the same bytes.
///
/// ```
/// use lacuna::text::{Tokenizer, train_bpe};
/// let files = train_bpe(&["the cat, the dog, the end".to_string()], 260)?;
/// let tokenizer = Tokenizer::from_bytes(&files[0].0, &files[0].1)?;
/// assert!(tokenizer.vocabulary() <= 260);
/// let ids = tokenizer.encode("the wolf", false)?;
/// assert_eq!((tokenizer.token(ids[0]).as_deref(), tokenizer.decode(&ids)?), (Some("the"), "the wolf".to_string()));
/// # Ok::<(), lacuna::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidOption`] if the vocabulary has no room for the bytes, or there is no text.
pub fn train_bpe(texts: &[String], vocabulary: usize) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let refuse = |reason: String| Error::invalid_option("tokenizer-text", reason);
    if vocabulary < LEAST {
        return Err(refuse(format!("a vocabulary of {vocabulary} tokens; bytes and the end of a text alone are {LEAST}")));
    }
    if texts.iter().all(String::is_empty) {
        return Err(refuse("there is no text to train a tokenizer on".into()));
    }
    let bytes = || ByteLevel::new(false, true, true);
    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(bytes())).with_decoder(Some(bytes()));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocabulary)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<char>>())
        .special_tokens(vec![AddedToken::from(END, true)])
        .build();
    // Words do not reach over the end of a line and the spaces behind it.
    let lines = texts.iter().flat_map(|text| text.split_inclusive('\n'));
    let made = inner.train(&mut TrainerWrapper::from(trainer), lines).and_then(|t| t.to_string(true));
    let tokenizer = made.map_err(|e| refuse(e.to_string()))?;
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "bos_token": null, "clean_up_tokenization_spaces": false,
    });
    Ok(vec![("tokenizer.json", tokenizer.into_bytes()), (SETTINGS, format!("{settings:#}\n").into_bytes())])
}
