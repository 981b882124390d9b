//! Methods that run on other weights than those that they train: their derivatives by central differences, their closed forms by chance.

use super::at;
use lacuna::mask::{Mask, Pattern};
use lacuna::nn::{LayerInfo, Layers, NamedLayers};
use lacuna::rng::Seed;
use lacuna::sparse_training::{
    EdgePopup, GumbelPattern, HardConcrete, MaskChoice, Movement, Reparametrization, SoftMovement, SoftThreshold, TopKast,
};
use ndarray::{Array2, array};

/// One a layer, `(out, in)`.
type Matrices = Vec<Array2<f32>>;

/// Two layers, their weights, and a loss Σ c ⊙ f(W, s).
fn layers() -> (NamedLayers, Vec<LayerInfo>, Matrices, Matrices) {
    let mut stream = Seed(4).stream("maps");
    let mut draw = |rows, cols| stream.normal_array(rows, cols, 1.0);
    let weights = vec![draw(3, 8), draw(2, 4)];
    let slopes = vec![draw(3, 8), draw(2, 4)];
    let model = NamedLayers::new([("a", weights[0].clone()), ("b", weights[1].clone())]).unwrap();
    let infos = model.layers();
    (model, infos, weights, slopes)
}

/// Holds what `back` gives to central differences of Σ c ⊙ f(W, s) + `added`(s), at the entries of W and s that are asked for.
fn agrees_with_differences<R: Reparametrization + Clone>(map: &R, of_weights: bool, added: &dyn Fn(&R, &[Array2<f32>]) -> f64) {
    let (model, infos, mut weights, slopes) = layers();
    let mut map = map.clone();
    map.layers(&model).unwrap();
    let mut random = Seed(1).stream("differences");
    let own = map.begin(&infos, &mut weights, &mut random).unwrap();
    let loss = |weights: &[Array2<f32>], own: &[Array2<f32>]| -> f64 {
        // The same random numbers each time.
        let (mut map, mut random) = (map.clone(), random.clone());
        let effective = map.effective(&infos, weights, own, at(3, 10), &mut random).unwrap();
        let sum = |(f, c): (&Array2<f32>, &Array2<f32>)| f.iter().zip(c).map(|(f, c)| f64::from(*f) * f64::from(*c)).sum::<f64>();
        effective.weights.iter().zip(&slopes).map(sum).sum::<f64>() + added(&map, own)
    };
    let mut here = map.clone();
    here.effective(&infos, &weights, &own, at(3, 10), &mut random.clone()).unwrap();
    let step = 1e-2;
    for l in 0..2 {
        let (of_w, of_s) = here.back(l, &weights[l], &own[l], slopes[l].clone());
        let mut checked = 0;
        for (which, analytic) in [(0, &of_w), (1, &of_s)] {
            if which == 0 && !of_weights {
                continue;
            }
            for index in 0..analytic.len() {
                let place = (index / analytic.ncols(), index % analytic.ncols());
                let moved = |by: f32| {
                    let (mut w, mut s) = (weights.clone(), own.clone());
                    let entry = if which == 0 { &mut w[l][place] } else { &mut s[l][place] };
                    *entry += by;
                    loss(&w, &s)
                };
                let (up, down, mid) = (moved(step), moved(-step), loss(&weights, &own));
                // At a kink the two sides differ, and there is no derivative to compare with.
                let (right, left) = ((up - mid) / f64::from(step), (mid - down) / f64::from(step));
                if (right - left).abs() > 0.05 * (1.0 + right.abs()) {
                    continue;
                }
                let expected = 0.5 * (right + left);
                let found = f64::from(analytic[place]);
                assert!(
                    (found - expected).abs() < 4e-3 * (1.0 + expected.abs()),
                    "{map:?} layer {l} {which} {place:?}: {found} for {expected}"
                );
                checked += 1;
            }
        }
        assert!(2 * checked > of_s.len(), "only {checked} entries are smooth");
    }
}

#[test]
fn soft_thresholds_have_the_slopes_of_their_weights_and_of_the_threshold() {
    agrees_with_differences(&SoftThreshold { initial: -1.0, skip: vec![] }, true, &|_, _| 0.0);
}

