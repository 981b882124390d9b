//! What a family says of itself: the parts of its blocks, and the names of their tensors.

use super::keys::{Keys, setting};
use crate::Result;
use crate::nn::{Activation, Heads, NormKind, Rotary, Rule, Stretch};

/// Everything that building a model of a family needs, beside the weights.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) vocab: usize,
    pub(super) hidden: usize,
    /// Whether the head is the embedding.
    pub(super) tied: bool,
    pub(super) head_bias: bool,
    /// Factor of what the embedding gives.
    pub(super) embedding_scale: f32,
    /// Factor of what goes into the head.
    pub(super) head_scale: f32,
    /// Soft cap of the logits.
    pub(super) logit_cap: Option<f32>,
    /// Number of learned positions.
    pub(super) positions: Option<usize>,
    pub(super) rotary: Option<Rotary>,
    pub(super) relative: Option<Relative>,
    pub(super) norm: NormKind,
    pub(super) norm_bias: bool,
    /// Whether norms multiply by `1 + w`.
    pub(super) plus_one: bool,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
    pub(super) attention_bias: bool,
    pub(super) output_bias: bool,
    pub(super) feed_bias: bool,
    /// Whether linear weights are `(in, out)` in the file.
    pub(super) transposed: bool,
    pub(super) layers: Vec<Layer>,
    pub(super) names: Names,
    /// One, or that of the encoder and that of the decoder.
    pub(super) stacks: Vec<Stack>,
}

/// One block.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) heads: Heads,
    pub(super) rule: Rule,
    pub(super) intermediate: usize,
}

/// Relative positions, as T5 has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relative {
    pub(super) buckets: usize,
    pub(super) farthest: usize,
}

/// Tensors outside the blocks.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// What stands before every name but the head's; files of the bare model leave it out.
    pub(super) prefix: &'static str,
    pub(super) embedding: &'static str,
    pub(super) positions: &'static str,
    pub(super) head: &'static str,
}

/// A run of blocks.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    pub(super) blocks: usize,
    /// What stands before a block's number.
    pub(super) path: &'static str,
    pub(super) final_norm: &'static str,
    pub(super) parts: Parts,
}

/// Names within a block.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) norm: &'static str,
    /// Of q, k and v; or of the one layer that is all three.
    pub(super) inputs: &'static [&'static str],
    pub(super) output: &'static str,
    pub(super) attention_after: Option<&'static str>,
    /// Norm, q, k, v and output of attention to a memory.
    pub(super) cross: Option<[&'static str; 5]>,
    /// None where the feed-forward layers run beside attention.
    pub(super) feed_norm: Option<&'static str>,
    pub(super) opening: Opens,
    pub(super) down: &'static str,
    pub(super) feed_after: Option<&'static str>,
}

