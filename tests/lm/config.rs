//! Configs: what is read, what is written, what is refused.

use crate::common::{ALL, Golden, Model};
use lacuna::io::{Checkpoint, Dtype};
use lacuna::lm::{Config, Widths};
use lacuna::rng::Seed;
use ndarray::{Array, IxDyn};
use serde_json::{Value, json};

fn refused(golden: &Golden, key: &str, value: Value) -> String {
    let mut json = golden.json.clone();
    json[key] = value;
    Config::parse(&json).expect_err(key).to_string()
}

#[test]
fn an_unknown_model_type_lists_those_that_are_known() {
    let e = refused(&Golden::read("llama"), "model_type", json!("lama"));
    let known = "llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, smollm3, olmo2, phi, phi3, nemotron, stablelm, gpt2, opt, \
                 gpt_neox, bloom, mixtral, qwen2_moe, qwen3_moe, olmoe, bert, t5, olmo3";
    assert_eq!(e, format!("config.json: model_type: 'lama' is none of {known}"));
}

#[test]
fn keys_that_are_missing_of_another_type_or_contradict_each_other_are_named() {
    let llama = Golden::read("llama");
    for (key, value, reason) in [
        ("hidden_size", json!("18"), "config.json: hidden_size: \"18\" is not a size"),
        ("hidden_size", Value::Null, "config.json: hidden_size: is missing"),
        ("hidden_size", json!(0), "config.json: hidden_size: 0 is not a size above 0"),
        ("vocab_size", json!(1u64 << 40), "config.json: vocab_size: 1099511627776 is not a size"),
        ("num_hidden_layers", json!(20_000), "config.json: num_hidden_layers: 20000 blocks; at most 10000 are read"),
        (
            "num_key_value_heads",
            json!(2),
            "config.json: num_key_value_heads: block 0: 3 heads do not share 2 key-value heads evenly",
        ),
        ("hidden_act", json!("mish"), "config.json: hidden_act: 'mish' is none of silu, swish,"),
        (
            "rope_scaling",
            json!({"rope_type": "dynamic"}),
            "config.json: rope_scaling: type 'dynamic' is none of default, linear, llama3, yarn, longrope",
        ),
        ("rope_scaling", json!({"rope_type": "yarn"}), "config.json: rope_scaling: yarn needs factor"),
        (
            "rope_scaling",
            json!({"rope_type": "longrope", "factor": 2.0, "short_factor": [1, 1], "long_factor": [1, 1, 1]}),
            "config.json: rope_scaling: short_factor is not a list of 3 numbers above 0",
        ),
        ("rope_scaling", json!({"rope_type": "llama3"}), "config.json: rope_scaling: llama3 needs factor"),
        ("layer_widths", json!([{}]), "config.json: layer_widths: has 1 entries for 2 layers"),
        ("layer_widths", json!([{}, 3]), "config.json: layer_widths: entry 1 is not an object"),
        ("partial_rotary_factor", json!(0.6), "config.json: partial_rotary_factor: 3 of 6 features"),
        ("rms_norm_eps", json!(-1e-6), "config.json: rms_norm_eps: -1e-6 is not a number of at least 0 in 32 bits"),
        ("rms_norm_eps", json!(1e39), "config.json: rms_norm_eps: 1e+39 is not a number of at least 0 in 32 bits"),
        ("rope_theta", json!(1e39), "config.json: rope_theta: 1e+39 is not a number above 0 in 32 bits"),
        ("rope_theta", json!(1e-46), "config.json: rope_theta: 1e-46 is not a number above 0 in 32 bits"),
        ("eos_token_id", json!([2, "3"]), "config.json: eos_token_id: [2,\"3\"] is not ids of tokens"),
        ("bos_token_id", json!("1"), "config.json: bos_token_id: \"1\" is not ids of tokens"),
        ("max_position_embeddings", json!("2048"), "config.json: max_position_embeddings: \"2048\" is not a size"),
    ] {
        let e = refused(&llama, key, value);
        assert!(e.starts_with(reason), "{e}");
    }
    let e = refused(&Golden::read("gemma2"), "layer_types", json!(["full_attention", "x", "full_attention"]));
    assert_eq!(e, "config.json: layer_types: 'x' is neither sliding_attention nor full_attention");
}