#[test]
fn a_soft_threshold_by_hand() {
    let (model, ..) = layers();
    let mut map = SoftThreshold { initial: 0.0, skip: vec!["a".into()] }; // g(0) = 1/2
    let infos = map.layers(&model).unwrap();
    assert_eq!(infos.len(), 1);
    let weight = vec![array![[1.0, -0.75, 0.5, -0.25], [0.0, 2.0, 0.0, 0.0]]];
    let own = vec![array![[0.0]]];
    let found = map.effective(&infos, &weight, &own, at(0, 1), &mut Seed(0).stream("")).unwrap();
    assert_eq!(found.weights[0], array![[0.5, -0.25, 0.0, 0.0], [0.0, 1.5, 0.0, 0.0]]);
    assert_eq!((found.used[0].run, found.used[0].gradient), (3, 3));
    let gradient = array![[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]];
    let (of_w, of_s) = map.back(0, &weight[0], &own[0], gradient);
    assert_eq!(of_w, array![[1.0, 2.0, 0.0, 0.0], [0.0, 32.0, 0.0, 0.0]]);
    assert_eq!(of_s, array![[-0.25 * (1.0 - 2.0 + 32.0)]]);
}

/// λ/n Σ P(gate is not 0).
fn expected_gates(map: &HardConcrete, own: &[Array2<f32>]) -> f64 {
    let n: usize = own.iter().map(|s| s.len()).sum();
    let open = |s: &Array2<f32>| s.iter().map(|a| f64::from(HardConcrete::probability(*a))).sum::<f64>();
    f64::from(map.penalty) / n as f64 * own.iter().map(open).sum::<f64>()
}

#[test]
fn hard_concrete_gates_have_the_slopes_of_their_draw_and_of_their_price() {
    for pattern in [Pattern::Unstructured, Pattern::Rows, Pattern::Cols, Pattern::Block { rows: 2, cols: 4 }] {
        let mut map = HardConcrete::new(3.0);
        (map.pattern, map.open) = (pattern, 0.5);
        agrees_with_differences(&map, true, &expected_gates);
    }
}

#[test]
fn the_expected_number_of_hard_concrete_gates_is_that_of_many_draws() {
    let mut random = Seed(7).stream("gates");
    for log_alpha in [-3.0, -1.0, 0.0, 2.0] {
        let draws = 40_000;
        let open = (0..draws).filter(|_| HardConcrete::gate(log_alpha, random.uniform().clamp(1e-6, 1.0 - 1e-6)) > 0.0).count();
        let (found, expected) = (open as f64 / draws as f64, f64::from(HardConcrete::probability(log_alpha)));
        let closed = 1.0 / (1.0 + (2.0 / 3.0 * (0.1f64 / 1.1).ln() - f64::from(log_alpha)).exp());
        assert!((expected - closed).abs() < 1e-6, "{expected} for {closed}");
        let sd = (expected * (1.0 - expected) / draws as f64).sqrt();
        assert!((found - expected).abs() < 5.0 * sd, "log α {log_alpha}: {found} of the draws, {expected} by the formula");
    }
    assert_eq!((HardConcrete::settled(-10.0), HardConcrete::settled(10.0)), (0.0, 1.0));
}

#[test]
fn gumbel_masks_have_the_slopes_of_their_draw_and_of_their_penalty() {
    let mut map = GumbelPattern::new(2, 4);
    (map.scale, map.temperature) = ((3.0, 3.0), (2.0, 2.0));
    agrees_with_differences(&map, false, &|_, _| 0.0);
}

#[test]
fn a_gumbel_penalty_is_the_slope_of_the_weight_that_is_left() {
    let (model, infos, weights, _) = layers();
    let mut map = GumbelPattern::new(1, 4);
    (map.scale, map.temperature, map.penalty) = ((3.0, 3.0), (2.0, 2.0), 5.0);
    map.layers(&model).unwrap();
    let mut random = Seed(1).stream("penalty");
    let own = map.begin(&infos, &mut weights.clone(), &mut random).unwrap();
    let squares = |own: &[Array2<f32>]| -> f64 {
        let f = map.clone().effective(&infos, &weights, own, at(0, 10), &mut random.clone()).unwrap();
        let sum: f64 = f.weights.iter().flatten().map(|f| f64::from(*f).powi(2)).sum();
        -5.0 / 32.0 * sum
    };
    let mut here = map.clone();
    here.effective(&infos, &weights, &own, at(0, 10), &mut random.clone()).unwrap();
    let (_, found) = here.back(0, &weights[0], &own[0], Array2::zeros((3, 8)));
    for (place, found) in found.indexed_iter() {
        let moved = |by: f32| {
            let mut own = own.clone();
            own[0][place] += by;
            squares(&own)
        };
        let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((f64::from(*found) - expected).abs() < 1e-3, "{place:?}: {found} for {expected}");
    }
}

