//! The settings of a GGUF file as the `config.json` of the same model.

use super::{Arch, Gguf};
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// Rotary frequencies of Llama 3.1 and 3.2: factor, and the length that the model was trained at first.
const LLAMA3: [(f64, f64); 2] = [(8.0, 8192.0), (32.0, 8192.0)];

/// A number that was rounded to 32 bits, as the shortest decimal that rounds to it.
fn neat(x: f64) -> f64 {
    let short = (x as f32).to_string().parse().unwrap_or(x);
    if f64::from(x as f32) == x { short } else { x }
}

/// What the architecture's own keys say.
struct Keys<'a> {
    file: &'a Gguf,
    arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn count(&self, key: &str) -> Result<usize> {
        self.file.count(&self.key(key))
    }

    fn count_or(&self, key: &str) -> Result<Option<usize>> {
        self.file.count_or(&self.key(key))
    }

    fn number(&self, key: &str) -> Result<f64> {
        self.file.number(&self.key(key)).map(neat)
    }

    fn number_or(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.file.number_or(&self.key(key))?.map(neat))
    }
}

/// The number of blocks, and of query and key heads.
pub(super) fn sizes(file: &Gguf, arch: &Arch) -> Result<(usize, (usize, usize))> {
    let keys = Keys { file, arch: arch.name };
    let heads = keys.count("attention.head_count")?;
    let layers = keys.count("block_count")?;
    let refuse = |reason: String| Error::malformed(file.path(), reason);
    if layers > file.tensors().len() {
        return Err(refuse(format!("{} blocks are stated, but there are only {} tensors", layers, file.tensors().len())));
    }
    if heads == 0 {
        return Err(refuse("a model of 0 heads is stated".to_string()));
    }
    Ok((layers, (heads, keys.count_or("attention.head_count_kv")?.unwrap_or(heads))))
}

