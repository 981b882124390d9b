use crate::close::assert_close;
use crate::common::*;
use lacuna::criteria::Evidence;
use lacuna::linalg::Cross;
use lacuna::mask::{Pattern, Scope};
use lacuna::rng::Seed;
use lacuna::solve::{Pruner, Retarget, SparseGpt};
use ndarray::Array2;

/// Dense inputs, those that earlier layers have changed, a weight and the drift of the stream.
fn inputs() -> (Array2<f32>, Array2<f32>, Array2<f32>, Array2<f32>) {
    let mut stream = Seed(8).stream("inputs");
    let dense = stream.normal_array(300, 12, 1.0);
    let changed = &dense * 0.8 + stream.normal_array(300, 12, 0.3);
    (dense, changed, stream.normal_array(5, 12, 1.0), stream.normal_array(300, 5, 0.5))
}

fn cross(a: &Array2<f32>, b: &Array2<f32>) -> Array2<f64> {
    let mut cross = Cross::new(a.ncols(), b.ncols());
    cross.update(a, b).unwrap();
    cross.matrix().clone()
}

#[test]
fn the_weight_is_the_least_squares_solution_towards_the_dense_outputs_and_stream() {
    let (dense, changed, weight, drift) = inputs();
    let layer = Layer::new(weight.clone(), &changed);
    let (crossed, drifted) = (cross(&dense, &changed), cross(&drift, &changed));
    for (alpha, beta) in [(1.0, 0.0), (0.0, 1.0), (0.5, 0.25)] {
        let retarget = Retarget { damping: 0.0, inputs: Some((alpha, &crossed)), hidden_states: Some((beta, &drifted)) };
        let found = retarget.run(&layer.evidence()).unwrap();
        // Y = X Wᵀ + α (X₀ − X) Wᵀ + β drift: by QR, on the inputs themselves.
        let wide = |a: &Array2<f32>| a.mapv(f64::from);
        let y = wide(&changed).dot(&wide(&weight).t())
            + (wide(&dense) - wide(&changed)).dot(&wide(&weight).t()) * alpha
            + wide(&drift) * beta;
        let expected = lacuna::linalg::lstsq(&wide(&changed), &y).unwrap();
        assert_close(&wide(&found), &expected.t(), 1e-4f64.next_down(), format!("α {alpha}, β {beta}"));
    }
    let stiff = Retarget { damping: 1e9, inputs: Some((1.0, &crossed)), hidden_states: None }.run(&layer.evidence()).unwrap();
    assert!(distance(&stiff, &weight) < 1e-6, "damping draws to the weight");
}

#[test]
fn pruning_towards_it_comes_nearer_to_the_dense_outputs() {
    let (dense, changed, weight, _) = inputs();
    let layer = Layer::new(weight.clone(), &changed);
    let crossed = cross(&dense, &changed);
    let target = Retarget { damping: 0.01, inputs: Some((1.0, &crossed)), hidden_states: None }.run(&layer.evidence()).unwrap();
    let wanted = dense.dot(&weight.t());
    let error = |w: &Array2<f32>| (changed.dot(&w.t()) - &wanted).mapv(|d| f64::from(d * d)).sum();
    let budget = keep(30, 60);
    let prune = |evidence: &Evidence<'_>| {
        SparseGpt::default().prune(evidence, Pattern::Unstructured, Scope::Layer, budget).unwrap().weight
    };
    let plain = prune(&layer.evidence());
    let towards = prune(&Evidence { weight: target.view(), ..layer.evidence() });
    assert!(error(&towards) < 0.95 * error(&plain), "{} and {}", error(&towards), error(&plain));
}

#[test]
fn products_of_other_shapes_are_errors_with_both() {
    let (dense, changed, weight, _) = inputs();
    let layer = Layer::new(weight, &changed);
    let wrong = cross(&dense, &dense.slice(ndarray::s![.., ..7]).to_owned());
    let text = Retarget { damping: 0.0, inputs: Some((1.0, &wrong)), hidden_states: None }
        .run(&layer.evidence())
        .unwrap_err()
        .to_string();
    assert_eq!(text, "layer blocks.3.o: products of dense and pruned inputs: expected shape [12, 12], found [12, 7]");
    let text = Retarget { damping: 0.0, inputs: None, hidden_states: Some((1.0, &wrong)) }
        .run(&layer.evidence())
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("expected shape [5, 12], found [12, 7]"), "{text}");
    let (right, nan) = (cross(&dense, &changed), cross(&dense, &changed).mapv(|_| f64::NAN));
    let fail = |inputs| {
        Retarget { damping: 0.0, inputs: Some(inputs), hidden_states: None }.run(&layer.evidence()).unwrap_err().to_string()
    };
    assert_eq!(fail((f64::NAN, &right)), "fraction of the inputs: NaN is not finite");
    assert!(fail((1.0, &nan)).starts_with("layer blocks.3.o: products of the inputs: NaN at row 0, column 0"));
    let mut cross = Cross::new(2, 3);
    assert!(cross.update(&Array2::zeros((4, 2)), &Array2::zeros((5, 3))).is_err());
    assert!(cross.update(&Array2::from_elem((4, 2), f32::INFINITY), &Array2::ones((4, 3))).is_err());
}
