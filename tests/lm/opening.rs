//! Files as different programs leave them: configs of both generations of the reference library, embeddings and heads under other
//! names, twice or not at all.

use crate::common::{ALL, Golden, Model, worst};
use lacuna::io::{Checkpoint, Dtype};
use lacuna::lm::{Config, Outline, check, remark};
use serde_json::{Map, Value, json};

/// The config of each golden as transformers 5 saves it, which has given the golden's logits with it.
fn newer() -> Map<String, Value> {
    serde_json::from_str(include_str!("goldens/newer.json")).unwrap()
}

/// How far the logits are from the reference library's, in units of the tolerance; or what refuses the model.
fn off(golden: &Golden, weights: &Checkpoint, config: &Value) -> Result<f32, String> {
    let config = Config::parse(config).map_err(|e| e.to_string())?;
    check(weights, &config).map_err(|e| e.to_string())?;
    let model = Model::load(weights, config).map_err(|e| e.to_string())?;
    Ok(worst(&model.logits(golden).into_dyn(), &golden.matrix("logits").into_dyn(), 1e-4))
}

/// A golden's tensors with some under other names.
fn renamed(golden: &Golden, rename: impl Fn(&str) -> String) -> Checkpoint {
    let mut all = Checkpoint::new();
    golden.weights.weights().for_each(|(name, values)| all.insert(&rename(name), values.clone(), Dtype::F32).unwrap());
    all
}

/// The tensor of a family's embedding.
fn embedding(golden: &Golden) -> &'static str {
    let all = [
        "model.embed_tokens.weight",
        "transformer.wte.weight",
        "shared.weight",
        "model.decoder.embed_tokens.weight",
        "gpt_neox.embed_in.weight",
        "transformer.word_embeddings.weight",
    ];
    all.into_iter().find(|name| golden.weights.contains(name)).unwrap()
}

#[test]
fn configs_of_both_generations_of_the_reference_library_give_its_logits() {
    let newer = newer();
    assert_eq!(newer.len(), ALL.len());
    for golden in ALL.map(Golden::read) {
        for (generation, config) in [("older", &golden.json), ("newer", &newer[golden.name])] {
            let off = off(&golden, &golden.weights, config).unwrap_or_else(|e| panic!("{} {generation}: {e}", golden.name));
            assert!(off < 0.5, "{} by its {generation} config: {off} of the tolerance", golden.name);
            assert_eq!(&Config::parse(config).unwrap().to_json(), config, "{generation} configs are written as they were");
        }
    }
}

#[test]
fn what_a_newer_config_has_moved_matters() {
    // Without the moved keys, the defaults would be used: that the test above sees a difference is not by chance.
    let newer = newer();
    for (name, key, default) in [
        ("phi_part", "partial_rotary_factor", json!(0.5)),
        ("nemotron_part", "partial_rotary_factor", json!(0.5)),
        ("llama", "rope_theta", json!(1e4)),
        ("mistral", "rope_theta", json!(1e4)),
        ("t5v11", "scale_decoder_outputs", json!(true)),
    ] {
        let golden = Golden::read(name);
        let mut config = newer[name].clone();
        if config.get("rope_parameters").is_some() {
            config["rope_parameters"][key] = default;
        } else {
            config[key] = default;
        }
        let off = off(&golden, &golden.weights, &config).unwrap();
        assert!(off > 100.0, "{name} with another {key}: {off} of the tolerance");
    }
}

#[test]
fn keys_may_stand_in_either_place_and_in_both_if_they_agree() {
    let older = |name: &str, changes: Value| {
        let mut config = Golden::read(ALL.into_iter().find(|n| *n == name).unwrap()).json;
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    let golden = Golden::read("llama");
    for config in [
        older("llama", json!({"rope_theta": null, "rope_parameters": {"rope_theta": 100000, "type": "default"}})),
        older(
            "llama",
            json!({"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 1e5}, "rope_theta": null}),
        ),
        older("llama", json!({"rope_scaling": {}, "rope_parameters": {"rope_theta": 1e5}})),
        older(
            "llama",
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e5}, "sliding_attention": {"rope_theta": 1e5}}}),
        ),
        older("llama", json!({"rope_parameters": {"full_attention": {"rope_theta": 1e5}, "sliding_attention": null}})),
        older("llama", json!({"partial_rotary_factor": 1, "rope_parameters": {"partial_rotary_factor": 1.0, "mscale": null}})),
        older("llama", json!({"rope_scaling": {"type": "default", "rope_type": "default", "factor": 3.0}})),
    ] {
        assert!(off(&golden, &golden.weights, &config).unwrap() < 0.5, "{config}");
    }
    // Lengths beside the object are those inside, and the longest context is the first one where none is given.
    let golden = Golden::read("yarn");
    let inside = golden.json["rope_scaling"].clone();
    let mut outside = inside.clone();
    let original = outside.as_object_mut().unwrap().remove("original_max_position_embeddings").unwrap();
    for config in [
        older("yarn", json!({"rope_scaling": outside, "original_max_position_embeddings": original})),
        older("yarn", json!({"rope_scaling": outside, "max_position_embeddings": original})),
        older("yarn", json!({"rope_scaling": null, "rope_parameters": inside})),
    ] {
        assert!(off(&golden, &golden.weights, &config).unwrap() < 0.5, "{config}");
    }
    let golden = Golden::read("longrope");
    let lists = golden.json["rope_scaling"].clone();
    for kind in [json!({"type": "su"}), json!({"rope_type": "su", "type": "longrope"}), json!({"type": "yarn"})] {
        let mut scaling = lists.clone();
        scaling.as_object_mut().unwrap().retain(|key, _| key.ends_with("_factor"));
        scaling.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        assert!(off(&golden, &golden.weights, &older("longrope", json!({"rope_scaling": scaling}))).unwrap() < 0.5, "{kind}");
    }
}

