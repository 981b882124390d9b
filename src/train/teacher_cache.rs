//! What a teacher says of a text, kept in a file of a few hundred bytes a token, so that a student learns from it without the teacher.
//!
//! ```text
//! top K       the K likeliest tokens with ln p, and the rest's mass as one outcome more:
//!             L = Σ_k p_k ln(p_k / q_k) + p_rest ln(p_rest / q_rest)      a true KL of K + 1 outcomes
//!             ∂L/∂z_j = q_j − p_j among the K, else q_j (1 − p_rest / q_rest)
//! sampled N   N tokens drawn from p, each with its count n: w = n / N
//!             L = Σ w ln(w / q),  ∂L/∂z_j = q_j − w_j                      whose mean over draws is the slope of KL(p ‖ q)
//!
//! a row       top      K × (token u16 or u32, ln p f16), ln p_rest f32      64 entries: 260 bytes below 65 537 tokens
//!             sampled  N × (token u16 or u32, count u8)
//! ```
//!
//! Top: without the rest as an outcome a student may put any mass there for nothing, or must put none; both are other losses than the KL
//! (DistillKit and ModelOpt do one or the other). Sampled: Anshumann et al. *Sparse logit sampling: accelerating knowledge distillation in LLMs.*
//! ACL 2025, arXiv:2503.16870, with the proposal p itself. Entries of which there are fewer than columns are filled up with weight 0.

use crate::data::{PackedDocuments, Sequences};
use crate::io::{ByteRows, write_byte_rows};
use crate::kernels::vector;
use crate::lm::{LanguageModel, next_tokens};
use crate::nn::Objective;
use crate::rng::Seed;
use crate::{Error, Result};
use half::f16;
use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Which entries of a teacher's distribution are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheEntries {
    /// So many of the likeliest, and the rest together.
    Top(usize),
    /// So many drawn by chance; at most 255.
    Sampled(usize),
}

impl CacheEntries {
    fn count(self) -> usize {
        match self {
            CacheEntries::Top(count) | CacheEntries::Sampled(count) => count,
        }
    }

    /// Bytes of a token, of a vocabulary of so many.
    pub fn bytes(self, vocab: usize) -> usize {
        match self {
            CacheEntries::Top(k) => k * (id_bytes(vocab) + 2) + 4,
            CacheEntries::Sampled(n) => n * (id_bytes(vocab) + 1),
        }
    }

    fn check(self, vocab: usize) -> Result<()> {
        let (option, most) = match self {
            CacheEntries::Top(_) => ("top", vocab),
            CacheEntries::Sampled(_) => ("sample", 255),
        };
        match self.count() {
            n if (1..=most).contains(&n) => Ok(()),
            n => Err(Error::invalid_option(option, format!("{n} is not 1 to {most}"))),
        }
    }
}

fn id_bytes(vocab: usize) -> usize {
    if vocab <= 1 << 16 { 2 } else { 4 }
}

/// The name of the tensor, and the key of what is said of it.
const TENSOR: &str = "teacher";
const KEY: &str = "lacuna.teacher_cache";

/// What a cache says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    version: u32,
    entries: CacheEntries,
    vocab: usize,
    context: usize,
    sequences: usize,
    /// [`PackedDocuments::digest`] of the text.
    digest: String,
    /// What the teacher's folder is known by.
    teacher: String,
}

/// A teacher's distributions over all sequences of a text, in a file.
#[derive(Debug)]
pub struct TeacherCache {
    rows: ByteRows,
    about: About,
    path: PathBuf,
}

