//! The settings of a GGUF file as the `config.json` of the same model.

use super::arch::{Arch, Joint};
use super::keys::{Keys, Model};
use super::{Gguf, rope};
use crate::Result;
use serde_json::{Map, Value, json};

/// The `config.json` of the model. `tied` says whether the head is the embedding, `biased` which layers have biases.
pub(super) fn config(
    file: &Gguf,
    arch: &Arch,
    (model, tied): (&Model, bool),
    biased: impl Fn(Joint) -> bool,
    dtype: &str,
) -> Result<Map<String, Value>> {
    let keys = Keys { file, arch: arch.name };
    let Model { layers, heads: (heads, kv_heads), head_dim, turned, sizes } = *model;
    let (hidden, context) = (sizes.hidden, sizes.context);
    let theta = keys.number_or("rope.freq_base")?.unwrap_or(10000.0);
    let mut config = json!({
        "vocab_size": sizes.vocab, "tie_word_embeddings": tied, "torch_dtype": dtype, "use_cache": true,
    });
    if !matches!(arch.name, "gpt2" | "bloom") {
        let scaling = rope::scaling(keys, model, theta)?;
        let long = arch.name == "phi3" || scaling.get("type").is_some();
        let common = json!({
            "hidden_size": hidden, "intermediate_size": sizes.width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "max_position_embeddings": context, "rope_theta": theta, "rope_scaling": scaling,
        });
        extend(&mut config, common);
        if arch.name != "gptneox" {
            extend(&mut config, json!({"num_key_value_heads": kv_heads}));
        }
        if long {
            extend(&mut config, json!({"original_max_position_embeddings": rope::original(keys, model)}));
        }
    }
    let partial = share(turned, head_dim);
    let own = match arch.name {
        "llama" if arch.experts => json!({
            "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu", "head_dim": head_dim,
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "sliding_window": null,
            "num_local_experts": sizes.experts, "num_experts_per_tok": sizes.active,
        }),
        "qwen2moe" => json!({
            "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "hidden_act": "silu",
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "use_sliding_window": false,
            "num_experts": sizes.experts, "num_experts_per_tok": sizes.active, "moe_intermediate_size": sizes.expert_width,
            "shared_expert_intermediate_size": sizes.shared_width, "norm_topk_prob": false, "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }),
        "qwen3moe" => json!({
            "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu", "head_dim": head_dim,
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "use_sliding_window": false,
            "attention_bias": biased(Joint::Attention), "num_experts": sizes.experts, "num_experts_per_tok": sizes.active,
            "moe_intermediate_size": sizes.expert_width, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
        }),
        "olmoe" => json!({
            "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_act": "silu",
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "attention_bias": biased(Joint::Attention),
            "num_experts": sizes.experts, "num_experts_per_tok": sizes.active, "norm_topk_prob": false, "clip_qkv": null,
        }),
        "gptneox" => json!({
            "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_act": "gelu", "rotary_pct": partial,
            "rotary_emb_base": theta, "layer_norm_eps": keys.epsilon("attention.layer_norm_epsilon")?, "attention_bias": true,
            "use_parallel_residual": file.flag_or(&keys.key("use_parallel_residual"))?.unwrap_or(true),
        }),
        "bloom" => json!({
            "architectures": ["BloomForCausalLM"], "model_type": "bloom", "hidden_size": hidden, "n_layer": layers,
            "n_head": heads, "seq_length": context, "layer_norm_epsilon": keys.epsilon("attention.layer_norm_epsilon")?,
            "apply_residual_connection_post_layernorm": false,
        }),
        // The file has a norm before the feed-forward layers, whatever its use_parallel_residual says; so llama.cpp takes it.
        "stablelm" => json!({
            "architectures": ["StableLmForCausalLM"], "model_type": "stablelm", "hidden_act": "silu",
            "layer_norm_eps": keys.epsilon("attention.layer_norm_epsilon")?, "partial_rotary_factor": partial,
            "use_qkv_bias": biased(Joint::Attention), "qk_layernorm": false, "use_parallel_residual": false,
        }),
        "llama" => json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "head_dim": head_dim, "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?,
            "attention_bias": biased(Joint::Attention), "mlp_bias": biased(Joint::Feed),
        }),
        "gemma2" => {
            // llama.cpp divides by the root of the head's width, but for the model of 46 blocks by that of hidden / heads.
            let scalar = if layers == 46 { hidden / heads } else { head_dim };
            let window = keys.count_or("attention.sliding_window")?.unwrap_or(4096);
            if window == 0 {
                return Err(keys.refuse("attention.sliding_window", "is 0"));
            }
            let kind = |on: &bool| if *on { "sliding_attention" } else { "full_attention" };
            let kinds = model.windowed(keys)?.map(|on| on.iter().map(kind).collect::<Vec<_>>());
            if let Some(kinds) = kinds {
                extend(&mut config, json!({"layer_types": kinds}));
            }
            json!({
                "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh",
                "hidden_act": "gelu_pytorch_tanh", "head_dim": head_dim,
                "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "attention_bias": false,
                "sliding_window": window,
                "attn_logit_softcapping": keys.cap("attn_logit_softcapping")?.unwrap_or(50.0),
                "final_logit_softcapping": keys.cap("final_logit_softcapping")?.unwrap_or(30.0),
                "query_pre_attn_scalar": scalar,
            })
        }
        "qwen2" => json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "use_sliding_window": false,
        }),
        "qwen3" => json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", "head_dim": head_dim,
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "use_sliding_window": false,
            "attention_bias": biased(Joint::Attention),
        }),
        "gemma" => json!({
            "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh", "head_dim": head_dim,
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "attention_bias": false,
        }),
        "gemma3" => {
            // As for the largest gemma2: the model of 62 blocks divides by the root of hidden / heads.
            let scalar = if layers == 62 { hidden / heads } else { head_dim };
            let Some(window) = keys.count_or("attention.sliding_window")?.filter(|w| *w > 0) else {
                return Err(keys.refuse("attention.sliding_window", "is missing or 0"));
            };
            let on = model.windowed(keys)?.unwrap_or_else(|| (0..layers).map(|i| i % 6 < 5).collect());
            let kinds: Vec<_> = on.iter().map(|on| if *on { "sliding_attention" } else { "full_attention" }).collect();
            json!({
                "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh",
                "head_dim": head_dim, "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "attention_bias": false,
                "sliding_window": window, "layer_types": kinds, "query_pre_attn_scalar": scalar,
                "rope_local_base_freq": keys.number_or("rope.freq_base_swa")?.unwrap_or(10000.0),
                "attn_logit_softcapping": null,
                "final_logit_softcapping": keys.number_or("final_logit_softcapping")?.filter(|cap| *cap != 0.0),
            })
        }
        "smollm3" => json!({
            "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "hidden_act": "silu", "no_rope_layer_interval": 4,
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "use_sliding_window": false,
            "attention_bias": biased(Joint::Attention), "mlp_bias": biased(Joint::Feed),
        }),
        "olmo2" => json!({
            "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "hidden_act": "silu",
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?, "attention_bias": biased(Joint::Attention),
        }),
        "phi2" => json!({
            "architectures": ["PhiForCausalLM"], "model_type": "phi", "hidden_act": "gelu_new", "partial_rotary_factor": partial,
            "layer_norm_eps": keys.epsilon("attention.layer_norm_epsilon")?, "qk_layernorm": false,
        }),
        "phi3" => json!({
            "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu",
            "rms_norm_eps": keys.epsilon("attention.layer_norm_rms_epsilon")?,
            "sliding_window": keys.count_or("attention.sliding_window")?.filter(|w| *w > 0), "partial_rotary_factor": partial,
        }),
        "nemotron" => json!({
            "architectures": ["NemotronForCausalLM"], "model_type": "nemotron", "hidden_act": "relu2", "head_dim": head_dim,
            "norm_eps": keys.epsilon("attention.layer_norm_epsilon")?, "partial_rotary_factor": partial,
            "attention_bias": biased(Joint::Attention), "mlp_bias": biased(Joint::Feed),
        }),
        _ => json!({
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "n_embd": hidden,
            "n_layer": layers, "n_head": heads, "n_positions": context, "n_inner": sizes.width,
            "layer_norm_epsilon": keys.epsilon("attention.layer_norm_epsilon")?,
        }),
    };
    extend(&mut config, own);
    for (key, named) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")] {
        // One that the file does not name is none: the library's own defaults are those of another vocabulary.
        extend(&mut config, json!({ named: file.count_or(&format!("tokenizer.ggml.{key}_token_id"))? }));
    }
    // What ends a turn or a message ends a text too.
    let mut ends: Vec<u64> = Vec::new();
    for key in ["eos", "eot", "eom"] {
        let id = file.count_or(&format!("tokenizer.ggml.{key}_token_id"))?.map(|id| id as u64);
        ends.extend(id.filter(|id| !ends.contains(id)));
    }
    if ends.len() > 1 {
        extend(&mut config, json!({ "eos_token_id": ends }));
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

/// The share that gives this count of features when it is multiplied by the width of a head and cut to a whole number.
fn share(turned: usize, head_dim: usize) -> f64 {
    let share = turned as f64 / head_dim.max(1) as f64;
    if (share * head_dim as f64) as usize == turned { share } else { share.next_up() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_share_of_a_head_gives_its_features_back() {
        for head_dim in 1..=512usize {
            for turned in 0..=head_dim {
                assert_eq!((super::share(turned, head_dim) * head_dim as f64) as usize, turned, "{turned} of {head_dim}");
            }
        }
    }
}