#[test]
fn what_contradicts_itself_or_is_not_known_is_refused_by_its_key() {
    let refused = |name: &str, changes: Value| {
        let golden = Golden::read(ALL.into_iter().find(|n| *n == name).unwrap());
        let mut config = golden.json.clone();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        off(&golden, &golden.weights, &config).expect_err(&changes.to_string())
    };
    for (name, changes, says) in [
        (
            "llama",
            json!({"rope_parameters": {"rope_theta": 1e4}}),
            "rope_theta: is said twice: 10000.0 and 100000.0 (see rope_parameters)",
        ),
        (
            "phi2",
            json!({"rope_parameters": {"partial_rotary_factor": 0.25}}),
            "partial_rotary_factor: is said twice: 0.25 and 0.5",
        ),
        ("llama", json!({"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2.0}}), "rope_type: is said twice"),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"factor": 4.0}}),
            "factor: is said twice: 2.0 and 4.0",
        ),
        (
            "llama",
            json!({"rope_parameters": {"mrope_section": [1, 2]}}),
            "rope_parameters: the key 'mrope_section' is not known here",
        ),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "default", "alpha": 2.0}}),
            "rope_scaling: the key 'alpha' is not known here",
        ),
        (
            "llama",
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e5}, "sliding_attention": {"rope_theta": 1e4}}}),
            "rope_parameters: 'full_attention' and 'sliding_attention' differ",
        ),
        (
            "llama",
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e5}, "factor": 2.0}}),
            "rope_parameters: 'factor' stands beside objects of kinds of layers",
        ),
        ("llama", json!({"rope_parameters": {"rope_type": "proportional"}}), "type 'proportional' is none of default, linear"),
        ("llama", json!({"rope_parameters": [1]}), "rope_parameters: is not an object"),
        ("mistral", json!({"partial_rotary_factor": 0.67}), "0.67 would turn 4 of 6 features; this family turns whole heads"),
        (
            "longrope",
            json!({"original_max_position_embeddings": 9, "rope_parameters": {"factor": 3.0}}),
            "factor 3 is not max_position",
        ),
        (
            "gemma2",
            json!({"use_bidirectional_attention": true}),
            "use_bidirectional_attention: tokens that see those behind them",
        ),
        ("gemma2", json!({"sliding_window": null}), "sliding_window: block 0 sees a window, and none is given"),
        ("mistral", json!({"sliding_window": 0}), "sliding_window: 0 is not a size above 0"),
        ("phi3", json!({"sliding_window": 0}), "sliding_window: 0 is not a size above 0"),
        ("t5", json!({"tie_word_embeddings": false, "scale_decoder_outputs": true}), "scale_decoder_outputs: is true"),
        ("t5v11", json!({"dense_act_fn": "relu"}), "feed_forward_proj: 'gated-gelu' contradicts dense_act_fn or is_gated_act"),
        ("t5", json!({"is_gated_act": true}), "feed_forward_proj: 'relu' contradicts dense_act_fn or is_gated_act"),
        ("gpt2", json!({"num_attention_heads": 8}), "n_head: is 4, and num_attention_heads, which is the same, is 8"),
        (
            "t5",
            json!({"num_layers": null, "num_hidden_layers": 2}),
            "weights: have 1 blocks, 'encoder.block.0' to 'encoder.block.0'; the config says 2",
        ),
    ] {
        let line = refused(name, changes.clone());
        assert!(line.contains(says), "{changes}: {line}");
    }
}

