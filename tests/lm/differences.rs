//! Derivatives against differences of the loss.

use crate::common::{ALL, Golden};
use lacuna::io::{Checkpoint, Dtype};
use lacuna::lm::{Config, LanguageModel};
use lacuna::rng::Seed;
use ndarray::ArrayD;
use std::collections::BTreeMap;

/// Along the gradient of each tensor the loss changes as its norm says: `(L(w + εg/|g|) - L(w - εg/|g|)) / 2ε = |g|`.
#[test]
fn the_gradient_of_every_tensor_agrees_with_central_differences() {
    for golden in ALL.map(Golden::read) {
        // The loss jumps where a token meets other experts; gradients of mixtures are held to the reference library's.
        if golden.config().experts().is_some() {
            continue;
        }
        let mut model = golden.model();
        let (_, gradients) = model.gradients(&golden);
        let mut indifferent = Vec::new();
        let by_name: BTreeMap<String, Vec<f32>> =
            gradients.iter().map(|(name, g)| (name.to_string(), g.iter().copied().collect())).collect();
        for (tensor, gradient) in &by_name {
            let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            if norm < 1e-3 {
                indifferent.push(tensor);
                continue;
            }
            let step = 0.01 / norm.max(1.0);
            let mut moved = |by: f64| {
                let change = |name: &str, values: &mut [f32], _: Option<&lacuna::mask::Mask>| {
                    if name == tensor {
                        values.iter_mut().zip(gradient).for_each(|(v, g)| *v += (by * f64::from(*g) / norm) as f32);
                    }
                };
                let mut change = change;
                model.parameters().visit_mut(&mut change).unwrap();
                model.loss(&golden)
            };
            let (up, down) = (moved(step), moved(-2.0 * step));
            moved(step);
            let slope = (up - down) / (2.0 * step);
            // What is left: third derivatives, kinks of relu, and 2e-7 of rounding in each loss over 2ε.
            let tolerance = 0.02 * norm + 1e-6 / step;
            assert!((slope - norm).abs() < tolerance, "{} {tensor}: difference {slope}, norm {norm}", golden.name);
        }
        // The loss is indifferent to the bias of keys and to experts that no token meets, and to nothing else.
        let unmet = |t: &str| golden.expected.get(&format!("grad.{t}")).unwrap().iter().all(|g| *g == 0.0);
        // In this model the scores of the first block move hardly anything, by the reference library's numbers too.
        let small = |t: &str| {
            let right = golden.expected.get(&format!("grad.{t}")).unwrap().iter().map(|g| g * g).sum::<f32>();
            golden.name == "opt_350m" && t.contains("layers.0.self_attn") && right.sqrt() < 1e-3
        };
        let right = indifferent.iter().all(|t| t.ends_with("k_proj.bias") || t.contains(".experts.") && unmet(t) || small(t));
        assert!(right, "{}: no gradient of {indifferent:?}", golden.name);
    }
}

#[test]
fn one_thread_and_three_make_the_same_bits_forward_and_backward() {
    for golden in ["gemma2", "phi3", "gpt2", "t5"].map(Golden::read) {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let model = golden.model();
                let (loss, gradients) = model.gradients(&golden);
                let all: Vec<u32> = gradients.iter().flat_map(|(_, g)| g.iter().map(|g| g.to_bits())).collect();
                (model.logits(&golden), model.stepped(&golden, 3), loss.to_bits(), all)
            })
        };
        assert!(run(1) == run(3), "{}", golden.name);
    }
}

/// Wide enough that every part splits its work.
#[test]
fn a_wider_model_has_the_same_bits_for_any_number_of_threads_too() {
    let json = serde_json::json!({
        "model_type": "llama", "vocab_size": 600, "hidden_size": 192, "intermediate_size": 320, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": true,
    });
    let config = Config::parse(&json).unwrap();
    let mut weights = Checkpoint::new();
    let mut stream = Seed(3).stream("weights");
    let mut put = |name: String, shape: &[usize]| {
        let drawn = (0..shape.iter().product()).map(|_| 0.1 * stream.normal()).collect();
        weights.insert(&name, ArrayD::from_shape_vec(shape, drawn).unwrap(), Dtype::F32).unwrap();
    };
    put("model.embed_tokens.weight".into(), &[600, 192]);
    put("model.norm.weight".into(), &[192]);
    for i in 0..2 {
        let name = |part: &str| format!("model.layers.{i}.{part}.weight");
        put(name("input_layernorm"), &[192]);
        put(name("post_attention_layernorm"), &[192]);
        for (part, shape) in [("q", [192, 192]), ("k", [64, 192]), ("v", [64, 192]), ("o", [192, 192])] {
            put(name(&format!("self_attn.{part}_proj")), &shape);
        }
        for (part, shape) in [("gate", [320, 192]), ("up", [320, 192]), ("down", [192, 320])] {
            put(name(&format!("mlp.{part}_proj")), &shape);
        }
    }
    let ids: Vec<u32> = (0..400).map(|i| i * 37 % 600).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let model = LanguageModel::load(&weights, config.clone()).unwrap();
            let mut all = Vec::new();
            let loss = model.backward(&ids, 200, &mut |_, g| all.extend(g.iter().map(|g| g.to_bits()))).unwrap();
            let mut cache = model.cache();
            let last = [model.step(&ids[..100], &mut cache).unwrap(), model.step(&ids[100..101], &mut cache).unwrap()];
            (loss.to_bits(), all, last)
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3));
}