impl TeacherCache {
    /// Runs a teacher, known by `fingerprint`, over all sequences of a text, and writes what it says of each next token to a safetensors file,
    /// which appears whole or not at all. `see` is told how many sequences of all are done, and may stop.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if there are no entries, or more than tokens (drawn: than 255); those of the model;
    /// [`Error::Numerical`] if it gives what is not finite; [`Error::Io`]; [`Error::Interrupted`].
    pub fn write(
        path: impl AsRef<Path>,
        (teacher, fingerprint): (&LanguageModel, &str),
        packed: &PackedDocuments,
        (entries, seed): (CacheEntries, Seed),
        see: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<()> {
        let (path, vocab, context) = (path.as_ref(), teacher.config().vocab(), packed.context());
        entries.check(vocab)?;
        let (digest, sequences) = (packed.digest(), packed.len());
        let about = About { version: 1, entries, vocab, context, sequences, digest, teacher: fingerprint.to_string() };
        let said = serde_json::to_string(&about).map_err(|e| Error::invalid_option("cache", e.to_string()))?;
        let metadata = BTreeMap::from([(KEY.to_string(), said)]);
        let bytes = entries.bytes(vocab);
        write_byte_rows(path, (TENSOR, sequences), (context, bytes), &metadata, |i| {
            let ids = packed.sequence(i)?;
            let hidden = teacher.hidden_states(&ids, ids.len(), &mut ())?;
            let mut all = Vec::with_capacity(context * bytes);
            // The head gives its logits for a few tokens at a time.
            for (part, rows) in hidden.axis_chunks_iter(ndarray::Axis(0), CHUNK).enumerate() {
                let mut logits = teacher.embedding_head().logits(&rows);
                let packed: Vec<Option<Vec<u8>>> = logits
                    .axis_iter_mut(ndarray::Axis(0))
                    .into_par_iter()
                    .enumerate()
                    .map(|(t, row)| {
                        let token = i * context + part * CHUNK + t;
                        let row = row.to_vec();
                        row.iter().all(|z| z.is_finite()).then(|| match entries {
                            CacheEntries::Top(k) => top(row, k, vocab),
                            CacheEntries::Sampled(n) => sampled(row, n, vocab, seed, token),
                        })
                    })
                    .collect();
                for (t, row) in packed.into_iter().enumerate() {
                    let reason = || format!("logits of token {} of sequence {i} are not finite", part * CHUNK + t);
                    all.extend(row.ok_or_else(|| Error::Numerical { what: "teacher".into(), reason: reason() })?);
                }
            }
            Error::go_on(see(i + 1, sequences))?;
            Ok(all)
        })
    }

    /// Opens a file that [`TeacherCache::write`] wrote; no rows are read.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] if it is none.
    pub fn open(path: impl AsRef<Path>) -> Result<TeacherCache> {
        let path = path.as_ref();
        let rows = ByteRows::open(path, TENSOR)?;
        let refuse = |reason: String| Error::malformed(path, format!("is no cache of a teacher: {reason}"));
        let text = rows.metadata().get(KEY).ok_or_else(|| refuse(format!("has no {KEY}")))?;
        let about: About = serde_json::from_str(text).map_err(|e| refuse(e.to_string()))?;
        if about.vocab > u32::MAX as usize {
            return Err(refuse(format!("a vocabulary of {} tokens", about.vocab)));
        }
        if about.version != 1 {
            return Err(refuse(format!("version {}; 1 is read", about.version)));
        }
        about.entries.check(about.vocab).map_err(|e| refuse(e.to_string()))?;
        let right = (about.sequences.checked_mul(about.context), about.entries.bytes(about.vocab));
        if (Some(rows.dim().0), rows.dim().1) != right {
            return Err(refuse(format!("rows {:?} for {} sequences of {} tokens", rows.dim(), about.sequences, about.context)));
        }
        Ok(TeacherCache { rows, about, path: path.to_path_buf() })
    }

    /// What is kept of each token.
    pub fn entries(&self) -> CacheEntries {
        self.about.entries
    }

    /// A number that is another one where text, teacher or entries differ.
    pub fn digest(&self) -> String {
        format!("{}-{}-{:?}", self.about.digest, self.about.teacher, self.about.entries)
    }

    /// Refuses a cache of another text, another context or another tokenizer than a student trains on.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] with what differs.
    pub fn check(&self, packed: &PackedDocuments, vocab: usize) -> Result<()> {
        let About { context, sequences, digest, .. } = &self.about;
        let of = |what: String, here: String| {
            let reason = format!(
                "{} is of {what}, and {here} are trained on: make it of the same text, with the same options",
                self.path.display()
            );
            Err(Error::invalid_option("teacher-cache", reason))
        };
        if self.about.vocab != vocab {
            return of(format!("a vocabulary of {} tokens", self.about.vocab), format!("{vocab} tokens"));
        }
        if (*context, *sequences) != (packed.context(), packed.len()) {
            let here = format!("{} of {}", packed.len(), packed.context());
            return of(format!("{sequences} sequences of {context} tokens"), here);
        }
        if *digest != packed.digest() {
            return of(format!("other tokens (digest {digest})"), format!("tokens with digest {}", packed.digest()));
        }
        Ok(())
    }

    /// What the teacher said of the tokens of some sequences, in this order.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] if a row holds no distribution.
    ///
    /// # Panics
    /// If a sequence is not there.
    pub fn read(&self, sequences: &[usize]) -> Result<CachedRows> {
        let About { entries, vocab, context, .. } = self.about;
        let (k, width) = (entries.count(), id_bytes(vocab));
        let mut rows = CachedRows { k, ids: Vec::new(), weights: Vec::new(), rest: Vec::new() };
        for &sequence in sequences {
            let bytes = self.rows.read(sequence * context, context)?;
            for (t, row) in bytes.chunks_exact(entries.bytes(vocab)).enumerate() {
                let refuse = |what: &str| Error::malformed(&self.path, format!("token {t} of sequence {sequence} holds {what}"));
                let each = width + if matches!(entries, CacheEntries::Top(_)) { 2 } else { 1 };
                let (list, end) = row.split_at(k * each);
                let mut sum = 0.0;
                for entry in list.chunks_exact(each) {
                    let (id, value) = entry.split_at(width);
                    let id = if width == 2 {
                        u32::from(u16::from_le_bytes([id[0], id[1]]))
                    } else {
                        u32::from_le_bytes([id[0], id[1], id[2], id[3]])
                    };
                    if id as usize >= vocab {
                        return Err(refuse("a token beyond the vocabulary"));
                    }
                    let weight = match *value {
                        [a, b] => f16::from_le_bytes([a, b]).to_f32().exp(),
                        [count] => f32::from(count) / k as f32,
                        _ => 0.0,
                    };
                    sum += f64::from(weight);
                    rows.ids.push(id);
                    rows.weights.push(weight);
                }
                let rest = match *end {
                    [a, b, c, d] => f32::from_le_bytes([a, b, c, d]).exp(),
                    _ => 0.0,
                };
                let whole = sum + f64::from(rest);
                if !(whole.is_finite() && (0.9..1.1).contains(&whole)) {
                    return Err(refuse(&format!("probabilities that sum to {whole}")));
                }
                // What was rounded sums to 1 again.
                let from = rows.weights.len() - k;
                rows.weights[from..].iter_mut().for_each(|w| *w = (f64::from(*w) / whole) as f32);
                rows.rest.push(matches!(entries, CacheEntries::Top(_)).then_some((f64::from(rest) / whole) as f32));
            }
        }
        Ok(rows)
    }
}

/// Tokens whose logits are made at once.
const CHUNK: usize = 128;

/// The `k` likeliest by ln p, the first of equal ones first, and the rest.
fn top(mut row: Vec<f32>, k: usize, vocab: usize) -> Vec<u8> {
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    let before = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, before);
        order.truncate(k);
    }
    order.sort_unstable_by(before);
    let kept: Vec<f32> = order.iter().map(|id| row[*id as usize]).collect();
    let max = vector::max(&row);
    let whole = f64::from(max) + vector::exp_sum(&mut row, 1.0, max).ln();
    order.iter().for_each(|id| row[*id as usize] = 0.0);
    let rest = (vector::sum(&row).ln() + f64::from(max) - whole) as f32;
    let mut bytes = Vec::with_capacity(CacheEntries::Top(k).bytes(vocab));
    for (id, z) in order.iter().zip(kept) {
        push_id(&mut bytes, *id, vocab);
        bytes.extend(f16::from_f64(f64::from(z) - whole).to_le_bytes());
    }
    bytes.extend(rest.to_le_bytes());
    bytes
}