#[test]
fn keys_by_their_general_names_are_read() {
    for (name, own, general) in
        [("gpt2", "n_head", "num_attention_heads"), ("gpt2", "n_embd", "hidden_size"), ("t5", "d_model", "hidden_size")]
    {
        let golden = Golden::read(name);
        let mut config = golden.json.clone();
        config[general] = config[own].take();
        assert!(off(&golden, &golden.weights, &config).unwrap() < 0.5, "{name}: {general}");
        config[own] = config[general].clone();
        assert!(off(&golden, &golden.weights, &config).unwrap() < 0.5, "{name}: both");
    }
}

#[test]
fn key_heads_that_are_null_are_as_many_as_query_heads_and_absent_ones_the_familys_own() {
    let golden = Golden::read("mistral");
    let heads = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut config = golden.json.clone();
        config["num_attention_heads"] = json!(16);
        change(config.as_object_mut().unwrap());
        Config::parse(&config).unwrap().widths(0).kv_heads
    };
    let key = "num_key_value_heads";
    assert_eq!(heads(&|c| drop(c.insert(key.into(), Value::Null))), 16);
    assert_eq!(heads(&|c| drop(c.remove(key))), 8);
}

#[test]
fn an_embedding_under_the_name_of_the_head_is_both_in_every_tied_family() {
    let mut seen = 0;
    for golden in ALL.map(Golden::read).into_iter().filter(|g| !g.weights.contains("lm_head.weight") && g.config().tied()) {
        let embedding = embedding(&golden);
        let rename = |name: &str| if name == embedding { "lm_head.weight".to_string() } else { name.to_string() };
        let moved = renamed(&golden, rename);
        let bare = renamed(&golden, |name| {
            let name = rename(name);
            name.strip_prefix("model.").or(name.strip_prefix("transformer.")).map_or(name.clone(), String::from)
        });
        for weights in [&moved, &bare] {
            assert!(off(&golden, weights, &golden.json).unwrap() < 0.5, "{}", golden.name);
            let outline = Outline::of(weights, &golden.config()).unwrap();
            assert_eq!((outline.embedding.as_str(), outline.tied), ("lm_head.weight", true), "{}", golden.name);
            assert_eq!(remark(weights, &golden.config()).unwrap(), None);
            // What is written has the names that were read.
            let mut written = Checkpoint::new();
            Model::load(weights, golden.config()).unwrap().write(&mut written);
            let names = |c: &Checkpoint| c.names().map(String::from).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(names(&written), names(weights), "{}", golden.name);
        }
        // Not where the config says that they are two.
        if golden.name != "t5" {
            let mut untied = golden.json.clone();
            untied["tie_word_embeddings"] = json!(false);
            let line = off(&golden, &moved, &untied).unwrap_err();
            assert!(line.contains(&format!("tensor '{embedding}' is missing")), "{line}");
        }
        seen += 1;
    }
    assert!(seen >= 5, "{seen} tied goldens");
}

#[test]
fn a_tied_head_that_is_there_again_is_one_with_the_embedding_and_another_stands_for_itself() {
    for golden in ALL.map(Golden::read).into_iter().filter(|g| !g.weights.contains("lm_head.weight") && g.config().tied()) {
        let values = golden.weights.get(embedding(&golden)).unwrap().clone();
        let config = golden.config();
        let mut twice = golden.weights.clone();
        twice.insert("lm_head.weight", values.clone(), Dtype::F32).unwrap();
        assert!(off(&golden, &twice, &golden.json).unwrap() < 0.5, "{}", golden.name);
        assert!(Outline::of(&twice, &config).unwrap().tied && remark(&twice, &config).unwrap().is_none(), "{}", golden.name);
        // Both are written, so that they stay one.
        let mut written = Checkpoint::new();
        Model::load(&twice, config.clone()).unwrap().write(&mut written);
        assert_eq!(written.get("lm_head.weight").unwrap(), &values, "{}", golden.name);

        // What cannot be a head of this model is passed over, and that is said.
        let mut odd = golden.weights.clone();
        odd.insert("lm_head.weight", ndarray::Array1::<f32>::zeros(3), Dtype::F32).unwrap();
        assert!(off(&golden, &odd, &golden.json).unwrap() < 0.5, "{}", golden.name);
        assert!(remark(&odd, &config).unwrap().unwrap().contains("'lm_head.weight' has shape [3], which is not that of"));

        let mut other = golden.weights.clone();
        other.insert("lm_head.weight", &values * 2.0, Dtype::F32).unwrap();
        assert!(!Outline::of(&other, &config).unwrap().tied, "{}", golden.name);
        let line = remark(&other, &config).unwrap().unwrap();
        assert!(line.contains("'lm_head.weight' differs from") && line.contains("each is used as it is"), "{line}");
        // As if the config said so, which needs the scale of the outputs to be said of T5.
        let mut untied = golden.json.clone();
        untied["tie_word_embeddings"] = json!(false);
        let model = |json: &Value| Model::load(&other, Config::parse(json).unwrap()).unwrap();
        let (mine, apart) = (model(&golden.json).logits(&golden), model(&untied).logits(&golden));
        let scale = if golden.name == "t5" { 4.0 } else { 1.0 };
        let off = worst(&(mine * scale).into_dyn(), &apart.into_dyn(), 1e-4);
        assert!(off < 0.5, "{}: {off} of the tolerance", golden.name);
        assert!(worst(&model(&golden.json).logits(&golden).into_dyn(), &golden.matrix("logits").into_dyn(), 1e-4) > 100.0);
    }
}

