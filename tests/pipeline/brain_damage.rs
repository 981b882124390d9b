//! Optimal Brain Damage on real digits: what it predicts, and that it does less damage than magnitude.

use crate::common::{ADAM, pruning, standardised};
use lacuna::allocate::Global;
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Magnitude, Obd, Saliency};
use lacuna::eval::score;
use lacuna::models::digits_shared;
use lacuna::nn::Loss;
use lacuna::prune::one_shot;
use lacuna::rng::Seed;
use lacuna::train::{Decay, TrainConfig, fit};

const LOSS: Loss = Loss::SquaredError;

#[test]
fn predicts_its_damage_and_does_less_than_magnitude() {
    let seed = Seed(0);
    let (x, t) = standardised(seed);
    let mut dense = digits_shared(seed).unwrap();
    let recipe = TrainConfig { loss: LOSS, method: ADAM, learning_rate: 5e-3, decay: Decay::Cosine, epochs: 40, batch: 32, seed };
    fit(&mut dense, &x, &t, &recipe).unwrap();
    let base = score(&dense, &x, &t, LOSS);
    assert!(base.accuracy > 0.98, "{base:?}");

    let damage = |saliency: &dyn Saliency, sparsity: f64| {
        let outcome = one_shot(&dense, &Calibration::new(&x, &t, LOSS), &pruning(saliency, &Global, sparsity)).unwrap();
        (outcome.predicted_increase, score(&outcome.model, &x, &t, LOSS).loss - base.loss)
    };
    for sparsity in [0.1, 0.2, 0.3] {
        let (predicted, measured) = damage(&Obd, sparsity);
        let share = predicted.unwrap() / measured;
        assert!(measured > 0.0 && (0.5..2.0).contains(&share), "{sparsity}: predicted {predicted:?}, measured {measured}");
    }
    for sparsity in [0.2, 0.4, 0.6] {
        let (obd, magnitude) = (damage(&Obd, sparsity).1, damage(&Magnitude::default(), sparsity).1);
        assert!(obd < magnitude, "{sparsity}: obd {obd}, magnitude {magnitude}");
    }
}