#[test]
fn tensors_that_are_missing_left_over_or_of_another_shape_are_named() {
    let golden = Golden::read("mistral");
    let e = |weights: &Checkpoint, json: &Value| match Model::load(weights, Config::parse(json).unwrap()) {
        Ok(_) => panic!("loaded"),
        Err(e) => e.to_string(),
    };
    let tensor = "model.layers.1.mlp.up_proj.weight";
    let mut fewer = golden.weights.clone();
    fewer.remove(tensor).unwrap();
    let found = e(&fewer, &golden.json);
    assert!(found.starts_with(&format!("weights: tensor '{tensor}' is missing among 20")), "{found}");
    let mut more = golden.weights.clone();
    more.insert("model.layers.2.mlp.up_proj.weight", Array::<f32, _>::zeros((2, 2)), Dtype::F32).unwrap();
    let found = e(&more, &golden.json);
    assert_eq!(found, "weights: tensor 'model.layers.2.mlp.up_proj.weight' belongs to no part of the model (1 such)");
    for says in [1, 3] {
        let mut json = golden.json.clone();
        json["num_hidden_layers"] = json!(says);
        let found = e(&golden.weights, &json);
        assert_eq!(found, format!("weights: have 2 blocks, 'model.layers.0' to 'model.layers.1'; the config says {says}"));
    }
    let t5 = Golden::read("t5");
    let mut json = t5.json.clone();
    json["num_decoder_layers"] = json!(5);
    assert_eq!(e(&t5.weights, &json), "weights: have 2 blocks, 'decoder.block.0' to 'decoder.block.1'; the config says 5");
    let mut json = golden.json.clone();
    json["intermediate_size"] = json!(24);
    let found = e(&golden.weights, &json);
    assert_eq!(found, "tensor 'model.layers.0.mlp.gate_proj.weight': expected shape [24, 16], found [20, 16]");
}

#[test]
fn ids_outside_the_vocabulary_and_behind_the_last_position_are_refused() {
    let Model::Decoder(model) = Golden::read("gpt2").model() else { panic!("a decoder") };
    let e = |ids: &[u32]| model.forward(ids).unwrap_err().to_string();
    assert_eq!(e(&[3, 41]), "ids: token 1 is 41; the vocabulary has 41");
    assert_eq!(e(&[3; 25]), "ids: 25 positions; the model has learned 24");
    assert_eq!(e(&[]), "ids: 0 tokens are not whole sequences of 0");
    let mut cache = model.cache();
    model.step(&[3; 24], &mut cache).unwrap();
    assert_eq!(model.step(&[3], &mut cache).unwrap_err().to_string(), "ids: 25 positions; the model has learned 24");
    assert_eq!(cache.len(), 24);
    let both = [3, 4, 5];
    let e = model.hidden_states(&both, 2, &mut ()).unwrap_err().to_string();
    assert_eq!(e, "ids: 3 tokens are not whole sequences of 2");
}

/// The tensors of a config, drawn at random.
fn random_weights(config: &Config, like: &Golden) -> Checkpoint {
    let mut weights = Checkpoint::new();
    let mut stream = Seed(7).stream("weights");
    let inner = |i: usize| config.widths(i);
    for (tensor, values) in like.weights.weights() {
        let mut shape = values.shape().to_vec();
        if let Some(i) = tensor.strip_prefix("model.layers.").and_then(|t| t.split('.').next()?.parse::<usize>().ok()) {
            let w = inner(i);
            let place = |t: &str| tensor.contains(t);
            if place("q_proj") {
                shape[0] = w.heads * w.head_dim;
            } else if place("k_proj") || place("v_proj") {
                shape[0] = w.kv_heads * w.head_dim;
            } else if place("o_proj") {
                shape[1] = w.heads * w.head_dim;
            } else if place("gate_proj") || place("up_proj") {
                shape[0] = w.intermediate;
            } else if place("down_proj") {
                shape[1] = w.intermediate;
            }
        }
        let n = shape.iter().product();
        let drawn = (0..n).map(|_| stream.normal() * 0.3).collect();
        weights.insert(tensor, Array::from_shape_vec(IxDyn(&shape), drawn).unwrap(), Dtype::F32).unwrap();
    }
    weights
}

