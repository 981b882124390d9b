//! What an architecture's own keys say: sizes, and what would change the numbers without being known here.

use super::arch::{Arch, Sizes};
use super::{Gguf, GgufValue};
use crate::io::quoted;
use crate::{Error, Result};

/// A number that was rounded to 32 bits, as the shortest decimal that rounds to it.
pub(super) fn neat(x: f64) -> f64 {
    let short = (x as f32).to_string().parse().unwrap_or(x);
    if f64::from(x as f32) == x { short } else { x }
}

/// The keys of one architecture.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub file: &'a Gguf,
    pub arch: &'a str,
}

impl Keys<'_> {
    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    pub fn count(&self, key: &str) -> Result<usize> {
        self.file.count(&self.key(key))
    }

    pub fn count_or(&self, key: &str) -> Result<Option<usize>> {
        self.file.count_or(&self.key(key))
    }

    pub fn number(&self, key: &str) -> Result<f64> {
        self.file.number(&self.key(key)).map(neat)
    }

    pub fn number_or(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.file.number_or(&self.key(key))?.map(neat))
    }

    /// What is added below a root: a number of at least 0.
    pub fn epsilon(&self, key: &str) -> Result<f64> {
        match self.number(key)? {
            epsilon if epsilon >= 0.0 && (epsilon as f32).is_finite() => Ok(epsilon),
            epsilon => Err(self.refuse(key, format!("is {epsilon}, no number of at least 0 in 32 bits"))),
        }
    }

    /// A bound of logits: a number above 0.
    pub fn cap(&self, key: &str) -> Result<Option<f64>> {
        match self.number_or(key)? {
            Some(cap) if !(cap.is_finite() && cap > 0.0) => Err(self.refuse(key, format!("is {cap}, no number above 0"))),
            cap => Ok(cap),
        }
    }

    /// An error about a key.
    pub fn refuse(&self, key: &str, reason: impl std::fmt::Display) -> Error {
        Error::malformed(self.file.path(), format!("{} {reason}", quoted(&self.key(key))))
    }
}

/// The sizes of a model, out of keys and the embedding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    pub layers: usize,
    /// Query heads, and key heads.
    pub heads: (usize, usize),
    pub head_dim: usize,
    /// Features of a head that are turned by their position.
    pub turned: usize,
    pub sizes: Sizes,
}

impl Model {
    /// Reads the sizes and holds them against one another.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key.
    pub fn read(file: &Gguf, arch: &Arch) -> Result<Model> {
        let keys = Keys { file, arch: arch.name };
        if let Some(parts) = file.count_or("split.count")?.filter(|n| *n > 1) {
            let reason = format!("is one of {parts} parts of a model; llama-gguf-split --merge makes one file of them");
            return Err(Error::malformed(file.path(), reason));
        }
        let positive = |key: &str| match keys.count(key)? {
            n if n == 0 || n > LARGEST => Err(keys.refuse(key, format!("is {n}, no size from 1 to {LARGEST}"))),
            n => Ok(n),
        };
        let heads = keys.count("attention.head_count")?;
        let layers = keys.count("block_count")?;
        let refuse = |reason: String| Error::malformed(file.path(), reason);
        if layers == 0 || layers > file.tensors().len() {
            return Err(refuse(format!("{} blocks are stated, but there are only {} tensors", layers, file.tensors().len())));
        }
        if heads == 0 {
            return Err(refuse("a model of 0 heads is stated".to_string()));
        }
        let kv_heads = keys.count_or("attention.head_count_kv")?.unwrap_or(heads);
        let (hidden, context) = (positive("embedding_length")?, positive("context_length")?);
        let width = match keys.count_or("feed_forward_length")? {
            // The families whose width follows from another size.
            None if matches!(arch.name, "gpt2" | "bloom") => 4 * hidden,
            _ => positive("feed_forward_length")?,
        };
        let stated = keys.count_or("attention.key_length")?;
        let head_dim = stated.unwrap_or(hidden / heads);
        let turned = keys.count_or("rope.dimension_count")?.unwrap_or(head_dim);
        let vocab = file.tensor("token_embd.weight").and_then(|t| t.shape.first().copied()).unwrap_or(0);
        let features = |heads: usize| heads.saturating_mul(head_dim);
        let (experts, active) = match arch.experts {
            true => (positive("expert_count")?, positive("expert_used_count")?),
            false => (0, 0),
        };
        if active > experts {
            return Err(keys.refuse("expert_used_count", format!("is {active}, but there are {experts} experts")));
        }
        let own = |key: &str, other: usize| Ok::<usize, Error>(keys.count_or(key)?.filter(|n| *n > 0).unwrap_or(other));
        let (expert_width, shared_width) = match arch.name {
            "qwen2moe" | "qwen3moe" => {
                let each = own("expert_feed_forward_length", width / active)?;
                (each, own("expert_shared_feed_forward_length", width)?)
            }
            _ => (width, 0),
        };
        let (q, kv) = (features(heads), features(kv_heads));
        let sizes = Sizes { hidden, vocab, context, head: head_dim, q, kv, width, experts, active, expert_width, shared_width };
        Ok(Model { layers, heads: (heads, kv_heads), head_dim, turned, sizes })
    }