/// The `config.json` of the model. `tied` says whether the head is the embedding.
pub(super) fn config(file: &Gguf, arch: &Arch, tied: bool, dtype: &str) -> Result<Map<String, Value>> {
    let keys = Keys { file, arch: arch.name };
    if let Some(experts) = keys.count_or("expert_count")?.filter(|n| *n > 0) {
        return Err(Error::malformed(file.path(), format!("{experts} experts are stated; mixtures of experts are not read")));
    }
    let (layers, (heads, kv_heads)) = sizes(file, arch)?;
    let hidden = keys.count("embedding_length")?;
    let context = keys.count("context_length")?;
    let vocab = file.tensor("token_embd.weight").and_then(|t| t.shape.first().copied()).unwrap_or(0);
    let rotary = keys.count_or("rope.dimension_count")?;
    let key_length = keys.count_or("attention.key_length")?;
    let theta = keys.number_or("rope.freq_base")?.unwrap_or(10000.0);
    let mut config = json!({
        "vocab_size": vocab, "tie_word_embeddings": tied, "torch_dtype": dtype, "use_cache": true,
    });
    if arch.name != "gpt2" {
        let common = json!({
            "hidden_size": hidden, "intermediate_size": keys.count("feed_forward_length")?, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": context, "rope_theta": theta,
        });
        extend(&mut config, common);
    }
    let head_dim = key_length.unwrap_or(hidden / heads);
    let partial = rotary.map_or(1.0, |r| r as f64 / head_dim.max(1) as f64);
    let own = match arch.name {
        "llama" => json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "head_dim": key_length.or(rotary).unwrap_or(head_dim), "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon")?,
            "attention_bias": file.tensor("blk.0.attn_q.bias").is_some(), "mlp_bias": file.tensor("blk.0.ffn_up.bias").is_some(),
            "rope_scaling": llama_scaling(file, &keys, key_length.or(rotary).unwrap_or(head_dim), theta)?,
        }),
        "gemma2" => {
            // llama.cpp divides by the root of the head's width, but for the model of 46 blocks by that of hidden / heads.
            let scalar = if layers == 46 { hidden / heads } else { head_dim };
            json!({
                "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh",
                "hidden_act": "gelu_pytorch_tanh", "head_dim": head_dim,
                "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon")?, "attention_bias": false,
                "sliding_window": keys.count_or("attention.sliding_window")?.unwrap_or(4096),
                "attn_logit_softcapping": keys.number_or("attn_logit_softcapping")?.unwrap_or(50.0),
                "final_logit_softcapping": keys.number_or("final_logit_softcapping")?.unwrap_or(30.0),
                "query_pre_attn_scalar": scalar,
            })
        }
        "phi2" => json!({
            "architectures": ["PhiForCausalLM"], "model_type": "phi", "hidden_act": "gelu_new", "partial_rotary_factor": partial,
            "layer_norm_eps": keys.number("attention.layer_norm_epsilon")?, "qk_layernorm": false, "rope_scaling": null,
        }),
        "phi3" => {
            let original = keys.count_or("rope.scaling.original_context_length")?.unwrap_or(context);
            json!({
                "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu",
                "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon")?, "original_max_position_embeddings": original,
                "sliding_window": keys.count_or("attention.sliding_window")?.filter(|w| *w > 0),
                "partial_rotary_factor": partial, "rope_scaling": long_rope(file)?,
            })
        }
        "nemotron" => json!({
            "architectures": ["NemotronForCausalLM"], "model_type": "nemotron", "hidden_act": "relu2", "head_dim": head_dim,
            "norm_eps": keys.number("attention.layer_norm_epsilon")?, "partial_rotary_factor": partial,
            "attention_bias": file.tensor("blk.0.attn_q.bias").is_some(), "mlp_bias": file.tensor("blk.0.ffn_up.bias").is_some(),
        }),
        _ => json!({
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "n_embd": hidden,
            "n_layer": layers, "n_head": heads, "n_positions": context, "n_inner": keys.count_or("feed_forward_length")?,
            "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon")?,
        }),
    };
    extend(&mut config, own);
    for (key, named) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")] {
        if let Some(id) = file.count_or(&format!("tokenizer.ggml.{key}_token_id"))? {
            extend(&mut config, json!({ named: id }));
        }
    }
    match config {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

fn extend(config: &mut Value, with: Value) {
    if let (Value::Object(config), Value::Object(with)) = (config, with) {
        config.extend(with);
    }
}

/// The scaling of the rotary frequencies of the Llama family: linear or YaRN by keys, or that of Llama 3.1 by its factors.
fn llama_scaling(file: &Gguf, keys: &Keys<'_>, head_dim: usize, theta: f64) -> Result<Value> {
    let kind = file.text_or(&keys.key("rope.scaling.type"))?.unwrap_or("none");
    match kind {
        "none" => {}
        "linear" => return Ok(json!({"rope_type": "linear", "factor": keys.number("rope.scaling.factor")?})),
        "yarn" => {
            let factor = keys.number("rope.scaling.factor")?;
            let mut scaling = json!({"rope_type": "yarn", "factor": factor});
            if let Some(original) = keys.count_or("rope.scaling.original_context_length")? {
                extend(&mut scaling, json!({"original_max_position_embeddings": original}));
            }
            for key in ["beta_fast", "beta_slow"] {
                if let Some(turns) = keys.number_or(&format!("rope.scaling.yarn_{key}"))? {
                    extend(&mut scaling, json!({ key: turns }));
                }
            }
            if let Some(by) = keys.number_or("rope.scaling.attn_factor")? {
                extend(&mut scaling, json!({"attention_factor": by * (1.0 + 0.1 * factor.max(1.0).ln())}));
            }
            return Ok(scaling);
        }
        _ => {
            let reason = format!("rope.scaling.type is {}; none, linear and yarn are read", crate::io::quoted(kind));
            return Err(Error::malformed(file.path(), reason));
        }
    }
    if file.tensor("rope_freqs.weight").is_none() {
        return Ok(Value::Null);
    }
    let stored = file.read("rope_freqs.weight")?;
    for (factor, original) in LLAMA3 {
        let wanted = (0..head_dim / 2).map(|i| llama3_factor(theta, head_dim, i, factor, original));
        let near = |(a, b): (&f32, f64)| (f64::from(*a) - b).abs() <= 1e-3 * b;
        if stored.len() == head_dim / 2 && stored.iter().zip(wanted).all(near) {
            return Ok(json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": original as usize,
            }));
        }
    }
    Err(Error::malformed(file.path(), "tensor 'rope_freqs.weight' holds none of the factors of Llama 3.1 and 3.2"))
}

/// By how much Llama 3.1 divides frequency `i`: by 1 where the wave is short against the original length, by `factor` where it is
/// long, smoothly between.
fn llama3_factor(theta: f64, head_dim: usize, i: usize, factor: f64, original: f64) -> f64 {
    let (low, high) = (1.0, 4.0);
    let wave = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / head_dim as f64);
    if wave < original / high {
        1.0
    } else if wave > original / low {
        factor
    } else {
        let smooth = (original / wave - low) / (high - low);
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}

/// Phi-3's two lists of factors, if the file has them.
fn long_rope(file: &Gguf) -> Result<Value> {
    let list = |name: &str| -> Result<Option<Vec<f64>>> {
        if file.tensor(name).is_none() {
            return Ok(None);
        }
        Ok(Some(file.read(name)?.iter().map(|f| neat(f64::from(*f))).collect()))
    };
    Ok(match (list("rope_factors_short.weight")?, list("rope_factors_long.weight")?) {
        (Some(short), Some(long)) => json!({"type": "longrope", "short_factor": short, "long_factor": long}),
        _ => Value::Null,
    })
}
