use crate::common::*;
use lacuna::criteria::{Measured, Need, Wanda};
use lacuna::mask::{Mask, Pattern, Scope};
use lacuna::solve::{DsNoT, Pruner, Scored};
use ndarray::{Array1, Array2, array};

const NM: Pattern = Pattern::Nm { n: 2, m: 4 };

/// Inputs with means, of different sizes and signs.
fn layer(seed: u64) -> Layer {
    let mut layer = Layer::random(20, 40, 1, seed);
    let mut x = Layer::random(200, 40, 1, seed + 1).weight;
    x.columns_mut()
        .into_iter()
        .enumerate()
        .for_each(|(c, mut v)| v.mapv_inplace(|x| x * (0.5 + c as f32 / 40.0) + (c as f32 / 7.0).sin()));
    layer = Layer::new(layer.weight, &x);
    layer
}

/// What each output lacks on average.
fn errors(layer: &Layer, mask: &Mask) -> Array1<f64> {
    let mean = layer.measured.input_sums.as_ref().unwrap() / layer.measured.tokens as f64;
    let gone = mask.not().applied(&layer.weight).mapv(f64::from);
    gone.dot(&mean)
}

#[test]
fn one_exchange_by_hand() {
    // Means 1, 1, 1, -1; variances 1; norms by size of the weight alone. Wanda keeps 5 and -4 and drops 3 and 1: the output lacks
    // 3 - 1 = 2. What grows is 3; what goes is the kept weight of the other sign, -4.
    let measured = Measured {
        tokens: 2,
        input_squares: Some(array![4., 4., 4., 4.]),
        input_sums: Some(array![2., 2., 2., -2.]),
        ..Measured::default()
    };
    let layer = Layer { weight: array![[5., -4., 3., 1.]], measured };
    let wanda = Scored(&Wanda);
    let once = DsNoT { cycles: 1, ..DsNoT::new(&wanda) };
    let pruned = layer.prune_in(&once, Pattern::Unstructured, Scope::Row, 0.5).unwrap();
    assert_eq!(pruned.weight, array![[5., 0., 3., 0.]]);
    assert_eq!(pruned.loss, None);
    let never = DsNoT { threshold: 2.0, ..once };
    assert_eq!(layer.prune_in(&never, Pattern::Unstructured, Scope::Row, 0.5).unwrap().weight, array![[5., -4., 0., 0.]]);
}

#[test]
fn the_mean_output_comes_nearer_to_what_it_was_and_rows_keep_their_numbers() {
    let wanda = Scored(&Wanda);
    let dsnot = DsNoT::new(&wanda);
    for pattern in [Pattern::Unstructured, NM] {
        let (mut before, mut after) = (0.0, 0.0);
        for seed in 0..5 {
            let layer = layer(90 + seed);
            let first = layer.prune_in(&wanda, pattern, Scope::Row, 0.5).unwrap();
            let then = layer.prune_in(&dsnot, pattern, Scope::Row, 0.5).unwrap();
            pattern.check(&then.mask).unwrap();
            assert_eq!(then.mask.row_counts(), first.mask.row_counts());
            assert_eq!(then.weight, then.mask.applied(&layer.weight), "weights are not moved");
            before += errors(&layer, &first.mask).mapv(f64::abs).sum();
            after += errors(&layer, &then.mask).mapv(f64::abs).sum();
        }
        // Not by much on rows this short: an exchange may overshoot, and then the next one comes back.
        assert!(after < 0.9 * before, "{pattern}: mean error {before} before, {after} after");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_and_what_cannot_be_done_is_said() {
    let layer = layer(99);
    let wanda = Scored(&Wanda);
    let dsnot = DsNoT::new(&wanda);
    let run = || layer.prune_in(&dsnot, Pattern::Unstructured, Scope::Row, 0.5).unwrap();
    assert_eq!(on_threads(1, run), on_threads(2, run));
    assert!(dsnot.needs().contains(Need::InputSums) && dsnot.needs().contains(Need::InputSquares));
    let text = layer.prune(&dsnot, Pattern::Cols, 0.5).unwrap_err().to_string();
    assert_eq!(text, "pattern: dsnot exchanges single weights, which cols does not allow");
    let unmeasured = Layer { weight: Array2::ones((1, 4)), measured: Measured::default() };
    assert!(unmeasured.prune(&dsnot, NM, 0.5).unwrap_err().to_string().contains("no tokens were measured"));
}

#[test]
fn a_threshold_or_power_that_is_no_number_is_refused_and_an_error_that_is_none_stays_nan() {
    let (layer, wanda) = (layer(99), Scored(&Wanda));
    for (threshold, power, says) in [
        (f64::NAN, 1.0, "threshold: NaN is not a finite number of at least 0"),
        (-1.0, 1.0, "threshold: -1 "),
        (0.1, f64::NAN, "power: NaN "),
        (0.1, -1.0, "power: -1 "),
    ] {
        let dsnot = DsNoT { threshold, power, ..DsNoT::new(&wanda) };
        let text = layer.prune(&dsnot, Pattern::Unstructured, 0.5).unwrap_err().to_string();
        assert!(text.starts_with(says), "{text}");
    }
    let (w, zero, mut gram) = (Array2::<f32>::ones((1, 2)), Array2::<f32>::zeros((1, 2)), Array2::<f64>::eye(2));
    assert_eq!(lacuna::solve::squared_error(&w, &zero, &gram), 2.0);
    gram[[0, 1]] = f64::NAN;
    assert!(lacuna::solve::squared_error(&w, &zero, &gram).is_nan(), "no error of 0");
}