    /// Refuses sizes that no model of the architecture can have, and keys that change the numbers and are not known here.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key.
    pub fn check(&self, keys: Keys<'_>) -> Result<()> {
        let ((heads, kv_heads), head_dim, hidden) = (self.heads, self.head_dim, self.sizes.hidden);
        if kv_heads == 0 || heads % kv_heads != 0 {
            return Err(keys.refuse("attention.head_count_kv", format!("is {kv_heads}, which {heads} heads do not share evenly")));
        }
        let theta = keys.number_or("rope.freq_base")?;
        if theta.is_some_and(|theta| theta <= 0.0) {
            return Err(keys.refuse("rope.freq_base", "is not above 0"));
        }
        if keys.count_or("attention.key_length")?.is_none() && hidden % heads != 0 {
            return Err(keys.refuse("attention.head_count", format!("is {heads}, which does not divide {hidden} features")));
        }
        if head_dim == 0 || keys.count_or("attention.value_length")?.is_some_and(|n| n != head_dim) {
            let reason = format!("or attention.key_length is 0, or they differ; heads have {head_dim} features here");
            return Err(keys.refuse("attention.value_length", reason));
        }
        // Only these families turn a part of a head.
        let part = matches!(keys.arch, "phi2" | "phi3" | "nemotron" | "gptneox" | "stablelm");
        if !matches!(keys.arch, "gpt2" | "bloom")
            && (self.turned % 2 != 0 || self.turned > head_dim || !part && self.turned != head_dim)
        {
            let reason = format!("is {}, but heads have {head_dim} features", self.turned);
            return Err(keys.refuse("rope.dimension_count", reason));
        }
        self.unknown(keys)
    }

