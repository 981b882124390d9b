//! Derivatives against differences of the loss.

use crate::common::{ALL, Golden};
use std::collections::BTreeMap;

/// Along the gradient of each tensor the loss changes as its norm says: `(L(w + εg/|g|) - L(w - εg/|g|)) / 2ε = |g|`.
#[test]
fn the_gradient_of_every_tensor_agrees_with_central_differences() {
    for golden in ALL.map(Golden::read) {
        let mut model = golden.model();
        let (_, gradients) = model.gradients(&golden);
        let by_name: BTreeMap<String, Vec<f32>> =
            gradients.iter().map(|(name, g)| (name.to_string(), g.iter().copied().collect())).collect();
        for (tensor, gradient) in &by_name {
            let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            if norm < 1e-3 {
                continue; // the bias of keys, to which the loss is indifferent
            }
            let step = 0.02 / norm.max(1.0);
            let mut moved = |by: f64| {
                let change = |name: &str, values: &mut [f32]| {
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
