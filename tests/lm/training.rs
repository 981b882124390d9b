//! Steps of an optimiser along a model's gradients.

use crate::common::{ALL, Golden};
use lacuna::lm::step;
use lacuna::mask::Mask;
use lacuna::nn::{Method, Optimizer};
use std::collections::BTreeMap;

#[test]
fn a_few_steps_of_adamw_lower_the_loss_and_masks_are_held() {
    for golden in ALL.map(Golden::read) {
        let mut model = golden.model();
        let before = model.loss(&golden);
        let dropped = model.linears()[1].tensor();
        let (rows, cols) = model.linears()[1].shape();
        let mut mask = Mask::full(rows, cols);
        (0..cols).for_each(|c| mask.set(1, c, false));
        let masks = BTreeMap::from([(dropped.clone(), mask)]);
        let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.01 });
        for _ in 0..12 {
            let (_, gradients) = model.gradients(&golden);
            step(&mut optimizer, model.parameters(), &gradients, &masks, 0.01).unwrap();
        }
        let after = model.loss(&golden);
        assert!(after < before - 0.5, "{}: {before} to {after}", golden.name);
        let layer = model.linears()[1];
        assert!(layer.weight().unwrap().row(1).iter().all(|&w| w == 0.0), "{}: {dropped}", golden.name);
    }
}

/// The first step of AdamW is `w (1 - ηλ) - η g / (|g| + ε)`, whatever the size of the gradient.
#[test]
fn the_first_step_of_adamw_moves_every_weight_by_the_learning_rate() {
    let golden = Golden::read("gpt2");
    let (before, mut model) = (golden.model(), golden.model());
    let (_, gradients) = model.gradients(&golden);
    let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.1 });
    step(&mut optimizer, model.parameters(), &gradients, &BTreeMap::new(), 1e-3).unwrap();
    for (new, old) in model.linears().into_iter().zip(before.linears()) {
        let g = gradients.get(&new.tensor()).unwrap();
        for ((new, old), g) in new.weight().unwrap().iter().zip(old.weight().unwrap()).zip(g) {
            let right = old * (1.0 - 1e-4) - 1e-3 * g / (g.abs() + 1e-8);
            assert!((new - right).abs() < 1e-6, "{new} {right}");
        }
    }
}

#[test]
fn a_mask_of_another_shape_and_a_gradient_that_is_missing_are_refused() {
    let golden = Golden::read("llama");
    let mut model = golden.model();
    let (_, gradients) = model.gradients(&golden);
    let mut optimizer = Optimizer::new(Method::AdamW { weight_decay: 0.0 });
    let tensor = model.linears()[0].tensor();
    let masks = BTreeMap::from([(tensor, Mask::full(2, 3))]);
    let e = step(&mut optimizer, model.parameters(), &gradients, &masks, 0.1).unwrap_err().to_string();
    assert_eq!(e, "mask of model.layers.0.self_attn.q_proj.weight: expected shape [18, 18], found [2, 3]");
    let none = lacuna::lm::Gradients::default();
    let e = step(&mut optimizer, model.parameters(), &none, &BTreeMap::new(), 0.1).unwrap_err().to_string();
    assert!(e.contains("model.embed_tokens.weight has no gradient"), "{e}");
}
