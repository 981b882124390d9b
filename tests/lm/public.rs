//! Configs as the files of public models have them, with keys of their time, and how many parameters those models are known to have.

use lacuna::lm::{Config, parameter_count};
use serde_json::{Value, json};

/// A model, its config, and its parameters, a tied head counted once.
fn public() -> Vec<(&'static str, Value, usize)> {
    vec![
        (
            "Llama 3.2 1B",
            json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192,
                "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
                "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
                "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
                    "original_max_position_embeddings": 8192}, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
                "attention_bias": false, "mlp_bias": false, "pretraining_tp": 1, "torch_dtype": "bfloat16"}),
            1_235_814_400,
        ),
        (
            "SmolLM2 135M",
            json!({"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "is_llama_config": true,
                "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "rms_norm_eps": 1e-5, "rope_theta": 100000,
                "rope_interleaved": false, "rope_scaling": null, "tie_word_embeddings": true, "max_position_embeddings": 8192,
                "pad_token_id": null, "bos_token_id": 0, "eos_token_id": 0}),
            134_515_008,
        ),
        (
            "Mistral 7B",
            json!({"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "sliding_window": 4096,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false, "max_position_embeddings": 32768}),
            7_241_732_096,
        ),
        (
            "Qwen2.5 0.5B",
            json!({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768,
                "max_window_layers": 24, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 32768, "use_mrope": false,
                "tie_word_embeddings": true, "use_sliding_window": false, "bos_token_id": 151643, "eos_token_id": 151643}),
            494_032_768,
        ),
        (
            "Qwen3 0.6B",
            json!({"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
                "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936, "max_position_embeddings": 40960,
                "max_window_layers": 28, "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
                "tie_word_embeddings": true, "use_sliding_window": false, "attention_bias": false}),
            596_049_920,
        ),
        (
            "Gemma 2B",
            json!({"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18, "head_dim": 256,
                "num_attention_heads": 8, "num_key_value_heads": 1, "vocab_size": 256000, "hidden_act": "gelu",
                "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 10000.0}),
            2_506_172_416,
        ),
        (
            "Gemma 2 2B",
            json!({"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "head_dim": 256,
                "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 256000, "hidden_activation": "gelu_pytorch_tanh",
                "query_pre_attn_scalar": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
                "cache_implementation": "hybrid", "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}),
            2_614_341_888,
        ),
        (
            "Gemma 3 270M",
            json!({"model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "head_dim": 256,
                "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 262144, "hidden_activation": "gelu_pytorch_tanh",
                "query_pre_attn_scalar": 256, "sliding_window": 512, "_sliding_window_pattern": 6, "attn_logit_softcapping": null,
                "final_logit_softcapping": null, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000.0,
                "rope_scaling": null, "rope_theta": 1000000.0, "use_bidirectional_attention": false, "attention_bias": false,
                "layer_types": (0..18).map(|i| if i % 6 == 5 { "full_attention" } else { "sliding_attention" }).collect::<Vec<_>>()}),
            268_098_176,
        ),
        (
            "SmolLM3 3B",
            json!({"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
                "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256, "max_position_embeddings": 65536,
                "max_window_layers": 28, "mlp_bias": false, "no_rope_layer_interval": 4, "rms_norm_eps": 1e-6, "rope_theta": 5000000.0,
                "no_rope_layers": (0..36).map(|i| u8::from(i % 4 != 3)).collect::<Vec<_>>(), "sliding_window": null,
                "use_sliding_window": false, "layer_types": vec!["full_attention"; 36], "attention_bias": false}),
            3_075_098_624,
        ),
        (
            "OLMo 2 1B",
            json!({"model_type": "olmo2", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 100352, "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 500000, "tie_word_embeddings": false}),
            1_484_916_736,
        ),
        (
            "Phi 2",
            json!({"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 51200, "hidden_act": "gelu_new",
                "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "partial_rotary_factor": 0.4, "qk_layernorm": false,
                "rope_scaling": null, "rope_theta": 10000.0, "tie_word_embeddings": false}),
            2_779_683_840,
        ),
        (
            "Phi 3 mini",
            json!({"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "original_max_position_embeddings": 4096,
                "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_scaling": null, "rope_theta": 10000.0,
                "sliding_window": 2047, "attention_bias": false, "tie_word_embeddings": false}),
            3_821_079_552,
        ),
        (
            "Phi 4 mini",
            json!({"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "interpolate_factor": 1,
                "num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": 200064, "original_max_position_embeddings": 4096,
                "max_position_embeddings": 131072, "partial_rotary_factor": 0.75, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                "rope_scaling": {"type": "longrope", "short_factor": vec![1.0; 48], "long_factor": vec![1.5; 48]},
                "lm_head_bias": false, "full_attn_mod": 1, "sliding_window": 262144, "tie_word_embeddings": true}),
            3_836_021_760,
        ),
        (
            "StableLM 2 1.6B",
            json!({"model_type": "stablelm", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
                "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 100352, "layer_norm_eps": 1e-5,
                "max_position_embeddings": 4096, "partial_rotary_factor": 0.25, "rope_theta": 10000, "use_qkv_bias": true,
                "tie_word_embeddings": false}),
            1_644_515_328,
        ),
        (
            "GPT-2",
            json!({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "n_ctx": 1024,
                "vocab_size": 50257, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "bos_token_id": 50256,
                "eos_token_id": 50256, "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}}),
            124_439_808,
        ),
        (
            "OPT 125M",
            json!({"model_type": "opt", "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 768, "do_layer_norm_before": true,
                "activation_function": "relu", "_remove_final_layer_norm": false, "bos_token_id": 2, "eos_token_id": 2, "prefix": "</s>"}),
            125_239_296,
        ),
        (
            "OPT 350M",
            json!({"model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
                "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 512, "do_layer_norm_before": false,
                "activation_function": "relu", "_remove_final_layer_norm": false}),
            331_196_416,
        ),
        (
            "Pythia 70M",
            json!({"model_type": "gpt_neox", "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6,
                "num_attention_heads": 8, "vocab_size": 50304, "max_position_embeddings": 2048, "rotary_pct": 0.25,
                "rotary_emb_base": 10000, "use_parallel_residual": true, "layer_norm_eps": 1e-5, "tie_word_embeddings": false}),
            70_426_624,
        ),
        (
            "BLOOM 560M",
            json!({"model_type": "bloom", "n_embed": 1024, "n_layer": 24, "num_attention_heads": 16, "n_inner": null,
                "vocab_size": 250880, "layer_norm_epsilon": 1e-5, "apply_residual_connection_post_layernorm": false,
                "offset_alibi": 100, "attention_softmax_in_fp32": true, "seq_length": 2048, "skip_bias_add": true, "pretraining_tp": 1}),
            559_214_592,
        ),
        (
            "Mixtral 8x7B",
            json!({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8, "sliding_window": null,
                "num_experts_per_tok": 2, "output_router_logits": false, "router_aux_loss_coef": 0.02, "rms_norm_eps": 1e-5,
                "rope_theta": 1000000.0, "tie_word_embeddings": false, "max_position_embeddings": 32768}),
            46_702_792_704,
        ),
        (
            "Qwen1.5-MoE A2.7B",
            json!({"model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
                "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151936, "num_experts": 60, "num_experts_per_tok": 4,
                "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "norm_topk_prob": false, "sliding_window": 32768,
                "decoder_sparse_step": 1, "max_window_layers": 21, "use_sliding_window": false, "rms_norm_eps": 1e-6,
                "rope_theta": 1000000.0, "tie_word_embeddings": false, "max_position_embeddings": 8192}),
            14_315_784_192,
        ),
        (
            "Qwen3 30B A3B",
            json!({"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48, "head_dim": 128,
                "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 151936, "num_experts": 128, "num_experts_per_tok": 8,
                "moe_intermediate_size": 768, "norm_topk_prob": true, "mlp_only_layers": [], "decoder_sparse_step": 1,
                "max_window_layers": 48, "sliding_window": null, "use_sliding_window": false, "rms_norm_eps": 1e-6, "rope_scaling": null,
                "rope_theta": 1000000.0, "tie_word_embeddings": false, "max_position_embeddings": 40960, "attention_bias": false}),
            30_532_122_624,
        ),
        (
            "OLMoE 1B 7B",
            json!({"model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
                "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 50304, "num_experts": 64, "num_experts_per_tok": 8,
                "norm_topk_prob": false, "clip_qkv": null, "rms_norm_eps": 1e-5, "rope_scaling": null, "rope_theta": 10000.0,
                "tie_word_embeddings": false, "max_position_embeddings": 4096, "output_router_logits": false}),
            6_919_161_856,
        ),
        // Without the layer behind the last block, which sentence encoders leave unread.
        (
            "all-MiniLM-L6-v2",
            json!({"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6,
                "num_attention_heads": 12, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
                "hidden_act": "gelu", "layer_norm_eps": 1e-12, "position_embedding_type": "absolute", "gradient_checkpointing": false}),
            22_713_216 - (384 * 384 + 384),
        ),
    ]
}

#[test]
fn models_of_public_configs_have_the_parameters_that_they_are_known_to_have() {
    for (name, config, parameters) in public() {
        let found = Config::parse(&config).and_then(|config| parameter_count(&config));
        assert_eq!(found.map_err(|e| e.to_string()), Ok(parameters), "{name}");
    }
}

#[test]
fn keys_that_are_null_are_as_if_they_were_missing() {
    let rest = ["model_type", "layer_types", "no_rope_layers"];
    for (name, config, _) in public() {
        let whole = Config::parse(&config).unwrap();
        for key in config.as_object().unwrap().keys().filter(|key| !rest.contains(&key.as_str())) {
            let (mut null, mut missing) = (config.clone(), config.clone());
            null[key] = Value::Null;
            missing.as_object_mut().unwrap().remove(key);
            let read = |json: &Value| Config::parse(json).and_then(|c| parameter_count(&c)).map_err(|e| e.to_string());
            // A window that is null is none, and key heads that are null are as many as query heads; what is missing is the family's own.
            if ["sliding_window", "num_key_value_heads"].contains(&key.as_str()) {
                continue;
            }
            assert_eq!(read(&null), read(&missing), "{name}: {key}");
        }
        assert_eq!(whole.to_json(), config, "{name} is written as it was");
    }
}

#[test]
fn what_changes_single_blocks_by_the_keys_of_other_programs_is_refused_by_its_name() {
    let (_, config, _) = public().remove(0);
    for (key, value) in [
        ("per_layer_config", json!({"3": {"intermediate_size": 4096}})),
        ("block_configs", json!([{"ffn": {"no_op": true}}])),
        ("layer_configs", json!([{"n_heads": 2}])),
    ] {
        let mut json = config.clone();
        json[key] = value;
        let line = Config::parse(&json).unwrap_err().to_string();
        let says = format!("config.json: {key}: is given; it changes single blocks, of which layer_widths alone is read");
        assert_eq!(line, says);
        for empty in [json!([]), json!({})] {
            json[key] = empty;
            assert!(Config::parse(&json).is_ok(), "{key} that is empty says nothing");
        }
    }
}

#[test]
fn a_layout_of_few_bits_that_is_not_read_is_refused_by_its_name() {
    let (_, config, _) = public().remove(0);
    let with = |said: Value| {
        let mut json = config.clone();
        json["quantization_config"] = said;
        Config::parse(&json).map(|_| ()).map_err(|e| e.to_string())
    };
    let says = |method: &str| {
        format!(
            "config.json: quantization_config: quant_method {method} is not read; compressed-tensors, gptq, awq, lacuna are; \
             plain weights go without the key"
        )
    };
    assert_eq!(with(json!({"quant_method": "fp8", "weight_block_size": [128, 128]})), Err(says("\"fp8\"")));
    assert_eq!(with(json!({"quant_method": "bitsandbytes", "load_in_8bit": true})), Err(says("\"bitsandbytes\"")));
    assert_eq!(with(json!({"load_in_8bit": true})), Err(says("null")));
    assert_eq!(with(Value::Null), Ok(()));
    assert_eq!(with(json!({"quant_method": "gptq", "bits": 4, "group_size": 32})), Ok(()));
}
