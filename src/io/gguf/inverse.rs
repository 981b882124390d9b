//! What the tensors of a checkpoint are called in a GGUF file, what is done to their numbers on the way, and the keys that say a `config.json`.

use super::arch::{Arch, Change, EACH, Part, Sizes};
use super::rope::divisor;
use super::write::KeyBytes;
use crate::io::quoted;
use crate::{Error, Result};
use serde_json::{Map, Value};

/// Where a tensor of a checkpoint goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// Its name in the file.
    pub name: String,
    /// What was done to its numbers there.
    pub change: Change,
    /// Its number among the experts that stand in one tensor there.
    pub expert: Option<usize>,
}

impl Arch {
    /// The place, in the file, of a tensor of a checkpoint; `None` if the architecture has no such tensor among its first `layers` blocks. Some
    /// checkpoints leave out what all names begin with.
    pub fn inverse(&self, tensor: &str, layers: usize, heads: (usize, usize)) -> Option<Place> {
        let prefix = self.blocks.split_inclusive('.').next().unwrap_or("");
        self.named(tensor, layers, heads).or_else(|| self.named(&format!("{prefix}{tensor}"), layers, heads))
    }

    fn named(&self, tensor: &str, layers: usize, heads: (usize, usize)) -> Option<Place> {
        let (stem, kind) = tensor.rsplit_once('.')?;
        let find = |list: &'static [Part], stem: &str| list.iter().find(|(_, to, _)| *to == stem).map(|(from, ..)| *from);
        let mut expert = None;
        let name = match stem.strip_prefix(self.blocks) {
            None => find(self.outside, stem).map(|from| format!("{from}.{kind}"))?,
            Some(rest) => {
                let (layer, part) = rest.split_once('.')?;
                // The one number within a block is that of an expert.
                let number = part.split('.').find(|word| word.bytes().all(|b| b.is_ascii_digit()));
                expert = number.filter(|_| self.experts).and_then(|word| word.parse().ok());
                let words = part.split('.').map(|word| if Some(word) == number { EACH } else { word });
                find(self.inside, &words.collect::<Vec<_>>().join(".")).map(|from| format!("blk.{layer}.{from}.{kind}"))?
            }
        };
        let (there, change) = self.translate(&name, layers, heads)?;
        let there = expert.map_or(there.clone(), |e: usize| there.replace(EACH, &e.to_string()));
        (there == tensor).then_some(Place { name, change, expert })
    }
}

/// A `config.json`, as an architecture reads it.
pub(super) struct Said<'a> {
    pub config: &'a Map<String, Value>,
    pub arch: &'static Arch,
    pub layers: usize,
    pub heads: (usize, usize),
    pub sizes: Sizes,
    /// Features of a head that are turned by their position.
    turned: usize,
    theta: f64,
}

/// The architecture of each `model_type`, and the activation that it computes with.
const MODELS: [(&str, &str, &str); 20] = [
    ("llama", "llama", "silu"),
    ("mistral", "llama", "silu"),
    ("qwen2", "qwen2", "silu"),
    ("qwen3", "qwen3", "silu"),
    ("smollm3", "smollm3", "silu"),
    ("olmo2", "olmo2", "silu"),
    ("gemma", "gemma", "gelu_pytorch_tanh"),
    ("gemma2", "gemma2", "gelu_pytorch_tanh"),
    ("gemma3_text", "gemma3", "gelu_pytorch_tanh"),
    ("phi", "phi2", "gelu_new"),
    ("phi3", "phi3", "silu"),
    ("nemotron", "nemotron", "relu2"),
    ("gpt2", "gpt2", "gelu_new"),
    ("mixtral", "llama", "silu"),
    ("qwen2_moe", "qwen2moe", "silu"),
    ("qwen3_moe", "qwen3moe", "silu"),
    ("olmoe", "olmoe", "silu"),
    ("gpt_neox", "gptneox", "gelu"),
    ("bloom", "bloom", "gelu_new"),
    ("stablelm", "stablelm", "silu"),
];

/// The `model_type` of the folder that a file of such a model becomes when it is imported, where such a model is written: of mistral that is llama,
/// whose architecture it has there. `None` where none is.
///
/// ```
/// use lacuna::io::gguf::comes_back_as;
/// assert_eq!((comes_back_as("mixtral"), comes_back_as("mistral"), comes_back_as("opt")), (Some("mixtral"), Some("llama"), None));
/// ```
pub fn comes_back_as(model_type: &str) -> Option<&'static str> {
    let found = MODELS.iter().find(|(of, ..)| *of == model_type).map(|(of, ..)| *of);
    found.map(|of| if of == "mistral" { "llama" } else { of })
}

