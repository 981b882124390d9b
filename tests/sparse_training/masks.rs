//! Methods that change masks between steps: the sets that go and come, counted by hand and by a naive sort; phases and schedules.

use super::{at, descent, gradients};
use lacuna::allocate::{Erk, Global};
use lacuna::mask::{Mask, Pattern};
use lacuna::nn::{Layers, Method, NamedLayers, Optimizer, Parameters};
use lacuna::rng::Seed;
use lacuna::sparse_training::{Acdc, FixedMask, GradualMagnitude, MaskChoice, Rigl, SparseEvolution, SparseMethod, exchange};
use ndarray::{Array2, array};

/// What goes and comes, by sorting everything.
fn naive(mask: &Mask, weight: &Array2<f32>, growth: &Array2<f32>, count: usize) -> Mask {
    let cols = mask.cols();
    let place = |i: usize| (i / cols, i % cols);
    let mut kept: Vec<usize> = (0..mask.len()).filter(|i| mask.get(place(*i).0, place(*i).1)).collect();
    kept.sort_by(|a, b| weight[place(*b)].abs().total_cmp(&weight[place(*a)].abs()).then(a.cmp(b)));
    kept.truncate(kept.len() - count);
    let mut others: Vec<usize> = (0..mask.len()).filter(|i| !kept.contains(i)).collect();
    others.sort_by(|a, b| growth[place(*b)].total_cmp(&growth[place(*a)]).then(a.cmp(b)));
    kept.extend(&others[..count]);
    Mask::from_fn(mask.rows(), cols, |r, c| kept.contains(&(r * cols + c)))
}

#[test]
fn what_goes_and_comes_is_what_a_sort_of_everything_says() {
    let mut random = Seed(5).stream("exchange");
    for case in 0..200 {
        let (rows, cols) = (1 + random.below(6), 1 + random.below(9));
        let mut mask = Mask::from_fn(rows, cols, |_, _| random.below(3) > 0);
        mask.set(0, 0, true);
        // Few values, so that there are ties.
        let mut draw = || Array2::from_shape_simple_fn((rows, cols), || random.below(5) as f32 - 2.0);
        let (weight, growth) = (draw(), draw().mapv(f32::abs));
        let count = random.below(mask.kept().min(mask.len()) + 1);
        let found = exchange(&mask, &weight, &growth, count).unwrap();
        assert_eq!(found, naive(&mask, &weight, &growth, count), "case {case}: {mask:?} {weight} {growth} {count}");
        assert_eq!(found.kept(), mask.kept());
    }
    let one = Mask::full(1, 1);
    assert!(exchange(&one, &array![[1.0]], &array![[1.0]], 2).unwrap_err().to_string().contains("2"));
    assert!(exchange(&one, &array![[1.0]], &array![[f32::NAN]], 1).is_err());
}

#[test]
fn rigl_drops_the_smallest_and_grows_the_largest_gradients_in_place_of_a_step() {
    let mut model = NamedLayers::new([("a", array![[1.0, 0.2, 0.3, 4.0, 5.0, 6.0, 7.0, 8.0]])]).unwrap();
    let mut rigl = Rigl::new(MaskChoice::uniform(0.5)).every(10);
    rigl.fraction = 1.0; // at t = T_end / 2 half of it: 2 of 4
    rigl.begin(&mut model, Seed(0), 40).unwrap();
    let mask = Mask::from_array(&array![[true, true, true, true, false, false, false, false]]);
    model.set_mask("a.weight", None).unwrap();
    let weights = array![[1.0f32, 0.2, 0.3, 4.0, 0.0, 0.0, 0.0, 0.0]];
    model.visit_mut(&mut |_, v, _| v.copy_from_slice(weights.as_slice().unwrap())).unwrap();
    model.set_mask("a.weight", Some(mask)).unwrap();
    let g = || gradients([("a.weight", array![[9.0, 0.1, 0.2, 0.3, -3.0, 1.0, 2.0, 0.5]])]);
    let mut optimizer = Optimizer::new(Method::Sgd { momentum: 0.9, weight_decay: 0.0 });
    // T_end is 30; step 15 is no exchange at ΔT = 10, 20 is, 30 is not. k = ⌊4 · ½ (1 + cos(π 20/30))⌋ = ⌊4 · ¼⌋ = 1, barring rounding.
    assert_eq!(rigl.used(&model, at(15, 40)).unwrap()[0].gradient, 4);
    assert_eq!(rigl.used(&model, at(20, 40)).unwrap()[0].gradient, 8);
    assert_eq!(rigl.used(&model, at(30, 40)).unwrap()[0].gradient, 4);
    rigl.step(&mut model, g(), &mut optimizer, at(10, 40)).unwrap(); // ⌊4 · ½ (1 + ½)⌋ = 3
    assert_eq!(optimizer.steps(), 0, "an exchange is no step");
    // 0.2, 0.3 and 1.0 go; of all others than 4.0 the largest gradients are 9 (at once again), 3 and 2.
    let expected = Mask::from_array(&array![[true, false, false, true, true, false, true, false]]);
    assert_eq!(model.mask("a").unwrap().unwrap().into_owned(), expected);
    assert_eq!(model.read("a").unwrap(), array![[1.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0]]);
    rigl.step(&mut model, g(), &mut optimizer, at(11, 40)).unwrap();
    let moved = array![[1.0 - 0.9, 0.0, 0.0, 4.0 - 0.03, 0.3, 0.0, -0.2, 0.0]];
    assert!((&model.read("a").unwrap() - &moved).iter().all(|d| d.abs() < 1e-6));
    rigl.step(&mut model, g(), &mut optimizer, at(30, 40)).unwrap();
    assert_eq!(model.mask("a").unwrap().unwrap().into_owned(), expected, "after T_end the masks stay");
}