#[test]
fn gumbel_masks_begin_at_a_prior_and_end_at_the_largest_logit() {
    let (model, infos, weights, _) = layers();
    let prior = Mask::from_fn(3, 8, |_, col| col % 4 > 1);
    let mut map = GumbelPattern::new(2, 4);
    map.masks = vec![("a".into(), prior.clone())];
    map.prior = 100.0; // far above the noise
    map.layers(&model).unwrap();
    let own = map.begin(&infos, &mut weights.clone(), &mut Seed(2).stream("prior")).unwrap();
    assert_eq!(own[0].dim(), (6, 6));
    let found = map.finish(&infos, &weights, &own).unwrap();
    assert_eq!(found[0].mask, prior);
    for pruned in &found {
        Pattern::Nm { n: 2, m: 4 }.check(&pruned.mask).unwrap();
        assert_eq!(pruned.mask.kept() * 2, pruned.mask.len());
    }
}

#[test]
fn top_kast_runs_on_the_largest_and_learns_at_more_of_them() {
    let model = NamedLayers::new([("a", array![[5.0, -4.0, 3.0, -2.0, 1.0, 0.5, 0.25, 0.1]])]).unwrap();
    let mut map = TopKast::new(MaskChoice::uniform(0.75));
    (map.explored, map.decay) = (0.25, 0.1);
    let infos = map.layers(&model).unwrap();
    let mut weights = vec![model.read("a").unwrap().into_owned()];
    let own = map.begin(&infos, &mut weights, &mut Seed(0).stream("")).unwrap();
    let found = map.effective(&infos, &weights, &own, at(0, 4), &mut Seed(0).stream("")).unwrap();
    assert_eq!(found.weights[0], array![[5.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]);
    assert_eq!((found.used[0].run, found.used[0].gradient), (2, 4));
    let (of_w, _) = map.back(0, &weights[0], &own[0], Array2::ones((1, 8)));
    // 1 + 2 λ w at A, 1 + 2 λ w / D at the rest of B, nothing beyond.
    let expected = array![[2.0, 0.2, 1.0 + 0.8 * 3.0, 1.0 - 0.8 * 2.0, 0.0, 0.0, 0.0, 0.0]];
    assert!((&of_w - &expected).iter().all(|d| d.abs() < 1e-6), "{of_w}");
}

#[test]
fn movement_scores_are_sums_of_gradient_times_weight() {
    let (model, infos, weights, slopes) = layers();
    let mut map = Movement::new(MaskChoice::uniform(0.5));
    map.layers(&model).unwrap();
    let own = map.begin(&infos, &mut weights.clone(), &mut Seed(0).stream("")).unwrap();
    assert!(own.iter().flatten().all(|s| *s == 0.0));
    // A quarter of the way through the cubic schedule from 0.1 to 0.7: 32 · ½ (1 − 0.75³) = 9.25 of both layers go, so 23 stay, 17.25 of them in
    // the first.
    let found = map.effective(&infos, &weights, &own, at(25, 100), &mut Seed(0).stream("")).unwrap();
    let kept = 17;
    assert_eq!([found.used[0].run, found.used[0].gradient, found.used[1].run], [kept, 24, 6]);
    let (of_w, of_s) = map.back(0, &weights[0], &own[0], slopes[0].clone());
    assert_eq!(of_s, &slopes[0] * &weights[0]);
    // All scores tie, so the first weights stay.
    let order = Array2::from_shape_fn((3, 8), |(r, c)| r * 8 + c);
    ndarray::Zip::from(&of_w).and(&slopes[0]).and(&order).for_each(|d, g, at| assert_eq!(*d, if *at < kept { *g } else { 0.0 }));
}

#[test]
fn soft_movement_keeps_what_passes_the_threshold_and_pays_for_scores() {
    let (model, infos, weights, _) = layers();
    let mut map = Movement::new(MaskChoice::uniform(0.5));
    map.soft = Some(SoftMovement { threshold: 0.1, penalty: 32.0 });
    map.layers(&model).unwrap();
    let mut own = map.begin(&infos, &mut weights.clone(), &mut Seed(0).stream("")).unwrap();
    own[0][[0, 0]] = -2.2; // σ = 0.0998
    own[0][[0, 1]] = -2.19; // σ = 0.1006
    map.effective(&infos, &weights, &own, at(0, 10), &mut Seed(0).stream("")).unwrap();
    let (_, of_s) = map.back(0, &weights[0], &own[0], Array2::zeros((3, 8)));
    assert!((of_s[[1, 1]] - 0.25).abs() < 1e-6 && (of_s[[0, 0]] - 0.0998 * 0.9002).abs() < 1e-3, "{of_s}");
    let mask = &map.finish(&infos, &weights, &own).unwrap()[0].mask;
    assert!(!mask.get(0, 0) && mask.get(0, 1) && mask.kept() == 23);
}

#[test]
fn edge_popup_takes_signed_constants_and_learns_scores_alone() {
    let (model, _, weights, slopes) = layers();
    let mut map = EdgePopup::new(MaskChoice::uniform(0.5));
    let infos = map.layers(&model).unwrap();
    let mut random = Seed(3).stream("scores");
    let mut drawn = weights.clone();
    let own = map.begin(&infos, &mut drawn, &mut random).unwrap();
    assert!(own[0].iter().all(|s| s.abs() <= 1.0 / 8f32.sqrt()));
    assert!(drawn[0].iter().zip(&weights[0]).all(|(d, w)| (d - (2.0f32 / 4.0).sqrt().copysign(*w)).abs() < 1e-6));
    let found = map.effective(&infos, &drawn, &own, at(0, 1), &mut random).unwrap();
    let mut magnitudes: Vec<f32> = own[0].iter().map(|s| s.abs()).collect();
    magnitudes.sort_by(f32::total_cmp);
    for (place, f) in found.weights[0].indexed_iter() {
        assert_eq!(*f, if own[0][place].abs() >= magnitudes[12] { drawn[0][place] } else { 0.0 });
    }
    let (of_w, of_s) = map.back(0, &drawn[0], &own[0], slopes[0].clone());
    assert!(of_w.iter().all(|d| *d == 0.0) && !map.trains_model());
    assert_eq!(of_s, &slopes[0] * &drawn[0] * own[0].mapv(f32::signum));
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_their_numbers() {
    let (model, ..) = layers();
    let says = |error: lacuna::Result<Vec<LayerInfo>>, expected: &str| {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    let mut gates = HardConcrete::new(-1.0);
    says(gates.layers(&model), "penalty: -1 is no finite number of at least 0");
    (gates.penalty, gates.pattern) = (1.0, Pattern::Nm { n: 2, m: 4 });
    says(gates.layers(&model), "2:4");
    says(GumbelPattern::new(2, 3).layers(&model), "3 does not divide the 8 inputs");
    says(
        GumbelPattern::new(8, 16).layers(&NamedLayers::new([("a", Array2::zeros((1, 16)))]).unwrap()),
        "12870 masks keep 8 of 16",
    );
    says(SoftThreshold { initial: f32::NAN, skip: vec![] }.layers(&model), "initial: NaN is not finite");
    says(SoftThreshold { initial: 0.0, skip: vec!["c".into()] }.layers(&model), "'c'");
    let mut movement = Movement::new(MaskChoice::uniform(0.5));
    movement.start = 0.8;
    says(movement.layers(&model), "0.8 to 0.7");
    says(Movement::new(MaskChoice::uniform(1.0)).layers(&model), "1");
    let mut kast = TopKast::new(MaskChoice::uniform(0.5));
    kast.every = 0;
    says(kast.layers(&model), "every: 0 steps between selections");
}