fn refuse(reason: String) -> Error {
    Error::invalid_option("export", reason)
}

fn scaling_type(scaling: &Map<String, Value>) -> &str {
    scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str).unwrap_or("default")
}

impl<'a> Said<'a> {
    /// Reads a config.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the model is of a type that is not written (the line lists those that are), a size is missing, or something is
    /// said that the file could not.
    pub fn read(config: &'a Map<String, Value>) -> Result<Said<'a>> {
        let kind = config.get("model_type").and_then(Value::as_str).unwrap_or("");
        let Some((_, name, activation)) = MODELS.iter().find(|(of, ..)| *of == kind) else {
            let known = MODELS.map(|(of, ..)| of).join(", ");
            return Err(refuse(format!("model_type {} is not written as GGUF; these are: {known}", quoted(kind))));
        };
        let mixture = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"].contains(&kind);
        let arch = Arch::of(name, mixture)?;
        let count = |key: &str| config.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let must = |key: &str| count(key).ok_or_else(|| refuse(format!("the config has no count {}", quoted(key))));
        let (gpt2, bloom) = (kind == "gpt2", kind == "bloom");
        let of = |usual: &'static str, own: &'static str| if gpt2 || bloom && count(own).is_some() { own } else { usual };
        let hidden = count("hidden_size")
            .filter(|_| !gpt2)
            .map_or_else(|| must(if bloom { "n_embed" } else { of("hidden_size", "n_embd") }), Ok)?;
        let layers = must(of("num_hidden_layers", "n_layer"))?;
        let queries = must(of("num_attention_heads", "n_head"))?;
        let context =
            if bloom { count("seq_length").unwrap_or(2048) } else { must(of("max_position_embeddings", "n_positions"))? };
        let width = match kind {
            "gpt2" => count("n_inner").unwrap_or(4 * hidden),
            "bloom" => 4 * hidden,
            _ => must("intermediate_size")?,
        };
        if queries == 0 || layers == 0 {
            return Err(refuse(format!("a model of {layers} blocks and {queries} heads")));
        }
        let alone = bloom || kind == "gpt_neox";
        let keys = count("num_key_value_heads").filter(|_| !alone).unwrap_or(queries);
        let head = count("head_dim").filter(|_| !alone).unwrap_or(hidden / queries);
        let parameters = config.get("rope_parameters").and_then(Value::as_object);
        let number = |key: &str| config.get(key).and_then(Value::as_f64);
        let stated = |key: &str| number(key).or_else(|| parameters?.get(key)?.as_f64());
        let partial = stated("rotary_pct").or_else(|| stated("partial_rotary_factor")).unwrap_or(match kind {
            "phi" | "nemotron" => 0.5,
            "gpt_neox" | "stablelm" => 0.25,
            _ => 1.0,
        });
        let theta = stated("rotary_emb_base").or_else(|| stated("rope_theta"));
        let theta = theta.unwrap_or(if kind == "mixtral" { 1e6 } else { 10000.0 });
        let (experts, active) = match mixture {
            true => (must(if kind == "mixtral" { "num_local_experts" } else { "num_experts" })?, must("num_experts_per_tok")?),
            false => (0, 0),
        };
        let expert_width = if kind.starts_with("qwen") && mixture { must("moe_intermediate_size")? } else { width };
        let shared_width = if kind == "qwen2_moe" { must("shared_expert_intermediate_size")? } else { 0 };
        let (vocab, q, kv) = (must("vocab_size")?, queries * head, keys * head);
        let sizes = Sizes { hidden, vocab, context, head, q, kv, width, experts, active, expert_width, shared_width };
        let said = Said { config, arch, layers, heads: (queries, keys), sizes, turned: (partial * head as f64) as usize, theta };
        said.check(kind, activation)?;
        Ok(said)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.config.get(key).and_then(Value::as_f64)
    }

    /// The scaling of rotary frequencies, if there is one.
    fn scaling(&self) -> Option<&'a Map<String, Value>> {
        let given = ["rope_scaling", "rope_parameters"].into_iter().find_map(|key| self.config.get(key)?.as_object());
        given.filter(|scaling| scaling_type(scaling) != "default")
    }

