use crate::common::*;
use lacuna::allocate::{Evolution, Global, Lamp, Level, Outliers, Owl, Uniform, dynamic, evolve};
use lacuna::io::Dtype;
use lacuna::mask::{Budget, Pattern};
use lacuna::prune::{CalibrationInputs, Correction, Sequential, allocated, language_layers, of_blocks, outliers};
use lacuna::rng::Seed;
use lacuna::solve::SparseGpt;
use ndarray::Array2;

fn names(only: &[&str], skip: &[&str]) -> Vec<String> {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let strings = |v: &[&str]| v.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    language_layers(&folder, &config, &strings(only), &strings(skip)).unwrap().into_iter().map(|l| l.name).collect()
}

#[test]
fn patterns_of_names_say_which_layers_are_pruned() {
    assert_eq!(names(&[], &[]).len(), 21);
    assert_eq!(names(&["mlp"], &[]).len(), 9);
    assert_eq!(names(&["*.q_proj", "*.k_proj"], &[]).len(), 6);
    assert_eq!(names(&[], &["model.layers.0.*", "down"]).len(), 12);
    assert_eq!(names(&["layers.2."], &["mlp"]).len(), 4);
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let text = language_layers(&folder, &config, &["q_porj".into()], &[]).unwrap_err().to_string();
    assert!(text.starts_with("no layer is named 'q_porj' among 21"), "{text}");
    let text = language_layers(&folder, &config, &[], &["*".into()]).unwrap_err().to_string();
    assert_eq!(text, "skip: no layer is left to prune");
}

#[test]
fn allocations_share_out_exactly_and_patterns_fix_theirs() {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &[]).unwrap();
    let weights: usize = layers.iter().map(|l| l.shape.0 * l.shape.1).sum();
    for allocation in [&Uniform as &dyn lacuna::allocate::Allocate, &Global, &Lamp] {
        let budgets = allocated(&folder, &config, &layers, Pattern::Unstructured, 0.6, (allocation, None)).unwrap();
        let kept: usize = budgets.values().map(|b| b.keep()).sum();
        let off = if allocation.name() == "uniform" { layers.len() } else { 0 };
        let expected = weights - (0.6 * weights as f64).round() as usize;
        assert!(kept.abs_diff(expected) <= off, "{}: {kept} and {expected}", allocation.name());
        let nm = allocated(&folder, &config, &layers, Pattern::Nm { n: 1, m: 4 }, 0.75, (allocation, None)).unwrap();
        assert!(nm.values().all(|b| b.keep() * 4 == b.of()), "{}", allocation.name());
    }
    let text = allocated(&folder, &config, &layers, Pattern::Nm { n: 1, m: 5 }, 0.8, (&Uniform, None)).unwrap_err().to_string();
    assert!(text.starts_with("layer model.layers.0.self_attn.q_proj: pattern 1:5 does not fit"), "{text}");
}

#[test]
fn owl_gives_more_to_blocks_with_more_outliers_and_sums_exactly() {
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let layers = language_layers(&folder, &config, &[], &["*.1.mlp.*".into()]).unwrap();
    let found = outliers(&folder, &config, &sequences(&tokens(10)), &layers, 2.0, &memory(0), on).unwrap();
    let (shares, sizes): (Vec<f64>, Vec<usize>) = found.into_iter().map(|b| (b.percent, b.weights)).unzip();
    assert_eq!(sizes, [1920, 768, 1920]);
    assert!(shares.iter().all(|s| *s > 0.0 && *s < 100.0), "{shares:?}");
    let total = Budget::from_sparsity(4608, 0.7).unwrap();
    let parts = Owl::default().shares(&shares, &sizes, total).unwrap();
    assert_eq!(parts.iter().map(|p| p.keep()).sum::<usize>(), total.keep());
    let budgets = of_blocks(&layers, &parts, Pattern::Unstructured).unwrap();
    assert_eq!(budgets.values().map(|b| b.keep()).sum::<usize>(), total.keep());
    let density = |i: usize| parts[i].keep() as f64 / parts[i].of() as f64;
    let most = (0..3).max_by(|&a, &b| shares[a].total_cmp(&shares[b])).unwrap();
    assert!((0..3).all(|i| density(i) <= density(most) + 1e-3));
}

