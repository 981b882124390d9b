//! Training learns, holds masks, and does not depend on the number of threads.

use crate::common::{ADAM, bits, on_threads, pruning, recipe, small_convnet, small_mlp, split_digits};
use lacuna::Error;
use lacuna::allocate::Uniform;
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Magnitude, MagnitudeNorm, Obd};
use lacuna::eval::{Size, score};
use lacuna::nn::{Loss, Method};
use lacuna::prune::{one_shot, prune_units};
use lacuna::train::{TrainConfig, fit, fit_with};
use ndarray::{Array2, s};

#[test]
fn a_few_epochs_learn_the_digits() {
    let ((x, t), (test_x, test_t)) = split_digits(0, 1347, 450);
    for (name, mut network, epochs) in [("mlp", small_mlp(0), 12), ("convnet", small_convnet(0), 8)] {
        let before = score(&network, &test_x, &test_t, Loss::CrossEntropy);
        let losses = fit(&mut network, &x, &t, &recipe(ADAM, 5e-3, epochs)).unwrap();
        let after = score(&network, &test_x, &test_t, Loss::CrossEntropy);
        assert_eq!(losses.len(), epochs);
        assert!(losses[epochs - 1] < 0.3 * losses[0], "{name}: {losses:?}");
        assert!(before.accuracy < 0.4 && after.accuracy > 0.9, "{name}: from {} to {}", before.accuracy, after.accuracy);
        assert!(after.loss < before.loss);
    }
}

#[test]
fn every_optimiser_holds_masks_to_the_bit() {
    let ((x, t), _) = split_digits(1, 200, 1);
    let decay = 0.01;
    let methods = [
        Method::Sgd { momentum: 0.9, weight_decay: decay },
        Method::Adam { weight_decay: decay },
        Method::AdamW { weight_decay: decay },
    ];
    for method in methods {
        let data = Calibration::new(&x, &t, Loss::CrossEntropy);
        // Masks on weights, biases and norms.
        let units = prune_units(&small_convnet(1), &data, &Obd, 0.4).unwrap();
        let mut network = one_shot(&units, &data, &pruning(&Magnitude { norm: MagnitudeNorm::L1 }, &Uniform, 0.7)).unwrap().model;
        let before = network.clone();
        fit(&mut network, &x, &t, &recipe(method, 1e-2, 3)).unwrap();
        for ((name, new), (_, old)) in network.params().iter().zip(before.params()) {
            assert_eq!(new.mask(), old.mask(), "{name}");
            let moved = new.as_slice().iter().zip(old.as_slice()).filter(|(a, b)| a != b).count();
            assert!(moved > 0 && moved <= new.kept(), "{method:?}, {name}: {moved} of {} moved", new.kept());
            let Some(mask) = new.mask() else { continue };
            for (r, c) in mask.not().iter_kept() {
                assert_eq!(new.value()[[r, c]].to_bits(), 0, "{method:?}, {name}: ({r}, {c})");
            }
        }
        assert!(network.params().iter().any(|(n, p)| n == "conv1.bias" && p.mask().is_some()));
        assert_eq!(network.kept_parameters(), before.kept_parameters());
        assert!((Size::of(&network).unwrap().sparsity() - 0.7).abs() < 0.01);
    }
}

#[test]
fn training_gives_the_same_bits_with_one_thread_and_two() {
    let ((x, t), _) = split_digits(2, 301, 1);
    for (name, network) in [("mlp", small_mlp(2)), ("convnet", small_convnet(2))] {
        let run = |threads: usize| {
            on_threads(threads, || {
                let mut network = network.clone();
                let losses = fit(&mut network, &x, &t, &recipe(Method::AdamW { weight_decay: 0.01 }, 5e-3, 2)).unwrap();
                (losses, bits(&network, &x))
            })
        };
        let (one, two) = (run(1), run(2));
        assert_ne!(one.1, bits(&network, &x), "{name} did not move");
        assert!(one == two, "{name}: losses {:?} and {:?}", one.0, two.0);
    }
}

#[test]
fn another_seed_orders_the_samples_otherwise() {
    let ((x, t), _) = split_digits(2, 100, 1);
    let run = |seed: u64| {
        let mut network = small_mlp(3);
        fit(&mut network, &x, &t, &TrainConfig { seed: lacuna::rng::Seed(seed), ..recipe(ADAM, 5e-3, 1) }).unwrap();
        bits(&network, &x)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn every_epoch_is_seen_with_its_loss() {
    let ((x, t), _) = split_digits(3, 60, 1);
    let mut seen = Vec::new();
    let losses =
        fit_with(&mut small_mlp(4), &x, &t, &recipe(ADAM, 1e-3, 3), &mut |epoch, loss| seen.push((epoch, loss))).unwrap();
    assert_eq!(seen, losses.into_iter().enumerate().collect::<Vec<_>>());
    assert_eq!(seen.len(), 3);
}

#[test]
fn training_refuses_what_does_not_fit_and_a_loss_that_runs_away() {
    let ((x, t), _) = split_digits(4, 40, 1);
    let plain = recipe(ADAM, 1e-3, 1);
    let error = |x: &Array2<f32>, t: &Array2<f32>, r: &TrainConfig| fit(&mut small_mlp(5), x, t, r).unwrap_err();
    assert!(matches!(error(&x.slice(s![..0, ..]).to_owned(), &t, &plain), Error::InvalidOption { .. }));
    assert!(matches!(error(&x, &t, &TrainConfig { batch: 0, ..plain.clone() }), Error::InvalidOption { .. }));
    assert!(matches!(error(&x.slice(s![.., ..63]).to_owned(), &t, &plain), Error::Shape { .. }));
    assert!(matches!(error(&x, &t.slice(s![..39, ..]).to_owned(), &plain), Error::Shape { .. }));
    assert!(matches!(error(&x, &t.slice(s![.., ..9]).to_owned(), &plain), Error::Shape { .. }));
    let far = TrainConfig { loss: Loss::SquaredError, ..recipe(Method::Sgd { momentum: 0.9, weight_decay: 0.0 }, 1e20, 5) };
    let e = error(&x, &t, &far);
    assert!(matches!(e, Error::Numerical { .. }), "{e}");
    assert!(e.to_string().contains("learning rate 100000000000000000000"), "{e}");
}