    /// Refuses what a file of the architecture cannot say: it would be another model.
    fn check(&self, kind: &str, activation: &str) -> Result<()> {
        let text = |key: &str| self.config.get(key).and_then(Value::as_str);
        let found = ["hidden_activation", "hidden_act", "activation_function"].into_iter().find_map(text);
        // Gemma's configs say gelu and mean its approximation.
        let same = |found: &str| {
            let like = ["gelu_pytorch_tanh", "gelu_new", "gelu_fast"];
            // llama.cpp approximates it in either case.
            let near = kind == "gemma" && found == "gelu" || kind == "gpt_neox" && like.contains(&found);
            found == activation || like.contains(&found) && like.contains(&activation) || near
        };
        if let Some(found) = found.filter(|found| !same(found)) {
            return Err(refuse(format!("the activation is {}; a {} computes with {activation}", quoted(found), self.arch.name)));
        }
        let window = self.config.get("sliding_window").and_then(Value::as_u64).map(|w| w as usize);
        let used = self.config.get("use_sliding_window").and_then(Value::as_bool);
        let windowed = matches!(self.arch.name, "gemma2" | "gemma3" | "phi3") || used == Some(false);
        if let Some(window) = window.filter(|w| !windowed && *w < self.sizes.context) {
            return Err(refuse(format!("a sliding window of {window} tokens, which a {} has not", self.arch.name)));
        }
        if let Some(kinds) = self.config.get("layer_types").and_then(Value::as_array).filter(|_| windowed) {
            let pattern = |i: usize| match self.arch.name {
                "gemma2" => i % 2 == 0,
                "gemma3" => i % 6 < 5,
                "phi3" => window.is_some(),
                _ => false,
            };
            let other = |(i, kind): (usize, &Value)| (kind.as_str() == Some("sliding_attention")) != pattern(i);
            if let Some(at) = kinds.iter().enumerate().position(other) {
                return Err(refuse(format!("block {at} is of another kind of attention than a {} has there", self.arch.name)));
            }
        }
        if kind == "smollm3" && self.number("no_rope_layer_interval").is_some_and(|n| n != 4.0) {
            return Err(refuse("another interval of blocks without rotary positions than 4".to_string()));
        }
        let scalar = match (self.arch.name, self.layers) {
            ("gemma2", 46) | ("gemma3", 62) => self.sizes.hidden / self.heads.0,
            _ => self.sizes.head,
        };
        if let Some(found) = self.number("query_pre_attn_scalar").filter(|s| *s != scalar as f64) {
            return Err(refuse(format!(
                "query_pre_attn_scalar is {found}; a {} divides by the root of {scalar}",
                self.arch.name
            )));
        }
        if self.arch.name == "gemma3" && self.number("attn_logit_softcapping").is_some() {
            return Err(refuse("attn_logit_softcapping, which a gemma3 has not".to_string()));
        }
        self.check_experts()?;
        if kind == "stablelm" {
            for key in ["use_parallel_residual", "qk_layernorm"] {
                if self.config.get(key).and_then(Value::as_bool) == Some(true) {
                    return Err(refuse(format!("{key} is true, which is not written for a stablelm")));
                }
            }
        }
        if let Some(other) = ["pruned_heads", "per_layer_config"]
            .into_iter()
            .find(|key| self.config.get(*key).is_some_and(|v| v.as_object().is_some_and(|map| !map.is_empty())))
        {
            return Err(refuse(format!(
                "the config has {}: layers of different widths, which a {} has not",
                quoted(other),
                self.arch.name
            )));
        }
        Ok(())
    }

    /// Refuses mixtures that llama.cpp computes otherwise.
    fn check_experts(&self) -> Result<()> {
        if !self.arch.experts {
            return Ok(());
        }
        let normalised = self.arch.name == "llama" || self.config.get("norm_topk_prob").and_then(Value::as_bool) == Some(true);
        let wanted = matches!(self.arch.name, "llama" | "qwen3moe");
        if normalised != wanted {
            return Err(refuse(format!("norm_topk_prob is {normalised}; a {} computes with {wanted}", self.arch.name)));
        }
        let step = self.number("decoder_sparse_step").unwrap_or(1.0);
        let dense = self.config.get("mlp_only_layers").and_then(Value::as_array).map_or(0, Vec::len);
        if step != 1.0 || dense > 0 {
            return Err(refuse(format!("some blocks have no experts, which a {} has in all", self.arch.name)));
        }
        match self.config.get("clip_qkv") {
            Some(clip) if !clip.is_null() => Err(refuse("clip_qkv, which is not written".to_string())),
            _ => Ok(()),
        }
    }