/// `n` draws by token, in its order, with their counts.
fn sampled(mut row: Vec<f32>, n: usize, vocab: usize, seed: Seed, token: usize) -> Vec<u8> {
    let max = vector::max(&row);
    vector::exp_sum(&mut row, 1.0, max);
    let mut at = 0.0;
    let sums: Vec<f64> = row
        .iter()
        .map(|e| {
            at += f64::from(*e);
            at
        })
        .collect();
    let mut stream = seed.stream(&format!("teacher's token {token}"));
    let mut counts: BTreeMap<u32, u8> = BTreeMap::new();
    for _ in 0..n {
        // Two numbers of 24 bits, so that rare tokens are not left out.
        let u = f64::from(stream.uniform()) + f64::from(stream.uniform()) / f64::from(1u32 << 24);
        let drawn = sums.partition_point(|sum| *sum <= u * at).min(sums.len() - 1);
        *counts.entry(drawn as u32).or_default() += 1;
    }
    let mut bytes = Vec::with_capacity(CacheEntries::Sampled(n).bytes(vocab));
    for (id, count) in counts.into_iter().chain(std::iter::repeat((0, 0))).take(n) {
        push_id(&mut bytes, id, vocab);
        bytes.push(count);
    }
    bytes
}

fn push_id(bytes: &mut Vec<u8>, id: u32, vocab: usize) {
    match id_bytes(vocab) {
        2 => bytes.extend((id as u16).to_le_bytes()),
        _ => bytes.extend(id.to_le_bytes()),
    }
}