#[test]
fn the_embedding_of_an_encoder_decoder_may_stand_under_any_of_its_names() {
    for name in ["t5", "t5v11"] {
        let golden = Golden::read(name);
        let shared = golden.weights.get("shared.weight").unwrap().clone();
        for other in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] {
            let moved = renamed(&golden, |name| if name == "shared.weight" { other.to_string() } else { name.to_string() });
            assert!(off(&golden, &moved, &golden.json).unwrap() < 0.5, "{name} {other}");
            let mut both = golden.weights.clone();
            both.insert(other, shared.clone(), Dtype::F32).unwrap();
            assert!(off(&golden, &both, &golden.json).unwrap() < 0.5, "{name} {other} again");
            both.insert(other, &shared * 2.0, Dtype::F32).unwrap();
            let line = off(&golden, &both, &golden.json).unwrap_err();
            assert!(line.contains(&format!("tensor '{other}' differs from 'shared.weight'")), "{line}");
        }
    }
    // A v1.1 that lost its head has the embedding for one, as the newer library reads it, and that is said.
    let golden = Golden::read("t5v11");
    let mut lost = golden.weights.clone();
    lost.remove("lm_head.weight").unwrap();
    let mut own = lost.clone();
    own.insert("lm_head.weight", lost.get("shared.weight").unwrap().clone(), Dtype::F32).unwrap();
    let logits = |weights: &Checkpoint| Model::load(weights, golden.config()).unwrap().logits(&golden);
    assert_eq!(logits(&lost), logits(&own));
    let line = remark(&lost, &golden.config()).unwrap().unwrap();
    assert_eq!(line, "tie_word_embeddings is false, but there is no 'lm_head.weight': the head is 'shared.weight'");
    // The newer config of a v1.1 always ties; a head of its own is no surprise there.
    let config = Config::parse(&newer()["t5v11"]).unwrap();
    assert_eq!((config.tied(), remark(&golden.weights, &config).unwrap()), (true, None));
    assert!(!Outline::of(&golden.weights, &config).unwrap().tied);
}

#[test]
fn a_head_that_is_missing_where_the_config_does_not_tie_is_named() {
    for name in ["mistral", "phi2", "nemotron", "phi3"] {
        let golden = Golden::read(name);
        let mut lost = golden.weights.clone();
        lost.remove("lm_head.weight").unwrap();
        let line = off(&golden, &lost, &golden.json).unwrap_err();
        assert!(line.contains("tensor 'lm_head.weight' is missing"), "{line}");
    }
}

#[test]
fn weights_are_held_against_a_config_without_being_read() {
    let golden = Golden::read("mistral");
    let tensor = "model.layers.1.mlp.up_proj.weight";
    let line = |weights: &Checkpoint| check(weights, &golden.config()).map_err(|e| e.to_string());
    assert_eq!(line(&golden.weights), Ok(()));
    let mut fewer = golden.weights.clone();
    fewer.remove(tensor).unwrap();
    assert!(line(&fewer).unwrap_err().contains(&format!("tensor '{tensor}' is missing")));
    let mut more = golden.weights.clone();
    more.insert("model.layers.0.self_attn.q_proj.bias", ndarray::Array1::zeros(24), Dtype::F32).unwrap();
    assert!(line(&more).unwrap_err().contains("'model.layers.0.self_attn.q_proj.bias' belongs to no part"));
    let mut turned = golden.weights.clone();
    let values = turned.get(tensor).unwrap().clone();
    turned.remove(tensor).unwrap();
    turned.insert(tensor, values.reversed_axes().as_standard_layout().into_owned(), Dtype::F32).unwrap();
    assert!(line(&turned).unwrap_err().contains("expected shape [20, 16], found [16, 20]"));
}