#[test]
fn owl_s_densities_spread_over_two_lambda_and_stay_within_zero_and_one() {
    let total = |keep| Budget::new(keep, 4000).unwrap();
    let densities = |lambda: f64, shares: &[f64], keep: usize| -> Vec<f64> {
        let parts = Owl { lambda }.shares(shares, &[1000; 4], total(keep)).unwrap();
        assert_eq!(parts.iter().map(|p| p.keep()).sum::<usize>(), keep);
        parts.iter().map(|p| p.keep() as f64 / 1000.0).collect()
    };
    // The published formula: spread by share, centred on 0.3.
    assert_eq!(densities(0.08, &[1.0, 2.0, 3.0, 5.0], 1200), [0.23, 0.27, 0.31, 0.39]);
    assert_eq!(densities(0.08, &[2.0; 4], 1200), [0.3; 4]);
    let clamped = densities(0.4, &[0.0, 0.0, 0.0, 1.0], 400);
    assert!(clamped[..3].iter().all(|d| *d < 0.01) && clamped[3] > 0.39, "{clamped:?}");
    let refuse = |owl: Owl, shares: &[f64], keep: Budget| owl.shares(shares, &[1000; 4], keep).unwrap_err().to_string();
    assert_eq!(refuse(Owl { lambda: 0.6 }, &[1.0; 4], total(9)), "lambda: 0.6 is not in [0, 0.5]; 0.08 is usual");
    assert_eq!(refuse(Owl::default(), &[1.0; 3], total(9)), "owl: 3 shares of outliers for 4 blocks");
    assert_eq!(refuse(Owl::default(), &[f64::NAN; 4], total(9)), "owl: a share of outliers is NaN");
    assert!(refuse(Owl::default(), &[1.0; 4], Budget::new(9, 10).unwrap()).ends_with("the 4 blocks have 4000 weights together"));
    let mut outliers = Outliers::new(5.0);
    assert_eq!(outliers.percent(), 0.0);
    outliers.add(&Array2::from_shape_fn((10, 10), |(r, c)| if (r, c) == (3, 4) { 100.0 } else { 1.0 }));
    assert_eq!(outliers.percent(), 1.0);
}

/// Levels of random costs and losses; dearer ones lose less.
fn database(seed: u64, layers: usize, levels: usize) -> Vec<Vec<Level>> {
    let mut stream = Seed(seed).stream("database");
    let mut layer = || {
        let mut loss = 10.0 * f64::from(stream.uniform());
        let mut cost = 1 + stream.below(4) as u64;
        let mut level = || {
            loss *= f64::from(0.2 + 0.7 * stream.uniform());
            cost += 1 + stream.below(5) as u64;
            Level { cost, loss }
        };
        (0..levels).map(|_| level()).collect()
    };
    (0..layers).map(|_| layer()).collect()
}

/// Every choice within the budget, and the least loss among them.
fn exhaustive(layers: &[Vec<Level>], budget: u64) -> f64 {
    let Some((first, rest)) = layers.split_first() else { return 0.0 };
    let affordable = first.iter().filter(|l| l.cost <= budget);
    affordable.map(|l| l.loss + exhaustive(rest, budget - l.cost)).fold(f64::INFINITY, f64::min)
}

