//! Sentences as vectors: what a sentence encoder makes of them, and how far two encoders are apart.
//!
//! ```text
//! e(sentence) = pool(hidden states behind the last block)      mean over the tokens, or that of the first; of length 1 where the model says so
//! ```
//!
//! How tokens are pooled stands in the files of the `sentence-transformers` library: `modules.json` and, in its folder, `1_Pooling/config.json`. A
//! folder without them takes the mean, at length 1, which is what the encoders made of MiniLM do.

use crate::lm::LanguageModel;
use crate::{Error, Result};
use ndarray::{Array1, Array2, ArrayView1, Axis};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Which token's hidden states a sentence takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenPool {
    /// The mean over all tokens.
    Mean,
    /// Those of the first token.
    First,
}

/// How hidden states become a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SentencePooling {
    /// Of which tokens.
    pub pool: TokenPool,
    /// Whether the vector is divided by its length.
    pub normalised: bool,
    /// The most tokens that are read; what is longer is cut.
    pub longest: Option<usize>,
}

impl Default for SentencePooling {
    fn default() -> Self {
        SentencePooling { pool: TokenPool::Mean, normalised: true, longest: None }
    }
}

impl SentencePooling {
    /// What the files of a folder say.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the file that is no JSON object, or asks for a pooling that is not known here.
    pub fn of(folder: &Path) -> Result<SentencePooling> {
        let read = |name: &str| -> Result<Option<Value>> {
            let path = folder.join(name);
            if !path.exists() {
                return Ok(None);
            }
            let bytes = crate::io::folder::read::read_small(&path)?;
            serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::malformed(&path, e.to_string()))
        };
        let mut pooling = SentencePooling::default();
        if let Some(modules) = read("modules.json")? {
            let types = modules.as_array().into_iter().flatten().filter_map(|module| module["type"].as_str());
            pooling.normalised = types.into_iter().any(|kind| kind.ends_with("Normalize"));
        }
        if let Some(config) = read("sentence_bert_config.json")? {
            pooling.longest = config["max_seq_length"].as_u64().filter(|n| *n > 0).map(|n| n as usize);
        }
        if let Some(config) = read("1_Pooling/config.json")? {
            let modes = config.as_object().into_iter().flatten();
            let on: Vec<&str> = modes.filter(|(_, on)| *on == &Value::Bool(true)).map(|(name, _)| name.as_str()).collect();
            let on: Vec<&str> = on.into_iter().filter(|name| name.starts_with("pooling_mode_")).collect();
            pooling.pool = match on[..] {
                ["pooling_mode_mean_tokens"] => TokenPool::Mean,
                ["pooling_mode_cls_token"] => TokenPool::First,
                _ => {
                    let reason = format!("pools by {}; the mean of tokens or the first are read", on.join(" and "));
                    return Err(Error::malformed(folder.join("1_Pooling/config.json"), reason));
                }
            };
        }
        Ok(pooling)
    }

    /// The vector of a sentence by the hidden states of its tokens, `(tokens, hidden)`.
    ///
    /// # Panics
    /// If there is no token.
    pub fn vector(&self, hidden: &Array2<f32>) -> Array1<f32> {
        assert!(hidden.nrows() > 0, "a sentence of no tokens");
        let vector: Vec<f64> = match self.pool {
            TokenPool::First => hidden.row(0).iter().map(|x| f64::from(*x)).collect(),
            TokenPool::Mean => {
                let n = hidden.nrows() as f64;
                hidden.axis_iter(Axis(1)).map(|x| x.iter().map(|x| f64::from(*x)).sum::<f64>() / n).collect()
            }
        };
        let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        // As the reference library: a vector of no length stays.
        let by = if self.normalised { length.max(1e-12) } else { 1.0 };
        vector.into_iter().map(|x| (x / by) as f32).collect()
    }
}

/// Vectors of sentences in tokens, `(sentences, hidden)`. What is longer than the model reads loses its last tokens but one, which ends a sentence.
///
/// # Errors
/// As [`LanguageModel::hidden_states`]; [`Error::InvalidOption`] for a sentence of no tokens, with its number.
pub fn embed(model: &LanguageModel, sentences: &[Vec<u32>], pooling: SentencePooling) -> Result<Array2<f32>> {
    let longest = [pooling.longest, model.config().max_positions()].into_iter().flatten().min();
    let mut all = Array2::zeros((sentences.len(), model.config().hidden()));
    for (i, (ids, mut row)) in sentences.iter().zip(all.rows_mut()).enumerate() {
        let cut: Vec<u32> = match (longest, ids.last()) {
            (_, None) => return Err(Error::invalid_option("text", format!("sentence {i} has no tokens"))),
            (Some(most), Some(last)) if ids.len() > most => ids[..most - 1].iter().copied().chain([*last]).collect(),
            _ => ids.clone(),
        };
        row.assign(&pooling.vector(&model.hidden_states(&cut, cut.len(), &mut ())?));
    }
    Ok(all)
}

/// The cosine of the angle between two vectors; 0 where one has no length.
///
/// # Panics
/// If they have not as many numbers.
pub fn cosine(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of different spaces");
    let dot = |a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>| -> f64 {
        a.iter().zip(b.iter()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn vectors_are_means_of_length_one_or_the_first_tokens() {
        let hidden = array![[1.0f32, 0.0], [5.0, 8.0]];
        let mean = SentencePooling::default().vector(&hidden);
        assert!((&mean - &array![0.6, 0.8]).iter().all(|d| d.abs() < 1e-7), "{mean}");
        let first = SentencePooling { pool: TokenPool::First, normalised: false, longest: None };
        assert_eq!(first.vector(&hidden), array![1.0, 0.0]);
        assert!((cosine(mean.view(), first.vector(&hidden).view()) - 0.6).abs() < 1e-7);
        assert_eq!(cosine(mean.view(), array![0.0, 0.0].view()), 0.0);
    }

    #[test]
    fn pooling_is_what_the_files_say() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SentencePooling::of(folder.path()).unwrap(), SentencePooling::default());
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "1_Pooling/config.json",
            r#"{"word_embedding_dimension": 8, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#,
        );
        write(
            "modules.json",
            r#"[{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"}]"#,
        );
        write("sentence_bert_config.json", r#"{"max_seq_length": 16}"#);
        assert_eq!(
            SentencePooling::of(folder.path()).unwrap(),
            SentencePooling { pool: TokenPool::First, normalised: false, longest: Some(16) }
        );
        write("1_Pooling/config.json", r#"{"pooling_mode_max_tokens": true}"#);
        let e = SentencePooling::of(folder.path()).unwrap_err().to_string();
        assert!(e.contains("pools by pooling_mode_max_tokens; the mean of tokens or the first are read"), "{e}");
    }
}