#[test]
fn what_is_remembered_of_a_weight_that_went_is_gone_when_it_comes_again() {
    let mut model = NamedLayers::new([("a", array![[1.0, 2.0]])]).unwrap();
    let mut optimizer = Optimizer::new(Method::Adam { weight_decay: 0.0 });
    optimizer.step(&mut model, &gradients([("a.weight", array![[1.0, 1.0]])]), 0.1).unwrap();
    optimizer.forget("a.weight", &Mask::from_array(&array![[true, false]]));
    let moments = &optimizer.moments()["a.weight"];
    assert!(moments.first[0] > 0.0 && moments.second[0] > 0.0);
    assert_eq!((moments.first[1], moments.second[1]), (0.0, 0.0));
    optimizer.forget_all();
    assert!(optimizer.moments().is_empty() && optimizer.steps() == 1);
}

#[test]
fn set_grows_by_chance_and_keeps_the_count_of_every_layer() {
    let weights = || [("a", Seed(1).stream("a").normal_array(20, 30, 1.0)), ("b", Seed(1).stream("b").normal_array(10, 20, 1.0))];
    let run = |seed| {
        let mut model = NamedLayers::new(weights()).unwrap();
        let mut set = SparseEvolution::new(MaskChoice::allocated(0.8, Erk)).every(2);
        set.begin(&mut model, seed, 10).unwrap();
        let kept = |model: &NamedLayers| model.masks().values().map(Mask::kept).collect::<Vec<_>>();
        let (before, first) = (kept(&model), model.masks());
        assert_eq!(before.iter().sum::<usize>(), 160);
        let zero = || gradients([("a.weight", Array2::zeros((20, 30))), ("b.weight", Array2::zeros((10, 20)))]);
        for step in 0..10 {
            set.step(&mut model, zero(), &mut descent(), at(step, 10)).unwrap();
            assert_eq!(kept(&model), before);
        }
        let after = model.masks();
        assert_ne!(first, after);
        // What stayed is larger than what went: no more than the smallest can have gone at each exchange.
        let gone: usize = first.iter().map(|(name, mask)| mask.minus(&after[name]).kept()).sum();
        assert!(gone > 0 && gone <= 3 * (160.0f64 * 0.3) as usize, "{gone}");
        after
    };
    assert_eq!(run(Seed(1)), run(Seed(1)));
    assert_ne!(run(Seed(1)), run(Seed(2)));
}