#[test]
fn dynamic_programming_finds_the_best_of_all_choices() {
    for seed in 0..20 {
        let layers = database(seed, 5, 4);
        let costs = |f: fn(&Vec<Level>) -> u64| layers.iter().map(f).sum::<u64>();
        let (least, most) = (costs(|l| l[0].cost), costs(|l| l[3].cost));
        for budget in [least, (least + most) / 2, (least + 3 * most) / 4, most, 2 * most] {
            let choice = dynamic(&layers, budget, 10_000).unwrap();
            let cost: u64 = choice.iter().zip(&layers).map(|(&i, l)| l[i].cost).sum();
            let loss: f64 = choice.iter().zip(&layers).map(|(&i, l)| l[i].loss).sum();
            assert!(cost <= budget && (loss - exhaustive(&layers, budget)).abs() < 1e-9, "seed {seed}, budget {budget}: {loss}");
        }
        let text = dynamic(&layers, least - 1, 100).unwrap_err().to_string();
        assert_eq!(text, format!("budget: {} is less than the {least} of the cheapest levels", least - 1));
    }
    // Coarse steps round costs up: never above the budget.
    let layers = database(77, 8, 5);
    let choice = dynamic(&layers, 130, 20).unwrap();
    assert!(choice.iter().zip(&layers).map(|(&i, l)| l[i].cost).sum::<u64>() <= 130);
}

#[test]
fn evolution_never_loses_ground_stays_within_the_budget_and_repeats_itself() {
    let layers = database(5, 8, 6);
    let start = vec![2; 8];
    let budget: u64 = layers.iter().map(|l| l[2].cost).sum();
    // Losses that are no sums: neighbours make each other worse.
    let loss = |choice: &[usize]| -> f64 {
        let single: Vec<f64> = choice.iter().zip(&layers).map(|(&i, l)| l[i].loss).collect();
        single.iter().sum::<f64>() + single.windows(2).map(|w| w[0] * w[1]).sum::<f64>()
    };
    let search = Evolution { generations: 40, offspring: 16, seed: Seed(1) };
    let run = || {
        evolve(&layers, budget, &start, search, &mut |choice| {
            let cost: u64 = choice.iter().zip(&layers).map(|(&i, l)| l[i].cost).sum();
            assert!(cost <= budget, "{choice:?} costs {cost} of {budget}");
            Ok(loss(choice))
        })
        .unwrap()
    };
    let (choice, found) = run();
    assert_eq!((choice.clone(), found), run());
    assert_eq!(found, loss(&choice));
    assert!(found < 0.9 * loss(&start), "{found} after {}", loss(&start));
    let text = evolve(&layers, budget, &[0; 3], search, &mut |_| Ok(0.0)).unwrap_err().to_string();
    assert_eq!(text, "start: 3 levels for 8 layers");
    let text = evolve(&layers, budget, &[5; 8], search, &mut |_| Ok(0.0)).unwrap_err().to_string();
    assert!(text.starts_with("start: costs ") && text.ends_with(&format!("more than the budget of {budget}")), "{text}");
}

#[test]
fn settings_that_exclude_each_other_and_names_of_no_layer_are_errors() {
    let m = Model::new(Dtype::F32);
    let pruner = SparseGpt::default();
    let base = settings(&m.dir, &pruner, Pattern::Unstructured);
    let fail = |change: &dyn Fn(&mut lacuna::prune::LanguagePruning<'_>), ids: &[u32]| {
        let mut changed = base.clone();
        change(&mut changed);
        prune(&m.dir, &m.out("never"), ids, &changed).unwrap_err().to_string()
    };
    let ids = tokens(4);
    assert_eq!(fail(&|_| {}, &ids[..13]), "calibration: 13 tokens are not whole sequences of 12");
    assert!(fail(&|s| s.inputs = CalibrationInputs::Dense, &ids).starts_with("inputs: dense inputs have no pruned layers"));
    let correction = Some(Correction { inputs: 1.0, hidden_states: 0.0, damping: 0.01 });
    assert!(
        fail(&|s| (s.sequential, s.correction) = (Sequential::Block, correction), &ids).starts_with("correct: layers make up")
    );
    assert_eq!(fail(&|s| s.budgets.clear(), &ids), "layers: none is left to prune");
    let wrong = |s: &mut lacuna::prune::LanguagePruning<'_>| {
        s.budgets.insert("model.layers.0.q".into(), Budget::all(1));
    };
    assert!(fail(&wrong, &ids).starts_with("no layer is named 'model.layers.0.q' among 21"));
    // Of several the same one is told each time, though budgets lie in no order.
    for _ in 0..8 {
        let many = |s: &mut lacuna::prune::LanguagePruning<'_>| {
            s.budgets = ["q", "b", "x", "c", "y"].map(|name| (name.to_string(), Budget::all(1))).into();
        };
        assert!(fail(&many, &ids).starts_with("no layer is named 'b' among 21"));
    }
    let few = SparseGpt { damping: 0.0, ..pruner };
    let mut singular = base.clone();
    singular.pruner = &few;
    let text = prune(&m.dir, &m.out("singular"), &ids[..12], &singular).unwrap_err().to_string();
    assert!(text.starts_with("layer model.layers.0.self_attn.q_proj: Gram matrix: the 16 x 16 matrix is not"), "{text}");
    assert!(text.contains("12 tokens, damping 0"), "{text}");
    // Nothing is left of runs that did nothing: only the model.
    assert_eq!(std::fs::read_dir(m.folder.path()).unwrap().count(), 1);
}