    fn unknown(&self, keys: Keys<'_>) -> Result<()> {
        let gemma3 = keys.arch == "gemma3";
        let (windowed, capped) = (gemma3 || matches!(keys.arch, "gemma2" | "phi3"), keys.arch == "gemma2");
        // What other architectures have, with the values that change nothing.
        let neutral: &[(&str, &[f64])] = &[
            ("attention.max_alibi_bias", if keys.arch == "bloom" { &[0.0, 8.0] } else { &[0.0] }),
            ("attention.clamp_kqv", &[0.0]),
            ("attention.scale", &[0.0]),
            ("attention.output_scale", &[0.0, 1.0]),
            ("attention.temperature_length", &[0.0]),
            ("attention.temperature_scale", &[0.0]),
            ("attention.shared_kv_layers", &[0.0]),
            ("attention.key_length_mla", &[0.0]),
            ("attention.value_length_mla", &[0.0]),
            ("attention.key_length_swa", &[0.0, self.head_dim as f64]),
            ("attention.value_length_swa", &[0.0, self.head_dim as f64]),
            ("rope.dimension_count_swa", &[0.0, self.turned as f64]),
            ("rope.scaling.alpha", &[0.0, 1.0]),
            ("rope.scaling.yarn_log_multiplier", &[0.0]),
            ("rope.scaling.yarn_ext_factor", &[-1.0, 1.0]),
            ("rope.scaling.yarn_attn_factor", &[1.0]),
            ("router_logit_softcapping", &[0.0]),
            ("residual_scale", &[0.0, 1.0]),
            ("embedding_scale", &[0.0, 1.0]),
            ("logit_scale", &[0.0, 1.0]),
            ("nextn_predict_layers", &[0.0]),
            ("expert_shared_count", if keys.arch == "qwen2moe" { &[0.0, 1.0] } else { &[0.0] }),
            ("expert_weights_scale", &[0.0, 1.0]),
            ("expert_gating_func", &[0.0, 1.0]),
            ("expert_group_count", &[0.0, 1.0]),
            ("expert_group_used_count", &[0.0, 1.0]),
            ("leading_dense_block_count", &[0.0]),
            ("interleave_moe_layer_step", &[0.0, 1.0]),
            ("moe_every_n_layers", &[0.0, 1.0]),
        ];
        let off = |key: &str, neutral: &[f64]| -> Result<()> {
            match keys.number_or(key)? {
                Some(x) if !neutral.contains(&x) => {
                    Err(keys.refuse(key, format!("is {x}, which is not known of a {}", keys.arch)))
                }
                _ => Ok(()),
            }
        };
        neutral.iter().try_for_each(|(key, neutral)| off(key, neutral))?;
        if !capped {
            off("attn_logit_softcapping", &[0.0])?;
        }
        if !capped && !gemma3 {
            off("final_logit_softcapping", &[0.0])?;
        }
        if !gemma3 {
            off("rope.freq_base_swa", &[keys.number_or("rope.freq_base")?.unwrap_or(10000.0)])?;
        } else if keys.number_or("rope.freq_base_swa")?.is_some_and(|theta| theta <= 0.0) {
            return Err(keys.refuse("rope.freq_base_swa", "is not above 0"));
        }
        for key in ["attention.sliding_window", "rope.scaling.original_context_length"] {
            if let Some(n) = keys.count_or(key)?.filter(|n| *n > LARGEST) {
                return Err(keys.refuse(key, format!("is {n}, no size up to {LARGEST}")));
            }
        }
        let window = keys.count_or("attention.sliding_window")?.filter(|w| *w > 0 && *w < self.sizes.context);
        if let Some(window) = window.filter(|_| !windowed) {
            return Err(keys.refuse("attention.sliding_window", format!("is {window}, which is not known of a {}", keys.arch)));
        }
        if !gemma3 && keys.arch != "gemma2" && window.is_some() && keys.file.metadata().contains_key(&keys.key(PATTERN)) {
            return Err(keys.refuse(PATTERN, format!("is not known of a {}", keys.arch)));
        }
        let normalised = matches!(keys.arch, "llama" | "qwen3moe");
        if keys.file.flag_or(&keys.key("expert_weights_norm"))?.is_some_and(|norm| self.sizes.experts > 0 && norm != normalised) {
            return Err(keys.refuse("expert_weights_norm", format!("is {}, which is not known of a {}", !normalised, keys.arch)));
        }
        if self.heads.0 != self.heads.1 && matches!(keys.arch, "gptneox" | "bloom") {
            return Err(keys
                .refuse("attention.head_count_kv", format!("is {}; each of {} heads has its own", self.heads.1, self.heads.0)));
        }
        let wide = 4 * self.sizes.hidden;
        if keys.arch == "bloom" && self.sizes.width != wide {
            return Err(keys.refuse("feed_forward_length", format!("is {}; a bloom has {wide}", self.sizes.width)));
        }
        if keys.file.flag_or(&keys.key("attention.causal"))? == Some(false) {
            return Err(keys.refuse("attention.causal", "is false; tokens that see those behind them are not known here"));
        }
        Ok(())
    }

    /// Which blocks of a model see a window, if the file says it: every `n`-th does not, or one truth value a block.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the key holds something else.
    pub fn windowed(&self, keys: Keys<'_>) -> Result<Option<Vec<bool>>> {
        match keys.file.metadata().get(&keys.key(PATTERN)) {
            None => Ok(None),
            Some(GgufValue::Ints(list)) if list.len() == self.layers => Ok(Some(list.iter().map(|&on| on != 0).collect())),
            Some(GgufValue::Int(n)) if (0..=1 << 20).contains(n) => {
                let n = *n as usize;
                Ok(Some((0..self.layers).map(|i| n == 0 || i % n < n - 1).collect()))
            }
            Some(_) => Err(keys.refuse(PATTERN, format!("is neither a count nor a list of {} entries", self.layers))),
        }
    }
}

/// No size may be larger: what stands above is a damaged file.
const LARGEST: usize = 1 << 28;
/// Which blocks see a window.
const PATTERN: &str = "attention.sliding_window_pattern";