/// What a teacher said of tokens, in order: of each `k` tokens with their weights, and the rest's mass where it is an outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedRows {
    k: usize,
    ids: Vec<u32>,
    weights: Vec<f32>,
    rest: Vec<Option<f32>>,
}

impl CachedRows {
    /// The tokens of row `t` and their weights, and the rest's mass.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, t: usize) -> (&[u32], ArrayView1<'_, f32>, Option<f32>) {
        let part = t * self.k..(t + 1) * self.k;
        (&self.ids[part.clone()], ArrayView1::from(&self.weights[part]), self.rest[t])
    }

    /// The loss of row `t`, where the logits `z` become `scale` times its slope.
    ///
    /// # Panics
    /// If there is no such row, or a token is beyond the logits.
    pub fn loss(&self, t: usize, z: &mut [f32], scale: f32) -> f64 {
        let (ids, weights, rest) = self.row(t);
        let raw: Vec<f32> = ids.iter().map(|id| z[*id as usize]).collect();
        let max = vector::max(z);
        let sum = vector::exp_sum(z, 1.0, max);
        let log_sum = f64::from(max) + sum.ln();
        let part = |w: f32, ln_q: f64| if w > 0.0 { f64::from(w) * (f64::from(w).ln() - ln_q) } else { 0.0 };
        let mut loss: f64 = weights.iter().zip(&raw).map(|(w, z)| part(*w, f64::from(*z) - log_sum)).sum();
        let slopes: Vec<f32> =
            ids.iter().zip(weights).map(|(id, w)| scale * ((f64::from(z[*id as usize]) / sum) as f32 - w)).collect();
        let Some(rest) = rest else {
            vector::scale(z, (f64::from(scale) / sum) as f32);
            // A filled-up entry has weight 0 and must not be counted beside a true one of its token.
            ids.iter().zip(weights).for_each(|(id, w)| z[*id as usize] -= scale * w);
            return loss;
        };
        ids.iter().for_each(|id| z[*id as usize] = 0.0);
        let others = vector::sum(z).max(f64::from(f32::MIN_POSITIVE));
        loss += part(rest, others.ln() + f64::from(max) - log_sum);
        vector::scale(z, (f64::from(scale) * (1.0 / sum - f64::from(rest) / others)) as f32);
        ids.iter().zip(slopes).for_each(|(id, slope)| z[*id as usize] = slope);
        loss
    }
}

/// What a cache says of the tokens of one batch, as an objective: its loss, mixed with the text's own cross-entropy, of each token that is
/// followed by one.
#[derive(Debug)]
pub struct CachedDistillation {
    rows: CachedRows,
    targets: Vec<Option<u32>>,
    vocab: usize,
    hard: f32,
}

impl CachedDistillation {
    /// Of rows that were read for the sequences of a batch; `hard` in [0, 1] is the weight of the cross-entropy.
    ///
    /// # Panics
    /// If the rows are not as many as the tokens.
    pub fn new(rows: CachedRows, batch: &Sequences, vocab: usize, hard: f32) -> Self {
        assert_eq!(rows.rest.len(), batch.tokens(), "rows of a cache for tokens of a batch");
        CachedDistillation { rows, targets: next_tokens(batch.ids(), batch.length()), vocab, hard }
    }
}

impl Objective for CachedDistillation {
    fn dim(&self) -> (usize, usize) {
        (self.targets.len(), self.vocab)
    }

    fn count(&self, rows: &[usize]) -> usize {
        rows.iter().filter(|row| self.targets[**row].is_some()).count()
    }

    fn loss(&self, rows: &[usize], outputs: &mut Array2<f32>, count: usize) -> f64 {
        if !outputs.is_standard_layout() {
            *outputs = outputs.as_standard_layout().into_owned();
        }
        let (width, scale, hard) = (outputs.ncols(), 1.0 / count as f32, self.hard);
        let z = outputs.as_slice_mut().expect("in standard layout");
        let losses: Vec<f64> = z
            .par_chunks_mut(width)
            .enumerate()
            .map(|(t, z)| {
                let Some(y) = self.targets[rows[t]] else {
                    z.fill(0.0);
                    return 0.0;
                };
                let own = if hard > 0.0 { z.to_vec() } else { Vec::new() };
                let soft = self.rows.loss(rows[t], z, (1.0 - hard) * scale);
                if own.is_empty() { soft } else { super::divergence::mix((soft, z), own, y as usize, (hard, scale)) }
            })
            .collect();
        losses.iter().sum()
    }
}