#[test]
fn a_budget_of_nothing_buys_nothing_and_costs_beyond_64_bits_do_not_wrap() {
    let level = |cost, loss| Level { cost, loss };
    let layers = [vec![level(1, 0.0), level(0, 5.0)], vec![level(0, 2.0), level(3, 1.0)]];
    assert_eq!(dynamic(&layers, 0, 100).unwrap(), [1, 0]);
    let vast = [vec![level(u64::MAX, 0.0)], vec![level(u64::MAX, 0.0), level(1, 1.0)]];
    let text = dynamic(&vast, u64::MAX, 100).unwrap_err().to_string();
    assert_eq!(text, format!("budget: {} is less than the {} of the cheapest levels", u64::MAX, u128::from(u64::MAX) + 1));
    let search = Evolution { generations: 1, offspring: 1, seed: Seed(0) };
    let text = evolve(&vast[1..], 5, &[0], search, &mut |_| Ok(0.0)).unwrap_err().to_string();
    assert_eq!(text, format!("start: costs {}, more than the budget of 5", u64::MAX));
}

#[test]
fn a_loss_or_score_that_is_nan_is_refused_and_never_wins_or_loses() {
    let layers = database(5, 4, 3);
    let budget: u64 = layers.iter().map(|l| l[1].cost).sum();
    let search = Evolution { generations: 5, offspring: 4, seed: Seed(1) };
    for (at, place) in [(0, "at the start"), (3, "in generation 0, of the levels [")] {
        let mut calls = 0;
        let mut loss = |_: &[usize]| {
            calls += 1;
            Ok(if calls == at + 1 { f64::NAN } else { 1.0 })
        };
        let text = evolve(&layers, budget, &[1; 4], search, &mut loss).unwrap_err().to_string();
        assert!(text.starts_with(&format!("loss of a choice: NaN {place}")), "{text}");
    }
    let mut outliers = Outliers::new(5.0);
    outliers.add(&Array2::from_elem((2, 2), f32::NAN));
    assert!(outliers.percent().is_nan());
    let mut outliers = Outliers::new(f64::NAN);
    outliers.add(&Array2::ones((2, 2)));
    assert!(outliers.percent().is_nan());
    let m = Model::new(Dtype::F32);
    let (folder, config) = open(&m.dir);
    let all = language_layers(&folder, &config, &[], &[]).unwrap();
    for threshold in [f64::NAN, f64::INFINITY, -1.0] {
        let found = lacuna::prune::outliers(&folder, &config, &sequences(&tokens(2)), &all, threshold, &memory(0), on);
        let text = found.unwrap_err().to_string();
        assert_eq!(text, format!("owl-threshold: {threshold} is not a finite number of at least 0; 5 is usual"));
    }
}