#[test]
fn blocks_of_different_widths_are_written_read_and_run() {
    let golden = Golden::read("mistral");
    let config = golden.config();
    let widths = config.widths(0);
    assert_eq!(widths, Widths { heads: 4, kv_heads: 2, head_dim: 6, intermediate: 20 });
    let narrow = [Widths { heads: 2, kv_heads: 1, ..widths }, Widths { intermediate: 12, ..widths }];
    let pruned = config.with_widths(&narrow).unwrap();
    let back = Config::parse(&pruned.to_json()).unwrap();
    assert_eq!([back.widths(0), back.widths(1)], narrow);
    let Model::Decoder(model) = Model::load(&random_weights(&back, &golden), back).unwrap() else { panic!("a decoder") };
    assert!(model.forward(&golden.ids).unwrap().iter().all(|l| l.is_finite()));
    // Where all blocks are alike, the keys that every program knows say so.
    let alike = config.with_widths(&[narrow[0]; 2]).unwrap().to_json();
    assert_eq!((&alike["num_attention_heads"], &alike["head_dim"], alike.get("layer_widths")), (&json!(2), &json!(6), None));
    let e = config.with_widths(&[Widths { heads: 3, ..widths }; 2]).unwrap_err().to_string();
    assert!(e.contains("3 heads do not share 2 key-value heads evenly"), "{e}");
}

#[test]
fn a_model_of_some_blocks_keeps_their_windows() {
    let config = Golden::read("gemma2").config();
    let kinds = config.with_blocks(&[1, 2]).unwrap().to_json();
    assert_eq!(kinds["layer_types"], json!(["full_attention", "sliding_attention"]));
    assert_eq!(kinds["num_hidden_layers"], json!(2));
    assert_eq!(config.with_blocks(&[3]).unwrap_err().to_string(), "blocks: [3] are not some of 3");
}

/// One value of a config at a time becomes something else.
#[test]
fn mutated_configs_never_panic_and_load_only_what_fits() {
    for golden in ALL.map(Golden::read) {
        let strange = [json!(null), json!(-1), json!(0), json!(3), json!(1e300), json!("x"), json!([]), json!({}), json!(true)];
        for key in golden.json.as_object().unwrap().keys() {
            for value in &strange {
                let mut json = golden.json.clone();
                json[key] = value.clone();
                if let Ok(config) = Config::parse(&json)
                    && let Ok(model) = Model::load(&golden.weights, config)
                {
                    match model {
                        Model::Decoder(m) => drop(m.forward(&golden.ids)),
                        Model::Both(m) => drop(m.forward(&golden.ids, &golden.labels)),
                    }
                }
            }
        }
    }
}

#[test]
fn blocks_whose_numbers_scale_their_attention_cannot_change_them() {
    let golden = Golden::read("gpt2");
    let mut json = golden.json.clone();
    json["scale_attn_by_inverse_layer_idx"] = json!(true);
    let config = Config::parse(&json).unwrap();
    assert_eq!(config.with_blocks(&[0]).unwrap().layers(), 1);
    let e = config.with_blocks(&[1]).unwrap_err().to_string();
    assert_eq!(e, "blocks: [1] change the numbers of blocks, by which scale_attn_by_inverse_layer_idx scales");
    json["scale_attn_by_inverse_layer_idx"] = json!(false);
    assert_eq!(Config::parse(&json).unwrap().with_blocks(&[1]).unwrap().layers(), 1);
}
