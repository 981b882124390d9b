//! Low-rank factors: what is merged, what their gradients are, what is refused.

use lacuna::mask::Mask;
use lacuna::nn::{NamedLayers, Parameters};
use lacuna::rng::Seed;
use lacuna::train::{LowRank, LowRankConfig};
use ndarray::{Array2, ArrayD, Ix2, IxDyn};
use std::collections::BTreeSet;

/// A weight of 5 x 7 with a mask, and factors that are not 0.
fn made(masked: bool) -> (NamedLayers, LowRank, Array2<f32>) {
    let mut random = Seed(1).stream("weights");
    let mut model = NamedLayers::new([("fc", random.normal_array(5, 7, 1.0))]).unwrap();
    if masked {
        model.set_mask("fc", Some(Mask::from_fn(5, 7, |r, c| (r + 2 * c) % 3 != 0))).unwrap();
    }
    let mut factors = LowRank::new(&model, &BTreeSet::from(["fc.weight".to_string()]), LowRankConfig::new(2).alpha(3.0)).unwrap();
    let mut base = Array2::zeros((5, 7));
    model.visit(&mut |_, values, _| base.assign(&values.into_dimensionality::<Ix2>().unwrap()));
    factors
        .visit_mut(&mut |name, values, _| {
            if name.ends_with(".lora_b") {
                values.iter_mut().for_each(|b| *b = random.normal());
            }
        })
        .unwrap();
    (model, factors, base)
}

fn weight(model: &NamedLayers) -> Array2<f32> {
    let mut found = Array2::zeros((5, 7));
    model.visit(&mut |_, values, _| found.assign(&values.into_dimensionality::<Ix2>().unwrap()));
    found
}

#[test]
fn the_merged_weight_is_the_base_and_the_scaled_product_where_the_mask_keeps_and_0_elsewhere() {
    for masked in [false, true] {
        let (mut model, factors, base) = made(masked);
        for _ in 0..2 {
            factors.merge_into(&mut model).unwrap();
            let (a, b) = factors.factors("fc.weight").unwrap();
            let full = b.dot(&a) * 1.5;
            let keeps = |r: usize, c: usize| !masked || (r + 2 * c) % 3 != 0;
            for ((r, c), w) in weight(&model).indexed_iter() {
                let right = if keeps(r, c) { base[[r, c]] + full[[r, c]] } else { 0.0 };
                assert!((w - right).abs() < 1e-5 && (keeps(r, c) || *w == 0.0), "{r}, {c}: {w} for {right}");
            }
        }
    }
}

#[test]
fn gradients_of_the_factors_are_differences_of_what_the_weight_gives() {
    for masked in [false, true] {
        let (mut model, factors, _) = made(masked);
        // A loss that is linear in the weight, so that differences are exact.
        let slope = Seed(9).stream("slope").normal_array(5, 7, 1.0);
        let mut loss = |factors: &LowRank| {
            factors.merge_into(&mut model).unwrap();
            weight(&model).iter().zip(&slope).map(|(w, s)| f64::from(w * s)).sum::<f64>()
        };
        for (name, gradient) in factors.gradients("fc.weight", slope.clone().into_dyn()) {
            for at in 0..gradient.len() {
                let mut moved = |by: f32| {
                    let mut other = factors.clone();
                    other
                        .visit_mut(&mut |n, values, _| {
                            if n == name {
                                values[at] += by
                            }
                        })
                        .unwrap();
                    loss(&other)
                };
                let difference = (moved(0.5) - moved(-0.5)) as f32;
                let found = gradient.iter().nth(at).unwrap();
                assert!((found - difference).abs() < 1e-4, "{name}[{at}]: {found} for {difference}");
            }
        }
        assert!(factors.gradients("other", ArrayD::zeros(IxDyn(&[1]))).is_empty());
    }
}

#[test]
fn a_new_adaptation_changes_nothing_and_what_cannot_be_adapted_is_refused() {
    let (model, ..) = made(true);
    let names = BTreeSet::from(["fc.weight".to_string()]);
    let mut copy = model.clone();
    LowRank::new(&model, &names, LowRankConfig::new(3)).unwrap().merge_into(&mut copy).unwrap();
    assert_eq!(weight(&copy), weight(&model));
    for (names, config, line) in [
        (names.clone(), LowRankConfig::new(0), "lora: rank 0 beside 1 weights; both are at least 1"),
        (names.clone(), LowRankConfig::new(6), "lora: rank 6 is above a side of fc.weight, (5, 7)"),
        (names, LowRankConfig::new(1).alpha(0.0), "lora-alpha: 0 is not a finite number above 0"),
        (
            BTreeSet::from(["fc.wieght".to_string()]),
            LowRankConfig::new(1),
            "no layer is named 'fc.wieght' among 1; did you mean 'fc.weight'?",
        ),
    ] {
        assert_eq!(LowRank::new(&model, &names, config).unwrap_err().to_string(), line);
    }
}
