//! Pruning in steps.

use crate::close::assert_close;
use crate::common::{ADAM, allocations, criteria, pruning, recipe, small_convnet, small_mlp, split_digits};
use lacuna::Error;
use lacuna::allocate::{Global, Uniform};
use lacuna::calibrate::Calibration;
use lacuna::criteria::{Magnitude, Obd};
use lacuna::mask::{Budget, Mask};
use lacuna::nn::Loss;
use lacuna::prune::{Schedule, iterative, one_shot};
use lacuna::train::fit;
use ndarray::aview1;
use proptest::prelude::*;

fn schedules(steps: usize) -> [Schedule; 4] {
    [Schedule::OneShot, Schedule::Linear { steps }, Schedule::Cubic { steps }, Schedule::Exponential { steps }]
}

proptest! {
    #[test]
    fn sparsities_never_fall_and_end_exactly(first in 0.0..1.0f64, share in 0.0..1.0f64, steps in 1usize..60) {
        let last = (first + (1.0 - first) * share).min(1.0 - f64::EPSILON);
        for schedule in schedules(steps) {
            let sparsities = schedule.sparsities(first, last).unwrap();
            prop_assert_eq!(sparsities.len(), if schedule == Schedule::OneShot { 1 } else { steps });
            prop_assert_eq!(sparsities[sparsities.len() - 1].to_bits(), last.to_bits());
            prop_assert!(sparsities[0] >= first - 1e-12, "{:?}: {:?} from {}", schedule, sparsities, first);
            // To within rounding, which is far below one weight of any layer.
            prop_assert!(sparsities.windows(2).all(|w| w[0] <= w[1] + 1e-12), "{:?}: {:?}", schedule, sparsities);
            prop_assert!(sparsities.iter().all(|s| (0.0..1.0).contains(s)), "{:?}: {:?}", schedule, sparsities);
        }
    }
}

#[test]
fn schedules_are_their_formulas() {
    let near = |schedule: Schedule, expected: &[f64]| {
        let found = schedule.sparsities(0.2, 0.9).unwrap();
        assert_close(&aview1(&found), &aview1(expected), 1e-12f64.next_down(), format!("{schedule:?}"));
    };
    near(Schedule::OneShot, &[0.9]);
    near(Schedule::Linear { steps: 2 }, &[0.55, 0.9]);
    near(Schedule::Cubic { steps: 2 }, &[0.9 - 0.7 / 8.0, 0.9]);
    near(Schedule::Exponential { steps: 3 }, &[0.6, 0.8, 0.9]); // 0.8 is left, then 0.4, 0.2, 0.1
}

#[test]
fn a_schedule_that_cannot_be_is_refused() {
    for schedule in schedules(3) {
        for (first, last) in [(0.5, 0.4), (-0.1, 0.5), (0.0, 1.0), (f64::NAN, 0.5), (0.0, f64::NAN)] {
            let e = schedule.sparsities(first, last).unwrap_err();
            assert!(matches!(e, Error::InvalidOption { .. }), "{schedule:?} from {first} to {last}: {e}");
        }
    }
    for schedule in &schedules(0)[1..] {
        assert_eq!(schedule.sparsities(0.0, 0.5).unwrap_err().to_string(), "steps: a schedule has at least one step");
    }
}

#[test]
fn masks_are_nested_step_after_step_and_end_at_the_target() {
    let ((x, t), _) = split_digits(3, 120, 1);
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let network = small_convnet(1);
    let of: usize = network.affines().map(|(_, _, a)| a.weight.value().len()).sum();
    let mut combinations: Vec<(String, _, _, _)> = Vec::new();
    let (saliencies, allocates) = (criteria(), allocations());
    for saliency in &saliencies {
        combinations.push((saliency.name().to_string(), saliency.as_ref(), &Global as _, Schedule::Cubic { steps: 3 }));
    }
    for allocate in &allocates {
        combinations.push((allocate.name().to_string(), &Obd as _, allocate.as_ref(), Schedule::Exponential { steps: 3 }));
    }
    for (name, saliency, allocate, schedule) in combinations {
        let expected = schedule.sparsities(0.0, 0.9).unwrap();
        let mut seen: Vec<Vec<(String, Mask)>> = Vec::new();
        let outcome = iterative(&network, &data, &pruning(saliency, allocate, 0.0), schedule, 0.9, |network, step| {
            assert_eq!(step, seen.len());
            // Training makes other weights matter than those that mattered before.
            fit(network, &x, &t, &recipe(ADAM, 1e-2, 1))?;
            seen.push(network.masks());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.len(), expected.len(), "{name}");
        for (masks, sparsity) in seen.iter().zip(&expected) {
            let kept: usize = masks.iter().map(|(_, m)| m.kept()).sum();
            assert_eq!(kept, Budget::from_sparsity(of, *sparsity).unwrap().keep(), "{name}");
        }
        for steps in seen.windows(2) {
            for ((layer, old), (_, new)) in steps[0].iter().zip(&steps[1]) {
                assert!(new.is_subset_of(old), "{name}: a weight of {layer} came back");
            }
        }
        assert_eq!(outcome.masks, seen[seen.len() - 1], "{name}");
        for (layer, mask) in &outcome.masks {
            let weight = outcome.model.param(&format!("{layer}.weight")).unwrap().value();
            assert!(mask.not().iter_kept().all(|(r, c)| weight[[r, c]].to_bits() == 0), "{name}: {layer}");
        }
    }
}

#[test]
fn a_network_that_has_what_is_asked_for_is_not_too_sparse_for_it() {
    let ((x, t), _) = split_digits(3, 30, 1);
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let saliency = Magnitude::default();
    let network = small_mlp(1);
    let of: usize = network.affines().map(|(_, _, a)| a.weight.value().len()).sum();
    let mut above = 0;
    for sparsity in [0.3, 0.5, 0.501, 0.77, 0.9] {
        let once = one_shot(&network, &data, &pruning(&saliency, &Uniform, sparsity)).unwrap();
        let kept: usize = once.masks.iter().map(|(_, m)| m.kept()).sum();
        above += usize::from(1.0 - kept as f64 / of as f64 > sparsity);
        for schedule in schedules(2) {
            let again = iterative(&once.model, &data, &pruning(&saliency, &Uniform, 0.0), schedule, sparsity, |_, _| Ok(()));
            assert_eq!(again.unwrap().masks, once.masks, "{sparsity} by {schedule:?}");
        }
        let less = iterative(&once.model, &data, &pruning(&saliency, &Uniform, 0.0), Schedule::OneShot, 0.2, |_, _| Ok(()));
        assert!(less.unwrap_err().to_string().starts_with("sparsity: a schedule grows"));
    }
    assert!(above > 0, "rounding to whole weights shows nowhere");
}

#[test]
fn an_error_of_recovery_ends_the_run() {
    let ((x, t), _) = split_digits(3, 30, 1);
    let data = Calibration::new(&x, &t, Loss::CrossEntropy);
    let saliency = Magnitude::default();
    let mut calls = 0;
    let result =
        iterative(&small_mlp(1), &data, &pruning(&saliency, &Uniform, 0.0), Schedule::Linear { steps: 4 }, 0.5, |_, step| {
            calls += 1;
            if step == 1 { Err(Error::invalid_option("recovery", "enough")) } else { Ok(()) }
        });
    assert_eq!((result.unwrap_err().to_string().as_str(), calls), ("recovery: enough", 2));
}