    /// The keys of the architecture, and lists of divisors of rotary frequencies, which are tensors.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if the scaling of rotary frequencies is of a kind that is not written.
    pub fn keys(&self, to: &mut KeyBytes) -> Result<Vec<(&'static str, Vec<f32>)>> {
        let arch = self.arch.name;
        let key = |name: &str| format!("{arch}.{name}");
        let Sizes { hidden, vocab, context, head, width, .. } = self.sizes;
        let counts = [
            ("context_length", context),
            ("embedding_length", hidden),
            ("block_count", self.layers),
            ("feed_forward_length", width),
            ("attention.head_count", self.heads.0),
            ("attention.head_count_kv", self.heads.1),
            ("vocab_size", vocab),
        ];
        counts.into_iter().for_each(|(name, n)| to.count(&key(name), n as u32));
        let (epsilon, of) = match arch {
            "phi2" | "gptneox" | "stablelm" => ("attention.layer_norm_epsilon", "layer_norm_eps"),
            "nemotron" => ("attention.layer_norm_epsilon", "norm_eps"),
            "gpt2" | "bloom" => ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
            _ => ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        };
        // What the reference library takes where a config says nothing.
        let coarse = epsilon == "attention.layer_norm_epsilon"
            || matches!(arch, "phi3" | "olmo2" | "olmoe")
            || self.arch.experts && arch == "llama";
        to.float(&key(epsilon), self.number(of).unwrap_or(if coarse { 1e-5 } else { 1e-6 }));
        if matches!(arch, "gpt2" | "bloom") {
            return Ok(Vec::new());
        }
        if self.arch.experts {
            to.count(&key("expert_count"), self.sizes.experts as u32);
            to.count(&key("expert_used_count"), self.sizes.active as u32);
        }
        if matches!(arch, "qwen2moe" | "qwen3moe") {
            to.count(&key("expert_feed_forward_length"), self.sizes.expert_width as u32);
        }
        if arch == "qwen2moe" {
            to.count(&key("expert_shared_feed_forward_length"), self.sizes.shared_width as u32);
        }
        if matches!(arch, "gptneox" | "stablelm") {
            let parallel = self.config.get("use_parallel_residual").and_then(Value::as_bool).unwrap_or(arch == "gptneox");
            to.flag(&key("use_parallel_residual"), parallel);
        }
        for name in ["attention.key_length", "attention.value_length"] {
            to.count(&key(name), head as u32);
        }
        to.count(&key("rope.dimension_count"), self.turned as u32);
        to.float(&key("rope.freq_base"), self.theta);
        let window = self.number("sliding_window").unwrap_or(if arch == "gemma2" { 4096.0 } else { 0.0 });
        if matches!(arch, "gemma2" | "gemma3" | "phi3") {
            to.count(&key("attention.sliding_window"), window as u32);
        }
        if arch == "gemma2" {
            to.float(&key("attn_logit_softcapping"), self.number("attn_logit_softcapping").unwrap_or(50.0));
            to.float(&key("final_logit_softcapping"), self.number("final_logit_softcapping").unwrap_or(30.0));
        }
        if arch == "gemma3" {
            to.float(&key("rope.freq_base_swa"), self.number("rope_local_base_freq").unwrap_or(10000.0));
            if let Some(cap) = self.number("final_logit_softcapping") {
                to.float(&key("final_logit_softcapping"), cap);
            }
        }
        self.scaled(to)
    }