/// The first feed-forward layers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Opens {
    Plain(&'static str),
    Gated(&'static str, &'static str),
    Fused(&'static str),
}

/// The names of Llama's block, which others share.
pub(super) const USUAL: Parts = Parts {
    norm: "input_layernorm",
    inputs: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    output: "self_attn.o_proj",
    attention_after: None,
    cross: None,
    feed_norm: Some("post_attention_layernorm"),
    opening: Opens::Gated("mlp.gate_proj", "mlp.up_proj"),
    down: "mlp.down_proj",
    feed_after: None,
};

/// What differs between the defaults of families that share their keys.
pub(super) struct Defaults {
    /// Heads of keys and values; as many as of queries if there is none.
    pub(super) kv_heads: Option<usize>,
    /// Width of a head; the hidden size is shared out if there is none.
    pub(super) head_dim: Option<usize>,
    /// Key and default of the norms' ε.
    pub(super) epsilon: (&'static str, f64),
    pub(super) activation: (&'static str, &'static str),
    pub(super) tied: bool,
    /// Share of a head that is turned.
    pub(super) rotary: f64,
}

/// Llama's own.
pub(super) const LLAMA: Defaults = Defaults {
    kv_heads: None,
    head_dim: None,
    epsilon: ("rms_norm_eps", 1e-6),
    activation: ("hidden_act", "silu"),
    tied: false,
    rotary: 1.0,
};

impl Recipe {
    /// A decoder whose config has the usual keys, with Llama's blocks: what other families start from.
    pub(super) fn usual(keys: Keys<'_>, defaults: Defaults) -> Result<Recipe> {
        let hidden = keys.size("hidden_size")?;
        let queries = keys.size("num_attention_heads")?;
        let kv = keys.size_or("num_key_value_heads", defaults.kv_heads.unwrap_or(queries))?;
        let dim = match (keys.get("head_dim"), defaults.head_dim) {
            (Some(_), _) => keys.size("head_dim")?,
            (None, Some(dim)) => dim,
            (None, None) => share(hidden, queries, "num_attention_heads")?,
        };
        let turned = (dim as f64 * keys.number("partial_rotary_factor", defaults.rotary)?) as usize;
        let rule = Rule { scale: (dim as f32).powf(-0.5), cap: None, window: None, causal: true };
        let heads = Heads { queries, keys: kv, dim };
        let blocks = keys.blocks("num_hidden_layers")?;
        let layer = Layer { heads, rule, intermediate: keys.size("intermediate_size")? };
        Ok(Recipe {
            vocab: keys.size("vocab_size")?,
            hidden,
            tied: keys.flag("tie_word_embeddings", defaults.tied)?,
            head_bias: false,
            embedding_scale: 1.0,
            head_scale: 1.0,
            logit_cap: None,
            positions: None,
            rotary: Some(rotary(keys, turned, dim)?),
            relative: None,
            norm: NormKind::Rms,
            norm_bias: false,
            plus_one: false,
            epsilon: keys.number(defaults.epsilon.0, defaults.epsilon.1)? as f32,
            activation: activation(keys, defaults.activation.0, defaults.activation.1)?,
            attention_bias: false,
            output_bias: false,
            feed_bias: false,
            transposed: false,
            layers: vec![layer; blocks],
            names: Names { prefix: "model.", embedding: "embed_tokens", positions: "", head: "lm_head" },
            stacks: vec![Stack { blocks, path: "layers", final_norm: "norm", parts: USUAL }],
        })
    }

    /// Refuses what contradicts itself.
    pub(super) fn check(&self) -> Result<()> {
        for (i, Layer { heads, .. }) in self.layers.iter().enumerate() {
            if heads.queries % heads.keys != 0 {
                let reason = format!("block {i}: {} heads do not share {} key-value heads evenly", heads.queries, heads.keys);
                return Err(setting("num_key_value_heads", reason));
            }
        }
        Ok(())
    }

    /// The stack of a block, and its number there.
    pub(super) fn place(&self, block: usize) -> (&Stack, usize) {
        let mut left = block;
        for stack in &self.stacks {
            if left < stack.blocks {
                return (stack, left);
            }
            left -= stack.blocks;
        }
        panic!("block {block} of {}", self.layers.len())
    }
}

/// An even share.
pub(super) fn share(hidden: usize, heads: usize, key: &str) -> Result<usize> {
    if hidden % heads == 0 {
        Ok(hidden / heads)
    } else {
        Err(setting(key, format!("{heads} does not divide the hidden size {hidden}")))
    }
}

/// The activation under a key.
pub(super) fn activation(keys: Keys<'_>, key: &str, default: &str) -> Result<Activation> {
    let known = [
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
        ("relu2", Activation::SquaredRelu),
    ];
    let name = keys.get(key).map_or(Ok(default), |_| keys.text(key, ""))?;
    known.iter().find(|(known, _)| *known == name).map(|(_, a)| *a).ok_or_else(|| {
        let known: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        setting(key, format!("{} is none of {}", crate::io::quoted(name), known.join(", ")))
    })
}

/// Rotary positions over the first `turned` of `dim` features, with the stretch that `rope_scaling` names.
fn rotary(keys: Keys<'_>, turned: usize, dim: usize) -> Result<Rotary> {
    if turned % 2 != 0 || turned > dim || turned > 1 << 16 {
        let reason =
            format!("{turned} of {dim} features of a head would be turned; an even number not above {dim} and 65536 can be");
        return Err(setting("partial_rotary_factor", reason));
    }
    let object = keys.get("rope_scaling").or_else(|| keys.get("rope_parameters"));
    let mut theta = keys.positive("rope_theta", 1e4)?;
    let Some(object) = object else { return Ok(Rotary::new(turned, theta, Stretch::None)) };
    let scaling = Keys(object.as_object().ok_or_else(|| setting("rope_scaling", "is not an object"))?);
    if scaling.get("rope_theta").is_some() {
        theta = scaling.positive("rope_theta", 1e4)?;
    }
    Ok(Rotary::new(turned, theta, stretch(keys, scaling, turned)?))
}

/// The stretch that `rope_scaling` names. Lengths that it does not give stand beside it.
fn stretch(keys: Keys<'_>, scaling: Keys<'_>, turned: usize) -> Result<Stretch> {
    let mut kind = scaling.text("rope_type", scaling.text("type", "default")?)?;
    if kind == "su" || kind == "yarn" && scaling.get("short_factor").is_some() {
        kind = "longrope"; // what the first files of Phi-3 call it
    }
    let needed = |key: &str| -> Result<f32> {
        if scaling.get(key).is_none() {
            return Err(setting("rope_scaling", format!("{kind} needs {key}")));
        }
        scaling.positive(key, 0.0)
    };
    const ORIGINAL: &str = "original_max_position_embeddings";
    Ok(match kind {
        "default" => Stretch::None,
        "linear" => Stretch::Linear(needed("factor")?),
        "llama3" => Stretch::Llama3 {
            factor: needed("factor")?,
            low: needed("low_freq_factor")?,
            high: needed("high_freq_factor")?,
            length: needed(ORIGINAL)?,
        },
        "yarn" => {
            let factor = needed("factor")?;
            let length = match scaling.size_if(ORIGINAL)? {
                Some(length) => length,
                None => keys.size("max_position_embeddings")?,
            };
            // Equation 22, with the factor before the logarithm that later models write down.
            let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * f64::from(factor).ln() + 1.0 };
            let amplitude = match (scaling.number_if("mscale")?, scaling.number_if("mscale_all_dim")?) {
                (Some(m), Some(all)) if m != 0.0 && all != 0.0 => scale(m) / scale(all),
                _ => scale(1.0),
            };
            Stretch::Yarn {
                factor,
                fast: scaling.positive("beta_fast", 32.0)?,
                slow: scaling.positive("beta_slow", 1.0)?,
                length: length as f32,
                whole: scaling.flag("truncate", true)?,
                amplitude: scaling.positive("attention_factor", amplitude)?,
            }
        }
        "longrope" => {
            let factors = |key: &str| -> Result<Vec<f32>> {
                let reason = || setting("rope_scaling", format!("{key} is not a list of {} numbers above 0", turned / 2));
                let list = scaling.get(key).and_then(|v| v.as_array()).filter(|l| l.len() == turned / 2).ok_or_else(reason)?;
                let number = |v: &serde_json::Value| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite() && *x > 0.0);
                list.iter().map(|v| number(v).ok_or_else(reason)).collect()
            };
            let longest = keys.size("max_position_embeddings")?;
            let beside = keys.size_if(ORIGINAL)?.or(scaling.size_if(ORIGINAL)?);
            let length = beside.unwrap_or(longest);
            if length < 2 {
                return Err(setting(ORIGINAL, format!("longrope needs 2 positions or more, not {length}")));
            }
            let factor = if beside.is_some() { longest as f64 / length as f64 } else { f64::from(needed("factor")?) };
            let amplitude = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (length as f64).ln()).sqrt() };
            let amplitude = scaling.positive("attention_factor", amplitude)?;
            Stretch::Long { short: factors("short_factor")?, long: factors("long_factor")?, length, amplitude }
        }
        other => {
            let reason = format!("type {} is none of default, linear, llama3, yarn, longrope", crate::io::quoted(other));
            return Err(setting("rope_scaling", reason));
        }
    })
}