#[test]
fn alternating_phases_hold_masks_and_let_go_of_them() {
    let mut model = NamedLayers::new([("a", array![[4.0, 3.0, 2.0, 1.0]])]).unwrap();
    let mut acdc = Acdc::new(MaskChoice::allocated(0.5, Global));
    (acdc.warm_up, acdc.phase, acdc.last) = (0.2, 0.2, 0.2);
    acdc.begin(&mut model, Seed(0), 10).unwrap();
    assert_eq!(acdc.dense_until(10), 6);
    let mut optimizer = Optimizer::new(Method::Sgd { momentum: 0.5, weight_decay: 0.0 });
    for step in 0..10 {
        acdc.before_step(&mut model, at(step, 10)).unwrap();
        let compressed = [2, 3, 6, 7, 8, 9].contains(&step);
        assert_eq!(model.mask("a").unwrap().map(|m| m.kept()), compressed.then_some(2), "step {step}");
        if step == 4 {
            assert_eq!(model.read("a").unwrap(), array![[4.0 - 0.1 * (1.0 + 1.5 + 1.0 + 1.5), 3.0 - 0.5, 0.0, 0.0]]);
        }
        acdc.step(&mut model, gradients([("a.weight", Array2::ones((1, 4)))]), &mut optimizer, at(step, 10)).unwrap();
    }
    acdc.last = 0.9;
    assert!(acdc.begin(&mut model, Seed(0), 10).unwrap_err().to_string().contains("more than the run"));
}

#[test]
fn gradual_pruning_follows_the_cubic_schedule_and_never_gives_back() {
    let weight = Seed(2).stream("a").normal_array(10, 100, 1.0);
    let mut model = NamedLayers::new([("a", weight.clone())]).unwrap();
    let mut gradual = GradualMagnitude::new(MaskChoice::uniform(0.9)).every(7);
    (gradual.start, gradual.end) = (0.2, 0.8);
    gradual.begin(&mut model, Seed(0), 100).unwrap();
    let mut before = Mask::full(10, 100);
    for step in 0..100 {
        gradual.step(&mut model, gradients([("a.weight", Array2::zeros((10, 100)))]), &mut descent(), at(step, 100)).unwrap();
        let Some(mask) = model.mask("a").unwrap().map(|m| m.into_owned()) else {
            assert!(step < 21);
            continue;
        };
        assert!(mask.is_subset_of(&before));
        if step % 7 == 0 && (20..80).contains(&step) {
            let left = 1.0 - (step as f64 - 20.0) / 60.0;
            assert_eq!(1000 - mask.kept(), (900.0 * (1.0 - left.powi(3))).round() as usize, "step {step}");
        }
        before = mask;
    }
    assert_eq!(before.kept(), 100);
    let mut order: Vec<f32> = weight.iter().map(|w| w.abs()).collect();
    order.sort_by(f32::total_cmp);
    assert_eq!(before, Mask::from_array(&weight.mapv(|w| w.abs() >= order[900])));
}

#[test]
fn fixed_masks_stay_and_bad_settings_are_one_line() {
    let mut model = NamedLayers::new([("a", Array2::ones((4, 8)))]).unwrap();
    FixedMask::random(MaskChoice::uniform(0.5).pattern(Pattern::Nm { n: 1, m: 4 })).begin(&mut model, Seed(0), 1).unwrap();
    Pattern::Nm { n: 1, m: 4 }.check(&model.mask("a").unwrap().unwrap()).unwrap();
    let held = model.masks();
    FixedMask::default().begin(&mut model, Seed(1), 1).unwrap();
    assert_eq!(model.masks(), held);
    let mut says = |method: &mut dyn SparseMethod, expected: &str| {
        let error = method.begin(&mut model, Seed(0), 10).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    says(&mut Rigl::new(MaskChoice::uniform(0.5)).every(0), "every: 0 steps between exchanges");
    says(&mut Rigl::new(MaskChoice::uniform(0.5).pattern(Pattern::Rows)), "pattern: ");
    let mut rigl = Rigl::new(MaskChoice::uniform(0.5));
    rigl.stop = 1.5;
    says(&mut rigl, "stop: 1.5 is not in [0, 1]");
    says(&mut SparseEvolution::new(MaskChoice::uniform(-0.5)), "-0.5");
    says(&mut FixedMask::random(MaskChoice::uniform(0.5).skipping(["b"])), "'b'");
    says(&mut FixedMask::random(MaskChoice::uniform(0.5).skipping(["a"])), "none of 1 is left to prune");
    let mut gradual = GradualMagnitude::new(MaskChoice::uniform(0.5));
    gradual.end = 0.0;
    says(&mut gradual, "0 to 0 are no fractions of a run");
}
