//! Parameters that are given with other strides are those that are given without.

use lacuna::nn::{AttentionRule, Distances, Heads, Linear, Norm, NormKind, Seen, attend};
use lacuna::rng::Seed;
use ndarray::{Array1, Array2, s};

/// The same numbers, backwards in memory.
fn backwards(values: &Array1<f32>) -> Array1<f32> {
    let mut turned = values.slice(s![..;-1]).iter().copied().collect::<Array1<f32>>();
    turned.invert_axis(ndarray::Axis(0));
    assert!(turned == values && turned.as_slice().is_none());
    turned
}

/// The same numbers, with others between them.
fn every_second(values: &Array1<f32>) -> Array1<f32> {
    let wide: Array1<f32> = values.iter().flat_map(|v| [*v, f32::NAN]).collect();
    let strided = wide.slice_move(s![..;2]);
    assert!(strided == values && strided.as_slice().is_none());
    strided
}

/// The same numbers, column by column in memory.
fn column_major(values: &Array2<f32>) -> Array2<f32> {
    values.t().as_standard_layout().into_owned().reversed_axes()
}

#[test]
fn norms_and_biases_may_be_given_backwards_or_with_gaps() {
    let mut stream = Seed(7).stream("parameters");
    let x = stream.normal_array(5, 40, 1.0);
    let [weight, bias] = [(); 2].map(|()| stream.normal_array(1, 40, 1.0).row(0).to_owned());
    for (kind, plus_one) in [(NormKind::Rms, false), (NormKind::Layer, false), (NormKind::Rms, true), (NormKind::Layer, true)] {
        for with_bias in [false, true] {
            let of = |weight: Array1<f32>, bias: Array1<f32>| {
                Norm::new("norm", kind, weight, with_bias.then_some(bias), 1e-5).plus_one(plus_one).apply(&x)
            };
            let plain = of(weight.clone(), bias.clone());
            for strided in [backwards, every_second] {
                assert_eq!(of(strided(&weight), strided(&bias)), plain, "{kind:?}, plus one: {plus_one}, bias: {with_bias}");
            }
            assert_ne!(plain, of(Array1::ones(40), Array1::zeros(40)), "a weight that nobody reads");
        }
    }
    let mut layer = Linear::new("linear", stream.normal_array(40, 40, 1.0), Some(bias.clone()));
    let plain = layer.apply(&x);
    layer.set_bias(Some(every_second(&bias))).unwrap();
    assert_eq!(layer.apply(&x), plain);
    // Training walks it as a slice.
    assert_eq!(layer.bias().and_then(|b| b.as_slice()), bias.as_slice());
    let new = Linear::new("linear", layer.weight().unwrap().clone(), Some(backwards(&bias)));
    assert_eq!(new.bias().and_then(|b| b.as_slice()), bias.as_slice());
}

#[test]
fn distances_may_be_given_column_by_column() {
    let (heads, tokens) = (Heads { queries: 3, keys: 3, dim: 4 }, 9);
    let mut stream = Seed(8).stream("distances");
    let [q, k, v] = [(); 3].map(|()| stream.normal_array(tokens, 12, 1.0));
    let values = stream.normal_array(3, 2 * tokens, 1.0);
    let of = |values: Array2<f32>| {
        let mut out = Array2::zeros((tokens, 12));
        let seen = Seen { q: q.view(), k: k.view(), v: v.view(), first: 0 };
        let rule = AttentionRule { causal: true, window: None, scale: 0.5, cap: None };
        attend(&[seen], heads, &rule, Some(&Distances::new(values, tokens)), out.view_mut());
        out
    };
    assert_eq!(of(column_major(&values)), of(values));
}