    fn scaled(&self, to: &mut KeyBytes) -> Result<Vec<(&'static str, Vec<f32>)>> {
        let Some(scaling) = self.scaling() else { return Ok(Vec::new()) };
        let key = |name: &str| format!("{}.rope.scaling.{name}", self.arch.name);
        let number = |name: &str| scaling.get(name).and_then(Value::as_f64);
        let must =
            |name: &str| number(name).ok_or_else(|| refuse(format!("the scaling of rotary positions has no {}", quoted(name))));
        let original = || {
            let own = number("original_max_position_embeddings").or_else(|| self.number("original_max_position_embeddings"));
            own.unwrap_or(self.sizes.context as f64)
        };
        let kind = scaling_type(scaling);
        match (kind, self.arch.name) {
            ("linear", _) => {
                to.text(&key("type"), "linear");
                to.float(&key("factor"), must("factor")?);
                Ok(Vec::new())
            }
            ("yarn", _) if number("mscale").is_none() && number("mscale_all_dim").is_none() => {
                let factor = must("factor")?;
                to.text(&key("type"), "yarn");
                to.float(&key("factor"), factor);
                to.count(&key("original_context_length"), original() as u32);
                for name in ["beta_fast", "beta_slow"] {
                    if let Some(turns) = number(name) {
                        to.float(&key(&format!("yarn_{name}")), turns);
                    }
                }
                if let Some(attention) = number("attention_factor") {
                    // llama.cpp multiplies by the paper's own factor besides.
                    to.float(&key("attn_factor"), attention / (1.0 + 0.1 * factor.ln()));
                }
                Ok(Vec::new())
            }
            ("llama3", "llama") => Ok(vec![(
                "rope_freqs.weight",
                self.llama3(must("factor")?, must("low_freq_factor")?, must("high_freq_factor")?, original()),
            )]),
            ("longrope" | "su", "phi3") => {
                let list = |name: &str| {
                    let numbers = scaling.get(name).and_then(Value::as_array);
                    let numbers = numbers.map(|list| list.iter().filter_map(Value::as_f64).map(|f| f as f32).collect::<Vec<_>>());
                    let fits = numbers.filter(|list| list.len() == self.turned / 2);
                    fits.ok_or_else(|| refuse(format!("{} is no list of {} numbers", quoted(name), self.turned / 2)))
                };
                let ratio = self.sizes.context as f64 / original();
                let follows = if ratio <= 1.0 { 1.0 } else { (1.0 + ratio.ln() / original().ln()).sqrt() };
                to.count(&key("original_context_length"), original() as u32);
                to.float(&key("attn_factor"), number("attention_factor").unwrap_or(follows));
                Ok(vec![("rope_factors_long.weight", list("long_factor")?), ("rope_factors_short.weight", list("short_factor")?)])
            }
            _ => Err(refuse(format!(
                "scaling of rotary positions of type {} is not written for a {}",
                quoted(kind),
                self.arch.name
            ))),
        }
    }

    /// The divisors of the frequencies of Llama 3.
    fn llama3(&self, factor: f64, low: f64, high: f64, original: f64) -> Vec<f32> {
        let wave = |pair: usize| 2.0 * std::f64::consts::PI * self.theta.powf(2.0 * pair as f64 / self.turned as f64);
        (0..self.turned / 2).map(|pair| divisor(wave(pair), factor, (low, high), original) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn changes_are_undone() {
        let values = Array2::from_shape_fn((24, 3), |(r, c)| (3 * r + c) as f32).into_dyn();
        for change in [
            Change::Same,
            Change::Unpair { heads: 2 },
            Change::Unpair { heads: 3 },
            Change::Turn,
            Change::LessOne,
            Change::Group { heads: 2 },
        ] {
            assert_eq!(change.apply(change.undo(values.clone())), values, "{change:?}");
        }
    }

    #[test]
    fn names_go_back_within_the_blocks_that_are_there() {
        let llama = Arch::of("llama", false).unwrap();
        let inverse = |name: &str| llama.inverse(name, 3, (9, 3)).map(|place| place.name);
        assert_eq!(inverse("model.layers.2.self_attn.k_proj.weight").as_deref(), Some("blk.2.attn_k.weight"));
        assert_eq!(inverse("model.norm.weight").as_deref(), Some("output_norm.weight"));
        for unknown in
            ["model.layers.3.self_attn.k_proj.weight", "model.layers.02.mlp.up_proj.weight", "model.layers.0.mlp.weight"]
        {
            assert_eq!(inverse(unknown), None, "{unknown}");
        }
        // Published checkpoints of some families leave out the first word.
        assert_eq!(inverse("layers.1.mlp.up_proj.weight").as_deref(), Some("blk.1.ffn_up.weight"));
        let place =
            |name: &str| Arch::of("llama", true).unwrap().inverse(name, 3, (9, 3)).map(|place| (place.name, place.expert));
        let expert = "model.layers.1.block_sparse_moe.experts.7.w2.weight";
        assert_eq!(place(expert), Some(("blk.1.ffn_down_exps.weight".to_string(), Some(7))));
        for unknown in
            ["model.layers.1.block_sparse_moe.experts.07.w2.weight", "model.layers.1.block_sparse_moe.experts.w2.weight"]
        {
            assert_eq!(place(unknown), None, "{unknown}");
        }
    }
}
